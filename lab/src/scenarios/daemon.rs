//! lvmlockd dies and is started again; the LV is used all the time.

use crate::cluster::Cluster;
use crate::machine::Daemon;
use crate::scenarios::{LEASE, audit, lock_of, shared_vg};
use anyhow::{Result, ensure};
use std::time::Duration;
use testbed::wait_until;

const TAKEN: &str = "LV locked by other host: vg/lv";

pub fn run(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let a = cluster.host("a")?;
    let lock = lock_of(a, "vg/lv")?;
    let audit = audit(a)?;
    let writer = a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    cluster.host_mut("a")?.kill_lvmlockd()?;
    let b = cluster.host("b")?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    cluster.host_mut("a")?.start_lvmlockd(&Daemon::default())?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.ok("lvm vgchange --lock-start vg")?;
    a.ok("lvm lvchange -aey vg/lv")?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;

    // The new daemon keeps the lock beyond the old one's lease.
    let until = cluster.drives.time("d0")? + LEASE + Duration::from_secs(5);
    wait_until(LEASE * 2, "the old daemon's lease to end", || {
        Ok((cluster.drives.time("d0")? > until).then_some(()))
    })?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    let records = cluster.drives.records("d0", &lock)?;
    ensure!(
        records.iter().any(|r| r.is_of("a") && r.lease_left.is_some_and(|left| !left.is_zero())),
        "a's lock is not refreshed: {records:?}"
    );
    let errors = a.writer_errors()?;
    ensure!(errors.is_empty(), "the writer was disturbed: {errors}");
    audit.wait_for_writes(&cluster.drives, "a")?;
    ensure!(a.lvmlockd_runs(), "lvmlockd has ended");
    a.stop_writer(writer)?;
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    let writer = b.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "b")?;
    b.stop_writer(writer)?;
    b.check_shared_blocks("vg/lv")?;
    audit.check(&cluster.drives, &["a", "b"])
}
