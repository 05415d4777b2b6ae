//! The drives still take a host's data, but none of its mutex commands. So only the host itself can
//! stop its writes when another host gets its locks.

use crate::cluster::Cluster;
use crate::machine::Daemon;
use crate::scenarios::{LEASE, UNTIL_GRANTED, audit, check_takeover, lock_of, make_vg};
use anyhow::{Result, ensure};
use std::time::Duration;

pub fn fenced(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    // Another VG, whose name begins like that of the first, and which has no locks to lose.
    let a = cluster.host("a")?;
    let node = a.disk("d3")?;
    a.ok(&format!("lvm vgcreate vg-2 {node} && lvm lvcreate -y -Zn -Wn -L 8M -n lv vg-2"))?;
    take_over(cluster)?;
    let a = cluster.host("a")?;
    a.ok("dmsetup table vg-lv | grep -q error && dmsetup table vg--2-lv | grep -q linear")?;
    ensure!(a.writer_errors()?.contains("error"), "a's writer has not noticed");
    a.ok("grep -qx vg /run/killed").map(drop)
}

pub fn unfenced(cluster: &mut Cluster) -> Result<()> {
    start_unstopped(cluster, "")?;
    take_over(cluster)
}

/// The same, and the drives are to refuse the data of who lost a lock.
pub fn reserved(cluster: &mut Cluster) -> Result<()> {
    start_unstopped(cluster, RESERVATIONS)?;
    take_over(cluster)?;
    let a = cluster.host("a")?;
    ensure!(a.writer_errors()?.contains("error"), "a's writer has not noticed");
    Ok(())
}

/// The setting with which drives refuse data.
pub const RESERVATIONS: &str = "[fencing]\nreservations = true\n";

/// Starts two hosts that nothing stops when they lose a lock.
pub fn start_unstopped(cluster: &mut Cluster, settings: &str) -> Result<()> {
    for name in ["a", "b"] {
        cluster.boot(name)?;
        let host = cluster.host_mut(name)?;
        let text = format!("kill_command = [\"/bin/true\"]\n{settings}");
        host.write("/etc/lvm/lvmlockd-idm.conf", &text)?;
        host.start_lvmlockd(&Daemon::default())?;
    }
    Ok(())
}

fn take_over(cluster: &Cluster) -> Result<()> {
    make_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let (lock, audit) = (lock_of(a, "vg/lv")?, audit(a)?);
    a.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "a")?;
    cluster.drives.order("fault * a mutex cut")?;
    let taker = b.start(UNTIL_GRANTED)?;
    b.wait(taker, LEASE + Duration::from_secs(40))?;
    let writer = b.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "b")?;
    check_takeover(&cluster.drives, &lock, ("a", "b"), LEASE + Duration::from_secs(15))?;
    b.stop_writer(writer)?;
    audit.check(&cluster.drives, &["a", "b"])?;
    b.check_shared_blocks("vg/lv")
}
