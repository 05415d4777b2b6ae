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
use std::time::Duration;

pub const HOSTS: usize = 3;
pub const PATHS: usize = 2;
pub const MS: u64 = 1000;
/// The lease of most worlds. Other times are for it, and grow with the lease.
const LEASE: u64 = 4000 * MS;
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
    pub weather: Weather,
}

/// Faults of hosts, paths and drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// All faults, and often.
    Rough,
    /// Most faults are that a host does not reach a drive for a long time.
    Loose,
    /// Hosts are well, but for a crash once in a while. Paths come and go, and drives are slow. The
    /// lease is this long, in seconds.
    Flapping(u64),
}

impl Weather {
    /// The lease, in us.
    pub fn lease(self) -> u64 {
        match self {
            Weather::Rough | Weather::Loose => LEASE,
            Weather::Flapping(seconds) => seconds * 1000 * MS,
        }
    }
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
    /// The same that lost a lock or their membership. A drive on which a dead host's lock is left
    /// does not help where another drive is away for longer than a lease.
    pub healthy_lost: u64,
    /// Hosts that were removed while they had the group started, whatever their faults.
    pub removed: u64,
    /// Time in which hosts had the group started, in us.
    pub started: u64,
    /// Requests of hosts for the lock, and paths and drives that failed or were slow for a while.
    pub asked: u64,
    pub faults: u64,
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
        self.healthy_lost += other.healthy_lost;
        self.removed += other.removed;
        self.started += other.started;
        self.asked += other.asked;
        self.faults += other.faults;
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

/// A path that does not work, or a drive that is so slow that its paths seem not to work.
struct Cut {
    drive: usize,
    path: usize,
    from: u64,
    until: u64,
}

#[derive(Clone, Copy, Default)]
struct Slow {
    until: u64,
    /// The longest time of a command.
    by: u64,
}

/// Recent faults of paths and drives.
struct Outages {
    cuts: [Vec<Cut>; HOSTS],
    slow: Vec<Slow>,
}

impl Outages {
    fn new(drives: usize) -> Outages {
        Outages { cuts: Default::default(), slow: vec![Slow::default(); drives] }
    }

    /// The longest time of a command to a drive, if it is slow.
    fn slowness(&self, drive: usize, now: u64) -> u64 {
        let slow = self.slow[drive];
        if slow.until > now { slow.by } else { 0 }
    }

    fn forget(&mut self, host: usize, before: u64) {
        self.cuts[host].retain(|cut| cut.until >= before);
    }

    /// The time within a time before now in which a host did not reach most of the drives.
    fn without_majority(&self, host: usize, drives: usize, now: u64, before: u64) -> u64 {
        const STEP: u64 = 100 * MS;
        let is_off = |drive: usize, at: u64| {
            (0..PATHS).all(|path| {
                let cuts = |cut: &Cut| (cut.from..cut.until).contains(&at);
                self.cuts[host]
                    .iter()
                    .any(|cut| (cut.drive, cut.path) == (drive, path) && cuts(cut))
            })
        };
        let lacks =
            |&at: &u64| (0..drives).filter(|&drive| is_off(drive, at)).count() > (drives - 1) / 2;
        let times = (now.saturating_sub(before)..=now).step_by(STEP as usize);
        times.filter(lacks).count() as u64 * STEP
    }
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
    /// Boxed, because they are moved with each event.
    hosts: Vec<Option<Box<Host>>>,
    /// Until when each path is cut.
    cut: Vec<Vec<[u64; PATHS]>>,
    frozen: [u64; HOSTS],
    /// Time until which an earlier fault of a host may excuse its removal.
    excused: [u64; HOSTS],
    outages: Outages,
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
        let (never, lease) =
            (Instant::from_micros(0), Duration::from_micros(shape.weather.lease()));
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
            hosts: (0..HOSTS).map(|at| Some(Box::new(Host::new(at, 0, never, lease)))).collect(),
            cut: vec![vec![[0; PATHS]; shape.drives]; HOSTS],
            frozen: Default::default(),
            excused: Default::default(),
            outages: Outages::new(shape.drives),
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

    /// A time for the usual lease, converted to this world's lease.
    pub fn scaled(&self, time: u64) -> u64 {
        time * (self.shape.weather.lease() / LEASE)
    }

    pub fn flaps(&self) -> bool {
        matches!(self.shape.weather, Weather::Flapping(_))
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
        let slow = self.outages.slowness(drive, self.now);
        let given_up = self.scaled(GIVEN_UP);
        let delay = match self.rng.u8(0..100) {
            0..=9 if is_data => self.rng.u64(0..LATEST_DATA),
            0 | 1 if !self.flaps() || self.rng.u8(0..20) == 0 => {
                self.rng.u64(0..self.scaled(LATEST))
            }
            _ if slow > 0 => self.rng.u64(0..slow),
            _ => usual,
        };
        let told = !is_data && delay > given_up;
        if told {
            self.tell(host, boot, drive, failure(&what, true), given_up);
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
                    let delay =
                        if lost { self.scaled(GIVEN_UP) } else { self.rng.u64(200..5 * MS) };
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
        self.excused[host] = self.excused[host].max(self.now + self.scaled(5000 * MS));
    }

    fn judge_removal(&mut self, key: Key) {
        for host in 0..HOSTS {
            let Some(it) = &self.hosts[host] else { continue };
            let is_it = it.phase == Phase::Started && Key::of(&it.id) == key;
            let is_well = is_it && self.is_well(host, self.shape.drives);
            self.report.removed += u64::from(is_it);
            self.report.healthy_removed += u64::from(is_well);
        }
    }

    /// Notes that a host that had the group started lost a lock.
    pub fn judge_loss(&mut self, host: usize) {
        let Shape { drives, of_lv, .. } = self.shape;
        let is_well = self.is_well(host, drives) && self.is_well(host, of_lv);
        self.report.healthy_lost += u64::from(is_well);
    }

    /// Whether no fault of a host excuses its removal: it reached most of the first drives for most
    /// of the time.
    fn is_well(&self, host: usize, drives: usize) -> bool {
        let lease = self.shape.weather.lease();
        let off = || self.outages.without_majority(host, drives, self.now, 2 * lease);
        self.excused[host] < self.now && (!self.flaps() || off() <= lease / 3)
    }

    /// A fault happens to a host or to its paths.
    fn befall(&mut self) {
        if self.flaps() {
            return self.flap();
        }
        let host = self.rng.usize(0..HOSTS);
        let is_loose = self.shape.weather == Weather::Loose;
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

    /// A fault happens to a path or a drive, or seldom to a host.
    fn flap(&mut self) {
        let (host, drive) = (self.rng.usize(0..HOSTS), self.rng.usize(0..self.shape.drives));
        let path = self.rng.usize(0..PATHS);
        self.report.faults += 1;
        match self.rng.u16(0..1000) {
            0 => {
                self.report.faults -= 1;
                self.crash(host);
                self.excused[host] = u64::MAX;
            }
            1..=49 => {
                // All drives, for a while that is no reason to lose a lock.
                let length = self.length(50, 10_000);
                for drive in 0..self.shape.drives {
                    (0..PATHS).for_each(|path| self.cut(host, drive, path, length));
                }
            }
            50..=149 => {
                let length = self.length(500, 600_000);
                (0..PATHS).for_each(|path| self.cut(host, drive, path, length));
            }
            150..=249 => {
                let length = self.length(50, 300_000);
                (0..self.shape.drives).for_each(|drive| self.cut(host, drive, path, length));
            }
            250..=349 => self.slow_down(drive),
            _ => {
                let length = self.length(20, 60_000);
                self.cut(host, drive, path, length);
            }
        }
        let pause = self.rng.u64(500..20_000) * MS;
        self.post(self.now + pause, Event::Befall);
    }

    /// A length of time, of any order of magnitude in this range. In ms, and in us.
    fn length(&mut self, shortest: u64, longest: u64) -> u64 {
        let ratio = longest as f64 / shortest as f64;
        (shortest as f64 * ratio.powf(self.rng.f64()) * MS as f64) as u64
    }

    fn cut(&mut self, host: usize, drive: usize, path: usize, length: u64) {
        let until = (self.now + length).max(self.cut[host][drive][path]);
        self.cut[host][drive][path] = until;
        self.outages.cuts[host].push(Cut { drive, path, from: self.now, until });
        self.outages.forget(host, self.now.saturating_sub(4 * self.shape.weather.lease()));
    }

    /// A drive is slow for a while: in most cases not so slow that hosts give up its commands.
    fn slow_down(&mut self, drive: usize) {
        let lease = self.shape.weather.lease();
        let by = match self.rng.u8(0..20) {
            0 => 2 * self.scaled(GIVEN_UP),
            1..=5 => lease / 8,
            _ => lease / 30,
        };
        let until = self.now + self.length(1000, 300_000);
        let hangs = by > self.scaled(GIVEN_UP);
        self.outages.slow[drive] = Slow { until, by };
        if hangs {
            for host in 0..HOSTS {
                for path in 0..PATHS {
                    self.outages.cuts[host].push(Cut { drive, path, from: self.now, until });
                }
            }
        }
    }

    /// A host loses its power, and comes back when none of its data is on its way any more.
    fn crash(&mut self, host: usize) {
        let boot = self.hosts[host].as_ref().map_or(0, |it| it.boot) + 1;
        let again = self.now + self.scaled(LATEST_DATA) + 1000 * MS;
        let lease = Duration::from_micros(self.shape.weather.lease());
        self.hosts[host] =
            Some(Box::new(Host::new(host, boot, Instant::from_micros(again), lease)));
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
