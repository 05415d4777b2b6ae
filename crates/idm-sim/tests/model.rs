//! An exhaustive check of small worlds: the real engine, the real drive model, and every order of
//! events.
//!
//! A world has two hosts, three drives (or two) and one lock. Each host makes a number of requests
//! (acquire exclusive or shared, convert, release, in any order that makes sense). Between a
//! command and its reply anything else can happen. Out of a small budget a reply is lost (the host
//! gets "uncertain" at any time, before or after the command had its effect), a drive loses its
//! table, or a host dies and comes back to adopt its lock. It may come back while commands of its
//! earlier life are still on their way: it knows the time until which they can arrive, but no more.
//! If it cannot adopt the lock, it asks again after some time, or gives the lock back.
//!
//! In worlds where the votes move, hosts count different drives. The first host gets the order to
//! spread the lock from its drives to others, notes them when they are ready, and lets them vote,
//! with everything else in between. Each host reads all drives that do not vote for it.
//!
//! Time is abstract: it stands still while commands travel, and advances in steps of half a lease
//! ([`Action::Pass`]), after which commands that were given up cannot arrive any more. It advances
//! only when nothing is on its way; slower commands are left to the simulator. It does so where a
//! host has died, and in idle worlds at any time. A host whose timers are due may run them, be
//! slow, or stand still for ever. So leases end in every combination. The engine's random choices
//! use a constant. Here these are only times between two steps of time, which are all equivalent,
//! and the number of an acquisition.
//!
//! # Omissions, and why they lose nothing
//!
//! *Drives have no names.* Hosts send to all drives at once and treat all alike. So a state in
//! which two drives have changed places, with all related parts of hosts and messages, behaves
//! alike. [`State`]'s hash does not distinguish such states: it is made of one hash per drive (its
//! table, each host's part in it, the messages on their way to and from it), sorted. If hosts count
//! different drives, only drives that belong to the same sets change places, because fingerprints
//! in records and locks name a set by its drives.
//!
//! *Differences without effect are not compared:* the order of messages of different drives, the
//! numbers of commands, the time since which a task has been due, or its moment between two steps
//! of time, data that only notices use, and the state of the random number generator, which starts
//! anew in every call.
//!
//! *A host dies only when it matters.* A dead host does nothing, and so does one that stands still.
//! So a path on which a host dies has the same states of all others as a path on which it stands
//! still from there on and dies later, and the latter has one more belief to check. A death matters
//! only if it allows something that would not happen otherwise:
//! * Time passes although the host's messages are on their way. So a host dies together with a step
//!   of time ([`Action::CrashAndPass`]); its commands have arrived before that or never will.
//! * A drive may lose its table although the host counts on it ([`Action::CrashAndReset`]).
//! * The path is beyond the fault budget unless the host dies ([`World::within_boundary`]).
//! * It comes back. In worlds with restarts it may die at any time.
//!
//! *Actions without effect are not tried.* These are a reset of an empty drive; a late command that
//! the drive would refuse (it stays on its way, which includes that it never arrives); and the loss
//! of the reply to a command without effect. In the last case host and drive end in the same state
//! as when the command is given up before it arrives, and then never arrives.

use idm_emulator::{Drive, DriveTime, Profile};
use idm_engine::{
    DriveRef, Event, Instant, Lock, LockConfig, Member, Outcome, Refusal, Request, Timing, Token,
    ValueRead,
};
use idm_protocol::{
    DriveCommand, HostId, Mode, Reply, ResourceId, State as RecordState, Status, Value,
};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

const HOSTS: usize = 2;

/// A set of drives, one bit each.
type Set = u8;
const LEASE_MS: u64 = 1000;
const STEP_MS: u64 = 500;
/// Start of time: not zero, so that no time is before the beginning.
const BEGIN_MS: u64 = 1_000_000;
/// Time limit for the search of a world.
const LIMIT: Duration = Duration::from_secs(25 * 60);

fn resource() -> ResourceId {
    let mut id = [b'v'; 64];
    id[32..].fill(0);
    ResourceId::from_bytes(id)
}

fn host_id(host: usize) -> HostId {
    HostId::new([host as u8 + 1; 16], ["alpha", "bravo"][host])
}

fn hash_of(what: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what(&mut hasher);
    hasher.finish()
}

/// The possible events in a world, and their numbers.
#[derive(Clone, Debug)]
struct World {
    drives: usize,
    /// Modes in which the first host holds the lock at the beginning, on all drives.
    start: &'static [Option<Mode>],
    /// Number of requests of each host after that.
    requests: [u8; HOSTS],
    ops: [&'static [Op]; HOSTS],
    /// Whether the mutex carries a value (and is not destroyed).
    keeps_value: bool,
    /// Number of commands whose reply is lost.
    losses: u8,
    /// Number of drives that lose their table.
    resets: u8,
    /// Number of hosts that die.
    crashes: u8,
    /// Number of hosts that come back under their old name, and adopt their lock.
    restarts: u8,
    /// Number of requests of a host that has come back, after the adoption.
    later_requests: u8,
    /// Whether a host that comes back waits for its earlier life's commands.
    waits: bool,
    /// Whether a host notes the drives that are to vote before it lets them.
    notes_first: bool,
    /// Time that a request waits for drives, in ms.
    patience_ms: u64,
    /// Drives that each host counts, for several worlds.
    sets: &'static [[Set; HOSTS]],
    /// Drives to which the first host has to move its votes.
    target: Option<Set>,
    /// Number of steps of time.
    passes: u8,
    /// Whether time passes while both hosts live, which may then stand still; otherwise it passes
    /// only while one of them is dead.
    idle: bool,
    profile: Profile,
    #[cfg(feature = "broken-rules")]
    broken: Option<idm_engine::BrokenRule>,
}

/// A host's lock, with the hashes of its parts.
#[derive(Clone, Debug)]
struct Engine {
    lock: Lock,
    rest: u64,
    parts: Vec<u64>,
}

#[derive(Clone, Debug, Hash)]
struct Caller {
    /// Number of requests left.
    requests: u8,
    /// Whether a request is under way.
    busy: bool,
    /// Whether the lock of its earlier life is undecided yet.
    adopting: bool,
    granted: bool,
    /// Whether it has been exclusive, and has not published a value since.
    dirty: bool,
    /// Oldest value that the reply to the present request may report.
    floor: u8,
    /// Drives that it counts when it requests or adopts the lock, noted permanently.
    members: Set,
    /// Drives that vote for it.
    voting: Set,
    moving: Moving,
    /// Whether a drive that answered since the request began had the other host's record. Only kept
    /// where it decides.
    met: bool,
    /// Mode in which it held the lock, if it is dead or has not proven its lock since; and whether
    /// another host has been granted a conflicting lock since.
    left: Option<Mode>,
    usurped: bool,
    /// Time until which commands of its earlier life may arrive, and its lock was safe.
    earlier_until_ms: u64,
    safe_until_ms: u64,
    /// Time at which it was last refused when it asked for its earlier life's lock.
    refused_ms: Option<u64>,
}

/// The caller's progress in letting other drives vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Moving {
    /// Whether it has named them.
    spread: bool,
    /// Whether they were reported ready, and it has not noted them since.
    ready: bool,
    /// Whether it has noted them, and has not let them vote since.
    noted: bool,
}

#[derive(Clone, Debug)]
struct Host {
    /// Engine; `None` if the host is dead.
    engine: Option<Arc<Engine>>,
    caller: Caller,
    /// Drives that were reset since they gave this host their vote, if it cannot know that.
    lost: Set,
    /// Drives that have not answered since the request began. Only kept where it decides.
    unheard: Set,
}

/// A command or a reply on its way.
#[derive(Clone, Debug)]
struct Message {
    host: u8,
    drive: u8,
    token: Option<Token>,
    content: Content,
    hash: u64,
}

#[derive(Clone, Debug, Hash)]
enum Content {
    Command(Arc<DriveCommand>),
    /// A command that its host gave up; it may still arrive.
    Ghost(Arc<DriveCommand>),
    /// A reply, and whether the drive had lost its table before it executed the command.
    Reply(Arc<Reply>, bool),
}

impl Caller {
    fn new(requests: u8, members: Set) -> Caller {
        Caller {
            requests,
            members,
            voting: members,
            moving: Moving::default(),
            met: false,
            earlier_until_ms: 0,
            safe_until_ms: 0,
            refused_ms: None,
            busy: false,
            adopting: false,
            granted: false,
            dirty: false,
            floor: 0,
            left: None,
            usurped: false,
        }
    }
}

impl Message {
    fn now_is(&mut self, content: Content) {
        self.content = content;
        self.hash = hash_of(|h| (self.host, &self.content).hash(h));
    }

    fn is_ghost(&self) -> bool {
        matches!(self.content, Content::Ghost(_))
    }
}

#[derive(Clone, Debug)]
struct State {
    time_ms: u64,
    hosts: [Host; HOSTS],
    /// Drives with their hashes.
    drives: Vec<(Arc<Drive>, u64)>,
    /// Drives that were reset.
    reset: Set,
    /// The sets of drives that any host counts at any time.
    sets: [Set; HOSTS + 1],
    /// Whether a host may miss another because a drive does not answer.
    may_miss: bool,
    /// Whether no lease ends, and no drive loses its table.
    lasting: bool,
    network: Vec<Message>,
    losses: u8,
    resets: u8,
    crashes: u8,
    restarts: u8,
    passes: u8,
    /// The last value that was published, or invalidated by a holder that did not publish.
    issued: u8,
    /// Whether a value was reported as known that is not the last one.
    stale: bool,
    /// Whether a lock was adopted that another host had been granted in between.
    resumed: bool,
    /// Whether a host was informed that it did not hold its lock, although nobody can have taken
    /// the lock.
    forgotten: bool,
    /// Whether a host was granted a conflicting lock because no drive showed the other host, while
    /// a drive that could have shown it did not answer: this case is not promised.
    blind: bool,
}

/// The hash, which is the same for states that differ only in the names of drives.
impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.time_ms, self.losses, self.resets, self.crashes).hash(state);
        (self.restarts, self.passes, self.issued, self.stale, self.resumed).hash(state);
        (self.sets, self.forgotten, self.blind).hash(state);
        for host in &self.hosts {
            host.caller.hash(state);
            host.engine.as_ref().map(|e| e.rest).hash(state);
        }
        let mut drives: Vec<u64> = (0..self.drives.len()).map(|d| self.hash_of_drive(d)).collect();
        drives.sort_unstable();
        drives.hash(state);
    }
}

/// Never called for two states that differ: paths are kept as numbers of actions.
impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        hash_of(|h| self.hash(h)) == hash_of(|h| other.hash(h))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    Acquire(Mode),
    Convert(Mode),
    Release,
    Adopt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// A host begins a request.
    Ask(usize, Op),
    /// A message arrives; the number is its place in the network.
    Deliver(usize),
    /// The host gives up a command that has not arrived yet.
    GiveUp(usize),
    /// The reply is lost; the host gives up.
    LoseReply(usize),
    Reset(usize),
    Crash(usize),
    CrashAndPass(usize),
    CrashAndReset(usize, usize),
    /// A dead host comes back.
    Restart(usize),
    /// A host names the drives that are to vote.
    Spread(usize),
    /// A host notes the drives that are ready to vote.
    Note(usize),
    /// A host lets the drives vote that it has noted.
    MoveVotes(usize),
    /// The drives were not ready any more: a host notes those that vote again.
    NoteBack(usize),
    /// A host runs its due timers.
    Timer(usize),
    /// Half a lease passes.
    Pass,
}

impl State {
    fn instant(&self) -> Instant {
        instant(self.time_ms)
    }

    fn drive_time(&self) -> DriveTime {
        DriveTime::from_millis(BEGIN_MS + self.time_ms)
    }

    /// The number of drives that a host must keep of those that vote for it.
    fn keep_quorum(&self, host: usize) -> usize {
        let members = self.hosts[host].caller.voting.count_ones() as usize;
        members - members / 2
    }

    /// The drives that vote for a host.
    fn voting(&self, host: usize) -> impl Iterator<Item = usize> + '_ {
        let voting = self.hosts[host].caller.voting;
        (0..self.drives.len()).filter(move |d| voting & (1 << d) != 0)
    }

    fn hash_of_drive(&self, d: usize) -> u64 {
        hash_of(|h| {
            self.drives[d].1.hash(h);
            self.sets.map(|set| set & (1 << d) != 0).hash(h);
            for host in &self.hosts {
                (host.engine.as_ref().map(|e| e.parts[d]), host.lost & (1 << d) != 0).hash(h);
                (host.unheard & (1 << d) != 0).hash(h);
            }
            // Each host has at most one that is not a ghost; ghosts have no order.
            let there = self.network.iter().filter(|m| usize::from(m.drive) == d);
            there.fold(0u64, |sum, m| sum.wrapping_add(m.hash)).hash(h);
            (self.reset & (1 << d) != 0).hash(h);
        })
    }

    fn lock(&self, host: usize) -> Option<&Lock> {
        self.hosts[host].engine.as_ref().map(|engine| &engine.lock)
    }

    fn believes(&self, host: usize) -> Option<Mode> {
        let lock = self.lock(host)?;
        let mode = lock.mode()?;
        (self.instant() < lock.safe_until()?).then_some(mode)
    }

    /// Whether the drive votes for the host, in this mode or a stronger one.
    fn has_vote(&self, host: usize, drive: usize, mode: Mode) -> bool {
        self.drives[drive]
            .0
            .live_holders(self.drive_time(), &resource())
            .any(|(id, m)| id == host_id(host) && m >= mode)
    }

    fn votes(&self, host: usize, mode: Mode) -> usize {
        self.voting(host).filter(|&d| self.has_vote(host, d, mode)).count()
    }

    /// Whether a belief rests on votes that a reset has taken: this is beyond the fault budget if a
    /// host also stands still.
    fn is_hollow(&self, host: usize) -> bool {
        let Some(mode) = self.believes(host) else { return false };
        let votes = self.votes(host, mode);
        let lost = self
            .voting(host)
            .filter(|&d| self.hosts[host].lost & (1 << d) != 0 && !self.has_vote(host, d, mode))
            .count();
        votes < self.keep_quorum(host) && votes + lost >= self.keep_quorum(host)
    }

    /// Whether a drive may lose its table as far as a host is concerned: if the host has the
    /// drive's vote, it must have enough without it.
    fn can_do_without(&self, host: usize, drive: usize) -> bool {
        let others =
            self.voting(host).filter(|&d| d != drive && self.has_vote(host, d, Mode::Shared));
        self.lock(host).is_none()
            || !self.voting(host).any(|d| d == drive)
            || !self.has_vote(host, drive, Mode::Shared)
            || others.count() >= self.keep_quorum(host)
    }

    /// Calls a host's engine, sends its commands, and handles its events.
    fn call(&mut self, h: usize, call: impl FnOnce(&mut Lock, Instant)) {
        let now = self.instant();
        let Some(engine) = self.hosts[h].engine.as_mut().map(Arc::make_mut) else { return };
        engine.lock.reseed(0);
        call(&mut engine.lock, now);
        while let Some(command) = engine.lock.next_command(now) {
            let content = Content::Command(Arc::new(command.command));
            let mut message = Message {
                host: h as u8,
                drive: command.drive.0 as u8,
                token: Some(command.token),
                content: content.clone(),
                hash: 0,
            };
            message.now_is(content);
            self.network.push(message);
        }
        let mut events = Vec::new();
        while let Some(event) = engine.lock.next_event() {
            events.push(event);
        }
        engine.rehash(now);
        for event in events {
            self.hear(h, event);
        }
    }

    fn hear(&mut self, h: usize, event: Event) {
        let outcome = match event {
            Event::Done(outcome) => outcome,
            Event::VotesReady { members } => {
                let named = members.iter().fold(0, |set, drive| set | 1 << drive.0);
                assert_eq!(named, self.sets[HOSTS], "those that were to vote are ready");
                self.hosts[h].caller.moving.ready = true;
                return;
            }
            _ => return,
        };
        let others_dirty = (0..HOSTS).any(|o| o != h && self.hosts[o].caller.dirty);
        let mode = self.lock(h).and_then(Lock::mode);
        let now_ms = self.time_ms;
        let caller = &mut self.hosts[h].caller;
        caller.busy = false;
        if caller.adopting && matches!(outcome, Outcome::Refused(_)) {
            // The lock of its earlier life may be in use: it asks again, or gives the lock back.
            caller.refused_ms = Some(now_ms);
            let held = caller.left.is_some() && !caller.usurped;
            let gone = outcome == Outcome::Refused(Refusal::NothingToAdopt);
            self.forgotten |= gone && held && self.lasting;
            return;
        }
        (caller.adopting, caller.refused_ms) = (false, None);
        let has_it = matches!(outcome, Outcome::Granted(_) | Outcome::Adopted(_));
        caller.granted |= has_it;
        let exclusive = mode == Some(Mode::Exclusive);
        if exclusive && (has_it || matches!(outcome, Outcome::Converted { .. })) {
            caller.dirty = true;
        }
        let usurped = core::mem::take(&mut caller.usurped);
        self.resumed |= usurped && matches!(outcome, Outcome::Adopted(_));
        caller.left = None;
        for o in (0..HOSTS).filter(|&o| o != h) {
            let against = |theirs: Option<Mode>| {
                theirs.zip(mode).is_some_and(|(theirs, mode)| !theirs.compatible(mode))
            };
            let usurps = against(self.hosts[o].caller.left);
            self.blind |= (usurps || against(self.believes(o))) && self.could_miss(h, o);
            self.hosts[o].caller.usurped |= usurps;
        }
        let caller = &self.hosts[h].caller;
        if let Outcome::Granted(ValueRead::Known(value)) = outcome {
            // A holder that was exclusive and never published was broken; its changes are not
            // reported.
            let old = value.get() < u64::from(caller.floor) || others_dirty;
            self.stale |= old || value.get() > u64::from(self.issued);
        }
    }

    /// The value that a host publishes with a request, if it has one to publish. If the lock is not
    /// safe any more, it is not known whether the value arrives.
    fn publish(&mut self, h: usize) -> Option<Value> {
        if !core::mem::take(&mut self.hosts[h].caller.dirty) {
            return None;
        }
        self.issued += 1;
        let value = Value::new(u64::from(self.issued));
        if self.believes(h).is_none() {
            self.issued += 1;
        }
        value
    }

    /// Whether no drive has shown a host the other's record, but a drive that did not answer could.
    fn could_miss(&self, h: usize, other: usize) -> bool {
        let host = &self.hosts[h];
        let stands = |drive: &Drive| {
            let record = drive.record(self.drive_time(), &resource(), &host_id(other));
            record.is_some_and(|r| r.state != RecordState::Unlocked)
        };
        let knows = |(d, drive): (usize, &(Arc<Drive>, u64))| {
            host.unheard & (1 << d) != 0 && stands(&drive.0)
        };
        !host.caller.met && self.drives.iter().enumerate().any(knows)
    }

    fn reply(&mut self, message: &Message, reply: Reply, fresh: bool) {
        let definite = !matches!(reply, Reply::Status(Status::Uncertain));
        let host = usize::from(message.host);
        if fresh && definite {
            self.hosts[host].lost &= !(1 << message.drive);
        }
        if self.may_miss {
            let met = tells_of_another(&reply, host);
            let host = &mut self.hosts[host];
            host.unheard &= !(1 << message.drive);
            host.unheard |= Set::from(!definite) << message.drive;
            host.caller.met |= met;
        }
        if let Some(token) = message.token {
            self.call(host, |lock, now| lock.on_reply(token, reply, now));
        }
    }

    /// Lets a message arrive. Returns `false` if it had no effect.
    fn deliver(&mut self, i: usize) -> bool {
        let time = self.drive_time();
        let message = self.network.remove(i);
        let d = usize::from(message.drive);
        match &message.content {
            Content::Ghost(command) => {
                let before = self.drives[d].1;
                self.change_drive(d, |drive| drive.perform(time, command));
                return self.drives[d].1 != before;
            }
            Content::Command(command) => {
                let reply = if changes(command) {
                    self.change_drive(d, |drive| drive.perform(time, command))
                } else {
                    Reply::Table(self.drives[d].0.table(time).into())
                };
                let fresh = self.reset & (1 << d) != 0;
                let mut message = message.clone();
                message.now_is(Content::Reply(Arc::new(reply), fresh));
                self.network.insert(i, message);
            }
            Content::Reply(reply, fresh) => self.reply(&message, (**reply).clone(), *fresh),
        }
        true
    }

    fn give_up(&mut self, i: usize) {
        self.losses -= 1;
        let message = self.network.remove(i);
        let ghost = match &message.content {
            Content::Command(command) => Some(command.clone()).filter(|c| changes(c)),
            _ => None,
        };
        if let Some(command) = ghost {
            let mut ghost = message.clone();
            ghost.token = None;
            ghost.now_is(Content::Ghost(command));
            self.network.push(ghost);
        }
        self.reply(&message, Reply::Status(Status::Uncertain), false);
    }

    /// Handles the death of a host: its messages stay on their way, unless they only request an
    /// answer.
    fn bury(&mut self, h: usize) {
        self.crashes -= 1;
        // Its lock matters only if the host may come back.
        let held = self.lock(h).and_then(Lock::mode);
        let left = held.or(self.hosts[h].caller.left).filter(|_| self.restarts > 0);
        // Commands that were given up do not outlive the next step of time.
        let earlier_until_ms = if self.restarts > 0 { self.time_ms + STEP_MS } else { 0 };
        let safe = self.lock(h).and_then(Lock::safe_until).filter(|_| self.restarts > 0);
        let host = &mut self.hosts[h];
        let safe_until_ms = match safe {
            Some(until) => until.as_micros() / 1000 - BEGIN_MS,
            None => host.caller.safe_until_ms,
        };
        host.engine = None;
        let Caller { dirty, members, usurped, .. } = host.caller;
        let noted = Caller::new(0, members);
        host.caller = Caller { dirty, left, usurped, earlier_until_ms, safe_until_ms, ..noted };
        (host.lost, host.unheard) = (0, 0);
        self.network.retain_mut(|m| {
            if usize::from(m.host) != h {
                return true;
            }
            m.token = None;
            match &m.content {
                Content::Command(command) if changes(command) => {
                    m.now_is(Content::Ghost(command.clone()));
                    true
                }
                Content::Command(_) | Content::Reply(..) => false,
                Content::Ghost(_) => true,
            }
        });
    }

    fn lose_table(&mut self, d: usize) {
        for h in 0..HOSTS {
            if self.lock(h).is_some() && self.has_vote(h, d, Mode::Shared) {
                self.hosts[h].lost |= 1 << d;
            }
        }
        self.resets -= 1;
        self.reset |= 1 << d;
        self.change_drive(d, Drive::reset);
    }

    fn change_drive<T>(&mut self, d: usize, change: impl FnOnce(&mut Drive) -> T) -> T {
        let (drive, hash) = &mut self.drives[d];
        let result = change(Arc::make_mut(drive));
        *hash = hash_of(|h| drive.hash(h));
        result
    }

    fn pass(&mut self) {
        self.passes -= 1;
        self.time_ms += STEP_MS;
        self.network.retain(|m| !m.is_ghost());
        let now = self.instant();
        for host in &mut self.hosts {
            if let Some(engine) = &mut host.engine {
                Arc::make_mut(engine).rehash(now);
            }
        }
    }

    /// Whether nothing is on its way except commands that were given up, and messages of host
    /// `except`.
    fn is_quiet(&self, except: Option<usize>) -> bool {
        self.network.iter().all(|m| m.is_ghost() || except == Some(usize::from(m.host)))
    }
}

impl Engine {
    fn rehash(&mut self, now: Instant) {
        // The next step of time at or after a moment.
        let step = |at: Instant| at.max(now).as_micros().div_ceil(STEP_MS * 1000);
        self.rest = hash_of(|h| self.lock.hash_rest(h));
        for (d, part) in self.parts.iter_mut().enumerate() {
            *part = hash_of(|h| self.lock.hash_drive(DriveRef(d as u32), step, h));
        }
    }
}

/// Whether a reply shows that a host other than `h` holds the mutex, or has held it.
fn tells_of_another(reply: &Reply, h: usize) -> bool {
    match reply {
        Reply::Status(status) => matches!(status, Status::Conflict | Status::Terminated),
        Reply::Table(table) => table.iter().any(|r| {
            let held = r.state.is_record() && r.state != RecordState::Unlocked;
            held && r.resource == resource() && r.host != host_id(h)
        }),
    }
}

fn instant(time_ms: u64) -> Instant {
    Instant::from_micros((BEGIN_MS + time_ms) * 1000)
}

fn changes(command: &DriveCommand) -> bool {
    !matches!(command, DriveCommand::ReadTable)
}

impl World {
    fn all(&self) -> Set {
        (1 << self.drives) - 1
    }

    fn drives_of(&self, set: Set) -> Vec<Member> {
        let member = |d| Member { drive: DriveRef(d), identity: vec![d as u8] };
        (0..self.drives as u32).filter(|d| set & (1 << d) != 0).map(member).collect()
    }

    fn engine(&self, h: usize, earlier_until: Instant) -> Option<Arc<Engine>> {
        let waits = self.target.is_some() || self.drives % 2 == 0;
        let timing = Timing {
            lease: Duration::from_millis(LEASE_MS),
            drift: Duration::from_millis(2),
            // Every random choice in it ends with the next step of time, and not before.
            renew: Duration::from_micros(400),
            patience: Duration::from_millis(self.patience_ms),
            // A majority does not wait: every order is tried anyway. If hosts count different
            // drives, a drive that was not waited for may be the only one that knows of a holder.
            // And an adoption may be decided by half of an even number, which is refused if the
            // others are not read.
            grace: Duration::from_millis(if waits { 1 } else { 0 }),
            linger: Duration::from_millis(LEASE_MS / 4),
            backoff: Duration::from_nanos(1),
        };
        let mut config = LockConfig::new(resource(), host_id(h), self.keeps_value, timing, 0);
        config.earlier_until = earlier_until;
        config.earlier_shares_until = earlier_until;
        config.earlier_writes_until = earlier_until;
        #[cfg(feature = "broken-rules")]
        {
            config.broken = self.broken;
        }
        let mut engine = Engine { lock: Lock::new(config), rest: 0, parts: vec![0; self.drives] };
        engine.rehash(Instant::default());
        Some(Arc::new(engine))
    }

    /// A state in which nobody holds the lock.
    fn free(&self, sets: [Set; HOSTS]) -> State {
        let sets = sets.map(|set| set & self.all());
        let host = |h: usize| Host {
            engine: self.engine(h, Instant::default()),
            caller: Caller::new(self.requests[h], sets[h]),
            lost: 0,
            unheard: 0,
        };
        let sets = [sets[0], sets[1], self.target.unwrap_or(sets[0])];
        let mut free = State {
            time_ms: 0,
            hosts: [host(0), host(1)],
            drives: vec![(Arc::new(Drive::new(self.profile)), 0); self.drives],
            reset: 0,
            sets,
            may_miss: self.losses > 0 && sets.iter().any(|&set| set != sets[0]),
            lasting: self.resets == 0 && u64::from(self.passes) * STEP_MS < LEASE_MS,
            network: Vec::new(),
            losses: self.losses,
            resets: self.resets,
            crashes: self.crashes,
            restarts: self.restarts,
            passes: self.passes,
            issued: 0,
            stale: false,
            resumed: false,
            forgotten: false,
            blind: false,
        };
        for d in 0..self.drives {
            free.change_drive(d, |_| ());
        }
        free
    }

    /// Lets the first host take the lock undisturbed; before that it leaves a value there.
    fn hold(&self, mut state: State, mode: Mode) -> State {
        let mut ops = vec![Op::Acquire(mode)];
        if self.keeps_value {
            ops.splice(0..0, [Op::Acquire(Mode::Exclusive), Op::Release]);
        }
        for op in ops {
            state.hosts[0].caller.requests += 1;
            let mut next = self.next_state(&state, Action::Ask(0, op));
            while let Some(after) = next {
                state = after;
                let busy = !state.network.is_empty();
                next = busy.then(|| self.next_state(&state, Action::Deliver(0))).flatten();
            }
        }
        assert_eq!(state.believes(0), Some(mode));
        state
    }

    fn ask(&self, state: &mut State, h: usize, op: Op) {
        let orphan = state.hosts[h].caller.refused_ms.is_some();
        if op != Op::Adopt && !orphan {
            state.hosts[h].caller.requests -= 1;
        }
        // A different number for every acquisition, whatever the earlier choices. An adoption
        // writes its number only at its end.
        let requests = state.hosts[h].caller.requests;
        let seed = 100 * h as u64 + u64::from(requests) + 10 * u64::from(state.restarts);
        let counted = state.hosts[h].caller.members;
        let (members, witnesses) = (self.drives_of(counted), self.drives_of(self.all() & !counted));
        let value = match op {
            Op::Release | Op::Convert(Mode::Shared) => state.publish(h),
            _ => None,
        };
        let floor = state.issued;
        let host = &mut state.hosts[h];
        host.caller.busy = true;
        (host.unheard, host.caller.met) = (0, false);
        let request = match op {
            Op::Acquire(mode) => {
                host.lost = 0;
                host.caller.floor = floor;
                host.caller.voting = counted;
                Request::Acquire { mode, members, witnesses }
            }
            Op::Adopt => {
                host.lost = 0;
                host.caller.adopting = true;
                host.caller.voting = counted;
                // A granted lock is noted as such.
                let until = instant(host.caller.safe_until_ms);
                let safe_until = host.caller.left.map(|_| until);
                let mode = host.caller.left.unwrap_or(Mode::Exclusive);
                Request::Adopt { mode, safe_until, granted: true, members, witnesses }
            }
            Op::Convert(mode) => Request::Convert { mode, value },
            Op::Release => {
                host.caller.granted = false;
                host.caller.moving = Moving::default();
                Request::Release { value }
            }
        };
        state.call(h, |lock, now| {
            lock.reseed(seed);
            lock.request(request, now).expect("the request is in order");
        });
    }

    fn requests(&self, state: &State, h: usize, actions: &mut Vec<Action>) {
        let caller = &state.hosts[h].caller;
        let Some(lock) = state.lock(h) else { return };
        if caller.busy {
            return;
        }
        if let Some(at) = caller.refused_ms {
            actions.push(Action::Ask(h, Op::Release));
            if at < state.time_ms {
                actions.push(Action::Ask(h, Op::Adopt));
            }
            return;
        }
        if caller.requests == 0 {
            return;
        }
        let allowed = |op: &Op| match (*op, lock.mode()) {
            (Op::Release, mode) => mode.is_some() || caller.granted,
            (Op::Convert(to), Some(mode)) => mode != to,
            (Op::Acquire(_), None) => !caller.granted,
            (Op::Adopt, _) | (Op::Convert(_), None) | (Op::Acquire(_), Some(_)) => false,
        };
        let ops = self.ops[h].iter().filter(|op| allowed(op));
        actions.extend(ops.map(|&op| Action::Ask(h, op)));
    }

    fn restart(&self, state: &mut State, h: usize) {
        state.restarts -= 1;
        let caller = &mut state.hosts[h].caller;
        caller.requests = self.later_requests;
        let earlier_until = if self.waits { caller.earlier_until_ms } else { 0 };
        state.hosts[h].engine = self.engine(h, instant(earlier_until));
        self.ask(state, h, Op::Adopt);
    }

    /// Adds the actions with which a host lets other drives vote.
    fn moves(&self, state: &State, h: usize, actions: &mut Vec<Action>) {
        let caller = &state.hosts[h].caller;
        let Moving { spread, ready, noted } = caller.moving;
        let held = state.lock(h).and_then(Lock::mode).is_some();
        if h != 0 || self.target.is_none() || !held {
            return;
        }
        if !spread && caller.voting != state.sets[HOSTS] {
            actions.push(Action::Spread(h));
        }
        if ready && !noted {
            actions.push(Action::Note(h));
        }
        if noted || (ready && !self.notes_first) {
            actions.push(Action::MoveVotes(h));
        } else if caller.members != caller.voting {
            actions.push(Action::NoteBack(h));
        }
    }

    fn move_votes(&self, state: &mut State, h: usize) {
        let moving = &mut state.hosts[h].caller.moving;
        moving.noted = false;
        moving.ready &= self.notes_first;
        let mut moved = false;
        let named: Vec<DriveRef> =
            self.drives_of(state.sets[HOSTS]).iter().map(|member| member.drive).collect();
        state.call(h, |lock, now| moved = lock.move_votes(&named, now));
        if moved {
            let caller = &mut state.hosts[h].caller;
            caller.voting = state.sets[HOSTS];
        }
    }

    fn deaths(&self, state: &State, h: usize, actions: &mut Vec<Action>) {
        if state.crashes == 0 || state.lock(h).is_none() {
            return;
        }
        if state.restarts > 0 {
            actions.push(Action::Crash(h));
            return;
        }
        // A host without messages on their way is not waited for, if time passes anyway.
        let waited_for = state.network.iter().any(|m| usize::from(m.host) == h && !m.is_ghost());
        if state.passes > 0 && (waited_for || !self.idle) && state.is_quiet(Some(h)) {
            actions.push(Action::CrashAndPass(h));
        }
        if state.resets > 0 {
            let hinders = |d: usize| !state.can_do_without(h, d);
            let others = |d: usize| (0..HOSTS).all(|o| o == h || state.can_do_without(o, d));
            let drives = (0..self.drives).filter(|&d| hinders(d) && others(d));
            actions.extend(drives.map(|d| Action::CrashAndReset(h, d)));
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let free = self.sets.iter().map(|&sets| self.free(sets));
        let begin = |free: State| {
            self.start.iter().map(move |mode| match mode {
                None => free.clone(),
                Some(mode) => self.hold(free.clone(), *mode),
            })
        };
        free.flat_map(begin).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if let Some(h) = (0..HOSTS).find(|&h| state.is_hollow(h)) {
            actions.push(Action::Crash(h));
            return;
        }
        for h in 0..HOSTS {
            self.requests(state, h, actions);
            let due = state.lock(h).and_then(Lock::next_deadline);
            if due.is_some_and(|at| at <= state.instant()) {
                actions.push(Action::Timer(h));
            }
            self.deaths(state, h, actions);
            self.moves(state, h, actions);
            if state.restarts > 0 && state.lock(h).is_none() {
                actions.push(Action::Restart(h));
            }
        }
        for (i, message) in state.network.iter().enumerate() {
            actions.push(Action::Deliver(i));
            match &message.content {
                Content::Command(_) if state.losses > 0 => actions.push(Action::GiveUp(i)),
                Content::Reply(reply, _)
                    if state.losses > 0 && **reply == Reply::Status(Status::Good) =>
                {
                    actions.push(Action::LoseReply(i));
                }
                _ => {}
            }
        }
        if state.resets > 0 {
            let allowed = |d: usize| (0..HOSTS).all(|h| state.can_do_without(h, d));
            let full = |d: usize| !state.drives[d].0.table(state.drive_time()).is_empty();
            let drives = (0..self.drives).filter(|&d| allowed(d) && full(d));
            actions.extend(drives.map(Action::Reset));
        }
        // Commands that are slower than half a lease are left to the simulator.
        let waits = |caller: &Caller| {
            state.time_ms < caller.earlier_until_ms || caller.refused_ms.is_some()
        };
        let may_pass = self.idle
            || (0..HOSTS).any(|h| state.lock(h).is_none() || waits(&state.hosts[h].caller));
        if state.passes > 0 && may_pass && state.is_quiet(None) {
            actions.push(Action::Pass);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Ask(h, op) => self.ask(&mut state, h, op),
            Action::Deliver(i) => return state.deliver(i).then_some(state),
            Action::GiveUp(i) => state.give_up(i),
            Action::LoseReply(i) => {
                state.losses -= 1;
                let message = state.network.remove(i);
                state.reply(&message, Reply::Status(Status::Uncertain), false);
            }
            Action::Reset(d) => state.lose_table(d),
            Action::Crash(h) => state.bury(h),
            Action::CrashAndPass(h) => {
                state.bury(h);
                state.pass();
            }
            Action::CrashAndReset(h, d) => {
                state.bury(h);
                state.lose_table(d);
            }
            Action::Restart(h) => self.restart(&mut state, h),
            Action::Spread(h) => {
                state.hosts[h].caller.moving.spread = true;
                let drives = self.drives_of(state.sets[HOSTS]);
                state.call(h, |lock, now| lock.spread(&drives, now));
            }
            Action::Note(h) => {
                let caller = &mut state.hosts[h].caller;
                caller.members = state.sets[HOSTS];
                caller.moving = Moving { ready: false, noted: true, ..caller.moving };
            }
            Action::MoveVotes(h) => self.move_votes(&mut state, h),
            Action::NoteBack(h) => {
                let caller = &mut state.hosts[h].caller;
                caller.members = caller.voting;
            }
            Action::Timer(h) => state.call(h, |lock, now| lock.on_timer(now)),
            Action::Pass => state.pass(),
        }
        Some(state)
    }

    /// Within the fault budget: no host has a hollow belief, or that host dies at once; and no host
    /// was granted a conflicting lock of which no drive could inform it.
    fn within_boundary(&self, state: &State) -> bool {
        let hollow = (0..HOSTS).filter(|&h| state.is_hollow(h)).count();
        hollow <= usize::from(state.crashes) && !state.blind
    }

    fn properties(&self) -> Vec<Property<World>> {
        vec![
            Property::always(EXCLUSION, |_: &World, s: &State| {
                let hollow = (0..HOSTS).any(|h| s.is_hollow(h));
                match (s.believes(0), s.believes(1)) {
                    (Some(a), Some(b)) => a.compatible(b) || hollow,
                    _ => true,
                }
            }),
            Property::always(VOTES, |_: &World, s: &State| {
                (0..HOSTS).all(|h| {
                    s.believes(h).is_none_or(|mode| s.votes(h, mode) >= s.keep_quorum(h))
                        || s.is_hollow(h)
                })
            }),
            Property::always(VALUE, |_: &World, s: &State| !s.stale),
            Property::always(TENURE, |_: &World, s: &State| !s.resumed),
            Property::always(MEMORY, |_: &World, s: &State| !s.forgotten),
            Property::sometimes(BOTH, |_: &World, s: &State| {
                (0..HOSTS).all(|h| s.believes(h) == Some(Mode::Shared))
            }),
            Property::sometimes(SECOND, |_: &World, s: &State| {
                s.believes(1) == Some(Mode::Exclusive)
            }),
            Property::sometimes(ADOPTED, |_: &World, s: &State| {
                let back = |h: usize| s.hosts[h].caller.earlier_until_ms > 0;
                (0..HOSTS).any(|h| back(h) && s.believes(h).is_some())
            }),
            Property::sometimes(MOVED, |_: &World, s: &State| {
                let Caller { voting, moving, .. } = s.hosts[0].caller;
                moving.spread && voting == s.sets[HOSTS] && s.believes(0).is_some()
            }),
        ]
    }
}

const EXCLUSION: &str = "mutual exclusion";
const VOTES: &str = "a belief stands on a keep-quorum";
const HELD: &[&str] = &[EXCLUSION, VOTES];
const VALUE: &str = "a known value is current";
const TENURE: &str = "what is adopted was nobody else's in between";
const MEMORY: &str = "nothing to adopt is said only where nothing was held";
const BOTH: &str = "both share";
const SECOND: &str = "the second host has it alone";
const ADOPTED: &str = "a restarted host holds what it held";
const MOVED: &str = "other drives vote";

const LOCK: &[Op] = &[Op::Acquire(Mode::Exclusive), Op::Acquire(Mode::Shared)];
const CONVERT_OR_UNLOCK: &[Op] =
    &[Op::Release, Op::Convert(Mode::Exclusive), Op::Convert(Mode::Shared)];
const LOCK_AND_UNLOCK: &[Op] = &[Op::Acquire(Mode::Exclusive), Op::Release];
const ANY: &[Op] = &[
    Op::Acquire(Mode::Exclusive),
    Op::Acquire(Mode::Shared),
    Op::Release,
    Op::Convert(Mode::Exclusive),
    Op::Convert(Mode::Shared),
];

/// Both hosts request a free lock.
fn world() -> World {
    World {
        drives: 3,
        start: &[None],
        requests: [1, 1],
        ops: [LOCK, LOCK],
        keeps_value: false,
        losses: 0,
        resets: 0,
        crashes: 0,
        restarts: 0,
        later_requests: 0,
        waits: true,
        notes_first: true,
        patience_ms: LEASE_MS / 4,
        sets: &[[Set::MAX; HOSTS]],
        target: None,
        passes: 0,
        idle: false,
        profile: Profile::current(),
        #[cfg(feature = "broken-rules")]
        broken: None,
    }
}

/// One host holds the lock, exclusively or shared, and converts or releases it; another requests
/// it.
fn held() -> World {
    World {
        start: &[Some(Mode::Exclusive), Some(Mode::Shared)],
        ops: [CONVERT_OR_UNLOCK, LOCK],
        ..world()
    }
}

/// One host holds the lock, dies at any time, and comes back to adopt it; nobody else requests it.
fn restarted() -> World {
    World { crashes: 1, restarts: 1, passes: 1, requests: [1, 0], ..held() }
}

/// Another host requests it as well. With commands of a dead host on their way, two drives make the
/// world large enough.
fn contested_restart() -> World {
    World { drives: 2, requests: [1, 1], passes: 2, ..restarted() }
}

/// Firmware that stores the set of drives of a REFRESH, or not.
fn firmware(refresh_stores_metadata: bool) -> Profile {
    Profile { refresh_stores_metadata, ..Profile::current() }
}

/// One host holds the lock on the first of three drives, and has to let all of them vote; another
/// host requests it, which counts the old drives, the new ones or only drives that are not old.
fn moving() -> World {
    World {
        start: &[Some(Mode::Exclusive)],
        requests: [0, 1],
        sets: &[[0b001, 0b111], [0b001, 0b001], [0b001, 0b110]],
        target: Some(0b111),
        ..held()
    }
}

/// The same from one of two drives to the other; the host dies at any time, and comes back.
fn moving_and_dying() -> World {
    World {
        drives: 2,
        crashes: 1,
        restarts: 1,
        passes: 1,
        sets: &[[0b01, 0b11], [0b01, 0b01], [0b01, 0b10]],
        target: Some(0b10),
        ..moving()
    }
}

fn search(world: World) -> impl Checker<World> {
    let checker = world.checker().threads(2).timeout(LIMIT);
    checker.finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join()
}

/// Searches a world in which both hosts can get the lock.
fn check(name: &str, world: World) {
    check_for(name, world, &[BOTH, SECOND]);
}

/// Searches a world in which all of this is possible.
fn check_for(name: &str, world: World, possible: &[&'static str]) {
    let begin = std::time::Instant::now();
    let checker = search(world);
    let took = begin.elapsed();
    println!(
        "{name}: {} different states, {} transitions, depth {}, {:.0} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        took.as_secs_f64()
    );
    for property in [EXCLUSION, VOTES, VALUE, TENURE, MEMORY] {
        checker.assert_no_discovery(property);
    }
    for property in possible {
        checker.assert_any_discovery(property);
    }
    assert!(took < LIMIT, "the search did not come to its end");
}

/// Checks that the fault in a world is found.
fn is_found(what: &str, by: &[&'static str], world: World) {
    let checker = search(world);
    let found = by.iter().find_map(|&property| checker.discovery(property));
    let Some(path) = found else { panic!("{what} is not found out") };
    println!("{what}: {} states, {:?}", checker.unique_state_count(), path.into_actions());
}

#[test]
fn lock_against_lock() {
    check("lock against lock", world());
}

#[test]
fn lock_against_lock_and_a_lost_reply() {
    check("lock against lock, a lost reply", World { losses: 1, ..world() });
}

#[test]
fn lock_against_lock_and_a_reset() {
    check("lock against lock, a reset", World { resets: 1, ..world() });
}

#[test]
fn lock_against_lock_and_a_crash() {
    check("lock against lock, a crash", World { crashes: 1, passes: 2, ..world() });
}

#[test]
fn convert_or_unlock_against_lock() {
    check("convert or unlock against lock", held());
}

#[test]
fn a_restart_with_commands_on_their_way() {
    check_for("a restart with commands on their way", restarted(), &[ADOPTED]);
}

#[test]
fn a_restart_of_an_idle_host_with_two_drives() {
    let world = World { drives: 2, requests: [0, 0], ..restarted() };
    check_for("a restart of an idle host, two drives", world, &[ADOPTED]);
}

/// A host that does not wait for its earlier life's commands believes in locks that these undo.
#[test]
fn a_restart_that_does_not_wait() {
    is_found("a restart that does not wait", HELD, World { waits: false, ..restarted() });
}

#[test]
fn votes_that_move() {
    for stores in [true, false] {
        let world = World { profile: firmware(stores), ..moving() };
        check_for(&format!("votes that move, marked: {stores}"), world, &[MOVED]);
    }
}

#[test]
fn shared_votes_that_move() {
    let world = World { start: &[Some(Mode::Shared)], profile: firmware(false), ..moving() };
    check_for("shared votes that move", world, &[MOVED, BOTH]);
}

#[test]
fn votes_that_leave_their_drive() {
    let sets = &[[0b001, 0b111], [0b001, 0b001], [0b001, 0b110], [0b001, 0b010]];
    check_for("votes that leave", World { sets, target: Some(0b110), ..moving() }, &[MOVED]);
}

#[test]
fn votes_that_move_with_one_of_their_drives() {
    let sets = &[[0b011, 0b111], [0b011, 0b011], [0b011, 0b110], [0b011, 0b001], [0b011, 0b100]];
    let world = World { sets, target: Some(0b110), profile: firmware(true), ..moving() };
    check_for("votes that move with one of their drives", world, &[MOVED]);
}

#[test]
fn votes_that_move_and_a_restart() {
    for stores in [true, false] {
        let world = World { profile: firmware(stores), ..moving_and_dying() };
        let name = format!("votes that move, a restart, marked: {stores}");
        check_for(&name, world, &[MOVED, ADOPTED]);
    }
}

/// A host that notes the voting drives only afterwards looks for the lock in the old place.
#[test]
fn votes_that_move_before_they_are_noted() {
    let world = World { notes_first: false, ..moving_and_dying() };
    is_found("votes that move before they are noted", &[MEMORY], world);
}

// The larger worlds: `cargo test --release -p idm-sim --test model -- --ignored --nocapture
// --test-threads 1`, or one of them by its name.

#[test]
#[ignore = "minutes"]
fn convert_or_unlock_against_lock_and_a_reset() {
    check("convert or unlock against lock, a reset", World { resets: 1, ..held() });
}

#[test]
#[ignore = "minutes"]
fn convert_or_unlock_against_lock_and_a_lost_reply() {
    check("convert or unlock against lock, a lost reply", World { losses: 1, ..held() });
}

#[test]
#[ignore = "minutes"]
fn convert_or_unlock_against_lock_and_a_crash() {
    check("convert or unlock against lock, a crash", World { crashes: 1, passes: 2, ..held() });
}

#[test]
#[ignore = "minutes"]
fn two_requests_and_one() {
    check("two requests and one", World { requests: [2, 1], ops: [ANY, LOCK], ..world() });
}

#[test]
#[ignore = "minutes"]
fn a_lock_with_a_value() {
    check("a lock with a value", World { keeps_value: true, ..held() });
}

#[test]
#[ignore = "minutes"]
fn a_lost_reply_and_time() {
    check("a lost reply, and time", World { losses: 1, passes: 1, idle: true, ..world() });
}

#[test]
#[ignore = "minutes"]
fn a_restart_and_leases_that_end() {
    check_for("a restart, leases that end", World { passes: 3, ..restarted() }, &[ADOPTED]);
}

#[test]
#[ignore = "minutes"]
fn an_adoption_that_waits() {
    let world = World { passes: 2, patience_ms: LEASE_MS * 3 / 4, ..restarted() };
    check_for("an adoption that waits", world, &[ADOPTED]);
}

#[test]
#[ignore = "minutes"]
fn a_restart_against_lock() {
    let world = World { requests: [0, 1], passes: 3, ..restarted() };
    check_for("a restart against lock", world, &[ADOPTED, SECOND]);
}

#[test]
#[ignore = "minutes"]
fn a_restart_with_commands_on_their_way_against_lock() {
    let name = "a restart with commands on their way against lock, two drives";
    check_for(name, contested_restart(), &[ADOPTED, SECOND, BOTH]);
}

#[test]
#[ignore = "minutes"]
fn two_restarts() {
    let world = World { drives: 2, crashes: 2, restarts: 2, passes: 2, ..restarted() };
    check_for("two restarts, two drives", world, &[ADOPTED]);
}

#[test]
#[ignore = "minutes"]
fn a_restart_and_another_request() {
    let world = World { drives: 2, passes: 2, later_requests: 1, ops: [ANY, LOCK], ..restarted() };
    check_for("a restart and another request, two drives", world, &[ADOPTED]);
}

#[test]
#[ignore = "minutes"]
fn a_restart_and_a_reset_of_two_drives() {
    let world = World { resets: 1, requests: [0, 1], ..contested_restart() };
    check_for("a restart and a reset, two drives", world, &[ADOPTED, SECOND]);
}

#[test]
#[ignore = "minutes"]
fn votes_that_move_and_a_reset() {
    check_for("votes that move, a reset", World { resets: 1, ..moving() }, &[MOVED]);
}

#[test]
#[ignore = "minutes"]
fn votes_that_move_and_a_lost_reply() {
    check_for("votes that move, a lost reply", World { losses: 1, ..moving() }, &[MOVED]);
}

#[test]
#[ignore = "minutes"]
fn votes_that_move_and_a_restart_and_a_reset() {
    let world = World { resets: 1, ..moving_and_dying() };
    check_for("votes that move, a restart and a reset", world, &[MOVED, ADOPTED]);
}

#[test]
#[ignore = "minutes"]
fn votes_that_move_and_a_restart_and_a_lost_reply() {
    let world = World { losses: 1, ..moving_and_dying() };
    check_for("votes that move, a restart and a lost reply", world, &[MOVED, ADOPTED]);
}

#[test]
#[ignore = "minutes"]
fn votes_that_move_and_a_restart_and_leases_that_end() {
    let ops: [&[Op]; HOSTS] = [&[], LOCK_AND_UNLOCK];
    let longer = World { requests: [0, 2], ops, passes: 3, ..moving_and_dying() };
    let added = World { target: Some(0b11), profile: firmware(true), ..longer.clone() };
    let sets = &[[0b11, 0b11], [0b11, 0b01], [0b11, 0b10]];
    let removed = World { sets, profile: firmware(true), ..longer.clone() };
    for (name, world) in [("other", longer), ("more", added), ("fewer", removed)] {
        let name = format!("votes that move to {name} drives, a restart, leases that end");
        check_for(&name, world, &[MOVED, ADOPTED, SECOND]);
    }
}

#[test]
#[ignore = "minutes"]
fn votes_that_move_or_change_or_end() {
    let world = World { crashes: 0, restarts: 0, requests: [1, 1], ..moving_and_dying() };
    check_for("votes that move, convert or unlock", world, &[MOVED, SECOND, BOTH]);
}

#[test]
#[ignore = "minutes"]
fn a_value_and_a_lost_reply() {
    check("a value, a lost reply", World { keeps_value: true, losses: 1, ..held() });
}

#[test]
#[ignore = "minutes"]
fn a_value_and_a_reset() {
    check("a value, a reset", World { keeps_value: true, resets: 1, ..held() });
}

#[test]
#[ignore = "minutes"]
fn a_value_and_a_crash() {
    check("a value, a crash", World { keeps_value: true, crashes: 1, passes: 2, ..held() });
}

#[test]
#[ignore = "minutes"]
fn hosts_that_stand_still() {
    let still = World { passes: 2, idle: true, ..held() };
    check("hosts that stand still", World { start: &[Some(Mode::Exclusive)], ..still });
}

#[test]
#[ignore = "minutes"]
fn all_faults() {
    let all = World { losses: 1, resets: 1, crashes: 1, passes: 2, ..held() };
    check("all faults", all);
}

/// Each broken rule is found, if a world this small can show it.
#[cfg(feature = "broken-rules")]
mod broken {
    use super::*;
    use idm_engine::BrokenRule;

    fn is_caught(rule: BrokenRule, by: &[&'static str], world: World) {
        is_found(&format!("{rule:?}"), by, World { broken: Some(rule), ..world });
    }

    /// The first host holds the lock alone.
    fn alone() -> World {
        World { start: &[Some(Mode::Exclusive)], requests: [0, 0], ..held() }
    }

    #[test]
    fn keep_quorum() {
        let world = World { losses: 2, passes: 2, idle: true, ..alone() };
        is_caught(BrokenRule::KeepQuorum, HELD, world);
    }

    #[test]
    fn release_order() {
        let world = World { requests: [2, 0], ops: [ANY, LOCK], losses: 1, ..alone() };
        is_caught(BrokenRule::ReleaseOrder, HELD, world);
    }

    #[test]
    fn demote_order() {
        is_caught(BrokenRule::DemoteOrder, HELD, World { requests: [2, 0], losses: 1, ..alone() });
    }

    #[test]
    fn adopt_quorum() {
        let ops: [&[Op]; HOSTS] = [&[], &[Op::Acquire(Mode::Exclusive)]];
        let world = World { resets: 1, ops, ..contested_restart() };
        is_caught(BrokenRule::AdoptQuorum, HELD, World { requests: [0, 1], ..world });
    }

    #[test]
    fn adopt_only_own() {
        let ops: [&[Op]; HOSTS] = [&[], &[Op::Acquire(Mode::Exclusive), Op::Release]];
        let world = World { passes: 2, ops, ..contested_restart() };
        is_caught(BrokenRule::AdoptOnlyOwn, &[TENURE], World { requests: [0, 2], ..world });
    }

    #[test]
    fn fingerprint() {
        is_caught(BrokenRule::Fingerprint, HELD, moving());
    }

    #[test]
    fn confirm_by_reading() {
        is_caught(BrokenRule::ConfirmByReading, HELD, moving());
    }

    #[test]
    fn value_after_break() {
        let world = World { keeps_value: true, crashes: 1, passes: 2, ..alone() };
        is_caught(BrokenRule::ValueAfterBreak, &[VALUE], World { requests: [0, 1], ..world });
    }

    #[test]
    fn value_beside_sharers() {
        is_caught(BrokenRule::ValueBesideSharers, &[VALUE], World { keeps_value: true, ..held() });
    }
}
