//! Red tests of a hostile reader (r7): restarts of a host with one drive of three that hangs.

use super::lives::{in_the_way, until, with_a_missing_note};
use super::*;

/// The same as `a_restart_while_one_of_three_drives_hangs_keeps_an_lv`, for a shared lock: the
/// reactor drops what `spread_again` names, because the lock is on these drives.
#[test]
fn a_restart_while_one_of_three_drives_hangs_keeps_a_shared_lv() {
    const LEASE: Duration = Duration::from_secs(8);
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    a.lock(1, lv(1), Shared).unwrap();
    bench.activate(1, 1, true);
    drop(a);
    bench.control("hang d0 on");
    let a = bench.host(1, LEASE);
    a.manager.recover();
    thread::sleep(LEASE * 2);
    is_held(b.lock(1, lv(1), Exclusive));
    assert_eq!(bench.killed(), "", "two of three drives have the lock, and answer");
    drop(a);
}

/// The note of dates was missing when lvmlockd died. The next life must not write a later date than
/// that of the locks, because the life after that adopts with it.
#[test]
fn a_life_without_a_note_promises_nothing_to_the_next_one() {
    let bench = Bench::new(3);
    let (a, last) = with_a_missing_note(&bench);
    until(last, 28);
    drop(a);
    std::fs::remove_dir(in_the_way(&bench)).unwrap();
    // The drive goes on hanging, so its lease cannot be renewed.
    let a = bench.host(1, LONG);
    a.manager.recover();
    thread::sleep(Duration::from_secs(1));
    drop(a);
    let since = last.elapsed();
    let up = std::fs::read_to_string("/proc/uptime").unwrap();
    let up: f64 = up.split(' ').next().unwrap().parse().unwrap();
    let end = up - since.as_secs_f64() + LONG.as_secs_f64() + 1.0;
    let note = bench.safe_until(1);
    let dates = note.lines().filter_map(|line| line.split_once(" safe_until_us "));
    for (_, date) in dates {
        let date: f64 = date.parse::<f64>().unwrap() / 1e6;
        assert!(date <= end, "LV 1's lease ends {} s before the promised date", date - end);
    }
}
