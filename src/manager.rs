//! What lvmlockd's core asks for, free of C: lockspaces, resources, locks.
//!
//! State is keyed by the addresses of core's structs, never by name or uuid: several resource
//! structs for one LV coexist, and late calls arrive for old ones (contract, section 0).

use crate::error::Error;
use idm_protocol::Mode;

/// Address of core's `struct lockspace`, used as a name and never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockspaceKey(pub usize);

/// Address of core's `struct resource`, used as a name and never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResourceKey(pub usize);

/// What a lockspace is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `lvm_global`.
    Global,
    /// A volume group.
    Vg {
        /// Its name, for messages and for the kill command.
        name: String,
        /// Its uuid as LVM prints it.
        uuid: String,
        /// Paths of its PVs.
        pvs: Vec<String>,
    },
}

/// What a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The global lock, in the lockspace of [`Scope::Global`].
    Global,
    /// The VG's lock.
    Vg,
    /// An LV's lock.
    Lv {
        /// Its uuid as LVM prints it.
        uuid: String,
        /// Paths of the PVs that the request names; empty where it names none, then the
        /// VG's are used.
        pvs: Vec<String>,
    },
}

/// What a request says about locks that this host left behind (lvm2 2.03.25 and later; both false
/// before).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopt {
    /// Only take over what this host left behind.
    pub only: bool,
    /// Take over what this host left behind, otherwise proceed as usual.
    pub ok: bool,
}

/// lvmlockd's value block, host-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValBlk {
    /// 0x0101, or 0 for "no value".
    pub version: u16,
    /// `VBF_REMOVED` (1).
    pub flags: u16,
    /// Version number of the resource.
    pub r_version: u32,
}

/// The lock manager: one per process.
pub struct Manager {}

impl Manager {
    /// The process's lock manager.
    pub fn get() -> &'static Manager {
        todo!()
    }

    /// Takes note of a lockspace and checks that its drives can be used at all.
    pub fn prepare_lockspace(&self, key: LockspaceKey, scope: Scope) -> Result<(), Error> {
        let _ = (key, scope);
        todo!()
    }

    /// Starts the lockspace. On failure everything from prepare is forgotten (core never calls
    /// remove then).
    pub fn add_lockspace(&self, key: LockspaceKey, adopt: Adopt) -> Result<(), Error> {
        let _ = (key, adopt);
        todo!()
    }

    /// Stops the lockspace; `free_vg`: the VG is being removed.
    pub fn remove_lockspace(&self, key: LockspaceKey, free_vg: bool) -> Result<(), Error> {
        let _ = (key, free_vg);
        todo!()
    }

    /// The VG's PVs, read afresh because a repeated start replaces them.
    pub fn set_pvs(&self, key: LockspaceKey, pvs: Vec<String>) {
        let _ = (key, pvs);
        todo!()
    }

    /// Takes note of a resource. Optional before [`Manager::lock`].
    pub fn add_resource(&self, lockspace: LockspaceKey, key: ResourceKey) {
        let _ = (lockspace, key);
        todo!()
    }

    /// Forgets a resource; never unlocks what another resource holds. May come after its
    /// lockspace is gone, and for resources that were never seen.
    pub fn remove_resource(&self, key: ResourceKey) {
        let _ = key;
        todo!()
    }

    /// Takes a lock. The value block is all zero where there is no value or it cannot be trusted.
    pub fn lock(
        &self,
        lockspace: LockspaceKey,
        key: ResourceKey,
        resource: Resource,
        mode: Mode,
        adopt: Adopt,
    ) -> Result<ValBlk, Error> {
        let _ = (lockspace, key, resource, mode, adopt);
        todo!()
    }

    /// Changes the mode of a held lock; `r_version` is 0 where there is nothing to publish.
    pub fn convert(&self, key: ResourceKey, mode: Mode, r_version: u32) -> Result<(), Error> {
        let _ = (key, mode, r_version);
        todo!()
    }

    /// Gives a lock up. Never fails: what the drives did not take is followed up.
    pub fn unlock(&self, key: ResourceKey, r_version: u32, lmu_flags: u32) {
        let _ = (key, r_version, lmu_flags);
        todo!()
    }

    /// The number of other hosts that have the lockspace started.
    pub fn hosts(&self, key: LockspaceKey) -> Result<u32, Error> {
        let _ = key;
        todo!()
    }

    /// Whether IDM can be used on this host. Quick, and never waits for a drive.
    pub fn is_running(&self) -> bool {
        todo!()
    }
}
