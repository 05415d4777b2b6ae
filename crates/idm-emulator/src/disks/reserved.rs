//! Reservations of a disk, which decide whether a command has access to its data.

use super::{Disk, Interface};
use crate::ScsiReply;
use crate::nvme::{NvmeReply, status};
use crate::reservation::Access;
use crate::reservation::nvme::{Host, NamespaceReservations};
use crate::reservation::scsi::{self, Nexus, UnitReservations};
use crate::sync::{read, write};
use idm_protocol::reservation::nvme::ReservationCommand;
use std::sync::RwLock;

/// Reservations of a disk; those of the interface that it does not have stay empty.
///
/// A command keeps the lock for reading until it is done. So a change of the reservations waits for
/// the commands that are being executed, and nothing that the old ones permitted comes after it.
#[derive(Default)]
pub(super) struct DiskReservations {
    unit: RwLock<UnitReservations>,
    namespace: RwLock<NamespaceReservations>,
}

impl Disk {
    /// Whether mutex commands conflict with reservations.
    fn idm_respects(&self) -> bool {
        self.profile().idm_commands_respect_reservations
    }

    /// Lets `act` carry out a SCSI command that came by `port`, unless a reservation or a unit
    /// attention condition is in the way: then returns the answer to the command.
    pub fn under_reservations<R>(
        &self,
        port: &str,
        cdb: &[u8],
        act: impl FnOnce() -> R,
    ) -> Result<R, ScsiReply> {
        let (nexus, idm) = (Nexus::of_port(port), self.idm_respects());
        loop {
            let unit = read(&self.reservations.unit);
            if !unit.permits(&nexus, cdb, idm) {
                return Err(scsi::conflict());
            }
            if unit.is_quiet(&nexus, cdb) {
                return Ok(act());
            }
            drop(unit);
            // Another command of the nexus may have got the condition meanwhile; then this one is
            // tried again.
            if let Some(reply) = write(&self.reservations.unit).before(&nexus, port, cdb) {
                return Err(reply);
            }
        }
    }

    /// Executes PERSISTENT RESERVE IN or OUT, which came by `port`.
    pub fn reserve_scsi(&self, port: &str, cdb: &[u8], data_out: &[u8]) -> ScsiReply {
        let nexus = Nexus::of_port(port);
        let mut unit = write(&self.reservations.unit);
        match unit.before(&nexus, port, cdb) {
            Some(attention) => attention,
            None => unit.execute(&nexus, cdb, data_out),
        }
    }

    /// Lets `act` carry out an NVMe command that needs this access, unless a reservation is in the
    /// way: then returns the status of the command.
    pub fn under_host_reservations<R>(
        &self,
        host: &Host,
        access: Access,
        act: impl FnOnce() -> R,
    ) -> Result<R, u16> {
        let namespace = read(&self.reservations.namespace);
        if namespace.permits(host, access) { Ok(act()) } else { Err(status::RESERVATION_CONFLICT) }
    }

    /// The access that a mutex command needs. `reads`: whether it only reads the table.
    pub fn idm_access(&self, reads: bool) -> Access {
        match (self.idm_respects(), reads) {
            (false, _) => Access::Free,
            (true, true) => Access::Read,
            (true, false) => Access::Write,
        }
    }

    /// Executes a reservation command of NVMe.
    pub fn reserve_nvme(
        &self,
        host: &Host,
        command: &ReservationCommand,
        data_out: &[u8],
    ) -> NvmeReply {
        write(&self.reservations.namespace).execute(host, command, data_out)
    }

    /// Whether an NVMe namespace keeps its registrations through a loss of power.
    pub fn is_reservation_persistent(&self) -> bool {
        read(&self.reservations.namespace).state().is_persistent()
    }

    /// Decides whether an NVMe namespace keeps its registrations through a loss of power.
    pub fn set_reservation_persistent(&self, persistent: bool) {
        write(&self.reservations.namespace).set_persistent(persistent);
    }

    /// The reservations as text, for people and tests: generation, persistence and reservation on a
    /// line each, then each registrant's key and port or host.
    pub fn reservations(&self) -> String {
        match self.interface() {
            Interface::Scsi => read(&self.reservations.unit).text(),
            Interface::Nvme => read(&self.reservations.namespace).text(),
        }
    }

    /// Loses power for a moment. Reservations that are not persistent are gone. The mutex table
    /// stays: [`Disk::reset`] loses it.
    pub fn power_cycle(&self) {
        write(&self.reservations.unit).power_cycle();
        write(&self.reservations.namespace).power_cycle();
    }
}
