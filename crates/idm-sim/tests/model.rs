//! Exhaustive check of small worlds: the real engine, the real drive model, every order in which
//! things can happen.
//!
//! Two hosts, three drives, one lock. Each host makes a number of requests (acquire exclusive or
//! shared, convert, release, in any order that makes sense). Between a command and its reply
//! anything else can happen. Out of a small budget a reply is lost (the host hears "uncertain" at
//! any time, before or after the command had its effect), a drive loses its table, a host dies.
//!
//! Time is abstract: it stands still while commands travel, and advances in steps of half a lease
//! ([`Action::Pass`]), after which what was given up cannot arrive any more. It advances only when
//! nothing is on its way: what commands do that are slower than that is left to the simulator. A host whose timers
//! are due may run them, or be slow, or stand still for ever. So leases end, in every combination.
//! The random choices of the engine are made empty by times that leave it none.

use idm_emulator::{Drive, DriveTime, Profile};
use idm_engine::{
    DriveRef, Event, Instant, Lock, LockConfig, Member, Outcome, Request, Timing, Token,
};
use idm_protocol::{DriveCommand, HostId, Mode, Reply, ResourceId, Status};
use stateright::{Checker, Model, Property};
use std::time::Duration;

const HOSTS: usize = 2;
const DRIVES: usize = 3;
const MAJORITY: usize = 2;
const LEASE_MS: u64 = 1000;
const STEP_MS: u64 = 500;

fn resource() -> ResourceId {
    let mut id = [b'v'; 64];
    id[32..].fill(0);
    ResourceId::from_bytes(id)
}

fn host_id(host: usize) -> HostId {
    HostId::new([host as u8 + 1; 16], ["alpha", "bravo"][host])
}

fn members() -> Vec<Member> {
    (0..DRIVES as u32).map(|d| Member { drive: DriveRef(d), identity: vec![d as u8] }).collect()
}

/// What may happen in a world, and how often.
#[derive(Clone, Debug)]
struct World {
    /// How the first host holds the lock at the beginning, on all drives.
    start: &'static [Option<Mode>],
    /// Requests of each host after that.
    requests: [u8; HOSTS],
    /// Whether the mutex carries a value (and is not destroyed).
    keeps_value: bool,
    /// Whether a host may convert.
    converts: bool,
    /// Commands whose reply is lost.
    losses: u8,
    /// Drives that lose their table.
    resets: u8,
    /// Hosts that die.
    crashes: u8,
    /// Steps of time.
    passes: u8,
    profile: Profile,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host {
    /// `None`: dead.
    lock: Option<Lock>,
    /// Requests left.
    requests: u8,
    /// A request is under way.
    busy: bool,
    granted: bool,
    /// Drives that were reset since they gave this host their vote, where it cannot know it.
    lost: u8,
}

/// A command or a reply on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Message {
    host: u8,
    drive: u8,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Content {
    Command(DriveCommand),
    /// Given up by its host; it may still arrive.
    Ghost(DriveCommand),
    /// The reply, and whether the drive had lost its table before it executed the command.
    Reply(Reply, bool),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    time_ms: u64,
    hosts: [Host; HOSTS],
    drives: [Drive; DRIVES],
    /// Drives that were reset.
    reset: u8,
    /// In order, so that equal states are equal.
    network: Vec<Message>,
    losses: u8,
    resets: u8,
    crashes: u8,
    passes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    Acquire(Mode),
    Convert(Mode),
    Release,
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

    fn believes(&self, host: usize) -> Option<Mode> {
        let lock = self.hosts[host].lock.as_ref()?;
        let mode = lock.mode()?;
        (self.instant() < lock.safe_until()?).then_some(mode)
    }

    /// Whether the drive stands for the host, in the mode or a stronger one.
    fn has_vote(&self, host: usize, drive: usize, mode: Mode) -> bool {
        self.drives[drive]
            .live_holders(self.drive_time(), &resource())
            .any(|(id, m)| id == host_id(host) && m >= mode)
    }

    fn votes(&self, host: usize, mode: Mode) -> usize {
        (0..DRIVES).filter(|&d| self.has_vote(host, d, mode)).count()
    }

    /// A belief that rests on votes that a reset has taken: beyond the fault budget, where it
    /// comes with a host that stands still.
    fn is_hollow(&self, host: usize) -> bool {
        let Some(mode) = self.believes(host) else { return false };
        let votes = self.votes(host, mode);
        let lost = (0..DRIVES)
            .filter(|&d| self.hosts[host].lost & (1 << d) != 0 && !self.has_vote(host, d, mode))
            .count();
        votes < MAJORITY && votes + lost >= MAJORITY
    }

    /// Sends what an engine wants to send, and hears what it has to say.
    fn settle(&mut self, host: usize) {
        let now = self.instant();
        let Some(lock) = self.hosts[host].lock.as_mut() else { return };
        while let Some(command) = lock.next_command(now) {
            self.network.push(Message {
                host: host as u8,
                drive: command.drive.0 as u8,
                content: Content::Command(command.command),
            });
        }
        while let Some(event) = lock.next_event() {
            match event {
                Event::Done(Outcome::Granted(_)) => {
                    self.hosts[host].busy = false;
                    self.hosts[host].granted = true;
                }
                Event::Done(_) => self.hosts[host].busy = false,
                _ => {}
            }
        }
        self.network.sort_by_key(|m| {
            (
                m.host,
                m.drive,
                match m.content {
                    Content::Ghost(_) => 0,
                    Content::Command(_) => 1,
                    Content::Reply(..) => 2,
                },
            )
        });
    }

    fn reply(&mut self, message: Message, reply: Reply, fresh: bool) {
        let host = usize::from(message.host);
        let now = self.instant();
        let definite = !matches!(reply, Reply::Status(Status::Uncertain));
        if fresh && definite {
            self.hosts[host].lost &= !(1 << message.drive);
        }
        let Some(lock) = self.hosts[host].lock.as_mut() else { return };
        let token: Option<Token> =
            lock.renumber().find(|(d, _)| d.0 == u32::from(message.drive)).map(|(_, t)| t);
        if let Some(token) = token {
            lock.on_reply(token, reply, now);
        }
        self.settle(host);
    }

    /// Brings what has no meaning into one form.
    fn canonical(mut self) -> State {
        for host in &mut self.hosts {
            if let Some(lock) = &mut host.lock {
                let _ = lock.renumber();
            }
        }
        self
    }
}

impl World {
    /// Lets the first host take the lock, undisturbed.
    fn hold(&self, mut state: State, mode: Mode) -> State {
        state.hosts[0].requests += 1;
        let mut next = self.next_state(&state, Action::Ask(0, Op::Acquire(mode)));
        while let Some(after) = next {
            state = after;
            let busy = !state.network.is_empty();
            next = busy.then(|| self.next_state(&state, Action::Deliver(0))).flatten();
        }
        assert_eq!(state.believes(0), Some(mode));
        state
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        // Times that leave nothing to chance: a range of less than a microsecond has one value.
        let timing = Timing {
            lease: Duration::from_millis(LEASE_MS),
            drift: Duration::from_millis(2),
            renew: Duration::from_micros(3),
            patience: Duration::from_millis(LEASE_MS / 4),
            // A majority waits for nobody: every order is tried anyway.
            grace: Duration::ZERO,
            linger: Duration::from_millis(LEASE_MS / 4),
            backoff: Duration::from_nanos(1),
        };
        let host = |h| Host {
            lock: Some(Lock::new(LockConfig {
                resource: resource(),
                host: host_id(h),
                keeps_value: self.keeps_value,
                timing,
                seed: h as u64,
                #[cfg(feature = "broken-rules")]
                broken: None,
            })),
            requests: self.requests[h],
            busy: false,
            granted: false,
            lost: 0,
        };
        let free = State {
            time_ms: 0,
            hosts: [host(0), host(1)],
            drives: std::array::from_fn(|_| Drive::new(self.profile)),
            reset: 0,
            network: Vec::new(),
            losses: self.losses,
            resets: self.resets,
            crashes: self.crashes,
            passes: self.passes,
        };
        let begin = |mode: &Option<Mode>| match mode {
            None => free.clone(),
            Some(mode) => self.hold(free.clone(), *mode),
        };
        self.start.iter().map(begin).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (h, host) in state.hosts.iter().enumerate() {
            let Some(lock) = &host.lock else { continue };
            if host.requests > 0 && !host.busy {
                match lock.mode() {
                    None if host.granted => actions.push(Action::Ask(h, Op::Release)),
                    None => {
                        actions.push(Action::Ask(h, Op::Acquire(Mode::Exclusive)));
                        actions.push(Action::Ask(h, Op::Acquire(Mode::Shared)));
                    }
                    Some(mode) => {
                        actions.push(Action::Ask(h, Op::Release));
                        if self.converts {
                            let other = match mode {
                                Mode::Exclusive => Mode::Shared,
                                Mode::Shared => Mode::Exclusive,
                            };
                            actions.push(Action::Ask(h, Op::Convert(other)));
                        }
                    }
                }
            }
            if lock.next_deadline().is_some_and(|at| at <= state.instant()) {
                actions.push(Action::Timer(h));
            }
            if state.crashes > 0 {
                actions.push(Action::Crash(h));
            }
        }
        for (i, message) in state.network.iter().enumerate() {
            actions.push(Action::Deliver(i));
            match message.content {
                Content::Command(_) if state.losses > 0 => actions.push(Action::GiveUp(i)),
                Content::Reply(..) if state.losses > 0 => actions.push(Action::LoseReply(i)),
                _ => {}
            }
        }
        if state.resets > 0 {
            actions.extend((0..DRIVES).map(Action::Reset));
        }
        // Commands that are slower than half a lease are left to the simulator.
        let quiet = state.network.iter().all(|m| matches!(m.content, Content::Ghost(_)));
        if state.passes > 0 && quiet {
            actions.push(Action::Pass);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.instant();
        match action {
            Action::Ask(h, op) => {
                let host = &mut state.hosts[h];
                host.requests -= 1;
                host.busy = true;
                let request = match op {
                    Op::Acquire(mode) => {
                        host.lost = 0;
                        Request::Acquire { mode, members: members(), witnesses: Vec::new() }
                    }
                    Op::Convert(mode) => Request::Convert { mode, value: None },
                    Op::Release => {
                        host.granted = false;
                        Request::Release { value: None }
                    }
                };
                host.lock.as_mut()?.request(request, now).ok()?;
                state.settle(h);
            }
            Action::Deliver(i) => {
                let mut message = state.network.remove(i);
                let d = usize::from(message.drive);
                let fresh = state.reset & (1 << d) != 0;
                match message.content {
                    Content::Ghost(command) => {
                        state.drives[d].perform(last.drive_time(), &command);
                    }
                    Content::Command(command) => {
                        let reply = state.drives[d].perform(last.drive_time(), &command);
                        message.content = Content::Reply(reply, fresh);
                        state.network.insert(i, message);
                    }
                    Content::Reply(ref reply, fresh) => {
                        let reply = reply.clone();
                        state.reply(message, reply, fresh);
                    }
                }
            }
            Action::GiveUp(i) => {
                state.losses -= 1;
                let mut message = state.network.remove(i);
                let Content::Command(command) = message.content else { return None };
                message.content = Content::Ghost(command);
                state.network.insert(i, message.clone());
                state.reply(message, Reply::Status(Status::Uncertain), false);
            }
            Action::LoseReply(i) => {
                state.losses -= 1;
                let message = state.network.remove(i);
                state.reply(message, Reply::Status(Status::Uncertain), false);
            }
            Action::Reset(d) => {
                // Within the budget: whoever has the drive's vote has a majority without it.
                for h in 0..HOSTS {
                    let others = (0..DRIVES)
                        .filter(|&o| o != d && state.has_vote(h, o, Mode::Shared))
                        .count();
                    let has = state.has_vote(h, d, Mode::Shared);
                    if has && others < MAJORITY && state.hosts[h].lock.is_some() {
                        return None;
                    }
                    if has {
                        state.hosts[h].lost |= 1 << d;
                    }
                }
                state.resets -= 1;
                state.reset |= 1 << d;
                state.drives[d].reset();
            }
            Action::Crash(h) => {
                state.crashes -= 1;
                state.hosts[h].lock = None;
                state.hosts[h].busy = false;
                state.hosts[h].granted = false;
                // Nobody waits for replies; what is on its way may still arrive.
                state.network.retain_mut(|m| {
                    if usize::from(m.host) != h {
                        return true;
                    }
                    if let Content::Command(command) = &m.content {
                        m.content = Content::Ghost(command.clone());
                    }
                    matches!(m.content, Content::Ghost(_))
                });
            }
            Action::Timer(h) => {
                state.hosts[h].lock.as_mut()?.on_timer(now);
                state.settle(h);
            }
            Action::Pass => {
                state.passes -= 1;
                state.time_ms += STEP_MS;
                state.network.retain(|m| !matches!(m.content, Content::Ghost(_)));
            }
        }
        let state = state.canonical();
        (state != *last).then_some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        !(0..HOSTS).any(|h| state.is_hollow(h))
    }

    fn properties(&self) -> Vec<Property<World>> {
        vec![
            Property::always("mutual exclusion", |_: &World, s: &State| {
                match (s.believes(0), s.believes(1)) {
                    (Some(a), Some(b)) => a.compatible(b),
                    _ => true,
                }
            }),
            Property::always("a belief stands on a majority", |_: &World, s: &State| {
                (0..HOSTS).all(|h| {
                    s.believes(h).is_none_or(|mode| s.votes(h, mode) >= MAJORITY) || s.is_hollow(h)
                })
            }),
            Property::sometimes("both share", |_: &World, s: &State| {
                (0..HOSTS).all(|h| s.believes(h) == Some(Mode::Shared))
            }),
            Property::sometimes("the second host has it alone", |_: &World, s: &State| {
                s.believes(1) == Some(Mode::Exclusive)
            }),
        ]
    }
}

fn world() -> World {
    World {
        start: &[None],
        requests: [1, 1],
        keeps_value: false,
        converts: true,
        losses: 0,
        resets: 0,
        crashes: 0,
        passes: 0,
        profile: Profile::current(),
    }
}

fn check(name: &str, world: World) {
    let checker = world.checker().threads(2).spawn_dfs().join();
    println!(
        "{name}: {} different states, {} transitions, depth {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

/// One host holds the lock, exclusively or shared, and converts or releases it; another wants it.
fn held() -> World {
    World { start: &[Some(Mode::Exclusive), Some(Mode::Shared)], ..world() }
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

// The larger ones: `cargo test --release -p idm-sim --test model -- --ignored --nocapture`.

#[test]
#[ignore = "minutes"]
fn convert_or_unlock_against_lock_and_a_reset() {
    check("convert or unlock against lock, a reset", World { resets: 1, ..held() });
}

#[test]
#[ignore = "minutes"]
fn unlock_against_lock_and_a_crash() {
    let crash = World { converts: false, crashes: 1, passes: 2, ..held() };
    check("unlock against lock, a crash", World { start: &[Some(Mode::Exclusive)], ..crash });
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
    check("two requests and one", World { requests: [2, 1], ..world() });
}

#[test]
#[ignore = "minutes"]
fn a_lock_with_a_value() {
    check("a lock with a value", World { keeps_value: true, ..world() });
}

#[test]
#[ignore = "minutes"]
fn a_lost_reply_and_time() {
    check("a lost reply, and time", World { losses: 1, passes: 1, ..world() });
}

#[test]
#[ignore = "hours"]
fn all_faults() {
    let all = World { losses: 1, resets: 1, crashes: 1, passes: 2, ..held() };
    check("all faults", all);
}
