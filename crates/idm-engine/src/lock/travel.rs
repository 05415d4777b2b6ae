//! Moving the votes of a held lock to other drives.
//!
//! An LV's lock is taken on the LV's drives. The holder of the VG's lock may move the LV, and
//! drives leave the VG while the LV is in use. So the caller names the VG's drives
//! ([`Lock::spread`]), and the lock moves to them without a moment in which it is not held:
//!
//! 1. It is taken on those new drives that do not have it. They do not vote yet.
//! 2. Every record gets a fingerprint that belongs to this acquisition alone. Hosts that count the
//!    old drives, and hosts that count the new ones, both conclude that its writer counts other
//!    drives, and give way to it on every drive where they meet it. A fingerprint of the new drives
//!    would not be enough: before they are a majority, a host that counts the same drives may
//!    ignore them. It is not known whether a REFRESH stores metadata, so each record is read back.
//! 3. When more than half of the new drives have it, marked and with no other holder in the way,
//!    the caller is informed and notes the new drives. Whenever it dies, its note names the old
//!    drives or the new ones, and both are enough for an adoption.
//! 4. After [`Lock::move_votes`] the new drives vote. A drive whose record could not be marked does
//!    not count, and is taken anew. The lock is given back on all others when the new drives show
//!    the mark: a host that knows only the old drives may have just one in common with the new
//!    ones.
//!
//! Until the last step only the old drives vote, as before. In the last one, a drive that may hide
//! the move is safe only while enough of the old drives keep the lock (`left_until`). Of all drives
//! that voted before, those of the acquisition count: all later records have the new mark.
//!
//! If the old drives are not those of the LV but former drives of the VG, they are not enough: a
//! host that counts the VG's new drives need not meet them. So such a lock also has to be on enough
//! of the new drives (`seen_until`).

use super::{Held, Lock, MAX_DRIVES, Moving, NO_SET, Phase, Target, Unseen};
use crate::api::{DriveRef, Event, Fingerprint, Instant, Member, Timing};
use crate::replica::{Hold, Replica, Role, Step, Task};
use crate::rules::broken;
use crate::stamp::Stamp;
use alloc::vec::Vec;
use idm_protocol::Mode;

impl Lock {
    /// Puts a held lock on exactly these drives, so that they vote instead of the present ones.
    /// Without effect while the lock is not held, and if no drive, one drive twice, or more than
    /// 512 drives are named.
    pub fn spread(&mut self, drives: &[Member], now: Instant) {
        self.notice_lapse(now);
        let Phase::Held(Held { mode, lapsed: None, .. }) = self.phase else {
            return;
        };
        let twice = |at: usize| drives[..at].iter().any(|m| m.drive == drives[at].drive);
        if drives.is_empty() || drives.len() > MAX_DRIVES || (0..drives.len()).any(twice) {
            return;
        }
        let set = Fingerprint::of(drives);
        let adopted_until = self.adopted_until.take();
        let spared = self.target.map(|target| target.spared_until);
        let unseen_since_before = spared.filter(|_| self.seen_until(mode) == spared);
        if self.target.is_none_or(|target| target.set != set) {
            self.set_moving(Moving::No);
            if let (Some(until), None) = (unseen_since_before, &self.unseen) {
                let drives = self.replicas.iter().filter(|s| s.target).map(|s| s.drive).collect();
                self.unseen = Some(Unseen { until, drives });
            }
            let spared_until = Instant::default();
            self.target = (set != self.set).then_some(Target { set, spared_until });
        }
        // Others may count other drives by now.
        self.has_witnesses |= self.target.is_some();
        self.may_have_moved = true;
        if self.target.is_none() {
            // The LV may be left on some of the drives that vote.
            self.votes_moved = true;
        }
        self.replicas.iter_mut().for_each(|replica| replica.target = false);
        let at = self.after_earlier(mode, now);
        for member in drives {
            let replica = self.replica(member.drive);
            replica.target = true;
            if matches!(replica.role, Role::Witness | Role::Former) {
                replica.role = Role::Extra;
                if matches!(replica.task, Task::Idle | Task::Clean(_) | Task::Leave) {
                    replica.start_take(mode, at);
                }
            }
        }
        self.dismiss_extras();
        if self.seen_until(mode).is_some_and(|end| end <= now) {
            let lease = self.lease_from(now);
            // An earlier life may have had this list, too.
            let limits = [adopted_until, self.unseen.as_ref().map(|unseen| unseen.until)];
            let lease = limits.into_iter().flatten().fold(lease, Instant::min);
            let spared_until = unseen_since_before.unwrap_or(lease);
            self.target = self.target.map(|target| Target { spared_until, ..target });
        }
        self.conclude(now);
    }

    /// Gives the vote to the drives that [`Event::VotesReady`] named and the caller has noted.
    /// Returns `false` if they are no longer ready, or if others were named since; then the present
    /// drives go on voting.
    pub fn move_votes(&mut self, members: &[DriveRef], now: Instant) -> bool {
        self.notice_lapse(now);
        let Phase::Held(held) = &self.phase else { return false };
        let (mode, moving) = (held.mode, held.moving);
        let named = |replica: &Replica| members.contains(&replica.drive);
        let others = self.replicas.iter().any(|s| s.target != named(s));
        let more = members.len() > self.replicas.iter().filter(|s| named(s)).count();
        if moving != Moving::Told || others || more {
            return false;
        }
        self.set_moving(Moving::No);
        let Some(target) = self.target.filter(|_| self.can_move(mode, now)) else {
            self.conclude(now);
            return false;
        };
        self.leave_drives(mode, target.set, now);
        self.set = target.set;
        self.target = None;
        self.votes_moved = true;
        self.dismiss_extras();
        for at in 0..self.replicas.len() {
            let replica = &self.replicas[at];
            let votes = replica.role == Role::Member && replica.task == Task::Keep;
            if votes && !replica.is_marked(self.set) {
                self.retake(at, now);
            }
        }
        self.conclude(now);
        true
    }

    /// The moment until which hosts that count the VG's new drives meet the lock; `None` if its own
    /// drives are enough for that.
    ///
    /// Such a host gets a majority of the drives that the LV lies on, and reads more than half of
    /// the VG's drives. So it meets the lock on half of the new drives. It also meets the lock if
    /// all old drives that stay in the VG have it. The LV lies on these, because only its holder
    /// moves an LV, and only after the votes. If neither is so when the drives are named, it was
    /// not so before either. Then the move gets the time of a lease, as if the drives were
    /// refreshed now: a drive may have to be taken anew, and an orderly stop of the LV's use takes
    /// time, too. The end of that time does not move when other drives are named that do not have
    /// the lock.
    pub(super) fn seen_until(&self, mode: Mode) -> Option<Instant> {
        let binds = self.votes_moved && !broken!(self.rules, SeenByVg);
        let target = self.target.filter(|_| binds)?;
        Some(self.met_until(mode).max(target.spared_until))
    }

    /// The same without the time that the move has got, in which nothing need keep hosts out.
    fn met_until(&self, mode: Mode) -> Instant {
        let targets = || self.replicas.iter().filter(|s| s.target);
        // A host that counts these drives gives way to a record that names others, and cannot get
        // enough of them where their own records are enough. But a drive that is being taken may
        // be about to be given back, because of what its record names.
        let changes = |s: &Replica| matches!(&s.task, Task::Take(take) if take.converting);
        let may_leave = |s: &Replica| s.role != Role::Member && s.task != Task::Keep && !changes(s);
        let has = |s: &Replica| s.confirms(mode, self.rules) && (!may_leave(s) || self.fits(s));
        let end = |s: &Replica| self.lease_end(s).filter(|_| has(s));
        let needed = self.rules.keep_quorum(targets().count());
        let half = Lock::nth_end(targets().filter_map(end), needed);
        let staying = targets().filter(|s| s.role == Role::Member);
        let staying = staying.map(|s| end(s).unwrap_or_default()).min();
        half.max(staying).unwrap_or_default()
    }

    /// Whether the votes are to move, and have not yet.
    pub fn is_moving(&self) -> bool {
        matches!(self.phase, Phase::Held(Held { lapsed: None, .. })) && self.target.is_some()
    }

    /// Gives the lock back on drives that neither vote nor are named, unless they have to keep it.
    fn dismiss_extras(&mut self) {
        let keeps = self.hidden_until.is_some();
        let leaves = |s: &Replica| s.role == Role::Extra && !s.target && !(keeps && s.original);
        for replica in self.replicas.iter_mut().filter(|s| leaves(s)) {
            replica.role = Role::Former;
            // Whoever was met here may have gone when the drive is named again.
            replica.foreign = None;
            if !matches!(replica.task, Task::Clean(_)) {
                replica.assign(Task::Idle);
            }
        }
    }

    fn set_moving(&mut self, to: Moving) {
        if let Phase::Held(held) = &mut self.phase {
            held.moving = to;
        }
    }

    /// Lets the new drives vote. If one of them may hide from hosts that know the original ones
    /// that votes have moved, these keep the lock.
    fn leave_drives(&mut self, mode: Mode, set: Fingerprint, now: Instant) {
        // If they do not have it any more, such a host could get a majority before, too.
        let hides =
            self.hides_until(set, now).filter(|_| self.kept_until(mode, |s| s.target) > now);
        self.hidden_until = self.hidden_until.max(hides);
        for replica in &mut self.replicas {
            match replica.role {
                _ if replica.target => replica.role = Role::Member,
                Role::Member => replica.role = Role::Extra,
                _ => {}
            }
        }
    }

    /// The moment until which one of the drives that are to vote may have a record of this host
    /// with the mark of the original drives; `None` if none may.
    fn hides_until(&self, set: Fingerprint, now: Instant) -> Option<Instant> {
        let timing = &self.config.timing;
        let hidden = |s: &&Replica| s.target && s.original && !s.shows_moved_votes(set);
        let end = self.replicas.iter().filter(hidden).map(|s| s.gone_at(timing)).max();
        end.filter(|&end| end > now)
    }

    /// Notes that a REFRESH is sent, which may prolong a record with the old mark.
    pub(super) fn note_refresh(&mut self, at: usize) {
        let replica = &self.replicas[at];
        let hides = replica.role == Role::Member && !replica.shows_moved_votes(self.set);
        if let Some(end) = self.hidden_until.as_mut().filter(|_| hides) {
            *end = replica.gone_at(&self.config.timing).max(*end);
        }
    }

    /// The moment until which a host that counts the original drives can get no majority of them.
    /// A drive that stays need not count for this host: the record that hides the move keeps that
    /// host out, too, until its lease is over. A drive that has never answered keeps nobody out.
    fn kept_until(&self, mode: Mode, stays: impl Fn(&Replica) -> bool) -> Instant {
        let originals = || self.replicas.iter().filter(|s| s.original);
        let had = |s: &Replica| stays(s) && s.marked_at > Instant::default();
        let end = |s: &Replica| match s.hold {
            Hold::Held { .. } if stays(s) || s.counts(mode, self.original, self.rules) => {
                self.lease_end(s)
            }
            Hold::Maybe { latest } if had(s) => Some(self.lease_from(latest)),
            // It was just given back, to be taken anew.
            Hold::None if had(s) => Some(Instant::from_micros(u64::MAX)),
            _ => None,
        };
        let needed = self.rules.keep_quorum(originals().count());
        Lock::nth_end(originals().filter_map(end), needed).unwrap_or_default()
    }

    /// The same where a drive that votes may hide from that host that votes have moved. `None` if
    /// that is so until no drive hides it any more.
    pub(super) fn left_until(&self, mode: Mode) -> Option<Instant> {
        let hidden_until = self.hidden_until?;
        let kept_until = self.kept_until(mode, |s| s.role == Role::Member);
        Some(kept_until).filter(|&end| end < hidden_until)
    }

    /// Whether a drive does not vote any more, and keeps the lock because another one hides that.
    pub(super) fn is_left(&self, replica: &Replica) -> bool {
        replica.role == Role::Extra && replica.original && self.hidden_until.is_some()
    }

    /// Gives the lock back on drives that voted before the votes moved, when every original drive
    /// that votes now shows the new mark, or shows no record of this host any more.
    pub(super) fn let_go(&mut self, now: Instant) {
        let Some(hidden_until) = self.hidden_until else { return };
        let hides = |s: &Replica| s.original && !s.shows_moved_votes(self.set);
        if now >= hidden_until || !self.members().any(hides) {
            self.hidden_until = None;
            self.dismiss_extras();
        }
    }

    /// Takes the next step towards moving the votes.
    pub(super) fn conclude_move(&mut self, held: &Held, now: Instant) {
        if self.target.is_none() || held.lapsed.is_some() || held.change.is_some() {
            return;
        }
        match held.moving {
            Moving::No => self.start_marking(now),
            Moving::Marking if self.can_move(held.mode, now) => {
                self.set_moving(Moving::Told);
                let named = self.replicas.iter().filter(|s| s.target).map(|s| s.drive);
                let members: Vec<_> = named.collect();
                self.events.push_back(Event::VotesReady { members });
            }
            Moving::Marking | Moving::Told => {}
        }
    }

    /// Lets the records that are written from now on have a fingerprint that is no set's.
    pub(super) fn mark_alone(&mut self) {
        if !self.stamp.alone {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&self.rng.next().to_be_bytes());
            bytes[8..].copy_from_slice(&self.rng.next().to_be_bytes());
            let fingerprint = Fingerprint(bytes);
            self.stamp = Stamp { fingerprint, alone: true, ..self.stamp };
        }
    }

    fn start_marking(&mut self, now: Instant) {
        self.mark_alone();
        self.set_moving(Moving::Marking);
        self.refresh_now(|replica| replica.target && !replica.is_marked_alone(), now);
    }

    /// Whether a drive's record must be read, to check that the REFRESH has marked it.
    pub(super) fn marks(&self, replica: &Replica) -> bool {
        let marking = matches!(self.phase, Phase::Held(Held { moving: Moving::Marking, .. }));
        marking && replica.target && !replica.is_marked_alone()
    }

    /// Whether a drive that is to vote has a record that no REFRESH marks. Such a drive does not
    /// vote yet, so it is taken anew, unless the lock depends on it all the same, or too few of the
    /// others that are to vote would keep hosts out meanwhile.
    pub(super) fn has_to_be_marked_anew(&mut self, at: usize, now: Instant) -> bool {
        let Phase::Held(Held { mode, lapsed: None, change: None, .. }) = self.phase else {
            return false;
        };
        let replica = &self.replicas[at];
        let unmarked = replica.mark.is_some() && !self.is_shown_marked(replica);
        if replica.role != Role::Extra || !unmarked || !self.marks(replica) {
            return false;
        }
        // A drive that is being taken anew itself may be about to be given back.
        let holds: Vec<Hold> = self.replicas.iter().map(|s| s.hold).collect();
        let is_kept = |(n, s): &(usize, &mut Replica)| *n != at && s.task == Task::Keep;
        let all = self.replicas.iter_mut().enumerate();
        all.filter(|it| !is_kept(it)).for_each(|(_, s)| s.hold = Hold::None);
        let targets = || self.replicas.iter().filter(|s| s.target);
        let others = Lock::nth_end(
            targets().filter_map(|s| self.lease_end(s)),
            self.rules.keep_quorum(targets().count()),
        );
        let bound = self.bound(mode).min(others);
        self.replicas.iter_mut().zip(holds).for_each(|(s, hold)| s.hold = hold);
        // The UNLOCK may be reported as lost, and bars the drive after that.
        let Timing { linger, patience, .. } = self.config.timing;
        bound.is_some_and(|end| end > now + 2 * linger + patience)
    }

    /// Keeps a drive in place of sending its planned UNLOCK, after which its record would be
    /// written anew, if the record is needed, or if it is enough to read it again. Returns whether
    /// it does: the VG's drives may have been named since that was planned.
    pub(super) fn keeps_unmarked(&mut self, at: usize, now: Instant) -> bool {
        let replica = &self.replicas[at];
        let plan = replica.plan.map(|plan| plan.step);
        let (Task::Take(_), Some(Step::Unlock(_)), Hold::Held { mode, since }) =
            (&replica.task, plan, replica.hold)
        else {
            return false;
        };
        let votes = replica.role == Role::Member;
        let is_shown = self.is_shown_marked(replica);
        let keeps = self.phase.is_held() && (is_shown || (votes && self.needs_record(at, now)));
        if keeps {
            self.keep(at, mode, since, now);
        }
        keeps
    }

    /// Whether a drive that votes was kept without the mark that it needs to count, and its record
    /// is not needed any more.
    pub(super) fn can_be_marked_anew(&mut self, at: usize, now: Instant) -> bool {
        let replica = &self.replicas[at];
        let is_kept = replica.role == Role::Member && !replica.is_marked(self.set);
        let Phase::Held(Held { lapsed: None, change: None, .. }) = self.phase else {
            return false;
        };
        is_kept && !self.needs_record(at, now)
    }

    /// Whether a host that counts the VG's new drives meets the lock, and without the record on
    /// this drive would not.
    pub(super) fn needs_record(&mut self, at: usize, now: Instant) -> bool {
        let Phase::Held(Held { mode, lapsed: None, .. }) = self.phase else { return false };
        if self.target.is_none() || !self.votes_moved {
            return false;
        }
        let with = self.met_until(mode);
        let hold = core::mem::replace(&mut self.replicas[at].hold, Hold::None);
        let without = self.met_until(mode);
        self.replicas[at].hold = hold;
        // The UNLOCK may be reported as lost, and bars the drive after that.
        let Timing { linger, patience, .. } = self.config.timing;
        without < with && without <= now + linger + patience
    }

    /// The set that a record of this host may name on a drive that is being taken. On one that is
    /// to vote it may name none.
    pub(super) fn named_on(&self, replica: &Replica) -> Fingerprint {
        let travels = self.stamp.alone && replica.target && replica.role == Role::Extra;
        if travels { NO_SET } else { self.set }
    }

    /// Whether this host's record on a drive that is to vote is as it has to be then. One that
    /// names exactly the new drives is another set's for all hosts that count others.
    fn fits(&self, replica: &Replica) -> bool {
        replica.target && self.target.is_some_and(|target| replica.stays_marked(target.set))
    }

    /// Whether a record shows the mark that it needs on a drive that votes or is to vote. A lost
    /// command may still write another one; until then it is enough to read the record again.
    fn is_shown_marked(&self, replica: &Replica) -> bool {
        let set = Some(self.set).filter(|_| replica.role == Role::Member);
        let target = self.target.filter(|_| replica.target).map(|target| target.set);
        let mut sets = set.into_iter().chain(target);
        replica.mark.is_some_and(|mark| sets.any(|set| mark.fits(set)))
    }

    /// Whether the new drives would be enough to acquire the lock, with no other holder in the way.
    fn can_move(&self, mode: Mode, now: Instant) -> bool {
        let Phase::Held(Held { lapsed: None, change: None, .. }) = self.phase else {
            return false;
        };
        let targets = || self.replicas.iter().filter(|s| s.target);
        let disputed = targets().any(|s| s.contested || s.foreign.is_some());
        let has = |s: &Replica| self.fits(s) && s.confirms(mode, self.rules);
        let ready = targets().filter(|s| has(s) && self.lease_end(s) > Some(now)).count();
        !disputed && ready >= self.rules.acquire_quorum(targets().count()) && self.stands()
    }
}
