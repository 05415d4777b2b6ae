//! Commands out, replies in.

use super::{Distrust, Lock};
use crate::api::{DriveRef, Event, Instant, Notice};
use crate::replica::{Flight, Heard, Hold, Look, Replica, Role, Step, Task, Vote};
use crate::stamp::{CLEARING, Stamp};
use crate::take::TakeContext;
use crate::view::{View, unused};
use alloc::vec::Vec;
use idm_protocol::{
    Class, DriveCommand, HostId, Mode, MutexOp, Record, Reply, State, Status, Value, ValueUpdate,
};

/// The lease for a mutex that is taken only to be removed.
const CLEARING_LEASE_MS: u64 = 1000;
/// Length of a host id's random half, in bytes.
const RANDOM_HALF: usize = 16;

/// The name under which a host takes a mutex only to remove it. No holder has this name. So this
/// host's lock of the mutex, which does not know of the removal, does not mistake the record for
/// its own. The half with the host's name stays, for readers of the table.
fn clearing_name(host: HostId) -> HostId {
    let mut bytes = *host.as_bytes();
    bytes[..RANDOM_HALF].iter_mut().for_each(|byte| *byte = !*byte);
    HostId::from_bytes(bytes)
}

impl Lock {
    pub(super) fn encode(&self, step: Step, replica: &Replica) -> DriveCommand {
        let (op, mode, resource) = match step {
            Step::Look(_) => return DriveCommand::ReadTable,
            Step::Try(mode) => (MutexOp::Trylock, mode, self.config.resource),
            Step::Refresh(mode) => (MutexOp::Refresh, mode, self.config.resource),
            Step::Break(mode) => (MutexOp::Break, mode, self.config.resource),
            Step::Unlock(mode) => (MutexOp::Unlock, mode, self.config.resource),
            Step::Destroy => (MutexOp::Destroy, Mode::Exclusive, self.config.resource),
            Step::ClearTry(id) => (MutexOp::Trylock, Mode::Exclusive, id),
            Step::ClearBreak(id) => (MutexOp::Break, Mode::Exclusive, id),
            Step::ClearUnlock(id) => (MutexOp::Unlock, Mode::Exclusive, id),
            Step::ClearDestroy(id) => (MutexOp::Destroy, Mode::Exclusive, id),
        };
        let countdown_ms = match step {
            Step::Try(_) | Step::Refresh(_) | Step::Break(_) => {
                self.config.timing.lease.as_millis() as u64
            }
            Step::ClearTry(_) | Step::ClearBreak(_) => CLEARING_LEASE_MS,
            _ => 0,
        };
        let store = match (step, &replica.task) {
            (Step::Unlock(_), Task::Clean(clean)) => clean.store,
            _ => None,
        };
        let stamp = self.stamp_for(step, replica);
        let ours = resource == self.config.resource;
        let record = Record {
            state: State::Uninitialized,
            modified_ms: 0,
            countdown_ms,
            class: Class::from(mode),
            value_update: if store.is_some() { ValueUpdate::Store } else { ValueUpdate::Keep },
            value: store.unwrap_or(Value::ZERO),
            resource,
            metadata: if ours { stamp.to_metadata() } else { CLEARING },
            host: if ours { self.config.host } else { clearing_name(self.config.host) },
        };
        DriveCommand::Mutex(op, record)
    }

    /// The stamp that a command writes into this host's record.
    pub(super) fn stamp_for(&self, step: Step, replica: &Replica) -> Stamp {
        match (step, &replica.task) {
            (Step::Refresh(_), Task::Take(take)) => take.own_stamp.unwrap_or(self.stamp),
            _ => self.stamp,
        }
    }

    /// A reply in the engine's own terms. An answer of the wrong kind makes no sense.
    pub(super) fn hear(&self, flight: &Flight, reply: Reply, drive: DriveRef) -> Heard {
        match (flight.step, reply) {
            (Step::Look(look), Reply::Table(table)) => {
                let me = self.config.host;
                let stamps = (self.stamp, self.set);
                let view = View::of(&table, self.config.resource, me, stamps, drive);
                let unused = match look {
                    Look::Room => unused(&table, self.config.resource),
                    Look::Holders | Look::Value => Vec::new(),
                };
                Heard::Table(view, unused)
            }
            (Step::Look(_), Reply::Status(Status::Good)) | (_, Reply::Table(_)) => {
                Heard::Status(Status::Failed)
            }
            (_, Reply::Status(status)) => Heard::Status(status),
        }
    }

    pub(super) fn note_not_idm(&mut self, at: usize, heard: &Heard) {
        let replica = &mut self.replicas[at];
        if *heard == Heard::Status(Status::Unsupported) && !replica.not_idm {
            replica.not_idm = true;
            self.events.push_back(Event::Notice(Notice::NotIdm { drive: replica.drive }));
        }
    }

    /// Acts on a reply to the replica's present task.
    pub(super) fn advance(&mut self, at: usize, flight: &Flight, heard: Heard, now: Instant) {
        let mut notices = Vec::new();
        let mut shared = false;
        let replica = &mut self.replicas[at];
        let takes = matches!(replica.task, Task::Take(_));
        let adds = replica.is_enlarging() && self.phase.is_held();
        match replica.task {
            Task::Idle | Task::Leave => {}
            Task::Keep => self.advance_keep(at, &heard, now),
            Task::Clean(ref clean) => {
                let status = match heard {
                    Heard::Status(status) => status,
                    Heard::Table(..) => Status::Failed,
                };
                // Some firmware answers GOOD to the UNLOCK of a mutex that is not held, and
                // stores nothing. A drive that gets a value other than zero was held; one that
                // gets zero may not have been.
                let surely = |value: Value| flight.held || value != Value::ZERO;
                let stores =
                    flight.step == Step::Unlock(Mode::Exclusive) && clean.store.is_some_and(surely);
                if stores && replica.role == Role::Member && status == Status::Good {
                    self.owed = self.owed.saturating_sub(1);
                }
                replica.advance_clean(flight.step, status, now, &self.config.timing);
            }
            Task::Take(_) => {
                let looked = flight.step == Step::Look(Look::Holders);
                let read = looked && matches!(heard, Heard::Table(..)) && self.config.keeps_value;
                if read && !self.known.contains(&replica.drive) {
                    self.known.push(replica.drive);
                }
                let set = self.named_on(&self.replicas[at]);
                let replica = &mut self.replicas[at];
                let mut cx = TakeContext {
                    now,
                    timing: &self.config.timing,
                    rules: self.rules,
                    set,
                    rng: &mut self.rng,
                    notices: &mut notices,
                    shared: &mut shared,
                };
                replica.advance_take(flight.step, heard, &mut cx);
            }
        }
        self.events.extend(notices.into_iter().map(Event::Notice));
        if shared {
            self.distrust = self.distrust.max(Distrust::Shared);
        }
        // The old value of a drive that only adds to a held lock does not matter to the others.
        if self.replicas[at].stale_value && takes && !adds {
            self.distrust = Distrust::Died;
        }
    }

    /// Acts on a reply to a command of an earlier task: only the facts have changed.
    pub(super) fn review(&mut self, at: usize, heard: &Heard, now: Instant) {
        let goal = self.goal();
        let adds = self.phase.is_held() && self.replicas[at].is_enlarging();
        let replica = &mut self.replicas[at];
        if let Heard::Table(view, _) = heard {
            // No task judges this table any more. Its holders are in the way of the new task, too.
            replica.contested = !view.live_against(goal).is_empty();
        }
        match (&replica.task, replica.hold) {
            // An earlier attempt has won the drive.
            (Task::Take(take), Hold::Held { mode, .. })
                if adds && take.mode <= mode && replica.is_marked(self.set) =>
            {
                replica.close(Vote::Won);
            }
            (Task::Clean(_), _) => replica.plan_clean(now),
            (Task::Keep, Hold::None) => self.lost_drive(at, heard, now),
            (Task::Keep, Hold::Held { mode, .. }) if mode != goal => {
                replica.plan(Step::Refresh(goal), now);
            }
            _ => {}
        }
    }
}
