//! What is done before a lock may be lost, so that nobody uses what it protects any more.
//!
//! `deadlines` says what is due when, `kill` runs the kill command, `watchdog` resets the host, and
//! `safe_note` tells the next lvmlockd until when locks were safe.

mod deadlines;
pub mod kill;
pub mod safe_note;
pub mod watchdog;

pub use deadlines::{Feeding, Fencing, FencingConfig};
