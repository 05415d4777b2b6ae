//! Releasing the lock.

use super::{Distrust, Held, Lock, Phase};
use crate::api::{Instant, Outcome};
use crate::replica::{Clean, Hold, Role, Task};
use idm_protocol::{Mode, Value};

impl Lock {
    pub(super) fn release(&mut self, value: Option<Value>, now: Instant) {
        let lapsed = match &self.phase {
            Phase::Held(held) => held.lapsed.is_some(),
            Phase::Lost => true,
            // An earlier life that had the lock did not publish its changes either. It did not have
            // the lock if a majority of the drives was read and shows no trace of it.
            Phase::Left => {
                let gone = self.members().filter(|s| s.hold == Hold::None).count();
                let found = self.replicas.iter().any(|s| s.hold != Hold::None && s.mark.is_some());
                found || gone < self.rules.acquire_quorum(self.member_count())
            }
            Phase::Free | Phase::Acquiring(_) | Phase::Adopting(_) => false,
        };
        if lapsed {
            // Another host may have published a newer value already, so this one must not be
            // stored. Changes under the lock were never published, so the old value is wrong.
            self.distrust = Distrust::Died;
            for replica in &mut self.replicas {
                // There may be a shared record, and it may be the only sign that the value is
                // wrong.
                replica.stale_value |= matches!(replica.hold, Hold::Maybe { .. });
            }
        }
        let store = match self.mode() {
            _ if lapsed => None,
            Some(Mode::Exclusive) => value.or(self.pending),
            Some(Mode::Shared) => self.pending,
            None => None,
        };
        if self.phase != Phase::Free {
            self.phase = Phase::Free;
            self.give_back(store, now);
            self.pending = None;
        }
        self.finish(Outcome::Released);
    }

    /// The way to give the lock back, with a value to store.
    pub(super) fn clean_up(&self, store: Option<Value>) -> Clean {
        let store = store.filter(|_| self.config.keeps_value);
        let mut clean = Clean {
            store,
            must_store: false,
            exclusive: false,
            earlier_shares_until: self.config.earlier_shares_until,
            keeps_value: self.config.keeps_value,
            worthless: !self.config.keeps_value,
            destroy: false,
            mode: Mode::Exclusive,
            until: Instant::default(),
            refusals: 0,
        };
        if self.distrust == Distrust::Died {
            clean.erase();
        }
        clean
    }

    pub(super) fn give_back(&mut self, store: Option<Value>, now: Instant) {
        let clean = self.clean_up(store);
        let owes = clean.store.is_some();
        self.owed = if owes { self.rules.acquire_quorum(self.member_count()) } else { 0 };
        self.clean_all(&clean, now);
        self.prune(now);
    }

    pub(super) fn clean_all(&mut self, clean: &Clean, now: Instant) {
        let timing = self.config.timing;
        for replica in self.replicas.iter_mut().filter(|s| !matches!(s.task, Task::Clean(_))) {
            replica.start_clean(clean.clone(), now, &timing);
        }
    }

    /// Gives back drives that were won after the lock was no longer needed, and ends the work on
    /// drives where every lease is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        let lapsed = matches!(self.phase, Phase::Held(Held { lapsed: Some(_), .. }));
        let unwanted = self.clean_up(None);
        let timing = self.config.timing;
        let free = self.phase == Phase::Free;
        for replica in self.replicas.iter_mut().filter(|s| s.flight.is_none()) {
            match &replica.task {
                Task::Clean(clean) if now >= clean.until => replica.plan_clean(now),
                Task::Idle if free || lapsed || replica.role == Role::Former => {
                    replica.start_clean(unwanted.clone(), now, &timing);
                }
                _ => {}
            }
        }
    }
}
