//! The value of a mutex, read from the drives' tables without taking the mutex.
//!
//! A granted lock keeps writers away while its value is read. A reader does not, so the tables must
//! show that nobody has the lock. A holder has a record on a keep quorum of the drives, which
//! shares a drive with every majority. So a majority of drives without a holder excludes a host
//! that had the lock during all of the reads. It also has a drive of the last holder, whose UNLOCK
//! stored the value there (docs/locking.md, "The value").

use crate::api::{DriveRef, Fingerprint, ValueRead};
use crate::rules::Rules;
use crate::stamp::Stamp;
use crate::view::{Own, View};
use idm_protocol::{HostId, Record, ResourceId, Value};

/// The stamp of a reader, which writes no record.
const NO_STAMP: Stamp = Stamp { fingerprint: Fingerprint([0; 16]), acquisition: 0, alone: false };

/// The greatest value, if at least `needed` drives show one. A drive that shows zero never had a
/// value or has lost it: it cannot confirm the value of the others.
pub(crate) fn confirmed(shown: impl Iterator<Item = Value>, needed: usize) -> ValueRead {
    let (count, greatest) = shown
        .filter(|&value| value != Value::ZERO)
        .fold((0, Value::ZERO), |(count, greatest), value| (count + 1, greatest.max(value)));
    if count >= needed { ValueRead::Known(greatest) } else { ValueRead::Unknown }
}

/// The value of the mutex `resource`, which has `members` drives, in the tables of some of them, as
/// the host `me` reads it. The host must neither hold the mutex nor have an orphan of it.
///
/// A known value was the last published one at some moment between the first and the last read. The
/// value is unknown if another host holds the mutex on one of these drives, even with an expired
/// lease: that host may have changed the protected data. A drive with a record of `me` has not
/// carried out the UNLOCK of an earlier lock yet, so its value does not count.
pub fn read_value<'a>(
    tables: impl IntoIterator<Item = (DriveRef, &'a [Record])>,
    resource: ResourceId,
    me: HostId,
    members: usize,
) -> ValueRead {
    let mut shown = alloc::vec::Vec::new();
    for (drive, table) in tables {
        let view = View::of(table, resource, me, (NO_STAMP, NO_STAMP.fingerprint), drive);
        if view.has_others() {
            return ValueRead::Unknown;
        }
        if view.own == Own::None {
            shown.push(view.value);
        }
    }
    confirmed(shown.into_iter(), Rules::default().acquire_quorum(members))
}
