//! A path to a drive, and the errors of a command that got no answer.

use super::{Deadline, RawStatus, ReserveAnswer, ReserveOrder};
use core::fmt;
use idm_protocol::{DriveCommand, Reply};

/// One path to one drive. Several threads may use it at the same time.
pub trait DrivePath: Send + Sync {
    /// Runs one command and waits for its end. A reply always comes from the drive; where none came
    /// back, the error says whether the command may have reached it. A step that could not end by
    /// the deadline is not begun.
    fn execute(
        &self,
        command: &DriveCommand,
        deadline: &Deadline,
    ) -> Result<Answer, TransportError>;

    /// Carries out an order about reservations and waits for its end, as
    /// [`execute`](DrivePath::execute) does with a command.
    fn reserve(&self, _: &ReserveOrder, _: &Deadline) -> Result<ReserveAnswer, TransportError> {
        Err(TransportError::NotSent("this path knows no reservations".to_owned()))
    }

    /// Makes the drive confirm its identity before the next command: another drive may have taken
    /// its place.
    fn doubt(&self) {}
}

/// The drive's own answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Meaning of the answer.
    pub reply: Reply,
    /// The status that was not GOOD, in the drive's own language. `None` if the data that came with
    /// GOOD makes no sense.
    pub raw: Option<RawStatus>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer { reply, raw: None }
    }
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
