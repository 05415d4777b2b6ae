//! Linker settings of the shared library.
//!
//! The exported names need none: rustc exports the `lm_*_idm` functions of `src/entry.rs` and
//! hides everything else.

/// The number changes only if a function changes that lvmlockd calls. Without a soname a program
/// would ask for the bare file name that it was linked with.
const SONAME: &str = "liblvmlockd_idm.so.0";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in [
        &format!("-Wl,-soname,{SONAME}"),
        // Each function has the soname as its version. rustc passes a version script of its own,
        // beside which none with named versions is allowed; this option has the same effect.
        "-Wl,--default-symver",
        // The option is GNU ld's; some toolchains prefer another linker.
        "-fuse-ld=bfd",
        // Debuggers find separate debug information by it. Not every compiler asks for one.
        "-Wl,--build-id=sha1",
    ] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
