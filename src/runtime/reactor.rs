//! The reactor: owns all locks, their timers and their waiting requests.
//!
//! This file has its loop and the step of a lock. `entry` has one lock, `events` the events of its
//! engine, and `losses` the handling of its loss.

mod entry;
mod events;
mod heard;
mod losses;
mod message;
mod moving;
mod taking;

use super::engine::MakeEngine;
use super::settings::Settings;
use crate::drives::Drives;
use crate::drives::queue::{ReplyHandler, Urgency};
use crate::fencing::kill::Killing;
use crate::fencing::safe_note;
use crate::fencing::watchdog::guards::VgGuards;
use crate::lock::{LockSpec, Owner, RequestResult, membership_of, role_of, same_drives, vg_of};
use crate::metrics::Metrics;
use crate::state::undo_note::Undone;
use crate::sys::clock;
use crate::sys::mailbox::Mailbox;
use crate::sys::sync::mpsc::Sender;
use crate::sys::sync::planted;
use crate::sys::thread::panic_text;
use core::cmp::Reverse;
use core::time::Duration;
use entry::{Entry, Pending, PendingKind};
use idm_engine::{Command, DriveRef, Instant, LockConfig, Member, Outcome, Request, Token, Undoes};
use idm_protocol::{DriveCommand, Reply, ResourceId, Status};
use message::LockFailure;
pub(super) use message::Message;
use moving::Moving;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Longest sleep while there are no locks. With locks it is [`Fencing::notice`]: the mailbox waits
/// on a clock that stands still while the host is suspended, so after a resume the leases are
/// checked within this time.
///
/// [`Fencing::notice`]: crate::fencing::Fencing::notice
const SLEEP: Duration = Duration::from_secs(3600);
/// Shortest sleep: a deadline that stays in the past must not become a busy loop.
const TICK: Duration = Duration::from_millis(1);
/// Messages that are handled before timers are checked again.
const BATCH: usize = 256;
/// Number of moments per lease at which timers run that no caller waits for (every 100 ms for a
/// lease of 60 s). So the reactor and the workers wake once for many refreshes. A refresh may be
/// late by that much, and no lease becomes longer by it: a lease counts from the time when its
/// command was sent.
const MOMENTS: u32 = 600;
/// Leases after which a drive that cannot be reached is forgotten, unless it was used meanwhile. A
/// held lock uses each of its drives several times in a lease.
const UNUSED_LEASES: u32 = 4;

pub struct Reactor {
    mailbox: Arc<Mailbox<Message>>,
    /// Messages taken from the mailbox and not handled yet.
    messages: VecDeque<Message>,
    /// Whether commands were submitted in this turn that are still to be started.
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
    /// Locks that were lost in this step or are about to be.
    failures: Vec<LockFailure>,
    /// Lockspaces that lost their locks and still have some in use.
    killings: Vec<(Arc<Owner>, Killing)>,
    /// Time at which a drive last lost a lock.
    told: HashMap<DriveRef, Instant>,
    /// Callers that wait until all drives have answered.
    draining: Vec<Sender<()>>,
    moving: Moving,
    /// Dates until which the locks in use are safe.
    guards: VgGuards,
    /// Dates that were last passed on.
    guarded: safe_note::Dates,
}

/// An input of a lock.
enum Input {
    Begin,
    Spread(Vec<Member>),
    MoveVotes(Vec<DriveRef>, Sender<bool>),
    Reply(Token, Reply),
    Timer,
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
            moving: Moving::default(),
            guards: VgGuards::default(),
            guarded: safe_note::Dates::new(),
        }
    }

    pub fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(panic) => log::error!("internal error in the reactor: {}", panic_text(&*panic)),
            }
        }
        if !planted!(EndUnclosed) {
            self.mailbox.close();
        }
    }

    /// Waits for work and does it. Returns `false` at the end.
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
        if !self.draining.is_empty() && self.locks.values().all(|it| it.is_answered()) {
            let is_leaving = self.settings.reservations.as_ref().is_some_and(|it| it.is_leaving());
            let settled = !is_leaving && self.locks.values().all(|it| it.is_settled());
            if let Some(note) = self.settings.undo_note.as_mut().filter(|_| settled) {
                note.settle();
            }
            self.draining.clear();
        }
        true
    }

    /// Passes on the dates until which the locks in use are safe.
    fn guard(&mut self) {
        let changed = self.guards.changed_firsts();
        if let Some(firsts) = changed.filter(|firsts| *firsts != self.guarded) {
            let first = firsts.values().min().copied();
            self.metrics.safe_until(first);
            if let Some(watchdog) = &self.settings.watchdog {
                watchdog.protect(first);
            }
            if let Some(note) = &self.settings.note {
                note.protect(firsts.clone());
            }
            self.guarded = firsts;
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
            Message::AwaitMoves { vg, waiter } => {
                self.moving.wait(&vg, &waiter, self.settings.timing.patience);
            }
            Message::Moving { vg, waiter } => drop(waiter.send(self.moving.locks(&vg))),
            Message::VotesReady { resource, waiter } => {
                let entry = self.names.get(&resource).and_then(|id| self.locks.get(id));
                let _ = waiter.send(entry.and_then(|entry| entry.ready.clone()));
            }
            Message::MoveVotes { resource, drives, waiter } => match self.names.get(&resource) {
                Some(&lock) => self.step(lock, Input::MoveVotes(drives, waiter)),
                None => drop(waiter.send(false)),
            },
            Message::Own { spec } => {
                if let Some(&lock) = self.names.get(&spec.resource) {
                    if let Some(entry) = self.locks.get_mut(&lock) {
                        entry.own(spec);
                    }
                    // The new owner may have to be warned.
                    self.step(lock, Input::Timer);
                }
            }
            Message::Fail { owner, why, until } => self.fail(LockFailure { owner, why, until }),
            Message::Mode { resource, waiter } => {
                let entry = self.names.get(&resource).and_then(|id| self.locks.get(id));
                let _ = waiter.send(entry.and_then(|entry| entry.safe_mode(clock::now())));
            }
            Message::SafeUntil { group, waiter } => drop(waiter.send(self.safe_until(&group))),
            Message::NoteUndoing { undone, waiter } => drop(waiter.send(self.may_undo(undone))),
            Message::Cleared { lock, token, cleared } => self.cleared(lock, token, cleared),
            Message::Reply { lock, token, reply } => self.step(lock, Input::Reply(token, reply)),
            Message::Drain(waiter) => {
                if !planted!(DrainAtOnce) {
                    self.draining.push(waiter);
                }
            }
            Message::KillEnded { owner, ended } => self.kill_ended(&owner, &ended),
            Message::Stop => return false,
        }
        true
    }

    /// The earliest time until which the locks of a volume group are safe that this host holds or
    /// uses, with its membership. A lost lock that is in use is not safe at any time.
    fn safe_until(&self, group: &ResourceId) -> Option<Instant> {
        let membership = self.names.get(&membership_of(group)).and_then(|id| self.locks.get(id))?;
        let counts = |entry: &Entry| {
            let is_held = entry.engine.as_ref().is_some_and(|engine| engine.mode().is_some());
            vg_of(&entry.spec.resource) == *group && (entry.is_in_use() || is_held)
        };
        let locks = self.locks.values().filter(|entry| counts(entry));
        let dates = locks.map(|entry| entry.safe_until().unwrap_or_default());
        Some(dates.fold(membership.safe_until()?, Instant::min))
    }

    fn spread(&mut self, resources: &[ResourceId], drives: &[Member]) {
        for resource in resources {
            let Some(&lock) = self.names.get(resource) else { continue };
            // Most locks are on all of their VG's drives, and there may be thousands.
            let is_there = |entry: &Entry| {
                let awaits = entry.engine.as_ref().is_some_and(|engine| engine.awaits_drives());
                !awaits && !entry.spread && same_drives(&entry.members, drives)
            };
            if !self.locks.get(&lock).is_some_and(|entry| is_there(entry)) {
                self.step(lock, Input::Spread(drives.to_vec()));
                if let Some(entry) = self.locks.get(&lock) {
                    self.moving.add(entry, drives);
                }
            }
        }
    }

    /// Runs the timers that are due.
    fn fire(&mut self, now: Instant) {
        let mut due = Vec::new();
        while let Some(Reverse((at, lock))) = self.timers.peek().copied().filter(|t| t.0.0 <= now) {
            self.timers.pop();
            // A lock whose timer has changed since then has another entry.
            if let Some(entry) = self.locks.get_mut(&lock).filter(|e| e.timer == Some(at)) {
                entry.timer = None;
                due.push(lock);
            }
        }
        for lock in due {
            self.step(lock, Input::Timer);
        }
        if now >= self.next_sweep {
            // Commands that have waited so long for a drive that hangs are useless: the lock has
            // moved on, and so late a refresh would be sent anew anyway.
            self.drives.expire(now - self.settings.fencing.margin, now);
            let unused = now - self.settings.timing.lease * UNUSED_LEASES;
            self.drives.forget(unused);
            self.told.retain(|_, told| *told >= unused);
            self.next_sweep = now + self.settings.fencing.notice / 2;
        }
        self.remind(now);
    }

    fn request(
        &mut self,
        spec: LockSpec,
        request: Request,
        id: u64,
        waiter: Option<Sender<RequestResult>>,
    ) {
        let kind = PendingKind::of(&request);
        let mut pending = Pending { id, kind, spec: Some(spec.clone()), waiter, abandoned: false };
        let lock = match self.names.get(&spec.resource) {
            Some(&lock) => lock,
            None if kind == PendingKind::Release => {
                return pending.answer(RequestResult::Done(Outcome::Released));
            }
            None => self.create(&spec),
        };
        let Some(entry) = self.locks.get_mut(&lock) else {
            return pending.answer(RequestResult::Failed("internal error: no such lock".into()));
        };
        entry.add(request, pending);
        self.step(lock, Input::Begin);
    }

    fn create(&mut self, spec: &LockSpec) -> u64 {
        let lock = self.next_lock;
        self.next_lock += 1;
        let mut config = LockConfig::new(
            spec.resource,
            self.settings.host,
            spec.role.keeps_value(),
            self.settings.timing,
            self.seed.wrapping_add(lock),
        );
        config.earlier_until = self.settings.earlier.undoing.of(spec.role);
        config.earlier_shares_until = self.settings.earlier.undoing.exclusive;
        config.earlier_writes_until = self.settings.earlier.writes_until;
        self.names.insert(spec.resource, lock);
        let entry = Entry::new(spec.clone(), (self.make)(config));
        self.locks.insert(lock, Box::new(entry));
        lock
    }

    fn abandon(&mut self, resource: ResourceId, id: u64) {
        let Some(&lock) = self.names.get(&resource) else {
            return;
        };
        let Some(entry) = self.locks.get_mut(&lock) else {
            return;
        };
        entry.abandon(id);
        self.step(lock, Input::Begin);
    }

    /// Passes an input to one lock, and handles all of its outputs.
    fn step(&mut self, lock: u64, input: Input) {
        let Some(mut entry) = self.locks.remove(&lock) else {
            return;
        };
        let advanced = catch_unwind(AssertUnwindSafe(|| self.advance(lock, &mut entry, input)));
        if let Err(panic) = advanced {
            self.condemn(&mut entry, &*panic);
        }
        // Done before any caller is answered, so that none goes on without knowing of the loss.
        for failure in core::mem::take(&mut self.failures) {
            self.fail(failure);
        }
        if entry.engine.is_none() {
            entry.refuse_all();
        } else {
            entry.refuse_more();
        }
        self.moving.note(&entry);
        // After a renewal in time, the lock may get into danger again, and may have another owner
        // by then.
        let is_safe = |entry: &Entry| {
            let safe = clock::now() + self.settings.fencing.margin;
            entry.safe_until().is_some_and(|until| until > safe)
        };
        if entry.is_alarmed() && (!entry.is_in_use() || is_safe(&entry)) {
            entry.set_alarmed(false);
        }
        // Most answers to refreshes do not change it.
        let guard = entry.guard();
        if core::mem::replace(&mut entry.guarded, guard) != guard {
            self.guards.set(vg_of(&entry.spec.resource), lock, guard);
        }
        let mode = entry.engine.as_ref().and_then(|engine| engine.mode());
        self.metrics.held(entry.spec.role, entry.counted, mode);
        entry.counted = mode;
        if entry.is_finished() {
            self.names.remove(&entry.spec.resource);
        } else {
            // A held lock does not need the memory of its requests.
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
                entry.spread |= !same_drives(&entry.members, &drives);
                // The engine names drives that are ready once, also if they are named again.
                let drives_of = |ready: &Vec<DriveRef>| {
                    ready.len() == drives.len() && drives.iter().all(|d| ready.contains(&d.drive))
                };
                entry.ready = entry.ready.take().filter(drives_of);
                if let Some(engine) = &mut entry.engine {
                    engine.spread(&drives, now);
                }
            }
            Input::MoveVotes(drives, waiter) => {
                let moved = self.move_votes(entry, &drives, now);
                // The caller waits for it.
                let _ = waiter.send(moved);
            }
            Input::Reply(token, reply) => entry.on_reply(token, reply, now),
            Input::Timer => self.on_timer(entry, now),
        }
        loop {
            while let Some(command) = entry.next_command(now) {
                self.send(lock, entry, command, now);
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

    /// Lets drives that are ready vote for a lock.
    fn move_votes(&mut self, entry: &mut Entry, drives: &[DriveRef], now: Instant) -> bool {
        entry.ready = None;
        let moved = entry.engine.as_mut().is_some_and(|engine| engine.move_votes(drives, now));
        if moved {
            let member = |&drive: &DriveRef| {
                let identity = self.drives.identity(drive).into_bytes();
                Member { drive, identity }
            };
            entry.members = drives.iter().map(member).collect();
            let spec = &entry.spec;
            log::info!("{spec}: its drives are now {}", self.names_of(&entry.members));
        }
        moved
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
        self.alarm(entry, now);
    }

    fn schedule(&mut self, lock: u64, entry: &mut Entry) {
        let deadline = entry.engine.as_ref().and_then(|engine| engine.next_deadline());
        let awaited = entry.is_awaited();
        let engine = deadline.map(|at| if awaited { at } else { self.moment(at) });
        let never = Instant::from_micros(u64::MAX);
        // Not by flatten and min: the compiled code would compare a value before it checks that
        // there is one, which valgrind reports as an error.
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

    /// Whether a command that undoes this may be handed out: the next lvmlockd must know of it, or
    /// have no note at all.
    fn may_undo(&mut self, undone: Undone) -> bool {
        let note = self.settings.undo_note.as_mut();
        note.is_none_or(|note| note.cover(undone, clock::now()))
    }

    /// What a command undoes.
    fn undone(command: &DriveCommand, undoes: Undoes) -> Option<Undone> {
        let DriveCommand::Mutex(_, record) = command else { return None };
        Undone::of(role_of(&record.resource), undoes)
    }

    fn send(&mut self, lock: u64, entry: &mut Entry, command: Command, now: Instant) {
        let Command { token, drive, command, undoes } = command;
        let tracks = self.settings.reservations.is_some();
        entry.sent((token, drive), &command, now, tracks);
        if Self::undone(&command, undoes).is_some_and(|undone| !self.may_undo(undone)) {
            let reply = Reply::Status(Status::Unreachable);
            // After the reactor's end there is no receiver.
            self.mailbox.send(Message::Reply { lock, token, reply });
            return;
        }
        let command = match self.hold_back(lock, entry, token, drive, command, now) {
            Some(command) => command,
            None => return,
        };
        self.submit(lock, entry.is_awaited(), (token, drive, command), now);
    }

    /// Passes a command that was handed out at `begun` to its drive.
    fn submit(
        &mut self,
        lock: u64,
        is_awaited: bool,
        (token, drive, command): (Token, DriveRef, DriveCommand),
        begun: Instant,
    ) {
        let mailbox = self.mailbox.clone();
        let urgency = if is_awaited { Urgency::Awaited } else { Urgency::Background };
        let done = ReplyHandler::in_a_row(move |reply, more| {
            let message = Message::Reply { lock, token, reply };
            let leave = more && urgency == Urgency::Background;
            // After the reactor's end there is no receiver.
            let _ = if leave { mailbox.leave(message) } else { mailbox.send(message) };
        });
        self.begun |= urgency == Urgency::Background;
        self.drives.submit_since(begun, drive, command, urgency, done);
    }
}
