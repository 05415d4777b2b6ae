//! Locks that are being put on other drives, and the callers that wait for that.

use super::entry::Entry;
use crate::lock::LockSpec;
use crate::sys::clock;
use crate::sys::sync::mpsc::Sender;
use core::time::Duration;
use idm_engine::{Instant, Member};
use idm_protocol::ResourceId;
use std::collections::HashMap;

/// Locks whose votes are to move, by mutex.
#[derive(Default)]
pub(super) struct Moving(HashMap<ResourceId, Move>);

/// The move of one lock.
struct Move {
    spec: LockSpec,
    to: Vec<Member>,
    since: Instant,
    waiters: Vec<Sender<()>>,
}

impl Moving {
    /// Lets a caller wait for a lock that was just put on these drives; the waiter is dropped when
    /// its votes have moved. No caller waits for a move that has lasted for `patience`, so that a
    /// drive that does not answer does not delay each further request.
    pub(super) fn add(
        &mut self,
        entry: &Entry,
        to: &[Member],
        waiter: &Sender<()>,
        patience: Duration,
    ) {
        if !entry.is_moving() {
            return;
        }
        let now = clock::now();
        let begun =
            || Move { spec: entry.spec.clone(), to: to.to_vec(), since: now, waiters: Vec::new() };
        let known = self.0.entry(entry.spec.resource).or_insert_with(begun);
        if known.to != to {
            *known = begun();
        }
        if now < known.since + patience {
            known.waiters.push(waiter.clone());
        }
    }

    /// Forgets the move of a lock that is not moving any more.
    pub(super) fn note(&mut self, entry: &Entry) {
        if !self.0.is_empty() && !entry.is_moving() {
            self.0.remove(&entry.spec.resource);
        }
    }

    /// The drives that a lock is being put on.
    pub(super) fn drives(&self, resource: &ResourceId) -> &[Member] {
        self.0.get(resource).map_or(&[], |it| &it.to)
    }

    /// The locks whose votes have not moved yet.
    pub(super) fn locks(&self) -> Vec<LockSpec> {
        self.0.values().map(|it| it.spec.clone()).collect()
    }
}
