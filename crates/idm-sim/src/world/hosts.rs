//! Hosts: calls of their engines, commands that these send, and events that they report.

use super::World;
use super::agenda::What;
use super::network::{FlightIx, Ticket};
use super::slots::{Caller, NEVER, Side};
use super::text::{Brief, trace};
use crate::clock::Clock;
use crate::coverage::Count;
use crate::ids::{DriveIx, DriveSet, HostIx, HostSet, Ix, LockIx, SlotIx};
use crate::observe::Tone;
use crate::old_stack::{OldEvent, OldLock};
use crate::plan::{log_uniform, some_time};
use idm_engine::{Event, Fingerprint, Instant, Lock, LockConfig, Loss, Notice, Undoes};
use idm_protocol::HostId;

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) clock: Clock,
    pub(super) id: HostId,
    /// The number of its names so far.
    pub(super) lives: u8,
    pub(super) alive: bool,
    pub(super) frozen_until: u64,
    /// The moment of its return, if it is to die when a drive next grants a request.
    pub(super) doomed_until: Option<u64>,
    /// Replies that arrived while it stood still.
    pub(super) deferred: Vec<FlightIx>,
    /// The moments of its deaths. Commands of before a death go on for some time.
    pub(super) deaths: Vec<u64>,
    /// The moments until which commands of this life may undo the next one's adopted locks, and its
    /// exclusive ones, as the host has noted them.
    pub(super) undoes_until: Instant,
    pub(super) shares_until: Instant,
    /// The same for its earlier life, as found in its notes.
    pub(super) earlier_until: Instant,
    pub(super) earlier_shares_until: Instant,
    /// The moment until which other commands of its earlier life may still reach a drive.
    pub(super) earlier_writes_until: Instant,
    /// The drives of the VG that it knows of.
    pub(super) list: DriveSet,
}

impl Host {
    pub(super) fn new(h: HostIx, clock: Clock, list: DriveSet) -> Host {
        Host {
            clock,
            id: host_id(h, 0),
            lives: 0,
            alive: true,
            frozen_until: 0,
            doomed_until: None,
            deferred: Vec::new(),
            deaths: Vec::new(),
            undoes_until: Instant::default(),
            shares_until: Instant::default(),
            earlier_until: Instant::default(),
            earlier_shares_until: Instant::default(),
            earlier_writes_until: Instant::default(),
            list,
        }
    }

    /// The moment of its last death.
    pub(super) fn died_at(&self) -> u64 {
        self.deaths.last().copied().unwrap_or(0)
    }
}

/// A host's name in one of its lives.
pub(super) fn host_id(h: HostIx, life: u8) -> HostId {
    const NAMES: [&str; 8] =
        ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"];
    HostId::new([h.get() as u8 * 16 + life + 1; 16], NAMES[h.get() % NAMES.len()])
}

impl World {
    /// The reading of a host's clock.
    pub(super) fn local(&self, h: HostIx) -> Instant {
        Instant::from_micros(self.hosts[h].clock.at(self.now()))
    }

    /// Whether a host runs the older stack.
    pub(super) fn is_old(&self, h: HostIx) -> bool {
        h.get() >= self.hosts.len() - self.plan.old_hosts
    }

    /// Whether an administrator gives locks back on this host.
    pub(super) fn repairs(&self, h: HostIx) -> bool {
        self.plan.repairer == Some(h)
    }

    /// A new engine for a host's lock.
    pub(super) fn new_side(&mut self, h: HostIx, l: LockIx) -> Side {
        let lock = &self.locks[l];
        let (resource, host, timing) = (lock.resource, self.hosts[h].id, self.plan.timing);
        if self.is_old(h) {
            let drives = lock.layout.iter().map(DriveIx::drive_ref);
            return Side::Old(Box::new(OldLock::new(resource, host, timing, drives)));
        }
        let mut config =
            LockConfig::new(resource, host, lock.keeps_value, timing, self.rng.u64(..));
        config.earlier_until = self.hosts[h].earlier_until;
        config.earlier_shares_until = self.hosts[h].earlier_shares_until;
        config.earlier_writes_until = self.hosts[h].earlier_writes_until;
        #[cfg(feature = "broken-rules")]
        {
            config.broken = self.broken;
        }
        Side::Engine(Box::new(Lock::new(config)))
    }

    /// Handles a lock's deadline.
    pub(super) fn timer(&mut self, s: SlotIx) {
        if self.slots[s].engine.timer_at != self.now() {
            return;
        }
        self.slots[s].engine.timer_at = NEVER;
        let host = &self.hosts[self.slots.host(s)];
        if host.alive && self.now() >= host.frozen_until {
            self.run_timer(s);
        }
    }

    /// Lets an engine do everything that is due.
    pub(super) fn run_timer(&mut self, s: SlotIx) {
        let now = self.local(self.slots.host(s));
        self.slots[s].engine.side.on_timer(now);
        self.settle(s);
        self.require(self.check_lapse_told(s, now));
    }

    /// Follows up a call of an engine: sends its commands, takes in its events, and checks its
    /// belief.
    pub(super) fn settle(&mut self, s: SlotIx) {
        let now = self.local(self.slots.host(s));
        loop {
            match &mut self.slots[s].engine.side {
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
            let mut undoes = Undoes::Nothing;
            let next = match &mut self.slots[s].engine.side {
                Side::Engine(lock) => lock.next_command(now).map(|c| {
                    undoes = c.undoes;
                    (Ticket::Engine(c.token), c.drive, c.command)
                }),
                Side::Old(lock) => {
                    lock.next_command(now).map(|(drive, command)| (Ticket::Old, drive, command))
                }
            };
            let Some((ticket, drive, command)) = next else {
                break;
            };
            self.note_undoing(self.slots.host(s), undoes);
            self.send(s, ticket, DriveIx::of(drive), command);
            if self.failure.is_some() {
                return;
            }
        }
        self.schedule_timer(s);
        self.update_belief(s);
    }

    fn schedule_timer(&mut self, s: SlotIx) {
        let deadline = self.slots[s].engine.side.next_deadline();
        self.require(self.check_lapse_deadline(s, deadline));
        let Some(deadline) = deadline else { return };
        let now = self.now();
        let clock = self.hosts[self.slots.host(s)].clock;
        let at = clock.when(deadline.as_micros()).max(now);
        if at < self.slots[s].engine.timer_at {
            let at = at + self.rng.u64(0..self.plan.lateness.max(1));
            // Never twice at the same moment, or two entries would look like one.
            let at = if at == now { at + 1 } else { at };
            if at < self.slots[s].engine.timer_at {
                self.slots[s].engine.timer_at = at;
                self.push(at, What::Timer(s));
            }
        }
    }

    fn update_belief(&mut self, s: SlotIx) {
        let side = &self.slots[s].engine.side;
        let mode = side.mode();
        let until = match (mode, side.safe_until()) {
            (Some(_), Some(end)) => self.hosts[self.slots.host(s)].clock.when(end.as_micros()),
            _ => 0,
        };
        if self.slots[s].engine.mode.is_some() && mode.is_none() {
            self.slots[s].seen.foreign_since = None;
            self.tenure_ends(s);
        }
        let engine = &mut self.slots[s].engine;
        engine.mode = mode;
        engine.until = until;
        self.observe_belief(s);
        if !self.believes(s) {
            return;
        }
        self.require(self.check_regained(s));
        if !self.slots[s].engine.probing {
            self.slots[s].engine.probing = true;
            self.push(until - 1, What::Probe(s));
        }
        self.look_at_pairs(s);
        self.require(self.check_votes(s));
        self.require(self.check_seen(s));
        self.require(self.check_marks(s));
    }

    /// Checks a belief that is about to end, or was prolonged.
    pub(super) fn probe(&mut self, s: SlotIx) {
        self.slots[s].engine.probing = false;
        if !self.believes(s) {
            return;
        }
        let until = self.slots[s].engine.until;
        if self.now() + 1 >= until {
            self.require(self.check_votes(s));
            self.require(self.check_seen(s));
            self.look_at_pairs(s);
        } else {
            self.slots[s].engine.probing = true;
            self.push(until - 1, What::Probe(s));
        }
    }

    /// Ends a host's tenure, and with it others' knowledge of it.
    pub(super) fn tenure_ends(&mut self, s: SlotIx) {
        self.touch(s);
        let host = self.slots.host(s);
        let without = |hosts: &mut HostSet| hosts.remove(host);
        for other in self.slots.rivals(s) {
            let seen = &mut self.slots[other].seen;
            seen.foreign_since = None;
            without(&mut seen.request.knows);
            seen.request.conflicts.iter_mut().for_each(without);
        }
    }
}

// Reports of engines.

impl World {
    fn engine_event(&mut self, s: SlotIx, event: Event) {
        trace!(self, "{} event {:?}", self.name(s), Brief(&event));
        self.observe_event(s, &event);
        match event {
            Event::Done(outcome) => self.done(s, outcome),
            Event::Lapsed => self.lapsed(s),
            Event::Regained => {
                self.coverage.add(Count::Regained);
                self.slots[s].engine.lapsed = false;
            }
            Event::Lost(loss) => self.lost(s, loss),
            Event::VotesReady { members } => {
                // The host notes them, which takes a moment.
                let after = log_uniform(&mut self.rng, 100_000);
                let stamp = self.slots[s].engine.life;
                let set = members.into_iter().map(DriveIx::of).collect();
                self.push(self.now() + after, What::Noted(s, stamp, set));
            }
            Event::Notice(notice) => self.notice(s, &notice),
        }
    }

    /// Completes the note of the drives that are ready, and gives them the vote.
    pub(super) fn noted(&mut self, s: SlotIx, life: u32, set: DriveSet) {
        let h = self.slots.host(s);
        if self.slots[s].engine.life != life || !self.hosts[h].alive {
            return;
        }
        if self.now() < self.hosts[h].frozen_until {
            let at = self.hosts[h].frozen_until + 1;
            return self.push(at, What::Noted(s, life, set));
        }
        let before = core::mem::replace(&mut self.slots[s].legacy.noted, set);
        let now = self.local(h);
        let drives: Vec<_> = set.iter().map(DriveIx::drive_ref).collect();
        let Side::Engine(lock) = &mut self.slots[s].engine.side else { return };
        if lock.move_votes(&drives, now) {
            self.touch(s);
            self.observe_note(s, Tone::Good, format_args!("{set} vote now"));
            self.coverage.add(Count::VotesMoved);
            let slot = &mut self.slots[s];
            slot.call.members = set;
            slot.call.votes_moved = true;
            slot.call.witnesses = DriveSet::EMPTY;
            slot.seen.set_mark = Fingerprint::of(&set.members()).0;
        } else {
            self.slots[s].legacy.noted = before;
        }
        self.settle(s);
    }

    fn lapsed(&mut self, s: SlotIx) {
        self.coverage.add(Count::Lapsed);
        self.slots[s].engine.lapsed = true;
        self.require(self.check_lapse_cause(s));
        if self.slots[s].call.caller == Caller::Holding && self.rng.bool() {
            // The kill path: users of the lock are stopped, then the lock is dropped.
            self.slots[s].call.caller = Caller::Dropping;
            let after = log_uniform(&mut self.rng, self.plan.lease());
            self.call_caller(s, after);
        }
    }

    fn lost(&mut self, s: SlotIx, loss: Loss) {
        self.coverage.add(match loss {
            Loss::Taken => Count::LostTaken,
            Loss::OtherSet(_) => Count::LostOtherSet,
        });
        self.poison(s);
        self.require(self.check_lost(s));
        // If a request is under way, its end decides.
        if matches!(self.slots[s].call.caller, Caller::Holding | Caller::Dropping) {
            self.slots[s].call.caller = Caller::Dropping;
            let after = log_uniform(&mut self.rng, 1_000_000);
            self.call_caller(s, after);
        }
    }

    fn notice(&mut self, s: SlotIx, notice: &Notice) {
        self.coverage.add(match notice {
            Notice::Broke { .. } => Count::Broke,
            Notice::TookOverOwn { .. } => Count::TookOverOwn,
            Notice::DriveLost { .. } => Count::DriveLost,
            Notice::DriveGained { .. } => Count::DriveGained,
            Notice::SplitVote => {
                self.slots[s].seen.request.splits += 1;
                Count::SplitVote
            }
            Notice::Collected { .. } => Count::Collected,
            Notice::NotIdm { .. } => Count::NotIdm,
        });
    }

    fn old_event(&mut self, s: SlotIx, event: OldEvent) {
        trace!(self, "{} event {event:?}", self.name(s));
        match event {
            OldEvent::Granted => {
                self.coverage.add(Count::OldGranted);
                self.observe_answer(s, Tone::Good, format_args!("granted"));
                self.granted(s, None);
            }
            OldEvent::Refused => {
                self.coverage.add(Count::OldRefused);
                self.observe_answer(s, Tone::Bad, format_args!("refused"));
                self.refused(s);
            }
            OldEvent::Lost => {
                self.coverage.add(Count::OldLost);
                self.observe_note(s, Tone::Bad, format_args!("lost"));
                self.poison(s);
                // It unlocks a lost lock, and leaves the value there as if the value were right.
                let l = self.slots.lock(s);
                self.locks[l].muddled = true;
                self.slots[s].call.caller = Caller::Idle;
                let after = some_time(&mut self.rng, self.plan.pause);
                self.call_caller(s, after);
            }
        }
    }
}
