//! The data that a drive shows to a host that connects.

use idm_emulator::disks::{BLOCK, Disk};
use std::sync::Arc;

/// Version of the specification that controllers report: 1.3.
pub(super) const VERSION: u32 = 0x0001_0300;

/// Prefix of a subsystem's name (NQN); the drive's name follows.
pub const NQN_PREFIX: &str = "nqn.2024-01.lvmlockd-idm:";

/// Form of a namespace's identity, from which Linux makes its `wwid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identifier {
    /// A namespace globally unique identifier of 16 bytes.
    Nguid,
    /// An EUI-64 of 8 bytes.
    Eui64,
    /// A UUID.
    Uuid,
    /// No identifier: Linux combines vendor, serial number, model and namespace.
    None,
}

/// A drive as an NVMe subsystem with one namespace, number 1.
pub struct Subsystem {
    /// The drive and its data.
    pub disk: Arc<Disk>,
    /// Form of its namespace's identity.
    pub identifier: Identifier,
    /// Whether a host may have several controllers in it. Linux then makes one block node for all
    /// paths.
    pub shared: bool,
    /// Longest transfer of one command, as a power of two of 4096 bytes; 0 means no limit.
    pub mdts: u8,
    /// Whether it has IDM.
    pub idm: bool,
}

const MODEL: &str = "IDM emulated drive";
const FIRMWARE: &str = "0001";
/// Bytes of data that the capsule of an I/O command may contain.
const IN_CAPSULE: u32 = 8192;
/// Number of commands that a queue can hold.
pub(super) const QUEUE_DEPTH: u16 = 128;

/// Puts bytes into a data structure.
fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    data[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Text, padded with spaces.
fn put_text(data: &mut [u8], at: usize, len: usize, text: &str) {
    let field = &mut data[at..at + len];
    field.fill(b' ');
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

impl Subsystem {
    /// A drive with IDM and default properties.
    pub fn new(disk: Arc<Disk>) -> Subsystem {
        Subsystem { disk, identifier: Identifier::Nguid, shared: false, mdts: 0, idm: true }
    }

    /// The name.
    pub fn nqn(&self) -> String {
        format!("{NQN_PREFIX}{}", self.disk.name())
    }

    fn number(&self) -> u64 {
        self.disk.with_drive(|drive, _| drive.naa())
    }

    fn eui64(&self) -> [u8; 8] {
        self.number().to_be_bytes()
    }

    /// 16 bytes. The first 8 alone are already different for all drives.
    fn nguid(&self) -> [u8; 16] {
        let number = u128::from(self.number());
        (number << 64 | !number & u128::from(u64::MAX)).to_be_bytes()
    }

    /// The Identify Controller data structure (CNS 01h).
    pub(super) fn identify_controller(&self, id: u16) -> Vec<u8> {
        let mut data = vec![0; 4096];
        // Vendor identifiers of PCI: this one is not assigned.
        put(&mut data, 0, &0xFFFE_u16.to_le_bytes());
        put(&mut data, 2, &0xFFFE_u16.to_le_bytes());
        put_text(&mut data, 4, 20, self.disk.name());
        put_text(&mut data, 24, 40, MODEL);
        put_text(&mut data, 64, 8, FIRMWARE);
        // CMIC: the subsystem may have two or more controllers.
        data[76] = if self.shared { 0x02 } else { 0 };
        data[77] = self.mdts;
        put(&mut data, 78, &id.to_le_bytes());
        put(&mut data, 80, &VERSION.to_le_bytes());
        // CNTRLTYPE: an I/O controller.
        data[111] = 1;
        // ACL and AERL (zero-based): 4 commands each.
        data[258] = 3;
        data[259] = 3;
        // AVSCC: vendor specific commands have the standard format.
        data[264] = 1;
        // KAS: keep alive is granular to 1 s.
        put(&mut data, 320, &10_u16.to_le_bytes());
        // SQES and CQES: 64 and 16 bytes.
        data[512] = 0x66;
        data[513] = 0x44;
        put(&mut data, 514, &QUEUE_DEPTH.to_le_bytes());
        put(&mut data, 516, &1_u32.to_le_bytes());
        // ONCS: Dataset Management, Write Zeroes.
        put(&mut data, 520, &0x000C_u16.to_le_bytes());
        // SGLS: SGLs, in-capsule data by offset, transport data blocks.
        put(&mut data, 536, &0x0010_0005_u32.to_le_bytes());
        put(&mut data, 768, self.nqn().as_bytes());
        // IOCCSZ and IORCSZ, in units of 16 bytes.
        put(&mut data, 1792, &((64 + IN_CAPSULE) / 16).to_le_bytes());
        put(&mut data, 1796, &1_u32.to_le_bytes());
        // MSDBD: one SGL descriptor.
        data[1803] = 1;
        if self.idm {
            data[idm_protocol::nvme::VERSION_BYTE] =
                self.disk.with_drive(|drive, _| drive.identify_version());
        }
        data
    }

    /// The Identify Namespace data structure (CNS 00h).
    pub(super) fn identify_namespace(&self) -> Vec<u8> {
        let mut data = vec![0; 4096];
        for at in [0, 8, 16] {
            put(&mut data, at, &self.disk.blocks().to_le_bytes());
        }
        // DLFEAT: deallocated blocks read as zeros, and so does Write Zeroes with deallocation.
        data[33] = 0x09;
        data[30] = u8::from(self.shared);
        match self.identifier {
            Identifier::Nguid => put(&mut data, 104, &self.nguid()),
            Identifier::Eui64 => put(&mut data, 120, &self.eui64()),
            Identifier::Uuid | Identifier::None => {}
        }
        // The one LBA format: no metadata, blocks of 2^9 bytes.
        debug_assert_eq!(BLOCK, 1 << 9);
        data[130] = 9;
        data
    }

    /// The namespace identification descriptors (CNS 03h).
    pub(super) fn identify_descriptors(&self) -> Vec<u8> {
        let mut data = vec![0; 4096];
        let mut one = |kind: u8, value: &[u8]| {
            data[0] = kind;
            data[1] = value.len() as u8;
            put(&mut data, 4, value);
        };
        match self.identifier {
            Identifier::Eui64 => one(1, &self.eui64()),
            Identifier::Nguid => one(2, &self.nguid()),
            Identifier::Uuid => {
                let mut uuid = self.nguid();
                // Version 8, "custom", of RFC 9562.
                uuid[6] = uuid[6] & 0x0F | 0x80;
                uuid[8] = uuid[8] & 0x3F | 0x80;
                one(3, &uuid);
            }
            Identifier::None => {}
        }
        data
    }
}
