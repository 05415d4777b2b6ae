//! Restarts while a drive, a note or a device's name is not what it was.

use super::recovery::SOON;
use super::*;
use std::collections::BTreeMap;

const LEASE: Duration = Duration::from_secs(8);

/// The first date of the note, in seconds after now.
fn date_left(bench: &Bench) -> f64 {
    let note = bench.safe_until(1);
    let date = note.lines().find_map(|line| line.split_once(" safe_until_us ")).unwrap().1;
    date.parse::<f64>().unwrap() / 1e6 - uptime()
}

/// All drives answer all the time. The dates could not be noted, and an LV's lock was given up just
/// before lvmlockd died, so that the proof waits for 15 s. Within that time lvmlockd dies again.
#[test]
fn restarts_without_a_note_of_the_dates_kill_nothing() {
    let bench = Bench::new(3);
    let a = bench.host(1, LONG);
    bench.obstruct_dates(1);
    a.start(VG, bench.scope()).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Exclusive).unwrap();
    bench.activate(1, 1, true);
    thread::sleep(Duration::from_secs(2));
    a.unlock(2);
    drop(a);
    bench.obstruct_no_more(1);
    let a = bench.next_life(1, LONG);
    thread::sleep(Duration::from_secs(2));
    let note = bench.safe_until(1);
    assert!(note.contains(" use_ends_at_us "), "{note}");
    let _a = bench.restart(a, 1, LONG);
    thread::sleep(Duration::from_secs(22));
    assert_eq!(bench.killed(), "");
}

/// A VG of two drives, of which one stops to answer while lvmlockd is away. Half of them proves the
/// LV's lock, because its grant is noted, and not the membership, whose grant never is.
#[test]
fn a_membership_that_is_not_proven_does_not_cost_an_lv_at_the_next_restart() {
    let bench = Bench::new(2);
    let a = bench.started(1, LEASE);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    thread::sleep(Duration::from_secs(2));
    drop(a);
    bench.control("hang d1 on");
    let a = bench.next_life(1, LEASE);
    thread::sleep(LEASE * 2);
    let left = date_left(&bench);
    assert!(left > 0.0, "it is renewed, and yet noted as safe for {left} s more");
    let _a = bench.restart(a, 1, LEASE);
    thread::sleep(LEASE * 3 / 2);
    assert_eq!(bench.killed(), "");
}

/// A request takes over an orphan while the proof of another one of its VG is still awaited.
fn taken_over_while_another_is_asked() -> (String, bool) {
    const LEASE: Duration = Duration::from_secs(24);
    let bench = Bench::new(7);
    let a = bench.started(1, LEASE);
    a.lock(1, lv_on(1, &["d0", "d1", "d2"]), Exclusive).unwrap();
    a.lock(2, lv_on(2, &["d6"]), Exclusive).unwrap();
    bench.activate(1, 1, true);
    thread::sleep(Duration::from_secs(1));
    for drive in ["d0", "d1", "d6"] {
        bench.control(&format!("hang {drive} on"));
    }
    let a = bench.restart(a, 1, LEASE);
    let begin = Instant::now();
    a.start(VG, bench.scope()).unwrap();
    bench.control("hang d1 off");
    let mut taken_over = false;
    while !taken_over && begin.elapsed() < LEASE / 2 {
        taken_over = a.lock(1, lv_on(1, &["d0", "d1", "d2"]), Exclusive).is_ok();
    }
    thread::sleep((LEASE * 3 / 2).saturating_sub(begin.elapsed()));
    (bench.killed(), taken_over)
}

/// Two of three drives have the lock. Whether the request is in the way of the proof depends on
/// the threads, so there are several.
#[test]
fn an_orphan_that_a_request_takes_over_at_once_is_kept_beyond_a_lease() {
    let all: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(taken_over_while_another_is_asked)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(all.iter().any(|(_, taken_over)| *taken_over));
    assert!(all.iter().all(|(killed, taken_over)| !taken_over || killed.is_empty()), "{all:?}");
}

/// No LV can have been moved meanwhile, because nobody has had the VG's lock.
#[test]
fn a_lock_changes_its_mode_again_and_again_with_a_drive_less() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.control("power d1 off");
    for round in 0..3 {
        a.manager.convert(ResourceKey(1), Shared, 0).unwrap();
        let up = a.manager.convert(ResourceKey(1), Exclusive, 0);
        assert_eq!(up, Ok(()), "round {round}");
    }
}

/// The devices of host 1: the one that was d0 is called `new`, and its old name is that of d3,
/// which is no drive of the VG.
fn with_other_names(bench: &Bench, config: Config) -> Config {
    let names = [("d0", "d3"), ("d1", "d1"), ("d2", "d2"), ("new", "d0")];
    let socket = |name: &str| bench.server.socket(name);
    let emulated =
        names.map(|(name, drive)| (format!("/dev/{name}"), socket(drive))).into_iter().collect();
    // The global lock makes the device known, as the inventory does with real disks.
    Config { lease: LEASE, emulated, global_drives: vec!["/dev/new".into()], ..config }
}

/// A device gets another name while lvmlockd is away, and its old name is given to another disk.
/// Every drive answers all the time, but the other host does not reach d1. Then d2 loses its table:
/// the lock is still on d0 and d1, and the other host can get none but d2.
#[test]
fn a_disk_that_gets_the_name_of_a_vgs_drive_gets_no_vote() {
    let bench = Bench::new(4);
    let scope =
        || Scope::Vg { name: "vg0".into(), uuid: VG_UUID.into(), pvs: bench.paths()[..3].to_vec() };
    let lv_1 = || lv_on(1, &["d0", "d1", "d2"]);
    let a = bench.host(1, LEASE);
    a.start(VG, scope()).unwrap();
    a.lock(1, lv_1(), Exclusive).unwrap();
    bench.activate(1, 1, true);
    let theirs: BTreeMap<String, PathBuf> =
        ["d0", "d2"].map(|name| (format!("/dev/{name}"), bench.server.socket(name))).into();
    let b = bench.host_with_config(2, HostId::new([2; 16], "host2"), |config| Config {
        lease: LEASE,
        emulated: theirs.clone(),
        ..config
    });
    b.start(VG, scope()).unwrap();
    drop(a);
    let a = bench.host_with_config(1, HostId::new([1; 16], "host1"), |config| {
        with_other_names(&bench, config)
    });
    a.start(GLOBAL, Scope::Global).unwrap();
    let until = |time: Duration| {
        let begin = Instant::now();
        while begin.elapsed() < time {
            is_held(b.lock(1, lv_1(), Exclusive));
            thread::sleep(Duration::from_millis(100));
        }
    };
    until(SOON);
    bench.control("reset d2");
    until(LEASE);
    assert_eq!(bench.killed(), "");
    let noted = bench.note_of(1, 1).unwrap_or_default();
    assert!(!noted.contains("d3"), "another disk votes: {noted}");
}

/// lvmlockd dies while it asks for the VG's lock, of which one of two drives does not answer any
/// more. The LV's lock is proven by half of its drives and renewed; the VG's, which nothing uses,
/// cannot be proven.
#[test]
fn a_vg_lock_that_was_never_granted_does_not_cost_an_lv_at_the_next_restart() {
    const LEASE: Duration = Duration::from_secs(16);
    let bench = Bench::new(2);
    let a = bench.started(1, LEASE);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    thread::sleep(Duration::from_secs(2));
    a.lock(2, Resource::Vg, Exclusive).unwrap();
    drop(a);
    bench.control("hang d1 on");
    // The death came before the grant.
    let mut changed = 0;
    for entry in std::fs::read_dir(bench.state_dir(1).join("locks")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains("LVLVLV") || name.contains("members") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("granted = true"), "{text}");
        std::fs::write(&file, text.replace("granted = true", "granted = false")).unwrap();
        changed += 1;
    }
    assert_eq!(changed, 1);
    let a = bench.next_life(1, LEASE);
    thread::sleep(LEASE * 11 / 10);
    let left = date_left(&bench);
    let _a = bench.restart(a, 1, LEASE);
    thread::sleep(LEASE);
    assert_eq!(bench.killed(), "", "renewed, and yet noted as safe for {left} s more");
}

/// Half of two drives would prove the lock, if it were known that no other host can have it yet. No
/// restart puts off the end of the LV's use.
#[test]
fn restarts_without_a_note_of_the_dates_prove_nothing_and_put_nothing_off() {
    let bench = Bench::new(2);
    let a = bench.started(1, LONG);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    thread::sleep(Duration::from_secs(1));
    drop(a);
    bench.control("hang d1 on");
    std::fs::remove_file(bench.state_dir(1).join("safe-until")).unwrap();
    let mut a = bench.next_life(1, LONG);
    let begin = Instant::now();
    while bench.killed().is_empty() {
        assert!(begin.elapsed() < LONG / 2, "each life puts it off");
        thread::sleep(Duration::from_secs(8));
        a = bench.restart(a, 1, LONG);
    }
    drop(a);
}

/// lvmlockd is started again with a longer lease than it had, and without a note of the dates. The
/// drives cannot be reached from this host any more.
fn started_again_without_dates(before: Duration, after: Duration) {
    let bench = Bench::new(3);
    let a = bench.host(1, before);
    let b = bench.host(2, after);
    bench.obstruct_dates(1);
    a.start(VG, bench.scope()).unwrap();
    b.start(VG, bench.scope()).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    thread::sleep(before / 2);
    drop(a);
    let nowhere = |name: &String| (format!("/dev/{name}"), bench.state_dir(1).join("nowhere"));
    let a = bench.host_with_config(1, HostId::new([1; 16], "host1"), |config| Config {
        lease: after,
        emulated: bench.drives.iter().map(nowhere).collect(),
        ..config
    });
    a.manager.recover();
    eventually(2 * LONG, "the other host gets the lock", || b.lock(1, lv(1), Exclusive).is_ok());
    // The LV is still active here.
    assert_eq!(bench.killed(), "vg0\n");
    drop(a);
}

#[test]
fn the_kill_command_comes_before_the_lease_of_the_earlier_life_ends() {
    started_again_without_dates(Duration::from_secs(6), Duration::from_secs(6));
}

#[test]
fn the_kill_command_comes_before_the_shorter_lease_of_the_earlier_life_ends() {
    started_again_without_dates(Duration::from_secs(6), LONG);
}

/// The lease was short once in this boot, in a life whose locks were given up. Later there is no
/// room for notes, and lvmlockd is started again with the lease that the life before had, too.
#[test]
fn a_shorter_lease_of_a_life_long_ago_kills_no_healthy_vg() {
    let bench = Bench::new(3);
    let a = bench.host(1, Duration::from_secs(6));
    a.start(VG, bench.scope()).unwrap();
    a.manager.remove_lockspace(VG, false, true).unwrap();
    drop(a);
    for name in ["safe-until", "undoing-until"] {
        let state = bench.state_dir(1);
        let _ = std::fs::remove_file(state.join(name));
        std::fs::create_dir(state.join(format!("{name}.{}", std::process::id()))).unwrap();
    }
    let a = bench.host(1, LONG);
    a.start(VG, bench.scope()).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    thread::sleep(Duration::from_secs(1));
    let a = bench.restart(a, 1, LONG);
    thread::sleep(LONG / 3);
    assert_eq!(bench.killed(), "");
    a.start(VG, bench.scope()).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
}
