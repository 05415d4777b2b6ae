//! Tests on sysfs trees that they make in the layout of the kernel.

use super::identity::tests::{NAA5, page};
use super::*;
use std::cell::Cell;
use std::os::unix::fs::symlink;

const NAA: u8 = 3;

/// The sysfs of a host.
pub(crate) struct Tree {
    root: tempfile::TempDir,
    devices: Cell<u32>,
}

impl Tree {
    pub(crate) fn new() -> Tree {
        let root = tempfile::tempdir().unwrap();
        for directory in ["dev/block", "class/block", "bus/scsi", "class/nvme", "bus/virtio"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::create_dir(root.path().join("class/nvme-subsystem")).unwrap();
        Tree { root, devices: Cell::new(0) }
    }

    pub(crate) fn topology(&self) -> Topology {
        Topology::with_sysfs(self.root.path().to_path_buf(), BTreeMap::new())
    }

    fn locate(&self, device: &Path) -> Result<Found, TopologyError> {
        self.topology().locate_device("/dev/pv", Tree::number(device))
    }

    /// The number of a device.
    pub(crate) fn number(device: &Path) -> u64 {
        let text = fs::read_to_string(device.join("dev")).unwrap();
        let (major, minor) = text.trim().split_once(':').unwrap();
        libc::makedev(major.parse().unwrap(), minor.parse().unwrap())
    }

    /// The drives behind one path.
    fn locate_path(topology: &Topology, path: &str) -> Result<Found, TopologyError> {
        topology.locate(&[path.to_owned()]).remove(0)
    }

    /// The result as text: identities and paths.
    fn found(&self, device: &Path) -> String {
        let found = self.locate(device).unwrap();
        assert_eq!(found.missing, Vec::<String>::new());
        let drives = found.drives.iter().map(|drive| {
            let paths: Vec<String> = drive.paths.iter().map(ToString::to_string).collect();
            format!("{} by {}", drive.identity, paths.join(", "))
        });
        drives.collect::<Vec<_>>().join("; ")
    }

    fn refused(&self, device: &Path) -> String {
        match self.locate(device) {
            Err(error @ TopologyError::Unusable { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// A block device with its number; `directory` is under `devices`.
    fn block(&self, directory: &str) -> PathBuf {
        let device = self.hidden(directory);
        let number = format!("{}:{}", 8 + self.devices.get() / 256, self.devices.get() % 256);
        self.devices.set(self.devices.get() + 1);
        fs::write(device.join("dev"), format!("{number}\n")).unwrap();
        symlink(&device, self.root.path().join("dev/block").join(number)).unwrap();
        device
    }

    /// A block device without number or node.
    fn hidden(&self, directory: &str) -> PathBuf {
        let device = self.root.path().join("devices").join(directory);
        fs::create_dir_all(&device).unwrap();
        symlink(&device, self.root.path().join("class/block").join(name(&device))).unwrap();
        device
    }

    fn subsystem(&self, device: &Path, subsystem: &str) {
        symlink(self.root.path().join(subsystem), device.join("subsystem")).unwrap();
    }

    /// A SCSI disk with this page 83; each is a LUN of an adapter of its own.
    pub(crate) fn scsi(&self, node: &str, page83: &[u8]) -> PathBuf {
        let lun = format!("pci0000:00/{node}/host0/target0:0:0/0:0:0:0");
        let disk = self.block(&format!("{lun}/block/{node}"));
        let lun = self.root.path().join("devices").join(lun);
        symlink(&lun, disk.join("device")).unwrap();
        self.subsystem(&lun, "bus/scsi");
        if !page83.is_empty() {
            fs::write(lun.join("vpd_pg83"), page83).unwrap();
        }
        disk
    }

    /// A SCSI disk with a NAA designator that ends with this number.
    pub(crate) fn drive(&self, node: &str, number: u8) -> PathBuf {
        self.scsi(node, &page(&[(0, NAA, &[0x50, 0, 0xC5, 0, 0, 0, 0, number])]))
    }

    /// A SCSI disk with the number `number`, a part of the device with the number `device`.
    pub(crate) fn unit(&self, node: &str, number: u8, device: u8) -> PathBuf {
        let unit = [0x50, 0, 0xC5, 0, 0, 0, 0, number];
        let device = [0x50, 0, 0xC5, 0, 0, 0, 1, device];
        self.scsi(node, &page(&[(0, NAA, &unit), (2, NAA, &device)]))
    }

    pub(crate) fn partition(&self, disk: &Path, name: &str) -> PathBuf {
        let disk = disk.strip_prefix(self.root.path().join("devices")).unwrap();
        let partition = self.block(disk.join(name).to_str().unwrap());
        fs::write(partition.join("partition"), "1\n").unwrap();
        partition
    }

    /// A partition for the global lock.
    pub(crate) fn propeller(&self, disk: &Path, name: &str) -> PathBuf {
        let partition = self.partition(disk, name);
        let uevent = format!("MAJOR=8\nDEVNAME={name}\nPARTN=1\nPARTNAME=propeller\n");
        fs::write(partition.join("uevent"), uevent).unwrap();
        partition
    }

    /// Removes a device; links to it may remain.
    pub(crate) fn remove(&self, device: &Path) {
        fs::remove_dir_all(device).unwrap();
        fs::remove_file(self.root.path().join("class/block").join(name(device))).unwrap();
    }

    pub(crate) fn stacked(&self, node: &str, kind: &str, below: &[&PathBuf]) -> PathBuf {
        let device = self.block(&format!("virtual/block/{node}"));
        for directory in [kind, "slaves"] {
            fs::create_dir(device.join(directory)).unwrap();
        }
        for slave in below {
            symlink(slave, device.join("slaves").join(name(slave))).unwrap();
        }
        device
    }

    pub(crate) fn multipath(&self, node: &str, below: &[&PathBuf]) -> PathBuf {
        let map = self.stacked(node, "dm", below);
        fs::write(map.join("dm/uuid"), "mpath-35000c50000000001\n").unwrap();
        map
    }

    /// The attributes of a controller or an NVM subsystem.
    fn nvme_device(
        &self,
        directory: &str,
        subsystem: &str,
        attributes: &[(&str, &str)],
    ) -> PathBuf {
        let device = self.root.path().join("devices").join(directory);
        fs::create_dir_all(&device).unwrap();
        self.subsystem(&device, subsystem);
        for (attribute, value) in attributes {
            fs::write(device.join(attribute), format!("{value}\n")).unwrap();
        }
        device
    }

    /// A namespace of a controller.
    fn namespace(&self, controller: &Path, node: &str, wwid: &str) -> PathBuf {
        let under = controller.strip_prefix(self.root.path().join("devices")).unwrap();
        let disk = self.block(under.join(node).to_str().unwrap());
        symlink(controller, disk.join("device")).unwrap();
        fs::write(disk.join("wwid"), format!("{wwid}\n")).unwrap();
        disk
    }

    fn controller(&self, node: &str, attributes: &[(&str, &str)]) -> PathBuf {
        self.nvme_device(&format!("pci0000:00/{node}/nvme/{node}"), "class/nvme", attributes)
    }
}

fn name(device: &Path) -> String {
    device.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_disk_and_its_partition_are_one_drive() {
    let tree = Tree::new();
    let disk = tree.scsi("sdb", &page(&[(0, NAA, &NAA5)]));
    let partition = tree.partition(&disk, "sdb1");
    assert_eq!(tree.found(&disk), "naa.5000c500a1b2c3d4 by /dev/sdb");
    assert_eq!(tree.found(&partition), tree.found(&disk));
}

#[test]
fn the_units_of_one_device_are_drives_of_their_own_that_name_it() {
    let tree = Tree::new();
    let (a, b) = (tree.unit("sda", 1, 9), tree.unit("sdb", 2, 9));
    let found = tree.locate(&tree.stacked("dm-0", "dm", &[&a, &b])).unwrap();
    let identities: Vec<&str> = found.drives.iter().map(|drive| &*drive.identity).collect();
    assert_eq!(identities, ["naa.5000c50000000001", "naa.5000c50000000002"]);
    assert!(found.drives.iter().all(|drive| drive.device == "naa.5000c50000000109"));
    let plain = tree.locate(&tree.drive("sdc", 3)).unwrap();
    assert_eq!(plain.drives[0].device, plain.drives[0].identity);
}

#[test]
fn the_kernels_wwid_serves_where_the_page_is_missing() {
    let tree = Tree::new();
    let disk = tree.scsi("sda", &[]);
    fs::write(disk.join("device/wwid"), "naa.6000c29f00112233445566778899aabb\n").unwrap();
    assert_eq!(tree.found(&disk), "naa.6000c29f00112233445566778899aabb by /dev/sda");
}

#[test]
fn the_paths_of_a_multipath_map_are_one_drives() {
    let tree = Tree::new();
    let paths: Vec<PathBuf> =
        (b'a'..=b'h').map(|letter| tree.drive(&format!("sd{}", letter as char), 1)).collect();
    let map = tree.multipath("dm-0", &paths.iter().collect::<Vec<_>>());
    let expected = "naa.5000c50000000001 by /dev/sda, /dev/sdb, /dev/sdc, /dev/sdd, /dev/sde, \
                    /dev/sdf, /dev/sdg, /dev/sdh";
    assert_eq!(tree.found(&map), expected);
    // kpartx makes a linear map of a partition on it.
    let partition = tree.stacked("dm-1", "dm", &[&map]);
    assert_eq!(tree.found(&partition), expected);
    // A path disappears, and the map is not loaded again at once.
    fs::remove_dir_all(&paths[0]).unwrap();
    assert_eq!(tree.found(&map), expected.replace("/dev/sda, ", ""));
    for path in &paths[1..] {
        fs::remove_dir_all(path).unwrap();
    }
    assert_eq!(tree.locate(&map).unwrap().missing.len(), 8);
    assert_eq!(tree.locate(&map).unwrap().drives, []);
}

/// The drives below an active LV are those on which this host must not register again.
#[test]
fn the_drives_below_an_lv_are_told_beside_whatever_else_is_below_it() {
    let tree = Tree::new();
    let (a, b) = (tree.drive("sda", 1), tree.drive("sdb", 2));
    let map = tree.multipath("dm-0", &[&a]);
    let part = tree.partition(&b, "sdb2");
    let array = tree.stacked("md127", "md", &[&part]);
    let lv = tree.stacked("dm-1", "dm", &[&tree.block("virtual/block/loop0"), &array, &map]);
    let mut below = identities_below(&lv).unwrap();
    below.sort_unstable();
    assert_eq!(below, ["naa.5000c50000000001", "naa.5000c50000000002"]);
    let on_nothing = tree.stacked("dm-2", "dm", &[]);
    assert_eq!(identities_below(&on_nothing), Some(Vec::new()));
    fs::remove_dir(on_nothing.join("slaves")).unwrap();
    assert_eq!(identities_below(&on_nothing), None);
    // A path disappears; later the map is loaded without it.
    tree.remove(&a);
    assert_eq!(identities_below(&lv), None);
    fs::remove_file(map.join("slaves/sda")).unwrap();
    assert_eq!(identities_below(&lv), None, "it may come back");
}

#[test]
fn a_multipath_map_without_paths_may_get_some() {
    let tree = Tree::new();
    let map = tree.multipath("dm-3", &[]);
    let found = tree.locate(&map).unwrap();
    assert_eq!(found.drives, []);
    assert!(found.missing[0].starts_with("dm-3"), "{found:?}");
}

#[test]
fn a_volume_as_pv_has_all_the_drives_below_it() {
    let tree = Tree::new();
    let (a, b, c) = (tree.drive("sda", 1), tree.drive("sdb", 2), tree.drive("sdc", 3));
    let part = tree.partition(&b, "sdb2");
    let crypt = tree.stacked("dm-0", "dm", &[&a]);
    let array = tree.stacked("md127", "md", &[&part, &c]);
    let striped = tree.stacked("dm-1", "dm", &[&array, &crypt]);
    let lv = tree.stacked("dm-2", "dm", &[&striped, &crypt]);
    assert_eq!(
        tree.found(&lv),
        "naa.5000c50000000001 by /dev/sda; naa.5000c50000000002 by /dev/sdb; \
         naa.5000c50000000003 by /dev/sdc"
    );
    let on_array = tree.partition(&array, "md127p1");
    assert_eq!(
        tree.found(&on_array),
        "naa.5000c50000000002 by /dev/sdb; naa.5000c50000000003 by /dev/sdc"
    );
}

#[test]
fn what_is_gone_from_a_stack_is_named_beside_what_is_there() {
    let tree = Tree::new();
    let (a, b) = (tree.drive("sda", 1), tree.drive("sdb", 2));
    let striped = tree.stacked("dm-0", "dm", &[&a, &b]);
    fs::remove_dir_all(&b).unwrap();
    let found = tree.locate(&striped).unwrap();
    assert_eq!(found.drives.len(), 1);
    assert_eq!(found.missing, ["sdb"]);
}

const SUBSYSTEM: [(&str, &str); 3] =
    [("subsysnqn", "nqn.2014-08.org.example:drive7"), ("serial", "S7"), ("model", "M")];

#[test]
fn an_nvme_drive_is_its_subsystem_whatever_its_namespaces_are_called() {
    for wwid in [
        "uuid.6c2f7a10-0000-4000-8000-000000000001",
        "eui.00112233445566778899aabbccddeeff",
        "eui.0011223344556677",
        "nvme.1b36-5337-4d-00000001",
    ] {
        let tree = Tree::new();
        let controller = tree.controller("nvme0", &SUBSYSTEM);
        let first = tree.namespace(&controller, "nvme0n1", wwid);
        let second = tree.namespace(&controller, "nvme0n2", "eui.0011223344556678");
        let part = tree.partition(&first, "nvme0n1p1");
        let expected = "nvme.nqn.2014-08.org.example:drive7.S7 by /dev/nvme0n1";
        assert_eq!(tree.found(&first), expected);
        assert_eq!(tree.found(&part), expected);
        assert_eq!(tree.found(&second), expected.replace("n1", "n2"));
        let both = tree.stacked("dm-0", "dm", &[&first, &second]);
        assert_eq!(tree.found(&both), format!("{expected}, /dev/nvme0n2"));
    }
}

#[test]
fn an_nvme_drive_without_a_name_has_a_number_or_its_namespaces_identifier() {
    let tree = Tree::new();
    let identity = |node: &str, attributes: &[(&str, &str)], wwid: &str| {
        let namespace =
            tree.namespace(&tree.controller(node, attributes), &format!("{node}n1"), wwid);
        tree.locate(&namespace).map(|found| found.drives[0].identity.clone())
    };
    let wwid = "eui.00112233445566778899aabbccddeeff";
    assert_eq!(identity("nvme0", &SUBSYSTEM[1..], wwid).unwrap(), "nvme.M.S7");
    assert_eq!(
        identity("nvme1", &SUBSYSTEM[..1], wwid).unwrap(),
        format!("nvme.{}", SUBSYSTEM[0].1)
    );
    // Many drives have the same model.
    assert_eq!(identity("nvme2", &SUBSYSTEM[2..], wwid).unwrap(), format!("nvme-namespace.{wwid}"));
    assert_eq!(
        identity("nvme3", &[("serial", "   ")], wwid).unwrap(),
        format!("nvme-namespace.{wwid}")
    );
    assert!(identity("nvme4", &[], "").unwrap_err().to_string().contains("without any identity"));
}

#[test]
fn two_controllers_of_one_drive_are_two_ways_to_it() {
    let tree = Tree::new();
    let [a, b] = ["nvme0", "nvme1"].map(|node| {
        tree.namespace(&tree.controller(node, &SUBSYSTEM), &format!("{node}n1"), "eui.1")
    });
    let map = tree.multipath("dm-0", &[&a, &b]);
    assert_eq!(
        tree.found(&map),
        "nvme.nqn.2014-08.org.example:drive7.S7 by /dev/nvme0n1, /dev/nvme1n1"
    );
}

#[test]
fn native_multipath_is_used_by_its_head() {
    let tree = Tree::new();
    let subsystem =
        tree.nvme_device("virtual/nvme-subsystem/nvme-subsys0", "class/nvme-subsystem", &SUBSYSTEM);
    let head = tree.namespace(&subsystem, "nvme0n1", "eui.1");
    for (node, path) in [("nvme0", "nvme0c0n1"), ("nvme1", "nvme0c1n1")] {
        let controller = tree.controller(node, &SUBSYSTEM);
        let hidden = tree.hidden(&format!("pci0000:00/{node}/nvme/{node}/{path}"));
        symlink(&controller, hidden.join("device")).unwrap();
    }
    let identity = "nvme.nqn.2014-08.org.example:drive7.S7";
    assert_eq!(tree.found(&head), format!("{identity} by /dev/nvme0n1"));
    let inventory = tree.topology().inventory().unwrap();
    assert_eq!(inventory.paths_of(identity), [PathAddress::Nvme("/dev/nvme0n1".into())]);
}

#[test]
fn the_global_locks_partitions_have_exactly_that_name() {
    let tree = Tree::new();
    assert_eq!(tree.topology().inventory().unwrap().global(), []);
    let scsi = tree.drive("sdb", 1);
    let nvme = tree.namespace(&tree.controller("nvme0", &SUBSYSTEM), "nvme0n1", "eui.1");
    for (disk, name, partname) in [
        (&scsi, "sdb1", "PARTNAME=propeller"),
        (&nvme, "nvme0n1p1", "PARTNAME=propeller"),
        (&scsi, "sdb2", "PARTNAME=propeller2"),
        (&scsi, "sdb3", "PARTNAME=Propeller"),
        (&scsi, "sdb4", "PARTN=4"),
    ] {
        let uevent = format!("MAJOR=8\nDEVNAME={name}\nPARTN=1\n{partname}\n");
        fs::write(tree.partition(disk, name).join("uevent"), uevent).unwrap();
    }
    fs::write(scsi.join("uevent"), "DEVNAME=sdb\nPARTNAME=propeller\n").unwrap();
    let inventory = tree.topology().inventory().unwrap();
    let global: Vec<String> = inventory
        .global()
        .iter()
        .map(|(node, drive)| format!("{} on {}", node.display(), drive.paths[0]))
        .collect();
    assert_eq!(global, ["/dev/nvme0n1p1 on /dev/nvme0n1", "/dev/sdb1 on /dev/sdb"]);
}

#[test]
fn a_drive_is_found_by_its_identity() {
    let tree = Tree::new();
    tree.drive("sda", 1);
    let disk = tree.drive("sdf", 2);
    tree.partition(&disk, "sdf1");
    tree.drive("sdg", 2);
    tree.stacked("dm-0", "dm", &[&disk]);
    let paths = ["/dev/sdf", "/dev/sdg"].map(|node| PathAddress::Scsi(node.into()));
    let inventory = tree.topology().inventory().unwrap();
    assert_eq!(inventory.paths_of("naa.5000c50000000002"), paths);
    assert_eq!(inventory.paths_of("naa.5000c50000000003"), []);
}

#[test]
fn a_disk_without_identity_is_refused() {
    let tree = Tree::new();
    let error = tree.refused(&tree.scsi("sda", &[]));
    assert!(error.contains("/dev/pv") && error.contains("identity"), "{error}");
}

#[test]
fn what_is_no_drive_is_named() {
    let tree = Tree::new();
    let looped = tree.stacked("loop0", "loop", &[]);
    let disk = tree.drive("sda", 1);
    let virtio = tree.block("pci0000:00/virtio0/block/vda");
    symlink(tree.root.path().join("devices/pci0000:00/virtio0"), virtio.join("device")).unwrap();
    tree.subsystem(&virtio.join("device"), "bus/virtio");
    let unknown = tree.block("platform/block/x0");
    fs::create_dir(unknown.join("device")).unwrap();
    for (device, said) in [
        (tree.stacked("dm-0", "dm", &[]), "a device-mapper device without a disk"),
        (tree.stacked("md0", "md", &[]), "an md array without a disk"),
        (looped.clone(), "/dev/pv is a loop device"),
        (tree.stacked("loop1", "queue", &[]), "a loop device"),
        (tree.stacked("zram0", "queue", &[]), "a virtual block device"),
        (tree.stacked("dm-1", "dm", &[&disk, &looped]), "/dev/pv is on loop0, a loop device"),
        (virtio, "the kernel's virtio subsystem"),
        (unknown, "no known kind"),
    ] {
        let error = tree.refused(&device);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_stack_without_end_is_refused() {
    let tree = Tree::new();
    let (a, b) = (tree.stacked("dm-0", "dm", &[]), tree.stacked("dm-1", "dm", &[]));
    symlink(&a, b.join("slaves/dm-0")).unwrap();
    symlink(&b, a.join("slaves/dm-1")).unwrap();
    assert!(tree.refused(&a).contains("without end"));
}

#[test]
fn what_is_gone_may_come_back() {
    let tree = Tree::new();
    let error = tree.topology().locate_device("/dev/pv", libc::makedev(8, 99)).unwrap_err();
    assert!(matches!(error, TopologyError::Missing { .. }), "{error}");
    for path in ["/dev/nonexistent-pv", "[unknown]"] {
        let error = Tree::locate_path(&tree.topology(), path).unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
        assert!(matches!(error, TopologyError::Missing { .. }));
    }
}

#[test]
fn what_was_found_is_remembered_until_the_next_kernel_event() {
    let tree = Tree::new();
    let topology = tree.topology();
    let count = |events: Option<u64>| {
        let file = tree.root.path().join("kernel/uevent_seqnum");
        match events {
            Some(events) => fs::write(file, format!("{events}\n")).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
    };
    fs::create_dir(tree.root.path().join("kernel")).unwrap();
    let remember = || {
        topology.locate(&[]);
        let mut remembered = topology.remembered.lock();
        let found = Found { drives: Vec::new(), missing: vec!["sdb".into()] };
        remembered.found.insert(7, found).is_some()
    };
    count(Some(7));
    assert_eq!([remember(), remember()], [false, true]);
    count(Some(8));
    assert_eq!([remember(), remember()], [false, true]);
    // Where events are not counted, no result is kept.
    count(None);
    assert_eq!([remember(), remember()], [false, false]);
}

#[test]
fn a_file_is_no_drive() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error =
        Tree::locate_path(&Tree::new().topology(), file.path().to_str().unwrap()).unwrap_err();
    assert!(error.to_string().contains("not a block device"), "{error}");
}

#[test]
fn an_emulated_drive_has_a_path_or_a_plain_name() {
    let sockets = [("/dev/loop3", "/tmp/d0"), ("disk1", "/tmp/d1"), ("again", "/tmp/d1")];
    let emulated = sockets.map(|(path, socket)| (path.to_owned(), PathBuf::from(socket)));
    let topology = Topology::new(emulated.into());
    let found = Tree::locate_path(&topology, "/dev/loop3").unwrap();
    assert_eq!(found.drives[0].paths, [PathAddress::Emulated("/tmp/d0".into())]);
    assert_eq!(Tree::locate_path(&topology, "disk1"), Tree::locate_path(&topology, "again"));
    assert_ne!(Tree::locate_path(&topology, "disk1"), Tree::locate_path(&topology, "/dev/loop3"));
}
