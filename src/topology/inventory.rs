//! The disks of a host: the paths to every drive, and the partitions of the global lock.

use super::disk::{EMULATED, Located, PathAddress, UNKNOWN, drive_of, has_global_name, is_disk};
use super::identity::DiskIdentity;
use super::sysfs::{Sysfs, disk_of, node_of};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

/// The disks of a host at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    drives: HashMap<String, Vec<PathAddress>>,
    /// Drives with a partition for the global lock, each with the node of the first such partition.
    global: Vec<(PathBuf, Located)>,
}

impl Inventory {
    /// Scans all block devices. Disks that cannot be drives with IDM are left out.
    pub(super) fn take(sysfs: &Sysfs) -> io::Result<Inventory> {
        let mut inventory = Inventory::default();
        let devices = sysfs.block_devices()?;
        for disk in devices.iter().filter(|device| is_disk(device)) {
            if let Ok((identity, address)) = drive_of(disk) {
                inventory.drives.entry(identity.unit).or_default().push(address);
            }
        }
        for partition in devices.iter().filter(|device| has_global_name(device)) {
            let Some(Ok((identity, _))) = disk_of(partition).as_deref().map(drive_of) else {
                continue;
            };
            let DiskIdentity { unit: identity, device } = identity;
            if !inventory.global.iter().any(|(_, drive)| drive.identity == identity) {
                let paths = inventory.paths_of(&identity).to_vec();
                inventory.global.push((node_of(partition), Located { identity, device, paths }));
            }
        }
        Ok(inventory)
    }

    /// The paths to a drive. When a drive comes back and its old node is still in use, the kernel
    /// gives it another one.
    pub fn paths_of(&self, identity: &str) -> &[PathAddress] {
        self.drives.get(identity).map_or(&[], Vec::as_slice)
    }

    /// Whether a drive with this identity would be listed if it were present: emulated drives, and
    /// drives known only by a path that leads nowhere, are not.
    pub fn would_list(identity: &str) -> bool {
        !identity.starts_with(EMULATED) && !identity.starts_with(UNKNOWN)
    }

    /// The drives with a partition for the global lock, each with the node of the first such
    /// partition.
    pub fn global(&self) -> &[(PathBuf, Located)] {
        &self.global
    }
}
