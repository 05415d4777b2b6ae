//! A thread that keeps the list of the host's disks up to date.

use crate::drives::Drives;
use crate::sys::sync::thread::JoinHandle;
use crate::sys::thread;
use crate::topology::{News, Uevents};
use core::time::Duration;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// Interval at which the kernel's count of events is checked. The count shows events that the
/// socket misses: in a container events may not be delivered although the socket is allowed.
const LOOK: Duration = Duration::from_secs(5);
/// The same without a socket.
const LOOK_ALONE: Duration = Duration::from_secs(1);
/// Pause after disks have changed: changes come in bursts, and partitions follow their disk.
const BURST: Duration = Duration::from_millis(50);

/// Handle of the watching thread. The thread ends when this is dropped.
pub struct Watch {
    /// Socket that ends the thread when it is closed.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Takes an inventory and starts to watch.
    pub fn start(drives: Arc<Drives>) -> io::Result<Watch> {
        // Listening begins before the first inventory, so that no event is missed in between.
        let uevents = Uevents::open()
            .inspect_err(|error| log::debug!("no kernel events ({error}), looking every second"))
            .ok();
        let seen = drives.event_count();
        drives.take_inventory();
        let (stop, stopped) = UnixStream::pair()?;
        let watcher = Watcher { drives, uevents, stopped, seen };
        let thread = thread::spawn("idm-watch", move || watcher.run())?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // This fails only where the thread panicked, which was logged then.
            let _ = thread.join();
        }
    }
}

struct Watcher {
    drives: Arc<Drives>,
    uevents: Option<Uevents>,
    /// Socket that becomes readable when the other end is closed.
    stopped: UnixStream,
    /// The kernel's count of events at the last inventory, or at a later time when the disks were
    /// known to be unchanged.
    seen: Option<u64>,
}

impl Watcher {
    fn run(mut self) {
        loop {
            let looks = if self.uevents.is_some() { LOOK } else { LOOK_ALONE };
            let Some(told) = self.wait(looks) else { return };
            let count = self.drives.event_count();
            let changed = match (told, &self.uevents) {
                (true, Some(uevents)) => self.hear(uevents.drain()),
                // Events are not counted: disks may have changed.
                (_, None) if count.is_none() => true,
                _ => count != self.seen,
            };
            self.seen = count;
            if changed {
                if self.pause().is_none() {
                    return;
                }
                let look = AssertUnwindSafe(|| self.drives.take_inventory());
                if catch_unwind(look).is_err() {
                    log::error!("internal error: looking at the host's disks panicked");
                }
            }
        }
    }

    /// Makes drives confirm their identities where events put these in doubt. Returns whether disks
    /// may have changed.
    fn hear(&self, news: News) -> bool {
        if news.identities {
            self.drives.doubt();
        }
        news.disks
    }

    /// Waits for the end of a burst of events.
    fn pause(&mut self) -> Option<()> {
        let until = Instant::now() + BURST;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let told = self.wait(left)?;
            if let (true, Some(uevents)) = (told, &self.uevents) {
                self.hear(uevents.drain());
            }
            if left.is_zero() {
                self.seen = self.drives.event_count();
                return Some(());
            }
        }
    }

    /// Waits up to `longest` for events. Returns whether there are any; `None` at the end.
    fn wait(&self, longest: Duration) -> Option<bool> {
        let stopped = PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN);
        let mut fds = vec![stopped];
        if let Some(uevents) = &self.uevents {
            fds.push(PollFd::new(uevents.as_fd(), PollFlags::POLLIN));
        }
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Some(false),
            // Waiting for events is not possible. Missing events is better than a busy loop.
            Err(error) => {
                log::error!(
                    "the host's disks are no longer watched: {error}; paths that come back are not \
                     used until lvmlockd is started again"
                );
                return None;
            }
        }
        let ready = |fd: &PollFd<'_>| fd.any() == Some(true);
        (!ready(&fds[0])).then(|| fds.get(1).is_some_and(ready))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;
    use crate::transport::Limits;
    use idm_engine::Timing;
    use std::collections::BTreeMap;

    #[test]
    fn it_ends_at_once() {
        let topology = Topology::new(BTreeMap::new());
        let connect = Box::new(|_: &_, _: &_| unreachable!("no drive is named"));
        let drives = Drives::new(topology, connect, Limits::new(&Timing::for_lease(LOOK)));
        let watch = Watch::start(Arc::new(drives)).unwrap();
        let begun = Instant::now();
        drop(watch);
        assert!(begun.elapsed() < LOOK_ALONE);
    }
}
