//! Red tests of a hostile reader (r7).

mod bench;

use bench::*;
use core::time::Duration;
use idm_engine::{Event, Outcome, Request};

const SECOND: Duration = Duration::from_secs(1);

/// A membership has no value, is adopted like an LV's lock, and nobody names drives to it again
/// before the VG is started: `spread_again` names drives to LVs' locks only. One drive is dead.
#[test]
fn a_membership_that_two_of_three_drives_prove_is_kept_until_the_vg_is_started() {
    let mut bench = Bench::new(3);
    let mut first = lv_lock(1);
    assert_eq!(take(&mut bench, &mut first, S, &[0, 1, 2], &[]), GRANTED);
    bench.pass(&mut first, SECOND * 30);
    bench.paths[2] = Path::Cut;
    bench.pass(&mut first, SECOND * 5);
    let safe_until = first.safe_until();
    drop(first);
    bench.now = bench.now + SECOND;
    let mut next = lv_lock(1);
    let (members, witnesses) = (bench.members(&[0, 1, 2]), Vec::new());
    // The note of a lock on three drives does not say whether it was granted.
    let orphan = Request::Adopt { mode: None, safe_until, granted: false, members, witnesses };
    assert_eq!(bench.run(&mut next, orphan), Outcome::Adopted(S));
    // The VG is not started for two minutes; both drives go on answering.
    bench.pass(&mut next, LEASE * 2);
    assert!(!events(&mut next).contains(&Event::Lapsed), "it lapses though two of three have it");
    assert!(believes(&bench, &next));
}

/// What such a lapse leaves: it cannot be regained, and no drive is taken any more.
#[test]
fn such_a_membership_follows_the_vg_when_that_is_started() {
    let mut bench = Bench::new(5);
    let mut first = lv_lock(1);
    assert_eq!(take(&mut bench, &mut first, S, &[0, 1, 2], &[]), GRANTED);
    bench.paths[2] = Path::Cut;
    bench.pass(&mut first, SECOND * 35);
    let safe_until = first.safe_until();
    drop(first);
    bench.now = bench.now + SECOND;
    let mut next = lv_lock(1);
    let (members, witnesses) = (bench.members(&[0, 1, 2]), Vec::new());
    let orphan = Request::Adopt { mode: None, safe_until, granted: false, members, witnesses };
    assert_eq!(bench.run(&mut next, orphan), Outcome::Adopted(S));
    bench.pass(&mut next, LEASE * 2);
    bench.paths[2] = Path::Up;
    bench.pass(&mut next, LEASE * 2);
    // The VG is started with new drives.
    travel(&mut bench, &mut next, &[2, 3, 4]);
    bench.pass(&mut next, LEASE);
    assert_eq!(on(&next), [2, 3, 4]);
}

/// A drive of the acquisition left the VG and comes back; then it hangs. It was given back there, so
/// no record with the old mark can be on it.
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

/// An LV lock on two drives of a VG of three, one of them dead; spread_again names the VG's drives.
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
                mode: Some(X),
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
