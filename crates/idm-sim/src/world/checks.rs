//! The invariants.

use super::*;

impl World {
    /// Whether a drive stands for the host: it has the host's live record, exclusive where the
    /// host believes to be alone.
    pub(super) fn has_vote(&self, s: usize, d: usize) -> bool {
        let resource = &self.locks[self.lock_of(s)].resource;
        let id = self.hosts[self.host_of(s)].id;
        let held = self.slots[s].mode.or(self.slots[s].orphan.map(|(mode, _)| mode));
        let enough = |mode| mode == Mode::Exclusive || held == Some(Mode::Shared);
        self.drives[d]
            .drive
            .live_holders(self.drive_now(d), resource)
            .any(|(host, mode)| host == id && enough(mode))
    }

    pub(super) fn votes(&self, s: usize) -> usize {
        bits(self.slots[s].members).filter(|&d| self.has_vote(s, d)).count()
    }

    /// Votes that a reset has taken, where the host still counts them and cannot know better.
    fn lost_votes(&self, s: usize) -> usize {
        let slot = &self.slots[s];
        let lease = self.lease() + self.lease() / 100;
        bits(slot.lost & slot.members)
            .filter(|&d| self.now < slot.lost_at[d] + lease && !self.has_vote(s, d))
            .count()
    }

    /// Whether the host's belief is hollow because of resets: the drives that still stand for it
    /// are too few, and those that were reset would make them enough.
    pub(super) fn is_hollow_by_reset(&self, s: usize) -> bool {
        let needed = keep_quorum(count(self.slots[s].members));
        let votes = self.votes(s);
        votes < needed && votes + self.lost_votes(s) >= needed
    }

    /// Who believes to hold the lock has a keep-quorum of drives that stand for it.
    pub(super) fn check_votes(&mut self, s: usize) {
        if !self.plan.kind.is_safe() {
            return;
        }
        let needed = keep_quorum(count(self.slots[s].members));
        let votes = self.votes(s);
        if votes < needed && !self.is_hollow_by_reset(s) {
            fail!(
                self,
                "a belief stands on a keep-quorum",
                format_args!(
                    "{} believes in {:?} for another {} us, but has {votes} of {} drives",
                    self.name(s),
                    self.slots[s].mode,
                    self.slots[s].until - self.now,
                    count(self.slots[s].members)
                ),
            );
        }
    }

    pub(super) fn probe(&mut self, s: usize) {
        self.slots[s].probing = false;
        if !self.believes(s) {
            return;
        }
        let until = self.slots[s].until;
        if self.now + 1 >= until {
            self.check_votes(s);
            self.check_pairs(s);
        } else {
            self.slots[s].probing = true;
            self.push(until - 1, What::Probe(s as u16));
        }
    }

    /// No two hosts believe in conflicting modes.
    pub(super) fn check_pairs(&mut self, s: usize) {
        for other in self.slots_of_lock(self.lock_of(s)) {
            if other != s && self.believes(other) && self.conflict(s, other) {
                self.two_holders(s, other);
            }
        }
    }

    fn conflict(&self, a: usize, b: usize) -> bool {
        match (self.slots[a].mode, self.slots[b].mode) {
            (Some(x), Some(y)) => !x.compatible(y),
            _ => false,
        }
    }

    fn knows(&self, a: usize, b: usize) -> bool {
        self.slots[a].knows & (1 << self.host_of(b)) != 0
    }

    /// Whether a keep-quorum of one set and a majority of the other can be without a common drive.
    pub(super) fn can_miss(&self, a: usize, b: usize) -> bool {
        let (x, y) = (self.slots[a].members, self.slots[b].members);
        let kept = |x: u16, y: u16| keep_quorum(count(x)) + majority(count(y));
        x != y && kept(x, y).min(kept(y, x)) <= count(x | y)
    }

    /// Whether a host that holds the lock beside another, which counts other drives, could not
    /// know, or has not known for so long that the other must be a holder and not a passer-by.
    fn is_excused(&mut self, s: usize, other: usize) -> bool {
        if !self.knows(s, other) {
            return true;
        }
        let renew = self.plan.timing.renew.as_micros() as u64;
        let most = 2 * (self.lease() + renew);
        let now = self.now;
        let since = self.slots[s].foreign_since.get_or_insert(now);
        now - *since <= most
    }

    fn two_holders(&mut self, a: usize, b: usize) {
        if !self.plan.kind.is_safe() {
            return;
        }
        if self.is_hollow_by_reset(a) || self.is_hollow_by_reset(b) {
            self.coverage.add(Count::WaivedReset);
            self.ending = Some(Ending::Waived);
            return;
        }
        if self.can_miss(a, b) && self.is_excused(a, b) && self.is_excused(b, a) {
            let l = self.lock_of(a);
            if !core::mem::replace(&mut self.locks[l].muddled, true) {
                self.coverage.add(Count::WaivedLists);
            }
            return;
        }
        let until = |s: usize| self.slots[s].until - self.now;
        fail!(
            self,
            "mutual exclusion",
            format_args!(
                "{} believes in {:?} on {} for {} us, {} in {:?} on {} for {} us",
                self.name(a),
                self.slots[a].mode,
                Set(self.slots[a].members),
                until(a),
                self.name(b),
                self.slots[b].mode,
                Set(self.slots[b].members),
                until(b)
            ),
        );
    }

    /// A host got the lock. It must have heeded every conflict with a host that counts other
    /// drives, and where such a host has the lock now, that can be excused only where it could
    /// not be seen.
    pub(super) fn check_grant_sets(&mut self, s: usize) {
        if !self.plan.kind.is_safe() || self.is_old(self.host_of(s)) {
            return;
        }
        let conflicts = self.slots[s].conflicts.iter().fold(0, |all, c| all | c);
        for other in self.slots_of_lock(self.lock_of(s)) {
            if other == s {
                continue;
            }
            if conflicts & (1 << self.host_of(other)) != 0 {
                fail!(
                    self,
                    "a conflict with another set is heeded",
                    format_args!("{} met {} and was granted", self.name(s), self.name(other)),
                );
                return;
            }
            let conflicting =
                self.slots[other].mode.is_some_and(|m| !m.compatible(self.slots[s].target));
            if !conflicting || !self.believes(other) || !self.can_miss(s, other) {
                continue;
            }
            let slot = &self.slots[s];
            let group = count(slot.members | slot.witnesses);
            let held = bits(slot.members | slot.witnesses)
                .filter(|&d| self.has_record(s, d))
                .fold(0, |set, d| set | 1 << d);
            if slot.witnesses != 0 && count(slot.met | held) < majority(group) {
                fail!(
                    self,
                    "a grant of an LV lock is confirmed",
                    format_args!(
                        "{} was granted, {} holds it; only {} answered",
                        self.name(s),
                        self.name(other),
                        Set(slot.met)
                    ),
                );
                return;
            }
        }
    }

    // The end of a seed.

    pub(super) fn stop(&mut self) {
        self.stopped = true;
        trace!(self, "callers give back what they hold");
        for s in 0..self.slots.len() {
            if self.slots[s].caller == Caller::Holding {
                let after = log_uniform(&mut self.rng, 100_000);
                self.call_caller(s, after);
            }
        }
        let patience = self.plan.timing.patience.as_micros() as u64;
        let linger = self.plan.timing.linger.as_micros() as u64;
        let after = 2 * patience + self.lease() + self.lease() / 8 + 2 * linger;
        self.push(self.now + after, What::Idle);
    }

    /// Long after the last request: nothing is left to be done, and a host that wants a lock
    /// gets it.
    pub(super) fn check_idle(&mut self) {
        for s in 0..self.slots.len() {
            let h = self.host_of(s);
            if !self.hosts[h].alive {
                continue;
            }
            let idle = match &self.slots[s].side {
                Side::Engine(lock) => lock.is_idle(),
                Side::Old(lock) => lock.is_idle(),
            };
            let finished = matches!(self.slots[s].caller, Caller::Finished | Caller::Idle);
            if !idle || !finished {
                fail!(
                    self,
                    "release completes",
                    format_args!(
                        "{} is not idle long after the end ({:?}, {:?})",
                        self.name(s),
                        self.slots[s].caller,
                        self.slots[s].side
                    ),
                );
                return;
            }
        }
        for l in 0..self.locks.len() {
            let h = self.rng.usize(0..self.hosts.len() - self.plan.old_hosts);
            let s = h * self.locks.len() + l;
            let layout = if self.locks[l].keeps_value || self.plan.lists_differ {
                self.locks[l].layout & self.plan.lists[h]
            } else {
                self.locks[l].layout
            };
            if self.hosts[h].alive && layout != 0 {
                self.slots[s].caller = Caller::Idle;
                self.slots[s].lone = true;
                self.call_caller(s, 0);
            }
        }
        let patience = self.plan.timing.patience.as_micros() as u64;
        self.push(self.now + 2 * patience, What::Finish);
    }

    // Beyond the budget.

    pub(super) fn plan_beyond(&mut self) {
        let bursts = self.rng.usize(1..4);
        for _ in 0..bursts {
            let end = self.plan.stop_at;
            let from = self.rng.u64(0..end);
            let set = self.rng.u16(1..1 << self.drives.len());
            let spread = {
                let lease = self.lease();
                log_uniform(&mut self.rng, lease)
            };
            for d in bits(set) {
                let at = from + self.rng.u64(0..=spread);
                let i = self.plan.episodes.len();
                self.plan.episodes.push(crate::plan::Episode {
                    from: at,
                    to: at,
                    what: Trouble::DriveReset(d as u8),
                });
                self.push(at, What::Begin(i as u8));
            }
        }
    }

    /// After a reset beyond the budget: every drive is refreshed once within the renewal time, so
    /// by then a host must have heard of it.
    pub(super) fn expect_notice(&mut self, s: usize) {
        let tenure = self.slots[s].tenure;
        self.push(self.now + self.notice_time(), What::Notice(s as u16, tenure));
    }

    fn notice_time(&self) -> u64 {
        let slowest = u64::from(self.plan.delay.iter().flatten().copied().max().unwrap_or(0));
        let renew = self.plan.timing.renew.as_micros() as u64;
        renew + renew / 100 + 8 * slowest + 2 * self.plan.lateness + 1000
    }

    pub(super) fn check_noticed(&mut self, s: usize, tenure: u32) {
        let slot = &self.slots[s];
        if slot.tenure != tenure {
            return;
        }
        let needed = keep_quorum(count(slot.members));
        // Another reset since then has its own time.
        let fresh = bits(slot.members).any(|d| slot.lost_at[d] + self.notice_time() > self.now);
        if fresh {
            return;
        }
        if !self.believes(s) {
            self.coverage.add(Count::Noticed);
        } else if self.votes(s) >= needed {
            self.coverage.add(Count::Healed);
        } else if self.votes(s) < needed {
            fail!(
                self,
                "a loss beyond the budget is noticed",
                format_args!(
                    "{} believes in {:?} on {} of {} drives",
                    self.name(s),
                    self.slots[s].mode,
                    self.votes(s),
                    count(self.slots[s].members)
                ),
            );
        }
    }
}
