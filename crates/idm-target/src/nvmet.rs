//! NVMe drives over NVMe/TCP: disks of `idm-emulator` as NVMe subsystems with one namespace.
//!
//! A [`Target`] has the subsystems; [`serve`] gives it a port. [`pdu`] defines the units on the
//! wire, [`controller`] carries commands out, `connection` is one TCP connection, which is one
//! queue, and `sender` is its sending side.
//!
//! Layouts and numbers are those of the NVM Express base specification (2.0) and of its TCP
//! transport and NVM command set specifications.

mod connection;
pub mod controller;
pub mod pdu;
mod sender;
mod subsystem;
mod target;

pub use connection::serve;
pub use subsystem::{Identifier, NQN_PREFIX, Subsystem};
pub use target::Target;
