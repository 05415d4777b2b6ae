//! Errors of the lock manager, and the numbers that lvmlockd's core understands.

use core::fmt;
use idm_protocol::IdError;

/// Reason why an operation of the lock manager failed.
///
/// The text of [`fmt::Display`] is for lvmlockd's log; the number of [`Error::errno`] is what core
/// passes on to the lvm command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Another host holds the lock: try again later.
    Held(String),
    /// Too many drives refuse or do not answer: there is no majority.
    Storage(String),
    /// A parameter does not comply with the contract.
    Invalid(String),
    /// IDM cannot be used on this host.
    NotRunning(String),
    /// The lockspace is not known, or being stopped.
    NoLockspace,
    /// The lockspace lost its quorum and waits to be dropped.
    Killed,
    /// Locks of the lockspace are still in use.
    Busy,
    /// LVs are active whose locks this host does not know.
    Unprotected(String),
    /// Per-command adoption found no lock to adopt.
    AdoptNone,
    /// Per-command adoption found the lock in the other mode.
    AdoptOtherMode,
    /// Something inside this library failed; the log says what.
    Internal(String),
}

impl From<IdError> for Error {
    fn from(error: IdError) -> Error {
        Error::unfit(error)
    }
}

/// Numbers from lvmlockd-internal.h, the same in all releases.
mod lvmlockd {
    pub const EARGS: i32 = 212;
    pub const EMANAGER: i32 = 214;
    pub const EVGKILLED: i32 = 217;
    pub const ELOCKIO: i32 = 218;
    pub const ENOLS: i32 = 210;
    pub const EADOPT_NONE: i32 = 223;
    pub const EADOPT_RETRY: i32 = 224;
}

impl Error {
    /// The error for an argument that no supported lvmlockd passes.
    pub fn unfit(why: impl fmt::Display) -> Error {
        Error::Invalid(format!(
            "{why}; lvmlockd and this library do not fit: build lvmlockd with the lvmlockd-idm.c \
             of this library"
        ))
    }

    /// The line of the log for a call of core's that ends with this error. `about`: the lockspace,
    /// the resource and the mode, each after a space.
    pub fn line(&self, function: &str, about: &str, answer: i32) -> String {
        format!("{function}{about} = {answer}: {self}")
    }

    /// The negative number to return to core.
    ///
    /// Failures inside the library are returned as storage errors, because with that number
    /// read-only commands go on: other numbers stop even these (docs/lvmlockd-contract.md, "Answers
    /// to a lock request").
    pub fn errno(&self) -> i32 {
        -match self {
            Error::Held(_) => libc::EAGAIN,
            Error::Storage(_) | Error::NotRunning(_) | Error::Internal(_) => lvmlockd::ELOCKIO,
            Error::Invalid(_) => libc::EINVAL,
            Error::NoLockspace => lvmlockd::ENOLS,
            Error::Killed => lvmlockd::EVGKILLED,
            Error::Busy | Error::Unprotected(_) => libc::EBUSY,
            Error::AdoptNone => lvmlockd::EADOPT_NONE,
            Error::AdoptOtherMode => lvmlockd::EADOPT_RETRY,
        }
    }

    /// The number for a failed `lm_prepare_lockspace_idm`, for which lvm has its own texts.
    pub fn start_errno(&self) -> i32 {
        match self {
            Error::Invalid(_) => -lvmlockd::EARGS,
            Error::NotRunning(_) => -lvmlockd::EMANAGER,
            other => other.errno(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Held(why)
            | Error::Storage(why)
            | Error::Invalid(why)
            | Error::NotRunning(why)
            | Error::Unprotected(why)
            | Error::Internal(why) => f.write_str(why),
            Error::NoLockspace => f.write_str(
                "the lockspace is not started; start its volume group with \"vgchange \
                 --lockstart\"",
            ),
            Error::Killed => f.write_str(
                "the lockspace lost its quorum and waits to be dropped; drop its volume group \
                 with \"lvmlockctl --drop\", and start it again when its drives answer",
            ),
            Error::Busy => f.write_str(
                "locks of the lockspace are still in use; deactivate the logical volumes that are \
                 named before",
            ),
            Error::AdoptNone => f.write_str(
                "there is no lock of this host to adopt; repeat the command without that \
                 --lockopt",
            ),
            Error::AdoptOtherMode => f.write_str(
                "this host holds the lock in the other mode; ask for that mode, or repeat the \
                 command without that --lockopt",
            ),
        }
    }
}

impl std::error::Error for Error {}
