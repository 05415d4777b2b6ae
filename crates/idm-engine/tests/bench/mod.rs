//! One lock, or a few, over some emulated drives, step by step.

// Not every test needs all of it.
#![allow(dead_code, unused_imports)]

mod states;

use core::time::Duration;
use idm_emulator::{Drive, DriveTime, Profile};
use idm_engine::{
    Command, DriveRef, Event, Instant, Lock, LockConfig, Member, Outcome, Refusal, Request, Timing,
    ValueRead,
};
use idm_protocol::{
    DriveCommand, HostId, Mode, MutexOp, Record, Reply, ResourceId, State, Status, Value,
};
pub use states::*;

pub const LEASE: Duration = Duration::from_secs(60);
pub const SECOND: Duration = Duration::from_secs(1);
/// The time before `safe_until` at which the kill command is started.
pub const MARGIN: Duration = Duration::from_secs(11);
pub const X: Mode = Mode::Exclusive;
pub const S: Mode = Mode::Shared;
pub const GRANTED: Outcome = Outcome::Granted(ValueRead::Unknown);
pub const RELEASE: Request = Request::Release { value: None };

/// State of a path to a drive.
#[derive(Clone, Copy, PartialEq)]
pub enum Path {
    Up,
    /// Nothing arrives, and the host gets an error.
    Cut,
    /// The drive acts, but its answer is lost.
    Deaf,
    /// No answer comes at all.
    Hung,
}

/// Result of one command.
#[derive(Clone, Copy)]
pub enum Fate {
    /// The drive carries it out and answers.
    Answered,
    /// The drive does not get it; this is the answer instead.
    Instead(Status),
    /// The drive carries it out; this is the answer instead.
    Despite(Status),
    /// It is reported with an unknown result, and arrives later.
    Late,
    /// It has no answer yet, and is not carried out.
    Open,
    /// The drive carries it out; it has no answer yet.
    Unheard,
}

/// Some drives, a clock, and the commands that were sent.
pub struct Bench {
    pub drives: Vec<Drive>,
    pub paths: Vec<Path>,
    pub now: Instant,
    pub log: Vec<(usize, &'static str)>,
}

impl Bench {
    pub fn new(drives: usize) -> Bench {
        Bench::with(drives, Profile::current())
    }

    pub fn with(drives: usize, profile: Profile) -> Bench {
        Bench {
            drives: (0..drives).map(|_| Drive::new(profile)).collect(),
            paths: vec![Path::Up; drives],
            now: Instant::from_micros(1_000_000_000),
            log: Vec::new(),
        }
    }

    pub fn members(&self, drives: &[u32]) -> Vec<Member> {
        drives
            .iter()
            .map(|&d| Member { drive: DriveRef(d), identity: format!("naa.{d}").into_bytes() })
            .collect()
    }

    pub fn all(&self) -> Vec<Member> {
        self.members(&(0..self.drives.len() as u32).collect::<Vec<_>>())
    }

    pub fn acquire(&self, mode: Mode) -> Request {
        Request::Acquire { mode, members: self.all(), witnesses: Vec::new() }
    }

    /// Sends all commands that the lock has now.
    pub fn exchange(&mut self, lock: &mut Lock) {
        while self.step(lock).is_some() {}
    }

    /// Sends the next command that the lock has now, and gives it the answer.
    pub fn step(&mut self, lock: &mut Lock) -> Option<Command> {
        let command = lock.next_command(self.now)?;
        self.log.push((command.drive.0 as usize, name_of(&command.command)));
        if let Some(reply) = self.answer(&command) {
            lock.on_reply(command.token, reply, self.now);
        }
        Some(command)
    }

    /// The answer to a command by the drive's path, if there is any.
    pub fn answer(&mut self, command: &Command) -> Option<Reply> {
        match self.paths[command.drive.0 as usize] {
            Path::Up => Some(self.perform(command)),
            Path::Cut => Some(Reply::Status(Status::Unreachable)),
            Path::Deaf => {
                self.perform(command);
                Some(Reply::Status(Status::Uncertain))
            }
            Path::Hung => None,
        }
    }

    /// Lets the drive carry out a command.
    pub fn perform(&mut self, command: &Command) -> Reply {
        let time = DriveTime::from_micros(self.now.as_micros());
        self.drives[command.drive.0 as usize].perform(time, &command.command)
    }

    /// Lets `time` pass for one lock.
    pub fn pass(&mut self, lock: &mut Lock, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange(lock);
            match lock.next_deadline() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
            lock.on_timer(self.now);
        }
        self.now = end;
        lock.on_timer(self.now);
        self.exchange(lock);
    }

    /// Lets time pass until the lock has something to do.
    pub fn wait(&mut self, lock: &mut Lock) {
        self.now = self.now.max(lock.next_deadline().expect("something is to come"));
        lock.on_timer(self.now);
    }

    /// Runs a request to its end, and sends what is left to send then.
    pub fn run(&mut self, lock: &mut Lock, request: Request) -> Outcome {
        let outcome = self.run_only(lock, request);
        self.exchange(lock);
        outcome
    }

    /// Runs a request, and sends nothing after its end.
    pub fn run_only(&mut self, lock: &mut Lock, request: Request) -> Outcome {
        lock.request(request, self.now).expect("the request is in order");
        for _ in 0..10_000 {
            while let Some(event) = lock.next_event() {
                if let Event::Done(outcome) = event {
                    return outcome;
                }
            }
            if self.step(lock).is_none() {
                self.wait(lock);
            }
        }
        panic!("the request does not end");
    }

    /// The states of the records on one drive.
    pub fn states(&self, drive: usize) -> Vec<State> {
        self.table(drive).iter().map(|r| r.state).collect()
    }

    pub fn table(&self, drive: usize) -> Vec<Record> {
        self.drives[drive].table(DriveTime::from_micros(self.now.as_micros()))
    }
}

pub fn name_of(command: &DriveCommand) -> &'static str {
    match command {
        DriveCommand::ReadTable => "read",
        DriveCommand::Mutex(MutexOp::Trylock, _) => "trylock",
        DriveCommand::Mutex(MutexOp::Refresh, _) => "refresh",
        DriveCommand::Mutex(MutexOp::Break, _) => "break",
        DriveCommand::Mutex(MutexOp::Unlock, _) => "unlock",
        DriveCommand::Mutex(MutexOp::Destroy, _) => "destroy",
        DriveCommand::Mutex(MutexOp::Init | MutexOp::Lock, _) => "never sent",
    }
}

/// Sends the commands that the lock has now; `fate` decides the result of each. Returns those that
/// are late or open.
pub fn exchange_with(
    bench: &mut Bench,
    lock: &mut Lock,
    mut fate: impl FnMut(&Command) -> Fate,
) -> Vec<Command> {
    let mut kept = Vec::new();
    while let Some(command) = lock.next_command(bench.now) {
        bench.log.push((command.drive.0 as usize, name_of(&command.command)));
        let reply = match fate(&command) {
            Fate::Answered => bench.perform(&command),
            Fate::Instead(status) => Reply::Status(status),
            Fate::Despite(status) => {
                bench.perform(&command);
                Reply::Status(status)
            }
            Fate::Late => {
                kept.push(command.clone());
                Reply::Status(Status::Uncertain)
            }
            Fate::Open => {
                kept.push(command);
                continue;
            }
            Fate::Unheard => {
                bench.perform(&command);
                kept.push(command);
                continue;
            }
        };
        lock.on_reply(command.token, reply, bench.now);
    }
    kept
}

/// Runs a request to its end; `fate` decides the result of each command.
pub fn run_with(
    bench: &mut Bench,
    lock: &mut Lock,
    request: Request,
    mut fate: impl FnMut(&Command) -> Fate,
) -> Outcome {
    lock.request(request, bench.now).expect("the request is in order");
    loop {
        exchange_with(bench, lock, &mut fate);
        if let Some(outcome) = done(lock) {
            return outcome;
        }
        bench.wait(lock);
    }
}

/// Sends the commands that the lock has while `time` passes; `fate` decides the result of each.
pub fn pass_with(
    bench: &mut Bench,
    lock: &mut Lock,
    time: Duration,
    mut fate: impl FnMut(&Command) -> Fate,
) -> Vec<Command> {
    let end = bench.now + time;
    let mut kept = Vec::new();
    loop {
        kept.extend(exchange_with(bench, lock, &mut fate));
        match lock.next_deadline() {
            Some(next) if next <= end => bench.now = bench.now.max(next),
            _ => break,
        }
        lock.on_timer(bench.now);
    }
    bench.now = end;
    lock.on_timer(bench.now);
    kept
}

/// The next REFRESH of a drive, whose answer has this fate; all other commands are answered.
pub fn next_refresh(bench: &mut Bench, lock: &mut Lock, drive: u32, fate: Fate) -> Command {
    loop {
        bench.wait(lock);
        let mut kept = exchange_with(bench, lock, |command| match command.drive.0 {
            it if it == drive => fate,
            _ => Fate::Answered,
        });
        if let Some(command) = kept.pop() {
            return command;
        }
    }
}

/// All commands that a host sends before the first answer comes.
pub fn all_at_once(bench: &Bench, lock: &mut Lock) -> Vec<Command> {
    core::iter::from_fn(|| lock.next_command(bench.now)).collect()
}

/// Lets time pass for a host without a path to drive 2, and for one with all paths.
pub fn both_pass(bench: &mut Bench, a: &mut Lock, b: &mut Lock, time: Duration) {
    let end = bench.now + time;
    while bench.now < end {
        bench.paths[2] = Path::Cut;
        a.on_timer(bench.now);
        bench.exchange(a);
        bench.paths.fill(Path::Up);
        b.on_timer(bench.now);
        bench.exchange(b);
        bench.now = bench.now + SECOND / 10;
    }
    a.on_timer(bench.now);
    b.on_timer(bench.now);
}

pub fn acquire(bench: &Bench, mode: Mode, on: &[u32], witnesses: &[u32]) -> Request {
    let (members, witnesses) = (bench.members(on), bench.members(witnesses));
    Request::Acquire { mode, members, witnesses }
}

pub fn take(
    bench: &mut Bench,
    lock: &mut Lock,
    mode: Mode,
    on: &[u32],
    witnesses: &[u32],
) -> Outcome {
    let request = acquire(bench, mode, on, witnesses);
    bench.run(lock, request)
}

/// An adoption of host 1's lock, whose records nobody can have broken yet. With `safe_until`, the
/// lock is known as granted, and as safe until then. It is noted as exclusive if any record is.
pub fn adopt(bench: &Bench, on: &[u32], safe_until: Option<Instant>) -> Request {
    adopt_beside(bench, on, &[], safe_until)
}

/// The same where the VG has other drives.
pub fn adopt_beside(
    bench: &Bench,
    on: &[u32],
    others: &[u32],
    safe_until: Option<Instant>,
) -> Request {
    let (members, witnesses) = (bench.members(on), bench.members(others));
    let granted = safe_until.is_some();
    let safe_until = safe_until.or(Some(bench.now + LEASE));
    let records = |drive: &u32| bench.table(*drive as usize);
    let exclusive = |r: &Record| r.host == host(1) && r.class.mode() == X;
    let mode = if on.iter().flat_map(records).any(|r| exclusive(&r)) { X } else { S };
    Request::Adopt { mode, safe_until, granted, members, witnesses }
}

/// The same adoption, without knowledge until when the lock was safe.
pub fn unknown(mut request: Request) -> Request {
    if let Request::Adopt { safe_until, granted, .. } = &mut request {
        (*safe_until, *granted) = (None, false);
    }
    request
}

/// The same adoption, of a lock that was granted in this mode.
pub fn in_mode(mut request: Request, granted: Mode) -> Request {
    if let Request::Adopt { mode, .. } = &mut request {
        *mode = granted;
    }
    request
}

pub fn convert(mode: Mode) -> Request {
    Request::Convert { mode, value: None }
}

/// A host requests the lock on all drives, but only those in `on` get the commands.
pub fn seize(bench: &mut Bench, lock: &mut Lock, mode: Mode, on: &[u32]) {
    lock.request(bench.acquire(mode), bench.now).expect("in order");
    while let Some(command) = lock.next_command(bench.now) {
        if on.contains(&command.drive.0) {
            bench.perform(&command);
        }
    }
}

/// Names the drives that are to vote, and lets a second pass.
pub fn spread(bench: &mut Bench, lock: &mut Lock, drives: &[u32]) {
    let named = bench.members(drives);
    lock.spread(&named, bench.now);
    bench.pass(lock, Duration::from_secs(1));
}

/// The same, and lets them vote if they are ready.
pub fn travel(bench: &mut Bench, lock: &mut Lock, drives: &[u32]) -> bool {
    spread(bench, lock, drives);
    is_ready(lock).is_some_and(|named| lock.move_votes(&named, bench.now))
}

/// Moves the votes, and lets the lock settle.
pub fn move_to(bench: &mut Bench, lock: &mut Lock, drives: &[u32]) {
    assert!(travel(bench, lock, drives));
    bench.exchange(lock);
}

/// Lets the votes move within five minutes, as soon as the drives that were named are ready.
pub fn moves_in_time(bench: &mut Bench, lock: &mut Lock) -> bool {
    let mut moved = false;
    for _ in 0..60 {
        bench.pass(lock, SECOND * 5);
        moved |= is_ready(lock).is_some_and(|ready| lock.move_votes(&ready, bench.now));
    }
    moved
}

pub fn is_ready(lock: &mut Lock) -> Option<Vec<DriveRef>> {
    events(lock).into_iter().find_map(|event| match event {
        Event::VotesReady { members } => Some(members),
        _ => None,
    })
}

pub fn done(lock: &mut Lock) -> Option<Outcome> {
    events(lock).into_iter().find_map(|event| match event {
        Event::Done(outcome) => Some(outcome),
        _ => None,
    })
}

pub fn is_held(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::Held(_)))
}

pub fn believes(bench: &Bench, lock: &Lock) -> bool {
    lock.mode().is_some() && lock.safe_until() > Some(bench.now)
}

/// Lets another host, which counts these drives, ask for the lock while `a` may believe in it.
pub fn assert_no_other_gets(bench: &mut Bench, a: &Lock, on: &[u32]) {
    let mut b = lv_lock(2);
    take(bench, &mut b, X, on, &[]);
    assert_one_holder(bench, a, &b);
}

pub fn assert_one_holder(bench: &Bench, a: &Lock, b: &Lock) {
    assert!(
        !(believes(bench, a) && believes(bench, b)),
        "both believe: {:?} on {:?}, {:?} on {:?}",
        a.mode(),
        on(a),
        b.mode(),
        on(b)
    );
}

/// The drives that hold the lock.
pub fn on(lock: &Lock) -> Vec<u32> {
    let mut drives: Vec<u32> = lock.held_on().map(|(drive, _)| drive.0).collect();
    drives.sort_unstable();
    drives
}

/// The commands that were sent to one drive.
pub fn said(bench: &Bench, drive: usize) -> Vec<&'static str> {
    bench.log.iter().filter(|(at, _)| *at == drive).map(|(_, name)| *name).collect()
}

pub fn op(command: &Command) -> Option<MutexOp> {
    match command.command {
        DriveCommand::Mutex(op, _) => Some(op),
        DriveCommand::ReadTable => None,
    }
}

pub const VG: &str = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa";
pub const LV: &str = "bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb";
pub const OTHER_LV: &str = "cccccc-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa";

pub fn host(n: u8) -> HostId {
    HostId::new([n; 16], "host")
}

pub fn lock(n: u8, resource: ResourceId, keeps_value: bool) -> Lock {
    let timing = Timing::for_lease(LEASE);
    Lock::new(LockConfig::new(resource, host(n), keeps_value, timing, u64::from(n)))
}

/// The same lock, unused, with a changed configuration.
pub fn with_config(lock: Lock, change: impl FnOnce(&mut LockConfig)) -> Lock {
    let mut config = lock.config().clone();
    change(&mut config);
    Lock::new(config)
}

pub fn lv_lock(n: u8) -> Lock {
    lock(n, ResourceId::lv(VG, LV).expect("a good id"), false)
}

pub fn other_lv_lock(n: u8) -> Lock {
    lock(n, ResourceId::lv(VG, OTHER_LV).expect("a good id"), false)
}

pub fn vg_lock(n: u8) -> Lock {
    lock(n, ResourceId::vg(VG).expect("a good id"), true)
}

pub fn value(n: u64) -> Value {
    Value::new(n).expect("56 bits")
}

pub fn events(lock: &mut Lock) -> Vec<Event> {
    core::iter::from_fn(|| lock.next_event()).collect()
}
