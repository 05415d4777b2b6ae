//! What the operating system gives: the clock, threads, and how they exclude and tell each other.

pub mod clock;
pub mod mailbox;
pub mod service;
pub mod sync;
pub mod thread;
