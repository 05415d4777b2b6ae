//! A host that runs the older stack: the second kind of actor.
//!
//! It speaks the protocol in the older way. It uses no fingerprint (its metadata is zero), sends
//! TRYLOCK and after a conflict BREAK at once, refreshes every drive each second, and gives up with
//! UNLOCK and then DESTROY. It has no defect of the older stack that breaks mutual exclusion among
//! hosts of its own kind. It counts a majority of the drives both to get and to keep the lock, and
//! begins its lease before a command. It sends a drive nothing while a command of unknown fate may
//! still reach it.
//!
//! It has the functions of [`idm_engine::Lock`], so that the world treats both alike.

use core::time::Duration;
use idm_engine::{DriveRef, Instant, Timing};
use idm_protocol::{
    Class, DriveCommand, HostId, Mode, MutexOp, Record, Reply, ResourceId, State, Status, Value,
    ValueUpdate,
};

/// A report from an [`OldLock`] to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldEvent {
    /// The lock is held.
    Granted,
    /// The lock is not held.
    Refused,
    /// Too few drives were refreshed in time: the lock was given up.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    Send(MutexOp),
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    drive: DriveRef,
    want: Want,
    /// The operation under way, and the moment when it was sent.
    sent: Option<(MutexOp, Instant)>,
    /// The moment when the last command that got the lease was sent.
    dated: Option<Instant>,
    /// The moment until which a command of unknown fate may still reach the drive.
    closed_until: Instant,
    answered: bool,
    refresh_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Acquiring(Mode, Instant),
    Holding(Mode),
}

/// One older host's side of one lock.
#[derive(Debug)]
pub struct OldLock {
    resource: ResourceId,
    host: HostId,
    timing: Timing,
    phase: Phase,
    class: Class,
    value: Option<Value>,
    votes: Vec<Vote>,
    events: Vec<OldEvent>,
}

impl OldLock {
    /// A lock that is not held, over `drives`.
    pub fn new(
        resource: ResourceId,
        host: HostId,
        timing: Timing,
        drives: impl Iterator<Item = DriveRef>,
    ) -> OldLock {
        let never = Instant::default();
        OldLock {
            resource,
            host,
            timing,
            phase: Phase::Idle,
            class: Class::Exclusive,
            value: None,
            votes: drives
                .map(|drive| Vote {
                    drive,
                    want: Want::Nothing,
                    sent: None,
                    dated: None,
                    closed_until: never,
                    answered: false,
                    refresh_at: never,
                })
                .collect(),
            events: Vec::new(),
        }
    }

    fn majority(&self) -> usize {
        self.votes.len() / 2 + 1
    }

    fn refresh_period(&self) -> Duration {
        Duration::from_secs(1).min(self.timing.lease / 8)
    }

    /// Takes the lock. Allowed while it is not held and no work is left.
    pub fn acquire(&mut self, mode: Mode, now: Instant) {
        self.phase = Phase::Acquiring(mode, now);
        self.class = mode.into();
        for vote in &mut self.votes {
            vote.want = Want::Send(MutexOp::Trylock);
            vote.answered = false;
            vote.dated = None;
        }
    }

    /// Gives the lock up, and leaves a value with its UNLOCK.
    pub fn release(&mut self, value: Option<Value>) {
        self.value = value;
        self.phase = Phase::Idle;
        for vote in &mut self.votes {
            vote.want = if vote.dated.is_some() || vote.sent.is_some() {
                Want::Send(MutexOp::Unlock)
            } else {
                Want::Nothing
            };
            vote.dated = None;
        }
    }

    /// Takes in the reply to the command that was sent to `drive`.
    pub fn on_reply(&mut self, drive: DriveRef, reply: &Reply, now: Instant) {
        let Some(vote) = self.votes.iter_mut().find(|v| v.drive == drive) else {
            return;
        };
        let Some((op, sent)) = vote.sent.take() else {
            return;
        };
        let status = match reply {
            Reply::Status(status) => *status,
            Reply::Table(_) => Status::Failed,
        };
        if matches!(status, Status::Uncertain | Status::Failed) {
            vote.closed_until = sent + self.timing.linger;
        }
        match self.phase {
            Phase::Acquiring(..) => {
                match (op, status) {
                    (MutexOp::Trylock | MutexOp::Break, Status::Good) => vote.dated = Some(sent),
                    (MutexOp::Trylock, Status::Conflict) => {
                        vote.want = Want::Send(MutexOp::Break);
                        return;
                    }
                    _ => (),
                }
                vote.refresh_at = sent + self.timing.lease.min(Duration::from_secs(1));
                vote.answered = true;
                self.count(now);
            }
            Phase::Holding(_) => match (op, status) {
                (_, Status::Good) => vote.dated = Some(sent),
                (_, Status::Conflict | Status::NotFound | Status::Terminated) => vote.dated = None,
                _ => (),
            },
            Phase::Idle => match (op, status) {
                (MutexOp::Unlock, Status::Good) => vote.want = Want::Send(MutexOp::Destroy),
                // A lease whose UNLOCK the drive refuses is left to expire.
                (
                    MutexOp::Unlock,
                    Status::Conflict
                    | Status::NotFound
                    | Status::WrongState
                    | Status::Terminated
                    | Status::Unsupported,
                )
                | (MutexOp::Destroy, _) => vote.want = Want::Nothing,
                // An answer to a command from before the release, or an unclear one.
                _ => {
                    vote.want = Want::Send(MutexOp::Unlock);
                    vote.closed_until = vote.closed_until.max(now + Duration::from_secs(1));
                }
            },
        }
    }

    /// Ends an acquire if all drives have answered, or if its time is over.
    fn count(&mut self, now: Instant) {
        let Phase::Acquiring(mode, since) = self.phase else {
            return;
        };
        let late = now >= since + self.timing.patience;
        if !late && !self.votes.iter().all(|v| v.answered) {
            return;
        }
        let granted = self.votes.iter().filter(|v| v.dated.is_some()).count();
        self.phase = Phase::Holding(mode);
        if granted >= self.majority() && self.safe_until().is_some_and(|end| now < end) {
            self.events.push(OldEvent::Granted);
            for vote in &mut self.votes {
                vote.want = Want::Nothing;
            }
        } else {
            self.release(None);
            self.events.push(OldEvent::Refused);
        }
    }

    /// Does everything that is due.
    pub fn on_timer(&mut self, now: Instant) {
        self.count(now);
        let Phase::Holding(_) = self.phase else {
            return;
        };
        if self.safe_until().is_none_or(|end| now >= end) {
            self.release(None);
            self.events.push(OldEvent::Lost);
            return;
        }
        let period = self.refresh_period();
        for vote in &mut self.votes {
            if vote.dated.is_some() && now >= vote.refresh_at {
                vote.refresh_at = now + period;
                vote.want = Want::Send(MutexOp::Refresh);
            }
        }
    }

    /// The next command to send.
    pub fn next_command(&mut self, now: Instant) -> Option<(DriveRef, DriveCommand)> {
        let vote = self
            .votes
            .iter_mut()
            .find(|v| v.want != Want::Nothing && v.sent.is_none() && now >= v.closed_until)?;
        let Want::Send(op) = vote.want else {
            return None;
        };
        vote.want = Want::Nothing;
        vote.sent = Some((op, now));
        let stored = self.value.filter(|_| op == MutexOp::Unlock);
        let record = Record {
            state: State::Uninitialized,
            modified_ms: now.as_micros() / 1000,
            countdown_ms: self.timing.lease.as_millis() as u64,
            class: self.class,
            value_update: match stored {
                Some(_) => ValueUpdate::Store,
                None => ValueUpdate::Keep,
            },
            value: stored.unwrap_or(Value::ZERO),
            resource: self.resource,
            metadata: [0; 64],
            host: self.host,
        };
        Some((vote.drive, DriveCommand::Mutex(op, record)))
    }

    /// The moment when [`OldLock::on_timer`] must be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let opening = self
            .votes
            .iter()
            .filter(|v| v.want != Want::Nothing && v.sent.is_none())
            .map(|v| v.closed_until)
            .min();
        let phase = match self.phase {
            Phase::Idle => None,
            Phase::Acquiring(_, since) => Some(since + self.timing.patience),
            Phase::Holding(_) => self
                .votes
                .iter()
                .filter(|v| v.dated.is_some() && v.want == Want::Nothing)
                .map(|v| v.refresh_at)
                .chain(self.safe_until())
                .min(),
        };
        opening.into_iter().chain(phase).min()
    }

    /// The oldest event that the caller has not taken yet.
    pub fn next_event(&mut self) -> Option<OldEvent> {
        if self.events.is_empty() { None } else { Some(self.events.remove(0)) }
    }

    /// The mode in which the lock is held.
    pub fn mode(&self) -> Option<Mode> {
        match self.phase {
            Phase::Holding(mode) => Some(mode),
            _ => None,
        }
    }

    /// The moment until which the lock is safe: until then the leases of a majority run.
    pub fn safe_until(&self) -> Option<Instant> {
        self.mode()?;
        let mut dates: [Instant; 16] = [Instant::default(); 16];
        let mut count = 0;
        for dated in self.votes.iter().filter_map(|v| v.dated) {
            dates[count] = dated;
            count += 1;
        }
        let dates = &mut dates[..count];
        dates.sort_unstable();
        let majority = self.majority();
        (count >= majority)
            .then(|| dates[count - majority] + (self.timing.lease - self.timing.drift))
    }

    /// Whether no work is left.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
            && self.votes.iter().all(|v| v.want == Want::Nothing && v.sent.is_none())
    }
}
