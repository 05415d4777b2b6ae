//! What a lockspace and a resource are to us; LVB cache and timestamps.

use crate::drives::{Drives, Members};
use crate::manager::{Resource, Scope, ValBlk};
use crate::runtime::{LockSpec, Owner, Role};
use crate::state::store::{SavedLock, SavedLockspace};
use crate::sys::clock;
use crate::sys::sync::{Mutex, MutexGuard};
use idm_engine::{Member, ValueRead};
use idm_protocol::{IdError, Mode, ResourceId, Value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

/// The LV half of the membership mutex's id; the other half is the VG's uuid. `*` and `-` stand in
/// no LVM uuid, so it can be no LV's.
pub const MEMBERSHIP: [u8; 32] = *b"*members-of-the-volume-group*\0\0\0";

/// What a mutex of ours is for.
pub fn role_of(id: &ResourceId) -> Role {
    match id.as_bytes().split_at(32) {
        _ if *id == ResourceId::GLOBAL => Role::Global,
        (_, lv) if lv == MEMBERSHIP => Role::Membership,
        _ if id.is_lv() => Role::Lv,
        _ => Role::Vg,
    }
}

/// The mutex of the VG that a mutex belongs to.
pub fn vg_of(id: &ResourceId) -> ResourceId {
    let mut vg = *id.as_bytes();
    vg[32..].fill(0);
    ResourceId::from_bytes(vg)
}

/// The uuid of an LV's mutex as LVM prints it.
pub fn lv_uuid(id: &ResourceId) -> String {
    dashed(&id.as_bytes()[32..])
}

/// A uuid as LVM prints it.
fn dashed(uuid: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(uuid).into_owned();
    for at in [26, 22, 18, 14, 10, 6] {
        if text.is_char_boundary(at) {
            text.insert(at, '-');
        }
    }
    text
}

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
    /// When it was prepared, in us since 1970.
    since_us: u64,
    values: Mutex<HashMap<ResourceId, ValueCache>>,
    /// The drives that its locks were last put on.
    spread_on: Mutex<Vec<Member>>,
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
        Ok(match scope {
            Scope::Global => Lockspace::with_id(ResourceId::GLOBAL, None, global.to_vec()),
            Scope::Vg { name, uuid, pvs } => {
                Lockspace::with_id(ResourceId::vg(&uuid)?, Some(name), pvs)
            }
        })
    }

    /// The lockspace of a VG's mutex, or of the global lock's where `vg` is no name.
    pub fn with_id(id: ResourceId, vg: Option<String>, paths: Vec<String>) -> Lockspace {
        let drives = match (&vg, &*paths) {
            (None, []) => DriveList::Partitions(Vec::new()),
            _ => DriveList::Paths(paths),
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
        }
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

    /// The paths that were named for it; none where its drives are those with a partition.
    pub fn paths(&self) -> Vec<String> {
        match &*self.drives() {
            DriveList::Paths(paths) => paths.clone(),
            DriveList::Partitions(_) => Vec::new(),
        }
    }

    pub fn set_paths(&self, paths: Vec<String>) {
        *self.drives() = DriveList::Paths(paths);
    }

    /// Takes note of the drives that its locks are put on.
    pub fn set_spread(&self, members: &[Member]) {
        *self.spread_on.lock().unwrap_or_else(PoisonError::into_inner) = members.to_vec();
    }

    /// Whether its locks were last put on just these drives.
    pub fn was_spread_on(&self, members: &[Member]) -> bool {
        let spread_on = self.spread_on.lock().unwrap_or_else(PoisonError::into_inner);
        spread_on.len() == members.len() && members.iter().all(|it| spread_on.contains(it))
    }

    /// As it is noted for a restart of lvmlockd.
    pub fn saved(&self) -> SavedLockspace {
        let uuid = if self.is_global { String::new() } else { dashed(&self.id.as_bytes()[..32]) };
        let name = self.owner.kill.clone().unwrap_or_default();
        SavedLockspace { name, uuid, paths: self.paths() }
    }

    /// The lock of a resource. `None` where there is no such resource in this lockspace.
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
        self.spec_of(&self.id_with(&MEMBERSHIP))
    }

    /// The lock of a mutex that this lockspace owns.
    pub fn spec_of(&self, id: &ResourceId) -> LockSpec {
        let role = role_of(id);
        let name = &self.owner.name;
        let label = match role {
            Role::Global => "the global lock".to_owned(),
            Role::Vg => format!("the lock of {name}"),
            Role::Membership => format!("the membership of {name}"),
            Role::Lv => format!("the lock of LV {} in {name}", lv_uuid(id)),
        };
        LockSpec { resource: *id, label, role, owner: self.owner.clone() }
    }

    /// Whether a mutex belongs to this VG: its lock, an LV's, or a membership.
    pub fn owns(&self, resource: &ResourceId) -> bool {
        vg_of(resource) == self.id
    }

    fn id_with(&self, lv: &[u8]) -> ResourceId {
        let mut id = *self.id.as_bytes();
        id[32..].copy_from_slice(lv);
        ResourceId::from_bytes(id)
    }

    /// Works on the cached value of a mutex.
    pub fn value<T>(&self, id: ResourceId, work: impl FnOnce(&mut ValueCache) -> T) -> T {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        work(values.entry(id).or_insert_with(|| ValueCache::since(self.since_us)))
    }
}

/// The value block of a mutex as this host last knew it.
///
/// A drive keeps 7 bytes with a mutex, too few for lvmlockd's block, so they hold a timestamp: us
/// since 1970, greater with every write. The block itself stays with the host that wrote it, and is
/// good for as long as the timestamp on the drives is the one that it was written with.
///
/// The lowest bit is a mark: at the time that the others tell, the VG was removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ValueCache {
    /// Since when the lockspace is started, in us since 1970.
    since_us: u64,
    /// The greatest value that was seen or written.
    greatest: Value,
    written: Option<(Value, ValBlk)>,
}

/// `VAL_BLK_VERSION` of lvmlockd.
const VERSION: u16 = 0x0101;
/// `VBF_REMOVED` of lvmlockd.
const REMOVED: u16 = 1;
/// What core is told of a VG that another host has removed; it wants a version.
const REMOVED_BLOCK: ValBlk = ValBlk { version: VERSION, flags: REMOVED, r_version: 1 };
/// By how much the clock of the host that removed a VG may be behind ours, in us.
const CLOCKS_DIFFER_US: u64 = 10_000_000;

impl ValueCache {
    fn since(since_us: u64) -> ValueCache {
        ValueCache { since_us, ..ValueCache::default() }
    }

    /// The block for a value that came with a lock: all zero, which makes lvmlockd read anew,
    /// where another host has written since, or where that is not known.
    pub fn read(&mut self, read: ValueRead) -> ValBlk {
        let ValueRead::Known(value) = read else {
            self.written = None;
            return ValBlk::default();
        };
        self.greatest = self.greatest.max(value);
        match self.written {
            Some((timestamp, block)) if timestamp == value => return block,
            _ => self.written = None,
        }
        // A VG that was started after it was removed has been restored since.
        let (us, removed) = (value.get() >> 1, value.get() & 1 != 0);
        if removed && us + CLOCKS_DIFFER_US >= self.since_us {
            return REMOVED_BLOCK;
        }
        ValBlk::default()
    }

    /// The value to write next; `removes`: with the mark of a VG that is being removed.
    pub fn next(&self, now_us: u64, removes: bool) -> Value {
        let after = (self.greatest.get() >> 1).saturating_add(1);
        let value = |us: u64| Value::new(us << 1 | u64::from(removes));
        // A drive with the greatest possible value would stop the count; a smaller one is still
        // another one, which is all that readers look at.
        value(now_us.max(after)).or_else(|| value(now_us)).unwrap_or(Value::ZERO)
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
    /// As it is noted for a restart of lvmlockd.
    pub saved: SavedLock,
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
        let timestamp = cache.next(1000, false);
        assert_eq!(timestamp.get(), 2000);
        cache.wrote(timestamp, 7);
        let block = cache.read(known(2000));
        assert_eq!((block.version, block.r_version, block.flags), (VERSION, 7, 0));
        assert_eq!(cache.read(known(2002)), ValBlk::default());
        assert_eq!(cache.read(known(2000)), ValBlk::default());
    }

    #[test]
    fn an_unknown_value_invalidates() {
        let mut cache = ValueCache::default();
        cache.wrote(cache.next(1000, false), 7);
        assert_eq!(cache.read(known(2000)).r_version, 7);
        assert_eq!(cache.read(ValueRead::Unknown), ValBlk::default());
        assert_eq!(cache.read(known(2000)), ValBlk::default());
    }

    #[test]
    fn timestamps_never_repeat() {
        let mut cache = ValueCache::default();
        let us = |cache: &ValueCache, now_us: u64| cache.next(now_us, false).get() >> 1;
        cache.read(known(10_001));
        assert_eq!(us(&cache, 10), 5001);
        cache.wrote(cache.next(10, false), 1);
        assert_eq!(us(&cache, 10), 5002);
        assert_eq!(us(&cache, 9000), 9000);
        cache.read(known(Value::MAX.get()));
        assert_eq!(us(&cache, 9000), 9000);
        // Room for all times that there will be.
        let year_3000 = 1030 * 365 * 86_400 * 1_000_000;
        assert_eq!(us(&ValueCache::default(), year_3000), year_3000);
    }

    #[test]
    fn a_removed_vg_is_told_to_those_that_had_it_started() {
        const S: u64 = 1_000_000;
        let removed_at = |us: u64| ValueRead::Known(ValueCache::default().next(us, true));
        let started = || ValueCache::since(1000 * S);
        assert_eq!(started().read(removed_at(2000 * S)), REMOVED_BLOCK);
        assert_eq!(started().read(removed_at(995 * S)), REMOVED_BLOCK);
        // Started after that: it is another VG of the same uuid, restored from a backup.
        assert_eq!(started().read(removed_at(980 * S)), ValBlk::default());
        // The next who writes takes the mark away.
        let mut cache = started();
        cache.read(removed_at(2000 * S));
        let next = ValueRead::Known(cache.next(1500 * S, false));
        assert_eq!(started().read(next), ValBlk::default());
    }
}
