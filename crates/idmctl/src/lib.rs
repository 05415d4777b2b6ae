//! `idmctl`: the holders of IDM locks, the reasons of refusals, and the behaviour of a drive's
//! firmware.
//!
//! Everything that it shows is read from the drives themselves and from files of this host, so it
//! works while lvmlockd is dead and for locks of other hosts. lvmlockd gets no request.
//!
//! [`host`] has the facts that need no drive, [`fleet`] finds drives and asks them, [`view`] makes
//! locks and holders of their tables. [`status`], [`drives`], [`why`], [`repair`] and [`selftest`]
//! are the commands.

#![forbid(unsafe_code)]

pub mod cli;
pub mod drives;
pub mod fleet;
pub mod host;
pub mod hosts;
pub mod live;
pub mod meant;
pub mod metrics;
pub mod names;
pub mod output;
pub mod repair;
pub mod replay;
pub mod selftest;
pub mod sets;
pub mod status;
pub mod trace;
pub mod trouble;
pub mod view;
pub mod why;

pub use trouble::{Exit, Trouble};
