//! A storage target that gives emulated IDM drives to virtual machines: the disks of `idm-emulator`
//! as SCSI disks over vhost-user-scsi ([`vhost`]) and as NVMe drives over NVMe/TCP ([`nvmet`]).
//!
//! A port is one path of one host to all drives. Each port has a separate socket for each front
//! end, so that paths can be cut one by one.

#![forbid(unsafe_code)]

pub mod nvmet;
mod sync;
pub mod vhost;
