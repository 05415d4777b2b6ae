//! The clock of leases.

use idm_engine::Instant;
#[cfg(not(all(test, feature = "shuttle")))]
use nix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// The time on CLOCK_BOOTTIME, which goes on while the host is suspended, as the drives' countdowns
/// do.
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = tests::virtual_now() {
        return now;
    }
    Instant::from_micros(boot_us())
}

#[cfg(not(all(test, feature = "shuttle")))]
fn boot_us() -> u64 {
    // Cannot fail, because the clock exists since Linux 2.6.39. In the far future every lease has
    // run out.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(core::time::Duration::MAX, core::time::Duration::from);
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Sleeps. To be called only on threads that may block.
pub fn sleep(pause: core::time::Duration) {
    #[cfg(test)]
    if tests::advance(pause) {
        return;
    }
    std::thread::sleep(pause);
}

#[cfg(all(test, feature = "shuttle"))]
use crate::sys::sync::scheduled::now as boot_us;

/// Microseconds since 1970, for timestamps that other hosts see.
pub fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub use tests::virtual_time;

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::cell::Cell;

    thread_local! {
        static TIME: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// A day after boot.
    const BEGIN: Instant = Instant::from_micros(86_400_000_000);

    pub fn virtual_now() -> Option<Instant> {
        TIME.get()
    }

    /// Advances the time of this thread if it is virtual; returns whether it is.
    pub fn advance(by: Duration) -> bool {
        let time = TIME.get().map(|now| now + by);
        TIME.set(time);
        time.is_some()
    }

    /// Guard of this thread's virtual time, which ends when this is dropped.
    pub struct VirtualTime(());

    impl VirtualTime {
        /// The time at which it began.
        pub fn begin(&self) -> Instant {
            BEGIN
        }

        /// Lets time pass.
        pub fn advance(&self, by: Duration) {
            advance(by);
        }

        /// Sets the time to `since` after the beginning.
        pub fn set(&self, since: Duration) {
            TIME.set(Some(BEGIN + since));
        }
    }

    impl Drop for VirtualTime {
        fn drop(&mut self) {
            TIME.set(None);
        }
    }

    /// Makes this thread's time virtual: only the test advances it.
    pub fn virtual_time() -> VirtualTime {
        TIME.set(Some(BEGIN));
        VirtualTime(())
    }
}
