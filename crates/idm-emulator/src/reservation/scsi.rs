//! Persistent reservations of a SCSI logical unit: PERSISTENT RESERVE IN and OUT, unit attentions,
//! and which command conflicts with which reservation (SPC-4 and SBC-3).

use super::{Access, Notice, Notices, Refusal, Reservations};
use crate::cdb::{self, Command};
use crate::scsi::local_name;
use crate::{ScsiReply, sense};
use idm_protocol::reservation::ReservationType;
use idm_protocol::reservation::scsi::{
    ChangeAction, LIST_LEN, ParameterList, RESERVE_IN, RESERVE_OUT, ReadAction,
};
use idm_protocol::scsi::{Sense, status};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Length in bytes of a TransportID of the SAS protocol.
const TRANSPORT_ID_LEN: usize = 24;
/// The first byte of such a TransportID: format code 0, protocol identifier 6.
const SAS: u8 = 0x06;

const INVALID_FIELD_IN_LIST: Sense = sense::sense(0x05, 0x26, 0x00, 0);
const INVALID_RELEASE: Sense = sense::sense(0x05, 0x26, 0x04, 0);
const INSUFFICIENT_RESOURCES: Sense = sense::sense(0x05, 0x55, 0x04, 0);

/// An I_T nexus: a port of a host and a port of the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexus {
    /// SAS address of the initiator port.
    pub initiator: u64,
    /// Relative target port identifier.
    pub target_port: u16,
}

impl Nexus {
    /// The nexus that a port's name stands for: each name has an initiator port of its own, and
    /// path N of a host (`HOST.N`) leads to the drive's port N + 1.
    pub fn of_port(name: &str) -> Nexus {
        let path = name.rsplit_once('.').and_then(|(_, path)| path.parse::<u16>().ok());
        Nexus {
            initiator: local_name(name),
            target_port: path.unwrap_or_default().saturating_add(1),
        }
    }

    fn transport_id(&self) -> [u8; TRANSPORT_ID_LEN] {
        let mut bytes = [0; TRANSPORT_ID_LEN];
        bytes[0] = SAS;
        bytes[4..12].copy_from_slice(&self.initiator.to_be_bytes());
        bytes
    }
}

impl fmt::Display for Nexus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.initiator, self.target_port)
    }
}

/// A unit attention condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Attention {
    PowerOn,
    Reservation(Notice),
}

impl Attention {
    fn sense(self) -> Sense {
        let (asc, ascq) = match self {
            Attention::PowerOn => (0x29, 0x00),
            Attention::Reservation(Notice::ReservationPreempted) => (0x2A, 0x03),
            Attention::Reservation(Notice::ReservationReleased) => (0x2A, 0x04),
            Attention::Reservation(Notice::RegistrationPreempted) => (0x2A, 0x05),
        };
        sense::sense(0x06, asc, ascq, 0)
    }
}

/// A nexus by which commands came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownPort {
    name: String,
    /// Conditions that it has not got yet.
    pending: BTreeSet<Attention>,
}

/// Persistent reservations and unit attentions of one logical unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitReservations {
    state: Reservations<Nexus>,
    ports: BTreeMap<Nexus, KnownPort>,
}

impl UnitReservations {
    /// Registrations and the reservation.
    pub fn state(&self) -> &Reservations<Nexus> {
        &self.state
    }

    /// Whether [`UnitReservations::before`] has nothing to do for this command.
    pub fn is_quiet(&self, nexus: &Nexus, cdb: &[u8]) -> bool {
        let port = self.ports.get(nexus);
        port.is_some_and(|port| port.pending.is_empty() || ignores_attention(cdb))
    }

    /// Whether the reservation permits a command. `idm`: whether mutex commands need access to the
    /// data.
    pub fn permits(&self, nexus: &Nexus, cdb: &[u8], idm: bool) -> bool {
        self.state.permits(nexus, access(cdb, idm))
    }

    /// The answer that a command gets in place of its own because of a unit attention condition.
    /// `name` is the name of the nexus in texts. The caller must report a conflict first:
    /// RESERVATION CONFLICT takes precedence over CHECK CONDITION (SAM).
    pub fn before(&mut self, nexus: &Nexus, name: &str, cdb: &[u8]) -> Option<ScsiReply> {
        let port = self
            .ports
            .entry(*nexus)
            .or_insert_with(|| KnownPort { name: name.to_owned(), pending: BTreeSet::new() });
        if ignores_attention(cdb) {
            return None;
        }
        let sense = port.pending.pop_first()?.sense();
        // REQUEST SENSE reports it as data.
        if cdb.first() != Some(&0x03) {
            return Some(check(sense));
        }
        let descriptor = cdb.get(1).is_some_and(|byte| byte & 1 != 0);
        let mut data =
            if descriptor { sense::descriptor_form(sense) } else { sense::fixed_form(sense) };
        data.truncate(usize::from(cdb.get(4).copied().unwrap_or_default()));
        Some(ScsiReply { data, ..ScsiReply::default() })
    }

    /// Executes PERSISTENT RESERVE IN or OUT.
    pub fn execute(&mut self, nexus: &Nexus, cdb: &[u8], data_out: &[u8]) -> ScsiReply {
        let Some(cdb) = cdb.first_chunk::<10>() else {
            return check(sense::INVALID_FIELD_IN_CDB);
        };
        let done = match cdb[0] {
            RESERVE_IN => self.reserve_in(cdb),
            RESERVE_OUT => self.reserve_out(nexus, cdb, data_out).map(|()| Vec::new()),
            _ => Err(Fault::Sense(sense::INVALID_OPCODE)),
        };
        match done {
            Ok(data) => ScsiReply { data, ..ScsiReply::default() },
            Err(Fault::Conflict) => conflict(),
            Err(Fault::Sense(sense)) => check(sense),
        }
    }

    /// Loses power: registrations and the reservation are gone unless they are persistent, and
    /// every nexus gets a condition for the power on.
    pub fn power_cycle(&mut self) {
        self.state.power_loss();
        for port in self.ports.values_mut() {
            port.pending = BTreeSet::from([Attention::PowerOn]);
        }
    }

    /// The state as text, for people and tests.
    pub fn text(&self) -> String {
        self.state.text(|nexus| match self.ports.get(nexus) {
            Some(port) => port.name.clone(),
            None => nexus.to_string(),
        })
    }

    fn reserve_in(&self, cdb: &[u8; 10]) -> Result<Vec<u8>, Fault> {
        let mut data = match ReadAction::from_wire(cdb[1] & 0x1F) {
            Some(ReadAction::Keys) => self.read_keys(),
            Some(ReadAction::Reservation) => self.read_reservation(),
            Some(ReadAction::Capabilities) => self.capabilities(),
            Some(ReadAction::FullStatus) => self.full_status(),
            None => return Err(Fault::Sense(sense::INVALID_FIELD_IN_CDB)),
        };
        data.truncate(usize::from(u16::from_be_bytes([cdb[7], cdb[8]])));
        Ok(data)
    }

    /// PRGENERATION and the length of the body, then the body.
    fn with_header(&self, body: Vec<u8>) -> Vec<u8> {
        let mut data = self.state.generation().to_be_bytes().to_vec();
        data.extend((body.len() as u32).to_be_bytes());
        data.extend(body);
        data
    }

    fn read_keys(&self) -> Vec<u8> {
        let keys = self.state.registrants().iter().flat_map(|one| one.key.to_be_bytes());
        self.with_header(keys.collect())
    }

    fn read_reservation(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if let Some(kind) = self.state.kind() {
            // Zero where all registrants are holders.
            body.extend(self.state.holder_key().unwrap_or_default().to_be_bytes());
            // The scope in the upper half of the type's byte is 0, the logical unit.
            body.extend([0, 0, 0, 0, 0, kind.to_scsi(), 0, 0]);
        }
        self.with_header(body)
    }

    fn capabilities(&self) -> Vec<u8> {
        // PTPL_C; not RLR_C, CRH, SIP_C, ATP_C.
        let abilities = 0x01;
        // TMV; ALLOW COMMANDS 011b: TEST UNIT READY passes, MODE SENSE passes write exclusive.
        let modes = 0x80 | 0b011 << 4 | u8::from(self.state.is_persistent());
        let types =
            ReservationType::ALL.map(ReservationType::to_scsi).iter().fold(0_u16, |mask, code| {
                // Bit N of byte 4 is type N, and bit 0 of byte 5 is type 8.
                mask | 1 << ((code + 8) % 16)
            });
        let mut data = vec![0, 8, abilities, modes];
        data.extend(types.to_be_bytes());
        data.extend([0, 0]);
        data
    }

    fn full_status(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for one in self.state.registrants() {
            let held = self.state.kind().filter(|_| self.state.is_holder(&one.who));
            body.extend(one.key.to_be_bytes());
            body.extend([0, 0, 0, 0]);
            body.extend([u8::from(held.is_some()), held.map_or(0, ReservationType::to_scsi)]);
            body.extend([0, 0, 0, 0]);
            body.extend(one.who.target_port.to_be_bytes());
            body.extend((TRANSPORT_ID_LEN as u32).to_be_bytes());
            body.extend(one.who.transport_id());
        }
        self.with_header(body)
    }

    fn reserve_out(&mut self, nexus: &Nexus, cdb: &[u8; 10], data_out: &[u8]) -> Result<(), Fault> {
        let action = ChangeAction::from_wire(cdb[1] & 0x1F)
            .ok_or(Fault::Sense(sense::INVALID_FIELD_IN_CDB))?;
        let (list, more) = parameters(cdb, action, data_out)?;
        match action {
            ChangeAction::Register => return self.register(nexus, &list, true),
            ChangeAction::RegisterAndIgnore => return self.register(nexus, &list, false),
            _ => {}
        }
        if self.state.key(nexus) != Some(list.key) {
            return Err(Fault::Conflict);
        }
        // The scope in the upper half of the type's byte must be 0, the logical unit.
        let kind = ReservationType::from_scsi(cdb[2]);
        let notices = match action {
            ChangeAction::Reserve => {
                let kind = kind.ok_or(Refusal::UnknownType)?;
                self.state.reserve(nexus, kind)?;
                Vec::new()
            }
            ChangeAction::Release => self.state.release(nexus, kind)?,
            ChangeAction::Clear => self.state.clear(nexus),
            // PREEMPT AND ABORT finds no command to abort: the caller lets it wait for the commands
            // that are being executed.
            ChangeAction::Preempt | ChangeAction::PreemptAndAbort => {
                self.state.preempt(nexus, list.action_key, kind)?
            }
            ChangeAction::RegisterAndMove => {
                self.register_and_move(nexus, &list, data_out, more)?;
                Vec::new()
            }
            ChangeAction::Register | ChangeAction::RegisterAndIgnore => Vec::new(),
        };
        self.tell(notices);
        Ok(())
    }

    /// REGISTER, and REGISTER AND IGNORE EXISTING KEY without a check of the key.
    fn register(
        &mut self,
        nexus: &Nexus,
        list: &ParameterList,
        check_key: bool,
    ) -> Result<(), Fault> {
        let registered = self.state.key(nexus);
        if check_key && registered.unwrap_or_default() != list.key {
            return Err(Fault::Conflict);
        }
        if registered.is_none() && list.action_key == 0 {
            return Ok(());
        }
        // ALL_TG_PT and SPEC_I_PT are not supported (ATP_C and SIP_C are 0).
        if list.names_initiators || list.all_target_ports {
            return Err(Fault::Sense(INVALID_FIELD_IN_LIST));
        }
        if list.action_key == 0 {
            let notices = self.state.unregister(nexus);
            self.tell(notices);
        } else {
            self.state.register(nexus, list.action_key)?;
        }
        self.state.set_persistent(list.persistent);
        Ok(())
    }

    fn register_and_move(
        &mut self,
        nexus: &Nexus,
        list: &ParameterList,
        data_out: &[u8],
        ids: &[u8],
    ) -> Result<(), Fault> {
        // A conflict comes before wrong fields.
        self.state.check_move(nexus)?;
        let to = destination(data_out, ids)?;
        if list.action_key == 0 || to.initiator == nexus.initiator {
            return Err(Fault::Sense(INVALID_FIELD_IN_LIST));
        }
        // Byte 17 has UNREG and APTPL.
        let flags = data_out[17];
        self.state.move_to(nexus, &to, list.action_key, flags & 0x02 != 0)?;
        self.state.set_persistent(flags & 0x01 != 0);
        Ok(())
    }

    fn tell(&mut self, notices: Notices<Nexus>) {
        for (nexus, notice) in notices {
            // A nexus by which no command ever came gets no condition.
            if let Some(port) = self.ports.get_mut(&nexus) {
                port.pending.insert(Attention::Reservation(notice));
            }
        }
    }
}

/// The reason why a command failed.
enum Fault {
    Conflict,
    Sense(Sense),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Sense(match refusal {
            Refusal::Conflict => return Fault::Conflict,
            Refusal::UnknownType | Refusal::NoReservation => sense::INVALID_FIELD_IN_CDB,
            Refusal::OtherType => INVALID_RELEASE,
            Refusal::KeyZero => INVALID_FIELD_IN_LIST,
            Refusal::Full => INSUFFICIENT_RESOURCES,
        })
    }
}

/// The parameter list of PERSISTENT RESERVE OUT, and the TransportIDs after it. The fields behind
/// the keys have another meaning with REGISTER AND MOVE.
fn parameters<'a>(
    cdb: &[u8; 10],
    action: ChangeAction,
    data_out: &'a [u8],
) -> Result<(ParameterList, &'a [u8]), Fault> {
    const LENGTH_ERROR: Fault = Fault::Sense(sense::PARAMETER_LIST_LENGTH);
    let len = u32::from_be_bytes([cdb[5], cdb[6], cdb[7], cdb[8]]) as usize;
    let bytes = data_out.get(..len).ok_or(LENGTH_ERROR)?;
    let (list, ids) = bytes.split_first_chunk::<LIST_LEN>().ok_or(LENGTH_ERROR)?;
    let list = ParameterList::decode(list);
    // Only a list with TransportIDs is longer.
    let has_more = action == ChangeAction::RegisterAndMove || list.names_initiators;
    if ids.is_empty() || has_more { Ok((list, ids)) } else { Err(LENGTH_ERROR) }
}

/// The nexus that REGISTER AND MOVE names.
fn destination(list: &[u8], ids: &[u8]) -> Result<Nexus, Fault> {
    let target_port = number(&list[18..20]) as u16;
    let len = number(&list[20..24]) as usize;
    if ids.len() != len {
        return Err(Fault::Sense(sense::PARAMETER_LIST_LENGTH));
    }
    match ids.first_chunk::<TRANSPORT_ID_LEN>() {
        Some(id) if len == TRANSPORT_ID_LEN && id[0] == SAS && target_port != 0 => {
            Ok(Nexus { initiator: number(&id[4..12]), target_port })
        }
        _ => Err(Fault::Sense(INVALID_FIELD_IN_LIST)),
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// RESERVATION CONFLICT.
pub(crate) fn conflict() -> ScsiReply {
    ScsiReply { status: status::RESERVATION_CONFLICT, ..ScsiReply::default() }
}

fn check(sense: Sense) -> ScsiReply {
    ScsiReply { status: status::CHECK_CONDITION, sense: sense::fixed_form(sense), data: Vec::new() }
}

/// Whether a command neither reports nor clears a unit attention condition: INQUIRY, REPORT LUNS.
fn ignores_attention(cdb: &[u8]) -> bool {
    matches!(cdb.first(), Some(0x12 | 0xA0))
}

/// The access that a command needs (SPC-4 and SBC-3, tables of the commands that are allowed in the
/// presence of reservations). Commands that are not listed here are free, or refused as unknown.
pub fn access(cdb: &[u8], idm: bool) -> Access {
    if cdb::is_mutex_command(cdb) {
        return match cdb::parse(cdb) {
            _ if !idm => Access::Free,
            Ok(Command::ReadTable { .. } | Command::ReadCounters { .. }) => Access::Read,
            _ => Access::Write,
        };
    }
    let byte_4 = cdb.get(4).copied().unwrap_or_default();
    match cdb.first() {
        // READ (6, 10, 16), VERIFY (10, 16), MODE SENSE (6, 10).
        Some(0x08 | 0x28 | 0x88 | 0x2F | 0x8F | 0x1A | 0x5A) => Access::Read,
        // WRITE (6, 10, 16), WRITE AND VERIFY (10, 16), UNMAP, SYNCHRONIZE CACHE (10, 16).
        Some(0x0A | 0x2A | 0x8A | 0x2E | 0x8E | 0x42 | 0x35 | 0x91) => Access::Write,
        // START STOP UNIT that does anything but start.
        Some(0x1B) if byte_4 & 0xF1 != 0x01 => Access::Write,
        // PREVENT ALLOW MEDIUM REMOVAL that prevents.
        Some(0x1E) if byte_4 & 0x03 != 0 => Access::Write,
        _ => Access::Free,
    }
}
