//! The engine of one lock. Tests of the runtime use others than the real one.

use idm_engine::{Lock, LockConfig};

#[cfg(not(test))]
pub(crate) type Engine = Lock;
#[cfg(test)]
pub(crate) type Engine = Box<dyn any::AnyEngine>;

/// Makes the engine of a lock.
pub(crate) type MakeEngine = dyn Fn(LockConfig) -> Engine + Send;

/// The real engine.
pub(crate) fn real(config: LockConfig) -> Engine {
    #[cfg(not(test))]
    return Lock::new(config);
    #[cfg(test)]
    Box::new(Lock::new(config))
}

#[cfg(test)]
pub(crate) mod any {
    use idm_engine::{
        Command, DriveRef, Event, Instant, Lock, Member, Request, RequestError, Token,
    };
    use idm_protocol::{Mode, Reply};

    /// The interface of an engine, as [`Lock`] implements it.
    pub(crate) trait AnyEngine: Send {
        fn request(&mut self, request: Request, now: Instant) -> Result<(), RequestError>;
        fn expect_silence(&mut self, drives: &[DriveRef]);
        fn spread(&mut self, drives: &[Member], now: Instant);
        fn move_votes(&mut self, drives: &[DriveRef], now: Instant) -> bool;
        fn is_moving(&self) -> bool;
        fn awaits_drives(&self) -> bool;
        fn on_reply(&mut self, token: Token, reply: Reply, now: Instant);
        fn on_timer(&mut self, now: Instant);
        fn next_command(&mut self, now: Instant) -> Option<Command>;
        fn next_deadline(&self) -> Option<Instant>;
        fn next_event(&mut self) -> Option<Event>;
        fn mode(&self) -> Option<Mode>;
        fn safe_until(&self) -> Option<Instant>;
        fn is_idle(&self) -> bool;
    }

    impl AnyEngine for Lock {
        fn request(&mut self, request: Request, now: Instant) -> Result<(), RequestError> {
            Lock::request(self, request, now)
        }
        fn expect_silence(&mut self, drives: &[DriveRef]) {
            Lock::expect_silence(self, drives);
        }
        fn spread(&mut self, drives: &[Member], now: Instant) {
            Lock::spread(self, drives, now);
        }
        fn move_votes(&mut self, drives: &[DriveRef], now: Instant) -> bool {
            Lock::move_votes(self, drives, now)
        }
        fn is_moving(&self) -> bool {
            Lock::is_moving(self)
        }
        fn awaits_drives(&self) -> bool {
            Lock::awaits_drives(self)
        }
        fn on_reply(&mut self, token: Token, reply: Reply, now: Instant) {
            Lock::on_reply(self, token, reply, now);
        }
        fn on_timer(&mut self, now: Instant) {
            Lock::on_timer(self, now);
        }
        fn next_command(&mut self, now: Instant) -> Option<Command> {
            Lock::next_command(self, now)
        }
        fn next_deadline(&self) -> Option<Instant> {
            Lock::next_deadline(self)
        }
        fn next_event(&mut self) -> Option<Event> {
            Lock::next_event(self)
        }
        fn mode(&self) -> Option<Mode> {
            Lock::mode(self)
        }
        fn safe_until(&self) -> Option<Instant> {
            Lock::safe_until(self)
        }
        fn is_idle(&self) -> bool {
            Lock::is_idle(self)
        }
    }
}
