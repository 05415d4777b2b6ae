//! A request that fails does not give back a lock that may be in use.

use super::recovery::SOON;
use super::*;

/// A lease in which drives may hang for some seconds without an alarm.
const LEASE: Duration = Duration::from_secs(40);

/// The first LV, on the first drive alone.
fn on_one_drive() -> Resource {
    match lv(1) {
        Resource::Lv { uuid, .. } => Resource::Lv { uuid, pvs: vec!["/dev/d0".into()] },
        other => other,
    }
}

/// A host that was started again while an LV is active whose lock its drive cannot prove.
/// A shared one would be on the VG's other drives as well.
fn with_unproven_orphan(bench: &Bench) -> Host {
    let a = bench.started(1, LEASE);
    a.lock(1, on_one_drive(), Exclusive).unwrap();
    bench.activate(1, 1, true);
    bench.control("hang d0 on");
    let a = bench.restart(a, 1, LEASE);
    a.start(VG, bench.scope()).unwrap();
    a
}

/// Lets the drive answer again, and waits until `key` can get the orphan; meanwhile another host
/// never gets it.
fn proven_at_last(bench: &Bench, a: &Host, b: &Host, (key, mode): (usize, Mode)) {
    bench.control("hang d0 off");
    let begin = Instant::now();
    while begin.elapsed() < SOON / 2 {
        is_held(b.lock(1, on_one_drive(), Exclusive));
        thread::sleep(Duration::from_millis(50));
    }
    eventually(SOON, "the orphan is proven", || a.lock(key, on_one_drive(), mode).is_ok());
    is_held(b.lock(1, on_one_drive(), Exclusive));
    assert_eq!(bench.killed(), "");
}

#[test]
fn asking_for_an_orphan_that_is_not_proven_does_not_give_it_up() {
    let bench = Bench::new(3);
    let b = bench.started(2, LEASE);
    let a = with_unproven_orphan(&bench);
    let noted = bench.noted(1);
    // Neither in the mode that was left, nor in the other mode.
    for mode in [Shared, Exclusive] {
        let (refused, took) = timed(|| a.lock(11, on_one_drive(), mode));
        let text = refused.as_ref().unwrap_err().to_string();
        assert!(text.contains("000001") && text.contains("d0"), "{text}");
        is_storage(refused);
        assert!(took < Duration::from_secs(11), "{took:?}");
        assert_eq!(bench.noted(1), noted);
    }
    proven_at_last(&bench, &a, &b, (11, Exclusive));
    bench.activate(1, 1, false);
    a.unlock(11);
    b.lock(1, on_one_drive(), Exclusive).unwrap();
}

/// Each request keeps the orphan busy, so that the care for orphans hardly ever finds it idle.
#[test]
fn asking_for_an_orphan_again_and_again_does_not_put_off_the_alarm() {
    let bench = Bench::new(3);
    let asked = Instant::now();
    let a = with_unproven_orphan(&bench);
    // The kill command needs the rest of the lease.
    let in_time = || assert!(asked.elapsed() < LEASE * 4 / 5, "{:?}", asked.elapsed());
    while bench.killed() != "vg0\n" {
        in_time();
        assert!(a.lock(11, on_one_drive(), Exclusive).is_err());
    }
    in_time();
}

/// A request waits for the drives, for 5 s at the longest, when the alarm has to be raised, and the
/// drive answers again in that time.
#[test]
fn a_request_that_is_about_to_prove_an_orphan_puts_the_alarm_off() {
    let bench = Bench::new(3);
    let begin = Instant::now();
    let until = |ms| thread::sleep(Duration::from_millis(ms).saturating_sub(begin.elapsed()));
    let a = with_unproven_orphan(&bench);
    until(20_300);
    thread::scope(|scope| {
        scope.spawn(|| {
            until(24_500);
            bench.control("hang d0 off");
        });
        a.lock(11, on_one_drive(), Exclusive).unwrap();
    });
    assert_eq!(bench.killed(), "");
}

/// A command that changes an active LV locks it only while the command runs: after a restart core
/// does not know that the LV's lock was held before.
#[test]
fn a_command_on_an_active_lv_does_not_give_up_its_orphan() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    for (number, mode) in [(1, Exclusive), (2, Shared)] {
        a.lock(number, lv(number), mode).unwrap();
        bench.activate(1, number, true);
    }
    let a = bench.restart(a, 1, LEASE);
    a.start(VG, bench.scope()).unwrap();
    for number in [1, 2] {
        a.lock(10 + number, lv(number), Exclusive).unwrap();
        a.unlock(10 + number);
        is_held(b.lock(number, lv(number), Shared));
    }
    // A second restart finds them as well, and a request gets them.
    let a = bench.restart(a, 1, LEASE);
    a.start(VG, bench.scope()).unwrap();
    is_held(b.lock(1, lv(1), Shared));
    a.lock(11, lv(1), Exclusive).unwrap();
    // Now core gives it up with the LV.
    bench.activate(1, 1, false);
    a.unlock(11);
    b.lock(1, lv(1), Exclusive).unwrap();
    is_held(b.lock(2, lv(2), Shared));
    assert_eq!(bench.killed(), "");
}

#[test]
fn stopping_a_lockspace_does_not_give_up_what_is_being_proven() {
    let bench = Bench::new(3);
    let b = bench.started(2, LEASE);
    let a = with_unproven_orphan(&bench);
    thread::scope(|scope| {
        scope.spawn(|| is_storage(a.lock(11, on_one_drive(), Exclusive)));
        thread::sleep(Duration::from_millis(300));
        assert_eq!(a.manager.remove_lockspace(VG, false, true), Err(Error::Busy));
        a.manager.remove_lockspace(VG, false, false).unwrap();
    });
    a.start(VG, bench.scope()).unwrap();
    proven_at_last(&bench, &a, &b, (12, Exclusive));
}

#[test]
fn an_orphan_is_proven_by_the_request_that_asks_for_it() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    for number in 1..=3 {
        a.lock(number, lv(number), Exclusive).unwrap();
    }
    drop(a);
    // Before anything else handles the orphans.
    let a = bench.host(1, LONG);
    a.start(VG, bench.scope()).unwrap();
    let (locked, took) = timed(|| a.lock(11, lv(1), Shared));
    locked.unwrap();
    assert!(took < Duration::from_secs(2), "{took:?}");
    b.lock(1, lv(1), Shared).unwrap();
    a.lock(12, lv(2), Exclusive).unwrap();
    is_held(b.lock(3, lv(3), Exclusive));
}

#[test]
fn what_core_forgets_is_kept_while_its_lv_is_active() {
    let bench = Bench::new(3);
    let lease = Duration::from_millis(2400);
    let (a, b) = (bench.started(1, lease), bench.started(2, lease));
    for number in [1, 2] {
        a.lock(number, lv(number), Exclusive).unwrap();
        bench.activate(1, number, true);
    }
    a.manager.remove_resource(ResourceKey(1));
    // The address of the other resource is used again without notice.
    a.lock(2, lv(3), Exclusive).unwrap();
    let begin = Instant::now();
    while begin.elapsed() < 2 * lease {
        is_held(b.lock(1, lv(1), Shared));
        is_held(b.lock(2, lv(2), Shared));
        thread::sleep(lease / 8);
    }
    assert_eq!(a.manager.remove_lockspace(VG, false, true), Err(Error::Busy));
    a.lock(11, lv(1), Shared).unwrap();
    b.lock(1, lv(1), Shared).unwrap();
    bench.activate(1, 2, false);
    eventually(SOON, "given up when it is not active", || b.lock(2, lv(2), Exclusive).is_ok());
    assert_eq!(bench.killed(), "");
}

#[test]
fn a_lockspace_that_is_stopped_with_an_active_lv_leaves_its_lock() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Exclusive).unwrap();
    bench.activate(1, 1, true);
    // Before that, core unlocks all locks that it knows; it has forgotten this one.
    a.manager.remove_lockspace(VG, false, true).unwrap();
    eventually(SOON, "what is not active is free", || b.lock(2, lv(2), Exclusive).is_ok());
    is_held(b.lock(1, lv(1), Shared));
    a.start(VG, bench.scope()).unwrap();
    a.lock(11, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, false);
    a.unlock(11);
    b.lock(1, lv(1), Exclusive).unwrap();
}

/// The command fails and ends after its VG was killed; the LV is still active, and the kill command
/// may still run.
#[test]
fn a_command_that_ends_in_a_killed_vg_does_not_give_up_its_active_lv() {
    const LEASE: Duration = Duration::from_secs(8);
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    let a = bench.restart(a, 1, LEASE);
    a.start(VG, bench.scope()).unwrap();
    eventually(SOON, "it is taken over", || a.lock(11, lv(1), Exclusive).is_ok());
    let hang = |state| {
        for drive in ["d0", "d1", "d2"] {
            bench.control(&format!("hang {drive} {state}"));
        }
    };
    hang("on");
    eventually(LEASE, "the VG is killed", || bench.killed() != "");
    a.unlock(11);
    hang("off");
    let begin = Instant::now();
    while begin.elapsed() < LEASE / 2 {
        is_held(b.lock(1, lv(1), Exclusive));
        thread::sleep(Duration::from_millis(100));
    }
}

/// The first VG's drive has been gone for so long that there is hardly time left for its kill
/// command when lvmlockd dies. The second VG's drive answers, but its locks are proven only after a
/// quarter of a lease.
#[test]
fn a_vg_in_trouble_has_no_other_vg_killed() {
    const LEASE: Duration = Duration::from_secs(32);
    const OTHER: LockspaceKey = LockspaceKey(0x3000);
    const OTHER_UUID: &str = "OTHERV-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
    let bench = Bench::new(2);
    let scope = |name: &str, uuid: &str, pv: &str| {
        let pvs = vec![format!("/dev/{pv}")];
        Scope::Vg { name: name.into(), uuid: uuid.into(), pvs }
    };
    let other = |host: &Host, key, number| {
        host.manager.lock(OTHER, ResourceKey(key), lv(number), Exclusive, Adopt::default())
    };
    let a = bench.host(1, LEASE);
    a.start(VG, scope("vg0", VG_UUID, "d0")).unwrap();
    a.start(OTHER, scope("vg1", OTHER_UUID, "d1")).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
    other(&a, 2, 2).unwrap();
    other(&a, 3, 3).unwrap();
    bench.activate(1, 1, true);
    bench.activate_in(OTHER_UUID, 1, 2, true);
    bench.control("power d0 off");
    thread::sleep(LEASE * 5 / 8);
    assert_eq!(bench.killed(), "", "it is not time yet");
    a.unlock(3);
    drop(a);
    let a = bench.next_life(1, LEASE);
    eventually(SOON, "the first VG is killed", || bench.killed().contains("vg0"));
    thread::sleep(LEASE / 4);
    assert_eq!(bench.killed(), "vg0\n");
    a.start(OTHER, scope("vg1", OTHER_UUID, "d1")).unwrap();
    other(&a, 12, 2).unwrap();
}
