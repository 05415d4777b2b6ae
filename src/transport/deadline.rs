//! Deadlines for the steps of a command.
//!
//! A lock engine relies on two times. A quarter of a lease after it handed a command out
//! ([`Timing::linger`]) it has the result; a quarter of a lease after the result "unknown", no part
//! of the command reaches the drive any more. [`Limits`] divides the first quarter:
//!
//! ```text
//!  submitted                                                            lease / 4
//!   |<-- wait -->|<------------- step ------------->|<- reported ->|<- notice ->|
//!   |            |                                  |              |            |
//!   must be begun by                           time-outs over   called lost   heard of it
//! ```
//!
//! The [`Deadline`] of a command is made when the command is submitted and goes with it to the
//! system call. Everything before that call (waiting for its turn, opening the device, asking
//! whether the drive has IDM, another path, an earlier try) leaves less time; a step with too
//! little time left is not begun.
//!
//! A step asks for its time-out at the last moment, and from then on the command counts as sent. A
//! caller that gives the command up learns whether it was sent, and no step begins afterwards.
//!
//! The kernel ends a command some time after its time-out: it checks time-outs once a second, and
//! then has to abort the command. The report of a command does not wait for that.

use crate::sys::clock;
use crate::sys::sync::atomic::{AtomicU8, Ordering};
use crate::sys::sync::planted;
use core::time::Duration;
use idm_engine::{Instant, Timing};
use std::sync::Arc;

/// Times that commands may take, counted from their submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest wait of a command for its turn.
    pub wait: Duration,
    /// The longest time-out.
    pub step: Duration,
    /// Time after which every time-out has ended.
    pub over: Duration,
    /// Time after which a command is reported lost, whether the kernel has returned it or not.
    pub lost: Duration,
}

impl Limits {
    /// The limits for a lease.
    pub fn new(timing: &Timing) -> Limits {
        let quarter = timing.linger;
        let (step, over) = (quarter / 2, quarter * 4 / 5);
        Limits { wait: over - step, step, over, lost: quarter * 9 / 10 }
    }

    /// The deadline of a command that is submitted now.
    pub fn deadline(&self, now: Instant) -> Deadline {
        Deadline {
            begin: now + self.wait,
            over: now + self.over,
            step: self.step,
            fate: Arc::new(AtomicU8::new(WAITS)),
            sends: true,
        }
    }
}

/// States of a command: not sent; possibly sent; given up.
const WAITS: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

/// The deadline for the steps of one command. Copies refer to the same command.
#[derive(Clone, Debug)]
pub struct Deadline {
    begin: Instant,
    over: Instant,
    step: Duration,
    fate: Arc<AtomicU8>,
    /// Whether a step with this deadline sends the command itself.
    sends: bool,
}

impl Deadline {
    /// Whether the command may begin: its first step has its whole time.
    pub fn may_begin(&self, now: Instant) -> bool {
        now < self.begin
    }

    /// The longest time-out of a step.
    pub fn step(&self) -> Duration {
        self.step
    }

    /// The time-out of a step that begins now and needs `shortest`; `None` if it must not begin any
    /// more. After this call the command may have been sent.
    pub fn timeout(&self, shortest: Duration) -> Option<Duration> {
        let left = self.over.since(clock::now());
        if left < shortest || left.is_zero() {
            return None;
        }
        let next = if self.sends { SENT } else { WAITS };
        match self.fate.compare_exchange(WAITS, next, Ordering::AcqRel, Ordering::Acquire) {
            Err(GIVEN_UP) => None,
            _ => Some(left.min(self.step).max(shortest)),
        }
    }

    /// Lets no further step begin. Returns whether the command may have been sent.
    pub fn give_up(&self) -> bool {
        if planted!(GiveUpInTwoSteps) {
            let sent = self.fate.load(Ordering::Acquire) != WAITS;
            self.fate.store(GIVEN_UP, Ordering::Release);
            return sent;
        }
        self.fate.swap(GIVEN_UP, Ordering::AcqRel) != WAITS
    }

    /// The deadline of an earlier step that does not send the command; it leaves `kept` for the
    /// command.
    pub fn keeping(&self, kept: Duration) -> Deadline {
        Deadline { over: self.over - kept, sends: false, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::virtual_time;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_default_lease_has_these_limits() {
        let limits = Limits::new(&Timing::for_lease(Duration::from_secs(60)));
        let expected =
            Limits { wait: ms(4500), step: ms(7500), over: ms(12_000), lost: ms(13_500) };
        assert_eq!(limits, expected);
    }

    #[test]
    fn limits_are_in_order_for_every_lease() {
        for lease_ms in [500, 999, 10_000, 60_000, 3_600_000] {
            let timing = Timing::for_lease(ms(lease_ms));
            let Limits { wait, step, over, lost } = Limits::new(&timing);
            assert_eq!(wait + step, over);
            assert!(wait > step / 2 && over < lost && lost < timing.linger);
        }
    }

    #[test]
    fn a_step_gets_what_is_left_and_is_not_begun_with_too_little() {
        let limits = Limits::new(&Timing::for_lease(Duration::from_secs(60)));
        let time = virtual_time();
        let deadline = limits.deadline(clock::now());
        let block_node = ms(7000);
        for (at, begins, any, seven_seconds) in [
            (0, true, Some(7500), Some(7500)),
            (4499, true, Some(7500), Some(7500)),
            (4500, false, Some(7500), Some(7500)),
            (4900, false, Some(7100), Some(7100)),
            (5001, false, Some(6999), None),
            (11_999, false, Some(1), None),
            (12_000, false, None, None),
            (60_000, false, None, None),
        ] {
            time.set(ms(at));
            assert_eq!(deadline.may_begin(clock::now()), begins, "{at}");
            assert_eq!(deadline.timeout(ms(1)), any.map(ms), "{at}");
            assert_eq!(deadline.timeout(block_node), seven_seconds.map(ms), "{at}");
        }
        time.set(ms(6000));
        assert_eq!(deadline.keeping(ms(5000)).timeout(ms(1)), Some(ms(1000)));
        assert_eq!(deadline.keeping(ms(5000)).timeout(ms(1001)), None);
        // More than a step's own time, where the kernel has no shorter time-outs and the time is
        // left.
        time.set(ms(0));
        assert_eq!(deadline.timeout(ms(9000)), Some(ms(9000)));
    }

    #[test]
    fn what_was_given_up_is_not_sent_and_what_was_sent_is_known() {
        let _time = virtual_time();
        let limits = Limits::new(&Timing::for_lease(Duration::from_secs(60)));
        let deadline = limits.deadline(clock::now());
        assert!(deadline.keeping(ms(1)).timeout(ms(1)).is_some());
        assert!(!deadline.give_up(), "an earlier step is not the command");
        assert_eq!(deadline.timeout(ms(1)), None);
        assert_eq!(deadline.keeping(ms(1)).timeout(ms(1)), None);

        let deadline = limits.deadline(clock::now());
        assert!(deadline.clone().timeout(ms(1)).is_some());
        assert!(deadline.timeout(ms(1)).is_some(), "it may be sent again");
        assert!(deadline.give_up());
        assert_eq!(deadline.timeout(ms(1)), None);
    }
}
