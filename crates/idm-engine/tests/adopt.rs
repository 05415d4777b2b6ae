//! A restarted lvmlockd takes over the locks that its earlier life left on the drives, and only
//! those.

mod bench;

use bench::*;
use core::time::Duration;
use idm_engine::{DriveRef, Event, Outcome, Refusal, Request, RequestError, ValueRead};
use idm_protocol::{Mode, State, Status};

/// An adoption on all drives of a lock that may not have been granted.
fn adopt_all(bench: &Bench, mode: Option<Mode>) -> Request {
    let all: Vec<u32> = bench.all().iter().map(|member| member.drive.0).collect();
    let request = adopt(bench, &all, None);
    match mode {
        Some(mode) => in_mode(request, mode),
        None => request,
    }
}

/// Host 1 takes the lock on some drives only, even if others have the rest, and dies.
fn take_and_die(bench: &mut Bench, mode: Mode, on: &[u32]) {
    seize(bench, &mut lv_lock(1), mode, on);
}

fn is_refused(outcome: &Outcome, refusal: &Refusal) -> bool {
    *outcome == Outcome::Refused(refusal.clone())
}

fn is_left(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::Held(_) | Refusal::NoQuorum { .. }))
}

#[test]
fn what_was_held_is_adopted_in_its_mode_by_a_look_and_a_refresh() {
    for mode in [Mode::Exclusive, Mode::Shared] {
        for wanted in [None, Some(mode)] {
            let mut bench = Bench::new(3);
            take_and_die(&mut bench, mode, &[0, 1, 2]);
            let mut again = lv_lock(1);
            let request = adopt_all(&bench, wanted);
            assert_eq!(bench.run(&mut again, request), Outcome::Adopted(mode));
            assert_eq!(again.mode(), Some(mode));
            for drive in 0..3 {
                let said: Vec<_> = bench.log.iter().filter(|l| l.0 == drive).map(|l| l.1).collect();
                assert_eq!(said, ["read", "refresh"]);
            }
            assert!(again.safe_until() > Some(bench.now + LEASE * 9 / 10));
            bench.pass(&mut again, LEASE * 3);
            assert_eq!(again.held_on().count(), 3, "it is kept like any other");
        }
    }
}

#[test]
fn a_mode_that_was_not_left_is_told_and_nothing_changes() {
    let mut bench = Bench::new(3);
    take_and_die(&mut bench, Mode::Shared, &[0, 1, 2]);
    let mut again = lv_lock(1);
    let request = adopt_all(&bench, Some(Mode::Exclusive));
    let outcome = bench.run(&mut again, request);
    assert!(is_refused(&outcome, &Refusal::OtherMode(Mode::Shared)), "{outcome:?}");
    let said = bench.log.len();
    bench.pass(&mut again, Duration::from_secs(1));
    assert_eq!(bench.log.len(), said, "nothing is done about it");
    assert!((0..3).all(|d| bench.states(d) == [State::Locked]));
    let request = adopt_all(&bench, Some(Mode::Shared));
    assert_eq!(bench.run(&mut again, request), Outcome::Adopted(Mode::Shared));
}

#[test]
fn it_is_adopted_after_its_lease_if_nobody_broke_it_and_not_otherwise() {
    let mut bench = Bench::new(3);
    take_and_die(&mut bench, Mode::Exclusive, &[0, 1, 2]);
    bench.now = bench.now + LEASE * 2;
    let mut again = lv_lock(1);
    let request = adopt_all(&bench, None);
    assert_eq!(bench.run(&mut again, request.clone()), Outcome::Adopted(Mode::Exclusive));

    drop(again);
    bench.now = bench.now + LEASE * 2;
    let mut other = lv_lock(2);
    let acquire = bench.acquire(Mode::Exclusive);
    assert_eq!(bench.run(&mut other, acquire), GRANTED);
    let mut again = lv_lock(1);
    let outcome = bench.run(&mut again, request);
    assert!(is_refused(&outcome, &Refusal::NothingToAdopt), "{outcome:?}");
}

#[test]
fn what_was_confirmed_before_the_host_stood_still_is_not_taken_for_gone() {
    let mut bench = Bench::new(5);
    let mut before = lv_lock(1);
    assert_eq!(take(&mut bench, &mut before, X, &[0, 1], &[2, 3, 4]), GRANTED);
    let mut again = lv_lock(1);
    let request = adopt_beside(&bench, &[0, 1], &[2, 3, 4], None);
    // The members have confirmed it, and the other drives are being read.
    bench.paths[2..].fill(Path::Hung);
    again.request(request.clone(), bench.now).expect("in order");
    bench.exchange(&mut again);
    assert_eq!(done(&mut again), None);
    bench.now = bench.now + LEASE * 2;
    again.on_timer(bench.now);
    let outcome = done(&mut again).expect("it is late");
    assert!(is_refused(&outcome, &Refusal::Unclear), "{outcome:?}");
    bench.paths[2..].fill(Path::Up);
    let mut again = lv_lock(1);
    assert_eq!(bench.run(&mut again, request), Outcome::Adopted(X), "nobody had it");
}

#[test]
fn drives_that_do_not_answer_are_told_from_drives_that_have_nothing() {
    for path in [Path::Cut, Path::Hung] {
        let mut bench = Bench::new(3);
        take_and_die(&mut bench, Mode::Exclusive, &[0, 1, 2]);
        bench.paths = vec![Path::Up, path, path];
        let mut again = lv_lock(1);
        let request = adopt_all(&bench, None);
        let outcome = bench.run(&mut again, request.clone());
        let refusal = Refusal::NoQuorum { granted: 1, needed: 2, barred: Vec::new() };
        assert!(is_refused(&outcome, &refusal), "{outcome:?}");
        bench.pass(&mut again, Duration::from_secs(1));
        assert_eq!(bench.states(0), [State::Locked], "what is there stays");
        if path == Path::Cut {
            bench.paths = vec![Path::Up; 3];
            assert_eq!(bench.run(&mut again, request), Outcome::Adopted(Mode::Exclusive));
        }
    }
    let mut bench = Bench::new(3);
    bench.paths[2] = Path::Cut;
    let mut again = lv_lock(1);
    let request = adopt_all(&bench, None);
    let outcome = bench.run(&mut again, request);
    assert!(is_refused(&outcome, &Refusal::NothingToAdopt), "{outcome:?}");
}

#[test]
fn a_minority_is_not_adopted_and_given_back_when_it_is_released() {
    let mut bench = Bench::new(3);
    take_and_die(&mut bench, Mode::Exclusive, &[1]);
    let mut again = lv_lock(1);
    let request = adopt_all(&bench, None);
    let outcome = bench.run(&mut again, request);
    assert!(is_refused(&outcome, &Refusal::NothingToAdopt), "{outcome:?}");
    bench.pass(&mut again, Duration::from_secs(1));
    assert_eq!(bench.states(1), [State::Locked], "its LV may be active");
    assert_eq!(bench.run(&mut again, RELEASE), Outcome::Released);
    bench.pass(&mut again, Duration::from_secs(1));
    assert!(bench.states(1).is_empty());
    assert!(again.is_idle());
}

#[test]
fn an_lvs_lock_is_adopted_after_its_lease_only_if_all_drives_have_it() {
    for (lost, late, adopted) in [(0, true, true), (1, true, false), (1, false, true)] {
        let mut bench = Bench::new(3);
        take_and_die(&mut bench, Mode::Exclusive, &[0, 1, 2]);
        bench.drives[..lost].iter_mut().for_each(|drive| drive.reset());
        let mut again = lv_lock(1);
        let request = adopt_all(&bench, None);
        let request = if late { unknown(request) } else { request };
        let outcome = bench.run(&mut again, request);
        assert_eq!(outcome == Outcome::Adopted(Mode::Exclusive), adopted, "{outcome:?}");
        assert!(adopted || is_refused(&outcome, &Refusal::Unclear), "{outcome:?}");
    }
}

#[test]
fn a_release_that_was_half_done_is_adopted_only_if_a_majority_is_left() {
    for (unlocked, adopted) in [(1, true), (2, false)] {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        let acquire = bench.acquire(Mode::Exclusive);
        bench.run(&mut a, acquire);
        a.request(RELEASE, bench.now).expect("in order");
        for _ in 0..unlocked {
            let command = a.next_command(bench.now).expect("three drives are unlocked");
            bench.perform(&command);
        }
        let mut again = lv_lock(1);
        let request = adopt_all(&bench, None);
        let outcome = bench.run(&mut again, request);
        assert_eq!(outcome == Outcome::Adopted(Mode::Exclusive), adopted, "{outcome:?}");
    }
}

#[test]
fn half_of_the_drives_is_enough_for_who_was_granted_the_lock() {
    for n in [2, 4] {
        for others in [Path::Up, Path::Cut] {
            for granted in [true, false] {
                let mut bench = Bench::new(n);
                take_and_die(&mut bench, Mode::Exclusive, &(0..n as u32 / 2).collect::<Vec<_>>());
                bench.paths[n / 2..].fill(others);
                let mut again = lv_lock(1);
                let members = bench.all();
                let request = Request::Adopt {
                    mode: X,
                    safe_until: Some(bench.now + LEASE),
                    granted,
                    members,
                    witnesses: vec![],
                };
                let outcome = bench.run(&mut again, request);
                let adopted = outcome == Outcome::Adopted(Mode::Exclusive);
                assert_eq!(adopted, granted, "{n} drives: {outcome:?}");
            }
        }
    }
}

#[test]
fn two_hosts_with_half_of_the_drives_each_do_not_both_adopt() {
    for n in [2, 4] {
        let mut bench = Bench::new(n as usize);
        let (low, high): (Vec<_>, Vec<_>) = (0..n).partition(|d| *d < n / 2);
        seize(&mut bench, &mut lv_lock(1), Mode::Exclusive, &low);
        seize(&mut bench, &mut lv_lock(2), Mode::Exclusive, &high);
        let (mut a, mut b) = (lv_lock(1), lv_lock(2));
        let request = adopt_all(&bench, None);
        for lock in [&mut a, &mut b] {
            let outcome = bench.run(lock, request.clone());
            assert!(is_left(&outcome), "{outcome:?}");
        }
    }
}

#[test]
fn half_of_the_drives_is_not_enough_where_the_others_do_not_answer() {
    let mut bench = Bench::new(2);
    take_and_die(&mut bench, Mode::Exclusive, &[0, 1]);
    bench.paths[1] = Path::Cut;
    let mut again = lv_lock(1);
    let request = adopt_all(&bench, None);
    let outcome = bench.run(&mut again, request);
    assert!(
        is_refused(&outcome, &Refusal::NoQuorum { granted: 1, needed: 2, barred: Vec::new() }),
        "{outcome:?}"
    );
}

#[test]
fn a_lock_that_was_granted_as_shared_is_adopted_so_whatever_a_change_left() {
    for promoted in 1..=3 {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        let acquire = bench.acquire(Mode::Shared);
        bench.run(&mut a, acquire);
        let convert = Request::Convert { mode: Mode::Exclusive, value: None };
        a.request(convert, bench.now).expect("in order");
        for _ in 0..promoted {
            let command = a.next_command(bench.now).expect("three drives are promoted");
            bench.perform(&command);
        }
        let mut again = lv_lock(1);
        let request = adopt_all(&bench, Some(S));
        assert_eq!(bench.run(&mut again, request), Outcome::Adopted(S));
        bench.pass(&mut again, Duration::from_secs(1));
        assert!(again.held_on().all(|(_, mode)| mode == S));
    }
}

#[test]
fn what_is_left_of_an_exclusive_lock_is_not_adopted_as_shared() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Shared);
    bench.run(&mut a, acquire);
    bench.paths[0] = Path::Cut;
    let convert = Request::Convert { mode: Mode::Exclusive, value: None };
    assert_eq!(bench.run(&mut a, convert), Outcome::Converted { complete: true });
    bench.paths[0] = Path::Up;
    bench.drives[1].reset();
    let mut again = lv_lock(1);
    let request = adopt_all(&bench, None);
    let outcome = bench.run(&mut again, request);
    assert!(is_refused(&outcome, &Refusal::Unclear), "{outcome:?}");
}

#[test]
fn a_mode_that_silent_drives_decide_is_not_guessed() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Shared);
    bench.run(&mut a, acquire);
    let convert = Request::Convert { mode: Mode::Exclusive, value: None };
    a.request(convert, bench.now).expect("in order");
    let command = a.next_command(bench.now).expect("three drives are promoted");
    bench.perform(&command);
    bench.paths[2] = Path::Cut;
    let mut again = lv_lock(1);
    let request = adopt_all(&bench, None);
    let outcome = bench.run(&mut again, request);
    assert!(is_left(&outcome), "drive 2 may be exclusive, too: {outcome:?}");
}

#[test]
fn the_value_is_unknown_afterwards_and_not_left_as_it_was() {
    let mut bench = Bench::new(3);
    let mut a = vg_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire.clone());
    bench.run(&mut a, Request::Release { value: Some(value(7)) });
    assert_eq!(bench.run(&mut a, acquire.clone()), Outcome::Granted(ValueRead::Known(value(7))));
    drop(a);
    let mut again = vg_lock(1);
    let request = adopt_all(&bench, None);
    assert_eq!(bench.run(&mut again, request), Outcome::Adopted(Mode::Exclusive));
    bench.run(&mut again, RELEASE);
    let mut b = vg_lock(2);
    assert_eq!(bench.run(&mut b, acquire), GRANTED, "7 may be older than what was changed");
}

#[test]
fn nothing_to_adopt_does_not_make_a_value_unknown() {
    let mut bench = Bench::new(3);
    let mut a = vg_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire.clone());
    bench.run(&mut a, Request::Release { value: Some(value(7)) });
    let mut again = vg_lock(1);
    let request = adopt_all(&bench, None);
    let outcome = bench.run(&mut again, request);
    assert!(is_refused(&outcome, &Refusal::NothingToAdopt), "{outcome:?}");
    bench.run(&mut again, RELEASE);
    assert_eq!(bench.run(&mut again, acquire), Outcome::Granted(ValueRead::Known(value(7))));
}

#[test]
fn a_lock_that_was_spread_stays_where_it_was_spread_to() {
    let mut bench = Bench::new(4);
    let (members, witnesses) = (bench.members(&[0]), bench.members(&[1, 2, 3]));
    let mut a = lv_lock(1);
    let mode = Mode::Exclusive;
    let (m, w) = (members.clone(), witnesses.clone());
    bench.run(&mut a, Request::Acquire { mode, members: m, witnesses: w });
    a.spread(&bench.members(&[1]), bench.now);
    bench.pass(&mut a, Duration::from_millis(1));
    drop(a);
    let mut again = lv_lock(1);
    let spread = Request::Adopt {
        mode: X,
        safe_until: Some(bench.now + LEASE),
        granted: true,
        members,
        witnesses,
    };
    assert_eq!(bench.run(&mut again, spread), Outcome::Adopted(Mode::Exclusive));
    let mut on: Vec<_> = again.held_on().map(|(drive, _)| drive).collect();
    on.sort_unstable();
    assert_eq!(on, [DriveRef(0), DriveRef(1)]);
}

#[test]
fn a_lock_that_is_exclusive_elsewhere_is_not_adopted_as_shared() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Shared);
    bench.run(&mut a, acquire);
    bench.paths[2] = Path::Cut;
    let convert = Request::Convert { mode: Mode::Exclusive, value: None };
    assert_eq!(bench.run(&mut a, convert), Outcome::Converted { complete: true });
    bench.paths[2] = Path::Up;
    // The LV is on drive 2 now, which has not received the change.
    let mut again = lv_lock(1);
    let request = adopt_beside(&bench, &[2], &[0, 1], Some(bench.now + LEASE));
    let outcome = bench.run(&mut again, request);
    assert!(is_refused(&outcome, &Refusal::Unclear), "{outcome:?}");
}

#[test]
fn a_sharer_that_counts_other_drives_is_not_overlooked_beside_a_record_of_ours() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    let shared = bench.acquire(Mode::Shared);
    bench.run(&mut a, shared);
    bench.paths[2] = Path::Cut;
    let convert = Request::Convert { mode: Mode::Exclusive, value: None };
    assert_eq!(bench.run(&mut a, convert), Outcome::Converted { complete: true });
    bench.paths[2] = Path::Up;
    drop(a);
    let members = bench.members(&[2]);
    let small = Request::Acquire { mode: Mode::Shared, members, witnesses: Vec::new() };
    assert_eq!(bench.run(&mut b, small), GRANTED);
    let mut again = lv_lock(1);
    again.request(adopt_all(&bench, None), bench.now).expect("in order");
    // Drive 2 is read first.
    let mut first = Vec::new();
    while let Some(command) = again.next_command(bench.now) {
        first.push(command);
    }
    first.reverse();
    for command in first {
        let reply = bench.perform(&command);
        again.on_reply(command.token, reply, bench.now);
    }
    bench.exchange(&mut again);
    let told = events(&mut again);
    let refused = |e: &Event| matches!(e, Event::Done(Outcome::Refused(Refusal::Held(_))));
    assert!(told.iter().any(refused), "{told:?}");
}

#[test]
fn a_lock_that_was_moved_and_broken_in_between_is_not_adopted() {
    let mut bench = Bench::new(3);
    take_and_die(&mut bench, Mode::Exclusive, &[0, 1, 2]);
    bench.now = bench.now + LEASE * 2;
    // Another host breaks it on two drives, and moves the LV to drives 0 and 2.
    bench.paths[0] = Path::Cut;
    let mut b = lv_lock(2);
    let acquire = bench.acquire(Mode::Exclusive);
    assert_eq!(bench.run(&mut b, acquire), GRANTED);
    bench.run(&mut b, RELEASE);
    bench.paths[0] = Path::Up;
    let mut again = lv_lock(1);
    for _ in 0..2 {
        let request = adopt_beside(&bench, &[0, 2], &[1], Some(bench.now + LEASE));
        let outcome = bench.run(&mut again, request);
        assert!(is_refused(&outcome, &Refusal::Unclear), "{outcome:?}");
    }
}

#[test]
fn a_live_holder_that_counts_other_drives_is_not_overlooked() {
    let mut bench = Bench::new(3);
    take_and_die(&mut bench, Mode::Exclusive, &[0, 1]);
    let mut b = lv_lock(2);
    let request =
        |members| Request::Acquire { mode: Mode::Exclusive, members, witnesses: Vec::new() };
    let on_two = request(bench.members(&[2]));
    assert_eq!(bench.run(&mut b, on_two), GRANTED);
    let mut again = lv_lock(1);
    let request = adopt_all(&bench, None);
    let outcome = bench.run(&mut again, request);
    assert!(matches!(outcome, Outcome::Refused(Refusal::Held(_))), "{outcome:?}");
    assert!((0..2).all(|d| bench.states(d) == [State::Locked]), "and nothing is given back");
}

#[test]
fn a_live_holder_on_a_witness_is_not_overlooked() {
    let mut bench = Bench::new(3);
    let (members, witnesses) = (bench.members(&[0, 1]), bench.members(&[2]));
    let mut a = lv_lock(1);
    let acquire =
        |members| Request::Acquire { mode: Mode::Exclusive, members, witnesses: Vec::new() };
    assert_eq!(bench.run(&mut a, acquire(members.clone())), GRANTED);
    drop(a);
    let mut b = lv_lock(2);
    let on_two = acquire(bench.members(&[2]));
    assert_eq!(bench.run(&mut b, on_two), GRANTED);
    let mut again = lv_lock(1);
    let outcome = bench.run(
        &mut again,
        Request::Adopt {
            mode: X,
            safe_until: Some(bench.now + LEASE),
            granted: true,
            members,
            witnesses,
        },
    );
    assert!(matches!(outcome, Outcome::Refused(Refusal::Held(_))), "{outcome:?}");
    assert!((0..2).all(|d| bench.states(d) == [State::Locked]), "and nothing is given back");
}

#[test]
fn what_could_not_be_adopted_can_be_acquired_once_it_is_released() {
    let mut bench = Bench::new(2);
    take_and_die(&mut bench, Mode::Exclusive, &[0]);
    seize(&mut bench, &mut lv_lock(2), Mode::Exclusive, &[1]);
    bench.now = bench.now + LEASE + LEASE / 10;
    let mut again = lv_lock(1);
    let request = adopt_all(&bench, None);
    let outcome = bench.run(&mut again, request);
    assert!(is_left(&outcome), "{outcome:?}");
    let acquire = bench.acquire(Mode::Exclusive);
    let refused = again.request(acquire.clone(), bench.now);
    assert_eq!(refused, Err(RequestError::WrongState), "what is left may be in use");
    bench.run(&mut again, RELEASE);
    bench.pass(&mut again, Duration::from_secs(1));
    assert_eq!(bench.run(&mut again, acquire), GRANTED, "the dead host is broken");
}

#[test]
fn a_value_is_not_believed_after_an_orphan_that_could_not_be_read() {
    let mut bench = Bench::new(3);
    let mut a = vg_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire.clone());
    bench.run(&mut a, Request::Release { value: Some(value(7)) });
    assert_eq!(bench.run(&mut a, acquire.clone()), Outcome::Granted(ValueRead::Known(value(7))));
    // It dies while it changes the mode, and the next life reads no drive before it gives up.
    drop(a);
    bench.paths = vec![Path::Cut; 3];
    let mut again = vg_lock(1);
    let request = adopt_all(&bench, None);
    bench.run(&mut again, request);
    bench.paths = vec![Path::Up; 3];
    bench.run(&mut again, RELEASE);
    bench.pass(&mut again, Duration::from_secs(1));
    let mut b = vg_lock(2);
    assert_eq!(bench.run(&mut b, acquire), GRANTED, "7 may be older than what was changed");
}

/// A late TRYLOCK of a request that was refused is no proof that an earlier life had the lock.
#[test]
fn a_late_trylock_is_no_orphan() {
    let (mut bench, mut a) = (Bench::new(2), lv_lock(1));
    let safe_until = bench.now + LEASE;
    bench.now = bench.now + LEASE * 2;
    bench.paths[1] = Path::Cut;
    a.request(bench.acquire(S), bench.now).expect("in order");
    let open = pass_with(&mut bench, &mut a, Duration::from_secs(10), |command| {
        if command.drive.0 == 0 { Fate::Open } else { Fate::Instead(Status::Unreachable) }
    });
    assert!(matches!(done(&mut a), Some(Outcome::Refused(_))));
    bench.paths[1] = Path::Up;
    let request = adopt(&bench, &[0, 1], Some(safe_until));
    a.request(request, bench.now).expect("in order");
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    bench.pass(&mut a, Duration::from_secs(10));
    assert_eq!(done(&mut a), Some(Outcome::Refused(Refusal::Unclear)));
}

/// An adopted lock is given back, and one of three drives does not get the UNLOCK. Its record is
/// that of a minority for the next host, which counts the same drives.
#[test]
fn an_adopted_lock_leaves_no_record_that_keeps_a_majority_out() {
    let mut bench = Bench::new(3);
    assert_eq!(take(&mut bench, &mut lv_lock(1), X, &[0, 1, 2], &[]), GRANTED);
    let (mut a, orphan) = (lv_lock(1), adopt(&bench, &[0, 1, 2], None));
    assert_eq!(bench.run(&mut a, orphan), Outcome::Adopted(X));
    bench.pass(&mut a, LEASE);
    bench.paths[2] = Path::Cut;
    bench.run(&mut a, RELEASE);
    bench.paths[2] = Path::Up;
    assert_eq!(take(&mut bench, &mut lv_lock(2), X, &[0, 1, 2], &[]), GRANTED);
}

/// lvmlockd dies when one of two drives has carried out a change to shared. The lock is noted as
/// exclusive, and is read after its lease.
#[test]
fn a_half_changed_lock_that_is_noted_as_exclusive_is_not_found_to_be_shared() {
    let (mut bench, mut first) = (Bench::new(2), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, X, &[0, 1], &[]), GRANTED);
    first.request(convert(S), bench.now).expect("held");
    exchange_with(&mut bench, &mut first, |command| match command.drive.0 {
        1 => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    drop(first);
    bench.now = bench.now + LEASE * 2;
    let orphan = in_mode(adopt(&bench, &[0, 1], Some(bench.now - LEASE)), X);
    let outcome = bench.run(&mut lv_lock(1), orphan);
    assert_eq!(outcome, Outcome::Refused(Refusal::Unclear));
}

/// A sharer dies during a change to exclusive, which one drive has carried out. The last drive has
/// not been reached for longer: its record is from when the LV was on that drive alone.
#[test]
fn a_sharer_is_adopted_beside_a_record_of_an_earlier_acquisition() {
    for drives in [3, 4] {
        let all: Vec<u32> = (0..drives).collect();
        let (last, others) = all.split_last().expect("three or four");
        let (mut bench, mut first) = (Bench::new(drives as usize), lv_lock(1));
        assert_eq!(take(&mut bench, &mut first, S, &[*last], others), GRANTED);
        bench.paths[*last as usize] = Path::Cut;
        bench.run(&mut first, RELEASE);
        assert_eq!(take(&mut bench, &mut first, S, &all, &[]), GRANTED);
        first.request(convert(X), bench.now).expect("held");
        exchange_with(&mut bench, &mut first, |command| match command.drive.0 {
            drive if drive == last - 1 => Fate::Answered,
            _ => Fate::Instead(Status::Unreachable),
        });
        drop(first);
        bench.paths.fill(Path::Up);
        let orphan = in_mode(adopt(&bench, &all, Some(bench.now + LEASE / 2)), S);
        assert_eq!(bench.run(&mut lv_lock(1), orphan), Outcome::Adopted(S), "of {drives}");
    }
}
