//! One lock over a few emulated drives, step by step: an introduction to the engine.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::{DriveTime, Profile};
use idm_engine::{DriveRef, Event, Loss, Notice, Outcome, Refusal, Request, Timing, ValueRead};
use idm_protocol::{DriveCommand, Mode, Reply, ResourceId, Status, ValueUpdate};

#[test]
fn a_lock_takes_one_round_trip() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    assert_eq!(bench.run(&mut a, acquire), GRANTED);
    assert_eq!(bench.log, [(0, "trylock"), (1, "trylock"), (2, "trylock")]);
    assert_eq!(a.mode(), Some(Mode::Exclusive));
    assert!(a.safe_until() > Some(bench.now + LEASE * 9 / 10));
}

#[test]
fn what_is_held_is_refused_after_two_commands_a_drive_and_named() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire.clone());
    bench.log.clear();
    let Outcome::Refused(Refusal::Held(conflicts)) = bench.run(&mut b, acquire) else {
        panic!("b must be refused")
    };
    assert!(conflicts.iter().all(|c| c.host == host(1) && c.mode == Mode::Exclusive && c.same_set));
    assert!(bench.log.len() <= 6, "{:?}", bench.log);
    assert!(b.is_idle());
}

#[test]
fn a_released_lv_lock_leaves_nothing_behind() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire);
    assert_eq!(bench.run(&mut a, RELEASE), Outcome::Released);
    assert!(a.is_idle());
    assert!((0..3).all(|d| bench.states(d).is_empty()));
}

#[test]
fn one_silent_drive_of_three_does_not_matter() {
    for path in [Path::Cut, Path::Deaf, Path::Hung] {
        let mut bench = Bench::new(3);
        bench.paths[2] = path;
        let mut a = lv_lock(1);
        let (acquire, begin) = (bench.acquire(Mode::Exclusive), bench.now);
        assert_eq!(bench.run(&mut a, acquire), GRANTED);
        let waited = bench.now.since(begin);
        assert!(waited <= Timing::for_lease(LEASE).grace, "a slow drive is hardly waited for");
    }
}

#[test]
fn a_drive_that_is_known_to_be_slow_is_not_waited_for() {
    let mut bench = Bench::new(3);
    bench.paths[2] = Path::Hung;
    let mut a = lv_lock(1);
    a.expect_silence(&[DriveRef(2)]);
    let (acquire, begin) = (bench.acquire(Mode::Exclusive), bench.now);
    assert_eq!(bench.run(&mut a, acquire), GRANTED);
    assert_eq!(bench.now, begin);
}

#[test]
fn a_majority_waits_for_a_conflict_that_is_about_to_be_told() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    let members = bench.members(&[2]);
    let small = Request::Acquire { mode: Mode::Exclusive, members, witnesses: Vec::new() };
    assert_eq!(bench.run(&mut a, small), GRANTED);
    // Drives 0 and 1 say yes before drive 2, where a is, gives any answer.
    let large = bench.acquire(Mode::Exclusive);
    assert!(matches!(bench.run(&mut b, large), Outcome::Refused(Refusal::Held(_))));
}

#[test]
fn two_silent_drives_of_three_are_no_quorum_and_nothing_is_kept() {
    for path in [Path::Cut, Path::Hung] {
        let mut bench = Bench::new(3);
        bench.paths[1] = path;
        bench.paths[2] = path;
        let mut a = lv_lock(1);
        let (acquire, begin) = (bench.acquire(Mode::Exclusive), bench.now);
        let refused =
            Outcome::Refused(Refusal::NoQuorum { granted: 1, needed: 2, barred: Vec::new() });
        assert_eq!(bench.run(&mut a, acquire), refused);
        assert!(bench.now.since(begin) <= Timing::for_lease(LEASE).patience);
        bench.pass(&mut a, Duration::from_secs(1));
        assert!(bench.states(0).is_empty(), "what was got is given back");
    }
}

#[test]
fn a_lock_is_kept_for_as_long_as_it_is_refreshed() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire);
    bench.log.clear();
    bench.pass(&mut a, LEASE * 10);
    assert_eq!(events(&mut a), []);
    assert!(a.safe_until() > Some(bench.now + LEASE / 2));
    let refreshes = bench.log.len();
    assert!((90..=120).contains(&refreshes), "three drives, ten leases, a third each: {refreshes}");
}

#[test]
fn the_drives_of_a_lock_are_refreshed_together_and_locks_apart() {
    let times = |n: u8| {
        let mut bench = Bench::new(3);
        let mut lock = lv_lock(n);
        let acquire = bench.acquire(Mode::Exclusive);
        bench.run(&mut lock, acquire);
        bench.pass(&mut lock, LEASE);
        // One drive is away for a while; then its refresh times differ.
        bench.paths[2] = Path::Cut;
        bench.pass(&mut lock, LEASE / 2);
        bench.paths[2] = Path::Up;
        bench.pass(&mut lock, LEASE * 2);
        let mut times = Vec::new();
        while times.len() < 10 {
            bench.log.clear();
            bench.wait(&mut lock);
            bench.exchange(&mut lock);
            let mut drives: Vec<usize> = bench.log.iter().map(|(drive, _)| *drive).collect();
            drives.sort_unstable();
            assert_eq!(drives, [0, 1, 2]);
            times.push(bench.now);
        }
        let pauses = times.windows(2).map(|pair| pair[1].since(pair[0]));
        assert!(pauses.clone().all(|pause| (LEASE / 4..=LEASE / 3).contains(&pause)));
        times
    };
    let (a, b) = (times(1), times(2));
    assert!(a.iter().all(|time| !b.contains(time)), "{a:?} {b:?}");
}

#[test]
fn a_dead_host_is_broken_after_its_lease_and_not_before() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire.clone());
    drop(a);
    bench.now = bench.now + LEASE - Duration::from_millis(1);
    assert!(matches!(bench.run(&mut b, acquire.clone()), Outcome::Refused(Refusal::Held(_))));
    bench.now = bench.now + Duration::from_millis(2);
    assert_eq!(bench.run(&mut b, acquire), GRANTED, "and the value is not believed");
}

#[test]
fn a_refusal_that_could_not_be_read_is_remembered_by_the_next_conversion() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    let shared = bench.acquire(Mode::Shared);
    bench.run(&mut a, shared);
    // b counts only drive 2: a majority of 0 and 1 says nothing about it.
    let members = bench.members(&[2]);
    let small = Request::Acquire { mode: Mode::Shared, members, witnesses: Vec::new() };
    assert_eq!(bench.run(&mut b, small), GRANTED);
    let convert = Request::Convert { mode: Mode::Exclusive, value: None };
    a.request(convert.clone(), bench.now).expect("in order");
    let mut told = Vec::new();
    while let Some(command) = a.next_command(bench.now) {
        let reply = match (command.drive, &command.command) {
            (DriveRef(2), DriveCommand::ReadTable) => Reply::Status(Status::Unreachable),
            _ => bench.perform(&command),
        };
        a.on_reply(command.token, reply, bench.now);
        told.extend(events(&mut a));
    }
    let refused = |e: &Event| matches!(e, Event::Done(Outcome::Refused(Refusal::Held(_))));
    assert!(told.iter().any(refused), "{told:?}");
    // Now drive 2 does not answer at all. Its earlier answer still counts.
    bench.paths[2] = Path::Cut;
    let outcome = bench.run(&mut a, convert.clone());
    assert!(matches!(outcome, Outcome::Refused(Refusal::Held(_))), "{outcome:?}");
    bench.paths[2] = Path::Up;
    bench.run(&mut b, RELEASE);
    assert_eq!(bench.run(&mut a, convert), Outcome::Converted { complete: true });
}

#[test]
fn a_frozen_host_loses_the_lock_to_another_and_notices() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire.clone());
    let safe_until = a.safe_until().expect("held");
    bench.now = bench.now + LEASE * 2;
    assert_eq!(bench.run(&mut b, acquire), GRANTED);
    assert!(safe_until < bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    let told = events(&mut a);
    assert_eq!(told.first(), Some(&Event::Lapsed), "{told:?}");
    assert!(told.contains(&Event::Lost(Loss::Taken)), "{told:?}");
    assert_eq!(a.mode(), None);
}

#[test]
fn a_frozen_host_gets_its_lock_back_if_nobody_took_it() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire);
    bench.now = bench.now + LEASE * 2;
    bench.pass(&mut a, Duration::from_secs(1));
    assert_eq!(events(&mut a), [Event::Lapsed, Event::Regained]);
}

#[test]
fn a_drive_that_was_reset_is_taken_again_while_the_lock_stands() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire);
    bench.drives[1].reset();
    bench.pass(&mut a, LEASE);
    let drive = DriveRef(1);
    let lost = Event::Notice(Notice::DriveLost { drive });
    let gained = Event::Notice(Notice::DriveGained { drive });
    assert_eq!(events(&mut a), [lost, gained]);
    assert_eq!(a.held_on().count(), 3);
}

#[test]
fn two_drives_that_were_reset_are_a_lost_lock() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire);
    bench.drives[0].reset();
    bench.drives[1].reset();
    bench.pass(&mut a, LEASE);
    assert!(events(&mut a).contains(&Event::Lost(Loss::Taken)));
}

#[test]
fn a_drive_that_comes_back_is_added() {
    let mut bench = Bench::new(3);
    bench.paths[2] = Path::Cut;
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire);
    bench.pass(&mut a, LEASE);
    bench.paths[2] = Path::Up;
    bench.pass(&mut a, LEASE);
    assert_eq!(a.held_on().count(), 3);
}

#[test]
fn sharers_share_and_keep_an_exclusive_one_out() {
    let mut bench = Bench::new(3);
    let (mut a, mut b, mut c) = (lv_lock(1), lv_lock(2), lv_lock(3));
    let (shared, exclusive) = (bench.acquire(Mode::Shared), bench.acquire(Mode::Exclusive));
    assert_eq!(bench.run(&mut a, shared.clone()), GRANTED);
    assert_eq!(bench.run(&mut b, shared), GRANTED);
    assert!(matches!(bench.run(&mut c, exclusive), Outcome::Refused(Refusal::Held(_))));
    let up = Request::Convert { mode: Mode::Exclusive, value: None };
    assert!(matches!(bench.run(&mut a, up.clone()), Outcome::Refused(Refusal::Held(_))));
    assert_eq!(a.mode(), Some(Mode::Shared), "a refused conversion changes nothing");
    bench.run(&mut b, RELEASE);
    assert_eq!(bench.run(&mut a, up), Outcome::Converted { complete: true });
    let down = Request::Convert { mode: Mode::Shared, value: None };
    assert_eq!(bench.run(&mut a, down), Outcome::Converted { complete: true });
    let again = bench.acquire(Mode::Shared);
    assert_eq!(bench.run(&mut b, again), GRANTED);
}

#[test]
fn dead_sharers_do_not_prevent_a_conversion() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    let shared = bench.acquire(Mode::Shared);
    bench.run(&mut b, shared.clone());
    drop(b);
    bench.now = bench.now + LEASE / 2;
    bench.run(&mut a, shared);
    bench.pass(&mut a, LEASE * 2 / 3);
    let up = Request::Convert { mode: Mode::Exclusive, value: None };
    assert_eq!(bench.run(&mut a, up), Outcome::Converted { complete: true });
}

#[test]
fn a_value_is_seen_by_the_next_holder() {
    for profile in [Profile::r00d(), Profile::rev2313(), Profile::current()] {
        let mut bench = Bench::with(3, profile);
        let (mut a, mut b) = (vg_lock(1), vg_lock(2));
        let exclusive = bench.acquire(Mode::Exclusive);
        assert_eq!(bench.run(&mut a, exclusive.clone()), GRANTED, "there is none yet");
        bench.run(&mut a, Request::Release { value: Some(value(77)) });
        let known = Outcome::Granted(ValueRead::Known(value(77)));
        assert_eq!(bench.run(&mut b, exclusive.clone()), known);
        bench.run(&mut b, RELEASE);
        assert_eq!(bench.run(&mut a, exclusive), known, "no news is no change");
    }
}

#[test]
fn a_drive_that_missed_a_value_or_lost_it_does_not_vouch_for_an_old_one() {
    let mut bench = Bench::new(3);
    let mut a = vg_lock(1);
    let exclusive = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, exclusive.clone());
    bench.run(&mut a, Request::Release { value: Some(value(1)) });
    bench.paths[2] = Path::Cut;
    bench.run(&mut a, exclusive.clone());
    bench.run(&mut a, Request::Release { value: Some(value(2)) });
    bench.pass(&mut a, LEASE * 2);
    bench.paths = vec![Path::Cut, Path::Up, Path::Up];
    let known = Outcome::Granted(ValueRead::Known(value(2)));
    assert_eq!(bench.run(&mut a, exclusive.clone()), known, "drive 1 has it");
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, LEASE * 2);
    bench.drives[1].reset();
    assert_eq!(bench.run(&mut a, exclusive), GRANTED, "drive 2 alone has an old one");
}

#[test]
fn a_value_published_by_a_change_to_shared_is_never_missed() {
    for profile in [Profile::r00d(), Profile::rev2313(), Profile::current()] {
        let mut bench = Bench::with(3, profile);
        let (mut a, mut b) = (vg_lock(1), vg_lock(2));
        let (shared, exclusive) = (bench.acquire(Mode::Shared), bench.acquire(Mode::Exclusive));
        bench.run(&mut a, exclusive.clone());
        bench.run(&mut a, Request::Release { value: Some(value(1)) });
        bench.run(&mut a, exclusive);
        let down = Request::Convert { mode: Mode::Shared, value: Some(value(2)) };
        bench.run(&mut a, down);
        if let Outcome::Granted(read) = bench.run(&mut b, shared.clone()) {
            assert_ne!(read, ValueRead::Known(value(1)));
            bench.run(&mut b, RELEASE);
        }
        bench.run(&mut a, RELEASE);
        let Outcome::Granted(read) = bench.run(&mut b, shared) else { panic!("free") };
        assert_ne!(read, ValueRead::Known(value(1)));
    }
}

#[test]
fn an_own_record_of_an_earlier_life_is_taken_over() {
    for profile in [Profile::r00d(), Profile::current()] {
        let mut bench = Bench::with(3, profile);
        let exclusive = bench.acquire(Mode::Exclusive);
        let mut before = lv_lock(1);
        bench.run(&mut before, exclusive.clone());
        drop(before);
        let mut after = lv_lock(1);
        assert_eq!(bench.run(&mut after, exclusive), GRANTED);
    }
}

#[test]
fn a_release_that_drives_do_not_take_is_followed_up() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire);
    bench.paths = vec![Path::Cut; 3];
    assert_eq!(bench.run(&mut a, RELEASE), Outcome::Released);
    bench.pass(&mut a, Duration::from_secs(10));
    bench.paths = vec![Path::Up; 3];
    bench.pass(&mut a, Duration::from_secs(25));
    assert!((0..3).all(|d| bench.states(d).is_empty()));
    assert!(a.is_idle());
}

#[test]
fn a_release_that_no_drive_ever_takes_ends_with_the_lease() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire);
    bench.paths = vec![Path::Cut; 3];
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, LEASE * 3);
    assert!(a.is_idle());
}

#[test]
fn a_lost_unlock_never_undoes_a_newer_lock() {
    let mut bench = Bench::new(1);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire.clone());
    bench.paths[0] = Path::Deaf;
    bench.run(&mut a, RELEASE);
    bench.paths[0] = Path::Up;
    let begin = bench.now;
    let outcome = bench.run(&mut a, acquire);
    let waited = bench.now.since(begin);
    assert!(
        matches!(outcome, Outcome::Refused(Refusal::NoQuorum { .. })),
        "the drive is not used while the old unlock may arrive: {outcome:?} after {waited:?}"
    );
}

#[test]
fn different_drive_lists_meet_on_a_common_drive() {
    let mut bench = Bench::new(5);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    let of = |bench: &Bench, drives: &[u32]| Request::Acquire {
        mode: Mode::Exclusive,
        members: bench.members(drives),
        witnesses: Vec::new(),
    };
    let (small, large) = (of(&bench, &[0]), of(&bench, &[0, 1, 2]));
    assert_eq!(bench.run(&mut a, small), GRANTED);
    let outcome = bench.run(&mut b, large);
    assert!(
        matches!(outcome, Outcome::Refused(Refusal::Held(ref c)) if c.iter().any(|c| !c.same_set)),
        "a majority of b's set says nothing about a: {outcome:?}"
    );
}

#[test]
fn an_lv_that_moved_is_found_by_reading_the_other_drives() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    let on = |bench: &Bench, members: &[u32], witnesses: &[u32]| Request::Acquire {
        mode: Mode::Exclusive,
        members: bench.members(members),
        witnesses: bench.members(witnesses),
    };
    let (before, after) = (on(&bench, &[0], &[1, 2]), on(&bench, &[2], &[0, 1]));
    assert_eq!(bench.run(&mut a, before), GRANTED);
    assert!(matches!(bench.run(&mut b, after.clone()), Outcome::Refused(Refusal::Held(_))));
    bench.run(&mut a, RELEASE);
    assert_eq!(bench.run(&mut b, after), GRANTED);
}

#[test]
fn a_spread_lock_is_met_where_its_lv_moved_to() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    let members = bench.members(&[0]);
    let on_first = Request::Acquire { mode: Mode::Exclusive, members, witnesses: Vec::new() };
    assert_eq!(bench.run(&mut a, on_first), GRANTED);
    let others = bench.members(&[1, 2]);
    a.spread(&others, bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    let members = bench.members(&[2]);
    let on_last = Request::Acquire { mode: Mode::Exclusive, members, witnesses: Vec::new() };
    assert!(matches!(bench.run(&mut b, on_last), Outcome::Refused(Refusal::Held(_))));
    bench.pass(&mut a, LEASE * 2);
    bench.run(&mut a, RELEASE);
    assert!((0..3).all(|d| bench.states(d).is_empty()));
}

#[test]
fn two_hosts_that_split_the_drives_do_not_both_fail() {
    for seed in 0..50 {
        let mut bench = Bench::new(2);
        let (mut a, mut b) = (lv_lock(1), lv_lock(2 + seed));
        let acquire = bench.acquire(Mode::Exclusive);
        a.request(acquire.clone(), bench.now).expect("in order");
        b.request(acquire, bench.now).expect("in order");
        // Each gets one drive first.
        let (first, second) = (a.next_command(bench.now), b.next_command(bench.now));
        let (first, _held) = (first.expect("drive 0"), second.expect("drive 0"));
        let time = DriveTime::from_micros(bench.now.as_micros());
        let reply = bench.drives[0].perform(time, &first.command);
        a.on_reply(first.token, reply, bench.now);
        let mine = b.next_command(bench.now).expect("drive 1");
        let reply = bench.drives[1].perform(time, &mine.command);
        b.on_reply(mine.token, reply, bench.now);
        let reply = bench.drives[0].perform(time, &_held.command);
        b.on_reply(_held.token, reply, bench.now);
        let (mut results, mut steps) = (Vec::new(), 0);
        while results.len() < 2 {
            steps += 1;
            assert!(steps < 1000, "it must end");
            for lock in [&mut a, &mut b] {
                bench.exchange(lock);
                results.extend(events(lock).into_iter().filter_map(|event| match event {
                    Event::Done(outcome) => Some(outcome),
                    _ => None,
                }));
            }
            let next = [&a, &b].into_iter().filter_map(|l| l.next_deadline()).min();
            bench.now = bench.now.max(next.expect("something is to come"));
            a.on_timer(bench.now);
            b.on_timer(bench.now);
        }
        let granted = results.iter().filter(|r| **r == GRANTED).count();
        assert_eq!(granted, 1, "seed {seed}: {results:?}");
    }
}

#[test]
fn a_full_drive_is_relieved_of_mutexes_that_nobody_uses() {
    let mut bench = Bench::with(1, Profile::rev2313());
    let lv = |n: u32| {
        let uuid = format!("{n:032}");
        ResourceId::lv(VG, &uuid).expect("a good id")
    };
    let acquire = bench.acquire(Mode::Exclusive);
    let time = DriveTime::from_micros(bench.now.as_micros());
    for n in 0..128 {
        // Hosts that unlock and do not destroy.
        let mut other = lock(9, lv(n), true);
        bench.run(&mut other, acquire.clone());
        bench.run(&mut other, Request::Release { value: Some(value(1)) });
    }
    assert_eq!(bench.drives[0].table(time).len(), 128);
    let mut a = lv_lock(1);
    assert_eq!(bench.run(&mut a, acquire), GRANTED);
}

#[test]
fn a_drive_that_is_won_after_the_release_does_not_get_the_value() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut b, acquire.clone());
    bench.run(&mut b, Request::Release { value: Some(value(1)) });
    // a's TRYLOCK to drive 2 takes long to arrive.
    a.request(acquire.clone(), bench.now).expect("in order");
    let mut late = None;
    while let Some(command) = a.next_command(bench.now) {
        let trylock = name_of(&command.command) == "trylock";
        if command.drive == DriveRef(2) && trylock {
            late = Some(command);
            bench.now = bench.now + Timing::for_lease(LEASE).grace;
            a.on_timer(bench.now);
            continue;
        }
        let reply = bench.perform(&command);
        a.on_reply(command.token, reply, bench.now);
    }
    bench.now = bench.now + Timing::for_lease(LEASE).grace;
    a.on_timer(bench.now);
    bench.exchange(&mut a);
    assert_eq!(a.mode(), Some(Mode::Exclusive));
    bench.run(&mut a, Request::Release { value: Some(value(2)) });
    bench.run(&mut b, acquire);
    bench.run(&mut b, Request::Release { value: Some(value(3)) });
    let late = late.expect("drive 2 was asked");
    let reply = bench.perform(&late);
    a.on_reply(late.token, reply, bench.now);
    bench.exchange(&mut a);
    let time = DriveTime::from_micros(bench.now.as_micros());
    let values: Vec<_> = bench.drives[2].table(time).iter().map(|r| r.value).collect();
    assert!(!values.contains(&value(2)), "3 is newer: {values:?}");
}

#[test]
fn a_change_to_shared_sends_no_value_that_could_arrive_late() {
    let mut bench = Bench::new(3);
    let mut a = vg_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire);
    let convert = Request::Convert { mode: Mode::Shared, value: Some(value(5)) };
    a.request(convert, bench.now).expect("in order");
    while let Some(command) = a.next_command(bench.now) {
        let DriveCommand::Mutex(_, record) = &command.command else { panic!("{command:?}") };
        assert_eq!(record.value_update, ValueUpdate::Keep);
    }
}

#[test]
fn a_value_that_too_few_drives_have_is_not_left_for_later() {
    let mut bench = Bench::new(3);
    let mut a = vg_lock(1);
    let acquire = bench.acquire(Mode::Exclusive);
    bench.run(&mut a, acquire.clone());
    bench.run(&mut a, Request::Release { value: Some(value(7)) });
    bench.drives[0].reset();
    bench.drives[1].reset();
    let mut b = vg_lock(2);
    assert_eq!(bench.run(&mut b, acquire.clone()), GRANTED);
    bench.run(&mut b, RELEASE);
    let time = DriveTime::from_micros(bench.now.as_micros());
    let left = bench.drives.iter().flat_map(|d| d.table(time)).any(|r| r.value == value(7));
    assert!(!left, "a copy from elsewhere would make it look whole");
}
