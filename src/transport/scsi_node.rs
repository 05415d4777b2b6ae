//! A SCSI disk through SG_IO, on its sg node or its block node.
//!
//! The sg node is preferred: it keeps to the time-outs that it is given, and a process that waits
//! there can be killed. A block node raises shorter time-outs to 7 s. The sg node exists only with
//! the kernel's sg module, and locking must not depend on that module.
//!
//! The kernel ends a command that is not answered: after its time-out it aborts the command, or
//! resets more and more around it, before it returns the command. That may last long beyond the
//! time-out. On a block node even a process that is killed waits for this; on an sg node such a
//! process ends at once, and its command goes on until the kernel has ended it.

use super::drive::{Buffer, CommandError, Data};
use super::node::Node;
use super::scsi::{Port, ScsiCompletion};
use super::sg_io::{self, SgCompletion};
use super::{Deadline, RawStatus, TransportError};
use crate::topology::{Topology, designator, is_same_page};
use core::fmt;
use core::time::Duration;
use idm_protocol::scsi::{self, Cdb, Sense, status};
use nix::errno::Errno;
use nix::sys::stat::{fstat, stat};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One path to a SCSI disk.
pub struct ScsiNode {
    node: Node<OpenScsi>,
    topology: Arc<Topology>,
    /// Number of times that another drive may have come behind the node, including the time before
    /// the first command. Each time the drive itself is asked, because sysfs may have older
    /// information.
    doubts: AtomicU64,
    /// The number of these doubts that the drive has answered.
    settled: AtomicU64,
}

/// An open device.
struct OpenScsi {
    fd: OwnedFd,
    kind: NodeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeKind {
    Sg,
    Block,
}

impl NodeKind {
    /// The shortest time-out that the kernel keeps to (for block nodes BLK_MIN_SG_TIMEOUT).
    fn shortest_timeout(self) -> Duration {
        match self {
            NodeKind::Sg => Duration::from_millis(1),
            NodeKind::Block => Duration::from_secs(7),
        }
    }

    /// The time-out of a command that is sent now.
    fn timeout(self, deadline: &Deadline) -> Result<Duration, CommandError> {
        let hint = match self {
            NodeKind::Sg => "",
            NodeKind::Block => {
                ": a block node's time-outs are 7 s or more, an sg node's are not (modprobe sg)"
            }
        };
        deadline.timeout(self.shortest_timeout()).ok_or_else(|| CommandError::too_late(hint))
    }
}

impl ScsiNode {
    /// The disk with this block node and identity. Nothing is opened before the first command.
    pub fn new(node: PathBuf, identity: String, topology: Arc<Topology>) -> ScsiNode {
        let (doubts, settled) = (AtomicU64::new(1), AtomicU64::new(0));
        ScsiNode { node: Node::new(node, identity), topology, doubts, settled }
    }

    fn open(&self) -> Result<OpenScsi, String> {
        let block = &self.node.path;
        let number = stat(block).map_err(|errno| errno.to_string())?.st_rdev;
        if let Some(sg) = self.topology.sg_node(number) {
            match self.open_as(NodeKind::Sg, &sg) {
                Ok(opened) => return Ok(opened),
                Err(why) => log::debug!("{}: {why}; using {}", sg.display(), block.display()),
            }
        }
        self.open_as(NodeKind::Block, block)
    }

    fn open_as(&self, kind: NodeKind, node: &Path) -> Result<OpenScsi, String> {
        let fd = self.node.open_checked(node, |number| match kind {
            NodeKind::Sg => self.topology.identity_of_sg(number),
            NodeKind::Block => self.topology.identity_of_block(number),
        })?;
        Ok(OpenScsi { fd, kind })
    }

    /// Runs one command, after the drive has confirmed its identity where that is in doubt.
    fn run(
        &self,
        opened: &Arc<OpenScsi>,
        cdb: &Cdb,
        data: Data<'_>,
        deadline: &Deadline,
        run: &Run<'_>,
    ) -> Result<ScsiCompletion, CommandError> {
        let doubts = self.doubts.load(Ordering::Acquire);
        if self.settled.load(Ordering::Acquire) != doubts {
            self.confirm(opened, deadline, run).map_err(|trouble| self.node.named(trouble))?;
            self.settled.fetch_max(doubts, Ordering::AcqRel);
        }
        let timeout = opened.kind.timeout(deadline).map_err(|late| self.node.named(late))?;
        let long = data.is_long();
        let result = run(opened, cdb, data, timeout);
        if leads_nowhere(&result) {
            // Only the next command opens the node again: with a host status it is not certain that
            // the drive did not get this one.
            self.node.forget(opened);
        }
        match result {
            Ok(completion) => self.believe(&completion, doubts).map_err(CommandError::Transport),
            Err(errno) => Err(judge_errno(errno, opened.kind, long)),
        }
        .map_err(|trouble| self.node.named(trouble))
    }

    /// The drive's answer, unless another drive may have given it. `doubts`: their number when the
    /// drive's identity was last certain.
    fn believe(
        &self,
        completion: &SgCompletion,
        doubts: u64,
    ) -> Result<ScsiCompletion, TransportError> {
        let answer = judge(completion)?;
        let sense = Sense::decode(&answer.sense);
        if sense.is_some_and(Sense::tells_of_another_unit) {
            self.doubt();
        } else if self.doubts.load(Ordering::Acquire) != doubts {
            let why = "another drive may have answered: what is behind the node has changed";
            return Err(TransportError::Unknown(why.into()));
        }
        Ok(answer)
    }

    /// Asks the drive who it is. An error means that it got no other command.
    fn confirm(
        &self,
        opened: &Arc<OpenScsi>,
        deadline: &Deadline,
        run: &Run<'_>,
    ) -> Result<(), CommandError> {
        let timeout = opened.kind.timeout(deadline)?;
        let mut page = Buffer::new(scsi::IDENTITY_PAGE_LEN);
        let cdb = scsi::inquire_identity();
        let result = run(opened, &cdb, Data::In(page.bytes()), timeout);
        let answer = match &result {
            Ok(completion) => judge(completion).map_err(|error| error.to_string()),
            Err(errno) => Err(errno.to_string()),
        };
        let why = match answer {
            Ok(answer) if answer.status == status::GOOD => {
                let page = page.bytes().get(..answer.transferred).unwrap_or_default();
                match designator(page) {
                    Some(found) if found == self.node.identity() => return Ok(()),
                    None if self.is_kernels(opened, page) => return Ok(()),
                    found => {
                        // When it is opened again, sysfs may show that it is another one.
                        self.node.forget(opened);
                        self.another(found.as_deref())
                    }
                }
            }
            Ok(answer) => self.untold(&RawStatus::Scsi(answer.status, None)),
            Err(why) => self.untold(&why),
        };
        if leads_nowhere(&result) {
            self.node.forget(opened);
        }
        Err(TransportError::NotSent(why).into())
    }

    /// Whether a page without any designator by which this library identifies drives is the one
    /// from which the kernel has chosen the expected identity.
    fn is_kernels(&self, opened: &OpenScsi, page: &[u8]) -> bool {
        let Ok(found) = fstat(&opened.fd) else { return false };
        let (topology, number) = (&self.topology, found.st_rdev);
        let (identity, known) = match opened.kind {
            NodeKind::Sg => (topology.identity_of_sg(number), topology.page_of_sg(number)),
            NodeKind::Block => (topology.identity_of_block(number), topology.page_of_block(number)),
        };
        identity.as_deref() == Ok(self.node.identity()) && is_same_page(page, &known)
    }

    fn untold(&self, why: &dyn fmt::Display) -> String {
        format!("drive {} does not say whether it is still there: {why}", self.node.identity())
    }

    fn another(&self, found: Option<&str>) -> String {
        let found = found.map_or("a drive without identity".to_owned(), |it| format!("drive {it}"));
        format!(
            "it is now {found}, not {}; have the kernel look at the disk again (its file \
             device/rescan in sysfs)",
            self.node.identity()
        )
    }
}

/// Runs one SCSI command on an open node.
type Run<'a> = dyn Fn(&OpenScsi, &Cdb, Data<'_>, Duration) -> Result<SgCompletion, Errno> + 'a;

impl Port for ScsiNode {
    fn execute(
        &self,
        cdb: &Cdb,
        data: Data<'_>,
        deadline: &Deadline,
    ) -> Result<ScsiCompletion, CommandError> {
        let opened = self.node.opened(|| self.open())?;
        let run = |opened: &OpenScsi, cdb: &Cdb, data: Data<'_>, timeout| {
            sg_io::run(opened.fd.as_fd(), cdb, data, timeout)
        };
        self.run(&opened, cdb, data, deadline, &run)
    }

    fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
    }
}

fn leads_nowhere(result: &Result<SgCompletion, Errno>) -> bool {
    match result {
        Ok(completion) => completion.host_status == host::NO_CONNECT,
        Err(errno) => matches!(errno, Errno::ENODEV | Errno::ENXIO),
    }
}

/// Host bytes from Linux' `scsi/scsi_status.h`.
mod host {
    pub const OK: u16 = 0x00;
    pub const NO_CONNECT: u16 = 0x01;
}

/// `DRIVER_SENSE` of kernels before 5.14, which sg still sets: "there is sense data", not an error.
const DRIVER_SENSE: u16 = 0x08;

/// Interprets a finished SG_IO call.
///
/// The kernel sends an SG_IO command only once if the answer is CHECK CONDITION, UNIT ATTENTION
/// included. A command that was answered with BUSY or TASK SET FULL, and so not carried out, is
/// sent again until the time-out; this function sees the last answer.
///
/// Host and driver status come first: where they report a transport failure, the SCSI status has no
/// meaning. No host status proves that the drive did not get the command. DID_NO_CONNECT nearly
/// does, but adapter drivers also use it for commands that they had already sent when their device
/// disappeared. The next command opens the node again, and an open that fails is the proof.
///
/// One case cannot be recognised: the kernel turns a nexus failure (host byte 11h) into status 18h
/// with host status 0, byte for byte the same as a RESERVATION CONFLICT of the drive. So a conflict
/// that no record in the drive's table explains does not prove that another host holds the lock.
fn judge(completion: &SgCompletion) -> Result<ScsiCompletion, TransportError> {
    if completion.host_status != host::OK {
        return Err(TransportError::Unknown(format!(
            "transport failure, host status {:#04x}",
            completion.host_status
        )));
    }
    if completion.driver_status & 0x0F & !DRIVER_SENSE != 0 {
        return Err(TransportError::Unknown(format!(
            "transport failure, driver status {:#04x}",
            completion.driver_status
        )));
    }
    // sg marks COMMAND TERMINATED with DRIVER_SENSE and returns zeroed sense data; only the status
    // counts there.
    let sense = match Sense::decode(&completion.sense) {
        Some(_) if completion.status == status::CHECK_CONDITION => completion.sense.clone(),
        _ => Vec::new(),
    };
    let missing = usize::try_from(completion.resid)
        .ok()
        .filter(|&resid| resid <= completion.asked)
        .ok_or_else(|| {
            TransportError::Unknown(format!("impossible residual count {}", completion.resid))
        })?;
    Ok(ScsiCompletion { status: completion.status, sense, transferred: completion.asked - missing })
}

/// Interprets a failed SG_IO call. The kernel checks for the errors listed below before it queues
/// the command; once the command is queued, the call succeeds and the header has the result. Any
/// other error does not prove that nothing was sent. ENODEV of an sg node is such a case: it also
/// ends the wait for a command that was under way when the device was removed.
///
/// `long` means that the command moves more data than every kernel can. A block node then returns
/// EIO for more than `max_hw_sectors`; both nodes return EINVAL for more pieces of memory than the
/// adapter takes, and an sg node returns ENOMEM where its own buffer would have too many. Each of
/// these may have another cause; a shorter read is harmless and shows which it is.
fn judge_errno(errno: Errno, kind: NodeKind, long: bool) -> CommandError {
    match errno {
        Errno::EINVAL | Errno::ENOMEM if long => return CommandError::TooLong(errno.to_string()),
        Errno::EIO if long && kind == NodeKind::Block => {
            return CommandError::TooLong(errno.to_string());
        }
        _ => {}
    }
    let why = match errno {
        Errno::EPERM | Errno::EACCES => format!("{errno} (needs CAP_SYS_RAWIO)"),
        Errno::ENOTTY => "not a SCSI device".to_owned(),
        _ => errno.to_string(),
    };
    CommandError::Transport(match errno {
        Errno::ENODEV if kind == NodeKind::Sg => TransportError::Unknown(why),
        Errno::ENODEV
        | Errno::ENXIO
        | Errno::ENOTTY
        | Errno::EINVAL
        | Errno::EPERM
        | Errno::EACCES
        | Errno::ENOMEM
        | Errno::EBADF => TransportError::NotSent(why),
        _ => TransportError::Unknown(why),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::virtual_time;
    use crate::transport::soon;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    fn completion(status: u8) -> SgCompletion {
        SgCompletion { status, asked: 512, ..SgCompletion::default() }
    }

    const NOT_FOUND: [u8; 14] = [0x70, 0, 5, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0x21, 0];

    #[test]
    fn the_drives_own_answers_pass() {
        for status in [0x00, 0x18, 0x22, 0x08, 0x28, 0x40] {
            let answer = judge(&completion(status)).unwrap();
            assert_eq!((answer.status, answer.transferred), (status, 512));
        }
        let checked = SgCompletion {
            sense: NOT_FOUND.to_vec(),
            driver_status: DRIVER_SENSE,
            resid: 512,
            ..completion(2)
        };
        let answer = judge(&checked).unwrap();
        assert_eq!((answer.sense.as_slice(), answer.transferred), (&NOT_FOUND[..], 0));
    }

    #[test]
    fn terminated_with_zero_sense_is_terminated() {
        let answer = judge(&SgCompletion {
            driver_status: DRIVER_SENSE,
            sense: vec![0; 8],
            ..completion(0x22)
        });
        assert_eq!(answer.unwrap().status, 0x22);
    }

    /// An error of the kernel or an adapter is no answer of the drive, whatever status and sense
    /// data come with it. It never proves that nothing was sent.
    #[test]
    fn answered_error_is_none_of_the_kernels_own() {
        for (host_status, why) in [
            (0x01, "NO_CONNECT: also ends what was sent to a device that disappeared"),
            (0x02, "BUS_BUSY: the bus was not had, or was lost"),
            (0x03, "TIME_OUT: aborted after its time, perhaps carried out before"),
            (0x04, "BAD_TARGET: also ends what was sent to a target that went"),
            (0x05, "ABORT: aborted for another reason"),
            (0x06, "PARITY: data was damaged on the way, either way"),
            (0x07, "ERROR: internal to the adapter"),
            (0x08, "RESET: the adapter or the bus was reset under it"),
            (0x09, "BAD_INTR: an interrupt that nobody expected"),
            (0x0A, "PASSTHROUGH: the driver forced it past the SCSI layer"),
            (0x0B, "SOFT_ERROR: the driver wants it sent again"),
            (0x0C, "IMM_RETRY: the same, at once"),
            (0x0D, "REQUEUE: the same, without counting it"),
            (0x0E, "TRANSPORT_DISRUPTED: the transport was lost under it"),
            (0x0F, "TRANSPORT_FAILFAST: the transport did not come back"),
            (0x10, "TARGET_FAILURE: of older kernels"),
            (0x11, "NEXUS_FAILURE: of older kernels"),
            (0x12, "ALLOC_FAILURE: of older kernels"),
            (0x13, "MEDIUM_ERROR: of older kernels"),
            (0x14, "TRANSPORT_MARGINAL: the path is not good enough"),
            (0xFF, "not known"),
        ] {
            for status in [0x00, 0x18, 0x22, 0x02] {
                let sense = NOT_FOUND.to_vec();
                let failed = SgCompletion { host_status, sense, ..completion(status) };
                assert!(matches!(judge(&failed), Err(TransportError::Unknown(_))), "{why}");
            }
        }
        for (driver_status, why) in [
            (0x01, "BUSY"),
            (0x02, "SOFT"),
            (0x03, "MEDIA"),
            (0x04, "ERROR"),
            (0x05, "INVALID"),
            (0x06, "TIMEOUT"),
            (0x07, "HARD"),
        ] {
            let failed = SgCompletion { driver_status, ..completion(0x18) };
            assert!(matches!(judge(&failed), Err(TransportError::Unknown(_))), "{why}");
        }
    }

    #[test]
    fn the_residual_count_is_respected() {
        let short = |resid| judge(&SgCompletion { resid, ..completion(0) });
        assert_eq!(short(500).unwrap().transferred, 12);
        assert_eq!(short(512).unwrap().transferred, 0);
        assert!(short(513).is_err());
        assert!(short(-1).is_err());
    }

    #[test]
    fn errors_before_sending_are_told_from_those_after() {
        let judged = |errno, kind| match judge_errno(errno, kind, false) {
            CommandError::Transport(undelivered) => undelivered,
            too_long => panic!("{errno}: {too_long:?}"),
        };
        for errno in [Errno::ENODEV, Errno::ENXIO, Errno::EPERM, Errno::ENOTTY, Errno::EINVAL] {
            assert!(matches!(judged(errno, NodeKind::Block), TransportError::NotSent(_)));
        }
        for errno in [Errno::EINTR, Errno::EIO, Errno::EFAULT, Errno::ETIMEDOUT] {
            assert!(matches!(judged(errno, NodeKind::Block), TransportError::Unknown(_)));
            assert!(matches!(judged(errno, NodeKind::Sg), TransportError::Unknown(_)));
        }
        assert!(matches!(judged(Errno::ENODEV, NodeKind::Sg), TransportError::Unknown(_)));
        assert!(judged(Errno::EPERM, NodeKind::Sg).to_string().contains("CAP_SYS_RAWIO"));
    }

    #[test]
    fn a_read_that_is_too_long_for_the_kernel_is_told_from_other_trouble() {
        for (errno, kind, too_long) in [
            (Errno::EINVAL, NodeKind::Sg, true),
            (Errno::EINVAL, NodeKind::Block, true),
            (Errno::ENOMEM, NodeKind::Sg, true),
            (Errno::EIO, NodeKind::Block, true),
            (Errno::EIO, NodeKind::Sg, false),
            (Errno::ENODEV, NodeKind::Block, false),
            (Errno::EPERM, NodeKind::Block, false),
        ] {
            let judged = judge_errno(errno, kind, true);
            assert_eq!(matches!(judged, CommandError::TooLong(_)), too_long, "{errno} {kind:?}");
        }
    }

    #[test]
    fn a_command_gets_what_is_left_and_a_block_node_none_that_is_less_than_it_takes() {
        let time = virtual_time();
        let deadline = soon();
        for (at, sg, block) in [
            (0, Some(7500), Some(7500)),
            (4900, Some(7100), Some(7100)),
            (5001, Some(6999), None),
            (11_999, Some(1), None),
            (12_000, None, None),
        ] {
            time.set(Duration::from_millis(at));
            for (kind, expected) in [(NodeKind::Sg, sg), (NodeKind::Block, block)] {
                let timeout = kind.timeout(&deadline);
                let not_sent = CommandError::Transport(TransportError::NotSent(String::new()));
                let same = core::mem::discriminant(&not_sent);
                match (&timeout, expected) {
                    (Ok(timeout), Some(ms)) => assert_eq!(*timeout, Duration::from_millis(ms)),
                    (Err(late), None) => assert_eq!(core::mem::discriminant(late), same),
                    _ => panic!("{at} {kind:?}: {timeout:?}"),
                }
            }
        }
    }

    #[test]
    fn gone_devices_are_opened_again() {
        let gone = SgCompletion { host_status: host::NO_CONNECT, ..completion(0) };
        assert!(leads_nowhere(&Ok(gone)));
        assert!(leads_nowhere(&Err(Errno::ENODEV)));
        assert!(!leads_nowhere(&Ok(completion(0x18))));
        assert!(!leads_nowhere(&Err(Errno::EINTR)));
    }

    fn node(path: &str) -> ScsiNode {
        let topology = Topology::new(BTreeMap::new());
        ScsiNode::new(path.into(), "naa.5000".into(), Arc::new(topology))
    }

    #[test]
    fn a_missing_node_means_not_sent_and_is_named() {
        let cdb = idm_protocol::scsi::read_table(1);
        for path in ["/dev/nonexistent-sd", "/dev/null"] {
            let result = node(path).execute(&cdb, Data::In(&mut [0; 512]), &soon());
            let Err(CommandError::Transport(TransportError::NotSent(why))) = result else {
                panic!("{path}: {result:?}");
            };
            assert!(why.starts_with(path), "{why}");
        }
    }

    /// A node whose device follows a script, with the number of each opcode that it got.
    struct Scripted {
        node: ScsiNode,
        opened: Arc<OpenScsi>,
        opcodes: RefCell<Vec<u8>>,
        /// UNIT ATTENTION that comes with the next command other than INQUIRY.
        attention: Cell<Option<u8>>,
        /// Identity in the drive's page.
        naa: Cell<[u8; 8]>,
    }

    const NAA: [u8; 8] = [0x50, 0, 0xC5, 0, 1, 2, 3, 4];
    const OTHER: [u8; 8] = [0x50, 0, 0xC5, 0, 9, 9, 9, 9];

    impl Scripted {
        fn new() -> Scripted {
            Scripted::with(Topology::new(BTreeMap::new()))
        }

        fn with(topology: Topology) -> Scripted {
            let topology = Arc::new(topology);
            let fd = std::fs::File::open("/dev/null").unwrap().into();
            Scripted {
                node: ScsiNode::new("/dev/sdx".into(), "naa.5000c50001020304".into(), topology),
                opened: Arc::new(OpenScsi { fd, kind: NodeKind::Sg }),
                opcodes: RefCell::default(),
                attention: Cell::new(None),
                naa: Cell::new(NAA),
            }
        }

        fn read(&self) -> Result<ScsiCompletion, CommandError> {
            let run = |_: &OpenScsi, cdb: &Cdb, data: Data<'_>, _| {
                self.opcodes.borrow_mut().push(cdb[0]);
                let asked = data.size();
                let (0x12, Data::In(page)) = (cdb[0], data) else {
                    return Ok(match self.attention.take() {
                        Some(ascq) => SgCompletion {
                            sense: vec![0x70, 0, 6, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0x3F, ascq],
                            ..completion(0x02)
                        },
                        None => SgCompletion { asked, ..completion(0) },
                    });
                };
                page[..8].copy_from_slice(&[0, 0x83, 0, 12, 1, 3, 0, 8]);
                page[8..16].copy_from_slice(&self.naa.get());
                Ok(SgCompletion { asked, resid: asked as i32 - 16, ..completion(0) })
            };
            let cdb = idm_protocol::scsi::read_table(1);
            self.node.run(&self.opened, &cdb, Data::In(&mut [0; 512]), &soon(), &run)
        }

        fn opcodes(&self) -> Vec<u8> {
            self.opcodes.take()
        }
    }

    #[test]
    fn a_drive_that_may_be_another_one_tells_its_identity_before_it_is_believed() {
        let drive = Scripted::new();
        // The information in sysfs may be older than the process.
        assert!(drive.read().is_ok());
        assert_eq!(drive.opcodes(), [0x12, 0xF0]);
        assert!(drive.read().is_ok());
        assert_eq!(drive.opcodes(), [0xF0]);
        for ascq in [0x03, 0x05, 0x0E] {
            drive.attention.set(Some(ascq));
            assert_eq!(drive.read().unwrap().status, 0x02);
            assert!(drive.read().is_ok());
            assert_eq!(drive.opcodes(), [0xF0, 0x12, 0xF0], "it is asked once");
            assert!(drive.read().is_ok());
            assert_eq!(drive.opcodes(), [0xF0]);
        }
        // Other conditions say nothing about its identity.
        drive.attention.set(Some(0x01));
        assert_eq!(drive.read().unwrap().status, 0x02);
        assert!(drive.read().is_ok());
        assert_eq!(drive.opcodes(), [0xF0, 0xF0]);
        // The kernel may have got the condition instead.
        drive.node.doubt();
        assert!(drive.read().is_ok());
        assert_eq!(drive.opcodes(), [0x12, 0xF0]);
    }

    #[test]
    fn another_drive_behind_a_node_gets_no_command() {
        let gets_none = |drive: &Scripted| {
            drive.naa.set(OTHER);
            for _ in 0..3 {
                let Err(CommandError::Transport(TransportError::NotSent(why))) = drive.read()
                else {
                    panic!("it is believed");
                };
                assert!(why.contains("/dev/sdx") && why.contains("naa.5000c50009090909"), "{why}");
                assert_eq!(drive.opcodes(), [0x12]);
            }
        };
        let before = Scripted::new();
        gets_none(&before);
        let meanwhile = Scripted::new();
        meanwhile.attention.set(Some(0x0E));
        assert_eq!(meanwhile.read().unwrap().status, 0x02);
        assert_eq!(meanwhile.opcodes(), [0x12, 0xF0]);
        gets_none(&meanwhile);
        for drive in [before, meanwhile] {
            drive.naa.set(NAA);
            assert!(drive.read().is_ok(), "it is back");
        }
    }

    #[test]
    fn a_drive_that_the_kernel_names_has_to_show_the_page_that_the_kernel_has_read() {
        // A SCSI name string, which is none of the designators that this library compares.
        const PAGE: [u8; 16] = *b"\0\x83\0\x0c\x03\x08\0\x08naa.5555";
        let sysfs = tempfile::tempdir().unwrap();
        // The numbers of /dev/null, which is open in place of an sg node.
        let device = sysfs.path().join("dev/char/1:3/device");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("wwid"), "naa.5000c50001020304\n").unwrap();
        let topology = Topology::with_sysfs(sysfs.path().into(), BTreeMap::new());
        let drive = Scripted::with(topology);
        let asked = |known: &[u8]| {
            std::fs::write(device.join("vpd_pg83"), known).unwrap();
            drive.node.doubt();
            let run = |_: &OpenScsi, cdb: &Cdb, data: Data<'_>, _| {
                let asked = data.size();
                if let (0x12, Data::In(page)) = (cdb[0], data) {
                    page[..16].copy_from_slice(&PAGE);
                }
                Ok(SgCompletion { asked, ..completion(0) })
            };
            let cdb = idm_protocol::scsi::read_table(1);
            drive.node.run(&drive.opened, &cdb, Data::In(&mut [0; 512]), &soon(), &run).is_ok()
        };
        assert!(asked(&PAGE));
        assert!(!asked(&PAGE.map(|byte| if byte == b'5' { b'6' } else { byte })));
        assert!(!asked(&[]));
        std::fs::write(device.join("wwid"), "naa.5000c50001020305\n").unwrap();
        assert!(!asked(&PAGE), "the kernel names another drive");
    }

    #[test]
    fn what_was_answered_while_the_identity_became_doubtful_is_not_believed() {
        let drive = Scripted::new();
        assert!(drive.read().is_ok());
        let run = |_: &OpenScsi, _: &Cdb, data: Data<'_>, _| {
            // Another command has got the condition meanwhile.
            drive.node.doubt();
            Ok(SgCompletion { asked: data.size(), ..completion(0) })
        };
        let cdb = idm_protocol::scsi::read_table(1);
        let answer = drive.node.run(&drive.opened, &cdb, Data::In(&mut [0; 512]), &soon(), &run);
        let Err(CommandError::Transport(TransportError::Unknown(why))) = answer else {
            panic!("{answer:?}");
        };
        assert!(why.contains("another drive"), "{why}");
    }
}
