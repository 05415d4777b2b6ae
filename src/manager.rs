//! What lvmlockd's core asks for, free of C: lockspaces, resources, locks.
//!
//! State is keyed by the addresses of core's structs, never by name or uuid: several resource
//! structs for one LV coexist, and late calls arrive for old ones (contract, section 0).

use crate::config::{Config, DEFAULT_FILE};
use crate::error::Error;
use crate::lockspace::{Held, Lockspace};
use crate::recovery::active::Devices;
use crate::recovery::store::{SavedLock, SavedLockspace, Store};
use crate::recovery::{Claim, Orphans};
use crate::runtime::drives::{Drives, Members};
use crate::runtime::fencing::{Fencing, command_timeout};
use crate::runtime::metrics::export::Exporter;
use crate::runtime::watchdog::{self, Watchdog, device::Device};
use crate::runtime::{Answer, LockSpec, Role, Runtime, Settings, clock, host_id};
use crate::sync::{Mutex, MutexGuard};
use crate::topology::Topology;
use crate::transport;
use core::time::Duration;
use idm_engine::{Member, Outcome, Refusal, Request, Timing, ValueRead};
use idm_protocol::{HostId, IdError, Mode, ResourceId, Status, Value};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

/// Address of core's `struct lockspace`, used as a name and never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockspaceKey(pub usize);

/// Address of core's `struct resource`, used as a name and never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResourceKey(pub usize);

/// What a lockspace is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `lvm_global`.
    Global,
    /// A volume group.
    Vg {
        /// Its name, for messages and for the kill command.
        name: String,
        /// Its uuid as LVM prints it.
        uuid: String,
        /// Paths of its PVs.
        pvs: Vec<String>,
    },
}

/// What a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The global lock, in the lockspace of [`Scope::Global`].
    Global,
    /// The VG's lock.
    Vg,
    /// An LV's lock.
    Lv {
        /// Its uuid as LVM prints it.
        uuid: String,
        /// Paths of the PVs that the request names; empty where it names none, then the
        /// VG's are used.
        pvs: Vec<String>,
    },
}

/// What a request says about locks that this host left behind (lvm2 2.03.25 and later; both false
/// before).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopt {
    /// Only take over what this host left behind.
    pub only: bool,
    /// Take over what this host left behind, otherwise proceed as usual.
    pub ok: bool,
}

/// lvmlockd's value block, host-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValBlk {
    /// 0x0101, or 0 for "no value".
    pub version: u16,
    /// `VBF_REMOVED` (1).
    pub flags: u16,
    /// Version number of the resource.
    pub r_version: u32,
}

/// Drives of one lock. lvmlockd's own limit for a VG is higher, but no host could renew on more.
const MOST_DRIVES: usize = 512;
/// What a request may take longer than the engine's patience before it is given up: the engine
/// always answers in time, so this only guards against errors of our own.
const GRACE: Duration = Duration::from_secs(3);
/// How long [`Manager::unlock`] waits for the drives. The lvm command that follows on another host
/// would otherwise be told "held by another host", and core does not try LV locks again. Healthy
/// drives answer within milliseconds; more than half of them is enough.
const SETTLE: Duration = Duration::from_millis(500);
/// How long [`Manager::remove_lockspace`] waits: core ignores a shutdown where stopping takes more
/// than 100 ms (contract, section 3.1).
const STOP_SETTLE: Duration = Duration::from_millis(80);
/// How long the end of the process waits for drives, and for the watchdog.
const END: Duration = Duration::from_millis(500);
/// How much longer it waits until the watchdog is stopped.
const STOP_REST: Duration = Duration::from_millis(15);
/// How long a request waits until the watchdog is armed. Devices on a slow bus take a moment.
const ARM: Duration = Duration::from_secs(2);
/// How long [`Manager::hosts`] waits: all of core is blocked meanwhile (contract, section 0).
const COUNT_BOUND: Duration = Duration::from_secs(1);
/// How long [`Manager::is_running`] waits for drives that it asks, and the pause before it asks
/// again: it is called under a mutex of core's, on hosts with other lock managers too.
const ASK_BOUND: Duration = Duration::from_millis(250);
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// The pause before a lockspace that could not be started is tried again.
const JOIN_PAUSE: Duration = Duration::from_millis(200);
/// `LMUF_FREE_VG` of lvmlockd: the VG is being removed.
const FREE_VG: u32 = 1;
/// lvm2's usual path, which lvmlockctl's is derived from as lvmlockd does.
const LVM_PATH: &str = "/sbin/lvm";

/// The lock manager: one per process.
pub struct Manager {
    config: Result<Config, String>,
    /// Given, in tests; otherwise kept in the state directory.
    host: Option<HostId>,
    devices: Devices,
    lvm_path: Arc<OnceLock<String>>,
    running: Mutex<Option<Running>>,
    state: Mutex<State>,
    /// How many kernel events there had been when the disks were last looked at before anything was
    /// started, and whether there were partitions for the global lock.
    glance: Mutex<Option<(Option<u64>, bool)>>,
    /// When drives with such partitions were last asked whether they have IDM.
    asked: Mutex<Option<Instant>>,
}

/// What exists since the first lockspace was prepared.
#[derive(Clone)]
struct Running {
    runtime: Arc<Runtime>,
    host: HostId,
    timing: Timing,
    watchdog: Option<Arc<Watchdog>>,
    exporter: Arc<Exporter>,
    store: Arc<Store>,
    orphans: Arc<Orphans>,
}

#[derive(Default)]
struct State {
    lockspaces: HashMap<LockspaceKey, Arc<Lockspace>>,
    /// The resource structs that hold a lock.
    resources: HashMap<ResourceKey, Held>,
    /// The mutexes that a resource struct holds, is about to take or is about to give up: there is
    /// one note for each.
    taken: HashSet<ResourceId>,
}

impl State {
    /// Takes note of a lock that was granted; gives it back where its lockspace was stopped
    /// meanwhile.
    fn hold(&mut self, space: LockspaceKey, key: ResourceKey, held: Held) -> Result<(), LockSpec> {
        match self.lockspaces.get(&space) {
            Some(there) if Arc::ptr_eq(there, &held.lockspace) => {
                self.resources.insert(key, held);
                Ok(())
            }
            _ => Err(held.spec),
        }
    }
}

impl From<IdError> for Error {
    fn from(error: IdError) -> Error {
        Error::Invalid(error.to_string())
    }
}

impl Manager {
    /// The process's lock manager.
    pub fn get() -> &'static Manager {
        static MANAGER: OnceLock<Manager> = OnceLock::new();
        MANAGER.get_or_init(|| {
            let config = Config::load().map_err(|error| error.to_string());
            if let Err(error) = &config {
                log::error!("{error}");
            }
            Manager::make(config, None, Devices::default())
        })
    }

    /// A lock manager of its own, as if it were another host's, with the devices that it has.
    /// Dropping it is the sudden death of lvmlockd on that host: nothing is released.
    pub fn new(config: Config, host: HostId, devices: Devices) -> Manager {
        Manager::make(Ok(config), Some(host), devices)
    }

    fn make(config: Result<Config, String>, host: Option<HostId>, devices: Devices) -> Manager {
        Manager {
            config,
            host,
            devices,
            lvm_path: Arc::default(),
            running: Mutex::default(),
            state: Mutex::default(),
            glance: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// Tells where lvm2 was installed (its `LVM_PATH`): `lvmlockctl` is beside it. Only the first
    /// call counts.
    pub fn set_lvm_path(&self, path: &str) {
        self.lvm_path.get_or_init(|| path.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Result<Running, Error> {
        let mut slot = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*slot {
            return Ok(running.clone());
        }
        let running = self.start()?;
        *slot = Some(running.clone());
        Ok(running)
    }

    fn start(&self) -> Result<Running, Error> {
        let config = self.config.as_ref().map_err(|why| Error::Invalid(why.clone()))?;
        let host = match self.host {
            Some(host) => host,
            None => host_id::load(&config.state_dir).map_err(|error| {
                Error::NotRunning(format!(
                    "no host id can be kept in {}: {error}",
                    config.state_dir.display()
                ))
            })?,
        };
        let timing = Timing::for_lease(config.lease);
        let fencing = Fencing::new(&timing, config.fencing).map_err(Error::Invalid)?;
        let topology = Topology::new(config.emulated.clone());
        let connect = transport::connector(topology.clone(), command_timeout(&timing));
        let watchdog = start_watchdog(config, &fencing)?;
        let settings = Settings {
            host,
            timing,
            fencing,
            watchdog: watchdog.clone(),
            kill_command: self.kill_command(config),
        };
        let drives = Arc::new(Drives::new(topology, connect));
        let no_thread = |error| Error::NotRunning(format!("no thread can be started: {error}"));
        let runtime = Arc::new(Runtime::start(drives.clone(), settings).map_err(no_thread)?);
        let metrics = runtime.metrics().clone();
        let exporter = Exporter::start(&config.state_dir, move || drives.render(&metrics));
        let exporter = Arc::new(exporter.map_err(no_thread)?);
        let store = Arc::new(Store::open(&config.state_dir).map_err(|error| {
            let directory = config.state_dir.display();
            Error::NotRunning(format!("locks cannot be noted in {directory}: {error}"))
        })?);
        let devices = self.devices.clone();
        let orphans =
            Orphans::find(runtime.clone(), store.clone(), devices, timing, watchdog.clone())
                .map_err(|error| Error::NotRunning(format!("notes cannot be read: {error}")))?;
        Ok(Running { runtime, host, timing, watchdog, exporter, store, orphans })
    }

    /// Begins to take care of what an earlier lvmlockd left behind, where there is something. Does
    /// not wait for drives. The first call, when lvmlockd starts.
    pub fn recover(&self) {
        let Ok(config) = &self.config else { return };
        let fed = config.watchdog.is_some() && Watchdog::was_left(&config.state_dir);
        if !fed && !Store::has_any(&config.state_dir) {
            return;
        }
        if let Err(error) = self.running() {
            log::error!("what an earlier lvmlockd left behind cannot be kept: {error}");
        }
    }

    /// The lockspaces that were started when an earlier lvmlockd died, and not since.
    pub fn left_lockspaces(&self) -> Vec<SavedLockspace> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        running.map_or_else(Vec::new, |running| running.orphans.lockspaces())
    }

    fn kill_command(&self, config: &Config) -> Arc<dyn Fn() -> Vec<String> + Send + Sync> {
        let configured = config.kill_command.clone();
        let lvm_path = self.lvm_path.clone();
        Arc::new(move || {
            configured.clone().unwrap_or_else(|| {
                let lvm = lvm_path.get().map_or(LVM_PATH, String::as_str);
                vec![format!("{lvm}lockctl"), "--kill".to_owned()]
            })
        })
    }

    /// Takes note of a lockspace and checks that its drives can be used at all: a majority of a
    /// VG's drives must answer. The global lockspace is always accepted, because without it core
    /// fails even commands that only read; its lock then says what is missing.
    pub fn prepare_lockspace(&self, key: LockspaceKey, scope: Scope) -> Result<(), Error> {
        let running = self.running()?;
        let configured = self.config.as_ref().map_or(&[][..], |config| &config.global_drives);
        let lockspace = Lockspace::new(scope, configured)?;
        if lockspace.is_global {
            let drives = running.members_of(&lockspace)?.members;
            if drives.is_empty() {
                log::warn!("{}", no_global_drives());
            } else {
                log::info!("the global lock is on {}", running.names_of(&drives));
            }
        } else {
            running.check_drives(&lockspace)?;
            running.arm(&lockspace).map_err(|error| Error::NotRunning(error.to_string()))?;
        }
        // An address that is used again without a remove in between: what was there is gone.
        self.remove_lockspace(key, false, false)?;
        self.state().lockspaces.insert(key, Arc::new(lockspace));
        Ok(())
    }

    /// Starts the lockspace. On failure everything from prepare is forgotten (core never calls
    /// remove then).
    pub fn add_lockspace(&self, key: LockspaceKey, adopt: Adopt) -> Result<(), Error> {
        let added = self.start_lockspace(key, adopt);
        if added.is_err() {
            self.state().lockspaces.remove(&key);
        }
        added
    }

    fn start_lockspace(&self, key: LockspaceKey, adopt: Adopt) -> Result<(), Error> {
        let lockspace = self.lockspace(key)?;
        let running = self.running()?;
        if adopt.only && !running.orphans.had_started(&lockspace) {
            return Err(Error::AdoptNone);
        }
        // First, so that there is no lock that nobody knows the lockspace of.
        let saved = lockspace.saved();
        running.store.save_lockspace(&lockspace.id, &saved).map_err(not_noted)?;
        if !lockspace.is_global {
            let joined = running.join(&lockspace);
            if joined.is_err() && !running.orphans.any_of(&lockspace) {
                running.store.forget_lockspace(&lockspace.id);
            }
            joined?;
        }
        running.orphans.adopt_lockspace(&lockspace);
        lockspace.set_started();
        running.show(&self.state());
        log::info!("{}: started", lockspace.owner.name);
        Ok(())
    }

    /// Stops the lockspace; `free_vg`: the VG is being removed. Takes less than 100 ms: what drives
    /// have not answered by then is followed up in the background.
    ///
    /// Fails, where it `may_refuse`, if a dead lvmlockd left locks that are still in use; nothing
    /// has changed then. Otherwise such locks are kept as they were before the start.
    pub fn remove_lockspace(
        &self,
        key: LockspaceKey,
        free_vg: bool,
        may_refuse: bool,
    ) -> Result<(), Error> {
        let Ok(lockspace) = self.lockspace(key) else {
            return Ok(());
        };
        let running = self.running()?;
        let in_use = running.orphans.settle(&lockspace);
        for label in &in_use {
            log::warn!("{label}: left by an earlier lvmlockd, and its LV is still active");
        }
        if !in_use.is_empty() && may_refuse && !free_vg && !lockspace.owner.is_killed() {
            return Err(Error::Busy);
        }
        let mut state = self.state();
        state.lockspaces.remove(&key);
        let keys: Vec<ResourceKey> = state
            .resources
            .iter()
            .filter(|(_, held)| Arc::ptr_eq(&held.lockspace, &lockspace))
            .map(|(&key, _)| key)
            .collect();
        let held: Vec<Held> =
            keys.into_iter().filter_map(|key| state.resources.remove(&key)).collect();
        drop(state);
        for held in held {
            log::debug!("{}: released with its lockspace", held.spec.label);
            self.give_up(&running, held.spec);
        }
        if lockspace.is_started() && !lockspace.is_global {
            // Waited for, so that a vgremove on another host does not count this one any more.
            let bound = patience_for(&lockspace, STOP_SETTLE);
            let release = Request::Release { value: None };
            let membership = lockspace.membership();
            running.runtime.request(membership.clone(), release, bound);
            running.store.forget_lock(&membership.resource);
        }
        if !running.orphans.any_of(&lockspace) {
            running.store.forget_lockspace(&lockspace.id);
        }
        running.show(&self.state());
        if let Some(watchdog) = &running.watchdog {
            if self.state().lockspaces.is_empty() {
                watchdog.rest(STOP_REST);
            }
        }
        let removed = if free_vg { " and removed" } else { "" };
        log::info!("{}: stopped{removed}", lockspace.owner.name);
        Ok(())
    }

    /// The process is about to end. What was released gets a moment to reach the drives; what is
    /// still held stays held. The watchdog is stopped where nothing is.
    pub fn end(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(running) = running else { return };
        if !running.runtime.drain(END) {
            log::info!("ending; some drives have not answered yet");
        }
        if let Some(watchdog) = &running.watchdog {
            watchdog.rest(END);
        }
    }

    /// The VG's PVs, read afresh because a repeated start replaces them.
    pub fn set_pvs(&self, key: LockspaceKey, pvs: Vec<String>) {
        match self.lockspace(key) {
            Ok(lockspace) if !lockspace.is_global => lockspace.set_paths(pvs),
            _ => {}
        }
    }

    /// Takes note of a resource. Optional before [`Manager::lock`], and without effect: a resource
    /// that holds nothing has no state.
    pub fn add_resource(&self, lockspace: LockspaceKey, key: ResourceKey) {
        let _ = (lockspace, key);
    }

    /// Forgets a resource; never unlocks what another resource holds. May come after its
    /// lockspace is gone, and for resources that were never seen.
    pub fn remove_resource(&self, key: ResourceKey) {
        let Some(held) = self.state().resources.remove(&key) else {
            return;
        };
        log::warn!("{}: core forgets it without unlock, releasing it", held.spec.label);
        if let Ok(running) = self.running() {
            self.give_up(&running, held.spec);
        }
    }

    /// Takes a lock. The value block is all zero where there is no value or it cannot be trusted.
    ///
    /// A lock that this very resource already holds is a success, or a change of its mode: core
    /// asks that way after it lost count (contract, section 3.3).
    pub fn lock(
        &self,
        space_key: LockspaceKey,
        key: ResourceKey,
        resource: Resource,
        mode: Mode,
        adopt: Adopt,
    ) -> Result<ValBlk, Error> {
        let lockspace = self.lockspace(space_key)?;
        if !lockspace.is_started() {
            return Err(Error::NoLockspace);
        }
        if lockspace.owner.is_killed() {
            return Err(Error::Killed);
        }
        let spec = lockspace.spec(&resource)?.ok_or_else(|| {
            Error::Invalid(format!("{} has no such resource", lockspace.owner.name))
        })?;
        let running = self.running()?;
        if self.holds_already(&running, key, &spec, mode)? {
            return Ok(ValBlk::default());
        }
        // Before there is anything to protect, so that there is no moment without.
        let _armed = running.arm(&lockspace)?;
        let id = spec.resource;
        if !self.state().taken.insert(id) {
            return Err(Error::Held(format!("{}: held by this host", spec.label)));
        }
        let taken = self.take(&running, (space_key, key), spec, &resource, mode, adopt);
        if taken.is_err() {
            self.state().taken.remove(&id);
        }
        let read = taken?;
        if matches!(resource, Resource::Vg) && mode == Mode::Exclusive {
            self.spread_lv_locks(&running, &lockspace)?;
        }
        match resource {
            Resource::Lv { .. } => Ok(ValBlk::default()),
            Resource::Global | Resource::Vg => Ok(lockspace.value(id, |value| value.read(read))),
        }
    }

    /// Takes a lock that no resource has: one that a dead lvmlockd left behind, or from the drives.
    fn take(
        &self,
        running: &Running,
        keys: (LockspaceKey, ResourceKey),
        spec: LockSpec,
        resource: &Resource,
        mode: Mode,
        adopt: Adopt,
    ) -> Result<ValueRead, Error> {
        let claim = running.orphans.claim(&spec.resource, running.bound());
        match claim {
            Some(claim) if claim.kept => {
                let left = claim.saved.mode();
                if mode != left && (adopt.only || adopt.ok) {
                    return Err(Error::AdoptOtherMode);
                }
                let saved = claim.saved.asked_now(left);
                running.store.save_lock(&spec.resource, &saved).map_err(not_noted)?;
                let lockspace = self.lockspace(keys.0)?;
                self.take_over(keys, Held { lockspace, spec, mode: left, saved }, mode, claim)?;
                // What was changed under it may not have been published.
                Ok(ValueRead::Unknown)
            }
            None if adopt.only => Err(Error::AdoptNone),
            Some(_) if adopt.only => {
                let why = "left by an earlier lvmlockd, and too few drives have confirmed it";
                Err(Error::Storage(format!("{}: {why}", spec.label)))
            }
            claim => self.acquire(running, keys, spec, resource, mode, claim),
        }
    }

    /// Takes a lock that this process does not have. `claim`: what a dead lvmlockd left of it, and
    /// was not confirmed yet; the drives give it to this host.
    fn acquire(
        &self,
        running: &Running,
        (space_key, key): (LockspaceKey, ResourceKey),
        spec: LockSpec,
        resource: &Resource,
        mode: Mode,
        claim: Option<Claim>,
    ) -> Result<ValueRead, Error> {
        let lockspace = self.lockspace(space_key)?;
        let plan = running.plan(&lockspace, resource)?;
        let saved = plan.saved(mode);
        running.store.save_lock(&spec.resource, &saved).map_err(not_noted)?;
        let read = match running.request(&spec, plan.acquire(mode)) {
            Answer::Done(Outcome::Granted(read)) => read,
            other => {
                match &claim {
                    // Its LV may still be active.
                    Some(claim) => {
                        let noted = running.store.save_lock(&spec.resource, &claim.saved);
                        noted.map_err(not_noted)?;
                    }
                    None => running.store.forget_lock(&spec.resource),
                }
                return Err(running.refused(&spec, other));
            }
        };
        if let Some(claim) = claim {
            claim.take();
        }
        let held = Held { lockspace, spec, mode, saved };
        let held = self.state().hold(space_key, key, held);
        if let Err(spec) = held {
            self.give_up(running, spec);
            return Err(Error::NoLockspace);
        }
        Ok(read)
    }

    /// Gives a lock up without waiting for drives.
    fn give_up(&self, running: &Running, spec: LockSpec) {
        let id = spec.resource;
        running.store.forget_lock(&id);
        running.runtime.release(spec);
        self.state().taken.remove(&id);
    }

    /// Gives a resource the lock that a dead lvmlockd left behind and that was renewed since.
    fn take_over(
        &self,
        (space_key, key): (LockspaceKey, ResourceKey),
        held: Held,
        mode: Mode,
        claim: Claim,
    ) -> Result<(), Error> {
        let label = held.spec.label.clone();
        if self.state().hold(space_key, key, held).is_err() {
            return Err(Error::NoLockspace);
        }
        if let Err(error) = self.convert(key, mode, 0) {
            // It stays as it was left.
            self.state().resources.remove(&key);
            return Err(error);
        }
        claim.take();
        log::info!("{label}: held {mode}, taken over from an earlier lvmlockd");
        Ok(())
    }

    /// Puts the LV locks that this host holds on all of the VG's drives. Whoever has the VG's lock
    /// may move its LVs to other drives, where a host that locks them next must meet us.
    fn spread_lv_locks(&self, running: &Running, lockspace: &Arc<Lockspace>) -> Result<(), Error> {
        let members = running.members_of(lockspace)?.members;
        let of_vg =
            |held: &&Held| held.spec.role == Role::Lv && Arc::ptr_eq(&held.lockspace, lockspace);
        let state = self.state();
        let locks: Vec<_> =
            state.resources.values().filter(of_vg).map(|held| held.spec.resource).collect();
        drop(state);
        if !locks.is_empty() {
            running.runtime.spread(locks, members.clone());
        }
        running.orphans.spread(lockspace, members);
        Ok(())
    }

    /// Whether a resource holds the lock that it asks for, now in the mode that it asks for.
    fn holds_already(
        &self,
        running: &Running,
        key: ResourceKey,
        spec: &LockSpec,
        mode: Mode,
    ) -> Result<bool, Error> {
        let Some(held) = self.state().resources.get(&key).cloned() else {
            return Ok(false);
        };
        if held.spec.resource != spec.resource {
            log::warn!("{}: its resource is now another's, releasing it", held.spec.label);
        } else if running.runtime.mode(spec.resource).is_some() {
            log::info!("{}: asked for again, now {mode}", spec.label);
            self.convert(key, mode, 0)?;
            return Ok(true);
        }
        // Another one, or a lock that was lost: it has to be given up first.
        self.state().resources.remove(&key);
        self.give_up(running, held.spec);
        Ok(false)
    }

    /// Changes the mode of a held lock; `r_version` is 0 where there is nothing to publish.
    pub fn convert(&self, key: ResourceKey, mode: Mode, r_version: u32) -> Result<(), Error> {
        let held = self.state().resources.get(&key).cloned();
        let held =
            held.ok_or_else(|| Error::Invalid("convert of a lock that is not held".into()))?;
        let promotes = mode > held.mode;
        if promotes && held.lockspace.owner.is_killed() {
            return Err(Error::Killed);
        }
        let publish = r_version != 0 && held.mode == Mode::Exclusive;
        let value = publish.then(|| timestamp(&held, r_version, false));
        if mode == held.mode && value.is_none() {
            return Ok(());
        }
        let running = self.running()?;
        let saved = held.saved.asked_now(mode);
        // What is noted is at most what core was told, whenever lvmlockd is killed.
        if mode < held.mode {
            running.store.save_lock(&held.spec.resource, &saved).map_err(not_noted)?;
        }
        let answer = running.request(&held.spec, Request::Convert { mode, value });
        match answer {
            Answer::Done(Outcome::Converted { .. }) => {}
            // It goes on, and until it is finished other hosts are kept out as before. Core would
            // otherwise go on with an exclusive lock that becomes a shared one behind its back.
            Answer::TimedOut if !promotes => {
                log::warn!("{}: conversion to {mode} is not finished yet", held.spec.label);
            }
            other => return Err(running.refused(&held.spec, other)),
        }
        if promotes {
            if let Err(error) = running.store.save_lock(&held.spec.resource, &saved) {
                let demote = Request::Convert { mode: held.mode, value: None };
                running.request(&held.spec, demote);
                return Err(not_noted(error));
            }
        }
        if promotes && held.spec.role == Role::Vg {
            self.spread_lv_locks(&running, &held.lockspace)?;
        }
        if let Some(held) = self.state().resources.get_mut(&key) {
            held.mode = mode;
            held.saved = saved;
        }
        Ok(())
    }

    /// Gives a lock up. Never fails: what the drives did not take is followed up.
    pub fn unlock(&self, key: ResourceKey, r_version: u32, lmu_flags: u32) {
        let Some(held) = self.state().resources.remove(&key) else {
            log::debug!("unlock of a lock that is not held");
            return;
        };
        // Hosts that still have a removed VG started are told so.
        let removes = lmu_flags & FREE_VG != 0 && held.spec.role == Role::Vg;
        let publish = held.mode == Mode::Exclusive
            && held.spec.role.keeps_value()
            && (r_version != 0 || removes);
        let value = publish.then(|| timestamp(&held, r_version, removes));
        let Ok(running) = self.running() else {
            return;
        };
        let bound = patience_for(&held.lockspace, SETTLE);
        let (label, id) = (held.spec.label.clone(), held.spec.resource);
        let release = Request::Release { value };
        match running.runtime.request(held.spec, release, bound) {
            Answer::Done(_) => {}
            _ => log::info!("{label}: released, some drives have not answered yet"),
        }
        running.store.forget_lock(&id);
        self.state().taken.remove(&id);
    }

    /// The number of other hosts that have the lockspace started: a majority of the VG's drives is
    /// read, and every host counts that has a live record of the VG's there, membership or lock.
    pub fn hosts(&self, key: LockspaceKey) -> Result<u32, Error> {
        let lockspace = self.lockspace(key)?;
        let running = self.running()?;
        let members = running.members_of(&lockspace)?.members;
        let enough = majority(members.len());
        let answers = running.runtime.read_tables(&members, enough, COUNT_BOUND);
        let tables: Vec<_> = answers.into_iter().filter_map(|(_, table)| table.ok()).collect();
        if tables.len() < enough {
            return Err(Error::Storage(format!(
                "{}: {} of {} drives could be read, {enough} are needed to count its hosts",
                lockspace.owner.name,
                tables.len(),
                members.len()
            )));
        }
        let hosts: HashSet<HostId> = tables
            .iter()
            .flatten()
            .filter(|record| record.state.is_live() && lockspace.owns(&record.resource))
            .map(|record| record.host)
            .filter(|&host| host != running.host)
            .collect();
        for host in &hosts {
            log::info!("{}: started on host {host}", lockspace.owner.name);
        }
        Ok(u32::try_from(hosts.len()).unwrap_or(u32::MAX))
    }

    /// Whether IDM can be used on this host: it is configured, a VG is started, or a drive with a
    /// partition for the global lock has shown that it has IDM. A forgotten partition alone is not
    /// enough, because core uses no lock manager at all where two of them say yes.
    ///
    /// Quick and quiet: without such a partition no thread is started, and drives that have not been
    /// heard yet are asked now and then, for [`ASK_BOUND`] at most.
    pub fn is_running(&self) -> bool {
        let Ok(config) = &self.config else {
            return false;
        };
        let started = |lockspace: &Arc<Lockspace>| !lockspace.is_global && lockspace.is_started();
        if !config.global_drives.is_empty() || self.state().lockspaces.values().any(started) {
            return true;
        }
        self.sees_global_partitions(config)
            && self.running().is_ok_and(|running| self.global_drives_have_idm(&running))
    }

    /// Whether there are partitions for the global lock. Disks are looked at again only if the
    /// kernel has told of something since.
    fn sees_global_partitions(&self, config: &Config) -> bool {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(running) = running {
            return !running.runtime.drives().inventory().global().is_empty();
        }
        let topology = Topology::new(config.emulated.clone());
        let events = topology.event_count();
        let mut glance = self.glance.lock().unwrap_or_else(PoisonError::into_inner);
        match *glance {
            Some((before, found)) if events.is_some() && before == events => found,
            _ => {
                let found = topology.inventory().is_ok_and(|disks| !disks.global().is_empty());
                *glance = Some((events, found));
                found
            }
        }
    }

    fn global_drives_have_idm(&self, running: &Running) -> bool {
        let drives = running.runtime.drives();
        let members = drives.add_global(&mut Vec::new()).members;
        let known = || members.iter().any(|member| drives.has_idm(member.drive));
        // Whoever comes meanwhile waits for the same answers.
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if known() {
            return true;
        }
        if asked.is_none_or(|at| at.elapsed() > ASK_AGAIN) {
            *asked = Some(Instant::now());
            running.runtime.read_tables(&members, 1, ASK_BOUND);
        }
        known()
    }

    fn lockspace(&self, key: LockspaceKey) -> Result<Arc<Lockspace>, Error> {
        let state = self.state();
        state.lockspaces.get(&key).cloned().ok_or(Error::NoLockspace)
    }
}

impl Running {
    /// Longer than the engine ever takes.
    fn bound(&self) -> Duration {
        self.timing.patience + GRACE
    }

    /// Makes a request and waits for its end.
    fn request(&self, spec: &LockSpec, request: Request) -> Answer {
        self.runtime.request(spec.clone(), request, self.bound())
    }

    /// Takes the membership of a VG. After an outage drives are not used for a while, because the
    /// release of what was held before may still be on its way to them; that is waited out here,
    /// because core tells nobody if a lockspace fails to start.
    fn join(&self, lockspace: &Lockspace) -> Result<(), Error> {
        let membership = lockspace.membership();
        let id = membership.resource;
        let claim = self.orphans.claim(&id, self.bound());
        if let Some(claim) = claim {
            let left = claim.kept.then(|| claim.saved.drives.clone());
            claim.take();
            let plan = Plan::of_lockspace(self, lockspace)?;
            if left.as_ref() == Some(&plan.saved(Mode::Shared).drives) {
                self.runtime.own(membership);
                return Ok(());
            }
            if left.is_some() {
                // On other drives than those that others will look at.
                self.runtime.release(membership.clone());
            }
        }
        let begin = Instant::now();
        loop {
            let plan = Plan::of_lockspace(self, lockspace)?;
            self.store.save_lock(&id, &plan.saved(Mode::Shared)).map_err(not_noted)?;
            let error = match self.request(&membership, plan.acquire(Mode::Shared)) {
                Answer::Done(Outcome::Granted(_)) => return Ok(()),
                other => self.refused(&membership, other),
            };
            if !matches!(error, Error::Storage(_)) || begin.elapsed() > self.timing.linger {
                self.store.forget_lock(&id);
                return Err(error);
            }
            log::info!("{error}; trying again");
            thread::sleep(JOIN_PAUSE);
        }
    }

    /// Shows the counters while a lockspace is started.
    fn show(&self, state: &State) {
        let started = state.lockspaces.values().filter(|space| space.is_started()).count();
        self.runtime.metrics().lockspaces(started);
        self.exporter.set_active(started > 0);
    }

    /// Has the watchdog armed, where one is used, for a lock of a lockspace.
    fn arm(&self, lockspace: &Lockspace) -> Result<Option<watchdog::Claim>, Error> {
        match &self.watchdog {
            Some(watchdog) if !lockspace.is_global => watchdog
                .claim(clock::now() + (self.timing.lease - self.timing.drift), ARM)
                .map(Some)
                .map_err(|why| Error::Storage(format!("the watchdog cannot be used: {why}"))),
            _ => Ok(None),
        }
    }

    /// The error for a request that was not granted.
    fn refused(&self, spec: &LockSpec, answer: Answer) -> Error {
        let label = &spec.label;
        match answer {
            Answer::Done(Outcome::Refused(Refusal::Held(conflicts))) => {
                let place = conflicts.first().map_or_else(String::new, |conflict| {
                    format!(", seen on {}", self.runtime.drives().name(conflict.drive))
                });
                Error::Held(format!("{label}: {}{place}", Refusal::Held(conflicts)))
            }
            Answer::Done(Outcome::Refused(refusal)) => {
                Error::Storage(format!("{label}: {refusal}"))
            }
            Answer::Done(outcome) => Error::Internal(format!("{label}: unexpected {outcome:?}")),
            Answer::InUse => Error::Held(format!("{label}: held by this host")),
            Answer::Killed => Error::Killed,
            Answer::Failed(why) => Error::Internal(why),
            Answer::TimedOut => Error::Storage(format!("{label}: no decision in time")),
        }
    }

    /// The drives of a lockspace.
    fn members_of(&self, lockspace: &Lockspace) -> Result<Members, Error> {
        bounded(lockspace.members(self.runtime.drives()))
    }

    /// The drives behind paths.
    fn drives_of(&self, paths: &[String]) -> Result<Members, Error> {
        bounded(self.runtime.drives().members(paths))
    }

    fn names_of(&self, members: &[Member]) -> String {
        let name = |member: &Member| self.runtime.drives().name(member.drive);
        members.iter().map(name).collect::<Vec<_>>().join(", ")
    }

    /// What a resource's lock is taken on: the global lock's and a VG's on all of its drives, an
    /// LV's on those it is on, with the VG's others as witnesses.
    fn plan(&self, lockspace: &Lockspace, resource: &Resource) -> Result<Plan, Error> {
        let all = Plan::of_lockspace(self, lockspace)?;
        let plan = match resource {
            Resource::Lv { pvs, .. } if !pvs.is_empty() => {
                let mut plan = Plan::of(self, pvs.clone())?;
                plan.witnesses = all.members;
                plan.witnesses.retain(|other| !plan.members.contains(other));
                plan
            }
            _ => all,
        };
        if plan.members.is_empty() {
            return Err(Error::Storage(if lockspace.is_global {
                no_global_drives()
            } else {
                format!("{} has no drives", lockspace.owner.name)
            }));
        }
        Ok(plan)
    }

    /// Whether a majority of a VG's drives has IDM and answers.
    fn check_drives(&self, lockspace: &Lockspace) -> Result<(), Error> {
        let vg = &lockspace.owner.name;
        let drives = self.members_of(lockspace)?;
        let total = drives.members.len();
        if total == 0 {
            return Err(Error::Invalid(format!("{vg} has no drives")));
        }
        let enough = majority(total);
        let too_few = |why: String| format!("{vg}: {why}; {enough} of {total} drives are needed");
        if drives.found < enough {
            return Err(match drives.unusable {
                Some(unusable) => Error::Invalid(too_few(unusable.to_string())),
                None => Error::Storage(too_few(format!("{} drives can be found", drives.found))),
            });
        }
        let bound = self.timing.patience;
        let answers = self.runtime.read_tables(&drives.members, enough, bound);
        let mut readable = 0;
        let mut without = Vec::new();
        for (drive, table) in answers {
            match table {
                Ok(_) => readable += 1,
                Err(Status::Unsupported) => {
                    self.runtime.drives().say_no_idm(drive);
                    without.push(format!("{} has no IDM", self.runtime.drives().name(drive)));
                }
                Err(_) => {}
            }
        }
        if readable >= enough {
            return Ok(());
        }
        without.push(format!("{readable} drives answer"));
        Err(Error::Storage(too_few(without.join(", "))))
    }
}

/// What a lock is taken on.
struct Plan {
    paths: Vec<String>,
    members: Vec<Member>,
    witnesses: Vec<Member>,
}

impl Plan {
    fn of_lockspace(running: &Running, lockspace: &Lockspace) -> Result<Plan, Error> {
        let members = running.members_of(lockspace)?.members;
        Ok(Plan { paths: lockspace.paths(), members, witnesses: Vec::new() })
    }

    fn of(running: &Running, paths: Vec<String>) -> Result<Plan, Error> {
        let members = running.drives_of(&paths)?.members;
        Ok(Plan { paths, members, witnesses: Vec::new() })
    }

    /// As it is noted before it is asked for.
    fn saved(&self, mode: Mode) -> SavedLock {
        let identity = |member: &Member| String::from_utf8_lossy(&member.identity).into_owned();
        SavedLock {
            exclusive: mode == Mode::Exclusive,
            asked_us: clock::now().as_micros(),
            paths: self.paths.clone(),
            drives: self.members.iter().map(identity).collect(),
        }
    }

    fn acquire(self, mode: Mode) -> Request {
        Request::Acquire { mode, members: self.members, witnesses: self.witnesses }
    }
}

/// A lock that is not noted would not be found again if lvmlockd died.
fn not_noted(error: io::Error) -> Error {
    Error::NotRunning(format!("a lock cannot be noted, and is not taken: {error}"))
}

/// How long to wait for a release: not at all where the lockspace lost its locks, because core
/// must go on promptly then (contract, section 6).
fn patience_for(lockspace: &Lockspace, usual: Duration) -> Duration {
    if lockspace.owner.is_killed() { Duration::ZERO } else { usual }
}

/// Refuses more drives than a lock can have.
fn bounded(members: Members) -> Result<Members, Error> {
    if members.members.len() > MOST_DRIVES {
        return Err(Error::Invalid(format!(
            "{} drives are more than the {MOST_DRIVES} that one lock can have",
            members.members.len()
        )));
    }
    Ok(members)
}

fn start_watchdog(config: &Config, fencing: &Fencing) -> Result<Option<Arc<Watchdog>>, Error> {
    let (Some(device), Some(feeding)) = (&config.watchdog, fencing.watchdog) else {
        return Ok(None);
    };
    let dog = Box::new(Device::new(device, feeding.timeout));
    let watchdog = Watchdog::start(dog, feeding, &config.state_dir)
        .map_err(|error| Error::NotRunning(format!("the watchdog cannot be used: {error}")))?;
    Ok(Some(Arc::new(watchdog)))
}

fn majority(drives: usize) -> usize {
    drives / 2 + 1
}

/// The timestamp to publish with a held lock, noted with the version that it stands for.
fn timestamp(held: &Held, r_version: u32, removes: bool) -> Value {
    held.lockspace.value(held.spec.resource, |value| {
        let timestamp = value.next(clock::wall_us(), removes);
        value.wrote(timestamp, r_version);
        timestamp
    })
}

fn no_global_drives() -> String {
    format!(
        "no drives for the global lock: give a GPT partition on each of them the name \"propeller\", \
         or name the same drives on every host in {DEFAULT_FILE}, as [global] drives = \
         [\"/dev/...\"]"
    )
}
