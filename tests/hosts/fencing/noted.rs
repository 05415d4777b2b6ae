//! The note of a lockspace, and an orphaned membership that is given up while the lockspace starts.

use super::super::recovery::SOON;
use super::*;
use std::thread;
use std::time::Instant;

/// Whether the note of the VG's lockspace is there after a start that began so long after the
/// restart of lvmlockd.
fn noted_after_start(offset: Duration) -> (bool, Duration) {
    let bench = bench_of("current");
    drop(bench.registered(1));
    let a = bench.known(1, true);
    a.manager.recover();
    let found = Instant::now();
    thread::sleep(offset);
    for drive in &bench.drives {
        bench.control(&format!("delay {drive} 150"));
    }
    a.start(VG, bench.known_scope()).unwrap();
    let took = found.elapsed();
    thread::sleep(Duration::from_secs(2));
    let lockspaces = bench.state_dir(1).join("lockspaces");
    (std::fs::read_dir(lockspaces).unwrap().count() == 1, took)
}

#[test]
fn a_lockspace_that_is_started_is_noted_whenever_its_old_membership_is_given_up() {
    let offsets =
        (0..16).map(|n| LEASE - Duration::from_millis(800) + Duration::from_millis(150 * n));
    let runs: Vec<_> =
        offsets.map(|offset| (offset, thread::spawn(move || noted_after_start(offset)))).collect();
    let results: Vec<_> = runs.into_iter().map(|(at, run)| (at, run.join().unwrap())).collect();
    assert!(results.iter().all(|(_, (noted, _))| *noted), "{results:?}");
}

/// The next lvmlockd does not know the name of the VG, so the kill command is run for a name that
/// no VG has.
#[test]
fn the_vg_that_is_killed_is_named_by_its_name() {
    let bench = bench_of("current");
    drop(bench.registered(1));
    let a = bench.known(1, true);
    a.manager.recover();
    thread::sleep(LEASE - Duration::from_millis(200));
    for drive in &bench.drives {
        bench.control(&format!("delay {drive} 150"));
    }
    a.start(VG, bench.known_scope()).unwrap();
    for drive in &bench.drives {
        bench.control(&format!("delay {drive} 0"));
    }
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    drop(a);
    for drive in &bench.drives {
        bench.control(&format!("hang {drive} on"));
    }
    let a = bench.known(1, true);
    a.manager.recover();
    eventually(SOON, "the kill command", || !bench.killed().is_empty());
    assert_eq!(bench.killed(), "vg0\n");
    drop(a);
}
