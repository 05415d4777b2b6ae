//! The lock that a request is for, its owner, and the result of the request.

use super::id::{Role, lv_uuid};
use super::refused::Refused;
use crate::sys::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::fmt;
use idm_engine::{Member, Outcome};
use idm_protocol::ResourceId;
use std::sync::Arc;

/// Owner of a lock: the part of a started lockspace that the runtime needs.
#[derive(Debug)]
pub struct Owner {
    /// Name for messages: `volume group vg0`, `the global lock`.
    pub name: String,
    /// VG for which the kill command is run when its locks are about to be lost. With `None`, lost
    /// locks are only logged, and the next request takes them again.
    pub kill: Option<String>,
    killed: AtomicBool,
    /// Number of its locks that were granted and not given up.
    in_use: AtomicUsize,
    /// Number of its locks that are about to be lost, or lost and not given up.
    in_danger: AtomicUsize,
    /// Whether the kill command was run for this danger.
    told: AtomicBool,
}

impl Owner {
    /// An owner that has lost no lock.
    pub fn new(name: String, kill: Option<String>) -> Owner {
        let (in_use, in_danger) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (killed, told) = (AtomicBool::new(false), AtomicBool::new(false));
        Owner { name, kill, killed, in_use, in_danger, told }
    }

    /// Whether locks of the lockspace were lost, so that it must be dropped.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// The number of its locks that are in use, even if they are lost.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Records that locks of the lockspace were lost, or are about to be. Returns whether this is
    /// the first time in this danger, which ends when no lock is in danger any more.
    pub(crate) fn set_killed(&self) -> bool {
        self.killed.store(true, Ordering::Release);
        !self.told.swap(true, Ordering::AcqRel)
    }

    /// Counts one more lock in use, or one less.
    pub(crate) fn count_in_use(&self, more: bool) {
        count(&self.in_use, more);
    }

    /// Whether a lock of the lockspace is in danger.
    pub(crate) fn is_in_danger(&self) -> bool {
        self.in_danger.load(Ordering::Relaxed) > 0
    }

    /// Counts one more lock in danger, or one less.
    pub(crate) fn count_in_danger(&self, more: bool) {
        if count(&self.in_danger, more) == 0 {
            self.told.store(false, Ordering::Release);
        }
    }
}

/// Counts one more, or one less; returns the number before.
fn count(counter: &AtomicUsize, more: bool) -> usize {
    match more {
        true => counter.fetch_add(1, Ordering::Relaxed),
        false => counter.fetch_sub(1, Ordering::Relaxed),
    }
}

/// The lock that a request is for.
#[derive(Clone, Debug)]
pub struct LockSpec {
    /// The mutex. Each mutex has one lock in the process, however many callers name it.
    pub resource: ResourceId,
    /// Role of the lock.
    pub role: Role,
    /// Owner that requests it.
    pub owner: Arc<Owner>,
}

/// The lock's name for messages, such as `the lock of volume group vg0`.
impl fmt::Display for LockSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = &self.owner.name;
        match self.role {
            Role::Global => f.write_str("the global lock"),
            Role::Vg => write!(f, "the lock of {owner}"),
            Role::Membership => write!(f, "the membership of {owner}"),
            Role::Lv => write!(f, "the lock of LV {} in {owner}", lv_uuid(&self.resource)),
        }
    }
}

/// Result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestResult {
    /// The engine's result, other than a refusal.
    Done(Outcome),
    /// Refused by the engine.
    Refused(Refused),
    /// Not begun, because the lockspace lost its locks.
    Killed,
    /// Another resource of this host holds the lock.
    InUse,
    /// Not begun, or given up without any effect.
    Failed(String),
    /// Not answered in time. Any later effect is undone.
    TimedOut,
}

/// Whether two lists without repetition name the same drives, in any order.
pub fn same_drives(a: &[Member], b: &[Member]) -> bool {
    a.len() == b.len() && a.iter().all(|drive| b.contains(drive))
}
