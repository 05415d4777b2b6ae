//! Deadlines of the steps that must be taken before a lock may be lost. Arithmetic only.
//!
//! All times are counted back from a lock's `safe_until`, the time from which other hosts may take
//! it:
//!
//! ```text
//!                          margin
//!   |<--------------------------------------------------->|
//!   | notice |    kill time    | notice | interval | late |
//!            kill command      |<-----reset-------------->|
//!                                                         safe_until
//! ```
//!
//! Without a watchdog, nothing follows the kill time.

use crate::transport::Limits;
use core::time::Duration;
use idm_engine::{Instant, Timing};

/// Default time for the kill command: deactivating a VG's LVs takes seconds while udev is busy with
/// lost paths.
const KILL_TIME: Duration = Duration::from_secs(10);
/// The longest sleep of this process while it has locks. Timers stand still while the host is
/// suspended, so after a resume the leases are checked within this time.
const NOTICE: Duration = Duration::from_secs(1);
/// Delay after its timeout with which a watchdog may act: most count whole seconds.
const LATE: Duration = Duration::from_secs(1);
/// Default timeout of the watchdog.
const WATCHDOG: Duration = Duration::from_secs(10);

/// Times at which to act for a lock that cannot be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fencing {
    /// Time before `safe_until` at which the kill command is started.
    pub margin: Duration,
    /// Part of the margin that the kill command can use.
    pub kill_time: Duration,
    /// The longest delay between the time at which a step is due and its start.
    pub notice: Duration,
    /// Feeding times, where a watchdog is used.
    pub watchdog: Option<Feeding>,
}

/// Feeding times of a watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feeding {
    /// Time without a feed after which it resets the host; whole seconds.
    pub timeout: Duration,
    /// Time from one feed to the next.
    pub interval: Duration,
    /// The longest delay between the planned time of a feed and its decision.
    pub notice: Duration,
    /// The longest delay of a reset, counted from `timeout` after the decision to feed.
    pub late: Duration,
}

impl Feeding {
    /// The latest feed for a lock that is safe until `safe_until`: a feed lets the host run for
    /// `timeout`.
    pub fn last_feed(&self, safe_until: Instant) -> Instant {
        safe_until - (self.timeout + self.late)
    }

    /// The longest time from a feed to the decision on the next one.
    pub fn next(&self) -> Duration {
        self.interval + self.notice
    }
}

/// Configured values; `None` for a value that is derived from the lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FencingConfig {
    /// Time that the kill command needs.
    pub kill_time: Option<Duration>,
    /// Whether a watchdog is used, and with which timeout.
    pub watchdog: Option<Option<Duration>>,
}

impl Fencing {
    /// The times for a lease. Refuses values that cannot be kept, and names the keys of the
    /// settings.
    pub fn new(timing: &Timing, wanted: FencingConfig) -> Result<Fencing, String> {
        let lease = timing.lease;
        let notice = NOTICE.min(lease / 60);
        let kill_time = wanted.kill_time.unwrap_or(KILL_TIME.min(lease / 6));
        if kill_time.is_zero() {
            return Err("kill_time_ms = 0: the kill command needs some time".into());
        }
        let watchdog = wanted.watchdog.map(|timeout| feeding(timing, notice, timeout));
        let reset = watchdog.map_or(Duration::ZERO, |feeding| feeding.next() + feeding.late);
        let fencing = Fencing {
            margin: kill_time + notice + reset,
            kill_time,
            notice,
            watchdog: watchdog.filter(|feeding| !feeding.timeout.is_zero()),
        };
        if watchdog.is_some() && fencing.watchdog.is_none() {
            return Err(format!(
                "watchdog_timeout_s: a watchdog needs at least 1 s, and lease_ms = {} leaves less",
                lease.as_millis()
            ));
        }
        let room = room(timing);
        if fencing.margin > room {
            return Err(format!(
                "kill_time_ms = {}: the kill command has to begin {} ms before a lock may be lost, \
                 and with lease_ms = {} renewal needs all but {} ms; make the lease longer{}",
                kill_time.as_millis(),
                fencing.margin.as_millis(),
                lease.as_millis(),
                room.as_millis(),
                if watchdog.is_some() { ", or this or watchdog_timeout_s shorter" } else { "" },
            ));
        }
        if let Some(feeding) = fencing.watchdog {
            let ahead = feeding.timeout + feeding.late + feeding.next();
            if ahead > room {
                return Err(format!(
                    "watchdog_timeout_s = {}: the last feed has to be {} ms before a lock may be \
                     lost, and with lease_ms = {} renewal needs all but {} ms; make the lease \
                     longer",
                    feeding.timeout.as_secs(),
                    ahead.as_millis(),
                    lease.as_millis(),
                    room.as_millis()
                ));
            }
        }
        Ok(fencing)
    }
}

fn feeding(timing: &Timing, notice: Duration, timeout: Option<Duration>) -> Feeding {
    let whole = |time: Duration| Duration::from_secs(time.as_secs());
    let timeout = timeout.unwrap_or(whole(WATCHDOG.min(timing.lease / 6)));
    Feeding { timeout, interval: timeout / 4, notice, late: LATE + notice }
}

/// The part of a lease that renewal leaves: a failed refresh and the next one must both have had
/// their time, so that one lost command never stops the use of a VG.
fn room(timing: &Timing) -> Duration {
    let used = timing.renew + 2 * Limits::new(timing).step + timing.drift;
    timing.lease.saturating_sub(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fencing(lease_ms: u64, wanted: FencingConfig) -> Result<Fencing, String> {
        Fencing::new(&Timing::for_lease(Duration::from_millis(lease_ms)), wanted)
    }

    fn ms(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    /// The figures in docs/locking.md, "The shortest lease".
    #[test]
    fn the_kill_command_may_wait_for_the_time_outs_of_disks() {
        let waits = |kill_time| FencingConfig { kill_time: Some(kill_time), watchdog: None };
        let secs = Duration::from_secs;
        assert!(fencing(80_000, waits(secs(32))).is_ok());
        assert!(fencing(79_000, waits(secs(32))).is_err());
        assert!(fencing(60_000, FencingConfig::default()).unwrap().kill_time >= secs(10));
        assert!(fencing(20_000, FencingConfig::default()).unwrap().kill_time < secs(4));
    }

    #[test]
    fn the_default_lease_has_room_for_the_defaults() {
        let fencing = fencing(60_000, FencingConfig::default()).unwrap();
        assert_eq!(fencing.margin, Duration::from_secs(11));
        assert_eq!(fencing.kill_time, Duration::from_secs(10));
        let watched = FencingConfig { watchdog: Some(None), ..FencingConfig::default() };
        let watched = self::fencing(60_000, watched).unwrap();
        assert_eq!(watched.margin, Duration::from_millis(16_500));
        let feeding = watched.watchdog.unwrap();
        assert_eq!(feeding.timeout, Duration::from_secs(10));
        let safe_until = Instant::from_micros(100_000_000);
        assert_eq!(feeding.last_feed(safe_until), Instant::from_micros(88_000_000));
    }

    #[test]
    fn what_cannot_hold_is_refused_by_name() {
        let kill = |kill_time| FencingConfig { kill_time, watchdog: None };
        assert!(fencing(60_000, kill(ms(0))).unwrap_err().contains("kill_time_ms = 0"));
        assert!(fencing(60_000, kill(ms(23_800))).is_ok());
        let refused = fencing(60_000, kill(ms(24_000))).unwrap_err();
        assert!(refused.contains("kill_time_ms = 24000"), "{refused}");
        assert!(refused.contains("lease_ms = 60000"), "{refused}");
        let watched = |timeout| FencingConfig { kill_time: None, watchdog: Some(timeout) };
        let refused = fencing(60_000, watched(ms(20_000))).unwrap_err();
        assert!(refused.contains("watchdog_timeout_s = 20"), "{refused}");
        let refused = fencing(5_000, watched(None)).unwrap_err();
        assert!(refused.contains("watchdog_timeout_s"), "{refused}");
        let both = FencingConfig { kill_time: ms(22_000), watchdog: Some(ms(10_000)) };
        assert!(fencing(60_000, both).unwrap_err().contains("watchdog_timeout_s"));
    }

    proptest! {
        #[test]
        fn every_lease_has_room_for_the_default_kill_time(lease_ms in 500u64..3_600_000) {
            prop_assert!(fencing(lease_ms, FencingConfig::default()).is_ok());
        }

        /// For all accepted settings, the kill command has its time before the earliest reset, and
        /// the latest reset comes before the lock may be lost.
        #[test]
        fn accepted_times_are_in_order(
            lease_ms in 500u64..600_000,
            kill_ms in 1u64..100_000,
            timeout_s in proptest::option::of(1u64..100),
            delay in 0.0f64..1.0,
        ) {
            let wanted = FencingConfig {
                kill_time: ms(kill_ms),
                watchdog: Some(timeout_s.map(Duration::from_secs)),
            };
            let Ok(fencing) = fencing(lease_ms, wanted) else { return Ok(()) };
            let feeding = fencing.watchdog.unwrap();
            let safe_until = Instant::from_micros(1_000_000_000_000);
            let kill_done = safe_until - fencing.margin + fencing.notice + fencing.kill_time;
            // The last feed is at most one delayed interval before the last allowed moment.
            let fed = feeding.last_feed(safe_until) - feeding.next().mul_f64(delay);
            prop_assert!(kill_done <= fed + feeding.timeout);
            prop_assert!(fed + feeding.timeout + feeding.late <= safe_until);
            // One refresh may fail without any of this.
            let lease = Duration::from_millis(lease_ms);
            let healthy = Instant::default() + lease - lease / 500;
            let again = Instant::default() + lease / 3 + 2 * (lease / 8);
            prop_assert!(again <= healthy - fencing.margin);
            prop_assert!(again + feeding.next() <= feeding.last_feed(healthy));
        }
    }
}
