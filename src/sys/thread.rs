//! Threads that do not handle lvmlockd's signals.

use crate::sys::sync::thread::{Builder, JoinHandle};
use core::cell::Cell;
use nix::sys::signal::{SigSet, SigmaskHow};
use std::any::Any;
use std::io;

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread belongs to the library.
pub fn is_ours() -> bool {
    OURS.get()
}

/// Starts a thread with all signals blocked, so that lvmlockd's handlers run on its own threads.
/// The caller blocks them before the thread exists, so that the thread inherits the mask from its
/// first moment.
pub fn spawn<F>(name: &str, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let spawned = Builder::new().name(name.to_owned()).spawn(|| {
        OURS.set(true);
        body();
    });
    before.thread_set_mask()?;
    spawned
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use std::sync::mpsc;

    #[test]
    fn threads_have_all_signals_blocked_and_ours_has_not() {
        let (sender, receiver) = mpsc::channel();
        assert!(!is_ours());
        let thread = spawn("idm-test", move || {
            assert!(is_ours());
            let mask = SigSet::thread_get_mask().unwrap();
            sender.send(mask).unwrap();
        });
        let mask = receiver.recv().unwrap();
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGALRM, Signal::SIGCHLD] {
            assert!(mask.contains(signal), "{signal}");
        }
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
        thread.unwrap().join().unwrap();
    }
}
