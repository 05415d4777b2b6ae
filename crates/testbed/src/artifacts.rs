//! Paths of the programs under test.
//!
//! For tests of an installed library three variables of the environment name other paths than those
//! in the source tree: `TESTBED_BUILD`, the directory with the files that `make testbed lvm2`
//! leaves in `build`; `TESTBED_LIBRARY`, the library; `TESTBED_SG`, the library of `crates/idm-sg`,
//! because an installed library reaches SCSI disks only. `debian/tests/installed` sets them.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Debian versions of lvm2 that are built. They have different struct layouts and different
/// prototypes of the lock manager's functions.
pub const RELEASES: [&str; 2] = ["2.03.16-2", "2.03.31-2"];

/// Way in which the library is linked into lvmlockd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `lvm2/lvmlockd-idm.c`, compiled in the lvm2 tree, gives the library the struct layout.
    Shim,
    /// The library finds the layout itself.
    Plain,
    /// As `Shim`, with a core that was patched to adopt locks. Only with the newest release.
    Adopt,
}

/// A build of lvm2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lvm2 {
    /// Debian version.
    pub release: &'static str,
    /// Way in which lvmlockd is linked.
    pub variant: Variant,
}

fn build_dir() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let in_tree = || project.unwrap_or(Path::new("/")).join("build");
    env::var_os("TESTBED_BUILD").map_or_else(in_tree, PathBuf::from)
}

/// The library that every lvmlockd of the testbed is linked to.
pub fn library() -> PathBuf {
    let in_tree = || build_dir().join("lib/liblvmlockd_idm.so.0");
    env::var_os("TESTBED_LIBRARY").map_or_else(in_tree, PathBuf::from)
}

/// The library that makes SCSI disks of emulated drives, if a test needs SCSI disks.
pub(crate) fn sg() -> Option<PathBuf> {
    env::var_os("TESTBED_SG").map(PathBuf::from)
}

/// Shortest lease on drives that are not emulated: `lease_ms` in `lvmlockd-idm.conf(5)`.
const SHORTEST: Duration = Duration::from_secs(20);

/// The lease that a test wants, or the shortest that the library takes.
pub fn lease(wanted: Duration) -> Duration {
    if sg().is_some() { wanted.max(SHORTEST) } else { wanted }
}

/// The program that serves emulated drives.
pub(crate) fn emulator() -> PathBuf {
    build_dir().join("bin/idm-emulator")
}

/// The program that shows the holders of locks.
pub(crate) fn idmctl() -> PathBuf {
    build_dir().join("bin/idmctl")
}

impl Lvm2 {
    /// Every build: each release in each variant.
    pub fn all() -> impl Iterator<Item = Lvm2> {
        RELEASES.into_iter().flat_map(|release| {
            [Variant::Shim, Variant::Plain].map(|variant| Lvm2 { release, variant })
        })
    }

    /// The newest release, with the layout table.
    pub fn newest() -> Lvm2 {
        Lvm2 { release: RELEASES[RELEASES.len() - 1], variant: Variant::Shim }
    }

    fn dir(&self) -> PathBuf {
        build_dir().join("lvm2").join(self.release)
    }

    /// The daemon.
    pub fn lvmlockd(&self) -> PathBuf {
        self.dir().join(match self.variant {
            Variant::Shim => "shim/lvmlockd",
            Variant::Plain => "plain/lvmlockd",
            Variant::Adopt => "adopt/lvmlockd",
        })
    }

    /// The daemon's control program.
    pub fn lvmlockctl(&self) -> PathBuf {
        self.dir().join("sbin/lvmlockctl")
    }

    /// The directory of lvm2's own units and scripts, in its source.
    pub fn scripts(&self) -> PathBuf {
        let (version, _) = self.release.split_once('-').unwrap_or((self.release, ""));
        self.dir().join(format!("lvm2-{version}")).join("scripts")
    }

    /// The lvm commands.
    pub fn lvm(&self) -> PathBuf {
        self.dir().join("sbin/lvm")
    }
}
