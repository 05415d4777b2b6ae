//! The parts that exist since the first lockspace was prepared: runtime, notes, orphans and
//! watchdog; and the manager's requests to them.

use super::state::ManagerState;
use super::votes::Votes;
use crate::config::Config;
use crate::drives::Drives;
use crate::error::Error;
use crate::fencing::Fencing;
use crate::fencing::reservations::{Link, NotCleared, Reservations};
use crate::fencing::safe_note::SafeNote;
use crate::fencing::watchdog::device::KernelWatchdog;
use crate::fencing::watchdog::{self, Watchdog};
use crate::lock::{LockSpec, Owner, Refused, RequestResult, Role};
use crate::lockspace::Lockspace;
use crate::metrics::export::Exporter;
use crate::recovery::active::Devices;
use crate::recovery::{Dates, Orphans};
use crate::runtime::{Runtime, Settings, refusal};
use crate::state::file;
use crate::state::host_id::{self, HostIdentity};
use crate::state::leases::{Leases, Left};
use crate::state::refusals::RefusalNote;
use crate::state::store::{SavedLock, Store};
use crate::state::undo_note::{self, UndoNote, Undone};
use crate::sys::clock;
use crate::sys::sync::{Mutex, mpsc};
use crate::topology::Topology;
use crate::transport::{self, Limits};
use core::fmt;
use core::time::Duration;
use idm_engine::{Instant, Refusal, Request, Timing};
use idm_protocol::{HostId, Mode, ResourceId};
use once_cell::sync::OnceCell;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread;

/// Time beyond the engine's patience after which a request is given up. The engine always answers
/// in time, so this only guards against errors of this library.
const GRACE: Duration = Duration::from_secs(3);
/// Wait of a request for the watchdog to be armed. Devices on a slow bus need some time.
const ARM: Duration = Duration::from_secs(2);
/// Usual path of lvm; the path of lvmlockctl is derived from it, as in lvmlockd.
const LVM_PATH: &str = "/sbin/lvm";

/// Parts that exist since the first lockspace was prepared.
pub(super) struct Running {
    pub(super) runtime: Arc<Runtime>,
    pub(super) host: HostId,
    pub(super) timing: Timing,
    /// Dates until which commands of an earlier lvmlockd may reach drives.
    earlier: undo_note::Earlier,
    pub(super) watchdog: Option<Arc<Watchdog>>,
    pub(super) reservations: Option<Arc<Reservations>>,
    /// For `idmctl why`.
    pub(super) refusals: RefusalNote,
    exporter: Exporter,
    pub(super) store: Arc<Store>,
    pub(super) orphans: Arc<Orphans>,
    /// Set after a warning about a holder with the name of this host.
    namesake: OnceCell<()>,
}

impl Running {
    /// Starts everything. `given` replaces the id in the state directory; `began` is the start time
    /// of lvmlockd.
    pub(super) fn start(
        config: &Config,
        (given, began): (Option<HostId>, Instant),
        devices: Devices,
        lvm_path: Arc<OnceCell<String>>,
        state: Weak<Mutex<ManagerState>>,
    ) -> Result<Running, Error> {
        let timing = config.timing();
        let Kept { host, leases, undo_note, earlier, refusals, store } =
            Kept::open(config, &timing, given, began)?;
        let fencing = Fencing::new(&timing, config.fencing).map_err(Error::Invalid)?;
        let topology = Topology::new(config.emulated.clone());
        let connect = transport::connector(topology.clone());
        let watchdog = start_watchdog(config, &fencing)?;
        let no_thread = |error| Error::NotRunning(format!("no thread can be started: {error}"));
        let looked_after = store.clone();
        let look = Box::new(move || looked_after.restore());
        let note = SafeNote::start(&config.state_dir, fencing.notice, look).map_err(no_thread)?;
        let note = Arc::new(note);
        let limits = Limits::new(&timing);
        let drives = Arc::new(Drives::new(topology, connect, limits));
        let leaving = earlier.undoing.of(Role::Membership);
        let start = || Reservations::start(host, timing, limits, drives.clone(), leaving);
        let reservations = config.reservations.then(start).transpose().map_err(no_thread)?;
        let (ready, is_ready) = mpsc::channel();
        let settings = Settings {
            host,
            timing,
            fencing,
            reservations: reservations.clone(),
            watchdog: watchdog.clone(),
            note: Some(note.clone()),
            undo_note: Some(undo_note),
            earlier,
            votes: Some(ready),
            kill_command: kill_command(config, lvm_path),
        };
        let runtime = Arc::new(Runtime::start(drives.clone(), settings).map_err(no_thread)?);
        let metrics = runtime.metrics().clone();
        let exporter = Exporter::start(&config.state_dir, move || drives.render(&metrics))
            .map_err(no_thread)?;
        let undoing = earlier.undoing;
        let watches = watchdog.clone();
        let dates = Dates { timing, leases, fencing, note, watchdog: watches, earlier: undoing };
        let orphans = Orphans::find(runtime.clone(), store.clone(), devices.clone(), dates)
            .map_err(|error| Error::NotRunning(format!("notes cannot be read: {error}")))?;
        reservations.iter().for_each(|it| attach(it, &runtime, &orphans, devices.clone()));
        let votes = Votes {
            state,
            runtime: Arc::downgrade(&runtime),
            orphans: Arc::downgrade(&orphans),
            store: store.clone(),
        };
        votes.start(is_ready).map_err(no_thread)?;
        Ok(Running {
            runtime,
            host,
            timing,
            earlier,
            watchdog,
            reservations,
            refusals,
            exporter,
            store,
            orphans,
            namesake: OnceCell::new(),
        })
    }

    /// Refuses a request that cannot be decided within the engine's patience: no drive's answer
    /// counts while commands of an earlier lvmlockd may still reach the drives. `mode` is the
    /// wanted mode of a lock that is not adopted. Core tries again, except for LVs.
    pub(super) fn heed_earlier(&self, spec: &LockSpec, mode: Option<Mode>) -> Result<(), Error> {
        let mut until = self.earlier.undoing.of(spec.role);
        if mode == Some(Mode::Exclusive) {
            until = until.max(self.earlier.undoing.exclusive);
        }
        let left = until.since(clock::now());
        if left <= self.timing.patience * 4 / 5 {
            return Ok(());
        }
        Err(Error::Held(format!(
            "{} is refused: commands of an earlier lvmlockd may still reach the drives for {} s; \
             try again then",
            spec,
            left.as_secs() + 1
        )))
    }

    /// Waits until no command of an earlier lvmlockd for locks with this role can reach a drive any
    /// more.
    pub(super) fn outwait_earlier(&self, role: Role) {
        thread::sleep(self.earlier.undoing.of(role).since(clock::now()));
    }

    /// The time limit of a request: longer than the engine ever takes.
    pub(super) fn bound(&self) -> Duration {
        self.timing.patience + GRACE
    }

    /// Makes a request and waits for its end.
    pub(super) fn request(&self, spec: &LockSpec, request: Request) -> RequestResult {
        self.runtime.request(spec.clone(), request, self.bound())
    }

    /// Notes a lock. This has to be done before the lock is requested.
    pub(super) fn note(&self, spec: &LockSpec, lock: &SavedLock) -> Result<(), Error> {
        self.store.save_lock(&spec.resource, lock).map_err(|error| not_noted(spec, &error))
    }

    /// Notes that a lock was granted, where its number of drives is even. Half of the drives is
    /// enough to keep a lock, but the next lvmlockd keeps it with half only if it knows that the
    /// lock was granted.
    pub(super) fn note_granted(&self, spec: &LockSpec, saved: &mut SavedLock) {
        if saved.drives.len() % 2 != 0 {
            return;
        }
        saved.granted = true;
        if let Err(error) = self.store.change_lock(&spec.resource, |lock| lock.granted = true) {
            // The lock itself is noted and valid.
            log::warn!("{}: its grant cannot be noted: {error}", spec);
        }
    }

    /// Notes the mode in which a lock is held now. The drives in the note stay: they are those that
    /// vote now.
    pub(super) fn note_again(&self, spec: &LockSpec, lock: &SavedLock) -> Result<(), Error> {
        let now = |noted: &mut SavedLock| {
            (noted.exclusive, noted.asked_us) = (lock.exclusive, lock.asked_us);
        };
        match self.store.change_lock(&spec.resource, now) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => self.note(spec, lock),
            Err(error) => Err(not_noted(spec, &error)),
        }
    }

    /// Notes the mode in which a lock is held now, because that in the note must not stay. A note
    /// that cannot be written now is written as soon as possible.
    pub(super) fn correct_note(&self, id: &ResourceId, lock: &SavedLock) {
        self.store.correct_lock(id, |noted| {
            (noted.exclusive, noted.asked_us) = (lock.exclusive, lock.asked_us);
        });
    }

    /// Whether half of its drives prove a lock in the noted mode to the next lvmlockd.
    pub(super) fn is_proven_by_half(&self, id: &ResourceId) -> bool {
        let noted = self.store.lock(id);
        noted.is_some_and(|noted| noted.granted && noted.drives.len() % 2 == 0)
    }

    /// Exports the counters while a lockspace is started.
    pub(super) fn show(&self, state: &ManagerState) {
        let started = state.lockspaces.values().filter(|space| space.is_started());
        let owners: Vec<Arc<Owner>> = started.map(|space| space.owner.clone()).collect();
        let active = !owners.is_empty();
        self.runtime.metrics().lockspaces(owners);
        self.exporter.set_active(active);
    }

    /// Arms the watchdog, where one is used, for a lock of a lockspace.
    pub(super) fn arm(&self, lockspace: &Lockspace) -> Result<Option<watchdog::ArmGuard>, Error> {
        match &self.watchdog {
            Some(watchdog) if !lockspace.is_global => watchdog
                .keep_armed(clock::now() + (self.timing.lease - self.timing.drift), ARM)
                .map(Some)
                .map_err(|why| Error::Storage(format!("the watchdog cannot be used: {why}"))),
            _ => Ok(None),
        }
    }

    /// The addition to a refusal whose holder has the name of this host. The holder may be an
    /// earlier boot of this machine, but nothing proves that: copied machines share a name.
    fn namesake_hint(&self, holder: HostId) -> Option<String> {
        let name = self.host.name();
        if name.is_empty() || holder.name() != name {
            return None;
        }
        let lease = self.timing.lease.as_secs_f64().ceil();
        Some(format!(
            "The holder has the name of this host: if that was an earlier boot of this machine, \
             the lock is free within {lease} s"
        ))
    }

    /// The refusal with that addition. The first one goes to the system's log, other than ordinary
    /// refusals.
    fn say_namesake(&self, why: &str, namesake: &str) -> String {
        let text = format!("{why}. {namesake}");
        if self.namesake.set(()).is_ok() {
            log::warn!("{text}");
        }
        text
    }

    /// Notes a refusal for `idmctl why`, unless drives show the holder.
    fn note_refusal(&self, spec: &LockSpec, refused: &Refused, error: &Error) {
        let conflict = match &refused.refusal {
            Refusal::Held(conflicts) if !conflicts.is_empty() => return,
            other => matches!(other, Refusal::Held(_)),
        };
        let barred = refusal::bars(self.runtime.drives(), refused);
        let why = (&*error.to_string(), conflict);
        self.refusals.refused(&spec.resource, why, &barred, clock::now());
    }

    /// Notes an error of a request that was begun at `begun`, unless it is that of a refusal, or
    /// drives and the other notes show why.
    pub(super) fn note_error(&self, lock: &ResourceId, error: &Error, begun: Instant) {
        if matches!(error, Error::Storage(_) | Error::NotRunning(_) | Error::Internal(_)) {
            self.refusals.failed(lock, &error.to_string(), begun, clock::now());
        }
    }

    /// The error for a request that was refused.
    fn refused_by_drives(&self, spec: &LockSpec, refused: &Refused) -> Error {
        let text = refusal::text(self.runtime.drives(), spec, refused, clock::now());
        let held_back = self.reservations.as_ref();
        let held_back = held_back.and_then(|it| it.refusal(&spec.resource));
        let Refusal::Held(conflicts) = &refused.refusal else {
            return match held_back {
                Some(NotCleared::Alive(why)) => Error::Held(format!("{spec} is refused: {why}")),
                Some(NotCleared::Unremoved(why)) => Error::Storage(format!(
                    "{text}. The drives cannot be kept from taking data of its last holder: {why}"
                )),
                None => Error::Storage(text),
            };
        };
        let namesake = conflicts.first().and_then(|first| self.namesake_hint(first.host));
        Error::Held(match namesake {
            Some(namesake) => self.say_namesake(&text, &namesake),
            None => text,
        })
    }

    /// The error for a request that was not granted.
    pub(super) fn refused(&self, spec: &LockSpec, answer: RequestResult) -> Error {
        match answer {
            RequestResult::Refused(refused) => {
                let error = self.refused_by_drives(spec, &refused);
                self.note_refusal(spec, &refused, &error);
                error
            }
            RequestResult::Done(outcome) => {
                Error::Internal(format!("{spec}: unexpected {outcome:?}"))
            }
            RequestResult::InUse => held_here(spec),
            RequestResult::Killed => Error::Killed,
            RequestResult::Failed(why) => Error::Internal(why),
            RequestResult::TimedOut => Error::Storage(format!(
                "{spec} is refused: no decision in time; repeat the command"
            )),
        }
    }
}

/// The services of the rest of the library for the reservations.
fn link(runtime: &Arc<Runtime>, orphans: &Arc<Orphans>, devices: Devices) -> Link {
    let [kills, asks, notes] = [(); 3].map(|()| Arc::downgrade(runtime));
    let left = Arc::downgrade(orphans);
    Link {
        fail: Box::new(move |owner, why| {
            if let Some(runtime) = kills.upgrade() {
                runtime.fail(owner, why, None);
            }
        }),
        // The orphans are asked first: one that is proven meanwhile has no date before.
        safe_until: Box::new(move |vg| {
            let runtime = asks.upgrade()?;
            left.upgrade()?.all_kept(&vg).then(|| runtime.safe_until(vg))?
        }),
        // The next life that registers waits as for what undoes a membership.
        note_leaving: Box::new(move || {
            notes.upgrade().is_some_and(|runtime| runtime.note_undoing(Undone::Others))
        }),
        active: Box::new(move || devices.drives()),
    }
}

/// The error for a lock that another resource of this host has.
pub(super) fn held_here(spec: &LockSpec) -> Error {
    Error::Held(format!(
        "{spec} is refused: this host has it for another request; repeat the command when that \
         has ended, or deactivate the logical volume"
    ))
}

/// The error for a file that cannot be kept in the state directory.
fn not_kept(what: &str, state_dir: &Path, error: &io::Error) -> Error {
    Error::NotRunning(format!(
        "{what} cannot be kept in {}: {}",
        state_dir.display(),
        with_hint(error)
    ))
}

/// An error of the state directory, with a remedy if there is one.
pub(super) fn with_hint(error: &io::Error) -> String {
    match error.kind() {
        // Its text has the remedy.
        io::ErrorKind::InvalidData => error.to_string(),
        _ => format!("{error}; make room there, or remove what is in the way"),
    }
}

/// The error for a lock or lockspace that cannot be noted: it would not be found again if lvmlockd
/// died.
pub(super) fn not_noted(what: &impl fmt::Display, error: &io::Error) -> Error {
    Error::NotRunning(format!(
        "{what} is refused, because it cannot be noted: {}",
        with_hint(error)
    ))
}

/// The wait for a release: zero where the lockspace lost its locks, because core must then go on
/// promptly (docs/lvmlockd-contract.md, "Losing storage").
pub(super) fn patience_for(lockspace: &Lockspace, usual: Duration) -> Duration {
    if lockspace.owner.is_killed() { Duration::ZERO } else { usual }
}

/// The command that is run when a VG is about to lose its locks. The path of lvm may be set later.
fn kill_command(
    config: &Config,
    lvm_path: Arc<OnceCell<String>>,
) -> Arc<dyn Fn() -> Vec<String> + Send + Sync> {
    let configured = config.kill_command.clone();
    Arc::new(move || {
        configured.clone().unwrap_or_else(|| {
            let lvm = lvm_path.get().map_or(LVM_PATH, String::as_str);
            vec![format!("{lvm}lockctl"), "--kill".to_owned()]
        })
    })
}

/// Attaches the reservations to the rest of the library. The registrations on the drives of what an
/// earlier lvmlockd left are kept.
fn attach(
    reservations: &Reservations,
    runtime: &Arc<Runtime>,
    orphans: &Arc<Orphans>,
    devices: Devices,
) {
    reservations.connect(link(runtime, orphans, devices));
    let left = Arc::downgrade(orphans);
    let drives_of = move |vg| left.upgrade().map(|it| it.drives_of_others(&vg));
    reservations.keep_on(move |vg| drives_of(vg).unwrap_or_default());
}

/// The files of the state directory, opened at a start.
struct Kept {
    host: HostId,
    leases: Leases,
    undo_note: UndoNote,
    earlier: undo_note::Earlier,
    refusals: RefusalNote,
    store: Arc<Store>,
}

impl Kept {
    /// Reads what an earlier lvmlockd has left, or begins anew. `given` replaces the host id there.
    fn open(
        config: &Config,
        timing: &Timing,
        given: Option<HostId>,
        began: Instant,
    ) -> Result<Kept, Error> {
        let state_dir = &config.state_dir;
        let not_kept = |what: &str, error: &io::Error| not_kept(what, state_dir, error);
        file::make_folder(state_dir, file::PUBLIC_FOLDER)
            .map_err(|error| not_kept("what must outlive lvmlockd", &error))?;
        let HostIdentity { host, is_new } =
            host_id::load(state_dir, given).map_err(|error| not_kept("the host id", &error))?;
        let left = match Store::has_any(state_dir) {
            _ if is_new => Left::Nothing,
            true => Left::Locks,
            false => Left::Commands,
        };
        let leases = Leases::note(state_dir, timing.lease, left)
            .map_err(|error| not_kept("the lease", &error))?;
        let (undo_note, earlier) =
            UndoNote::start(state_dir, timing, (began, is_new), leases.longest)
                .map_err(|error| not_kept("until when commands may stay", &error))?;
        let refusals = RefusalNote::start(state_dir, earlier.undoing, clock::now())
            .map_err(|error| not_kept("what is refused", &error))?;
        let store = Store::open(state_dir, host, &leases)
            .map_err(|error| not_kept("what is noted of locks", &error))?;
        Ok(Kept { host, leases, undo_note, earlier, refusals, store: Arc::new(store) })
    }
}

fn start_watchdog(config: &Config, fencing: &Fencing) -> Result<Option<Arc<Watchdog>>, Error> {
    let (Some(device), Some(feeding)) = (&config.watchdog, fencing.watchdog) else {
        return Ok(None);
    };
    let dog = Box::new(KernelWatchdog::new(device, feeding.timeout));
    let watchdog = Watchdog::start(dog, feeding, &config.state_dir)
        .map_err(|error| Error::NotRunning(format!("the watchdog cannot be used: {error}")))?;
    Ok(Some(Arc::new(watchdog)))
}
