//! The drives that this process knows, each with its queue and its workers.

pub(crate) mod paths;
pub(crate) mod queue;
mod rate;
pub(crate) mod watch;

use crate::metrics::{DriveMetrics, DriveSample, Metrics};
use crate::sys::sync::{Condvar, Mutex, MutexGuard, planted};
use crate::sys::{clock, thread};
use crate::topology::{Found, Inventory, Located, Topology, TopologyError, UNKNOWN};
use crate::transport::{Connect, Deadline, Limits, ReserveAnswer, ReserveOrder, TransportError};
use crate::words::list;
use core::time::Duration;
use idm_engine::{DriveRef, Instant, Member};
use idm_protocol::{DriveCommand, Reply, Status};
use once_cell::sync::OnceCell;
use paths::Paths;
use queue::{Begun, CommandQueue, Expired, Help, Job, ReplyHandler, Urgency};
use rate::Rate;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Commands of one drive that are in the kernel at the same time, and as many again for every
/// further path: a path that hangs must not block the others.
const WORKERS: usize = 4;
/// Consequence of a drive that cannot be used, for messages.
const COUNTED: &str = "it counts as a drive that does not answer";
/// Time after which a worker without work ends.
pub(crate) const IDLE: Duration = Duration::from_secs(30);

/// The drives that are in use. A drive keeps its [`DriveRef`] for as long as it is known.
pub struct Drives {
    topology: Topology,
    connect: Box<Connect>,
    /// Time limits of commands.
    limits: Limits,
    known: Mutex<Known>,
    /// The disks of the host, as of the last inventory.
    inventory: Mutex<Arc<Inventory>>,
}

struct Known {
    /// The drives by their handles, which are never used again for another drive.
    all: BTreeMap<DriveRef, Arc<KnownDrive>>,
    next: u32,
    by_identity: HashMap<String, DriveRef>,
    /// The drives that each path led to when it was last resolved.
    by_path: HashMap<String, Vec<DriveRef>>,
    /// The last message about each path that leads to no drive and each drive without a vote.
    complaints: HashMap<String, String>,
    /// The last warning about each path and drive that is still to be logged. This is done after
    /// the mutex is released: the reactor needs the mutex, and the log may block.
    unsaid: BTreeMap<String, String>,
    /// Bound on the rate at which they are logged.
    rate: Rate,
}

/// One drive.
struct KnownDrive {
    reference: DriveRef,
    identity: String,
    /// Device that the drive is a part of, once known.
    device: OnceCell<String>,
    paths: Paths,
    /// Whether it has answered an IDM command.
    has_idm: AtomicBool,
    /// Whether the log already says that it has no IDM.
    no_idm: AtomicBool,
    queue: Mutex<CommandQueue>,
    work: Condvar,
    metrics: DriveMetrics,
    /// Time when it was last named or got a command, in us since boot.
    used: AtomicU64,
}

/// The drives behind the paths of a lock.
pub struct Members {
    /// The drives, each once.
    pub members: Vec<Member>,
    /// Number of them that can be found now. The others never answer.
    pub found: usize,
    /// Errors of the paths that lead to no drive.
    pub lost: Vec<TopologyError>,
    /// Identities of the drives that each path stands for, as far as they are known.
    pub led_to: Vec<Vec<String>>,
    /// Keeps the drives from being forgotten.
    pub pins: Vec<DrivePin>,
}

/// Keeps a drive from being forgotten for as long as it lives.
#[derive(Clone)]
pub struct DrivePin {
    _drive: Arc<KnownDrive>,
}

/// Releases the mutex and logs the warnings that are still to be logged, if it is time.
fn say_unsaid(mut known: MutexGuard<'_, Known>) {
    let text = known.due(clock::now());
    drop(known);
    text.into_iter().for_each(|text| log::warn!("{text}"));
}

impl Drives {
    /// A list without drives.
    pub fn new(topology: Topology, connect: Box<Connect>, limits: Limits) -> Drives {
        let known = Known {
            all: BTreeMap::new(),
            next: 0,
            by_identity: HashMap::new(),
            by_path: HashMap::new(),
            complaints: HashMap::new(),
            unsaid: BTreeMap::new(),
            rate: Rate::new(),
        };
        let (known, inventory) = (Mutex::new(known), Mutex::default());
        Drives { topology, connect, limits, known, inventory }
    }

    /// The drives behind paths: for each path, all drives that its device lies on. A missing drive
    /// counts as one that never answers. Where a path led to drives before, those count, so that
    /// three lost partitions of one drive are one lost drive.
    pub fn members(&self, paths: &[String]) -> Members {
        self.members_as_named(paths, &[])
    }

    /// As [`members`](Drives::members), of paths that lvm named some time ago. `meant` has the
    /// identities of the drives that each of them led to then; an entry that is empty or missing
    /// means any. A path that leads to none of these now has been given to another disk, which is
    /// no drive of the volume group. Then the drives that were meant count, wherever they are.
    pub fn members_as_named(&self, paths: &[String], meant: &[Vec<String>]) -> Members {
        let mut members: Vec<Member> = Vec::new();
        let mut there = HashSet::new();
        let (mut lost, mut pins, mut led_to) = (Vec::new(), Vec::new(), Vec::new());
        let inventory = self.inventory();
        let located = self.topology.locate(paths);
        let mut known = self.known.lock();
        for (at, (path, located)) in paths.iter().zip(located).enumerate() {
            lost.extend(located.as_ref().err().cloned());
            let meant = meant.get(at).map_or(&[][..], Vec::as_slice);
            let mut counted = Vec::new();
            let whole = match &located {
                Ok(found) if is_another(found, meant) => {
                    let of = found.drives.iter().map(|drive| drive.identity.clone()).collect();
                    let why = format!(
                        "{path} leads to drive {} now; lvm named it when it led to {}, which goes \
                         on to count. If the volume group has the other drive now, stop and start \
                         it (vgchange --lockstop, --lockstart)",
                        list(of),
                        list(meant.to_vec())
                    );
                    known.complain(path, &why);
                    false
                }
                Ok(found) => {
                    counted = known.found(path, found, &inventory, &self.connect);
                    there.extend(counted.iter().copied());
                    found.missing.is_empty()
                }
                Err(error) => {
                    let remedy = match error {
                        TopologyError::Missing { .. } => "bring it back",
                        TopologyError::Unusable { .. } => "replace it",
                    };
                    known.complain(path, &format!("{error}; {COUNTED}, {remedy}"));
                    false
                }
            };
            let mut led = known.identities(&counted);
            if !whole {
                let meant = meant.iter().map(|it| known.named(it, &inventory, &self.connect));
                let meant: Vec<_> = meant.collect();
                there.extend(meant.iter().filter(|it| it.paths.count() > 0).map(|it| it.reference));
                let meant: Vec<_> = meant.iter().map(|it| it.reference).collect();
                // What it led to before it was named is a guess, which the next look may correct.
                let lost = meant.iter().filter(|it| !counted.contains(it)).copied();
                led.extend(known.identities(&lost.collect::<Vec<_>>()));
                known.add_lost(path, meant, &mut counted);
            }
            led_to.push(led);
            for drive in &counted {
                if !members.iter().any(|member| member.drive == *drive) {
                    let Some(it) = known.all.get(drive) else { continue };
                    it.note_use(clock::now());
                    pins.push(DrivePin { _drive: it.clone() });
                    let identity = it.identity.clone().into_bytes();
                    members.push(Member { drive: *drive, identity });
                }
            }
            known.by_path.insert(path.clone(), counted);
        }
        known.say_shared_devices(&members);
        say_unsaid(known);
        let found = members.iter().filter(|member| there.contains(&member.drive)).count();
        Members { members, found, lost, led_to, pins }
    }

    /// Adds to `members` the drives that have a partition for the global lock now; drives that had
    /// one before stay.
    pub fn add_global(&self, members: &mut Vec<Member>) -> Members {
        let inventory = self.inventory();
        let first = members.is_empty();
        for (node, located) in inventory.global() {
            let drive = self.known.lock().drive(&located.identity);
            drive.device.get_or_init(|| located.device.clone());
            drive.paths.add(
                &node.to_string_lossy(),
                &drive.identity,
                &located.paths,
                &self.connect,
            );
            if members.iter().all(|member| member.drive != drive.reference) {
                if !first {
                    log::warn!("the global lock is now also on drive {}", drive.paths.name());
                }
                let identity = drive.identity.clone().into_bytes();
                members.push(Member { drive: drive.reference, identity });
            }
        }
        let mut known = self.known.lock();
        known.say_shared_devices(members);
        say_unsaid(known);
        let there =
            |member: &&Member| self.get(member.drive).is_some_and(|drive| drive.paths.count() > 0);
        let found = members.iter().filter(there).count();
        let pin = |member: &Member| self.get(member.drive).map(|drive| DrivePin { _drive: drive });
        let pins = members.iter().filter_map(pin).collect();
        Members { members: members.clone(), found, lost: Vec::new(), led_to: Vec::new(), pins }
    }

    /// The drive with this identity. It does not answer until a path leads to it.
    pub fn member(&self, identity: &str) -> Member {
        let inventory = self.inventory();
        let drive = self.known.lock().named(identity, &inventory, &self.connect);
        Member { drive: drive.reference, identity: identity.as_bytes().to_vec() }
    }

    /// Records the drives that an earlier lvmlockd found behind each of these paths. They count
    /// where a path leads to none now.
    pub fn remember(&self, paths: &[String], drives: &[Vec<String>]) {
        for (path, identities) in paths.iter().zip(drives) {
            let drives: Vec<_> = identities.iter().map(|it| self.member(it).drive).collect();
            if !drives.is_empty() {
                self.known.lock().by_path.entry(path.clone()).or_insert(drives);
            }
        }
    }

    /// The last messages about paths and drives.
    #[cfg(test)]
    pub fn complaints(&self) -> Vec<String> {
        self.known.lock().complaints.values().cloned().collect()
    }

    fn get(&self, drive: DriveRef) -> Option<Arc<KnownDrive>> {
        self.known.lock().all.get(&drive).cloned()
    }

    /// The drive's name for messages: its path and identity.
    pub fn name(&self, drive: DriveRef) -> String {
        self.get(drive).map_or_else(String::new, |drive| drive.paths.name())
    }

    /// Logs a warning about a drive, as far as the rate of such warnings allows.
    pub fn warn(&self, drive: DriveRef, text: String) {
        match self.get(drive) {
            Some(drive) => drive.paths.warn([text]),
            None => log::warn!("{text}"),
        }
    }

    /// The failure of the last command to a drive, in words, if it was not carried out.
    pub fn trouble(&self, drive: DriveRef) -> Option<String> {
        self.get(drive)?.paths.trouble()
    }

    /// The drive's identity.
    pub fn identity(&self, drive: DriveRef) -> String {
        self.get(drive).map_or_else(String::new, |drive| drive.identity.clone())
    }

    /// Whether a drive has shown that it has IDM.
    pub fn has_idm(&self, drive: DriveRef) -> bool {
        self.get(drive).is_some_and(|drive| drive.has_idm.load(Ordering::Relaxed))
    }

    /// Logs once that a drive has no IDM.
    pub fn say_no_idm(&self, drive: DriveRef) {
        let Some(drive) = self.get(drive) else { return };
        if !drive.no_idm.swap(true, Ordering::Relaxed) {
            drive.paths.warn([format!(
                "drive {} has no IDM; {COUNTED}, replace it or update its firmware",
                drive.paths.name()
            )]);
        }
    }

    /// The drives that currently do not answer promptly.
    pub fn slow(&self, now: Instant) -> Vec<DriveRef> {
        let all = self.known.lock().all();
        all.iter().filter(|drive| drive.paths.are_slow(now)).map(|drive| drive.reference).collect()
    }

    /// The counters of the process and of each drive, as text for Prometheus.
    pub fn render(&self, metrics: &Metrics) -> String {
        let all = self.known.lock().all();
        let names: Vec<String> = all.iter().map(|drive| drive.paths.name()).collect();
        let samples: Vec<DriveSample<'_>> =
            all.iter().zip(&names).map(|(drive, name)| drive.sample(name)).collect();
        metrics.render(&samples)
    }

    /// Queues a command. Never blocks; `done` is called exactly once, even where there is no such
    /// drive. A background command begins with the next [`start`](Drives::start), unless a worker
    /// gets to it before.
    pub fn submit(
        &self,
        drive: DriveRef,
        command: DriveCommand,
        urgency: Urgency,
        done: ReplyHandler,
    ) {
        self.submit_since(clock::now(), drive, command, urgency, done);
    }

    /// As [`submit`](Drives::submit); the time limits of the command count from `queued`.
    pub fn submit_since(
        &self,
        queued: Instant,
        drive: DriveRef,
        command: DriveCommand,
        urgency: Urgency,
        done: ReplyHandler,
    ) {
        match self.get(drive) {
            Some(drive) => {
                drive.note_use(queued);
                let (deadline, lost) = (self.limits.deadline(queued), queued + self.limits.lost);
                drive.submit(Job { command, urgency, queued, deadline, lost, done }, self.limits);
            }
            None => done.answer(Reply::Status(Status::Unreachable), false),
        }
    }

    /// Carries out an order about reservations by one path, and waits for its end. The error says
    /// why there is no answer.
    pub fn reserve(
        &self,
        drive: DriveRef,
        order: &ReserveOrder,
        deadline: &Deadline,
    ) -> Result<ReserveAnswer, String> {
        let drive = self.get(drive).ok_or_else(|| "there is no such drive".to_owned())?;
        drive.note_use(clock::now());
        drive.paths.reserve(order, deadline)
    }

    /// Carries out an order about reservations by every path, one after the other.
    pub fn reserve_by_each(
        &self,
        drive: DriveRef,
        order: &ReserveOrder,
        deadline: &Deadline,
    ) -> Vec<Result<ReserveAnswer, TransportError>> {
        let Some(drive) = self.get(drive) else { return Vec::new() };
        drive.note_use(clock::now());
        drive.paths.reserve_by_each(order, deadline)
    }

    /// The number of paths to a drive.
    pub fn path_count(&self, drive: DriveRef) -> usize {
        self.get(drive).map_or(0, |drive| drive.paths.count())
    }

    /// Lets workers take the waiting commands.
    pub fn start(&self) {
        let all = self.known.lock().all();
        all.into_iter().for_each(|drive| drive.start(self.limits));
    }

    /// Ends commands that have waited in a queue since before `before`, or for too long: they
    /// certainly did not reach their drive. Reports commands lost that the kernel keeps for too
    /// long. Starts more workers for the others where needed. Logs warnings about paths that are
    /// due.
    pub fn expire(&self, before: Instant, now: Instant) {
        self.sweep(before, now);
        self.start();
        say_unsaid(self.known.lock());
    }

    fn sweep(&self, before: Instant, now: Instant) {
        let all = self.known.lock().all();
        for drive in all {
            let Expired { unsent, lost } = drive.queue.lock().expire(before, now);
            for done in unsent {
                done.answer(Reply::Status(Status::Unreachable), false);
            }
            for done in lost {
                done.answer(Reply::Status(Status::Uncertain), false);
            }
        }
    }

    /// The disks of the host, as of the last inventory.
    pub fn inventory(&self) -> Arc<Inventory> {
        self.inventory.lock().clone()
    }

    /// As [`Topology::event_count`].
    pub fn event_count(&self) -> Option<u64> {
        self.topology.event_count()
    }

    /// Lists the disks of the host, and updates the paths to known drives. Nothing changes where
    /// sysfs cannot be read.
    pub fn take_inventory(&self) {
        let inventory = match self.topology.inventory() {
            Ok(inventory) => Arc::new(inventory),
            Err(error) => return log::debug!("the disks cannot be listed: {error}"),
        };
        *self.inventory.lock() = inventory.clone();
        let all = self.known.lock().all();
        for drive in all.iter().filter(|drive| Inventory::would_list(&drive.identity)) {
            let paths = inventory.paths_of(&drive.identity);
            drive.paths.set(&drive.identity, paths, &self.connect);
        }
    }

    /// Forgets each drive that has no path, was neither named nor used since `since`, and has no
    /// [`DrivePin`]. Also forgets the paths that led only to such drives. A handle of a forgotten
    /// drive stands for a drive that cannot be reached.
    pub fn forget(&self, since: Instant) {
        let mut known = self.known.lock();
        let Known { all, by_identity, by_path, complaints, .. } = &mut *known;
        let is_idle = |drive: &KnownDrive| drive.is_idle(since);
        let idle: HashSet<DriveRef> = all
            .iter()
            .filter(|(_, drive)| Arc::strong_count(drive) == 1 && is_idle(drive))
            .map(|(&drive, _)| drive)
            .collect();
        if idle.is_empty() {
            return;
        }
        by_path.retain(|_, drives| !drives.iter().all(|drive| idle.contains(drive)));
        // A path that stays must go on counting all drives that it led to.
        let counted: HashSet<DriveRef> = by_path.values().flatten().copied().collect();
        all.retain(|drive, _| !idle.contains(drive) || counted.contains(drive));
        by_identity.retain(|_, drive| all.contains_key(drive));
        complaints.retain(|of, _| by_path.contains_key(of) || by_identity.contains_key(of));
    }

    /// Makes all drives confirm their identities before their next command.
    pub fn doubt(&self) {
        let all = self.known.lock().all();
        all.iter().for_each(|drive| drive.paths.doubt());
    }

    /// Ends all workers after their current command, and drops the commands that wait.
    pub fn close(&self) {
        let all = self.known.lock().all();
        for drive in all {
            let mut queue = drive.queue.lock();
            queue.closed = true;
            let dropped = queue.take_all();
            drop(queue);
            drop(dropped);
            if !planted!(CloseUnsaid) {
                drive.work.notify_all();
            }
        }
    }
}

/// Whether none of the drives that were found is among those that are meant.
fn is_another(found: &Found, meant: &[String]) -> bool {
    let is_meant = |drive: &Located| meant.contains(&drive.identity);
    !meant.is_empty() && !found.drives.is_empty() && !found.drives.iter().any(is_meant)
}

impl Known {
    /// The warnings that are still to be logged, as one text, if their rate allows it now. A path's
    /// warning does not replace another's, because no warning is repeated.
    fn due(&mut self, now: Instant) -> Option<String> {
        if self.unsaid.is_empty() || !self.rate.spend(now) {
            return None;
        }
        let unsaid: Vec<String> = core::mem::take(&mut self.unsaid).into_values().collect();
        Some(match unsaid.len() {
            1 => list(unsaid),
            count => format!("{count} messages about paths: {}", list(unsaid)),
        })
    }

    fn all(&self) -> Vec<Arc<KnownDrive>> {
        self.all.values().cloned().collect()
    }

    fn drive(&mut self, identity: &str) -> Arc<KnownDrive> {
        match self.by_identity.entry(identity.to_owned()) {
            Entry::Occupied(known) => {
                let drive = self.all[known.get()].clone();
                drive.note_use(clock::now());
                drive
            }
            Entry::Vacant(slot) => {
                let reference = DriveRef(self.next);
                self.next += 1;
                slot.insert(reference);
                let drive = Arc::new(KnownDrive::new(reference, identity.to_owned()));
                self.all.insert(reference, drive.clone());
                drive
            }
        }
    }

    /// The drives that were found behind a path.
    fn found(
        &mut self,
        path: &str,
        found: &Found,
        inventory: &Inventory,
        connect: &Connect,
    ) -> Vec<DriveRef> {
        if !found.missing.is_empty() {
            let why = format!("{path}: {} is gone", found.missing.join(", "));
            self.complain(path, &format!("{why}; {COUNTED}, bring it back"));
        } else if self.complaints.remove(path).is_some() {
            let names: Vec<&str> = found.drives.iter().map(|drive| &*drive.identity).collect();
            let why = format!("{path}: is there again, drive {}", names.join(", "));
            self.unsaid.insert(path.to_owned(), why);
        }
        let mut drives = Vec::new();
        for located in &found.drives {
            let drive = self.drive(&located.identity);
            let identity = &located.identity;
            drive.device.get_or_init(|| located.device.clone());
            drive.paths.add(path, identity, &located.paths, connect);
            drive.paths.add(path, identity, inventory.paths_of(identity), connect);
            drives.push(drive.reference);
        }
        drives
    }

    /// The drive with this identity, with the paths to it that the inventory shows.
    fn named(
        &mut self,
        identity: &str,
        inventory: &Inventory,
        connect: &Connect,
    ) -> Arc<KnownDrive> {
        let drive = self.drive(identity);
        drive.paths.add(identity, identity, inventory.paths_of(identity), connect);
        drive
    }

    /// The identities of those drives that were found once.
    fn identities(&self, drives: &[DriveRef]) -> Vec<String> {
        let identity = |drive| self.all.get(drive).map(|drive| drive.identity.clone());
        drives.iter().filter_map(identity).filter(|it| !it.starts_with(UNKNOWN)).collect()
    }

    /// Adds the drives that a path stands for: those that are meant or, where this is not known,
    /// those that it led to before. A path that never led to a drive counts as one drive: the true
    /// number is not known, but a majority without this drive must be a majority with it.
    fn add_lost(&mut self, path: &str, meant: Vec<DriveRef>, drives: &mut Vec<DriveRef>) {
        let before = self.by_path.get(path);
        let before = match meant.iter().any(|drive| !drives.contains(drive)) {
            // What was known before may have been of another disk, except that a part was unknown.
            true => {
                let is_unknown = |drive: &DriveRef| self.identities(&[*drive]).is_empty();
                let unknown = before.into_iter().flatten().copied().filter(is_unknown);
                meant.into_iter().chain(unknown).collect()
            }
            false => before
                .cloned()
                .unwrap_or_else(|| vec![self.drive(&format!("{UNKNOWN}{path}")).reference]),
        };
        for drive in before {
            if !drives.contains(&drive) {
                drives.push(drive);
            }
        }
    }

    /// Logs once which drives are parts of one device, whose failure takes several votes away.
    fn say_shared_devices(&mut self, members: &[Member]) {
        let mut first: HashMap<&str, &Arc<KnownDrive>> = HashMap::new();
        for member in members {
            let Some(drive) = self.all.get(&member.drive) else { continue };
            let Some(device) = drive.device.get() else { continue };
            let other = first.entry(device).or_insert(drive);
            if other.reference == drive.reference {
                continue;
            }
            let why = format!(
                "drives {} and {} are parts of one device, whose failure takes two votes away; use \
                 as many other drives as it has parts",
                other.paths.name(),
                drive.paths.name()
            );
            if self.complaints.get(&drive.identity) != Some(&why) {
                self.complaints.insert(drive.identity.clone(), why.clone());
                self.unsaid.insert(drive.identity.clone(), why);
            }
        }
    }

    /// Logs once why a path cannot be used.
    fn complain(&mut self, path: &str, why: &str) {
        if self.complaints.get(path).is_none_or(|said| said != why) {
            self.unsaid.insert(path.to_owned(), why.to_owned());
            self.complaints.insert(path.to_owned(), why.to_owned());
        }
    }
}

impl KnownDrive {
    /// Records that a caller has named the drive or sends it a command.
    fn note_use(&self, at: Instant) {
        self.used.store(at.as_micros(), Ordering::Relaxed);
    }

    /// Whether no path leads to the drive, and no caller has used it since `since`.
    fn is_idle(&self, since: Instant) -> bool {
        let used = Instant::from_micros(self.used.load(Ordering::Relaxed));
        let queue = self.queue.lock();
        used < since && self.paths.count() == 0 && queue.is_empty() && queue.workers == 0
    }

    /// A drive that no path leads to yet: it counts, and never answers.
    fn new(reference: DriveRef, identity: String) -> KnownDrive {
        KnownDrive {
            reference,
            paths: Paths::new(identity.clone()),
            identity,
            device: OnceCell::new(),
            has_idm: AtomicBool::new(false),
            no_idm: AtomicBool::new(false),
            queue: Mutex::default(),
            work: Condvar::new(),
            metrics: DriveMetrics::default(),
            used: AtomicU64::new(clock::now().as_micros()),
        }
    }

    fn sample<'a>(&'a self, name: &'a str) -> DriveSample<'a> {
        let (queued, workers) = {
            let queue = self.queue.lock();
            (queue.len(), queue.workers)
        };
        DriveSample {
            identity: &self.identity,
            name,
            answers: self.paths.answer(),
            paths: self.paths.count(),
            queued,
            workers,
            metrics: &self.metrics,
        }
    }

    fn submit(self: Arc<KnownDrive>, job: Job, limits: Limits) {
        let awaited = job.urgency == Urgency::Awaited;
        if planted!(HelpBeforePush) {
            self.clone().start(limits);
        }
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            return;
        }
        if queue.bars(&job.command) {
            drop(queue);
            return job.done.answer(Reply::Status(Status::Unreachable), false);
        }
        if planted!(PushAfterClose) {
            drop(queue);
            queue = self.queue.lock();
        }
        queue.push(job);
        drop(queue);
        if awaited && !planted!(HelpBeforePush) {
            self.start(limits);
        }
    }

    /// Lets workers take the waiting commands.
    fn start(self: Arc<KnownDrive>, limits: Limits) {
        let most = WORKERS * self.paths.count().max(1);
        let Help { wake, start } = self.queue.lock().help(most, clock::now());
        for _ in 0..wake {
            self.work.notify_one();
        }
        for _ in 0..start {
            let drive = self.clone();
            if let Err(error) = thread::spawn("idm-drive", move || drive.serve(limits)) {
                self.no_worker(&error);
            }
        }
    }

    /// Handles a worker that could not be started: other workers take over, and where there is
    /// none, the commands fail.
    fn no_worker(&self, error: &std::io::Error) {
        let mut queue = self.queue.lock();
        queue.workers -= usize::from(!planted!(NoWorkerUnseen));
        if queue.workers > 0 {
            return;
        }
        let jobs: Vec<Job> = queue.take_all();
        drop(queue);
        log::error!(
            "no thread for drive {}: {error}; {COUNTED} until there is one, see the limits of \
             lvmlockd.service (TasksMax=, MemoryMax=)",
            self.paths.name()
        );
        for job in jobs {
            job.done.answer(Reply::Status(Status::Unreachable), false);
        }
    }

    /// The main loop of a worker.
    fn serve(&self, limits: Limits) {
        while let Some(begun) = self.next() {
            self.work(&begun);
            if catch_unwind(AssertUnwindSafe(|| self.paths.probe(limits))).is_err() {
                log::error!("internal error: trying a path to {} panicked", self.identity);
            }
        }
        // No worker may be left that gives it in due time.
        self.paths.warn_at_last();
    }

    /// Runs a command and replies to each caller that still waits for it.
    fn work(&self, begun: &Begun) {
        let Begun { command, deadline, .. } = begun;
        let reply = catch_unwind(AssertUnwindSafe(|| self.paths.execute(command, deadline)))
            .unwrap_or_else(|_| {
                log::error!("internal error: a command to {} panicked", self.identity);
                Reply::Status(Status::Uncertain)
            });
        self.metrics.executed(command, &reply, clock::now().since(begun.at));
        if matches!(reply, Reply::Table(_) | Reply::Status(Status::Good)) {
            self.has_idm.store(true, Ordering::Relaxed);
            self.no_idm.store(false, Ordering::Relaxed);
        }
        let (waiting, more) = self.queue.lock().end(begun);
        for done in waiting {
            done.answer(reply.clone(), more);
        }
    }

    /// Waits for work; `None` ends the worker.
    fn next(&self) -> Option<Begun> {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                queue.workers -= 1;
                return None;
            }
            if let Some(begun) = queue.begin() {
                return Some(begun);
            }
            if planted!(IdleUnseen) {
                drop(queue);
                queue = self.queue.lock();
            }
            queue.idle += 1;
            let (guard, waited) = self.work.wait_timeout(queue, IDLE);
            queue = guard;
            queue.idle -= 1;
            if waited.timed_out() && (queue.is_empty() || planted!(EndUnseen)) {
                queue.workers -= 1;
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::{self, virtual_time};
    use crate::topology::PathAddress;
    use crate::transport::TransportError;
    use crate::transport::drive::{self, CommandError, Completion, Data, Protocol, Request};
    use idm_engine::Timing;
    use idm_protocol::{MutexOp, RECORD_LEN, Record};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, VecDeque};
    use std::sync::Weak;

    fn timing() -> Timing {
        Timing::for_lease(Duration::from_secs(60))
    }

    /// The longest time between two checks for lost commands: 1.5 times the time in which the
    /// process has to notice something.
    const SWEEP: Duration = Duration::from_millis(1500);
    /// Delay after its time-out with which the kernel returns a command, where it keeps to the
    /// time-out.
    const ABORT: Duration = Duration::from_secs(1);

    /// The times of one step of a command, and its result.
    #[derive(Clone, Copy, Debug)]
    struct Hop {
        /// Time to open the device and for everything else that comes first.
        before: Duration,
        /// The shortest time-out that the kernel keeps to.
        shortest: Duration,
        /// Time that the drive needs to answer.
        answer: Duration,
        /// Delay of the kernel beyond [`ABORT`], where the drive does not answer in time.
        recovery: Duration,
        put_off: bool,
    }

    /// The steps of a command on all paths, in virtual time that only they advance. Meanwhile lost
    /// commands are looked for, as late as is allowed.
    struct Course {
        hops: Mutex<VecDeque<Hop>>,
        drives: Mutex<Weak<Drives>>,
        swept: Mutex<Instant>,
        /// End of the last time-out, and end of the last step.
        over: Mutex<(Instant, Instant)>,
    }

    impl Course {
        fn pass(&self, time: Duration) {
            let end = clock::now() + time;
            while clock::now() < end {
                let next = *self.swept.lock() + SWEEP;
                clock::sleep(next.min(end).since(clock::now()));
                if clock::now() >= next {
                    *self.swept.lock() = clock::now();
                    if let Some(drives) = self.drives.lock().upgrade() {
                        drives.sweep(Instant::default(), clock::now());
                    }
                }
            }
        }
    }

    impl Protocol for Arc<Course> {
        fn execute(
            &self,
            _: Request,
            data: Data<'_>,
            deadline: &Deadline,
        ) -> Result<Completion, CommandError> {
            let lost = || TransportError::Unknown("lost".into()).into();
            let Some(hop) = self.hops.lock().pop_front() else {
                return Err(TransportError::NotSent("the path is gone".into()).into());
            };
            self.pass(hop.before);
            let Some(timeout) = deadline.timeout(hop.shortest) else {
                return Err(CommandError::too_late(""));
            };
            self.over.lock().0 = clock::now() + timeout;
            let answered = hop.answer <= timeout;
            self.pass(if answered { hop.answer } else { timeout + ABORT + hop.recovery });
            self.over.lock().1 = clock::now();
            if !answered {
                return Err(lost());
            }
            let status = if hop.put_off { Status::TryAgain } else { Status::Good };
            if let Data::In(bytes) = data {
                bytes[..RECORD_LEN].copy_from_slice(&Record::end_of_table().encode());
            }
            Ok(Completion { status, raw: None, transferred: RECORD_LEN })
        }
    }

    /// The reports of one command, each with the time since its submission, and the times at which
    /// time-outs and steps ended.
    struct Run {
        reports: Vec<(Reply, Duration)>,
        timeouts_over: Duration,
        steps_over: Duration,
    }

    /// `phase` is the time since the last check for lost commands.
    fn run(
        command: DriveCommand,
        waits: Duration,
        paths: u8,
        hops: &[Hop],
        phase: Duration,
    ) -> Run {
        let _time = virtual_time();
        let begin = clock::now();
        let course = Arc::new(Course {
            hops: Mutex::new(hops.iter().copied().collect()),
            drives: Mutex::default(),
            swept: Mutex::new(begin - phase),
            over: Mutex::new((begin, begin)),
        });
        let way = course.clone();
        let connect =
            Box::new(move |_: &str, _: &PathAddress| -> Arc<dyn crate::transport::DrivePath> {
                Arc::new(drive::IdmPath::new(way.clone()))
            });
        let topology = Topology::new(BTreeMap::new());
        let drives = Arc::new(Drives::new(topology, connect, Limits::new(&timing())));
        *course.drives.lock() = Arc::downgrade(&drives);
        let drive = drives.known.lock().drive("naa.5");
        let addresses: Vec<PathAddress> =
            (0..paths).map(|path| PathAddress::Scsi(format!("/dev/sd{path}").into())).collect();
        drive.paths.add("/dev/pv", "naa.5", &addresses, &drives.connect);

        let reports: Arc<Mutex<Vec<(Reply, Duration)>>> = Arc::default();
        let told = reports.clone();
        let done = ReplyHandler::new(move |reply| {
            told.lock().push((reply, clock::now().since(begin)));
        });
        drives.submit(drive.reference, command, Urgency::Background, done);
        course.pass(waits);
        let begun = drive.queue.lock().begin();
        if let Some(begun) = begun {
            drive.work(&begun);
        }
        let (timeouts, steps) = *course.over.lock();
        let reports = core::mem::take(&mut *reports.lock());
        Run { reports, timeouts_over: timeouts.since(begin), steps_over: steps.since(begin) }
    }

    fn seconds(most: u64) -> impl Strategy<Value = Duration> {
        prop_oneof![
            2 => (0..=10u64).prop_map(Duration::from_millis),
            3 => (0..=most * 1000).prop_map(Duration::from_millis),
        ]
    }

    fn hop() -> impl Strategy<Value = Hop> {
        let shortest = prop_oneof![Just(1), Just(5000), Just(7000)].prop_map(Duration::from_millis);
        let recovery = prop_oneof![3 => Just(Duration::ZERO), 1 => seconds(120)];
        (seconds(20), shortest, seconds(20), recovery, any::<bool>()).prop_map(
            |(before, shortest, answer, recovery, put_off)| Hop {
                before,
                shortest,
                answer,
                recovery,
                put_off,
            },
        )
    }

    /// Drives of a host where no drive is ever reached.
    fn unreached() -> Drives {
        let connect =
            Box::new(|_: &str, _: &PathAddress| -> Arc<dyn crate::transport::DrivePath> {
                unreachable!("no path leads to a drive")
            });
        Drives::new(Topology::new(BTreeMap::new()), connect, Limits::new(&timing()))
    }

    fn nowhere(numbers: core::ops::Range<usize>) -> Vec<String> {
        numbers.map(|number| format!("/nonexistent/{number}")).collect()
    }

    #[test]
    fn paths_and_drives_that_are_gone_are_forgotten() {
        let time = virtual_time();
        let drives = unreached();
        let first = drives.members(&nowhere(0..5000));
        assert_eq!(first.members.len(), 5000);
        let counts = || {
            let known = drives.known.lock();
            [known.all.len(), known.by_identity.len(), known.by_path.len(), known.complaints.len()]
        };
        assert_eq!(counts(), [5000; 4]);
        let lease = timing().lease;
        time.advance(lease);
        drives.forget(clock::now() - lease / 2);
        assert_eq!(counts(), [5000; 4], "they are pinned");
        let handle = first.members[0].drive;
        drop(first);
        drives.forget(clock::now() - lease * 2);
        assert_eq!(counts(), [5000; 4], "they were named a moment ago");
        // A command uses a drive, and so does its name.
        let kept = drives.members(&nowhere(1..2)).members[0].drive;
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = |drive| {
            let told = told.clone();
            let done = ReplyHandler::new(move |reply| told.lock().push(reply));
            drives.submit(drive, DriveCommand::ReadTable, Urgency::Background, done);
            drives.sweep(clock::now() + lease, clock::now() + lease);
        };
        drives.forget(clock::now() - lease / 2);
        assert_eq!(counts(), [1; 4]);
        assert!(drives.render(&Metrics::default()).len() < 20_000);
        // The handle of a forgotten drive never stands for another drive.
        let again = drives.members(&nowhere(0..2)).members;
        assert_eq!(again[1].drive, kept);
        assert_ne!(again[0].drive, handle);
        tell(handle);
        assert_eq!(*told.lock(), [Reply::Status(Status::Unreachable)]);
    }

    #[test]
    fn a_warning_about_a_path_is_held_back_and_not_left_out() {
        let time = virtual_time();
        let drives = unreached();
        // Messages in a row, of which the first ones come at once.
        let flood = |numbers| drives.members(&nowhere(numbers));
        (0..14).for_each(|number| drop(flood(number..number + 1)));
        drives.expire(Instant::default(), clock::now());
        assert_eq!(drives.known.lock().unsaid.len(), 6, "the first eight are logged");
        time.advance(Duration::from_secs(10));
        let text = drives.known.lock().due(clock::now()).unwrap();
        assert!(text.starts_with("6 messages about paths: /nonexistent/10: "), "{text}");
        assert_eq!(text.matches("/nonexistent/").count(), 6, "{text}");
        // It needs no other message.
        drop(flood(20..21));
        assert_eq!(drives.known.lock().unsaid.len(), 1);
        time.advance(Duration::from_secs(10));
        drives.expire(Instant::default(), clock::now());
        assert_eq!(drives.known.lock().unsaid.len(), 0);
    }

    #[test]
    fn a_drive_that_a_command_is_for_is_not_forgotten() {
        let time = virtual_time();
        let drives = unreached();
        let drive = drives.members(&nowhere(0..1)).members[0].drive;
        let lease = timing().lease;
        for _ in 0..10 {
            time.advance(lease / 3);
            let done = ReplyHandler::new(|_| {});
            drives.submit(drive, DriveCommand::ReadTable, Urgency::Background, done);
            drives.sweep(clock::now() + lease, clock::now() + lease);
            drives.forget(clock::now() - lease / 2);
            assert!(drives.get(drive).is_some());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// However long the queue, the open, earlier tries, other paths and the kernel's recovery
        /// take, a command is reported once and within a quarter of a lease, and no time-out is
        /// longer. Where the kernel returns a command within a second after its time-out, no part
        /// of it is left by then.
        #[test]
        fn every_command_is_reported_within_a_quarter_of_a_lease(
            waits in seconds(20),
            paths in 1u8..=3,
            reads in any::<bool>(),
            hops in proptest::collection::vec(hop(), 0..8),
            phase_ms in 0..SWEEP.as_millis() as u64,
        ) {
            let refresh = DriveCommand::Mutex(MutexOp::Refresh, Record::end_of_table());
            let command = if reads { DriveCommand::ReadTable } else { refresh };
            let run = run(command, waits, paths, &hops, Duration::from_millis(phase_ms));
            prop_assert_eq!(run.reports.len(), 1);
            let (reply, after) = &run.reports[0];
            prop_assert!(*after <= timing().linger, "{:?} after {:?}", reply, after);
            prop_assert!(run.timeouts_over <= Limits::new(&timing()).over);
            if hops.iter().all(|hop| hop.recovery.is_zero()) {
                prop_assert!(run.steps_over <= timing().linger, "{:?}", run.steps_over);
            }
            let sent = !run.timeouts_over.is_zero();
            let told_sent = *reply != Reply::Status(Status::Unreachable);
            prop_assert!(!told_sent || sent, "{:?}", reply);
            prop_assert!(!sent || told_sent || reads, "what may have been carried out is told");
        }
    }
}
