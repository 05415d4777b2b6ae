//! What the world knows of each lock.

use crate::ids::{DriveSet, HostIx, Ix, LockIx};
use crate::plan::LockPlan;
use idm_protocol::{ResourceId, Value};

/// What the world knows of one lock.
#[derive(Debug)]
pub(super) struct LockInfo {
    pub(super) resource: ResourceId,
    pub(super) keeps_value: bool,
    /// Where the LV lies at present.
    pub(super) layout: DriveSet,
    /// The last value that was handed out.
    pub(super) issued: u64,
    /// The last value whose publication is complete, and the value from which on reads are right
    /// after a holder died in the middle of a change.
    pub(super) published: u64,
    pub(super) poison: u64,
    pub(super) publisher: HostIx,
    /// Two hosts held it, excused, or the older stack broke it: its value proves nothing any more.
    pub(super) muddled: bool,
    /// How many requests in a row were refused while it was free.
    pub(super) refusals: u32,
    /// When a host last did anything with it, besides keeping it and being refused.
    pub(super) touched_at: u64,
}

impl LockInfo {
    pub(super) fn new(l: LockIx, plan: &LockPlan) -> LockInfo {
        let mut id = [b'v'; 64];
        id[0] = b'0' + l.get() as u8;
        if plan.keeps_value {
            id[32..].fill(0);
        }
        LockInfo {
            resource: ResourceId::from_bytes(id),
            keeps_value: plan.keeps_value,
            layout: plan.layout,
            issued: 0,
            published: 0,
            poison: 0,
            publisher: HostIx::new(0),
            muddled: false,
            refusals: 0,
            touched_at: 0,
        }
    }

    /// A value that nobody had before.
    pub(super) fn issue(&mut self) -> Value {
        self.issued += 1;
        Value::new(self.issued).unwrap_or(Value::MAX)
    }

    /// A value is where the next holder finds it.
    pub(super) fn publish(&mut self, value: Value, publisher: HostIx) {
        self.published = self.published.max(value.get());
        self.publisher = publisher;
    }

    /// What the lock protects was changed, and nobody says to what.
    pub(super) fn spoil(&mut self) {
        self.issued += 1;
        self.poison = self.issued;
    }
}
