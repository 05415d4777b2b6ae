//! The decision whether to feed the watchdog. Pure: clock, locks and device are arguments.
//!
//! A feed lets the host run for the watchdog's timeout from that moment on. So it is allowed as
//! long as every lock in use is safe for longer than that. The policy needs to know nothing else of
//! renewal, kill commands or the reactor: a date that is not renewed expires.
//!
//! When lvmlockd dies, the kernel closes the device, and closing feeds the watchdog once more. That
//! is harmless while feeding is allowed. To make it harmless afterwards as well, the last allowed
//! feed *is* such a close ([`Step::Leave`]): a death after it adds nothing.

use crate::fencing::Feeding;
use core::time::Duration;
use idm_engine::Instant;

/// The need for the watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Date until which all locks in use or about to be taken are safe; `None` if there is none.
    pub first: Option<Instant>,
    /// Whether no lock will be taken soon.
    pub rest: bool,
}

impl Need {
    /// Whether the next step must be taken now. For a later date the planned time is early enough.
    pub fn is_more_urgent_than(&self, before: &Need) -> bool {
        let earlier = match (self.first, before.first) {
            (Some(now), Some(before)) => now < before,
            (now, before) => now.is_some() != before.is_some(),
        };
        earlier || self.rest && !before.rest
    }
}

/// A step to be taken with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Feed it; where it is closed, open and start it first.
    Feed,
    /// Feed it for the last time, by closing it without stopping it.
    Leave,
    /// Stop it and close it.
    Disarm,
}

/// The known state of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceState {
    /// Stopped.
    Off,
    /// Open; last fed at this time.
    Fed(Instant),
    /// Closed and running; last fed at this time.
    Left(Instant),
}

/// The decision and the state that it depends on.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    feeding: Feeding,
    state: DeviceState,
    idle_since: Option<Instant>,
}

impl Policy {
    /// A policy for a watchdog that this library has not started.
    pub fn new(feeding: Feeding) -> Policy {
        Policy { feeding, state: DeviceState::Off, idle_since: None }
    }

    /// A policy for a watchdog that an earlier lvmlockd left running.
    pub fn left(feeding: Feeding, now: Instant) -> Policy {
        Policy { feeding, state: DeviceState::Left(now), idle_since: None }
    }

    /// The feeding times in use.
    pub fn feeding(&self) -> &Feeding {
        &self.feeding
    }

    /// Whether the watchdog is open and fed.
    pub fn is_fed(&self) -> bool {
        matches!(self.state, DeviceState::Fed(_))
    }

    /// Whether the watchdog runs.
    pub fn is_armed(&self) -> bool {
        self.state != DeviceState::Off
    }

    /// The step to take now.
    pub fn step(&mut self, need: Need, now: Instant) -> Step {
        if let Some(first) = need.first {
            self.idle_since = None;
            let last = self.feeding.last_feed(first);
            return match now {
                now if now + self.feeding.next() <= last => Step::Feed,
                now if now <= last => Step::Leave,
                _ => Step::Wait,
            };
        }
        if self.state == DeviceState::Off {
            return Step::Wait;
        }
        // One lvm command often follows another.
        let since = *self.idle_since.get_or_insert(now);
        match need.rest || now.since(since) >= self.feeding.interval {
            true => Step::Disarm,
            false => Step::Feed,
        }
    }

    /// Records that a step was carried out, begun at `at`.
    pub fn done(&mut self, step: Step, at: Instant) {
        self.state = match step {
            Step::Wait => self.state,
            Step::Feed => DeviceState::Fed(at),
            Step::Leave => DeviceState::Left(at),
            Step::Disarm => DeviceState::Off,
        };
    }

    /// The wait before the next step if nothing changes.
    pub fn pause(&self) -> Option<Duration> {
        (self.state != DeviceState::Off).then_some(self.feeding.interval)
    }

    /// Whether the watchdog should have reset the host long ago.
    pub fn is_dead(&self, now: Instant) -> bool {
        match self.state {
            DeviceState::Off => false,
            DeviceState::Fed(at) | DeviceState::Left(at) => {
                now.since(at) > 2 * (self.feeding.timeout + self.feeding.late)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fencing::{Fencing, FencingConfig};
    use idm_engine::Timing;
    use proptest::prelude::*;

    fn fencing() -> (Timing, Fencing) {
        let timing = Timing::for_lease(Duration::from_secs(60));
        let wanted = FencingConfig { kill_time: None, watchdog: Some(None) };
        (timing, Fencing::new(&timing, wanted).unwrap())
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    const NONE: Need = Need { first: None, rest: false };

    fn safe(until: Instant) -> Need {
        Need { first: Some(until), ..NONE }
    }

    /// A kernel's watchdog and the process that opened it.
    struct Kernel {
        timeout: Duration,
        open: bool,
        /// Time at which it resets the host.
        resets: Option<Instant>,
    }

    impl Kernel {
        fn new(timeout: Duration) -> Kernel {
            Kernel { timeout, open: false, resets: None }
        }

        fn carry_out(&mut self, step: Step, now: Instant) {
            match step {
                Step::Wait => {}
                Step::Feed => (self.open, self.resets) = (true, Some(now + self.timeout)),
                Step::Leave => (self.open, self.resets) = (false, Some(now + self.timeout)),
                Step::Disarm => (self.open, self.resets) = (false, None),
            }
        }

        /// kill -9: closing an open device feeds it.
        fn opener_dies(&mut self, now: Instant) {
            if core::mem::take(&mut self.open) {
                self.resets = Some(now + self.timeout);
            }
        }

        fn has_reset(&self, now: Instant) -> bool {
            self.resets.is_some_and(|at| at <= now)
        }
    }

    #[test]
    fn a_lock_arms_and_idleness_disarms() {
        let feeding = fencing().1.watchdog.unwrap();
        let mut policy = Policy::new(feeding);
        assert_eq!((policy.step(NONE, at(0)), policy.pause()), (Step::Wait, None));
        assert_eq!(policy.step(safe(at(59_000)), at(0)), Step::Feed);
        policy.done(Step::Feed, at(0));
        assert!(policy.is_fed());
        assert_eq!(policy.pause(), Some(Duration::from_millis(2500)));
        assert_eq!(policy.step(safe(at(60_000)), at(10)), Step::Feed);
        assert_eq!(policy.step(NONE, at(20)), Step::Feed);
        assert_eq!(policy.step(NONE, at(2_519)), Step::Feed);
        assert_eq!(policy.step(NONE, at(2_520)), Step::Disarm);
        // Use in between starts the idle time anew.
        policy.step(safe(at(60_000)), at(2_521));
        assert_eq!(policy.step(NONE, at(2_522)), Step::Feed);
        assert_eq!(policy.step(Need { rest: true, ..NONE }, at(2_523)), Step::Disarm);
        policy.done(Step::Disarm, at(2_523));
        assert_eq!(policy.step(NONE, at(2_524)), Step::Wait);
    }

    #[test]
    fn the_last_feed_leaves_and_a_renewed_lock_is_fed_again() {
        let feeding = fencing().1.watchdog.unwrap();
        let mut policy = Policy::new(feeding);
        // The last feed is 12 s before the lock may be lost.
        assert_eq!(policy.step(safe(at(100_000)), at(84_500)), Step::Feed);
        policy.done(Step::Feed, at(84_500));
        assert_eq!(policy.step(safe(at(100_000)), at(84_501)), Step::Leave);
        policy.done(Step::Leave, at(84_501));
        assert_eq!(policy.step(safe(at(100_000)), at(88_001)), Step::Wait);
        assert!(!policy.is_fed() && policy.pause().is_some());
        assert_eq!(policy.step(safe(at(140_000)), at(90_000)), Step::Feed);
        // Locks are given up instead: the watchdog must be stopped, although it is closed.
        assert_eq!(policy.step(Need { rest: true, ..NONE }, at(90_000)), Step::Disarm);
        // The watchdog is never fed for a lock that is lost already.
        assert_eq!(policy.step(safe(at(0)), at(90_000)), Step::Wait);
        assert!(!policy.is_dead(at(100_000)) && policy.is_dead(at(110_000)));
    }

    proptest! {
        /// A lock that is refreshed for some time, on a host whose lvmlockd may die at any moment.
        /// Ticks are late by up to the time that the library needs to notice.
        #[test]
        fn the_host_is_reset_before_its_lock_is_lost_and_not_without_need(
            refreshed in 0u64..8,
            refresh_pauses in proptest::collection::vec(15_000u64..30_000, 8),
            lateness in proptest::collection::vec(0u64..1000, 200),
            dies_at in proptest::option::of(1u64..200_000),
        ) {
            let (timing, fencing) = fencing();
            let feeding = fencing.watchdog.unwrap();
            let device_late = feeding.late - fencing.notice;
            let mut policy = Policy::new(feeding);
            let mut kernel = Kernel::new(feeding.timeout);
            let mut refreshes = vec![at(0)];
            for pause in &refresh_pauses[..refreshed as usize] {
                let last = *refreshes.last().unwrap();
                refreshes.push(last + Duration::from_millis(*pause));
            }
            let lost_at = *refreshes.last().unwrap() + timing.lease - timing.drift;
            let first = |now: Instant| {
                let last = refreshes.iter().rev().find(|&&sent| sent <= now).unwrap();
                *last + timing.lease - timing.drift
            };
            let mut now = at(0);
            let mut late = lateness.iter().cycle();
            loop {
                let next = now + feeding.interval + Duration::from_millis(*late.next().unwrap());
                let step = policy.step(safe(first(now)), now);
                kernel.carry_out(step, now);
                policy.done(step, now);
                if let Some(dies_at) = dies_at.map(at).filter(|&dies_at| dies_at < next) {
                    kernel.opener_dies(dies_at);
                    break;
                }
                if kernel.has_reset(next) {
                    break;
                }
                now = next;
            }
            let reset = kernel.resets;
            prop_assert!(reset.is_some());
            prop_assert!(reset.unwrap() + device_late <= lost_at, "{reset:?} {lost_at:?}");
            if dies_at.is_none() {
                // And the kill command has had its time.
                let kill_done = lost_at - fencing.margin + fencing.notice + fencing.kill_time;
                prop_assert!(reset.unwrap() + fencing.notice >= kill_done, "{reset:?}");
            }
        }
    }
}
