//! The drive as a SCSI target: bytes in, bytes out.

use crate::cdb::{self, CdbError, Command, GROUPS};
use crate::{Drive, DriveTime, sense};
use idm_protocol::{
    RECORD_LEN, Record, Status,
    scsi::{self, Sense, status},
};

/// The answer of a SCSI target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ScsiReply {
    /// SCSI status byte (SAM-5).
    pub status: u8,
    /// Sense data; empty unless the status is CHECK CONDITION.
    pub sense: Vec<u8>,
    /// Data for the initiator.
    pub data: Vec<u8>,
}

impl ScsiReply {
    fn good(data: Vec<u8>) -> ScsiReply {
        ScsiReply { data, ..ScsiReply::default() }
    }

    fn bare(status: u8) -> ScsiReply {
        ScsiReply { status, ..ScsiReply::default() }
    }
}

/// The vital product data pages that a drive serves.
const PAGES: [u8; 4] = [0x00, 0x80, 0x83, scsi::VERSION_PAGE];
/// T10 vendor and product identification, padded with spaces.
const VENDOR: &[u8; 8] = b"IDM-EMUL";
const PRODUCT: &[u8; 16] = b"Emulated drive  ";
/// Product revision level.
const REVISION: &[u8; 4] = b"0001";

impl Drive {
    /// Executes one SCSI command at the drive's time `now`: INQUIRY, TEST UNIT READY, REQUEST SENSE
    /// and the mutex commands in the present (F0h) and the older (88h, 89h, 8Eh) encoding.
    /// `data_out` is the initiator's data for it. The reply's data is not cut to the initiator's
    /// buffer.
    pub fn execute(&mut self, now: DriveTime, cdb: &[u8], data_out: &[u8]) -> ScsiReply {
        let command = match cdb::parse(cdb) {
            Ok(command) => command,
            Err(CdbError::Opcode) => return self.check(sense::INVALID_OPCODE),
            Err(CdbError::MutexOp) => return self.check(sense::undefined_op(self.profile())),
            // Newer firmware has one code for "no such group" and "no such mutex".
            Err(CdbError::Group) => return self.check(sense::NO_SUCH_MUTEX),
            Err(CdbError::Field) => return self.check(sense::INVALID_FIELD_IN_CDB),
        };
        match command {
            Command::TestUnitReady => ScsiReply::default(),
            Command::RequestSense { descriptor, allocation } => {
                // Sense data goes out with its status, so none is ever pending.
                let mut bytes = if descriptor {
                    sense::descriptor_form(sense::NONE)
                } else {
                    sense::fixed_form(sense::NONE)
                };
                bytes.truncate(allocation);
                ScsiReply::good(bytes)
            }
            Command::Inquiry { page, allocation } => match self.inquiry(page) {
                Some(mut bytes) => {
                    bytes.truncate(allocation);
                    ScsiReply::good(bytes)
                }
                None => self.check(sense::INVALID_FIELD_IN_CDB),
            },
            Command::ReadTable { blocks } => ScsiReply::good(self.table_blocks(now, blocks)),
            Command::ReadCounters { blocks } => ScsiReply::good(self.counter_blocks(blocks)),
            Command::ClearAll => {
                self.reset();
                ScsiReply::default()
            }
            Command::Mutex { op, group } => match data_out.first_chunk::<RECORD_LEN>() {
                Some(block) => {
                    let status = self.change(now, group, op, &Record::decode(block));
                    self.status_reply(status)
                }
                None => self.check(sense::PARAMETER_LIST_LENGTH),
            },
        }
    }

    /// The first records of the table. Blocks past its end carry end markers; a read that ends
    /// before or with the table has none (docs/protocol.md, "Reading the table").
    pub(crate) fn table_blocks(&self, now: DriveTime, blocks: u32) -> Vec<u8> {
        let blocks = self.block_limit(blocks);
        let end = core::iter::repeat_with(Record::end_of_table);
        let mut bytes = Vec::with_capacity(blocks * RECORD_LEN);
        for record in self.records(now).chain(end).take(blocks) {
            bytes.extend_from_slice(&record.encode());
        }
        bytes
    }

    /// Big-endian 16-bit words: all records, then the records of each group
    /// (docs/protocol.md, "The counters").
    pub(crate) fn counter_blocks(&self, blocks: u32) -> Vec<u8> {
        let mut bytes = vec![0; self.block_limit(blocks) * RECORD_LEN];
        let counts =
            core::iter::once(self.record_count()).chain(GROUPS.map(|g| self.record_count_of(g)));
        for (word, count) in bytes.chunks_exact_mut(2).zip(counts) {
            word.copy_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
        }
        bytes
    }

    fn block_limit(&self, blocks: u32) -> usize {
        blocks.min(self.profile().blocks_per_read) as usize
    }

    fn status_reply(&self, status: Status) -> ScsiReply {
        match status {
            Status::Good => ScsiReply::default(),
            Status::Conflict => ScsiReply::bare(status::RESERVATION_CONFLICT),
            Status::Terminated => ScsiReply::bare(status::COMMAND_TERMINATED),
            Status::TryAgain => ScsiReply::bare(status::BUSY),
            Status::NotFound => self.check(sense::NO_SUCH_MUTEX),
            Status::Full(limit) => self.check(sense::full(self.profile(), limit)),
            Status::WrongState => self.check(sense::WRONG_CLASS),
            // The model does not return these; only a transport does.
            Status::Unsupported | Status::Failed | Status::Unreachable | Status::Uncertain => {
                self.check(sense::INVALID_OPCODE)
            }
        }
    }

    fn check(&self, sense: Sense) -> ScsiReply {
        ScsiReply {
            status: status::CHECK_CONDITION,
            sense: sense::bytes(self.profile(), sense),
            data: Vec::new(),
        }
    }

    fn inquiry(&self, page: Option<u8>) -> Option<Vec<u8>> {
        let Some(page) = page else {
            return Some(standard_inquiry());
        };
        let payload = match page {
            0x00 => PAGES.to_vec(),
            0x80 => self.serial.as_bytes().to_vec(),
            0x83 => {
                // One designator: binary, of the logical unit, NAA, 8 bytes.
                let mut designator = vec![0x01, 0x03, 0x00, 0x08];
                designator.extend(self.naa().to_be_bytes());
                designator
            }
            scsi::VERSION_PAGE => {
                let mut payload = vec![0; scsi::VERSION_PAGE_LEN - PAGE_HEADER_LEN];
                payload[scsi::VERSION_MAJOR - PAGE_HEADER_LEN] = self.profile().version;
                payload
            }
            _ => return None,
        };
        let mut bytes = vec![0x00, page];
        bytes.extend(u16::try_from(payload.len()).ok()?.to_be_bytes());
        bytes.extend(payload);
        Some(bytes)
    }

    /// The drive's world wide name, made of its serial number.
    pub fn naa(&self) -> u64 {
        local_name(&self.serial)
    }
}

/// A world wide name of the "locally assigned" kind (NAA 3h). The FNV-1a hash of the text makes it
/// the same in every run.
pub(crate) fn local_name(text: &str) -> u64 {
    let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    0x3 << 60 | hash >> 4
}

/// Length in bytes of the header of a vital product data page.
const PAGE_HEADER_LEN: usize = 4;

/// 36 bytes: a disk that conforms to SPC-4 and queues commands.
fn standard_inquiry() -> Vec<u8> {
    let mut bytes = vec![0x00, 0x00, 0x06, 0x02, 31, 0x00, 0x00, 0x02];
    bytes.extend(VENDOR);
    bytes.extend(PRODUCT);
    bytes.extend(REVISION);
    bytes
}
