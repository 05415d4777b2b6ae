//! PERSISTENT RESERVE IN and OUT (SPC-4): command descriptor blocks, parameter lists and data.

use super::ReservationType;
use crate::scsi::Cdb;
use alloc::vec::Vec;

/// Operation code of PERSISTENT RESERVE IN.
pub const RESERVE_IN: u8 = 0x5E;
/// Operation code of PERSISTENT RESERVE OUT.
pub const RESERVE_OUT: u8 = 0x5F;
/// Length in bytes of the parameter list of PERSISTENT RESERVE OUT, without TransportIDs.
pub const LIST_LEN: usize = 24;
/// Length in bytes of the data of REPORT CAPABILITIES.
pub const CAPABILITIES_LEN: usize = 8;
/// Length in bytes of the header of all other data of PERSISTENT RESERVE IN.
const HEADER_LEN: usize = 8;
/// Length in bytes of a full status descriptor without its TransportID.
const DESCRIPTOR_LEN: usize = 24;

/// The service action of PERSISTENT RESERVE IN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReadAction {
    /// READ KEYS: all registered keys; see [`Keys`].
    Keys = 0x00,
    /// READ RESERVATION; see [`Holder`].
    Reservation = 0x01,
    /// REPORT CAPABILITIES; see [`Capabilities`].
    Capabilities = 0x02,
    /// READ FULL STATUS: all registrants; see [`FullStatus`].
    FullStatus = 0x03,
}

/// The service action of PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChangeAction {
    /// REGISTER: the key has to be the registered one, or 0 if the sender is not registered. A
    /// service action key of 0 unregisters.
    Register = 0x00,
    /// RESERVE.
    Reserve = 0x01,
    /// RELEASE.
    Release = 0x02,
    /// CLEAR: removes the reservation and all registrations.
    Clear = 0x03,
    /// PREEMPT: removes the registrants with the service action key.
    Preempt = 0x04,
    /// PREEMPT AND ABORT: their commands are aborted, too.
    PreemptAndAbort = 0x05,
    /// REGISTER AND IGNORE EXISTING KEY.
    RegisterAndIgnore = 0x06,
    /// REGISTER AND MOVE: the reservation goes to another nexus.
    RegisterAndMove = 0x07,
}

impl ChangeAction {
    /// The service action with this number.
    pub const fn from_wire(number: u8) -> Option<ChangeAction> {
        Some(match number {
            0x00 => ChangeAction::Register,
            0x01 => ChangeAction::Reserve,
            0x02 => ChangeAction::Release,
            0x03 => ChangeAction::Clear,
            0x04 => ChangeAction::Preempt,
            0x05 => ChangeAction::PreemptAndAbort,
            0x06 => ChangeAction::RegisterAndIgnore,
            0x07 => ChangeAction::RegisterAndMove,
            _ => return None,
        })
    }
}

impl ReadAction {
    /// The service action with this number.
    pub const fn from_wire(number: u8) -> Option<ReadAction> {
        Some(match number {
            0x00 => ReadAction::Keys,
            0x01 => ReadAction::Reservation,
            0x02 => ReadAction::Capabilities,
            0x03 => ReadAction::FullStatus,
            _ => return None,
        })
    }
}

/// Reads up to `room` bytes of the data of the service action.
pub fn read(action: ReadAction, room: u16) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = RESERVE_IN;
    cdb[1] = action as u8;
    cdb[7..9].copy_from_slice(&room.to_be_bytes());
    cdb
}

/// Changes registrations or the reservation. The data is a [`ParameterList`]. Service actions that
/// register or clear ignore the type.
pub fn change(action: ChangeAction, kind: Option<ReservationType>) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = RESERVE_OUT;
    cdb[1] = action as u8;
    // The scope in the upper half is 0, the logical unit.
    cdb[2] = kind.map_or(0, ReservationType::to_scsi);
    cdb[5..9].copy_from_slice(&(LIST_LEN as u32).to_be_bytes());
    cdb
}

/// The parameter list of all service actions but REGISTER AND MOVE, without TransportIDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ParameterList {
    /// RESERVATION KEY: that of the sender.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY: the new one, or that of the victims.
    pub action_key: u64,
    /// SPEC_I_PT: TransportIDs follow.
    pub names_initiators: bool,
    /// ALL_TG_PT: for all ports of the drive.
    pub all_target_ports: bool,
    /// APTPL: registrations and the reservation outlive a loss of power.
    pub persistent: bool,
}

impl ParameterList {
    /// The list as bytes.
    pub fn encode(&self) -> [u8; LIST_LEN] {
        let mut list = [0; LIST_LEN];
        list[..8].copy_from_slice(&self.key.to_be_bytes());
        list[8..16].copy_from_slice(&self.action_key.to_be_bytes());
        list[20] = u8::from(self.names_initiators) << 3
            | u8::from(self.all_target_ports) << 2
            | u8::from(self.persistent);
        list
    }

    /// The list in these bytes.
    pub fn decode(list: &[u8; LIST_LEN]) -> ParameterList {
        ParameterList {
            key: number(list, 0, 8),
            action_key: number(list, 8, 8),
            names_initiators: list[20] & 0x08 != 0,
            all_target_ports: list[20] & 0x04 != 0,
            persistent: list[20] & 0x01 != 0,
        }
    }
}

/// The answer to READ KEYS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keys {
    /// Number of changes to the registrations since the drive got power, modulo 2^32.
    pub generation: u32,
    /// The key of each registrant; several may have the same.
    pub keys: Vec<u64>,
    /// Number of keys that the drive has.
    pub count: usize,
}

impl Keys {
    /// The keys in this data; `None` if it is too short. It has fewer keys than the drive where the
    /// sender's buffer was too short for all of them.
    pub fn decode(data: &[u8]) -> Option<Keys> {
        let (generation, len) = header(data)?;
        let body = &data[HEADER_LEN..data.len().min(HEADER_LEN + len)];
        let keys = body.chunks_exact(8).map(|key| number(key, 0, 8)).collect();
        Some(Keys { generation, keys, count: len / 8 })
    }
}

/// The answer to READ RESERVATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// As in [`Keys::generation`].
    pub generation: u32,
    /// The reservation, if there is one.
    pub reservation: Option<Reservation>,
}

/// A reservation as a drive reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// The key of the holder; 0 where every registrant holds it.
    pub key: u64,
    /// The type; `None` if it is none of those that are defined.
    pub kind: Option<ReservationType>,
}

impl Holder {
    /// The reservation in this data; `None` if it is too short.
    pub fn decode(data: &[u8]) -> Option<Holder> {
        let (generation, len) = header(data)?;
        if len == 0 {
            return Some(Holder { generation, reservation: None });
        }
        let key = data.get(8..16).map(|key| number(key, 0, 8))?;
        let kind = ReservationType::from_scsi(*data.get(21)?);
        Some(Holder { generation, reservation: Some(Reservation { key, kind }) })
    }
}

/// The answer to READ FULL STATUS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FullStatus {
    /// As in [`Keys::generation`].
    pub generation: u32,
    /// The registrants that the data has room for.
    pub registrants: Vec<Registrant>,
}

/// A registrant: an I_T nexus, or all that an initiator port has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registrant {
    /// The key.
    pub key: u64,
    /// The type of the reservation that it holds.
    pub holds: Option<ReservationType>,
    /// Relative target port identifier; `None` if it is registered for all ports.
    pub target_port: Option<u16>,
    /// The TransportID of the initiator port.
    pub transport_id: Vec<u8>,
}

impl FullStatus {
    /// The registrants in this data; `None` if it is too short, or a descriptor is.
    pub fn decode(data: &[u8]) -> Option<FullStatus> {
        let (generation, len) = header(data)?;
        let mut rest = &data[HEADER_LEN..data.len().min(HEADER_LEN + len)];
        let mut registrants = Vec::new();
        while !rest.is_empty() {
            let descriptor = rest.get(..DESCRIPTOR_LEN)?;
            let more = usize::try_from(number(descriptor, 20, 4)).ok()?;
            let id = rest.get(DESCRIPTOR_LEN..)?.get(..more)?;
            let (all_ports, holds) = (descriptor[12] & 0x02 != 0, descriptor[12] & 0x01 != 0);
            registrants.push(Registrant {
                key: number(descriptor, 0, 8),
                holds: ReservationType::from_scsi(descriptor[13] & 0x0F).filter(|_| holds),
                target_port: (!all_ports).then_some(number(descriptor, 18, 2) as u16),
                transport_id: id.to_vec(),
            });
            rest = &rest[DESCRIPTOR_LEN + more..];
        }
        Some(FullStatus { generation, registrants })
    }
}

/// The answer to REPORT CAPABILITIES, as far as it matters to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capabilities {
    /// PTPL_C: registrations can outlive a loss of power.
    pub can_persist: bool,
    /// PTPL_A: they do now.
    pub persists: bool,
    /// ATP_C: one command can register for all ports of the drive.
    pub all_target_ports: bool,
    /// SIP_C: one command can register other initiator ports.
    pub names_initiators: bool,
    /// TMV: the drive reports its types in this mask: bit N of byte 4 is type N, and bit 0 of byte
    /// 5 is type 8.
    types: Option<[u8; 2]>,
}

impl Capabilities {
    /// The capabilities in this data; `None` if it is too short.
    pub fn decode(data: &[u8]) -> Option<Capabilities> {
        let data = data.first_chunk::<CAPABILITIES_LEN>()?;
        Some(Capabilities {
            can_persist: data[2] & 0x01 != 0,
            persists: data[3] & 0x01 != 0,
            all_target_ports: data[2] & 0x04 != 0,
            names_initiators: data[2] & 0x08 != 0,
            types: (data[3] & 0x80 != 0).then_some([data[4], data[5]]),
        })
    }

    /// Whether the drive has reservations of this type; `None` if it does not report that.
    pub fn has(&self, kind: ReservationType) -> Option<bool> {
        let [low, high] = self.types?;
        let mask = u16::from(low) | u16::from(high) << 8;
        Some(mask >> kind.to_scsi() & 1 != 0)
    }
}

/// PRGENERATION, and the length of the data after the header.
fn header(data: &[u8]) -> Option<(u32, usize)> {
    let header = data.first_chunk::<HEADER_LEN>()?;
    Some((number(header, 0, 4) as u32, usize::try_from(number(header, 4, 4)).ok()?))
}

/// The big-endian number in these bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
