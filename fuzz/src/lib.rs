//! Fuzz targets: data from a drive, from the kernel or from a file may be anything, and must never
//! cause a panic or be mistaken for something else.
//!
//! `tests/corpus.rs` runs them on kept inputs and on many inputs derived from those;
//! `scripts/fuzz.sh` searches for new ones with libFuzzer.

use idm_engine::{
    DriveRef, Event, Instant, Lock, LockConfig, Member, Outcome, Request as Wish, Timing,
};
use idm_protocol::{
    Class, DriveCommand, HostId, Limit, Metadata, Mode, MutexOp, RECORD_LEN, Record, Reply,
    ResourceId, State, Status, Value, ValueUpdate, nvme, parse_table, record_count, scsi,
};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::fencing::safe_note;
use lvmlockd_idm::recovery::active::lv_of;
use lvmlockd_idm::state::host_id;
use lvmlockd_idm::state::note;
use lvmlockd_idm::state::store::{self, SavedLock, SavedLockspace, SavedNote, Store};
use lvmlockd_idm::topology::{Topology, concerns_disks, designator, device_designator};
use lvmlockd_idm::transport::drive::{CommandError, Completion, Data, IdmPath, Protocol, Request};
use lvmlockd_idm::transport::{Deadline, DrivePath, Limits};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name, also of its corpus.
    pub name: &'static str,
    /// Function that panics if something is wrong.
    pub check: fn(&[u8]),
    /// Number of inputs that can be tried in the time of a test.
    pub made: usize,
}

/// All targets.
pub const TARGETS: [Target; 13] = [
    Target { name: "scsi_status", check: scsi_status, made: 5_000 },
    Target { name: "nvme_answers", check: nvme_answers, made: 5_000 },
    Target { name: "table", check: table, made: 5_000 },
    Target { name: "read_table", check: read_table, made: 200 },
    Target { name: "engine_replies", check: engine_replies, made: 2_000 },
    Target { name: "vpd83", check: vpd83, made: 5_000 },
    Target { name: "sysfs", check: sysfs, made: 200 },
    Target { name: "uevent", check: uevent, made: 5_000 },
    Target { name: "host_id_file", check: host_id_file, made: 5_000 },
    Target { name: "watchdog_note", check: watchdog_note, made: 5_000 },
    Target { name: "recovery_store", check: recovery_store, made: 200 },
    Target { name: "config", check: config, made: 200 },
    Target { name: "uuids", check: uuids, made: 5_000 },
];

/// The target with this name.
pub fn by_name(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// A SCSI status with sense data, and the version page. Only GOOD and a recovered error are
/// success.
fn scsi_status(data: &[u8]) {
    let _ = scsi::version(data);
    let Some((&status, sense)) = data.split_first() else { return };
    let decoded = scsi::decode_status(status, sense);
    if decoded == Status::Good {
        let recovered = scsi::Sense::decode(sense).is_some_and(|it| it.key == 1 && !it.deferred);
        let checked = status == scsi::status::CHECK_CONDITION && recovered;
        assert!(status == scsi::status::GOOD || checked, "{data:02x?}");
    }
}

/// An NVMe status field and the Identify Controller data. Only code and type 0 is success.
fn nvme_answers(data: &[u8]) {
    if let Some(version) = nvme::version(data) {
        assert!(version.major > 0);
    }
    let Some((&[op, high, low], _)) = data.split_first_chunk() else { return };
    let status = u16::from_be_bytes([high, low]) & 0x7FFF;
    let ops = [MutexOp::Trylock, MutexOp::Refresh, MutexOp::Break, MutexOp::Unlock];
    let op = ops.get(usize::from(op)).copied();
    let decoded = nvme::decode_status(op, status);
    assert_eq!(decoded == Status::Good, status & 0x7FF == 0, "{status:#x}");
    if nvme::is_path_error(status) {
        assert_eq!(decoded, Status::Uncertain, "what the path says is not the drive's word");
    }
}

/// A mutex table: every returned record is one, and encodes to the same bytes.
fn table(data: &[u8]) {
    let _ = record_count(data);
    let records = parse_table(data);
    assert!(records.len() <= data.len() / RECORD_LEN);
    for record in records {
        assert!(record.state.is_record());
        assert_eq!(Record::decode(&record.encode()), record);
        let _ = (record.resource.to_string(), record.host.to_string(), record.host.name());
    }
}

/// Scripted answers: for each a status, a length and bytes.
struct Script(Mutex<Vec<u8>>);

impl Script {
    /// Takes some bytes; none where they have run out.
    fn next<const N: usize>(&self) -> Option<[u8; N]> {
        let mut rest = self.0.lock().ok()?;
        let next = *rest.first_chunk()?;
        rest.drain(..N);
        Some(next)
    }
}

impl Protocol for Script {
    fn execute(
        &self,
        _: Request,
        data: Data<'_>,
        _: &Deadline,
    ) -> Result<Completion, CommandError> {
        let [kind, high, low] = self.next().unwrap_or_default();
        let transferred = usize::from(u16::from_be_bytes([high, low])) * 64;
        if kind == 0xFF {
            return Err(CommandError::TooLong(String::new()));
        }
        if let Data::In(room) = data {
            // Blocks are written in short form: their first bytes, and a byte for the rest.
            for block in room.chunks_mut(RECORD_LEN) {
                let Some([state_high, state_low, rest]) = self.next() else { break };
                block.fill(rest);
                if rest % 2 == 0 {
                    block[..6].fill(0);
                    block[6..8].copy_from_slice(&[state_high, state_low]);
                }
            }
        }
        let status = match kind {
            0..=0xDF => Status::Good,
            _ => scsi::decode_status(kind & 0x1F, &[]),
        };
        Ok(Completion { status, raw: None, transferred })
    }
}

/// The complete way from a drive's transfer to a table: only records, and no impossible ones.
fn read_table(data: &[u8]) {
    // The deadline leaves no time, so that nothing is sent again after a pause.
    let deadline = Limits::new(&Timing::for_lease(Duration::ZERO)).deadline(Instant::default());
    let drive = IdmPath::new(Script(Mutex::new(data.to_vec())));
    let reply = drive.execute(&DriveCommand::ReadTable, &deadline).map(|answer| answer.reply);
    if let Ok(Reply::Table(records)) = reply {
        for record in records.iter() {
            assert!(record.state.is_record());
            assert!(!matches!(record.state, State::Other(number) if number > 0xFFFF));
        }
    } else {
        assert_ne!(reply, Ok(Reply::Status(Status::Good)), "a read without a table");
    }
    let command = DriveCommand::Mutex(MutexOp::Refresh, Record::end_of_table());
    let reply = drive.execute(&command, &deadline).map(|answer| answer.reply);
    assert!(!matches!(reply, Ok(Reply::Table(_))));
}

/// Arbitrary answers of three drives that vote and of one that is read: a lock is held only if a
/// majority has given it.
fn engine_replies(data: &[u8]) {
    const VOTES: u32 = 3;
    let me = HostId::new([1; 16], "me");
    let uuid = "0123456789abcdefghijklmnopqrstuv";
    let resource = ResourceId::lv(uuid, uuid).expect("uuids");
    let timing = Timing::for_lease(Duration::from_secs(60));
    let Some((&first, rest)) = data.split_first() else { return };
    let mut script = Replies { rest, me, resource, metadata: [0; 64] };
    let mut lock = Lock::new(LockConfig::new(resource, me, first & 1 == 0, timing, 1));
    let member = |drive| Member { drive: DriveRef(drive), identity: vec![drive as u8] };
    let drives = || ((0..VOTES).map(member).collect(), vec![member(VOTES)]);
    let mut now = Instant::from_micros(1_000_000);
    let mut given = BTreeSet::new();
    let check = |lock: &mut Lock, given: &BTreeSet<DriveRef>| {
        while let Some(event) = lock.next_event() {
            if let Event::Done(Outcome::Granted(_) | Outcome::Adopted(_)) = event {
                let votes = given.iter().filter(|drive| drive.0 < VOTES).count();
                assert!(votes > VOTES as usize / 2, "{votes} votes");
                assert!(lock.mode().is_some());
            }
        }
    };
    while let Some(wish) = script.byte() {
        let mode = if wish & 1 == 0 { Mode::Exclusive } else { Mode::Shared };
        let value = Value::new(wish.into());
        let (members, witnesses) = drives();
        let request = match wish >> 1 & 7 {
            0 => Some(Wish::Acquire { mode, members, witnesses }),
            1 => {
                let (safe_until, granted) = ((wish & 32 != 0).then_some(now), wish & 64 != 0);
                Some(Wish::Adopt { mode, safe_until, granted, members, witnesses })
            }
            2 => Some(Wish::Convert { mode, value }),
            3 => Some(Wish::Release { value }),
            _ => None,
        };
        // A request at the wrong time is refused.
        let _ = request.map(|request| lock.request(request, now));
        check(&mut lock, &given);
        while let Some(command) = lock.next_command(now) {
            let Some(reply) = script.reply(&command.command) else { return };
            if let DriveCommand::Mutex(op, _) = command.command {
                let gives = matches!(op, MutexOp::Trylock | MutexOp::Refresh | MutexOp::Break);
                match reply {
                    Reply::Status(Status::Good) if gives => given.insert(command.drive),
                    _ if gives => false,
                    _ => given.remove(&command.drive),
                };
            }
            lock.on_reply(command.token, reply, now);
            // Before the next command, which may give up the lock.
            check(&mut lock, &given);
        }
        assert!(lock.safe_until().is_none_or(|until| until <= now + timing.lease));
        now = lock.next_deadline().map_or(now, |next| now.max(next));
        lock.on_timer(now);
        check(&mut lock, &given);
    }
}

/// Replies that the fuzzer chooses.
struct Replies<'a> {
    rest: &'a [u8],
    me: HostId,
    resource: ResourceId,
    /// Metadata that this host last wrote to a mutex.
    metadata: Metadata,
}

impl Replies<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// The reply to a command: normally tables for reads, and statuses for all others.
    fn reply(&mut self, command: &DriveCommand) -> Option<Reply> {
        let kind = self.byte()?;
        let table = match command {
            DriveCommand::Mutex(_, record) => {
                self.metadata = record.metadata;
                kind >= 0xF0
            }
            DriveCommand::ReadTable => kind < 0xC0,
        };
        if table {
            return (0..kind & 7).map(|_| self.record()).collect::<Option<_>>().map(Reply::Table);
        }
        Some(Reply::Status(match kind & 15 {
            0..=4 => Status::Good,
            5 => Status::Conflict,
            6 => Status::Terminated,
            7 => Status::NotFound,
            8 => Status::Full(Limit::Mutexes),
            9 => Status::Full(Limit::HostsOfMutex),
            10 => Status::WrongState,
            11 => Status::TryAgain,
            12 => Status::Unsupported,
            13 => Status::Failed,
            14 => Status::Unreachable,
            _ => Status::Uncertain,
        }))
    }

    fn record(&mut self) -> Option<Record> {
        let [who, what, value] = [self.byte()?, self.byte()?, self.byte()?];
        let mut metadata = [0; 64];
        match who >> 6 {
            0 => metadata = self.metadata,
            1 => metadata[..15].copy_from_slice(b"lvmidm\x00clearing"),
            2 => metadata[..8].copy_from_slice(b"lvmidm\x00\x01"),
            _ => metadata.fill(value),
        }
        Some(Record {
            state: match what & 7 {
                0 | 1 => State::Locked,
                2 => State::Unlocked,
                3 => State::MultipleLocked,
                4 | 5 => State::TimedOut,
                6 => State::EndOfTable,
                _ => State::Other(value.into()),
            },
            modified_ms: value.into(),
            countdown_ms: value.into(),
            class: Class::from_wire((what >> 3 & 3).into()),
            value_update: ValueUpdate::Keep,
            value: Value::new(value.into()).unwrap_or(Value::MAX),
            resource: match what >> 5 & 3 {
                0 | 1 => self.resource,
                2 => ResourceId::GLOBAL,
                _ => ResourceId::from_bytes([value; 64]),
            },
            metadata,
            host: match who & 3 {
                0 | 1 => self.me,
                other => HostId::from_bytes([other; 32]),
            },
        })
    }
}

/// A device identification page: an identity is one word of limited length, and bytes after the
/// page have no effect. The identities of the logical unit and of the device are read in the same
/// way.
fn vpd83(data: &[u8]) {
    for read in [designator, device_designator] {
        if let Some(identity) = read(data) {
            is_an_identity(data, identity, read);
        }
    }
}

fn is_an_identity(data: &[u8], identity: String, read: fn(&[u8]) -> Option<String>) {
    let (kind, value) = identity.split_once('.').expect("a kind and a value");
    assert!(["naa", "eui", "t10"].contains(&kind) && !value.contains('\n'), "{identity}");
    assert!(identity.len() <= 4 + 4 * 255, "{identity}");
    let length = 4 + usize::from(u16::from_be_bytes([data[2], data[3]]));
    if let Some(page) = data.get(..length) {
        assert_eq!(read(page), Some(identity));
    }
}

/// Input for a tree with two drives that have a partition for the global lock.
const SYSFS_WITH_TWO: &[u8] = include_bytes!("../corpus/sysfs/both");

/// Attributes in sysfs: one SCSI disk and one NVMe namespace with a partition, whose attributes
/// come from the data, separated by 0xFF.
fn sysfs(data: &[u8]) {
    let root = tempfile::tempdir().expect("a directory");
    let mut texts = data.split(|&byte| byte == 0xFF);
    let mut write = |directory: &Path, names: &[&str]| {
        for name in names {
            // A missing attribute differs from an empty one.
            if let Some(text) = texts.next().filter(|text| *text != b"-") {
                fs::write(directory.join(name), text).expect("an attribute");
            }
        }
    };
    let in_root = |path: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(&path).expect("a directory");
        path
    };
    let class = in_root("class/block");
    for (device, disk, subsystem) in [
        ("devices/host0/0:0:0:0", "block/sda", "bus/scsi"),
        ("devices/nvme0", "nvme0n1", "class/nvme"),
    ] {
        let device = in_root(device);
        let disk = device.join(disk);
        let name = disk.file_name().expect("a disk's name").to_string_lossy();
        let partition = disk.join(format!("{name}p1"));
        fs::create_dir_all(&partition).expect("a directory");
        symlink(in_root(subsystem), device.join("subsystem")).expect("a link");
        symlink(&device, disk.join("device")).expect("a link");
        for device in [&disk, &partition] {
            symlink(device, class.join(device.file_name().expect("a name"))).expect("a link");
        }
        write(&device, &["vpd_pg83", "wwid", "subsysnqn", "serial", "model"]);
        write(&disk, &["wwid", "dev"]);
        write(&partition, &["partition", "uevent", "dev"]);
    }
    write(&in_root("kernel"), &["uevent_seqnum"]);
    let topology = Topology::with_sysfs(root.path().to_owned(), BTreeMap::new());
    let _ = topology.event_count();
    let inventory = topology.inventory().expect("a directory that can be read");
    if data == SYSFS_WITH_TWO {
        assert_eq!(inventory.global().len(), 2, "the tree is not as the kernel's");
    }
    for (_, located) in inventory.global() {
        assert!(!located.identity.is_empty());
        assert!(located.identity.trim() == located.identity, "{:?}", located.identity);
    }
}

/// A kernel event.
fn uevent(data: &[u8]) {
    if concerns_disks(data) {
        assert!(data.contains(&b'@'));
    }
}

/// The file with this host's id: the id that is read encodes to the same text.
fn host_id_file(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let boot = text.lines().next().and_then(|line| line.strip_prefix("boot_id ")).unwrap_or("x");
    if let Some(host) = host_id::parse(text, boot) {
        assert_eq!(host_id::format(boot, host), text);
        assert_eq!(host_id::parse(text, &format!("{boot}.")), None);
    }
}

/// The notes of the watchdog and of the dates until which locks are safe: contents that are read
/// encode to the same text, and no date is later than any lease allows.
fn watchdog_note(data: &[u8]) {
    let (boot, now) = (BOOT, Instant::from_micros(81_234_567_890));
    if let Some(left) = safe_note::parse(data, boot, now) {
        assert_eq!(safe_note::format(boot, &left).as_bytes(), data);
        assert_eq!(safe_note::parse(data, "another", now), None);
    }
    if let Some(left) = note::parse(data, boot, now) {
        assert_eq!(note::format(boot, &left).as_bytes(), data);
        assert_eq!(note::parse(data, "another", now), None);
        let most = Duration::from_secs(3600);
        assert!(left.is_none_or(|left| left.since(now) <= most), "{left:?}");
    }
}

/// Boot of the notes in the corpus.
const BOOT: &str = "5e1b7f0c-6d2a-4c8e-9f31-0a7d42c6b8e9";

/// A file that a dead lvmlockd left: its name, a line feed and its text. Contents that are read
/// encode to the same text, and other notes are read whatever this file contains.
fn recovery_store(data: &[u8]) {
    let at = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let text = data.get(at + 1..).unwrap_or_default();
    let Ok(name) = core::str::from_utf8(&data[..at]) else { return };
    let lock = recovered::<SavedLock>(name, text);
    let lockspace = recovered::<SavedLockspace>(name, text);

    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open_for(directory.path(), BOOT).expect("folders");
    let id = ResourceId::vg(&"beside-it".repeat(4)).expect("a uuid");
    let beside = (
        SavedLock {
            exclusive: true,
            granted: false,
            asked_us: 1,
            paths: Vec::new(),
            drives: vec!["naa.1".into()],
        },
        SavedLockspace {
            name: "vg".into(),
            uuid: "beside-it".repeat(4),
            paths: Vec::new(),
            drives: Vec::new(),
        },
    );
    store.save_lock(&id, &beside.0).expect("a note");
    store.save_lockspace(&id, &beside.1).expect("a note");
    if name == store::name_of(&id) || name.contains('/') {
        return;
    }
    for folder in ["locks", "lockspaces"] {
        // Some names cannot be file names.
        let _ = fs::write(directory.path().join(folder).join(name), text);
    }
    let saved = store.load().expect("folders that can be read");
    assert_eq!(saved.locks.len(), 1 + usize::from(lock.is_some()));
    assert_eq!(saved.lockspaces.len(), 1 + usize::from(lockspace.is_some()));
    assert!(saved.locks.contains(&(id, beside.0)));
    assert!(saved.lockspaces.contains(&(id, beside.1)));
    assert!(lock.is_none_or(|lock| saved.locks.contains(&lock)));
    assert!(lockspace.is_none_or(|lockspace| saved.lockspaces.contains(&lockspace)));
}

/// The note in a file, if there is one: it is read back unchanged, and only in its own boot.
fn recovered<T: SavedNote + PartialEq + Debug>(name: &str, text: &[u8]) -> Option<(ResourceId, T)> {
    let read = match store::parse::<T>(name, text, BOOT) {
        Ok(read) => read?,
        Err(why) => {
            assert!(!why.to_string().is_empty());
            return None;
        }
    };
    assert_eq!(store::name_of(&read.0), name);
    let again = store::format(BOOT, &read.1).expect("a text");
    assert_eq!(store::parse::<T>(name, again.as_bytes(), "another"), Ok(None));
    let again = store::parse(name, again.as_bytes(), BOOT);
    assert_eq!(again.as_ref(), Ok(&Some(read)));
    again.ok().flatten()
}

/// The settings: every error has a text.
fn config(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    match Config::parse(text) {
        Ok(config) => assert!(!config.lease.is_zero()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Uuids and names from lvmlockd, and the uuid of a device from the kernel.
fn uuids(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (vg, lv) = text.split_once('\n').unwrap_or((&text, &text));
    let _ = ResourceId::vg(vg).map(|id| id.to_string());
    if let Ok(id) = ResourceId::lv(vg, lv) {
        assert!(id.is_lv(), "{id}");
    }
    let _ = HostId::new([1; 16], &text).name();
    if let Some(id) = lv_of(&text) {
        let halves = id.as_bytes().iter().map(|&byte| char::from(byte)).collect::<String>();
        assert!(id.is_lv() && text.strip_prefix("LVM-").is_some_and(|it| it.starts_with(&halves)));
    }
}
