//! Worlds that are aimed at one kind of fault: its conditions are drawn far more often than by
//! chance. Nothing in them is beyond the fault budget, and every invariant holds.

use super::{Chances, Episode, Fault, LockPlan, Plan, Size, some_time};
use crate::ids::{DriveIx, DriveSet, HostIx, Ix, PerHost};
use core::fmt;
use core::str::FromStr;
use fastrand::Rng;
use idm_emulator::profile::{Duplicate, Held};

/// The aim of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aim {
    /// Hosts that count different drives contend, and drives give little information.
    Conflicts,
    /// Drives are nearly full, so that several locks make room for themselves at the same time.
    Room,
    /// Hosts are restarted and then count other drives, and firmware keeps the first content of
    /// records.
    Marks,
    /// Drives are replaced under held locks.
    Votes,
    /// lvmlockd dies with commands on their way, and drives hang when it is back.
    Restarts,
    /// Hosts lose sight of some of a VG's drives for longer than a lease, while volumes move.
    Silence,
    /// An administrator takes locks at any time and gives them back at once, while libraries use
    /// them.
    Repairs,
}

impl Aim {
    /// All aims.
    pub const ALL: [Aim; 7] = [
        Aim::Conflicts,
        Aim::Room,
        Aim::Marks,
        Aim::Votes,
        Aim::Restarts,
        Aim::Silence,
        Aim::Repairs,
    ];

    /// The aim's name.
    pub fn name(self) -> &'static str {
        match self {
            Aim::Conflicts => "conflicts",
            Aim::Room => "room",
            Aim::Marks => "marks",
            Aim::Votes => "votes",
            Aim::Restarts => "restarts",
            Aim::Silence => "silence",
            Aim::Repairs => "repairs",
        }
    }

    /// The size of such a world.
    pub(super) fn size(self, rng: &mut Rng) -> Size {
        let (hosts, drives) = match self {
            Aim::Conflicts | Aim::Marks => (rng.usize(2..=3), [3, 3, 3, 4, 5][rng.usize(0..5)]),
            Aim::Room | Aim::Restarts => (rng.usize(2..=3), [1, 1, 2, 3, 3][rng.usize(0..5)]),
            Aim::Votes => (rng.usize(2..=3), rng.usize(3..=6)),
            Aim::Silence => (rng.usize(2..=3), rng.usize(3..=5)),
            Aim::Repairs => (rng.usize(2..=3), [1, 2, 3, 3, 3, 5][rng.usize(0..6)]),
        };
        Size { hosts, old_hosts: 0, drives }
    }

    /// Whether nothing fails in it by chance.
    pub(super) fn is_calm(self, rng: &mut Rng) -> bool {
        self == Aim::Votes && rng.bool()
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error for an unknown name of an aim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAim;

impl fmt::Display for NoAim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such aim")
    }
}

impl core::error::Error for NoAim {}

impl FromStr for Aim {
    type Err = NoAim;

    fn from_str(name: &str) -> Result<Aim, NoAim> {
        Aim::ALL.into_iter().find(|aim| aim.name() == name).ok_or(NoAim)
    }
}

impl Plan {
    /// Turns an ordinary plan into an aimed one.
    pub(super) fn aim(&mut self, rng: &mut Rng, aim: Aim) {
        match aim {
            Aim::Conflicts => self.aim_at_conflicts(rng),
            Aim::Room => self.aim_at_room(rng),
            Aim::Marks => self.aim_at_marks(rng),
            Aim::Votes => self.aim_at_votes(rng),
            Aim::Restarts => self.aim_at_restarts(rng),
            Aim::Silence => self.aim_at_silence(rng),
            Aim::Repairs => self.aim_at_repairs(rng),
        }
    }

    /// Aims at this case: a host finds a record of its own that is old, or that a command wrote
    /// whose answer was lost. Another host takes the mutex during the refresh, and the drive cannot
    /// be read.
    fn aim_at_conflicts(&mut self, rng: &mut Rng) {
        self.part_lists(rng);
        self.one_lock(rng);
        for d in self.drives.ids() {
            let p = &mut self.drives[d].profile;
            p.held = if rng.u8(0..4) > 0 { Held::Busy } else { Held::Conflict };
            p.duplicate = if rng.bool() { Duplicate::Terminated } else { Duplicate::Conflict };
            p.expired_holder_may_relock &= rng.bool();
        }
        self.chances = Chances {
            unreachable: rng.u16(0..3000),
            reply_lost: rng.u16(0..4000),
            twice: rng.u16(0..2000),
            try_again: rng.u16(2000..16_000),
            failed: rng.u16(0..8000),
            ..Chances::default()
        };
        self.episodes.clear();
        for _ in 0..rng.usize(2..6) {
            let (host, drive) = self.some_path(rng);
            let what = match rng.u8(0..8) {
                0..=2 => Fault::Cut(host),
                3 => Fault::PathFlaps(host, drive),
                4..=5 => Fault::DriveBusy(drive),
                6 => Fault::Frozen(host),
                _ => Fault::Reboot(host),
            };
            self.add_episode(rng, what);
        }
        self.hurry(rng);
    }

    /// Aims at this case: callers constantly request more locks than a drive has room for, and each
    /// lock is removed when it is free.
    fn aim_at_room(&mut self, rng: &mut Rng) {
        let all = self.all_drives();
        let mut full = all;
        if self.drives.len() > 1 && rng.bool() {
            self.part_lists(rng);
            // A host that counts more drives gets a majority easily on the others.
            let few = self.host_clocks.ids().map(|h| self.lists[h]).filter(|&list| list != all);
            full = few.fold(DriveSet::EMPTY, |few, list| few | list);
        }
        let locks = rng.usize(2..=3);
        self.locks = (0..locks).map(|_| LockPlan { keeps_value: false, layout: all }).collect();
        self.room = rng.usize(1..locks);
        let hosts = self.host_clocks.len();
        let fills = |what| matches!(what, Fault::DriveFull(_));
        self.episodes.retain(|e| !e.what.ends_a_life_or_table() && !fills(e.what));
        for d in all.iter() {
            let limits = &mut self.drives[d].profile.limits;
            limits.mutexes = locks + rng.usize(0..3);
            // Each host has two names, and strangers have four.
            limits.hosts = rng.usize(2 * hosts..4 * hosts) + 4;
        }
        let (from, to) = (0, self.calm_at);
        self.episodes.extend(full.iter().map(|d| Episode { from, to, what: Fault::DriveFull(d) }));
        self.hurry(rng);
    }

    /// Aims at this case: the next life of a host acquires the earlier life's lock like any other,
    /// with other drives.
    fn aim_at_marks(&mut self, rng: &mut Rng) {
        let all = self.all_drives();
        self.lists_differ = true;
        self.not_idm = None;
        self.notes_lost = 2;
        self.one_lock(rng);
        for d in self.drives.ids() {
            self.drives[d].profile.refresh_stores_metadata &= rng.u8(0..4) == 0;
        }
        self.lists = PerHost::all(all);
        self.episodes.retain(|e| !e.what.ends_a_life_or_table());
        for _ in 0..rng.usize(1..5) {
            let (host, _) = self.some_path(rng);
            let what = Fault::Restart(host);
            let from = rng.u64(0..self.calm_at);
            let to = (from + some_time(rng, self.lease() / 2)).min(self.calm_at);
            self.episodes.push(Episode { from, to, what });
        }
        self.hold = self.lease() + self.lease() / 2;
        self.pause = self.lease() / 8;
        self.retry = self.lease() / 8;
    }

    /// Aims at this case: volumes move, drives leave the VG and are pulled out, all under held
    /// locks.
    fn aim_at_votes(&mut self, rng: &mut Rng) {
        let n = self.drives.len();
        self.moves = true;
        self.replaces = true;
        self.not_idm = None;
        self.locks = (0..rng.usize(1..=2))
            .map(|_| {
                let some = (0..rng.usize(1..=2)).map(|_| DriveIx::new(rng.usize(0..n)));
                LockPlan { keeps_value: false, layout: some.collect() }
            })
            .collect();
        for d in self.drives.ids() {
            let p = &mut self.drives[d].profile;
            p.sharers_admitted = true;
            p.limits.mutexes = p.limits.mutexes.max(self.locks.len());
        }
        self.stop_at += rng.u64(4..8) * self.lease();
        self.pause = self.lease() / 4;
        self.retry = self.lease() / 8;
        self.hold = self.lease();
    }

    /// Aims at this case: commands of one life arrive in the next one, which adopts from drives
    /// that hang.
    fn aim_at_restarts(&mut self, rng: &mut Rng) {
        self.one_lock(rng);
        self.not_idm = None;
        self.chances = Chances {
            reply_lost: rng.u16(0..3000),
            ghost: rng.u16(0..8000),
            slow: rng.u16(0..16_000),
            ..Chances::default()
        };
        self.episodes.clear();
        for _ in 0..rng.usize(1..5) {
            let (host, drive) = self.some_path(rng);
            let from = rng.u64(0..self.calm_at);
            let back = (from + some_time(rng, self.linger())).min(self.calm_at);
            self.episodes.push(Episode { from, to: back, what: Fault::Restart(host) });
            let to = (back + some_time(rng, self.lease() / 4)).min(self.calm_at);
            if rng.bool() {
                self.episodes.push(Episode { from, to, what: Fault::DriveDead(drive) });
            }
        }
        self.hurry(rng);
    }

    /// Aims at this case: a host's findings on a drive are older than a lease, and the drive has
    /// fallen silent for it, but not for other hosts, which move the volume meanwhile.
    fn aim_at_silence(&mut self, rng: &mut Rng) {
        let n = self.drives.len();
        self.moves = true;
        self.not_idm = None;
        let some = (0..rng.usize(1..=2)).map(|_| DriveIx::new(rng.usize(0..n)));
        let lock = LockPlan { keeps_value: false, layout: some.collect() };
        self.locks = [lock].into_iter().collect();
        for d in self.drives.ids() {
            let p = &mut self.drives[d].profile;
            p.sharers_admitted = true;
        }
        self.chances = Chances {
            unreachable: rng.u16(0..1000),
            reply_lost: rng.u16(0..1000),
            slow: rng.u16(0..2000),
            ..Chances::default()
        };
        self.episodes.clear();
        let lease = self.lease();
        for _ in 0..rng.usize(2..5) {
            let (host, _) = self.some_path(rng);
            let what = match rng.u8(0..8) {
                0..=3 => Fault::Restart(host),
                4 => Fault::Frozen(host),
                _ => Fault::Cut(host),
            };
            let from = rng.u64(0..self.calm_at);
            let to = (from + rng.u64(0..3 * lease)).min(self.calm_at);
            self.episodes.push(Episode { from, to, what });
        }
        for _ in 0..rng.usize(3..10) {
            let (host, drive) = self.some_path(rng);
            let from = rng.u64(0..self.calm_at);
            let to = (from + rng.u64(lease / 4..3 * lease)).min(self.calm_at);
            self.episodes.push(Episode { from, to, what: Fault::PathDown(host, drive) });
        }
        self.hurry(rng);
        self.hold = rng.u64(lease..4 * lease);
    }

    /// Aims at this case: a lock is taken and given back at once while other hosts take it, hold it
    /// or are dead. Each repair is a host of its own, which may be killed, and whose commands may
    /// be lost. (A value is removed without the lock's own rules only where the VG is gone.)
    fn aim_at_repairs(&mut self, rng: &mut Rng) {
        self.repairer = Some(HostIx::new(self.host_clocks.len() - 1));
        self.pause = rng.u64(self.lease() / 20..self.lease());
        self.retry = rng.u64(self.lease() / 8..self.lease() / 2);
    }

    /// One lock, on all drives.
    fn one_lock(&mut self, rng: &mut Rng) {
        let lock = LockPlan { keeps_value: rng.bool(), layout: self.all_drives() };
        self.locks = [lock].into_iter().collect();
    }

    /// Lets some hosts know few drives, and at least one host all drives.
    fn part_lists(&mut self, rng: &mut Rng) {
        let all = self.all_drives();
        let n = self.drives.len();
        self.lists_differ = true;
        self.not_idm = None;
        self.lists = PerHost::all(all);
        for h in self.host_clocks.ids().skip(1) {
            if h.get() == 1 || rng.bool() {
                let few = (0..rng.usize(1..=2)).map(|_| DriveIx::new(rng.usize(0..n)));
                self.lists[h] = few.collect();
            }
        }
    }

    fn some_path(&self, rng: &mut Rng) -> (HostIx, DriveIx) {
        let host = HostIx::new(rng.usize(0..self.host_clocks.len()));
        (host, DriveIx::new(rng.usize(0..self.drives.len())))
    }

    fn add_episode(&mut self, rng: &mut Rng, what: Fault) {
        let from = rng.u64(0..self.calm_at);
        let to = (from + some_time(rng, 2 * self.lease())).min(self.calm_at);
        self.episodes.push(Episode { from, to, what });
    }

    /// Lets callers make requests often, and hold a lock for a short time.
    fn hurry(&mut self, rng: &mut Rng) {
        let lease = self.lease();
        self.pause = rng.u64(lease / 50..lease / 4);
        self.retry = rng.u64(lease / 50..lease / 8);
        self.hold = rng.u64(lease / 50..lease);
    }
}

impl Fault {
    /// Whether a host dies, or a drive loses its table.
    fn ends_a_life_or_table(self) -> bool {
        matches!(self, Fault::Restart(_) | Fault::Reboot(_) | Fault::DriveReset(_))
    }
}
