//! A host with two paths to every drive loses one.

use crate::cluster::Cluster;
use crate::drives::PARTITIONED;
use crate::interfaces::partition;
use crate::scenarios::lock_of;
use anyhow::{Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// With drives of the global lock, so that both paths have a partition `propeller`.
pub fn partitioned(cluster: &mut Cluster) -> Result<()> {
    lose_one(cluster, &PARTITIONED, true)
}

/// With drives of which lvm names only one node.
pub fn plain(cluster: &mut Cluster) -> Result<()> {
    lose_one(cluster, &["d3", "d4"], false)
}

fn lose_one(cluster: &mut Cluster, drives: &[&str], partitioned: bool) -> Result<()> {
    cluster.start(&["a", "b"])?;
    // lvm sees only the first path, as it would see only a multipath device.
    cluster.plug_second_path("a")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let mut nodes = String::new();
    for drive in drives {
        let disk = b.disk(drive)?;
        let node = if partitioned { partition(&disk, 2) } else { disk };
        nodes.push_str(&format!(" {node}"));
    }
    b.ok(&format!("lvm vgcreate --shared --lock-type idm vg{nodes}"))?;
    a.ok("lvm vgchange --lock-start vg")?;
    a.ok(&format!("lvm lvcreate -y -aey -i {} -L 48M -n lv vg", drives.len()))?;
    let lock = lock_of(a, "vg/lv")?;

    cut(cluster, drives, &lock, "0", "1")?;
    // The path is tried again, and works, before it is needed.
    cluster.drives.order("lift")?;
    wait_until(Duration::from_secs(40), "the path to work again", || {
        let said = a.lvmlockd_log().matches("works again").count();
        Ok((said >= drives.len()).then_some(()))
    })?;
    cut(cluster, drives, &lock, "1", "0")?;
    ensure!(a.attempt("test -e /run/killed")?.code != 0, "the VG was killed");
    b.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")
}

/// Cuts one path of a: commands take the other path, and refresh the locks.
fn cut(cluster: &Cluster, drives: &[&str], lock: &str, cut: &str, left: &str) -> Result<()> {
    let a = cluster.host("a")?;
    cluster.drives.order(&format!("fault * a.{cut} mutex cut"))?;
    let begun = cluster.drives.time("d0")?;
    a.ok(&format!("lvm lvcreate -y -an -L 4M -n without{cut} vg"))?;
    // The clocks of all drives started together.
    for drive in drives {
        wait_until(Duration::from_secs(30), "a refresh by the other path", || {
            let refreshed = cluster.drives.events(drive)?.into_iter().any(|event| {
                event.at > begun && event.path == left && event.resource == lock && event.is_good()
            });
            Ok(refreshed.then_some(()))
        })?;
    }
    Ok(())
}
