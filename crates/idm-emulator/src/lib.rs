//! An IDM drive in software: a pure drive model, and the server that exposes it.
//!
//! * [`Drive`] is the model: a mutex table, typed commands, SCSI or NVMe bytes in, replies out. No
//!   clock, no I/O, no threads, so that a simulator or a model checker can use it.
//! * [`Profile`] describes the behaviour of a drive where generations of firmware differ, or where
//!   none was observed.
//! * [`server`] serves drives on unix sockets, with faults on demand; [`client`] reaches them;
//!   [`wire`] is the format between the two; [`text`] has the words of control commands.
//! * [`reservation`] has the persistent reservations of SCSI and NVMe, without I/O, too.
//! * [`sysfs`] shows them as SCSI disks to programs that know real drives only.
//! * [`disks`] are drives with disk data, for front ends that attach them to virtual machines.

#![forbid(unsafe_code)]

mod cdb;
pub mod client;
pub mod disks;
mod drive;
mod exchange;
mod nonsense;
pub mod nvme;
pub mod profile;
pub mod reservation;
mod scsi;
mod sense;
pub mod server;
mod sync;
pub mod sysfs;
mod table;
pub mod text;
pub mod wire;

pub use cdb::{is_mutex_command, kind};
pub use drive::{Drive, DriveTime};
pub use nonsense::Nonsense;
pub use profile::Profile;
pub use scsi::ScsiReply;
