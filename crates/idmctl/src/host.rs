//! Facts about this host that need no answer of a drive.

use crate::Trouble;
use crate::names::Names;
use idm_emulator::server::control_socket;
use idm_protocol::{HostId, ResourceId};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::state::{host_id, store};
use lvmlockd_idm::topology::Topology;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Paths that do not depend on the settings.
#[derive(Clone, Debug)]
pub struct Places {
    /// The socket on which lvmlockd takes requests.
    pub lvmlockd: PathBuf,
    /// lvm's backups of metadata.
    pub backups: PathBuf,
    /// Where the kernel lists block devices.
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
    /// Whether lvmlockd listens.
    pub lvmlockd: bool,
    /// Names of VGs and LVs.
    pub names: Names,
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
        let boot = host_id::boot_id().unwrap_or_default();
        let id = fs::read_to_string(host_id::file(&settings.state_dir))
            .ok()
            .and_then(|text| host_id::parse(&text, &boot));
        let saved = store::Store::peek(&settings.state_dir, &boot);
        let mut names = Names::default();
        for (vg, lockspace) in &saved.lockspaces {
            if *vg != ResourceId::GLOBAL {
                names.add(*vg, &lockspace.name);
            }
        }
        names.add_active(&places.block);
        names.add_backups(&places.backups);
        Ok(Host {
            config,
            topology: Arc::new(Topology::new(known)),
            emulated,
            id,
            name: host_name(),
            saved,
            lvmlockd: UnixStream::connect(&places.lvmlockd).is_ok(),
            names,
        })
    }

    /// The settings in force, the defaults where they are broken.
    pub fn settings(&self) -> Config {
        self.config.clone().unwrap_or_default()
    }

    /// Kill commands that were run since lvmlockd was started, as its metrics tell; 0 where there
    /// are none.
    pub fn kills(&self) -> u64 {
        let file = self.settings().state_dir.join("metrics.prom");
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(KILLS));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or_default()
    }
}

/// The name of the counter of kill commands in the library's metrics.
const KILLS: &str = "lvmlockd_idm_kills_total ";

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
