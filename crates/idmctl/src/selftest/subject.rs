//! The subject of a test: a drive, or a model of one.

use core::fmt;
use idm_emulator::reservation::scsi::{Nexus, UnitReservations};
use idm_emulator::{Drive, DriveTime, Profile};
use idm_protocol::reservation::ReservationType::WriteExclusiveAllRegistrants;
use idm_protocol::reservation::scsi::{self as reservation, ChangeAction, ParameterList};
use idm_protocol::{DriveCommand, MutexOp, RECORD_LEN, Record, Status, scsi};
use lvmlockd_idm::tools::Probe;
use lvmlockd_idm::transport::drive::{CommandError, Data, Request};
use lvmlockd_idm::transport::{
    RawAnswer, RawStatus, ReserveAnswer, ReserveOrder, ReserveReport, TransportError,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The reason why a test cannot continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The user interrupted it.
    Interrupted,
    /// The drive refuses reads of the table, as if its data were reserved for others.
    Refused,
    /// The drive did not answer.
    Lost(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Interrupted => f.write_str("interrupted"),
            Stop::Refused => f.write_str("a read of the table ended with RESERVATION CONFLICT"),
            Stop::Lost(why) => f.write_str(why),
        }
    }
}

/// A drive's answer to a command that changes a mutex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The meaning of the status.
    pub status: Status,
    /// Sense data; empty where there is none.
    pub sense: Vec<u8>,
}

/// The end of a command that was given hardly any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The drive answered in time.
    Answered,
    /// The host gave it up; the drive may have it or still get it.
    GivenUp,
    /// It was not sent, for this reason.
    NotSent(String),
}

/// A drive, and the time in which it lives.
pub trait Subject {
    /// Sends a command that changes a mutex.
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop>;
    /// Reads the first `blocks` blocks of the table; `None` where so many cannot be moved at once.
    fn table(&mut self, blocks: u32) -> Result<Option<Vec<u8>>, Stop>;
    /// Reads the counters.
    fn counters(&mut self) -> Result<Vec<u8>, Stop>;
    /// The drive's major IDM version; `None` where it has no IDM.
    fn version(&mut self) -> Result<Option<u8>, Stop>;
    /// Sends a command by another path, with the shortest time-out. `None` where there is no other
    /// path.
    fn cut(&mut self, _op: MutexOp, _record: &Record) -> Result<Option<Cut>, Stop> {
        Ok(None)
    }
    /// Reserves the data for another path, or says why that is not possible. Does not end for an
    /// interruption.
    fn reserve(&mut self) -> Result<Result<(), String>, Stop> {
        Ok(Err("it needs a drive that may be reserved (--reserve)".to_owned()))
    }
    /// Ends that reservation.
    fn unreserve(&mut self) -> Result<(), Stop> {
        Ok(())
    }
    /// The host's clock.
    fn now(&self) -> Duration;
    /// Lets time pass.
    fn sleep(&mut self, time: Duration) -> Result<(), Stop>;
}

/// As many blocks of the table as are asked for at once, by [`Real::longest_read`].
pub const MANY_BLOCKS: u32 = 1024;

/// The key with which a test registers: "idmctl" and a number.
pub const KEY: u64 = u64::from_be_bytes(*b"idmctl\0\x01");

/// The end of an order about reservations that was not carried out.
fn undone(answer: &Result<ReserveAnswer, CommandError>) -> String {
    match answer {
        Err(CommandError::Transport(why)) => why.to_string(),
        Err(CommandError::TooLong(why)) => why.clone(),
        Ok(ReserveAnswer::Conflict) => "RESERVATION CONFLICT".to_owned(),
        Ok(_) => "it does not have the command".to_owned(),
    }
}

/// Pauses before a command is sent again that the drive put off.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(5), Duration::from_millis(20)];
/// An interruption is noticed within this time.
const TICK: Duration = Duration::from_millis(50);

/// A drive of this host.
pub struct Real {
    probe: Probe,
    /// Another path, by which commands get hardly any time.
    other: Option<Probe>,
    /// Another path, for which the data may be reserved.
    reserver: Option<Probe>,
    begin: Instant,
    stop: Arc<AtomicBool>,
    /// The time that each command took, by its name.
    pub latencies: BTreeMap<&'static str, Vec<Duration>>,
}

impl Real {
    /// The drive behind a path. Commands end with [`Stop::Interrupted`] from when `stop` is set.
    pub fn new(probe: Probe, stop: Arc<AtomicBool>) -> Real {
        let (other, reserver) = (None, None);
        Real { probe, other, reserver, begin: Instant::now(), stop, latencies: BTreeMap::new() }
    }

    /// The same, with another path for commands that are cut. Its time-out should be the shortest.
    pub fn beside(self, other: Probe) -> Real {
        Real { other: Some(other), ..self }
    }

    /// The same, with another path for which the data may be reserved.
    pub fn reserving(self, other: Probe) -> Real {
        Real { reserver: Some(other), ..self }
    }

    /// The reservation and the registrations of the drive's data; `None` where the drive has no
    /// reservations, or does not tell.
    pub fn reservations(&self) -> Option<ReserveReport> {
        match self.probe.reserve(&ReserveOrder::Report) {
            Ok(ReserveAnswer::Report(report)) => Some(report),
            _ => None,
        }
    }

    /// The most blocks of the table that one read moves, of powers of 2 up to [`MANY_BLOCKS`].
    pub fn longest_read(&mut self) -> u32 {
        let sizes = (0..=MANY_BLOCKS.ilog2()).map(|power| 1 << power);
        let moves = |blocks: &u32| matches!(self.read(Request::Table, *blocks), Ok(Some(_)));
        sizes.take_while(moves).last().unwrap_or_default()
    }

    /// Continues after an interruption, so that scratch mutexes can be removed.
    pub fn ignore_stop(&mut self) {
        self.stop = Arc::default();
    }

    fn check(&self) -> Result<(), Stop> {
        if self.stop.load(Ordering::Relaxed) { Err(Stop::Interrupted) } else { Ok(()) }
    }

    fn read(&mut self, request: Request, blocks: u32) -> Result<Option<Vec<u8>>, Stop> {
        let mut data = vec![0; blocks as usize * RECORD_LEN];
        for pause in PAUSES {
            thread::sleep(pause);
            self.check()?;
            let begin = Instant::now();
            let answer = match self.probe.send(request, Data::In(&mut data)) {
                Ok(answer) => answer,
                Err(CommandError::TooLong(_)) => return Ok(None),
                Err(CommandError::Transport(why)) => return Err(Stop::Lost(why.to_string())),
            };
            self.latencies.entry("read").or_default().push(begin.elapsed());
            match meaning(&answer) {
                Status::Good => {
                    data.truncate(answer.transferred);
                    return Ok(Some(data));
                }
                Status::TryAgain => {}
                Status::Conflict => return Err(Stop::Refused),
                status => return Err(Stop::Lost(format!("a read ended with {status:?}"))),
            }
        }
        Err(Stop::Lost("the drive puts reads off".to_owned()))
    }
}

impl Subject for Real {
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        let block = record.encode();
        let mut answer = Answer { status: Status::TryAgain, sense: Vec::new() };
        for pause in PAUSES {
            thread::sleep(pause);
            self.check()?;
            let begin = Instant::now();
            let raw = match self.probe.send(Request::Mutex(op), Data::Out(&block)) {
                Ok(raw) => raw,
                Err(CommandError::TooLong(why)) => return Err(Stop::Lost(why)),
                Err(CommandError::Transport(why)) => return Err(Stop::Lost(why.to_string())),
            };
            self.latencies.entry(name(op)).or_default().push(begin.elapsed());
            answer = Answer { status: meaning(&raw), sense: raw.sense };
            if answer.status != Status::TryAgain {
                break;
            }
        }
        Ok(answer)
    }

    fn table(&mut self, blocks: u32) -> Result<Option<Vec<u8>>, Stop> {
        self.read(Request::Table, blocks)
    }

    fn counters(&mut self) -> Result<Vec<u8>, Stop> {
        Ok(self.read(Request::Counters, 1)?.unwrap_or_default())
    }

    fn version(&mut self) -> Result<Option<u8>, Stop> {
        self.probe.version().map_err(|error| match error {
            CommandError::TooLong(why) => Stop::Lost(why),
            CommandError::Transport(why) => Stop::Lost(why.to_string()),
        })
    }

    fn cut(&mut self, op: MutexOp, record: &Record) -> Result<Option<Cut>, Stop> {
        self.check()?;
        let Some(other) = &self.other else { return Ok(None) };
        Ok(Some(match other.send(Request::Mutex(op), Data::Out(&record.encode())) {
            Ok(_) => Cut::Answered,
            Err(CommandError::Transport(TransportError::Unknown(_))) => Cut::GivenUp,
            Err(CommandError::Transport(TransportError::NotSent(why)))
            | Err(CommandError::TooLong(why)) => Cut::NotSent(why),
        }))
    }

    fn reserve(&mut self) -> Result<Result<(), String>, Stop> {
        let Some(path) = &self.reserver else {
            return Ok(Err("it needs a drive that may be reserved (--reserve)".to_owned()));
        };
        for order in [ReserveOrder::RegisterBriefly(0, KEY), ReserveOrder::Reserve(KEY)] {
            match path.reserve(&order) {
                Ok(ReserveAnswer::Done) => {}
                other => {
                    self.unreserve()?;
                    return Ok(Err(format!("the drive cannot be reserved: {}", undone(&other))));
                }
            }
        }
        Ok(Ok(()))
    }

    fn unreserve(&mut self) -> Result<(), Stop> {
        let Some(other) = &self.reserver else { return Ok(()) };
        // An earlier test may have been killed that used the paths the other way round.
        for path in [other, &self.probe] {
            // A conflict: it was not registered.
            let ended = path.reserve(&ReserveOrder::RegisterBriefly(KEY, 0));
            if let Err(why) = ended {
                return Err(Stop::Lost(format!(
                    "the test's reservation (key {KEY:#x}) may be left on the drive: {}",
                    undone(&Err(why))
                )));
            }
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(TICK));
        }
    }
}

/// The meaning of an answer. NVMe has a status of its own for a reservation that keeps a host out.
/// The library takes it for any other failure that a drive reports.
pub fn meaning(answer: &RawAnswer) -> Status {
    match answer.raw {
        Some(RawStatus::Nvme(status)) if status & 0x7FF == RESERVATION_CONFLICT => Status::Conflict,
        _ => answer.status,
    }
}

/// Status code Reservation Conflict of NVMe, of the generic type.
const RESERVATION_CONFLICT: u16 = 0x83;

/// The name of a command, as docs/protocol.md has it.
pub fn name(op: MutexOp) -> &'static str {
    match op {
        MutexOp::Init => "INIT",
        MutexOp::Trylock => "TRYLOCK",
        MutexOp::Lock => "LOCK",
        MutexOp::Unlock => "UNLOCK",
        MutexOp::Refresh => "REFRESH",
        MutexOp::Break => "BREAK",
        MutexOp::Destroy => "DESTROY",
    }
}

/// A drive in memory with a virtual clock.
#[derive(Clone, Debug)]
pub struct Model {
    /// The drive.
    pub drive: Drive,
    reservations: UnitReservations,
    now: Duration,
}

impl Model {
    /// A drive with an empty table.
    pub fn new(profile: Profile) -> Model {
        let (drive, reservations) = (Drive::new(profile), UnitReservations::default());
        Model { drive, reservations, now: Duration::from_secs(1) }
    }

    /// A drive that has such records of others already, as far as it has room.
    pub fn beside(profile: Profile, others: &[Record]) -> Model {
        let mut model = Model::new(profile);
        for record in others {
            let lasting = Record { countdown_ms: u64::from(u32::MAX), ..record.clone() };
            let taken = DriveCommand::Mutex(MutexOp::Trylock, lasting);
            model.drive.perform(model.time(), &taken);
        }
        model
    }

    /// The drive's time.
    pub fn time(&self) -> DriveTime {
        DriveTime::from_micros(u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX))
    }

    /// Sets the time, which may also go back: a read changes nothing.
    pub fn set_time(&mut self, now: Duration) {
        self.now = now;
    }

    /// Sends a command that changes a mutex.
    pub fn send(&mut self, cdb: &scsi::Cdb, block: &[u8; RECORD_LEN]) -> Answer {
        if !self.permits(cdb) {
            return Answer { status: Status::Conflict, sense: Vec::new() };
        }
        let reply = self.drive.execute(self.time(), cdb, block);
        let status = scsi::decode_status(reply.status, &reply.sense);
        Answer { status, sense: reply.sense }
    }

    /// Whether the data is reserved.
    pub fn is_reserved(&self) -> bool {
        self.reservations.state().kind().is_some()
    }

    /// Whether a reservation permits a command.
    fn permits(&self, cdb: &scsi::Cdb) -> bool {
        let respects = self.drive.profile().idm_commands_respect_reservations;
        self.reservations.permits(&Nexus::of_port("test.0"), cdb, respects)
    }

    /// Changes the registrations or the reservation by another path.
    fn by_other_path(&mut self, action: ChangeAction, keys: [u64; 2]) {
        let [key, action_key] = keys;
        let list = ParameterList { key, action_key, ..ParameterList::default() };
        let cdb = reservation::change(action, Some(WriteExclusiveAllRegistrants));
        self.reservations.execute(&Nexus::of_port("test.1"), &cdb, &list.encode());
    }

    fn read(&mut self, cdb: &scsi::Cdb) -> Vec<u8> {
        self.drive.execute(self.time(), cdb, &[]).data
    }
}

impl Subject for Model {
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        Ok(self.send(&scsi::mutex(op), &record.encode()))
    }

    fn table(&mut self, blocks: u32) -> Result<Option<Vec<u8>>, Stop> {
        Ok(Some(self.read(&scsi::read_table(blocks))))
    }

    fn counters(&mut self) -> Result<Vec<u8>, Stop> {
        Ok(self.read(&scsi::inquire_table()))
    }

    fn version(&mut self) -> Result<Option<u8>, Stop> {
        Ok(scsi::version(&self.read(&scsi::inquire_version())))
    }

    fn reserve(&mut self) -> Result<Result<(), String>, Stop> {
        self.by_other_path(ChangeAction::Register, [0, KEY]);
        self.by_other_path(ChangeAction::Reserve, [KEY, 0]);
        Ok(Ok(()))
    }

    fn unreserve(&mut self) -> Result<(), Stop> {
        self.by_other_path(ChangeAction::Register, [KEY, 0]);
        Ok(())
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        self.now += time;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use idm_protocol::nvme;

    #[test]
    fn a_reservation_is_the_same_conflict_on_both_kinds_of_drives() {
        let answer = |raw, status| {
            let (sense, transferred) = (Vec::new(), 0);
            meaning(&RawAnswer { status, raw, sense, transferred })
        };
        // As the emulated namespace answers that respects reservations, and as the mutex is held.
        for status in [0x4083, 0x0083, 0x01CA] {
            let decoded = nvme::decode_status(Some(MutexOp::Trylock), status);
            assert_eq!(answer(Some(RawStatus::Nvme(status)), decoded), Status::Conflict);
        }
        // Another status type with the same code, and another failure.
        for status in [0x0183, 0x4004] {
            let decoded = nvme::decode_status(Some(MutexOp::Trylock), status);
            assert_ne!(answer(Some(RawStatus::Nvme(status)), decoded), Status::Conflict);
        }
        let scsi = RawStatus::Scsi(scsi::status::RESERVATION_CONFLICT, None);
        assert_eq!(answer(Some(scsi), Status::Conflict), Status::Conflict);
    }
}
