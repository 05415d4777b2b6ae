//! The allocator, which logs a last message before the process ends for lack of memory.
//!
//! Rust ends a process that gets no memory, with a message on standard error, where nobody looks
//! for messages of a daemon. No memory is kept in reserve: the locks in use are noted before they
//! are taken, so the next lvmlockd keeps them (docs/locking.md, "What happens when lvmlockd dies").

use super::symbols;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::alloc::{GlobalAlloc, Layout, System};

const LAST_WORD: &CStr =
    c"idm: out of memory: lvmlockd ends. The next one keeps the locks that are \
in use, if it is started before their leases end (40 s with leases of 60 s): see Restart= in \
lvmlockd.service, and give it memory";

/// The system's allocator.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Logs the last message once, without any memory. Nearly every caller ends the process then; a
/// reader of a file may go on with an error.
#[cold]
fn last_word() {
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, Ordering::Relaxed) {
        return;
    }
    match symbols::log_level() {
        // SAFETY: core's function of this name is a printf with a priority. It has a buffer of its
        // own (docs/lvmlockd-contract.md, "What core exports").
        Some(log_level) => or_end(|| unsafe {
            log_level(libc::LOG_ERR, c"%s".as_ptr(), LAST_WORD.as_ptr());
        }),
        None => {
            let text = LAST_WORD.to_bytes();
            // SAFETY: the bytes are those of a constant.
            unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        }
    }
}

/// Ends the process where `say` has not returned after a second. Where memory is short, the log may
/// block: this process, which renews no locks, would then not make room for the next one.
fn or_end(say: impl FnOnce()) {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: core's handler is put back, and does not run meanwhile.
    let before = unsafe { sigaction(Signal::SIGALRM, &action) };
    // SAFETY: the call touches no memory of ours.
    unsafe { libc::alarm(1) };
    say();
    // SAFETY: as above.
    unsafe { libc::alarm(0) };
    if let Ok(before) = before {
        // SAFETY: it was the handler before.
        let _ = unsafe { sigaction(Signal::SIGALRM, &before) };
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
    use super::*;
    use std::env;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};

    const CHILD: &str = "OUT_OF_MEMORY";

    /// Runs a test of this module again, in a process of its own.
    fn again(test: &str) -> Output {
        let name = format!("abi::memory::tests::{test}");
        Command::new(env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap()
    }

    /// Runs itself in a process that ends for lack of memory.
    #[test]
    fn a_process_that_gets_no_memory_says_so() {
        if env::var_os(CHILD).is_some() {
            let memory = Vec::<u8>::with_capacity(isize::MAX as usize / 2);
            panic!("there is memory for {}", memory.capacity());
        }
        let child = again("a_process_that_gets_no_memory_says_so");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(!child.status.success());
        assert_eq!(said.matches("idm: out of memory: lvmlockd ends.").count(), 1, "{said}");
    }

    #[test]
    fn a_log_that_takes_nothing_does_not_keep_the_process_from_its_end() {
        if env::var_os(CHILD).is_some() {
            or_end(|| {});
            std::thread::sleep(core::time::Duration::from_millis(1500));
            eprintln!("it goes on");
            or_end(|| {
                loop {
                    std::thread::park();
                }
            });
        }
        let child = again("a_log_that_takes_nothing_does_not_keep_the_process_from_its_end");
        assert_eq!(child.status.signal(), Some(libc::SIGALRM));
        assert!(String::from_utf8_lossy(&child.stderr).contains("it goes on"));
    }
}
