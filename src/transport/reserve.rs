//! Orders about persistent reservations, and a drive's answers. `scsi_reserve` and `nvme` carry
//! them out.

use idm_protocol::reservation::ReservationType;

/// The type of all reservations of this library.
pub(super) const KIND: ReservationType = idm_fencing::KIND;

/// An order about reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveOrder {
    /// Registers the key, for good. Not `anew`: the path or host must have it already.
    Register {
        /// The key.
        key: u64,
        /// Whether it replaces whatever was registered.
        anew: bool,
    },
    /// Removes the registration with this key.
    Unregister(u64),
    /// Replaces the path's key, 0 where it has none, by the second one, 0 for none. A loss of power
    /// removes it. Only SCSI drives have this order, and the library does not use it.
    RegisterBriefly(u64, u64),
    /// Reserves, as the registrant with this key.
    Reserve(u64),
    /// Removes all registrants with the second key, and their commands, as the registrant with the
    /// first.
    Preempt(u64, u64),
    /// Reads keys, reservation and capabilities.
    Report,
}

/// A drive's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReserveAnswer {
    /// Done.
    Done,
    /// RESERVATION CONFLICT.
    Conflict,
    /// The drive does not have the command.
    Unsupported,
    /// Answer to [`ReserveOrder::Report`].
    Report(ReserveReport),
}

/// Registrations and the reservation of a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReserveReport {
    /// The key of each registrant.
    pub keys: Vec<u64>,
    /// The type of the reservation, if there is one; `Some(None)` is one that is not defined.
    pub reservation: Option<Option<ReservationType>>,
    /// Whether the drive has the type that is used here, and can keep it through a loss of power.
    pub is_able: bool,
    /// Whether each path of a host registers for itself.
    pub by_path: bool,
}
