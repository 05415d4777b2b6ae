//! Steps taken before a lock may be lost, so that nobody still uses the data that it protects.
//!
//! `deadlines` computes when each step is due, `kill` runs the kill command, `watchdog` resets the
//! host, and `safe_note` records for the next lvmlockd the time until which locks were safe.
//! `reservations` keeps hosts that lost a lock from the drives.

mod deadlines;
pub mod kill;
pub mod reservations;
pub mod safe_note;
pub mod watchdog;

pub use deadlines::{Feeding, Fencing, FencingConfig};
