//! Of what kind the drives are.

use crate::drives::DRIVES;

/// How machines reach a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As a SCSI disk.
    Scsi,
    /// As an NVMe namespace.
    Nvme,
}

/// The kinds of all drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fleet {
    /// All are SCSI disks.
    Scsi,
    /// All are NVMe drives.
    Nvme,
    /// Of any two drives that follow one another, one of each kind: d0, d2 and d4 are SCSI disks.
    Mixed,
}

/// Kind and looks of the NVMe drives, as `idm-disks` has them: every form of identity that Linux
/// knows, subsystems with and without native multipath, and one that takes no more than 128 KiB in
/// a command.
const LOOKS: [&str; 5] =
    ["id=nguid", "id=eui64,shared", "id=uuid,shared", "id=nguid,shared", "id=none,mdts=5"];

impl Fleet {
    /// The kind of a drive.
    pub fn kind(self, drive: &str) -> Kind {
        let number = DRIVES.iter().position(|name| *name == drive).unwrap_or_default();
        match self {
            Fleet::Scsi => Kind::Scsi,
            Fleet::Nvme => Kind::Nvme,
            Fleet::Mixed if number % 2 == 0 => Kind::Scsi,
            Fleet::Mixed => Kind::Nvme,
        }
    }

    /// The drives of a kind.
    pub fn drives(self, kind: Kind) -> impl Iterator<Item = &'static str> {
        DRIVES.into_iter().filter(move |drive| self.kind(drive) == kind)
    }

    /// Whether there is a drive of that kind.
    pub fn has(self, kind: Kind) -> bool {
        self.drives(kind).next().is_some()
    }

    /// Arguments of `idm-disks`.
    pub fn arguments(self) -> Vec<String> {
        let argument = |(drive, looks): (&str, &str)| match self.kind(drive) {
            Kind::Scsi => ["--drive".to_owned(), drive.to_owned()],
            Kind::Nvme => ["--nvme".to_owned(), format!("{drive},{looks}")],
        };
        DRIVES.into_iter().zip(LOOKS).flat_map(argument).collect()
    }
}

/// The node of a partition of a disk.
pub fn partition(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}
