//! Disks are replaced below an LV that is written to: the votes for its lock move with it.

use crate::audit::Audit;
use crate::cluster::Cluster;
use crate::drives::PARTITIONED;
use crate::interfaces::partition;
use crate::machine::{Daemon, Machine};
use crate::scenarios::{LEASE, TAKEN, lock_of, until_granted, written_by_b};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// The drives of the VG at the beginning.
const FIRST: [&str; 3] = ["d3", "d1", "d2"];
/// The spare drive.
const SPARE: &str = "d4";

/// The time after the end of leases in which a loss would have shown.
const AFTER: Duration = Duration::from_secs(5);

/// Tries to get the LV all the time, with a pause, because each try keeps the VG's lock from a.
const WANT: &str = "while test ! -e /run/enough; do \
    if lvm lvchange -aey vg/lv; then touch /run/got; exit 1; fi; sleep 1; done";

/// The replacement of one disk by another.
struct Replacement {
    old: &'static str,
    /// Drive that the LV moves to.
    to: &'static str,
    new: &'static str,
    /// Drives that vote while the old one is pulled; the old one is still among them if lvmlockd
    /// does not know yet that it has left the VG.
    meanwhile: &'static [&'static str],
    /// Drives of the VG afterwards.
    then: [&'static str; 3],
}

const REPLACEMENTS: [Replacement; 2] = [
    Replacement { old: "d3", to: "d1", new: SPARE, meanwhile: &FIRST, then: ["d1", "d2", SPARE] },
    // This also removes one of the global lock's drives.
    Replacement {
        old: "d1",
        to: SPARE,
        new: "d0",
        meanwhile: &["d2", SPARE],
        then: ["d0", "d2", SPARE],
    },
];

pub fn run(cluster: &mut Cluster) -> Result<()> {
    for name in ["a", "b"] {
        cluster.boot(name)?;
        pull(cluster, SPARE, &[name])?;
        cluster.host_mut(name)?.start_lvmlockd(&Daemon::default())?;
    }
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let nodes = FIRST.iter().map(|drive| data_node(a, drive)).collect::<Result<Vec<_>>>()?;
    a.ok(&format!("lvm vgcreate --shared --lock-type idm vg {}", nodes.join(" ")))?;
    b.ok("lvm vgchange --lock-start vg")?;
    a.ok(&format!("lvm lvcreate -y -aey -L 32M -n lv vg {}", nodes[0]))?;
    let lock = lock_of(a, "vg/lv")?;
    let mut audit = Audit::of_lv(a, "vg/lv", lock.clone(), &FIRST[..1], LEASE)?;
    let writer = a.start_writer("vg/lv")?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    let wants = b.start(WANT)?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    let mut pulled = Duration::ZERO;
    for replacement in &REPLACEMENTS {
        pulled = replace(cluster, replacement, &lock, &mut audit)?;
        undisturbed(cluster)?;
        audit.check(&cluster.drives, &["a"])?;
    }
    // Anything that relied on the old disks would be lost by then.
    wait_until(LEASE * 2, "the leases on the old disks to end", || {
        Ok((cluster.drives.time("d0")? > pulled + LEASE + AFTER).then_some(()))
    })?;
    undisturbed(cluster)?;
    audit.check(&cluster.drives, &["a"])?;

    a.stop_writer(writer)?;
    b.quiet("touch /run/enough")?;
    b.wait(wants, LEASE)?;
    ensure!(b.attempt("test -e /run/got")?.code != 0, "b got the LV");
    let read = |host: &Machine| {
        host.quiet(&format!("{} --read /dev/vg/lv", host.files().writer.display()))
    };
    let written = read(a)?;
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    ensure!(written.lines().count() == 128, "a has written\n{written}");
    ensure!(read(b)? == written, "b reads other data than a wrote");
    // Host b has taken it where the LV is now.
    audit.votes("b", &[SPARE], &cluster.drives)?;
    written_by_b(cluster, &audit)
}

/// Replaces a disk below the LV. Returns the time on the drives' clocks when the old one was
/// pulled.
fn replace(
    cluster: &Cluster,
    replacement: &Replacement,
    lock: &str,
    audit: &mut Audit,
) -> Result<Duration> {
    let Replacement { old, to, new, meanwhile, then } = replacement;
    cluster.transcript.step("", &format!("{old} is replaced by {new}"));
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let (from, dest) = (data_node(a, old)?, data_node(a, to)?);
    until_granted(a, &format!("lvm pvmove -i 1 -n lv {from} {dest}"), LEASE)?;
    let devices = a.ok("lvm lvs --noheadings -o devices vg/lv")?;
    ensure!(!devices.contains(&from), "the LV is still on {old}: {devices}");
    audit.follow(a)?;
    until_granted(a, &format!("lvm vgreduce vg {from}"), LEASE)?;
    if !meanwhile.contains(old) {
        tell_drives(cluster)?;
    }
    votes_move(cluster, lock, meanwhile, audit)?;
    let pulled = cluster.drives.time(old)?;
    pull(cluster, old, &["a", "b"])?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    audit.wait_for_writes(&cluster.drives, "a")?;

    if *new == SPARE {
        // It may get the name of the old disk, which must not stand for that one any more.
        tell_drives(cluster)?;
        plug(cluster, new)?;
    }
    until_granted(a, &format!("lvm vgextend vg {}", data_node(a, new)?), LEASE)?;
    tell_drives(cluster)?;
    votes_move(cluster, lock, then, audit)?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    Ok(pulled)
}

/// Gives lvmlockd the new list of the VG's drives, as documented, and uses the VG's lock.
fn tell_drives(cluster: &Cluster) -> Result<()> {
    for name in ["a", "b"] {
        until_granted(cluster.host(name)?, "lvm vgchange --lock-start vg", LEASE)?;
    }
    let a = cluster.host("a")?;
    until_granted(a, "lvm lvcreate -y -an -Zn -Wn -l 1 -n other vg", LEASE)?;
    until_granted(a, "lvm lvremove -y vg/other", LEASE)
}

/// Waits until a has the lock on all of these drives; they vote from then on.
fn votes_move(cluster: &Cluster, lock: &str, drives: &[&str], audit: &mut Audit) -> Result<()> {
    wait_until(LEASE, &format!("a's lock to be on {drives:?}"), || {
        for drive in drives {
            let records = cluster.drives.records(drive, lock)?;
            if !records.iter().any(|record| record.is_of("a") && record.is_held()) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    audit.votes("a", drives, &cluster.drives)?;
    cluster.transcript.step("a", &format!("has the LV's lock on {drives:?}"));
    Ok(())
}

/// Switches a drive off and removes it from these hosts.
fn pull(cluster: &Cluster, drive: &str, hosts: &[&str]) -> Result<()> {
    for name in hosts {
        cluster.drives.order(&format!("fault {drive} {name} * absent"))?;
        cluster.host(name)?.detach(drive)?;
    }
    Ok(())
}

/// Plugs in a drive that was pulled from both hosts.
fn plug(cluster: &Cluster, drive: &str) -> Result<()> {
    for name in ["a", "b"] {
        cluster.drives.order(&format!("fault {drive} {name} * none"))?;
        let host = cluster.host(name)?;
        host.attach(drive)?;
        wait_until(Duration::from_secs(10), "the new drive", || Ok(host.disk(drive).ok()))?;
    }
    Ok(())
}

/// The node for the data of a drive: a partition, where there is one.
fn data_node(host: &Machine, drive: &str) -> Result<String> {
    let disk = host.disk(drive)?;
    Ok(if PARTITIONED.contains(&drive) { partition(&disk, 2) } else { disk })
}

/// Fails if a lock was lost, a kill command has run, or the writer has met an error.
fn undisturbed(cluster: &Cluster) -> Result<()> {
    for name in ["a", "b"] {
        let host = cluster.host(name)?;
        host.quiet("test ! -e /run/killed && test ! -e /run/got")
            .with_context(|| format!("{name}: the VG was killed, or b got the LV"))?;
        let log = host.lvmlockd_log();
        let lost =
            log.lines().find(|line| line.contains(" is lost:") || line.contains("may be lost"));
        ensure!(lost.is_none(), "{name}: {lost:?}");
    }
    let errors = cluster.host("a")?.writer_errors()?;
    ensure!(errors.is_empty(), "the writer was disturbed: {errors}");
    Ok(())
}
