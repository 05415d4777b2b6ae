//! Blocks that say who wrote them, and when.

#![forbid(unsafe_code)]

/// Bytes of a block, which is written as a whole.
pub const BLOCK: usize = 4096;
/// Blocks of a region. The first region of a device is everybody's; after it each host has its own.
pub const REGION: u64 = 64;

/// Bytes of a sector. Each says the same, so that a block of two writers shows.
const SECTOR: usize = 512;
/// How a sector begins.
const MAGIC: &str = "lvmlockd-idm-lab";

/// What a block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which block of the device.
    pub block: u64,
    /// The host that wrote it.
    pub host: String,
    /// Its number among the host's writes to this region, from 0.
    pub sequence: u64,
    /// The host's wall clock, in ms since 1970.
    pub at_ms: u64,
}

/// A block in memory as a device takes it without the kernel's cache.
#[repr(C, align(4096))]
pub struct Buffer(pub [u8; BLOCK]);

/// What is in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// No writer's.
    Nothing,
    /// One write.
    Whole(Stamp),
    /// Parts of several writes.
    Torn,
}

impl Stamp {
    /// As a block.
    pub fn encode(&self, buffer: &mut Buffer) {
        let Stamp { block, host, sequence, at_ms } = self;
        let text = format!("{MAGIC} {block} {host} {sequence} {at_ms}\n");
        buffer.0.fill(0);
        for sector in buffer.0.chunks_exact_mut(SECTOR) {
            sector[..text.len()].copy_from_slice(text.as_bytes());
        }
    }

    fn of_sector(sector: &[u8]) -> Option<Stamp> {
        let end = sector.iter().position(|&byte| byte == b'\n')?;
        let text = core::str::from_utf8(&sector[..end]).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        let [MAGIC, block, host, sequence, at_ms] = words[..] else {
            return None;
        };
        Some(Stamp {
            block: block.parse().ok()?,
            host: host.to_owned(),
            sequence: sequence.parse().ok()?,
            at_ms: at_ms.parse().ok()?,
        })
    }
}

impl Content {
    /// What a block shows.
    pub fn of(buffer: &Buffer) -> Content {
        let first = &buffer.0[..SECTOR];
        let same = buffer.0.chunks_exact(SECTOR).all(|sector| sector == first);
        let stamped = buffer.0.chunks_exact(SECTOR).any(|s| Stamp::of_sector(s).is_some());
        match Stamp::of_sector(first) {
            Some(stamp) if same => Content::Whole(stamp),
            _ if stamped => Content::Torn,
            _ => Content::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_says_who_wrote_it() {
        let mut buffer = Buffer([0; BLOCK]);
        assert_eq!(Content::of(&buffer), Content::Nothing);
        let stamp = Stamp { block: 7, host: "a".into(), sequence: 3, at_ms: 5 };
        stamp.encode(&mut buffer);
        assert_eq!(Content::of(&buffer), Content::Whole(stamp.clone()));
        let mut other = Buffer([0; BLOCK]);
        Stamp { host: "b".into(), ..stamp }.encode(&mut other);
        buffer.0[BLOCK / 2..].copy_from_slice(&other.0[BLOCK / 2..]);
        assert_eq!(Content::of(&buffer), Content::Torn);
        buffer.0[..SECTOR].fill(0);
        assert_eq!(Content::of(&buffer), Content::Torn);
    }
}
