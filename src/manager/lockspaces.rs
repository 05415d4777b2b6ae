//! The life of a lockspace, from prepare to remove, and the other hosts that have it started.

use super::Manager;
use super::kill_setting;
use super::plan::{Plan, no_global_drives};
use super::running::{Running, not_noted, patience_for, with_hint};
use crate::error::Error;
use crate::lock::{Adopt, LockspaceKey, ResourceKey, Scope};
use crate::lock::{LockSpec, RequestResult, Role, vg_of};
use crate::lockspace::{Held, Lockspace};
use crate::recovery::ActiveLv;
use crate::runtime::refusal;
use crate::state::store::SavedLockspace;
use crate::topology::TopologyError;
use crate::words::{are, list, plural};
use core::time::Duration;
use idm_engine::{DriveRef, Outcome, Request, acquire_quorum};
use idm_protocol::{HostId, Mode, ResourceId, Status};
use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Wait of [`Manager::remove_lockspace`]: core ignores a shutdown where stopping takes more than
/// 100 ms (docs/lvmlockd-contract.md, "Start and end of the daemon").
const STOP_SETTLE: Duration = Duration::from_millis(80);
/// Further wait until the watchdog is stopped.
const STOP_REST: Duration = Duration::from_millis(15);
/// Wait of [`Manager::hosts`]: all of core is blocked meanwhile (docs/lvmlockd-contract.md,
/// "Threads and mutexes").
const COUNT_BOUND: Duration = Duration::from_secs(1);
/// Pause before another try to start a lockspace.
const JOIN_PAUSE: Duration = Duration::from_millis(200);

impl Manager {
    /// The lockspaces that were started when an earlier lvmlockd died, and have not been started
    /// since.
    pub fn left_lockspaces(&self) -> Vec<SavedLockspace> {
        self.running.get().map_or_else(Vec::new, |running| running.orphans.lockspaces())
    }

    /// Registers a lockspace and checks that its drives can be used: a majority of a VG's drives
    /// must answer. The global lockspace is always accepted, because without it core fails even
    /// read-only commands; a request for its lock then reports what is missing.
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
            let dropped = self.state().dropped.clone();
            running.check_protection(&lockspace, &dropped)?;
            running.check_drives(&lockspace)?;
            running.check_room(&lockspace)?;
            running.arm(&lockspace).map_err(|error| Error::NotRunning(error.to_string()))?;
        }
        if !lockspace.is_global {
            self.kill_setting.get_or_init(|| self.check_kill_setting());
        }
        for stale in self.given_up(key, &lockspace) {
            self.remove_lockspace(stale, false, false)?;
        }
        self.state().lockspaces.insert(key, Arc::new(lockspace));
        Ok(())
    }

    /// Logs a warning if lvm.conf makes the kill command do nothing.
    fn check_kill_setting(&self) {
        let is_lvms = self.config.as_ref().is_ok_and(|config| config.kill_command.is_none());
        if let Some(warning) = is_lvms.then(kill_setting::warning).flatten() {
            log::warn!("{warning}");
        }
    }

    /// The lockspaces that core must have given up when it prepares this one: one at the same
    /// address, and one of the same VG at another address. Only `vgchange --lockstop` obeys a
    /// refused stop; at SIGTERM, and before it renames a VG, core goes on.
    fn given_up(&self, key: LockspaceKey, prepared: &Lockspace) -> Vec<LockspaceKey> {
        let state = self.state();
        let all = state.lockspaces.iter();
        let stale = all.filter(|&(&other, there)| other == key || there.id == prepared.id);
        stale.map(|(&other, _)| other).collect()
    }

    /// Starts the lockspace. After a failure, everything from prepare is forgotten, because core
    /// then never calls remove.
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
        // Noted first, so that the lockspace of every noted lock is known.
        let saved = lockspace.saved();
        let noted = running.store.save_lockspace(&lockspace.id, &saved);
        let noted = noted.map_err(|error| not_noted(&lockspace.owner.name, &error));
        match noted {
            // Without the global lockspace core fails even read-only commands.
            Err(error) if lockspace.is_global => log::warn!("{}: {error}", lockspace.owner.name),
            noted => noted?,
        }
        if !lockspace.is_global {
            let joined = running.register_and_join(&lockspace);
            if joined.is_err() && !running.orphans.any_of(&lockspace) {
                running.store.forget_lockspace(&lockspace.id);
            }
            joined?;
        }
        running.orphans.adopt_lockspace(&lockspace);
        self.state().dropped.retain(|lv| !lockspace.owns(lv));
        // The VG may have other drives than when the orphans were taken.
        self.begin_spread(running, &lockspace, running.members_of(&lockspace)?.members);
        lockspace.set_started();
        running.show(&self.state());
        log::info!("{}: started", lockspace.owner.name);
        Ok(())
    }

    /// Stops the lockspace; with `free_vg` the VG is being removed. Waits for drives for less than
    /// 100 ms: the background handles later answers. Each lock that core has not unlocked before
    /// costs the time to remove its note.
    ///
    /// With `may_refuse` it fails, and changes nothing, if a dead lvmlockd left locks that are
    /// still in use. Otherwise such locks are kept as they were before the start.
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
            log::warn!(
                "{label}: left by an earlier lvmlockd, and its LV is still active; deactivate it, \
                 then stop the volume group"
            );
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
        self.let_go(running, held);
        if lockspace.is_started() && !lockspace.is_global {
            // The release is waited for, so that a vgremove on another host does not count this one
            // any more.
            let bound = patience_for(&lockspace, STOP_SETTLE);
            let release = Request::Release { value: None };
            let membership = lockspace.membership();
            running.runtime.request(membership.clone(), release, bound);
            running.store.forget_lock(&membership.resource);
        }
        if lockspace.owner.is_killed() {
            // What cannot be read now cannot be read when the VG is started, either.
            let active = running.orphans.unprotected(&lockspace).unwrap_or_default();
            self.state().dropped.extend(active.iter().map(|lv| lv.id));
        }
        if let Some(reservations) = &running.reservations {
            reservations.leave(lockspace.id, free_vg);
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

    /// Sets the VG's PVs, read again because a repeated start replaces them.
    pub fn set_pvs(&self, key: LockspaceKey, pvs: Vec<String>) {
        match self.lockspace(key) {
            Ok(lockspace) if !lockspace.is_global => lockspace.set_paths(pvs),
            _ => {}
        }
    }

    /// The number of other hosts that have the lockspace started. A majority of the VG's drives is
    /// read, and every host counts that has a live record of the VG there, a membership or a lock.
    pub fn hosts(&self, key: LockspaceKey) -> Result<u32, Error> {
        let lockspace = self.lockspace(key)?;
        let running = self.running()?;
        let members = running.members_of(&lockspace)?.members;
        let enough = acquire_quorum(members.len());
        let answers = running.runtime.read_tables(&members, enough, COUNT_BOUND);
        let tables: Vec<_> = answers.iter().filter_map(|(_, table)| table.as_ref().ok()).collect();
        if tables.len() < enough {
            let drives = running.runtime.drives();
            let why = refusal::unread(drives, &members, &answers, (enough, COUNT_BOUND));
            let vg = &lockspace.owner.name;
            return Err(Error::Storage(format!("the hosts of {vg} cannot be counted: {why}")));
        }
        let hosts: HashSet<HostId> = tables
            .iter()
            .flat_map(|table| table.iter())
            .filter(|record| record.state.is_live() && lockspace.owns(&record.resource))
            .map(|record| record.host)
            .filter(|&host| host != running.host)
            .collect();
        for host in &hosts {
            log::info!("{}: started on host {host}", lockspace.owner.name);
        }
        Ok(u32::try_from(hosts.len()).unwrap_or(u32::MAX))
    }
}

impl Running {
    /// Takes the membership of a VG; with reservations, this host is registered on its drives
    /// before.
    fn register_and_join(&self, lockspace: &Lockspace) -> Result<(), Error> {
        let Some(reservations) = &self.reservations else {
            return self.join(lockspace);
        };
        let (group, owner) = (lockspace.id, &lockspace.owner);
        let refused = |why| {
            Error::Unprotected(format!(
                "{} is not started, because its drives cannot be kept from taking data of hosts \
                 that lost its locks: {why}",
                owner.name
            ))
        };
        let drives: Vec<DriveRef> =
            self.members_of(lockspace)?.members.iter().map(|member| member.drive).collect();
        let is_in_use = self.orphans.active().any_of(&group);
        reservations.enrol(group, owner, &drives, is_in_use).map_err(refused)?;
        let joined = self.join(lockspace).and_then(|()| {
            let confirmed = reservations.confirm(group, is_in_use).map_err(refused);
            confirmed.inspect_err(|_| {
                let membership = lockspace.membership();
                self.store.forget_lock(&membership.resource);
                self.runtime.release(membership);
            })
        });
        joined.inspect_err(|_| reservations.leave(group, false))
    }

    /// Registers this host on drives of a lock that are new in the volume group.
    pub(super) fn cover(&self, spec: &LockSpec, plan: &Plan) -> Result<(), Error> {
        let Some(reservations) = self.reservations.as_ref().filter(|_| spec.role != Role::Global)
        else {
            return Ok(());
        };
        let covered = reservations.cover(vg_of(&spec.resource), &plan.drives());
        covered.map_err(|why| {
            Error::Storage(format!(
                "{spec} is refused: a drive that is new in the volume group cannot be kept from \
                 taking data of other hosts: {why}"
            ))
        })
    }

    /// Takes the membership of a VG. After an outage drives are not used for a while, because the
    /// release of earlier locks may still be on its way to them. This function waits for that time
    /// to end, because core reports to nobody that a lockspace failed to start. It also waits for
    /// commands that an earlier lvmlockd left on their way.
    fn join(&self, lockspace: &Lockspace) -> Result<(), Error> {
        let membership = lockspace.membership();
        let id = membership.resource;
        self.outwait_earlier(membership.role);
        match self.orphans.claim(&id, self.bound()) {
            Ok(Some(claim)) => {
                let left = claim.saved.drives.clone();
                claim.take();
                let plan = Plan::of_lockspace(self, lockspace)?;
                if left == plan.saved(Mode::Shared).drives {
                    self.runtime.own(membership);
                    return Ok(());
                }
                // The membership is not on the drives that other hosts will read.
                self.runtime.release(membership.clone());
            }
            Ok(None) => {}
            Err(_) => self.orphans.disown(&membership),
        }
        let begin = Instant::now();
        loop {
            let plan = Plan::of_lockspace(self, lockspace)?;
            self.note(&membership, &plan.saved(Mode::Shared))?;
            let error = match self.request(&membership, plan.acquire(Mode::Shared)) {
                RequestResult::Done(Outcome::Granted(_)) => return Ok(()),
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

    /// Checks that this host knows the locks of its active LVs, or that the administrator has
    /// `dropped` them.
    fn check_protection(
        &self,
        lockspace: &Lockspace,
        dropped: &HashSet<ResourceId>,
    ) -> Result<(), Error> {
        let vg = &lockspace.owner.name;
        let unprotected = self.orphans.unprotected(lockspace).map_err(|error| {
            Error::Unprotected(format!("{vg}: what is active cannot be told: {error}"))
        })?;
        let is_known = unprotected.iter().all(|lv| dropped.contains(&lv.id));
        let lvs: Vec<String> = unprotected.iter().map(ActiveLv::to_string).collect();
        if is_known && !lvs.is_empty() {
            log::error!(
                "{vg}: these logical volumes were active when it was dropped, and still are: {}. \
                 Other hosts may have used them since their locks were lost: deactivate them, and \
                 check the data",
                lvs.join(", ")
            );
        }
        if is_known {
            return Ok(());
        }
        Err(Error::Unprotected(format!(
            "{vg} is not started: these logical volumes are active here, and no lock is known that \
             protects them: {}. Other hosts may get them when the lease of an earlier lock has run \
             out. Deactivate them (\"vgchange -an\", or \"dmsetup remove\" for what that leaves), \
             then start it again",
            lvs.join(", ")
        )))
    }

    /// Checks that the start of a VG can be noted. Core does not report a later failure to lvm.
    fn check_room(&self, lockspace: &Lockspace) -> Result<(), Error> {
        let membership = lockspace.membership().resource;
        let first = Plan::of_lockspace(self, lockspace)?.saved(Mode::Shared);
        let saved = lockspace.saved();
        let checked = self.store.check_room((&lockspace.id, &saved), (&membership, &first));
        checked.map_err(|error| {
            let (vg, why) = (&lockspace.owner.name, with_hint(&error));
            Error::NotRunning(format!("{vg} is not started, because that cannot be noted: {why}"))
        })
    }

    /// Checks that a majority of a VG's drives has IDM and answers. Of a new VG, this is the first
    /// call that names the drives.
    fn check_drives(&self, lockspace: &Lockspace) -> Result<(), Error> {
        let vg = &lockspace.owner.name;
        let drives = self.members_of(lockspace)?;
        let total = drives.members.len();
        if total == 0 {
            return Err(Error::Invalid(format!(
                "{vg} is not started: it has no drives; look with \"pvs\" whether its physical \
                 volumes are seen here, and at lvm's devices file"
            )));
        }
        let enough = acquire_quorum(total);
        let not_started = |why: String, for_ever: bool| match &lockspace.owner.kill {
            Some(name) if for_ever => format!(
                "{vg} is not started: {why}. To use it without IDM locks: \"vgchange -y --locktype \
                 none --lockopt force {name}\""
            ),
            _ => format!("{vg} is not started: {why}"),
        };
        if drives.found < enough {
            let unusable =
                drives.lost.iter().any(|lost| matches!(lost, TopologyError::Unusable { .. }));
            let lost = drives.lost.iter().map(ToString::to_string).collect();
            let why = format!(
                "{} of {total} {} can be found, {enough} {} needed. {}",
                drives.found,
                plural(total, "drive"),
                are(enough),
                list(lost)
            );
            return Err(match unusable {
                true => Error::Invalid(not_started(why, true)),
                false => Error::Storage(not_started(
                    why + ". Bring back the drives, or the paths to them",
                    false,
                )),
            });
        }
        let bound = self.timing.patience;
        let answers = self.runtime.read_tables(&drives.members, enough, bound);
        let mut without = false;
        for (drive, table) in &answers {
            if *table == Err(Status::Unsupported) {
                self.runtime.drives().say_no_idm(*drive);
                without = true;
            }
        }
        if answers.iter().filter(|(_, table)| table.is_ok()).count() >= enough {
            return Ok(());
        }
        let drives = (self.runtime.drives(), &*drives.members);
        let why = refusal::unread(drives.0, drives.1, &answers, (enough, bound));
        Err(Error::Storage(not_started(why, without)))
    }
}
