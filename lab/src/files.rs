//! Files and programs that the lab runs.

use crate::qemu::Boot;
use crate::template;
use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use testbed::{Lvm2, Variant, lvm_conf};

/// Release of lvm2 in the machines: that of the Debian release whose kernel they run.
const RELEASE: &str = testbed::RELEASES[0];

/// Path, in the machines, of the command that stops the use of a VG whose locks are about to be
/// lost.
pub const KILL_SCRIPT: &str = "/etc/lvm/lvmlockd-idm-kill-vg";

/// Programs and files, all below the project's directory.
#[derive(Clone, Debug)]
pub struct Files {
    /// Directory of the project.
    pub project: PathBuf,
    /// Files that machines boot from.
    pub boot: Boot,
    /// Snapshot that machines are resumed from.
    pub snapshot: PathBuf,
    /// The directory of lvm and lvmlockctl.
    pub sbin: PathBuf,
    /// The directory of lvm2's own units, as its source has them.
    pub units: PathBuf,
    /// The daemon.
    pub lvmlockd: PathBuf,
    /// A newer lvmlockd with our patches, which adopts locks.
    pub adopting_lvmlockd: PathBuf,
    /// The program that shows the holders of locks, as it is shipped.
    pub idmctl: PathBuf,
    /// The program that serves drives.
    pub server: PathBuf,
    /// Program that acts as an application in the machines.
    pub writer: PathBuf,
    /// The root file system of an empty host, as `readme/prepare.sh` makes it.
    pub empty_host: PathBuf,
    /// lvm2's own tests, ready to run.
    pub lvm2_tests: PathBuf,
    /// The kernel module that gives virtio_scsi time-outs.
    pub vsto: PathBuf,
    /// The directory of kernel modules.
    modules: PathBuf,
}

impl Files {
    /// Finds everything, and makes the snapshot where there is none.
    pub fn find() -> Result<Files> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let project = here.parent().context("the project's directory")?.to_owned();
        let lab = project.join("build/lab");
        let lvm2 = Lvm2 { release: RELEASE, variant: Variant::Shim };
        let patched = Lvm2 { variant: Variant::Adopt, ..Lvm2::newest() };
        let boot =
            Boot { kernel: lab.join("kernel/vmlinux"), initramfs: lab.join("initramfs.cpio") };
        let sbin = lvm2.lvm();
        let files = Files {
            snapshot: lab.join("template/snapshot"),
            sbin: sbin.parent().unwrap_or(&sbin).to_owned(),
            units: lvm2.scripts(),
            lvmlockd: lvm2.lvmlockd(),
            adopting_lvmlockd: patched.lvmlockd(),
            idmctl: lab.join("bin/idmctl"),
            server: lab.join("bin/idm-target"),
            writer: lab.join("bin/lab-writer"),
            empty_host: lab.join("readme/root"),
            lvm2_tests: lab.join("lvm2-testsuite").join(RELEASE),
            vsto: lab.join("vsto/vsto.ko"),
            modules: lab.join("kernel/root/lib/modules"),
            boot,
            project,
        };
        for file in [&files.boot.kernel, &files.boot.initramfs, &files.server, &files.lvmlockd] {
            ensure!(file.exists(), "{} is missing; run `make lab`", file.display());
        }
        template::ensure(&files.boot, &lab.join("template"))?;
        Ok(files)
    }

    /// The same files with another release of lvm2 in the machines.
    pub fn with_lvm2(mut self, release: &str) -> Result<Files> {
        let known = testbed::RELEASES.into_iter().find(|known| *known == release);
        let release = known.with_context(|| format!("lvm2 {release} is none of the releases"))?;
        let lvm2 = Lvm2 { release, variant: Variant::Shim };
        self.sbin = lvm2.lvm().parent().map_or(self.sbin, Path::to_owned);
        self.lvmlockd = lvm2.lvmlockd();
        self.units = lvm2.scripts();
        self.lvm2_tests = self.project.join("build/lab/lvm2-testsuite").join(release);
        Ok(self)
    }

    /// The empty directory for a scenario's files.
    pub fn scenario_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.project.join("build/lab/run").join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir)
    }

    /// Directories of this machine that other machines see besides its root file system. They run
    /// the library as it is shipped, at the path where lvmlockd looks for the library of the tests.
    pub fn binds(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        let library = self.project.join("build/lab/lib");
        vec![
            (text(&self.project), text(&self.project)),
            (text(&library), text(&self.project.join("build/lib"))),
            self.modules(),
        ]
    }

    /// The library as it is shipped.
    pub fn library(&self) -> PathBuf {
        self.project.join("build/lab/lib/liblvmlockd_idm.so.0")
    }

    /// Another version of the library: LAB_OTHER_LIBRARY names its file. Without that it is the
    /// other build of this one, with the features that tests need.
    pub fn other_library(&self) -> PathBuf {
        let other = || self.project.join("build/lab/other/liblvmlockd_idm.so.0");
        env::var_os("LAB_OTHER_LIBRARY").map_or_else(other, PathBuf::from)
    }

    /// The directory of kernel modules, and the path at which machines see it.
    pub fn modules(&self) -> (String, String) {
        (self.modules.display().to_string(), "/lib/modules".to_owned())
    }

    /// The lvm.conf of a host whose block devices match one of the patterns.
    pub fn lvm_conf(&self, patterns: &[impl AsRef<str>]) -> String {
        let accept: Vec<String> =
            patterns.iter().map(|pattern| format!("^{}$", pattern.as_ref())).collect();
        let global = format!(
            "use_lvmpolld = 1\n\
             thin_check_executable = \"/usr/sbin/thin_check\"\n\
             lvmlockctl_kill_command = \"{KILL_SCRIPT}\""
        );
        lvm_conf(&accept, &global)
    }

    /// The settings that differ from the defaults: the path of lvmlockctl.
    pub fn idm_conf(&self) -> String {
        format!("kill_command = [{:?}, \"--kill\"]\n", self.sbin.join("lvmlockctl"))
    }

    /// The script at [`KILL_SCRIPT`]: the one recommended to administrators, and a note in
    /// `/run/killed` that it was run.
    pub fn kill_script(&self) -> String {
        let script = self.project.join("dist/lvmlockd-idm-kill-vg");
        format!("#!/bin/sh\n{} \"$1\" && echo \"$1\" >>/run/killed\n", script.display())
    }
}
