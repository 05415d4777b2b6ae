//! The invariants that are checked late: after a loss beyond the budget, and at the end.

use crate::coverage::Count;
use crate::ids::SlotIx;
use crate::world::World;
use crate::world::agenda::What;
use crate::world::slots::Caller;
use crate::world::verdict::{Verdict, ensure};

/// The result of a loss beyond the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aftermath {
    /// Another tenure has begun, or another reset has its own time.
    Open,
    Noticed,
    Healed,
    Overlooked,
}

impl World {
    /// Requires that no work is left long after the last request.
    pub(in crate::world) fn check_idle(&self) -> Verdict {
        for s in self.slots.ids().filter(|&s| self.hosts[self.slots.host(s)].alive) {
            let slot = &self.slots[s];
            let finished = matches!(slot.call.caller, Caller::Finished | Caller::Idle);
            ensure!(
                slot.engine.side.is_idle() && finished,
                "release completes",
                "{} is not idle long after the end ({:?}, {:?})",
                self.name(s),
                slot.call.caller,
                slot.engine.side
            );
        }
        Ok(())
    }

    /// Plans the check after a reset beyond the budget: every drive is refreshed once within the
    /// renewal time, so by then a host must know of the loss.
    pub(in crate::world) fn expect_notice(&mut self, s: SlotIx) {
        let tenure = self.slots[s].seen.tenure;
        self.push(self.now() + self.notice_time(), What::Notice(s, tenure));
    }

    fn notice_time(&self) -> u64 {
        let renew = self.plan.renew();
        let trips = 8 * self.plan.slowest_path() + 2 * self.plan.lateness;
        renew + renew / 100 + trips + 1000
    }

    fn aftermath(&self, s: SlotIx, tenure: u32) -> Aftermath {
        let slot = &self.slots[s];
        let members = slot.call.members;
        let fresh = |d| slot.seen.lost_at[d] + self.notice_time() > self.now();
        if slot.seen.tenure != tenure || members.iter().any(fresh) {
            Aftermath::Open
        } else if !self.believes(s) {
            Aftermath::Noticed
        } else if self.votes(s) >= members.keep_quorum() {
            Aftermath::Healed
        } else {
            Aftermath::Overlooked
        }
    }

    /// Checks the loss after the time in which it must have been noticed.
    pub(in crate::world) fn look_back(&mut self, s: SlotIx, tenure: u32) {
        let aftermath = self.aftermath(s, tenure);
        match aftermath {
            Aftermath::Noticed => self.coverage.add(Count::Noticed),
            Aftermath::Healed => self.coverage.add(Count::Healed),
            Aftermath::Open | Aftermath::Overlooked => (),
        }
        self.require(self.check_noticed(s, aftermath));
    }

    fn check_noticed(&self, s: SlotIx, aftermath: Aftermath) -> Verdict {
        ensure!(
            aftermath != Aftermath::Overlooked,
            "a loss beyond the budget is noticed",
            "{} believes in {:?} on {} of {} drives",
            self.name(s),
            self.slots[s].engine.mode,
            self.votes(s),
            self.slots[s].call.members.len()
        );
        Ok(())
    }
}
