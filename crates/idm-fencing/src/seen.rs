//! Result of a look at one drive.

use crate::{KIND, Key, Obstacle};
use alloc::sync::Arc;
use alloc::vec::Vec;
use idm_engine::{DriveRef, Writer, writer};
use idm_protocol::reservation::ReservationType;
use idm_protocol::{HostId, Record, ResourceId, State};

/// Result of a look at one drive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The mutex table. It was read before the keys.
    pub table: Arc<[Record]>,
    /// The key of each registrant; a host has as many as it has registered paths.
    pub keys: Vec<u64>,
    /// The type of the reservation, if there is one; `Some(None)` is one that is not defined.
    pub reservation: Option<Option<ReservationType>>,
    /// Whether reservations of the type [`KIND`] exist and can outlive a loss of power.
    pub is_able: bool,
    /// Number of this host's paths that register for themselves. 1 where a host registers as such.
    pub paths: usize,
}

impl Seen {
    /// Whether a key is registered.
    pub(crate) fn has(&self, key: Key) -> bool {
        self.keys.contains(&key.number())
    }

    /// Whether only registrants can write.
    pub(crate) fn is_reserved(&self) -> bool {
        self.reservation == Some(Some(KIND))
    }

    /// Whether this key is registered by every path of this host.
    pub(crate) fn has_all_paths(&self, own: Key) -> bool {
        self.keys.iter().filter(|&&key| key == own.number()).count() >= self.paths
    }

    /// A key that no host with this library has.
    pub(crate) fn foreign_key(&self) -> Option<u64> {
        self.keys.iter().copied().find(|&key| !Key::is_one(key))
    }

    /// The sign that something else reserves this drive, if there is one.
    pub(crate) fn foreign(&self, drive: DriveRef) -> Option<Obstacle> {
        let key = self.foreign_key();
        let is_other = self.reservation.is_some() && !self.is_reserved();
        (key.is_some() || is_other).then_some(Obstacle::Foreign(drive, key))
    }

    /// Hosts with any record whose lease runs.
    pub(crate) fn living(&self) -> impl Iterator<Item = HostId> + '_ {
        self.table.iter().filter(|record| record.state.is_live()).map(|record| record.host)
    }

    /// Hosts with a record of the group whose lease runs.
    pub(crate) fn living_in<'a>(
        &'a self,
        group: &'a ResourceId,
    ) -> impl Iterator<Item = HostId> + 'a {
        let lives = |record: &&Record| record.state.is_live() && is_of(group, &record.resource);
        self.table.iter().filter(lives).map(|record| record.host)
    }
}

/// Other hosts that hold the mutex according to a table, and whether the lease of each runs. A host
/// that locked it only to remove it does not use the protected data.
pub(crate) fn holders(
    table: &[Record],
    resource: &ResourceId,
    me: &HostId,
) -> impl Iterator<Item = (HostId, bool)> {
    let held = move |record: &&Record| {
        record.state.is_record()
            && record.state != State::Unlocked
            && record.resource == *resource
            && record.host != *me
            && writer(&record.metadata) != Writer::Clearing
    };
    table.iter().filter(held).map(|record| (record.host, record.state.is_live()))
}

/// Whether a mutex belongs to the group with the mutex `group`.
fn is_of(group: &ResourceId, resource: &ResourceId) -> bool {
    group.as_bytes()[..32] == resource.as_bytes()[..32]
}
