//! A copy of one of core's lists that another thread may free at that moment.
//!
//! The kernel makes the copy: it refuses addresses that do not exist any more, while a direct read
//! would crash lvmlockd.

use super::c::Pvs;
use core::ffi::c_void;
use core::ptr;
use std::io;

/// A number of PVs beyond lvm2's limit for a VG.
const MOST: i32 = 1 << 16;
/// The smallest page size: memory never ends within a page.
const PAGE: usize = 4096;
const LONGEST: usize = libc::PATH_MAX as usize;

/// The copy of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Address of the array.
    array: usize,
    /// Length as stated in the struct.
    pub num: i32,
    /// Paths with their terminators, each cut at the longest possible path; `None` for NULL.
    pub paths: Vec<Option<Vec<u8>>>,
}

impl Copied {
    /// Whether there was an array.
    pub fn is_there(&self) -> bool {
        self.array != 0
    }
}

/// Copies the list once. `None` if the list is inconsistent, for example while core replaces it.
/// The result may still come from a freed list: only two equal copies can be trusted.
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

/// Copies a string up to its end, reading no page beyond it.
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

/// Copies memory; `None` if the address does not exist.
fn read(address: usize, into: &mut [u8]) -> Option<()> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: into.len() };
    // SAFETY: the kernel writes only to `into`, and reports whether it can read the address.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    match usize::try_from(copied) {
        Ok(copied) => (copied == into.len()).then_some(()),
        Err(_) => match io::Error::last_os_error().raw_os_error() {
            // The kernel lacks this call, or a system call filter forbids it.
            Some(libc::ENOSYS | libc::EPERM) => {
                // SAFETY: only core promises that the memory that its list points to exists. No
                // read crosses a page.
                unsafe {
                    ptr::copy_nonoverlapping(address as *const u8, into.as_mut_ptr(), into.len())
                };
                Some(())
            }
            _ => None,
        },
    }
}
