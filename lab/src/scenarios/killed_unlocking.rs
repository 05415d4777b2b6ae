//! lvmlockd is killed while its UNLOCKs are under way. A process that waits at an sg node ends at
//! once and leaves them with the adapter, so they reach the drives during the next lvmlockd's life.

use crate::agent::JobId;
use crate::audit::Audit;
use crate::cluster::Cluster;
use crate::drives::{Event, PARTITIONED};
use crate::machine::{Daemon, Machine};
use crate::scenarios::{LEASE, audit_of, lock_of, make_empty_vg, until_granted};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use testbed::wait_until;

/// The LVs whose UNLOCKs are late. Each of these commands occupies one of its drive's four workers.
const LATE: [&str; 3] = ["late1", "late2", "late3"];
/// An LV that stays active all the time, and has to be adopted.
const KEPT: &str = "kept";

/// The earliest times at which an LV's UNLOCKs reach the three drives, in ms after the death of the
/// lvmlockd that sent them. The deactivation takes some time before it sends them; they are later
/// by that time.
type Moments = [u64; 3];

/// Moments by round and LV: before lvmlockd runs again, while the VG is started, before and after
/// LVs are granted; and at different times on different drives.
const ROUNDS: [[Moments; 3]; 2] =
    [[[11_000; 3], [4500; 3], [0; 3]], [[500, 6000, 11_500], [8500; 3], [2500; 3]]];

/// The longest that the deactivation of one LV may take.
const DEACTIVATION: Duration = Duration::from_secs(3);
/// Time within which the commands of a killed process reach the drives (docs/locking.md).
const STAY: Duration = Duration::from_secs(LEASE.as_secs() / 4);
/// Time in which a process ends that no command blocks.
const DYING: Duration = Duration::from_secs(2);

/// Tries to get the late LVs in an endless loop. Uses each LV that it gets for 2 s, and gives it
/// back.
const WANT: &str = "while test ! -e /run/enough; do for lv in late1 late2 late3; do \
    if lvm lvchange -aey vg/$lv; then \
        echo $lv; timeout 2 WRITER /dev/vg/$lv b 1; lvm lvchange -an vg/$lv; sleep 2; \
    fi; done; done 2>/dev/null";

/// An LV with its audit and its writer on a.
struct Lv {
    name: &'static str,
    lock: String,
    audit: Audit,
    writer: JobId,
}

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    let a = cluster.host_mut("a")?;
    a.ok("modprobe sg")?;
    a.start_lvmlockd(&Daemon::default())?;
    cluster.start(&["b"])?;
    make_empty_vg(cluster)?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let kept = make_lv(a, KEPT)?;
    let mut late = LATE.iter().map(|lv| make_lv(a, lv)).collect::<Result<Vec<_>>>()?;
    a.quiet("ls -l /proc/$(pidof lvmlockd)/fd | grep -q /dev/sg").context("not by sg nodes")?;
    let writer = b.files().writer.display().to_string();
    let wants = b.start(&WANT.replace("WRITER", &writer))?;
    for (number, moments) in (1..).zip(&ROUNDS) {
        cluster
            .transcript
            .step("", &format!("round {number}: UNLOCKs reach drives at {moments:?} ms"));
        round(cluster, &mut late, moments)?;
        let a = cluster.host("a")?;
        for lv in late.iter().chain([&kept]) {
            ensure!(a.job_runs(lv.writer), "the writer of {} has ended", lv.name);
        }
        kept.audit.check(&cluster.drives, &["a"])?;
        let errors = a.writer_errors()?;
        ensure!(errors.is_empty(), "a writer was disturbed: {errors}");
        ensure!(a.run("test -e /run/killed")?.code != 0, "the VG was killed");
    }

    // Ordinary commands give all locks back.
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    b.quiet("touch /run/enough")?;
    let got = b.wait(wants, LEASE)?.stdout;
    b.step(&format!("got the LVs {} times in between", got.lines().count()));
    for lv in late.iter().chain([&kept]) {
        stop_writer(a, lv)?;
        a.ok(&format!("lvm lvchange -an vg/{}", lv.name))?;
        b.ok(&format!("lvm lvchange -aey vg/{}", lv.name))?;
        lv.audit.check(&cluster.drives, &["a"])?;
    }
    Ok(())
}

/// Makes an LV that is active on this host and written to.
fn make_lv(host: &Machine, name: &'static str) -> Result<Lv> {
    let lv = format!("vg/{name}");
    host.ok(&format!("lvm lvcreate -y -aey -i 3 -L 12M -n {name} vg"))?;
    let (lock, audit) = (lock_of(host, &lv)?, audit_of(host, &lv)?);
    Ok(Lv { name, lock, audit, writer: host.start_writer(&lv)? })
}

/// Stops the writer of one LV.
fn stop_writer(host: &Machine, lv: &Lv) -> Result<()> {
    host.quiet(&format!("pkill -f '^[^ ]*lab-writer /dev/vg/{} '", lv.name))?;
    host.wait(lv.writer, LEASE).map(drop)
}

/// Kills lvmlockd on a while the UNLOCKs of the late LVs are under way, and lets the next one
/// activate these LVs again.
fn round(cluster: &mut Cluster, late: &mut [Lv], moments: &[Moments; 3]) -> Result<()> {
    // Done now, because nothing may come between the deactivations and the death.
    late.iter().try_for_each(|lv| stop_writer(cluster.host("a")?, lv))?;
    let death = Instant::now() + DEACTIVATION * u32::try_from(late.len())?;
    for (lv, moments) in late.iter().zip(moments) {
        hold_unlocks(cluster, lv, moments, death)?;
    }
    ensure!(Instant::now() < death, "the deactivations took longer than {DEACTIVATION:?} each");
    std::thread::sleep(death.saturating_duration_since(Instant::now()));
    let died = cluster.drives.time("d0")?;
    let begin = Instant::now();
    cluster.host_mut("a")?.kill_lvmlockd()?;
    ensure!(begin.elapsed() < DYING, "it ended only after {:?}", begin.elapsed());
    cluster.host_mut("a")?.start_lvmlockd(&Daemon::default())?;

    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    until_granted(a, "lvm vgchange --lock-start vg", LEASE)?;
    b.refused(&format!("lvm lvchange -aey vg/{KEPT}"), 5, "locked by other host")?;
    until_granted(a, &format!("lvm lvchange -aey vg/{KEPT}"), LEASE)?;
    for lv in late.iter_mut() {
        until_granted(a, &format!("lvm lvchange -aey vg/{}", lv.name), LEASE)?;
        lv.writer = a.start_writer(&format!("vg/{}", lv.name))?;
    }
    wait_until(STAY * 2, "the last UNLOCK", || {
        Ok((cluster.drives.time("d0")? > died + STAY).then_some(()))
    })?;
    for (lv, moments) in late.iter().zip(moments) {
        check_unlocks(cluster, lv, moments, died)?;
        lv.audit.check(&cluster.drives, &["a"])?;
        let taken = format!("LV locked by other host: vg/{}", lv.name);
        b.refused(&format!("lvm lvchange -aey vg/{}", lv.name), 5, &taken)?;
    }
    ensure!(!b.ok("dmsetup ls")?.contains("vg-"), "b has an LV active");
    cluster.drives.order("lift")
}

/// Deactivates an LV, and holds its UNLOCKs back from the drives until these times after the
/// `death`.
fn hold_unlocks(cluster: &Cluster, lv: &Lv, moments: &Moments, death: Instant) -> Result<()> {
    let a = cluster.host("a")?;
    for (drive, ms) in PARTITIONED.iter().zip(moments) {
        let at = death + Duration::from_millis(*ms);
        let delay = at.saturating_duration_since(Instant::now()).as_millis();
        cluster.drives.order(&format!("fault {drive} a unlock delay {delay} 1"))?;
    }
    a.ok(&format!("lvm lvchange -an vg/{}", lv.name))?;
    wait_until(DEACTIVATION, "the UNLOCKs", || {
        Ok(cluster.drives.ask("rules")?.lines().all(|rule| rule.ends_with(" 0 left")).then_some(()))
    })
}

/// Fails unless a's UNLOCKs of a lock have reached the drives at the planned times: during the next
/// lvmlockd's life, and not later than commands of a killed process can.
fn check_unlocks(cluster: &Cluster, lv: &Lv, moments: &Moments, died: Duration) -> Result<()> {
    let mut reached = Vec::new();
    for (drive, ms) in PARTITIONED.iter().zip(moments) {
        let least = died + Duration::from_millis(*ms);
        let events = cluster.drives.events(drive)?;
        let is_unlock = |event: &&Event| {
            event.host == "a" && event.resource == lv.lock && event.kind == "unlock"
        };
        let after = events.iter().filter(is_unlock).find_map(|event| {
            (event.at >= least).then(|| event.at - died).filter(|&after| after < STAY)
        });
        let after = after.with_context(|| format!("{drive} got no late UNLOCK of {}", lv.name))?;
        reached.push(format!("{drive} {:.1} s", after.as_secs_f64()));
    }
    let reached = reached.join(", ");
    cluster.transcript.detail(&format!("UNLOCKs of {}, after the death: {reached}", lv.name));
    Ok(())
}
