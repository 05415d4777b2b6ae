//! Who a drive is: the same text on every host and by every path, at full length.

use super::sysfs::{attribute, link_name};
use std::fs;
use std::path::Path;

/// How a disk takes commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scsi,
    Nvme,
}

/// What a disk is, by its sysfs directory. An error says what else it is.
pub(super) fn kind(disk: &Path) -> Result<Kind, String> {
    match link_name(&disk.join("device"), "subsystem").as_deref() {
        Some("scsi") => Ok(Kind::Scsi),
        // A namespace belongs to its controller, the head of native multipath to the subsystem.
        Some("nvme" | "nvme-subsystem") => Ok(Kind::Nvme),
        Some(other) => Err(format!("a disk of the kernel's {other} subsystem")),
        None => Err("a disk of no known kind".to_owned()),
    }
}

/// The identity of a disk. An error says what was found.
pub(super) fn identity(disk: &Path, kind: Kind) -> Result<String, String> {
    match kind {
        Kind::Scsi => scsi(disk).ok_or("a disk without a SCSI identity (VPD page 83)".to_owned()),
        Kind::Nvme => nvme(disk).ok_or("an NVMe namespace without any identity".to_owned()),
    }
}

/// The identity of a SCSI disk: the best designator of its VPD page 83, chosen by us because
/// kernels have changed their choice; where the page is not there, the kernel's choice.
fn scsi(disk: &Path) -> Option<String> {
    let device = disk.join("device");
    let page = fs::read(device.join("vpd_pg83")).ok();
    page.and_then(|page| designator(&page)).or_else(|| attribute(&device, "wwid"))
}

/// The identity of the drive that an NVMe namespace is on.
///
/// Mutex commands name no namespace: one drive has one mutex table, however many namespaces it
/// has and by however many controllers it is reached. What is one drive in that sense is the
/// NVM subsystem. So its name (NQN) is the identity, and not the NGUID, EUI-64 or UUID of a
/// namespace, by which two namespaces would be two votes of one drive. The serial number is the
/// subsystem's, too; it is added in case that a maker has given one name to many drives. The
/// identifier of the namespace serves only where the subsystem has neither name nor number.
fn nvme(disk: &Path) -> Option<String> {
    // Both are there in the controller's directory and in the subsystem's.
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
const TYPE_T10: u8 = 1;
const TYPE_EUI: u8 = 2;
const TYPE_NAA: u8 = 3;
const NAA_LOCAL: u8 = 3;

/// The identity in a device identification page: NAA, else EUI-64, else T10 vendor id; of several
/// the longest, then the greatest, so that the order in the page does not matter. `None` where
/// the page names no such designator of the logical unit.
pub fn designator(page: &[u8]) -> Option<String> {
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
            _ if header[1] >> 4 & 3 != ASSOCIATION_LUN => continue,
            (_, None) => continue,
            // Locally assigned: unique only as far as the administrator took care.
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
    fn designators_of_the_port_are_not_the_drives() {
        assert_eq!(designator(&page(&[(1, TYPE_NAA, &NAA5)])), None);
        let both = page(&[(1, TYPE_NAA, &NAA5), (0, TYPE_EUI, &[9; 8])]);
        assert_eq!(designator(&both).as_deref(), Some("eui.0909090909090909"));
    }

    #[test]
    fn a_broken_page_is_no_identity() {
        let whole = page(&[(0, TYPE_NAA, &NAA5)]);
        for length in 0..whole.len() {
            assert_eq!(designator(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(designator(&[0xFF; 64]), None);
    }
}
