//! Reservations of an NVMe namespace: the commands Reservation Register, Report, Acquire and
//! Release (NVM Express base specification, "Reservations").

use super::{Access, Refusal, Registrant, Reservations};
use crate::nvme::{NvmeReply, status};
use idm_protocol::reservation::ReservationType;
use idm_protocol::reservation::nvme::{ReservationCommand, opcode};
use std::fmt;

/// Capabilities of a namespace (RESCAP): it keeps registrations through a loss of power, has all
/// six types, and treats Ignore Existing Key as version 1.3 defines it.
pub const CAPABILITIES: u8 = 0xFF;

/// The controller identifier in reports: controllers are made when a host connects, so that none
/// has a lasting one.
const DYNAMIC_CONTROLLER: u16 = 0xFFFF;

/// A host, by the 128-bit identifier that it connects with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub [u8; 16]);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// Reservations of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceReservations {
    state: Reservations<Host>,
}

impl NamespaceReservations {
    /// Registrations and the reservation.
    pub fn state(&self) -> &Reservations<Host> {
        &self.state
    }

    /// Whether the reservation lets a host have this access.
    pub fn permits(&self, host: &Host, access: Access) -> bool {
        self.state.permits(host, access)
    }

    /// Whether registrations outlive a loss of power (the feature Reservation Persistence).
    pub fn set_persistent(&mut self, persistent: bool) {
        self.state.set_persistent(persistent);
    }

    /// Loses power.
    pub fn power_cycle(&mut self) {
        self.state.power_loss();
    }

    /// The state as text, for people and tests.
    pub fn text(&self) -> String {
        self.state.text(Host::to_string)
    }

    /// Executes a reservation command.
    pub fn execute(
        &mut self,
        host: &Host,
        command: &ReservationCommand,
        data_out: &[u8],
    ) -> NvmeReply {
        let action = command.cdw10 & 0x07;
        let ignores_key = command.cdw10 & 0x08 != 0;
        let kind = ReservationType::from_nvme((command.cdw10 >> 8) as u8);
        let done = match command.opcode {
            opcode::REPORT => return self.report(command),
            // Only a change of the registration may do without the current key.
            opcode::ACQUIRE | opcode::RELEASE if ignores_key => Err(status::INVALID_FIELD),
            opcode::REGISTER => self.register(host, command, data_out),
            opcode::ACQUIRE => self.acquire(host, action, kind, data_out),
            opcode::RELEASE => self.release(host, action, kind, data_out),
            _ => Err(status::INVALID_OPCODE),
        };
        NvmeReply::bare(done.err().unwrap_or_default())
    }

    fn register(
        &mut self,
        host: &Host,
        command: &ReservationCommand,
        data_out: &[u8],
    ) -> Result<(), u16> {
        let (current, new) = (key_at(data_out, 0)?, key_at(data_out, 8)?);
        let persistent = match command.cdw10 >> 30 {
            0b00 => None,
            0b10 => Some(false),
            0b11 => Some(true),
            _ => return Err(status::INVALID_FIELD),
        };
        let registered = self.state.key(host);
        let has_key = command.cdw10 & 0x08 != 0 || registered == Some(current);
        match command.cdw10 & 0x07 {
            // Registering the same key again is no error, another one is.
            0b000 if registered.is_none_or(|key| key == new) => {
                self.state.register(host, new).map_err(refused)?;
            }
            0b001 if has_key => {
                // No notice is sent: there is no log of notifications.
                self.state.unregister(host);
            }
            0b010 if has_key => self.state.register(host, new).map_err(refused)?,
            0b000..=0b010 => return Err(status::RESERVATION_CONFLICT),
            _ => return Err(status::INVALID_FIELD),
        }
        if let Some(persistent) = persistent {
            self.state.set_persistent(persistent);
        }
        Ok(())
    }

    fn acquire(
        &mut self,
        host: &Host,
        action: u32,
        kind: Option<ReservationType>,
        data_out: &[u8],
    ) -> Result<(), u16> {
        let (current, victims) = (key_at(data_out, 0)?, key_at(data_out, 8)?);
        let kind = kind.ok_or(status::INVALID_FIELD)?;
        self.check_key(host, current)?;
        match action {
            0b000 => self.state.reserve(host, kind),
            // Preempt, and preempt and abort, which finds no command to abort: the caller lets it
            // wait for the commands that are being executed.
            0b001 | 0b010 => self.state.preempt(host, victims, Some(kind)).map(drop),
            _ => return Err(status::INVALID_FIELD),
        }
        .map_err(refused)
    }

    fn release(
        &mut self,
        host: &Host,
        action: u32,
        kind: Option<ReservationType>,
        data_out: &[u8],
    ) -> Result<(), u16> {
        self.check_key(host, key_at(data_out, 0)?)?;
        match action {
            0b000 => self.state.release(host, kind).map(drop).map_err(refused),
            0b001 => {
                self.state.clear(host);
                Ok(())
            }
            _ => Err(status::INVALID_FIELD),
        }
    }

    fn check_key(&self, host: &Host, current: u64) -> Result<(), u16> {
        match self.state.key(host) {
            Some(key) if key == current => Ok(()),
            _ => Err(status::RESERVATION_CONFLICT),
        }
    }

    /// The Reservation Status data structure in its extended form. The other form has no room for
    /// identifiers of 128 bits.
    fn report(&self, command: &ReservationCommand) -> NvmeReply {
        if command.cdw11 & 0x01 == 0 {
            return NvmeReply::bare(status::HOST_IDENTIFIER_INCONSISTENT);
        }
        let mut data = vec![0; 64];
        data[..4].copy_from_slice(&self.state.generation().to_le_bytes());
        data[4] = self.state.kind().map_or(0, ReservationType::to_nvme);
        let count = self.state.registrants().len() as u16;
        data[5..7].copy_from_slice(&count.to_le_bytes());
        data[9] = u8::from(self.state.is_persistent());
        for Registrant { who, key } in self.state.registrants() {
            let mut entry = [0; 64];
            entry[..2].copy_from_slice(&DYNAMIC_CONTROLLER.to_le_bytes());
            entry[2] = u8::from(self.state.is_holder(who));
            entry[8..16].copy_from_slice(&key.to_le_bytes());
            entry[16..32].copy_from_slice(&who.0);
            data.extend(entry);
        }
        // NUMD is zero-based.
        let room = (u64::from(command.cdw10) + 1) * 4;
        data.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        NvmeReply::good(data)
    }
}

fn key_at(data: &[u8], at: usize) -> Result<u64, u16> {
    let bytes = data.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map(|bytes| u64::from_le_bytes(*bytes)).ok_or(status::DATA_TRANSFER_ERROR)
}

fn refused(refusal: Refusal) -> u16 {
    match refusal {
        Refusal::Conflict => status::RESERVATION_CONFLICT,
        Refusal::Full => status::INTERNAL_ERROR,
        Refusal::UnknownType | Refusal::OtherType | Refusal::KeyZero | Refusal::NoReservation => {
            status::INVALID_FIELD
        }
    }
}
