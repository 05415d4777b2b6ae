//! A path to a drive, and the errors of a command that got no answer.

use super::Deadline;
use core::fmt;
use idm_protocol::{DriveCommand, Reply};

/// One path to one drive. Several threads may use it at the same time.
pub trait DrivePath: Send + Sync {
    /// Runs one command and waits for its end. A reply always comes from the drive; where none came
    /// back, the error says whether the command may have reached it. A step that could not end by
    /// the deadline is not begun.
    fn execute(&self, command: &DriveCommand, deadline: &Deadline)
    -> Result<Reply, TransportError>;
}

/// The reason why no answer of the drive came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// The command certainly did not reach the drive.
    NotSent(String),
    /// The drive may or may not have executed the command.
    Unknown(String),
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (TransportError::NotSent(why) | TransportError::Unknown(why)) = self;
        f.write_str(why)
    }
}
