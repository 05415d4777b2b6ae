//! The content of the 64 bytes of metadata that this implementation writes into every record.

use crate::api::{Fingerprint, Member};
use alloc::vec::Vec;
use idm_protocol::Metadata;
use sha2::{Digest, Sha256};

/// The mark of this implementation's metadata, with its version.
const MAGIC: [u8; 8] = *b"lvmidm\x00\x01";
/// The metadata of a mutex that was locked only to be removed: if its holder dies, it is still
/// unused.
pub(crate) const CLEARING: Metadata = {
    let mut metadata = [0; 64];
    let mark = b"lvmidm\x00clearing";
    let mut at = 0;
    while at < mark.len() {
        metadata[at] = mark[at];
        at += 1;
    }
    metadata
};
/// Offsets of the fingerprint, the acquisition's number and the flags, in bytes.
const FINGERPRINT: usize = 8;
const ACQUISITION: usize = 24;
const FLAGS: usize = 32;
/// The flag of a fingerprint that is no set's.
const ALONE: u8 = 1;

/// The metadata of one acquisition's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    /// The digest of the drives that the writer counts.
    pub(crate) fingerprint: Fingerprint,
    /// A random number that distinguishes a record of this acquisition from one that an earlier
    /// life of this host left.
    pub(crate) acquisition: u64,
    /// Whether the fingerprint belongs to this acquisition alone: every host that meets the record
    /// then concludes that its writer counts other drives.
    pub(crate) alone: bool,
}

/// The drives that a record's writer counts, as the record shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    /// These.
    Set(Fingerprint),
    /// A set that no other host could count.
    Alone,
}

impl Mark {
    /// Whether no host can misread the record of a host that counts the drives of `set`.
    pub(crate) fn fits(self, set: Fingerprint) -> bool {
        self == Mark::Alone || self == Mark::Set(set)
    }
}

impl Fingerprint {
    /// The fingerprint of a set of drives, independent of their order.
    pub fn of(members: &[Member]) -> Fingerprint {
        let mut identities: Vec<&[u8]> = members.iter().map(|m| m.identity.as_slice()).collect();
        identities.sort_unstable();
        let mut digest = Sha256::new();
        for identity in identities {
            // The length keeps {"a", "bc"} and {"ab", "c"} apart.
            digest.update((identity.len() as u64).to_be_bytes());
            digest.update(identity);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.finalize()[..16]);
        Fingerprint(bytes)
    }
}

impl Stamp {
    /// The stamp as metadata.
    pub(crate) fn to_metadata(self) -> Metadata {
        let mut metadata = [0; 64];
        metadata[..MAGIC.len()].copy_from_slice(&MAGIC);
        metadata[FINGERPRINT..ACQUISITION].copy_from_slice(&self.fingerprint.0);
        metadata[ACQUISITION..FLAGS].copy_from_slice(&self.acquisition.to_be_bytes());
        metadata[FLAGS] = if self.alone { ALONE } else { 0 };
        metadata
    }

    /// The stamp in a record's metadata; `None` if another implementation wrote it.
    pub(crate) fn from_metadata(metadata: &Metadata) -> Option<Stamp> {
        let rest = metadata.strip_prefix(&MAGIC)?;
        let (fingerprint, rest) = rest.split_first_chunk()?;
        let (acquisition, rest) = rest.split_first_chunk()?;
        Some(Stamp {
            fingerprint: Fingerprint(*fingerprint),
            acquisition: u64::from_be_bytes(*acquisition),
            alone: *rest.first()? & ALONE != 0,
        })
    }

    /// The mark of the counted drives.
    pub(crate) fn mark(self) -> Mark {
        if self.alone { Mark::Alone } else { Mark::Set(self.fingerprint) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::DriveRef;

    fn members(identities: &[&str]) -> Vec<Member> {
        identities
            .iter()
            .enumerate()
            .map(|(i, identity)| Member {
                drive: DriveRef(i as u32),
                identity: identity.as_bytes().to_vec(),
            })
            .collect()
    }

    #[test]
    fn order_does_not_matter_and_contents_do() {
        let of = |identities: &[&str]| Fingerprint::of(&members(identities));
        assert_eq!(of(&["naa.1", "naa.2"]), of(&["naa.2", "naa.1"]));
        assert_ne!(of(&["naa.1", "naa.2"]), of(&["naa.1", "naa.2", "naa.3"]));
        assert_ne!(of(&["a", "bc"]), of(&["ab", "c"]));
    }

    #[test]
    fn survives_the_record() {
        let fingerprint = Fingerprint::of(&members(&["naa.1"]));
        for alone in [false, true] {
            let stamp = Stamp { fingerprint, acquisition: 7, alone };
            assert_eq!(Stamp::from_metadata(&stamp.to_metadata()), Some(stamp));
        }
        assert_eq!(Stamp::from_metadata(&[0; 64]), None, "the older stack writes zeros");
    }
}
