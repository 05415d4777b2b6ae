//! The file that exports the counters while a lockspace is started.

use crate::state::file;
use crate::sys::service::{Service, Shared};
use core::time::Duration;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file's name in the state directory. The node exporter reads all files with this suffix.
pub const FILE: &str = "metrics.prom";
/// Interval between two writes.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Writer of the file. Dropping it leaves the file as it is.
pub struct Exporter {
    service: Service<ExportState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExportState {
    Idle,
    Writing,
}

impl Exporter {
    /// Starts the thread, which does not write yet. `render` makes the text.
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
        let file = state_dir.join(FILE);
        let run = move |shared: &Arc<_>| run(shared, &file, interval, &render);
        Ok(Exporter { service: Service::start("idm-metrics", ExportState::Idle, run)? })
    }

    /// Sets whether lockspaces are started. Without any, the file is removed.
    pub fn set_active(&self, active: bool) {
        let state = if active { ExportState::Writing } else { ExportState::Idle };
        **self.service.shared().lock() = state;
        self.service.shared().wake();
    }
}

fn run(
    shared: &Shared<ExportState>,
    file: &PathBuf,
    interval: Duration,
    render: &dyn Fn() -> String,
) {
    let mut failing = false;
    loop {
        let told = shared.lock();
        if told.quits() {
            return;
        }
        let now = **told;
        drop(told);
        match now {
            ExportState::Idle => {
                // The file need not exist.
                let _ = fs::remove_file(file);
            }
            ExportState::Writing => {
                let written = file::replace(file, &render(), file::PUBLIC);
                if let (Err(error), false) = (&written, failing) {
                    log::warn!(
                        "{}: {error}; no metrics are to be seen until what is in its way is \
                         removed",
                        file.display()
                    );
                }
                failing = written.is_err();
            }
        }
        let told = shared.lock();
        if told.quits() || **told != now {
            continue;
        }
        shared.wait(told, (now == ExportState::Writing).then_some(interval));
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
