//! The simulated world: an event queue, hosts, paths and drives.

use crate::clock::Clock;
use crate::coverage::{Count, Coverage};
use crate::old_stack::{OldEvent, OldLock};
use crate::plan::{Firmware, Kind, MAX_DRIVES, MAX_HOSTS, Plan, Trouble, log_uniform, some_time};
use core::cmp::{Ordering, Reverse};
use core::fmt;
use fastrand::Rng;
use idm_emulator::{Drive, DriveTime};
use idm_engine::{
    DriveRef, Event, Fingerprint, Instant, Lock, LockConfig, Loss, Member, Notice, Outcome,
    Refusal, Request, Token, ValueRead,
};
use idm_protocol::{
    Class, DriveCommand, HostId, Limit, Mode, MutexOp, Record, Reply, ResourceId, State, Status,
    Value, ValueUpdate,
};
use std::collections::BinaryHeap;
use std::io::Write;

/// Reports a violation; the detail is formatted before the world is borrowed.
macro_rules! fail {
    ($world:expr, $invariant:expr, $detail:expr $(,)?) => {{
        let detail = $detail.to_string();
        $world.fail($invariant, detail);
    }};
}

/// Prints a line of a trace; whoever reads it may stop reading.
macro_rules! say {
    ($($arg:tt)*) => {{
        let _ = writeln!(std::io::stdout().lock(), $($arg)*);
    }};
}

macro_rules! trace {
    ($world:expr, $($arg:tt)*) => {
        if $world.tracing {
            say!("{:>12.6}  {}", $world.now as f64 / 1e6, format_args!($($arg)*));
        }
    };
}

mod checks;
mod faults;
mod network;
mod text;

use text::{Brief, CommandText, Name, ReplyText};

const NEVER: u64 = u64::MAX;

/// More commands than any seed needs; beyond it somebody sends without end.
const STORM: u64 = 200_000;

/// How a seed ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All invariants held to the end.
    Finished,
    /// Two hosts held the lock because of faults beyond the budget; the seed ends there.
    Waived,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub invariant: &'static str,
    /// When, in us of the simulation's time.
    pub at: u64,
    /// Who, and how.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.6} s: {}", self.invariant, self.at as f64 / 1e6, self.detail)
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A lock's deadline.
    Timer(u16),
    /// A command reaches its drive; its reply comes back so much later, or not from this.
    Exec(u32, Option<u32>),
    /// A reply reaches its host.
    Reply(u32),
    /// A caller does something. The stamp tells whether it still wants to.
    Caller(u16, u32),
    /// A request must have been answered by now.
    Overdue(u16, u32),
    /// A belief is about to end: does it still stand on votes?
    Probe(u16),
    /// After a loss beyond the budget: does the host know by now?
    Notice(u16, u32),
    /// An LV's layout is about to change.
    Move(u8, u16, u16),
    Begin(u8),
    End(u8),
    Thaw(u8),
    Return(u8, bool),
    Stop,
    Idle,
    Finish,
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    time: u64,
    seq: u32,
    what: What,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Queued) -> Ordering {
        (self.time, self.seq).cmp(&(other.time, other.seq))
    }
}

/// The part of a record's metadata that says which drives are counted: the fingerprint.
type SetMark = [u8; 16];

fn set_mark(record: &Record) -> SetMark {
    let mut mark = [0; 16];
    mark.copy_from_slice(&record.metadata[8..24]);
    mark
}

#[derive(Clone, Copy, Debug)]
enum Ticket {
    Engine(Token),
    Old,
}

/// A command on its way.
#[derive(Debug)]
struct Flight {
    slot: u16,
    drive: u8,
    life: u32,
    generation: u32,
    ticket: Ticket,
    command: DriveCommand,
    reply: Option<Reply>,
    sent: u64,
    timeout_at: u64,
    executed: u64,
    /// Queue entries that name it.
    pending: u8,
    answered: bool,
    /// What its reply will be is decided, whatever the drive does.
    told: bool,
    /// A frozen host has not yet handed it on.
    hold_back: bool,
    /// Reported as uncertain before it was executed.
    ghost: bool,
    /// Other hosts that were seen to hold the lock in a conflicting mode, and those of them whose
    /// record tells of another set of drives.
    seen: u8,
    foreign: u8,
    /// Its reply is not what the drive did.
    nonsense: bool,
}

/// The lock of one host: by the real engine, or by the older stack.
#[derive(Debug)]
enum Side {
    Engine(Lock),
    Old(OldLock),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Holds nothing; will ask for it at the next call.
    Idle,
    /// Waits for the end of an acquire.
    Acquiring,
    /// Waits for the end of an adoption, which is tried so many times more.
    Adopting(u8),
    /// Holds it, and will do something at the next call.
    Holding,
    /// Waits for the end of a convert to a mode; it may carry a value.
    Converting(Mode, Option<Value>),
    /// Has lost it and must give it back at the next call.
    Dropping,
    /// Asks for nothing any more.
    Finished,
}

/// One host's side of one lock, and what the world knows of it.
#[derive(Debug)]
struct Slot {
    side: Side,
    caller: Caller,
    stamp: u32,
    /// Counts engines made for this slot; replies to an earlier one are not delivered.
    life: u32,
    timer_at: u64,
    probing: bool,
    /// The engine's mode, and until when (in the simulation's time) it believes in it.
    mode: Option<Mode>,
    until: u64,
    /// The mode asked for, or held.
    target: Mode,
    /// Drives that vote, and drives to be read, as bits.
    members: u16,
    witnesses: u16,
    started: u64,
    /// The value that an acquire must not fall behind.
    floor: u64,
    /// Drives whose vote was lost in a reset, where the host cannot know it yet; and when.
    lost: u16,
    lost_at: [u64; MAX_DRIVES],
    /// Of the present request: hosts whose conflicting record was read; by drive, hosts that a
    /// conflict came from, until the drive says something else; drives that answered.
    knows: u8,
    conflicts: [u8; MAX_DRIVES],
    met: u16,
    /// Commands of the present request, by drive.
    sent: [u16; MAX_DRIVES],
    splits: u16,
    /// The set of drives that this host writes into its records.
    set_mark: SetMark,
    /// Since when it is known that a host with other drives holds the lock too.
    foreign_since: Option<u64>,
    lapsed: bool,
    /// Counts grants.
    tenure: u32,
    /// Drives whose table, when it was last read, showed nobody alive in the way.
    cleared: u16,
    /// Another host was granted the lock in a conflicting mode while this one still has a mode, or
    /// has left one to be adopted.
    usurped: Option<Mode>,
    /// The mode in which an earlier life of this host held the lock when it died, and whether it
    /// was about to change it.
    orphan: Option<(Mode, bool)>,
    /// The drives that had the orphan's record when its host died. A late command of the earlier
    /// life may have left one on others since.
    left_on: u16,
    /// A late command of an earlier life has got a drive after another host was granted the lock.
    strayed: bool,
    /// Changes what the lock protects and means to publish that.
    dirty: bool,
    /// Had nothing to do when the request began.
    fresh: bool,
    /// Refused by live holders in a healthy world, so the command count is checked.
    count_checked: bool,
    lone: bool,
}

#[derive(Debug)]
struct Host {
    clock: Clock,
    id: HostId,
    lives: u8,
    alive: bool,
    frozen_until: u64,
    /// It dies when a drive next gives it what it asks for, and comes back then.
    doomed_until: Option<u64>,
    deferred: Vec<u32>,
    /// Counts deaths. Commands of an earlier life end some time after it.
    generation: u32,
    died_at: u64,
    /// What the host has noted of until when its commands may undo what a drive has, and what it
    /// found noted when it came back, on its clock.
    undone_until: Instant,
    earlier_until: Instant,
}

#[derive(Debug)]
struct SimDrive {
    drive: Drive,
    clock: Clock,
    gone: u8,
    dead: u8,
    slow: u8,
    busy: u8,
    reset_at: u64,
    strangers: Vec<(HostId, ResourceId)>,
}

/// What the world knows of one lock.
#[derive(Debug)]
struct LockInfo {
    resource: ResourceId,
    keeps_value: bool,
    /// Where the LV lies at present, as bits.
    layout: u16,
    /// The last value that was handed out.
    issued: u64,
    /// The last value whose publication is complete, and the value from which on reads are right
    /// after a holder died in the middle of a change.
    published: u64,
    poison: u64,
    publisher: u8,
    /// Two hosts held it, excused, or the older stack broke it: its value proves nothing any more.
    muddled: bool,
    refusals: u32,
    /// When a host last did anything with it, besides keeping it and being refused.
    touched_at: u64,
}

/// A world, to be used for one seed after another.
pub struct World {
    plan: Plan,
    rng: Rng,
    now: u64,
    seq: u32,
    queue: BinaryHeap<Reverse<Queued>>,
    hosts: Vec<Host>,
    slots: Vec<Slot>,
    drives: Vec<SimDrive>,
    locks: Vec<LockInfo>,
    flaps: [u16; MAX_HOSTS],
    cut: [u8; MAX_HOSTS],
    flights: Vec<Flight>,
    free: Vec<u32>,
    commands: u64,
    healthy: bool,
    stopped: bool,
    ending: Option<Ending>,
    failure: Option<Failure>,
    tracing: bool,
    contended: bool,
    #[cfg(feature = "broken-rules")]
    broken: Option<idm_engine::BrokenRule>,
    /// What happened in all seeds so far.
    pub coverage: Coverage,
}

fn majority(n: usize) -> usize {
    n / 2 + 1
}

fn keep_quorum(n: usize) -> usize {
    n - n / 2
}

fn count(bits: u16) -> usize {
    bits.count_ones() as usize
}

fn bits(set: u16) -> impl Iterator<Item = usize> {
    (0..16).filter(move |d| set & (1 << d) != 0)
}

struct Set(u16);

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, d) in bits(self.0).enumerate() {
            write!(f, "{}d{d}", if i == 0 { "" } else { " " })?;
        }
        f.write_str("}")
    }
}

fn members_of(set: u16) -> Vec<Member> {
    bits(set).map(|d| Member { drive: DriveRef(d as u32), identity: vec![b'd', d as u8] }).collect()
}

impl World {
    /// A world for the first seed.
    pub fn new() -> World {
        World {
            plan: Plan::draw(&mut Rng::with_seed(0), Kind::Budget, Firmware::Any),
            rng: Rng::with_seed(0),
            now: 0,
            seq: 0,
            queue: BinaryHeap::new(),
            hosts: Vec::new(),
            slots: Vec::new(),
            drives: Vec::new(),
            locks: Vec::new(),
            flaps: [0; MAX_HOSTS],
            cut: [0; MAX_HOSTS],
            flights: Vec::new(),
            free: Vec::new(),
            commands: 0,
            healthy: false,
            stopped: false,
            ending: None,
            failure: None,
            tracing: false,
            contended: false,
            #[cfg(feature = "broken-rules")]
            broken: None,
            coverage: Coverage::default(),
        }
    }

    /// The simulation's time, in us.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lets all engines break a rule from now on.
    #[cfg(feature = "broken-rules")]
    pub fn break_rule(&mut self, rule: Option<idm_engine::BrokenRule>) {
        self.broken = rule;
    }

    /// Prints what happens from now on.
    pub fn trace(&mut self, on: bool) {
        self.tracing = on;
    }

    /// Runs one seed to its end.
    pub fn run(&mut self, seed: u64, kind: Kind, firmware: Firmware) -> Result<Ending, Failure> {
        self.begin(seed, kind, firmware);
        while self.failure.is_none() && self.ending.is_none() {
            let Some(Reverse(next)) = self.queue.pop() else {
                break;
            };
            self.now = next.time;
            self.step(next.what);
        }
        if self.contended {
            self.coverage.add(Count::Contended);
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(self.ending.take().unwrap_or(Ending::Finished)),
        }
    }

    fn begin(&mut self, seed: u64, kind: Kind, firmware: Firmware) {
        self.rng = Rng::with_seed(seed);
        self.plan = Plan::draw(&mut self.rng, kind, firmware);
        self.now = 0;
        self.seq = 0;
        self.commands = 0;
        self.queue.clear();
        self.flights.clear();
        self.free.clear();
        self.flaps = [0; MAX_HOSTS];
        self.cut = [0; MAX_HOSTS];
        self.healthy = self.plan.calm_at == 0;
        self.stopped = false;
        self.contended = false;
        self.ending = None;
        self.failure = None;
        self.coverage.add(Count::Seeds);
        if self.plan.lists_differ {
            self.coverage.add(Count::ListsDiffer);
        }

        self.drives.clear();
        for (clock, profile) in &self.plan.drives {
            self.drives.push(SimDrive {
                drive: Drive::new(*profile),
                clock: *clock,
                gone: 0,
                dead: 0,
                slow: 0,
                busy: 0,
                reset_at: 0,
                strangers: Vec::new(),
            });
        }
        self.locks.clear();
        for (i, &(keeps_value, layout)) in self.plan.locks.iter().enumerate() {
            let mut id = [b'v'; 64];
            id[0] = b'0' + i as u8;
            if keeps_value {
                id[32..].fill(0);
            }
            self.locks.push(LockInfo {
                resource: ResourceId::from_bytes(id),
                keeps_value,
                layout,
                issued: 0,
                published: 0,
                poison: 0,
                publisher: 0,
                muddled: false,
                refusals: 0,
                touched_at: 0,
            });
        }
        self.hosts.clear();
        self.slots.clear();
        for (h, clock) in self.plan.host_clocks.iter().enumerate() {
            self.hosts.push(Host {
                clock: *clock,
                id: host_id(h, 0),
                lives: 0,
                alive: true,
                frozen_until: 0,
                doomed_until: None,
                deferred: Vec::new(),
                generation: 0,
                died_at: 0,
                undone_until: Instant::default(),
                earlier_until: Instant::default(),
            });
        }
        for h in 0..self.hosts.len() {
            for l in 0..self.locks.len() {
                let side = self.new_side(h, l);
                self.slots.push(Slot::new(side));
            }
        }
        if self.tracing {
            self.trace_plan(seed);
        }
        for s in 0..self.slots.len() {
            let at = some_time(&mut self.rng, self.plan.pause);
            self.call_caller(s, at);
        }
        for i in 0..self.plan.episodes.len() {
            let episode = self.plan.episodes[i];
            self.push(episode.from, What::Begin(i as u8));
            self.push(episode.to, What::End(i as u8));
        }
        if kind == Kind::Beyond {
            self.plan_beyond();
        }
        self.push(self.plan.stop_at, What::Stop);
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
        for (i, l) in self.locks.iter().enumerate() {
            let kind = if l.keeps_value { "VG lock" } else { "LV lock" };
            say!("  lock {i}: {kind} on {}", Set(l.layout));
        }
        if p.lists_differ {
            for h in 0..self.hosts.len() {
                say!("  host {h} knows {}", Set(p.lists[h]));
            }
        }
        for (i, d) in self.drives.iter().enumerate() {
            say!("  d{i}: {:?}", d.drive.profile());
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

    // Small helpers.

    fn push(&mut self, time: u64, what: What) {
        self.seq += 1;
        self.queue.push(Reverse(Queued { time: time.max(self.now), seq: self.seq, what }));
    }

    fn fail(&mut self, invariant: &'static str, detail: String) {
        if self.plan.kind == Kind::Nonsense
            && !matches!(invariant, "command storm" | "request answered" | "release completes")
        {
            return;
        }
        if self.failure.is_none() {
            let failure = Failure { invariant, at: self.now, detail };
            trace!(self, "VIOLATION {failure}");
            self.failure = Some(failure);
        }
    }

    fn host_of(&self, s: usize) -> usize {
        s / self.locks.len()
    }

    fn lock_of(&self, s: usize) -> usize {
        s % self.locks.len()
    }

    fn slots_of_lock(&self, l: usize) -> impl Iterator<Item = usize> + use<> {
        (l..self.slots.len()).step_by(self.locks.len())
    }

    fn local(&self, h: usize) -> Instant {
        Instant::from_micros(self.hosts[h].clock.at(self.now))
    }

    fn is_old(&self, h: usize) -> bool {
        h >= self.hosts.len() - self.plan.old_hosts
    }

    fn calm(&self) -> bool {
        self.now >= self.plan.calm_at
    }

    fn settled(&self) -> bool {
        self.now >= self.plan.settled_at
    }

    fn believes(&self, s: usize) -> bool {
        self.slots[s].mode.is_some() && self.now < self.slots[s].until
    }

    fn lease(&self) -> u64 {
        self.plan.timing.lease.as_micros() as u64
    }

    fn new_side(&mut self, h: usize, l: usize) -> Side {
        let (resource, keeps_value) = (self.locks[l].resource, self.locks[l].keeps_value);
        let host = self.hosts[h].id;
        if self.is_old(h) {
            let drives = bits(self.locks[l].layout).map(|d| DriveRef(d as u32));
            return Side::Old(OldLock::new(resource, host, self.plan.timing, drives));
        }
        let seed = self.rng.u64(..);
        let mut config = LockConfig::new(resource, host, keeps_value, self.plan.timing, seed);
        config.earlier_until = self.hosts[h].earlier_until;
        #[cfg(feature = "broken-rules")]
        {
            config.broken = self.broken;
        }
        Side::Engine(Lock::new(config))
    }

    fn call_caller(&mut self, s: usize, after: u64) {
        self.slots[s].stamp += 1;
        let stamp = self.slots[s].stamp;
        self.push(self.now + after, What::Caller(s as u16, stamp));
    }

    fn step(&mut self, what: What) {
        match what {
            What::Timer(s) => self.timer(usize::from(s)),
            What::Exec(f, reply_after) => self.execute(f as usize, reply_after),
            What::Reply(f) => self.reply(f as usize),
            What::Caller(s, stamp) => self.caller(usize::from(s), stamp),
            What::Overdue(s, stamp) => self.overdue(usize::from(s), stamp),
            What::Probe(s) => self.probe(usize::from(s)),
            What::Notice(s, stamp) => self.check_noticed(usize::from(s), stamp),
            What::Move(l, s, set) => self.commit_move(usize::from(l), usize::from(s), set),
            What::Begin(e) => self.trouble(usize::from(e), true),
            What::End(e) => self.trouble(usize::from(e), false),
            What::Thaw(h) => self.thaw(usize::from(h)),
            What::Return(h, renamed) => self.come_back(usize::from(h), renamed),
            What::Stop => self.stop(),
            What::Idle => self.check_idle(),
            What::Finish => self.ending = Some(Ending::Finished),
        }
    }

    // Hosts: engine calls.

    fn timer(&mut self, s: usize) {
        if self.slots[s].timer_at != self.now {
            return;
        }
        self.slots[s].timer_at = NEVER;
        let h = self.host_of(s);
        if !self.hosts[h].alive || self.now < self.hosts[h].frozen_until {
            return;
        }
        self.run_timer(s);
    }

    fn run_timer(&mut self, s: usize) {
        let now = self.local(self.host_of(s));
        match &mut self.slots[s].side {
            Side::Engine(lock) => lock.on_timer(now),
            Side::Old(lock) => lock.on_timer(now),
        }
        self.settle(s);
        let slot = &self.slots[s];
        if let Side::Engine(lock) = &slot.side {
            if lock.mode().is_some()
                && !slot.lapsed
                && lock.safe_until().is_none_or(|end| now >= end)
            {
                fail!(
                    self,
                    "a lapse is told at once",
                    format_args!("{} has passed safe_until without a word", self.name(s)),
                );
            }
        }
    }

    /// After an engine was called: sends what it wants to send, hears what it has to say, and
    /// looks at what it believes.
    fn settle(&mut self, s: usize) {
        let h = self.host_of(s);
        let now = self.local(h);
        loop {
            match &mut self.slots[s].side {
                Side::Engine(lock) => match lock.next_event() {
                    Some(event) => self.engine_event(s, event),
                    None => break,
                },
                Side::Old(lock) => match lock.next_event() {
                    Some(event) => self.old_event(s, event),
                    None => break,
                },
            }
        }
        loop {
            let next = match &mut self.slots[s].side {
                Side::Engine(lock) => {
                    lock.next_command(now).map(|c| (Ticket::Engine(c.token), c.drive, c.command))
                }
                Side::Old(lock) => {
                    lock.next_command(now).map(|(drive, command)| (Ticket::Old, drive, command))
                }
            };
            let Some((ticket, drive, command)) = next else {
                break;
            };
            self.send(s, ticket, drive.0 as usize, command);
            if self.failure.is_some() {
                return;
            }
        }
        self.schedule_timer(s);
        self.update_belief(s);
    }

    fn schedule_timer(&mut self, s: usize) {
        let deadline = match &self.slots[s].side {
            Side::Engine(lock) => {
                let deadline = lock.next_deadline();
                if let (Some(_), Some(end), false) =
                    (lock.mode(), lock.safe_until(), self.slots[s].lapsed)
                {
                    if deadline.is_none_or(|d| d > end) {
                        fail!(
                            self,
                            "a lapse has a deadline",
                            format_args!("{}: {deadline:?} is later than {end:?}", self.name(s)),
                        );
                    }
                }
                deadline
            }
            Side::Old(lock) => lock.next_deadline(),
        };
        let Some(deadline) = deadline else { return };
        let h = self.host_of(s);
        let at = self.hosts[h].clock.when(deadline.as_micros()).max(self.now);
        if at < self.slots[s].timer_at {
            let at = at + self.rng.u64(0..self.plan.lateness.max(1));
            // Never twice at the same moment, or two entries would pass for one.
            let at = if at == self.now { at + 1 } else { at };
            if at < self.slots[s].timer_at {
                self.slots[s].timer_at = at;
                self.push(at, What::Timer(s as u16));
            }
        }
    }

    fn update_belief(&mut self, s: usize) {
        let (mode, end) = match &self.slots[s].side {
            Side::Engine(lock) => (lock.mode(), lock.safe_until()),
            Side::Old(lock) => (lock.mode(), lock.safe_until()),
        };
        let h = self.host_of(s);
        let until = match (mode, end) {
            (Some(_), Some(end)) => self.hosts[h].clock.when(end.as_micros()),
            _ => 0,
        };
        let slot = &mut self.slots[s];
        if slot.mode.is_some() && mode.is_none() {
            slot.foreign_since = None;
            self.tenure_ends(s);
        }
        let slot = &mut self.slots[s];
        slot.mode = mode;
        slot.until = until;
        if !self.believes(s) {
            return;
        }
        let usurper = self.slots[s].usurped;
        let usurped = usurper.is_some_and(|u| mode.is_some_and(|m| !m.compatible(u)));
        if usurped && !self.is_hollow_by_reset(s) {
            fail!(
                self,
                "never silently regained",
                format_args!(
                    "{} believes again, but another host was granted the lock in between",
                    self.name(s)
                ),
            );
        }
        if !self.slots[s].probing {
            self.slots[s].probing = true;
            self.push(until - 1, What::Probe(s as u16));
        }
        self.check_pairs(s);
        self.check_votes(s);
    }

    fn touch(&mut self, s: usize) {
        let l = self.lock_of(s);
        self.locks[l].touched_at = self.now;
    }

    fn tenure_ends(&mut self, s: usize) {
        self.touch(s);
        let mask = !(1 << self.host_of(s));
        for other in self.slots_of_lock(self.lock_of(s)) {
            self.slots[other].knows &= mask;
            self.slots[other].foreign_since = None;
            for conflict in &mut self.slots[other].conflicts {
                *conflict &= mask;
            }
        }
    }

    fn name(&self, s: usize) -> Name {
        Name { host: self.host_of(s), lock: self.lock_of(s) }
    }

    // Hosts: events of an engine.

    fn engine_event(&mut self, s: usize, event: Event) {
        trace!(self, "{} event {:?}", self.name(s), Brief(&event));
        match event {
            Event::Done(outcome) => self.done(s, outcome),
            Event::Lapsed => {
                self.coverage.add(Count::Lapsed);
                self.slots[s].lapsed = true;
                if self.slots[s].caller == Caller::Holding && self.rng.bool() {
                    // The kill path: what used the lock is stopped, then the lock dropped.
                    self.slots[s].caller = Caller::Dropping;
                    let after = {
                        let lease = self.lease();
                        log_uniform(&mut self.rng, lease)
                    };
                    self.call_caller(s, after);
                }
            }
            Event::Regained => {
                self.coverage.add(Count::Regained);
                self.slots[s].lapsed = false;
            }
            Event::Lost(loss) => {
                self.coverage.add(match loss {
                    Loss::Taken => Count::LostTaken,
                    Loss::OtherSet(_) => Count::LostOtherSet,
                });
                self.poison(s);
                if let Side::Engine(lock) = &self.slots[s].side {
                    if lock.mode().is_some() {
                        fail!(
                            self,
                            "lost means not held",
                            format_args!("{} has a mode after Lost", self.name(s)),
                        );
                    }
                }
                // Where a request is under way its end decides.
                if matches!(self.slots[s].caller, Caller::Holding | Caller::Dropping) {
                    self.slots[s].caller = Caller::Dropping;
                    let after = log_uniform(&mut self.rng, 1_000_000);
                    self.call_caller(s, after);
                }
            }
            Event::VotesReady { members } => self.move_votes(s, &members),
            Event::Notice(notice) => self.notice(s, &notice),
        }
    }

    /// The host notes which drives are to vote, and lets them.
    fn move_votes(&mut self, s: usize, members: &[DriveRef]) {
        let set = members.iter().fold(0, |set, drive| set | 1 << drive.0);
        let now = self.local(self.host_of(s));
        let Side::Engine(lock) = &mut self.slots[s].side else { return };
        if lock.move_votes(now) {
            self.touch(s);
            self.coverage.add(Count::VotesMoved);
            self.slots[s].members = set;
            self.slots[s].witnesses = 0;
            self.slots[s].set_mark = Fingerprint::of(&members_of(set)).0;
        }
    }

    fn notice(&mut self, s: usize, notice: &Notice) {
        self.coverage.add(match notice {
            Notice::Broke { .. } => Count::Broke,
            Notice::TookOverOwn { .. } => Count::TookOverOwn,
            Notice::DriveLost { .. } => Count::DriveLost,
            Notice::DriveGained { .. } => Count::DriveGained,
            Notice::SplitVote => {
                self.slots[s].splits += 1;
                Count::SplitVote
            }
            Notice::Collected { .. } => Count::Collected,
            Notice::NotIdm { .. } => Count::NotIdm,
        });
    }

    fn old_event(&mut self, s: usize, event: OldEvent) {
        trace!(self, "{} event {event:?}", self.name(s));
        match event {
            OldEvent::Granted => {
                self.coverage.add(Count::OldGranted);
                self.granted(s, None);
            }
            OldEvent::Refused => {
                self.coverage.add(Count::OldRefused);
                self.refused(s);
            }
            OldEvent::Lost => {
                self.coverage.add(Count::OldLost);
                self.poison(s);
                self.slots[s].caller = Caller::Idle;
                let after = some_time(&mut self.rng, self.plan.pause);
                self.call_caller(s, after);
            }
        }
    }

    fn done(&mut self, s: usize, outcome: Outcome) {
        match (self.slots[s].caller, outcome) {
            (Caller::Acquiring, Outcome::Granted(value)) => {
                self.granted(s, Some(value));
            }
            (Caller::Adopting(_), Outcome::Adopted(mode)) => self.adopted(s, mode),
            (Caller::Adopting(tries), Outcome::Refused(refusal)) => {
                self.not_adopted(s, tries, &refusal);
            }
            (Caller::Acquiring, Outcome::Refused(refusal)) => {
                self.coverage.add(refusal_count(&refusal));
                self.check_refusal(s, &refusal);
                self.refused(s);
            }
            (Caller::Converting(mode, value), Outcome::Converted { complete }) => {
                self.coverage.add(if complete { Count::Converted } else { Count::ConvertedLater });
                // A published value counts if the lock was safe to the end.
                if let Some(value) = value.filter(|_| self.slots[s].dirty) {
                    self.publish(s, value);
                }
                self.touch(s);
                self.slots[s].dirty = self.slots[s].target == Mode::Exclusive
                    && self.locks[self.lock_of(s)].keeps_value
                    && self.rng.bool();
                if let Side::Engine(lock) = &self.slots[s].side {
                    if lock.mode().is_some() && lock.mode() != Some(mode) {
                        fail!(
                            self,
                            "converted to the mode asked for",
                            format_args!("{} is {:?}", self.name(s), lock.mode()),
                        );
                    }
                }
                if mode == Mode::Exclusive {
                    self.usurp(s);
                    self.check_grant_sets(s);
                }
                self.hold_on(s);
            }
            (Caller::Converting(..), Outcome::Refused(_)) => {
                self.coverage.add(Count::ConvertRefused);
                if let Some(mode) = self.slots[s].mode {
                    self.slots[s].target = mode;
                }
                self.hold_on(s);
            }
            // Told from within the request itself.
            (Caller::Dropping | Caller::Holding, Outcome::Released) => {
                self.slots[s].caller = Caller::Idle;
            }
            (caller, outcome) => fail!(
                self,
                "outcomes answer requests",
                format_args!("{}: {outcome:?} while {caller:?}", self.name(s)),
            ),
        }
    }

    /// The caller has the lock (still) and will do something some time.
    fn hold_on(&mut self, s: usize) {
        let lost = match &self.slots[s].side {
            Side::Engine(lock) => lock.mode().is_none(),
            Side::Old(lock) => lock.mode().is_none(),
        };
        self.slots[s].caller = if lost { Caller::Dropping } else { Caller::Holding };
        let most = if self.stopped { 1000 } else { self.plan.hold };
        let after = some_time(&mut self.rng, most);
        self.call_caller(s, after);
    }

    /// What an earlier life held is held again.
    fn adopted(&mut self, s: usize, mode: Mode) {
        self.coverage.add(Count::Adopted);
        if 2 * self.votes(s) == count(self.slots[s].members) {
            self.coverage.add(Count::AdoptedFew);
        }
        let slot = &mut self.slots[s];
        if slot.target != mode {
            // It was not asked for a mode; conflicts with the one that was expected say nothing.
            slot.target = mode;
            slot.conflicts = [0; MAX_DRIVES];
        }
        let usurped = slot.usurped.take().is_some_and(|m| !m.compatible(mode));
        let strayed = core::mem::take(&mut slot.strayed);
        let orphan = slot.orphan.take();
        if usurped && !strayed {
            fail!(
                self,
                "what is adopted was nobody else's in between",
                format_args!("{} adopted {mode}", self.name(s)),
            );
        }
        if orphan == Some((Mode::Exclusive, false)) && mode == Mode::Shared {
            fail!(
                self,
                "what was exclusive is not adopted as shared",
                format_args!("{}", self.name(s)),
            );
        }
        self.granted(s, None);
    }

    fn not_adopted(&mut self, s: usize, tries: u8, refusal: &Refusal) {
        self.coverage.add(match refusal {
            Refusal::NothingToAdopt => Count::AdoptNothing,
            Refusal::OtherMode(_) => Count::AdoptOtherMode,
            _ => Count::AdoptLeft,
        });
        let sane = self.slots[s].members & !self.plan.nonsense;
        let there = bits(sane & self.slots[s].left_on).filter(|&d| self.has_record(s, d)).count();
        if *refusal == Refusal::NothingToAdopt && there >= majority(count(self.slots[s].members)) {
            fail!(
                self,
                "what is there is adopted",
                format_args!("{} has {there} drives and is told that it has none", self.name(s)),
            );
        }
        if let Refusal::OtherMode(mode) = refusal {
            self.slots[s].target = *mode;
        }
        let again = *refusal != Refusal::NothingToAdopt && tries > 0;
        // Nothing uses it, so it is given up.
        self.slots[s].caller = if again { Caller::Adopting(tries - 1) } else { Caller::Dropping };
        let after = some_time(&mut self.rng, self.plan.retry);
        self.call_caller(s, after);
    }

    fn granted(&mut self, s: usize, value: Option<ValueRead>) {
        let l = self.lock_of(s);
        self.touch(s);
        self.coverage.add(match self.slots[s].target {
            Mode::Exclusive => Count::GrantedEx,
            Mode::Shared => Count::GrantedSh,
        });
        self.locks[l].refusals = 0;
        let slot = &mut self.slots[s];
        slot.lapsed = false;
        slot.tenure += 1;
        slot.usurped = None;
        let now = self.local(self.host_of(s));
        let (mode, end) = match &self.slots[s].side {
            Side::Engine(lock) => (lock.mode(), lock.safe_until()),
            Side::Old(lock) => (lock.mode(), lock.safe_until()),
        };
        let has_ended = end.is_none_or(|end| now >= end);
        if mode != Some(self.slots[s].target) || has_ended {
            fail!(
                self,
                "a grant is good when it is told",
                format_args!("{}: mode {mode:?}, safe until {end:?}, now {now:?}", self.name(s)),
            );
        }
        if self.votes(s) < count(self.slots[s].members) {
            self.coverage.add(Count::GrantedFew);
        }
        self.usurp(s);
        self.check_grant_sets(s);
        if let Some(value) = value {
            self.check_value(s, value);
        }
        self.slots[s].dirty =
            self.slots[s].target == Mode::Exclusive && self.locks[l].keeps_value && self.rng.bool();
        self.hold_on(s);
        if core::mem::take(&mut self.slots[s].lone) {
            self.coverage.add(Count::LoneAcquire);
        }
    }

    /// A host got the lock: hosts that have it in a conflicting mode and are lapsed must not come
    /// back to it.
    fn usurp(&mut self, s: usize) {
        let target = self.slots[s].target;
        for other in self.slots_of_lock(self.lock_of(s)) {
            let left = self.slots[other].orphan.map(|(mode, _)| mode);
            if other != s
                && !self.believes(other)
                && !self.can_miss(s, other)
                && self.slots[other].mode.or(left).is_some_and(|m| !m.compatible(target))
            {
                let usurped = &mut self.slots[other].usurped;
                *usurped = (*usurped).max(Some(target));
                self.poison(other);
            }
        }
    }

    /// A holder that was changing things is gone: older values are not to be trusted.
    fn poison(&mut self, s: usize) {
        if core::mem::take(&mut self.slots[s].dirty) {
            let lock = &mut self.locks[s % self.plan.locks.len()];
            lock.issued += 1;
            lock.poison = lock.issued;
        }
    }

    fn publish(&mut self, s: usize, value: Value) {
        let l = self.lock_of(s);
        let lock = &mut self.locks[l];
        lock.published = lock.published.max(value.get());
        lock.publisher = (s / self.plan.locks.len()) as u8;
        self.slots[s].dirty = false;
        self.coverage.add(Count::Published);
    }

    fn check_value(&mut self, s: usize, value: ValueRead) {
        let l = self.lock_of(s);
        let ValueRead::Known(value) = value else {
            self.coverage.add(Count::GrantedUnknown);
            return;
        };
        self.coverage.add(Count::GrantedKnown);
        let lock = &self.locks[l];
        let budget = self.plan.kind.is_safe();
        if !budget || !lock.keeps_value || lock.muddled || self.plan.lists_differ {
            return;
        }
        if value.get() > 0 && usize::from(lock.publisher) != self.host_of(s) {
            self.coverage.add(Count::GrantedKnownLater);
        }
        let floor = self.slots[s].floor.max(self.locks[l].poison);
        if value.get() > self.locks[l].issued {
            fail!(
                self,
                "a value was published by somebody",
                format_args!("{} read {}", self.name(s), value.get()),
            );
        } else if value == Value::ZERO {
            fail!(self, "\"never written\" is not a known value", format_args!("{}", self.name(s)));
        } else if value.get() < floor {
            fail!(
                self,
                "a known value is current",
                format_args!(
                    "{} was told {}, but {} was published or spoilt before it asked",
                    self.name(s),
                    value.get(),
                    floor
                ),
            );
        }
    }

    fn refused(&mut self, s: usize) {
        let l = self.lock_of(s);
        self.touch(s);
        self.slots[s].caller = if self.stopped { Caller::Finished } else { Caller::Idle };
        if self.slots[s].lone {
            fail!(
                self,
                "a lone acquire in a healthy cluster is granted",
                format_args!("{} was refused", self.name(s)),
            );
        }
        // In a healthy cluster somebody gets the lock.
        let nobody = self.slots_of_lock(l).all(|o| self.slots[o].mode.is_none());
        let settled = self.settled() && self.slots[s].started >= self.plan.settled_at;
        let lock = &mut self.locks[l];
        lock.refusals = if nobody && settled { lock.refusals + 1 } else { 0 };
        if lock.refusals > 25 {
            fail!(
                self,
                "somebody gets a free lock",
                format_args!("lock {l} is free, and 25 requests in a row were refused"),
            );
        }
        let after = some_time(&mut self.rng, self.plan.retry);
        self.call_caller(s, after);
    }

    /// What the engine promises of a refusal by live holders, where nothing else goes wrong.
    fn check_refusal(&mut self, s: usize, refusal: &Refusal) {
        let quiet = self.plan.kind.is_safe() && self.plan.calm_at == 0 && self.plan.old_hosts == 0;
        let (h, l) = (self.host_of(s), self.lock_of(s));
        let longest = 20 * u64::from(self.plan.delay.iter().flatten().copied().max().unwrap_or(0));
        let slot = &self.slots[s];
        // By hosts that had held it for a while and went on to hold it.
        let still = self.locks[l].touched_at + longest < slot.started
            && self.slots_of_lock(l).all(|o| o == s || self.slots[o].caller != Caller::Acquiring);
        if !quiet || !still || !matches!(refusal, Refusal::Held(_)) || !slot.fresh {
            return;
        }
        self.coverage.add(Count::RefusalChecked);
        self.slots[s].count_checked = true;
        let slowest = bits(self.slots[s].members | self.slots[s].witnesses)
            .map(|d| u64::from(self.plan.delay[h][d]))
            .max()
            .unwrap_or(0);
        // A round trip is at most twice a path's base delay each way. Where sharers are not
        // admitted, that takes one more to be told from a holder that has just become one.
        let solitary = self.drives.iter().any(|d| !d.drive.profile().sharers_admitted);
        let trips = if solitary { 4 } else { 3 };
        let trips = trips * 4 * slowest + 2 * self.plan.lateness;
        if self.now - self.slots[s].started > trips && self.slots[s].splits == 0 {
            fail!(
                self,
                "refused within three round trips",
                format_args!("{} took {} us", self.name(s), self.now - self.slots[s].started),
            );
        }
        self.check_count(s);
    }

    /// Each attempt that split the drives with another host's may cost as much again.
    fn check_count(&mut self, s: usize) {
        let most = 4 * (1 + self.slots[s].splits);
        if let Some(d) = self.slots[s].sent.iter().position(|&n| n > most) {
            let n = self.slots[s].sent[d];
            fail!(
                self,
                "refused with at most four commands a drive",
                format_args!("{} sent {n} commands to d{d}", self.name(s)),
            );
        }
    }

    // Hosts: callers.

    fn caller(&mut self, s: usize, stamp: u32) {
        if self.slots[s].stamp != stamp {
            return;
        }
        let h = self.host_of(s);
        if !self.hosts[h].alive {
            return;
        }
        if self.now < self.hosts[h].frozen_until {
            let after = self.hosts[h].frozen_until - self.now + 1;
            self.call_caller(s, after);
            return;
        }
        match self.slots[s].caller {
            Caller::Idle => self.want(s),
            Caller::Holding => self.act(s),
            Caller::Dropping => self.release(s),
            // An adoption that is refused begins new leases, which must be over at the end.
            Caller::Adopting(_) if self.stopped => self.release(s),
            Caller::Adopting(tries) => self.adopt(s, tries),
            Caller::Acquiring | Caller::Converting(..) | Caller::Finished => (),
        }
    }

    fn want(&mut self, s: usize) {
        if self.stopped && !self.slots[s].lone {
            self.slots[s].caller = Caller::Finished;
            return;
        }
        let (h, l) = (self.host_of(s), self.lock_of(s));
        let idle = match &self.slots[s].side {
            Side::Engine(lock) => lock.is_idle(),
            Side::Old(lock) => lock.is_idle(),
        };
        self.slots[s].fresh = idle;
        if idle && !self.is_old(h) && self.rng.u8(0..8) == 0 {
            // lvmlockd forgets a lock that nobody uses.
            self.coverage.add(Count::Dropped);
            let side = self.new_side(h, l);
            self.slots[s].side = side;
            self.slots[s].life += 1;
            self.slots[s].timer_at = NEVER;
        }
        if !idle && self.is_old(h) {
            self.call_caller(s, 100_000);
            return;
        }
        if core::mem::take(&mut self.slots[s].count_checked) {
            self.check_count(s);
        }
        let mode = if self.rng.u8(0..8) < 5 { Mode::Exclusive } else { Mode::Shared };
        let others = self
            .slots_of_lock(l)
            .any(|o| o != s && matches!(self.slots[o].caller, Caller::Acquiring | Caller::Holding));
        self.contended |= others;
        self.acquire(s, mode);
    }

    fn acquire(&mut self, s: usize, mode: Mode) {
        // What an earlier life left is none of its business any more.
        let slot = &mut self.slots[s];
        (slot.orphan, slot.usurped, slot.strayed) = (None, None, false);
        let (members, witnesses) = self.begin_acquire(s, mode, Caller::Acquiring);
        let request = Request::Acquire {
            mode,
            members: members_of(members),
            witnesses: members_of(witnesses),
        };
        self.ask(s, request);
    }

    /// A restarted host asks for what its earlier life held.
    fn adopt(&mut self, s: usize, tries: u8) {
        let mode = self.slots[s].target;
        let (members, witnesses) = self.begin_acquire(s, mode, Caller::Adopting(tries));
        let request = Request::Adopt {
            mode: (self.rng.u8(0..4) > 0).then_some(mode),
            members: members_of(members),
            witnesses: members_of(witnesses),
        };
        self.ask(s, request);
    }

    /// Notes what a request to acquire or adopt begins with; tells the drives that vote, and those
    /// to be read.
    fn begin_acquire(&mut self, s: usize, mode: Mode, caller: Caller) -> (u16, u16) {
        let (h, l) = (self.host_of(s), self.lock_of(s));
        self.coverage.add(Count::Requests);
        let all = (1u16 << self.drives.len()) - 1;
        let list = self.plan.lists[h];
        let lock = &self.locks[l];
        let (members, witnesses) = if lock.keeps_value || self.plan.lists_differ {
            (lock.layout & list, 0)
        } else {
            (lock.layout, all & !lock.layout)
        };
        let floor = lock.published.max(lock.poison);
        let slot = &mut self.slots[s];
        slot.caller = caller;
        slot.stamp += 1;
        slot.target = mode;
        slot.members = members;
        slot.witnesses = witnesses;
        slot.started = self.now;
        slot.floor = floor;
        slot.lost = 0;
        slot.begin_request();
        trace!(
            self,
            "{} {} {mode} on {} reading {}",
            self.name(s),
            if caller == Caller::Acquiring { "acquire" } else { "adopt" },
            Set(members),
            Set(witnesses)
        );
        if matches!(self.slots[s].side, Side::Engine(_)) {
            self.slots[s].set_mark = Fingerprint::of(&members_of(members)).0;
        }
        (members, witnesses)
    }

    fn ask(&mut self, s: usize, request: Request) {
        let now = self.local(self.host_of(s));
        let (stamp, mode) = (self.slots[s].stamp, self.slots[s].target);
        match &mut self.slots[s].side {
            Side::Engine(lock) => {
                if let Err(error) = lock.request(request, now) {
                    fail!(
                        self,
                        "a request that is allowed is taken",
                        format_args!("{}: acquire: {error:?}", self.name(s)),
                    );
                    return;
                }
            }
            Side::Old(lock) => lock.acquire(mode, now),
        }
        self.watch_request(s, stamp);
        self.settle(s);
    }

    fn watch_request(&mut self, s: usize, stamp: u32) {
        let patience = self.plan.timing.patience.as_micros() as u64;
        let bound = patience + patience / 100 + 2 * self.plan.lateness + 1000;
        self.push(self.now + bound, What::Overdue(s as u16, stamp));
    }

    fn overdue(&mut self, s: usize, stamp: u32) {
        let slot = &self.slots[s];
        let h = self.host_of(s);
        if slot.stamp != stamp
            || !self.hosts[h].alive
            || self.is_old(h)
            || !matches!(
                slot.caller,
                Caller::Acquiring | Caller::Adopting(_) | Caller::Converting(..)
            )
        {
            return;
        }
        if self.now <= self.hosts[h].frozen_until {
            let later = self.hosts[h].frozen_until + self.plan.lateness + 2000;
            self.push(later, What::Overdue(s as u16, stamp));
            return;
        }
        fail!(
            self,
            "request answered",
            format_args!("{}: {:?} for longer than its patience", self.name(s), slot.caller),
        );
    }

    fn act(&mut self, s: usize) {
        let h = self.host_of(s);
        if self.is_old(h) || self.stopped {
            self.release(s);
            return;
        }
        let l = self.lock_of(s);
        let held = self.slots[s].mode;
        match self.rng.u8(0..16) {
            0..=4 if held.is_some() => self.convert(s),
            5..=9
                if self.plan.moves
                    && held == Some(Mode::Exclusive)
                    && !self.locks[l].keeps_value
                    && self.believes(s) =>
            {
                let all = (1u16 << self.drives.len()) - 1;
                let set = self.rng.u16(1..=all);
                let now = self.local(h);
                trace!(self, "{} spread to {}", self.name(s), Set(set));
                self.coverage.add(Count::Spread);
                if let Side::Engine(lock) = &mut self.slots[s].side {
                    lock.spread(&members_of(set), now);
                }
                self.settle(s);
                self.hold_on(s);
                let after = 4 * u64::from(self.plan.delay[h].iter().copied().max().unwrap_or(0));
                self.push(self.now + after, What::Move(l as u8, s as u16, set));
            }
            _ => self.release(s),
        }
    }

    /// The LV lies somewhere else from now on, if the holder's lock is there too.
    fn commit_move(&mut self, l: usize, s: usize, set: u16) {
        if !self.believes(s) || self.slots[s].mode != Some(Mode::Exclusive) {
            return;
        }
        let there = bits(set).filter(|&d| self.has_vote(s, d)).count();
        if there >= keep_quorum(count(set)) {
            self.coverage.add(Count::Moved);
            self.locks[l].layout = set;
            trace!(self, "lock {l} lies on {} now", Set(set));
        }
    }

    /// The value to publish, where the lock was held to change something. Where the lock is not
    /// safe any more, nobody knows whether it gets anywhere, but what was changed before is changed.
    fn new_value(&mut self, s: usize) -> Option<Value> {
        let l = self.lock_of(s);
        if !self.slots[s].dirty {
            return None;
        }
        if !self.believes(s) {
            self.poison(s);
        }
        self.locks[l].issued += 1;
        Some(Value::new(self.locks[l].issued).unwrap_or(Value::MAX))
    }

    fn convert(&mut self, s: usize) {
        let h = self.host_of(s);
        self.coverage.add(Count::Requests);
        let mode = match self.slots[s].mode {
            Some(Mode::Exclusive) => Mode::Shared,
            _ => Mode::Exclusive,
        };
        let value = self.new_value(s);
        self.touch(s);
        let now = self.local(h);
        let slot = &mut self.slots[s];
        slot.caller = Caller::Converting(mode, value);
        slot.stamp += 1;
        slot.target = mode;
        slot.started = self.now;
        slot.begin_request();
        let stamp = slot.stamp;
        trace!(self, "{} convert to {mode} value {value:?}", self.name(s));
        if let Side::Engine(lock) = &mut self.slots[s].side {
            if let Err(error) = lock.request(Request::Convert { mode, value }, now) {
                fail!(
                    self,
                    "a request that is allowed is taken",
                    format_args!("{}: convert: {error:?}", self.name(s)),
                );
                return;
            }
        }
        self.watch_request(s, stamp);
        self.settle(s);
    }

    fn release(&mut self, s: usize) {
        let h = self.host_of(s);
        self.coverage.add(Count::Released);
        let believed = self.believes(s);
        let value = self.new_value(s);
        // Nothing changed, or everything is published by this.
        self.slots[s].dirty = false;
        let now = self.local(h);
        self.slots[s].caller = Caller::Dropping;
        self.slots[s].begin_request();
        trace!(self, "{} release value {value:?}", self.name(s));
        match &mut self.slots[s].side {
            Side::Engine(lock) => {
                if let Err(error) = lock.request(Request::Release { value }, now) {
                    fail!(
                        self,
                        "a request that is allowed is taken",
                        format_args!("{}: release: {error:?}", self.name(s)),
                    );
                    return;
                }
            }
            Side::Old(lock) => {
                lock.release(value);
                self.slots[s].caller = Caller::Idle;
            }
        }
        self.settle(s);
        if self.slots[s].caller != Caller::Idle || self.slots[s].mode.is_some() {
            fail!(
                self,
                "release completes at once",
                format_args!("{} is still {:?}", self.name(s), self.slots[s].caller),
            );
            return;
        }
        if let Some(value) = value.filter(|_| believed) {
            self.publish(s, value);
        }
        let pause = if self.settled() { self.plan.pause / 4 } else { self.plan.pause };
        let after = some_time(&mut self.rng, pause);
        self.call_caller(s, after);
    }
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl Slot {
    fn new(side: Side) -> Slot {
        Slot {
            side,
            caller: Caller::Idle,
            stamp: 0,
            life: 0,
            timer_at: NEVER,
            probing: false,
            mode: None,
            until: 0,
            target: Mode::Exclusive,
            members: 0,
            witnesses: 0,
            started: 0,
            floor: 0,
            lost: 0,
            lost_at: [0; MAX_DRIVES],
            knows: 0,
            conflicts: [0; MAX_DRIVES],
            met: 0,
            sent: [0; MAX_DRIVES],
            splits: 0,
            set_mark: [0; 16],
            foreign_since: None,
            lapsed: false,
            tenure: 0,
            cleared: 0,
            usurped: None,
            orphan: None,
            left_on: 0,
            strayed: false,
            dirty: false,
            fresh: false,
            count_checked: false,
            lone: false,
        }
    }

    fn begin_request(&mut self) {
        self.knows = 0;
        self.conflicts = [0; MAX_DRIVES];
        self.met = 0;
        self.sent = [0; MAX_DRIVES];
        self.splits = 0;
    }
}

fn host_id(host: usize, life: u8) -> HostId {
    HostId::new(
        [host as u8 * 16 + life + 1; 16],
        ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"][host % 8],
    )
}

fn refusal_count(refusal: &Refusal) -> Count {
    match refusal {
        Refusal::Held(conflicts) if conflicts.iter().any(|c| !c.same_set) => Count::RefusedOtherSet,
        Refusal::Held(_) => Count::RefusedHeld,
        Refusal::NoQuorum { .. } => Count::RefusedNoQuorum,
        Refusal::Full => Count::RefusedFull,
        Refusal::Unconfirmed => Count::RefusedUnconfirmed,
        Refusal::Unclear => Count::AdoptLeft,
        Refusal::NothingToAdopt => Count::AdoptNothing,
        Refusal::OtherMode(_) => Count::AdoptOtherMode,
    }
}
