//! What one life of lvmlockd leaves to the next: notes, and locks that are proven or not.

use super::recovery::SOON;
use super::*;

impl Bench {
    /// The next lvmlockd of host 1, which has no path to drive d0 any more.
    fn without_a_path(&self, lease: Duration) -> Host {
        let host = self.host_with_config(1, HostId::new([1; 16], "host1"), |mut config| {
            config.emulated.remove("/dev/d0");
            Config { lease, ..config }
        });
        host.manager.recover();
        host
    }
}

/// An orphan that nothing uses is being proven when its lockspace is stopped: the drive's answer
/// comes after the release was requested.
fn stopped_while_proving(bench: &Bench) -> Host {
    let a = bench.started(1, LONG);
    a.lock(1, lv_on(1, &["d2"]), Exclusive).unwrap();
    bench.control("hang d2 on");
    let a = bench.restart(a, 1, LONG);
    a.start(VG, bench.scope()).unwrap();
    // The next round of the care thread is under way.
    thread::sleep(Duration::from_millis(3500));
    a.manager.remove_lockspace(VG, false, true).unwrap();
    bench.control("hang d2 off");
    a
}

#[test]
fn an_orphan_that_is_given_up_while_it_is_proven_is_in_use_no_more() {
    let bench = Bench::new(3);
    let b = bench.started(2, LONG);
    let a = stopped_while_proving(&bench);
    eventually(SOON * 2, "it is released", || b.lock(1, lv_on(1, &["d2"]), Exclusive).is_ok());
    thread::sleep(Duration::from_secs(3));
    // No lock of this host is in use: this is what the watchdog and the next lvmlockd are told.
    let note = bench.safe_until(1);
    assert!(note.contains("vgs 0"), "no lock is in use, and yet: {note}");
    drop(a);
}

#[test]
fn a_restart_after_an_orphan_was_given_up_while_it_was_proven_kills_nothing() {
    let bench = Bench::new(3);
    let b = bench.started(2, LONG);
    let a = stopped_while_proving(&bench);
    eventually(SOON * 2, "it is released", || b.lock(1, lv_on(1, &["d2"]), Exclusive).is_ok());
    a.start(VG, bench.scope()).unwrap();
    a.lock(2, lv(2), Exclusive).unwrap();
    bench.activate(1, 2, true);
    thread::sleep(Duration::from_secs(2));
    // The drives answer late once, for a small part of the lease.
    for drive in &bench.drives {
        bench.control(&format!("hang {drive} on"));
    }
    let a = bench.restart(a, 1, LONG);
    thread::sleep(Duration::from_secs(8));
    for drive in &bench.drives {
        bench.control(&format!("hang {drive} off"));
    }
    assert_eq!(bench.killed(), "", "the lock is safe for most of a minute");
    drop(a);
}

/// The same restart without a stop in that moment does not kill either.
#[test]
fn a_restart_with_drives_that_are_late_once_kills_nothing() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    a.lock(2, lv(2), Exclusive).unwrap();
    bench.activate(1, 2, true);
    thread::sleep(Duration::from_secs(2));
    for drive in &bench.drives {
        bench.control(&format!("hang {drive} on"));
    }
    let a = bench.restart(a, 1, LONG);
    thread::sleep(Duration::from_secs(8));
    for drive in &bench.drives {
        bench.control(&format!("hang {drive} off"));
    }
    assert_eq!(bench.killed(), "");
    drop(a);
}

/// A host whose note of dates has no room, with LV 1 on a drive that stops to answer, and LV 2 on
/// another one; and the time when LV 1 was last confirmed.
fn with_a_missing_note(bench: &Bench) -> (Host, Instant) {
    let a = bench.host(1, LONG);
    bench.obstruct_dates(1);
    a.start(VG, bench.scope()).unwrap();
    a.lock(2, lv_on(2, &["d1"]), Exclusive).unwrap();
    bench.activate(1, 2, true);
    a.lock(1, lv_on(1, &["d0"]), Exclusive).unwrap();
    bench.activate(1, 1, true);
    let last = Instant::now();
    bench.control("hang d0 on");
    (a, last)
}

/// Sleeps until this time after `begin`.
fn until(begin: Instant, seconds: u64) {
    thread::sleep(Duration::from_secs(seconds).saturating_sub(begin.elapsed()));
}

/// A VG is started while one of its orphans is in danger and not renewed. The kill command failed
/// so far, because lvmlockd did not know the VG; it has to run for the lockspace that was started,
/// which gets no new locks.
#[test]
fn an_orphan_in_danger_is_told_of_to_the_lockspace_that_is_started() {
    const LEASE: Duration = Duration::from_secs(36);
    let bench = Bench::new(3);
    let script = format!("echo \"$0\" >> {}; exit 1", bench.kills().display());
    let fails = || {
        let words = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        bench.host_with_config(1, HostId::new([1; 16], "host1"), |config| Config {
            lease: LEASE,
            kill_command: Some(words.clone()),
            ..config
        })
    };
    let a = fails();
    a.start(VG, bench.scope()).unwrap();
    a.lock(1, lv_on(1, &["d0"]), Exclusive).unwrap();
    bench.activate(1, 1, true);
    drop(a);
    // Otherwise the lock would be put on the VG's other drives at once.
    std::fs::remove_dir_all(bench.state_dir(1).join("lockspaces")).unwrap();
    let a = fails();
    a.manager.recover();
    thread::sleep(Duration::from_secs(2));
    bench.control("hang d0 on");
    // 6.6 s before the lock may be lost; then once in 0.6 s.
    eventually(LEASE, "the kill command", || bench.killed().lines().count() == 2);
    a.start(VG, bench.scope()).unwrap();
    assert_eq!(a.lock(2, lv_on(2, &["d1"]), Exclusive), Err(Error::Killed));
    drop(a);
}

/// While it cannot be told what is active, every orphan counts as active (docs/locking.md): one
/// that cannot be proven in time has its VG killed.
fn unproven(readable: bool) {
    const LEASE: Duration = Duration::from_secs(6);
    let bench = Bench::new(3);
    let a = bench.started(1, LEASE);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    for drive in &bench.drives {
        bench.control(&format!("hang {drive} on"));
    }
    drop(a);
    let block = bench.sysfs(1).join("block");
    let a = bench.host(1, LEASE);
    if !readable {
        // As with EMFILE.
        std::fs::rename(&block, bench.sysfs(1).join("away")).unwrap();
        std::fs::write(&block, "no directory").unwrap();
    }
    a.manager.recover();
    let begin = Instant::now();
    while begin.elapsed() < LEASE && bench.killed().is_empty() {
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(bench.killed(), "vg0\n", "its lease is over");
    drop(a);
}

#[test]
fn an_orphan_that_is_not_proven_in_time_kills_where_devices_can_be_read() {
    unproven(true);
}

#[test]
fn an_orphan_that_is_not_proven_in_time_kills_where_devices_cannot_be_read() {
    unproven(false);
}

/// The note of a life promises for an orphan that it could not prove what only its proven locks
/// have, and the life after it believes that. Another host reaches the drive: this host, which does
/// not, has LV 1 active when the other one gets its lock, and was not stopped before.
#[test]
fn an_lv_in_use_is_not_given_to_another_host_before_its_vg_is_killed() {
    let bench = Bench::new(3);
    let b = bench.started(2, LONG);
    let (a, last) = with_a_missing_note(&bench);
    until(last, 28);
    drop(a);
    bench.obstruct_no_more(1);
    bench.control("hang d0 off");
    // From now on this host has no path to the drive.
    let a = bench.without_a_path(LONG);
    until(last, 41);
    assert_eq!(bench.killed(), "");
    drop(a);
    let a = bench.without_a_path(LONG);
    eventually(LONG, "the other host gets it", || b.lock(1, lv_on(1, &["d0"]), Exclusive).is_ok());
    let taken = last.elapsed();
    assert_eq!(bench.killed(), "vg0\n", "active here, and taken by another host after {taken:?}");
    drop(a);
}

/// Two locks are taken, and lvmlockd is killed before the note of dates names their VG. The next
/// life proves one of them, and is killed before the alarm for the other one.
#[test]
fn a_lock_that_was_taken_just_before_a_death_is_not_promised_for_by_another_one() {
    let uuid = VG_UUID.replace("wxyz", "wxy1");
    let taken_just_before = || {
        let bench = Bench::new(3);
        let a = bench.started(1, LONG);
        let other = LockspaceKey(0x3000);
        let scope =
            Scope::Vg { name: "vg1".into(), uuid: uuid.clone(), pvs: bench.paths()[1..].to_vec() };
        a.start(other, scope).unwrap();
        a.manager.lock(other, ResourceKey(9), lv(9), Exclusive, Adopt::default()).unwrap();
        // LVs of the other VG are in use, so that the writer of the note is not idle.
        bench.activate_in(&uuid, 1, 9, true);
        eventually(SOON, "the other VG's date is noted", || bench.safe_until(1).contains("vgs 1"));
        a.lock(2, lv_on(2, &["d1"]), Exclusive).unwrap();
        a.lock(1, lv_on(1, &["d0"]), Exclusive).unwrap();
        let last = Instant::now();
        drop(a);
        bench.activate(1, 2, true);
        bench.activate(1, 1, true);
        bench.safe_until(1).contains("vgs 1").then_some((bench, last))
    };
    let (bench, last) = (0..20).find_map(|_| taken_just_before()).unwrap();
    // From now on this host has no path to the drive of LV 1.
    let a = bench.without_a_path(LONG);
    until(last, 33);
    assert_eq!(bench.killed(), "");
    drop(a);
    let a = bench.without_a_path(LONG);
    // At 48.8 s a living lvmlockd would have run it.
    until(last, 50);
    assert_eq!(bench.killed(), "vg0\n", "the kill command has less than its 10 s");
    drop(a);
}

/// lvmlockd is started again while one of three drives is there, or has disappeared, or hangs.
fn restarted_with_a_drive_less(hangs: bool) {
    const LEASE: Duration = Duration::from_secs(8);
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    drop(a);
    let a = if hangs {
        bench.control("hang d0 on");
        bench.next_life(1, LEASE)
    } else {
        bench.without_a_path(LEASE)
    };
    thread::sleep(LEASE);
    is_held(b.lock(1, lv(1), Exclusive));
    assert_eq!(bench.killed(), "", "two of three drives have the lock, and answer");
    a.start(VG, bench.scope()).unwrap();
    a.lock(11, lv(1), Exclusive).unwrap();
}

#[test]
fn a_restart_while_one_of_three_drives_hangs_keeps_an_lv() {
    restarted_with_a_drive_less(true);
}

#[test]
fn a_restart_while_one_of_three_drives_is_missing_keeps_an_lv() {
    restarted_with_a_drive_less(false);
}

/// The same for a shared lock, until the date that allowed its adoption is over.
#[test]
fn a_restart_while_one_of_three_drives_hangs_keeps_a_shared_lv() {
    const LEASE: Duration = Duration::from_secs(8);
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    a.lock(1, lv(1), Shared).unwrap();
    bench.activate(1, 1, true);
    drop(a);
    bench.control("hang d0 on");
    let a = bench.next_life(1, LEASE);
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
    bench.obstruct_no_more(1);
    // The drive goes on hanging, so its lease cannot be renewed.
    let a = bench.next_life(1, LONG);
    thread::sleep(Duration::from_secs(1));
    drop(a);
    let since = last.elapsed();
    let end = uptime() - since.as_secs_f64() + LONG.as_secs_f64() + 1.0;
    let note = bench.safe_until(1);
    let dates = note.lines().filter_map(|line| line.split_once(" safe_until_us "));
    for (_, date) in dates {
        let date: f64 = date.parse::<f64>().unwrap() / 1e6;
        assert!(date <= end, "LV 1's lease ends {} s before the promised date", date - end);
    }
}
