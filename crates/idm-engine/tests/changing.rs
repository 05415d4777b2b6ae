//! The mode changes while the lock moves to the VG's drives. All drives answer.

mod bench;

use bench::*;
use idm_emulator::{Drive, Profile};
use idm_engine::{Lock, Outcome};

/// A change to exclusive must leave the lock, whether it succeeds or not.
fn survives_a_change(bench: &mut Bench, a: &mut Lock) {
    let before = a.safe_until();
    assert!(before > Some(bench.now + SECOND * 20), "{before:?}");
    a.request(convert(X), bench.now).expect("in order");
    let after = a.safe_until();
    bench.pass(a, SECOND * 30);
    let events = events(a);
    assert!(believes(bench, a), "{before:?} {after:?} {events:?} on {:?}", on(a));
}

/// The same in the moment when the list has been named.
fn survives_a_list_and_a_change(bench: &mut Bench, a: &mut Lock, list: &[u32]) {
    a.spread(&bench.members(list), bench.now);
    survives_a_change(bench, a);
}

/// lvmlockd dies when the votes have moved to drive 0, before drive 1 is given back. The next one
/// adopts the lock, and the VG is drive 1 by then. No command and no answer is lost.
fn after_an_adoption(profile: Profile) {
    let (mut bench, mut first) = (Bench::with(4, profile), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, S, &[0], &[1, 2]), GRANTED);
    move_to(&mut bench, &mut first, &[0, 1, 2]);
    bench.pass(&mut first, SECOND * 20);
    assert!(travel(&mut bench, &mut first, &[0]));
    let safe_until = first.safe_until();
    drop(first);
    let mut a = lv_lock(1);
    let orphan = adopt_beside(&bench, &[0], &[1], safe_until);
    assert_eq!(bench.run_only(&mut a, orphan), Outcome::Adopted(S));
    survives_a_list_and_a_change(&mut bench, &mut a, &[1]);
}

#[test]
fn a_change_after_an_adoption_costs_no_lock() {
    after_an_adoption(Profile::current());
}

#[test]
fn a_change_after_an_adoption_costs_no_lock_without_marks() {
    after_an_adoption(forgetful());
}

/// In one life: drive 2 has not answered for a while when the votes move to drives 2 to 4, so that
/// drives 0 and 1 keep the lock. Then the VG becomes drives 0 and 1.
fn among_drives_that_were_left(profile: Profile) {
    let (mut bench, mut a) = (Bench::with(5, profile), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[3, 4]), GRANTED);
    bench.paths[2] = Path::Cut;
    move_to(&mut bench, &mut a, &[2, 3, 4]);
    assert_eq!(on(&a), [0, 1, 3, 4]);
    bench.paths[2] = Path::Up;
    survives_a_list_and_a_change(&mut bench, &mut a, &[0, 1]);
}

#[test]
fn a_change_on_drives_that_were_left_costs_no_lock() {
    among_drives_that_were_left(Profile::current());
}

#[test]
fn a_change_on_drives_that_were_left_costs_no_lock_without_marks() {
    among_drives_that_were_left(forgetful());
}

/// No REFRESH stores a mark, and drive 3 is dead. A dead host was broken on drives 0 to 2, and
/// lvmlockd was restarted since. The VG is drives 1 to 3, of which 1 and 2 have to keep their
/// records without the mark for good; the change comes much later.
#[test]
fn a_change_on_drives_that_cannot_be_marked_costs_no_lock() {
    let (mut bench, first) = after_a_dead_host(S, forgetful());
    bench.drives.push(Drive::new(forgetful()));
    bench.paths.push(Path::Cut);
    let safe_until = first.safe_until();
    drop(first);
    let mut a = lv_lock(1);
    let orphan = adopt_beside(&bench, &[0], &[1, 2], safe_until);
    assert_eq!(bench.run_only(&mut a, orphan), Outcome::Adopted(S));
    a.spread(&bench.members(&[1, 2, 3]), bench.now);
    bench.pass(&mut a, LEASE * 3);
    assert!(believes(&bench, &a));
    survives_a_change(&mut bench, &mut a);
}

/// A VG of drives 0 to 2 gets drives 3 and 4. lvmlockd dies when the lock was put on these, and
/// drive 0 does not answer the next one for a moment.
#[test]
fn a_change_after_an_extension_and_an_adoption_costs_no_lock() {
    for profile in [Profile::current(), forgetful()] {
        let (mut bench, mut first) = (Bench::with(5, profile), lv_lock(1));
        assert_eq!(take(&mut bench, &mut first, S, &[0, 1, 2], &[]), GRANTED);
        first.spread(&bench.members(&[0, 1, 2]), bench.now);
        bench.pass(&mut first, SECOND * 20);
        first.spread(&bench.members(&[0, 1, 2, 3, 4]), bench.now);
        bench.pass(&mut first, SECOND);
        let safe_until = first.safe_until();
        drop(first);
        let mut a = lv_lock(1);
        let orphan = adopt_beside(&bench, &[0, 1, 2], &[3, 4], safe_until);
        bench.paths[0] = Path::Cut;
        assert_eq!(bench.run_only(&mut a, orphan), Outcome::Adopted(S));
        bench.paths[0] = Path::Up;
        survives_a_list_and_a_change(&mut bench, &mut a, &[0, 1, 2, 3, 4]);
    }
}
