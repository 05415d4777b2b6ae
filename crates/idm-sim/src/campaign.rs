//! Many seeds on several threads.

use crate::coverage::Coverage;
use crate::plan::{Firmware, WorldKind};
use crate::schedule::Schedule;
use crate::world::{Ending, Failure, World};
use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// The seeds to run, and the way to run them.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// The number of seeds.
    pub seeds: u64,
    /// The number of threads.
    pub jobs: usize,
    /// The kind of world.
    pub kind: WorldKind,
    /// The firmware.
    pub firmware: Firmware,
    /// The number of failing seeds after which no new ones begin.
    pub most_failures: usize,
}

/// The result of a campaign.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds that ran.
    pub seeds: u64,
    /// The counts of events in them.
    pub coverage: Coverage,
    /// Failing seeds, in order.
    pub failures: Vec<(u64, Failure)>,
}

/// The number of seeds that a thread takes at a time.
const BATCH: u64 = 64;

/// Runs the campaign; `progress` receives from time to time the number of finished seeds, and the
/// failures among the last ones.
pub fn run(campaign: &Campaign, progress: impl Fn(u64, &[(u64, Failure)]) + Sync) -> Report {
    quiet_panics();
    let next = AtomicU64::new(0);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..campaign.jobs.max(1) {
            scope.spawn(|| work(campaign, &next, &report, &progress));
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failures.sort_by_key(|(seed, _)| *seed);
    report
}

fn work(
    campaign: &Campaign,
    next: &AtomicU64,
    report: &Mutex<Report>,
    progress: &(impl Fn(u64, &[(u64, Failure)]) + Sync),
) {
    let mut world = World::new();
    loop {
        let first = next.fetch_add(BATCH, Ordering::Relaxed);
        if first >= campaign.seeds {
            break;
        }
        let last = (first + BATCH).min(campaign.seeds);
        let mut failures = Vec::new();
        for seed in campaign.from + first..campaign.from + last {
            if let Err(failure) = run_seed(&mut world, seed, campaign.kind, campaign.firmware) {
                failures.push((seed, failure));
            }
        }
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.seeds += last - first;
        progress(report.seeds, &failures);
        report.failures.append(&mut failures);
        if report.failures.len() >= campaign.most_failures {
            next.store(campaign.seeds, Ordering::Relaxed);
        }
    }
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    report.coverage.merge(&world.coverage);
}

/// Runs one seed; a panic is a failure like others.
pub fn run_seed(
    world: &mut World,
    seed: u64,
    kind: WorldKind,
    firmware: Firmware,
) -> Result<Ending, Failure> {
    run_schedule(world, &Schedule::from(seed), kind, firmware)
}

/// Runs one schedule; a panic is a failure like others.
pub fn run_schedule(
    world: &mut World,
    schedule: &Schedule,
    kind: WorldKind,
    firmware: Firmware,
) -> Result<Ending, Failure> {
    QUIET.with(|quiet| quiet.set(true));
    let result = panic::catch_unwind(AssertUnwindSafe(|| world.follow(schedule, kind, firmware)));
    QUIET.with(|quiet| quiet.set(false));
    result.unwrap_or_else(|payload| {
        Err(Failure {
            invariant: "no panic",
            at: world.now(),
            detail: panic_text(payload.as_ref()),
        })
    })
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

thread_local! {
    /// Whether this thread runs a seed, whose panics are reported instead of printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.with(Cell::get) {
                before(info);
            }
        }));
    });
}
