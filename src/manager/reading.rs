//! The value of a lock, for whoever does not take it.

use super::Manager;
use super::plan::majority;
use super::running::Running;
use crate::error::Error;
use crate::lock::{LockSpec, LockspaceKey, Resource, ValBlk};
use crate::lockspace::Lockspace;
use idm_engine::{ValueRead, read_value};

impl Manager {
    /// The value block of a lock, as it was at some moment of this call. It is all zero where there
    /// is no value or it is not known: as with a lock, and where somebody else has the lock.
    ///
    /// Takes nothing and changes nothing: no drive is sent anything but a read.
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

    /// What this host knows of a value by having the lock: `None` where it has nothing to do with
    /// it. Unknown where the lock is lost, was left by an earlier lvmlockd, or is about to be taken
    /// or given up.
    fn value_here(&self, running: &Running, spec: &LockSpec) -> Result<Option<ValBlk>, Error> {
        let id = spec.resource;
        // First: a lock that is held then, and has its resource below, had the same value then.
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
    /// The value that a majority of a lock's drives shows. The others have a moment to answer, too:
    /// one of them may tell of a holder that counts other drives.
    fn read_value(
        &self,
        lockspace: &Lockspace,
        spec: &LockSpec,
        resource: &Resource,
    ) -> Result<ValueRead, Error> {
        let members = self.plan(lockspace, resource)?.members();
        let enough = majority(members.len());
        let (bound, grace) = (self.timing.patience, self.timing.grace);
        let answers = self.runtime.read_more_tables(&members, enough, bound, grace);
        let tables: Vec<_> =
            answers.into_iter().filter_map(|(drive, read)| Some((drive, read.ok()?))).collect();
        if tables.len() < enough {
            let mut silent = members.clone();
            silent.retain(|member| tables.iter().all(|(drive, _)| *drive != member.drive));
            return Err(Error::Storage(format!(
                "{spec}: its value cannot be read: {} of {} drives could be read, {enough} are \
                 needed; ask again when these answer: {}",
                tables.len(),
                members.len(),
                self.names_of(&silent)
            )));
        }
        let tables = tables.iter().map(|(_, table)| &**table);
        Ok(read_value(tables, spec.resource, self.host, members.len()))
    }
}
