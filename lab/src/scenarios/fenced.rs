//! The drives still take a host's data, but none of its mutex commands. So only the host itself can
//! stop its writes when another host gets its locks.

use crate::audit::Audit;
use crate::cluster::Cluster;
use crate::drives::PARTITIONED;
use crate::interfaces::Interfaces;
use crate::machine::Daemon;
use crate::scenarios::{
    LATEST, LEASE, UNTIL_GRANTED, audit, check_takeover, check_takeover_on, lock_of, make_vg,
    multipath, nvme_paths, until_granted,
};
use anyhow::{Result, ensure};
use std::time::Duration;
use testbed::wait_until;

pub fn fenced(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    // Another VG, which has no locks to lose; its name begins like that of the first.
    let a = cluster.host("a")?;
    let node = a.disk("d3")?;
    a.ok(&format!("lvm vgcreate vg-2 {node} && lvm lvcreate -y -Zn -Wn -L 8M -n lv vg-2"))?;
    take_over(cluster)?;
    let a = cluster.host("a")?;
    a.ok("dmsetup table vg-lv | grep -q error && dmsetup table vg--2-lv | grep -q linear")?;
    ensure!(a.writer_errors()?.contains("error"), "a's writer has not noticed");
    a.ok("grep -qx vg /run/killed").map(drop)
}

pub fn unfenced(cluster: &mut Cluster) -> Result<()> {
    start_unstopped(cluster, "")?;
    take_over(cluster)
}

/// The same, with drives that have to refuse the data of a host that lost a lock.
pub fn reserved(cluster: &mut Cluster) -> Result<()> {
    start_unstopped(cluster, RESERVATIONS)?;
    make_vg(cluster, "-i 3 -L 48M")?;
    let audit = audit(cluster.host("a")?)?.with_reservations();
    lose_mutexes(cluster, &audit, &PARTITIONED)?;
    refused(cluster, &audit)
}

/// The same, by two paths to each drive.
pub fn reserved_by_two_paths(cluster: &mut Cluster) -> Result<()> {
    for name in ["a", "b"] {
        cluster.boot(name)?;
    }
    let drives = match cluster.drives.interfaces {
        Interfaces::Nvme => {
            cluster.connect_second_path("a", &nvme_paths::DRIVES)?;
            &nvme_paths::DRIVES[..]
        }
        _ => {
            cluster.plug_second_path("a")?;
            multipath::make_maps(cluster.host("a")?)?;
            &multipath::DRIVES[..]
        }
    };
    for name in ["a", "b"] {
        start_unstopped_on(cluster, name, RESERVATIONS)?;
    }
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let nodes = match cluster.drives.interfaces {
        Interfaces::Nvme => nvme_paths::nodes(a)?,
        _ => multipath::MAPS.to_owned(),
    };
    a.ok(&format!("lvm vgcreate --shared --lock-type idm vg {nodes}"))?;
    b.ok("lvm vgchange --lock-start vg")?;
    a.ok(&format!("lvm lvcreate -y -aey -i {} -L 48M -n lv vg", drives.len()))?;
    let audit = Audit::of_lv(a, "vg/lv", lock_of(a, "vg/lv")?, drives, LEASE)?.with_reservations();
    lose_mutexes(cluster, &audit, drives)?;
    refused(cluster, &audit)
}

/// All commands of a host wait, its writes too, for longer than its leases. They arrive when
/// another host has its lock.
pub fn late_writes(cluster: &mut Cluster) -> Result<()> {
    start_unstopped(cluster, "")?;
    make_vg(cluster, "-i 3 -L 48M")?;
    let audit = audit(cluster.host("a")?)?;
    come_late(cluster, &audit)?;
    audit.check(&cluster.drives, &["a", "b"])
}

/// The same with drives that refuse them.
pub fn late_reserved(cluster: &mut Cluster) -> Result<()> {
    start_unstopped(cluster, RESERVATIONS)?;
    make_vg(cluster, "-i 3 -L 48M")?;
    let audit = audit(cluster.host("a")?)?.with_reservations();
    come_late(cluster, &audit)?;
    refused(cluster, &audit)
}

/// The kernel's error for a conflict with a reservation.
pub const REFUSED: &str = "Invalid exchange";
/// The setting with which drives refuse data.
pub const RESERVATIONS: &str = "[fencing]\nreservations = true\n";

/// Starts two hosts on which nothing stops the writes when a lock is lost.
pub fn start_unstopped(cluster: &mut Cluster, settings: &str) -> Result<()> {
    for name in ["a", "b"] {
        cluster.boot(name)?;
        start_unstopped_on(cluster, name, settings)?;
    }
    Ok(())
}

fn start_unstopped_on(cluster: &mut Cluster, name: &str, settings: &str) -> Result<()> {
    let host = cluster.host_mut(name)?;
    let text = format!("kill_command = [\"/bin/true\"]\n{settings}");
    host.write("/etc/lvm/lvmlockd-idm.conf", &text)?;
    host.start_lvmlockd(&Daemon::default())
}

fn take_over(cluster: &Cluster) -> Result<()> {
    make_vg(cluster, "-i 3 -L 48M")?;
    let audit = audit(cluster.host("a")?)?;
    lose_mutexes(cluster, &audit, &PARTITIONED)?;
    audit.check(&cluster.drives, &["a", "b"])?;
    cluster.host("b")?.check_shared_blocks("vg/lv")
}

/// Writes on a, lets b take the lock when a's mutex commands fail, and writes on b.
fn lose_mutexes(cluster: &Cluster, audit: &Audit, drives: &[&str]) -> Result<()> {
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let lock = lock_of(a, "vg/lv")?;
    a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    cluster.drives.order("fault * a mutex cut")?;
    let taker = b.start(UNTIL_GRANTED)?;
    b.wait(taker, LEASE + Duration::from_secs(40))?;
    let writer = b.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "b")?;
    check_takeover_on(&cluster.drives, &lock, ("a", "b"), drives, LATEST)?;
    b.stop_writer(writer)
}

/// Holds all commands of a back until b has the lock and has written.
fn come_late(cluster: &Cluster, audit: &Audit) -> Result<()> {
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let lock = lock_of(a, "vg/lv")?;
    a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    cluster.drives.order("fault * a * hang")?;
    until_granted(b, "lvm lvchange -aey vg/lv", LEASE + Duration::from_secs(40))?;
    check_takeover(&cluster.drives, &lock, ("a", "b"), LATEST)?;
    let writer = b.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "b")?;
    let count = || Ok::<_, anyhow::Error>(audit.counts(&cluster.drives)?.remove("a"));
    let before = count()?;
    cluster.drives.order("lift")?;
    // The commands that were held back arrive, and a goes on; over NVMe, when it has connected
    // again.
    wait_until(Duration::from_secs(120), "a to write again", || {
        let writes = count()? != before || a.writer_errors()?.contains(REFUSED);
        Ok(writes.then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(10));
    b.stop_writer(writer)
}

/// Fails unless the drives have refused a's writes without the lock.
fn refused(cluster: &Cluster, audit: &Audit) -> Result<()> {
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    wait_until(Duration::from_secs(60), "a's writer to notice", || {
        Ok(a.writer_errors()?.contains(REFUSED).then_some(()))
    })?;
    audit.check(&cluster.drives, &["a", "b"])?;
    b.check_shared_blocks("vg/lv")
}
