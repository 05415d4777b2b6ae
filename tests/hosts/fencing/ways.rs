//! Ways of hosts to drives that can be cut or held up.

use super::super::{Bench, Host};
use super::id;
use lvmlockd_idm::config::Config;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// The state of a way.
#[derive(Clone, Copy)]
pub enum State {
    Open,
    /// Connections are closed.
    Cut,
    /// Commands and answers wait.
    Held,
}

/// A way to the socket of a drive.
pub struct Way {
    drive: &'static str,
    state: Arc<AtomicU8>,
    socket: PathBuf,
}

impl Way {
    pub fn new(bench: &Bench, drive: &'static str) -> Way {
        let socket = bench.state_dir(0).with_file_name(format!("{drive}.way"));
        let (state, to) = (Arc::new(AtomicU8::new(State::Open as u8)), bench.server.socket(drive));
        let (listener, now) = (UnixListener::bind(&socket).unwrap(), state.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&to)) else { return };
                if now.load(Ordering::SeqCst) == State::Cut as u8 {
                    continue;
                }
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (from, to) in [(client, server), back] {
                    let now = now.clone();
                    std::thread::spawn(move || carry(from, to, &now));
                }
            }
        });
        Way { drive, state, socket }
    }

    pub fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::SeqCst);
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream, now: &AtomicU8) {
    let mut buffer = [0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        while now.load(Ordering::SeqCst) == State::Held as u8 {
            std::thread::sleep(Duration::from_millis(5));
        }
        if now.load(Ordering::SeqCst) == State::Cut as u8
            || to.write_all(&buffer[..length]).is_err()
        {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

impl Bench {
    /// A host with reservations that is known to the drives by two ports. Some of these `ways`,
    /// each with the host that uses it, may be its own.
    pub fn host_by<const N: usize>(
        &self,
        number: u8,
        lease: Duration,
        ways: [(u8, &Way); N],
    ) -> Host {
        let by_port = |name: &String, path: u8| {
            let is_it = |(host, way): &&(u8, &Way)| *host == number && way.drive == name;
            let way = ways.iter().find(is_it).map(|(_, way)| way.socket.clone());
            let socket = way.unwrap_or_else(|| self.server.socket(name));
            let too = ["", "-too"][usize::from(path)];
            let port = format!("{}#host{number}.{path}", socket.display());
            (format!("/dev/{name}{too}"), PathBuf::from(port))
        };
        let both = |name: &String| [by_port(name, 0), by_port(name, 1)];
        self.host_with_config(number, id(number), |config| Config {
            lease,
            reservations: true,
            request_time: Some(lease / 4),
            emulated: self.drives.iter().flat_map(both).collect(),
            ..config
        })
    }
}
