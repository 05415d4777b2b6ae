//! What goes into a [`Lock`](crate::Lock) and what comes out of it.

use alloc::vec::Vec;
use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;
use idm_protocol::{DriveCommand, HostId, Mode, ResourceId, Value};

/// A moment on the host's boot-time clock (CLOCK_BOOTTIME, which goes on while the host is
/// suspended), in us since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment `us` microseconds after boot.
    pub const fn from_micros(us: u64) -> Instant {
        Instant(us)
    }

    /// Microseconds since boot.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero where `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// The caller's handle of one drive. It must mean the same drive for as long as the
/// [`Lock`](crate::Lock) lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriveRef(pub u32);

/// A drive as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The caller's handle.
    pub drive: DriveRef,
    /// The drive's full identity, the same on every host (for example its NAA designator).
    pub identity: Vec<u8>,
}

/// Tells drive sets apart: a digest of the identities of a lock's drives. Written into every
/// record's metadata, so that a host that meets another's record knows whether both count the same
/// drives (docs/locking.md, "Hosts that count different drives").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// Times that an engine works by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// The lease that drives are asked for. Other hosts may break the lock when it has run out.
    pub lease: Duration,
    /// What is taken off a lease on this host's side, for clocks that run at different speeds.
    pub drift: Duration,
    /// From one refresh of a drive to the next.
    pub renew: Duration,
    /// How long a request waits for drives that do not answer before it is refused.
    pub patience: Duration,
    /// How long a majority waits for the answers of drives that have been asked at the same time.
    /// One of them may be about to tell of a holder that counts other drives.
    pub grace: Duration,
    /// How long after it was reported a command with an unknown fate may still reach the drive.
    /// Until then a new grant of that drive is not counted where the old command could undo it.
    /// Every command is reported at the latest this long after it was handed out.
    pub linger: Duration,
    /// The mean pause before a request that split the drives with another host's is tried again.
    pub backoff: Duration,
}

impl Timing {
    /// Times for a lease: renewal every third of it, so that two attempts may fail; at most 5 s
    /// for a request, so that lvmlockd can go on to process a kill or drop.
    pub fn for_lease(lease: Duration) -> Timing {
        Timing {
            lease,
            // Two clocks that are each off by 500 ppm drift apart by 1/1000.
            drift: lease / 500,
            renew: lease / 3,
            patience: Duration::from_secs(5).min(lease / 4),
            grace: Duration::from_millis(100).min(lease / 100),
            linger: lease / 4,
            backoff: Duration::from_millis(30),
        }
    }
}

/// What does not change in the life of a [`Lock`](crate::Lock).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockConfig {
    /// The mutex.
    pub resource: ResourceId,
    /// This host.
    pub host: HostId,
    /// Whether the mutex carries a value that outlives the lock (global and VG locks): it is then
    /// left on the drive when it is unlocked. Otherwise (LV locks) it is destroyed, so that the
    /// drive's table stays small.
    pub keeps_value: bool,
    /// Times.
    pub timing: Timing,
    /// Seed of the engine's random choices (back-off, spread of renewals).
    pub seed: u64,
    /// Until when a command of an earlier life of this host may still reach a drive. No drive
    /// counts for an answer to a command that was sent before.
    pub earlier_until: Instant,
    /// Until when a command of an earlier life that leaves shared what it finds may still reach a
    /// drive ([`Undoes::Exclusive`]). No drive is asked for an exclusive lock before, but what is
    /// adopted as exclusive needs no such wait.
    pub earlier_shares_until: Instant,
    /// Until when a command of an earlier life that only prolongs what it held, or takes it, may
    /// still reach a drive. It undoes nothing, but it writes what that life counted.
    pub earlier_writes_until: Instant,
    /// The safety rule that this lock breaks, for tests of the tests.
    #[cfg(feature = "broken-rules")]
    pub broken: Option<crate::BrokenRule>,
}

impl LockConfig {
    /// A lock that keeps all rules, however the crate was built.
    pub fn new(
        resource: ResourceId,
        host: HostId,
        keeps_value: bool,
        timing: Timing,
        seed: u64,
    ) -> LockConfig {
        LockConfig {
            resource,
            host,
            keeps_value,
            timing,
            seed,
            earlier_until: Instant::default(),
            earlier_shares_until: Instant::default(),
            earlier_writes_until: Instant::default(),
            #[cfg(feature = "broken-rules")]
            broken: None,
        }
    }
}

/// What a caller can ask for. One request at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take the lock. Allowed while it is not held.
    Acquire {
        /// How.
        mode: Mode,
        /// The drives that vote.
        members: Vec<Member>,
        /// Other drives of the VG, which are read for holders of the same lock after it was
        /// written to `members`. Empty for global and VG locks.
        witnesses: Vec<Member>,
    },
    /// Take over what an earlier life of this very host holds, and only that: until it is decided
    /// whether there is a lock to adopt, drives are read, and records that they show as this
    /// host's are refreshed in the mode that they have. Allowed while the lock is not held. What is
    /// found is refreshed at once, and counts when it was refreshed again after
    /// [`LockConfig::earlier_until`].
    ///
    /// Ends in [`Outcome::Adopted`], or in [`Refusal::NothingToAdopt`] where that is certain, or in
    /// [`Refusal::OtherMode`]. After a refusal nothing is given back, because what an earlier life
    /// held may be in use, and what is there has begun a new lease. Then the lock takes another
    /// adoption or a release, and nothing else.
    Adopt {
        /// Only if it is held like this; `None`: however it is held.
        mode: Option<Mode>,
        /// Until when the lock is known to be safe that the earlier life was granted, if it was.
        /// What was looked at before counts as kept all along, so what is enough to keep the lock
        /// is enough to adopt it.
        granted_until: Option<Instant>,
        /// As in [`Request::Acquire`].
        members: Vec<Member>,
        /// As in [`Request::Acquire`].
        witnesses: Vec<Member>,
    },
    /// Change the mode. Allowed while the lock is held.
    Convert {
        /// The new mode.
        mode: Mode,
        /// A new value to publish; only where the lock is exclusive before.
        value: Option<Value>,
    },
    /// Give the lock up. Allowed at any time when no other request is under way; always succeeds,
    /// at once. What drives did not take is followed up in the background.
    Release {
        /// A new value to publish; only where the lock is exclusive before.
        value: Option<Value>,
    },
}

/// Why a request was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Another request is under way.
    Busy,
    /// Acquire or adoption of a lock that is held, convert of one that is not, acquire of one that
    /// could not be adopted and was not released since.
    WrongState,
    /// No drives, more than 512 of them, or one twice.
    BadDrives,
}

/// Names a command between [`next_command`](crate::Lock::next_command) and
/// [`on_reply`](crate::Lock::on_reply).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(crate) u64);

/// One command to be sent to one drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// To be handed back with the reply.
    pub token: Token,
    /// Where to send it.
    pub drive: DriveRef,
    /// What to send.
    pub command: DriveCommand,
    /// What it can undo if it arrives in the host's next life. Before it is sent, the caller notes
    /// for that life until when it may.
    pub undoes: Undoes,
}

/// What a late command of an earlier life can take from a lock of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Undoes {
    /// Nothing.
    Nothing,
    /// A lock that is acquired exclusively, or made exclusive, in the next life
    /// ([`LockConfig::earlier_shares_until`]).
    Exclusive,
    /// A lock that is adopted as well ([`LockConfig::earlier_until`]).
    Any,
}

/// The value that came with a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueRead {
    /// The last value that was published under the lock; never [`Value::ZERO`].
    Known(Value),
    /// Nobody can vouch for a value: none was ever published, the lock was broken or is shared with
    /// others, drives lost their state, or too few of them answered. Whatever was cached under
    /// this lock before must be read again.
    Unknown,
}

/// Another host that stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conflict {
    /// Who.
    pub host: HostId,
    /// How it holds the mutex.
    pub mode: Mode,
    /// On which drive that was seen.
    pub drive: DriveRef,
    /// Whether it counts the same set of drives as we do.
    pub same_set: bool,
}

/// Why a lock was not granted or not converted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Live holders stand in the way. Whoever was seen is named; the list is empty where drives
    /// said "conflict" but could not be read.
    Held(Vec<Conflict>),
    /// Too few drives answered to make a majority.
    NoQuorum {
        /// Drives that granted it.
        granted: usize,
        /// Drives that are needed.
        needed: usize,
        /// Drives that may not be used yet, and until when: a command of ours whose fate is unknown
        /// could still reach them, and undo what they grant.
        barred: Vec<(DriveRef, Instant)>,
    },
    /// Too many drives have no room for another mutex or host.
    Full,
    /// A majority granted it, but too few of the VG's other drives could be read to be sure that
    /// no host holds the lock there.
    Unconfirmed,
    /// Adopt: this host does not hold the lock. What was left on too few drives is left there.
    NothingToAdopt,
    /// Adopt: too few of this host's records are left to tell whether, or how, it held the lock.
    Unclear,
    /// Adopt: this host left the lock in this mode, which was not asked for. It stays there.
    OtherMode(Mode),
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Acquire: the lock is held.
    Granted(ValueRead),
    /// Adopt: the lock is held, as an earlier life of this host left it. Its value is unknown.
    Adopted(Mode),
    /// Convert: the lock is held in the new mode.
    Converted {
        /// Whether a majority of the drives has the new mode. `false` is possible only from
        /// exclusive to shared: other sharers have to wait until it is finished in the background.
        complete: bool,
    },
    /// Release: the lock is not held.
    Released,
    /// Acquire, adopt: not held. Convert: held as before.
    Refused(Refusal),
}

/// Why a lock is not ours any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// A keep-quorum of drives said that somebody else took it over or that they lost it.
    Taken,
    /// A live holder with another drive set was found after the lock had been granted.
    OtherSet(Conflict),
}

/// Facts for the log: nothing that a caller must act on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The lock of a timed-out host was taken over on a drive.
    Broke {
        /// From whom; several where they shared it.
        hosts: Vec<HostId>,
        /// Where.
        drive: DriveRef,
    },
    /// A record of this very host, left by an earlier life of lvmlockd, was taken over.
    TookOverOwn {
        /// Where.
        drive: DriveRef,
    },
    /// A drive no longer knows our lock: it was reset, or the lock was taken over there.
    DriveLost {
        /// Where.
        drive: DriveRef,
    },
    /// A drive that did not have our lock has it now.
    DriveGained {
        /// Where.
        drive: DriveRef,
    },
    /// Two hosts split the drives; we gave way and shall try again.
    SplitVote,
    /// A mutex that nobody uses was removed to make room.
    Collected {
        /// Which.
        resource: ResourceId,
        /// Where.
        drive: DriveRef,
    },
    /// A drive has no IDM.
    NotIdm {
        /// Which.
        drive: DriveRef,
    },
}

/// What a [`Lock`](crate::Lock) tells its caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The request is finished.
    Done(Outcome),
    /// The lease has run out without a keep-quorum of refreshes: other hosts may break the lock
    /// from now on. Refreshing goes on.
    Lapsed,
    /// After [`Event::Lapsed`]: a keep-quorum of drives gave the lock back, and nobody had taken
    /// it in between.
    Regained,
    /// The lock is lost and is not refreshed any more. The caller still has to release it.
    Lost(Loss),
    /// These drives, named by [`Lock::spread`](crate::Lock::spread), have the lock and are ready to
    /// vote in place of those that vote now. The caller notes them, so that an adoption would ask
    /// them, and calls [`Lock::move_votes`](crate::Lock::move_votes).
    VotesReady {
        /// The drives.
        members: Vec<DriveRef>,
    },
    /// For the log.
    Notice(Notice),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Held(conflicts) => match conflicts.first() {
                Some(first) => {
                    write!(f, "held {} by host {}", first.mode, first.host)?;
                    if !first.same_set {
                        f.write_str(", which counts another set of drives")?;
                    }
                    Ok(())
                }
                None => f.write_str("held by another host"),
            },
            Refusal::NoQuorum { granted, needed, .. } => {
                write!(f, "{granted} drives granted it, {needed} are needed")
            }
            Refusal::Full => f.write_str("the drives' mutex tables are full"),
            Refusal::Unconfirmed => {
                f.write_str("too many drives of the volume group could not be read")
            }
            Refusal::NothingToAdopt => f.write_str("this host left nothing on the drives"),
            Refusal::Unclear => {
                f.write_str("what this host left does not tell whether, or how, it held the lock")
            }
            Refusal::OtherMode(mode) => write!(f, "this host left it {mode}"),
        }
    }
}
