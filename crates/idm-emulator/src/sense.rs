//! Sense data in the drives' form (docs/protocol.md, "Status and sense codes").

use crate::Profile;
use crate::profile::LimitSense;
use idm_protocol::{Limit, scsi::Sense};

/// The drive does not have this opcode.
pub(crate) const INVALID_OPCODE: Sense = sense(0x05, 0x20, 0x00, 1);
/// SPC-4; no trace has it.
pub(crate) const INVALID_FIELD_IN_CDB: Sense = sense(0x05, 0x24, 0x00, 0);
/// The data did not have the length that the CDB announced (SPC-4; no trace has it).
pub(crate) const PARAMETER_LIST_LENGTH: Sense = sense(0x05, 0x1A, 0x00, 0);
/// No such mutex: "logical block address out of range".
pub(crate) const NO_SUCH_MUTEX: Sense = sense(0x05, 0x21, 0x00, 1);
/// An undefined mutex operation, as recorded.
const UNDEFINED_OP_2020: Sense = sense(0x07, 0x30, 0x00, 2);
/// An undefined mutex operation, as documented for newer firmware.
const UNDEFINED_OP: Sense = sense(0x05, 0x20, 0x00, 0x0A);
/// The class does not fit the command, as documented for newer firmware.
pub(crate) const WRONG_CLASS: Sense = sense(0x04, 0x04, 0x22, 3);
/// Nothing to report.
pub(crate) const NONE: Sense = sense(0, 0, 0, 0);

pub(crate) const fn sense(key: u8, asc: u8, ascq: u8, fru: u8) -> Sense {
    Sense { key, asc, ascq, fru, deferred: false }
}

/// The sense data of an undefined mutex operation.
pub(crate) fn undefined_op(profile: &Profile) -> Sense {
    match profile.limit_sense {
        LimitSense::DataProtect => UNDEFINED_OP_2020,
        LimitSense::AbortedCommand => UNDEFINED_OP,
    }
}

/// The sense data of a full table.
pub(crate) fn full(profile: &Profile, limit: Limit) -> Sense {
    let number = match limit {
        Limit::Mutexes => 0,
        Limit::Hosts => 1,
        Limit::HostsOfMutex => 2,
    };
    match profile.limit_sense {
        LimitSense::DataProtect => sense(0x07, 0x40 + number, 0x00, 1),
        LimitSense::AbortedCommand => sense(0x0B, 0x55, 0x03, number),
    }
}

/// The bytes in the drive's form.
pub(crate) fn bytes(profile: &Profile, sense: Sense) -> Vec<u8> {
    if profile.fixed_sense { fixed_form(sense) } else { descriptor_form(sense) }
}

/// The bytes in descriptor form as in the traces: a field replaceable unit descriptor and a vendor
/// descriptor of 14 zero bytes, 28 bytes in all. An invalid opcode has a sense-key specific
/// descriptor in front, which points at the opcode (36 bytes; the traces cut it at 32).
pub(crate) fn descriptor_form(sense: Sense) -> Vec<u8> {
    let mut descriptors = Vec::new();
    if sense == INVALID_OPCODE {
        descriptors.extend([0x02, 0x06, 0x00, 0x00, 0xCF, 0x00, 0x00, 0x00]);
    }
    descriptors.extend([0x03, 0x02, 0x00, sense.fru]);
    descriptors.extend([0x80, 0x0E]);
    descriptors.extend([0; 14]);
    let mut bytes = vec![0x72, sense.key, sense.asc, sense.ascq, 0, 0, 0];
    bytes.push(descriptors.len() as u8);
    bytes.extend(descriptors);
    bytes
}

/// The bytes in fixed form (SPC-4), 18 bytes.
pub(crate) fn fixed_form(sense: Sense) -> Vec<u8> {
    let mut bytes = vec![0; 18];
    bytes[0] = 0x70;
    bytes[2] = sense.key;
    bytes[7] = 10;
    bytes[12] = sense.asc;
    bytes[13] = sense.ascq;
    bytes[14] = sense.fru;
    bytes
}
