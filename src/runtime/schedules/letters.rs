//! The mailbox.

use super::*;
use std::collections::BTreeMap;

const SENDERS: u32 = 2;
/// Messages of each sender.
const EACH: u32 = 2;

/// Every message that is sent arrives, once and in its sender's order, without a further message; a
/// message that is left in the mailbox arrives with a later one that is sent.
fn messages() {
    let mailbox = Arc::new(Mailbox::default());
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let mailbox = mailbox.clone();
            threads::spawn(move || {
                for number in 0..EACH {
                    let last = number + 1 == EACH;
                    let message = (sender, number);
                    assert!(if last { mailbox.send(message) } else { mailbox.leave(message) });
                }
            })
        })
        .collect();
    let mut got: BTreeMap<u32, u32> = BTreeMap::new();
    let mut messages = VecDeque::new();
    while got.values().sum::<u32>() < SENDERS * EACH {
        mailbox.take(&mut messages, LONG);
        for (sender, number) in messages.drain(..) {
            let next = got.entry(sender).or_default();
            assert_eq!(*next, number, "sender {sender}");
            *next += 1;
        }
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    mailbox.close();
    assert!(!mailbox.send((0, 0)));
}

#[test]
fn no_message_is_lost_or_doubled() {
    holds("mailbox", STILL, messages);
    holds("mailbox, and waits that end", IMPATIENT, messages);
}

#[test]
fn a_wake_up_that_is_lost_is_found() {
    for race in [Race::WakeBeforePut, Race::AskBeforePut, Race::SleepUnseen] {
        finds(race, STILL, messages);
    }
}

/// Messages that are in the mailbox when it is closed, or come later, are dropped at once.
fn messages_at_the_end() {
    let mailbox = Arc::new(Mailbox::default());
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let mailbox = mailbox.clone();
            let (waiter, answer) = mpsc::channel::<()>();
            let asks = any(2) == 0;
            threads::spawn(move || {
                let _ = if asks { mailbox.send(waiter) } else { mailbox.leave(waiter) };
                assert!(answer.recv().is_err(), "nobody answers");
            })
        })
        .collect();
    let mut messages = VecDeque::new();
    if any(2) == 0 {
        mailbox.take(&mut messages, LONG);
    }
    mailbox.close();
    drop(messages);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn nobody_waits_for_an_answer_from_a_closed_mailbox() {
    holds("a closed mailbox", IMPATIENT, messages_at_the_end);
}

#[test]
fn a_message_that_is_put_into_a_closed_mailbox_is_found() {
    for race in [Race::CheckBeforePut, Race::DropBeforeClose] {
        finds(race, IMPATIENT, messages_at_the_end);
    }
}
