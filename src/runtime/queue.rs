//! The commands that wait for one drive, and how many workers they are worth.

use super::clock;
use super::ways::SLOW;
use idm_engine::Instant;
use idm_protocol::{DriveCommand, MutexOp, Reply, Status};
use std::collections::VecDeque;

/// Commands that nobody waits for which one worker works off, one after the other, before another
/// one helps. To wake a thread costs as much as what it then has to do.
const SHARE: usize = 64;

/// How much a command matters to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A caller waits for it: a worker of its own, if there is one.
    Awaited,
    /// Nobody waits: it keeps a lock, or tidies up. It shares a worker, and is begun with
    /// [`Drives::start`](super::drives::Drives::start).
    Background,
}

/// One command.
pub struct Job {
    pub command: DriveCommand,
    pub urgency: Urgency,
    pub queued: Instant,
    /// It must not be begun later.
    pub until: Instant,
    pub done: Completion,
}

/// Hands over the reply to a command, exactly once: a command that is dropped without one was
/// lost, and nothing is known of its effect.
pub struct Completion(Option<Box<Done>>);

type Done = dyn FnOnce(Reply, bool) + Send;

impl Completion {
    /// Calls `done` with the reply, on a thread of the drive's; it must not block.
    pub fn new(done: impl FnOnce(Reply) + Send + 'static) -> Completion {
        Completion::in_a_row(|reply, _| done(reply))
    }

    /// As [`Completion::new`]; `done` is also told whether the same thread goes on at once to the
    /// next command that nobody waits for.
    pub fn in_a_row(done: impl FnOnce(Reply, bool) + Send + 'static) -> Completion {
        Completion(Some(Box::new(done)))
    }

    pub fn answer(mut self, reply: Reply, more: bool) {
        if let Some(done) = self.0.take() {
            done(reply, more);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Reply::Status(Status::Uncertain), false);
        }
    }
}

/// What waits for a drive, and its workers.
#[derive(Default)]
pub struct Queue {
    /// What keeps or frees locks, and somebody waits for.
    urgent: VecDeque<Job>,
    /// What nobody waits for.
    background: VecDeque<Job>,
    other: VecDeque<Job>,
    /// When the workers that are busy began what they are at.
    running: Vec<Instant>,
    pub workers: usize,
    pub idle: usize,
    pub closed: bool,
}

/// Workers to get to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Help {
    /// Idle ones to be woken.
    pub wake: usize,
    /// New ones to be started; they are counted already.
    pub start: usize,
}

impl Queue {
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

    /// The workers that what waits is worth, beyond those that are busy and get to it by and by;
    /// `most` may be there.
    pub fn help(&mut self, most: usize, now: Instant) -> Help {
        if self.closed {
            return Help { wake: 0, start: 0 };
        }
        let prompt = self.running.iter().filter(|&&begun| now.since(begun) <= SLOW).count();
        let shared = self.background.len().div_ceil(SHARE).saturating_sub(prompt);
        let wanted = self.urgent.len() + self.other.len() + shared;
        let wake = wanted.min(self.idle);
        let start = (wanted - wake).min(most.saturating_sub(self.workers));
        self.workers += start;
        Help { wake, start }
    }

    /// The next jobs for a worker, and the moment at which it begins them. Several where one
    /// execution serves them all: all reads of the table that wait are served by one read, because
    /// it begins after each of them was asked for.
    pub fn begin(&mut self) -> Option<(Vec<Job>, Instant)> {
        let first = self
            .urgent
            .pop_front()
            .or_else(|| self.background.pop_front())
            .or_else(|| self.other.pop_front())?;
        let mut jobs = vec![first];
        if jobs[0].command == DriveCommand::ReadTable {
            let (reads, rest) = core::mem::take(&mut self.other)
                .into_iter()
                .partition::<VecDeque<Job>, _>(|job| job.command == DriveCommand::ReadTable);
            self.other = rest;
            jobs.extend(reads);
        }
        let begun = clock::now();
        self.running.push(begun);
        Some((jobs, begun))
    }

    /// The command that was begun at `begun` has ended. Whether others follow that nobody waits
    /// for.
    pub fn end(&mut self, begun: Instant) -> bool {
        if let Some(at) = self.running.iter().position(|&other| other == begun) {
            self.running.swap_remove(at);
        }
        self.urgent.is_empty() && !self.background.is_empty()
    }

    /// What has waited since before `before`.
    pub fn expire(&mut self, before: Instant) -> Vec<Job> {
        let mut expired = Vec::new();
        for queue in [&mut self.urgent, &mut self.background, &mut self.other] {
            while queue.front().is_some_and(|job| job.queued < before) {
                expired.extend(queue.pop_front());
            }
        }
        expired
    }

    /// Everything that waits.
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
    use idm_protocol::Record;

    const MOST: usize = 4;

    fn job(command: DriveCommand, urgency: Urgency) -> Job {
        let done = Completion::new(|_| {});
        let queued = clock::now();
        Job { command, urgency, queued, until: queued + SLOW, done }
    }

    fn mutex(op: MutexOp) -> DriveCommand {
        DriveCommand::Mutex(op, Record::end_of_table())
    }

    fn queue(awaited: usize, background: usize) -> Queue {
        let mut queue = Queue::default();
        for _ in 0..background {
            queue.push(job(mutex(MutexOp::Refresh), Urgency::Background));
        }
        for _ in 0..awaited {
            queue.push(job(mutex(MutexOp::Trylock), Urgency::Awaited));
        }
        queue
    }

    fn help(queue: &mut Queue) -> (usize, usize) {
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
        let (_, begun) = queue.begin().unwrap();
        assert_eq!(help(&mut queue), (0, 0), "whoever is at it goes on to the others");
        let later = begun + SLOW * 2;
        assert_eq!(queue.help(MOST, later), Help { wake: 0, start: 1 });
        assert!(queue.end(begun), "there is more");
    }

    #[test]
    fn what_keeps_or_frees_locks_comes_first() {
        let mut queue = Queue::default();
        let kinds = [
            (MutexOp::Trylock, Urgency::Awaited),
            (MutexOp::Destroy, Urgency::Background),
            (MutexOp::Unlock, Urgency::Awaited),
        ];
        kinds.into_iter().for_each(|(op, urgency)| queue.push(job(mutex(op), urgency)));
        let order: Vec<DriveCommand> = core::iter::from_fn(|| queue.begin())
            .map(|(mut jobs, _)| jobs.remove(0).command)
            .collect();
        assert_eq!(order, [MutexOp::Unlock, MutexOp::Destroy, MutexOp::Trylock].map(mutex));
    }
}
