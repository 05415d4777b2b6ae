//! The clock of leases.

use idm_engine::Instant;
#[cfg(not(all(test, feature = "shuttle")))]
use nix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// CLOCK_BOOTTIME: goes on while the host is suspended, as the drives' countdowns do.
pub fn now() -> Instant {
    Instant::from_micros(boot_us())
}

#[cfg(not(all(test, feature = "shuttle")))]
fn boot_us() -> u64 {
    // Cannot fail: the clock exists since Linux 2.6.39. In the far future every lease has run out.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(core::time::Duration::MAX, core::time::Duration::from);
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(all(test, feature = "shuttle"))]
use crate::sync::scheduled::now as boot_us;

/// Microseconds since 1970, for timestamps that other hosts see.
pub fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
