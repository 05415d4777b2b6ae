//! Locks that are put on other drives: those that their LV may move to, or that are new in the VG.

use super::Manager;
use super::running::{Running, with_hint};
use crate::error::Error;
use crate::lock::Role;
use crate::lockspace::{Held, Lockspace};
use idm_engine::Member;
use idm_protocol::ResourceId;
use std::sync::Arc;

impl Manager {
    /// Puts this host's LV locks and membership of a VG on all drives of the VG, so that these
    /// vote, and waits for the LV locks. The holder of the VG lock may move LVs to other drives,
    /// and the next host that locks them must find our locks there.
    ///
    /// Drives that do not answer delay the VG lock once, by the time of a request. Then it is
    /// granted nevertheless, because most of its uses move no LV. An error if the VG is killed
    /// meanwhile.
    pub(super) fn spread_locks(
        &self,
        running: &Running,
        lockspace: &Arc<Lockspace>,
    ) -> Result<(), Error> {
        let members = running.members_of(lockspace)?.members;
        self.begin_spread(running, lockspace, members);
        let unmoved = running.runtime.await_moves(lockspace.id, running.timing.patience);
        if lockspace.owner.is_killed() {
            return Err(Error::Killed);
        }
        if let Some((first, others)) = unmoved.split_first() {
            log::warn!(
                "{first}: this lock is not on more than half of the VG's drives yet, like {} \
                 other(s); do not move LVs (pvmove, lvconvert, lvextend, lvreduce, vgreduce) \
                 before the log names their new drives",
                others.len()
            );
        }
        Ok(())
    }

    /// The same without waiting, only if the VG's drives have changed since its locks were last put
    /// on drives. A drive that has left the VG is not reliable.
    pub(super) fn spread_where_changed(
        &self,
        running: &Running,
        lockspace: &Arc<Lockspace>,
    ) -> Result<(), Error> {
        let members = running.members_of(lockspace)?.members;
        if !lockspace.was_spread_on(&members) {
            self.begin_spread(running, lockspace, members);
        }
        Ok(())
    }

    /// Puts an LV lock on all drives of the VG. Another host may extend the LV of a shared lock to
    /// any of them (`lvextend --lockopt skiplv`), and so without the LV's lock. A lock that becomes
    /// exclusive while its host has the VG's lock may have its LV left on fewer of them.
    pub(super) fn spread_lock(
        &self,
        running: &Running,
        lockspace: &Arc<Lockspace>,
        lock: ResourceId,
    ) -> Result<(), Error> {
        let members = running.members_of(lockspace)?.members;
        running.runtime.spread(vec![lock], members);
        Ok(())
    }

    /// Begins to put the locks of a VG on its drives, `members`.
    pub(super) fn begin_spread(
        &self,
        running: &Running,
        lockspace: &Arc<Lockspace>,
        members: Vec<Member>,
    ) {
        let of_vg =
            |held: &&Held| held.spec.role == Role::Lv && Arc::ptr_eq(&held.lockspace, lockspace);
        let state = self.state();
        let locks = state.resources.values().filter(of_vg).map(|held| held.spec.resource).collect();
        drop(state);
        if !lockspace.is_global {
            if !lockspace.was_spread_on(&members) {
                // For the next life. A note from before the start may have been removed with the
                // membership that an earlier life left.
                let saved = lockspace.saved();
                if let Err(error) = running.store.save_lockspace(&lockspace.id, &saved) {
                    let vg = &lockspace.owner.name;
                    log::warn!("{vg}: its drives cannot be noted: {}", with_hint(&error));
                }
            }
            let membership = vec![lockspace.membership().resource];
            running.runtime.spread(membership, members.clone());
        }
        // Only held locks can be put there; orphans that are proven later follow the next time.
        let all = !running.orphans.any_open(lockspace);
        lockspace.set_spread(if all { &members } else { &[] });
        running.runtime.spread(locks, members.clone());
        running.orphans.spread(lockspace, members);
    }
}
