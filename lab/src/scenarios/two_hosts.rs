//! Two hosts: exclusive and shared use, and locks that are held while the VG and the LV change.

use crate::cluster::Cluster;
use crate::interfaces::partition;
use crate::machine::Machine;
use crate::scenarios::{TAKEN, make_empty_vg, until_granted};
use anyhow::{Result, ensure};
use std::time::Duration;

/// Prints a checksum of the LV's data.
const SUM: &str = "dd if=/dev/vg/lv bs=1M count=24 iflag=direct 2>/dev/null | sha256sum";

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    make_empty_vg(cluster)?;
    ensure!(b.ok("lvm vgs --noheadings -o name")?.trim() == "vg", "b does not see the VG");
    let written = exclusive_is_for_one(a, b)?;
    shared_is_for_both(a, b, &written)?;
    let added = both_change_the_vg(a, b)?;
    the_lock_follows_the_data(a, b, &added, &written)?;
    the_vg_goes_when_others_have_stopped_it(a, b)
}

/// Makes an LV that `a` uses exclusively. Returns the checksum of the data that was written to it.
fn exclusive_is_for_one(a: &Machine, b: &Machine) -> Result<String> {
    a.ok("lvm lvcreate -y -aey -L 32M -n lv vg")?;
    a.ok("dd if=/dev/urandom of=/dev/vg/lv bs=1M count=24 oflag=direct 2>/dev/null")?;
    let written = a.ok(SUM)?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    b.refused("lvm lvchange -asy vg/lv", 5, TAKEN)?;
    ensure!(!b.ok("dmsetup ls")?.contains("vg-lv"), "b has the LV active");
    Ok(written)
}

/// Activates the LV on both hosts; only the last one can have it exclusively.
fn shared_is_for_both(a: &Machine, b: &Machine, written: &str) -> Result<()> {
    a.ok("lvm lvchange -an vg/lv")?;
    a.ok("lvm lvchange -asy vg/lv")?;
    b.ok("lvm lvchange -asy vg/lv")?;
    ensure!(b.ok(SUM)? == written, "b reads other data than a wrote");
    a.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    b.ok("lvm lvchange -an vg/lv")?;
    a.ok("lvm lvchange -aey vg/lv")?;
    b.refused("lvm lvchange -asy vg/lv", 5, TAKEN)?;
    Ok(())
}

/// Makes both hosts change the VG, at last at the same time: each must see every change. Returns
/// the block node, on `a`, of a drive that was added.
fn both_change_the_vg(a: &Machine, b: &Machine) -> Result<String> {
    let (new_a, new_b) = (a.disk("d3")?, b.disk("d4")?);
    a.ok(&format!("lvm vgextend vg {new_a}"))?;
    b.ok(&format!("lvm vgextend vg {new_b}"))?;
    ensure!(a.ok("lvm vgs --noheadings -o pv_count vg")?.trim() == "5", "a does not see 5 PVs");
    a.ok(&format!("lvm vgreduce vg {}", a.disk("d4")?))?;
    ensure!(b.ok("lvm vgs --noheadings -o pv_count vg")?.trim() == "4", "b does not see 4 PVs");
    let make = |name: &str| {
        format!("for i in 1 2 3 4; do lvm lvcreate -y -an -L 4M -n {name}$i vg || exit 1; done")
    };
    let (job_a, job_b) = (a.start(&make("a"))?, b.start(&make("b"))?);
    for (host, job) in [(a, job_a), (b, job_b)] {
        let ended = host.wait(job, Duration::from_secs(100))?;
        ensure!(ended.code == 0, "{}: {}{}", host.name(), ended.stdout, ended.stderr);
    }
    ensure!(a.ok("lvm lvs --noheadings vg")?.lines().count() == 9, "there are not 9 LVs");
    Ok(new_a)
}

/// Moves the LV, which `a` has, from the first drive, the drive of its lock, to a drive that came
/// to the VG after `b` had started it. `b` must still be refused.
fn the_lock_follows_the_data(a: &Machine, b: &Machine, added: &str, written: &str) -> Result<()> {
    a.ok(&format!("lvm lvextend -L 48M vg/lv {added}"))?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    let first = partition(&a.disk("d0")?, 2);
    let moving = a.start(&format!("lvm pvmove -n lv {first} {added}"))?;
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    let ended = a.wait(moving, Duration::from_secs(100))?;
    ensure!(ended.code == 0, "pvmove: {}{}", ended.stdout, ended.stderr);
    let devices = a.ok("lvm lvs --noheadings -o devices vg/lv")?;
    ensure!(!devices.contains(&first), "the LV is still on {first}: {devices}");
    b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    b.refused("lvm lvchange -asy vg/lv", 5, TAKEN)?;
    ensure!(a.ok(SUM)? == written, "the move changed the data");
    a.ok("lvm lvchange -an vg/lv")?;
    until_granted(b, "lvm lvchange -aey vg/lv", Duration::from_secs(5))?;
    ensure!(b.ok(SUM)? == written, "b reads other data than a wrote");
    a.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    b.ok("lvm lvchange -an vg/lv")?;
    Ok(())
}

/// Renames and removes the VG. Both are refused until the other host has stopped it.
fn the_vg_goes_when_others_have_stopped_it(a: &Machine, b: &Machine) -> Result<()> {
    // lvm2's vgrename does not fail for the reason that it prints, and its vgremove removes LVs
    // before it checks.
    let busy = |command: &str| -> Result<()> {
        let said = a.run(command)?.stderr;
        ensure!(said.contains("not stopped on other hosts"), "{command}: {said}");
        Ok(())
    };
    busy("lvm vgrename vg other")?;
    ensure!(a.ok("lvm vgs --noheadings -o name")?.trim() == "vg", "the VG was renamed");
    b.ok("lvm vgchange --lock-stop vg")?;
    a.ok("lvm vgrename vg other")?;
    b.ok("lvm vgchange --lock-start other")?;
    b.ok("lvm lvchange -aey other/lv && lvm lvchange -an other/lv")?;
    busy("lvm vgremove -y other")?;
    ensure!(a.ok("lvm vgs --noheadings -o name")?.trim() == "other", "the VG was removed");
    b.ok("lvm vgchange --lock-stop other")?;
    a.ok("lvm vgremove -y other")?;
    ensure!(b.ok("lvm vgs --noheadings")?.trim().is_empty(), "b still sees the VG");
    Ok(())
}
