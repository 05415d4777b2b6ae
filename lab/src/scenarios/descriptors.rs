//! Files that lvmlockd opens and programs that it starts: every path once, and no program.

use crate::cluster::Cluster;
use crate::machine::{Daemon, Machine};
use crate::scenarios::{LEASE, make_empty_vg};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

const TRACE: &str = "/run/lvmlockd.strace";

/// With sg nodes on one host only.
pub fn run(cluster: &mut Cluster) -> Result<()> {
    let wrapper = format!("strace -f -qq --seccomp-bpf -o {TRACE} -e trace=execve,openat,open");
    for name in ["a", "b"] {
        cluster.boot(name)?;
        let host = cluster.host_mut(name)?;
        if name == "a" {
            host.ok("modprobe sg")?;
        }
        host.start_lvmlockd(&Daemon { wrapper: wrapper.clone(), ..Daemon::default() })?;
    }
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    make_empty_vg(cluster)?;
    a.ok("lvm lvcreate -y -aey -i 3 -L 48M -n lv vg")?;
    for _ in 0..5 {
        a.ok("lvm lvcreate -y -an -L 4M -n more vg")?;
        a.ok("lvm lvchange -aey vg/more")?;
        b.refused("lvm lvchange -aey vg/more", 5, "LV locked by other host: vg/more")?;
        a.ok("lvm lvremove -y vg/more")?;
    }
    // Long enough for every lock to be refreshed.
    std::thread::sleep(LEASE / 2 + Duration::from_secs(5));
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    b.ok("lvm lvchange -an vg/lv")?;
    for (host, kind) in [(a, "/dev/sg"), (b, "/dev/sd")] {
        check(host, kind).with_context(|| format!("host {}", host.name()))?;
    }
    Ok(())
}

fn check(host: &Machine, kind: &str) -> Result<()> {
    let trace = host.quiet(&format!("cat {TRACE}"))?;
    let programs: Vec<&str> = trace.lines().filter(|line| line.contains("execve(")).collect();
    ensure!(programs.len() == 1, "lvmlockd is the only program: {programs:#?}");
    let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
    for line in trace.lines().filter(|line| line.contains("open") && !line.contains("= -1")) {
        let Some(path) = line.split('"').nth(1) else { continue };
        if path.starts_with("/dev/sd") || path.starts_with("/dev/sg") {
            *opened.entry(path).or_default() += 1;
        }
    }
    let count = opened.len();
    host.step(&format!("lvmlockd opened {opened:?}"));
    ensure!(count == 3, "three drives have one path each: {opened:?}");
    ensure!(opened.keys().all(|path| path.starts_with(kind)), "not by {kind}: {opened:?}");
    ensure!(opened.values().all(|&times| times == 1), "opened more than once: {opened:?}");
    let open = host.quiet("ls -l /proc/$(pidof lvmlockd)/fd")?;
    ensure!(open.matches(kind).count() == 3, "open now:\n{open}");
    Ok(())
}
