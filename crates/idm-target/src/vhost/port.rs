//! One path of one host to all disks: a virtio SCSI adapter on a vhost-user socket.
//!
//! Disk *i* is target *i*, logical unit 0. Layouts and numbers are those of the virtio
//! specification, section "SCSI host device".

use super::logical_unit;
use crate::sync::lock;
use anyhow::{Context, Result, anyhow};
use idm_emulator::disks::faults::{CommandKind, Failure};
use idm_emulator::disks::{
    Connection, Disk, Enclosure, Gate, Interface, ServiceResponse, TargetCommand,
};
use idm_emulator::{Nonsense, ScsiReply};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::{DescriptorChain, QueueOwnedT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

const CONTROL_QUEUE: u16 = 0;
const EVENT_QUEUE: u16 = 1;
const QUEUES: usize = 3;
const CDB_LEN: usize = 32;
const SENSE_LEN: usize = 96;
/// lun, tag, task attribute, priority, crn, cdb.
const REQUEST_LEN: usize = 8 + 8 + 3 + CDB_LEN;
/// sense length, residual, status qualifier, status, response, sense.
const RESPONSE_LEN: usize = 4 + 4 + 2 + 1 + 1 + SENSE_LEN;
/// type, subtype, lun, tag.
const TASK_MANAGEMENT_LEN: usize = 4 + 4 + 8 + 8;

const VIRTIO_F_VERSION_1: u64 = 1 << 32;
const VIRTIO_RING_F_INDIRECT_DESC: u64 = 1 << 28;
const VIRTIO_RING_F_EVENT_IDX: u64 = 1 << 29;

/// The adapter's answer to a command (VIRTIO_SCSI_S_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Response {
    Ok = 0,
    Overrun = 1,
    Aborted = 2,
    BadTarget = 3,
    TransportFailure = 6,
}

/// Task management: abort one command (VIRTIO_SCSI_T_TMF_ABORT_TASK).
const ABORT_TASK: u32 = 0;

/// Serves a port on `socket` for ever, one connection at a time: a machine may be started again on
/// the same path.
pub fn serve(enclosure: &Arc<Enclosure>, name: &str, socket: PathBuf) -> Result<()> {
    let path = socket.display().to_string();
    let mut listener = Listener::new(&socket, true)
        .with_context(|| format!("the socket {path} of port {name} cannot be made"))?;
    let (enclosure, name) = (Arc::clone(enclosure), name.to_owned());
    thread::Builder::new().name(name.clone()).spawn(move || {
        loop {
            if let Err(error) = serve_one(&enclosure, &name, &mut listener) {
                eprintln!("port {name}: {error:#}");
                // An error that comes again at once must not become a busy loop.
                thread::sleep(Duration::from_millis(100));
            }
        }
    })?;
    Ok(())
}

fn serve_one(enclosure: &Arc<Enclosure>, name: &str, listener: &mut Listener) -> Result<()> {
    let port = Arc::new(Port {
        gate: Gate::new(Arc::clone(enclosure), name),
        memory: Mutex::new(None),
        event_idx: Mutex::new(false),
        exit: new_event_consumer_and_notifier(EventFlag::NONBLOCK)?,
    });
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new(name.to_owned(), Arc::clone(&port), memory)
        .map_err(|error| anyhow!("{error}"))?;
    // Waits for a connection.
    daemon.start(listener).map_err(|error| anyhow!("{error}"))?;
    let connection = enclosure.connect(name, Arc::clone(&port) as Arc<dyn Connection>);
    let waker = {
        let port = Arc::clone(&port);
        thread::Builder::new().name(format!("{name} held")).spawn(move || port.gate.release())?
    };
    let ended = daemon.wait();
    eprintln!("port {name}: the machine has gone ({ended:?})");
    enclosure.disconnect(connection);
    port.gate.close();
    port.exit.1.notify()?;
    let _ = waker.join();
    Ok(())
}

type Memory = GuestMemoryLoadGuard<GuestMemoryMmap>;

/// A command of the machine, and the destination of its answer.
struct Request {
    chain: DescriptorChain<Memory>,
    memory: Memory,
    vring: VringRwLock,
    port: String,
    disk: Arc<Disk>,
    target: u8,
    tag: u64,
    cdb: [u8; CDB_LEN],
    data_out: Vec<u8>,
}

/// A connection of one machine on one path.
pub struct Port {
    gate: Gate<Request>,
    memory: Mutex<Option<GuestMemoryAtomic<GuestMemoryMmap>>>,
    event_idx: Mutex<bool>,
    exit: (EventConsumer, EventNotifier),
}

fn address(lun: &[u8]) -> Option<u8> {
    // Flat addressing: 1, target, then the unit's number with 40h in its upper byte.
    match *lun {
        [1, target, high, 0, ..] if high & 0x3F == 0 => Some(target),
        _ => None,
    }
}

impl Port {
    fn drain(&self, vring: &VringRwLock, queue: u16) -> io::Result<()> {
        let Some(space) = lock(&self.memory).clone() else {
            return Ok(());
        };
        let chains: Vec<_> = vring
            .get_mut()
            .get_queue_mut()
            .iter(space.memory())
            .map_err(io::Error::other)?
            .collect();
        for chain in chains {
            match queue {
                CONTROL_QUEUE => self.control(vring, &space.memory(), chain)?,
                _ => self.request(vring, space.memory(), chain)?,
            }
        }
        Ok(())
    }

    /// Runs a command for a disk.
    fn request(
        &self,
        vring: &VringRwLock,
        memory: Memory,
        chain: DescriptorChain<Memory>,
    ) -> io::Result<()> {
        let mut reader = chain.clone().reader(&memory).map_err(io::Error::other)?;
        let mut head = [0; REQUEST_LEN];
        reader.read_exact(&mut head)?;
        let mut data_out = Vec::new();
        reader.read_to_end(&mut data_out)?;
        let mut cdb = [0; CDB_LEN];
        cdb.copy_from_slice(&head[19..]);
        let mut tag = [0; 8];
        tag.copy_from_slice(&head[8..16]);
        let target = address(&head[..8]);
        let disk = target.and_then(|target| self.gate.enclosure().disks.get(usize::from(target)));
        let disk = disk.filter(|disk| disk.interface() == Interface::Scsi);
        let (Some(target), Some(disk)) = (target, disk) else {
            let nothing = ScsiReply::default();
            return answer(vring, &memory, chain, Response::BadTarget, &nothing);
        };
        let command = Request {
            chain,
            memory,
            vring: vring.clone(),
            port: self.gate.port().to_owned(),
            disk: Arc::clone(disk),
            target,
            tag: u64::from_le_bytes(tag),
            cdb,
            data_out,
        };
        self.gate.treat(command)
    }

    /// Runs a task management request: Linux aborts a command that it has waited for long enough,
    /// and waits for the confirmation.
    fn control(
        &self,
        vring: &VringRwLock,
        memory: &Memory,
        chain: DescriptorChain<Memory>,
    ) -> io::Result<()> {
        let mut request = Vec::new();
        let mut reader = chain.clone().reader(memory).map_err(io::Error::other)?;
        reader.read_to_end(&mut request)?;
        let head = chain.head_index();
        let mut writer = chain.writer(memory).map_err(io::Error::other)?;
        // A request for asynchronous notification, of which there is none.
        let Some(request) = request.first_chunk::<TASK_MANAGEMENT_LEN>() else {
            writer.write_all(&[0; 5])?;
            return used(vring, head, 5);
        };
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&request[at..at + 4]);
            u32::from_le_bytes(bytes)
        };
        let (subtype, target) = (word(4), address(&request[8..16]));
        let tag = u64::from(word(16)) | u64::from(word(20)) << 32;
        let name = self.gate.port();
        eprintln!("port {name}: task management {subtype} for target {target:?}");
        let aborted = self.gate.abort(|command| {
            Some(command.target) == target && (subtype != ABORT_TASK || command.tag == tag)
        });
        for command in aborted {
            TargetCommand::answer(command, ServiceResponse::Aborted)?;
        }
        writer.write_all(&[Response::Ok as u8])?;
        used(vring, head, 1)
    }
}

impl Connection for Port {
    fn rules_changed(&self) {
        self.gate.rules_changed();
    }
}

impl TargetCommand for Request {
    type Reply = ScsiReply;

    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn kind(&self) -> CommandKind {
        logical_unit::kind_of(&self.cdb)
    }

    fn execute(&self) -> ScsiReply {
        logical_unit::execute(&self.disk, &self.port, &self.cdb, &self.data_out)
    }

    fn spoil(reply: &mut ScsiReply, nonsense: &mut Nonsense) {
        nonsense.spoil_scsi(reply);
    }

    fn answer(self, how: ServiceResponse<ScsiReply>) -> io::Result<()> {
        let (response, reply) = match how {
            ServiceResponse::Reply(reply) | ServiceResponse::Failure(Failure::Scsi(reply)) => {
                (Response::Ok, reply)
            }
            ServiceResponse::Cut => (Response::TransportFailure, ScsiReply::default()),
            // Rules with an NVMe status are only made for NVMe drives.
            ServiceResponse::Absent | ServiceResponse::Failure(Failure::Nvme(_)) => {
                (Response::BadTarget, ScsiReply::default())
            }
            ServiceResponse::Aborted => (Response::Aborted, ScsiReply::default()),
        };
        answer(&self.vring, &self.memory, self.chain, response, &reply)
    }
}

/// Informs the machine that a chain of descriptors has been used.
fn used(vring: &VringRwLock, head: u16, written: u32) -> io::Result<()> {
    vring.add_used(head, written).map_err(io::Error::other)?;
    vring.signal_used_queue()
}

/// Writes an answer into the machine's memory.
fn answer(
    vring: &VringRwLock,
    memory: &Memory,
    chain: DescriptorChain<Memory>,
    response: Response,
    reply: &ScsiReply,
) -> io::Result<()> {
    let head = chain.head_index();
    let mut writer = chain.writer(memory).map_err(io::Error::other)?;
    let Some(room) = writer.available_bytes().checked_sub(RESPONSE_LEN) else {
        return used(vring, head, 0);
    };
    let data = &reply.data[..reply.data.len().min(room)];
    // Data without room is an overrun only if the CDB requested it, and then the reply was cut to
    // the length that the CDB requested.
    let response = if response == Response::Ok && reply.data.len() > room {
        Response::Overrun
    } else {
        response
    };
    let sense = &reply.sense[..reply.sense.len().min(SENSE_LEN)];
    let mut bytes = Vec::with_capacity(RESPONSE_LEN);
    bytes.extend((sense.len() as u32).to_le_bytes());
    bytes.extend(((room - data.len()) as u32).to_le_bytes());
    bytes.extend([0, 0, reply.status, response as u8]);
    bytes.extend(sense);
    bytes.resize(RESPONSE_LEN, 0);
    writer.write_all(&bytes)?;
    writer.write_all(data)?;
    used(vring, head, (RESPONSE_LEN + data.len()) as u32)
}

impl VhostUserBackend for Port {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        VIRTIO_F_VERSION_1
            | VIRTIO_RING_F_INDIRECT_DESC
            | VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, enabled: bool) {
        *lock(&self.event_idx) = enabled;
    }

    fn update_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        *lock(&self.memory) = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        Some((self.exit.0.try_clone().ok()?, self.exit.1.try_clone().ok()?))
    }

    /// The machine takes its memory back: no further answer is allowed.
    fn stop_vring(&self, _queue: u32) -> io::Result<()> {
        drop(self.gate.abort(|_| true));
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let Some(vring) = vrings.get(usize::from(event)).filter(|_| event != EVENT_QUEUE) else {
            return Ok(());
        };
        if !*lock(&self.event_idx) {
            return self.drain(vring, event);
        }
        // With EVENT_IDX the machine announces new commands only on request.
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            self.drain(vring, event)?;
            if !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }
}
