//! Drives of both kinds in one VG: a lock works on both.

use crate::cluster::Cluster;
use crate::interfaces::partition;
use crate::machine::Machine;
use crate::scenarios::{BARRED, lock_of, until_granted, until_refused};
use anyhow::{Result, ensure};
use idm_emulator::disks::Interface;
use std::time::Duration;
use testbed::wait_until;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);

    // One SCSI disk and one NVMe drive: both are needed for a new lock.
    pair(cluster, a, b)?;

    // Two SCSI disks and an NVMe drive: any two are enough.
    let nodes = [a.disk("d2").map(|disk| partition(&disk, 2))?, a.disk("d3")?, a.disk("d4")?];
    a.ok(&format!("lvm vgcreate --shared --lock-type idm three {}", nodes.join(" ")))?;
    b.ok("lvm vgchange --lock-start three")?;
    a.ok("lvm lvcreate -y -aey -i 3 -L 48M -n lv three")?;
    let taken = "LV locked by other host: three/lv";
    b.refused("lvm lvchange -aey three/lv", 5, taken)?;
    let lock = lock_of(a, "three/lv")?;
    for drive in ["d2", "d3", "d4"] {
        let held = cluster.drives.records(drive, &lock)?;
        ensure!(held.iter().any(|r| r.is_of("a") && r.is_held()), "{drive}: {held:?}");
    }
    for drive in ["d3", "d4"] {
        cluster.transcript.step("", &format!("{drive} fails every mutex command"));
        let failing = cluster.drives.vague_failure(drive);
        cluster.drives.order(&format!("fault {drive} * mutex {failing}"))?;
        // The other drive may still be barred from its own turn.
        until_granted(a, "lvm lvcreate -y -aey -L 12M -n more three", BARRED)?;
        let more = "LV locked by other host: three/more";
        until_refused(b, "lvm lvchange -aey three/more", more)?;
        until_granted(a, "lvm lvremove -y three/more", BARRED)?;
        until_refused(b, "lvm lvchange -aey three/lv", taken)?;
        cluster.drives.order(&format!("fault {drive} * mutex none"))?;
        let now = cluster.drives.time(drive)?;
        wait_until(Duration::from_secs(60), "a to use the drive again for its lock", || {
            let events = cluster.drives.events(drive)?;
            let good = events
                .iter()
                .any(|e| e.at > now && e.host == "a" && e.resource == lock && e.is_good());
            Ok(good.then_some(()))
        })?;
    }
    a.ok("lvm lvchange -an three/lv")?;
    until_granted(b, "lvm lvchange -aey three/lv", Duration::from_secs(10))?;
    a.refused("lvm lvchange -aey three/lv", 5, taken)
}

fn pair(cluster: &Cluster, a: &Machine, b: &Machine) -> Result<()> {
    let interfaces = cluster.drives.interfaces;
    ensure!(
        interfaces.of("d0") == Interface::Scsi && interfaces.of("d1") == Interface::Nvme,
        "{interfaces:?}"
    );
    let nodes = [partition(&a.disk("d0")?, 2), partition(&a.disk("d1")?, 2)];
    a.ok(&format!("lvm vgcreate --shared --lock-type idm two {}", nodes.join(" ")))?;
    b.ok("lvm vgchange --lock-start two")?;
    a.ok("lvm lvcreate -y -aey -i 2 -L 32M -n lv two")?;
    let taken = "LV locked by other host: two/lv";
    b.refused("lvm lvchange -aey two/lv", 5, taken)?;
    for drive in ["d0", "d1"] {
        cluster.transcript.step("", &format!("{drive} fails every mutex command"));
        let failing = cluster.drives.vague_failure(drive);
        cluster.drives.order(&format!("fault {drive} * mutex {failing}"))?;
        let ended = b.run("lvm lvchange -aey two/lv")?;
        ensure!(ended.code == 5, "b got the lock with one drive of two: {ended:?}");
        cluster.drives.order(&format!("fault {drive} * mutex none"))?;
    }
    a.ok("lvm lvchange -an two/lv")?;
    until_granted(b, "lvm lvchange -aey two/lv", Duration::from_secs(30))?;
    a.refused("lvm lvchange -aey two/lv", 5, taken)?;
    b.ok("dd if=/dev/zero of=/dev/two/lv bs=1M count=8 oflag=direct 2>/dev/null").map(drop)
}
