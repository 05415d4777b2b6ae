//! Getting a lock on one drive after the other, with rare states and answers of drives.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::{Profile, profile::Held};
use idm_engine::{Command, Event, Lock, Notice, Outcome, Refusal, Request, Timing};
use idm_engine::{DriveRef, ValueRead};
use idm_protocol::{Class, DriveCommand, MutexOp, Reply, ResourceId, Status, ValueUpdate};

fn unreachable() -> Fate {
    Fate::Instead(Status::Unreachable)
}

/// The lock of an earlier life of host 1, whose acquisitions have other numbers.
fn earlier(lock: Lock) -> Lock {
    with_config(lock, |config| (config.host, config.seed) = (host(1), 99))
}

fn known(n: u64) -> Outcome {
    Outcome::Granted(ValueRead::Known(value(n)))
}

fn publish(bench: &mut Bench, lock: &mut Lock, n: u64) {
    assert_eq!(bench.run(lock, Request::Release { value: Some(value(n)) }), Outcome::Released);
}

/// Holds the lock and loses one REFRESH, so that the lock remembers the drive after the release.
fn lose_a_refresh(bench: &mut Bench, lock: &mut Lock) {
    let mut lost = false;
    pass_with(bench, lock, LEASE / 3, |command| {
        if op(command) == Some(MutexOp::Refresh) && !core::mem::replace(&mut lost, true) {
            return Fate::Instead(Status::Uncertain);
        }
        Fate::Answered
    });
    assert!(lost);
}

/// Host 2 publishes a value between two acquisitions of host 1. The first one read an older value,
/// or broke a dead holder.
#[test]
fn what_one_acquisition_learned_of_a_value_says_nothing_of_the_next() {
    for dead in [false, true] {
        let mut bench = Bench::new(1);
        let (mut a, mut b) = (vg_lock(1), vg_lock(2));
        assert_eq!(take(&mut bench, &mut b, X, &[0], &[]), GRANTED);
        publish(&mut bench, &mut b, 7);
        if dead {
            assert_eq!(take(&mut bench, &mut vg_lock(3), X, &[0], &[]), known(7));
            bench.now = bench.now + LEASE * 2;
        }
        let first = take(&mut bench, &mut a, X, &[0], &[]);
        assert_eq!(first, if dead { GRANTED } else { known(7) });
        lose_a_refresh(&mut bench, &mut a);
        publish(&mut bench, &mut a, 8);
        assert!(!a.is_idle(), "the drive is remembered");
        assert_eq!(take(&mut bench, &mut b, X, &[0], &[]), known(8));
        publish(&mut bench, &mut b, 9);
        assert_eq!(take(&mut bench, &mut a, X, &[0], &[]), known(9), "dead: {dead}");
    }
}

/// A drive that did not receive the last release, and does not answer, does not prove that nobody
/// holds the lock on it.
#[test]
fn what_was_held_before_the_release_confirms_nothing() {
    let mut bench = Bench::new(5);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[3, 4]), GRANTED);
    bench.paths[2..].fill(Path::Cut);
    bench.run(&mut a, RELEASE);
    let outcome = take(&mut bench, &mut a, X, &[0, 1, 2], &[3, 4]);
    assert_eq!(outcome, Outcome::Refused(Refusal::Unconfirmed));
}

/// A witness that was silent during the last release is asked again as soon as any other drive.
#[test]
fn a_witness_that_was_silent_before_is_asked_again_soon() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1], &[]), GRANTED);
    bench.paths[1] = Path::Cut;
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, LEASE / 4);
    bench.paths[2] = Path::Cut;
    a.request(acquire(&bench, X, &[0], &[1, 2]), bench.now).expect("in order");
    let mut looks = 0;
    pass_with(&mut bench, &mut a, SECOND, |command| match command.drive.0 {
        1 => {
            looks += 1;
            if looks == 1 { unreachable() } else { Fate::Answered }
        }
        2 => unreachable(),
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(GRANTED));
}

#[test]
fn a_late_answer_to_an_adoption_adds_a_drive() {
    let mut bench = Bench::new(3);
    assert_eq!(take(&mut bench, &mut earlier(lv_lock(1)), S, &[0, 1, 2], &[]), GRANTED);
    let mut a = lv_lock(1);
    let request = adopt(&bench, &[0, 1, 2], None);
    a.request(request, bench.now).expect("in order");
    let open = pass_with(&mut bench, &mut a, SECOND, |command| match command.drive.0 {
        2 => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(Outcome::Adopted(S)));
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    bench.exchange(&mut a);
    assert_eq!(on(&a), [0, 1, 2]);
}

/// A record that was adopted, and still has the number of the earlier life, is not taken over
/// again.
#[test]
fn a_change_tells_of_no_record_of_an_earlier_life() {
    let profile = forgetful();
    let mut bench = Bench::with(1, profile);
    assert_eq!(take(&mut bench, &mut earlier(lv_lock(1)), S, &[0], &[]), GRANTED);
    let mut a = lv_lock(1);
    let took_over = Event::Notice(Notice::TookOverOwn { drive: DriveRef(0) });
    a.request(adopt(&bench, &[0], None), bench.now).expect("in order");
    bench.exchange(&mut a);
    let told = events(&mut a);
    assert!(told.contains(&took_over) && told.contains(&Event::Done(Outcome::Adopted(S))));
    a.request(convert(X), bench.now).expect("held");
    let mut first = true;
    exchange_with(&mut bench, &mut a, |_| {
        let refused = core::mem::replace(&mut first, false);
        if refused { Fate::Instead(Status::Terminated) } else { Fate::Answered }
    });
    let told = events(&mut a);
    assert!(told.contains(&Event::Done(Outcome::Converted { complete: true })), "{told:?}");
    assert!(!told.contains(&took_over));
}

/// Some firmware admits only one sharer, and answers BUSY to others.
#[test]
fn a_sharer_that_keeps_others_out_is_named_where_a_drive_says_busy() {
    let profile = Profile { sharers_admitted: false, held: Held::Busy, ..Profile::current() };
    let mut bench = Bench::with(1, profile);
    assert_eq!(take(&mut bench, &mut lv_lock(2), S, &[0], &[]), GRANTED);
    let outcome = take(&mut bench, &mut lv_lock(1), S, &[0], &[]);
    let Outcome::Refused(Refusal::Held(others)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(others[0].host, host(2));
}

#[test]
fn a_dead_sharer_that_keeps_others_out_is_broken_where_a_drive_says_busy() {
    let profile = Profile { sharers_admitted: false, held: Held::Busy, ..Profile::current() };
    let mut bench = Bench::with(1, profile);
    assert_eq!(take(&mut bench, &mut lv_lock(2), S, &[0], &[]), GRANTED);
    bench.now = bench.now + 2 * LEASE;
    assert_eq!(take(&mut bench, &mut lv_lock(1), S, &[0], &[]), GRANTED);
}

/// A drive answers GOOD to a REFRESH, and afterwards shows that it has stored the set of drives,
/// but not the mode.
#[test]
fn a_record_that_was_taken_over_in_the_wrong_mode_is_refreshed_again() {
    for (mode, other) in [(X, S), (S, X)] {
        let mut bench = Bench::new(2);
        assert_eq!(take(&mut bench, &mut earlier(lv_lock(1)), mode, &[0], &[]), GRANTED);
        bench.log.clear();
        let mut a = lv_lock(1);
        a.request(acquire(&bench, mode, &[0, 1], &[]), bench.now).expect("in order");
        let mut refreshed = false;
        while let Some(command) = a.next_command(bench.now) {
            bench.log.push((command.drive.0 as usize, name_of(&command.command)));
            let mut reply = bench.perform(&command);
            if op(&command) == Some(MutexOp::Refresh) {
                refreshed = true;
            } else if let (0, Reply::Table(table)) = (command.drive.0, &reply) {
                if core::mem::take(&mut refreshed) && said(&bench, 0).len() < 5 {
                    let mut records = table.to_vec();
                    records.iter_mut().for_each(|record| record.class = Class::from(other));
                    reply = Reply::Table(records.into());
                }
            }
            a.on_reply(command.token, reply, bench.now);
        }
        let asked = ["trylock", "read", "refresh", "read", "refresh"];
        assert_eq!(said(&bench, 0)[..5], asked, "{mode}");
        assert_eq!(done(&mut a), Some(GRANTED));
        assert_eq!(on(&a), [0, 1]);
    }
}

/// Between the TRYLOCK and the read of the value the drive loses the record, but not the value.
#[test]
fn a_drive_that_lost_the_record_before_its_value_was_read_is_taken_and_read_anew() {
    let mut bench = Bench::new(1);
    let mut a = vg_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0], &[]), GRANTED);
    publish(&mut bench, &mut a, 7);
    bench.pass(&mut a, SECOND);
    a.request(acquire(&bench, X, &[0], &[]), bench.now).expect("in order");
    let mut first = true;
    exchange_with(&mut bench, &mut a, |_| {
        let lost = core::mem::replace(&mut first, false);
        if lost { Fate::Instead(Status::Good) } else { Fate::Answered }
    });
    assert_eq!(done(&mut a), Some(known(7)));
}

/// The commands to drive 0 within the patience of a request, while the other drives do not answer.
fn asked(mut bench: Bench, mut fate: impl FnMut(&Command) -> Fate) -> Vec<&'static str> {
    let mut a = lv_lock(1);
    bench.log.clear();
    a.request(bench.acquire(X), bench.now).expect("in order");
    let time = Timing::for_lease(LEASE).patience - Duration::from_micros(1);
    let mut left = 100;
    pass_with(&mut bench, &mut a, time, |command| match command.drive.0 {
        0 if left > 0 => {
            left -= 1;
            fate(command)
        }
        _ => Fate::Open,
    });
    assert_eq!(done(&mut a), None);
    said(&bench, 0)
}

#[test]
fn a_drive_that_does_not_answer_is_left_alone_after_three_commands() {
    assert_eq!(asked(Bench::new(3), |_| unreachable()), ["trylock"; 3]);
}

#[test]
fn a_drive_that_is_never_ours_is_left_alone_after_eight_commands() {
    let mut bench = Bench::new(3);
    assert_eq!(take(&mut bench, &mut lv_lock(9), X, &[0, 1, 2], &[]), GRANTED);
    bench.now = bench.now + LEASE * 2;
    let told = asked(bench, |command| match op(command) {
        Some(MutexOp::Break) => Fate::Instead(Status::Conflict),
        _ => Fate::Answered,
    });
    let expected = ["trylock", "read", "break", "read", "break", "read", "break", "read"];
    assert_eq!(told, expected);
}

/// The older stack writes no stamp. A holder without a stamp may count other drives.
#[test]
fn a_holder_whose_record_does_not_tell_its_drives_is_heeded() {
    let mut bench = Bench::new(3);
    let mut b = lv_lock(2);
    b.request(acquire(&bench, X, &[2], &[]), bench.now).expect("in order");
    let mut command = b.next_command(bench.now).expect("a TRYLOCK");
    if let DriveCommand::Mutex(_, record) = &mut command.command {
        record.metadata = [0; 64];
    }
    assert_eq!(bench.perform(&command), Reply::Status(Status::Good));
    let outcome = take(&mut bench, &mut lv_lock(1), X, &[0, 1, 2], &[]);
    assert!(is_held(&outcome), "{outcome:?}");
}

/// An unlocked mutex is removed for room, even if other ones are in use.
#[test]
fn a_mutex_in_use_does_not_keep_another_one_from_being_removed() {
    let lv = |n: u8| {
        let id = "nnnnnn-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa".replace('n', &n.to_string());
        lock(9, ResourceId::lv(VG, &id).expect("a good id"), false)
    };
    for (used, unlocked) in [(1, 2), (2, 1)] {
        let mut profile = Profile::current();
        profile.limits.mutexes = 2;
        let mut bench = Bench::with(1, profile);
        assert_eq!(take(&mut bench, &mut lv(used), X, &[0], &[]), GRANTED);
        let mut left = lv(unlocked);
        assert_eq!(take(&mut bench, &mut left, X, &[0], &[]), GRANTED);
        left.request(RELEASE, bench.now).expect("always in order");
        let unlock = left.next_command(bench.now).expect("an UNLOCK");
        bench.perform(&unlock);
        assert_eq!(take(&mut bench, &mut lv_lock(1), X, &[0], &[]), GRANTED, "{used}");
    }
}

/// A record of an earlier life on drive 2, whose REFRESH is answered only after the release.
#[test]
fn a_drive_that_was_taken_over_after_the_release_gets_zero() {
    let mut bench = Bench::new(3);
    assert_eq!(take(&mut bench, &mut earlier(vg_lock(1)), X, &[2], &[]), GRANTED);
    let mut a = vg_lock(1);
    a.request(bench.acquire(X), bench.now).expect("in order");
    let open = pass_with(&mut bench, &mut a, SECOND, |command| match op(command) {
        Some(MutexOp::Refresh) => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(GRANTED));
    publish(&mut bench, &mut a, 7);
    let reply = bench.perform(&open[0]);
    assert_eq!(reply, Reply::Status(Status::Good));
    a.on_reply(open[0].token, reply, bench.now);
    let mut stored = Vec::new();
    exchange_with(&mut bench, &mut a, |command| {
        if let DriveCommand::Mutex(MutexOp::Unlock, record) = &command.command {
            assert_eq!(record.value_update, ValueUpdate::Store);
            stored.push((command.drive.0, record.value.get()));
        }
        Fate::Answered
    });
    assert_eq!(stored, [(2, 0)]);
}

#[test]
fn times_scale_with_the_lease() {
    let ms = Duration::from_millis;
    for (lease, drift, renew, patience, grace, linger) in [
        (60_000, 120, 20_000, 5_000, 100, 15_000),
        (12_000, 24, 4_000, 3_000, 100, 3_000),
        (6_000, 12, 2_000, 1_500, 60, 1_500),
    ] {
        let expected = Timing {
            lease: ms(lease),
            drift: ms(drift),
            renew: ms(renew),
            patience: ms(patience),
            grace: ms(grace),
            linger: ms(linger),
            backoff: ms(30),
        };
        assert_eq!(Timing::for_lease(ms(lease)), expected);
    }
}

/// Drive 2 has a late TRYLOCK as shared when the lock is to become exclusive, and drive 1 is gone.
#[test]
fn a_drive_that_was_won_late_as_shared_is_asked_for_exclusive() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    a.request(bench.acquire(S), bench.now).expect("in order");
    let open = pass_with(&mut bench, &mut a, Duration::from_secs(1), |command| {
        if command.drive.0 == 2 { Fate::Open } else { Fate::Answered }
    });
    assert_eq!(done(&mut a), Some(GRANTED));
    bench.paths[1] = Path::Cut;
    a.request(convert(X), bench.now).expect("held");
    bench.exchange(&mut a);
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    assert_eq!(done(&mut a), Some(Outcome::Converted { complete: true }));
}

/// The change to exclusive is refused while a TRYLOCK as exclusive is under way on drive 0.
#[test]
fn a_drive_that_was_won_late_as_exclusive_is_kept_as_shared() {
    let (mut bench, mut a, mut b) = (Bench::new(3), lv_lock(1), lv_lock(2));
    bench.paths[0] = Path::Cut;
    for lock in [&mut a, &mut b] {
        let request = bench.acquire(S);
        assert_eq!(bench.run(lock, request), GRANTED);
    }
    a.request(convert(X), bench.now).expect("held");
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Open,
        _ => Fate::Answered,
    });
    bench.paths[0] = Path::Up;
    let outcome = done(&mut a).expect("refused");
    assert!(is_held(&outcome), "{outcome:?}");
    let tried = open.iter().find(|command| op(command) == Some(MutexOp::Trylock)).expect("tried");
    let reply = bench.perform(tried);
    a.on_reply(tried.token, reply, bench.now);
    bench.exchange(&mut a);
    assert_eq!(a.held_on().map(|(_, mode)| mode).collect::<Vec<_>>(), [S; 3]);
}

#[test]
fn a_drive_that_says_little_and_shows_nobody_is_not_held() {
    let (mut bench, mut a) = (Bench::new(1), lv_lock(1));
    let mut answers = [Status::Unreachable, Status::Unreachable, Status::TryAgain].into_iter();
    let request = bench.acquire(X);
    let outcome = run_with(&mut bench, &mut a, request, |command| match op(command) {
        Some(MutexOp::Trylock) => Fate::Instead(answers.next().expect("three")),
        _ => Fate::Answered,
    });
    let Outcome::Refused(Refusal::NoQuorum { granted: 0, .. }) = outcome else {
        panic!("{outcome:?}");
    };
}
