//! Acquiring the lock.

use super::{Acquiring, Distrust, Held, Lock, Phase, Stage};
use crate::api::{Event, Instant, Notice, Outcome, Refusal, ValueRead};
use crate::reading;
use crate::replica::{Clean, Hold, Look, Replica, Role, Step, Task, Vote};
use crate::rules::broken;
use core::time::Duration;
use idm_protocol::{Mode, Value};

/// The number of attempts of a request that splits the drives with another host's.
const ATTEMPTS: u32 = 6;

impl Lock {
    pub(super) fn conclude_acquire(&mut self, acquiring: &Acquiring, now: Instant) {
        let Acquiring { mode, deadline, attempt, stage } = *acquiring;
        if let Stage::BackingOff(until) = stage {
            if now >= until {
                let acquiring =
                    Acquiring { stage: Stage::Voting, attempt: attempt + 1, ..*acquiring };
                self.phase = Phase::Acquiring(acquiring);
                self.ask_members(mode, now);
            }
            // A host that stood still in the meantime may have no time left for another attempt.
            if now < deadline {
                return;
            }
        }
        let tally = self.tally(mode, deadline, now);
        let majority = tally.won >= tally.needed;
        let over = now >= deadline;
        if tally.foreign() && !(majority && broken!(self.rules, Fingerprint)) {
            return self.refuse(tally.refusal(), now);
        }
        if !majority {
            if over || tally.won + tally.asking < tally.needed {
                if !over && attempt < ATTEMPTS && tally.split() {
                    return self.back_off(acquiring, tally.refusal(), now);
                }
                return self.refuse(tally.refusal(), now);
            }
            // Others are read after the writing, so what was read before another try is void.
            self.phase = Phase::Acquiring(Acquiring { stage: Stage::Voting, ..*acquiring });
            return;
        }
        self.ask_values(now);
        let (stage, confirmed) = self.confirm(stage, mode, deadline, now);
        self.phase = Phase::Acquiring(Acquiring { stage, ..*acquiring });
        match confirmed {
            None => {}
            Some(Err(refusal)) => self.refuse(refusal, now),
            Some(Ok(())) if stage.is_late(now) || self.values_read(tally.needed) => {
                self.grant(mode, tally.needed, now);
            }
            Some(Ok(())) => {}
        }
    }

    /// Asks every drive that was won for the value.
    pub(super) fn ask_values(&mut self, now: Instant) {
        if !self.config.keeps_value {
            return;
        }
        for replica in self.replicas.iter_mut().filter(|s| s.role == Role::Member) {
            let Task::Take(take) = &mut replica.task else {
                continue;
            };
            if take.vote == Vote::Won && !take.value_asked {
                take.value_asked = true;
                replica.plan(Step::Look(Look::Value), now);
            }
        }
    }

    /// Whether no more values are needed or possible.
    pub(super) fn values_read(&self, needed: usize) -> bool {
        let read = self.members().filter(|s| s.value.is_some_and(|v| v != Value::ZERO)).count();
        let waiting = self.members().any(|s| {
            let asked = matches!(&s.task, Task::Take(take) if take.value_asked);
            asked && s.value.is_none() && (s.plan.is_some() || s.flight.is_some())
        });
        !self.config.keeps_value || read >= needed || !waiting
    }

    /// The result of the values that were read.
    pub(super) fn value_read(&self, mode: Mode, needed: usize) -> ValueRead {
        let needed = if broken!(self.rules, ValueQuorum) { 1 } else { needed };
        if self.distrust != Distrust::None {
            return ValueRead::Unknown;
        }
        let counted = self.members().filter(|s| self.counts(s, mode));
        reading::confirmed(counted.filter_map(|s| s.value), needed)
    }

    /// Completes the acquisition: the lock is held.
    pub(super) fn grant(&mut self, mode: Mode, needed: usize, now: Instant) {
        let value = self.value_read(mode, needed);
        if let ValueRead::Known(known) = value {
            // Some firmware says GOOD to an UNLOCK and stores nothing, so the last holder could not
            // know that too few drives have its value. They get it when the lock is given back.
            let has = |s: &&Replica| self.counts(s, mode) && s.value == Some(known);
            if self.members().filter(has).count() < needed {
                self.pending = Some(known);
                for replica in &mut self.replicas {
                    replica.disproved |= replica.value.is_some_and(|value| value != known);
                }
            }
        }
        let copies = || self.members().any(|s| s.value.is_some_and(|v| v != Value::ZERO));
        if value == ValueRead::Unknown && self.distrust == Distrust::None && copies() {
            // The writer of the value will not publish it again, and with another drive's copy the
            // value could look complete later.
            self.distrust = Distrust::Died;
        }
        let read = self.members().filter(|s| s.value.is_some()).count();
        if mode == Mode::Shared && read < needed {
            // Others may share the lock, too.
            self.distrust = self.distrust.max(Distrust::Shared);
        }
        self.phase = Phase::Held(Held::new(mode));
        self.settle_replicas(now);
        self.finish(Outcome::Granted(value));
    }

    /// Settles the replicas after a request: won drives are kept, the others are tried again later,
    /// or at once for the mode that a refused change leaves.
    pub(super) fn settle_replicas(&mut self, now: Instant) {
        let goal = self.goal();
        for at in 0..self.replicas.len() {
            let replica = &self.replicas[at];
            let adds = replica.is_enlarging();
            match (replica.role, replica.hold) {
                (Role::Former, _) => {}
                // A late drive: its answer is still welcome.
                _ if adds && replica.takes(goal) && replica.vote() == Some(&Vote::Asking) => {}
                (role, Hold::Held { mode, since }) => {
                    if role == Role::Witness {
                        self.replicas[at].role = Role::Extra;
                    }
                    let replica = &self.replicas[at];
                    let counts = replica.is_marked(self.set) || self.is_left(replica);
                    if counts || self.needs_record(at, now) {
                        self.keep(at, mode, since, now);
                    } else {
                        // This host wrote its record while it counted other drives: the drive is
                        // taken anew.
                        self.retake(at, now);
                    }
                }
                (Role::Witness, hold) if hold != Hold::None || replica.is_being_written() => {
                    // A record may be there, or may come, which nobody else removes.
                    self.replicas[at].role = Role::Extra;
                    self.retake(at, now);
                }
                (Role::Witness, _) => self.replicas[at].assign(Task::Idle),
                (Role::Member | Role::Extra, _) => {
                    // A drive that was asked for a stronger mode than the lock has now may grant
                    // this one.
                    let again = adds && !replica.takes(goal);
                    let pause = if again { Duration::ZERO } else { self.config.timing.renew };
                    self.retake(at, now + pause);
                }
            }
        }
    }

    /// Refuses the request and gives every drive back.
    pub(super) fn refuse(&mut self, refusal: Refusal, now: Instant) {
        self.phase = Phase::Free;
        self.give_back(None, now);
        self.finish(Outcome::Refused(refusal));
    }

    /// Gives way to another host, and tries again a little later if there is time.
    pub(super) fn back_off(&mut self, acquiring: &Acquiring, refusal: Refusal, now: Instant) {
        let mean = self.config.timing.backoff * 2u32.pow(acquiring.attempt);
        let until = now + self.rng.between(mean / 4, mean);
        if until >= acquiring.deadline {
            return self.refuse(refusal, now);
        }
        self.events.push_back(Event::Notice(Notice::SplitVote));
        self.phase = Phase::Acquiring(Acquiring { stage: Stage::BackingOff(until), ..*acquiring });
        // This host needs the mutex again in a moment, so it does not destroy it.
        let worthless = self.distrust == Distrust::Died;
        let clean = Clean { worthless, ..self.clean_up(None) };
        self.clean_all(&clean, now);
    }
}
