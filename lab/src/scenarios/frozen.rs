//! A host stands still for 90 s, and then continues.

use crate::cluster::Cluster;
use crate::drives::PARTITIONED;
use crate::scenarios::fenced::{REFUSED, RESERVATIONS, start_unstopped};
use crate::scenarios::{
    LATEST, LEASE, audit, check_takeover, lock_of, make_vg, shared_vg, until_granted,
};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use testbed::wait_until;

/// With an LV that is not written to.
pub fn idle(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    freeze(cluster)?;
    let b = cluster.host("b")?;
    b.ok("dd if=/dev/zero of=/dev/vg/lv bs=1M count=4 oflag=direct 2>/dev/null").map(drop)
}

/// With an application that writes to the LV.
pub fn writing(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let audit = audit(a)?;
    a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    freeze(cluster)?;
    let count = |host: &str| Ok::<_, anyhow::Error>(audit.counts(&cluster.drives)?.remove(host));
    let before = count("a")?;
    b.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "b")?;
    ensure!(count("a")? == before, "a goes on writing after the kill command has run");
    audit.check(&cluster.drives, &["a", "b"])
}

/// With such an application, which nothing stops, and drives that refuse the data of a host that
/// lost a lock.
pub fn reserved(cluster: &mut Cluster) -> Result<()> {
    start_unstopped(cluster, RESERVATIONS)?;
    make_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let (lock, audit) = (lock_of(a, "vg/lv")?, audit(a)?.with_reservations());
    a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    freeze_and_thaw(cluster, &lock)?;
    b.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "b")?;
    wait_until(Duration::from_secs(60), "a's writer to notice", || {
        Ok(a.writer_errors()?.contains(REFUSED).then_some(()))
    })?;
    audit.check(&cluster.drives, &["a", "b"])
}

/// Freezes a for 90 s, while b takes the lock on vg/lv, and thaws it.
pub(super) fn freeze_and_thaw(cluster: &Cluster, lock: &str) -> Result<()> {
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.freeze()?;
    let frozen = Instant::now();
    until_granted(b, "lvm lvchange -aey vg/lv", LEASE + Duration::from_secs(30))?;
    check_takeover(&cluster.drives, lock, ("a", "b"), LATEST)?;
    std::thread::sleep(Duration::from_secs(90).saturating_sub(frozen.elapsed()));
    a.thaw()
}

/// The same; fails unless a's kill command then ends all use of the LV.
fn freeze(cluster: &Cluster) -> Result<()> {
    let a = cluster.host("a")?;
    let lock = lock_of(a, "vg/lv")?;
    freeze_and_thaw(cluster, &lock)?;
    let thawed = Instant::now();
    wait_until(Duration::from_secs(60), "the kill command", || {
        Ok(a.quiet("test -e /run/killed").ok())
    })?;
    cluster.transcript.step(
        "a",
        &format!("has killed the VG {:.1} s after it was thawed", thawed.elapsed().as_secs_f64()),
    );
    let tables = a.ok("dmsetup table")?;
    ensure!(!tables.contains("striped"), "the LV can still be used: {tables}");
    for drive in PARTITIONED {
        let records = cluster.drives.records(drive, &lock)?;
        ensure!(
            records.iter().all(|record| !record.is_held() || record.is_of("b")),
            "{drive}: {records:?}"
        );
    }
    Ok(())
}
