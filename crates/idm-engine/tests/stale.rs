//! Flags that outlive what they were about.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_protocol::MutexOp;

const SECOND: Duration = Duration::from_secs(1);

/// Votes move twice before the first move can be seen on drive 1. Drive 2, which stayed in the first
/// move, is given back with the second one, although hosts with the oldest list count it.
#[test]
fn a_second_move_does_not_free_a_drive_that_hides_the_first_one() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    // The path to drive 0 fails a moment before that to drive 1.
    let mut refreshed = false;
    while !refreshed {
        bench.wait(&mut a);
        exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
            0 => Fate::Instead(idm_protocol::Status::Unreachable),
            at => {
                refreshed |= at == 1 && op(command) == Some(MutexOp::Refresh);
                Fate::Answered
            }
        });
    }
    let refreshed_at = bench.now;
    bench.paths[..2].fill(Path::Cut);
    assert!(travel(&mut bench, &mut a, &[1, 2, 3]));
    bench.exchange(&mut a);
    assert!(travel(&mut bench, &mut a, &[1, 3, 4]));
    bench.exchange(&mut a);
    let end = refreshed_at + LEASE - SECOND;
    bench.pass(&mut a, end.since(bench.now));
    bench.paths[..2].fill(Path::Up);
    let mut b = lv_lock(2);
    take(&mut bench, &mut b, X, &[0, 1, 2], &[]);
    assert_one_holder(&bench, &a, &b);
}

/// Another host asks for the lock twice, two minutes apart, and is refused by the drives that vote.
/// Each time it is met on drive 3 while the votes are to move there; drive 3 was given back and
/// named again in between.
#[test]
fn a_host_that_was_met_before_a_drive_was_left_is_met_for_the_first_time() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    for round in 0..2 {
        let mut visitor = lv_lock(2);
        visitor.request(acquire(&bench, X, &[3], &[0, 1, 2, 4]), bench.now).expect("in order");
        let first = visitor.next_command(bench.now).expect("a TRYLOCK");
        let reply = bench.perform(&first);
        let named = bench.members(&[0, 1, 2, 3]);
        a.spread(&named, bench.now);
        bench.exchange(&mut a);
        visitor.on_reply(first.token, reply, bench.now);
        bench.exchange(&mut visitor);
        assert!(done(&mut visitor).is_some_and(|outcome| is_held(&outcome)), "round {round}");
        let news = events(&mut a);
        assert!(believes(&bench, &a), "round {round}: {news:?}");
        spread(&mut bench, &mut a, &[0, 1, 2]);
        bench.pass(&mut a, LEASE * 2);
    }
}
