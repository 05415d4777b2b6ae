//! Active LVs that no known lock protects.
//!
//! Not every device of a VG belongs to an LV with a lock of its own. lvm locks a thin pool for its
//! volumes, an origin for its snapshots, and never a component, that is, a part of another LV. So a
//! lock covers the devices of its LV, the devices stacked on these, and the devices below all of
//! them, as the kernel shows.

use super::active::{self, Devices, lv_of};
use crate::lock::{lv_uuid, vg_of};
use idm_protocol::ResourceId;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Strings in the names of components. lvm allows them in no other name of an LV.
const COMPONENTS: [&str; 17] = [
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_imeta", "_iorig", "_mimage", "_mlog",
    "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_wcorig",
];
/// Strings that the names of temporary components begin with.
const COMPONENT_PREFIXES: [&str; 2] = ["pvmove", "snapshot"];

/// An active LV.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActiveLv {
    /// Its mutex.
    pub id: ResourceId,
    /// The names of its VG and of itself.
    name: String,
}

/// The name and the uuid, for messages.
impl fmt::Display for ActiveLv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, lv_uuid(&self.id))
    }
}

/// A device of a VG.
struct Device {
    lv: ActiveLv,
    /// Whether its LV is a component.
    is_component: bool,
    /// The devices below it.
    lower: Vec<String>,
}

impl Devices {
    /// The active LVs of a VG, except for components, that no lock covers which this host `has`.
    pub fn unprotected(
        &self,
        vg: &ResourceId,
        has: impl Fn(&ResourceId) -> bool,
    ) -> io::Result<Vec<ActiveLv>> {
        let devices = self.of_vg(vg)?;
        let covered = covered(&devices, has);
        let open = devices
            .iter()
            .filter(|(node, it)| !it.is_component && !covered.contains(node.as_str()));
        let mut lvs: Vec<ActiveLv> = open.map(|(_, device)| device.lv.clone()).collect();
        lvs.sort_unstable();
        lvs.dedup_by_key(|lv| lv.id);
        Ok(lvs)
    }

    /// The devices of a VG by the names of their nodes.
    fn of_vg(&self, vg: &ResourceId) -> io::Result<BTreeMap<String, Device>> {
        let mut devices = BTreeMap::new();
        for path in self.nodes()? {
            let path = path?;
            let uuid = active::read(&path.join("dm/uuid"))?.unwrap_or_default();
            let Some(id) = lv_of(uuid.trim_end()) else { continue };
            if vg_of(&id) != *vg {
                continue;
            }
            let name = active::read(&path.join("dm/name"))?.unwrap_or_default();
            let (vg_name, lv_name) = names(name.trim_end());
            let lv = ActiveLv { id, name: format!("{vg_name}/{lv_name}") };
            let device = Device { lv, is_component: is_component(&lv_name), lower: lower(&path)? };
            let node = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            devices.insert(node, device);
        }
        Ok(devices)
    }
}

/// The nodes of the devices that a lock covers.
fn covered(devices: &BTreeMap<String, Device>, has: impl Fn(&ResourceId) -> bool) -> HashSet<&str> {
    let locked = devices.iter().filter(|(_, device)| has(&device.lv.id));
    let mut covered: HashSet<&str> = locked.map(|(node, _)| node.as_str()).collect();
    // Upwards first: other LVs on top of a device below a covered one are not covered. pvmove has
    // such a device for several LVs.
    let mut all = 0;
    while core::mem::replace(&mut all, covered.len()) != covered.len() {
        let above = devices.iter().filter(|(_, device)| stands_on(device, &covered));
        let above: Vec<&str> = above.map(|(node, _)| node.as_str()).collect();
        covered.extend(above);
    }
    all = 0;
    while core::mem::replace(&mut all, covered.len()) != covered.len() {
        let upper = covered.iter().filter_map(|node| devices.get(*node));
        let below: Vec<&str> = upper.flat_map(|it| it.lower.iter().map(String::as_str)).collect();
        covered.extend(below);
    }
    covered
}

fn stands_on(device: &Device, covered: &HashSet<&str>) -> bool {
    device.lower.iter().any(|lower| covered.contains(lower.as_str()))
}

/// Whether an LV with this name is a component.
fn is_component(name: &str) -> bool {
    COMPONENTS.iter().any(|it| name.contains(it))
        || COMPONENT_PREFIXES.iter().any(|it| name.starts_with(it))
}

/// The names of VG and LV in the name of a device. Hyphens in names are doubled; single hyphens
/// separate the names of VG, LV and layer.
fn names(device: &str) -> (String, String) {
    let mut parts = [String::new(), String::new(), String::new()];
    let mut at = 0;
    let mut letters = device.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '-' && letters.next_if_eq(&'-').is_none() && at < 2 {
            at += 1;
        } else {
            parts[at].push(letter);
        }
    }
    let [vg, lv, _] = parts;
    (vg, lv)
}

/// The nodes below a device.
fn lower(device: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(device.join("slaves")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    const VG: &str = "0123456789abcdefghijklmnopqrstuv";

    /// The devices of a host; the uuid of each LV is one letter, repeated.
    struct Host {
        sysfs: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Host {
            let sysfs = tempfile::tempdir().unwrap();
            fs::create_dir(sysfs.path().join("block")).unwrap();
            Host { sysfs }
        }

        fn node(&self, node: &str) -> PathBuf {
            self.sysfs.path().join("block").join(node)
        }

        /// Adds a device with this name on top of others.
        fn add(&self, node: &str, (lv, layer): (char, &str), name: &str, lower: &[&str]) {
            let path = self.node(node);
            fs::create_dir_all(path.join("dm")).unwrap();
            fs::create_dir_all(path.join("slaves")).unwrap();
            let lv = lv.to_string().repeat(32);
            fs::write(path.join("dm/uuid"), format!("LVM-{VG}{lv}{layer}\n")).unwrap();
            fs::write(path.join("dm/name"), format!("{name}\n")).unwrap();
            for other in lower {
                symlink(self.node(other), path.join("slaves").join(other)).unwrap();
            }
        }

        /// The names of the LVs that the locks of these LVs do not protect.
        fn unprotected(&self, locked: &str) -> Vec<String> {
            let devices = Devices::with_sysfs(self.sysfs.path());
            let vg = ResourceId::vg(VG).unwrap();
            let has = |id: &ResourceId| locked.contains(char::from(id.as_bytes()[63]));
            let lvs = devices.unprotected(&vg, has).unwrap();
            lvs.into_iter().map(|lv| lv.name).collect()
        }
    }

    #[test]
    fn an_lv_without_a_lock_is_named() {
        let host = Host::new();
        host.add("dm-0", ('a', ""), "vg--1-data--a", &["sda"]);
        host.add("dm-1", ('b', ""), "vg--1-data--b", &["sda"]);
        host.add("dm-2", ('c', "-real"), "vg--1-c-real", &["sda"]);
        assert_eq!(host.unprotected("a"), ["vg-1/data-b", "vg-1/c"]);
        assert_eq!(host.unprotected("abc"), [""; 0]);
        let other = ResourceId::vg(&VG.replace('0', "X")).unwrap();
        let devices = Devices::with_sysfs(host.sysfs.path());
        assert_eq!(devices.unprotected(&other, |_| false).unwrap(), []);
        let text =
            devices.unprotected(&ResourceId::vg(VG).unwrap(), |_| false).unwrap()[0].to_string();
        assert_eq!(text, "vg-1/data-a (aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa)");
    }

    #[test]
    fn a_pools_lock_protects_what_is_in_it() {
        let host = Host::new();
        host.add("dm-0", ('d', "-tdata"), "vg-p_tdata", &["sda"]);
        host.add("dm-1", ('p', "-tpool"), "vg-p-tpool", &["dm-0"]);
        // A thin volume with a snapshot of the old kind, and one with an origin outside.
        host.add("dm-2", ('t', "-real"), "vg-thin-real", &["dm-1"]);
        host.add("dm-3", ('t', ""), "vg-thin", &["dm-2"]);
        host.add("dm-4", ('s', "-cow"), "vg-snap-cow", &["sda"]);
        host.add("dm-5", ('s', ""), "vg-snap", &["dm-2", "dm-4"]);
        host.add("dm-6", ('e', ""), "vg-outside", &["sda"]);
        host.add("dm-7", ('u', ""), "vg-second", &["dm-1", "dm-6"]);
        assert_eq!(host.unprotected("p"), [""; 0]);
        assert_eq!(host.unprotected("").len(), 5);
    }

    #[test]
    fn what_carries_two_lvs_extends_no_lock_from_one_to_the_other() {
        let host = Host::new();
        host.add("dm-0", ('m', ""), "vg-pvmove0", &["sda", "sdb"]);
        host.add("dm-1", ('a', ""), "vg-one", &["dm-0"]);
        host.add("dm-2", ('b', ""), "vg-other", &["dm-0"]);
        assert_eq!(host.unprotected("a"), ["vg/other"]);
    }

    #[test]
    fn components_need_no_lock_of_their_own() {
        let host = Host::new();
        host.add("dm-0", ('a', ""), "vg-r_rimage_0", &["sda"]);
        host.add("dm-1", ('b', ""), "vg-r_rmeta_0", &["sda"]);
        // Only the LV's name counts.
        host.add("dm-2", ('c', ""), "vg_rimage_0-r", &["sda"]);
        assert_eq!(host.unprotected(""), ["vg_rimage_0/r"]);
    }

    #[test]
    fn names_are_taken_apart() {
        for (device, vg, lv) in [
            ("vg-lv", "vg", "lv"),
            ("vg-lv-real", "vg", "lv"),
            ("a--b-c--d", "a-b", "c-d"),
            ("a----b-c", "a--b", "c"),
            ("no", "no", ""),
            ("", "", ""),
        ] {
            assert_eq!(names(device), (vg.to_owned(), lv.to_owned()), "{device}");
        }
    }
}
