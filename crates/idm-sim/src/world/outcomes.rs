//! The outcomes of callers' requests, and their consequences.

use super::World;
use super::slots::Caller;
use super::verdict::violation;
use crate::coverage::Count;
use crate::ids::{PerDrive, SlotIx};
use crate::plan::some_time;
use idm_engine::{Outcome, Refusal, ValueRead};
use idm_protocol::{Mode, Value};

impl World {
    /// Handles an engine's report of the end of a request.
    pub(super) fn done(&mut self, s: SlotIx, outcome: Outcome) {
        match (self.slots[s].call.caller, outcome) {
            (Caller::Acquiring, Outcome::Granted(value)) => self.granted(s, Some(value)),
            (Caller::Adopting(_), Outcome::Adopted(mode)) => self.adopted(s, mode),
            (Caller::Adopting(tries), Outcome::Refused(refusal)) => {
                self.not_adopted(s, tries, &refusal);
            }
            (Caller::Acquiring, Outcome::Refused(refusal)) => {
                self.coverage.add(refusal_count(&refusal));
                self.heed_refusal(s, &refusal);
                self.refused(s);
            }
            (Caller::Converting(mode, value), Outcome::Converted { complete }) => {
                self.coverage.add(if complete { Count::Converted } else { Count::ConvertedLater });
                self.converted(s, mode, value);
            }
            (Caller::Converting(..), Outcome::Refused(_)) => {
                self.coverage.add(Count::ConvertRefused);
                if let Some(mode) = self.slots[s].engine.mode {
                    self.slots[s].call.target = mode;
                }
                self.hold_on(s);
            }
            // Reported from within the request itself.
            (Caller::Dropping | Caller::Holding, Outcome::Released) => {
                self.slots[s].call.caller = Caller::Idle;
            }
            (caller, outcome) => self.fail(violation!(
                "outcomes answer requests",
                "{}: {outcome:?} while {caller:?}",
                self.name(s)
            )),
        }
    }

    fn converted(&mut self, s: SlotIx, mode: Mode, value: Option<Value>) {
        // A published value counts if the lock was safe to the end.
        if let Some(value) = value.filter(|_| self.slots[s].call.dirty) {
            self.publish(s, value);
        }
        self.touch(s);
        self.draw_dirty(s);
        self.note_grant_features(s);
        self.require(self.check_converted(s, mode));
        if mode == Mode::Exclusive {
            self.usurp(s);
            self.require(self.check_grant_sets(s));
            self.require(self.check_orphans(s));
        }
        self.hold_on(s);
    }

    /// Decides whether the only holder of a VG lock is about to change something.
    fn draw_dirty(&mut self, s: SlotIx) {
        let keeps_value = self.locks[self.slots.lock(s)].keeps_value;
        let publishes = keeps_value && !self.repairs(self.slots.host(s));
        let call = &mut self.slots[s].call;
        call.dirty = call.target == Mode::Exclusive && publishes && self.rng.bool();
    }

    /// Lets the caller keep the lock, and act later.
    pub(super) fn hold_on(&mut self, s: SlotIx) {
        let lost = self.slots[s].engine.side.mode().is_none();
        self.slots[s].call.caller = if lost { Caller::Dropping } else { Caller::Holding };
        let most = match lost {
            _ if self.stopped || self.repairs(self.slots.host(s)) => 1000,
            true => self.plan.hold.min(1_000_000),
            false => self.plan.hold,
        };
        let after = some_time(&mut self.rng, most);
        self.call_caller(s, after);
    }

    /// Handles an adoption.
    fn adopted(&mut self, s: SlotIx, mode: Mode) {
        self.coverage.add(Count::Adopted);
        if 2 * self.votes(s) == self.slots[s].call.members.len() {
            self.coverage.add(Count::AdoptedFew);
        }
        let slot = &mut self.slots[s];
        if slot.call.target != mode {
            // The adoption named no mode; conflicts with the expected mode prove nothing.
            slot.call.target = mode;
            slot.seen.request.conflicts = PerDrive::default();
        }
        let left = core::mem::take(&mut slot.legacy);
        slot.legacy.noted = left.noted;
        self.require(self.check_adopted(s, mode, left));
        self.granted(s, None);
    }

    fn not_adopted(&mut self, s: SlotIx, tries: u8, refusal: &Refusal) {
        self.coverage.add(match refusal {
            Refusal::NothingToAdopt => Count::AdoptNothing,
            Refusal::OtherMode(_) => Count::AdoptOtherMode,
            _ => Count::AdoptLeft,
        });
        let nothing = *refusal == Refusal::NothingToAdopt;
        if nothing {
            self.require(self.check_nothing_to_adopt(s));
        }
        let call = &mut self.slots[s].call;
        if let Refusal::OtherMode(mode) = refusal {
            call.target = *mode;
        }
        // A lock that is gone, or that nothing uses, is given up at the next call.
        let tries = if nothing { 0 } else { tries.saturating_sub(1) };
        call.caller = Caller::Adopting(tries);
        let after = some_time(&mut self.rng, self.plan.retry);
        self.call_caller(s, after);
    }

    /// Handles a grant.
    pub(super) fn granted(&mut self, s: SlotIx, value: Option<ValueRead>) {
        let l = self.slots.lock(s);
        self.touch(s);
        self.coverage.add(match self.slots[s].call.target {
            Mode::Exclusive => Count::GrantedEx,
            Mode::Shared => Count::GrantedSh,
        });
        if self.repairs(self.slots.host(s)) {
            self.coverage.add(Count::Repaired);
        }
        self.locks[l].refusals = 0;
        let slot = &mut self.slots[s];
        slot.engine.lapsed = false;
        slot.seen.tenure += 1;
        slot.legacy.usurped = None;
        slot.legacy.granted = self.rng.u8(0..4) != 0;
        self.note_grant_features(s);
        self.require(self.check_grant(s));
        if self.votes(s) < self.slots[s].call.members.len() {
            self.coverage.add(Count::GrantedFew);
        }
        self.usurp(s);
        self.require(self.check_grant_sets(s));
        self.require(self.check_orphans(s));
        if let Some(value) = value {
            self.heed_value(s, value);
        }
        self.draw_dirty(s);
        self.hold_on(s);
        if core::mem::take(&mut self.slots[s].call.lone) {
            self.coverage.add(Count::LoneAcquire);
        }
    }

    /// Notes after a grant that lapsed hosts with a conflicting mode must not come back to it.
    fn usurp(&mut self, s: SlotIx) {
        let target = self.slots[s].call.target;
        for other in self.slots.rivals(s) {
            if other != s
                && !self.believes(other)
                && !self.can_miss(s, other)
                && self.slots[other].held().is_some_and(|m| !m.compatible(target))
            {
                let usurped = &mut self.slots[other].legacy.usurped;
                *usurped = (*usurped).max(Some(target));
                self.poison(other);
            }
        }
    }

    /// Notes that a holder died during a change: older values are no longer right.
    pub(super) fn poison(&mut self, s: SlotIx) {
        if core::mem::take(&mut self.slots[s].call.dirty) {
            let l = self.slots.lock(s);
            self.locks[l].spoil();
        }
    }

    /// Notes a host's publication of a value.
    pub(super) fn publish(&mut self, s: SlotIx, value: Value) {
        let (h, l) = (self.slots.host(s), self.slots.lock(s));
        self.locks[l].publish(value, h);
        self.slots[s].call.dirty = false;
        self.coverage.add(Count::Published);
    }

    /// Notes that a host acts on a lock.
    pub(super) fn touch(&mut self, s: SlotIx) {
        let l = self.slots.lock(s);
        self.locks[l].touched_at = self.now();
    }

    fn heed_value(&mut self, s: SlotIx, value: ValueRead) {
        let ValueRead::Known(value) = value else {
            self.coverage.add(Count::GrantedUnknown);
            return;
        };
        self.coverage.add(Count::GrantedKnown);
        if !self.value_counts(s) {
            return;
        }
        let publisher = self.locks[self.slots.lock(s)].publisher;
        if value.get() > 0 && publisher != self.slots.host(s) {
            self.coverage.add(Count::GrantedKnownLater);
        }
        self.require(self.check_value(s, value));
    }

    /// Checks that a refusal by live holders, without other faults, is quick and cheap.
    fn heed_refusal(&mut self, s: SlotIx, refusal: &Refusal) {
        if !self.is_plain_refusal(s, refusal) {
            return;
        }
        self.coverage.add(Count::RefusalChecked);
        self.slots[s].call.count_checked = true;
        self.require(self.check_refusal_time(s));
        self.require(self.check_count(s));
    }

    /// Handles a refusal.
    pub(super) fn refused(&mut self, s: SlotIx) {
        let l = self.slots.lock(s);
        self.touch(s);
        self.slots[s].call.caller = if self.stopped { Caller::Finished } else { Caller::Idle };
        self.require(self.check_lone(s));
        // In a healthy cluster some host gets the lock.
        let nobody = self.slots.rivals(s).all(|o| self.slots[o].engine.mode.is_none());
        let settled = self.settled() && self.slots[s].call.started >= self.plan.settled_at;
        let lock = &mut self.locks[l];
        lock.refusals = if nobody && settled { lock.refusals + 1 } else { 0 };
        self.require(self.check_somebody(l));
        let after = some_time(&mut self.rng, self.plan.retry);
        self.call_caller(s, after);
    }
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
