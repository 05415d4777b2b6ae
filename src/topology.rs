//! The drives behind a PV path.
//!
//! All information comes from sysfs and the configuration: no udev database, no subprocess. The
//! identity defines a drive: two paths with one identity are one drive, and identities are compared
//! at full length, so two drives never become one.
//!
//! [`stack`] goes from a block device down to its disks, [`mod@identity`] identifies the drive of a
//! disk, [`inventory`] lists all disks, and [`uevents`] reports that they may have changed.

mod disk;
mod identity;
mod inventory;
mod stack;
mod sysfs;
#[cfg(test)]
pub(crate) mod tests;
mod uevents;

pub use disk::{Located, PathAddress, UNKNOWN};
pub use identity::{designator, device_designator, is_same_page};

use crate::sys::sync::Mutex;
use core::fmt;
use disk::{EMULATED, drive_of};
use identity::{DiskIdentity, DiskKind, identity, page_of};
pub use inventory::Inventory;
use stack::Stack;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sysfs::{Sysfs, entries, name_of};
pub use uevents::{News, Uevents, concerns_disks};

/// The finder of drives.
#[derive(Clone, Debug)]
pub struct Topology {
    sysfs: Sysfs,
    emulated: BTreeMap<String, PathBuf>,
    remembered: Arc<Mutex<Remembered>>,
}

/// Results for block devices, by their numbers. They are valid until the next kernel event: every
/// disk that comes or goes and every table that is loaded causes one.
#[derive(Debug, Default)]
struct Remembered {
    events: Option<u64>,
    found: HashMap<u64, Found>,
}

/// Drives found behind a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The drives, each once. There is at least one, here or in `missing`.
    pub drives: Vec<Located>,
    /// Other devices of the stack that are gone now, by the kernel's names.
    pub missing: Vec<String>,
}

/// Reason why no drive was found behind a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyError {
    /// No drive is there now; it may come back.
    Missing {
        /// The path.
        path: String,
        /// The attempt, and its result.
        why: String,
    },
    /// The device is not a drive that can have IDM.
    Unusable {
        /// The path.
        path: String,
        /// Description of the device.
        found: String,
    },
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopologyError::Missing { path, why } => write!(f, "{path}: {why}"),
            TopologyError::Unusable { path, found } => {
                write!(f, "{path} is {found}, which cannot hold IDM locks")
            }
        }
    }
}

impl std::error::Error for TopologyError {}

impl Topology {
    /// A finder of this host's drives, and of emulated drives by path or plain name.
    pub fn new(emulated: BTreeMap<String, PathBuf>) -> Topology {
        Topology::with_sysfs(PathBuf::from("/sys"), emulated)
    }

    /// As [`Topology::new`], with another root of sysfs.
    pub fn with_sysfs(sysfs: PathBuf, emulated: BTreeMap<String, PathBuf>) -> Topology {
        Topology { sysfs: Sysfs::new(sysfs), emulated, remembered: Arc::default() }
    }

    /// The drives behind the paths of PVs, in the same order. Costs one system call for each path
    /// where no kernel event has happened since the last call, otherwise some more on sysfs. No
    /// command is sent to a drive.
    pub fn locate(&self, paths: &[String]) -> Vec<Result<Found, TopologyError>> {
        let mut remembered = self.remembered.lock();
        // Read before everything else, so that no result is kept for longer than it is valid.
        let events = self.sysfs.event_count();
        if events.is_none() || remembered.events != events {
            *remembered = Remembered { events, found: HashMap::new() };
        }
        paths.iter().map(|path| self.locate_path(path, &mut remembered.found)).collect()
    }

    fn locate_path(
        &self,
        path: &str,
        remembered: &mut HashMap<u64, Found>,
    ) -> Result<Found, TopologyError> {
        if let Some(socket) = self.emulated.get(path) {
            // Each port of a drive leads to the same drive.
            let identity = format!("{EMULATED}{}", port_of(socket).0.display());
            let paths = vec![PathAddress::Emulated(socket.clone())];
            let drive = Located { device: identity.clone(), identity, paths };
            return Ok(Found { drives: vec![drive], missing: Vec::new() });
        }
        // Follows symlinks: by-id links and the like.
        let metadata =
            fs::metadata(path).map_err(|error| missing(path, "cannot be read", &error))?;
        if !metadata.file_type().is_block_device() {
            return Err(unusable(path, "not a block device"));
        }
        let number = metadata.rdev();
        if let Some(found) = remembered.get(&number) {
            return Ok(found.clone());
        }
        let found = self.locate_device(path, number)?;
        remembered.insert(number, found.clone());
        Ok(found)
    }

    /// The drives behind a block device number; `path` is for messages.
    fn locate_device(&self, path: &str, number: u64) -> Result<Found, TopologyError> {
        let device = self
            .sysfs
            .block_device(number)
            .map_err(|error| missing(path, "its block device is not in sysfs", &error))?;
        let stack = Stack::below(&device).map_err(|found| unusable(path, &found))?;
        let mut drives: Vec<Located> = Vec::new();
        for disk in &stack.disks {
            let (identity, address) = drive_of(disk).map_err(|found| unusable(path, &found))?;
            let DiskIdentity { unit: identity, device } = identity;
            match drives.iter_mut().find(|drive| drive.identity == identity) {
                Some(drive) => drive.paths.push(address),
                None => drives.push(Located { identity, device, paths: vec![address] }),
            }
        }
        Ok(Found { drives, missing: stack.missing })
    }

    /// An inventory of all disks of the host. Reads all of them in sysfs.
    pub fn inventory(&self) -> io::Result<Inventory> {
        Inventory::take(&self.sysfs)
    }

    /// The number of kernel events since the host booted. `None` if the kernel does not count them.
    pub fn event_count(&self) -> Option<u64> {
        self.sysfs.event_count()
    }

    /// The sg node of a SCSI disk, by its block device; `None` if there is none, for example
    /// without the sg module.
    pub fn sg_node(&self, block_device: u64) -> Option<PathBuf> {
        let disk = self.sysfs.block_device(block_device).ok()?;
        let sg = entries(&disk.join("device/scsi_generic")).pop()?;
        Some(Path::new("/dev").join(name_of(&sg)))
    }

    /// The identity of the drive that an open block device belongs to. Callers compare it with the
    /// expected one: nodes are given to other drives when drives come and go. An error describes
    /// the device.
    pub fn identity_of_block(&self, number: u64) -> Result<String, String> {
        let disk = self.sysfs.block_device(number).map_err(|_| GONE.to_owned())?;
        drive_of(&disk).map(|(identity, _)| identity.unit)
    }

    /// The same for an open sg device.
    pub fn identity_of_sg(&self, number: u64) -> Result<String, String> {
        let device = self.sysfs.character_device(number).map_err(|_| GONE.to_owned())?;
        identity(&device, DiskKind::Scsi).map(|identity| identity.unit)
    }

    /// VPD page 83 of the open block device of a SCSI disk, as the kernel has read it. Empty if it
    /// has none.
    pub fn page_of_block(&self, number: u64) -> Vec<u8> {
        self.sysfs.block_device(number).map(|disk| page_of(&disk)).unwrap_or_default()
    }

    /// The same for an open sg device.
    pub fn page_of_sg(&self, number: u64) -> Vec<u8> {
        self.sysfs.character_device(number).map(|device| page_of(&device)).unwrap_or_default()
    }
}

/// The identities of the drives below a stacked block device, by its directory in sysfs. What can
/// have no IDM is left out. `None` where it cannot be told what is below it.
pub fn identities_below(device: &Path) -> Option<Vec<String>> {
    let disks = stack::disks_below(device)?;
    Some(disks.iter().filter_map(|disk| Some(drive_of(disk).ok()?.0.unit)).collect())
}

/// The socket of an emulated drive, and the name of the port by which this host reaches it, which
/// may follow after a `#`.
pub fn port_of(path: &Path) -> (PathBuf, String) {
    let whole = path.to_string_lossy();
    match whole.rsplit_once('#') {
        Some((socket, port)) => (PathBuf::from(socket), port.to_owned()),
        None => (path.to_owned(), String::new()),
    }
}

const GONE: &str = "its device is not in sysfs";

fn missing(path: &str, what: &str, error: &io::Error) -> TopologyError {
    TopologyError::Missing { path: path.to_owned(), why: format!("{what}: {error}") }
}

fn unusable(path: &str, found: &str) -> TopologyError {
    TopologyError::Unusable { path: path.to_owned(), found: found.to_owned() }
}
