//! The holder of an LV is killed again and again: the time until the other host has the LV.

use crate::cluster::Cluster;
use crate::machine::Daemon;
use crate::scenarios::fenced::RESERVATIONS;
use crate::scenarios::{TAKEN, make_vg};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use testbed::wait_until;

/// The shortest lease.
const SHORTEST: Duration = Duration::from_secs(20);
/// Number of times that a host is killed.
const KILLS: usize = 8;
/// Time for the commands of the take-over, which emulation makes slow.
const COMMANDS: Duration = Duration::from_secs(5);

fn start(cluster: &mut Cluster, name: &str) -> Result<()> {
    cluster.boot(name)?;
    let own = cluster.files().idm_conf();
    let text = format!("lease_ms = {}\n{own}{RESERVATIONS}", SHORTEST.as_millis());
    let host = cluster.host_mut(name)?;
    host.write("/etc/lvm/lvmlockd-idm.conf", &text)?;
    // Time-outs of block nodes are too long for this lease.
    host.quiet("modprobe sg")?;
    host.start_lvmlockd(&Daemon::default())
}

pub fn run(cluster: &mut Cluster) -> Result<()> {
    start(cluster, "a")?;
    start(cluster, "b")?;
    make_vg(cluster, "-i 3 -L 48M")?;
    let (mut holder, mut other) = ("a", "b");
    let mut times = Vec::new();
    for _ in 0..KILLS {
        cluster.kill(holder)?;
        let killed = Instant::now();
        let taker = cluster.host(other)?;
        wait_until(SHORTEST + COMMANDS, "the LV on the other host", || {
            let ended = taker.attempt("lvm lvchange -aey vg/lv")?;
            ensure!(ended.code == 0 || ended.stderr.contains(TAKEN), "{}", ended.stderr);
            Ok((ended.code == 0).then_some(()))
        })?;
        times.push(killed.elapsed());
        taker.step(&format!("has the LV {:.1} s after the kill", killed.elapsed().as_secs_f64()));
        start(cluster, holder)?;
        cluster.host(holder)?.ok("lvm vgchange --lock-start vg")?;
        (holder, other) = (other, holder);
    }
    times.sort();
    let shown: Vec<String> = times.iter().map(|it| format!("{:.1}", it.as_secs_f64())).collect();
    cluster.transcript.step("all", &format!("times in s: {}", shown.join(" ")));
    Ok(())
}
