//! The invariants about the holders of a lock. Checkers only read: they return their findings, and
//! the world draws the consequences.

mod ending;
pub(super) mod reading;
mod requests;

use super::World;
use super::slots::{Legacy, Side};
use super::verdict::{Ending, Verdict, Violation, ensure, violation};
use crate::coverage::Count;
use crate::ids::{DriveIx, DriveSet, HostSet, SlotIx};
use idm_engine::{Fingerprint, Instant, Writer, writer};
use idm_protocol::{DriveCommand, Mode, MutexOp};

/// The judgement about two hosts that hold a lock in conflicting modes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pair {
    /// Resets took votes that one of them still counts: no protocol survives that.
    Hollow,
    /// They count different drives, and could not know of each other.
    Strangers,
    /// The pair is a violation.
    Forbidden(Violation),
}

impl World {
    /// The number of votes that a reset has taken, while the host still counts them and cannot
    /// know.
    fn lost_votes(&self, s: SlotIx) -> usize {
        let lease = self.plan.lease() + self.plan.lease() / 100;
        let (call, seen) = (&self.slots[s].call, &self.slots[s].seen);
        (seen.lost & call.members)
            .iter()
            .filter(|&d| self.now() < seen.lost_at[d] + lease && !self.has_vote(s, d))
            .count()
    }

    /// Whether the host's belief is hollow because of resets: too few drives still have its record,
    /// and with the reset ones there would be enough.
    pub(super) fn is_hollow_by_reset(&self, s: SlotIx) -> bool {
        let needed = self.slots[s].call.members.keep_quorum();
        let votes = self.votes(s);
        votes < needed && votes + self.lost_votes(s) >= needed
    }

    /// Whether the drive's reset would leave a host that has its vote without a keep quorum of real
    /// votes, which no majority protocol survives. An exclusive holder's drive that may still
    /// become shared does not count.
    pub(super) fn reset_would_break(&self, s: SlotIx, d: DriveIx) -> bool {
        let slot = &self.slots[s];
        let members = slot.call.members;
        let asks = slot.call.caller.asks();
        let busy = slot.engine.mode.is_some() || slot.legacy.orphan.is_some() || asks;
        // Drives that are about to vote count like those that vote.
        let target = slot.call.target_set;
        if slot.engine.mode.is_some() && target.contains(d) && self.has_record(s, d) {
            let others = target.iter().filter(|&o| o != d && self.has_vote(s, o)).count();
            let marked = others.saturating_sub((target & members).len());
            if marked < target.keep_quorum() {
                return true;
            }
        }
        if !busy || !members.contains(d) || !self.has_record(s, d) {
            return false;
        }
        // A drive that answers nonsense is of no use to the host.
        let sane = |o: DriveIx| !self.plan.nonsense.contains(o);
        let stands = |o| match slot.held() {
            Some(_) if slot.engine.mode.is_none() && !slot.legacy.left_on.contains(o) => false,
            Some(mode) => {
                let stays = !self.network.may_undo(s, o, mode) && !self.may_mislead(s, o);
                stays && self.has_vote(s, o)
            }
            None => self.has_record(s, o) && !self.may_mislead(s, o),
        };
        let others = members.iter().filter(|&o| o != d && sane(o) && stands(o)).count();
        others < members.keep_quorum()
    }

    /// Requires that a believer has a keep quorum of drives with its record.
    pub(super) fn check_votes(&self, s: SlotIx) -> Verdict {
        if !self.plan.kind.is_safe() {
            return Ok(());
        }
        let members = self.slots[s].call.members;
        let votes = self.votes(s);
        ensure!(
            votes >= members.keep_quorum() || self.is_hollow_by_reset(s),
            "a belief stands on a keep-quorum",
            "{} believes in {:?} for another {} us, but has {votes} of {} drives",
            self.name(s),
            self.slots[s].engine.mode,
            self.slots[s].engine.until - self.now(),
            members.len()
        );
        Ok(())
    }

    /// Whether the VG's drives that were named to a holder have to show its lock, because its votes
    /// have moved before. The move had the time of a lease.
    fn is_bound_to_vg(&self, s: SlotIx) -> bool {
        let lease = self.plan.lease() + self.plan.lease() / 100;
        let call = &self.slots[s].call;
        let moves = !call.target_set.is_empty() && call.target_set != call.members;
        moves && call.votes_moved && self.now() >= call.named_at + lease
    }

    /// Requires that hosts that count the VG's drives meet a believer whose votes have moved. Such
    /// hosts read more than half of the drives, or get any of the drives that stay.
    pub(super) fn check_seen(&self, s: SlotIx) -> Verdict {
        let engine = matches!(self.slots[s].engine.side, Side::Engine(_));
        if !engine || !self.plan.kind.is_safe() || !self.is_bound_to_vg(s) {
            return Ok(());
        }
        let (call, seen) = (&self.slots[s].call, &self.slots[s].seen);
        let lost = seen.lost & call.target_set;
        let shown: DriveSet =
            call.target_set.iter().filter(|&d| self.has_vote(s, d) || lost.contains(d)).collect();
        let staying = call.target_set & call.members;
        ensure!(
            shown.len() >= call.target_set.keep_quorum()
                || (!staying.is_empty() && (staying - shown).is_empty()),
            "moved votes are seen on the VG's drives",
            "{} believes in {:?} on {}, and only {shown} of the VG's {} show it",
            self.name(s),
            self.slots[s].engine.mode,
            call.members,
            call.target_set
        );
        Ok(())
    }

    /// Requires that a believer has a keep quorum of drives whose records name no other drives than
    /// it counts.
    pub(super) fn check_marks(&self, s: SlotIx) -> Verdict {
        let apart = self.plan.lists_differ || self.plan.moves;
        let engine = matches!(self.slots[s].engine.side, Side::Engine(_));
        if !apart || !engine || !self.plan.kind.is_safe() {
            return Ok(());
        }
        let members = self.slots[s].call.members;
        // A drive that was reset within a lease may count, too, even for an acquisition after that.
        let lost_at = |d: DriveIx| self.slots[s].seen.lost_at[d];
        let reset = |d| lost_at(d) > 0 && self.now() < lost_at(d) + self.plan.lease();
        let votes = |&d: &DriveIx| self.has_vote(s, d) || reset(d);
        let voting: DriveSet = members.iter().filter(votes).collect();
        let misleading: DriveSet = voting.iter().filter(|&d| self.may_mislead(s, d)).collect();
        ensure!(
            misleading.is_empty() || (voting - misleading).len() >= members.keep_quorum(),
            "a record tells which drives are counted",
            "{} counts {members}, and its records on {misleading} tell of others",
            self.name(s)
        );
        Ok(())
    }

    /// Whether a host's record on a drive names other drives than the host counts, so that it
    /// misleads others that count those.
    fn may_mislead(&self, s: SlotIx, d: DriveIx) -> bool {
        let resource = &self.locks[self.slots.lock(s)].resource;
        let id = &self.hosts[self.slots.host(s)].id;
        let record = self.drives[d].drive.record(self.drive_now(d), resource, id);
        let apart = self.plan.lists_differ || self.plan.moves;
        match record.map(|record| writer(&record.metadata)) {
            Some(Writer::Lock { fingerprint, alone: false, .. }) => {
                apart && fingerprint != Fingerprint::of(&self.slots[s].call.members.members())
            }
            _ => false,
        }
    }

    /// Requires that no host uses the mutex that another lock removes to make room.
    pub(super) fn check_removed(&self, s: SlotIx, d: DriveIx, users: &[SlotIx]) -> Verdict {
        for &user in users {
            ensure!(
                self.has_vote(user, d),
                "what is removed for room is in nobody's use",
                "{} has removed on {d} what {} holds",
                self.name(s),
                self.name(user)
            );
        }
        Ok(())
    }

    /// Requires that no lock lapses without a fault, whatever drives have left the VG. Votes cannot
    /// move to one or two drives if one of them cannot mark a record anew, nor past another holder
    /// that an earlier fault has let in.
    pub(super) fn check_lapse_cause(&self, s: SlotIx) -> Verdict {
        let target = self.slots[s].call.target_set;
        let marks = |d: DriveIx| self.drives[d].drive.profile().refresh_stores_metadata;
        let stuck = (1..=2).contains(&target.len()) && !target.iter().all(marks);
        let barred =
            self.slots.rivals(s).any(|other| self.believes(other) && self.modes_exclude(s, other));
        ensure!(
            stuck
                || barred
                || !self.settled()
                || !self.plan.kind.is_safe()
                || self.is_old(self.slots.host(s)),
            "a lock lapses only where something fails",
            "{} has lapsed; {} vote",
            self.name(s),
            self.slots[s].call.members
        );
        Ok(())
    }

    /// Whether two hosts have modes that exclude each other.
    fn modes_exclude(&self, a: SlotIx, b: SlotIx) -> bool {
        let mode = |s: SlotIx| self.slots[s].engine.mode;
        a != b && matches!((mode(a), mode(b)), (Some(x), Some(y)) if !x.compatible(y))
    }

    /// The same, where both believe in them.
    fn both_believe(&self, a: SlotIx, b: SlotIx) -> bool {
        self.believes(a) && self.believes(b) && self.modes_exclude(a, b)
    }

    /// Whether a keep quorum of one set and a majority of the other can be without a common drive.
    /// For an LV's lock, a majority of the VG's drives is held or read, too. A holder whose votes
    /// have moved is on half of the drives that were named to it, or on all that stay.
    pub(super) fn can_miss(&self, a: SlotIx, b: SlotIx) -> bool {
        let members = |s: SlotIx| self.slots[s].call.members;
        let named = |s: SlotIx| self.slots[s].call.target_set;
        let group = |s: SlotIx| self.slots[s].call.members | self.slots[s].call.witnesses;
        let apart = |x: DriveSet, y: DriveSet| x.keep_quorum() + y.majority() <= (x | y).len();
        let misses_vg = |x: SlotIx, y: SlotIx| {
            let elsewhere = members(y) - (named(x) & members(x));
            apart(named(x), group(y)) || elsewhere.len() >= members(y).majority()
        };
        let one_misses = |x: SlotIx, y: SlotIx| {
            let misses = apart(members(x), members(y)) && apart(members(x), group(y));
            misses && (!self.is_bound_to_vg(x) || misses_vg(x, y))
        };
        members(a) != members(b) && (one_misses(a, b) || one_misses(b, a))
    }

    /// Requires after a grant that no orphan excludes it: a dead host's lock may be in use until
    /// its lease is over.
    pub(super) fn check_orphans(&self, s: SlotIx) -> Verdict {
        if !self.plan.kind.is_safe() {
            return Ok(());
        }
        let target = self.slots[s].call.target;
        for other in self.slots.rivals(s).filter(|&other| other != s) {
            let legacy = &self.slots[other].legacy;
            let Some((left, _)) = legacy.orphan else { continue };
            let active = self.now() < legacy.safe_until && self.slots[other].engine.mode.is_none();
            ensure!(
                !active
                    || left.compatible(target)
                    || self.can_miss(s, other)
                    || self.is_hollow_by_reset(other),
                "what may be in use is nobody else's within its lease",
                "{} was granted; {} has left it {left}, safe for another {} us",
                self.name(s),
                self.name(other),
                legacy.safe_until - self.now()
            );
        }
        Ok(())
    }

    /// Whether the host has met the other.
    pub(super) fn knows(&self, s: SlotIx, other: SlotIx) -> bool {
        self.slots[s].seen.request.knows.contains(self.slots.host(other))
    }

    /// Whether a host may hold the lock beside another one that counts different drives. It may if
    /// it could not know, or has not known for so long that the other must be a holder and not a
    /// host whose attempt fails.
    fn is_excused(&self, s: SlotIx, other: SlotIx) -> bool {
        let most = 2 * (self.plan.lease() + self.plan.renew());
        let since = self.slots[s].seen.foreign_since;
        !self.knows(s, other) || since.is_none_or(|since| self.now() - since <= most)
    }

    /// Requires that no two hosts believe in conflicting modes. Returns the pair otherwise, with
    /// its judgement.
    pub(super) fn check_pair(&self, a: SlotIx, b: SlotIx) -> Option<Pair> {
        if !self.plan.kind.is_safe() || a == b || !self.both_believe(a, b) {
            return None;
        }
        if self.is_hollow_by_reset(a) || self.is_hollow_by_reset(b) {
            return Some(Pair::Hollow);
        }
        if self.can_miss(a, b) && self.is_excused(a, b) && self.is_excused(b, a) {
            return Some(Pair::Strangers);
        }
        let (x, y) = (&self.slots[a], &self.slots[b]);
        Some(Pair::Forbidden(violation!(
            "mutual exclusion",
            "{} believes in {:?} on {} for {} us, {} in {:?} on {} for {} us",
            self.name(a),
            x.engine.mode,
            x.call.members,
            x.engine.until - self.now(),
            self.name(b),
            y.engine.mode,
            y.call.members,
            y.engine.until - self.now()
        )))
    }

    /// Requires after a grant that the host ignored no conflict with a host that counts other
    /// drives. If such a host has the lock now, that is excused only if it could not be seen.
    pub(super) fn check_grant_sets(&self, s: SlotIx) -> Verdict {
        if !self.plan.kind.is_safe() || self.is_old(self.slots.host(s)) {
            return Ok(());
        }
        let slot = &self.slots[s];
        let conflicts = slot.seen.request.conflicts.iter();
        let conflicts = conflicts.fold(HostSet::EMPTY, |all, &hosts| all | hosts);
        for other in self.slots.rivals(s).filter(|&other| other != s) {
            ensure!(
                !conflicts.contains(self.slots.host(other)),
                "a conflict with another set is heeded",
                "{} met {} and was granted",
                self.name(s),
                self.name(other)
            );
            let mode = self.slots[other].engine.mode;
            let conflicting = mode.is_some_and(|m| !m.compatible(slot.call.target));
            if conflicting && self.believes(other) && self.can_miss(s, other) {
                self.check_confirmed(s, other)?;
            }
        }
        Ok(())
    }

    /// Requires that a host with an LV lock has read or holds more than half of the VG's drives.
    fn check_confirmed(&self, s: SlotIx, holder: SlotIx) -> Verdict {
        let slot = &self.slots[s];
        let group = match slot.call.target_set {
            DriveSet::EMPTY => slot.call.members | slot.call.witnesses,
            named => named,
        };
        let held: DriveSet = group.iter().filter(|&d| self.has_record(s, d)).collect();
        let met = slot.seen.request.met;
        ensure!(
            slot.call.witnesses.is_empty() || (met | held).len() >= group.majority(),
            "a grant of an LV lock is confirmed",
            "{} was granted, {} holds it; only {met} answered",
            self.name(s),
            self.name(holder)
        );
        Ok(())
    }

    /// Requires that a host does not come back to a belief after another was granted the lock.
    pub(super) fn check_regained(&self, s: SlotIx) -> Verdict {
        let slot = &self.slots[s];
        let usurped = match (slot.legacy.usurped, slot.engine.mode) {
            (Some(usurper), Some(mode)) => !mode.compatible(usurper),
            _ => false,
        };
        ensure!(
            !usurped || self.is_hollow_by_reset(s),
            "never silently regained",
            "{} believes again, but another host was granted the lock in between",
            self.name(s)
        );
        Ok(())
    }

    /// Requires that a host adopts only its own lock, which no other host has had since.
    pub(super) fn check_adopted(&self, s: SlotIx, mode: Mode, left: Legacy) -> Verdict {
        let usurped = left.usurped.is_some_and(|m| !m.compatible(mode));
        ensure!(
            !usurped || left.strayed,
            "what is adopted was nobody else's in between",
            "{} adopted {mode}",
            self.name(s)
        );
        ensure!(
            left.orphan != Some((Mode::Exclusive, false)) || mode != Mode::Shared,
            "what was exclusive is not adopted as shared",
            "{}",
            self.name(s)
        );
        Ok(())
    }

    /// Requires that a host with nothing to adopt has no majority of the drives.
    pub(super) fn check_nothing_to_adopt(&self, s: SlotIx) -> Verdict {
        let members = self.slots[s].call.members;
        let sane = (members & self.slots[s].legacy.left_on) - self.plan.nonsense;
        let there = sane.iter().filter(|&d| self.has_record(s, d)).count();
        ensure!(
            there < members.majority(),
            "what is there is adopted",
            "{} has {there} drives and is told that it has none",
            self.name(s)
        );
        Ok(())
    }

    /// Requires that an engine breaks a lock only after it has seen no live holder in the way.
    pub(super) fn check_break(&self, s: SlotIx, d: DriveIx, command: &DriveCommand) -> Verdict {
        let breaks = matches!(command,
            DriveCommand::Mutex(MutexOp::Break, record) if self.is_ours(s, record));
        ensure!(
            !breaks || self.slots[s].seen.cleared.contains(d),
            "only timed-out holders are broken",
            "{} breaks on {d}, where it saw a live holder",
            self.name(s)
        );
        Ok(())
    }

    /// Requires that an engine has reported the end of its time.
    pub(super) fn check_lapse_told(&self, s: SlotIx, now: Instant) -> Verdict {
        let engine = &self.slots[s].engine;
        if let Side::Engine(lock) = &engine.side {
            ensure!(
                lock.mode().is_none()
                    || engine.lapsed
                    || lock.safe_until().is_some_and(|end| now < end),
                "a lapse is told at once",
                "{} has passed safe_until without a word",
                self.name(s)
            );
        }
        Ok(())
    }

    /// Requires that an engine has a deadline before its time is over.
    pub(super) fn check_lapse_deadline(&self, s: SlotIx, deadline: Option<Instant>) -> Verdict {
        let engine = &self.slots[s].engine;
        let Side::Engine(lock) = &engine.side else { return Ok(()) };
        if engine.lapsed || lock.mode().is_none() {
            return Ok(());
        }
        if let Some(end) = lock.safe_until() {
            ensure!(
                deadline.is_some_and(|d| d <= end),
                "a lapse has a deadline",
                "{}: {deadline:?} is later than {end:?}",
                self.name(s)
            );
        }
        Ok(())
    }

    /// Requires that a lost lock is not held.
    pub(super) fn check_lost(&self, s: SlotIx) -> Verdict {
        ensure!(
            self.slots[s].engine.side.mode().is_none(),
            "lost means not held",
            "{} has a mode after Lost",
            self.name(s)
        );
        Ok(())
    }
}

// Consequences.

impl World {
    /// Checks for hosts that hold a slot's lock beside it.
    pub(super) fn look_at_pairs(&mut self, s: SlotIx) {
        for other in self.slots.rivals(s) {
            match self.check_pair(s, other) {
                Some(Pair::Hollow) => {
                    self.coverage.add(Count::WaivedReset);
                    self.ending = Some(Ending::Waived);
                }
                Some(Pair::Strangers) => {
                    self.note_acquaintance(s, other);
                    self.note_acquaintance(other, s);
                    let l = self.slots.lock(s);
                    if !core::mem::replace(&mut self.locks[l].muddled, true) {
                        self.coverage.add(Count::WaivedLists);
                    }
                }
                Some(Pair::Forbidden(violation)) => self.fail(violation),
                None => (),
            }
            self.forget_strangers(other);
        }
        self.forget_strangers(s);
    }

    /// Forgets since when a host knows of others that count different drives, if their modes admit
    /// each other by now.
    fn forget_strangers(&mut self, s: SlotIx) {
        let knows = self.slots[s].seen.foreign_since.is_some();
        if knows && !self.slots.rivals(s).any(|other| self.modes_exclude(s, other)) {
            self.slots[s].seen.foreign_since = None;
        }
    }

    fn note_acquaintance(&mut self, s: SlotIx, other: SlotIx) {
        if self.knows(s, other) {
            let now = self.now();
            self.slots[s].seen.foreign_since.get_or_insert(now);
        }
    }
}
