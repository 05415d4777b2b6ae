//! A multipath map below a PV: its paths are cut and restored while the drives are in use.

use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::scenarios::{lock_of, wait_for_refresh_by};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// Drives with two paths.
pub(super) const DRIVES: [&str; 2] = ["d3", "d4"];
/// Their maps, as arguments of an lvm command.
pub(super) const MAPS: &str = "/dev/mapper/d3 /dev/mapper/d4";

/// Uses the VG in an endless loop. A command that is refused is repeated: a path that is cut in the
/// middle of an UNLOCK bars its drive for a quarter of a lease, even if there are other paths.
const LOAD: &str = "rounds=0 refused=0; \
    try() { n=0; until \"$@\"; do n=$((n+1)); refused=$((refused+1)); \
        [ $n -lt 60 ] || exit 1; sleep 0.5; done; }; \
    while test ! -e /run/enough; do \
    try lvm lvcreate -y -an -L 4M -n load vg; try lvm lvchange -aey vg/load; \
    dd if=/dev/zero of=/dev/vg/load bs=64k count=16 oflag=direct 2>/dev/null || exit 1; \
    try lvm lvremove -y vg/load; rounds=$((rounds+1)); done; \
    echo $rounds rounds, $refused commands refused";

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    cluster.plug_second_path("a")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    make_maps(a)?;
    a.ok(&format!("lvm vgcreate --shared --lock-type idm vg {MAPS}"))?;
    b.ok("lvm vgchange --lock-start vg")?;
    a.ok("lvm lvcreate -y -aey -i 2 -L 48M -n lv vg")?;
    let lock = lock_of(a, "vg/lv")?;
    b.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")?;

    let load = a.start(LOAD)?;
    std::thread::sleep(Duration::from_secs(3));
    cut_and_restore(cluster, &lock, "0", "1")?;
    cut_and_restore(cluster, &lock, "1", "0")?;
    a.quiet("touch /run/enough")?;
    let ended = a.wait(load, Duration::from_secs(60))?;
    ensure!(ended.code == 0, "the load failed:\n{}{}", ended.stdout, ended.stderr);
    a.step(ended.stdout.lines().last().unwrap_or_default());
    ensure!(a.attempt("test -e /run/killed")?.code != 0, "the VG was killed");
    b.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")?;
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv").map(drop)
}

/// Makes the maps on a host with two paths, and lvm see only them.
pub(super) fn make_maps(host: &Machine) -> Result<()> {
    host.ok("modprobe -a dm_multipath dm_round_robin")?;
    for drive in DRIVES {
        make_map(host, drive)?;
    }
    host.accept(&["/dev/mapper/d[34]"])
}

/// Makes a map like multipathd, but with a longer queue for I/O that comes while no path is left.
fn make_map(host: &Machine, drive: &str) -> Result<()> {
    let nodes = host.nodes(drive)?;
    ensure!(nodes.len() == 2, "{drive} has {nodes:?}");
    let paths: String = nodes.iter().map(|node| format!(" {node} 1")).collect();
    let wwid = host.quiet(&format!("cat /sys/block/{}/device/wwid", &nodes[0][5..]))?;
    let uuid = wwid.trim().replace("naa.", "mpath-3");
    host.ok(&format!(
        "echo \"0 $(blockdev --getsz {}) multipath 1 queue_if_no_path 0 1 1 \
         round-robin 0 2 1{paths}\" | dmsetup create --noudevsync --noudevrules {drive} --uuid \
         {uuid} && dmsetup mknodes {drive}",
        nodes[0]
    ))
    .map(drop)
}

/// Cuts one of a's paths to all drives, waits until the other path keeps the locks, and restores
/// it.
fn cut_and_restore(cluster: &Cluster, lock: &str, cut: &str, left: &str) -> Result<()> {
    let a = cluster.host("a")?;
    cluster.drives.order(&format!("fault * a.{cut} * cut"))?;
    let since = cluster.drives.time(DRIVES[0])?;
    wait_for_refresh_by(cluster, left, lock, &DRIVES, since)?;
    let works = a.lvmlockd_log().matches("works again").count();
    cluster.drives.order(&format!("fault * a.{cut} * none"))?;
    // In place of multipathd.
    for drive in DRIVES {
        for node in a.nodes(drive)? {
            a.quiet(&format!(
                "dmsetup message {drive} 0 \"reinstate_path $(cat /sys/block/{}/dev)\"",
                &node[5..]
            ))?;
        }
    }
    wait_until(Duration::from_secs(40), "lvmlockd to find that the path works again", || {
        let now = a.lvmlockd_log().matches("works again").count();
        Ok((now >= works + DRIVES.len()).then_some(()))
    })
    .context("after the path was restored")
}
