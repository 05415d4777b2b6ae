//! The kernel's own events about devices: they need no udev.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Multicast group of the kernel itself; udev uses the second.
const KERNEL: u32 = 1;
/// Bytes of the longest message of the kernel: UEVENT_BUFFER_SIZE and a header.
const MESSAGE: usize = 8192;

/// A socket for the kernel's events about devices.
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Opens the socket. Fails where this is not allowed, for example by a seccomp filter.
    pub fn open() -> io::Result<Uevents> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Uevents(fd))
    }

    /// Takes all events that have arrived, without waiting.
    pub fn drain(&self) -> News {
        let mut news = News::default();
        let mut message = [0; MESSAGE];
        loop {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(length) => {
                    let event = &message[..length];
                    news.disks |= concerns_disks(event);
                    news.identities |= tells_of_another_unit(event);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => news = News { disks: true, identities: true },
                Err(_) => return news,
            }
        }
    }
}

/// Content of kernel events; where some were lost, all that they may have said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Whether disks may have come, gone or changed.
    pub disks: bool,
    /// Whether other drives may be behind SCSI disks than before.
    pub identities: bool,
}

/// Whether a kernel event says that a SCSI disk may be another one now. The kernel sends it when
/// the disk has answered a command with such a UNIT ATTENTION (3F/03, 3F/0E), whichever process
/// sent that command: no later command gets this answer.
fn tells_of_another_unit(message: &[u8]) -> bool {
    message.split(|&byte| byte == 0).any(|field| {
        matches!(
            field,
            b"SDEV_UA=INQUIRY_DATA_HAS_CHANGED" | b"SDEV_UA=REPORTED_LUNS_DATA_HAS_CHANGED"
        )
    })
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a kernel event may be about a disk, its partitions or its controller. An event about a
/// device that is only stacked on disks is not: activating a logical volume changes no drive.
pub fn concerns_disks(message: &[u8]) -> bool {
    let mut fields = message.split(|&byte| byte == 0);
    // The first is ACTION@DEVPATH. The kernel's messages have no other header.
    let Some(at) = fields.next().and_then(|head| head.iter().position(|&byte| byte == b'@')) else {
        return false;
    };
    if message[at + 1..].starts_with(b"/devices/virtual/block/") {
        return false;
    }
    let subsystem = fields.find_map(|field| field.strip_prefix(b"SUBSYSTEM="));
    [&b"block"[..], b"scsi", b"scsi_generic", b"nvme", b"nvme-subsystem"]
        .iter()
        .any(|&name| subsystem == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, path: &str, subsystem: &str) -> Vec<u8> {
        let fields = [
            format!("{action}@{path}"),
            format!("ACTION={action}"),
            format!("DEVPATH={path}"),
            format!("SUBSYSTEM={subsystem}"),
            "SEQNUM=4711".to_owned(),
        ];
        let mut message = fields.join("\0").into_bytes();
        message.push(0);
        message
    }

    #[test]
    fn disks_partitions_and_controllers_concern_us_and_nothing_else_does() {
        let sdb = "/devices/pci0000:00/0000:00:05.0/host2/target2:0:0/2:0:0:0/block/sdb";
        for (path, subsystem, expected) in [
            (sdb, "block", true),
            ("/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "block", true),
            ("/devices/virtual/nvme-fabrics/ctl/nvme0", "nvme", true),
            ("/devices/pci0000:00/0000:00:05.0/host2/target2:0:0/2:0:0:0", "scsi", true),
            ("/devices/virtual/block/dm-3", "block", false),
            ("/devices/virtual/block/loop0", "block", false),
            ("/devices/virtual/net/lo", "net", false),
            (sdb, "blocks", false),
        ] {
            for action in ["add", "remove", "change"] {
                assert_eq!(concerns_disks(&event(action, path, subsystem)), expected, "{path}");
            }
        }
    }

    #[test]
    fn a_unit_attention_that_the_kernel_was_told_is_heard() {
        let path = "/devices/pci0000:00/0000:00:05.0/host2/target2:0:0/2:0:0:0";
        for (told, expected) in [
            ("INQUIRY_DATA_HAS_CHANGED", true),
            ("REPORTED_LUNS_DATA_HAS_CHANGED", true),
            ("CAPACITY_DATA_HAS_CHANGED", false),
        ] {
            let mut message = event("change", path, "scsi");
            message.extend(format!("SDEV_UA={told}\0").bytes());
            assert!(concerns_disks(&message));
            assert_eq!(tells_of_another_unit(&message), expected, "{told}");
        }
        assert!(!tells_of_another_unit(&event("change", path, "scsi")));
    }

    #[test]
    fn what_is_no_event_concerns_nobody() {
        let whole = event("add", "/devices/x", "block");
        for length in 0..whole.len() {
            // Either result is right: the part may have all the fields that count.
            concerns_disks(&whole[..length]);
        }
        for message in
            [&b""[..], b"libudev\0\xfe\xed\xca\xfeSUBSYSTEM=block\0", b"add@", b"\0\0@\0"]
        {
            assert!(!concerns_disks(message));
        }
    }

    #[test]
    fn nothing_is_waited_for() {
        // Where the socket is not allowed, there is nothing to test.
        if let Ok(uevents) = Uevents::open() {
            uevents.drain();
        }
    }
}
