//! A drive's status in its own protocol, for messages. Decisions depend on its meaning.

use core::fmt;
use idm_protocol::scsi::{Sense, status};

/// A status as the drive sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawStatus {
    /// SCSI status, and the sense data that came with it.
    Scsi(u8, Option<Sense>),
    /// The status field of an NVMe completion.
    Nvme(u16),
}

/// Names of sense keys (SPC-4).
const SENSE_KEYS: [&str; 16] = [
    "NO SENSE",
    "RECOVERED ERROR",
    "NOT READY",
    "MEDIUM ERROR",
    "HARDWARE ERROR",
    "ILLEGAL REQUEST",
    "UNIT ATTENTION",
    "DATA PROTECT",
    "BLANK CHECK",
    "VENDOR SPECIFIC",
    "COPY ABORTED",
    "ABORTED COMMAND",
    "RESERVED",
    "VOLUME OVERFLOW",
    "MISCOMPARE",
    "COMPLETED",
];

impl fmt::Display for RawStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RawStatus::Scsi(_, Some(sense)) => {
                let Sense { key, asc, ascq, fru, .. } = *sense;
                let name = SENSE_KEYS[usize::from(key & 0x0F)];
                write!(f, "{name} (sense {key:x}/{asc:02x}/{ascq:02x}")?;
                if fru != 0 {
                    write!(f, ", FRU {fru:x}")?;
                }
                f.write_str(")")
            }
            RawStatus::Scsi(raw, None) => f.write_str(match *raw {
                status::GOOD => "GOOD",
                status::CHECK_CONDITION => "CHECK CONDITION without sense data",
                status::CONDITION_MET => "CONDITION MET",
                status::BUSY => "BUSY",
                status::RESERVATION_CONFLICT => "RESERVATION CONFLICT",
                status::COMMAND_TERMINATED => "COMMAND TERMINATED",
                status::TASK_SET_FULL => "TASK SET FULL",
                status::ACA_ACTIVE => "ACA ACTIVE",
                status::TASK_ABORTED => "TASK ABORTED",
                other => return write!(f, "SCSI status {other:02x}h"),
            }),
            RawStatus::Nvme(raw) => write!(f, "NVMe status {raw:x}h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_names_of_the_standards() {
        let sense = |key, asc, ascq, fru| Sense { key, asc, ascq, fru, deferred: false };
        for (raw, text) in [
            (RawStatus::Scsi(0x08, None), "BUSY"),
            (RawStatus::Scsi(0x18, None), "RESERVATION CONFLICT"),
            (RawStatus::Scsi(0x02, None), "CHECK CONDITION without sense data"),
            (RawStatus::Scsi(0x14, None), "SCSI status 14h"),
            (RawStatus::Scsi(2, Some(sense(3, 0x11, 0, 0))), "MEDIUM ERROR (sense 3/11/00)"),
            (
                RawStatus::Scsi(2, Some(sense(5, 0x20, 0, 0xA))),
                "ILLEGAL REQUEST (sense 5/20/00, FRU a)",
            ),
            (RawStatus::Nvme(0x1CA), "NVMe status 1cah"),
        ] {
            assert_eq!(raw.to_string(), text);
        }
    }
}
