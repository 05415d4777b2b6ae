//! Drives that take data only from registered hosts.

mod late;
mod noted;
mod others;
mod paths;
mod ways;

use super::{
    Bench, Error, Exclusive, Host, Resource, Shared, VG, eventually, is_held, is_storage, lv,
};
use idm_emulator::client::Client;
use idm_fencing::{KIND, Key};
use idm_protocol::HostId;
use idm_protocol::reservation::scsi::{ChangeAction, LIST_LEN, ParameterList, change};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::lock::ResourceKey;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(12);
const WRITE: [u8; 10] = [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// RESERVATION CONFLICT.
const CONFLICT: u8 = 0x18;

fn id(number: u8) -> HostId {
    HostId::new([number; 16], &format!("host{number}"))
}

/// A bench whose drives have this profile.
fn bench_of(profile: &str) -> Bench {
    Bench::with_profile(3, profile)
}

impl Bench {
    /// A host that is known to the drives by two ports, with reservations or without.
    fn known(&self, number: u8, reservations: bool) -> Host {
        self.known_for(number, reservations, LEASE)
    }

    /// The same with another lease.
    fn known_for(&self, number: u8, reservations: bool, lease: Duration) -> Host {
        self.known_as(number, number, reservations, lease)
    }

    /// The same with another state directory.
    fn known_as(&self, state: u8, number: u8, reservations: bool, lease: Duration) -> Host {
        let by_port = |name: &String, path: u8| {
            let socket = self.server.socket(name);
            PathBuf::from(format!("{}#host{number}.{path}", socket.display()))
        };
        let emulated: BTreeMap<String, PathBuf> = self
            .drives
            .iter()
            .flat_map(|name| {
                let second = (format!("/dev/{name}-too"), by_port(name, 1));
                [(format!("/dev/{name}"), by_port(name, 0)), second]
            })
            .collect();
        self.host_with_config(state, id(number), |config| Config {
            lease,
            reservations,
            emulated: emulated.clone(),
            ..config
        })
    }

    fn known_scope(&self) -> lvmlockd_idm::lock::Scope {
        let both = |name: &String| [format!("/dev/{name}"), format!("/dev/{name}-too")];
        lvmlockd_idm::lock::Scope::Vg {
            name: "vg0".into(),
            uuid: super::VG_UUID.into(),
            pvs: self.drives.iter().flat_map(both).collect(),
        }
    }

    /// A host that uses reservations, with the VG started.
    fn registered(&self, number: u8) -> Host {
        let host = self.known(number, true);
        host.start(VG, self.known_scope()).unwrap();
        host
    }

    /// The answer of a drive to data, by a port of a host. Its drives have no room for data, so
    /// they refuse permitted commands as unknown.
    fn takes_data(&self, drive: &str, port: &str) -> bool {
        let mut client = Client::connect(self.server.socket(drive)).unwrap().by_port(port);
        let status =
            |client: &mut Client| client.execute(&WRITE, &[0; 512], 0, PATIENCE).unwrap().status;
        // A unit attention condition may come first.
        let _ = status(&mut client);
        status(&mut client) != CONFLICT
    }

    /// The registrants of a drive, each with its key and port.
    fn registrants(&self, drive: &str) -> Vec<String> {
        let shown = self.control(&format!("reservations {drive}"));
        shown.lines().skip(3).map(str::to_owned).collect()
    }

    /// Number of the paths by which a host is registered on a drive.
    fn count(&self, drive: &str, number: u8) -> usize {
        let key = format!("{:#018x}  host{number}.", Key::of(&id(number)).number());
        self.registrants(drive).iter().filter(|line| line.starts_with(&key)).count()
    }

    /// The commands that the drives have got, by kind, when no more come.
    fn commands(&self) -> BTreeMap<String, u64> {
        let count = || {
            let mut counts = BTreeMap::new();
            for drive in &self.drives {
                for line in self.control(&format!("stats {drive}")).lines() {
                    let (kind, count) = line.split_once(' ').unwrap();
                    *counts.entry(kind.to_owned()).or_default() += count.parse::<u64>().unwrap();
                }
            }
            counts
        };
        let mut counts = count();
        eventually(PATIENCE, "the drives to get no more commands", || {
            std::thread::sleep(Duration::from_millis(200));
            let before = core::mem::replace(&mut counts, count());
            before == counts
        });
        counts
    }

    fn change(&self, drive: &str, port: &str, action: ChangeAction, keys: [u64; 2]) {
        let list = ParameterList { key: keys[0], action_key: keys[1], ..ParameterList::default() };
        let list: [u8; LIST_LEN] = list.encode();
        let mut client = Client::connect(self.server.socket(drive)).unwrap().by_port(port);
        let cdb = change(action, Some(KIND));
        let _ = client.execute(&cdb, &list, 0, PATIENCE).unwrap();
        let reply = client.execute(&cdb, &list, 0, PATIENCE).unwrap();
        assert!([0, CONFLICT].contains(&reply.status), "{reply:?}");
    }
}

fn text<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn hosts_register_by_every_path_and_the_last_one_stays() {
    let bench = bench_of("current");
    let a = bench.registered(1);
    let b = bench.registered(2);
    for drive in ["d0", "d1", "d2"] {
        assert_eq!((bench.count(drive, 1), bench.count(drive, 2)), (2, 2));
        assert!(bench.control(&format!("reservations {drive}")).contains("all-registrants"));
        assert!(bench.takes_data(drive, "host1.1") && !bench.takes_data(drive, "host3.0"));
    }
    // Locks go from hand to hand, and nobody is removed.
    a.lock(1, lv(1), Exclusive).unwrap();
    is_held(b.lock(1, lv(1), Exclusive));
    a.unlock(1);
    b.lock(1, lv(1), Exclusive).unwrap();
    b.unlock(1);
    a.manager.remove_lockspace(VG, false, false).unwrap();
    eventually(PATIENCE, "the first host to leave", || bench.count("d0", 1) == 0);
    b.manager.remove_lockspace(VG, false, false).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(bench.count("d0", 2), 2, "the reservation ends with its last registrant");
    let a = bench.registered(1);
    a.lock(1, lv(1), Exclusive).unwrap();
    assert_eq!(bench.killed(), "");
}

#[test]
fn a_dead_holder_is_removed_before_its_lock_is_granted() {
    for profile in ["current", "current+respects-reservations"] {
        let bench = bench_of(profile);
        let (a, b) = (bench.registered(1), bench.registered(2));
        a.lock(1, lv(1), Exclusive).unwrap();
        drop(a);
        is_held(b.lock(1, lv(1), Exclusive));
        eventually(PATIENCE, "the lease to end", || b.lock(1, lv(1), Exclusive).is_ok());
        for drive in ["d0", "d1", "d2"] {
            assert_eq!((bench.count(drive, 1), bench.count(drive, 2)), (0, 2), "{profile}");
            assert!(!bench.takes_data(drive, "host1.0") && !bench.takes_data(drive, "host1.1"));
            assert!(bench.takes_data(drive, "host2.0"));
        }
        assert_eq!(bench.killed(), "");
        // The host comes back when nothing of the group is in use there.
        let a = bench.registered(1);
        is_held(a.lock(1, lv(1), Exclusive));
        assert_eq!(bench.count("d0", 1), 2);
    }
}

#[test]
fn a_host_that_lives_is_not_removed_and_its_lock_counts_as_held() {
    let bench = bench_of("current");
    let (a, b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Exclusive).unwrap();
    drop(a);
    // Without the notes of its earlier life it does not renew the lock.
    let again = bench.known_as(3, 1, true, LEASE);
    again.start(VG, bench.known_scope()).unwrap();
    std::thread::sleep(LEASE + Duration::from_millis(500));
    let refused = b.lock(1, lv(1), Exclusive);
    let why = text(refused.clone());
    assert!(why.contains("host1") && why.contains("is alive there"), "{why}");
    is_held(refused);
    assert_eq!((bench.count("d0", 1), bench.killed()), (2, String::new()));
    drop(again);
    eventually(PATIENCE, "its last lease to end", || b.lock(1, lv(1), Exclusive).is_ok());
}

/// Time from a host's death to its lock on another host, the longest of 50.
#[test]
#[ignore = "takes a minute"]
fn a_lock_of_a_dead_host_is_free_a_second_after_its_lease_at_the_latest() {
    let one = || {
        let bench = bench_of("current");
        let b = bench.registered(2);
        let kill = |_| {
            let a = bench.registered(1);
            eventually(PATIENCE, "the lock", || a.lock(1, lv(1), Exclusive).is_ok());
            drop(a);
            let (_, took) = super::timed(|| {
                eventually(PATIENCE, "the lock", || b.lock(1, lv(1), Exclusive).is_ok());
            });
            b.unlock(1);
            took
        };
        (0..10).map(kill).collect::<Vec<Duration>>()
    };
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let benches: Vec<_> = (0..5).map(|_| scope.spawn(one)).collect();
        benches.into_iter().flat_map(|it| it.join().unwrap()).collect()
    });
    times.sort();
    println!("median {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);
    assert!(times.iter().all(|it| *it <= LEASE + Duration::from_secs(1)), "{times:?}");
}

#[test]
fn a_sharer_that_a_promotion_may_remove_is_removed_from_the_drives() {
    let bench = bench_of("current+promotion-removes-expired");
    let (a, b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Shared).unwrap();
    b.lock(1, lv(1), Shared).unwrap();
    drop(a);
    is_held(b.manager.convert(ResourceKey(1), Exclusive, 0));
    eventually(PATIENCE, "the lease to end", || {
        b.manager.convert(ResourceKey(1), Exclusive, 0).is_ok()
    });
    assert!(["d0", "d1", "d2"].iter().all(|drive| bench.count(drive, 1) == 0));
}

#[test]
fn a_drive_that_does_not_answer_keeps_the_lock_from_being_granted() {
    let bench = bench_of("current");
    let (a, b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Exclusive).unwrap();
    drop(a);
    bench.control("power d2 off");
    std::thread::sleep(LEASE + Duration::from_millis(500));
    let refused = b.lock(1, lv(1), Exclusive);
    let why = text(refused.clone());
    assert!(why.contains("taking data of its last holder") && why.contains("d2"), "{why}");
    is_storage(refused);
    assert_eq!(bench.count("d0", 1), 2, "nothing is done where it cannot be done everywhere");
    bench.control("power d2 on");
    eventually(PATIENCE, "the drive to be back", || b.lock(1, lv(1), Exclusive).is_ok());
    assert_eq!(bench.count("d2", 1), 0);
}

/// Nothing is taken from anybody when a lock is renewed whose last renewal was not answered.
#[test]
fn lost_answers_beside_a_drive_that_was_away_at_the_start_cost_no_lock() {
    for fault in ["lose-reply DRIVE 2", "fail DRIVE 08 4"] {
        let bench = bench_of("current");
        bench.control("power d2 off");
        let a = bench.registered(1);
        a.lock(1, lv(1), Exclusive).unwrap();
        bench.activate(1, 1, true);
        for drive in ["d0", "d1"] {
            bench.control(&fault.replace("DRIVE", drive));
        }
        std::thread::sleep(2 * LEASE);
        assert_eq!(bench.killed(), "", "{fault}");
        a.unlock(1);
    }
}

#[test]
fn a_host_that_was_removed_notices() {
    let bench = bench_of("current");
    let (a, _b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Exclusive).unwrap();
    let members = || bench.control("table d0").matches("*members-of").count();
    assert_eq!(members(), 2);
    let keys = [2, 1].map(|number| Key::of(&id(number)).number());
    bench.change("d1", "host2.0", ChangeAction::PreemptAndAbort, keys);
    eventually(PATIENCE, "the kill command", || bench.killed().contains("vg0"));
    assert!(matches!(a.lock(2, lv(2), Exclusive), Err(Error::Killed)));
    // It gives up its membership, so that it does not look alive.
    eventually(PATIENCE, "the membership to end", || members() == 1);
}

#[test]
fn hosts_that_disagree_are_refused() {
    let bench = bench_of("current");
    let a = bench.known(1, false);
    a.start(VG, bench.known_scope()).unwrap();
    let b = bench.known(2, true);
    let why = text(b.start(VG, bench.known_scope()));
    assert!(why.contains("host1") && why.contains("not registered"), "{why}");
    assert!(bench.takes_data("d0", "host1.0"), "nothing is reserved");
    a.manager.remove_lockspace(VG, false, false).unwrap();
    b.start(VG, bench.known_scope()).unwrap();
    // The other way round, the drives refuse the data of a host that did not register.
    a.start(VG, bench.known_scope()).unwrap();
    assert!(!bench.takes_data("d0", "host1.0"));
}

#[test]
fn reservations_of_others_are_left_alone() {
    let bench = bench_of("current");
    bench.change("d1", "other.0", ChangeAction::RegisterAndIgnore, [0, 0xA1]);
    let host = bench.known(1, true);
    let why = text(host.start(VG, bench.known_scope()));
    assert!(why.contains("0xa1") && why.contains("d1"), "{why}");
    assert_eq!(bench.count("d0", 1), 0);
}

/// The commands that drives got: for locks of two hosts that live, for a promotion, for a lock that
/// is held, and in all.
struct Costs {
    locks: BTreeMap<String, u64>,
    promotion: BTreeMap<String, u64>,
    refusal: BTreeMap<String, u64>,
    all: BTreeMap<String, u64>,
}

impl Costs {
    fn new(reservations: bool) -> Costs {
        let bench = bench_of("current");
        // With this lease nobody renews, or looks for its registration, in the time of the test.
        let host = |number| bench.known_for(number, reservations, super::LONG);
        let (a, b) = (host(1), host(2));
        a.start(VG, bench.known_scope()).unwrap();
        b.start(VG, bench.known_scope()).unwrap();
        let before = bench.commands();
        let steps: [&dyn Fn(); 7] = [
            &|| a.lock(1, lv(1), Exclusive).map(drop).unwrap(),
            &|| a.unlock(1),
            &|| b.lock(1, lv(1), Shared).map(drop).unwrap(),
            &|| a.lock(1, lv(1), Shared).map(drop).unwrap(),
            &|| a.unlock(1),
            &|| a.lock(2, Resource::Vg, Exclusive).map(drop).unwrap(),
            &|| a.unlock(2),
        ];
        // A step may go on with the drives that did not decide.
        let mut between = before.clone();
        for step in steps {
            step();
            between = bench.commands();
        }
        b.manager.convert(ResourceKey(1), Exclusive, 0).unwrap();
        let after = bench.commands();
        is_held(a.lock(1, lv(1), Exclusive));
        let refusal = more(&after, &bench.commands());
        b.unlock(1);
        a.manager.remove_lockspace(VG, false, false).unwrap();
        b.manager.remove_lockspace(VG, false, false).unwrap();
        let (locks, promotion) = (more(&before, &between), more(&between, &after));
        Costs { locks, promotion, refusal, all: bench.commands() }
    }
}

/// The commands that were added.
fn more(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let added = |(kind, count): (&String, &u64)| {
        let added = count - before.get(kind).unwrap_or(&0);
        (added > 0).then(|| (kind.clone(), added))
    };
    after.iter().filter_map(added).collect()
}

#[test]
fn no_command_is_added_to_a_lock_of_a_living_cluster() {
    let (with, without) = (Costs::new(true), Costs::new(false));
    assert!(with.locks["trylock"] >= 12, "{:?}", with.locks);
    assert_eq!(with.locks, without.locks);
    // A promotion may take the lock from dead sharers, which the table of each drive shows.
    let mut promotion = without.promotion;
    *promotion.entry("read-table".to_owned()).or_default() += 3;
    assert_eq!(with.promotion, promotion);
    let reserves = |counts: &BTreeMap<String, u64>| counts.contains_key("reserve-in");
    assert!(!reserves(&with.refusal), "{:?}", with.refusal);
    assert!(reserves(&with.all) && !reserves(&without.all));
}

/// The devices of a host's active LVs, in its sysfs.
fn activate(sysfs: &Path, number: usize) {
    let plain = super::VG_UUID.replace('-', "");
    let dm = sysfs.join("block/dm-0/dm");
    std::fs::create_dir_all(&dm).unwrap();
    let Resource::Lv { uuid, .. } = lv(number) else { unreachable!() };
    std::fs::write(dm.join("uuid"), format!("LVM-{plain}{}", uuid.replace('-', ""))).unwrap();
}

#[test]
fn a_new_lvmlockd_registers_only_where_its_host_was_not_removed() {
    let bench = bench_of("current");
    let (a, _b) = (bench.registered(1), bench.registered(2));
    a.lock(1, lv(1), Exclusive).unwrap();
    activate(&bench.sysfs(1), 1);
    drop(a);
    let a = bench.registered(1);
    assert_eq!(bench.count("d0", 1), 2);
    drop(a);
    let keys = [2, 1].map(|number| Key::of(&id(number)).number());
    bench.change("d1", "host2.0", ChangeAction::PreemptAndAbort, keys);
    let a = bench.known(1, true);
    let why = text(a.start(VG, bench.known_scope()));
    assert!(why.contains("removed") && why.contains("d1"), "{why}");
    assert_eq!(bench.count("d1", 1), 0);
}

#[test]
fn a_path_that_comes_late_is_registered() {
    let bench = bench_of("current");
    bench.control("power d2 off");
    let _a = bench.registered(1);
    bench.control("power d2 on");
    eventually(PATIENCE, "the registration", || bench.count("d2", 1) == 2);
    // By one of its paths the registration was lost.
    let key = Key::of(&id(1)).number();
    bench.change("d0", "host1.1", ChangeAction::Register, [key, 0]);
    assert_eq!(bench.count("d0", 1), 1);
    eventually(PATIENCE, "the registration", || bench.count("d0", 1) == 2);
    assert_eq!(bench.killed(), "");
}

/// The VG's lock is on all of its drives, and each of them is taken from the dead host by a command
/// of its own.
#[test]
fn a_lock_on_many_drives_is_taken_from_a_dead_host() {
    let lease = Duration::from_secs(12);
    let bench = Bench::with_profile(20, "current");
    let start = |number| {
        let host = bench.known_for(number, true, lease);
        host.start(VG, bench.known_scope()).unwrap();
        host
    };
    let (a, b) = (start(1), start(2));
    a.lock(1, Resource::Vg, Exclusive).unwrap();
    drop(a);
    for drive in &bench.drives {
        bench.control(&format!("skip-time {drive} {}", lease.as_millis() + 500));
        bench.control(&format!("delay {drive} 20"));
    }
    b.lock(1, Resource::Vg, Exclusive).unwrap();
    assert!(bench.drives.iter().all(|drive| bench.count(drive, 1) == 0));
}

/// Each lock is taken by procedures of its own, more at once than a drive may have orders open.
#[test]
fn many_locks_are_taken_from_a_dead_host_at_once() {
    const LOCKS: usize = 16;
    let lease = Duration::from_secs(12);
    let bench = bench_of("current");
    let start = |number| {
        let host = bench.known_for(number, true, lease);
        host.start(VG, bench.known_scope()).unwrap();
        host
    };
    let (a, b) = (start(1), start(2));
    for number in 1..=LOCKS {
        a.lock(number, lv(number), Exclusive).unwrap();
    }
    drop(a);
    for drive in &bench.drives {
        bench.control(&format!("skip-time {drive} {}", lease.as_millis() + 500));
        bench.control(&format!("delay {drive} 20"));
    }
    std::thread::scope(|scope| {
        for number in 1..=LOCKS {
            let b = &b;
            scope.spawn(move || b.lock(number, lv(number), Exclusive).unwrap());
        }
    });
    assert!(bench.drives.iter().all(|drive| bench.count(drive, 1) == 0));
}

/// A drive that hangs gives no error, so that its silence takes longer than a command may wait.
#[test]
fn a_drive_that_hangs_and_does_not_have_the_lv_is_not_waited_for() {
    let lease = Duration::from_secs(12);
    let bench = bench_of("current");
    let start = |number| {
        let host = bench.known_for(number, true, lease);
        host.start(VG, bench.known_scope()).unwrap();
        host
    };
    let on_two = || Resource::Lv {
        uuid: "LVLVLV-0000-0000-0000-0000-0000-000001".into(),
        pvs: ["/dev/d0", "/dev/d1"].map(str::to_owned).to_vec(),
    };
    let (a, b) = (start(1), start(2));
    a.lock(1, on_two(), Exclusive).unwrap();
    drop(a);
    bench.control("hang d2 on");
    for drive in ["d0", "d1", "d2"] {
        bench.control(&format!("skip-time {drive} {}", lease.as_millis() + 500));
    }
    b.lock(1, on_two(), Exclusive).unwrap();
    let counts = ["d0", "d1", "d2"].map(|drive| bench.count(drive, 1));
    assert_eq!(counts, [0, 0, 2], "it is removed where it is reached");
}
