//! A disk as a SCSI logical unit: the disk commands, which the drive model does not know.

use idm_emulator::disks::faults::CommandKind;
use idm_emulator::disks::{BLOCK, DataError, Disk, MOST_BLOCKS};
use idm_emulator::{Drive, DriveTime, ScsiReply, is_mutex_command, kind};
use idm_protocol::reservation::scsi::{RESERVE_IN, RESERVE_OUT};
use idm_protocol::scsi;

/// Sense data in fixed form (SPC-4), with which the disk commands answer.
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

/// Additional sense codes of a medium error: UNRECOVERED READ ERROR, WRITE ERROR.
const READ_ERROR: u8 = 0x11;
const WRITE_ERROR: u8 = 0x0C;

fn refusal(error: &DataError, asc: u8) -> ScsiReply {
    match error {
        DataError::OutOfRange => out_of_range(),
        DataError::Short => short_data(),
        DataError::Medium(error) => {
            eprintln!("disk data: {error}");
            check(0x03, asc, 0)
        }
    }
}

fn written(result: Result<(), DataError>) -> ScsiReply {
    match result {
        Ok(()) => ScsiReply::default(),
        Err(error) => refusal(&error, WRITE_ERROR),
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The kind of the command in this CDB.
pub fn kind_of(cdb: &[u8]) -> CommandKind {
    if is_mutex_command(cdb) {
        return CommandKind::Mutex(kind(cdb));
    }
    CommandKind::Disk(match cdb.first() {
        // READ (6, 10, 16).
        Some(0x08 | 0x28 | 0x88) => "read",
        // WRITE (6, 10, 16), WRITE AND VERIFY (10, 16), UNMAP.
        Some(0x0A | 0x2A | 0x8A | 0x2E | 0x8E | 0x42) => "write",
        Some(&RESERVE_OUT) => "reserve",
        _ => "other",
    })
}

/// Executes one command that came on `port`.
pub fn execute(disk: &Disk, port: &str, cdb: &[u8], data_out: &[u8]) -> ScsiReply {
    let recorded = |act: &dyn Fn(&mut Drive, DriveTime) -> ScsiReply| {
        disk.mutex(port, kind(cdb), data_out, |drive, now| {
            let reply = act(drive, now);
            let status = u16::from(reply.status);
            (reply, status)
        })
    };
    let is_mutex = is_mutex_command(cdb);
    let done = match cdb.first() {
        Some(&(RESERVE_IN | RESERVE_OUT)) => return disk.reserve_scsi(port, cdb, data_out),
        _ if is_mutex => disk.under_reservations(port, cdb, || {
            recorded(&|drive, now| drive.execute(now, cdb, data_out))
        }),
        _ => disk.under_reservations(port, cdb, || disk_command(disk, port, cdb, data_out)),
    };
    match done {
        Err(refusal) if is_mutex => recorded(&|_, _| refusal.clone()),
        Ok(reply) | Err(reply) => reply,
    }
}

/// Executes a command that is neither for mutexes nor about reservations.
fn disk_command(disk: &Disk, port: &str, cdb: &[u8], data_out: &[u8]) -> ScsiReply {
    let Some(cdb) = cdb.first_chunk::<16>() else {
        return invalid_field();
    };
    let opcode = cdb[0];
    match opcode {
        0x12 => inquiry(disk, cdb),
        0x25 => read_capacity_10(disk),
        0x9E if cdb[1] & 0x1F == 0x10 => read_capacity_16(disk, cdb),
        0x1A | 0x5A => mode_sense(cdb),
        0xA0 => report_luns(cdb),
        // READ(6, 10, 16) and WRITE(6, 10, 16); a count of zero means 256 in the short ones.
        0x08 => read(disk, big_endian(&cdb[1..4]) & 0x1F_FFFF, short_count(cdb[4])),
        0x0A => written(disk.write(
            port,
            big_endian(&cdb[1..4]) & 0x1F_FFFF,
            short_count(cdb[4]),
            data_out,
        )),
        0x28 => read(disk, big_endian(&cdb[2..6]), big_endian(&cdb[7..9])),
        0x2A | 0x2E => {
            written(disk.write(port, big_endian(&cdb[2..6]), big_endian(&cdb[7..9]), data_out))
        }
        0x88 => read(disk, big_endian(&cdb[2..10]), big_endian(&cdb[10..14])),
        0x8A | 0x8E => {
            written(disk.write(port, big_endian(&cdb[2..10]), big_endian(&cdb[10..14]), data_out))
        }
        0x42 => unmap(disk, port, data_out),
        // SYNCHRONIZE CACHE (10, 16).
        0x35 | 0x91 => written(disk.flush()),
        // START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, VERIFY (10, 16) without data.
        0x1B | 0x1E | 0x2F | 0x8F => ScsiReply::default(),
        // TEST UNIT READY, REQUEST SENSE, and the refusal of all other commands.
        _ => disk.with_drive(|drive, now| drive.execute(now, cdb, data_out)),
    }
}

fn inquiry(disk: &Disk, cdb: &[u8; 16]) -> ScsiReply {
    let allocation = big_endian(&cdb[3..5]);
    let page = |code: u8, body: Vec<u8>| {
        let mut page = vec![0, code];
        page.extend((body.len() as u16).to_be_bytes());
        page.extend(body);
        good(page, allocation)
    };
    match (cdb[1] & 1 != 0, cdb[2]) {
        (true, 0x00) => page(0x00, vec![0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2, scsi::VERSION_PAGE]),
        // Block limits (SBC-3): the longest transfer, and the limit of one UNMAP.
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
        _ => disk.with_drive(|drive, now| drive.execute(now, cdb, &[])),
    }
}

fn read_capacity_10(disk: &Disk) -> ScsiReply {
    let last = u32::try_from(disk.blocks() - 1).unwrap_or(u32::MAX);
    let mut data = last.to_be_bytes().to_vec();
    data.extend((BLOCK as u32).to_be_bytes());
    good(data, 8)
}

fn read_capacity_16(disk: &Disk, cdb: &[u8; 16]) -> ScsiReply {
    let mut data = (disk.blocks() - 1).to_be_bytes().to_vec();
    data.extend((BLOCK as u32).to_be_bytes());
    data.resize(32, 0);
    // Blocks can be unmapped; they then read as zeros.
    data[14] = 0xC0;
    good(data, big_endian(&cdb[10..14]))
}

fn read(disk: &Disk, first: u64, count: u64) -> ScsiReply {
    match disk.read(first, count) {
        Ok(data) => ScsiReply { data, ..ScsiReply::default() },
        Err(error) => refusal(&error, READ_ERROR),
    }
}

/// UNMAP (SBC-3): descriptors of 16 bytes after a header of 8.
fn unmap(disk: &Disk, port: &str, data: &[u8]) -> ScsiReply {
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
        let done = disk.unmap(port, big_endian(&descriptor[..8]), big_endian(&descriptor[8..12]));
        if done.is_err() {
            return written(done);
        }
    }
    ScsiReply::default()
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
    use idm_emulator::Profile;
    use idm_emulator::disks::Interface;

    fn disk() -> (tempfile::TempDir, Disk) {
        disk_with(Profile::current())
    }

    fn disk_with(profile: Profile) -> (tempfile::TempDir, Disk) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d0");
        let disk = Disk::create("d0", Interface::Scsi, profile, &path, 1 << 20).unwrap();
        (dir, disk)
    }

    /// PERSISTENT RESERVE OUT with these keys.
    fn reserve(disk: &Disk, port: &str, action: u8, kind: u8, keys: [u64; 2]) -> ScsiReply {
        let mut list = keys.map(u64::to_be_bytes).concat();
        list.resize(24, 0);
        execute(disk, port, &cdb(&[0x5F, action, kind, 0, 0, 0, 0, 0, 24]), &list)
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
        assert_eq!(execute(&disk, "a", &write, &data), ScsiReply::default());
        let read = cdb(&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2]);
        assert_eq!(execute(&disk, "a", &read, &[]).data, data);
        let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
        list.extend(7u64.to_be_bytes());
        list.extend(1u32.to_be_bytes());
        list.extend([0; 4]);
        assert_eq!(execute(&disk, "a", &cdb(&[0x42]), &list), ScsiReply::default());
        let back = execute(&disk, "a", &read, &[]).data;
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
            assert_eq!(execute(&disk, "a", &read, &[]), out_of_range());
        }
        let write = cdb(&[0x2A, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(execute(&disk, "a", &write, &[0; 512]), short_data());
    }

    #[test]
    fn the_older_reset_pair_clears_the_table_and_no_data() {
        let (_dir, disk) = disk();
        assert!(disk.fill() > 0);
        assert!(disk.table().lines().count() > 1);
        let read = [0x88, 0, 1, 0, 0, 0, 0, 0x20, 0xFF, 1, 0, 0, 0, 1, 0, 0];
        let reply = execute(&disk, "a", &read, &[]);
        assert_eq!((reply.status, reply.data.len()), (0, 512));
        let clear = [0x8E, 0, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        assert_eq!(execute(&disk, "a", &clear, &reply.data), ScsiReply::default());
        assert_eq!(disk.table().lines().count(), 1);
    }

    #[test]
    fn reservations_keep_other_ports_out() {
        let (_dir, disk) = disk();
        let (read, write) =
            (cdb(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1]), cdb(&[0x2A, 0, 0, 0, 0, 0, 0, 0, 1]));
        let status = |port: &str, cdb: &[u8]| execute(&disk, port, cdb, &[7; 512]).status;
        assert_eq!(reserve(&disk, "a.0", 0, 0, [0, 0xA]).status, 0);
        assert_eq!(reserve(&disk, "b.0", 0, 0, [0, 0xB]).status, 0);
        assert_eq!(reserve(&disk, "a.0", 1, 5, [0xA, 0]).status, 0);
        for (port, expected) in [("a.0", 0), ("b.0", 0), ("a.1", 0x18), ("c.0", 0x18)] {
            assert_eq!(status(port, &write), expected, "{port}");
            assert_eq!(status(port, &read), 0, "{port}");
            assert_eq!(status(port, &cdb(&[0x35])), expected, "{port}");
            assert_eq!(status(port, &cdb(&[0])), 0, "{port}");
        }
        let ports = |changes: String| changes.matches(".0  ").count();
        assert_eq!(ports(disk.changes().unwrap()), 2, "only registrants wrote");
        // PREEMPT AND ABORT: a preempted registrant gets conflicts first, then the condition with
        // the reason.
        assert_eq!(reserve(&disk, "b.0", 5, 5, [0xB, 0xA]).status, 0);
        assert_eq!(status("a.0", &write), 0x18);
        let told = execute(&disk, "a.0", &read, &[]);
        assert_eq!((told.status, told.sense[2], told.sense[12], told.sense[13]), (2, 6, 0x2A, 5));
        assert_eq!(status("a.0", &read), 0);
        assert_eq!(
            disk.reservations(),
            "generation 3\npersistent no\nreservation write-exclusive-registrants-only\n\
             0x000000000000000b  b.0  holder\n"
        );
        // PERSISTENT RESERVE IN, for everyone; INQUIRY reports no condition.
        let keys = execute(&disk, "c.0", &cdb(&[0x5E, 0, 0, 0, 0, 0, 0, 0, 255]), &[]);
        assert_eq!(keys.data, [0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0xB]);
        disk.power_cycle();
        assert_eq!(status("c.0", &cdb(&[0x12, 0, 0, 0, 36])), 0);
        let told = execute(&disk, "c.0", &write, &[7; 512]);
        assert_eq!((told.status, told.sense[12], told.sense[13]), (2, 0x29, 0));
        assert_eq!(status("c.0", &write), 0);
    }

    #[test]
    fn mutex_commands_respect_reservations_where_the_profile_says_so() {
        let strict = Profile::by_name("current+respects-reservations").unwrap();
        for (profile, refused) in [(Profile::current(), 0), (strict, 0x18)] {
            let (_dir, disk) = disk_with(profile);
            let trylock = scsi::mutex(idm_protocol::MutexOp::Trylock);
            let table = scsi::read_table(1);
            let status = |cdb: &[u8]| execute(&disk, "b.0", cdb, &[1; 512]).status;
            assert_eq!(reserve(&disk, "a.0", 0, 0, [0, 0xA]).status, 0);
            assert_eq!(reserve(&disk, "a.0", 1, 7, [0xA, 0]).status, 0);
            assert_eq!((status(&trylock), status(&table)), (refused, 0));
            assert_eq!(reserve(&disk, "a.0", 4, 8, [0xA, 0]).status, 0);
            assert_eq!(status(&table), refused);
            let events = disk.events();
            let ends: Vec<_> = events.lines().map(|line| &line[line.len() - 2..]).collect();
            let refused = format!("{refused:02x}");
            assert_eq!(ends, [&refused[..], "00", &refused]);
            // A refused command changed nothing.
            assert_eq!(disk.table().lines().count() == 1, refused == "18");
        }
    }

    /// A change of the reservations waits for the commands that they permitted.
    #[test]
    fn a_preemption_waits_for_commands_that_are_executed() {
        let (_dir, disk) = disk();
        assert_eq!(reserve(&disk, "a.0", 0, 0, [0, 0xA]).status, 0);
        assert_eq!(reserve(&disk, "b.0", 0, 0, [0, 0xB]).status, 0);
        assert_eq!(reserve(&disk, "a.0", 1, 1, [0xA, 0]).status, 0);
        let (begun, begins) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let disk = &disk;
            let writer = scope.spawn(move || {
                disk.under_reservations("a.0", &cdb(&[0x2A]), || {
                    begun.send(()).unwrap();
                    ends.recv().unwrap();
                })
                .is_ok()
            });
            begins.recv().unwrap();
            let preempter = scope.spawn(|| {
                let reply = reserve(disk, "b.0", 5, 1, [0xB, 0xA]);
                done.store(true, std::sync::atomic::Ordering::SeqCst);
                reply.status
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            let waits = !done.load(std::sync::atomic::Ordering::SeqCst);
            end.send(()).unwrap();
            assert!(writer.join().unwrap());
            assert_eq!(preempter.join().unwrap(), 0);
            assert!(waits, "it did not wait");
        });
        assert_eq!(
            execute(&disk, "a.0", &cdb(&[0x2A, 0, 0, 0, 0, 0, 0, 0, 1]), &[7; 512]).status,
            0x18
        );
    }

    #[test]
    fn commands_have_kinds() {
        assert_eq!(kind_of(&[0x5F; 16]), CommandKind::Disk("reserve"));
        assert_eq!(kind_of(&[0x5E; 16]), CommandKind::Disk("other"));
        assert_eq!(kind_of(&[0x2A; 16]), CommandKind::Disk("write"));
        assert_eq!(kind_of(&[0x12; 16]), CommandKind::Disk("other"));
        let trylock = scsi::mutex(idm_protocol::MutexOp::Trylock);
        assert_eq!(kind_of(&trylock), CommandKind::Mutex("trylock"));
    }

    #[test]
    fn pages_say_what_linux_asks_for() {
        let (_dir, disk) = disk();
        let page = |code: u8| execute(&disk, "a", &cdb(&[0x12, 1, code, 0, 255]), &[]).data;
        let pages = page(0);
        assert_eq!(pages[3] as usize, pages.len() - 4);
        for &code in &pages[4..] {
            assert_eq!(page(code)[1], code);
        }
        assert_eq!(page(0x80)[4..], *b"d0");
        let capacity = execute(&disk, "a", &cdb(&[0x25]), &[]).data;
        assert_eq!(capacity, [0, 0, 0x07, 0xFF, 0, 0, 2, 0]);
    }
}
