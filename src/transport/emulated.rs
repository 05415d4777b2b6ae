//! An emulated drive through its socket.
//!
//! If the drive hangs, closing the connection ends a command that is not answered. A drive that is
//! configured to be slow still carries it out.

use super::drive::{CommandError, Data};
use super::scsi::{Port, ScsiCompletion};
use super::{Deadline, TransportError};
use crate::sys::sync::Mutex;
use crate::topology::port_of;
use core::time::Duration;
use idm_emulator::client::{Client, Error};
use idm_protocol::scsi::Cdb;
use std::path::{Path, PathBuf};

/// The socket of one drive. A connection carries one command at a time, so simultaneous commands
/// have a connection each.
pub struct Socket {
    path: PathBuf,
    port: String,
    idle: Mutex<Vec<Client>>,
}

impl Socket {
    /// A socket that is not connected yet: nothing is connected before the first command. The name
    /// of a port may follow the path, see [`port_of`].
    pub fn new(path: &Path) -> Socket {
        let (path, port) = port_of(path);
        Socket { path, port, idle: Mutex::default() }
    }
}

impl Port for Socket {
    fn execute(
        &self,
        cdb: &Cdb,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<ScsiCompletion, CommandError> {
        let named = |why: &dyn core::fmt::Display| format!("{}: {why}", self.path.display());
        let pooled = self.idle.lock().pop();
        let mut client = match pooled {
            Some(client) => client,
            None => Client::connect(&self.path)
                .map_err(|error| TransportError::NotSent(named(&error)))?
                .by_port(&self.port),
        };
        // The client may take an eighth longer than its time-out.
        let left = deadline.timeout(Duration::ZERO).ok_or_else(|| CommandError::too_late(""))?;
        let timeout = left - left / 8;
        let (data_out, room) = match data {
            Data::Out(bytes) => (bytes, &mut [][..]),
            Data::In(bytes) => (&[][..], bytes),
        };
        let reply =
            client.execute(cdb, data_out, room.len(), timeout).map_err(|error| match error {
                Error::NotSent(_) => TransportError::NotSent(named(&error)),
                Error::FateUnknown(_) => TransportError::Unknown(named(&error)),
            })?;
        self.idle.lock().push(client);
        let transferred = reply.data.len();
        match room.get_mut(..transferred) {
            Some(room) => room.copy_from_slice(&reply.data),
            None => {
                let why = format!("{transferred} bytes are more than were asked for");
                return Err(TransportError::Unknown(named(&why)).into());
            }
        }
        Ok(ScsiCompletion { status: reply.status, sense: reply.sense, transferred })
    }
}
