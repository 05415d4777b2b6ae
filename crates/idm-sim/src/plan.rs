//! What one seed decides before the simulation begins: the size of the world, its times, its
//! drives' firmware and the faults.

use crate::clock::Clock;
use core::time::Duration;
use fastrand::Rng;
use idm_emulator::{Profile, profile};
use idm_engine::Timing;

/// Most drives of a world. Sets of drives are bits of a `u16`.
pub const MAX_DRIVES: usize = 9;
/// Most hosts of a world. Sets of hosts are bits of a `u8`.
pub const MAX_HOSTS: usize = 8;

/// What kind of world to make of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Within the fault budget: every invariant holds.
    Budget,
    /// Drives lose their state beyond the budget: the loss must be noticed.
    Beyond,
    /// Drives answer nonsense: nothing may panic, loop or hang.
    Nonsense,
    /// Within the fault budget, and a minority of the drives answers nonsense, but never says GOOD
    /// or shows a table where that is not so: every invariant holds.
    SomeNonsense,
}

impl Kind {
    /// Whether every invariant must hold.
    pub fn is_safe(self) -> bool {
        matches!(self, Kind::Budget | Kind::SomeNonsense)
    }
}

/// Which firmware the drives have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// Drawn from the seed, and varied where nothing was observed.
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
    /// When it begins, in us.
    pub from: u64,
    /// When it ends, in us.
    pub to: u64,
    /// What it is.
    pub what: Trouble,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A drive is not there: commands are refused by the transport.
    DriveGone(u8),
    /// A drive does not answer and does nothing: commands time out.
    DriveDead(u8),
    /// A drive executes late.
    DriveSlow(u8),
    /// A drive says "not now".
    DriveBusy(u8),
    /// A drive's table is filled up with mutexes of strangers.
    DriveFull(u8),
    /// A drive loses its table. Has no length.
    DriveReset(u8),
    /// One path comes and goes.
    PathFlaps(u8, u8),
    /// A host reaches no drive.
    Cut(u8),
    /// A host stands still while its clock goes on.
    Frozen(u8),
    /// A host dies, and comes back at the end under its old name (lvmlockd was restarted).
    Restart(u8),
    /// A host dies, and comes back at the end under a new name (the machine was rebooted).
    Reboot(u8),
}

/// Chances of faults of single commands, in 1/65536.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chances {
    /// Never reaches the drive, and the transport knows.
    pub unreachable: u16,
    /// Never reaches the drive; the transport gives up on it.
    pub lost: u16,
    /// Executed; the reply is lost.
    pub reply_lost: u16,
    /// Reported as uncertain, and executed later.
    pub ghost: u16,
    /// Executed twice; the reply is that of the second time.
    pub twice: u16,
    /// Not executed: "not now".
    pub try_again: u16,
    /// Fails with or without effect, and says so.
    pub failed: u16,
    /// Takes long.
    pub slow: u16,
}

/// The plan of one seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What kind of world.
    pub kind: Kind,
    /// The engines' times.
    pub timing: Timing,
    /// How long the transport waits for an answer, in us.
    pub timeout: u64,
    /// Hosts' clocks; the older stack's hosts come last.
    pub host_clocks: Vec<Clock>,
    /// How many hosts run the older stack.
    pub old_hosts: usize,
    /// Drives' clocks and firmware.
    pub drives: Vec<(Clock, Profile)>,
    /// One per lock: whether it carries a value (VG lock) or not (LV lock), and the drives that
    /// vote at first, as bits.
    pub locks: Vec<(bool, u16)>,
    /// Per host: the drives that it knows of. Differs only where `lists_differ`.
    pub lists: [u16; MAX_HOSTS],
    /// Whether hosts disagree about the drive list.
    pub lists_differ: bool,
    /// A drive that has no IDM, if any.
    pub not_idm: Option<u8>,
    /// Drives that answer nonsense some of the time, as bits.
    pub nonsense: u16,
    /// Whether LVs are moved to other drives.
    pub moves: bool,
    /// Base delay of each path in us, by host and drive.
    pub delay: [[u32; MAX_DRIVES]; MAX_HOSTS],
    /// Faults of single commands.
    pub chances: Chances,
    /// Longer faults.
    pub episodes: Vec<Episode>,
    /// From then on nothing fails any more, in us.
    pub calm_at: u64,
    /// From then on what failed before has no consequences any more, in us.
    pub settled_at: u64,
    /// From then on hosts only give back what they hold, in us.
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

/// A number between 1 and `most` whose logarithm is evenly distributed.
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

/// Draws every behaviour that no trace and no conformance case settles.
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
    // A drive that kept several records of an unlocked mutex, each with a value of its own, and
    // then showed the next owner its own old one, could not carry a value at all.
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
}

impl Plan {
    /// The plan of a seed. Draws from `rng`, which then goes on to draw the rest.
    pub fn draw(rng: &mut Rng, kind: Kind, firmware: Firmware) -> Plan {
        let hosts = match rng.u8(0..16) {
            0..=7 => 2,
            8..=11 => 3,
            12..=13 => 4,
            _ => rng.usize(5..=MAX_HOSTS),
        };
        let n_drives = match rng.u8(0..16) {
            0 => 1,
            1..=2 => 2,
            3..=9 => 3,
            10 => 4,
            11..=13 => 5,
            _ => rng.usize(6..=MAX_DRIVES),
        };
        let old_hosts =
            if kind == Kind::Budget && rng.u8(0..8) == 0 { rng.usize(1..hosts) } else { 0 };
        let lease_s = if old_hosts > 0 { 8 } else { [4, 10, 20, 60][rng.usize(0..4)] };
        let timing = Timing::for_lease(Duration::from_secs(lease_s));
        let lease = lease_s * 1_000_000;
        let linger = timing.linger.as_micros() as u64;

        let clock = |rng: &mut Rng| Clock::new(rng.u64(0..1 << 40), rng.i64(-500..=500));
        let host_clocks = (0..hosts).map(|_| clock(rng)).collect();
        let same_firmware = rng.bool().then(|| profile(rng, firmware));
        let mut drives = Vec::with_capacity(n_drives);
        for _ in 0..n_drives {
            let profile = same_firmware.unwrap_or_else(|| profile(rng, firmware));
            drives.push((clock(rng), profile));
        }
        if old_hosts > 0 {
            for (_, profile) in &mut drives {
                // The older stack breaks without a look at who holds the lock, and counts on it
                // that a drive refuses; see the fault budget.
                profile.break_beside_live_sharers = false;
                profile.destroy_by_holder = profile::DestroyByHolder::Refused;
            }
        }

        let all = (1u16 << n_drives) - 1;
        let calm = rng.u8(0..5) == 0;
        let lists_differ =
            kind == Kind::Budget && old_hosts == 0 && n_drives > 1 && rng.u8(0..10) == 0;
        let mut lists = [all; MAX_HOSTS];
        if lists_differ {
            for list in &mut lists[..hosts] {
                if rng.bool() {
                    *list = rng.u16(1..=all);
                }
            }
        }
        let moves = kind == Kind::Budget
            && old_hosts == 0
            && !lists_differ
            && n_drives > 1
            && rng.u8(0..4) == 0;
        let n_locks = if hosts > 4 { 1 } else { [1, 1, 1, 2, 3][rng.usize(0..5)] };
        let locks: Vec<(bool, u16)> = (0..n_locks)
            .map(|_| {
                let keeps_value = rng.u8(0..3) != 0 && !moves;
                let some = if keeps_value || old_hosts > 0 || lists_differ || rng.bool() {
                    all
                } else {
                    rng.u16(1..=all)
                };
                (keeps_value, some)
            })
            .collect();

        let mut delay = [[0; MAX_DRIVES]; MAX_HOSTS];
        let base = log_uniform(rng, 20_000).max(50);
        for path in delay.iter_mut().flatten() {
            *path = (base + log_uniform(rng, base)) as u32;
        }

        // A healthy path is always quick enough for the transport.
        let timeout = rng.u64((lease / 50).max(10 * base)..linger * 9 / 10);
        let active = rng.u64(lease..4 * lease);
        let mut plan = Plan {
            kind,
            timing,
            timeout,
            host_clocks,
            old_hosts,
            drives,
            locks,
            lists,
            lists_differ,
            not_idm: None,
            nonsense: 0,
            moves,
            delay,
            chances: Chances::default(),
            episodes: Vec::new(),
            calm_at: if calm { 0 } else { active },
            settled_at: 0,
            stop_at: 0,
            pause: 0,
            retry: 0,
            hold: 0,
            lateness: log_uniform(rng, lease / 200),
        };
        // A drive without IDM counts as a member that never votes; two members would be lost to it.
        let whole = !moves && !lists_differ && plan.locks.iter().all(|&(_, set)| set == all);
        if kind == Kind::SomeNonsense && whole && n_drives > 2 {
            for _ in 0..rng.usize(1..=(n_drives - 1) / 2) {
                plan.nonsense |= 1 << rng.usize(0..n_drives);
            }
        } else if !calm && whole && n_drives > 2 && rng.u8(0..15) == 0 {
            plan.not_idm = Some(rng.u8(0..n_drives as u8));
        }
        if !calm {
            plan.draw_faults(rng, lease, n_drives, hosts, old_hosts);
        }
        plan.settled_at = if calm { 0 } else { plan.calm_at + lease + lease / 8 + linger };
        plan.stop_at = plan.settled_at.max(active) + rng.u64(lease / 4..lease);
        // Big worlds do less each, so that all seeds cost about the same.
        let size = (hosts * n_drives * plan.locks.len()) as u64;
        plan.pause = (lease * size / 12).clamp(lease / 4, 2 * lease);
        plan.retry = plan.pause / 2;
        plan.hold = rng.u64(lease / 100..lease + lease / 2);
        plan
    }

    fn draw_faults(
        &mut self,
        rng: &mut Rng,
        lease: u64,
        drives: usize,
        hosts: usize,
        old_hosts: usize,
    ) {
        // 0 none, 1 rare, 2 frequent, 3 heavy.
        let worst = rng.u8(0..4);
        let chance = |rng: &mut Rng| match rng.u8(0..=worst.max(1)) {
            0 => 0,
            1 => rng.u16(0..600),
            2 => rng.u16(0..3000),
            _ => rng.u16(0..8000),
        };
        if worst > 0 && self.kind != Kind::Beyond {
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
        let episodes = if self.kind.is_safe() { rng.usize(0..8) } else { 0 };
        for _ in 0..episodes {
            let from = rng.u64(0..self.calm_at);
            let to = (from + some_time(rng, 2 * lease)).min(self.calm_at);
            let drive = rng.u8(0..drives as u8);
            // The older stack's hosts are neither frozen nor killed: it would not survive it
            // by its own rules.
            let host = rng.u8(0..(hosts - old_hosts) as u8);
            let what = match rng.u8(0..16) {
                0 => Trouble::DriveGone(drive),
                1 => Trouble::DriveDead(drive),
                2 => Trouble::DriveSlow(drive),
                3 => Trouble::DriveBusy(drive),
                4 if rng.bool() => Trouble::DriveFull(drive),
                // Sets that differ survive no reset: what one host still keeps may be no majority
                // of what the other counts.
                4..=6 if !self.lists_differ => Trouble::DriveReset(drive),
                4..=6 => Trouble::DriveGone(drive),
                7 => Trouble::PathFlaps(host, drive),
                8..=9 => Trouble::Cut(host),
                10..=12 => Trouble::Frozen(host),
                13 => Trouble::Restart(host),
                _ => Trouble::Reboot(host),
            };
            if let Trouble::DriveFull(d) = what {
                let limits = &mut self.drives[usize::from(d)].1.limits;
                // Room for this world's locks, and for every host under several names.
                limits.mutexes = self.locks.len() + rng.usize(0..10);
                limits.hosts = rng.usize(2 * hosts..2 * hosts + 12);
            }
            self.episodes.push(Episode { from, to, what });
        }
    }
}
