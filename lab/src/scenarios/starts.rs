//! Unusual lock-starts: several at once, with a devices file that leaves PVs out, and with drives
//! that appear later.

use crate::cluster::Cluster;
use crate::interfaces::partition;
use crate::machine::{Daemon, Machine};
use crate::scenarios::{BARRED, TAKEN, lock_of_vg, shared_vg, until_granted, until_refused};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// Number of lock-starts at once.
const STARTS: usize = 6;
/// The drives that host b sees later than the first one.
const LATE: [&str; 2] = ["d1", "d2"];

/// Several lock-starts at once, on one host and on two.
pub fn at_once(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    b.ok("lvm vgchange --lock-stop vg")?;
    start_at_once(&[b])?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    a.ok("lvm lvchange -an vg/lv")?;
    for host in [a, b] {
        host.ok("lvm vgchange --lock-stop vg")?;
    }
    start_at_once(&[a, b])?;
    // No lock was left behind by a start that came second, and none is missing.
    b.ok("lvm lvcreate -y -an -L 4M -n other vg")?;
    a.ok("lvm lvchange -aey vg/lv")?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    a.ok("lvm lvchange -an vg/lv")?;
    for host in [a, b] {
        host.ok("lvm vgchange --lock-stop vg")?;
    }
    stopped(cluster, a)
}

/// Fails unless all starts succeed, and each host has one lockspace of the VG afterwards.
fn start_at_once(hosts: &[&Machine]) -> Result<()> {
    let command = "lvm vgchange --lock-start vg";
    let mut jobs = Vec::new();
    for _ in 0..STARTS {
        for &host in hosts {
            jobs.push((host, host.start(command)?));
        }
    }
    for (host, job) in jobs {
        let ended = host.wait(job, Duration::from_secs(100))?;
        ensure!(ended.code == 0, "{}: {command}: {}{}", host.name(), ended.stdout, ended.stderr);
    }
    for host in hosts {
        let info = host.ok("lvmlockctl --info")?;
        let count = info.lines().filter(|line| line.starts_with("VG vg ")).count();
        ensure!(count == 1, "{} has {count} lockspaces of the VG:\n{info}", host.name());
    }
    Ok(())
}

/// Fails unless the drives are free of the VG's records of living hosts.
fn stopped(cluster: &Cluster, host: &Machine) -> Result<()> {
    host.ok("lvm vgchange --lock-start vg")?;
    let lock = lock_of_vg(host, "vg")?;
    host.ok("lvm vgchange --lock-stop vg")?;
    wait_until(Duration::from_secs(10), "the VG's records to be given back", || {
        let mut held = false;
        for drive in crate::drives::PARTITIONED {
            let records = cluster.drives.records(drive, &lock)?;
            held |= records.iter().any(|record| record.is_held());
        }
        Ok((!held).then_some(()))
    })
}

/// A devices file that shows one of three PVs at lock-start.
pub fn devices_file(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    b.ok("lvm vgchange --lock-stop vg")?;
    b.ok("sed -i s/use_devicesfile.*/use_devicesfile=1/ /etc/lvm/lvm.conf")?;
    let first = partition(&b.disk("d0")?, 2);
    b.ok(&format!("lvm lvmdevices -y --adddev {first}"))?;
    let devices = b.ok("lvm pvs --noheadings -o name")?;
    ensure!(devices.trim() == first, "b sees {devices}");
    b.ok("lvm vgchange --lock-start vg")?;
    // b counts one drive. On this drive it meets a, which counts three.
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    b.refused("lvm lvchange -asy vg/lv", 5, TAKEN)?;
    never_both_in_the_vg(a, b)?;
    a.ok("lvm lvchange -an vg/lv")?;

    let mut others = String::new();
    for drive in LATE {
        let node = partition(&b.disk(drive)?, 2);
        b.ok(&format!("lvm lvmdevices -y --adddev {node}"))?;
        others = format!("{others} {node}");
    }
    // A repeated lock-start gives lvmlockd the PVs that are seen now.
    b.ok("lvm vgchange --lock-start vg")?;
    // b has changed the VG without these PVs, so lvm marks them as missing, for all hosts.
    a.refused("lvm lvchange -aey vg/lv", 5, "Refusing activation of partial LV")?;
    // lvm2 keeps the lock of an LV that it then does not activate.
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok(&format!("lvm vgextend --restoremissing vg{others}"))?;
    b.ok("lvm lvchange -aey vg/lv")?;
    a.refused("lvm lvchange -aey vg/lv", 5, TAKEN)
}

/// Makes both hosts change the VG many times at once: no change may be lost.
fn never_both_in_the_vg(a: &Machine, b: &Machine) -> Result<()> {
    const CHANGES: usize = 6;
    let tag = |sign: &str| {
        format!(
            "n=0; for i in $(seq {CHANGES}); do \
             if lvm vgchange --addtag {sign}$i vg >/dev/null 2>&1; then n=$((n+1)); fi; done; \
             echo $n"
        )
    };
    let (job_a, job_b) = (a.start(&tag("a"))?, b.start(&tag("b"))?);
    let mut changes = 0;
    for (host, job) in [(a, job_a), (b, job_b)] {
        let ended = host.wait(job, Duration::from_secs(300))?;
        let count: usize = ended.stdout.trim().parse().context("a count")?;
        host.step(&format!("{count} of {CHANGES} changes of the VG were granted"));
        changes += count;
    }
    let tags = a.ok("lvm vgs --noheadings -o tags vg")?;
    let kept = tags.trim().split(',').filter(|tag| !tag.is_empty()).count();
    ensure!(kept == changes, "{changes} changes were granted, {kept} are there: {tags}");
    Ok(())
}

/// One of three drives is there at boot, and the others come later.
pub fn late_drives(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    b.ok("lvm vgchange --lock-stop vg")?;
    for drive in LATE {
        b.detach(drive)?;
    }
    // lvm starts what it sees; the lock manager knows only of this PV.
    let started = b.run("lvm vgchange --lock-start vg")?;
    b.step(&format!("says {:?}", started.stderr.trim()));
    for mode in ["-aey", "-asy"] {
        let ended = b.run(&format!("lvm lvchange {mode} vg/lv"))?;
        ensure!(ended.code == 5, "b got an LV that a has: {}", ended.stdout);
    }
    the_others_come(a, b)
}

/// b gets a's LV only after a has given it up; then a does not get it any more.
fn the_others_come(a: &Machine, b: &Machine) -> Result<()> {
    for drive in LATE {
        b.attach(drive)?;
    }
    wait_until(Duration::from_secs(30), "b to see all drives", || {
        Ok((b.disks()?.len() >= 5).then_some(()))
    })?;
    b.ok("lvm vgchange --lock-start vg")?;
    until_refused(b, "lvm lvchange -aey vg/lv", TAKEN)?;
    a.ok("lvm lvchange -an vg/lv")?;
    until_granted(b, "lvm lvchange -aey vg/lv", BARRED)?;
    a.refused("lvm lvchange -aey vg/lv", 5, TAKEN)
}

/// The same when lvmlockd itself starts while one drive of the VG and of the global lock is there.
pub fn late_drives_at_boot(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a"])?;
    cluster.boot("b")?;
    {
        let (a, b) = (cluster.host("a")?, cluster.host("b")?);
        let partitions = a.data_partitions()?;
        a.ok(&format!("lvm vgcreate --shared --lock-type idm vg {partitions}"))?;
        a.ok("lvm lvcreate -y -aey -i 3 -L 48M -n lv vg")?;
        for drive in LATE {
            b.detach(drive)?;
        }
    }
    cluster.host_mut("b")?.start_lvmlockd(&Daemon::default())?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let started = b.run("lvm vgchange --lock-start vg")?;
    b.step(&format!("says {:?}", started.stderr.trim()));
    let ended = b.run("lvm lvchange -aey vg/lv")?;
    ensure!(ended.code == 5, "b got an LV that a has: {}", ended.stdout);
    the_others_come(a, b)?;
    // The global lock has all its drives, too.
    b.ok(&format!("lvm vgextend vg {}", b.disk("d3")?)).map(drop)
}
