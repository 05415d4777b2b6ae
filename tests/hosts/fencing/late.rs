//! The order that removes this host's own registration is carried out late.

use super::super::{Bench, Exclusive, Host, Resource, VG, VG_UUID, eventually, lv};
use super::{PATIENCE, bench_of, id, text};
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
    fn stopped_late(&self, host: &Host, vg: LockspaceKey, scope: &Scope) -> Instant {
        for _ in 0..4 {
            let before = self.orders();
            self.control(&format!("delay d0 {}", SLOW.as_millis()));
            host.manager.remove_lockspace(vg, false, true).unwrap();
            let stopped = Instant::now();
            while stopped.elapsed() < PATIENCE {
                if self.orders() > before {
                    self.control("delay d0 0");
                    return Instant::now();
                }
                thread::sleep(Duration::from_millis(20));
            }
            // The UNLOCK of the membership was so late, too, that the host stays registered.
            self.control("delay d0 0");
            host.start(vg, scope.clone()).unwrap();
        }
        panic!("there was no order to leave");
    }
}

/// Checks that an order that was sent then has not been carried out yet.
fn is_under_way(sent: Instant) {
    assert!(sent.elapsed() < SLOW * 3 / 4, "the machine is too slow: {:?}", sent.elapsed());
}

/// The VG is stopped, lvmlockd ends in order, is started again, and starts the VG again, all within
/// a quarter of a lease.
fn restarted_after_a_stop(in_order: bool) {
    let bench = bench_of("current");
    let (a, b) = (bench.by_one_path(1), bench.by_one_path(2));
    a.start(VG, bench.scope()).unwrap();
    b.start(VG, bench.scope()).unwrap();
    let sent = bench.stopped_late(&a, VG, &bench.scope());
    if in_order {
        a.manager.end();
    }
    drop(a);
    let a = bench.by_one_path(1);
    a.manager.recover();
    is_under_way(sent);
    a.start(VG, bench.scope()).unwrap();
    assert!(sent.elapsed() > SLOW * 3 / 4, "started after {:?}", sent.elapsed());
    a.lock(1, lv(1), Exclusive).unwrap();
    thread::sleep(LEASE / 2);
    assert_eq!((bench.killed(), bench.count("d0", 1)), (String::new(), 1));
}

#[test]
fn an_earlier_lifes_order_to_leave_does_not_remove_a_host_that_has_started_again() {
    restarted_after_a_stop(true);
}

#[test]
fn a_killed_lifes_order_to_leave_does_not_remove_a_host_that_has_started_again() {
    restarted_after_a_stop(false);
}

/// The look at a drive takes so long that the order is handed out long after the UNLOCK of the
/// membership, which is noted, too.
#[test]
fn an_order_to_leave_is_noted_before_it_is_sent() {
    let bench = bench_of("current");
    let (a, b) = (bench.by_one_path(1), bench.by_one_path(2));
    a.start(VG, bench.scope()).unwrap();
    b.start(VG, bench.scope()).unwrap();
    bench.stopped_late(&a, VG, &bench.scope());
    let note = std::fs::read_to_string(bench.state_dir(1).join("undoing-until")).unwrap();
    let date = note.lines().find_map(|line| line.strip_prefix("others_until_us "));
    let noted = Duration::from_micros(date.unwrap().parse().unwrap()).as_secs_f64();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let now: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let expected = now + (LEASE / 2).as_secs_f64() - 0.5;
    assert!(noted > expected, "{noted} {expected}");
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
    let sent = bench.stopped_late(&a, OTHER, &other());
    a.manager.set_pvs(VG, bench.paths());
    let why = text(a.lock(2, Resource::Vg, Exclusive));
    is_under_way(sent);
    assert!(why.contains("an order of this host to remove its registration"), "{why}");
    eventually(PATIENCE, "the lock", || a.lock(2, Resource::Vg, Exclusive).is_ok());
    assert!(sent.elapsed() > SLOW * 3 / 4, "granted after {:?}", sent.elapsed());
    a.unlock(2);
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
