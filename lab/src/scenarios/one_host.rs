//! One host: every kind of LV and every mode of activation, with data written and read back.

use crate::cluster::Cluster;
use crate::scenarios::lock_of;
use anyhow::{Result, ensure};

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a"])?;
    let a = cluster.host("a")?;
    let partitions = a.data_partitions()?;

    a.ok(&format!("lvm vgcreate --shared --lock-type idm vg {partitions}"))?;
    let listed = a.ok("lvm vgs --noheadings -o lock_type vg")?;
    ensure!(listed.trim() == "idm", "the VG's lock type is {listed:?}");
    let global = cluster.drives.table("d0")?;
    ensure!(
        global.iter().any(|record| record.resource == "global"),
        "the global lock is not on the partitions named propeller"
    );

    a.ok("lvm lvcreate -y -aey -L 32M -n lv vg")?;
    a.ok("dd if=/dev/urandom of=/tmp/data bs=1M count=24 2>/dev/null && \
          dd if=/tmp/data of=/dev/vg/lv bs=1M oflag=direct 2>/dev/null")?;
    let lock = lock_of(a, "vg/lv")?;
    let held = cluster.drives.records("d0", &lock)?;
    ensure!(held.iter().any(|record| record.is_held() && record.class == "ex"), "d0: {held:?}");
    a.ok("lvm lvextend -L 48M vg/lv")?;
    read_back(cluster)?;
    a.ok("lvm lvchange -asy vg/lv")?;
    a.ok("lvm lvchange -aey vg/lv")?;
    a.ok("lvm lvchange -an vg/lv")?;
    a.ok("lvm lvchange -asy vg/lv")?;
    read_back(cluster)?;
    a.ok("lvm lvchange -an vg/lv && lvm lvchange -aey vg/lv")?;

    a.ok("lvm lvcreate -y -s -L 16M -n old vg/lv")?;
    a.ok("dd if=/dev/zero of=/dev/vg/lv bs=1M count=8 oflag=direct 2>/dev/null")?;
    a.ok("dd if=/dev/vg/old bs=1M count=24 2>/dev/null | cmp -n 25165824 - /tmp/data")?;
    a.ok("lvm lvremove -y vg/old")?;

    a.ok("lvm lvcreate -y -aey -m 1 -L 16M -n mirrored vg")?;
    a.ok("dd if=/tmp/data of=/dev/vg/mirrored bs=1M count=16 oflag=direct 2>/dev/null")?;
    a.ok("lvm lvcreate -y -aey --type thin-pool -L 64M -n pool vg")?;
    a.ok("lvm lvcreate -y -aey -V 128M -n thin --thinpool vg/pool")?;
    a.ok("dd if=/tmp/data of=/dev/vg/thin bs=1M oflag=direct 2>/dev/null")?;
    a.ok("lvm lvcreate -y -s -kn -n thinsnap vg/thin")?;
    a.ok("dd if=/dev/zero of=/dev/vg/thin bs=1M count=4 oflag=direct 2>/dev/null")?;
    a.ok("lvm lvchange -aey vg/thinsnap && dd if=/dev/vg/thinsnap bs=1M count=24 2>/dev/null | \
          cmp -n 25165824 - /tmp/data")?;
    a.ok("lvm lvremove -y vg/thinsnap vg/thin vg/pool")?;
    a.ok("lvm lvchange -an vg")?;
    let active = a.ok("dmsetup ls")?;
    ensure!(active.contains("No devices found"), "after deactivation there is still: {active}");
    a.ok("lvm lvremove -y vg/mirrored vg/lv")?;
    a.ok("lvm vgremove vg")?;
    ensure!(a.ok("lvm vgs --noheadings")?.trim().is_empty(), "the VG is still there");
    for drive in crate::drives::PARTITIONED {
        let left: Vec<_> = cluster
            .drives
            .table(drive)?
            .into_iter()
            .filter(|record| record.resource.starts_with("lv ") && record.is_held())
            .collect();
        ensure!(left.is_empty(), "{drive} still has {left:?}");
    }
    Ok(())
}

fn read_back(cluster: &Cluster) -> Result<()> {
    let command = "dd if=/dev/vg/lv bs=1M count=24 iflag=direct 2>/dev/null | cmp - /tmp/data";
    cluster.host("a")?.ok(command).map(drop)
}
