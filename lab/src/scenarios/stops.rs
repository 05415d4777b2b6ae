//! The steps of a shutdown in every order: LVs, lockspaces and lvmlockd.

use crate::cluster::Cluster;
use crate::machine::{Daemon, Machine};
use crate::scenarios::{TAKEN, lock_of, make_empty_vg};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use testbed::wait_until;

/// A step, as the units of lvm2 and our drop-in do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// blk-availability.service, or our drop-in.
    Lvs,
    /// lvmlocks.service.
    Lockspaces,
    /// lvmlockd.service: SIGTERM, which is repeated where it was ignored.
    Daemon,
}

use Step::{Daemon as TheDaemon, Lockspaces, Lvs};

const ORDERS: [[Step; 3]; 6] = [
    [Lvs, Lockspaces, TheDaemon],
    [Lvs, TheDaemon, Lockspaces],
    [Lockspaces, Lvs, TheDaemon],
    [Lockspaces, TheDaemon, Lvs],
    [TheDaemon, Lvs, Lockspaces],
    [TheDaemon, Lockspaces, Lvs],
];

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.start(&["a", "b"])?;
    make_empty_vg(cluster)?;
    cluster.host("a")?.ok("lvm lvcreate -y -an -Zn -Wn -i 3 -L 48M -n lv vg")?;
    for order in ORDERS {
        cluster.transcript.step("", &format!("{order:?}"));
        shut_down(cluster, order).with_context(|| format!("{order:?}"))?;
    }
    Ok(())
}

/// Takes the steps on a. While the LV is active nobody else may have it; when all are taken, b has
/// it at once.
fn shut_down(cluster: &mut Cluster, order: [Step; 3]) -> Result<()> {
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.ok("lvm lvchange -aey vg/lv")?;
    let lock = lock_of(a, "vg/lv")?;
    let mut active = true;
    for step in order {
        match step {
            Lvs => {
                a.ok("lvm vgchange -an --select vg_lock_type=idm")?;
                active = false;
            }
            // The unit waits without a limit while LVs are active, so systemd kills the command.
            Lockspaces => drop(a.run("timeout 5 lvmlockctl --stop-lockspaces --wait 1")?),
            TheDaemon => drop(a.run("kill $(pidof lvmlockd); sleep 1; kill $(pidof lvmlockd)")?),
        }
        if active {
            ensure!(a.lvmlockd_runs(), "lvmlockd has ended while an LV is active");
            b.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
        }
    }
    end(a)?;
    b.ok("lvm lvchange -aey vg/lv")?;
    b.ok("lvm lvchange -an vg/lv")?;
    for drive in crate::drives::PARTITIONED {
        let records = cluster.drives.records(drive, &lock)?;
        ensure!(!records.iter().any(|record| record.is_held()), "{drive}: {records:?}");
    }
    let a = cluster.host_mut("a")?;
    a.start_lvmlockd(&Daemon::default())?;
    a.ok("lvm vgchange --lock-start vg").map(drop)
}

/// Ends lvmlockd where it has not ended yet, by a repetition of the last step.
fn end(host: &Machine) -> Result<()> {
    host.run("lvmlockctl --stop-lockspaces --wait 1")?;
    wait_until(Duration::from_secs(20), "lvmlockd to end", || {
        if host.lvmlockd_runs() {
            host.attempt("kill $(pidof lvmlockd)")?;
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok((!host.lvmlockd_runs()).then_some(()))
    })
}
