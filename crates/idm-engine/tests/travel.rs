//! Other drives vote for a held lock, because its LV was moved or drives leave the VG.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Command, DriveRef, Event, Lock, Notice, Outcome, Refusal, Request};
use idm_protocol::{Mode, MutexOp, Reply, Status};

/// A lock that is held on drive 0 of three, and a drive set; REFRESH marks it or not.
fn held_on_the_first(stores_metadata: bool, mode: Mode) -> (Bench, Lock) {
    let mut profile = Profile::current();
    profile.refresh_stores_metadata = stores_metadata;
    let mut bench = Bench::with(3, profile);
    let mut a = lv_lock(1);
    let (members, witnesses) = (bench.members(&[0]), bench.members(&[1, 2]));
    assert_eq!(bench.run(&mut a, Request::Acquire { mode, members, witnesses }), GRANTED);
    (bench, a)
}

#[test]
fn the_vgs_drives_vote_for_a_lock_that_is_spread() {
    for stores in [true, false] {
        for mode in [Mode::Exclusive, Mode::Shared] {
            let (mut bench, mut a) = held_on_the_first(stores, mode);
            assert!(travel(&mut bench, &mut a, &[0, 1, 2]), "stored: {stores}, {mode}");
            // Where no mark is stored, the drive is taken anew.
            bench.pass(&mut a, Duration::from_secs(1));
            bench.paths[0] = Path::Cut;
            bench.pass(&mut a, LEASE * 3);
            assert_eq!(a.mode(), Some(mode));
            assert!(a.safe_until() > Some(bench.now), "two of three drives are enough");
            assert!(!events(&mut a).contains(&Event::Lapsed));
        }
    }
}

#[test]
fn a_drive_that_left_the_vg_neither_votes_nor_keeps_a_record() {
    let (mut bench, mut a) = held_on_the_first(true, Mode::Exclusive);
    assert!(travel(&mut bench, &mut a, &[1, 2]));
    bench.pass(&mut a, Duration::from_secs(1));
    assert_eq!(on(&a), [1, 2]);
    assert!(bench.states(0).is_empty());
}

#[test]
fn the_old_drives_vote_until_the_new_ones_are_noted() {
    let (mut bench, mut a) = held_on_the_first(true, Mode::Exclusive);
    let members = bench.members(&[1, 2]);
    a.spread(&members, bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    assert_eq!(is_ready(&mut a), Some(vec![DriveRef(1), DriveRef(2)]));
    // The new drives were not noted.
    bench.paths[0] = Path::Cut;
    bench.pass(&mut a, LEASE);
    assert!(events(&mut a).contains(&Event::Lapsed));
    assert!(!a.move_votes(&[DriveRef(1), DriveRef(2)], bench.now), "too late");
}

#[test]
fn drives_that_were_named_before_others_do_not_vote() {
    let (mut bench, mut a) = held_on_the_first(true, Mode::Exclusive);
    let members = bench.members(&[0, 1, 2]);
    a.spread(&members, bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    let first = is_ready(&mut a).expect("three drives");
    // While they are being noted, one leaves the VG.
    let members = bench.members(&[1, 2]);
    a.spread(&members, bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    let second = is_ready(&mut a).expect("two drives");
    assert!(!a.move_votes(&first, bench.now), "what is noted is not what would vote");
    assert!(a.move_votes(&second, bench.now));
}

#[test]
fn drives_that_went_in_between_do_not_vote() {
    let (mut bench, mut a) = held_on_the_first(true, Mode::Exclusive);
    let members = bench.members(&[1, 2]);
    a.spread(&members, bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    let named = is_ready(&mut a).expect("two drives");
    // Noting takes so long that the lease on one of them has run out by then.
    bench.paths[1] = Path::Cut;
    bench.pass(&mut a, LEASE);
    assert!(!a.move_votes(&named, bench.now), "one of two is no majority");
    bench.pass(&mut a, LEASE);
    assert!(a.safe_until() > Some(bench.now), "the drive that votes still answers");
}

#[test]
fn too_few_new_drives_change_nothing() {
    let (mut bench, mut a) = held_on_the_first(true, Mode::Exclusive);
    bench.paths[1] = Path::Cut;
    assert!(!travel(&mut bench, &mut a, &[1, 2]));
    bench.pass(&mut a, LEASE * 2);
    assert!(a.safe_until() > Some(bench.now));
    // This is corrected when the drive answers.
    bench.paths[1] = Path::Up;
    bench.pass(&mut a, LEASE);
    let named = is_ready(&mut a).expect("two drives");
    assert!(a.move_votes(&named, bench.now));
}

/// A host that counts the old drives, the new ones or others gives way to the lock, at each step.
#[test]
fn nobody_gets_a_lock_that_is_on_its_way() {
    for stores in [true, false] {
        for lists in [[0u32, 1, 2].as_slice(), &[0], &[1, 2], &[1], &[0, 1]] {
            for steps in 0..24 {
                let (mut bench, mut a) = held_on_the_first(stores, Mode::Exclusive);
                let drives = bench.members(&[0, 1, 2]);
                a.spread(&drives, bench.now);
                for _ in 0..steps {
                    let Some(command) = a.next_command(bench.now) else { break };
                    let reply = bench.perform(&command);
                    a.on_reply(command.token, reply, bench.now);
                    if let Some(named) = is_ready(&mut a) {
                        assert!(a.move_votes(&named, bench.now));
                    }
                }
                let mut b = lv_lock(2);
                let members = bench.members(lists);
                let rest: Vec<u32> = (0..3).filter(|d| !lists.contains(d)).collect();
                let witnesses = bench.members(&rest);
                let request = Request::Acquire { mode: Mode::Shared, members, witnesses };
                let outcome = bench.run(&mut b, request);
                assert_ne!(outcome, GRANTED, "{lists:?} after {steps} commands");
            }
        }
    }
}

#[test]
fn a_dead_host_leaves_a_lock_that_one_of_both_sets_adopts() {
    for stores in [true, false] {
        for noted in [false, true] {
            let (mut bench, mut a) = held_on_the_first(stores, Mode::Exclusive);
            let (old, new) = (bench.members(&[0]), bench.members(&[0, 1, 2]));
            a.spread(&new, bench.now);
            bench.pass(&mut a, Duration::from_secs(1));
            assert!(is_ready(&mut a).is_some());
            drop(a);
            let (members, witnesses) = match noted {
                true => (new, Vec::new()),
                false => (old, bench.members(&[1, 2])),
            };
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
            assert_eq!(outcome, Outcome::Adopted(Mode::Exclusive), "{stores} {noted}");
        }
    }
}

#[test]
fn a_lock_that_was_moved_and_broken_elsewhere_is_not_adopted_by_its_old_drives() {
    let (mut bench, mut a) = held_on_the_first(true, Mode::Exclusive);
    let new = bench.members(&[0, 1, 2]);
    a.spread(&new, bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    drop(a);
    bench.now = bench.now + LEASE * 2;
    // The LV is on drive 1 now; drive 0 does not answer the next holder.
    bench.paths[0] = Path::Cut;
    let (members, witnesses) = (bench.members(&[1]), bench.members(&[0, 2]));
    let mut b = lv_lock(2);
    let mode = Mode::Exclusive;
    assert_eq!(bench.run(&mut b, Request::Acquire { mode, members, witnesses }), GRANTED);
    bench.run(&mut b, RELEASE);
    bench.paths[0] = Path::Up;
    let mut again = lv_lock(1);
    let outcome = bench.run(&mut again, unknown(adopt_beside(&bench, &[0], &[1, 2], None)));
    assert_eq!(outcome, Outcome::Refused(Refusal::Unclear));
}

/// A lock of drive 0 whose votes have moved to drives 0 to 2. Drive 0 has confirmed its new mark
/// after that, and nobody has read it.
fn moved_before_the_mark_was_confirmed(mode: Mode) -> (Bench, Lock) {
    let (mut bench, mut lock) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut lock, mode, &[0], &[1, 2]), GRANTED);
    let named = bench.all();
    lock.spread(&named, bench.now);
    let late = exchange_with(&mut bench, &mut lock, |command| match command.drive {
        DriveRef(0) => Fate::Unheard,
        _ => Fate::Answered,
    });
    let ready = is_ready(&mut lock).expect("two of three drives are ready");
    assert!(lock.move_votes(&ready, bench.now));
    for command in late {
        lock.on_reply(command.token, Reply::Status(Status::Good), bench.now);
    }
    (bench, lock)
}

/// A drive confirms the new mark after the votes have moved. A later look must show that mark, so
/// the drive does not count before; it is taken anew at once, and not when it would be refreshed.
#[test]
fn a_drive_whose_mark_is_late_is_taken_anew_at_once() {
    let (mut bench, mut lock) = moved_before_the_mark_was_confirmed(S);
    bench.exchange(&mut lock);
    let confirmed = events(&mut lock);
    let gained = Event::Notice(Notice::DriveGained { drive: DriveRef(0) });
    assert!(confirmed.contains(&gained), "it counts without a wait: {confirmed:?}");
}

/// A host that requests again and again a change that sharers refuse still gets a missing drive for
/// its shared lock.
#[test]
fn refused_changes_do_not_put_off_that_a_drive_is_taken_anew() {
    let (mut bench, mut a, mut b) = (Bench::new(3), lv_lock(1), lv_lock(2));
    bench.paths[0] = Path::Cut;
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
    bench.paths[0] = Path::Up;
    assert_eq!(take(&mut bench, &mut b, S, &[0, 1, 2], &[]), GRANTED);
    let end = bench.now + LEASE;
    while bench.now < end {
        assert!(is_held(&bench.run(&mut a, convert(X))));
        bench.pass(&mut a, Duration::from_secs(1));
        bench.pass(&mut b, Duration::ZERO);
    }
    assert_eq!(on(&a), [0, 1, 2]);
}

/// The VG's third drive does not answer the look that sought other holders.
#[test]
fn a_look_without_an_answer_does_not_keep_votes_from_moving() {
    let (mut bench, mut lock) = (Bench::new(3), lv_lock(1));
    let request = acquire(&bench, X, &[0], &[1, 2]);
    let granted = run_with(&mut bench, &mut lock, request, |command| match command.drive {
        DriveRef(2) => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(granted, GRANTED);
    assert!(travel(&mut bench, &mut lock, &[0, 1, 2]));
}

/// The drive that stays in the VG shows the new mark, but is still being taken anew when the VG's
/// drives change, and then the mode.
#[test]
fn a_change_does_not_forget_that_a_drive_has_the_lock() {
    for mode in [S, X] {
        let (mut bench, mut lock) = moved_before_the_mark_was_confirmed(mode);
        exchange_with(&mut bench, &mut lock, |command| match op(command) {
            Some(MutexOp::Refresh) => Fate::Open,
            _ => Fate::Answered,
        });
        let named = bench.members(&[0]);
        lock.spread(&named, bench.now);
        let other = if mode == S { X } else { S };
        lock.request(convert(other), bench.now).expect("held");
        bench.now = bench.now + Duration::from_micros(1);
        lock.on_timer(bench.now);
        assert!(believes(&bench, &lock), "{mode}: {:?}", events(&mut lock));
    }
}

/// A drive has a record of this host from when it counted that drive alone, and its REFRESH stores
/// no mark. The mode changes while it is read whether the record names the present drives now.
#[test]
fn a_change_does_not_keep_a_record_that_names_other_drives() {
    let (mut bench, mut a) = held_on(&[2], 3, forgetful());
    bench.paths[2] = Path::Cut;
    bench.run(&mut a, RELEASE);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    bench.pass(&mut a, SECOND * 5);
    bench.paths[2] = Path::Up;
    let mut reads = 0;
    let open = pass_with(&mut bench, &mut a, LEASE / 2, |command| {
        let read = command.drive.0 == 2 && op(command).is_none();
        reads += i32::from(read);
        if read && reads == 2 { Fate::Open } else { Fate::Answered }
    });
    assert_eq!((open.len(), on(&a)), (1, vec![0, 1, 2]));
    a.request(convert(S), bench.now).expect("held");
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    bench.pass(&mut a, LEASE * 2);
    bench.paths[1] = Path::Cut;
    bench.pass(&mut a, LEASE * 2);
    assert!(believes(&bench, &a), "drives 0 and 2 keep it");
}

/// A lock on drive 0, whose votes have moved to all three drives. Drive 0 was refreshed without the
/// new mark, so it is to be taken anew, but its record shows the lock to hosts that count drive 0
/// alone. The VG becomes that drive alone before it has answered the TRYLOCK.
fn taken_anew_on_the_vgs_only_drive(mode: Mode) -> (Bench, Lock, Vec<Command>) {
    let (mut bench, mut lock) = moved_before_the_mark_was_confirmed(mode);
    let open = exchange_with(&mut bench, &mut lock, |_| Fate::Open);
    assert_eq!(open.iter().map(op).collect::<Vec<_>>(), [Some(MutexOp::Trylock)]);
    let named = bench.members(&[0]);
    lock.spread(&named, bench.now);
    (bench, lock, open)
}

/// The change has asked nothing yet: the drive keeps other hosts out as it did before.
#[test]
fn a_change_does_not_forget_a_record_that_names_the_vgs_drives() {
    for (mode, other) in [(S, X), (X, S)] {
        let (mut bench, mut lock, _) = taken_anew_on_the_vgs_only_drive(mode);
        let safe_until = lock.safe_until();
        lock.request(convert(other), bench.now).expect("held");
        assert_eq!(lock.safe_until(), safe_until, "{mode}");
        bench.now = bench.now + Duration::from_micros(1);
        lock.on_timer(bench.now);
        assert!(believes(&bench, &lock), "{mode}: {:?}", events(&mut lock));
    }
}

/// It was replaced, and shows this lock to nobody.
#[test]
fn a_drive_that_cannot_have_the_record_any_more_does_not_keep_the_lock() {
    for status in [Status::Unsupported, Status::Uncertain] {
        let (bench, mut lock, open) = taken_anew_on_the_vgs_only_drive(S);
        lock.on_reply(open[0].token, Reply::Status(status), bench.now);
        assert_eq!(believes(&bench, &lock), status == Status::Uncertain, "{status:?}");
    }
}

/// Another host shares the lock on a drive that answers. The change ends as it began.
#[test]
fn a_refused_change_does_not_forget_a_record_that_names_the_vgs_drives() {
    let (mut bench, mut lock, open) = taken_anew_on_the_vgs_only_drive(S);
    let mut other = lv_lock(2);
    assert_eq!(take(&mut bench, &mut other, S, &[1], &[0, 2]), GRANTED);
    let safe_until = lock.safe_until();
    lock.request(convert(X), bench.now).expect("held");
    bench.exchange(&mut lock);
    let outcome = done(&mut lock).expect("a sharer that counts other drives is in the way");
    assert!(is_held(&outcome), "{outcome:?}");
    assert_eq!(lock.safe_until(), safe_until);
    let reply = bench.perform(&open[0]);
    lock.on_reply(open[0].token, reply, bench.now);
    bench.pass(&mut lock, SECOND);
    assert!(believes(&bench, &lock));
    assert!(!events(&mut lock).contains(&Event::Lapsed));
}

/// The drive does not answer for a while, with a change of the mode or without. Its record keeps
/// hosts out that count this drive alone, and the lock lives as long as they are kept out.
#[test]
fn a_record_that_names_the_vgs_drives_is_believed_as_long_as_it_keeps_hosts_out() {
    for (mode, change) in [(S, Some(X)), (X, Some(S)), (S, None), (X, None)] {
        let (mut bench, mut lock, open) = taken_anew_on_the_vgs_only_drive(mode);
        let end = lock.safe_until().expect("held");
        if let Some(other) = change {
            lock.request(convert(other), bench.now).expect("held");
        }
        lock.on_reply(open[0].token, Reply::Status(Status::Uncertain), bench.now);
        while bench.now < end + SECOND * 2 {
            bench.paths[0] = Path::Cut;
            bench.pass(&mut lock, SECOND);
            assert_eq!(believes(&bench, &lock), bench.now < end, "{mode} {change:?}");
            bench.paths[0] = Path::Up;
            assert_no_other_gets(&mut bench, &lock, &[0]);
        }
    }
}
