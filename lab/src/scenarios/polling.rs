//! lvmlockd dies while lvmpolld moves data. The work can be continued, and its result belongs to
//! the host that began it.

use crate::cluster::Cluster;
use crate::interfaces::partition;
use crate::machine::{Daemon, Machine};
use crate::scenarios::{LEASE, TAKEN, make_empty_vg, until_granted, until_refused};
use anyhow::{Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// Time for the work, which is slowed down.
const PATIENCE: Duration = Duration::from_secs(200);
/// The kernel's share of time for copies, in percent.
const THROTTLE: &str = "/sys/module/dm_mirror/parameters/raid1_resync_throttle";
/// Prints a checksum of the LV's data.
const SUM: &str = "dd if=/dev/vg/lv bs=1M count=64 iflag=direct 2>/dev/null | sha256sum";

/// A move to another drive, and the making of a mirror.
pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    make_empty_vg(cluster)?;
    let a = cluster.host("a")?;
    a.ok("modprobe dm-mirror")?;
    let (from, to) = (partition(&a.disk("d0")?, 2), partition(&a.disk("d1")?, 2));
    a.ok(&format!("lvm lvcreate -y -aey -L 256M -n lv vg {from}"))?;
    a.ok("dd if=/dev/urandom of=/dev/vg/lv bs=1M count=64 oflag=direct 2>/dev/null")?;
    let written = a.ok(SUM)?;

    continue_after_restart(cluster, &format!("lvm pvmove -b -i 1 -n lv {from} {to}"))?;
    let a = cluster.host("a")?;
    let devices = a.ok("lvm lvs --noheadings -o devices vg/lv")?;
    ensure!(devices.contains(&to) && !devices.contains(&from), "the LV is on {devices}");
    ensure!(a.ok(SUM)? == written, "the move changed the data");

    let mirror = "lvm lvconvert -y -b -i 1 --type mirror -m 1 --mirrorlog core vg/lv";
    continue_after_restart(cluster, &format!("{mirror} {from}"))?;
    let a = cluster.host("a")?;
    let percent = a.ok("lvm lvs --noheadings -o segtype,copy_percent vg/lv")?;
    ensure!(percent.contains("mirror") && percent.contains("100.00"), "the LV is {percent}");
    ensure!(a.ok(SUM)? == written, "the conversion changed the data");
    a.ok("lvm lvchange -an vg/lv")?;
    let b = cluster.host("b")?;
    b.ok("modprobe dm-mirror")?;
    // Core does not know of the lock, so the library gives it up when it sees that the LV is not
    // active any more.
    until_granted(b, "lvm lvchange -aey vg/lv", 2 * LEASE + Duration::from_secs(20))?;
    ensure!(b.ok(SUM)? == written, "b reads other data than a wrote");
    a.refused("lvm lvchange -aey vg/lv", 5, TAKEN)
}

/// Begins the work in the background, kills lvmlockd in its middle and starts it again. No other
/// host gets the LV meanwhile, and the work ends.
fn continue_after_restart(cluster: &mut Cluster, begin: &str) -> Result<()> {
    let a = cluster.host("a")?;
    a.ok(&format!("echo 1 >{THROTTLE}"))?;
    a.ok(begin)?;
    ensure!(a.quiet("dmsetup table")?.contains(" mirror "), "the work is over already");
    cluster.host_mut("a")?.kill_lvmlockd()?;
    cluster.host("b")?.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    cluster.host_mut("a")?.start_lvmlockd(&Daemon::default())?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.ok("lvm vgchange --lock-start vg")?;
    ensure!(copying(a)?, "the work was over before lvmlockd had started again");
    until_refused(b, "lvm lvchange -aey vg/lv", TAKEN)?;
    a.ok(&format!("echo 100 >{THROTTLE}"))?;
    // The process that lvmpolld has started had a connection to the dead lvmlockd, and gives up.
    a.ok("lvm vgchange --poll y vg")?;
    wait_until(PATIENCE, "lvmpolld to end the work", || Ok((!copying(a)?).then_some(())))?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)
}

/// Whether a move or a copy is going on.
fn copying(host: &Machine) -> Result<bool> {
    let list = host.quiet("lvm lvs -a --noheadings -o name,copy_percent vg")?;
    let busy = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, percent) = (words.next().unwrap_or_default(), words.next());
        name.contains("pvmove") || percent.is_some_and(|percent| percent != "100.00")
    };
    Ok(list.lines().any(busy))
}
