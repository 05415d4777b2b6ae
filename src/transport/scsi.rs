//! IDM commands as SCSI commands, whatever carries them.

use super::{DrivePath, Undelivered};
use core::time::Duration;
use idm_protocol::{
    Class, DriveCommand, RECORD_LEN, Record, Reply, State, Status, parse_table, scsi,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Instant, SystemTime};

/// Carries SCSI commands to one drive.
pub trait Port: Send + Sync {
    /// Runs one command. Data from the drive goes to the front of an `In` buffer, whose rest is
    /// left as it was.
    fn execute(
        &self,
        cdb: &scsi::Cdb,
        data: Data<'_>,
        timeout: Duration,
    ) -> Result<Answer, Undelivered>;
}

/// The data of a command.
pub enum Data<'a> {
    /// To the drive.
    Out(&'a [u8]),
    /// From the drive.
    In(&'a mut [u8]),
}

/// What a drive answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// SCSI status.
    pub status: u8,
    /// Sense data; empty where there is none.
    pub sense: Vec<u8>,
    /// Bytes of data that were transferred.
    pub transferred: usize,
}

/// Records that the first read of a table asks for: what the recorded firmware has mutexes.
const FIRST_BLOCKS: u32 = 128;
/// Records that are read at most (4 MiB). Larger tables than 4000 records are not known.
const MOST_BLOCKS: u32 = 8192;
/// Pauses before a command is sent again that the drive put off.
const PAUSES: [Duration; 4] = [
    // UNIT ATTENTION is gone with the first command.
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(80),
];

/// Why a command has no good answer.
enum Failure {
    /// The drive says so.
    Drive(Status),
    /// The drive said nothing.
    Path(Undelivered),
}

/// What a drive sent makes no sense.
const NONSENSE: Failure = Failure::Drive(Status::Failed);

/// A drive that speaks SCSI.
pub struct Drive<P> {
    port: P,
    timeout: Duration,
    /// Records to ask for: what the last table needed.
    blocks: AtomicU32,
}

impl<P: Port> Drive<P> {
    /// A drive behind a port; `timeout` is for one command.
    pub fn new(port: P, timeout: Duration) -> Drive<P> {
        Drive { port, timeout, blocks: AtomicU32::new(FIRST_BLOCKS) }
    }

    /// Sends a command, again where the drive puts it off, as long as the command's time lasts.
    /// The number of bytes that were transferred.
    fn send(&self, cdb: &scsi::Cdb, data: &mut Data<'_>) -> Result<usize, Failure> {
        let start = Instant::now();
        let mut pauses = PAUSES.iter();
        loop {
            let left = self.timeout.saturating_sub(start.elapsed());
            let data = match data {
                Data::Out(bytes) => Data::Out(bytes),
                Data::In(bytes) => Data::In(bytes),
            };
            let answer = self.port.execute(cdb, data, left).map_err(Failure::Path)?;
            match scsi::decode_status(answer.status, &answer.sense) {
                Status::Good => return Ok(answer.transferred),
                Status::TryAgain => match pauses.next() {
                    Some(pause) if start.elapsed() + *pause < self.timeout => thread::sleep(*pause),
                    _ => return Err(Failure::Drive(Status::TryAgain)),
                },
                other => return Err(Failure::Drive(other)),
            }
        }
    }

    fn mutex(&self, op: idm_protocol::MutexOp, record: &Record) -> Result<(), Failure> {
        // Drives make nothing of the time, but hosts with the older stack choose by it which unused
        // mutex to remove.
        let payload = Record { modified_ms: wall_clock_ms(), ..record.clone() }.encode();
        self.send(&scsi::mutex(op), &mut Data::Out(&payload)).map(drop)
    }

    /// Reads `blocks` records. `Ok(None)`: there may be more.
    fn read_blocks(&self, blocks: u32) -> Result<Option<Vec<Record>>, Failure> {
        let mut buffer = vec![0; blocks as usize * RECORD_LEN];
        let transferred = self.send(&scsi::read_table(blocks), &mut Data::In(&mut buffer))?;
        let data = buffer.get(..transferred).ok_or(NONSENSE)?;
        if data.is_empty() || data.len() % RECORD_LEN != 0 {
            return Err(NONSENSE);
        }
        let records = parse_table(data);
        if records.iter().any(is_nonsense) {
            return Err(NONSENSE);
        }
        // An end marker is the proof that nothing is missing. Without one the table may go on:
        // an exact read has none (firmware traces, fact 44), and there was firmware that left
        // blocks after the 128th unfilled (fact 50).
        let end = &data[records.len() * RECORD_LEN..];
        if !end.is_empty() && is_end_marker(end) {
            return Ok(Some(records));
        }
        if records.len() == blocks as usize {
            return Ok(None);
        }
        if self.record_count()? <= records.len() {
            return Ok(Some(records));
        }
        Err(NONSENSE)
    }

    /// The number of records that the drive says it has.
    fn record_count(&self) -> Result<usize, Failure> {
        let mut counters = [0; RECORD_LEN];
        let transferred = self.send(&scsi::inquire_table(), &mut Data::In(&mut counters))?;
        counters
            .get(..transferred)
            .and_then(idm_protocol::record_count)
            .map(usize::from)
            .ok_or(NONSENSE)
    }

    fn read_table(&self) -> Result<Vec<Record>, Failure> {
        let mut blocks = self.blocks.load(Ordering::Relaxed);
        loop {
            if let Some(records) = self.read_blocks(blocks)? {
                self.blocks.store(blocks, Ordering::Relaxed);
                return Ok(records);
            }
            if blocks >= MOST_BLOCKS {
                return Err(NONSENSE);
            }
            blocks *= 2;
        }
    }
}

impl<P: Port> DrivePath for Drive<P> {
    fn execute(&self, command: &DriveCommand) -> Result<Reply, Undelivered> {
        let result = match command {
            DriveCommand::Mutex(op, record) => {
                self.mutex(*op, record).map(|()| Reply::Status(Status::Good))
            }
            DriveCommand::ReadTable => self.read_table().map(Reply::Table),
        };
        match result {
            Ok(reply) => Ok(reply),
            Err(Failure::Drive(status)) => Ok(Reply::Status(status)),
            Err(Failure::Path(undelivered)) => Err(undelivered),
        }
    }
}

fn is_end_marker(data: &[u8]) -> bool {
    data.first_chunk().is_some_and(|block| Record::decode(block).state == State::EndOfTable)
}

/// Whether a record cannot have come from a mutex table. An unknown state may be a newer drive's
/// and counts as held; but all known states and classes are small numbers, and rubbish in place
/// of the table must not hide who holds a lock.
fn is_nonsense(record: &Record) -> bool {
    matches!(record.state, State::Other(number) if number > 0xFFFF)
        || matches!(record.class, Class::Other(number) if number > 0xFF)
}

/// Now, in ms since 1970; 0 on a host whose clock says that it is earlier.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use idm_protocol::{HostId, MutexOp, ResourceId, Value, ValueUpdate};
    use std::sync::Mutex;

    type Script = Box<dyn FnMut(&scsi::Cdb, Data<'_>) -> Result<Answer, Undelivered> + Send>;

    /// A port that does as a test says.
    struct Fake {
        script: Mutex<Script>,
        sent: Mutex<Vec<scsi::Cdb>>,
    }

    impl Fake {
        fn drive(
            script: impl FnMut(&scsi::Cdb, Data<'_>) -> Result<Answer, Undelivered> + Send + 'static,
        ) -> Drive<Fake> {
            let fake = Fake { script: Mutex::new(Box::new(script)), sent: Mutex::default() };
            Drive::new(fake, Duration::from_secs(2))
        }
    }

    impl Port for Fake {
        fn execute(
            &self,
            cdb: &scsi::Cdb,
            data: Data<'_>,
            _: Duration,
        ) -> Result<Answer, Undelivered> {
            self.sent.lock().unwrap().push(*cdb);
            (self.script.lock().unwrap())(cdb, data)
        }
    }

    fn answer(status: u8, sense: &[u8], transferred: usize) -> Result<Answer, Undelivered> {
        Ok(Answer { status, sense: sense.to_vec(), transferred })
    }

    fn record(number: u32) -> Record {
        let mut id = [1; 64];
        id[..4].copy_from_slice(&number.to_be_bytes());
        Record {
            state: State::Locked,
            modified_ms: 1,
            countdown_ms: 60_000,
            class: Class::Exclusive,
            value_update: ValueUpdate::Keep,
            value: Value::ZERO,
            resource: ResourceId::from_bytes(id),
            metadata: [0; 64],
            host: HostId::from_bytes([7; 32]),
        }
    }

    fn refresh() -> DriveCommand {
        DriveCommand::Mutex(MutexOp::Refresh, record(0))
    }

    /// What a drive with `count` records answers to a read or an inquiry; `filled` blocks get
    /// data, the others are left as they are.
    fn table(
        count: u32,
        filled: usize,
    ) -> impl FnMut(&scsi::Cdb, Data<'_>) -> Result<Answer, Undelivered> + Send {
        move |cdb, data| {
            let Data::In(buffer) = data else { panic!("a read has data from the drive") };
            if cdb[14] == idm_protocol::GROUP_ALL {
                buffer[..2].copy_from_slice(&(count as u16).to_be_bytes());
                return answer(0, &[], RECORD_LEN);
            }
            for (block, number) in buffer.chunks_exact_mut(RECORD_LEN).take(filled).zip(0..) {
                let shown = if number < count { record(number) } else { Record::end_of_table() };
                block.copy_from_slice(&shown.encode());
            }
            answer(0, &[], buffer.len())
        }
    }

    fn records(drive: &Drive<Fake>) -> usize {
        match drive.execute(&DriveCommand::ReadTable) {
            Ok(Reply::Table(records)) => records.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mutex_command_carries_its_record() {
        let drive = Fake::drive(|cdb, data| {
            assert_eq!(*cdb, scsi::mutex(MutexOp::Refresh));
            let Data::Out(bytes) = data else { panic!("a mutex command has a payload") };
            let sent = Record::decode(bytes.first_chunk().unwrap());
            assert!(sent.modified_ms > 1_700_000_000_000, "now, in ms since 1970");
            assert_eq!(Record { modified_ms: 1, ..sent }, record(0));
            answer(0, &[], RECORD_LEN)
        });
        assert_eq!(drive.execute(&refresh()), Ok(Reply::Status(Status::Good)));
    }

    #[test]
    fn failures_are_told_apart() {
        type Case = (Result<Answer, Undelivered>, Result<Reply, Undelivered>);
        let gone = Undelivered::NotSent("gone".into());
        let lost = Undelivered::Unknown("lost".into());
        let said = |status| Ok(Reply::Status(status));
        let cases: [Case; 5] = [
            (answer(0x18, &[], 0), said(Status::Conflict)),
            (answer(0x22, &[], 0), said(Status::Terminated)),
            (
                answer(2, &[0x70, 0, 5, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0x20], 0),
                said(Status::Unsupported),
            ),
            (Err(gone.clone()), Err(gone)),
            (Err(lost.clone()), Err(lost)),
        ];
        for (result, reply) in cases {
            let drive = Fake::drive(move |_, _| result.clone());
            assert_eq!(drive.execute(&refresh()), reply);
            assert_eq!(drive.port.sent.lock().unwrap().len(), 1);
            assert_eq!(drive.execute(&DriveCommand::ReadTable), reply);
        }
    }

    #[test]
    fn what_was_put_off_is_sent_again_but_not_for_ever() {
        let mut left = 2;
        let drive = Fake::drive(move |_, _| {
            left -= 1;
            answer(if left >= 0 { 0x08 } else { 0 }, &[], 0)
        });
        assert_eq!(drive.execute(&refresh()), Ok(Reply::Status(Status::Good)));
        assert_eq!(drive.port.sent.lock().unwrap().len(), 3);

        let drive = Fake::drive(|_, _| answer(0x28, &[], 0));
        assert_eq!(drive.execute(&refresh()), Ok(Reply::Status(Status::TryAgain)));
        assert_eq!(drive.port.sent.lock().unwrap().len(), PAUSES.len() + 1);
    }

    #[test]
    fn a_table_ends_at_its_marker() {
        for count in [0, 1, 127] {
            assert_eq!(records(&Fake::drive(table(count, usize::MAX))), count as usize);
        }
    }

    #[test]
    fn a_longer_table_is_read_again_and_the_size_remembered() {
        let drive = Fake::drive(table(300, usize::MAX));
        assert_eq!(records(&drive), 300);
        assert_eq!(drive.port.sent.lock().unwrap().len(), 3);
        assert_eq!(records(&drive), 300);
        assert_eq!(drive.port.sent.lock().unwrap().len(), 4);
        // Exactly full: no marker fits, so one more block has to be looked at.
        assert_eq!(records(&Fake::drive(table(128, usize::MAX))), 128);
    }

    #[test]
    fn a_table_without_end_is_refused() {
        let drive = Fake::drive(table(u32::MAX, usize::MAX));
        assert_eq!(drive.execute(&DriveCommand::ReadTable), Ok(Reply::Status(Status::Failed)));
    }

    #[test]
    fn an_unfilled_rest_is_checked_against_the_count() {
        // 128 of 128 records, then nothing: complete.
        assert_eq!(records(&Fake::drive(table(128, 128))), 128);
        // 128 of 200 records: the others may be anybody's.
        let drive = Fake::drive(table(200, 128));
        assert_eq!(drive.execute(&DriveCommand::ReadTable), Ok(Reply::Status(Status::Failed)));
    }

    #[test]
    fn short_and_nonsense_data_is_refused() {
        for transferred in [0, 1, 511, 513, usize::MAX] {
            let drive = Fake::drive(move |_, _| answer(0, &[], transferred));
            assert_eq!(
                drive.execute(&DriveCommand::ReadTable),
                Ok(Reply::Status(Status::Failed)),
                "{transferred} bytes"
            );
        }
        let drive = Fake::drive(|_, data| {
            if let Data::In(buffer) = data {
                buffer.fill(0xA5);
                return answer(0, &[], buffer.len());
            }
            answer(0, &[], 0)
        });
        assert_eq!(drive.execute(&DriveCommand::ReadTable), Ok(Reply::Status(Status::Failed)));
    }
}
