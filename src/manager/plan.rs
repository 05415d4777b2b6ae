//! The drives that a lock is taken on.

use super::running::Running;
use crate::config::DEFAULT_FILE;
use crate::drives::Members;
use crate::error::Error;
use crate::lock::Resource;
use crate::lockspace::Lockspace;
use crate::state::store::SavedLock;
use crate::sys::clock;
use idm_engine::{DriveRef, Member, Request};
use idm_protocol::Mode;

/// Drives of one lock. lvmlockd's own limit for a VG is higher, but no host could renew on more.
const MOST_DRIVES: usize = 512;

impl Running {
    /// The drives of a lockspace.
    pub(super) fn members_of(&self, lockspace: &Lockspace) -> Result<Members, Error> {
        bounded(&lockspace.owner.name, lockspace.members(self.runtime.drives()))
    }

    /// The drives behind paths.
    fn drives_of(&self, owner: &str, paths: &[String]) -> Result<Members, Error> {
        bounded(owner, self.runtime.drives().members(paths))
    }

    pub(super) fn names_of(&self, members: &[Member]) -> String {
        let name = |member: &Member| self.runtime.drives().name(member.drive);
        members.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// The drives for the lock of a resource: for the global lock and a VG lock all of its drives;
    /// for an LV lock the drives of the LV, with the other drives of the VG as witnesses.
    pub(super) fn plan(&self, lockspace: &Lockspace, resource: &Resource) -> Result<Plan, Error> {
        let all = Plan::of_lockspace(self, lockspace)?;
        let plan = match resource {
            Resource::Lv { pvs, .. } if !pvs.is_empty() => {
                let mut plan = Plan::of(self, lockspace, pvs.clone())?;
                plan.witnesses = all.members;
                plan.witnesses.retain(|other| !plan.members.contains(other));
                plan
            }
            _ => all,
        };
        if plan.members.is_empty() {
            return Err(Error::Storage(if lockspace.is_global {
                no_global_drives()
            } else {
                format!("{} has no drives", lockspace.owner.name)
            }));
        }
        Ok(plan)
    }
}

/// Drives that a lock is taken on.
pub(super) struct Plan {
    paths: Vec<String>,
    members: Vec<Member>,
    witnesses: Vec<Member>,
}

impl Plan {
    pub(super) fn of_lockspace(running: &Running, lockspace: &Lockspace) -> Result<Plan, Error> {
        let members = running.members_of(lockspace)?.members;
        Ok(Plan { paths: lockspace.paths(), members, witnesses: Vec::new() })
    }

    fn of(running: &Running, lockspace: &Lockspace, paths: Vec<String>) -> Result<Plan, Error> {
        let members = running.drives_of(&lockspace.owner.name, &paths)?.members;
        Ok(Plan { paths, members, witnesses: Vec::new() })
    }

    /// The drives that vote, and the other drives of the VG.
    pub(super) fn drives(&self) -> Vec<DriveRef> {
        self.members.iter().chain(&self.witnesses).map(|member| member.drive).collect()
    }

    /// The note of the lock, written before it is requested.
    pub(super) fn saved(&self, mode: Mode) -> SavedLock {
        let identity = |member: &Member| String::from_utf8_lossy(&member.identity).into_owned();
        SavedLock {
            exclusive: mode == Mode::Exclusive,
            granted: false,
            asked_us: clock::now().as_micros(),
            paths: self.paths.clone(),
            drives: self.members.iter().map(identity).collect(),
        }
    }

    /// The drives that vote.
    pub(super) fn members(self) -> Vec<Member> {
        self.members
    }

    pub(super) fn acquire(self, mode: Mode) -> Request {
        Request::Acquire { mode, members: self.members, witnesses: self.witnesses }
    }
}

/// Refuses more drives than a lock can have.
fn bounded(owner: &str, members: Members) -> Result<Members, Error> {
    if members.members.len() > MOST_DRIVES {
        return Err(Error::Invalid(format!(
            "{owner} has {} drives, more than the {MOST_DRIVES} that one lock can have; split it",
            members.members.len()
        )));
    }
    Ok(members)
}

pub(super) fn no_global_drives() -> String {
    format!(
        "no drives for the global lock: give a GPT partition on each of them the name \
         \"propeller\", or name the same drives on every host in {DEFAULT_FILE}, as [global] \
         drives = [\"/dev/...\"]"
    )
}
