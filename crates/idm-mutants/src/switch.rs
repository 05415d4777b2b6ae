//! The module `mutants` of an instrumented crate: which mutant is on.

extern crate std;

use core::sync::atomic::{AtomicU32, Ordering};

/// No mutant has this number: a change that was left out.
pub(crate) const NEVER: u32 = u32::MAX;
/// The environment was not asked yet.
const UNKNOWN: u32 = u32::MAX - 1;
/// Names the mutant that is on, by its number.
const VARIABLE: &str = "IDM_MUTANT";

static ACTIVE: AtomicU32 = AtomicU32::new(UNKNOWN);

/// Whether the mutant `id` is on.
#[inline(always)]
pub(crate) fn on(id: u32) -> bool {
    let active = ACTIVE.load(Ordering::Relaxed);
    active == id || (active == UNKNOWN && read() == id)
}

/// A condition, that may be taken for true, for false or for its opposite.
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

/// Code that one or more mutants change; the numbers are there for who reads the compiler's errors.
macro_rules! w {
    ($($id:literal)*, $code:expr) => {
        $code
    };
}
pub(crate) use w;
