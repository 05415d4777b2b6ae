//! A refusal, with the earlier answers of each drive.

use core::time::Duration;
use idm_engine::{DriveRef, Refusal};
use idm_protocol::{Mode, Status};

/// A refusal of the engine, with its causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The refusal.
    pub refusal: Refusal,
    /// The request that was refused.
    pub asked: AskedFor,
    /// Answers of each drive of the request until then.
    pub drives: Vec<DriveReport>,
}

/// Aim of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedFor {
    /// The lock in this mode, or a change to this mode.
    Mode(Mode),
    /// The lock that an earlier life of this host left.
    Adoption,
}

/// Last answers of a drive to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveReport {
    /// The drive.
    pub drive: DriveRef,
    /// Whether it votes on the lock.
    pub votes: bool,
    /// The answer to the last command that tried to take the lock.
    pub command: Option<Status>,
    /// The answer to the last read of its table, GOOD if a table came.
    pub read: Option<Status>,
    /// Time for which it has owed an answer.
    pub silent: Option<Duration>,
}

impl DriveReport {
    /// A drive without an answer.
    pub fn new(drive: DriveRef, votes: bool) -> DriveReport {
        DriveReport { drive, votes, command: None, read: None, silent: None }
    }
}
