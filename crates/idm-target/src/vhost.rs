//! SCSI disks on vhost-user-scsi ports.
//!
//! A [`port`] is a virtio SCSI adapter: one path of one host to all SCSI disks. A [`logical_unit`]
//! carries out the disk commands that the drive model does not know.

pub mod logical_unit;
pub mod port;
