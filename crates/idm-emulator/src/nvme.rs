//! The drive as an NVMe controller sees it: vendor-specific admin commands in, status and data out.

use crate::cdb::{self, CdbError, Command};
use crate::{Drive, DriveTime};
use idm_protocol::{
    Limit, MutexOp, RECORD_LEN, Record, Status,
    nvme::{self, AdminCommand, idm},
};

/// The answer of an NVMe controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NvmeReply {
    /// Status field without the phase tag: status code in bits 7:0, its type in bits 10:8, "do not
    /// retry" in bit 14.
    pub status: u16,
    /// Data for the host.
    pub data: Vec<u8>,
}

impl NvmeReply {
    /// Success, with this data.
    pub fn good(data: Vec<u8>) -> NvmeReply {
        NvmeReply { status: 0, data }
    }

    /// A status without data.
    pub fn bare(status: u16) -> NvmeReply {
        NvmeReply { status, data: Vec::new() }
    }
}

/// Generic status codes (NVM Express base specification), with "do not retry".
pub mod status {
    #![allow(missing_docs)]
    pub const INVALID_OPCODE: u16 = 0x4001;
    pub const INVALID_FIELD: u16 = 0x4002;
    pub const DATA_TRANSFER_ERROR: u16 = 0x0004;
    pub const INTERNAL_ERROR: u16 = 0x0006;
    pub const INVALID_NAMESPACE: u16 = 0x400B;
    pub const COMMAND_SEQUENCE_ERROR: u16 = 0x400C;
    pub const HOST_IDENTIFIER_INCONSISTENT: u16 = 0x4018;
    pub const LBA_OUT_OF_RANGE: u16 = 0x4080;
    pub const RESERVATION_CONFLICT: u16 = 0x4083;
}

/// The kind of an admin command, in a word; `None` if it is not one of IDM.
pub fn mutex_kind(command: &AdminCommand) -> Option<&'static str> {
    match parse(command) {
        Ok(command) => Some(command.word()),
        Err(CdbError::Opcode) => None,
        Err(_) => Some(cdb::INVALID),
    }
}

fn parse(command: &AdminCommand) -> Result<Command, CdbError> {
    let (op, group) = (command.cdw12 >> 4 & 0x0F, command.cdw12 >> 8 & 0xFF);
    let (op, group) = (op as u8, group as u8);
    let dwords = RECORD_LEN as u32 / 4;
    let well_formed = command.cdw12 & !0xFFF0 == 0 && command.cdw10 % dwords == 0;
    let blocks = command.cdw10 / dwords;
    match command.opcode {
        nvme::OPCODE_WRITE if well_formed => cdb::write(op, group, blocks == 1),
        nvme::OPCODE_READ if well_formed && op == MutexOp::Init.to_wire() => {
            cdb::read(group, blocks)
        }
        nvme::OPCODE_WRITE | nvme::OPCODE_READ => Err(CdbError::Field),
        _ => Err(CdbError::Opcode),
    }
}

impl Drive {
    /// Executes one admin command of IDM at the drive's time `now`. `data_out` is the host's data
    /// for it.
    pub fn execute_admin(
        &mut self,
        now: DriveTime,
        command: &AdminCommand,
        data_out: &[u8],
    ) -> NvmeReply {
        match parse(command) {
            Err(CdbError::Opcode) => NvmeReply::bare(status::INVALID_OPCODE),
            Err(CdbError::MutexOp) => NvmeReply::bare(idm::status(idm::INVALID_MUTEX_OP)),
            // One code means both "no such group" and "no such mutex".
            Err(CdbError::Group) => NvmeReply::bare(idm::status(idm::NOT_FOUND)),
            Err(CdbError::Field) => NvmeReply::bare(status::INVALID_FIELD),
            Ok(Command::ReadTable { blocks }) => NvmeReply::good(self.table_blocks(now, blocks)),
            Ok(Command::ReadCounters { blocks }) => NvmeReply::good(self.counter_blocks(blocks)),
            Ok(Command::ClearAll) => {
                self.reset();
                NvmeReply::default()
            }
            Ok(Command::Mutex { op, group }) => match data_out.first_chunk::<RECORD_LEN>() {
                Some(block) => {
                    let done = self.change(now, group, op, &Record::decode(block));
                    NvmeReply::bare(status_field(done))
                }
                None => NvmeReply::bare(status::DATA_TRANSFER_ERROR),
            },
            // NVMe has no opcode for these.
            Ok(Command::TestUnitReady | Command::RequestSense { .. } | Command::Inquiry { .. }) => {
                NvmeReply::bare(status::INVALID_OPCODE)
            }
        }
    }

    /// The last byte of the Identify Controller data: the IDM version.
    pub fn identify_version(&self) -> u8 {
        self.profile().version << 4
    }
}

fn status_field(status: Status) -> u16 {
    idm::status(match status {
        Status::Good => return 0,
        Status::Conflict => idm::CONFLICT,
        Status::Terminated => idm::TERMINATED,
        Status::TryAgain => idm::BUSY,
        Status::NotFound => idm::NOT_FOUND,
        Status::Full(Limit::Mutexes) => idm::TABLE_FULL,
        Status::Full(Limit::Hosts) => idm::HOSTS_FULL,
        Status::Full(Limit::HostsOfMutex) => idm::HOSTS_OF_MUTEX_FULL,
        Status::WrongState => idm::WRONG_CLASS,
        // The model does not return these; only a transport does.
        Status::Unsupported | Status::Failed | Status::Unreachable | Status::Uncertain => {
            idm::OPERATION_FAILED
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Profile;
    use idm_protocol::{Class, HostId, ResourceId};

    fn run(drive: &mut Drive, op: MutexOp, host: u8, at_ms: u64) -> u16 {
        let mut record = Record::end_of_table();
        record.class = Class::Exclusive;
        record.countdown_ms = 10_000;
        record.resource = ResourceId::from_bytes([1; 64]);
        record.host = HostId::from_bytes([host; 32]);
        let now = DriveTime::from_millis(at_ms);
        drive.execute_admin(now, &nvme::mutex(op), &record.encode()).status
    }

    /// The drive's answers in the hardware tests, by their NVMe codes.
    #[test]
    fn one_mutex_of_two_hosts() {
        let drive = &mut Drive::new(Profile::current());
        assert_eq!(run(drive, MutexOp::Unlock, 1, 0), 0x1C9);
        assert_eq!(run(drive, MutexOp::Trylock, 1, 0), 0);
        assert_eq!(run(drive, MutexOp::Trylock, 1, 1), 0x1CB);
        assert_eq!(run(drive, MutexOp::Trylock, 2, 1), 0x1CA);
        assert_eq!(run(drive, MutexOp::Break, 2, 9_999), 0x1CA);
        assert_eq!(run(drive, MutexOp::Break, 2, 10_000), 0);
        assert_eq!(run(drive, MutexOp::Refresh, 1, 10_001), 0x1CA);
        let read = drive.execute_admin(DriveTime::default(), &nvme::read_table(2), &[]);
        assert_eq!((read.status, read.data.len()), (0, 1024));
        assert_eq!(read.data[518..520], [0xDE, 0xAD]);
        let counters = drive.execute_admin(DriveTime::default(), &nvme::inquire_table(), &[]);
        assert_eq!(counters.data[..2], [0, 1]);
        assert_eq!(
            drive.execute_admin(DriveTime::default(), &nvme::clear_all(), &[0; 512]).status,
            0
        );
        assert_eq!(drive.table(DriveTime::default()).len(), 0);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let drive = &mut Drive::new(Profile::current());
        let trylock = nvme::mutex(MutexOp::Trylock);
        let cases = [
            (AdminCommand { opcode: 0xC3, ..trylock }, 0x4001),
            (AdminCommand { cdw12: 0x0190, ..trylock }, 0x1C5),
            (AdminCommand { cdw12: 0x0920, ..trylock }, 0x1C9),
            (AdminCommand { cdw12: 0x0121, ..trylock }, 0x4002),
            (AdminCommand { cdw12: 0x1_0120, ..trylock }, 0x4002),
            (AdminCommand { cdw10: 0x100, ..trylock }, 0x4002),
            (AdminCommand { cdw10: 0x7F, ..nvme::read_table(1) }, 0x4002),
            (AdminCommand { cdw12: 0x0120, ..nvme::read_table(1) }, 0x4002),
        ];
        for (command, status) in cases {
            let reply = drive.execute_admin(DriveTime::default(), &command, &[0; 512]);
            assert_eq!(reply, NvmeReply::bare(status), "{command:?}");
        }
        let short = drive.execute_admin(DriveTime::default(), &trylock, &[0; 511]);
        assert_eq!(short.status, status::DATA_TRANSFER_ERROR);
        assert_eq!(mutex_kind(&trylock), Some("trylock"));
        assert_eq!(mutex_kind(&nvme::read_table(1)), Some("read-table"));
        assert_eq!(mutex_kind(&nvme::identify_controller()), None);
    }
}
