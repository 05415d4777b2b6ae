//! The way of commands to a drive.
//!
//! [`DrivePath`] is one path to one drive. [`drive`] implements commands and mutex tables; a
//! [`drive::Protocol`] speaks to the drive: [`scsi`] in CDBs, which a [`scsi::Port`] carries, and
//! [`nvme`] in admin commands. [`node`] keeps device nodes open, and a [`Deadline`] goes with every
//! command. The module of each transport says how a command without an answer ends.

mod deadline;
pub mod drive;
#[cfg(feature = "emulator")]
mod emulated;
mod node;
pub mod nvme;
mod nvme_ioctl;
mod path;
mod port;
mod raw;
mod raw_status;
mod reserve;
pub mod scsi;
mod scsi_node;
mod scsi_reserve;
mod sg_io;

use crate::topology::{PathAddress, Topology};
pub use deadline::{Deadline, Limits};
use drive::IdmPath;
#[cfg(not(feature = "emulator"))]
use idm_protocol::DriveCommand;
use nvme::Nvme;
pub use path::{Answer, DrivePath, TransportError};
pub use raw::{RawAnswer, RawPath};
pub use raw_status::RawStatus;
pub use reserve::{ReserveAnswer, ReserveOrder, ReserveReport};
use scsi::Scsi;
use scsi_node::ScsiNode;
use std::sync::Arc;

/// Makes a path to the drive with the given identity.
pub type Connect = dyn Fn(&str, &PathAddress) -> Arc<dyn DrivePath> + Send + Sync;

/// The kinds of path that this build supports.
pub fn connector(topology: Topology) -> Box<Connect> {
    let topology = Arc::new(topology);
    Box::new(move |identity, address| match address {
        PathAddress::Scsi(node) => {
            let node = ScsiNode::new(node.clone(), identity.to_owned(), topology.clone());
            Arc::new(IdmPath::new(Scsi(node)))
        }
        PathAddress::Nvme(node) => {
            let nvme = Nvme::new(node.clone(), identity.to_owned(), topology.clone());
            Arc::new(IdmPath::new(nvme))
        }
        #[cfg(feature = "emulator")]
        PathAddress::Emulated(socket) => {
            Arc::new(IdmPath::new(Scsi(emulated::Socket::new(socket))))
        }
        #[cfg(not(feature = "emulator"))]
        PathAddress::Emulated(_) => Arc::new(NoPath),
    })
}

/// An emulated drive in a build that cannot reach one: it never answers.
#[cfg(not(feature = "emulator"))]
struct NoPath;

#[cfg(not(feature = "emulator"))]
impl DrivePath for NoPath {
    fn execute(&self, _: &DriveCommand, _: &Deadline) -> Result<Answer, TransportError> {
        Err(TransportError::NotSent("this build cannot reach emulated drives".to_owned()))
    }
}

/// A deadline with the time of a command under the default lease.
#[cfg(test)]
pub(crate) fn soon() -> Deadline {
    let timing = idm_engine::Timing::for_lease(core::time::Duration::from_secs(60));
    Limits::new(&timing).deadline(crate::sys::clock::now())
}
