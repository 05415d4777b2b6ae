//! Adopting the lock: taking over the records that an earlier life of this host left on the drives.
//!
//! With an acquire quorum of answers, an adoption is an acquisition that finds its own record on
//! every drive that it wins. Half of an even number of drives is enough to *keep* a lock, but not
//! by itself to adopt it. This host may have got its half in an attempt that failed, while another
//! host keeps the lock with the other half, or has it on other drives by now. Half is enough if
//! this host is known to have been granted the lock, and nobody can have broken its records yet.
//! Later, an LV's lock needs all drives: its votes may have moved, or all of the VG's drives voted
//! and the LV was left on fewer of them. Then another host that counts the LV's drives and new
//! drives of the VG has broken one of these records, but not a majority.
//!
//! Records in both modes remain from an unfinished change, or from drives that missed one. A lock
//! that is noted as shared is adopted as shared, whatever the mode of its records: the caller is
//! not informed of a change to exclusive before it is noted, and a sharer may have refused it. A
//! lock that is noted as exclusive is exclusive if a quorum is exclusive. Its records tell that it
//! is shared only if a keep quorum is shared. With fewer, there may have been an acquire quorum of
//! exclusive records, some of which are gone, and the rest must not pass for a shared lock.

use super::{Adopting, Distrust, Held, Lock, Phase, Stage, Unseen};
use crate::api::{Conflict, DriveRef, Instant, Outcome, Refusal};
use crate::replica::{Hold, Replica, Role, Task, Vote};
use crate::rules::broken;
use crate::stamp::{Mark, Stamp};
use alloc::vec::Vec;
use idm_protocol::Mode;

/// The result of the members' answers about a lock to adopt.
enum Orphan {
    /// This host holds it in this mode.
    Found(Mode),
    /// This host does not hold it.
    Gone,
    /// Drives that have not answered decide.
    Open,
    /// Another host can have as many drives as this one, or too few records show the mode.
    Unclear,
}

/// Other holders on a drive, if it was read.
fn others_on(replica: &Replica) -> Option<&Vec<Conflict>> {
    match &replica.task {
        Task::Take(take) => take.others.as_ref(),
        _ => None,
    }
}

/// The mark that an earlier life wrote into this host's record on the drive, if it was read.
fn written_on(replica: &Replica) -> Option<Mark> {
    match &replica.task {
        Task::Take(take) => take.own_stamp.map(Stamp::mark),
        _ => None,
    }
}

/// Whether this host's record on the drive showed, when it was read, that the votes had moved.
fn showed_moved_votes(replica: &Replica) -> bool {
    written_on(replica) == Some(Mark::Alone)
}

impl Lock {
    pub(super) fn adopt(
        &mut self,
        wanted: Mode,
        safe_until: Option<Instant>,
        granted: bool,
        now: Instant,
    ) {
        let deadline = now + self.config.timing.patience;
        let stage = Stage::Voting;
        self.phase = Phase::Adopting(Adopting { wanted, safe_until, granted, deadline, stage });
        // The earlier life may have moved the votes of an LV's lock.
        self.may_have_moved = !self.config.keeps_value;
        self.votes_moved = self.may_have_moved;
        self.adopted_until = safe_until.filter(|_| self.may_have_moved);
        for replica in &mut self.replicas {
            if replica.role == Role::Member {
                replica.start_adopt(now);
            }
        }
    }

    pub(super) fn conclude_adopt(&mut self, adopting: &Adopting, now: Instant) {
        let Adopting { wanted, deadline, stage, .. } = *adopting;
        let over = now >= deadline;
        let mode = match self.orphan(adopting, now) {
            Orphan::Found(mode) => mode,
            Orphan::Gone => return self.leave(Refusal::NothingToAdopt),
            Orphan::Open if !over && self.is_asking(deadline) => {
                self.phase = Phase::Adopting(Adopting { stage: Stage::Voting, ..*adopting });
                return;
            }
            Orphan::Open => {
                let granted = self.ours(Mode::Shared, now);
                let needed = self.rules.acquire_quorum(self.member_count());
                let barred = self.barred(deadline).collect();
                return self.leave(Refusal::NoQuorum { granted, needed, barred });
            }
            Orphan::Unclear => return self.leave(Refusal::Held(self.in_the_way().collect())),
        };
        if wanted != mode {
            return self.leave(Refusal::OtherMode(mode));
        }
        let foreign = |c: &Conflict| !c.same_set && !c.mode.compatible(mode);
        let seen = |s: &Replica| others_on(s).into_iter().flatten().any(foreign);
        let unread = |s: &Replica| matches!(s.vote(), Some(Vote::Blocked(_)));
        if self.members().any(|s| seen(s) || unread(s)) {
            return self.leave(Refusal::Held(self.in_the_way().collect()));
        }
        let (stage, confirmed) = self.confirm(stage, mode, deadline, now);
        self.phase = Phase::Adopting(Adopting { stage, ..*adopting });
        match confirmed {
            None => {}
            Some(Err(refusal)) => self.leave(refusal),
            Some(Ok(())) if !self.is_unbroken(mode, adopting, now) => self.leave(Refusal::Unclear),
            Some(Ok(())) => {
                // The earlier life may have changed data under the lock without publishing it.
                self.distrust = Distrust::Died;
                if self.members().any(showed_moved_votes) {
                    // No refresh gives a record a mark again that hides it.
                    self.mark_alone();
                }
                self.phase = Phase::Held(Held::new(mode));
                self.check_limits(now);
                self.settle_replicas(now);
                self.finish(Outcome::Adopted(mode));
            }
        }
    }

    /// Ends the limits of an adopted lock and of a list without the lock if all drives that vote
    /// have it. For that of a list enough of its drives will do.
    pub(super) fn check_limits(&mut self, now: Instant) {
        let Phase::Held(Held { mode, lapsed: None, .. }) = self.phase else { return };
        let is_there = |unseen: &Unseen| {
            let drives = &unseen.drives;
            let of_list = self.replicas.iter().filter(|s| drives.contains(&s.drive));
            let has = of_list.filter(|s| self.has_now(s, mode, now)).count();
            has >= self.rules.keep_quorum(drives.len())
        };
        if self.unseen.as_ref().is_some_and(is_there) {
            self.unseen = None;
        }
        let is_limited = self.adopted_until.is_some() || self.unseen.is_some();
        if is_limited && self.all_have(mode, now) {
            (self.adopted_until, self.unseen) = (None, None);
        }
    }

    /// Whether there is a lock to adopt, and its mode.
    fn orphan(&self, adopting: &Adopting, now: Instant) -> Orphan {
        let keep = self.rules.keep_quorum(self.member_count());
        let undecided = |s: &&Replica| matches!(s.vote(), Some(Vote::Asking | Vote::Silent));
        let open = self.members().filter(undecided).count();
        // Odd drives: their record dates from a time when this host counted other drives, or its
        // lease has ended since it was confirmed, or they reported a conflict and could not be
        // read.
        let odd = |s: &&Replica| match s.vote() {
            Some(Vote::Won) => !self.has_now(s, Mode::Shared, now),
            Some(Vote::Blocked(_)) => s.hold != Hold::None,
            _ => false,
        };
        let odd = self.members().filter(odd).count();
        let modes = [Mode::Exclusive, Mode::Shared];
        for mode in modes.into_iter().filter(|&mode| mode <= adopting.wanted) {
            let ours = self.ours(mode, now);
            let shows_mode = mode == adopting.wanted || self.exactly(mode) >= keep;
            if ours >= self.adopt_quorum(mode, adopting, now) && shows_mode {
                return Orphan::Found(mode);
            }
            if ours + open + odd >= keep {
                return if open == 0 { Orphan::Unclear } else { Orphan::Open };
            }
        }
        Orphan::Gone
    }

    /// The number of members that this host holds in a mode, and in no stronger one.
    fn exactly(&self, mode: Mode) -> usize {
        let held = |s: &&Replica| matches!(s.hold, Hold::Held { mode: held, .. } if held == mode);
        self.members().filter(held).count()
    }

    /// The number of members that this host holds in a mode.
    fn ours(&self, mode: Mode, now: Instant) -> usize {
        self.members().filter(|s| self.is_ours(s, mode, now)).count()
    }

    fn is_ours(&self, replica: &Replica, mode: Mode, now: Instant) -> bool {
        let won = replica.vote() == Some(&Vote::Won);
        won && self.has_now(replica, mode, now)
    }

    /// The number of members that this host must hold; the head of this file argues for it.
    fn adopt_quorum(&self, mode: Mode, adopting: &Adopting, now: Instant) -> usize {
        let members = self.member_count();
        // A sharer may meet other sharers.
        let shares = |c: &Conflict| c.mode.compatible(mode);
        let alone = |s: &Replica| others_on(s).is_none_or(|others| others.iter().all(shares));
        let unbroken = adopting.is_in_time(now);
        let kept = unbroken && adopting.granted && self.members().all(alone);
        if kept || broken!(self.rules, AdoptQuorum) {
            self.rules.keep_quorum(members)
        } else if self.may_have_moved && !unbroken {
            members
        } else {
            self.rules.acquire_quorum(members)
        }
    }

    /// Whether no other host can have had the lock since this host's records were written. If that
    /// host counted the same drives, it would have broken a record of this quorum. Otherwise the
    /// lock was put on all of the VG's drives, because the LV might be moved. Then the other host
    /// may have had a majority of the drives that the LV lies on now; but it has read more than
    /// half of the VG's drives, and broken the records that it found there. No host can have had
    /// what this one was granted and has kept in time.
    fn is_unbroken(&self, mode: Mode, adopting: &Adopting, now: Instant) -> bool {
        let same_set = |s: &&Replica| written_on(s) == Some(Mark::Set(self.set));
        let same = self.members().filter(|s| self.is_ours(s, mode, now)).filter(same_set).count();
        let all = self.replicas.iter().filter(|s| s.role != Role::Former);
        let held = all.clone().filter(|s| self.has_now(s, Mode::Shared, now)).count();
        !self.has_witnesses
            || (adopting.is_in_time(now) && adopting.granted)
            || same >= self.adopt_quorum(mode, adopting, now)
            || 2 * held > all.count()
    }

    /// Whether a member may still answer before the deadline.
    fn is_asking(&self, deadline: Instant) -> bool {
        let late = |s: &Replica| s.ready_at(self.rules).is_some_and(|at| at > deadline);
        self.members().any(|s| s.vote() == Some(&Vote::Asking) && !late(s))
    }

    /// Members that cannot be asked again before the deadline.
    fn barred(&self, deadline: Instant) -> impl Iterator<Item = (DriveRef, Instant)> + '_ {
        let asking = self.members().filter(|s| s.vote() == Some(&Vote::Asking));
        let next = asking.filter_map(|s| Some((s.drive, s.ready_at(self.rules)?)));
        next.filter(move |&(_, at)| at > deadline)
    }

    /// Other hosts that hold the lock on members.
    fn in_the_way(&self) -> impl Iterator<Item = Conflict> + '_ {
        self.members().filter_map(others_on).flatten().copied()
    }

    /// Refuses the adoption. This host's records stay on the drives, because the lock may be in
    /// use.
    fn leave(&mut self, refusal: Refusal) {
        self.phase = Phase::Left;
        let nobody = matches!(&refusal, Refusal::Held(others) if others.is_empty());
        let refusal = if nobody { Refusal::Unclear } else { refusal };
        // A TRYLOCK without a look could mistake the earlier life's record for this life's.
        self.known.clear();
        for replica in &mut self.replicas {
            if !matches!(replica.task, Task::Clean(_)) {
                replica.assign(Task::Leave);
            }
        }
        self.finish(Outcome::Refused(refusal));
    }
}
