//! Names of mutexes and of hosts.

use alloc::string::{String, ToString};
use core::fmt;

/// The identifier of one mutex: 64 bytes, of which the first 32 are the VG's uuid and the last 32
/// the LV's.
///
/// The global lock is 64 zero bytes; a VG lock has a zero LV half. The bytes are kept here in their
/// natural order; on the wire the whole array is reversed (see [`crate::Record`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId([u8; 64]);

/// The identifier of one owner of mutexes: 32 bytes, chosen by the host.
///
/// Drives distinguish owners by host ids and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId([u8; 32]);

/// The reason why a text is not an LVM uuid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// It does not have 32 characters apart from dashes.
    Length(usize),
    /// It has a character that is not one of LVM's `0-9 a-z A-Z ! #`.
    Character(char),
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdError::Length(n) => {
                write!(f, "an LVM uuid has 32 characters without dashes, not {n}")
            }
            IdError::Character(c) => write!(f, "{c:?} cannot stand in an LVM uuid"),
        }
    }
}

impl core::error::Error for IdError {}

/// The 32 characters of an LVM uuid; dashes may be anywhere.
fn uuid_characters(uuid: &str) -> Result<[u8; 32], IdError> {
    let mut characters = [0; 32];
    let mut count = 0;
    for c in uuid.chars().filter(|&c| c != '-') {
        if !(c.is_ascii_alphanumeric() || c == '!' || c == '#') {
            return Err(IdError::Character(c));
        }
        if let Some(slot) = characters.get_mut(count) {
            *slot = c as u8;
        }
        count += 1;
    }
    if count == 32 { Ok(characters) } else { Err(IdError::Length(count)) }
}

impl ResourceId {
    /// LVM's global lock.
    pub const GLOBAL: ResourceId = ResourceId([0; 64]);

    /// The lock of a volume group, from its uuid as LVM prints it.
    pub fn vg(vg_uuid: &str) -> Result<ResourceId, IdError> {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&uuid_characters(vg_uuid)?);
        Ok(ResourceId(bytes))
    }

    /// The lock of a logical volume, from both uuids as LVM prints them.
    pub fn lv(vg_uuid: &str, lv_uuid: &str) -> Result<ResourceId, IdError> {
        let mut id = ResourceId::vg(vg_uuid)?;
        id.0[32..].copy_from_slice(&uuid_characters(lv_uuid)?);
        Ok(id)
    }

    /// An id from raw bytes, as read from a drive.
    pub const fn from_bytes(bytes: [u8; 64]) -> ResourceId {
        ResourceId(bytes)
    }

    /// The bytes in natural order.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// Whether this names a logical volume's lock (its LV half is not zero).
    pub fn is_lv(&self) -> bool {
        self.0[32..].iter().any(|&b| b != 0)
    }
}

/// Prints `global`, `vg <uuid>` or `lv <vg uuid>/<lv uuid>`.
impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vg, lv) = self.0.split_at(32);
        match (vg.iter().all(|&b| b == 0), self.is_lv()) {
            (true, false) => f.write_str("global"),
            (_, false) => write!(f, "vg {}", vg.escape_ascii()),
            (_, true) => write!(f, "lv {}/{}", vg.escape_ascii(), lv.escape_ascii()),
        }
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceId({self})")
    }
}

impl HostId {
    /// The identifier of this boot of this host: 16 bytes that were drawn once per boot, then up to
    /// 16 bytes of the host's name, so that an administrator can read a lock's holder from the
    /// drive.
    pub fn new(boot: [u8; 16], host_name: &str) -> HostId {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&boot);
        for (slot, byte) in bytes[16..].iter_mut().zip(host_name.bytes()) {
            *slot = byte;
        }
        HostId(bytes)
    }

    /// An id from raw bytes, as read from a drive.
    pub const fn from_bytes(bytes: [u8; 32]) -> HostId {
        HostId(bytes)
    }

    /// The bytes in natural order.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The host's name, as much of it as the id contains; empty for hosts that write no name.
    pub fn name(&self) -> String {
        let name = &self.0[16..];
        let end = name.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        if name[..end].iter().all(|b| b.is_ascii_graphic()) {
            name[..end].escape_ascii().to_string()
        } else {
            String::new()
        }
    }
}

/// Prints `<name> (<32 hex digits>)`, or all 64 hex digits if the id has no name.
impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        let (shown, named) = if name.is_empty() { (32, false) } else { (16, true) };
        if named {
            write!(f, "{name} (")?;
        }
        for byte in &self.0[..shown] {
            write!(f, "{byte:02x}")?;
        }
        if named { f.write_str(")") } else { Ok(()) }
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostId({self})")
    }
}
