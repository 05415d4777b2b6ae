//! Emulated IDM disks for virtual machines: drives of `idm-emulator` with disk data, on
//! vhost-user-scsi ports.
//!
//! A [`disk::Disk`] is a mutex table and a sparse file. A [`port::Port`] is one path of one host to
//! all disks: each has a socket of its own, so that paths can be cut one by one. [`faults`] says
//! what goes wrong on purpose, and [`control`] lets a test say so.

#![forbid(unsafe_code)]

pub mod control;
pub mod disk;
pub mod faults;
pub mod port;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose data is valid even where a thread died while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
