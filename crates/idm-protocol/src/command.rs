//! Commands and replies, free of any transport.

use crate::Record;
use alloc::sync::Arc;
use core::fmt;

/// The mode in which a host holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Together with any number of other hosts.
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
/// All groups: a read returns the counters, a write concerns the whole drive.
pub const GROUP_ALL: u8 = 0xFF;

/// The operation of a mutex command (docs/protocol.md, "What each command does").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MutexOp {
    /// 1: create and lock. Hosts do not use it.
    Init,
    /// 2: lock if it is free (or shared, for a shared class); never waits.
    Trylock,
    /// 3: lock. Hosts do not use it.
    Lock,
    /// 4: give up ownership; the only command that a trace shows to store a value.
    Unlock,
    /// 5: restart the owner's countdown, and take the class of the payload (conversion).
    Refresh,
    /// 6: take over from holders whose leases have all timed out.
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

    /// The operation with this number on the wire.
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

/// A lock engine's request to one drive.
// A command lives only on its way to a drive, and nearly all commands have a record.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DriveCommand {
    /// Changes one mutex. The record is the payload.
    Mutex(MutexOp, Record),
    /// Reads the whole mutex table.
    ReadTable,
}

/// The limit of a drive that was reached (docs/protocol.md, "Limits").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Mutexes in the table (128 in the recorded firmware).
    Mutexes,
    /// Distinct hosts (32).
    Hosts,
    /// Hosts that share one mutex (32).
    HostsOfMutex,
}

/// The result of a command as the drive reports it, not its meaning for a lock: the same status
/// means different things after different operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Done.
    Good,
    /// RESERVATION CONFLICT. TRYLOCK: another host holds the mutex; firmware of May 2020 also sends
    /// this to the holder itself. BREAK: a live host holds it, or no host does. UNLOCK and REFRESH:
    /// the sender does not hold it. DESTROY: it is held.
    Conflict,
    /// COMMAND TERMINATED. TRYLOCK: the sender holds it already. REFRESH to exclusive: other hosts
    /// share it. UNLOCK: according to hints in the documents, the class is not the mutex's.
    Terminated,
    /// The drive has no such mutex.
    NotFound,
    /// A table of the drive is full.
    Full(Limit),
    /// The mutex is in a state, class or ownership that does not fit the command (sense 04/04/22 of
    /// newer firmware; NVMe status C1h to C4h).
    WrongState,
    /// Not executed now; the host may send it again (BUSY, TASK SET FULL, UNIT ATTENTION, not
    /// ready). BUSY was once documented as "held by another host", so it does not prove that the
    /// mutex is free.
    TryAgain,
    /// The drive does not know this command: it has no IDM.
    Unsupported,
    /// The drive itself answered that it refused or failed the command, for another reason. The
    /// command may have had its effect, but has none after the answer.
    Failed,
    /// The command certainly did not reach the drive.
    Unreachable,
    /// The command may have had its effect, or may have it later: it was lost on the way, timed out
    /// or was aborted, or its answer was lost.
    Uncertain,
}

impl Status {
    /// All but [`Status::Good`], in the order of their definition.
    pub const FAILURES: [Status; 12] = [
        Status::Conflict,
        Status::Terminated,
        Status::NotFound,
        Status::Full(Limit::Mutexes),
        Status::Full(Limit::Hosts),
        Status::Full(Limit::HostsOfMutex),
        Status::WrongState,
        Status::TryAgain,
        Status::Unsupported,
        Status::Failed,
        Status::Unreachable,
        Status::Uncertain,
    ];
}

/// A drive's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The answer to [`DriveCommand::Mutex`], or to any command that failed.
    Status(Status),
    /// The answer to [`DriveCommand::ReadTable`]: all records of the table. They are shared,
    /// because one read may answer hundreds of locks.
    Table(Arc<[Record]>),
}
