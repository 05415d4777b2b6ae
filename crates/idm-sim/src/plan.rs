//! The part of a run that its seed decides before the simulation begins: the size of the world, its
//! times, its drives' firmware and the faults.

mod aims;

pub use aims::{Aim, NoAim};

use crate::clock::Clock;
use crate::ids::{
    DriveIx, DriveSet, HostIx, Ix, LockIx, MAX_DRIVES, MAX_HOSTS, PerDrive, PerHost, Table,
};
use core::time::Duration;
use fastrand::Rng;
use idm_emulator::{Profile, profile};
use idm_engine::Timing;

/// The kind of world for a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorldKind {
    /// Within the fault budget: every invariant holds.
    Budget,
    /// Drives lose their state beyond the budget: the loss must be noticed.
    Beyond,
    /// Drives answer nonsense: the engine must not panic, loop or hang.
    Nonsense,
    /// Within the fault budget; a minority of the drives answers nonsense, but never a false GOOD
    /// or a false table: every invariant holds.
    SomeNonsense,
    /// Within the fault budget, and aimed at one kind of fault: every invariant holds.
    Aimed(Aim),
}

impl WorldKind {
    /// Whether every invariant must hold.
    pub fn is_safe(self) -> bool {
        matches!(self, WorldKind::Budget | WorldKind::SomeNonsense | WorldKind::Aimed(_))
    }
}

/// The firmware of the drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// Drawn from the seed, and varied in every point without observation.
    Any,
    /// [`Profile::r00d`].
    R00d,
    /// [`Profile::rev2313`].
    Rev2313,
    /// [`Profile::current`].
    Current,
}

/// One fault with a beginning and an end.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    /// The beginning, in us.
    pub from: u64,
    /// The end, in us.
    pub to: u64,
    /// The kind of fault.
    pub what: Fault,
}

/// The kind of a lasting fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A drive is not there: the transport refuses commands.
    DriveGone(DriveIx),
    /// A drive does not answer and does nothing: commands time out.
    DriveDead(DriveIx),
    /// A drive executes late.
    DriveSlow(DriveIx),
    /// A drive answers "not now".
    DriveBusy(DriveIx),
    /// A drive's table is full of strangers' mutexes.
    DriveFull(DriveIx),
    /// A drive loses its table. It has no duration.
    DriveReset(DriveIx),
    /// One path fails and comes back repeatedly.
    PathFlaps(HostIx, DriveIx),
    /// One path fails. Only aimed worlds have it.
    PathDown(HostIx, DriveIx),
    /// A host reaches no drive.
    Cut(HostIx),
    /// A host stands still while its clock goes on.
    Frozen(HostIx),
    /// A host dies, and comes back at the end under its old name, as after a restart of lvmlockd.
    Restart(HostIx),
    /// A host dies, and comes back at the end under a new name, as after a reboot.
    Reboot(HostIx),
}

/// Chances of faults of single commands, in 1/65536.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chances {
    /// The command never reaches the drive, and the transport knows that.
    pub unreachable: u16,
    /// The command never reaches the drive; the transport gives up on it.
    pub lost: u16,
    /// The command is executed; the reply is lost.
    pub reply_lost: u16,
    /// The command is reported as uncertain, and executed later.
    pub ghost: u16,
    /// The command is executed twice; the reply is that of the second time.
    pub twice: u16,
    /// The command is not executed: "not now".
    pub try_again: u16,
    /// The command fails with or without effect, and is reported as failed.
    pub failed: u16,
    /// The command takes long.
    pub slow: u16,
}

/// A drive of the world.
#[derive(Clone, Copy, Debug)]
pub struct DrivePlan {
    /// Its clock.
    pub clock: Clock,
    /// Its firmware.
    pub profile: Profile,
}

/// A lock of the world.
#[derive(Clone, Copy, Debug)]
pub struct LockPlan {
    /// Whether it carries a value (VG lock) or not (LV lock).
    pub keeps_value: bool,
    /// The drives that vote at first.
    pub layout: DriveSet,
}

/// The plan of one seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kind of world.
    pub kind: WorldKind,
    /// The engines' times.
    pub timing: Timing,
    /// The time for which the transport waits for an answer, in us.
    pub timeout: u64,
    /// Hosts' clocks; the older stack's hosts come last.
    pub host_clocks: Table<HostIx, Clock>,
    /// The number of hosts that run the older stack.
    pub old_hosts: usize,
    /// A host on which an administrator gives back locks of dead hosts (`idmctl release` and
    /// `clear`), if any.
    pub repairer: Option<HostIx>,
    /// The drives.
    pub drives: Table<DriveIx, DrivePlan>,
    /// The locks.
    pub locks: Table<LockIx, LockPlan>,
    /// The drives that each host knows of. They differ only if `lists_differ`.
    pub lists: PerHost<DriveSet>,
    /// Whether hosts disagree about the drive list.
    pub lists_differ: bool,
    /// A drive that has no IDM, if any.
    pub not_idm: Option<DriveIx>,
    /// Drives that answer nonsense some of the time.
    pub nonsense: DriveSet,
    /// Whether LVs are moved to other drives.
    pub moves: bool,
    /// Whether drives leave the VG for good and are pulled out.
    pub replaces: bool,
    /// The number of mutexes for which a drive full of strangers' mutexes has room.
    pub room: usize,
    /// Whether hosts also read values without the lock, which costs a third of the speed.
    pub reads: bool,
    /// The number of restarted hosts of which one, on average, finds no note of its locks.
    pub notes_lost: u8,
    /// Base delay of each path in us, by host and drive.
    pub delay: PerHost<PerDrive<u32>>,
    /// Faults of single commands.
    pub chances: Chances,
    /// Longer faults.
    pub episodes: Vec<Episode>,
    /// The moment after which nothing fails any more, in us.
    pub calm_at: u64,
    /// The moment after which earlier failures have no consequences any more, in us.
    pub settled_at: u64,
    /// The moment after which hosts only give back their locks, in us.
    pub stop_at: u64,
    /// The most time between two requests of a caller, in us.
    pub pause: u64,
    /// The most time between a refusal and the next request, in us.
    pub retry: u64,
    /// The most time that a caller holds a lock before it does something else, in us.
    pub hold: u64,
    /// The most time by which a timer is late, in us.
    pub lateness: u64,
}

/// A number between 1 and `most` with an evenly distributed logarithm.
pub fn log_uniform(rng: &mut Rng, most: u64) -> u64 {
    let bits = 64 - most.max(1).leading_zeros();
    let below = 1u64 << rng.u32(1..=bits);
    rng.u64(below / 2..below).clamp(1, most.max(1))
}

/// A time up to `most`: mostly spread evenly, sometimes of any order of magnitude.
pub fn some_time(rng: &mut Rng, most: u64) -> u64 {
    if rng.u8(0..4) > 0 { rng.u64(1..=most.max(1)) } else { log_uniform(rng, most) }
}

fn profile(rng: &mut Rng, firmware: Firmware) -> Profile {
    let mut profile = match firmware {
        Firmware::R00d => return Profile::r00d(),
        Firmware::Rev2313 => return Profile::rev2313(),
        Firmware::Current => return Profile::current(),
        Firmware::Any => match rng.u8(0..8) {
            0 => return Profile::r00d(),
            1 => return Profile::rev2313(),
            2..=4 => return Profile::current(),
            5 => Profile::rev2313(),
            _ => Profile::current(),
        },
    };
    vary(rng, &mut profile);
    profile
}

/// Draws the unknown behaviours (docs/protocol.md, "What is uncertain, and why it is safe").
fn vary(rng: &mut Rng, p: &mut Profile) {
    use profile::ValueScope;
    use profile::{DestroyByHolder, Duplicate, Held, OtherClass, SharedUnlock, SharerState};
    p.duplicate =
        *rng.choice(&[Duplicate::Conflict, Duplicate::Terminated]).unwrap_or(&p.duplicate);
    p.expired_holder_may_relock = rng.bool();
    p.held = *rng.choice(&[Held::Conflict, Held::Conflict, Held::Busy]).unwrap_or(&p.held);
    p.sharer_state =
        *rng.choice(&[SharerState::Locked, SharerState::MultipleLocked]).unwrap_or(&p.sharer_state);
    p.shared_unlock = *rng
        .choice(&[SharedUnlock::RecordGone, SharedUnlock::LastStays, SharedUnlock::EachStays])
        .unwrap_or(&p.shared_unlock);
    p.value_outlives_record = rng.bool();
    // A drive could not carry a value at all if it kept several records of an unlocked mutex, each
    // with a value of its own, and then showed the next owner that owner's old value.
    p.value_scope = if p.shared_unlock != SharedUnlock::EachStays && rng.bool() {
        ValueScope::Record
    } else {
        ValueScope::Mutex
    };
    p.lock_stores_value = rng.bool();
    p.refresh_stores_value = rng.bool();
    p.refresh_stores_metadata = rng.bool();
    p.break_keeps_value = rng.bool();
    p.repeated_unlock_good = rng.bool();
    p.unlock_of_other_class = *rng
        .choice(&[OtherClass::Accepted, OtherClass::Terminated, OtherClass::CheckCondition])
        .unwrap_or(&p.unlock_of_other_class);
    p.destroy_by_holder = *rng
        .choice(&[DestroyByHolder::Refused, DestroyByHolder::WhileLive, DestroyByHolder::Allowed])
        .unwrap_or(&p.destroy_by_holder);
    p.destroy_by_stranger = rng.bool();
    p.promotion_removes_expired = rng.bool();
    p.break_beside_live_sharers = rng.bool();
    p.shared_unlock_stores_value = rng.bool();
}

/// The number of hosts and drives.
struct Size {
    hosts: usize,
    old_hosts: usize,
    drives: usize,
}

impl Size {
    fn draw(rng: &mut Rng, kind: WorldKind) -> Size {
        let hosts = match rng.u8(0..16) {
            0..=7 => 2,
            8..=11 => 3,
            12..=13 => 4,
            _ => rng.usize(5..=MAX_HOSTS),
        };
        let drives = match rng.u8(0..16) {
            0 => 1,
            1..=2 => 2,
            3..=9 => 3,
            10 => 4,
            11..=13 => 5,
            _ => rng.usize(6..=MAX_DRIVES),
        };
        let old_hosts =
            if kind == WorldKind::Budget && rng.u8(0..8) == 0 { rng.usize(1..hosts) } else { 0 };
        Size { hosts, old_hosts, drives }
    }
}

fn clock(rng: &mut Rng) -> Clock {
    Clock::new(rng.u64(0..1 << 40), rng.i64(-500..=500))
}

impl Plan {
    /// The plan of a seed. Draws from `rng`, which then goes on to draw the rest.
    pub fn draw(rng: &mut Rng, kind: WorldKind, firmware: Firmware) -> Plan {
        let size = match kind {
            WorldKind::Aimed(aim) => aim.size(rng),
            _ => Size::draw(rng, kind),
        };
        let lease_s = if size.old_hosts > 0 { 8 } else { [4, 10, 20, 60][rng.usize(0..4)] };
        let mut plan = Plan::empty(kind, Timing::for_lease(Duration::from_secs(lease_s)));
        plan.old_hosts = size.old_hosts;
        plan.host_clocks = (0..size.hosts).map(|_| clock(rng)).collect();
        plan.draw_drives(rng, firmware, size.drives);
        let calm = match kind {
            WorldKind::Aimed(aim) => aim.is_calm(rng),
            _ => rng.u8(0..5) == 0,
        };
        plan.draw_lists(rng);
        plan.draw_locks(rng);
        let active = plan.draw_times(rng);
        plan.calm_at = if calm { 0 } else { active };
        plan.draw_odd_drives(rng, calm);
        if !calm {
            plan.draw_chances(rng);
            plan.draw_episodes(rng);
        }
        plan.draw_end(rng, calm, active);
        if let WorldKind::Aimed(aim) = kind {
            plan.aim(rng, aim);
        }
        // Such reads change nothing, so the draw of all other things does not depend on them. A
        // host of the older stack unlocks a lost lock, and does not remove the value.
        plan.reads = plan.old_hosts == 0 && rng.clone().u8(0..4) == 0;
        plan
    }

    /// A plan without any content.
    fn empty(kind: WorldKind, timing: Timing) -> Plan {
        Plan {
            kind,
            timing,
            timeout: 0,
            host_clocks: Table::new(),
            old_hosts: 0,
            repairer: None,
            drives: Table::new(),
            locks: Table::new(),
            lists: PerHost::all(DriveSet::EMPTY),
            lists_differ: false,
            not_idm: None,
            nonsense: DriveSet::EMPTY,
            moves: false,
            replaces: false,
            room: 0,
            reads: false,
            notes_lost: 16,
            delay: PerHost::all(PerDrive::all(0)),
            chances: Chances::default(),
            episodes: Vec::new(),
            calm_at: 0,
            settled_at: 0,
            stop_at: 0,
            pause: 0,
            retry: 0,
            hold: 0,
            lateness: 0,
        }
    }

    /// A plan in which nothing fails: hosts and drives with exact clocks, and one LV lock.
    pub fn quiet(hosts: usize, drives: usize, layout: DriveSet, lease: Duration) -> Plan {
        let mut plan = Plan::empty(WorldKind::Budget, Timing::for_lease(lease));
        plan.host_clocks = (0..hosts).map(|_| Clock::default()).collect();
        let drive = DrivePlan { clock: Clock::default(), profile: Profile::current() };
        plan.drives = (0..drives).map(|_| drive).collect();
        plan.locks.push(LockPlan { keeps_value: false, layout });
        plan.lists = PerHost::all(plan.all_drives());
        plan.delay = PerHost::all(PerDrive::all(1000));
        plan.timeout = plan.linger() / 3;
        plan.lateness = 1;
        // Faults may be added, and refusals then have no time limit.
        plan.calm_at = u64::MAX;
        plan.settled_at = u64::MAX;
        plan
    }

    /// All drives.
    pub fn all_drives(&self) -> DriveSet {
        DriveSet::first(self.drives.len())
    }

    /// The longest base delay of a path, in us.
    pub fn slowest_path(&self) -> u64 {
        u64::from(self.delay.iter().flat_map(PerDrive::iter).copied().max().unwrap_or(0))
    }

    /// The length of a lease, in us.
    pub fn lease(&self) -> u64 {
        self.timing.lease.as_micros() as u64
    }

    /// The time for which a command of unknown fate may linger, in us.
    pub fn linger(&self) -> u64 {
        self.timing.linger.as_micros() as u64
    }

    /// The renewal period of a lease, in us.
    pub fn renew(&self) -> u64 {
        self.timing.renew.as_micros() as u64
    }

    /// The time in which a request is answered, in us.
    pub fn patience(&self) -> u64 {
        self.timing.patience.as_micros() as u64
    }

    fn draw_drives(&mut self, rng: &mut Rng, firmware: Firmware, drives: usize) {
        let same_firmware = rng.bool().then(|| profile(rng, firmware));
        for _ in 0..drives {
            let mut profile = same_firmware.unwrap_or_else(|| profile(rng, firmware));
            if self.old_hosts > 0 {
                // The older stack breaks a lock without reading its holders, and relies on the
                // drive to refuse; see the fault budget.
                profile.break_beside_live_sharers = false;
                profile.destroy_by_holder = profile::DestroyByHolder::Refused;
            }
            self.drives.push(DrivePlan { clock: clock(rng), profile });
        }
    }

    fn draw_lists(&mut self, rng: &mut Rng) {
        let all = self.all_drives();
        let plain = self.kind == WorldKind::Budget && self.old_hosts == 0 && self.drives.len() > 1;
        self.lists_differ = plain && rng.u8(0..10) == 0;
        self.lists = PerHost::all(all);
        if self.lists_differ {
            for h in self.host_clocks.ids() {
                if rng.bool() {
                    self.lists[h] = DriveSet::from_bits(rng.u16(1..=all.bits()));
                }
            }
        }
        self.moves = plain && !self.lists_differ && rng.u8(0..4) == 0;
    }

    fn draw_locks(&mut self, rng: &mut Rng) {
        let all = self.all_drives();
        let locks = if self.host_clocks.len() > 4 { 1 } else { [1, 1, 1, 2, 3][rng.usize(0..5)] };
        for _ in 0..locks {
            let keeps_value = rng.u8(0..3) != 0 && !self.moves;
            let whole = keeps_value || self.old_hosts > 0 || self.lists_differ || rng.bool();
            let layout = if whole { all } else { DriveSet::from_bits(rng.u16(1..=all.bits())) };
            self.locks.push(LockPlan { keeps_value, layout });
        }
    }

    /// Draws delays; returns the time for which callers are active while things fail.
    fn draw_times(&mut self, rng: &mut Rng) -> u64 {
        let lease = self.lease();
        let base = log_uniform(rng, 20_000).max(50);
        for path in self.delay.iter_mut().flat_map(PerDrive::iter_mut) {
            *path = (base + log_uniform(rng, base)) as u32;
        }
        // A healthy path is always quick enough for the transport.
        self.timeout = rng.u64((lease / 50).max(10 * base)..self.linger() * 9 / 10);
        let active = rng.u64(lease..4 * lease);
        self.lateness = log_uniform(rng, lease / 200);
        active
    }

    fn draw_odd_drives(&mut self, rng: &mut Rng, calm: bool) {
        let all = self.all_drives();
        let n = self.drives.len();
        // A drive without IDM counts as a member that never votes; two members would be
        // no majority without it.
        let whole = !self.moves
            && !self.lists_differ
            && self.locks.iter().all(|(_, lock)| lock.layout == all);
        if self.kind == WorldKind::SomeNonsense && whole && n > 2 {
            for _ in 0..rng.usize(1..=(n - 1) / 2) {
                self.nonsense.insert(DriveIx::new(rng.usize(0..n)));
            }
        } else if !calm && whole && n > 2 && rng.u8(0..15) == 0 {
            self.not_idm = Some(DriveIx::new(rng.u8(0..n as u8).into()));
        }
    }

    fn draw_chances(&mut self, rng: &mut Rng) {
        // 0 none, 1 rare, 2 frequent, 3 heavy.
        let worst = rng.u8(0..4);
        let chance = |rng: &mut Rng| match rng.u8(0..=worst.max(1)) {
            0 => 0,
            1 => rng.u16(0..600),
            2 => rng.u16(0..3000),
            _ => rng.u16(0..8000),
        };
        if worst > 0 && self.kind != WorldKind::Beyond {
            self.chances = Chances {
                unreachable: chance(rng),
                lost: chance(rng),
                reply_lost: chance(rng),
                ghost: chance(rng),
                twice: chance(rng),
                try_again: chance(rng),
                failed: chance(rng),
                slow: chance(rng),
            };
        }
    }

    fn draw_episodes(&mut self, rng: &mut Rng) {
        let hosts = self.host_clocks.len();
        let episodes = if self.kind.is_safe() { rng.usize(0..8) } else { 0 };
        for _ in 0..episodes {
            let from = rng.u64(0..self.calm_at);
            let to = (from + some_time(rng, 2 * self.lease())).min(self.calm_at);
            let what = self.draw_fault(rng);
            if let Fault::DriveFull(d) = what {
                let mutexes = self.locks.len() + rng.usize(0..10);
                let limits = &mut self.drives[d].profile.limits;
                // Room for this world's locks, and for every host under several names.
                limits.mutexes = mutexes;
                limits.hosts = rng.usize(2 * hosts..2 * hosts + 12);
            }
            self.episodes.push(Episode { from, to, what });
        }
    }

    fn draw_fault(&self, rng: &mut Rng) -> Fault {
        let drive = DriveIx::new(rng.u8(0..self.drives.len() as u8).into());
        // The older stack's hosts are neither frozen nor killed: its own rules do not survive that.
        let hosts = self.host_clocks.len() - self.old_hosts;
        let host = HostIx::new(rng.u8(0..hosts as u8).into());
        match rng.u8(0..16) {
            0 => Fault::DriveGone(drive),
            1 => Fault::DriveDead(drive),
            2 => Fault::DriveSlow(drive),
            3 => Fault::DriveBusy(drive),
            4 if rng.bool() => Fault::DriveFull(drive),
            // Sets that differ survive no reset: one host's keep quorum may be no majority of the
            // other's set.
            4..=6 if !self.lists_differ => Fault::DriveReset(drive),
            4..=6 => Fault::DriveGone(drive),
            7 => Fault::PathFlaps(host, drive),
            8..=9 => Fault::Cut(host),
            10..=12 => Fault::Frozen(host),
            13 => Fault::Restart(host),
            _ => Fault::Reboot(host),
        }
    }

    fn draw_end(&mut self, rng: &mut Rng, calm: bool, active: u64) {
        let lease = self.lease();
        self.settled_at = if calm { 0 } else { self.calm_at + lease + lease / 8 + self.linger() };
        self.stop_at = self.settled_at.max(active) + rng.u64(lease / 4..lease);
        // Big worlds have fewer events per member, so that all seeds cost about the same.
        let size = (self.host_clocks.len() * self.drives.len() * self.locks.len()) as u64;
        self.pause = (lease * size / 12).clamp(lease / 4, 2 * lease);
        self.retry = self.pause / 2;
        self.hold = rng.u64(lease / 100..lease + lease / 2);
    }
}
