//! Hosts stand still and go on, die and come back.

use super::World;
use super::agenda::What;
use super::hosts::host_id;
use super::observing::{FROZEN, death};
use super::slots::{Caller, Legacy, Slot};
use super::text::trace;
use crate::coverage::Count;
use crate::ids::{DriveSet, HostIx, SlotIx};
use crate::observe::Place;
use crate::plan::{log_uniform, some_time};
use idm_engine::Instant;
use idm_protocol::Mode;

impl World {
    /// Stops a host; its clock goes on.
    pub(super) fn freeze(&mut self, h: HostIx, until: u64) {
        if !self.hosts[h].alive || self.now() < self.hosts[h].frozen_until {
            return;
        }
        self.coverage.add(Count::Frozen);
        for s in self.slots.of_host(h) {
            if self.believes(s) && self.slots[s].engine.until < until {
                self.coverage.add(Count::FrozenHolding);
            }
        }
        self.hosts[h].frozen_until = until;
        self.observe_fault_span(Place::Host(h), FROZEN, true);
        self.push(until, What::Thaw(h));
    }

    /// Lets a host go on: replies have piled up, and timers are due.
    pub(super) fn thaw(&mut self, h: HostIx) {
        trace!(self, "host {h:?} thaws");
        self.observe_fault_span(Place::Host(h), FROZEN, false);
        let mut deferred = core::mem::take(&mut self.hosts[h].deferred);
        self.rng.shuffle(&mut deferred);
        let timers_first = self.rng.bool();
        if timers_first {
            self.timers(h);
        }
        for f in deferred.drain(..) {
            if self.failure.is_none() {
                self.deliver(f);
            }
        }
        self.hosts[h].deferred = deferred;
        if !timers_first && self.failure.is_none() {
            self.timers(h);
        }
    }

    fn timers(&mut self, h: HostIx) {
        for s in self.slots.of_host(h) {
            self.run_timer(s);
        }
    }

    /// Lets a host die in the middle of an acquire, when it has got some drives: half of them, if
    /// their number is even.
    pub(super) fn crash_asking(&mut self, s: SlotIx) {
        let h = self.slots.host(s);
        let asks = self.slots[s].call.caller == Caller::Acquiring;
        let Some(until) = self.hosts[h].doomed_until.filter(|_| asks) else { return };
        let members = self.slots[s].call.members;
        let got = members.iter().filter(|&d| self.has_record(s, d)).count();
        let even = members.len() % 2 == 0;
        if (even && 2 * got == members.len()) || (!even && self.rng.bool()) {
            self.hosts[h].doomed_until = None;
            self.coverage.add(Count::CrashedAsking);
            self.crash(h, until, false);
        }
    }

    /// Ends a host's engines; its records stay.
    pub(super) fn crash(&mut self, h: HostIx, until: u64, renamed: bool) {
        if !self.hosts[h].alive || self.now() < self.hosts[h].frozen_until {
            return;
        }
        self.coverage.add(Count::Crashed);
        let now = self.now();
        let host = &mut self.hosts[h];
        host.alive = false;
        host.deaths.push(now);
        for s in self.slots.of_host(h) {
            if self.slots[s].engine.mode.is_some() {
                self.coverage.add(Count::CrashedHolding);
                self.tenure_ends(s);
            }
            self.poison(s);
            self.end_life(s, renamed);
        }
        self.observe_death(h, renamed);
        self.push(until, What::Return(h, renamed));
    }

    /// Replaces a dead engine by one for the next life.
    fn end_life(&mut self, s: SlotIx, renamed: bool) {
        let side = self.new_side(self.slots.host(s), self.slots.lock(s));
        let old = core::mem::replace(&mut self.slots[s], Slot::new(side));
        let changing = matches!(old.call.caller, Caller::Converting(..));
        let held = old.engine.mode.map(|mode| (mode, changing));
        let orphan = held.or(old.legacy.orphan);
        if orphan.is_some() && !renamed {
            let there = old.call.members.iter().filter(|&d| self.has_record(s, d)).collect();
            let (left_on, safe_until) = match held {
                Some(_) => (there, old.engine.until),
                None => (there & old.legacy.left_on, old.legacy.safe_until),
            };
            let slot = &mut self.slots[s];
            let noted_safe = if held.is_some() { safe_until } else { old.legacy.noted_safe };
            slot.legacy = Legacy { orphan, left_on, safe_until, noted_safe, ..old.legacy };
            slot.call.members = old.call.members;
            // A reset may have taken votes that it still counted.
            let ends = self.orphan_ends(s);
            let legacy = &mut self.slots[s].legacy;
            legacy.safe_until = legacy.safe_until.min(ends);
        }
        let slot = &mut self.slots[s];
        slot.call.stamp = old.call.stamp + 1;
        slot.engine.life = old.engine.life + 1;
        slot.engine.probing = old.engine.probing;
    }

    /// Brings a dead host back.
    pub(super) fn come_back(&mut self, h: HostIx, renamed: bool) {
        trace!(self, "host {h:?} is back{}", if renamed { " under a new name" } else { "" });
        self.observe_fault_span(Place::Host(h), death(renamed), false);
        self.coverage.add(if renamed { Count::Rebooted } else { Count::Restarted });
        self.find_notes(h, renamed);
        let linger = self.plan.timing.linger;
        self.hosts[h].earlier_writes_until =
            if renamed { Instant::default() } else { self.local(h) + linger };
        let vg = self.vg;
        let host = &mut self.hosts[h];
        host.alive = true;
        host.list = vg;
        if self.plan.lists_differ {
            // PVs that are missing, or there again.
            let some = DriveSet::from_bits(self.rng.u16(1..=self.vg.bits()));
            self.hosts[h].list = if self.rng.bool() { some } else { self.plan.lists[h] };
        }
        let host = &mut self.hosts[h];
        if renamed {
            host.lives += 1;
            host.id = host_id(h, host.lives);
        }
        for s in self.slots.of_host(h) {
            let side = self.new_side(h, self.slots.lock(s));
            self.slots[s].engine.side = side;
            let mut after = some_time(&mut self.rng, self.plan.pause);
            if self.script.is_none() {
                after = self.draw_adoption(s, renamed).unwrap_or(after);
            }
            self.call_caller(s, after);
        }
    }

    /// The time of a restarted host's adoption from its notes, if it has a note.
    fn draw_adoption(&mut self, s: SlotIx, renamed: bool) -> Option<u64> {
        // A noted lock is adopted; nothing uses a lock without a note.
        if !renamed && self.rng.u8(0..self.plan.notes_lost) == 0 {
            self.slots[s].legacy = Legacy::default();
        }
        if renamed || (self.slots[s].legacy.orphan.is_none() && !self.rng.bool()) {
            return None;
        }
        self.plan_adoption(s);
        Some(log_uniform(&mut self.rng, self.plan.pause))
    }

    /// Finds the noted moments until which commands of a host's earlier life may still undo
    /// something. Without a note, they are as late as a dead host's commands go on at all.
    fn find_notes(&mut self, h: HostIx, renamed: bool) {
        let surely = self.local(h) + self.plan.timing.linger;
        let lost = self.rng.u8(0..8) == 0;
        let found = |noted: Instant| match noted {
            _ if renamed => Instant::default(),
            _ if lost => surely,
            noted => surely.min(noted),
        };
        let host = &mut self.hosts[h];
        host.earlier_until = found(host.undoes_until);
        host.earlier_shares_until = found(host.shares_until);
    }

    /// Draws the mode that a restarted host has noted for its lock: mostly the one that it had. A
    /// weaker one is noted before it is requested, and where that fails, the stronger one stays.
    fn plan_adoption(&mut self, s: SlotIx) {
        let other = self.rng.u8(0..8) == 0;
        let Slot { legacy, call, .. } = &mut self.slots[s];
        call.target = match legacy.orphan {
            Some((Mode::Exclusive, _)) if other => {
                legacy.orphan = Some((Mode::Shared, true));
                Mode::Shared
            }
            Some((Mode::Shared, _)) if !other => Mode::Shared,
            _ => Mode::Exclusive,
        };
        call.caller = Caller::Adopting(self.rng.u8(0..8));
    }
}
