//! The state machine of one lock: what the drives' answers add up to.
//!
//! Every entry point does the same three things: look whether the lease has run out, take in what
//! is new, and draw the conclusions of the phase that the lock is in. What happens on a single
//! drive is in `seat.rs`, `take.rs` and `clean.rs`.
//!
//! `acquire`, `adopt`, `keep`, `convert` and `release` are the phases of a lock; `travel` lets
//! other drives vote for one that is held; `votes` counts, and `exchange` turns steps into commands
//! and replies into facts. `digest` serves model checkers.

mod acquire;
mod adopt;
mod convert;
mod digest;
mod exchange;
mod keep;
mod release;
mod travel;
mod votes;

use crate::api::{
    Command, DriveRef, Event, Fingerprint, Instant, LockConfig, Member, Outcome, Request,
    RequestError, Token,
};
use crate::rng::Rng;
use crate::rules::Rules;
use crate::seat::{Flight, Hold, Role, Seat, Task};
use crate::stamp::Stamp;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use idm_protocol::{Mode, Reply, Value};

/// Drives that a lock may have.
const MAX_DRIVES: usize = 512;

/// The fingerprint of no drives.
const NO_SET: Fingerprint = Fingerprint([0; 16]);

/// What a lock is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Not held. Drives may still have to be told.
    Free,
    /// A request to acquire is under way.
    Acquiring(Acquiring),
    /// A request to adopt is under way.
    Adopting(Adopting),
    /// Held.
    Held(Held),
    /// Lost, and not released yet.
    Lost,
    /// Not held; but an earlier life of this host may have held it, and what it left on the drives
    /// may be in use. Only an adoption or a release ends that.
    Left,
}

impl Stage {
    /// The same, without waiting for other members any more.
    fn without_grace(self) -> Stage {
        match self {
            Stage::Reading { until, .. } => Stage::Reading { grace: None, until },
            other => other,
        }
    }

    /// Whether nothing more is waited for.
    fn is_late(self, now: Instant) -> bool {
        matches!(self, Stage::Reading { until, .. } if now >= until)
    }
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Adopting {
    /// The only mode that will do, if any.
    wanted: Option<Mode>,
    /// Until when the earlier life's lock is known to be safe.
    granted_until: Option<Instant>,
    /// When the request is refused for want of answers.
    deadline: Instant,
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
    /// There is a majority. Other members are waited for until `grace`, if at all; values and
    /// witnesses are read, until `until` at most.
    Reading { grace: Option<Instant>, until: Instant },
    /// The drives were split with another host: the next attempt begins then.
    BackingOff(Instant),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    mode: Mode,
    /// Since when other hosts may break the lock, where that has been so.
    lapsed: Option<Instant>,
    change: Option<Change>,
    moving: Moving,
}

/// How far other drives are on the way to vote in place of the present ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Moving {
    /// Nothing is moved.
    No,
    /// Records are being marked as nobody else's set.
    Marking,
    /// The caller was told that the drives are ready.
    Told,
}

impl Held {
    /// A lock that was just got.
    fn new(mode: Mode) -> Held {
        Held { mode, lapsed: None, change: None, moving: Moving::No }
    }
}

/// A conversion that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Change {
    Up { deadline: Instant, stage: Stage },
    Down { deadline: Instant },
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
    /// The drives that vote.
    set: Fingerprint,
    /// The drives that shall vote instead, if the present ones fail or leave the VG.
    target: Option<Fingerprint>,
    has_witnesses: bool,
    /// Whether the value on the drives is what its last holder would have left. If not, it is
    /// removed with the lock, unless a new one is written.
    distrust: Distrust,
    /// A value that was published by a change to shared. Nothing that a REFRESH carries is certain
    /// to be stored, so the UNLOCK has to carry it again.
    pending: Option<Value>,
    /// Drives that were looked at before they were taken, so that no record of an earlier life of
    /// this host can pass for one of this. Only kept for locks with a value.
    known: Vec<DriveRef>,
    /// Drives that have yet to store the value of the last release, to make a majority.
    owed: usize,
    /// When a drive was last found to have lost our lock. No drive is taken again before a
    /// keep-quorum of the others has said afterwards that the lock is still ours.
    shaken_at: Instant,
    /// Drives that are not waited for, because they are known to be slow.
    slow: Vec<DriveRef>,
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
            stamp: Stamp { fingerprint: NO_SET, acquisition: 0, alone: false },
            set: NO_SET,
            target: None,
            has_witnesses: false,
            distrust: Distrust::None,
            pending: None,
            known: Vec::new(),
            slow: Vec::new(),
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
            Phase::Acquiring(_) | Phase::Adopting(_) => true,
            Phase::Held(held) => held.change.is_some(),
            Phase::Free | Phase::Lost | Phase::Left => false,
        };
        if busy {
            return Err(RequestError::Busy);
        }
        match (request, &self.phase) {
            (Request::Acquire { mode, members, witnesses }, Phase::Free) => {
                self.seat_drives(&members, &witnesses, now)?;
                let deadline = now + self.config.timing.patience;
                let stage = Stage::Voting;
                self.phase = Phase::Acquiring(Acquiring { mode, deadline, attempt: 1, stage });
                self.ask_members(mode, now);
            }
            (
                Request::Adopt { mode, granted_until, members, witnesses },
                Phase::Free | Phase::Left,
            ) => {
                self.seat_drives(&members, &witnesses, now)?;
                self.adopt(mode, granted_until, now);
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

    /// Tells which drives are known to be slow, for the requests that follow: a majority does not
    /// wait for their answers.
    pub fn expect_silence(&mut self, drives: &[DriveRef]) {
        self.slow = drives.to_vec();
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
        let earlier = self.config.earlier_writes_until;
        self.seats[at].absorb(&flight, &heard, now, &self.config.timing, earlier, self.rules);
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
        let mark = self.stamp_for(step, &self.seats[at]).mark();
        self.last_token += 1;
        let token = Token(self.last_token);
        let seat = &mut self.seats[at];
        let undoes = seat.undoes(step, now);
        let held = matches!(seat.hold, Hold::Held { .. });
        seat.flight = Some(Flight { token, step, sent: now, held, mark, epoch: seat.epoch });
        Some(Command { token, drive: seat.drive, command, undoes })
    }

    /// When [`on_timer`](Lock::on_timer) wants to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stands = self.stands();
        let seats = self.seats.iter().filter_map(|s| self.ready_at(s, stands));
        let stage_end = |deadline: Instant, stage: Stage| match stage {
            Stage::Voting => deadline,
            Stage::Reading { grace, until } => deadline.min(until).min(grace.unwrap_or(until)),
            Stage::BackingOff(until) => until,
        };
        let phase = match &self.phase {
            Phase::Free => {
                let idle = self.seats.iter().filter(|s| s.plan.is_none() && s.flight.is_none());
                idle.map(Seat::settled_at).min()
            }
            Phase::Acquiring(acquiring) => Some(stage_end(acquiring.deadline, acquiring.stage)),
            Phase::Adopting(adopting) => Some(stage_end(adopting.deadline, adopting.stage)),
            Phase::Held(held) => {
                let change = held.change.map(|change| match change {
                    Change::Up { deadline, stage } => stage_end(deadline, stage),
                    Change::Down { deadline } => deadline,
                });
                let lapse = if held.lapsed.is_none() { self.bound(held.mode) } else { None };
                change.into_iter().chain(lapse).min()
            }
            Phase::Lost | Phase::Left => None,
        };
        seats.chain(phase).min()
    }

    /// What happened, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() {
            // A lock that is held has nothing to tell for most of its life.
            self.events.shrink_to_fit();
        }
        event
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
    pub fn held_on(&self) -> impl Iterator<Item = (DriveRef, Mode)> + '_ {
        self.seats.iter().filter_map(|seat| match seat.hold {
            Hold::Held { mode, .. } => Some((seat.drive, mode)),
            _ => None,
        })
    }

    /// Gives every drive of a new acquisition its role, and forgets what the last one knew.
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
            seat.gap = false;
            seat.contested = false;
            seat.target = false;
        }
        // Seats are most of a lock's memory, and there may be thousands of locks.
        self.seats.reserve_exact(drives.len().saturating_sub(self.seats.len()));
        for (list, role) in [(members, Role::Member), (witnesses, Role::Witness)] {
            for member in list {
                self.seat(member.drive).role = role;
            }
        }
        let set = Fingerprint::of(members);
        if set != self.set {
            // What is late would mark our record as one of the set that was counted then.
            for seat in &mut self.seats {
                seat.barred_until = seat.barred_until.max(seat.remarked_until());
            }
        }
        self.set = set;
        self.target = None;
        self.stamp = Stamp { fingerprint: self.set, acquisition: self.rng.next(), alone: false };
        self.has_witnesses = !witnesses.is_empty();
        // A value that is still on its way to a majority would be lost by the new acquisition: the
        // old one there must not be believed then. Likewise one that is still to be removed.
        let doomed = |s: &Seat| matches!(&s.task, Task::Clean(c) if c.keeps_value && c.worthless);
        let owing = self.owed > 0 || self.seats.iter().any(doomed);
        self.distrust = if owing { Distrust::Died } else { Distrust::None };
        if owing {
            self.known.clear();
        }
        self.pending = None;
        self.shaken_at = Instant::default();
        Ok(())
    }

    /// The seat of a drive, made where there is none.
    fn seat(&mut self, drive: DriveRef) -> &mut Seat {
        let at = self.seats.iter().position(|s| s.drive == drive).unwrap_or_else(|| {
            self.seats.push(Seat::new(drive, Role::Former, self.config.earlier_until));
            self.seats.len() - 1
        });
        &mut self.seats[at]
    }

    /// Drops the seats that have nothing left to do or to remember.
    fn prune(&mut self, now: Instant) {
        self.seats.retain(|s| {
            let busy = match s.task {
                Task::Idle => false,
                // A release has to give it back, whatever was asked since.
                Task::Leave => s.hold != Hold::None,
                Task::Take(_) | Task::Keep | Task::Clean(_) => true,
            };
            s.flight.is_some() || busy || s.settled_at() > now
        });
    }

    fn members(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|s| s.role == Role::Member)
    }

    fn member_count(&self) -> usize {
        self.members().count()
    }

    /// Whether a drive counts as holding the lock in `mode`.
    fn counts(&self, seat: &Seat, mode: Mode) -> bool {
        seat.counts(mode, self.set, self.rules)
    }

    /// When a seat's next command may be sent. While a held lock is shaken, nothing is added to it.
    fn ready_at(&self, seat: &Seat, stands: bool) -> Option<Instant> {
        seat.ready_at(self.rules).filter(|_| stands || !seat.is_enlarging())
    }

    /// Draws the conclusions of the phase that the lock is in.
    fn conclude(&mut self, now: Instant) {
        self.sweep(now);
        match self.phase.clone() {
            Phase::Free => self.prune(now),
            Phase::Acquiring(acquiring) => self.conclude_acquire(&acquiring, now),
            Phase::Adopting(adopting) => self.conclude_adopt(&adopting, now),
            Phase::Held(held) => self.conclude_held(&held, now),
            Phase::Lost | Phase::Left => {}
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        self.events.push_back(Event::Done(outcome));
    }
}
