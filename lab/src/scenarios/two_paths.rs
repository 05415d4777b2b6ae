//! A host with two paths to every drive loses one.

use crate::cluster::Cluster;
use crate::scenarios::lock_of;
use anyhow::{Result, ensure};
use std::time::Duration;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    // lvm sees the first path only, as it would see a multipath device only.
    cluster.plug_second_path("a")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let partitions = b.data_partitions()?;
    b.ok(&format!("lvm vgcreate --shared --lock-type idm vg {partitions}"))?;
    a.ok("lvm vgchange --lock-start vg")?;
    a.ok("lvm lvcreate -y -aey -i 3 -L 48M -n lv vg")?;
    let lock = lock_of(a, "vg/lv")?;

    cluster.drives.order("fault * a.0 mutex cut")?;
    a.ok("lvm lvcreate -y -an -L 4M -n more vg")?;
    let now = cluster.drives.time("d0")?;
    testbed::wait_until(Duration::from_secs(30), "a refresh by the second path", || {
        let events = cluster.drives.events("d0")?;
        let refreshed = |e: &&crate::drives::Event| e.at > now && e.resource == lock && e.is_good();
        Ok(events.iter().find(refreshed).map(|_| ()))
    })?;
    ensure!(a.attempt("test -e /run/killed")?.code != 0, "the VG was killed");
    b.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")
}
