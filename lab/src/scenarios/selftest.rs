//! `idmctl selftest` on a machine's drives, while a lock on some of them is in use.

use crate::cluster::Cluster;
use crate::drives::{Drives, PARTITIONED};
use crate::interfaces::DRIVES;
use crate::machine::Machine;
use crate::scenarios::reservations::Client;
use crate::scenarios::{TAKEN, shared_vg};
use anyhow::{Context, Result, ensure};
use idm_emulator::disks::Interface;
use serde_json::Value;
use std::time::Duration;
use testbed::wait_until;

/// Longest time of a test that shares the processor with four others.
const PATIENCE: Duration = Duration::from_secs(240);
/// Tests that are interrupted.
const INTERRUPTED: usize = 50;
/// Time within which a test is interrupted: no more than it takes.
const WITHIN_MS: u64 = 9000;
/// The exit status of idmctl for an action that was not possible.
const FAILED: i32 = 4;
/// Time for which a drive holds back the commands that have to be given up.
const DELAY: Duration = Duration::from_millis(500);
/// A trace on a machine.
const TRACE: &str = "/tmp/trace";

pub fn run(cluster: &mut Cluster) -> Result<()> {
    shared_vg(cluster, "-i 3 -L 48M")?;
    let a = cluster.host("a")?;
    let before = others(&cluster.drives)?;
    for drive in DRIVES {
        tested(a, drive)?;
    }
    nothing_left(&cluster.drives)?;
    traced(a)?;
    interrupted(cluster, a)?;
    killed(cluster, a)?;
    // The lock that was in use is.
    let b = cluster.host("b")?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    let after = others(&cluster.drives)?;
    ensure!(before == after, "locks of others were {before:?} and are {after:?}");
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv").map(drop)
}

/// A drive behaves as its firmware does, whatever the interface. Returns the report.
fn tested(host: &Machine, drive: &str) -> Result<Value> {
    let (node, program) = (host.disk(drive)?, host.files().idmctl.display());
    let (code, report) =
        report(host, &format!("{program} selftest {node} --yes --json --timeout 10"))?;
    let exact = report["profile"]["exact"].as_array().cloned().unwrap_or_default();
    let is_current = exact.iter().any(|name| name == "current");
    ensure!(code == 0 && is_current, "{drive}: status {code}: {report:#}");
    ensure!(report["verdict"] == "as-relied-on", "{drive}: {report:#}");
    let names: Vec<&str> = exact.iter().filter_map(Value::as_str).collect();
    host.step(&format!("{drive} has firmware profile {}", names.join(" or ")));
    Ok(report)
}

/// Runs a test. Returns its exit status and its report.
fn report(host: &Machine, command: &str) -> Result<(i32, Value)> {
    let ended = host.run(command)?;
    let report = serde_json::from_str(&ended.stdout);
    Ok((ended.code, report.with_context(|| format!("{}{}", ended.stdout, ended.stderr))?))
}

/// A recorded test replays on the profile of the drives only. It is refused if one byte was
/// changed, wherever that is.
fn traced(host: &Machine) -> Result<()> {
    let (node, program) = (host.disk("d3")?, host.files().idmctl.display());
    host.ok(&format!("{program} selftest {node} --yes --timeout 10 --record {TRACE}"))?;
    let said = host.ok(&format!("{program} replay {TRACE}"))?;
    host.step(&format!("is told\n{said}"));
    ensure!(said.contains("answered in the same way by current"), "another firmware: {said}");
    let length: u64 = host.quiet(&format!("stat -c %s {TRACE}"))?.trim().parse()?;
    let mut random = fastrand::Rng::with_seed(16);
    for _ in 0..10 {
        let at = random.u64(..length);
        // `~` is in no trace.
        host.quiet(&format!(
            "cp {TRACE} {TRACE}.edited && \
             printf '~' | dd of={TRACE}.edited bs=1 seek={at} conv=notrunc status=none"
        ))?;
        let edited = format!("{program} replay {TRACE}.edited");
        let ended = host.attempt(&edited)?;
        ensure!(ended.code == FAILED, "byte {at} was edited: {}{}", ended.stdout, ended.stderr);
    }
    host.refused(&format!("{program} replay {TRACE}.edited"), FAILED, "it was changed")
}

/// Tests that are interrupted at random moments, on all drives at once.
fn interrupted(cluster: &Cluster, host: &Machine) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(50);
    let (mut count, program) = (0, host.files().idmctl.display());
    for signal in ["INT", "TERM", "HUP"].into_iter().cycle() {
        let mut jobs = Vec::new();
        for drive in DRIVES {
            let (after_ms, node) = (random.u64(1..WITHIN_MS), host.disk(drive)?);
            let test = format!(
                "exec timeout --preserve-status -s {signal} {after_ms}e-3 {program} selftest \
                 {node} --yes --timeout 10"
            );
            let log = format!("selftest-{drive}");
            jobs.push((host.start_logged(&test, &log)?, log, test));
        }
        for (job, log, test) in jobs {
            let ended = host.wait(job, PATIENCE)?;
            let said = host.read_log(&log);
            let told = ended.code == FAILED && said.contains("interrupted");
            // A signal before the test has sent anything ends the program at once.
            let before = ended.code > 128 && said.is_empty();
            ensure!(ended.code == 0 || told || before, "{test}: status {}: {said}", ended.code);
            count += usize::from(told);
        }
        nothing_left(&cluster.drives)?;
        if count >= INTERRUPTED {
            break;
        }
    }
    host.step(&format!("{count} tests were interrupted at random moments, and left nothing"));
    Ok(())
}

/// The remains of a killed test are removed by the next one.
fn killed(cluster: &Cluster, host: &Machine) -> Result<()> {
    let (node, program) = (host.disk("d4")?, host.files().idmctl.display());
    let killed = host.start(&format!("exec {program} selftest {node} --yes --timeout 10"))?;
    wait_until(Duration::from_secs(30), "the test to have something on the drive", || {
        if scratch(&cluster.drives, "d4")? == 0 {
            return Ok(None);
        }
        host.quiet("kill -9 $(pidof idmctl)")?;
        Ok(Some(()))
    })?;
    host.wait(killed, PATIENCE)?;
    let left = scratch(&cluster.drives, "d4")?;
    host.step(&format!("the killed test has left {left} records"));
    tested(host, "d4")?;
    nothing_left(&cluster.drives)
}

/// Commands that are given up by one path are awaited by the other.
pub fn second_path(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    let cut = cluster.host("a")?.disk("d3")?;
    cluster.plug_second_path("a")?;
    let a = cluster.host("a")?;
    // A block node has no time-out below 7 s.
    a.ok("modprobe sg")?;
    a.enable_timeouts()?;
    let nodes = a.nodes("d3")?;
    let other = nodes.iter().find(|node| **node != cut).context("a second path")?;
    cluster.drives.order(&format!("fault d3 a.0 trylock delay {}", DELAY.as_millis()))?;
    let program = a.files().idmctl.display();
    let test = format!("{program} selftest {cut} --yes --json --timeout 10 --second-path {other}");
    is_tested(a, &test, "cut")?;
    cluster.drives.order("lift")?;
    let before = registrations(cluster)?;
    is_tested(a, &format!("{test} --reserve"), "reservation")?;
    ensure!(registrations(cluster)? == before, "the test has left a reservation");
    nothing_left(&cluster.drives)
}

/// A test goes well and includes this rule.
fn is_tested(host: &Machine, test: &str, rule: &str) -> Result<()> {
    let (code, report) = report(host, test)?;
    let rules = report["rules"].as_array().cloned().unwrap_or_default();
    let found = rules.iter().find(|it| it["rule"] == rule);
    let found = found.with_context(|| format!("no rule `{rule}`"))?;
    host.step(&format!("{found:#}"));
    ensure!(code == 0 && report["verdict"] == "as-relied-on", "{report:#}");
    ensure!(found["skipped"] == false, "not tested: {found}");
    Ok(())
}

/// A drive whose data another host has reserved is tested if it carries out this host's mutex
/// commands. If it refuses them, it is not called broken.
pub fn reserved(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    cluster.boot("b")?;
    Client::new(cluster, "b")?.reserve()?;
    let before = registrations(cluster)?;
    let a = cluster.host("a")?;
    let report = tested(a, "d3")?;
    let told = report["reservation"].as_str().unwrap_or_default();
    ensure!(told.contains("1 registration"), "{report:#}");
    nothing_left(&cluster.drives)?;
    if a.interfaces().of("d3") == Interface::Scsi {
        cluster.drives.order("fault d3 a mutex fail 18")?;
        let (node, program) = (a.disk("d3")?, a.files().idmctl.display());
        let test = format!("{program} selftest {node} --yes --timeout 10");
        a.refused(&test, FAILED, "reserved for others (")?;
    }
    ensure!(registrations(cluster)? == before, "the test has changed reservations");
    nothing_left(&cluster.drives)
}

/// The reservation of the drive's data and its registrations, without their generation.
fn registrations(cluster: &Cluster) -> Result<Vec<String>> {
    let all = cluster.drives.ask("reservations d3")?;
    Ok(all.lines().skip(1).map(str::to_owned).collect())
}

/// The number of records of tests on a drive.
fn scratch(drives: &Drives, drive: &str) -> Result<usize> {
    Ok(drives.ask(&format!("table {drive}"))?.matches("scratch-of-idmctl").count())
}

fn nothing_left(drives: &Drives) -> Result<()> {
    for drive in DRIVES {
        let left = scratch(drives, drive)?;
        ensure!(left == 0, "{left} records of tests are left on {drive}");
    }
    Ok(())
}

/// The locks of hosts, by drive.
fn others(drives: &Drives) -> Result<Vec<(&'static str, String, String)>> {
    let mut all = Vec::new();
    for drive in PARTITIONED {
        let held = drives.table(drive)?.into_iter().filter(|record| record.is_held());
        all.extend(held.map(|record| (drive, record.resource, record.host)));
    }
    all.sort();
    Ok(all)
}
