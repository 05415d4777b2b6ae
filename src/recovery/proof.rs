//! Proof that an orphan is still this host's, from the answers of its drives.

use super::{Active, Orphan, Orphans, Phase};
use crate::lock::{Refused, RequestResult, Role};
use crate::lock::{role_of, vg_of};
use crate::lockspace::Lockspace;
use crate::runtime::refusal;
use crate::state::store::SavedLock;
use crate::sys::clock;
use crate::sys::sync::mpsc::Receiver;
use crate::sys::sync::planted;
use crate::words::list;
use idm_engine::{Member, Outcome, Refusal, Request};
use idm_protocol::ResourceId;
use std::collections::HashMap;
use std::sync::Arc;

/// Orphans that are proven at the same time. Each asks all of its drives, and commands that wait
/// too long in a drive's queue are dropped.
const BATCH: usize = 128;

/// An orphan whose drives were asked, and the channel for the answer.
type AskedOrphan = (ResourceId, Receiver<RequestResult>);

impl Orphans {
    /// Asks the drives for all unproven orphans, of all VGs at once: each VG has its own drives,
    /// and a VG whose drives do not answer must not delay the others or their alarm. Returns
    /// whether any orphan is proven now. An orphan that is not reached in time waits for the next
    /// round.
    pub(super) fn prove(&self) -> bool {
        let mut groups: HashMap<ResourceId, Vec<ResourceId>> = HashMap::new();
        for (id, orphan) in &self.left().locks {
            if matches!(orphan.phase, Phase::Found | Phase::Unproven) {
                groups.entry(vg_of(id)).or_default().push(*id);
            }
        }
        // Ids are taken from the end, memberships and VG locks first: starting a VG needs them.
        groups.values_mut().for_each(|ids| ids.sort_by_key(|id| role_of(id) != Role::Lv));
        let mut any = false;
        let end = clock::now() + self.dates.timing.patience / 2;
        while !groups.is_empty() && clock::now() < end {
            let asked: Vec<(ResourceId, Vec<AskedOrphan>)> = groups
                .iter_mut()
                .map(|(vg, ids)| {
                    let batch = ids.split_off(ids.len().saturating_sub(BATCH));
                    (*vg, self.ask(&batch))
                })
                .collect();
            for (vg, asked) in asked {
                let answered = self.hear(asked);
                any |= answered;
                // Otherwise each remaining orphan of the VG would cost the same wait.
                if !answered || groups.get(&vg).is_some_and(Vec::is_empty) {
                    groups.remove(&vg);
                }
            }
        }
        for orphan in self.left().locks.values_mut().filter(|o| o.phase == Phase::Found) {
            orphan.phase = Phase::Unproven;
        }
        if !planted!(WakeBeforeProof) {
            self.changed.notify_all();
        }
        any
    }

    /// Asks the drives about one orphan, for a request that waits for it.
    pub(super) fn prove_one(&self, id: &ResourceId) {
        let asked = self.ask(&[*id]);
        self.hear(asked);
    }

    /// Asks the drives about those orphans that no other thread is proving.
    fn ask(&self, ids: &[ResourceId]) -> Vec<AskedOrphan> {
        let mut asked = Vec::new();
        for id in ids {
            let mut left = self.left();
            let Some(orphan) = left.locks.get_mut(id) else { continue };
            if !matches!(orphan.phase, Phase::Found | Phase::Unproven) {
                continue;
            }
            orphan.phase = Phase::Proving;
            let (saved, lockspace) = (orphan.saved.clone(), orphan.lockspace.clone());
            drop(left);
            let request = self.adoption(&saved, &lockspace, role_of(id));
            // With the mutex held, so that the request names its present lockspace.
            let mut left = self.left();
            if let Some(orphan) = left.locks.get(id) {
                let spec = orphan.spec.clone();
                if planted!(AskInOldName) {
                    drop(left);
                    left = self.left();
                }
                asked.push((*id, self.runtime.begin(spec, request)));
            }
        }
        asked
    }

    /// The request to adopt exactly the noted lock.
    pub(super) fn adoption(&self, saved: &SavedLock, lockspace: &Lockspace, role: Role) -> Request {
        let members = self.members_of(saved);
        let is_lv = role == Role::Lv;
        let witnesses = if is_lv { self.others(lockspace, &members) } else { Vec::new() };
        let safe_until = self.dates.noted(&lockspace.id, saved);
        let mode = saved.mode();
        Request::Adopt { mode, safe_until, granted: saved.granted, members, witnesses }
    }

    fn hear(&self, asked: Vec<AskedOrphan>) -> bool {
        let mut any = false;
        let mut active = None;
        let mut kept = Vec::new();
        for (id, answer) in asked {
            // The engine always answers.
            let answer = answer.recv().unwrap_or(RequestResult::TimedOut);
            any |= self.proven(&id, &answer, &mut active);
            if matches!(answer, RequestResult::Done(Outcome::Adopted(_))) {
                kept.push(id);
            }
        }
        self.spread_again(kept);
        any
    }

    /// Puts LV locks and memberships that were kept on the drives of their VG, as far as these are
    /// noted. The earlier lvmlockd may have begun to do so, because LVs were to move, and until
    /// then a lock that not all its drives have is only safe for a lease. A lock that a request has
    /// taken over meanwhile is put there by that request.
    fn spread_again(&self, kept: Vec<ResourceId>) {
        let left = self.left();
        let mut groups: HashMap<ResourceId, (Arc<Lockspace>, Vec<ResourceId>)> = HashMap::new();
        for id in kept.into_iter().filter(|id| !matches!(role_of(id), Role::Global | Role::Vg)) {
            if let Some(orphan) = left.locks.get(&id) {
                let new = || (orphan.lockspace.clone(), Vec::new());
                groups.entry(vg_of(&id)).or_insert_with(new).1.push(id);
            }
        }
        for (lockspace, ids) in groups.into_values() {
            self.runtime.spread(ids, lockspace.members(self.runtime.drives()).members);
        }
    }

    /// Applies the drives' answer to an orphan. Returns whether it was a clear answer. `active`
    /// caches the list of active LVs.
    fn proven(&self, id: &ResourceId, answer: &RequestResult, active: &mut Option<Active>) -> bool {
        if planted!(WakeBeforeProof) {
            self.changed.notify_all();
        }
        let mut left = self.left();
        let Some(orphan) = left.locks.get_mut(id) else {
            return true;
        };
        let spec = &orphan.spec;
        let clear = match answer {
            RequestResult::Done(Outcome::Adopted(mode)) => {
                log::info!("{spec}: left {mode} by an earlier lvmlockd, kept");
                orphan.phase = Phase::Kept;
                orphan.set_in_danger(false);
                true
            }
            RequestResult::Refused(
                refused @ Refused {
                    refusal: Refusal::NothingToAdopt | Refusal::OtherMode(_), ..
                },
            ) => {
                if self.is_in_use(orphan, active) {
                    orphan.phase = Phase::Lost;
                    let why = refusal::reasons(self.runtime.drives(), refused, clock::now());
                    self.alarm(orphan, &format!("it is not this host's any more: {why}"), None);
                } else {
                    log::info!("{spec}: requested by an earlier lvmlockd; nothing uses it");
                    orphan.set_in_danger(false);
                    self.store.forget_lock(id);
                    // The engine keeps the records on a minority of drives until a release.
                    if let Some(orphan) = left.locks.remove(id) {
                        self.runtime.release(orphan.spec);
                    }
                }
                true
            }
            other => {
                log::debug!("{spec}: left by an earlier lvmlockd, not proven yet: {other:?}");
                orphan.phase = Phase::Unproven;
                orphan.doubt = match other {
                    RequestResult::Refused(refused) => {
                        refusal::reasons(self.runtime.drives(), refused, clock::now())
                    }
                    _ => "its drives could not be asked".to_owned(),
                };
                false
            }
        };
        drop(left);
        if !planted!(WakeBeforeProof) {
            self.changed.notify_all();
        }
        clear
    }

    /// The drives' last answers about an unproven orphan.
    pub(super) fn doubt(&self, orphan: &Orphan) -> String {
        if !orphan.doubt.is_empty() {
            return orphan.doubt.clone();
        }
        let members = self.members_of(&orphan.saved);
        let names = members.iter().map(|member| self.runtime.drives().name(member.drive));
        format!("its drives are being asked ({})", list(names.collect()))
    }

    /// The drives of a noted lock. A drive that a path has led to only since then is not one of
    /// them.
    fn members_of(&self, saved: &SavedLock) -> Vec<Member> {
        let drives = self.runtime.drives();
        let now = drives.members(&saved.paths).members;
        let known = |identity: &String| {
            let is = |member: &&Member| member.identity == identity.as_bytes();
            now.iter().find(is).cloned().unwrap_or_else(|| drives.member(identity))
        };
        saved.drives.iter().map(known).collect()
    }

    /// The drives of a VG that are not a lock's own.
    fn others(&self, lockspace: &Lockspace, members: &[Member]) -> Vec<Member> {
        let all = lockspace.members(self.runtime.drives()).members;
        all.into_iter().filter(|drive| !members.contains(drive)).collect()
    }
}
