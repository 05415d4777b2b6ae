//! The carrier of SCSI commands to a drive.

use super::Deadline;
use super::drive::{CommandError, Data};
use idm_protocol::scsi;

/// Carries SCSI commands to one drive.
pub trait Port: Send + Sync {
    /// Runs one command. Data from the drive goes to the front of an `In` buffer; the rest of the
    /// buffer is unchanged.
    fn execute(
        &self,
        cdb: &scsi::Cdb,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<ScsiCompletion, CommandError>;

    /// Makes the drive confirm its identity before the next command: another drive may have taken
    /// its place.
    fn doubt(&self) {}
}

/// The answer of a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScsiCompletion {
    /// SCSI status.
    pub status: u8,
    /// Sense data; empty if there is none.
    pub sense: Vec<u8>,
    /// Bytes of data that were transferred.
    pub transferred: usize,
}
