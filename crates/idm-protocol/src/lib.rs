//! The In-Drive Mutex (IDM) protocol as bytes.
//!
//! A drive with IDM keeps a table of *mutexes*. A host sends it vendor commands that try to lock,
//! refresh, break, unlock or destroy one mutex, or that read the table. This crate knows how such
//! a command and its answer look on the wire and what they mean; it performs no I/O, keeps no
//! state and reads no clock.
//!
//! * [`ResourceId`] and [`HostId`] name a mutex and an owner.
//! * [`Record`] is the 512-byte block that travels in both directions.
//! * [`DriveCommand`] and [`Reply`] are what a lock engine says and hears, free of any transport.
//! * [`scsi`] turns a [`DriveCommand`] into CDBs and SCSI status plus sense data into a [`Status`];
//!   [`nvme`] does the same with NVMe admin commands.
//!
//! `docs/protocol.md` says where the numbers come from, and what real firmware was seen to do.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod command;
mod ids;
pub mod nvme;
mod record;
pub mod scsi;

pub use command::{DriveCommand, GROUP_ALL, GROUP_TABLE, Limit, Mode, MutexOp, Reply, Status};
pub use ids::{HostId, IdError, ResourceId};
pub use record::{
    Class, Metadata, RECORD_LEN, Record, State, Value, ValueUpdate, parse_table, record_count,
};
