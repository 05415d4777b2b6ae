//! The hosts that may write: a host that lost a lock is removed from the drives before another one
//! gets the lock.
//!
//! Each host that uses a volume group registers a key of its own on every drive of the group, and
//! all of them together hold a reservation *Write Exclusive, All Registrants*. A host that is not
//! registered cannot write. A lock of a dead host is broken only after that host's key has been
//! removed from the drives ([`Fence`]). So no clock and no program on the dead host matters for the
//! data: a lease only decides when a host is suspected.
//!
//! This crate decides and does nothing else: no I/O, no clock, no threads. A [`Procedure`] hands
//! out one [`Action`] at a time for each drive, and takes in the [`Answer`].
//!
//! * [`Enrolment`] registers this host, before it counts as one that has the group started.
//! * [`Fence`] comes before a command that takes a lock from another host.
//! * [`Watch`] looks whether this host has been removed itself.
//! * [`Departure`] removes this host's own registrations when it has stopped the group.

// Without std there is no clock, no thread and no I/O: the compiler enforces it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod departure;
mod enrolment;
mod fence;
mod key;
mod rules;
mod seen;
mod watch;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
pub use departure::Departure;
pub use enrolment::{Enrolled, Enrolment};
pub use fence::{Fence, Order, Verdict};
use idm_engine::DriveRef;
use idm_protocol::reservation::ReservationType;
use idm_protocol::{HostId, Record};
pub use key::Key;
#[cfg(feature = "broken-rules")]
pub use rules::BrokenRule;
pub use rules::Rules;
pub use seen::Seen;
pub use watch::{Findings, Watch};

/// The type of the reservation: only registrants may write, and each of them holds it, so that it
/// stays while any of them does.
pub const KIND: ReservationType = ReservationType::WriteExclusiveAllRegistrants;

/// An order to one drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the mutex table.
    Read,
    /// Read the mutex table, all keys, the reservation and the capabilities.
    Look,
    /// Register this host's key by every path, for good (through a loss of power, too).
    Register {
        /// Whether a path gets the key whatever was registered there. Otherwise the path must have
        /// the key already.
        anew: bool,
    },
    /// Reserve with the type [`KIND`].
    Reserve,
    /// Remove this host's key by every path.
    Unregister,
    /// PREEMPT AND ABORT: remove all registrants with this key, and their commands.
    Preempt(Key),
}

/// The end of an order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Answer to [`Action::Read`].
    Table(Arc<[Record]>),
    /// Answer to [`Action::Look`].
    Seen(Seen),
    /// Done.
    Done,
    /// RESERVATION CONFLICT.
    Conflict,
    /// The drive has no such command.
    Unsupported,
    /// No answer, or one that says nothing. The order may have been carried out.
    Silent,
}

/// The reason why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obstacle {
    /// The drive does not answer.
    Silent(DriveRef),
    /// The drive has no reservations of this type, or loses them with its power.
    Unsupported(DriveRef),
    /// The drive's data is reserved otherwise, or this key is not of this library.
    Foreign(DriveRef, Option<u64>),
    /// Nothing is reserved: the drive lets everybody write.
    NotReserved(DriveRef),
    /// The host is alive: the drive has a record of it whose lease runs.
    Alive(HostId, DriveRef),
    /// The host uses the group and is not registered on the drive.
    NotRegistered(HostId, DriveRef),
    /// The key is registered again and again.
    Stays(Key, DriveRef),
    /// This host was removed from the drive while it had something in use there.
    Removed(DriveRef),
    /// This host is not registered on the drive, and devices of another group are active there. It
    /// may have lost their locks.
    OthersInUse(DriveRef),
    /// An order of this host to remove its registration may still reach the drive.
    Leaving(DriveRef),
    /// Fewer drives than a majority were read, so that a living host may be overlooked.
    TooFew {
        /// Drives that were read.
        seen: usize,
        /// Drives of a majority.
        needed: usize,
    },
}

impl Obstacle {
    /// The drive with the obstacle.
    pub fn drive(&self) -> Option<DriveRef> {
        match *self {
            Obstacle::Silent(drive)
            | Obstacle::Unsupported(drive)
            | Obstacle::Foreign(drive, _)
            | Obstacle::NotReserved(drive)
            | Obstacle::Alive(_, drive)
            | Obstacle::NotRegistered(_, drive)
            | Obstacle::Stays(_, drive)
            | Obstacle::Removed(drive)
            | Obstacle::OthersInUse(drive)
            | Obstacle::Leaving(drive) => Some(drive),
            Obstacle::TooFew { .. } => None,
        }
    }
}

/// Describes the obstacle; "it" is the drive that [`Obstacle::drive`] names.
impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Silent(_) => f.write_str("it does not answer"),
            Obstacle::Unsupported(_) => f.write_str(
                "it has no reservations of the type Write Exclusive, All Registrants that outlive \
                 a loss of power",
            ),
            Obstacle::Foreign(_, Some(key)) => match key::lvm_host_id(*key) {
                Some(id) => {
                    write!(f, "lvm's own reservations have registered {key:#x}, for host_id {id}")
                }
                None => write!(f, "something else has registered the key {key:#x}"),
            },
            Obstacle::Foreign(_, None) => f.write_str("something else has reserved it"),
            Obstacle::NotReserved(_) => f.write_str("nothing is reserved there"),
            Obstacle::Alive(host, _) => {
                write!(f, "host {host} is alive there, although its lease on the lock ran out")
            }
            Obstacle::NotRegistered(host, _) => {
                write!(f, "host {host} uses the volume group and is not registered there")
            }
            Obstacle::Stays(key, _) => {
                write!(f, "the key {key} is registered there again and again")
            }
            Obstacle::Removed(_) => f.write_str("this host was removed from it by another one"),
            Obstacle::OthersInUse(_) => f.write_str(
                "this host is not registered there, and logical volumes of another volume group \
                 are active on it, whose locks another host may have taken. Deactivate them, or \
                 start that volume group, and repeat the command",
            ),
            Obstacle::Leaving(_) => f.write_str(
                "an order of this host to remove its registration, from the stop of a volume \
                 group, may still reach it; repeat the command, at most a lease later",
            ),
            Obstacle::TooFew { seen, needed } => {
                write!(f, "{seen} drives of the volume group were read, {needed} are needed")
            }
        }
    }
}

/// A sequence of orders.
///
/// [`next`](Procedure::next) is called until it has none; then it waits for answers. Each order
/// gets exactly one answer, and no drive has two at a time. It is over when there is no order left
/// and none is under way.
pub trait Procedure {
    /// The result of the whole sequence.
    type Outcome;

    /// The next order that can be given now.
    fn next(&mut self) -> Option<(DriveRef, Action)>;

    /// Takes in the answer to the order that the drive got.
    fn on_answer(&mut self, drive: DriveRef, answer: Answer);

    /// The outcome, once it is over.
    fn outcome(&self) -> Option<&Self::Outcome>;
}

/// Orders that can be given, and the number of those under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Orders {
    ready: Vec<(DriveRef, Action)>,
    open: usize,
}

impl Orders {
    fn give(&mut self, drive: DriveRef, action: Action) {
        self.ready.push((drive, action));
    }

    fn next(&mut self) -> Option<(DriveRef, Action)> {
        let next = self.ready.pop()?;
        self.open += 1;
        Some(next)
    }

    fn answered(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    fn is_over(&self) -> bool {
        self.ready.is_empty() && self.open == 0
    }
}
