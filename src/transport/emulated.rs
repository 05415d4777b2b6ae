//! An emulated drive through its socket.
//!
//! What ends a command that is not answered: the end of its connection, where the drive hangs. One
//! that is told to be slow carries it out all the same.

use super::drive::{CommandError, Data};
use super::scsi::{Port, ScsiCompletion};
use super::{Deadline, TransportError};
use crate::sys::sync::Mutex;
use core::time::Duration;
use idm_emulator::client::{Client, Error};
use idm_protocol::scsi::Cdb;
use std::path::PathBuf;

/// The socket of one drive. A connection carries one command at a time, so there are as many as
/// commands at the same time.
pub struct Socket {
    path: PathBuf,
    idle: Mutex<Vec<Client>>,
}

impl Socket {
    /// Nothing is connected before the first command.
    pub fn new(path: PathBuf) -> Socket {
        Socket { path, idle: Mutex::default() }
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
                .map_err(|error| TransportError::NotSent(named(&error)))?,
        };
        // The client may take an eighth more than it is given.
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
