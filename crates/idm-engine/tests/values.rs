//! Values: the wait for them, the drives that confirm one, and the fate of one that no drive can
//! confirm.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::profile::{OtherClass, SharedUnlock};
use idm_emulator::{DriveTime, Profile};
use idm_engine::{Command, Lock, Outcome, Request};
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, Status, ValueUpdate};

const CONVERTED: Outcome = Outcome::Converted { complete: true };

fn release(n: u64) -> Request {
    Request::Release { value: Some(value(n)) }
}

/// Some drives say GOOD to the UNLOCK, and do not store what it carries.
fn exchange_without_storing(bench: &mut Bench, lock: &mut Lock, on: &[u32]) {
    while let Some(mut command) = lock.next_command(bench.now) {
        if let DriveCommand::Mutex(MutexOp::Unlock, record) = &mut command.command {
            if on.contains(&command.drive.0) {
                record.value_update = ValueUpdate::Keep;
            }
        }
        let reply = bench.perform(&command);
        lock.on_reply(command.token, reply, bench.now);
    }
}

#[test]
fn values_that_are_on_their_way_are_waited_for() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    let mut reads = [0; 3];
    let open = exchange_with(&mut bench, &mut a, |command| match op(command) {
        None => {
            // The first look at each drive comes before its TRYLOCK.
            let count = &mut reads[command.drive.0 as usize];
            *count += 1;
            if *count > 1 { Fate::Open } else { Fate::Answered }
        }
        _ => Fate::Answered,
    });
    let mut outcomes = Vec::new();
    for command in &open {
        let reply = bench.perform(command);
        a.on_reply(command.token, reply, bench.now);
        outcomes.push(done(&mut a));
    }
    assert_eq!(outcomes[0], None, "{open:?}");
    assert!(outcomes.iter().flatten().any(|outcome| known(outcome) == Some(7)), "{outcomes:?}");
}

#[test]
fn more_values_than_are_needed_are_enough() {
    let (mut bench, all) = with_a_value(5);
    let mut a = vg_lock(1);
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    let mut taken = false;
    let last = exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
        (4, Some(MutexOp::Trylock)) => Fate::Open,
        _ => Fate::Answered,
    });
    for command in &last {
        assert_eq!(done(&mut a), None, "drive 4 may tell of a conflict");
        let reply = bench.perform(command);
        taken = true;
        a.on_reply(command.token, reply, bench.now);
    }
    assert!(taken);
    assert_eq!(done(&mut a).as_ref().and_then(known), Some(7), "at once");
    assert_eq!(published(&mut bench, &mut a, None), [None; 5], "enough drives have it");
}

#[test]
fn more_values_than_are_needed_leave_no_doubt() {
    let (mut bench, all) = with_a_value(5);
    let mut a = vg_lock(1);
    a.request(acquire(&bench, S, &all, &[]), bench.now).expect("in order");
    let last = exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
        (4, Some(MutexOp::Trylock)) => Fate::Open,
        _ => Fate::Answered,
    });
    let reply = bench.perform(&last[0]);
    a.on_reply(last[0].token, reply, bench.now);
    assert_eq!(done(&mut a).as_ref().and_then(known), Some(7));
    assert_eq!(bench.run(&mut a, convert(X)), CONVERTED);
    assert_eq!(published(&mut bench, &mut a, None), [None; 5]);
}

#[test]
fn a_drive_that_does_not_count_does_not_vouch_for_a_value() {
    for (late, expected) in [(false, Some(7)), (true, None)] {
        let profile = Profile { shared_unlock: SharedUnlock::LastStays, ..Profile::current() };
        let (mut bench, all) = with_a_value_on(Bench::with(3, profile));
        let mut a = vg_lock(1);
        take(&mut bench, &mut a, X, &all, &[]);
        a.request(convert(S), bench.now).expect("held");
        // This may make the next exclusive lock on drive 2 a shared one.
        exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
            2 if late => Fate::Late,
            _ => Fate::Answered,
        });
        events(&mut a);
        bench.run(&mut a, RELEASE);
        bench.drives[0].reset();
        let outcome = take(&mut bench, &mut a, X, &all, &[]);
        assert_eq!(known(&outcome), expected, "{outcome:?}");
    }
}

/// A sharer that published a value before it shared releases it, and only drive 0 gets the release.
/// Returns the result when that drive is silent, and drives 1 and 2 still have the value before.
fn released_on_one_drive(again: &[Request]) -> Outcome {
    // Drives give back a mutex that its holder did not renew, and do not report that it was left
    // over.
    let profile = Profile { expired_holder_may_relock: true, ..Profile::current() };
    let (mut bench, all) = with_a_value_on(Bench::with(3, profile));
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    let publishes = Request::Convert { mode: S, value: Some(value(8)) };
    assert_eq!(bench.run(&mut a, publishes), CONVERTED);
    bench.exchange(&mut a);
    bench.paths = vec![Path::Up, Path::Cut, Path::Cut];
    for request in [&[RELEASE], again].concat() {
        bench.run(&mut a, request);
        bench.pass(&mut a, LEASE * 2);
    }
    bench.paths = vec![Path::Cut, Path::Up, Path::Up];
    take(&mut bench, &mut a, X, &all, &[])
}

#[test]
fn one_drive_that_stored_a_value_is_not_counted_twice() {
    assert_eq!(released_on_one_drive(&[]), GRANTED);
}

#[test]
fn a_second_release_does_not_make_a_value_published() {
    assert_eq!(released_on_one_drive(&[RELEASE]), GRANTED);
}

#[test]
fn a_sharer_that_cannot_become_exclusive_stores_nothing() {
    let (mut bench, all) = (Bench::new(3), [0, 1, 2]);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut b, S, &all, &[]);
    take(&mut bench, &mut a, S, &all, &[]);
    assert!(is_held(&bench.run(&mut a, convert(X))));
    bench.exchange(&mut a);
    assert_eq!(published(&mut bench, &mut a, None), [None; 3]);
}

#[test]
fn a_dead_sharer_that_was_broken_for_a_change_spoils_the_value_everywhere() {
    let (mut bench, all) = with_a_value(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut a, S, &all, &[]);
    bench.paths[2] = Path::Cut;
    take(&mut bench, &mut b, S, &all, &[]);
    bench.paths[2] = Path::Up;
    bench.pass(&mut a, LEASE * 2);
    assert_eq!(bench.run(&mut a, convert(X)), CONVERTED);
    assert_eq!(published(&mut bench, &mut a, None), [Some(0); 3]);
}

#[test]
fn an_exclusive_lock_of_an_lv_stores_nothing() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    take(&mut bench, &mut a, X, &[0, 1, 2], &[]);
    assert_eq!(published(&mut bench, &mut a, Some(value(6))), [None; 3]);
}

/// Two hosts share a mutex with a value, and the second one leaves last. `destroys` is whether
/// drives take its DESTROY.
fn shared_by_two(destroys: bool) -> (Bench, Lock, Vec<u32>) {
    let (mut bench, all) = with_a_value(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut b, S, &all, &[]);
    take(&mut bench, &mut a, S, &all, &[]);
    bench.run(&mut b, RELEASE);
    a.request(RELEASE, bench.now).expect("always in order");
    exchange_with(&mut bench, &mut a, |command| match op(command) {
        Some(MutexOp::Destroy) if !destroys => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    events(&mut a);
    (bench, a, all)
}

#[test]
fn a_break_spoils_the_value_whatever_the_drive_answers() {
    for answer in Status::FAILURES {
        let (mut bench, all) = with_a_value(3);
        let mut dead = vg_lock(8);
        assert_eq!(known(&take(&mut bench, &mut dead, X, &all, &[])), Some(7));
        bench.now = bench.now + 2 * LEASE;
        let mut a = vg_lock(1);
        a.request(bench.acquire(X), bench.now).expect("in order");
        let mut outcome = None;
        while outcome.is_none() {
            let mut broken = [false; 3];
            exchange_with(&mut bench, &mut a, |command| match op(command) {
                Some(MutexOp::Break) => {
                    let again = core::mem::replace(&mut broken[command.drive.0 as usize], true);
                    if again { Fate::Answered } else { Fate::Despite(answer) }
                }
                _ => Fate::Answered,
            });
            outcome = done(&mut a);
            if outcome.is_none() {
                bench.wait(&mut a);
            }
        }
        let value = outcome.as_ref().and_then(known);
        assert_eq!(value, None, "its holder died, {answer:?}");
    }
}

#[test]
fn who_shared_a_mutex_last_removes_it_with_its_value() {
    let (bench, ..) = shared_by_two(true);
    assert!((0..3).all(|drive| bench.states(drive).is_empty()));
}

#[test]
fn who_shared_a_mutex_without_a_value_last_removes_it_too() {
    let (mut bench, all) = (Bench::new(3), [0, 1, 2]);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut b, S, &all, &[]);
    take(&mut bench, &mut a, S, &all, &[]);
    bench.run(&mut b, RELEASE);
    bench.run(&mut a, RELEASE);
    assert!((0..3).all(|drive| bench.states(drive).is_empty()));
}

#[test]
fn a_value_that_is_to_be_removed_with_its_mutex_is_not_believed() {
    let (mut bench, mut a, all) = shared_by_two(false);
    let outcome = take(&mut bench, &mut a, X, &all, &[]);
    assert_eq!(known(&outcome), None, "{outcome:?}");
}

#[test]
fn a_value_that_was_published_since_is_believed() {
    let (mut bench, mut a, all) = shared_by_two(true);
    let mut c = vg_lock(3);
    take(&mut bench, &mut c, X, &all, &[]);
    bench.run(&mut c, release(9));
    let outcome = take(&mut bench, &mut a, X, &all, &[]);
    assert_eq!(known(&outcome), Some(9), "{outcome:?}");
}

#[test]
fn a_drive_that_left_stores_the_value_of_its_release() {
    let (mut bench, all) = with_a_value(4);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    bench.paths[3] = Path::Cut;
    bench.run(&mut a, release(8));
    take(&mut bench, &mut a, X, &[0, 1, 2], &[]);
    bench.run(&mut a, RELEASE);
    bench.paths[3] = Path::Up;
    bench.pass(&mut a, LEASE / 2);
    let outcome = take(&mut bench, &mut vg_lock(2), X, &[3], &[]);
    assert_eq!(known(&outcome), Some(8), "{outcome:?}");
}

#[test]
fn a_late_answer_of_a_drive_that_was_not_missed_is_no_news() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    a.request(bench.acquire(X), bench.now).expect("in order");
    let open = pass_with(&mut bench, &mut a, Duration::from_secs(1), |command| {
        if command.drive.0 == 2 { Fate::Unheard } else { Fate::Answered }
    });
    assert_eq!(done(&mut a), Some(GRANTED));
    a.on_reply(open[0].token, Reply::Status(Status::Good), bench.now);
    assert_eq!(on(&a), [0, 1, 2]);
    assert_eq!(events(&mut a), []);
}

#[test]
fn what_an_unlock_of_nothing_is_answered_does_not_store_a_value() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    // Drive 0 does not get the TRYLOCK, and answers GOOD to the UNLOCK nevertheless. Drive 2's
    // UNLOCK is lost. So only drive 1 has the new value.
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    let fate = |command: &Command| match (command.drive.0, op(command)) {
        (0, Some(MutexOp::Trylock)) => Fate::Instead(Status::Uncertain),
        (0, Some(MutexOp::Unlock)) => Fate::Instead(Status::Good),
        (0, Some(MutexOp::Destroy)) => Fate::Instead(Status::Conflict),
        (2, Some(MutexOp::Unlock)) => Fate::Open,
        _ => Fate::Answered,
    };
    pass_with(&mut bench, &mut a, Duration::from_millis(50), fate);
    assert_eq!(done(&mut a).as_ref().and_then(known), Some(7));
    a.request(Request::Release { value: Some(value(8)) }, bench.now).expect("held");
    let open = exchange_with(&mut bench, &mut a, fate);
    assert_eq!(done(&mut a), Some(Outcome::Released));
    // The same host takes the lock and releases it without a new value. Then drive 2 is unlocked.
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    pass_with(&mut bench, &mut a, Duration::from_millis(200), |_| Fate::Answered);
    assert!(matches!(done(&mut a), Some(Outcome::Granted(_))));
    bench.run(&mut a, RELEASE);
    a.on_reply(open[0].token, Reply::Status(Status::Uncertain), bench.now);
    bench.pass(&mut a, LEASE);
    // A host that meets the drives with the old value does not believe it.
    bench.paths[1] = Path::Cut;
    let outcome = take(&mut bench, &mut vg_lock(2), X, &all, &[]);
    assert_eq!(outcome, GRANTED);
}

#[test]
fn a_value_that_too_few_drives_show_is_stored_again() {
    for (mode, shares_later) in [(X, false), (X, true), (S, false)] {
        let (mut bench, all) = with_a_value_on(Bench::with(3, forgetful()));
        let mut first = vg_lock(1);
        assert_eq!(known(&take(&mut bench, &mut first, X, &all, &[])), Some(7));
        first.request(release(8), bench.now).expect("held");
        exchange_without_storing(&mut bench, &mut first, &[0, 2]);
        let mut a = vg_lock(2);
        assert_eq!(known(&take(&mut bench, &mut a, mode, &all, &[])), Some(8));
        if shares_later {
            assert_eq!(bench.run(&mut a, convert(S)), CONVERTED);
        }
        bench.run(&mut a, RELEASE);
        bench.pass(&mut a, Duration::from_secs(1));
        bench.paths[1] = Path::Cut;
        let outcome = take(&mut bench, &mut vg_lock(3), X, &all, &[]);
        assert_eq!(known(&outcome), Some(8), "{mode}, {shares_later}");
    }
}

/// Of five drives, all but drive 2 have the last value, but drive 3 may become shared at any time.
#[test]
fn a_drive_that_does_not_count_does_not_show_that_a_value_is_stored() {
    let profile = Profile { shared_unlock: SharedUnlock::LastStays, ..Profile::current() };
    let (mut bench, all) = with_a_value_on(Bench::with(5, profile));
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut a, S, &all, &[]);
    pass_with(&mut bench, &mut a, LEASE / 2, |command| match (command.drive.0, op(command)) {
        (3, Some(MutexOp::Refresh)) => Fate::Late,
        _ => Fate::Answered,
    });
    bench.run(&mut a, RELEASE);
    take(&mut bench, &mut b, X, &all, &[]);
    b.request(release(8), bench.now).expect("held");
    exchange_without_storing(&mut bench, &mut b, &[2]);
    // Drive 4 is waited for until all others have shown their values.
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        4 => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), None);
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    assert_eq!(done(&mut a).as_ref().and_then(known), Some(8));
    let at_once = published(&mut bench, &mut a, None);
    assert_eq!(at_once, [Some(8); 4], "drive 3 is first made exclusive for certain");
}

#[test]
fn a_value_that_an_unlock_stored_after_a_lost_one_is_believed() {
    let (mut bench, all) = with_a_value(1);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    a.request(release(8), bench.now).expect("held");
    let mut lost = false;
    pass_with(&mut bench, &mut a, LEASE / 2, |command| match op(command) {
        Some(MutexOp::Unlock) if !core::mem::replace(&mut lost, true) => {
            Fate::Instead(Status::Uncertain)
        }
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(Outcome::Released));
    assert_eq!(known(&take(&mut bench, &mut a, X, &all, &[])), Some(8));
}

/// Drive 2 carried out an earlier UNLOCK whose answer was lost, and says GOOD to the next one.
/// Drive 1 does not get the release.
#[test]
fn a_drive_that_may_have_been_unlocked_does_not_help_to_publish_a_value() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    a.request(RELEASE, bench.now).expect("held");
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        2 => Fate::Despite(Status::Uncertain),
        _ => Fate::Answered,
    });
    done(&mut a);
    let request = acquire(&bench, X, &all, &[]);
    run_with(&mut bench, &mut a, request, |_| Fate::Answered);
    a.request(release(8), bench.now).expect("held");
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        1 => Fate::Instead(Status::Uncertain),
        _ => Fate::Answered,
    });
    done(&mut a);
    // Drive 1 is not read by the next request, which another host keeps from the lock.
    bench.paths[1] = Path::Cut;
    assert_eq!(take(&mut bench, &mut vg_lock(2), X, &all, &[]), GRANTED);
    bench.paths[1] = Path::Up;
    let outcome = take(&mut bench, &mut a, X, &all, &[]);
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    bench.pass(&mut a, LEASE / 2);
    let time = DriveTime::from_micros(bench.now.as_micros());
    let left = bench.drives[1].table(time).iter().map(|record| record.value).max();
    assert_ne!(left, Some(value(7)));
}

/// Drive 0 stores the value of a release, and drive 1 does not get it. Drive 2 never had the lock,
/// but says GOOD to each UNLOCK: first to one that carries zero, because a TRYLOCK may be late,
/// then to one without a value.
#[test]
fn a_drive_that_never_had_the_lock_does_not_help_to_publish_a_value() {
    let profile = Profile {
        expired_holder_may_relock: true,
        destroy_by_stranger: false,
        ..Profile::current()
    };
    let (mut bench, all) = with_a_value_on(Bench::with(3, profile));
    let mut a = vg_lock(1);
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Trylock)) => Fate::Instead(Status::Uncertain),
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a).as_ref().and_then(known), Some(7));
    bench.log.clear();
    bench.paths[1] = Path::Cut;
    bench.run(&mut a, release(8));
    bench.pass(&mut a, LEASE * 2);
    assert_eq!(said(&bench, 2), ["unlock", "destroy", "unlock"]);
    bench.paths = vec![Path::Cut, Path::Up, Path::Up];
    assert_eq!(take(&mut bench, &mut a, X, &all, &[]), GRANTED);
}

/// Firmware that stores nothing on the UNLOCK of a shared lock.
fn forgetful() -> Profile {
    Profile {
        shared_unlock: SharedUnlock::LastStays,
        shared_unlock_stores_value: false,
        ..Profile::current()
    }
}

/// Two hosts that share the lock on one drive with value 7. The first has changed the value to 8
/// by its change to shared.
fn shared_after_a_publication_on(profile: Profile) -> (Bench, Lock, Lock, Vec<u32>) {
    let (mut bench, all) = with_a_value_on(Bench::with(1, profile));
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut a, X, &all, &[]);
    let publishes = Request::Convert { mode: S, value: Some(value(8)) };
    assert_eq!(bench.run(&mut a, publishes), CONVERTED);
    bench.exchange(&mut a);
    assert_eq!(take(&mut bench, &mut b, S, &all, &[]), GRANTED);
    (bench, a, b, all)
}

fn shared_after_a_publication() -> (Bench, Lock, Lock, Vec<u32>) {
    shared_after_a_publication_on(forgetful())
}

/// Two hosts that share the lock on one drive with value 7. The first broke a dead holder, which
/// may have changed it.
fn shared_after_a_death() -> (Bench, Lock, Lock, Vec<u32>) {
    let (mut bench, all) = with_a_value_on(Bench::with(1, forgetful()));
    take(&mut bench, &mut vg_lock(9), X, &all, &[]);
    bench.now = bench.now + LEASE * 2;
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    assert_eq!(take(&mut bench, &mut a, S, &all, &[]), GRANTED);
    assert_eq!(take(&mut bench, &mut b, S, &all, &[]), GRANTED);
    (bench, a, b, all)
}

/// Two hosts that share the lock on one drive with value 7. The first became exclusive beside a
/// dead sharer that had published another value; its change removed that sharer.
fn shared_after_a_dead_sharer() -> (Bench, Lock, Lock, Vec<u32>) {
    let profile = Profile { promotion_removes_expired: true, ..forgetful() };
    let (mut bench, mut dead, mut a, all) = shared_after_a_publication_on(profile);
    bench.run(&mut dead, RELEASE);
    bench.pass(&mut a, LEASE * 2);
    assert_eq!(bench.run(&mut a, convert(X)), CONVERTED);
    assert_eq!(bench.run(&mut a, convert(S)), CONVERTED);
    let mut b = vg_lock(3);
    assert_eq!(take(&mut bench, &mut b, S, &all, &[]), GRANTED);
    (bench, a, b, all)
}

/// The change to exclusive removes a dead sharer from two of three drives, before it is refused for
/// a living one on the third. `answer` is the answer of the two drives.
fn refused_after_a_removal(answer: Status) {
    let profile = Profile { promotion_removes_expired: true, ..forgetful() };
    let (mut bench, all) = with_a_value_on(Bench::with(3, profile));
    let (mut dead, mut a) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut dead, X, &all, &[]);
    let publishes = Request::Convert { mode: S, value: Some(value(8)) };
    assert_eq!(bench.run(&mut dead, publishes), CONVERTED);
    bench.exchange(&mut dead);
    assert_eq!(take(&mut bench, &mut a, S, &all, &[]), GRANTED);
    bench.pass(&mut a, LEASE * 2);
    take(&mut bench, &mut vg_lock(3), S, &[2], &[]);
    let outcome =
        run_with(&mut bench, &mut a, convert(X), |command| match (command.drive.0, op(command)) {
            (_, None) => Fate::Instead(Status::Failed),
            (0 | 1, Some(MutexOp::Refresh)) => Fate::Despite(answer),
            _ => Fate::Answered,
        });
    assert!(is_held(&outcome), "{outcome:?}");
    bench.exchange(&mut a);
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, LEASE / 2);
    bench.paths[2] = Path::Cut;
    assert_eq!(take(&mut bench, &mut vg_lock(4), X, &all, &[]), GRANTED, "{answer:?}");
}

#[test]
fn a_refused_change_does_not_forget_whom_it_removed() {
    [Status::Good, Status::Failed, Status::Uncertain].into_iter().for_each(refused_after_a_removal);
}

/// The host reads no table after it has won the drive. So it does not know of the dead sharer that
/// its change to exclusive removes.
#[test]
fn who_has_not_read_the_tables_may_share_with_others() {
    let profile = Profile { promotion_removes_expired: true, ..forgetful() };
    let (mut bench, mut dead, _, all) = shared_after_a_publication_on(profile);
    bench.run(&mut dead, RELEASE);
    let (mut a, mut looked) = (vg_lock(3), false);
    let request = acquire(&bench, S, &all, &[]);
    let outcome = run_with(&mut bench, &mut a, request, |command| match op(command) {
        None if core::mem::replace(&mut looked, true) => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    assert_eq!(outcome, GRANTED);
    bench.pass(&mut a, LEASE * 2);
    assert_eq!(bench.run(&mut a, convert(X)), CONVERTED);
    bench.run(&mut a, RELEASE);
    assert_eq!(take(&mut bench, &mut vg_lock(4), X, &all, &[]), GRANTED);
}

/// A late change to shared of the lock before lets a host in that counts one drive only, after that
/// drive was won.
#[test]
fn a_holder_in_the_table_of_a_value_is_in_the_way() {
    let (mut bench, all) = with_a_value(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut a, X, &all, &[]);
    a.request(convert(S), bench.now).expect("held");
    let late = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Late,
        _ => Fate::Answered,
    });
    a.request(RELEASE, bench.now).expect("held");
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    events(&mut a);
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    let mut won = false;
    let open = exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
        (0, Some(MutexOp::Refresh)) => {
            won = true;
            Fate::Answered
        }
        (0, None) if won => Fate::Open,
        _ => Fate::Answered,
    });
    bench.perform(&late[0]);
    assert_eq!(take(&mut bench, &mut b, S, &[0], &[]), GRANTED);
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    bench.pass(&mut a, Duration::from_secs(10));
    let outcome = done(&mut a).expect("an end");
    assert!(is_held(&outcome), "{outcome:?}");
    assert_one_holder(&bench, &a, &b);
}

/// Drive 2 says once that it does not know the lock, which it has.
#[test]
fn a_drive_that_lied_is_still_to_get_the_published_value() {
    let (mut bench, all) = with_a_value_on(Bench::with(3, forgetful()));
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut a, X, &all, &[]);
    let publishes = Request::Convert { mode: S, value: Some(value(8)) };
    assert_eq!(bench.run(&mut a, publishes), CONVERTED);
    bench.exchange(&mut a);
    assert_eq!(take(&mut bench, &mut b, S, &all, &[]), GRANTED);
    let mut lied = false;
    pass_with(&mut bench, &mut a, LEASE / 2, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Refresh)) if !core::mem::replace(&mut lied, true) => {
            Fate::Despite(Status::NotFound)
        }
        _ => Fate::Answered,
    });
    assert!(lied && on(&a) == all, "it has all drives again");
    bench.log.clear();
    bench.run(&mut a, RELEASE);
    assert!((0..3).all(|drive| said(&bench, drive) == ["refresh"]), "{:?}", bench.log);
}

/// An earlier life published 8 by its change to shared, and another host shares. The next life
/// cannot read the drives, and gives the orphan up before they answer again.
#[test]
fn what_an_earlier_life_published_is_not_forgotten_with_its_orphan() {
    for unlock_of_other_class in
        [OtherClass::Accepted, OtherClass::Terminated, OtherClass::CheckCondition]
    {
        let profile = Profile { unlock_of_other_class, ..forgetful() };
        let (mut bench, earlier, mut b, all) = shared_after_a_publication_on(profile);
        drop(earlier);
        bench.paths = vec![Path::Cut];
        let mut again = vg_lock(1);
        let request = adopt(&bench, &all, None);
        bench.run(&mut again, request);
        bench.run(&mut again, RELEASE);
        bench.paths = vec![Path::Up];
        bench.pass(&mut again, Duration::from_secs(5));
        bench.run(&mut b, RELEASE);
        bench.pass(&mut b, Duration::from_secs(5));
        bench.pass(&mut again, Duration::from_secs(5));
        let outcome = take(&mut bench, &mut vg_lock(3), X, &all, &[]);
        assert_ne!(known(&outcome), Some(7), "{unlock_of_other_class:?}");
    }
}

/// Lets a lock send one command, if it has one.
fn exchange_one(bench: &mut Bench, lock: &mut Lock) {
    let Some(command) = lock.next_command(bench.now) else { return };
    let reply = bench.perform(&command);
    lock.on_reply(command.token, reply, bench.now);
}

#[test]
fn a_published_value_is_stored_when_the_other_sharers_have_gone() {
    let (mut bench, mut a, mut b, all) = shared_after_a_publication();
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, LEASE / 4);
    assert_eq!(on(&a), all, "its record stays beside the other sharer's");
    bench.run(&mut b, RELEASE);
    bench.pass(&mut a, Duration::from_secs(1));
    assert!(a.is_idle());
    assert_eq!(known(&take(&mut bench, &mut vg_lock(3), X, &all, &[])), Some(8));
}

/// The change to exclusive begins a new lease, so there is time to repeat the UNLOCK.
#[test]
fn a_published_value_is_stored_although_the_first_lease_is_nearly_over() {
    let (mut bench, mut a, mut b, all) = shared_after_a_publication();
    bench.run(&mut a, RELEASE);
    for time in [LEASE / 2, LEASE / 2 - Duration::from_secs(1)] {
        bench.pass(&mut a, time);
        b.on_timer(bench.now);
        bench.exchange(&mut b);
    }
    bench.run(&mut b, RELEASE);
    let mut refused = 0;
    pass_with(&mut bench, &mut a, LEASE / 2, |command| match op(command) {
        Some(MutexOp::Unlock) if refused < 5 => {
            refused += 1;
            Fate::Instead(Status::TryAgain)
        }
        _ => Fate::Answered,
    });
    assert_eq!(refused, 5);
    assert_eq!(known(&take(&mut bench, &mut vg_lock(3), X, &all, &[])), Some(8));
}

#[test]
fn a_value_that_a_publisher_could_not_store_is_not_believed() {
    let (mut bench, mut a, mut b, all) = shared_after_a_publication();
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, LEASE / 2);
    bench.exchange(&mut b);
    bench.pass(&mut a, LEASE * 2);
    assert!(a.is_idle());
    assert_eq!(bench.states(0).len(), 2, "its lease has ended there");
    b.on_timer(bench.now);
    bench.run(&mut b, RELEASE);
    assert_eq!(take(&mut bench, &mut vg_lock(3), X, &all, &[]), GRANTED);
}

/// Two sharers leave at once: the first sends some commands, the second some, the first some more.
/// Then a third host asks. Returns its outcome.
fn asked_while_sharers_leave(
    (mut bench, mut a, mut b, all): (Bench, Lock, Lock, Vec<u32>),
    commands: [usize; 3],
) -> Outcome {
    a.request(RELEASE, bench.now).expect("held");
    b.request(RELEASE, bench.now).expect("held");
    for (turn, commands) in commands.into_iter().enumerate() {
        for _ in 0..commands {
            exchange_one(&mut bench, if turn == 1 { &mut b } else { &mut a });
        }
    }
    let mut c = vg_lock(4);
    c.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    loop {
        bench.exchange(&mut c);
        if let Some(outcome) = done(&mut c) {
            return outcome;
        }
        bench.exchange(&mut a);
        bench.exchange(&mut b);
        let locks = [&mut a, &mut b, &mut c];
        let next = locks.iter().filter_map(|lock| lock.next_deadline()).min();
        bench.now = bench.now.max(next.expect("c waits for its deadline"));
        locks.into_iter().for_each(|lock| lock.on_timer(bench.now));
    }
}

#[test]
fn a_wrong_value_is_not_believed_while_sharers_leave() {
    for n in 0..4 * 4 * 4 {
        let commands = [n % 4, n / 4 % 4, n / 16];
        for start in [shared_after_a_publication, shared_after_a_death, shared_after_a_dead_sharer]
        {
            let outcome = asked_while_sharers_leave(start(), commands);
            assert_ne!(known(&outcome), Some(7), "after {commands:?} commands");
        }
    }
}

/// The change to shared has no answer, and arrives before the UNLOCK.
#[test]
fn a_value_is_stored_after_a_late_change_to_shared() {
    let (mut bench, all) = with_a_value_on(Bench::with(1, forgetful()));
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    let publishes = Request::Convert { mode: S, value: Some(value(8)) };
    a.request(publishes, bench.now).expect("held");
    let late = exchange_with(&mut bench, &mut a, |_| Fate::Late);
    late.iter().for_each(|command| drop(bench.perform(command)));
    pass_with(&mut bench, &mut a, LEASE / 2, |_| Fate::Instead(Status::Uncertain));
    assert_eq!(done(&mut a), Some(Outcome::Converted { complete: false }));
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, LEASE / 2);
    assert!(a.is_idle());
    assert_eq!(known(&take(&mut bench, &mut vg_lock(2), X, &all, &[])), Some(8));
}

/// The new acquisition begins before the value of the one before is stored.
#[test]
fn a_value_that_was_to_be_replaced_is_not_left_by_the_next_acquisition() {
    let (mut bench, mut a, mut b, all) = shared_after_a_publication();
    bench.run(&mut a, RELEASE);
    assert_eq!(take(&mut bench, &mut a, S, &all, &[]), GRANTED);
    a.request(RELEASE, bench.now).expect("held");
    b.request(RELEASE, bench.now).expect("held");
    bench.exchange(&mut a);
    bench.exchange(&mut b);
    assert_eq!(on(&a), all, "its record stays");
    bench.pass(&mut a, Duration::from_secs(1));
    assert_eq!(take(&mut bench, &mut vg_lock(3), X, &all, &[]), GRANTED);
}

/// A host that took a mutex with this value on three drives, and read the value of so many.
fn held_after_reading(mode: Mode, last: Option<u64>, read: usize) -> (Bench, Lock) {
    let profile = Profile { shared_unlock: SharedUnlock::EachStays, ..Profile::current() };
    let mut bench = Bench::with(3, profile);
    let all = [0, 1, 2];
    let mut first = vg_lock(9);
    take(&mut bench, &mut first, X, &all, &[]);
    bench.run(&mut first, Request::Release { value: last.map(value) });
    let (mut a, mut looks) = (vg_lock(1), [0; 3]);
    a.request(acquire(&bench, mode, &all, &[]), bench.now).expect("in order");
    exchange_with(&mut bench, &mut a, |command| match op(command) {
        None => {
            let drive = command.drive.0 as usize;
            looks[drive] += 1;
            // The first look at each drive comes before its TRYLOCK.
            let answers = looks[drive] == 1 || drive < read;
            if answers { Fate::Answered } else { Fate::Instead(Status::Unreachable) }
        }
        _ => Fate::Answered,
    });
    let outcome = done(&mut a);
    assert_eq!(outcome.as_ref().and_then(known), last.filter(|_| read >= 2), "{outcome:?}");
    (bench, a)
}

/// The values in its UNLOCKs.
fn left_by_a_host(mode: Mode, last: Option<u64>, read: usize) -> Vec<Option<u64>> {
    let (mut bench, mut a) = held_after_reading(mode, last, read);
    published(&mut bench, &mut a, None)
}

#[test]
fn a_value_that_nobody_may_have_changed_stays() {
    let (mut bench, mut a) = held_after_reading(X, Some(7), 0);
    bench.pass(&mut a, LEASE / 2);
    assert_eq!(published(&mut bench, &mut a, None), [None; 3], "nobody has read it");
    for read in [2, 3] {
        let (mut bench, mut a) = held_after_reading(S, Some(7), read);
        assert_eq!(bench.run(&mut a, convert(X)), CONVERTED);
        assert_eq!(published(&mut bench, &mut a, None), [None; 3], "{read} drives were read");
    }
}

#[test]
fn a_value_that_too_few_drives_confirm_is_removed() {
    assert_eq!(left_by_a_host(X, Some(7), 0), vec![None; 3]);
    assert_eq!(left_by_a_host(X, Some(7), 1), vec![Some(0); 3]);
    assert_eq!(left_by_a_host(S, Some(7), 1), vec![Some(0); 3]);
    assert_eq!(left_by_a_host(S, None, 2), vec![None; 3], "there is none");
}

/// Drive 2 misses a release, and gives the lock back after its lease as if it had been unlocked. By
/// then it is the only drive that votes.
#[test]
fn a_drive_that_was_never_unlocked_does_not_vouch_for_its_value() {
    let profile = Profile { expired_holder_may_relock: true, ..Profile::current() };
    let (mut bench, all) = with_a_value_on(Bench::with(3, profile));
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    bench.pass(&mut a, LEASE);
    bench.paths[2] = Path::Cut;
    bench.run(&mut a, release(8));
    bench.pass(&mut a, LEASE * 2);
    bench.paths[2] = Path::Up;
    assert_eq!(take(&mut bench, &mut a, X, &[2], &[]), GRANTED);
}

/// A host broke a dead holder, and left no value. Another one publishes one since.
#[test]
fn a_value_that_was_removed_after_a_death_is_removed_once() {
    let (mut bench, all) = with_a_value(3);
    take(&mut bench, &mut vg_lock(8), X, &all, &[]);
    bench.now = bench.now + 2 * LEASE;
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    assert_eq!(take(&mut bench, &mut a, X, &all, &[]), GRANTED);
    assert_eq!(published(&mut bench, &mut a, None), [Some(0); 3]);
    events(&mut a);
    take(&mut bench, &mut b, X, &all, &[]);
    bench.run(&mut b, release(9));
    assert_eq!(known(&take(&mut bench, &mut a, X, &all, &[])), Some(9));
}

/// The values in the UNLOCKs to a drive while time passes.
fn stored_on(bench: &mut Bench, lock: &mut Lock, drive: u32, time: Duration) -> Vec<Option<u64>> {
    let mut stored = Vec::new();
    pass_with(bench, lock, time, |command| {
        if let DriveCommand::Mutex(MutexOp::Unlock, record) = &command.command {
            if command.drive.0 == drive {
                let stores = record.value_update == ValueUpdate::Store;
                stored.push(stores.then_some(record.value.get()));
            }
        }
        Fate::Answered
    });
    stored
}

/// Lets drive 2 lose the lock, and its next TRYLOCK be lost. Then its table shows nobody.
fn lost_on_drive_2(bench: &mut Bench, lock: &mut Lock) {
    let (mut tried, mut looks) = (0, Vec::new());
    while looks.is_empty() {
        bench.wait(lock);
        looks = exchange_with(bench, lock, |command| match (command.drive.0, op(command)) {
            (2, Some(MutexOp::Refresh)) => Fate::Instead(Status::NotFound),
            (2, Some(MutexOp::Trylock)) => {
                tried += 1;
                Fate::Instead(if tried == 1 { Status::Uncertain } else { Status::TryAgain })
            }
            (2, None) => Fate::Open,
            _ => Fate::Answered,
        });
    }
    lock.on_reply(looks[0].token, Reply::Table([].into()), bench.now);
}

/// Drive 2 says that it does not know the lock, and hides it; a TRYLOCK may still arrive there.
#[test]
fn a_drive_that_hid_the_lock_gets_no_wrong_value_from_a_late_trylock() {
    let (mut bench, all) = with_a_value_on(Bench::with(3, forgetful()));
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    let publishes = Request::Convert { mode: S, value: Some(value(8)) };
    assert_eq!(bench.run(&mut a, publishes), CONVERTED);
    lost_on_drive_2(&mut bench, &mut a);
    a.request(RELEASE, bench.now).expect("held");
    assert_eq!(stored_on(&mut bench, &mut a, 2, LEASE / 2), [Some(0)]);
}

#[test]
fn a_late_trylock_of_a_lost_lock_leaves_no_value() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, S, &all, &[]);
    lost_on_drive_2(&mut bench, &mut a);
    bench.drives[0].reset();
    bench.drives[1].reset();
    a.request(convert(X), bench.now).expect("held");
    bench.exchange(&mut a);
    assert_eq!(a.mode(), None, "it is lost");
    a.request(RELEASE, bench.now).expect("always in order");
    assert_eq!(stored_on(&mut bench, &mut a, 2, LEASE / 2), [Some(0)]);
}

/// A lock whose lease has just ended, in the middle of the drift that clocks may have.
fn lapsed(bench: &mut Bench, lock: &mut Lock) {
    bench.now = lock.safe_until().expect("held");
    lock.on_timer(bench.now);
    assert!(!believes(bench, lock));
    bench.log.clear();
}

#[test]
fn a_sharer_that_lapsed_is_gone_at_once() {
    for changed_before in [false, true] {
        let (mut bench, all) = with_a_value(3);
        let mut a = vg_lock(1);
        if changed_before {
            take(&mut bench, &mut a, X, &all, &[]);
            assert_eq!(bench.run(&mut a, convert(S)), CONVERTED);
            a.request(RELEASE, bench.now).expect("held");
            exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
                (2, Some(MutexOp::Unlock)) => Fate::Despite(Status::TryAgain),
                _ => Fate::Answered,
            });
            events(&mut a);
        }
        assert!(matches!(take(&mut bench, &mut a, S, &all, &[]), Outcome::Granted(_)));
        lapsed(&mut bench, &mut a);
        bench.run(&mut a, RELEASE);
        assert!((0..3).all(|drive| said(&bench, drive)[0] == "unlock"), "{:?}", bench.log);
    }
}

/// The last published value is not the one that the dead holder left.
#[test]
fn a_value_of_a_dead_holder_is_removed_by_a_sharer_that_lapsed() {
    let (mut bench, all) = with_a_value_on(Bench::with(3, forgetful()));
    take(&mut bench, &mut vg_lock(8), X, &all, &[]);
    bench.now = bench.now + 2 * LEASE;
    let mut a = vg_lock(1);
    assert_eq!(take(&mut bench, &mut a, S, &all, &[]), GRANTED);
    lapsed(&mut bench, &mut a);
    bench.run(&mut a, RELEASE);
    assert!((0..3).all(|drive| said(&bench, drive)[0] == "refresh"), "{:?}", bench.log);
}

#[test]
fn a_holder_that_lapsed_leaves_no_value() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    lapsed(&mut bench, &mut a);
    assert_eq!(published(&mut bench, &mut a, Some(value(8))), [Some(0); 3]);
}

/// A host whose request is refused before the drives have answered to its BREAKs of a dead holder.
/// Then they do, and the host has not given them back yet.
fn broken_late_on(profile: Profile) -> (Bench, Lock, Vec<u32>) {
    let (mut bench, all) = with_a_value_on(Bench::with(3, profile));
    take(&mut bench, &mut vg_lock(8), X, &all, &[]);
    bench.now = bench.now + 2 * LEASE;
    let mut a = vg_lock(1);
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    let open = exchange_with(&mut bench, &mut a, |command| match op(command) {
        Some(MutexOp::Break) => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(open.len(), 3);
    bench.pass(&mut a, Duration::from_secs(10));
    assert!(matches!(done(&mut a), Some(Outcome::Refused(_))));
    for command in &open {
        let reply = bench.perform(command);
        a.on_reply(command.token, reply, bench.now);
    }
    (bench, a, all)
}

fn broken_late() -> (Bench, Lock, Vec<u32>) {
    broken_late_on(forgetful())
}

/// The outcome of such a host's next request, and its commands to drive 0 when it gives the lock
/// up.
fn asks_again_after_late_breaks(mode: Mode) -> (Outcome, Vec<&'static str>) {
    let (mut bench, mut a, all) = broken_late();
    let outcome = take(&mut bench, &mut a, mode, &all, &[]);
    bench.exchange(&mut a);
    bench.log.clear();
    bench.run(&mut a, RELEASE);
    (outcome, said(&bench, 0))
}

#[test]
fn the_value_of_a_dead_holder_that_was_broken_late_is_not_believed() {
    let (outcome, _) = asks_again_after_late_breaks(X);
    assert_eq!(outcome, GRANTED);
    let (outcome, said) = asks_again_after_late_breaks(S);
    assert_eq!((outcome, said[0]), (GRANTED, "refresh"), "only an exclusive holder removes it");
}

/// A host has broken a dead holder too late, and cannot give the drives back before its lease ends.
/// They give it its own mutex back then, and do not report that it was left over.
#[test]
fn what_was_not_given_back_after_a_late_break_is_read_before_it_is_taken() {
    let profile = Profile { expired_holder_may_relock: true, ..Profile::current() };
    let (mut bench, mut a, all) = broken_late_on(profile);
    bench.paths.fill(Path::Cut);
    bench.pass(&mut a, LEASE * 2);
    bench.paths.fill(Path::Up);
    assert_eq!(take(&mut bench, &mut a, X, &all, &[]), GRANTED);
}

/// A host published 8, and no drive got that. After its lease, drives give it its own mutex back,
/// and do not report that it was left over. It shares it, and gives it up.
#[test]
fn a_value_that_was_not_stored_is_replaced_by_a_sharer() {
    let profile = Profile { expired_holder_may_relock: true, ..forgetful() };
    let (mut bench, all) = with_a_value_on(Bench::with(3, profile));
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    bench.paths.fill(Path::Cut);
    bench.run(&mut a, release(8));
    bench.pass(&mut a, LEASE * 2);
    bench.paths.fill(Path::Up);
    assert_eq!(take(&mut bench, &mut a, S, &all, &[]), GRANTED);
    let mut b = vg_lock(2);
    assert_eq!(take(&mut bench, &mut b, S, &all, &[]), GRANTED);
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, Duration::from_secs(1));
    bench.run(&mut b, RELEASE);
    bench.pass(&mut b, Duration::from_secs(1));
    bench.pass(&mut a, LEASE / 2);
    assert_eq!(take(&mut bench, &mut vg_lock(3), X, &all, &[]), GRANTED);
}

/// Only drive 0 has stored a value when its publisher shares the lock.
#[test]
fn only_drives_that_have_not_stored_a_value_are_made_exclusive_to_do_so() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    a.request(release(8), bench.now).expect("held");
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Answered,
        _ => Fate::Instead(Status::TryAgain),
    });
    events(&mut a);
    assert_eq!(take(&mut bench, &mut a, S, &all, &[]), GRANTED);
    bench.log.clear();
    bench.run(&mut a, RELEASE);
    let first: Vec<_> = (0..3).map(|drive| said(&bench, drive)[0]).collect();
    assert_eq!(first, ["unlock", "refresh", "refresh"]);
}

/// A host that is to remove the value of a dead holder asks for the lock again. Drives that do not
/// answer in time refuse it.
#[test]
fn a_refused_request_still_removes_the_value_of_a_dead_holder() {
    let (mut bench, mut a, all) = broken_late();
    // Drive 1 is done, but must not be asked yet: an UNLOCK may still arrive there.
    for answer in [Fate::Despite(Status::Uncertain), Fate::Answered] {
        let mut answer = Some(answer);
        exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
            1 => answer.take().unwrap_or(Fate::Answered),
            _ => Fate::Instead(Status::TryAgain),
        });
        bench.now = bench.now + Duration::from_millis(300);
        a.on_timer(bench.now);
    }
    let request = acquire(&bench, X, &all, &[]);
    let outcome = run_with(&mut bench, &mut a, request, |_| Fate::Instead(Status::Unreachable));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    bench.pass(&mut a, LEASE / 4);
    assert!(a.is_idle());
    assert_eq!(take(&mut bench, &mut vg_lock(2), X, &all, &[]), GRANTED);
}

/// The same of a host that published a value before it shared.
#[test]
fn a_refused_request_still_replaces_the_value_before_the_published_one() {
    let (mut bench, mut a, mut b, all) = shared_after_a_publication();
    bench.run(&mut a, RELEASE);
    let request = acquire(&bench, X, &all, &[]);
    let outcome = run_with(&mut bench, &mut a, request, |_| Fate::Instead(Status::Unreachable));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    bench.pass(&mut a, Duration::from_secs(1));
    bench.run(&mut b, RELEASE);
    bench.pass(&mut a, LEASE / 4);
    assert!(a.is_idle());
    assert_eq!(take(&mut bench, &mut vg_lock(3), X, &all, &[]), GRANTED);
}

/// The answer to the change that removes a dead sharer is lost, and the host asks for the lock anew
/// before it is known to be lost.
#[test]
fn a_new_request_does_not_forget_whom_a_late_change_removed() {
    let profile = Profile { promotion_removes_expired: true, ..forgetful() };
    let (mut bench, mut dead, mut a, all) = shared_after_a_publication_on(profile);
    bench.run(&mut dead, RELEASE);
    bench.pass(&mut a, LEASE * 2);
    a.request(convert(X), bench.now).expect("held");
    let open = exchange_with(&mut bench, &mut a, |command| match op(command) {
        Some(MutexOp::Refresh) => Fate::Unheard,
        _ => Fate::Answered,
    });
    bench.pass(&mut a, Duration::from_secs(10));
    assert!(matches!(done(&mut a), Some(Outcome::Refused(_))));
    bench.run(&mut a, RELEASE);
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    a.on_reply(open[0].token, Reply::Status(Status::Uncertain), bench.now);
    bench.paths = vec![Path::Cut];
    bench.pass(&mut a, Duration::from_secs(6));
    assert!(matches!(done(&mut a), Some(Outcome::Refused(_))));
    bench.paths = vec![Path::Up];
    bench.pass(&mut a, Duration::from_secs(10));
    assert!(a.is_idle());
    assert_eq!(take(&mut bench, &mut vg_lock(4), X, &all, &[]), GRANTED);
}
