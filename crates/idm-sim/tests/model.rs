//! Exhaustive check of small worlds: the real engine, the real drive model, every order in which
//! things can happen.
//!
//! Two hosts, three drives (or two), one lock. Each host makes a number of requests (acquire
//! exclusive or shared, convert, release, in any order that makes sense). Between a command and its
//! reply anything else can happen. Out of a small budget a reply is lost (the host hears
//! "uncertain" at any time, before or after the command had its effect), a drive loses its table, a
//! host dies, and comes back to adopt what it held.
//!
//! Time is abstract: it stands still while commands travel, and advances in steps of half a lease
//! ([`Action::Pass`]), after which what was given up cannot arrive any more. It advances only when
//! nothing is on its way: what commands do that are slower than that is left to the simulator. It
//! does so where a host has died, and, in worlds that are called idle, at any time. A host whose
//! timers are due may run them, or be slow, or stand still for ever. So leases end, in every
//! combination.
//! The engine's random choices are those of a constant; the only ones that it has here are moments
//! between two steps of time, which are all the same, and the number of an acquisition.
//!
//! # What is left out, and why nothing is lost by it
//!
//! *Drives have no names.* Hosts send to all at once and treat all alike, so a state in which two
//! drives have changed places, with all that hosts and messages have to do with them, behaves alike.
//! [`State`]'s hash does not tell such states apart: it is made of one hash for each drive (its
//! table, each host's part in it, the messages on their way to and from it), sorted.
//!
//! *What makes no difference is not compared:* the order of messages of different drives, numbers of
//! commands, how long something has been due or when between two steps of time it will be, what
//! only notices tell, and the state of the random number generator, which begins anew in every call.
//!
//! *A host dies only when it matters.* A dead host does nothing, and so does one that stands still.
//! So a path on which a host dies has the same states of all others as one on which it stands still
//! from there on and dies later, and the latter has a belief more to check. A death matters only
//! where it lets something happen that would not happen otherwise:
//! * Time passes although the host's messages are on their way. So a host dies together with a step
//!   of time ([`Action::CrashAndPass`]); its commands have arrived before that or never do.
//! * A drive may lose its table although the host counts on it ([`Action::CrashAndReset`]).
//! * The path is beyond the fault budget unless the host dies ([`World::within_boundary`]).
//! * It comes back. Worlds with restarts have it die at any time.
//!
//! *What has no effect is not tried.* A reset of an empty drive; a late command that the drive would
//! refuse (it stays on its way, which includes that it never arrives); the loss of the reply to a
//! command without effect, as the host hears and the drive keeps the same when that command is given
//! up before it arrives, and then never does.

use idm_emulator::{Drive, DriveTime, Profile};
use idm_engine::{
    DriveRef, Event, Instant, Lock, LockConfig, Member, Outcome, Request, Timing, Token, ValueRead,
};
use idm_protocol::{DriveCommand, HostId, Mode, Reply, ResourceId, Status, Value};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

const HOSTS: usize = 2;
const LEASE_MS: u64 = 1000;
const STEP_MS: u64 = 500;
/// How long a world may be searched.
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

/// What may happen in a world, and how often.
#[derive(Clone, Debug)]
struct World {
    drives: usize,
    /// How the first host holds the lock at the beginning, on all drives.
    start: &'static [Option<Mode>],
    /// Requests of each host after that, and what they may be.
    requests: [u8; HOSTS],
    ops: [&'static [Op]; HOSTS],
    /// Whether the mutex carries a value (and is not destroyed).
    keeps_value: bool,
    /// Commands whose reply is lost.
    losses: u8,
    /// Drives that lose their table.
    resets: u8,
    /// Hosts that die.
    crashes: u8,
    /// Hosts that come back under their old name, and adopt what they held.
    restarts: u8,
    /// Steps of time.
    passes: u8,
    /// Whether time passes while both hosts live, which then may stand still; otherwise only while
    /// one of them is dead.
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
    /// Requests left.
    requests: u8,
    /// A request is under way.
    busy: bool,
    granted: bool,
    /// It has been exclusive, and has not published a value since.
    dirty: bool,
    /// What a value must not fall behind that is told in reply to the present request.
    floor: u8,
    /// Dead: how it held the lock, and whether another host has been granted it against that since.
    left: Option<Mode>,
    usurped: bool,
}

#[derive(Clone, Debug)]
struct Host {
    /// `None`: dead.
    engine: Option<Arc<Engine>>,
    caller: Caller,
    /// Drives that were reset since they gave this host their vote, where it cannot know it.
    lost: u8,
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
    /// Given up by its host; it may still arrive.
    Ghost(Arc<DriveCommand>),
    /// The reply, and whether the drive had lost its table before it executed the command.
    Reply(Arc<Reply>, bool),
}

impl Caller {
    fn new(requests: u8) -> Caller {
        Caller {
            requests,
            busy: false,
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
    /// With their hashes.
    drives: Vec<(Arc<Drive>, u64)>,
    /// Drives that were reset.
    reset: u8,
    network: Vec<Message>,
    losses: u8,
    resets: u8,
    crashes: u8,
    restarts: u8,
    passes: u8,
    /// The last value that was published, or spoilt by a holder that did not publish.
    issued: u8,
    /// A value was told as known that is not the last one.
    stale: bool,
    /// A lock was adopted that another host had been granted in between.
    resumed: bool,
}

/// The same for states that differ only in how drives are called.
impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.time_ms, self.losses, self.resets, self.crashes).hash(state);
        (self.restarts, self.passes, self.issued, self.stale, self.resumed).hash(state);
        for host in &self.hosts {
            host.caller.hash(state);
            host.engine.as_ref().map(|e| e.rest).hash(state);
        }
        let mut drives: Vec<u64> = (0..self.drives.len()).map(|d| self.hash_of_drive(d)).collect();
        drives.sort_unstable();
        drives.hash(state);
    }
}

/// Never asked of two states that differ: paths are kept as numbers of actions.
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
    /// A message reaches its end; by its place in the network.
    Deliver(usize),
    /// The host gives a command up that has not arrived yet.
    GiveUp(usize),
    /// The reply is lost; the host gives up.
    LoseReply(usize),
    Reset(usize),
    Crash(usize),
    CrashAndPass(usize),
    CrashAndReset(usize, usize),
    /// A dead host is back.
    Restart(usize),
    /// A host does what is due.
    Timer(usize),
    /// Half a lease passes.
    Pass,
}

impl State {
    fn instant(&self) -> Instant {
        // Not zero, so that nothing is "before the beginning".
        Instant::from_micros((1_000_000 + self.time_ms) * 1000)
    }

    fn drive_time(&self) -> DriveTime {
        DriveTime::from_millis(1_000_000 + self.time_ms)
    }

    fn keep_quorum(&self) -> usize {
        self.drives.len() - self.drives.len() / 2
    }

    fn hash_of_drive(&self, d: usize) -> u64 {
        hash_of(|h| {
            (self.drives[d].1, self.reset & (1 << d)).hash(h);
            for host in &self.hosts {
                (host.engine.as_ref().map(|e| e.parts[d]), host.lost & (1 << d) != 0).hash(h);
            }
            // At most one that is not a ghost per host; ghosts have no order.
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

    /// Whether the drive stands for the host, in the mode or a stronger one.
    fn has_vote(&self, host: usize, drive: usize, mode: Mode) -> bool {
        self.drives[drive]
            .0
            .live_holders(self.drive_time(), &resource())
            .any(|(id, m)| id == host_id(host) && m >= mode)
    }

    fn votes(&self, host: usize, mode: Mode) -> usize {
        (0..self.drives.len()).filter(|&d| self.has_vote(host, d, mode)).count()
    }

    /// A belief that rests on votes that a reset has taken: beyond the fault budget, where it
    /// comes with a host that stands still.
    fn is_hollow(&self, host: usize) -> bool {
        let Some(mode) = self.believes(host) else { return false };
        let votes = self.votes(host, mode);
        let lost = (0..self.drives.len())
            .filter(|&d| self.hosts[host].lost & (1 << d) != 0 && !self.has_vote(host, d, mode))
            .count();
        votes < self.keep_quorum() && votes + lost >= self.keep_quorum()
    }

    /// Whether a drive may lose its table as far as a host is concerned: whoever has the drive's
    /// vote has enough without it.
    fn can_do_without(&self, host: usize, drive: usize) -> bool {
        let others = (0..self.drives.len())
            .filter(|&d| d != drive && self.has_vote(host, d, Mode::Shared))
            .count();
        self.lock(host).is_none()
            || !self.has_vote(host, drive, Mode::Shared)
            || others >= self.keep_quorum()
    }

    /// Calls a host's engine; then sends what it wants to send, and hears what it has to say.
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
        let Event::Done(outcome) = event else { return };
        let others_dirty = (0..HOSTS).any(|o| o != h && self.hosts[o].caller.dirty);
        let mode = self.lock(h).and_then(Lock::mode);
        let caller = &mut self.hosts[h].caller;
        caller.busy = false;
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
            let caller = &mut self.hosts[o].caller;
            caller.usurped |= match (caller.left, mode) {
                (Some(left), Some(mode)) => !mode.compatible(left),
                _ => false,
            };
        }
        let caller = &self.hosts[h].caller;
        if let Outcome::Granted(ValueRead::Known(value)) = outcome {
            // Whoever was exclusive and never published was broken; what he changed is not told.
            let old = value.get() < u64::from(caller.floor) || others_dirty;
            self.stale |= old || value.get() > u64::from(self.issued);
        }
    }

    /// The value that a host publishes with a request, where it has anything to publish. Where the
    /// lock is not safe any more nobody knows whether it gets anywhere.
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

    fn reply(&mut self, message: &Message, reply: Reply, fresh: bool) {
        let definite = !matches!(reply, Reply::Status(Status::Uncertain));
        let host = usize::from(message.host);
        if fresh && definite {
            self.hosts[host].lost &= !(1 << message.drive);
        }
        if let Some(token) = message.token {
            self.call(host, |lock, now| lock.on_reply(token, reply, now));
        }
    }

    /// What is on its way stays there, unless it asks for nothing but an answer.
    fn bury(&mut self, h: usize) {
        self.crashes -= 1;
        // What it left matters only if it may come back.
        let left = self.lock(h).and_then(Lock::mode).filter(|_| self.restarts > 0);
        let host = &mut self.hosts[h];
        host.engine = None;
        host.caller = Caller { dirty: host.caller.dirty, left, ..Caller::new(0) };
        host.lost = 0;
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

    /// Whether nothing is on its way but what was given up, and what is of host `except`.
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

fn changes(command: &DriveCommand) -> bool {
    !matches!(command, DriveCommand::ReadTable)
}

impl World {
    fn members(&self) -> Vec<Member> {
        let member = |d| Member { drive: DriveRef(d), identity: vec![d as u8] };
        (0..self.drives as u32).map(member).collect()
    }

    fn engine(&self, h: usize) -> Option<Arc<Engine>> {
        let timing = Timing {
            lease: Duration::from_millis(LEASE_MS),
            drift: Duration::from_millis(2),
            // Whatever is drawn from it is over with the next step of time, and not before.
            renew: Duration::from_micros(400),
            patience: Duration::from_millis(LEASE_MS / 4),
            // A majority waits for nobody: every order is tried anyway.
            grace: Duration::ZERO,
            linger: Duration::from_millis(LEASE_MS / 4),
            backoff: Duration::from_nanos(1),
        };
        #[cfg_attr(not(feature = "broken-rules"), allow(unused_mut))]
        let mut config = LockConfig::new(resource(), host_id(h), self.keeps_value, timing, 0);
        #[cfg(feature = "broken-rules")]
        {
            config.broken = self.broken;
        }
        let mut engine = Engine { lock: Lock::new(config), rest: 0, parts: vec![0; self.drives] };
        engine.rehash(Instant::default());
        Some(Arc::new(engine))
    }

    /// Lets the first host take the lock, undisturbed; before that it leaves a value there.
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
        let requests = &mut state.hosts[h].caller.requests;
        *requests -= 1;
        // Another number for every acquisition, whatever was drawn before.
        let seed = 100 * h as u64 + u64::from(*requests) + 10 * u64::from(state.restarts);
        let members = self.members();
        let value = match op {
            Op::Release | Op::Convert(Mode::Shared) => state.publish(h),
            _ => None,
        };
        let floor = state.issued;
        let host = &mut state.hosts[h];
        host.caller.busy = true;
        let request = match op {
            Op::Acquire(mode) => {
                host.lost = 0;
                host.caller.floor = floor;
                Request::Acquire { mode, members, witnesses: Vec::new() }
            }
            Op::Adopt => {
                host.lost = 0;
                Request::Adopt { mode: None, granted: true, members, witnesses: Vec::new() }
            }
            Op::Convert(mode) => Request::Convert { mode, value },
            Op::Release => {
                host.caller.granted = false;
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
        if caller.requests == 0 || caller.busy {
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

    fn deaths(&self, state: &State, h: usize, actions: &mut Vec<Action>) {
        if state.crashes == 0 || state.lock(h).is_none() {
            return;
        }
        if state.restarts > 0 {
            actions.push(Action::Crash(h));
            return;
        }
        // Who has nothing on its way is not waited for, where time passes anyway.
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
        let host = |h: usize| Host {
            engine: self.engine(h),
            caller: Caller::new(self.requests[h]),
            lost: 0,
        };
        let mut free = State {
            time_ms: 0,
            hosts: [host(0), host(1)],
            drives: vec![(Arc::new(Drive::new(self.profile)), 0); self.drives],
            reset: 0,
            network: Vec::new(),
            losses: self.losses,
            resets: self.resets,
            crashes: self.crashes,
            restarts: self.restarts,
            passes: self.passes,
            issued: 0,
            stale: false,
            resumed: false,
        };
        for d in 0..self.drives {
            free.change_drive(d, |_| ());
        }
        let begin = |mode: &Option<Mode>| match mode {
            None => free.clone(),
            Some(mode) => self.hold(free.clone(), *mode),
        };
        self.start.iter().map(begin).collect()
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
            let on_its_way = state.network.iter().any(|m| usize::from(m.host) == h);
            if state.restarts > 0 && state.lock(h).is_none() && !on_its_way {
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
        let may_pass = self.idle || (0..HOSTS).any(|h| state.lock(h).is_none());
        if state.passes > 0 && may_pass && state.is_quiet(None) {
            actions.push(Action::Pass);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let time = last.drive_time();
        match action {
            Action::Ask(h, op) => self.ask(&mut state, h, op),
            Action::Deliver(i) => {
                let message = state.network.remove(i);
                let d = usize::from(message.drive);
                match &message.content {
                    Content::Ghost(command) => {
                        state.change_drive(d, |drive| drive.perform(time, command));
                        if state.drives[d].1 == last.drives[d].1 {
                            return None;
                        }
                    }
                    Content::Command(command) => {
                        let reply = if changes(command) {
                            state.change_drive(d, |drive| drive.perform(time, command))
                        } else {
                            Reply::Table(state.drives[d].0.table(time).into())
                        };
                        let fresh = state.reset & (1 << d) != 0;
                        let mut message = message.clone();
                        message.now_is(Content::Reply(Arc::new(reply), fresh));
                        state.network.insert(i, message);
                    }
                    Content::Reply(reply, fresh) => {
                        state.reply(&message, (**reply).clone(), *fresh);
                    }
                }
            }
            Action::GiveUp(i) => {
                state.losses -= 1;
                let message = state.network.remove(i);
                let Content::Command(command) = &message.content else { return None };
                if changes(command) {
                    let mut ghost = message.clone();
                    ghost.token = None;
                    ghost.now_is(Content::Ghost(command.clone()));
                    state.network.push(ghost);
                }
                state.reply(&message, Reply::Status(Status::Uncertain), false);
            }
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
            Action::Restart(h) => {
                state.restarts -= 1;
                state.hosts[h].engine = self.engine(h);
                state.hosts[h].caller.requests = 1;
                self.ask(&mut state, h, Op::Adopt);
            }
            Action::Timer(h) => state.call(h, |lock, now| lock.on_timer(now)),
            Action::Pass => state.pass(),
        }
        Some(state)
    }

    /// Within the fault budget: nobody's belief is hollow, or whose is dies at once.
    fn within_boundary(&self, state: &State) -> bool {
        let hollow = (0..HOSTS).filter(|&h| state.is_hollow(h)).count();
        hollow <= usize::from(state.crashes)
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
                    s.believes(h).is_none_or(|mode| s.votes(h, mode) >= s.keep_quorum())
                        || s.is_hollow(h)
                })
            }),
            Property::always(VALUE, |_: &World, s: &State| !s.stale),
            Property::always(TENURE, |_: &World, s: &State| !s.resumed),
            Property::sometimes(BOTH, |_: &World, s: &State| {
                (0..HOSTS).all(|h| s.believes(h) == Some(Mode::Shared))
            }),
            Property::sometimes(SECOND, |_: &World, s: &State| {
                s.believes(1) == Some(Mode::Exclusive)
            }),
        ]
    }
}

const EXCLUSION: &str = "mutual exclusion";
const VOTES: &str = "a belief stands on a keep-quorum";
const VALUE: &str = "a known value is current";
const TENURE: &str = "what is adopted was nobody else's in between";
const BOTH: &str = "both share";
const SECOND: &str = "the second host has it alone";

const LOCK: &[Op] = &[Op::Acquire(Mode::Exclusive), Op::Acquire(Mode::Shared)];
const CONVERT_OR_UNLOCK: &[Op] =
    &[Op::Release, Op::Convert(Mode::Exclusive), Op::Convert(Mode::Shared)];
const ANY: &[Op] = &[
    Op::Acquire(Mode::Exclusive),
    Op::Acquire(Mode::Shared),
    Op::Release,
    Op::Convert(Mode::Exclusive),
    Op::Convert(Mode::Shared),
];

/// Both hosts want a free lock.
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
        passes: 0,
        idle: false,
        profile: Profile::current(),
        #[cfg(feature = "broken-rules")]
        broken: None,
    }
}

/// One host holds the lock, exclusively or shared, and converts or releases it; another wants it.
fn held() -> World {
    World {
        start: &[Some(Mode::Exclusive), Some(Mode::Shared)],
        ops: [CONVERT_OR_UNLOCK, LOCK],
        ..world()
    }
}

/// One host holds the lock, dies at any time, and comes back to adopt it.
fn restarted() -> World {
    World { crashes: 1, restarts: 1, passes: 2, ..held() }
}

fn search(world: World) -> impl Checker<World> {
    let checker = world.checker().threads(2).timeout(LIMIT);
    checker.finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join()
}

fn check(name: &str, world: World) {
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
    for property in [EXCLUSION, VOTES, VALUE, TENURE] {
        checker.assert_no_discovery(property);
    }
    for property in [BOTH, SECOND] {
        checker.assert_any_discovery(property);
    }
    assert!(took < LIMIT, "the search did not come to its end");
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

// The larger ones: `cargo test --release -p idm-sim --test model -- --ignored --nocapture
// --test-threads 1`, one of them by its name.

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
fn a_restart() {
    check("a restart", restarted());
}

#[test]
#[ignore = "minutes"]
fn a_restart_and_a_reset_of_two_drives() {
    check("a restart and a reset, two drives", World { drives: 2, resets: 1, ..restarted() });
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

/// Each rule, broken, is found out, where a world this small can show it.
#[cfg(feature = "broken-rules")]
mod broken {
    use super::*;
    use idm_engine::BrokenRule;

    fn is_caught(rule: BrokenRule, by: &[&'static str], world: World) {
        let checker = search(World { broken: Some(rule), ..world });
        let found = by.iter().find_map(|&property| checker.discovery(property));
        let Some(path) = found else { panic!("{rule:?} is not found out") };
        println!("{rule:?}: {} states, {:?}", checker.unique_state_count(), path.into_actions());
    }

    const HELD: &[&str] = &[EXCLUSION, VOTES];

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
        let world = World { drives: 2, resets: 1, crashes: 1, restarts: 1, ops, ..alone() };
        is_caught(BrokenRule::AdoptQuorum, HELD, World { requests: [0, 1], ..world });
    }

    #[test]
    fn adopt_only_own() {
        let ops: [&[Op]; HOSTS] = [&[], &[Op::Acquire(Mode::Exclusive), Op::Release]];
        let world = World { crashes: 1, restarts: 1, passes: 2, ops, ..alone() };
        is_caught(BrokenRule::AdoptOnlyOwn, &[TENURE], World { requests: [0, 2], ..world });
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
