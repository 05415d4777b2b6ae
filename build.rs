//! Linker settings of the shared library.
//!
//! The exported names need none: rustc exports the `lm_*_idm` functions of `src/entry.rs` and
//! hides everything else.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The number changes only if a function changes that lvmlockd calls. Without a soname a program
    // would ask for the bare file name that it was linked with.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,liblvmlockd_idm.so.0");
}
