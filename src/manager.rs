//! The lock manager behind lvmlockd's core, free of C: lockspaces, resources, locks.
//!
//! State is keyed by the addresses of core's structs, never by name or uuid: several resource
//! structs for one LV coexist, and late calls arrive for old ones
//! (docs/lvmlockd-contract.md, "When a resource is removed").
//!
//! This file has the manager, its state, its start and its end. Core's requests are in
//! `lockspaces`, `locks`, `reading` and `availability`. They use the parts that `running` has
//! started, on drives that `plan` chooses.

mod availability;
mod kill_setting;
mod locks;
mod lockspaces;
mod plan;
mod reading;
mod running;
mod spread;
mod state;
mod votes;

use crate::config::{Config, DEFAULT_FILE};
use crate::error::Error;
use crate::fencing::watchdog::Watchdog;
use crate::lock::LockspaceKey;
use crate::lockspace::Lockspace;
use crate::recovery::active::Devices;
use crate::state::store::Store;
use crate::sys::clock;
use crate::sys::sync::{Mutex, MutexGuard};
use core::time::Duration;
use idm_engine::Instant;
use idm_protocol::HostId;
use once_cell::sync::OnceCell;
use running::Running;
use state::ManagerState;
use std::sync::Arc;

/// Wait of the ending process for the drives, and for the watchdog.
const END: Duration = Duration::from_millis(500);

/// Cached facts about the global lock's drives.
#[derive(Default)]
struct GlobalDriveCache {
    /// Count of kernel events at the last look at the disks before anything was started, and
    /// whether there were partitions for the global lock.
    partitions: Mutex<Option<(Option<u64>, bool)>>,
    /// Time at which drives with such partitions were last asked whether they have IDM.
    asked: Mutex<Option<std::time::Instant>>,
}

/// The lock manager: one per process.
pub struct Manager {
    config: Result<Config, String>,
    /// The host id that a test gives; otherwise it is kept in the state directory.
    host: Option<HostId>,
    /// Time at which this lvmlockd started.
    began: Instant,
    devices: Devices,
    lvm_path: Arc<OnceCell<String>>,
    running: OnceCell<Running>,
    state: Arc<Mutex<ManagerState>>,
    global_drives: GlobalDriveCache,
    /// Set after the check that the kill command has an effect.
    kill_setting: OnceCell<()>,
}

impl Manager {
    /// The process's lock manager.
    pub fn get() -> &'static Manager {
        static MANAGER: OnceCell<Manager> = OnceCell::new();
        MANAGER.get_or_init(|| {
            let config = Config::load().map(|(config, file)| {
                let file =
                    file.map_or("no configuration".into(), |file| file.display().to_string());
                log::info!("{file}: {}", config.summary());
                config
            });
            let config = config.map_err(|error| error.to_string());
            if let Err(error) = &config {
                log::error!("{error}");
            }
            Manager::make(config, None, Devices::default())
        })
    }

    /// A separate lock manager, as on another host with these devices. Dropping it acts like a
    /// sudden death of lvmlockd on that host: nothing is released.
    pub fn new(config: Config, host: HostId, devices: Devices) -> Manager {
        Manager::make(Ok(config), Some(host), devices)
    }

    fn make(config: Result<Config, String>, host: Option<HostId>, devices: Devices) -> Manager {
        Manager {
            config,
            host,
            began: clock::now(),
            devices,
            lvm_path: Arc::default(),
            running: OnceCell::new(),
            state: Arc::default(),
            global_drives: GlobalDriveCache::default(),
            kill_setting: OnceCell::new(),
        }
    }

    /// Sets the path of lvm (lvm2's `LVM_PATH`): `lvmlockctl` is in the same directory. Only the
    /// first call counts.
    pub fn set_lvm_path(&self, path: &str) {
        self.lvm_path.get_or_init(|| path.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, ManagerState> {
        self.state.lock()
    }

    fn lockspace(&self, key: LockspaceKey) -> Result<Arc<Lockspace>, Error> {
        let state = self.state();
        state.lockspaces.get(&key).cloned().ok_or(Error::NoLockspace)
    }

    /// The running parts, started first where necessary.
    fn running(&self) -> Result<&Running, Error> {
        self.running.get_or_try_init(|| {
            Running::start(
                self.config()?,
                (self.host, self.began),
                self.devices.clone(),
                self.lvm_path.clone(),
                Arc::downgrade(&self.state),
            )
        })
    }

    fn config(&self) -> Result<&Config, Error> {
        self.config.as_ref().map_err(|why| Error::Invalid(why.clone()))
    }

    /// Starts to care for the locks that an earlier lvmlockd left behind, if there are any. Does
    /// not wait for drives. This is the first call when lvmlockd starts.
    pub fn recover(&self) {
        let Ok(config) = &self.config else {
            if Store::has_any(&Config::default().state_dir) {
                log::error!(
                    "an earlier lvmlockd left locks behind, which nobody keeps before \
                     {DEFAULT_FILE} is mended and lvmlockd started again"
                );
            }
            return;
        };
        let fed = config.watchdog.is_some() && Watchdog::was_left(&config.state_dir);
        if !fed && !Store::has_any(&config.state_dir) {
            return;
        }
        if let Err(error) = self.running() {
            log::error!("the locks of an earlier lvmlockd cannot be kept: {error}");
        }
    }

    /// Prepares for the end of the process. Released locks get a moment to reach the drives; held
    /// locks stay held. The watchdog is stopped where no lock is held.
    pub fn end(&self) {
        let Some(running) = self.running.get() else { return };
        if !running.runtime.drain(END) {
            log::info!("ending; some drives have not answered yet");
        }
        if let Some(watchdog) = &running.watchdog {
            watchdog.rest(END);
        }
    }
}
