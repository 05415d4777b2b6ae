//! Persistent reservations of a drive's data: which hosts may write.
//!
//! A *registrant* has registered a key: an I_T nexus, which is one path, with SCSI, and a host with
//! NVMe. A reservation decides what registrants and others may do with the data. [`scsi`] and
//! [`nvme`] have the commands as bytes.
//!
//! Sources: SPC-4, "PERSISTENT RESERVE IN command" and "PERSISTENT RESERVE OUT command"; NVM
//! Express base specification, "Reservations".

pub mod nvme;
pub mod scsi;

/// The type of a reservation: which accesses it excludes, for whom, and who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservationType {
    /// Only the holder may write.
    WriteExclusive,
    /// Only the holder may read and write.
    ExclusiveAccess,
    /// Only registrants may write.
    WriteExclusiveRegistrantsOnly,
    /// Only registrants may read and write.
    ExclusiveAccessRegistrantsOnly,
    /// Only registrants may write, and each of them holds the reservation.
    WriteExclusiveAllRegistrants,
    /// Only registrants may read and write, and each of them holds the reservation.
    ExclusiveAccessAllRegistrants,
}

impl ReservationType {
    /// All types, in the order of their NVMe numbers.
    pub const ALL: [ReservationType; 6] = [
        ReservationType::WriteExclusive,
        ReservationType::ExclusiveAccess,
        ReservationType::WriteExclusiveRegistrantsOnly,
        ReservationType::ExclusiveAccessRegistrantsOnly,
        ReservationType::WriteExclusiveAllRegistrants,
        ReservationType::ExclusiveAccessAllRegistrants,
    ];

    /// Whether it keeps others from reading, too.
    pub const fn excludes_reads(self) -> bool {
        matches!(
            self,
            ReservationType::ExclusiveAccess
                | ReservationType::ExclusiveAccessRegistrantsOnly
                | ReservationType::ExclusiveAccessAllRegistrants
        )
    }

    /// Whether registrants have access like the holder.
    pub const fn admits_registrants(self) -> bool {
        !matches!(self, ReservationType::WriteExclusive | ReservationType::ExclusiveAccess)
    }

    /// Whether every registrant is a holder.
    pub const fn is_held_by_all(self) -> bool {
        matches!(
            self,
            ReservationType::WriteExclusiveAllRegistrants
                | ReservationType::ExclusiveAccessAllRegistrants
        )
    }

    /// The type in a word.
    pub const fn word(self) -> &'static str {
        match self {
            ReservationType::WriteExclusive => "write-exclusive",
            ReservationType::ExclusiveAccess => "exclusive-access",
            ReservationType::WriteExclusiveRegistrantsOnly => "write-exclusive-registrants-only",
            ReservationType::ExclusiveAccessRegistrantsOnly => "exclusive-access-registrants-only",
            ReservationType::WriteExclusiveAllRegistrants => "write-exclusive-all-registrants",
            ReservationType::ExclusiveAccessAllRegistrants => "exclusive-access-all-registrants",
        }
    }

    /// The number in SCSI commands. 0, 2 and 4 are obsolete.
    pub const fn to_scsi(self) -> u8 {
        match self {
            ReservationType::WriteExclusive => 1,
            ReservationType::ExclusiveAccess => 3,
            ReservationType::WriteExclusiveRegistrantsOnly => 5,
            ReservationType::ExclusiveAccessRegistrantsOnly => 6,
            ReservationType::WriteExclusiveAllRegistrants => 7,
            ReservationType::ExclusiveAccessAllRegistrants => 8,
        }
    }

    /// The type with this number in SCSI commands.
    pub fn from_scsi(number: u8) -> Option<ReservationType> {
        ReservationType::ALL.into_iter().find(|kind| kind.to_scsi() == number)
    }

    /// The number in NVMe commands.
    pub const fn to_nvme(self) -> u8 {
        match self {
            ReservationType::WriteExclusive => 1,
            ReservationType::ExclusiveAccess => 2,
            ReservationType::WriteExclusiveRegistrantsOnly => 3,
            ReservationType::ExclusiveAccessRegistrantsOnly => 4,
            ReservationType::WriteExclusiveAllRegistrants => 5,
            ReservationType::ExclusiveAccessAllRegistrants => 6,
        }
    }

    /// The type with this number in NVMe commands.
    pub fn from_nvme(number: u8) -> Option<ReservationType> {
        ReservationType::ALL.into_iter().find(|kind| kind.to_nvme() == number)
    }
}
