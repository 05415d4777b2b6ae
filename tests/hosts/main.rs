//! Several hosts in one process, on emulated drives: the lock manager from the view of lvmlockd.
#![cfg(feature = "emulator")]

mod earlier_life;
mod fencing;
mod lives;
mod long_run;
mod orphans;
mod reading;
mod recovery;
mod restarts;
mod state_dir;
mod votes;

use idm_emulator::server::{DriveSpec, Server};
use idm_protocol::{HostId, Mode};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::error::Error;
use lvmlockd_idm::fencing::FencingConfig;
use lvmlockd_idm::lock::{Adopt, LockspaceKey, Resource, ResourceKey, Scope, ValBlk};
use lvmlockd_idm::manager::Manager;
use lvmlockd_idm::recovery::active::Devices;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const VG_UUID: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(2000);

use Mode::{Exclusive, Shared};

/// Emulated drives that hosts share.
struct Bench {
    server: Server,
    directory: tempfile::TempDir,
    drives: Vec<String>,
}

impl Bench {
    fn new(drives: usize) -> Bench {
        Bench::with_profile(drives, "current")
    }

    fn with_profile(drives: usize, profile: &str) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let drives: Vec<String> = (0..drives).map(|n| format!("d{n}")).collect();
        let spec = |name: &String| DriveSpec::parse(&format!("{name}={profile}")).unwrap();
        let specs: Vec<DriveSpec> = drives.iter().map(spec).collect();
        let server = Server::start(&directory.path().join("drives"), &specs).unwrap();
        Bench { server, directory, drives }
    }

    fn control(&self, line: &str) -> String {
        self.server.control(line).unwrap()
    }

    fn kills(&self) -> PathBuf {
        self.directory.path().join("kills")
    }

    /// The VGs for which the kill command was run so far.
    fn killed(&self) -> String {
        std::fs::read_to_string(self.kills()).unwrap_or_default()
    }

    /// Keeps the host's note of the dates until which its locks are safe from being written.
    fn obstruct_dates(&self, number: u8) {
        std::fs::create_dir_all(self.obstacle(number)).unwrap();
    }

    /// Lets it be written again.
    fn obstruct_no_more(&self, number: u8) {
        std::fs::remove_dir(self.obstacle(number)).unwrap();
    }

    fn obstacle(&self, number: u8) -> PathBuf {
        self.state_dir(number).join(format!("safe-until.{}", std::process::id()))
    }

    fn host(&self, number: u8, lease: Duration) -> Host {
        self.host_with_id(number, number, lease)
    }

    /// A host with the state directory and the devices of number `number`.
    fn host_with_id(&self, number: u8, id: u8, lease: Duration) -> Host {
        self.host_with_fencing(number, id, lease, FencingConfig::default())
    }

    /// A host after a reboot: it has its name, and another id.
    fn rebooted(&self, number: u8, lease: Duration) -> Host {
        let id = HostId::new([number + 100; 16], &format!("host{number}"));
        self.host_with_config(number, id, |config| Config { lease, ..config })
    }

    fn host_with_fencing(
        &self,
        number: u8,
        id: u8,
        lease: Duration,
        fencing: FencingConfig,
    ) -> Host {
        let id = HostId::new([id; 16], &format!("host{id}"));
        self.host_with_config(number, id, |config| Config { lease, fencing, ..config })
    }

    /// A host with other settings than the usual ones.
    fn host_with_config(&self, number: u8, id: HostId, set: impl Fn(Config) -> Config) -> Host {
        let emulated = self
            .drives
            .iter()
            .map(|name| (format!("/dev/{name}"), self.server.socket(name)))
            .collect();
        let script = format!("echo \"$0\" >> {}", self.kills().display());
        let config = Config {
            global_drives: self.paths(),
            emulated,
            state_dir: self.state_dir(number),
            kill_command: Some(["/bin/sh", "-c", &script].map(str::to_owned).to_vec()),
            ..Config::default()
        };
        let config = set(config);
        std::fs::create_dir_all(self.sysfs(number).join("block")).unwrap();
        let devices = Devices::with_sysfs(&self.sysfs(number));
        Host { manager: Manager::new(config, id, devices) }
    }

    fn state_dir(&self, number: u8) -> PathBuf {
        self.directory.path().join(format!("host{number}"))
    }

    /// The note of the dates until which locks are safe.
    fn safe_until(&self, number: u8) -> String {
        std::fs::read_to_string(self.state_dir(number).join("safe-until")).unwrap_or_default()
    }

    fn sysfs(&self, number: u8) -> PathBuf {
        self.directory.path().join(format!("host{number}.sys"))
    }

    /// A host with the VG started.
    fn started(&self, number: u8, lease: Duration) -> Host {
        let host = self.host(number, lease);
        host.start(VG, self.scope()).unwrap();
        host
    }

    fn paths(&self) -> Vec<String> {
        self.drives.iter().map(|name| format!("/dev/{name}")).collect()
    }

    fn scope(&self) -> Scope {
        Scope::Vg { name: "vg0".into(), uuid: VG_UUID.into(), pvs: self.paths() }
    }
}

const VG: LockspaceKey = LockspaceKey(0x1000);
const GLOBAL: LockspaceKey = LockspaceKey(0x2000);

struct Host {
    manager: Manager,
}

impl Host {
    fn start(&self, key: LockspaceKey, scope: Scope) -> Result<(), Error> {
        self.manager.prepare_lockspace(key, scope)?;
        self.manager.add_lockspace(key, Adopt::default())
    }

    fn lock(&self, key: usize, resource: Resource, mode: Mode) -> Result<ValBlk, Error> {
        let lockspace = if resource == Resource::Global { GLOBAL } else { VG };
        self.manager.lock(lockspace, ResourceKey(key), resource, mode, Adopt::default())
    }

    fn unlock(&self, key: usize) {
        self.manager.unlock(ResourceKey(key), 0, 0);
    }
}

fn lv(number: usize) -> Resource {
    lv_on(number, &[])
}

/// An LV on these drives; on all of the VG where none is named.
fn lv_on(number: usize, drives: &[&str]) -> Resource {
    let uuid = format!("LVLVLV-0000-0000-0000-0000-0000-{number:06}");
    Resource::Lv { uuid, pvs: drives.iter().map(|drive| format!("/dev/{drive}")).collect() }
}

/// Seconds since the machine was booted.
fn uptime() -> f64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    uptime.split(' ').next().unwrap().parse().unwrap()
}

fn is_held<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Held(_))), "{result:?}");
}

fn is_storage<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Storage(_))), "{result:?}");
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Waits until the condition holds; fails after `bound`.
fn eventually(bound: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < bound, "not within {bound:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_exclusive_lock_keeps_the_other_host_out_until_it_is_released() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    for resource in [lv(1), Resource::Vg] {
        a.lock(1, resource.clone(), Exclusive).unwrap();
        let refused = b.lock(1, resource.clone(), Exclusive);
        let text = refused.as_ref().unwrap_err().to_string();
        assert!(text.contains("host1") && text.contains("vg0"), "{text}");
        is_held(refused);
        is_held(b.lock(1, resource.clone(), Shared));
        a.unlock(1);
        b.lock(1, resource.clone(), Exclusive).unwrap();
        is_held(a.lock(1, resource.clone(), Exclusive));
        b.unlock(1);
    }
}

#[test]
fn sharers_get_along() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Shared).unwrap();
    b.lock(1, lv(1), Shared).unwrap();
    is_held(a.manager.convert(ResourceKey(1), Exclusive, 0));
    b.unlock(1);
    a.manager.convert(ResourceKey(1), Exclusive, 0).unwrap();
    is_held(b.lock(1, lv(1), Shared));
    a.manager.convert(ResourceKey(1), Shared, 0).unwrap();
    b.lock(1, lv(1), Shared).unwrap();
}

#[test]
fn one_drive_of_three_may_be_off_and_two_may_not() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    bench.control("power d0 off");
    a.lock(1, lv(1), Exclusive).unwrap();
    is_held(b.lock(1, lv(1), Exclusive));
    a.unlock(1);
    bench.control("power d1 off");
    is_storage(a.lock(2, lv(2), Exclusive));
    bench.control("power d0 on");
    // The third drive, which the refused request had got, is free again.
    eventually(Duration::from_secs(4), "lock after power on", || {
        b.lock(2, lv(2), Exclusive).is_ok()
    });
}

#[test]
fn a_drive_that_is_reserved_counts_as_one_that_does_not_answer() {
    let bench = Bench::new(3);
    let a = bench.started(1, SHORT);
    a.lock(1, lv(1), Exclusive).unwrap();
    // RESERVATION CONFLICT, to reads, too.
    bench.control("fail d1 18 1000000");
    let b = bench.started(2, SHORT);
    let convert = |mode| a.manager.convert(ResourceKey(1), mode, 0);
    convert(Shared).and_then(|()| convert(Exclusive)).unwrap();
    for (number, resource) in [(2, lv(2)), (3, Resource::Vg)] {
        a.lock(number, resource.clone(), Exclusive).unwrap();
        is_held(b.lock(number, resource.clone(), Exclusive));
        a.unlock(number);
        b.lock(number, resource, Exclusive).unwrap();
    }
    thread::sleep(2 * SHORT);
    is_held(b.lock(1, lv(1), Exclusive));
    // With the VG's lock it may have left the LV on that drive.
    convert(Shared).unwrap();
    assert!(convert(Exclusive).unwrap_err().to_string().contains("d1"));
    assert_eq!(bench.killed(), "");
}

#[test]
fn drives_that_are_slow_are_waited_for_as_long_as_the_administrator_says() {
    let bench = Bench::new(5);
    let patient =
        |config| Config { lease: LONG, request_time: Some(Duration::from_secs(15)), ..config };
    let (a, b) =
        (bench.host_with_config(1, HostId::new([1; 16], "host1"), patient), bench.host(2, LONG));
    for host in [&a, &b] {
        host.start(VG, bench.scope()).unwrap();
    }
    for drive in &bench.drives {
        bench.control(&format!("delay {drive} 3000"));
    }
    let on_one_drive = |number| match lv(number) {
        Resource::Lv { uuid, .. } => Resource::Lv { uuid, pvs: bench.paths()[..1].to_vec() },
        other => other,
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            a.lock(1, Resource::Vg, Exclusive).unwrap();
            a.lock(2, on_one_drive(2), Exclusive).unwrap();
        });
        scope.spawn(|| is_storage(b.lock(3, on_one_drive(3), Exclusive)));
    });
}

#[test]
fn a_refused_lock_leaves_nothing_behind() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Exclusive).unwrap();
    is_held(b.lock(1, lv(1), Exclusive));
    a.unlock(1);
    a.lock(1, lv(1), Exclusive).unwrap();
    // A drive beyond the majority may still be busy when the lock is granted.
    eventually(Duration::from_secs(2), "held by one host on each drive", || {
        bench.drives.iter().all(|drive| {
            let table = bench.control(&format!("table {drive}"));
            let rows = table.lines().filter(|row| row.contains("LVLVLV") && row.contains("locked"));
            rows.map(|row| row.contains("host1")).collect::<Vec<_>>() == [true]
        })
    });
}

#[test]
fn renewal_keeps_a_lock_beyond_its_lease() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    let end = Instant::now() + 3 * SHORT;
    while Instant::now() < end {
        is_held(b.lock(1, lv(1), Exclusive));
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(bench.killed(), "");
}

#[test]
fn a_dead_hosts_lock_is_taken_over_after_its_lease_and_not_before() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    assert_eq!(b.manager.hosts(VG), Ok(1));
    drop(a);
    is_held(b.lock(1, lv(1), Exclusive));
    let (_, waited) = timed(|| {
        eventually(3 * SHORT, "take-over", || b.lock(1, lv(1), Exclusive).is_ok());
    });
    assert!(waited > SHORT / 2, "{waited:?}");
    eventually(SHORT, "the dead host is not counted", || b.manager.hosts(VG) == Ok(0));
}

#[test]
fn a_change_of_the_value_is_seen_by_the_other_host() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    for host in [&a, &b] {
        host.start(GLOBAL, Scope::Global).unwrap();
    }
    for resource in [Resource::Vg, Resource::Global] {
        let block = |version| ValBlk { version: 0x0101, flags: 0, r_version: version };
        let lock = |host: &Host| host.lock(9, resource.clone(), Exclusive).unwrap();
        let unlock = |host: &Host, version| host.manager.unlock(ResourceKey(9), version, 0);
        assert_eq!(lock(&a), ValBlk::default());
        unlock(&a, 7);
        // No host has written since: the value that this host cached is valid.
        assert_eq!(lock(&a), block(7));
        unlock(&a, 0);
        assert_eq!(lock(&b), ValBlk::default());
        unlock(&b, 8);
        assert_eq!(lock(&a), ValBlk::default());
        unlock(&a, 0);
        assert_eq!(lock(&b), block(8));
        unlock(&b, 0);
    }
}

/// The number that belongs to it is in the memory of the lockspace, not on the drives.
#[test]
fn a_value_is_told_again_only_in_the_same_start_of_the_lockspace() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    let lock = || {
        let block = a.lock(1, Resource::Vg, Exclusive).unwrap();
        a.unlock(1);
        block
    };
    a.lock(1, Resource::Vg, Exclusive).unwrap();
    a.manager.unlock(ResourceKey(1), 7, 0);
    assert_eq!(lock().r_version, 7);
    a.manager.remove_lockspace(VG, false, true).unwrap();
    a.start(VG, bench.scope()).unwrap();
    assert_eq!(lock(), ValBlk::default());
}

#[test]
fn the_value_is_published_with_a_conversion() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    b.lock(1, Resource::Vg, Exclusive).unwrap();
    b.manager.unlock(ResourceKey(1), 3, 0);
    a.lock(1, Resource::Vg, Exclusive).unwrap();
    a.manager.convert(ResourceKey(1), Shared, 4).unwrap();
    assert_eq!(b.lock(1, Resource::Vg, Shared).unwrap(), ValBlk::default());
    a.unlock(1);
    b.unlock(1);
    // The first host stores the value when the other one has gone.
    let mut value = None;
    eventually(Duration::from_secs(10), "the value is stored", || {
        value = b.lock(1, Resource::Vg, Exclusive).ok();
        value.is_some()
    });
    assert_eq!(value, Some(ValBlk::default()));
}

#[test]
fn a_host_that_died_stops_counting_when_its_lease_is_over() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, SHORT));
    b.lock(1, lv(1), Shared).unwrap();
    assert_eq!(a.manager.hosts(VG), Ok(1));
    let begin = Instant::now();
    drop(b);
    assert_eq!(a.manager.hosts(VG), Ok(1));
    eventually(5 * SHORT, "the dead host is not counted", || a.manager.hosts(VG) == Ok(0));
    // Its last refresh is at most half a lease old.
    assert!(begin.elapsed() > SHORT / 2, "{:?}", begin.elapsed());
}

#[test]
fn a_host_that_has_a_removed_vg_started_is_told_so() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, Resource::Vg, Exclusive).unwrap();
    a.manager.unlock(ResourceKey(1), 0, 1);
    a.manager.remove_lockspace(VG, true, true).unwrap();
    let told = b.lock(1, Resource::Vg, Shared).unwrap();
    assert!(told.version != 0 && told.r_version != 0 && told.flags == 1, "{told:?}");
}

#[test]
fn hosts_counts_the_others_that_have_the_vg_started() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    let c = bench.host(3, LONG);
    assert_eq!(a.manager.hosts(VG), Ok(1));
    c.start(VG, bench.scope()).unwrap();
    assert_eq!(a.manager.hosts(VG), Ok(2));
    bench.control("power d2 off");
    assert_eq!(a.manager.hosts(VG), Ok(2));
    for host in [&b, &c] {
        let (removed, took) = timed(|| host.manager.remove_lockspace(VG, false, true));
        removed.unwrap();
        assert!(took < Duration::from_millis(100), "{took:?}");
    }
    assert_eq!(a.manager.hosts(VG), Ok(0));
    bench.control("power d1 off");
    let (counted, took) = timed(|| a.manager.hosts(VG));
    is_storage(counted);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_late_remove_of_an_old_resource_leaves_the_new_one_alone() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.unlock(1);
    a.lock(2, lv(1), Exclusive).unwrap();
    a.manager.remove_resource(ResourceKey(1));
    a.manager.remove_resource(ResourceKey(77));
    a.unlock(1);
    is_held(b.lock(1, lv(1), Exclusive));
    // Removing a resource that holds a lock gives the lock up.
    a.manager.remove_resource(ResourceKey(2));
    eventually(Duration::from_secs(2), "released", || b.lock(1, lv(1), Exclusive).is_ok());
}

#[test]
fn a_second_lock_by_the_same_resource_is_a_success_and_by_another_is_not() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Shared).unwrap();
    a.lock(1, lv(1), Shared).unwrap();
    b.lock(1, lv(1), Shared).unwrap();
    b.unlock(1);
    a.lock(1, lv(1), Exclusive).unwrap();
    is_held(b.lock(1, lv(1), Shared));
    is_held(a.lock(2, lv(1), Shared));
    a.unlock(1);
    b.lock(1, lv(1), Exclusive).unwrap();
}

#[test]
fn unlock_returns_at_once_when_drives_are_down() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    a.lock(1, lv(1), Exclusive).unwrap();
    for drive in &bench.drives {
        bench.control(&format!("power {drive} off"));
    }
    let ((), took) = timed(|| a.unlock(1));
    assert!(took < Duration::from_millis(300), "{took:?}");
    let (removed, took) = timed(|| a.manager.remove_lockspace(VG, false, true));
    removed.unwrap();
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn unlock_is_finished_in_the_background_when_the_drives_come_back() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    a.lock(1, lv(1), Exclusive).unwrap();
    for drive in &bench.drives {
        bench.control(&format!("power {drive} off"));
    }
    a.unlock(1);
    a.manager.remove_lockspace(VG, false, true).unwrap();
    for drive in &bench.drives {
        bench.control(&format!("power {drive} on"));
    }
    // Long before the end of the one-minute lease.
    eventually(Duration::from_secs(20), "released", || b.lock(1, lv(1), Exclusive).is_ok());
}

#[test]
fn a_hung_drive_does_not_slow_the_others() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    bench.control("hang d1 on");
    let ((), took) = timed(|| {
        for number in 0..20 {
            a.lock(number, lv(number), Exclusive).unwrap();
            is_held(b.lock(number, lv(number), Exclusive));
        }
        for number in 0..20 {
            a.unlock(number);
        }
    });
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(a.manager.hosts(VG), Ok(1));
    bench.control("hang d1 off");
}

#[test]
fn a_lockspace_can_be_stopped_and_started_again() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    for _ in 0..3 {
        a.lock(1, lv(1), Exclusive).unwrap();
        a.lock(2, Resource::Vg, Exclusive).unwrap();
        a.manager.remove_lockspace(VG, false, true).unwrap();
        assert_eq!(a.lock(1, lv(1), Exclusive), Err(Error::NoLockspace));
        eventually(Duration::from_secs(2), "all is released", || {
            b.lock(1, lv(1), Exclusive).is_ok() && b.lock(2, Resource::Vg, Exclusive).is_ok()
        });
        b.unlock(1);
        b.unlock(2);
        a.manager.remove_resource(ResourceKey(1));
        a.start(VG, bench.scope()).unwrap();
    }
}

#[test]
fn losing_the_quorum_kills_once_in_time_and_a_new_start_recovers() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, SHORT), bench.started(2, SHORT));
    a.lock(1, lv(1), Exclusive).unwrap();
    a.lock(2, lv(2), Exclusive).unwrap();
    bench.control("power d0 off");
    thread::sleep(SHORT);
    assert_eq!(bench.killed(), "", "one drive of three may be lost");
    bench.control("power d1 off");
    let start = Instant::now();
    let ((), waited) = timed(|| {
        eventually(SHORT, "kill command before the lease is over", || !bench.killed().is_empty());
    });
    assert!(waited < SHORT, "{waited:?}");
    assert_eq!(a.lock(3, lv(3), Exclusive), Err(Error::Killed));
    assert_eq!(a.manager.convert(ResourceKey(1), Shared, 0).err(), None);
    let ((), took) = timed(|| {
        a.unlock(1);
        a.unlock(2);
        a.manager.remove_lockspace(VG, false, true).unwrap();
    });
    assert!(took < Duration::from_millis(100), "{took:?}");
    bench.control("power d0 on");
    bench.control("power d1 on");
    a.start(VG, bench.scope()).unwrap();
    a.lock(1, lv(1), Exclusive).unwrap();
    is_held(b.lock(1, lv(1), Exclusive));
    thread::sleep((3 * SHORT).saturating_sub(start.elapsed()));
    is_held(b.lock(1, lv(1), Exclusive));
    assert_eq!(bench.killed(), "vg0\n");
}

/// The administrator drops the VG while its LV is active, as lvm2's own tests do.
#[test]
fn a_dropped_vg_can_be_started_again_although_its_lv_is_active() {
    let bench = Bench::new(1);
    let a = bench.started(1, SHORT);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.activate(1, 1, true);
    bench.control("power d0 off");
    eventually(2 * SHORT, "kill command", || !bench.killed().is_empty());
    a.unlock(1);
    a.manager.remove_lockspace(VG, false, true).unwrap();
    bench.control("power d0 on");
    let refused = || matches!(a.start(VG, bench.scope()), Err(Error::Unprotected(_)));
    bench.activate(1, 2, true);
    assert!(refused(), "another LV was activated since");
    bench.activate(1, 2, false);
    eventually(2 * SHORT, "the start", || a.start(VG, bench.scope()).is_ok());
    eventually(2 * SHORT, "the lock", || a.lock(1, lv(1), Exclusive).is_ok());
    a.unlock(1);
    a.manager.remove_lockspace(VG, false, true).unwrap();
    assert!(refused(), "it was stopped, not dropped");
}

#[test]
fn counters_are_shown_while_a_lockspace_is_started() {
    let bench = Bench::new(3);
    let a = bench.started(1, LONG);
    let file = bench.state_dir(1).join("metrics.prom");
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    let membership = "lvmlockd_idm_locks_held{role=\"membership\",mode=\"shared\"} 1\n";
    eventually(Duration::from_secs(5), "metrics", || text().contains(membership));
    assert!(text().contains("lvmlockd_idm_lockspaces 1\n"), "{}", text());
    assert_eq!(text().matches("lvmlockd_idm_drive_answers{").count(), 3);
    a.manager.remove_lockspace(VG, false, true).unwrap();
    eventually(Duration::from_secs(5), "no metrics", || !file.exists());
}

#[test]
fn two_hundred_locks_at_once() {
    let bench = Bench::new(3);
    let hosts = [1, 2].map(|number| Arc::new(bench.started(number, LONG)));
    let threads: Vec<_> = (0..200)
        .map(|n| {
            let host = hosts[n % 2].clone();
            thread::spawn(move || {
                // 50 LVs, each requested twice by each host: core would let one of a host's two
                // requests in.
                let (key, wanted) = (n + 1, lv(n / 2 % 50));
                let got = host.lock(key, wanted, Exclusive);
                if got.is_ok() {
                    thread::sleep(Duration::from_millis(20));
                    host.unlock(key);
                }
                got
            })
        })
        .collect();
    let mut granted = 0;
    for thread in threads {
        match thread.join().unwrap() {
            Ok(_) => granted += 1,
            Err(Error::Held(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(granted >= 50, "{granted}");
    for (number, host) in hosts.iter().enumerate() {
        for lv_number in 0..50 {
            eventually(Duration::from_secs(5), "free again", || {
                host.lock(lv_number + 1, lv(lv_number), Exclusive).is_ok()
            });
            host.unlock(lv_number + 1);
        }
        assert_eq!(host.manager.hosts(VG), Ok(1), "host {number}");
    }
}

#[test]
fn a_vg_without_usable_drives_does_not_start() {
    let bench = Bench::new(3);
    let a = bench.host(1, SHORT);
    let scope = |pvs: &[&str]| Scope::Vg {
        name: "vg0".into(),
        uuid: VG_UUID.into(),
        pvs: pvs.iter().map(|&pv| pv.to_owned()).collect(),
    };
    let refusal = |scope| a.manager.prepare_lockspace(VG, scope).unwrap_err();
    assert!(matches!(refusal(scope(&[])), Error::Invalid(_)));
    let missing = refusal(scope(&["/dev/d0", "/dev/nonexistent-1", "/dev/nonexistent-2"]));
    assert!(matches!(missing, Error::Storage(_)), "{missing}");
    let unusable = refusal(scope(&["/dev/null"]));
    assert!(matches!(&unusable, Error::Invalid(why) if why.contains("/dev/null")), "{unusable}");
    let broken = Scope::Vg { name: "vg0".into(), uuid: "no".into(), pvs: bench.paths() };
    assert!(matches!(refusal(broken), Error::Invalid(_)));
    bench.control("power d0 off");
    bench.control("power d1 off");
    let down = refusal(bench.scope());
    assert!(
        matches!(&down, Error::Storage(why) if why.contains("1 of 3 drives can be read")),
        "{down}"
    );
    bench.control("power d1 on");
    a.start(VG, bench.scope()).unwrap();
}

#[test]
fn a_drive_that_speaks_no_idm_is_named() {
    let bench = Bench::new(1);
    let a = bench.host(1, SHORT);
    bench.control("fail d0 02 100 5/20/0/1");
    let refusal = a.manager.prepare_lockspace(VG, bench.scope()).unwrap_err();
    assert!(refusal.to_string().contains("has no IDM"), "{refusal}");
    assert!(refusal.to_string().contains("/dev/d0"), "{refusal}");
}

#[test]
fn the_global_lockspace_always_starts_and_its_lock_says_what_is_missing() {
    let bench = Bench::new(1);
    let mut config = Config { lease: SHORT, state_dir: bench.state_dir(1), ..Config::default() };
    config.emulated = [("/dev/d0".to_owned(), bench.server.socket("d0"))].into();
    let host =
        Host { manager: Manager::new(config, HostId::new([1; 16], "h"), Devices::default()) };
    assert!(!host.manager.is_running());
    host.start(GLOBAL, Scope::Global).unwrap();
    let refused = host.lock(1, Resource::Global, Shared);
    assert!(refused.as_ref().unwrap_err().to_string().contains("[global]"), "{refused:?}");
    is_storage(refused);
    assert!(!host.manager.is_running());
    host.start(VG, bench.scope()).unwrap();
    assert!(host.manager.is_running());
    host.manager.remove_lockspace(GLOBAL, false, true).unwrap();
    host.start(GLOBAL, Scope::Global).unwrap();
}

#[test]
fn an_lv_lock_is_seen_from_all_of_the_vgs_drives() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    let on = |pvs: &[&str]| match lv(1) {
        Resource::Lv { uuid, .. } => {
            Resource::Lv { uuid, pvs: pvs.iter().map(|&pv| pv.to_owned()).collect() }
        }
        other => other,
    };
    a.lock(1, on(&["/dev/d0"]), Exclusive).unwrap();
    // The LV was moved meanwhile, so the other host counts another drive.
    is_held(b.lock(1, on(&["/dev/d2"]), Exclusive));
    a.unlock(1);
    b.lock(1, on(&["/dev/d2"]), Exclusive).unwrap();
}

#[test]
fn a_vg_can_be_started_again_right_after_an_outage() {
    let bench = Bench::new(3);
    // A quarter of it is slightly longer than a request waits for its drives.
    let a = bench.started(1, Duration::from_secs(21));
    for drive in ["d0", "d1", "d2"] {
        bench.control(&format!("lose-reply {drive} 1"));
    }
    // Commands that were sent at the end may still be on their way to the drives.
    a.manager.remove_lockspace(VG, false, true).unwrap();
    a.start(VG, bench.scope()).unwrap();
}

#[test]
fn an_lv_that_is_moved_is_met_on_its_new_drive_even_if_the_old_one_is_gone() {
    let bench = Bench::new(3);
    let (a, b) = (bench.started(1, LONG), bench.started(2, LONG));
    let on = |pv: &str| match lv(1) {
        Resource::Lv { uuid, .. } => Resource::Lv { uuid, pvs: vec![pv.to_owned()] },
        other => other,
    };
    a.lock(1, on("/dev/d0"), Exclusive).unwrap();
    // Moving the LV takes the VG's lock first.
    a.lock(2, Resource::Vg, Exclusive).unwrap();
    let is_lv_lock = |line: &str| line.contains("lv ") && line.contains(" ex ");
    let spread = || bench.control("table d2").lines().any(is_lv_lock);
    eventually(LONG, "the LV's lock on the other drives", spread);
    a.manager.unlock(ResourceKey(2), 0, 0);
    bench.control("power d0 off");
    is_held(b.lock(1, on("/dev/d2"), Exclusive));
}

#[test]
fn what_only_adopts_finds_nothing() {
    let bench = Bench::new(1);
    let host = bench.host(1, LONG);
    let only = Adopt { only: true, ok: false };
    host.manager.prepare_lockspace(VG, bench.scope()).unwrap();
    assert_eq!(host.manager.add_lockspace(VG, only), Err(Error::AdoptNone));
    assert_eq!(host.manager.add_lockspace(VG, Adopt::default()), Err(Error::NoLockspace));
    host.start(VG, bench.scope()).unwrap();
    let lock = host.manager.lock(VG, ResourceKey(1), lv(1), Exclusive, only);
    assert_eq!(lock, Err(Error::AdoptNone));
}

#[test]
fn odd_calls_are_harmless() {
    let bench = Bench::new(1);
    let host = bench.host(1, LONG);
    host.unlock(5);
    host.manager.remove_resource(ResourceKey(5));
    host.manager.set_pvs(VG, bench.paths());
    assert_eq!(host.manager.remove_lockspace(VG, true, true), Ok(()));
    assert_eq!(host.manager.hosts(VG), Err(Error::NoLockspace));
    assert_eq!(host.lock(1, lv(1), Exclusive), Err(Error::NoLockspace));
    host.manager.prepare_lockspace(VG, bench.scope()).unwrap();
    assert_eq!(host.lock(1, lv(1), Exclusive), Err(Error::NoLockspace));
    host.manager.add_lockspace(VG, Adopt::default()).unwrap();
    assert!(matches!(host.lock(1, Resource::Global, Shared), Err(Error::NoLockspace)));
    let converted = host.manager.convert(ResourceKey(1), Shared, 0);
    assert!(matches!(converted, Err(Error::Invalid(_))));
    let broken = Resource::Lv { uuid: "x".into(), pvs: Vec::new() };
    assert!(matches!(host.lock(1, broken, Shared), Err(Error::Invalid(_))));
}

/// A drive that answers "conflict" and then cannot be read may know of a holder that counts other
/// drives: such a request is refused, and can be repeated.
#[test]
fn a_drive_that_answers_nonsense_disturbs_nothing_that_is_held() {
    let bench = Bench::new(3);
    let a = bench.started(1, SHORT);
    let b = bench.started(2, SHORT);
    a.lock(1, lv(1), Exclusive).unwrap();
    bench.control("nonsense d1 on");
    let (mut granted, mut refused) = (0, 0);
    let mut lock = |host: &Host, key, resource: Resource, mode| loop {
        match host.lock(key, resource.clone(), mode) {
            Ok(_) => return granted += 1,
            Err(Error::Held(_)) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
        assert!(refused < 10 + granted, "{refused} of {granted} were refused");
    };
    // Beyond the lease: the other two drives keep the held locks.
    let end = Instant::now() + 2 * SHORT;
    let mut number = 2;
    while Instant::now() < end || number < 10 {
        lock(&a, number, lv(number), Exclusive);
        is_held(b.lock(number, lv(number), Shared));
        a.unlock(number);
        lock(&b, number, lv(number), Shared);
        lock(&a, number, lv(number), Shared);
        a.unlock(number);
        b.unlock(number);
        lock(&a, 9999, Resource::Vg, Exclusive);
        a.manager.unlock(ResourceKey(9999), number as u32, 0);
        is_held(b.lock(1, lv(1), Exclusive));
        number += 1;
    }
    bench.control("nonsense d1 off");
    a.unlock(1);
    b.lock(1, lv(1), Exclusive).unwrap();
    assert_eq!(bench.killed(), "");
}
