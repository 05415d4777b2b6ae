//! Removing dead hosts from the drives before their locks are taken.

use crate::rules::{Rules, broken};
use crate::seen::{Seen, holders};
use crate::{Action, Answer, Key, Obstacle, Orders, Procedure};
use alloc::vec::Vec;
use idm_engine::{DriveRef, Instant, acquire_quorum};
use idm_protocol::{HostId, Record, ResourceId};

/// Number of times that a key may still be there after it was removed.
const TRIES: u8 = 2;

/// A command that may take away locks of other hosts, and that waits until they are removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// This host.
    pub me: HostId,
    /// The mutex that the command is for.
    pub resource: ResourceId,
    /// The mutex of its volume group.
    pub group: ResourceId,
    /// The drive that the command is for.
    pub target: DriveRef,
    /// The group's drives on which this host is registered, in the same order on every host.
    pub drives: Vec<DriveRef>,
    /// The group's drives, with those on which this host is not registered and without those that
    /// have left it. A host that is alive renews its membership on enough of them.
    pub group_drives: Vec<DriveRef>,
    /// The drives that have the data that the mutex protects.
    pub needed: Vec<DriveRef>,
    /// The end of a lease that begins now. A host that takes the mutex after the look may be dead
    /// by then, and nobody has removed it.
    pub until: Instant,
}

/// The outcome of a [`Fence`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The command may be sent, as long as it [can arrive in time](Fence::may_arrive). These hosts
    /// had something to lose, and are removed from every drive that matters.
    Go(Vec<HostId>),
    /// A host that holds the mutex is alive. The drive would refuse the command, unless that host's
    /// lease ended before the command arrived, and then nobody would have removed that host.
    Held,
    /// The command may not be sent.
    Refused(Vec<Obstacle>),
    /// This host was removed from a drive by another one. It may use nothing of the group any more.
    Removed(DriveRef),
}

/// Refused, without a reason.
impl Default for Verdict {
    fn default() -> Verdict {
        Verdict::Refused(Vec::new())
    }
}

/// The removal of the hosts that a command may take locks from.
///
/// First the table of the command's own drive is read; mostly no dead host has a lock there, and
/// the procedure ends. Otherwise every drive is looked at: no host is removed if the removal is not
/// possible on every drive that matters, or if a host is alive. Then the hosts are removed from one
/// drive, and, after a look has confirmed that, from the others. All hosts begin with the same
/// drive. So of two hosts that remove each other, one learns on that drive that it has lost, before
/// it has done anything else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fence {
    order: Order,
    own: Key,
    rules: Rules,
    orders: Orders,
    drives: Vec<DriveState>,
    /// Hosts to be removed.
    victims: Vec<HostId>,
    /// Hosts with a lease that runs, on any drive.
    living: Vec<HostId>,
    /// Hosts to be removed that are alive according to a record of the group.
    alive: Vec<Obstacle>,
    phase: Phase,
    verdict: Option<Verdict>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// The table of the command's own drive is read.
    Asking,
    /// Every drive is looked at.
    Looking,
    /// Hosts are removed from this drive.
    First(usize),
    /// Hosts are removed from the others.
    Rest,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DriveState {
    drive: DriveRef,
    is_needed: bool,
    /// The result of the last look; `None` if the drive did not answer.
    seen: Option<Seen>,
    is_unable: bool,
    /// Whether an order to remove a host is under way.
    removing: bool,
    /// The last key that was removed, and the number of times that it was found there again.
    tried: Option<Key>,
    tries: u8,
}

impl Fence {
    /// Begins.
    pub fn new(order: Order, rules: Rules) -> Fence {
        let mut orders = Orders::default();
        let state = |&drive: &DriveRef| DriveState {
            drive,
            is_needed: order.needed.contains(&drive) || drive == order.target,
            seen: None,
            is_unable: false,
            removing: false,
            tried: None,
            tries: 0,
        };
        let drives: Vec<DriveState> = order.drives.iter().map(state).collect();
        orders.give(order.target, Action::Read);
        let own = Key::of(&order.me);
        let mut fence = Fence {
            order,
            own,
            rules,
            orders,
            drives,
            victims: Vec::new(),
            living: Vec::new(),
            alive: Vec::new(),
            phase: Phase::Asking,
            verdict: None,
        };
        if let Some(verdict) = fence.unregistered(&[fence.order.target]) {
            fence.end(verdict);
        }
        fence
    }

    /// Whether the command may be sent, after the verdict [`Verdict::Go`], if it arrives at this
    /// time at the latest. This host may have stood still since the drive was looked at. An order
    /// to remove a host that cannot arrive in time should not be given, either: by now that host
    /// may be well.
    pub fn may_arrive(&self, at: Instant) -> bool {
        at < self.order.until || broken!(self.rules, OldVerdict)
    }

    /// The refusal where this host is not registered on one of these drives.
    fn unregistered(&self, drives: &[DriveRef]) -> Option<Verdict> {
        let missing = drives.iter().find(|drive| !self.order.drives.contains(drive));
        let obstacle = Obstacle::NotRegistered(self.order.me, *missing?);
        Some(Verdict::Refused([obstacle].into()))
    }

    /// Decides with the table of the command's own drive.
    fn ask(&mut self, table: &[Record]) {
        let holders: Vec<(HostId, bool)> =
            holders(table, &self.order.resource, &self.order.me).collect();
        let beside = broken!(self.rules, TakeBesideTheLiving);
        if !beside && holders.iter().any(|&(_, is_alive)| is_alive) {
            return self.end(Verdict::Held);
        }
        self.victims =
            holders.iter().filter(|&&(_, is_alive)| !is_alive).map(|&(host, _)| host).collect();
        self.victims.sort_unstable();
        self.victims.dedup();
        if self.victims.is_empty() || broken!(self.rules, GrantBeforePreempt) {
            return self.end(Verdict::Go(self.victims.clone()));
        }
        if let Some(verdict) = self.unregistered(&self.order.needed) {
            return self.end(verdict);
        }
        self.phase = Phase::Looking;
        let drives: Vec<DriveRef> = self.drives.iter().map(|it| it.drive).rev().collect();
        drives.into_iter().for_each(|drive| self.orders.give(drive, Action::Look));
    }

    /// Decides after every drive was looked at.
    fn survey(&mut self) {
        if let Some(verdict) = self.find_removed() {
            return self.end(verdict);
        }
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return self.end(Verdict::Refused(obstacles));
        }
        let to_do = (0..self.drives.len()).find(|&at| self.victim_on(at).is_some());
        match to_do {
            None => self.end(Verdict::Go(self.victims.clone())),
            Some(first) => {
                self.phase = Phase::First(first);
                self.proceed(first);
            }
        }
    }

    /// The obstacles to a removal, before any order to remove a host.
    fn obstacles(&self) -> Vec<Obstacle> {
        let mut obstacles: Vec<Obstacle> =
            (0..self.drives.len()).filter_map(|at| self.unusable(at)).collect();
        for state in &self.drives {
            let drive = state.drive;
            match &state.seen {
                None if state.is_needed && state.is_unable => {
                    obstacles.push(Obstacle::Unsupported(drive));
                }
                None if state.is_needed => obstacles.push(Obstacle::Silent(drive)),
                None => {}
                Some(seen) if seen.reservation.is_none() => {
                    obstacles.push(Obstacle::NotReserved(drive));
                }
                Some(_) => {}
            }
        }
        if !broken!(self.rules, RemoveTheLiving) {
            obstacles.extend(&self.alive);
        }
        let group = &self.order.group_drives;
        let counts = |state: &&DriveState| state.seen.is_some() && group.contains(&state.drive);
        let seen = self.drives.iter().filter(counts).count();
        let blind = broken!(self.rules, CountRegistered);
        let needed = acquire_quorum(if blind { self.drives.len() } else { group.len() });
        if seen < needed {
            obstacles.push(Obstacle::TooFew { seen, needed });
        }
        obstacles.sort_unstable();
        obstacles.dedup();
        obstacles
    }

    /// The reason why no host can be removed from a drive. Something else reserves it, so that a
    /// key may be any host's, also a dead one's; or it has left the group, and this host's key is
    /// gone.
    fn unusable(&self, at: usize) -> Option<Obstacle> {
        let DriveState { drive, seen, .. } = &self.drives[at];
        let seen = seen.as_ref()?;
        let has_left = !self.order.group_drives.contains(drive);
        let is_free = has_left && !seen.has(self.own);
        let free = || is_free.then_some(Obstacle::NotRegistered(self.order.me, *drive));
        seen.foreign(*drive).or_else(free)
    }

    /// The drive that this host was removed from, if it was.
    fn find_removed(&self) -> Option<Verdict> {
        let lacks = |&at: &usize| {
            let seen = self.drives[at].seen.as_ref();
            seen.is_some_and(|seen| !seen.has(self.own)) && self.unusable(at).is_none()
        };
        let removed = (0..self.drives.len()).find(lacks);
        removed.map(|at| Verdict::Removed(self.drives[at].drive))
    }

    /// A key that is still to be removed from a drive: every one that is neither this host's nor
    /// that of a host that lives. A path of a dead host may still have the key of an earlier boot,
    /// on a drive that was away when the host came back.
    fn victim_on(&self, at: usize) -> Option<Key> {
        let seen = self.drives[at].seen.as_ref()?;
        let others = seen.keys.iter().copied().filter(|&key| key != self.own.number());
        let is_victim = |key: &u64| {
            // A host that comes to life after the decision is removed, too.
            let mut living = self.living.iter().filter(|host| !self.victims.contains(host));
            let lives = living.any(|host| Key::of(host).number() == *key);
            lives == broken!(self.rules, KeyOfWrongHost)
        };
        others.filter(is_victim).map(Key::from_number).next()
    }

    /// Removes the next host from a drive; goes on with the others when none is left.
    fn proceed(&mut self, at: usize) {
        let drive = self.drives[at].drive;
        if self.drives[at].seen.is_none() {
            // It was there a moment ago, and the effect of the order is not known.
            return self.end(Verdict::Refused([Obstacle::Silent(drive)].into()));
        }
        if let Some(verdict) = self.find_removed() {
            return self.end(verdict);
        }
        if let Some(obstacle) = self.unusable(at) {
            return self.end(Verdict::Refused([obstacle].into()));
        }
        let Some(key) = self.victim_on(at) else {
            return self.go_on();
        };
        let state = &mut self.drives[at];
        state.tries += u8::from(state.tried.replace(key) == Some(key));
        if state.tries > TRIES {
            return self.end(Verdict::Refused([Obstacle::Stays(key, drive)].into()));
        }
        state.removing = true;
        self.orders.give(drive, Action::Preempt(key));
    }

    /// Goes on after a drive is done.
    fn go_on(&mut self) {
        match self.phase {
            Phase::First(_) if !broken!(self.rules, PreemptOneDrive) => self.begin_rest(),
            _ if self.orders.is_over() => self.end(Verdict::Go(self.victims.clone())),
            _ => {}
        }
    }

    fn begin_rest(&mut self) {
        self.phase = Phase::Rest;
        let to_do: Vec<usize> =
            (0..self.drives.len()).filter(|&at| self.victim_on(at).is_some()).collect();
        if to_do.is_empty() {
            return self.end(Verdict::Go(self.victims.clone()));
        }
        for at in to_do {
            self.proceed(at);
        }
    }

    /// Sets the verdict. The first one stands, but the removal of this host outweighs any other.
    fn end(&mut self, verdict: Verdict) {
        self.orders.ready.clear();
        let is_worse = matches!(verdict, Verdict::Removed(_));
        if self.verdict.is_none() || is_worse {
            self.verdict = Some(verdict);
        }
    }
}

impl Procedure for Fence {
    type Outcome = Verdict;

    fn next(&mut self) -> Option<(DriveRef, Action)> {
        self.orders.next()
    }

    fn on_answer(&mut self, drive: DriveRef, answer: Answer) {
        self.orders.answered();
        let Some(at) = self.drives.iter().position(|state| state.drive == drive) else {
            return;
        };
        let own = self.own.number();
        let state = &mut self.drives[at];
        state.is_unable |= answer == Answer::Unsupported;
        match answer {
            Answer::Table(table) => return self.ask(&table),
            Answer::Seen(seen) => {
                // A host that starts meanwhile is spared.
                self.living.extend(seen.living());
                let victims = |host: &HostId| self.victims.contains(host);
                let alive = seen.living_in(&self.order.group).filter(victims);
                self.alive.extend(alive.map(|host| Obstacle::Alive(host, drive)));
                state.seen = Some(seen);
                // A drive that the lock is not about counts as one that does not answer.
                if !self.drives[at].is_needed && self.unusable(at).is_some() {
                    self.drives[at].seen = None;
                }
            }
            // A look shows the effect of an order to remove a host, whatever the answer was.
            _ if core::mem::take(&mut state.removing) => match &mut state.seen {
                Some(seen) if broken!(self.rules, NoConfirmation) => seen.keys = [own].into(),
                _ if self.verdict.is_none() => {
                    state.seen = None;
                    return self.orders.give(drive, Action::Look);
                }
                _ => {}
            },
            _ => state.seen = None,
        }
        if self.verdict.is_some() {
            if let Some(removed) = self.find_removed() {
                self.end(removed);
            }
            return;
        }
        match self.phase {
            Phase::Asking => {
                self.end(Verdict::Refused([Obstacle::Silent(self.order.target)].into()));
            }
            Phase::Looking if self.orders.is_over() => self.survey(),
            Phase::Looking => {}
            Phase::First(_) | Phase::Rest => self.proceed(at),
        }
    }

    fn outcome(&self) -> Option<&Verdict> {
        self.verdict.as_ref().filter(|_| self.orders.is_over())
    }
}
