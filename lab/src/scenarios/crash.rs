//! A host dies while it holds an LV, and the VG in the middle of a change.

use crate::audit::Audit;
use crate::cluster::Cluster;
use crate::drives::PARTITIONED;
use crate::scenarios::{
    LEASE, audit, check_takeover, lock_of, lock_of_vg, shared_vg, until_granted,
};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use testbed::wait_until;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let (lv, vg) = (lock_of(b, "vg/lv")?, lock_of_vg(b, "vg")?);
    let audit = audit(a)?;
    let metadata = Audit::of_metadata(a, "vg", vg.clone(), &cluster.drives, LEASE)?;
    a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    a.ok("lvm vgchange --addtag before vg")?;

    // Host a gets the VG's lock, and no further.
    cluster.drives.order("fault * a write hang")?;
    a.start("lvm vgchange --addtag half-done vg")?;
    wait_until(Duration::from_secs(30), "a to have the VG's lock", || {
        for drive in PARTITIONED {
            let records = cluster.drives.records(drive, &vg)?;
            if !records.iter().any(|r| r.is_of("a") && r.is_held() && r.class == "ex") {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    cluster.kill("a")?;

    let b = cluster.host("b")?;
    until_granted(b, "lvm lvchange -aey vg/lv", LEASE + Duration::from_secs(40))?;
    // Not before b has the VG's lock, which a took last: leases of the LV may be a renewal older.
    let late = LEASE / 3 + Duration::from_secs(15);
    check_takeover(&cluster.drives, &lv, ("a", "b"), LEASE + late)?;
    until_granted(b, "lvm vgchange --addtag whole vg", LEASE)?;
    check_takeover(&cluster.drives, &vg, ("a", "b"), LEASE + Duration::from_secs(30))?;
    // lvmlockd prints version, flags and number of the value that it got.
    let log = b.lvmlockd_log();
    let broken =
        log.find("the lock of volume group vg: took over").context("nothing was broken")?;
    let given = log[broken..].lines().find(|line| line.contains("VGLK res_lock rv 0 read vb"));
    ensure!(
        given.is_some_and(|line| line.ends_with("read vb 0 0 0")),
        "b was given the dead host's value: {given:?}"
    );
    let tags = b.ok("lvm vgs --noheadings -o tags vg")?;
    ensure!(tags.trim() == "before,whole", "tags are {tags:?}");
    let writer = b.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "b")?;

    // The machine comes back as another host, and finds the lock taken.
    cluster.drives.order("lift")?;
    cluster.start(&["a"])?;
    let a = cluster.host("a")?;
    a.ok("lvm vgchange --lock-start vg")?;
    a.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")?;
    let b = cluster.host("b")?;
    b.stop_writer(writer)?;
    b.check_shared_blocks("vg/lv")?;
    audit.check(&cluster.drives, &["a", "b"])?;
    metadata.check(&cluster.drives, &["a", "b"])
}
