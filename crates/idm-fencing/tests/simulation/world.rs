//! Time, the paths between hosts and drives, the drives, and their faults.

use crate::host::{Host, LockIx, Phase};
use fastrand::Rng;
use idm_emulator::reservation::scsi::{Nexus, UnitReservations};
use idm_emulator::{Drive, DriveTime, Profile};
use idm_engine::{DriveRef, Instant, Token};
use idm_fencing::{BrokenRule, KIND, Key, Rules, Seen};
use idm_protocol::reservation::scsi::{
    self, ChangeAction, Holder, Keys, LIST_LEN, ParameterList, ReadAction,
};
use idm_protocol::scsi::{Cdb, status};
use idm_protocol::{DriveCommand, Mode, Record, Reply, Status};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const HOSTS: usize = 3;
pub const PATHS: usize = 2;
pub const MS: u64 = 1000;
/// The time after which a host gives up a command, and the longest that it may take to arrive.
pub const GIVEN_UP: u64 = 600 * MS;
pub const LATEST: u64 = 1400 * MS;
/// The longest that data may take to arrive.
const LATEST_DATA: u64 = 15_000 * MS;
const WRITE: [u8; 10] = [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// The drives of a world.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub drives: usize,
    /// The first of them have the LV.
    pub of_lv: usize,
    /// Whether most faults of a host are that it does not reach a drive for a long time.
    pub is_loose: bool,
}

/// A grant of the LV's lock, in the order of all of them.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    number: u64,
    mode: Mode,
}

/// Counts of events in one run or several.
#[derive(Debug, Default)]
pub struct Report {
    /// Seeds in which a block was written by a host after another was granted the lock, and not
    /// beside it.
    pub foreign: Vec<u64>,
    pub granted: u64,
    pub taken_over: u64,
    pub written: u64,
    pub stopped_writes: u64,
    pub came_back: u64,
    /// Hosts that were removed although they had no fault.
    pub healthy_removed: u64,
}

impl Report {
    pub fn add(&mut self, seed: u64, other: Report) {
        if !other.foreign.is_empty() {
            self.foreign.push(seed);
        }
        self.granted += other.granted;
        self.taken_over += other.taken_over;
        self.written += other.written;
        self.stopped_writes += other.stopped_writes;
        self.came_back += other.came_back;
        self.healthy_removed += other.healthy_removed;
    }
}

/// A part of an order to a drive.
#[derive(Clone, Debug)]
pub enum Part {
    Table,
    Report,
    Register { anew: bool },
    Unregister,
    Reserve,
    Preempt(Key),
}

/// Result of a part; `None` is no answer.
#[derive(Clone, Debug)]
pub enum PartEnd {
    Table(Arc<[Record]>),
    Report(Box<Seen>),
    Done,
    Conflict,
    Silent,
}

/// A message on its way to a drive.
// Most of them are commands of locks.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum What {
    Mutex(LockIx, Token, DriveCommand),
    /// A part of the order of a job, from a host with this key.
    Part(u64, Key, Part),
    Data(Grant),
}

/// A message on its way to a host.
#[derive(Clone, Debug)]
pub enum News {
    Reply(LockIx, Token, Reply),
    Part(u64, PartEnd),
    /// Data is written, or is no longer on its way.
    Landed,
    Tick,
}

// Most of them are commands.
#[allow(clippy::large_enum_variant)]
enum Event {
    Arrive { host: usize, boot: u32, drive: usize, path: usize, what: What, told: bool },
    Tell { host: usize, boot: u32, drive: usize, news: News },
    Befall,
}

struct DriveWorld {
    drive: Drive,
    unit: UnitReservations,
}

pub struct World {
    pub rng: Rng,
    pub now: u64,
    pub rules: Rules,
    pub shape: Shape,
    /// Whether hosts use reservations at all.
    pub fences: bool,
    pub report: Report,
    queue: BTreeMap<(u64, u64), Event>,
    next: u64,
    drives: Vec<DriveWorld>,
    hosts: Vec<Option<Host>>,
    /// Time until which each path is cut.
    cut: Vec<Vec<[u64; PATHS]>>,
    frozen: [u64; HOSTS],
    /// Time until which an earlier fault of a host may excuse its removal.
    excused: [u64; HOSTS],
    /// The number of the last grant of each mode to each host.
    granted: [BTreeMap<Mode, u64>; HOSTS],
}

impl World {
    pub fn new(
        seed: u64,
        profile: Profile,
        shape: Shape,
        fences: bool,
        broken: Option<BrokenRule>,
    ) -> World {
        let drive =
            |_| DriveWorld { drive: Drive::new(profile), unit: UnitReservations::default() };
        let mut world = World {
            rng: Rng::with_seed(seed),
            now: 0,
            rules: Rules { broken },
            shape,
            fences,
            report: Report::default(),
            queue: BTreeMap::new(),
            next: 0,
            drives: (0..shape.drives).map(drive).collect(),
            hosts: (0..HOSTS).map(|at| Some(Host::new(at, 0, Instant::from_micros(0)))).collect(),
            cut: vec![vec![[0; PATHS]; shape.drives]; HOSTS],
            frozen: Default::default(),
            excused: Default::default(),
            granted: Default::default(),
        };
        for host in 0..HOSTS {
            world.tell(host, 0, 0, News::Tick, 0);
        }
        world.post(3000 * MS, Event::Befall);
        world
    }

    pub fn run(mut self, length_ms: u64) -> Report {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            if at > length_ms * MS {
                break;
            }
            self.handle(event);
        }
        self.report
    }

    pub fn instant(&self) -> Instant {
        Instant::from_micros(self.now)
    }

    fn post(&mut self, at: u64, event: Event) {
        self.next += 1;
        self.queue.insert((at, self.next), event);
    }

    pub fn tell(&mut self, host: usize, boot: u32, drive: usize, news: News, delay: u64) {
        self.post(self.now + delay, Event::Tell { host, boot, drive, news });
    }

    /// Sends something from a host to a drive by a path.
    pub fn send(&mut self, (host, boot): (usize, u32), drive: usize, path: usize, what: What) {
        if self.is_cut(host, drive, path) {
            let news = failure(&what, false);
            return self.tell(host, boot, drive, news, MS);
        }
        let usual = self.rng.u64(200..20 * MS);
        let is_data = matches!(what, What::Data(_));
        let delay = match self.rng.u8(0..100) {
            0..=9 if is_data => self.rng.u64(0..LATEST_DATA),
            0 | 1 => self.rng.u64(0..LATEST),
            _ => usual,
        };
        let told = !is_data && delay > GIVEN_UP;
        if told {
            self.tell(host, boot, drive, failure(&what, true), GIVEN_UP);
        }
        let event = Event::Arrive { host, boot, drive, path, what, told };
        self.post(self.now + delay, event);
    }

    fn is_cut(&self, host: usize, drive: usize, path: usize) -> bool {
        self.cut[host][drive][path] > self.now
    }

    /// A path that works as far as the host knows.
    pub fn path(&mut self, host: usize, drive: usize) -> usize {
        let first = self.rng.usize(0..PATHS);
        let all = (0..PATHS).map(|more| (first + more) % PATHS);
        all.into_iter().find(|&path| !self.is_cut(host, drive, path)).unwrap_or(first)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Befall => self.befall(),
            Event::Tell { host, boot, drive, news } => {
                if self.frozen[host] > self.now {
                    // Messages that wait for a host that stands still are handled in their order.
                    let at = self.frozen[host];
                    return self.post(at, Event::Tell { host, boot, drive, news });
                }
                let Some(mut it) = self.hosts[host].take() else { return };
                if it.boot == boot {
                    it.handle(self, drive, news);
                }
                self.hosts[host] = Some(it);
            }
            Event::Arrive { host, boot, drive, path, what, told } => {
                let lost = self.is_cut(host, drive, path) || self.rng.u8(0..100) == 0;
                let news = match lost && !matches!(what, What::Data(_)) {
                    true => failure(&what, true),
                    false => self.execute(host, drive, path, what),
                };
                if !told {
                    let delay = if lost { GIVEN_UP } else { self.rng.u64(200..5 * MS) };
                    self.tell(host, boot, drive, news, delay);
                }
            }
        }
    }

    fn execute(&mut self, host: usize, drive: usize, path: usize, what: What) -> News {
        let now = DriveTime::from_micros(self.now);
        let nexus = Nexus::of_port(&format!("h{host}.{path}"));
        let DriveWorld { drive: mutexes, unit } = &mut self.drives[drive];
        // Every host knows that a unit attention condition comes instead of its command.
        while unit.before(&nexus, "port", &WRITE).is_some() {}
        let idm = mutexes.profile().idm_commands_respect_reservations;
        match what {
            What::Mutex(lock, token, command) => {
                let cdb = match &command {
                    DriveCommand::Mutex(op, _) => idm_protocol::scsi::mutex(*op),
                    DriveCommand::ReadTable => idm_protocol::scsi::read_table(1),
                };
                let reply = match unit.permits(&nexus, &cdb, idm) {
                    true => mutexes.perform(now, &command),
                    false => Reply::Status(Status::Conflict),
                };
                News::Reply(lock, token, reply)
            }
            What::Part(job, _, Part::Table) => {
                News::Part(job, PartEnd::Table(mutexes.table(now).into()))
            }
            What::Part(job, own, Part::Preempt(key)) => {
                let before = unit.state().registrants().len();
                let own = own.number();
                let end = change(unit, &nexus, ChangeAction::PreemptAndAbort, own, key.number());
                if unit.state().registrants().len() < before {
                    self.judge_removal(key);
                }
                News::Part(job, end)
            }
            What::Part(job, own, part) => {
                News::Part(job, registration(unit, &nexus, own.number(), &part))
            }
            What::Data(grant) => {
                let permitted = unit.permits(&nexus, &WRITE, idm);
                if !permitted {
                    self.report.stopped_writes += 1;
                } else {
                    self.report.written += 1;
                    if self.excludes(host, grant) {
                        self.report.foreign.push(self.now);
                    }
                }
                News::Landed
            }
        }
    }

    /// Notes that a host was granted the lock.
    pub fn grant(&mut self, host: usize, mode: Mode) -> Grant {
        self.report.granted += 1;
        let number = self.report.granted;
        self.granted[host].insert(mode, number);
        Grant { number, mode }
    }

    /// Whether another host was granted the lock later, in a mode that excludes this grant.
    fn excludes(&self, host: usize, grant: Grant) -> bool {
        let others = (0..HOSTS).filter(|&other| other != host);
        let mut later = others.flat_map(|other| &self.granted[other]);
        later.any(|(mode, &number)| number > grant.number && !mode.compatible(grant.mode))
    }

    /// A host that starts may be hit by an order that was given before it was seen alive, and that
    /// arrives late.
    pub fn excuse_start(&mut self, host: usize) {
        self.excused[host] = self.excused[host].max(self.now + 5000 * MS);
    }

    fn judge_removal(&mut self, key: Key) {
        for host in 0..HOSTS {
            let Some(it) = &self.hosts[host] else { continue };
            let is_well = it.phase == Phase::Started && self.excused[host] < self.now;
            self.report.healthy_removed += u64::from(is_well && Key::of(&it.id) == key);
        }
    }

    /// A fault happens to a host or to its paths.
    fn befall(&mut self) {
        let host = self.rng.usize(0..HOSTS);
        let is_loose = self.shape.is_loose;
        let length = self.rng.u64(if is_loose { 5000..30_000 } else { 100..12_000 }) * MS;
        let until = self.now + length;
        let excuse = until + 8000 * MS;
        match self.rng.u8(0..8) {
            0..=5 if is_loose => {
                let drive = self.rng.usize(0..self.shape.drives);
                self.cut[host][drive] = [until; PATHS];
            }
            0..=2 => {
                self.frozen[host] = self.frozen[host].max(until);
                self.excused[host] = self.excused[host].max(excuse);
            }
            3 => {
                // All of it.
                self.cut[host] = vec![[until; PATHS]; self.shape.drives];
                self.excused[host] = self.excused[host].max(excuse);
            }
            4 => {
                let drive = self.rng.usize(0..self.shape.drives);
                self.cut[host][drive] = [until; PATHS];
            }
            5 => {
                let path = self.rng.usize(0..PATHS);
                self.cut[host].iter_mut().for_each(|drive| drive[path] = until);
            }
            6 => self.crash(host),
            _ => {
                if let Some(it) = &mut self.hosts[host] {
                    it.daemon_dies(self.now);
                    self.excused[host] = self.excused[host].max(excuse);
                }
            }
        }
        // A drive that is cut on top of others takes the quorum away.
        let off = |drive: &&[u64; PATHS]| drive.iter().all(|&until| until > self.now);
        if self.cut[host].iter().filter(off).count() > (self.shape.drives - 1) / 2 {
            self.excused[host] = self.excused[host].max(excuse);
        }
        let pause = self.rng.u64(500..6000) * MS;
        self.post(self.now + pause, Event::Befall);
    }

    /// A host loses its power, and comes back when none of its data is on its way any more.
    fn crash(&mut self, host: usize) {
        let boot = self.hosts[host].as_ref().map_or(0, |it| it.boot) + 1;
        let again = self.now + LATEST_DATA + 1000 * MS;
        self.hosts[host] = Some(Host::new(host, boot, Instant::from_micros(again)));
        self.post(again, Event::Tell { host, boot, drive: 0, news: News::Tick });
    }
}

/// The report to a host about a message that failed; `sent`: whether it may have reached the drive.
fn failure(what: &What, sent: bool) -> News {
    match what {
        What::Mutex(lock, token, _) => {
            let status = if sent { Status::Uncertain } else { Status::Unreachable };
            News::Reply(*lock, *token, Reply::Status(status))
        }
        What::Part(job, ..) => News::Part(*job, PartEnd::Silent),
        What::Data(_) => News::Landed,
    }
}

fn change(
    unit: &mut UnitReservations,
    nexus: &Nexus,
    action: ChangeAction,
    key: u64,
    action_key: u64,
) -> PartEnd {
    let cdb: Cdb = scsi::change(action, Some(KIND));
    let list: [u8; LIST_LEN] =
        ParameterList { key, action_key, persistent: true, ..ParameterList::default() }.encode();
    match unit.execute(nexus, &cdb, &list).status {
        status::GOOD => PartEnd::Done,
        status::RESERVATION_CONFLICT => PartEnd::Conflict,
        other => panic!("status {other:#x}"),
    }
}

fn registration(unit: &mut UnitReservations, nexus: &Nexus, own: u64, part: &Part) -> PartEnd {
    match *part {
        Part::Report => {
            let mut read = |action| unit.execute(nexus, &scsi::read(action, 4096), &[]).data;
            let keys = Keys::decode(&read(ReadAction::Keys)).unwrap();
            let held = Holder::decode(&read(ReadAction::Reservation)).unwrap();
            PartEnd::Report(Box::new(Seen {
                table: Arc::new([]),
                keys: keys.keys,
                reservation: held.reservation.map(|reservation| reservation.kind),
                is_able: true,
                paths: PATHS,
            }))
        }
        Part::Register { anew: true } => {
            change(unit, nexus, ChangeAction::RegisterAndIgnore, 0, own)
        }
        Part::Register { anew: false } => change(unit, nexus, ChangeAction::Register, own, own),
        Part::Unregister => change(unit, nexus, ChangeAction::Register, own, 0),
        Part::Reserve => change(unit, nexus, ChangeAction::Reserve, own, 0),
        Part::Table | Part::Preempt(_) => unreachable!(),
    }
}

/// The drive with this number.
pub fn drive(at: usize) -> DriveRef {
    DriveRef(at as u32)
}
