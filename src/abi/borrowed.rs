//! Copying a list of core's that another thread may free at that moment.
//!
//! The kernel copies, because it refuses addresses that are not there any more, where a read of our
//! own would end lvmlockd.

use super::c::Pvs;
use core::ffi::c_void;
use core::ptr;
use std::io;

/// More PVs than lvm2 lets a VG have.
const MOST: i32 = 1 << 16;
/// The smallest page: memory does not end within one.
const PAGE: usize = 4096;
const LONGEST: usize = libc::PATH_MAX as usize;

/// A list as it was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Where the array was.
    array: usize,
    /// What was said of its length.
    pub num: i32,
    /// The paths with their ends, or as much as there may be of a path; `None` for NULL.
    pub paths: Vec<Option<Vec<u8>>>,
}

impl Copied {
    /// Whether there was an array.
    pub fn is_there(&self) -> bool {
        self.array != 0
    }
}

/// Copies the list once. `None` where it makes no sense, as when it is being replaced. What is told
/// may still be of a list that was freed: only what is copied twice alike is to be believed.
///
/// # Safety
///
/// `pvs` can be read.
pub unsafe fn copy(pvs: *const Pvs) -> Option<Copied> {
    // SAFETY: by the contract of this function. Volatile, because another thread may write it.
    let (array, num) = unsafe {
        let pvs = ptr::read_volatile(pvs);
        (pvs.path as usize, pvs.num)
    };
    if array == 0 || num <= 0 {
        return Some(Copied { array, num, paths: Vec::new() });
    }
    if num > MOST {
        return None;
    }
    let mut addresses = vec![0; num as usize * size_of::<usize>()];
    read(array, &mut addresses)?;
    let paths =
        addresses.chunks_exact(size_of::<usize>()).map(|bytes| {
            match usize::from_ne_bytes(bytes.try_into().ok()?) {
                0 => Some(None),
                address => string(address).map(Some),
            }
        });
    Some(Copied { array, num, paths: paths.collect::<Option<_>>()? })
}

/// Copies up to the end of a string, and no page further.
fn string(address: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() < LONGEST {
        let at = address.checked_add(text.len())?;
        let mut part = vec![0; (PAGE - at % PAGE).min(LONGEST - text.len())];
        read(at, &mut part)?;
        match part.iter().position(|&byte| byte == 0) {
            Some(end) => {
                text.extend(&part[..=end]);
                break;
            }
            None => text.extend(part),
        }
    }
    Some(text)
}

/// Copies memory; `None` where there is none.
fn read(address: usize, into: &mut [u8]) -> Option<()> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: into.len() };
    // SAFETY: the kernel writes to `into` only, and tells whether it can read what is at the
    // address.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    match usize::try_from(copied) {
        Ok(copied) => (copied == into.len()).then_some(()),
        Err(_) => match io::Error::last_os_error().raw_os_error() {
            // The kernel does not do that, or a filter of system calls forbids it.
            Some(libc::ENOSYS | libc::EPERM) => {
                // SAFETY: none but core's word that what its list points to is there. Pages are
                // not left.
                unsafe {
                    ptr::copy_nonoverlapping(address as *const u8, into.as_mut_ptr(), into.len())
                };
                Some(())
            }
            _ => None,
        },
    }
}
