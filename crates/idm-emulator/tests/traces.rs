//! Recorded behaviour of real firmware (docs/protocol.md, "Sources"), in bytes: CDBs and payloads
//! in, statuses, sense data and blocks out.

mod common;

use common::{EX, L0, L1, SH, host, payload, storing};
use idm_emulator::{Drive, DriveTime, Profile, ScsiReply, is_mutex_command};
use idm_protocol::{Class, HostId, MutexOp, RECORD_LEN, Record, ResourceId, State, Value, scsi};

use MutexOp::{
    Break, Destroy as DestroyOp, Init, Lock as LockOp, Refresh, Trylock, Unlock as UnlockOp,
};

const GOOD: u8 = 0x00;
const CHECK: u8 = 0x02;
const CONFLICT: u8 = 0x18;
const TERMINATED: u8 = 0x22;

/// Bytes from hexadecimal text.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let bytes = digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8);
    bytes.collect()
}

/// A sense buffer as it was recorded: the first bytes, then zeros.
fn sense(first: &str, len: usize) -> Vec<u8> {
    let mut bytes = hex(first);
    bytes.resize(len, 0);
    bytes
}

fn not_found() -> Vec<u8> {
    sense("72 05 21 00 00 00 00 14 03 02 00 01 80 0e 00 00", 28)
}

/// A drive on a bench, addressed with the older commands as in the traces.
struct Bench {
    drive: Drive,
    now_ms: u64,
}

impl Bench {
    fn new(profile: Profile) -> Bench {
        Bench { drive: Drive::new(profile), now_ms: 0 }
    }

    fn execute(&mut self, cdb: &[u8], data_out: &[u8]) -> ScsiReply {
        let now = DriveTime::from_millis(self.now_ms);
        self.drive.execute(now, cdb, data_out)
    }

    /// Sends 8E with the group in byte 2, the filler address, and the operation in byte 14.
    fn write(&mut self, group: u8, op: u8, payload: &Record) -> ScsiReply {
        let mut cdb = hex("8E 00 00 00 00 00 00 20 FF 01 00 00 00 01 00 00");
        (cdb[2], cdb[14]) = (group, op);
        self.execute(&cdb, &payload.encode())
    }

    fn send(&mut self, op: MutexOp, payload: &Record) -> ScsiReply {
        self.write(1, op.to_wire(), payload)
    }

    /// Sends a command and expects a status without sense data.
    fn expect(&mut self, op: MutexOp, payload: &Record, status: u8) {
        let reply = self.send(op, payload);
        assert_eq!((reply.status, reply.sense), (status, vec![]), "{op:?}");
    }

    /// Sends 88 for this number of blocks.
    fn read(&mut self, group: u8, blocks: u32) -> Vec<u8> {
        let mut cdb = hex("88 00 00 00 00 00 00 20 FF 01 00 00 00 00 02 00");
        cdb[2] = group;
        cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
        let reply = self.execute(&cdb, &[]);
        assert_eq!(reply.status, GOOD);
        reply.data
    }

    fn records(&mut self, blocks: u32) -> Vec<Record> {
        let bytes = self.read(1, blocks);
        assert_eq!(bytes.len(), blocks as usize * RECORD_LEN);
        let blocks = bytes.chunks_exact(RECORD_LEN);
        blocks.map(|block| Record::decode(block.first_chunk().unwrap())).collect()
    }

    fn only_record(&mut self) -> Record {
        let records = self.records(2);
        assert_eq!(records[1], Record::end_of_table());
        records[0].clone()
    }

    fn counters(&mut self) -> Vec<u8> {
        let reply = self.execute(&hex("88 00 FF 00 00 00 00 00 00 00 00 00 00 01 00 00"), &[]);
        assert_eq!((reply.status, reply.data.len()), (GOOD, RECORD_LEN));
        assert!(reply.data[8..].iter().all(|&b| b == 0));
        reply.data[..8].to_vec()
    }
}

/// A lock that the first record of a recording may have had, with metadata and value as inferred
/// there.
fn traced_payload() -> Record {
    let mut metadata = [0; 64];
    metadata[62..].copy_from_slice(&[0xFE, 0xED]);
    Record { metadata, ..storing(0xBEEF, payload(L0, EX, host(1), 0x7530)) }
}

#[test]
fn commands_without_a_record() {
    for profile in [Profile::r00d(), Profile::rev2313(), Profile::current()] {
        let mut bench = Bench::new(profile);
        for op in [UnlockOp, Refresh, Break, DestroyOp] {
            let reply = bench.send(op, &traced_payload());
            assert_eq!((reply.status, reply.sense), (CHECK, not_found()), "{op:?}");
        }
        assert_eq!(bench.records(1), [Record::end_of_table()]);
    }
}

#[test]
fn init_locks() {
    let mut bench = Bench::new(Profile::r00d());
    bench.expect(Init, &traced_payload(), GOOD);
    let record = bench.only_record();
    // Everything except the state and the control byte comes back as written.
    let mut expected = traced_payload().encode();
    expected[..8].copy_from_slice(&hex("00 00 00 00 00 00 01 01"));
    expected[0x20] = 0;
    assert_eq!(record.encode(), expected);
    assert_eq!(bench.read(1, 1), expected);
}

#[test]
fn trylock_and_lock_create() {
    for op in [Trylock, LockOp] {
        let mut bench = Bench::new(Profile::r00d());
        bench.expect(op, &traced_payload(), GOOD);
        assert_eq!(bench.only_record().state, State::Locked);
    }
}

#[test]
fn refusals_by_r00d() {
    let mut bench = Bench::new(Profile::r00d());
    let owner = traced_payload();
    let stranger = Record { host: host(2), ..owner.clone() };
    bench.expect(Trylock, &owner, GOOD);
    // Duplicates, INIT of an own mutex, UNLOCK and REFRESH of another host.
    let locked = bench.only_record();
    for op in [Init, Trylock, LockOp] {
        bench.expect(op, &owner, CONFLICT);
    }
    for op in [UnlockOp, Refresh] {
        bench.expect(op, &stranger, CONFLICT);
    }
    // Nothing has changed.
    assert_eq!(bench.only_record(), locked);
    // Expired, but another host still cannot refresh it.
    bench.now_ms += 0x7530;
    assert_eq!(bench.only_record().state, State::TimedOut);
    bench.expect(Refresh, &stranger, CONFLICT);
    assert_eq!(bench.only_record().state, State::TimedOut);
    // The owner can.
    bench.expect(Refresh, &owner, GOOD);
    assert_eq!(bench.only_record(), locked);
    // BREAK by the owner itself.
    bench.expect(Break, &owner, GOOD);
    assert_eq!(bench.only_record().state, State::Locked);
    // The record stays and does not time out.
    bench.expect(UnlockOp, &owner, GOOD);
    bench.now_ms += 10 * 0x7530;
    let unlocked = bench.only_record();
    assert_eq!(unlocked, Record { state: State::Unlocked, ..locked });
    // An unlocked mutex can be neither unlocked nor refreshed, and INIT does not change it.
    for op in [Init, UnlockOp, Refresh, Break] {
        bench.expect(op, &owner, CONFLICT);
    }
    bench.expect(UnlockOp, &stranger, CONFLICT);
    assert_eq!(bench.only_record(), unlocked);
    // Another host takes the unlocked record over, and no trace of the former owner remains.
    bench.expect(Trylock, &stranger, GOOD);
    let records = bench.records(8);
    assert_eq!((records[0].host, records[0].state), (host(2), State::Locked));
    for record in &records[1..] {
        assert_eq!(*record, Record::end_of_table());
    }
}

#[test]
fn destroy_after_unlock_and_create_again() {
    let mut bench = Bench::new(Profile::r00d());
    for _ in 0..2 {
        bench.expect(Trylock, &traced_payload(), GOOD);
        bench.expect(UnlockOp, &traced_payload(), GOOD);
        bench.expect(DestroyOp, &traced_payload(), GOOD);
        assert_eq!(bench.records(1), [Record::end_of_table()]);
    }
}

#[test]
fn destroy_by_the_holder() {
    let mut bench = Bench::new(Profile::r00d());
    bench.expect(Trylock, &traced_payload(), GOOD);
    bench.now_ms += 0x7530;
    bench.expect(DestroyOp, &traced_payload(), CONFLICT);
    bench.expect(Refresh, &traced_payload(), GOOD);
    bench.expect(DestroyOp, &traced_payload(), GOOD);
}

#[test]
fn no_second_sharer_on_r00d() {
    let mut bench = Bench::new(Profile::r00d());
    bench.expect(LockOp, &payload(L0, SH, host(1), 0x4500), GOOD);
    bench.expect(LockOp, &payload(L0, SH, host(2), 0x4500), CONFLICT);
    bench.expect(Refresh, &payload(L0, SH, host(2), 0x4500), CONFLICT);
}

#[test]
fn the_alias() {
    let mut bench = Bench::new(Profile::r00d());
    let cdb = hex("89 00 01 00 00 00 00 20 FF 01 00 00 00 01 03 00");
    let reply = bench.execute(&cdb, &traced_payload().encode());
    assert_eq!(reply, ScsiReply::default());
    assert_eq!(bench.only_record().state, State::Locked);
}

#[test]
fn filler_and_group() {
    let mut bench = Bench::new(Profile::r00d());
    bench.expect(Trylock, &traced_payload(), GOOD);
    assert_eq!(bench.read(3, 1), bench.read(1, 1));
    let reply = bench.execute(&hex("88 00 01 00 00 00 00 00 00 00 00 00 00 01 00 00"), &[]);
    assert_eq!(reply.data, bench.read(1, 1));
}

#[test]
fn unknown_opcode_and_unknown_operation() {
    let invalid_opcode = {
        // Its additional length, 1Ch, makes 36 bytes. The traces show 32: the host's buffer.
        let mut bytes = sense("72 05 20 00 00 00 00 1c 02 06 00 00 cf 00 00 00", 36);
        bytes[16..22].copy_from_slice(&hex("03 02 00 01 80 0e"));
        bytes
    };
    let undefined_op = sense("72 07 30 00 00 00 00 14 03 02 00 02 80 0e 00 00", 28);
    let mut bench = Bench::new(Profile::r00d());
    let reply = bench.execute(&hex("81 00 01 00 00 00 00 20 FF 01 00 00 00 01 02 00"), &[]);
    assert_eq!((reply.status, reply.sense), (CHECK, invalid_opcode.clone()));
    let reply = bench.write(1, 9, &traced_payload());
    assert_eq!((reply.status, reply.sense), (CHECK, undefined_op));
    // The real READ(16) and WRITE AND VERIFY(16) belong to the disk, which is not here.
    for cdb in [
        "88 00 00 00 00 00 00 20 FF 01 00 00 00 01 00 00",
        "8E 00 00 00 00 00 00 20 FF 01 00 00 00 01 00 00",
    ] {
        assert!(!is_mutex_command(&hex(cdb)));
        let reply = bench.execute(&hex(cdb), &[0; 512]);
        assert_eq!(reply.sense, invalid_opcode);
    }
    // Newer firmware, as documented: another code for the operation, FRU 0Ah.
    let mut bench = Bench::new(Profile::current());
    let reply = bench.write(1, 9, &traced_payload());
    let expected = sense("72 05 20 00 00 00 00 14 03 02 00 0a 80 0e 00 00", 28);
    assert_eq!((reply.status, reply.sense), (CHECK, expected));
}

#[test]
fn reading_the_table() {
    let mut bench = Bench::new(Profile::rev2313());
    // Empty.
    assert_eq!(bench.read(1, 1)[..8], hex("00 00 00 00 00 00 DE AD"));
    assert!(bench.read(1, 1)[8..].iter().all(|&b| b == 0));
    assert_eq!(bench.counters(), [0; 8]);
    // 32 sharers with leases that end at once are 32 blocks.
    for number in 0..32 {
        let reply = bench.write(2, 2, &payload(L0, SH, host(number), 0));
        assert_eq!(reply, ScsiReply::default());
    }
    // The total, then one word per group: they count records, not mutexes.
    assert_eq!(bench.counters(), hex("00 20 00 00 00 20 00 00"));
    let all = bench.records(32);
    for (number, record) in all.iter().enumerate() {
        assert_eq!(record.host, host(number as u8));
        assert_eq!((record.state, record.class), (State::TimedOut, Class::Shared));
        assert_eq!(record.resource, L0);
    }
    // Shorter. Equal: no end marker. Longer: all surplus blocks are markers.
    assert_eq!(bench.records(31), all[..31]);
    let longer = bench.records(34);
    assert_eq!(longer[..32], all);
    assert_eq!(longer[32..], [Record::end_of_table(), Record::end_of_table()]);
    assert_eq!(bench.read(1, 0), []);
    // No more than 128 blocks at once.
    assert_eq!(bench.read(1, u32::MAX).len(), 128 * RECORD_LEN);
}

#[test]
fn counters_of_group_3() {
    let mut bench = Bench::new(Profile::rev2313());
    for number in 0..32 {
        let mutex = ResourceId::from_bytes([number; 64]);
        let reply = bench.write(3, 2, &payload(mutex, SH, host(number), 0));
        assert_eq!(reply.status, GOOD);
    }
    assert_eq!(bench.counters(), hex("00 20 00 00 00 00 00 20"));
}

#[test]
fn the_countdown() {
    let mut bench = Bench::new(Profile::current());
    bench.expect(Trylock, &payload(L0, EX, host(1), 5_000), GOOD);
    bench.now_ms = 4_999;
    assert_eq!(bench.only_record().state, State::Locked);
    assert_eq!(bench.only_record().countdown_ms, 5_000);
    bench.now_ms = 5_000;
    assert_eq!(bench.only_record().state, State::TimedOut);
    assert_eq!(bench.only_record().countdown_ms, 5_000);
    // Other hosts must break it; the end of the lease alone does not admit them.
    bench.expect(Trylock, &payload(L0, EX, host(2), 5_000), CONFLICT);
    bench.expect(UnlockOp, &payload(L0, EX, host(2), 5_000), CONFLICT);
    // REFRESH starts the countdown of its payload.
    bench.expect(Refresh, &payload(L0, EX, host(1), 7_000), GOOD);
    bench.now_ms = 11_999;
    assert_eq!(bench.only_record().state, State::Locked);
    bench.now_ms = 12_000;
    assert_eq!(bench.only_record().state, State::TimedOut);
    // An expired owner may unlock.
    bench.expect(UnlockOp, &payload(L0, EX, host(1), 0), GOOD);
    // A countdown of 0 ends at once.
    bench.expect(Trylock, &payload(L1, EX, host(1), 0), GOOD);
    assert_eq!(bench.records(2)[1].state, State::TimedOut);
    // All ones does not run out, and may be broken.
    bench.expect(Trylock, &payload(L0, EX, host(1), u64::MAX), GOOD);
    bench.now_ms = u64::MAX / 1000 - 1;
    assert_eq!(bench.records(1)[0].state, State::Locked);
    bench.expect(Trylock, &payload(L0, EX, host(2), 5_000), CONFLICT);
    bench.expect(Break, &payload(L0, EX, host(2), 5_000), GOOD);
    assert_eq!(bench.records(1)[0].host, host(2));
}

#[test]
fn one_sharer_times_out_alone() {
    let mut bench = Bench::new(Profile::current());
    bench.expect(Trylock, &payload(L0, SH, host(1), 5_000), GOOD);
    bench.expect(Trylock, &payload(L0, SH, host(2), 9_000), GOOD);
    bench.now_ms = 6_000;
    let states: Vec<State> = bench.records(2).iter().map(|r| r.state).collect();
    assert_eq!(states, [State::TimedOut, State::Locked]);
    // A newcomer is admitted and removes nobody; BREAK is refused while one lease runs.
    bench.expect(Trylock, &payload(L0, SH, host(3), 9_000), GOOD);
    bench.expect(Break, &payload(L0, EX, host(4), 9_000), CONFLICT);
    assert_eq!(bench.records(4)[3], Record::end_of_table());
    bench.now_ms = 60_000;
    bench.expect(Break, &payload(L0, EX, host(4), 9_000), GOOD);
    let records = bench.records(2);
    assert_eq!((records[0].host, records[0].class), (host(4), Class::Exclusive));
    assert_eq!(records[1], Record::end_of_table());
}

#[test]
fn the_value() {
    for profile in [Profile::r00d(), Profile::rev2313(), Profile::current()] {
        let mut bench = Bench::new(profile);
        let shown = |bench: &mut Bench| bench.only_record().value.get();
        // It is stored on creation. A refused acquire does not change it.
        bench.expect(Trylock, &traced_payload(), GOOD);
        let refused = storing(0xBEEE, payload(L0, EX, host(2), 0x7530));
        bench.expect(Trylock, &refused, CONFLICT);
        assert_eq!(shown(&mut bench), 0xBEEF);
        // Control 1 on UNLOCK stores the value, control 0 on other commands does not change it.
        bench.expect(UnlockOp, &storing(0xA1, payload(L0, EX, host(1), 0)), GOOD);
        assert_eq!(shown(&mut bench), 0xA1);
        bench.expect(Trylock, &payload(L0, EX, host(2), 0x7530), GOOD);
        assert_eq!(shown(&mut bench), 0xA1);
        bench.expect(Refresh, &payload(L0, EX, host(2), 0x7530), GOOD);
        assert_eq!(shown(&mut bench), 0xA1);
        bench.expect(UnlockOp, &payload(L0, EX, host(2), 0), GOOD);
        assert_eq!(shown(&mut bench), 0xA1);
        // LOCK with another payload (and, as inferred, control 1) replaced it.
        bench.expect(LockOp, &storing(0x0EFF, payload(L0, EX, host(1), 0)), GOOD);
        assert_eq!(shown(&mut bench), 0x0EFF);
        // Clearing everything loses it.
        bench.drive.reset();
        bench.expect(Trylock, &payload(L0, EX, host(1), 0x7530), GOOD);
        assert_eq!(bench.only_record().value, Value::ZERO);
    }
}

#[test]
fn the_last_sharers_value_stays() {
    let mut bench = Bench::new(Profile::rev2313());
    bench.expect(Trylock, &storing(0xA1, payload(L0, SH, host(1), 5_000)), GOOD);
    bench.expect(Trylock, &payload(L0, SH, host(2), 5_000), GOOD);
    bench.expect(UnlockOp, &payload(L0, SH, host(1), 0), GOOD);
    bench.expect(UnlockOp, &payload(L0, SH, host(2), 0), GOOD);
    let record = bench.only_record();
    assert_eq!((record.state, record.value.get()), (State::Unlocked, 0xA1));
    bench.expect(Trylock, &payload(L0, EX, host(3), 5_000), GOOD);
    assert_eq!(bench.only_record().value.get(), 0xA1);
}

#[test]
fn promotion_and_the_last_shared_unlock() {
    let mut bench = Bench::new(Profile::current());
    bench.expect(Trylock, &payload(L0, SH, host(1), 5_000), GOOD);
    bench.expect(Trylock, &payload(L0, SH, host(2), 5_000), GOOD);
    bench.expect(Refresh, &payload(L0, EX, host(2), 5_000), TERMINATED);
    assert_eq!(bench.records(2)[1].class, Class::Shared);
    bench.expect(UnlockOp, &payload(L0, SH, host(1), 0), GOOD);
    bench.expect(Refresh, &payload(L0, EX, host(2), 5_000), GOOD);
    assert_eq!(bench.only_record().class, Class::Exclusive);
    bench.expect(Refresh, &payload(L0, SH, host(2), 5_000), GOOD);
    bench.expect(UnlockOp, &payload(L0, SH, host(2), 0), GOOD);
    assert_eq!(bench.send(UnlockOp, &payload(L0, SH, host(2), 0)).sense, not_found());
}

#[test]
fn clearing_everything() {
    let mut bench = Bench::new(Profile::current());
    for clear in [
        "F0 00 00 00 00 00 00 00 00 00 00 00 02 00 FF 00",
        "8E 00 FF 00 00 00 00 00 00 00 00 00 00 01 00 00",
    ] {
        bench.expect(Trylock, &traced_payload(), GOOD);
        // The data that lvm2's test helpers read before they clear a drive, and then send.
        let read = hex("88 00 01 00 00 00 00 20 FF 01 00 00 00 01 00 00");
        let block = bench.execute(&read, &[]).data;
        assert_eq!(block, bench.read(1, 1));
        assert!(is_mutex_command(&read) && is_mutex_command(&hex(clear)));
        assert_eq!(bench.execute(&hex(clear), &block), ScsiReply::default());
        assert_eq!(bench.records(1), [Record::end_of_table()]);
    }
}

/// One host takes as many mutexes as possible; the CDBs are the present ones.
#[test]
fn limits_of_rev_2313() {
    let full = |asc: &str| sense(&format!("72 07 {asc} 00 00 00 00 14 03 02 00 01 80 0e"), 28);
    let trylock = |bench: &mut Bench, mutex: u8, host: u8| {
        let payload =
            payload(ResourceId::from_bytes([mutex; 64]), SH, HostId::from_bytes([host; 32]), 0);
        bench.execute(&scsi::mutex(Trylock), &payload.encode())
    };
    // One host, 128 mutexes and one more.
    let mut bench = Bench::new(Profile::rev2313());
    for mutex in 0..128 {
        assert_eq!(trylock(&mut bench, mutex, 1).status, GOOD);
    }
    let before = bench.drive.clone();
    let reply = trylock(&mut bench, 128, 1);
    assert_eq!((reply.status, reply.sense), (CHECK, full("40")));
    assert_eq!(bench.drive, before);
    // 32 hosts on one mutex, and one more, which violates both host limits
    // (docs/protocol.md, "Order of checks").
    let mut bench = Bench::new(Profile::rev2313());
    for host in 0..32 {
        assert_eq!(trylock(&mut bench, 1, host).status, GOOD);
    }
    let before = bench.drive.clone();
    let reply = trylock(&mut bench, 1, 32);
    assert_eq!((reply.status, reply.sense), (CHECK, full("42")));
    // The 33rd host on another mutex.
    let reply = trylock(&mut bench, 2, 32);
    assert_eq!((reply.status, reply.sense), (CHECK, full("41")));
    assert_eq!(bench.drive, before);
    // A known host may have more mutexes.
    assert_eq!(trylock(&mut bench, 2, 31).status, GOOD);
}

#[test]
fn limits_of_newer_firmware() {
    let mut profile = Profile::current();
    profile.limits.records = 3;
    profile.limits.hosts_of_mutex = 2;
    let mut bench = Bench::new(profile);
    let refused = |fru| sense(&format!("72 0b 55 03 00 00 00 14 03 02 00 {fru} 80 0e"), 28);
    bench.expect(Trylock, &payload(L0, SH, host(1), 0), GOOD);
    bench.expect(Trylock, &payload(L0, SH, host(2), 0), GOOD);
    let reply = bench.send(Trylock, &payload(L0, SH, host(3), 0));
    assert_eq!((reply.status, reply.sense), (CHECK, refused("02")));
    bench.expect(Trylock, &payload(L1, SH, host(1), 0), GOOD);
    let reply = bench.send(Trylock, &payload(L1, SH, host(2), 0));
    assert_eq!((reply.status, reply.sense), (CHECK, refused("00")));
    profile.limits.hosts = 1;
    profile.fixed_sense = true;
    let mut bench = Bench::new(profile);
    bench.expect(Trylock, &payload(L0, SH, host(1), 0), GOOD);
    let reply = bench.send(Trylock, &payload(L0, SH, host(2), 0));
    let mut fixed = vec![0; 18];
    (fixed[0], fixed[2], fixed[7]) = (0x70, 0x0B, 10);
    (fixed[12], fixed[13], fixed[14]) = (0x55, 0x03, 1);
    assert_eq!((reply.status, reply.sense), (CHECK, fixed));
}

#[test]
fn commands_of_every_disk() {
    let mut drive = Drive::with_serial(Profile::current(), "SN0123");
    let mut execute = |cdb: &str| drive.execute(DriveTime::default(), &hex(cdb), &[]);
    assert_eq!(execute("00 00 00 00 00 00"), ScsiReply::default());
    let standard = execute("12 00 00 00 60 00").data;
    assert_eq!(standard[..5], hex("00 00 06 02 1f"));
    assert_eq!(standard.len(), usize::from(standard[4]) + 5);
    assert_eq!(&standard[8..16], b"IDM-EMUL");
    assert_eq!(execute("12 00 00 00 05 00").data, standard[..5]);
    assert_eq!(execute("12 01 00 00 60 00").data, hex("00 00 00 04 00 80 83 c3"));
    assert_eq!(execute("12 01 80 00 60 00").data, b"\x00\x80\x00\x06SN0123");
    let identity = execute("12 01 83 00 60 00").data;
    assert_eq!(identity[..8], hex("00 83 00 0c 01 03 00 08"));
    assert_eq!(identity[8] >> 4, 3);
    assert_eq!(identity.len(), 16);
    let version = execute("12 01 c3 00 70 00").data;
    assert_eq!(version[..4], hex("00 c3 00 6c"));
    assert_eq!(version.len(), 0x70);
    assert_eq!(version[96], 8);
    // No such page; a page code without the page bit; a CDB that ends early.
    for cdb in ["12 01 99 00 60 00", "12 00 80 00 60 00", "12 00"] {
        let reply = execute(cdb);
        assert_eq!((reply.status, &reply.sense[1..4]), (CHECK, &hex("05 24 00")[..]));
    }
    // REQUEST SENSE: nothing pending, in both forms.
    assert_eq!(execute("03 00 00 00 12 00").data[..3], hex("70 00 00"));
    assert_eq!(execute("03 01 00 00 12 00").data[..4], hex("72 00 00 00"));
    assert_eq!(execute("03 01 00 00 02 00").data, hex("72 00"));
    // Two drives have different names.
    let naa = |serial| Drive::with_serial(Profile::current(), serial).naa();
    assert_ne!(naa("a"), naa("b"));
    assert_eq!(naa("a"), naa("a"));
}

#[test]
fn malformed_mutex_commands_change_nothing() {
    let mut bench = Bench::new(Profile::current());
    bench.expect(Trylock, &traced_payload(), GOOD);
    let before = bench.drive.clone();
    let block = traced_payload().encode();
    for (cdb, data_out, code) in [
        // Data shorter than a record, wrong lengths, no such group, bits in byte 1.
        ("F0 40 00 00 00 00 00 00 00 00 00 00 02 00 01 00", 511, "05 1a 00"),
        ("F0 40 00 00 00 00 00 00 00 00 00 00 01 00 01 00", 512, "05 24 00"),
        ("8E 00 01 00 00 00 00 20 FF 01 00 00 00 02 04 00", 512, "05 24 00"),
        ("F0 40 00 00 00 00 00 00 00 00 00 00 02 00 00 00", 512, "05 21 00"),
        ("F0 40 00 00 00 00 00 00 00 00 00 00 02 00 FF 00", 512, "05 21 00"),
        ("F0 01 00 00 00 00 00 00 00 00 00 00 00 01 09 00", 0, "05 21 00"),
        ("F0 42 00 00 00 00 00 00 00 00 00 00 02 00 01 00", 512, "05 24 00"),
        ("F0 00 00 00 00 00 00 00 00 00 00 00 02 00 01 00", 512, "05 20 00"),
        ("F0 80 00 00 00 00 00 00 00 00 00 00 02 00 01 00", 512, "05 20 00"),
        ("F0 40 00 00 00 00 00 00 00 00 00 00 02 00 01", 512, "05 24 00"),
        ("", 0, "05 20 00"),
    ] {
        let reply = bench.execute(&hex(cdb), &block[..data_out]);
        assert_eq!(reply.status, CHECK, "{cdb}");
        assert_eq!(reply.sense[1..4], hex(code), "{cdb}");
        assert_eq!(bench.drive, before, "{cdb}");
    }
}
