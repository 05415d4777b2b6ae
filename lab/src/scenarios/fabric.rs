//! A host loses all its drives: for a short time, then for good.

use crate::cluster::Cluster;
use crate::scenarios::{
    LEASE, UNTIL_GRANTED, audit, check_takeover, deciding_lease, lock_of, shared_vg, until_granted,
};
use anyhow::{Result, ensure};
use std::time::Duration;
use testbed::wait_until;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let lock = lock_of(a, "vg/lv")?;
    let audit = audit(a)?;
    let writer = a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;

    // Like multipath and Fibre Channel for a short time: commands wait.
    cluster.drives.order("fault * a * hang")?;
    std::thread::sleep(Duration::from_secs(10));
    cluster.drives.order("lift")?;
    a.ok("lvm lvs vg")?;
    b.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")?;
    ensure!(a.run("test -e /run/killed")?.code != 0, "the VG was killed after 10 s");
    let errors = a.writer_errors()?;
    ensure!(errors.is_empty(), "the writer was disturbed: {errors}");
    audit.wait_for_writes(&cluster.drives, "a")?;

    cluster.drives.order("fault * a * cut")?;
    let taker = b.start(UNTIL_GRANTED)?;
    wait_until(LEASE + Duration::from_secs(20), "the kill command", || {
        Ok(a.quiet("test -e /run/killed").ok())
    })?;
    let age = deciding_lease(&cluster.drives, "a", &lock)?;
    let seconds = age.as_secs_f64();
    cluster
        .transcript
        .step("a", &format!("has killed the VG {seconds:.1} s into its deciding lease"));
    ensure!(age < LEASE, "the kill command came too late");
    ensure!(age > LEASE * 3 / 4, "the kill command came long before it was needed");
    let tables = a.ok("dmsetup table")?;
    ensure!(!tables.contains("striped"), "the LV can still be used: {tables}");
    b.wait(taker, LEASE + Duration::from_secs(30))?;
    check_takeover(&cluster.drives, &lock, ("a", "b"), LEASE + Duration::from_secs(15))?;
    ensure!(a.quiet("cat /run/killed")?.lines().count() == 1, "the kill command ran twice");

    let other_writer = b.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "b")?;

    // The VG was dropped, so it can be started again.
    cluster.drives.order("lift")?;
    // The application of a is still writing, and reaches no drive.
    audit.wait_for_writes(&cluster.drives, "b")?;
    ensure!(a.job_runs(writer), "the writer has ended");
    a.stop_writer(writer)?;
    a.ok("dmsetup remove vg-lv")?;
    // The releases of the old life had no answer: the drives get some time to carry them out late.
    let start = "lvm vgchange --lock-start vg; lvmlockctl --info | grep -q 'LS *lvm_vg'";
    until_granted(a, start, Duration::from_secs(40))?;
    a.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")?;
    b.stop_writer(other_writer)?;
    b.check_shared_blocks("vg/lv")?;
    audit.check(&cluster.drives, &["a", "b"])?;
    b.ok("lvm lvchange -an vg/lv")?;
    until_granted(a, "lvm lvchange -aey vg/lv", Duration::from_secs(10))
}
