//! One mutex in a drive's table, as one host sees it.

use crate::api::{Conflict, DriveRef, Fingerprint};
use crate::stamp::{CLEARING, Mark, Stamp};
use alloc::vec::Vec;
use idm_protocol::{HostId, Mode, Record, ResourceId, State, Value};

/// One mutex as a table read shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    /// Other hosts that hold it and are alive.
    pub(crate) live: Vec<Conflict>,
    /// Other hosts that hold it only for a moment, to remove it.
    pub(crate) clearing: Vec<Conflict>,
    /// Other hosts that hold it and are timed out.
    pub(crate) dead: Vec<Conflict>,
    /// Whether this host holds it, timed out or not.
    pub(crate) own: Own,
    /// The mode in which this host holds it.
    pub(crate) own_mode: Option<Mode>,
    /// The stamp in this host's record, from the acquisition that wrote it.
    pub(crate) own_stamp: Option<Stamp>,
    /// The greatest value in any of its records. It is not known whether a drive keeps one value
    /// per mutex or one per record.
    pub(crate) value: Value,
}

/// Whether a host's own record stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Own {
    /// It does not.
    None,
    /// It does, from this acquisition.
    Present,
    /// It does, from an earlier life of this host.
    Stale,
}

impl View {
    /// Reads `table` for the mutex `resource`, as host `me`, which stamps its records with `stamp`
    /// and counts the drives of `set`.
    pub(crate) fn of(
        table: &[Record],
        resource: ResourceId,
        me: HostId,
        (stamp, set): (Stamp, Fingerprint),
        drive: DriveRef,
    ) -> View {
        let mut view = View {
            live: Vec::new(),
            clearing: Vec::new(),
            dead: Vec::new(),
            own: Own::None,
            own_mode: None,
            own_stamp: None,
            value: Value::ZERO,
        };
        // An end marker has a zero id and looks like the global lock: only records count.
        for record in table.iter().filter(|r| r.state.is_record() && r.resource == resource) {
            view.value = view.value.max(record.value);
            let mode = record.class.mode();
            let theirs = Stamp::from_metadata(&record.metadata);
            let same_set = theirs.is_some_and(|t| t.fingerprint == set);
            let holder = Conflict { host: record.host, mode, drive, same_set };
            match (record.host == me, record.state) {
                (_, State::Unlocked) => {}
                (true, _) => {
                    let this_one = theirs.is_some_and(|t| t.acquisition == stamp.acquisition);
                    view.own = if this_one { Own::Present } else { Own::Stale };
                    view.own_mode = Some(mode);
                    view.own_stamp = theirs;
                }
                (false, State::TimedOut) => view.dead.push(holder),
                (false, _) if record.metadata == CLEARING => view.clearing.push(holder),
                (false, _) => view.live.push(holder),
            }
        }
        view
    }

    /// Live holders that exclude `mode`.
    pub(crate) fn live_against(&self, mode: Mode) -> Vec<Conflict> {
        self.live.iter().filter(|c| !c.mode.compatible(mode)).copied().collect()
    }

    /// Whether timed-out holders exclude `mode`.
    pub(crate) fn dead_against(&self, mode: Mode) -> bool {
        self.dead.iter().any(|c| !c.mode.compatible(mode))
    }

    /// Other hosts that hold the mutex, alive or not.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Conflict> {
        self.live.iter().chain(&self.dead).chain(&self.clearing)
    }

    /// Whether any other host holds the mutex, alive or not.
    pub(crate) fn has_others(&self) -> bool {
        self.others().next().is_some()
    }

    /// Whether a holder matters to a host that requests the mutex in `mode`.
    pub(crate) fn matters_to(&self, mode: Mode) -> bool {
        self.own != Own::None || self.others().any(|c| !c.mode.compatible(mode))
    }

    /// The mark of the counted drives in this host's record; for every host, a record without a
    /// stamp belongs to another set.
    pub(crate) fn own_mark(&self) -> Option<Mark> {
        let stamp = self.own_stamp.map_or(Mark::Alone, Stamp::mark);
        (self.own != Own::None).then_some(stamp)
    }
}

/// An unused mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Unused {
    pub(crate) resource: ResourceId,
    /// Whether its holder is a dead host that was removing it, so that it must be broken first.
    pub(crate) half_cleared: bool,
}

/// Unused mutexes in `table`: unlocked LV mutexes other than `resource`. The mutex of a VG and the
/// global lock carry a value and stay. A timed-out mutex may belong to a host that comes back,
/// unless that host held it only to remove it.
pub(crate) fn unused(table: &[Record], resource: ResourceId) -> Vec<Unused> {
    let half_cleared = |r: &Record| r.state == State::TimedOut && r.metadata == CLEARING;
    let idle = |r: &Record| r.state == State::Unlocked || half_cleared(r);
    let in_use = |id: ResourceId| table.iter().any(|r| r.resource == id && !idle(r));
    table
        .iter()
        .filter(|r| idle(r) && r.resource.is_lv() && r.resource != resource)
        .map(|r| Unused { resource: r.resource, half_cleared: half_cleared(r) })
        .filter(|unused| !in_use(unused.resource))
        .collect()
}
