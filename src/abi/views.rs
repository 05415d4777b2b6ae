//! Reading core's structs: raw addresses in, plain values out.
//!
//! Fields that never moved are read at fixed offsets (contract, sections 2.1 to 2.3), the others
//! through the [`Layout`]. Everything is copied at once; nothing here keeps a pointer for later.

use super::Layout;
use super::c::{Lockspace, Pvs, Resource};
use crate::error::Error;
use crate::manager::{LockspaceKey, ResourceKey, Scope};
use core::ffi::{c_char, c_int};
use core::fmt;
use core::ptr::{self, NonNull};
use idm_protocol::Mode;

/// `char name[MAX_NAME + 1]` and its like.
const NAME_SIZE: usize = 65;

/// Offsets in `struct lockspace`.
mod lockspace {
    pub const NAME: usize = 16;
    pub const VG_NAME: usize = 81;
    pub const VG_UUID: usize = 146;
    /// The one array that is not 65 bytes long.
    pub const VG_UUID_SIZE: usize = 64;
}

/// Offsets in `struct resource`.
mod resource {
    pub const NAME: usize = 16;
    pub const TYPE: usize = 81;
    /// The byte with the `test_remote_*` bits of 2.03.40; in older releases it is padding or
    /// unused bits, which are zero because core clears the whole struct (contract, section 2.2).
    pub const FLAGS: usize = 100;
    pub const TEST_REMOTE_EX: u8 = 1 << 4;
    pub const TEST_REMOTE_SH: u8 = 1 << 5;
}

/// `S_NAME_GL_IDM`: the lockspace of the global lock.
const GLOBAL_LOCKSPACE: &str = "lvm_global";

/// A `struct lockspace` during one call.
#[derive(Clone, Copy)]
pub struct LockspaceView {
    base: NonNull<u8>,
}

impl LockspaceView {
    /// # Safety
    ///
    /// `ls` is NULL or points to a `struct lockspace` that stays as long as the view.
    pub unsafe fn new(ls: *mut Lockspace) -> Result<LockspaceView, Error> {
        match NonNull::new(ls.cast()) {
            Some(base) => Ok(LockspaceView { base }),
            None => Err(Error::Invalid("lvmlockd passed no lockspace".into())),
        }
    }

    /// The name that our state goes by.
    pub fn key(self) -> LockspaceKey {
        LockspaceKey(self.base.as_ptr() as usize)
    }

    /// `lvm_global` or `lvm_` and the VG's name.
    fn name(self) -> Result<String, Error> {
        self.string(lockspace::NAME, NAME_SIZE, "lockspace name")
    }

    /// What the lockspace is for, with its PVs as they are now.
    pub fn scope(self, layout: &Layout) -> Result<Scope, Error> {
        let name = self.string(lockspace::VG_NAME, NAME_SIZE, "VG name")?;
        if name.is_empty() {
            return match self.name()?.as_str() {
                GLOBAL_LOCKSPACE => Ok(Scope::Global),
                other => Err(Error::Invalid(format!("lockspace {other} is of no VG"))),
            };
        }
        Ok(Scope::Vg {
            name,
            uuid: self.string(lockspace::VG_UUID, lockspace::VG_UUID_SIZE, "VG uuid")?,
            pvs: self.pvs(layout)?,
        })
    }

    /// Paths of the VG's PVs; none for the global lockspace.
    ///
    /// A repeated start of the VG replaces the list from another thread, without a lock that we
    /// could take (contract, section 8). So it is copied as quickly as possible, and again if it was
    /// replaced meanwhile.
    pub fn pvs(self, layout: &Layout) -> Result<Vec<String>, Error> {
        loop {
            // SAFETY: the layout was checked against this release of lvmlockd, and the contract of
            // `new` covers the struct. Volatile, because another thread may write it.
            let (before, copy, after) = unsafe {
                let pvs: *const Pvs = self.base.add(layout.lockspace_pvs).cast().as_ptr();
                let before = ptr::read_volatile(pvs);
                let copy = copy_pvs(&before);
                (before, copy, ptr::read_volatile(pvs))
            };
            if (before.path, before.num) == (after.path, after.num) {
                return copy;
            }
        }
    }

    fn string(self, offset: usize, size: usize, what: &str) -> Result<String, Error> {
        // SAFETY: the field is inside the struct, by the contract of `new`.
        unsafe { bounded_string(self.base.as_ptr().add(offset).cast(), size, what) }
    }
}

/// The name, for the log, whatever it is.
impl fmt::Display for LockspaceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().as_deref().unwrap_or("?"))
    }
}

/// What a `struct resource` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    /// `LD_RT_GL`.
    Global,
    /// `LD_RT_VG`.
    Vg,
    /// `LD_RT_LV`.
    Lv,
}

/// A `struct resource` during one call.
#[derive(Clone, Copy)]
pub struct ResourceView {
    base: NonNull<u8>,
}

impl ResourceView {
    /// # Safety
    ///
    /// `r` is NULL or points to a `struct resource` that stays as long as the view.
    pub unsafe fn new(r: *mut Resource) -> Result<ResourceView, Error> {
        match NonNull::new(r.cast()) {
            Some(base) => Ok(ResourceView { base }),
            None => Err(Error::Invalid("lvmlockd passed no resource".into())),
        }
    }

    /// The name that our state goes by.
    pub fn key(self) -> ResourceKey {
        ResourceKey(self.base.as_ptr() as usize)
    }

    /// `GLLK`, `VGLK` or the LV's uuid.
    fn name(self) -> Result<String, Error> {
        // SAFETY: the field is inside the struct, by the contract of `new`.
        unsafe {
            let name = self.base.as_ptr().add(resource::NAME);
            bounded_string(name.cast(), NAME_SIZE, "resource name")
        }
    }

    /// What it stands for.
    pub fn resource_type(self) -> Result<ResourceType, Error> {
        match self.byte(resource::TYPE) {
            1 => Ok(ResourceType::Global),
            2 => Ok(ResourceType::Vg),
            3 => Ok(ResourceType::Lv),
            other => Err(Error::Invalid(format!("resource type {other} is unknown"))),
        }
    }

    /// Whether a test has set another host as holder in a mode that excludes `mode`
    /// (`lvmlockctl --set-remote-lv-lock`, test mode of lvm2 2.03.40).
    pub fn test_remote_excludes(self, mode: Mode) -> bool {
        let flags = self.byte(resource::FLAGS);
        flags & resource::TEST_REMOTE_EX != 0
            || flags & resource::TEST_REMOTE_SH != 0 && mode == Mode::Exclusive
    }

    fn byte(self, offset: usize) -> u8 {
        // SAFETY: the field is inside the struct, by the contract of `new`.
        unsafe { *self.base.as_ptr().add(offset) }
    }
}

/// The name, for the log, whatever it is.
impl fmt::Display for ResourceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().as_deref().unwrap_or("?"))
    }
}

/// A lock mode of core's.
pub fn mode(ld_mode: c_int) -> Result<Mode, Error> {
    match ld_mode {
        2 => Ok(Mode::Shared),
        3 => Ok(Mode::Exclusive),
        other => Err(Error::Invalid(format!("lock mode {other} is unknown"))),
    }
}

/// The uuid of an LV that is to be locked.
///
/// # Safety
///
/// `uuid` is NULL or a string.
pub unsafe fn lv_uuid(uuid: *const c_char) -> Result<String, Error> {
    // SAFETY: by the contract of this function.
    unsafe { bounded_string(uuid, NAME_SIZE, "LV uuid") }
}

/// Takes the PV paths of an LV request out of the action that `pvs` belongs to.
///
/// Core frees them twice if the client disconnects while the request is in progress and the lock
/// is then granted: it copies the whole action for the unlock, and with it the pointers. It does
/// not look at the paths of an LV request again, so with an empty list there is nothing left to
/// free twice (contract, section 0, item 8).
///
/// # Safety
///
/// `pvs` is NULL or points to a `struct pvs` whose strings and array come from malloc and have no
/// other owner.
pub unsafe fn take_pvs(pvs: *mut Pvs) -> Result<Vec<String>, Error> {
    if pvs.is_null() {
        return Ok(Vec::new());
    }
    let empty = Pvs { path: ptr::null_mut(), num: 0 };
    // SAFETY: by the contract of this function; the strings are freed after they were copied, and
    // nobody else finds them any more.
    unsafe {
        let taken = ptr::replace(pvs, empty);
        let copy = copy_pvs(&taken);
        if !taken.path.is_null() {
            for i in 0..usize::try_from(taken.num).unwrap_or(0) {
                libc::free((*taken.path.add(i)).cast());
            }
            libc::free(taken.path.cast());
        }
        copy
    }
}

/// Copies the paths. Empty where there is no array, whatever its length is said to be.
///
/// # Safety
///
/// The array is NULL or has `num` entries, each NULL or a string.
unsafe fn copy_pvs(pvs: &Pvs) -> Result<Vec<String>, Error> {
    if pvs.path.is_null() {
        return Ok(Vec::new());
    }
    let Ok(count) = usize::try_from(pvs.num) else {
        return Err(Error::Invalid(format!("a list of {} PVs", pvs.num)));
    };
    (0..count)
        // SAFETY: by the contract of this function.
        .map(|i| unsafe { bounded_string(*pvs.path.add(i), libc::PATH_MAX as usize, "PV path") })
        .collect()
}

/// Copies a string that ends within `size` bytes. `what` names it in the error.
///
/// # Safety
///
/// `text` is NULL, or is readable up to its terminator or `size` bytes, whichever comes first.
unsafe fn bounded_string(text: *const c_char, size: usize, what: &str) -> Result<String, Error> {
    if text.is_null() {
        return Err(Error::Invalid(format!("lvmlockd passed no {what}")));
    }
    // SAFETY: by the contract of this function; strnlen reads no further than that.
    let bytes = unsafe {
        let length = libc::strnlen(text, size);
        core::slice::from_raw_parts(text.cast::<u8>(), length)
    };
    if bytes.len() == size {
        return Err(Error::Invalid(format!("the {what} is too long")));
    }
    match core::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Error::Invalid(format!("the {what} is not UTF-8: {}", bytes.escape_ascii()))),
    }
}
