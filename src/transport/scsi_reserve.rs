//! Orders about reservations as SCSI commands.

use super::drive::{Buffer, CommandError, Data};
use super::port::Port;
use super::reserve::{KIND, ReserveAnswer, ReserveOrder, ReserveReport};
use super::{Deadline, RawStatus, TransportError};
use crate::sys::clock;
use core::time::Duration;
use idm_protocol::reservation::scsi::{
    self, CAPABILITIES_LEN, Capabilities, ChangeAction, Holder, Keys, LIST_LEN, ParameterList,
    ReadAction,
};
use idm_protocol::scsi::{Cdb, Sense, status};

/// Room for the answer to READ KEYS, in bytes: 511 keys.
const ROOM: u16 = 4096;
/// Pauses before a command that the drive put off is sent again. The first ones are for unit
/// attention conditions, of which a drive may have several.
const PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::ZERO,
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(80),
];

/// The end of one SCSI command.
enum End {
    Good(usize),
    Conflict,
    Unsupported,
}

/// Carries out an order on a SCSI drive.
pub(super) fn carry_out(
    port: &dyn Port,
    order: &ReserveOrder,
    deadline: &Deadline,
) -> Result<ReserveAnswer, CommandError> {
    let (action, key, action_key) = match *order {
        ReserveOrder::Report => return report(port, deadline),
        ReserveOrder::Register { key, anew: true } => (ChangeAction::RegisterAndIgnore, 0, key),
        ReserveOrder::Register { key, anew: false } => (ChangeAction::Register, key, key),
        ReserveOrder::Unregister(key) => (ChangeAction::Register, key, 0),
        ReserveOrder::RegisterBriefly(key, new) => (ChangeAction::Register, key, new),
        ReserveOrder::Reserve(key) => (ChangeAction::Reserve, key, 0),
        ReserveOrder::Preempt(key, victim) => (ChangeAction::PreemptAndAbort, key, victim),
    };
    let persistent = !matches!(order, ReserveOrder::RegisterBriefly(..));
    let list = ParameterList { key, action_key, persistent, ..ParameterList::default() };
    let mut buffer = Buffer::new(LIST_LEN);
    buffer.bytes().copy_from_slice(&list.encode());
    let cdb = scsi::change(action, Some(KIND));
    Ok(match run(port, &cdb, &mut Data::Out(buffer.bytes()), deadline)? {
        End::Good(_) => ReserveAnswer::Done,
        End::Conflict => ReserveAnswer::Conflict,
        End::Unsupported => ReserveAnswer::Unsupported,
    })
}

fn report(port: &dyn Port, deadline: &Deadline) -> Result<ReserveAnswer, CommandError> {
    let read = |action, room: u16| -> Result<Option<Vec<u8>>, CommandError> {
        let mut buffer = Buffer::new(room.into());
        let cdb = scsi::read(action, room);
        match run(port, &cdb, &mut Data::In(buffer.bytes()), deadline)? {
            End::Good(len) => Ok(buffer.bytes().get(..len).map(<[u8]>::to_vec)),
            End::Conflict | End::Unsupported => Ok(None),
        }
    };
    let Some(keys) = read(ReadAction::Keys, ROOM)? else {
        return Ok(ReserveAnswer::Unsupported);
    };
    let keys = Keys::decode(&keys).filter(|keys| keys.keys.len() == keys.count);
    let keys = keys.ok_or_else(|| CommandError::nonsense("READ KEYS"))?;
    let held = read(ReadAction::Reservation, ROOM)?.and_then(|data| Holder::decode(&data));
    let held = held.ok_or_else(|| CommandError::nonsense("READ RESERVATION"))?;
    let able = read(ReadAction::Capabilities, CAPABILITIES_LEN as u16)?;
    let able = able.and_then(|data| Capabilities::decode(&data));
    Ok(ReserveAnswer::Report(ReserveReport {
        keys: keys.keys,
        reservation: held.reservation.map(|reservation| reservation.kind),
        is_able: able.is_some_and(|able| able.can_persist && able.has(KIND) != Some(false)),
        by_path: true,
    }))
}

/// Runs a SCSI command, and runs it again where the drive puts it off.
fn run(
    port: &dyn Port,
    cdb: &Cdb,
    data: &mut Data<'_>,
    deadline: &Deadline,
) -> Result<End, CommandError> {
    let mut pauses = PAUSES.iter();
    loop {
        let data = match data {
            Data::Out(bytes) => Data::Out(bytes),
            Data::In(bytes) => Data::In(bytes),
        };
        let answer = port.execute(cdb, data, deadline)?;
        let sense = Sense::decode(&answer.sense);
        let key = sense.map_or(0, |sense| sense.key);
        match (answer.status, key) {
            (status::GOOD, _) => return Ok(End::Good(answer.transferred)),
            (status::RESERVATION_CONFLICT, _) => return Ok(End::Conflict),
            // ILLEGAL REQUEST.
            (status::CHECK_CONDITION, 0x05) => return Ok(End::Unsupported),
            // NOT READY, UNIT ATTENTION.
            (status::CHECK_CONDITION, 0x02 | 0x06) | (status::BUSY | status::TASK_SET_FULL, _) => {
                if let Some(pause) = pauses.next() {
                    clock::sleep(*pause);
                    continue;
                }
            }
            _ => {}
        }
        let raw = RawStatus::Scsi(answer.status, sense);
        return Err(TransportError::Unknown(raw.to_string()).into());
    }
}
