//! The state directory is lost while LVs are active.

use super::recovery::{SHORT, SOON};
use super::*;
use std::fs;

#[test]
fn what_is_lost_while_lvmlockd_lives_is_made_again() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Exclusive).unwrap();
    a.unlock(2);
    bench.activate(1, 1, true);
    let state = bench.state_dir(1);
    let read = |file: &str| fs::read_to_string(state.join(file)).ok();
    let id = read("host-id").unwrap();
    // With locks in use it is restored without a request, otherwise by the next request at the
    // latest.
    for by_itself in [true, false] {
        // Files that are written meanwhile have to be removed as well.
        eventually(SOON, "it is removed", || fs::remove_dir_all(&state).is_ok());
        if by_itself {
            let all = || bench.noted(1) == 2 && read("safe-until").is_some();
            eventually(SOON, "the notes are there again", all);
        } else {
            a.lock(3, lv(3), Exclusive).unwrap();
            assert_eq!(bench.noted(1), 3);
            a.unlock(3);
            assert!(read("undoing-until").is_some());
        }
        assert_eq!(read("host-id").as_ref(), Some(&id));
        assert!(read("leases").is_some(), "the next lvmlockd takes the default for the lease");
    }
    let a = bench.restart(a, 1, SHORT);
    let begin = Instant::now();
    while begin.elapsed() < 2 * SHORT {
        is_held(b.lock(1, lv(1), Shared));
        thread::sleep(SHORT / 8);
    }
    a.start(VG, bench.scope()).unwrap();
    a.lock(11, lv(1), Exclusive).unwrap();
    assert_eq!(bench.killed(), "");
}

#[test]
fn what_is_lost_while_lvmlockd_is_dead_leaves_no_lv_unprotected_in_silence() {
    let bench = Bench::new(3);
    let a = bench.started(1, SHORT);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    drop(a);
    fs::remove_dir_all(bench.state_dir(1)).unwrap();
    // Another id is drawn in this case.
    let a = bench.host_with_id(1, 3, SHORT);
    a.manager.recover();
    for adopt in [Adopt::default(), Adopt { only: false, ok: true }] {
        let refused = a.manager.prepare_lockspace(VG, bench.scope());
        let text = refused.as_ref().unwrap_err().to_string();
        assert!(text.contains("LVLVLV-0000-0000-0000-0000-0000-000001"), "{text}");
        assert!(text.contains("Deactivate"), "{text}");
        assert_eq!(a.manager.add_lockspace(VG, adopt), Err(Error::NoLockspace));
    }
    // Other VGs are not affected.
    let uuid = VG_UUID.replace("wxyz", "wxy1");
    let scope = Scope::Vg { name: "vg1".into(), uuid, pvs: bench.paths() };
    a.start(LockspaceKey(0x3000), scope).unwrap();
    bench.activate(1, 1, false);
    a.start(VG, bench.scope()).unwrap();
    // To this host the records of the old id belong to another host, and are broken after their
    // lease.
    eventually(SOON, "this host gets the lock", || a.lock(1, lv(1), Exclusive).is_ok());
    assert!(bench.states(1).contains("host3"), "{}", bench.states(1));
    let b = bench.started(2, SHORT);
    is_held(b.lock(1, lv(1), Exclusive));
    assert_eq!(bench.killed(), "");
}

#[test]
fn an_active_lv_whose_note_is_lost_is_no_less_noticed_beside_others() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    for number in [1, 2] {
        a.lock(number, lv(number), Exclusive).unwrap();
        bench.activate(1, number, true);
    }
    let note = |number: usize| {
        let notes = fs::read_dir(bench.state_dir(1).join("locks")).unwrap();
        let mut paths = notes.map(|note| note.unwrap().path());
        paths.find(|path| path.to_string_lossy().contains(&format!("{number:06}"))).unwrap()
    };
    drop(a);
    fs::remove_file(note(2)).unwrap();
    let a = bench.next_life(1, LONG);
    let refused = a.manager.prepare_lockspace(VG, bench.scope()).unwrap_err().to_string();
    assert!(refused.contains("vg0/lv2 (LVLVLV-0000-0000-0000-0000-0000-000002)"), "{refused}");
    assert!(!refused.contains("lv1"), "{refused}");
    // Noted locks are kept meanwhile.
    let b = bench.started(2, LONG);
    eventually(SOON, "the other one is proven", || bench.states(1).contains("host1"));
    is_held(b.lock(1, lv(1), Shared));
    bench.activate(1, 2, false);
    a.start(VG, bench.scope()).unwrap();
    a.lock(11, lv(1), Exclusive).unwrap();
    assert_eq!(bench.killed(), "");
}

#[test]
fn devices_that_a_noted_lock_protects_do_not_stop_a_start() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    // A thin pool and a RAID LV.
    for number in [1, 2] {
        a.lock(number, lv(number), Exclusive).unwrap();
    }
    drop(a);
    let device =
        |number, lv, name, layer| bench.add_device(VG_UUID, 1, (number, lv), (name, layer));
    device(10, 1, "pool", "-tpool");
    device(11, 11, "pool_tdata", "");
    device(12, 12, "thin", "");
    device(20, 2, "raid", "");
    device(21, 21, "raid_rimage_0", "");
    // Left over, with nothing on top of it.
    device(22, 22, "raid_rimage_1", "");
    for (upper, lower) in [(10, 11), (12, 10), (20, 21)] {
        bench.stack(1, upper, lower);
    }
    let a = bench.next_life(1, LONG);
    a.start(VG, bench.scope()).unwrap();
}
