//! Settings of a runtime.

use crate::fencing::Fencing;
use crate::fencing::reservations::Reservations;
use crate::fencing::safe_note::SafeNote;
use crate::fencing::watchdog::Watchdog;
use crate::state::undo_note::{Earlier, UndoNote};
use crate::sys::sync::mpsc::Sender;
use idm_engine::Timing;
use idm_protocol::{HostId, ResourceId};
use std::sync::Arc;

/// Settings of a runtime.
pub struct Settings {
    /// This host.
    pub host: HostId,
    /// Times of the locks.
    pub timing: Timing,
    /// Times of the steps before a lock may be lost.
    pub fencing: Fencing,
    /// Reservations, where they are used: no lock of a dead host is taken before the drives have
    /// stopped taking its data.
    pub reservations: Option<Arc<Reservations>>,
    /// Watchdog that resets the host, where one is used.
    pub watchdog: Option<Arc<Watchdog>>,
    /// Note for the next lvmlockd: the times until which locks were safe.
    pub note: Option<Arc<SafeNote>>,
    /// Note for the next lvmlockd: the time until which commands of this one may undo the next
    /// one's locks.
    pub undo_note: Option<UndoNote>,
    /// Dates until which commands of earlier lives may still reach drives.
    pub earlier: Earlier,
    /// Receives locks that other drives are ready to vote for. The receiver notes the drives
    /// ([`votes_ready`]) and moves the votes ([`move_votes`]).
    ///
    /// [`votes_ready`]: super::Runtime::votes_ready
    /// [`move_votes`]: super::Runtime::move_votes
    pub votes: Option<Sender<ResourceId>>,
    /// Program and arguments that are run when a VG's locks are about to be lost.
    pub kill_command: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}
