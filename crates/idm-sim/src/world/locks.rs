//! The world's knowledge of each lock.

use super::checks::reading::Reading;
use crate::ids::{DriveSet, HostIx, Ix, LockIx};
use crate::plan::LockPlan;
use idm_protocol::{ResourceId, Value};

/// The world's knowledge of one lock.
#[derive(Debug)]
pub(super) struct LockInfo {
    pub(super) resource: ResourceId,
    pub(super) keeps_value: bool,
    /// The present drives of the LV.
    pub(super) layout: DriveSet,
    /// The last value that was issued.
    pub(super) issued: u64,
    /// The last value whose publication is complete, and the least value that is right after a
    /// holder died in the middle of a change.
    pub(super) published: u64,
    pub(super) poison: u64,
    pub(super) publisher: HostIx,
    /// Whether its value proves nothing any more: two hosts held it, excused, or the older stack
    /// broke or lost it.
    pub(super) muddled: bool,
    /// The number of requests in a row that were refused while it was free.
    pub(super) refusals: u32,
    /// The moment of a host's last action on it, apart from refreshes and refusals.
    pub(super) touched_at: u64,
    /// A read of its value by hosts that do not take it.
    pub(super) reading: Reading,
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
            reading: Reading::default(),
        }
    }

    /// Issues a value that no host had before.
    pub(super) fn issue(&mut self) -> Value {
        self.issued += 1;
        Value::new(self.issued).unwrap_or(Value::MAX)
    }

    /// Notes a value that the next holder finds.
    pub(super) fn publish(&mut self, value: Value, publisher: HostIx) {
        self.published = self.published.max(value.get());
        self.publisher = publisher;
    }

    /// Notes a change under the lock whose value no holder publishes.
    pub(super) fn spoil(&mut self) {
        self.issued += 1;
        self.poison = self.issued;
    }
}
