//! Worlds in which callers follow a script.

use crate::ids::{DriveSet, HostIx};
use crate::plan::Plan;
use idm_protocol::Mode;

/// A step of a caller's script, for the only lock of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Requests the lock.
    Acquire(HostIx, Mode),
    /// Requests, after a restart, the adoption of the earlier life's lock in a mode.
    Adopt(HostIx, Mode),
    /// Gives the lock back.
    Release(HostIx),
    /// Puts the lock on these drives, and gives them the vote.
    Spread(HostIx, DriveSet),
}

/// A plan with its faults as planned, and the steps of its callers.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The hosts, drives, times and faults.
    pub plan: Plan,
    /// The steps of the callers, each with its moment in us.
    pub steps: Vec<(u64, Step)>,
    /// The end, in us.
    pub end: u64,
}
