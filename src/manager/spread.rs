//! Locks that are put on other drives, because their VG has others.

use super::Manager;
use super::running::Running;
use crate::error::Error;
use crate::lock::Role;
use crate::lockspace::{Held, Lockspace};
use std::sync::Arc;

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
