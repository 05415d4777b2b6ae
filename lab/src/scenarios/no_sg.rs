//! What lvmlockd is said to need is enough.

use crate::cluster::Cluster;
use crate::machine::Daemon;
use anyhow::Result;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    let wrapper = "setpriv --bounding-set=-all,+sys_rawio --inh-caps=-all --".to_owned();
    for name in ["a", "b"] {
        cluster.boot(name)?;
        let host = cluster.host_mut(name)?;
        host.ok("test ! -e /sys/module/sg && ! ls /dev/sg* 2>/dev/null")?;
        host.start_lvmlockd(&Daemon { wrapper: wrapper.clone() })?;
        // CAP_SYS_RAWIO is number 17.
        host.ok("grep -q '^CapEff:[[:space:]]*0*20000$' /proc/$(pidof lvmlockd)/status")?;
    }
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let partitions = a.data_partitions()?;
    a.ok(&format!("lvm vgcreate --shared --lock-type idm vg {partitions}"))?;
    b.ok("lvm vgchange --lock-start vg")?;
    a.ok("lvm lvcreate -y -aey -L 32M -n lv vg")?;
    b.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv")?;
    a.ok("lvm lvchange -an vg/lv")?;
    b.ok("lvm lvchange -aey vg/lv")?;
    b.ok("lvm lvchange -an vg/lv")?;
    for host in [a, b] {
        host.ok("test ! -e /sys/module/sg")?;
    }
    Ok(())
}
