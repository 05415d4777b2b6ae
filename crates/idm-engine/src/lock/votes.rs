//! Counting the drives' votes.

use super::{Lock, Phase, Stage};
use crate::api::{Conflict, DriveRef, Instant, Refusal};
use crate::replica::{Replica, Role, Task, Vote};
use crate::rules::broken;
use alloc::vec::Vec;
use idm_protocol::Mode;

/// The sum of the members' votes.
pub(super) struct Tally {
    mode: Mode,
    pub(super) members: usize,
    pub(super) needed: usize,
    pub(super) won: usize,
    pub(super) asking: usize,
    pub(super) full: usize,
    pub(super) blocked: Vec<Vec<Conflict>>,
    /// Drives that cannot be used in time, each with the moment from which it can.
    pub(super) barred: Vec<(DriveRef, Instant)>,
}

impl Tally {
    /// Whether a holder is in the way that may count other drives, so that this host's majority
    /// does not exclude it. A holder that could not be read is such a one.
    pub(super) fn foreign(&self) -> bool {
        let excludes = |c: &Conflict| !c.same_set && !c.mode.compatible(self.mode);
        self.blocked.iter().any(|b| b.is_empty() || b.iter().any(excludes))
    }

    /// Whether no other host can have a majority either, because each has only a part of the
    /// drives.
    pub(super) fn split(&self) -> bool {
        let silent = self.members - self.won - self.blocked.len();
        let holders = self.blocked.iter().flatten().map(|c| c.host);
        !self.blocked.is_empty()
            && holders.into_iter().all(|host| {
                let has = self.blocked.iter().filter(|b| b.iter().any(|c| c.host == host)).count();
                has + silent < self.needed
            })
    }

    pub(super) fn refusal(&self) -> Refusal {
        if !self.blocked.is_empty() {
            return Refusal::Held(self.blocked.iter().flatten().copied().collect());
        }
        if self.full > 0 && self.won + self.full >= self.needed {
            return Refusal::Full;
        }
        let barred = self.barred.clone();
        Refusal::NoQuorum { granted: self.won, needed: self.needed, barred }
    }
}

impl Lock {
    /// Whether a drive counts and its lease has not expired, so that no other host can have broken
    /// it.
    pub(super) fn has_now(&self, replica: &Replica, mode: Mode, now: Instant) -> bool {
        self.counts(replica, mode) && self.lease_end(replica) > Some(now)
    }

    /// Whether this host has the lock now on all drives that vote.
    pub(super) fn all_have(&self, mode: Mode, now: Instant) -> bool {
        self.members().all(|s| self.has_now(s, mode, now))
    }

    /// Asks every member for the lock.
    pub(super) fn ask_members(&mut self, mode: Mode, now: Instant) {
        let at = self.after_earlier(mode, now);
        for replica in self.replicas.iter_mut().filter(|s| s.role == Role::Member) {
            if self.config.keeps_value && !self.known.contains(&replica.drive) {
                replica.start_look_and_take(mode, at);
            } else {
                replica.start_take(mode, at);
            }
        }
    }

    /// The first moment from `at` on when a drive may be asked for `mode`. An earlier life may have
    /// shared the lock, and refreshed that last. Such a refresh does not extend
    /// [`earlier_until`](crate::LockConfig::earlier_until), because it leaves a shared lock intact,
    /// but it makes an exclusive lock of this life shared.
    pub(super) fn after_earlier(&self, mode: Mode, at: Instant) -> Instant {
        match mode {
            Mode::Exclusive => at.max(self.config.earlier_shares_until),
            Mode::Shared => at,
        }
    }

    /// Reads every witness. This must follow the writing on the members: of two hosts that write
    /// and then read, at least one sees the other.
    fn ask_witnesses(&mut self, mode: Mode, now: Instant) {
        if broken!(self.rules, ConfirmByReading) {
            return;
        }
        let adopting = matches!(self.phase, Phase::Adopting(_));
        for replica in self.replicas.iter_mut().filter(|s| s.role == Role::Witness) {
            replica.start_witness(mode, adopting, now);
        }
    }

    /// Counts the votes of the members for `mode`.
    pub(super) fn tally(&self, mode: Mode, deadline: Instant, now: Instant) -> Tally {
        let members = self.member_count();
        let mut tally = Tally {
            mode,
            members,
            needed: self.rules.acquire_quorum(members),
            won: 0,
            asking: 0,
            full: 0,
            blocked: Vec::new(),
            barred: Vec::new(),
        };
        for replica in self.members() {
            let ours = self.has_now(replica, mode, now);
            let Task::Take(take) = &replica.task else {
                tally.won += usize::from(ours);
                continue;
            };
            match &take.vote {
                Vote::Won => tally.won += usize::from(ours),
                Vote::Asking => {
                    // A drive that is barred beyond the deadline cannot answer in time.
                    match replica.ready_at(self.rules).filter(|&at| at > deadline) {
                        Some(at) => tally.barred.push((replica.drive, at)),
                        None => tally.asking += 1,
                    }
                }
                Vote::Blocked(conflicts) => tally.blocked.push(conflicts.clone()),
                Vote::Full => tally.full += 1,
                Vote::Silent | Vote::NotIdm | Vote::NotOurs => {}
            }
        }
        tally
    }

    /// Goes on after a majority: reads the witnesses, and gives the other members their grace.
    /// Returns the next stage, and the findings about holders elsewhere; `None` while answers are
    /// awaited.
    pub(super) fn confirm(
        &mut self,
        stage: Stage,
        mode: Mode,
        deadline: Instant,
        now: Instant,
    ) -> (Stage, Option<Result<(), Refusal>>) {
        let stage = match stage {
            Stage::Voting => {
                self.ask_witnesses(mode, now);
                let timing = &self.config.timing;
                let until = (now + timing.patience / 4).min(deadline);
                Stage::Reading { grace: Some((now + timing.grace).min(until)), until }
            }
            other => other,
        };
        if self.in_grace(stage, now) {
            return (stage, None);
        }
        let confirmed = self.confirmed(mode, stage.is_late(now), now);
        (stage.without_grace(), confirmed)
    }

    /// Whether this stage still waits for the other members.
    fn in_grace(&self, stage: Stage, now: Instant) -> bool {
        let Stage::Reading { grace: Some(grace), .. } = stage else { return false };
        now < grace && self.awaits_members()
    }

    /// Whether a first answer is missing from a member that is not known to be slow.
    fn awaits_members(&self) -> bool {
        self.members().any(|replica| {
            // A drive that owes an answer to an earlier command is slow.
            let prompt = replica.flight.as_ref().is_none_or(|flight| flight.epoch == replica.epoch);
            let first = replica.vote() == Some(&Vote::Asking) && replica.failures == 0;
            prompt && first && !self.slow.contains(&replica.drive)
        }) && !broken!(self.rules, Fingerprint)
    }

    /// The findings about holders outside the majority: on the VG's other drives, and on those that
    /// reported a conflict. `None` while answers are awaited and it is not `late`.
    fn confirmed(&self, mode: Mode, late: bool, now: Instant) -> Option<Result<(), Refusal>> {
        if self.replicas.iter().any(|s| s.role != Role::Former && s.contested) {
            // A holder that could not be read yet is there, so it may count other drives.
            return late.then(|| Err(Refusal::Held(Vec::new())));
        }
        if broken!(self.rules, ConfirmByReading) {
            return Some(Ok(()));
        }
        let (mut total, mut seen, mut others) = (0, 0, false);
        let (mut asking, mut more_to_come) = (false, false);
        let mut in_the_way = Vec::new();
        for replica in &self.replicas {
            match (replica.role, replica.vote()) {
                (Role::Member, vote) => {
                    total += 1;
                    more_to_come |= vote == Some(&Vote::Asking);
                    let read = matches!(vote, Some(Vote::NotOurs));
                    seen += usize::from(read || self.has_now(replica, mode, now));
                }
                (Role::Witness | Role::Extra, vote) => {
                    total += 1;
                    others = true;
                    match vote {
                        _ if self.has_now(replica, mode, now) => seen += 1,
                        Some(Vote::Won | Vote::NotIdm) => seen += 1,
                        Some(Vote::Blocked(conflicts)) => in_the_way.push(conflicts.clone()),
                        Some(Vote::Asking) => asking |= !replica.is_enlarging(),
                        Some(Vote::Silent | Vote::Full | Vote::NotOurs) | None => {}
                    }
                }
                (Role::Former, _) => {}
            }
        }
        if !in_the_way.is_empty() {
            return Some(Err(Refusal::Held(in_the_way.into_iter().flatten().collect())));
        }
        // Without other drives the members have decided.
        let enough = 2 * seen > total || !others;
        if (asking || more_to_come && !enough) && !late {
            return None;
        }
        Some(if enough { Ok(()) } else { Err(Refusal::Unconfirmed) })
    }
}
