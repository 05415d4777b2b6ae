//! Facts about this host that need no answer of a drive.

use crate::Trouble;
use crate::names::Names;
use idm_emulator::server::control_socket;
use idm_protocol::{HostId, ResourceId};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::state::refusals::Refusals;
use lvmlockd_idm::state::{host_id, store};
use lvmlockd_idm::topology::Topology;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Paths that do not depend on the settings.
#[derive(Clone, Debug)]
pub struct Places {
    /// The socket on which lvmlockd takes requests.
    pub lvmlockd: PathBuf,
    /// lvm's backups of metadata.
    pub backups: PathBuf,
    /// The folder in which the kernel lists block devices.
    pub block: PathBuf,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            lvmlockd: "/run/lvm/lvmlockd.socket".into(),
            backups: "/etc/lvm/backup".into(),
            block: "/sys/block".into(),
        }
    }
}

/// This host.
pub struct Host {
    /// The settings, or the error in them.
    pub config: Result<Config, String>,
    /// Finds drives.
    pub topology: Arc<Topology>,
    /// Emulated drives by name, where a directory of them was given.
    pub emulated: BTreeMap<String, PathBuf>,
    /// The id that lvmlockd on this host uses; `None` where it has used none since the boot.
    pub id: Option<HostId>,
    /// The host's name.
    pub name: String,
    /// lvmlockd's notes: started lockspaces, and locks that may be held.
    pub saved: store::Saved,
    /// The latest refusals of lvmlockd, and the dates until which it does not ask drives for locks.
    pub refusals: Refusals,
    /// Whether lvmlockd listens.
    pub lvmlockd: bool,
    /// Names of VGs and LVs.
    pub names: Names,
    places: Places,
}

impl Host {
    /// This host, with the emulated drives in a directory where one is given.
    pub fn look(places: &Places, emulated: Option<&Path>) -> Result<Host, Trouble> {
        let config = Config::load().map(|(config, _)| config).map_err(|error| error.to_string());
        Host::with_config(places, config, emulated)
    }

    /// The same, with settings that are given.
    pub fn with_config(
        places: &Places,
        config: Result<Config, String>,
        emulated: Option<&Path>,
    ) -> Result<Host, Trouble> {
        let emulated = emulated.map(sockets).transpose()?.unwrap_or_default();
        let settings = config.clone().unwrap_or_default();
        let mut known = settings.emulated.clone();
        known.extend(emulated.clone());
        let mut host = Host {
            config,
            topology: Arc::new(Topology::new(known)),
            emulated,
            id: None,
            name: host_name(),
            saved: store::Saved::default(),
            refusals: Refusals::default(),
            lvmlockd: false,
            names: Names::default(),
            places: places.clone(),
        };
        host.look_again();
        Ok(host)
    }

    /// Reads again what changes while lvmlockd runs. Names that are known stay.
    pub fn look_again(&mut self) {
        let state_dir = self.settings().state_dir;
        let boot = host_id::boot_id().unwrap_or_default();
        let id = fs::read_to_string(host_id::file(&state_dir)).ok();
        self.id = id.and_then(|text| host_id::parse(&text, &boot));
        self.saved = store::Store::peek(&state_dir, &boot);
        self.refusals = Refusals::peek(&state_dir, &boot);
        self.lvmlockd = UnixStream::connect(&self.places.lvmlockd).is_ok();
        for (vg, lockspace) in &self.saved.lockspaces {
            if *vg != ResourceId::GLOBAL {
                self.names.add(*vg, &lockspace.name);
            }
        }
        self.names.add_active(&self.places.block);
        self.names.add_backups(&self.places.backups);
    }

    /// The settings in force, the defaults where they are broken.
    pub fn settings(&self) -> Config {
        self.config.clone().unwrap_or_default()
    }

    /// The time since lvmlockd has written its counters, if it should write them: while a lockspace
    /// is started.
    pub fn metrics_age(&self) -> Option<Duration> {
        let file = self.settings().state_dir.join("metrics.prom");
        let written = fs::metadata(file).ok().filter(Metadata::is_file)?.modified().ok()?;
        let writes = !self.saved.lockspaces.is_empty();
        // A clock that was set back is no age.
        let age = SystemTime::now().duration_since(written).ok();
        age.filter(|_| writes)
    }

    /// Whether a VG has lost locks on this host and waits to be dropped. lvmlockd exports that
    /// every 5 s.
    pub fn is_killed(&self, vg: &str) -> bool {
        let file = self.settings().state_dir.join("metrics.prom");
        let text = fs::read_to_string(file).unwrap_or_default();
        let killed = format!("{KILLED}{{vg=\"{vg}\"}} 1");
        text.lines().any(|line| line == killed)
    }
}

/// The name of the state of a VG in the library's metrics.
const KILLED: &str = "lvmlockd_idm_lockspace_killed";

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The drives' sockets in a directory, by the drives' names.
fn sockets(directory: &Path) -> Result<BTreeMap<String, PathBuf>, Trouble> {
    let remedy = "name the directory that idm-emulator was given as --dir";
    let entries = fs::read_dir(directory).map_err(|error| {
        Trouble::new(error.to_string(), directory.display().to_string(), remedy)
    })?;
    let control = control_socket(directory);
    let mut found = BTreeMap::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_socket = path.extension().is_some_and(|it| it == "sock") && path != control;
        if let (true, Some(name)) = (is_socket, path.file_stem()) {
            found.insert(name.to_string_lossy().into_owned(), path);
        }
    }
    if found.is_empty() {
        return Err(Trouble::new(
            "no emulated drive has a socket here",
            directory.display().to_string(),
            remedy,
        ));
    }
    Ok(found)
}
