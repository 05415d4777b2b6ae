//! The allocator, which has a last word before the process ends for want of memory.
//!
//! Rust ends a process that gets no memory, with a message on standard error, where nobody looks
//! for a daemon's. Nothing is held in reserve: the locks in use are noted before they are taken, so
//! the next lvmlockd keeps them (docs/locking.md, "What happens when lvmlockd dies").

use super::symbols;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering};
use std::alloc::{GlobalAlloc, Layout, System};

const LAST_WORD: &CStr =
    c"idm: out of memory: lvmlockd ends. The next one keeps the locks that are \
in use, if it is started before their leases end (40 s with leases of 60 s): see Restart= in \
lvmlockd.service, and give it memory";

/// The system's allocator.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Logs the last word once, without any memory. The caller is about to end the process.
#[cold]
fn last_word() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, Ordering::Relaxed) {
        return;
    }
    match symbols::log_level() {
        // SAFETY: core's function of this name is a printf with a priority. It has a buffer of its
        // own (docs/lvmlockd-contract.md, "What core exports").
        Some(log_level) => unsafe {
            log_level(libc::LOG_ERR, c"%s".as_ptr(), LAST_WORD.as_ptr());
        },
        None => {
            let text = LAST_WORD.to_bytes();
            // SAFETY: the bytes are those of a constant.
            unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        }
    }
}

fn or_last_word(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        last_word();
    }
    memory
}

// SAFETY: every function is the system allocator's, with the same arguments and result.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the contract of this function.
        or_last_word(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the contract of this function.
        or_last_word(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by the contract of this function.
        or_last_word(unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: by the contract of this function.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    const CHILD: &str = "OUT_OF_MEMORY";

    /// Runs itself in a process of its own, which ends for want of memory.
    #[test]
    fn a_process_that_gets_no_memory_says_so() {
        if env::var_os(CHILD).is_some() {
            let memory = Vec::<u8>::with_capacity(isize::MAX as usize / 2);
            panic!("there is memory for {}", memory.capacity());
        }
        let name = "abi::memory::tests::a_process_that_gets_no_memory_says_so";
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success());
        assert_eq!(said.matches("idm: out of memory: lvmlockd ends.").count(), 1, "{said}");
    }
}
