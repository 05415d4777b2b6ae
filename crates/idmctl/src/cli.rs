//! The command line.

use clap::{Args, Parser, Subcommand};
use core::time::Duration;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit status:
  0  everything was answered, and nothing is wrong
  1  something is wrong that the output names: a lock that two hosts have, a drive that must not
     be used, a reason why a lock is refused
  2  the command line is wrong
  3  drives did not answer, so what is shown may not be all
  4  it could not be done: no permission, no drives, a broken configuration

Settings are those of lvmlockd: /etc/lvm/lvmlockd-idm.conf, or the file that the environment
variable LVMLOCKD_IDM_CONF names. Colours are used on terminals only, and not at all where NO_COLOR
is set. Commands to drives need root (CAP_SYS_RAWIO for SCSI, CAP_SYS_ADMIN for NVMe).";

/// Shows who holds which In-Drive Mutex (IDM) locks, and tests what a drive's firmware does.
///
/// It reads the drives themselves, so it works while lvmlockd is dead, and for locks of other
/// hosts.
#[derive(Debug, Parser)]
#[command(name = "idmctl", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub common: Common,
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub command: Command,
}

/// What all commands know.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Print JSON in place of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for drives.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "2.5", value_parser = seconds)]
    pub timeout: Duration,
    /// Use the emulated drives whose sockets are in this directory.
    #[cfg(feature = "emulator")]
    #[arg(long, global = true, value_name = "DIR")]
    pub emulated: Option<PathBuf>,
    /// Ask this lvm program for names of VGs and LVs that no file of this host knows. It reads the
    /// PVs' metadata, takes no lock, and is killed after the time that drives have.
    #[arg(long, global = true, value_name = "LVM", num_args = 0..=1, default_missing_value = "lvm")]
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

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show who holds what, on which drives, and until when.
    Status(Status),
    /// Show the drives of this host: whether they have IDM, how full they are, what is in the way.
    Drives,
    /// Test each rule that the library relies on, on mutexes that are no volume group's.
    Selftest(Selftest),
}

/// What is to be shown.
#[derive(Args, Debug)]
pub struct Status {
    /// Only the locks of this volume group, by name or uuid.
    #[arg(long)]
    pub vg: Option<String>,
    /// Only what these drives show: a device, or the identity that `idmctl drives` shows.
    #[arg(value_name = "DRIVE")]
    pub drives: Vec<String>,
}

/// What is to be tested.
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
