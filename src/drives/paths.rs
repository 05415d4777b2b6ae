//! The paths to one drive: the one in use, and the state of the others.
//!
//! A command takes the best path. If it certainly did not reach the drive, it takes the next path
//! at once; so does a read, which may be carried out twice. Any other command that may have reached
//! the drive is reported so, because the engine decides what may be sent after it. By then the path
//! counts as failed, and the engine's next command takes another one.
//!
//! With reservations, firmware may refuse mutex commands by a path that is not registered, with the
//! same status that also means that another host has the mutex. So registered paths come first. If
//! a path that may have lost its registration refuses a command, the command had no effect and
//! takes another registered path, whose answer counts.
//!
//! A worker that has just finished its command tries a failed path with a read, until a read
//! succeeds; the pauses in between double. Where all paths have failed, every command tries them
//! all: the engine's own pauses decide how often.

use super::rate::Rate;
use crate::sys::clock;
use crate::sys::sync::{Mutex, MutexGuard, planted};
use crate::topology::{PathAddress, UNKNOWN};
use crate::transport::{
    Answer, Connect, Deadline, DrivePath, Limits, RawStatus, ReserveAnswer, ReserveOrder,
    TransportError,
};
use core::time::Duration;
use idm_engine::Instant;
use idm_protocol::{DriveCommand, MutexOp, Reply, Status};
use std::sync::Arc;

/// Time after which a path that is still busy with a command counts as slow. Majorities do not wait
/// for a drive that has only slow paths, and commands take other paths.
pub(crate) const SLOW: Duration = Duration::from_millis(100);
/// The longest time of a read that is repeated on another path; after a longer one its sender asks
/// again.
const REPEAT: Duration = Duration::from_secs(1);
/// Failure of a drive without a path.
const NO_PATH: &str = "no path leads to it";
/// Failure of a path whose refusal may be due to its lost registration.
const NOT_REGISTERED: &str = "RESERVATION CONFLICT by a path that may not be registered";
/// Advice about a drive that does not answer.
const SEE_KERNEL: &str = "see the kernel's log, and bring it back before another one is lost";
/// Interval between two messages about invalid answers of a drive.
const REMIND: Duration = Duration::from_secs(60);
/// Pause before a failed path is tried again: the first and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// The paths to one drive.
pub(crate) struct Paths(Mutex<PathsState>);

struct PathsState {
    /// The drive's name for messages: a path that was named, and its identity.
    name: String,
    /// Whether the name has no path yet, or may be another drive's, because a path has gone since.
    name_is_old: bool,
    paths: Vec<PathState>,
    /// Path that worked last.
    used: Option<PathId>,
    next_id: u64,
    /// Whether the drive answered the last command.
    answers: bool,
    /// Time of the last message that the drive's answers are invalid.
    nonsense_said: Option<Instant>,
    /// Whether a path is being tried with a read.
    probing: bool,
    /// Failure of the last command, in words, if it was not carried out.
    trouble: Option<String>,
    /// Bound on the rate of messages about the drive.
    rate: Rate,
}

/// Number that distinguishes a path from all others that the drive has or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PathId(u64);

struct PathState {
    id: PathId,
    address: PathAddress,
    transport: Arc<dyn DrivePath>,
    /// Number of failures in a row, and time of the last one.
    failures: u32,
    failed: Instant,
    /// Start times of the commands that are on this path.
    running: Vec<Instant>,
    /// Whether this host has registered a key by it, as far as is known.
    registered: bool,
}

impl PathState {
    fn is_slow(&self, now: Instant) -> bool {
        self.running.iter().any(|&begun| now.since(begun) > SLOW)
    }

    /// Whether the path failed and may be tried again.
    fn is_due(&self, now: Instant) -> bool {
        let (first, longest) = PAUSE;
        let pause = first * 2u32.pow(self.failures.saturating_sub(1).min(10));
        self.failures > 0 && now.since(self.failed) >= pause.min(longest)
    }
}

/// Guard for a command on a path: while it exists, the command counts as running there.
struct PathInUse<'a> {
    paths: &'a Paths,
    id: PathId,
    transport: Arc<dyn DrivePath>,
    begun: Instant,
}

impl Drop for PathInUse<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.paths.state().path(self.id) {
            if let Some(at) = path.running.iter().position(|&begun| begun == self.begun) {
                path.running.swap_remove(at);
            }
        }
    }
}

impl PathsState {
    fn path(&mut self, id: PathId) -> Option<&mut PathState> {
        self.paths.iter_mut().find(|path| path.id == id)
    }

    fn add(&mut self, identity: &str, address: &PathAddress, connect: &Connect) {
        if self.paths.iter().all(|path| path.address != *address) {
            self.next_id += 1;
            self.paths.push(PathState {
                id: PathId(self.next_id),
                address: address.clone(),
                transport: connect(identity, address),
                failures: 0,
                failed: Instant::default(),
                running: Vec::new(),
                registered: false,
            });
        }
    }

    /// The best of the paths that were not tried yet: not failed, registered, not slow, least busy,
    /// and last one that worked, in this order.
    fn best(&mut self, tried: &[PathId], now: Instant) -> Option<&mut PathState> {
        let used = self.used;
        self.paths.iter_mut().filter(|path| !tried.contains(&path.id)).min_by_key(|path| {
            let fails = (path.failures > 0).then_some(path.failed);
            let unregistered = !path.registered;
            (fails, unregistered, path.is_slow(now), path.running.len(), Some(path.id) != used)
        })
    }

    /// Records whether a path is registered after an order about that.
    fn note_registration(&mut self, id: PathId, order: &ReserveOrder, answer: &ReserveAnswer) {
        let Some(path) = self.path(id) else { return };
        match (order, answer) {
            // An NVMe drive registers hosts and not paths.
            (ReserveOrder::Register { .. }, ReserveAnswer::Done) => {
                path.registered = !matches!(path.address, PathAddress::Nvme(_));
            }
            (ReserveOrder::Register { .. } | ReserveOrder::Unregister(_), _) => {
                path.registered = false;
            }
            _ => {}
        }
    }

    /// Whether a path's RESERVATION CONFLICT may be due to a lost registration: another path is
    /// registered and this one is not known to be, or another registered path, which was not tried,
    /// can show it.
    fn may_lack_registration(
        &mut self,
        id: PathId,
        tried: &[PathId],
        command: &DriveCommand,
    ) -> bool {
        let mut others = self.paths.iter().filter(|path| path.registered && path.id != id);
        let is_any = others.clone().next().is_some();
        let may_tell = others.any(|path| !tried.contains(&path.id));
        // To others, it is a usual answer: another host has the mutex, or shares it.
        let has = matches!(command, DriveCommand::Mutex(MutexOp::Refresh | MutexOp::Unlock, _));
        match self.path(id) {
            Some(path) if path.registered => may_tell && has,
            _ => is_any,
        }
    }

    /// Records that the drive refused a command by these paths and not by another one. Returns a
    /// message.
    fn note_unregistered(&mut self, ids: &[PathId]) -> Vec<String> {
        let mut said = Vec::new();
        for path in self.paths.iter_mut().filter(|path| ids.contains(&path.id)) {
            if core::mem::take(&mut path.registered) {
                said.push(format!(
                    "drive {}: path {} has lost its registration, commands take another one",
                    self.name, path.address
                ));
            }
        }
        said
    }

    /// Records the result of a command on a path. Returns a message, once when a path fails and
    /// once when it works again; with a single path, the drive's own message says it instead.
    fn note_path(&mut self, id: PathId, failure: Option<&TransportError>) -> Option<String> {
        let several = self.paths.len() > 1;
        let at = self.paths.iter().position(|path| path.id == id)?;
        let path = &mut self.paths[at];
        let failed_before = path.failures > 0;
        match failure {
            Some(why) => {
                path.failures = path.failures.saturating_add(1);
                path.failed = clock::now();
                let left = self.paths.iter().filter(|path| path.failures == 0).count();
                (several && !failed_before).then(|| {
                    let address = &self.paths[at].address;
                    let are = if left == 1 { "is" } else { "are" };
                    format!("drive {}: path {address} fails, {left} {are} left: {why}", self.name)
                })
            }
            None => {
                path.failures = 0;
                self.used = Some(id);
                (several && failed_before)
                    .then(|| format!("drive {}: path {} works again", self.name, path.address))
            }
        }
    }

    /// Records the failure of a command: the drive's status if it answered, else the error of the
    /// path.
    fn note_trouble(
        &mut self,
        reply: &Reply,
        raw: Option<RawStatus>,
        why: Option<&TransportError>,
    ) {
        self.trouble = match (reply, raw, why) {
            (Reply::Table(_) | Reply::Status(Status::Good), ..) => None,
            (_, Some(raw), _) => Some(raw.to_string()),
            (Reply::Status(Status::Failed), ..) => Some("an answer that makes no sense".into()),
            (_, _, Some(why)) => Some(why.to_string()),
            (_, _, None) if self.paths.is_empty() => Some(NO_PATH.into()),
            _ => None,
        };
    }

    /// The message about invalid answers, at most once per [`REMIND`]: this may go on for long,
    /// with valid answers in between.
    fn note_nonsense(&mut self) -> Option<String> {
        let now = clock::now();
        let news = self.nonsense_said.is_none_or(|said| now.since(said) >= REMIND);
        news.then(|| {
            self.nonsense_said = Some(now);
            format!(
                "drive {}: an answer makes no sense, or says that a command failed inside the \
                 drive ({}); it counts as a drive that does not have the lock. If this is said \
                 again, look at the kernel's log for the drive, and at its firmware",
                self.name,
                self.trouble.as_deref().unwrap_or("nonsense")
            )
        })
    }

    /// The messages when the drive stops answering and when it answers again, each once.
    fn note_drive(&mut self, reply: &Reply, why: Option<&TransportError>) -> Vec<String> {
        let mut said = Vec::new();
        // Uncertain without a failure of the path: the answer does not show its origin.
        let unclear = *reply == Reply::Status(Status::Uncertain) && why.is_none();
        if unclear || *reply == Reply::Status(Status::Failed) {
            said.extend(self.note_nonsense());
        }
        let silent = matches!(reply, Reply::Status(Status::Unreachable | Status::Uncertain));
        let silent = silent && !unclear;
        // For a path that leads to no drive, the message came when it was named.
        if self.answers != silent || self.name.starts_with(UNKNOWN) {
            self.answers = !silent;
            return said;
        }
        self.answers = !silent;
        let name = &self.name;
        said.push(match (silent, why) {
            (true, Some(why)) => format!("drive {name} does not answer: {why}; {SEE_KERNEL}"),
            (true, None) if self.paths.is_empty() => {
                format!("drive {name} does not answer: {NO_PATH}; {SEE_KERNEL}")
            }
            (true, None) => format!("drive {name} does not answer; {SEE_KERNEL}"),
            (false, _) => format!("drive {name} answers again"),
        });
        said
    }
}

impl Paths {
    /// No path yet.
    pub(crate) fn new(name: String) -> Paths {
        Paths(Mutex::new(PathsState {
            name,
            name_is_old: true,
            paths: Vec::new(),
            used: None,
            next_id: 0,
            answers: true,
            nonsense_said: None,
            probing: false,
            trouble: None,
            rate: Rate::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, PathsState> {
        self.0.lock()
    }

    /// The drive's name for messages.
    pub(crate) fn name(&self) -> String {
        self.state().name.clone()
    }

    /// Adds the paths that `name` leads to: a path that was named, or the drive's identity.
    pub(crate) fn add(
        &self,
        name: &str,
        identity: &str,
        addresses: &[PathAddress],
        connect: &Connect,
    ) {
        let mut state = self.state();
        let before = state.paths.len();
        for address in addresses {
            state.add(identity, address, connect);
        }
        // Several partitions may be named in turn, and the first one stays.
        let renames = state.paths.len() > before || state.name_is_old;
        if renames && name != identity {
            state.name = format!("{name} ({identity})");
            state.name_is_old = false;
        }
    }

    /// Replaces the paths. Those that are gone close their devices, so that the kernel can reuse
    /// the names. Paths that failed may work again.
    pub(crate) fn set(&self, identity: &str, addresses: &[PathAddress], connect: &Connect) {
        let mut state = self.state();
        let (left, gone): (Vec<PathState>, Vec<PathState>) =
            state.paths.drain(..).partition(|path| addresses.contains(&path.address));
        state.paths = left;
        for path in &mut state.paths {
            path.failed = Instant::default();
        }
        for address in addresses {
            state.add(identity, address, connect);
        }
        state.name_is_old |= !gone.is_empty();
        let name = state.name.clone();
        // Logging and closing may take long.
        drop(state);
        for path in gone {
            log::info!("drive {name}: path {} is gone", path.address);
        }
    }

    /// Whether the drive did not answer its last command, or all paths to it are slow now.
    pub(crate) fn are_slow(&self, now: Instant) -> bool {
        let state = self.state();
        !state.answers || state.paths.iter().all(|path| path.failures > 0 || path.is_slow(now))
    }

    /// The failure of the last command, in words, if it was not carried out.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// Makes the drive confirm its identity on each path before the next command.
    pub(crate) fn doubt(&self) {
        self.state().paths.iter().for_each(|path| path.transport.doubt());
    }

    /// Whether the drive answered its last command.
    pub(crate) fn answer(&self) -> bool {
        self.state().answers
    }

    /// The number of paths.
    pub(crate) fn count(&self) -> usize {
        self.state().paths.len()
    }

    /// Runs a command, if it may still begin. After some time its sender counts it as lost, and
    /// then it must not run. This host may have been suspended meanwhile.
    pub(crate) fn execute(&self, command: &DriveCommand, deadline: &Deadline) -> Reply {
        let begun = clock::now();
        if !deadline.may_begin(begun) {
            return Reply::Status(Status::Unreachable);
        }
        let mut tried = Vec::new();
        let mut reply = Reply::Status(Status::Unreachable);
        let mut raw = None;
        let mut why = None;
        let mut refused = Vec::new();
        let mut now = begun;
        while let Some(running) = self.begin(&tried, now) {
            let id = running.id;
            let result = running.transport.execute(command, deadline);
            drop(running);
            let said = self.state().note_path(id, result.as_ref().err());
            if said.is_some() {
                self.warn(said);
            }
            let undelivered = match result {
                Ok(answer) if answer.reply == Reply::Status(Status::Conflict) => {
                    if !self.state().may_lack_registration(id, &tried, command) {
                        Answer { reply, raw } = answer;
                        break;
                    }
                    refused.push(id);
                    TransportError::NotSent(NOT_REGISTERED.to_owned())
                }
                Ok(answer) => {
                    Answer { reply, raw } = answer;
                    if !refused.is_empty() {
                        let said = self.state().note_unregistered(&refused);
                        self.warn(said);
                    }
                    break;
                }
                Err(undelivered) => undelivered,
            };
            let sent = matches!(undelivered, TransportError::Unknown(_));
            why = Some(undelivered);
            now = clock::now();
            if sent {
                reply = Reply::Status(Status::Uncertain);
                let repeat = *command == DriveCommand::ReadTable;
                if !repeat || now.since(begun) > REPEAT {
                    break;
                }
            }
            tried.push(id);
        }
        let mut state = self.state();
        state.note_trouble(&reply, raw, why.as_ref());
        let said = state.note_drive(&reply, why.as_ref());
        drop(state);
        self.warn(said);
        reply
    }

    /// Carries out an order about reservations by one path. Takes the next path if the order
    /// certainly did not reach the drive, or only reads.
    pub(crate) fn reserve(
        &self,
        order: &ReserveOrder,
        deadline: &Deadline,
    ) -> Result<ReserveAnswer, String> {
        let mut tried = Vec::new();
        let mut why = NO_PATH.to_owned();
        while let Some(running) = self.begin(&tried, clock::now()) {
            let id = running.id;
            let undelivered = match running.transport.reserve(order, deadline) {
                Ok(answer) => return Ok(answer),
                Err(undelivered) => undelivered,
            };
            why = undelivered.to_string();
            let sent = matches!(undelivered, TransportError::Unknown(_));
            if sent && *order != ReserveOrder::Report {
                break;
            }
            tried.push(id);
        }
        Err(why)
    }

    /// Carries out an order about reservations by every path for which the time is enough. The best
    /// paths come first, so that a path that hangs does not block the others for ever.
    pub(crate) fn reserve_by_each(
        &self,
        order: &ReserveOrder,
        deadline: &Deadline,
    ) -> Vec<Result<ReserveAnswer, TransportError>> {
        let (mut tried, mut answers) = (Vec::new(), Vec::new());
        while let Some(running) = self.begin(&tried, clock::now()) {
            let ended = running.transport.reserve(order, deadline);
            if let Ok(answer) = &ended {
                self.state().note_registration(running.id, order, answer);
            }
            answers.push(ended);
            tried.push(running.id);
        }
        answers
    }

    /// Logs warnings about the drive, as far as their rate allows, and the delayed one. The caller
    /// must not hold the mutex: the reactor needs it, and the log may block, for example on a host
    /// whose disks are gone.
    pub(crate) fn warn(&self, what: impl IntoIterator<Item = String>) {
        let now = clock::now();
        let mut state = self.state();
        let mut said: Vec<String> =
            what.into_iter().filter_map(|text| state.rate.admit(text, now)).collect();
        said.extend(state.rate.due(now));
        drop(state);
        said.into_iter().for_each(|text| log::warn!("{text}"));
    }

    /// Logs the warning that was delayed.
    pub(crate) fn warn_at_last(&self) {
        let last = self.state().rate.last_word();
        last.into_iter().for_each(|text| log::warn!("{text}"));
    }

    fn begin(&self, tried: &[PathId], begun: Instant) -> Option<PathInUse<'_>> {
        let mut state = self.state();
        let mut path = state.best(tried, begun)?;
        if planted!(BeginInTwoSteps) {
            let id = path.id;
            drop(state);
            state = self.state();
            path = state.path(id)?;
        }
        path.running.push(begun);
        let (id, transport) = (path.id, path.transport.clone());
        Some(PathInUse { paths: self, id, transport, begun })
    }

    /// Tries a failed path again, if its pause is over and commands can take another path.
    pub(crate) fn probe(&self, limits: Limits) {
        let (begun, id, transport) = {
            let mut state = self.state();
            let failed = state.paths.iter().filter(|path| path.failures > 0).count();
            if state.probing || failed == 0 || failed == state.paths.len() {
                return;
            }
            let begun = clock::now();
            let Some(path) = state.paths.iter().find(|path| path.is_due(begun)) else {
                return;
            };
            let found = (begun, path.id, path.transport.clone());
            if planted!(ProbeTwice) {
                drop(state);
                state = self.state();
            }
            state.probing = true;
            found
        };
        let _probe = Probe(self);
        let used = self.state().used;
        let result = transport.execute(&DriveCommand::ReadTable, &limits.deadline(begun));
        let mut state = self.state();
        let said = state.note_path(id, result.as_ref().err());
        state.used = used;
        drop(state);
        self.warn(said);
    }
}

/// Guard that marks a path as being tried.
struct Probe<'a>(&'a Paths);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.state().probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::virtual_time;
    use crate::sys::sync::Condvar;
    use crate::transport::soon;
    use idm_engine::Timing;
    use idm_protocol::{Class, HostId, MutexOp, Record, ResourceId, State, Value, ValueUpdate};
    use std::collections::HashMap;
    use std::thread;

    /// A path whose results a test sets; it counts its commands.
    #[derive(Default)]
    struct Fake {
        state: Mutex<FakeState>,
        changed: Condvar,
    }

    #[derive(Default)]
    struct FakeState {
        failure: Option<TransportError>,
        /// Whether mutex commands get RESERVATION CONFLICT.
        conflicts: bool,
        hangs: bool,
        writes: u32,
        reads: u32,
        deadlines: Vec<Deadline>,
        /// Orders about reservations that were sent.
        orders: u32,
        /// Time that each of them takes.
        order_time: Duration,
    }

    impl Fake {
        fn deadlines(&self) -> Vec<Deadline> {
            self.state.lock().deadlines.clone()
        }

        fn set(&self, work: impl FnOnce(&mut FakeState)) {
            work(&mut self.state.lock());
            self.changed.notify_all();
        }

        fn counts(&self) -> (u32, u32) {
            let state = self.state.lock();
            (state.writes, state.reads)
        }
    }

    impl DrivePath for Fake {
        fn execute(
            &self,
            command: &DriveCommand,
            deadline: &Deadline,
        ) -> Result<Answer, TransportError> {
            let mut state = self.state.lock();
            state.deadlines.push(deadline.clone());
            let read = *command == DriveCommand::ReadTable;
            *(if read { &mut state.reads } else { &mut state.writes }) += 1;
            while state.hangs {
                state = self.changed.wait(state);
            }
            match &state.failure {
                Some(failure) => Err(failure.clone()),
                None if read => Ok(Reply::Table(Arc::new([])).into()),
                None if state.conflicts => Ok(Reply::Status(Status::Conflict).into()),
                None => Ok(Reply::Status(Status::Good).into()),
            }
        }

        fn reserve(
            &self,
            _: &ReserveOrder,
            deadline: &Deadline,
        ) -> Result<ReserveAnswer, TransportError> {
            if deadline.timeout(Duration::from_millis(1)).is_none() {
                return Err(TransportError::NotSent("too late".into()));
            }
            let mut state = self.state.lock();
            state.orders += 1;
            clock::sleep(state.order_time);
            state.failure.clone().map_or(Ok(ReserveAnswer::Done), Err)
        }
    }

    struct Bench {
        paths: Paths,
        fakes: HashMap<PathAddress, Arc<Fake>>,
    }

    const A: &str = "/dev/sda";
    const B: &str = "/dev/sdb";

    fn address(node: &str) -> PathAddress {
        PathAddress::Scsi(node.into())
    }

    impl Bench {
        fn new(nodes: &[&str]) -> Bench {
            Bench::named("/dev/pv", nodes)
        }

        fn named(name: &str, nodes: &[&str]) -> Bench {
            let addresses: Vec<PathAddress> = [A, B].map(address).into();
            let fakes = addresses.into_iter().map(|address| (address, Arc::default())).collect();
            let bench = Bench { paths: Paths::new("naa.5".into()), fakes };
            let nodes: Vec<PathAddress> = nodes.iter().map(|node| address(node)).collect();
            bench.paths.add(name, "naa.5", &nodes, &bench.connect());
            bench
        }

        fn connect(&self) -> Box<Connect> {
            let fakes = self.fakes.clone();
            Box::new(move |_, address| fakes[address].clone())
        }

        fn set(&self, nodes: &[&str]) {
            let addresses: Vec<PathAddress> = nodes.iter().map(|node| address(node)).collect();
            self.paths.set("naa.5", &addresses, &self.connect());
        }

        fn at(&self, node: &str) -> &Fake {
            &self.fakes[&address(node)]
        }

        fn fails(&self, node: &str, failure: Option<TransportError>) {
            self.at(node).set(|state| state.failure = failure);
        }

        fn write(&self) -> Status {
            self.send(MutexOp::Refresh)
        }

        fn send(&self, op: MutexOp) -> Status {
            let record = Record {
                state: State::Locked,
                modified_ms: 0,
                countdown_ms: 1,
                class: Class::Exclusive,
                value_update: ValueUpdate::Keep,
                value: Value::ZERO,
                resource: ResourceId::GLOBAL,
                metadata: [0; 64],
                host: HostId::from_bytes([7; 32]),
            };
            match self.paths.execute(&DriveCommand::Mutex(op, record), &soon()) {
                Reply::Status(status) => status,
                Reply::Table(_) => panic!("a table"),
            }
        }

        fn probe(&self) {
            self.paths.probe(Limits::new(&Timing::for_lease(Duration::from_secs(60))));
        }

        fn read(&self) -> Reply {
            self.paths.execute(&DriveCommand::ReadTable, &soon())
        }
    }

    fn gone() -> Option<TransportError> {
        Some(TransportError::NotSent("gone".into()))
    }

    fn lost() -> Option<TransportError> {
        Some(TransportError::Unknown("lost".into()))
    }

    #[test]
    fn a_command_that_was_not_sent_goes_by_the_next_path_at_once() {
        let bench = Bench::new(&[A, B]);
        bench.fails(A, gone());
        for _ in 0..3 {
            assert_eq!(bench.write(), Status::Good);
        }
        assert_eq!((bench.at(A).counts(), bench.at(B).counts()), ((1, 0), (3, 0)));
    }

    #[test]
    fn a_command_that_may_have_been_carried_out_is_told_and_the_next_goes_by_another_path() {
        let bench = Bench::new(&[A, B]);
        bench.fails(A, lost());
        assert_eq!(bench.write(), Status::Uncertain);
        assert_eq!(bench.at(B).counts(), (0, 0));
        assert_eq!(bench.write(), Status::Good);
        assert_eq!((bench.at(A).counts(), bench.at(B).counts()), ((1, 0), (1, 0)));
        // Also where it was added second.
        let bench = Bench::new(&[A, B]);
        bench.fails(A, gone());
        bench.fails(B, lost());
        assert_eq!(bench.write(), Status::Uncertain);
    }

    #[test]
    fn what_may_not_be_begun_any_more_goes_by_no_path() {
        let time = virtual_time();
        let bench = Bench::new(&[A, B]);
        let deadline = soon();
        time.advance(Duration::from_millis(4500));
        let reply = bench.paths.execute(&DriveCommand::ReadTable, &deadline);
        assert_eq!(reply, Reply::Status(Status::Unreachable));
        assert_eq!((bench.at(A).counts(), bench.at(B).counts()), ((0, 0), (0, 0)));
        // The next path gets the same deadline, not a new one.
        bench.fails(A, gone());
        let deadline = soon();
        bench.paths.execute(&DriveCommand::ReadTable, &deadline);
        deadline.give_up();
        for node in [A, B] {
            let [given] = &bench.at(node).deadlines()[..] else { panic!("one command") };
            assert!(given.give_up(), "the same one");
        }
    }

    /// A registration was allowed at one moment, and must not be made long after it: by then this
    /// host may have been removed from the drive.
    #[test]
    fn an_order_goes_by_no_path_long_after_it_was_given() {
        let _time = virtual_time();
        let bench = Bench::new(&[A, B]);
        let register = ReserveOrder::Register { key: 1, anew: true };
        bench.at(A).set(|state| state.order_time = Duration::from_secs(11));
        bench.paths.reserve_by_each(&register, &soon());
        assert_eq!([A, B].map(|node| bench.at(node).state.lock().orders), [1, 1]);
        // The kernel does not return the command for minutes.
        bench.at(A).set(|state| state.order_time = Duration::from_secs(120));
        let [first, second] = &bench.paths.reserve_by_each(&register, &soon())[..] else {
            panic!("two paths");
        };
        assert!(first.is_ok() && second.is_err());
        assert_eq!([A, B].map(|node| bench.at(node).state.lock().orders), [2, 1]);
        bench.fails(A, lost());
        assert!(bench.paths.reserve(&register, &soon()).is_err());
        assert_eq!(bench.at(B).state.lock().orders, 1);
    }

    impl Bench {
        /// Registers by each path.
        fn register(&self) {
            let register = ReserveOrder::Register { key: 1, anew: true };
            self.paths.reserve_by_each(&register, &soon());
        }

        fn conflicts(&self, node: &str, conflicts: bool) {
            self.at(node).set(|state| state.conflicts = conflicts);
        }

        /// The mutex commands that each path got.
        fn writes(&self) -> [u32; 2] {
            [A, B].map(|node| self.at(node).counts().0)
        }
    }

    #[test]
    fn a_refusal_by_a_path_that_lost_its_registration_does_not_count() {
        let bench = Bench::new(&[A, B]);
        bench.register();
        assert_eq!((bench.write(), bench.writes()), (Status::Good, [1, 0]));
        bench.conflicts(A, true);
        assert_eq!((bench.write(), bench.writes()), (Status::Good, [2, 1]));
        // From now on it is the last choice, until it is registered again.
        assert_eq!((bench.send(MutexOp::Trylock), bench.writes()), (Status::Good, [2, 2]));
        bench.fails(B, gone());
        assert_eq!((bench.write(), bench.writes()), (Status::Unreachable, [3, 3]));
        bench.fails(B, None);
        bench.conflicts(A, false);
        bench.register();
        assert_eq!((bench.write(), bench.writes()), (Status::Good, [4, 3]));
    }

    #[test]
    fn a_refusal_by_all_paths_counts() {
        let bench = Bench::new(&[A, B]);
        bench.register();
        [A, B].iter().for_each(|node| bench.conflicts(node, true));
        assert_eq!((bench.write(), bench.writes()), (Status::Conflict, [1, 1]));
        // A request for a held mutex is refused anyway: no second path needs to be tried.
        assert_eq!(bench.send(MutexOp::Trylock), Status::Conflict);
        assert_eq!(bench.writes().iter().sum::<u32>(), 3);
        // Nobody registered.
        let bench = Bench::new(&[A, B]);
        bench.conflicts(A, true);
        assert_eq!((bench.write(), bench.writes()), (Status::Conflict, [1, 0]));
    }

    #[test]
    fn a_path_that_is_not_registered_is_not_used_beside_one_that_is() {
        let bench = Bench::new(&[B]);
        bench.register();
        bench.set(&[A, B]);
        bench.conflicts(A, true);
        for op in [MutexOp::Refresh, MutexOp::Trylock] {
            assert_eq!(bench.send(op), Status::Good);
        }
        assert_eq!(bench.writes(), [0, 2]);
        // The order to remove the registration ends that.
        bench.paths.reserve_by_each(&ReserveOrder::Unregister(1), &soon());
        bench.conflicts(A, false);
        bench.fails(B, gone());
        assert_eq!((bench.write(), bench.writes()), (Status::Good, [1, 3]));
    }

    #[test]
    fn a_read_may_be_repeated() {
        let bench = Bench::new(&[A, B]);
        bench.fails(A, lost());
        assert_eq!(bench.read(), Reply::Table(Arc::new([])));
        assert_eq!((bench.at(A).counts(), bench.at(B).counts()), ((0, 1), (0, 1)));
    }

    #[test]
    fn a_drive_without_a_working_path_says_what_is_certain() {
        let bench = Bench::new(&[A, B]);
        bench.fails(A, gone());
        bench.fails(B, gone());
        assert_eq!(bench.write(), Status::Unreachable);
        assert!(bench.paths.are_slow(clock::now()));
        // Every command tries both, and the first that works is used.
        bench.fails(B, None);
        assert_eq!(bench.write(), Status::Good);
        assert!(!bench.paths.are_slow(clock::now()));
        let none = Bench::new(&[]);
        assert_eq!(none.write(), Status::Unreachable);
        assert!(none.paths.are_slow(clock::now()));
    }

    #[test]
    fn a_path_that_hangs_holds_one_command_and_the_others_go_on() {
        let bench = Bench::new(&[A, B]);
        bench.at(A).set(|state| state.hangs = true);
        thread::scope(|scope| {
            let stuck = scope.spawn(|| bench.write());
            while bench.at(A).counts() == (0, 0) {
                thread::yield_now();
            }
            for _ in 0..5 {
                assert_eq!(bench.write(), Status::Good);
            }
            assert_eq!(bench.at(A).counts(), (1, 0));
            assert!(!bench.paths.are_slow(clock::now() + 2 * SLOW));
            bench.at(A).set(|state| state.hangs = false);
            assert_eq!(stuck.join().unwrap(), Status::Good);
        });
    }

    #[test]
    fn a_path_that_failed_is_tried_with_reads_and_pauses() {
        let bench = Bench::new(&[A, B]);
        bench.fails(A, gone());
        assert_eq!(bench.write(), Status::Good);
        bench.probe();
        assert_eq!(bench.at(A).counts(), (1, 0), "it is too early");
        let tries_after = |pause: Duration, expected: (u32, u32)| {
            bench.paths.state().paths[0].failed = clock::now() - pause;
            bench.probe();
            assert_eq!(bench.at(A).counts(), expected, "after {pause:?}");
        };
        tries_after(PAUSE.0, (1, 1));
        tries_after(PAUSE.0, (1, 1));
        tries_after(2 * PAUSE.0, (1, 2));
        bench.paths.state().paths[0].failures = u32::MAX;
        tries_after(PAUSE.1, (1, 3));
        // A kernel event about the drive's paths ends the pause.
        bench.fails(A, None);
        bench.set(&[A, B]);
        bench.probe();
        assert_eq!(bench.at(A).counts(), (1, 4));
        // The path works again, and nothing is left to try.
        bench.probe();
        assert_eq!(bench.at(A).counts(), (1, 4));
        bench.fails(B, gone());
        assert_eq!(bench.write(), Status::Good);
    }

    #[test]
    fn a_drive_is_called_by_the_path_that_leads_to_it_now() {
        let bench = Bench::new(&[A]);
        let named = |name: &str, node: &str| {
            bench.paths.add(name, "naa.5", &[address(node)], &bench.connect());
            bench.paths.name()
        };
        assert_eq!(named("/dev/sda2", A), "/dev/pv (naa.5)", "one of several partitions");
        // The disk comes back under another name; the kernel reports it before lvm does.
        bench.set(&[B]);
        assert_eq!(named("/dev/sdb1", B), "/dev/sdb1 (naa.5)");
        assert_eq!(named("/dev/sdb2", B), "/dev/sdb1 (naa.5)");
        // A drive from a note is known by its identity before its PV is named.
        let noted = Bench::named("naa.5", &[A]);
        assert_eq!(noted.paths.name(), "naa.5");
        noted.paths.add("/dev/sda1", "naa.5", &[address(A)], &noted.connect());
        assert_eq!(noted.paths.name(), "/dev/sda1 (naa.5)");
    }

    #[test]
    fn paths_come_and_go() {
        let bench = Bench::new(&[A]);
        assert_eq!(bench.write(), Status::Good);
        assert_eq!(Arc::strong_count(&bench.fakes[&address(A)]), 2);
        bench.set(&[B]);
        assert_eq!(Arc::strong_count(&bench.fakes[&address(A)]), 1, "it is let go of");
        assert_eq!(bench.write(), Status::Good);
        assert_eq!(bench.at(B).counts(), (1, 0));
        bench.set(&[]);
        assert_eq!(bench.write(), Status::Unreachable);
        bench.set(&[A]);
        assert_eq!(bench.write(), Status::Good);
    }
}
