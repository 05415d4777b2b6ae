//! The VG's drives, and the layout of its volumes: both change while locks are held.

use super::World;
use super::agenda::What;
use super::slots::Side;
use super::text::trace;
use crate::coverage::Count;
use crate::ids::{DriveSet, HostIx, LockIx, SlotIx};
use crate::observe::Tone;
use crate::plan::Fault;
use idm_protocol::Mode;

impl World {
    /// Lets a holder prepare to move its LV to other drives.
    pub(super) fn spread(&mut self, s: SlotIx) {
        let h = self.slots.host(s);
        if self.plan.replaces && self.settled() && self.rng.bool() {
            self.retire_drives();
            return self.hold_on(s);
        }
        if self.rng.u8(0..3) == 0 {
            self.change_vg(h);
        }
        let list = self.hosts[h].list;
        self.spread_to(s, list);
        let set: DriveSet = list.iter().filter(|_| self.rng.bool()).collect();
        let set = if set.is_empty() { list } else { set };
        self.follow_spread(s, set);
    }

    /// Lets a holder put its lock on these drives.
    pub(super) fn spread_to(&mut self, s: SlotIx, list: DriveSet) {
        let now = self.local(self.slots.host(s));
        self.observe_note(s, Tone::Plain, format_args!("spreads to {list}"));
        trace!(self, "{} spread to {list}", self.name(s));
        self.coverage.add(Count::Spread);
        let named_at = self.now();
        let call = &mut self.slots[s].call;
        if call.target_set != list {
            (call.target_set, call.named_at) = (list, named_at);
        }
        if let Side::Engine(lock) = &mut self.slots[s].engine.side {
            lock.spread(&list.members(), now);
        }
    }

    /// Lets a holder move its LV to some of the drives that its lock was put on.
    pub(super) fn follow_spread(&mut self, s: SlotIx, set: DriveSet) {
        let h = self.slots.host(s);
        self.settle(s);
        self.hold_on(s);
        let slowest = self.plan.delay[h].iter().copied().max().unwrap_or(0);
        let at = self.now() + 4 * u64::from(slowest);
        self.push(at, What::Move(self.slots.lock(s), s, set));
    }

    /// Removes drives from the VG or adds some. The host knows; others are informed, or not yet.
    fn change_vg(&mut self, h: HostIx) {
        let used = self.locks.iter().fold(DriveSet::EMPTY, |used, (_, lock)| used | lock.layout);
        let some = DriveSet::from_bits(self.rng.u16(0..=self.plan.all_drives().bits()));
        self.vg = used | (some - self.retired);
        trace!(self, "the VG has {} now", self.vg);
        self.coverage.add(Count::VgChanged);
        for other in self.hosts.ids() {
            if other == h || self.plan.replaces || self.rng.bool() {
                self.hosts[other].list = self.vg;
            }
        }
        // They learn it at any moment, also within a request.
        for s in self.slots.ids() {
            let other = self.slots.host(s);
            let host = &self.hosts[other];
            let awake = host.alive && self.now() >= host.frozen_until;
            let holds = self.slots[s].engine.mode.is_some();
            let moves = !self.locks[self.slots.lock(s)].keeps_value;
            if other != h && awake && holds && moves && self.rng.bool() {
                self.spread_to(s, self.hosts[other].list);
                self.settle(s);
            }
        }
    }

    /// Removes drives without an LV from the VG for good. Every host is informed, and moves
    /// the votes to other drives; after enough time for that, the drives are pulled out.
    fn retire_drives(&mut self) {
        let used = self.locks.iter().fold(DriveSet::EMPTY, |used, (_, lock)| used | lock.layout);
        let free = self.vg - used;
        let leaving: DriveSet = free.iter().filter(|_| self.rng.bool()).collect();
        self.vg = self.vg - leaving;
        self.retired = self.retired | leaving;
        trace!(self, "{leaving} leave the VG, which has {} now", self.vg);
        self.coverage.add(Count::VgChanged);
        let vg = self.vg;
        for h in self.hosts.ids() {
            self.hosts[h].list = vg;
        }
        for s in self.slots.ids() {
            if self.slots[s].engine.mode.is_some() {
                self.spread_to(s, vg);
                self.settle(s);
            }
        }
        let lease = self.plan.lease();
        self.push(self.now() + lease + lease / 4, What::Pull(leaving));
    }

    /// Pulls out drives that have left the VG.
    pub(super) fn pull(&mut self, drives: DriveSet) {
        trace!(self, "{drives} are pulled out");
        for d in drives.iter() {
            self.drives[d].gone += 1;
            self.observe_fault(Fault::DriveGone(d), true);
        }
    }

    /// Changes the LV's layout, if the holder's lock is there too. The VG's lock, which that takes,
    /// waits for the votes.
    pub(super) fn commit_move(&mut self, l: LockIx, s: SlotIx, set: DriveSet) {
        if !self.believes(s) || self.slots[s].engine.mode != Some(Mode::Exclusive) {
            return;
        }
        let call = &self.slots[s].call;
        if call.members != call.target_set {
            return self.push(self.now() + self.plan.lease() / 16, What::Move(l, s, set));
        }
        let there = set.iter().filter(|&d| self.has_vote(s, d)).count();
        if there >= set.keep_quorum() && (set - self.vg).is_empty() {
            self.coverage.add(Count::Moved);
            self.locks[l].layout = set;
            self.slots[s].call.votes_moved = true;
            trace!(self, "lock {l:?} lies on {set} now");
        }
    }
}
