//! Moving a lock's votes to other drives, after its LV or its VG has moved.
//!
//! At every moment, the noted drives must be enough for the next lvmlockd to adopt the lock. So the
//! new drives are noted first, and vote from then on; until then the old ones keep the lock. A
//! separate thread notes them, because the reactor never waits for a file.

use super::state::ManagerState;
use crate::recovery::Orphans;
use crate::runtime::Runtime;
use crate::state::store::{SavedLock, Store};
use crate::sys::clock;
use crate::sys::sync::mpsc::{Receiver, RecvTimeoutError};
use crate::sys::sync::{Mutex, planted};
use crate::sys::thread;
use core::time::Duration;
use idm_protocol::ResourceId;
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Weak};

#[cfg(all(test, feature = "shuttle"))]
mod schedules;

/// Pause before another try for a lock whose votes could not be moved.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest sleep where nothing has to be moved.
const IDLE: Duration = Duration::from_secs(3600);

/// State needed to note the new drives. All of it ends with the manager.
pub(super) struct Votes {
    pub(super) state: Weak<Mutex<ManagerState>>,
    pub(super) runtime: Weak<Runtime>,
    pub(super) orphans: Weak<Orphans>,
    pub(super) store: Arc<Store>,
}

impl Votes {
    /// Moves the votes of each lock that `ready` names. Ends with the reactor, which sends the
    /// names.
    pub(super) fn start(self, ready: Receiver<ResourceId>) -> io::Result<()> {
        thread::spawn("idm-votes", move || self.run(&ready)).map(drop)
    }

    fn run(&self, ready: &Receiver<ResourceId>) {
        let mut again: HashSet<ResourceId> = HashSet::new();
        let mut due = clock::now();
        loop {
            let pause = if again.is_empty() { IDLE } else { due.since(clock::now()) };
            let named = match ready.recv_timeout(pause) {
                Ok(resource) => Some(resource),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(resource) = named.filter(|resource| !self.is_done(resource)) {
                if again.is_empty() {
                    due = clock::now() + AGAIN;
                }
                again.insert(resource);
            }
            // There may be thousands of locks, so each is not tried for each other one.
            if due <= clock::now() {
                again.retain(|resource| !self.is_done(resource));
                due = clock::now() + AGAIN;
            }
        }
    }

    /// Moves a lock's votes; returns whether no work is left for it.
    fn is_done(&self, resource: &ResourceId) -> bool {
        let moved = self.move_votes(resource);
        if let Err(error) = &moved {
            log::warn!("the new drives of a lock cannot be noted yet: {error}");
        }
        moved.unwrap_or(false)
    }

    /// Moves a lock's votes. `false` means to try again, because a request is about to take the
    /// lock over.
    fn move_votes(&self, resource: &ResourceId) -> io::Result<bool> {
        let (Some(state), Some(runtime)) = (self.state.upgrade(), self.runtime.upgrade()) else {
            return Ok(true);
        };
        let Some(drives) = runtime.votes_ready(*resource) else { return Ok(true) };
        // The lock must be neither given up nor taken anew meanwhile: another acquisition has other
        // drives.
        let state = state.lock();
        let orphans = self.orphans.upgrade();
        let kept = orphans.as_ref().and_then(|orphans| orphans.hold(resource));
        if !state.has(resource) && kept.is_none() {
            return Ok(false);
        }
        if runtime.votes_ready(*resource).as_ref() != Some(&drives) {
            return Ok(false);
        }
        // Otherwise both guards are kept to the end.
        let _held = (!planted!(MoveUnheld)).then_some((state, kept));
        let identities: Vec<String> =
            drives.iter().map(|&drive| runtime.drives().identity(drive)).collect();
        let change = |lock: &mut SavedLock| {
            lock.drives = identities;
            // The lock is held.
            lock.granted = true;
        };
        let old = self.store.change_lock(resource, change)?;
        let Some(old) = old else { return Ok(true) };
        if !runtime.move_votes(*resource, drives) {
            self.store.correct_lock(resource, |lock| {
                // The mode may have been noted anew meanwhile.
                match planted!(PutBackAll) {
                    true => *lock = old,
                    false => (lock.drives, lock.granted) = (old.drives, old.granted),
                }
            });
        }
        Ok(true)
    }
}
