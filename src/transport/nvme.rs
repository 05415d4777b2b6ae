//! An NVMe drive through admin commands on the block node of a namespace.
//!
//! With native multipath the node belongs to the subsystem, and the kernel chooses a controller for
//! every command.
//!
//! On a PCI Express controller, the kernel ends a command that is not answered: it aborts the
//! command or resets the controller before it returns the command. On a fabrics controller, nothing
//! ends it: the kernel gives up the connection and returns the command, and the target may still
//! carry it out. The sender has to allow time for that.

use super::drive::{Buffer, CommandError, Completion, Data, Protocol, Request};
use super::node::Node;
use super::reserve::KIND;
use super::{
    Deadline, RawStatus, ReserveAnswer, ReserveOrder, ReserveReport, TransportError, nvme_ioctl,
};
use crate::topology::Topology;
use core::time::Duration;
use idm_protocol::nvme::{self, AdminCommand};
use idm_protocol::reservation::nvme::{
    self as reservation, AcquireAction, RegisterAction, Report, ReservationCommand,
};
use idm_protocol::{RECORD_LEN, Status};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The shortest time before the kernel gives up a command: Linux resets a PCI Express controller
/// that has not answered an admin command in time, and gives up the connection to a fabrics
/// controller. That stops all I/O to the drive for some seconds; a late answer of a mutex does not
/// justify it.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest time-out of a command with this deadline. Short leases have no room for 5 s twice;
/// there it is two thirds of a step's time.
fn shortest_timeout(deadline: &Deadline) -> Duration {
    SHORTEST_TIMEOUT.min(deadline.step() * 2 / 3)
}

/// The time-out of a step that begins now.
fn timeout(deadline: &Deadline) -> Result<Duration, CommandError> {
    deadline.timeout(shortest_timeout(deadline)).ok_or_else(|| CommandError::too_late(""))
}

/// One path to an NVMe drive.
pub struct Nvme {
    node: Node<OpenNvme>,
    topology: Arc<Topology>,
}

/// An open namespace.
struct OpenNvme {
    fd: OwnedFd,
    /// Whether the controller has reported that it has IDM.
    has_idm: AtomicBool,
}

impl Nvme {
    /// A path to the drive with this identity, by the block node of a namespace. Nothing is opened
    /// before the first command.
    pub fn new(node: PathBuf, identity: String, topology: Arc<Topology>) -> Nvme {
        Nvme { node: Node::new(node, identity), topology }
    }

    fn open(&self) -> Result<OpenNvme, String> {
        let identify = |number| self.topology.identity_of_block(number);
        let fd = self.node.open_checked(&self.node.path, identify)?;
        Ok(OpenNvme { fd, has_idm: AtomicBool::new(false) })
    }

    /// The drive's IDM version; `None` where it has no IDM.
    pub fn version(&self, deadline: &Deadline) -> Result<Option<nvme::Version>, CommandError> {
        let opened = self.node.opened(|| self.open())?;
        let run = |command: &AdminCommand, data: Data<'_>, timeout| {
            self.run(&opened, command, data, timeout)
        };
        let failed = |status| {
            let why = format!("Identify failed with status {status:#x}");
            CommandError::Transport(TransportError::Unknown(why))
        };
        timeout(deadline)
            .and_then(|timeout| identify(timeout, &run))
            .and_then(|answer| answer.map_err(failed))
            .map_err(|trouble| self.node.named(trouble))
    }

    fn run(
        &self,
        opened: &Arc<OpenNvme>,
        command: &AdminCommand,
        data: Data<'_>,
        timeout: Duration,
    ) -> Result<u16, CommandError> {
        let long = data.is_long();
        let result = nvme_ioctl::run(opened.fd.as_fd(), command, data, timeout);
        if matches!(result, Err(Errno::ENODEV | Errno::ENXIO)) {
            self.node.forget(opened);
        }
        judge(result, long)
    }
}

/// Runs an admin command and returns its status field, or the error that none came.
type NvmeCommand<'a> = dyn Fn(&AdminCommand, Data<'_>, Duration) -> Result<u16, CommandError> + 'a;

/// Whether the controller has IDM, by its Identify data. This is asked before the first mutex
/// command on each descriptor: to a drive without IDM the same opcodes may mean anything. It leaves
/// the mutex command its shortest time.
fn has_idm(
    known: &AtomicBool,
    deadline: &Deadline,
    run: &NvmeCommand<'_>,
) -> Result<bool, CommandError> {
    if known.load(Ordering::Relaxed) {
        return Ok(true);
    }
    // The mutex command has not been sent, whatever the result of this one.
    let not_sent = |why: &dyn core::fmt::Display| {
        let why = format!("the drive does not say whether it has IDM: {why}");
        CommandError::Transport(TransportError::NotSent(why))
    };
    let timeout = timeout(&deadline.keeping(shortest_timeout(deadline)))?;
    let has_idm = match identify(timeout, run) {
        Ok(Ok(version)) => version.is_some(),
        Ok(Err(status)) => return Err(not_sent(&format_args!("status {status:#x}"))),
        Err(CommandError::TooLong(why)) => return Err(not_sent(&why)),
        Err(CommandError::Transport(why)) => return Err(not_sent(&why)),
    };
    known.store(has_idm, Ordering::Relaxed);
    Ok(has_idm)
}

/// The IDM version in the Identify data; the inner error is the status with which that was refused.
fn identify(
    timeout: Duration,
    run: &NvmeCommand<'_>,
) -> Result<Result<Option<nvme::Version>, u16>, CommandError> {
    let mut data = Buffer::new(nvme::IDENTIFY_LEN);
    let status = run(&nvme::identify_controller(), Data::In(data.bytes()), timeout)?;
    Ok(if status == 0 { Ok(nvme::version(data.bytes())) } else { Err(status) })
}

/// Runs one request; on a new descriptor, Identify comes first.
fn ask(
    known: &AtomicBool,
    request: Request,
    data: Data<'_>,
    deadline: &Deadline,
    run: &NvmeCommand<'_>,
) -> Result<Completion, CommandError> {
    if !has_idm(known, deadline, run)? {
        return Ok(Completion { status: Status::Unsupported, raw: None, transferred: 0 });
    }
    let len = data.size();
    let (op, command) = match request {
        Request::Mutex(op) => (Some(op), nvme::mutex(op)),
        Request::Table => {
            let blocks = u32::try_from(len / RECORD_LEN).unwrap_or(u32::MAX);
            (None, nvme::read_table(blocks))
        }
        Request::Counters => (None, nvme::inquire_table()),
    };
    let status = run(&command, data, timeout(deadline)?)?;
    let raw = Some(RawStatus::Nvme(status));
    let status = nvme::decode_status(op, status);
    // The kernel does not report how much was transferred; the rest of the buffer is zeros.
    let transferred = if status == Status::Good { len } else { 0 };
    Ok(Completion { status, raw, transferred })
}

impl Protocol for Nvme {
    fn execute(
        &self,
        request: Request,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<Completion, CommandError> {
        let opened = self.node.opened(|| self.open())?;
        let run = |command: &AdminCommand, data: Data<'_>, timeout| {
            self.run(&opened, command, data, timeout)
        };
        ask(&opened.has_idm, request, data, deadline, &run)
            .map_err(|trouble| self.node.named(trouble))
    }

    fn reserve(
        &self,
        order: &ReserveOrder,
        deadline: &Deadline,
    ) -> Result<ReserveAnswer, CommandError> {
        let opened = self.node.opened(|| self.open())?;
        self.carry_out(&opened, order, deadline).map_err(|trouble| self.node.named(trouble))
    }
}

/// Room for a Reservation Report: 63 hosts.
const REPORT_LEN: usize = 4096;
/// RESCAP: whether the type that is used here exists.
const HAS_KIND: u8 = 1 << KIND.to_nvme();
/// Status code Reservation Conflict, of the generic type.
const CONFLICT: u16 = 0x83;
/// Status codes Invalid Opcode and Invalid Field, of the generic type.
const UNKNOWN: [u16; 2] = [0x01, 0x02];

impl Nvme {
    /// Runs a reservation command. `Err` holds a status that is an answer to the order.
    fn ask_reservations(
        &self,
        opened: &Arc<OpenNvme>,
        command: &ReservationCommand,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<Result<(), ReserveAnswer>, CommandError> {
        let fd = opened.fd.as_fd();
        let namespace = namespace_of(fd)?;
        let result = nvme_ioctl::reserve(fd, namespace, command, data, timeout(deadline)?);
        if matches!(result, Err(Errno::ENODEV | Errno::ENXIO)) {
            self.node.forget(opened);
        }
        // Status code and its type, without the hints about retries.
        match judge(result, false)? & 0x7FF {
            0 => Ok(Ok(())),
            CONFLICT => Ok(Err(ReserveAnswer::Conflict)),
            status if UNKNOWN.contains(&status) => Ok(Err(ReserveAnswer::Unsupported)),
            status => {
                let why = RawStatus::Nvme(status).to_string();
                Err(TransportError::Unknown(why).into())
            }
        }
    }

    fn report(
        &self,
        opened: &Arc<OpenNvme>,
        deadline: &Deadline,
    ) -> Result<ReserveAnswer, CommandError> {
        let fd = opened.fd.as_fd();
        let mut identify = Buffer::new(nvme::IDENTIFY_LEN);
        let namespace = namespace_of(fd)?;
        let asked =
            nvme_ioctl::identify_namespace(fd, namespace, identify.bytes(), timeout(deadline)?);
        if judge(asked, false)? != 0 {
            return Err(CommandError::nonsense("Identify Namespace"));
        }
        let able = identify.bytes()[reservation::CAPABILITIES_BYTE];
        if able == 0 {
            return Ok(ReserveAnswer::Unsupported);
        }
        let mut data = Buffer::new(REPORT_LEN);
        let command = reservation::report(REPORT_LEN);
        let asked = self.ask_reservations(opened, &command, Data::In(data.bytes()), deadline)?;
        if let Err(answer) = asked {
            return Ok(answer);
        }
        let report = Report::decode(data.bytes()).filter(|it| it.registrants.len() == it.count);
        let report = report.ok_or_else(|| CommandError::nonsense("Reservation Report"))?;
        Ok(ReserveAnswer::Report(ReserveReport {
            keys: report.registrants.iter().map(|one| one.key).collect(),
            reservation: report.kind,
            is_able: able & reservation::CAN_PERSIST != 0 && able & HAS_KIND != 0,
            by_path: false,
        }))
    }

    fn carry_out(
        &self,
        opened: &Arc<OpenNvme>,
        order: &ReserveOrder,
        deadline: &Deadline,
    ) -> Result<ReserveAnswer, CommandError> {
        let register = |action, ignores_key| reservation::register(action, ignores_key, Some(true));
        let (command, keys) = match *order {
            ReserveOrder::Report => return self.report(opened, deadline),
            ReserveOrder::RegisterBriefly(..) => return Ok(ReserveAnswer::Unsupported),
            ReserveOrder::Register { key, anew } => {
                let known = register(RegisterAction::Replace, false);
                let fresh = register(RegisterAction::Register, false);
                (if anew { fresh } else { known }, (key, key))
            }
            ReserveOrder::Unregister(key) => {
                (reservation::register(RegisterAction::Unregister, false, None), (key, 0))
            }
            ReserveOrder::Reserve(key) => {
                (reservation::acquire(AcquireAction::Acquire, KIND), (key, 0))
            }
            ReserveOrder::Preempt(key, victim) => {
                (reservation::acquire(AcquireAction::PreemptAndAbort, KIND), (key, victim))
            }
        };
        let run = |command: &ReservationCommand| {
            let mut data = Buffer::new(reservation::KEYS_LEN);
            data.bytes().copy_from_slice(&reservation::keys(keys.0, keys.1));
            self.ask_reservations(opened, command, Data::Out(data.bytes()), deadline)
        };
        let mut ended = run(&command)?;
        if let (ReserveOrder::Register { anew: true, .. }, Err(ReserveAnswer::Conflict)) =
            (order, &ended)
        {
            // The host has another key, from an earlier boot.
            ended = run(&register(RegisterAction::Replace, true))?;
        }
        Ok(ended.map_or_else(|answer| answer, |()| ReserveAnswer::Done))
    }
}

/// The namespace that reservations are for.
fn namespace_of(fd: BorrowedFd<'_>) -> Result<u32, TransportError> {
    nvme_ioctl::namespace(fd).map_err(|errno| TransportError::NotSent(errno.to_string()))
}

/// Interprets the result of the ioctl: a status field of the drive, or an error that none came.
/// `long` means that the command moves more data than every kernel can.
///
/// The kernel checks for all of the errors below before it queues the command. EINTR is not one of
/// them: it means that the kernel gave the command up after its time-out, or because the controller
/// was reset. A status that says that a path failed comes from the kernel itself, and the drive may
/// have received the command. The kernel never sends an ioctl's command again.
fn judge(result: Result<libc::c_int, Errno>, long: bool) -> Result<u16, CommandError> {
    let unknown = |why| Err(CommandError::Transport(TransportError::Unknown(why)));
    let not_sent = |why| Err(CommandError::Transport(TransportError::NotSent(why)));
    match result {
        Ok(status) => match u16::try_from(status) {
            Ok(status) if nvme::is_path_error(status) => {
                unknown(format!("the path failed, status {status:#x}"))
            }
            Ok(status) if status >> 15 == 0 => Ok(status),
            _ => unknown(format!("impossible status {status:#x}")),
        },
        Err(errno @ Errno::EINVAL) if long => Err(CommandError::TooLong(errno.to_string())),
        Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
            not_sent(format!("{errno} (needs CAP_SYS_ADMIN)"))
        }
        Err(Errno::ENOTTY) => not_sent("not an NVMe device".to_owned()),
        // From the head of native multipath.
        Err(Errno::EWOULDBLOCK) => not_sent("no path to the drive is left".to_owned()),
        Err(
            errno @ (Errno::ENODEV | Errno::ENXIO | Errno::EINVAL | Errno::ENOMEM | Errno::EBADF),
        ) => not_sent(errno.to_string()),
        Err(Errno::EINTR) => unknown("no answer in time, or the controller was reset".to_owned()),
        Err(errno) => unknown(errno.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::virtual_time;
    use crate::transport::{Limits, soon};
    use idm_engine::Timing;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    #[test]
    fn the_drives_own_statuses_pass() {
        for status in [0, 0x1CA, 0x1CB, 0x4001, 0x0006] {
            assert_eq!(judge(Ok(i32::from(status)), false), Ok(status));
        }
    }

    #[test]
    fn answered_error_is_none_of_the_kernels_own() {
        for status in [0x370, 0x371, 0x4370, 0x300, 0x7FFF_FFFF, 0x8000, -1] {
            let judged = judge(Ok(status), false);
            let lost = matches!(judged, Err(CommandError::Transport(TransportError::Unknown(_))));
            assert!(lost, "{status:#x}: {judged:?}");
        }
    }

    #[test]
    fn errors_before_sending_are_told_from_those_after() {
        for errno in [
            Errno::ENODEV,
            Errno::ENXIO,
            Errno::EACCES,
            Errno::EPERM,
            Errno::EWOULDBLOCK,
            Errno::ENOTTY,
            Errno::ENOMEM,
            Errno::EINVAL,
        ] {
            let judged = judge(Err(errno), false);
            let not_sent =
                matches!(judged, Err(CommandError::Transport(TransportError::NotSent(_))));
            assert!(not_sent, "{errno}: {judged:?}");
        }
        for errno in [Errno::EINTR, Errno::EIO, Errno::EFAULT, Errno::ETIMEDOUT] {
            let judged = judge(Err(errno), true);
            let unknown =
                matches!(judged, Err(CommandError::Transport(TransportError::Unknown(_))));
            assert!(unknown, "{errno}: {judged:?}");
        }
        assert!(matches!(judge(Err(Errno::EINVAL), true), Err(CommandError::TooLong(_))));
        let denied = format!("{:?}", judge(Err(Errno::EACCES), false));
        assert!(denied.contains("CAP_SYS_ADMIN"), "{denied}");
    }

    #[test]
    fn a_missing_node_means_not_sent_and_is_named() {
        for path in ["/dev/nonexistent-nvme", "/dev/null"] {
            let topology = Arc::new(Topology::new(BTreeMap::new()));
            let drive = Nvme::new(path.into(), "nvme.nqn.x".into(), topology);
            let result = drive.execute(Request::Table, Data::In(&mut [0; 512]), &soon());
            let Err(CommandError::Transport(TransportError::NotSent(why))) = result else {
                panic!("{path}: {result:?}");
            };
            assert!(why.starts_with(path), "{why}");
        }
    }

    /// The time-outs that Identify and the command get with a lease of 60 s, and the result. Each
    /// takes `takes_s`.
    fn timeouts(opened_after_s: u64, takes_s: u64) -> (Vec<u64>, Result<Completion, CommandError>) {
        let time = virtual_time();
        let deadline = soon();
        time.advance(Duration::from_secs(opened_after_s));
        let given = RefCell::new(Vec::new());
        let run = |command: &AdminCommand, data: Data<'_>, timeout: Duration| {
            given.borrow_mut().push(timeout.as_secs());
            time.advance(timeout.min(Duration::from_secs(takes_s)));
            if let (nvme::OPCODE_IDENTIFY, Data::In(bytes)) = (command.opcode, data) {
                bytes[nvme::VERSION_BYTE] = 0x10;
            }
            Ok(0)
        };
        let mut room = [0; 512];
        let known = AtomicBool::new(false);
        let answer = ask(&known, Request::Table, Data::In(&mut room), &deadline, &run);
        (given.take(), answer)
    }

    #[test]
    fn identify_leaves_the_command_its_time_and_both_are_over_in_time() {
        let raw = Some(RawStatus::Nvme(0));
        let good = Ok(Completion { status: Status::Good, raw, transferred: 512 });
        assert_eq!(timeouts(0, 0), (vec![7, 7], good.clone()));
        assert_eq!(timeouts(0, 6), (vec![7, 6], good.clone()));
        assert_eq!(timeouts(1, 6), (vec![6, 5], good.clone()));
        assert_eq!(timeouts(2, 60), (vec![5, 5], good));
        for opened_after_s in [3, 12, 60] {
            let (timeouts, answer) = timeouts(opened_after_s, 60);
            assert!(timeouts.is_empty(), "{timeouts:?}");
            let not_sent =
                matches!(answer, Err(CommandError::Transport(TransportError::NotSent(_))));
            assert!(not_sent, "{answer:?}");
        }
    }

    #[test]
    fn short_leases_have_room_for_both_too() {
        let _time = virtual_time();
        for lease_ms in [500, 5000, 20_000, 60_000, 3_600_000] {
            let timing = Timing::for_lease(Duration::from_millis(lease_ms));
            let deadline = Limits::new(&timing).deadline(crate::sys::clock::now());
            let shortest = shortest_timeout(&deadline);
            assert!(timeout(&deadline.keeping(shortest)).is_ok(), "{lease_ms}");
            assert!(shortest <= SHORTEST_TIMEOUT && 2 * shortest <= Limits::new(&timing).over);
        }
    }
}
