//! The invariants of requests: engines accept them, answer in time and correctly, at a fair price.

use crate::ids::{DriveIx, Ix, LockIx, SlotIx};
use crate::world::World;
use crate::world::slots::Caller;
use crate::world::verdict::{Verdict, Violation, ensure, violation};
use core::fmt;
use idm_engine::Refusal;
use idm_protocol::{Mode, Value};

/// More commands than any seed needs; beyond this number a host sends without end.
const STORM: u64 = 200_000;

/// The number of refusals in a row that never occurs while the lock is free, where hosts ask again
/// after an eighth of a lease or later.
const REFUSALS: u32 = 25;

impl World {
    /// Requires that no host sends without end.
    pub(in crate::world) fn check_storm(&self, s: SlotIx) -> Verdict {
        ensure!(
            self.network.commands <= STORM,
            "command storm",
            "{} commands, the last by {}",
            self.network.commands,
            self.name(s)
        );
        Ok(())
    }

    /// Requires that an engine accepts a caller's request.
    pub(in crate::world) fn check_taken<E: fmt::Debug>(
        &self,
        s: SlotIx,
        what: &str,
        taken: Result<(), E>,
    ) -> Verdict {
        taken.map_err(|error| {
            violation!("a request that is allowed is taken", "{}: {what}: {error:?}", self.name(s))
        })
    }

    /// The violation by a request that was not answered in time.
    pub(in crate::world) fn overdue_violation(&self, s: SlotIx) -> Violation {
        violation!(
            "request answered",
            "{}: {:?} for longer than its patience",
            self.name(s),
            self.slots[s].call.caller
        )
    }

    /// Requires that a grant is good when it is reported.
    pub(in crate::world) fn check_grant(&self, s: SlotIx) -> Verdict {
        let now = self.local(self.slots.host(s));
        let slot = &self.slots[s];
        let (mode, end) = (slot.engine.side.mode(), slot.engine.side.safe_until());
        ensure!(
            mode == Some(slot.call.target) && end.is_some_and(|end| now < end),
            "a grant is good when it is told",
            "{}: mode {mode:?}, safe until {end:?}, now {now:?}",
            self.name(s)
        );
        Ok(())
    }

    /// Requires that a converted lock has the requested mode, or is lost.
    pub(in crate::world) fn check_converted(&self, s: SlotIx, mode: Mode) -> Verdict {
        let present = self.slots[s].engine.side.mode();
        ensure!(
            present.is_none_or(|present| present == mode),
            "converted to the mode asked for",
            "{} is {present:?}",
            self.name(s)
        );
        Ok(())
    }

    /// Requires that a release is complete when the request returns.
    pub(in crate::world) fn check_released(&self, s: SlotIx) -> Verdict {
        let slot = &self.slots[s];
        ensure!(
            slot.call.caller == Caller::Idle && slot.engine.mode.is_none(),
            "release completes at once",
            "{} is still {:?}",
            self.name(s),
            slot.call.caller
        );
        Ok(())
    }

    /// Whether the value that a host reads must be the last one.
    pub(in crate::world) fn value_counts(&self, s: SlotIx) -> bool {
        let lock = &self.locks[self.slots.lock(s)];
        self.plan.kind.is_safe() && lock.keeps_value && !lock.muddled && !self.plan.lists_differ
    }

    /// Requires that a value reported as known is the last one, or a later one.
    pub(in crate::world) fn check_value(&self, s: SlotIx, value: Value) -> Verdict {
        let lock = &self.locks[self.slots.lock(s)];
        let floor = self.slots[s].call.floor.max(lock.poison);
        let name = self.name(s);
        let value = value.get();
        ensure!(value <= lock.issued, "a value was published by somebody", "{name} read {value}");
        ensure!(value != 0, "\"never written\" is not a known value", "{name}");
        ensure!(
            value >= floor,
            "a known value is current",
            "{name} was told {value}, but {floor} was published or spoilt before it asked"
        );
        Ok(())
    }

    /// Requires that a lone host gets a lock in a healthy cluster. A request that breaks dead
    /// holders is excepted: on a slow drive among the VG's others, this takes more round trips than
    /// the time for these drives allows.
    pub(in crate::world) fn check_lone(&self, s: SlotIx) -> Verdict {
        ensure!(
            !self.slots[s].call.lone || self.slots[s].seen.request.breaks,
            "a lone acquire in a healthy cluster is granted",
            "{} was refused",
            self.name(s)
        );
        Ok(())
    }

    /// Requires that some host gets a free lock in a healthy cluster. Where requests follow each
    /// other quickly, many of them meet the same remains, which may stay for a while.
    pub(in crate::world) fn check_somebody(&self, l: LockIx) -> Verdict {
        let hurry = (self.plan.lease() / 8).checked_div(self.plan.retry);
        let most = u64::from(REFUSALS) * hurry.unwrap_or_default().max(1);
        ensure!(
            u64::from(self.locks[l].refusals) <= most,
            "somebody gets a free lock",
            "lock {l:?} is free, and {most} requests in a row were refused"
        );
        Ok(())
    }

    /// Whether a refusal is plain: live holders had held the lock for a while and kept it, without
    /// dead ones beside them, and nothing else goes wrong.
    pub(in crate::world) fn is_plain_refusal(&self, s: SlotIx, refusal: &Refusal) -> bool {
        let quiet = self.plan.kind.is_safe() && self.plan.calm_at == 0 && self.plan.old_hosts == 0;
        // A holder whose votes have moved goes on to write its records anew for a while.
        let moving = if self.plan.moves { self.plan.lease() } else { 0 };
        let longest = 20 * self.plan.slowest_path() + moving;
        let slot = &self.slots[s];
        let lock = &self.locks[self.slots.lock(s)];
        let acquires = |o: SlotIx| o != s && self.slots[o].call.caller == Caller::Acquiring;
        let still =
            lock.touched_at + longest < slot.call.started && !self.slots.rivals(s).any(acquires);
        let kept = matches!(refusal, Refusal::Held(holders) if !holders.is_empty());
        quiet && still && kept && slot.call.fresh && !slot.seen.request.breaks
    }

    /// Requires that a plain refusal takes three round trips at most.
    pub(in crate::world) fn check_refusal_time(&self, s: SlotIx) -> Verdict {
        let slot = &self.slots[s];
        let delay = &self.plan.delay[self.slots.host(s)];
        let asked = slot.call.members | slot.call.witnesses;
        let slowest = asked.iter().map(|d| u64::from(delay[d])).max().unwrap_or(0);
        // A round trip is at most twice a path's base delay each way. Firmware that does not admit
        // sharers needs one more, to distinguish that from a holder that has just become one.
        let solitary = self.drives.iter().any(|(_, d)| !d.drive.profile().sharers_admitted);
        let trips = if solitary { 4 } else { 3 };
        let most = trips * 4 * slowest + 2 * self.plan.lateness;
        let took = self.now() - slot.call.started;
        ensure!(
            took <= most || slot.seen.request.splits > 0,
            "refused within three round trips",
            "{} took {took} us",
            self.name(s)
        );
        Ok(())
    }

    /// Requires that a plain refusal costs four commands per drive at most. Each attempt that split
    /// the drives with another host's may cost as much again.
    pub(in crate::world) fn check_count(&self, s: SlotIx) -> Verdict {
        let request = &self.slots[s].seen.request;
        let most = 4 * (1 + request.splits);
        let over = request.sent.iter().enumerate().find(|&(_, &n)| n > most);
        if let Some((d, n)) = over {
            return Err(violation!(
                "refused with at most four commands a drive",
                "{} sent {n} commands to {}",
                self.name(s),
                DriveIx::new(d)
            ));
        }
        Ok(())
    }
}
