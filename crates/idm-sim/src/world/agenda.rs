//! The coming events, in order of time.

use super::network::FlightIx;
use crate::ids::{DriveSet, HostIx, LockIx, SlotIx};
use core::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// An event at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A lock's deadline.
    Timer(SlotIx),
    /// A command reaches its drive; its reply comes back after this time, or not from this arrival.
    Exec(FlightIx, Option<u32>),
    /// A reply reaches its host.
    Reply(FlightIx),
    /// A caller acts. The stamp shows whether it still wants to.
    Caller(SlotIx, u32),
    /// A request must have been answered by now.
    Overdue(SlotIx, u32),
    /// A belief is about to end: check whether it still stands on votes.
    Probe(SlotIx),
    /// After a loss beyond the budget: check whether the host knows by now.
    Notice(SlotIx, u32),
    /// An LV's layout is about to change.
    Move(LockIx, SlotIx, DriveSet),
    /// Drives that have left the VG are pulled out.
    Pull(DriveSet),
    /// A host has noted the drives that are ready to vote; valid for this life of its engine.
    Noted(SlotIx, u32, DriveSet),
    /// A lasting fault begins.
    Begin(u8),
    /// A lasting fault ends.
    End(u8),
    /// A host that stood still goes on.
    Thaw(HostIx),
    /// A dead host comes back, under a new name or not.
    Return(HostIx, bool),
    /// A caller takes the next step of its script.
    Script(u8),
    /// Callers make no more requests, and give back their locks.
    Stop,
    /// No work must be left.
    Idle,
    /// The seed ends.
    Finish,
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    time: u64,
    seq: u32,
    what: What,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Queued) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Queued) -> Ordering {
        (self.time, self.seq).cmp(&(other.time, other.seq))
    }
}

/// The event queue, with its present time.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    now: u64,
    seq: u32,
    queue: BinaryHeap<Reverse<Queued>>,
}

impl Agenda {
    /// The simulation's time, in us.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Begins anew at time zero.
    pub(super) fn clear(&mut self) {
        self.now = 0;
        self.seq = 0;
        self.queue.clear();
    }

    /// Adds an event at `time`, or now if that has passed.
    pub(super) fn push(&mut self, time: u64, what: What) {
        self.seq += 1;
        self.queue.push(Reverse(Queued { time: time.max(self.now), seq: self.seq, what }));
    }

    /// Takes the next event and moves the time to it.
    pub(super) fn next(&mut self) -> Option<What> {
        let Reverse(next) = self.queue.pop()?;
        self.now = next.time;
        Some(next.what)
    }
}
