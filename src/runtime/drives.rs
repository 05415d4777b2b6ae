//! The drives that this process knows, each with its queue and its workers.

use super::{clock, thread};
use crate::topology::{Found, Located, Target, Topology, TopologyError};
use crate::transport::{Connect, DrivePath, Undelivered};
use core::time::Duration;
use idm_engine::{DriveRef, Instant, Member};
use idm_protocol::{DriveCommand, MutexOp, Reply, Status};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Commands of one drive that are in the kernel at the same time.
const MOST_WORKERS: usize = 4;
/// Ways to one drive that are kept.
const MOST_WAYS: usize = 32;
/// A drive that has been at a command for so long is slow, and majorities do not wait for it.
const SLOW: Duration = Duration::from_millis(100);
/// How long a worker without work waits before it ends.
const IDLE: Duration = Duration::from_secs(30);

/// All drives that were ever named. A drive keeps its [`DriveRef`] for the life of the process.
pub struct Drives {
    topology: Topology,
    connect: Box<Connect>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    all: Vec<Arc<Drive>>,
    by_identity: HashMap<String, DriveRef>,
    /// What a path led to when it was last looked at.
    by_path: HashMap<String, Vec<DriveRef>>,
    /// What was last said about a path that leads to no drive.
    complaints: HashMap<String, String>,
}

/// One drive.
pub(super) struct Drive {
    reference: DriveRef,
    identity: String,
    access: Mutex<Access>,
    queue: Mutex<Queue>,
    work: Condvar,
}

/// How a drive is reached, and what was last said of it.
struct Access {
    name: String,
    /// All that were named, and the one that is used: it worked last.
    ways: Vec<Way>,
    used: usize,
    answers: bool,
    no_idm: bool,
}

#[derive(Clone)]
struct Way {
    target: Target,
    path: Arc<dyn DrivePath>,
}

#[derive(Default)]
struct Queue {
    /// What keeps or frees locks.
    urgent: VecDeque<Job>,
    other: VecDeque<Job>,
    /// When the commands were begun that are in the kernel.
    running: Vec<Instant>,
    workers: usize,
    idle: usize,
    closed: bool,
}

struct Job {
    command: DriveCommand,
    queued: Instant,
    done: Completion,
}

/// Hands over the reply to a command, exactly once: a command that is dropped without one was
/// lost, and nothing is known of its effect.
pub struct Completion(Option<Box<dyn FnOnce(Reply) + Send>>);

impl Completion {
    /// Calls `done` with the reply, on a thread of the drive's; it must not block.
    pub fn new(done: impl FnOnce(Reply) + Send + 'static) -> Completion {
        Completion(Some(Box::new(done)))
    }

    fn answer(mut self, reply: Reply) {
        if let Some(done) = self.0.take() {
            done(reply);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Reply::Status(Status::Uncertain));
        }
    }
}

/// What the paths of a lock stand for.
pub struct Members {
    /// The drives, each once.
    pub members: Vec<Member>,
    /// How many of them can be found now. The others never answer.
    pub found: usize,
    /// Whether some path can never lead to a drive, and what the first such path is.
    pub unusable: Option<TopologyError>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drives {
    /// No drives yet.
    pub fn new(topology: Topology, connect: Box<Connect>) -> Drives {
        Drives { topology, connect, known: Mutex::default() }
    }

    /// The drives behind paths, all of those that a path stands on. What is missing counts as
    /// drives that never answer: as those that the path led to before, where it did, so that
    /// three lost partitions of one drive are one lost drive.
    pub fn members(&self, paths: &[String]) -> Members {
        let mut members: Vec<Member> = Vec::new();
        let mut there = HashSet::new();
        let mut unusable = None;
        for path in paths {
            let located = self.topology.locate(path);
            let mut known = locked(&self.known);
            if let Err(error @ TopologyError::Unusable { .. }) = &located {
                unusable.get_or_insert(error.clone());
            }
            let mut counted = Vec::new();
            let whole = match &located {
                Ok(found) => {
                    counted = known.found(path, found, &self.connect);
                    there.extend(counted.iter().copied());
                    found.missing.is_empty()
                }
                Err(error) => {
                    known.complain(path, &error.to_string());
                    false
                }
            };
            if !whole {
                known.add_lost(path, &mut counted);
            }
            for drive in &counted {
                if !members.iter().any(|member| member.drive == *drive) {
                    let identity = known.all[drive.0 as usize].identity.clone().into_bytes();
                    members.push(Member { drive: *drive, identity });
                }
            }
            known.by_path.insert(path.clone(), counted);
        }
        let found = members.iter().filter(|member| there.contains(&member.drive)).count();
        Members { members, found, unusable }
    }

    fn get(&self, drive: DriveRef) -> Option<Arc<Drive>> {
        locked(&self.known).all.get(drive.0 as usize).cloned()
    }

    /// The drive's name for messages: its path and identity.
    pub fn name(&self, drive: DriveRef) -> String {
        self.get(drive).map_or_else(String::new, |drive| locked(&drive.access).name.clone())
    }

    /// Takes note that a drive has no IDM. `true` the first time.
    pub fn note_no_idm(&self, drive: DriveRef) -> bool {
        self.get(drive)
            .is_some_and(|drive| !core::mem::replace(&mut locked(&drive.access).no_idm, true))
    }

    /// The drives that are known not to answer promptly.
    pub fn slow(&self, now: Instant) -> Vec<DriveRef> {
        let all = locked(&self.known).all.clone();
        all.iter().filter(|drive| drive.is_slow(now)).map(|drive| drive.reference).collect()
    }

    /// Queues a command. Never blocks; `done` is called exactly once, also where there is no such
    /// drive.
    pub fn submit(&self, drive: DriveRef, command: DriveCommand, done: Completion) {
        match self.get(drive) {
            Some(drive) => drive.submit(command, done),
            None => done.answer(Reply::Status(Status::Unreachable)),
        }
    }

    /// Answers commands that wait in queues since before `before`: they certainly did not reach
    /// their drive.
    pub fn expire(&self, before: Instant) {
        let all = locked(&self.known).all.clone();
        for drive in all {
            let expired = locked(&drive.queue).expire(before);
            for job in expired {
                job.done.answer(Reply::Status(Status::Unreachable));
            }
        }
    }

    /// Ends all workers after the command that they are at, and drops what waits.
    pub fn close(&self) {
        let all = locked(&self.known).all.clone();
        for drive in all {
            let mut queue = locked(&drive.queue);
            queue.closed = true;
            let dropped = (core::mem::take(&mut queue.urgent), core::mem::take(&mut queue.other));
            drop(queue);
            drop(dropped);
            drive.work.notify_all();
        }
    }
}

impl Known {
    fn drive(&mut self, identity: &str) -> Arc<Drive> {
        match self.by_identity.entry(identity.to_owned()) {
            Entry::Occupied(known) => self.all[known.get().0 as usize].clone(),
            Entry::Vacant(slot) => {
                let reference = DriveRef(self.all.len() as u32);
                slot.insert(reference);
                let drive = Arc::new(Drive::new(reference, identity.to_owned()));
                self.all.push(drive.clone());
                drive
            }
        }
    }

    /// The drives that were found behind a path.
    fn found(&mut self, path: &str, found: &Found, connect: &Connect) -> Vec<DriveRef> {
        if !found.missing.is_empty() {
            self.complain(path, &format!("{path}: {} is gone", found.missing.join(", ")));
        } else if self.complaints.remove(path).is_some() {
            let names: Vec<&str> = found.drives.iter().map(|drive| &*drive.identity).collect();
            log::warn!("{path}: is there again, drive {}", names.join(", "));
        }
        let mut drives = Vec::new();
        for located in &found.drives {
            let drive = self.drive(&located.identity);
            drive.add_ways(path, located, connect);
            drives.push(drive.reference);
        }
        drives
    }

    /// Adds what a path led to before. A path that never led to a drive counts as one: nobody
    /// knows how many there would be, but a majority without it must be a majority with it.
    fn add_lost(&mut self, path: &str, drives: &mut Vec<DriveRef>) {
        let before = match self.by_path.get(path) {
            Some(before) => before.clone(),
            None => vec![self.drive(&format!("unknown.{path}")).reference],
        };
        for drive in before {
            if !drives.contains(&drive) {
                drives.push(drive);
            }
        }
    }

    /// Says once what is wrong with a path.
    fn complain(&mut self, path: &str, why: &str) {
        if self.complaints.get(path).is_none_or(|said| said != why) {
            log::warn!("{why}; it counts as a drive that does not answer");
            self.complaints.insert(path.to_owned(), why.to_owned());
        }
    }
}

impl Access {
    /// Takes note of ways. Old ones stay: what they lead to is checked when they are used.
    fn add(&mut self, name: &str, located: &Located, connect: &Connect) {
        // The last that is added is used first.
        for target in located.paths.iter().rev() {
            if self.ways.iter().any(|way| way.target == *target) {
                continue;
            }
            if self.ways.len() == MOST_WAYS {
                self.ways.remove(0);
            }
            let path = connect(&located.identity, target);
            self.ways.push(Way { target: target.clone(), path });
            // The newest is the likeliest to be there.
            self.used = self.ways.len() - 1;
            self.name = format!("{name} ({})", located.identity);
        }
    }

    /// Says once that a drive does not answer, and once that it does again.
    fn note(&mut self, reply: &Reply) {
        let silent = matches!(reply, Reply::Status(Status::Unreachable | Status::Uncertain));
        if self.answers == silent && !self.ways.is_empty() {
            self.answers = !silent;
            if silent {
                log::warn!("drive {} does not answer", self.name);
            } else {
                log::warn!("drive {} answers again", self.name);
            }
        }
    }
}

impl Drive {
    /// A drive that no way leads to yet: it counts, and never answers.
    pub(super) fn new(reference: DriveRef, identity: String) -> Drive {
        let access = Access {
            name: identity.clone(),
            ways: Vec::new(),
            used: 0,
            answers: true,
            no_idm: false,
        };
        Drive {
            reference,
            identity,
            access: Mutex::new(access),
            queue: Mutex::default(),
            work: Condvar::new(),
        }
    }

    /// Takes note of the ways that `name` leads to.
    pub(super) fn add_ways(&self, name: &str, located: &Located, connect: &Connect) {
        locked(&self.access).add(name, located, connect);
    }

    /// Runs a command on the way that worked last, and on the others in turn as long as it
    /// certainly did not reach the drive.
    pub(super) fn execute(&self, command: &DriveCommand) -> Reply {
        let (ways, used) = {
            let access = locked(&self.access);
            (access.ways.clone(), access.used)
        };
        let mut reply = Reply::Status(Status::Unreachable);
        let (before, after) = ways.split_at(used.min(ways.len()));
        for way in after.iter().chain(before) {
            reply = way.path.execute(command).unwrap_or_else(|undelivered| {
                log::debug!("{undelivered}");
                Reply::Status(match undelivered {
                    Undelivered::NotSent(_) => Status::Unreachable,
                    Undelivered::Unknown(_) => Status::Uncertain,
                })
            });
            if reply != Reply::Status(Status::Unreachable) {
                let mut access = locked(&self.access);
                let at = access.ways.iter().position(|known| known.target == way.target);
                access.used = at.unwrap_or(access.used);
                break;
            }
        }
        locked(&self.access).note(&reply);
        reply
    }

    /// Whether it did not answer when it was last asked, or has not for a while now.
    fn is_slow(&self, now: Instant) -> bool {
        let stuck = locked(&self.queue).running.iter().any(|&begun| now.since(begun) > SLOW);
        stuck || !locked(&self.access).answers
    }

    fn submit(self: Arc<Drive>, command: DriveCommand, done: Completion) {
        let job = Job { command, queued: clock::now(), done };
        let mut queue = locked(&self.queue);
        if queue.closed {
            drop(queue);
            return;
        }
        queue.push(job);
        let wanted = queue.len() > queue.idle && queue.workers < MOST_WORKERS;
        if wanted {
            queue.workers += 1;
        }
        drop(queue);
        self.work.notify_one();
        if wanted {
            let drive = self.clone();
            if let Err(error) = thread::spawn("idm-drive", move || drive.serve()) {
                self.no_worker(&error);
            }
        }
    }

    /// A worker could not be started: others take the work, and where there is none it fails.
    fn no_worker(&self, error: &std::io::Error) {
        let mut queue = locked(&self.queue);
        queue.workers -= 1;
        if queue.workers > 0 {
            return;
        }
        let jobs: Vec<Job> = queue.take_all();
        drop(queue);
        log::error!("no thread for drive {}: {error}", locked(&self.access).name);
        for job in jobs {
            job.done.answer(Reply::Status(Status::Unreachable));
        }
    }

    /// A worker's life.
    fn serve(&self) {
        while let Some(mut jobs) = self.next_jobs() {
            let Some(first) = jobs.first() else { continue };
            let command = first.command.clone();
            let begun = clock::now();
            locked(&self.queue).running.push(begun);
            let reply =
                catch_unwind(AssertUnwindSafe(|| self.execute(&command))).unwrap_or_else(|_| {
                    log::error!("internal error: a command to {} panicked", self.identity);
                    Reply::Status(Status::Uncertain)
                });
            {
                let mut queue = locked(&self.queue);
                if let Some(at) = queue.running.iter().position(|&other| other == begun) {
                    queue.running.swap_remove(at);
                }
            }
            let last = jobs.pop();
            for job in jobs {
                job.done.answer(reply.clone());
            }
            if let Some(job) = last {
                job.done.answer(reply);
            }
        }
    }

    /// Waits for work. Several jobs where one execution serves them all; `None` ends the worker.
    fn next_jobs(&self) -> Option<Vec<Job>> {
        let mut queue = locked(&self.queue);
        loop {
            if queue.closed {
                queue.workers -= 1;
                return None;
            }
            let jobs = queue.pop();
            if !jobs.is_empty() {
                return Some(jobs);
            }
            queue.idle += 1;
            let (guard, waited) =
                self.work.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            queue.idle -= 1;
            if waited.timed_out() && queue.len() == 0 {
                queue.workers -= 1;
                return None;
            }
        }
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.urgent.len() + self.other.len()
    }

    fn push(&mut self, job: Job) {
        match job.command {
            DriveCommand::Mutex(MutexOp::Refresh | MutexOp::Unlock, _) => {
                self.urgent.push_back(job)
            }
            _ => self.other.push_back(job),
        }
    }

    /// The next job. All reads of the table that wait are served by one read, because it begins
    /// after each of them was asked for.
    fn pop(&mut self) -> Vec<Job> {
        let first = self.urgent.pop_front().or_else(|| self.other.pop_front());
        let mut jobs: Vec<Job> = first.into_iter().collect();
        if jobs.iter().any(|job| job.command == DriveCommand::ReadTable) {
            let (reads, rest) = core::mem::take(&mut self.other)
                .into_iter()
                .partition::<VecDeque<Job>, _>(|job| job.command == DriveCommand::ReadTable);
            self.other = rest;
            jobs.extend(reads);
        }
        jobs
    }

    fn expire(&mut self, before: Instant) -> Vec<Job> {
        let mut expired = Vec::new();
        for queue in [&mut self.urgent, &mut self.other] {
            while queue.front().is_some_and(|job| job.queued < before) {
                expired.extend(queue.pop_front());
            }
        }
        expired
    }

    fn take_all(&mut self) -> Vec<Job> {
        let mut all: Vec<Job> = self.urgent.drain(..).collect();
        all.extend(self.other.drain(..));
        all
    }
}
