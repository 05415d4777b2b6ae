//! The state machine of one lock, which combines the drives' answers.
//!
//! Every entry point does the same three things: it checks whether the lease has expired, takes in
//! the news, and draws the conclusions of the lock's phase. The part of a single drive is in
//! `replica.rs`, `take.rs` and `clean.rs`.
//!
//! `acquire`, `adopt`, `keep`, `convert` and `release` are the phases of a lock; `travel` moves the
//! votes of a held lock to other drives; `votes` counts, and `exchange` turns steps into commands
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
use crate::replica::{Flight, Hold, Replica, Role, Step, Task};
use crate::rng::Rng;
use crate::rules::Rules;
use crate::stamp::Stamp;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use idm_protocol::{Mode, Reply, Value};

/// The largest number of drives of a lock.
const MAX_DRIVES: usize = 512;

/// The fingerprint of no drives.
const NO_SET: Fingerprint = Fingerprint([0; 16]);

/// The phase of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Not held. Drives may still have to be unlocked.
    Free,
    /// A request to acquire is under way.
    Acquiring(Acquiring),
    /// A request to adopt is under way.
    Adopting(Adopting),
    /// Held.
    Held(Held),
    /// Lost, and not released yet.
    Lost,
    /// Not held, but an earlier life of this host may have held it, and its records on the drives
    /// may be in use. Only an adoption or a release ends this phase.
    Left,
}

impl Stage {
    /// The same stage, without further waiting for other members.
    fn without_grace(self) -> Stage {
        match self {
            Stage::Reading { until, .. } => Stage::Reading { grace: None, until },
            other => other,
        }
    }

    /// Whether the time of this stage is over.
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
    /// The moment when the request is refused for lack of answers.
    deadline: Instant,
    attempt: u32,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Adopting {
    /// The mode in which the earlier life requested it, or was granted it.
    wanted: Mode,
    /// The moment until which the earlier life's lock is known to be safe.
    safe_until: Option<Instant>,
    /// Whether it was granted in that mode.
    granted: bool,
    /// The moment when the request is refused for lack of answers.
    deadline: Instant,
    stage: Stage,
}

impl Adopting {
    /// Whether no other host can have had the lock since, if the earlier life was granted it.
    fn is_in_time(&self, now: Instant) -> bool {
        self.safe_until.is_some_and(|until| now < until)
    }
}

/// The reason why the value on the drives may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Distrust {
    None,
    /// Others share the lock; one of them may have changed it.
    Shared,
    /// Its last exclusive holder died.
    Died,
}

/// The progress of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The members are asked.
    Voting,
    /// There is a majority. The request waits for other members until `grace`, if there is one. It
    /// reads values and witnesses until `until` at the latest.
    Reading { grace: Option<Instant>, until: Instant },
    /// Another host had a part of the drives: the next attempt begins at this moment.
    BackingOff(Instant),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    mode: Mode,
    /// The moment since which other hosts have been able to break the lock, if it has lapsed.
    lapsed: Option<Instant>,
    change: Option<Change>,
    moving: Moving,
}

/// The progress of other drives towards voting in place of the present ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Moving {
    /// Nothing is moved.
    No,
    /// Records are being marked with a fingerprint that is no set's.
    Marking,
    /// The caller has been informed that the drives are ready.
    Told,
}

impl Held {
    /// A lock that was just granted.
    fn new(mode: Mode) -> Held {
        Held { mode, lapsed: None, change: None, moving: Moving::No }
    }
}

/// Drives that are to vote in place of the present ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Target {
    set: Fingerprint,
    /// The moment until which the lock may be missing there.
    spared_until: Instant,
}

/// The limit of a lock that hosts with some list of drives did not meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Unseen {
    /// The moment until which the lock is safe, unless it gets enough of these drives.
    until: Instant,
    drives: Vec<DriveRef>,
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
    replicas: Vec<Replica>,
    /// The content of this acquisition's records.
    stamp: Stamp,
    /// The drives that vote.
    set: Fingerprint,
    /// The drives that will vote instead, if the present ones fail or leave the VG.
    target: Option<Target>,
    has_witnesses: bool,
    /// Whether other hosts may share the lock on drives that this host does not count, since the LV
    /// or the votes moved.
    may_have_moved: bool,
    /// Whether the drives that vote need not be those that the LV lies on.
    votes_moved: bool,
    /// The drives that voted when the lock was acquired or adopted.
    original: Fingerprint,
    /// The moment until which a drive that votes may hide that votes have moved. Until then the
    /// original drives keep the lock.
    hidden_until: Option<Instant>,
    /// The moment until which the lock is safe after an adoption, unless all drives that vote have
    /// it, or the VG's drives are named.
    adopted_until: Option<Instant>,
    /// The limit of a list without the lock that stands although other drives were named since.
    unseen: Option<Unseen>,
    /// The doubt whether the last holder would have left the value that is on the drives. A
    /// doubtful value is removed with the lock, unless a new one is written.
    distrust: Distrust,
    /// A value that a change to shared published. A drive may not store what a REFRESH carries, so
    /// the UNLOCK has to carry it again.
    pending: Option<Value>,
    /// Drives that were read before they were taken, so that no record of this host's earlier life
    /// can pass for one of this life. Only kept for locks with a value.
    known: Vec<DriveRef>,
    /// The number of drives that have yet to store the value of the last release, for a majority.
    owed: usize,
    /// The moment when a drive was last found to have lost this host's lock. Until a keep quorum of
    /// the others has confirmed the lock after this moment, the lock is *shaken*: no drive is taken
    /// again.
    shaken_at: Instant,
    /// Drives that are known to be slow, so no request waits for them.
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
            replicas: Vec::new(),
            stamp: Stamp { fingerprint: NO_SET, acquisition: 0, alone: false },
            set: NO_SET,
            target: None,
            has_witnesses: false,
            may_have_moved: false,
            votes_moved: false,
            original: NO_SET,
            hidden_until: None,
            adopted_until: None,
            unseen: None,
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

    /// The constant properties of this lock.
    pub fn config(&self) -> &LockConfig {
        &self.config
    }

    /// Begins a request. [`Event::Done`] reports its end, possibly before this function returns.
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
                self.assign_roles(&members, &witnesses, now)?;
                let deadline = now + self.config.timing.patience;
                let stage = Stage::Voting;
                self.phase = Phase::Acquiring(Acquiring { mode, deadline, attempt: 1, stage });
                self.ask_members(mode, now);
            }
            (
                Request::Adopt { mode, safe_until, granted, members, witnesses },
                Phase::Free | Phase::Left,
            ) => {
                self.assign_roles(&members, &witnesses, now)?;
                self.adopt(mode, safe_until, granted, now);
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

    /// Sets the drives that are known to be slow, for the requests that follow: a majority does not
    /// wait for their answers.
    pub fn expect_silence(&mut self, drives: &[DriveRef]) {
        self.slow = drives.to_vec();
    }

    /// Takes in the reply to a command. Unknown tokens are ignored.
    pub fn on_reply(&mut self, token: Token, reply: Reply, now: Instant) {
        self.notice_lapse(now);
        let at =
            self.replicas.iter().position(|s| s.flight.as_ref().is_some_and(|f| f.token == token));
        let Some(at) = at else { return };
        let Some(flight) = self.replicas[at].flight.take() else {
            return;
        };
        let heard = self.hear(&flight, reply, self.replicas[at].drive);
        let earlier = self.config.earlier_writes_until;
        let removes = flight.doubts && flight.step == Step::Refresh(Mode::Exclusive);
        self.replicas[at].absorb(&flight, &heard, now, &self.config.timing, earlier, self.rules);
        self.note_not_idm(at, &heard);
        if removes {
            self.replicas[at].note_removal(&heard, self.rules);
        }
        if flight.epoch == self.replicas[at].epoch {
            self.advance(at, &flight, heard, now);
        } else {
            self.review(at, &heard, now);
        }
        self.conclude(now);
    }

    /// Does everything that is due.
    pub fn on_timer(&mut self, now: Instant) {
        self.notice_lapse(now);
        self.conclude(now);
    }

    /// The next command to send.
    pub fn next_command(&mut self, now: Instant) -> Option<Command> {
        let stands = self.stands();
        let ready = |s: &Replica| self.ready_at(s, stands).is_some_and(|at| at <= now);
        let at = self.replicas.iter().position(ready)?;
        if self.keeps_unmarked(at, now) {
            return self.next_command(now);
        }
        let step = self.replicas[at].plan.take()?.step;
        let command = self.encode(step, &self.replicas[at]);
        let mark = self.stamp_for(step, &self.replicas[at]).mark();
        self.last_token += 1;
        let token = Token(self.last_token);
        let replica = &mut self.replicas[at];
        let undoes = replica.undoes(step, now);
        let held = matches!(replica.hold, Hold::Held { .. });
        let doubts = self.distrust != Distrust::None;
        let epoch = replica.epoch;
        replica.flight = Some(Flight { token, step, sent: now, held, doubts, mark, epoch });
        let drive = replica.drive;
        if matches!(step, Step::Refresh(_)) {
            self.note_refresh(at);
        }
        Some(Command { token, drive, command, undoes })
    }

    /// The moment when [`on_timer`](Lock::on_timer) must be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stands = self.stands();
        let replicas = self.replicas.iter().filter_map(|s| self.ready_at(s, stands));
        let stage_end = |deadline: Instant, stage: Stage| match stage {
            Stage::Voting => deadline,
            Stage::Reading { grace, until } => deadline.min(until).min(grace.unwrap_or(until)),
            Stage::BackingOff(until) => until,
        };
        let phase = match &self.phase {
            Phase::Free => {
                let idle = self.replicas.iter().filter(|s| s.plan.is_none() && s.flight.is_none());
                idle.map(Replica::settled_at).min()
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
        replicas.chain(phase).min()
    }

    /// The oldest event that the caller has not taken yet.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() {
            // A held lock has no events for most of its life.
            self.events.shrink_to_fit();
        }
        event
    }

    /// The mode in which the lock is held; `None` if it is not held, or lost. A lapsed lock still
    /// has its mode: check [`safe_until`](Lock::safe_until).
    pub fn mode(&self) -> Option<Mode> {
        match &self.phase {
            Phase::Held(held) => Some(held.mode),
            _ => None,
        }
    }

    /// Whether [`spread`](Lock::spread) has to name the VG's drives, even if these are the drives
    /// that vote. The holder of an exclusive lock may leave the LV on fewer of them, and a lock
    /// that was adopted without some of them is only safe for a while.
    pub fn awaits_drives(&self) -> bool {
        let unaware = self.mode() == Some(Mode::Exclusive) && !self.votes_moved;
        unaware || self.adopted_until.is_some()
    }

    /// The moment until which no other host can have the lock in a conflicting mode, whatever the
    /// drives answer from now on. `None` if the lock is not held.
    pub fn safe_until(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Held(Held { lapsed: Some(at), .. }) => Some(*at),
            Phase::Held(held) => self.bound(held.mode),
            _ => None,
        }
    }

    /// Whether the lock can be dropped: it is not held, and no drive has work left.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Free && self.replicas.is_empty()
    }

    /// The drives that hold the lock, each with its mode.
    pub fn held_on(&self) -> impl Iterator<Item = (DriveRef, Mode)> + '_ {
        self.replicas.iter().filter_map(|replica| match replica.hold {
            Hold::Held { mode, .. } => Some((replica.drive, mode)),
            _ => None,
        })
    }

    /// Gives every drive of a new acquisition its role, and forgets the knowledge of the last one.
    fn assign_roles(
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
        for replica in &mut self.replicas {
            replica.role = Role::Former;
            replica.foreign = None;
            replica.missed = false;
            replica.gap = false;
            replica.contested = false;
            replica.original = false;
        }
        // Replicas take most of a lock's memory, and there may be thousands of locks.
        self.replicas.reserve_exact(drives.len().saturating_sub(self.replicas.len()));
        for (list, role) in [(members, Role::Member), (witnesses, Role::Witness)] {
            for member in list {
                let replica = self.replica(member.drive);
                replica.role = role;
                replica.original = role == Role::Member;
            }
        }
        let set = Fingerprint::of(members);
        if set != self.set {
            // A late command would mark this host's record with the set that was counted then.
            for replica in &mut self.replicas {
                replica.barred_until = replica.barred_until.max(replica.remarked_until());
            }
            // A drive that missed the last release may now be one of a majority.
            self.known.clear();
        }
        self.set = set;
        self.target = None;
        self.stamp = Stamp { fingerprint: self.set, acquisition: self.rng.next(), alone: false };
        self.has_witnesses = !witnesses.is_empty();
        self.may_have_moved = false;
        self.votes_moved = false;
        self.original = set;
        self.hidden_until = None;
        (self.adopted_until, self.unseen) = (None, None);
        // The new acquisition interrupts the storing of a value on a majority, or its removal. In
        // both cases the old value on the drives must not be believed.
        let doomed = |s: &Replica| s.stale_value && matches!(s.task, Task::Clean(_));
        let owing = self.owed > 0 || self.replicas.iter().any(doomed);
        self.distrust = if owing { Distrust::Died } else { Distrust::None };
        for replica in &mut self.replicas {
            replica.stale_value = owing && replica.hold != Hold::None;
            replica.disproved = false;
        }
        if owing {
            self.known.clear();
        }
        self.pending = None;
        self.shaken_at = Instant::default();
        Ok(())
    }

    /// The replica of a drive; creates a missing one.
    fn replica(&mut self, drive: DriveRef) -> &mut Replica {
        let at = self.replicas.iter().position(|s| s.drive == drive).unwrap_or_else(|| {
            self.replicas.push(Replica::new(drive, Role::Former, self.config.earlier_until));
            self.replicas.len() - 1
        });
        &mut self.replicas[at]
    }

    /// Drops the replicas that have nothing left to do or to remember. If the value of a drive is
    /// useless, drives are read before they are taken again: where it was not replaced, this host's
    /// record is still there, and shows that the value is useless.
    fn prune(&mut self, now: Instant) {
        if self.replicas.iter().any(|s| s.stale_value) {
            self.known.clear();
        }
        self.replicas.retain(|s| {
            let busy = match s.task {
                Task::Idle => false,
                // A release has to give it back, whatever was requested since.
                Task::Leave => s.hold != Hold::None,
                Task::Take(_) | Task::Keep | Task::Clean(_) => true,
            };
            s.flight.is_some() || busy || s.settled_at() > now
        });
    }

    fn members(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|s| s.role == Role::Member)
    }

    fn member_count(&self) -> usize {
        self.members().count()
    }

    /// Whether a drive counts as holding the lock in `mode`.
    fn counts(&self, replica: &Replica, mode: Mode) -> bool {
        replica.counts(mode, self.set, self.rules)
    }

    /// The moment when the next command to a drive may be sent. While a held lock is shaken, no
    /// drive is added.
    fn ready_at(&self, replica: &Replica, stands: bool) -> Option<Instant> {
        replica.ready_at(self.rules).filter(|_| stands || !replica.is_enlarging())
    }

    /// Draws the conclusions of the phase that the lock is in.
    fn conclude(&mut self, now: Instant) {
        self.let_go(now);
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
