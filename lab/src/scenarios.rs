//! The scenarios. Each begins with new drives and no machine.

mod adopt;
mod bytes;
mod clock;
mod crash;
mod daemon;
mod descriptors;
mod fabric;
mod failover;
mod fenced;
mod frozen;
mod idmctl;
mod killed_unlocking;
mod lv_types;
mod lvm2_tests;
mod mixed;
mod multipath;
mod no_sg;
mod nonsense;
mod nvme_bytes;
mod nvme_paths;
mod one_drive;
mod one_host;
mod polling;
mod readme;
mod registered;
mod replaced_disk;
mod reservations;
mod reserve_lio;
mod selftest;
mod shutdown;
mod stacks;
mod starts;
mod stops;
mod storm;
mod two_hosts;
mod two_paths;
mod upgrade;
mod value;
mod watchdog;

use crate::audit::Audit;
use crate::cluster::Cluster;
use crate::drives::{Drives, PARTITIONED};
use crate::interfaces::Interfaces;
use crate::machine::Machine;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use testbed::wait_until;

/// Lease that the library requests by default.
const LEASE: Duration = Duration::from_secs(60);

/// The longest time from the last renewal of a lock to its take-over. With reservations, the other
/// locks of the dead host count, too, and were renewed up to a third of a lease later.
const LATEST: Duration = Duration::from_secs(LEASE.as_secs() * 4 / 3 + 15);

/// Message with which lvm refuses an LV of [`shared_vg`] that another host has.
const TAKEN: &str = "LV locked by other host: vg/lv";

/// Tries until the host has the LV of [`shared_vg`].
const UNTIL_GRANTED: &str = "while ! lvm lvchange -aey vg/lv; do sleep 2; done 2>/dev/null";

/// The name on the drives of the lock of an LV, given as `VG/LV`.
fn lock_of(host: &Machine, lv: &str) -> Result<String> {
    let text = host.quiet(&format!("lvm lvs --noheadings -o vg_uuid,lv_uuid {lv}"))?;
    let plain = text.replace('-', "");
    let mut words = plain.split_whitespace();
    match (words.next(), words.next()) {
        (Some(vg), Some(lv)) => Ok(format!("lv {vg}/{lv}")),
        _ => anyhow::bail!("lvs says {text:?}"),
    }
}

/// The name on the drives of the lock of a VG.
fn lock_of_vg(host: &Machine, vg: &str) -> Result<String> {
    let text = host.quiet(&format!("lvm vgs --noheadings -o vg_uuid {vg}"))?;
    Ok(format!("vg {}", text.trim().replace('-', "")))
}

/// Makes two hosts that share the VG `vg` on the first three drives, with the LV `lv`, which is
/// striped over all of them and active exclusively on the first host.
fn shared_vg(cluster: &mut Cluster, options: &str) -> Result<()> {
    cluster.start(&["a", "b"])?;
    make_vg(cluster, options)
}

/// The same on hosts that are running already.
fn make_vg(cluster: &Cluster, options: &str) -> Result<()> {
    make_empty_vg(cluster)?;
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    a.ok(&format!("lvm lvcreate -y -aey {options} -n lv vg"))?;
    b.refused("lvm lvchange -aey vg/lv", 5, "LV locked by other host: vg/lv").map(drop)
}

/// Makes the VG without an LV.
fn make_empty_vg(cluster: &Cluster) -> Result<()> {
    let (a, b) = (cluster.host("a")?, cluster.host("b")?);
    let partitions = a.data_partitions()?;
    a.ok(&format!("lvm vgcreate --shared --lock-type idm vg {partitions}"))?;
    b.ok("lvm vgchange --lock-start vg").map(drop)
}

/// Audits the blocks of `vg/lv`, which is active on this host.
fn audit(host: &Machine) -> Result<Audit> {
    audit_of(host, "vg/lv")
}

/// The same for another LV, given as `VG/LV`, that is on all drives of [`make_empty_vg`].
fn audit_of(host: &Machine, lv: &str) -> Result<Audit> {
    Audit::of_lv(host, lv, lock_of(host, lv)?, &PARTITIONED, LEASE)
}

/// Repeats a command that is refused, until it succeeds.
fn until_granted(host: &Machine, command: &str, patience: Duration) -> Result<()> {
    let begin = Instant::now();
    let mut refused = 0;
    loop {
        let ended = host.attempt(command)?;
        let seconds = begin.elapsed().as_secs_f64();
        if ended.code == 0 {
            host.step(&format!(
                "{command} (refused {refused} times, granted after {seconds:.1} s)"
            ));
            return Ok(());
        }
        refused += 1;
        ensure!(
            begin.elapsed() < patience,
            "{} is still refused after {patience:?}: {command}\n{}",
            host.name(),
            ended.stderr
        );
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// The longest time for which a drive may be barred for a host. An UNLOCK with an unknown result
/// bars it for a quarter of a lease. After an absence of the drive for half a minute, the pause
/// before the next UNLOCK, which may be answered, has grown to at most 13 s.
const BARRED: Duration = Duration::from_secs(LEASE.as_secs() / 4 + 15);

/// Repeats a command that must be refused, until the reason is `message`. Drives that were away are
/// barred for some time, and without them the holder of the lock is not known.
fn until_refused(host: &Machine, command: &str, message: &str) -> Result<()> {
    wait_until(BARRED, &format!("{:?} to be refused with {message:?}", command), || {
        let ended = host.attempt(command)?;
        ensure!(ended.code == 5, "{} was not refused: {command}", host.name());
        Ok(ended.stderr.contains(message).then_some(()))
    })?;
    host.step(&format!("{command} is refused: {message}"));
    Ok(())
}

/// The last time, on a drive's clock, at which a host's lease on a lock began: that of the last
/// command that the drive granted it.
fn lease_began(drives: &Drives, drive: &str, host: &str, lock: &str) -> Result<Duration> {
    let renews = ["trylock", "lock", "refresh", "break"];
    drives
        .events(drive)?
        .iter()
        .rev()
        .find(|event| {
            event.host == host
                && event.resource == lock
                && event.is_good()
                && renews.contains(&event.kind.as_str())
        })
        .map(|event| event.at)
        .with_context(|| format!("{host} never had {lock} on {drive}"))
}

/// The age, on its drive's own clock, of the lease that decides the time for which a host has a
/// lock on three drives. Each lease is refreshed on its own, and two are needed, so the one in the
/// middle decides.
fn deciding_lease(drives: &Drives, host: &str, lock: &str) -> Result<Duration> {
    let mut ages = Vec::new();
    for drive in crate::drives::PARTITIONED {
        ages.push(drives.time(drive)? - lease_began(drives, drive, host, lock)?);
    }
    ages.sort();
    Ok(ages[1])
}

/// The time, on a drive's clock, at which a host first got a lock after the time `after`.
fn first_grant(
    drives: &Drives,
    drive: &str,
    host: &str,
    lock: &str,
    after: Duration,
) -> Result<Option<Duration>> {
    let grants = ["trylock", "lock", "break"];
    let granted = drives.events(drive)?.into_iter().find(|event| {
        event.at > after
            && event.host == host
            && event.resource == lock
            && event.is_good()
            && grants.contains(&event.kind.as_str())
    });
    Ok(granted.map(|event| event.at))
}

/// Fails unless a new lvmlockd on a keeps the lock on vg/lv beyond the lease of its predecessor.
fn kept_beyond_lease(cluster: &Cluster, lock: &str) -> Result<()> {
    let until = cluster.drives.time("d0")? + LEASE + Duration::from_secs(5);
    wait_until(LEASE * 2, "the last daemon's lease to end", || {
        Ok((cluster.drives.time("d0")? > until).then_some(()))
    })?;
    cluster.host("b")?.refused("lvm lvchange -aey vg/lv", 5, TAKEN)?;
    let records = cluster.drives.records("d0", lock)?;
    let refreshed = |left: Duration| !left.is_zero();
    ensure!(
        records.iter().any(|record| record.is_of("a") && record.lease_left.is_some_and(refreshed)),
        "a's lock is not refreshed: {records:?}"
    );
    Ok(())
}

/// Waits until a has refreshed a lock on all of these drives by this path, after the time `since`
/// on the drives' clocks, which started together.
fn wait_for_refresh_by(
    cluster: &Cluster,
    path: &str,
    lock: &str,
    drives: &[&str],
    since: Duration,
) -> Result<()> {
    for drive in drives {
        let what = format!("a refresh by path {path} of {drive}");
        wait_until(Duration::from_secs(40), &what, || {
            let refreshed = cluster.drives.events(drive)?.into_iter().any(|event| {
                event.at > since
                    && event.host == "a"
                    && event.path == path
                    && event.resource == lock
                    && event.is_good()
            });
            Ok(refreshed.then_some(()))
        })?;
    }
    Ok(())
}

/// Makes b, which has the lock now, write to vg/lv, and audits the writes of both hosts.
fn written_by_b(cluster: &Cluster, audit: &Audit) -> Result<()> {
    let b = cluster.host("b")?;
    let writer = b.start_writer("vg/lv")?;
    audit.wait_for_writes(&cluster.drives, "b")?;
    b.stop_writer(writer)?;
    b.check_shared_blocks("vg/lv")?;
    audit.check(&cluster.drives, &["a", "b"])
}

/// Fails unless every one of the first three drives that gave `lock` to `second` did so at least a
/// lease after `first`'s last one began, and a majority of them did so not much later.
fn check_takeover(drives: &Drives, lock: &str, hosts: (&str, &str), most: Duration) -> Result<()> {
    check_takeover_on(drives, lock, hosts, &PARTITIONED, most)
}

/// The same for a lock on other drives.
fn check_takeover_on(
    drives: &Drives,
    lock: &str,
    (first, second): (&str, &str),
    voters: &[&str],
    most: Duration,
) -> Result<()> {
    let mut taken = 0;
    for drive in voters {
        let began = lease_began(drives, drive, first, lock)?;
        let Some(granted) = first_grant(drives, drive, second, lock, began)? else {
            continue;
        };
        let after = granted - began;
        let seconds = after.as_secs_f64();
        drives.transcript.detail(&format!(
            "{drive}: {second} got it {seconds:.3} s after {first}'s lease began"
        ));
        ensure!(after >= LEASE, "{drive} gave {lock} to {second} after {after:?} already");
        taken += usize::from(after <= most);
    }
    let all = voters.len();
    ensure!(
        taken > all / 2,
        "only {taken} of {all} drives gave {lock} to {second} within {most:?}"
    );
    Ok(())
}

/// Expected result of a scenario.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// It passes.
    Pass,
    /// It fails, because a feature is missing. Another failure, or success, is an error.
    Failure {
        /// Part of the expected error.
        at: &'static str,
        /// The missing feature.
        because: &'static str,
    },
}

/// Drives that a scenario needs.
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    /// It runs with all kinds of drives.
    Any,
    /// It is for these drives.
    Drives(Interfaces),
    /// It is for SCSI disks, for this reason, and skipped if other drives are requested.
    ScsiFor(&'static str),
    /// It runs with all kinds of drives, if `make lab-readme` has made the root file system of an
    /// empty host.
    EmptyHost,
}

/// A scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Description.
    pub about: &'static str,
    /// Whether it belongs to the short form.
    pub short: bool,
    /// Expected result.
    pub expect: Expect,
    /// Drives that it needs.
    pub needs: Needs,
    /// Its function.
    pub run: fn(&mut Cluster) -> Result<()>,
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "bytes",
        about: "sg3-utils, independent of this project, see the drive of the firmware traces",
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor("sg3-utils speak SCSI; nvme-bytes does the same with nvme-cli"),
        run: bytes::run,
    },
    Scenario {
        name: "reserve",
        about: "sg_persist and the kernel go through the life of persistent reservations",
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor("sg_persist speaks SCSI; nvme-reserve does it with nvme-cli"),
        run: reservations::scsi,
    },
    Scenario {
        name: "reserve-lio",
        about: "an emulated drive answers sg_persist like the kernel's own SCSI target",
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor("the kernel's target for NVMe has no reservations in this release"),
        run: reserve_lio::run,
    },
    Scenario {
        name: "one-host",
        about: "everything that LVM does with a shared VG, on one host",
        short: true,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: one_host::run,
    },
    Scenario {
        name: "two-hosts",
        about: "two hosts share a VG; its PVs and LVs change and move under their locks",
        short: true,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: two_hosts::run,
    },
    Scenario {
        name: "crash",
        about: "a host dies with its locks: the other waits for the lease, and trusts no value",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: crash::run,
    },
    Scenario {
        name: "no-sg",
        about: "no sg module, and lvmlockd with no more capabilities than it needs",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: no_sg::run,
    },
    Scenario {
        name: "one-drive",
        about: "one of three drives fails, hangs, disappears and comes back; then two fail",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: one_drive::run,
    },
    Scenario {
        name: "nonsense",
        about: "one of three drives answers random bytes, lengths and statuses",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: nonsense::run,
    },
    Scenario {
        name: "fabric",
        about: "the drives are gone for 10 s, then for longer than the lease",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: fabric::run,
    },
    Scenario {
        name: "fenced",
        about: "the drives take a host's data, but not its mutex commands: it must stop itself",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: fenced::fenced,
    },
    Scenario {
        name: "unfenced",
        about: "the same with a kill command that does nothing: the audit must see it",
        short: false,
        expect: Expect::Failure {
            at: "a wrote to vg/lv when another host could hold the lock",
            because: "nothing ends the use of the VG",
        },
        needs: Needs::Any,
        run: fenced::unfenced,
    },
    Scenario {
        name: "reserved",
        about: "the same, and the drives refuse the data of who lost a lock",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: fenced::reserved,
    },
    Scenario {
        name: "reserved-paths",
        about: "the same, and the host that loses the lock has two paths to each drive",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: fenced::reserved_by_two_paths,
    },
    Scenario {
        name: "registered",
        about: "sg_persist and nvme-cli show who is registered, from a VG's start to its end",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: registered::run,
    },
    Scenario {
        name: "failover",
        about: "the holder of an LV is killed again and again, with the shortest lease",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: failover::run,
    },
    Scenario {
        name: "late-writes",
        about: "writes are under way for longer than a lease: the audit must see them",
        short: false,
        expect: Expect::Failure {
            at: "a wrote to vg/lv when another host could hold the lock",
            because: "nothing keeps late writes from the drives",
        },
        needs: Needs::Any,
        run: fenced::late_writes,
    },
    Scenario {
        name: "late-reserved",
        about: "the same, and the drives refuse them",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: fenced::late_reserved,
    },
    Scenario {
        name: "frozen",
        about: "a host is frozen for 90 s and thawed",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: frozen::idle,
    },
    Scenario {
        name: "frozen-writer",
        about: "the same while an application writes, without a watchdog",
        short: false,
        expect: Expect::Failure {
            at: "a wrote to vg/lv when another host could hold the lock",
            because: "a thawed host continues to write until its kill command has run",
        },
        needs: Needs::Any,
        run: frozen::writing,
    },
    Scenario {
        name: "frozen-reserved",
        about: "the same, nothing stops the writer, and the drives refuse its data",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: frozen::reserved,
    },
    Scenario {
        name: "daemon",
        about: "lvmlockd is killed and restarted while an LV is written to",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: daemon::run,
    },
    Scenario {
        name: "adopt",
        about: "lvmlockd with our patches is killed, and adopts its locks",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: adopt::run,
    },
    Scenario {
        name: "killed-unlocking",
        about: "lvmlockd is killed while its UNLOCKs are under way: they reach the drives \
                in the next one's life",
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor(
            "a process that waits for an NVMe drive does not end before its command",
        ),
        run: killed_unlocking::run,
    },
    Scenario {
        name: "replaced-disk",
        about: "the disk below an LV is replaced, and then another one, while the LV is written to",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: replaced_disk::run,
    },
    Scenario {
        name: "storm",
        about: "two hosts activate and deactivate 200 LVs at once",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: storm::run,
    },
    Scenario {
        name: "value",
        about: "the value of a VG's lock reaches the next host",
        short: false,
        expect: Expect::Failure {
            at: "b did not get the VG's value",
            because: "on these drives a sharer's release loses the value, and sharers do not \
                      get it",
        },
        needs: Needs::Any,
        run: value::run,
    },
    Scenario {
        name: "two-paths",
        about: "one of two paths is cut, to drives that also have the global lock",
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor(
            "the kernel makes one node of all paths to an NVMe drive; see nvme-paths",
        ),
        run: two_paths::partitioned,
    },
    Scenario {
        name: "plain-paths",
        about: "one of two paths is cut, to drives that have only a VG",
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor(
            "the kernel makes one node of all paths to an NVMe drive; see nvme-paths",
        ),
        run: two_paths::plain,
    },
    Scenario {
        name: "watchdog",
        about: "a host loses its drives and does not deactivate its LV: the watchdog resets it in \
             time",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: watchdog::cut,
    },
    Scenario {
        name: "watchdog-kill",
        about: "lvmlockd dies and is not restarted: the watchdog resets the host in time",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: watchdog::killed,
    },
    Scenario {
        name: "watchdog-frozen",
        about: "a host is frozen while an application writes: the watchdog resets it when it is \
             thawed",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: watchdog::frozen,
    },
    Scenario {
        name: "watchdog-restart",
        about: "lvmlockd dies and is restarted: the watchdog is still fed",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: watchdog::restarted,
    },
    Scenario {
        name: "nvme-bytes",
        about: "nvme-cli, independent of this project, sees the protocol's commands and records",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Drives(Interfaces::Nvme),
        run: nvme_bytes::run,
    },
    Scenario {
        name: "nvme-reserve",
        about: "nvme-cli and the kernel go through the life of reservations of NVMe",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Drives(Interfaces::Nvme),
        run: reservations::nvme,
    },
    Scenario {
        name: "nvme",
        about: "two hosts and NVMe drives only; PVs and LVs change and move under their locks",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Drives(Interfaces::Nvme),
        run: two_hosts::run,
    },
    Scenario {
        name: "nvme-paths",
        about: "two paths to NVMe drives behind one node: either is lost, then both for some time",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Drives(Interfaces::Nvme),
        run: nvme_paths::run,
    },
    Scenario {
        name: "mixed",
        about: "SCSI disks and NVMe drives in one VG",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Drives(Interfaces::Mixed),
        run: mixed::run,
    },
    Scenario {
        name: "multipath",
        about: "PVs on multipath maps; each path is cut and restored while the VG is in use",
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor("NVMe has native multipath; see nvme-paths"),
        run: multipath::run,
    },
    Scenario {
        name: "stacks",
        about: "PVs on partitions, stripes, encryption, md and logical volumes: all drives below",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: stacks::run,
    },
    Scenario {
        name: "descriptors",
        about: "lvmlockd opens every path once and starts no program, with and without sg",
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor("sg nodes"),
        run: descriptors::run,
    },
    Scenario {
        name: "starts",
        about: "six lock-starts of a VG at once, on one host and on two",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: starts::at_once,
    },
    Scenario {
        name: "devices-file",
        about: "a devices file shows one of three PVs at lock-start",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: starts::devices_file,
    },
    Scenario {
        name: "late-drives",
        about: "two of three drives appear after lock-start",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: starts::late_drives,
    },
    Scenario {
        name: "late-at-boot",
        about: "lvmlockd starts with one of three drives; the others appear later",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: starts::late_drives_at_boot,
    },
    Scenario {
        name: "lv-types",
        about: "two hosts and thin, RAID, integrity, cache, snapshot and mirror LVs",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: lv_types::run,
    },
    Scenario {
        name: "extend-shared",
        about: "an LV that is active on both hosts is extended",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: lv_types::extended_while_shared,
    },
    Scenario {
        name: "whole-vgs",
        about: "VGs are exported, imported, split and merged",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: lv_types::whole_vgs,
    },
    Scenario {
        name: "polling",
        about: "lvmlockd dies while lvmpolld moves and mirrors an LV",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: polling::run,
    },
    Scenario {
        name: "clock-set",
        about: "the clock is set forward and back while an LV is written to",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: clock::set,
    },
    Scenario {
        name: "vm-stopped",
        about: "a hypervisor stops a host for 90 s without its knowledge",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: clock::stopped,
    },
    Scenario {
        name: "stops",
        about: "the steps of a shutdown in every order",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: stops::run,
    },
    Scenario {
        name: "idmctl",
        about: "idmctl names holders of locks, the rest of their leases, and causes of refusals",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: idmctl::run,
    },
    Scenario {
        name: "selftest",
        about: "idmctl tests drives that are in use, is interrupted, and replays a recorded test",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: selftest::run,
    },
    Scenario {
        name: "selftest-paths",
        about: "idmctl finds out when commands arrive that a host gave up, and reserves a drive",
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor("the kernel makes one node of all paths to an NVMe drive"),
        run: selftest::second_path,
    },
    Scenario {
        name: "selftest-reserved",
        about: "idmctl tests a drive whose data another host has reserved",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: selftest::reserved,
    },
    Scenario {
        name: "shutdown",
        about: "systemd shuts a host down and boots it: locks are given back before the drives go",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: shutdown::run,
    },
    Scenario {
        name: "shutdown-plain",
        about: "the same with lvm2's units alone, without our drop-ins",
        short: false,
        expect: Expect::Failure {
            at: "its lock is left on",
            because: "lvm2's units stop lockspaces while file systems are mounted",
        },
        needs: Needs::Any,
        run: shutdown::plain,
    },
    Scenario {
        name: "crash-boot",
        about: "a host is reset with an active LV, and boots at once",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: shutdown::crash_boot,
    },
    Scenario {
        name: "upgrade",
        about: "the library and lvm2 are upgraded and downgraded while an LV is written to",
        short: false,
        expect: Expect::Pass,
        needs: Needs::Any,
        run: upgrade::run,
    },
    Scenario {
        name: "readme",
        about: "README's commands from an empty Debian 13 host to an active LV",
        short: false,
        expect: Expect::Pass,
        needs: Needs::EmptyHost,
        run: readme::run,
    },
    lvm2("lvm2-fabric", "idm_fabric_failure: all drives are gone for 10 s", |cluster| {
        lvm2_tests::one(cluster, "idm_fabric_failure")
    }),
    lvm2(
        "lvm2-timeout",
        "idm_fabric_failure_timeout: the only drive is gone for 70 s",
        |cluster| lvm2_tests::one(cluster, "idm_fabric_failure_timeout"),
    ),
    lvm2("lvm2-half", "idm_fabric_failure_half_brain: one of two drives is gone", |cluster| {
        lvm2_tests::one(cluster, "idm_fabric_failure_half_brain")
    }),
    lvm2("lvm2-ilm", "idm_ilm_failure: mutex commands fail", |cluster| {
        lvm2_tests::one(cluster, "idm_ilm_failure")
    }),
    lvm2("lvm2-daemon", "lvmlockd_failure: lvmlockd is killed", |cluster| {
        lvm2_tests::one(cluster, "lvmlockd_failure")
    }),
    lvm2(
        "lvm2-hosts-vg",
        "multi_hosts_vg: one host makes VGs, the other removes them",
        |cluster| lvm2_tests::one_after_the_other(cluster, "multi_hosts_vg"),
    ),
    lvm2("lvm2-hosts-lv", "multi_hosts_lv: the same with LVs", |cluster| {
        lvm2_tests::one_after_the_other(cluster, "multi_hosts_lv")
    }),
    lvm2(
        "lvm2-hosts-ex",
        "multi_hosts_lv_ex_timeout: a host with EX loses its drives",
        |cluster| lvm2_tests::at_once(cluster, "multi_hosts_lv_ex_timeout"),
    ),
    lvm2(
        "lvm2-hosts-sh",
        "multi_hosts_lv_sh_timeout: a host with SH loses its drives",
        |cluster| lvm2_tests::at_once(cluster, "multi_hosts_lv_sh_timeout"),
    ),
    lvm2("lvm2-single", "stress_single_thread", |cluster| {
        lvm2_tests::one(cluster, "stress_single_thread")
    }),
    lvm2("lvm2-threads-1", "stress_multi_threads_1", |cluster| {
        lvm2_tests::one(cluster, "stress_multi_threads_1")
    }),
    lvm2("lvm2-threads-2", "stress_multi_threads_2", |cluster| {
        lvm2_tests::one(cluster, "stress_multi_threads_2")
    }),
];

/// One of lvm2's own tests.
const fn lvm2(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Cluster) -> Result<()>,
) -> Scenario {
    Scenario {
        name,
        about,
        short: false,
        expect: Expect::Pass,
        needs: Needs::ScsiFor("they take SCSI disks away"),
        run,
    }
}
