//! The names of the drives, and the interface by which machines reach each of them.

use idm_emulator::disks::Interface;

/// Names of the drives.
pub const DRIVES: [&str; 5] = ["d0", "d1", "d2", "d3", "d4"];

/// The interfaces of all drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// All drives are SCSI disks.
    Scsi,
    /// All drives are NVMe drives.
    Nvme,
    /// The kinds alternate: d0, d2 and d4 are SCSI disks, the others are NVMe drives.
    Mixed,
}

/// Options of the NVMe drives for `idm-target`: every form of identity that Linux knows, subsystems
/// with and without native multipath, and one that takes at most 128 KiB per command.
const NVME_OPTIONS: [&str; 5] =
    ["id=nguid", "id=eui64,shared", "id=uuid,shared", "id=nguid,shared", "id=none,mdts=5"];

impl Interfaces {
    /// The interface of a drive.
    pub fn of(self, drive: &str) -> Interface {
        let number = DRIVES.iter().position(|name| *name == drive).unwrap_or_default();
        match self {
            Interfaces::Scsi => Interface::Scsi,
            Interfaces::Nvme => Interface::Nvme,
            Interfaces::Mixed if number % 2 == 0 => Interface::Scsi,
            Interfaces::Mixed => Interface::Nvme,
        }
    }

    /// The drives with this interface.
    pub fn drives_with(self, interface: Interface) -> impl Iterator<Item = &'static str> {
        DRIVES.into_iter().filter(move |drive| self.of(drive) == interface)
    }

    /// Whether there is a drive with this interface.
    pub fn include(self, interface: Interface) -> bool {
        self.drives_with(interface).next().is_some()
    }

    /// Arguments of `idm-target`.
    pub fn arguments(self) -> Vec<String> {
        let argument = |(drive, options): (&str, &str)| match self.of(drive) {
            Interface::Scsi => ["--drive".to_owned(), drive.to_owned()],
            Interface::Nvme => ["--nvme".to_owned(), format!("{drive},{options}")],
        };
        DRIVES.into_iter().zip(NVME_OPTIONS).flat_map(argument).collect()
    }
}

/// The node of a partition of a disk.
pub fn partition(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}
