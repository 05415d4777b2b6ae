//! Locks whose votes go over to other drives, because their LV or their VG did.
//!
//! The next lvmlockd must ask drives that are enough to adopt the lock, whenever this one dies. So
//! the new drives are noted first, and vote from then on; the old ones have the lock until they do.
//! A thread of its own notes them, because the reactor waits for no file.

use super::running::Running;
use super::{Manager, State};
use crate::error::Error;
use crate::lockspace::{Held, Lockspace};
use crate::recovery::Orphans;
use crate::recovery::store::{SavedLock, Store};
use crate::runtime::{Role, Runtime, thread};
use crate::sync::mpsc::{Receiver, RecvTimeoutError};
use crate::sync::{Mutex, planted};
use core::time::Duration;
use idm_protocol::ResourceId;
use std::io;
use std::sync::{Arc, PoisonError, Weak};

#[cfg(all(test, feature = "shuttle"))]
mod schedules;

/// The pause before a lock is looked at again whose votes could not be moved.
const AGAIN: Duration = Duration::from_secs(1);
/// Nothing has to be moved; the longest sleep all the same.
const IDLE: Duration = Duration::from_secs(3600);

/// What is needed to note them. All of it ends with the manager.
pub(super) struct Votes {
    pub(super) state: Weak<Mutex<State>>,
    pub(super) runtime: Weak<Runtime>,
    pub(super) orphans: Weak<Orphans>,
    pub(super) store: Arc<Store>,
}

impl Votes {
    /// Moves the votes of each lock that is named. Ends with the reactor, which names them.
    pub(super) fn start(self, ready: Receiver<ResourceId>) -> io::Result<()> {
        thread::spawn("idm-votes", move || self.run(&ready)).map(drop)
    }

    fn run(&self, ready: &Receiver<ResourceId>) {
        let mut again: Vec<ResourceId> = Vec::new();
        loop {
            let pause = if again.is_empty() { IDLE } else { AGAIN };
            match ready.recv_timeout(pause) {
                Ok(resource) => again.push(resource),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            again.retain(|resource| {
                let moved = self.move_votes(resource);
                if let Err(error) = &moved {
                    log::warn!("other drives cannot be noted for a lock yet: {error}");
                }
                !moved.unwrap_or(false)
            });
        }
    }

    /// Moves a lock's votes. `false`: that is to be tried again, because a request is about to take
    /// the lock over.
    fn move_votes(&self, resource: &ResourceId) -> io::Result<bool> {
        let (Some(state), Some(runtime)) = (self.state.upgrade(), self.runtime.upgrade()) else {
            return Ok(true);
        };
        let Some(drives) = runtime.votes_ready(*resource) else { return Ok(true) };
        // Neither given up nor taken anew meanwhile: another acquisition has other drives.
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let orphans = self.orphans.upgrade();
        let kept = orphans.as_ref().and_then(|orphans| orphans.hold(resource));
        if !state.has(resource) && kept.is_none() {
            return Ok(false);
        }
        if runtime.votes_ready(*resource).as_ref() != Some(&drives) {
            return Ok(false);
        }
        // Both are kept to the end otherwise.
        let _held = (!planted!(MoveUnheld)).then_some((state, kept));
        let identities: Vec<String> =
            drives.iter().map(|&drive| runtime.drives().identity(drive)).collect();
        let change = |lock: &mut SavedLock| {
            lock.drives = identities;
            // It is held.
            lock.granted = true;
        };
        let old = self.store.change_lock(resource, change)?;
        let Some(old) = old else { return Ok(true) };
        if !runtime.move_votes(*resource, drives) {
            self.store.change_lock(resource, |lock| *lock = old)?;
        }
        Ok(true)
    }
}

impl State {
    /// Whether a lock is a resource's, or a started lockspace's membership.
    fn has(&self, resource: &ResourceId) -> bool {
        let is_membership = |space: &Arc<Lockspace>| {
            space.is_started() && !space.is_global && space.membership().resource == *resource
        };
        self.resources.values().any(|held| held.spec.resource == *resource)
            || self.lockspaces.values().any(is_membership)
    }
}

impl Manager {
    /// Puts the LV locks that this host holds, and its membership, on all of the VG's drives, so
    /// that they vote. Whoever has the VG's lock may move its LVs to other drives, where a host
    /// that locks them next must meet us; and drives that have left the VG are not to be relied on.
    pub(super) fn spread_locks(
        &self,
        running: &Running,
        lockspace: &Arc<Lockspace>,
    ) -> Result<(), Error> {
        let members = running.members_of(lockspace)?.members;
        let of_vg =
            |held: &&Held| held.spec.role == Role::Lv && Arc::ptr_eq(&held.lockspace, lockspace);
        let state = self.state();
        let mut locks: Vec<_> =
            state.resources.values().filter(of_vg).map(|held| held.spec.resource).collect();
        drop(state);
        if !lockspace.is_global {
            locks.push(lockspace.membership().resource);
        }
        lockspace.set_spread(&members);
        running.runtime.spread(locks, members.clone());
        running.orphans.spread(lockspace, members);
        Ok(())
    }

    /// The same, where the VG's drives are not those that its locks were last put on.
    pub(super) fn spread_where_changed(
        &self,
        running: &Running,
        lockspace: &Arc<Lockspace>,
    ) -> Result<(), Error> {
        if lockspace.was_spread_on(&running.members_of(lockspace)?.members) {
            return Ok(());
        }
        self.spread_locks(running, lockspace)
    }
}
