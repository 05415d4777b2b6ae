//! Settings from a file.
//!
//! The file is TOML: `/etc/lvm/lvmlockd-idm.conf`, or the file that the environment variable
//! `LVMLOCKD_IDM_CONF` names. Without a file the defaults apply.
//!
//! `dist/lvmlockd-idm.conf` shows all keys; builds with the feature `emulator` also know
//!
//! ```toml
//! [emulator]
//! "/dev/loop3" = "/run/idm-emulator/d0.sock"
//! ```

use crate::fencing::{Fencing, FencingConfig};
use crate::state::file;
use core::fmt;
use core::time::Duration;
use idm_engine::Timing;
use nix::unistd::{Gid, Uid};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that is read where the environment names no other.
pub const DEFAULT_FILE: &str = "/etc/lvm/lvmlockd-idm.conf";
/// The environment variable that names another file.
pub const FILE_VARIABLE: &str = "LVMLOCKD_IDM_CONF";

const DEFAULT_LEASE_MS: u64 = 60_000;
/// Accepted leases in ms. An ordinary scheduling delay can end shorter leases, and longer ones keep
/// a dead host's locks for more than an hour.
pub(crate) const LEASE_MS: core::ops::RangeInclusive<u64> = 500..=3_600_000;
/// The shortest lease of real drives in ms. The kernel may notice a second late that a time-out has
/// ended, and [`Limits`](crate::transport::Limits) leave a twentieth of a lease for that.
const SHORTEST_LEASE_MS: u64 = 20_000;
/// The shortest accepted time for a request.
const SHORTEST_REQUEST_TIME: Duration = Duration::from_secs(1);
/// The largest accepted file in bytes.
const LARGEST: u64 = 1 << 20;
/// The part of the parser's messages that offers a key which only builds with emulated drives know.
/// Other builds remove it.
const EMULATOR_KEY: &str = if cfg!(feature = "emulator") { "\n" } else { ", `emulator`" };
const DEFAULT_STATE_DIR: &str = "/run/lvmlockd-idm";

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Lease that is requested from drives.
    pub lease: Duration,
    /// Time after which a request is refused because its drives do not answer. `None`: 5 s, or a
    /// quarter of a lease that is shorter than 20 s.
    pub request_time: Option<Duration>,
    /// Paths of the global lock's drives. Every host must name the same drives. Where empty, the
    /// drives are those with a GPT partition named `propeller`.
    pub global_drives: Vec<String>,
    /// Emulated drives: a path or plain name, and its socket. After a `#`, the name of this host's
    /// port of the drive may follow.
    pub emulated: BTreeMap<String, PathBuf>,
    /// Directory for state that must not outlive the boot.
    pub state_dir: PathBuf,
    /// Program and arguments that are run when a VG's locks are about to be lost; the VG's name
    /// is appended. `None`: `lvmlockctl --kill`.
    pub kill_command: Option<Vec<String>>,
    /// The watchdog device, where one is used.
    pub watchdog: Option<PathBuf>,
    /// Configured times before a lock may be lost.
    pub fencing: FencingConfig,
    /// Whether the drives take data only from hosts that are registered, and hosts that lost a
    /// lock are removed.
    pub reservations: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            lease: Duration::from_millis(DEFAULT_LEASE_MS),
            request_time: None,
            global_drives: Vec::new(),
            emulated: BTreeMap::new(),
            state_dir: PathBuf::from(DEFAULT_STATE_DIR),
            kill_command: None,
            watchdog: None,
            fencing: FencingConfig::default(),
            reservations: false,
        }
    }
}

/// An error in the settings. The text names the file and the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    lease_ms: Option<u64>,
    request_time_ms: Option<u64>,
    state_dir: Option<PathBuf>,
    kill_command: Option<Vec<String>>,
    kill_time_ms: Option<u64>,
    watchdog: Option<PathBuf>,
    watchdog_timeout_s: Option<u64>,
    #[serde(default)]
    global: RawGlobal,
    #[serde(default)]
    fencing: RawFencing,
    emulator: Option<BTreeMap<String, PathBuf>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGlobal {
    #[serde(default)]
    drives: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFencing {
    #[serde(default)]
    reservations: bool,
}

impl Config {
    /// The settings of this host, and the file that they come from. A file that the environment
    /// names must exist.
    pub fn load() -> Result<(Config, Option<PathBuf>), ConfigError> {
        let named = env::var_os(FILE_VARIABLE).map(PathBuf::from);
        let default = || is_there(Path::new(DEFAULT_FILE)).then(|| DEFAULT_FILE.into());
        let file = named.or_else(default);
        let config = file.as_deref().map_or_else(|| Ok(Config::default()), Config::from_file);
        Ok((config?, file))
    }

    /// The settings in a file.
    pub fn from_file(file: &Path) -> Result<Config, ConfigError> {
        let text = read(file)
            .map_err(|error| ConfigError(format!("{}: {}", file.display(), hint(&error))))?;
        Config::parse(&text).map_err(|error| ConfigError(format!("{}: {error}", file.display())))
    }

    /// The settings in force, for the log.
    pub fn summary(&self) -> String {
        let drives = match self.global_drives.as_slice() {
            [] => "those with a partition \"propeller\"".to_owned(),
            drives => drives.join(", "),
        };
        let fenced = if self.reservations { ", drives refuse the data of other hosts" } else { "" };
        format!("lease {} ms, drives of the global lock: {drives}{fenced}", self.lease.as_millis())
    }

    /// The times that the lock engine uses.
    pub fn timing(&self) -> Timing {
        let usual = Timing::for_lease(self.lease);
        Timing { patience: self.request_time.unwrap_or(usual.patience), ..usual }
    }

    /// The settings in a text.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let raw: Raw = toml::from_str(text).map_err(|error| described(text, &error))?;
        if raw.emulator.is_some() && !cfg!(feature = "emulator") {
            return Err(ConfigError(
                "[emulator]: this build cannot reach emulated drives (feature `emulator`)".into(),
            ));
        }
        let lease_ms = raw.lease_ms.unwrap_or(DEFAULT_LEASE_MS);
        check_lease(lease_ms, raw.emulator.is_some())?;
        let state_dir = raw.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into());
        if !state_dir.is_absolute() {
            return Err(ConfigError(format!(
                "state_dir = {state_dir:?}: must be an absolute path"
            )));
        }
        if let Some(command) = &raw.kill_command {
            check_command(command)?;
        }
        let lease = Duration::from_millis(lease_ms);
        let request_time = raw.request_time_ms.map(Duration::from_millis);
        if let Some(time) = request_time {
            check_request_time(time, lease)?;
        }
        if let Some(watchdog) = &raw.watchdog {
            check_watchdog(watchdog)?;
        }
        if raw.watchdog.is_none() && raw.watchdog_timeout_s.is_some() {
            return Err(ConfigError("watchdog_timeout_s: there is no watchdog".into()));
        }
        let timeout = raw.watchdog_timeout_s.map(Duration::from_secs);
        let fencing = FencingConfig {
            kill_time: raw.kill_time_ms.map(Duration::from_millis),
            watchdog: raw.watchdog.is_some().then_some(timeout),
        };
        Fencing::new(&Timing::for_lease(lease), fencing).map_err(ConfigError)?;
        if raw.global.drives.iter().any(String::is_empty) {
            return Err(ConfigError("[global] drives: has an empty path".into()));
        }
        let emulated = raw.emulator.unwrap_or_default();
        Ok(Config {
            lease,
            request_time,
            global_drives: raw.global.drives,
            emulated,
            state_dir,
            kill_command: raw.kill_command,
            watchdog: raw.watchdog,
            fencing,
            reservations: raw.fencing.reservations,
        })
    }
}

/// Whether a file exists or may exist: the defaults apply only where the file is certainly absent.
fn is_there(file: &Path) -> bool {
    !fs::symlink_metadata(file).is_err_and(|error| file::is_absent(&error))
}

/// Reads the file, unless anyone but root, this user and their groups may have written it: it names
/// a program that is run.
fn read(file: &Path) -> io::Result<String> {
    let mut options = fs::File::options();
    // Without O_NONBLOCK, opening a FIFO would wait for its writer.
    let opened = options.read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    let found = opened.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no plain file; replace it by one"));
    }
    if found.uid() != 0 && found.uid() != Uid::effective().as_raw() {
        return Err(io::Error::other(format!(
            "it belongs to the user with the number {}; \"chown root\" it",
            found.uid()
        )));
    }
    if found.mode() & 0o002 != 0 {
        return Err(io::Error::other("everybody may write to it; \"chmod o-w\" it"));
    }
    let ours = [0, Gid::effective().as_raw()];
    if found.mode() & 0o020 != 0 && !ours.contains(&found.gid()) {
        return Err(io::Error::other(format!(
            "the group with the number {} may write to it; \"chmod g-w\" it",
            found.gid()
        )));
    }
    if found.len() > LARGEST {
        return Err(io::Error::other("it is too large: more than 1 MiB; is it the right file?"));
    }
    let mut text = String::new();
    opened.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Cause of the error, and the remedy.
fn hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{error}; a link or the environment variable {FILE_VARIABLE} leads there, correct it"
        ),
        io::ErrorKind::InvalidData => "it is not UTF-8; write it anew".to_owned(),
        _ => error.to_string(),
    }
}

/// One line for an error of the parser, whose own text has several.
fn described(text: &str, error: &toml::de::Error) -> ConfigError {
    let why = error.message().replace('\n', " ").replace(EMULATOR_KEY, "");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return ConfigError(why);
    };
    let line = text.get(before.rfind('\n').map_or(0, |at| at + 1)..).unwrap_or_default();
    let line = line.lines().next().unwrap_or_default().trim();
    ConfigError(format!("line {}, {line:?}: {why}", before.matches('\n').count() + 1))
}

fn check_lease(lease_ms: u64, is_emulated: bool) -> Result<(), ConfigError> {
    let shortest = if is_emulated { *LEASE_MS.start() } else { SHORTEST_LEASE_MS };
    if (shortest..=*LEASE_MS.end()).contains(&lease_ms) {
        return Ok(());
    }
    let why = if lease_ms < SHORTEST_LEASE_MS && !is_emulated {
        "; the kernel may notice a second late that a drive does not answer, and a shorter lease \
         has no time for that"
    } else {
        ""
    };
    Err(ConfigError(format!(
        "lease_ms = {lease_ms}: must be {shortest} to {}{why}",
        LEASE_MS.end()
    )))
}

/// A request may take as long as a command of unknown fate. It must not end before a sound drive
/// has answered.
fn check_request_time(time: Duration, lease: Duration) -> Result<(), ConfigError> {
    let usual = Timing::for_lease(lease);
    let shortest = usual.patience.min(SHORTEST_REQUEST_TIME);
    if (shortest..=usual.linger).contains(&time) {
        return Ok(());
    }
    Err(ConfigError(format!(
        "request_time_ms = {}: must be {} to {}, a quarter of the lease",
        time.as_millis(),
        shortest.as_millis(),
        usual.linger.as_millis()
    )))
}

fn check_watchdog(device: &Path) -> Result<(), ConfigError> {
    if device == Path::new("wdmd") {
        return Err(ConfigError(
            "watchdog = \"wdmd\": its timeout of 60 s is longer than what renewal leaves of a \
             lease; name a device, such as /dev/watchdog1"
                .into(),
        ));
    }
    if !device.is_absolute() {
        return Err(ConfigError(format!("watchdog = {device:?}: must be an absolute path")));
    }
    Ok(())
}

fn check_command(command: &[String]) -> Result<(), ConfigError> {
    match command.first() {
        Some(program) if Path::new(program).is_absolute() => Ok(()),
        Some(program) => Err(ConfigError(format!(
            "kill_command: the program {program:?} must be an absolute path"
        ))),
        None => Err(ConfigError("kill_command: names no program".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn refused(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = Config::parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.lease, Duration::from_secs(60));
        assert_eq!(config.state_dir, Path::new("/run/lvmlockd-idm"));
    }

    #[test]
    fn every_key_is_read() {
        let config = Config::parse(
            "lease_ms = 25000\nstate_dir = \"/tmp/x\"\nkill_command = [\"/bin/k\", \"-9\"]\n\
             kill_time_ms = 700\n[global]\ndrives = [\"/dev/sda\", \"/dev/sdb\"]\n\
             [fencing]\nreservations = true\n",
        )
        .unwrap();
        assert!(config.reservations && config.summary().ends_with("the data of other hosts"));
        assert_eq!(config.fencing.kill_time, Some(Duration::from_millis(700)));
        assert_eq!(config.lease, Duration::from_secs(25));
        assert_eq!(config.state_dir, Path::new("/tmp/x"));
        assert_eq!(config.kill_command.unwrap(), ["/bin/k", "-9"]);
        assert_eq!(config.global_drives, ["/dev/sda", "/dev/sdb"]);
    }

    #[test]
    fn the_example_shows_every_key_and_the_defaults() {
        let example = include_str!("../dist/lvmlockd-idm.conf");
        assert_eq!(Config::parse(example).unwrap(), Config::default());
        let key = |line: &str| line.starts_with('#') && line[1..].starts_with(char::is_lowercase);
        let uncommented: Vec<&str> =
            example.lines().map(|line| if key(line) { &line[1..] } else { line }).collect();
        let all = Config::parse(&uncommented.join("\n")).unwrap();
        assert_eq!(all.global_drives.len(), 2);
        assert_eq!(all.kill_command.unwrap(), ["/sbin/lvmlockctl", "--kill"]);
        let default = Config::default();
        assert_eq!((all.lease, all.state_dir), (default.lease, default.state_dir));
        assert_eq!(all.watchdog.unwrap(), Path::new("/dev/watchdog"));
        let keys = ["lease_ms", "request_time_ms", "state_dir", "kill_command", "kill_time_ms"];
        let more = ["watchdog", "watchdog_timeout_s", "drives", "reservations"];
        for key in keys.into_iter().chain(more) {
            assert!(uncommented.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
    }

    #[test]
    fn wrong_keys_and_values_are_named() {
        assert!(refused("leese_ms = 1").contains("leese_ms"));
        assert!(refused("[global]\ndrive = []").contains("drive"));
        assert!(refused("[fencing]\nreservation = true").contains("reservation"));
        assert!(refused("lease_ms = \"long\"").contains("lease_ms"));
        assert!(refused("lease_ms = 19999").contains("lease_ms = 19999: must be 20000 to"));
        assert!(refused("lease_ms = 3600001").contains("3600000"));
        assert!(refused("lease_ms = -1").contains("lease_ms"));
        assert!(refused("request_time_ms = 999").contains("request_time_ms = 999"));
        assert!(refused("request_time_ms = 15001").contains("1000 to 15000"));
        assert!(refused("lease_ms = 20000\nrequest_time_ms = 5001").contains("1000 to 5000"));
        assert!(refused("state_dir = \"run\"").contains("state_dir"));
        assert!(refused("kill_time_ms = 30000").contains("kill_time_ms = 30000"));
        assert!(refused("lease_ms = 20000\nkill_time_ms = 9000").contains("lease_ms = 20000"));
        assert!(refused("watchdog = \"softdog\"").contains("watchdog = \"softdog\""));
        assert!(refused("watchdog = \"wdmd\"").contains("60 s"));
        assert!(refused("watchdog_timeout_s = 5").contains("no watchdog"));
        let watchdog = "watchdog = \"/dev/watchdog\"\n";
        assert!(Config::parse(watchdog).unwrap().fencing.watchdog.is_some());
        let refused_with = |keys: &str| refused(&format!("{watchdog}{keys}"));
        assert!(refused_with("watchdog_timeout_s = 30").contains("watchdog_timeout_s = 30"));
        let timeout = "lease_ms = 20000\nwatchdog_timeout_s = 7";
        assert!(refused_with(timeout).contains("lease_ms = 20000"));
        assert!(refused("kill_command = []").contains("kill_command"));
        assert!(refused("kill_command = [\"reboot\"]").contains("reboot"));
        assert!(refused("[global]\ndrives = [\"\"]").contains("[global] drives"));
    }

    #[test]
    fn the_shortest_lease_leaves_the_kernel_a_second() {
        let left = |lease_ms| {
            let timing = Timing::for_lease(Duration::from_millis(lease_ms));
            timing.linger - crate::transport::Limits::new(&timing).over
        };
        let second = Duration::from_secs(1);
        assert!(left(SHORTEST_LEASE_MS) >= second && left(SHORTEST_LEASE_MS - 1) < second);
        if cfg!(feature = "emulator") {
            assert!(Config::parse("lease_ms = 500\n[emulator]").is_ok());
            assert!(refused("lease_ms = 499\n[emulator]").ends_with("must be 500 to 3600000"));
        }
    }

    #[test]
    fn emulated_drives_need_a_build_that_has_them() {
        let text = "[emulator]\n\"/dev/loop3\" = \"/tmp/d0.sock\"\n";
        if cfg!(feature = "emulator") {
            let config = Config::parse(text).unwrap();
            assert_eq!(config.emulated["/dev/loop3"], Path::new("/tmp/d0.sock"));
        } else {
            assert!(refused(text).contains("feature `emulator`"));
            assert!(refused("[emulator]").contains("feature `emulator`"));
            assert!(!refused("emulated = 1").contains("`emulator`"));
        }
    }

    #[test]
    fn errors_name_the_file() {
        let missing = Path::new("/nonexistent/idm.conf");
        let error = Config::from_file(missing).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/idm.conf: "), "{error}");
    }

    #[test]
    fn an_error_is_one_line_that_names_place_and_key() {
        for (text, parts) in [
            ("# one\nlease_ms = \"long\"\n", ["line 2", "lease_ms", "expected u64"]),
            ("\n\nstate_dir = [", ["line 3", "state_dir", ""]),
            ("leese_ms = 1", ["line 1", "leese_ms", "expected one of"]),
            ("[global]\ndrives = 1", ["line 2", "drives", "expected a sequence"]),
        ] {
            let why = refused(text);
            assert!(!why.contains('\n'), "{why:?}");
            assert!(parts.iter().all(|part| why.contains(part)), "{why:?}");
        }
    }

    #[test]
    fn only_what_is_certainly_absent_is_replaced_by_the_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let (file, looped) = (directory.path().join("conf"), directory.path().join("loop"));
        assert!(!is_there(&file) && !is_there(&file.join("below")));
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        std::os::unix::fs::symlink("loop", &looped).unwrap();
        for link in [&file, &looped, &looped.join("below")] {
            assert!(is_there(link));
            assert!(Config::from_file(link).is_err());
        }
    }

    #[test]
    fn a_file_that_others_may_have_written_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("conf");
        fs::write(&file, "lease_ms = 50000").unwrap();
        let set_mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let why = || Config::from_file(&file).unwrap_err().to_string();
        set_mode(0o664);
        let config = Config::from_file(&file).unwrap();
        assert_eq!(config.summary().split(',').next(), Some("lease 50000 ms"));
        set_mode(0o666);
        assert!(why().contains("chmod o-w"), "{}", why());
        set_mode(0o644);
        if Uid::effective().is_root() {
            let chown = |user, group| std::os::unix::fs::chown(&file, Some(user), Some(group));
            chown(0, 54321).unwrap();
            assert!(Config::from_file(&file).is_ok(), "the group may only read it");
            set_mode(0o664);
            assert!(why().contains("54321") && why().contains("chmod g-w"), "{}", why());
            chown(12345, 0).unwrap();
            assert!(why().contains("12345"), "{}", why());
        }
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(why().contains("no plain file"), "{}", why());
    }
}
