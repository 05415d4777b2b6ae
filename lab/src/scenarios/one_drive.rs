//! One of three drives may fail in any way; two may not.

use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::scenarios::{
    BARRED, TAKEN, audit, lock_of, shared_vg, until_granted, until_refused, written_by_b,
};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use testbed::wait_until;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.enable_timeouts()?;
    b.enable_timeouts()?;
    let lock = lock_of(a, "vg/lv")?;
    let audit = audit(a)?;
    let writer = a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;

    cluster.transcript.step("", "d1 fails every mutex command");
    let fail = |drive| format!("fault {drive} * mutex {}", cluster.drives.vague_failure(drive));
    cluster.drives.order(&fail("d1"))?;
    exercise(a, b, "failing", Duration::from_secs(20))?;
    cluster.drives.order("fault d1 * mutex none")?;

    cluster.transcript.step("", "d1 hangs on every mutex command");
    cluster.drives.order("fault d1 * mutex hang")?;
    exercise(a, b, "hanging", Duration::from_secs(40))?;
    cluster.drives.order("fault d1 * mutex none")?;

    cluster.transcript.step("", "d1 disappears from a");
    let node = a.disk("d1")?;
    // A process has the node open, so its name is not free when the drive comes back.
    a.ok(&format!("sleep 1000 <{node} >/dev/null 2>&1 &"))?;
    cluster.drives.order("fault d1 a * absent")?;
    a.detach("d1")?;
    ensure!(a.disk("d1").is_err(), "the drive is still there");
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    cluster.drives.order("fault d1 a * none")?;
    a.attach("d1")?;
    let back =
        wait_until(Duration::from_secs(10), "the drive to come back", || Ok(a.disk("d1").ok()))?;
    ensure!(back != node, "the drive came back with its old name");
    let now = cluster.drives.time("d1")?;
    cluster.transcript.step("a", &format!("the drive is back as {back}"));
    wait_until(Duration::from_secs(60), "a to use the drive again for its lock", || {
        let events = cluster.drives.events("d1")?;
        let good = |e: &&crate::drives::Event| {
            e.at > now && e.host == "a" && e.resource == lock && e.is_good()
        };
        Ok(events.iter().find(good).map(|_| ()))
    })?;
    cluster.transcript.step("a", "holds its lock on the drive again");

    cluster.transcript.step("", "d1 and d2 fail every mutex command");
    cluster.drives.order(&fail("d1"))?;
    cluster.drives.order(&fail("d2"))?;
    a.refused("lvm lvcreate -y -an -L 4M -n no vg", 5, "storage errors")?;
    b.refused("lvm lvchange -aey vg/lv", 5, "storage errors")?;
    // In this time every lock is due for a refresh, and the refresh fails on these two.
    std::thread::sleep(Duration::from_secs(22));
    cluster.drives.order("lift")?;
    // A lock that was requested in vain has to be given back first.
    until_granted(a, "lvm lvcreate -y -an -L 4M -n yes vg", BARRED)?;
    until_refused(b, "lvm lvchange -aey vg/lv", TAKEN)?;
    ensure!(a.run("test -e /run/killed")?.code != 0, "the VG was killed");
    a.stop_writer(writer)?;
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    written_by_b(cluster, &audit)
}

/// Checks that locks are granted and refused as usual, and not late.
fn exercise(a: &Machine, b: &Machine, name: &str, most: Duration) -> Result<()> {
    let begin = Instant::now();
    a.ok(&format!("lvm lvcreate -y -aey -i 3 -L 12M -n {name} vg"))?;
    b.refused(&format!("lvm lvchange -aey vg/{name}"), 5, "locked by other host")?;
    a.ok(&format!("lvm lvchange -an vg/{name}"))?;
    b.ok(&format!("lvm lvchange -aey vg/{name}"))?;
    b.ok(&format!("lvm lvchange -an vg/{name}"))?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    let took = begin.elapsed();
    ensure!(took <= most, "it took {took:?}");
    a.quiet("test ! -e /run/killed").map(drop).context("the VG was killed")
}
