//! The types in which core's calls reach the manager: keys of core's structs, and the meaning of
//! these structs.

/// Address of core's `struct lockspace`, used as a name and never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockspaceKey(pub usize);

/// Address of core's `struct resource`, used as a name and never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResourceKey(pub usize);

/// Scope of a lockspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `lvm_global`.
    Global,
    /// A volume group.
    Vg {
        /// Name, for messages and for the kill command.
        name: String,
        /// Its uuid as LVM prints it.
        uuid: String,
        /// Paths of the PVs.
        pvs: Vec<String>,
    },
}

/// Kind of a resource.
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
        /// Paths of the PVs that the request names. Where it names none, the VG's PVs are used.
        pvs: Vec<String>,
    },
}

/// Adopt flags of a request, for locks that this host left behind (lvm2 2.03.25 and later; both
/// false before).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopt {
    /// Only take over a lock that this host left behind.
    pub only: bool,
    /// Take over a lock that this host left behind; otherwise proceed as usual.
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
