//! The 512-byte record: one (mutex, host) pair as a drive stores and returns it, and also the
//! payload of every mutex command.

use crate::{HostId, Mode, ResourceId};
use alloc::vec::Vec;
use core::fmt;

/// Length of a record in bytes, over SCSI and over NVMe (docs/protocol.md, "The record").
pub const RECORD_LEN: usize = 512;

// Offsets within the record, in bytes (docs/protocol.md, "The record").
const STATE: usize = 0x00;
const MODIFIED: usize = 0x08;
const COUNTDOWN: usize = 0x10;
const CLASS: usize = 0x18;
const VALUE_UPDATE: usize = 0x20;
const VALUE: usize = 0x21;
const RESOURCE_ID: usize = 0x40;
const METADATA: usize = 0x80;
const HOST_ID: usize = 0xC0;

/// 64 bytes that a drive returns as the last successful acquire wrote them.
pub type Metadata = [u8; 64];

/// The state of a record, as the drive reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// 0: a block that was never a record. No trace shows a drive that produces it, but host
    /// buffers have it.
    Uninitialized,
    /// 0x101: held by the record's host.
    Locked,
    /// 0x102: not held; the record remembers its last owner and value.
    Unlocked,
    /// 0x103: held, by several hosts. Defined by the protocol, in no trace.
    MultipleLocked,
    /// 0x104: held, but the owner did not refresh it within its countdown.
    TimedOut,
    /// 0xDEAD: a block past the last record of the table.
    EndOfTable,
    /// Anything else: an unknown state.
    Other(u64),
}

impl State {
    /// The state with this number on the wire.
    pub const fn from_wire(number: u64) -> State {
        match number {
            0 => State::Uninitialized,
            0x101 => State::Locked,
            0x102 => State::Unlocked,
            0x103 => State::MultipleLocked,
            0x104 => State::TimedOut,
            0xDEAD => State::EndOfTable,
            other => State::Other(other),
        }
    }

    /// The number on the wire.
    pub const fn to_wire(self) -> u64 {
        match self {
            State::Uninitialized => 0,
            State::Locked => 0x101,
            State::Unlocked => 0x102,
            State::MultipleLocked => 0x103,
            State::TimedOut => 0x104,
            State::EndOfTable => 0xDEAD,
            State::Other(number) => number,
        }
    }

    /// Whether the record's host holds the mutex with a running lease. An unknown state counts as
    /// live: it must not justify breaking a lock.
    pub const fn is_live(self) -> bool {
        matches!(self, State::Locked | State::MultipleLocked | State::Other(_))
    }

    /// Whether the record occupies a slot in the drive's table.
    pub const fn is_record(self) -> bool {
        !matches!(self, State::Uninitialized | State::EndOfTable)
    }
}

/// The class in which a mutex is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 0: by one host.
    Exclusive,
    /// 1: protected write, in the protocol but never used.
    ProtectedWrite,
    /// 2: by any number of hosts.
    Shared,
    /// Anything else.
    Other(u64),
}

impl Class {
    /// The class with this number on the wire.
    pub const fn from_wire(number: u64) -> Class {
        match number {
            0 => Class::Exclusive,
            1 => Class::ProtectedWrite,
            2 => Class::Shared,
            other => Class::Other(other),
        }
    }

    /// The number on the wire.
    pub const fn to_wire(self) -> u64 {
        match self {
            Class::Exclusive => 0,
            Class::ProtectedWrite => 1,
            Class::Shared => 2,
            Class::Other(number) => number,
        }
    }

    /// The lock mode; a class that is not [`Class::Shared`] excludes every other host.
    pub const fn mode(self) -> Mode {
        match self {
            Class::Shared => Mode::Shared,
            _ => Mode::Exclusive,
        }
    }
}

impl From<Mode> for Class {
    fn from(mode: Mode) -> Class {
        match mode {
            Mode::Exclusive => Class::Exclusive,
            Mode::Shared => Class::Shared,
        }
    }
}

/// A lock value block (LVB) as a number: 56 bits, because the drive keeps 7 bytes of it.
///
/// The first host implementation writes its 8-byte little-endian value reversed. So on the wire it
/// is a big-endian number, and both implementations read the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(u64);

impl Value {
    /// The value of a mutex that no host has written, or that lost its value.
    pub const ZERO: Value = Value(0);
    /// The greatest value.
    pub const MAX: Value = Value((1 << 56) - 1);

    /// A value; `None` if the number has more than 56 bits.
    pub const fn new(number: u64) -> Option<Value> {
        if number > Value::MAX.0 { None } else { Some(Value(number)) }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The use that a drive is to make of the value in a payload (byte 0x20 of the record). It reads
/// back as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ValueUpdate {
    /// 0: leave the stored value alone. Every acquire and refresh of the recordings has it.
    #[default]
    Keep,
    /// 1: store it. Only UNLOCKs in the traces have it; it is not known whether other commands
    /// honour it.
    Store,
    /// Anything else. 2 and 3 are defined, but no trace has them.
    Other(u8),
}

impl ValueUpdate {
    /// The meaning of the byte on the wire.
    pub const fn from_wire(byte: u8) -> ValueUpdate {
        match byte {
            0 => ValueUpdate::Keep,
            1 => ValueUpdate::Store,
            other => ValueUpdate::Other(other),
        }
    }

    /// The byte on the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            ValueUpdate::Keep => 0,
            ValueUpdate::Store => 1,
            ValueUpdate::Other(byte) => byte,
        }
    }
}

/// One record, or the payload of one mutex command.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// The record's state, as the drive reports it; drives ignore it in a payload.
    pub state: State,
    /// The time of the last update, in ms since 1970, on the clock of the host that wrote it.
    /// Drives store and return it, and do not use it.
    pub modified_ms: u64,
    /// The lease in ms. It reads back as configured, without counting down. 0 is a lease that is
    /// over at once, not one without end.
    pub countdown_ms: u64,
    /// The class in which the mutex is held.
    pub class: Class,
    /// The use that the drive is to make of `value`; reads back as [`ValueUpdate::Keep`].
    pub value_update: ValueUpdate,
    /// The lock value block.
    pub value: Value,
    /// The mutex.
    pub resource: ResourceId,
    /// 64 bytes for the host's own use.
    pub metadata: Metadata,
    /// The host that owns the record.
    pub host: HostId,
}

impl Record {
    /// A block past the end of the table, as drives return it.
    pub fn end_of_table() -> Record {
        Record {
            state: State::EndOfTable,
            modified_ms: 0,
            countdown_ms: 0,
            class: Class::Exclusive,
            value_update: ValueUpdate::Keep,
            value: Value::ZERO,
            resource: ResourceId::GLOBAL,
            metadata: [0; 64],
            host: HostId::from_bytes([0; 32]),
        }
    }

    /// The record as the 512 bytes on the wire. Numbers are big-endian; resource id and host id are
    /// reversed as whole arrays (docs/protocol.md, "The record"); bytes without a meaning are zero.
    pub fn encode(&self) -> [u8; RECORD_LEN] {
        let mut block = [0; RECORD_LEN];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(STATE, &self.state.to_wire().to_be_bytes());
        put(MODIFIED, &self.modified_ms.to_be_bytes());
        put(COUNTDOWN, &self.countdown_ms.to_be_bytes());
        put(CLASS, &self.class.to_wire().to_be_bytes());
        put(VALUE_UPDATE, &[self.value_update.to_wire()]);
        put(VALUE, &self.value.0.to_be_bytes()[1..]);
        put(RESOURCE_ID, &reversed(*self.resource.as_bytes()));
        put(METADATA, &self.metadata);
        put(HOST_ID, &reversed(*self.host.as_bytes()));
        block
    }

    /// The record in 512 bytes from the wire. Every block has a meaning: unknown numbers become the
    /// `Other` variants.
    pub fn decode(block: &[u8; RECORD_LEN]) -> Record {
        let number = |at: usize| u64::from_be_bytes(array(block, at));
        Record {
            state: State::from_wire(number(STATE)),
            modified_ms: number(MODIFIED),
            countdown_ms: number(COUNTDOWN),
            class: Class::from_wire(number(CLASS)),
            value_update: ValueUpdate::from_wire(block[VALUE_UPDATE]),
            value: Value(number(VALUE_UPDATE) & Value::MAX.0),
            resource: ResourceId::from_bytes(reversed(array(block, RESOURCE_ID))),
            metadata: array(block, METADATA),
            host: HostId::from_bytes(reversed(array(block, HOST_ID))),
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?} {} by {} lease {} ms value {}",
            self.state,
            self.class,
            self.resource,
            self.host,
            self.countdown_ms,
            self.value.get()
        )
    }
}

/// The records in the bytes of a table read: blocks up to the first one that is no record.
/// According to the recordings, surplus blocks carry an end marker and an exact read has none;
/// blocks that the drive left unfilled are zero.
pub fn parse_table(bytes: &[u8]) -> Vec<Record> {
    bytes
        .chunks_exact(RECORD_LEN)
        .filter_map(|block| block.first_chunk().map(Record::decode))
        .take_while(|record| record.state.is_record())
        .collect()
}

/// The number of records in the table, from a drive's counters: the first big-endian 16-bit word.
/// It counts (mutex, host) pairs, not mutexes (docs/protocol.md, "The counters").
pub fn record_count(counters: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*counters.first_chunk()?))
}

/// The `N` bytes at `at`. The offsets are constants of this file, all within a record.
fn array<const N: usize>(block: &[u8; RECORD_LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[at..at + N]);
    bytes
}

fn reversed<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    bytes.reverse();
    bytes
}
