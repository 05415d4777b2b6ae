//! Services of the operating system: the clock, threads, mutexes, and messages between threads.

pub mod clock;
pub mod mailbox;
pub mod service;
pub mod sync;
pub mod thread;
