//! A lock that was granted as shared is adopted as shared, whatever an unfinished change left on
//! the drives.

mod bench;

use bench::*;
use idm_emulator::Profile;
use idm_engine::{Instant, Lock, Outcome};

/// Begins to make the lock exclusive, and lets these drives carry it out; then the host dies.
/// Returns the moment until which the lock was safe.
fn dies_while_it_changes(bench: &mut Bench, mut lock: Lock, on: &[u32]) -> Option<Instant> {
    lock.request(convert(X), bench.now).expect("in order");
    for command in all_at_once(bench, &mut lock) {
        if on.contains(&command.drive.0) {
            bench.perform(&command);
        }
    }
    lock.safe_until()
}

/// The next life adopts the lock at once and keeps it; a sharer is let in.
fn is_adopted(bench: &mut Bench, on: &[u32], others: &[u32], safe_until: Option<Instant>) {
    let mut a = lv_lock(1);
    let orphan = in_mode(adopt_beside(bench, on, others, safe_until), S);
    assert_eq!(bench.run(&mut a, orphan), Outcome::Adopted(S));
    let vg = [on, others].concat();
    a.spread(&bench.members(&vg), bench.now);
    bench.pass(&mut a, SECOND * 5);
    assert!(believes(bench, &a));
    assert_eq!(take(bench, &mut lv_lock(3), S, on, others), GRANTED);
}

/// A and B share the lock. A counts drives 0 to 2, to which its votes have moved; B counts drive 0,
/// on which the LV lies. A's change to exclusive is refused on drive 0; its lvmlockd dies when
/// drives 1 and 2 have changed. Returns B, and the moment until which A's lock was safe.
fn beside_a_sharer(profile: Profile) -> (Bench, Lock, Option<Instant>) {
    let (mut bench, mut first, mut b) = (Bench::with(3, profile), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut first, S, &[0], &[1, 2]), GRANTED);
    move_to(&mut bench, &mut first, &[0, 1, 2]);
    assert_eq!(take(&mut bench, &mut b, S, &[0], &[1, 2]), GRANTED);
    bench.pass(&mut first, SECOND * 5);
    bench.pass(&mut b, SECOND);
    assert_eq!(on(&first), [0, 1, 2]);
    let safe_until = dies_while_it_changes(&mut bench, first, &[0, 1, 2]);
    (bench, b, safe_until)
}

#[test]
fn a_sharer_that_refused_a_change_does_not_stop_the_adoption() {
    for profile in [Profile::current(), forgetful()] {
        let (mut bench, b, safe_until) = beside_a_sharer(profile);
        is_adopted(&mut bench, &[0, 1, 2], &[], safe_until);
        assert!(believes(&bench, &b));
    }
}

#[test]
fn an_unfinished_change_is_not_adopted_as_exclusive_beside_a_sharer_on_a_silent_drive() {
    for profile in [Profile::current(), forgetful()] {
        let (mut bench, b, safe_until) = beside_a_sharer(profile);
        bench.paths[0] = Path::Cut;
        let orphan = in_mode(adopt(&bench, &[0, 1, 2], safe_until), S);
        assert_eq!(bench.run(&mut lv_lock(1), orphan), Outcome::Adopted(S));
        assert!(believes(&bench, &b));
    }
}

/// Drive 0 answers a little later than the others (more than the grace of 100 ms).
#[test]
fn an_unfinished_change_is_not_adopted_as_exclusive_beside_a_sharer_on_a_slow_drive() {
    let (mut bench, _, safe_until) = beside_a_sharer(Profile::current());
    let mut a = lv_lock(1);
    let orphan = in_mode(adopt(&bench, &[0, 1, 2], safe_until), S);
    a.request(orphan, bench.now).expect("in order");
    bench.paths[0] = Path::Hung;
    bench.exchange(&mut a);
    bench.now = bench.now + SECOND / 5;
    a.on_timer(bench.now);
    assert_eq!(done(&mut a), Some(Outcome::Adopted(S)));
}

/// The change reached drives that carry the lock, but do not vote.
#[test]
fn a_change_on_drives_that_do_not_vote_yet_does_not_stop_the_adoption() {
    let (mut bench, mut first) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, S, &[0], &[1, 2]), GRANTED);
    spread(&mut bench, &mut first, &[0, 1, 2]);
    assert_eq!(on(&first), [0, 1, 2]);
    let safe_until = dies_while_it_changes(&mut bench, first, &[1, 2]);
    is_adopted(&mut bench, &[0], &[1, 2], safe_until);
}

/// The lock was exclusive; drive 1, which does not vote, did not hear that it became shared.
#[test]
fn a_drive_that_missed_the_change_to_shared_does_not_stop_the_adoption() {
    let (mut bench, mut first) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, X, &[0], &[1, 2]), GRANTED);
    spread(&mut bench, &mut first, &[0, 1, 2]);
    bench.pass(&mut first, SECOND * 5);
    bench.paths[1] = Path::Cut;
    assert_eq!(bench.run(&mut first, convert(S)), Outcome::Converted { complete: true });
    bench.paths[1] = Path::Up;
    is_adopted(&mut bench, &[0], &[1, 2], first.safe_until());
}

/// The host dies again right after an adoption, before drives 3 and 4 have become shared.
#[test]
fn what_was_just_adopted_can_be_adopted_again() {
    let (mut bench, mut first) = (Bench::new(5), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, S, &[0, 1, 2], &[3, 4]), GRANTED);
    spread(&mut bench, &mut first, &[0, 1, 2, 3, 4]);
    let safe_until = dies_while_it_changes(&mut bench, first, &[1, 2, 3, 4]);
    let mut second = lv_lock(1);
    let orphan = in_mode(adopt_beside(&bench, &[0, 1, 2], &[3, 4], safe_until), S);
    assert_eq!(bench.run_only(&mut second, orphan), Outcome::Adopted(S));
    exchange_with(&mut bench, &mut second, |command| match command.drive.0 {
        3 | 4 => Fate::Open,
        _ => Fate::Answered,
    });
    is_adopted(&mut bench, &[0, 1, 2], &[3, 4], second.safe_until());
}

/// Only drive 0 has the lock, with a mark, because drive 1 of the VG was silent for a while.
#[test]
fn a_marked_record_that_became_exclusive_is_still_the_shared_lock() {
    let (mut bench, mut first) = (Bench::new(2), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, S, &[0], &[1]), GRANTED);
    bench.paths[1] = Path::Cut;
    spread(&mut bench, &mut first, &[0, 1]);
    let safe_until = dies_while_it_changes(&mut bench, first, &[0]);
    bench.paths[1] = Path::Up;
    is_adopted(&mut bench, &[0], &[1], safe_until);
}

/// One of two drives was reset, and another sharer took it again first.
#[test]
fn a_sharer_alone_on_a_drive_that_was_reset_does_not_stop_the_adoption() {
    let (mut bench, mut first, mut b) = (Bench::new(2), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut first, S, &[0, 1], &[]), GRANTED);
    assert_eq!(take(&mut bench, &mut b, S, &[0, 1], &[]), GRANTED);
    bench.drives[1].reset();
    bench.pass(&mut b, SECOND * 25);
    assert_eq!(on(&b), [0, 1]);
    is_adopted(&mut bench, &[0, 1], &[], first.safe_until());
    assert!(believes(&bench, &b));
}

/// The same after the sharers' votes have moved, so that their records look like another set's.
#[test]
fn a_moved_sharer_alone_on_a_drive_that_was_reset_does_not_stop_the_adoption() {
    let (mut bench, mut first, mut b) = (Bench::new(2), lv_lock(1), lv_lock(2));
    for lock in [&mut first, &mut b] {
        assert_eq!(take(&mut bench, lock, S, &[0], &[1]), GRANTED);
        move_to(&mut bench, lock, &[0, 1]);
    }
    bench.drives[1].reset();
    bench.pass(&mut b, SECOND * 25);
    assert_eq!(on(&b), [0, 1]);
    is_adopted(&mut bench, &[0, 1], &[], first.safe_until());
    assert!(believes(&bench, &b));
}
