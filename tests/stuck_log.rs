//! Work that a blocked log must not prevent.
#![cfg(feature = "emulator")]

use idm_emulator::server::{DriveSpec, Server};
use idm_protocol::{HostId, Mode};
use log::{Level, LevelFilter, Log, Metadata, Record};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::lock::{Adopt, LockspaceKey, Resource, ResourceKey, Scope};
use lvmlockd_idm::manager::Manager;
use lvmlockd_idm::recovery::active::Devices;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A log like syslog: it blocks its callers while nobody reads.
struct Stuck;

static STUCK: AtomicBool = AtomicBool::new(false);

impl Log for Stuck {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        while record.level() <= Level::Warn && STUCK.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
    }
    fn flush(&self) {}
}

#[test]
fn the_kill_command_runs_although_the_log_takes_nothing() {
    log::set_logger(&Stuck).unwrap();
    log::set_max_level(LevelFilter::Info);
    let directory = tempfile::tempdir().unwrap();
    let names = ["d0", "d1", "d2"];
    let specs = names.map(|name| DriveSpec::parse(name).unwrap());
    let server = Server::start(&directory.path().join("drives"), &specs).unwrap();
    let path = |name: &str| format!("/dev/{name}");
    let killed = directory.path().join("killed");
    let script = format!(": > {}", killed.display());
    let config = Config {
        lease: Duration::from_millis(2400),
        emulated: names.iter().map(|name| (path(name), server.socket(name))).collect(),
        state_dir: directory.path().join("state"),
        kill_command: Some(["/bin/sh", "-c", &script].map(str::to_owned).into()),
        ..Config::default()
    };
    let lease = config.lease;
    std::fs::create_dir(directory.path().join("block")).unwrap();
    let devices = Devices::with_sysfs(directory.path());
    let host = Manager::new(config, HostId::new([1; 16], "host1"), devices);
    let vg = LockspaceKey(0x1000);
    let uuid = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz".to_owned();
    let scope = Scope::Vg { name: "vg0".into(), uuid: uuid.clone(), pvs: names.map(path).into() };
    host.prepare_lockspace(vg, scope).unwrap();
    host.add_lockspace(vg, Adopt::default()).unwrap();
    let lv = Resource::Lv { uuid, pvs: Vec::new() };
    host.lock(vg, ResourceKey(1), lv, Mode::Exclusive, Adopt::default()).unwrap();
    STUCK.store(true, Ordering::SeqCst);
    for name in names {
        server.control(&format!("hang {name} on")).unwrap();
    }
    let begun = Instant::now();
    while !killed.exists() && begun.elapsed() < 2 * lease {
        thread::sleep(Duration::from_millis(10));
    }
    let ran = killed.exists();
    STUCK.store(false, Ordering::SeqCst);
    assert!(ran, "the kill command was not run");
}
