//! A host dies while a change to exclusive is under way that a sharer refuses.

mod bench;

use bench::*;
use idm_emulator::Profile;
use idm_engine::Outcome;

/// A and B share the lock. A counts drives 0 to 2, to which its votes have moved; B counts drive 0,
/// on which the LV lies. A's change to exclusive is refused on drive 0. Its lvmlockd dies when
/// drives 1 and 2 have changed, and drive 0 does not answer the next one.
fn a_sharer_and_a_change_that_was_not_finished(profile: Profile) {
    let (mut bench, mut first, mut b) = (Bench::with(3, profile), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut first, S, &[0], &[1, 2]), GRANTED);
    move_to(&mut bench, &mut first, &[0, 1, 2]);
    assert_eq!(take(&mut bench, &mut b, S, &[0], &[1, 2]), GRANTED);
    bench.pass(&mut first, SECOND * 5);
    bench.pass(&mut b, SECOND);
    assert_eq!(on(&first), [0, 1, 2]);
    first.request(convert(X), bench.now).expect("in order");
    for command in all_at_once(&bench, &mut first) {
        bench.perform(&command);
    }
    let safe_until = first.safe_until();
    drop(first);
    let mut a = lv_lock(1);
    bench.paths[0] = Path::Cut;
    let outcome = bench.run(&mut a, in_mode(adopt(&bench, &[0, 1, 2], safe_until), S));
    assert_eq!(outcome, Outcome::Adopted(S));
    assert!(believes(&bench, &b));
}

#[test]
fn an_unfinished_change_is_not_adopted_as_exclusive_beside_a_sharer() {
    a_sharer_and_a_change_that_was_not_finished(Profile::current());
}

#[test]
fn an_unfinished_change_is_not_adopted_as_exclusive_beside_a_sharer_without_marks() {
    a_sharer_and_a_change_that_was_not_finished(forgetful());
}

/// In real time: all drives answer, but drive 0 a little later than the others (more than the grace
/// of 100 ms).
#[test]
fn an_unfinished_change_beside_a_sharer_and_a_slow_drive() {
    let (mut bench, mut first, mut b) = (Bench::new(3), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut first, S, &[0], &[1, 2]), GRANTED);
    move_to(&mut bench, &mut first, &[0, 1, 2]);
    assert_eq!(take(&mut bench, &mut b, S, &[0], &[1, 2]), GRANTED);
    first.request(convert(X), bench.now).expect("in order");
    for command in all_at_once(&bench, &mut first) {
        bench.perform(&command);
    }
    let safe_until = first.safe_until();
    drop(first);
    let mut a = lv_lock(1);
    a.request(in_mode(adopt(&bench, &[0, 1, 2], safe_until), S), bench.now).expect("in order");
    bench.paths[0] = Path::Hung;
    bench.exchange(&mut a);
    bench.now = bench.now + SECOND / 5;
    a.on_timer(bench.now);
    assert_eq!(done(&mut a), Some(Outcome::Adopted(S)));
}
