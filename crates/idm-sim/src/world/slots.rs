//! One host's side of one lock: its engine, its caller, and what the checkers go by.

use crate::ids::{DriveIx, DriveSet, HostIx, HostSet, Ix, LockIx, PerDrive, SlotIx, Table};
use crate::old_stack::OldLock;
use core::ops::{Index, IndexMut};
use idm_engine::{Instant, Lock};
use idm_protocol::{Mode, Record, Value};

/// No time at all.
pub(super) const NEVER: u64 = u64::MAX;

/// The part of a record's metadata that says which drives are counted: the fingerprint.
pub(super) type SetMark = [u8; 16];

/// The fingerprint of a record.
pub(super) fn set_mark(record: &Record) -> SetMark {
    let mut mark = [0; 16];
    mark.copy_from_slice(&record.metadata[8..24]);
    mark
}

/// The lock of one host: by the real engine, or by the older stack.
#[derive(Debug)]
pub(super) enum Side {
    Engine(Box<Lock>),
    Old(Box<OldLock>),
}

impl Side {
    pub(super) fn mode(&self) -> Option<Mode> {
        match self {
            Side::Engine(lock) => lock.mode(),
            Side::Old(lock) => lock.mode(),
        }
    }

    pub(super) fn safe_until(&self) -> Option<Instant> {
        match self {
            Side::Engine(lock) => lock.safe_until(),
            Side::Old(lock) => lock.safe_until(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        match self {
            Side::Engine(lock) => lock.is_idle(),
            Side::Old(lock) => lock.is_idle(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self {
            Side::Engine(lock) => lock.next_deadline(),
            Side::Old(lock) => lock.next_deadline(),
        }
    }

    pub(super) fn on_timer(&mut self, now: Instant) {
        match self {
            Side::Engine(lock) => lock.on_timer(now),
            Side::Old(lock) => lock.on_timer(now),
        }
    }
}

/// What a caller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Holds nothing; will ask for it at the next call.
    Idle,
    /// Waits for the end of an acquire.
    Acquiring,
    /// Waits for the end of an adoption, which is tried so many times more.
    Adopting(u8),
    /// Holds it, and will do something at the next call.
    Holding,
    /// Waits for the end of a convert to a mode; it may carry a value.
    Converting(Mode, Option<Value>),
    /// Has lost it and must give it back at the next call.
    Dropping,
    /// Asks for nothing any more.
    Finished,
}

impl Caller {
    /// Whether drives are being taken for it.
    pub(super) fn asks(self) -> bool {
        matches!(self, Caller::Acquiring | Caller::Adopting(_))
    }

    /// Whether a request waits for its end.
    pub(super) fn waits(self) -> bool {
        matches!(self, Caller::Acquiring | Caller::Adopting(_) | Caller::Converting(..))
    }
}

/// An engine, and what it says of itself.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) side: Side,
    /// Counts engines made for this slot; replies to an earlier one are not delivered.
    pub(super) life: u32,
    pub(super) timer_at: u64,
    /// Whether the end of its belief is on the agenda.
    pub(super) probing: bool,
    /// The engine's mode, and until when (in the simulation's time) it believes in it.
    pub(super) mode: Option<Mode>,
    pub(super) until: u64,
    pub(super) lapsed: bool,
}

/// A caller, and the request that it made last.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: Caller,
    /// Counts what the caller was put down to do; only the last counts.
    pub(super) stamp: u32,
    /// The mode asked for, or held.
    pub(super) target: Mode,
    /// Drives that are to vote in place of those that do; empty where there are none.
    pub(super) target_set: DriveSet,
    /// Drives that vote, and drives to be read.
    pub(super) members: DriveSet,
    pub(super) witnesses: DriveSet,
    pub(super) started: u64,
    /// The value that an acquire must not fall behind.
    pub(super) floor: u64,
    /// Changes what the lock protects and means to publish that.
    pub(super) dirty: bool,
    /// Had nothing to do when the request began.
    pub(super) fresh: bool,
    /// Refused by live holders in a healthy world, so the command count is checked.
    pub(super) count_checked: bool,
    /// Asks at the end, when nobody else does.
    pub(super) lone: bool,
}

/// What an earlier life of a host left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Legacy {
    /// Another host was granted the lock in a conflicting mode while this one still has a mode, or
    /// has left one to be adopted.
    pub(super) usurped: Option<Mode>,
    /// The mode in which an earlier life of this host held the lock when it died, and whether it
    /// was about to change it.
    pub(super) orphan: Option<(Mode, bool)>,
    /// The drives that had the orphan's record when its host died. A late command of the earlier
    /// life may have left one on others since.
    pub(super) left_on: DriveSet,
    /// A late command of an earlier life has got a drive after another host was granted the lock.
    pub(super) strayed: bool,
    /// Whether it is noted that the host was granted the lock, which may be late.
    pub(super) granted: bool,
    /// Until when it is noted that the lock is safe.
    pub(super) noted_safe: u64,
    /// The drives that vote, as they are noted for a restart.
    pub(super) noted: DriveSet,
    /// Until when the orphan is safe. Until then its LV may be active.
    pub(super) safe_until: u64,
}

/// What the world has seen of a host's dealings with the drives, and its host may know.
#[derive(Debug)]
pub(super) struct Seen {
    /// Drives whose vote was lost in a reset, where the host cannot know it yet; and when.
    pub(super) lost: DriveSet,
    pub(super) lost_at: PerDrive<u64>,
    /// Drives whose table, when it was last read, showed nobody alive in the way.
    pub(super) cleared: DriveSet,
    /// The set of drives that this host writes into its records.
    pub(super) set_mark: SetMark,
    /// Since when it is known that a host with other drives holds the lock too.
    pub(super) foreign_since: Option<u64>,
    /// Counts grants.
    pub(super) tenure: u32,
    pub(super) request: SeenInRequest,
}

/// What was seen since the present request began.
#[derive(Debug, Default)]
pub(super) struct SeenInRequest {
    /// Hosts whose conflicting record was read.
    pub(super) knows: HostSet,
    /// By drive, hosts that a conflict came from, until the drive says something else.
    pub(super) conflicts: PerDrive<HostSet>,
    /// Drives that answered.
    pub(super) met: DriveSet,
    /// Commands, by drive.
    pub(super) sent: PerDrive<u16>,
    /// What drives were asked and said last, where a search goes by it.
    pub(super) said: PerDrive<u64>,
    /// Attempts that split the drives with another host's.
    pub(super) splits: u16,
}

/// One host's side of one lock, and what the world knows of it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) engine: Engine,
    pub(super) call: Call,
    pub(super) seen: Seen,
    pub(super) legacy: Legacy,
}

impl Slot {
    pub(super) fn new(side: Side) -> Slot {
        Slot {
            engine: Engine {
                side,
                life: 0,
                timer_at: NEVER,
                probing: false,
                mode: None,
                until: 0,
                lapsed: false,
            },
            call: Call {
                caller: Caller::Idle,
                stamp: 0,
                target: Mode::Exclusive,
                target_set: DriveSet::EMPTY,
                members: DriveSet::EMPTY,
                witnesses: DriveSet::EMPTY,
                started: 0,
                floor: 0,
                dirty: false,
                fresh: false,
                count_checked: false,
                lone: false,
            },
            seen: Seen {
                lost: DriveSet::EMPTY,
                lost_at: PerDrive::all(0),
                cleared: DriveSet::EMPTY,
                set_mark: [0; 16],
                foreign_since: None,
                tenure: 0,
                request: SeenInRequest::default(),
            },
            legacy: Legacy::default(),
        }
    }

    /// The mode that the host has, or that an earlier life of it has left.
    pub(super) fn held(&self) -> Option<Mode> {
        self.engine.mode.or(self.legacy.orphan.map(|(mode, _)| mode))
    }

    /// Whether the host, at `now`, believes to hold the lock.
    pub(super) fn believes(&self, now: u64) -> bool {
        self.engine.mode.is_some() && now < self.engine.until
    }

    /// Forgets what was seen of an earlier request.
    pub(super) fn begin_request(&mut self) {
        self.seen.request = SeenInRequest::default();
    }

    /// Notes that a reset took a drive's vote.
    pub(super) fn lose_vote(&mut self, drive: DriveIx, now: u64) {
        self.seen.lost.insert(drive);
        self.seen.lost_at[drive] = now;
    }
}

/// All slots: each host's locks, one host after another.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Table<SlotIx, Slot>,
    locks: usize,
}

impl Slots {
    /// Begins anew with a world of so many locks.
    pub(super) fn clear(&mut self, locks: usize) {
        self.slots.clear();
        self.locks = locks;
    }

    pub(super) fn push(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SlotIx> + use<> {
        self.slots.ids()
    }

    pub(super) fn host(&self, s: SlotIx) -> HostIx {
        HostIx::new(s.get() / self.locks)
    }

    pub(super) fn lock(&self, s: SlotIx) -> LockIx {
        LockIx::new(s.get() % self.locks)
    }

    pub(super) fn place(&self, s: SlotIx) -> (HostIx, LockIx) {
        (self.host(s), self.lock(s))
    }

    pub(super) fn at(&self, h: HostIx, l: LockIx) -> SlotIx {
        SlotIx::new(h.get() * self.locks + l.get())
    }

    /// All hosts' sides of the lock that this is a side of.
    pub(super) fn rivals(&self, s: SlotIx) -> impl Iterator<Item = SlotIx> + use<> {
        (s.get() % self.locks..self.slots.len()).step_by(self.locks).map(SlotIx::new)
    }

    /// One host's sides of all locks.
    pub(super) fn of_host(&self, h: HostIx) -> impl Iterator<Item = SlotIx> + use<> {
        (h.get() * self.locks..(h.get() + 1) * self.locks).map(SlotIx::new)
    }
}

impl Index<SlotIx> for Slots {
    type Output = Slot;
    fn index(&self, s: SlotIx) -> &Slot {
        &self.slots[s]
    }
}

impl IndexMut<SlotIx> for Slots {
    fn index_mut(&mut self, s: SlotIx) -> &mut Slot {
        &mut self.slots[s]
    }
}
