//! One lock, or a few, over some emulated drives, step by step.

// Not every test needs all of it.
#![allow(dead_code)]

use core::time::Duration;
use idm_emulator::{Drive, DriveTime, Profile};
use idm_engine::{
    Command, DriveRef, Event, Instant, Lock, LockConfig, Member, Outcome, Request, Timing,
    ValueRead,
};
use idm_protocol::{DriveCommand, HostId, Mode, MutexOp, Reply, ResourceId, State, Status, Value};

pub const LEASE: Duration = Duration::from_secs(60);

/// What happens to commands on their way to a drive.
#[derive(Clone, Copy, PartialEq)]
pub enum Path {
    Up,
    /// Nothing arrives, and the host is told so.
    Cut,
    /// The drive acts, but its answer is lost.
    Deaf,
    /// No answer comes at all.
    Hung,
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

    /// Sends what the lock wants to send, until it has nothing more to send now.
    pub fn exchange(&mut self, lock: &mut Lock) {
        while let Some(command) = lock.next_command(self.now) {
            let at = command.drive.0 as usize;
            self.log.push((at, name_of(&command.command)));
            let time = DriveTime::from_micros(self.now.as_micros());
            let reply = match self.paths[at] {
                Path::Up => self.drives[at].perform(time, &command.command),
                Path::Cut => Reply::Status(Status::Unreachable),
                Path::Deaf => {
                    self.drives[at].perform(time, &command.command);
                    Reply::Status(Status::Uncertain)
                }
                Path::Hung => continue,
            };
            lock.on_reply(command.token, reply, self.now);
        }
    }

    /// The drive carries out a command.
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

    /// Runs a request to its end.
    pub fn run(&mut self, lock: &mut Lock, request: Request) -> Outcome {
        lock.request(request, self.now).expect("the request is in order");
        for _ in 0..10_000 {
            self.exchange(lock);
            while let Some(event) = lock.next_event() {
                if let Event::Done(outcome) = event {
                    self.exchange(lock);
                    return outcome;
                }
            }
            self.now = self.now.max(lock.next_deadline().expect("something is to come"));
            lock.on_timer(self.now);
        }
        panic!("the request does not end");
    }

    /// States of the records on one drive.
    pub fn states(&self, drive: usize) -> Vec<State> {
        let time = DriveTime::from_micros(self.now.as_micros());
        self.drives[drive].table(time).iter().map(|r| r.state).collect()
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

pub const VG: &str = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa";
pub const LV: &str = "bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb";

pub fn host(n: u8) -> HostId {
    HostId::new([n; 16], "host")
}

pub fn lock(n: u8, resource: ResourceId, keeps_value: bool) -> Lock {
    let timing = Timing::for_lease(LEASE);
    Lock::new(LockConfig::new(resource, host(n), keeps_value, timing, u64::from(n)))
}

pub fn lv_lock(n: u8) -> Lock {
    lock(n, ResourceId::lv(VG, LV).expect("a good id"), false)
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

pub const GRANTED: Outcome = Outcome::Granted(ValueRead::Unknown);
