//! lvmlockd dies and is started again; the LV is used all the time.

use crate::cluster::Cluster;
use crate::machine::Daemon;
use crate::scenarios::{TAKEN, audit, kept_beyond_lease, lock_of, shared_vg, written_by_b};
use anyhow::{Result, ensure};

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

    // The new daemon keeps the lock.
    kept_beyond_lease(cluster, &lock)?;
    let errors = a.writer_errors()?;
    ensure!(errors.is_empty(), "the writer was disturbed: {errors}");
    audit.wait_for_writes(&cluster.drives, "a")?;
    ensure!(a.lvmlockd_runs(), "lvmlockd has ended");
    a.stop_writer(writer)?;
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    written_by_b(cluster, &audit)
}
