//! One TCP connection, which is one queue of one controller.

use crate::controller::{Controller, Done, admin, fabrics, kind_of};
use crate::pdu::{self, FromHost, Sqe};
use crate::subsystem::QUEUE_DEPTH;
use crate::{Target, lock};
use idm_emulator::Nonsense;
use idm_emulator::disks::faults::{Failure, Kind};
use idm_emulator::disks::{Answer, BLOCK, Command, Connection, Disk, Gate, MOST_BLOCKS};
use idm_emulator::nvme::status;
use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Connect Invalid Parameters: command specific, with "do not retry".
const CONNECT_INVALID: u16 = 0x4182;
/// Connect Controller Busy: command specific, may be tried again. A closed connection would not do:
/// Linux waits 60 s for the answer to Connect.
const CONNECT_BUSY: u16 = 0x0181;
/// What Linux itself says of a command whose path is gone (Host Pathing Error), with "do not
/// retry", so that it is told at once.
const PATH_LOST: u16 = 0x4370;
/// Command Abort Requested.
const ABORTED: u16 = 0x4007;
/// Commands of one queue whose data has been asked for.
const MOST_TRANSFERS: usize = QUEUE_DEPTH as usize;
/// A host that says nothing for so many keep-alive times is gone. The specification has 1; hosts
/// here are emulated and may be slow.
const KEEP_ALIVES: u32 = 4;

/// Serves a port on `listener` for ever.
pub fn serve(target: &Arc<Target>, name: &str, listener: TcpListener) -> io::Result<()> {
    let (target, name) = (Arc::clone(target), name.to_owned());
    thread::Builder::new().name(name.clone()).spawn(move || {
        for stream in listener.incoming() {
            let (target, port) = (Arc::clone(&target), name.clone());
            let served = stream.and_then(|stream| {
                thread::Builder::new().name(name.clone()).spawn(move || {
                    if let Err(error) = serve_one(&target, &port, stream) {
                        eprintln!("port {port}: a connection ended: {error}");
                    }
                })
            });
            if let Err(error) = served {
                eprintln!("port {name}: {error}");
                // Nothing that comes again at once may become a busy loop.
                thread::sleep(Duration::from_millis(100));
            }
        }
    })?;
    Ok(())
}

/// The sending side of a connection.
pub(crate) struct Wire {
    stream: Mutex<TcpStream>,
    /// Ends the connection without waiting for who sends.
    control: TcpStream,
    /// Where the host's submission queue is read next.
    head: AtomicU16,
    /// Entries that the queue has.
    size: AtomicU16,
}

impl Wire {
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        lock(&self.stream).write_all(bytes)
    }

    fn complete(&self, command: &Sqe, done: &Done) -> io::Result<()> {
        let room = command.data_len() as usize;
        let shown = &done.data[..done.data.len().min(room)];
        let mut bytes = Vec::new();
        if done.status == 0 {
            bytes.extend(pdu::data(command.command(), shown));
        }
        let size = self.size.load(Ordering::Relaxed).max(1);
        // The stream's lock keeps this in the order of sending.
        let mut stream = lock(&self.stream);
        let head = (self.head.load(Ordering::Relaxed) + 1) % size;
        self.head.store(head, Ordering::Relaxed);
        bytes.extend(pdu::completion(command.command(), done.status, done.result, head));
        stream.write_all(&bytes)
    }

    pub(crate) fn shut_down(&self) {
        // It may be closed already.
        let _ = self.control.shutdown(Shutdown::Both);
    }
}

/// A command with its data, and where its answer goes.
struct Request {
    wire: Arc<Wire>,
    controller: Arc<Controller>,
    port: String,
    /// Whether it came by the admin queue.
    admin: bool,
    command: Sqe,
    data: Vec<u8>,
}

impl Command for Request {
    type Reply = Done;

    fn disk(&self) -> &Disk {
        &self.controller.subsystem.disk
    }

    fn kind(&self) -> Kind {
        kind_of(&self.command, self.admin)
    }

    fn execute(&self) -> Done {
        if self.admin {
            self.controller.admin(&self.port, &self.command, &self.data)
        } else {
            self.controller.io(&self.port, &self.command, &self.data)
        }
    }

    fn spoil(done: &mut Done, nonsense: &mut Nonsense) {
        nonsense.spoil_nvme(&mut done.status, &mut done.data);
    }

    fn answer(self, answer: Answer<Done>) -> io::Result<()> {
        let done = match answer {
            Answer::Reply(done) => done,
            Answer::Failure(Failure::Nvme(status)) => Done::refused(status),
            // A rule with a SCSI status is only made for SCSI drives.
            Answer::Cut | Answer::Absent | Answer::Failure(Failure::Scsi(_)) => {
                Done::refused(PATH_LOST)
            }
            Answer::Aborted => Done::refused(ABORTED),
        };
        self.wire.complete(&self.command, &done)
    }
}

/// A connection whose queue belongs to a controller.
struct Queue {
    target: Arc<Target>,
    wire: Arc<Wire>,
    controller: Arc<Controller>,
    admin: bool,
    gate: Gate<Request>,
}

impl Connection for Queue {
    fn rules_changed(&self) {
        self.gate.rules_changed();
        if self.is_absent() {
            self.wire.shut_down();
        }
    }
}

/// A command that waits for its data.
struct Transfer {
    command: Sqe,
    data: Vec<u8>,
    received: u32,
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn serve_one(target: &Arc<Target>, port: &str, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let wire = Arc::new(Wire {
        control: stream.try_clone()?,
        stream: Mutex::new(stream),
        head: AtomicU16::new(0),
        size: AtomicU16::new(QUEUE_DEPTH),
    });
    match FromHost::read(&mut reader)? {
        Some(FromHost::Initialize { format: 0 }) => wire.send(&pdu::initialized())?,
        Some(_) => return Err(invalid("the first unit is not ICReq of format 0")),
        None => return Ok(()),
    }
    let (command, data) = match FromHost::read(&mut reader)? {
        Some(FromHost::Command(command, data)) => (command, data),
        Some(_) => return Err(invalid("the second unit is no command")),
        None => return Ok(()),
    };
    let Some(queue) = connect(target, port, &wire, &command, &data)? else {
        return Ok(());
    };
    let result = queue.run(&mut reader, &command);
    wire.shut_down();
    result
}

/// Looks at Connect, the first command of every connection. `None` where it was refused; what it
/// makes is to be answered.
fn connect(
    target: &Arc<Target>,
    port: &str,
    wire: &Arc<Wire>,
    command: &Sqe,
    data: &[u8],
) -> io::Result<Option<Arc<Queue>>> {
    const DATA_LEN: usize = 1024;
    const NEW: u16 = 0xFFFF;
    let is_connect =
        command.opcode() == admin::FABRICS && command.fabrics_type() == fabrics::CONNECT;
    let refuse = |status| wire.complete(command, &Done::refused(status)).map(|()| None);
    if !is_connect || data.len() < DATA_LEN {
        return refuse(CONNECT_INVALID);
    }
    let text = |at: usize| {
        let field = &data[at..at + 256];
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    let (queue_id, size, keep_alive_ms) =
        (command.u16_at(42), command.u16_at(44), command.u32_at(48));
    let controller_id = u16::from_le_bytes([data[16], data[17]]);
    let (subsystem, host) = (text(256), text(512));
    let Some(subsystem) = target.subsystem(&subsystem) else {
        return refuse(CONNECT_INVALID);
    };
    let absent = |rules: &mut idm_emulator::disks::faults::Rules| {
        rules.is_absent(subsystem.disk.name(), port)
    };
    if target.floor.with_rules_quietly(absent) {
        return refuse(CONNECT_BUSY);
    }
    if size == 0 || size >= QUEUE_DEPTH {
        return refuse(CONNECT_INVALID);
    }
    wire.size.store(size + 1, Ordering::Relaxed);
    let admin = queue_id == 0;
    let controller = if admin {
        if controller_id != NEW {
            return refuse(CONNECT_INVALID);
        }
        target.new_controller(subsystem, &host)
    } else {
        target
            .controller(controller_id)
            .filter(|known| Arc::ptr_eq(&known.subsystem, subsystem) && known.host == host)
    };
    let Some(controller) = controller else {
        return refuse(CONNECT_INVALID);
    };
    if admin && keep_alive_ms > 0 {
        let silence = Duration::from_millis(u64::from(keep_alive_ms)) * KEEP_ALIVES;
        wire.control.set_read_timeout(Some(silence))?;
    }
    controller.add_queue(wire);
    Ok(Some(Arc::new(Queue {
        target: Arc::clone(target),
        wire: Arc::clone(wire),
        controller,
        admin,
        gate: Gate::new(Arc::clone(&target.floor), port),
    })))
}

impl Queue {
    fn is_absent(&self) -> bool {
        let (disk, port) = (self.controller.subsystem.disk.name(), self.gate.port());
        self.target.floor.with_rules_quietly(|rules| rules.is_absent(disk, port))
    }

    /// Answers Connect, and serves the host until the connection ends.
    fn run(self: &Arc<Queue>, reader: &mut BufReader<TcpStream>, connect: &Sqe) -> io::Result<()> {
        let floor = &self.target.floor;
        let connection = floor.connect(self.gate.port(), Arc::clone(self) as Arc<dyn Connection>);
        let releaser = {
            let queue = Arc::clone(self);
            thread::Builder::new().name("held".into()).spawn(move || queue.gate.release())
        };
        // A rule may have been made between Connect and the floor's knowing of us.
        self.rules_changed();
        let result = u64::from(self.controller.id);
        let served = match &releaser {
            Ok(_) => self
                .wire
                .complete(connect, &Done { result, ..Done::default() })
                .and_then(|()| self.listen(reader)),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        floor.disconnect(connection);
        self.gate.close();
        if self.admin {
            self.target.remove_controller(self.controller.id);
            self.controller.disconnect();
        }
        if let Ok(releaser) = releaser {
            let _ = releaser.join();
        }
        served
    }

    fn listen(&self, reader: &mut BufReader<TcpStream>) -> io::Result<()> {
        let mut transfers: BTreeMap<u16, Transfer> = BTreeMap::new();
        loop {
            match FromHost::read(reader) {
                Ok(None) => return Ok(()),
                Ok(Some(FromHost::Initialize { .. })) => return Err(invalid("a second ICReq")),
                Ok(Some(FromHost::Command(command, data))) => {
                    if !command.wants_to_send() {
                        self.treat(command, data)?;
                        continue;
                    }
                    let (id, len) = (command.command(), command.data_len());
                    if u64::from(len) > MOST_BLOCKS * BLOCK {
                        self.wire.complete(&command, &Done::refused(status::INVALID_FIELD))?;
                        continue;
                    }
                    if transfers.len() >= MOST_TRANSFERS || transfers.contains_key(&id) {
                        return Err(invalid("more commands than the queue has"));
                    }
                    let data = vec![0; len as usize];
                    transfers.insert(id, Transfer { command, data, received: 0 });
                    // The command's identifier does for a tag, as it has one transfer.
                    self.wire.send(&pdu::ready_to_transfer(id, id, len))?;
                }
                Ok(Some(FromHost::Data { command: id, tag, offset, data })) => {
                    let transfer = transfers
                        .get_mut(&id)
                        .filter(|_| tag == id)
                        .ok_or_else(|| invalid("data that was not asked for"))?;
                    let at = offset as usize;
                    // In order, as the specification has it: each byte once.
                    if offset != transfer.received {
                        return Err(invalid("data out of order"));
                    }
                    transfer
                        .data
                        .get_mut(at..at + data.len())
                        .ok_or_else(|| invalid("more data than was asked for"))?
                        .copy_from_slice(&data);
                    transfer.received += data.len() as u32;
                    if transfer.received as usize == transfer.data.len() {
                        if let Some(transfer) = transfers.remove(&id) {
                            self.treat(transfer.command, transfer.data)?;
                        }
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("host {} has not been heard for long", self.controller.host),
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn treat(&self, command: Sqe, data: Vec<u8>) -> io::Result<()> {
        // What keeps the connection is the target's, not the drive's: no rule is for it.
        if self.admin {
            match command.opcode() {
                admin::FABRICS => {
                    return self.wire.complete(&command, &self.controller.property(&command));
                }
                admin::KEEP_ALIVE => return self.wire.complete(&command, &Done::default()),
                // Answered when something happens, which nothing does.
                admin::ASYNC_EVENT => return Ok(()),
                _ => {}
            }
        }
        self.gate.treat(Request {
            wire: Arc::clone(&self.wire),
            controller: Arc::clone(&self.controller),
            port: self.gate.port().to_owned(),
            admin: self.admin,
            command,
            data,
        })
    }
}
