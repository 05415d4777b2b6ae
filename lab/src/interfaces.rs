//! The drives' names, and the interface by which machines reach each.

use idm_emulator::disks::Interface;

/// The drives' names.
pub const DRIVES: [&str; 5] = ["d0", "d1", "d2", "d3", "d4"];

/// The interfaces of all drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// All are SCSI disks.
    Scsi,
    /// All are NVMe drives.
    Nvme,
    /// Of any two drives that follow one another, one of each kind: d0, d2 and d4 are SCSI disks.
    Mixed,
}

/// Options of the NVMe drives for `idm-target`: every form of identity that Linux
/// knows, subsystems with and without native multipath, and one that takes no more than 128 KiB in
/// a command.
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

    /// The drives with an interface.
    pub fn drives_with(self, interface: Interface) -> impl Iterator<Item = &'static str> {
        DRIVES.into_iter().filter(move |drive| self.of(drive) == interface)
    }

    /// Whether there is a drive with that interface.
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
