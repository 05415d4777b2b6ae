//! One of three drives answers nonsense.

use crate::cluster::Cluster;
use crate::scenarios::{LEASE, audit, shared_vg, until_granted, written_by_b};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use testbed::wait_until;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let audit = audit(a)?;
    let writer = a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;

    cluster.transcript.step("", "d1 answers half of the mutex commands with nonsense");
    cluster.drives.order("fault d1 * mutex nonsense")?;
    let begin = Instant::now();
    let mut number = 0;
    // A drive that answers "conflict", and then cannot be read, may know of a holder that counts
    // other drives. Such a request is refused, and granted when it is repeated.
    let patience = Duration::from_secs(60);
    while begin.elapsed() < LEASE + LEASE / 4 {
        number += 1;
        let lv = format!("vg/n{number}");
        until_granted(a, &format!("lvm lvcreate -y -aey -L 4M -n n{number} vg"), patience)?;
        ensure!(b.attempt(&format!("lvm lvchange -aey {lv}"))?.code == 5, "{lv} is shared");
        a.ok(&format!("lvm lvchange -an {lv}"))?;
        until_granted(b, &format!("lvm lvchange -aey {lv}"), patience)?;
        ensure!(a.attempt(&format!("lvm lvchange -aey {lv}"))?.code == 5, "{lv} is shared");
        b.ok(&format!("lvm lvchange -an {lv}"))?;
        ensure!(b.attempt("lvm lvchange -aey vg/lv")?.code == 5, "vg/lv is shared");
    }
    ensure!(number > 1, "there was time for one LV only");
    cluster.transcript.step("", &format!("{number} LVs were made and changed hosts"));
    let node = a.disk("d1")?;
    for host in [a, b] {
        let log = host.lvmlockd_log();
        for what in ["panic", "internal error"] {
            ensure!(!log.contains(what), "{} has {what:?} in its log", host.name());
        }
        let named = |line: &str| line.contains("makes no sense");
        ensure!(log.lines().any(named), "{} says nothing of the drive", host.name());
    }
    let log = a.lvmlockd_log();
    let others = log.lines().filter(|line| line.contains("makes no sense"));
    ensure!(others.clone().all(|line| line.contains(&node)), "another drive than {node} is named");
    ensure!(a.run("test -e /run/killed")?.code != 0, "the VG was killed");

    cluster.drives.order("lift")?;
    a.stop_writer(writer)?;
    a.ok("lvm lvchange -an vg/lv")?;
    until_granted(b, "lvm lvchange -aey vg/lv", Duration::from_secs(20))?;
    wait_until(Duration::from_secs(30), "d1 to have the lock of b", || {
        let table = cluster.drives.table("d1")?;
        Ok(table.iter().any(|record| record.is_held()).then_some(()))
    })?;
    written_by_b(cluster, &audit)
}
