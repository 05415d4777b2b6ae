//! The value of a lock, read without taking the lock.

use super::Manager;
use super::running::Running;
use crate::error::Error;
use crate::lock::{LockSpec, LockspaceKey, Resource, ValBlk};
use crate::lockspace::Lockspace;
use crate::runtime::refusal;
use idm_engine::{ValueRead, acquire_quorum, read_value};

impl Manager {
    /// The value block of a lock, as it was at some moment of this call. It is all zero where there
    /// is no value, or where the value is not known; this includes a lock that another host has.
    ///
    /// The drives get no command but a read.
    pub fn read_value(
        &self,
        space_key: LockspaceKey,
        resource: &Resource,
    ) -> Result<ValBlk, Error> {
        let (lockspace, spec) = self.lock_of(space_key, resource)?;
        if !spec.role.keeps_value() {
            return Ok(ValBlk::default());
        }
        let running = self.running()?;
        if let Some(block) = self.value_here(running, &spec)? {
            return Ok(block);
        }
        let read = running.read_value(&lockspace, &spec, resource)?;
        Ok(lockspace.value(spec.resource, |value| value.block(read)))
    }

    /// The value that this host knows because it has the lock; `None` if the host does not use the
    /// lock. The value of a lost lock, of an orphan, and of a lock that is just being taken or
    /// given up is unknown.
    fn value_here(&self, running: &Running, spec: &LockSpec) -> Result<Option<ValBlk>, Error> {
        let id = spec.resource;
        // Read first: if the lock is held now and a resource has it below, that resource's value
        // was current now, or at a later grant of the lock.
        let mode = running.runtime.mode(id).map_err(|answer| running.refused(spec, answer))?;
        let state = self.state();
        let held = state.resources.values().find(|held| held.spec.resource == id);
        Ok(match (mode, held) {
            (Some(_), Some(held)) => Some(held.value),
            (None, None) if !state.taken.contains(&id) && !running.orphans.has(&id) => None,
            _ => Some(ValBlk::default()),
        })
    }
}

impl Running {
    /// The value that a majority of a lock's drives shows. The other drives get a grace time,
    /// because one of them may show a holder that counts other drives.
    fn read_value(
        &self,
        lockspace: &Lockspace,
        spec: &LockSpec,
        resource: &Resource,
    ) -> Result<ValueRead, Error> {
        let members = self.plan(lockspace, resource)?.members();
        let enough = acquire_quorum(members.len());
        let (bound, grace) = (self.timing.patience, self.timing.grace);
        let answers = self.runtime.read_more_tables(&members, enough, bound, grace);
        let tables =
            answers.iter().filter_map(|(drive, read)| Some((*drive, &**read.as_ref().ok()?)));
        if tables.clone().count() < enough {
            let why = refusal::unread(self.runtime.drives(), &members, &answers, (enough, bound));
            return Err(Error::Storage(format!(
                "{spec}: its value cannot be read: {why}. Then ask again"
            )));
        }
        Ok(read_value(tables, spec.resource, self.host, members.len()))
    }
}
