//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use core::time::Duration;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Examples:
  idmctl status              all locks on all drives
  idmctl status --vg vg0     those of a volume group
  idmctl why vg0/data        why an LV cannot be activated
  idmctl release vg0/data    give back what a dead host held
  idmctl selftest /dev/sdb   whether a drive's firmware is good enough

Exit status:
  0  everything was answered, and nothing is wrong
  1  something is wrong that the output names: a lock that two hosts
     have, a drive that must not be used, a reason why a lock is
     refused, a lock that was not given back
  2  the command line is wrong
  3  drives did not answer, so the output may be incomplete
  4  it could not be done: no permission, no drives, a broken
     configuration, a repair that is refused

The settings are lvmlockd's: /etc/lvm/lvmlockd-idm.conf, or the file
that the environment variable LVMLOCKD_IDM_CONF names. Colours are used
on terminals only, and never if NO_COLOR is set. Commands to drives need
root (CAP_SYS_RAWIO for SCSI, CAP_SYS_ADMIN for NVMe).";

/// Shows who holds which In-Drive Mutex (IDM) locks, gives back what dead hosts held, and tests
/// what a drive's firmware does.
///
/// It reads the drives themselves, so it works while lvmlockd is dead, and for locks of other
/// hosts.
#[derive(Debug, Parser)]
#[command(name = "idmctl", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: Common,
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Print JSON in place of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// Time to wait for drives that do not answer.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "2.5")]
    #[arg(value_parser = seconds)]
    pub timeout: Duration,
    /// Use the emulated drives whose sockets are in this directory.
    #[cfg(feature = "emulator")]
    #[arg(long, global = true, value_name = "DIR")]
    pub emulated: Option<PathBuf>,
    /// Ask this lvm program for names of VGs and LVs that no file of this host knows. It reads the
    /// PVs' metadata, takes no lock, and is killed after the time that drives have.
    #[arg(long, global = true, value_name = "LVM", num_args = 0..=1, default_missing_value = "lvm")]
    // Else it would take the command that follows for the program.
    #[arg(require_equals = true)]
    pub ask_lvm: Option<PathBuf>,
}

impl Common {
    /// The directory of emulated drives, if the build has such and one is given.
    pub fn emulated(&self) -> Option<PathBuf> {
        #[cfg(feature = "emulator")]
        return self.emulated.clone();
        #[cfg(not(feature = "emulator"))]
        None
    }
}

/// The command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show who holds what, on which drives, and until when.
    ///
    /// LOCK is `global`, a volume group, or VG/LV. "VG (started)" is held by each host that has the
    /// volume group started. MODE is sh (shared) or ex (exclusive).
    ///
    /// STATE is "held", "not held" (on too few drives), "unclear" (drives that do not answer
    /// decide), "timed out" (another host that asks for the lock can take it), "removing" (held for
    /// a moment, to remove it from a full table) or "free" (a drive still knows its value).
    ///
    /// DRIVES is the number of drives on which the holder's lease runs, and the number that it
    /// counts. If these differ the drives are named, in brackets those on which the lease is over.
    /// The second number is "?" if this host does not know which drives the holder counts, or was
    /// told to read only some.
    ///
    /// LEASE LEFT is the time for which other hosts are refused if the holder does not refresh any
    /// more. Drives do not tell it; it is computed from the time that the holder wrote into its
    /// records. If the hosts' clocks differ too much, only the upper bound is shown (<=).
    ///
    /// VALUE is the time since the last change of the volume group was published.
    ///
    /// Names of hosts come from their records, cut to 16 characters. Names of volume groups and LVs
    /// come from files of this host; otherwise uuids are shown.
    Status(Status),
    /// Show the drives of this host: whether they have IDM, how full they are, what is in the way.
    ///
    /// RECORDS are pairs of a mutex and a host; in brackets is the fill level of the table, by the
    /// limits that are known of such firmware. HOSTS is the number of hosts that have a record.
    /// PATHS is the number of paths that answer, of all. USED FOR names the volume groups that are
    /// started here, and "(global)" if the drive carries the global lock.
    Drives,
    /// Show the hosts that use a volume group, with the number of their locks.
    ///
    /// STATE is "alive" if a lease of the host runs, else "timed out": it has died, or reaches too
    /// few drives. STARTED says whether it has the volume group started. EXCLUSIVE and SHARED are
    /// the numbers of its locks of the volume group whose lease runs; what a dead host had is in
    /// `idmctl status`. The name in HOST is what `--dead` of `idmctl release` and `idmctl clear`
    /// wants.
    Hosts(Hosts),
    /// Show the library's counters on this host.
    ///
    /// lvmlockd writes them to /run/lvmlockd-idm/metrics.prom every 5 s while a volume group is
    /// started. If the file is older than 15 s, this says so, and the exit status is 1.
    Metrics(Metrics),
    /// Say why a lock is refused, or slow.
    ///
    /// The first sentences name the decisive cause; other findings follow after "Also". If nothing
    /// is in the way now, the last refusal of the lock on this host is told.
    Why(Why),
    /// Give back one lock that dead hosts held.
    ///
    /// Shows what would be done, and changes nothing, unless --yes is given and --dead names each
    /// of these hosts. It is refused while a lease runs, and while drives that decide do not
    /// answer.
    ///
    /// No host needs this before it uses the lock: the next one that asks gets it as soon as the
    /// lease is over. This takes the lock as such a host does, and gives it back at once, so hosts
    /// that run are not disturbed.
    ///
    /// At stake: a host whose lease is over may still run and write, if it was not reset. Whoever
    /// uses the LV next then destroys data. Look at the host before you name it.
    Release(Release),
    /// Remove from the drives what a volume group has left: locks of dead hosts, and mutexes that
    /// nobody holds.
    ///
    /// This is for a volume group that is gone, or that no host has started, for example if the
    /// tables of the drives are full. It shows what would be done, and changes nothing, unless
    /// --yes is given and --dead names each host that held a lock. It is refused while any lease on
    /// a lock of the volume group runs, while a drive does not answer, and while this host has the
    /// volume group started.
    ///
    /// The lock of a volume group that still exists stays on the drives if nobody holds it, because
    /// it tells hosts of changes.
    ///
    /// At stake: as for `idmctl release`, for all LVs of the volume group.
    Clear(Clear),
    /// Test each rule that the library relies on, on mutexes that are no volume group's.
    ///
    /// The test takes about 15 s. Each rule is "as relied on", "differs but safe" (something does
    /// not work or takes longer) or "UNSAFE" (two hosts could have one lock: do not use the drive
    /// for locks). Then the latencies of the commands are printed, the number of records that one
    /// read moves, and the known firmware that behaves in the same way.
    ///
    /// It sends only commands that the library sends, too. It touches no data and no lock of a
    /// volume group. It removes its mutexes at the end, also if it is interrupted; if it is killed,
    /// the next test removes them. It refuses a drive whose table is nearly full.
    ///
    /// Reservations of a drive's data are read and not changed, except with --reserve. A drive that
    /// is reserved for others, and refuses this host's mutex commands, too, is not tested: that
    /// says nothing against its firmware.
    Selftest(Selftest),
    /// Compare the emulated drives with a recorded one.
    ///
    /// Sends the commands of a trace to an emulated drive of each known firmware, at the same
    /// times, and names those that answer in the same way, or the first difference.
    Replay(Replay),
}

/// The arguments of `idmctl status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Only the locks of this volume group, by name or uuid.
    #[arg(long)]
    pub vg: Option<String>,
    /// Sort the locks by their holders. Locks that nobody holds come last.
    #[arg(long, value_name = "KEY")]
    pub sort: Option<SortKey>,
    /// Repeat it, after a pause of so many seconds, until it is interrupted.
    ///
    /// On a terminal the table is drawn in place, and keys sort it: h by host, a by age, l by lease
    /// left, d by lock as without --sort. q ends it, with the exit status of the last table.
    /// Elsewhere, and with --json, the outputs follow each other.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    #[arg(value_parser = seconds)]
    pub watch: Option<Duration>,
    /// Read only these drives: a device, or the identity that `idmctl drives` shows.
    #[arg(value_name = "DRIVE")]
    pub drives: Vec<String>,
}

/// The column by which `idmctl status` sorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    /// The holder's name.
    Host,
    /// The time since the last refresh, the longest first.
    Age,
    /// The rest of the lease, the shortest first.
    Left,
}

/// The arguments of `idmctl hosts`.
#[derive(Args, Debug)]
pub struct Hosts {
    /// Only this volume group, by name or uuid.
    pub vg: Option<String>,
}

/// The arguments of `idmctl metrics`.
#[derive(Args, Debug)]
pub struct Metrics {
    /// Also show zeros and the buckets of histograms.
    #[arg(long)]
    pub all: bool,
}

/// The arguments of `idmctl why`.
#[derive(Args, Debug)]
pub struct Why {
    /// `global`, a volume group, or a logical volume with its volume group in front: by names or
    /// uuids. The uuid of a logical volume that this host or a drive knows is enough.
    #[arg(value_name = "VG[/LV]")]
    pub lock: String,
}

/// The arguments of `idmctl release`.
#[derive(Args, Debug)]
pub struct Release {
    /// `global`, a volume group, or a logical volume with its volume group in front: by names or
    /// uuids. The uuid of a logical volume that this host or a drive knows is enough.
    #[arg(value_name = "VG[/LV]")]
    pub lock: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub repair: Repair,
}

/// The arguments of `idmctl clear`.
#[derive(Args, Debug)]
pub struct Clear {
    /// The volume group, by name or uuid.
    pub vg: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub repair: Repair,
}

/// The confirmation of a repair.
#[derive(Args, Debug)]
pub struct Repair {
    /// Carry it out.
    #[arg(long)]
    pub yes: bool,
    /// A host that held a lock and certainly does not write any more, as the dry run shows its
    /// name. To be repeated for each such host.
    #[arg(long, value_name = "HOST")]
    pub dead: Vec<String>,
}

/// The arguments of `idmctl selftest`.
#[derive(Args, Debug)]
pub struct Selftest {
    /// A device, or the identity that `idmctl drives` shows.
    pub drive: String,
    /// Do not ask whether the test may begin.
    #[arg(long)]
    pub yes: bool,
    /// Also find the limits of a drive that is in use. Until the test has given its records back,
    /// some hundred milliseconds later, the drive may refuse a lock for lack of room.
    #[arg(long)]
    pub limits: bool,
    /// Another path to the same drive, as `idmctl drives --json` lists them. With it the test also
    /// finds out when commands arrive that the host gives up: it sends commands by one path with
    /// hardly any time, and looks by the other one. This takes up to 30 s. SCSI drives need sg
    /// nodes for it (modprobe sg).
    #[arg(long, value_name = "DEV", conflicts_with = "record")]
    pub second_path: Option<String>,
    /// Also find out what the drive does with mutex commands of a host that a persistent
    /// reservation keeps away from its data.
    ///
    /// DANGEROUS ON A DRIVE THAT IS IN USE: the test reserves the drive for a moment, and whoever
    /// writes to it meanwhile, from this host or another one, gets errors. It is refused if this
    /// host uses the drive, if any host has a lock on it, and if anybody is registered with it;
    /// other use cannot be seen. A test that is killed leaves the reservation until the next one
    /// with this option, a loss of power, or sg_persist --out --clear
    /// --param-rk=0x69646d63746c0001 by the same path. For SCSI drives: NVMe drives register hosts,
    /// not paths.
    #[arg(long, requires = "second_path")]
    pub reserve: bool,
    /// Write every command and answer to this file, without identities of others: `idmctl replay`
    /// reads it, and it may be sent to developers.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// The arguments of `idmctl replay`.
#[derive(Args, Debug)]
pub struct Replay {
    /// A file that `idmctl selftest --record` wrote.
    pub trace: PathBuf,
    /// Only this profile of the emulated drives.
    #[arg(long)]
    pub profile: Option<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(time) if (0.1..=600.0).contains(&number) => Ok(time),
        _ => Err("must be 0.1 to 600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_time_is_a_sensible_number_of_seconds() {
        assert_eq!(seconds("2.5"), Ok(Duration::from_millis(2500)));
        for wrong in ["", "x", "-1", "0", "0.01", "1e9", "nan", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
