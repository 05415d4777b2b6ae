//! A thread that acts on a shared state and ends with its owner.

use super::sync::thread::JoinHandle;
use super::sync::{Condvar, Mutex, MutexGuard};
use super::thread;
use core::ops::{Deref, DerefMut};
use core::time::Duration;
use std::io;
use std::sync::Arc;

/// Handle of the thread. Dropping it ends the thread and waits for its end.
pub struct Service<S> {
    shared: Arc<Shared<S>>,
    thread: Option<JoinHandle<()>>,
}

/// State that the thread shares with its users.
pub struct Shared<S> {
    told: Mutex<Told<S>>,
    changed: Condvar,
}

/// The state, and whether the thread is to end.
pub struct Told<S> {
    state: S,
    quit: bool,
}

impl<S> Told<S> {
    /// Whether the thread is to end.
    pub fn quits(&self) -> bool {
        self.quit
    }
}

impl<S> Deref for Told<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.state
    }
}

impl<S> DerefMut for Told<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.state
    }
}

impl<S> Shared<S> {
    /// Takes the state's mutex.
    pub fn lock(&self) -> MutexGuard<'_, Told<S>> {
        self.told.lock()
    }

    /// Wakes the thread: something is new in the state.
    pub fn wake(&self) {
        self.changed.notify_all();
    }

    /// Waits until the thread is woken, at most `bound` where one is given.
    pub fn wait(&self, told: MutexGuard<'_, Told<S>>, bound: Option<Duration>) {
        match bound {
            Some(bound) => drop(self.changed.wait_timeout(told, bound)),
            None => drop(self.changed.wait(told)),
        }
    }

    /// Waits as long as the condition holds, at most `bound`.
    pub fn wait_while<'a>(
        &'a self,
        told: MutexGuard<'a, Told<S>>,
        bound: Duration,
        condition: impl FnMut(&mut Told<S>) -> bool,
    ) -> MutexGuard<'a, Told<S>> {
        self.changed.wait_timeout_while(told, bound, condition).0
    }
}

impl<S: Send + 'static> Service<S> {
    /// Starts the thread. It ends when the state says that it should.
    pub fn start(
        name: &str,
        state: S,
        run: impl FnOnce(&Arc<Shared<S>>) + Send + 'static,
    ) -> io::Result<Service<S>> {
        let told = Mutex::new(Told { state, quit: false });
        let shared = Arc::new(Shared { told, changed: Condvar::new() });
        let seen = shared.clone();
        let thread = thread::spawn(name, move || run(&seen))?;
        Ok(Service { shared, thread: Some(thread) })
    }
}

impl<S> Service<S> {
    /// The state that is shared with the thread.
    pub fn shared(&self) -> &Arc<Shared<S>> {
        &self.shared
    }
}

impl<S> Drop for Service<S> {
    fn drop(&mut self) {
        self.shared.lock().quit = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // This fails only where the thread panicked, which was logged then.
            let _ = thread.join();
        }
    }
}
