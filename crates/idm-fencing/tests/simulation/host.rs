//! A host: its engine, its procedures about reservations, and an application that writes.

use crate::world::{
    GIVEN_UP, Grant, LATEST, MS, News, PATHS, Part, PartEnd, Shape, What, World, drive,
};
use idm_engine::{
    Command, DriveRef, Event, Instant, Lock, LockConfig, Member, Outcome, Request, Timing, Token,
};
use idm_fencing::{
    Action, Answer, BrokenRule, Departure, Enrolled, Enrolment, Fence, Findings, Key, Order,
    Procedure, Seen, Verdict, Watch,
};
use idm_protocol::{DriveCommand, HostId, Mode, MutexOp, Record, Reply, ResourceId, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Interval between two writes of an application.
const STEP: u64 = 20 * MS;
const VG: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
const LV: &str = "abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockIx {
    Lv,
    Membership,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The VG is not started, and is not before this time.
    Off(u64),
    Enrolling,
    Joining,
    /// Whether it was removed since it registered, when other hosts did not see it live.
    Checking,
    Started,
    /// Lost: an administrator ends the application at this time.
    Lost(u64),
    /// Data is still on its way.
    Draining,
    /// The locks are given back, until this time at most.
    Releasing(u64),
    /// The registrations are given up.
    Leaving,
}

/// Purpose of a procedure.
// A host has a few of them.
#[allow(clippy::large_enum_variant)]
enum Job {
    Start(Enrolment),
    Check(Watch),
    Late(Enrolment),
    Watch(Watch),
    Leave(Departure),
    Fence(Fence, Command),
}

struct Running {
    job: Job,
    /// The order that each drive has, its remaining parts, and the results of the others.
    orders: BTreeMap<DriveRef, (Action, Vec<Part>, Vec<PartEnd>)>,
}

pub struct Host {
    pub id: HostId,
    pub boot: u32,
    pub phase: Phase,
    at: usize,
    key: Key,
    lv: Lock,
    membership: Lock,
    /// Drives that are known to have the LV's lock as exclusive.
    exclusive: BTreeSet<DriveRef>,
    /// Commands of the LV's lock that are under way, and whether they make it exclusive.
    flying: BTreeMap<u64, (DriveRef, bool)>,
    jobs: BTreeMap<u64, Running>,
    next_job: u64,
    registered: Vec<DriveRef>,
    absent: Vec<DriveRef>,
    /// The grant under which the application writes.
    writes: Option<Grant>,
    data_out: u64,
    /// Time when the LV is given back.
    until: u64,
    next_watch: u64,
    asked: bool,
    was_lost: bool,
    lease: Duration,
    /// The time of the next request for the LV, and the next time at which a task is due, where
    /// hosts do not look all the time.
    next_ask: u64,
    wake: u64,
}

fn group() -> ResourceId {
    ResourceId::vg(VG).unwrap()
}

fn resource(lock: LockIx) -> ResourceId {
    match lock {
        LockIx::Lv => ResourceId::lv(VG, LV).unwrap(),
        LockIx::Membership => {
            let mut id = *group().as_bytes();
            id[32..].copy_from_slice(b"*members-of-the-volume-group*\0\0\0");
            ResourceId::from_bytes(id)
        }
    }
}

fn engine(host: HostId, lock: LockIx, earlier: Instant, lease: Duration, seed: u64) -> Lock {
    let timing = Timing::for_lease(lease);
    let mut config = LockConfig::new(resource(lock), host, false, timing, seed);
    config.earlier_until = earlier;
    config.earlier_shares_until = earlier;
    config.earlier_writes_until = earlier;
    Lock::new(config)
}

fn members(drives: Range<usize>) -> Vec<Member> {
    drives.map(|at| Member { drive: drive(at), identity: vec![at as u8] }).collect()
}

impl Host {
    pub fn new(at: usize, boot: u32, earlier: Instant, lease: Duration) -> Host {
        let id = HostId::new([(at as u8) << 4 | boot as u8; 16], &format!("h{at}"));
        let seed = (at as u64) << 32 | u64::from(boot);
        Host {
            id,
            boot,
            phase: Phase::Off(0),
            at,
            key: Key::of(&id),
            lv: engine(id, LockIx::Lv, earlier, lease, seed),
            membership: engine(id, LockIx::Membership, earlier, lease, seed + 1),
            exclusive: BTreeSet::new(),
            flying: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next_job: 0,
            registered: Vec::new(),
            absent: Vec::new(),
            writes: None,
            data_out: 0,
            until: 0,
            next_watch: 0,
            asked: false,
            was_lost: false,
            lease,
            next_ask: 0,
            wake: 0,
        }
    }

    /// lvmlockd dies. The LV stays in use, and nobody renews its lock.
    pub fn daemon_dies(&mut self, now: u64) {
        let earlier = Instant::from_micros(now + 3000 * MS);
        self.lv = engine(self.id, LockIx::Lv, earlier, self.lease, now);
        self.membership = engine(self.id, LockIx::Membership, earlier, self.lease, now + 1);
        self.flying.clear();
        self.exclusive.clear();
        self.jobs.clear();
        self.phase = Phase::Lost(now + 8000 * MS);
        self.was_lost = true;
    }

    pub fn handle(&mut self, world: &mut World, from: usize, news: News) {
        match news {
            News::Reply(lock, token, reply) => self.on_reply(world, lock, token, reply),
            News::Part(job, end) => self.on_part(world, job, drive(from), end),
            News::Landed => self.data_out = self.data_out.saturating_sub(1),
            News::Tick => {
                self.tick(world);
                if !world.flaps() {
                    world.tell(self.at, self.boot, 0, News::Tick, STEP);
                }
            }
        }
        self.pump(world);
        if world.flaps() {
            self.set_wake(world);
        }
    }

    /// Makes the host look when a task is due, and not before.
    fn set_wake(&mut self, world: &mut World) {
        let soon = world.now + 100 * MS;
        let locks = [&self.lv, &self.membership].into_iter().filter_map(Lock::next_deadline);
        let of_phase = match self.phase {
            Phase::Off(until) | Phase::Lost(until) => Some(until),
            Phase::Started if self.writes.is_some() => Some(self.until.min(self.next_watch)),
            Phase::Started if self.lv.mode().is_some() => Some(soon),
            Phase::Started => Some(self.next_ask.min(self.next_watch)),
            Phase::Draining | Phase::Releasing(_) => Some(soon),
            Phase::Enrolling | Phase::Joining | Phase::Checking | Phase::Leaving => None,
        };
        let next = locks.map(|at| at.since(Instant::default()).as_micros() as u64).chain(of_phase);
        let Some(next) = next.min().map(|next| next.max(world.now + MS)) else { return };
        if self.wake <= world.now || next < self.wake {
            self.wake = next;
            world.tell(self.at, self.boot, 0, News::Tick, next - world.now);
        }
    }

    fn tick(&mut self, world: &mut World) {
        let now = world.instant();
        self.lv.on_timer(now);
        self.membership.on_timer(now);
        if let Some(grant) = self.writes.filter(|_| !world.flaps()) {
            let (to, data) = (world.rng.usize(0..world.shape.of_lv), What::Data(grant));
            let path = world.path(self.at, to);
            self.data_out += 1;
            world.send((self.at, self.boot), to, path, data);
        }
        match self.phase {
            Phase::Off(until) if until <= world.now => self.start(world),
            Phase::Started => self.work(world),
            Phase::Lost(until) if until <= world.now => {
                self.writes = None;
                self.phase = Phase::Draining;
            }
            Phase::Draining if self.data_out == 0 => self.stop(world),
            Phase::Releasing(_) if self.membership.is_idle() => self.leave(world),
            // Another host may still see the membership: the registration stays.
            Phase::Releasing(until) if until <= world.now => self.phase = Phase::Off(world.now),
            _ => {}
        }
    }

    fn start(&mut self, world: &mut World) {
        self.phase = Phase::Enrolling;
        if !world.fences {
            return self.join(world);
        }
        let all: Vec<DriveRef> = (0..world.shape.drives).map(drive).collect();
        let enrolment = Enrolment::new(self.id, group(), &all, false);
        self.begin(world, Job::Start(enrolment));
    }

    fn join(&mut self, world: &mut World) {
        self.phase = Phase::Joining;
        let (mode, members) = (Mode::Shared, members(0..world.shape.drives));
        let request = Request::Acquire { mode, members, witnesses: Vec::new() };
        if self.membership.request(request, world.instant()).is_err() {
            self.phase = Phase::Off(world.now + 1000 * MS);
        }
    }

    fn check(&mut self, world: &mut World) {
        self.phase = Phase::Checking;
        let watch = Watch::new(self.id, group(), &self.registered, &[], world.rules);
        self.begin(world, Job::Check(watch));
    }

    /// The work of a host that has the VG started.
    fn work(&mut self, world: &mut World) {
        if self.writes.is_some() && world.now >= self.until {
            // The LV is deactivated, which waits for its data.
            self.writes = None;
        } else if self.writes.is_none() && self.lv.mode().is_some() && self.data_out == 0 {
            let _ = self.lv.request(Request::Release { value: None }, world.instant());
        } else if self.lv.mode().is_none() && !self.asked && self.asks(world, 25) {
            world.report.asked += 1;
            let mode = if world.rng.bool() { Mode::Shared } else { Mode::Exclusive };
            let Shape { drives, of_lv, .. } = world.shape;
            let (members, witnesses) = (members(0..of_lv), members(of_lv..drives));
            let request = Request::Acquire { mode, members, witnesses };
            self.exclusive.clear();
            self.asked = self.lv.request(request, world.instant()).is_ok();
        } else if self.lv.mode() == Some(Mode::Shared) && !self.asked && self.asks(world, 10) {
            let request = Request::Convert { mode: Mode::Exclusive, value: None };
            self.asked = self.lv.request(request, world.instant()).is_ok();
        }
        if world.fences && world.now >= self.next_watch {
            let interval = world.scaled(1300 * MS);
            self.next_watch = world.now + interval;
            world.report.started += interval;
            let (id, rules) = (self.id, world.rules);
            let watch = Watch::new(id, group(), &self.registered, &self.absent, rules);
            self.begin(world, Job::Watch(watch));
        }
    }

    /// Whether the LV is asked for now: once in so many looks, or after a while.
    fn asks(&mut self, world: &mut World, odds: u8) -> bool {
        if !world.flaps() {
            return world.rng.u8(0..odds) == 0;
        }
        let is_due = world.now >= self.next_ask;
        if is_due {
            self.next_ask = world.now + world.rng.u64(5000..60_000) * MS;
        }
        is_due
    }

    /// The VG is not to be used any more. Nothing stops the application.
    fn lose(&mut self, world: &mut World) {
        if self.phase == Phase::Started {
            world.judge_loss(self.at);
            self.phase = Phase::Lost(world.now + world.rng.u64(3000..20_000) * MS);
            self.was_lost = true;
            let _ = self.membership.request(Request::Release { value: None }, world.instant());
        }
    }

    /// Everything is over: the locks are given back.
    fn stop(&mut self, world: &mut World) {
        let release = || Request::Release { value: None };
        let _ = self.lv.request(release(), world.instant());
        let _ = self.membership.request(release(), world.instant());
        self.asked = false;
        self.jobs.clear();
        self.phase = Phase::Releasing(world.now + world.scaled(3000 * MS));
    }

    /// Gives up the registrations.
    fn leave(&mut self, world: &mut World) {
        self.phase = Phase::Leaving;
        let drives = core::mem::take(&mut self.registered);
        let departure = Departure::new(self.id, group(), &drives, world.rules);
        self.begin(world, Job::Leave(departure));
    }

    fn on_reply(&mut self, world: &mut World, lock: LockIx, token: Token, reply: Reply) {
        if lock == LockIx::Lv {
            if let Some((drive, makes)) = self.flying.remove(&number(token)) {
                let good = reply == Reply::Status(Status::Good);
                if makes && good {
                    self.exclusive.insert(drive);
                } else if !makes || !good && !matches!(reply, Reply::Table(_)) {
                    self.exclusive.remove(&drive);
                }
            }
        }
        self.lock(lock).on_reply(token, reply, world.instant());
    }

    fn lock(&mut self, lock: LockIx) -> &mut Lock {
        match lock {
            LockIx::Lv => &mut self.lv,
            LockIx::Membership => &mut self.membership,
        }
    }

    /// Passes on the commands and events of the engines.
    fn pump(&mut self, world: &mut World) {
        for lock in [LockIx::Lv, LockIx::Membership] {
            loop {
                let now = world.instant();
                if let Some(command) = self.lock(lock).next_command(now) {
                    self.send(world, lock, command);
                } else if let Some(event) = self.lock(lock).next_event() {
                    self.on_event(world, lock, event);
                } else {
                    break;
                }
            }
        }
    }

    fn send(&mut self, world: &mut World, lock: LockIx, command: Command) {
        let takes = match &command.command {
            DriveCommand::Mutex(op, record) => {
                takes_away(*op, record, |drive| self.exclusive.contains(&drive), command.drive)
            }
            DriveCommand::ReadTable => false,
        };
        if lock == LockIx::Lv && takes && world.fences {
            let order = Order {
                me: self.id,
                resource: resource(lock),
                group: group(),
                target: command.drive,
                drives: self.registered.clone(),
                group_drives: (0..world.shape.drives).map(drive).collect(),
                needed: (0..world.shape.of_lv).map(drive).collect(),
                until: world.instant() + self.lease,
            };
            let fence = Fence::new(order, world.rules);
            return self.begin(world, Job::Fence(fence, command));
        }
        self.submit(world, lock, command);
    }

    fn submit(&mut self, world: &mut World, lock: LockIx, command: Command) {
        let Command { token, drive, command, .. } = command;
        if let (LockIx::Lv, DriveCommand::Mutex(op, record)) = (lock, &command) {
            let exclusive = record.class.mode() == Mode::Exclusive;
            let makes = exclusive && !matches!(op, MutexOp::Unlock | MutexOp::Destroy);
            self.flying.insert(number(token), (drive, makes));
        }
        let to = drive.0 as usize;
        let path = world.path(self.at, to);
        world.send((self.at, self.boot), to, path, What::Mutex(lock, token, command));
    }

    fn on_event(&mut self, world: &mut World, lock: LockIx, event: Event) {
        match (lock, event) {
            (LockIx::Membership, Event::Done(Outcome::Granted(_)))
                if self.phase == Phase::Joining =>
            {
                self.check(world);
            }
            (LockIx::Membership, Event::Done(Outcome::Refused(_)))
                if self.phase == Phase::Joining =>
            {
                self.phase = Phase::Off(world.now + 500 * MS);
            }
            (LockIx::Lv, Event::Done(Outcome::Granted(_))) => {
                self.asked = false;
                self.granted(world);
            }
            (LockIx::Lv, Event::Done(outcome)) => {
                self.asked = false;
                let converted = matches!(outcome, Outcome::Converted { .. });
                if converted && self.phase == Phase::Started {
                    self.granted(world);
                }
            }
            (LockIx::Lv, Event::Lapsed | Event::Lost(_)) => self.lose(world),
            (LockIx::Membership, Event::Lost(_)) => self.lose(world),
            _ => {}
        }
    }

    fn granted(&mut self, world: &mut World) {
        if self.phase != Phase::Started {
            let _ = self.lv.request(Request::Release { value: None }, world.instant());
            return;
        }
        self.writes = self.lv.mode().map(|mode| world.grant(self.at, mode));
        let held = if world.flaps() { 1000..7_200_000 } else { 500..6000 };
        self.until = world.now + world.rng.u64(held) * MS;
    }

    fn begin(&mut self, world: &mut World, job: Job) {
        self.next_job += 1;
        let id = self.next_job;
        self.jobs.insert(id, Running { job, orders: BTreeMap::new() });
        self.go_on(world, id);
    }

    /// Gives the next orders of a job, and handles its end.
    fn go_on(&mut self, world: &mut World, id: u64) {
        let Some(mut running) = self.jobs.remove(&id) else { return };
        while let Some((to, action)) = running.next() {
            let late = matches!(running.job, Job::Late(_));
            let registers_late =
                late && action == (Action::Register { anew: true }) && !self.is_safe(world);
            let arrives = world.instant() + Duration::from_micros(world.scaled(LATEST));
            let removes_late = match &running.job {
                Job::Fence(fence, _) => {
                    matches!(action, Action::Preempt(_)) && !fence.may_arrive(arrives)
                }
                _ => false,
            };
            if registers_late || removes_late {
                running.on_answer(to, Answer::Silent);
                continue;
            }
            let mut parts = match action {
                Action::Read => vec![Part::Table],
                Action::Look => vec![Part::Report, Part::Table],
                Action::Register { anew } => vec![Part::Register { anew }; PATHS],
                Action::Unregister => vec![Part::Unregister; PATHS],
                Action::Reserve => vec![Part::Reserve],
                Action::Preempt(key) => vec![Part::Preempt(key)],
            };
            let left = parts.len();
            if let Some(part) = parts.pop() {
                self.send_part(world, id, to, &action, part, left);
            }
            running.orders.insert(to, (action, parts, Vec::new()));
        }
        if running.orders.is_empty() {
            return self.end(world, running.job);
        }
        self.jobs.insert(id, running);
    }

    /// Sends a part of an order. A host registers by every path.
    fn send_part(
        &mut self,
        world: &mut World,
        id: u64,
        to: DriveRef,
        action: &Action,
        part: Part,
        left: usize,
    ) {
        let drive = to.0 as usize;
        let path = match action {
            Action::Register { .. } | Action::Unregister => left - 1,
            _ => world.path(self.at, drive),
        };
        world.send((self.at, self.boot), drive, path, What::Part(id, self.key, part));
    }

    /// Whether no other host can believe that this one is dead before a command that is sent now
    /// has arrived.
    fn is_safe(&self, world: &World) -> bool {
        let until = self.membership.safe_until().unwrap_or_default();
        let arrival = Duration::from_micros(world.scaled(2 * GIVEN_UP + 200 * MS));
        let arrives = world.instant() + arrival;
        let blind = world.rules.broken == Some(BrokenRule::RegisterAfterCounting);
        blind || self.phase == Phase::Started && until > arrives
    }

    fn on_part(&mut self, world: &mut World, id: u64, from: DriveRef, end: PartEnd) {
        let Some(running) = self.jobs.get_mut(&id) else { return };
        let Some((action, mut parts, mut ends)) = running.orders.remove(&from) else { return };
        ends.push(end);
        // Without the table there is no need for the keys.
        let is_over = parts.is_empty()
            || action == Action::Look && matches!(ends.last(), Some(PartEnd::Silent));
        if !is_over {
            let left = parts.len();
            if let Some(part) = parts.pop() {
                running.orders.insert(from, (action, parts, ends));
                self.send_part(world, id, from, &action, part, left);
            }
            return;
        }
        running.on_answer(from, answer(&action, ends));
        self.go_on(world, id);
    }

    fn end(&mut self, world: &mut World, job: Job) {
        match job {
            Job::Start(enrolment) => {
                let Enrolled { registered, absent, obstacles } =
                    enrolment.outcome().cloned().unwrap_or_default();
                if !obstacles.is_empty() || registered.len() <= world.shape.drives / 2 {
                    self.phase = Phase::Draining;
                    return;
                }
                (self.registered, self.absent) = (registered, absent);
                match self.membership.mode() {
                    Some(_) => self.check(world),
                    None => self.join(world),
                }
            }
            Job::Check(watch) => {
                if watch.outcome().is_some_and(|found| found.removed.is_some()) {
                    return self.start(world);
                }
                self.phase = Phase::Started;
                world.excuse_start(self.at);
                world.report.came_back += u64::from(core::mem::take(&mut self.was_lost));
            }
            Job::Late(enrolment) => {
                let enrolled = enrolment.outcome().cloned().unwrap_or_default();
                self.absent.retain(|drive| !enrolled.registered.contains(drive));
                for drive in enrolled.registered {
                    if !self.registered.contains(&drive) {
                        self.registered.push(drive);
                    }
                }
                self.registered.sort_unstable();
            }
            Job::Watch(watch) => {
                let Findings { removed, to_enrol, .. } =
                    watch.outcome().cloned().unwrap_or_default();
                if removed.is_some() && self.phase == Phase::Started {
                    self.lose(world);
                }
                if !to_enrol.is_empty() {
                    let enrolment = Enrolment::new(self.id, group(), &to_enrol, false);
                    self.begin(world, Job::Late(enrolment));
                }
            }
            Job::Leave(_) => {
                // No command to remove a registration may be late.
                let pause = world.rng.u64(2000..4000) * MS;
                self.phase = Phase::Off(world.now + world.scaled(pause));
            }
            Job::Fence(fence, command) => self.fenced(world, &fence, command),
        }
    }

    fn fenced(&mut self, world: &mut World, fence: &Fence, command: Command) {
        let now = world.instant();
        let arrives = now + Duration::from_micros(world.scaled(LATEST));
        let status = match fence.outcome() {
            Some(Verdict::Go(_)) if !fence.may_arrive(arrives) => Status::Unreachable,
            Some(Verdict::Go(victims)) => {
                world.report.taken_over += u64::from(!victims.is_empty());
                return self.submit(world, LockIx::Lv, command);
            }
            Some(Verdict::Held) => match command.command {
                DriveCommand::Mutex(MutexOp::Refresh, _) => Status::Terminated,
                _ => Status::Conflict,
            },
            Some(Verdict::Removed(_)) => {
                self.lose(world);
                Status::Unreachable
            }
            _ => Status::Unreachable,
        };
        self.lv.on_reply(command.token, Reply::Status(status), now);
        self.pump(world);
    }
}

impl Running {
    fn next(&mut self) -> Option<(DriveRef, Action)> {
        match &mut self.job {
            Job::Start(it) | Job::Late(it) => it.next(),
            Job::Watch(it) | Job::Check(it) => it.next(),
            Job::Leave(it) => it.next(),
            Job::Fence(it, _) => it.next(),
        }
    }

    fn on_answer(&mut self, drive: DriveRef, answer: Answer) {
        match &mut self.job {
            Job::Start(it) | Job::Late(it) => it.on_answer(drive, answer),
            Job::Watch(it) | Job::Check(it) => it.on_answer(drive, answer),
            Job::Leave(it) => it.on_answer(drive, answer),
            Job::Fence(it, _) => it.on_answer(drive, answer),
        }
    }
}

/// Whether a command may take locks from other hosts.
fn takes_away(
    op: MutexOp,
    record: &Record,
    is_exclusive: impl Fn(DriveRef) -> bool,
    drive: DriveRef,
) -> bool {
    match op {
        MutexOp::Break => true,
        MutexOp::Refresh => record.class.mode() == Mode::Exclusive && !is_exclusive(drive),
        _ => false,
    }
}

/// The answer to an order, from the results of its parts.
fn answer(action: &Action, ends: Vec<PartEnd>) -> Answer {
    let mut ends = ends.into_iter();
    match (action, ends.next(), ends.next()) {
        (Action::Read, Some(PartEnd::Table(table)), None) => Answer::Table(table),
        (Action::Look, Some(PartEnd::Table(table)), Some(PartEnd::Report(seen))) => {
            Answer::Seen(Seen { table: Arc::clone(&table), ..*seen })
        }
        (Action::Read | Action::Look, ..) => Answer::Silent,
        // By one path at least, and refused by none; a key that one path has is still registered.
        (_, one, other) => {
            let all: Vec<PartEnd> = one.into_iter().chain(other).collect();
            let any = |kind: fn(&PartEnd) -> bool| all.iter().any(kind);
            let is_done = any(|end| matches!(end, PartEnd::Done));
            let confirms = *action == Action::Register { anew: false };
            if any(|end| matches!(end, PartEnd::Conflict)) && !(confirms && is_done) {
                Answer::Conflict
            } else if is_done {
                Answer::Done
            } else {
                Answer::Silent
            }
        }
    }
}

/// A token as a key of a map.
fn number(token: Token) -> u64 {
    let text = format!("{token:?}");
    text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}
