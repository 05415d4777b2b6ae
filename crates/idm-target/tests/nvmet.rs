//! The target from the view of a host, byte by byte. Units and commands are written by hand.

use idm_emulator::Profile;
use idm_emulator::disks::{Disk, Enclosure, Interface, control};
use idm_target::nvmet::{self, Identifier, Subsystem, Target};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const NQN: &str = "nqn.2024-01.lvmlockd-idm:d0";
const WITHOUT_IDM: &str = "nqn.2024-01.lvmlockd-idm:plain";
/// Bytes that a unit may have according to the target.
const PIECE: usize = 128 << 10;

struct Bench {
    _dir: tempfile::TempDir,
    enclosure: Arc<Enclosure>,
    ports: BTreeMap<&'static str, SocketAddr>,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let disk = |name: &str| {
            let path = dir.path().join(name);
            let made = Disk::create(name, Interface::Nvme, Profile::current(), &path, 16 << 20);
            Arc::new(made.unwrap())
        };
        let disks = [disk("d0"), disk("plain")];
        let enclosure = Enclosure::new(disks.to_vec());
        let plain = Subsystem {
            idm: false,
            identifier: Identifier::Eui64,
            ..Subsystem::new(disks[1].clone())
        };
        let subsystems = vec![Arc::new(Subsystem::new(disks[0].clone())), Arc::new(plain)];
        let target = Target::new(Arc::clone(&enclosure), subsystems);
        let mut ports = BTreeMap::new();
        for name in ["a.0", "b.0"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            ports.insert(name, listener.local_addr().unwrap());
            nvmet::serve(&target, name, listener).unwrap();
        }
        Bench { _dir: dir, enclosure, ports }
    }

    fn order(&self, line: &str) -> String {
        control::execute(&self.enclosure, line).unwrap_or_else(|why| panic!("{line}: {why}"))
    }

    fn admin(&self, port: &str) -> Host {
        Host::connect(self.ports[port], NQN, 0, 0xFFFF).unwrap()
    }
}

/// One connection.
struct Host {
    stream: TcpStream,
    controller: u16,
    last: u16,
}

#[derive(Debug, PartialEq)]
struct Completion {
    status: u16,
    result: u64,
    data: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    opcode: u8,
    nsid: u32,
    /// Number of bytes that are expected, or that are sent on request.
    len: usize,
    dwords: [u32; 6],
}

impl Entry {
    fn bytes(&self, id: u16, sgl: u8, len: usize) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0] = self.opcode;
        bytes[1] = 0x40;
        bytes[2..4].copy_from_slice(&id.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.nsid.to_le_bytes());
        bytes[32..36].copy_from_slice(&(len as u32).to_le_bytes());
        bytes[39] = sgl;
        for (at, dword) in (40..).step_by(4).zip(self.dwords) {
            bytes[at..at + 4].copy_from_slice(&dword.to_le_bytes());
        }
        bytes
    }
}

fn idm(opcode: u8, dwords: u32, cdw12: u32) -> Entry {
    Entry { opcode, len: dwords as usize * 4, dwords: [dwords, 0, cdw12, 0, 0, 0], nsid: 0 }
}

fn identify(cns: u32, nsid: u32) -> Entry {
    Entry { opcode: 6, nsid, len: 4096, dwords: [cns, 0, 0, 0, 0, 0] }
}

fn blocks(opcode: u8, first: u32, count: u32) -> Entry {
    Entry { opcode, nsid: 1, len: count as usize * 512, dwords: [first, 0, count - 1, 0, 0, 0] }
}

fn record(host: u8) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[0x10..0x18].copy_from_slice(&10_000u64.to_be_bytes());
    bytes[0x40..0x80].fill(b'M');
    bytes[0xC0..0xE0].fill(host);
    bytes
}

impl Host {
    fn raw(address: SocketAddr) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    }

    fn connect(
        address: SocketAddr,
        nqn: &str,
        queue: u16,
        controller: u16,
    ) -> std::io::Result<Host> {
        let mut stream = Host::raw(address)?;
        let mut request = vec![0, 0, 128, 0, 128, 0, 0, 0];
        request.resize(128, 0);
        stream.write_all(&request)?;
        let mut reply = [0; 128];
        stream.read_exact(&mut reply)?;
        assert_eq!(reply[..8], [1, 0, 128, 0, 128, 0, 0, 0]);
        assert_eq!(reply[8..12], [0; 4], "format, alignment, digests");
        assert_eq!(reply[12..16], (PIECE as u32).to_le_bytes());
        let mut host = Host { stream, controller, last: 0 };
        let mut data = vec![0; 1024];
        data[..16].fill(0x11);
        data[16..18].copy_from_slice(&controller.to_le_bytes());
        data[256..256 + nqn.len()].copy_from_slice(nqn.as_bytes());
        data[512..520].copy_from_slice(b"nqn.host");
        let mut entry = Entry { opcode: 0x7F, ..Entry::default() }.bytes(0, 1, 1024);
        entry[4] = 1;
        entry[42..44].copy_from_slice(&queue.to_le_bytes());
        entry[44..46].copy_from_slice(&31u16.to_le_bytes());
        host.capsule(&entry, &data)?;
        let done = host.completion(0)?;
        if done.status != 0 {
            return Err(std::io::Error::other(format!("status {:#x}", done.status)));
        }
        host.controller = done.result as u16;
        Ok(host)
    }

    fn capsule(&mut self, entry: &[u8; 64], data: &[u8]) -> std::io::Result<()> {
        let pdo = if data.is_empty() { 0 } else { 72 };
        let mut bytes = vec![4, 0, 72, pdo];
        bytes.extend((72 + data.len() as u32).to_le_bytes());
        bytes.extend(entry);
        bytes.extend(data);
        self.stream.write_all(&bytes)
    }

    fn unit(&mut self) -> std::io::Result<(u8, u8, Vec<u8>)> {
        let mut header = [0; 8];
        self.stream.read_exact(&mut header)?;
        let len = u32::from_le_bytes(header[4..].try_into().unwrap()) as usize;
        let mut body = vec![0; len - 8];
        self.stream.read_exact(&mut body)?;
        Ok((header[0], header[1], body))
    }

    /// Data of one command, and its completion. No data may follow the last unit.
    fn completion(&mut self, id: u16) -> std::io::Result<Completion> {
        let (mut data, mut last) = (Vec::new(), false);
        loop {
            let (kind, flags, body) = self.unit()?;
            let number = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
            match kind {
                7 => {
                    assert!(!last, "data after the last unit");
                    assert_eq!(body[..2], id.to_le_bytes());
                    assert_eq!(number(4) as usize, data.len(), "the offset");
                    assert_eq!(number(8) as usize, body.len() - 16, "the length");
                    data.extend(&body[16..]);
                    last = flags & 4 != 0;
                }
                5 => {
                    assert_eq!(body[12..14], id.to_le_bytes());
                    assert_eq!(last, !data.is_empty());
                    let status = u16::from_le_bytes([body[14], body[15]]);
                    assert_eq!(status & 1, 0, "the phase tag");
                    let result = u64::from_le_bytes(body[..8].try_into().unwrap());
                    return Ok(Completion { status: status >> 1, result, data });
                }
                _ => panic!("unit {kind}"),
            }
        }
    }

    fn send(&mut self, entry: Entry, data: &[u8]) -> u16 {
        self.last += 1;
        let (id, sgl) = (self.last, if data.is_empty() { 0x5A } else { 0x01 });
        let len = if data.is_empty() { entry.len } else { data.len() };
        self.capsule(&entry.bytes(id, sgl, len), data).unwrap();
        id
    }

    fn run(&mut self, entry: Entry, data: &[u8]) -> Completion {
        let id = self.send(entry, data);
        self.completion(id).unwrap()
    }

    /// Sends the data on the target's request, in pieces of the longest allowed length.
    fn run_with_transfer(&mut self, entry: Entry, data: &[u8]) -> Completion {
        self.last += 1;
        let id = self.last;
        self.capsule(&entry.bytes(id, 0x5A, data.len()), &[]).unwrap();
        let (kind, _, body) = self.unit().unwrap();
        assert_eq!((kind, &body[..2]), (9, &id.to_le_bytes()[..]));
        assert_eq!(body[4..8], [0; 4]);
        assert_eq!(body[8..12], (data.len() as u32).to_le_bytes());
        let last = (data.len() - 1) / PIECE;
        for (number, piece) in data.chunks(PIECE).enumerate() {
            let offset = number * PIECE;
            let mut bytes = vec![6, if number == last { 4 } else { 0 }, 24, 24];
            bytes.extend((24 + piece.len() as u32).to_le_bytes());
            bytes.extend(id.to_le_bytes());
            bytes.extend(&body[2..4]);
            bytes.extend((offset as u32).to_le_bytes());
            bytes.extend((piece.len() as u32).to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(piece);
            self.stream.write_all(&bytes).unwrap();
        }
        self.completion(id).unwrap()
    }

    fn property(&mut self, offset: u32, set: Option<u64>) -> u64 {
        let mut entry = Entry { opcode: 0x7F, ..Entry::default() }.bytes(7, 0x5A, 0);
        entry[4] = if set.is_some() { 0 } else { 4 };
        entry[44..48].copy_from_slice(&offset.to_le_bytes());
        entry[48..56].copy_from_slice(&set.unwrap_or(0).to_le_bytes());
        self.capsule(&entry, &[]).unwrap();
        let done = self.completion(7).unwrap();
        assert_eq!(done.status, 0);
        done.result
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }

    fn trylock(&mut self, host: u8) -> u16 {
        self.run(idm(0xC1, 0x80, 0x120), &record(host)).status
    }
}

#[test]
fn a_controller_says_what_it_is() {
    let bench = Bench::new();
    let mut host = bench.admin("a.0");
    assert_eq!(host.property(0, None), 127 | 1 << 16 | 15 << 24 | 1 << 37);
    assert_eq!(host.property(8, None), 0x10300);
    assert_eq!(host.property(0x1C, None), 0);
    host.property(0x14, Some(0x0046_0001));
    assert_eq!(host.property(0x1C, None), 1);

    let controller = host.run(identify(1, 0), &[]).data;
    assert_eq!(controller.len(), 4096);
    assert_eq!(controller[4..24], *b"d0                  ");
    assert_eq!(u16::from_le_bytes([controller[78], controller[79]]), host.controller);
    assert_eq!(controller[768..768 + NQN.len()], *NQN.as_bytes());
    assert_eq!(controller[4095], 0x80, "IDM version 8.0");
    let namespace = host.run(identify(0, 1), &[]).data;
    assert_eq!(namespace[..8], (16u64 << 20 >> 9).to_le_bytes());
    assert_ne!(namespace[104..120], [0; 16]);
    assert_eq!(host.run(identify(2, 0), &[]).data[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    let descriptors = host.run(identify(3, 1), &[]).data;
    assert_eq!(descriptors[..4], [2, 16, 0, 0]);
    assert_eq!(descriptors[4..20], namespace[104..120]);
    assert_eq!(host.run(identify(6, 1), &[]).status, 0x4002);
    assert_eq!(host.run(identify(0, 2), &[]).status, 0x400B);

    // One I/O queue requested, more than available requested, keep alive, an empty log.
    let queues =
        |number: u32| Entry { opcode: 9, dwords: [7, number, 0, 0, 0, 0], ..Entry::default() };
    assert_eq!(host.run(queues(0), &[]).result, 0);
    assert_eq!(host.run(queues(0x00FF_00FF), &[]).result, 0x0003_0003);
    assert_eq!(host.run(Entry { opcode: 0x18, ..Entry::default() }, &[]).status, 0);
    let log = Entry { opcode: 2, len: 512, dwords: [0x7F << 16 | 3, 0, 0, 0, 0, 0], nsid: 0 };
    assert_eq!(host.run(log, &[]).data, [0; 512]);
    assert_eq!(host.run(Entry { opcode: 0x80, ..Entry::default() }, &[]).status, 0x4001);
    // An event never comes, and nothing waits for it.
    host.send(Entry { opcode: 0x0C, ..Entry::default() }, &[]);
    assert_eq!(host.run(Entry { opcode: 0x18, ..Entry::default() }, &[]).status, 0);
}

#[test]
fn one_mutex_of_two_hosts() {
    let bench = Bench::new();
    let (mut a, mut b) = (bench.admin("a.0"), bench.admin("b.0"));
    assert_ne!(a.controller, b.controller);
    assert_eq!(a.trylock(b'A'), 0);
    assert_eq!(a.trylock(b'A'), 0x1CB);
    assert_eq!(b.trylock(b'B'), 0x1CA);
    // BREAK.
    assert_eq!(b.run(idm(0xC1, 0x80, 0x160), &record(b'B')).status, 0x1CA);
    let table = b.run(idm(0xC2, 0x100, 0x110), &[]);
    assert_eq!((table.status, table.data.len()), (0, 1024));
    let mut expected = record(b'A');
    expected[6..8].copy_from_slice(&[1, 1]);
    assert_eq!(table.data[..512], expected);
    assert_eq!(table.data[512..520], [0, 0, 0, 0, 0, 0, 0xDE, 0xAD]);
    let counters = b.run(idm(0xC2, 0x80, 0xFF10), &[]);
    assert_eq!(counters.data[..4], [0, 1, 0, 1]);
    bench.order("skip-time d0 10000");
    assert_eq!(b.run(idm(0xC1, 0x80, 0x160), &record(b'B')).status, 0);
    // REFRESH by the host that was broken.
    assert_eq!(a.run(idm(0xC1, 0x80, 0x150), &record(b'A')).status, 0x1CA);
    assert_eq!(a.run(Entry { nsid: 1, ..idm(0xC1, 0x80, 0x120) }, &record(b'A')).status, 0x400B);
    let events = bench.order("events d0");
    let told: Vec<&str> = events.lines().map(|line| line.split("  ").nth(2).unwrap()).collect();
    let expected = [
        "trylock",
        "trylock",
        "trylock",
        "break",
        "read-table",
        "read-counters",
        "break",
        "refresh",
    ];
    assert_eq!(told, expected);
    assert!(events.lines().nth(2).unwrap().contains("  b.0  "), "{events}");
    assert!(events.lines().nth(2).unwrap().ends_with("  1ca"), "{events}");
    // Clears everything.
    assert_eq!(a.run(idm(0xC1, 0x80, 0xFF00), &[0; 512]).status, 0);
    assert_eq!(bench.order("table d0").lines().count(), 1);
}

#[test]
fn a_drive_without_idm_has_none() {
    let bench = Bench::new();
    let mut host = Host::connect(bench.ports["a.0"], WITHOUT_IDM, 0, 0xFFFF).unwrap();
    assert_eq!(host.run(identify(1, 0), &[]).data[4095], 0);
    assert_eq!(host.trylock(b'A'), 0x4001);
    assert_eq!(host.run(idm(0xC2, 0x80, 0x110), &[]).status, 0x4001);
    assert_eq!(host.run(identify(3, 1), &[]).data[..4], [1, 8, 0, 0]);
}

#[test]
fn blocks_are_read_back_until_they_are_deallocated() {
    let bench = Bench::new();
    let admin = bench.admin("a.0");
    let mut host = Host::connect(bench.ports["a.0"], NQN, 1, admin.controller).unwrap();
    let data: Vec<u8> = (0..300u32 << 10).map(|i| ((i * 7) >> 5) as u8).collect();
    let count = (data.len() / 512) as u32;
    assert_eq!(host.run_with_transfer(blocks(1, 100, count), &data).status, 0);
    let read = host.run(blocks(2, 100, count), &[]);
    assert!(read.status == 0 && read.data == data);
    // Data in the capsule.
    assert_eq!(host.run(blocks(1, 100, 16), &[9; 8192]).status, 0);
    assert_eq!(host.run(blocks(2, 115, 2), &[]).data[..], [&[9; 512], &data[8192..8704]].concat());
    // Write Zeroes, then Dataset Management with one range.
    let zeroes = Entry { len: 0, ..blocks(8, 100, 8) };
    assert_eq!(host.run(zeroes, &[]).status, 0);
    let mut range = vec![0; 4];
    range.extend(8u32.to_le_bytes());
    range.extend(108u64.to_le_bytes());
    let deallocate = Entry { opcode: 9, nsid: 1, len: 16, dwords: [0, 4, 0, 0, 0, 0] };
    assert_eq!(host.run(deallocate, &range).status, 0);
    assert_eq!(host.run(blocks(2, 100, 16), &[]).data, [0; 8192]);
    assert_eq!(host.run(Entry { opcode: 0, nsid: 1, ..Entry::default() }, &[]).status, 0);
    for past in [blocks(2, 32768, 1), blocks(2, 32767, 2), blocks(8, 32768, 1)] {
        assert_eq!(host.run(past, &[]).status, 0x4080);
    }
    assert_eq!(host.run(Entry { nsid: 2, ..blocks(2, 0, 1) }, &[]).status, 0x400B);
    // Mutex commands belong on the admin queue.
    assert_eq!(host.run(Entry { nsid: 1, ..idm(0xC1, 0x80, 0x120) }, &record(1)).status, 0x4001);
    // The I/O queues end with the admin queue.
    admin.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(host.is_closed());
}

#[test]
fn what_is_not_there_cannot_be_connected() {
    let bench = Bench::new();
    let address = bench.ports["a.0"];
    for (nqn, queue, controller) in
        [("nqn.other", 0, 0xFFFF), (NQN, 0, 1), (NQN, 1, 0xFFFF), (NQN, 1, 77)]
    {
        let error = Host::connect(address, nqn, queue, controller).err().unwrap();
        assert!(error.to_string().contains("0x4182"), "{error}");
    }
}

#[test]
fn faults_are_for_their_host_and_command() {
    let bench = Bench::new();
    let (mut a, mut b) = (bench.admin("a.0"), bench.admin("b.0"));
    bench.order("fault d0 a trylock fail 1c6 1");
    assert_eq!(a.trylock(b'A'), 0x1C6);
    bench.order("fault d0 a mutex cut");
    assert_eq!(a.trylock(b'A'), 0x4370);
    assert_eq!(a.run(identify(1, 0), &[]).status, 0);
    assert_eq!(bench.order("table d0").lines().count(), 1);
    bench.order("lift");
    bench.order("fault d0 a mutex delay 300");
    let begin = Instant::now();
    assert_eq!(a.trylock(b'A'), 0);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(b.trylock(b'B'), 0x1CA);

    // A command that hangs does not block others, and is answered when it may go on.
    bench.order("lift");
    bench.order("fault d0 a mutex hang");
    let hung = a.send(idm(0xC1, 0x80, 0x150), &record(b'A'));
    assert_eq!(a.run(identify(1, 0), &[]).status, 0);
    bench.order("lift");
    assert_eq!(a.completion(hung).unwrap().status, 0);

    // A lost reply: the drive has carried the command out.
    bench.order("fault d0 b mutex lose-reply");
    bench.order("skip-time d0 20000");
    let lost = b.send(idm(0xC1, 0x80, 0x160), &record(b'B'));
    while bench.order("events d0").lines().filter(|line| line.contains("  break  ")).count() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.order("lift");
    assert_eq!(b.completion(lost).unwrap().status, 0x4370);
    assert_eq!(a.run(idm(0xC1, 0x80, 0x150), &record(b'A')).status, 0x1CA);
}

#[test]
fn what_hangs_ends_with_its_connection() {
    let bench = Bench::new();
    let mut a = bench.admin("a.0");
    bench.order("fault d0 a mutex hang");
    a.send(idm(0xC1, 0x80, 0x120), &record(b'A'));
    assert_eq!(a.run(identify(1, 0), &[]).status, 0);
    drop(a);
    while !bench.order("ports").is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.order("lift");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(bench.order("table d0").lines().count(), 1, "it was executed after its end");
}

#[test]
fn an_absent_drive_closes_and_refuses_connections() {
    let bench = Bench::new();
    let (mut a, mut b) = (bench.admin("a.0"), bench.admin("b.0"));
    // The thread of a connection registers it, perhaps shortly after its first answer.
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.order("ports") != "a.0\nb.0\n" {
        assert!(Instant::now() < deadline, "the connections are not noted");
        thread::sleep(Duration::from_millis(1));
    }
    bench.order("fault d0 a * absent");
    assert!(a.is_closed());
    assert!(Host::connect(bench.ports["a.0"], NQN, 0, 0xFFFF).is_err());
    assert!(Host::connect(bench.ports["a.0"], WITHOUT_IDM, 0, 0xFFFF).is_ok());
    assert_eq!(b.trylock(b'B'), 0);
    bench.order("fault d0 a * none");
    assert_eq!(bench.admin("a.0").trylock(b'A'), 0x1CA);
}

#[test]
fn a_silent_host_is_forgotten() {
    let bench = Bench::new();
    let mut stream = Host::raw(bench.ports["a.0"]).unwrap();
    let mut request = vec![0, 0, 128, 0, 128, 0, 0, 0];
    request.resize(128, 0);
    stream.write_all(&request).unwrap();
    stream.read_exact(&mut [0; 128]).unwrap();
    let mut host = Host { stream, controller: 0, last: 0 };
    let mut data = vec![0; 1024];
    data[16..18].fill(0xFF);
    data[256..256 + NQN.len()].copy_from_slice(NQN.as_bytes());
    let mut entry = Entry { opcode: 0x7F, ..Entry::default() }.bytes(0, 1, 1024);
    entry[4] = 1;
    entry[44] = 31;
    // Keep alive every 50 ms.
    entry[48] = 50;
    host.capsule(&entry, &data).unwrap();
    assert_eq!(host.completion(0).unwrap().status, 0);
    assert!(host.is_closed());
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    let bench = Bench::new();
    let mut seed = 0x1234_5678_9ABC_DEF0_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..300 {
        // The first ones come before a connection is set up, the others on an admin queue.
        let mut stream = if round % 3 == 0 {
            Host::raw(bench.ports["a.0"]).unwrap()
        } else {
            bench.admin("a.0").stream
        };
        let mut bytes: Vec<u8> = (0..random() % 300).map(|_| random() as u8).collect();
        if let (1, Some(first)) = (round % 2, bytes.first_chunk_mut::<8>()) {
            // A header that is almost correct.
            let kind = [0, 4, 6][(random() % 3) as usize];
            let len = [128, 72, 24][(random() % 3) as usize];
            *first = [kind, 0, len, [0, len, 25][(random() % 3) as usize], random() as u8, 0, 0, 0];
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert_eq!(bench.admin("a.0").run(identify(1, 0), &[]).status, 0);
}
