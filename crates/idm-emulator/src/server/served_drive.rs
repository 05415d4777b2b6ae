//! One drive in a server: the model, its clock, its faults and its connections.

use crate::reservation::scsi::{Nexus, UnitReservations, conflict};
use crate::sync::lock;
use crate::wire::Request;
use crate::{Drive, DriveTime, Nonsense, ScsiReply, cdb};
use idm_protocol::reservation::scsi::{RESERVE_IN, RESERVE_OUT};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A drive that many connections use at once.
pub(super) struct ServedDrive {
    state: Mutex<DriveState>,
    /// Faults, power or connections changed.
    changed: Condvar,
}

/// The data that [`ServedDrive`] guards.
pub(super) struct DriveState {
    pub drive: Drive,
    pub reservations: UnitReservations,
    pub faults: Faults,
    /// Commands that arrived, by kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// The moment when the drive's clock was zero.
    start: Instant,
    /// The time that was added to the drive's clock.
    skipped: Duration,
    powered: bool,
    connections: BTreeMap<u64, UnixStream>,
    next_connection: u64,
}

/// Deliberate faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Whether commands wait until this is off. Those whose client has disconnected by then are
    /// aborted.
    pub hang: bool,
    /// The time that a command waits before it is executed, even if its client disconnects
    /// meanwhile.
    pub delay: Duration,
    /// An answer without effect, and the number of commands that get it.
    pub fail: Option<(ScsiReply, u64)>,
    /// The number of commands that are executed, but not answered.
    pub lose_reply: u64,
    /// The source of nonsense for about half of the answers to mutex commands, which are executed.
    pub nonsense: Option<Nonsense>,
}

impl DriveState {
    /// The drive's clock.
    pub fn now(&self) -> DriveTime {
        let elapsed = self.start.elapsed() + self.skipped;
        DriveTime::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }

    /// The drive's answer to a command. A conflict comes first, then a unit attention condition.
    fn answer(&mut self, request: &Request) -> ScsiReply {
        let Request { port, cdb, data_out, .. } = request;
        let nexus = Nexus::of_port(port);
        let idm = self.drive.profile().idm_commands_respect_reservations;
        if !self.reservations.permits(&nexus, cdb, idm) {
            return conflict();
        }
        if let Some(attention) = self.reservations.before(&nexus, port, cdb) {
            return attention;
        }
        match cdb.first() {
            Some(&(RESERVE_IN | RESERVE_OUT)) => self.reservations.execute(&nexus, cdb, data_out),
            _ => self.drive.execute(self.now(), cdb, data_out),
        }
    }

    /// Lets the drive's clock jump ahead.
    pub fn skip_time(&mut self, by: Duration) {
        self.skipped = self.skipped.saturating_add(by);
    }
}

/// Takes one from a counter that is not zero.
fn count_down(counter: &mut u64) -> bool {
    let some = *counter > 0;
    *counter = counter.saturating_sub(1);
    some
}

impl ServedDrive {
    pub fn new(drive: Drive) -> ServedDrive {
        ServedDrive {
            state: Mutex::new(DriveState {
                drive,
                reservations: UnitReservations::default(),
                faults: Faults::default(),
                counts: BTreeMap::new(),
                start: Instant::now(),
                skipped: Duration::ZERO,
                powered: false,
                connections: BTreeMap::new(),
                next_connection: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Calls `act` to read or change the drive and its faults.
    pub fn with<T>(&self, act: impl FnOnce(&mut DriveState) -> T) -> T {
        let result = act(&mut lock(&self.state));
        self.changed.notify_all();
        result
    }

    /// Begins a connection; `None` if the power is off.
    pub fn enter(&self, stream: &UnixStream) -> Option<u64> {
        self.with(|state| {
            let clone = stream.try_clone().ok().filter(|_| state.powered)?;
            let id = state.next_connection;
            state.next_connection += 1;
            state.connections.insert(id, clone);
            Some(id)
        })
    }

    /// Ends a connection.
    pub fn leave(&self, connection: u64) {
        self.with(|state| state.connections.remove(&connection));
    }

    /// Switches the power; power off ends all connections.
    pub fn set_power(&self, on: bool) {
        self.with(|state| {
            state.powered = on;
            if !on {
                for stream in state.connections.values() {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                }
            }
        });
    }

    /// Waits until the last connection has ended. The power must be off.
    pub fn stop(&self) {
        let mut state = lock(&self.state);
        while !state.connections.is_empty() {
            state = self.wait(state, None);
        }
    }

    /// Executes a command from `client`; `None` if the command gets no answer and the connection
    /// must be closed.
    pub fn execute(&self, request: &Request, client: &UnixStream) -> Option<ScsiReply> {
        let mut state = lock(&self.state);
        *state.counts.entry(cdb::kind(&request.cdb)).or_default() += 1;
        if state.faults.hang {
            while state.faults.hang && state.powered {
                state = self.wait(state, None);
            }
            if has_gone(client) {
                return None;
            }
        }
        let due = Instant::now() + state.faults.delay;
        while state.powered && Instant::now() < due {
            state = self.wait(state, Some(due));
        }
        if !state.powered {
            return None;
        }
        if let Some((reply, left)) = &mut state.faults.fail {
            if count_down(left) {
                return Some(reply.clone());
            }
        }
        let mut reply = state.answer(request);
        // Data beyond the room is not sent, so it cannot be nonsense either.
        reply.data.truncate(request.data_in_len);
        if let Some(nonsense) = &mut state.faults.nonsense {
            if cdb::is_mutex_command(&request.cdb) {
                nonsense.spoil_scsi(&mut reply);
            }
        }
        if count_down(&mut state.faults.lose_reply) {
            return None;
        }
        Some(reply)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, DriveState>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, DriveState> {
        match until {
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Whether the other side has closed the connection.
fn has_gone(client: &UnixStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(client.as_raw_fd(), &mut [0], flags) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => e != Errno::EAGAIN && io::Error::from(e).kind() != io::ErrorKind::Interrupted,
    }
}
