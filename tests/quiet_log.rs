//! The log stays readable whatever drives do: messages about one drive come at a bounded rate, and
//! many paths with the same fault cause one message.
#![cfg(feature = "emulator")]

use idm_emulator::server::{DriveSpec, Server};
use idm_protocol::{HostId, Mode};
use log::{Level, LevelFilter, Log, Metadata, Record};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::lock::{Adopt, LockspaceKey, Resource, ResourceKey, Scope};
use lvmlockd_idm::manager::Manager;
use lvmlockd_idm::recovery::active::Devices;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The messages that reach the system's log.
struct Syslog;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }
    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.lock().unwrap().push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

/// The lines with that text, which are taken away.
fn taken(text: &str) -> Vec<String> {
    let mut lines = LINES.lock().unwrap();
    let (taken, left) = lines.drain(..).partition(|line| line.contains(text));
    *lines = left;
    taken
}

const VG: LockspaceKey = LockspaceKey(0x1000);
/// Flaps of a drive in the test.
const FLAPS: usize = 40;
/// Messages about one drive at once, and those that a slow machine may add.
const MOST: usize = 12;

fn scope(pvs: Vec<String>) -> Scope {
    let uuid = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz".into();
    Scope::Vg { name: "vg0".into(), uuid, pvs }
}

fn lv(number: usize) -> Resource {
    Resource::Lv { uuid: format!("LVLVLV-0000-0000-0000-0000-0000-{number:06}"), pvs: Vec::new() }
}

#[test]
fn messages_about_drives_are_bounded() {
    log::set_logger(&Syslog).unwrap();
    log::set_max_level(LevelFilter::Debug);
    let directory = tempfile::tempdir().unwrap();
    let names = ["d0", "d1", "d2"];
    let specs = names.map(|name| DriveSpec::parse(name).unwrap());
    let server = Server::start(&directory.path().join("drives"), &specs).unwrap();
    let path = |name: &str| format!("/dev/{name}");
    let config = Config {
        emulated: names.iter().map(|name| (path(name), server.socket(name))).collect(),
        state_dir: directory.path().join("state"),
        kill_command: Some(vec!["/bin/true".into()]),
        ..Config::default()
    };
    std::fs::create_dir(directory.path().join("block")).unwrap();
    let devices = Devices::with_sysfs(directory.path());
    let host = Manager::new(config, HostId::new([1; 16], "host1"), devices);

    // 997 of 1000 PVs are no drives.
    let no_drives = (0..997).map(|number| format!("/proc/{number}/nonexistent"));
    let refused =
        host.prepare_lockspace(VG, scope(names.map(path).into_iter().chain(no_drives).collect()));
    assert!(refused.is_err());
    let lines = taken("/nonexistent");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("997") && lines[0].len() < 2000, "{lines:#?}");

    host.prepare_lockspace(VG, scope(names.map(path).into())).unwrap();
    host.add_lockspace(VG, Adopt::default()).unwrap();
    for number in 0..FLAPS {
        let key = ResourceKey(number);
        let state = if number % 2 == 0 { "off" } else { "on" };
        server.control(&format!("power d0 {state}")).unwrap();
        host.lock(VG, key, lv(number), Mode::Exclusive, Adopt::default()).unwrap();
        host.unlock(key, 0, 0);
    }
    let lines = taken("drive /dev/d0 ");
    assert!((1..=MOST).contains(&lines.len()), "{} lines: {lines:#?}", lines.len());
    // The last message is not left out, and has the number of those that were.
    server.control("power d0 on").unwrap();
    let begin = Instant::now();
    let last = loop {
        host.lock(VG, ResourceKey(1), lv(1), Mode::Exclusive, Adopt::default()).unwrap();
        host.unlock(ResourceKey(1), 0, 0);
        if let Some(last) = taken("drive /dev/d0 ").pop() {
            break last;
        }
        assert!(begin.elapsed() < Duration::from_secs(40), "no last word");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(last.contains("answers again") && last.contains("left out"), "{last}");
}
