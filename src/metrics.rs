//! Counters, and their export: docs/metrics.md.
//!
//! Counting is an atomic addition. A reader sees the current value of each number, and blocks no
//! writer but one that starts or stops a lockspace.

pub mod export;
mod labels;
mod text;

use crate::lock::{Owner, RequestResult, Role};
use crate::sys::clock;
use crate::sys::sync::Mutex;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use idm_engine::{Instant, Notice};
use idm_protocol::{DriveCommand, Mode, Reply};
pub use labels::{Asked, LossKind};
use labels::{CommandLabel, Each, Ended, ErrorLabel, LockEvent};
use std::sync::Arc;
use text::{MetricKind, Text, seconds};

/// A counter.
#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self, count: i64) {
        // The addition wraps, so that it can also subtract.
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of the whole process.
pub struct Metrics {
    held: Each<Role, Each<Mode, Count, 2>, 4>,
    requests: Each<Asked, Each<Ended, Count, 12>, 4>,
    losses: Each<LossKind, Count, 4>,
    events: Each<LockEvent, Count, 8>,
    kills: AtomicU64,
    /// Owners of the lockspaces that are started.
    lockspaces: Mutex<Vec<Arc<Owner>>>,
    /// Time at which the first lease of the locks in use ends, in us since boot; `u64::MAX` for
    /// none.
    safe_until: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            held: Each::default(),
            requests: Each::default(),
            losses: Each::default(),
            events: Each::default(),
            kills: AtomicU64::new(0),
            lockspaces: Mutex::default(),
            safe_until: AtomicU64::new(u64::MAX),
        }
    }
}

impl Metrics {
    /// Records a change of the mode in which a lock is held; `None` means not held.
    pub fn held(&self, of: Role, before: Option<Mode>, now: Option<Mode>) {
        if let Some(before) = before {
            self.held.of(of).of(before).add(-1);
        }
        if let Some(now) = now {
            self.held.of(of).of(now).add(1);
        }
    }

    /// Counts a request that has ended.
    pub fn answered(&self, asked: Asked, answer: &RequestResult) {
        self.requests.of(asked).of(answer.into()).add(1);
    }

    /// Counts a lock that is lost.
    pub fn lost(&self, why: LossKind) {
        self.losses.of(why).add(1);
    }

    /// Counts a notice of an engine.
    pub fn noticed(&self, notice: &Notice) {
        self.events.of(notice.into()).add(1);
    }

    /// Counts a lock whose lease had run out and that is held again.
    pub fn regained(&self) {
        self.events.of(LockEvent::Regained).add(1);
    }

    /// Counts a kill command that is run.
    pub fn killed(&self) {
        self.kills.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the lockspaces that are started.
    pub fn lockspaces(&self, owners: Vec<Arc<Owner>>) {
        *self.lockspaces.lock() = owners;
    }

    /// Sets the time at which the first lease of the locks in use ends.
    pub fn safe_until(&self, first: Option<Instant>) {
        let first = first.map_or(u64::MAX, Instant::as_micros);
        self.safe_until.store(first, Ordering::Relaxed);
    }

    /// All counters, including those of the drives, in Prometheus' text format.
    pub fn render(&self, drives: &[DriveSample<'_>]) -> String {
        let mut text = Text::default();
        self.render_locks(&mut text);
        render_drives(&mut text, drives);
        text.finish()
    }

    fn render_locks(&self, text: &mut Text) {
        let name = "lvmlockd_idm_locks_held";
        text.metric(name, MetricKind::Gauge, "Locks that this host holds.");
        for (role, held) in self.held.named() {
            for (mode, count) in held.named() {
                text.sample(name, &[("role", role), ("mode", mode)], count.get());
            }
        }
        let name = "lvmlockd_idm_requests_total";
        text.metric(name, MetricKind::Counter, "Requests for locks, by how they ended.");
        for (asked, counts) in self.requests.named() {
            for (result, count) in counts.named() {
                text.sample(name, &[("request", asked), ("result", result)], count.get());
            }
        }
        let name = "lvmlockd_idm_locks_lost_total";
        text.metric(name, MetricKind::Counter, "Locks that were lost while they were held.");
        for (reason, count) in self.losses.named() {
            text.sample(name, &[("reason", reason)], count.get());
        }
        let name = "lvmlockd_idm_lock_events_total";
        text.metric(name, MetricKind::Counter, "What happened to locks on single drives.");
        for (event, count) in self.events.named() {
            text.sample(name, &[("event", event)], count.get());
        }
        let name = "lvmlockd_idm_kills_total";
        text.metric(name, MetricKind::Counter, "Kill commands that were run.");
        text.sample(name, &[], self.kills.load(Ordering::Relaxed));
        let name = "lvmlockd_idm_lockspaces";
        text.metric(
            name,
            MetricKind::Gauge,
            "Lockspaces that are started, the global one included.",
        );
        let lockspaces = self.lockspaces.lock().clone();
        text.sample(name, &[], lockspaces.len());
        let name = "lvmlockd_idm_lockspace_killed";
        text.metric(name, MetricKind::Gauge, "1 for a VG that has lost locks and is not dropped.");
        for owner in lockspaces {
            if let Some(vg) = &owner.kill {
                text.sample(name, &[("vg", vg)], u8::from(owner.is_killed()));
            }
        }
        let safe_until = self.safe_until.load(Ordering::Relaxed);
        if safe_until != u64::MAX {
            let name = "lvmlockd_idm_lease_left_seconds";
            text.metric(
                name,
                MetricKind::Gauge,
                "Time until the first of the locks in use may be lost.",
            );
            let left = Instant::from_micros(safe_until).since(clock::now());
            text.sample(name, &[], seconds(left.as_micros() as u64));
        }
    }
}

/// Upper bounds in us.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Counters of one drive.
#[derive(Default)]
pub struct DriveMetrics {
    commands: Each<CommandLabel, Count, 8>,
    errors: Each<CommandLabel, Each<ErrorLabel, Count, 6>, 8>,
    /// For each bound, the number of commands that took no longer than it and longer than the one
    /// before. The last has no bound.
    took: [Count; BOUNDS.len() + 1],
    /// Total time of all commands, in us.
    took_us: Count,
}

impl DriveMetrics {
    /// Whether the drive has got any command.
    fn is_used(&self) -> bool {
        self.took.iter().any(|count| count.get() > 0)
    }

    /// Counts a command that was carried out or failed.
    pub fn executed(&self, of: &DriveCommand, reply: &Reply, took: Duration) {
        let command = CommandLabel::from(of);
        self.commands.of(command).add(1);
        if let Some(error) = ErrorLabel::of(reply) {
            self.errors.of(command).of(error).add(1);
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|&bound| bound < us);
        self.took[bucket].add(1);
        self.took_us.add(us as i64);
    }
}

/// The current state of a drive.
pub struct DriveSample<'a> {
    /// Identity, the same on every host.
    pub identity: &'a str,
    /// Name in messages.
    pub name: &'a str,
    /// Whether it answered its last command.
    pub answers: bool,
    /// Number of paths to it.
    pub paths: usize,
    /// Number of commands that wait.
    pub queued: usize,
    /// Number of worker threads.
    pub workers: usize,
    /// Its counters.
    pub metrics: &'a DriveMetrics,
}

fn render_drives(text: &mut Text, drives: &[DriveSample<'_>]) {
    let name = "lvmlockd_idm_drive_info";
    text.metric(name, MetricKind::Gauge, "1 for every drive, with its name in the log.");
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
        text.metric(&name, MetricKind::Gauge, help);
        for drive in drives {
            text.sample(&name, &[("drive", drive.identity)], value(drive));
        }
    }
    // There may be many paths that lead to no drive, and no event is counted for them.
    let used = || drives.iter().filter(|drive| drive.metrics.is_used());
    let name = "lvmlockd_idm_drive_commands_total";
    text.metric(name, MetricKind::Counter, "Commands that were sent to the drive.");
    for drive in used() {
        for (command, count) in drive.metrics.commands.named() {
            if !matches!(command, "init" | "lock") {
                text.sample(name, &[("drive", drive.identity), ("command", command)], count.get());
            }
        }
    }
    let name = "lvmlockd_idm_drive_errors_total";
    text.metric(name, MetricKind::Counter, "Commands that failed on the drive or on the way.");
    for drive in drives {
        for (command, errors) in drive.metrics.errors.named() {
            for (error, count) in errors.named().filter(|(_, count)| count.get() > 0) {
                let labels = [("drive", drive.identity), ("command", command), ("error", error)];
                text.sample(name, &labels, count.get());
            }
        }
    }
    let name = "lvmlockd_idm_drive_command_seconds";
    text.metric(name, MetricKind::Histogram, "Time that the drive took for a command.");
    for drive in used() {
        let bounds = BOUNDS.iter().map(|&bound| seconds(bound)).chain(["+Inf".to_owned()]);
        let mut count = 0;
        for (bound, took) in bounds.zip(&drive.metrics.took) {
            count += took.get();
            let labels = [("drive", drive.identity), ("le", &bound)];
            text.sample(&format!("{name}_bucket"), &labels, count);
        }
        let sum = seconds(drive.metrics.took_us.get());
        text.sample(&format!("{name}_sum"), &[("drive", drive.identity)], sum);
        text.sample(&format!("{name}_count"), &[("drive", drive.identity)], count);
    }
}

#[cfg(test)]
mod tests;
