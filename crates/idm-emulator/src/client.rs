//! Reaches an emulated drive through its socket, and the server through its control socket.

use crate::ScsiReply;
use crate::wire::{self, Request};
use core::fmt;
use nix::sys::socket::{MsgFlags, send};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// The drive certainly does not execute the command.
    NotSent(io::Error),
    /// The drive may or may not execute the command, now or later.
    FateUnknown(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotSent(e) => write!(f, "the command was not sent: {e}"),
            Error::FateUnknown(e) => write!(f, "the command was sent, but not answered: {e}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::NotSent(e) | Error::FateUnknown(e) => Some(e),
        }
    }
}

/// A blocking connection to one emulated drive, for one command at a time. For several commands
/// in flight use several clients.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    /// `None` after an error: the next command connects anew.
    stream: Option<UnixStream>,
}

impl Client {
    /// Connects to the drive whose socket is at `path`.
    pub fn connect(path: impl Into<PathBuf>) -> io::Result<Client> {
        let path = path.into();
        let stream = Some(UnixStream::connect(&path)?);
        Ok(Client { path, stream })
    }

    /// Has the drive execute one command and waits for its answer, for at most `timeout`.
    /// `data_in_len` is the room for its data in bytes. A connection that broke is made anew.
    pub fn execute(
        &mut self,
        cdb: &[u8],
        data_out: &[u8],
        data_in_len: usize,
        timeout: Duration,
    ) -> Result<ScsiReply, Error> {
        let deadline = Instant::now() + timeout;
        let frame = Request::frame(cdb, data_out, data_in_len).map_err(Error::NotSent)?;
        // Taken out, and put back only when all went well: what a broken or late exchange leaves
        // in the stream must not be taken for the next answer.
        let mut timed = match self.stream.take() {
            Some(stream) => Timed { stream, deadline },
            None => self.reconnect(deadline)?,
        };
        // The drive executes whole requests only, so one that could not be written is not sent,
        // and may be sent over a new connection.
        if timed.write_all(&frame).is_err() {
            timed = self.reconnect(deadline)?;
            timed.write_all(&frame).map_err(Error::NotSent)?;
        }
        let reply = wire::read_answer(&mut timed).map_err(Error::FateUnknown)?;
        self.stream = Some(timed.stream);
        Ok(reply)
    }

    fn reconnect(&self, deadline: Instant) -> Result<Timed, Error> {
        let stream = UnixStream::connect(&self.path).map_err(Error::NotSent)?;
        Ok(Timed { stream, deadline })
    }
}

/// A stream with one deadline for all that is read and written.
struct Timed {
    stream: UnixStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

/// The kernel says EAGAIN when a socket's timeout is over.
fn as_timeout(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => e,
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer).map_err(as_timeout)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        // Not write(): a server that has gone must not raise SIGPIPE in a host program.
        send(self.stream.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)
            .map_err(|e| as_timeout(e.into()))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Sends one line to the control socket of the server in `dir`; see
/// [`Server::control`](crate::server::Server::control). The inner result is the server's.
pub fn control(dir: &Path, line: &str) -> io::Result<Result<String, String>> {
    let mut stream = UnixStream::connect(crate::server::control_socket(dir))?;
    stream.write_all(line.as_bytes())?;
    stream.write_all(b"\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once('\n') {
        Some(("ok", text)) => Ok(Ok(text.to_owned())),
        Some(("error", text)) => Ok(Err(text.trim_end().to_owned())),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection without an answer",
        )),
    }
}
