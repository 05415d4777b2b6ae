//! The order that removes this host's own registration is carried out late.

use super::super::{Bench, Exclusive, Host, Resource, VG, VG_UUID, eventually, lv};
use super::{PATIENCE, bench_of, id};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::lock::{LockspaceKey, Scope};
use std::thread;
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(24);
/// Time that the first drive takes for a command; much less than a quarter of a lease.
const SLOW: Duration = Duration::from_millis(1200);
const OTHER: LockspaceKey = LockspaceKey(0x3000);

impl Bench {
    /// A host with reservations that reaches each drive by one path.
    fn by_one_path(&self, number: u8) -> Host {
        let port = |name: &String| {
            let socket = self.server.socket(name);
            (format!("/dev/{name}"), format!("{}#host{number}.0", socket.display()).into())
        };
        self.host_with_config(number, id(number), |config| Config {
            lease: LEASE,
            reservations: true,
            emulated: self.drives.iter().map(port).collect(),
            ..config
        })
    }

    /// The number of changes of reservations that the first drive has got.
    fn orders(&self) -> u64 {
        let stats = self.control("stats d0");
        let counts = stats.lines().filter_map(|line| line.split_once(' '));
        let changes = counts.filter(|(kind, _)| *kind == "reserve-out");
        changes.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
    }

    /// Stops a VG. Returns when the first drive has got the order that removes the host's
    /// registration, which it carries out later.
    fn stopped_late(&self, host: &Host, vg: LockspaceKey) -> Instant {
        let before = self.orders();
        self.control(&format!("delay d0 {}", SLOW.as_millis()));
        host.manager.remove_lockspace(vg, false, true).unwrap();
        eventually(PATIENCE, "the order to leave", || self.orders() > before);
        self.control("delay d0 0");
        Instant::now()
    }

    /// Waits until the order has certainly been carried out.
    fn is_late_enough(&self, sent: Instant) {
        assert!(sent.elapsed() < SLOW * 3 / 4, "the machine is too slow: {:?}", sent.elapsed());
        thread::sleep(SLOW * 3 / 2);
    }
}

/// The VG is stopped, lvmlockd ends in order, is started again, and starts the VG again, all within
/// a quarter of a lease.
fn restarted_after_a_stop(in_order: bool) {
    let bench = bench_of("current");
    let (a, b) = (bench.by_one_path(1), bench.by_one_path(2));
    a.start(VG, bench.scope()).unwrap();
    b.start(VG, bench.scope()).unwrap();
    let sent = bench.stopped_late(&a, VG);
    if in_order {
        a.manager.end();
    }
    drop(a);
    let a = bench.by_one_path(1);
    a.manager.recover();
    a.start(VG, bench.scope()).unwrap();
    if in_order {
        bench.is_late_enough(sent);
    }
    a.lock(1, lv(1), Exclusive).unwrap();
    thread::sleep(LEASE / 2);
    assert_eq!((bench.killed(), bench.count("d0", 1)), (String::new(), 1));
}

#[test]
fn an_earlier_lifes_order_to_leave_does_not_remove_a_host_that_has_started_again() {
    restarted_after_a_stop(true);
}

/// It waits for the UNLOCK of the membership, and so for that order as well.
#[test]
fn a_killed_lifes_order_to_leave_does_not_remove_a_host_that_has_started_again() {
    restarted_after_a_stop(false);
}

/// Two VGs whose PVs are partitions of the same disks. One is stopped; the other one gets the disk
/// that it has not had, and its lock is used.
#[test]
fn a_drive_that_one_vg_leaves_and_another_one_gets_keeps_its_registration() {
    let bench = bench_of("current");
    let (a, b) = (bench.by_one_path(1), bench.by_one_path(2));
    let scope = |name: &str, uuid: &str, drives: &[String]| Scope::Vg {
        name: name.into(),
        uuid: uuid.into(),
        pvs: drives.to_vec(),
    };
    let other = || scope("vg1", "654321-abcd-efgh-ijkl-mnop-qrst-uvwxyz", &bench.paths());
    for host in [&a, &b] {
        host.start(OTHER, other()).unwrap();
        host.start(VG, scope("vg0", VG_UUID, &bench.paths()[1..])).unwrap();
    }
    a.lock(1, lv(1), Exclusive).unwrap();
    let sent = bench.stopped_late(&a, OTHER);
    a.manager.set_pvs(VG, bench.paths());
    a.lock(2, Resource::Vg, Exclusive).unwrap();
    a.unlock(2);
    bench.is_late_enough(sent);
    thread::sleep(LEASE / 2);
    assert_eq!((bench.killed(), bench.count("d0", 1)), (String::new(), 1));
}

/// A VG is removed while a drive takes so long for the order to leave that the order is given up.
/// Another VG is made of the same disks, and started. Then the order is carried out, long before a
/// quarter of a lease has passed since it was given up.
#[test]
fn a_removed_vgs_order_to_leave_does_not_remove_the_host_from_the_next_vg() {
    const GIVEN_UP: Duration = Duration::from_millis(6500);
    let bench = bench_of("current");
    let a = bench.by_one_path(1);
    let scope = |name: &str, uuid: &str| Scope::Vg {
        name: name.into(),
        uuid: uuid.into(),
        pvs: bench.paths(),
    };
    a.start(OTHER, scope("vg1", "654321-abcd-efgh-ijkl-mnop-qrst-uvwxyz")).unwrap();
    let before = bench.orders();
    bench.control(&format!("delay d0 {}", GIVEN_UP.as_millis()));
    a.manager.remove_lockspace(OTHER, true, true).unwrap();
    eventually(PATIENCE, "the order to leave", || bench.orders() > before);
    bench.control("delay d0 0");
    let sent = Instant::now();
    a.start(VG, scope("vg0", VG_UUID)).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
    println!("started {:?} after the order was sent", sent.elapsed());
    thread::sleep(LEASE / 2);
    assert_eq!((bench.killed(), bench.count("d0", 1)), (String::new(), 1));
}
