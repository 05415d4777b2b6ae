//! Time that is not as it seems: the clock is set, and a hypervisor stops a host without its
//! knowledge.

use crate::cluster::Cluster;
use crate::scenarios::{
    LEASE, TAKEN, audit, check_takeover, kept_beyond_lease, lock_of, shared_vg, until_granted,
};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use testbed::wait_until;

/// The clock of a host is set a day forward, and two days back, while it has an LV.
pub fn set(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let a = cluster.host("a")?;
    let lock = lock_of(a, "vg/lv")?;
    let audit = audit(a)?;
    let writer = a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    for change in ["+1 day", "-2 days"] {
        a.ok(&format!("date -s '{change}'"))?;
        kept_beyond_lease(cluster, &lock)?;
        let errors = a.writer_errors()?;
        ensure!(errors.is_empty(), "the writer was disturbed: {errors}");
        ensure!(a.run("test -e /run/killed")?.code != 0, "the VG was killed");
    }
    a.stop_writer(writer)?;
    // Neither does a host get a lock earlier because its own clock is late or early.
    let b = cluster.host("b")?;
    for change in ["+1 day", "-2 days"] {
        b.ok(&format!("date -s '{change}'"))?;
        b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    }
    // A value of a lock has no time in it either.
    a.ok("lvm vgchange --addtag late vg")?;
    ensure!(b.ok("lvm vgs --noheadings -o tags vg")?.trim() == "late", "b sees an older VG");
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    a.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    audit.check(&cluster.drives, &["a"])
}

/// A hypervisor stops a host for 90 s, and no clock of the host shows it.
pub fn stopped(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let lock = lock_of(cluster.host("a")?, "vg/lv")?;
    let uptime = |cluster: &Cluster| -> Result<f64> {
        let text = cluster.host("a")?.quiet("cut -d' ' -f1 /proc/uptime")?;
        Ok(text.trim().parse()?)
    };
    let before = uptime(cluster)?;
    cluster.host_mut("a")?.stop()?;
    let stopped = Instant::now();
    let b = cluster.host("b")?;
    until_granted(b, "lvm lvchange -aey vg/lv", LEASE + Duration::from_secs(30))?;
    check_takeover(&cluster.drives, &lock, ("a", "b"), LEASE + Duration::from_secs(15))?;
    std::thread::sleep(Duration::from_secs(90).saturating_sub(stopped.elapsed()));
    cluster.host_mut("a")?.go_on()?;
    let gone_on = Instant::now();
    let passed = uptime(cluster)? - before;
    ensure!(passed < 60.0, "the host's clock has gone on by {passed} s");
    let a = cluster.host("a")?;
    wait_until(Duration::from_secs(60), "the kill command", || {
        Ok(a.quiet("test -e /run/killed").ok())
    })?;
    a.step(&format!("has killed the VG {:.1} s after it went on", gone_on.elapsed().as_secs_f64()));
    ensure!(!a.ok("dmsetup table")?.contains("striped"), "the LV can still be used");
    cluster.host("b")?.ok("dd if=/dev/zero of=/dev/vg/lv bs=1M count=4 oflag=direct").map(drop)
}
