//! Counters, and what they look like from outside: docs/metrics.md.
//!
//! Counting is an atomic addition. Whoever reads sees each number as it is just then, and stops
//! nobody.

pub mod export;
mod text;

use crate::lock::{Answer, Role};
use crate::sys::clock;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use idm_engine::{Instant, Loss, Notice, Outcome, Refusal};
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, Status};
use text::{Kind, Text, seconds};

/// Numbers that are counted by what they are about: one of `N` names.
struct Counts<const N: usize> {
    names: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> Counts<N> {
    fn new(names: [&'static str; N]) -> Counts<N> {
        Counts { names, counts: [const { AtomicU64::new(0) }; N] }
    }

    fn add(&self, at: usize, count: i64) {
        // Wraps where it is taken off again.
        self.counts[at].fetch_add(count as u64, Ordering::Relaxed);
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        self.names.into_iter().zip(counts)
    }
}

/// What is requested of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To take it.
    Acquire,
    /// To keep what an earlier lvmlockd left of it.
    Adopt,
    /// To change its mode.
    Convert,
    /// To give it up.
    Release,
}

const ASKED: [&str; 4] = ["acquire", "adopt", "convert", "release"];
const RESULTS: [&str; 12] = [
    "done",
    "held",
    "no_quorum",
    "full",
    "unconfirmed",
    "nothing",
    "unclear",
    "other_mode",
    "killed",
    "in_use",
    "failed",
    "timed_out",
];
const ROLES: [&str; 4] = ["global", "vg", "lv", "membership"];
const MODES: [&str; 2] = ["shared", "exclusive"];
const LOSSES: [&str; 4] = ["taken", "other_set", "lapsed", "internal"];
const EVENTS: [&str; 8] = [
    "broken",
    "own_taken_over",
    "drive_lost",
    "drive_gained",
    "split_vote",
    "collected",
    "not_idm",
    "regained",
];

fn role(role: Role) -> usize {
    match role {
        Role::Global => 0,
        Role::Vg => 1,
        Role::Lv => 2,
        Role::Membership => 3,
    }
}

fn result(answer: &Answer) -> usize {
    match answer {
        Answer::Done(Outcome::Refused(refusal)) => match refusal {
            Refusal::Held(_) => 1,
            Refusal::NoQuorum { .. } => 2,
            Refusal::Full => 3,
            Refusal::Unconfirmed => 4,
            Refusal::NothingToAdopt => 5,
            Refusal::Unclear => 6,
            Refusal::OtherMode(_) => 7,
        },
        Answer::Done(_) => 0,
        Answer::Killed => 8,
        Answer::InUse => 9,
        Answer::Failed(_) => 10,
        Answer::TimedOut => 11,
    }
}

/// Why a lock is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// See [`Loss::Taken`].
    Taken,
    /// See [`Loss::OtherSet`].
    OtherSet,
    /// Its lease has run out.
    Lapsed,
    /// An error of ours.
    Internal,
}

impl From<&Loss> for LossKind {
    fn from(loss: &Loss) -> LossKind {
        match loss {
            Loss::Taken => LossKind::Taken,
            Loss::OtherSet(_) => LossKind::OtherSet,
        }
    }
}

/// What the whole process counts.
pub struct Metrics {
    held: [Counts<2>; 4],
    requests: [Counts<12>; 4],
    losses: Counts<4>,
    events: Counts<8>,
    kills: AtomicU64,
    lockspaces: AtomicU64,
    /// When the first lease ends of the locks in use, in us since boot; `u64::MAX` for none.
    safe_until: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            held: [(); 4].map(|()| Counts::new(MODES)),
            requests: [(); 4].map(|()| Counts::new(RESULTS)),
            losses: Counts::new(LOSSES),
            events: Counts::new(EVENTS),
            kills: AtomicU64::new(0),
            lockspaces: AtomicU64::new(0),
            safe_until: AtomicU64::new(u64::MAX),
        }
    }
}

impl Metrics {
    /// A lock is held in another way than before; `None`: not at all.
    pub fn held(&self, of: Role, before: Option<Mode>, now: Option<Mode>) {
        let at = |mode: Mode| usize::from(mode == Mode::Exclusive);
        if let Some(before) = before {
            self.held[role(of)].add(at(before), -1);
        }
        if let Some(now) = now {
            self.held[role(of)].add(at(now), 1);
        }
    }

    /// A request has ended.
    pub fn answered(&self, asked: Asked, answer: &Answer) {
        self.requests[asked as usize].add(result(answer), 1);
    }

    /// A lock is lost.
    pub fn lost(&self, why: LossKind) {
        self.losses.add(why as usize, 1);
    }

    /// An engine has told something.
    pub fn noticed(&self, notice: &Notice) {
        let at = match notice {
            Notice::Broke { .. } => 0,
            Notice::TookOverOwn { .. } => 1,
            Notice::DriveLost { .. } => 2,
            Notice::DriveGained { .. } => 3,
            Notice::SplitVote => 4,
            Notice::Collected { .. } => 5,
            Notice::NotIdm { .. } => 6,
        };
        self.events.add(at, 1);
    }

    /// A lock whose lease had run out is held again.
    pub fn regained(&self) {
        self.events.add(7, 1);
    }

    /// A kill command is run.
    pub fn killed(&self) {
        self.kills.fetch_add(1, Ordering::Relaxed);
    }

    /// So many lockspaces are started.
    pub fn lockspaces(&self, count: usize) {
        self.lockspaces.store(count as u64, Ordering::Relaxed);
    }

    /// When the first of the leases of locks in use ends.
    pub fn safe_until(&self, first: Option<Instant>) {
        let first = first.map_or(u64::MAX, Instant::as_micros);
        self.safe_until.store(first, Ordering::Relaxed);
    }

    /// All of it, and the drives', in Prometheus' text format.
    pub fn render(&self, drives: &[DriveSample<'_>]) -> String {
        let mut text = Text::default();
        self.render_locks(&mut text);
        render_drives(&mut text, drives);
        text.finish()
    }

    fn render_locks(&self, text: &mut Text) {
        let name = "lvmlockd_idm_locks_held";
        text.metric(name, Kind::Gauge, "Locks that this host holds.");
        for (role, held) in ROLES.iter().zip(&self.held) {
            for (mode, count) in held.each() {
                text.sample(name, &[("role", role), ("mode", mode)], count);
            }
        }
        let name = "lvmlockd_idm_requests_total";
        text.metric(name, Kind::Counter, "Requests for locks, by how they ended.");
        for (asked, counts) in ASKED.iter().zip(&self.requests) {
            for (result, count) in counts.each() {
                text.sample(name, &[("request", asked), ("result", result)], count);
            }
        }
        let name = "lvmlockd_idm_locks_lost_total";
        text.metric(name, Kind::Counter, "Locks that were lost while they were held.");
        for (reason, count) in self.losses.each() {
            text.sample(name, &[("reason", reason)], count);
        }
        let name = "lvmlockd_idm_lock_events_total";
        text.metric(name, Kind::Counter, "What happened to locks on single drives.");
        for (event, count) in self.events.each() {
            text.sample(name, &[("event", event)], count);
        }
        let name = "lvmlockd_idm_kills_total";
        text.metric(name, Kind::Counter, "Kill commands that were run.");
        text.sample(name, &[], self.kills.load(Ordering::Relaxed));
        let name = "lvmlockd_idm_lockspaces";
        text.metric(name, Kind::Gauge, "Lockspaces that are started, the global one included.");
        text.sample(name, &[], self.lockspaces.load(Ordering::Relaxed));
        let safe_until = self.safe_until.load(Ordering::Relaxed);
        if safe_until != u64::MAX {
            let name = "lvmlockd_idm_lease_left_seconds";
            text.metric(name, Kind::Gauge, "Time until the first of the locks in use may be lost.");
            let left = Instant::from_micros(safe_until).since(clock::now());
            text.sample(name, &[], seconds(left.as_micros() as u64));
        }
    }
}

const COMMANDS: [&str; 8] =
    ["init", "trylock", "lock", "unlock", "refresh", "break", "destroy", "read"];
/// Replies that are no part of daily life.
const ERRORS: [&str; 6] =
    ["full", "try_again", "unsupported", "failed", "unreachable", "uncertain"];
/// Upper bounds in us.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

fn command(command: &DriveCommand) -> usize {
    match command {
        DriveCommand::Mutex(op, _) => match op {
            MutexOp::Init => 0,
            MutexOp::Trylock => 1,
            MutexOp::Lock => 2,
            MutexOp::Unlock => 3,
            MutexOp::Refresh => 4,
            MutexOp::Break => 5,
            MutexOp::Destroy => 6,
        },
        DriveCommand::ReadTable => 7,
    }
}

fn error(reply: &Reply) -> Option<usize> {
    match reply {
        Reply::Table(_) => None,
        Reply::Status(status) => match status {
            Status::Good
            | Status::Conflict
            | Status::Terminated
            | Status::NotFound
            | Status::WrongState => None,
            Status::Full(_) => Some(0),
            Status::TryAgain => Some(1),
            Status::Unsupported => Some(2),
            Status::Failed => Some(3),
            Status::Unreachable => Some(4),
            Status::Uncertain => Some(5),
        },
    }
}

/// What is counted of one drive.
pub struct DriveMetrics {
    commands: Counts<8>,
    errors: [Counts<6>; 8],
    /// Commands that took no longer than each bound and longer than the one before; the last has
    /// no bound.
    took: [AtomicU64; BOUNDS.len() + 1],
    /// All of them together, in us.
    took_us: AtomicU64,
}

impl Default for DriveMetrics {
    fn default() -> DriveMetrics {
        DriveMetrics {
            commands: Counts::new(COMMANDS),
            errors: [(); 8].map(|()| Counts::new(ERRORS)),
            took: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            took_us: AtomicU64::new(0),
        }
    }
}

impl DriveMetrics {
    /// A command was carried out, or failed.
    pub fn executed(&self, of: &DriveCommand, reply: &Reply, took: Duration) {
        let command = command(of);
        self.commands.add(command, 1);
        if let Some(error) = error(reply) {
            self.errors[command].add(error, 1);
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|&bound| bound < us);
        self.took[bucket].fetch_add(1, Ordering::Relaxed);
        self.took_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// A drive as it is just now.
pub struct DriveSample<'a> {
    /// What tells it from others on every host.
    pub identity: &'a str,
    /// Its name in messages.
    pub name: &'a str,
    /// Whether it answered when it was last asked.
    pub answers: bool,
    /// Paths that lead to it.
    pub paths: usize,
    /// Commands that wait.
    pub queued: usize,
    /// Threads that it has.
    pub workers: usize,
    /// What was counted.
    pub metrics: &'a DriveMetrics,
}

fn render_drives(text: &mut Text, drives: &[DriveSample<'_>]) {
    let name = "lvmlockd_idm_drive_info";
    text.metric(name, Kind::Gauge, "1 for every drive, with its name in the log.");
    for drive in drives {
        text.sample(name, &[("drive", drive.identity), ("name", drive.name)], 1);
    }
    type Value = fn(&DriveSample<'_>) -> usize;
    let gauges: [(&str, &str, Value); 4] = [
        ("answers", "Whether the drive answered when it was last asked.", |d| d.answers.into()),
        ("paths", "Paths that lead to the drive.", |d| d.paths),
        ("queue_length", "Commands that wait for the drive.", |d| d.queued),
        ("workers", "Threads that serve the drive.", |d| d.workers),
    ];
    for (gauge, help, value) in gauges {
        let name = format!("lvmlockd_idm_drive_{gauge}");
        text.metric(&name, Kind::Gauge, help);
        for drive in drives {
            text.sample(&name, &[("drive", drive.identity)], value(drive));
        }
    }
    let name = "lvmlockd_idm_drive_commands_total";
    text.metric(name, Kind::Counter, "Commands that were sent to the drive.");
    for drive in drives {
        for (command, count) in drive.metrics.commands.each() {
            if !matches!(command, "init" | "lock") {
                text.sample(name, &[("drive", drive.identity), ("command", command)], count);
            }
        }
    }
    let name = "lvmlockd_idm_drive_errors_total";
    text.metric(name, Kind::Counter, "Commands that failed on the drive or on the way.");
    for drive in drives {
        for (command, errors) in COMMANDS.iter().zip(&drive.metrics.errors) {
            for (error, count) in errors.each().filter(|&(_, count)| count > 0) {
                let labels = [("drive", drive.identity), ("command", command), ("error", error)];
                text.sample(name, &labels, count);
            }
        }
    }
    let name = "lvmlockd_idm_drive_command_seconds";
    text.metric(name, Kind::Histogram, "Time that the drive took for a command.");
    for drive in drives {
        let bounds = BOUNDS.iter().map(|&bound| seconds(bound)).chain(["+Inf".to_owned()]);
        let mut count = 0;
        for (bound, took) in bounds.zip(&drive.metrics.took) {
            count += took.load(Ordering::Relaxed);
            let labels = [("drive", drive.identity), ("le", &bound)];
            text.sample(&format!("{name}_bucket"), &labels, count);
        }
        let sum = seconds(drive.metrics.took_us.load(Ordering::Relaxed));
        text.sample(&format!("{name}_sum"), &[("drive", drive.identity)], sum);
        text.sample(&format!("{name}_count"), &[("drive", drive.identity)], count);
    }
}

#[cfg(test)]
mod tests;
