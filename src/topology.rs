//! From a PV path to the drives behind it.
//!
//! Everything comes from sysfs and the configuration: no udev database, no subprocess. A drive is
//! what its identity says: two paths with one identity are one drive, and identities are compared
//! at full length, so two drives never become one.
//!
//! [`stack`] goes from a block device down to disks, [`mod@identity`] says which drive a disk is,
//! [`inventory`] lists all disks, [`uevents`] tells when they may have changed.

mod disk;
mod identity;
mod inventory;
mod stack;
mod sysfs;
#[cfg(test)]
pub(crate) mod tests;
mod uevents;

pub use disk::{Located, PathAddress, UNKNOWN};
pub use identity::{designator, device_designator};

use crate::sys::sync::Mutex;
use core::fmt;
use disk::{EMULATED, drive_of};
use identity::{DiskIdentity, DiskKind, identity};
pub use inventory::Inventory;
use stack::Stack;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sysfs::{Sysfs, entries, name_of};
pub use uevents::{Uevents, concerns_disks};

/// Finds drives.
#[derive(Clone, Debug)]
pub struct Topology {
    sysfs: Sysfs,
    emulated: BTreeMap<String, PathBuf>,
    remembered: Arc<Mutex<Remembered>>,
}

/// What was found behind block devices, by their numbers. It holds until the next kernel event:
/// every disk that comes or goes and every table that is loaded is one.
#[derive(Debug, Default)]
struct Remembered {
    events: Option<u64>,
    found: HashMap<u64, Found>,
}

/// What was found behind a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The drives, each once. There is at least one, here or in `missing`.
    pub drives: Vec<Located>,
    /// What else the stack behind the path is made of and is gone now, by the kernel's names.
    pub missing: Vec<String>,
}

/// Why no drive was found behind a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyError {
    /// There is nothing now; it may come back.
    Missing {
        /// The path.
        path: String,
        /// What was tried, and what came of it.
        why: String,
    },
    /// What is there is not a drive that can have IDM.
    Unusable {
        /// The path.
        path: String,
        /// What was found.
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
    /// The drives of this host, and emulated ones by path or plain name.
    pub fn new(emulated: BTreeMap<String, PathBuf>) -> Topology {
        Topology::with_sysfs(PathBuf::from("/sys"), emulated)
    }

    /// As [`Topology::new`], with another root of sysfs.
    pub fn with_sysfs(sysfs: PathBuf, emulated: BTreeMap<String, PathBuf>) -> Topology {
        Topology { sysfs: Sysfs::new(sysfs), emulated, remembered: Arc::default() }
    }

    /// The drives behind PVs' paths, in that order. Costs one system call for each where nothing
    /// has happened to the host's devices since they were last looked at, and else some on sysfs;
    /// no drive is asked.
    pub fn locate(&self, paths: &[String]) -> Vec<Result<Found, TopologyError>> {
        let mut remembered = self.remembered.lock();
        // Before anything is looked at, so that nothing is remembered for longer than it is true.
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
            let identity = format!("{EMULATED}{}", socket.display());
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

    /// All disks that the host has, and what they are to us. Reads all of them in sysfs.
    pub fn inventory(&self) -> io::Result<Inventory> {
        Inventory::take(&self.sysfs)
    }

    /// How many kernel events there were since the host was started. `None` where the kernel does
    /// not count them.
    pub fn event_count(&self) -> Option<u64> {
        self.sysfs.event_count()
    }

    /// The sg node of the SCSI disk that a block device is; `None` where there is none, for example
    /// without the sg module.
    pub fn sg_node(&self, block_device: u64) -> Option<PathBuf> {
        let disk = self.sysfs.block_device(block_device).ok()?;
        let sg = entries(&disk.join("device/scsi_generic")).pop()?;
        Some(Path::new("/dev").join(name_of(&sg)))
    }

    /// The identity of the drive that an open block device belongs to, to be compared with what
    /// was expected: nodes are given to other drives when drives come and go. An error says what
    /// was found.
    pub fn identity_of_block(&self, number: u64) -> Result<String, String> {
        let disk = self.sysfs.block_device(number).map_err(|_| GONE.to_owned())?;
        drive_of(&disk).map(|(identity, _)| identity.unit)
    }

    /// The same for an open sg device.
    pub fn identity_of_sg(&self, number: u64) -> Result<String, String> {
        let device = self.sysfs.character_device(number).map_err(|_| GONE.to_owned())?;
        identity(&device, DiskKind::Scsi).map(|identity| identity.unit)
    }
}

const GONE: &str = "its device is not in sysfs";

fn missing(path: &str, what: &str, error: &io::Error) -> TopologyError {
    TopologyError::Missing { path: path.to_owned(), why: format!("{what}: {error}") }
}

fn unusable(path: &str, found: &str) -> TopologyError {
    TopologyError::Unusable { path: path.to_owned(), found: found.to_owned() }
}
