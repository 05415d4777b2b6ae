//! Keys of hosts.

use core::fmt;
use idm_protocol::HostId;

/// The upper bytes of every key: "ID". Keys of lvm2's lvmpersist and of mpathpersist begin
/// otherwise.
const MARK: u64 = 0x4944;
const MARK_SHIFT: u32 = 48;

/// The key of a host: a digest of its host id, so that a record in a mutex table shows which key to
/// remove. Each boot has a host id of its own, and so a key of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    /// The key of a host. 48 bits of it distinguish hosts.
    pub fn of(host: &HostId) -> Key {
        // FNV-1a of 64 bits. The id has 128 random bits, so a simple digest with few collisions is
        // enough.
        let digest = host.as_bytes().iter().fold(0xCBF2_9CE4_8422_2325_u64, |digest, &byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        let folded = digest ^ digest >> MARK_SHIFT;
        Key(MARK << MARK_SHIFT | folded & ((1 << MARK_SHIFT) - 1))
    }

    /// The key with this number, of whatever host.
    pub(crate) fn from_number(number: u64) -> Key {
        Key(number)
    }

    /// The number that drives know.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Whether a registered key is that of a host with this library.
    pub fn is_one(number: u64) -> bool {
        number >> MARK_SHIFT == MARK
    }
}

/// The host_id of lvmlocal.conf for which lvm2 itself made this key, if it did: 0x100000, then six
/// digits of a generation that only sanlock has, and four of the host_id.
pub(crate) fn lvm_host_id(key: u64) -> Option<u64> {
    (key >> 40 == 0x10_0000).then_some(key & 0xFFFF)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::format;

    #[test]
    fn a_key_is_that_of_one_host_and_of_one_boot() {
        let host = |boot: u8, name: &str| HostId::new([boot; 16], name);
        let all: BTreeSet<Key> = (0..200)
            .flat_map(|boot| ["a", "b", ""].map(|name| Key::of(&host(boot, name))))
            .collect();
        assert_eq!(all.len(), 600);
        assert!(all.iter().all(|key| Key::is_one(key.number())));
        // Hosts with different releases of the library have to agree.
        assert_eq!(Key::of(&host(7, "node7")).number(), 0x4944_870B_4F1D_E9C7);
        assert_eq!(format!("{}", Key(0x4944_0000_0000_0001)), "0x4944000000000001");
    }

    #[test]
    fn keys_of_others_are_known() {
        // lvm2's lvmpersist, mpathpersist's example, sg_persist by hand.
        for other in [0, 0x1000_0000_0002_0001, 0x0012_3456_ABCD_EF00, 0xA1] {
            assert!(!Key::is_one(other), "{other:#x}");
        }
        assert_eq!(lvm_host_id(0x1000_0000_0003_0007), Some(7));
        assert_eq!(lvm_host_id(0x1000_0012_3456_00FF), Some(0xFF));
        assert_eq!(lvm_host_id(0xA1).or(lvm_host_id(0x1100_0000_0000_0001)), None);
    }
}
