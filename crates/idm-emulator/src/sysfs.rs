//! The part of sysfs by which a host finds the drives behind block devices, for emulated drives.
//!
//! With these directories in place of the kernel's, in a mount namespace of its own, a program
//! takes any block device for a SCSI disk. Its commands are refused by the kernel, unless the
//! library of `crates/idm-sg` is preloaded and brings them to the emulated drive.
//!
//! A device that every machine has stands for the sg node of each disk, because the node only has
//! to let itself be opened. Without it, commands would go to the block node, with the longer
//! time-outs of such nodes.

use crate::client::Client;
use nix::sys::stat::{major, minor};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the link, beside the attributes of a disk's device, to the socket of its drive.
pub const EMULATOR: &str = "emulator";
/// The directories of sysfs that [`write()`] makes, for mounting them.
pub const DIRECTORIES: [&str; 3] = ["class/block", "dev/block", "dev/char"];

/// What stands for the sg nodes of the disks, in this order, in `/dev`.
const SG_NODES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// INQUIRY for the device identification page.
const IDENTITY: [u8; 6] = [0x12, 1, 0x83, 0, 255, 0];
/// Longest time for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the directories below `root`. Each disk is a block node, of a device that need not exist,
/// and the socket of a drive, which is asked for its identity.
pub fn write(root: &Path, disks: &[(PathBuf, PathBuf)]) -> io::Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    if disks.len() > SG_NODES.len() {
        let most = format!("at most {} disks are possible", SG_NODES.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, most));
    }
    for ((node, socket), sg) in disks.iter().zip(SG_NODES) {
        let name = node.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let disk = root.join("class/block").join(name);
        let device = disk.join("device");
        fs::create_dir_all(device.join("scsi_generic").join(sg))?;
        symlink("/sys/bus/scsi", device.join("subsystem"))?;
        symlink(socket, device.join(EMULATOR))?;
        fs::write(device.join("vpd_pg83"), identity(socket)?)?;
        let number = number(node)?;
        fs::write(disk.join("dev"), format!("{number}\n"))?;
        let above = Path::new("../../class/block").join(name);
        symlink(&above, root.join("dev/block").join(number))?;
        let generic = root.join("dev/char").join(self::number(&Path::new("/dev").join(sg))?);
        fs::create_dir(&generic)?;
        symlink(Path::new("..").join(above).join("device"), generic.join("device"))?;
    }
    Ok(())
}

/// MAJOR:MINOR of a device node.
fn number(node: &Path) -> io::Result<String> {
    let number = fs::metadata(node)?.rdev();
    Ok(format!("{}:{}", major(number), minor(number)))
}

/// The device identification page of a drive.
fn identity(socket: &Path) -> io::Result<Vec<u8>> {
    let reply = Client::connect(socket)?
        .execute(&IDENTITY, &[], IDENTITY[4].into(), PATIENCE)
        .map_err(io::Error::other)?;
    Ok(reply.data)
}
