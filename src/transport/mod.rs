//! How commands reach a drive.
//!
//! [`DrivePath`] is one way to one drive. [`scsi`] turns a command into CDBs and what came back
//! into a reply, a [`scsi::Port`] carries them.

#[cfg(feature = "emulator")]
mod emulated;
pub mod scsi;
mod scsi_node;
mod sg_io;

use crate::topology::{Target, Topology};
use core::fmt;
use core::time::Duration;
use idm_protocol::{DriveCommand, Reply};
use std::sync::Arc;

/// One way to one drive. Several threads may use it at the same time.
pub trait DrivePath: Send + Sync {
    /// Runs one command and waits for its end. A reply is the drive's own; where none came back,
    /// the error says what is known of the command.
    fn execute(&self, command: &DriveCommand) -> Result<Reply, Undelivered>;
}

/// No answer of the drive came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The command certainly did not reach the drive.
    NotSent(String),
    /// The drive may or may not have executed the command.
    Unknown(String),
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Undelivered::NotSent(why) | Undelivered::Unknown(why)) = self;
        f.write_str(why)
    }
}

/// Makes a way to the drive with that identity.
pub type Connect = dyn Fn(&str, &Target) -> Arc<dyn DrivePath> + Send + Sync;

/// The ways that this build has. `timeout` is for one command.
pub fn connector(topology: Topology, timeout: Duration) -> Box<Connect> {
    let topology = Arc::new(topology);
    Box::new(move |identity, target| match target {
        Target::Scsi(node) => Arc::new(scsi::Drive::new(
            scsi_node::ScsiNode::new(node.clone(), identity.to_owned(), topology.clone()),
            timeout,
        )),
        Target::Nvme(_) => Arc::new(NoPath("this build cannot reach NVMe drives")),
        #[cfg(feature = "emulator")]
        Target::Emulated(socket) => {
            Arc::new(scsi::Drive::new(emulated::Socket::new(socket.clone()), timeout))
        }
        #[cfg(not(feature = "emulator"))]
        Target::Emulated(_) => Arc::new(NoPath("this build cannot reach emulated drives")),
    })
}

/// A drive of a kind that this build cannot reach, and why: it never answers.
struct NoPath(&'static str);

impl DrivePath for NoPath {
    fn execute(&self, _: &DriveCommand) -> Result<Reply, Undelivered> {
        Err(Undelivered::NotSent(self.0.to_owned()))
    }
}
