//! A refusal, and what each drive had said by then.

use core::time::Duration;
use idm_engine::{DriveRef, Refusal};
use idm_protocol::{Mode, Status};

/// A refusal of the engine, with what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The refusal.
    pub refusal: Refusal,
    /// The request that was refused.
    pub asked: AskedFor,
    /// What each drive of the request had said by then.
    pub drives: Vec<DriveReport>,
}

/// What a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedFor {
    /// The lock in this mode, or a change to this mode.
    Mode(Mode),
    /// What an earlier life of this host left.
    Adoption,
}

/// What a drive last said of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveReport {
    /// The drive.
    pub drive: DriveRef,
    /// Whether it votes on the lock.
    pub votes: bool,
    /// The answer to the last command that was to take the lock.
    pub command: Option<Status>,
    /// The answer to the last read of its table, GOOD if a table came.
    pub read: Option<Status>,
    /// Time for which it has owed an answer.
    pub silent: Option<Duration>,
}

impl DriveReport {
    /// A drive that has said nothing.
    pub fn new(drive: DriveRef, votes: bool) -> DriveReport {
        DriveReport { drive, votes, command: None, read: None, silent: None }
    }
}
