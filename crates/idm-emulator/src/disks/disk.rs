//! A disk with In-Drive Mutexes: it adds a clock, disk data and a history of commands to the drive
//! model.

use super::reserved::DiskReservations;
use crate::sync::lock;
use crate::{Drive, DriveTime, Profile, text};
use idm_protocol::{MutexOp, Record, Status};
use nix::fcntl::{FallocateFlags, fallocate};
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Length of a logical block, in bytes.
pub const BLOCK: u64 = 512;
/// The most blocks that one command may move: 4 MiB, more than Linux requests.
pub const MOST_BLOCKS: u64 = 8192;
/// The most events of mutex commands that are kept.
const MOST_EVENTS: usize = 100_000;
/// The most changes of data that are kept. With more, the writer of a block is no longer known.
const MOST_CHANGES: usize = 1_000_000;

/// The interface between machines and a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// SCSI commands.
    Scsi,
    /// NVMe commands.
    Nvme,
}

/// The reason why data was not moved.
#[derive(Debug)]
pub enum DataError {
    /// The blocks do not exist, or are too many.
    OutOfRange,
    /// Less data came than the command announced.
    Short,
    /// The file with the data failed.
    Medium(io::Error),
}

impl From<io::Error> for DataError {
    fn from(error: io::Error) -> DataError {
        DataError::Medium(error)
    }
}

/// A drive with its clock, and its data in a sparse file.
pub struct Disk {
    name: String,
    interface: Interface,
    file: File,
    blocks: u64,
    state: Mutex<DiskState>,
    pub(super) reservations: DiskReservations,
}

struct DiskState {
    drive: Drive,
    clock: Clock,
    events: VecDeque<Event>,
    changes: Vec<Change>,
}

/// The drive's clock, which its leases use.
struct Clock {
    /// Its reading at `since`.
    shown: Duration,
    /// `None` while it is frozen.
    since: Option<Instant>,
}

impl Clock {
    fn elapsed(&self) -> Duration {
        self.shown + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn now(&self) -> DriveTime {
        DriveTime::from_micros(u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// A mutex command that was carried out.
struct Event {
    at: Duration,
    port: String,
    kind: &'static str,
    resource: String,
    host: String,
    status: u16,
}

/// A range of blocks that was written or unmapped.
struct Change {
    /// The moment when all of it was done.
    at: Duration,
    port: String,
    first: u64,
    count: u64,
}

impl Disk {
    /// A disk with its data in the file at `path`; a missing file is created. The file gets `bytes`
    /// bytes.
    pub fn create(
        name: &str,
        interface: Interface,
        profile: Profile,
        path: &Path,
        bytes: u64,
    ) -> io::Result<Disk> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(bytes)?;
        Ok(Disk {
            name: name.to_owned(),
            interface,
            file,
            blocks: bytes / BLOCK,
            state: Mutex::new(DiskState {
                drive: Drive::with_serial(profile, name),
                clock: Clock { shown: Duration::ZERO, since: Some(Instant::now()) },
                events: VecDeque::new(),
                changes: Vec::new(),
            }),
            reservations: DiskReservations::default(),
        })
    }

    /// The disk's name, which is its serial number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface between machines and this disk.
    pub fn interface(&self) -> Interface {
        self.interface
    }

    /// The number of blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The behaviour of the firmware.
    pub fn profile(&self) -> Profile {
        *lock(&self.state).drive.profile()
    }

    /// Loses the mutex table.
    pub fn reset(&self) {
        lock(&self.state).drive.reset();
    }

    /// Moves the drive's clock forward, and its leases with it.
    pub fn skip_time(&self, by: Duration) {
        lock(&self.state).clock.shown += by;
    }

    /// Stops the drive's clock, or lets it run on from its present reading.
    pub fn freeze_clock(&self, frozen: bool) {
        let mut state = lock(&self.state);
        state.clock = Clock { shown: state.clock.elapsed(), since: (!frozen).then(Instant::now) };
    }

    /// The reading of the drive's clock.
    pub fn time(&self) -> Duration {
        lock(&self.state).clock.elapsed()
    }

    /// Fills the mutex table with records of hosts that do not exist, until no more fit. Returns
    /// their number.
    pub fn fill(&self) -> usize {
        let mut state = lock(&self.state);
        let now = state.clock.now();
        let mut count: usize = 0;
        loop {
            let mut payload = Record::end_of_table();
            payload.countdown_ms = 3_600_000;
            let mut resource = [0xEE; 64];
            resource[56..].copy_from_slice(&(count as u64).to_be_bytes());
            let mut host = [0xEE; 32];
            host[24..].copy_from_slice(&(count as u64).to_be_bytes());
            payload.resource = idm_protocol::ResourceId::from_bytes(resource);
            payload.host = idm_protocol::HostId::from_bytes(host);
            payload.class = idm_protocol::Class::Exclusive;
            let command = idm_protocol::DriveCommand::Mutex(MutexOp::Trylock, payload);
            match state.drive.perform(now, &command) {
                idm_protocol::Reply::Status(Status::Good) => count += 1,
                _ => return count,
            }
        }
    }

    /// The mutex table as text, for people and tests.
    pub fn table(&self) -> String {
        let state = lock(&self.state);
        text::table(&state.drive, state.clock.now())
    }

    /// Executed mutex commands, oldest first, with the drive's time in seconds.
    pub fn events(&self) -> String {
        let mut text = String::new();
        for event in &lock(&self.state).events {
            let Event { at, port, kind, resource, host, status } = event;
            let at = at.as_secs_f64();
            let _ = writeln!(text, "{at:.6}  {port}  {kind}  {resource}  {host}  {status:02x}");
        }
        text
    }

    /// Ranges of blocks that were written or unmapped, oldest first, with the drive's time in
    /// seconds, the port, the first block and the count. An error if not all of them are known.
    pub fn changes(&self) -> Result<String, String> {
        let state = lock(&self.state);
        if state.changes.len() == MOST_CHANGES {
            return Err(format!("there were more than the {MOST_CHANGES} that are kept"));
        }
        let mut text = String::new();
        for Change { at, port, first, count } in &state.changes {
            let _ = writeln!(text, "{:.6}  {port}  {first}  {count}", at.as_secs_f64());
        }
        Ok(text)
    }

    /// Calls `act` with the drive and its present time.
    pub fn with_drive<R>(&self, act: impl FnOnce(&mut Drive, DriveTime) -> R) -> R {
        let mut state = lock(&self.state);
        let now = state.clock.now();
        act(&mut state.drive, now)
    }

    /// Lets the drive execute a mutex command that came by `port`, and records it. `data_out` is
    /// the command's data, and `act` returns the answer and its status.
    pub fn mutex<R>(
        &self,
        port: &str,
        kind: &'static str,
        data_out: &[u8],
        act: impl FnOnce(&mut Drive, DriveTime) -> (R, u16),
    ) -> R {
        let mut state = lock(&self.state);
        let now = state.clock.now();
        let (reply, status) = act(&mut state.drive, now);
        let payload = data_out.first_chunk().map(Record::decode);
        let name =
            |name: Option<&dyn fmt::Display>| name.map_or("-".to_owned(), |name| name.to_string());
        let event = Event {
            at: Duration::from_micros(now.as_micros()),
            port: port.to_owned(),
            kind,
            resource: name(payload.as_ref().map(|record| &record.resource as &dyn fmt::Display)),
            host: name(payload.as_ref().map(|record| &record.host as &dyn fmt::Display)),
            status,
        };
        if state.events.len() == MOST_EVENTS {
            state.events.pop_front();
        }
        state.events.push_back(event);
        reply
    }

    /// The bytes of a range of blocks in the file.
    fn range(&self, first: u64, count: u64) -> Result<(u64, u64), DataError> {
        match first.checked_add(count) {
            Some(end) if end <= self.blocks => Ok((first * BLOCK, count * BLOCK)),
            _ => Err(DataError::OutOfRange),
        }
    }

    fn transfer(&self, first: u64, count: u64) -> Result<(u64, usize), DataError> {
        let (offset, len) = self.range(first, count)?;
        match usize::try_from(len) {
            Ok(len) if count <= MOST_BLOCKS => Ok((offset, len)),
            _ => Err(DataError::OutOfRange),
        }
    }

    /// Reads blocks.
    pub fn read(&self, first: u64, count: u64) -> Result<Vec<u8>, DataError> {
        let (offset, len) = self.transfer(first, count)?;
        let mut data = vec![0; len];
        self.file.read_exact_at(&mut data, offset)?;
        Ok(data)
    }

    /// Records a change after it was made. Its time is the moment when all of it was done, so that
    /// a write during which another host gets a lock counts as later.
    fn changed(&self, port: &str, first: u64, count: u64) {
        let mut state = lock(&self.state);
        if state.changes.len() < MOST_CHANGES {
            let at = Duration::from_micros(state.clock.now().as_micros());
            state.changes.push(Change { at, port: port.to_owned(), first, count });
        }
    }

    /// Writes blocks that came by `port`.
    pub fn write(&self, port: &str, first: u64, count: u64, data: &[u8]) -> Result<(), DataError> {
        let (offset, len) = self.transfer(first, count)?;
        let data = data.get(..len).ok_or(DataError::Short)?;
        let written = self.file.write_all_at(data, offset);
        // A failed write may also have changed some of them.
        self.changed(port, first, count);
        Ok(written?)
    }

    /// Frees blocks on behalf of `port`; afterwards they read as zeros.
    pub fn unmap(&self, port: &str, first: u64, count: u64) -> Result<(), DataError> {
        let (offset, len) = self.range(first, count)?;
        if len == 0 {
            return Ok(());
        }
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let number = |bytes| i64::try_from(bytes).map_err(|_| DataError::OutOfRange);
        let done = fallocate(&self.file, hole, number(offset)?, number(len)?);
        self.changed(port, first, count);
        done.map_err(|errno| DataError::Medium(errno.into()))
    }

    /// Makes written data durable.
    pub fn flush(&self) -> Result<(), DataError> {
        Ok(self.file.sync_data()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d0");
        let disk = Disk::create("d0", Interface::Nvme, Profile::current(), &path, 1 << 20).unwrap();
        (dir, disk)
    }

    #[test]
    fn data_is_read_back_until_it_is_unmapped() {
        let (_dir, disk) = disk();
        let data: Vec<u8> = (0..1024).map(|i| i as u8).collect();
        disk.write("a.0", 7, 2, &data).unwrap();
        assert_eq!(disk.read(7, 2).unwrap(), data);
        disk.unmap("a.1", 7, 1).unwrap();
        let back = disk.read(7, 2).unwrap();
        assert!(back[..512].iter().all(|&b| b == 0));
        assert_eq!(back[512..], data[512..]);
        disk.unmap("a.1", 0, 0).unwrap();
        disk.flush().unwrap();
        let changes = disk.changes().unwrap();
        let ranges: Vec<_> = changes.lines().map(|line| line.split_once("  ").unwrap().1).collect();
        assert_eq!(ranges, ["a.0  7  2", "a.1  7  1"]);
    }

    #[test]
    fn blocks_past_the_end_are_refused() {
        let (_dir, disk) = disk();
        let last = disk.blocks();
        for (first, count) in [(last, 1), (last - 1, 2), (u64::MAX, 1), (0, MOST_BLOCKS + 1)] {
            assert!(matches!(disk.read(first, count), Err(DataError::OutOfRange)));
            assert!(matches!(disk.write("a.0", first, count, &[]), Err(DataError::OutOfRange)));
            assert!(matches!(disk.unmap("a.1", first, count), Err(DataError::OutOfRange)));
        }
        assert!(matches!(disk.write("a.0", 0, 2, &[0; 512]), Err(DataError::Short)));
    }

    #[test]
    fn a_frozen_clock_stands_and_runs_on() {
        let (_dir, disk) = disk();
        disk.freeze_clock(true);
        let shown = disk.time();
        disk.skip_time(Duration::from_secs(5));
        assert_eq!(disk.time(), shown + Duration::from_secs(5));
        disk.freeze_clock(false);
        assert!(disk.time() >= shown + Duration::from_secs(5));
    }
}
