//! Execution of a command whose data has arrived.

use super::pdu::{CommandOutcome, Sqe};
use super::sender::Sender;
use super::subsystem::{QUEUE_DEPTH, Subsystem, VERSION};
use crate::sync::lock;
use idm_emulator::disks::DataError;
use idm_emulator::disks::faults::CommandKind;
use idm_emulator::nvme::{NvmeReply, mutex_kind, status};
use idm_emulator::reservation::Access;
use idm_emulator::reservation::nvme::Host;
use idm_emulator::{Drive, DriveTime};
use idm_protocol::nvme::AdminCommand;
use idm_protocol::reservation::nvme::ReservationCommand;
use std::sync::{Arc, Mutex, Weak};

/// The one namespace.
const NAMESPACE: u32 = 1;
const ALL_NAMESPACES: u32 = 0xFFFF_FFFF;

/// Opcodes of admin commands.
pub mod admin {
    #![allow(missing_docs)]
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0A;
    pub const ASYNC_EVENT: u8 = 0x0C;
    pub const KEEP_ALIVE: u8 = 0x18;
    pub const FABRICS: u8 = 0x7F;
}

/// Opcodes of I/O commands.
pub mod io {
    #![allow(missing_docs)]
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
    pub use idm_protocol::reservation::nvme::opcode::{ACQUIRE, REGISTER, RELEASE, REPORT};
}

/// Types of fabrics commands.
pub mod fabrics {
    #![allow(missing_docs)]
    pub const PROPERTY_SET: u8 = 0x00;
    pub const CONNECT: u8 = 0x01;
    pub const PROPERTY_GET: u8 = 0x04;
}

/// Offsets of properties.
mod property {
    pub const CAP: u32 = 0x00;
    pub const VS: u32 = 0x08;
    pub const CC: u32 = 0x14;
    pub const CSTS: u32 = 0x1C;
}

/// Feature identifiers.
mod feature {
    pub const NUMBER_OF_QUEUES: u8 = 0x07;
    pub const ASYNC_EVENTS: u8 = 0x0B;
    pub const KEEP_ALIVE_TIMER: u8 = 0x0F;
    pub const HOST_IDENTIFIER: u8 = 0x81;
    pub const RESERVATION_PERSISTENCE: u8 = 0x83;
}

/// I/O queues that a host may have.
const MOST_IO_QUEUES: u32 = 4;

/// A controller, which a host creates when it connects an admin queue.
pub struct Controller {
    /// Identifier.
    pub id: u16,
    /// Its subsystem.
    pub subsystem: Arc<Subsystem>,
    /// Name of the host.
    pub host: String,
    /// Identifier of the host.
    pub host_id: Host,
    configuration: Mutex<u32>,
    queues: Mutex<Vec<Weak<Sender>>>,
}

impl Controller {
    pub(super) fn new(id: u16, subsystem: Arc<Subsystem>, host: &str, host_id: Host) -> Controller {
        Controller {
            id,
            subsystem,
            host: host.to_owned(),
            host_id,
            configuration: Mutex::default(),
            queues: Mutex::default(),
        }
    }

    /// Adds a connection.
    pub(super) fn add_queue(&self, sender: &Arc<Sender>) {
        lock(&self.queues).push(Arc::downgrade(sender));
    }

    /// Ends all connections.
    pub(super) fn disconnect(&self) {
        for sender in lock(&self.queues).drain(..) {
            if let Some(sender) = sender.upgrade() {
                sender.shut_down();
            }
        }
    }

    /// Runs a fabrics command other than Connect.
    pub(super) fn property(&self, command: &Sqe) -> CommandOutcome {
        let offset = command.u32_at(44);
        match command.fabrics_type() {
            fabrics::PROPERTY_GET => {
                let configuration = u64::from(*lock(&self.configuration));
                CommandOutcome::result(match offset {
                    // MQES (zero-based), CQR, TO in 500 ms, and the NVM command set.
                    property::CAP => u64::from(QUEUE_DEPTH - 1) | 1 << 16 | 15 << 24 | 1 << 37,
                    property::VS => u64::from(VERSION),
                    property::CC => configuration,
                    // RDY follows EN; SHST says "complete" after any shutdown notification.
                    property::CSTS => {
                        configuration & 1 | u64::from(configuration & 0xC000 != 0) << 3
                    }
                    _ => 0,
                })
            }
            fabrics::PROPERTY_SET if offset == property::CC => {
                *lock(&self.configuration) = command.u64_at(48) as u32;
                CommandOutcome::default()
            }
            fabrics::PROPERTY_SET => CommandOutcome::refused(status::INVALID_FIELD),
            _ => CommandOutcome::refused(status::INVALID_OPCODE),
        }
    }

    /// Runs an admin command that is not a fabrics command and not about the connection. `port` is
    /// the name of its path.
    pub(super) fn admin(&self, port: &str, command: &Sqe, data: &[u8]) -> CommandOutcome {
        if mutex_kind(&mutex_command(command)).is_some() {
            return self.mutex(port, command, data);
        }
        match command.opcode() {
            admin::IDENTIFY => self.identify(command),
            admin::GET_LOG_PAGE => {
                // Every log is empty.
                let dwords = (command.dword(10) >> 16) + 1;
                CommandOutcome::data(vec![0; dwords as usize * 4])
            }
            admin::SET_FEATURES => self.set_feature(command),
            admin::GET_FEATURES => self.feature(command),
            // Bit 0 of the result: the command was not aborted.
            admin::ABORT => CommandOutcome::result(1),
            _ => CommandOutcome::refused(status::INVALID_OPCODE),
        }
    }

    fn set_feature(&self, command: &Sqe) -> CommandOutcome {
        match command.dword(10) as u8 {
            feature::NUMBER_OF_QUEUES => {
                let asked = command.dword(11);
                let granted = |zero_based: u32| zero_based.min(MOST_IO_QUEUES - 1);
                let (submission, completion) = (granted(asked & 0xFFFF), granted(asked >> 16));
                CommandOutcome::result(u64::from(submission | completion << 16))
            }
            feature::ASYNC_EVENTS | feature::KEEP_ALIVE_TIMER => CommandOutcome::default(),
            // Over fabrics, Connect sets it.
            feature::HOST_IDENTIFIER => CommandOutcome::refused(status::COMMAND_SEQUENCE_ERROR),
            feature::RESERVATION_PERSISTENCE if is_namespace(command) => {
                self.subsystem.disk.set_reservation_persistent(command.dword(11) & 1 != 0);
                CommandOutcome::default()
            }
            _ => CommandOutcome::refused(status::INVALID_FIELD),
        }
    }

    fn feature(&self, command: &Sqe) -> CommandOutcome {
        match command.dword(10) as u8 {
            // EXHID: only identifiers of 128 bits are in use.
            feature::HOST_IDENTIFIER if command.dword(11) & 1 != 0 => {
                CommandOutcome::data(self.host_id.0.to_vec())
            }
            feature::RESERVATION_PERSISTENCE if is_namespace(command) => {
                let persistent = self.subsystem.disk.is_reservation_persistent();
                CommandOutcome::result(u64::from(persistent))
            }
            _ => CommandOutcome::refused(status::INVALID_FIELD),
        }
    }

    fn mutex(&self, port: &str, command: &Sqe, data: &[u8]) -> CommandOutcome {
        if !self.subsystem.idm {
            return CommandOutcome::refused(status::INVALID_OPCODE);
        }
        // The table belongs to the controller. The first host implementation once sent the
        // namespace, and the drive refused it.
        if command.namespace() != 0 {
            return CommandOutcome::refused(status::INVALID_NAMESPACE);
        }
        let command = mutex_command(command);
        let (disk, kind) = (&self.subsystem.disk, mutex_kind(&command).unwrap_or_default());
        let recorded = |act: &dyn Fn(&mut Drive, DriveTime) -> NvmeReply| {
            disk.mutex(port, kind, data, |drive, now| {
                let reply = act(drive, now);
                let status = reply.status;
                (reply, status)
            })
        };
        let access = disk.idm_access(command.opcode == idm_protocol::nvme::OPCODE_READ);
        disk.under_host_reservations(&self.host_id, access, || {
            recorded(&|drive, now| drive.execute_admin(now, &command, data))
        })
        .unwrap_or_else(|status| recorded(&|_, _| NvmeReply::bare(status)))
        .into()
    }

    fn identify(&self, command: &Sqe) -> CommandOutcome {
        let namespace = command.namespace();
        match command.dword(10) as u8 {
            0x00 if namespace == NAMESPACE || namespace == ALL_NAMESPACES => {
                CommandOutcome::data(self.subsystem.identify_namespace())
            }
            0x01 => CommandOutcome::data(self.subsystem.identify_controller(self.id)),
            // Namespaces with higher numbers.
            0x02 => {
                let mut list = vec![0; 4096];
                if namespace < NAMESPACE {
                    list[..4].copy_from_slice(&NAMESPACE.to_le_bytes());
                }
                CommandOutcome::data(list)
            }
            0x03 if namespace == NAMESPACE => {
                CommandOutcome::data(self.subsystem.identify_descriptors())
            }
            0x00 | 0x03 => CommandOutcome::refused(status::INVALID_NAMESPACE),
            _ => CommandOutcome::refused(status::INVALID_FIELD),
        }
    }

    /// Runs an I/O command that came on `port`.
    pub(super) fn io(&self, port: &str, command: &Sqe, data: &[u8]) -> CommandOutcome {
        if command.namespace() != NAMESPACE
            && !(command.opcode() == io::FLUSH && command.namespace() == ALL_NAMESPACES)
        {
            return CommandOutcome::refused(status::INVALID_NAMESPACE);
        }
        let (disk, opcode) = (&self.subsystem.disk, command.opcode());
        if is_reservation(opcode) {
            let (cdw10, cdw11) = (command.dword(10), command.dword(11));
            let request = ReservationCommand { opcode, cdw10, cdw11 };
            return disk.reserve_nvme(&self.host_id, &request, data).into();
        }
        let access = match opcode {
            io::READ => Access::Read,
            io::FLUSH | io::WRITE | io::WRITE_ZEROES | io::DATASET_MANAGEMENT => Access::Write,
            _ => Access::Free,
        };
        disk.under_host_reservations(&self.host_id, access, || self.transfer(port, command, data))
            .unwrap_or_else(CommandOutcome::refused)
    }

    /// An I/O command that the reservations permit.
    fn transfer(&self, port: &str, command: &Sqe, data: &[u8]) -> CommandOutcome {
        let disk = &self.subsystem.disk;
        let first = command.u64_at(40);
        let count = u64::from(command.dword(12) & 0xFFFF) + 1;
        let done = match command.opcode() {
            io::FLUSH => disk.flush(),
            io::WRITE => disk.write(port, first, count, data),
            io::READ => match disk.read(first, count) {
                Ok(data) => return CommandOutcome::data(data),
                Err(error) => Err(error),
            },
            io::WRITE_ZEROES => disk.unmap(port, first, count),
            io::DATASET_MANAGEMENT => self.deallocate(port, command, data),
            _ => return CommandOutcome::refused(status::INVALID_OPCODE),
        };
        match done {
            Ok(()) => CommandOutcome::default(),
            Err(DataError::OutOfRange) => CommandOutcome::refused(status::LBA_OUT_OF_RANGE),
            Err(DataError::Short) => CommandOutcome::refused(status::DATA_TRANSFER_ERROR),
            Err(DataError::Medium(error)) => {
                eprintln!("disk data: {error}");
                CommandOutcome::refused(status::INTERNAL_ERROR)
            }
        }
    }

    /// Dataset Management: ranges of 16 bytes.
    fn deallocate(&self, port: &str, command: &Sqe, data: &[u8]) -> Result<(), DataError> {
        const DEALLOCATE: u32 = 0x04;
        let ranges = (command.dword(10) as usize & 0xFF) + 1;
        let ranges = data.get(..ranges * 16).ok_or(DataError::Short)?;
        if command.dword(11) & DEALLOCATE == 0 {
            return Ok(());
        }
        for range in ranges.chunks_exact(16) {
            let number = |from: usize, len: usize| {
                range[from..from + len].iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b))
            };
            self.subsystem.disk.unmap(port, number(8, 8), number(4, 4))?;
        }
        Ok(())
    }
}

/// Whether a command is for the one namespace.
fn is_namespace(command: &Sqe) -> bool {
    command.namespace() == NAMESPACE
}

fn is_reservation(opcode: u8) -> bool {
    matches!(opcode, io::REGISTER | io::REPORT | io::ACQUIRE | io::RELEASE)
}

fn mutex_command(command: &Sqe) -> AdminCommand {
    AdminCommand {
        opcode: command.opcode(),
        cdw10: command.dword(10),
        cdw12: command.dword(12),
        data_len: command.data_len() as usize,
    }
}

/// The kind of a command, for rules. `admin`: whether it came on the admin queue.
pub(super) fn kind_of(command: &Sqe, admin: bool) -> CommandKind {
    if admin {
        return match mutex_kind(&mutex_command(command)) {
            Some(word) => CommandKind::Mutex(word),
            None => CommandKind::Disk("other"),
        };
    }
    CommandKind::Disk(match command.opcode() {
        io::READ => "read",
        io::WRITE | io::WRITE_ZEROES | io::DATASET_MANAGEMENT => "write",
        io::REGISTER | io::ACQUIRE | io::RELEASE => "reserve",
        _ => "other",
    })
}
