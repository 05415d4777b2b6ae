//! How commands reach a drive.
//!
//! [`DrivePath`] is one way to one drive. All present ways speak SCSI: [`scsi`] turns a command
//! into CDBs and what came back into a reply, a [`scsi::Port`] carries them.

mod block;
#[cfg(feature = "emulator")]
mod emulated;
pub mod scsi;
mod sg_io;

use crate::topology::{Located, Target, Topology};
use core::time::Duration;
use idm_protocol::{DriveCommand, Reply};
use std::sync::Arc;

/// One way to one drive. Several threads may use it at the same time.
pub trait DrivePath: Send + Sync {
    /// Runs one command and waits for its end.
    ///
    /// Every failure is a reply: [`Unreachable`](idm_protocol::Status::Unreachable) only where the command certainly did not
    /// reach the drive, [`Uncertain`](idm_protocol::Status::Uncertain) where that is not known.
    fn execute(&self, command: &DriveCommand) -> Reply;
}

/// Makes ways to drives.
pub type Connect = dyn Fn(&Located) -> Arc<dyn DrivePath> + Send + Sync;

/// The ways that this build has. `timeout` is for one command.
pub fn connector(topology: Topology, timeout: Duration) -> Box<Connect> {
    let topology = Arc::new(topology);
    Box::new(move |drive| match &drive.target {
        Target::Block(node) => Arc::new(scsi::Drive::new(
            block::BlockNode::new(node.clone(), drive.identity.clone(), topology.clone()),
            timeout,
        )),
        #[cfg(feature = "emulator")]
        Target::Emulated(socket) => {
            Arc::new(scsi::Drive::new(emulated::Socket::new(socket.clone()), timeout))
        }
        #[cfg(not(feature = "emulator"))]
        Target::Emulated(_) => Arc::new(NoPath),
    })
}

/// An emulated drive, for a build that cannot reach one: it never answers.
#[cfg(not(feature = "emulator"))]
struct NoPath;

#[cfg(not(feature = "emulator"))]
impl DrivePath for NoPath {
    fn execute(&self, _: &DriveCommand) -> Reply {
        Reply::Status(idm_protocol::Status::Unreachable)
    }
}
