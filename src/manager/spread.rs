//! Putting locks on other drives, after the drives of their VG have changed.

use super::Manager;
use super::running::Running;
use crate::error::Error;
use crate::lock::Role;
use crate::lockspace::{Held, Lockspace};
use std::sync::Arc;

impl Manager {
    /// Puts this host's LV locks and membership of a VG on all drives of the VG, so that these
    /// vote. The holder of the VG lock may move LVs to other drives, and the next host that locks
    /// them must find our locks there. Drives that have left the VG are not to be relied on.
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

    /// The same, only if the VG's drives differ from those that its locks were last put on.
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
