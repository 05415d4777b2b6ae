//! The LVs that are active on this host, according to the kernel.

use crate::lock::vg_of;
use crate::topology::identities_below;
use idm_protocol::ResourceId;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directory where the kernel lists block devices.
const SYSFS: &str = "/sys";

/// The host's device-mapper devices.
#[derive(Clone, Debug)]
pub struct Devices {
    block: PathBuf,
}

/// The drives below an active LV.
pub struct InUse {
    /// Its VG.
    pub vg: ResourceId,
    /// The identities of the drives; `None` if they cannot be told.
    pub drives: Option<Vec<String>>,
}

impl Default for Devices {
    fn default() -> Devices {
        Devices::with_sysfs(Path::new(SYSFS))
    }
}

impl Devices {
    /// The devices that are listed below another root of sysfs.
    pub fn with_sysfs(sysfs: &Path) -> Devices {
        Devices { block: sysfs.join("block") }
    }

    /// The mutexes of all LVs that have a device. An LV with layers (a thin pool, the origin of a
    /// snapshot) is active as long as any of its layers is. Costs one small read for each device;
    /// no device is opened.
    pub fn active(&self) -> io::Result<HashSet<ResourceId>> {
        let mut active = HashSet::new();
        for path in self.nodes()? {
            if let Some(uuid) = read(&path?.join("dm/uuid"))? {
                active.extend(lv_of(uuid.trim_end()));
            }
        }
        Ok(active)
    }

    /// The drives of all active LVs.
    pub fn drives(&self) -> io::Result<Vec<InUse>> {
        let mut active = Vec::new();
        for path in self.nodes()? {
            let path = path?;
            let uuid = read(&path.join("dm/uuid"))?.unwrap_or_default();
            if let Some(lv) = lv_of(uuid.trim_end()) {
                active.push(InUse { vg: vg_of(&lv), drives: identities_below(&path) });
            }
        }
        Ok(active)
    }

    /// The directories in sysfs of all device-mapper devices.
    pub(super) fn nodes(&self) -> io::Result<impl Iterator<Item = io::Result<PathBuf>>> {
        let entries = fs::read_dir(&self.block)?;
        let is_dm = |entry: &io::Result<fs::DirEntry>| {
            let name = entry.as_ref().map(fs::DirEntry::file_name);
            name.map_or(true, |name| name.as_encoded_bytes().starts_with(b"dm-"))
        };
        Ok(entries.filter(is_dm).map(|entry| entry.map(|entry| entry.path())))
    }
}

/// The text of an attribute; `None` if the device was removed since it was listed.
pub(super) fn read(attribute: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(attribute) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // It was removed between the opening and the reading.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The mutex of the LV that a device belongs to. The device's uuid is `LVM-` and the uuids of VG
/// and LV without dashes; for a layer, a dash and the layer's name follow.
pub fn lv_of(device_uuid: &str) -> Option<ResourceId> {
    let both = device_uuid.strip_prefix("LVM-")?;
    let (vg, rest) = both.split_at_checked(32)?;
    let (lv, layer) = rest.split_at_checked(32)?;
    if !(layer.is_empty() || layer.starts_with('-')) {
        return None;
    }
    ResourceId::lv(vg, lv).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VG: &str = "0123456789abcdefghijklmnopqrstuv";
    const LV: &str = "wxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#";

    #[test]
    fn devices_of_lvs_and_of_their_layers_are_found() {
        let sysfs = tempfile::tempdir().unwrap();
        let devices = Devices::with_sysfs(sysfs.path());
        assert!(devices.active().is_err(), "no sysfs is not the same as no device");
        let add = |name: &str, uuid: Option<&str>| {
            let directory = sysfs.path().join("block").join(name).join("dm");
            fs::create_dir_all(&directory).unwrap();
            if let Some(uuid) = uuid {
                fs::write(directory.join("uuid"), uuid).unwrap();
            }
        };
        add("sda", Some(&format!("LVM-{VG}{VG}")));
        add("dm-0", Some("mpath-3600508b400105e210000900000490000\n"));
        add("dm-1", Some("\n"));
        add("dm-2", None);
        add("dm-3", Some("LVM-short"));
        add("dm-4", Some(&format!("CRYPT-LUKS2-LVM-{VG}{LV}")));
        assert_eq!(devices.active().unwrap(), HashSet::new());
        let lv = ResourceId::lv(VG, LV).unwrap();
        for uuid in [format!("LVM-{VG}{LV}\n"), format!("LVM-{VG}{LV}-tpool\n")] {
            add("dm-5", Some(&uuid));
            assert_eq!(devices.active().unwrap(), HashSet::from([lv]));
        }
        add("dm-6", Some(&format!("LVM-{VG}{VG}-real\n")));
        assert_eq!(devices.active().unwrap().len(), 2);
    }

    #[test]
    fn no_uuid_panics() {
        for text in ["", "LVM-", "LVM-ü", &format!("LVM-{VG}{LV}x"), &"ü".repeat(80)] {
            assert_eq!(lv_of(text), None);
        }
    }
}
