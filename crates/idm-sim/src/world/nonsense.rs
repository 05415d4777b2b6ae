//! Replies of drives that answer nonsense.

use super::World;
use super::hosts::host_id;
use crate::ids::{HostIx, Ix, SlotIx};
use idm_protocol::{Class, HostId, Record, Reply, ResourceId, State, Status, Value, ValueUpdate};

/// States of a record, and some that do not exist.
const STATES: [u64; 8] = [0, 0x101, 0x102, 0x103, 0x104, 0xDEAD, 0x105, u64::MAX];

impl World {
    /// Any possible reply except GOOD. The transport has already rejected data that is no table. No
    /// protocol survives a drive that gives a false GOOD or a false table: one such drive would
    /// turn a minority of the others into a majority.
    pub(super) fn harmless_nonsense(&mut self, reply: &Reply) -> Reply {
        match reply {
            // A drive that is reserved also refuses reads.
            Reply::Table(_) if self.rng.bool() => Reply::Status(Status::Conflict),
            Reply::Table(_) => Reply::Status(Status::Failed),
            Reply::Status(_) => {
                Reply::Status(Status::FAILURES[self.rng.usize(0..Status::FAILURES.len())])
            }
        }
    }

    /// Any possible reply.
    pub(super) fn nonsense(&mut self, s: SlotIx) -> Reply {
        if self.rng.u8(0..3) > 0 {
            let bad = &Status::FAILURES;
            let status = bad.get(self.rng.usize(0..=bad.len())).unwrap_or(&Status::Good);
            return Reply::Status(*status);
        }
        let records = self.rng.usize(0..6);
        let table = (0..records).map(|_| self.nonsense_record(s)).collect();
        Reply::Table(table)
    }

    fn nonsense_record(&mut self, s: SlotIx) -> Record {
        let rng = &mut self.rng;
        let mut metadata = [0; 64];
        if rng.bool() {
            rng.fill(&mut metadata);
        }
        let host = match rng.u8(0..4) {
            0 => self.hosts[self.slots.host(s)].id,
            1 => self.hosts[HostIx::new(rng.usize(0..self.hosts.len()))].id,
            2 => HostId::from_bytes([0; 32]),
            _ => host_id(HostIx::new(rng.usize(0..8)), rng.u8(0..16)),
        };
        Record {
            state: State::from_wire(STATES[rng.usize(0..STATES.len())]),
            modified_ms: rng.u64(..),
            countdown_ms: if rng.bool() { rng.u64(..) } else { 0 },
            class: Class::from_wire(rng.u64(0..4)),
            value_update: ValueUpdate::from_wire(rng.u8(..)),
            value: Value::new(rng.u64(..) >> 8).unwrap_or(Value::ZERO),
            resource: if rng.u8(0..4) > 0 {
                self.locks[self.slots.lock(s)].resource
            } else {
                ResourceId::from_bytes([rng.u8(..); 64])
            },
            metadata,
            host,
        }
    }
}
