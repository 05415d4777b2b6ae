//! Reports events to a search as small facts, if there is one.

use super::World;
use super::network::FlightIx;
use super::slots::Caller;
use crate::features::{Feature, FeatureHit, FeatureHits};
use crate::ids::{DriveIx, DriveSet, SlotIx};
use crate::plan::Fault;
use idm_emulator::Profile;
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, Status};

/// Bits of a word: a request to a drive, and its answer.
const WORD: u32 = 8;
const ONE_WORD: u64 = (1 << WORD) - 1;
const TWO_WORDS: u64 = (1 << (2 * WORD)) - 1;
const THREE_WORDS: u64 = (1 << (3 * WORD)) - 1;
/// The bit of a word for a drive that this host holds.
const WON: u64 = 1 << (WORD - 1);

/// The drive has reported a host that counts other drives.
const TOLD: u64 = 4;
/// Such a host has the lock there.
const OTHER_SET: u64 = 1;

/// The kinds of facts.
#[derive(Clone, Copy)]
enum FeatureKind {
    Course,
    Votes,
    Traits,
    Execution,
    Grant,
    Faults,
}

impl World {
    /// Notes features from now on.
    pub fn record_features(&mut self) {
        self.feature_hits = Some(Box::default());
    }

    /// The features of the last run.
    pub fn feature_hits(&self) -> Option<&FeatureHits> {
        self.feature_hits.as_deref()
    }

    fn note_feature(&mut self, kind: FeatureKind, danger: u8, fact: &[u64; 4]) {
        let [a, b, c, d] = *fact;
        let feature = Feature::of(&[u64::from(danger) << 8 | kind as u64, a, b, c, d]);
        let event = self.event;
        if let Some(feature_hits) = &mut self.feature_hits {
            feature_hits.note(FeatureHit { feature, danger, event });
        }
    }

    /// Notes a reply: the drive's answers so far within the request, and the present votes.
    pub(super) fn note_reply_features(&mut self, f: FlightIx, reply: &Reply) {
        if self.feature_hits.is_none() {
            return;
        }
        let (s, d, command) = self.network.errand(f);
        let op = operation(command);
        let word = op << 4 | answer(reply) | won(command, reply);
        let said = &mut self.slots[s].seen.request.said[d];
        *said = (*said << WORD | word) & THREE_WORDS;
        let said = *said;
        let way = self.in_the_way(s, d);
        let slot = &self.slots[s];
        let caller = caller(slot.call.caller);
        let modes = mode(slot.engine.mode) << 2 | mode(Some(slot.call.target));
        let own = u64::from(self.has_record(s, d)) << 1 | u64::from(self.has_vote(s, d));
        let votes = self.votes_won(s);
        let danger = self.danger(s, way, votes);
        let traits = traits(op, &self.plan.drives[d].profile);
        self.note_feature(FeatureKind::Course, danger, &[said, way, 0, 0]);
        self.note_feature(FeatureKind::Votes, danger, &[said & TWO_WORDS, caller, modes, votes]);
        self.note_feature(FeatureKind::Traits, danger, &[said & ONE_WORD, own, traits, way]);
    }

    /// The closeness of a requesting host to another's lock: 0 for far away.
    fn danger(&self, s: SlotIx, way: u64, votes: u64) -> u8 {
        let slot = &self.slots[s];
        if !slot.call.caller.waits() {
            return 0;
        }
        if slot.seen.request.conflicts.iter().any(|hosts| !hosts.is_empty()) {
            // It must not be granted, whatever the other drives answer.
            return 2 + u8::from(way & TOLD != 0) * u8::from(votes > 0) + u8::from(votes == 3);
        }
        let target = slot.call.target;
        let excludes = |o: SlotIx| {
            self.believes(o) && self.slots[o].engine.mode.is_some_and(|m| !m.compatible(target))
        };
        let held = votes > 1 && self.slots.rivals(s).any(|o| o != s && excludes(o));
        u8::from(way & OTHER_SET != 0) + if held { votes as u8 - 1 } else { 0 }
    }

    /// Notes a command that a drive executed: the host, and the delay.
    pub(super) fn note_execution_features(&mut self, f: FlightIx, reply: &Reply, late: bool) {
        if self.feature_hits.is_none() {
            return;
        }
        let (s, d, command) = self.network.errand(f);
        let what = operation(command) << 4 | answer(reply);
        let slot = &self.slots[s];
        let alive = self.hosts[self.slots.host(s)].alive;
        let state = caller(slot.call.caller) << 4 | mode(slot.engine.mode) << 2;
        let when = u64::from(late) << 1 | u64::from(alive);
        let way = self.in_the_way(s, d);
        self.note_feature(FeatureKind::Execution, 0, &[what, state, when, way]);
    }

    /// Notes a grant: the last answer of each drive, and the present faults.
    pub(super) fn note_grant_features(&mut self, s: SlotIx) {
        if self.feature_hits.is_none() {
            return;
        }
        let call = &self.slots[s].call;
        let (caller, target) = (caller(call.caller), mode(Some(call.target)));
        let (members, group) = (call.members, call.members | call.witnesses);
        for d in group.iter() {
            let said = self.slots[s].seen.request.said[d] & TWO_WORDS;
            let votes = u64::from(members.contains(d)) << 1 | u64::from(self.has_vote(s, d));
            let way = self.in_the_way(s, d);
            self.note_feature(FeatureKind::Grant, 0, &[said, caller << 2 | target, votes, way]);
        }
        let faults = self.present_faults();
        for (i, a) in faults.iter().enumerate() {
            for b in &faults[i..] {
                self.note_feature(FeatureKind::Faults, 0, &[*a, *b, caller, target]);
            }
        }
    }

    /// Whether another host has the lock on the drive in a mode that excludes this one's, whether
    /// it counts other drives, and whether the drive has reported such a host.
    fn in_the_way(&self, s: SlotIx, d: DriveIx) -> u64 {
        let (seen, foreign) = self.conflicting_at(s, d);
        let told = !self.slots[s].seen.request.conflicts[d].is_empty();
        let (seen, foreign) = (!seen.is_empty(), !foreign.is_empty());
        u64::from(told) << 2 | u64::from(seen) << 1 | u64::from(foreign)
    }

    /// The strength of the drives that granted: none, some, enough to keep, enough to acquire.
    fn votes_won(&self, s: SlotIx) -> u64 {
        let members = self.slots[s].call.members;
        let said = &self.slots[s].seen.request.said;
        let won: DriveSet = members.iter().filter(|&d| said[d] & WON != 0).collect();
        match won.len() {
            0 => 0,
            n if n >= members.majority() => 3,
            n if n >= members.keep_quorum() => 2,
            _ => 1,
        }
    }

    /// The kinds of the present lasting faults, in order.
    fn present_faults(&self) -> Vec<u64> {
        let now = self.now();
        let there = self.plan.episodes.iter().filter(|e| (e.from..=e.to).contains(&now));
        let mut faults: Vec<u64> = there.map(|e| fault_number(e.what)).collect();
        faults.sort_unstable();
        faults
    }
}

/// The operation that a command requests.
fn operation(command: &DriveCommand) -> u64 {
    match command {
        DriveCommand::ReadTable => 0,
        DriveCommand::Mutex(MutexOp::Trylock | MutexOp::Lock, _) => 1,
        DriveCommand::Mutex(MutexOp::Refresh, _) => 2,
        DriveCommand::Mutex(MutexOp::Break, _) => 3,
        DriveCommand::Mutex(MutexOp::Unlock, _) => 4,
        DriveCommand::Mutex(MutexOp::Destroy | MutexOp::Init, _) => 5,
    }
}

fn answer(reply: &Reply) -> u64 {
    let Reply::Status(status) = reply else { return 0 };
    match status {
        Status::Good => 1,
        Status::Conflict => 2,
        Status::Terminated => 3,
        Status::NotFound => 4,
        Status::Full(_) => 5,
        Status::WrongState => 6,
        Status::TryAgain => 7,
        Status::Unsupported => 8,
        Status::Failed => 9,
        Status::Unreachable => 10,
        Status::Uncertain => 11,
    }
}

/// The bit for an answer after which the drive is the sender's.
fn won(command: &DriveCommand, reply: &Reply) -> u64 {
    let takes = matches!(
        command,
        DriveCommand::Mutex(MutexOp::Trylock | MutexOp::Refresh | MutexOp::Break, _)
    );
    if takes && *reply == Reply::Status(Status::Good) { WON } else { 0 }
}

/// The traits of a drive's firmware that matter to an operation.
fn traits(op: u64, profile: &Profile) -> u64 {
    let p = profile;
    let bits = match op {
        0 => [p.sharer_state as u64, 0, 0],
        1 => [p.held as u64, p.duplicate as u64, p.expired_holder_may_relock.into()],
        2 => [
            p.refresh_stores_value.into(),
            p.refresh_stores_metadata.into(),
            p.promotion_removes_expired.into(),
        ],
        3 => [p.break_keeps_value.into(), p.break_beside_live_sharers.into(), p.held as u64],
        4 => {
            [p.shared_unlock as u64, p.repeated_unlock_good.into(), p.unlock_of_other_class as u64]
        }
        _ => [p.destroy_by_holder as u64, p.destroy_by_stranger.into(), 0],
    };
    bits.iter().fold(0, |all, bit| all << 2 | bit)
}

fn caller(caller: Caller) -> u64 {
    match caller {
        Caller::Idle => 0,
        Caller::Acquiring => 1,
        Caller::Adopting(_) => 2,
        Caller::Holding => 3,
        Caller::Converting(Mode::Shared, _) => 4,
        Caller::Converting(Mode::Exclusive, _) => 5,
        Caller::Dropping => 6,
        Caller::Finished => 7,
    }
}

fn mode(mode: Option<Mode>) -> u64 {
    match mode {
        None => 0,
        Some(Mode::Shared) => 1,
        Some(Mode::Exclusive) => 2,
    }
}

fn fault_number(what: Fault) -> u64 {
    match what {
        Fault::DriveGone(_) => 0,
        Fault::DriveDead(_) => 1,
        Fault::DriveSlow(_) => 2,
        Fault::DriveBusy(_) => 3,
        Fault::DriveFull(_) => 4,
        Fault::DriveReset(_) => 5,
        Fault::PathFlaps(..) => 6,
        Fault::Cut(_) => 7,
        Fault::Frozen(_) => 8,
        Fault::Restart(_) => 9,
        Fault::Reboot(_) => 10,
        Fault::PathDown(..) => 11,
    }
}
