//! The identity of a drive: the same text on every host and by every path, at full length.
//!
//! The unit that answers commands and the device that fails can differ. A drive with two actuators
//! has two logical units, each with an identity and perhaps a mutex table of its own, but it is one
//! device that fails as a whole.

use super::sysfs::{attribute, link_name};
use std::fs;
use std::path::Path;

/// The command set of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskKind {
    Scsi,
    Nvme,
}

/// The kind of a disk, by its sysfs directory. An error describes another kind of device.
pub(super) fn kind(disk: &Path) -> Result<DiskKind, String> {
    match link_name(&disk.join("device"), "subsystem").as_deref() {
        Some("scsi") => Ok(DiskKind::Scsi),
        // The parent of a namespace is its controller, that of the head of native multipath the
        // subsystem.
        Some("nvme" | "nvme-subsystem") => Ok(DiskKind::Nvme),
        Some(other) => Err(format!("a disk of the kernel's {other} subsystem")),
        None => Err("a disk of no known kind".to_owned()),
    }
}

/// Identity of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskIdentity {
    /// Identity of the unit that has a mutex table.
    pub unit: String,
    /// Identity of the device that fails as a whole; the unit's, where the disk does not report
    /// one.
    pub device: String,
}

/// The identity of a disk. An error describes the device.
pub(super) fn identity(disk: &Path, kind: DiskKind) -> Result<DiskIdentity, String> {
    match kind {
        DiskKind::Scsi => {
            scsi(disk).ok_or("a disk without a SCSI identity (VPD page 83)".to_owned())
        }
        DiskKind::Nvme => {
            let unit = nvme(disk).ok_or("an NVMe namespace without any identity".to_owned())?;
            Ok(DiskIdentity { device: unit.clone(), unit })
        }
    }
}

/// The identity of a SCSI disk: the best designator of its VPD page 83. This library chooses it,
/// because kernels have changed their choice; where there is no such page, the kernel's choice
/// counts.
fn scsi(disk: &Path) -> Option<DiskIdentity> {
    let page = page_of(disk);
    let kernels = || attribute(&disk.join("device"), "wwid").filter(|wwid| is_unique(wwid));
    let unit = designator(&page).or_else(kernels)?;
    let device = device_designator(&page).unwrap_or_else(|| unit.clone());
    Some(DiskIdentity { unit, device })
}

/// The VPD page 83 of a SCSI disk that the kernel has read; empty if it has none.
pub(super) fn page_of(disk: &Path) -> Vec<u8> {
    fs::read(disk.join("device/vpd_pg83")).unwrap_or_default()
}

/// Whether two device identification pages are the same page, whatever follows it.
pub fn is_same_page(one: &[u8], other: &[u8]) -> bool {
    let whole = |page: &[u8]| {
        let length = u16::from_be_bytes([*page.get(2)?, *page.get(3)?]);
        page.get(..HEADER + usize::from(length)).map(<[u8]>::to_vec)
    };
    whole(one).is_some_and(|page| whole(other) == Some(page))
}

/// The identity of the drive that has an NVMe namespace.
///
/// Mutex commands name no namespace: one drive has one mutex table for all its namespaces and
/// controllers. In this sense a drive is an NVM subsystem. So the name (NQN) of the subsystem is
/// the identity. With the NGUID, EUI-64 or UUID of a namespace, two namespaces would be two votes
/// of one drive. The serial number of the subsystem is added in case a manufacturer gives one name
/// to many drives. The identifier of the namespace is used only where the subsystem has neither
/// name nor number.
fn nvme(disk: &Path) -> Option<String> {
    // Both are in the controller's directory and in the subsystem's.
    let device = disk.join("device");
    let serial = attribute(&device, "serial");
    let name = attribute(&device, "subsysnqn").or_else(|| {
        serial.as_ref()?;
        attribute(&device, "model")
    });
    match (name, serial) {
        (Some(name), Some(serial)) => Some(format!("nvme.{name}.{serial}")),
        (Some(name), None) => Some(format!("nvme.{name}")),
        (None, _) => attribute(disk, "wwid").map(|wwid| format!("nvme-namespace.{wwid}")),
    }
}

// Device identification VPD page, SPC-4 section 7.8.6.
const PAGE_CODE: u8 = 0x83;
const HEADER: usize = 4;
const ASSOCIATION_LUN: u8 = 0;
const ASSOCIATION_DEVICE: u8 = 2;
const TYPE_T10: u8 = 1;
const TYPE_EUI: u8 = 2;
const TYPE_NAA: u8 = 3;
const NAA_LOCAL: u8 = 3;

/// The identity of the logical unit in a device identification page: NAA, else EUI-64, else T10
/// vendor id. Of several, the longest counts, then the greatest, so that the order in the page does
/// not matter. `None` if the page has no such designator.
pub fn designator(page: &[u8]) -> Option<String> {
    best(page, ASSOCIATION_LUN)
}

/// The identity of the device that the logical unit is a part of (target device), chosen in the
/// same way.
pub fn device_designator(page: &[u8]) -> Option<String> {
    best(page, ASSOCIATION_DEVICE)
}

fn best(page: &[u8], association: u8) -> Option<String> {
    if *page.get(1)? != PAGE_CODE {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let mut rest = page.get(HEADER..)?;
    rest = &rest[..length.min(rest.len())];
    let mut best: Option<(u8, &[u8], u8)> = None;
    while let Some((header, tail)) = rest.split_first_chunk::<4>() {
        let Some(value) = tail.get(..usize::from(header[3])) else {
            break;
        };
        rest = &tail[value.len()..];
        let rank = match (header[1] & 0x0F, value.first()) {
            _ if header[1] >> 4 & 3 != association => continue,
            (kind, _) if !names_one(kind, value) => continue,
            // Locally assigned: unique only if the administrator has made it so.
            (TYPE_NAA, Some(first)) if first >> 4 == NAA_LOCAL => 2,
            (TYPE_NAA, _) => 4,
            (TYPE_EUI, _) => 3,
            (TYPE_T10, _) => 1,
            _ => continue,
        };
        let better = best.is_none_or(|(best_rank, best_value, _)| {
            (best_rank, best_value.len(), best_value) < (rank, value.len(), value)
        });
        if better {
            best = Some((rank, value, header[1] & 0x0F));
        }
    }
    let (_, value, kind) = best?;
    Some(match kind {
        TYPE_NAA => format!("naa.{}", hex(value)),
        TYPE_EUI => format!("eui.{}", hex(value)),
        _ => format!("t10.{}", value.trim_ascii_end().escape_ascii()),
    })
}

/// Bytes of a T10 vendor id that name the vendor only.
const VENDOR: usize = 8;

/// Whether a designator may be the name of one drive only: firmware that has none writes zeros or
/// blanks.
fn names_one(kind: u8, value: &[u8]) -> bool {
    let shared = if kind == TYPE_T10 { VENDOR } else { 0 };
    value.iter().skip(shared).any(|byte| !matches!(byte, 0 | b' '))
}

/// The same for the kernel's text of a designator.
fn is_unique(wwid: &str) -> bool {
    let name = wwid.split_once('.').map_or(wwid, |(_, name)| name);
    let shared = if wwid.starts_with("t10.") { VENDOR } else { 0 };
    name.bytes().skip(shared).any(|byte| !matches!(byte, b'0' | b' ' | b'\\'))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const NAA5: [u8; 8] = [0x50, 0x00, 0xC5, 0x00, 0xA1, 0xB2, 0xC3, 0xD4];

    pub fn page(designators: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (association, kind, value) in designators {
            body.extend([0x01, association << 4 | kind, 0, value.len() as u8]);
            body.extend(*value);
        }
        let mut page = vec![0, PAGE_CODE];
        page.extend((body.len() as u16).to_be_bytes());
        page.extend(body);
        page
    }

    #[test]
    fn the_best_designator_wins_wherever_it_stands() {
        let naa6 = [0x60; 16];
        let local = [0x30; 8];
        let eui = [0x11; 8];
        let all: [(u8, u8, &[u8]); 5] = [
            (0, TYPE_T10, b"SEAGATE XS  "),
            (0, TYPE_EUI, &eui),
            (0, TYPE_NAA, &local),
            (0, TYPE_NAA, &NAA5),
            (0, TYPE_NAA, &naa6),
        ];
        let expected = [
            "t10.SEAGATE XS".to_owned(),
            format!("eui.{}", hex(&eui)),
            format!("eui.{}", hex(&eui)),
            format!("naa.{}", hex(&NAA5)),
            format!("naa.{}", hex(&naa6)),
        ];
        for count in 1..=all.len() {
            let mut some = all[..count].to_vec();
            let forward = designator(&page(&some));
            some.reverse();
            assert_eq!(forward.as_deref(), Some(expected[count - 1].as_str()));
            assert_eq!(designator(&page(&some)), forward);
        }
    }

    #[test]
    fn what_many_drives_may_have_in_common_is_no_identity() {
        let common: [(u8, u8, &[u8]); 5] = [
            (0, TYPE_NAA, &[0; 8]),
            (0, TYPE_EUI, &[0; 8]),
            (0, TYPE_T10, b"        "),
            (0, TYPE_T10, b"SEAGATE "),
            (0, TYPE_T10, b"SEAGATE \0\0  "),
        ];
        assert_eq!(designator(&page(&common)), None);
        let mut with_name = common.to_vec();
        with_name.insert(2, (0, TYPE_T10, b"SEAGATE 1"));
        assert_eq!(designator(&page(&with_name)).as_deref(), Some("t10.SEAGATE 1"));
        // The kernel's choice is made of the same page.
        for wwid in ["naa.0000000000000000", "eui.00", "t10.", "t10.SEAGATE", "t10.SEAGATE   0"] {
            assert!(!is_unique(wwid), "{wwid}");
        }
        for wwid in ["naa.5000c500a1b2c3d4", "t10.ATA     X", "iqn.2003-01.org.x", "x"] {
            assert!(is_unique(wwid), "{wwid}");
        }
    }

    #[test]
    fn designators_of_the_port_are_not_the_drives() {
        assert_eq!(designator(&page(&[(1, TYPE_NAA, &NAA5)])), None);
        let both = page(&[(1, TYPE_NAA, &NAA5), (0, TYPE_EUI, &[9; 8])]);
        assert_eq!(designator(&both).as_deref(), Some("eui.0909090909090909"));
    }

    #[test]
    fn the_device_is_told_from_the_logical_unit_and_the_port() {
        let (lun, port, device) = ([0x51; 8], [0x52; 8], [0x53; 8]);
        let mut all: Vec<(u8, u8, &[u8])> = vec![
            (ASSOCIATION_LUN, TYPE_NAA, &lun),
            (1, TYPE_NAA, &port),
            (ASSOCIATION_DEVICE, TYPE_NAA, &device),
            (ASSOCIATION_DEVICE, 8, b"naa.5353535353535353"),
            (3, TYPE_NAA, &[0x54; 8]),
        ];
        for _ in 0..2 {
            let page = page(&all);
            assert_eq!(designator(&page).as_deref(), Some("naa.5151515151515151"));
            assert_eq!(device_designator(&page).as_deref(), Some("naa.5353535353535353"));
            all.reverse();
        }
        for none in [&[0; 8][..], &[]] {
            let page = page(&[(0, TYPE_NAA, &lun), (ASSOCIATION_DEVICE, TYPE_NAA, none)]);
            assert_eq!(device_designator(&page), None);
        }
        assert_eq!(device_designator(&page(&[(0, TYPE_NAA, &lun), (1, TYPE_NAA, &port)])), None);
    }

    #[test]
    fn a_broken_page_is_no_identity() {
        let whole = page(&[(0, TYPE_NAA, &NAA5)]);
        let of_device = page(&[(ASSOCIATION_DEVICE, TYPE_NAA, &NAA5)]);
        for length in 0..whole.len() {
            assert_eq!(designator(&whole[..length]), None, "{length} bytes");
            assert_eq!(device_designator(&of_device[..length]), None, "{length} bytes");
        }
        for read in [designator, device_designator] {
            assert_eq!(read(&[0xFF; 64]), None);
        }
    }
}
