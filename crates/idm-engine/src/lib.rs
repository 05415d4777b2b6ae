//! The lock: one host's side of one IDM lock over several drives.
//!
//! This crate decides and does nothing else. It has no clock, no thread, no socket and no random
//! source of its own: the caller passes in times, replies and a seed, and takes out commands,
//! deadlines and events. So the same code runs inside lvmlockd, in the deterministic simulator and
//! in the model checker.
//!
//! # How to drive a [`Lock`]
//!
//! ```text
//!   request(op, now) ──▶ ┌──────┐ ──▶ next_command(now)  send to that drive, reply comes back
//!   on_reply(…, now) ──▶ │ Lock │ ──▶ next_deadline()    call on_timer then
//!   on_timer(now)    ──▶ └──────┘ ──▶ next_event()       tell the caller, the log, the kill path
//! ```
//!
//! After every call of `request`, `spread`, `on_reply` or `on_timer`, drain `next_command` and
//! `next_event`, and look at `next_deadline` again. Spurious calls of `on_timer` are harmless.
//!
//! * Every command that the caller takes gets exactly one reply, however late; a transport that
//!   gives up on a command replies [`Status::Uncertain`](idm_protocol::Status::Uncertain). At most
//!   one command of one lock is on its way to one drive.
//! * `now` never goes backwards. The caller reads it *before* it calls `next_command`, so a lease
//!   begins before its command is sent.
//!
//! # Where to read
//!
//! * `api` – requests, commands and events.
//! * `lock` – the state machine: its phases, and the result of the drives' answers.
//! * `replica`, `take`, `clean` – one drive's part: the meaning of a reply, getting the mutex,
//!   giving it back.
//! * `reading` – the value of a mutex that nobody takes.
//! * `inspect` – the meaning of a record's metadata, for programs that only read drives.
//! * `rules` – the safety rules, each in one place. `docs/locking.md` argues for them.

// Without std there is no clock, no thread and no I/O: the compiler enforces it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod api;
mod clean;
mod inspect;
mod lock;
mod reading;
mod replica;
mod rng;
mod rules;
mod stamp;
mod take;
mod view;

pub use api::{
    Command, Conflict, DriveRef, Event, Fingerprint, Instant, LockConfig, Loss, Member, Notice,
    Outcome, Refusal, Request, RequestError, Timing, Token, Undoes, ValueRead,
};
pub use inspect::{Writer, acquire_quorum, keep_quorum, writer};
pub use lock::Lock;
pub use reading::read_value;
#[cfg(feature = "broken-rules")]
pub use rules::BrokenRule;
