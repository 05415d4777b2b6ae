//! Commands of a killed lvmlockd that are on their way to the drives undo no lock that the next one
//! believes it holds.

use super::recovery::SOON;
use super::*;

/// A lease with which commands that take [`SLOW`] are not given up, and a drive has a quarter of it
/// to carry out the commands that were left.
const LEASE: Duration = Duration::from_secs(32);
/// Time that drives take while lvmlockd is killed: longer than core waits for an unlock.
const SLOW: Duration = Duration::from_secs(3);
/// A time longer than core waits for a conversion.
const VERY_SLOW: Duration = Duration::from_millis(6500);

impl Bench {
    /// Runs `work` on a host, kills lvmlockd while its commands are on their way to the drives, and
    /// starts it again.
    fn killed_after(&self, a: Host, slow: Duration, work: impl FnOnce(&Host)) -> (Host, Instant) {
        self.slow_down(slow);
        let sent = Instant::now();
        work(&a);
        assert!(sent.elapsed() < slow, "its commands have been answered");
        drop(a);
        self.slow_down(Duration::ZERO);
        let a = self.host(1, LEASE);
        a.manager.recover();
        (a, sent)
    }

    fn slow_down(&self, by: Duration) {
        for drive in &self.drives {
            self.control(&format!("delay {drive} {}", by.as_millis()));
        }
    }
}

/// Whether a host gets the first LV before `end`.
fn gets(host: &Host, mode: Mode, end: Instant) -> bool {
    while Instant::now() < end {
        if host.lock(1, lv(1), mode).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

fn killed_while_unlocking(drives: usize) {
    let bench = Bench::new(drives);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Exclusive).unwrap();
    bench.activate(1, 2, true);
    let (a, sent) = bench.killed_after(a, SLOW, |a| a.unlock(1));
    let theirs = thread::scope(|scope| {
        let theirs = scope.spawn(|| gets(&b, Exclusive, sent + 2 * SLOW));
        a.start(VG, bench.scope()).unwrap();
        let _ = a.lock(1, lv(1), Exclusive);
        theirs.join().unwrap()
    });
    // A repeated request shows whether a resource still holds its lock.
    let ours = a.lock(1, lv(1), Exclusive).is_ok();
    assert!(!(ours && theirs), "both hosts hold LV 1 exclusively");
    if theirs {
        b.unlock(1);
    }
    eventually(SOON, "this host gets it in the end", || a.lock(1, lv(1), Exclusive).is_ok());
    is_held(b.lock(1, lv(1), Shared));
    // Locks in use were kept all the time, and there was no alarm.
    is_held(b.lock(2, lv(2), Shared));
    a.lock(2, lv(2), Exclusive).unwrap();
    assert_eq!(bench.killed(), "");
}

#[test]
fn killed_while_unlocking_on_one_drive() {
    killed_while_unlocking(1);
}

#[test]
fn killed_while_unlocking_on_three_drives() {
    killed_while_unlocking(3);
}

#[test]
fn killed_while_a_lock_becomes_shared() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    let (a, sent) = bench.killed_after(a, VERY_SLOW, |a| {
        a.manager.convert(ResourceKey(1), Shared, 0).unwrap();
    });
    a.start(VG, bench.scope()).unwrap();
    let ours = a.lock(11, lv(1), Exclusive);
    let theirs = gets(&b, Shared, sent + 2 * VERY_SLOW);
    assert!(!(ours.is_ok() && theirs), "one host has LV 1 exclusively, the other shared");
    if theirs {
        b.unlock(1);
    }
    eventually(SOON, "exclusive in the end", || a.lock(11, lv(1), Exclusive).is_ok());
    is_held(b.lock(1, lv(1), Shared));
    assert_eq!(bench.killed(), "");
}

#[test]
fn a_request_that_would_have_to_wait_for_too_long_is_told_for_how_long() {
    let bench = Bench::new(3);
    let global = |host: &Host| host.lock(1, Resource::Global, Exclusive);
    let a = bench.host(1, LONG);
    a.start(GLOBAL, Scope::Global).unwrap();
    let (locked, took) = timed(|| global(&a));
    locked.unwrap();
    assert!(took < Duration::from_secs(1), "there was no earlier one: {took:?}");
    a.unlock(1);
    drop(a);
    let a = bench.host(1, LONG);
    a.start(GLOBAL, Scope::Global).unwrap();
    let (refused, took) = timed(|| global(&a));
    let text = refused.as_ref().unwrap_err().to_string();
    assert!(text.contains("commands of an earlier lvmlockd") && text.contains(" s;"), "{text}");
    is_held(refused);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn after_an_orderly_end_nothing_is_waited_for() {
    for hangs in [false, true] {
        let bench = Bench::new(3);
        let global = |host: &Host| host.lock(1, Resource::Global, Exclusive);
        let a = bench.host(1, LONG);
        a.start(GLOBAL, Scope::Global).unwrap();
        global(&a).unwrap();
        if hangs {
            bench.control("hang d2 on");
        }
        a.unlock(1);
        a.manager.end();
        drop(a);
        let a = bench.host(1, LONG);
        a.start(GLOBAL, Scope::Global).unwrap();
        let locked = global(&a);
        if hangs {
            // An UNLOCK had no answer.
            is_held(locked);
        } else {
            locked.unwrap();
        }
    }
}

/// No lock is given up, no mode changes, and all drives answer. The refresh of a shared lock is
/// noted, but this concerns only locks that the next life makes exclusive.
#[test]
fn a_quiet_host_notes_nothing_that_undoes() {
    const LEASE: Duration = Duration::from_secs(6);
    let bench = Bench::new(3);
    let a = bench.started(1, LEASE);
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Shared).unwrap();
    let file = bench.state_dir(1).join("undoing-until");
    let noted = |kind: &str| {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = format!("{kind}_until_us ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
    };
    // Every lock has been refreshed.
    thread::sleep(LEASE * 2 / 3);
    assert_eq!((noted("lvs"), noted("others")), (0, 0));
    assert_ne!(noted("exclusive"), 0);
    a.unlock(1);
    assert_ne!(noted("lvs"), 0);
}

/// The kill command takes a large part of the lease: a lock that had to wait for a quarter of the
/// lease would be proven too late. VGs' locks are given up until the end, and no LV's lock is.
#[test]
fn a_restart_of_a_healthy_host_kills_nothing() {
    let bench = Bench::new(3);
    let fencing = FencingConfig { kill_time: Some(Duration::from_secs(12)), watchdog: None };
    let host = || bench.host_with_fencing(1, 1, LEASE, fencing);
    let a = host();
    a.start(VG, bench.scope()).unwrap();
    for number in 1..=20 {
        a.lock(number, lv(number), [Shared, Exclusive][number % 2]).unwrap();
        bench.activate(1, number, true);
    }
    // The locks have been refreshed, and not just now.
    thread::sleep(LEASE / 2 + Duration::from_secs(1));
    a.lock(77, Resource::Vg, Exclusive).unwrap();
    a.unlock(77);
    drop(a);
    let a = host();
    a.manager.recover();
    thread::sleep(LEASE / 4 + Duration::from_secs(1));
    assert_eq!(bench.killed(), "");
    a.start(VG, bench.scope()).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
}

/// Nothing proves that the holder is an earlier boot of this host, so the lock is not taken over.
#[test]
fn a_reboot_within_the_lease_is_refused_and_told_how_long() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    drop(a);
    std::fs::remove_dir_all(bench.state_dir(1)).unwrap();
    let a = bench.rebooted(1, SHORT);
    a.start(VG, bench.scope()).unwrap();
    let refused = a.lock(1, lv(1), Exclusive);
    let text = refused.as_ref().unwrap_err().to_string();
    for part in ["host1", "has the name of this host", "if that was an earlier boot", "within 2 s"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    is_held(refused);
    eventually(3 * SHORT, "it is free after the lease", || a.lock(1, lv(1), Exclusive).is_ok());
    // No other host gets this hint.
    let text = b.lock(1, lv(1), Exclusive).unwrap_err().to_string();
    assert!(text.contains("host1") && !text.contains("the name of this host"), "{text}");
}
