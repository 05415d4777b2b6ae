//! `liblvmlockd_idm`: the IDM lock manager that lvmlockd links in place of its own
//! `lvmlockd-idm.c`.
//!
//! Data goes one way down and one way up: `entry` (C functions) → `manager` (lockspaces and
//! resources) → `runtime` (one reactor that owns the engines) → `drives` (their queues, workers
//! and paths) → `transport` (SCSI, NVMe, emulated drives) → drive.
//!
//! `recovery` keeps, across a restart of lvmlockd, what the manager holds. `fencing` stops the use
//! of what a lock protects before the lock is lost. `lock` is what all of them speak of, `state`
//! what is kept in files, `topology` what is known of the host's disks, and `sys` clock, threads
//! and mutexes.

// The layouts of lvmlockd's structures are known where pointers and `long` have 64 bits.
#[cfg(not(target_pointer_width = "64"))]
compile_error!("liblvmlockd_idm is for 64-bit systems only");

pub mod abi;
pub mod config;
pub mod drives;
mod entry;
pub mod error;
pub mod fencing;
pub mod lock;
mod lockspace;
pub mod manager;
pub mod metrics;
pub mod recovery;
pub mod runtime;
pub mod state;
mod sys;
mod test_mode;
pub mod topology;
pub mod transport;
