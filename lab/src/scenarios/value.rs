//! A host that takes a lock gets the value that the last holder left.

use crate::cluster::Cluster;
use crate::scenarios::make_empty_vg;
use anyhow::{Result, ensure};

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    make_empty_vg(cluster)?;
    for number in 1..=3 {
        a.ok(&format!("lvm vgchange --addtag t{number} vg"))?;
        b.ok("lvm vgs vg")?;
        // Two readers in a row: the first one must not lose the value for the second.
        a.ok("lvm vgs vg")?;
    }
    // lvmlockd prints the value's version; 0 means "not known", and makes it read everything again.
    let log = b.lvmlockd_log();
    let given: Vec<&str> =
        log.lines().filter(|line| line.contains("VGLK res_lock rv 0 read vb")).collect();
    let known = given.iter().filter(|line| !line.ends_with("read vb 0 0 0")).count();
    ensure!(known > 0, "b did not get the VG's value, {} times", given.len());
    Ok(())
}
