//! The documented requirements of lvmlockd are enough.

use crate::cluster::Cluster;
use crate::machine::Daemon;
use crate::scenarios::make_empty_vg;
use anyhow::Result;
use idm_emulator::disks::Interface;

pub fn run(cluster: &mut Cluster) -> Result<()> {
    // CAP_SYS_RAWIO is number 17 and for SCSI, CAP_SYS_ADMIN is number 21 and for NVMe.
    let needed = [(Interface::Scsi, "sys_rawio", 17), (Interface::Nvme, "sys_admin", 21)];
    let needed = needed.into_iter().filter(|(kind, ..)| cluster.drives.interfaces.include(*kind));
    let (mut names, mut bits) = (String::new(), 0_u64);
    for (_, name, number) in needed {
        names.push_str(&format!(",+{name}"));
        bits |= 1 << number;
    }
    let wrapper = format!("setpriv --bounding-set=-all{names} --inh-caps=-all --");
    for name in ["a", "b"] {
        cluster.boot(name)?;
        let host = cluster.host_mut(name)?;
        host.ok("test ! -e /sys/module/sg && ! ls /dev/sg* 2>/dev/null")?;
        host.start_lvmlockd(&Daemon { wrapper: wrapper.clone(), ..Daemon::default() })?;
        host.ok(&format!(
            "grep -q '^CapEff:[[:space:]]*0*{bits:x}$' /proc/$(pidof lvmlockd)/status"
        ))?;
    }
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    make_empty_vg(cluster)?;
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
