//! The value of a mutex that nobody takes: what the drives' tables alone tell of it.
//!
//! A lock that is granted keeps writers away while the value is read. A reader does not, so the
//! tables themselves must show that nobody has the lock. A host that has it, has its record on a
//! keep quorum of the drives, which shares a drive with every majority. So a majority of drives
//! without any holder saw a moment at which nobody had the lock, and each of them that the last
//! holder had taken was given back by its UNLOCK, which stored the value
//! (docs/locking.md, "The value").

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
    if count > 0 && count >= needed { ValueRead::Known(greatest) } else { ValueRead::Unknown }
}

/// The value of the mutex `resource` that the tables of some of its `members` drives show to the
/// host `me`, which neither holds the mutex nor left it to a later life.
///
/// A known value was the last one that was published, at some moment between the first and the last
/// of the reads. It is unknown if any other host holds the mutex on any of these drives, with its
/// lease running or over: such a host may have changed what the mutex protects. A drive with a
/// record of `me`, which an UNLOCK has yet to end, shows a value from before the lock.
pub fn read_value<'a>(
    tables: impl IntoIterator<Item = &'a [Record]>,
    resource: ResourceId,
    me: HostId,
    members: usize,
) -> ValueRead {
    let mut shown = alloc::vec::Vec::new();
    for table in tables {
        // Which drive shows a holder does not matter here.
        let view = View::of(table, resource, me, (NO_STAMP, NO_STAMP.fingerprint), DriveRef(0));
        if view.has_others() {
            return ValueRead::Unknown;
        }
        if view.own == Own::None {
            shown.push(view.value);
        }
    }
    confirmed(shown.into_iter(), Rules::default().acquire_quorum(members))
}
