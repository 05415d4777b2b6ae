//! The subject of a test: a drive, or a model of one.

use core::fmt;
use idm_emulator::{Drive, DriveTime, Profile};
use idm_protocol::{DriveCommand, MutexOp, RECORD_LEN, Record, Status, scsi};
use lvmlockd_idm::tools::Probe;
use lvmlockd_idm::transport::TransportError;
use lvmlockd_idm::transport::drive::{CommandError, Data, Request};
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
    /// The drive did not answer.
    Lost(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Interrupted => f.write_str("interrupted"),
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
    /// The host's clock.
    fn now(&self) -> Duration;
    /// Lets time pass.
    fn sleep(&mut self, time: Duration) -> Result<(), Stop>;
}

/// As many blocks of the table as are asked for at once, by [`Real::longest_read`].
pub const MANY_BLOCKS: u32 = 1024;

/// Pauses before a command is sent again that the drive put off.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(5), Duration::from_millis(20)];
/// An interruption is noticed within this time.
const TICK: Duration = Duration::from_millis(50);

/// A drive of this host.
pub struct Real {
    probe: Probe,
    /// Another path, by which commands get hardly any time.
    other: Option<Probe>,
    begin: Instant,
    stop: Arc<AtomicBool>,
    /// The time that each command took, by its name.
    pub latencies: BTreeMap<&'static str, Vec<Duration>>,
}

impl Real {
    /// The drive behind a path. Commands end with [`Stop::Interrupted`] from when `stop` is set.
    pub fn new(probe: Probe, stop: Arc<AtomicBool>) -> Real {
        Real { probe, other: None, begin: Instant::now(), stop, latencies: BTreeMap::new() }
    }

    /// The same, with another path for commands that are cut. Its time-out should be the shortest.
    pub fn beside(self, other: Probe) -> Real {
        Real { other: Some(other), ..self }
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
            match answer.status {
                Status::Good => {
                    data.truncate(answer.transferred);
                    return Ok(Some(data));
                }
                Status::TryAgain => {}
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
            answer = Answer { status: raw.status, sense: raw.sense };
            if raw.status != Status::TryAgain {
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
    now: Duration,
}

impl Model {
    /// A drive with an empty table.
    pub fn new(profile: Profile) -> Model {
        Model { drive: Drive::new(profile), now: Duration::from_secs(1) }
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

    fn read(&mut self, cdb: &scsi::Cdb) -> Vec<u8> {
        self.drive.execute(self.time(), cdb, &[]).data
    }
}

impl Subject for Model {
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        let reply = self.drive.execute(self.time(), &scsi::mutex(op), &record.encode());
        let status = scsi::decode_status(reply.status, &reply.sense);
        Ok(Answer { status, sense: reply.sense })
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

    fn now(&self) -> Duration {
        self.now
    }

    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        self.now += time;
        Ok(())
    }
}
