//! Giving the mutex back on one drive: UNLOCK, and DESTROY unless the mutex keeps a value.
//!
//! A host that knows that the drive's value is wrong gives the mutex back only as its exclusive
//! holder: it is not known whether a drive stores a value on the UNLOCK of a shared lock. So the
//! record of such a host stays beside those of other sharers (docs/locking.md, "The value").
//!
//! The task goes on until the drive has answered, or until every lease that this host may have
//! there is over. A new acquisition replaces the task. It waits for a command that is on its way,
//! and a command that may still arrive bars the drive (see [`Replica::counts`]).

use crate::api::{Instant, Timing};
use crate::replica::{Clean, Hold, Replica, Step, Task};
use core::time::Duration;
use idm_protocol::{Mode, Status, Value};

/// The first pause before a drive that did not take an UNLOCK is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause before this host asks again whether the other sharers of a drive have gone.
const SHARERS_PAUSE: Duration = Duration::from_secs(1);
/// Replies to UNLOCK without sense after which the lease is left to expire.
const REFUSALS: u8 = 4;
/// The number of DESTROY commands sent to a drive that does not answer. Afterwards a mutex that
/// nobody holds stays behind.
const DESTROYS: u8 = 4;

impl Clean {
    /// Marks the value for removal: the next holder must not believe the value of a holder that
    /// died. A destroyed mutex should lose its value, but only an overwritten value is gone for
    /// sure.
    pub(crate) fn erase(&mut self) {
        self.worthless = true;
        if self.keeps_value && self.store.is_none() {
            self.store = Some(Value::ZERO);
        }
    }
}

impl Replica {
    /// Begins to give the mutex back, if this host may have it.
    pub(crate) fn start_clean(&mut self, mut clean: Clean, now: Instant, timing: &Timing) {
        clean.until = self.over_at(timing);
        if let Hold::Held { mode, .. } = self.hold {
            clean.mode = mode;
        }
        let exclusive = matches!(self.hold, Hold::Held { mode: Mode::Exclusive, .. });
        clean.must_store = clean.store.is_some() && exclusive;
        if !matches!(self.hold, Hold::Held { .. }) {
            // A command on its way may arrive after others have had the lock and published
            // something newer. The value of this release must not overwrite that; zero is safe.
            clean.store = clean.store.map(|_| Value::ZERO);
        }
        self.failures = 0;
        self.assign(Task::Clean(clean));
        self.plan_clean(now);
    }

    /// Acts on the reply to `step`.
    pub(crate) fn advance_clean(
        &mut self,
        step: Step,
        status: Status,
        now: Instant,
        timing: &Timing,
    ) {
        let until = self.over_at(timing);
        let Task::Clean(clean) = &mut self.task else {
            return;
        };
        let mut pause_limit = timing.renew;
        let mut waits = retryable(status);
        match (step, status) {
            (Step::Refresh(_), Status::Good) => {
                clean.mode = Mode::Exclusive;
                clean.until = until;
            }
            (Step::Refresh(_), _) => {
                if !waits {
                    // A host that waits for the lock gets it soon after the other sharers have
                    // gone.
                    pause_limit = pause_limit.min(SHARERS_PAUSE);
                }
                waits = true;
                clean.refusals += u8::from(is_nonsense(status));
            }
            (Step::Unlock(_), Status::Good) => {
                let zero = clean.store == Some(Value::ZERO);
                clean.destroy = zero || (clean.worthless && clean.store.is_none());
            }
            // Some firmware requires the class under which it knows the lock.
            (Step::Unlock(mode), Status::Terminated | Status::WrongState) => {
                clean.refusals += 1;
                clean.mode = match mode {
                    Mode::Shared => Mode::Exclusive,
                    Mode::Exclusive => Mode::Shared,
                };
            }
            (Step::Unlock(_), status) if is_nonsense(status) => clean.refusals += 1,
            // Another host uses the mutex or has removed it: both are fine.
            (Step::Destroy, _) => clean.destroy &= retryable(status),
            _ => {}
        }
        let at = if waits || clean.refusals > 0 {
            let at = now + self.pause(PAUSE, pause_limit);
            self.failures = self.failures.saturating_add(1);
            at
        } else {
            self.failures = 0;
            now
        };
        self.plan_clean(at);
    }

    /// Plans the next command, or ends the task. Also called after the time has expired.
    pub(crate) fn plan_clean(&mut self, at: Instant) {
        let surely_exclusive = self.is_surely_exclusive();
        let Task::Clean(clean) = &mut self.task else { return };
        let strays = self.stray_until > at;
        let owes = self.stale_value || self.disproved;
        if owes {
            if self.stale_value {
                clean.erase();
            }
            clean.must_store = clean.store.is_some();
        }
        if let Hold::Held { .. } = self.hold {
            clean.exclusive = surely_exclusive && clean.mode == Mode::Exclusive;
        }
        if strays {
            // A TRYLOCK of this host may still arrive after others have had the lock. A value
            // stored after that TRYLOCK could overwrite something newer; zero is safe. A drive that
            // was already unlocked has its value, unless that is wrong.
            let stores = owes || clean.worthless || self.hold != Hold::None;
            clean.store = clean.store.filter(|_| stores).map(|_| Value::ZERO);
        }
        let over = at >= clean.until || clean.refusals >= REFUSALS;
        let mode = match self.hold {
            Hold::Held { mode, .. } if clean.refusals == 0 => mode,
            _ => clean.mode,
        };
        let step = match self.hold {
            _ if over => None,
            // A TRYLOCK is on its way: its reply decides.
            Hold::None if self.flight.is_some() => return,
            Hold::None if clean.destroy && self.failures < DESTROYS => Some((Step::Destroy, at)),
            // A TRYLOCK that was given up may still arrive: unlock after it.
            Hold::None if strays => Some((Step::Unlock(mode), self.stray_until)),
            Hold::None => None,
            Hold::Held { .. } | Hold::Maybe { .. } if clean.must_store && !clean.exclusive => {
                let shares_until = self.demote_until.max(clean.earlier_shares_until);
                Some((Step::Refresh(Mode::Exclusive), at.max(shares_until)))
            }
            Hold::Held { .. } | Hold::Maybe { .. } => Some((Step::Unlock(mode), at)),
        };
        match step {
            Some((step, at)) => self.plan(step, at),
            None => {
                if over {
                    self.hold = Hold::None;
                }
                self.assign(Task::Idle);
            }
        }
    }
}

/// Whether an answer to UNLOCK or REFRESH makes no sense.
fn is_nonsense(status: Status) -> bool {
    matches!(status, Status::Failed | Status::Unsupported | Status::Full(_))
}

/// Whether the command may succeed later.
fn retryable(status: Status) -> bool {
    matches!(status, Status::TryAgain | Status::Unreachable | Status::Uncertain)
}
