//! Digests by which a model checker recognises a lock's state.

use super::Lock;
use crate::api::{Conflict, DriveRef, Instant};
use crate::replica::{Flight, Plan, Replica, Take, Task, Vote};
use crate::rng::Rng;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

impl Lock {
    /// Hashes the part of a lock that concerns one drive. Two locks with equal hashes here and in
    /// [`hash_rest`](Lock::hash_rest) behave alike, but for notices, command numbers and random
    /// choices. The names of drives do not matter, so locks compare equal that differ only in them.
    /// Planned moments count as equal if `when` returns the same number for them.
    pub fn hash_drive<H: Hasher>(
        &self,
        drive: DriveRef,
        when: impl Fn(Instant) -> u64,
        state: &mut H,
    ) {
        let replica = self.replicas.iter().find(|s| s.drive == drive);
        replica.map(|replica| replica.hash_for(when, self.config.keeps_value, state)).hash(state);
        self.known.contains(&drive).hash(state);
        self.slow.contains(&drive).hash(state);
    }

    /// Hashes the part of a lock that concerns no single drive.
    pub fn hash_rest<H: Hasher>(&self, state: &mut H) {
        let Lock {
            config,
            rules: _,
            phase,
            replicas: _,
            stamp,
            set,
            target,
            has_witnesses,
            may_have_moved,
            votes_moved,
            original,
            hidden_until,
            adopted_until,
            unseen,
            distrust,
            pending,
            known: _,
            owed,
            shaken_at,
            slow: _,
            rng: _,
            events,
            last_token: _,
        } = self;
        (phase, stamp, set, target, has_witnesses, may_have_moved, votes_moved).hash(state);
        (original, hidden_until, adopted_until, unseen).hash(state);
        (pending, owed, shaken_at, events).hash(state);
        // A lock without a value has no doubtful value.
        config.keeps_value.then_some(distrust).hash(state);
    }

    /// Makes the random choices that follow independent of those before.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
    }
}

impl Replica {
    fn hash_for<H: Hasher>(&self, when: impl Fn(Instant) -> u64, keeps_value: bool, state: &mut H) {
        let Replica {
            drive: _,
            role,
            hold,
            task,
            epoch: _,
            flight,
            plan,
            failures,
            mark,
            marked_at,
            remark,
            barred_until,
            demote_until,
            promote_until,
            stray_until,
            value,
            stale_value,
            disproved,
            gap,
            foreign,
            contested,
            target,
            original,
            missed: _,
            not_idm: _,
        } = self;
        (mark, marked_at, remark).hash(state);
        (role, hold, gap, foreign, contested, target, original).hash(state);
        (value, keeps_value && *stale_value, disproved).hash(state);
        hash_task(task, state);
        // Every new task of an idle replica begins with no failures.
        let idle = matches!(task, Task::Idle | Task::Leave);
        (*failures * u8::from(!idle)).hash(state);
        let flight = flight.as_ref().map(|flight| {
            let Flight { token: _, step, sent, held, doubts, mark, epoch } = flight;
            (step, sent, held, keeps_value && *doubts, mark, *epoch == self.epoch)
        });
        flight.hash(state);
        plan.map(|Plan { step, at }| (step, when(at))).hash(state);
        (barred_until, demote_until, promote_until, stray_until).hash(state);
    }
}

/// Hashes a task without the drive's name and without data that only notices use.
fn hash_task<H: Hasher>(task: &Task, state: &mut H) {
    core::mem::discriminant(task).hash(state);
    match task {
        Task::Idle | Task::Keep | Task::Leave => {}
        Task::Clean(clean) => clean.hash(state),
        Task::Take(take) => {
            let Take {
                mode,
                vote,
                sent,
                converting,
                witness,
                adopting,
                others,
                own_stamp,
                refused,
                denied,
                refused_reads,
                own_found: _,
                rewritten,
                breaking: _,
                cleared,
                value_asked,
            } = take;
            (mode, sent, converting, witness, adopting).hash(state);
            (own_stamp, refused, denied, refused_reads, rewritten, cleared, value_asked)
                .hash(state);
            core::mem::discriminant(vote).hash(state);
            let blocked = match vote {
                Vote::Blocked(conflicts) => Some(conflicts),
                _ => None,
            };
            for conflicts in [blocked, others.as_ref()] {
                conflicts.map(Vec::len).hash(state);
                for Conflict { host, mode, drive: _, same_set } in conflicts.into_iter().flatten() {
                    (host, mode, same_set).hash(state);
                }
            }
        }
    }
}
