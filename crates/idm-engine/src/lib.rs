//! The lock: one host's side of one IDM lock over several drives.
//!
//! This crate decides; it does nothing else. It has no clock, no thread, no socket and no random
//! source of its own: time, replies and a seed are handed in, commands, deadlines and events come
//! out. So the same code runs inside lvmlockd, in the deterministic simulator and in the model
//! checker.
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
//! * Every command that was taken is answered by exactly one reply, however late; a transport that
//!   gives up on a command replies [`Status::Uncertain`](idm_protocol::Status::Uncertain). There is
//!   at most one command of one lock on its way to one drive.
//! * `now` never goes backwards. It is read *before* `next_command` is called, so a lease is dated
//!   from before its command was sent.
//!
//! # Where to read
//!
//! * `api` – what goes in and comes out.
//! * `lock` – the state machine: its phases, and what the drives' answers add up to.
//! * `seat`, `take`, `clean` – one drive's part: what a reply teaches, how the mutex is got, how it
//!   is given back.
//! * `rules` – the safety rules, each in one place. The argument for them is in `docs/locking.md`.

// Without std there is no clock, no thread and no I/O to be had: the compiler holds us to it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod api;
mod clean;
mod lock;
mod rng;
mod rules;
mod seat;
mod stamp;
mod take;
mod view;

pub use api::{
    Command, Conflict, DriveRef, Event, Fingerprint, Instant, LockConfig, Loss, Member, Notice,
    Outcome, Refusal, Request, RequestError, Timing, Token, Undoes, ValueRead,
};
pub use lock::Lock;
#[cfg(feature = "broken-rules")]
pub use rules::BrokenRule;
