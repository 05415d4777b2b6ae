//! The state machine of one lock: what the drives' answers add up to.
//!
//! Every entry point does the same three things: look whether the lease has run out, take in what
//! is new, and draw the conclusions of the phase that the lock is in. What happens on a single
//! drive is in `seat.rs`, `take.rs` and `clean.rs`.

use crate::api::{
    Command, Conflict, Event, Fingerprint, Instant, LockConfig, Loss, Member, Notice, Outcome,
    Refusal, Request, RequestError, Token, ValueRead,
};
use crate::rng::Rng;
use crate::rules::{Rules, broken};
use crate::seat::{Clean, Flight, Heard, Hold, Look, Role, Seat, Step, Task, Vote};
use crate::stamp::{CLEARING, Stamp};
use crate::take::TakeContext;
use crate::view::{View, unused};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;
use idm_protocol::{
    Class, DriveCommand, Mode, MutexOp, Record, Reply, State, Status, Value, ValueUpdate,
};

/// Drives that a lock may have.
const MAX_DRIVES: usize = 512;
/// How often a request that split the drives with another host's is begun.
const ATTEMPTS: u32 = 6;
/// The lease that is asked for a mutex that is only taken to be removed.
const CLEARING_LEASE_MS: u64 = 1000;
/// The first pause before a refresh that failed is sent again.
const REFRESH_PAUSE: Duration = Duration::from_millis(250);

/// What a lock is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Not held. Drives may still have to be told.
    Free,
    /// A request to acquire is under way.
    Acquiring(Acquiring),
    /// Held.
    Held(Held),
    /// Lost, and not released yet.
    Lost,
}

impl Phase {
    fn is_held(&self) -> bool {
        matches!(self, Phase::Held(_))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Acquiring {
    mode: Mode,
    /// When the request is refused for want of answers.
    deadline: Instant,
    attempt: u32,
    stage: Stage,
}

/// Why the value on the drives may not be what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Distrust {
    None,
    /// Others share the lock; one of them may have changed it.
    Shared,
    /// Its last exclusive holder died.
    Died,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The members are asked.
    Voting,
    /// There is a majority; values and witnesses are read, until then at most.
    Reading(Instant),
    /// The drives were split with another host: the next attempt begins then.
    BackingOff(Instant),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    mode: Mode,
    /// Since when other hosts may break the lock, where that has been so.
    lapsed: Option<Instant>,
    change: Option<Change>,
}

/// A conversion that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Change {
    Up { deadline: Instant, stage: Stage },
    Down { deadline: Instant },
}

/// What the members' votes add up to.
struct Tally {
    members: usize,
    needed: usize,
    won: usize,
    asking: usize,
    full: usize,
    blocked: Vec<Vec<Conflict>>,
}

impl Tally {
    /// Whether somebody stands in the way who may count other drives, so that our majority says
    /// nothing about him. Who could not be read is such a one.
    fn foreign(&self) -> bool {
        self.blocked.iter().any(|b| b.is_empty() || b.iter().any(|c| !c.same_set))
    }

    /// Whether no other host can have a majority: everybody took some drives.
    fn split(&self) -> bool {
        let silent = self.members - self.won - self.blocked.len();
        let holders = self.blocked.iter().flatten().map(|c| c.host);
        !self.blocked.is_empty()
            && holders.into_iter().all(|host| {
                let has = self.blocked.iter().filter(|b| b.iter().any(|c| c.host == host)).count();
                has + silent < self.needed
            })
    }

    fn refusal(&self) -> Refusal {
        if !self.blocked.is_empty() {
            return Refusal::Held(self.blocked.iter().flatten().copied().collect());
        }
        if self.won + self.full >= self.needed {
            return Refusal::Full;
        }
        Refusal::NoQuorum { granted: self.won, needed: self.needed }
    }
}

/// One host's side of one lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    config: LockConfig,
    rules: Rules,
    phase: Phase,
    seats: Vec<Seat>,
    /// What our records say about this acquisition.
    stamp: Stamp,
    has_witnesses: bool,
    /// Whether the value on the drives is what its last holder would have left. If not, it is
    /// removed with the lock, unless a new one is written.
    distrust: Distrust,
    /// A value that was published by a change to shared. Nothing that a REFRESH carries is certain
    /// to be stored, so the UNLOCK has to carry it again.
    pending: Option<Value>,
    /// Drives that have yet to store the value of the last release, to make a majority.
    owed: usize,
    /// When a drive was last found to have lost our lock. No drive is taken again before a
    /// keep-quorum of the others has said afterwards that the lock is still ours.
    shaken_at: Instant,
    rng: Rng,
    events: VecDeque<Event>,
    last_token: u64,
}

impl Lock {
    /// A lock that is not held.
    pub fn new(config: LockConfig) -> Lock {
        Lock {
            rng: Rng::new(config.seed),
            rules: Rules {
                #[cfg(feature = "broken-rules")]
                broken: config.broken,
            },
            config,
            phase: Phase::Free,
            seats: Vec::new(),
            stamp: Stamp { fingerprint: Fingerprint([0; 16]), acquisition: 0 },
            has_witnesses: false,
            distrust: Distrust::None,
            pending: None,
            owed: 0,
            shaken_at: Instant::default(),
            events: VecDeque::new(),
            last_token: 0,
        }
    }

    /// What does not change in this lock's life.
    pub fn config(&self) -> &LockConfig {
        &self.config
    }

    /// Begins a request. Its end is told by [`Event::Done`], possibly before this returns.
    pub fn request(&mut self, request: Request, now: Instant) -> Result<(), RequestError> {
        self.notice_lapse(now);
        let busy = match &self.phase {
            Phase::Acquiring(_) => true,
            Phase::Held(held) => held.change.is_some(),
            Phase::Free | Phase::Lost => false,
        };
        if busy {
            return Err(RequestError::Busy);
        }
        match (request, &self.phase) {
            (Request::Acquire { mode, members, witnesses }, Phase::Free) => {
                self.seat_drives(&members, &witnesses, now)?;
                // A value that is still on its way to a majority would be lost by the new
                // acquisition: the old one there must not be believed then.
                let storing = |s: &Seat| matches!(&s.task, Task::Clean(c) if c.store.is_some());
                let owing = self.owed > 0 && self.seats.iter().any(storing);
                self.distrust = if owing { Distrust::Died } else { Distrust::None };
                self.pending = None;
                self.shaken_at = Instant::default();
                let deadline = now + self.config.timing.patience;
                let stage = Stage::Voting;
                self.phase = Phase::Acquiring(Acquiring { mode, deadline, attempt: 1, stage });
                self.ask_members(mode, now);
            }
            (Request::Convert { mode, value }, Phase::Held(held)) => {
                self.convert(held.mode, mode, value, now);
            }
            (Request::Release { value }, _) => self.release(value, now),
            _ => return Err(RequestError::WrongState),
        }
        self.conclude(now);
        Ok(())
    }

    /// Puts the lock, while it is held, on more drives than those that vote, so that a host that
    /// counts other drives meets it there. Without effect while it is not held.
    pub fn spread(&mut self, drives: &[Member], now: Instant) {
        self.notice_lapse(now);
        let Phase::Held(Held { mode, lapsed: None, .. }) = self.phase else {
            return;
        };
        for member in drives {
            let seat = self.seat(member.drive);
            if matches!(seat.role, Role::Witness | Role::Former) {
                seat.role = Role::Extra;
                if matches!(seat.task, Task::Idle | Task::Clean(_)) {
                    seat.start_take(mode, now);
                }
            }
        }
    }

    /// The answer to a command. Unknown tokens are ignored.
    pub fn on_reply(&mut self, token: Token, reply: Reply, now: Instant) {
        self.notice_lapse(now);
        let at =
            self.seats.iter().position(|s| s.flight.as_ref().is_some_and(|f| f.token == token));
        let Some(at) = at else { return };
        let Some(flight) = self.seats[at].flight.take() else {
            return;
        };
        let heard = self.hear(&flight, reply, self.seats[at].drive);
        self.seats[at].absorb(&flight, &heard, now, &self.config.timing, self.rules);
        self.note_not_idm(at, &heard);
        if flight.epoch == self.seats[at].epoch {
            self.advance(at, &flight, heard, now);
        } else {
            self.review(at, &heard, now);
        }
        self.conclude(now);
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant) {
        self.notice_lapse(now);
        self.conclude(now);
    }

    /// The next command to send.
    pub fn next_command(&mut self, now: Instant) -> Option<Command> {
        let stands = self.stands();
        let ready = |s: &Seat| self.ready_at(s, stands).is_some_and(|at| at <= now);
        let at = self.seats.iter().position(ready)?;
        let step = self.seats[at].plan.take()?.step;
        let command = self.encode(step, &self.seats[at]);
        self.last_token += 1;
        let token = Token(self.last_token);
        let seat = &mut self.seats[at];
        seat.flight = Some(Flight { token, step, sent: now, epoch: seat.epoch });
        Some(Command { token, drive: seat.drive, command })
    }

    /// When [`on_timer`](Lock::on_timer) wants to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stands = self.stands();
        let seats = self.seats.iter().filter_map(|s| self.ready_at(s, stands));
        let stage_end = |deadline: Instant, stage: Stage| match stage {
            Stage::Voting => deadline,
            Stage::Reading(until) => deadline.min(until),
            Stage::BackingOff(until) => until,
        };
        let phase = match &self.phase {
            Phase::Free => {
                let idle = self.seats.iter().filter(|s| s.plan.is_none() && s.flight.is_none());
                idle.map(Seat::settled_at).min()
            }
            Phase::Acquiring(acquiring) => Some(stage_end(acquiring.deadline, acquiring.stage)),
            Phase::Held(held) => {
                let change = held.change.map(|change| match change {
                    Change::Up { deadline, stage } => stage_end(deadline, stage),
                    Change::Down { deadline } => deadline,
                });
                let lapse = if held.lapsed.is_none() { self.bound(held.mode) } else { None };
                change.into_iter().chain(lapse).min()
            }
            Phase::Lost => None,
        };
        seats.chain(phase).min()
    }

    /// What happened, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How the lock is held; `None` where it is not held, or lost. A lapsed lock still has its
    /// mode: look at [`safe_until`](Lock::safe_until).
    pub fn mode(&self) -> Option<Mode> {
        match &self.phase {
            Phase::Held(held) => Some(held.mode),
            _ => None,
        }
    }

    /// Until when no other host can have the lock in a conflicting mode, whatever happens to the
    /// drives' answers from now on. `None` where the lock is not held.
    pub fn safe_until(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Held(Held { lapsed: Some(at), .. }) => Some(*at),
            Phase::Held(held) => self.bound(held.mode),
            _ => None,
        }
    }

    /// Whether the lock is not held and nothing is left to be done on any drive, so that it can
    /// be dropped.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Free && self.seats.is_empty()
    }

    /// The drives that hold the lock, with the mode that each has.
    pub fn held_on(&self) -> impl Iterator<Item = (crate::DriveRef, Mode)> + '_ {
        self.seats.iter().filter_map(|seat| match seat.hold {
            Hold::Held { mode, .. } => Some((seat.drive, mode)),
            _ => None,
        })
    }

    // ---- drives ------------------------------------------------------------------------------

    /// Gives every drive of a new acquisition its role.
    fn seat_drives(
        &mut self,
        members: &[Member],
        witnesses: &[Member],
        now: Instant,
    ) -> Result<(), RequestError> {
        let mut drives: Vec<_> = members.iter().chain(witnesses).map(|m| m.drive).collect();
        drives.sort_unstable();
        let twice = drives.windows(2).any(|pair| pair[0] == pair[1]);
        if members.is_empty() || members.len() > MAX_DRIVES || twice {
            return Err(RequestError::BadDrives);
        }
        self.prune(now);
        for seat in &mut self.seats {
            seat.role = Role::Former;
            seat.foreign = None;
            seat.missed = false;
        }
        for (list, role) in [(members, Role::Member), (witnesses, Role::Witness)] {
            for member in list {
                self.seat(member.drive).role = role;
            }
        }
        self.stamp = Stamp { fingerprint: Fingerprint::of(members), acquisition: self.rng.next() };
        self.has_witnesses = !witnesses.is_empty();
        Ok(())
    }

    /// The seat of a drive, made where there is none.
    fn seat(&mut self, drive: crate::DriveRef) -> &mut Seat {
        let at = self.seats.iter().position(|s| s.drive == drive).unwrap_or_else(|| {
            self.seats.push(Seat::new(drive, Role::Former));
            self.seats.len() - 1
        });
        &mut self.seats[at]
    }

    /// Drops the seats that have nothing left to do or to remember.
    fn prune(&mut self, now: Instant) {
        self.seats.retain(|s| s.flight.is_some() || s.task != Task::Idle || s.settled_at() > now);
    }

    fn members(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|s| s.role == Role::Member)
    }

    fn member_count(&self) -> usize {
        self.members().count()
    }

    /// When a seat's next command may be sent. While a held lock is shaken, nothing is added to it.
    fn ready_at(&self, seat: &Seat, stands: bool) -> Option<Instant> {
        seat.ready_at(self.rules).filter(|_| stands || !seat.is_enlarging())
    }

    /// Whether a keep-quorum of the drives has said that the lock is ours since one was last found
    /// to have lost it. Trivially so while the lock is being acquired.
    fn stands(&self) -> bool {
        let Phase::Held(held) = &self.phase else { return true };
        let since = self.shaken_at;
        let sure = self
            .members()
            .filter(|s| s.counts(held.mode, self.rules))
            .filter(|s| matches!(s.hold, Hold::Held { since: at, .. } if at >= since))
            .count();
        sure >= self.rules.keep_quorum(self.member_count())
            || broken!(self.rules, RetakeOnlyWhileSafe)
    }

    // ---- commands and replies ----------------------------------------------------------------

    fn encode(&self, step: Step, seat: &Seat) -> DriveCommand {
        let (op, mode, resource) = match step {
            Step::Look(_) => return DriveCommand::ReadTable,
            Step::Try(mode) => (MutexOp::Trylock, mode, self.config.resource),
            Step::Refresh(mode) => (MutexOp::Refresh, mode, self.config.resource),
            Step::Break(mode) => (MutexOp::Break, mode, self.config.resource),
            Step::Unlock(mode) => (MutexOp::Unlock, mode, self.config.resource),
            Step::Destroy => (MutexOp::Destroy, Mode::Exclusive, self.config.resource),
            Step::ClearTry(id) => (MutexOp::Trylock, Mode::Exclusive, id),
            Step::ClearBreak(id) => (MutexOp::Break, Mode::Exclusive, id),
            Step::ClearUnlock(id) => (MutexOp::Unlock, Mode::Exclusive, id),
            Step::ClearDestroy(id) => (MutexOp::Destroy, Mode::Exclusive, id),
        };
        let countdown_ms = match step {
            Step::Try(_) | Step::Refresh(_) | Step::Break(_) => {
                self.config.timing.lease.as_millis() as u64
            }
            Step::ClearTry(_) | Step::ClearBreak(_) => CLEARING_LEASE_MS,
            _ => 0,
        };
        let store = match (step, &seat.task) {
            (Step::Unlock(_), Task::Clean(clean)) => clean.store,
            (Step::Refresh(Mode::Shared), Task::Keep) => self.pending,
            _ => None,
        };
        let record = Record {
            state: State::Uninitialized,
            modified_ms: 0,
            countdown_ms,
            class: Class::from(mode),
            value_update: if store.is_some() { ValueUpdate::Store } else { ValueUpdate::Keep },
            value: store.unwrap_or(Value::ZERO),
            resource,
            metadata: if resource == self.config.resource {
                self.stamp.to_metadata()
            } else {
                CLEARING
            },
            host: self.config.host,
        };
        DriveCommand::Mutex(op, record)
    }

    /// A reply in the engine's own terms. An answer of the wrong kind is nonsense.
    fn hear(&self, flight: &Flight, reply: Reply, drive: crate::DriveRef) -> Heard {
        match (flight.step, reply) {
            (Step::Look(look), Reply::Table(table)) => {
                let me = self.config.host;
                let view = View::of(&table, self.config.resource, me, self.stamp, drive);
                let unused = match look {
                    Look::Room => unused(&table, self.config.resource),
                    Look::Holders | Look::Value => Vec::new(),
                };
                Heard::Table(view, unused)
            }
            (Step::Look(_), Reply::Status(Status::Good)) | (_, Reply::Table(_)) => {
                Heard::Status(Status::Failed)
            }
            (_, Reply::Status(status)) => Heard::Status(status),
        }
    }

    fn note_not_idm(&mut self, at: usize, heard: &Heard) {
        let seat = &mut self.seats[at];
        if *heard == Heard::Status(Status::Unsupported) && !seat.not_idm {
            seat.not_idm = true;
            self.events.push_back(Event::Notice(Notice::NotIdm { drive: seat.drive }));
        }
    }

    /// What follows from a reply to the seat's present task.
    fn advance(&mut self, at: usize, flight: &Flight, heard: Heard, now: Instant) {
        let mut notices = Vec::new();
        let mut shared = false;
        let seat = &mut self.seats[at];
        let takes = matches!(seat.task, Task::Take(_));
        let adds = seat.is_enlarging() && self.phase.is_held();
        match seat.task {
            Task::Idle => {}
            Task::Keep => self.advance_keep(at, &heard, now),
            Task::Clean(ref clean) => {
                let status = match heard {
                    Heard::Status(status) => status,
                    Heard::Table(..) => Status::Failed,
                };
                let stores = flight.step == Step::Unlock(Mode::Exclusive) && clean.store.is_some();
                if stores && seat.role == Role::Member && status == Status::Good {
                    self.owed = self.owed.saturating_sub(1);
                }
                seat.advance_clean(flight.step, status, now, &self.config.timing);
            }
            Task::Take(_) => {
                let mut cx = TakeContext {
                    now,
                    timing: &self.config.timing,
                    rules: self.rules,
                    rng: &mut self.rng,
                    notices: &mut notices,
                    shared: &mut shared,
                };
                seat.advance_take(flight.step, heard, &mut cx);
            }
        }
        self.events.extend(notices.into_iter().map(Event::Notice));
        if shared {
            self.distrust = self.distrust.max(Distrust::Shared);
        }
        // What a drive that only adds to a held lock had as value does not matter to the others.
        if self.seats[at].stale_value && takes && !adds {
            self.distrust = Distrust::Died;
        }
    }

    /// What follows from a reply to a command of an earlier task: only the facts have changed.
    fn review(&mut self, at: usize, heard: &Heard, now: Instant) {
        let goal = self.goal();
        let seat = &mut self.seats[at];
        match (&seat.task, seat.hold) {
            (Task::Clean(_), _) => seat.plan_clean(now),
            (Task::Keep, Hold::None) => self.lost_drive(at, heard, now),
            (Task::Keep, Hold::Held { mode, .. }) if mode != goal => {
                seat.plan(Step::Refresh(goal), now);
            }
            _ => {}
        }
    }

    /// The mode that drives shall have: during a change to exclusive, that.
    fn goal(&self) -> Mode {
        match &self.phase {
            Phase::Held(Held { change: Some(Change::Up { .. }), .. }) => Mode::Exclusive,
            _ => self.mode().unwrap_or(Mode::Shared),
        }
    }

    /// What follows from a reply to a refresh of a held lock.
    fn advance_keep(&mut self, at: usize, heard: &Heard, now: Instant) {
        let goal = self.goal();
        let renew = self.config.timing.renew;
        let seat = &mut self.seats[at];
        match (seat.hold, heard) {
            (Hold::None, _) => self.lost_drive(at, heard, now),
            (Hold::Held { mode, since }, Heard::Status(Status::Good)) => {
                seat.failures = 0;
                let settled = mode == goal && since >= self.shaken_at;
                let due = if settled { self.due(since) } else { now };
                self.seats[at].plan(Step::Refresh(goal), due);
            }
            _ => {
                let pause = seat.pause(REFRESH_PAUSE, renew / 2);
                seat.failures = seat.failures.saturating_add(1);
                seat.plan(Step::Refresh(goal), now + pause);
            }
        }
    }

    /// A drive does not know our lock any more. One that was reset can be had again at once, one
    /// that was taken cannot; but first the others are asked whether they still know it.
    fn lost_drive(&mut self, at: usize, heard: &Heard, now: Instant) {
        self.shaken_at = now;
        let goal = self.goal();
        for seat in self.seats.iter_mut().filter(|s| s.task == Task::Keep) {
            seat.plan(Step::Refresh(goal), now);
        }
        let notice = Notice::DriveLost { drive: self.seats[at].drive };
        self.events.push_back(Event::Notice(notice));
        let reset = *heard == Heard::Status(Status::NotFound);
        let pause = if reset { Duration::ZERO } else { self.config.timing.renew / 4 };
        self.retake(at, now + pause);
    }

    /// When a drive that was refreshed at `since` is refreshed next: a little early, each at
    /// another time, so that many locks do not all come at once.
    fn due(&mut self, since: Instant) -> Instant {
        let renew = self.config.timing.renew;
        since + self.rng.between(renew * 3 / 4, renew)
    }

    /// Goes on to get a drive that a held lock does not have.
    fn retake(&mut self, at: usize, when: Instant) {
        let Phase::Held(Held { lapsed, .. }) = self.phase else { return };
        let mode = self.goal();
        if lapsed.is_none() || broken!(self.rules, RetakeOnlyWhileSafe) {
            self.seats[at].start_take(mode, when);
            self.seats[at].missed = true;
        } else {
            self.seats[at].assign(Task::Idle);
        }
    }

    // ---- conclusions -------------------------------------------------------------------------

    /// Draws the conclusions of the phase that the lock is in.
    fn conclude(&mut self, now: Instant) {
        self.sweep(now);
        match self.phase.clone() {
            Phase::Free => self.prune(now),
            Phase::Acquiring(acquiring) => self.conclude_acquire(&acquiring, now),
            Phase::Held(held) => self.conclude_held(&held, now),
            Phase::Lost => {}
        }
    }

    /// Gives back what arrived after nobody wanted it any more, and ends the giving back where
    /// every lease is over.
    fn sweep(&mut self, now: Instant) {
        let lapsed = matches!(self.phase, Phase::Held(Held { lapsed: Some(_), .. }));
        let unwanted = self.clean_up(None);
        let timing = self.config.timing;
        let free = self.phase == Phase::Free;
        for seat in self.seats.iter_mut().filter(|s| s.flight.is_none()) {
            match &seat.task {
                Task::Clean(clean) if now >= clean.until => seat.plan_clean(now),
                Task::Idle if free || lapsed || seat.role == Role::Former => {
                    seat.start_clean(unwanted.clone(), now, &timing);
                }
                _ => {}
            }
        }
    }

    /// Counts the votes of the members, for `mode`.
    fn tally(&self, mode: Mode, deadline: Instant, now: Instant) -> Tally {
        let members = self.member_count();
        let mut tally = Tally {
            members,
            needed: self.rules.acquire_quorum(members),
            won: 0,
            asking: 0,
            full: 0,
            blocked: Vec::new(),
        };
        for seat in self.members() {
            let ours = seat.counts(mode, self.rules) && self.lease_end(seat) > Some(now);
            let Task::Take(take) = &seat.task else {
                tally.won += usize::from(ours);
                continue;
            };
            match &take.vote {
                Vote::Won => tally.won += usize::from(ours),
                Vote::Asking => {
                    // A drive that is barred beyond the deadline cannot answer in time.
                    let late = seat.ready_at(self.rules).is_some_and(|at| at > deadline);
                    tally.asking += usize::from(!late);
                }
                Vote::Blocked(conflicts) => tally.blocked.push(conflicts.clone()),
                Vote::Full => tally.full += 1,
                Vote::Silent | Vote::NotIdm => {}
            }
        }
        tally
    }

    fn conclude_acquire(&mut self, acquiring: &Acquiring, now: Instant) {
        let Acquiring { mode, deadline, attempt, stage } = *acquiring;
        if let Stage::BackingOff(until) = stage {
            if now >= until {
                let acquiring =
                    Acquiring { stage: Stage::Voting, attempt: attempt + 1, ..*acquiring };
                self.phase = Phase::Acquiring(acquiring);
                self.ask_members(mode, now);
            }
            return;
        }
        let tally = self.tally(mode, deadline, now);
        let majority = tally.won >= tally.needed;
        let over = now >= deadline;
        if tally.foreign() && !(majority && broken!(self.rules, Fingerprint)) {
            return self.refuse(tally.refusal(), now);
        }
        if !majority {
            if over || tally.won + tally.asking < tally.needed {
                if !over && attempt < ATTEMPTS && tally.split() {
                    return self.back_off(acquiring, tally.refusal(), now);
                }
                self.refuse(tally.refusal(), now);
            }
            return;
        }
        let stage = match stage {
            Stage::Voting => {
                let stage = Stage::Reading((now + self.config.timing.patience / 4).min(deadline));
                self.phase = Phase::Acquiring(Acquiring { stage, ..*acquiring });
                self.ask_witnesses(mode, now);
                stage
            }
            other => other,
        };
        self.ask_values(now);
        let Stage::Reading(until) = stage else { return };
        let late = over || now >= until;
        match self.confirmed(mode, late) {
            None => {}
            Some(Err(refusal)) => self.refuse(refusal, now),
            Some(Ok(())) if late || self.values_read(tally.needed) => {
                self.grant(mode, tally.needed, now);
            }
            Some(Ok(())) => {}
        }
    }

    /// Asks every member for the lock.
    fn ask_members(&mut self, mode: Mode, now: Instant) {
        for seat in self.seats.iter_mut().filter(|s| s.role == Role::Member) {
            seat.start_take(mode, now);
        }
    }

    /// Has every witness read. This must come after the members were written: of two hosts that
    /// write and then read, at least one sees the other.
    fn ask_witnesses(&mut self, mode: Mode, now: Instant) {
        if broken!(self.rules, ConfirmByReading) {
            return;
        }
        for seat in self.seats.iter_mut().filter(|s| s.role == Role::Witness) {
            seat.start_witness(mode, now);
        }
    }

    /// What is known of holders on other drives than those of the majority: the VG's other drives,
    /// and those that said "conflict". `None` while some are still asked and it is not `late`.
    fn confirmed(&self, mode: Mode, late: bool) -> Option<Result<(), Refusal>> {
        let contested =
            self.seats.iter().any(|s| matches!(&s.task, Task::Take(take) if take.contested));
        if contested {
            // Whoever was met there could not be read yet, so he may count other drives.
            return late.then(|| Err(Refusal::Held(Vec::new())));
        }
        if broken!(self.rules, ConfirmByReading) {
            return Some(Ok(()));
        }
        let (mut total, mut seen, mut asking) = (0, 0, false);
        let mut in_the_way = Vec::new();
        for seat in &self.seats {
            match (seat.role, seat.vote()) {
                (Role::Member, _) => {
                    total += 1;
                    seen += usize::from(seat.counts(mode, self.rules));
                }
                (Role::Witness | Role::Extra, vote) => {
                    total += 1;
                    match vote {
                        _ if seat.counts(mode, self.rules) => seen += 1,
                        Some(Vote::Won | Vote::NotIdm) => seen += 1,
                        Some(Vote::Blocked(conflicts)) => in_the_way.push(conflicts.clone()),
                        Some(Vote::Asking) => asking |= !seat.is_enlarging(),
                        Some(Vote::Silent | Vote::Full) | None => {}
                    }
                }
                (Role::Former, _) => {}
            }
        }
        if !in_the_way.is_empty() {
            return Some(Err(Refusal::Held(in_the_way.into_iter().flatten().collect())));
        }
        if asking && !late {
            return None;
        }
        Some(if 2 * seen > total { Ok(()) } else { Err(Refusal::Unconfirmed) })
    }

    /// Reads the value from every drive that was won.
    fn ask_values(&mut self, now: Instant) {
        if !self.config.keeps_value {
            return;
        }
        for seat in self.seats.iter_mut().filter(|s| s.role == Role::Member) {
            let Task::Take(take) = &mut seat.task else {
                continue;
            };
            if take.vote == Vote::Won && !take.value_asked {
                take.value_asked = true;
                seat.plan(Step::Look(Look::Value), now);
            }
        }
    }

    /// Whether no more values are needed or to be had.
    fn values_read(&self, needed: usize) -> bool {
        let read = self.members().filter(|s| s.value.is_some()).count();
        let waiting = self.members().any(|s| {
            let asked = matches!(&s.task, Task::Take(take) if take.value_asked);
            asked && s.value.is_none() && (s.plan.is_some() || s.flight.is_some())
        });
        !self.config.keeps_value || read >= needed || !waiting
    }

    /// What the values that were read add up to. A drive that shows zero never had a value or has
    /// lost it: it cannot vouch for what the others show.
    fn value_read(&self, mode: Mode, needed: usize) -> ValueRead {
        let needed = if broken!(self.rules, ValueQuorum) { 1 } else { needed };
        let values: Vec<Value> = self
            .members()
            .filter(|s| s.counts(mode, self.rules))
            .filter_map(|s| s.value.filter(|&v| v != Value::ZERO))
            .collect();
        match values.iter().max() {
            Some(&value) if values.len() >= needed && self.distrust == Distrust::None => {
                ValueRead::Known(value)
            }
            _ => ValueRead::Unknown,
        }
    }

    /// The lock is ours.
    fn grant(&mut self, mode: Mode, needed: usize, now: Instant) {
        let value = self.value_read(mode, needed);
        self.phase = Phase::Held(Held { mode, lapsed: None, change: None });
        self.settle_seats(now);
        self.finish(Outcome::Granted(value));
    }

    /// After a request: what is won is kept, what is not is tried again later.
    fn settle_seats(&mut self, now: Instant) {
        let goal = self.goal();
        for at in 0..self.seats.len() {
            let seat = &self.seats[at];
            match (seat.role, seat.hold) {
                (Role::Former, _) => {}
                // A straggler: its answer is still welcome.
                _ if seat.is_enlarging() && seat.asks_for(goal) => {}
                (role, Hold::Held { mode, since }) => {
                    if role == Role::Witness {
                        self.seats[at].role = Role::Extra;
                    }
                    let due = if mode == goal { self.due(since) } else { now };
                    let seat = &mut self.seats[at];
                    seat.failures = 0;
                    seat.assign(Task::Keep);
                    seat.plan(Step::Refresh(goal), due);
                }
                (Role::Witness, _) => self.seats[at].assign(Task::Idle),
                (Role::Member | Role::Extra, _) => {
                    let pause = self.config.timing.renew;
                    self.retake(at, now + pause);
                }
            }
        }
    }

    /// The lock is not to be had: everything that was got is given back.
    fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.phase = Phase::Free;
        self.give_back(None, now);
        self.finish(Outcome::Refused(refusal));
    }

    /// Gives way to another host, and tries again a little later if there is time.
    fn back_off(&mut self, acquiring: &Acquiring, refusal: Refusal, now: Instant) {
        let mean = self.config.timing.backoff * 2u32.pow(acquiring.attempt);
        let until = now + self.rng.between(mean / 4, mean);
        if until >= acquiring.deadline {
            return self.refuse(refusal, now);
        }
        self.events.push_back(Event::Notice(Notice::SplitVote));
        self.phase = Phase::Acquiring(Acquiring { stage: Stage::BackingOff(until), ..*acquiring });
        // The mutex is wanted again in a moment: it is not destroyed.
        let worthless = self.distrust != Distrust::None;
        let clean = Clean { worthless, ..self.clean_up(None) };
        self.clean_all(&clean, now);
    }

    fn finish(&mut self, outcome: Outcome) {
        self.events.push_back(Event::Done(outcome));
    }

    // ---- giving back -------------------------------------------------------------------------

    /// How the lock is given back, with a value to store.
    fn clean_up(&self, store: Option<Value>) -> Clean {
        let store = store.filter(|_| self.config.keeps_value);
        // What a holder that died left there must not be believed by the next one. A mutex that is
        // destroyed should lose its value, but only a value that is overwritten is gone for sure.
        let erase = store.is_none() && self.config.keeps_value && self.distrust == Distrust::Died;
        Clean {
            store: if erase { Some(Value::ZERO) } else { store },
            promote: store.is_some() || erase,
            worthless: !self.config.keeps_value || self.distrust != Distrust::None,
            destroy: false,
            mode: Mode::Exclusive,
            until: Instant::default(),
            refusals: 0,
        }
    }

    fn give_back(&mut self, store: Option<Value>, now: Instant) {
        let clean = self.clean_up(store);
        self.owed = self.rules.acquire_quorum(self.member_count());
        self.clean_all(&clean, now);
        self.prune(now);
    }

    fn clean_all(&mut self, clean: &Clean, now: Instant) {
        let timing = self.config.timing;
        for seat in self.seats.iter_mut().filter(|s| !matches!(s.task, Task::Clean(_))) {
            seat.start_clean(clean.clone(), now, &timing);
        }
    }

    fn release(&mut self, value: Option<Value>, now: Instant) {
        let lapsed = match &self.phase {
            Phase::Held(held) => held.lapsed.is_some(),
            Phase::Lost => true,
            Phase::Free | Phase::Acquiring(_) => false,
        };
        if lapsed {
            // Somebody else may have published a newer value already, so ours must not be stored;
            // and what was changed under the lock was never published, so the old value is wrong.
            self.distrust = Distrust::Died;
        }
        let store = match self.mode() {
            _ if lapsed => None,
            Some(Mode::Exclusive) => value.or(self.pending),
            Some(Mode::Shared) => self.pending,
            None => None,
        };
        if self.phase != Phase::Free {
            self.phase = Phase::Free;
            self.give_back(store, now);
            self.pending = None;
        }
        self.finish(Outcome::Released);
    }

    // ---- held --------------------------------------------------------------------------------

    /// Until when enough drives keep the lock for us: the moment at which the keep-quorum's first
    /// lease ends.
    fn bound(&self, mode: Mode) -> Option<Instant> {
        let mut ends: Vec<Instant> = self
            .members()
            .filter(|s| s.counts(mode, self.rules))
            .filter_map(|s| self.lease_end(s))
            .collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(self.rules.keep_quorum(self.member_count()) - 1).copied()
    }

    /// When the lease ends on one drive, on this host's side.
    fn lease_end(&self, seat: &Seat) -> Option<Instant> {
        let timing = &self.config.timing;
        match seat.hold {
            Hold::Held { since, .. } => Some(since + timing.lease - timing.drift),
            _ => None,
        }
    }

    /// Looks whether the lease has run out. This comes before everything else, so that nothing
    /// that arrives late can count as if it had come in time.
    fn notice_lapse(&mut self, now: Instant) {
        let Phase::Held(Held { mode, lapsed: None, .. }) = self.phase else {
            return;
        };
        let bound = self.bound(mode).unwrap_or_default();
        if now < bound {
            return;
        }
        if let Phase::Held(held) = &mut self.phase {
            held.lapsed = Some(bound);
        }
        self.events.push_back(Event::Lapsed);
        if broken!(self.rules, RetakeOnlyWhileSafe) {
            return;
        }
        for seat in &mut self.seats {
            if matches!(&seat.task, Task::Take(take) if !take.converting) {
                seat.assign(Task::Idle);
            }
        }
    }

    fn conclude_held(&mut self, held: &Held, now: Instant) {
        self.collect_takes(held, now);
        self.check_ownership();
        self.check_regained(now);
        let Phase::Held(held) = self.phase.clone() else {
            return;
        };
        match held.change {
            None => {}
            Some(Change::Up { deadline, stage }) => self.conclude_up(&held, deadline, stage, now),
            Some(Change::Down { deadline }) => {
                let shared = |s: &&Seat| matches!(s.hold, Hold::Held { mode: Mode::Shared, .. });
                let done = self.members().filter(shared).count();
                let complete = done >= self.rules.acquire_quorum(self.member_count());
                if complete || now >= deadline {
                    self.end_change(held.mode);
                    self.finish(Outcome::Converted { complete });
                }
            }
        }
    }

    /// Ends the efforts to get further drives that have come to an end.
    fn collect_takes(&mut self, held: &Held, now: Instant) {
        if matches!(held.change, Some(Change::Up { .. })) {
            // Their votes count for the change until it ends.
            return;
        }
        let goal = self.goal();
        let renew = self.config.timing.renew;
        for at in 0..self.seats.len() {
            let seat = &mut self.seats[at];
            let given_back = seat.task == Task::Idle && held.lapsed.is_none();
            if given_back && matches!(seat.role, Role::Member | Role::Extra) {
                self.retake(at, now + renew);
                continue;
            }
            let Task::Take(take) = &seat.task else {
                continue;
            };
            if take.converting || take.witness {
                continue;
            }
            match take.vote.clone() {
                Vote::Asking => {}
                Vote::Won => {
                    seat.foreign = None;
                    let Hold::Held { mode, since } = seat.hold else {
                        self.retake(at, now + renew);
                        continue;
                    };
                    if core::mem::take(&mut seat.missed) {
                        let notice = Notice::DriveGained { drive: seat.drive };
                        self.events.push_back(Event::Notice(notice));
                    }
                    let due = if mode == goal { self.due(since) } else { now };
                    let seat = &mut self.seats[at];
                    seat.assign(Task::Keep);
                    seat.plan(Step::Refresh(goal), due);
                }
                Vote::Blocked(conflicts) => {
                    self.note_foreign(at, &conflicts, now);
                    self.retake(at, now + renew);
                }
                Vote::Silent | Vote::Full | Vote::NotIdm => self.retake(at, now + renew),
            }
        }
    }

    /// A live holder that counts other drives stands on a drive of ours. If it stays for longer
    /// than the lease that it had when we first saw it, it refreshes the lock, so it believes to
    /// hold it as we do.
    fn note_foreign(&mut self, at: usize, conflicts: &[Conflict], now: Instant) {
        let timing = self.config.timing;
        let seat = &mut self.seats[at];
        let Some(conflict) = conflicts.iter().find(|c| !c.same_set) else {
            seat.foreign = None;
            return;
        };
        match seat.foreign {
            Some((host, first)) if host == conflict.host => {
                if now.since(first) > timing.lease + timing.renew {
                    self.lose(Loss::OtherSet(*conflict));
                }
            }
            _ => seat.foreign = Some((conflict.host, now)),
        }
    }

    /// Whether enough drives can still say that the lock is ours.
    fn check_ownership(&mut self) {
        if !matches!(self.phase, Phase::Held(_)) {
            return;
        }
        let ours = self
            .members()
            .filter(|s| matches!(s.hold, Hold::Held { .. }) && !matches!(s.task, Task::Clean(_)))
            .count();
        if ours < self.rules.keep_quorum(self.member_count()) {
            self.lose(Loss::Taken);
        }
    }

    fn lose(&mut self, loss: Loss) {
        let Phase::Held(held) = &self.phase else {
            return;
        };
        let changing = held.change;
        self.phase = Phase::Lost;
        for seat in &mut self.seats {
            seat.assign(Task::Idle);
        }
        self.events.push_back(Event::Lost(loss));
        // The request that was under way ends too.
        match changing {
            Some(Change::Up { .. }) => {
                let needed = self.rules.acquire_quorum(self.member_count());
                self.finish(Outcome::Refused(Refusal::NoQuorum { granted: 0, needed }));
            }
            Some(Change::Down { .. }) => self.finish(Outcome::Converted { complete: false }),
            None => {}
        }
    }

    /// After a lapse: whether a keep-quorum has given the lock back. Drives that were lost in the
    /// meantime are not taken again, so each of them has been ours without a gap. Where others
    /// may count other drives that is no proof.
    fn check_regained(&mut self, now: Instant) {
        let Phase::Held(Held { mode, lapsed: Some(_), .. }) = self.phase else {
            return;
        };
        if self.has_witnesses || self.bound(mode).is_none_or(|bound| bound <= now) {
            return;
        }
        if let Phase::Held(held) = &mut self.phase {
            held.lapsed = None;
        }
        self.events.push_back(Event::Regained);
        for at in 0..self.seats.len() {
            let seat = &self.seats[at];
            let idle = seat.task == Task::Idle && matches!(seat.role, Role::Member | Role::Extra);
            if idle {
                self.retake(at, now);
            }
        }
    }

    // ---- conversion --------------------------------------------------------------------------

    fn convert(&mut self, from: Mode, to: Mode, value: Option<Value>, now: Instant) {
        let deadline = now + self.config.timing.patience;
        let value = value.filter(|_| from == Mode::Exclusive && self.config.keeps_value);
        self.pending = value.or(self.pending);
        let change = match (from, to) {
            (Mode::Shared, Mode::Exclusive) => Change::Up { deadline, stage: Stage::Voting },
            (Mode::Exclusive, Mode::Shared) => Change::Down { deadline },
            _ => return self.finish(Outcome::Converted { complete: true }),
        };
        let Phase::Held(held) = &mut self.phase else {
            return;
        };
        held.change = Some(change);
        if to == Mode::Shared {
            // From now on we share; drives that do not know it yet only keep others out.
            held.mode = Mode::Shared;
        }
        for seat in &mut self.seats {
            match (&seat.task, seat.hold) {
                (Task::Keep, Hold::Held { .. }) if to == Mode::Exclusive => {
                    seat.start_promote(now);
                }
                (Task::Keep, _) => seat.plan(Step::Refresh(Mode::Shared), now),
                (Task::Take(_), _) => seat.start_take(to, now),
                _ => {}
            }
        }
    }

    fn conclude_up(&mut self, held: &Held, deadline: Instant, stage: Stage, now: Instant) {
        let tally = self.tally(Mode::Exclusive, deadline, now);
        let over = now >= deadline;
        if tally.foreign() && !broken!(self.rules, Fingerprint) {
            return self.end_up(Err(tally.refusal()), now);
        }
        if tally.won < tally.needed || held.lapsed.is_some() {
            if over || tally.won + tally.asking < tally.needed || held.lapsed.is_some() {
                self.end_up(Err(tally.refusal()), now);
            }
            return;
        }
        let until = match stage {
            Stage::Reading(until) => until,
            Stage::Voting | Stage::BackingOff(_) => {
                let until = (now + self.config.timing.patience / 4).min(deadline);
                if let Phase::Held(held) = &mut self.phase {
                    held.change = Some(Change::Up { deadline, stage: Stage::Reading(until) });
                }
                self.ask_witnesses(Mode::Exclusive, now);
                until
            }
        };
        if let Some(result) = self.confirmed(Mode::Exclusive, over || now >= until) {
            self.end_up(result, now);
        }
    }

    fn end_up(&mut self, result: Result<(), Refusal>, now: Instant) {
        let mode = if result.is_ok() { Mode::Exclusive } else { Mode::Shared };
        self.end_change(mode);
        self.settle_seats(now);
        self.finish(match result {
            Ok(()) => Outcome::Converted { complete: true },
            Err(refusal) => Outcome::Refused(refusal),
        });
    }

    fn end_change(&mut self, mode: Mode) {
        if let Phase::Held(held) = &mut self.phase {
            held.mode = mode;
            held.change = None;
        }
    }
}
