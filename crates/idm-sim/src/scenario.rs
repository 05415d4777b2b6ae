//! Worlds in which callers do what they are told, when they are told.

use crate::ids::{DriveSet, HostIx};
use crate::plan::Plan;
use idm_protocol::Mode;

/// Something that a caller is told to do, with the only lock there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for the lock.
    Acquire(HostIx, Mode),
    /// Ask, after a restart, for what an earlier life of the host held in a mode.
    Adopt(HostIx, Mode),
    /// Give the lock back.
    Release(HostIx),
    /// Put the lock on these drives, and let them vote.
    Spread(HostIx, DriveSet),
}

/// A plan, whose faults come as they are planned, and what callers do in it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The hosts, drives, times and faults.
    pub plan: Plan,
    /// What callers do, and when, in us.
    pub steps: Vec<(u64, Step)>,
    /// When it ends, in us.
    pub end: u64,
}
