//! The file that shows the counters to others, for as long as a lockspace is started.

use crate::state::file;
use crate::sys::sync::thread::JoinHandle;
use crate::sys::sync::{Condvar, Mutex};
use crate::sys::thread;
use core::time::Duration;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file's name in the state directory. The node exporter takes all files that end like this.
pub const FILE: &str = "metrics.prom";
/// From one writing to the next.
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes the file. Dropping it leaves the file as it is.
pub struct Exporter {
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Writing,
    Quit,
}

impl Exporter {
    /// Writes nothing yet. `render` makes the text.
    pub fn start(
        state_dir: &Path,
        render: impl Fn() -> String + Send + 'static,
    ) -> io::Result<Exporter> {
        Exporter::with_interval(state_dir, INTERVAL, render)
    }

    fn with_interval(
        state_dir: &Path,
        interval: Duration,
        render: impl Fn() -> String + Send + 'static,
    ) -> io::Result<Exporter> {
        let shared = Arc::new((Mutex::new(State::Idle), Condvar::new()));
        let (seen, file) = (shared.clone(), state_dir.join(FILE));
        let thread = thread::spawn("idm-metrics", move || run(&seen, &file, interval, &render))?;
        Ok(Exporter { shared, thread: Some(thread) })
    }

    /// Whether lockspaces are started. Without any the file is removed.
    pub fn set_active(&self, active: bool) {
        self.set(if active { State::Writing } else { State::Idle });
    }

    fn set(&self, state: State) {
        *self.shared.0.lock() = state;
        self.shared.1.notify_all();
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.set(State::Quit);
        if let Some(thread) = self.thread.take() {
            // It only fails where the thread panicked, which was logged then.
            let _ = thread.join();
        }
    }
}

fn run(
    shared: &(Mutex<State>, Condvar),
    file: &PathBuf,
    interval: Duration,
    render: &dyn Fn() -> String,
) {
    let (state, changed) = shared;
    let mut failing = false;
    loop {
        let now = *state.lock();
        match now {
            State::Idle => {
                // It need not be there.
                let _ = fs::remove_file(file);
            }
            State::Writing => {
                let written = file::replace(file, &render());
                if let (Err(error), false) = (&written, failing) {
                    log::warn!("{}: {error}; no metrics are to be seen", file.display());
                }
                failing = written.is_err();
            }
            State::Quit => return,
        }
        let guard = state.lock();
        if *guard != now {
            continue;
        }
        match now {
            State::Writing => drop(changed.wait_timeout(guard, interval)),
            _ => drop(changed.wait(guard)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn eventually(what: &str, mut so: impl FnMut() -> bool) {
        let begin = std::time::Instant::now();
        while !so() {
            assert!(begin.elapsed() < Duration::from_secs(5), "not in time: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn the_file_is_there_while_lockspaces_are_and_new_all_the_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        fs::write(&file, "of an earlier life").unwrap();
        let count = AtomicUsize::new(0);
        let render = move || format!("{}\n", count.fetch_add(1, Ordering::Relaxed));
        let interval = Duration::from_millis(5);
        let exporter = Exporter::with_interval(directory.path(), interval, render).unwrap();
        eventually("removed at first", || !file.exists());
        exporter.set_active(true);
        let number = || fs::read_to_string(&file).ok()?.trim().parse::<usize>().ok();
        eventually("written again", || number().is_some_and(|number| number > 2));
        exporter.set_active(false);
        eventually("removed", || !file.exists());
        exporter.set_active(true);
        eventually("back", || file.exists());
        drop(exporter);
        assert!(file.exists());
    }
}
