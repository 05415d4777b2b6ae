//! Emulated drives, hosts that use them, and the log of what happened.

use crate::core::Core;
use crate::lvm::{self, Call};
use idm_emulator::client::Client;
use idm_emulator::server::{DriveSpec, Server};
use idm_protocol::scsi::Cdb;
use idm_protocol::{HostId, Mode};
use log::{Level, LevelFilter, Log, Metadata, Record};
use lvmlockd_idm::config::{Config, ConfigError, FILE_VARIABLE};
use lvmlockd_idm::error::Error;
use lvmlockd_idm::lock::{Adopt, LockspaceKey, Resource, ResourceKey, Scope};
use lvmlockd_idm::manager::Manager;
use lvmlockd_idm::recovery::active::Devices;
use regex_lite::Regex;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

pub const VG: LockspaceKey = LockspaceKey(0x1000);
pub const GLOBAL: LockspaceKey = LockspaceKey(0x2000);
pub const LV_UUID: &str = "LVLVLV-0000-0000-0000-0000-0000-000001";
pub const VG_UUID: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
/// A lease that is soon over.
pub const SHORT: Duration = Duration::from_millis(2400);
/// A lease that leaves the kill command its time, on a slow machine too.
pub const KILLED: Duration = Duration::from_secs(4);
/// A lease that no fault waits for.
pub const LONG: Duration = Duration::from_secs(60);
/// The longest wait for a line of the log.
const SOON: Duration = Duration::from_secs(20);

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the messages that an administrator may read.
struct Ears;

impl Log for Ears {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        LINES.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// Begins to listen to the log. The directory has the files that lvm and lvmlockd would find in
/// /etc.
pub fn listen() -> tempfile::TempDir {
    log::set_logger(&Ears).unwrap();
    log::set_max_level(LevelFilter::Info);
    let etc = tempfile::tempdir().unwrap();
    fs::write(etc.path().join("lvm.conf"), "global {\n}\n").unwrap();
    let settings = etc.path().join("lvmlockd-idm.conf");
    fs::write(&settings, format!("state_dir = {:?}\n", etc.path().join("run"))).unwrap();
    // SAFETY: no other thread runs yet.
    unsafe {
        std::env::set_var("LVM_SYSTEM_DIR", etc.path());
        std::env::set_var(FILE_VARIABLE, settings);
    }
    etc
}

/// Three emulated drives and a place for files.
pub struct Scene {
    server: Server,
    directory: tempfile::TempDir,
    answer: Option<(Call, i32)>,
}

impl Scene {
    /// The drives have that profile of the emulator's.
    pub fn with_firmware(profile: &str) -> Scene {
        LINES.lock().unwrap().clear();
        let directory = tempfile::tempdir().unwrap();
        let specs = DRIVES.map(|name| DriveSpec::parse(&format!("{name}={profile}")).unwrap());
        let server = Server::start(&directory.path().join("drives"), &specs).unwrap();
        Scene { server, directory, answer: None }
    }

    /// Gives an order to the drives.
    pub fn order(&self, line: &str) -> String {
        self.server.control(line).unwrap()
    }

    /// The same for several of them; `#` stands for the name.
    pub fn order_all(&self, drives: &[&str], line: &str) {
        drives.iter().for_each(|drive| drop(self.order(&line.replace('#', drive))));
    }

    pub fn config(&self, number: u8, lease: Duration) -> Config {
        let emulated = DRIVES.iter().map(|name| (path(name), self.server.socket(name)));
        Config {
            lease,
            global_drives: DRIVES.map(path).to_vec(),
            emulated: emulated.collect(),
            state_dir: self.state_dir(number),
            kill_command: Some(vec!["/bin/true".into()]),
            ..Config::default()
        }
    }

    pub fn state_dir(&self, number: u8) -> PathBuf {
        self.directory.path().join(format!("host{number}"))
    }

    fn sysfs(&self, number: u8) -> PathBuf {
        self.directory.path().join(format!("host{number}.sys"))
    }

    pub fn host_with(&self, number: u8, config: Config) -> Host {
        self.host_as(number, number, config)
    }

    /// A host with the devices of number `number`.
    fn host_as(&self, number: u8, id: u8, config: Config) -> Host {
        fs::create_dir_all(self.sysfs(number).join("block")).unwrap();
        let devices = Devices::with_sysfs(&self.sysfs(number));
        Host { manager: Manager::new(config, host_id(id), devices) }
    }

    pub fn host(&self, number: u8, lease: Duration) -> Host {
        self.host_with(number, self.config(number, lease))
    }

    /// A host that uses reservations. The drives know it by a port of its own.
    pub fn reserving(&self, number: u8, lease: Duration) -> Host {
        self.reserving_as(number, number, lease)
    }

    /// The same host with the files of number `number`.
    pub fn reserving_as(&self, number: u8, id: u8, lease: Duration) -> Host {
        let usual = self.config(number, lease);
        let by_port = |(path, socket): (&String, &PathBuf)| {
            (path.clone(), format!("{}#host{id}.0", socket.display()).into())
        };
        let emulated = usual.emulated.iter().map(by_port).collect();
        self.host_as(number, id, Config { emulated, reservations: true, ..usual })
    }

    /// Sends a command by a port of a drive.
    pub fn send(&self, drive: &str, port: &str, cdb: &Cdb, data: &[u8]) {
        let mut client = Client::connect(self.server.socket(drive)).unwrap().by_port(port);
        // A unit attention condition may come first.
        let _ = client.execute(cdb, data, 0, SOON).unwrap();
        client.execute(cdb, data, 0, SOON).unwrap();
    }

    /// A host with the VG started.
    pub fn started(&self, number: u8, lease: Duration) -> Host {
        self.started_on(&DRIVES, number, lease)
    }

    /// The same where the VG is on some of the drives.
    pub fn started_on(&self, drives: &[&str], number: u8, lease: Duration) -> Host {
        let host = self.host(number, lease);
        host.start(VG, scope(drives)).unwrap();
        host
    }

    /// Kills a host's lvmlockd and starts it again.
    pub fn restarted(&self, host: Host, number: u8, lease: Duration) -> Host {
        drop(host);
        let host = self.host(number, lease);
        host.manager.recover();
        host
    }

    /// Makes the LV look active on a host, or not any more.
    pub fn activate(&self, number: u8, active: bool) {
        let device = self.sysfs(number).join("block/dm-1");
        if !active {
            return fs::remove_dir_all(&device).unwrap();
        }
        fs::create_dir_all(device.join("dm")).unwrap();
        let uuid = format!("{VG_UUID}{LV_UUID}\n").replace('-', "");
        fs::write(device.join("dm/uuid"), format!("LVM-{uuid}")).unwrap();
    }

    /// A file with settings.
    pub fn settings(&self, text: &str) -> PathBuf {
        let file = self.directory.path().join("etc/lvmlockd-idm.conf");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    /// A host that has another configuration than the usual one.
    pub fn host_but(&self, change: impl FnOnce(&mut Config)) -> Host {
        let mut config = self.config(1, KILLED);
        change(&mut config);
        self.host_with(1, config)
    }

    /// Records the answer to a call of core's.
    pub fn told<T>(&mut self, call: Call, answer: Result<T, Error>) {
        let Err(error) = answer else { panic!("it was not refused") };
        let number = if call == Call::Prepare { error.start_errno() } else { error.errno() };
        self.answer = Some((call, number));
        let (function, about) = call.function();
        LINES.lock().unwrap().push(error.line(function, about, number));
    }

    /// The same for a configuration, whose error lvm gets when it starts a VG.
    pub fn told_config(&mut self, answer: Result<Config, ConfigError>) {
        let error = answer.map_err(|error| Error::Invalid(error.to_string()));
        self.told(Call::Prepare, error);
    }

    /// The same for a call by core.
    pub fn told_by_core(&mut self, call: Call, work: impl FnOnce(&Core) -> i32) {
        let answer = work(&Core);
        assert!(answer < 0, "it was not refused");
        self.answer = Some((call, answer));
    }

    /// Waits until the condition holds.
    pub fn eventually(&self, what: &str, mut so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !so() {
            assert!(begin.elapsed() < SOON, "not in time: {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a line of the log.
    pub fn hears(&self, what: &str) {
        self.eventually(what, || LINES.lock().unwrap().iter().any(|line| line.contains(what)));
    }

    /// The file or folder in a host's state directory.
    pub fn state(&self, name: &str) -> PathBuf {
        self.state_dir(1).join(name)
    }

    /// The message of lvm.
    pub fn lvm_says(&self) -> String {
        match self.answer {
            Some((call, answer)) => lvm::says(call, answer),
            None => "nothing".into(),
        }
    }

    /// The log, with names that are the same in each run.
    pub fn lines(&self) -> Vec<String> {
        let directory = self.directory.path().display().to_string();
        let identity = Regex::new(&format!("emulated.{directory}/drives/d([0-9]).sock")).unwrap();
        let socket = Regex::new(&format!("{directory}/drives/(d[0-9]).sock")).unwrap();
        let state = Regex::new(&format!("{directory}/host[0-9]")).unwrap();
        let etc = Regex::new(r"[^ ]*/lvm.conf").unwrap();
        let number = Regex::new(r"\b[0-9]+ (s|ms)\b").unwrap();
        let plain = |line: &String| {
            let line = identity.replace_all(line, "naa.5000c500a1b2c3d$1");
            let line = socket.replace_all(&line, "/dev/$1");
            let line = state.replace_all(&line, "/run/lvmlockd-idm");
            let line = line.replace(&format!("{directory}/etc"), "/etc/lvm");
            // Whether the library already knows that a drive is off depends on the moment.
            let line = line.replace("the command was not sent: ", "");
            let line = etc.replace_all(&line, "/etc/lvm/lvm.conf");
            number.replace_all(&line, "N $1").into_owned()
        };
        LINES.lock().unwrap().iter().map(plain).collect()
    }
}

/// The id of a host.
pub fn host_id(number: u8) -> HostId {
    HostId::new([number; 16], &format!("host{number}"))
}

/// The names of the drives.
pub const DRIVES: [&str; 3] = ["d0", "d1", "d2"];

pub fn path(drive: &str) -> String {
    format!("/dev/{drive}")
}

/// The VG on drives, or on whatever paths.
pub fn scope(drives: &[&str]) -> Scope {
    let path_of = |name: &&str| if name.contains('/') { (*name).to_owned() } else { path(name) };
    let pvs = drives.iter().map(path_of).collect();
    Scope::Vg { name: "vg0".into(), uuid: VG_UUID.into(), pvs }
}

/// The LV in messages.
pub const LV: &str = "LV LVLVLV-0000-0000-0000-0000-0000-000001";

/// The LV, on all of the VG's drives.
pub fn lv() -> Resource {
    lv_on(&[])
}

/// The LV, on some of the VG's drives.
pub fn lv_on(drives: &[&str]) -> Resource {
    Resource::Lv { uuid: LV_UUID.into(), pvs: drives.iter().map(|name| path(name)).collect() }
}

/// Another LV.
pub fn other_lv(number: usize) -> Resource {
    let uuid = format!("OTHERS-0000-0000-0000-0000-0000-{number:06}");
    Resource::Lv { uuid, pvs: Vec::new() }
}

/// A host with lvmlockd.
pub struct Host {
    pub manager: Manager,
}

impl Host {
    pub fn start(&self, key: LockspaceKey, scope: Scope) -> Result<(), Error> {
        self.manager.prepare_lockspace(key, scope)?;
        self.manager.add_lockspace(key, Adopt::default())
    }

    pub fn lock(&self, key: usize, resource: Resource, mode: Mode) -> Result<(), Error> {
        let lockspace = if resource == Resource::Global { GLOBAL } else { VG };
        let adopt = Adopt::default();
        self.manager.lock(lockspace, ResourceKey(key), resource, mode, adopt).map(drop)
    }

    pub fn unlock(&self, key: usize) {
        self.manager.unlock(ResourceKey(key), 0, 0);
    }
}
