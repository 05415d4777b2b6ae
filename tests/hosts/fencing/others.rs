//! Drives that something else reserves, too, and drives of several volume groups.

use super::super::{Bench, Exclusive, Resource, VG, VG_UUID, eventually, is_storage, lv, lv_on};
use super::ways::{State, Way};
use super::{LEASE, PATIENCE, bench_of, id, text};
use idm_fencing::Key;
use idm_protocol::reservation::scsi::ChangeAction::{
    Clear, PreemptAndAbort, Register, RegisterAndIgnore,
};
use lvmlockd_idm::lock::{LockspaceKey, Scope};
use std::time::{Duration, Instant};

/// The key that lvmpersist makes for the host with id 1.
const LVMPERSIST: u64 = 0x1000_0000_0000_0001;

const ALL: [&str; 3] = ["d0", "d1", "d2"];

fn key(number: u8) -> u64 {
    Key::of(&id(number)).number()
}

fn waits_a_lease_and_a_half() {
    std::thread::sleep(LEASE * 3 / 2);
}

#[test]
fn nothing_is_taken_from_a_dead_host_beside_the_key_of_something_else() {
    let bench = bench_of("current");
    let (a, b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Exclusive).unwrap();
    // It may be the dead host's, so that removing the other one would not stop its writes.
    bench.change("d1", "other.0", RegisterAndIgnore, [0, LVMPERSIST]);
    drop(a);
    std::thread::sleep(LEASE + Duration::from_millis(500));
    let refused = b.lock(1, lv(1), Exclusive);
    let why = text(refused.clone());
    for part in ["d1", "0x1000000000000001", "vgchange --persist stop"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    is_storage(refused);
    assert!(ALL.iter().all(|drive| bench.count(drive, 1) == 2), "nothing is removed");
    assert!(bench.takes_data("d1", "other.0"));
    bench.change("d1", "other.0", Register, [LVMPERSIST, 0]);
    eventually(PATIENCE, "the lock", || b.lock(1, lv(1), Exclusive).is_ok());
    assert_eq!((bench.count("d1", 1), bench.killed()), (0, String::new()));
}

/// A path has one key: a program that registers another one replaces this library's key.
#[test]
fn lvmpersist_on_a_started_volume_group_ends_its_use_on_that_host() {
    let bench = bench_of("current");
    let (a, b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Exclusive).unwrap();
    for port in ["host1.0", "host1.1"] {
        bench.change("d0", port, RegisterAndIgnore, [0, LVMPERSIST]);
    }
    eventually(PATIENCE, "the kill command", || bench.killed().contains("vg0"));
    drop(a);
    std::thread::sleep(LEASE + Duration::from_millis(500));
    // LVs that were active there may still be written to, with a key of an unknown host.
    is_storage(b.lock(1, lv(1), Exclusive));
}

/// Another key on one path is no removal, whatever else it means.
#[test]
fn another_key_on_one_path_kills_nothing() {
    let bench = bench_of("current");
    let a = bench.registered(1);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.change("d0", "host1.1", RegisterAndIgnore, [0, LVMPERSIST]);
    waits_a_lease_and_a_half();
    assert_eq!((bench.count("d0", 1), bench.killed()), (1, String::new()));
    bench.change("d0", "host1.1", Register, [LVMPERSIST, 0]);
    eventually(PATIENCE, "the registration", || bench.count("d0", 1) == 2);
}

/// Another volume group, on some drives.
const OTHER: LockspaceKey = LockspaceKey(0x3000);

impl Bench {
    fn scope_on(&self, name: &str, uuid: &str, drives: &[&str]) -> Scope {
        let both = |name: &&str| [format!("/dev/{name}"), format!("/dev/{name}-too")];
        let pvs = drives.iter().flat_map(both).collect();
        Scope::Vg { name: name.into(), uuid: uuid.into(), pvs }
    }

    /// The other volume group, on three drives.
    fn other_scope(&self) -> Scope {
        self.scope_on("vg1", "654321-abcd-efgh-ijkl-mnop-qrst-uvwxyz", &ALL)
    }
}

#[test]
fn a_start_that_fails_leaves_the_registrations_of_other_volume_groups() {
    let bench = Bench::with_profile(5, "current");
    let other = bench.other_scope();
    let this = bench.scope_on("vg0", VG_UUID, &["d0", "d3", "d4"]);
    let (a, b) = (bench.known(1, true), bench.known(2, true));
    b.start(OTHER, other.clone()).unwrap();
    a.start(VG, this).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
    // Their tables can be read in time, and their registrations cannot.
    bench.control("delay d1 300");
    bench.control("delay d2 300");
    let why = text(a.start(OTHER, other));
    assert!(why.contains("does not answer"), "{why}");
    assert_eq!(bench.count("d0", 1), 2);
    waits_a_lease_and_a_half();
    assert_eq!((bench.count("d0", 1), bench.killed()), (2, String::new()));
}

/// Otherwise the writes of the active LVs fail, and no later start is possible.
#[test]
fn a_start_that_fails_leaves_the_registrations_of_what_is_in_use() {
    let bench = bench_of("current");
    let (a, _b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Exclusive).unwrap();
    super::activate(&bench.sysfs(1), 1);
    drop(a);
    let a = bench.known(1, true);
    a.manager.recover();
    for drive in ["d1", "d2"] {
        bench.control(&format!("delay {drive} 300"));
    }
    let why = text(a.start(VG, bench.known_scope()));
    assert!(why.contains("does not answer"), "{why}");
    for drive in ["d1", "d2"] {
        bench.control(&format!("delay {drive} 0"));
    }
    waits_a_lease_and_a_half();
    assert_eq!((bench.count("d0", 1), bench.killed()), (2, String::new()));
    a.start(VG, bench.known_scope()).unwrap();
}

/// It may be used for something else, which begins with CLEAR.
#[test]
fn a_drive_that_has_left_the_volume_group_may_lose_its_registrations() {
    let bench = bench_of("current");
    let a = bench.registered(1);
    a.lock(1, lv(1), Exclusive).unwrap();
    a.unlock(1);
    let left: Vec<String> = ["d0", "d1"]
        .iter()
        .flat_map(|it| [format!("/dev/{it}"), format!("/dev/{it}-too")])
        .collect();
    a.manager.set_pvs(VG, left);
    a.lock(2, Resource::Vg, Exclusive).unwrap();
    a.unlock(2);
    bench.change("d2", "host1.0", Clear, [key(1), 0]);
    waits_a_lease_and_a_half();
    assert_eq!((bench.killed(), bench.count("d2", 1)), (String::new(), 0));
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.change("d1", "host2.0", RegisterAndIgnore, [0, key(2)]);
    bench.change("d1", "host2.0", PreemptAndAbort, [key(2), key(1)]);
    eventually(PATIENCE, "the kill command", || bench.killed().contains("vg0"));
}

/// A host that removes a dead host removes every key that belongs to no host that is known to live.
#[test]
fn a_host_that_is_removed_while_it_starts_registers_again() {
    let lease = Duration::from_secs(8);
    let bench = bench_of("current");
    let start = |number| bench.known_for(number, true, lease);
    let (a, b) = (start(1), start(2));
    a.start(VG, bench.known_scope()).unwrap();
    let slow = |ms: u32| bench.control(&format!("delay d1 {ms}"));
    // Of the unit attention conditions that this port may have, none is left.
    bench.change("d1", "host1.0", RegisterAndIgnore, [0, key(1)]);
    slow(400);
    std::thread::scope(|scope| {
        let starts = scope.spawn(|| b.start(VG, bench.known_scope()));
        let members = || bench.control("table d0").matches("*members-of").count();
        eventually(PATIENCE, "the membership", || members() == 2);
        // The host is about to check its registration, which begins with another command.
        for _ in 0..2 {
            bench.change("d1", "host1.0", PreemptAndAbort, [key(1), key(2)]);
            assert_eq!(bench.count("d1", 2), 0);
            eventually(PATIENCE, "the registration", || bench.count("d1", 2) == 2);
        }
        starts.join().unwrap().unwrap();
    });
    slow(0);
    std::thread::sleep(lease / 2);
    assert_eq!((bench.killed(), bench.count("d1", 2)), (String::new(), 2));
    b.lock(1, lv(1), Exclusive).unwrap();
}

/// lvmlockd is started again. Of two volume groups on the same disks, one is started and stopped
/// before the other one, whose LV is active, is started.
fn stopped_beside_an_orphan(is_removed: bool) {
    let bench = bench_of("current");
    let other = || bench.other_scope();
    let (a, b) = (bench.registered(1), bench.registered(2));
    a.start(OTHER, other()).unwrap();
    if !is_removed {
        b.start(OTHER, other()).unwrap();
    }
    a.lock(1, lv(1), Exclusive).unwrap();
    super::activate(&bench.sysfs(1), 1);
    drop(a);
    let a = bench.known(1, true);
    a.manager.recover();
    a.start(OTHER, other()).unwrap();
    assert_eq!(bench.count("d0", 1), 2);
    a.manager.remove_lockspace(OTHER, is_removed, true).unwrap();
    waits_a_lease_and_a_half();
    assert_eq!((bench.count("d0", 1), bench.killed()), (2, String::new()));
    a.start(VG, bench.known_scope()).unwrap();
}

#[test]
fn a_stop_leaves_the_registrations_for_orphans_of_another_volume_group() {
    stopped_beside_an_orphan(false);
}

#[test]
fn a_removal_leaves_the_registrations_for_orphans_of_another_volume_group() {
    stopped_beside_an_orphan(true);
}

/// Another host has taken the lock of an LV from this one, and removed it from the drives. The LV
/// is still active here: the kill command fails, or takes long. Another volume group on the same
/// disks is started, and registers: then two hosts write to the LV.
#[test]
fn a_start_does_not_let_a_lost_lv_of_another_volume_group_write_again() {
    let bench = bench_of("current");
    let other = || bench.other_scope();
    let (a, b) = (bench.registered(1), bench.registered(2));
    a.start(OTHER, other()).unwrap();
    b.start(OTHER, other()).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
    super::activate(&bench.sysfs(1), 1);
    drop(a);
    eventually(PATIENCE, "the lock", || b.lock(1, lv(1), Exclusive).is_ok());
    let a = bench.known(1, true);
    a.manager.recover();
    eventually(PATIENCE, "the kill command", || bench.killed().contains("vg0"));
    assert!(ALL.iter().all(|drive| bench.count(drive, 1) == 0));
    assert!(a.start(VG, bench.known_scope()).is_err(), "its LV is active");
    assert!(ALL.iter().all(|drive| bench.count(drive, 1) == 0));
    let started = a.start(OTHER, other());
    let writes: Vec<_> = ALL.iter().filter(|drive| bench.takes_data(drive, "host1.0")).collect();
    assert!(writes.is_empty(), "writes to {writes:?} beside the new holder; start: {started:?}");
}

/// lvmlockd is started again after the drives have lost the membership of the dead one, and another
/// host has removed that volume group meanwhile. The last volume group on the disks is removed by
/// this host, so that the disks can be used for something else.
#[test]
fn a_removal_of_the_last_volume_group_on_a_disk_ends_its_reservation() {
    let bench = bench_of("current");
    let other = || bench.other_scope();
    let a = bench.registered(1);
    a.start(OTHER, other()).unwrap();
    drop(a);
    for drive in ALL {
        bench.control(&format!("reset {drive}"));
    }
    let b = bench.registered(2);
    b.manager.remove_lockspace(VG, true, true).unwrap();
    eventually(PATIENCE, "the removal", || ALL.iter().all(|it| bench.count(it, 2) == 0));
    let a = bench.known(1, true);
    a.manager.recover();
    waits_a_lease_and_a_half();
    waits_a_lease_and_a_half();
    a.start(OTHER, other()).unwrap();
    a.manager.remove_lockspace(OTHER, true, true).unwrap();
    waits_a_lease_and_a_half();
    let left: Vec<_> = ALL.iter().filter(|drive| bench.count(drive, 1) > 0).collect();
    assert!(left.is_empty() && bench.takes_data("d0", "other.0"), "still registered: {left:?}");
}

/// lvmlockd of a host with an active LV is dead for longer than a lease. It is started again, and
/// starts the volume group, while another host removes it, which takes a moment because a drive
/// hangs there. The LV's drive is back on this host just after it was removed, and another volume
/// group on the same disks is started.
#[test]
fn a_start_does_not_register_again_where_a_group_in_use_was_judged_dead_before_its_start() {
    const LEASE: Duration = Duration::from_secs(24);
    let bench = bench_of("current");
    let other = || bench.other_scope();
    let (to_d0, to_d2) = (Way::new(&bench, "d0"), Way::new(&bench, "d2"));
    let host = |number| bench.host_by(number, LEASE, [(1, &to_d0), (2, &to_d2)]);
    let on_d0 = || lv_on(1, &["d0", "d0-too"]);
    let (a, b) = (host(1), host(2));
    a.start(VG, bench.known_scope()).unwrap();
    b.start(VG, bench.known_scope()).unwrap();
    a.lock(1, on_d0(), Exclusive).unwrap();
    super::activate(&bench.sysfs(1), 1);
    drop(a);
    std::thread::sleep(LEASE + Duration::from_millis(500));
    let looks = || {
        let stats = bench.control("stats d0");
        stats.lines().find(|it| it.starts_with("reserve-in")).map(str::to_owned)
    };
    to_d0.set(State::Cut);
    to_d2.set(State::Held);
    let before = looks();
    let (_a, started, writes) = std::thread::scope(|scope| {
        let takes = scope.spawn(|| b.lock(1, on_d0(), Exclusive));
        eventually(PATIENCE, "the look", || looks() != before);
        let a = host(1);
        a.manager.recover();
        eventually(PATIENCE, "the kill command", || bench.killed().contains("vg0"));
        a.start(VG, bench.known_scope()).unwrap();
        assert_eq!(ALL.map(|drive| bench.count(drive, 1)), [2, 2, 2], "the machine is too slow");
        let is_removed = || ["d0", "d1"].iter().all(|drive| bench.count(drive, 1) == 0);
        eventually(PATIENCE, "the removal", is_removed);
        to_d0.set(State::Open);
        let started = a.start(OTHER, other());
        takes.join().unwrap().expect("it is removed for the lock");
        let writes = bench.takes_data("d0", "host1.0");
        (a, started, writes)
    });
    assert!(!writes, "the LV writes again beside its new holder; start: {started:?}");
}

/// lvmlockd is dead while a path comes back without its registration. The other path is registered,
/// so that nobody has removed this host.
#[test]
fn a_restarted_lvmlockd_starts_where_a_path_of_a_drive_came_back_unregistered() {
    let bench = bench_of("current");
    let (a, _b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Exclusive).unwrap();
    super::activate(&bench.sysfs(1), 1);
    drop(a);
    bench.change("d0", "host1.1", Register, [key(1), 0]);
    assert_eq!(ALL.map(|drive| bench.count(drive, 1)), [1, 2, 2]);
    let a = bench.known(1, true);
    a.manager.recover();
    let started = a.start(VG, bench.known_scope());
    assert!(started.is_ok(), "refused: {started:?}");
}

/// The LV is on one drive, which this host hardly reaches: the LV's lock gets into danger, its
/// volume group is killed, and so its membership is given up, which was safe for long. The order to
/// register for another volume group was given before that, and is carried out late.
#[test]
fn an_order_to_register_does_not_arrive_after_a_group_was_killed_whose_membership_was_safe() {
    const LEASE: Duration = Duration::from_secs(12);
    let bench = bench_of("current");
    let other = || bench.other_scope();
    let to_d0 = Way::new(&bench, "d0");
    let host = |number| bench.host_by(number, LEASE, [(1, &to_d0)]);
    let on_d0 = || lv_on(1, &["d0", "d0-too"]);
    let (a, b) = (host(1), host(2));
    a.start(VG, bench.known_scope()).unwrap();
    b.start(VG, bench.known_scope()).unwrap();
    let locked = Instant::now();
    let at = |ms: u64| {
        std::thread::sleep(Duration::from_millis(ms).saturating_sub(locked.elapsed()));
    };
    a.lock(1, on_d0(), Exclusive).unwrap();
    super::activate(&bench.sysfs(1), 1);
    to_d0.set(State::Cut);
    at(8900);
    bench.control("delay d1 200");
    let (started, writes) = std::thread::scope(|scope| {
        to_d0.set(State::Open);
        let starts = scope.spawn(|| a.start(OTHER, other()));
        at(9100);
        to_d0.set(State::Held);
        at(9700);
        bench.control("delay d1 0");
        eventually(PATIENCE, "the lock", || b.lock(1, on_d0(), Exclusive).is_ok());
        assert_eq!(bench.count("d0", 1), 0);
        to_d0.set(State::Open);
        std::thread::sleep(Duration::from_millis(300));
        let writes = bench.takes_data("d0", "host1.0") || bench.takes_data("d0", "host1.1");
        (starts.join().unwrap(), writes)
    });
    assert!(!writes, "the LV writes again beside its new holder; start: {started:?}");
}
