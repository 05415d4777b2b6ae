//! Labels of the counters: enums with a name for each value.

use crate::lock::{RequestResult, Role};
use core::marker::PhantomData;
use idm_engine::{Loss, Notice, Refusal};
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, Status};

/// A label with `N` values that are counted separately.
pub trait Label<const N: usize> {
    /// The exported names of all values.
    const NAMES: [&'static str; N];

    /// The index of this value's name.
    fn place(self) -> usize;
}

/// A `T` for each of the `N` values of a label.
pub struct Each<L, T, const N: usize> {
    all: [T; N],
    by: PhantomData<L>,
}

impl<L, T: Default, const N: usize> Default for Each<L, T, N> {
    fn default() -> Each<L, T, N> {
        Each { all: core::array::from_fn(|_| T::default()), by: PhantomData }
    }
}

impl<L: Label<N>, T, const N: usize> Each<L, T, N> {
    /// The `T` of a value.
    pub fn of(&self, label: L) -> &T {
        &self.all[label.place()]
    }

    /// All of them, with the names of their values.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &T)> {
        L::NAMES.into_iter().zip(&self.all)
    }
}

/// Defines an enum with a name for each value.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of])* $value,)*
        }

        impl Label<{ [$($text),*].len() }> for $name {
            const NAMES: [&'static str; [$($text),*].len()] = [$($text),*];

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

impl Label<4> for Role {
    const NAMES: [&'static str; 4] = ["global", "vg", "lv", "membership"];

    fn place(self) -> usize {
        match self {
            Role::Global => 0,
            Role::Vg => 1,
            Role::Lv => 2,
            Role::Membership => 3,
        }
    }
}

impl Label<2> for Mode {
    const NAMES: [&'static str; 2] = ["shared", "exclusive"];

    fn place(self) -> usize {
        usize::from(self == Mode::Exclusive)
    }
}

labels! {
    /// Kind of request for a lock.
    Asked {
        /// Take it.
        Acquire = "acquire",
        /// Keep it, after an earlier lvmlockd left it.
        Adopt = "adopt",
        /// Change its mode.
        Convert = "convert",
        /// Give it up.
        Release = "release",
    }
}

labels! {
    /// Result of a request; see [`RequestResult`] and [`Refusal`].
    Ended {
        /// Granted.
        Done = "done",
        /// Another host has the lock.
        Held = "held",
        /// Too few drives answered.
        NoQuorum = "no_quorum",
        /// A drive's table is full.
        Full = "full",
        /// The drives do not confirm the lock that was left.
        Unconfirmed = "unconfirmed",
        /// There is no lock to adopt.
        Nothing = "nothing",
        /// The drives do not show the holder.
        Unclear = "unclear",
        /// It was left in the other mode.
        OtherMode = "other_mode",
        /// The lockspace has lost its locks.
        Killed = "killed",
        /// Another resource of this host has it.
        InUse = "in_use",
        /// An error of this library.
        Failed = "failed",
        /// There was no decision in time.
        TimedOut = "timed_out",
    }
}

impl From<&RequestResult> for Ended {
    fn from(result: &RequestResult) -> Ended {
        match result {
            RequestResult::Refused(refused) => match refused.refusal {
                Refusal::Held(_) => Ended::Held,
                Refusal::NoQuorum { .. } => Ended::NoQuorum,
                Refusal::Full => Ended::Full,
                Refusal::Unconfirmed => Ended::Unconfirmed,
                Refusal::NothingToAdopt => Ended::Nothing,
                Refusal::Unclear => Ended::Unclear,
                Refusal::OtherMode(_) => Ended::OtherMode,
            },
            RequestResult::Done(_) => Ended::Done,
            RequestResult::Killed => Ended::Killed,
            RequestResult::InUse => Ended::InUse,
            RequestResult::Failed(_) => Ended::Failed,
            RequestResult::TimedOut => Ended::TimedOut,
        }
    }
}

labels! {
    /// Reason why a lock is lost.
    LossKind {
        /// See [`Loss::Taken`].
        Taken = "taken",
        /// See [`Loss::OtherSet`].
        OtherSet = "other_set",
        /// Its lease has run out.
        Lapsed = "lapsed",
        /// An error of this library.
        Internal = "internal",
    }
}

impl From<&Loss> for LossKind {
    fn from(loss: &Loss) -> LossKind {
        match loss {
            Loss::Taken => LossKind::Taken,
            Loss::OtherSet(_) => LossKind::OtherSet,
        }
    }
}

labels! {
    /// Event of a lock on a drive; see [`Notice`].
    LockEvent {
        /// See [`Notice::Broke`].
        Broken = "broken",
        /// See [`Notice::TookOverOwn`].
        OwnTakenOver = "own_taken_over",
        /// See [`Notice::DriveLost`].
        DriveLost = "drive_lost",
        /// See [`Notice::DriveGained`].
        DriveGained = "drive_gained",
        /// See [`Notice::SplitVote`].
        SplitVote = "split_vote",
        /// See [`Notice::Collected`].
        Collected = "collected",
        /// See [`Notice::NotIdm`].
        NotIdm = "not_idm",
        /// A lock whose lease had run out is held again.
        Regained = "regained",
    }
}

impl From<&Notice> for LockEvent {
    fn from(notice: &Notice) -> LockEvent {
        match notice {
            Notice::Broke { .. } => LockEvent::Broken,
            Notice::TookOverOwn { .. } => LockEvent::OwnTakenOver,
            Notice::DriveLost { .. } => LockEvent::DriveLost,
            Notice::DriveGained { .. } => LockEvent::DriveGained,
            Notice::SplitVote => LockEvent::SplitVote,
            Notice::Collected { .. } => LockEvent::Collected,
            Notice::NotIdm { .. } => LockEvent::NotIdm,
        }
    }
}

labels! {
    /// A command; see [`MutexOp`].
    CommandLabel {
        /// See [`MutexOp::Init`].
        Init = "init",
        /// See [`MutexOp::Trylock`].
        Trylock = "trylock",
        /// See [`MutexOp::Lock`].
        Lock = "lock",
        /// See [`MutexOp::Unlock`].
        Unlock = "unlock",
        /// See [`MutexOp::Refresh`].
        Refresh = "refresh",
        /// See [`MutexOp::Break`].
        Break = "break",
        /// See [`MutexOp::Destroy`].
        Destroy = "destroy",
        /// See [`DriveCommand::ReadTable`].
        Read = "read",
    }
}

impl From<&DriveCommand> for CommandLabel {
    fn from(command: &DriveCommand) -> CommandLabel {
        match command {
            DriveCommand::Mutex(op, _) => match op {
                MutexOp::Init => CommandLabel::Init,
                MutexOp::Trylock => CommandLabel::Trylock,
                MutexOp::Lock => CommandLabel::Lock,
                MutexOp::Unlock => CommandLabel::Unlock,
                MutexOp::Refresh => CommandLabel::Refresh,
                MutexOp::Break => CommandLabel::Break,
                MutexOp::Destroy => CommandLabel::Destroy,
            },
            DriveCommand::ReadTable => CommandLabel::Read,
        }
    }
}

labels! {
    /// A reply that is an error; see [`Status`].
    ErrorLabel {
        /// See [`Status::Full`].
        Full = "full",
        /// See [`Status::TryAgain`].
        TryAgain = "try_again",
        /// See [`Status::Unsupported`].
        Unsupported = "unsupported",
        /// See [`Status::Failed`].
        Failed = "failed",
        /// See [`Status::Unreachable`].
        Unreachable = "unreachable",
        /// See [`Status::Uncertain`].
        Uncertain = "uncertain",
    }
}

impl ErrorLabel {
    /// The label of a reply; `None` if it is a normal one.
    pub fn of(reply: &Reply) -> Option<ErrorLabel> {
        match reply {
            Reply::Table(_) => None,
            Reply::Status(status) => match status {
                Status::Good
                | Status::Conflict
                | Status::Terminated
                | Status::NotFound
                | Status::WrongState => None,
                Status::Full(_) => Some(ErrorLabel::Full),
                Status::TryAgain => Some(ErrorLabel::TryAgain),
                Status::Unsupported => Some(ErrorLabel::Unsupported),
                Status::Failed => Some(ErrorLabel::Failed),
                Status::Unreachable => Some(ErrorLabel::Unreachable),
                Status::Uncertain => Some(ErrorLabel::Uncertain),
            },
        }
    }
}
