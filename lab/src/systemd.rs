//! systemd as the first process of a machine, with lvm2's own units and with ours, as docs/boot.md
//! has them enabled.

use crate::files::Files;
use crate::interfaces::Interfaces;
use crate::machine::Machine;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::time::Duration;
use testbed::wait_until;

/// The page whose commands enable the units.
const PAGE: &str = "docs/boot.md";
/// Files that `make install` puts into /usr/share/lvmlockd-idm.
const SHARED: [&str; 2] = ["idm-restart.conf", "idm-order.conf"];
/// Units of the distribution that the lab does not need, or that do not work in it.
const MASKED: [&str; 8] = [
    "dbus.service",
    "dbus.socket",
    "getty.target",
    "systemd-firstboot.service",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-timesyncd.service",
    "timers.target",
];
/// Shell commands that make the kernel forget all drives.
const DETACH_ALL: &str = "\
for d in /sys/block/sd*; do [ ! -e $d ] || echo 1 >$d/device/delete; done
for c in /sys/class/nvme/nvme*; do [ ! -e $c ] || echo 1 >$c/delete_controller; done
";
/// A unit that attaches the drives and detaches them, like the real units with this name.
const DRIVES_UNIT: &str = "\
[Unit]
Description=Drives that are not there without this unit
DefaultDependencies=no
Conflicts=shutdown.target
Before=remote-fs-pre.target shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -e /etc/lab/attach
ExecStop=/bin/sh -e /etc/lab/detach

[Install]
WantedBy=multi-user.target
";
/// The unit that activates an LV at boot.
const ACTIVATE: &str = "idm-activate@.service";

impl Machine {
    /// Leaves the machine to systemd. The drives are not there before a unit has brought them.
    /// lvmlockd is started with the locks of all VGs, and the LVs that are given as `VG/LV` are
    /// activated at boot; with `ordered`, our drop-ins are in force.
    pub fn start_systemd(&self, lvs: &[&str], ordered: bool) -> Result<()> {
        let files = self.files();
        self.install_programs(files)?;
        self.install_units(files)?;
        self.install_ours()?;
        let drives = match self.interfaces() {
            Interfaces::Nvme => "nvmf-autoconnect.service",
            Interfaces::Scsi | Interfaces::Mixed => "open-iscsi.service",
        };
        let attach = format!("sleep 2\n{}", self.attach_all_script());
        self.write("/etc/lab/attach", &attach)?;
        self.write("/etc/lab/detach", DETACH_ALL)?;
        self.write(&format!("/lib/systemd/system/{drives}"), DRIVES_UNIT)?;
        self.write(
            "/etc/systemd/journald.conf",
            "[Journal]\nStorage=volatile\nForwardToConsole=yes\n",
        )?;
        // systemd names the host anew.
        self.write("/etc/hostname", &format!("{}\n", self.name()))?;
        let masked = MASKED.join(" ");
        self.quiet(&format!(
            "rm -rf /etc/systemd/system && mkdir /etc/systemd/system && : >/etc/fstab && \
             cd /etc/systemd/system && for unit in {masked}; do ln -s /dev/null $unit; done"
        ))?;
        let enable = if ordered { documented(&files.project)? } else { ENABLE.to_owned() };
        let mut units = format!("{drives} blk-availability");
        for lv in lvs {
            units.push_str(&format!(" idm-activate@$(systemd-escape {lv})"));
        }
        self.ok(&format!("set -e; {enable}; systemctl --quiet enable {units}"))?;
        self.quiet("sh -e /etc/lab/detach")?;
        self.leave_to(
            "exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=console",
        )
    }

    /// lvm2's programs, of one release, where its package has them.
    pub fn install_programs(&self, files: &Files) -> Result<()> {
        let (sbin, lvmlockd) = (files.sbin.display(), files.lvmlockd.display());
        self.quiet(&format!(
            "set -e
             for program in lvm lvmlockctl lvmpolld; do ln -sf {sbin}/$program /usr/sbin/; done
             ln -sf {lvmlockd} /usr/sbin/lvmlockd
             for command in lvchange vgchange lvs vgs; do ln -sf lvm /usr/sbin/$command; done"
        ))
        .map(drop)
    }

    /// lvm2's units where its package has them.
    fn install_units(&self, files: &Files) -> Result<()> {
        let (sbin, units) = (files.sbin.display(), files.units.display());
        self.quiet(&format!(
            "set -e
             place() {{ sed 's|{sbin}/|/usr/sbin/|g' {units}/$1 >$2; }}
             place lvmlockd.service /lib/systemd/system/lvmlockd.service
             place lvmlocks.service /lib/systemd/system/lvmlocks.service
             place blk_availability_systemd_red_hat.service \
                 /lib/systemd/system/blk-availability.service
             place blkdeactivate.sh /usr/sbin/blkdeactivate
             chmod 755 /usr/sbin/blkdeactivate"
        ))
        .map(drop)
    }

    /// Our files where `make install` puts them.
    fn install_ours(&self) -> Result<()> {
        let dist = self.files().project.join("dist");
        let (from, shared) = (dist.display(), SHARED.join(" "));
        self.quiet(&format!(
            "mkdir -p /usr/share/lvmlockd-idm && cd {from} && \
             cp {shared} /usr/share/lvmlockd-idm/ && cp {ACTIVATE} /lib/systemd/system/"
        ))
        .map(drop)
    }

    /// Waits until a unit is active; fails if it fails.
    pub fn wait_for_unit(&self, unit: &str, patience: Duration) -> Result<()> {
        wait_until(patience, &format!("{unit} to be active"), || {
            let said = self.attempt(&format!("systemctl is-active {unit}"))?.stdout;
            if said.trim() == "failed" {
                let status = self.attempt(&format!("systemctl --no-pager status {unit}"))?.stdout;
                anyhow::bail!("{unit} has failed:\n{status}");
            }
            Ok((said.trim() == "active").then_some(()))
        })?;
        self.step(&format!("{unit} is active"));
        Ok(())
    }
}

/// The last of the commands on the page, without our drop-ins.
const ENABLE: &str = "systemctl --quiet enable lvmlockd lvmlocks";

/// The commands of the page that enable the units, but for the one that speaks to a systemd that
/// runs already.
fn documented(project: &std::path::Path) -> Result<String> {
    let page = fs::read_to_string(project.join(PAGE)).with_context(|| PAGE.to_owned())?;
    let block = page
        .lines()
        .skip_while(|line| !line.starts_with("    "))
        .map_while(|line| line.strip_prefix("    ").filter(|command| !command.is_empty()));
    let commands: Vec<&str> =
        block.filter(|command| *command != "systemctl daemon-reload").collect();
    ensure!(
        commands.last() == Some(&"systemctl enable lvmlockd lvmlocks"),
        "the commands in {PAGE} are {commands:?}"
    );
    Ok(commands.join("\n"))
}
