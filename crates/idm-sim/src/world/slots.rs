//! One host's side of one lock: its engine, its caller, and the data for the checkers.

use crate::ids::{DriveIx, DriveSet, HostIx, HostSet, Ix, LockIx, PerDrive, SlotIx, Table};
use crate::old_stack::OldLock;
use core::ops::{Index, IndexMut};
use idm_engine::{Instant, Lock};
use idm_protocol::{Mode, Record, Value};

/// The moment that never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// The fingerprint: the part of a record's metadata that shows which drives are counted.
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

/// The activity of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Holds nothing; makes a request at the next call.
    Idle,
    /// Waits for the end of an acquire.
    Acquiring,
    /// Waits for the end of an adoption, with this number of further attempts.
    Adopting(u8),
    /// Holds the lock, and acts at the next call.
    Holding,
    /// Waits for the end of a convert to a mode; it may carry a value.
    Converting(Mode, Option<Value>),
    /// Has lost the lock and must give it back at the next call.
    Dropping,
    /// Makes no more requests.
    Finished,
}

impl Caller {
    /// Whether it is taking drives.
    pub(super) fn asks(self) -> bool {
        matches!(self, Caller::Acquiring | Caller::Adopting(_))
    }

    /// Whether it waits for the end of a request.
    pub(super) fn waits(self) -> bool {
        matches!(self, Caller::Acquiring | Caller::Adopting(_) | Caller::Converting(..))
    }
}

/// An engine, and its last reports.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) side: Side,
    /// The number of engines made for this slot; replies to an earlier one are not delivered.
    pub(super) life: u32,
    pub(super) timer_at: u64,
    /// Whether the end of its belief is on the agenda.
    pub(super) probing: bool,
    /// The engine's mode, and the end of its belief in the simulation's time.
    pub(super) mode: Option<Mode>,
    pub(super) until: u64,
    pub(super) lapsed: bool,
}

/// A caller, and its last request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) caller: Caller,
    /// The number of the caller's plans so far; only the last one is valid.
    pub(super) stamp: u32,
    /// The requested or present mode.
    pub(super) target: Mode,
    /// Drives that are to vote in place of the present ones; empty if there are none.
    pub(super) target_set: DriveSet,
    /// The moment when these were named.
    pub(super) named_at: u64,
    /// Whether votes have moved, so that the LV need not lie on the drives that vote.
    pub(super) votes_moved: bool,
    /// Drives that vote, and drives to be read.
    pub(super) members: DriveSet,
    pub(super) witnesses: DriveSet,
    pub(super) started: u64,
    /// The least value that an acquire may return.
    pub(super) floor: u64,
    /// Whether the caller changes the protected data and intends to publish that.
    pub(super) dirty: bool,
    /// Whether no work was left when the request began.
    pub(super) fresh: bool,
    /// Whether live holders refused it in a healthy world, so that the command count is checked.
    pub(super) count_checked: bool,
    /// Whether it makes a request at the end, without any other caller.
    pub(super) lone: bool,
}

/// The remains of a host's earlier life.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Legacy {
    /// The mode that this host still has, or has left to be adopted, while another host was granted
    /// the lock in a conflicting one.
    pub(super) usurped: Option<Mode>,
    /// The mode in which an earlier life of this host held the lock when it died, and whether a
    /// change was under way.
    pub(super) orphan: Option<(Mode, bool)>,
    /// The drives that had the orphan's record when its host died. Since then, a late command of
    /// the earlier life may have left a record on others.
    pub(super) left_on: DriveSet,
    /// Whether a late command of an earlier life got a drive after another host was granted the
    /// lock.
    pub(super) strayed: bool,
    /// Whether the grant to this host is noted; the note may be late.
    pub(super) granted: bool,
    /// The noted moment until which the lock is safe.
    pub(super) noted_safe: u64,
    /// The noted drives that vote, for a restart.
    pub(super) noted: DriveSet,
    /// The moment until which the orphan is safe. Until then its LV may be active.
    pub(super) safe_until: u64,
}

/// The world's observations of a host and the drives, and its host's possible knowledge.
#[derive(Debug)]
pub(super) struct Seen {
    /// Drives whose vote a reset took while the host cannot know it yet, and the moments of that.
    pub(super) lost: DriveSet,
    pub(super) lost_at: PerDrive<u64>,
    /// Drives whose table showed no live holder in the way at the last read.
    pub(super) cleared: DriveSet,
    /// The set of drives that this host writes into its records.
    pub(super) set_mark: SetMark,
    /// The moment since which the host knows of another holder that counts other drives.
    pub(super) foreign_since: Option<u64>,
    /// The number of grants.
    pub(super) tenure: u32,
    pub(super) request: SeenInRequest,
}

/// The observations since the present request began.
#[derive(Debug, Default)]
pub(super) struct SeenInRequest {
    /// Hosts whose conflicting record was read.
    pub(super) knows: HostSet,
    /// By drive, the hosts of a conflict, until the drive answers differently.
    pub(super) conflicts: PerDrive<HostSet>,
    /// Drives that answered.
    pub(super) met: DriveSet,
    /// The number of commands, by drive.
    pub(super) sent: PerDrive<u16>,
    /// The last request to each drive and its answer, for a search.
    pub(super) said: PerDrive<u64>,
    /// The number of attempts that split the drives with another host's.
    pub(super) splits: u16,
    /// Whether the request has broken dead holders.
    pub(super) breaks: bool,
}

/// One host's side of one lock, and the world's knowledge of it.
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
                named_at: 0,
                votes_moved: false,
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

    /// The present mode of the host, or the mode that an earlier life of it left.
    pub(super) fn held(&self) -> Option<Mode> {
        self.engine.mode.or(self.legacy.orphan.map(|(mode, _)| mode))
    }

    /// Whether the host, at `now`, believes to hold the lock.
    pub(super) fn believes(&self, now: u64) -> bool {
        self.engine.mode.is_some() && now < self.engine.until
    }

    /// Forgets the observations of an earlier request.
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
    /// Begins anew with a world of this number of locks.
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

    /// All hosts' sides of this slot's lock.
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
