//! A mailbox for messages from many threads to one.
//!
//! Unlike with a channel, a message can be left without waking the receiver: for many messages in a
//! row, a single wake-up costs a fraction of the processor time.

use crate::sys::sync::{Condvar, Mutex, MutexGuard, planted};
use core::time::Duration;
use std::collections::VecDeque;

/// A mailbox with any number of senders and one receiver.
pub struct Mailbox<T> {
    state: Mutex<MailboxState<T>>,
    arrived: Condvar,
}

struct MailboxState<T> {
    messages: VecDeque<T>,
    /// Whether the receiver waits and has not been woken.
    asleep: bool,
    closed: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Mailbox<T> {
        let state = MailboxState { messages: VecDeque::new(), asleep: false, closed: false };
        Mailbox { state: Mutex::new(state), arrived: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    fn state(&self) -> MutexGuard<'_, MailboxState<T>> {
        self.state.lock()
    }

    /// Delivers a message and wakes the receiver. Returns `false` and drops the message where there
    /// is no receiver any more.
    pub fn send(&self, message: T) -> bool {
        self.put(message, true)
    }

    /// Delivers a message that the receiver finds when it wakes for another reason.
    pub fn leave(&self, message: T) -> bool {
        self.put(message, false)
    }

    fn put(&self, message: T, wake: bool) -> bool {
        if planted!(WakeBeforePut) {
            self.arrived.notify_one();
        }
        let asleep = planted!(AskBeforePut).then(|| self.state().asleep);
        let mut state = self.state();
        if state.closed {
            // The message is dropped without the lock, because its drop may send another message.
            drop(state);
            return false;
        }
        if planted!(CheckBeforePut) {
            drop(state);
            state = self.state();
        }
        state.messages.push_back(message);
        let wakes = wake && asleep.unwrap_or(core::mem::take(&mut state.asleep));
        drop(state);
        if wakes && !planted!(WakeBeforePut) {
            self.arrived.notify_one();
        }
        true
    }

    /// Moves all messages, oldest first, into `into`, which must be empty. Where there is none,
    /// waits up to `bound` for one.
    pub fn take(&self, into: &mut VecDeque<T>, bound: Duration) {
        let mut state = self.state();
        if state.messages.is_empty() {
            if planted!(SleepUnseen) {
                drop(state);
                state = self.state();
            }
            state.asleep = true;
            state = self.arrived.wait_timeout(state, bound).0;
            state.asleep = false;
        }
        core::mem::swap(&mut state.messages, into);
    }

    /// Refuses messages from now on, and drops those that were not taken.
    pub fn close(&self) {
        let mut state = self.state();
        let dropped = core::mem::take(&mut state.messages);
        if planted!(DropBeforeClose) {
            drop(state);
            state = self.state();
        }
        state.closed = true;
        drop(state);
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(60);
    const NOW: Duration = Duration::ZERO;

    fn taken(mailbox: &Mailbox<u32>, bound: Duration) -> Vec<u32> {
        let mut into = VecDeque::new();
        mailbox.take(&mut into, bound);
        into.into()
    }

    /// Waits until the receiver is asleep.
    fn asleep(mailbox: &Mailbox<u32>) {
        while !mailbox.state().asleep {
            thread::yield_now();
        }
    }

    #[test]
    fn messages_come_in_order_and_all_at_once() {
        let mailbox = Mailbox::default();
        assert!(mailbox.send(1) && mailbox.leave(2) && mailbox.send(3));
        assert_eq!(taken(&mailbox, LONG), [1, 2, 3]);
        assert_eq!(taken(&mailbox, NOW), [0; 0]);
    }

    #[test]
    fn only_what_is_sent_wakes() {
        let mailbox = Arc::new(Mailbox::default());
        let receiver = mailbox.clone();
        let thread = thread::spawn(move || (taken(&receiver, LONG), Instant::now()));
        asleep(&mailbox);
        mailbox.leave(1);
        thread::sleep(Duration::from_millis(50));
        assert!(mailbox.state().asleep, "left, and not woken");
        let before = Instant::now();
        mailbox.send(2);
        let (messages, woken) = thread.join().unwrap();
        assert_eq!(messages, [1, 2]);
        assert!(woken >= before);
    }

    #[test]
    fn no_message_is_missed() {
        let mailbox = Arc::new(Mailbox::default());
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let mailbox = mailbox.clone();
                thread::spawn(move || (0..10_000).for_each(|n| assert!(mailbox.send(n))))
            })
            .collect();
        let mut count = 0;
        while count < 40_000 {
            // A missed wake-up shows as a minute without a message. Waits may end without reason.
            let begin = Instant::now();
            let messages = taken(&mailbox, LONG);
            assert!(!messages.is_empty() || begin.elapsed() < LONG, "{count}");
            count += messages.len();
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }

    #[test]
    fn a_closed_one_drops_messages() {
        let mailbox = Mailbox::default();
        let told = Arc::new(());
        assert!(mailbox.send(told.clone()));
        mailbox.close();
        assert!(!mailbox.send(told.clone()));
        assert_eq!(Arc::strong_count(&told), 1);
    }
}
