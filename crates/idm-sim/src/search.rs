//! A search for rare interleavings, guided by the facts in its runs.
//!
//! Random seeds find bugs that need one coincidence, and hardly ever those that need four in a row.
//! For every small fact ([`Feature`]) that ever came up, a search keeps a run with that fact, and
//! its event. Most runs of a search are branches of such runs: the same up to that event, where
//! chance begins anew. Rare facts get the most branches, so a coincidence that came up once comes
//! up again until the next one happens. Some runs are always new seeds, because only these make
//! other worlds.

use crate::campaign::{quiet_panics, run_schedule};
use crate::features::{Feature, FeatureHit, FeatureHits};
use crate::plan::{Firmware, WorldKind, log_uniform};
use crate::schedule::Schedule;
use crate::world::{Failure, World};
use fastrand::Rng;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The space of a search, and its length.
#[derive(Clone, Debug)]
pub struct Search {
    /// The first seed of a world; it also decides the search.
    pub from: u64,
    /// The number of runs after which it ends.
    pub runs: u64,
    /// The time after which it ends, unless its runs end it earlier.
    pub time: Option<Duration>,
    /// The number of threads. Only with one thread does the same search give the same runs.
    pub jobs: usize,
    /// The kind of world.
    pub kind: WorldKind,
    /// The firmware.
    pub firmware: Firmware,
    /// A part of the name of the invariants whose failures count. Other failures only end their
    /// run.
    pub only: String,
    /// The number of failures after which it ends.
    pub most_failures: usize,
}

/// The result of a search, so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The number of runs.
    pub runs: u64,
    /// The number of different features that came up.
    pub features: usize,
    /// The failures that count, each with its schedule.
    pub failures: Vec<(Schedule, Failure)>,
}

/// Runs the search in worlds made by `world`; calls `progress` after every run.
pub fn search(
    search: &Search,
    world: impl Fn() -> World + Sync,
    progress: impl Fn(&Report) + Sync,
) -> Report {
    quiet_panics();
    let shared = Mutex::new(Shared { corpus: Corpus::new(search.from), report: Report::default() });
    let end = search.time.map(|time| Instant::now() + time);
    std::thread::scope(|scope| {
        for _ in 0..search.jobs.max(1) {
            scope.spawn(|| work(search, world(), end, &shared, &progress));
        }
    });
    shared.into_inner().unwrap_or_else(PoisonError::into_inner).report
}

/// The data that the threads share.
struct Shared {
    corpus: Corpus,
    report: Report,
}

fn work(
    search: &Search,
    mut world: World,
    end: Option<Instant>,
    shared: &Mutex<Shared>,
    progress: &impl Fn(&Report),
) {
    world.record_features();
    loop {
        let schedule = {
            let shared = &mut *shared.lock().unwrap_or_else(PoisonError::into_inner);
            let enough = shared.report.failures.len() >= search.most_failures;
            if enough
                || shared.report.runs >= search.runs
                || end.is_some_and(|end| Instant::now() >= end)
            {
                return;
            }
            shared.report.runs += 1;
            shared.corpus.next()
        };
        let failure = search.fails(&mut world, &schedule);
        let shared = &mut *shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.corpus.learn(&schedule, world.feature_hits());
        shared.report.features = shared.corpus.footholds.iter().map(Vec::len).sum();
        if let Some(failure) = failure {
            let found = search.shorten(&mut world, schedule, failure);
            shared.report.failures.push(found);
        }
        progress(&shared.report);
    }
}

impl Search {
    /// Runs a schedule; returns its failure, if that counts.
    fn fails(&self, world: &mut World, schedule: &Schedule) -> Option<Failure> {
        let failure = run_schedule(world, schedule, self.kind, self.firmware).err()?;
        failure.invariant.contains(&self.only).then_some(failure)
    }

    /// Removes the reseeds that a schedule does not need to fail by the same invariant.
    fn shorten(
        &self,
        world: &mut World,
        mut schedule: Schedule,
        mut failure: Failure,
    ) -> (Schedule, Failure) {
        for i in (0..schedule.reseeds().len()).rev() {
            let shorter = schedule.without(i);
            match self.fails(world, &shorter) {
                Some(other) if other.invariant == failure.invariant => {
                    (schedule, failure) = (shorter, other);
                }
                _ => (),
            }
        }
        (schedule, failure)
    }
}

/// The number of new seeds among 16 runs.
const NEW_SEEDS: u8 = 4;
/// The number of footholds of which the rarest gets the branch.
const TOURNAMENT: usize = 16;
/// The number of events after its foothold within which a branch begins.
const REACH: u64 = 64;

/// An event at which a feature comes up.
struct Foothold {
    feature: Feature,
    schedule: Arc<Schedule>,
    event: u32,
}

/// The knowledge about all runs so far.
struct Corpus {
    rng: Rng,
    next_seed: u64,
    /// The number of runs with each feature.
    hits: Vec<u32>,
    /// The footholds, by degree of danger.
    footholds: [Vec<Foothold>; FeatureHit::DANGERS],
    /// The index of each feature's foothold among those of its degree, if it came up.
    places: Vec<u32>,
}

impl Corpus {
    fn new(from: u64) -> Corpus {
        Corpus {
            rng: Rng::with_seed(from),
            next_seed: from,
            hits: vec![0; Feature::COUNT],
            footholds: core::array::from_fn(|_| Vec::new()),
            places: vec![0; Feature::COUNT],
        }
    }

    /// The next schedule to run.
    fn next(&mut self) -> Schedule {
        let new = self.rng.u8(0..16) < NEW_SEEDS;
        let Some(foothold) = self.rare().filter(|_| !new) else {
            self.next_seed += 1;
            return Schedule::from(self.next_seed - 1);
        };
        let (schedule, mut event) = (Arc::clone(&foothold.schedule), foothold.event);
        if self.rng.bool() {
            event += log_uniform(&mut self.rng, REACH) as u32;
        }
        match self.rng.u8(0..16) {
            0 if !schedule.reseeds().is_empty() => {
                schedule.without(self.rng.usize(0..schedule.reseeds().len()))
            }
            1 => self.rare().map_or_else(
                || schedule.as_ref().clone(),
                |other| schedule.splice(event, &other.schedule),
            ),
            _ => schedule.branch(event, self.rng.u32(..).into()),
        }
    }

    /// The foothold with the rarest feature, among some of one degree of danger.
    fn rare(&mut self) -> Option<&Foothold> {
        let degrees = self.footholds.iter().filter(|footholds| !footholds.is_empty()).count();
        if degrees == 0 {
            return None;
        }
        let degree = self.rng.usize(0..degrees);
        let footholds =
            self.footholds.iter().filter(|footholds| !footholds.is_empty()).nth(degree)?;
        let some = (0..TOURNAMENT).map(|_| &footholds[self.rng.usize(0..footholds.len())]);
        some.min_by_key(|foothold| self.hits[foothold.feature.number()])
    }

    /// Keeps the new features of a run. A known feature may take over this run, with a chance that
    /// is the same for each of its runs: otherwise it would stay bound to its first world.
    fn learn(&mut self, schedule: &Schedule, feature_hits: Option<&FeatureHits>) {
        let mut kept: Option<Arc<Schedule>> = None;
        for &FeatureHit { feature, danger, event } in feature_hits.map_or(&[][..], FeatureHits::all)
        {
            let hits = &mut self.hits[feature.number()];
            *hits = hits.saturating_add(1);
            if *hits > 1 && self.rng.u32(0..*hits) > 0 {
                continue;
            }
            let schedule = kept.get_or_insert_with(|| Arc::new(schedule.clone()));
            let foothold = Foothold { feature, schedule: Arc::clone(schedule), event };
            let footholds = &mut self.footholds[usize::from(danger)];
            let place = &mut self.places[feature.number()];
            if *hits == 1 {
                *place = footholds.len() as u32;
                footholds.push(foothold);
            } else if let Some(known) = footholds.get_mut(*place as usize) {
                *known = foothold;
            }
        }
    }
}
