//! Blocks that state their writer and the time.

#![forbid(unsafe_code)]

/// Bytes of a block, which is written as a whole.
pub const BLOCK: usize = 4096;
/// Blocks of a region. All hosts share the first region of a device; after it each host has its
/// own.
pub const REGION: u64 = 64;

/// Bytes of a sector. All sectors of a block have the same text, so that a block of two writers is
/// visible.
const SECTOR: usize = 512;
/// Text at the start of a sector.
const MAGIC: &str = "lvmlockd-idm-lab";

/// The text of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the block on the device.
    pub block: u64,
    /// Host that wrote it.
    pub host: String,
    /// Number among the host's writes to this region, from 0.
    pub sequence: u64,
    /// Wall clock of the host, in ms since 1970.
    pub at_ms: u64,
}

/// A block in memory that is aligned for a write past the kernel's cache.
#[repr(C, align(4096))]
pub struct Buffer(pub [u8; BLOCK]);

/// Contents of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// No write.
    Nothing,
    /// One write.
    Whole(Stamp),
    /// Parts of several writes.
    Torn,
}

impl Stamp {
    /// Encodes it as a block.
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
    /// The contents of a block.
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
