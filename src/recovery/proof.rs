//! Whether an orphan is still this host's: its drives are asked, and what they say decides.

use super::{Active, Orphan, Orphans, Phase};
use crate::lock::{RequestResult, Role};
use crate::lock::{role_of, vg_of};
use crate::lockspace::Lockspace;
use crate::state::store::SavedLock;
use crate::sys::clock;
use crate::sys::sync::mpsc::Receiver;
use crate::sys::sync::planted;
use idm_engine::{Member, Outcome, Refusal, Request};
use idm_protocol::{Mode, ResourceId};
use std::collections::HashMap;

/// Orphans that are asked for at the same time. Each asks all of its drives, and what waits too
/// long in a drive's queue is dropped.
const BATCH: usize = 128;

/// An orphan that the drives were asked for.
type AskedOrphan = (ResourceId, Receiver<RequestResult>);

impl Orphans {
    /// Asks the drives for what is not proven: of all VGs at once, because each has its own drives,
    /// and one whose drives do not answer must not hold up the others, nor their alarm. Returns
    /// whether some of it is proven now. What is not asked for in time has to wait for the next
    /// round.
    pub(super) fn prove(&self) -> bool {
        let mut groups: HashMap<ResourceId, Vec<ResourceId>> = HashMap::new();
        for (id, orphan) in &self.left().locks {
            if matches!(orphan.phase, Phase::Found | Phase::Unproven) {
                groups.entry(vg_of(id)).or_default().push(*id);
            }
        }
        // Memberships and VGs' locks first, which are taken from the end: to start a VG needs them.
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
                // Otherwise what is left of the VG would be waited for as long.
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

    /// Asks the drives for one orphan, for a request that waits for it.
    pub(super) fn prove_one(&self, id: &ResourceId) {
        let asked = self.ask(&[*id]);
        self.hear(asked);
    }

    /// Asks the drives for those that nobody else is asking for.
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
            // With the mutex, so that it is asked for in the name of its present lockspace.
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

    /// Asks for exactly what is noted.
    pub(super) fn adoption(&self, saved: &SavedLock, lockspace: &Lockspace, role: Role) -> Request {
        let members = self.members_of(saved);
        let is_lv = role == Role::Lv;
        let witnesses = if is_lv { self.others(lockspace, &members) } else { Vec::new() };
        // What is noted as shared may be exclusive on the drives: the request that asked for
        // that was not told so.
        let mode = saved.exclusive.then_some(Mode::Exclusive);
        let safe_until = self.dates.note.left(&lockspace.id).flatten();
        let granted_until = safe_until.filter(|_| saved.granted);
        Request::Adopt { mode, granted_until, members, witnesses }
    }

    fn hear(&self, asked: Vec<AskedOrphan>) -> bool {
        let mut any = false;
        let mut active = None;
        for (id, answer) in asked {
            // The engine always answers.
            let answer = answer.recv().unwrap_or(RequestResult::TimedOut);
            any |= self.proven(&id, &answer, &mut active);
        }
        any
    }

    /// What follows from the drives' answer. Returns whether it was a clear one. `active`: what is
    /// active, once it was looked up.
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
                if *mode != orphan.saved.mode() {
                    let convert = Request::Convert { mode: orphan.saved.mode(), value: None };
                    // It ends in the background where drives do not answer.
                    drop(self.runtime.begin(orphan.spec.clone(), convert));
                }
                true
            }
            RequestResult::Done(Outcome::Refused(
                Refusal::NothingToAdopt | Refusal::OtherMode(_),
            )) => {
                if self.is_in_use(orphan, active) {
                    orphan.phase = Phase::Lost;
                    self.alarm(orphan, "its drives say that it is not this host's any more", None);
                } else {
                    log::info!("{spec}: an earlier lvmlockd asked for it; nothing uses it");
                    orphan.set_in_danger(false);
                    self.store.forget_lock(id);
                    // The engine leaves a minority's records until it is told so.
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
                    RequestResult::Done(Outcome::Refused(refusal)) => refusal.to_string(),
                    _ => "they could not be asked".to_owned(),
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

    /// What the drives last said of an orphan that is not proven, and those that say nothing.
    pub(super) fn doubt(&self, orphan: &Orphan) -> String {
        let members = self.members_of(&orphan.saved);
        let slow = self.runtime.drives().slow(clock::now());
        let silent = members.iter().filter(|member| slow.contains(&member.drive));
        let silent: Vec<String> =
            silent.map(|member| self.runtime.drives().name(member.drive)).collect();
        let doubt = if orphan.doubt.is_empty() { "they are being asked" } else { &orphan.doubt };
        if silent.is_empty() {
            return doubt.to_owned();
        }
        format!(
            "{doubt}; of its {} drives these do not answer: {}",
            members.len(),
            silent.join(", ")
        )
    }

    /// The drives of a noted lock. A path that leads to another drive now is not one of them.
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
