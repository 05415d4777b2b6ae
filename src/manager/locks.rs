//! Locks: taken, converted and given up, each with its value.

use super::Manager;
use super::running::{Running, held_here, patience_for};
use crate::error::Error;
use crate::lock::{Adopt, LockspaceKey, Resource, ResourceKey, ValBlk};
use crate::lock::{LockSpec, RequestResult, Role};
use crate::lockspace::{Held, Lockspace};
use crate::recovery::{ActiveNow, OrphanClaim};
use crate::sys::clock;
use core::time::Duration;
use idm_engine::{Outcome, Request, ValueRead};
use idm_protocol::{Mode, Value};
use std::sync::Arc;

/// Wait of [`Manager::unlock`] for the drives. Without it, the next lvm command on another host
/// would get "held by another host", and core does not try LV locks again. Healthy drives answer
/// within milliseconds; more than half of them is enough.
const SETTLE: Duration = Duration::from_millis(500);
/// Fate of a lock that core has no use for, for messages.
const GIVEN_BACK: &str = "it is given back, unless its logical volume is active";
/// `LMUF_FREE_VG` of lvmlockd: the VG is being removed.
const FREE_VG: u32 = 1;

/// The resource of core that requests a lock.
struct Asker {
    space_key: LockspaceKey,
    key: ResourceKey,
    lockspace: Arc<Lockspace>,
}

impl Manager {
    /// Forgets a resource; never unlocks a lock that another resource holds. May come after its
    /// lockspace is gone, and for resources that were never seen.
    pub fn remove_resource(&self, key: ResourceKey) {
        let Some(held) = self.state().resources.remove(&key) else {
            return;
        };
        log::warn!("{}: core forgets it without unlock; {GIVEN_BACK}", held.spec);
        if let Ok(running) = self.running() {
            self.let_go(running, vec![held]);
        }
    }

    /// Handles locks of removed resources that core did not unlock. They are given up, except for
    /// those whose LV is active. Locks of a killed VG are all given up, whatever devices still
    /// exist: core is informed when the VG's LVs are not in use any more.
    pub(super) fn let_go(&self, running: &Running, all: Vec<Held>) {
        if all.is_empty() {
            return;
        }
        let active = running.orphans.active();
        for held in all {
            let left = match held.lockspace.owner.is_killed() {
                true => Some(held),
                false => self.unless_kept(running, &active, held),
            };
            if let Some(held) = left {
                log::debug!("{}: released, core has no use for it any more", held.spec);
                self.give_up(running, held.spec);
            }
        }
    }

    /// Keeps a lock like an orphan if its LV is active. Returns a lock that is not kept.
    fn unless_kept(&self, running: &Running, active: &ActiveNow, held: Held) -> Option<Held> {
        if !active.contains(&held.spec.resource) {
            return Some(held);
        }
        log::warn!("{}: its LV is active, so it is kept until that is deactivated", held.spec);
        let id = held.spec.resource;
        running.orphans.keep(held);
        self.state().taken.remove(&id);
        None
    }

    /// Takes a lock. The value block is all zero if there is no value, or none that can be trusted.
    ///
    /// A lock that this very resource already holds is a success, or a change of its mode: core
    /// requests a lock again that it has forgotten (docs/lvmlockd-contract.md, "The life of a
    /// lockspace").
    pub fn lock(
        &self,
        space_key: LockspaceKey,
        key: ResourceKey,
        resource: Resource,
        mode: Mode,
        adopt: Adopt,
    ) -> Result<ValBlk, Error> {
        let (lockspace, spec) = self.lock_of(space_key, &resource)?;
        let running = self.running()?;
        let (id, begun) = (spec.resource, clock::now());
        let asker = Asker { space_key, key, lockspace };
        let locked = self.lock_for(running, asker, spec, &resource, mode, adopt);
        locked.inspect_err(|error| running.note_error(&id, error, begun))
    }

    fn lock_for(
        &self,
        running: &Running,
        asker: Asker,
        spec: LockSpec,
        resource: &Resource,
        mode: Mode,
        adopt: Adopt,
    ) -> Result<ValBlk, Error> {
        let key = asker.key;
        if self.holds_already(running, key, &spec, mode)? {
            return Ok(ValBlk::default());
        }
        // Armed before there is anything to protect, so that there is no gap.
        let _armed = running.arm(&asker.lockspace)?;
        let id = spec.resource;
        if !self.state().taken.insert(id) {
            return Err(held_here(&spec));
        }
        let taken = self.take(running, &asker, spec, resource, mode, adopt);
        if taken.is_err() {
            self.state().taken.remove(&id);
        }
        let (value, lockspace) = (taken?, asker.lockspace);
        // If not all of its drives have it, a lock of an earlier life is only safe for a lease.
        let is_old = || self.state().resources.get(&key).is_some_and(|held| held.taken_over);
        let spread = match (resource, mode) {
            (Resource::Vg, Mode::Exclusive) => self.spread_locks(running, &lockspace),
            (Resource::Vg, Mode::Shared) => self.spread_where_changed(running, &lockspace),
            (Resource::Lv { .. }, _) if mode == Mode::Shared || is_old() => {
                self.spread_lock(running, &lockspace, id)
            }
            _ => Ok(()),
        };
        // After an error core does not have the lock.
        spread.inspect_err(|_| self.unlock(key, 0, 0)).map(|()| value)
    }

    /// The lockspace and the lock of a resource. Fails if the lockspace cannot be used.
    pub(super) fn lock_of(
        &self,
        space_key: LockspaceKey,
        resource: &Resource,
    ) -> Result<(Arc<Lockspace>, LockSpec), Error> {
        let lockspace = self.lockspace(space_key)?;
        if !lockspace.is_started() {
            return Err(Error::NoLockspace);
        }
        if lockspace.owner.is_killed() {
            return Err(Error::Killed);
        }
        let name = &lockspace.owner.name;
        let spec = lockspace
            .spec(resource)
            .map_err(|error| Error::unfit(format!("an LV of {name}: {error}")))?
            .ok_or_else(|| Error::unfit(format!("{name} has no such resource")))?;
        Ok((lockspace, spec))
    }

    /// Takes a lock that no resource has: an orphan that a dead lvmlockd left, or a new one from
    /// the drives.
    fn take(
        &self,
        running: &Running,
        asker: &Asker,
        spec: LockSpec,
        resource: &Resource,
        mode: Mode,
        adopt: Adopt,
    ) -> Result<ValBlk, Error> {
        running.heed_earlier(&spec, None)?;
        let claim = running.orphans.claim(&spec.resource, running.bound());
        let claim =
            claim.map_err(|withheld| Error::Storage(format!("{spec} is refused: {withheld}")))?;
        match claim {
            Some(claim) => {
                let left = claim.saved.mode();
                if mode != left && (adopt.only || adopt.ok) {
                    return Err(Error::AdoptOtherMode);
                }
                let saved = claim.saved.asked_now(left);
                match mode > left {
                    true => running.note_again(&spec, &saved)?,
                    false => running.correct_note(&spec.resource, &saved),
                }
                let lockspace = asker.lockspace.clone();
                // Changes made under the lock may not have been published.
                let value = lockspace.told(&spec, ValueRead::Unknown);
                let held = Held { lockspace, spec, mode: left, saved, value, taken_over: true };
                self.take_over(asker, held, mode, claim)?;
                Ok(value)
            }
            None if adopt.only => Err(Error::AdoptNone),
            None => self.acquire(running, asker, spec, resource, mode),
        }
    }

    /// Takes a lock that this host does not have.
    fn acquire(
        &self,
        running: &Running,
        asker: &Asker,
        spec: LockSpec,
        resource: &Resource,
        mode: Mode,
    ) -> Result<ValBlk, Error> {
        running.heed_earlier(&spec, Some(mode))?;
        let plan = running.plan(&asker.lockspace, resource)?;
        running.cover(&spec, &plan)?;
        let mut saved = plan.saved(mode);
        running.note(&spec, &saved)?;
        let read = match running.request(&spec, plan.acquire(mode)) {
            RequestResult::Done(Outcome::Granted(read)) => read,
            other => {
                running.store.forget_lock(&spec.resource);
                return Err(running.refused(&spec, other));
            }
        };
        running.refusals.granted(&spec.resource, clock::now());
        running.note_granted(&spec, &mut saved);
        let lockspace = asker.lockspace.clone();
        let value = lockspace.told(&spec, read);
        let held = Held { lockspace, spec, mode, saved, value, taken_over: false };
        let held = self.state().hold(asker.space_key, asker.key, held);
        if let Err(spec) = held {
            self.give_up(running, spec);
            return Err(Error::NoLockspace);
        }
        Ok(value)
    }

    /// Gives up a lock without waiting for drives.
    pub(super) fn give_up(&self, running: &Running, spec: LockSpec) {
        let id = spec.resource;
        running.store.forget_lock(&id);
        running.runtime.release(spec);
        self.state().taken.remove(&id);
    }

    /// Gives a resource an orphan: a lock that a dead lvmlockd left and that was renewed since.
    fn take_over(
        &self,
        asker: &Asker,
        held: Held,
        mode: Mode,
        claim: OrphanClaim,
    ) -> Result<(), Error> {
        let spec = held.spec.clone();
        if self.state().hold(asker.space_key, asker.key, held).is_err() {
            return Err(Error::NoLockspace);
        }
        if let Err(error) = self.convert(asker.key, mode, 0) {
            // The orphan stays as it was.
            self.state().resources.remove(&asker.key);
            return Err(error);
        }
        claim.take();
        log::info!("{spec}: held {mode}, taken over from an earlier lvmlockd");
        Ok(())
    }

    /// Whether a resource already holds the lock; if so, the lock is changed to the requested mode.
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
            log::warn!("{}: its resource is now another's; {GIVEN_BACK}", held.spec);
            self.state().resources.remove(&key);
            self.let_go(running, vec![held]);
            return Ok(false);
        }
        let now = running.runtime.mode(spec.resource);
        if now.map_err(|answer| running.refused(spec, answer))?.is_some() {
            log::info!("{}: requested again, now {mode}", spec);
            self.convert(key, mode, 0)?;
            return Ok(true);
        }
        if running.orphans.active().contains(&spec.resource) {
            return Err(Error::Storage(format!(
                "{spec} is refused: it was lost, and its LV is still active; deactivate it, and \
                 repeat the command"
            )));
        }
        // The lock has to be given up before it is taken anew.
        self.state().resources.remove(&key);
        self.give_up(running, held.spec);
        Ok(false)
    }

    /// Changes the mode of a held lock; `r_version` is 0 where there is nothing to publish.
    pub fn convert(&self, key: ResourceKey, mode: Mode, r_version: u32) -> Result<(), Error> {
        let held = self.state().resources.get(&key).cloned();
        let held = held.ok_or_else(|| {
            let why = "convert of a lock that is not held; deactivate its logical volume, and \
                       activate it again";
            Error::Invalid(why.into())
        })?;
        let (promotes, demotes) = (mode > held.mode, mode < held.mode);
        if promotes && held.lockspace.owner.is_killed() {
            return Err(Error::Killed);
        }
        let publish = r_version != 0 && held.mode == Mode::Exclusive;
        let (value, block) = publish.then(|| timestamp(&held, r_version, false)).unzip();
        if mode == held.mode && value.is_none() {
            return Ok(());
        }
        let running = self.running()?;
        let saved = held.saved.asked_now(mode);
        // The noted mode is never higher than the one that core knows of, whenever lvmlockd is
        // killed. With a higher one, half of the drives could prove a lock that others share.
        if demotes {
            match running.is_proven_by_half(&held.spec.resource) {
                true => running.note_again(&held.spec, &saved)?,
                false => running.correct_note(&held.spec.resource, &saved),
            }
        }
        let answer = running.request(&held.spec, Request::Convert { mode, value });
        match answer {
            RequestResult::Done(Outcome::Converted { .. }) => {}
            // The conversion goes on, and until it has finished, other hosts are kept out as
            // before. With an error, core would go on with an exclusive lock that becomes shared
            // without its knowledge.
            RequestResult::TimedOut if !promotes => {
                log::warn!("{}: conversion to {mode} is not finished yet", held.spec);
            }
            other => {
                // Core goes on with the mode that it had.
                if demotes {
                    running.correct_note(&held.spec.resource, &held.saved);
                }
                return Err(running.refused(&held.spec, other));
            }
        }
        if promotes {
            let spread = match held.spec.role {
                Role::Vg => self.spread_locks(running, &held.lockspace),
                _ => Ok(()),
            };
            if let Err(error) = spread.and_then(|()| running.note_again(&held.spec, &saved)) {
                let demote = Request::Convert { mode: held.mode, value: None };
                // It goes on without a caller that waits for it.
                let bound = patience_for(&held.lockspace, running.bound());
                let _ = running.runtime.begin(held.spec.clone(), demote).recv_timeout(bound);
                return Err(error);
            }
        }
        if let Some(held) = self.state().resources.get_mut(&key) {
            held.mode = mode;
            held.saved = saved;
            held.value = block.unwrap_or(held.value);
        }
        // As a shared lock it may have been on all of them, and its LV can be left on fewer now.
        if held.spec.role == Role::Lv {
            let lock = held.spec.resource;
            if let Err(error) = self.spread_lock(running, &held.lockspace, lock) {
                log::warn!("{}: it cannot be put on all of the VG's drives: {error}", held.spec);
            }
        }
        Ok(())
    }

    /// Gives up a lock. Never fails: drives that did not take the release are followed up. A lock
    /// that was taken over from an earlier lvmlockd is kept while its LV is active. A command that
    /// changes an active LV asks for it only while the command runs, and core does not know that it
    /// was held before (docs/lvmlockd-contract.md, "Locks of commands").
    pub fn unlock(&self, key: ResourceKey, r_version: u32, lmu_flags: u32) {
        let Some(held) = self.state().resources.remove(&key) else {
            log::debug!("unlock of a lock that is not held");
            return;
        };
        let Ok(running) = self.running() else { return };
        let held = match held.taken_over && held.spec.role == Role::Lv {
            true => self.unless_kept(running, &running.orphans.active(), held),
            false => Some(held),
        };
        let Some(held) = held else { return };
        // Informs hosts that still have the VG started of its removal.
        let removes = lmu_flags & FREE_VG != 0 && held.spec.role == Role::Vg;
        let publish = held.mode == Mode::Exclusive
            && held.spec.role.keeps_value()
            && (r_version != 0 || removes);
        let value = publish.then(|| timestamp(&held, r_version, removes).0);
        let bound = patience_for(&held.lockspace, SETTLE);
        let spec = held.spec;
        let release = Request::Release { value };
        match running.runtime.request(spec.clone(), release, bound) {
            RequestResult::Done(_) => {}
            _ => log::info!("{spec}: released, some drives have not answered yet"),
        }
        running.store.forget_lock(&spec.resource);
        self.state().taken.remove(&spec.resource);
    }
}

/// The timestamp to publish with a held lock, recorded with its block.
fn timestamp(held: &Held, r_version: u32, removes: bool) -> (Value, ValBlk) {
    held.lockspace.value(held.spec.resource, |value| {
        let timestamp = value.next(clock::wall_us(), removes);
        (timestamp, value.wrote(timestamp, r_version))
    })
}
