//! Emulated IDM disks over NVMe/TCP: disks of `idm-emulator` as NVMe subsystems with one namespace.
//!
//! A [`Target`] has the subsystems. A port is one path of one host to all of them: each has a TCP
//! socket of its own ([`serve`]), so that paths can be cut one by one. [`pdu`] is what travels,
//! [`controller`] what a controller does with a command, `connection` one TCP connection, which is
//! one queue.
//!
//! Layouts and numbers are those of the NVM Express base specification (2.0) and of its TCP
//! transport and NVM command set specifications.

#![forbid(unsafe_code)]

mod connection;
pub mod controller;
pub mod pdu;
mod subsystem;

pub use connection::serve;
pub use subsystem::{Identifier, NQN_PREFIX, Subsystem};

use controller::Controller;
use idm_emulator::disks::Floor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A lock whose data is valid even where a thread died while it held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Subsystems, and the controllers that hosts have made in them.
pub struct Target {
    floor: Arc<Floor>,
    subsystems: Vec<Arc<Subsystem>>,
    controllers: Mutex<Controllers>,
}

#[derive(Default)]
struct Controllers {
    last: u16,
    all: BTreeMap<u16, Arc<Controller>>,
}

/// The greatest controller identifier; those above have a meaning of their own.
const MOST_CONTROLLERS: u16 = 0xFFEF;

impl Target {
    /// These subsystems, and no controller yet.
    pub fn new(floor: Arc<Floor>, subsystems: Vec<Arc<Subsystem>>) -> Arc<Target> {
        Arc::new(Target { floor, subsystems, controllers: Mutex::default() })
    }

    fn subsystem(&self, nqn: &str) -> Option<&Arc<Subsystem>> {
        self.subsystems.iter().find(|subsystem| subsystem.nqn() == nqn)
    }

    /// Makes a controller for a host. `None` where there are too many.
    fn new_controller(&self, subsystem: &Arc<Subsystem>, host: &str) -> Option<Arc<Controller>> {
        let mut controllers = lock(&self.controllers);
        if controllers.all.len() >= usize::from(MOST_CONTROLLERS) {
            return None;
        }
        loop {
            controllers.last = controllers.last % MOST_CONTROLLERS + 1;
            if !controllers.all.contains_key(&controllers.last) {
                break;
            }
        }
        let id = controllers.last;
        let controller = Arc::new(Controller::new(id, Arc::clone(subsystem), host));
        controllers.all.insert(id, Arc::clone(&controller));
        Some(controller)
    }

    fn controller(&self, id: u16) -> Option<Arc<Controller>> {
        lock(&self.controllers).all.get(&id).cloned()
    }

    fn remove_controller(&self, id: u16) {
        lock(&self.controllers).all.remove(&id);
    }
}
