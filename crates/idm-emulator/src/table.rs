//! The mutex table inside a drive.

use crate::DriveTime;
use crate::profile::ValueScope;
use core::ops::{Deref, DerefMut};
use idm_protocol::{Class, HostId, Metadata, Mode, Record, ResourceId, Value, ValueUpdate};

/// A countdown of all ones: a lease without end (documented; in no trace).
const ENDLESS: u64 = u64::MAX;

/// All mutexes in the order of their creation, which is the order of a read
/// (docs/protocol.md, "Reading the table").
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    mutexes: Vec<Mutex>,
    /// A tag of each mutex that distinguishes it from most others: there may be thousands, and a
    /// drive does not read them all to find one.
    tags: Vec<u64>,
}

fn tag(resource: &ResourceId) -> u64 {
    let words = resource.as_bytes().chunks_exact(8).map(|word| {
        let word: [u8; 8] = word.try_into().unwrap_or_default();
        u64::from_le_bytes(word)
    });
    // Odd, with bits everywhere: words that differ in any bit give different products.
    words.fold(0, |tag, word| (tag.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

impl Table {
    /// The index of a mutex.
    pub(crate) fn find(&self, resource: &ResourceId) -> Option<usize> {
        let wanted = tag(resource);
        let mut alike = (0..self.tags.len()).filter(|&at| self.tags[at] == wanted);
        alike.find(|&at| self.mutexes[at].resource == *resource)
    }

    pub(crate) fn push(&mut self, mutex: Mutex) {
        self.tags.push(tag(&mutex.resource));
        self.mutexes.push(mutex);
    }

    pub(crate) fn remove(&mut self, at: usize) -> Mutex {
        self.tags.remove(at);
        self.mutexes.remove(at)
    }

    pub(crate) fn clear(&mut self) {
        self.tags.clear();
        self.mutexes.clear();
    }
}

impl Deref for Table {
    type Target = [Mutex];

    fn deref(&self) -> &[Mutex] {
        &self.mutexes
    }
}

/// For changes of a mutex's records; its identity never changes.
impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut [Mutex] {
        &mut self.mutexes
    }
}

/// One mutex. It has at least one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mutex {
    pub(crate) resource: ResourceId,
    pub(crate) group: u8,
    pub(crate) entries: Vec<Entry>,
}

/// One record of a mutex: a host that holds it, or was the last to hold it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) host: HostId,
    pub(crate) class: Class,
    pub(crate) countdown_ms: u64,
    pub(crate) modified_ms: u64,
    pub(crate) metadata: Metadata,
    pub(crate) value: Value,
    pub(crate) lease: Lease,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lease {
    Unlocked,
    /// Held. An expired lease does not release it: the holder stays until it is broken
    /// (docs/protocol.md, "The lease clock").
    Until(DriveTime),
}

impl Entry {
    pub(crate) fn new(now: DriveTime, payload: &Record, value: Value) -> Entry {
        Entry {
            host: payload.host,
            class: payload.class,
            countdown_ms: payload.countdown_ms,
            modified_ms: payload.modified_ms,
            metadata: payload.metadata,
            value,
            lease: Lease::Until(now.plus_millis(payload.countdown_ms)),
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.lease != Lease::Unlocked
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.class.mode() == Mode::Shared
    }

    /// Whether it is held with a running lease.
    pub(crate) fn is_live(&self, now: DriveTime) -> bool {
        match self.lease {
            Lease::Unlocked => false,
            Lease::Until(end) => now < end,
        }
    }

    /// Whether BREAK may take this holder's place. Not observed: for an endless lease the only hint
    /// is a remark in the first host implementation that BREAK takes it over.
    pub(crate) fn is_breakable(&self, now: DriveTime) -> bool {
        self.is_held() && (!self.is_live(now) || self.countdown_ms == ENDLESS)
    }
}

impl Mutex {
    pub(crate) fn own(&self, host: &HostId) -> Option<&Entry> {
        self.entries.iter().find(|e| e.host == *host)
    }

    pub(crate) fn own_mut(&mut self, host: &HostId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.host == *host)
    }

    pub(crate) fn is_held(&self) -> bool {
        self.entries.iter().any(Entry::is_held)
    }

    /// Holders other than `host`, live or timed out.
    pub(crate) fn others(&self, host: &HostId) -> impl Iterator<Item = &Entry> {
        let host = *host;
        self.entries.iter().filter(move |e| e.is_held() && e.host != host)
    }

    /// The value that a new record of `host` inherits.
    pub(crate) fn value_for(&self, host: &HostId) -> Value {
        self.own(host).or(self.entries.first()).map_or(Value::ZERO, |e| e.value)
    }

    /// Stores the payload's value as the payload requests.
    pub(crate) fn store_value(&mut self, scope: ValueScope, payload: &Record) {
        // Not observed: 2 ("update, valid") counts as a store, 3 ("invalid") as a loss of the
        // value; further numbers have no meaning and change nothing.
        let value = match payload.value_update {
            ValueUpdate::Store | ValueUpdate::Other(2) => payload.value,
            ValueUpdate::Other(3) => Value::ZERO,
            ValueUpdate::Keep | ValueUpdate::Other(_) => return,
        };
        for entry in &mut self.entries {
            if scope == ValueScope::Mutex || entry.host == payload.host {
                entry.value = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mutex(number: u8) -> Mutex {
        let mut id = [7; 64];
        id[40] = number;
        Mutex { resource: ResourceId::from_bytes(id), group: 0, entries: Vec::new() }
    }

    proptest! {
        #[test]
        fn each_mutex_is_found_where_it_is(
            steps in prop::collection::vec((any::<bool>(), 0u8..40), 0..200),
        ) {
            let mut table = Table::default();
            let mut plain: Vec<Mutex> = Vec::new();
            for (adds, number) in steps {
                let one = mutex(number);
                let at = plain.iter().position(|other| *other == one);
                prop_assert_eq!(table.find(&one.resource), at);
                match at {
                    Some(at) if !adds => prop_assert_eq!(table.remove(at), plain.remove(at)),
                    None if adds => {
                        table.push(one.clone());
                        plain.push(one);
                    }
                    _ => {}
                }
                prop_assert_eq!(&table[..], &plain[..]);
            }
            table.clear();
            prop_assert_eq!(table, Table::default());
        }
    }

    #[test]
    fn tags_that_are_alike_are_told_apart() {
        let mut table = Table::default();
        (0..3).for_each(|number| table.push(mutex(number)));
        let wanted = mutex(2).resource;
        table.tags.fill(tag(&wanted));
        assert_eq!(table.find(&wanted), Some(2));
        assert_eq!(table.find(&mutex(3).resource), None);
    }
}
