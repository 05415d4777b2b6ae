//! Reservation Register, Report, Acquire and Release (NVM Express base specification): the commands
//! of an I/O queue and their data.

use super::ReservationType;
use alloc::vec::Vec;

/// Operation codes of the reservation commands.
pub mod opcode {
    #![allow(missing_docs)]
    pub const REGISTER: u8 = 0x0D;
    pub const REPORT: u8 = 0x0E;
    pub const ACQUIRE: u8 = 0x11;
    pub const RELEASE: u8 = 0x15;
}

/// Length in bytes of the data of Reservation Register and Reservation Acquire.
pub const KEYS_LEN: usize = 16;
/// Length in bytes of the data of Reservation Release.
pub const KEY_LEN: usize = 8;
/// Length in bytes of the Reservation Status data without registrants, in its extended form.
pub const REPORT_HEADER_LEN: usize = 64;
/// Length in bytes of a registrant in that form.
pub const REGISTRANT_LEN: usize = 64;
/// Offset of the reservation capabilities (RESCAP) in the Identify Namespace data.
pub const CAPABILITIES_BYTE: usize = 31;
/// Bit of RESCAP: registrations can outlive a loss of power.
pub const CAN_PERSIST: u8 = 0x01;

/// The fields that distinguish a reservation command from others. All other fields are 0, except
/// the namespace and the data's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationCommand {
    /// One of [`opcode`].
    pub opcode: u8,
    /// Command dword 10.
    pub cdw10: u32,
    /// Command dword 11.
    pub cdw11: u32,
}

/// The action of Reservation Register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RegisterAction {
    /// Registers a key.
    Register = 0,
    /// Removes the registration.
    Unregister = 1,
    /// Replaces the key.
    Replace = 2,
}

/// The action of Reservation Acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AcquireAction {
    /// Acquires the reservation.
    Acquire = 0,
    /// Removes the registrants with the preempt key.
    Preempt = 1,
    /// The same, and aborts their commands.
    PreemptAndAbort = 2,
}

/// The action of Reservation Release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReleaseAction {
    /// Releases the reservation.
    Release = 0,
    /// Removes the reservation and all registrations.
    Clear = 1,
}

/// Reservation Register. `ignores_key`: whatever the present key is. `persistent` decides whether
/// registrations outlive a loss of power from now on. The data is a pair of keys: the present one
/// and the new one.
pub fn register(
    action: RegisterAction,
    ignores_key: bool,
    persistent: Option<bool>,
) -> ReservationCommand {
    let through_power_loss = match persistent {
        None => 0b00,
        Some(false) => 0b10,
        Some(true) => 0b11,
    };
    let cdw10 = action as u32 | u32::from(ignores_key) << 3 | through_power_loss << 30;
    ReservationCommand { opcode: opcode::REGISTER, cdw10, cdw11: 0 }
}

/// Reservation Acquire. The data is a pair of keys: the sender's, and that of the victims.
pub fn acquire(action: AcquireAction, kind: ReservationType) -> ReservationCommand {
    let cdw10 = action as u32 | u32::from(kind.to_nvme()) << 8;
    ReservationCommand { opcode: opcode::ACQUIRE, cdw10, cdw11: 0 }
}

/// Reservation Release. The data is the sender's key.
pub fn release(action: ReleaseAction, kind: ReservationType) -> ReservationCommand {
    let cdw10 = action as u32 | u32::from(kind.to_nvme()) << 8;
    ReservationCommand { opcode: opcode::RELEASE, cdw10, cdw11: 0 }
}

/// Reservation Report with room for `len` bytes, a multiple of 4 that is not 0. It asks for the
/// extended form: the other one has no room for host identifiers of 128 bits.
pub fn report(len: usize) -> ReservationCommand {
    let dwords = u32::try_from(len / 4).unwrap_or(u32::MAX);
    ReservationCommand { opcode: opcode::REPORT, cdw10: dwords.saturating_sub(1), cdw11: 1 }
}

/// The data of a command with two keys.
pub fn keys(current: u64, other: u64) -> [u8; KEYS_LEN] {
    let mut data = [0; KEYS_LEN];
    data[..8].copy_from_slice(&current.to_le_bytes());
    data[8..].copy_from_slice(&other.to_le_bytes());
    data
}

/// The Reservation Status data structure in its extended form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// Number of changes to the registrations since the drive got power, modulo 2^32.
    pub generation: u32,
    /// The type of the reservation, if there is one; `Some(None)` is one that is not defined.
    pub kind: Option<Option<ReservationType>>,
    /// Whether registrations outlive a loss of power.
    pub persists: bool,
    /// Number of registrants that the drive has.
    pub count: usize,
    /// The registrants that the data has room for.
    pub registrants: Vec<Registrant>,
}

/// A registrant: a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Registrant {
    /// The key.
    pub key: u64,
    /// Whether it holds the reservation.
    pub holds: bool,
    /// Host identifier.
    pub host: [u8; 16],
}

impl Report {
    /// The report in this data; `None` if it is too short.
    pub fn decode(data: &[u8]) -> Option<Report> {
        let (header, rest) = data.split_first_chunk::<REPORT_HEADER_LEN>()?;
        let little = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        let count = usize::from(u16::from_le_bytes([header[5], header[6]]));
        let registrant = |entry: &[u8]| Registrant {
            key: little(&entry[8..16]),
            holds: entry[2] & 0x01 != 0,
            host: core::array::from_fn(|at| entry[16 + at]),
        };
        Some(Report {
            generation: little(&header[..4]) as u32,
            kind: (header[4] != 0).then(|| ReservationType::from_nvme(header[4])),
            persists: header[9] & 0x01 != 0,
            count,
            registrants: rest.chunks_exact(REGISTRANT_LEN).take(count).map(registrant).collect(),
        })
    }
}
