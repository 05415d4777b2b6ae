//! Changing the mode of a held lock.

use super::{Change, Held, Lock, Phase, Stage};
use crate::api::{Instant, Outcome, Refusal};
use crate::replica::{Hold, Replica, Role, Step, Task, Vote};
use crate::rules::broken;
use alloc::vec::Vec;
use idm_protocol::{Mode, Value};

impl Lock {
    pub(super) fn convert(&mut self, from: Mode, to: Mode, value: Option<Value>, now: Instant) {
        let deadline = now + self.config.timing.patience;
        let value = value.filter(|_| from == Mode::Exclusive && self.config.keeps_value);
        self.pending = value.or(self.pending);
        let change = match (from, to) {
            (Mode::Shared, Mode::Exclusive) => Change::Up { deadline, stage: Stage::Voting },
            (Mode::Exclusive, Mode::Shared) => Change::Down { deadline },
            _ => return self.finish(Outcome::Converted { complete: true }),
        };
        let at = self.after_earlier(to, now);
        let Phase::Held(held) = &mut self.phase else {
            return;
        };
        held.change = Some(change);
        if to == Mode::Shared {
            // This host shares from now on; drives that have not changed yet only keep others out.
            held.mode = Mode::Shared;
            // If it has changed the value, no other host knows.
            self.replicas.iter_mut().for_each(|replica| replica.disproved = true);
        }
        for replica in &mut self.replicas {
            match (&replica.task, replica.hold) {
                (Task::Keep, Hold::Held { .. }) if to == Mode::Exclusive => {
                    replica.start_promote(at);
                }
                (Task::Keep, _) => replica.plan(Step::Refresh(Mode::Shared), now),
                (Task::Take(_), _) => replica.start_again(to, at),
                _ => {}
            }
        }
    }

    pub(super) fn conclude_up(
        &mut self,
        held: &Held,
        deadline: Instant,
        stage: Stage,
        now: Instant,
    ) {
        let tally = self.tally(Mode::Exclusive, deadline, now);
        let over = now >= deadline;
        if tally.foreign() && !broken!(self.rules, Fingerprint) {
            return self.end_up(Err(tally.refusal()), now);
        }
        if tally.won < tally.needed || held.lapsed.is_some() {
            if over || tally.won + tally.asking < tally.needed || held.lapsed.is_some() {
                return self.end_up(Err(tally.refusal()), now);
            }
            if let Phase::Held(held) = &mut self.phase {
                held.change = Some(Change::Up { deadline, stage: Stage::Voting });
            }
            return;
        }
        let (stage, confirmed) = self.confirm(stage, Mode::Exclusive, deadline, now);
        if let Phase::Held(held) = &mut self.phase {
            held.change = Some(Change::Up { deadline, stage });
        }
        let Some(result) = confirmed else { return };
        let missed = match result {
            Ok(()) if self.is_shared_elsewhere(now) => Some(tally.refusal()),
            Ok(()) if self.may_hide_sharers(now) => Some(Refusal::Unconfirmed),
            _ => None,
        };
        if missed.is_some() && !stage.is_late(now) && self.awaits_change() {
            return;
        }
        self.end_up(missed.map_or(result, Err), now);
    }

    /// Whether an unchanged drive may show this host's record as a shared one. A host that counts
    /// other drives may conclude from that record that it can share. A host that counts the same
    /// drives needs a majority of them and cannot get it.
    fn is_shared_elsewhere(&self, now: Instant) -> bool {
        let timing = &self.config.timing;
        self.has_witnesses && self.replicas.iter().any(|replica| replica.may_share(now, timing))
    }

    /// Whether a drive may show a sharer that this host does not know of. Where the LV or the votes
    /// have moved, a sharer may count drives outside this host's majority. It has the lock already:
    /// unlike a host that requests the lock now, it does not look for others. So every drive has to
    /// refuse sharers, or has to be read.
    fn may_hide_sharers(&self, now: Instant) -> bool {
        let looked = |replica: &Replica| {
            matches!(&replica.task,
            Task::Take(take) if take.witness && matches!(take.vote, Vote::Won | Vote::NotIdm))
        };
        let open = |replica: &Replica| {
            let excludes = self.has_now(replica, Mode::Exclusive, now);
            replica.role != Role::Former && !excludes && !looked(replica)
        };
        self.may_have_moved && self.replicas.iter().any(open)
    }

    /// Whether a drive may still change.
    fn awaits_change(&self) -> bool {
        self.replicas.iter().any(|replica| replica.vote() == Some(&Vote::Asking))
    }

    pub(super) fn end_up(&mut self, result: Result<(), Refusal>, now: Instant) {
        let mode = if result.is_ok() { Mode::Exclusive } else { Mode::Shared };
        self.end_change(mode);
        let holds: Vec<Hold> = self.replicas.iter().map(|s| s.hold).collect();
        self.settle_replicas(now);
        // Nor does the end of a change undo what drives confirmed that are taken anew.
        self.replicas.iter_mut().zip(holds).for_each(|(s, hold)| s.hold = hold);
        self.finish(match result {
            Ok(()) => Outcome::Converted { complete: true },
            Err(refusal) => Outcome::Refused(refusal),
        });
    }

    pub(super) fn end_change(&mut self, mode: Mode) {
        if let Phase::Held(held) = &mut self.phase {
            held.mode = mode;
            held.change = None;
        }
    }
}
