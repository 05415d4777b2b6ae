//! A lockspace, and a lock that one of its resources holds.

use crate::drives::{DrivePin, Drives, Members};
use crate::lock::{
    LockSpec, Owner, Resource, Scope, ValBlk, ValueCache, dashed, membership_of, role_of,
    same_drives, vg_of,
};
use crate::state::store::{SavedLock, SavedLockspace};
use crate::sys::clock;
use crate::sys::sync::{Mutex, MutexGuard};
use idm_engine::{Member, ValueRead};
use idm_protocol::{IdError, Mode, ResourceId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A lockspace between prepare and remove.
pub struct Lockspace {
    /// State that the runtime shares. A lockspace that is started again gets a new owner, so that
    /// earlier losses do not count any more.
    pub owner: Arc<Owner>,
    /// Mutex id of the VG; for the global lockspace that of the global lock.
    pub id: ResourceId,
    pub is_global: bool,
    started: AtomicBool,
    drives: Mutex<DriveList>,
    /// Time of its preparation, in us since 1970.
    since_us: u64,
    values: Mutex<HashMap<ResourceId, ValueCache>>,
    /// Drives that its locks were last put on.
    spread_on: Mutex<Vec<Member>>,
    /// Keeps its drives from being forgotten.
    pins: Mutex<Vec<DrivePin>>,
}

/// The source of a lockspace's drives.
enum DriveList {
    /// The PVs of the VG, or the configured drives of the global lock.
    Paths {
        paths: Vec<String>,
        /// Identities of the drives that each of them has led to since it was named.
        meant: Vec<Vec<String>>,
    },
    /// The drives that have a partition for the global lock, or had one since the lockspace was
    /// prepared: a lost drive continues to count.
    Partitions(Vec<Member>),
}

impl Lockspace {
    /// The lockspace of a scope. `global` has the paths of the global lock's drives; where it is
    /// empty, these are the drives with a partition for it.
    pub fn new(scope: Scope, global: &[String]) -> Result<Lockspace, IdError> {
        Ok(match scope {
            Scope::Global => Lockspace::with_id(ResourceId::GLOBAL, None, global.to_vec()),
            Scope::Vg { name, uuid, pvs } => {
                Lockspace::with_id(ResourceId::vg(&uuid)?, Some(name), pvs)
            }
        })
    }

    /// The lockspace of a VG's mutex, or that of the global lock where `vg` is `None`.
    pub fn with_id(id: ResourceId, vg: Option<String>, paths: Vec<String>) -> Lockspace {
        let drives = match (&vg, &*paths) {
            (None, []) => DriveList::Partitions(Vec::new()),
            _ => DriveList::Paths { paths, meant: Vec::new() },
        };
        let name = match &vg {
            Some(vg) => format!("volume group {vg}"),
            None => "the global lockspace".to_owned(),
        };
        let kill = vg;
        Lockspace {
            is_global: kill.is_none(),
            owner: Arc::new(Owner::new(name, kill)),
            id,
            started: AtomicBool::new(false),
            drives: Mutex::new(drives),
            since_us: clock::wall_us(),
            values: Mutex::default(),
            spread_on: Mutex::default(),
            pins: Mutex::default(),
        }
    }

    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    fn drives(&self) -> MutexGuard<'_, DriveList> {
        self.drives.lock()
    }

    /// The current drives.
    pub fn members(&self, drives: &Drives) -> Members {
        let named = match &mut *self.drives() {
            DriveList::Paths { paths, meant } => Ok((paths.clone(), meant.clone())),
            DriveList::Partitions(members) => Err(drives.add_global(members)),
        };
        let members = match named {
            Ok((paths, meant)) => {
                let members = drives.members_as_named(&paths, &meant);
                self.mean(&paths, members.led_to.clone());
                members
            }
            Err(members) => members,
        };
        self.pins.lock().clone_from(&members.pins);
        members
    }

    /// Records the drives that these paths stand for, unless others have been named since.
    pub fn mean(&self, named: &[String], drives: Vec<Vec<String>>) {
        if let DriveList::Paths { paths, meant } = &mut *self.drives() {
            if paths == named {
                *meant = drives;
            }
        }
    }

    /// The configured paths; none if its drives are found by their partitions.
    pub fn paths(&self) -> Vec<String> {
        match &*self.drives() {
            DriveList::Paths { paths, .. } => paths.clone(),
            DriveList::Partitions(_) => Vec::new(),
        }
    }

    /// Sets the paths. A path that was in the list before goes on to stand for its drives: core has
    /// the list from lock-start to lock-stop, unless a repeated start replaces it.
    pub fn set_paths(&self, named: Vec<String>) {
        let mut list = self.drives();
        let meant = match &*list {
            DriveList::Paths { paths, .. } if *paths == named => return,
            DriveList::Paths { paths, meant } => {
                let before: HashMap<_, _> = paths.iter().zip(meant).collect();
                let drives = |path| before.get(path).copied().cloned().unwrap_or_default();
                named.iter().map(drives).collect()
            }
            DriveList::Partitions(_) => Vec::new(),
        };
        *list = DriveList::Paths { paths: named, meant };
    }

    /// Records the drives that its locks are put on.
    pub fn set_spread(&self, members: &[Member]) {
        *self.spread_on.lock() = members.to_vec();
    }

    /// Whether its locks were last put on exactly these drives.
    pub fn was_spread_on(&self, members: &[Member]) -> bool {
        same_drives(&self.spread_on.lock(), members)
    }

    /// The note of it for a restart of lvmlockd.
    pub fn saved(&self) -> SavedLockspace {
        let uuid = if self.is_global { String::new() } else { dashed(&self.id.as_bytes()[..32]) };
        let name = self.owner.kill.clone().unwrap_or_default();
        let (paths, drives) = match &*self.drives() {
            DriveList::Paths { paths, meant } => (paths.clone(), meant.clone()),
            DriveList::Partitions(_) => Default::default(),
        };
        SavedLockspace { name, uuid, paths, drives }
    }

    /// The lock of a resource. `None` if this lockspace has no such resource.
    pub fn spec(&self, resource: &Resource) -> Result<Option<LockSpec>, IdError> {
        let id = match (resource, self.is_global) {
            (Resource::Global, true) | (Resource::Vg, false) => self.id,
            (Resource::Lv { uuid, .. }, false) => {
                // Both halves of an LV's id are read the same way.
                self.id_with(&ResourceId::vg(uuid)?.as_bytes()[..32])
            }
            _ => return Ok(None),
        };
        Ok(Some(self.spec_of(&id)))
    }

    /// The lock that shows other hosts that this one has the VG started.
    pub fn membership(&self) -> LockSpec {
        self.spec_of(&membership_of(&self.id))
    }

    /// The lock of a mutex that this lockspace owns.
    pub fn spec_of(&self, id: &ResourceId) -> LockSpec {
        LockSpec { resource: *id, role: role_of(id), owner: self.owner.clone() }
    }

    /// Whether a mutex belongs to this VG: its own lock, the lock of an LV, or a membership.
    pub fn owns(&self, resource: &ResourceId) -> bool {
        vg_of(resource) == self.id
    }

    fn id_with(&self, lv: &[u8]) -> ResourceId {
        let mut id = *self.id.as_bytes();
        id[32..].copy_from_slice(lv);
        ResourceId::from_bytes(id)
    }

    /// The block that core gets for the value that came with a lock.
    pub fn told(&self, spec: &LockSpec, read: ValueRead) -> ValBlk {
        match spec.role.keeps_value() {
            true => self.value(spec.resource, |value| value.read(read)),
            false => ValBlk::default(),
        }
    }

    /// Works on the cached value of a mutex.
    pub fn value<T>(&self, id: ResourceId, work: impl FnOnce(&mut ValueCache) -> T) -> T {
        let mut values = self.values.lock();
        work(values.entry(id).or_insert_with(|| ValueCache::since(self.since_us)))
    }
}

/// A lock that one of core's resource structs holds.
#[derive(Clone)]
pub struct Held {
    pub lockspace: Arc<Lockspace>,
    pub spec: LockSpec,
    pub mode: Mode,
    /// The note of it for a restart of lvmlockd.
    pub saved: SavedLock,
    /// The value that core got with the lock, or has published since.
    pub value: ValBlk,
    /// Whether an earlier lvmlockd left it.
    pub taken_over: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const VG: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
    const LV: &str = "abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP";

    fn vg() -> Lockspace {
        let scope = Scope::Vg { name: "vg0".into(), uuid: VG.into(), pvs: vec!["/dev/sda".into()] };
        Lockspace::new(scope, &[]).unwrap()
    }

    #[test]
    fn ids_are_those_of_the_protocol() {
        let vg = vg();
        let lv = Resource::Lv { uuid: LV.into(), pvs: Vec::new() };
        let id = |resource: &Resource| vg.spec(resource).unwrap().unwrap().resource;
        assert_eq!(id(&Resource::Vg), ResourceId::vg(VG).unwrap());
        assert_eq!(id(&lv), ResourceId::lv(VG, LV).unwrap());
        assert!(vg.owns(&id(&lv)) && vg.owns(&vg.membership().resource));
        assert!(!vg.owns(&ResourceId::GLOBAL));
        assert!(vg.spec(&Resource::Global).unwrap().is_none());
        let global = Lockspace::new(Scope::Global, &["d".into()]).unwrap();
        let spec = global.spec(&Resource::Global).unwrap().unwrap();
        assert_eq!(spec.resource, ResourceId::GLOBAL);
        assert!(global.spec(&lv).unwrap().is_none());
        assert!(global.owner.kill.is_none());
    }

    #[test]
    fn broken_uuids_are_refused() {
        let scope = |uuid: &str| Scope::Vg { name: "v".into(), uuid: uuid.into(), pvs: Vec::new() };
        assert!(Lockspace::new(scope("short"), &[]).is_err());
        assert!(Lockspace::new(scope(""), &[]).is_err());
        let lv = Resource::Lv { uuid: "no".into(), pvs: Vec::new() };
        assert!(vg().spec(&lv).is_err());
    }
}
