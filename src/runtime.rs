//! The runtime: one reactor that owns the engines, and workers that block in the kernel.
//!
//! lvmlockd's threads pass a request to the reactor and wait a limited time for the answer. The
//! reactor never blocks on a drive: it passes commands to the workers of their drive, and gets the
//! replies through its one mailbox. So a drive that hangs blocks only its own workers, and no mutex
//! of this library is held across I/O.
//!
//! Threads start with the first request, after lvmlockd has become a daemon.

mod engine;
mod reactor;
pub(crate) mod refusal;
mod settings;

use crate::drives::Drives;
use crate::drives::queue::{ReplyHandler, Urgency};
use crate::drives::watch::Watch;
use crate::lock::{LockSpec, Owner, RequestResult};
use crate::metrics::{Asked, Metrics};
use crate::state::host_id;
use crate::state::undo_note::Undone;
use crate::sys::clock;
use crate::sys::mailbox::Mailbox;
use crate::sys::sync::atomic::Ordering;
use crate::sys::sync::mpsc::{self, Receiver, RecvTimeoutError};
use crate::sys::sync::planted;
use crate::sys::sync::thread::JoinHandle;
use crate::sys::thread;
use core::time::Duration;
use engine::MakeEngine;
use idm_engine::{DriveRef, Instant, Member, Outcome, Request};
use idm_protocol::{DriveCommand, Mode, Record, Reply, ResourceId};
use reactor::{Message, Reactor};
pub use settings::Settings;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Result of reading a drive's table.
pub type TableRead = Result<Arc<[Record]>, idm_protocol::Status>;

#[cfg(all(test, feature = "shuttle"))]
pub(crate) mod schedules;
#[cfg(test)]
mod tests;

/// The running reactor.
pub struct Runtime {
    mailbox: Arc<Mailbox<Message>>,
    drives: Arc<Drives>,
    metrics: Arc<Metrics>,
    requests: AtomicU64,
    reactor: Option<JoinHandle<()>>,
    /// Only tests run without it.
    _watch: Option<Watch>,
}

impl Runtime {
    /// Starts the reactor and the watch over the host's disks. Fails where no thread or no random
    /// number is available.
    pub fn start(drives: Arc<Drives>, settings: Settings) -> io::Result<Runtime> {
        Runtime::start_with(drives, settings, Box::new(engine::real))
    }

    fn start_with(
        drives: Arc<Drives>,
        settings: Settings,
        make: Box<MakeEngine>,
    ) -> io::Result<Runtime> {
        let watch = Watch::start(drives.clone())?;
        let seed = u128::from_ne_bytes(host_id::random()?) as u64;
        Runtime::run(drives, settings, make, seed, Some(watch))
    }

    fn run(
        drives: Arc<Drives>,
        settings: Settings,
        make: Box<MakeEngine>,
        seed: u64,
        watch: Option<Watch>,
    ) -> io::Result<Runtime> {
        let mailbox = Arc::new(Mailbox::default());
        let metrics = Arc::new(Metrics::default());
        let reactor =
            Reactor::new(mailbox.clone(), drives.clone(), metrics.clone(), settings, make, seed);
        let reactor = thread::spawn("idm-reactor", move || reactor.run())?;
        Ok(Runtime {
            mailbox,
            drives,
            metrics,
            requests: AtomicU64::new(0),
            reactor: Some(reactor),
            _watch: watch,
        })
    }

    fn send(&self, message: Message) -> bool {
        self.mailbox.send(message)
    }

    /// Makes a request and waits up to `bound` for its end. A release ends for the caller when most
    /// drives have answered; it goes on even without a waiting caller.
    pub fn request(&self, spec: LockSpec, request: Request, bound: Duration) -> RequestResult {
        let asked = match request {
            Request::Acquire { .. } => Asked::Acquire,
            Request::Adopt { .. } => Asked::Adopt,
            Request::Convert { .. } => Asked::Convert,
            Request::Release { .. } => Asked::Release,
        };
        let answer = self.ask(spec, request, bound);
        self.metrics.answered(asked, &answer);
        answer
    }

    fn ask(&self, spec: LockSpec, request: Request, bound: Duration) -> RequestResult {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let resource = spec.resource;
        let (waiter, answer) = mpsc::channel();
        let sent = self.send(Message::Request { spec, request, id, waiter: Some(waiter) });
        if !sent {
            return RequestResult::Failed("internal error: the lock manager has stopped".into());
        }
        match answer.recv_timeout(bound) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                if !planted!(AbandonUnsaid) {
                    self.send(Message::Abandon { resource, id });
                }
                RequestResult::TimedOut
            }
            Err(RecvTimeoutError::Disconnected) => {
                RequestResult::Failed("internal error: the lock manager dropped a request".into())
            }
        }
    }

    /// Makes a request and does not wait: the result comes through the channel, however late.
    pub fn begin(&self, spec: LockSpec, request: Request) -> Receiver<RequestResult> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        let (waiter, answer) = mpsc::channel();
        // If the reactor has ended, the channel is closed.
        self.send(Message::Request { spec, request, id, waiter: Some(waiter) });
        answer
    }

    /// Assigns a held lock to another owner, whose lockspace is killed if the lock is lost.
    pub fn own(&self, spec: LockSpec) {
        self.send(Message::Own { spec });
    }

    /// Kills a lockspace because of endangered locks that the runtime does not know. `until` is the
    /// time when the first of them may be lost; `None` if one is already lost.
    pub fn fail(&self, owner: Arc<Owner>, why: String, until: Option<Instant>) {
        self.send(Message::Fail { owner, why, until });
    }

    /// Gives up a lock without waiting for any drive.
    pub fn release(&self, spec: LockSpec) {
        let id = self.requests.fetch_add(1, Ordering::Relaxed);
        self.metrics.answered(Asked::Release, &RequestResult::Done(Outcome::Released));
        self.send(Message::Request {
            spec,
            request: Request::Release { value: None },
            id,
            waiter: None,
        });
    }

    /// Waits up to `bound` until all commands on their way to drives have been answered. Returns
    /// whether they have.
    pub fn drain(&self, bound: Duration) -> bool {
        let (sender, end) = mpsc::channel();
        self.send(Message::Drain(sender));
        end.recv_timeout(bound) == Err(RecvTimeoutError::Disconnected)
    }

    /// Puts held locks on these drives instead of their present ones. The new drives do not vote at
    /// first, but other hosts find the locks there.
    pub fn spread(&self, resources: Vec<ResourceId>, drives: Vec<Member>) {
        self.send(Message::Spread { resources, drives });
    }

    /// Waits up to `bound` until the votes of a volume group's LV locks have moved to the drives
    /// that they were put on; no longer if the group is killed. Returns the locks whose votes have
    /// not. The call does not wait for moves that an earlier call has awaited in vain.
    pub fn await_moves(&self, vg: ResourceId, bound: Duration) -> Vec<LockSpec> {
        let (waiter, end) = mpsc::channel();
        self.send(Message::AwaitMoves { vg, waiter });
        // Nothing is ever sent.
        let _ = end.recv_timeout(bound);
        let (waiter, answer) = mpsc::channel();
        self.send(Message::Moving { vg, waiter });
        answer.recv_timeout(Duration::from_secs(1)).unwrap_or_default()
    }

    /// The drives that are ready to vote for a lock.
    pub fn votes_ready(&self, resource: ResourceId) -> Option<Vec<DriveRef>> {
        let (waiter, answer) = mpsc::channel();
        self.send(Message::VotesReady { resource, waiter });
        answer.recv().ok().flatten()
    }

    /// Lets drives that are ready vote for a lock; returns whether they do.
    pub fn move_votes(&self, resource: ResourceId, drives: Vec<DriveRef>) -> bool {
        let (waiter, answer) = mpsc::channel();
        self.send(Message::MoveVotes { resource, drives, waiter });
        answer.recv().unwrap_or(false)
    }

    /// The mode in which a lock is held; `None` where it is not held, or lost, or its lease has run
    /// out. An error means that the reactor does not answer, and says nothing about the lock.
    pub fn mode(&self, resource: ResourceId) -> Result<Option<Mode>, RequestResult> {
        let (waiter, answer) = mpsc::channel();
        self.send(Message::Mode { resource, waiter });
        answer.recv_timeout(Duration::from_secs(1)).map_err(|_| RequestResult::TimedOut)
    }

    /// The earliest time until which the locks of a volume group are safe that this host holds or
    /// uses, with its membership; `None` if that is not held, or if the time is not known.
    pub fn safe_until(&self, group: ResourceId) -> Option<Instant> {
        let (waiter, answer) = mpsc::channel();
        self.send(Message::SafeUntil { group, waiter });
        answer.recv_timeout(Duration::from_secs(1)).ok().flatten()
    }

    /// Notes for the next lvmlockd that a command or order is about to be handed out that undoes
    /// this. With `false` it must not be handed out.
    pub fn note_undoing(&self, undone: Undone) -> bool {
        let (waiter, answer) = mpsc::channel();
        self.send(Message::NoteUndoing { undone, waiter });
        answer.recv_timeout(Duration::from_secs(1)).unwrap_or(false)
    }

    /// Reads the tables of drives, all at the same time, until `enough` of them have answered or
    /// `bound` has passed. Drives that did not answer are left out.
    pub fn read_tables(
        &self,
        members: &[Member],
        enough: usize,
        bound: Duration,
    ) -> Vec<(DriveRef, TableRead)> {
        self.read_more_tables(members, enough, bound, Duration::ZERO)
    }

    /// Like [`read_tables`](Runtime::read_tables), but the other drives get the time `grace` after
    /// that, except for drives that are known to be slow.
    pub fn read_more_tables(
        &self,
        members: &[Member],
        enough: usize,
        bound: Duration,
        grace: Duration,
    ) -> Vec<(DriveRef, TableRead)> {
        let (sender, receiver) = mpsc::channel();
        let slow = self.drives.slow(clock::now());
        for member in members {
            let (drive, sender) = (member.drive, sender.clone());
            let done = ReplyHandler::new(move |reply| {
                // The caller may have gone.
                let _ = sender.send((drive, reply));
            });
            self.drives.submit(drive, DriveCommand::ReadTable, Urgency::Awaited, done);
        }
        drop(sender);
        let mut end = std::time::Instant::now() + bound;
        let mut answers: Vec<(DriveRef, TableRead)> = Vec::new();
        let mut tables = 0;
        let is_awaited = |answers: &[(DriveRef, TableRead)], tables: usize| {
            let heard = |drive| answers.iter().any(|(heard, _)| *heard == drive);
            let prompt = |member: &Member| !slow.contains(&member.drive) && !heard(member.drive);
            tables < enough || !grace.is_zero() && members.iter().any(prompt)
        };
        while is_awaited(&answers, tables) {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let Ok((drive, reply)) = receiver.recv_timeout(left) else {
                break;
            };
            answers.push((drive, table_of(reply)));
            tables += usize::from(answers.last().is_some_and(|(_, read)| read.is_ok()));
            if tables == enough {
                end = end.min(std::time::Instant::now() + grace);
            }
        }
        answers
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The drives.
    pub fn drives(&self) -> &Drives {
        &self.drives
    }
}

/// The result of a read of a drive's table.
fn table_of(reply: Reply) -> TableRead {
    match reply {
        Reply::Table(records) => Ok(records),
        Reply::Status(status) => Err(status),
    }
}

/// Stops at once, as if the host had died: nothing is released, and no further command begins.
impl Drop for Runtime {
    fn drop(&mut self) {
        self.send(Message::Stop);
        if let Some(reactor) = self.reactor.take() {
            // This fails only where the reactor panicked, which was logged then.
            let _ = reactor.join();
        }
        self.drives.close();
    }
}
