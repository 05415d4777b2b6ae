//! Serves emulated drives on unix sockets: `<dir>/<name>.sock` for each drive, and
//! `<dir>/control.sock` for faults and questions.
//!
//! Every connection has a thread of its own and one command in flight. A drive's state belongs to
//! the server and outlives the clients.

mod control;
mod served_drive;

use crate::sync::lock;
use crate::{Drive, Profile, wire};
use nix::sys::socket::{Shutdown, shutdown};
use served_drive::ServedDrive;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// The description of a drive to serve.
#[derive(Clone, Debug)]
pub struct DriveSpec {
    /// The name of the drive and of its socket, also its serial number.
    pub name: String,
    /// The drive's behaviour.
    pub profile: Profile,
}

impl DriveSpec {
    /// Parses `<name>` or `<name>=<profile>`; see [`Profile::named`].
    pub fn parse(text: &str) -> Result<DriveSpec, String> {
        let (name, profile) = text.split_once('=').unwrap_or((text, "current"));
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.starts_with('.') || name == "control" || !name.chars().all(fits)
        {
            return Err(format!("{name:?} cannot be the name of a drive"));
        }
        Ok(DriveSpec {
            name: name.to_owned(),
            profile: Profile::by_name(profile)
                .ok_or_else(|| format!("there is no profile {profile:?}"))?,
        })
    }
}

/// The path of a server's control socket.
pub fn control_socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// The path of a drive's socket.
pub fn drive_socket(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}

/// A running server. Dropping it stops it and removes its sockets.
pub struct Server {
    bays: Arc<Bays>,
    control: Listener,
}

/// Drives and the directory of their sockets, which all threads share.
struct Bays {
    dir: PathBuf,
    all: BTreeMap<String, Bay>,
}

/// A drive and, while its power is on, its socket.
struct Bay {
    drive: Arc<ServedDrive>,
    listener: Mutex<Option<Listener>>,
}

impl Server {
    /// Starts to serve; on return all sockets accept connections. Creates `dir` if it is missing.
    /// Fails if another server serves there.
    pub fn start(dir: &Path, drives: &[DriveSpec]) -> io::Result<Server> {
        std::fs::create_dir_all(dir)?;
        // The control socket first: it shows whether another server is here.
        let control = UnixListener::bind(free(control_socket(dir))?)?;
        let mut bays = BTreeMap::new();
        for spec in drives {
            let drive = Drive::with_serial(spec.profile, &spec.name);
            let bay = Bay { drive: Arc::new(ServedDrive::new(drive)), listener: Mutex::new(None) };
            if bays.insert(spec.name.clone(), bay).is_some() {
                let _ = std::fs::remove_file(control_socket(dir));
                let twice = format!("drive {} is named twice", spec.name);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, twice));
            }
        }
        let bays = Arc::new(Bays { dir: dir.to_owned(), all: bays });
        let control = {
            let bays = Arc::clone(&bays);
            Listener::start(control, control_socket(dir), move |stream| {
                let bays = Arc::clone(&bays);
                // Without a thread the connection is closed, which the client reports.
                let _ = thread::Builder::new().spawn(move || control::serve(&bays, stream));
            })?
        };
        // From here on the drop of the server cleans up.
        let server = Server { bays, control };
        for name in server.bays.all.keys() {
            server.bays.power_on(name)?;
        }
        Ok(server)
    }

    /// The path of the drive's socket.
    pub fn socket(&self, name: &str) -> PathBuf {
        drive_socket(&self.bays.dir, name)
    }

    /// Executes a control command as if it had come through the control socket; `help` lists the
    /// commands. The error is a message for the user.
    pub fn control(&self, line: &str) -> Result<String, String> {
        control::execute(&self.bays, line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.control.stop();
        for name in self.bays.all.keys() {
            self.bays.power_off(name);
        }
        for bay in self.bays.all.values() {
            bay.drive.stop();
        }
    }
}

impl Bays {
    /// Opens the drive's socket; without effect if it is open.
    fn power_on(&self, name: &str) -> io::Result<()> {
        let Some(bay) = self.all.get(name) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut listener = lock(&bay.listener);
        if listener.is_none() {
            let path = drive_socket(&self.dir, name);
            let socket = UnixListener::bind(free(path.clone())?)?;
            let (drive, name) = (Arc::clone(&bay.drive), name.to_owned());
            *listener = Some(Listener::start(socket, path, move |stream| {
                let Some(connection) = drive.enter(&stream) else {
                    return;
                };
                let (worker, name) = (Arc::clone(&drive), name.clone());
                let served = thread::Builder::new().spawn(move || {
                    match serve(&worker, stream) {
                        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                            eprintln!("idm-emulator: drive {name}: closed a connection: {e}");
                        }
                        // A client that disconnects is no error, at any point.
                        _ => {}
                    }
                    worker.leave(connection);
                });
                if served.is_err() {
                    drive.leave(connection);
                }
            })?);
        }
        bay.drive.set_power(true);
        Ok(())
    }

    /// Closes the drive's socket and all connections. The table stays and leases go on, as after
    /// the cable was pulled; `reset` clears the table.
    fn power_off(&self, name: &str) {
        if let Some(bay) = self.all.get(name) {
            if let Some(mut listener) = lock(&bay.listener).take() {
                listener.stop();
            }
            bay.drive.set_power(false);
        }
    }
}

/// Serves one connection to its end.
fn serve(drive: &ServedDrive, mut stream: UnixStream) -> io::Result<()> {
    while let Some(request) = wire::Request::read(&mut stream)? {
        match drive.execute(&request, &stream) {
            Some(reply) => wire::write_answer(&mut stream, &reply, request.data_in_len)?,
            None => return stream.shutdown(std::net::Shutdown::Both),
        }
    }
    Ok(())
}

/// A path for a socket: a stale socket that nobody listens on is removed.
fn free(path: PathBuf) -> io::Result<PathBuf> {
    match UnixStream::connect(&path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another server listens on {}", path.display()),
        )),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && is_socket(&path) => {
            std::fs::remove_file(&path)?;
            Ok(path)
        }
        Err(_) => Ok(path),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// A listening socket and the thread that accepts on it.
struct Listener {
    socket: Arc<UnixListener>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(
        socket: UnixListener,
        path: PathBuf,
        mut accepted: impl FnMut(UnixStream) + Send + 'static,
    ) -> io::Result<Listener> {
        let socket = Arc::new(socket);
        let thread = {
            let socket = Arc::clone(&socket);
            thread::Builder::new().spawn(move || {
                while let Ok((stream, _)) = socket.accept() {
                    accepted(stream);
                }
            })?
        };
        Ok(Listener { socket, path, thread: Some(thread) })
    }

    /// Refuses connections from now on. A shut-down listening socket lets accept() fail.
    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = std::fs::remove_file(&self.path);
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
            let _ = thread.join();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}
