//! The meaning of a record's metadata, for programs that only read drives.

use crate::api::Fingerprint;
use crate::rules::Rules;
use crate::stamp::{CLEARING, Stamp};
use idm_protocol::Metadata;

/// The writer of a record, as its metadata shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// This implementation, for a lock.
    Lock {
        /// The digest of the drives that the writer counts.
        fingerprint: Fingerprint,
        /// The random number of the acquisition.
        acquisition: u64,
        /// Whether the fingerprint belongs to this acquisition alone and is no set's, as while
        /// votes move.
        alone: bool,
    },
    /// This implementation, to remove an unused mutex.
    Clearing,
    /// Another implementation.
    Other,
}

/// The writer of a record with this metadata.
pub fn writer(metadata: &Metadata) -> Writer {
    match Stamp::from_metadata(metadata) {
        _ if *metadata == CLEARING => Writer::Clearing,
        Some(Stamp { fingerprint, acquisition, alone }) => {
            Writer::Lock { fingerprint, acquisition, alone }
        }
        None => Writer::Other,
    }
}

/// The number of drives, of `n`, that must grant a lock.
pub fn acquire_quorum(n: usize) -> usize {
    Rules::default().acquire_quorum(n)
}

/// The number of drives, of `n`, that must still have a lock that is kept.
pub fn keep_quorum(n: usize) -> usize {
    Rules::default().keep_quorum(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_told_from_each_other() {
        let fingerprint = Fingerprint([7; 16]);
        for alone in [false, true] {
            let stamp = Stamp { fingerprint, acquisition: 9, alone };
            let expected = Writer::Lock { fingerprint, acquisition: 9, alone };
            assert_eq!(writer(&stamp.to_metadata()), expected);
        }
        assert_eq!(writer(&CLEARING), Writer::Clearing);
        assert_eq!(writer(&[0; 64]), Writer::Other);
        assert_eq!((acquire_quorum(4), keep_quorum(4)), (3, 2));
    }
}
