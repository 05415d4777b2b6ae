//! A disk with In-Drive Mutexes: what the drive model does not know, which is disk data.

use crate::lock;
use idm_emulator::{Drive, DriveTime, Profile, ScsiReply, is_mutex_command, kind, text};
use idm_protocol::{MutexOp, RECORD_LEN, Record, Status, scsi};
use nix::fcntl::{FallocateFlags, fallocate};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bytes of a logical block.
pub const BLOCK: u64 = 512;
/// The most blocks that one command may move: 4 MiB, more than Linux asks for.
const MOST_BLOCKS: u64 = 8192;
/// Events of mutex commands that are kept.
const MOST_EVENTS: usize = 100_000;

/// Sense data in fixed form (SPC-4), which is what the disk commands answer with.
fn check(key: u8, asc: u8, ascq: u8) -> ScsiReply {
    let mut sense = vec![0; 18];
    sense[0] = 0x70;
    sense[2] = key;
    sense[7] = 10;
    sense[12] = asc;
    sense[13] = ascq;
    ScsiReply { status: scsi::status::CHECK_CONDITION, sense, data: Vec::new() }
}

fn good(mut data: Vec<u8>, allocation: u64) -> ScsiReply {
    data.truncate(usize::try_from(allocation).unwrap_or(usize::MAX));
    ScsiReply { data, ..ScsiReply::default() }
}

fn out_of_range() -> ScsiReply {
    check(0x05, 0x21, 0)
}

fn invalid_field() -> ScsiReply {
    check(0x05, 0x24, 0)
}

fn short_data() -> ScsiReply {
    check(0x05, 0x1A, 0)
}

fn medium_error(error: &io::Error, asc: u8) -> ScsiReply {
    eprintln!("disk data: {error}");
    check(0x03, asc, 0)
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// A drive with its clock, and its data in a sparse file.
pub struct Disk {
    name: String,
    file: File,
    blocks: u64,
    state: Mutex<State>,
}

struct State {
    drive: Drive,
    clock: Clock,
    events: VecDeque<Event>,
}

/// The drive's clock, from which its leases are counted.
struct Clock {
    /// What it showed at `since`.
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
    status: u8,
}

impl Disk {
    /// A disk whose data is in the file at `path`, which is made where it does not exist and is
    /// `bytes` long.
    pub fn create(name: &str, profile: Profile, path: &Path, bytes: u64) -> io::Result<Disk> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(bytes)?;
        Ok(Disk {
            name: name.to_owned(),
            file,
            blocks: bytes / BLOCK,
            state: Mutex::new(State {
                drive: Drive::with_serial(profile, name),
                clock: Clock { shown: Duration::ZERO, since: Some(Instant::now()) },
                events: VecDeque::new(),
            }),
        })
    }

    /// Its name, which is its serial number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its firmware behaves.
    pub fn profile(&self) -> Profile {
        *lock(&self.state).drive.profile()
    }

    /// Loses the mutex table.
    pub fn reset(&self) {
        lock(&self.state).drive.reset();
    }

    /// Lets the drive's clock, and its leases, jump ahead.
    pub fn skip_time(&self, by: Duration) {
        lock(&self.state).clock.shown += by;
    }

    /// Stops the drive's clock, or lets it run on from where it stands.
    pub fn freeze_clock(&self, frozen: bool) {
        let mut state = lock(&self.state);
        state.clock = Clock { shown: state.clock.elapsed(), since: (!frozen).then(Instant::now) };
    }

    /// The drive's clock.
    pub fn time(&self) -> Duration {
        lock(&self.state).clock.elapsed()
    }

    /// Fills the mutex table with records of hosts that do not exist, until no more fit. Returns how
    /// many there were.
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

    /// The mutex table, for people and tests.
    pub fn table(&self) -> String {
        let state = lock(&self.state);
        text::table(&state.drive, state.clock.now())
    }

    /// Mutex commands that were carried out, oldest first, with the drive's time in seconds.
    pub fn events(&self) -> String {
        let mut text = String::new();
        for event in &lock(&self.state).events {
            let Event { at, port, kind, resource, host, status } = event;
            let at = at.as_secs_f64();
            let _ = writeln!(text, "{at:.6}  {port}  {kind}  {resource}  {host}  {status:02x}");
        }
        text
    }

    /// Executes one command that came by `port`.
    pub fn execute(&self, port: &str, cdb: &[u8], data_out: &[u8]) -> ScsiReply {
        if is_mutex_command(cdb) {
            return self.mutex(port, cdb, data_out);
        }
        let Some(&opcode) = cdb.first() else {
            return invalid_field();
        };
        let Some(cdb) = cdb.first_chunk::<16>() else {
            return invalid_field();
        };
        match opcode {
            0x12 => self.inquiry(cdb),
            0x25 => self.read_capacity_10(),
            0x9E if cdb[1] & 0x1F == 0x10 => self.read_capacity_16(cdb),
            0x1A | 0x5A => mode_sense(cdb),
            0xA0 => report_luns(cdb),
            // READ(6, 10, 16) and WRITE(6, 10, 16); a count of zero means 256 in the short ones.
            0x08 => self.read(big_endian(&cdb[1..4]) & 0x1F_FFFF, short_count(cdb[4])),
            0x0A => self.write(big_endian(&cdb[1..4]) & 0x1F_FFFF, short_count(cdb[4]), data_out),
            0x28 => self.read(big_endian(&cdb[2..6]), big_endian(&cdb[7..9])),
            0x2A | 0x2E => self.write(big_endian(&cdb[2..6]), big_endian(&cdb[7..9]), data_out),
            0x88 => self.read(big_endian(&cdb[2..10]), big_endian(&cdb[10..14])),
            0x8A | 0x8E => self.write(big_endian(&cdb[2..10]), big_endian(&cdb[10..14]), data_out),
            0x42 => self.unmap(data_out),
            // SYNCHRONIZE CACHE (10, 16).
            0x35 | 0x91 => match self.file.sync_data() {
                Ok(()) => ScsiReply::default(),
                Err(error) => medium_error(&error, 0x0C),
            },
            // START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, VERIFY (10, 16) without data.
            0x1B | 0x1E | 0x2F | 0x8F => ScsiReply::default(),
            // TEST UNIT READY, REQUEST SENSE, and the refusal of everything else.
            _ => {
                let mut state = lock(&self.state);
                let now = state.clock.now();
                state.drive.execute(now, cdb, data_out)
            }
        }
    }

    fn mutex(&self, port: &str, cdb: &[u8], data_out: &[u8]) -> ScsiReply {
        let mut state = lock(&self.state);
        let now = state.clock.now();
        let reply = state.drive.execute(now, cdb, data_out);
        let payload = data_out.first_chunk::<RECORD_LEN>().map(Record::decode);
        let event = Event {
            at: Duration::from_micros(now.as_micros()),
            port: port.to_owned(),
            kind: kind(cdb),
            resource: payload.as_ref().map_or("-".to_owned(), |r| r.resource.to_string()),
            host: payload.as_ref().map_or("-".to_owned(), |r| r.host.to_string()),
            status: reply.status,
        };
        if state.events.len() == MOST_EVENTS {
            state.events.pop_front();
        }
        state.events.push_back(event);
        reply
    }

    fn inquiry(&self, cdb: &[u8; 16]) -> ScsiReply {
        let allocation = big_endian(&cdb[3..5]);
        let page = |code: u8, body: Vec<u8>| {
            let mut page = vec![0, code];
            page.extend((body.len() as u16).to_be_bytes());
            page.extend(body);
            good(page, allocation)
        };
        match (cdb[1] & 1 != 0, cdb[2]) {
            (true, 0x00) => {
                page(0x00, vec![0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2, scsi::VERSION_PAGE])
            }
            // Block limits (SBC-3): the longest transfer, and what one UNMAP may have.
            (true, 0xB0) => {
                let mut body = vec![0; 60];
                body[4..8].copy_from_slice(&(MOST_BLOCKS as u32).to_be_bytes());
                body[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
                body[20..24].copy_from_slice(&255u32.to_be_bytes());
                page(0xB0, body)
            }
            // Block device characteristics: non-rotating.
            (true, 0xB1) => {
                let mut body = vec![0; 60];
                body[1] = 1;
                page(0xB1, body)
            }
            // Logical block provisioning: UNMAP, and unmapped blocks read as zeros.
            (true, 0xB2) => page(0xB2, vec![0, 0x84, 0x02, 0]),
            _ => {
                let mut state = lock(&self.state);
                let now = state.clock.now();
                state.drive.execute(now, cdb, &[])
            }
        }
    }

    fn read_capacity_10(&self) -> ScsiReply {
        let last = u32::try_from(self.blocks - 1).unwrap_or(u32::MAX);
        let mut data = last.to_be_bytes().to_vec();
        data.extend((BLOCK as u32).to_be_bytes());
        good(data, 8)
    }

    fn read_capacity_16(&self, cdb: &[u8; 16]) -> ScsiReply {
        let mut data = (self.blocks - 1).to_be_bytes().to_vec();
        data.extend((BLOCK as u32).to_be_bytes());
        data.resize(32, 0);
        // Blocks can be unmapped and read as zeros then.
        data[14] = 0xC0;
        good(data, big_endian(&cdb[10..14]))
    }

    /// The bytes that a range of blocks has in the file.
    fn range(&self, first: u64, count: u64) -> Option<(u64, usize)> {
        let end = first.checked_add(count)?;
        let fits = end <= self.blocks && count <= MOST_BLOCKS;
        fits.then_some((first * BLOCK, (count * BLOCK) as usize))
    }

    fn read(&self, first: u64, count: u64) -> ScsiReply {
        let Some((offset, len)) = self.range(first, count) else {
            return out_of_range();
        };
        let mut data = vec![0; len];
        match self.file.read_exact_at(&mut data, offset) {
            Ok(()) => ScsiReply { data, ..ScsiReply::default() },
            Err(error) => medium_error(&error, 0x11),
        }
    }

    fn write(&self, first: u64, count: u64, data: &[u8]) -> ScsiReply {
        let Some((offset, len)) = self.range(first, count) else {
            return out_of_range();
        };
        let Some(data) = data.get(..len) else {
            return short_data();
        };
        match self.file.write_all_at(data, offset) {
            Ok(()) => ScsiReply::default(),
            Err(error) => medium_error(&error, 0x0C),
        }
    }

    /// UNMAP (SBC-3): descriptors of 16 bytes after a header of 8.
    fn unmap(&self, data: &[u8]) -> ScsiReply {
        if data.is_empty() {
            return ScsiReply::default();
        }
        let Some(header) = data.first_chunk::<8>() else {
            return short_data();
        };
        let described = big_endian(&header[2..4]) as usize;
        let Some(descriptors) = data.get(8..8 + described) else {
            return short_data();
        };
        for descriptor in descriptors.chunks_exact(16) {
            let first = big_endian(&descriptor[..8]);
            let count = big_endian(&descriptor[8..12]);
            match first.checked_add(count) {
                Some(end) if end <= self.blocks => {}
                _ => return out_of_range(),
            }
            if count == 0 {
                continue;
            }
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let (offset, len) = ((first * BLOCK) as i64, (count * BLOCK) as i64);
            if let Err(errno) = fallocate(&self.file, hole, offset, len) {
                return medium_error(&errno.into(), 0x0C);
            }
        }
        ScsiReply::default()
    }
}

fn short_count(count: u8) -> u64 {
    if count == 0 { 256 } else { u64::from(count) }
}

/// MODE SENSE (6, 10): the caching page, with the write cache off.
fn mode_sense(cdb: &[u8; 16]) -> ScsiReply {
    let mut caching = vec![0x08, 18];
    caching.resize(20, 0);
    let len = caching.len() as u8;
    // DPOFUA is not set; no block descriptors.
    if cdb[0] == 0x1A {
        let mut data = vec![3 + len, 0, 0, 0];
        data.extend(caching);
        good(data, u64::from(cdb[4]))
    } else {
        let mut data = vec![0, 6 + len, 0, 0, 0, 0, 0, 0];
        data.extend(caching);
        good(data, big_endian(&cdb[7..9]))
    }
}

/// One logical unit, number 0.
fn report_luns(cdb: &[u8; 16]) -> ScsiReply {
    let mut data = vec![0, 0, 0, 8];
    data.resize(16, 0);
    good(data, big_endian(&cdb[6..10]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::by_name("current").unwrap();
        let disk = Disk::create("d0", profile, &dir.path().join("d0"), 1 << 20).unwrap();
        (dir, disk)
    }

    fn cdb(bytes: &[u8]) -> [u8; 16] {
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(bytes);
        cdb
    }

    #[test]
    fn data_is_read_back_until_it_is_unmapped() {
        let (_dir, disk) = disk();
        let data: Vec<u8> = (0..1024).map(|i| i as u8).collect();
        let write = cdb(&[0x2A, 0, 0, 0, 0, 7, 0, 0, 2]);
        assert_eq!(disk.execute("a", &write, &data), ScsiReply::default());
        let read = cdb(&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2]);
        assert_eq!(disk.execute("a", &read, &[]).data, data);
        let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
        list.extend(7u64.to_be_bytes());
        list.extend(1u32.to_be_bytes());
        list.extend([0; 4]);
        assert_eq!(disk.execute("a", &cdb(&[0x42]), &list), ScsiReply::default());
        let back = disk.execute("a", &read, &[]).data;
        assert!(back[..512].iter().all(|&b| b == 0));
        assert_eq!(back[512..], data[512..]);
    }

    #[test]
    fn blocks_past_the_end_are_refused() {
        let (_dir, disk) = disk();
        for read in [
            cdb(&[0x28, 0, 0, 0, 0x08, 0, 0, 0, 1]),
            cdb(&[0x88, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            assert_eq!(disk.execute("a", &read, &[]), out_of_range());
        }
        let write = cdb(&[0x2A, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(disk.execute("a", &write, &[0; 512]), short_data());
    }

    #[test]
    fn the_older_reset_pair_clears_the_table_and_no_data() {
        let (_dir, disk) = disk();
        assert!(disk.fill() > 0);
        assert!(disk.table().lines().count() > 1);
        let read = [0x88, 0, 1, 0, 0, 0, 0, 0x20, 0xFF, 1, 0, 0, 0, 1, 0, 0];
        let reply = disk.execute("a", &read, &[]);
        assert_eq!((reply.status, reply.data.len()), (0, 512));
        let clear = [0x8E, 0, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        assert_eq!(disk.execute("a", &clear, &reply.data), ScsiReply::default());
        assert_eq!(disk.table().lines().count(), 1);
    }

    #[test]
    fn a_frozen_clock_stands_and_runs_on() {
        let (_dir, disk) = disk();
        disk.freeze_clock(true);
        let shown = lock(&disk.state).clock.elapsed();
        disk.skip_time(Duration::from_secs(5));
        assert_eq!(lock(&disk.state).clock.elapsed(), shown + Duration::from_secs(5));
        disk.freeze_clock(false);
        assert!(lock(&disk.state).clock.elapsed() >= shown + Duration::from_secs(5));
    }

    #[test]
    fn pages_say_what_linux_asks_for() {
        let (_dir, disk) = disk();
        let page = |code: u8| disk.execute("a", &cdb(&[0x12, 1, code, 0, 255]), &[]).data;
        let pages = page(0);
        assert_eq!(pages[3] as usize, pages.len() - 4);
        for &code in &pages[4..] {
            assert_eq!(page(code)[1], code);
        }
        assert_eq!(page(0x80)[4..], *b"d0");
        let capacity = disk.execute("a", &cdb(&[0x25]), &[]).data;
        assert_eq!(capacity, [0, 0, 0x07, 0xFF, 0, 0, 2, 0]);
    }
}
