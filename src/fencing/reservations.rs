//! Reservations: the drives take data only from hosts that are registered, and a host that lost a
//! lock is removed from them before another one gets it (docs/fencing.md, "Reservations").
//!
//! `idm_fencing` decides; this module carries its orders to the drives, each on a thread of its
//! own, and gives up those that take too long.

use crate::drives::Drives;
use crate::drives::queue::{ReplyHandler, Urgency};
use crate::lock::Owner;
use crate::recovery::active::InUse;
use crate::sys::sync::{Mutex, mpsc};
use crate::sys::{clock, thread};
use crate::transport::{
    Deadline, Limits, ReserveAnswer, ReserveOrder, ReserveReport, TransportError,
};
use crate::words::list;
use core::time::Duration;
use idm_engine::{DriveRef, Instant, Timing, acquire_quorum};
use idm_fencing::{
    Action, Answer, Departure, Enrolled, Enrolment, Fence, Findings, Key, Obstacle, Order,
    Procedure, Rules, Seen, Verdict, Watch,
};
use idm_protocol::{DriveCommand, HostId, Record, Reply, ResourceId};
use once_cell::sync::OnceCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Weak};

/// Limit for each drive: of orders without an answer, of looks that have not ended, and of
/// procedures that wait for a look. A drive that hangs must not collect threads.
const MOST_OPEN: usize = 8;
const MOST_WAITING: usize = 4096;
/// Remedy for a drive that something else reserves.
const USE_ONE: &str = "Run \"vgchange --persist stop\" where lvm's own reservations are used, have \
                       other programs give up their keys, or do without [fencing] reservations";
/// Number of times that a starting host registers again after it was removed before others saw it.
const STARTS: usize = 3;

/// Services of the rest of the library for this module.
pub struct Link {
    /// Kills a volume group that this host must not use any more.
    pub fail: Box<dyn Fn(Arc<Owner>, String) + Send + Sync>,
    /// The earliest time until which the locks of a volume group are safe that this host has, or
    /// may have in use; `None` if one of them may be another host's by now.
    pub safe_until: Box<dyn Fn(ResourceId) -> Option<Instant> + Send + Sync>,
    /// Notes for the next lvmlockd that an order to remove a registration is about to be handed
    /// out. With `false` it must not be.
    pub note_leaving: Box<dyn Fn() -> bool + Send + Sync>,
    /// The drives of active logical volumes.
    pub active: Box<dyn Fn() -> io::Result<Vec<InUse>> + Send + Sync>,
}

/// A command of a lock that may take away locks of dead hosts.
pub struct Taking {
    /// The mutex.
    pub resource: ResourceId,
    /// The mutex of its volume group.
    pub group: ResourceId,
    /// The drive that the command is for.
    pub target: DriveRef,
    /// The drives that have the data that the mutex protects.
    pub needed: Vec<DriveRef>,
    /// Time when the engine handed the command out.
    pub begun: Instant,
}

/// Decision about such a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleared {
    /// It may be sent.
    Send,
    /// Another host holds the mutex.
    Held,
    /// It may not be sent.
    Refused,
}

/// Reason why commands of a lock were not sent.
pub enum NotCleared {
    /// Its last holder lives, although its lease on this lock ran out.
    Alive(String),
    /// Its last holder cannot be removed from the drives.
    Unremoved(String),
}

/// A volume group that is started here.
struct Group {
    owner: Arc<Owner>,
    /// Whether other hosts have seen this host alive since it registered. Before that, a removal
    /// only means that it has to register again.
    is_confirmed: bool,
    /// Drives on which this host is registered, in the order of their identities.
    registered: Vec<DriveRef>,
    /// Drives that did not answer when this host tried to register on them.
    absent: Vec<DriveRef>,
    /// The drives that the group has now. This host stays registered on a drive that has left it; a
    /// new drive may have refused the registration.
    drives: Vec<DriveRef>,
    /// Hosts that were reported as not registered.
    strangers: Vec<HostId>,
    /// Other obstacles that were reported.
    obstacles: Vec<Obstacle>,
    /// Hosts that were removed from the drives, each with the last time that a command was sent for
    /// it.
    dead: HashMap<HostId, Instant>,
}

impl Group {
    fn new(
        owner: Arc<Owner>,
        registered: Vec<DriveRef>,
        absent: Vec<DriveRef>,
        drives: Vec<DriveRef>,
    ) -> Group {
        Group {
            owner,
            is_confirmed: false,
            registered,
            absent,
            drives,
            strangers: Vec::new(),
            obstacles: Vec::new(),
            dead: HashMap::new(),
        }
    }
}

/// Number of orders that each drive has not answered.
#[derive(Default)]
struct OpenOrders(Mutex<HashMap<DriveRef, usize>>);

/// An order that a drive has not answered.
struct OpenOrder {
    orders: Arc<OpenOrders>,
    drive: DriveRef,
}

impl OpenOrder {
    /// Counts another order, unless there are too many.
    fn begin(orders: &Arc<OpenOrders>, drive: DriveRef) -> Option<OpenOrder> {
        let mut open = orders.0.lock();
        let count = open.entry(drive).or_default();
        if *count >= MOST_OPEN {
            return None;
        }
        *count += 1;
        drop(open);
        Some(OpenOrder { orders: orders.clone(), drive })
    }
}

impl Drop for OpenOrder {
    fn drop(&mut self) {
        if let Some(count) = self.orders.0.lock().get_mut(&self.drive) {
            *count -= 1;
        }
    }
}

/// The receiver of the answer to an order: the procedure, and its number for the order.
type Waiter = (mpsc::Sender<(DriveRef, u64, Answer)>, u64);

/// Looks at drives. One look that begins after their requests is enough for all waiting procedures:
/// a lock on many drives has as many procedures at once, and each looks at every drive.
#[derive(Default)]
struct Looks(Mutex<HashMap<DriveRef, DriveLooks>>);

#[derive(Default)]
struct DriveLooks {
    /// Procedures that wait for the next look.
    waiting: Vec<Waiter>,
    /// The thread that looks, by number, and the start time of its present look.
    looker: Option<(u64, Instant)>,
    last: u64,
}

impl Looks {
    /// Asks for a look. Returns the number of a new thread that the caller must start, if there is
    /// none, or if its look takes longer than `slow` and there `may` be another one. The error: no
    /// look is possible.
    fn ask(
        &self,
        drive: DriveRef,
        waiter: Waiter,
        slow: Duration,
        may: bool,
    ) -> Result<Option<u64>, ()> {
        let now = clock::now();
        let mut looks = self.0.lock();
        let it = looks.entry(drive).or_default();
        let is_stuck = it.looker.is_none_or(|(_, begun)| now.since(begun) > slow);
        if it.waiting.len() >= MOST_WAITING || is_stuck && !may {
            return Err(());
        }
        it.waiting.push(waiter);
        if !is_stuck {
            return Ok(None);
        }
        it.last += 1;
        it.looker = Some((it.last, now));
        Ok(Some(it.last))
    }

    /// The procedures that wait for the look that this thread begins now. Without any, or if
    /// another thread has its place, the thread ends.
    fn begin(&self, drive: DriveRef, looker: u64) -> Vec<Waiter> {
        let mut looks = self.0.lock();
        let Some(it) = looks.get_mut(&drive) else { return Vec::new() };
        if it.looker.is_none_or(|(present, _)| present != looker) {
            return Vec::new();
        }
        it.looker = (!it.waiting.is_empty()).then(|| (looker, clock::now()));
        core::mem::take(&mut it.waiting)
    }
}

/// State that keeps a departure and an enrolment for the same drive apart.
#[derive(Default)]
struct Departures {
    /// The time until which orders of earlier lives to remove a registration may reach any drive.
    earlier: Instant,
    /// Departures of this life whose orders may still arrive.
    bars: Vec<Bar>,
    /// Number of departures.
    count: u64,
    /// Groups that are being enrolled, with their drives.
    enrolling: Vec<(ResourceId, Vec<DriveRef>)>,
}

/// The wait for the orders of one departure.
#[derive(Clone)]
struct Bar {
    /// Number of the departure.
    number: u64,
    /// Drives that the orders are for.
    drives: Vec<DriveRef>,
    /// The time until which they may arrive.
    until: Instant,
}

impl Departures {
    /// Whether an order to remove a registration may still reach a drive.
    fn may_reach(&self, drive: DriveRef, now: Instant) -> bool {
        let reaches = |bar: &Bar| bar.until > now && bar.drives.contains(&drive);
        self.bars.iter().any(reaches) || self.earlier > now
    }

    /// Ends one enrolment. The same group may have others.
    fn enrolled(&mut self, group: ResourceId, drives: &[DriveRef]) {
        let is_it = |(it, its): &(ResourceId, Vec<DriveRef>)| *it == group && its == drives;
        if let Some(at) = self.enrolling.iter().position(is_it) {
            self.enrolling.swap_remove(at);
        }
    }
}

/// The reservations of this host.
pub struct Reservations {
    me: HostId,
    key: Key,
    timing: Timing,
    limits: Limits,
    drives: Arc<Drives>,
    link: OnceCell<Link>,
    /// Identities of the drives that locks and volume groups of an earlier lvmlockd are on, except
    /// those of one group.
    left: OnceCell<Box<dyn Fn(ResourceId) -> HashSet<String> + Send + Sync>>,
    groups: Mutex<HashMap<ResourceId, Group>>,
    open: Arc<OpenOrders>,
    /// Looks are counted apart: they show the state of a drive when no more orders can be given to
    /// it.
    looking: Arc<OpenOrders>,
    looks: Arc<Looks>,
    /// Reasons why commands of a lock were not sent, and the times of these decisions.
    refusals: Mutex<HashMap<ResourceId, (Instant, NotCleared)>>,
    departures: Mutex<Departures>,
    /// Ends the watch when it is dropped.
    _watch: mpsc::Sender<()>,
}

impl Reservations {
    /// Starts to watch the registrations of the groups that will be started. `earlier`: the time
    /// until which orders of earlier lives to remove a registration may reach drives.
    pub fn start(
        me: HostId,
        timing: Timing,
        limits: Limits,
        drives: Arc<Drives>,
        earlier: Instant,
    ) -> io::Result<Arc<Reservations>> {
        let (watch, ended) = mpsc::channel();
        let this = Arc::new(Reservations {
            me,
            key: Key::of(&me),
            timing,
            limits,
            drives,
            link: OnceCell::new(),
            left: OnceCell::new(),
            groups: Mutex::default(),
            open: Arc::default(),
            looking: Arc::default(),
            looks: Arc::default(),
            refusals: Mutex::default(),
            departures: Mutex::new(Departures { earlier, ..Departures::default() }),
            _watch: watch,
        });
        let weak = Arc::downgrade(&this);
        thread::spawn("idm-reserve", move || watch_all(&weak, &ended, timing.renew))?;
        Ok(this)
    }

    /// Sets the services of the rest of the library. Only the first call counts.
    pub fn connect(&self, link: Link) {
        self.link.get_or_init(|| link);
    }

    /// Sets the source of the drives that other groups of an earlier lvmlockd are on. No
    /// registration on these is given up. Only the first call counts.
    pub fn keep_on(&self, left: impl Fn(ResourceId) -> HashSet<String> + Send + Sync + 'static) {
        self.left.get_or_init(|| Box::new(left));
    }

    /// Registers this host on the drives of a volume group, before it counts as a host that has the
    /// group started. `is_in_use`: whether devices of it are active here. The error says why it
    /// must not be started.
    pub fn enrol(
        self: &Arc<Reservations>,
        group: ResourceId,
        owner: &Arc<Owner>,
        drives: &[DriveRef],
        is_in_use: bool,
    ) -> Result<(), String> {
        let drives = self.in_order(drives);
        self.departures.lock().enrolling.push((group, drives.clone()));
        self.outwait_departures(&drives);
        let enrolled = self.enrol_on(group, owner, drives.clone(), is_in_use);
        self.departures.lock().enrolled(group, &drives);
        enrolled
    }

    fn enrol_on(
        self: &Arc<Reservations>,
        group: ResourceId,
        owner: &Arc<Owner>,
        drives: Vec<DriveRef>,
        is_in_use: bool,
    ) -> Result<(), String> {
        let Enrolled { registered, absent, obstacles } =
            self.register(group, &drives, is_in_use, |_| true);
        let needed = acquire_quorum(drives.len());
        let missing = absent.iter().map(|&drive| Obstacle::Silent(drive));
        let why = match (obstacles.is_empty(), registered.len() >= needed) {
            (true, true) => {
                let started = Group::new(owner.clone(), registered, absent, drives);
                self.groups.lock().insert(group, started);
                return Ok(());
            }
            (true, false) => self.words(&missing.collect::<Vec<_>>()),
            (false, _) => self.words(&obstacles),
        };
        // The registrations are given up if another host keeps the reservation.
        let bar = self.bar(group, &registered);
        self.depart(Departure::new(self.me, group, &bar.drives, Rules::default()), bar);
        Err(why)
    }

    /// Checks that this host was not removed before others could see that it is alive, and
    /// registers again if it was. Nothing of the group is in use yet, except with `is_in_use`.
    pub fn confirm(
        self: &Arc<Reservations>,
        group: ResourceId,
        is_in_use: bool,
    ) -> Result<(), String> {
        for _ in 0..STARTS {
            let Some((owner, registered, absent)) = self.parts(group) else { return Ok(()) };
            let mut watch = Watch::new(self.me, group, &registered, &[], Rules::default());
            let Findings { removed, .. } = self.run(&mut watch, |_, _| true);
            match removed {
                None => {
                    if let Some(it) = self.groups.lock().get_mut(&group) {
                        it.is_confirmed = true;
                    }
                    return Ok(());
                }
                Some(drive) if is_in_use => return Err(self.words(&[Obstacle::Removed(drive)])),
                Some(_) => {
                    let all = [registered, absent].concat();
                    self.enrol(group, &owner, &all, false)?;
                }
            }
        }
        Err("another host removes this one from the drives again and again".to_owned())
    }

    /// Registers on the new drives of a started group; `drives` are all its drives now.
    pub fn cover(
        self: &Arc<Reservations>,
        group: ResourceId,
        drives: &[DriveRef],
    ) -> Result<(), String> {
        let Some((_, registered, absent)) = self.parts(group) else { return Ok(()) };
        if let Some(it) = self.groups.lock().get_mut(&group) {
            it.drives = drives.to_vec();
        }
        let is_new = |drive: &&DriveRef| !registered.contains(drive) && !absent.contains(drive);
        let new: Vec<DriveRef> = drives.iter().filter(is_new).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        let obstacles = self.enrol_more(group, &self.in_order(&new));
        if obstacles.is_empty() { Ok(()) } else { Err(self.words(&obstacles)) }
    }

    /// Registers on more drives of a started group. Does not wait for orders to remove a
    /// registration: a drive that one may still reach is left out, and has an obstacle.
    fn enrol_more(&self, group: ResourceId, drives: &[DriveRef]) -> Vec<Obstacle> {
        let now = clock::now();
        let mut departures = self.departures.lock();
        let (left, drives): (Vec<DriveRef>, Vec<DriveRef>) =
            drives.iter().partition(|&&drive| departures.may_reach(drive, now));
        departures.enrolling.push((group, drives.clone()));
        drop(departures);
        let may = |action| self.may_enrol(group, action);
        let enrolled = self.register(group, &drives, false, may);
        let mut obstacles = enrolled.obstacles.clone();
        self.add(group, enrolled);
        self.departures.lock().enrolled(group, &drives);
        obstacles.extend(left.into_iter().map(Obstacle::Leaving));
        obstacles
    }

    /// Carries an enrolment through. Gives an order only if `may` allows it at that time; and none
    /// to register anew on a drive that has become doubtful since the enrolment began.
    fn register(
        &self,
        group: ResourceId,
        drives: &[DriveRef],
        is_in_use: bool,
        may: impl Fn(Action) -> bool,
    ) -> Enrolled {
        let doubtful = self.doubtful(group, drives);
        let mut enrolment = Enrolment::new(self.me, group, drives, is_in_use).beside(&doubtful);
        let mut withheld = Vec::new();
        let mut enrolled = self.run(&mut enrolment, |drive, action| {
            let anew = action == Action::Register { anew: true };
            let is_doubtful = anew && !self.doubtful(group, &[drive]).is_empty();
            withheld.extend(is_doubtful.then_some(drive));
            !is_doubtful && may(action)
        });
        // Such a drive answers.
        let (doubtful, absent): (Vec<DriveRef>, Vec<DriveRef>) =
            enrolled.absent.into_iter().partition(|drive| withheld.contains(drive));
        enrolled.absent = absent;
        enrolled.obstacles.extend(doubtful.into_iter().map(Obstacle::OthersInUse));
        enrolled
    }

    /// The drives on which logical volumes of other groups are active that this host has not
    /// started, or may lose before an order arrives that is given now. Another host may take their
    /// locks, and remove this one from these drives.
    fn doubtful(&self, group: ResourceId, drives: &[DriveRef]) -> Vec<DriveRef> {
        let Some(link) = self.link.get() else { return Vec::new() };
        let active = (link.active)().unwrap_or_else(|error| {
            log::warn!("what is active cannot be told: {error}; all drives count as in use");
            vec![InUse { vg: ResourceId::GLOBAL, drives: None }]
        });
        let vgs: HashSet<ResourceId> = active.iter().map(|it| it.vg).collect();
        let kept: HashSet<ResourceId> =
            vgs.into_iter().filter(|&vg| vg == group || self.keeps(vg)).collect();
        let others: Vec<&InUse> = active.iter().filter(|it| !kept.contains(&it.vg)).collect();
        let is_below = |drive: &&DriveRef| {
            let identity = self.drives.identity(**drive);
            let below = |it: &&InUse| it.drives.as_ref().is_none_or(|it| it.contains(&identity));
            others.iter().any(below)
        };
        drives.iter().filter(is_below).copied().collect()
    }

    /// Gives up the registrations of a group that this host has stopped. Does not wait. `is_gone`:
    /// the group does not exist any more, so no data is left to protect.
    pub fn leave(self: &Arc<Reservations>, group: ResourceId, is_gone: bool) {
        let Some(left) = self.groups.lock().remove(&group) else { return };
        let bar = self.bar(group, &left.registered);
        let departure = match is_gone {
            true => Departure::of_gone(self.me, group, &bar.drives),
            false => Departure::new(self.me, group, &bar.drives, Rules::default()),
        };
        let this = self.clone();
        let spawned = thread::spawn("idm-reserve", move || this.depart(departure, bar));
        if let Err(error) = spawned {
            log::debug!("the registrations of this host stay: {error}");
        }
    }

    /// Decides about a command that may take away locks of dead hosts, and removes these hosts from
    /// the drives first. Does not wait; `done` is called exactly once, within the time in which the
    /// command could still be sent.
    pub fn clear(
        self: &Arc<Reservations>,
        taking: Taking,
        done: impl FnOnce(Cleared) + Send + 'static,
    ) {
        let this = self.clone();
        let (sender, receiver) = mpsc::channel();
        let spawned = thread::spawn("idm-reserve", move || {
            // The receiver may have given it up.
            let _ = sender.send(this.take(&taking));
        });
        let bound = self.limits.wait;
        let waits = thread::spawn("idm-reserve", move || {
            let cleared = match spawned {
                Ok(_) => receiver.recv_timeout(bound).unwrap_or(Cleared::Refused),
                Err(error) => {
                    log::error!("no thread to remove a host from the drives: {error}");
                    Cleared::Refused
                }
            };
            done(cleared);
        });
        if let Err(error) = waits {
            // `done` was dropped with the thread that was to call it.
            log::error!("no thread to remove a host from the drives: {error}");
        }
    }

    /// The reason why commands of a lock were not sent, for a request that was refused just now.
    pub fn refusal(&self, resource: &ResourceId) -> Option<NotCleared> {
        let oldest = clock::now() - self.timing.patience;
        let (decided, why) = self.refusals.lock().remove(resource)?;
        (decided >= oldest).then_some(why)
    }

    /// Whether the registrations of a volume group are this module's.
    pub fn knows(&self, group: &ResourceId) -> bool {
        self.groups.lock().contains_key(group)
    }

    fn take(&self, taking: &Taking) -> Cleared {
        let Taking { resource, group, target, begun, .. } = *taking;
        let groups = self.groups.lock();
        let Some(it) = groups.get(&group) else { return Cleared::Refused };
        let (owner, drives, group_drives) =
            (it.owner.clone(), it.registered.clone(), it.drives.clone());
        drop(groups);
        let until = begun + (self.timing.lease - self.timing.drift);
        let order = Order {
            me: self.me,
            resource,
            group,
            target,
            drives,
            group_drives,
            needed: taking.needed.clone(),
            until,
        };
        let mut fence = Fence::new(order, Rules::default());
        // A command that is begun now has arrived after two quarters of a lease.
        let arrives = || clock::now() + 2 * self.timing.linger;
        let may = |_, action| !matches!(action, Action::Preempt(_)) || arrives() < until;
        // A drive that hangs may not be one of the lock's: then the rest of the time is for the
        // other drives.
        let verdict = self.run_looking(&mut fence, self.limits.wait / 2, may);
        let removed = |drive| {
            let (name, me) = (self.drives.name(drive), self.me);
            format!(
                "another host has taken the locks of this one ({me}), and removed it from drive \
                 {name}, which takes no data of it any more"
            )
        };
        match verdict {
            Verdict::Go(hosts) if fence.may_arrive(arrives()) => {
                self.say_dead(group, &owner, &hosts);
                return Cleared::Send;
            }
            Verdict::Go(_) => {}
            Verdict::Held => return Cleared::Held,
            Verdict::Removed(drive) => self.fail(group, owner, removed(drive)),
            Verdict::Refused(obstacles) => {
                let why = self.words(&obstacles);
                log::debug!("{resource}: its last holder is not removed from the drives: {why}");
                let lives = |obstacle: &Obstacle| matches!(obstacle, Obstacle::Alive(..));
                let why = if !obstacles.is_empty() && obstacles.iter().all(lives) {
                    NotCleared::Alive(why)
                } else {
                    NotCleared::Unremoved(why)
                };
                let now = clock::now();
                let mut refusals = self.refusals.lock();
                // The reasons of requests that have ended, and of those that were granted after
                // all.
                refusals.retain(|_, (decided, _)| *decided >= now - self.timing.patience);
                refusals.insert(resource, (now, why));
            }
        }
        Cleared::Refused
    }

    /// Kills a group that this host was removed from. Not if the group was stopped during a look at
    /// a drive: then this host has removed itself, and may have started the group again since.
    fn fail(&self, group: ResourceId, owner: Arc<Owner>, why: String) {
        let present = self.parts(group).is_some_and(|(it, ..)| Arc::ptr_eq(&it, &owner));
        if let Some(link) = self.link.get().filter(|_| present) {
            (link.fail)(owner, why);
        }
    }

    fn parts(&self, group: ResourceId) -> Option<(Arc<Owner>, Vec<DriveRef>, Vec<DriveRef>)> {
        let groups = self.groups.lock();
        let it = groups.get(&group)?;
        Some((it.owner.clone(), it.registered.clone(), it.absent.clone()))
    }

    /// The drives in the order that is the same on every host.
    fn in_order(&self, drives: &[DriveRef]) -> Vec<DriveRef> {
        let mut drives = drives.to_vec();
        drives.sort_by_cached_key(|&drive| self.drives.identity(drive));
        drives
    }

    fn add(&self, group: ResourceId, enrolled: Enrolled) {
        let Enrolled { registered, absent, .. } = enrolled;
        if let Some(it) = self.groups.lock().get_mut(&group) {
            it.absent.retain(|drive| !registered.contains(drive));
            it.absent.extend(absent);
            it.registered.extend(registered);
            it.registered = self.in_order(&it.registered);
            it.registered.dedup();
            it.absent.retain(|drive| !it.registered.contains(drive));
        }
    }

    /// Whether a started group may be registered on another drive now.
    fn may_enrol(&self, group: ResourceId, action: Action) -> bool {
        !matches!(action, Action::Register { .. }) || self.keeps(group)
    }

    /// Whether a group is started, and no host can take a lock of it from this one, or believe that
    /// this one is dead, before a command that is sent now has arrived.
    fn keeps(&self, group: ResourceId) -> bool {
        let Some((owner, ..)) = self.parts(group) else { return false };
        let until = self.link.get().and_then(|link| (link.safe_until)(group));
        let arrives = clock::now() + 2 * self.timing.linger;
        !owner.is_killed() && until.is_some_and(|until| until > arrives)
    }

    fn watch(self: &Arc<Reservations>, group: ResourceId) {
        let Some((owner, registered, absent)) = self.watched(group) else { return };
        let mut watch = Watch::new(self.me, group, &registered, &absent, Rules::default());
        let Findings { removed, to_enrol, foreign, strangers } = self.run(&mut watch, |_, _| true);
        if let Some(drive) = removed {
            return self.fail(group, owner, self.why_removed(drive, &foreign));
        }
        self.say_strangers(group, &owner, strangers);
        let mut obstacles = foreign;
        if !to_enrol.is_empty() {
            obstacles.extend(self.enrol_more(group, &to_enrol));
        }
        self.say_obstacles(group, &owner, obstacles);
    }

    /// The drives for a watch of a group: those on which this host is registered, and those that
    /// were absent. A drive that has left the group does not count, because it may have been
    /// cleared for another use.
    fn watched(&self, group: ResourceId) -> Option<(Arc<Owner>, Vec<DriveRef>, Vec<DriveRef>)> {
        let groups = self.groups.lock();
        let it = groups.get(&group).filter(|it| it.is_confirmed && !it.owner.is_killed())?;
        let registered = it.registered.iter().filter(|drive| it.drives.contains(drive));
        Some((it.owner.clone(), registered.copied().collect(), it.absent.clone()))
    }

    /// The reason why this host must not use a group any more: a drive of it does not have this
    /// host's key.
    fn why_removed(&self, drive: DriveRef, foreign: &[Obstacle]) -> String {
        let other = foreign.iter().find(|it| it.drive() == Some(drive));
        let name = self.drives.name(drive);
        match other {
            None => format!(
                "another host has removed this one from drive {name}, which takes no data of it \
                 any more"
            ),
            Some(other) => format!(
                "drive {name} does not have the key of this host any more, and {other}, which may \
                 have taken its place. {USE_ONE}"
            ),
        }
    }

    /// Logs other obstacles on drives of a group, each once while it lasts.
    fn say_obstacles(&self, group: ResourceId, owner: &Owner, obstacles: Vec<Obstacle>) {
        let mut groups = self.groups.lock();
        let Some(it) = groups.get_mut(&group) else { return };
        let before = core::mem::replace(&mut it.obstacles, obstacles.clone());
        drop(groups);
        let is_new = |it: &&Obstacle| !before.contains(it);
        let (foreign, others): (Vec<Obstacle>, Vec<Obstacle>) =
            obstacles.iter().filter(is_new).partition(|it| matches!(it, Obstacle::Foreign(..)));
        if !foreign.is_empty() {
            log::warn!(
                "{}: no lock that is about such a drive can be taken from a dead host: {}",
                owner.name,
                self.words(&foreign)
            );
        }
        if !others.is_empty() {
            log::warn!("{}: this host is not registered: {}", owner.name, self.words(&others));
        }
    }

    /// Logs hosts that were removed from the drives: each once, and not for each of their locks.
    fn say_dead(&self, group: ResourceId, owner: &Owner, hosts: &[HostId]) {
        let now = clock::now();
        let mut groups = self.groups.lock();
        let Some(it) = groups.get_mut(&group) else { return };
        let mut is_new = |host: &&HostId| {
            it.dead.insert(**host, now).is_none_or(|last| last + self.timing.lease < now)
        };
        let new: Vec<HostId> = hosts.iter().filter(&mut is_new).copied().collect();
        drop(groups);
        for host in new {
            log::warn!(
                "{}: the drives take no data of host {host} any more, because its lease on a lock \
                 has run out",
                owner.name
            );
        }
    }

    /// Logs hosts that use the group and are not registered, each once.
    fn say_strangers(&self, group: ResourceId, owner: &Owner, strangers: Vec<HostId>) {
        let mut groups = self.groups.lock();
        let Some(it) = groups.get_mut(&group) else { return };
        let before = core::mem::replace(&mut it.strangers, strangers.clone());
        drop(groups);
        for host in strangers.iter().filter(|host| !before.contains(host)) {
            log::warn!(
                "{}: host {host} has it started and is not registered, so that the drives take no \
                 data of it; set [fencing] reservations = true there, and start it again",
                owner.name
            );
        }
    }

    /// Carries a departure through, for which registrations wait.
    fn depart(&self, mut departure: Departure, bar: Bar) {
        let arrives = || clock::now() + 2 * self.timing.linger;
        let notes = || self.link.get().is_some_and(|link| (link.note_leaving)());
        let may = |_, action| action != Action::Unregister || notes() && arrives() < bar.until;
        let unknown = self.run(&mut departure, may);
        let until = clock::now() + self.timing.linger;
        let mut departures = self.departures.lock();
        // Another departure from the same drives has a bar of its own.
        departures.bars.retain(|it| it.number != bar.number);
        departures.bars.push(Bar { drives: unknown, until, ..bar });
    }

    /// Whether an order of this life to remove a registration may still reach a drive.
    pub fn is_leaving(&self) -> bool {
        let now = clock::now();
        self.departures.lock().bars.iter().any(|bar| bar.until > now && !bar.drives.is_empty())
    }

    /// Keeps registrations waiting until a departure that begins now is over. Its drives are those
    /// of `registered` that no other group of this host or of an earlier lvmlockd has.
    fn bar(&self, group: ResourceId, registered: &[DriveRef]) -> Bar {
        let now = clock::now();
        let left = self.left.get().map(|left| left(group)).unwrap_or_default();
        let is_left = |drive: &DriveRef| left.contains(&self.drives.identity(*drive));
        let mut departures = self.departures.lock();
        let is_enrolled = |drive: &DriveRef| {
            let others = departures.enrolling.iter().filter(|(it, _)| *it != group);
            others.into_iter().any(|(_, drives)| drives.contains(drive))
        };
        let groups = self.groups.lock();
        let is_used = |drive: &DriveRef| groups.values().any(|it| it.registered.contains(drive));
        let goes = |it: &&DriveRef| !is_enrolled(it) && !is_used(it) && !is_left(it);
        let drives = registered.iter().filter(goes).copied().collect();
        departures.count += 1;
        let bar = Bar { number: departures.count, drives, until: now + 4 * self.timing.linger };
        departures.bars.retain(|bar| bar.until > now);
        departures.bars.push(bar.clone());
        bar
    }

    /// Waits until no order to remove a registration can reach these drives any more.
    fn outwait_departures(&self, drives: &[DriveRef]) {
        const PAUSE: Duration = Duration::from_millis(10);
        let may_reach = |departures: &Departures| {
            let now = clock::now();
            drives.iter().any(|&drive| departures.may_reach(drive, now))
        };
        while may_reach(&self.departures.lock()) {
            clock::sleep(PAUSE);
        }
    }

    /// Obstacles in words, each with its drive.
    fn words(&self, obstacles: &[Obstacle]) -> String {
        let word = |obstacle: &Obstacle| match obstacle.drive() {
            Some(drive) => {
                let trouble = match obstacle {
                    Obstacle::Silent(_) => self.drives.trouble(drive),
                    _ => None,
                };
                let trouble = trouble.map(|why| format!(" ({why})")).unwrap_or_default();
                format!("drive {}: {obstacle}{trouble}", self.drives.name(drive))
            }
            None => obstacle.to_string(),
        };
        let words = list(obstacles.iter().map(word).collect());
        match obstacles.iter().any(|it| matches!(it, Obstacle::Foreign(..))) {
            true => format!("{words}. {USE_ONE}"),
            false => words,
        }
    }

    /// Carries a procedure through. Gives an order to a drive only if `may` allows it at that time.
    /// Gives up orders without an answer in time.
    fn run<P>(&self, procedure: &mut P, may: impl FnMut(DriveRef, Action) -> bool) -> P::Outcome
    where
        P: Procedure,
        P::Outcome: Clone + Default,
    {
        self.run_looking(procedure, self.bound(), may)
    }

    /// Limit: longer than any order takes that the kernel ends in time.
    fn bound(&self) -> Duration {
        2 * self.limits.lost
    }

    /// The same; reads of the table and looks are given up after the time `look`.
    fn run_looking<P>(
        &self,
        procedure: &mut P,
        look: Duration,
        mut may: impl FnMut(DriveRef, Action) -> bool,
    ) -> P::Outcome
    where
        P: Procedure,
        P::Outcome: Clone + Default,
    {
        let (sender, receiver) = mpsc::channel();
        let mut open: HashMap<DriveRef, (u64, std::time::Instant)> = HashMap::new();
        let mut serial = 0;
        loop {
            while let Some((drive, action)) = procedure.next() {
                // It begins before the check. So no command is sent long after the check, even if
                // this host stands still or another path takes long.
                let deadline = self.limits.deadline(clock::now());
                if !may(drive, action) || !self.begin(drive, action, deadline, serial, &sender) {
                    procedure.on_answer(drive, Answer::Silent);
                    continue;
                }
                let bound = match action {
                    Action::Read | Action::Look => look,
                    _ => self.bound(),
                };
                open.insert(drive, (serial, std::time::Instant::now() + bound));
                serial += 1;
            }
            if let Some(outcome) = procedure.outcome() {
                return outcome.clone();
            }
            let Some(first) = open.values().map(|&(_, until)| until).min() else {
                log::error!("internal error: a procedure about reservations has no end");
                return P::Outcome::default();
            };
            let left = first.saturating_duration_since(std::time::Instant::now());
            match receiver.recv_timeout(left) {
                Ok((drive, number, answer)) => {
                    if open.get(&drive).is_some_and(|&(serial, _)| serial == number) {
                        open.remove(&drive);
                        procedure.on_answer(drive, answer);
                    }
                }
                Err(_) => {
                    let now = std::time::Instant::now();
                    let late: Vec<DriveRef> = open
                        .iter()
                        .filter(|(_, it)| it.1 <= now)
                        .map(|(&drive, _)| drive)
                        .collect();
                    for drive in late {
                        open.remove(&drive);
                        procedure.on_answer(drive, Answer::Silent);
                    }
                }
            }
        }
    }

    /// Begins an order on a thread of its own; returns whether it did.
    fn begin(
        &self,
        drive: DriveRef,
        action: Action,
        deadline: Deadline,
        serial: u64,
        sender: &mpsc::Sender<(DriveRef, u64, Answer)>,
    ) -> bool {
        let key = self.key.number();
        let order = match action {
            Action::Read => {
                self.begin_read(drive, (sender.clone(), serial));
                return true;
            }
            Action::Look => return self.begin_look(drive, (sender.clone(), serial)),
            Action::Register { anew } => ReserveOrder::Register { key, anew },
            Action::Unregister => ReserveOrder::Unregister(key),
            Action::Reserve => ReserveOrder::Reserve(key),
            Action::Preempt(victim) => ReserveOrder::Preempt(key, victim.number()),
        };
        let Some(counted) = OpenOrder::begin(&self.open, drive) else { return false };
        let drives = self.drives.clone();
        let sender = sender.clone();
        let spawned = thread::spawn("idm-reserve", move || {
            let answer = carry_out(&drives, drive, &order, &deadline);
            drop(counted);
            // The procedure may have given it up.
            let _ = sender.send((drive, serial, answer));
        });
        spawned.is_ok()
    }

    /// Begins to read the table. It needs no thread and is not counted: reads that wait in a
    /// drive's queue share one command.
    fn begin_read(&self, drive: DriveRef, (waiter, serial): Waiter) {
        read_table(&self.drives, drive, move |table| {
            // The procedure may have given it up.
            let _ = waiter.send((drive, serial, table.map_or(Answer::Silent, Answer::Table)));
        });
    }

    /// Begins a look, or joins the next one; returns whether it did.
    fn begin_look(&self, drive: DriveRef, waiter: Waiter) -> bool {
        let counted = OpenOrder::begin(&self.looking, drive);
        let asked = self.looks.ask(drive, waiter, self.limits.wait, counted.is_some());
        let looker = match asked {
            Ok(Some(looker)) => looker,
            Ok(None) => return true,
            Err(()) => return false,
        };
        let (drives, limits, looks) = (self.drives.clone(), self.limits, self.looks.clone());
        let spawned = thread::spawn("idm-reserve", move || {
            let _counted = counted;
            loop {
                let waiting = looks.begin(drive, looker);
                if waiting.is_empty() {
                    return;
                }
                let answer = look(&drives, limits, drive).unwrap_or_else(|answer| answer);
                for (waiter, serial) in waiting {
                    // The procedure may have given it up.
                    let _ = waiter.send((drive, serial, answer.clone()));
                }
            }
        });
        spawned.is_ok()
    }
}

/// Watches the registrations of all groups until `ended` is closed.
fn watch_all(this: &Weak<Reservations>, ended: &mpsc::Receiver<()>, interval: Duration) {
    while ended.recv_timeout(interval) == Err(mpsc::RecvTimeoutError::Timeout) {
        let Some(this) = this.upgrade() else { return };
        let groups: Vec<ResourceId> = this.groups.lock().keys().copied().collect();
        groups.into_iter().for_each(|group| this.watch(group));
    }
}

/// Carries out an order, and waits for its end.
fn carry_out(
    drives: &Drives,
    drive: DriveRef,
    order: &ReserveOrder,
    deadline: &Deadline,
) -> Answer {
    match order {
        ReserveOrder::Register { .. } | ReserveOrder::Unregister(_) => {
            by_each(order, drives.reserve_by_each(drive, order, deadline))
        }
        _ => answer(drives.reserve(drive, order, deadline).into_iter().collect()),
    }
}

/// Reads the table, and then the registrations.
fn look(drives: &Drives, limits: Limits, drive: DriveRef) -> Result<Answer, Answer> {
    let (sender, receiver) = mpsc::channel();
    read_table(drives, drive, move |table| {
        // This thread may have given it up.
        let _ = sender.send(table);
    });
    let table = receiver.recv_timeout(limits.lost).ok().flatten().ok_or(Answer::Silent)?;
    let report = drives.reserve(drive, &ReserveOrder::Report, &limits.deadline(clock::now()));
    let ReserveReport { keys, reservation, is_able, by_path } = match report {
        Ok(ReserveAnswer::Report(report)) => report,
        Ok(ReserveAnswer::Unsupported) => return Err(Answer::Unsupported),
        Ok(ReserveAnswer::Done | ReserveAnswer::Conflict) => return Err(Answer::Silent),
        Err(why) => {
            log::debug!("drive {}: its registrations cannot be read: {why}", drives.name(drive));
            return Err(Answer::Silent);
        }
    };
    let paths = if by_path { drives.path_count(drive) } else { 1 };
    Ok(Answer::Seen(Seen { table, keys, reservation, is_able, paths }))
}

/// Reads the table; `done` gets `None` where the drive does not answer, and must not block.
fn read_table(
    drives: &Drives,
    drive: DriveRef,
    done: impl FnOnce(Option<Arc<[Record]>>) + Send + 'static,
) {
    let done = ReplyHandler::new(move |reply| {
        done(match reply {
            Reply::Table(table) => Some(table),
            Reply::Status(_) => None,
        });
    });
    drives.submit(drive, DriveCommand::ReadTable, Urgency::Awaited, done);
}

/// The answer to an order that was given by every path: a conflict if one path has it, else done if
/// one path has done it. A removal is not done while it may still reach the drive by another path.
/// A host that another one has removed has its key on no path: so it is still registered where one
/// path confirms its key, and the other paths came back without it.
fn by_each(order: &ReserveOrder, answers: Vec<Result<ReserveAnswer, TransportError>>) -> Answer {
    let is_unknown = |it: &Result<_, _>| matches!(it, Err(TransportError::Unknown(_)));
    if matches!(order, ReserveOrder::Unregister(_)) && answers.iter().any(is_unknown) {
        return Answer::Silent;
    }
    let mut all: Vec<ReserveAnswer> = answers.into_iter().flatten().collect();
    let confirms = matches!(order, ReserveOrder::Register { anew: false, .. });
    if confirms && all.contains(&ReserveAnswer::Done) {
        all.retain(|it| *it != ReserveAnswer::Conflict);
    }
    answer(all)
}

fn answer(all: Vec<ReserveAnswer>) -> Answer {
    for (kind, answer) in [
        (ReserveAnswer::Conflict, Answer::Conflict),
        (ReserveAnswer::Done, Answer::Done),
        (ReserveAnswer::Unsupported, Answer::Unsupported),
    ] {
        if all.contains(&kind) {
            return answer;
        }
    }
    Answer::Silent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;
    use crate::transport;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_removal_is_not_done_while_it_may_arrive_by_another_path() {
        let done = || Ok(ReserveAnswer::Done);
        let lost = || Err(TransportError::Unknown("lost".into()));
        let unsent = || Err(TransportError::NotSent("no path".into()));
        let remove = ReserveOrder::Unregister(1);
        assert_eq!(by_each(&remove, vec![done(), lost()]), Answer::Silent);
        assert_eq!(by_each(&remove, vec![lost(), Ok(ReserveAnswer::Conflict)]), Answer::Silent);
        assert_eq!(by_each(&remove, vec![done(), unsent()]), Answer::Done);
        assert_eq!(by_each(&remove, vec![unsent()]), Answer::Silent);
        let register = ReserveOrder::Register { key: 1, anew: true };
        assert_eq!(by_each(&register, vec![lost(), done()]), Answer::Done);
    }

    #[test]
    fn a_host_is_still_registered_where_one_path_has_its_key() {
        let (done, conflict) = (|| Ok(ReserveAnswer::Done), || Ok(ReserveAnswer::Conflict));
        let lost = || Err(TransportError::Unknown("lost".into()));
        let confirm = ReserveOrder::Register { key: 1, anew: false };
        assert_eq!(by_each(&confirm, vec![done(), conflict()]), Answer::Done);
        assert_eq!(by_each(&confirm, vec![conflict(), lost()]), Answer::Conflict);
        let register = ReserveOrder::Register { key: 1, anew: true };
        assert_eq!(by_each(&register, vec![done(), conflict()]), Answer::Conflict);
        let remove = ReserveOrder::Unregister(1);
        assert_eq!(by_each(&remove, vec![done(), conflict()]), Answer::Conflict);
    }

    #[test]
    fn a_host_that_has_removed_itself_kills_nothing() {
        let timing = Timing::for_lease(Duration::from_secs(60));
        let (me, limits) = (HostId::new([1; 16], "host1"), Limits::new(&timing));
        let topology = Topology::new([].into());
        let connect = transport::connector(topology.clone());
        let drives = Arc::new(Drives::new(topology, connect, limits));
        let never = Instant::default();
        let reservations = Reservations::start(me, timing, limits, drives, never).unwrap();
        let kills = Arc::new(AtomicUsize::new(0));
        let killed = kills.clone();
        reservations.connect(Link {
            fail: Box::new(move |_, _| {
                killed.fetch_add(1, Ordering::SeqCst);
            }),
            safe_until: Box::new(|_| None),
            note_leaving: Box::new(|| true),
            active: Box::new(|| Ok(Vec::new())),
        });
        let group = ResourceId::from_bytes([2; 64]);
        let start = || {
            let owner = Arc::new(Owner::new("volume group vg0".into(), Some("vg0".into())));
            let started = Group::new(owner.clone(), Vec::new(), Vec::new(), Vec::new());
            reservations.groups.lock().insert(group, started);
            owner
        };
        let removed = |owner: &Arc<Owner>| {
            reservations.fail(group, owner.clone(), "removed".into());
            kills.swap(0, Ordering::SeqCst)
        };
        let first = start();
        assert_eq!(removed(&first), 1);
        // A look that began before is answered now.
        reservations.leave(group, true);
        assert_eq!(removed(&first), 0, "stopped");
        let second = start();
        assert_eq!((removed(&first), removed(&second)), (0, 1), "started again");
    }

    /// A drive whose first order to leave takes long. Counts the orders that it has begun and
    /// carried out.
    #[derive(Default)]
    struct SlowFirst {
        begun: AtomicUsize,
        done: AtomicUsize,
    }

    const LATE: Duration = Duration::from_secs(2);

    impl crate::transport::DrivePath for SlowFirst {
        fn execute(
            &self,
            _: &DriveCommand,
            _: &Deadline,
        ) -> Result<crate::transport::Answer, TransportError> {
            Ok(Reply::Table(Arc::new([])).into())
        }

        fn reserve(&self, _: &ReserveOrder, _: &Deadline) -> Result<ReserveAnswer, TransportError> {
            if self.begun.fetch_add(1, Ordering::SeqCst) == 0 {
                clock::sleep(LATE);
            }
            self.done.fetch_add(1, Ordering::SeqCst);
            Ok(ReserveAnswer::Done)
        }
    }

    /// Two volume groups on one drive are stopped at the same time: both are gone before either
    /// looks whether the other one uses the drive, so both leave it. The order of one is slow.
    #[test]
    fn a_departure_that_is_over_does_not_end_the_wait_for_another_one() {
        let timing = Timing::for_lease(Duration::from_secs(60));
        let (me, limits) = (HostId::new([1; 16], "host1"), Limits::new(&timing));
        let topology = Topology::new([("/dev/d0".to_owned(), "/nowhere".into())].into());
        let path = Arc::new(SlowFirst::default());
        let it = path.clone();
        let connect = move |_: &str, _: &_| -> Arc<dyn crate::transport::DrivePath> { it.clone() };
        let drives = Arc::new(Drives::new(topology, Box::new(connect), limits));
        let drive = drives.members(&["/dev/d0".to_owned()]).members[0].drive;
        let never = Instant::default();
        let reservations = Reservations::start(me, timing, limits, drives, never).unwrap();
        reservations.connect(Link {
            fail: Box::new(|_, _| {}),
            safe_until: Box::new(|_| None),
            note_leaving: Box::new(|| true),
            active: Box::new(|| Ok(Vec::new())),
        });
        let [first, second] = [2, 3].map(|it| ResourceId::from_bytes([it; 64]));
        for group in [first, second] {
            let owner = Arc::new(Owner::new("volume group".into(), None));
            let started = Group::new(owner, vec![drive], Vec::new(), vec![drive]);
            reservations.groups.lock().insert(group, started);
        }
        // While the thread that stops the first one waits for the orphans' mutex, another thread
        // stops the second one.
        let (weak, slow) = (Arc::downgrade(&reservations), path.clone());
        reservations.keep_on(move |group| {
            if group == first {
                let this = weak.upgrade().unwrap();
                std::thread::spawn(move || this.leave(second, true)).join().unwrap();
                while slow.begun.load(Ordering::SeqCst) == 0 {
                    clock::sleep(Duration::from_millis(1));
                }
            }
            HashSet::new()
        });
        reservations.leave(first, true);
        while path.done.load(Ordering::SeqCst) == 0 {
            clock::sleep(Duration::from_millis(1));
        }
        // The thread of the quick departure ends.
        clock::sleep(LATE / 4);
        assert_eq!(path.done.load(Ordering::SeqCst), 1, "the machine is too slow");
        assert_eq!(path.begun.load(Ordering::SeqCst), 2);
        assert!(reservations.is_leaving(), "the other order has not been carried out yet");
    }

    /// A drive with one path, at which something happens during each look.
    struct Watched {
        keys: std::sync::Mutex<Vec<u64>>,
        on_look: Box<OnLook>,
    }

    /// What happens to the keys of a drive, and elsewhere.
    type OnLook = dyn Fn(&mut Vec<u64>) + Send + Sync;

    impl Watched {
        fn new(
            keys: Vec<u64>,
            on_look: impl Fn(&mut Vec<u64>) + Send + Sync + 'static,
        ) -> Arc<Watched> {
            Arc::new(Watched { keys: std::sync::Mutex::new(keys), on_look: Box::new(on_look) })
        }
    }

    impl crate::transport::DrivePath for Watched {
        fn execute(
            &self,
            _: &DriveCommand,
            _: &Deadline,
        ) -> Result<crate::transport::Answer, TransportError> {
            Ok(Reply::Table(Arc::new([])).into())
        }

        fn reserve(
            &self,
            order: &ReserveOrder,
            _: &Deadline,
        ) -> Result<ReserveAnswer, TransportError> {
            let mut keys = self.keys.lock().unwrap();
            Ok(match *order {
                ReserveOrder::Report => {
                    let report = ReserveReport {
                        keys: keys.clone(),
                        reservation: Some(Some(idm_fencing::KIND)),
                        is_able: true,
                        by_path: false,
                    };
                    // The answer is on its way while the other drives of the group are awaited.
                    (self.on_look)(&mut keys);
                    ReserveAnswer::Report(report)
                }
                ReserveOrder::Register { key, anew } if anew || keys.contains(&key) => {
                    keys.retain(|it| *it != key);
                    keys.push(key);
                    ReserveAnswer::Done
                }
                ReserveOrder::Register { .. } => ReserveAnswer::Conflict,
                _ => ReserveAnswer::Done,
            })
        }
    }

    const VG0: ResourceId = ResourceId::from_bytes([2; 64]);
    const VG1: ResourceId = ResourceId::from_bytes([3; 64]);

    /// A host that has started VG1, with an active LV on the first of its drives.
    struct Beside {
        reservations: Arc<Reservations>,
        drives: Vec<DriveRef>,
        paths: Vec<Arc<Watched>>,
        other: Arc<Owner>,
        /// The time for which VG1's locks are safe.
        safe: Arc<std::sync::Mutex<Duration>>,
    }

    const LEASE: Duration = Duration::from_secs(60);

    impl Beside {
        /// `told`: whether the active LVs can be told.
        fn new(told: Result<(), ()>) -> Beside {
            let other = Arc::new(Owner::new("volume group vg1".into(), None));
            let safe = Arc::new(std::sync::Mutex::new(LEASE));
            let path = Watched::new(vec![Self::key()], |_| ());
            Beside::with(vec![path], other, safe, told)
        }

        fn key() -> u64 {
            Key::of(&HostId::new([1; 16], "host1")).number()
        }

        fn with(
            paths: Vec<Arc<Watched>>,
            other: Arc<Owner>,
            safe: Arc<std::sync::Mutex<Duration>>,
            told: Result<(), ()>,
        ) -> Beside {
            let timing = Timing::for_lease(LEASE);
            let (me, limits) = (HostId::new([1; 16], "host1"), Limits::new(&timing));
            let names: Vec<String> = (0..paths.len()).map(|at| format!("/dev/d{at}")).collect();
            let nodes = names.iter().map(|name| (name.clone(), format!("/nowhere{name}").into()));
            let topology = Topology::new(nodes.collect());
            let its = paths.clone();
            let connect = move |name: &str, _: &_| -> Arc<dyn crate::transport::DrivePath> {
                its[(0..its.len()).find(|at| name.ends_with(&format!("d{at}"))).unwrap()].clone()
            };
            let drives = Arc::new(Drives::new(topology, Box::new(connect), limits));
            let members = drives.members(&names).members;
            let all: Vec<DriveRef> = members.iter().map(|member| member.drive).collect();
            let identity = drives.identity(all[0]);
            let never = Instant::default();
            let reservations = Reservations::start(me, timing, limits, drives, never).unwrap();
            let date = safe.clone();
            reservations.connect(Link {
                fail: Box::new(|_, _| {}),
                safe_until: Box::new(move |_| Some(clock::now() + *date.lock().unwrap())),
                note_leaving: Box::new(|| true),
                active: Box::new(move || {
                    told.map_err(|()| io::Error::other("no sysfs"))?;
                    Ok(vec![InUse { vg: VG1, drives: Some(vec![identity.clone()]) }])
                }),
            });
            let started = Group::new(other.clone(), vec![all[0]], Vec::new(), vec![all[0]]);
            reservations.groups.lock().insert(VG1, started);
            Beside { reservations, drives: all, paths, other, safe }
        }

        fn is_doubtful(&self) -> bool {
            self.reservations.doubtful(VG0, &self.drives) == self.drives
        }

        /// Starts VG0 on all drives. Returns the number of keys on each then.
        fn start(&self) -> (Result<(), String>, Vec<usize>) {
            let owner = Arc::new(Owner::new("volume group vg0".into(), None));
            let started = self.reservations.enrol(VG0, &owner, &self.drives, false);
            (started, self.paths.iter().map(|it| it.keys.lock().unwrap().len()).collect())
        }
    }

    /// A host that was removed from a drive must not register there again for another group.
    #[test]
    fn a_drive_is_doubtful_where_a_group_in_use_is_lost_or_may_be_soon() {
        let bench = Beside::new(Ok(()));
        assert!(!bench.is_doubtful());
        assert_eq!(bench.reservations.doubtful(VG1, &bench.drives), [], "the group itself");
        *bench.safe.lock().unwrap() = Timing::for_lease(LEASE).linger;
        assert!(bench.is_doubtful(), "it may be lost before an order arrives");
        *bench.safe.lock().unwrap() = LEASE;
        bench.other.set_killed();
        assert!(bench.is_doubtful(), "killed");
        assert!(Beside::new(Err(())).is_doubtful(), "what is active cannot be told");
    }

    /// A volume group is started on a drive of another one, which is in use and healthy when the
    /// start begins. The start registers for as long as the slowest drive needs. Meanwhile the lock
    /// of the other group gets into danger, its group is killed, and another host removes this one
    /// and takes the lock.
    #[test]
    fn a_start_does_not_register_again_where_a_group_in_use_is_lost_meanwhile() {
        let other = Arc::new(Owner::new("volume group vg1".into(), None));
        let (killed, is_removed) = (other.clone(), std::sync::atomic::AtomicBool::new(false));
        let path = Watched::new(vec![Beside::key()], move |keys| {
            if !is_removed.swap(true, Ordering::SeqCst) {
                killed.set_killed();
                keys.clear();
            }
        });
        let safe = Arc::new(std::sync::Mutex::new(LEASE));
        let bench = Beside::with(vec![path], other, safe, Ok(()));
        let (started, keys) = bench.start();
        assert!(bench.other.is_killed());
        assert_eq!(keys, [0], "the lost LV writes again beside its new holder: {started:?}");
        assert!(started.unwrap_err().contains(&Obstacle::OthersInUse(bench.drives[0]).to_string()));
    }

    /// A moment after the start of VG0 on two drives has begun, VG1's locks are renewed.
    #[test]
    fn a_start_goes_on_where_the_locks_of_a_group_in_use_are_renewed_meanwhile() {
        let other = Arc::new(Owner::new("volume group vg1".into(), None));
        let safe = Arc::new(std::sync::Mutex::new(Timing::for_lease(LEASE).linger));
        let paths = [vec![Beside::key()], Vec::new()].map(|keys| {
            let safe = safe.clone();
            Watched::new(keys, move |_| *safe.lock().unwrap() = LEASE)
        });
        let bench = Beside::with(paths.to_vec(), other, safe, Ok(()));
        assert_eq!(bench.start(), (Ok(()), vec![1, 1]));
    }
}
