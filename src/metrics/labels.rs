//! What numbers are counted by: enums whose values name themselves.

use crate::lock::{RequestResult, Role};
use core::marker::PhantomData;
use idm_engine::{Loss, Notice, Outcome, Refusal};
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, Status};

/// One of `N` things that are counted apart.
pub trait Label<const N: usize> {
    /// The names of all, as they are exported.
    const NAMES: [&'static str; N];

    /// The place of this one's name.
    fn place(self) -> usize;
}

/// A `T` for each of the `N` labels.
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
    /// The one of a label.
    pub fn of(&self, label: L) -> &T {
        &self.all[label.place()]
    }

    /// All of them, with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &T)> {
        L::NAMES.into_iter().zip(&self.all)
    }
}

/// An enum whose values have names.
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
    /// What is requested of a lock.
    Asked {
        /// To take it.
        Acquire = "acquire",
        /// To keep what an earlier lvmlockd left of it.
        Adopt = "adopt",
        /// To change its mode.
        Convert = "convert",
        /// To give it up.
        Release = "release",
    }
}

labels! {
    /// How a request ended; see [`RequestResult`] and [`Refusal`].
    Ended {
        /// As was asked.
        Done = "done",
        /// Another host has the lock.
        Held = "held",
        /// Too few drives answered.
        NoQuorum = "no_quorum",
        /// A drive's table is full.
        Full = "full",
        /// The drives do not confirm what was left.
        Unconfirmed = "unconfirmed",
        /// There is nothing to adopt.
        Nothing = "nothing",
        /// The drives do not say whose it is.
        Unclear = "unclear",
        /// It was left in the other mode.
        OtherMode = "other_mode",
        /// The lockspace has lost its locks.
        Killed = "killed",
        /// Another resource of this host has it.
        InUse = "in_use",
        /// An error of ours.
        Failed = "failed",
        /// There was no decision in time.
        TimedOut = "timed_out",
    }
}

impl From<&RequestResult> for Ended {
    fn from(result: &RequestResult) -> Ended {
        match result {
            RequestResult::Done(Outcome::Refused(refusal)) => match refusal {
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
    /// Why a lock is lost.
    LossKind {
        /// See [`Loss::Taken`].
        Taken = "taken",
        /// See [`Loss::OtherSet`].
        OtherSet = "other_set",
        /// Its lease has run out.
        Lapsed = "lapsed",
        /// An error of ours.
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
    /// What happened to a lock on a drive; see [`Notice`].
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
    /// A reply that is no part of daily life; see [`Status`].
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
    /// The label of a reply; `None` where it is part of daily life.
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
