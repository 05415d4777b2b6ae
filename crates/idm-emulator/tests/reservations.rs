//! Persistent reservations as a host sees them. Commands are written and answers are read by hand
//! here, from the tables of SPC-4, SBC-3 and the NVM Express base specification; only `clients`
//! has the commands from `idm-protocol`.

#[path = "reservations/clients.rs"]
mod clients;
#[path = "reservations/nvme.rs"]
mod nvme;
#[path = "reservations/scsi.rs"]
mod scsi;
#[path = "reservations/scsi_properties.rs"]
mod scsi_properties;
