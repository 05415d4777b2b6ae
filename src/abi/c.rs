//! lvmlockd's C types that are the same in every release (docs/lvmlockd-contract.md, "Layouts").

use crate::lock;
use core::ffi::{c_char, c_int};

/// `struct lockspace`; its fields moved between releases, see [`super::LockspaceView`].
#[repr(C)]
pub struct RawLockspace {
    opaque: [u8; 0],
}

/// `struct resource`; see [`super::ResourceView`].
#[repr(C)]
pub struct RawResource {
    opaque: [u8; 0],
}

/// `struct list_head`: a list, or a member of one.
#[repr(C)]
pub struct ListHead {
    /// The first member, or the list itself.
    pub next: *mut ListHead,
    /// The last member, or the list itself.
    pub prev: *mut ListHead,
}

/// `struct pvs`: the PVs of a request or of a lockspace.
#[repr(C)]
pub struct Pvs {
    /// An array from malloc with `num` strings from malloc; or NULL, then `num` has no meaning.
    pub path: *mut *mut c_char,
    /// Number of strings.
    pub num: c_int,
}

/// `struct val_blk`: a value block, host-endian.
#[repr(C)]
pub struct RawValBlk {
    /// 0x0101, or 0 for "no value".
    pub version: u16,
    /// `VBF_REMOVED` (1).
    pub flags: u16,
    /// Version number of the resource.
    pub r_version: u32,
}

/// `struct lvmlockd_idm_layout`, as `lvm2/lvmlockd-idm.c` defines it.
#[repr(C)]
pub struct Table {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
    pub(super) size: u32,
    pub(super) lockspace_pvs: u32,
    pub(super) adopt_args: u32,
    pub(super) lvm_path: *const c_char,
}

impl From<lock::ValBlk> for RawValBlk {
    fn from(value: lock::ValBlk) -> RawValBlk {
        RawValBlk { version: value.version, flags: value.flags, r_version: value.r_version }
    }
}
