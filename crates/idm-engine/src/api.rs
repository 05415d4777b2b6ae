//! Requests, commands and events: the input and the output of a [`Lock`](crate::Lock).

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

    /// Time from `earlier` to `self`; zero if `earlier` is later.
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

/// The caller's handle of one drive. It means the same drive for as long as the
/// [`Lock`](crate::Lock) lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriveRef(pub u32);

/// A drive, as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The caller's handle.
    pub drive: DriveRef,
    /// The drive's full identity, the same on every host (for example its NAA designator).
    pub identity: Vec<u8>,
}

/// A digest of the identities of a lock's drives, which distinguishes drive sets. Every record's
/// metadata contains it, so that a host that reads another host's record knows whether both count
/// the same drives (docs/locking.md, "Hosts that count different drives").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// Times that an engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// The lease that each command asks for. Other hosts may break the lock after it has expired.
    pub lease: Duration,
    /// The margin by which this host shortens a lease, for clocks that run at different speeds.
    pub drift: Duration,
    /// The interval between two refreshes of a drive.
    pub renew: Duration,
    /// The time after which a request is refused if drives do not answer.
    pub patience: Duration,
    /// The time for which a request with a majority still waits for drives that were asked at the
    /// same time. One of them may be about to report a holder that counts other drives.
    pub grace: Duration,
    /// The time for which a command with an unknown fate may still reach the drive, counted from
    /// its report. During this time a new grant of that drive does not count if the old command
    /// could undo it. The caller reports every command at the latest this long after it was handed
    /// out.
    pub linger: Duration,
    /// The mean pause before a request is repeated after it split the drives with another host's.
    pub backoff: Duration,
}

impl Timing {
    /// Times for a lease. Renewal is due after a third of the lease, so that two attempts may fail.
    /// A request takes at most 5 s, so that lvmlockd can go on to process a kill or drop.
    pub fn for_lease(lease: Duration) -> Timing {
        Timing {
            lease,
            // Two clocks, each wrong by up to 500 ppm, drift apart by up to 1/1000.
            drift: lease / 500,
            renew: lease / 3,
            patience: Duration::from_secs(5).min(lease / 4),
            grace: Duration::from_millis(100).min(lease / 100),
            linger: lease / 4,
            backoff: Duration::from_millis(30),
        }
    }
}

/// The constant properties of a [`Lock`](crate::Lock).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LockConfig {
    /// The mutex.
    pub resource: ResourceId,
    /// This host.
    pub host: HostId,
    /// Whether the mutex carries a value that outlives the lock (global and VG locks). Such a mutex
    /// stays on the drive when it is unlocked. Other mutexes (LV locks) are destroyed, so that the
    /// drive's table stays small.
    pub keeps_value: bool,
    /// Times.
    pub timing: Timing,
    /// Seed of the engine's random choices (back-off, spread of renewals).
    pub seed: u64,
    /// The end of the time in which a command of this host's earlier life may still reach a drive.
    /// No answer counts whose command was sent before it.
    pub earlier_until: Instant,
    /// The end of the time in which an earlier life's command that keeps a shared lock shared may
    /// still reach a drive ([`Undoes::Exclusive`]). Before it, no drive is asked for an exclusive
    /// lock, but the adoption of an exclusive lock needs no such wait.
    pub earlier_shares_until: Instant,
    /// The end of the time in which an earlier life's command that only prolongs or takes a lock
    /// may still reach a drive. Such a command undoes nothing, but it writes the fingerprint of the
    /// drives that the earlier life counted.
    pub earlier_writes_until: Instant,
    /// The safety rule that this lock breaks, for tests that check the tests.
    #[cfg(feature = "broken-rules")]
    pub broken: Option<crate::BrokenRule>,
}

impl LockConfig {
    /// Returns the configuration of a lock that keeps all rules, whatever the crate's features are.
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

/// A request of the caller. Only one is under way at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Takes the lock. Allowed while it is not held.
    Acquire {
        /// The mode.
        mode: Mode,
        /// The drives that vote.
        members: Vec<Member>,
        /// Other drives of the VG. They are read for holders of the same lock after it was written
        /// to `members`. Empty for global and VG locks.
        witnesses: Vec<Member>,
    },
    /// Takes over what an earlier life of this very host holds, and nothing else. Until the
    /// decision, drives are read, and this host's records on them are refreshed: those on `members`
    /// in the mode that they have. Allowed while the lock is not held. A record that is found is
    /// refreshed at once, and counts after another refresh, later than
    /// [`LockConfig::earlier_until`].
    ///
    /// Ends in [`Outcome::Adopted`], in [`Refusal::NothingToAdopt`] if that is certain, or in
    /// [`Refusal::OtherMode`]. After a refusal nothing is given back, because the earlier life's
    /// lock may be in use; its records have begun a new lease. From then on the lock accepts only
    /// another adoption or a release.
    Adopt {
        /// The mode in which the earlier life was granted the lock, or requested it. A lock that
        /// was granted as shared is adopted as shared, even where its records are exclusive: a
        /// change to exclusive may have been under way, or one to shared.
        mode: Mode,
        /// The moment until which no other host can have broken the records of the earlier life,
        /// if it is known. Later, an LV's lock is adopted only if all members have it.
        safe_until: Option<Instant>,
        /// Whether the earlier life is known to have been granted the lock in `mode`. Until
        /// `safe_until` such a lock counts as kept without a gap, so the keep quorum is enough to
        /// adopt it.
        granted: bool,
        /// As in [`Request::Acquire`].
        members: Vec<Member>,
        /// As in [`Request::Acquire`].
        witnesses: Vec<Member>,
    },
    /// Changes the mode. Allowed while the lock is held.
    Convert {
        /// The new mode.
        mode: Mode,
        /// A new value to publish; only allowed if the lock is exclusive before.
        value: Option<Value>,
    },
    /// Gives the lock up. Allowed whenever no other request is under way; always succeeds at once.
    /// Drives that have not carried it out are unlocked in the background.
    Release {
        /// A new value to publish; only allowed if the lock is exclusive before.
        value: Option<Value>,
    },
}

/// The reason why a request was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Another request is under way.
    Busy,
    /// The request does not fit the state: acquire or adopt of a held lock, convert of a lock that
    /// is not held, or acquire after a refused adoption without a release in between.
    WrongState,
    /// No drives, more than 512 drives, or one drive twice.
    BadDrives,
}

/// The identifier of a command between [`next_command`](crate::Lock::next_command) and
/// [`on_reply`](crate::Lock::on_reply).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(crate) u64);

/// One command to be sent to one drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The identifier to hand back with the reply.
    pub token: Token,
    /// The drive to send it to.
    pub drive: DriveRef,
    /// The command to send.
    pub command: DriveCommand,
    /// The kind of lock that the command can undo if it arrives in the host's next life. Before the
    /// caller sends the command, it notes for that life the time until which the command may
    /// arrive.
    pub undoes: Undoes,
}

/// The kind of lock of this life that a late command of an earlier life can undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Undoes {
    /// None.
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
    /// No value is certain: none was ever published, the lock was broken or is shared with others,
    /// drives lost their state, or too few drives answered. The caller must read again whatever it
    /// cached under this lock.
    Unknown,
}

/// Another host whose hold on the mutex prevents the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conflict {
    /// The host.
    pub host: HostId,
    /// The mode in which it holds the mutex.
    pub mode: Mode,
    /// The drive that showed it.
    pub drive: DriveRef,
    /// Whether it counts the same set of drives as this host.
    pub same_set: bool,
}

/// The reason why a lock was not granted or not converted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Live holders prevent it. The list names every holder that was seen; it is empty if drives
    /// reported a conflict but could not be read.
    Held(Vec<Conflict>),
    /// Too few drives answered for a majority.
    NoQuorum {
        /// Drives that granted it.
        granted: usize,
        /// Drives that are needed.
        needed: usize,
        /// Drives that may not be used yet, each with the end of that time: until then a command of
        /// this host with an unknown fate could still reach the drive and undo its grant.
        barred: Vec<(DriveRef, Instant)>,
    },
    /// Too many drives have no room for another mutex or host.
    Full,
    /// A majority granted the lock, but too few of the VG's other drives could be read to be sure
    /// that no host holds the lock there. A change to exclusive after a move needs all of them.
    Unconfirmed,
    /// Adopt: this host does not hold the lock. Its records on too few drives stay there.
    NothingToAdopt,
    /// Adopt: too few of this host's records are left to know whether, or how, it held the lock.
    Unclear,
    /// Adopt: this host left the lock in this mode, and not in the requested one, which is
    /// stronger. The lock stays there.
    OtherMode(Mode),
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Acquire: the lock is held.
    Granted(ValueRead),
    /// Adopt: the lock is held in the requested mode. Its value is unknown.
    Adopted(Mode),
    /// Convert: the lock is held in the new mode.
    Converted {
        /// Whether a majority of the drives has the new mode. `false` is possible only from
        /// exclusive to shared: other sharers have to wait until the background work finishes it.
        complete: bool,
    },
    /// Release: the lock is not held.
    Released,
    /// Acquire, adopt: not held. Convert: held as before.
    Refused(Refusal),
}

/// The reason why a lock was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// So many drives reported that another host took the lock, or that they lost it, that no keep
    /// quorum is left.
    Taken,
    /// A live holder with another drive set was found after the lock had been granted.
    OtherSet(Conflict),
}

/// Facts for the log. The caller need not act on them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The lock of a timed-out host was broken on a drive.
    Broke {
        /// The former holders; several if they shared the lock.
        hosts: Vec<HostId>,
        /// The drive.
        drive: DriveRef,
    },
    /// A record of this very host, left by an earlier life of lvmlockd, was taken over.
    TookOverOwn {
        /// The drive.
        drive: DriveRef,
    },
    /// A drive no longer has this host's lock: the drive was reset, or another host took the lock.
    DriveLost {
        /// The drive.
        drive: DriveRef,
    },
    /// A drive that did not have this host's lock has it now.
    DriveGained {
        /// The drive.
        drive: DriveRef,
    },
    /// Two hosts split the drives; this host gave way and tries again.
    SplitVote,
    /// An unused mutex was removed to make room.
    Collected {
        /// The mutex.
        resource: ResourceId,
        /// The drive.
        drive: DriveRef,
    },
    /// A drive has no IDM.
    NotIdm {
        /// The drive.
        drive: DriveRef,
    },
}

/// A report from a [`Lock`](crate::Lock) to its caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The request is finished.
    Done(Outcome),
    /// The lease has expired without a keep quorum of refreshes: other hosts may break the lock
    /// from now on. Refreshing goes on.
    Lapsed,
    /// After [`Event::Lapsed`]: a keep quorum of drives confirmed the lock again, and no other host
    /// had taken it in between.
    Regained,
    /// The lock is lost and is not refreshed any more. The caller still has to release it.
    Lost(Loss),
    /// These drives, named by [`Lock::spread`](crate::Lock::spread), have the lock and are ready to
    /// vote in place of the present ones. The caller notes them, so that an adoption would ask
    /// them, and calls [`Lock::move_votes`](crate::Lock::move_votes).
    VotesReady {
        /// The drives.
        members: Vec<DriveRef>,
    },
    /// A fact for the log.
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
                let drives = if *granted == 1 { "drive" } else { "drives" };
                let are = if *needed == 1 { "is" } else { "are" };
                write!(f, "{granted} {drives} granted it, {needed} {are} needed")
            }
            Refusal::Full => f.write_str("the drives' mutex tables are full"),
            Refusal::Unconfirmed => {
                f.write_str("drives of the volume group, where another host may have it, ")?;
                f.write_str("could not be read")
            }
            Refusal::NothingToAdopt => f.write_str("this host left nothing on the drives"),
            Refusal::Unclear => {
                f.write_str("what this host left does not tell whether, or how, it held the lock")
            }
            Refusal::OtherMode(mode) => write!(f, "this host left it {mode}"),
        }
    }
}
