//! The simulated world: hosts, drives, the paths between them, and the requests of callers.
//!
//! Each part of it is a module: `agenda` (coming events), `network` (commands, replies and their
//! fates), `drives`, `hosts` (engines and their reports), `lives` (hosts that stand still, die and
//! come back), `callers` and `outcomes` (lvmlockd's requests, and their results), `volumes` (their
//! drives), `faults` (those that last) and `checks`, which only read.

mod agenda;
mod callers;
mod checks;
mod drives;
mod faults;
mod feature_hits;
mod hosts;
mod lives;
mod locks;
mod network;
mod nonsense;
mod observing;
mod outcomes;
mod script;
mod slots;
mod text;
mod verdict;
mod volumes;

pub use verdict::{Ending, Failure};

use crate::coverage::{Count, Coverage};
use crate::features::FeatureHits;
use crate::ids::{DriveIx, DriveSet, HostIx, LockIx, SlotIx, Table};
use crate::observe::Recording;
use crate::plan::{Firmware, Plan, WorldKind, some_time};
use crate::scenario::Step;
use crate::schedule::{Reseed, Schedule};
use agenda::{Agenda, What};
use drives::SimDrive;
use fastrand::Rng;
use hosts::Host;
use locks::LockInfo;
use network::Network;
use slots::{Slot, Slots};
use text::{Name, say, trace};
use verdict::{Verdict, Violation};

/// A world, for one seed after another.
pub struct World {
    plan: Plan,
    rng: Rng,
    /// The number of events so far, and the reseeds of this event and later ones, the next one
    /// last.
    event: u32,
    reseeds: Vec<Reseed>,
    agenda: Agenda,
    hosts: Table<HostIx, Host>,
    slots: Slots,
    drives: Table<DriveIx, SimDrive>,
    locks: Table<LockIx, LockInfo>,
    /// The drives of the VG.
    vg: DriveSet,
    /// Drives that have left the VG for good.
    retired: DriveSet,
    network: Network,
    /// Whether callers make no more requests.
    stopped: bool,
    /// Whether two hosts wanted the same lock at once.
    contended: bool,
    ending: Option<Ending>,
    failure: Option<Failure>,
    tracing: bool,
    recording: Option<Box<Recording>>,
    /// The facts that guide a search, if there is one.
    feature_hits: Option<Box<FeatureHits>>,
    /// The steps of callers, if these are not drawn.
    script: Option<Vec<Step>>,
    #[cfg(feature = "broken-rules")]
    broken: Option<idm_engine::BrokenRule>,
    /// The counts of events in all seeds so far.
    pub coverage: Coverage,
}

impl World {
    /// A world for the first seed.
    pub fn new() -> World {
        World {
            plan: Plan::draw(&mut Rng::with_seed(0), WorldKind::Budget, Firmware::Any),
            rng: Rng::with_seed(0),
            event: 0,
            reseeds: Vec::new(),
            agenda: Agenda::default(),
            hosts: Table::new(),
            slots: Slots::default(),
            drives: Table::new(),
            locks: Table::new(),
            vg: DriveSet::EMPTY,
            retired: DriveSet::EMPTY,
            network: Network::new(),
            stopped: false,
            contended: false,
            ending: None,
            failure: None,
            tracing: false,
            recording: None,
            feature_hits: None,
            script: None,
            #[cfg(feature = "broken-rules")]
            broken: None,
            coverage: Coverage::default(),
        }
    }

    /// The simulation's time, in us.
    pub fn now(&self) -> u64 {
        self.agenda.now()
    }

    /// Lets all engines break a rule from now on.
    #[cfg(feature = "broken-rules")]
    pub fn break_rule(&mut self, rule: Option<idm_engine::BrokenRule>) {
        self.broken = rule;
    }

    /// Prints events from now on.
    pub fn trace(&mut self, on: bool) {
        self.tracing = on;
    }

    /// Runs one seed to its end.
    pub fn run(
        &mut self,
        seed: u64,
        kind: WorldKind,
        firmware: Firmware,
    ) -> Result<Ending, Failure> {
        self.follow(&Schedule::from(seed), kind, firmware)
    }

    /// Runs a schedule to its end.
    pub fn follow(
        &mut self,
        schedule: &Schedule,
        kind: WorldKind,
        firmware: Firmware,
    ) -> Result<Ending, Failure> {
        self.begin(schedule, kind, firmware);
        self.go_on()
    }

    /// Continues to the end.
    fn go_on(&mut self) -> Result<Ending, Failure> {
        self.observe_beginning();
        while self.failure.is_none() && self.ending.is_none() {
            let Some(what) = self.next_event() else {
                break;
            };
            self.step(what);
        }
        if self.contended {
            self.coverage.add(Count::Contended);
        }
        self.observe_end();
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.ending.take().unwrap_or(Ending::Finished)),
        }
    }

    /// The next event, after a reseed if one is due.
    fn next_event(&mut self) -> Option<What> {
        let what = self.agenda.next()?;
        self.event += 1;
        if let Some(&Reseed { event, seed }) = self.reseeds.last() {
            if event == self.event {
                trace!(self, "event {event}: chance begins anew with {seed}");
                self.rng = Rng::with_seed(seed);
                self.reseeds.pop();
            }
        }
        Some(what)
    }

    fn begin(&mut self, schedule: &Schedule, kind: WorldKind, firmware: Firmware) {
        let seed = schedule.seed();
        self.rng = Rng::with_seed(seed);
        self.reseeds.clear();
        self.reseeds.extend(schedule.reseeds().iter().rev());
        self.script = None;
        self.plan = Plan::draw(&mut self.rng, kind, firmware);
        self.coverage.add(Count::Seeds);
        if self.plan.lists_differ {
            self.coverage.add(Count::ListsDiffer);
        }
        self.furnish();
        if self.tracing {
            self.trace_plan(seed);
        }
        for s in self.slots.ids() {
            let at = some_time(&mut self.rng, self.plan.pause);
            self.call_caller(s, at);
        }
        self.push_episodes();
        if kind == WorldKind::Beyond {
            self.plan_beyond();
        }
        self.push(self.plan.stop_at, What::Stop);
    }

    fn push_episodes(&mut self) {
        for i in 0..self.plan.episodes.len() {
            let episode = self.plan.episodes[i];
            self.push(episode.from, What::Begin(i as u8));
            self.push(episode.to, What::End(i as u8));
        }
    }

    /// Creates the plan's content in the world.
    fn furnish(&mut self) {
        self.event = 0;
        if let Some(feature_hits) = &mut self.feature_hits {
            feature_hits.clear();
        }
        self.agenda.clear();
        self.network.clear();
        self.stopped = false;
        self.contended = false;
        self.ending = None;
        self.failure = None;
        self.drives = self.plan.drives.iter().map(|(_, plan)| SimDrive::new(plan)).collect();
        self.locks = self.plan.locks.iter().map(|(l, plan)| LockInfo::new(l, plan)).collect();
        let plan = &self.plan;
        let host = |(h, &clock)| Host::new(h, clock, plan.lists[h]);
        self.hosts = plan.host_clocks.iter().map(host).collect();
        self.vg = plan.all_drives();
        self.retired = DriveSet::EMPTY;
        self.slots.clear(self.locks.len());
        for h in self.hosts.ids() {
            for l in self.locks.ids() {
                let side = self.new_side(h, l);
                self.slots.push(Slot::new(side));
            }
        }
    }

    fn trace_plan(&self, seed: u64) {
        let p = &self.plan;
        say!(
            "seed {seed}: {:?}, {} hosts ({} of the older stack), {} drives",
            p.kind,
            self.hosts.len(),
            p.old_hosts,
            self.drives.len()
        );
        say!(
            "  lease {:?} renew {:?} patience {:?} linger {:?}, transport gives up after {:.3} s",
            p.timing.lease,
            p.timing.renew,
            p.timing.patience,
            p.timing.linger,
            p.timeout as f64 / 1e6
        );
        for (l, lock) in p.locks.iter() {
            let kind = if lock.keeps_value { "VG lock" } else { "LV lock" };
            say!("  lock {l:?}: {kind} on {}", lock.layout);
        }
        if p.lists_differ {
            for h in self.hosts.ids() {
                say!("  host {h:?} knows {}", p.lists[h]);
            }
        }
        for (d, drive) in p.drives.iter() {
            say!("  {d}: {:?}", drive.profile);
        }
        say!("  {:?}", p.chances);
        for e in &p.episodes {
            say!("  {:.6} - {:.6} s {:?}", e.from as f64 / 1e6, e.to as f64 / 1e6, e.what);
        }
        say!(
            "  calm at {:.3} s, settled at {:.3} s, stop at {:.3} s",
            p.calm_at as f64 / 1e6,
            p.settled_at as f64 / 1e6,
            p.stop_at as f64 / 1e6
        );
    }

    fn step(&mut self, what: What) {
        match what {
            What::Timer(s) => self.timer(s),
            What::Exec(f, reply_after) => self.execute(f, reply_after),
            What::Reply(f) => self.reply(f),
            What::Caller(s, stamp) => self.caller(s, stamp),
            What::Overdue(s, stamp) => self.overdue(s, stamp),
            What::Probe(s) => self.probe(s),
            What::Notice(s, tenure) => self.look_back(s, tenure),
            What::Move(l, s, set) => self.commit_move(l, s, set),
            What::Pull(drives) => self.pull(drives),
            What::Noted(s, life, set) => self.noted(s, life, set),
            What::Begin(e) => self.change_fault(e, true),
            What::End(e) => self.change_fault(e, false),
            What::Thaw(h) => self.thaw(h),
            What::Return(h, renamed) => self.come_back(h, renamed),
            What::Script(i) => self.follow_script(i),
            What::Stop => self.stop(),
            What::Idle => self.ask_alone(),
            What::Finish => self.ending = Some(Ending::Finished),
        }
    }

    fn push(&mut self, time: u64, what: What) {
        self.agenda.push(time, what);
    }

    /// Ends the seed with a violation, if its kind of world promises the invariant at all.
    fn fail(&mut self, violation: Violation) {
        let Violation { invariant, detail } = violation;
        if self.plan.kind == WorldKind::Nonsense
            && !matches!(invariant, "command storm" | "request answered" | "release completes")
        {
            return;
        }
        if self.failure.is_none() {
            let failure = Failure { invariant, at: self.now(), detail };
            trace!(self, "VIOLATION {failure}");
            self.failure = Some(failure);
        }
    }

    /// Ends the seed unless a checker is content. Returns whether it is.
    fn require(&mut self, verdict: Verdict) -> bool {
        let content = verdict.is_ok();
        if let Err(violation) = verdict {
            self.fail(violation);
        }
        content
    }

    fn calm(&self) -> bool {
        self.now() >= self.plan.calm_at
    }

    fn settled(&self) -> bool {
        self.now() >= self.plan.settled_at
    }

    fn believes(&self, s: SlotIx) -> bool {
        self.slots[s].believes(self.now())
    }

    fn name(&self, s: SlotIx) -> Name {
        Name { host: self.slots.host(s), lock: self.slots.lock(s) }
    }
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

#[cfg(test)]
mod tests {
    use super::World;
    use crate::plan::{Firmware, WorldKind};
    use crate::schedule::Schedule;

    /// The events of a run, with their moments.
    fn course(schedule: &Schedule) -> Vec<String> {
        let mut world = World::new();
        world.begin(schedule, WorldKind::Budget, Firmware::Any);
        let mut course = Vec::new();
        while world.failure.is_none() && world.ending.is_none() {
            let Some(what) = world.next_event() else { break };
            course.push(format!("{} {what:?}", world.now()));
            world.step(what);
        }
        course
    }

    #[test]
    fn a_run_is_the_same_up_to_a_reseed() {
        for seed in 0..20 {
            let whole = course(&Schedule::from(seed));
            let event = whole.len() / 2;
            let schedule = Schedule::from(seed).branch(event as u32, 4711);
            let branch = course(&schedule);
            assert_eq!(whole[..event], branch[..event], "{schedule}");
            assert_ne!(whole, branch, "{schedule}");
            assert_eq!(branch, course(&schedule), "{schedule}");
        }
    }

    #[test]
    fn what_a_search_notes_changes_nothing() {
        let (mut plain, mut noting) = (World::new(), World::new());
        noting.record_features();
        for seed in 0..50 {
            let runs = [&mut plain, &mut noting].map(|world| {
                let ending = world.run(seed, WorldKind::Budget, Firmware::Any);
                (ending, world.event)
            });
            assert_eq!(runs[0], runs[1], "seed {seed}");
            assert!(
                noting.feature_hits().is_some_and(|feature_hits| !feature_hits.all().is_empty())
            );
        }
    }
}
