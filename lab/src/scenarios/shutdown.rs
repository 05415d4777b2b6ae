//! systemd shuts a machine down and boots it, with an LV that is mounted and written to. Then the
//! machine is reset, and boots with locks of its earlier life on the drives.

use crate::cluster::Cluster;
use crate::drives::PARTITIONED;
use crate::interfaces::DRIVES;
use crate::machine::Machine;
use crate::scenarios::{LEASE, TAKEN, first_grant, lease_began, lock_of};
use anyhow::{Context, Result, ensure};
use std::collections::HashSet;
use std::time::Duration;
use testbed::{Record, wait_until};

/// The LV that a activates when it boots.
const LV: &str = "vg/lv";
/// The unit that does it.
const ACTIVATE: &str = "idm-activate@vg-lv.service";
/// Longest time of a boot or a shutdown, under emulation.
const PATIENCE: Duration = Duration::from_secs(150);
/// Time that systemd waits for a service that does not stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// An application on a's file system, which is open until the application is stopped.
const APPLICATION: &str = "\
systemd-run --quiet --unit=application --property=RequiresMountsFor=/mnt/data \
sh -c 'exec >>/mnt/data/log; while echo written; do sleep 0.2; done'";

/// Orderly shutdowns: locks are given back, and no lease has to run out.
pub fn run(cluster: &mut Cluster) -> Result<()> {
    prepare(cluster)?;
    boot(cluster, true)?;
    cluster.host("a")?.wait_for_unit(ACTIVATE, PATIENCE)?;
    use_it(cluster.host("a")?)?;
    cluster.host("b")?.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    shut_down(cluster, "poweroff")?;
    has_it_at_once(cluster)?;

    // It boots while b has the LV, and gets it when b gives it up.
    boot(cluster, true)?;
    let a = cluster.host("a")?;
    a.wait_for_unit("lvmlocks.service", PATIENCE)?;
    wait_until(PATIENCE, "a to try", || {
        let log = a.attempt(&format!("journalctl -u {ACTIVATE} --no-pager"))?.stdout;
        Ok(log.contains("LV locked by other host").then_some(()))
    })?;
    cluster.host("b")?.ok("lvm lvchange -an vg/lv")?;
    a.wait_for_unit(ACTIVATE, PATIENCE)?;
    use_it(a)?;
    shut_down(cluster, "reboot")?;
    has_it_at_once(cluster)
}

/// lvm2's units alone: they stop the lockspaces while the LV is mounted, which fails.
pub fn plain(cluster: &mut Cluster) -> Result<()> {
    prepare(cluster)?;
    boot(cluster, false)?;
    cluster.host("a")?.wait_for_unit(ACTIVATE, PATIENCE)?;
    use_it(cluster.host("a")?)?;
    shut_down(cluster, "poweroff")
}

/// A reset: the machine gets its locks when the lease of its earlier life is over, and no other
/// host gets them before.
pub fn crash_boot(cluster: &mut Cluster) -> Result<()> {
    prepare(cluster)?;
    boot(cluster, true)?;
    let a = cluster.host("a")?;
    a.wait_for_unit(ACTIVATE, PATIENCE)?;
    use_it(a)?;
    let lock = lock_of(cluster.host("b")?, LV)?;
    a.quiet("until [ -s /mnt/data/log ]; do sleep 0.1; done; sync")?;
    cluster.kill("a")?;
    let killed = cluster.drives.time("d0")?;
    boot(cluster, true)?;
    cluster.host("b")?.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    let a = cluster.host("a")?;
    a.wait_for_unit(ACTIVATE, PATIENCE)?;
    cluster.host("b")?.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    let mut taken = 0;
    for drive in PARTITIONED {
        let Some(granted) = first_grant(&cluster.drives, drive, "a", &lock, killed)? else {
            continue;
        };
        let events = cluster.drives.events(drive)?;
        let earlier = events.iter().rev().find(|event| {
            event.at < killed && event.host == "a" && event.resource == lock && event.is_good()
        });
        let began = earlier.with_context(|| format!("a never had the LV on {drive}"))?.at;
        let after = granted - began;
        cluster.transcript.detail(&format!("{drive}: a got it {after:.3?} after its last command"));
        ensure!(after >= LEASE, "{drive} gave {LV} to a after {after:?} already");
        taken += 1;
    }
    ensure!(taken >= 2, "a has {LV} on {taken} of 3 drives");
    a.ok("mount -o _netdev /dev/vg/lv /mnt/data && test -s /mnt/data/log")?;
    shut_down(cluster, "poweroff")?;
    has_it_at_once(cluster)
}

/// Host b has lvmlockd, and makes a VG with an LV.
fn prepare(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["b"])?;
    let b = cluster.host("b")?;
    let partitions = b.data_partitions()?;
    b.ok(&format!("lvm vgcreate --shared --lock-type idm vg {partitions}"))?;
    b.ok("lvm lvcreate -y -aey -i 3 -L 96M -n lv vg")?;
    b.ok("mkfs.ext4 -q /dev/vg/lv")?;
    b.ok("lvm lvchange -an vg/lv").map(drop)
}

/// Boots a with systemd.
fn boot(cluster: &mut Cluster, ordered: bool) -> Result<()> {
    cluster.boot("a")?;
    let a = cluster.host("a")?;
    a.quiet("mkdir -p /mnt/data")?;
    a.start_systemd(&[LV], ordered)
}

/// Mounts the LV and starts the application.
fn use_it(a: &Machine) -> Result<()> {
    a.ok("mount -o _netdev /dev/vg/lv /mnt/data")?;
    a.ok(APPLICATION).map(drop)
}

/// Shuts a down by systemd, and looks at what is left on the drives.
fn shut_down(cluster: &mut Cluster, how: &str) -> Result<()> {
    let lock = lock_of(cluster.host("b")?, LV)?;
    let begun = cluster.drives.time("d0")?;
    // An earlier life of a that was killed leaves records that nobody needs.
    let was_over = |record: &Record| record.is_of("a") && record.state == "timed-out";
    let mut dead = HashSet::new();
    for drive in DRIVES {
        dead.extend(cluster.drives.table(drive)?.into_iter().filter(was_over).map(|it| it.host));
    }
    cluster.host("a")?.start(&format!("systemctl {how}"))?;
    wait_until(PATIENCE, "a to be down", || Ok(cluster.host_mut("a")?.was_reset()?.then_some(())))?;
    let took = cluster.drives.time("d0")? - begun;
    cluster.transcript.step("a", &format!("is down after {:.1} s", took.as_secs_f64()));
    cluster.forget("a");
    for drive in DRIVES {
        for record in cluster.drives.table(drive)? {
            let is_earlier = dead.contains(&record.host);
            let left = record.is_of("a") && record.is_held() && !is_earlier;
            ensure!(!left, "a has gone, and its lock is left on {drive}: {record:?}");
        }
    }
    for drive in PARTITIONED {
        let events = cluster.drives.events(drive)?;
        let mut last = events.iter().filter(|it| it.host == "a" && it.resource == lock);
        let last = last.next_back().with_context(|| format!("a never had {LV} on {drive}"))?;
        let is_unlocked = matches!(last.kind.as_str(), "unlock" | "destroy") && last.is_good();
        ensure!(is_unlocked, "a's last command for {LV} on {drive}: {last:?}");
        ensure!(last.at > begun, "it was given back before: {last:?}");
    }
    ensure!(took < STOP_TIMEOUT, "systemd has waited for something that did not stop: {took:?}");
    Ok(())
}

/// Host b gets the LV by its first request, without a break, and finds the application's data.
fn has_it_at_once(cluster: &Cluster) -> Result<()> {
    let b = cluster.host("b")?;
    let lock = lock_of(b, LV)?;
    let before = cluster.drives.time("d0")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    for drive in PARTITIONED {
        let given = lease_began(&cluster.drives, drive, "b", &lock)?;
        ensure!(given > before, "{drive} did not give {LV} to b");
        let events = cluster.drives.events(drive)?;
        let mut breaks = events.iter().filter(|it| {
            it.at > before && it.host == "b" && it.resource == lock && it.kind == "break"
        });
        ensure!(breaks.next().is_none(), "b had to break a's lock on {drive}");
    }
    b.ok("mkdir -p /mnt/data && mount /dev/vg/lv /mnt/data && grep -q written /mnt/data/log")?;
    b.ok("umount /mnt/data").map(drop)
}
