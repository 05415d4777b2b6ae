//! An IDM drive in software: a pure drive model, and the server that exposes it.
//!
//! * [`Drive`] is the model: a mutex table, typed commands and SCSI bytes in, replies out. No
//!   clock, no I/O, no threads, so that a simulator or a model checker can use it.
//! * [`Profile`] says how it behaves where generations of firmware differ, or where nothing is
//!   known.

#![forbid(unsafe_code)]

mod drive;
pub mod profile;

pub use drive::{Drive, DriveTime};
pub use profile::Profile;
