//! One TCP connection, which is one queue of one controller.

use super::controller::{Controller, admin, fabrics, kind_of};
use super::pdu::{self, CommandOutcome, FromHost, Sqe};
use super::sender::Sender;
use super::subsystem::QUEUE_DEPTH;
use super::target::Target;
use idm_emulator::Nonsense;
use idm_emulator::disks::faults::{CommandKind, Failure, Rules};
use idm_emulator::disks::{
    BLOCK, Connection, Disk, Gate, MOST_BLOCKS, ServiceResponse, TargetCommand,
};
use idm_emulator::nvme::status;
use idm_emulator::reservation::nvme::Host;
use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Connect Invalid Parameters: command specific, with "do not retry".
const CONNECT_INVALID: u16 = 0x4182;
/// Connect Controller Busy: command specific, may be tried again. Closing the connection is not
/// enough: Linux waits 60 s for the answer to Connect.
const CONNECT_BUSY: u16 = 0x0181;
/// The status that Linux itself uses for a command whose path is gone (Host Pathing Error), with
/// "do not retry", so that the failure is reported at once.
const PATH_LOST: u16 = 0x4370;
/// Command Abort Requested.
const ABORTED: u16 = 0x4007;
/// Commands of one queue whose data may be requested at the same time.
const MOST_TRANSFERS: usize = QUEUE_DEPTH as usize;
/// Number of keep-alive times without a message after which a host is gone. The specification has
/// 1; hosts here are emulated and may be slow.
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
                // An error that comes again at once must not become a busy loop.
                thread::sleep(Duration::from_millis(100));
            }
        }
    })?;
    Ok(())
}

/// A command with its data, and the destination of its answer.
struct Request {
    sender: Arc<Sender>,
    controller: Arc<Controller>,
    port: String,
    /// Whether it came on the admin queue.
    admin: bool,
    command: Sqe,
    data: Vec<u8>,
}

impl TargetCommand for Request {
    type Reply = CommandOutcome;

    fn disk(&self) -> &Disk {
        &self.controller.subsystem.disk
    }

    fn kind(&self) -> CommandKind {
        kind_of(&self.command, self.admin)
    }

    fn execute(&self) -> CommandOutcome {
        if self.admin {
            self.controller.admin(&self.port, &self.command, &self.data)
        } else {
            self.controller.io(&self.port, &self.command, &self.data)
        }
    }

    fn spoil(done: &mut CommandOutcome, nonsense: &mut Nonsense) {
        nonsense.spoil_nvme(&mut done.status, &mut done.data);
    }

    fn answer(self, answer: ServiceResponse<CommandOutcome>) -> io::Result<()> {
        let done = match answer {
            ServiceResponse::Reply(done) => done,
            ServiceResponse::Failure(Failure::Nvme(status)) => CommandOutcome::refused(status),
            // Rules with a SCSI status are only made for SCSI drives.
            ServiceResponse::Cut
            | ServiceResponse::Absent
            | ServiceResponse::Failure(Failure::Scsi(_)) => CommandOutcome::refused(PATH_LOST),
            ServiceResponse::Aborted => CommandOutcome::refused(ABORTED),
        };
        self.sender.complete(&self.command, &done)
    }
}

/// A connection whose queue belongs to a controller.
struct Queue {
    target: Arc<Target>,
    sender: Arc<Sender>,
    controller: Arc<Controller>,
    admin: bool,
    gate: Gate<Request>,
}

impl Connection for Queue {
    fn rules_changed(&self) {
        self.gate.rules_changed();
        if self.is_absent() {
            self.sender.shut_down();
        }
    }
}

/// A command that waits for its data.
struct Transfer {
    command: Sqe,
    data: Vec<u8>,
    received: u32,
}

/// Commands that wait for their data, by their identifiers.
type Transfers = BTreeMap<u16, Transfer>;

/// Takes data for the command `id`. Returns the transfer when it is complete.
fn receive(
    transfers: &mut Transfers,
    id: u16,
    tag: u16,
    offset: u32,
    data: &[u8],
) -> io::Result<Option<Transfer>> {
    let transfer = transfers
        .get_mut(&id)
        .filter(|_| tag == id)
        .ok_or_else(|| invalid("data that was not asked for"))?;
    // In order, as the specification requires: each byte once.
    if offset != transfer.received {
        return Err(invalid("data out of order"));
    }
    let at = offset as usize;
    transfer
        .data
        .get_mut(at..at + data.len())
        .ok_or_else(|| invalid("more data than was asked for"))?
        .copy_from_slice(data);
    transfer.received += data.len() as u32;
    let complete = transfer.received as usize == transfer.data.len();
    Ok(if complete { transfers.remove(&id) } else { None })
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn serve_one(target: &Arc<Target>, port: &str, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let sender = Arc::new(Sender::new(stream)?);
    match FromHost::read(&mut reader)? {
        Some(FromHost::Initialize { format: 0 }) => sender.send(&pdu::initialized())?,
        Some(_) => return Err(invalid("the first unit is not ICReq of format 0")),
        None => return Ok(()),
    }
    let (command, data) = match FromHost::read(&mut reader)? {
        Some(FromHost::Command(command, data)) => (command, data),
        Some(_) => return Err(invalid("the second unit is no command")),
        None => return Ok(()),
    };
    let Some(queue) = connect(target, port, &sender, &command, &data)? else {
        return Ok(());
    };
    let result = queue.run(&mut reader, &command);
    sender.shut_down();
    result
}

/// The parameters of Connect.
struct ConnectRequest {
    queue_id: u16,
    /// Number of entries of the queue, less one.
    size: u16,
    keep_alive_ms: u32,
    controller_id: u16,
    subsystem: String,
    host: String,
    host_id: Host,
}

impl ConnectRequest {
    /// The controller identifier that requests a new controller.
    const NEW: u16 = 0xFFFF;

    /// Parses Connect. `None` if the command is not Connect, or its data is too short.
    fn parse(command: &Sqe, data: &[u8]) -> Option<ConnectRequest> {
        const DATA_LEN: usize = 1024;
        let is_connect =
            command.opcode() == admin::FABRICS && command.fabrics_type() == fabrics::CONNECT;
        if !is_connect || data.len() < DATA_LEN {
            return None;
        }
        let text = |at: usize| {
            let field = &data[at..at + 256];
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        Some(ConnectRequest {
            queue_id: command.u16_at(42),
            size: command.u16_at(44),
            keep_alive_ms: command.u32_at(48),
            controller_id: u16::from_le_bytes([data[16], data[17]]),
            subsystem: text(256),
            host: text(512),
            host_id: Host(*data.first_chunk()?),
        })
    }
}

/// Carries out Connect, the first command of every connection. The caller has to answer it on the
/// returned queue; `None` if it was refused.
fn connect(
    target: &Arc<Target>,
    port: &str,
    sender: &Arc<Sender>,
    command: &Sqe,
    data: &[u8],
) -> io::Result<Option<Arc<Queue>>> {
    let refuse = |status| sender.complete(command, &CommandOutcome::refused(status)).map(|()| None);
    let Some(request) = ConnectRequest::parse(command, data) else {
        return refuse(CONNECT_INVALID);
    };
    let Some(subsystem) = target.subsystem(&request.subsystem) else {
        return refuse(CONNECT_INVALID);
    };
    let absent = |rules: &mut Rules| rules.is_absent(subsystem.disk.name(), port);
    if target.enclosure.with_rules_quietly(absent) {
        return refuse(CONNECT_BUSY);
    }
    if request.size == 0 || request.size >= QUEUE_DEPTH {
        return refuse(CONNECT_INVALID);
    }
    sender.set_queue_size(request.size + 1);
    let admin = request.queue_id == 0;
    let controller = if admin {
        if request.controller_id != ConnectRequest::NEW {
            return refuse(CONNECT_INVALID);
        }
        target.new_controller(subsystem, &request.host, request.host_id)
    } else {
        target.controller(request.controller_id).filter(|known| {
            Arc::ptr_eq(&known.subsystem, subsystem)
                && known.host == request.host
                && known.host_id == request.host_id
        })
    };
    let Some(controller) = controller else {
        return refuse(CONNECT_INVALID);
    };
    if admin && request.keep_alive_ms > 0 {
        let silence = Duration::from_millis(u64::from(request.keep_alive_ms)) * KEEP_ALIVES;
        sender.set_read_timeout(silence)?;
    }
    controller.add_queue(sender);
    Ok(Some(Arc::new(Queue {
        target: Arc::clone(target),
        sender: Arc::clone(sender),
        controller,
        admin,
        gate: Gate::new(Arc::clone(&target.enclosure), port),
    })))
}

impl Queue {
    fn is_absent(&self) -> bool {
        let (disk, port) = (self.controller.subsystem.disk.name(), self.gate.port());
        self.target.enclosure.with_rules_quietly(|rules| rules.is_absent(disk, port))
    }

    /// Answers Connect, and serves the host until the connection ends.
    fn run(self: &Arc<Queue>, reader: &mut BufReader<TcpStream>, connect: &Sqe) -> io::Result<()> {
        let enclosure = &self.target.enclosure;
        let connection =
            enclosure.connect(self.gate.port(), Arc::clone(self) as Arc<dyn Connection>);
        let releaser = {
            let queue = Arc::clone(self);
            thread::Builder::new().name("held".into()).spawn(move || queue.gate.release())
        };
        // This connection may have missed a rule that was made between Connect and now.
        self.rules_changed();
        let result = u64::from(self.controller.id);
        let served = match &releaser {
            Ok(_) => self
                .sender
                .complete(connect, &CommandOutcome { result, ..CommandOutcome::default() })
                .and_then(|()| self.listen(reader)),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        enclosure.disconnect(connection);
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
        let mut transfers = Transfers::new();
        loop {
            match FromHost::read(reader) {
                Ok(None) => return Ok(()),
                Ok(Some(FromHost::Initialize { .. })) => return Err(invalid("a second ICReq")),
                Ok(Some(FromHost::Command(command, data))) if !command.wants_to_send() => {
                    self.treat(command, data)?;
                }
                Ok(Some(FromHost::Command(command, _))) => {
                    self.ask_for_data(&mut transfers, command)?;
                }
                Ok(Some(FromHost::Data { command, tag, offset, data })) => {
                    if let Some(whole) = receive(&mut transfers, command, tag, offset, &data)? {
                        self.treat(whole.command, whole.data)?;
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

    /// Starts the transfer of a command's data.
    fn ask_for_data(&self, transfers: &mut Transfers, command: Sqe) -> io::Result<()> {
        let (id, len) = (command.command(), command.data_len());
        if u64::from(len) > MOST_BLOCKS * BLOCK {
            return self.sender.complete(&command, &CommandOutcome::refused(status::INVALID_FIELD));
        }
        if transfers.len() >= MOST_TRANSFERS || transfers.contains_key(&id) {
            return Err(invalid("more commands than the queue has"));
        }
        let data = vec![0; len as usize];
        transfers.insert(id, Transfer { command, data, received: 0 });
        // The command's identifier is used as the tag, because it has only one transfer.
        self.sender.send(&pdu::ready_to_transfer(id, id, len))
    }

    fn treat(&self, command: Sqe, data: Vec<u8>) -> io::Result<()> {
        // Commands that keep the connection belong to the target, not to the drive: rules do not
        // apply.
        if self.admin {
            match command.opcode() {
                admin::FABRICS => {
                    return self.sender.complete(&command, &self.controller.property(&command));
                }
                admin::KEEP_ALIVE => {
                    return self.sender.complete(&command, &CommandOutcome::default());
                }
                // Answered at the first event, and there are none.
                admin::ASYNC_EVENT => return Ok(()),
                _ => {}
            }
        }
        self.gate.treat(Request {
            sender: Arc::clone(&self.sender),
            controller: Arc::clone(&self.controller),
            port: self.gate.port().to_owned(),
            admin: self.admin,
            command,
            data,
        })
    }
}
