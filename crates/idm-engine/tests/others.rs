//! Other holders, and the VG's other drives: a holder that is met there prevents the lock, and a
//! drive that was not read does not count as read.

mod bench;

use bench::*;
use core::time::Duration;
use idm_engine::{DriveRef, Event, Lock, Notice, Outcome, Refusal, Timing};
use idm_protocol::{Limit, Mode, MutexOp, Reply, Status};

const CONVERTED: Outcome = Outcome::Converted { complete: true };

fn timing() -> Timing {
    Timing::for_lease(LEASE)
}

fn held(mode: Mode, on: &[u32], witnesses: &[u32]) -> (Bench, Lock) {
    let (mut bench, mut a) = (Bench::new(on.len() + witnesses.len()), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, mode, on, witnesses), GRANTED);
    (bench, a)
}

// ---- Holders on drives that vote ----

#[test]
fn one_sharer_that_counts_other_drives_is_enough_to_be_refused() {
    // Both share drive 2; one counts only it, the other counts our set.
    for first in [2, 3] {
        let mut bench = Bench::new(3);
        for n in [first, 5 - first] {
            match n {
                2 => assert_eq!(take(&mut bench, &mut lv_lock(n), S, &[2], &[]), GRANTED),
                _ => seize(&mut bench, &mut lv_lock(n), S, &[2]),
            }
        }
        let outcome = take(&mut bench, &mut lv_lock(1), X, &[0, 1, 2], &[]);
        assert!(is_held(&outcome), "host {first} first: {outcome:?}");
    }
}

#[test]
fn who_meets_sharers_of_a_majority_does_not_try_again() {
    let mut bench = Bench::new(3);
    for n in [2, 3] {
        seize(&mut bench, &mut lv_lock(n), S, &[1, 2]);
    }
    let mut a = lv_lock(1);
    a.request(bench.acquire(X), bench.now).expect("in order");
    bench.exchange(&mut a);
    let told = events(&mut a);
    assert!(!told.contains(&Event::Notice(Notice::SplitVote)), "{told:?}");
    assert!(matches!(told[..], [Event::Done(Outcome::Refused(Refusal::Held(_)))]), "{told:?}");
}

// ---- Changing to exclusive ----

#[test]
fn a_sharer_on_another_drive_of_the_vg_stands_in_the_way_of_a_change() {
    // Whether one of the drives that vote does not answer.
    for hung in [false, true] {
        let (mut bench, mut a) = held(S, &[0, 1, 2], &[3, 4]);
        assert_eq!(take(&mut bench, &mut lv_lock(2), S, &[3], &[]), GRANTED);
        if hung {
            bench.paths[2] = Path::Hung;
        }
        let begin = bench.now;
        let outcome = bench.run(&mut a, convert(X));
        let Outcome::Refused(Refusal::Held(conflicts)) = outcome else { panic!("{outcome:?}") };
        assert!(conflicts.iter().all(|c| c.host == host(2) && c.drive.0 == 3));
        assert_eq!(conflicts.len(), 1);
        assert!(bench.now.since(begin) <= timing().grace);
        assert_eq!(a.mode(), Some(S));
    }
}

#[test]
fn a_change_waits_for_a_drive_that_others_may_find_shared_but_not_for_ever() {
    let (mut bench, mut a) = held(S, &[0, 1, 2], &[3, 4]);
    bench.paths[2] = Path::Hung;
    let begin = bench.now;
    let outcome = bench.run(&mut a, convert(X));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert_eq!(bench.now.since(begin), timing().patience / 4);
}

/// A lock that has become shared. Drive 2 did that, and its answer was lost or made no sense.
fn shared_without_an_answer(status: Status) -> (Bench, Lock) {
    let (mut bench, mut a) = held(X, &[0, 1, 2], &[3, 4]);
    bench.pass(&mut a, SECOND);
    events(&mut a);
    a.request(convert(S), bench.now).expect("held");
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        2 => Fate::Despite(status),
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(CONVERTED));
    (bench, a)
}

/// As long as the lease of that record may run, a host that counts other drives may share the lock
/// because of it.
#[test]
fn a_drive_that_may_have_become_shared_stands_in_the_way_of_a_change_back() {
    for status in [Status::Uncertain, Status::Failed] {
        for (time, refused) in [(LEASE / 3, true), (LEASE * 5 / 6, true), (LEASE * 2, false)] {
            let (mut bench, mut a) = shared_without_an_answer(status);
            bench.paths[2] = Path::Cut;
            bench.pass(&mut a, time);
            let outcome = bench.run(&mut a, convert(X));
            assert_eq!(outcome != CONVERTED, refused, "{status:?} {time:?}: {outcome:?}");
        }
    }
}

/// In the same microsecond.
#[test]
fn a_change_back_that_the_drive_confirms_is_not_refused() {
    let (mut bench, mut a) = shared_without_an_answer(Status::Failed);
    assert_eq!(bench.run(&mut a, convert(X)), CONVERTED);
}

#[test]
fn a_change_that_drives_granted_around_a_lapse_is_refused() {
    let (mut bench, mut a) = held(S, &[0], &[1, 2]);
    let end = a.safe_until().expect("held");
    bench.paths[0] = Path::Cut;
    bench.pass(&mut a, (end - Duration::from_millis(10)).since(bench.now));
    bench.paths[0] = Path::Up;
    events(&mut a);
    let last = pass_with(&mut bench, &mut a, Duration::ZERO, |_| Fate::Open);
    a.request(convert(X), bench.now).expect("held");
    let open = exchange_with(&mut bench, &mut a, |_| Fate::Unheard);
    bench.now = end;
    for command in last.iter().chain(&open) {
        a.on_reply(command.token, Reply::Status(Status::Good), bench.now);
    }
    bench.exchange(&mut a);
    let told = events(&mut a);
    assert!(told.contains(&Event::Lapsed), "{told:?}");
    assert!(!told.contains(&Event::Done(CONVERTED)), "{told:?}");
    assert_eq!(a.mode(), Some(S));
}

#[test]
fn a_change_goes_on_after_a_lapse_that_is_over_at_once() {
    let (mut bench, mut a) = held(S, &[0, 1], &[]);
    // Drive 1 loses the lock, and does not give it back.
    bench.drives[1].reset();
    pass_with(&mut bench, &mut a, LEASE * 2, |command| match op(command) {
        Some(MutexOp::Trylock) => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    let end = a.safe_until().expect("held");
    let rest = (end - Duration::from_millis(10)).since(bench.now);
    pass_with(&mut bench, &mut a, rest, |_| Fate::Instead(Status::Unreachable));
    events(&mut a);
    a.request(convert(X), bench.now).expect("held");
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Unheard,
        _ => Fate::Open,
    });
    let [refresh, trylock] = &open[..] else { panic!("{open:?}") };
    bench.now = end;
    a.on_reply(refresh.token, Reply::Status(Status::Good), bench.now);
    a.on_reply(trylock.token, Reply::Status(Status::Unreachable), bench.now);
    bench.exchange(&mut a);
    let told = events(&mut a);
    assert!(told.contains(&Event::Regained), "{told:?}");
    assert!(told.contains(&Event::Done(CONVERTED)), "{told:?}");
}

#[test]
fn a_conflict_on_a_drive_that_is_not_named_any_more_is_none() {
    let (mut bench, mut a) = held(S, &[0, 1, 2], &[]);
    bench.drives.push(idm_emulator::Drive::new(idm_emulator::Profile::current()));
    let named = bench.members(&[0, 1, 2, 3]);
    a.spread(&named, bench.now);
    pass_with(&mut bench, &mut a, Duration::from_secs(1), |command| {
        match (command.drive.0, op(command)) {
            (3, Some(MutexOp::Trylock)) => Fate::Instead(Status::Conflict),
            (3, _) => Fate::Instead(Status::Unreachable),
            _ => Fate::Answered,
        }
    });
    let named = bench.members(&[0, 1, 2]);
    a.spread(&named, bench.now);
    pass_with(&mut bench, &mut a, Duration::from_secs(1), |_| Fate::Answered);
    events(&mut a);
    a.request(convert(X), bench.now).expect("held");
    pass_with(&mut bench, &mut a, Duration::from_secs(1), |_| Fate::Answered);
    assert_eq!(done(&mut a), Some(CONVERTED));
}

#[test]
fn a_drive_that_carries_the_lock_is_read_once_and_not_twice() {
    let (mut bench, mut a) = held(S, &[0], &[1, 2, 3]);
    spread(&mut bench, &mut a, &[0, 1]);
    bench.paths[2..].fill(Path::Cut);
    let outcome = bench.run(&mut a, convert(X));
    assert_eq!(outcome, Outcome::Refused(Refusal::Unconfirmed), "half of the drives is too few");
}

// ---- The VG's other drives ----

#[test]
fn a_member_that_may_still_answer_is_waited_for_where_it_decides() {
    for slow in [1, 2] {
        let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
        a.request(acquire(&bench, X, &[0, 1, 2], &[3, 4]), bench.now).expect("in order");
        let begin = bench.now;
        let open =
            pass_with(&mut bench, &mut a, timing().patience / 5, |command| match command.drive.0 {
                d if d == slow => Fate::Open,
                3 | 4 => Fate::Instead(Status::Unreachable),
                _ => Fate::Answered,
            });
        assert_eq!(done(&mut a), None, "drive {slow} has not said anything");
        assert!(bench.now.since(begin) > timing().grace);
        let reply = bench.perform(&open[0]);
        a.on_reply(open[0].token, reply, bench.now);
        assert_eq!(done(&mut a), Some(GRANTED));
    }
}

#[test]
fn drives_that_do_not_vote_are_read_after_those_that_do() {
    let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
    // Drive 4 is still being given back.
    assert_eq!(take(&mut bench, &mut a, X, &[4], &[]), GRANTED);
    bench.paths[4] = Path::Cut;
    bench.run(&mut a, RELEASE);
    seize(&mut bench, &mut lv_lock(1), X, &[0, 1]);
    bench.log.clear();
    let request = adopt_beside(&bench, &[0, 1], &[2, 3], None);
    a.request(request, bench.now).expect("in order");
    exchange_with(&mut bench, &mut a, |_| Fate::Open);
    assert_eq!(bench.log, [(0, "read"), (1, "read")]);
}

#[test]
fn a_full_drive_says_nothing_of_holders_elsewhere() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    a.request(acquire(&bench, X, &[0], &[1, 2]), bench.now).expect("in order");
    pass_with(&mut bench, &mut a, Duration::from_secs(6), |command| match command.drive.0 {
        0 => Fate::Answered,
        _ => Fate::Instead(Status::Full(Limit::Mutexes)),
    });
    assert_eq!(done(&mut a), Some(Outcome::Refused(Refusal::Unconfirmed)));
}

/// A lock on drive 0 that is on all four becomes shared while the others are not reached, and
/// exclusive again after `time`. Returns the result, and whether another host, which counts drive
/// 1, then shares the lock.
fn changed_back_after(time: Duration) -> (Outcome, bool) {
    let (mut bench, mut a) = held(X, &[0], &[1, 2, 3]);
    spread(&mut bench, &mut a, &[0, 1, 2, 3]);
    bench.paths[1..].fill(Path::Cut);
    assert_eq!(bench.run(&mut a, convert(S)), CONVERTED);
    bench.pass(&mut a, time);
    assert!(believes(&bench, &a));
    bench.paths.fill(Path::Up);
    let mut b = lv_lock(2);
    let shares = take(&mut bench, &mut b, S, &[1], &[0, 2, 3]) == GRANTED;
    bench.paths[1..].fill(Path::Cut);
    events(&mut a);
    (bench.run(&mut a, convert(X)), shares)
}

#[test]
fn a_drive_that_has_not_heard_of_a_change_is_still_held() {
    assert_eq!(changed_back_after(Duration::from_secs(1)), (CONVERTED, false));
}

#[test]
fn a_drive_whose_lease_is_over_is_neither_held_nor_read() {
    let (outcome, shares) = changed_back_after(LEASE * 2);
    assert!(shares, "host 2 has broken what was exclusive on drive 1");
    assert_eq!(outcome, Outcome::Refused(Refusal::Unconfirmed), "three drives were not read");
}

/// A BREAK put the lock on drive 1, too: this is one of five drives.
#[test]
fn a_drive_that_has_the_lock_beside_the_lvs_counts_once() {
    let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
    take(&mut bench, &mut lv_lock(9), X, &[1], &[]);
    bench.now = bench.now + LEASE * 2;
    assert_eq!(take(&mut bench, &mut a, S, &[0], &[1, 2, 3, 4]), GRANTED);
    assert_eq!(on(&a), [0, 1]);
    bench.paths[2..].fill(Path::Cut);
    let outcome = bench.run(&mut a, convert(X));
    assert_eq!(outcome, Outcome::Refused(Refusal::Unconfirmed));
}

/// A drive is won, reset while its value is read, and won again. Another host that counts the other
/// drive took that and read this one in between.
#[test]
fn who_wins_a_drive_again_reads_the_others_again() {
    let (mut bench, mut a, mut b) = (Bench::new(2), vg_lock(1), vg_lock(2));
    assert!(matches!(take(&mut bench, &mut a, X, &[0], &[1]), Outcome::Granted(_)));
    assert_eq!(bench.run(&mut a, RELEASE), Outcome::Released);
    a.request(acquire(&bench, X, &[0], &[1]), bench.now).expect("in order");
    let open = exchange_with(&mut bench, &mut a, |command| match op(command) {
        None if command.drive == DriveRef(0) => Fate::Open,
        _ => Fate::Answered,
    });
    let [read_value] = &open[..] else { panic!("only the value's read is open: {open:?}") };
    bench.drives[0].reset();
    assert!(matches!(take(&mut bench, &mut b, X, &[1], &[0]), Outcome::Granted(_)));
    let reply = bench.perform(read_value);
    a.on_reply(read_value.token, reply, bench.now);
    bench.exchange(&mut a);
    assert_one_holder(&bench, &a, &b);
    assert!(done(&mut a).is_some_and(|outcome| is_held(&outcome)));
}

/// The drive did not get the UNLOCK of the acquisition before.
#[test]
fn a_drive_that_an_earlier_acquisition_held_is_read_like_any_other() {
    let (mut bench, mut lock) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut lock, X, &[0], &[1, 2]), GRANTED);
    move_to(&mut bench, &mut lock, &[0, 1, 2]);
    bench.paths[1..].fill(Path::Cut);
    assert_eq!(bench.run(&mut lock, RELEASE), Outcome::Released);
    let outcome = take(&mut bench, &mut lock, X, &[0], &[1, 2]);
    assert_eq!(outcome, Outcome::Refused(Refusal::Unconfirmed));
}

/// The lock is taken again before a drive has got the UNLOCK. It does not vote this time.
#[test]
fn a_record_of_an_earlier_acquisition_is_given_back() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    a.request(RELEASE, bench.now).expect("in order");
    exchange_with(&mut bench, &mut a, |command| match command.drive {
        DriveRef(2) => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    events(&mut a);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1], &[2]), GRANTED);
    bench.pass(&mut a, LEASE * 2);
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, LEASE * 2);
    assert_eq!(bench.states(2), []);
}

/// A drive that the lock is not taken on still has a record of this host, from before the LV was
/// moved away. It is kept, and follows when the lock becomes exclusive.
#[test]
fn a_record_that_is_found_on_another_drive_follows_a_change() {
    let mut bench = Bench::new(3);
    assert_eq!(take(&mut bench, &mut lv_lock(1), S, &[2], &[0, 1]), GRANTED);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, S, &[0], &[1, 2]), GRANTED);
    bench.pass(&mut a, SECOND);
    assert_eq!(on(&a), [0, 2]);
    assert_eq!(bench.run(&mut a, convert(X)), Outcome::Converted { complete: true });
    assert_eq!(on(&a), [0, 2]);
}

/// A drive that is only read for other holders answers after the lock was granted without it.
#[test]
fn a_drive_that_is_read_too_slowly_is_not_taken() {
    let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
    a.request(acquire(&bench, X, &[0, 1, 2], &[3, 4]), bench.now).expect("in order");
    let open = pass_with(&mut bench, &mut a, SECOND * 10, |command| match command.drive.0 {
        4 => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(GRANTED));
    for command in open {
        let reply = bench.perform(&command);
        a.on_reply(command.token, reply, bench.now);
    }
    bench.pass(&mut a, LEASE);
    assert_eq!(said(&bench, 4), ["read"]);
}
