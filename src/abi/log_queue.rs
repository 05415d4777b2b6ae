//! What the library's own threads say, on its way to the log.
//!
//! syslog keeps those waiting who have something to say while nobody reads, as when journald hangs
//! with the host's disk. A thread that waits renews no locks and runs no kill command.

use crate::runtime::thread;
use core::ffi::c_int;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many messages may wait. What comes beyond is lost, and counted.
const ROOM: usize = 1000;

/// Messages that wait for the thread that writes them.
pub struct Queue {
    sender: SyncSender<Item>,
    lost: Arc<AtomicUsize>,
}

enum Item {
    Message(c_int, String),
    /// Tells when all before it is written.
    Mark(SyncSender<()>),
}

impl Queue {
    /// Starts the thread, which calls `write` with priority and message.
    pub fn start(write: impl Fn(c_int, &str) + Send + 'static) -> io::Result<Queue> {
        let (sender, receiver) = sync_channel(ROOM);
        let lost = Arc::new(AtomicUsize::new(0));
        let queue = Queue { sender, lost: Arc::clone(&lost) };
        thread::spawn("idm-log", move || run(&receiver, &lost, &write))?;
        Ok(queue)
    }

    /// Puts a message behind the others. Never waits.
    pub fn push(&self, priority: c_int, message: String) {
        if self.sender.try_send(Item::Message(priority, message)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all messages are written, but not longer than this. False if some are not.
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
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let why = "the log took nothing for too long";
            write(libc::LOG_WARNING, &format!("{count} messages are lost: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;

    #[test]
    fn a_log_that_takes_nothing_keeps_nobody_waiting() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&written);
        let queue = Queue::start(move |_, message| log.lock().unwrap().push(message.to_owned()));
        let queue = queue.unwrap();
        let sent = ROOM + 500;
        {
            let _nobody_reads = written.lock().unwrap();
            for number in 0..sent {
                queue.push(libc::LOG_ERR, number.to_string());
            }
            assert!(!queue.flush(Duration::from_millis(10)));
        }
        while !queue.flush(Duration::from_secs(5)) {}
        let written = written.lock().unwrap();
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
