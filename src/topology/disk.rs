//! A disk: the drive that it belongs to, and the path to it.

use super::identity::{DiskIdentity, DiskKind, identity, kind};
use super::sysfs::{attribute, node_of};
use core::fmt;
use std::path::{Path, PathBuf};

/// A drive that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Full identity, the same on every host; for SCSI that of the logical unit.
    pub identity: String,
    /// Identity of the device that fails as a whole; the drive may be a part of it.
    pub device: String,
    /// Paths to the drive, the best first. Never empty.
    pub paths: Vec<PathAddress>,
}

/// The address of a path to a drive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathAddress {
    /// A SCSI disk, by its block node.
    Scsi(PathBuf),
    /// An NVMe drive, by the block node of a namespace. With native multipath this is the head, and
    /// the kernel chooses a controller.
    Nvme(PathBuf),
    /// An emulated drive, by its socket.
    Emulated(PathBuf),
}

impl fmt::Display for PathAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (PathAddress::Scsi(path) | PathAddress::Nvme(path) | PathAddress::Emulated(path)) =
            self;
        write!(f, "{}", path.display())
    }
}

/// Prefix of the identity of an emulated drive.
pub(super) const EMULATED: &str = "emulated.";
/// Prefix of the identity that stands for a path without a drive.
pub const UNKNOWN: &str = "unknown.";

/// Whether a block device is a whole disk with a node of its own: no partition, no stacked device,
/// and no path that native multipath of NVMe hides behind a head.
pub(super) fn is_disk(device: &Path) -> bool {
    let has = |name: &str| device.join(name).exists();
    has("dev") && has("device") && !has("partition")
}

/// The drive of a disk, and the path to it. An error describes the device.
pub(super) fn drive_of(disk: &Path) -> Result<(DiskIdentity, PathAddress), String> {
    let kind = kind(disk)?;
    let address = match kind {
        DiskKind::Scsi => PathAddress::Scsi(node_of(disk)),
        DiskKind::Nvme => PathAddress::Nvme(node_of(disk)),
    };
    Ok((identity(disk, kind)?, address))
}

/// The exact name of a partition that makes its drive one of the global lock's drives.
const GLOBAL_PARTITION: &str = "propeller";

/// Whether a block device is a partition with that name. The kernel reports the name in `uevent`.
pub(super) fn has_global_name(device: &Path) -> bool {
    device.join("partition").exists()
        && attribute(device, "uevent").is_some_and(|text| {
            text.lines().any(|line| line.strip_prefix("PARTNAME=") == Some(GLOBAL_PARTITION))
        })
}
