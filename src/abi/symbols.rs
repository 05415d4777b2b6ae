//! Symbols of the program that loads this library. Each may be missing, for example in a plain C
//! test program.

use super::c::{RawLockspace, Table};
use core::ffi::{c_char, c_int};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicI32, Ordering};

/// `void log_level(int level, const char *fmt, ...)`.
pub type LogLevel = unsafe extern "C" fn(c_int, *const c_char, ...);

/// Addresses that the dynamic linker fills in; a symbol that the program lacks stays NULL.
#[repr(C)]
struct Symbols {
    log_level: Option<LogLevel>,
    alloc_lockspace: Option<unsafe extern "C" fn() -> *mut RawLockspace>,
    daemon_test: Option<&'static AtomicI32>,
    gl_use_idm: Option<&'static AtomicI32>,
    layout: Option<NonNull<Table>>,
}

// SAFETY: the dynamic linker writes it before any code of ours runs, and nobody does afterwards.
unsafe impl Sync for Symbols {}

// Weak references, so that the library also loads where the symbols are missing. dlsym does not
// find them: a program that is linked without --export-dynamic exports only symbols that its
// libraries refer to (docs/lvmlockd-contract.md, "What core exports"). Rust has no stable way to
// write a weak reference.
core::arch::global_asm!(
    ".pushsection .data.rel.ro.lvmlockd_idm_symbols, \"aw\"",
    ".balign 8",
    ".globl lvmlockd_idm_symbols",
    ".hidden lvmlockd_idm_symbols",
    ".type lvmlockd_idm_symbols, %object",
    ".size lvmlockd_idm_symbols, 40",
    "lvmlockd_idm_symbols:",
    ".weak log_level",
    ".quad log_level",
    ".weak alloc_lockspace",
    ".quad alloc_lockspace",
    ".weak daemon_test",
    ".quad daemon_test",
    ".weak gl_use_idm",
    ".quad gl_use_idm",
    ".weak lvmlockd_idm_layout",
    ".quad lvmlockd_idm_layout",
    ".popsection",
);

const _: () = assert!(size_of::<Symbols>() == 40);

unsafe extern "C" {
    #[link_name = "lvmlockd_idm_symbols"]
    static SYMBOLS: Symbols;
}

fn symbols() -> &'static Symbols {
    // SAFETY: defined above with this size and alignment, and never written by us.
    unsafe { &SYMBOLS }
}

/// The program's log function.
pub fn log_level() -> Option<LogLevel> {
    symbols().log_level
}

/// The layout table of `lvm2/lvmlockd-idm.c`.
pub fn layout_table() -> Option<NonNull<Table>> {
    symbols().layout
}

/// A new, empty lockspace from core. Its caller frees it with libc's `free`.
pub fn alloc_lockspace() -> Option<NonNull<RawLockspace>> {
    let alloc = symbols().alloc_lockspace?;
    // SAFETY: core's function of this name takes no argument, allocates and initialises; it is
    // safe at any time (docs/lvmlockd-contract.md, "What core exports").
    NonNull::new(unsafe { alloc() })
}

/// Whether lvmlockd was started with `--test`.
pub fn daemon_test() -> bool {
    is_set(symbols().daemon_test)
}

/// Whether idm is the type of the global lock.
pub fn gl_use_idm() -> bool {
    is_set(symbols().gl_use_idm)
}

/// Whether a flag is set. Core writes its flags as plain ints, from other threads.
fn is_set(flag: Option<&AtomicI32>) -> bool {
    flag.is_some_and(|flag| flag.load(Ordering::Relaxed) != 0)
}
