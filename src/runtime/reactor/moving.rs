//! Locks that are being put on other drives, and the callers that wait for that.

use super::entry::Entry;
use crate::lock::{LockSpec, Owner, Role, same_drives, vg_of};
use crate::sys::clock;
use crate::sys::sync::mpsc::Sender;
use core::time::Duration;
use idm_engine::{Instant, Member};
use idm_protocol::ResourceId;
use std::collections::HashMap;
use std::sync::Arc;

/// Locks whose votes are to move, by mutex.
#[derive(Default)]
pub(super) struct Moving(HashMap<ResourceId, Move>);

/// The move of one lock.
struct Move {
    spec: LockSpec,
    to: Vec<Member>,
    /// The time when a caller first waited for it.
    awaited: Option<Instant>,
    waiters: Vec<Sender<()>>,
}

impl Moving {
    /// Notes that a lock was just put on these drives.
    pub(super) fn add(&mut self, entry: &Entry, to: &[Member]) {
        if !entry.is_moving() {
            return;
        }
        let begun = || Move {
            spec: entry.spec.clone(),
            to: to.to_vec(),
            awaited: None,
            waiters: Vec::new(),
        };
        let known = self.0.entry(entry.spec.resource).or_insert_with(begun);
        if !same_drives(&known.to, to) {
            // All callers wait for the present drives.
            (known.to, known.awaited) = (to.to_vec(), None);
        }
        // Its volume group may have been started again since.
        known.spec = entry.spec.clone();
    }

    /// Lets a caller wait for the LV locks of a volume group; the waiter is dropped when their
    /// votes have moved, or if the group is killed. No caller waits for a move that a caller has
    /// already awaited for `patience`, so that a drive that does not answer does not delay each
    /// further request.
    pub(super) fn wait(&mut self, vg: &ResourceId, waiter: &Sender<()>, patience: Duration) {
        let now = clock::now();
        let of_vg = |it: &&mut Move| is_lv_of(&it.spec, vg) && !it.spec.owner.is_killed();
        for it in self.0.values_mut().filter(of_vg) {
            if now < *it.awaited.get_or_insert(now) + patience {
                it.waiters.push(waiter.clone());
            }
        }
    }

    /// Lets nobody wait for the locks of a lockspace that is killed.
    pub(super) fn give_up(&mut self, owner: &Arc<Owner>) {
        let killed = self.0.values_mut().filter(|it| Arc::ptr_eq(&it.spec.owner, owner));
        killed.for_each(|it| it.waiters.clear());
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

    /// The LV locks of a volume group whose votes have not moved yet.
    pub(super) fn locks(&self, vg: &ResourceId) -> Vec<LockSpec> {
        self.0.values().map(|it| &it.spec).filter(|it| is_lv_of(it, vg)).cloned().collect()
    }
}

fn is_lv_of(lock: &LockSpec, vg: &ResourceId) -> bool {
    lock.role == Role::Lv && vg_of(&lock.resource) == *vg
}
