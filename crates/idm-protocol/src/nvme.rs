//! IDM over NVMe: vendor-specific admin commands out, completion status in.
//!
//! The records are the same as over SCSI, byte for byte. The mutex table belongs to the controller,
//! not to a namespace: the namespace identifier of all commands here is 0. The numbers are those
//! that the first host implementation sends and expects; there is no recording of NVMe firmware.

use crate::{GROUP_ALL, GROUP_TABLE, Limit, MutexOp, RECORD_LEN, Status};

/// Vendor-specific admin opcode that carries a record to the drive. Bit 0 is the direction.
pub const OPCODE_WRITE: u8 = 0xC1;
/// Vendor-specific admin opcode that reads from the drive.
pub const OPCODE_READ: u8 = 0xC2;
/// Identify (NVM Express base specification).
pub const OPCODE_IDENTIFY: u8 = 0x06;
/// The data structure that Identify returns (CNS): the controller's.
const CNS_CONTROLLER: u32 = 1;
/// Length of an Identify data structure, in bytes.
pub const IDENTIFY_LEN: usize = 4096;
/// Offset of the IDM version in the Identify Controller data: the last byte of the vendor's part.
pub const VERSION_BYTE: usize = 4095;

/// The fields that distinguish an admin command from others. All other fields are 0, except the
/// data's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdminCommand {
    /// Opcode.
    pub opcode: u8,
    /// Command dword 10: for mutex commands the length of the data in dwords (a count, not
    /// zero-based).
    pub cdw10: u32,
    /// Command dword 12: mutex operation in bits 7:4, group in bits 15:8.
    pub cdw12: u32,
    /// Length of the data, in bytes.
    pub data_len: usize,
}

/// A mutex command; the data to the drive is the 512-byte record.
pub fn mutex(op: MutexOp) -> AdminCommand {
    transfer(OPCODE_WRITE, op.to_wire(), GROUP_TABLE, 1)
}

/// Reads the first `blocks` records of the table. A read cannot begin with a later record.
pub fn read_table(blocks: u32) -> AdminCommand {
    transfer(OPCODE_READ, MutexOp::Init.to_wire(), GROUP_TABLE, blocks)
}

/// Reads the counters of the table; see [`record_count`](crate::record_count).
pub fn inquire_table() -> AdminCommand {
    transfer(OPCODE_READ, MutexOp::Init.to_wire(), GROUP_ALL, 1)
}

/// Empties the whole table: every lock of every host is lost. Meant for test fixtures, and for an
/// administrator who knows that no host uses the drive. The data is a record of zeros.
pub fn clear_all() -> AdminCommand {
    transfer(OPCODE_WRITE, 0, GROUP_ALL, 1)
}

/// Reads the controller's Identify data; see [`version`].
pub fn identify_controller() -> AdminCommand {
    AdminCommand {
        opcode: OPCODE_IDENTIFY,
        cdw10: CNS_CONTROLLER,
        cdw12: 0,
        data_len: IDENTIFY_LEN,
    }
}

fn transfer(opcode: u8, op: u8, group: u8, blocks: u32) -> AdminCommand {
    let dwords_of_record = RECORD_LEN as u32 / 4;
    AdminCommand {
        opcode,
        cdw10: blocks.saturating_mul(dwords_of_record),
        cdw12: u32::from(op) << 4 | u32::from(group) << 8,
        data_len: blocks as usize * RECORD_LEN,
    }
}

/// An IDM version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major.
    pub major: u8,
    /// Minor.
    pub minor: u8,
}

/// The IDM version in the answer to [`identify_controller`]. `None` if the data is too short or has
/// version 0, like that of drives without IDM.
pub fn version(identify: &[u8]) -> Option<Version> {
    let byte = *identify.get(VERSION_BYTE)?;
    let version = Version { major: byte >> 4, minor: byte & 0x0F };
    (version.major > 0).then_some(version)
}

/// Status code types (NVM Express base specification, completion queue entry).
mod kind {
    pub const GENERIC: u8 = 0;
    pub const COMMAND_SPECIFIC: u8 = 1;
    pub const PATH: u8 = 3;
}

/// Status codes of the generic type that have a meaning here.
mod generic {
    pub const SUCCESS: u8 = 0x00;
    pub const INVALID_OPCODE: u8 = 0x01;
    pub const DATA_TRANSFER_ERROR: u8 = 0x04;
    pub const ABORT_REQUESTED: u8 = 0x07;
    pub const ABORTED_QUEUE_DELETED: u8 = 0x08;
    pub const NAMESPACE_NOT_READY: u8 = 0x82;
}

/// Status codes of IDM: command specific, C0h to CCh.
pub mod idm {
    #![allow(missing_docs)]
    pub const OPERATION_FAILED: u8 = 0xC0;
    pub const REVERSE_OWNER_CHECK_FAILED: u8 = 0xC1;
    pub const WRONG_STATE: u8 = 0xC2;
    pub const WRONG_CLASS: u8 = 0xC3;
    pub const WRONG_OWNER: u8 = 0xC4;
    pub const INVALID_MUTEX_OP: u8 = 0xC5;
    pub const TABLE_FULL: u8 = 0xC6;
    pub const HOSTS_FULL: u8 = 0xC7;
    pub const HOSTS_OF_MUTEX_FULL: u8 = 0xC8;
    pub const NOT_FOUND: u8 = 0xC9;
    pub const CONFLICT: u8 = 0xCA;
    pub const TERMINATED: u8 = 0xCB;
    pub const BUSY: u8 = 0xCC;

    /// The status field of such a code: its status code type is 1.
    pub const fn status(code: u8) -> u16 {
        0x100 | code as u16
    }
}

/// Whether a status field comes from the path to the drive, not from the drive. Its type is then
/// "path related"; Linux itself uses it while a controller cannot be reached or is being reset.
pub fn is_path_error(status: u16) -> bool {
    kind_of(status) == kind::PATH
}

fn kind_of(status: u16) -> u8 {
    (status >> 8) as u8 & 0x07
}

/// The meaning of a status field: `op` for a mutex command, `None` for a read. `status` is the
/// field without the phase tag, as Linux' ioctl returns it: the status code in bits 7:0, its type
/// in bits 10:8, and above these hints about retries, which do not concern the effect.
///
/// Total: an unknown status is a failure that the controller reported.
pub fn decode_status(op: Option<MutexOp>, status: u16) -> Status {
    let code = status as u8;
    match kind_of(status) {
        kind::GENERIC => match code {
            generic::SUCCESS => Status::Good,
            generic::INVALID_OPCODE => Status::Unsupported,
            generic::NAMESPACE_NOT_READY => Status::TryAgain,
            // Hosts also produce these themselves: for a command that they gave up, and for data
            // with a wrong digest.
            generic::DATA_TRANSFER_ERROR
            | generic::ABORT_REQUESTED
            | generic::ABORTED_QUEUE_DELETED => Status::Uncertain,
            // The controller completed it: it may have begun, and is over.
            _ => Status::Failed,
        },
        kind::COMMAND_SPECIFIC => decode_idm(op, code),
        // The drive may have received the command before that.
        kind::PATH => Status::Uncertain,
        _ => Status::Failed,
    }
}

fn decode_idm(op: Option<MutexOp>, code: u8) -> Status {
    match code {
        idm::REVERSE_OWNER_CHECK_FAILED
        | idm::WRONG_STATE
        | idm::WRONG_CLASS
        | idm::WRONG_OWNER => Status::WrongState,
        // This library sends only defined operations, so the drive has another IDM.
        idm::INVALID_MUTEX_OP => Status::Unsupported,
        idm::TABLE_FULL => Status::Full(Limit::Mutexes),
        idm::HOSTS_FULL => Status::Full(Limit::Hosts),
        idm::HOSTS_OF_MUTEX_FULL => Status::Full(Limit::HostsOfMutex),
        idm::NOT_FOUND => Status::NotFound,
        idm::CONFLICT => Status::Conflict,
        idm::TERMINATED => Status::Terminated,
        // Documented as "held by another". For a command that takes a mutex this is a conflict, and
        // the drive's table then names the holder. Otherwise it would deny that the sender holds
        // the mutex, and a status that means "busy" does not prove that.
        idm::BUSY => match op {
            Some(MutexOp::Init | MutexOp::Trylock | MutexOp::Lock | MutexOp::Break) => {
                Status::Conflict
            }
            Some(MutexOp::Unlock | MutexOp::Refresh | MutexOp::Destroy) | None => Status::TryAgain,
        },
        // OPERATION_FAILED, and codes without a meaning for these commands.
        _ => Status::Failed,
    }
}
