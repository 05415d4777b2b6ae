//! IDM over SCSI: command descriptor blocks out, status and sense data in.

use crate::{GROUP_ALL, GROUP_TABLE, Limit, MutexOp, RECORD_LEN, Status};

/// Vendor opcode of the present command scheme, in both directions.
pub const OPCODE: u8 = 0xF0;
/// INQUIRY vital product data page that carries the IDM version.
pub const VERSION_PAGE: u8 = 0xC3;
/// Allocation length of the version page in bytes.
pub const VERSION_PAGE_LEN: usize = 0x70;
/// Offset of the major version in the version page, in bytes.
pub const VERSION_MAJOR: usize = 96;

/// INQUIRY vital product data page with the designators of the logical unit.
pub const IDENTITY_PAGE: u8 = 0x83;
/// Allocation length of the device identification page in bytes.
pub const IDENTITY_PAGE_LEN: usize = 1024;

/// A command descriptor block. The 16-byte form of SPC-4 is long enough for every command here.
pub type Cdb = [u8; 16];

/// A mutex command; the data to the drive is the 512-byte payload. Bytes 10-13 are a length in
/// bytes.
pub fn mutex(op: MutexOp) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = OPCODE;
    cdb[1] = op.to_wire() << 4;
    cdb[10..14].copy_from_slice(&(RECORD_LEN as u32).to_be_bytes());
    cdb[14] = GROUP_TABLE;
    cdb
}

/// Reads the first `blocks` records of the table. Bytes 10-13 are a number of records.
pub fn read_table(blocks: u32) -> Cdb {
    read(GROUP_TABLE, blocks)
}

/// Reads the counters of the table; see [`record_count`](crate::record_count).
pub fn inquire_table() -> Cdb {
    read(GROUP_ALL, 1)
}

fn read(group: u8, blocks: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = OPCODE;
    cdb[1] = 0x01;
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb[14] = group;
    cdb
}

/// Reads the page with the IDM version; see [`version`].
pub fn inquire_version() -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0x12;
    cdb[1] = 0x01;
    cdb[2] = VERSION_PAGE;
    cdb[3..5].copy_from_slice(&(VERSION_PAGE_LEN as u16).to_be_bytes());
    cdb
}

/// Reads the device identification page (VPD page 83h), which distinguishes drives (SPC-4).
pub fn inquire_identity() -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0x12;
    cdb[1] = 0x01;
    cdb[2] = IDENTITY_PAGE;
    cdb[3..5].copy_from_slice(&(IDENTITY_PAGE_LEN as u16).to_be_bytes());
    cdb
}

/// Empties the whole table: every lock of every host is lost. Meant for test fixtures, and for an
/// administrator who knows that no host uses the drive.
pub fn clear_all() -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = OPCODE;
    cdb[10..14].copy_from_slice(&(RECORD_LEN as u32).to_be_bytes());
    cdb[14] = GROUP_ALL;
    cdb
}

/// The major IDM version in the answer to [`inquire_version`].
pub fn version(page: &[u8]) -> Option<u8> {
    (*page.get(1)? == VERSION_PAGE).then_some(())?;
    page.get(VERSION_MAJOR).copied()
}

/// SCSI status bytes (SAM-5), as delivered in `sg_io_hdr.status`.
pub mod status {
    #![allow(missing_docs)]
    pub const GOOD: u8 = 0x00;
    pub const CHECK_CONDITION: u8 = 0x02;
    pub const CONDITION_MET: u8 = 0x04;
    pub const BUSY: u8 = 0x08;
    pub const RESERVATION_CONFLICT: u8 = 0x18;
    pub const COMMAND_TERMINATED: u8 = 0x22;
    pub const TASK_SET_FULL: u8 = 0x28;
    pub const ACA_ACTIVE: u8 = 0x30;
    pub const TASK_ABORTED: u8 = 0x40;
}

/// Sense data reduced to the parts with a meaning: key, additional code and qualifier, and the
/// field replaceable unit code, by which newer firmware distinguishes limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// Field replaceable unit code; 0 if there is none.
    pub fru: u8,
    /// Whether it concerns an earlier command (71h, 73h). The command that it came with was not
    /// executed (SPC-4, "Deferred errors").
    pub deferred: bool,
}

impl Sense {
    /// Decodes sense data in descriptor (72h, 73h) or fixed (70h, 71h) form; `None` if it has
    /// neither form or is too short.
    pub fn decode(sense: &[u8]) -> Option<Sense> {
        let code = sense.first()? & 0x7F;
        match code {
            0x72 | 0x73 => Some(Sense {
                key: *sense.get(1)? & 0x0F,
                asc: *sense.get(2)?,
                ascq: *sense.get(3)?,
                fru: descriptor_fru(sense).unwrap_or(0),
                deferred: code == 0x73,
            }),
            0x70 | 0x71 => Some(Sense {
                key: *sense.get(2)? & 0x0F,
                asc: sense.get(12).copied().unwrap_or(0),
                ascq: sense.get(13).copied().unwrap_or(0),
                fru: sense.get(14).copied().unwrap_or(0),
                deferred: code == 0x71,
            }),
            _ => None,
        }
    }

    /// Whether the logical unit reports that it may be another one now: its INQUIRY data, its
    /// identifier or the list of logical units has changed (SPC-4).
    pub fn tells_of_another_unit(self) -> bool {
        matches!((self.key, self.asc, self.ascq), (0x06, 0x3F, 0x03 | 0x05 | 0x0E))
    }

    /// The meaning of a CHECK CONDITION with this sense data, for a mutex command.
    pub fn status(self) -> Status {
        if self.deferred {
            return Status::TryAgain;
        }
        match (self.key, self.asc, self.ascq, self.fru) {
            // RECOVERED ERROR: done, with some effort (SPC-4).
            (0x01, ..) => Status::Good,
            // Recorded (docs/protocol.md, "Status and sense codes"): "LBA out of range" means "no
            // such mutex".
            (0x05, 0x21, 0x00, _) => Status::NotFound,
            // Recorded, rev 2313.
            (0x07, 0x40, 0x00, _) => Status::Full(Limit::Mutexes),
            (0x07, 0x41, 0x00, _) => Status::Full(Limit::Hosts),
            (0x07, 0x42, 0x00, _) => Status::Full(Limit::HostsOfMutex),
            // The host code of 22 June 2020 took 07/30 FRU 1 for a full table; FRU 2 is an unknown
            // mutex operation.
            (0x07, 0x30, 0x00, 1) => Status::Full(Limit::Mutexes),
            // Documented for newer firmware.
            (0x0B, 0x55, 0x03, 0) => Status::Full(Limit::Mutexes),
            (0x0B, 0x55, 0x03, 1) => Status::Full(Limit::Hosts),
            (0x0B, 0x55, 0x03, 2) => Status::Full(Limit::HostsOfMutex),
            // The documents disagree whether the additional code is 04h or 42h.
            (0x04, 0x04 | 0x42, 0x22, 2..=4) => Status::WrongState,
            // Invalid opcode. With FRU 0Ah newer firmware means an invalid mutex operation. This
            // library never sends one, so that too means that the drive has another IDM.
            (0x05, 0x20, 0x00, _) => Status::Unsupported,
            // UNIT ATTENTION and NOT READY come instead of the command (SPC-4).
            (0x06 | 0x02, ..) => Status::TryAgain,
            // The drive ended the command, also for ABORTED COMMAND: it may have begun, and is
            // over.
            _ => Status::Failed,
        }
    }
}

/// The FRU code in descriptor-format sense data: descriptor type 03h, its fourth byte.
fn descriptor_fru(sense: &[u8]) -> Option<u8> {
    let end = 8 + usize::from(*sense.get(7)?);
    let mut at = 8;
    while at + 1 < end.min(sense.len()) {
        if sense[at] == 0x03 {
            return sense.get(at + 3).copied();
        }
        at += 2 + usize::from(sense[at + 1]);
    }
    None
}

/// The meaning of a SCSI status and its sense data, for a mutex command that the kernel delivered.
/// The transport must check host and driver status first.
pub fn decode_status(status: u8, sense: &[u8]) -> Status {
    match status {
        status::GOOD => Status::Good,
        // Without sense data the status may come from an adapter instead of the drive.
        status::CHECK_CONDITION => Sense::decode(sense).map_or(Status::Uncertain, Sense::status),
        status::RESERVATION_CONFLICT => Status::Conflict,
        status::COMMAND_TERMINATED => Status::Terminated,
        status::BUSY | status::TASK_SET_FULL | status::ACA_ACTIVE => Status::TryAgain,
        // TASK ABORTED, which adapters' drivers also produce themselves, and statuses that no drive
        // sends for these commands. CONDITION MET answers commands that search or prefetch (SAM-5),
        // and no trace has it; to treat it as GOOD would count a lock that was not granted.
        _ => Status::Uncertain,
    }
}
