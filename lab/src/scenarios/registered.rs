//! The registrations of hosts as sg3-utils and nvme-cli show them, from the start of a VG to its
//! end.

use crate::cluster::Cluster;
use crate::drives::PARTITIONED;
use crate::machine::{Daemon, Machine};
use crate::scenarios::fenced::RESERVATIONS;
use crate::scenarios::{LEASE, TAKEN, make_vg, until_granted};
use anyhow::{Result, ensure};
use idm_emulator::disks::Interface;
use std::time::Duration;
use testbed::wait_until;

/// The keys of this library begin so.
const OURS: &str = "4944";

/// Keys on a drive, and whether its data is reserved for registered hosts.
fn look(host: &Machine, drive: &str) -> Result<(Vec<String>, bool)> {
    let node = host.disk(drive)?;
    let (text, mark, kind) = match host.interfaces().of(drive) {
        Interface::Scsi => {
            // The first command may get a unit attention condition.
            let persist = |what| format!("sg_persist --no-inquiry --in {what} {node}");
            let (keys, held) = (persist("--read-keys"), persist("--read-reservation"));
            let script = format!("{{ {keys} || {keys}; }} && {held}");
            (host.quiet(&script)?, "0x", "type: Write Exclusive, all registrants")
        }
        Interface::Nvme => {
            let script = format!("nvme resv-report {node} --namespace-id=1 --eds");
            (host.quiet(&script)?, "rkey", "rtype : 5")
        }
    };
    let plain = |line: &str| line.split_whitespace().collect::<Vec<&str>>().join(" ");
    let lines: Vec<String> = text.lines().map(plain).collect();
    let is_held = lines.iter().any(|line| line.contains(kind));
    let key = |line: &String| line.rsplit([' ', 'x']).next().unwrap_or_default().to_owned();
    let keys = lines.iter().filter(|line| line.starts_with(mark)).map(key).collect();
    Ok((keys, is_held))
}

/// Waits until every drive has so many registrants, all of this library, and is reserved if there
/// is one.
fn registered(host: &Machine, count: usize) -> Result<Vec<String>> {
    for drive in PARTITIONED {
        wait_until(Duration::from_secs(30), &format!("{count} keys on {drive}"), || {
            let (keys, is_held) = look(host, drive)?;
            Ok((keys.len() == count && is_held == (count > 0)).then_some(()))
        })?;
    }
    let keys = look(host, PARTITIONED[0])?.0;
    ensure!(keys.iter().all(|key| key.starts_with(OURS)), "{keys:?}");
    host.step(&format!("sees the registrants {keys:?}"));
    Ok(keys)
}

fn start(cluster: &mut Cluster, name: &str) -> Result<()> {
    cluster.boot(name)?;
    let text = format!("{}{RESERVATIONS}", cluster.files().idm_conf());
    let host = cluster.host_mut(name)?;
    host.write("/etc/lvm/lvmlockd-idm.conf", &text)?;
    host.start_lvmlockd(&Daemon::default())
}

pub fn run(cluster: &mut Cluster) -> Result<()> {
    start(cluster, "a")?;
    start(cluster, "b")?;
    make_vg(cluster, "-i 3 -L 48M")?;
    let both = registered(cluster.host("b")?, 2)?;
    ensure!(both[0] != both[1], "{both:?}");

    cluster.kill("a")?;
    let b = cluster.host("b")?;
    until_granted(b, "lvm lvchange -aey vg/lv", LEASE + Duration::from_secs(30))?;
    let left = registered(b, 1)?;
    ensure!(both.contains(&left[0]), "{left:?} is none of {both:?}");
    b.ok("dd if=/dev/zero of=/dev/vg/lv bs=1M count=4 oflag=direct 2>/dev/null")?;

    start(cluster, "a")?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.ok("lvm vgchange --lock-start vg")?;
    let again = registered(b, 2)?;
    ensure!(again.contains(&left[0]), "{again:?}");
    a.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    b.ok("lvm lvchange -an vg/lv")?;
    a.ok("lvm lvchange -aey vg/lv && lvm lvchange -an vg/lv")?;
    a.ok("lvm vgchange --lock-stop vg")?;
    ensure!(registered(b, 1)? == left, "the wrong host is left");
    b.ok("lvm vgremove -y vg")?;
    registered(b, 0).map(drop)
}
