//! Lockspaces that an earlier lvmlockd left behind, in the form that core expects.

use super::Layout;
use super::c::{ListHead, Pvs, RawLockspace};
use super::symbols;
use super::views::{GLOBAL_LOCKSPACE, NAME_SIZE, lockspace};
use crate::error::Error;
use crate::state::store::SavedLockspace;
use core::ffi::{c_char, c_int};
use core::ptr::{self, NonNull};
use std::ffi::CString;

/// `LVM_LS_PREFIX`.
const VG_PREFIX: &str = "lvm_";
/// `LD_LM_IDM`.
const IDM: i8 = 4;
/// Offset of `lm_type` since 2.03.28. Older releases never ask for lockspaces.
const LM_TYPE: usize = 275;
/// Offsets of `pvs` in these releases.
const PVS: core::ops::RangeInclusive<usize> = 304..=312;

/// Adds a `struct lockspace` to core's list, which owns it from now on.
///
/// # Safety
///
/// `list` is a list of core's that nobody else uses meanwhile.
pub unsafe fn add_found(
    list: *mut ListHead,
    layout: &Layout,
    found: &SavedLockspace,
) -> Result<(), Error> {
    if !PVS.contains(&layout.lockspace_pvs) {
        return Err(Error::NotRunning("this lvmlockd cannot adopt IDM locks".into()));
    }
    let name = match found.name.as_str() {
        "" => GLOBAL_LOCKSPACE.to_owned(),
        vg => format!("{VG_PREFIX}{vg}"),
    };
    for text in [&name, &found.name, &found.uuid] {
        if text.len() >= NAME_SIZE || text.contains('\0') {
            return Err(Error::Invalid(format!("{text:?} is no name of a lockspace")));
        }
    }
    let paths: Result<Vec<CString>, _> = found.paths.iter().map(|p| CString::new(&**p)).collect();
    let paths = paths.map_err(|error| Error::Invalid(error.to_string()))?;
    let space = symbols::alloc_lockspace().ok_or_else(|| Error::NotRunning("no memory".into()))?;
    // SAFETY: a new lockspace of this layout that nobody else knows; each text fits with its
    // terminator, which is there already, because core has cleared the whole struct. The list is
    // core's, by the contract of this function.
    unsafe {
        let base = space.as_ptr().cast::<u8>();
        write_text(base.add(lockspace::NAME), &name);
        write_text(base.add(lockspace::VG_NAME), &found.name);
        write_text(base.add(lockspace::VG_UUID), &found.uuid);
        base.add(LM_TYPE).cast::<i8>().write(IDM);
        base.add(layout.lockspace_pvs).cast::<Pvs>().write(pvs_of(&paths));
        append(list, space);
    }
    Ok(())
}

/// # Safety
///
/// `to` has room for the text.
unsafe fn write_text(to: *mut u8, text: &str) {
    // SAFETY: by the contract of this function.
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), to, text.len()) };
}

/// A list from malloc, in core's form. Shorter, or empty, where memory runs out.
fn pvs_of(paths: &[CString]) -> Pvs {
    // SAFETY: plain allocations of C's; every entry that is counted was written.
    unsafe {
        let path: *mut *mut c_char =
            libc::calloc(paths.len().max(1), size_of::<*mut c_char>()).cast();
        let mut num = 0;
        if !path.is_null() {
            for text in paths {
                let copy = libc::strdup(text.as_ptr());
                if copy.is_null() {
                    break;
                }
                path.add(num).write(copy);
                num += 1;
            }
        }
        Pvs { path, num: num as c_int }
    }
}

/// `list_add_tail`: `list` is the first member of a lockspace.
///
/// # Safety
///
/// `head` is a list, and `item` is not on one.
unsafe fn append(head: *mut ListHead, item: NonNull<RawLockspace>) {
    let item: *mut ListHead = item.as_ptr().cast();
    // SAFETY: by the contract of this function, and every node of a list is one.
    unsafe {
        let last = (*head).prev;
        *item = ListHead { next: head, prev: last };
        (*last).next = item;
        (*head).prev = item;
    }
}
