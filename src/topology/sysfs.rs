//! Reading sysfs, by absolute paths below one root.
//!
//! A block device, disk or partition, is `class/block/NAME`: a link that the kernel follows in
//! every call, so that no path has to be resolved first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Mount point of sysfs; in tests, a directory that the test made.
#[derive(Clone, Debug)]
pub(super) struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    pub(super) fn new(root: PathBuf) -> Sysfs {
        Sysfs { root }
    }

    /// A block device by its number.
    pub(super) fn block_device(&self, number: u64) -> io::Result<PathBuf> {
        let (major, minor) = (libc::major(number), libc::minor(number));
        let device = fs::read_link(self.root.join(format!("dev/block/{major}:{minor}")))?;
        Ok(self.root.join("class/block").join(name_of(&device)))
    }

    /// All block devices, in the order of their names.
    pub(super) fn block_devices(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(self.root.join("class/block")).map(sorted)
    }

    /// The directory of a character device, by its number.
    pub(super) fn character_device(&self, number: u64) -> io::Result<PathBuf> {
        let (major, minor) = (libc::major(number), libc::minor(number));
        let device = self.root.join(format!("dev/char/{major}:{minor}"));
        fs::metadata(&device)?;
        Ok(device)
    }

    /// The number of kernel events since the host booted.
    pub(super) fn event_count(&self) -> Option<u64> {
        attribute(&self.root.join("kernel"), "uevent_seqnum")?.parse().ok()
    }
}

/// The entries of a directory, in the order of their names; empty if it cannot be read.
pub(super) fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map(sorted).unwrap_or_default()
}

fn sorted(entries: fs::ReadDir) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The text of an attribute. `None` if it is missing, unreadable or blank.
pub(super) fn attribute(directory: &Path, name: &str) -> Option<String> {
    let text = fs::read(directory.join(name)).ok()?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// The last component of a link's target, such as the name of a device's subsystem.
pub(super) fn link_name(directory: &Path, name: &str) -> Option<String> {
    let target = fs::read_link(directory.join(name)).ok()?;
    Some(name_of(&target))
}

/// The disk that a partition is on: the directory above its own.
pub(super) fn disk_of(partition: &Path) -> Option<PathBuf> {
    let directory = fs::read_link(partition).ok()?;
    let disk = directory.parent()?.file_name()?;
    Some(partition.with_file_name(disk))
}

/// The kernel's name of a device, which is that of its directory.
pub(super) fn name_of(device: &Path) -> String {
    device.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The node of a block device. It has the name of the directory, where '!' stands for '/'.
pub(super) fn node_of(device: &Path) -> PathBuf {
    Path::new("/dev").join(name_of(device).replace('!', "/"))
}
