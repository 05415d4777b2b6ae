//! The sending side of a connection.

use super::pdu::{self, CommandOutcome, Sqe};
use super::subsystem::QUEUE_DEPTH;
use crate::sync::lock;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The sending side of a connection.
pub(super) struct Sender {
    stream: Mutex<TcpStream>,
    /// Handle that ends the connection without waiting for a sender.
    control: TcpStream,
    /// Position at which the host's submission queue is read next.
    head: AtomicU16,
    /// Number of entries of the queue.
    size: AtomicU16,
}

impl Sender {
    /// Makes the sending side of a connection whose queue has the greatest size.
    pub(super) fn new(stream: TcpStream) -> io::Result<Sender> {
        Ok(Sender {
            control: stream.try_clone()?,
            stream: Mutex::new(stream),
            head: AtomicU16::new(0),
            size: AtomicU16::new(QUEUE_DEPTH),
        })
    }

    /// Sets the number of entries of the host's submission queue.
    pub(super) fn set_queue_size(&self, entries: u16) {
        self.size.store(entries, Ordering::Relaxed);
    }

    /// Ends the connection when its host has been silent for this time.
    pub(super) fn set_read_timeout(&self, silence: Duration) -> io::Result<()> {
        self.control.set_read_timeout(Some(silence))
    }

    /// Sends bytes to the host.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        lock(&self.stream).write_all(bytes)
    }

    /// Answers a command: with its data, if it succeeded, and its completion queue entry.
    pub(super) fn complete(&self, command: &Sqe, done: &CommandOutcome) -> io::Result<()> {
        let room = command.data_len() as usize;
        let shown = &done.data[..done.data.len().min(room)];
        let mut bytes = Vec::new();
        if done.status == 0 {
            bytes.extend(pdu::data(command.command(), shown));
        }
        let size = self.size.load(Ordering::Relaxed).max(1);
        // The lock of the stream keeps this in the order of sending.
        let mut stream = lock(&self.stream);
        let head = (self.head.load(Ordering::Relaxed) + 1) % size;
        self.head.store(head, Ordering::Relaxed);
        bytes.extend(pdu::completion(command.command(), done.status, done.result, head));
        stream.write_all(&bytes)
    }

    /// Ends the connection.
    pub(super) fn shut_down(&self) {
        // The connection may be closed already.
        let _ = self.control.shutdown(Shutdown::Both);
    }
}
