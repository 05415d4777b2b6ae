//! LVs other than plain ones, and operations on whole VGs, under lock type idm with two hosts.

use crate::cluster::Cluster;
use crate::interfaces::partition;
use crate::machine::Machine;
use crate::scenarios::make_empty_vg;
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// Prints a checksum of the first MiB of an LV.
fn sum(host: &Machine, lv: &str) -> Result<String> {
    host.ok(&format!("dd if=/dev/{lv} bs=1M count=1 iflag=direct 2>/dev/null | sha256sum"))
}

/// A kind of LV.
struct Kind {
    name: &'static str,
    modules: &'static str,
    /// Makes `vg/lv` active on the first host.
    make: &'static [&'static str],
    /// Another LV that the lock of `vg/lv` also stands for.
    beside: Option<&'static str>,
    /// Changes it, while it is active on the first host.
    change: &'static [&'static str],
    /// Whether lvm refuses to activate the result on several hosts.
    never_shared: bool,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "thin",
        modules: "dm-thin-pool",
        make: &[
            "lvm lvcreate -y -L 64M --thinpool pool vg",
            "lvm lvcreate -y -V 32M --thin -n lv vg/pool",
            "lvm lvcreate -y -V 32M --thin -n beside vg/pool",
        ],
        beside: Some("vg/beside"),
        change: &[
            "lvm lvcreate -y -s -n copy vg/lv",
            "lvm lvextend -L 96M vg/pool",
            "lvm lvremove -y vg/copy",
        ],
        never_shared: true,
    },
    Kind {
        name: "raid1",
        modules: "dm-raid raid1",
        make: &["lvm lvcreate -y --type raid1 -m 1 -L 32M -n lv vg"],
        beside: None,
        change: &["lvm lvconvert -y -m 2 vg/lv", "lvm lvextend -L 48M vg/lv"],
        never_shared: true,
    },
    Kind {
        name: "raid5",
        modules: "dm-raid raid456",
        make: &["lvm lvcreate -y --type raid5 -i 2 -L 32M -n lv vg"],
        beside: None,
        change: &["lvm lvextend -L 48M vg/lv"],
        never_shared: true,
    },
    Kind {
        name: "integrity",
        modules: "dm-raid raid1 dm-integrity crc32c",
        make: &["lvm lvcreate -y --type raid1 -m 1 --raidintegrity y -L 32M -n lv vg"],
        beside: None,
        change: &[
            "lvm lvchange --syncaction check vg/lv",
            "lvm lvconvert -y --raidintegrity n vg/lv",
        ],
        never_shared: true,
    },
    Kind {
        name: "cache",
        modules: "dm-cache dm-cache-smq",
        make: &[
            "lvm lvcreate -y -aey -L 64M -n lv vg",
            "lvm lvcreate -y -aey -L 16M -n fast vg",
            "lvm lvconvert -y --type cache --cachevol vg/fast vg/lv",
        ],
        beside: None,
        change: &[
            "lvm lvchange -y --cachemode writeback vg/lv",
            "lvm lvconvert -y --splitcache vg/lv",
        ],
        never_shared: false,
    },
    Kind {
        name: "writecache",
        modules: "dm-writecache",
        make: &[
            "lvm lvcreate -y -aey -L 64M -n lv vg",
            "lvm lvcreate -y -an -L 16M -n fast vg",
            "lvm lvconvert -y --type writecache --cachevol vg/fast vg/lv",
        ],
        beside: None,
        change: &["lvm lvconvert -y --splitcache vg/lv"],
        never_shared: false,
    },
    Kind {
        name: "snapshot and its merge",
        modules: "dm-snapshot",
        make: &["lvm lvcreate -y -aey -L 32M -n lv vg"],
        beside: None,
        change: &[
            "lvm lvcreate -y -s -L 16M -n copy vg/lv",
            "dd if=/dev/zero of=/dev/vg/lv bs=1M count=1 oflag=direct 2>/dev/null",
            "lvm lvconvert -y --merge vg/copy",
        ],
        never_shared: false,
    },
    Kind {
        name: "mirror",
        modules: "dm-mirror",
        make: &["lvm lvcreate -y --type mirror -m 1 --mirrorlog core -L 32M -n lv vg"],
        beside: None,
        change: &["lvm lvconvert -y -m 0 vg/lv"],
        never_shared: false,
    },
];

/// Each kind is exclusive to one host, keeps its lock while it is changed, and moves to the other
/// host with its data.
pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    make_empty_vg(cluster)?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    for kind in KINDS {
        cluster.transcript.step("", kind.name);
        exercise(a, b, kind).with_context(|| kind.name)?;
    }
    let vdo = b.run("modprobe dm-vdo || modprobe kvdo")?;
    ensure!(vdo.code != 0, "the kernel has VDO now: add it to the kinds");
    Ok(())
}

fn exercise(a: &Machine, b: &Machine, kind: &Kind) -> Result<()> {
    for host in [a, b] {
        host.ok(&format!("modprobe -a {}", kind.modules))?;
    }
    for command in kind.make {
        a.ok(command)?;
    }
    a.ok("dd if=/dev/urandom of=/dev/vg/lv bs=1M count=1 oflag=direct 2>/dev/null")?;
    let written = sum(a, "vg/lv")?;
    let refused = || -> Result<()> {
        for lv in ["vg/lv"].into_iter().chain(kind.beside) {
            b.refused(&format!("lvm lvchange -aey {lv}"), 5, "LV locked by other host")?;
        }
        ensure!(!b.quiet("dmsetup ls")?.contains("vg-lv"), "b has the LV active");
        Ok(())
    };
    refused()?;
    for command in kind.change {
        a.ok(command)?;
        refused()?;
    }
    // A merge goes on in the background. It restores the data from before the snapshot.
    wait_until(Duration::from_secs(60), "the change to be over", || {
        Ok((!a.quiet("lvm lvs -a --noheadings -o name vg")?.contains("copy")).then_some(()))
    })?;
    refused()?;
    a.ok("lvm vgchange -an vg")?;
    if kind.never_shared {
        b.refused("lvm lvchange -asy vg/lv", 5, "Shared activation not compatible")?;
    }
    b.ok("lvm lvchange -aey vg/lv")?;
    ensure!(sum(b, "vg/lv")? == written, "b reads other data than a wrote");
    for lv in ["vg/lv"].into_iter().chain(kind.beside) {
        a.refused(&format!("lvm lvchange -aey {lv}"), 5, "LV locked by other host")?;
    }
    b.ok("lvm vgchange -an vg")?;
    b.ok("lvm lvremove -y vg").map(drop)
}

/// Message with which lvm refuses to change an LV that is active as shared.
const INCOMPATIBLE: &str = "LV is already locked with incompatible mode: vg/lv";

/// An LV that is active on both hosts is extended.
pub fn extended_while_shared(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    make_empty_vg(cluster)?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.ok("lvm lvcreate -y -an -Zn -Wn -L 32M -n lv vg")?;
    for host in [a, b] {
        host.ok("lvm lvchange -asy vg/lv")?;
    }
    a.refused("lvm lvextend -L 48M vg/lv", 5, INCOMPATIBLE)?;
    ensure!(sectors(a)? == 65536 && sectors(b)? == 65536, "its size has changed");
    a.ok("lvm lvextend --lockopt skiplv -L 48M vg/lv")?;
    ensure!(sectors(a)? == 98304, "a does not use the new size");
    ensure!(sectors(b)? == 65536, "b uses the new size already");
    b.ok("lvm lvchange --refresh vg/lv")?;
    ensure!(sectors(b)? == 98304, "b does not use the new size");
    // Both still share it.
    for host in [a, b] {
        host.refused("lvm lvchange -aey vg/lv", 5, "")?;
        ensure!(host.ok("lvmlockctl --info")?.contains("LK LV sh"), "{} lost it", host.name());
    }
    b.ok("lvm lvchange -an vg/lv")?;
    // lvm does not make a shared lock exclusive by itself, even where no other host shares it.
    a.refused("lvm lvextend -L 64M vg/lv", 5, INCOMPATIBLE)?;
    a.ok("lvm lvchange -aey vg/lv && lvm lvextend -L 64M vg/lv")?;
    ensure!(sectors(a)? == 131_072, "a does not use the new size");
    Ok(())
}

/// The size of `vg/lv` in the kernel.
fn sectors(host: &Machine) -> Result<u64> {
    let text = host.quiet("blockdev --getsz /dev/vg/lv")?;
    text.trim().parse().with_context(|| text.clone())
}

/// VGs are exported and imported, split and merged.
pub fn whole_vgs(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    make_empty_vg(cluster)?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let first = partition(&a.disk("d0")?, 2);
    a.ok(&format!("lvm lvcreate -y -aey -L 32M -n lv vg {first}"))?;
    a.ok("dd if=/dev/urandom of=/dev/vg/lv bs=1M count=1 oflag=direct 2>/dev/null")?;
    let written = sum(a, "vg/lv")?;

    // An LV that is active somewhere prevents the export everywhere.
    for host in [a, b] {
        let ended = host.run("lvm vgexport vg")?;
        ensure!(ended.code == 5, "{} exported a VG in use: {}", host.name(), ended.stdout);
    }
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm vgexport vg")?;
    for host in [a, b] {
        let ended = host.run("lvm lvchange -aey vg/lv")?;
        ensure!(ended.code == 5, "{} activated an exported LV", host.name());
    }
    a.ok("lvm vgimport vg")?;
    for host in [a, b] {
        host.ok("lvm vgchange --lock-start vg")?;
    }
    b.ok("lvm lvchange -aey vg/lv")?;
    ensure!(sum(b, "vg/lv")? == written, "the LV has other data than before");
    a.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")?;
    b.ok("lvm lvchange -an vg/lv")?;

    // lvm2 has no way to split a shared VG. It finds out before it has changed anything.
    a.refused(&format!("lvm vgsplit vg other {first}"), 5, "has lock_args idm")?;
    let empty = partition(&a.disk("d2")?, 2);
    a.ok(&format!("lvm vgsplit vg other {empty}"))?;
    // The new VG is not shared, so nothing protects it until it is.
    let listed = a.ok("lvm vgs --noheadings -o lock_type other")?;
    ensure!(listed.trim().is_empty(), "the new VG has the lock type {listed:?}");
    a.ok("lvm vgchange -y --lock-type idm other")?;
    for host in [a, b] {
        host.ok("lvm vgchange --lock-start other")?;
    }
    a.ok("lvm lvcreate -y -aey -L 4M -n lv other")?;
    b.refused("lvm lvchange -aey other/lv", 5, "LV locked by other host: other/lv")?;
    a.ok("lvm lvchange -an other/lv")?;
    a.refused("lvm vgmerge vg other", 5, "vgmerge not allowed for lock_type idm")
}
