//! States in which tests begin, and the results that they check.

use super::*;
use idm_protocol::ValueUpdate;

/// Drives with a value that was published by a host that released the lock.
pub fn with_a_value(drives: u32) -> (Bench, Vec<u32>) {
    with_a_value_on(Bench::new(drives as usize))
}

pub fn with_a_value_on(mut bench: Bench) -> (Bench, Vec<u32>) {
    let all: Vec<u32> = (0..bench.drives.len() as u32).collect();
    let mut first = vg_lock(9);
    take(&mut bench, &mut first, X, &all, &[]);
    bench.run(&mut first, Request::Release { value: Some(value(7)) });
    bench.log.clear();
    (bench, all)
}

pub fn known(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Granted(ValueRead::Known(value)) => Some(value.get()),
        _ => None,
    }
}

/// The values in the UNLOCKs of a release: a value to store, or none.
pub fn published(bench: &mut Bench, lock: &mut Lock, value: Option<Value>) -> Vec<Option<u64>> {
    lock.request(Request::Release { value }, bench.now).expect("always in order");
    let mut stored = Vec::new();
    exchange_with(bench, lock, |command| {
        if let DriveCommand::Mutex(MutexOp::Unlock, record) = &command.command {
            let stores = record.value_update == ValueUpdate::Store;
            stored.push(stores.then_some(record.value.get()));
        }
        Fate::Answered
    });
    stored
}

/// A lock on some of the drives, whose other drives are witnesses.
pub fn held_on(drives: &[u32], of: u32, profile: Profile) -> (Bench, Lock) {
    let mut bench = Bench::with(of as usize, profile);
    let mut a = lv_lock(1);
    let others: Vec<u32> = (0..of).filter(|drive| !drives.contains(drive)).collect();
    assert_eq!(take(&mut bench, &mut a, X, drives, &others), GRANTED);
    (bench, a)
}

/// An LV's lock that was put on the VG's three drives by a host that died. The next holder broke
/// it on all of them, so that its records there name the LV's drive only.
pub fn after_a_dead_host(mode: Mode, profile: Profile) -> (Bench, Lock) {
    let (mut bench, mut dead) = (Bench::with(3, profile), lv_lock(3));
    assert_eq!(take(&mut bench, &mut dead, X, &[0], &[1, 2]), GRANTED);
    move_to(&mut bench, &mut dead, &[0, 1, 2]);
    drop(dead);
    bench.now = bench.now + LEASE * 2;
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, mode, &[0], &[1, 2]), GRANTED);
    (bench, a)
}

/// A lock with the votes of all of the VG's three drives, of which drive 2 has not answered for
/// longer than a lease.
pub fn without_drive_2(drives: usize) -> (Bench, Lock) {
    let (mut bench, mut a) = (Bench::new(drives), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    spread(&mut bench, &mut a, &[0, 1, 2]);
    bench.paths[2] = Path::Cut;
    bench.pass(&mut a, LEASE + SECOND * 5);
    assert!(believes(&bench, &a));
    (bench, a)
}

/// Firmware whose REFRESH stores no mark.
pub fn forgetful() -> Profile {
    Profile { refresh_stores_metadata: false, ..Profile::current() }
}

pub fn refs(drives: &[u32]) -> Vec<DriveRef> {
    drives.iter().map(|&drive| DriveRef(drive)).collect()
}

/// Votes of a lock on drives 0 to 2 move, one list after the other, while drive 2 does not answer
/// its holder. A host that knows the first list and reaches all drives does not get the lock.
pub fn hidden_on_drive_2(lists: &[&[u32]]) {
    for mode in [X, S] {
        let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
        assert_eq!(take(&mut bench, &mut a, mode, &[0, 1, 2], &[3, 4]), GRANTED);
        bench.paths[2] = Path::Cut;
        for list in lists {
            move_to(&mut bench, &mut a, list);
        }
        bench.paths[2] = Path::Up;
        assert_no_other_gets(&mut bench, &a, &[0, 1, 2]);
    }
}
