//! Faults that last: their beginning, their end, and their targets.

use super::World;
use super::agenda::What;
use super::slots::Caller;
use super::text::trace;
use crate::coverage::Count;
use crate::ids::{DriveSet, HostIx, Ix};
use crate::plan::{Episode, Fault, log_uniform};

/// Adds a fault to a level, or removes one.
fn step(level: &mut u8, begins: bool) {
    if begins {
        *level += 1;
    } else {
        *level -= 1;
    }
}

/// The count for the beginning of a fault, if it is counted here.
fn beginning(what: Fault) -> Option<Count> {
    Some(match what {
        Fault::DriveGone(_) | Fault::DriveDead(_) => Count::DriveDown,
        Fault::DriveSlow(_) | Fault::DriveBusy(_) => Count::DriveSlow,
        Fault::DriveFull(_) => Count::DriveFull,
        Fault::PathFlaps(..) => Count::PathFlaps,
        Fault::PathDown(..) => Count::PathDown,
        Fault::Cut(_) => Count::Cut,
        Fault::DriveReset(_) | Fault::Frozen(_) | Fault::Restart(_) | Fault::Reboot(_) => {
            return None;
        }
    })
}

impl World {
    /// Begins or ends a fault.
    pub(super) fn change_fault(&mut self, e: u8, begins: bool) {
        let e = usize::from(e);
        if begins && self.script.is_none() {
            self.aim(e);
        }
        let Episode { to: until, what, .. } = self.plan.episodes[e];
        trace!(self, "{} {what:?}", if begins { "begins" } else { "ends" });
        if let Some(count) = beginning(what).filter(|_| begins) {
            self.coverage.add(count);
        }
        self.observe_fault(what, begins);
        match what {
            Fault::DriveGone(d) => step(&mut self.drives[d].gone, begins),
            Fault::DriveDead(d) => step(&mut self.drives[d].dead, begins),
            Fault::DriveSlow(d) => step(&mut self.drives[d].slow, begins),
            Fault::DriveBusy(d) => step(&mut self.drives[d].busy, begins),
            Fault::DriveFull(d) => {
                let now = self.drive_now(d);
                if begins {
                    self.drives[d].fill(now, self.plan.room);
                } else {
                    self.drives[d].empty(now);
                }
            }
            Fault::DriveReset(d) if begins => self.reset(d),
            Fault::PathFlaps(h, d) if begins => self.network.paths[h].flaps.insert(d),
            Fault::PathFlaps(h, d) => self.network.paths[h].flaps.remove(d),
            Fault::PathDown(h, d) if begins => self.network.paths[h].down.insert(d),
            Fault::PathDown(h, d) => self.network.paths[h].down.remove(d),
            Fault::Cut(h) => step(&mut self.network.paths[h].cut, begins),
            Fault::Frozen(h) if begins => self.freeze(h, until),
            // Each repair has an id of its own.
            Fault::Restart(h) if begins && self.repairs(h) => self.crash(h, until, true),
            Fault::Restart(h) if begins => self.restart(h, until),
            Fault::Restart(h) => self.hosts[h].doomed_until = None,
            Fault::Reboot(h) if begins => self.crash(h, until, true),
            Fault::DriveReset(_) | Fault::Frozen(_) | Fault::Reboot(_) => (),
        }
    }

    /// Directs a fault mostly at a host that holds a lock.
    fn aim(&mut self, e: usize) {
        let hosts = self.hosts.len() - self.plan.old_hosts;
        let first = self.rng.usize(0..hosts);
        let holder = (0..hosts)
            .map(|i| HostIx::new((first + i) % hosts))
            .find(|&h| self.slots.of_host(h).any(|s| self.believes(s)));
        let Some(holder) = holder.filter(|_| self.rng.u8(0..4) != 0) else {
            return;
        };
        match &mut self.plan.episodes[e].what {
            Fault::Cut(h) | Fault::Frozen(h) | Fault::Restart(h) | Fault::Reboot(h) => {
                *h = holder;
            }
            _ => (),
        }
    }

    /// Kills a host at once, or when it next gets drives.
    fn restart(&mut self, h: HostIx, until: u64) {
        if self.script.is_some() || self.rng.u8(0..3) != 0 {
            return self.crash(h, until, false);
        }
        self.hosts[h].doomed_until = Some(until);
        if self.rng.bool() {
            self.halve(h);
        }
    }

    /// Clears the tables of half of a holder's drives, if the rest is enough to keep the lock. A
    /// host that will die takes these drives first, and comes back soon: it must not look like
    /// another keeper of the same lock.
    fn halve(&mut self, h: HostIx) {
        let idle = self
            .slots
            .of_host(h)
            .find(|&s| self.hosts[h].alive && self.slots[s].call.caller == Caller::Idle);
        let Some(s) = idle else { return };
        let Some(holder) = self.slots.rivals(s).find(|&o| self.believes(o)) else { return };
        let members = self.slots[holder].call.members;
        for d in members.iter().take(members.len() / 2) {
            self.reset(d);
        }
        let soon = log_uniform(&mut self.rng, self.plan.renew());
        self.hosts[h].doomed_until = Some(self.now() + soon);
        self.call_caller(s, 0);
    }

    /// Plans resets in bursts, beyond the fault budget.
    pub(super) fn plan_beyond(&mut self) {
        let bursts = self.rng.usize(1..4);
        for _ in 0..bursts {
            let from = self.rng.u64(0..self.plan.stop_at);
            let set = DriveSet::from_bits(self.rng.u16(1..1 << self.drives.len()));
            let spread = log_uniform(&mut self.rng, self.plan.lease());
            for d in set.iter() {
                let at = from + self.rng.u64(0..=spread);
                let i = self.plan.episodes.len();
                self.plan.episodes.push(Episode { from: at, to: at, what: Fault::DriveReset(d) });
                self.push(at, What::Begin(i as u8));
            }
        }
    }
}
