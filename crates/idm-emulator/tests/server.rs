//! The server in this process, and the program with its signals.

mod common;

use common::{EX, L0, SH, host, payload, storing};
use idm_emulator::client::{self, Client, Error};
use idm_emulator::server::{DriveSpec, Server, control_socket, drive_socket};
use idm_protocol::reservation::ReservationType;
use idm_protocol::reservation::scsi::{ChangeAction, ParameterList, change};
use idm_protocol::{MutexOp, RECORD_LEN, Record, State, parse_table, scsi};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);
const GOOD: u8 = 0x00;
const CONFLICT: u8 = 0x18;

/// A server with two drives in its own directory.
struct Lab {
    server: Option<Server>,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let drives = ["d0", "d1=rev2313"].map(|text| DriveSpec::parse(text).unwrap());
        let server = Some(Server::start(dir.path(), &drives).unwrap());
        Lab { server, dir }
    }

    fn client(&self, name: &str) -> Client {
        Client::connect(drive_socket(self.dir.path(), name)).unwrap()
    }

    /// Sends a command to the control socket.
    fn ctl(&self, line: &str) -> String {
        client::control(self.dir.path(), line).unwrap().unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    fn refused(&self, line: &str) -> String {
        client::control(self.dir.path(), line).unwrap().unwrap_err()
    }
}

fn try_send(
    client: &mut Client,
    op: MutexOp,
    payload: &Record,
    timeout: Duration,
) -> Result<u8, Error> {
    client.execute(&scsi::mutex(op), &payload.encode(), 0, timeout).map(|reply| reply.status)
}

fn send(client: &mut Client, op: MutexOp, payload: &Record) -> u8 {
    try_send(client, op, payload, PATIENCE).unwrap()
}

fn table(client: &mut Client) -> Vec<Record> {
    let reply = client.execute(&scsi::read_table(8), &[], 8 * RECORD_LEN, PATIENCE).unwrap();
    assert_eq!((reply.status, reply.data.len()), (GOOD, 8 * RECORD_LEN));
    parse_table(&reply.data)
}

/// Waits for a change that another thread makes.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never happened that {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn two_clients_and_the_death_of_one() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.client("d0"), lab.client("d0"));
    let lock = |by| payload(L0, EX, host(by), 60_000);
    assert_eq!(send(&mut a, MutexOp::Trylock, &lock(1)), GOOD);
    assert_eq!(send(&mut b, MutexOp::Trylock, &lock(2)), CONFLICT);
    drop(a);
    // The record outlives its client, and only time lets others in.
    assert_eq!(send(&mut b, MutexOp::Break, &lock(2)), CONFLICT);
    assert_eq!(table(&mut b)[0].host, host(1));
    lab.ctl("skip-time d0 60000");
    assert_eq!(table(&mut b)[0].state, State::TimedOut);
    assert_eq!(send(&mut b, MutexOp::Break, &lock(2)), GOOD);
    assert_eq!(table(&mut lab.client("d0"))[0].host, host(2));
    // The other drive does not know the record, and has another firmware generation.
    let mut other = lab.client("d1");
    assert_eq!(table(&mut other), []);
    let page = |client: &mut Client| {
        let cdb = scsi::inquire_version();
        let reply = client.execute(&cdb, &[], scsi::VERSION_PAGE_LEN, PATIENCE);
        scsi::version(&reply.unwrap().data)
    };
    assert_eq!((page(&mut b), page(&mut other)), (Some(8), Some(1)));
}

#[test]
fn many_clients_at_once_share_one_table() {
    let lab = Lab::new();
    let threads: Vec<_> = (0..8)
        .map(|by| {
            let mut client = lab.client("d0");
            thread::spawn(move || {
                let lock = payload(L0, EX, host(by), 60_000);
                let mut granted = 0;
                for _ in 0..50 {
                    if send(&mut client, MutexOp::Trylock, &lock) == GOOD {
                        granted += 1;
                        let holders = table(&mut client);
                        assert_eq!((holders.len(), holders[0].host), (1, host(by)));
                        assert_eq!(send(&mut client, MutexOp::Unlock, &lock), GOOD);
                    }
                }
                granted
            })
        })
        .collect();
    let granted: u64 = threads.into_iter().map(|t| t.join().unwrap()).sum();
    assert!(granted > 0);
    let stats = lab.ctl("stats d0");
    assert!(stats.contains("trylock 400\n"), "{stats}");
    assert!(stats.contains(&format!("unlock {granted}\n")), "{stats}");
}

#[test]
fn the_table_for_people() {
    let lab = Lab::new();
    let mut client = lab.client("d0");
    assert_eq!(lab.ctl("table d0").lines().count(), 1);
    let lock = storing(42, payload(L0, SH, host(1), 60_000));
    send(&mut client, MutexOp::Trylock, &lock);
    send(&mut client, MutexOp::Trylock, &payload(L0, SH, host(2), 0));
    let text = lab.ctl("table d0");
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split("  ").collect()).collect();
    assert!(text.starts_with("RESOURCE"), "{text}");
    assert_eq!(rows.len(), 3);
    for (word, row) in [("locked", 1), ("sh", 1), ("42", 1), ("timed-out", 2), ("0.0 s", 2)] {
        let found = rows[row].iter().any(|cell| cell.trim() == word);
        assert!(found, "{word} is not in line {row} of\n{text}");
    }
    lab.ctl("reset d0");
    assert_eq!(table(&mut client), []);
}

#[test]
fn hanging_commands() {
    let lab = Lab::new();
    lab.ctl("hang d0 on");
    let lock = payload(L0, EX, host(1), 60_000);
    // One client gives up: its command is aborted. One waits: its command is executed in the end.
    let mut gone = lab.client("d0");
    let error = try_send(&mut gone, MutexOp::Trylock, &lock, SHORT).unwrap_err();
    assert!(matches!(error, Error::FateUnknown(e) if e.kind() == std::io::ErrorKind::TimedOut));
    drop(gone);
    let mut patient = lab.client("d0");
    let (sender, receiver) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let status = send(&mut patient, MutexOp::Trylock, &payload(L0, EX, host(2), 60_000));
        sender.send(()).unwrap();
        status
    });
    eventually("both commands arrived", || lab.ctl("stats d0").contains("trylock 2\n"));
    assert!(receiver.recv_timeout(SHORT).is_err());
    // Other drives do not hang.
    assert_eq!(table(&mut lab.client("d1")), []);
    lab.ctl("hang d0 off");
    assert_eq!(waiting.join().unwrap(), GOOD);
    let holders = table(&mut lab.client("d0"));
    assert_eq!((holders.len(), holders[0].host), (1, host(2)));
}

#[test]
fn a_delayed_command_takes_effect_although_its_client_has_gone() {
    let lab = Lab::new();
    lab.ctl("delay d0 150");
    let mut client = lab.client("d0");
    let lock = payload(L0, EX, host(1), 60_000);
    let start = Instant::now();
    assert_eq!(send(&mut client, MutexOp::Trylock, &lock), GOOD);
    assert!(start.elapsed() >= Duration::from_millis(150));
    let error = try_send(&mut client, MutexOp::Unlock, &lock, SHORT).unwrap_err();
    assert!(matches!(error, Error::FateUnknown(_)));
    lab.ctl("delay d0 0");
    drop(client);
    let mut other = lab.client("d0");
    eventually("the late UNLOCK took effect", || table(&mut other)[0].state == State::Unlocked);
}

#[test]
fn failing_commands() {
    let lab = Lab::new();
    let mut client = lab.client("d0");
    let lock = payload(L0, EX, host(1), 60_000);
    lab.ctl("fail d0 08 2");
    assert_eq!(send(&mut client, MutexOp::Trylock, &lock), 0x08);
    assert_eq!(send(&mut client, MutexOp::Trylock, &lock), 0x08);
    assert_eq!(table(&mut client), []);
    lab.ctl("fail d0 02 1 6/29/0");
    let reply = client.execute(&scsi::mutex(MutexOp::Trylock), &lock.encode(), 0, PATIENCE);
    let reply = reply.unwrap();
    assert_eq!((reply.status, &reply.sense[..4]), (0x02, &[0x72, 6, 0x29, 0][..]));
    lab.ctl("fail d0 2 1");
    let reply = client.execute(&scsi::read_table(1), &[], RECORD_LEN, PATIENCE);
    assert_eq!(reply.unwrap().sense[1], 0x0B);
    assert_eq!(send(&mut client, MutexOp::Trylock, &lock), GOOD);
}

#[test]
fn a_lost_reply_has_an_effect() {
    let lab = Lab::new();
    let mut client = lab.client("d0");
    let lock = payload(L0, EX, host(1), 60_000);
    lab.ctl("lose-reply d0 1");
    let error = try_send(&mut client, MutexOp::Trylock, &lock, PATIENCE).unwrap_err();
    assert!(matches!(error, Error::FateUnknown(_)), "{error}");
    // The same client continues on a new connection.
    assert_eq!(table(&mut client)[0].host, host(1));
}

#[test]
fn power() {
    let lab = Lab::new();
    let mut client = lab.client("d0");
    let mut idle = lab.client("d0");
    let lock = payload(L0, EX, host(1), 60_000);
    assert_eq!(send(&mut client, MutexOp::Trylock, &lock), GOOD);
    lab.ctl("power d0 off");
    lab.ctl("power d0 off");
    // Neither an old connection nor a new one reaches it, and the host knows this.
    for client in [&mut client, &mut idle] {
        let error = try_send(client, MutexOp::Unlock, &lock, PATIENCE).unwrap_err();
        assert!(matches!(error, Error::NotSent(_)), "{error}");
    }
    assert!(Client::connect(drive_socket(lab.dir.path(), "d0")).is_err());
    lab.ctl("power d0 on");
    lab.ctl("power d0 on");
    // The table is still there.
    for client in [&mut client, &mut idle] {
        assert_eq!(table(client)[0].state, State::Locked);
    }
}

#[test]
fn power_off_ends_hanging_and_delayed_commands() {
    let lab = Lab::new();
    for fault in ["hang d0 on", "delay d0 3600000"] {
        lab.ctl("power d0 on");
        lab.ctl(fault);
        let mut client = lab.client("d0");
        let before = lab.ctl("stats d0");
        let waiting = thread::spawn(move || {
            try_send(&mut client, MutexOp::Trylock, &payload(L0, EX, host(1), 0), PATIENCE)
        });
        eventually("the command arrived", || lab.ctl("stats d0") != before);
        lab.ctl("power d0 off");
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::FateUnknown(_)), "{error}");
        lab.ctl("hang d0 off");
    }
    lab.ctl("delay d0 0");
    lab.ctl("power d0 on");
    assert_eq!(table(&mut lab.client("d0")), []);
}

#[test]
fn malformed_frames_end_their_connection_only() {
    let lab = Lab::new();
    let mut good = lab.client("d0");
    for bytes in [
        // Too long, too short for its header, a CDB longer than the frame, no CDB at all.
        &[0xFF, 0xFF, 0xFF, 0xFF, 0, 0][..],
        &[0, 0, 0, 2, 6, 0],
        &[0, 0, 0, 6, 16, 0, 0, 0, 0, 0x12],
        &[0, 0, 0, 5, 0, 0, 0, 0, 0],
        // Room for more than a drive ever sends.
        &[0, 0, 0, 6, 1, 0xFF, 0, 0, 0, 0],
    ] {
        let mut bad = UnixStream::connect(drive_socket(lab.dir.path(), "d0")).unwrap();
        bad.set_read_timeout(Some(PATIENCE)).unwrap();
        bad.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        // The end of the stream, or its reset because the server did not read everything.
        match bad.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, []),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
        }
        assert_eq!(table(&mut good), []);
    }
    // Half a frame, and then nothing more: it is never executed.
    let half = {
        let mut bytes = vec![0, 0, 2, 21, 16, 0, 0, 0, 0];
        bytes.extend(scsi::mutex(MutexOp::Trylock));
        bytes.extend(&payload(L0, EX, host(1), 60_000).encode()[..511]);
        bytes
    };
    let mut bad = UnixStream::connect(drive_socket(lab.dir.path(), "d0")).unwrap();
    bad.write_all(&half).unwrap();
    drop(bad);
    assert_eq!(table(&mut good), []);
    // An unknown CDB is not malformed: the drive refuses it.
    let reply = good.execute(&[0xEE; 10], &[], 0, PATIENCE).unwrap();
    assert_eq!((reply.status, reply.sense[2]), (0x02, 0x20));
}

#[test]
fn a_request_that_cannot_be_framed_is_not_sent() {
    let lab = Lab::new();
    let mut client = lab.client("d0");
    for (cdb_len, room) in [(0, 0), (33, 0), (16, usize::MAX)] {
        let error = client.execute(&vec![0; cdb_len], &[], room, PATIENCE);
        assert!(matches!(error, Err(Error::NotSent(_))));
    }
    // Data beyond the host's buffer is cut off.
    let reply = client.execute(&scsi::read_table(4), &[], 700, PATIENCE);
    assert_eq!(reply.unwrap().data.len(), 700);
}

#[test]
fn control_commands_that_cannot_be() {
    let lab = Lab::new();
    for line in [
        "",
        "nonsense",
        "table",
        "table d9",
        "table d0 d1",
        "power d0 maybe",
        "power d9 on",
        "delay d0 x",
        "fail d0 zz 1",
        "fail d0 02 1 6/29",
        "lose-reply d0 -1",
    ] {
        let message = lab.refused(line);
        assert!(!message.is_empty(), "{line}");
    }
    assert!(lab.refused("table d9").contains("\"d9\""));
    let server = lab.server.as_ref().unwrap();
    assert!(server.control("help").unwrap().contains("skip-time"));
    assert_eq!(server.control("drives").unwrap(), "d0\nd1\n");
    assert_eq!(server.socket("d0"), drive_socket(lab.dir.path(), "d0"));
    // A line that never ends is not read to the end.
    let mut endless = UnixStream::connect(control_socket(lab.dir.path())).unwrap();
    let _ = endless.write_all(&[b'x'; 100_000]);
    assert_eq!(lab.ctl("stats d0"), "");
}

#[test]
fn drives_by_name() {
    assert_eq!(DriveSpec::parse("a=r00d").unwrap().name, "a");
    for text in ["", "=r00d", "a=none", "a/b", ".a", "control", "a b"] {
        assert!(DriveSpec::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn one_server_for_one_directory_and_nothing_left_behind() {
    let mut lab = Lab::new();
    let drives = [DriveSpec::parse("d5").unwrap()];
    let error = Server::start(lab.dir.path(), &drives).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let mut client = lab.client("d0");
    assert_eq!(table(&mut client), []);
    lab.server = None;
    assert_eq!(std::fs::read_dir(lab.dir.path()).unwrap().count(), 0);
    let error = try_send(&mut client, MutexOp::Trylock, &payload(L0, EX, host(1), 0), PATIENCE);
    assert!(matches!(error, Err(Error::NotSent(_))));
    // A socket that a killed server left is taken over; another file is not touched.
    drop(std::os::unix::net::UnixListener::bind(drive_socket(lab.dir.path(), "d5")).unwrap());
    let server = Server::start(lab.dir.path(), &drives).unwrap();
    assert_eq!(table(&mut lab.client("d5")), []);
    drop(server);
    std::fs::write(drive_socket(lab.dir.path(), "d5"), "precious").unwrap();
    assert!(Server::start(lab.dir.path(), &drives).is_err());
    assert!(drive_socket(lab.dir.path(), "d5").is_file());
    assert!(!control_socket(lab.dir.path()).exists());
    let twice = [drives[0].clone(), drives[0].clone()];
    assert!(Server::start(lab.dir.path(), &twice).is_err());
    assert!(!control_socket(lab.dir.path()).exists());
}

fn program(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_idm-emulator"));
    command.arg("--dir").arg(dir).args(arguments);
    command
}

/// Each port is an I_T nexus of its own. The drives of a server have no data, so a WRITE that is
/// let through is refused as unknown.
#[test]
fn reservations_tell_ports_apart() {
    const WRITE: [u8; 10] = [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let lab = Lab::new();
    let mut ports = ["a.0", "a.1", "b.0"].map(|port| lab.client("d0").by_port(port));
    let mut send = |port: usize, cdb: &[u8], data: &[u8]| {
        let reply = ports[port].execute(cdb, data, 512, PATIENCE).unwrap();
        (reply.status, scsi::Sense::decode(&reply.sense).map_or(0, |sense| sense.asc))
    };
    let list =
        |key, action_key| ParameterList { key, action_key, ..ParameterList::default() }.encode();
    let kind = Some(ReservationType::WriteExclusiveAllRegistrants);
    let register = change(ChangeAction::RegisterAndIgnore, None);
    assert_eq!(send(0, &register, &list(0, 0xA)).0, GOOD);
    assert_eq!(send(2, &register, &list(0, 0xB)).0, GOOD);
    assert_eq!(send(0, &change(ChangeAction::Reserve, kind), &list(0xA, 0)).0, GOOD);
    let (admitted, refused) = ((0x02, 0x20), (CONFLICT, 0));
    let writes: Vec<_> = (0..3).map(|port| send(port, &WRITE, &[0; 512])).collect();
    assert_eq!(writes, [admitted, refused, admitted]);
    assert_eq!(send(2, &change(ChangeAction::PreemptAndAbort, kind), &list(0xB, 0xA)).0, GOOD);
    assert_eq!(send(0, &WRITE, &[0; 512]), refused);
    // Its next command that does not conflict gets the condition.
    assert_eq!(send(0, &scsi::inquire_table(), &[]), (0x02, 0x2A));
    assert_eq!(send(0, &scsi::inquire_table(), &[]).0, GOOD);
    let shown = lab.ctl("reservations d0");
    assert!(shown.ends_with("write-exclusive-all-registrants\n0x000000000000000b  b.0  holder\n"));
    lab.ctl("power-cycle d0");
    assert_eq!(lab.ctl("reservations d0"), "generation 0\npersistent no\nreservation none\n");
    assert_eq!(send(0, &WRITE, &[0; 512]), (0x02, 0x29), "told of the power on");
    assert_eq!(send(0, &WRITE, &[0; 512]), admitted);
}

#[test]
fn the_program() {
    let dir = tempfile::tempdir().unwrap();
    let dir = &dir.path().join("made-by-the-program");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = program(dir, &["--drive", "d0", "--drive", "d1=current+busy"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let mut client = Client::connect(drive_socket(dir, "d1")).unwrap();
        assert_eq!(table(&mut client), []);
        let ctl = |words: &[&str]| program(dir, &[&["ctl"], words].concat()).output().unwrap();
        let output = ctl(&["drives"]);
        assert_eq!((output.status.success(), &output.stdout[..]), (true, &b"d0\nd1\n"[..]));
        let output = ctl(&["table", "d7"]);
        assert_eq!((output.status.success(), &output.stdout[..]), (false, &b""[..]));
        assert!(String::from_utf8_lossy(&output.stderr).contains("d7"));
        kill(Pid::from_raw(server.id() as i32), signal).unwrap();
        assert!(server.wait().unwrap().success());
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    }
}

#[test]
fn the_program_and_its_arguments() {
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_idm-emulator")).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (success, text) = run(&["profiles"]);
    assert!(success && text.lines().any(|line| line == "rev2313"));
    assert!(run(&["--help"]).1.contains("--drive"));
    for arguments in [
        &[][..],
        &["--drive", "d0"],
        &["--dir", "/tmp"],
        &["--dir", "/tmp", "--drive", "d0=nonsense"],
        &["ctl", "drives"],
        &["--nonsense"],
    ] {
        assert!(!run(arguments).0, "{arguments:?}");
    }
}
