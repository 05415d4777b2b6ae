//! Emulated IDM disks for virtual machines: disks of `idm-emulator` on vhost-user-scsi ports.
//!
//! A [`port::Port`] is one path of one host to all SCSI disks: each has a socket of its own, so
//! that paths can be cut one by one. [`target`] is what a disk does with a SCSI command.

#![forbid(unsafe_code)]

pub mod port;
pub mod target;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose data is valid even where a thread died while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
