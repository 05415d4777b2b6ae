//! The end of a seed, and the violation in it.

use core::fmt;

/// The end of a seed without a violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All invariants held to the end.
    Finished,
    /// Two hosts held the lock because of faults beyond the budget; the seed ends there.
    Waived,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The invariant.
    pub invariant: &'static str,
    /// The moment, in us of the simulation's time.
    pub at: u64,
    /// The hosts and drives, with details.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.6} s: {}", self.invariant, self.at as f64 / 1e6, self.detail)
    }
}

/// The finding of a checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) invariant: &'static str,
    pub(super) detail: String,
}

/// The judgement of a checker about the present moment.
pub(super) type Verdict = Result<(), Violation>;

/// A violation of an invariant, with a formatted detail.
macro_rules! violation {
    ($invariant:expr, $($detail:tt)*) => {
        $crate::world::verdict::Violation { invariant: $invariant, detail: format!($($detail)*) }
    };
}

/// Lets a checker end with a violation unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($violation:tt)*) => {
        if !$holds {
            return Err($crate::world::verdict::violation!($($violation)*));
        }
    };
}

pub(super) use {ensure, violation};
