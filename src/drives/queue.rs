//! The queue of commands for one drive, and the number of workers that it needs.

use crate::drives::paths::SLOW;
use crate::sys::clock;
use crate::sys::sync::planted;
use crate::transport::Deadline;
use idm_engine::Instant;
use idm_protocol::{Class, DriveCommand, HostId, MutexOp, Reply, ResourceId, Status};
use smallvec::{SmallVec, smallvec};
use std::collections::VecDeque;

/// Background commands that one worker runs in turn before another one helps. Waking a thread costs
/// as much as the work that it then does.
const SHARE: usize = 64;

/// Urgency of a command for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A caller waits for it. It gets a worker of its own, if one is free.
    Awaited,
    /// No caller waits: it keeps a lock, or cleans up. It shares a worker, and begins with
    /// [`Drives::start`](super::Drives::start).
    Background,
}

/// One command.
pub struct Job {
    pub command: DriveCommand,
    pub urgency: Urgency,
    pub queued: Instant,
    pub deadline: Deadline,
    /// Time after which it is lost if there is no answer.
    pub lost: Instant,
    pub done: ReplyHandler,
}

/// A command that a worker has begun.
pub struct Begun {
    pub command: DriveCommand,
    pub deadline: Deadline,
    pub at: Instant,
    /// Number that distinguishes it from all others.
    id: u64,
}

/// A command that a worker is running.
struct RunningCommand {
    id: u64,
    begun: Instant,
    change: Option<Change>,
    deadline: Deadline,
    /// The handlers that wait for it, each with its time limit. Empty after all have got the reply
    /// that it is lost.
    waiting: SmallVec<[(Instant, ReplyHandler); 1]>,
    /// Whether this command was reported lost.
    overdue: bool,
}

/// The change that a command may make on a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    op: MutexOp,
    class: Class,
    resource: ResourceId,
    host: HostId,
}

impl Change {
    fn of(command: &DriveCommand) -> Option<Change> {
        match command {
            DriveCommand::Mutex(op, record) => Some(Change {
                op: *op,
                class: record.class,
                resource: record.resource,
                host: record.host,
            }),
            DriveCommand::ReadTable => None,
        }
    }

    /// Whether this may be sent while the lost command may still reach the drive after it. UNLOCK
    /// and DESTROY always may, and a REFRESH where both write the same. The lost command would undo
    /// any other.
    fn may_overtake(&self, lost: &Change) -> bool {
        if (self.resource, self.host) != (lost.resource, lost.host) {
            return true;
        }
        match self.op {
            MutexOp::Unlock | MutexOp::Destroy => true,
            MutexOp::Refresh => {
                let takes = matches!(lost.op, MutexOp::Refresh | MutexOp::Trylock | MutexOp::Break);
                takes && self.class == lost.class
            }
            MutexOp::Init | MutexOp::Trylock | MutexOp::Lock | MutexOp::Break => false,
        }
    }
}

/// Delivers the reply to a command, exactly once: a command that is dropped without a reply counts
/// as lost, and its effect is unknown.
pub struct ReplyHandler(Option<Box<Done>>);

type Done = dyn FnOnce(Reply, bool) + Send;

impl ReplyHandler {
    /// Calls `done` with the reply on a thread of the drive; `done` must not block.
    pub fn new(done: impl FnOnce(Reply) + Send + 'static) -> ReplyHandler {
        ReplyHandler::in_a_row(|reply, _| done(reply))
    }

    /// As [`ReplyHandler::new`]; `done` also gets whether the same thread continues at once with
    /// another background command.
    pub fn in_a_row(done: impl FnOnce(Reply, bool) + Send + 'static) -> ReplyHandler {
        ReplyHandler(Some(Box::new(done)))
    }

    pub fn answer(mut self, reply: Reply, more: bool) {
        if let Some(done) = self.0.take() {
            done(reply, more);
        }
    }
}

impl Drop for ReplyHandler {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Reply::Status(Status::Uncertain), false);
        }
    }
}

/// The commands that wait for a drive, and its workers.
#[derive(Default)]
pub struct CommandQueue {
    /// Awaited commands that keep or free locks.
    urgent: VecDeque<Job>,
    /// Commands that no caller waits for. `other` has all other awaited commands.
    background: VecDeque<Job>,
    other: VecDeque<Job>,
    running: Vec<RunningCommand>,
    next_id: u64,
    pub workers: usize,
    pub idle: usize,
    pub closed: bool,
}

/// Handlers of commands that had no answer in time.
#[derive(Default)]
pub struct Expired {
    /// Of commands that were not sent and will not be.
    pub unsent: Vec<ReplyHandler>,
    /// Of commands that a worker is running and that may have been sent.
    pub lost: Vec<ReplyHandler>,
}

/// Workers that are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Help {
    /// Number of idle ones to wake.
    pub wake: usize,
    /// Number of new ones to start; they are counted already.
    pub start: usize,
}

impl CommandQueue {
    pub fn len(&self) -> usize {
        self.urgent.len() + self.background.len() + self.other.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn push(&mut self, job: Job) {
        match (job.urgency, &job.command) {
            (Urgency::Background, _) => self.background.push_back(job),
            (_, DriveCommand::Mutex(MutexOp::Refresh | MutexOp::Unlock, _)) => {
                self.urgent.push_back(job);
            }
            _ => self.other.push_back(job),
        }
    }

    /// Whether a command must not be sent yet: it must not overtake a command that was reported
    /// lost and that the kernel has not returned.
    pub fn bars(&self, command: &DriveCommand) -> bool {
        let Some(change) = Change::of(command) else { return false };
        let lost = self.running.iter().filter(|running| running.overdue);
        lost.filter_map(|running| running.change).any(|lost| !change.may_overtake(&lost))
    }

    /// The workers that the queue needs in addition to the busy ones, which also take from it;
    /// `most` is the limit.
    pub fn help(&mut self, most: usize, now: Instant) -> Help {
        if self.closed {
            return Help { wake: 0, start: 0 };
        }
        let prompt = self.running.iter().filter(|running| now.since(running.begun) <= SLOW).count();
        let shared = self.background.len().div_ceil(SHARE).saturating_sub(prompt);
        let wanted = self.urgent.len() + self.other.len() + shared;
        let wake = wanted.min(self.idle);
        let start = (wanted - wake).min(most.saturating_sub(self.workers));
        self.workers += start;
        Help { wake, start }
    }

    /// The next command for a worker. One read serves all waiting reads of the table, because it
    /// begins after each of them was submitted.
    pub fn begin(&mut self) -> Option<Begun> {
        let first = self
            .urgent
            .pop_front()
            .or_else(|| self.background.pop_front())
            .or_else(|| self.other.pop_front())?;
        let Job { command, mut deadline, lost, done, .. } = first;
        let mut waiting = smallvec![(lost, done)];
        if command == DriveCommand::ReadTable {
            let (reads, rest) = core::mem::take(&mut self.other)
                .into_iter()
                .partition::<VecDeque<Job>, _>(|job| job.command == DriveCommand::ReadTable);
            self.other = rest;
            for read in reads {
                deadline = read.deadline;
                waiting.push((read.lost, read.done));
            }
        }
        let (begun, id, change) = (clock::now(), self.next_id, Change::of(&command));
        self.next_id += 1;
        let (given, overdue) = (deadline.clone(), false);
        self.running.push(RunningCommand { id, begun, change, deadline: given, waiting, overdue });
        Some(Begun { command, deadline, at: begun, id })
    }

    /// Ends a command. Returns the handlers to call, and whether background commands follow.
    pub fn end(&mut self, begun: &Begun) -> (SmallVec<[ReplyHandler; 1]>, bool) {
        let at = self.running.iter().position(|running| running.id == begun.id);
        let waiting = at.map_or_else(SmallVec::new, |at| self.running.swap_remove(at).waiting);
        let done = waiting.into_iter().map(|(_, done)| done).collect();
        (done, self.urgent.is_empty() && !self.background.is_empty())
    }

    /// Removes the commands that have waited since before `before`, or are lost by now.
    pub fn expire(&mut self, before: Instant, now: Instant) -> Expired {
        let mut expired = Expired::default();
        let is_late = |job: &Job| job.queued < before || !job.deadline.may_begin(now);
        for queue in [&mut self.urgent, &mut self.background, &mut self.other] {
            while queue.front().is_some_and(is_late) {
                expired.unsent.extend(queue.pop_front().map(|job| job.done));
            }
        }
        for running in &mut self.running {
            // Most commands are answered in time, and nothing has to be moved.
            if running.waiting.iter().all(|(lost, _)| *lost > now) {
                continue;
            }
            let (late, waiting) = running.waiting.drain(..).partition(|(lost, _)| *lost <= now);
            running.waiting = waiting;
            // Others may still wait for the same read.
            let sent = !running.waiting.is_empty() || running.deadline.give_up();
            running.overdue |= sent && !planted!(LostUnmarked);
            let told = if sent { &mut expired.lost } else { &mut expired.unsent };
            let late: SmallVec<[(Instant, ReplyHandler); 1]> = late;
            told.extend(late.into_iter().map(|(_, done)| done));
        }
        expired
    }

    /// Empties the queue and returns its jobs.
    pub fn take_all(&mut self) -> Vec<Job> {
        let mut all: Vec<Job> = self.urgent.drain(..).collect();
        all.extend(self.background.drain(..));
        all.extend(self.other.drain(..));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::virtual_time;
    use crate::transport::soon;
    use core::time::Duration;
    use idm_protocol::Record;
    use std::sync::Arc;
    use std::sync::Mutex;

    const MOST: usize = 4;
    /// Time after which the jobs of these tests are lost.
    const LOST: Duration = Duration::from_secs(13);

    fn job(command: DriveCommand, urgency: Urgency) -> Job {
        told(command, urgency, ReplyHandler::new(|_| {}))
    }

    fn told(command: DriveCommand, urgency: Urgency, done: ReplyHandler) -> Job {
        let queued = clock::now();
        Job { command, urgency, queued, deadline: soon(), lost: queued + LOST, done }
    }

    fn mutex(op: MutexOp) -> DriveCommand {
        DriveCommand::Mutex(op, Record::end_of_table())
    }

    fn queue(awaited: usize, background: usize) -> CommandQueue {
        let mut queue = CommandQueue::default();
        for _ in 0..background {
            queue.push(job(mutex(MutexOp::Refresh), Urgency::Background));
        }
        for _ in 0..awaited {
            queue.push(job(mutex(MutexOp::Trylock), Urgency::Awaited));
        }
        queue
    }

    fn help(queue: &mut CommandQueue) -> (usize, usize) {
        let Help { wake, start } = queue.help(MOST, clock::now());
        (wake, start)
    }

    #[test]
    fn what_is_awaited_has_a_worker_each_and_the_rest_shares() {
        for (awaited, background, workers) in [
            (0, 0, 0),
            (1, 0, 1),
            (3, 0, 3),
            (0, 1, 1),
            (0, SHARE, 1),
            (0, SHARE + 1, 2),
            (2, SHARE, 3),
            (9, 0, 4),
        ] {
            let mut queue = queue(awaited, background);
            assert_eq!(help(&mut queue), (0, workers), "{awaited} {background}");
            assert_eq!(queue.workers, workers);
        }
    }

    #[test]
    fn idle_workers_are_woken_before_new_ones_are_started() {
        let mut queue = queue(3, 0);
        (queue.workers, queue.idle) = (2, 2);
        assert_eq!(help(&mut queue), (2, 1));
        assert_eq!(queue.workers, 3);
    }

    #[test]
    fn background_work_waits_for_a_busy_worker_but_not_for_a_stuck_one() {
        let mut queue = queue(0, 10);
        queue.workers = 1;
        let begun = queue.begin().unwrap();
        assert_eq!(help(&mut queue), (0, 0), "whoever is at it goes on to the others");
        let later = begun.at + SLOW * 2;
        assert_eq!(queue.help(MOST, later), Help { wake: 0, start: 1 });
        assert!(queue.end(&begun).1, "there is more");
    }

    #[test]
    fn what_keeps_or_frees_locks_comes_first() {
        let mut queue = CommandQueue::default();
        let kinds = [
            (MutexOp::Trylock, Urgency::Awaited),
            (MutexOp::Destroy, Urgency::Background),
            (MutexOp::Unlock, Urgency::Awaited),
        ];
        kinds.into_iter().for_each(|(op, urgency)| queue.push(job(mutex(op), urgency)));
        let order: Vec<DriveCommand> =
            core::iter::from_fn(|| queue.begin()).map(|begun| begun.command).collect();
        assert_eq!(order, [MutexOp::Unlock, MutexOp::Destroy, MutexOp::Trylock].map(mutex));
    }

    #[test]
    fn a_command_that_the_kernel_keeps_is_told_to_be_lost_once() {
        let time = virtual_time();
        let replies: Arc<Mutex<Vec<Reply>>> = Arc::default();
        let mut queue = CommandQueue::default();
        for _ in 0..2 {
            let replies = replies.clone();
            let done = ReplyHandler::new(move |reply| replies.lock().unwrap().push(reply));
            queue.push(told(DriveCommand::ReadTable, Urgency::Awaited, done));
            time.advance(Duration::from_secs(1));
        }
        let begun = queue.begin().unwrap();
        assert!(begun.deadline.timeout(Duration::ZERO).is_some());
        let mut lost = |at: Duration| {
            time.set(at);
            queue.expire(Instant::default(), clock::now()).lost.len()
        };
        // Each is lost after its own time, though one read serves both.
        assert_eq!(lost(LOST - Duration::from_micros(1)), 0);
        assert_eq!(lost(LOST), 1);
        assert_eq!(lost(LOST), 0);
        assert_eq!(lost(LOST + Duration::from_secs(1)), 1);
        assert!(queue.end(&begun).0.is_empty(), "nobody is told twice");
        let uncertain = Reply::Status(Status::Uncertain);
        assert_eq!(*replies.lock().unwrap(), [uncertain.clone(), uncertain], "dropped is lost");
    }

    #[test]
    fn what_was_begun_and_not_sent_in_time_is_not_sent_and_bars_nothing() {
        let time = virtual_time();
        let mut queue = queue(1, 0);
        let begun = queue.begin().unwrap();
        time.set(LOST);
        let expired = queue.expire(Instant::default(), clock::now());
        assert_eq!((expired.unsent.len(), expired.lost.len()), (1, 0));
        assert!(!queue.bars(&mutex(MutexOp::Break)));
        time.set(Duration::ZERO);
        assert_eq!(begun.deadline.timeout(Duration::ZERO), None, "though there is time");
    }

    #[test]
    fn what_waits_is_not_sent_when_its_first_step_has_not_its_whole_time_any_more() {
        let time = virtual_time();
        let mut queue = queue(1, 1);
        time.set(Duration::from_millis(4499));
        assert!(queue.expire(Instant::default(), clock::now()).unsent.is_empty());
        time.set(Duration::from_millis(4500));
        assert_eq!(queue.expire(Instant::default(), clock::now()).unsent.len(), 2);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_a_lost_command_would_undo_is_barred_until_the_kernel_returns_it() {
        use MutexOp::{Break, Destroy, Refresh, Trylock, Unlock};
        let command =
            |op, class| DriveCommand::Mutex(op, Record { class, ..Record::end_of_table() });
        let (ex, sh) = (Class::Exclusive, Class::Shared);
        for (lost, next, barred) in [
            ((Unlock, ex), (Trylock, ex), true),
            ((Unlock, ex), (Break, ex), true),
            ((Unlock, ex), (Refresh, ex), true),
            ((Unlock, ex), (Unlock, ex), false),
            ((Destroy, ex), (Trylock, ex), true),
            ((Trylock, ex), (Trylock, ex), true),
            ((Trylock, ex), (Unlock, ex), false),
            ((Refresh, ex), (Refresh, ex), false),
            ((Refresh, sh), (Refresh, ex), true),
            ((Break, sh), (Refresh, ex), true),
            ((Break, ex), (Refresh, ex), false),
            ((Refresh, sh), (Destroy, ex), false),
        ] {
            let _time = virtual_time();
            let mut queue = CommandQueue::default();
            queue.push(job(command(lost.0, lost.1), Urgency::Awaited));
            let begun = queue.begin().unwrap();
            assert!(begun.deadline.timeout(Duration::ZERO).is_some());
            let next = command(next.0, next.1);
            assert!(!queue.bars(&next), "it is not lost yet");
            queue.expire(Instant::default(), clock::now() + LOST);
            assert_eq!(queue.bars(&next), barred, "{lost:?} {next:?}");
            assert!(!queue.bars(&DriveCommand::ReadTable));
            let mut other = next.clone();
            if let DriveCommand::Mutex(_, record) = &mut other {
                record.resource = ResourceId::from_bytes([1; 64]);
            }
            assert!(!queue.bars(&other), "another lock's");
            queue.end(&begun);
            assert!(!queue.bars(&next));
        }
    }
}
