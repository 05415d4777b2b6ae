//! The invariant of values that are read without the lock: a host reads each drive at a moment of
//! its own, while others take the lock and give it back.

use crate::coverage::Count;
use crate::ids::{DriveIx, Ix, LockIx, SlotIx};
use crate::world::World;
use crate::world::slots::{Caller, Side};
use crate::world::verdict::{Verdict, ensure};
use core::mem;
use idm_engine::{ValueRead, read_value};
use idm_protocol::{HostId, Record, ResourceId, Value};

/// The number of commands of a lock after which a new read begins: the reads of two drives are at
/// most that far apart.
const SPREAD: u32 = 7;

/// A host that takes part in nothing.
const STRANGER: HostId = HostId::from_bytes([0xFE; 32]);

/// A read that has begun.
#[derive(Debug, Default)]
pub(in crate::world) struct Reading {
    /// The mutex as each drive showed it when the read began.
    tables: Vec<Vec<Record>>,
    /// The least value that was current then.
    floor: u64,
    /// The lock's commands since then.
    commands: u32,
}

impl World {
    /// Lets hosts read the value of a slot's lock after a drive executed a command of that lock.
    pub(in crate::world) fn read_beside(&mut self, s: SlotIx) {
        if !self.plan.reads || !self.value_counts(s) {
            return;
        }
        let l = self.slots.lock(s);
        let now = self.tables_of(l);
        let mut reading = mem::take(&mut self.locks[l].reading);
        if reading.tables.len() == now.len() {
            for me in [Some(STRANGER), self.idle_host(s)].into_iter().flatten() {
                let read = lowest(&reading.tables, &now, self.locks[l].resource, me);
                self.coverage.add(match read {
                    ValueRead::Known(_) => Count::ReadKnown,
                    ValueRead::Unknown => Count::ReadUnknown,
                });
                let verdict = self.check_read(l, read, reading.floor);
                self.require(verdict);
            }
        }
        reading.commands += 1;
        if reading.commands > SPREAD || reading.tables.len() != now.len() {
            let lock = &self.locks[l];
            reading = Reading { tables: now, floor: lock.published.max(lock.poison), commands: 0 };
        }
        self.locks[l].reading = reading;
    }

    /// The present records of a lock's mutex on each of its drives.
    fn tables_of(&self, l: LockIx) -> Vec<Vec<Record>> {
        let lock = &self.locks[l];
        let of_lock = |table: Vec<Record>| {
            table.into_iter().filter(|record| record.resource == lock.resource).collect()
        };
        lock.layout.iter().map(|d| of_lock(self.drives[d].drive.table(self.drive_now(d)))).collect()
    }

    /// The slot's host, if neither it nor an earlier life of it uses the lock.
    fn idle_host(&self, s: SlotIx) -> Option<HostId> {
        let slot = &self.slots[s];
        let idle = slot.call.caller == Caller::Idle && slot.engine.mode.is_none();
        let engine = matches!(slot.engine.side, Side::Engine(_));
        let h = self.slots.host(s);
        let lives = self.hosts[h].alive && slot.legacy.orphan.is_none();
        (idle && engine && lives).then(|| self.hosts[h].id)
    }

    /// Requires that a value that was read is the last one, or a later one.
    fn check_read(&self, l: LockIx, read: ValueRead, floor: u64) -> Verdict {
        let ValueRead::Known(value) = read else { return Ok(()) };
        let (value, issued) = (value.get(), self.locks[l].issued);
        ensure!(value <= issued, "a value was published by somebody", "lock {l:?}: read {value}");
        ensure!(
            value >= floor,
            "a value that is read without the lock is current",
            "lock {l:?} shows {value}, but {floor} was published or spoilt before the read began"
        );
        Ok(())
    }
}

/// The value that a reader with the oldest answers gets. Each drive answers with its state at the
/// beginning of the read or its present one, and only as many drives answer as are needed.
fn lowest(
    then: &[Vec<Record>],
    now: &[Vec<Record>],
    resource: ResourceId,
    me: HostId,
) -> ValueRead {
    let drive = DriveIx::new(0).drive_ref();
    let shown = |table: &Vec<Record>| match read_value([(drive, &table[..])], resource, me, 1) {
        ValueRead::Known(value) => Some(value),
        ValueRead::Unknown => None,
    };
    let oldest = |(then, now)| {
        let tables = [then, now].into_iter();
        tables.filter_map(|table| Some((shown(table)?, table))).min_by_key(|(value, _)| *value)
    };
    let mut drives: Vec<(Value, &Vec<Record>)> = then.iter().zip(now).filter_map(oldest).collect();
    drives.sort_by_key(|(value, _)| *value);
    let majority = then.len() / 2 + 1;
    let tables = drives.iter().take(majority).map(|(_, table)| (drive, &table[..]));
    read_value(tables, resource, me, then.len())
}
