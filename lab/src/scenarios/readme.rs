//! README's way from an empty host to an active LV, as it is written there, on two machines.
//! `lab/readme/prepare.sh` has given the first commands, which need a network.

use crate::cluster::{Cluster, LARGE_MIB};
use crate::machine::Machine;
use crate::scenarios::TAKEN;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::Duration;
use testbed::wait_until;

/// The number of README's commands.
const COMMANDS: usize = 10;
/// The number of those that `prepare.sh` has given.
const PREPARED: usize = 3;
/// The number of those that are for every host.
const FOR_EVERY_HOST: usize = 7;
/// The drive in README's commands.
const EXAMPLE: &str = "/dev/disk/by-id/wwn-0x5000c500a1b2c3d4";
/// Longest time of a boot or a shutdown, under emulation.
const PATIENCE: Duration = Duration::from_secs(300);

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.exchange_drives(LARGE_MIB)?;
    let project = cluster.files().project.clone();
    let commands = commands(&project)?;
    for name in ["a", "b"] {
        cluster.boot_bare(name)?;
        let host = cluster.host(name)?;
        up(host)?;
        for command in &commands[PREPARED..FOR_EVERY_HOST] {
            give(host, command)?;
        }
    }
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    for command in &commands[FOR_EVERY_HOST..] {
        give(a, command)?;
    }
    let active = a.ok("lvs --noheadings -o lv_active_exclusively vg/lv")?;
    ensure!(active.trim() == "active exclusively", "vg/lv is {active:?} on a");
    b.ok("vgchange --lock-start vg")?;
    b.refused("lvchange -aey vg/lv", 5, TAKEN)?;
    let shown = b.ok("idmctl status --ask-lvm --timeout 10")?;
    b.step(&format!("sees\n{shown}"));
    let holder = shown.lines().find(|line| line.starts_with("vg/lv "));
    let holder = holder.with_context(|| format!("vg/lv is not shown: {shown}"))?;
    ensure!(holder.split_whitespace().nth(1) == Some("a"), "the holder of vg/lv: {holder}");

    // The drop-ins are in force.
    a.start("systemctl poweroff")?;
    wait_until(PATIENCE, "a to be down", || Ok(cluster.host_mut("a")?.was_reset()?.then_some(())))?;
    cluster.transcript.step("a", "is down");
    cluster.host("b")?.ok("lvchange -aey vg/lv").map(drop)
}

/// Makes systemd the first process, and waits until the host is up.
fn up(host: &Machine) -> Result<()> {
    host.write("/etc/hostname", &format!("{}\n", host.name()))?;
    host.quiet("systemd-machine-id-setup")?;
    host.leave_to("exec /lib/systemd/systemd --system --log-target=console")?;
    wait_until(PATIENCE, "the host to be up", || {
        let said = host.attempt("systemctl is-active multi-user.target")?.stdout;
        Ok((said.trim() == "active").then_some(()))
    })?;
    host.step("is up");
    Ok(())
}

/// Gives a command with a drive of the lab in place of README's.
fn give(host: &Machine, command: &str) -> Result<()> {
    let node = host.disk("d3")?;
    let link = host.quiet(&format!(
        "for link in /dev/disk/by-id/wwn-* /dev/disk/by-id/nvme-*; do \
         [ \"$(readlink -f $link)\" != {node} ] || echo $link; done"
    ))?;
    let link = link.lines().next().context("udev makes no link to d3")?;
    host.ok(&format!("cd /root; {}", command.replace(EXAMPLE, link))).map(drop)
}

/// The commands of "Run it".
fn commands(project: &Path) -> Result<Vec<String>> {
    let readme = fs::read_to_string(project.join("README.md"))?;
    let commands: Vec<String> = readme
        .lines()
        .skip_while(|line| *line != "## Run it")
        .skip_while(|line| !line.starts_with("    "))
        .map_while(|line| line.strip_prefix("    "))
        .map(str::to_owned)
        .collect();
    ensure!(commands.len() == COMMANDS, "README has other commands: {commands:#?}");
    let with_drive = commands.iter().filter(|command| command.contains(EXAMPLE)).count();
    ensure!(with_drive == 2, "{with_drive} of README's commands name {EXAMPLE}");
    Ok(commands)
}
