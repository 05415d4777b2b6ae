//! Drives come and go while locks are held, and the votes follow.

use super::recovery::SOON;
use super::*;

/// A lease short enough to run out several times, and long enough for a busy machine.
const LEASE: Duration = Duration::from_secs(5);

/// An LV on the first drive only.
fn on_one_drive(number: usize) -> Resource {
    match lv(number) {
        Resource::Lv { uuid, .. } => Resource::Lv { uuid, pvs: vec!["/dev/d0".into()] },
        other => other,
    }
}

impl Bench {
    /// The drives that are noted for a host's lock.
    fn noted_drives(&self, number: u8, lock: &str) -> usize {
        let locks = std::fs::read_dir(self.state_dir(number).join("locks")).unwrap();
        let file = locks.map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|file| file.to_string_lossy().contains(lock)).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let drives = text.lines().find(|line| line.starts_with("drives")).unwrap();
        drives.matches("emulated.").count()
    }
}

impl Bench {
    /// The drives that show an LV's lock.
    fn shown_on(&self, mode: &str) -> usize {
        let shows = |line: &str| line.contains("lv ") && line.contains(mode);
        let shows_it = |d: &&String| self.control(&format!("table {d}")).lines().any(shows);
        self.drives.iter().filter(shows_it).count()
    }
}

/// Fails if another host gets the first LV within this time.
fn keep_out(b: &Host, time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        is_held(b.lock(1, lv(1), Shared));
        thread::sleep(LEASE / 20);
    }
}

#[test]
fn a_drive_that_is_replaced_online_takes_no_lock_with_it() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    a.lock(1, on_one_drive(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    // pvmove takes the VG's lock.
    a.lock(2, Resource::Vg, Exclusive).unwrap();
    eventually(SOON, "the VG's drives vote", || bench.noted_drives(1, ".LVLVLV") == 3);
    a.manager.convert(ResourceKey(1), Shared, 0).unwrap();
    a.manager.convert(ResourceKey(1), Exclusive, 0).unwrap();
    assert_eq!(bench.noted_drives(1, ".LVLVLV"), 3, "a change of the mode changes nothing else");
    a.unlock(2);
    bench.control("power d0 off");
    keep_out(&b, LEASE * 3 / 2);
    // The noted drives are those that vote.
    let a = bench.restart(a, 1, LEASE);
    keep_out(&b, LEASE * 3 / 2);
    a.start(VG, bench.scope()).unwrap();
    a.lock(11, lv(1), Exclusive).unwrap();
    assert_eq!(bench.killed(), "");
}

#[test]
fn a_drive_that_has_left_the_vg_does_not_vote() {
    let bench = Bench::new(4);
    let (a, b) = (bench.started(1, LEASE), bench.started(2, LEASE));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    // vgreduce on another host: the next command here that reads the VG reports it.
    let left = bench.paths()[..2].to_vec();
    for host in [&a, &b] {
        host.manager.set_pvs(VG, left.clone());
        host.lock(2, Resource::Vg, Shared).unwrap();
        host.unlock(2);
    }
    for lock in [".LVLVLV", ".members"] {
        eventually(SOON, "two drives vote", || bench.noted_drives(1, lock) == 2);
    }
    for drive in ["d2", "d3"] {
        bench.control(&format!("power {drive} off"));
    }
    keep_out(&b, LEASE * 3 / 2);
    assert_eq!(b.manager.hosts(VG), Ok(1));
    assert_eq!(bench.killed(), "");
    a.unlock(1);
    eventually(SOON, "it is free", || b.lock(1, lv(1), Exclusive).is_ok());
}

#[test]
fn a_shared_lock_is_put_on_all_of_the_vgs_drives_at_once() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    // Another host may extend the LV without its lock (`lvextend --lockopt skiplv`).
    a.lock(1, on_one_drive(1), Shared).unwrap();
    eventually(SOON, "the VG's drives vote", || bench.noted_drives(1, ".LVLVLV") == 3);
    assert!(bench.shown_on(" sh ") >= 2);
    a.unlock(1);
    a.lock(2, on_one_drive(2), Exclusive).unwrap();
    assert_eq!(bench.noted_drives(1, ".LVLVLV"), 1, "nobody else can extend this one");
    a.manager.convert(ResourceKey(2), Shared, 0).unwrap();
    eventually(SOON, "the VG's drives vote", || bench.noted_drives(1, ".LVLVLV") == 3);
}

#[test]
fn the_vgs_lock_is_granted_when_lvs_can_be_moved() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    a.lock(1, on_one_drive(1), Exclusive).unwrap();
    for drive in ["d1", "d2"] {
        bench.control(&format!("delay {drive} 100"));
    }
    a.lock(2, Resource::Vg, Exclusive).unwrap();
    assert_eq!(bench.noted_drives(1, ".LVLVLV"), 3);
    assert!(bench.shown_on(" ex ") >= 2, "more than half");
    a.unlock(1);
    a.unlock(2);
    // The same when the VG's lock becomes exclusive.
    a.lock(1, on_one_drive(1), Exclusive).unwrap();
    a.lock(2, Resource::Vg, Shared).unwrap();
    a.manager.convert(ResourceKey(2), Exclusive, 0).unwrap();
    assert_eq!(bench.noted_drives(1, ".LVLVLV"), 3);
}

#[test]
fn a_move_that_cannot_end_delays_the_vgs_lock_only_once() {
    let bench = Bench::with_profile(2, "current+metadata-on-lock-only");
    let a = bench.started(1, Duration::from_secs(8));
    let patience = Duration::from_secs(2);
    // The move has lasted for long when it is waited for.
    a.lock(1, on_one_drive(1), Shared).unwrap();
    thread::sleep(patience);
    let lock = || {
        let taken = timed(|| a.lock(2, Resource::Vg, Exclusive).unwrap()).1;
        a.unlock(2);
        taken
    };
    let (first, second) = (lock(), lock());
    assert_eq!(bench.noted_drives(1, ".LVLVLV"), 1, "a drive does not let its record be marked");
    assert!(first >= patience && second < patience, "{first:?}, {second:?}");
}

#[test]
fn a_vg_that_is_killed_does_not_wait_for_locks_that_move() {
    let bench = Bench::with_profile(2, "current+metadata-on-lock-only");
    let a = bench.started(1, Duration::from_secs(20));
    a.lock(1, on_one_drive(1), Exclusive).unwrap();
    // Of many locks one is always refreshed soon, and found to be lost.
    for number in 3..12 {
        a.lock(number, lv(number), Exclusive).unwrap();
    }
    thread::scope(|scope| {
        let vg = scope.spawn(|| (a.lock(2, Resource::Vg, Exclusive), Instant::now()));
        let has_vg =
            |table: &str| table.lines().any(|line| line.contains("vg ") && line.contains(" ex "));
        let taken = || bench.drives.iter().all(|d| has_vg(&bench.control(&format!("table {d}"))));
        eventually(SOON, "the VG's lock is taken", taken);
        bench.drives.iter().for_each(|drive| drop(bench.control(&format!("reset {drive}"))));
        eventually(SOON, "the VG is killed", || !bench.killed().is_empty());
        let killed = Instant::now();
        let (locked, end) = vg.join().unwrap();
        assert!(matches!(locked, Err(Error::Killed)), "{locked:?}");
        let late = end.saturating_duration_since(killed);
        assert!(late < Duration::from_secs(2), "core hangs for {late:?} more");
    });
}

/// Drives leave the VG before a new lvmlockd starts it.
#[test]
fn a_drive_that_left_the_vg_while_lvmlockd_was_away_does_not_vote() {
    let bench = Bench::new(3);
    let a = bench.started(1, LEASE);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    let a = bench.restart(a, 1, LEASE);
    let scope = || {
        let pvs = bench.paths()[..1].to_vec();
        Scope::Vg { name: "vg0".into(), uuid: VG_UUID.into(), pvs }
    };
    eventually(SOON, "the VG is started", || a.start(VG, scope()).is_ok());
    a.lock(1, lv(1), Exclusive).unwrap();
    for lock in [".LVLVLV", ".members"] {
        eventually(SOON, "the VG's drive votes alone", || {
            a.lock(2, Resource::Vg, Shared).unwrap();
            a.unlock(2);
            bench.noted_drives(1, lock) == 1
        });
    }
    assert_eq!(bench.killed(), "");
}

/// The command has the VG's lock already when it makes the LV's lock exclusive.
#[test]
fn a_lock_that_becomes_exclusive_under_the_vgs_lock_may_lose_drives_of_its_lv() {
    let bench = Bench::new(3);
    let a = bench.started(1, LEASE);
    a.lock(1, lv(1), Shared).unwrap();
    a.lock(2, Resource::Vg, Exclusive).unwrap();
    let convert = |mode| a.manager.convert(ResourceKey(1), mode, 0);
    convert(Exclusive).unwrap();
    convert(Shared).unwrap();
    bench.control("power d1 off");
    // A sharer may count the drive only that the LV was left on.
    assert!(convert(Exclusive).unwrap_err().to_string().contains("d1"));
}
