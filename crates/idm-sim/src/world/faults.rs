//! Faults that last: drives, paths and hosts that fail and come back.

use super::*;

impl World {
    pub(super) fn trouble(&mut self, e: usize, begins: bool) {
        if begins {
            self.aim(e);
        }
        let what = self.plan.episodes[e].what;
        let until = self.plan.episodes[e].to;
        trace!(self, "{} {what:?}", if begins { "begins" } else { "ends" });
        let step = |level: &mut u8| {
            if begins {
                *level += 1;
            } else {
                *level -= 1;
            }
        };
        match what {
            Trouble::DriveGone(d) => {
                self.count_beginning(begins, Count::DriveDown);
                step(&mut self.drives[usize::from(d)].gone);
            }
            Trouble::DriveDead(d) => {
                self.count_beginning(begins, Count::DriveDown);
                step(&mut self.drives[usize::from(d)].dead);
            }
            Trouble::DriveSlow(d) => {
                self.count_beginning(begins, Count::DriveSlow);
                step(&mut self.drives[usize::from(d)].slow);
            }
            Trouble::DriveBusy(d) => {
                self.count_beginning(begins, Count::DriveSlow);
                step(&mut self.drives[usize::from(d)].busy);
            }
            Trouble::DriveFull(d) => {
                self.count_beginning(begins, Count::DriveFull);
                if begins {
                    self.fill(usize::from(d));
                } else {
                    self.empty(usize::from(d));
                }
            }
            Trouble::DriveReset(d) => {
                if begins {
                    self.reset(usize::from(d));
                }
            }
            Trouble::PathFlaps(h, d) => {
                self.count_beginning(begins, Count::PathFlaps);
                self.flaps[usize::from(h)] |= 1 << d;
                if !begins {
                    self.flaps[usize::from(h)] &= !(1 << d);
                }
            }
            Trouble::Cut(h) => {
                self.count_beginning(begins, Count::Cut);
                step(&mut self.cut[usize::from(h)]);
            }
            Trouble::Frozen(h) if begins => self.freeze(usize::from(h), until),
            Trouble::Restart(h) if begins && self.rng.u8(0..3) == 0 => {
                self.hosts[usize::from(h)].doomed_until = Some(until);
                if self.rng.bool() {
                    self.halve(usize::from(h));
                }
            }
            Trouble::Restart(h) if begins => self.crash(usize::from(h), until, false),
            Trouble::Restart(h) => self.hosts[usize::from(h)].doomed_until = None,
            Trouble::Reboot(h) if begins => self.crash(usize::from(h), until, true),
            Trouble::Frozen(_) | Trouble::Reboot(_) => (),
        }
    }

    /// A host that holds a lock is the one to be hit, mostly.
    fn aim(&mut self, e: usize) {
        let hosts = self.hosts.len() - self.plan.old_hosts;
        let first = self.rng.usize(0..hosts);
        let locks = self.locks.len();
        let holder = (0..hosts)
            .map(|i| (first + i) % hosts)
            .find(|&h| (h * locks..(h + 1) * locks).any(|s| self.believes(s)));
        let Some(holder) = holder.filter(|_| self.rng.u8(0..4) != 0) else {
            return;
        };
        match &mut self.plan.episodes[e].what {
            Trouble::Cut(h) | Trouble::Frozen(h) | Trouble::Restart(h) | Trouble::Reboot(h) => {
                *h = holder as u8;
            }
            _ => (),
        }
    }

    fn count_beginning(&mut self, begins: bool, what: Count) {
        if begins {
            self.coverage.add(what);
        }
    }

    /// Loses a drive's table, if the budget allows it.
    fn reset(&mut self, d: usize) {
        let beyond = self.plan.kind == Kind::Beyond;
        if !beyond && (0..self.slots.len()).any(|s| self.reset_would_break(s, d)) {
            self.coverage.add(Count::ResetPutOff);
            return;
        }
        let mut held = false;
        for s in 0..self.slots.len() {
            if self.slots[s].members & (1 << d) != 0 && self.has_record(s, d) {
                held |= self.believes(s);
                self.slots[s].lost |= 1 << d;
                self.slots[s].lost_at[d] = self.now;
            }
        }
        self.drives[d].drive.reset();
        self.drives[d].reset_at = self.now;
        self.drives[d].strangers.clear();
        trace!(self, "d{d} loses its table");
        self.coverage.add(match (beyond, held) {
            (true, _) => Count::ResetBeyond,
            (false, true) => Count::ResetHeld,
            (false, false) => Count::ResetInBudget,
        });
        if beyond {
            for s in 0..self.slots.len() {
                let needed = keep_quorum(count(self.slots[s].members));
                if self.believes(s) && self.votes(s) < needed {
                    self.coverage.add(Count::LossBeyond);
                    self.expect_notice(s);
                }
            }
        }
    }

    /// Whether a host that has the drive's vote would be left without a keep-quorum of votes
    /// that are real: what no majority protocol survives.
    fn reset_would_break(&self, s: usize, d: usize) -> bool {
        let slot = &self.slots[s];
        let asks = matches!(slot.caller, Caller::Acquiring | Caller::Adopting(_));
        let busy = slot.mode.is_some() || slot.orphan.is_some() || asks;
        if !busy || slot.members & (1 << d) == 0 || !self.has_record(s, d) {
            return false;
        }
        // What a drive that answers nonsense has is of no use to the host.
        let sane = |o: usize| self.plan.nonsense & (1 << o) == 0;
        let stands = |o| match slot.mode.or(slot.orphan.map(|(mode, _)| mode)) {
            Some(_) => {
                let left = slot.mode.is_some() || slot.left_on & (1u16 << o) != 0;
                left && self.has_vote(s, o)
            }
            None => self.has_record(s, o),
        };
        let others = bits(slot.members).filter(|&o| o != d && sane(o) && stands(o)).count();
        others < keep_quorum(count(slot.members))
    }

    pub(super) fn has_record(&self, s: usize, d: usize) -> bool {
        let resource = &self.locks[self.lock_of(s)].resource;
        let id = self.hosts[self.host_of(s)].id;
        self.drives[d].drive.live_holders(self.drive_now(d), resource).any(|(host, _)| host == id)
    }

    /// Fills a drive's table with mutexes of strangers: unlocked, live and timed out ones.
    fn fill(&mut self, d: usize) {
        for n in 0..64u8 {
            let host = HostId::from_bytes([0xE0 + n % 8; 32]);
            let resource = ResourceId::from_bytes([0x80 + n; 64]);
            let lease_ms = [1, 3_600_000][usize::from(n % 2)];
            let record = stranger(host, resource, lease_ms);
            let now = self.drive_now(d);
            let drive = &mut self.drives[d].drive;
            let reply = drive.perform(now, &DriveCommand::Mutex(MutexOp::Trylock, record.clone()));
            if reply != Reply::Status(Status::Good) {
                break;
            }
            self.drives[d].strangers.push((host, resource));
            if n % 3 == 0 {
                let drive = &mut self.drives[d].drive;
                drive.perform(now, &DriveCommand::Mutex(MutexOp::Unlock, record));
            }
        }
    }

    fn empty(&mut self, d: usize) {
        let now = self.drive_now(d);
        let strangers = core::mem::take(&mut self.drives[d].strangers);
        for (host, resource) in strangers {
            let record = stranger(host, resource, 1);
            let drive = &mut self.drives[d].drive;
            drive.perform(now, &DriveCommand::Mutex(MutexOp::Unlock, record.clone()));
            drive.perform(now, &DriveCommand::Mutex(MutexOp::Destroy, record));
        }
    }

    fn freeze(&mut self, h: usize, until: u64) {
        if !self.hosts[h].alive || self.now < self.hosts[h].frozen_until {
            return;
        }
        self.coverage.add(Count::Frozen);
        for l in 0..self.locks.len() {
            let s = h * self.locks.len() + l;
            if self.believes(s) && self.slots[s].until < until {
                self.coverage.add(Count::FrozenHolding);
            }
        }
        self.hosts[h].frozen_until = until;
        self.push(until, What::Thaw(h as u8));
    }

    pub(super) fn thaw(&mut self, h: usize) {
        trace!(self, "host {h} thaws");
        let mut deferred = core::mem::take(&mut self.hosts[h].deferred);
        self.rng.shuffle(&mut deferred);
        let timers_first = self.rng.bool();
        if timers_first {
            self.timers(h);
        }
        for f in deferred.drain(..) {
            if self.failure.is_none() {
                self.deliver(f as usize);
            }
        }
        self.hosts[h].deferred = deferred;
        if !timers_first && self.failure.is_none() {
            self.timers(h);
        }
    }

    fn timers(&mut self, h: usize) {
        for l in 0..self.locks.len() {
            self.run_timer(h * self.locks.len() + l);
        }
    }

    /// Half of a holder's drives lose their tables, where that leaves it enough to keep the lock.
    /// A host that is to die takes them first, and comes back soon: it must not pass for another
    /// keeper of the same lock.
    fn halve(&mut self, h: usize) {
        let free = |s: &usize| self.slots[*s].caller == Caller::Idle;
        let slots = h * self.locks.len()..(h + 1) * self.locks.len();
        let Some(s) = slots.filter(|_| self.hosts[h].alive).find(free) else { return };
        let mut others = self.slots_of_lock(self.lock_of(s));
        let Some(holder) = others.find(|&o| self.believes(o)) else { return };
        let members = self.slots[holder].members;
        for d in bits(members).take(count(members) / 2) {
            self.reset(d);
        }
        let soon = log_uniform(&mut self.rng, self.plan.timing.renew.as_micros() as u64);
        self.hosts[h].doomed_until = Some(self.now + soon);
        self.call_caller(s, 0);
    }

    /// A host dies in the middle of an acquire, where it has got some drives: half of them, if
    /// their number is even.
    pub(super) fn crash_asking(&mut self, s: usize) {
        let h = self.host_of(s);
        let asks = self.slots[s].caller == Caller::Acquiring;
        let Some(until) = self.hosts[h].doomed_until.filter(|_| asks) else { return };
        let members = self.slots[s].members;
        let got = bits(members).filter(|&d| self.has_record(s, d)).count();
        let even = count(members) % 2 == 0;
        if (even && 2 * got == count(members)) || (!even && self.rng.bool()) {
            self.hosts[h].doomed_until = None;
            self.coverage.add(Count::CrashedAsking);
            self.crash(h, until, false);
        }
    }

    /// A host's engine is gone; its records stay.
    fn crash(&mut self, h: usize, until: u64, renamed: bool) {
        if !self.hosts[h].alive || self.now < self.hosts[h].frozen_until {
            return;
        }
        self.coverage.add(Count::Crashed);
        self.hosts[h].alive = false;
        self.hosts[h].generation += 1;
        self.hosts[h].died_at = self.now;
        for l in 0..self.locks.len() {
            let s = h * self.locks.len() + l;
            if self.slots[s].mode.is_some() {
                self.coverage.add(Count::CrashedHolding);
                self.tenure_ends(s);
            }
            self.poison(s);
            let side = self.new_side(h, l);
            let slot = &mut self.slots[s];
            let (stamp, life) = (slot.stamp + 1, slot.life + 1);
            let probing = slot.probing;
            let changing = matches!(slot.caller, Caller::Converting(..));
            let orphan = slot.mode.map(|mode| (mode, changing)).or(slot.orphan);
            let left = (orphan, slot.usurped, slot.strayed, slot.members);
            let again = slot.orphan.is_some();
            let still_on = slot.left_on;
            *slot = Slot::new(side);
            if orphan.is_some() && !renamed {
                (slot.orphan, slot.usurped, slot.strayed, slot.members) = left;
                let there = bits(left.3).filter(|&d| self.has_record(s, d));
                let left_on = there.fold(0, |set, d| set | 1 << d);
                self.slots[s].left_on = if again { left_on & still_on } else { left_on };
            }
            let slot = &mut self.slots[s];
            slot.stamp = stamp;
            slot.life = life;
            slot.probing = probing;
        }
        self.push(until, What::Return(h as u8, renamed));
    }

    pub(super) fn come_back(&mut self, h: usize, renamed: bool) {
        trace!(self, "host {h} is back{}", if renamed { " under a new name" } else { "" });
        self.coverage.add(if renamed { Count::Rebooted } else { Count::Restarted });
        self.hosts[h].alive = true;
        let surely = self.local(h) + self.plan.timing.linger;
        let noted = self.hosts[h].undone_until;
        let lost = self.rng.u8(0..8) == 0;
        self.hosts[h].earlier_until = if lost { surely } else { surely.min(noted) };
        if renamed {
            self.hosts[h].lives += 1;
            self.hosts[h].id = host_id(h, self.hosts[h].lives);
            self.hosts[h].earlier_until = Instant::default();
        }
        for l in 0..self.locks.len() {
            let s = h * self.locks.len() + l;
            let side = self.new_side(h, l);
            self.slots[s].side = side;
            let mut after = some_time(&mut self.rng, self.plan.pause);
            if !renamed && self.rng.u8(0..4) > 0 {
                let (was, _) = self.slots[s].orphan.unwrap_or((Mode::Exclusive, false));
                let other = self.rng.u8(0..8) == 0;
                let shared = (was == Mode::Shared) != other;
                self.slots[s].target = if shared { Mode::Shared } else { Mode::Exclusive };
                self.slots[s].caller = Caller::Adopting(self.rng.u8(0..8));
                after = log_uniform(&mut self.rng, self.plan.pause);
            }
            self.call_caller(s, after);
        }
    }
}

fn stranger(host: HostId, resource: ResourceId, lease_ms: u64) -> Record {
    Record {
        state: State::Uninitialized,
        modified_ms: 0,
        countdown_ms: lease_ms,
        class: Class::Exclusive,
        value_update: ValueUpdate::Keep,
        value: Value::ZERO,
        resource,
        metadata: [0; 64],
        host,
    }
}
