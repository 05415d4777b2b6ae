//! Emulated drives, and hosts that hold locks on them by the real lock engine.
#![allow(dead_code)] // Each test uses a part.

use idm_emulator::client::Client;
use idm_emulator::server::{DriveSpec, Server};
use idm_engine::{DriveRef, Event, Instant, Lock, LockConfig, Member, Outcome, Request, Timing};
use idm_protocol::reservation::ReservationType;
use idm_protocol::reservation::scsi::{self as reservation, ChangeAction, ParameterList};
use idm_protocol::{DriveCommand, HostId, Mode, MutexOp, Record, Reply, ResourceId, Status, scsi};
use idmctl::fleet::{Asked, Fleet, ask, wall_ms};
use idmctl::host::{Host, Places};
use idmctl::output::Progress;
use idmctl::view::{Maker, View};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::error::Error;
use lvmlockd_idm::lock::{Adopt, LockspaceKey, Resource, ResourceKey, Scope, membership_of};
use lvmlockd_idm::manager::Manager;
use lvmlockd_idm::recovery::active::Devices;
use lvmlockd_idm::state::{host_id, store};
use lvmlockd_idm::tools::deadline;
use lvmlockd_idm::topology::{PathAddress, Topology};
use lvmlockd_idm::transport::connector;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The uuid of the volume group of these tests, as LVM prints it, and of its LV.
pub const VG: &str = "AAAAAA-aaaa-bbbb-cccc-dddd-eeee-ffffff";
pub const LV: &str = "BBBBBB-aaaa-bbbb-cccc-dddd-eeee-ffffff";

pub fn vg() -> ResourceId {
    ResourceId::vg(VG).unwrap()
}

pub fn lv() -> ResourceId {
    ResourceId::lv(VG, LV).unwrap()
}

/// The membership mutex of the volume group.
pub fn members() -> ResourceId {
    membership_of(&vg())
}

const LOCKSPACE: LockspaceKey = LockspaceKey(0x1000);
const RESOURCE: ResourceKey = ResourceKey(0x2000);

/// Drives d0, d1, …, and a host that looks at them.
pub struct World {
    pub server: Server,
    pub names: Vec<String>,
    pub places: Places,
    pub config: Result<Config, String>,
    pub this_host: HostId,
    /// The wait for drives. It is ample, so that the speed of the machine does not matter, until a
    /// drive is made to hang.
    pub patience: Duration,
    lvmlockd: Option<UnixListener>,
    /// The library of this host, where a test needs it.
    pub library: Option<Manager>,
    pub dir: TempDir,
}

impl World {
    /// `count` drives with that profile.
    pub fn new(count: usize, profile: &str) -> World {
        World::with(&vec![profile; count])
    }

    /// A drive for each profile.
    pub fn with(profiles: &[&str]) -> World {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..profiles.len()).map(|n| format!("d{n}")).collect();
        let spec = |(name, profile): (&String, &&str)| {
            DriveSpec::parse(&format!("{name}={profile}")).unwrap()
        };
        let specs: Vec<DriveSpec> = names.iter().zip(profiles).map(spec).collect();
        let server = Server::start(&dir.path().join("drives"), &specs).unwrap();
        let places = Places {
            lvmlockd: dir.path().join("lvmlockd.socket"),
            backups: dir.path().join("backup"),
            block: dir.path().join("block"),
        };
        let lvmlockd = Some(UnixListener::bind(&places.lvmlockd).unwrap());
        let state = dir.path().join("state");
        let this_host = HostId::new([1; 16], "here");
        fs::create_dir(&state).unwrap();
        let id = host_id::format(&host_id::boot_id().unwrap(), this_host);
        fs::write(host_id::file(&state), id).unwrap();
        let config = Config {
            emulated: names.iter().map(|name| (name.clone(), server.socket(name))).collect(),
            global_drives: names.clone(),
            state_dir: state,
            ..Config::default()
        };
        let patience = Duration::from_secs(60);
        let config = Ok(config);
        let library = None;
        World { server, names, places, config, this_host, patience, lvmlockd, library, dir }
    }

    /// Starts the library as lvmlockd on this host does, with the VG. One that runs dies before.
    pub fn start_library(&mut self, lease: Duration) {
        if self.library.take().is_none() {
            // The first one since the boot has nothing to wait for.
            fs::remove_file(host_id::file(&self.settings().state_dir)).unwrap();
        }
        let config = self.config.as_mut().unwrap();
        config.lease = lease;
        config.kill_command = Some(vec!["/bin/true".to_owned()]);
        let config = config.clone();
        fs::create_dir_all(&self.places.block).unwrap();
        let manager = Manager::new(config, self.this_host, Devices::with_sysfs(self.dir.path()));
        self.library = Some(manager);
        self.prepare_lockspace();
    }

    /// Begins the start of the VG.
    pub fn prepare_lockspace(&self) {
        let scope = Scope::Vg { name: "vg0".into(), uuid: VG.into(), pvs: self.names.clone() };
        self.manager().prepare_lockspace(LOCKSPACE, scope).unwrap();
    }

    /// Stops the VG.
    pub fn drop_lockspace(&self) {
        self.manager().remove_lockspace(LOCKSPACE, false, true).unwrap();
    }

    /// Ends the start of the VG, which waits for what an earlier lvmlockd has left.
    pub fn start_lockspace(&self) {
        self.manager().add_lockspace(LOCKSPACE, Adopt::default()).unwrap();
    }

    pub fn manager(&self) -> &Manager {
        self.library.as_ref().unwrap()
    }

    /// A request of lvm for the lock of the LV, or of the VG.
    pub fn request(&self, id: ResourceId, mode: Mode) -> Result<(), Error> {
        let resource = match id.is_lv() {
            true => Resource::Lv { uuid: LV.into(), pvs: Vec::new() },
            false => Resource::Vg,
        };
        let done = self.manager().lock(LOCKSPACE, RESOURCE, resource, mode, Adopt::default());
        done.map(drop)
    }

    /// The end of such a request.
    pub fn give_up(&self) {
        self.manager().unlock(RESOURCE, 0, 0);
    }

    fn settings(&self) -> Config {
        self.config.clone().unwrap_or_default()
    }

    /// Ends lvmlockd of this host.
    pub fn stop_lvmlockd(&mut self) {
        self.lvmlockd = None;
        let _ = fs::remove_file(&self.places.lvmlockd);
    }

    /// Notes that the VG is started here, with PVs on these drives.
    pub fn start_vg(&self, name: &str, paths: &[&str]) {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let started =
            store::SavedLockspace { name: name.into(), uuid: VG.into(), paths, drives: Vec::new() };
        self.store().save_lockspace(&vg(), &started).unwrap();
    }

    /// Notes a lock of this host on all drives.
    pub fn note_lock(&self, id: &ResourceId) {
        let drives = self.names.iter().map(|name| self.identity(name)).collect();
        let note =
            store::SavedLock { exclusive: true, granted: true, asked_us: 1, paths: vec![], drives };
        self.store().save_lock(id, &note).unwrap();
    }

    fn store(&self) -> store::Store {
        let state_dir = self.settings().state_dir;
        store::Store::open_for(&state_dir, &host_id::boot_id().unwrap()).unwrap()
    }

    pub fn identity(&self, name: &str) -> String {
        format!("emulated.{}", self.server.socket(name).display())
    }

    /// The host that looks at the drives.
    pub fn host(&self) -> Host {
        Host::with_config(&self.places, self.config.clone(), None).unwrap()
    }

    /// Its drives, asked.
    pub fn ask(&self, host: &Host) -> (Fleet, Vec<Asked>) {
        let fleet = Fleet::of(host);
        let mut progress = Progress::default();
        let asked = ask(&host.topology, &fleet.drives, self.patience, false, &mut progress);
        (fleet, asked)
    }

    /// The view that `idmctl status` prints.
    pub fn view(&self) -> View {
        let host = self.host();
        let (fleet, asked) = self.ask(&host);
        Maker::new(&host, &fleet, &asked, wall_ms()).view(|_| true)
    }

    /// Makes a drive not answer.
    pub fn hang(&mut self, name: &str) {
        self.control(&format!("hang {name} on"));
        self.patience = Duration::from_secs(2);
    }

    /// A control command to the drives.
    pub fn control(&self, line: &str) -> String {
        self.server.control(line).unwrap()
    }

    /// The records of a drive.
    pub fn records(&self, name: &str) -> Vec<Record> {
        match self.send(name, &DriveCommand::ReadTable) {
            Reply::Table(records) => records.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// Puts a record on a drive, as its host would.
    pub fn plant(&self, name: &str, record: Record) {
        let taken = self.send(name, &DriveCommand::Mutex(MutexOp::Trylock, record));
        assert_eq!(taken, Reply::Status(Status::Good));
    }

    /// The same, with the time in the record.
    pub fn plant_with_its_time(&self, name: &str, record: &Record) {
        let mut drive = Client::connect(self.server.socket(name)).unwrap();
        let cdb = scsi::mutex(MutexOp::Trylock);
        let taken = drive.execute(&cdb, &record.encode(), 0, Duration::from_secs(5)).unwrap();
        assert_eq!(taken.status, scsi::status::GOOD);
    }

    /// Refreshes a record, as its host would.
    pub fn refresh(&self, name: &str, record: Record) {
        let done = self.send(name, &DriveCommand::Mutex(MutexOp::Refresh, record));
        assert_eq!(done, Reply::Status(Status::Good));
    }

    fn send(&self, name: &str, command: &DriveCommand) -> Reply {
        let socket = PathAddress::Emulated(self.server.socket(name));
        let connect = connector(Topology::new(BTreeMap::new()));
        let time = deadline(Duration::from_secs(5));
        connect(&self.identity(name), &socket).execute(command, &time).unwrap().reply
    }

    /// Registers another host with a drive, which reserves its data.
    pub fn reserve(&self, name: &str, kind: ReservationType) {
        let keys = |key, action_key| ParameterList { key, action_key, ..ParameterList::default() };
        let mut other = Client::connect(self.server.socket(name)).unwrap().by_port("other.0");
        for (action, list) in
            [(ChangeAction::Register, keys(0, 7)), (ChangeAction::Reserve, keys(7, 0))]
        {
            let cdb = reservation::change(action, Some(kind));
            let done = other.execute(&cdb, &list.encode(), 0, Duration::from_secs(5)).unwrap();
            assert_eq!(done.status, scsi::status::GOOD);
        }
    }

    /// A host with a name, which counts these drives, or all.
    pub fn peer(&self, name: &str, lease: Duration) -> Peer<'_> {
        let number = name.bytes().fold(3u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        Peer {
            world: self,
            host: HostId::new([number; 16], name),
            lease,
            names: self.names.clone(),
        }
    }
}

/// A host that takes locks.
pub struct Peer<'w> {
    world: &'w World,
    pub host: HostId,
    lease: Duration,
    pub names: Vec<String>,
}

impl Peer<'_> {
    /// As this host.
    pub fn named_as(mut self, host: HostId) -> Self {
        self.host = host;
        self
    }

    /// Counts only these drives.
    pub fn on(mut self, names: &[&str]) -> Self {
        self.names = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Takes a lock and keeps quiet from then on, as a host that has just died does.
    pub fn take(&self, id: ResourceId, mode: Mode) -> Held<'_> {
        let timing = Timing::for_lease(self.lease);
        let keeps_value = !id.is_lv();
        let mut held = Held {
            peer: self,
            lock: Lock::new(LockConfig::new(id, self.host, keeps_value, timing, 7)),
        };
        let members = self.members();
        let request = Request::Acquire { mode, members, witnesses: Vec::new() };
        held.lock.request(request, now()).unwrap();
        assert!(matches!(held.drive(), Some(Outcome::Granted(_))));
        held
    }

    fn members(&self) -> Vec<Member> {
        let member = |(at, name): (usize, &String)| Member {
            drive: DriveRef(at as u32),
            identity: self.world.identity(name).into_bytes(),
        };
        self.names.iter().enumerate().map(member).collect()
    }
}

/// A lock of a peer.
pub struct Held<'p> {
    peer: &'p Peer<'p>,
    pub lock: Lock,
}

impl Held<'_> {
    /// Gives it up, with a value.
    pub fn release(mut self, value: Option<idm_protocol::Value>) {
        self.lock.request(Request::Release { value }, now()).unwrap();
        self.drive();
    }

    /// Carries out all commands until none is left. Returns the outcome of the request.
    fn drive(&mut self) -> Option<Outcome> {
        let topology = Topology::new(BTreeMap::new());
        let connect = connector(topology);
        let mut outcome = None;
        for _ in 0..200 {
            while let Some(command) = self.lock.next_command(now()) {
                let name = &self.peer.names[command.drive.0 as usize];
                let socket = PathAddress::Emulated(self.peer.world.server.socket(name));
                let time = deadline(Duration::from_secs(20));
                let path = connect(&self.peer.world.identity(name), &socket);
                let reply = path.execute(&command.command, &time);
                let reply = reply.map_or(Reply::Status(Status::Unreachable), |it| it.reply);
                self.lock.on_reply(command.token, reply, now());
            }
            while let Some(event) = self.lock.next_event() {
                if let Event::Done(done) = event {
                    outcome = Some(done);
                }
            }
            if outcome.is_some() && self.lock.next_command(now()).is_none() {
                return outcome;
            }
            std::thread::sleep(Duration::from_millis(2));
            self.lock.on_timer(now());
        }
        outcome
    }
}

fn now() -> Instant {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    Instant::from_micros((seconds * 1e6) as u64)
}

/// The program on the drives of a world.
pub fn idmctl(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_idmctl"));
    command.arg("--emulated").arg(world.dir.path().join("drives")).args(args);
    // Not the settings of the machine that the test runs on.
    let conf = world.dir.path().join("conf");
    let state = world.dir.path().join("state");
    fs::write(&conf, format!("state_dir = {state:?}\n")).unwrap();
    command.env("LVMLOCKD_IDM_CONF", conf).stdin(Stdio::null());
    command
}

/// Its exit status and output.
pub fn output(world: &World, args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = idmctl(world, args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}
