//! From a block device down to the disks that it is made of: partitions, device-mapper, md.

use super::sysfs::{attribute, disk_of, entries, name_of};
use std::path::{Path, PathBuf};

/// What a block device is made of.
#[derive(Debug, Default)]
pub(super) struct Stack {
    /// The disks, each once.
    pub disks: Vec<PathBuf>,
    /// Names of block devices that are named in the stack and gone.
    pub missing: Vec<String>,
}

/// Nothing stacks deeper; a bound in case that what is read makes no sense.
const MOST_LEVELS: usize = 32;
/// The uuid of a multipath map begins with it: multipath-tools gives it.
const MULTIPATH: &str = "mpath-";

impl Stack {
    /// All disks below a block device. An error says what was found that
    /// is no disk.
    pub(super) fn below(device: &Path) -> Result<Stack, String> {
        let mut stack = Stack::default();
        stack.add(device, device, 0)?;
        Ok(stack)
    }

    fn add(&mut self, top: &Path, device: &Path, level: usize) -> Result<(), String> {
        // Where a virtual device is found below another one, both are named.
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
        // What is stacked on others has no device of its own.
        if device.join("device").exists() {
            if !self.disks.iter().any(|disk| disk == device) {
                self.disks.push(device.to_path_buf());
            }
            return Ok(());
        }
        let is_multipath =
            attribute(&device.join("dm"), "uuid").is_some_and(|uuid| uuid.starts_with(MULTIPATH));
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
            // The kernel leaves the link of a disk that is gone until the table is loaded again.
            let name = name_of(&slave);
            if slave.exists() {
                self.add(top, &device.with_file_name(name), level + 1)?;
            } else {
                self.missing.push(name);
            }
        }
        // The paths of a map are those of one drive; any of them stands for it.
        if is_multipath && self.disks.len() > disks {
            self.missing.truncate(before);
        }
        Ok(())
    }
}

/// What a block device is that is no disk and has none below it.
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
