//! PVs on stacked devices of the kernel: the locks are on all disks below.

use crate::cluster::Cluster;
use crate::interfaces::{DRIVES, partition};
use crate::machine::{ALL_DISKS, Machine};
use crate::scenarios::lock_of;
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// A device that is made on both hosts, because both must see the same data.
struct Stack {
    name: &'static str,
    /// The drives that it is made of.
    drives: &'static [&'static str],
    modules: &'static str,
    make: fn(&Machine, first: bool) -> Result<()>,
    /// The PV.
    device: &'static str,
    remove: &'static str,
}

const STACKS: &[Stack] = &[
    Stack {
        name: "two partitions, one after the other",
        drives: &["d0", "d1"],
        modules: "",
        make: linear,
        device: "/dev/mapper/below",
        remove: "dmsetup remove below",
    },
    Stack {
        name: "stripes over three partitions",
        drives: &["d0", "d1", "d2"],
        modules: "",
        make: striped,
        device: "/dev/mapper/below",
        remove: "dmsetup remove below",
    },
    Stack {
        name: "an encrypted disk",
        drives: &["d3"],
        modules: "dm_crypt xts ecb aes_generic",
        make: encrypted,
        device: "/dev/mapper/below",
        remove: "dmsetup remove below",
    },
    Stack {
        name: "stripes over an encrypted disk and a plain one",
        drives: &["d3", "d4"],
        modules: "dm_crypt xts ecb aes_generic",
        make: striped_over_encrypted,
        device: "/dev/mapper/below",
        remove: "dmsetup remove below && dmsetup remove crypt",
    },
    Stack {
        name: "an md mirror",
        drives: &["d3", "d4"],
        modules: "md_mod raid1",
        make: mirror,
        device: "/dev/md0",
        remove: "mdadm --stop /dev/md0",
    },
    Stack {
        name: "a logical volume of another VG",
        drives: &["d0", "d1", "d2"],
        modules: "",
        make: logical_volume,
        device: "/dev/base/pv",
        remove: "lvm vgchange -an base",
    },
];

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    for stack in STACKS {
        cluster.transcript.step("", stack.name);
        exercise(cluster, stack).with_context(|| stack.name)?;
    }
    Ok(())
}

fn exercise(cluster: &Cluster, stack: &Stack) -> Result<()> {
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    for host in [a, b] {
        if !stack.modules.is_empty() {
            host.ok(&format!("modprobe -a {}", stack.modules))?;
        }
        (stack.make)(host, host.name() == a.name())?;
        host.accept(&[stack.device])?;
    }
    a.ok(&format!("lvm vgcreate --shared --lock-type idm vg {}", stack.device))?;
    b.ok("lvm vgchange --lock-start vg")?;
    a.ok("lvm lvcreate -y -aey -L 32M -n lv vg")?;
    let lock = lock_of(a, "vg/lv")?;
    wait_until(Duration::from_secs(10), "the lock on all drives below", || {
        let mut holders = Vec::new();
        for drive in DRIVES {
            let records = cluster.drives.records(drive, &lock)?;
            if records.iter().any(|record| record.lease_left.is_some()) {
                holders.push(drive);
            }
        }
        Ok((holders == stack.drives).then_some(()))
    })?;
    b.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")?;
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    a.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")?;
    b.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm vgchange --lock-stop vg")?;
    a.ok("lvm vgremove -y vg")?;
    for host in [a, b] {
        host.accept(&ALL_DISKS)?;
        host.ok(stack.remove)?;
    }
    Ok(())
}

/// Makes a device-mapper device.
fn map(host: &Machine, name: &str, table: &str) -> Result<()> {
    host.ok(&format!(
        "printf '{table}' | dmsetup create --noudevsync --noudevrules {name} && \
         dmsetup mknodes {name}"
    ))
    .map(drop)
}

/// The data partition of a drive.
fn data(host: &Machine, drive: &str) -> Result<String> {
    Ok(partition(&host.disk(drive)?, 2))
}

fn linear(host: &Machine, _: bool) -> Result<()> {
    let (a, b) = (data(host, "d0")?, data(host, "d1")?);
    map(host, "below", &format!("0 65536 linear {a} 0\\n65536 65536 linear {b} 2048\\n"))
}

fn striped(host: &Machine, _: bool) -> Result<()> {
    let [a, b, c] = ["d0", "d1", "d2"].map(|drive| data(host, drive));
    map(host, "below", &format!("0 196608 striped 3 128 {} 0 {} 0 {} 0\\n", a?, b?, c?))
}

/// The key is not a secret.
const CRYPT: &str = "crypt aes-xts-plain64 \
    00112233445566778899aabbccddeeff00112233445566778899aabbccddeef0 0";

fn encrypted(host: &Machine, _: bool) -> Result<()> {
    map(host, "below", &format!("0 131072 {CRYPT} {} 0\\n", host.disk("d3")?))
}

fn striped_over_encrypted(host: &Machine, _: bool) -> Result<()> {
    map(host, "crypt", &format!("0 131072 {CRYPT} {} 0\\n", host.disk("d3")?))?;
    let plain = host.disk("d4")?;
    map(host, "below", &format!("0 131072 striped 2 128 /dev/mapper/crypt 0 {plain} 0\\n"))
}

/// Makes an array that is not meant for several hosts; this scenario does not write on the second
/// one.
fn mirror(host: &Machine, first: bool) -> Result<()> {
    let (one, other) = (host.disk("d3")?, host.disk("d4")?);
    host.ok(&if first {
        format!(
            "mdadm --zero-superblock --force {one} {other}; \
             mdadm --create /dev/md0 --run --assume-clean --level=1 --raid-devices=2 \
             --metadata=1.2 --bitmap=none --size=65536 {one} {other}"
        )
    } else {
        format!("mdadm --assemble --readonly /dev/md0 {one} {other}")
    })
    .map(drop)
}

fn logical_volume(host: &Machine, first: bool) -> Result<()> {
    if first {
        let partitions = host.data_partitions()?;
        host.ok(&format!("lvm vgcreate base {partitions}"))?;
        host.ok("lvm lvcreate -y -an -Zn -i 3 -L 96M -n pv base")?;
    }
    host.ok("lvm lvchange -ay base/pv")?;
    // Data that the other stacks left there.
    if first {
        host.ok("wipefs --all --force /dev/base/pv")?;
    }
    ensure!(host.attempt("test -b /dev/base/pv")?.code == 0, "the LV has no node");
    Ok(())
}
