//! Access for programs other than lvmlockd; nothing in the library uses it.
//!
//! Only Rust programs of this tree use it. It exports no symbol to lvmlockd.

use crate::sys::clock;
pub use crate::sys::clock::now;
use crate::topology::{PathAddress, Topology};
use crate::transport::drive::{CommandError, Data, Request};
use crate::transport::{Deadline, Limits, RawAnswer, RawPath, ReserveAnswer, ReserveOrder};
use core::time::Duration;
use std::sync::Arc;

/// Longest time that a block node needs for a command; its time-out is never below 7 s.
const BLOCK_NODE: Duration = Duration::from_secs(8);

/// One path to one drive, with the drive's answers as they came. Nothing is sent again.
pub struct Probe {
    path: RawPath,
    step: Duration,
}

impl Probe {
    /// A path to the drive with that identity. `step` is the time-out of a command, where the
    /// kernel keeps to it. Nothing is opened before the first command.
    pub fn new(
        identity: &str,
        address: &PathAddress,
        topology: &Arc<Topology>,
        step: Duration,
    ) -> Probe {
        Probe { path: RawPath::new(identity, address, topology), step }
    }

    /// The drive's major IDM version; `None` where it has no IDM. Must be called first: a drive
    /// without IDM may mistake a mutex command for another one.
    pub fn version(&self) -> Result<Option<u8>, CommandError> {
        self.path.version(&deadline(self.step))
    }

    /// Sends one command.
    pub fn send(&self, request: Request, data: Data<'_>) -> Result<RawAnswer, CommandError> {
        self.path.execute(request, data, &deadline(self.step))
    }

    /// Carries out an order about reservations.
    pub fn reserve(&self, order: &ReserveOrder) -> Result<ReserveAnswer, CommandError> {
        self.path.reserve(order, &deadline(self.step))
    }
}

/// The deadline of a command with the time-out `step` from now on, where the kernel keeps to it.
/// Before the first command of a path, the question whether the drive has IDM gets the same time.
pub fn deadline(step: Duration) -> Deadline {
    let over = (2 * step).max(BLOCK_NODE);
    Limits { wait: step, step, over, lost: over }.deadline(clock::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::virtual_time;

    #[test]
    fn a_command_has_its_step_and_a_block_node_what_it_needs() {
        let _time = virtual_time();
        for step in [1, 3, 20].map(Duration::from_secs) {
            let short = deadline(step).timeout(Duration::from_millis(1));
            assert_eq!(short, Some(step));
            let block = deadline(step).timeout(Duration::from_secs(7));
            assert_eq!(block, Some(step.max(Duration::from_secs(7))));
        }
    }

    #[test]
    fn the_first_command_has_its_time_after_the_question() {
        let _time = virtual_time();
        for step in [1, 3, 10, 20].map(Duration::from_secs) {
            let first = deadline(step);
            // Both take the shortest time-out that NVMe allows.
            let shortest = Duration::from_secs(5).min(step * 2 / 3);
            assert!(first.keeping(shortest).timeout(shortest).is_some(), "{step:?}");
        }
    }
}
