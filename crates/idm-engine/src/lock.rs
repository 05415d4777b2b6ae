//! The state machine of one lock.

use crate::api::{Command, Event, Instant, LockConfig, Member, Request, RequestError, Token};
use idm_protocol::{Mode, Reply};

/// One host's side of one lock.
#[derive(Clone, Debug)]
pub struct Lock {
    config: LockConfig,
}

impl Lock {
    /// A lock that is not held.
    pub fn new(config: LockConfig) -> Lock {
        Lock { config }
    }

    /// Begins a request. Its end is told by [`Event::Done`], possibly before this returns.
    pub fn request(&mut self, request: Request, now: Instant) -> Result<(), RequestError> {
        let _ = (request, now);
        todo!()
    }

    /// Puts the lock, while it is held, on more drives than those that vote, so that a host that
    /// counts other drives meets it there. Without effect while it is not held.
    pub fn spread(&mut self, drives: &[Member], now: Instant) {
        let _ = (drives, now);
        todo!()
    }

    /// The answer to a command. Unknown tokens are ignored.
    pub fn on_reply(&mut self, token: Token, reply: Reply, now: Instant) {
        let _ = (token, reply, now);
        todo!()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// The next command to send.
    pub fn next_command(&mut self, now: Instant) -> Option<Command> {
        let _ = now;
        todo!()
    }

    /// When [`on_timer`](Lock::on_timer) wants to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        todo!()
    }

    /// What happened, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// How the lock is held; `None` where it is not held, or lost. A lapsed lock still has its
    /// mode: look at [`safe_until`](Lock::safe_until).
    pub fn mode(&self) -> Option<Mode> {
        todo!()
    }

    /// Until when no other host can have the lock in a conflicting mode, whatever happens to the
    /// drives' answers from now on. `None` where the lock is not held.
    pub fn safe_until(&self) -> Option<Instant> {
        todo!()
    }

    /// Whether the lock is not held and nothing is left to be done on any drive, so that it can
    /// be dropped.
    pub fn is_idle(&self) -> bool {
        todo!()
    }

    /// What does not change in this lock's life.
    pub fn config(&self) -> &LockConfig {
        &self.config
    }
}
