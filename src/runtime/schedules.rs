//! Hand-overs between the runtime's threads, under thread schedules that the test decides.
//!
//! Each scenario runs under many schedules, with the real types; only drives and engines are fakes.
//! For every mistake that can be planted ([`Race`]) there is a test that finds it.

mod commands;
mod letters;
mod paths;

use super::engine::any::AnyEngine;
use super::*;
use crate::fencing::{Fencing, kill};
use crate::lock::Role;
use crate::state::undo_note::Earlier;
use crate::sys::clock;
use crate::sys::sync::mpsc::Sender;
use crate::sys::sync::scheduled::{Host, Race, STILL, any, finds, holds, pass};
use crate::sys::sync::thread as threads;
use crate::topology::Topology;
use crate::transport::{Answer, Deadline, DrivePath, Limits, TransportError};
use core::cell::Cell;
use idm_engine::{
    Command, Event, Instant, Lock, LockConfig, Refusal, RequestError, Timing, Token, Undoes,
    ValueRead,
};
use idm_protocol::{HostId, MutexOp, Status};
use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex as Unscheduled, OnceLock};

/// Wait of callers.
const LONG: Duration = Duration::from_secs(77);
const LEASE: Duration = Duration::from_secs(60);
/// Turns of other threads within which a thread that need not wait makes progress.
const TURNS: usize = 20_000;
const TOKENS_OF_A_LOCK: u32 = 16;

/// A drive that accepts every command.
#[derive(Default)]
pub(crate) struct FakeDrive {
    /// Number of UNLOCKs that it has carried out.
    unlocks: AtomicU32,
    /// Whether commands are kept back.
    hung: crate::sys::sync::Mutex<bool>,
    changed: crate::sys::sync::Condvar,
}

impl FakeDrive {
    fn hang(&self, hung: bool) {
        *self.hung.lock() = hung;
        self.changed.notify_all();
    }
}

struct FakePath(Arc<FakeDrive>);

impl DrivePath for FakePath {
    fn execute(&self, command: &DriveCommand, _: &Deadline) -> Result<Answer, TransportError> {
        pass();
        let mut hung = self.0.hung.lock();
        while *hung {
            hung = self.0.changed.wait(hung);
        }
        if matches!(command, DriveCommand::Mutex(MutexOp::Unlock, _)) {
            self.0.unlocks.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Reply::Status(Status::Good).into())
    }
}

/// The voting drives of the last lock whose votes were moved.
pub(crate) type Voters = Arc<Unscheduled<Vec<DriveRef>>>;

/// A lock that is granted when all its drives have granted it, and adopted at once or not at all.
struct FakeLock {
    members: Vec<Member>,
    mode: Option<Mode>,
    /// Mode that is granted then.
    wanted: Option<Mode>,
    commands: VecDeque<Command>,
    /// Commands that a grant waits for.
    unanswered: Vec<Token>,
    /// Whether one of these commands failed.
    refused: bool,
    /// Number of further commands.
    others: usize,
    events: VecDeque<Event>,
    /// Tokens for further commands.
    tokens: VecDeque<Token>,
    /// Receives a message for each reply to a command that no request waits for.
    told: mpsc::Sender<()>,
    voters: Voters,
}

impl FakeLock {
    fn send(&mut self, op: MutexOp, members: &[Member]) {
        for member in members {
            let token = self.tokens.pop_front().expect("no scenario needs as many");
            let command = DriveCommand::Mutex(op, Record::end_of_table());
            let drive = member.drive;
            let takes = op == MutexOp::Trylock;
            let undoes = if takes { Undoes::Nothing } else { Undoes::Any };
            self.commands.push_back(Command { token, drive, command, undoes });
            match op {
                MutexOp::Trylock => self.unanswered.push(token),
                _ => self.others += 1,
            }
        }
    }
}

/// Tokens of commands, which only a real lock can make.
fn tokens() -> VecDeque<Token> {
    static TOKENS: OnceLock<VecDeque<Token>> = OnceLock::new();
    let make = || {
        let (timing, host) = (Timing::for_lease(LEASE), HostId::new([1; 16], "test"));
        let mut lock = Lock::new(LockConfig::new(ResourceId::GLOBAL, host, true, timing, 0));
        let member = |number| Member { drive: DriveRef(number), identity: vec![number as u8] };
        let members = (0..TOKENS_OF_A_LOCK).map(member).collect();
        let request = Request::Acquire { mode: Mode::Shared, members, witnesses: Vec::new() };
        lock.request(request, Instant::from_micros(1)).expect("a new lock");
        let next = || lock.next_command(Instant::from_micros(1)).map(|command| command.token);
        core::iter::from_fn(next).collect()
    };
    TOKENS.get_or_init(make).clone()
}

impl AnyEngine for FakeLock {
    fn request(&mut self, request: Request, _: Instant) -> Result<(), RequestError> {
        match request {
            Request::Acquire { mode, members, .. } => {
                self.wanted = Some(mode);
                self.send(MutexOp::Trylock, &members);
                self.members = members;
            }
            Request::Adopt { .. } if any(3) == 0 => {
                self.events.push_back(Event::Done(Outcome::Refused(Refusal::Unclear)));
            }
            Request::Adopt { mode, members, .. } => {
                self.mode = Some(mode);
                self.members = members;
                self.events.push_back(Event::Done(Outcome::Adopted(mode)));
            }
            Request::Convert { mode, .. } => {
                self.mode = Some(mode);
                self.events.push_back(Event::Done(Outcome::Converted { complete: true }));
            }
            Request::Release { .. } => {
                self.mode = None;
                let members = core::mem::take(&mut self.members);
                self.send(MutexOp::Unlock, &members);
                self.events.push_back(Event::Done(Outcome::Released));
            }
        }
        Ok(())
    }
    fn expect_silence(&mut self, _: &[DriveRef]) {}
    fn spread(&mut self, drives: &[Member], _: Instant) {
        self.send(MutexOp::Refresh, drives);
        let members = drives.iter().map(|member| member.drive).collect();
        self.events.push_back(Event::VotesReady { members });
    }
    fn move_votes(&mut self, drives: &[DriveRef], _: Instant) -> bool {
        let moves = self.mode.is_some() && any(3) > 0;
        if moves {
            *self.voters.lock().unwrap() = drives.to_vec();
        }
        moves
    }
    fn is_moving(&self) -> bool {
        false
    }
    fn awaits_drives(&self) -> bool {
        false
    }
    fn on_reply(&mut self, token: Token, reply: Reply, _: Instant) {
        match self.unanswered.iter().position(|&other| other == token) {
            Some(at) => {
                self.unanswered.swap_remove(at);
                self.refused |= reply != Reply::Status(Status::Good);
            }
            None => {
                self.others -= 1;
                let _ = self.told.send(());
            }
        }
        if self.unanswered.is_empty() {
            if let Some(mode) = self.wanted.take() {
                let refused = core::mem::take(&mut self.refused);
                self.mode = (!refused).then_some(mode);
                self.events.push_back(Event::Done(match refused {
                    true => Outcome::Refused(Refusal::Unclear),
                    false => Outcome::Granted(ValueRead::Unknown),
                }));
            }
        }
    }
    fn on_timer(&mut self, _: Instant) {}
    fn next_command(&mut self, _: Instant) -> Option<Command> {
        self.commands.pop_front()
    }
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
    fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
    fn mode(&self) -> Option<Mode> {
        self.mode
    }
    fn safe_until(&self) -> Option<Instant> {
        self.mode.map(|_| Instant::from_micros(u64::MAX))
    }
    fn is_idle(&self) -> bool {
        self.mode.is_none() && self.wanted.is_none() && self.others == 0
    }
}

/// Drives that the paths `d0`, `d1` … lead to.
fn drives_by(count: usize, connect: Box<crate::transport::Connect>) -> (Drives, Vec<Member>) {
    let names: Vec<String> = (0..count).map(|number| format!("d{number}")).collect();
    let sockets = names.iter().map(|name| (name.clone(), PathBuf::from(name))).collect();
    let topology = Topology::with_sysfs(PathBuf::from("/nonexistent"), sockets);
    let drives = Drives::new(topology, connect, Limits::new(&Timing::for_lease(LEASE)));
    let members = drives.members(&names).members;
    (drives, members)
}

/// A runtime with drives and locks as above.
pub(crate) struct Bench {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) members: Vec<Member>,
    drives: Vec<Arc<FakeDrive>>,
    told: mpsc::Receiver<()>,
    pub(crate) voters: Voters,
}

impl Bench {
    pub(crate) fn new(count: usize) -> Bench {
        Bench::with_votes(count, None)
    }

    pub(crate) fn with_votes(count: usize, votes: Option<Sender<ResourceId>>) -> Bench {
        let fakes: Vec<Arc<FakeDrive>> = (0..count).map(|_| Arc::default()).collect();
        let reached = fakes.clone();
        let connect = Box::new(move |identity: &str, _: &_| {
            let number: usize = identity["emulated.d".len()..].parse().unwrap();
            Arc::new(FakePath(reached[number].clone())) as Arc<dyn DrivePath>
        });
        let (drives, members) = drives_by(count, connect);
        let timing = Timing::for_lease(LEASE);
        let settings = Settings {
            host: HostId::new([1; 16], "test"),
            timing,
            fencing: Fencing::new(&timing, Default::default()).unwrap(),
            reservations: None,
            watchdog: None,
            note: None,
            undo_note: None,
            earlier: Earlier::default(),
            votes,
            kill_command: Arc::new(|| vec!["kill".into()]),
        };
        let (sender, told) = mpsc::channel();
        let voters = Voters::default();
        let told_votes = voters.clone();
        let make: Box<MakeEngine> = Box::new(move |_| {
            Box::new(FakeLock {
                members: Vec::new(),
                mode: None,
                wanted: None,
                commands: VecDeque::new(),
                unanswered: Vec::new(),
                refused: false,
                others: 0,
                events: VecDeque::new(),
                tokens: tokens(),
                told: sender.clone(),
                voters: told_votes.clone(),
            })
        });
        let runtime = Runtime::run(Arc::new(drives), settings, make, 0, None).unwrap();
        Bench { runtime: Arc::new(runtime), members, drives: fakes, told, voters }
    }

    fn acquire(&self) -> Request {
        let members = self.members[..1].to_vec();
        Request::Acquire { mode: Mode::Exclusive, members, witnesses: Vec::new() }
    }

    /// Makes a request on another thread.
    fn request(&self, spec: &LockSpec, request: Request) -> threads::JoinHandle<RequestResult> {
        let (runtime, spec) = (self.runtime.clone(), spec.clone());
        threads::spawn(move || runtime.request(spec, request, LONG))
    }
}

fn owner() -> Arc<Owner> {
    Arc::new(Owner::new("volume group vg0".into(), Some("vg0".into())))
}

fn spec(number: u8, owner: &Arc<Owner>) -> LockSpec {
    LockSpec {
        resource: ResourceId::from_bytes([number; 64]),
        role: Role::Lv,
        owner: owner.clone(),
    }
}

/// The number of locks of a lockspace that are in use.
pub(crate) fn in_use(lockspace: &Owner) -> usize {
    lockspace.in_use()
}

fn is_granted(answer: &RequestResult) -> bool {
    matches!(answer, RequestResult::Done(Outcome::Granted(_)))
}

/// Results of the kill commands of a schedule.
#[derive(Clone, Copy, Default)]
struct Kills {
    running: u32,
    begun: u32,
    /// Number of further ones that cannot be started.
    refused: u32,
}

thread_local! {
    static KILLS: Cell<Kills> = Cell::default();
}

fn kills(change: impl FnOnce(&mut Kills)) -> Kills {
    let mut kills = KILLS.get();
    change(&mut kills);
    KILLS.set(kills);
    kills
}

/// Replacement for the kill command in scenarios, because no schedule controls a process.
pub(crate) fn executed(words: &[String]) -> Option<kill::Ended> {
    if words != ["kill", "vg0"] {
        return None;
    }
    let kills_now = kills(|kills| kills.running += 1);
    assert_eq!(kills_now.running, 1, "one at a time");
    pass();
    let ended = if kills_now.refused > 0 {
        kills(|kills| kills.refused -= 1);
        kill::Ended::NotBegun(io::ErrorKind::OutOfMemory.into())
    } else {
        kills(|kills| kills.begun += 1);
        kill::Ended::Exited(ExitStatus::from_raw(0))
    };
    kills(|kills| kills.running -= 1);
    Some(ended)
}

/// The runtime ends while requests are under way and drives hang.
fn the_end_comes_in_between() {
    let bench = Bench::new(1);
    let owner = owner();
    let hangs = any(2) == 0;
    bench.drives[0].hang(hangs);
    let requests: Vec<_> =
        (1..=2).map(|number| bench.request(&spec(number, &owner), bench.acquire())).collect();
    let last = bench.runtime.begin(spec(3, &owner), bench.acquire());
    bench.runtime.send(Message::Stop);
    for request in requests {
        let answer = request.join().unwrap();
        let ended =
            matches!(&answer, RequestResult::Failed(why) if why.starts_with("internal error: the"));
        assert!(ended || is_granted(&answer) && !hangs, "{answer:?}");
    }
    assert!(last.recv().is_err() || !hangs);
    let Bench { runtime, drives, .. } = bench;
    // Busy workers do not block the end.
    drop(runtime);
    drives[0].hang(false);
}

#[test]
fn whoever_waits_when_the_runtime_ends_is_told() {
    holds("the end of the runtime", STILL, the_end_comes_in_between);
}

#[test]
fn an_end_that_leaves_the_mailbox_open_is_found() {
    finds(Race::EndUnclosed, STILL, the_end_comes_in_between);
}

/// A caller gives up at any moment.
fn a_caller_may_give_up() {
    let bench = Bench::new(1);
    let owner = owner();
    let spec = spec(1, &owner);
    let granted = match bench.runtime.request(spec.clone(), bench.acquire(), LONG) {
        RequestResult::TimedOut => false,
        answer => is_granted(&answer),
    };
    assert!(bench.runtime.drain(LEASE));
    assert_eq!(bench.runtime.mode(spec.resource).unwrap().is_some(), granted);
    assert_eq!(owner.in_use(), usize::from(granted));
    bench.runtime.release(spec.clone());
    assert!(bench.runtime.drain(LEASE));
    assert_eq!(bench.runtime.mode(spec.resource), Ok(None));
    assert_eq!(owner.in_use(), 0);
}

const IMPATIENT: Host = Host { waits_end: |bound| bound == LONG, ..STILL };

#[test]
fn what_nobody_waits_for_any_more_is_undone() {
    holds("a caller that gives up", IMPATIENT, a_caller_may_give_up);
}

#[test]
fn giving_up_without_a_word_is_found() {
    finds(Race::AbandonUnsaid, IMPATIENT, a_caller_may_give_up);
}

fn locks_are_released_at_the_end() {
    let bench = Bench::new(1);
    let owner = owner();
    let requests: Vec<_> =
        (1..=2).map(|number| bench.request(&spec(number, &owner), bench.acquire())).collect();
    for request in requests {
        let answer = request.join().unwrap();
        assert!(is_granted(&answer), "{answer:?}");
    }
    (1..=2).for_each(|number| bench.runtime.release(spec(number, &owner)));
    assert!(bench.runtime.drain(LEASE));
    assert_eq!(bench.drives[0].unlocks.load(Ordering::Relaxed), 2);
}

#[test]
fn a_drain_waits_for_what_is_on_its_way() {
    holds("drain", STILL, locks_are_released_at_the_end);
}

/// A drive hangs, and blocks neither a drain nor the end.
fn a_drive_hangs_at_the_end() {
    let bench = Bench::new(1);
    bench.drives[0].hang(true);
    let answer = bench.runtime.begin(spec(1, &owner()), bench.acquire());
    assert!(!bench.runtime.drain(LONG), "nothing was answered");
    let Bench { runtime, drives, .. } = bench;
    drop(runtime);
    // The request may have been given up before it began.
    let answer = answer.recv();
    assert!(!answer.as_ref().is_ok_and(is_granted), "{answer:?}");
    drives[0].hang(false);
}

#[test]
fn a_drive_that_hangs_keeps_neither_a_drain_nor_the_end() {
    holds("a drive that hangs at the end", IMPATIENT, a_drive_hangs_at_the_end);
}

#[test]
fn a_drain_that_does_not_look_is_found() {
    finds(Race::DrainAtOnce, STILL, locks_are_released_at_the_end);
}

/// Background commands on one drive; their replies are left in the mailbox where others follow.
fn replies_that_nobody_waits_for() {
    const LOCKS: u8 = 3;
    let bench = Bench::new(2);
    let owner = owner();
    for number in 1..=LOCKS {
        let answer = bench.runtime.request(spec(number, &owner), bench.acquire(), LONG);
        assert!(is_granted(&answer), "{answer:?}");
    }
    let resources = (1..=LOCKS).map(|number| spec(number, &owner).resource).collect();
    bench.runtime.spread(resources, bench.members[1..].to_vec());
    // Nothing but a reply wakes the reactor.
    (0..LOCKS).for_each(|_| bench.told.recv().unwrap());
}

#[test]
fn no_reply_is_left_for_good() {
    holds("replies that are left", STILL, replies_that_nobody_waits_for);
}

/// A host that refuses some or all threads: without threads, the answer is that nothing is granted.
fn requests_without_threads() {
    let bench = Bench::new(1);
    let owner = owner();
    let requests: Vec<_> =
        (1..=3).map(|number| bench.request(&spec(number, &owner), bench.acquire())).collect();
    for request in requests {
        let answer = request.join().unwrap();
        let answered = matches!(answer, RequestResult::Done(_) | RequestResult::Refused(_));
        assert!(answered, "{answer:?}");
    }
}

#[test]
fn requests_are_answered_without_threads_too() {
    let refusing = Host { refuses: |name| name == "idm-drive", ..STILL };
    holds("requests, and few threads", refusing, requests_without_threads);
}

/// Two locks of a VG are lost at the same time.
fn a_vg_is_killed() {
    let failures = any(3) as u32;
    KILLS.set(Kills { refused: failures, ..Kills::default() });
    let bench = Bench::new(1);
    let owner = owner();
    owner.count_in_use(true);
    // One thread counts them, as in the reactor.
    (0..2).for_each(|_| owner.count_in_danger(true));
    let failing: Vec<_> = (0..2)
        .map(|_| {
            let (runtime, owner) = (bench.runtime.clone(), owner.clone());
            threads::spawn(move || runtime.fail(owner, "lost".into(), None))
        })
        .collect();
    failing.into_iter().for_each(|failing| failing.join().unwrap());
    let begun = (0..TURNS).any(|_| {
        threads::yield_now();
        KILLS.get().begun > 0
    });
    assert!(begun, "it does not run");
    for _ in 0..2 {
        owner.count_in_danger(false);
    }
    owner.count_in_use(false);
    // The reactor drops the lockspace when it has nothing left to log about it.
    let ended = (0..TURNS).any(|_| {
        threads::yield_now();
        Arc::strong_count(&owner) == 1
    });
    assert!(ended, "the end of the kill command is not seen");
    let kills = KILLS.get();
    assert_eq!((kills.begun, kills.running, kills.refused), (1, 0, 0));
}

/// A host where kill commands that cannot be started are tried again after some time.
const SCARCE: Host =
    Host { waits_end: |bound| bound < Duration::from_secs(2), refuses: |name| name == "idm-kill" };

#[test]
fn the_kill_command_runs_once_and_its_end_is_seen() {
    holds("kill command", SCARCE, a_vg_is_killed);
    holds("kill command and its end", STILL, the_end_of_a_kill_command);
}

fn the_end_of_a_kill_command() {
    KILLS.set(Kills::default());
    let bench = Bench::new(1);
    let owner = owner();
    bench.runtime.fail(owner.clone(), "lost".into(), None);
    if any(4) == 0 {
        // The runtime ends in the middle.
        return;
    }
    let ended = (0..TURNS).any(|_| {
        threads::yield_now();
        Arc::strong_count(&owner) == 1
    });
    assert!(ended, "the end of the kill command is not seen");
}

#[test]
fn an_end_of_the_kill_command_that_wakes_nobody_is_found() {
    finds(Race::KillEndLeft, STILL, the_end_of_a_kill_command);
}
