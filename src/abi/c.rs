//! lvmlockd's C types, as far as they are the same in every release
//! (docs/lvmlockd-contract.md, "Layouts").

use crate::manager;
use core::ffi::{c_char, c_int};

/// `struct lockspace`; its fields moved between releases, see [`super::LockspaceView`].
#[repr(C)]
pub struct Lockspace {
    opaque: [u8; 0],
}

/// `struct resource`; see [`super::ResourceView`].
#[repr(C)]
pub struct Resource {
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
    /// `num` strings from malloc in an array from malloc, or NULL whatever `num` says.
    pub path: *mut *mut c_char,
    /// How many.
    pub num: c_int,
}

/// `struct val_blk`: a value block, host-endian.
#[repr(C)]
pub struct ValBlk {
    /// 0x0101, or 0 for "no value".
    pub version: u16,
    /// `VBF_REMOVED` (1).
    pub flags: u16,
    /// Version number of the resource.
    pub r_version: u32,
}

impl From<manager::ValBlk> for ValBlk {
    fn from(value: manager::ValBlk) -> ValBlk {
        ValBlk { version: value.version, flags: value.flags, r_version: value.r_version }
    }
}
