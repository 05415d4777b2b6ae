//! Recovery after lvmlockd's death: locks are noted while they are held, and the next lvmlockd
//! finds them, keeps them and gives them to requests.
//!
//! A lock that a dead lvmlockd held is an *orphan*: its LV may still be active, but core has no
//! resource for it, and core cannot adopt IDM locks when it starts (docs/lvmlockd-contract.md,
//! "Adoption"). So the library renews orphans itself, from its first call in the new process on,
//! until
//!
//! - an ordinary request of this host asks for the lock, which is then given without a gap; or
//! - its LV is not active any more, according to the kernel: lvm's deactivation sends an unlock,
//!   which core answers itself because it knows no lock.
//!
//! An orphan is first *proven*: enough drives must confirm that it has been this host's all along.
//! If it is not ours any more while its LV is active, the kill command is run.

pub mod active;
mod proof;
mod unprotected;

use crate::fencing::Fencing;
use crate::fencing::safe_note::{Date, Noted, SafeNote};
use crate::fencing::watchdog::Watchdog;
use crate::lock::{LockSpec, Role};
use crate::lock::{role_of, vg_of};
use crate::lockspace::{Held, Lockspace};
use crate::runtime::Runtime;
use crate::state::leases::Leases;
use crate::state::store::{Saved, SavedLock, SavedLockspace, Store};
use crate::state::undo_note;
use crate::sys::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use crate::sys::sync::{Condvar, Mutex, MutexGuard, planted};
use crate::sys::{clock, thread};
use crate::words::{list, plural};
use active::Devices;
use core::time::Duration;
use idm_engine::{Instant, Member, Timing};
use idm_protocol::ResourceId;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
pub use unprotected::ActiveLv;

/// Time until core's log is ready: core prepares it only after our first call, and before that no
/// other thread may log.
const CORE_STARTS: Duration = Duration::from_millis(100);
/// First interval between two looks at the kernel's devices. The pause grows while nothing changes.
const LOOK: Duration = Duration::from_secs(2);
/// Number of looks in a row that must find an LV inactive.
const LOOKS: u32 = 2;

/// The locks that an earlier lvmlockd left behind.
pub struct Orphans {
    runtime: Arc<Runtime>,
    store: Arc<Store>,
    devices: Devices,
    dates: Dates,
    /// Time at which they were found.
    found_at: Instant,
    left: Mutex<Left>,
    /// Signalled when a proof has ended.
    changed: Condvar,
    /// Sender that ends the care thread when the last owner drops it.
    care: Mutex<Option<Sender<()>>>,
}

/// Times for orphans, and the notes and the watchdog that depend on them.
pub struct Dates {
    /// Times of the locks.
    pub timing: Timing,
    /// Leases of this life and earlier ones.
    pub leases: Leases,
    /// Times of the kill command.
    pub fencing: Fencing,
    /// Note of the time until which the orphans are safe. It is informed as soon as the state of
    /// each of them is known.
    pub note: Arc<SafeNote>,
    /// The watchdog, where one is used; it is informed in the same way.
    pub watchdog: Option<Arc<Watchdog>>,
    /// Dates until which commands of an earlier lvmlockd may reach drives and undo a lock. No lock
    /// that they can undo is proven before.
    pub earlier: undo_note::Dates,
}

impl Dates {
    /// The moment until which no other host can have broken the lock's records; `None` if the note
    /// does not show it.
    fn noted(&self, vg: &ResourceId, saved: &SavedLock) -> Option<Instant> {
        let asked = Instant::from_micros(saved.asked_us);
        // Without a date it was granted, if at all, just before lvmlockd died. What was asked for
        // last may have been a change of its mode.
        let Timing { lease, drift, .. } = Timing::for_lease(self.leases.shortest);
        let without = || asked + (lease - drift).saturating_sub(self.timing.patience);
        match self.note.left(vg)? {
            Some(date) => date.is_shown.then_some(date.until),
            None => Some(without()),
        }
    }
}

#[derive(Default)]
struct Left {
    locks: HashMap<ResourceId, Orphan>,
    /// Lockspaces that were started when lvmlockd died and have not been started since, by their
    /// VG's mutex.
    lockspaces: HashMap<ResourceId, SavedLockspace>,
    /// Whether a care thread runs.
    cared_for: bool,
}

struct Orphan {
    lockspace: Arc<Lockspace>,
    spec: LockSpec,
    saved: SavedLock,
    phase: Phase,
    /// Number of looks that found its LV inactive.
    idle: u32,
    /// Whether its VG was killed because the orphan is lost or could not be proven in time.
    in_danger: bool,
    /// Reason why it is not proven, from the drives' last answers.
    doubt: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The drives are about to be asked.
    Found,
    /// Too few drives have answered so far.
    Unproven,
    /// The drives are being asked.
    Proving,
    /// Proven, and renewed.
    Kept,
    /// A request from core is about to take it over. It is renewed meanwhile.
    Claimed,
    /// Not this host's any more, and its LV is active.
    Lost,
}

impl Phase {
    /// Whether the drives have not decided yet.
    fn is_open(self) -> bool {
        matches!(self, Phase::Found | Phase::Unproven | Phase::Proving)
    }
}

impl Orphan {
    /// Sets whether its LV is in danger. The lockspace counts such LVs, to see when a kill command
    /// has done its work.
    fn set_in_danger(&mut self, in_danger: bool) {
        if core::mem::replace(&mut self.in_danger, in_danger) != in_danger {
            self.spec.owner.count_in_use(in_danger);
            self.spec.owner.count_in_danger(in_danger);
        }
    }
}

/// An orphan that a request takes over. Dropping this puts the orphan back.
pub struct OrphanClaim {
    orphans: Arc<Orphans>,
    id: ResourceId,
    /// Its note.
    pub saved: SavedLock,
}

/// Reason why a request cannot have a lock that an earlier lvmlockd left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// It was lost: other hosts may have it or have had it, and its LV is still active.
    StillActive,
    /// Its drives have not confirmed it. Holds the answers of the drives, and names those that did
    /// not answer.
    Unproven(String),
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Withheld::StillActive => f.write_str(
                "left by an earlier lvmlockd and lost since, and its LV is still active; \
                 deactivate it, and ask again",
            ),
            Withheld::Unproven(doubt) => write!(
                f,
                "left by an earlier lvmlockd, and not confirmed by its drives yet: {doubt}. It \
                 stays as it was left; ask again when its drives answer"
            ),
        }
    }
}

/// The mutexes of the LVs that are active; see [`Devices::active`].
type Active = io::Result<HashSet<ResourceId>>;

/// The active LVs.
pub struct ActiveNow(Active);

impl ActiveNow {
    /// Whether an LV is active. It counts as active where this cannot be determined.
    pub fn contains(&self, id: &ResourceId) -> bool {
        let is_active = |active: &HashSet<ResourceId>| active.contains(id);
        role_of(id) == Role::Lv && self.0.as_ref().map_or(true, is_active)
    }

    /// Whether an LV of a volume group is active. One counts as active where this cannot be
    /// determined.
    pub fn any_of(&self, group: &ResourceId) -> bool {
        self.0.as_ref().map_or(true, |active| active.iter().any(|id| vg_of(id) == *group))
    }
}

impl OrphanClaim {
    /// Completes the claim: the lock now belongs to the request.
    pub fn take(self) {
        if let Some(mut orphan) = self.orphans.left().locks.remove(&self.id) {
            orphan.set_in_danger(false);
        }
        self.orphans.settle_left();
    }
}

impl Drop for OrphanClaim {
    fn drop(&mut self) {
        if planted!(WakeBeforePutBack) {
            self.orphans.changed.notify_all();
        }
        if let Some(orphan) = self.orphans.left().locks.get_mut(&self.id) {
            orphan.phase = Phase::Kept;
            orphan.saved = self.saved.clone();
        }
        if !planted!(WakeBeforePutBack) {
            self.orphans.changed.notify_all();
        }
    }
}

impl Orphans {
    /// Finds the orphans and starts to care for them. No drive is asked before this returns.
    pub fn find(
        runtime: Arc<Runtime>,
        store: Arc<Store>,
        devices: Devices,
        dates: Dates,
    ) -> io::Result<Arc<Orphans>> {
        let found_at = clock::now();
        let left = Left::of(store.load()?, found_at);
        let any = !left.locks.is_empty();
        if any {
            log::warn!("{}", left.summary());
        }
        for lockspace in left.lockspaces.values() {
            runtime.drives().remember(&lockspace.paths, &lockspace.drives);
        }
        let orphans = Arc::new(Orphans {
            runtime,
            store,
            devices,
            dates,
            found_at,
            left: Mutex::new(left),
            changed: Condvar::new(),
            care: Mutex::default(),
        });
        if any {
            orphans.start_care()?;
        }
        orphans.open_dates();
        orphans.settle_left();
        Ok(orphans)
    }

    /// Notes a date for the VGs of orphans that the note did not have. Otherwise the date of those
    /// that are proven first would be the promise for all.
    fn open_dates(&self) {
        let mut dates = Noted::new();
        for (id, orphan) in &self.left().locks {
            if role_of(id) == Role::Lv {
                let is_shown = self.dates.noted(&vg_of(id), &orphan.saved).is_some();
                let date = Date { until: self.safe_until(orphan), is_shown };
                dates.entry(vg_of(id)).and_modify(|all| *all = all.and(date)).or_insert(date);
            }
        }
        self.dates.note.open(dates);
    }

    /// Starts the care thread, where there is none yet.
    fn start_care(self: &Arc<Self>) -> io::Result<()> {
        if core::mem::replace(&mut self.left().cared_for, true) {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel();
        *self.care.lock() = Some(sender);
        let weak = Arc::downgrade(self);
        let started = thread::spawn("idm-orphans", move || care(&weak, &receiver));
        self.left().cared_for = started.is_ok();
        started.map(drop)
    }

    /// Keeps a lock that core has forgotten without an unlock, like an orphan: until it is
    /// requested, or its LV is not active any more.
    pub fn keep(self: &Arc<Self>, held: Held) {
        let Held { lockspace, spec, saved, .. } = held;
        let (phase, idle, in_danger, doubt) = (Phase::Kept, 0, false, String::new());
        let id = spec.resource;
        let orphan = Orphan { lockspace, spec, saved, phase, idle, in_danger, doubt };
        self.left().locks.insert(id, orphan);
        if let Err(error) = self.start_care() {
            log::error!("no thread can be started, so forgotten locks are never given up: {error}");
        }
    }

    /// Whether a lock is an orphan.
    pub fn has(&self, id: &ResourceId) -> bool {
        self.left().locks.contains_key(id)
    }

    /// Prevents that an orphan is claimed or given up while the guard exists; `None` where the
    /// orphan is not kept.
    pub fn hold(&self, id: &ResourceId) -> Option<impl Sized + '_> {
        let left = self.left();
        let is_kept = left.locks.get(id).is_some_and(|orphan| orphan.phase == Phase::Kept);
        is_kept.then_some(left)
    }

    /// The LVs that are active now.
    pub fn active(&self) -> ActiveNow {
        ActiveNow(self.devices.active())
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock()
    }

    /// The lockspaces that were started when lvmlockd died, and have not been started since.
    pub fn lockspaces(&self) -> Vec<SavedLockspace> {
        self.left().lockspaces.values().cloned().collect()
    }

    /// Whether a lockspace was started when lvmlockd died, and has not been started since.
    pub fn had_started(&self, lockspace: &Lockspace) -> bool {
        self.left().lockspaces.contains_key(&lockspace.id)
    }

    /// Takes an orphan out of this care, for a request; `None` where there is no such orphan. An
    /// unproven orphan is proven first: a lock that may be in use must not be acquired like a new
    /// one, because a refused request gives back the votes that it got. A lost orphan is given up,
    /// so that the request gets a new lock; but not while its LV is active.
    ///
    /// Waits up to `bound` for a proof that is under way, and for its own proof up to the engine's
    /// patience.
    pub fn claim(
        self: &Arc<Self>,
        id: &ResourceId,
        bound: Duration,
    ) -> Result<Option<OrphanClaim>, Withheld> {
        let begun = clock::now();
        let mut left = self.wait_for_proof(id, bound);
        let is_open = |left: &Left| {
            let phase = left.locks.get(id).map(|orphan| orphan.phase);
            matches!(phase, Some(Phase::Found | Phase::Unproven))
        };
        // A proof that failed during this request need not be tried again.
        if is_open(&left) && clock::now().since(begun) < self.dates.timing.patience / 2 {
            drop(left);
            self.prove_one(id);
            left = self.wait_for_proof(id, bound);
        }
        let Some(mut orphan) = left.locks.get_mut(id) else { return Ok(None) };
        match orphan.phase {
            Phase::Kept => {}
            Phase::Lost => return self.give_up_lost(left, id).map(|()| None),
            // The thread that set the phase relies on it.
            Phase::Proving | Phase::Claimed if planted!(ClaimAfterAll) => {}
            _ => return Err(Withheld::Unproven(self.doubt(orphan))),
        }
        if planted!(ClaimInTwoSteps) {
            drop(left);
            left = self.left();
            let Some(again) = left.locks.get_mut(id) else { return Ok(None) };
            orphan = again;
        }
        orphan.phase = Phase::Claimed;
        // Its votes may have moved to other drives since it was found.
        let saved = self.store.lock(id).unwrap_or_else(|| orphan.saved.clone());
        drop(left);
        let claim = OrphanClaim { orphans: self.clone(), id: *id, saved };
        // A proven orphan may have been lost since. The alarm was raised then.
        if self.runtime.mode(*id) == Ok(None) {
            return self.give_up_lost(self.left(), id).map(|()| None);
        }
        Ok(Some(claim))
    }

    /// Waits up to `bound` while an orphan is being proven or claimed.
    fn wait_for_proof(&self, id: &ResourceId, bound: Duration) -> MutexGuard<'_, Left> {
        let busy = |left: &mut Left| {
            let phase = left.locks.get(id).map(|orphan| orphan.phase);
            matches!(phase, Some(Phase::Proving | Phase::Claimed))
        };
        let waited = self.changed.wait_timeout_while(self.left(), bound, busy);
        waited.0
    }

    /// Ends the care for a membership that is taken anew. A membership keeps no host out, and other
    /// hosts also count this one by its other records.
    pub fn disown(&self, membership: &LockSpec) {
        if membership.role == Role::Membership {
            self.left().locks.remove(&membership.resource);
            self.runtime.release(membership.clone());
            self.settle_left();
        }
    }

    fn give_up_lost(
        &self,
        mut left: MutexGuard<'_, Left>,
        id: &ResourceId,
    ) -> Result<(), Withheld> {
        if left.locks.get(id).is_some_and(|orphan| self.is_in_use(orphan, &mut None)) {
            return Err(Withheld::StillActive);
        }
        self.release(&mut left, id, "it is lost, and nothing uses it");
        Ok(())
    }

    /// Assigns the orphans of a lockspace to it when it is started: from now on they are kept or
    /// lost with it.
    pub fn adopt_lockspace(&self, lockspace: &Arc<Lockspace>) {
        let mut left = self.left();
        left.lockspaces.remove(&lockspace.id);
        for (id, orphan) in &mut left.locks {
            if lockspace.owns(id) && orphan.spec.role != Role::Membership {
                // A start resets the danger.
                orphan.set_in_danger(false);
                orphan.lockspace = lockspace.clone();
                orphan.spec = lockspace.spec_of(id);
                self.runtime.own(orphan.spec.clone());
            }
        }
    }

    /// Gives up the orphans of a lockspace that are not in use any more. Returns the LV locks that
    /// are in use, including those that a request is about to take over.
    pub fn settle(&self, lockspace: &Lockspace) -> Vec<String> {
        let mut left = self.left();
        let ids: Vec<ResourceId> =
            left.locks.keys().copied().filter(|id| lockspace.owns(id)).collect();
        let mut active = None;
        let mut in_use = Vec::new();
        for id in ids {
            let claimed =
                |orphan: &Orphan| orphan.phase == Phase::Claimed && !planted!(SettleClaimed);
            match left.locks.get(&id) {
                Some(orphan) if claimed(orphan) || self.is_in_use(orphan, &mut active) => {
                    in_use.push(orphan.spec.to_string());
                }
                _ => self.release(&mut left, &id, "its lockspace is stopped"),
            }
        }
        in_use
    }

    /// Puts the orphans of a VG's LVs on further drives; see [`Runtime::spread`].
    pub fn spread(&self, lockspace: &Lockspace, drives: Vec<Member>) {
        let left = self.left();
        let is_lv = |orphan: &Orphan| orphan.spec.role == Role::Lv;
        let of_vg = left.locks.iter().filter(|(id, orphan)| lockspace.owns(id) && is_lv(orphan));
        self.runtime.spread(of_vg.map(|(&id, _)| id).collect(), drives);
    }

    /// Whether the drives have not decided about some orphan of a VG's LVs yet.
    pub fn any_open(&self, lockspace: &Lockspace) -> bool {
        let is_open = |orphan: &Orphan| orphan.spec.role == Role::Lv && orphan.phase.is_open();
        self.left().locks.iter().any(|(id, orphan)| lockspace.owns(id) && is_open(orphan))
    }

    /// Whether the drives have proven all orphans of a VG, which the runtime has in use since then.
    pub fn all_kept(&self, vg: &ResourceId) -> bool {
        let is_kept = |orphan: &Orphan| matches!(orphan.phase, Phase::Kept | Phase::Claimed);
        let left = self.left();
        let mut of_vg = left.locks.iter().filter(|(id, _)| vg_of(id) == *vg);
        of_vg.all(|(_, orphan)| is_kept(orphan))
    }

    /// The active LVs of a VG that no noted lock protects: if this host had their locks, it does
    /// not know of them any more.
    pub fn unprotected(&self, lockspace: &Lockspace) -> io::Result<Vec<ActiveLv>> {
        self.devices.unprotected(&lockspace.id, |id| self.store.lock(id).is_some())
    }

    /// Identities of the drives that what an earlier lvmlockd left is on, without this VG's.
    pub fn drives_of_others(&self, vg: &ResourceId) -> HashSet<String> {
        let left = self.left();
        let locks = left.locks.iter().filter(|(id, _)| vg_of(id) != *vg);
        let (vgs, locks): (HashSet<ResourceId>, Vec<_>) =
            locks.map(|(id, orphan)| (vg_of(id), &orphan.saved.drives)).unzip();
        // The note of a lockspace may be left without any lock.
        let lockspaces = left.lockspaces.iter().filter(|(id, _)| vgs.contains(id));
        let lockspaces = lockspaces.flat_map(|(_, it)| &it.drives);
        locks.into_iter().chain(lockspaces).flatten().cloned().collect()
    }

    /// Whether the note of a lockspace is still needed when it is stopped.
    pub fn any_of(&self, lockspace: &Lockspace) -> bool {
        self.left().locks.keys().any(|id| lockspace.owns(id))
    }

    /// Gives an orphan up. Its note is removed before the lock can be requested anew.
    fn release(&self, left: &mut Left, id: &ResourceId, why: &str) {
        let Some(mut orphan) = left.locks.remove(id) else {
            return;
        };
        orphan.set_in_danger(false);
        log::info!("{}: left by an earlier lvmlockd, given up: {why}", orphan.spec);
        self.store.forget_lock(id);
        if orphan.phase == Phase::Found {
            // The engine gives back only votes that it has found, and it has found none yet.
            let role = orphan.spec.role;
            let request = self.adoption(&orphan.saved, &orphan.lockspace, role);
            drop(self.runtime.begin(orphan.spec.clone(), request));
        }
        self.runtime.release(orphan.spec);
    }

    /// Does one round of care, after a pause. Returns the next pause; `None` where no orphan is
    /// left.
    fn round(&self, pause: Duration) -> Option<Duration> {
        let end = clock::now() + self.dates.timing.patience * 3 / 2;
        let proven = self.prove();
        self.wait_for_requests(end);
        let released = self.look();
        self.settle_left();
        let mut left = self.left();
        if left.locks.is_empty() {
            left.cared_for = false;
            return None;
        }
        let now = clock::now();
        // Orphans are proven as soon as possible, because the alarm follows soon after.
        let earlier = [self.dates.earlier.lvs, self.dates.earlier.others].map(|at| at.since(now));
        let waits = earlier.into_iter().filter(|left| !left.is_zero());
        let first = waits.fold(self.first_pause(), Duration::min);
        let busy = |orphan: &Orphan| orphan.phase.is_open() || orphan.idle > 0;
        if proven || released || left.locks.values().any(busy) {
            return Some(first);
        }
        // A lock that was requested just now is checked as soon as it may be given up.
        let soonest = left.locks.values().map(|orphan| self.unused_from(orphan));
        let soonest = soonest.filter(|&at| at > now).map(|at| at.since(now)).min();
        let lease = self.dates.timing.lease;
        let longest = soonest.unwrap_or(lease);
        Some((2 * pause).min(lease).min(longest).max(first))
    }

    /// The time between two looks while something changes.
    fn first_pause(&self) -> Duration {
        LOOK.min(self.dates.timing.lease / 8)
    }

    /// Informs the note and the watchdog which orphans are settled. A kept orphan is treated like
    /// any other lock. The note for the next lvmlockd and the watchdog must not forget an orphan
    /// that is in use and not kept.
    fn settle_left(&self) {
        let Dates { note, watchdog, .. } = &self.dates;
        if note.is_settled() && watchdog.is_none() {
            return;
        }
        // The date decides only about locks of LVs, and others that are known to be granted.
        let safe = |orphan: &Orphan| {
            let is_kept = matches!(orphan.phase, Phase::Kept | Phase::Claimed);
            is_kept || orphan.spec.role != Role::Lv && !orphan.saved.granted
        };
        let left = self.left();
        let open = left.locks.iter().filter(|(_, orphan)| !safe(orphan));
        let open: HashSet<ResourceId> = open.map(|(id, _)| vg_of(id)).collect();
        let any = !left.locks.is_empty();
        drop(left);
        // A kept orphan must be protected like any other lock. When the reactor answers, it has
        // passed on all earlier changes.
        if any && self.runtime.mode(ResourceId::GLOBAL).is_err() {
            return;
        }
        note.settle_left(|vg| open.contains(vg));
        if let Some(watchdog) = watchdog.as_ref().filter(|_| open.is_empty()) {
            watchdog.settle_left();
        }
    }

    /// Whether an orphan's LV is active. `active` holds the list of active LVs for a whole batch,
    /// because there may be as many devices as orphans.
    fn is_in_use(&self, orphan: &Orphan, active: &mut Option<Active>) -> bool {
        if orphan.spec.role != Role::Lv {
            return false;
        }
        match active.get_or_insert_with(|| self.devices.active()) {
            Ok(active) => active.contains(&orphan.spec.resource),
            Err(_) => true,
        }
    }

    /// Raises the alarm for a lock that may become another host's while its LV is active: its VG
    /// must not be used any longer. `until` is when another host may have it; `None` where one may
    /// have it already.
    fn alarm(&self, orphan: &mut Orphan, why: &str, until: Option<Instant>) {
        orphan.set_in_danger(true);
        let spec = &orphan.spec;
        let why = format!(
            "{spec} was held by an earlier lvmlockd, its logical volume is active, and {why}"
        );
        self.runtime.fail(orphan.spec.owner.clone(), why, until);
    }

    /// Gives up orphans that are not in use, and raises the alarm for those that could not be
    /// proven in time. Returns whether it gave up any.
    fn look(&self) -> bool {
        let now = clock::now();
        let mut left = self.left();
        let may_go = |orphan: &Orphan| match orphan.phase {
            Phase::Kept | Phase::Unproven => self.may_be_unused(orphan, now),
            Phase::Lost => true,
            Phase::Found | Phase::Proving | Phase::Claimed => false,
        };
        let due = |orphan: &Orphan| may_go(orphan) || self.needs_alarm(orphan, now);
        if !left.locks.values().any(due) {
            return false;
        }
        let active = self.devices.active();
        if let Err(error) = &active {
            log::warn!("what is active cannot be told: {error}; all left locks count as in use");
        }
        let mut unused = Vec::new();
        let vgs_in_use: HashSet<ResourceId> = left
            .locks
            .values()
            .filter(|orphan| orphan.spec.role == Role::Lv)
            .map(|orphan| vg_of(&orphan.spec.resource))
            .collect();
        for (id, orphan) in &mut left.locks {
            if !due(orphan) {
                continue;
            }
            let in_use = match (&active, orphan.spec.role) {
                (Err(_), _) => true,
                (Ok(active), Role::Lv) => active.contains(id),
                (_, Role::Membership) => vgs_in_use.contains(&vg_of(id)),
                (_, Role::Global | Role::Vg) => false,
            };
            orphan.idle = if in_use { 0 } else { orphan.idle + 1 };
            if orphan.idle >= LOOKS && may_go(orphan) {
                unused.push(*id);
            }
            if in_use && orphan.spec.role == Role::Lv && self.needs_alarm(orphan, now) {
                let until = Some(self.safe_until(orphan));
                let why = format!("it could not be kept: {}", self.doubt(orphan));
                self.alarm(orphan, &why, until);
            }
        }
        for id in &unused {
            self.release(&mut left, id, "nothing uses it");
            if role_of(id) == Role::Membership {
                left.lockspaces.remove(&vg_of(id));
                self.store.forget_lockspace(&vg_of(id));
            }
        }
        !unused.is_empty()
    }

    /// Waits while requests ask the drives about an orphan that needs the alarm: they may prove it.
    fn wait_for_requests(&self, end: Instant) {
        let asks = |orphan: &Orphan| {
            orphan.phase == Phase::Proving && self.needs_alarm(orphan, clock::now())
        };
        let bound = end.since(clock::now());
        let any = |left: &mut Left| left.locks.values().any(asks);
        drop(self.changed.wait_timeout_while(self.left(), bound, any));
    }

    /// Whether the alarm must be raised for an orphan if its LV is active. Requests that wait for
    /// it must not hide that its drives have not proven it before.
    fn needs_alarm(&self, orphan: &Orphan, now: Instant) -> bool {
        let is_unproven = match orphan.phase {
            Phase::Unproven => true,
            Phase::Proving => !orphan.doubt.is_empty(),
            _ => false,
        };
        is_unproven && !orphan.in_danger && self.is_late(orphan, now)
    }

    /// Whether the next look would be too late for the alarm of an unproven orphan: the kill
    /// command needs its time while other hosts are still kept out.
    fn is_late(&self, orphan: &Orphan, now: Instant) -> bool {
        let Dates { timing, fencing, .. } = &self.dates;
        let alarm = self.safe_until(orphan) - fencing.margin;
        let next_look = now + self.first_pause() + timing.patience * 3 / 2 + fencing.notice;
        next_look >= alarm
    }

    /// The time until which other hosts are certainly kept out, according to the note. Where
    /// nothing is known, it is when the use has to end; a restart does not put that off.
    fn safe_until(&self, orphan: &Orphan) -> Instant {
        let Dates { leases, fencing, note, .. } = &self.dates;
        let vg = vg_of(&orphan.spec.resource);
        let feared = || note.left(&vg).flatten().map(|date| date.until);
        let known = self.dates.noted(&vg, &orphan.saved).or_else(feared);
        known.unwrap_or(self.found_at + leases.shortest / 2 + fencing.margin)
    }

    /// The time from which an orphan that seems unused may be given up. A command that got the lock
    /// just before lvmlockd died may still be about to activate the LV or to write metadata. It has
    /// one lease; in that time other hosts would not have got the lock either.
    fn unused_from(&self, orphan: &Orphan) -> Instant {
        let since = match orphan.spec.role {
            Role::Membership => self.found_at,
            _ => Instant::from_micros(orphan.saved.asked_us) + self.dates.timing.patience,
        };
        since + self.dates.leases.longest
    }

    fn may_be_unused(&self, orphan: &Orphan, now: Instant) -> bool {
        now >= self.unused_from(orphan)
    }
}

impl Left {
    /// A message about the locks that were left.
    fn summary(&self) -> String {
        let names: BTreeSet<&str> =
            self.locks.values().map(|orphan| orphan.lockspace.owner.name.as_str()).collect();
        let (count, noun) = (self.locks.len(), plural(self.locks.len(), "lock"));
        format!(
            "an earlier lvmlockd left {count} {noun} of {} behind, which are kept until they are \
             asked for, or until their logical volumes are not active any more. To use the volume \
             groups start them with \"vgchange --lockstart\"",
            list(names.into_iter().map(str::to_owned).collect())
        )
    }

    fn of(saved: Saved, found_at: Instant) -> Left {
        let lockspaces: HashMap<ResourceId, SavedLockspace> =
            saved.lockspaces.into_iter().collect();
        let mut known: HashMap<ResourceId, Arc<Lockspace>> = HashMap::new();
        let mut locks = HashMap::new();
        for (id, mut saved) in saved.locks {
            // A request time in the future would keep the lock for ever.
            saved.asked_us = saved.asked_us.min(found_at.as_micros());
            let vg = vg_of(&id);
            let lockspace = known
                .entry(vg)
                .or_insert_with(|| Arc::new(lockspace_of(vg, lockspaces.get(&vg))))
                .clone();
            let spec = lockspace.spec_of(&id);
            let (phase, idle, in_danger, doubt) = (Phase::Found, 0, false, String::new());
            locks.insert(id, Orphan { lockspace, spec, saved, phase, idle, in_danger, doubt });
        }
        Left { locks, lockspaces, cared_for: false }
    }
}

/// The lockspace of an orphan, from the notes.
fn lockspace_of(vg: ResourceId, saved: Option<&SavedLockspace>) -> Lockspace {
    // A lockspace is noted before the first of its locks, but its note may be damaged.
    let uuid = || String::from_utf8_lossy(&vg.as_bytes()[..32]).into_owned();
    let name = saved.map_or_else(uuid, |saved| saved.name.clone());
    let paths = saved.map_or_else(Vec::new, |saved| saved.paths.clone());
    let kill = (vg != ResourceId::GLOBAL).then_some(name);
    let lockspace = Lockspace::with_id(vg, kill, paths);
    if let Some(saved) = saved {
        // A device may have got another name since then.
        lockspace.mean(&saved.paths, saved.drives.clone());
    }
    lockspace
}

/// The care thread: looks after orphans until none is left.
fn care(orphans: &Weak<Orphans>, ended: &Receiver<()>) {
    let mut pause = CORE_STARTS;
    // Nothing is ever sent; the last owner drops the sender.
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let next = orphans.upgrade().and_then(|orphans| orphans.round(pause));
        let Some(next) = next else {
            return;
        };
        pause = next;
    }
}

#[cfg(all(test, feature = "shuttle"))]
pub(crate) mod schedules;

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    /// The dates of a life that follows one with these in its note.
    fn dates(noted: Noted) -> Dates {
        let directory = tempfile::tempdir().unwrap();
        let note = || Arc::new(SafeNote::start(directory.path(), LEASE, Box::new(|| ())).unwrap());
        let earlier_life = note();
        earlier_life.open(noted);
        let file = directory.path().join("safe-until");
        while !file.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(earlier_life);
        let timing = Timing::for_lease(LEASE);
        let fencing = Fencing::new(&timing, Default::default()).unwrap();
        let earlier = undo_note::Dates::default();
        let leases = Leases { shortest: LEASE, longest: LEASE };
        Dates { timing, leases, fencing, note: note(), watchdog: None, earlier }
    }

    /// A proof by half of the drives relies on the date.
    #[test]
    fn a_date_that_no_lease_shows_proves_nothing() {
        let vg = ResourceId::vg("123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz").unwrap();
        let until = clock::now() + LEASE / 2;
        let (paths, drives) = (Vec::new(), vec!["naa.1".to_owned()]);
        let saved = SavedLock { exclusive: true, granted: true, asked_us: 7, paths, drives };
        for is_shown in [true, false] {
            let dates = dates([(vg, Date { until, is_shown })].into());
            assert_eq!(dates.noted(&vg, &saved), is_shown.then_some(until));
        }
    }

    /// The note names no lock of the VG yet: it was just granted, by any of the earlier lives.
    #[test]
    fn without_a_date_a_lock_is_as_old_as_its_request_and_has_the_shortest_lease() {
        let vg = ResourceId::vg("123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz").unwrap();
        let another = Date { until: clock::now() + LEASE, is_shown: true };
        let (paths, drives) = (Vec::new(), vec!["naa.1".to_owned()]);
        let saved = SavedLock { exclusive: true, granted: true, asked_us: 7, paths, drives };
        let other_vg = ResourceId::vg("654321-abcd-efgh-ijkl-mnop-qrst-uvwxyz").unwrap();
        let mut dates = dates([(other_vg, another)].into());
        dates.leases.shortest = LEASE / 2;
        let until = dates.noted(&vg, &saved).unwrap();
        assert!(until <= Instant::from_micros(7) + LEASE / 2 - dates.timing.patience, "{until:?}");
    }

    #[test]
    fn what_was_left_was_asked_for_before_it_was_found() {
        let id = ResourceId::GLOBAL;
        for (asked_us, expected) in [(7, 7), (100, 100), (u64::MAX, 100)] {
            let (paths, drives) = (Vec::new(), vec!["naa.1".to_owned()]);
            let lock = SavedLock { exclusive: true, granted: false, asked_us, paths, drives };
            let saved = Saved { locks: vec![(id, lock)], lockspaces: Vec::new() };
            let left = Left::of(saved, Instant::from_micros(100));
            assert_eq!(left.locks[&id].saved.asked_us, expected);
        }
    }
}
