//! Events of a lock's engine: the end of a request, the loss of a lock, and notices for the log.

use super::Reactor;
use super::entry::{Entry, PendingKind, demote, release};
use crate::lock::{RequestResult, Role};
use crate::metrics::LossKind;
use crate::runtime::refusal;
use crate::words::{list, plural};
use idm_engine::{DriveRef, Event, Instant, Loss, Member, Notice, Outcome};
use idm_protocol::Mode;

impl Reactor {
    pub(super) fn on_event(&mut self, entry: &mut Entry, event: Event, now: Instant) {
        let spec = &entry.spec;
        match event {
            Event::Done(outcome) => self.on_done(entry, outcome, now),
            Event::Lapsed => {
                let why = format!(
                    "the lease of {spec} has run out; {}",
                    self.silent_of(&entry.members, now)
                );
                self.lost(entry, why, LossKind::Lapsed);
            }
            Event::Regained => {
                self.metrics.regained();
                log::warn!(
                    "{spec}: held again, no other host had taken it after its lease had run out"
                );
                entry.set_alarmed(false);
            }
            Event::Lost(loss) => {
                let why = match &loss {
                    Loss::Taken => format!(
                        "{spec} is lost: taken over by another host, or reset, on {}",
                        self.names(&entry.lost_on)
                    ),
                    Loss::OtherSet(conflict) => format!(
                        "{spec} is lost: host {} holds it on other drives ({})",
                        conflict.host,
                        self.drives.name(conflict.drive)
                    ),
                };
                self.lost(entry, why, (&loss).into());
                if entry.joined {
                    entry.waiting.push_back(release());
                    entry.rejoin();
                }
            }
            Event::VotesReady { members } => {
                entry.ready = Some(members);
                if let Some(votes) = &self.settings.votes {
                    // After the manager's end there is no receiver.
                    let _ = votes.send(entry.spec.resource);
                }
            }
            Event::Notice(notice) => self.on_notice(entry, notice, now),
        }
    }

    fn on_done(&mut self, entry: &mut Entry, outcome: Outcome, now: Instant) {
        let Some(mut pending) = entry.current.take() else {
            return;
        };
        match &outcome {
            Outcome::Granted(_) | Outcome::Adopted(_) => {
                // A lock that an earlier lvmlockd left may be in use. So it is not given back only
                // because no caller waits for the answer.
                let adopted = matches!(outcome, Outcome::Adopted(_));
                entry.granted = (!adopted).then_some(pending.id);
                entry.set_alarmed(false);
                let ends = entry.waiting.iter().any(|(_, it)| it.kind == PendingKind::Release);
                entry.joined = entry.spec.role == Role::Membership && !ends;
                let unwanted = pending.abandoned && !adopted;
                // A lock whose release was requested meanwhile protects nothing any more.
                entry.set_in_use(!unwanted && !ends);
                if unwanted {
                    log::warn!("{}: granted too late, releasing it", entry.spec);
                    entry.waiting.push_front(release());
                }
            }
            Outcome::Converted { complete } => {
                if pending.abandoned && pending.kind == PendingKind::Convert(Mode::Exclusive) {
                    log::warn!("{}: converted too late, undoing it", entry.spec);
                    entry.waiting.push_front(demote());
                }
                if !complete {
                    log::info!(
                        "{}: shared for this host, other hosts have to wait for some drives",
                        entry.spec
                    );
                }
            }
            Outcome::Released => {
                entry.granted = None;
                entry.settle(pending);
                return;
            }
            Outcome::Refused(_) => {}
        }
        let answer = match outcome {
            Outcome::Refused(refusal) => match entry.refused(refusal, now) {
                Some(refused) => RequestResult::Refused(refused),
                None => RequestResult::Failed(format!("{}: refused", entry.spec)),
            },
            outcome => RequestResult::Done(outcome),
        };
        entry.heard = None;
        if let (RequestResult::Refused(refused), PendingKind::Acquire, true) =
            (&answer, pending.kind, entry.joined)
        {
            let why = refusal::text(&self.drives, &entry.spec, refused, now);
            log::warn!("{why}; trying again");
            entry.rejoin_at = Some(now + self.settings.timing.renew);
        }
        pending.answer(answer);
    }

    fn on_notice(&mut self, entry: &mut Entry, notice: Notice, now: Instant) {
        self.metrics.noticed(&notice);
        let spec = &entry.spec;
        match notice {
            Notice::Broke { hosts, drive } => {
                let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
                let text = format!(
                    "{spec}: took over on {} what host {} did not renew; see that this host is \
                     stopped",
                    self.drives.name(drive),
                    hosts.join(", ")
                );
                self.drives.warn(drive, text);
            }
            Notice::TookOverOwn { drive } => log::info!(
                "{spec}: took over on {} the record that this host had left there",
                self.drives.name(drive)
            ),
            Notice::DriveLost { drive } => {
                if !entry.lost_on.contains(&drive) {
                    entry.lost_on.push(drive);
                }
                // A drive that was reset has lost all of its locks: only the first one is logged.
                let told = self.told.insert(drive, now);
                let news = told.is_none_or(|told| now.since(told) > self.settings.timing.lease);
                let why = format!(
                    "{spec}: no longer held on {}, which was reset or gave it to another host",
                    self.drives.name(drive)
                );
                if news {
                    let text = format!(
                        "{why}; other locks may be, too. It is taken again there if enough drives \
                         still have it; see the kernel's log for a reset"
                    );
                    self.drives.warn(drive, text);
                } else {
                    log::debug!("{why}");
                }
            }
            Notice::DriveGained { drive } => {
                // For a lock that has just been taken, the last drives often answer later.
                if let Some(at) = entry.lost_on.iter().position(|&lost| lost == drive) {
                    entry.lost_on.swap_remove(at);
                    log::debug!("{spec}: held on {} again", self.drives.name(drive));
                }
            }
            Notice::SplitVote => {
                log::debug!("{spec}: another host got as many drives, trying again");
            }
            Notice::Collected { resource, drive } => log::info!(
                "removed the unused mutex {resource} from the full table of {}",
                self.drives.name(drive)
            ),
            Notice::NotIdm { drive } => self.drives.say_no_idm(drive),
        }
    }

    pub(super) fn names_of(&self, members: &[Member]) -> String {
        self.names(&members.iter().map(|member| member.drive).collect::<Vec<_>>())
    }

    fn names(&self, drives: &[DriveRef]) -> String {
        let names: Vec<String> = drives.iter().map(|&drive| self.drives.name(drive)).collect();
        names.join(", ")
    }

    /// The names of those of these drives that do not answer now.
    pub(super) fn silent_of(&self, members: &[Member], now: Instant) -> String {
        let slow = self.drives.slow(now);
        let silent = members.iter().map(|member| member.drive).filter(|it| slow.contains(it));
        let words = |drive| match self.drives.trouble(drive) {
            Some(trouble) => format!("{}: {trouble}", self.drives.name(drive)),
            None => self.drives.name(drive),
        };
        let silent = list(silent.map(words).collect());
        let (all, noun) = (members.len(), plural(members.len(), "drive"));
        match silent.is_empty() {
            true => format!("all of its {all} {noun} answer again"),
            false => format!("of its {all} {noun} these do not answer: {silent}"),
        }
    }
}
