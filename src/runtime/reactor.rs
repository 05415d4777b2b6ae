//! The reactor: owns all locks, their timers and what waits for them.

use super::drives::Drives;
use super::kill::{self, Killing};
use super::mailbox::Mailbox;
use super::metrics::{LossKind, Metrics};
use super::queue::{Completion, Urgency};
use super::watchdog::guards::Guards;
use super::{Answer, Engine, LockSpec, MakeEngine, Owner, Role, Settings, clock};
use core::cmp::Reverse;
use core::time::Duration;
use idm_engine::{
    Command, DriveRef, Event, Instant, LockConfig, Loss, Member, Notice, Outcome, Request,
    RequestError, Token,
};
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, ResourceId};
use std::any::Any;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

/// Longest sleep while there are no locks. With locks it is [`Fencing::notice`]: the mailbox waits
/// on a clock that stands still while the host is suspended, so on waking the leases are looked at
/// within this time.
///
/// [`Fencing::notice`]: super::fencing::Fencing::notice
const SLEEP: Duration = Duration::from_secs(3600);
/// Shortest sleep: a deadline that stays in the past must not become a busy loop.
const TICK: Duration = Duration::from_millis(1);
/// Messages that are worked through before timers are looked at again.
const BATCH: usize = 256;
/// Timers of locks that nobody waits for are put together: a lease has so many moments at which
/// they run (every 100 ms for a lease of 60 s). So the reactor and the workers wake once for many
/// refreshes. A refresh that is late by that much is of no account, and no lease is any longer for
/// it: it counts from when its command was sent.
const MOMENTS: u32 = 600;

/// What the reactor is told.
pub enum Message {
    /// Begin a request.
    Request { spec: LockSpec, request: Request, id: u64, waiter: Option<Sender<Answer>> },
    /// Nobody waits for a request any more: undo what comes of it.
    Abandon { resource: ResourceId, id: u64 },
    /// Put held locks on further drives.
    Spread { resources: Vec<ResourceId>, drives: Vec<Member> },
    /// A held lock belongs to another lockspace from now on.
    Own { spec: LockSpec },
    /// A lockspace has lost what it needs.
    Fail { owner: Arc<Owner>, why: String },
    /// Tell how a lock is held.
    Mode { resource: ResourceId, waiter: Sender<Option<Mode>> },
    /// A drive answered.
    Reply { lock: u64, token: Token, reply: Reply },
    /// Drop the sender when all commands that are on their way have been answered.
    Drain(Sender<()>),
    /// The kill command for a lockspace has ended.
    KillEnded { owner: Arc<Owner>, ended: kill::Ended },
    /// End, and leave everything as it is.
    Stop,
}

pub struct Reactor {
    mailbox: Arc<Mailbox<Message>>,
    /// Taken from the mailbox, and not yet done.
    messages: VecDeque<Message>,
    /// Commands were submitted in this turn that are still to be started.
    begun: bool,
    drives: Arc<Drives>,
    metrics: Arc<Metrics>,
    settings: Settings,
    make: Box<MakeEngine>,
    seed: u64,
    locks: HashMap<u64, Box<Entry>>,
    names: HashMap<ResourceId, u64>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    next_lock: u64,
    next_sweep: Instant,
    /// Locks that were lost in this step, or are about to be.
    failures: Vec<Failure>,
    /// Lockspaces that lost their locks and still have some in use.
    killings: Vec<(Arc<Owner>, Killing)>,
    /// When a drive last lost a lock.
    told: HashMap<DriveRef, Instant>,
    /// Who waits until all drives have answered.
    draining: Vec<Sender<()>>,
    /// Until when the locks are safe that are in use.
    guards: Guards,
    /// What was told of it.
    guarded: Option<Instant>,
}

/// A lock is lost or about to be.
struct Failure {
    owner: Arc<Owner>,
    why: String,
    /// When other hosts may have it; `None` where one may already.
    until: Option<Instant>,
}

/// One lock and what waits for it.
struct Entry {
    spec: LockSpec,
    /// `None`: it panicked. What it held is lost, not free.
    engine: Option<Box<dyn Engine>>,
    current: Option<Pending>,
    waiting: VecDeque<(Request, Pending)>,
    settle: Option<Settle>,
    /// Commands without an answer; one of each drive at most.
    outstanding: Vec<Outstanding>,
    /// The request that the lock was granted to.
    granted: Option<u64>,
    members: Vec<Member>,
    /// Those that lost it.
    lost_on: Vec<DriveRef>,
    /// A membership that shall be held.
    joined: bool,
    rejoin_at: Option<Instant>,
    /// How it is counted as held.
    counted: Option<Mode>,
    /// Whoever it was granted to has not given it up, whatever has become of it.
    in_use: bool,
    /// Its owner was told that it is about to be lost, and it was not renewed in time since.
    alarmed: bool,
    /// When a panicked lock is forgotten.
    forget_at: Option<Instant>,
    timer: Option<Instant>,
}

/// A request, apart from what the engine is told.
struct Pending {
    id: u64,
    kind: Kind,
    /// For whom; `None` for the reactor's own, which are for whom the lock was last taken.
    spec: Option<LockSpec>,
    waiter: Option<Sender<Answer>>,
    abandoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Acquire,
    /// Of what this host held before lvmlockd was started: not refused for a killed lockspace,
    /// because what it holds still keeps others out.
    Adopt,
    Convert(Mode),
    Release,
}

impl Kind {
    /// Whether a killed lockspace is refused it.
    fn wants_more(self) -> bool {
        matches!(self, Kind::Acquire | Kind::Convert(Mode::Exclusive))
    }
}

struct Outstanding {
    token: Token,
    drive: DriveRef,
    unlock: bool,
}

/// Somebody waits until most drives have taken a release.
struct Settle {
    waiter: Sender<Answer>,
    /// Those that have not.
    drives: HashSet<DriveRef>,
    /// How many of them need not be waited for.
    allowed: usize,
}

/// What happened to a lock.
enum Input {
    Begin,
    Spread(Vec<Member>),
    Reply(Token, Reply),
    Timer,
}

impl Pending {
    fn answer(&mut self, answer: Answer) {
        if let Some(waiter) = self.waiter.take() {
            // The caller may have given up; then it has sent or will send Abandon.
            let _ = waiter.send(answer);
        }
    }

    fn is_killed(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.owner.is_killed())
    }
}

impl Reactor {
    pub fn new(
        mailbox: Arc<Mailbox<Message>>,
        drives: Arc<Drives>,
        metrics: Arc<Metrics>,
        settings: Settings,
        make: Box<MakeEngine>,
        seed: u64,
    ) -> Reactor {
        Reactor {
            mailbox,
            messages: VecDeque::new(),
            begun: false,
            drives,
            metrics,
            settings,
            make,
            seed,
            locks: HashMap::new(),
            names: HashMap::new(),
            timers: BinaryHeap::new(),
            next_lock: 0,
            next_sweep: Instant::default(),
            failures: Vec::new(),
            killings: Vec::new(),
            told: HashMap::new(),
            draining: Vec::new(),
            guards: Guards::default(),
            guarded: None,
        }
    }

    pub fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(panic) => log::error!("internal error in the reactor: {}", text_of(&*panic)),
            }
        }
        self.mailbox.close();
    }

    /// Waits for something to do and does it. `false`: the end.
    fn turn(&mut self) -> bool {
        if self.messages.is_empty() {
            let wait = self.wait();
            self.mailbox.take(&mut self.messages, wait);
        }
        for _ in 0..BATCH {
            let Some(message) = self.messages.pop_front() else {
                break;
            };
            if !self.take(message) {
                return false;
            }
        }
        self.fire(clock::now());
        if core::mem::take(&mut self.begun) {
            self.drives.start();
        }
        self.guard();
        if !self.draining.is_empty() && self.locks.values().all(|it| it.outstanding.is_empty()) {
            self.draining.clear();
        }
        true
    }

    /// Tells until when the locks in use are safe.
    fn guard(&mut self) {
        let first = self.guards.first();
        if first != self.guarded {
            self.guarded = first;
            self.metrics.safe_until(first);
            if let Some(watchdog) = &self.settings.watchdog {
                watchdog.protect(first);
            }
            if let Some(note) = &self.settings.note {
                note.protect(first);
            }
        }
    }

    fn wait(&self) -> Duration {
        if self.locks.is_empty() && self.killings.is_empty() {
            return SLEEP;
        }
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let reminders = self.killings.iter().filter_map(|(_, killing)| killing.next());
        let nap = self.settings.fencing.notice.max(TICK);
        match timer.into_iter().chain(reminders).min() {
            Some(at) => at.since(clock::now()).clamp(TICK, nap),
            None => nap,
        }
    }

    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Request { spec, request, id, waiter } => {
                self.request(spec, request, id, waiter)
            }
            Message::Abandon { resource, id } => self.abandon(resource, id),
            Message::Spread { resources, drives } => self.spread(&resources, &drives),
            Message::Own { spec } => {
                let lock = self.names.get(&spec.resource).and_then(|id| self.locks.get_mut(id));
                if let Some(entry) = lock {
                    let in_use = entry.in_use;
                    entry.set_in_use(false);
                    entry.spec = spec;
                    entry.set_in_use(in_use);
                }
            }
            Message::Fail { owner, why } => self.fail(Failure { owner, why, until: None }),
            Message::Mode { resource, waiter } => {
                let entry = self.names.get(&resource).and_then(|id| self.locks.get(id));
                let _ = waiter.send(entry.and_then(|entry| entry.safe_mode(clock::now())));
            }
            Message::Reply { lock, token, reply } => self.step(lock, Input::Reply(token, reply)),
            Message::Drain(waiter) => self.draining.push(waiter),
            Message::KillEnded { owner, ended } => {
                let killing = self.killings.iter_mut().find(|(it, _)| Arc::ptr_eq(it, &owner));
                let note = killing.and_then(|(_, killing)| killing.ended(&ended, clock::now()));
                note.into_iter().for_each(|note| note.log());
            }
            Message::Stop => return false,
        }
        true
    }

    fn spread(&mut self, resources: &[ResourceId], drives: &[Member]) {
        for resource in resources {
            let Some(&lock) = self.names.get(resource) else { continue };
            // Most locks are on all of their VG's drives, and there may be thousands.
            let everywhere = |entry: &Entry| drives.iter().all(|d| entry.members.contains(d));
            if !self.locks.get(&lock).is_some_and(|entry| everywhere(entry)) {
                self.step(lock, Input::Spread(drives.to_vec()));
            }
        }
    }

    /// Does what is due by the clock.
    fn fire(&mut self, now: Instant) {
        let mut due = Vec::new();
        while let Some(Reverse((at, lock))) = self.timers.peek().copied().filter(|t| t.0.0 <= now) {
            self.timers.pop();
            // A lock that has since asked for another time has another entry for it.
            if let Some(entry) = self.locks.get_mut(&lock).filter(|e| e.timer == Some(at)) {
                entry.timer = None;
                due.push(lock);
            }
        }
        for lock in due {
            self.step(lock, Input::Timer);
        }
        if now >= self.next_sweep {
            // Commands that wait this long behind a drive that hangs are of no use any more: the
            // lock has moved on, and a refresh that is sent so late would be sent anew anyway.
            self.drives.expire(now - self.settings.fencing.margin, now);
            self.next_sweep = now + self.settings.fencing.notice / 2;
        }
        let mut again = Vec::new();
        self.killings.retain_mut(|(owner, killing)| {
            if let Some(note) = killing.remind(owner.in_use(), now) {
                note.log();
            }
            if killing.is_over() {
                return false;
            }
            again.extend(killing.begin_again(now).map(|words| (owner.clone(), words)));
            true
        });
        again.into_iter().for_each(|(owner, words)| self.kill(owner, words));
    }

    fn request(
        &mut self,
        spec: LockSpec,
        request: Request,
        id: u64,
        waiter: Option<Sender<Answer>>,
    ) {
        let kind = match &request {
            Request::Acquire { .. } => Kind::Acquire,
            Request::Adopt { .. } => Kind::Adopt,
            Request::Convert { mode, .. } => Kind::Convert(*mode),
            Request::Release { .. } => Kind::Release,
        };
        let mut pending = Pending { id, kind, spec: Some(spec.clone()), waiter, abandoned: false };
        let lock = match self.names.get(&spec.resource) {
            Some(&lock) => lock,
            None if kind == Kind::Release => {
                return pending.answer(Answer::Done(Outcome::Released));
            }
            None => self.create(&spec),
        };
        let Some(entry) = self.locks.get_mut(&lock) else {
            return pending.answer(Answer::Failed("internal error: no such lock".into()));
        };
        if kind == Kind::Release {
            entry.set_in_use(false);
            entry.joined = false;
            entry.rejoin_at = None;
            // Attempts of ours to take a membership again are void.
            entry.waiting.retain(|(_, it)| it.kind != Kind::Acquire || it.waiter.is_some());
        }
        entry.waiting.push_back((request, pending));
        self.step(lock, Input::Begin);
    }

    fn create(&mut self, spec: &LockSpec) -> u64 {
        let lock = self.next_lock;
        self.next_lock += 1;
        let config = LockConfig::new(
            spec.resource,
            self.settings.host,
            spec.role.keeps_value(),
            self.settings.timing,
            self.seed.wrapping_add(lock),
        );
        self.names.insert(spec.resource, lock);
        self.locks.insert(
            lock,
            Box::new(Entry {
                spec: spec.clone(),
                engine: Some((self.make)(config)),
                current: None,
                waiting: VecDeque::new(),
                settle: None,
                outstanding: Vec::new(),
                granted: None,
                members: Vec::new(),
                lost_on: Vec::new(),
                joined: false,
                rejoin_at: None,
                counted: None,
                in_use: false,
                alarmed: false,
                forget_at: None,
                timer: None,
            }),
        );
        lock
    }

    fn abandon(&mut self, resource: ResourceId, id: u64) {
        let Some(&lock) = self.names.get(&resource) else {
            return;
        };
        let Some(entry) = self.locks.get_mut(&lock) else {
            return;
        };
        if let Some(current) = entry.current.as_mut().filter(|current| current.id == id) {
            current.abandoned = true;
            current.waiter = None;
        } else if entry.granted == Some(id) {
            // It was answered just when the caller gave up.
            log::warn!("{}: granted too late, releasing it", entry.spec.label);
            entry.set_in_use(false);
            entry.waiting.push_front(release());
        } else {
            entry.waiting.retain(|(_, waiting)| waiting.id != id || waiting.kind == Kind::Release);
        }
        self.step(lock, Input::Begin);
    }

    /// Lets one lock take an input, and does all that comes out of it.
    fn step(&mut self, lock: u64, input: Input) {
        let Some(mut entry) = self.locks.remove(&lock) else {
            return;
        };
        let advanced = catch_unwind(AssertUnwindSafe(|| self.advance(lock, &mut entry, input)));
        if let Err(panic) = advanced {
            self.condemn(&mut entry, &*panic);
        }
        // Before anybody is answered, so that no caller goes on as if nothing had been lost.
        for failure in core::mem::take(&mut self.failures) {
            self.fail(failure);
        }
        if entry.engine.is_none() {
            refuse_all(&mut entry);
        } else {
            entry.refuse_more();
        }
        // Renewed in time again, it may be in danger once more, and be another owner's by then.
        let safe = clock::now() + self.settings.fencing.margin;
        entry.alarmed &= entry.safe_until().is_none_or(|until| until <= safe);
        self.guards.set(lock, entry.guard());
        let mode = entry.engine.as_ref().and_then(|engine| engine.mode());
        self.metrics.held(entry.spec.role, entry.counted, mode);
        entry.counted = mode;
        if entry.is_finished() {
            self.names.remove(&entry.spec.resource);
        } else {
            // A held lock has no need of what its requests needed.
            if entry.waiting.is_empty() {
                entry.waiting.shrink_to_fit();
            }
            self.schedule(lock, &mut entry);
            self.locks.insert(lock, entry);
        }
    }

    fn advance(&mut self, lock: u64, entry: &mut Entry, input: Input) {
        let now = clock::now();
        match input {
            Input::Begin => {}
            Input::Spread(drives) => {
                if let Some(engine) = &mut entry.engine {
                    engine.spread(&drives, now);
                }
            }
            Input::Reply(token, reply) => entry.on_reply(token, reply, now),
            Input::Timer => self.on_timer(entry, now),
        }
        loop {
            while let Some(command) = entry.next_command(now) {
                self.send(lock, entry, command);
            }
            while let Some(event) = entry.engine.as_mut().and_then(|engine| engine.next_event()) {
                self.on_event(entry, event, now);
            }
            if entry.engine.is_none() || entry.current.is_some() {
                return;
            }
            let Some((request, pending)) = entry.waiting.pop_front() else {
                return;
            };
            if let Some(engine) = &mut entry.engine {
                engine.expect_silence(&self.drives.slow(now));
            }
            entry.begin(request, pending, now);
        }
    }

    fn on_timer(&mut self, entry: &mut Entry, now: Instant) {
        let Some(engine) = &mut entry.engine else {
            if entry.forget_at.is_some_and(|at| at <= now) {
                entry.forget_at = None;
            }
            return;
        };
        engine.on_timer(now);
        if entry.rejoin_at.is_some_and(|at| at <= now) {
            entry.rejoin_at = None;
            entry.rejoin();
        }
        if self.alarm_at(entry).is_some_and(|at| at <= now) {
            entry.alarmed = true;
            let until = entry.safe_until().unwrap_or(now);
            let silent = self.drives.slow(now);
            let silent: Vec<Member> =
                entry.members.iter().filter(|m| silent.contains(&m.drive)).cloned().collect();
            let why = format!(
                "{} could not be renewed on enough drives and may be lost in {} ms; of its {} \
                 drives these do not answer: {}",
                entry.spec.label,
                until.since(now).as_millis(),
                entry.members.len(),
                self.names_of(&silent)
            );
            let owner = entry.spec.owner.clone();
            self.failures.push(Failure { owner, why, until: Some(until) });
        }
    }

    /// When the owner of a lock has to be told that it cannot be kept.
    fn alarm_at(&self, entry: &Entry) -> Option<Instant> {
        if entry.alarmed || entry.spec.role == Role::Membership {
            return None;
        }
        entry.engine.as_ref()?.mode()?;
        Some(entry.safe_until()? - self.settings.fencing.margin)
    }

    fn schedule(&mut self, lock: u64, entry: &mut Entry) {
        let deadline = entry.engine.as_ref().and_then(|engine| engine.next_deadline());
        let awaited = entry.is_awaited();
        let engine = deadline.map(|at| if awaited { at } else { self.moment(at) });
        let never = Instant::from_micros(u64::MAX);
        // Not by flatten and min: compilers make code of that which compares before it looks
        // whether there is anything, and valgrind cannot tell that from a mistake.
        let all = [engine, self.alarm_at(entry), entry.rejoin_at, entry.forget_at];
        let next = all.into_iter().fold(never, |next, at| next.min(at.unwrap_or(never)));
        let next = (next < never).then_some(next);
        if entry.timer != next {
            entry.timer = next;
            self.timers.extend(next.map(|at| Reverse((at, lock))));
        }
    }

    /// The first moment that is not before `at`.
    fn moment(&self, at: Instant) -> Instant {
        let grid = (self.settings.timing.lease / MOMENTS).as_micros() as u64;
        let moment = at.as_micros().checked_next_multiple_of(grid.max(1));
        moment.map_or(at, Instant::from_micros)
    }

    fn send(&mut self, lock: u64, entry: &mut Entry, command: Command) {
        let Command { token, drive, command } = command;
        let unlock = matches!(command, DriveCommand::Mutex(MutexOp::Unlock, _));
        entry.outstanding.push(Outstanding { token, drive, unlock });
        let mailbox = self.mailbox.clone();
        let done = Completion::in_a_row(move |reply, more| {
            let message = Message::Reply { lock, token, reply };
            // After the reactor's end nobody is interested.
            let _ = if more { mailbox.leave(message) } else { mailbox.send(message) };
        });
        let urgency = if entry.is_awaited() { Urgency::Awaited } else { Urgency::Background };
        self.begun |= urgency == Urgency::Background;
        self.drives.submit(drive, command, urgency, done);
    }

    fn on_event(&mut self, entry: &mut Entry, event: Event, now: Instant) {
        let label = entry.spec.label.clone();
        match event {
            Event::Done(outcome) => self.on_done(entry, outcome, now),
            Event::Lapsed => {
                let why = format!(
                    "the lease of {label} has run out: too few of its drives answered ({})",
                    self.names_of(&entry.members)
                );
                self.lost(entry, why, LossKind::Lapsed);
            }
            Event::Regained => {
                self.metrics.regained();
                log::warn!("{label}: regained, nobody had taken it while its lease had run out");
                entry.alarmed = false;
            }
            Event::Lost(loss) => {
                let why = match &loss {
                    Loss::Taken => format!("{label} is lost: taken over by another host, or reset"),
                    Loss::OtherSet(conflict) => format!(
                        "{label} is lost: host {} holds it on other drives ({})",
                        conflict.host,
                        self.drives.name(conflict.drive)
                    ),
                };
                self.lost(entry, why, (&loss).into());
                if entry.joined {
                    entry.waiting.push_back(release());
                    entry.rejoin();
                }
            }
            Event::Notice(notice) => self.on_notice(entry, notice, now),
        }
    }

    fn lost(&mut self, entry: &mut Entry, why: String, kind: LossKind) {
        self.metrics.lost(kind);
        if entry.spec.role == Role::Membership {
            log::warn!("{why}; other hosts may not see that this one uses the volume group");
            return;
        }
        entry.alarmed = true;
        self.failures.push(Failure { owner: entry.spec.owner.clone(), why, until: None });
    }

    fn on_done(&mut self, entry: &mut Entry, outcome: Outcome, now: Instant) {
        let Some(mut pending) = entry.current.take() else {
            return;
        };
        match &outcome {
            Outcome::Granted(_) | Outcome::Adopted(_) => {
                entry.granted = Some(pending.id);
                entry.alarmed = false;
                let unwanted = entry.waiting.iter().any(|(_, it)| it.kind == Kind::Release);
                entry.joined = entry.spec.role == Role::Membership && !unwanted;
                entry.set_in_use(!pending.abandoned);
                if pending.abandoned {
                    log::warn!("{}: granted too late, releasing it", entry.spec.label);
                    entry.waiting.push_front(release());
                }
            }
            Outcome::Converted { complete } => {
                if pending.abandoned && pending.kind == Kind::Convert(Mode::Exclusive) {
                    log::warn!("{}: converted too late, undoing it", entry.spec.label);
                    entry.waiting.push_front(demote());
                }
                if !complete {
                    log::info!(
                        "{}: shared for this host, other hosts have to wait for some drives",
                        entry.spec.label
                    );
                }
            }
            Outcome::Released => {
                entry.granted = None;
                entry.settle(pending);
                return;
            }
            Outcome::Refused(refusal) => {
                if pending.kind == Kind::Acquire && entry.joined {
                    log::warn!("{}: {refusal}; trying again", entry.spec.label);
                    entry.rejoin_at = Some(now + self.settings.timing.renew);
                }
            }
        }
        pending.answer(Answer::Done(outcome));
    }

    fn on_notice(&mut self, entry: &mut Entry, notice: Notice, now: Instant) {
        self.metrics.noticed(&notice);
        let label = &entry.spec.label;
        match notice {
            Notice::Broke { hosts, drive } => {
                let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
                log::warn!(
                    "{label}: took over on {} what host {} did not renew",
                    self.drives.name(drive),
                    hosts.join(", ")
                );
            }
            Notice::TookOverOwn { drive } => log::info!(
                "{label}: took over on {} what this host had left there",
                self.drives.name(drive)
            ),
            Notice::DriveLost { drive } => {
                if !entry.lost_on.contains(&drive) {
                    entry.lost_on.push(drive);
                }
                // A drive that was reset has lost them all: one is news, thousands are noise.
                let told = self.told.insert(drive, now);
                let news = told.is_none_or(|told| now.since(told) > self.settings.timing.lease);
                let (level, others) = match news {
                    true => (log::Level::Warn, "; other locks may be, too"),
                    false => (log::Level::Debug, ""),
                };
                log::log!(
                    level,
                    "{label}: no longer held on {}, which was reset or gave it to another \
                     host{others}",
                    self.drives.name(drive)
                );
            }
            Notice::DriveGained { drive } => {
                // Of a lock that has just been taken, the last drives often come later.
                if let Some(at) = entry.lost_on.iter().position(|&lost| lost == drive) {
                    entry.lost_on.swap_remove(at);
                    log::debug!("{label}: held on {} again", self.drives.name(drive));
                }
            }
            Notice::SplitVote => {
                log::debug!("{label}: another host got as many drives, trying again");
            }
            Notice::Collected { resource, drive } => log::info!(
                "removed the unused mutex {resource} from the full table of {}",
                self.drives.name(drive)
            ),
            Notice::NotIdm { drive } => self.drives.say_no_idm(drive),
        }
    }

    fn names_of(&self, members: &[Member]) -> String {
        let names: Vec<String> = members.iter().map(|m| self.drives.name(m.drive)).collect();
        names.join(", ")
    }

    /// A lock's engine panicked. Nobody knows what it holds, so it is neither granted nor freed
    /// until every lease that it may have has run out and every command has reached its drive.
    fn condemn(&mut self, entry: &mut Entry, panic: &(dyn Any + Send)) {
        let why = format!("internal error in {}: {}", entry.spec.label, text_of(panic));
        log::error!("{why}");
        entry.engine = None;
        let timing = &self.settings.timing;
        entry.forget_at = Some(clock::now() + timing.lease + timing.linger);
        self.lost(entry, why, LossKind::Internal);
    }

    /// A lockspace has lost a lock, or is about to: its VG must not be used any longer.
    fn fail(&mut self, failure: Failure) {
        let Failure { owner, why, until } = failure;
        let Some(vg) = owner.kill.clone() else {
            log::error!("{why}; commands that run under it must be repeated");
            return;
        };
        if owner.killed.swap(true, Ordering::AcqRel) {
            // The volume group was told of, and has as many of these lines as locks.
            log::debug!("{why}");
            return;
        }
        let mut words = (self.settings.kill_command)();
        words.push(vg.clone());
        // Before anything is said of it: the log may be slow.
        self.kill(owner.clone(), words.clone());
        log::error!(
            "{why}. Volume group {vg} gets no new locks; running \"{}\". Start it again with \
             \"vgchange --lock-start {vg}\" after \"lvmlockctl --drop {vg}\", when its drives answer",
            words.join(" ")
        );
        // Core can process kill and drop only when no lock call keeps it waiting.
        for entry in self.locks.values_mut() {
            entry.refuse_more();
        }
        self.metrics.killed();
        let (fencing, in_use) = (&self.settings.fencing, owner.in_use());
        let killing = Killing::new(&vg, &words, fencing, until, in_use, clock::now());
        self.killings.push((owner, killing));
    }

    /// Runs the kill command.
    fn kill(&self, owner: Arc<Owner>, words: Vec<String>) {
        let (mailbox, killed) = (self.mailbox.clone(), owner.clone());
        let run = kill::run(words, move |ended| {
            // After the reactor's end nobody is interested.
            let _ = mailbox.send(Message::KillEnded { owner: killed, ended });
        });
        if let Err(error) = run {
            let ended = kill::Ended::NotBegun(error);
            self.mailbox.send(Message::KillEnded { owner, ended });
        }
    }
}

impl Entry {
    /// Takes note of whether somebody relies on the lock. Memberships are nobody's.
    fn set_in_use(&mut self, in_use: bool) {
        let in_use = in_use && self.spec.role != Role::Membership;
        if core::mem::replace(&mut self.in_use, in_use) != in_use {
            self.spec.owner.count_in_use(in_use);
        }
    }

    /// Until when the lock is safe, if it protects a volume group that is in use. What is lost is
    /// not safe at all.
    fn guard(&self) -> Option<Instant> {
        let guarded = self.in_use && self.spec.owner.kill.is_some();
        guarded.then(|| self.safe_until().unwrap_or_default())
    }

    /// How the lock is held; `None` where other hosts may have it by now.
    fn safe_mode(&self, now: Instant) -> Option<Mode> {
        self.safe_until().filter(|&until| now < until)?;
        self.engine.as_ref()?.mode()
    }

    fn next_command(&mut self, now: Instant) -> Option<Command> {
        self.engine.as_mut()?.next_command(now)
    }

    fn safe_until(&self) -> Option<Instant> {
        self.engine.as_ref()?.safe_until()
    }

    /// Whether somebody waits for what becomes of the lock.
    fn is_awaited(&self) -> bool {
        self.current.is_some() || self.settle.is_some()
    }

    /// Whether nothing is left of the lock, here or on any drive.
    fn is_finished(&self) -> bool {
        // A lock with a value knows its drives; a new one would have to read them all again.
        if self.in_use || self.engine.is_some() && self.spec.role.keeps_value() {
            return false;
        }
        let idle = match &self.engine {
            Some(engine) => engine.is_idle(),
            None => self.forget_at.is_none(),
        };
        idle && self.current.is_none() && self.waiting.is_empty() && !self.joined
    }

    fn on_reply(&mut self, token: Token, reply: Reply, now: Instant) {
        let at = self.outstanding.iter().position(|outstanding| outstanding.token == token);
        let answered = at.map(|at| self.outstanding.swap_remove(at));
        if let Some(engine) = &mut self.engine {
            engine.on_reply(token, reply, now);
        }
        if let Some(outstanding) = answered.filter(|answered| answered.unlock) {
            if let Some(settle) = &mut self.settle {
                settle.drives.remove(&outstanding.drive);
            }
            self.end_settle_if_done();
        }
    }

    fn begin(&mut self, request: Request, mut pending: Pending, now: Instant) {
        let Some(engine) = &mut self.engine else {
            self.waiting.push_front((request, pending));
            return;
        };
        if pending.kind.wants_more() && pending.is_killed() {
            return pending.answer(Answer::Killed);
        }
        let members = match &request {
            Request::Acquire { members, .. } | Request::Adopt { members, .. } => {
                Some(members.clone())
            }
            _ => None,
        };
        let acquires = matches!(pending.kind, Kind::Acquire | Kind::Adopt);
        let before = self.spec.clone();
        if let Some(spec) = pending.spec.take().filter(|_| acquires) {
            self.spec = spec;
        }
        // Before the engine is called: if it panics, it must be known who waits, and for whom.
        self.current = Some(pending);
        if let Err(error) = engine.request(request, now) {
            let answer = match error {
                RequestError::WrongState if acquires => Answer::InUse,
                _ => Answer::Failed(format!("{}: {error:?}", self.spec.label)),
            };
            self.spec = before;
            if let Some(mut pending) = self.current.take() {
                pending.answer(answer);
            }
            return;
        }
        if members.is_some() {
            self.lost_on.clear();
        }
        self.members = members.unwrap_or_else(|| core::mem::take(&mut self.members));
        // The lock moves on: whoever waits for an earlier release has waited enough.
        self.end_settle();
    }

    /// Takes a membership again.
    fn rejoin(&mut self) {
        let request = Request::Acquire {
            mode: Mode::Shared,
            members: self.members.clone(),
            witnesses: Vec::new(),
        };
        self.waiting.push_back((request, internal(Kind::Acquire)));
    }

    /// Answers a release when more than half of the drives that hold something have taken it: the
    /// next host to ask then gets a majority.
    fn settle(&mut self, mut pending: Pending) {
        let drives: HashSet<DriveRef> = self.outstanding.iter().map(|out| out.drive).collect();
        match pending.waiter.take() {
            Some(waiter) if !drives.is_empty() => {
                // A membership is given up on the way out: who counts hosts reads any majority, and
                // nobody is left to follow up if the process ends.
                let all = self.spec.role == Role::Membership;
                let allowed = if all { 0 } else { (drives.len() - 1) / 2 };
                self.settle = Some(Settle { waiter, drives, allowed });
            }
            Some(waiter) => drop(waiter.send(Answer::Done(Outcome::Released))),
            None => {}
        }
    }

    fn end_settle_if_done(&mut self) {
        let done = |settle: &Settle| settle.drives.len() <= settle.allowed;
        if self.settle.as_ref().is_some_and(done) {
            self.end_settle();
        }
    }

    fn end_settle(&mut self) {
        if let Some(settle) = self.settle.take() {
            let _ = settle.waiter.send(Answer::Done(Outcome::Released));
        }
    }

    /// Answers whoever waits for the lock for a killed lockspace; what is under way is undone when
    /// it ends.
    fn refuse_more(&mut self) {
        if let Some(current) = &mut self.current {
            if current.kind.wants_more() && self.spec.owner.is_killed() {
                current.answer(Answer::Killed);
                current.abandoned = true;
            }
        }
        self.waiting.retain_mut(|(_, waiting)| {
            let refused = waiting.kind.wants_more() && waiting.is_killed();
            if refused {
                waiting.answer(Answer::Killed);
            }
            !refused
        });
    }
}

/// Answers everybody who waits for a lock whose engine panicked.
fn refuse_all(entry: &mut Entry) {
    entry.outstanding.clear();
    entry.joined = false;
    entry.end_settle();
    let waiting = core::mem::take(&mut entry.waiting);
    let current = entry.current.take();
    for mut pending in current.into_iter().chain(waiting.into_iter().map(|(_, p)| p)) {
        let answer = match pending.kind {
            // Core must never see an unlock fail; the lock is not handed out again.
            Kind::Release => Answer::Done(Outcome::Released),
            _ => Answer::Failed(format!("{}: internal error, see the log", entry.spec.label)),
        };
        pending.answer(answer);
    }
}

/// A request of the reactor's own.
fn internal(kind: Kind) -> Pending {
    Pending { id: u64::MAX, kind, spec: None, waiter: None, abandoned: false }
}

fn release() -> (Request, Pending) {
    (Request::Release { value: None }, internal(Kind::Release))
}

fn demote() -> (Request, Pending) {
    let request = Request::Convert { mode: Mode::Shared, value: None };
    (request, internal(Kind::Convert(Mode::Shared)))
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}
