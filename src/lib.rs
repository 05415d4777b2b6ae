//! `liblvmlockd_idm`: the IDM lock manager that lvmlockd links in place of its own
//! `lvmlockd-idm.c`.
//!
//! Data goes one way down and one way up: `entry` (C functions) → `manager` (lockspaces and
//! resources) → `runtime` (one reactor that owns the engines, workers that block in the kernel) →
//! `transport` (SCSI, emulated drives) → drive. `recovery` keeps, across a restart of lvmlockd,
//! what the manager holds.

pub mod abi;
pub mod config;
mod entry;
pub mod error;
mod lockspace;
pub mod manager;
pub mod recovery;
pub mod runtime;
mod sync;
pub mod topology;
pub mod transport;
