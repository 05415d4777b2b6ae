//! Two paths to NVMe drives, behind one node that the kernel makes: one is lost, then the other,
//! then both for some time.

use crate::cluster::Cluster;
use crate::interfaces::partition;
use crate::machine::Machine;
use crate::scenarios::{TAKEN, lock_of, wait_for_refresh_by};
use anyhow::{Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// Drives whose subsystems may have several controllers.
pub(super) const DRIVES: [&str; 3] = ["d1", "d2", "d3"];

/// Their nodes for data, as arguments of an lvm command.
pub(super) fn nodes(host: &Machine) -> Result<String> {
    let node = |drive: &&str| {
        let disk = host.disk(drive)?;
        Ok(if *drive == "d3" { disk } else { partition(&disk, 2) })
    };
    Ok(DRIVES.iter().map(node).collect::<Result<Vec<String>>>()?.join(" "))
}

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    cluster.connect_second_path("a", &DRIVES)?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.ok(&format!("lvm vgcreate --shared --lock-type idm vg {}", nodes(a)?))?;
    b.ok("lvm vgchange --lock-start vg")?;
    a.ok("lvm lvcreate -y -aey -i 3 -L 48M -n lv vg")?;
    let lock = lock_of(a, "vg/lv")?;
    let writer = a.start(
        "while dd if=/dev/zero of=/dev/vg/lv bs=64k count=8 oflag=direct; do \
                          sleep 0.2; done 2>/dev/null",
    )?;

    for (lost, left) in [("0", "1"), ("1", "0")] {
        let order = |effect: &str| -> Result<()> {
            for drive in DRIVES {
                cluster.drives.order(&format!("fault {drive} a.{lost} * {effect}"))?;
            }
            Ok(())
        };
        order("absent")?;
        let since = cluster.drives.time("d0")?;
        a.ok("lvm lvcreate -y -an -L 4M -n more vg && lvm lvremove -y vg/more")?;
        b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
        wait_for_refresh_by(cluster, left, &lock, &DRIVES, since)?;
        order("none")?;
        wait_until(Duration::from_secs(30), "the path to come back", || {
            let states = a.quiet("cat /sys/class/nvme/nvme*/state")?;
            Ok((states.lines().all(|state| state == "live")).then_some(()))
        })?;
    }

    ensure!(a.job_runs(writer), "the writer was disturbed");

    // No path is left: the kernel reports this at once, and the lock outlives it.
    for drive in DRIVES {
        cluster.drives.order(&format!("fault {drive} a * absent"))?;
    }
    a.run("lvm lvcreate -y -an -L 4M -n no vg")?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    std::thread::sleep(Duration::from_secs(3));
    cluster.drives.order("lift")?;
    let since = cluster.drives.time("d0")?;
    for drive in DRIVES {
        wait_until(Duration::from_secs(40), "a refresh", || {
            let refreshed = cluster.drives.events(drive)?.into_iter().any(|event| {
                event.at > since && event.host == "a" && event.resource == lock && event.is_good()
            });
            Ok(refreshed.then_some(()))
        })?;
    }
    ensure!(a.attempt("test -e /run/killed")?.code != 0, "the VG was killed");
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    a.ok("pkill dd; sleep 1")?;
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv").map(drop)
}
