//! Emulated disks: drives with disk data, for any kind of connection to machines.
//!
//! A [`Disk`] is a drive of the model with its clock and its data. A machine sends it commands by a
//! *port*, which is one path of one host; every front end has its own kind. A [`Gate`] applies the
//! rules of [`faults`] to a command, and [`control`] lets a test make rules and ask questions. An
//! [`Enclosure`] contains the disks, rules and connections that all ports share.

pub mod control;
mod disk;
pub mod faults;
mod gate;
mod reserved;

pub use disk::{BLOCK, DataError, Disk, Interface, MOST_BLOCKS};
pub use gate::{Gate, ServiceResponse, TargetCommand};

use crate::Nonsense;
use crate::sync::lock;
use faults::Rules;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A connection of a machine.
pub trait Connection: Send + Sync {
    /// Handles a change of the rules: waiting commands may go on, and a path may appear or vanish.
    fn rules_changed(&self);
}

/// Disks, rules and connections that all ports share.
#[derive(Default)]
pub struct Enclosure {
    /// The disks.
    pub disks: Vec<Arc<Disk>>,
    rules: Mutex<Rules>,
    nonsense: Mutex<Nonsense>,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    last: u64,
    all: BTreeMap<u64, (String, Arc<dyn Connection>)>,
}

/// The identifier of a connection, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId(u64);

impl Enclosure {
    /// An enclosure with these disks, and no connection yet.
    pub fn new(disks: Vec<Arc<Disk>>) -> Arc<Enclosure> {
        Arc::new(Enclosure { disks, ..Enclosure::default() })
    }

    fn with_nonsense(&self, act: impl FnOnce(&mut Nonsense)) {
        act(&mut lock(&self.nonsense));
    }

    /// Reads or changes the rules, and informs all connections.
    pub fn with_rules<T>(&self, act: impl FnOnce(&mut Rules) -> T) -> T {
        let result = self.with_rules_quietly(act);
        // Not under the lock: a connection may end because of it.
        let connections: Vec<_> =
            lock(&self.connections).all.values().map(|(_, one)| Arc::clone(one)).collect();
        for connection in connections {
            connection.rules_changed();
        }
        result
    }

    /// Reads or changes the rules without informing the connections: `act` lifts no rule.
    pub fn with_rules_quietly<T>(&self, act: impl FnOnce(&mut Rules) -> T) -> T {
        act(&mut lock(&self.rules))
    }

    /// The disk with this name.
    pub fn disk(&self, name: &str) -> Option<&Arc<Disk>> {
        self.disks.iter().find(|disk| disk.name() == name)
    }

    /// Adds a connection by the port with this name.
    pub fn connect(&self, port: &str, connection: Arc<dyn Connection>) -> ConnectionId {
        let mut connections = lock(&self.connections);
        connections.last += 1;
        let id = connections.last;
        connections.all.insert(id, (port.to_owned(), connection));
        ConnectionId(id)
    }

    /// Removes a connection.
    pub fn disconnect(&self, id: ConnectionId) {
        lock(&self.connections).all.remove(&id.0);
    }

    /// Names of the ports that a machine is connected to, each once.
    pub fn connected(&self) -> Vec<String> {
        let mut names: Vec<String> =
            lock(&self.connections).all.values().map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}
