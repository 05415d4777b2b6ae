//! The disks that a block device is made of, below partitions, device-mapper and md.

use super::sysfs::{attribute, disk_of, entries, name_of};
use std::fs;
use std::path::{Path, PathBuf};

/// Components of a block device.
#[derive(Debug, Default)]
pub(super) struct Stack {
    /// The disks, each once.
    pub disks: Vec<PathBuf>,
    /// Names of block devices that belong to the stack and are gone.
    pub missing: Vec<String>,
}

/// The deepest possible stack: a limit in case sysfs contains nonsense.
const MOST_LEVELS: usize = 32;
/// Prefix of the uuid of a multipath map, set by multipath-tools.
const MULTIPATH: &str = "mpath-";

impl Stack {
    /// All disks below a block device. An error names the device that is not a disk.
    pub(super) fn below(device: &Path) -> Result<Stack, String> {
        let mut stack = Stack::default();
        stack.add(device, device, 0)?;
        Ok(stack)
    }

    fn add(&mut self, top: &Path, device: &Path, level: usize) -> Result<(), String> {
        // For a virtual device below another one, the error names both.
        let found = |what: &str| {
            if device == top { what.to_owned() } else { format!("on {}, {what}", name_of(device)) }
        };
        if level > MOST_LEVELS {
            return Err(found("a stack without end"));
        }
        if device.join("partition").exists() {
            let disk = disk_of(device).ok_or_else(|| found("a partition without a disk"))?;
            return self.add(top, &disk, level + 1);
        }
        // A stacked device has no `device` directory of its own.
        if device.join("device").exists() {
            if !self.disks.iter().any(|disk| disk == device) {
                self.disks.push(device.to_path_buf());
            }
            return Ok(());
        }
        let is_multipath = is_multipath(device);
        let slaves = entries(&device.join("slaves"));
        if slaves.is_empty() && is_multipath {
            self.missing.push(format!("{}, a multipath map without paths", name_of(device)));
            return Ok(());
        }
        if slaves.is_empty() {
            return Err(found(what_is(device)));
        }
        let before = self.missing.len();
        let disks = self.disks.len();
        for slave in slaves {
            // The kernel keeps the link of a disk that is gone until the table is loaded again.
            let name = name_of(&slave);
            if slave.exists() {
                self.add(top, &device.with_file_name(name), level + 1)?;
            } else {
                self.missing.push(name);
            }
        }
        // All paths of a map lead to one drive; any of them stands for it.
        if is_multipath && self.disks.len() > disks {
            self.missing.truncate(before);
        }
        Ok(())
    }
}

/// The disks below a stacked device, whatever else is below it. `None` if they cannot be told:
/// the kernel lists nothing, or some are gone and may come back below it.
pub(super) fn disks_below(device: &Path) -> Option<Vec<PathBuf>> {
    let mut disks = Vec::new();
    add_disks_below(device, 0, &mut disks).then_some(disks)
}

/// Returns whether all disks below a stacked device can be told.
fn add_disks_below(device: &Path, level: usize, disks: &mut Vec<PathBuf>) -> bool {
    let Ok(slaves) = fs::read_dir(device.join("slaves")) else { return level > 0 };
    let slaves: Vec<PathBuf> = slaves.flatten().map(|slave| slave.path()).collect();
    if level > MOST_LEVELS || slaves.is_empty() && is_multipath(device) {
        return false;
    }
    slaves.iter().all(|slave| {
        let Ok(device) = slave.canonicalize() else { return false };
        let is_partition = device.join("partition").exists();
        let device = device.parent().filter(|_| is_partition).unwrap_or(&device);
        if device.join("device").exists() {
            disks.push(device.to_path_buf());
            return true;
        }
        add_disks_below(device, level + 1, disks)
    })
}

fn is_multipath(device: &Path) -> bool {
    attribute(&device.join("dm"), "uuid").is_some_and(|uuid| uuid.starts_with(MULTIPATH))
}

/// The kind of a block device that is not a disk and has none below it.
fn what_is(device: &Path) -> &'static str {
    if device.join("dm").exists() {
        "a device-mapper device without a disk below it"
    } else if device.join("md").exists() {
        "an md array without a disk below it"
    } else if device.join("loop").exists() || name_of(device).starts_with("loop") {
        "a loop device"
    } else {
        "a virtual block device"
    }
}
