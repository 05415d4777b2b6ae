//! lvmlockd with our patches dies, and adopts its locks when it is started again.

use crate::cluster::Cluster;
use crate::machine::{Daemon, Machine};
use crate::scenarios::{TAKEN, audit, kept_beyond_lease, lock_of, make_empty_vg};
use anyhow::{Result, ensure};
use std::time::Duration;
use testbed::wait_until;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    cluster.host_mut("a")?.start_lvmlockd(&adopting())?;
    cluster.start(&["b"])?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    make_empty_vg(cluster)?;
    for (lv, mode) in [("lv", "-aey"), ("sh", "-asy"), ("idle", "-an")] {
        // Shared activation needs an existing LV.
        a.ok(&format!("lvm lvcreate -y -an -Zn -i 3 -L 48M -n {lv} vg"))?;
        a.ok(&format!("lvm lvchange {mode} vg/{lv}"))?;
    }
    b.ok("lvm lvchange -asy vg/sh")?;
    let lock = lock_of(a, "vg/lv")?;
    let audit = audit(a)?;
    let writer = a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;

    for round in 1..=3 {
        cluster.transcript.step("", &format!("round {round}"));
        cluster.host_mut("a")?.kill_lvmlockd()?;
        cluster.host("b")?.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
        cluster.host_mut("a")?.start_lvmlockd(&adopting())?;
        let (a, b) = (cluster.host("a")?, cluster.host("b")?);
        // No command of LVM has requested anything yet.
        wait_until(Duration::from_secs(30), "core to have adopted the locks", || {
            let info = a.quiet("lvmlockctl --info")?;
            let has = |lines: &[&str]| lines.iter().all(|line| info.contains(line));
            Ok(has(&[" lvm_vg\n", " lvm_global\n", "LK LV ex", "LK LV sh"]).then_some(()))
        })?;
        check_log(a)?;
        b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
        b.refused("lvm lvchange -aey vg/sh", 5, "LV locked by other host: vg/sh")?;
        a.ok("lvm lvchange -aey vg/idle")?;
        a.ok("lvm lvchange -an vg/idle")?;
    }

    // The adopted locks are renewed.
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    kept_beyond_lease(cluster, &lock)?;
    // Ordinary commands release them.
    a.stop_writer(writer)?;
    a.ok("lvm lvchange -an vg/lv")?;
    a.ok("lvm lvchange -an vg/sh")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    b.ok("lvm lvchange -an vg/sh && lvm lvchange -aey vg/sh")?;
    a.ok("lvm vgchange --lock-stop vg")?;
    ensure!(a.run("test -e /run/killed")?.code != 0, "the VG was killed");
    audit.check(&cluster.drives, &["a"])
}

fn adopting() -> Daemon {
    Daemon { adopts: true, ..Daemon::default() }
}

fn check_log(host: &Machine) -> Result<()> {
    let log = host.lvmlockd_log();
    for what in ["adopt_locks failed", "panic", "internal error"] {
        ensure!(!log.contains(what), "{} has {what:?} in its log", host.name());
    }
    Ok(())
}
