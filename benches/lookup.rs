//! The time to find the drives of a VG with 512 PVs, as every lock does. It should be less than 50
//! ms.
//!
//! The benchmark makes a sysfs tree with nodes (as root, because it makes block nodes; they are
//! never opened). `cargo bench -p lvmlockd-idm --bench lookup`

use idm_engine::Timing;
use lvmlockd_idm::drives::Drives;
use lvmlockd_idm::topology::Topology;
use lvmlockd_idm::transport::{Deadline, DrivePath, Limits, TransportError};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PVS: u32 = 512;
const ROUNDS: usize = 21;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A path that is never used.
struct NoPath;

impl DrivePath for NoPath {
    fn execute(
        &self,
        _: &idm_protocol::DriveCommand,
        _: &Deadline,
    ) -> std::result::Result<idm_protocol::Reply, TransportError> {
        Err(TransportError::NotSent("a benchmark's".into()))
    }
}

struct Host {
    dir: tempfile::TempDir,
    devices: u32,
}

impl Host {
    fn new() -> Result<Host> {
        let dir = tempfile::tempdir()?;
        for name in ["sys/kernel", "sys/dev/block", "sys/class/block", "sys/bus/scsi", "dev"] {
            fs::create_dir_all(dir.path().join(name))?;
        }
        Ok(Host { dir, devices: 0 })
    }

    fn sys(&self, path: &str) -> PathBuf {
        self.dir.path().join("sys").join(path)
    }

    /// A block device; its directory in sysfs, and its node.
    fn block(&mut self, directory: &str) -> Result<(PathBuf, PathBuf)> {
        let device = self.sys("devices").join(directory);
        fs::create_dir_all(&device)?;
        let name = device.file_name().unwrap_or_default().to_owned();
        let (major, minor) = (8 + self.devices / 256, self.devices % 256);
        self.devices += 1;
        fs::write(device.join("dev"), format!("{major}:{minor}\n"))?;
        symlink(&device, self.sys(&format!("dev/block/{major}:{minor}")))?;
        symlink(&device, self.sys("class/block").join(&name))?;
        let node = self.dir.path().join("dev").join(name);
        mknod(&node, SFlag::S_IFBLK, Mode::S_IRUSR, makedev(major.into(), minor.into()))?;
        Ok((device, node))
    }

    fn scsi(&mut self, node: &str, drive: u32) -> Result<(PathBuf, PathBuf)> {
        let lun = format!("pci0000:00/0000:00:05.0/{node}/host0/target0:0:0/0:0:0:0");
        let disk = self.block(&format!("{lun}/block/{node}"))?;
        let lun = self.sys("devices").join(lun);
        symlink(self.sys("bus/scsi"), lun.join("subsystem"))?;
        symlink(&lun, disk.0.join("device"))?;
        let mut page = vec![0, 0x83, 0, 12, 1, 3, 0, 8, 0x50, 0, 0xC5, 0];
        page.extend(drive.to_be_bytes());
        fs::write(lun.join("vpd_pg83"), page)?;
        Ok(disk)
    }

    fn map(&mut self, node: &str, uuid: &str, below: &[PathBuf]) -> Result<(PathBuf, PathBuf)> {
        let map = self.block(&format!("virtual/block/{node}"))?;
        for name in ["dm", "slaves"] {
            fs::create_dir(map.0.join(name))?;
        }
        fs::write(map.0.join("dm/uuid"), uuid)?;
        for slave in below {
            symlink(slave, map.0.join("slaves").join(slave.file_name().unwrap_or_default()))?;
        }
        Ok(map)
    }

    fn measure(&self, what: &str, nodes: &[PathBuf], drives: usize) -> Result<()> {
        let topology = Topology::with_sysfs(self.sys(""), BTreeMap::new());
        let begun = Instant::now();
        let inventory = topology.inventory()?;
        let scan = begun.elapsed();
        drop(inventory);
        let limits = Limits::new(&Timing::for_lease(Duration::from_secs(60)));
        let known = Drives::new(topology, Box::new(|_, _| Arc::new(NoPath)), limits);
        known.take_inventory();
        // Links as made by an administrator or udev.
        let links = self.dir.path().join("by-id");
        fs::create_dir(&links)?;
        let mut paths = Vec::new();
        for node in nodes {
            let link = links.join(node.file_name().unwrap_or_default());
            symlink(node, &link)?;
            paths.push(link.to_string_lossy().into_owned());
        }
        let measure = |events: &mut dyn Iterator<Item = usize>| -> Result<String> {
            let mut times = Vec::new();
            for count in events.take(ROUNDS) {
                fs::write(self.sys("kernel/uevent_seqnum"), count.to_string())?;
                let begun = Instant::now();
                let members = known.members(&paths);
                times.push(begun.elapsed());
                assert_eq!((members.members.len(), members.found), (drives, drives));
            }
            times.sort();
            Ok(format!("{:.2} ms (at best {:.2})", ms(times[ROUNDS / 2]), ms(times[0])))
        };
        let fresh = measure(&mut (1..))?;
        let again = measure(&mut std::iter::repeat(ROUNDS))?;
        println!(
            "{what}: {again}; after a kernel event {fresh}; all disks are listed in {:.2} ms",
            ms(scan)
        );
        Ok(())
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn main() -> Result<()> {
    let probe = tempfile::tempdir()?;
    if mknod(&probe.path().join("n"), SFlag::S_IFBLK, Mode::S_IRUSR, makedev(8, 0)).is_err() {
        eprintln!("lookup: block nodes cannot be made here; run this as root");
        std::process::exit(1);
    }
    let drives = PVS as usize;

    let mut host = Host::new()?;
    let mut nodes = Vec::new();
    for number in 0..PVS {
        nodes.push(host.scsi(&format!("sd{number}"), number)?.1);
    }
    host.measure("512 PVs on disks", &nodes, drives)?;

    let mut host = Host::new()?;
    let mut nodes = Vec::new();
    for number in 0..PVS {
        let (disk, _) = host.scsi(&format!("sd{number}"), number)?;
        let partition =
            Path::new(disk.strip_prefix(host.sys("devices"))?).join(format!("sd{number}p1"));
        let (directory, node) = host.block(&partition.to_string_lossy())?;
        fs::write(directory.join("partition"), "1\n")?;
        nodes.push(host.map(&format!("dm-{number}"), "CRYPT-x", &[directory])?.1);
        drop(node);
    }
    host.measure("512 PVs, each encrypted on a partition", &nodes, drives)?;

    let mut host = Host::new()?;
    let mut nodes = Vec::new();
    for number in 0..PVS {
        let mut paths = Vec::new();
        for path in 0..4 {
            paths.push(host.scsi(&format!("sd{number}x{path}"), number)?.0);
        }
        nodes.push(host.map(&format!("dm-{number}"), "mpath-3500", &paths)?.1);
    }
    host.measure("512 PVs on multipath maps with 4 paths", &nodes, drives)
}
