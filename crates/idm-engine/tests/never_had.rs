//! Drives that vote and that the holder does not have, seen by a host with an older list.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::Command;
use idm_protocol::{MutexOp, Status};

/// The holder never got drive 1, which votes after the move, like drive 2, which does not answer.
/// When the lease on drive 2 is over, a host with the older list requests the lock. Drive 0 is
/// kept, because drive 2 may hide the move for longer.
fn never_had(profile: Profile, moves_after: Duration, drive_1: Status, refresh: Status) {
    let (mut bench, mut a) = (Bench::with(6, profile), lv_lock(1));
    bench.paths[1] = Path::Cut;
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    let begin = bench.now;
    let mut away = |command: &Command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Refresh)) => Fate::Instead(refresh),
        (1, Some(MutexOp::Trylock)) => Fate::Instead(drive_1),
        (1 | 2, _) => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    };
    pass_with(&mut bench, &mut a, moves_after, &mut away);
    let named = bench.members(&[1, 2, 3, 4, 5]);
    a.spread(&named, bench.now);
    pass_with(&mut bench, &mut a, SECOND, &mut away);
    let ready = is_ready(&mut a).expect("drives 3 to 5");
    assert!(a.move_votes(&ready, bench.now));
    let end = begin + LEASE + Duration::from_millis(50);
    let left = end.since(bench.now);
    pass_with(&mut bench, &mut a, left, &mut away);
    bench.paths.fill(Path::Up);
    let mut b = lv_lock(2);
    take(&mut bench, &mut b, X, &[0, 1, 2], &[]);
    assert_one_holder(&bench, &a, &b);
}

const AWAY: Status = Status::Unreachable;
const LOST: Status = Status::Uncertain;

#[test]
fn a_drive_that_the_holder_never_had_does_not_keep_the_lock() {
    never_had(forgetful(), SECOND * 40, AWAY, LOST);
}

/// The same on firmware that stores marks: drive 0 is not refreshed between the move and the other
/// host's request.
#[test]
fn a_drive_that_the_holder_never_had_does_not_keep_the_lock_before_the_next_refresh() {
    never_had(Profile::current(), SECOND * 57, AWAY, AWAY);
}

/// The same where each TRYLOCK of drive 1 is lost, so that the holder may have it.
#[test]
fn a_drive_that_the_holder_may_have_does_not_keep_the_lock() {
    never_had(Profile::current(), SECOND * 57, LOST, AWAY);
}

/// A REFRESH of drive 2 was lost before the votes move, and arrives after that.
#[test]
fn a_late_refresh_may_hide_a_move_for_longer() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    let begin = bench.now;
    let open = pass_with(&mut bench, &mut a, SECOND * 40, |command| {
        match (command.drive.0, op(command)) {
            (2, Some(MutexOp::Refresh)) => Fate::Late,
            (2, _) => Fate::Instead(Status::Unreachable),
            _ => Fate::Answered,
        }
    });
    let mut away = |command: &Command| match command.drive.0 {
        2 => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    };
    let named = bench.members(&[2, 3, 4]);
    a.spread(&named, bench.now);
    pass_with(&mut bench, &mut a, SECOND / 10, &mut away);
    let ready = is_ready(&mut a).expect("drives 3 and 4");
    assert!(a.move_votes(&ready, bench.now));
    bench.perform(open.last().expect("a REFRESH"));
    let left = (begin + LEASE + SECOND * 5).since(bench.now);
    pass_with(&mut bench, &mut a, left, &mut away);
    assert_no_other_gets(&mut bench, &a, &[0, 1, 2]);
}
