//! Command descriptor blocks, as a drive reads them.
//!
//! Parsing has two steps: first the opcode alone, because an unknown opcode is refused whatever
//! follows it; then the parameters of that opcode.

use idm_protocol::reservation::scsi::{RESERVE_IN, RESERVE_OUT};
use idm_protocol::{GROUP_ALL, MutexOp, RECORD_LEN, scsi};

/// The opcodes that a drive serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    TestUnitReady,
    RequestSense,
    Inquiry,
    /// 88h with a mutex group in the place of READ(16)'s top address byte.
    OlderRead,
    /// 8Eh, and 89h as its alias (docs/protocol.md, "The older SCSI commands").
    OlderWrite,
    /// F0h, in both directions.
    Idm,
}

impl Opcode {
    fn from_wire(opcode: u8) -> Option<Opcode> {
        Some(match opcode {
            0x00 => Opcode::TestUnitReady,
            0x03 => Opcode::RequestSense,
            0x12 => Opcode::Inquiry,
            0x88 => Opcode::OlderRead,
            0x89 | 0x8E => Opcode::OlderWrite,
            scsi::OPCODE => Opcode::Idm,
            _ => return None,
        })
    }

    const fn cdb_len(self) -> usize {
        match self {
            Opcode::TestUnitReady | Opcode::RequestSense | Opcode::Inquiry => 6,
            Opcode::OlderRead | Opcode::OlderWrite | Opcode::Idm => 16,
        }
    }
}

/// A command with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    TestUnitReady,
    RequestSense {
        /// Whether in descriptor form.
        descriptor: bool,
        allocation: usize,
    },
    Inquiry {
        /// A vital product data page, or the standard data.
        page: Option<u8>,
        allocation: usize,
    },
    ReadTable {
        blocks: u32,
    },
    /// The counters, one block; further blocks stay empty.
    ReadCounters {
        blocks: u32,
    },
    Mutex {
        op: MutexOp,
        group: u8,
    },
    ClearAll,
}

/// The reason why a CDB is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CdbError {
    /// The drive does not have this opcode.
    Opcode,
    /// The drive does not have this mutex operation.
    MutexOp,
    /// There is no such mutex group.
    Group,
    /// A parameter is out of range.
    Field,
}

/// The mutex groups. The traces use 1 to 3, and the counters have a word for each of them.
pub(crate) const GROUPS: core::ops::RangeInclusive<u8> = 1..=3;

/// Whether a CDB is a mutex command in one of its encodings, so that a front end that also serves
/// disk data passes it to [`Drive::execute`](crate::Drive::execute).
///
/// The older encodings share their opcodes with READ(16) and WRITE AND VERIFY(16). They have the
/// mutex group in the top byte of the logical block address, and no disk has blocks there.
pub fn is_mutex_command(cdb: &[u8]) -> bool {
    match cdb.first().and_then(|&opcode| Opcode::from_wire(opcode)) {
        Some(Opcode::Idm) => true,
        Some(Opcode::OlderRead | Opcode::OlderWrite) => cdb.get(2).is_some_and(|&group| group != 0),
        _ => false,
    }
}

/// The command in a CDB.
pub(crate) fn parse(cdb: &[u8]) -> Result<Command, CdbError> {
    let opcode =
        cdb.first().and_then(|&opcode| Opcode::from_wire(opcode)).ok_or(CdbError::Opcode)?;
    let cdb = cdb.get(..opcode.cdb_len()).ok_or(CdbError::Field)?;
    match opcode {
        Opcode::TestUnitReady => Ok(Command::TestUnitReady),
        Opcode::RequestSense => Ok(Command::RequestSense {
            descriptor: cdb[1] & 1 != 0,
            allocation: usize::from(cdb[4]),
        }),
        Opcode::Inquiry => inquiry(cdb),
        // Without a group these are ordinary disk commands, and there is no disk here.
        Opcode::OlderRead | Opcode::OlderWrite if cdb[2] == 0 => Err(CdbError::Opcode),
        Opcode::OlderRead => read(cdb[2], number(cdb)),
        Opcode::OlderWrite => write(cdb[14], cdb[2], number(cdb) == 1),
        // Byte 1 contains the direction: reads have the constant 01h, writes the operation in the
        // upper half and zero in the lower.
        Opcode::Idm if cdb[1] == 0x01 => read(cdb[14], number(cdb)),
        Opcode::Idm if cdb[1] & 0x0F == 0 => {
            write(cdb[1] >> 4, cdb[14], number(cdb) == RECORD_LEN as u32)
        }
        Opcode::Idm => Err(CdbError::Field),
    }
}

/// Bytes 10 to 13: blocks, or bytes for F0h writes.
fn number(cdb: &[u8]) -> u32 {
    u32::from_be_bytes([cdb[10], cdb[11], cdb[12], cdb[13]])
}

fn inquiry(cdb: &[u8]) -> Result<Command, CdbError> {
    let vital = cdb[1] & 1 != 0;
    if !vital && cdb[2] != 0 {
        return Err(CdbError::Field);
    }
    Ok(Command::Inquiry {
        page: vital.then_some(cdb[2]),
        allocation: usize::from(u16::from_be_bytes([cdb[3], cdb[4]])),
    })
}

/// A read of that many blocks.
pub(crate) fn read(group: u8, blocks: u32) -> Result<Command, CdbError> {
    match group {
        GROUP_ALL => Ok(Command::ReadCounters { blocks }),
        // Groups do not separate reads from writes; not observed on newer firmware.
        group if GROUPS.contains(&group) => Ok(Command::ReadTable { blocks }),
        _ => Err(CdbError::Group),
    }
}

/// A write, which must be of one block.
pub(crate) fn write(op: u8, group: u8, one_block: bool) -> Result<Command, CdbError> {
    let command = match (op, group) {
        (0, GROUP_ALL) => Command::ClearAll,
        (op, group) => {
            Command::Mutex { op: MutexOp::from_wire(op).ok_or(CdbError::MutexOp)?, group }
        }
    };
    match command {
        Command::Mutex { group, .. } if !GROUPS.contains(&group) => Err(CdbError::Group),
        // Not observed: a write of another length than one record.
        _ if !one_block => Err(CdbError::Field),
        command => Ok(command),
    }
}

/// The kind of a CDB's command, in a word for statistics.
pub fn kind(cdb: &[u8]) -> &'static str {
    match cdb.first() {
        Some(&RESERVE_IN) => "reserve-in",
        Some(&RESERVE_OUT) => "reserve-out",
        _ => parse(cdb).map_or(INVALID, Command::word),
    }
}

/// The word for an invalid command.
pub(crate) const INVALID: &str = "invalid";

impl Command {
    /// The kind of the command, in a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Command::TestUnitReady => "test-unit-ready",
            Command::RequestSense { .. } => "request-sense",
            Command::Inquiry { .. } => "inquiry",
            Command::ReadTable { .. } => "read-table",
            Command::ReadCounters { .. } => "read-counters",
            Command::ClearAll => "clear-all",
            Command::Mutex { op, .. } => match op {
                MutexOp::Init => "init",
                MutexOp::Trylock => "trylock",
                MutexOp::Lock => "lock",
                MutexOp::Unlock => "unlock",
                MutexOp::Refresh => "refresh",
                MutexOp::Break => "break",
                MutexOp::Destroy => "destroy",
            },
        }
    }
}
