//! `liblvmlockd_idm`: the IDM lock manager that lvmlockd links in place of its own
//! `lvmlockd-idm.c`.
//!
//! Requests go down through these modules, and answers come back up: `entry` (C functions) →
//! `manager` (lockspaces and resources) → `runtime` (one reactor that owns the engines) → `drives`
//! (their queues, workers and paths) → `transport` (SCSI, NVMe, emulated drives) → drive.
//!
//! `recovery` keeps the manager's locks across a restart of lvmlockd. `fencing` stops the use of
//! the data that a lock protects before the lock is lost. `lock` has the types that all of them
//! share, `state` the files, `topology` the host's disks, and `sys` the clock, threads and mutexes.

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
#[doc(hidden)]
pub mod tools;
pub mod topology;
pub mod transport;
mod words;
