//! Drives that were left and drives that stay, seen by a host with an older list.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Command, Event, Lock, Outcome, Request};
use idm_protocol::{MutexOp, Status};

/// Drive 2 does not answer. The VG loses it, and gets it back at once with drives 0 and 1 gone. It
/// still has the first record, which hides both moves.
#[test]
fn a_drive_that_was_left_and_comes_back_may_hide_two_moves() {
    hidden_on_drive_2(&[&[0, 1, 3], &[2, 3, 4]]);
}

/// The same where drive 2 hid the first move, too, and was left with the second one.
#[test]
fn a_drive_that_hid_a_move_and_was_left_may_hide_a_later_one() {
    hidden_on_drive_2(&[&[0, 1, 2, 3, 4], &[0, 1, 3, 4], &[2, 3, 4]]);
}

/// Drives 1 and 2 do not answer the holder for longer than a lease, and a REFRESH of drive 2 is
/// lost. Until the latest end of the record on drive 2, drive 0 is kept; but that record has ended.
#[test]
fn a_drive_that_stays_does_not_count_after_its_lease() {
    let profile = forgetful();
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, profile);
    let begin = bench.now;
    let mut away = |command: &Command| match (command.drive.0, op(command)) {
        (1, _) => Fate::Instead(Status::Unreachable),
        (2, Some(MutexOp::Refresh)) => Fate::Instead(Status::Uncertain),
        (2, _) => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    };
    pass_with(&mut bench, &mut a, SECOND * 40, &mut away);
    let named = bench.members(&[2, 3, 4]);
    a.spread(&named, bench.now);
    pass_with(&mut bench, &mut a, SECOND, &mut away);
    let ready = is_ready(&mut a).expect("drives 3 and 4");
    assert!(a.move_votes(&ready, bench.now));
    let end = begin + LEASE + SECOND * 2;
    let left = end.since(bench.now);
    pass_with(&mut bench, &mut a, left, &mut away);
    assert_no_other_gets(&mut bench, &a, &[0, 1, 2]);
}

/// All of the VG's drives vote, and the holder has left the LV on drive 2. The VG becomes drive 2
/// alone, which does not answer the holder any more: the lock ends with its lease there.
fn reduced_to_a_silent_drive() -> (Bench, Lock) {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    spread(&mut bench, &mut a, &[0, 1, 2]);
    bench.paths[2] = Path::Cut;
    bench.pass(&mut a, SECOND * 5);
    spread(&mut bench, &mut a, &[2]);
    (bench, a)
}

fn another_takes_drive_2(bench: &mut Bench, a: &Lock) {
    bench.paths = vec![Path::Cut, Path::Cut, Path::Up];
    let mut b = lv_lock(2);
    take(bench, &mut b, X, &[2], &[]);
    assert_one_holder(bench, a, &b);
}

#[test]
fn a_lock_that_the_vgs_drive_lacks_ends_with_its_lease_there() {
    let (mut bench, mut a) = reduced_to_a_silent_drive();
    let end = a.safe_until().expect("held") + SECOND;
    let left = end.since(bench.now);
    bench.pass(&mut a, left);
    another_takes_drive_2(&mut bench, &a);
}

/// The same, where lvmlockd dies meanwhile.
#[test]
fn an_adopted_lock_that_the_vgs_drive_lacks_ends_with_its_lease_there() {
    let (mut bench, a) = reduced_to_a_silent_drive();
    let safe_until = a.safe_until();
    drop(a);
    bench.now = bench.now + SECOND * 5;
    let orphan = in_mode(adopt(&bench, &[0, 1, 2], safe_until), X);
    let mut next = lv_lock(1);
    bench.run(&mut next, orphan);
    // The VG is started again, with the list that the last life had already.
    spread(&mut bench, &mut next, &[2]);
    let end = safe_until.expect("held") + SECOND;
    let left = end.since(bench.now);
    bench.pass(&mut next, left);
    another_takes_drive_2(&mut bench, &next);
}

/// Drives 0 and 1 do not answer from the beginning, and drive 2 from its first refresh on. Two of
/// the three drives that voted stay, so that nothing is left to be kept elsewhere; but the holder
/// does not have these two for as long as one of them hides the move.
#[test]
fn drives_that_stay_and_do_not_answer_do_not_keep_the_lock() {
    for mode in [X, S] {
        let (mut bench, mut a) = (Bench::new(6), lv_lock(1));
        assert_eq!(take(&mut bench, &mut a, mode, &[0, 1, 2], &[3, 4, 5]), GRANTED);
        let begin = bench.now;
        bench.paths[..2].fill(Path::Cut);
        bench.pass(&mut a, SECOND * 20);
        assert!(said(&bench, 2).contains(&"refresh"));
        bench.paths[2] = Path::Cut;
        assert!(travel(&mut bench, &mut a, &[1, 2, 3, 4, 5]));
        let end = begin + LEASE + SECOND;
        let left = end.since(bench.now);
        bench.pass(&mut a, left);
        bench.paths[..3].fill(Path::Up);
        assert_no_other_gets(&mut bench, &a, &[0, 1, 2]);
    }
}

/// The same without a move, for comparison.
#[test]
fn drives_that_vote_and_do_not_answer_do_not_keep_the_lock() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 6, Profile::current());
    let begin = bench.now;
    bench.paths[..2].fill(Path::Cut);
    bench.pass(&mut a, SECOND * 20);
    bench.paths[2] = Path::Cut;
    let end = begin + LEASE + SECOND;
    let left = end.since(bench.now);
    bench.pass(&mut a, left);
    bench.paths[..3].fill(Path::Up);
    assert_no_other_gets(&mut bench, &a, &[0, 1, 2]);
}

/// The same where the VG got a drive, too: the adoption reads neither of the VG's drives.
#[test]
fn an_adopted_lock_that_both_drives_of_the_vg_lack_ends_with_its_lease_there() {
    let (mut bench, mut a) = (Bench::new(6), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2, 3, 4], &[]), GRANTED);
    spread(&mut bench, &mut a, &[0, 1, 2, 3, 4]);
    bench.paths[4..].fill(Path::Cut);
    bench.pass(&mut a, SECOND * 5);
    spread(&mut bench, &mut a, &[4, 5]);
    let safe_until = a.safe_until();
    drop(a);
    bench.now = bench.now + SECOND * 5;
    let orphan = in_mode(adopt_beside(&bench, &[0, 1, 2, 3, 4], &[5], safe_until), X);
    let mut next = lv_lock(1);
    bench.run(&mut next, orphan);
    let end = safe_until.expect("held") + SECOND;
    let left = end.since(bench.now);
    bench.pass(&mut next, left);
    bench.paths = vec![Path::Cut, Path::Cut, Path::Cut, Path::Cut, Path::Up, Path::Up];
    let mut b = lv_lock(2);
    take(&mut bench, &mut b, X, &[4], &[5]);
    assert_one_holder(&bench, &next, &b);
}

/// lvmlockd dies again and again: each life gives the same move the time of a lease.
#[test]
fn a_move_does_not_get_the_time_of_a_lease_in_each_life() {
    let (mut bench, a) = reduced_to_a_silent_drive();
    let (first_end, mut safe_until) = (a.safe_until().expect("held"), a.safe_until());
    drop(a);
    let mut next = lv_lock(1);
    for life in 0..4 {
        bench.now = bench.now + SECOND * 5;
        let orphan = in_mode(adopt(&bench, &[0, 1, 2], safe_until), X);
        let orphan = if safe_until.is_none() { unknown(orphan) } else { orphan };
        next = lv_lock(1);
        println!("life {life}: {:?}", bench.run(&mut next, orphan));
        spread(&mut bench, &mut next, &[2]);
        bench.pass(&mut next, SECOND * 40);
        safe_until = next.safe_until();
    }
    assert!(bench.now > first_end + LEASE + SECOND * 30);
    another_takes_drive_2(&mut bench, &next);
}

/// Drive 0 does not answer when the VG loses it. It hides nothing, because it does not vote any
/// more, and so its record is given back as soon as it answers.
#[test]
fn a_drive_that_is_left_hides_nothing() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 4, Profile::current());
    bench.paths[0] = Path::Cut;
    assert!(travel(&mut bench, &mut a, &[1, 2, 3]));
    bench.paths[0] = Path::Up;
    bench.pass(&mut a, SECOND * 20);
    assert!(bench.states(0).is_empty());
}

/// The TRYLOCK of a new drive is lost, so that its record may come late, with the new mark.
#[test]
fn a_new_drive_hides_nothing() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 6, Profile::current());
    let named = bench.members(&[1, 2, 3, 4, 5]);
    a.spread(&named, bench.now);
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        5 => Fate::Instead(Status::Uncertain),
        _ => Fate::Answered,
    });
    let ready = is_ready(&mut a).expect("four of five drives");
    assert!(a.move_votes(&ready, bench.now));
    bench.exchange(&mut a);
    assert!(bench.states(0).is_empty());
}

/// The limit of an adopted lock ends when all its drives have it.
#[test]
fn an_adopted_lock_that_all_drives_have_is_like_any_other() {
    for late in [false, true] {
        let (mut bench, first) = held_on(&[0, 1, 2], 3, Profile::current());
        drop(first);
        let mut a = lv_lock(1);
        let until = bench.now + if late { Duration::ZERO } else { SECOND * 20 };
        let request = in_mode(adopt(&bench, &[0, 1, 2], Some(until)), X);
        assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
        assert!(a.safe_until() > Some(bench.now + LEASE / 2), "late: {late}");
        bench.paths[0] = Path::Cut;
        bench.pass(&mut a, LEASE * 2);
        assert!(believes(&bench, &a), "late: {late}");
    }
}

/// Otherwise it is safe until the date that allowed its adoption.
#[test]
fn an_adopted_lock_that_a_drive_lacks_is_safe_until_the_vgs_drives_are_named() {
    for named in [false, true] {
        let (mut bench, first) = held_on(&[0, 1, 2], 3, Profile::current());
        drop(first);
        bench.paths[0] = Path::Cut;
        let (mut a, until) = (lv_lock(1), bench.now + SECOND * 20);
        let request = in_mode(adopt(&bench, &[0, 1, 2], Some(until)), X);
        assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
        if named {
            spread(&mut bench, &mut a, &[0, 1, 2]);
        }
        bench.pass(&mut a, LEASE * 2);
        assert_eq!(believes(&bench, &a), named);
        if !named {
            assert_eq!(events(&mut a), [Event::Lapsed]);
        }
        // The limit ends with the acquisition.
        bench.run(&mut a, RELEASE);
        bench.pass(&mut a, LEASE * 2);
        assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
        bench.pass(&mut a, LEASE * 2);
        assert!(believes(&bench, &a));
    }
}

/// A VG's lock has no LV that could lie on other drives.
#[test]
fn a_vgs_lock_is_adopted_by_a_majority_without_a_limit() {
    for late in [false, true] {
        let (mut bench, mut first) = (Bench::new(3), vg_lock(1));
        assert_eq!(take(&mut bench, &mut first, X, &[0, 1, 2], &[]), GRANTED);
        drop(first);
        bench.paths[0] = Path::Cut;
        let mut a = vg_lock(1);
        let request = in_mode(adopt(&bench, &[0, 1, 2], Some(bench.now + SECOND * 20)), X);
        let request = if late { unknown(request) } else { request };
        assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
        bench.pass(&mut a, LEASE * 2);
        assert!(believes(&bench, &a), "late: {late}");
        assert!(!events(&mut a).contains(&Event::Lapsed), "late: {late}");
    }
}

/// A drive of the acquisition left the VG and comes back; then it hangs. The others were given
/// back, so that nothing is gained by a wait for it.
#[test]
fn votes_move_though_an_original_drive_that_came_back_hangs() {
    for path in [Path::Cut, Path::Deaf, Path::Hung] {
        let mut bench = Bench::new(7);
        let mut a = lv_lock(1);
        assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
        bench.pass(&mut a, LEASE);
        assert!(travel(&mut bench, &mut a, &[3, 4, 5]));
        bench.pass(&mut a, LEASE * 5);
        assert_eq!(on(&a), [3, 4, 5]);
        bench.paths[0] = path;
        let mut moved = travel(&mut bench, &mut a, &[0, 3, 4, 5, 6]);
        for _ in 0..40 {
            if moved {
                break;
            }
            bench.pass(&mut a, LEASE / 4);
            moved = is_ready(&mut a).is_some_and(|named| a.move_votes(&named, bench.now));
        }
        assert!(moved, "{:?} {}", on(&a), ["up", "cut", "deaf", "hung"][path as usize]);
    }
}

/// An LV's lock is on some of the VG's three drives, one of which is dead. The adoption is followed
/// by the VG's drives.
#[test]
fn adopted_locks_stay_with_one_of_three_dead() {
    for own in [&[0][..], &[0, 1], &[0, 2], &[0, 1, 2]] {
        for even in [false, true] {
            let mut bench = Bench::new(3);
            let mut first = lv_lock(1);
            let rest: Vec<u32> = (0..3).filter(|d| !own.contains(d)).collect();
            assert_eq!(take(&mut bench, &mut first, X, own, &rest), GRANTED);
            bench.pass(&mut first, SECOND * 30);
            bench.paths[2] = Path::Cut;
            bench.pass(&mut first, SECOND * 25);
            let safe_until = first.safe_until();
            assert!(believes(&bench, &first));
            drop(first);
            bench.now = bench.now + SECOND;
            let mut next = lv_lock(1);
            let orphan = Request::Adopt {
                mode: X,
                safe_until,
                granted: own.len() == 2,
                members: bench.members(own),
                witnesses: bench.members(&rest),
            };
            assert_eq!(bench.run(&mut next, orphan), Outcome::Adopted(X), "{own:?}");
            let named: &[u32] = if even { &[0, 1] } else { &[0, 1, 2] };
            travel(&mut bench, &mut next, named);
            bench.pass(&mut next, LEASE * 3);
            assert!(!events(&mut next).contains(&Event::Lapsed), "{own:?} {even}");
        }
    }
}

/// What follows where such a drive stays in the VG and the others leave it.
#[test]
fn a_lock_follows_the_vg_though_an_original_drive_that_came_back_hangs() {
    let mut bench = Bench::new(8);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    bench.pass(&mut a, LEASE);
    assert!(travel(&mut bench, &mut a, &[3, 4, 5]));
    bench.pass(&mut a, LEASE * 5);
    bench.paths[0] = Path::Deaf;
    spread(&mut bench, &mut a, &[0, 6, 7]);
    for _ in 0..40 {
        if is_ready(&mut a).is_some_and(|named| a.move_votes(&named, bench.now)) {
            break;
        }
        bench.pass(&mut a, LEASE / 4);
    }
    // 3, 4 and 5 are pulled; 6 and 7 have the lock and answer.
    assert_eq!(on(&a).iter().filter(|d| [6, 7].contains(*d)).count(), 2);
    bench.paths[3..6].fill(Path::Cut);
    bench.pass(&mut a, LEASE * 2);
    assert!(believes(&bench, &a), "two of the VG's three drives have the lock");
}

/// The VG's drives have to be named to the holder of an exclusive lock, and again where that had no
/// effect; and to a lock that was adopted without one of its drives.
#[test]
fn a_lock_says_whether_the_vgs_drives_have_to_be_named() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    assert!(!a.awaits_drives(), "it is not held");
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
    assert!(!a.awaits_drives());
    assert_eq!(bench.run(&mut a, convert(X)), Outcome::Converted { complete: true });
    assert!(a.awaits_drives());
    spread(&mut bench, &mut a, &[]);
    assert!(a.awaits_drives(), "no drive was named");
    spread(&mut bench, &mut a, &[0, 1, 2]);
    assert!(!a.awaits_drives());
    for lacks in [false, true] {
        let (mut next, until) = (lv_lock(1), bench.now + SECOND * 20);
        bench.paths[0] = if lacks { Path::Cut } else { Path::Up };
        let request = in_mode(adopt(&bench, &[0, 1, 2], Some(until)), X);
        assert_eq!(bench.run(&mut next, request), Outcome::Adopted(X));
        assert_eq!(next.awaits_drives(), lacks);
        spread(&mut bench, &mut next, &[0, 1, 2]);
        assert!(!next.awaits_drives());
    }
}

/// Drive 2 did not answer when the lock became exclusive, and the VG becomes that drive alone. Its
/// record as a shared one does not stand for the exclusive lock, whose move has the time of a lease
/// as if there were no record: it is not over with the lease of that record.
#[test]
fn a_record_of_the_other_mode_does_not_shorten_the_time_of_a_move() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
    bench.paths[2] = Path::Cut;
    assert_eq!(bench.run(&mut a, convert(X)), Outcome::Converted { complete: true });
    spread(&mut bench, &mut a, &[0, 1, 2]);
    bench.pass(&mut a, SECOND * 40);
    spread(&mut bench, &mut a, &[2]);
    bench.pass(&mut a, SECOND * 30);
    assert!(believes(&bench, &a), "{:?}", events(&mut a));
    bench.paths[2] = Path::Up;
    assert!(moves_in_time(&mut bench, &mut a));
    assert_eq!(on(&a), [2]);
}

/// Drive 2 hides a move, and one of its REFRESHes is lost, so that its record may live longer than
/// its lease. Meanwhile drive 0, which was left, loses its state and does not answer the holder any
/// more. It does not keep out a host that knows only the old drives, and reaches 0 and 2.
#[test]
fn a_drive_that_was_left_and_reset_keeps_nobody_out() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    let begin = bench.now;
    let mut away = |command: &Command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Refresh)) => Fate::Instead(Status::Uncertain),
        (2, _) => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    };
    pass_with(&mut bench, &mut a, SECOND * 25, &mut away);
    let named = bench.members(&[2, 3, 4]);
    a.spread(&named, bench.now);
    pass_with(&mut bench, &mut a, SECOND, &mut away);
    let ready = is_ready(&mut a).expect("drives 3 and 4");
    assert!(a.move_votes(&ready, bench.now));
    bench.drives[0].reset();
    let mut is_reset = false;
    let left = (begin + LEASE + SECOND).since(bench.now);
    pass_with(&mut bench, &mut a, left, |command| match command.drive.0 {
        0 if !core::mem::replace(&mut is_reset, true) => Fate::Answered,
        0 => Fate::Instead(Status::Unreachable),
        _ => away(command),
    });
    assert!(is_reset);
    bench.paths[1] = Path::Cut;
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[0, 1, 2], &[]), GRANTED);
    assert_one_holder(&bench, &a, &b);
}

/// Drive 0 answered the acquisition only after the votes had moved away from it, so that it is
/// taken anew, and drive 2 hides the move longer than its lease. While drive 0 is unlocked for a
/// moment, it keeps nobody out.
#[test]
fn a_drive_that_was_left_and_is_unlocked_keeps_nobody_out() {
    let (mut bench, mut a) = (Bench::with(5, forgetful()), lv_lock(1));
    let begin = bench.now;
    a.request(acquire(&bench, X, &[0, 1, 2], &[3, 4]), bench.now).expect("in order");
    let late = pass_with(&mut bench, &mut a, SECOND * 25, |command| {
        match (command.drive.0, op(command)) {
            (0, _) => Fate::Open,
            (2, Some(MutexOp::Refresh)) => Fate::Instead(Status::Uncertain),
            _ => Fate::Answered,
        }
    });
    assert!(believes(&bench, &a) && late.len() == 1);
    let away = |command: &Command| match command.drive.0 {
        2 => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    };
    a.spread(&bench.members(&[2, 3, 4]), bench.now);
    pass_with(&mut bench, &mut a, SECOND, away);
    let ready = is_ready(&mut a).expect("drives 3 and 4");
    assert!(a.move_votes(&ready, bench.now));
    let left = (begin + SECOND * 38).since(bench.now);
    pass_with(&mut bench, &mut a, left, away);
    let answer = |bench: &mut Bench, a: &mut Lock, command: &Command| {
        let reply = bench.perform(command);
        a.on_reply(command.token, reply, bench.now);
    };
    answer(&mut bench, &mut a, &late[0]);
    // Its record is refreshed, and then read, which takes until the lease on drive 2 is over.
    let mut is_refreshed = false;
    let left = (begin + LEASE + SECOND).since(bench.now);
    let late =
        pass_with(&mut bench, &mut a, left, |command| match (command.drive.0, op(command)) {
            (0, None) if is_refreshed => Fate::Open,
            (0, kind) => {
                is_refreshed = kind == Some(MutexOp::Refresh);
                Fate::Answered
            }
            _ => away(command),
        });
    assert!(believes(&bench, &a), "drives 0 and 1 of the old ones");
    late.iter().for_each(|command| answer(&mut bench, &mut a, command));
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Unheard,
        _ => away(command),
    });
    bench.paths[1] = Path::Cut;
    assert_no_other_gets(&mut bench, &a, &[0, 1, 2]);
}

/// The noted time of a lock that was adopted without one of its drives is over. It is not regained,
/// so naming the VG's drives does not help it any more.
#[test]
fn a_lock_whose_noted_time_is_over_awaits_no_drives() {
    let mut bench = Bench::new(3);
    assert_eq!(take(&mut bench, &mut lv_lock(1), X, &[0, 1, 2], &[]), GRANTED);
    bench.paths[0] = Path::Cut;
    let until = bench.now + SECOND * 20;
    let (mut a, orphan) = (lv_lock(1), adopt(&bench, &[0, 1, 2], Some(until)));
    assert_eq!(bench.run(&mut a, in_mode(orphan, X)), Outcome::Adopted(X));
    bench.pass(&mut a, SECOND * 30);
    assert_eq!(a.safe_until(), Some(until));
    assert!(!a.awaits_drives());
}
