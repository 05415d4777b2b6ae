//! Access to an emulated drive through its socket, and to the server through its control socket.

use crate::ScsiReply;
use crate::wire::{self, Request};
use core::fmt;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The reason why there is no answer.
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

/// A blocking connection to one emulated drive, for one command at a time. Several commands in
/// flight need several clients.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    /// Name of the port by which the drive knows the host.
    port: String,
    /// `None` after an error: the next command connects again.
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    /// The socket's own timeout for one read. Setting it again costs as much as a read.
    read_timeout: Option<Duration>,
}

impl Client {
    /// Connects to the drive whose socket is at `path`.
    pub fn connect(path: impl Into<PathBuf>) -> io::Result<Client> {
        let path = path.into();
        let connection = Some(Connection::to(&path)?);
        Ok(Client { path, port: String::new(), connection })
    }

    /// The same client by the port with this name, for reservations. Path N of a host has the name
    /// `HOST.N`.
    pub fn by_port(self, port: &str) -> Client {
        Client { port: port.to_owned(), ..self }
    }

    /// Sends one command to the drive and waits for its answer, for at most `timeout` and an
    /// eighth. `data_in_len` is the room for its data in bytes. Replaces a broken connection by a
    /// new one.
    pub fn execute(
        &mut self,
        cdb: &[u8],
        data_out: &[u8],
        data_in_len: usize,
        timeout: Duration,
    ) -> Result<ScsiReply, Error> {
        let deadline = Instant::now() + timeout;
        let frame =
            Request::frame(&self.port, cdb, data_out, data_in_len).map_err(Error::NotSent)?;
        // Taken out, and put back only after a success: the remains of a broken or late exchange in
        // the stream must not look like the next answer.
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::to(&self.path).map_err(Error::NotSent)?,
        };
        let mut timed = Timed { connection, deadline };
        // The drive executes whole requests only, so an incomplete request counts as not sent, and
        // may be sent over a new connection.
        if timed.write_all(&frame).is_err() {
            timed.connection = Connection::to(&self.path).map_err(Error::NotSent)?;
            timed.write_all(&frame).map_err(Error::NotSent)?;
        }
        // An answer without data needs one read. Nothing follows it that could be lost here.
        let mut buffered = BufReader::with_capacity(512, &mut timed);
        let reply = wire::read_answer(&mut buffered).map_err(Error::FateUnknown)?;
        self.connection = Some(timed.connection);
        Ok(reply)
    }
}

impl Connection {
    fn to(path: &Path) -> io::Result<Connection> {
        Ok(Connection { stream: UnixStream::connect(path)?, read_timeout: None })
    }

    /// Bounds the next read by `left` and an eighth of it.
    fn bound_read(&mut self, left: Duration) -> io::Result<()> {
        let fits = |set: Duration| set >= left && set <= left + left / 8;
        if !self.read_timeout.is_some_and(fits) {
            let bound = left + left / 16;
            self.stream.set_read_timeout(Some(bound))?;
            self.read_timeout = Some(bound);
        }
        Ok(())
    }
}

/// A connection with one deadline for all reads and writes.
struct Timed {
    connection: Connection,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// The kernel reports EAGAIN when a socket's timeout is over.
fn as_timeout(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => e,
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left()?;
        self.connection.bound_read(left)?;
        self.connection.stream.read(buffer).map_err(as_timeout)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left()?;
        let stream = &self.connection.stream;
        // Not write(): a server that has gone must not raise SIGPIPE in a host program.
        let flags = MsgFlags::MSG_NOSIGNAL;
        // Mostly there is room, so no wait is necessary.
        match send(stream.as_raw_fd(), bytes, flags | MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => {
                stream.set_write_timeout(Some(left))?;
                send(stream.as_raw_fd(), bytes, flags).map_err(|e| as_timeout(e.into()))
            }
            sent => sent.map_err(io::Error::from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
