//! The scratch mutexes of a test, and the commands for them.

use super::subject::{Answer, Stop, Subject};
use idm_protocol::{
    Class, HostId, Metadata, Mode, MutexOp, RECORD_LEN, Record, ResourceId, State, Status, Value,
    ValueUpdate, parse_table,
};
use std::time::Duration;

/// The VG half of all scratch mutexes. No LVM uuid contains `*`, so no VG can have this uuid. They
/// have an LV half, so the library removes one that was left unlocked, if a table is full.
pub const SCRATCH_VG: [u8; 32] = *b"*scratch-of-idmctl-selftest*\0\0\0\0";
/// A lease that does not expire during a rule.
pub const LONG: Duration = Duration::from_secs(10);
/// A lease that expires during a rule.
pub const SHORT: Duration = Duration::from_millis(400);
/// Records that are read at once beyond those that were there: more than any rule leaves.
const MARGIN: u32 = 64;
/// Number of tries to give everything back.
const ROUNDS: usize = 12;

/// Whether a mutex is one of a test.
pub fn is_scratch(id: &ResourceId) -> bool {
    id.as_bytes()[..32] == SCRATCH_VG
}

/// The record of a command.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    /// The mutex.
    pub id: ResourceId,
    /// The number of the host that sends it.
    pub host: u8,
    /// The mode.
    pub mode: Mode,
    /// The lease.
    pub lease: Duration,
    /// The value.
    pub value: u64,
    /// Whether the drive must store the value.
    pub store: bool,
    /// The first byte of the metadata.
    pub mark: u8,
}

impl Payload {
    /// A payload with a long lease.
    pub fn new(id: ResourceId, host: u8, mode: Mode) -> Payload {
        Payload { id, host, mode, lease: LONG, value: 0, store: false, mark: host }
    }

    /// Shortens the lease.
    pub fn short(self) -> Payload {
        Payload { lease: SHORT, ..self }
    }

    /// Adds a value that the drive must not store.
    pub fn with(self, value: u64) -> Payload {
        Payload { value, ..self }
    }

    /// Adds a value that the drive must store.
    pub fn storing(self, value: u64) -> Payload {
        Payload { value, store: true, ..self }
    }
}

/// A drive on which rules are tested.
pub struct Bench<'s> {
    subject: &'s mut dyn Subject,
    run: [u8; 14],
    made: u16,
    blocks: u32,
}

impl<'s> Bench<'s> {
    /// A test with a random number of its own.
    pub fn new(subject: &'s mut dyn Subject, run: [u8; 14]) -> Bench<'s> {
        Bench { subject, run, made: 0, blocks: MARGIN }
    }

    /// The drive.
    pub fn subject(&mut self) -> &mut dyn Subject {
        self.subject
    }

    /// A mutex that nobody has used.
    pub fn fresh(&mut self) -> ResourceId {
        let mut id = [0; 64];
        id[..32].copy_from_slice(&SCRATCH_VG);
        id[32..46].copy_from_slice(&self.run);
        self.made += 1;
        id[62..].copy_from_slice(&self.made.to_be_bytes());
        ResourceId::from_bytes(id)
    }

    /// The id of a host of this test.
    pub fn host(&self, number: u8) -> HostId {
        let mut random = [0; 16];
        random[..14].copy_from_slice(&self.run);
        random[15] = number;
        HostId::new(random, "idmctl-selftest")
    }

    /// The metadata that a payload carries.
    pub fn metadata(payload: &Payload) -> Metadata {
        let mut metadata = [0; 64];
        metadata[0] = payload.mark;
        metadata[63] = 0x5A;
        metadata
    }

    /// A payload as a record.
    pub fn record(&self, payload: &Payload) -> Record {
        Record {
            state: State::Uninitialized,
            modified_ms: crate::fleet::wall_ms(),
            countdown_ms: payload.lease.as_millis() as u64,
            class: Class::from(payload.mode),
            value_update: if payload.store { ValueUpdate::Store } else { ValueUpdate::Keep },
            value: Value::new(payload.value).unwrap_or_default(),
            resource: payload.id,
            metadata: Bench::metadata(payload),
            host: self.host(payload.host),
        }
    }

    /// Sends a command.
    pub fn send(&mut self, op: MutexOp, payload: Payload) -> Result<Status, Stop> {
        Ok(self.answer(op, payload)?.status)
    }

    /// The same, with sense data.
    pub fn answer(&mut self, op: MutexOp, payload: Payload) -> Result<Answer, Stop> {
        let record = self.record(&payload);
        self.subject.change(op, &record)
    }

    /// Lets a short lease run out.
    pub fn outlast(&mut self) -> Result<(), Stop> {
        self.subject.sleep(SHORT + SHORT / 4)
    }

    /// The whole table.
    pub fn all(&mut self) -> Result<Vec<Record>, Stop> {
        loop {
            let data = self.subject.table(self.blocks)?;
            let data = data.ok_or_else(|| too_long(self.blocks))?;
            let records = parse_table(&data);
            if (records.len() as u32) < self.blocks {
                return Ok(records);
            }
            self.blocks *= 2;
        }
    }

    /// The records of a mutex.
    pub fn records(&mut self, id: ResourceId) -> Result<Vec<Record>, Stop> {
        Ok(self.all()?.into_iter().filter(|record| record.resource == id).collect())
    }

    /// The record of one host for a mutex.
    pub fn record_of(&mut self, id: ResourceId, host: u8) -> Result<Option<Record>, Stop> {
        let host = self.host(host);
        Ok(self.records(id)?.into_iter().find(|record| record.host == host))
    }

    /// Whether a host of this test holds a mutex with a lease that runs.
    pub fn is_live(&mut self, id: ResourceId, host: u8) -> Result<bool, Stop> {
        Ok(self.record_of(id, host)?.is_some_and(|record| record.state.is_live()))
    }

    /// Gives all mutexes of this test back.
    pub fn clear(&mut self) -> Result<(), Stop> {
        let run = self.run;
        self.remove(|id| id.as_bytes()[32..46] == run)
    }

    /// Removes the scratch mutexes that `meant` selects, in the names of their holders.
    pub fn remove(&mut self, meant: impl Fn(&ResourceId) -> bool) -> Result<(), Stop> {
        for _ in 0..ROUNDS {
            let all = self.all()?;
            let left: Vec<Record> = all
                .into_iter()
                .filter(|record| is_scratch(&record.resource) && meant(&record.resource))
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            for record in left {
                self.give_back(&record)?;
            }
        }
        Err(Stop::Lost(
            "the drive does not give scratch mutexes back; they are no volume group's".to_owned(),
        ))
    }

    /// One step to the end of a record.
    fn give_back(&mut self, record: &Record) -> Result<(), Stop> {
        if record.state == State::Unlocked {
            return self.subject.change(MutexOp::Destroy, record).map(drop);
        }
        let unlocked = self.subject.change(MutexOp::Unlock, record)?.status;
        if unlocked == Status::Good {
            return self.subject.change(MutexOp::Destroy, record).map(drop);
        }
        // Firmware may want the lease to run, or the other class.
        self.subject.change(MutexOp::Refresh, record)?;
        let other = match record.class.mode() {
            Mode::Shared => Class::Exclusive,
            Mode::Exclusive => Class::Shared,
        };
        let other = Record { class: other, ..record.clone() };
        self.subject.change(MutexOp::Unlock, &other)?;
        self.subject.change(MutexOp::Destroy, record).map(drop)
    }

    /// The number of filled blocks in a read of `blocks` blocks; `None` if the adapter cannot move
    /// so many.
    pub fn filled(&mut self, blocks: u32) -> Result<Option<usize>, Stop> {
        let Some(data) = self.subject.table(blocks)? else { return Ok(None) };
        let is_filled = |block: &[u8]| block.iter().any(|&byte| byte != 0);
        Ok(Some(data.chunks_exact(RECORD_LEN).take_while(|block| is_filled(block)).count()))
    }
}

/// A read of the table that is too long for the adapter.
fn too_long(blocks: u32) -> Stop {
    Stop::Lost(format!(
        "the adapter does not read {blocks} records at once: reach the drive by another adapter, \
         or load the sg module"
    ))
}
