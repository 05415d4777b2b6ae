//! The runtime with drives, and with engines, whose behaviour a test sets.

use super::engine::any::AnyEngine;
use super::*;
use crate::fencing::Fencing;
use crate::lock::{Role, vg_of};
use crate::state::host_id;
use crate::state::undo_note::{self, Dates, Earlier, UndoNote};
use crate::sys::clock;
use crate::sys::sync::atomic::AtomicBool;
use crate::topology::tests::Tree;
use crate::topology::{PathAddress, Topology, TopologyError};
use crate::transport::{Answer, Deadline, DrivePath, Limits, TransportError};
use idm_engine::{Command, Event, Instant, Loss, RequestError, Timing, Token, ValueRead};
use idm_protocol::{HostId, MutexOp, Status};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Condvar, Mutex};

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);

/// A drive that answers "good" to every command while it does not hang.
#[derive(Default)]
struct FakeDrive {
    hung: Mutex<bool>,
    released: Condvar,
    inside: AtomicUsize,
    most_inside: AtomicUsize,
    reads: AtomicUsize,
    unlocks: AtomicUsize,
    panics: AtomicBool,
}

impl FakeDrive {
    fn hang(&self, hung: bool) {
        *self.hung.lock().unwrap() = hung;
        self.released.notify_all();
    }

    fn run(&self, command: &DriveCommand) -> Reply {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_inside.fetch_max(inside, Ordering::SeqCst);
        let mut hung = self.hung.lock().unwrap();
        while *hung {
            hung = self.released.wait(hung).unwrap();
        }
        drop(hung);
        self.inside.fetch_sub(1, Ordering::SeqCst);
        assert!(!self.panics.load(Ordering::SeqCst), "a bug in the transport");
        match command {
            DriveCommand::ReadTable => {
                self.reads.fetch_add(1, Ordering::SeqCst);
                Reply::Table(Arc::new([]))
            }
            DriveCommand::Mutex(op, _) => {
                let unlock = *op == MutexOp::Unlock;
                self.unlocks.fetch_add(usize::from(unlock), Ordering::SeqCst);
                Reply::Status(Status::Good)
            }
        }
    }
}

struct FakePath(Arc<FakeDrive>);

impl DrivePath for FakePath {
    fn execute(
        &self,
        command: &DriveCommand,
        deadline: &Deadline,
    ) -> Result<Answer, TransportError> {
        if deadline.timeout(Duration::ZERO).is_none() {
            return Err(TransportError::NotSent("too late".into()));
        }
        Ok(self.0.run(command).into())
    }
}

/// Inputs and outputs of an engine whose behaviour a test sets.
#[derive(Default)]
struct Script {
    requests: Vec<Request>,
    events: VecDeque<Event>,
    mode: Option<Mode>,
    /// Time until which the lock is safe, where that is soon.
    safe_until: Option<Instant>,
    /// Whether a request is under way; without one, none can end.
    busy: bool,
    /// Whether its votes have to move.
    moving: bool,
    /// The number of times that drives were named to it.
    spread: usize,
    panics: bool,
}

/// The engines of a test, by lock.
type Scripts = Arc<Mutex<HashMap<ResourceId, Script>>>;

struct FakeEngine {
    id: ResourceId,
    scripts: Scripts,
}

impl FakeEngine {
    fn script<T>(&self, work: impl FnOnce(&mut Script) -> T) -> T {
        let mut scripts = self.scripts.lock().unwrap_or_else(|e| e.into_inner());
        work(scripts.entry(self.id).or_default())
    }
}

impl AnyEngine for FakeEngine {
    fn expect_silence(&mut self, _: &[DriveRef]) {}
    fn spread(&mut self, _: &[Member], _: Instant) {
        self.script(|script| script.spread += 1);
    }
    fn request(&mut self, request: Request, _: Instant) -> Result<(), RequestError> {
        let panics = self.script(|script| {
            if let Request::Release { .. } = request {
                script.mode = None;
                script.events.push_back(Event::Done(Outcome::Released));
            }
            script.requests.push(request);
            script.busy = true;
            script.panics
        });
        assert!(!panics, "a bug in the engine");
        Ok(())
    }
    fn move_votes(&mut self, _: &[DriveRef], _: Instant) -> bool {
        false
    }
    fn is_moving(&self) -> bool {
        self.script(|script| script.moving)
    }
    fn awaits_drives(&self) -> bool {
        self.script(|script| script.mode == Some(Mode::Exclusive) && script.spread == 0)
    }
    fn on_reply(&mut self, _: Token, _: Reply, _: Instant) {}
    fn on_timer(&mut self, _: Instant) {}
    fn next_command(&mut self, _: Instant) -> Option<Command> {
        None
    }
    fn next_deadline(&self) -> Option<Instant> {
        Some(clock::now() + Duration::from_millis(5))
    }
    fn next_event(&mut self) -> Option<Event> {
        self.script(|script| {
            let ends = matches!(script.events.front(), Some(Event::Done(_)));
            if ends && !core::mem::take(&mut script.busy) {
                return None;
            }
            script.events.pop_front()
        })
    }
    fn mode(&self) -> Option<Mode> {
        self.script(|script| script.mode)
    }
    fn safe_until(&self) -> Option<Instant> {
        let (mode, until) = self.script(|script| (script.mode, script.safe_until));
        mode.map(|_| until.unwrap_or(clock::now() + LONG))
    }
    fn is_idle(&self) -> bool {
        false
    }
}

struct Bench {
    runtime: Arc<Runtime>,
    drives: Vec<Arc<FakeDrive>>,
    members: Vec<Member>,
    scripts: Scripts,
    killed: Arc<Mutex<Vec<String>>>,
    /// The kill command.
    kill: Arc<Mutex<String>>,
}

impl Bench {
    fn new(drives: usize) -> Bench {
        Bench::make(drives, LONG, None, None)
    }

    /// A bench with engines whose behaviour the test sets.
    fn scripted() -> Bench {
        Bench::make(1, LONG, Some(Scripts::default()), None)
    }

    /// A bench with a note of commands that may undo locks of the next life.
    fn with_note(drives: usize, note: UndoNote) -> Bench {
        Bench::make(drives, LONG, None, Some(note))
    }

    fn make(
        count: usize,
        lease: Duration,
        scripts: Option<Scripts>,
        undo_note: Option<UndoNote>,
    ) -> Bench {
        let fakes: Vec<Arc<FakeDrive>> = (0..count).map(|_| Arc::default()).collect();
        let names: Vec<String> = (0..count).map(|n| format!("d{n}")).collect();
        let sockets = names.iter().map(|name| (name.clone(), PathBuf::from(name)));
        let topology = Topology::new(sockets.collect());
        let reached = fakes.clone();
        let drives = Arc::new(Drives::new(
            topology,
            Box::new(move |identity, _| {
                let number: usize = identity["emulated.d".len()..].parse().unwrap();
                Arc::new(FakePath(reached[number].clone()))
            }),
            Limits::new(&Timing::for_lease(lease)),
        ));
        let members = drives.members(&names).members;
        let killed: Arc<Mutex<Vec<String>>> = Arc::default();
        let kill = Arc::new(Mutex::new("/bin/true".to_owned()));
        let (asked, program) = (killed.clone(), kill.clone());
        let settings = Settings {
            host: HostId::new([1; 16], "test"),
            timing: Timing::for_lease(lease),
            fencing: Fencing::new(&Timing::for_lease(lease), Default::default()).unwrap(),
            reservations: None,
            watchdog: None,
            note: None,
            undo_note,
            votes: None,
            earlier: Earlier::default(),
            kill_command: Arc::new(move || {
                asked.lock().unwrap().push("kill".into());
                vec![program.lock().unwrap().clone()]
            }),
        };
        let used = scripts.clone().unwrap_or_default();
        let make: Box<MakeEngine> = match scripts {
            None => Box::new(engine::real),
            Some(scripts) => Box::new(move |config| {
                Box::new(FakeEngine { id: config.resource, scripts: scripts.clone() })
            }),
        };
        let runtime = Arc::new(Runtime::start_with(drives, settings, make).unwrap());
        Bench { runtime, drives: fakes, members, scripts: used, killed, kill }
    }

    fn acquire(&self, mode: Mode) -> Request {
        Request::Acquire { mode, members: self.members.clone(), witnesses: Vec::new() }
    }

    fn submit(&self, drive: usize, command: DriveCommand, replies: &Replies) {
        let drive = self.members[drive].drive;
        self.runtime.drives().submit(drive, command, Urgency::Awaited, replies.completion());
    }

    fn script<T>(&self, spec: &LockSpec, work: impl FnOnce(&mut Script) -> T) -> T {
        work(self.scripts.lock().unwrap().entry(spec.resource).or_default())
    }

    /// Grants the next acquire of a lock.
    fn grant(&self, spec: &LockSpec, mode: Mode) {
        self.script(spec, |script| {
            script.mode = Some(mode);
            script.events.push_back(Event::Done(Outcome::Granted(ValueRead::Unknown)));
        });
    }

    /// Takes a lock on the first drive. Its votes have to move from there.
    fn moving(&self, number: u8, owner: &Arc<Owner>) -> LockSpec {
        let spec = spec(number, Role::Lv, owner);
        self.grant(&spec, Mode::Exclusive);
        let (mode, members) = (Mode::Exclusive, self.members[..1].to_vec());
        let acquire = Request::Acquire { mode, members, witnesses: Vec::new() };
        assert!(granted(&self.runtime.request(spec.clone(), acquire, LONG)));
        self.script(&spec, |script| script.moving = true);
        spec
    }

    /// Names drives to a lock.
    fn spread(&self, spec: &LockSpec, drives: &[Member]) {
        self.runtime.spread(vec![spec.resource], drives.to_vec());
    }

    fn requests(&self, spec: &LockSpec) -> Vec<Request> {
        self.script(spec, |script| script.requests.clone())
    }

    fn kills(&self) -> usize {
        self.killed.lock().unwrap().len()
    }

    /// Makes a request on another thread.
    fn in_background(
        &self,
        spec: &LockSpec,
        request: Request,
    ) -> std::thread::JoinHandle<RequestResult> {
        let (runtime, spec) = (self.runtime.clone(), spec.clone());
        std::thread::spawn(move || runtime.request(spec, request, LONG))
    }
}

fn limits() -> Limits {
    Limits::new(&Timing::for_lease(LONG))
}

fn owner() -> Arc<Owner> {
    Arc::new(Owner::new("volume group vg0".into(), Some("vg0".into())))
}

fn spec(number: u8, role: Role, owner: &Arc<Owner>) -> LockSpec {
    LockSpec { resource: ResourceId::from_bytes([number; 64]), role, owner: owner.clone() }
}

fn release() -> Request {
    Request::Release { value: None }
}

fn granted(answer: &RequestResult) -> bool {
    matches!(answer, RequestResult::Done(Outcome::Granted(_)))
}

fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !so() {
        assert!(start.elapsed() < SOON, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Counts the replies to commands.
#[derive(Clone, Default)]
struct Replies(Arc<Mutex<Vec<Reply>>>);

impl Replies {
    fn completion(&self) -> ReplyHandler {
        let replies = self.clone();
        ReplyHandler::new(move |reply| replies.0.lock().unwrap().push(reply))
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn count_of(&self, status: Status) -> usize {
        let replies = self.0.lock().unwrap();
        replies.iter().filter(|reply| **reply == Reply::Status(status)).count()
    }
}

fn refresh() -> DriveCommand {
    DriveCommand::Mutex(MutexOp::Refresh, Record::end_of_table())
}

#[test]
fn a_hung_drive_holds_four_workers_and_every_command_is_answered_once() {
    let bench = Bench::new(2);
    let (hung, well) = (Replies::default(), Replies::default());
    bench.drives[0].hang(true);
    for _ in 0..50 {
        bench.submit(0, refresh(), &hung);
        bench.submit(1, refresh(), &well);
    }
    eventually("the other drive's", || well.count() == 50);
    eventually("all workers", || bench.drives[0].inside.load(Ordering::SeqCst) == 4);
    assert_eq!(hung.count(), 0);
    bench.drives[0].hang(false);
    eventually("the hung drive's", || hung.count() == 50);
    assert_eq!(bench.drives[0].most_inside.load(Ordering::SeqCst), 4);
    assert_eq!(hung.count_of(Status::Good), 50);
}

#[test]
fn what_waits_too_long_was_certainly_not_sent() {
    let bench = Bench::new(1);
    let replies = Replies::default();
    bench.drives[0].hang(true);
    for _ in 0..10 {
        bench.submit(0, refresh(), &replies);
    }
    eventually("all workers", || bench.drives[0].inside.load(Ordering::SeqCst) == 4);
    bench.runtime.drives().expire(clock::now() + SOON, clock::now());
    assert_eq!(replies.count_of(Status::Unreachable), 6);
    bench.drives[0].hang(false);
    eventually("those that were sent", || replies.count() == 10);
    assert_eq!(replies.count_of(Status::Good), 4);
}

#[test]
fn what_could_surprise_its_lock_is_not_begun_any_more() {
    let lease = Duration::from_secs(2);
    let bench = Bench::make(1, lease, None, None);
    let replies = Replies::default();
    bench.drives[0].hang(true);
    for _ in 0..6 {
        bench.submit(0, refresh(), &replies);
    }
    eventually("all workers", || bench.drives[0].inside.load(Ordering::SeqCst) == 4);
    // Waiting commands are not checked, as on a host that is suspended.
    std::thread::sleep(Timing::for_lease(lease).linger);
    bench.drives[0].hang(false);
    eventually("all", || replies.count() == 6);
    assert_eq!((replies.count_of(Status::Good), replies.count_of(Status::Unreachable)), (4, 2));
}

#[test]
fn what_the_kernel_keeps_is_lost_in_time_and_is_not_overtaken() {
    let lease = Duration::from_secs(2);
    let bench = Bench::make(1, lease, None, None);
    let (kept, next) = (Replies::default(), Replies::default());
    let command = |op| DriveCommand::Mutex(op, Record::end_of_table());
    let limits = Limits::new(&Timing::for_lease(lease));
    bench.drives[0].hang(true);
    bench.submit(0, command(MutexOp::Unlock), &kept);
    eventually("a worker", || bench.drives[0].inside.load(Ordering::SeqCst) == 1);
    bench.runtime.drives().expire(Instant::default(), clock::now());
    assert_eq!(kept.count(), 0);
    bench.runtime.drives().expire(Instant::default(), clock::now() + limits.lost);
    assert_eq!(kept.count_of(Status::Uncertain), 1);

    bench.submit(0, command(MutexOp::Trylock), &next);
    assert_eq!(next.count_of(Status::Unreachable), 1, "at once");
    bench.drives[0].hang(false);
    eventually("the worker's end", || bench.drives[0].unlocks.load(Ordering::SeqCst) == 1);
    eventually("a lock", || {
        bench.submit(0, command(MutexOp::Trylock), &next);
        next.count_of(Status::Good) > 0
    });
    assert_eq!(kept.count(), 1, "told once");
}

#[test]
fn reads_that_wait_are_served_by_one() {
    let bench = Bench::new(1);
    let replies = Replies::default();
    let submit = |command| {
        bench.submit(0, command, &replies);
    };
    bench.drives[0].hang(true);
    (0..4).for_each(|_| submit(refresh()));
    eventually("all workers", || bench.drives[0].inside.load(Ordering::SeqCst) == 4);
    (0..30).for_each(|_| submit(DriveCommand::ReadTable));
    bench.drives[0].hang(false);
    eventually("all", || replies.count() == 34);
    assert_eq!(bench.drives[0].reads.load(Ordering::SeqCst), 1);
}

#[test]
fn a_command_that_is_dropped_is_uncertain() {
    let replies = Replies::default();
    drop(replies.completion());
    assert_eq!(replies.count_of(Status::Uncertain), 1);
    let bench = Bench::new(1);
    let drives = bench.runtime.drives();
    drives.submit(DriveRef(99), refresh(), Urgency::Awaited, replies.completion());
    assert_eq!(replies.count_of(Status::Unreachable), 1);
    bench.runtime.drives().close();
    bench.submit(0, refresh(), &replies);
    assert_eq!(replies.count_of(Status::Uncertain), 2);
}

#[test]
fn a_drive_by_several_names_is_one_member_and_a_lost_one_stays_itself() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("d0");
    let names = ["a", "b"].map(|name| (name.to_owned(), socket.clone()));
    let topology = Topology::new(names.into());
    let drives =
        Drives::new(topology, Box::new(|_, _| Arc::new(FakePath(Arc::default()))), limits());
    let paths = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
    let members = drives.members(&paths(&["a", "b", "a"]));
    assert_eq!((members.members.len(), members.found), (1, 1));
    let lost = drives.members(&paths(&["a", "/dev/nonexistent-1", "/dev/nonexistent-2"]));
    assert_eq!((lost.members.len(), lost.found), (3, 1));
    assert_eq!(lost.members[0], members.members[0]);
    let missing = |lost: &TopologyError| matches!(lost, TopologyError::Missing { .. });
    assert!(lost.lost.len() == 2 && lost.lost.iter().all(missing));
    let again = drives.members(&paths(&["/dev/nonexistent-2"]));
    assert_eq!(again.members[0], lost.members[2]);
    let unusable = drives.members(&paths(&["/dev/null", "a"]));
    assert!(matches!(unusable.lost[..], [TopologyError::Unusable { .. }]));
    assert_eq!((unusable.members.len(), unusable.found), (2, 1));
}

/// The drives of a host with this sysfs. Paths of a drive are found by their nodes.
fn drives_of(tree: &Tree, paths: &[(&str, Arc<FakeDrive>)]) -> Arc<Drives> {
    let paths: HashMap<String, Arc<FakeDrive>> =
        paths.iter().map(|(node, fake)| ((*node).to_owned(), fake.clone())).collect();
    let connect = Box::new(move |_: &str, target: &PathAddress| -> Arc<dyn DrivePath> {
        Arc::new(FakePath(paths.get(&target.to_string()).cloned().unwrap_or_default()))
    });
    Arc::new(Drives::new(tree.topology(), connect, limits()))
}

/// A node for a device of the tree, at a path that can be given to another device.
fn name_it(path: &std::path::Path, device: &std::path::Path) {
    let _ = std::fs::remove_file(path);
    let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the text ends with a zero. Needs root.
    let made = unsafe { libc::mknod(text.as_ptr(), libc::S_IFBLK | 0o600, Tree::number(device)) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
}

/// Names of two devices, by which others can be named later.
fn two_names(nodes: &tempfile::TempDir, devices: [&PathBuf; 2]) -> ([PathBuf; 2], [String; 2]) {
    let paths = ["a", "b"].map(|name| nodes.path().join(name));
    paths.iter().zip(devices).for_each(|(path, device)| name_it(path, device));
    let names = paths.each_ref().map(|path| path.to_str().unwrap().to_owned());
    (paths, names)
}

/// Drives 1 and 2 by two names, which can be given to other devices later.
struct Named {
    tree: Tree,
    nodes: tempfile::TempDir,
    devices: [PathBuf; 2],
    paths: [PathBuf; 2],
    names: [String; 2],
    drives: Arc<Drives>,
}

impl Named {
    fn new() -> Named {
        let (tree, nodes) = (Tree::new(), tempfile::tempdir().unwrap());
        let devices = [tree.drive("sda", 1), tree.drive("sdb", 2)];
        let (paths, names) = two_names(&nodes, devices.each_ref());
        let drives = drives_of(&tree, &[]);
        drives.take_inventory();
        Named { tree, nodes, devices, paths, names, drives }
    }
}

fn vg_on(paths: &[String]) -> crate::lockspace::Lockspace {
    let vg = ResourceId::vg("123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz").unwrap();
    crate::lockspace::Lockspace::with_id(vg, Some("vg0".into()), paths.to_vec())
}

fn identities(members: &[idm_engine::Member]) -> Vec<String> {
    members.iter().map(|it| String::from_utf8_lossy(&it.identity).into_owned()).collect()
}

/// A part of a PV's stack is gone when the VG is started: it counts as a drive that never answers,
/// and has to go on to count.
#[test]
fn a_part_of_a_stack_that_was_never_seen_counts_each_time() {
    let (tree, nodes) = (Tree::new(), tempfile::tempdir().unwrap());
    let (a, b) = (tree.drive("sda", 1), tree.drive("sdb", 2));
    let stack = tree.stacked("md0", "md", &[&a, &b]);
    tree.remove(&b);
    let path = nodes.path().join("md0");
    name_it(&path, &stack);
    let drives = drives_of(&tree, &[]);
    drives.take_inventory();
    let lockspace = vg_on(&[path.to_str().unwrap().to_owned()]);
    let first = identities(&lockspace.members(&drives).members);
    assert_eq!(first.len(), 2, "{first:?}");
    for _ in 0..2 {
        assert_eq!(identities(&lockspace.members(&drives).members), first);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(identities(&lockspace.members(&drives).members), first, "all of it is gone");
}

/// Each request for the VG's lock reads the list of PVs, whose names are those of the lock-start.
#[test]
fn a_request_for_the_vgs_lock_gives_no_vote_to_a_disk_with_an_old_name() {
    let Named { tree, nodes: _nodes, paths, names, drives, .. } = Named::new();
    let other = tree.drive("sdc", 3);
    drives.take_inventory();
    let lockspace = vg_on(&names);
    let first = identities(&lockspace.members(&drives).members);
    // The kernel gives the second name to another disk, while lvmlockd runs.
    name_it(&paths[1], &other);
    assert_eq!(identities(&lockspace.members(&drives).members), first);
    // As `lm_lock_idm` does for each request of the VG's lock.
    lockspace.set_paths(names.to_vec());
    assert_eq!(identities(&lockspace.members(&drives).members), first);
    // A repeated start without the drive, and another one with it.
    lockspace.set_paths(names[..1].to_vec());
    lockspace.set_paths(names.to_vec());
    let anew = identities(&lockspace.members(&drives).members);
    assert!(anew[0] == first[0] && anew[1].ends_with('3'), "{anew:?}");
}

/// A drive is away for a moment, while nothing has its name, and the VG's lock is requested then.
/// When it comes back under another name, a disk that is not the VG's gets the old one.
#[test]
fn a_drive_that_comes_back_under_another_name_keeps_its_vote() {
    let Named { tree, nodes: _nodes, devices: [_, b], paths, names, drives } = Named::new();
    let lockspace = vg_on(&names);
    let first = identities(&lockspace.members(&drives).members);
    let request = || lockspace.set_paths(names.to_vec());
    tree.remove(&b);
    std::fs::remove_file(&paths[1]).unwrap();
    drives.take_inventory();
    let noted = lockspace.saved().drives;
    request();
    assert_eq!(identities(&lockspace.members(&drives).members), first);
    assert_eq!(lockspace.saved().drives, noted, "for the next lvmlockd");
    let other = tree.drive("sdc", 3);
    tree.drive("sdd", 2);
    name_it(&paths[1], &other);
    drives.take_inventory();
    for _ in 0..2 {
        assert_eq!(identities(&lockspace.members(&drives).members), first, "it is there as sdd");
        request();
    }
}

/// One of the VG's own drives fails, and after a reset of the adapter the other one has its name.
#[test]
fn a_failed_drive_whose_name_another_drive_of_the_vg_has_goes_on_to_count() {
    let Named { tree, nodes: _nodes, devices: [a, b], paths, names, drives } = Named::new();
    let lockspace = vg_on(&names);
    assert_eq!(lockspace.members(&drives).members.len(), 2);
    tree.remove(&a);
    tree.remove(&b);
    let b = tree.drive("sdc", 2);
    name_it(&paths[0], &b);
    std::fs::remove_file(&paths[1]).unwrap();
    drives.take_inventory();
    lockspace.set_paths(names.to_vec());
    let members = identities(&lockspace.members(&drives).members);
    assert_eq!(members.len(), 2, "one drive of two is a majority now: {members:?}");
}

/// The VG was extended and started again; the library reads the new list at the next request for
/// the VG's lock. Meanwhile a drive that is in both lists came back under another name.
#[test]
fn a_name_that_is_in_both_lists_goes_on_to_stand_for_its_drive() {
    let Named { tree, nodes, devices: [_, b], paths, names, drives } = Named::new();
    let more = nodes.path().join("c");
    name_it(&more, &tree.drive("sdc", 4));
    drives.take_inventory();
    let lockspace = vg_on(&names);
    drop(lockspace.members(&drives));
    tree.remove(&b);
    tree.drive("sdd", 2);
    let other = tree.drive("sde", 3);
    name_it(&paths[1], &other);
    drives.take_inventory();
    drop(lockspace.members(&drives));
    let longer = [&names[..], &[more.to_str().unwrap().to_owned()]].concat();
    lockspace.set_paths(longer);
    let now = identities(&lockspace.members(&drives).members);
    assert!(now.iter().any(|it| it.ends_with('2')), "the VG's drive is there as sdd: {now:?}");
    assert!(!now.iter().any(|it| it.ends_with('3')), "a disk with an old name votes: {now:?}");
}

/// Two VGs have a PV by one name, because the drive of the first one has another name since. The
/// drive of the second VG is away while its lock is requested.
#[test]
fn a_drive_that_is_away_is_not_replaced_by_one_of_another_vg() {
    let Named { tree, nodes: _nodes, devices: [_, b], paths, names, drives } = Named::new();
    let first = vg_on(&names[..1]);
    drop(first.members(&drives));
    name_it(&paths[0], &b);
    let second = vg_on(&names[..1]);
    let of_second = identities(&second.members(&drives).members);
    assert!(of_second[0].ends_with('2'));
    assert!(identities(&first.members(&drives).members)[0].ends_with('1'));
    tree.remove(&b);
    std::fs::remove_file(&paths[0]).unwrap();
    drives.take_inventory();
    assert_eq!(identities(&second.members(&drives).members), of_second);
    drop(first.members(&drives));
    second.set_paths(names[..1].to_vec());
    assert_eq!(identities(&second.members(&drives).members), of_second);
}

/// A name led to another drive before the VG was started with it, and leads nowhere for a moment
/// when it is looked at for the first time.
#[test]
fn a_drive_that_is_gone_for_a_moment_at_the_start_is_not_replaced_for_ever() {
    let (tree, nodes) = (Tree::new(), tempfile::tempdir().unwrap());
    let (old, new, b) = (tree.drive("sda", 1), tree.drive("sdb", 2), tree.drive("sdc", 3));
    let (paths, names) = two_names(&nodes, [&old, &b]);
    let drives = drives_of(&tree, &[]);
    drives.take_inventory();
    drop(vg_on(&names).members(&drives));
    std::fs::remove_file(&paths[0]).unwrap();
    // Stopped, the drive replaced, and started again.
    let lockspace = vg_on(&names);
    drop(lockspace.members(&drives));
    name_it(&paths[0], &new);
    let now = identities(&lockspace.members(&drives).members);
    assert!(now.iter().any(|it| it.ends_with('2')), "a true drive is left out: {now:?}");
    assert!(!now.iter().any(|it| it.ends_with('1')), "one that has left the VG votes: {now:?}");
}

/// All paths of a map are gone. The name leads to no other drive.
#[test]
fn a_map_without_paths_is_not_called_another_drive() {
    let (tree, nodes) = (Tree::new(), tempfile::tempdir().unwrap());
    let a = tree.drive("sda", 1);
    let map = tree.multipath("dm-0", &[&a]);
    let path = nodes.path().join("mpatha");
    name_it(&path, &map);
    let drives = drives_of(&tree, &[]);
    drives.take_inventory();
    let lockspace = vg_on(&[path.to_str().unwrap().to_owned()]);
    drop(lockspace.members(&drives));
    std::fs::remove_file(map.join("slaves/sda")).unwrap();
    drop(lockspace.members(&drives));
    let said = drives.complaints();
    assert!(!said.iter().any(|it| it.contains("leads to drive")), "{said:?}");
}

#[test]
fn the_units_of_one_device_all_vote() {
    let tree = Tree::new();
    // Partitions named for the global lock are found without nodes in /dev.
    for (node, number, device) in [("sda", 2, 9), ("sdb", 1, 9), ("sdc", 3, 8)] {
        tree.propeller(&tree.unit(node, number, device), &format!("{node}1"));
    }
    let drives = drives_of(&tree, &[]);
    drives.take_inventory();
    let members = drives.add_global(&mut Vec::new());
    let mut units: Vec<u8> =
        members.members.iter().map(|m| m.identity[m.identity.len() - 1] - b'0').collect();
    units.sort_unstable();
    assert_eq!((units, members.found), (vec![1, 2, 3], 3));
    let said = drives.complaints();
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("one device"), "{said:?}");
}

#[test]
fn the_global_set_grows_and_a_lost_drive_goes_on_counting() {
    let tree = Tree::new();
    let drives = drives_of(&tree, &[]);
    let set = |members: &mut Vec<Member>| {
        drives.take_inventory();
        let now = drives.add_global(members);
        assert_eq!(now.members, *members);
        let identities = now.members.iter().map(|m| m.identity[m.identity.len() - 1] - b'0');
        (identities.collect::<Vec<_>>(), now.found)
    };
    let mut members = Vec::new();
    assert_eq!(set(&mut members), (vec![], 0));
    let (sda, sdb) = (tree.drive("sda", 1), tree.drive("sdb", 2));
    tree.propeller(&sda, "sda1");
    let partition = tree.propeller(&sdb, "sdb1");
    assert_eq!(set(&mut members), (vec![1, 2], 2));
    tree.remove(&partition);
    tree.remove(&sdb);
    assert_eq!(set(&mut members), (vec![1, 2], 1));
    // The drive comes back under another name and is recognised; and a new drive appears.
    tree.propeller(&tree.drive("sdc", 2), "sdc1");
    tree.propeller(&tree.drive("sdd", 3), "sdd1");
    assert_eq!(set(&mut members), (vec![1, 2, 3], 3));
    assert_eq!(members.iter().map(|m| m.drive).collect::<Vec<_>>(), [0, 1, 2].map(DriveRef));
    // A lockspace that is started anew takes the present drives.
    tree.remove(&sda.join("sda1"));
    assert_eq!(set(&mut Vec::new()), (vec![2, 3], 2));
    assert_eq!(set(&mut members), (vec![1, 2, 3], 3));
}

#[test]
fn a_path_that_appears_is_used_and_one_that_disappears_is_let_go_of() {
    let tree = Tree::new();
    let fakes: [Arc<FakeDrive>; 2] = Default::default();
    let paths = [("/dev/sda", fakes[0].clone()), ("/dev/sdb", fakes[1].clone())];
    let drives = drives_of(&tree, &paths);
    let sda = tree.drive("sda", 1);
    let partition = tree.propeller(&sda, "sda1");
    drives.take_inventory();
    let drive = drives.add_global(&mut Vec::new()).members[0].drive;
    let replies = Replies::default();
    let ask = |expected: usize| {
        drives.submit(drive, refresh(), Urgency::Awaited, replies.completion());
        eventually("an answer", || replies.count_of(Status::Good) == expected);
    };
    ask(1);
    let open = Arc::strong_count(&fakes[0]);
    tree.drive("sdb", 1);
    drives.take_inventory();
    tree.remove(&partition);
    tree.remove(&sda);
    drives.take_inventory();
    eventually("the old path to be closed", || Arc::strong_count(&fakes[0]) == open - 1);
    fakes[0].hang(true);
    ask(2);
    drives.close();
}

#[test]
fn a_worker_that_panics_fails_its_command_only() {
    let bench = Bench::new(1);
    let replies = Replies::default();
    bench.drives[0].panics.store(true, Ordering::SeqCst);
    bench.submit(0, refresh(), &replies);
    eventually("an answer", || replies.count_of(Status::Uncertain) == 1);
    bench.drives[0].panics.store(false, Ordering::SeqCst);
    bench.submit(0, refresh(), &replies);
    eventually("the next one's", || replies.count_of(Status::Good) == 1);
}

#[test]
fn a_request_that_is_given_up_is_undone_when_it_is_granted() {
    let bench = Bench::new(3);
    let spec = spec(1, Role::Lv, &owner());
    for drive in &bench.drives {
        drive.hang(true);
    }
    let bound = Duration::from_millis(100);
    let answer = bench.runtime.request(spec.clone(), bench.acquire(Mode::Exclusive), bound);
    assert_eq!(answer, RequestResult::TimedOut);
    for drive in &bench.drives {
        drive.hang(false);
    }
    eventually("released", || {
        bench.drives.iter().all(|drive| drive.unlocks.load(Ordering::SeqCst) > 0)
    });
    assert_eq!(bench.runtime.mode(spec.resource), Ok(None));
    let again = bench.runtime.request(spec.clone(), bench.acquire(Mode::Exclusive), SOON);
    assert!(granted(&again), "{again:?}");
    assert_eq!(bench.runtime.mode(spec.resource), Ok(Some(Mode::Exclusive)));
}

#[test]
fn what_cannot_be_noted_is_not_undone() {
    let directory = tempfile::tempdir().unwrap();
    let timing = Timing::for_lease(LONG);
    let (note, _) =
        UndoNote::start(directory.path(), &timing, (clock::now(), true), timing.lease).unwrap();
    let bench = Bench::with_note(3, note);
    let spec = spec(1, Role::Lv, &owner());
    let answer = bench.runtime.request(spec.clone(), bench.acquire(Mode::Exclusive), SOON);
    assert!(granted(&answer), "{answer:?}");
    // The note can be neither written nor removed.
    let file = directory.path().join("undoing-until");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    bench.runtime.request(spec.clone(), release(), Duration::from_millis(300));
    let unlocks = || bench.drives.iter().map(|it| it.unlocks.load(Ordering::SeqCst)).sum::<usize>();
    assert_eq!(unlocks(), 0);
    std::fs::remove_dir(&file).unwrap();
    eventually("the drives are told at last", || unlocks() >= 3);
    assert!(file.exists());
}

#[test]
fn the_note_is_settled_only_where_every_command_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let timing = Timing::for_lease(LONG);
    let left = || {
        let text = std::fs::read(directory.path().join("undoing-until")).unwrap();
        undo_note::parse(&text, &host_id::boot_id().unwrap()).unwrap().until
    };
    let (note, _) =
        UndoNote::start(directory.path(), &timing, (clock::now(), true), timing.lease).unwrap();
    let bench = Bench::with_note(3, note);
    let spec = spec(1, Role::Lv, &owner());
    assert!(granted(&bench.runtime.request(spec.clone(), bench.acquire(Mode::Exclusive), SOON)));
    bench.runtime.release(spec.clone());
    eventually("it was given up everywhere", || bench.runtime.drain(SOON));
    assert_eq!(left(), Dates::default(), "nothing is left");
    assert!(granted(&bench.runtime.request(spec.clone(), bench.acquire(Mode::Exclusive), SOON)));
    let shared = Request::Convert { mode: Mode::Shared, value: None };
    let outcome = bench.runtime.request(spec, shared, SOON);
    assert_eq!(outcome, RequestResult::Done(Outcome::Converted { complete: true }));
    assert!(bench.runtime.drain(SOON));
    assert_ne!(left(), Dates::default(), "it is held");
}

#[test]
fn what_was_left_is_not_given_back_because_nobody_waits_for_it() {
    let bench = Bench::scripted();
    let owner = owner();
    let spec = spec(1, Role::Lv, &owner);
    let bound = Duration::from_millis(20);
    let adopt = Request::Adopt {
        mode: Mode::Exclusive,
        safe_until: None,
        granted: false,
        members: bench.members.clone(),
        witnesses: Vec::new(),
    };
    let answer = bench.runtime.request(spec.clone(), adopt, bound);
    assert_eq!(answer, RequestResult::TimedOut);
    bench.script(&spec, |script| {
        script.mode = Some(Mode::Exclusive);
        script.events.push_back(Event::Done(Outcome::Adopted(Mode::Exclusive)));
    });
    // The reactor reads the engine's events when it gets another request.
    let other = bench.runtime.request(spec.clone(), bench.acquire(Mode::Shared), bound);
    assert!(!granted(&other), "{other:?}");
    assert_eq!(owner.in_use(), 1, "it counts as in use");
    let released = |request: &Request| matches!(request, Request::Release { .. });
    assert!(!bench.requests(&spec).iter().any(released), "{:?}", bench.requests(&spec));
}

#[test]
fn requests_that_nobody_waits_for_are_taken_back_in_the_queue_too() {
    let bench = Bench::scripted();
    let spec = spec(1, Role::Lv, &owner());
    let first = bench.in_background(&spec, bench.acquire(Mode::Shared));
    eventually("the first is under way", || bench.requests(&spec).len() == 1);
    let bound = Duration::from_millis(20);
    let second = bench.runtime.request(spec.clone(), bench.acquire(Mode::Shared), bound);
    assert_eq!(second, RequestResult::TimedOut);
    bench.grant(&spec, Mode::Shared);
    assert!(granted(&first.join().unwrap()));
    assert_eq!(
        bench.runtime.request(spec.clone(), release(), SOON),
        RequestResult::Done(Outcome::Released)
    );
    assert_eq!(bench.requests(&spec), [bench.acquire(Mode::Shared), release()]);
}

/// Core goes on as if it had been carried out.
#[test]
fn a_change_to_shared_stays_in_the_queue_when_nobody_waits_for_it() {
    let bench = Bench::scripted();
    let lock = spec(1, Role::Lv, &owner());
    let first = bench.in_background(&lock, bench.acquire(Mode::Exclusive));
    eventually("the first is under way", || bench.requests(&lock).len() == 1);
    let shared = Request::Convert { mode: Mode::Shared, value: None };
    let bound = Duration::from_millis(20);
    let answer = bench.runtime.request(lock.clone(), shared.clone(), bound);
    assert_eq!(answer, RequestResult::TimedOut);
    bench.grant(&lock, Mode::Exclusive);
    assert!(granted(&first.join().unwrap()));
    eventually("carried out", || bench.requests(&lock).last() == Some(&shared));
}

#[test]
fn a_promotion_that_is_given_up_is_undone() {
    let bench = Bench::scripted();
    let spec = spec(1, Role::Lv, &owner());
    bench.grant(&spec, Mode::Shared);
    assert!(granted(&bench.runtime.request(spec.clone(), bench.acquire(Mode::Shared), SOON)));
    let convert = |mode| Request::Convert { mode, value: None };
    let bound = Duration::from_millis(20);
    let answer = bench.runtime.request(spec.clone(), convert(Mode::Exclusive), bound);
    assert_eq!(answer, RequestResult::TimedOut);
    bench.script(&spec, |script| {
        script.events.push_back(Event::Done(Outcome::Converted { complete: true }));
    });
    eventually("undone", || bench.requests(&spec).last() == Some(&convert(Mode::Shared)));
}

#[test]
fn a_lock_whose_engine_panics_is_lost_and_not_free() {
    let bench = Bench::scripted();
    let owner = owner();
    let (bad, good) = (spec(1, Role::Lv, &owner), spec(2, Role::Lv, &self::owner()));
    bench.script(&bad, |script| script.panics = true);
    let failed =
        |answer: RequestResult| assert!(matches!(answer, RequestResult::Failed(_)), "{answer:?}");
    failed(bench.runtime.request(bad.clone(), bench.acquire(Mode::Shared), SOON));
    assert!(owner.is_killed());
    eventually("kill command", || bench.kills() == 1);
    // Refused even for another lockspace, as long as drives may still hold the lock.
    let other = spec(1, Role::Lv, &self::owner());
    bench.script(&bad, |script| script.panics = false);
    failed(bench.runtime.request(other, bench.acquire(Mode::Shared), SOON));
    assert_eq!(bench.runtime.mode(bad.resource), Ok(None));
    assert_eq!(bench.runtime.request(bad, release(), SOON), RequestResult::Done(Outcome::Released));
    bench.grant(&good, Mode::Shared);
    assert!(granted(&bench.runtime.request(good, bench.acquire(Mode::Shared), SOON)));
}

/// Drives may still carry out the change to shared. Core must not go on with an exclusive lock.
#[test]
fn a_change_to_shared_whose_engine_panics_counts_as_done() {
    let bench = Bench::scripted();
    let lock = spec(1, Role::Lv, &owner());
    bench.grant(&lock, Mode::Exclusive);
    assert!(granted(&bench.runtime.request(lock.clone(), bench.acquire(Mode::Exclusive), SOON)));
    bench.script(&lock, |script| script.panics = true);
    let shared = || Request::Convert { mode: Mode::Shared, value: None };
    let done = RequestResult::Done(Outcome::Converted { complete: false });
    assert_eq!(bench.runtime.request(lock.clone(), shared(), SOON), done);
    // Nothing is sent for one that comes later.
    let later = bench.runtime.request(lock, shared(), SOON);
    assert!(matches!(later, RequestResult::Failed(_)), "{later:?}");
}

#[test]
fn losing_one_lock_refuses_new_ones_of_its_lockspace_and_kills_once() {
    let bench = Bench::scripted();
    let (mine, others) = (owner(), owner());
    let (lost, second) = (spec(1, Role::Lv, &mine), spec(2, Role::Lv, &mine));
    for spec in [&lost, &second] {
        bench.grant(spec, Mode::Exclusive);
        assert!(granted(&bench.runtime.request(
            (*spec).clone(),
            bench.acquire(Mode::Exclusive),
            SOON
        )));
    }
    let (waiting, foreign) = (spec(3, Role::Vg, &mine), spec(4, Role::Vg, &others));
    let pending = bench.in_background(&waiting, bench.acquire(Mode::Shared));
    let unconcerned = bench.in_background(&foreign, bench.acquire(Mode::Shared));
    eventually("both wait", || {
        bench.requests(&waiting).len() == 1 && bench.requests(&foreign).len() == 1
    });
    for spec in [&lost, &second] {
        bench.script(spec, |script| {
            script.mode = None;
            script.events.push_back(Event::Lost(Loss::Taken));
        });
    }
    assert_eq!(pending.join().unwrap(), RequestResult::Killed);
    let refused =
        bench.runtime.request(spec(5, Role::Lv, &mine), bench.acquire(Mode::Shared), SOON);
    assert_eq!(refused, RequestResult::Killed);
    // A lock whose request was under way when the lockspace was lost is given back.
    bench.grant(&waiting, Mode::Shared);
    eventually("given back", || bench.requests(&waiting).last() == Some(&release()));
    bench.grant(&foreign, Mode::Shared);
    assert!(granted(&unconcerned.join().unwrap()));
    assert!(mine.is_killed() && !others.is_killed());
    assert_eq!(bench.kills(), 1);
}

#[test]
fn a_promotion_keeps_nobody_waiting_when_its_lockspace_is_killed() {
    let bench = Bench::scripted();
    let owner = owner();
    let (lost, shared) = (spec(1, Role::Lv, &owner), spec(2, Role::Lv, &owner));
    for spec in [&lost, &shared] {
        bench.grant(spec, Mode::Shared);
        let acquire = bench.acquire(Mode::Shared);
        assert!(granted(&bench.runtime.request(spec.clone(), acquire, SOON)));
    }
    let convert = |mode| Request::Convert { mode, value: None };
    let pending = bench.in_background(&shared, convert(Mode::Exclusive));
    eventually("it is under way", || bench.requests(&shared).len() == 2);
    bench.script(&lost, |script| script.events.push_back(Event::Lapsed));
    eventually("an answer", || pending.is_finished());
    assert_eq!(pending.join().unwrap(), RequestResult::Killed);
    // A late effect of the request is undone.
    bench.script(&shared, |script| {
        script.events.push_back(Event::Done(Outcome::Converted { complete: true }));
    });
    eventually("undone", || bench.requests(&shared).last() == Some(&convert(Mode::Shared)));
}

#[test]
fn a_kill_command_that_cannot_be_begun_is_tried_again_until_it_is() {
    let bench = Bench::scripted();
    let directory = tempfile::tempdir().unwrap();
    let (program, ran) = (directory.path().join("kill"), directory.path().join("ran"));
    *bench.kill.lock().unwrap() = program.display().to_string();
    let (owner, begun) = (owner(), std::time::Instant::now());
    let spec = spec(1, Role::Lv, &owner);
    bench.grant(&spec, Mode::Exclusive);
    assert!(granted(&bench.runtime.request(spec.clone(), bench.acquire(Mode::Exclusive), SOON)));
    bench.script(&spec, |script| {
        script.safe_until = Some(clock::now());
        script.events.push_back(Event::Lapsed);
    });
    eventually("the VG is killed", || owner.is_killed());
    // The program did not exist; now it does.
    std::thread::sleep(Duration::from_millis(100));
    let script = format!("#!/bin/sh\necho \"$1\" >> {}\n", ran.display());
    std::fs::write(&program, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    let read = || std::fs::read_to_string(&ran).unwrap_or_default();
    eventually("it is run", || read() == "vg0\n");
    assert!(begun.elapsed() < SOON);
    // It was run only once.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!((read().as_str(), bench.kills()), ("vg0\n", 1));
}

#[test]
fn a_lock_that_was_renewed_after_an_alarm_is_told_of_again_in_time() {
    let bench = Bench::scripted();
    let (first, second) = (owner(), owner());
    let lock = spec(1, Role::Lv, &first);
    bench.grant(&lock, Mode::Exclusive);
    assert!(granted(&bench.runtime.request(lock.clone(), bench.acquire(Mode::Exclusive), SOON)));
    let safe_for = |time| {
        bench.script(&lock, |script| script.safe_until = Some(clock::now() + time));
    };
    // Less than the margin of the kill command.
    safe_for(LONG / 10);
    eventually("the first kill", || bench.kills() == 1 && first.is_killed());
    safe_for(LONG);
    eventually("it is safe", || !first.is_in_danger());
    // As for an orphan when its VG is started.
    bench.runtime.own(spec(1, Role::Lv, &second));
    std::thread::sleep(Duration::from_millis(50));
    assert!(!second.is_killed());
    safe_for(LONG / 10);
    eventually("the second kill", || bench.kills() == 2 && second.is_killed());
    // The VG is not dropped, and gets into danger a second time.
    safe_for(LONG);
    eventually("it is not any more", || !second.is_in_danger());
    safe_for(LONG / 10);
    eventually("the third kill", || bench.kills() == 3);
    let released = bench.runtime.request(spec(1, Role::Lv, &second), release(), SOON);
    assert_eq!(released, RequestResult::Done(Outcome::Released));
    assert!(!first.is_in_danger() && !second.is_in_danger(), "it was given back");
}

#[test]
fn a_lock_is_in_use_from_its_grant_to_its_release_whatever_becomes_of_it() {
    let bench = Bench::scripted();
    let owner = owner();
    let (lv, member) = (spec(1, Role::Lv, &owner), spec(2, Role::Membership, &owner));
    for spec in [&lv, &member] {
        bench.grant(spec, Mode::Shared);
        let acquire = bench.acquire(Mode::Shared);
        assert!(granted(&bench.runtime.request(spec.clone(), acquire, SOON)));
    }
    assert_eq!(owner.in_use(), 1, "a membership is nobody's");
    bench.script(&lv, |script| {
        script.mode = None;
        script.events.push_back(Event::Lost(Loss::Taken));
    });
    eventually("lost", || owner.is_killed());
    assert_eq!(owner.in_use(), 1);
    assert_eq!(bench.runtime.request(lv, release(), SOON), RequestResult::Done(Outcome::Released));
    assert_eq!(owner.in_use(), 0);
}

#[test]
fn a_lost_membership_is_taken_again_and_kills_nothing() {
    let bench = Bench::scripted();
    let owner = owner();
    let spec = spec(1, Role::Membership, &owner);
    bench.grant(&spec, Mode::Shared);
    assert!(granted(&bench.runtime.request(spec.clone(), bench.acquire(Mode::Shared), SOON)));
    bench.script(&spec, |script| script.events.push_back(Event::Lost(Loss::Taken)));
    let acquire = || bench.acquire(Mode::Shared);
    eventually("taken again", || bench.requests(&spec) == [acquire(), release(), acquire()]);
    bench.grant(&spec, Mode::Shared);
    assert!(!owner.is_killed());
    // A membership that was given up stays given up.
    assert_eq!(
        bench.runtime.request(spec.clone(), release(), SOON),
        RequestResult::Done(Outcome::Released)
    );
    bench.script(&spec, |script| script.events.push_back(Event::Lost(Loss::Taken)));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(bench.requests(&spec).len(), 4);
}

#[test]
fn the_kill_command_runs_while_the_lease_still_holds() {
    let lease = Duration::from_millis(1500);
    let bench = Bench::make(1, lease, None, None);
    let owner = owner();
    let spec = spec(1, Role::Lv, &owner);
    let start = std::time::Instant::now();
    assert!(granted(&bench.runtime.request(spec, bench.acquire(Mode::Exclusive), SOON)));
    bench.drives[0].hang(true);
    eventually("kill command", || bench.kills() == 1);
    let after = start.elapsed();
    assert!(after > lease / 2 && after < lease, "{after:?}");
    bench.drives[0].hang(false);
}

#[test]
fn releases_that_are_on_their_way_can_be_waited_for() {
    let bench = Bench::new(3);
    let spec = spec(1, Role::Lv, &owner());
    assert!(granted(&bench.runtime.request(spec.clone(), bench.acquire(Mode::Exclusive), SOON)));
    assert!(bench.runtime.drain(SOON));
    bench.drives[2].hang(true);
    bench.runtime.release(spec);
    assert!(!bench.runtime.drain(Duration::from_millis(30)));
    bench.drives[2].hang(false);
    assert!(bench.runtime.drain(SOON));
    assert!(bench.drives.iter().all(|drive| drive.unlocks.load(Ordering::SeqCst) == 1));
}

#[test]
fn a_stopped_runtime_sends_nothing_more() {
    let bench = Bench::new(1);
    let spec = spec(1, Role::Lv, &owner());
    assert!(granted(&bench.runtime.request(spec, bench.acquire(Mode::Exclusive), SOON)));
    let drive = bench.drives[0].clone();
    drop(bench);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(drive.unlocks.load(Ordering::SeqCst), 0);
}

#[test]
fn drives_that_are_ready_to_vote_stay_so_when_they_are_named_again() {
    let bench = Bench::make(3, LONG, Some(Scripts::default()), None);
    let spec = bench.moving(1, &owner());
    let ready: Vec<DriveRef> = bench.members.iter().map(|member| member.drive).collect();
    // Once, as the engine does.
    let event = Event::VotesReady { members: ready.clone() };
    bench.script(&spec, |script| script.events.push_back(event));
    for order in [[0, 1, 2], [0, 1, 2], [2, 0, 1]] {
        bench.spread(&spec, &order.map(|at| bench.members[at].clone()));
        assert_eq!(bench.runtime.votes_ready(spec.resource), Some(ready.clone()));
    }
    bench.spread(&spec, &bench.members[1..]);
    assert_eq!(bench.runtime.votes_ready(spec.resource), None, "other drives");
}

/// Its LV may be left on fewer drives, although its votes have nowhere to move.
#[test]
fn a_lock_on_all_drives_is_told_once_that_its_lv_may_move() {
    let bench = Bench::make(3, LONG, Some(Scripts::default()), None);
    let spec = spec(1, Role::Lv, &owner());
    bench.grant(&spec, Mode::Exclusive);
    let acquire = bench.acquire(Mode::Exclusive);
    assert!(granted(&bench.runtime.request(spec.clone(), acquire, LONG)));
    for _ in 0..3 {
        bench.spread(&spec, &bench.members);
    }
    assert!(bench.runtime.await_moves(vg_of(&spec.resource), SOON).is_empty());
    assert_eq!(bench.script(&spec, |script| script.spread), 1);
}

#[test]
fn a_move_is_waited_for_as_long_as_a_request_may_take() {
    let lease = Duration::from_secs(2);
    let bench = Bench::make(3, lease, Some(Scripts::default()), None);
    let spec = bench.moving(1, &owner());
    let vg = vg_of(&spec.resource);
    let waited = |bound| {
        let begin = std::time::Instant::now();
        let unmoved = bench.runtime.await_moves(vg, bound);
        assert_eq!(unmoved.iter().map(|it| it.resource).collect::<Vec<_>>(), [spec.resource]);
        begin.elapsed() >= bound
    };
    bench.spread(&spec, &bench.members);
    let patience = Timing::for_lease(lease).patience;
    std::thread::sleep(patience);
    assert!(waited(patience), "however long it has lasted");
    assert!(!waited(SOON), "once");
    let turned: Vec<Member> = bench.members.iter().rev().cloned().collect();
    bench.spread(&spec, &turned);
    assert!(!waited(SOON), "the same drives in another order");
    bench.spread(&spec, &bench.members[1..]);
    assert!(waited(patience / 4), "other drives");
    bench.script(&spec, |script| script.moving = false);
    assert!(bench.runtime.await_moves(vg, SOON).is_empty());
}

#[test]
fn moves_of_a_vg_that_is_killed_are_not_waited_for() {
    let bench = Bench::make(3, LONG, Some(Scripts::default()), None);
    let owner = owner();
    let spec = bench.moving(1, &owner);
    bench.spread(&spec, &bench.members);
    let (runtime, vg) = (bench.runtime.clone(), vg_of(&spec.resource));
    let begin = std::time::Instant::now();
    let waits = std::thread::spawn(move || runtime.await_moves(vg, LONG).len());
    bench.runtime.fail(owner, "lost".into(), None);
    assert_eq!(waits.join().unwrap(), 1);
    assert_eq!(bench.runtime.await_moves(vg, LONG).len(), 1, "after the kill");
    assert!(begin.elapsed() < LONG);
}
