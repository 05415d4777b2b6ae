//! Commands and replies, free of any transport.

use crate::Record;
use alloc::sync::Arc;
use core::fmt;

/// How a host holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// With any number of other hosts.
    Shared,
    /// Alone.
    Exclusive,
}

impl Mode {
    /// Whether two hosts may hold the same lock in these modes.
    pub const fn compatible(self, other: Mode) -> bool {
        matches!((self, other), (Mode::Shared, Mode::Shared))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Shared => "sh",
            Mode::Exclusive => "ex",
        })
    }
}

/// The group of the mutex table.
pub const GROUP_TABLE: u8 = 0x01;
/// In place of a group: the counters on read, the whole drive on write.
pub const GROUP_ALL: u8 = 0xFF;

/// The operation of a mutex command (docs/protocol.md, "What each command does").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MutexOp {
    /// 1: create and lock. Not used by hosts.
    Init,
    /// 2: lock if it is free (or shared, for a shared class); never waits.
    Trylock,
    /// 3: lock. Not used by hosts.
    Lock,
    /// 4: give up ownership; the only command that was seen to store a value.
    Unlock,
    /// 5: restart the owner's countdown, and take the class of the payload (conversion).
    Refresh,
    /// 6: take over from holders that are all timed out.
    Break,
    /// 7: remove the record.
    Destroy,
}

impl MutexOp {
    /// The number on the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            MutexOp::Init => 1,
            MutexOp::Trylock => 2,
            MutexOp::Lock => 3,
            MutexOp::Unlock => 4,
            MutexOp::Refresh => 5,
            MutexOp::Break => 6,
            MutexOp::Destroy => 7,
        }
    }

    /// The operation that a number on the wire stands for.
    pub const fn from_wire(number: u8) -> Option<MutexOp> {
        Some(match number {
            1 => MutexOp::Init,
            2 => MutexOp::Trylock,
            3 => MutexOp::Lock,
            4 => MutexOp::Unlock,
            5 => MutexOp::Refresh,
            6 => MutexOp::Break,
            7 => MutexOp::Destroy,
            _ => return None,
        })
    }
}

/// What a lock engine asks of one drive.
// A command lives on its way to a drive only, and nearly all of them have a record.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DriveCommand {
    /// Change one mutex. The record is the payload.
    Mutex(MutexOp, Record),
    /// Read the whole mutex table.
    ReadTable,
}

/// Which limit of a drive was reached (docs/protocol.md, "Limits").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Mutexes in the table (128 in the recorded firmware).
    Mutexes,
    /// Distinct hosts (32).
    Hosts,
    /// Hosts that share one mutex (32).
    HostsOfMutex,
}

/// What a drive made of a command. This says what came back, not what it means for a lock: the
/// same status means different things after different operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Done.
    Good,
    /// RESERVATION CONFLICT. TRYLOCK: another host holds the mutex; firmware of May 2020 also says
    /// so to the holder itself. BREAK: a live host holds it, or nobody does. UNLOCK and REFRESH:
    /// the sender does not hold it. DESTROY: it is held.
    Conflict,
    /// COMMAND TERMINATED. TRYLOCK: the sender holds it already. REFRESH to exclusive: other hosts
    /// share it. UNLOCK: the documents hint at a class that is not the mutex's.
    Terminated,
    /// The drive has no such mutex.
    NotFound,
    /// A table of the drive is full.
    Full(Limit),
    /// The mutex is in a state, class or ownership that does not go with the command (sense
    /// 04/04/22 of newer firmware; NVMe status C1h to C4h).
    WrongState,
    /// Not executed for now; it may be sent again (BUSY, TASK SET FULL, UNIT ATTENTION, not
    /// ready). BUSY was once documented as "held by another host", so it is no proof that the
    /// mutex is free.
    TryAgain,
    /// The drive does not know this command: it has no IDM.
    Unsupported,
    /// The drive itself answered that it refused or failed the command, for another reason. It may
    /// or may not have had its effect, but has none after the answer.
    Failed,
    /// The command certainly did not reach the drive.
    Unreachable,
    /// The command may or may not have had its effect, or may have it later: it was lost on the
    /// way, timed out or aborted, or its answer was lost.
    Uncertain,
}

/// What came back from one drive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To [`DriveCommand::Mutex`], or to any command that failed.
    Status(Status),
    /// To [`DriveCommand::ReadTable`]: all records of the table. They are shared, because one read
    /// may answer hundreds of locks.
    Table(Arc<[Record]>),
}
