//! Real lvmlockd with our library, on emulated drives. Needs root, and the results of `make lvm2`.

mod contention;
mod crash;
mod full_run;
mod kill;
mod lifecycle;
mod linking;
mod migrate;
mod observe;
mod stop;
mod storage;

use anyhow::Result;
use std::time::Duration;
use testbed::{Host, Lv, Lvm2, Testbed};

/// A lease so long that no lock lapses, even on a busy machine, unless a test wants that.
const LEASE: Duration = Duration::from_secs(30);

/// Two hosts that have VG `vg` started, with LV `data` on all three drives. Take `testbed` out
/// first: it has to be dropped last.
struct Pair {
    alice: Host,
    bob: Host,
    lv: Lv,
    // Dropped after the hosts.
    testbed: Testbed,
}

impl Pair {
    fn new(lvm2: Lvm2, lease: Duration) -> Result<Pair> {
        let testbed = Testbed::new(lease)?;
        let alice = testbed.host("alice", lvm2)?;
        let bob = testbed.host("bob", lvm2)?;
        let pvs = testbed.pvs();
        let mut create = vec!["vgcreate", "--shared", "--locktype", "idm", "vg"];
        create.extend(pvs.iter().map(String::as_str));
        alice.lvm(&create)?.success()?;
        alice.lvm(&["lvcreate", "-an", "-Zn", "-i3", "-L12m", "-n", "data", "vg"])?.success()?;
        bob.lvm(&["vgchange", "--lockstart", "vg"])?.success()?;
        let lv = alice.find_lv("vg", "data", &pvs)?;
        Ok(Pair { alice, bob, lv, testbed })
    }
}

/// The command that makes a small LV in `vg` without activating it.
fn new_lv(name: &str) -> [&str; 7] {
    ["lvcreate", "-an", "-Zn", "-L4m", "-n", name, "vg"]
}

/// Makes a test for each build from a function that takes a build of lvm2.
macro_rules! for_every_build {
    ($($function:ident),+) => {$(
        mod $function {
            use testbed::{Lvm2, RELEASES, Variant};

            #[test]
            fn older_with_layout_table() -> anyhow::Result<()> {
                super::$function(Lvm2 { release: RELEASES[0], variant: Variant::Shim })
            }

            #[test]
            fn older_without() -> anyhow::Result<()> {
                super::$function(Lvm2 { release: RELEASES[0], variant: Variant::Plain })
            }

            #[test]
            fn newer_with_layout_table() -> anyhow::Result<()> {
                super::$function(Lvm2 { release: RELEASES[1], variant: Variant::Shim })
            }

            #[test]
            fn newer_without() -> anyhow::Result<()> {
                super::$function(Lvm2 { release: RELEASES[1], variant: Variant::Plain })
            }
        }
    )+};
}
pub(crate) use for_every_build;

/// Makes a test for each release from a function that takes a build of lvm2.
macro_rules! for_every_release {
    ($($function:ident),+) => {$(
        mod $function {
            use testbed::{Lvm2, RELEASES, Variant};

            #[test]
            fn older() -> anyhow::Result<()> {
                super::$function(Lvm2 { release: RELEASES[0], variant: Variant::Shim })
            }

            #[test]
            fn newer() -> anyhow::Result<()> {
                super::$function(Lvm2 { release: RELEASES[1], variant: Variant::Shim })
            }
        }
    )+};
}
pub(crate) use for_every_release;
