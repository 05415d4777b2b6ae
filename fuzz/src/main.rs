//! One target with libFuzzer: `FUZZ_TARGET=vpd83 fuzz …`.
#![no_main]

use idm_fuzz::{Target, by_name};
use std::sync::OnceLock;

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        by_name(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name} is no target"))
    });
    (target.check)(data);
});
