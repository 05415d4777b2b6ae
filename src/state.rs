//! State that outlives lvmlockd, in files under /run: this host's id, notes for the next lvmlockd,
//! and the locks that are held.

pub mod file;
pub mod host_id;
pub mod leases;
pub mod note;
pub mod refusals;
pub mod store;
pub mod undo_note;
