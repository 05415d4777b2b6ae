//! From a PV path to the drive behind it.
//!
//! Everything comes from sysfs and the configuration: no udev database, no subprocess. Only the
//! global lock's partitions are looked for; else no directory is scanned. A drive is what its identity says: two paths with one identity are one drive,
//! and identities are compared at full length, so two drives never become one.

use core::fmt;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Finds drives.
#[derive(Clone, Debug)]
pub struct Topology {
    sysfs: PathBuf,
    emulated: BTreeMap<String, PathBuf>,
}

/// A drive, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its full identity, the same on every host.
    pub identity: String,
    /// How to reach it.
    pub target: Target,
}

/// How a drive is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A SCSI disk, through its block node.
    Block(PathBuf),
    /// An emulated drive, through its socket.
    Emulated(PathBuf),
}

/// Why no drive was found behind a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyError {
    /// There is nothing now; it may come back.
    Missing {
        /// The path.
        path: String,
        /// What was tried, and what came of it.
        why: String,
    },
    /// What is there is not a drive that can have IDM.
    Unusable {
        /// The path.
        path: String,
        /// What was found.
        found: String,
    },
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopologyError::Missing { path, why } => write!(f, "{path}: {why}"),
            TopologyError::Unusable { path, found } => {
                write!(f, "{path} is {found}, which cannot hold IDM locks")
            }
        }
    }
}

impl std::error::Error for TopologyError {}

impl Topology {
    /// The drives of this host, and emulated ones by path or plain name.
    pub fn new(emulated: BTreeMap<String, PathBuf>) -> Topology {
        Topology::with_sysfs(PathBuf::from("/sys"), emulated)
    }

    /// As [`Topology::new`], with another root of sysfs.
    pub fn with_sysfs(sysfs: PathBuf, emulated: BTreeMap<String, PathBuf>) -> Topology {
        Topology { sysfs, emulated }
    }

    /// The drive behind a PV's path. Costs a few system calls on sysfs; no drive is asked.
    pub fn locate(&self, path: &str) -> Result<Located, TopologyError> {
        if let Some(socket) = self.emulated.get(path) {
            return Ok(Located {
                identity: format!("emulated.{}", socket.display()),
                target: Target::Emulated(socket.clone()),
            });
        }
        // Follows symlinks: by-id links and the like.
        let metadata =
            fs::metadata(path).map_err(|error| missing(path, "cannot be read", error))?;
        if !metadata.file_type().is_block_device() {
            return Err(unusable(path, "not a block device"));
        }
        self.locate_device(path, metadata.rdev())
    }

    /// The drive of a block device number; `path` is for messages.
    fn locate_device(&self, path: &str, device: u64) -> Result<Located, TopologyError> {
        let disk = self.disk_directory(path, device)?;
        let identity = scsi_identity(path, &disk)?;
        Ok(Located { identity, target: Target::Block(node_of_directory(&disk)) })
    }

    /// Block nodes of the partitions whose name, in their GPT, is `propeller`: their drives are the
    /// global lock's where the configuration names none. In alphabetical order.
    pub fn global_partitions(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.sysfs.join("class/block")) else {
            return Vec::new();
        };
        let mut nodes: Vec<String> = entries
            .flatten()
            .filter(|entry| has_global_name(&entry.path()))
            .map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy().replace('!', "/")))
            .collect();
        nodes.sort();
        nodes
    }

    /// The block node that the drive with that identity has now: the kernel gives another one where
    /// the old one is still in use when a drive comes back.
    pub fn node_of(&self, identity: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(self.sysfs.join("class/block")).ok()?;
        entries.flatten().find_map(|entry| {
            let disk = entry.path().canonicalize().ok()?;
            if disk.join("partition").exists() || kind_of(&disk).is_some() {
                return None;
            }
            let found = scsi_identity(&entry.path().to_string_lossy(), &disk).ok()?;
            (found == identity).then(|| node_of_directory(&disk))
        })
    }

    /// The identity of the drive that an open block device belongs to, to be compared with what
    /// was expected: nodes are given to other drives when drives come and go.
    pub fn identity_of_device(&self, node: &Path, device: u64) -> Result<String, TopologyError> {
        let path = node.to_string_lossy();
        let disk = self.disk_directory(&path, device)?;
        scsi_identity(&path, &disk)
    }

    /// The sysfs directory of the whole disk that a block device is, or is a partition of.
    fn disk_directory(&self, path: &str, device: u64) -> Result<PathBuf, TopologyError> {
        let (major, minor) = (libc::major(device), libc::minor(device));
        let link = self.sysfs.join(format!("dev/block/{major}:{minor}"));
        let directory = link
            .canonicalize()
            .map_err(|error| missing(path, "its block device is not in sysfs", error))?;
        let disk = match directory.parent() {
            Some(parent) if directory.join("partition").exists() => parent.to_path_buf(),
            _ => directory,
        };
        match kind_of(&disk) {
            Some(found) => Err(unusable(path, found)),
            None => Ok(disk),
        }
    }
}

/// The name that makes a partition's drive one of the global lock's, exactly.
const GLOBAL_PARTITION: &str = "propeller";

/// Whether a block device is a partition with that name. The kernel tells the name in `uevent`.
fn has_global_name(device: &Path) -> bool {
    device.join("partition").exists()
        && fs::read_to_string(device.join("uevent")).is_ok_and(|text| {
            text.lines().any(|line| line.strip_prefix("PARTNAME=") == Some(GLOBAL_PARTITION))
        })
}

/// The kernel names a disk's node as it names its directory, with '!' for '/'.
fn node_of_directory(disk: &Path) -> PathBuf {
    let name = disk.file_name().unwrap_or_default().to_string_lossy();
    Path::new("/dev").join(name.replace('!', "/"))
}

/// What a disk is, where it is none that we can use.
fn kind_of(disk: &Path) -> Option<&'static str> {
    let name = disk.file_name()?.to_string_lossy();
    if disk.join("dm").exists() {
        return Some("a device-mapper device, whose drives are not looked up yet");
    }
    if disk.join("md").exists() {
        return Some("an md array, whose drives are not looked up yet");
    }
    if disk.join("loop").exists() || name.starts_with("loop") {
        return Some("a loop device");
    }
    if name.starts_with("nvme") {
        return Some("an NVMe namespace, which is not supported yet");
    }
    (!disk.join("device").exists()).then_some("a virtual block device")
}

fn missing(path: &str, what: &str, error: io::Error) -> TopologyError {
    TopologyError::Missing { path: path.to_owned(), why: format!("{what}: {error}") }
}

fn unusable(path: &str, found: &str) -> TopologyError {
    TopologyError::Unusable { path: path.to_owned(), found: found.to_owned() }
}

/// The identity of a SCSI disk: the best designator of its VPD page 83, chosen by us because
/// kernels have changed their choice; where the page is not there, the kernel's choice.
fn scsi_identity(path: &str, disk: &Path) -> Result<String, TopologyError> {
    let device = disk.join("device");
    let designator = fs::read(device.join("vpd_pg83")).ok().and_then(|page| designator(&page));
    if let Some(identity) = designator {
        return Ok(identity);
    }
    match fs::read_to_string(device.join("wwid")) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        _ => Err(unusable(path, "a disk without a SCSI identity (VPD page 83)")),
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
fn designator(page: &[u8]) -> Option<String> {
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
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const NAA5: [u8; 8] = [0x50, 0x00, 0xC5, 0x00, 0xA1, 0xB2, 0xC3, 0xD4];

    fn page(designators: &[(u8, u8, &[u8])]) -> Vec<u8> {
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

    /// A sysfs tree as the kernel lays it out, made by the test.
    struct Sysfs {
        root: tempfile::TempDir,
    }

    impl Sysfs {
        fn new() -> Sysfs {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("dev/block")).unwrap();
            Sysfs { root }
        }

        /// Makes a directory of a block device and its link; `directory` is under `devices`.
        fn device(&self, major: u32, minor: u32, directory: &str) -> PathBuf {
            let made = self.root.path().join("devices").join(directory);
            fs::create_dir_all(&made).unwrap();
            let link = format!("dev/block/{major}:{minor}");
            symlink(&made, self.root.path().join(link)).unwrap();
            made
        }

        fn scsi_disk(&self, minor: u32, name: &str, page83: &[u8]) -> PathBuf {
            let disk = self.device(8, minor, &format!("pci/host0/0:0:0:0/block/{name}"));
            fs::create_dir(disk.join("device")).unwrap();
            if !page83.is_empty() {
                fs::write(disk.join("device/vpd_pg83"), page83).unwrap();
            }
            disk
        }

        fn locate(&self, major: u32, minor: u32) -> Result<Located, TopologyError> {
            Topology::with_sysfs(self.root.path().to_path_buf(), BTreeMap::new())
                .locate_device("/dev/pv", libc::makedev(major, minor))
        }
    }

    #[test]
    fn a_disk_and_its_partition_are_one_drive() {
        let sysfs = Sysfs::new();
        sysfs.scsi_disk(16, "sdb", &page(&[(0, TYPE_NAA, &NAA5)]));
        let partition = sysfs.device(8, 17, "pci/host0/0:0:0:0/block/sdb/sdb1");
        fs::write(partition.join("partition"), "1\n").unwrap();
        let disk = sysfs.locate(8, 16).unwrap();
        assert_eq!(disk.identity, "naa.5000c500a1b2c3d4");
        assert_eq!(disk.target, Target::Block("/dev/sdb".into()));
        assert_eq!(sysfs.locate(8, 17).unwrap(), disk);
    }

    #[test]
    fn the_global_locks_partitions_have_exactly_that_name() {
        let sysfs = Sysfs::new();
        let root = sysfs.root.path();
        let topology = Topology::with_sysfs(root.to_path_buf(), BTreeMap::new());
        assert_eq!(topology.global_partitions(), Vec::<String>::new());
        fs::create_dir_all(root.join("class/block")).unwrap();
        for (name, partition, uevent) in [
            ("sdb1", true, "MAJOR=8\nDEVNAME=sdb1\nPARTN=1\nPARTNAME=propeller\n"),
            ("nvme0n1p1", true, "PARTNAME=propeller\n"),
            ("sda1", true, "PARTNAME=propeller2\n"),
            ("sda2", true, "PARTNAME=Propeller\n"),
            ("sda3", true, "PARTN=3\n"),
            ("sdc", false, "PARTNAME=propeller\n"),
        ] {
            let device = root.join("devices").join(name);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("uevent"), uevent).unwrap();
            if partition {
                fs::write(device.join("partition"), "1\n").unwrap();
            }
            symlink(&device, root.join("class/block").join(name)).unwrap();
        }
        assert_eq!(topology.global_partitions(), ["/dev/nvme0n1p1", "/dev/sdb1"]);
    }

    #[test]
    fn a_drive_is_found_by_its_identity() {
        let sysfs = Sysfs::new();
        fs::create_dir_all(sysfs.root.path().join("class/block")).unwrap();
        let other = page(&[(0, TYPE_NAA, &[0x50; 8])]);
        for (minor, name, page) in [(0, "sda", &other), (16, "sdf", &page(&[(0, TYPE_NAA, &NAA5)]))]
        {
            let disk = sysfs.device(8, minor, &format!("pci/host0/{name}/block/{name}"));
            fs::create_dir(disk.join("device")).unwrap();
            fs::write(disk.join("device/vpd_pg83"), page).unwrap();
            symlink(&disk, sysfs.root.path().join("class/block").join(name)).unwrap();
        }
        let topology = Topology::with_sysfs(sysfs.root.path().to_path_buf(), BTreeMap::new());
        assert_eq!(topology.node_of("naa.5000c500a1b2c3d4"), Some("/dev/sdf".into()));
        assert_eq!(topology.node_of("naa.5000c500a1b2c3d5"), None);
    }

    #[test]
    fn the_kernels_wwid_serves_where_the_page_is_missing() {
        let sysfs = Sysfs::new();
        let disk = sysfs.scsi_disk(0, "sda", &[]);
        fs::write(disk.join("device/wwid"), "naa.6000c29f00112233445566778899aabb\n").unwrap();
        assert_eq!(sysfs.locate(8, 0).unwrap().identity, "naa.6000c29f00112233445566778899aabb");
    }

    #[test]
    fn a_disk_without_identity_is_refused() {
        let sysfs = Sysfs::new();
        sysfs.scsi_disk(0, "sda", &[]);
        let error = sysfs.locate(8, 0).unwrap_err().to_string();
        assert!(error.contains("/dev/pv") && error.contains("identity"), "{error}");
    }

    #[test]
    fn what_is_no_scsi_disk_is_named() {
        let sysfs = Sysfs::new();
        for (minor, name, inside, said) in [
            (0, "dm-0", "dm", "device-mapper"),
            (1, "md0", "md", "md array"),
            (2, "loop0", "loop", "loop"),
            (3, "loop1", "queue", "loop"),
            (4, "nvme0n1", "device", "NVMe"),
            (5, "zram0", "queue", "virtual"),
        ] {
            let directory = sysfs.device(250, minor, &format!("virtual/block/{name}"));
            fs::create_dir(directory.join(inside)).unwrap();
            let error = sysfs.locate(250, minor).unwrap_err();
            assert!(matches!(error, TopologyError::Unusable { .. }));
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn what_is_gone_may_come_back() {
        let sysfs = Sysfs::new();
        let error = sysfs.locate(8, 99).unwrap_err();
        assert!(matches!(error, TopologyError::Missing { .. }), "{error}");
        let error = Topology::new(BTreeMap::new()).locate("/dev/nonexistent-pv").unwrap_err();
        assert!(error.to_string().contains("/dev/nonexistent-pv"), "{error}");
        assert!(matches!(error, TopologyError::Missing { .. }));
    }

    #[test]
    fn a_file_is_no_drive() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error =
            Topology::new(BTreeMap::new()).locate(file.path().to_str().unwrap()).unwrap_err();
        assert!(error.to_string().contains("not a block device"), "{error}");
    }

    #[test]
    fn an_emulated_drive_has_a_path_or_a_plain_name() {
        let sockets = [("/dev/loop3", "/tmp/d0"), ("disk1", "/tmp/d1"), ("again", "/tmp/d1")];
        let emulated = sockets.map(|(path, socket)| (path.to_owned(), PathBuf::from(socket)));
        let topology = Topology::new(emulated.into());
        assert_eq!(
            topology.locate("/dev/loop3").unwrap().target,
            Target::Emulated("/tmp/d0".into())
        );
        assert_eq!(topology.locate("disk1"), topology.locate("again"));
        assert_ne!(topology.locate("disk1"), topology.locate("/dev/loop3"));
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
