//! Which lock a request is for, on whose behalf, and how it ended.

use super::id::{Role, lv_uuid};
use crate::sys::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::fmt;
use idm_engine::Outcome;
use idm_protocol::ResourceId;
use std::sync::Arc;

/// What a lock belongs to: a started lockspace, as far as the runtime needs to know it.
#[derive(Debug)]
pub struct Owner {
    /// For messages: `volume group vg0`, `the global lock`.
    pub name: String,
    /// The VG that the kill command is run for when its locks are about to be lost. `None`: locks
    /// that are lost are logged and taken again by the next request.
    pub kill: Option<String>,
    killed: AtomicBool,
    /// How many of its locks were granted and not given up.
    in_use: AtomicUsize,
    /// How many of its locks are about to be lost, or lost and not given up.
    in_danger: AtomicUsize,
    /// Whether the kill command was run for that.
    told: AtomicBool,
}

impl Owner {
    /// A lockspace that has lost nothing.
    pub fn new(name: String, kill: Option<String>) -> Owner {
        let (in_use, in_danger) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (killed, told) = (AtomicBool::new(false), AtomicBool::new(false));
        Owner { name, kill, killed, in_use, in_danger, told }
    }

    /// Whether locks of the lockspace were lost, so that it must be dropped.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// How many of its locks somebody relies on, whatever has become of them.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Takes note that locks of the lockspace were lost, or are about to be. Returns whether that
    /// is news in this danger, which ends when no lock is in danger any more.
    pub(crate) fn set_killed(&self) -> bool {
        self.killed.store(true, Ordering::Release);
        !self.told.swap(true, Ordering::AcqRel)
    }

    /// Takes note that one more of its locks is in use, or one less.
    pub(crate) fn count_in_use(&self, more: bool) {
        count(&self.in_use, more);
    }

    /// Whether a lock of the lockspace is in danger.
    pub(crate) fn is_in_danger(&self) -> bool {
        self.in_danger.load(Ordering::Relaxed) > 0
    }

    /// Takes note that one more of its locks is in danger, or one less.
    pub(crate) fn count_in_danger(&self, more: bool) {
        if count(&self.in_danger, more) == 0 {
            self.told.store(false, Ordering::Release);
        }
    }
}

/// Counts one more, or one less; tells how many there were.
fn count(counter: &AtomicUsize, more: bool) -> usize {
    match more {
        true => counter.fetch_add(1, Ordering::Relaxed),
        false => counter.fetch_sub(1, Ordering::Relaxed),
    }
}

/// Which lock a request is for.
#[derive(Clone, Debug)]
pub struct LockSpec {
    /// The mutex. There is one lock of each in the process, however many callers name it.
    pub resource: ResourceId,
    /// What it is for.
    pub role: Role,
    /// Who asks.
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

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestResult {
    /// As the engine says.
    Done(Outcome),
    /// Refused, because the lockspace lost its locks.
    Killed,
    /// Another resource of this host holds the lock.
    InUse,
    /// Not begun, or given up; nothing of it remains.
    Failed(String),
    /// Not answered in time. Whatever comes of it later is undone.
    TimedOut,
}
