//! The decisions in the phases of a lock, case by case: the grant, the commands to drives, the
//! value, and the time when other drives may vote.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::{DriveTime, Profile};
use idm_engine::{
    Command, DriveRef, Event, Lock, Loss, Notice, Outcome, Refusal, Request, RequestError, Timing,
};
use idm_protocol::{DriveCommand, Limit, Mode, MutexOp, Reply, ResourceId, State, Status};

// ---- Requests ----

#[test]
fn each_phase_takes_the_requests_that_make_sense_in_it() {
    let fresh = || (Bench::new(3), lv_lock(1));
    let held = |mode| {
        let (mut bench, mut a) = fresh();
        take(&mut bench, &mut a, mode, &[0, 1, 2], &[]);
        (bench, a)
    };
    let lost = || {
        let (mut bench, mut a) = held(X);
        bench.drives.iter_mut().for_each(|drive| drive.reset());
        bench.pass(&mut a, LEASE);
        assert!(events(&mut a).contains(&Event::Lost(Loss::Taken)));
        (bench, a)
    };
    let left = || {
        let (mut bench, mut a) = fresh();
        let request = adopt(&bench, &[0, 1, 2], None);
        assert!(matches!(bench.run(&mut a, request), Outcome::Refused(Refusal::NothingToAdopt)));
        (bench, a)
    };
    let busy = |(mut bench, mut a): (Bench, Lock), request: Request| {
        bench.paths = vec![Path::Hung; 3];
        a.request(request, bench.now).expect("in order");
        (bench, a)
    };
    let wanted = acquire(&fresh().0, X, &[0, 1, 2], &[]);
    let orphan = adopt(&fresh().0, &[0, 1, 2], None);
    let all = [wanted.clone(), orphan.clone(), convert(X), convert(S), RELEASE];
    let (wrong, ok) = (Err(RequestError::WrongState), Ok(()));
    let never = [Err(RequestError::Busy); 5];
    type Case<'a> = (&'a str, (Bench, Lock), [Result<(), RequestError>; 5]);
    let cases: [&dyn Fn() -> Case<'static>; 8] = [
        &|| ("free", fresh(), [ok, ok, wrong, wrong, ok]),
        &|| ("held", held(X), [wrong, wrong, ok, ok, ok]),
        &|| ("lost", lost(), [wrong, wrong, wrong, wrong, ok]),
        &|| ("left", left(), [wrong, ok, wrong, wrong, ok]),
        &|| ("acquiring", busy(fresh(), wanted.clone()), never),
        &|| ("adopting", busy(fresh(), orphan.clone()), never),
        &|| ("up", busy(held(S), convert(X)), never),
        &|| ("down", busy(held(X), convert(S)), never),
    ];
    for case in cases {
        for (at, request) in all.iter().enumerate() {
            let (name, (bench, mut lock), expected) = case();
            let told = lock.request(request.clone(), bench.now);
            assert_eq!(told, expected[at], "{name}: {request:?}");
        }
    }
}

#[test]
fn drives_are_named_once_and_there_is_at_least_one_and_at_most_512() {
    let bench = Bench::new(1);
    let many: Vec<u32> = (0..512).collect();
    let too_many: Vec<u32> = (0..513).collect();
    let cases: [(&[u32], &[u32], bool); 7] = [
        (&[0], &[], true),
        (&[], &[], false),
        (&[], &[1], false),
        (&[0, 1, 0], &[], false),
        (&[0], &[0], false),
        (&many, &[], true),
        (&too_many, &[], false),
    ];
    for (members, witnesses, good) in cases {
        let expected = if good { Ok(()) } else { Err(RequestError::BadDrives) };
        let request = acquire(&bench, X, members, witnesses);
        assert_eq!(lv_lock(1).request(request, bench.now), expected, "{}", members.len());
    }
}

#[test]
fn drives_of_an_earlier_acquisition_are_not_asked_and_do_not_vote() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    // The others do not take the UNLOCK.
    bench.paths = vec![Path::Up, Path::Cut, Path::Cut];
    bench.run(&mut a, RELEASE);
    bench.log.clear();
    assert_eq!(take(&mut bench, &mut a, X, &[0], &[]), GRANTED);
    assert!(!said(&bench, 1).contains(&"trylock") && !said(&bench, 2).contains(&"trylock"));
    bench.pass(&mut a, LEASE * 3);
    assert!(believes(&bench, &a), "drive 0 alone votes");
}

#[test]
fn a_drive_that_may_be_marked_for_other_drives_is_waited_for_and_named() {
    let mut bench = Bench::new(4);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    // Refreshes of drives 1 and 2, which name the drives that are counted, are late.
    let refused = |command: &Command| match (command.drive.0, op(command)) {
        (1 | 2, Some(MutexOp::Refresh)) => Fate::Instead(Status::Uncertain),
        _ => Fate::Answered,
    };
    pass_with(&mut bench, &mut a, LEASE / 3 + Duration::from_secs(1), refused);
    bench.run(&mut a, RELEASE);
    let outcome = take(&mut bench, &mut a, X, &[1, 2, 3], &[]);
    let Outcome::Refused(Refusal::NoQuorum { needed: 2, barred, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(barred.iter().map(|(drive, _)| drive.0).collect::<Vec<_>>(), [1, 2]);
    assert!(barred.iter().all(|&(_, at)| at > bench.now));
}

#[test]
fn a_conflict_of_an_earlier_acquisition_is_not_one_of_this() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    a.request(bench.acquire(X), bench.now).expect("in order");
    exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Trylock)) => Fate::Instead(Status::Conflict),
        // The lock remembers the drive because of a TRYLOCK that may still arrive.
        (2, _) => Fate::Instead(Status::Unreachable),
        (1, Some(MutexOp::Trylock)) => Fate::Answered,
        _ => Fate::Answered,
    });
    assert!(done(&mut a).is_some_and(|outcome| is_held(&outcome)));
    bench.paths[2] = Path::Cut;
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
}

#[test]
fn a_target_of_an_earlier_acquisition_is_none_of_this() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1], &[2]), GRANTED);
    let named = bench.members(&[1, 2]);
    bench.paths[2] = Path::Cut;
    a.spread(&named, bench.now);
    bench.run(&mut a, RELEASE);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1], &[]), GRANTED);
    bench.pass(&mut a, LEASE);
    let outcome = take(&mut bench, &mut lv_lock(2), X, &[0, 1], &[]);
    let Outcome::Refused(Refusal::Held(conflicts)) = outcome else { panic!("{outcome:?}") };
    assert!(conflicts.iter().all(|c| c.same_set), "its records name the drives that vote");
}

// ---- Votes ----

#[test]
fn most_of_all_drives_are_read_before_an_lvs_lock_is_granted() {
    type Case<'a> = (&'a [u32], &'a [u32], &'a [usize], bool);
    let cases: [Case<'_>; 14] = [
        (&[0], &[1], &[], true),
        (&[0], &[1], &[1], false),
        (&[0], &[1, 2, 3], &[3], true),
        (&[0], &[1, 2, 3], &[2, 3], false),
        (&[0, 1, 2], &[3], &[2], true),
        (&[0, 1, 2], &[3], &[2, 3], false),
        (&[0, 1, 2], &[3, 4], &[2, 4], true),
        (&[0, 1, 2], &[3, 4], &[3, 4], true),
        (&[0, 1, 2], &[3, 4], &[2, 3, 4], false),
        (&[0, 1, 2, 3], &[4, 5, 6], &[3, 4, 5], true),
        (&[0, 1, 2, 3], &[4, 5, 6], &[4, 5, 6], true),
        (&[0, 1, 2, 3], &[4, 5, 6], &[3, 4, 5, 6], false),
        (&[0, 1, 2, 3, 4], &[], &[3, 4], true),
        (&[0, 1], &[2, 3], &[2, 3], false),
    ];
    for (members, witnesses, cut, granted) in cases {
        for path in [Path::Cut, Path::Hung] {
            let mut bench = Bench::new(members.len() + witnesses.len());
            cut.iter().for_each(|&drive| bench.paths[drive] = path);
            let begin = bench.now;
            let outcome = take(&mut bench, &mut lv_lock(1), X, members, witnesses);
            let expected = if granted { GRANTED } else { Outcome::Refused(Refusal::Unconfirmed) };
            assert_eq!(outcome, expected, "{members:?}, {witnesses:?}, without {cut:?}");
            let timing = Timing::for_lease(LEASE);
            let waited = bench.now.since(begin);
            assert!(waited <= timing.patience / 4, "witnesses have a part of the patience");
        }
    }
}

#[test]
fn a_witness_without_idm_has_nobody_who_holds_the_lock() {
    for (without, granted) in [(vec![1, 2], true), (vec![1], true), (vec![], false)] {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        a.request(acquire(&bench, X, &[0], &[1, 2]), bench.now).expect("in order");
        pass_with(&mut bench, &mut a, Duration::from_secs(6), |command| match command.drive.0 {
            0 => Fate::Answered,
            d if without.contains(&d) => Fate::Instead(Status::Unsupported),
            _ => Fate::Instead(Status::Unreachable),
        });
        let expected = if granted { GRANTED } else { Outcome::Refused(Refusal::Unconfirmed) };
        let all = events(&mut a);
        assert!(all.contains(&Event::Done(expected)), "{without:?}");
        let told = |d: &u32| all.contains(&Event::Notice(Notice::NotIdm { drive: DriveRef(*d) }));
        assert_eq!((0..3).filter(told).collect::<Vec<_>>(), without);
    }
}

#[test]
fn drives_without_room_are_told_from_drives_that_do_not_answer() {
    for (full, cut, expected) in [
        (vec![1, 2], vec![], Refusal::Full),
        (vec![2], vec![1], Refusal::Full),
        (vec![], vec![1, 2], Refusal::NoQuorum { granted: 1, needed: 2, barred: vec![] }),
        (vec![0], vec![1, 2], Refusal::NoQuorum { granted: 0, needed: 2, barred: vec![] }),
    ] {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        a.request(bench.acquire(X), bench.now).expect("in order");
        pass_with(&mut bench, &mut a, Duration::from_secs(6), |command| {
            match (command.drive.0, op(command)) {
                (d, Some(MutexOp::Trylock)) if full.contains(&d) => {
                    Fate::Instead(Status::Full(Limit::HostsOfMutex))
                }
                (d, _) if cut.contains(&d) => Fate::Instead(Status::Unreachable),
                _ => Fate::Answered,
            }
        });
        assert_eq!(done(&mut a), Some(Outcome::Refused(expected)), "{full:?} {cut:?}");
    }
}

/// Other hosts have these drives of `count`, and some drives are silent. Returns whether our host
/// gives way and tries again.
fn backs_off(count: usize, others: &[&[u32]], silent: &[usize]) -> bool {
    let mut bench = Bench::new(count);
    for (at, drives) in others.iter().enumerate() {
        seize(&mut bench, &mut lv_lock(2 + at as u8), X, drives);
    }
    silent.iter().for_each(|&drive| bench.paths[drive] = Path::Cut);
    let mut a = lv_lock(1);
    a.request(bench.acquire(X), bench.now).expect("in order");
    bench.pass(&mut a, Duration::from_millis(500));
    events(&mut a).contains(&Event::Notice(Notice::SplitVote))
}

#[test]
fn who_meets_a_majority_of_another_host_does_not_try_again() {
    type Case<'a> = (usize, &'a [&'a [u32]], &'a [usize], bool);
    let cases: [Case<'_>; 10] = [
        (3, &[&[1], &[2]], &[], true),
        (3, &[&[1, 2]], &[], false),
        (3, &[&[1]], &[2], false),
        (4, &[&[2], &[3]], &[], true),
        (4, &[&[2, 3]], &[], true),
        (4, &[&[1, 2], &[3]], &[], false),
        (4, &[&[3], &[1, 2]], &[], false),
        (4, &[&[1], &[2]], &[3], true),
        (5, &[&[1], &[2], &[3], &[4]], &[], true),
        (5, &[&[1], &[2, 3, 4]], &[], false),
    ];
    for (count, others, silent, expected) in cases {
        assert_eq!(backs_off(count, others, silent), expected, "{count} {others:?} {silent:?}");
    }
}

#[test]
fn a_split_is_tried_again_a_few_times_at_growing_intervals() {
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(2), X, &[1]);
    seize(&mut bench, &mut lv_lock(3), X, &[2]);
    let mut a = lv_lock(1);
    a.request(bench.acquire(X), bench.now).expect("in order");
    let mut pauses = Vec::new();
    let outcome = loop {
        bench.exchange(&mut a);
        if let Some(outcome) = done(&mut a) {
            break outcome;
        }
        assert_eq!(on(&a), [], "it gives way meanwhile");
        assert_eq!(bench.states(0), [State::Unlocked], "it is wanted again in a moment");
        let next = a.next_deadline().expect("another attempt");
        pauses.push(next.since(bench.now));
        bench.now = next;
        a.on_timer(bench.now);
    };
    assert!(is_held(&outcome), "{outcome:?}");
    assert_eq!(said(&bench, 0).iter().filter(|name| **name == "trylock").count(), 6);
    for (at, pause) in pauses.iter().enumerate() {
        let mean = Timing::for_lease(LEASE).backoff * 2u32.pow(1 + at as u32);
        assert!((mean / 4..=mean).contains(pause), "{at}: {pause:?}");
    }
    assert!(bench.states(0).is_empty(), "nothing is left after a refusal");
}

#[test]
fn a_host_that_stood_still_does_not_try_again_when_its_time_is_over() {
    for late in [Duration::ZERO, Duration::from_secs(1)] {
        let mut bench = Bench::new(3);
        seize(&mut bench, &mut lv_lock(2), X, &[1]);
        seize(&mut bench, &mut lv_lock(3), X, &[2]);
        let mut a = lv_lock(1);
        a.request(bench.acquire(X), bench.now).expect("in order");
        let deadline = bench.now + Timing::for_lease(LEASE).patience;
        bench.exchange(&mut a);
        assert!(events(&mut a).contains(&Event::Notice(Notice::SplitVote)));
        bench.now = deadline + late;
        a.on_timer(bench.now);
        bench.exchange(&mut a);
        assert!(done(&mut a).is_some(), "the request ends");
    }
}

// ---- Values ----

#[test]
fn a_value_is_believed_when_a_majority_shows_it() {
    // Drives that lost everything, and drives whose table cannot be read.
    let cases: [(u32, &[usize], &[u32], bool); 8] = [
        (3, &[], &[], true),
        (3, &[2], &[], true),
        (3, &[], &[2], true),
        (3, &[1, 2], &[], false),
        (3, &[1], &[2], false),
        (5, &[4], &[3], true),
        (5, &[3, 4], &[], true),
        (5, &[2, 3, 4], &[], false),
    ];
    for (drives, reset, unread, believed) in cases {
        let (mut bench, all) = with_a_value(drives);
        reset.iter().for_each(|&drive| bench.drives[drive].reset());
        let mut a = vg_lock(1);
        a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
        let mut taken = Vec::new();
        pass_with(&mut bench, &mut a, Duration::from_secs(6), |command| {
            let drive = command.drive.0;
            if op(command) == Some(MutexOp::Trylock) {
                taken.push(drive);
            }
            let reads = command.command == DriveCommand::ReadTable;
            if reads && taken.contains(&drive) && unread.contains(&drive) {
                return Fate::Open;
            }
            Fate::Answered
        });
        let outcome = done(&mut a).expect("it ends");
        let expected = believed.then_some(7);
        assert_eq!(known(&outcome), expected, "{drives} {reset:?} {unread:?}: {outcome:?}");
    }
}

#[test]
fn more_values_than_are_needed_are_as_good() {
    let (mut bench, all) = with_a_value(5);
    bench.paths[4] = Path::Hung;
    let outcome = take(&mut bench, &mut vg_lock(1), X, &all, &[]);
    assert_eq!(known(&outcome), Some(7));
}

#[test]
fn a_value_is_not_waited_for_longer_than_it_may_matter() {
    let grace = Timing::for_lease(LEASE).grace;
    // A majority has been read.
    let (mut bench, all) = with_a_value(3);
    let begin = bench.now;
    let mut a = vg_lock(1);
    a.request(acquire(&bench, X, &all, &[]), begin).expect("in order");
    let mut taken = false;
    exchange_with(&mut bench, &mut a, |command| {
        let last = command.drive.0 == 2;
        taken |= last && op(command) == Some(MutexOp::Trylock);
        if last && taken && op(command).is_none() { Fate::Open } else { Fate::Answered }
    });
    assert_eq!(done(&mut a).as_ref().and_then(known), Some(7));
    // Drives have no value, and one drive does not answer at all.
    let mut bench = Bench::new(3);
    bench.paths[2] = Path::Hung;
    let begin = bench.now;
    let outcome = take(&mut bench, &mut vg_lock(1), X, &[0, 1, 2], &[]);
    assert_eq!(outcome, GRANTED);
    assert!(bench.now.since(begin) <= grace);
}

#[test]
fn a_mutex_without_a_value_is_left_as_it_is() {
    let mut bench = Bench::new(3);
    let mut a = vg_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    bench.log.clear();
    bench.run(&mut a, RELEASE);
    assert!((0..3).all(|drive| said(&bench, drive) == ["unlock"]), "{:?}", bench.log);
}

#[test]
fn drives_are_looked_at_before_they_are_first_taken() {
    let mut bench = Bench::new(3);
    let mut a = vg_lock(1);
    bench.paths[2] = Path::Cut;
    take(&mut bench, &mut a, X, &[0, 1, 2], &[]);
    assert!((0..2).all(|drive| said(&bench, drive) == ["read", "trylock", "read"]));
    bench.run(&mut a, RELEASE);
    bench.paths[2] = Path::Up;
    bench.log.clear();
    take(&mut bench, &mut a, X, &[0, 1, 2], &[]);
    assert!((0..2).all(|drive| said(&bench, drive) == ["trylock", "read"]));
    assert_eq!(said(&bench, 2)[..2], ["read", "trylock"], "it could not be read before");
    bench.run(&mut a, RELEASE);
    // A record left by an adoption does not count as a record of this life.
    let orphan = adopt(&bench, &[0, 1, 2], None);
    bench.run(&mut a, orphan);
    bench.run(&mut a, RELEASE);
    bench.log.clear();
    take(&mut bench, &mut a, X, &[0, 1, 2], &[]);
    assert!((0..3).all(|drive| said(&bench, drive)[0] == "read"), "{:?}", bench.log);
}

#[test]
fn a_value_that_has_not_reached_a_majority_is_not_replaced_by_the_old_one() {
    // Drives that do not take the UNLOCK with the new value before the lease has run out.
    for (cut, expected) in [(vec![2], Some(8)), (vec![1, 2], None), (vec![0, 1, 2], None)] {
        let mut profile = Profile::current();
        profile.expired_holder_may_relock = true;
        let (mut bench, all) = with_a_value_on(Bench::with(3, profile));
        let mut a = vg_lock(1);
        assert_eq!(known(&take(&mut bench, &mut a, X, &all, &[])), Some(7));
        cut.iter().for_each(|&drive| bench.paths[drive] = Path::Cut);
        bench.run(&mut a, Request::Release { value: Some(value(8)) });
        bench.pass(&mut a, LEASE * 2);
        bench.paths = vec![Path::Up; 3];
        let outcome = take(&mut bench, &mut a, X, &all, &[]);
        assert_eq!(known(&outcome), expected, "without {cut:?}: {outcome:?}");
    }
}

#[test]
fn a_release_without_a_value_leaves_the_old_one_for_the_same_host() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    bench.paths[2] = Path::Deaf;
    bench.run(&mut a, RELEASE);
    bench.paths[2] = Path::Up;
    assert_eq!(known(&take(&mut bench, &mut a, X, &all, &[])), Some(7));
}

#[test]
fn a_value_that_is_still_to_be_removed_is_not_believed() {
    let (mut bench, all) = with_a_value(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    assert_eq!(known(&take(&mut bench, &mut b, S, &all, &[])), Some(7));
    assert_eq!(take(&mut bench, &mut a, S, &all, &[]), GRANTED, "b shares it");
    bench.run(&mut b, RELEASE);
    // The mutex is unlocked, but not destroyed yet.
    a.request(RELEASE, bench.now).expect("always in order");
    exchange_with(&mut bench, &mut a, |command| match op(command) {
        Some(MutexOp::Destroy) => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    events(&mut a);
    let outcome = take(&mut bench, &mut a, X, &all, &[]);
    assert_eq!(known(&outcome), None, "{outcome:?}");
}

#[test]
fn only_who_is_exclusive_and_safe_publishes() {
    type Prepare = fn(&mut Bench, &mut Lock);
    let frozen: Prepare = |bench, lock| {
        bench.now = bench.now + LEASE;
        lock.on_timer(bench.now);
    };
    let quick: Prepare = |_, _| {};
    // A value that was published by a change to shared is written with the UNLOCK.
    let changed: Prepare = |bench, lock| {
        let request = Request::Convert { mode: S, value: Some(value(5)) };
        bench.run(lock, request);
    };
    let promoted: Prepare = |bench, lock| {
        let request = Request::Convert { mode: X, value: Some(value(5)) };
        assert_eq!(bench.run(lock, request), Outcome::Converted { complete: true });
    };
    let lost: Prepare = |bench, lock| {
        bench.drives.iter_mut().take(2).for_each(|drive| drive.reset());
        bench.pass(lock, LEASE / 2);
    };
    type Case = (&'static str, Mode, Prepare, Option<u64>, Option<u64>);
    let cases: [Case; 11] = [
        ("exclusive", X, quick, Some(8), Some(8)),
        ("exclusive, no value", X, quick, None, None),
        ("shared", S, quick, Some(8), None),
        ("a sharer's value", S, promoted, None, None),
        ("promoted", S, promoted, Some(8), Some(8)),
        ("lapsed", X, frozen, Some(8), Some(0)),
        ("lapsed, no value", X, frozen, None, Some(0)),
        ("changed", X, changed, None, Some(5)),
        ("changed, shared does not publish", X, changed, Some(8), Some(5)),
        ("lost", X, lost, Some(8), Some(0)),
        ("lost, no value", X, lost, None, Some(0)),
    ];
    for (name, mode, prepare, given, expected) in cases {
        let (mut bench, all) = with_a_value(3);
        let mut a = vg_lock(1);
        assert_eq!(known(&take(&mut bench, &mut a, mode, &all, &[])), Some(7));
        prepare(&mut bench, &mut a);
        let stored = published(&mut bench, &mut a, given.map(value));
        assert!(!stored.is_empty(), "{name}");
        assert!(stored.iter().all(|v| *v == expected), "{name}: {stored:?}");
    }
}

#[test]
fn a_released_value_is_the_value_of_its_release_only() {
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    bench.run(&mut a, Request::Convert { mode: S, value: Some(value(5)) });
    assert_eq!(published(&mut bench, &mut a, None), [Some(5); 3]);
    events(&mut a);
    // Another host publishes a value.
    let mut b = vg_lock(2);
    assert_eq!(known(&take(&mut bench, &mut b, X, &all, &[])), Some(5));
    bench.run(&mut b, Request::Release { value: Some(value(6)) });
    assert_eq!(known(&take(&mut bench, &mut a, X, &all, &[])), Some(6));
    assert_eq!(published(&mut bench, &mut a, None), [None; 3]);
}

#[test]
fn an_lvs_lock_carries_no_value() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    take(&mut bench, &mut a, X, &[0, 1, 2], &[]);
    bench.run(&mut a, Request::Convert { mode: S, value: Some(value(5)) });
    assert_eq!(published(&mut bench, &mut a, Some(value(6))), [None; 3]);
}

#[test]
fn what_was_not_published_before_a_crash_is_not_believed() {
    for adopted in [true, false] {
        let (mut bench, all) = with_a_value(3);
        take(&mut bench, &mut vg_lock(1), X, &all, &[]);
        let mut a = vg_lock(1);
        if !adopted {
            // Too few drives answer in time to adopt it; then it is given up.
            bench.paths = vec![Path::Up, Path::Cut, Path::Cut];
        }
        let orphan = adopt(&bench, &all, None);
        let outcome = bench.run(&mut a, orphan);
        assert_eq!(outcome == Outcome::Adopted(X), adopted);
        bench.paths = vec![Path::Up; 3];
        bench.run(&mut a, RELEASE);
        bench.pass(&mut a, LEASE * 2);
        let outcome = take(&mut bench, &mut vg_lock(2), X, &all, &[]);
        assert_eq!(known(&outcome), None, "adopted: {adopted}");
    }
}

#[test]
fn a_value_that_a_promoted_sharer_could_not_vouch_for_is_not_left() {
    let (mut bench, all) = with_a_value(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut b, S, &all, &[]);
    assert_eq!(take(&mut bench, &mut a, S, &all, &[]), GRANTED);
    bench.run(&mut b, RELEASE);
    let outcome = bench.run(&mut a, convert(X));
    assert_eq!(outcome, Outcome::Converted { complete: true });
    assert_eq!(published(&mut bench, &mut a, None), [Some(0); 3]);
    let outcome = take(&mut bench, &mut vg_lock(3), X, &all, &[]);
    assert_eq!(known(&outcome), None, "{outcome:?}");
}

// ---- Keeping ----

#[test]
fn the_lease_begins_when_its_commands_were_handed_out_and_ends_a_little_early() {
    let timing = Timing::for_lease(LEASE);
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    a.request(bench.acquire(X), bench.now).expect("in order");
    let end = bench.now + LEASE - timing.drift;
    let open = exchange_with(&mut bench, &mut a, |_| Fate::Open);
    bench.now = bench.now + timing.patience / 2;
    for command in open {
        let reply = bench.perform(&command);
        a.on_reply(command.token, reply, bench.now);
    }
    assert_eq!(done(&mut a), Some(GRANTED));
    assert_eq!(a.safe_until(), Some(end), "the drives may have counted from the beginning");
    // Its refreshes have no answer.
    bench.now = bench.now + timing.renew;
    exchange_with(&mut bench, &mut a, |_| Fate::Open);
    assert_eq!(a.next_deadline(), Some(end));
    bench.now = end - Duration::from_micros(1);
    a.on_timer(bench.now);
    assert!(!events(&mut a).contains(&Event::Lapsed));
    bench.now = end;
    a.on_timer(bench.now);
    assert!(events(&mut a).contains(&Event::Lapsed));
    assert_eq!(a.safe_until(), Some(end));
    assert_eq!(a.mode(), Some(X), "it is not released yet");
}

#[test]
fn as_many_drives_keep_a_lock_as_leave_others_without_a_majority() {
    for (count, silent, kept) in [
        (1, 0, true),
        (1, 1, false),
        (2, 1, true),
        (2, 2, false),
        (3, 1, true),
        (3, 2, false),
        (4, 2, true),
        (4, 3, false),
        (5, 2, true),
        (5, 3, false),
    ] {
        let mut bench = Bench::new(count);
        let mut a = lv_lock(1);
        let acquire = bench.acquire(X);
        assert_eq!(bench.run(&mut a, acquire), GRANTED);
        bench.paths[..silent].fill(Path::Cut);
        bench.pass(&mut a, LEASE * 2);
        assert_eq!(believes(&bench, &a), kept, "{silent} of {count} are silent");
        // Drives that lost their state do not come back after a lapse, and are taken before.
        bench.drives[..silent].iter_mut().for_each(|drive| drive.reset());
        bench.log.clear();
        bench.paths.fill(Path::Up);
        bench.pass(&mut a, LEASE * 2);
        let lost = events(&mut a).contains(&Event::Lost(Loss::Taken));
        assert_eq!((lost, believes(&bench, &a)), (!kept, kept), "{silent} of {count} are reset");
        let again = bench.log.iter().any(|(_, name)| *name == "trylock");
        assert_eq!(again, kept && silent > 0, "{silent} of {count}");
    }
}

#[test]
fn a_drive_that_lost_the_lock_is_taken_after_the_others_have_said_that_they_have_it() {
    for (status, at_once) in [(Status::NotFound, true), (Status::Conflict, false)] {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        let acquire = bench.acquire(X);
        assert_eq!(bench.run(&mut a, acquire), GRANTED);
        // Drive 2 answers a while after the others.
        let open = pass_with(&mut bench, &mut a, LEASE / 3, |command| match command.drive.0 {
            2 => Fate::Open,
            _ => Fate::Answered,
        });
        let [refresh] = &open[..] else { panic!("one refresh is open") };
        bench.now = bench.now + Duration::from_secs(1);
        bench.log.clear();
        a.on_reply(refresh.token, Reply::Status(status), bench.now);
        // While the others do not answer, it is not taken.
        let mut others = exchange_with(&mut bench, &mut a, |_| Fate::Open);
        assert_eq!(bench.log, [(0, "refresh"), (1, "refresh")], "{status:?}");
        let last = others.pop().expect("two");
        for command in others {
            let reply = bench.perform(&command);
            a.on_reply(command.token, reply, bench.now);
        }
        assert_eq!(a.next_command(bench.now), None, "one of three is not enough");
        let reply = bench.perform(&last);
        a.on_reply(last.token, reply, bench.now);
        let next = a.next_command(bench.now);
        assert_eq!(next.is_some(), at_once, "{status:?}: {next:?}");
        if let Some(command) = next {
            assert_eq!((command.drive.0, op(&command)), (2, Some(MutexOp::Trylock)));
        } else {
            bench.log.clear();
            bench.pass(&mut a, Timing::for_lease(LEASE).renew / 4);
            assert!(said(&bench, 2).contains(&"trylock"), "a little later");
        }
    }
}

#[test]
fn what_is_taken_after_a_lapse_proves_nothing() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    bench.paths[2] = Path::Cut;
    let all = bench.acquire(X);
    assert_eq!(bench.run(&mut a, all.clone()), GRANTED);
    // Drive 2 is asked at last, when the lease has nearly run out, and answers after that.
    let mut sent = Vec::new();
    while believes(&bench, &a) {
        sent.extend(pass_with(&mut bench, &mut a, Duration::from_secs(1), |command| {
            let time = op(command) == Some(MutexOp::Trylock);
            if time { Fate::Open } else { Fate::Instead(Status::Unreachable) }
        }));
    }
    let [trylock] = &sent[..] else { panic!("one TRYLOCK, {sent:?}") };
    assert!(events(&mut a).contains(&Event::Lapsed));
    // Meanwhile another host takes the lock on drives 1 and 2, and drive 2 is reset.
    bench.now = bench.now + Duration::from_secs(5);
    let mut b = lv_lock(2);
    bench.paths = vec![Path::Cut, Path::Up, Path::Up];
    assert_eq!(bench.run(&mut b, all), GRANTED);
    bench.drives[2].reset();
    let reply = bench.perform(trylock);
    bench.paths = vec![Path::Up, Path::Cut, Path::Up];
    a.on_reply(trylock.token, reply, bench.now);
    bench.pass(&mut a, Duration::from_secs(20));
    assert!(!events(&mut a).contains(&Event::Regained));
    assert!(!(believes(&bench, &a) && believes(&bench, &b)), "both believe");
}

#[test]
fn a_drive_that_was_missed_at_a_lapse_counts_again_after_it() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    bench.paths[2] = Path::Cut;
    let all = bench.acquire(X);
    bench.run(&mut a, all);
    bench.paths = vec![Path::Cut; 3];
    bench.pass(&mut a, LEASE);
    assert!(events(&mut a).contains(&Event::Lapsed));
    bench.log.clear();
    bench.pass(&mut a, LEASE);
    assert!(
        bench.log.iter().all(|(_, name)| *name == "refresh"),
        "nothing is taken: {:?}",
        bench.log
    );
    bench.paths = vec![Path::Up; 3];
    bench.pass(&mut a, LEASE / 2);
    assert!(events(&mut a).contains(&Event::Regained));
    assert_eq!(on(&a), [0, 1, 2]);
    bench.paths[0] = Path::Cut;
    bench.pass(&mut a, LEASE * 2);
    assert!(believes(&bench, &a), "drives 1 and 2 keep it");
}

#[test]
fn a_lock_that_lapsed_is_not_regained_where_others_may_count_other_drives() {
    for (witnesses, regained) in [(vec![], true), (vec![3, 4], false)] {
        let mut bench = Bench::new(5);
        let mut a = lv_lock(1);
        assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &witnesses), GRANTED);
        bench.paths = vec![Path::Cut; 5];
        bench.pass(&mut a, LEASE);
        bench.paths = vec![Path::Up; 5];
        bench.pass(&mut a, LEASE);
        assert_eq!(events(&mut a).contains(&Event::Regained), regained);
        assert_eq!(believes(&bench, &a), regained);
    }
}

/// Host 1 counts three drives. Hosts that count only drive 2 hold the lock there one after the
/// other, each for this time, while drive 2 did not answer host 1. Returns the events of its lock.
fn beside_hosts_with_other_drives(stays: &[u64]) -> Vec<Event> {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    bench.paths[2] = Path::Cut;
    let all = bench.acquire(X);
    bench.run(&mut a, all);
    bench.paths[2] = Path::Up;
    for (at, seconds) in stays.iter().enumerate() {
        let mut b = lv_lock(2 + at as u8);
        assert_eq!(take(&mut bench, &mut b, X, &[2], &[]), GRANTED);
        let end = bench.now + Duration::from_secs(*seconds);
        while bench.now < end {
            bench.exchange(&mut b);
            bench.exchange(&mut a);
            bench.now = bench.now + Duration::from_millis(500);
            a.on_timer(bench.now);
            b.on_timer(bench.now);
        }
        bench.run(&mut b, RELEASE);
    }
    events(&mut a)
}

#[test]
fn only_a_host_that_holds_on_for_longer_than_its_lease_is_given_way_to() {
    for (stays, lost) in
        [(&[70][..], false), (&[50, 50, 50][..], false), (&[125][..], true), (&[50, 125][..], true)]
    {
        let told = beside_hosts_with_other_drives(stays);
        let by = |event: &Event| match event {
            Event::Lost(Loss::OtherSet(conflict)) => Some(conflict.host),
            _ => None,
        };
        let expected = lost.then(|| host(1 + stays.len() as u8));
        assert_eq!(told.iter().find_map(by), expected, "{stays:?}");
    }
}

#[test]
fn a_drive_that_does_not_answer_is_asked_soon_again_and_then_less_often() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let all = bench.acquire(X);
    bench.run(&mut a, all);
    bench.paths[2] = Path::Cut;
    bench.log.clear();
    let mut times = Vec::new();
    let begin = bench.now;
    while bench.now.since(begin) < LEASE {
        let before = said(&bench, 2).len();
        bench.pass(&mut a, Duration::from_millis(10));
        times.extend((before..said(&bench, 2).len()).map(|_| bench.now));
    }
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    let (first, renew) = (Duration::from_millis(250), Timing::for_lease(LEASE).renew);
    for (at, pause) in pauses.iter().enumerate() {
        let expected = (first * 2u32.pow(at as u32)).min(renew / 2);
        let late = pause.checked_sub(expected).expect("not too soon");
        assert!(late <= Duration::from_millis(20), "{at}: {pause:?}");
    }
    assert!(pauses.len() >= 7, "{pauses:?}");
    // After it has answered, the next failure is a first one.
    bench.paths[2] = Path::Up;
    bench.pass(&mut a, LEASE);
    bench.paths[2] = Path::Cut;
    bench.log.clear();
    while said(&bench, 2).is_empty() {
        bench.pass(&mut a, Duration::from_millis(10));
    }
    bench.pass(&mut a, first);
    assert_eq!(said(&bench, 2).len(), 2);
}

// ---- Changing the mode ----

#[test]
fn a_change_to_shared_is_complete_when_a_majority_knows_of_it() {
    for (hung, complete) in [(vec![], true), (vec![2], true), (vec![1, 2], false)] {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        let all = bench.acquire(X);
        bench.run(&mut a, all.clone());
        hung.iter().for_each(|&drive| bench.paths[drive] = Path::Hung);
        let begin = bench.now;
        let outcome = bench.run(&mut a, convert(S));
        assert_eq!(outcome, Outcome::Converted { complete }, "{hung:?}");
        let waits = Timing::for_lease(LEASE).patience;
        let expected = if complete { Duration::ZERO } else { waits };
        assert_eq!(bench.now.since(begin), expected, "{hung:?}");
        assert_eq!(a.mode(), Some(S));
    }
}

#[test]
fn a_change_to_the_mode_that_it_has_ends_at_once() {
    for mode in [X, S] {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        take(&mut bench, &mut a, mode, &[0, 1, 2], &[]);
        bench.log.clear();
        let outcome = bench.run(&mut a, convert(mode));
        assert_eq!(outcome, Outcome::Converted { complete: true });
        assert_eq!((a.mode(), bench.log.len()), (Some(mode), 0));
    }
}

#[test]
fn a_change_to_exclusive_needs_a_majority_and_nobody_else() {
    // Drives that do not answer, and drives that another host shares.
    let cases: [(&[usize], &[u32], bool); 7] = [
        (&[], &[], true),
        (&[2], &[], true),
        (&[1, 2], &[], false),
        (&[], &[0, 1, 2], false),
        (&[], &[1, 2], false),
        (&[], &[2], true),
        (&[0], &[2], false),
    ];
    for (cut, shared, granted) in cases {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        let all = bench.acquire(S);
        bench.run(&mut a, all);
        let mut b = lv_lock(2);
        seize(&mut bench, &mut b, S, shared);
        cut.iter().for_each(|&drive| bench.paths[drive] = Path::Cut);
        let outcome = bench.run(&mut a, convert(X));
        let converted = outcome == Outcome::Converted { complete: true };
        assert_eq!(converted, granted, "without {cut:?}, shared on {shared:?}: {outcome:?}");
        assert_eq!(a.mode(), Some(if granted { X } else { S }));
        assert!(believes(&bench, &a));
        // The change on some drives is undone.
        bench.paths = vec![Path::Up; 3];
        bench.pass(&mut a, LEASE);
        if !granted {
            assert!(a.held_on().all(|(_, mode)| mode == S), "{cut:?}, {shared:?}");
        }
    }
}

#[test]
fn a_change_to_exclusive_ends_with_the_lease() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    let all = bench.acquire(S);
    bench.run(&mut a, all);
    bench.paths = vec![Path::Cut; 3];
    bench.pass(&mut a, LEASE - Duration::from_secs(1));
    assert!(believes(&bench, &a));
    bench.paths = vec![Path::Hung; 3];
    let begin = bench.now;
    let outcome = bench.run(&mut a, convert(X));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert!(bench.now.since(begin) <= Duration::from_secs(1));
    assert_eq!(a.mode(), Some(S));
}

#[test]
fn a_lapsed_lock_is_not_changed_to_exclusive() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    let all = bench.acquire(S);
    bench.run(&mut a, all);
    bench.now = bench.now + LEASE;
    let outcome = bench.run(&mut a, convert(X));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

#[test]
fn a_change_does_not_wait_for_drives_that_it_does_not_need() {
    // A BREAK put the lock on drive 2, too, which has lost it since.
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    take(&mut bench, &mut lv_lock(9), X, &[2], &[]);
    bench.now = bench.now + LEASE * 2;
    take(&mut bench, &mut a, S, &[0], &[1, 2]);
    assert_eq!(on(&a), [0, 2]);
    bench.drives[2].reset();
    pass_with(&mut bench, &mut a, LEASE / 2, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Trylock)) => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    assert_eq!(on(&a), [0]);
    bench.paths[2] = Path::Hung;
    let begin = bench.now;
    let outcome = bench.run(&mut a, convert(X));
    assert_eq!(outcome, Outcome::Converted { complete: true });
    assert_eq!(bench.now, begin);
}

#[test]
fn a_drive_that_owes_an_old_answer_is_not_waited_for() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    bench.paths[2] = Path::Hung;
    let all = bench.acquire(X);
    assert_eq!(bench.run(&mut a, all.clone()), GRANTED);
    bench.run(&mut a, RELEASE);
    let begin = bench.now;
    assert_eq!(bench.run(&mut a, all), GRANTED);
    assert_eq!(bench.now, begin);
}

// ---- Adopting ----

/// The record of the lock on a drive.
#[derive(Clone, Copy, PartialEq)]
enum Left {
    Exclusive,
    Shared,
    Nothing,
    /// It does not answer.
    Silent,
}

/// Adopts the records of an earlier life. With `granted` it is known that the life was granted the
/// lock.
fn adopted(left: &[Left], granted: bool) -> Outcome {
    let mut bench = Bench::new(left.len());
    for (drive, left) in left.iter().enumerate() {
        match left {
            Left::Exclusive => seize(&mut bench, &mut lv_lock(1), X, &[drive as u32]),
            Left::Shared => seize(&mut bench, &mut lv_lock(1), S, &[drive as u32]),
            Left::Nothing => {}
            Left::Silent => bench.paths[drive] = Path::Cut,
        }
    }
    let all: Vec<u32> = (0..left.len() as u32).collect();
    let request = adopt(&bench, &all, granted.then_some(bench.now + LEASE / 2));
    let exclusive = left.iter().filter(|left| matches!(left, Left::Exclusive)).count();
    let request = in_mode(request, if 2 * exclusive >= left.len() { X } else { S });
    let mut a = lv_lock(1);
    let outcome = bench.run(&mut a, request);
    // Whatever the answer, it changed no mode and took nothing.
    for (drive, left) in left.iter().enumerate() {
        let time = DriveTime::from_micros(bench.now.as_micros());
        let modes: Vec<_> =
            bench.drives[drive].table(time).iter().map(|r| r.class.mode()).collect();
        let expected: &[Mode] = match left {
            Left::Exclusive if outcome != Outcome::Adopted(S) => &[X],
            Left::Shared if outcome != Outcome::Adopted(X) => &[S],
            Left::Nothing | Left::Silent if !matches!(outcome, Outcome::Adopted(_)) => &[],
            _ => continue,
        };
        assert_eq!(modes, expected, "drive {drive}");
    }
    outcome
}

#[test]
fn what_is_left_decides_what_is_adopted() {
    use Left::{Exclusive as E, Nothing as N, Shared as H, Silent as C};
    #[derive(Debug, PartialEq)]
    enum Told {
        Adopted(Mode),
        Nothing,
        Unclear,
        TooFew(usize),
    }
    use Told::{Adopted, Nothing, TooFew, Unclear};
    // Results without and with the knowledge that the lock was granted. It is noted as exclusive if
    // half of the drives or more have that record.
    let cases: [(&[Left], Told, Told); 29] = [
        (&[E], Adopted(X), Adopted(X)),
        (&[H], Adopted(S), Adopted(S)),
        (&[N], Nothing, Nothing),
        (&[C], TooFew(0), TooFew(0)),
        (&[E, E], Adopted(X), Adopted(X)),
        (&[E, N], Unclear, Adopted(X)),
        (&[E, C], TooFew(1), Adopted(X)),
        (&[H, C], TooFew(1), Adopted(S)),
        (&[E, H], Unclear, Adopted(X)),
        (&[H, N], Unclear, Adopted(S)),
        (&[N, C], TooFew(0), TooFew(0)),
        (&[E, E, E], Adopted(X), Adopted(X)),
        (&[E, E, N], Adopted(X), Adopted(X)),
        (&[E, E, C], Adopted(X), Adopted(X)),
        (&[E, N, N], Nothing, Nothing),
        (&[E, N, C], TooFew(1), TooFew(1)),
        (&[E, C, C], TooFew(1), TooFew(1)),
        (&[N, N, C], Nothing, Nothing),
        (&[N, C, C], TooFew(0), TooFew(0)),
        (&[E, E, H], Adopted(X), Adopted(X)),
        (&[E, H, H], Adopted(S), Adopted(S)),
        (&[E, H, N], Adopted(S), Adopted(S)),
        (&[E, H, C], Adopted(S), Adopted(S)),
        (&[H, H, C], Adopted(S), Adopted(S)),
        (&[E, E, E, N], Adopted(X), Adopted(X)),
        (&[E, E, N, N], Unclear, Adopted(X)),
        (&[E, N, N, N], Nothing, Nothing),
        (&[E, H, H, N], Adopted(S), Adopted(S)),
        (&[H, H, N, N], Unclear, Adopted(S)),
    ];
    for (left, without, with) in cases {
        for (granted, expected) in [(false, without), (true, with)] {
            let outcome = adopted(left, granted);
            let told = match outcome {
                Outcome::Adopted(mode) => Adopted(mode),
                Outcome::Refused(Refusal::NothingToAdopt) => Nothing,
                Outcome::Refused(Refusal::Unclear) => Unclear,
                Outcome::Refused(Refusal::NoQuorum { granted, .. }) => TooFew(granted),
                other => panic!("{other:?}"),
            };
            let shape: Vec<u8> = left.iter().map(|&left| left as u8).collect();
            assert_eq!(told, expected, "{shape:?}, granted: {granted}");
        }
    }
}

#[test]
fn a_half_is_adopted_only_in_time() {
    for (early, adopts) in [(true, true), (false, false)] {
        let mut bench = Bench::new(2);
        seize(&mut bench, &mut lv_lock(1), X, &[0]);
        let mut request = in_mode(adopt(&bench, &[0, 1], Some(bench.now + LEASE / 2)), X);
        if let Request::Adopt { safe_until, .. } = &mut request {
            let moment = Duration::from_micros(u64::from(early));
            *safe_until = Some(bench.now + moment);
        }
        let outcome = bench.run(&mut lv_lock(1), request);
        assert_eq!(outcome == Outcome::Adopted(X), adopts, "early: {early}, {outcome:?}");
    }
}

#[test]
fn a_half_is_not_adopted_where_another_host_has_been_unless_both_share() {
    for mode in [X, S] {
        let mut bench = Bench::new(2);
        seize(&mut bench, &mut lv_lock(1), mode, &[0]);
        seize(&mut bench, &mut lv_lock(2), mode, &[1]);
        let request = adopt(&bench, &[0, 1], Some(bench.now + LEASE / 2));
        let outcome = bench.run(&mut lv_lock(1), request);
        assert_eq!(is_held(&outcome), mode == X, "{mode}: {outcome:?}");
        // The same after it has been dead for long.
        bench.now = bench.now + LEASE * 2;
        let request = adopt(&bench, &[0, 1], Some(bench.now + LEASE / 2));
        let outcome = bench.run(&mut lv_lock(1), request);
        assert_eq!(is_held(&outcome), mode == X, "{mode}: {outcome:?}");
    }
}

#[test]
fn sharers_with_other_drives_are_no_obstacle_to_adopting_a_shared_lock() {
    for (other, counts, adopts) in [(S, &[2][..], true), (S, &[0, 1, 2], true)] {
        let mut bench = Bench::new(3);
        let mut first = lv_lock(1);
        assert_eq!(take(&mut bench, &mut first, S, &[0, 1, 2], &[]), GRANTED);
        assert_eq!(take(&mut bench, &mut lv_lock(2), other, counts, &[]), GRANTED);
        let request = adopt(&bench, &[0, 1, 2], None);
        let outcome = bench.run(&mut lv_lock(1), request);
        assert_eq!(outcome == Outcome::Adopted(S), adopts, "{counts:?}: {outcome:?}");
    }
}

#[test]
fn an_adoption_asks_no_drive_twice_that_has_nothing_and_ends_as_soon_as_it_can() {
    // A silent drive that decides nothing is not waited for.
    let mut bench = Bench::new(3);
    bench.paths[2] = Path::Hung;
    let (begin, request) = (bench.now, adopt(&bench, &[0, 1, 2], None));
    let mut a = lv_lock(1);
    assert_eq!(bench.run(&mut a, request), Outcome::Refused(Refusal::NothingToAdopt));
    assert_eq!(bench.now, begin);
    // A silent drive that decides is waited for, until the patience is over.
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(1), X, &[0]);
    bench.paths[2] = Path::Hung;
    let (begin, request) = (bench.now, adopt(&bench, &[0, 1, 2], None));
    let outcome = bench.run(&mut lv_lock(1), request);
    assert!(matches!(outcome, Outcome::Refused(Refusal::NoQuorum { granted: 1, .. })));
    assert_eq!(bench.now.since(begin), Timing::for_lease(LEASE).patience);
    // But not after all have given up.
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(1), X, &[0]);
    bench.paths[2] = Path::Cut;
    let (begin, request) = (bench.now, adopt(&bench, &[0, 1, 2], None));
    let outcome = bench.run(&mut lv_lock(1), request);
    assert!(matches!(outcome, Outcome::Refused(Refusal::NoQuorum { granted: 1, .. })));
    assert!(bench.now.since(begin) < Duration::from_secs(1));
}

#[test]
fn what_an_adoption_found_on_other_drives_is_given_back_when_they_leave() {
    let mut bench = Bench::new(3);
    let mut first = lv_lock(1);
    assert_eq!(take(&mut bench, &mut first, X, &[0], &[1, 2]), GRANTED);
    let named = bench.members(&[0, 1, 2]);
    first.spread(&named, bench.now);
    bench.exchange(&mut first);
    drop(first);
    let mut a = lv_lock(1);
    let request = adopt_beside(&bench, &[0], &[1, 2], None);
    assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
    assert_eq!(on(&a), [0, 1, 2]);
    let named = bench.members(&[0, 1]);
    a.spread(&named, bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    assert_eq!(on(&a), [0, 1]);
    assert!(bench.states(2).is_empty());
}

// ---- Other drives vote ----

#[test]
fn a_spread_over_no_drives_or_too_many_or_one_twice_does_nothing() {
    let (mut bench, mut a) = held_on(&[0, 1], 4, Profile::current());
    bench.log.clear();
    let many: Vec<u32> = (0..513).collect();
    for drives in [&[][..], &[2, 2], &[1, 2, 3, 1], &many] {
        let named = bench.members(drives);
        a.spread(&named, bench.now);
        bench.exchange(&mut a);
        assert!(bench.log.is_empty(), "{}: {:?}", drives.len(), bench.log);
    }
    let most: Vec<u32> = (0..512).collect();
    let named = bench.members(&most);
    a.spread(&named, bench.now);
    assert_eq!(exchange_with(&mut bench, &mut a, |_| Fate::Open).len(), 512);
}

#[test]
fn drives_that_are_ready_are_named_once_and_vote_once() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert_eq!(is_ready(&mut a), Some(refs(&[2, 3, 4])));
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert_eq!(is_ready(&mut a), None, "they were named already");
    for wrong in [&[2, 3][..], &[0, 1, 2], &[]] {
        assert!(!a.move_votes(&refs(wrong), bench.now), "{wrong:?}");
    }
    assert!(a.move_votes(&refs(&[2, 3, 4]), bench.now));
    assert!(!a.move_votes(&refs(&[2, 3, 4]), bench.now), "they vote already");
    bench.pass(&mut a, LEASE * 2);
    assert_eq!(is_ready(&mut a), None);
    assert_eq!(on(&a), [2, 3, 4]);
    // Now they decide.
    bench.paths[3] = Path::Cut;
    bench.pass(&mut a, LEASE * 2);
    assert!(believes(&bench, &a));
    bench.paths[4] = Path::Cut;
    bench.pass(&mut a, LEASE * 2);
    assert!(!believes(&bench, &a));
}

#[test]
fn more_than_half_of_the_new_drives_are_ready_with_nobody_in_the_way() {
    let status = |drive: u32, told: Status| {
        move |command: &Command| match (command.drive.0, op(command)) {
            (d, Some(MutexOp::Trylock)) if d == drive => Fate::Instead(told),
            (d, _) if d == drive => Fate::Instead(Status::Unreachable),
            _ => Fate::Answered,
        }
    };
    for (told, ready) in [
        (Status::Unreachable, true),
        (Status::Unsupported, true),
        (Status::Full(Limit::HostsOfMutex), true),
        // A host that is met there may have the lock.
        (Status::Conflict, false),
    ] {
        let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
        let named = bench.members(&[2, 3, 4]);
        a.spread(&named, bench.now);
        // Drive 4 is asked first.
        let mut open = exchange_with(&mut bench, &mut a, |_| Fate::Open);
        open.sort_by_key(|command| u32::MAX - command.drive.0);
        let fate = status(4, told);
        for command in open {
            let reply = match fate(&command) {
                Fate::Instead(status) => Reply::Status(status),
                _ => bench.perform(&command),
            };
            a.on_reply(command.token, reply, bench.now);
        }
        pass_with(&mut bench, &mut a, Duration::from_secs(1), fate);
        let named = is_ready(&mut a);
        assert_eq!(named.is_some(), ready, "{told:?}");
        assert_eq!(a.move_votes(&refs(&[2, 3, 4]), bench.now), ready, "{told:?}");
    }
}

#[test]
fn drives_with_another_holder_do_not_vote() {
    for mode in [X, S] {
        for before in [true, false] {
            let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
            let mut b = lv_lock(2);
            if before {
                assert_eq!(take(&mut bench, &mut b, mode, &[4], &[]), GRANTED);
            }
            bench.paths[4] = if before { Path::Up } else { Path::Cut };
            spread(&mut bench, &mut a, &[2, 3, 4]);
            if !before {
                assert!(is_ready(&mut a).is_some());
                bench.paths[4] = Path::Up;
                assert_eq!(take(&mut bench, &mut b, mode, &[4], &[]), GRANTED);
                bench.pass(&mut a, LEASE / 2);
            }
            let moved = a.move_votes(&refs(&[2, 3, 4]), bench.now);
            assert!(!moved, "{mode}, before: {before}");
        }
    }
}

#[test]
fn drives_whose_lease_is_over_do_not_vote() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert!(is_ready(&mut a).is_some());
    bench.paths = vec![Path::Up, Path::Up, Path::Up, Path::Cut, Path::Cut];
    bench.pass(&mut a, LEASE);
    assert!(believes(&bench, &a));
    assert!(!a.move_votes(&refs(&[2, 3, 4]), bench.now));
    bench.pass(&mut a, LEASE);
    assert!(believes(&bench, &a), "those that voted before go on");
}

#[test]
fn no_votes_move_while_the_mode_changes_or_the_lock_is_shaken() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert!(is_ready(&mut a).is_some());
    a.request(convert(S), bench.now).expect("held");
    assert!(!a.move_votes(&refs(&[2, 3, 4]), bench.now));
    bench.pass(&mut a, Duration::from_secs(1));
    assert_eq!(done(&mut a), Some(Outcome::Converted { complete: true }));
    // A drive lost the lock, and no other drive has confirmed it since.
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert!(is_ready(&mut a).is_some());
    let open = pass_with(&mut bench, &mut a, LEASE / 2, |command| match command.drive.0 {
        0 => Fate::Open,
        _ => Fate::Answered,
    });
    a.on_reply(open[0].token, Reply::Status(Status::NotFound), bench.now);
    assert!(!a.move_votes(&refs(&[2, 3, 4]), bench.now));
}

#[test]
fn the_drives_that_voted_are_given_up_and_a_drive_that_was_not_marked_is_taken_anew() {
    for stores in [true, false] {
        let profile = Profile { refresh_stores_metadata: stores, ..Profile::current() };
        let (mut bench, mut a) = held_on(&[0, 1], 4, profile);
        spread(&mut bench, &mut a, &[1, 2, 3]);
        bench.log.clear();
        assert!(is_ready(&mut a).is_some());
        assert!(a.move_votes(&refs(&[1, 2, 3]), bench.now));
        bench.pass(&mut a, Duration::from_secs(1));
        assert_eq!(on(&a), [1, 2, 3], "stored: {stores}");
        assert!(bench.states(0).is_empty());
        assert_eq!(said(&bench, 1).contains(&"trylock"), !stores);
        bench.paths[2] = Path::Cut;
        bench.pass(&mut a, LEASE * 2);
        assert!(believes(&bench, &a), "drives 1 and 3 keep it, stored: {stores}");
    }
}

#[test]
fn who_counts_the_drives_that_vote_now_is_one_of_the_same_set() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert!(is_ready(&mut a).is_some());
    assert!(a.move_votes(&refs(&[2, 3, 4]), bench.now));
    bench.exchange(&mut a);
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, LEASE / 2);
    assert!(take(&mut bench, &mut a, X, &[2, 3, 4], &[]) == GRANTED);
    let outcome = take(&mut bench, &mut lv_lock(2), X, &[2, 3, 4], &[]);
    let Outcome::Refused(Refusal::Held(conflicts)) = outcome else { panic!("{outcome:?}") };
    assert!(conflicts.iter().all(|c| c.same_set));
}

#[test]
fn drives_that_are_not_named_any_more_are_given_back_and_voters_are_not() {
    let (mut bench, mut a) = held_on(&[0, 1], 4, Profile::current());
    spread(&mut bench, &mut a, &[0, 1, 2]);
    assert_eq!(on(&a), [0, 1, 2]);
    spread(&mut bench, &mut a, &[0, 3]);
    assert_eq!(on(&a), [0, 1, 3]);
    assert!(bench.states(2).is_empty());
    // A drive that is named again is taken again.
    spread(&mut bench, &mut a, &[0, 1, 2, 3]);
    assert_eq!(on(&a), [0, 1, 2, 3]);
    // And one that is named while it is being given back.
    let named = bench.members(&[0, 1, 3]);
    a.spread(&named, bench.now);
    let named = bench.members(&[0, 1, 2, 3]);
    a.spread(&named, bench.now);
    bench.pass(&mut a, LEASE);
    assert_eq!(on(&a), [0, 1, 2, 3]);
}

#[test]
fn a_lock_that_was_spread_is_not_regained_after_a_lapse() {
    for (drives, regained) in [(vec![0, 1], true), (vec![0, 1, 2], false)] {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        assert_eq!(take(&mut bench, &mut a, X, &[0, 1], &[]), GRANTED);
        spread(&mut bench, &mut a, &drives);
        // The list may change back, but another host may have the longer one.
        spread(&mut bench, &mut a, &[0, 1]);
        bench.paths = vec![Path::Cut; 3];
        bench.pass(&mut a, LEASE);
        bench.paths = vec![Path::Up; 3];
        bench.pass(&mut a, LEASE);
        assert_eq!(events(&mut a).contains(&Event::Regained), regained, "{drives:?}");
    }
}

#[test]
fn only_drives_that_shall_vote_are_read_for_their_marks() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 4, Profile::current());
    bench.log.clear();
    spread(&mut bench, &mut a, &[2, 3]);
    for drive in [0, 1] {
        assert!(!said(&bench, drive).contains(&"read"), "{:?}", bench.log);
    }
    assert_eq!(said(&bench, 2), ["refresh", "read"]);
    bench.log.clear();
    bench.pass(&mut a, LEASE);
    assert!(bench.log.iter().all(|(_, name)| *name != "read"), "{:?}", bench.log);
}

// ---- In between ----

/// The commands to the drives, without parts that do not change from one command to the next.
fn told(command: &Command) -> (u32, &'static str, Option<Mode>, u64) {
    match &command.command {
        DriveCommand::ReadTable => (command.drive.0, "read", None, 0),
        DriveCommand::Mutex(_, record) => {
            let mode = Some(record.class.mode());
            (command.drive.0, name_of(&command.command), mode, record.countdown_ms)
        }
    }
}

#[test]
fn a_mutex_is_removed_for_room_under_an_exclusive_lock_of_a_second() {
    let other = || {
        let id = "dddddd-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa";
        lock(9, ResourceId::lv(VG, id).expect("a good id"), false)
    };
    // Whether the host that last tried to remove it died meanwhile.
    for died in [false, true] {
        let mut profile = Profile::current();
        profile.limits.mutexes = 1;
        let mut bench = Bench::with(1, profile);
        let mut first = other();
        take(&mut bench, &mut first, X, &[0], &[]);
        first.request(RELEASE, bench.now).expect("always in order");
        let unlock = first.next_command(bench.now).expect("an UNLOCK");
        bench.perform(&unlock);
        if died {
            let mut b = lv_lock(2);
            b.request(acquire(&bench, X, &[0], &[]), bench.now).expect("in order");
            for _ in 0..3 {
                let command = b.next_command(bench.now).expect("TRYLOCK, read, TRYLOCK");
                let reply = bench.perform(&command);
                b.on_reply(command.token, reply, bench.now);
            }
            bench.now = bench.now + Duration::from_secs(2);
        }
        let mut a = lv_lock(1);
        a.request(acquire(&bench, X, &[0], &[]), bench.now).expect("in order");
        let mut all = Vec::new();
        exchange_with(&mut bench, &mut a, |command| {
            all.push(told(command));
            Fate::Answered
        });
        let lease = LEASE.as_millis() as u64;
        let locks = if died { "break" } else { "trylock" };
        let expected = [
            (0, "trylock", Some(X), lease),
            (0, "read", None, 0),
            (0, locks, Some(X), 1000),
            (0, "unlock", Some(X), 0),
            (0, "destroy", Some(X), 0),
            (0, "trylock", Some(X), lease),
        ];
        assert_eq!(all, expected, "died: {died}");
        assert_eq!(done(&mut a), Some(GRANTED));
    }
}

#[test]
fn a_lock_that_is_broken_has_a_whole_lease_and_no_value() {
    let (mut bench, all) = with_a_value(3);
    take(&mut bench, &mut vg_lock(2), X, &all, &[]);
    bench.now = bench.now + LEASE * 2;
    let mut a = vg_lock(1);
    a.request(acquire(&bench, X, &all, &[]), bench.now).expect("in order");
    let mut broke = Vec::new();
    exchange_with(&mut bench, &mut a, |command| {
        if op(command) == Some(MutexOp::Break) {
            broke.push(told(command));
        }
        Fate::Answered
    });
    let lease = LEASE.as_millis() as u64;
    assert_eq!(broke, [0, 1, 2].map(|drive| (drive, "break", Some(X), lease)));
    let events = events(&mut a);
    assert!(events.contains(&Event::Done(GRANTED)), "{events:?}");
    let hosts = vec![host(2)];
    let drive = DriveRef(0);
    assert!(events.contains(&Event::Notice(Notice::Broke { hosts, drive })));
    assert_eq!(published(&mut bench, &mut a, None), [Some(0); 3]);
}

#[test]
fn a_dead_holder_on_a_drive_that_is_added_does_not_spoil_the_value_on_the_others() {
    let (mut bench, all) = with_a_value(3);
    seize(&mut bench, &mut vg_lock(2), X, &[2]);
    let mut b = vg_lock(2);
    take(&mut bench, &mut b, X, &[2], &[]);
    bench.paths[2] = Path::Cut;
    let mut a = vg_lock(1);
    assert_eq!(known(&take(&mut bench, &mut a, X, &all, &[])), Some(7));
    bench.paths[2] = Path::Up;
    bench.pass(&mut a, LEASE * 2);
    assert_eq!(on(&a), [0, 1, 2]);
    assert_eq!(published(&mut bench, &mut a, None), [None, None, Some(0)]);
}

#[test]
fn drives_that_do_not_vote_do_not_vouch_for_a_new_value() {
    let mut profile = Profile::current();
    profile.expired_holder_may_relock = true;
    let (mut bench, _) = with_a_value_on(Bench::with(5, profile));
    let mut a = vg_lock(1);
    assert_eq!(known(&take(&mut bench, &mut a, X, &[0, 1, 2], &[])), Some(7));
    spread(&mut bench, &mut a, &[0, 1, 2, 3, 4]);
    assert_eq!(on(&a), [0, 1, 2, 3, 4]);
    bench.paths[..3].fill(Path::Cut);
    bench.run(&mut a, Request::Release { value: Some(value(8)) });
    bench.pass(&mut a, LEASE * 2);
    bench.paths[..3].fill(Path::Up);
    let outcome = take(&mut bench, &mut a, X, &[0, 1, 2], &[]);
    assert_eq!(known(&outcome), None, "{outcome:?}");
}

#[test]
fn who_shared_a_mutex_without_a_value_removes_what_may_have_come_into_it() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    take(&mut bench, &mut b, S, &[0, 1, 2], &[]);
    take(&mut bench, &mut a, S, &[0, 1, 2], &[]);
    bench.run(&mut b, RELEASE);
    assert_eq!(bench.run(&mut a, convert(X)), Outcome::Converted { complete: true });
    assert_eq!(published(&mut bench, &mut a, None), [Some(0); 3]);
}

#[test]
fn what_was_asked_before_a_drive_was_lost_is_asked_again() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let all = bench.acquire(X);
    assert_eq!(bench.run(&mut a, all), GRANTED);
    let open = pass_with(&mut bench, &mut a, LEASE / 3, |_| Fate::Open);
    let [first, second, third] = &open[..] else { panic!("{open:?}") };
    bench.now = bench.now + Duration::from_secs(1);
    a.on_reply(third.token, Reply::Status(Status::NotFound), bench.now);
    for command in [first, second] {
        let reply = bench.perform(command);
        a.on_reply(command.token, reply, bench.now);
    }
    let again = exchange_with(&mut bench, &mut a, |_| Fate::Open);
    let again: Vec<_> = again.iter().map(told).map(|(drive, name, ..)| (drive, name)).collect();
    assert_eq!(again, [(0, "refresh"), (1, "refresh")]);
}

#[test]
fn a_drive_that_is_not_held_is_not_refreshed_when_another_is_lost() {
    let mut bench = Bench::new(5);
    let mut a = lv_lock(1);
    bench.paths[4] = Path::Cut;
    let all = bench.acquire(X);
    assert_eq!(bench.run(&mut a, all), GRANTED);
    bench.drives[3].reset();
    bench.pass(&mut a, LEASE);
    assert_eq!(on(&a), [0, 1, 2, 3]);
    assert!(!said(&bench, 4).contains(&"refresh"), "{:?}", said(&bench, 4));
}

#[test]
fn an_answer_to_an_older_refresh_does_not_delay_a_change() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    let all = bench.acquire(X);
    bench.run(&mut a, all);
    let open = pass_with(&mut bench, &mut a, LEASE / 3, |command| match command.drive.0 {
        2 => Fate::Open,
        _ => Fate::Answered,
    });
    bench.log.clear();
    assert_eq!(bench.run(&mut a, convert(S)), Outcome::Converted { complete: true });
    assert_eq!(bench.log, [(0, "refresh"), (1, "refresh")], "one command is enough");
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    let next = a.next_command(bench.now).expect("at once");
    assert_eq!(told(&next), (2, "refresh", Some(S), LEASE.as_millis() as u64));
}

#[test]
fn a_promotion_that_comes_after_its_request_was_refused_is_taken_back_at_once() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    let all = bench.acquire(S);
    bench.run(&mut a, all);
    seize(&mut bench, &mut lv_lock(2), S, &[1, 2]);
    a.request(convert(X), bench.now).expect("held");
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Open,
        _ => Fate::Answered,
    });
    assert!(done(&mut a).is_some_and(|outcome| is_held(&outcome)));
    let reply = bench.perform(&open[0]);
    assert_eq!(reply, Reply::Status(Status::Good));
    a.on_reply(open[0].token, reply, bench.now);
    let next = a.next_command(bench.now).map(|command| told(&command));
    assert_eq!(next, Some((0, "refresh", Some(S), LEASE.as_millis() as u64)));
}

#[test]
fn a_change_waits_for_a_drive_that_others_may_find_shared() {
    let grace = Timing::for_lease(LEASE).grace;
    for (witnesses, waits) in [(&[][..], false), (&[3, 4], true)] {
        let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
        assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], witnesses), GRANTED);
        a.request(convert(X), bench.now).expect("held");
        let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
            2 => Fate::Open,
            _ => Fate::Answered,
        });
        bench.pass(&mut a, grace);
        let mut outcome = done(&mut a);
        assert_eq!(outcome.is_none(), waits, "{witnesses:?}");
        if waits {
            let reply = bench.perform(&open[0]);
            a.on_reply(open[0].token, reply, bench.now);
            outcome = done(&mut a);
        }
        assert_eq!(outcome, Some(Outcome::Converted { complete: true }), "{witnesses:?}");
    }
}

#[test]
fn a_change_that_cannot_be_had_ends_when_that_is_known() {
    let patience = Timing::for_lease(LEASE).patience;
    for path in [Path::Cut, Path::Hung] {
        let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
        let all = bench.acquire(S);
        bench.run(&mut a, all);
        bench.paths[1..].fill(path);
        let begin = bench.now;
        let outcome = bench.run(&mut a, convert(X));
        assert!(matches!(outcome, Outcome::Refused(Refusal::NoQuorum { .. })), "{outcome:?}");
        let waited = bench.now.since(begin);
        let known = path == Path::Cut;
        assert!(if known { waited < Duration::from_secs(1) } else { waited == patience });
    }
}

#[test]
fn a_lapse_in_the_middle_of_a_change_gives_nothing_back() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    let all = bench.acquire(S);
    bench.run(&mut a, all);
    bench.paths = vec![Path::Cut; 3];
    let end = a.safe_until().expect("held");
    bench.pass(&mut a, (end - Duration::from_millis(20)).since(bench.now));
    a.request(convert(X), bench.now).expect("held");
    bench.pass(&mut a, Duration::from_millis(20));
    assert!(events(&mut a).contains(&Event::Lapsed));
    bench.paths = vec![Path::Up; 3];
    bench.log.clear();
    bench.pass(&mut a, LEASE / 2);
    assert!(events(&mut a).contains(&Event::Regained));
    assert!(bench.log.iter().all(|(_, name)| *name == "refresh"), "{:?}", bench.log);
    assert_eq!(a.mode(), Some(S));
}

#[test]
fn a_drive_that_others_could_share_at_a_lapse_is_no_proof_afterwards() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    let all = bench.acquire(S);
    bench.run(&mut a, all.clone());
    bench.paths[2] = Path::Cut;
    assert_eq!(bench.run(&mut a, convert(X)), Outcome::Converted { complete: true });
    bench.paths = vec![Path::Cut; 3];
    bench.pass(&mut a, LEASE * 2);
    assert!(events(&mut a).contains(&Event::Lapsed));
    // Another host has it in between.
    bench.paths = vec![Path::Cut, Path::Up, Path::Up];
    let mut b = lv_lock(2);
    assert_eq!(bench.run(&mut b, all), GRANTED);
    bench.run(&mut b, RELEASE);
    bench.paths = vec![Path::Up; 3];
    bench.pass(&mut a, LEASE);
    assert!(!events(&mut a).contains(&Event::Regained));
}

#[test]
fn nothing_is_taken_after_a_lapse_that_is_for_good() {
    let mut bench = Bench::new(5);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[3, 4]), GRANTED);
    bench.paths = vec![Path::Cut; 5];
    bench.pass(&mut a, LEASE);
    bench.drives[0].reset();
    bench.paths = vec![Path::Up; 5];
    bench.log.clear();
    bench.pass(&mut a, LEASE);
    assert!(bench.log.iter().all(|(_, name)| *name == "refresh"), "{:?}", bench.log);
    assert_eq!(on(&a), [1, 2]);
}

#[test]
fn a_late_answer_adds_a_drive_and_a_silent_one_is_asked_again_later() {
    let timing = Timing::for_lease(LEASE);
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    a.request(bench.acquire(X), bench.now).expect("in order");
    let open = pass_with(&mut bench, &mut a, timing.grace, |command| match command.drive.0 {
        2 => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(GRANTED));
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    assert_eq!(on(&a), [0, 1, 2]);
    // A drive that refused to answer.
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    bench.paths[2] = Path::Cut;
    let all = bench.acquire(X);
    assert_eq!(bench.run(&mut a, all), GRANTED);
    bench.pass(&mut a, Duration::from_secs(1));
    bench.log.clear();
    // A change to shared concerns it, too.
    bench.run(&mut a, convert(S));
    bench.paths[2] = Path::Up;
    let mut asked = Vec::new();
    pass_with(&mut bench, &mut a, timing.renew, |command| {
        if command.drive.0 == 2 {
            asked.push(told(command));
        }
        Fate::Answered
    });
    assert_eq!(asked[0], (2, "trylock", Some(S), LEASE.as_millis() as u64));
    assert_eq!(on(&a), [0, 1, 2]);
}

#[test]
fn a_failed_attempt_of_another_host_is_no_obstacle_to_an_adoption() {
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(1), X, &[0, 1]);
    seize(&mut bench, &mut lv_lock(2), X, &[2]);
    let request = adopt(&bench, &[0, 1, 2], None);
    assert_eq!(bench.run(&mut lv_lock(1), request), Outcome::Adopted(X));
    // Sharers on the half that is left have not harmed it.
    let mut bench = Bench::new(2);
    seize(&mut bench, &mut lv_lock(1), S, &[0]);
    seize(&mut bench, &mut lv_lock(2), S, &[0]);
    let request = adopt(&bench, &[0, 1], Some(bench.now + LEASE / 2));
    assert_eq!(bench.run(&mut lv_lock(1), request), Outcome::Adopted(S));
}

#[test]
fn a_lock_of_other_drives_is_adopted_only_if_most_of_all_have_it() {
    for (reset, adopts) in [(vec![], true), (vec![3], true), (vec![2, 3], false)] {
        let (mut bench, mut first) = held_on(&[0], 4, Profile::current());
        spread(&mut bench, &mut first, &[0, 1, 2, 3]);
        assert!(is_ready(&mut first).is_some());
        drop(first);
        reset.iter().for_each(|&drive: &usize| bench.drives[drive].reset());
        let request = adopt_beside(&bench, &[1], &[0, 2, 3], None);
        let outcome = bench.run(&mut lv_lock(1), request);
        assert_eq!(outcome == Outcome::Adopted(X), adopts, "{reset:?}: {outcome:?}");
    }
}

#[test]
fn an_adoption_that_must_wait_for_longer_than_its_patience_says_so_at_once() {
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(1), X, &[0, 1, 2]);
    let until = bench.now + LEASE / 4;
    let mut a = with_config(lv_lock(1), |config| config.earlier_until = until);
    let (begin, request) = (bench.now, adopt(&bench, &[0, 1, 2], Some(bench.now + LEASE / 2)));
    let outcome = bench.run(&mut a, request.clone());
    let barred = refs(&[0, 1, 2]).into_iter().map(|drive| (drive, until)).collect();
    let expected = Refusal::NoQuorum { granted: 0, needed: 2, barred };
    assert_eq!(outcome, Outcome::Refused(expected));
    assert_eq!(bench.now, begin);
    bench.now = until;
    assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
}
