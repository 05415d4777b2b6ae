//! The drives: their state, and their records of a host's lock.

use super::World;
use super::slots::{Slot, set_mark};
use super::text::trace;
use crate::clock::Clock;
use crate::coverage::Count;
use crate::ids::{DriveIx, HostSet, SlotIx};
use crate::plan::{DrivePlan, WorldKind};
use idm_emulator::{Drive, DriveTime};
use idm_protocol::{
    Class, DriveCommand, HostId, Mode, MutexOp, Record, Reply, ResourceId, State, Status, Value,
    ValueUpdate,
};

/// A drive, and the number of faults that affect it at present.
#[derive(Debug)]
pub(super) struct SimDrive {
    pub(super) drive: Drive,
    pub(super) clock: Clock,
    pub(super) gone: u8,
    pub(super) dead: u8,
    pub(super) slow: u8,
    pub(super) busy: u8,
    /// The strangers whose mutexes fill it.
    strangers: Vec<(HostId, ResourceId)>,
}

impl SimDrive {
    pub(super) fn new(plan: &DrivePlan) -> SimDrive {
        SimDrive {
            drive: Drive::new(plan.profile),
            clock: plan.clock,
            gone: 0,
            dead: 0,
            slow: 0,
            busy: 0,
            strangers: Vec::new(),
        }
    }

    /// Fills the table with mutexes of strangers: unlocked, live and timed-out ones. If some
    /// mutexes need room, only live ones are added.
    pub(super) fn fill(&mut self, now: DriveTime, room: usize) {
        let most = self.drive.profile().limits.mutexes.saturating_sub(room);
        let varied = room == 0;
        for n in (u8::from(!varied)..64).step_by(if varied { 1 } else { 2 }) {
            if !varied && self.strangers.len() >= most {
                break;
            }
            let host = HostId::from_bytes([0xE0 + n % 8; 32]);
            let resource = ResourceId::from_bytes([0x80 + n; 64]);
            let lease_ms = [1, 3_600_000][usize::from(n % 2)];
            let record = stranger(host, resource, lease_ms);
            let trylock = DriveCommand::Mutex(MutexOp::Trylock, record.clone());
            if self.drive.perform(now, &trylock) != Reply::Status(Status::Good) {
                break;
            }
            self.strangers.push((host, resource));
            if varied && n % 3 == 0 {
                self.drive.perform(now, &DriveCommand::Mutex(MutexOp::Unlock, record));
            }
        }
    }

    /// Removes the strangers' mutexes.
    pub(super) fn empty(&mut self, now: DriveTime) {
        for (host, resource) in self.strangers.drain(..) {
            let record = stranger(host, resource, 1);
            self.drive.perform(now, &DriveCommand::Mutex(MutexOp::Unlock, record.clone()));
            self.drive.perform(now, &DriveCommand::Mutex(MutexOp::Destroy, record));
        }
    }
}

impl World {
    /// The reading of a drive's clock.
    pub(super) fn drive_now(&self, d: DriveIx) -> DriveTime {
        DriveTime::from_micros(self.drives[d].clock.at(self.now()))
    }

    /// Whether a drive gives the host its vote: it has the host's live record, exclusive if the
    /// host believes to be alone.
    pub(super) fn has_vote(&self, s: SlotIx, d: DriveIx) -> bool {
        let shared = self.slots[s].held() == Some(Mode::Shared);
        self.has_record_in(s, d, |mode| mode == Mode::Exclusive || shared)
    }

    /// Whether a drive has the host's live record.
    pub(super) fn has_record(&self, s: SlotIx, d: DriveIx) -> bool {
        self.has_record_in(s, d, |_| true)
    }

    fn has_record_in(&self, s: SlotIx, d: DriveIx, suits: impl Fn(Mode) -> bool) -> bool {
        let resource = &self.locks[self.slots.lock(s)].resource;
        let id = self.hosts[self.slots.host(s)].id;
        self.drives[d]
            .drive
            .live_holders(self.drive_now(d), resource)
            .any(|(host, mode)| host == id && suits(mode))
    }

    /// The hosts that believe to hold, with this drive's vote, the lock that a command names, if
    /// that is not the slot's.
    pub(super) fn users_of_another(
        &self,
        s: SlotIx,
        d: DriveIx,
        command: &DriveCommand,
    ) -> Vec<SlotIx> {
        let DriveCommand::Mutex(_, record) = command else { return Vec::new() };
        if self.is_ours(s, record) {
            return Vec::new();
        }
        let uses = |&o: &SlotIx| self.is_ours(o, record) && self.believes(o) && self.has_vote(o, d);
        self.slots.ids().filter(uses).collect()
    }

    /// The number of drives that give the host their vote.
    pub(super) fn votes(&self, s: SlotIx) -> usize {
        self.slots[s].call.members.iter().filter(|&d| self.has_vote(s, d)).count()
    }

    /// Other hosts that hold this slot's lock on the drive in a mode that conflicts with its wanted
    /// or present one, and those of them that count other drives, by the record or in truth.
    pub(super) fn conflicting_at(&self, s: SlotIx, d: DriveIx) -> (HostSet, HostSet) {
        let resource = &self.locks[self.slots.lock(s)].resource;
        let now = self.drive_now(d);
        let target = self.slots[s].call.target;
        let (mut seen, mut foreign) = (HostSet::EMPTY, HostSet::EMPTY);
        for (id, mode) in self.drives[d].drive.live_holders(now, resource) {
            if mode.compatible(target) {
                continue;
            }
            for (h, host) in self.hosts.iter() {
                if host.id == id && h != self.slots.host(s) {
                    seen.insert(h);
                    let record = self.drives[d].drive.record(now, resource, &id);
                    let ours = Some(self.slots[s].seen.set_mark);
                    let other = self.slots.at(h, self.slots.lock(s));
                    let Slot { engine, call, .. } = &self.slots[other];
                    let excludes = engine.mode.is_some_and(|mode| !mode.compatible(target));
                    let hidden = self.believes(other)
                        && excludes
                        && call.members.contains(d)
                        && call.members != self.slots[s].call.members;
                    if hidden || record.map(|r| set_mark(&r)) != ours {
                        foreign.insert(h);
                    }
                }
            }
        }
        (seen, foreign)
    }

    /// The moment when too few leases of an orphan's votes are left for a keep quorum.
    pub(super) fn orphan_ends(&self, s: SlotIx) -> u64 {
        let resource = &self.locks[self.slots.lock(s)].resource;
        let id = &self.hosts[self.slots.host(s)].id;
        let left = |d: DriveIx| self.drives[d].drive.lease_left(self.drive_now(d), resource, id);
        let there = self.slots[s].call.members & self.slots[s].legacy.left_on;
        let mut leases: Vec<u64> =
            there.iter().map(|d| left(d).unwrap_or_default().as_micros() as u64).collect();
        leases.sort_unstable_by(|a, b| b.cmp(a));
        let needed = self.slots[s].call.members.keep_quorum();
        let lease = leases.get(needed.saturating_sub(1)).copied().unwrap_or(0);
        // The drive's clock may be the faster one.
        self.now() + lease - lease / 500
    }

    /// Loses a drive's table, if the budget allows it.
    pub(super) fn reset(&mut self, d: DriveIx) {
        let beyond = self.plan.kind == WorldKind::Beyond;
        if !beyond && self.slots.ids().any(|s| self.reset_would_break(s, d)) {
            self.coverage.add(Count::ResetPutOff);
            return;
        }
        let now = self.now();
        let mut held = false;
        for s in self.slots.ids() {
            // A drive that does not vote yet may get the vote before its host notices the loss.
            if self.has_record(s, d) {
                held |= self.slots[s].call.members.contains(d) && self.believes(s);
                self.slots[s].lose_vote(d, now);
            }
        }
        self.drives[d].drive.reset();
        for s in self.slots.ids() {
            let ends = self.orphan_ends(s);
            let legacy = &mut self.slots[s].legacy;
            legacy.safe_until = legacy.safe_until.min(ends);
        }
        self.drives[d].strangers.clear();
        trace!(self, "{d} loses its table");
        self.observe_reset(d);
        self.coverage.add(match (beyond, held) {
            (true, _) => Count::ResetBeyond,
            (false, true) => Count::ResetHeld,
            (false, false) => Count::ResetInBudget,
        });
        if beyond {
            for s in self.slots.ids() {
                let needed = self.slots[s].call.members.keep_quorum();
                if self.believes(s) && self.votes(s) < needed {
                    self.coverage.add(Count::LossBeyond);
                    self.expect_notice(s);
                }
            }
        }
    }
}

fn stranger(host: HostId, resource: ResourceId, lease_ms: u64) -> Record {
    Record {
        state: State::Uninitialized,
        modified_ms: 0,
        countdown_ms: lease_ms,
        class: Class::Exclusive,
        value_update: ValueUpdate::Keep,
        value: Value::ZERO,
        resource,
        metadata: [0; 64],
        host,
    }
}
