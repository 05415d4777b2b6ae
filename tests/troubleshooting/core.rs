//! lvmlockd's side of the C functions, as 2.03.31 has it.

use core::ffi::{c_char, c_int, c_void};
use core::ptr::null_mut;
use lvmlockd_idm::abi::{Pvs, RawLockspace, RawResource, RawValBlk};

/// `struct lvmlockd_idm_layout` of `lvm2/lvmlockd-idm.c`.
#[repr(C)]
struct Table {
    magic: [u8; 8],
    version: u32,
    size: u32,
    lockspace_pvs: u32,
    adopt_args: u32,
    lvm_path: *const c_char,
}

// SAFETY: nobody writes to it.
unsafe impl Sync for Table {}

/// The table that the library looks for in lvmlockd.
#[allow(non_upper_case_globals)]
#[unsafe(no_mangle)]
static lvmlockd_idm_layout: Table = Table {
    magic: *b"LVMLDIDM",
    version: 1,
    size: size_of::<Table>() as u32,
    lockspace_pvs: 304,
    adopt_args: 2,
    lvm_path: c"/sbin/lvm".as_ptr(),
};

unsafe extern "C" {
    fn lm_prepare_lockspace_idm(ls: *mut RawLockspace) -> c_int;
    fn lm_lock_idm(
        ls: *mut RawLockspace,
        r: *mut RawResource,
        ld_mode: c_int,
        vb_out: *mut RawValBlk,
        lv_uuid: *mut c_char,
        pvs: *mut Pvs,
        adopt_only: c_int,
        adopt_ok: c_int,
    ) -> c_int;
}

/// Memory of a struct of core's.
#[repr(C, align(16))]
pub struct Memory([u8; 480]);

impl Memory {
    fn of(texts: &[(usize, &[u8])]) -> Memory {
        let mut memory = Memory([0; 480]);
        for (offset, text) in texts {
            memory.0[*offset..offset + text.len()].copy_from_slice(text);
        }
        memory
    }

    fn address<T>(it: &mut Option<Memory>) -> *mut T {
        it.as_mut().map_or(null_mut::<c_void>(), |it| it.0.as_mut_ptr().cast()).cast()
    }
}

/// Core: makes structs, and calls with them.
pub struct Core;

impl Core {
    /// A `struct lockspace`.
    pub fn lockspace(&self, name: &[u8], vg_name: &[u8], vg_uuid: &[u8]) -> Memory {
        Memory::of(&[(16, name), (81, vg_name), (146, vg_uuid)])
    }

    /// The one of a VG.
    pub fn vg(&self, name: &[u8]) -> Memory {
        self.lockspace(&[b"lvm_", name].concat(), name, crate::scene::VG_UUID.as_bytes())
    }

    /// A `struct resource`.
    pub fn resource(&self, kind: u8, name: &[u8]) -> Memory {
        Memory::of(&[(16, name), (81, &[kind])])
    }

    pub fn prepare(&self, mut ls: Option<Memory>) -> c_int {
        // SAFETY: NULL, or a struct of the size of the release that the table stands for.
        unsafe { lm_prepare_lockspace_idm(Memory::address(&mut ls)) }
    }

    pub fn lock(&self, mut ls: Option<Memory>, mut r: Option<Memory>, mode: c_int) -> c_int {
        let (ls, r) = (Memory::address(&mut ls), Memory::address(&mut r));
        // SAFETY: NULL, or structs of the size of the release that the table stands for.
        unsafe { lm_lock_idm(ls, r, mode, null_mut(), null_mut(), null_mut(), 0, 0) }
    }
}
