//! Keeping the lock, and noticing its loss.

use super::{Change, Held, Lock, Phase};
use crate::api::{Conflict, Event, Instant, Loss, Notice, Outcome, Refusal};
use crate::replica::{Heard, Hold, Look, Replica, Role, Step, Task, Vote};
use crate::rules::broken;
use alloc::vec::Vec;
use core::time::Duration;
use idm_protocol::{Mode, Status};
use smallvec::SmallVec;

/// The first pause before a refresh that failed is sent again.
const REFRESH_PAUSE: Duration = Duration::from_millis(250);

impl Lock {
    /// The mode that drives should have: the requested or held mode or, during a change to
    /// exclusive, exclusive.
    pub(super) fn goal(&self) -> Mode {
        match &self.phase {
            Phase::Acquiring(acquiring) => acquiring.mode,
            Phase::Adopting(adopting) => adopting.wanted,
            Phase::Held(Held { change: Some(Change::Up { .. }), .. }) => Mode::Exclusive,
            _ => self.mode().unwrap_or(Mode::Shared),
        }
    }

    /// The moment of the next refresh of a drive that was refreshed at `since`. It is a little
    /// early, and different for each lock, so that many locks are not refreshed at the same time.
    /// The drives of one lock are refreshed together, because that costs only a third; a drive that
    /// is out of step is refreshed earlier, once.
    fn due(&mut self, since: Instant, soonest: Duration) -> Instant {
        let renew = self.config.timing.renew;
        let joins = since + renew / 4..=since + renew;
        let planned = self.replicas.iter().filter(|s| s.task == Task::Keep).filter_map(|s| s.plan);
        let together = planned.map(|plan| plan.at).find(|at| joins.contains(at));
        together.unwrap_or_else(|| since + self.rng.between(soonest, renew))
    }

    /// Keeps a drive that was won; a drive in another mode is changed at once. The first refresh
    /// may come early: a host takes all locks of a VG at once, and must not refresh them all at
    /// once forever.
    pub(super) fn keep(&mut self, at: usize, mode: Mode, since: Instant, now: Instant) {
        let goal = self.goal();
        let renew = self.config.timing.renew;
        let due = if mode == goal { self.due(since, renew / 4) } else { now };
        let replica = &mut self.replicas[at];
        replica.failures = 0;
        // Whoever was met here before has gone.
        replica.foreign = None;
        replica.assign(Task::Keep);
        replica.plan(Step::Refresh(goal), due);
    }

    /// Acts on a reply to a refresh of a held lock.
    pub(super) fn advance_keep(&mut self, at: usize, heard: &Heard, now: Instant) {
        let goal = self.goal();
        let renew = self.config.timing.renew;
        let replica = &mut self.replicas[at];
        match (replica.hold, heard) {
            (Hold::None, _) => self.lost_drive(at, heard, now),
            (Hold::Held { mode, since }, Heard::Status(Status::Good) | Heard::Table(..)) => {
                replica.failures = 0;
                if matches!(heard, Heard::Status(_)) && self.marks(&self.replicas[at]) {
                    return self.replicas[at].plan(Step::Look(Look::Holders), now);
                }
                if self.has_to_be_marked_anew(at, now) || self.can_be_marked_anew(at, now) {
                    return self.retake(at, now);
                }
                let settled = mode == goal && since >= self.shaken_at;
                let due = if settled { self.due(since, renew * 3 / 4) } else { now };
                self.replicas[at].plan(Step::Refresh(goal), due);
            }
            _ => {
                let pause = replica.pause(REFRESH_PAUSE, renew / 2);
                replica.failures = replica.failures.saturating_add(1);
                replica.plan(Step::Refresh(goal), now + pause);
            }
        }
    }

    /// Handles a drive that no longer knows this host's lock. A drive that was reset can be taken
    /// again at once, unlike one that another host took. In both cases the other drives are first
    /// asked whether they still know the lock.
    pub(super) fn lost_drive(&mut self, at: usize, heard: &Heard, now: Instant) {
        self.shaken_at = now;
        self.refresh_now(|_| true, now);
        let notice = Notice::DriveLost { drive: self.replicas[at].drive };
        self.events.push_back(Event::Notice(notice));
        let reset = *heard == Heard::Status(Status::NotFound);
        let pause = if reset { Duration::ZERO } else { self.config.timing.renew / 4 };
        self.retake(at, now + pause);
    }

    /// Refreshes at once those drives of a kind that are kept.
    pub(super) fn refresh_now(&mut self, kind: impl Fn(&Replica) -> bool, now: Instant) {
        let goal = self.goal();
        for replica in self.replicas.iter_mut().filter(|s| s.task == Task::Keep && kind(s)) {
            replica.plan(Step::Refresh(goal), now);
        }
    }

    /// Begins to take a drive that a held lock does not have.
    pub(super) fn retake(&mut self, at: usize, when: Instant) {
        self.take_late(at, when, Replica::start_take);
    }

    /// The same for a drive that may go on to keep hosts out.
    fn retake_silent(&mut self, at: usize, when: Instant) {
        self.take_late(at, when, Replica::start_again);
    }

    fn take_late(&mut self, at: usize, when: Instant, start: fn(&mut Replica, Mode, Instant)) {
        let Phase::Held(Held { lapsed, .. }) = self.phase else { return };
        let mode = self.goal();
        if lapsed.is_none() || broken!(self.rules, RetakeOnlyWhileSafe) {
            let when = self.after_earlier(mode, when);
            start(&mut self.replicas[at], mode, when);
            self.replicas[at].missed = true;
        } else {
            self.replicas[at].assign(Task::Idle);
        }
    }

    /// Whether a keep quorum of the drives has confirmed the lock since a drive was last found to
    /// have lost it. Always true while the lock is being acquired.
    pub(super) fn stands(&self) -> bool {
        let Phase::Held(held) = &self.phase else { return true };
        let since = self.shaken_at;
        let sure = self
            .members()
            .filter(|s| self.counts(s, held.mode))
            .filter(|s| matches!(s.hold, Hold::Held { since: at, .. } if at >= since))
            .count();
        sure >= self.rules.keep_quorum(self.member_count())
            || broken!(self.rules, RetakeOnlyWhileSafe)
    }

    /// The moment until which enough drives keep the lock for this host: the next expiring lease
    /// leaves fewer drives than the keep quorum.
    pub(super) fn bound(&self, mode: Mode) -> Option<Instant> {
        let counted = self.members().filter(|s| self.counts(s, mode));
        let needed = self.rules.keep_quorum(self.member_count());
        let kept = Lock::nth_end(counted.filter_map(|s| self.lease_end(s)), needed)?;
        let unseen_until = self.unseen.as_ref().map(|unseen| unseen.until);
        let lists = [self.seen_until(mode), self.left_until(mode), unseen_until];
        lists.into_iter().chain([self.adopted_until]).flatten().chain([kept]).min()
    }

    /// The moment from which fewer than `needed` of the leases run that end at these moments.
    pub(super) fn nth_end(ends: impl Iterator<Item = Instant>, needed: usize) -> Option<Instant> {
        // On the heap only if there are more drives than most VGs have.
        let mut ends: SmallVec<[Instant; 8]> = ends.collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(needed - 1).copied()
    }

    /// The moment when the lease ends on one drive, on this host's side.
    pub(super) fn lease_end(&self, replica: &Replica) -> Option<Instant> {
        match replica.hold {
            Hold::Held { since, .. } => Some(self.lease_from(since)),
            _ => None,
        }
    }

    /// The end, on this host's side, of a lease that begins at this moment.
    pub(super) fn lease_from(&self, since: Instant) -> Instant {
        since + self.config.timing.lease - self.config.timing.drift
    }

    /// Checks whether the lease has expired. This precedes everything else, so that no late arrival
    /// can count as timely.
    pub(super) fn notice_lapse(&mut self, now: Instant) {
        let Phase::Held(Held { mode, lapsed: None, .. }) = self.phase else {
            return;
        };
        let bound = self.bound(mode).unwrap_or_default();
        if now < bound {
            return;
        }
        if let Phase::Held(held) = &mut self.phase {
            held.lapsed = Some(bound);
        }
        // It is regained only if all drives that vote have it, or not at all.
        (self.adopted_until, self.unseen) = (None, None);
        self.events.push_back(Event::Lapsed);
        if broken!(self.rules, RetakeOnlyWhileSafe) {
            return;
        }
        let (set, rules) = (self.set, self.rules);
        for replica in &mut self.replicas {
            replica.gap = !replica.counts(mode, set, rules);
            if matches!(&replica.task, Task::Take(take) if !take.converting) {
                replica.foreign = None;
                replica.assign(Task::Idle);
            }
        }
    }

    pub(super) fn conclude_held(&mut self, held: &Held, now: Instant) {
        self.collect_takes(held, now);
        self.check_ownership();
        self.check_regained(now);
        self.check_limits(now);
        let Phase::Held(held) = self.phase.clone() else {
            return;
        };
        match held.change {
            None => self.conclude_move(&held, now),
            Some(Change::Up { deadline, stage }) => self.conclude_up(&held, deadline, stage, now),
            Some(Change::Down { deadline }) => {
                let shared = |s: &&Replica| matches!(s.hold, Hold::Held { mode: Mode::Shared, .. });
                let done = self.members().filter(shared).count();
                let complete = done >= self.rules.acquire_quorum(self.member_count());
                if complete || now >= deadline {
                    self.end_change(held.mode);
                    self.finish(Outcome::Converted { complete });
                }
            }
        }
    }

    /// Ends finished attempts to take further drives.
    pub(super) fn collect_takes(&mut self, held: &Held, now: Instant) {
        if matches!(held.change, Some(Change::Up { .. })) {
            // Their votes count for the change until it ends.
            return;
        }
        let renew = self.config.timing.renew;
        for at in 0..self.replicas.len() {
            let replica = &mut self.replicas[at];
            let given_back = replica.task == Task::Idle && held.lapsed.is_none();
            if given_back && matches!(replica.role, Role::Member | Role::Extra) {
                self.retake(at, now + renew);
                continue;
            }
            let Task::Take(take) = &replica.task else {
                continue;
            };
            if take.converting || take.witness {
                continue;
            }
            match take.vote.clone() {
                Vote::Asking => {}
                Vote::Won => {
                    replica.foreign = None;
                    // Without its mark the drive would never count: a refresh need not change that.
                    let hold = Some(replica.hold).filter(|_| replica.is_marked(self.set));
                    let Some(Hold::Held { mode, since }) = hold else {
                        self.retake(at, now + renew);
                        continue;
                    };
                    if core::mem::take(&mut replica.missed) {
                        let notice = Notice::DriveGained { drive: replica.drive };
                        self.events.push_back(Event::Notice(notice));
                    }
                    self.keep(at, mode, since, now);
                }
                Vote::Blocked(conflicts) => {
                    self.note_foreign(at, &conflicts, now);
                    self.retake(at, now + renew);
                }
                vote @ (Vote::Silent | Vote::Full | Vote::NotIdm | Vote::NotOurs) => {
                    // A holder that was met may have gone meanwhile.
                    replica.foreign = None;
                    match vote {
                        Vote::Silent => self.retake_silent(at, now + renew),
                        _ => self.retake(at, now + renew),
                    }
                }
            }
        }
    }

    /// Notes a live holder that counts other drives, seen on a drive of this lock. If it stays
    /// longer than the lease that it had at first sight, it refreshes the lock, so it believes that
    /// it holds the lock too.
    pub(super) fn note_foreign(&mut self, at: usize, conflicts: &[Conflict], now: Instant) {
        let (timing, goal) = (self.config.timing, self.goal());
        let replica = &mut self.replicas[at];
        let excludes = |c: &&Conflict| !c.same_set && !c.mode.compatible(goal);
        let Some(conflict) = conflicts.iter().find(excludes) else {
            // A holder that could not be read may be the one that was seen before.
            replica.foreign = replica.foreign.filter(|_| conflicts.is_empty());
            return;
        };
        match replica.foreign {
            Some((host, first)) if host == conflict.host => {
                if now.since(first) > timing.lease + timing.renew {
                    self.lose(Loss::OtherSet(*conflict));
                }
            }
            _ => replica.foreign = Some((conflict.host, now)),
        }
    }

    /// Whether enough drives can still confirm the lock; otherwise it is lost.
    pub(super) fn check_ownership(&mut self) {
        if !matches!(self.phase, Phase::Held(_)) {
            return;
        }
        let ours = self
            .members()
            .filter(|s| matches!(s.hold, Hold::Held { .. }) && !matches!(s.task, Task::Clean(_)))
            .count();
        if ours < self.rules.keep_quorum(self.member_count()) {
            self.lose(Loss::Taken);
        }
    }

    pub(super) fn lose(&mut self, loss: Loss) {
        let Phase::Held(held) = &self.phase else {
            return;
        };
        let changing = held.change;
        self.phase = Phase::Lost;
        for replica in &mut self.replicas {
            replica.assign(Task::Idle);
        }
        self.events.push_back(Event::Lost(loss));
        // The request that was under way ends too.
        match changing {
            Some(Change::Up { .. }) => {
                let needed = self.rules.acquire_quorum(self.member_count());
                let barred = Vec::new();
                self.finish(Outcome::Refused(Refusal::NoQuorum { granted: 0, needed, barred }));
            }
            Some(Change::Down { .. }) => self.finish(Outcome::Converted { complete: false }),
            None => {}
        }
    }

    /// After a lapse, checks whether a keep quorum has confirmed the lock again. Drives that were
    /// lost in the meantime are not taken again, so each confirming drive has held the lock without
    /// a gap. That is no proof if others may count other drives. If the LV may lie on any of the
    /// drives that vote, all of them have to confirm.
    pub(super) fn check_regained(&mut self, now: Instant) {
        let Phase::Held(Held { mode, lapsed: Some(_), .. }) = self.phase else {
            return;
        };
        if self.has_witnesses || self.bound(mode).is_none_or(|bound| bound <= now) {
            return;
        }
        if self.votes_moved && !self.all_have(mode, now) {
            return;
        }
        if let Phase::Held(held) = &mut self.phase {
            held.lapsed = None;
        }
        self.events.push_back(Event::Regained);
        for replica in &mut self.replicas {
            replica.gap = false;
        }
        for at in 0..self.replicas.len() {
            let replica = &self.replicas[at];
            let idle =
                replica.task == Task::Idle && matches!(replica.role, Role::Member | Role::Extra);
            if idle {
                self.retake(at, now);
            }
        }
    }
}
