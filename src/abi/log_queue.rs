//! A queue between the library's own threads and the log.
//!
//! syslog blocks its callers while nobody reads, for example when journald hangs with the host's
//! disk. A blocked thread renews no locks and runs no kill command.

use crate::sys::sync::atomic::{AtomicUsize, Ordering};
use crate::sys::sync::mpsc::{Receiver, SyncSender, sync_channel};
use crate::sys::sync::planted;
use crate::sys::thread;
use core::ffi::c_int;
use core::time::Duration;
use std::io;
use std::sync::Arc;

/// Number of messages that may wait. Further ones are lost, and counted.
const ROOM: usize = if cfg!(all(test, feature = "shuttle")) { 2 } else { 1000 };

/// Messages that wait for the thread that writes them.
pub struct LogQueue {
    sender: SyncSender<Item>,
    lost: Arc<AtomicUsize>,
}

enum Item {
    Message(c_int, String),
    /// Reports that all messages before it are written.
    Mark(SyncSender<()>),
}

impl LogQueue {
    /// Starts the thread that calls `write` with priority and message.
    pub fn start(write: impl Fn(c_int, &str) + Send + 'static) -> io::Result<LogQueue> {
        let (sender, receiver) = sync_channel(ROOM);
        let lost = Arc::new(AtomicUsize::new(0));
        let queue = LogQueue { sender, lost: Arc::clone(&lost) };
        thread::spawn("idm-log", move || run(&receiver, &lost, &write))?;
        Ok(queue)
    }

    /// Appends a message. Never waits.
    pub fn push(&self, priority: c_int, message: String) {
        if self.sender.try_send(Item::Message(priority, message)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits up to `bound` until all messages are written. Returns false if some are not.
    pub fn flush(&self, bound: Duration) -> bool {
        let (marker, written) = sync_channel(1);
        self.sender.try_send(Item::Mark(marker)).is_ok() && written.recv_timeout(bound).is_ok()
    }
}

fn run(receiver: &Receiver<Item>, lost: &AtomicUsize, write: &impl Fn(c_int, &str)) {
    for item in receiver {
        match item {
            Item::Message(priority, message) => write(priority, &message),
            Item::Mark(marker) => drop(marker.send(())),
        }
        let count = if planted!(LostInTwoSteps) {
            let count = lost.load(Ordering::Relaxed);
            lost.store(0, Ordering::Relaxed);
            count
        } else {
            lost.swap(0, Ordering::Relaxed)
        };
        if count > 0 {
            let why = "the log took nothing for too long";
            write(libc::LOG_WARNING, &format!("{count} messages are lost: {why}"));
        }
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod schedules {
    //! The queue under thread schedules that the test decides.

    use super::*;
    use crate::sys::sync::Mutex;
    use crate::sys::sync::scheduled::{Host, Race, STILL, finds, holds};
    use crate::sys::sync::thread as threads;

    const BOUND: Duration = Duration::from_secs(5);
    const SENDERS: usize = 2;
    const EACH: usize = 3;

    /// Every message is written or counted as lost, exactly once.
    fn messages() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&written);
        let queue = LogQueue::start(move |_, message| log.lock().push(message.to_owned()));
        let queue = Arc::new(queue.unwrap());
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let queue = Arc::clone(&queue);
                threads::spawn(move || {
                    (0..EACH).for_each(|n| queue.push(libc::LOG_ERR, format!("{sender} {n}")));
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        // Twice: the number of lost messages is reported after the next message.
        for _ in 0..2 {
            while !queue.flush(BOUND) {
                threads::yield_now();
            }
        }
        let (notes, messages): (Vec<String>, Vec<String>) =
            written.lock().drain(..).partition(|line| line.contains("lost"));
        let number = |line: &String| line.split(' ').next().unwrap().parse::<usize>().unwrap();
        let lost: usize = notes.iter().map(number).sum();
        assert_eq!(messages.len() + lost, SENDERS * EACH, "{messages:?} {notes:?}");
        let sorted = messages.iter().filter(|line| line.starts_with('0')).is_sorted();
        assert!(sorted, "{messages:?}");
    }

    const IMPATIENT: Host = Host { waits_end: |bound| bound == BOUND, ..STILL };

    #[test]
    fn no_message_is_lost_untold() {
        holds("the log's queue", STILL, messages);
        holds("the log's queue, and waits that end", IMPATIENT, messages);
    }

    #[test]
    fn messages_that_are_lost_untold_are_found() {
        finds(Race::LostInTwoSteps, STILL, messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sync::Mutex;

    #[test]
    fn a_log_that_takes_nothing_keeps_nobody_waiting() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&written);
        let queue = LogQueue::start(move |_, message| log.lock().push(message.to_owned()));
        let queue = queue.unwrap();
        let sent = ROOM + 500;
        {
            let _nobody_reads = written.lock();
            for number in 0..sent {
                queue.push(libc::LOG_ERR, number.to_string());
            }
            assert!(!queue.flush(Duration::from_millis(10)));
        }
        while !queue.flush(Duration::from_secs(5)) {}
        let written = written.lock();
        let (notes, messages): (Vec<_>, Vec<_>) =
            written.iter().partition(|line| line.ends_with("the log took nothing for too long"));
        let kept = messages.len();
        assert!((ROOM..=ROOM + 2).contains(&kept), "{kept} of {sent} messages were written");
        assert!(messages.iter().enumerate().all(|(at, line)| **line == at.to_string()));
        let lost: usize = notes
            .iter()
            .map(|line| line.split(' ').next().unwrap().parse::<usize>().unwrap())
            .sum();
        assert_eq!(kept + lost, sent);
    }
}
