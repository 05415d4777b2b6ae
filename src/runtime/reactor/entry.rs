//! One lock: its engine, the requests that wait for it, and the answers to them.

use super::heard::{Heard, Purpose};
use crate::lock::{LockSpec, Refused, RequestResult, Role};
use crate::runtime::engine::Engine;
use crate::sys::sync::mpsc::Sender;
use idm_engine::{
    Command, DriveRef, Instant, Member, Outcome, Refusal, Request, RequestError, Token,
};
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, Status};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// One lock and its requests.
pub(super) struct Entry {
    pub(super) spec: LockSpec,
    /// Engine of the lock. `None` after a panic; a lock that it held is then lost, not free.
    pub(super) engine: Option<Engine>,
    pub(super) current: Option<Pending>,
    pub(super) waiting: VecDeque<(Request, Pending)>,
    settle: Option<Settle>,
    /// Commands without an answer; at most one per drive.
    outstanding: Vec<Outstanding>,
    /// Answers of drives to the current request.
    pub(super) heard: Option<Heard>,
    /// Request that the lock was granted to.
    pub(super) granted: Option<u64>,
    pub(super) members: Vec<Member>,
    /// Whether it was put on other drives after it was taken.
    pub(super) spread: bool,
    /// Drives that are ready to vote in place of its members.
    pub(super) ready: Option<Vec<DriveRef>>,
    /// Drives that lost the lock.
    pub(super) lost_on: Vec<DriveRef>,
    /// Whether this is a membership that the host should hold.
    pub(super) joined: bool,
    pub(super) rejoin_at: Option<Instant>,
    /// Mode in which the metrics count it as held.
    pub(super) counted: Option<Mode>,
    /// Date that the reactor's guards have of it.
    pub(super) guarded: Option<Instant>,
    /// Whether its holder has not given it up, even if it is lost.
    in_use: bool,
    /// Whether its owner was warned that it is lost or about to be lost, and it was neither renewed
    /// in time nor given up since.
    alarmed: bool,
    /// Drives that confirmed it as exclusive last, where reservations are used.
    pub(super) exclusive: Vec<DriveRef>,
    /// Commands that wait until dead hosts are removed from the drives.
    pub(super) held_back: Vec<HeldBack>,
    /// Time at which a lock whose engine panicked is forgotten.
    pub(super) forget_at: Option<Instant>,
    pub(super) timer: Option<Instant>,
}

/// A command that waits until dead hosts are removed from the drives.
pub(super) struct HeldBack {
    pub(super) token: Token,
    pub(super) drive: DriveRef,
    pub(super) command: DriveCommand,
    /// Time when the engine handed it out.
    pub(super) begun: Instant,
}

/// A request, without the part for the engine.
pub(super) struct Pending {
    pub(super) id: u64,
    pub(super) kind: PendingKind,
    /// Lock and owner; `None` for the reactor's own requests, which are for the last owner of the
    /// lock.
    pub(super) spec: Option<LockSpec>,
    pub(super) waiter: Option<Sender<RequestResult>>,
    pub(super) abandoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingKind {
    Acquire,
    /// Adoption of a lock that this host held before lvmlockd was started. Not refused for a killed
    /// lockspace, because the lock still keeps other hosts out.
    Adopt,
    Convert(Mode),
    Release,
}

impl PendingKind {
    /// Whether it is refused for a killed lockspace.
    fn wants_more(self) -> bool {
        matches!(self, PendingKind::Acquire | PendingKind::Convert(Mode::Exclusive))
    }

    /// Whether it only gives rights away. Core goes on as if it were done, so it is carried out
    /// even if nobody waits for it any more.
    fn only_gives(self) -> bool {
        matches!(self, PendingKind::Release | PendingKind::Convert(Mode::Shared))
    }

    pub(super) fn of(request: &Request) -> PendingKind {
        match request {
            Request::Acquire { .. } => PendingKind::Acquire,
            Request::Adopt { .. } => PendingKind::Adopt,
            Request::Convert { mode, .. } => PendingKind::Convert(*mode),
            Request::Release { .. } => PendingKind::Release,
        }
    }
}

struct Outstanding {
    token: Token,
    drive: DriveRef,
    unlock: bool,
    /// Whether it changes the mutex, and if so, whether it makes it exclusive.
    makes: Option<bool>,
    purpose: Purpose,
    sent: Instant,
}

/// A caller that waits until most drives have taken a release.
struct Settle {
    waiter: Sender<RequestResult>,
    /// Drives that have not taken it yet.
    drives: HashSet<DriveRef>,
    /// Number of them that the caller need not wait for.
    allowed: usize,
}

impl Pending {
    pub(super) fn answer(&mut self, answer: RequestResult) {
        if let Some(waiter) = self.waiter.take() {
            // The caller may have given up; then it has sent or will send Abandon.
            let _ = waiter.send(answer);
        }
    }

    fn is_killed(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.owner.is_killed())
    }
}

impl Entry {
    /// A lock that was not requested yet.
    pub(super) fn new(spec: LockSpec, engine: Engine) -> Entry {
        Entry {
            spec,
            engine: Some(engine),
            current: None,
            waiting: VecDeque::new(),
            settle: None,
            outstanding: Vec::new(),
            heard: None,
            granted: None,
            members: Vec::new(),
            spread: false,
            ready: None,
            lost_on: Vec::new(),
            joined: false,
            rejoin_at: None,
            counted: None,
            guarded: None,
            in_use: false,
            alarmed: false,
            exclusive: Vec::new(),
            held_back: Vec::new(),
            forget_at: None,
            timer: None,
        }
    }

    /// Adds a request to the queue.
    pub(super) fn add(&mut self, request: Request, pending: Pending) {
        if pending.kind == PendingKind::Release {
            self.set_in_use(false);
            self.set_alarmed(false);
            self.joined = false;
            self.rejoin_at = None;
            // The reactor's own attempts to take the membership again are void.
            self.waiting.retain(|(_, it)| it.kind != PendingKind::Acquire || it.waiter.is_some());
        }
        self.waiting.push_back((request, pending));
    }

    /// Undoes the effect of a request that no caller waits for any more.
    pub(super) fn abandon(&mut self, id: u64) {
        if let Some(current) = self.current.as_mut().filter(|current| current.id == id) {
            current.abandoned = true;
            current.waiter = None;
        } else if self.granted == Some(id) {
            // The answer came just when the caller gave up.
            log::warn!("{}: granted too late, releasing it", self.spec);
            self.set_in_use(false);
            self.waiting.push_front(release());
        } else {
            self.waiting.retain(|(_, waiting)| waiting.id != id || waiting.kind.only_gives());
        }
    }

    /// Records a command that goes to a drive. `tracks`: whether drives that have the lock as
    /// exclusive are remembered.
    pub(super) fn sent(
        &mut self,
        (token, drive): (Token, DriveRef),
        command: &DriveCommand,
        sent: Instant,
        tracks: bool,
    ) {
        let unlock = matches!(command, DriveCommand::Mutex(MutexOp::Unlock, _));
        let purpose = Purpose::of(command);
        let makes = match command {
            _ if !tracks => None,
            DriveCommand::Mutex(MutexOp::Unlock | MutexOp::Destroy, _) => Some(false),
            DriveCommand::Mutex(_, record) => Some(record.class.mode() == Mode::Exclusive),
            DriveCommand::ReadTable => None,
        };
        self.outstanding.push(Outstanding { token, drive, unlock, makes, purpose, sent });
    }

    /// A refusal of the current request, with the answers of its drives.
    pub(super) fn refused(&mut self, refusal: Refusal, now: Instant) -> Option<Refused> {
        let owed = self.outstanding.iter().map(|out| (out.drive, out.sent));
        let (asked, drives) = self.heard.take()?.report(owed, now);
        Some(Refused { refusal, asked, drives })
    }

    /// Whether no command is on its way to a drive.
    pub(super) fn is_answered(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Whether no drive has, or may still get, anything of this lock.
    pub(super) fn is_settled(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.is_idle())
    }

    /// Assigns the lock to another lockspace, which has not been warned yet of a lock in danger.
    pub(super) fn own(&mut self, spec: LockSpec) {
        let was_warned = Arc::ptr_eq(&self.spec.owner, &spec.owner);
        let is_lost = self.engine.as_ref().is_none_or(|engine| engine.mode().is_none());
        let (in_use, alarmed) = (self.in_use, self.alarmed && (was_warned || is_lost));
        self.set_in_use(false);
        self.set_alarmed(false);
        self.spec = spec;
        self.set_in_use(in_use);
        self.set_alarmed(alarmed);
    }

    /// Sets whether the lock is in use. A membership never is.
    pub(super) fn set_in_use(&mut self, in_use: bool) {
        let in_use = in_use && self.spec.role != Role::Membership;
        if core::mem::replace(&mut self.in_use, in_use) != in_use {
            self.spec.owner.count_in_use(in_use);
        }
    }

    /// Sets whether the lock is in danger.
    pub(super) fn set_alarmed(&mut self, alarmed: bool) {
        if core::mem::replace(&mut self.alarmed, alarmed) != alarmed {
            self.spec.owner.count_in_danger(alarmed);
        }
    }

    pub(super) fn is_alarmed(&self) -> bool {
        self.alarmed
    }

    /// Whether the lock is in use.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// The time until which the lock is safe, if it protects a volume group that is in use. A lost
    /// lock is not safe at any time.
    pub(super) fn guard(&self) -> Option<Instant> {
        let guarded = self.in_use && self.spec.owner.kill.is_some();
        guarded.then(|| self.safe_until().unwrap_or_default())
    }

    /// The mode in which the lock is held; `None` if other hosts may have it by now.
    pub(super) fn safe_mode(&self, now: Instant) -> Option<Mode> {
        self.safe_until().filter(|&until| now < until)?;
        self.engine.as_ref()?.mode()
    }

    pub(super) fn next_command(&mut self, now: Instant) -> Option<Command> {
        self.engine.as_mut()?.next_command(now)
    }

    pub(super) fn safe_until(&self) -> Option<Instant> {
        self.engine.as_ref()?.safe_until()
    }

    /// Whether its votes are to move to other drives.
    pub(super) fn is_moving(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.is_moving())
    }

    /// Whether a caller waits for a result of the lock.
    pub(super) fn is_awaited(&self) -> bool {
        self.current.is_some() || self.settle.is_some()
    }

    /// Whether nothing is left of the lock, here or on any drive.
    pub(super) fn is_finished(&self) -> bool {
        // A lock with a value knows its drives; a new one would have to read them all again.
        if self.in_use || self.engine.is_some() && self.spec.role.keeps_value() {
            return false;
        }
        let idle = match &self.engine {
            Some(engine) => engine.is_idle(),
            None => self.forget_at.is_none(),
        };
        idle && self.current.is_none() && self.waiting.is_empty() && !self.joined
    }

    pub(super) fn on_reply(&mut self, token: Token, reply: Reply, now: Instant) {
        let at = self.outstanding.iter().position(|outstanding| outstanding.token == token);
        let answered = at.map(|at| self.outstanding.swap_remove(at));
        if let (Some(heard), Some(answered)) = (&mut self.heard, &answered) {
            heard.hear(answered.drive, answered.purpose, &reply);
        }
        if let Some(answered) = &answered {
            self.note_mode(answered.drive, answered.makes, &reply);
        }
        if let Some(engine) = &mut self.engine {
            engine.on_reply(token, reply, now);
        }
        if let Some(outstanding) = answered.filter(|answered| answered.unlock) {
            if let Some(settle) = &mut self.settle {
                settle.drives.remove(&outstanding.drive);
            }
            self.end_settle_if_done();
        }
    }

    /// Notes whether a drive has confirmed the lock as exclusive.
    fn note_mode(&mut self, drive: DriveRef, makes: Option<bool>, reply: &Reply) {
        let Some(exclusive) = makes else { return };
        let at = self.exclusive.iter().position(|&it| it == drive);
        match (exclusive && *reply == Reply::Status(Status::Good), at) {
            (true, None) => self.exclusive.push(drive),
            (false, Some(at)) => drop(self.exclusive.swap_remove(at)),
            _ => {}
        }
    }

    pub(super) fn begin(&mut self, request: Request, mut pending: Pending, now: Instant) {
        if self.engine.is_none() {
            self.waiting.push_front((request, pending));
            return;
        }
        if pending.kind.wants_more() && pending.is_killed() {
            return pending.answer(RequestResult::Killed);
        }
        let members = match &request {
            Request::Acquire { members, .. } | Request::Adopt { members, .. } => {
                Some(members.clone())
            }
            _ => None,
        };
        let acquires = matches!(pending.kind, PendingKind::Acquire | PendingKind::Adopt);
        let converts = matches!(pending.kind, PendingKind::Convert(_));
        let before = self.spec.clone();
        if let Some(spec) = pending.spec.take().filter(|_| acquires) {
            self.own(spec);
        }
        self.heard = Heard::of(&request, self.members.iter().map(|member| member.drive));
        // Set before the engine is called: if it panics, the waiting caller and the owner must be
        // known.
        self.current = Some(pending);
        let begun = self.engine.as_mut().map(|engine| engine.request(request, now));
        if let Some(Err(error)) = begun {
            let answer = match error {
                RequestError::WrongState if acquires => RequestResult::InUse,
                _ => RequestResult::Failed(format!("{}: {error:?}", self.spec)),
            };
            self.own(before);
            self.heard = None;
            if let Some(mut pending) = self.current.take() {
                pending.answer(answer);
            }
            return;
        }
        if members.is_some() {
            self.lost_on.clear();
            self.spread = false;
        }
        if !converts {
            self.ready = None;
        }
        self.members = members.unwrap_or_else(|| core::mem::take(&mut self.members));
        // The lock has a new request: a caller that waits for an earlier release gets its answer
        // now.
        self.end_settle();
    }

    /// Takes a membership again.
    pub(super) fn rejoin(&mut self) {
        let request = Request::Acquire {
            mode: Mode::Shared,
            members: self.members.clone(),
            witnesses: Vec::new(),
        };
        self.waiting.push_back((request, internal(PendingKind::Acquire)));
    }

    /// Answers a release when more than half of the drives that hold the lock have taken it: the
    /// next host that requests the lock then gets a majority.
    pub(super) fn settle(&mut self, mut pending: Pending) {
        let drives: HashSet<DriveRef> = self.outstanding.iter().map(|out| out.drive).collect();
        match pending.waiter.take() {
            Some(waiter) if !drives.is_empty() => {
                // A membership is given up at the end: other hosts count on any majority of drives,
                // and if the process ends, nothing follows up.
                let all = self.spec.role == Role::Membership;
                let allowed = if all { 0 } else { (drives.len() - 1) / 2 };
                self.settle = Some(Settle { waiter, drives, allowed });
            }
            Some(waiter) => drop(waiter.send(RequestResult::Done(Outcome::Released))),
            None => {}
        }
    }

    fn end_settle_if_done(&mut self) {
        let done = |settle: &Settle| settle.drives.len() <= settle.allowed;
        if self.settle.as_ref().is_some_and(done) {
            self.end_settle();
        }
    }

    fn end_settle(&mut self) {
        if let Some(settle) = self.settle.take() {
            let _ = settle.waiter.send(RequestResult::Done(Outcome::Released));
        }
    }

    /// Refuses all waiting requests of a killed lockspace; a request that is under way is undone
    /// when it ends.
    pub(super) fn refuse_more(&mut self) {
        if let Some(current) = &mut self.current {
            if current.kind.wants_more() && self.spec.owner.is_killed() {
                current.answer(RequestResult::Killed);
                current.abandoned = true;
            }
        }
        self.waiting.retain_mut(|(_, waiting)| {
            let refused = waiting.kind.wants_more() && waiting.is_killed();
            if refused {
                waiting.answer(RequestResult::Killed);
            }
            !refused
        });
    }

    /// Answers all waiting requests of a lock whose engine panicked.
    pub(super) fn refuse_all(&mut self) {
        self.outstanding.clear();
        self.joined = false;
        self.end_settle();
        let waiting = core::mem::take(&mut self.waiting);
        let mut current = self.current.take();
        let demotes = PendingKind::Convert(Mode::Shared);
        if let Some(begun) = current.as_mut().filter(|begun| begun.kind == demotes) {
            // Drives may still carry it out. With an error, core would go on with an exclusive
            // lock that becomes shared without its knowledge.
            begun.answer(RequestResult::Done(Outcome::Converted { complete: false }));
        }
        for mut pending in current.into_iter().chain(waiting.into_iter().map(|(_, p)| p)) {
            let answer = match pending.kind {
                // Core must never see an unlock fail; the lock is not handed out again.
                PendingKind::Release => RequestResult::Done(Outcome::Released),
                _ => RequestResult::Failed(format!("{}: internal error, see the log", self.spec)),
            };
            pending.answer(answer);
        }
    }
}

/// One of the reactor's own requests.
fn internal(kind: PendingKind) -> Pending {
    Pending { id: u64::MAX, kind, spec: None, waiter: None, abandoned: false }
}

pub(super) fn release() -> (Request, Pending) {
    (Request::Release { value: None }, internal(PendingKind::Release))
}

pub(super) fn demote() -> (Request, Pending) {
    let request = Request::Convert { mode: Mode::Shared, value: None };
    (request, internal(PendingKind::Convert(Mode::Shared)))
}
