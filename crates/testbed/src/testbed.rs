//! Drives and disks that hosts share.

use crate::artifacts::{self, Lvm2};
use crate::drives::Drives;
use crate::host::Host;
use crate::loopdev::LoopDevice;
use crate::lvm_conf::lvm_conf;
use anyhow::{Context, Result, ensure};
use idm_emulator::sysfs;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const PV_BYTES: u64 = 128 << 20;

/// Three emulated IDM drives, each with a loop device for its data. Hosts must be dropped before
/// it.
///
/// Its files, for example the logs of the hosts, are kept if the environment variable
/// `TESTBED_KEEP` is set.
#[derive(Debug)]
pub struct Testbed {
    drives: Drives,
    pvs: Vec<LoopDevice>,
    lease: Duration,
    // Dropped last, because the others use files in it.
    dir: TempDir,
}

impl Testbed {
    /// Sets up the testbed; `lease` is the lease that hosts request from the drives.
    pub fn new(lease: Duration) -> Result<Testbed> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "hosts are made of namespaces and loop devices: run this as root"
        );
        let dir = tempfile::Builder::new()
            .prefix("lvmlockd-idm.")
            .disable_cleanup(std::env::var_os("TESTBED_KEEP").is_some())
            .tempdir()?;
        let drives = Drives::start(dir.path(), 3)?;
        let pvs = (0..drives.count())
            .map(|number| LoopDevice::new(&dir.path().join(format!("pv{number}")), PV_BYTES))
            .collect::<Result<_>>()?;
        Ok(Testbed { drives, pvs, lease, dir })
    }

    /// The drives.
    pub fn drives(&self) -> &Drives {
        &self.drives
    }

    /// The drives' data areas, in the order of the drives.
    pub fn pvs(&self) -> Vec<String> {
        self.pvs.iter().map(|pv| pv.path().to_owned()).collect()
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Boots a host that shares the drives and the disks, and starts lvmlockd on it. If the name
    /// was used before, it is that machine after a reboot.
    pub fn host(&self, name: &str, build: Lvm2) -> Result<Host> {
        let dir = self.dir.path().join(name);
        let etc = dir.join("etc");
        fs::create_dir_all(&etc).with_context(|| format!("create {}", etc.display()))?;
        // Left from an earlier boot: no LV is active on a machine that was just booted.
        let block = dir.join("block");
        if block.exists() {
            fs::remove_dir_all(&block)?;
        }
        fs::create_dir(&block)?;
        fs::write(etc.join("lvm.conf"), self.lvm_conf())?;
        fs::write(etc.join("lvmlockd-idm.conf"), self.idm_conf(build)?)?;
        let sys = artifacts::sg().map(|_| self.sysfs()).transpose()?;
        Host::boot(name, build, &dir, sys.as_deref())
    }

    /// The directories of sysfs by which the PVs are SCSI disks.
    fn sysfs(&self) -> Result<PathBuf> {
        let root = self.dir.path().join("sys");
        if !root.exists() {
            let socket = |number| self.drives.socket(number);
            let disks: Vec<(PathBuf, PathBuf)> =
                self.pvs.iter().map(|pv| pv.path().into()).zip((0..).map(socket)).collect();
            sysfs::write(&root, &disks)?;
        }
        Ok(root)
    }

    /// The lvm.conf: no device-mapper, and only our disks.
    fn lvm_conf(&self) -> String {
        let accept: Vec<String> = self.pvs.iter().map(|pv| format!("^{}$", pv.path())).collect();
        lvm_conf(&accept, "use_lvmpolld = 0")
    }

    /// The settings: the locks of each PV are on the emulated drive with the same number. If sysfs
    /// shows the drives, the settings do not name them.
    fn idm_conf(&self, build: Lvm2) -> Result<String> {
        let mut text = format!("lease_ms = {}\n", self.lease.as_millis());
        let kill = [build.lvmlockctl(), "--kill".into()];
        writeln!(text, "kill_command = {kill:?}\n")?;
        writeln!(text, "[global]\ndrives = {:?}\n", self.pvs())?;
        if artifacts::sg().is_some() {
            return Ok(text);
        }
        writeln!(text, "[emulator]")?;
        for (number, pv) in self.pvs.iter().enumerate() {
            writeln!(text, "{:?} = {:?}", pv.path(), self.drives.socket(number))?;
        }
        Ok(text)
    }
}
