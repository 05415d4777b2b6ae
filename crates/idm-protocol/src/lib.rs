//! The In-Drive Mutex (IDM) protocol as bytes.
//!
//! A drive with IDM keeps a table of *mutexes*. A host sends it vendor commands that try to lock,
//! refresh, break, unlock or destroy one mutex, or that read the table. This crate encodes such
//! commands and decodes their answers; it performs no I/O, keeps no state and reads no clock.
//!
//! * [`ResourceId`] and [`HostId`] identify a mutex and an owner.
//! * [`Record`] is the 512-byte block that travels in both directions.
//! * [`DriveCommand`] and [`Reply`] are a lock engine's output and input, free of any transport.
//! * [`scsi`] turns a [`DriveCommand`] into CDBs and SCSI status plus sense data into a [`Status`];
//!   [`nvme`] does the same with NVMe admin commands.
//! * [`reservation`] has the standard commands by which a drive refuses the data of some hosts.
//!
//! `docs/protocol.md` gives the sources of the numbers, and the observed behaviour of real
//! firmware.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod command;
mod ids;
pub mod nvme;
mod record;
pub mod reservation;
pub mod scsi;

pub use command::{DriveCommand, GROUP_ALL, GROUP_TABLE, Limit, Mode, MutexOp, Reply, Status};
pub use ids::{HostId, IdError, ResourceId};
pub use record::{
    Class, Metadata, RECORD_LEN, Record, State, Value, ValueUpdate, parse_table, record_count,
};
