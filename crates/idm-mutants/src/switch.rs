//! The module `mutants` of an instrumented crate: the switch of the mutant that is on.

extern crate std;

use core::sync::atomic::{AtomicU32, Ordering};

/// A number that no mutant has, for a change that was left out.
pub(crate) const NEVER: u32 = u32::MAX;
/// Value before the environment was read.
const UNKNOWN: u32 = u32::MAX - 1;
/// Environment variable with the number of the mutant that is on.
const VARIABLE: &str = "IDM_MUTANT";

static ACTIVE: AtomicU32 = AtomicU32::new(UNKNOWN);

/// Whether the mutant `id` is on.
#[inline(always)]
pub(crate) fn on(id: u32) -> bool {
    let active = ACTIVE.load(Ordering::Relaxed);
    active == id || (active == UNKNOWN && read() == id)
}

/// A condition that may be replaced by true, by false or by its opposite.
#[inline(always)]
pub(crate) fn condition(always: u32, never: u32, opposite: u32, value: bool) -> bool {
    if value { !on(never) && !on(opposite) } else { on(always) || on(opposite) }
}

#[cold]
fn read() -> u32 {
    let active = std::env::var(VARIABLE).ok().and_then(|id| id.parse().ok()).unwrap_or(0);
    ACTIVE.store(active, Ordering::Relaxed);
    active
}

/// Code that one or more mutants change; the numbers help the reader of compiler errors.
macro_rules! w {
    ($($id:literal)*, $code:expr) => {
        $code
    };
}
pub(crate) use w;
