//! What a lockspace and a resource are to us; LVB cache and timestamps.

use crate::manager::{Resource, Scope, ValBlk};
use crate::runtime::drives::{Drives, Members};
use crate::runtime::{LockSpec, Owner, Role};
use idm_engine::{Member, ValueRead};
use idm_protocol::{IdError, Mode, ResourceId, Value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The LV half of the membership mutex's id; the other half is the VG's uuid. `*` and `-` stand in
/// no LVM uuid, so it can be no LV's.
const MEMBERSHIP: [u8; 32] = *b"*members-of-the-volume-group*\0\0\0";

/// A lockspace between prepare and remove.
pub struct Lockspace {
    /// What the runtime knows of it. A lockspace that is started again gets a new one, so what
    /// was lost before does not count any more.
    pub owner: Arc<Owner>,
    /// The VG's mutex id; the global lock's for the global lockspace.
    pub id: ResourceId,
    pub is_global: bool,
    started: AtomicBool,
    drives: Mutex<DriveList>,
    values: Mutex<HashMap<ResourceId, ValueCache>>,
}

/// Where a lockspace's drives come from.
enum DriveList {
    /// The VG's PVs, or the global lock's drives as configured.
    Paths(Vec<String>),
    /// The drives that have a partition for the global lock, or had one since the lockspace was
    /// prepared: a drive that is lost goes on counting.
    Partitions(Vec<Member>),
}

impl Lockspace {
    /// The lockspace of a scope; `global` are the paths of the global lock's drives. Without any,
    /// they are those that have a partition for it.
    pub fn new(scope: Scope, global: &[String]) -> Result<Lockspace, IdError> {
        let (name, kill, id, drives) = match scope {
            Scope::Global => {
                let name = "the global lockspace".to_owned();
                let drives = match global {
                    [] => DriveList::Partitions(Vec::new()),
                    paths => DriveList::Paths(paths.to_vec()),
                };
                (name, None, ResourceId::GLOBAL, drives)
            }
            Scope::Vg { name, uuid, pvs } => {
                let id = ResourceId::vg(&uuid)?;
                (format!("volume group {name}"), Some(name), id, DriveList::Paths(pvs))
            }
        };
        Ok(Lockspace {
            is_global: kill.is_none(),
            owner: Arc::new(Owner::new(name, kill)),
            id,
            started: AtomicBool::new(false),
            drives: Mutex::new(drives),
            values: Mutex::default(),
        })
    }

    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    fn drives(&self) -> MutexGuard<'_, DriveList> {
        self.drives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its drives now.
    pub fn members(&self, drives: &Drives) -> Members {
        let paths = match &mut *self.drives() {
            DriveList::Paths(paths) => paths.clone(),
            DriveList::Partitions(members) => return drives.add_global(members),
        };
        drives.members(&paths)
    }

    pub fn set_paths(&self, paths: Vec<String>) {
        *self.drives() = DriveList::Paths(paths);
    }

    /// The lock of a resource. `None` where there is no such resource in this lockspace.
    pub fn spec(&self, resource: &Resource) -> Result<Option<LockSpec>, IdError> {
        let (role, id, label) = match (resource, self.is_global) {
            (Resource::Global, true) => (Role::Global, self.id, "the global lock".to_owned()),
            (Resource::Vg, false) => {
                (Role::Vg, self.id, format!("the lock of {}", self.owner.name))
            }
            (Resource::Lv { uuid, .. }, false) => (
                Role::Lv,
                self.lv_id(uuid)?,
                format!("the lock of LV {uuid} in {}", self.owner.name),
            ),
            _ => return Ok(None),
        };
        Ok(Some(self.spec_of(role, id, label)))
    }

    /// The lock that shows other hosts that this one has the VG started.
    pub fn membership(&self) -> LockSpec {
        let label = format!("the membership of {}", self.owner.name);
        let mut id = *self.id.as_bytes();
        id[32..].copy_from_slice(&MEMBERSHIP);
        self.spec_of(Role::Membership, ResourceId::from_bytes(id), label)
    }

    /// Whether a mutex belongs to this VG: its lock, an LV's, or a membership.
    pub fn owns(&self, resource: &ResourceId) -> bool {
        resource.as_bytes()[..32] == self.id.as_bytes()[..32]
    }

    fn lv_id(&self, lv_uuid: &str) -> Result<ResourceId, IdError> {
        // Both halves of an LV's id are read the same way.
        let lv = ResourceId::vg(lv_uuid)?;
        let mut id = *self.id.as_bytes();
        id[32..].copy_from_slice(&lv.as_bytes()[..32]);
        Ok(ResourceId::from_bytes(id))
    }

    fn spec_of(&self, role: Role, resource: ResourceId, label: String) -> LockSpec {
        LockSpec { resource, label, role, owner: self.owner.clone() }
    }

    /// Works on the cached value of a mutex.
    pub fn value<T>(&self, id: ResourceId, work: impl FnOnce(&mut ValueCache) -> T) -> T {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        work(values.entry(id).or_default())
    }
}

/// The value block of a mutex as this host last knew it.
///
/// A drive keeps 7 bytes with a mutex, too few for lvmlockd's block, so they hold a timestamp: us
/// since 1970, greater with every write. The block itself stays with the host that wrote it, and is
/// good for as long as the timestamp on the drives is the one that it was written with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ValueCache {
    /// The greatest timestamp that was seen or written.
    greatest: Value,
    written: Option<(Value, ValBlk)>,
}

/// `VAL_BLK_VERSION` of lvmlockd.
const VERSION: u16 = 0x0101;

impl ValueCache {
    /// The block for a value that came with a lock: all zero, which makes lvmlockd read anew,
    /// where another host has written since, or where that is not known.
    pub fn read(&mut self, read: ValueRead) -> ValBlk {
        let ValueRead::Known(value) = read else {
            self.written = None;
            return ValBlk::default();
        };
        self.greatest = self.greatest.max(value);
        match self.written {
            Some((timestamp, block)) if timestamp == value => block,
            _ => {
                self.written = None;
                ValBlk::default()
            }
        }
    }

    /// The timestamp to write next.
    pub fn next(&self, now_us: u64) -> Value {
        let after = self.greatest.get().saturating_add(1);
        // A drive with the greatest possible value would stop the count; a smaller one is still
        // another one, which is all that readers look at.
        Value::new(now_us.max(after)).or_else(|| Value::new(now_us)).unwrap_or(Value::ZERO)
    }

    /// Takes note of what was written.
    pub fn wrote(&mut self, timestamp: Value, r_version: u32) {
        self.greatest = self.greatest.max(timestamp);
        let block = ValBlk { version: VERSION, flags: 0, r_version };
        self.written = Some((timestamp, block));
    }
}

/// A lock that one of core's resource structs holds.
#[derive(Clone)]
pub struct Held {
    pub lockspace: Arc<Lockspace>,
    pub spec: LockSpec,
    pub mode: Mode,
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

    fn known(value: u64) -> ValueRead {
        ValueRead::Known(Value::new(value).unwrap())
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
    fn the_membership_id_can_be_no_lvs() {
        let text = String::from_utf8(MEMBERSHIP.to_vec()).unwrap();
        assert!(ResourceId::vg(text.trim_end_matches('\0')).is_err());
    }

    #[test]
    fn broken_uuids_are_refused() {
        let scope = |uuid: &str| Scope::Vg { name: "v".into(), uuid: uuid.into(), pvs: Vec::new() };
        assert!(Lockspace::new(scope("short"), &[]).is_err());
        assert!(Lockspace::new(scope(""), &[]).is_err());
        let lv = Resource::Lv { uuid: "no".into(), pvs: Vec::new() };
        assert!(vg().spec(&lv).is_err());
    }

    #[test]
    fn a_block_is_good_while_its_timestamp_stands() {
        let mut cache = ValueCache::default();
        assert_eq!(cache.read(known(0)), ValBlk::default());
        let timestamp = cache.next(1000);
        cache.wrote(timestamp, 7);
        let block = cache.read(known(1000));
        assert_eq!((block.version, block.r_version, block.flags), (VERSION, 7, 0));
        assert_eq!(cache.read(known(1001)), ValBlk::default());
        assert_eq!(cache.read(known(1000)), ValBlk::default());
    }

    #[test]
    fn an_unknown_value_invalidates() {
        let mut cache = ValueCache::default();
        cache.wrote(cache.next(1000), 7);
        assert_eq!(cache.read(known(1000)).r_version, 7);
        assert_eq!(cache.read(ValueRead::Unknown), ValBlk::default());
        assert_eq!(cache.read(known(1000)), ValBlk::default());
    }

    #[test]
    fn timestamps_never_repeat() {
        let mut cache = ValueCache::default();
        cache.read(known(5000));
        assert_eq!(cache.next(10).get(), 5001);
        cache.wrote(cache.next(10), 1);
        assert_eq!(cache.next(10).get(), 5002);
        assert_eq!(cache.next(9000).get(), 9000);
        cache.read(known(Value::MAX.get()));
        assert_eq!(cache.next(9000).get(), 9000);
    }
}
