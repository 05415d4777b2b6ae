//! The subsystems of a target, and the controllers that hosts have created in them.

use super::controller::Controller;
use super::subsystem::Subsystem;
use crate::sync::lock;
use idm_emulator::disks::Enclosure;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Subsystems, and the controllers that hosts have created in them.
pub struct Target {
    pub(super) enclosure: Arc<Enclosure>,
    subsystems: Vec<Arc<Subsystem>>,
    controllers: Mutex<Controllers>,
}

#[derive(Default)]
struct Controllers {
    last: u16,
    all: BTreeMap<u16, Arc<Controller>>,
}

/// Greatest controller identifier; greater numbers have a special meaning.
const MOST_CONTROLLERS: u16 = 0xFFEF;

impl Target {
    /// A target with these subsystems, without controllers.
    pub fn new(enclosure: Arc<Enclosure>, subsystems: Vec<Arc<Subsystem>>) -> Arc<Target> {
        Arc::new(Target { enclosure, subsystems, controllers: Mutex::default() })
    }

    pub(super) fn subsystem(&self, nqn: &str) -> Option<&Arc<Subsystem>> {
        self.subsystems.iter().find(|subsystem| subsystem.nqn() == nqn)
    }

    /// Makes a controller for a host. `None` if there are too many.
    pub(super) fn new_controller(
        &self,
        subsystem: &Arc<Subsystem>,
        host: &str,
    ) -> Option<Arc<Controller>> {
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

    pub(super) fn controller(&self, id: u16) -> Option<Arc<Controller>> {
        lock(&self.controllers).all.get(&id).cloned()
    }

    pub(super) fn remove_controller(&self, id: u16) {
        lock(&self.controllers).all.remove(&id);
    }
}
