//! The manager's state: lockspaces, and the locks that are held.

use crate::lock::{LockSpec, LockspaceKey, ResourceKey};
use crate::lockspace::{Held, Lockspace};
use idm_protocol::ResourceId;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct ManagerState {
    pub(super) lockspaces: HashMap<LockspaceKey, Arc<Lockspace>>,
    /// Resource structs that hold a lock.
    pub(super) resources: HashMap<ResourceKey, Held>,
    /// Mutexes that a resource struct holds, is about to take or is about to give up: each has one
    /// note.
    pub(super) taken: HashSet<ResourceId>,
    /// Active LVs of VGs that lost their locks and were dropped, until these are started again.
    pub(super) dropped: HashSet<ResourceId>,
}

impl ManagerState {
    /// Records a granted lock; gives it back where its lockspace was stopped meanwhile.
    pub(super) fn hold(
        &mut self,
        space: LockspaceKey,
        key: ResourceKey,
        held: Held,
    ) -> Result<(), LockSpec> {
        match self.lockspaces.get(&space) {
            Some(there) if Arc::ptr_eq(there, &held.lockspace) => {
                self.resources.insert(key, held);
                Ok(())
            }
            _ => Err(held.spec),
        }
    }

    /// Whether a lock belongs to a resource, or is the membership of a started lockspace.
    pub(super) fn has(&self, resource: &ResourceId) -> bool {
        let is_membership = |space: &Arc<Lockspace>| {
            space.is_started() && !space.is_global && space.membership().resource == *resource
        };
        self.resources.values().any(|held| held.spec.resource == *resource)
            || self.lockspaces.values().any(is_membership)
    }
}
