//! `idmctl` on machines: the holders of locks, also after a holder has died, and the reasons of
//! refusals.

use crate::cluster::Cluster;
use crate::drives::{Drives, PARTITIONED};
use crate::machine::Machine;
use crate::scenarios::{LEASE, lock_of, lock_of_vg, shared_vg, until_granted};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use testbed::wait_until;

/// The most by which a lease that idmctl computes from the hosts' clocks may be wrong here. The
/// program takes up to a second under emulation.
const INEXACT: Duration = Duration::from_secs(3);

/// Names that lvm knows, and enough time under emulation.
const OPTIONS: &str = "--ask-lvm --timeout 10";

pub fn run(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let lock = lock_of(b, "vg/lv")?;
    explained(b, "vg/lv", "held", "a holds it (exclusive)")?;

    // Two commands of a that cannot go on: one has the VG, the other the global lock.
    let vg = lock_of_vg(b, "vg")?;
    cluster.drives.order("fault * a write hang")?;
    let create = format!("lvm vgcreate --shared --lock-type idm other {}", a.disk("d3")?);
    for (command, lock) in [("lvm vgchange --addtag half-done vg", &*vg), (&create, "global")] {
        a.start(command)?;
        wait_until(Duration::from_secs(30), &format!("a to have {lock}"), || {
            for drive in PARTITIONED {
                let records = cluster.drives.records(drive, lock)?;
                if !records.iter().any(|it| it.is_of("a") && it.is_held() && it.class == "ex") {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })?;
    }
    for host in [a, b] {
        show(host)?;
        let view = status(host)?;
        for (lock, mode) in [("global", "ex"), ("vg", "ex"), ("vg/lv", "ex")] {
            let holder = holder(&view, lock, "a")?;
            ensure!(holder["standing"] == "held" && holder["mode"] == mode, "{lock}: {holder}");
            ensure!(holder["host"]["this_host"] == (host.name() == "a"), "{lock}: {holder}");
        }
    }
    explained(b, "vg", "held", "a holds it (exclusive)")?;
    explained(a, "vg/lv", "held-here", "this host")?;

    cluster.kill("a")?;
    cluster.drives.order("lift")?;
    let b = cluster.host("b")?;
    dies(cluster, b, &lock)?;
    explained(b, "vg/lv", "timed-out", "a had it")?;
    show(b)?;
    until_granted(b, "lvm lvchange -aey vg/lv", LEASE)?;
    let view = status(b)?;
    ensure!(holder(&view, "vg/lv", "b")?["standing"] == "held", "b's hold: {view}");
    explained(b, "vg/lv", "held-here", "this host")
}

/// Follows the lease of a, which is dead, to its end. Until then b is refused.
fn dies(cluster: &Cluster, b: &Machine, lock: &str) -> Result<()> {
    let mut told_dying = false;
    let refused = b.start("lvm lvchange -aey vg/lv")?;
    wait_until(LEASE + Duration::from_secs(20), "a's lease to end", || {
        let before = lease_left(&cluster.drives, lock)?;
        let view = status(b)?;
        let after = lease_left(&cluster.drives, lock)?;
        let holder = holder(&view, "vg/lv", "a")?;
        if holder["standing"] == "timed-out" {
            ensure!(
                after.is_zero(),
                "the lease runs for {after:?}, and idmctl says that it is over"
            );
            return Ok(Some(()));
        }
        let left = holder["left_ms"].as_u64().context("the time until the lease ends")?;
        let left = Duration::from_millis(left);
        b.step(&format!("{left:?} are left; the drives say {before:?} before, {after:?} after"));
        ensure!(left <= before + INEXACT && left + INEXACT >= after, "idmctl is wrong");
        if !told_dying && after < LEASE / 2 && after > LEASE / 4 {
            explained(b, "vg/lv", "held-dying", "a holds it")?;
            let said = show(b)?;
            ensure!(said.contains("its lease ends in"), "no word of a's death: {said}");
            told_dying = true;
        }
        std::thread::sleep(Duration::from_secs(5));
        Ok(None)
    })?;
    let refused = b.wait(refused, LEASE)?;
    ensure!(refused.stderr.contains("VG vg lock skipped: held by other host"), "{refused:?}");
    ensure!(told_dying, "nobody asked why the lock is refused while the lease ran out");
    Ok(())
}

/// The rest of a's lease on the drives' clocks: two of three drives decide, so the one in the
/// middle does.
fn lease_left(drives: &Drives, lock: &str) -> Result<Duration> {
    let mut left = Vec::new();
    for drive in PARTITIONED {
        let records = drives.records(drive, lock)?;
        let of_a = records.iter().find(|record| record.is_of("a"));
        left.push(of_a.and_then(|record| record.lease_left).unwrap_or_default());
    }
    left.sort();
    Ok(left[1])
}

/// The locks, as programs see them.
fn status(host: &Machine) -> Result<Value> {
    let ended =
        host.attempt(&format!("{} status --json {OPTIONS}", host.files().idmctl.display()))?;
    serde_json::from_str(&ended.stdout)
        .with_context(|| format!("idmctl status: {}{}", ended.stdout, ended.stderr))
}

/// Prints the locks as people see them.
fn show(host: &Machine) -> Result<String> {
    let ended = host.run(&format!("{} status {OPTIONS}", host.files().idmctl.display()))?;
    host.step(&format!("sees\n{}", ended.stdout));
    Ok(ended.stdout)
}

/// The hold of a host on a lock.
fn holder<'v>(view: &'v Value, lock: &str, host: &str) -> Result<&'v Value> {
    let all = |value: &'v Value| value.as_array().into_iter().flatten();
    let mut locks = all(&view["locks"]).filter(|it| it["name"] == lock);
    let holders = locks.next().with_context(|| format!("{lock} is not in {view}"))?;
    let mut holders = all(&holders["holders"]).filter(|it| it["host"]["name"] == host);
    holders.next().with_context(|| format!("{host} does not hold {lock} in {view}"))
}

/// Fails unless the decisive cause of a lock's refusal has this code and these words.
fn explained(host: &Machine, lock: &str, code: &str, words: &str) -> Result<()> {
    let program = host.files().idmctl.display();
    let command = format!("{program} why {lock} {OPTIONS}");
    let said = host.run(&command)?.stdout;
    host.step(&format!("is told: {}", said.trim()));
    let ended = host.attempt(&format!("{command} --json"))?;
    let answer: Value = serde_json::from_str(&ended.stdout)
        .with_context(|| format!("idmctl why: {}{}", ended.stdout, ended.stderr))?;
    ensure!(answer["causes"][0]["code"] == code, "not {code}: {answer:#}");
    ensure!(said.contains(words), "no {words:?}: {said}");
    Ok(())
}
