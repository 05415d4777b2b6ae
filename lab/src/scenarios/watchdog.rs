//! The host's watchdog, when nothing else stops the use of an LV whose lock is lost.

use crate::agent::JobId;
use crate::audit::Audit;
use crate::cluster::Cluster;
use crate::machine::Daemon;
use crate::scenarios::frozen::freeze_and_thaw;
use crate::scenarios::{
    LEASE, TAKEN, UNTIL_GRANTED, audit, check_takeover, deciding_lease, lock_of, make_vg,
    written_by_b,
};
use anyhow::{Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// The configuration; its kill command does nothing.
const CONFIGURATION: &str = "watchdog = \"/dev/watchdog\"\nkill_command = [\"/bin/true\"]\n";
/// Default timeout of the watchdog for the default lease.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Host a has a watchdog and writes to vg/lv, which b wants.
fn watched(cluster: &mut Cluster) -> Result<(Audit, JobId)> {
    for name in ["a", "b"] {
        cluster.boot(name)?;
    }
    let a = cluster.host("a")?;
    a.ok("modprobe softdog && test -c /dev/watchdog")?;
    a.write("/etc/lvm/lvmlockd-idm.conf", CONFIGURATION)?;
    for name in ["a", "b"] {
        cluster.host_mut(name)?.start_lvmlockd(&Daemon::default())?;
    }
    make_vg(cluster, "-i 3 -L 48M")?;
    let a = cluster.host("a")?;
    let (audit, writer) = (audit(a)?, a.start_writer("vg/lv")?);
    audit.wait_for_writes(&cluster.drives, "a")?;
    Ok((audit, writer))
}

/// Waits until a was reset, and makes b take the LV. Fails unless the reset was before the end of
/// a's deciding lease, on the drives' clocks, b got the LV only after that, and a wrote nothing
/// then.
fn reset_before_takeover(cluster: &mut Cluster, lock: &str, audit: &Audit) -> Result<()> {
    let b = cluster.host("b")?;
    let taker = b.start(UNTIL_GRANTED)?;
    wait_until(LEASE + Duration::from_secs(30), "the watchdog to reset a", || {
        Ok(cluster.host_mut("a")?.was_reset()?.then_some(()))
    })?;
    let age = deciding_lease(&cluster.drives, "a", lock)?;
    let seconds = age.as_secs_f64();
    cluster.transcript.step("a", &format!("was reset {seconds:.1} s into its deciding lease"));
    ensure!(age < LEASE, "the lease ended before the reset");
    let b = cluster.host("b")?;
    b.wait(taker, LEASE + Duration::from_secs(30))?;
    check_takeover(&cluster.drives, lock, ("a", "b"), LEASE + Duration::from_secs(15))?;
    written_by_b(cluster, audit)
}

/// Host a is frozen for longer than its lease. When it is thawed, the watchdog acts first.
pub fn frozen(cluster: &mut Cluster) -> Result<()> {
    let (audit, _) = watched(cluster)?;
    let lock = lock_of(cluster.host("a")?, "vg/lv")?;
    freeze_and_thaw(cluster, &lock)?;
    wait_until(TIMEOUT, "the watchdog to reset a", || {
        Ok(cluster.host_mut("a")?.was_reset()?.then_some(()))
    })?;
    cluster.transcript.step("a", "was reset");
    written_by_b(cluster, &audit)
}

/// The drives still take a's data, but none of its mutex commands.
pub fn cut(cluster: &mut Cluster) -> Result<()> {
    let (audit, _) = watched(cluster)?;
    let lock = lock_of(cluster.host("a")?, "vg/lv")?;
    cluster.drives.order("fault * a mutex cut")?;
    reset_before_takeover(cluster, &lock, &audit)?;
    let log = cluster.host("a")?.lvmlockd_log();
    for line in ["locks are still in use", "the watchdog is not fed any more"] {
        ensure!(log.contains(line), "lvmlockd did not say {line:?}");
    }
    Ok(())
}

/// lvmlockd is killed with kill -9, and not started again.
pub fn killed(cluster: &mut Cluster) -> Result<()> {
    let (audit, _) = watched(cluster)?;
    let lock = lock_of(cluster.host("a")?, "vg/lv")?;
    cluster.host_mut("a")?.kill_lvmlockd()?;
    reset_before_takeover(cluster, &lock, &audit)
}

/// lvmlockd is killed with kill -9, and started within the watchdog's time. Then an orderly stop
/// stops the watchdog.
pub fn restarted(cluster: &mut Cluster) -> Result<()> {
    let (audit, writer) = watched(cluster)?;
    cluster.host_mut("a")?.kill_lvmlockd()?;
    cluster.host_mut("a")?.start_lvmlockd(&Daemon::default())?;
    let a = cluster.host("a")?;
    a.ok("lvm vgchange --lock-start vg")?;
    a.ok("lvm lvchange -aey vg/lv")?;
    std::thread::sleep(LEASE + TIMEOUT);
    ensure!(!cluster.host_mut("a")?.was_reset()?, "the watchdog has reset a");
    cluster.host("b")?.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;

    let a = cluster.host("a")?;
    ensure!(a.job_runs(writer), "the writer has ended");
    a.stop_writer(writer)?;
    a.ok("lvm lvchange -an vg/lv && lvm vgchange --lock-stop vg")?;
    a.ok("kill $(pidof lvmlockd)")?;
    wait_until(TIMEOUT, "lvmlockd to end", || Ok((!a.lvmlockd_runs()).then_some(())))?;
    std::thread::sleep(TIMEOUT + Duration::from_secs(5));
    ensure!(!cluster.host_mut("a")?.was_reset()?, "the watchdog has reset a after an orderly stop");
    cluster.host("b")?.ok("lvm lvchange -aey vg/lv")?;
    written_by_b(cluster, &audit)
}
