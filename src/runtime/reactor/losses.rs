//! Locks that are lost or about to be: the alarm to their owner, and the kill command.

use super::Reactor;
use super::entry::Entry;
use super::message::{LockFailure, Message};
use crate::fencing::kill::{self, Killing};
use crate::lock::{Owner, Role};
use crate::metrics::LossKind;
use crate::sys::clock;
use crate::sys::sync::planted;
use crate::sys::thread::panic_text;
use idm_engine::{Instant, Member};
use std::any::Any;
use std::sync::Arc;

impl Reactor {
    /// Warns a lock's owner, when it is due, that the lock cannot be kept.
    pub(super) fn alarm(&mut self, entry: &mut Entry, now: Instant) {
        if self.alarm_at(entry).is_none_or(|at| at > now) {
            return;
        }
        entry.set_alarmed(true);
        let until = entry.safe_until().unwrap_or(now);
        // The drives that do not answer may be new ones of its VG.
        let moves = self.moving.drives(&entry.spec.resource).iter();
        let others = moves.filter(|it| !entry.members.contains(it));
        let drives: Vec<Member> = entry.members.iter().chain(others).cloned().collect();
        let why = format!(
            "{} could not be renewed on enough drives and may be lost in {} ms; {}",
            entry.spec,
            until.since(now).as_millis(),
            self.silent_of(&drives, now)
        );
        let owner = entry.spec.owner.clone();
        self.failures.push(LockFailure { owner, why, until: Some(until) });
    }

    /// The time at which the owner of a lock has to be warned that it cannot be kept.
    pub(super) fn alarm_at(&self, entry: &Entry) -> Option<Instant> {
        if entry.is_alarmed() || !entry.is_in_use() || entry.spec.role == Role::Membership {
            return None;
        }
        entry.engine.as_ref()?.mode()?;
        Some(entry.safe_until()? - self.settings.fencing.margin)
    }

    pub(super) fn lost(&mut self, entry: &mut Entry, why: String, kind: LossKind) {
        self.metrics.lost(kind);
        if entry.spec.role == Role::Membership {
            log::warn!(
                "{why}; other hosts may not see that this one uses the volume group. See the \
                 kernel's log, and bring back the drives"
            );
            return;
        }
        entry.set_alarmed(true);
        self.failures.push(LockFailure { owner: entry.spec.owner.clone(), why, until: None });
    }

    /// Handles a lock whose engine panicked. Its state is not known, so it is neither granted nor
    /// freed until every lease that it may have has run out and every command has reached its
    /// drive.
    pub(super) fn condemn(&mut self, entry: &mut Entry, panic: &(dyn Any + Send)) {
        let why = format!("internal error in {}: {}", entry.spec, panic_text(panic));
        log::error!("{why}");
        entry.engine = None;
        let timing = &self.settings.timing;
        entry.forget_at = Some(clock::now() + timing.lease + timing.linger);
        self.lost(entry, why, LossKind::Internal);
    }

    /// Handles a lockspace that has lost or is about to lose a lock: its VG must not be used any
    /// longer. The kill command is run once per danger. A danger ends when all locks are safe again
    /// or given back; the next one runs the command again.
    pub(super) fn fail(&mut self, failure: LockFailure) {
        let LockFailure { owner, why, until } = failure;
        let Some(vg) = owner.kill.clone() else {
            log::error!("{why}; commands that run under it must be repeated");
            return;
        };
        if !owner.set_killed() {
            // The volume group is logged already; this line comes once per lock.
            log::debug!("{why}");
            return;
        }
        let mut words = (self.settings.kill_command)();
        words.push(vg.clone());
        let before = self.killings.iter().position(|(it, _)| Arc::ptr_eq(it, &owner));
        let before = before.map(|at| self.killings.swap_remove(at).1);
        let runs = before.is_some_and(|killing| killing.runs());
        if !runs {
            // Done before anything is logged: the log may be slow.
            self.kill(owner.clone(), words.clone());
        }
        log::error!(
            "{why}. Volume group {vg} gets no new locks; running \"{}\". Start it again with \
             \"vgchange --lockstart {vg}\" after \"lvmlockctl --drop {vg}\", when its drives \
             answer",
            words.join(" ")
        );
        // Core can process kill and drop only while no lock call blocks it.
        for entry in self.locks.values_mut() {
            entry.refuse_more();
        }
        self.moving.give_up(&owner);
        self.give_up_membership(&owner);
        self.metrics.killed();
        let (fencing, in_use) = (&self.settings.fencing, owner.in_use());
        let killing = Killing::new(&vg, &words, fencing, until, in_use, clock::now());
        self.killings.push((owner, killing));
    }

    /// Runs the kill command.
    fn kill(&self, owner: Arc<Owner>, words: Vec<String>) {
        let (mailbox, killed) = (self.mailbox.clone(), owner.clone());
        let run = kill::run(words, move |ended| {
            // After the reactor's end there is no receiver.
            let message = Message::KillEnded { owner: killed, ended };
            let _ =
                if planted!(KillEndLeft) { mailbox.leave(message) } else { mailbox.send(message) };
        });
        if let Err(error) = run {
            let ended = kill::Ended::NotBegun(error);
            self.mailbox.send(Message::KillEnded { owner, ended });
        }
    }

    /// Handles the end of the kill command for a lockspace.
    pub(super) fn kill_ended(&mut self, owner: &Arc<Owner>, ended: &kill::Ended) {
        let killing = self.killings.iter_mut().find(|(it, _)| Arc::ptr_eq(it, owner));
        let note = killing.and_then(|(_, killing)| killing.ended(ended, clock::now()));
        note.into_iter().for_each(|note| note.log());
    }

    /// Logs reminders for lockspaces that lost their locks and still have some in use, and repeats
    /// kill commands that are due.
    pub(super) fn remind(&mut self, now: Instant) {
        let mut again = Vec::new();
        self.killings.retain_mut(|(owner, killing)| {
            if let Some(note) = killing.remind(owner.in_use(), now) {
                note.log();
            }
            if killing.is_over() {
                return false;
            }
            let words = killing.begin_again(owner.is_in_danger(), now);
            again.extend(words.map(|words| (owner.clone(), words)));
            true
        });
        again.into_iter().for_each(|(owner, words)| self.kill(owner, words));
    }
}
