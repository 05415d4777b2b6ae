//! IDM commands and tables, independent of the protocol that a drive speaks.

use super::{Answer, Deadline, DrivePath, RawStatus, ReserveAnswer, ReserveOrder, TransportError};
use crate::sys::clock;
use core::time::Duration;
use idm_protocol::{
    Class, DriveCommand, MutexOp, RECORD_LEN, Record, Reply, State, Status, parse_table,
    record_count,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// The protocol of one kind of drive.
pub trait Protocol: Send + Sync {
    /// Runs one command. Data from the drive goes to the front of an `In` buffer; the rest of the
    /// buffer is unchanged. Time-outs end by the deadline, but the call may take longer where the
    /// kernel still recovers from the error.
    fn execute(
        &self,
        request: Request,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<Completion, CommandError>;

    /// Carries out an order about reservations.
    fn reserve(&self, _: &ReserveOrder, _: &Deadline) -> Result<ReserveAnswer, CommandError> {
        Err(TransportError::NotSent("this path knows no reservations".to_owned()).into())
    }

    /// Makes the drive confirm its identity before the next command: another drive may have taken
    /// its place.
    fn doubt(&self) {}
}

/// A request to a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Changes a mutex. The data is a record.
    Mutex(MutexOp),
    /// Reads the first records of the table, as many as there is room for.
    Table,
    /// Reads the counters of the table.
    Counters,
}

/// The data of a command.
pub enum Data<'a> {
    /// To the drive.
    Out(&'a [u8]),
    /// From the drive.
    In(&'a mut [u8]),
}

impl Data<'_> {
    /// The number of bytes to send, or of bytes that there is room for.
    pub fn size(&self) -> usize {
        match self {
            Data::Out(bytes) => bytes.len(),
            Data::In(bytes) => bytes.len(),
        }
    }

    /// Whether this is more than every kernel moves in one command. Only reads of the table are so
    /// long, and they may be repeated with a shorter length.
    pub(super) fn is_long(&self) -> bool {
        self.size() > PAGE
    }
}

/// The answer of a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Meaning of the answer.
    pub status: Status,
    /// Status in the drive's own protocol.
    pub raw: Option<RawStatus>,
    /// Bytes of data that were transferred.
    pub transferred: usize,
}

/// The reason why no answer of the drive came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The kernel does not move so much data in one command, and sent nothing. Holds its message.
    TooLong(String),
    /// The command was not delivered.
    Transport(TransportError),
}

impl CommandError {
    /// The error for an answer to a command about reservations that cannot be valid.
    pub(super) fn nonsense(what: &str) -> CommandError {
        TransportError::Unknown(format!("the answer to {what} makes no sense")).into()
    }

    /// The error of a step that was not begun, because it could not have ended in time.
    pub(crate) fn too_late(why: &str) -> CommandError {
        TransportError::NotSent(format!("too little time was left{why}")).into()
    }
}

impl From<TransportError> for CommandError {
    fn from(undelivered: TransportError) -> CommandError {
        CommandError::Transport(undelivered)
    }
}

/// Records that the first read of a table asks for: the number of mutexes of the recorded firmware.
const FIRST_BLOCKS: u32 = 128;
/// Records that are read at most (4 MiB). No drive with more than 4000 records is known.
const MOST_BLOCKS: u32 = 8192;
/// Records by which reads are made longer and shorter: a whole page.
const STEP: u32 = (PAGE / RECORD_LEN) as u32;
/// Bytes of a page of memory. Buffers begin at a page: kernels move more data to and from such
/// buffers.
const PAGE: usize = 4096;
/// Pauses before a command that the drive put off is sent again.
const PAUSES: [Duration; 4] = [
    // The first command clears a UNIT ATTENTION.
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(80),
];

/// Reason why a command has no good answer.
enum CommandFailure {
    /// The drive reported an error, with this status of its own.
    Drive(Status, Option<RawStatus>),
    /// The drive did not answer.
    Path(CommandError),
}

/// The failure for data from a drive that cannot be valid.
const NONSENSE: CommandFailure = CommandFailure::Drive(Status::Failed, None);

/// The number of records that one read may ask for.
#[derive(Clone, Copy)]
struct Reach {
    /// A number of records that was read at once.
    possible: u32,
    /// A number of records that cannot be read at once.
    impossible: u32,
}

impl Reach {
    /// The next size to try where the table may be longer than `blocks`; `None` if no longer read
    /// is possible.
    fn longer(self, blocks: u32) -> Option<u32> {
        let doubled = blocks * 2;
        let next = if doubled < self.impossible {
            doubled
        } else {
            (self.possible.max(blocks) + self.impossible) / 2 / STEP * STEP
        };
        (next > blocks && next <= MOST_BLOCKS).then_some(next)
    }

    /// The next size after `blocks` turned out to be impossible.
    fn shorter(&mut self, blocks: u32) -> Option<u32> {
        self.impossible = self.impossible.min(blocks);
        // A size that was possible once need not stay possible: a drive may have come back on
        // another adapter.
        if self.possible >= self.impossible {
            self.possible = 0;
        }
        let next = (self.possible + self.impossible) / 2 / STEP * STEP;
        (next > 0).then_some(next.max(self.possible))
    }
}

/// Result of one read of the table.
enum Read {
    /// All records.
    Whole(Vec<Record>),
    /// These records, and perhaps there are more.
    Part(Vec<Record>),
}

/// A drive that speaks `P`.
pub struct IdmPath<P> {
    protocol: P,
    /// Records to ask for: the number that the last table needed.
    blocks: AtomicU32,
}

impl<P: Protocol> IdmPath<P> {
    /// A drive.
    pub fn new(protocol: P) -> IdmPath<P> {
        IdmPath { protocol, blocks: AtomicU32::new(FIRST_BLOCKS) }
    }

    /// Sends a command, and sends it again where the drive puts it off, as long as its deadline
    /// allows. Returns the number of bytes that were transferred.
    ///
    /// Without time for another try, the drive's answer stands: the drive has not carried the
    /// command out.
    fn send(
        &self,
        request: Request,
        data: &mut Data<'_>,
        deadline: &Deadline,
    ) -> Result<usize, CommandFailure> {
        let start = clock::now();
        let mut pauses = PAUSES.iter();
        let mut put_off = None;
        loop {
            let data = match data {
                Data::Out(bytes) => Data::Out(bytes),
                Data::In(bytes) => Data::In(bytes),
            };
            let answer = match self.protocol.execute(request, data, deadline) {
                Err(CommandError::Transport(TransportError::NotSent(_))) if put_off.is_some() => {
                    return Err(CommandFailure::Drive(Status::TryAgain, put_off.flatten()));
                }
                answer => answer.map_err(CommandFailure::Path)?,
            };
            let raw = answer.raw;
            match answer.status {
                Status::Good => return Ok(answer.transferred),
                Status::TryAgain => match pauses.next() {
                    Some(pause) if clock::now().since(start) + *pause < deadline.step() => {
                        clock::sleep(*pause);
                        put_off = Some(raw);
                    }
                    _ => return Err(CommandFailure::Drive(Status::TryAgain, raw)),
                },
                other => return Err(CommandFailure::Drive(other, raw)),
            }
        }
    }

    fn mutex(
        &self,
        op: MutexOp,
        record: &Record,
        deadline: &Deadline,
    ) -> Result<(), CommandFailure> {
        // Drives ignore the time, but hosts with the older stack use it to choose the unused mutex
        // that they remove.
        let record = Record { modified_ms: wall_clock_ms(), ..record.clone() };
        let payload = Payload(record.encode());
        self.send(Request::Mutex(op), &mut Data::Out(&payload.0), deadline).map(drop)
    }

    /// Reads `blocks` records.
    fn read_blocks(&self, blocks: u32, deadline: &Deadline) -> Result<Read, CommandFailure> {
        let mut buffer = Buffer::new(blocks as usize * RECORD_LEN);
        let transferred = self.send(Request::Table, &mut Data::In(buffer.bytes()), deadline)?;
        let data = buffer.bytes().get(..transferred).ok_or(NONSENSE)?;
        if data.is_empty() || data.len() % RECORD_LEN != 0 {
            return Err(NONSENSE);
        }
        let records = parse_table(data);
        if records.iter().any(is_nonsense) {
            return Err(NONSENSE);
        }
        // An end marker is the proof that nothing is missing. Without one the table may go on:
        // an exact read has none, and there was firmware that left blocks after the 128th unfilled
        // (docs/protocol.md, "Reading the table").
        let end = &data[records.len() * RECORD_LEN..];
        if !end.is_empty() && is_end_marker(end) {
            return Ok(Read::Whole(records));
        }
        if records.len() == blocks as usize {
            return Ok(Read::Part(records));
        }
        // An empty table has a marker as well. A buffer that was never written to holds only zeros,
        // and that must not mean that no host holds a lock.
        if records.is_empty() {
            return Err(NONSENSE);
        }
        if self.count(deadline)? > records.len() {
            return Err(NONSENSE);
        }
        Ok(Read::Whole(records))
    }

    /// The number of records that the drive has counted.
    fn count(&self, deadline: &Deadline) -> Result<usize, CommandFailure> {
        let mut buffer = Buffer::new(RECORD_LEN);
        let transferred = self.send(Request::Counters, &mut Data::In(buffer.bytes()), deadline)?;
        let count = buffer.bytes().get(..transferred).and_then(record_count).ok_or(NONSENSE)?;
        Ok(count.into())
    }

    /// Reads the whole table. There is no way to begin with a later record, so one command must
    /// reach the end.
    fn read_table(&self, deadline: &Deadline) -> Result<Vec<Record>, CommandFailure> {
        let mut blocks = self.blocks.load(Ordering::Relaxed);
        let mut reach = Reach { possible: 0, impossible: MOST_BLOCKS + STEP };
        // The kernel's message for a read that was too long for it.
        let mut refused = None;
        loop {
            let records = match self.read_blocks(blocks, deadline) {
                Ok(Read::Whole(records)) => records,
                Ok(Read::Part(records)) => {
                    reach.possible = blocks;
                    if let Some(longer) = reach.longer(blocks) {
                        blocks = longer;
                        continue;
                    }
                    // The longest possible read may still have returned the whole table.
                    if self.count(deadline)? > records.len() {
                        return Err(refused.map_or(NONSENSE, |why| too_many(blocks, why)));
                    }
                    records
                }
                Err(CommandFailure::Path(CommandError::TooLong(why))) => {
                    match reach.shorter(blocks) {
                        Some(shorter) => {
                            blocks = shorter;
                            refused = Some(why);
                            continue;
                        }
                        None => return Err(CommandFailure::Path(CommandError::TooLong(why))),
                    }
                }
                Err(other) => return Err(other),
            };
            self.blocks.store(blocks, Ordering::Relaxed);
            return Ok(records);
        }
    }
}

impl<P: Protocol> DrivePath for IdmPath<P> {
    fn reserve(
        &self,
        order: &ReserveOrder,
        deadline: &Deadline,
    ) -> Result<ReserveAnswer, TransportError> {
        self.protocol.reserve(order, deadline).map_err(|error| match error {
            CommandError::Transport(undelivered) => undelivered,
            CommandError::TooLong(why) => TransportError::NotSent(why),
        })
    }

    fn doubt(&self) {
        self.protocol.doubt();
    }

    fn execute(
        &self,
        command: &DriveCommand,
        deadline: &Deadline,
    ) -> Result<Answer, TransportError> {
        let result = match command {
            DriveCommand::Mutex(op, record) => {
                self.mutex(*op, record, deadline).map(|()| Reply::Status(Status::Good))
            }
            DriveCommand::ReadTable => {
                self.read_table(deadline).map(|records| Reply::Table(records.into()))
            }
        };
        match result {
            Ok(reply) => Ok(reply.into()),
            Err(CommandFailure::Drive(status, raw)) => {
                Ok(Answer { reply: Reply::Status(status), raw })
            }
            Err(CommandFailure::Path(CommandError::Transport(undelivered))) => Err(undelivered),
            Err(CommandFailure::Path(CommandError::TooLong(why))) => {
                Err(TransportError::NotSent(why))
            }
        }
    }
}

/// The error for a table that the kernel does not read to its end. Another path to the drive may be
/// able to, so this is an error of the path.
fn too_many(blocks: u32, why: String) -> CommandFailure {
    CommandFailure::Path(CommandError::Transport(TransportError::NotSent(format!(
        "{why}; no more than {blocks} records are read at once, and the drive's mutex table has \
         more: reach it by an adapter that takes longer commands, or keep fewer locks on it"
    ))))
}

/// A record aligned to a page, as the contents of a [`Buffer`] are.
#[repr(align(4096))]
struct Payload([u8; RECORD_LEN]);

/// Memory aligned to a page.
pub(super) struct Buffer {
    memory: Vec<u8>,
    len: usize,
}

impl Buffer {
    pub(super) fn new(len: usize) -> Buffer {
        Buffer { memory: vec![0; len + PAGE], len }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let start = self.memory.as_ptr().align_offset(PAGE).min(PAGE);
        &mut self.memory[start..start + self.len]
    }
}

fn is_end_marker(data: &[u8]) -> bool {
    data.first_chunk().is_some_and(|block| Record::decode(block).state == State::EndOfTable)
}

/// Whether a record cannot have come from a mutex table. An unknown state may belong to a newer
/// drive and counts as held; but all known states and classes are small numbers, and garbage in
/// place of the table must not hide the holder of a lock.
fn is_nonsense(record: &Record) -> bool {
    matches!(record.state, State::Other(number) if number > 0xFFFF)
        || matches!(record.class, Class::Other(number) if number > 0xFF)
}

/// The current time in ms since 1970; 0 on a host whose clock shows an earlier time.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::virtual_time;
    use crate::transport::soon;
    use idm_protocol::{HostId, ResourceId, Value, ValueUpdate};
    use std::sync::Mutex;

    type Script = Box<dyn FnMut(Request, Data<'_>) -> Result<Completion, CommandError> + Send>;

    /// A drive whose answers a test defines.
    struct Fake {
        script: Mutex<Script>,
        sent: Mutex<Vec<Request>>,
    }

    impl Fake {
        fn drive<S>(script: S) -> IdmPath<Fake>
        where
            S: FnMut(Request, Data<'_>) -> Result<Completion, CommandError> + Send + 'static,
        {
            let fake = Fake { script: Mutex::new(Box::new(script)), sent: Mutex::default() };
            IdmPath::new(fake)
        }
    }

    impl Protocol for Fake {
        fn execute(
            &self,
            request: Request,
            data: Data<'_>,
            _: &Deadline,
        ) -> Result<Completion, CommandError> {
            if let Data::In(bytes) = &data {
                assert_eq!(bytes.as_ptr() as usize % PAGE, 0);
            }
            self.sent.lock().unwrap().push(request);
            (self.script.lock().unwrap())(request, data)
        }
    }

    fn answer(status: Status, transferred: usize) -> Result<Completion, CommandError> {
        Ok(Completion { status, raw: None, transferred })
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

    /// Answers of a drive with `count` records to a read or an inquiry; `filled` blocks get data,
    /// the others stay as they are.
    fn table(
        count: u32,
        filled: usize,
    ) -> impl FnMut(Request, Data<'_>) -> Result<Completion, CommandError> + Send {
        limited(count, filled, usize::MAX)
    }

    /// The same with a kernel that moves no more than `most` blocks at once.
    fn limited(
        count: u32,
        filled: usize,
        most: usize,
    ) -> impl FnMut(Request, Data<'_>) -> Result<Completion, CommandError> + Send {
        move |request, data| {
            let Data::In(buffer) = data else { panic!("a read has data from the drive") };
            if request == Request::Counters {
                buffer[..2].copy_from_slice(&(count as u16).to_be_bytes());
                return answer(Status::Good, RECORD_LEN);
            }
            if buffer.len() / RECORD_LEN > most {
                return Err(CommandError::TooLong("sdx: EINVAL".into()));
            }
            for (block, number) in buffer.chunks_exact_mut(RECORD_LEN).take(filled).zip(0..) {
                let shown = if number < count { record(number) } else { Record::end_of_table() };
                block.copy_from_slice(&shown.encode());
            }
            answer(Status::Good, buffer.len())
        }
    }

    fn records(drive: &IdmPath<Fake>) -> usize {
        match drive.execute(&DriveCommand::ReadTable, &soon()) {
            Ok(Answer { reply: Reply::Table(records), .. }) => records.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mutex_command_carries_its_record() {
        let drive = Fake::drive(|request, data| {
            assert_eq!(request, Request::Mutex(MutexOp::Refresh));
            let Data::Out(bytes) = data else { panic!("a mutex command has a payload") };
            assert_eq!((bytes.len(), bytes.as_ptr() as usize % PAGE), (RECORD_LEN, 0));
            let sent = Record::decode(bytes.first_chunk().unwrap());
            assert!(sent.modified_ms > 1_700_000_000_000, "now, in ms since 1970");
            assert_eq!(Record { modified_ms: 1, ..sent }, record(0));
            answer(Status::Good, RECORD_LEN)
        });
        assert_eq!(drive.execute(&refresh(), &soon()), Ok(Reply::Status(Status::Good).into()));
    }

    #[test]
    fn failures_are_told_apart() {
        type Case = (Result<Completion, CommandError>, Result<Answer, TransportError>);
        let gone = TransportError::NotSent("gone".into());
        let lost = TransportError::Unknown("lost".into());
        let cases: [Case; 4] = [
            (answer(Status::Conflict, 0), Ok(Reply::Status(Status::Conflict).into())),
            (answer(Status::Unsupported, 0), Ok(Reply::Status(Status::Unsupported).into())),
            (Err(CommandError::Transport(gone.clone())), Err(gone)),
            (Err(CommandError::Transport(lost.clone())), Err(lost)),
        ];
        for (result, reply) in cases {
            let drive = Fake::drive(move |_, _| result.clone());
            assert_eq!(drive.execute(&refresh(), &soon()), reply);
            assert_eq!(drive.protocol.sent.lock().unwrap().len(), 1);
            assert_eq!(drive.execute(&DriveCommand::ReadTable, &soon()), reply);
        }
    }

    #[test]
    fn what_was_put_off_is_sent_again_but_not_for_ever() {
        let mut left = 2;
        let drive = Fake::drive(move |_, _| {
            left -= 1;
            answer(if left >= 0 { Status::TryAgain } else { Status::Good }, 0)
        });
        assert_eq!(drive.execute(&refresh(), &soon()), Ok(Reply::Status(Status::Good).into()));
        assert_eq!(drive.protocol.sent.lock().unwrap().len(), 3);

        let drive = Fake::drive(|_, _| answer(Status::TryAgain, 0));
        assert_eq!(drive.execute(&refresh(), &soon()), Ok(Reply::Status(Status::TryAgain).into()));
        assert_eq!(drive.protocol.sent.lock().unwrap().len(), PAUSES.len() + 1);
    }

    /// A drive where every step takes `takes`, as long as its time-out allows.
    fn slow(
        takes: Duration,
        mut answers: impl FnMut(Data<'_>) -> Completion + Send + 'static,
    ) -> Slow {
        let script = move |deadline: &Deadline, data: Data<'_>| {
            let timeout =
                deadline.timeout(Duration::from_secs(5)).ok_or(CommandError::too_late(""))?;
            clock::sleep(takes.min(timeout));
            if takes <= timeout { Ok(answers(data)) } else { Err(lost()) }
        };
        Slow(Mutex::new(Box::new(script)))
    }

    type SlowScript =
        Box<dyn FnMut(&Deadline, Data<'_>) -> Result<Completion, CommandError> + Send>;

    struct Slow(Mutex<SlowScript>);

    impl Protocol for Slow {
        fn execute(
            &self,
            _: Request,
            data: Data<'_>,
            deadline: &Deadline,
        ) -> Result<Completion, CommandError> {
            (self.0.lock().unwrap())(deadline, data)
        }
    }

    fn lost() -> CommandError {
        TransportError::Unknown("no answer in time".into()).into()
    }

    #[test]
    fn what_was_put_off_is_not_sent_again_when_too_little_time_is_left() {
        let time = virtual_time();
        let put_off =
            |_: Data<'_>| Completion { status: Status::TryAgain, raw: None, transferred: 0 };
        let drive = IdmPath::new(slow(Duration::from_secs(6), put_off));
        // 12 s in all: 6 s and 5.99 s, and no third try.
        assert_eq!(drive.execute(&refresh(), &soon()), Ok(Reply::Status(Status::TryAgain).into()));
        assert_eq!(clock::now().since(time.begin()), Duration::from_secs(12));
        // Begun late: the drive's own answer stands where there is no time for a second try.
        time.set(Duration::ZERO);
        let deadline = soon();
        time.set(Duration::from_secs(4));
        assert_eq!(
            drive.execute(&refresh(), &deadline),
            Ok(Reply::Status(Status::TryAgain).into())
        );
        assert_eq!(clock::now().since(time.begin()), Duration::from_secs(10));
    }

    #[test]
    fn a_table_that_is_read_again_has_no_more_time_than_one() {
        let time = virtual_time();
        let endless = |data: Data<'_>| {
            let Data::In(room) = data else { panic!("a read has data from the drive") };
            let records = room.chunks_exact_mut(RECORD_LEN).zip(0..);
            records.for_each(|(block, number)| block.copy_from_slice(&record(number).encode()));
            Completion { status: Status::Good, raw: None, transferred: room.len() }
        };
        let drive = IdmPath::new(slow(Duration::from_secs(3), endless));
        let read = drive.execute(&DriveCommand::ReadTable, &soon());
        assert!(matches!(read, Err(TransportError::NotSent(_))), "{read:?}");
        assert_eq!(clock::now().since(time.begin()), Duration::from_secs(9));
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
        assert_eq!(drive.protocol.sent.lock().unwrap().len(), 3);
        assert_eq!(records(&drive), 300);
        assert_eq!(drive.protocol.sent.lock().unwrap().len(), 4);
        // Exactly full: no marker fits, so one more block has to be read.
        assert_eq!(records(&Fake::drive(table(128, usize::MAX))), 128);
    }

    #[test]
    fn a_table_without_end_is_refused() {
        let drive = Fake::drive(table(u32::MAX, usize::MAX));
        assert_eq!(
            drive.execute(&DriveCommand::ReadTable, &soon()),
            Ok(Reply::Status(Status::Failed).into())
        );
    }

    /// Some limits are multiples neither of the requested size nor of each other.
    #[test]
    fn a_table_is_read_as_long_as_the_kernel_allows() {
        for most in [8, 64, 127, 128, 200, 256, 1008, 1016, 4096] {
            for count in [0, 1, 7, most - 1, most] {
                // A table that fits into whole pages can be read; one that fits exactly has no end
                // marker.
                if count > most / 8 * 8 {
                    continue;
                }
                let drive = Fake::drive(limited(count as u32, usize::MAX, most));
                assert_eq!(records(&drive), count, "{count} of {most}");
                assert_eq!(records(&drive), count);
            }
            // Part of a table must never be taken for the whole.
            for count in [most + 1, most + 100, 8000] {
                let drive = Fake::drive(limited(count as u32, usize::MAX, most));
                let Err(TransportError::NotSent(why)) =
                    drive.execute(&DriveCommand::ReadTable, &soon())
                else {
                    panic!("{count} of {most}");
                };
                assert!(why.starts_with("sdx: EINVAL; no more than "), "{why}");
            }
        }
        let drive = Fake::drive(limited(0, usize::MAX, 0));
        let Err(TransportError::NotSent(why)) = drive.execute(&DriveCommand::ReadTable, &soon())
        else {
            panic!("nothing can be read");
        };
        assert_eq!(why, "sdx: EINVAL");
    }

    #[test]
    fn an_unfilled_rest_is_checked_against_the_count() {
        // 128 of 128 records, then nothing: complete.
        assert_eq!(records(&Fake::drive(table(128, 128))), 128);
        // 128 of 200 records: any host may hold the others.
        let drive = Fake::drive(table(200, 128));
        assert_eq!(
            drive.execute(&DriveCommand::ReadTable, &soon()),
            Ok(Reply::Status(Status::Failed).into())
        );
    }

    #[test]
    fn zeros_are_no_empty_table() {
        let drive = Fake::drive(table(0, 0));
        assert_eq!(
            drive.execute(&DriveCommand::ReadTable, &soon()),
            Ok(Reply::Status(Status::Failed).into())
        );
    }

    #[test]
    fn short_and_nonsense_data_is_refused() {
        for transferred in [0, 1, 511, 513, usize::MAX] {
            let drive = Fake::drive(move |_, _| answer(Status::Good, transferred));
            assert_eq!(
                drive.execute(&DriveCommand::ReadTable, &soon()),
                Ok(Reply::Status(Status::Failed).into()),
                "{transferred} bytes"
            );
        }
        let drive = Fake::drive(|_, data| {
            if let Data::In(buffer) = data {
                buffer.fill(0xA5);
                return answer(Status::Good, buffer.len());
            }
            answer(Status::Good, 0)
        });
        assert_eq!(
            drive.execute(&DriveCommand::ReadTable, &soon()),
            Ok(Reply::Status(Status::Failed).into())
        );
    }
}
