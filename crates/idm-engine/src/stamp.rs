//! What this implementation writes into the 64 bytes of metadata that every record carries.

use crate::api::{Fingerprint, Member};
use idm_protocol::Metadata;
use sha2::{Digest, Sha256};

/// Says that the metadata is ours, and in which form.
const MAGIC: [u8; 8] = *b"lvmidm\x00\x01";
/// Where the fingerprint stands, in bytes.
const FINGERPRINT: usize = 8;

impl Fingerprint {
    /// The fingerprint of a set of drives, whatever the order they are named in.
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

    /// The metadata that carries this fingerprint.
    pub(crate) fn to_metadata(self) -> Metadata {
        let mut metadata = [0; 64];
        metadata[..MAGIC.len()].copy_from_slice(&MAGIC);
        metadata[FINGERPRINT..FINGERPRINT + 16].copy_from_slice(&self.0);
        metadata
    }

    /// The fingerprint in a record's metadata; `None` where another implementation wrote it.
    pub fn from_metadata(metadata: &Metadata) -> Option<Fingerprint> {
        if metadata[..MAGIC.len()] != MAGIC {
            return None;
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&metadata[FINGERPRINT..FINGERPRINT + 16]);
        Some(Fingerprint(bytes))
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
        assert_eq!(Fingerprint::from_metadata(&fingerprint.to_metadata()), Some(fingerprint));
        assert_eq!(Fingerprint::from_metadata(&[0; 64]), None, "the older stack writes zeros");
    }
}
