//! What the next lvmlockd must know if this one dies: until when the locks in use were safe.
//!
//! It cannot ask drives that do not answer. But then it must know by when the use of what the locks
//! protect has to be stopped. A thread of its own writes, because the reactor waits for no file.

use crate::state::note::Note;
use crate::sys::sync::thread::JoinHandle;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::thread;
use core::time::Duration;
use idm_engine::Instant;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The file's name in the state directory.
const FILE: &str = "safe-until";

/// Keeps the note. Dropping it is lvmlockd's sudden death: the note stays as it is.
pub struct SafeNote {
    shared: Arc<Shared>,
    left: Option<Option<Instant>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Of the locks in use.
    first: Option<Instant>,
    /// Of those that an earlier lvmlockd left, while that is not known of each.
    left: Option<Instant>,
    /// What the note says.
    noted: Option<Instant>,
    quit: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn date(&self) -> Option<Instant> {
        self.first.into_iter().chain(self.left).min()
    }

    /// Whether the note promises too much. A date that has moved on is noted by and by.
    fn is_urgent(&self) -> bool {
        match (self.date(), self.noted) {
            (Some(date), Some(noted)) => date < noted,
            (date, noted) => date != noted,
        }
    }
}

impl SafeNote {
    /// Begins with what an earlier lvmlockd left. Dates that move on are noted once in `pause`; so
    /// often `look` is called, too, while locks are in use.
    pub fn start(
        state_dir: &Path,
        pause: Duration,
        look: Box<dyn Fn() + Send>,
    ) -> io::Result<SafeNote> {
        let note = Note::new(state_dir, FILE)?;
        let left = note.read();
        let shared = Arc::new(Shared::default());
        {
            let mut state = shared.lock();
            state.left = left.flatten();
            state.noted = state.left;
        }
        let written = shared.clone();
        let thread = thread::spawn("idm-note", move || write(&written, &note, pause, &look))?;
        Ok(SafeNote { shared, left, thread: Some(thread) })
    }

    /// Until when the locks were safe that an earlier lvmlockd left: the date, or that none was in
    /// use. `None` where it did not say.
    pub fn left(&self) -> Option<Option<Instant>> {
        self.left
    }

    /// Until when all locks in use are safe; `None` where none is in use.
    pub fn protect(&self, first: Option<Instant>) {
        self.set(|state| state.first = first);
    }

    /// What an earlier lvmlockd left is all known: kept by this one, or given up.
    pub fn settle_left(&self) {
        self.set(|state| state.left = None);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.lock();
        change(&mut state);
        if state.is_urgent() {
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for SafeNote {
    fn drop(&mut self) {
        self.shared.lock().quit = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only fails where the thread panicked, which was logged then.
            let _ = thread.join();
        }
    }
}

fn write(shared: &Shared, note: &Note, pause: Duration, look: &dyn Fn()) {
    let mut failing = false;
    let mut state = shared.lock();
    while !state.quit {
        let date = state.date();
        let noted = state.noted;
        drop(state);
        look();
        let is_lost = date.is_some() && !note.is_there();
        if date != noted || is_lost {
            let written = note.write(date);
            if let (Err(error), false) = (&written, failing) {
                log::warn!("until when locks are safe cannot be noted: {error}");
            }
            failing = written.is_err();
            if !failing {
                shared.lock().noted = date;
            }
        }
        state = shared.lock();
        let waits = |state: &mut State| !state.quit && (failing || !state.is_urgent());
        state = match state.date() {
            None if !failing => shared.changed.wait_timeout_while(state, IDLE, waits),
            _ => shared.changed.wait_timeout_while(state, pause, waits),
        }
        .0;
    }
}

/// Nothing has to be written; the longest sleep all the same.
const IDLE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use std::time;

    const NEVER: Duration = Duration::from_secs(600);

    fn at(us: u64) -> Option<Instant> {
        Some(Instant::from_micros(us))
    }

    fn eventually(note: &Note, expected: Option<Option<Instant>>) {
        let begun = time::Instant::now();
        while note.read() != expected {
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", note.read());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn what_would_promise_too_much_is_corrected_at_once_and_the_rest_by_and_by() {
        let directory = tempfile::tempdir().unwrap();
        let note = Note::new(directory.path(), FILE).unwrap();
        let keeper = SafeNote::start(directory.path(), NEVER, Box::new(|| ())).unwrap();
        assert_eq!((keeper.left(), note.read()), (None, None));
        keeper.protect(at(50));
        eventually(&note, Some(at(50)));
        keeper.protect(at(60));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(note.read(), Some(at(50)));
        keeper.protect(at(40));
        eventually(&note, Some(at(40)));
        keeper.protect(None);
        eventually(&note, Some(None));
        drop(keeper);
        let keeper =
            SafeNote::start(directory.path(), Duration::from_millis(5), Box::new(|| ())).unwrap();
        assert_eq!(keeper.left(), Some(None));
        keeper.protect(at(50));
        eventually(&note, Some(at(50)));
        keeper.protect(at(60));
        eventually(&note, Some(at(60)));
    }

    #[test]
    fn what_was_left_counts_until_it_is_settled() {
        let directory = tempfile::tempdir().unwrap();
        let note = Note::new(directory.path(), FILE).unwrap();
        note.write(at(30)).unwrap();
        let keeper =
            SafeNote::start(directory.path(), Duration::from_millis(5), Box::new(|| ())).unwrap();
        assert_eq!(keeper.left(), Some(at(30)));
        keeper.protect(at(50));
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(note.read(), Some(at(30)));
        keeper.settle_left();
        eventually(&note, Some(at(50)));
    }
}
