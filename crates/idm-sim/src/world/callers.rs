//! Callers: the requests of lvmlockd.

use super::World;
use super::agenda::What;
use super::observing::long;
use super::slots::{Caller, Legacy, NEVER, Side};
use super::text::trace;
use crate::coverage::Count;
use crate::ids::{DriveIx, DriveSet, HostIx, Ix, SlotIx};
use crate::observe::Tone;
use crate::plan::{log_uniform, some_time};
use idm_engine::{Fingerprint, Instant, Request};
use idm_protocol::{Mode, Value};

impl World {
    /// Lets a caller act later; an earlier plan of it is cancelled.
    pub(super) fn call_caller(&mut self, s: SlotIx, after: u64) {
        let call = &mut self.slots[s].call;
        call.stamp += 1;
        let stamp = call.stamp;
        if self.script.is_none() {
            self.push(self.now() + after, What::Caller(s, stamp));
        }
    }

    /// Lets a caller act.
    pub(super) fn caller(&mut self, s: SlotIx, stamp: u32) {
        let host = &self.hosts[self.slots.host(s)];
        if self.slots[s].call.stamp != stamp || !host.alive {
            return;
        }
        if self.now() < host.frozen_until {
            let after = host.frozen_until - self.now() + 1;
            self.call_caller(s, after);
            return;
        }
        match self.slots[s].call.caller {
            Caller::Idle => self.want(s),
            Caller::Holding => self.act(s),
            Caller::Dropping => self.release(s),
            // A refused adoption begins new leases, which must be over at the end.
            Caller::Adopting(_) if self.stopped => self.give_up_orphan(s),
            Caller::Adopting(tries) if self.may_give_up(s, tries) => self.give_up_orphan(s),
            Caller::Adopting(tries) => self.adopt(s, tries),
            Caller::Acquiring | Caller::Converting(..) | Caller::Finished => (),
        }
    }

    fn want(&mut self, s: SlotIx) {
        if self.stopped && !self.slots[s].call.lone {
            self.slots[s].call.caller = Caller::Finished;
            return;
        }
        let (h, l) = (self.slots.host(s), self.slots.lock(s));
        let idle = self.slots[s].engine.side.is_idle();
        self.slots[s].call.fresh = idle;
        let repairs = self.repairs(h);
        if idle && !self.is_old(h) && (self.rng.u8(0..8) == 0 || repairs) {
            // lvmlockd forgets an unused lock.
            self.coverage.add(Count::Dropped);
            let side = self.new_side(h, l);
            let engine = &mut self.slots[s].engine;
            engine.side = side;
            engine.life += 1;
            engine.timer_at = NEVER;
        }
        if !idle && self.is_old(h) {
            self.call_caller(s, 100_000);
            return;
        }
        if core::mem::take(&mut self.slots[s].call.count_checked) {
            self.require(self.check_count(s));
        }
        let wants_all = self.rng.u8(0..8) < 5 || repairs;
        let mode = if wants_all { Mode::Exclusive } else { Mode::Shared };
        self.contended |= self.slots.rivals(s).any(|o| {
            o != s && matches!(self.slots[o].call.caller, Caller::Acquiring | Caller::Holding)
        });
        self.acquire(s, mode);
    }

    /// Whether nothing uses an orphan any more: its LV was deactivated, or stopped because its
    /// lease is over.
    fn may_give_up(&self, s: SlotIx, tries: u8) -> bool {
        let tried = self.slots[s].call.started > self.hosts[self.slots.host(s)].died_at();
        tried && (tries == 0 || self.now() >= self.slots[s].legacy.safe_until)
    }

    /// Gives an orphan up, so that its lock is like any other.
    fn give_up_orphan(&mut self, s: SlotIx) {
        self.slots[s].legacy = Legacy::default();
        self.release(s);
    }

    /// Requests a lock.
    pub(super) fn acquire(&mut self, s: SlotIx, mode: Mode) {
        // The earlier life's record does not matter any more.
        self.slots[s].legacy = Legacy::default();
        let asked = self.drives_to_ask(s);
        self.slots[s].legacy.noted = asked.0;
        let (members, witnesses) = self.begin_acquire(s, mode, Caller::Acquiring, asked);
        self.expect_silence(s);
        self.ask(
            s,
            Request::Acquire { mode, members: members.members(), witnesses: witnesses.members() },
        );
    }

    /// Informs an engine, rightly or wrongly, which drives are slow.
    fn expect_silence(&mut self, s: SlotIx) {
        if self.script.is_some() || self.rng.u8(0..8) != 0 {
            return;
        }
        let slow = DriveSet::from_bits(self.rng.u16(0..=self.plan.all_drives().bits()));
        let slow: Vec<_> = slow.iter().map(DriveIx::drive_ref).collect();
        if let Side::Engine(lock) = &mut self.slots[s].engine.side {
            lock.expect_silence(&slow);
        }
    }

    /// Lets a restarted host adopt its earlier life's lock, on the noted drives.
    pub(super) fn adopt(&mut self, s: SlotIx, tries: u8) {
        if self.script.is_none() && self.rng.u8(0..4) == 0 && !self.asks_for_orphan(s) {
            return;
        }
        let mode = self.slots[s].call.target;
        let (layout, others) = self.drives_to_ask(s);
        let noted = self.slots[s].legacy.noted;
        let members = if noted.is_empty() { layout } else { noted };
        let witnesses = (layout | others) - members;
        let witnesses = if others.is_empty() { DriveSet::EMPTY } else { witnesses };
        let asked = (members, witnesses);
        let (members, witnesses) = self.begin_acquire(s, mode, Caller::Adopting(tries), asked);
        // The host has noted the time until which its locks are safe.
        let clock = self.hosts[self.slots.host(s)].clock;
        let legacy = &self.slots[s].legacy;
        let safe_until = Instant::from_micros(clock.at(legacy.noted_safe));
        // The note has the mode that was granted last.
        let granted = legacy.granted && legacy.orphan.is_some_and(|(left, _)| left == mode);
        let request = Request::Adopt {
            mode,
            safe_until: Some(safe_until),
            granted,
            members: members.members(),
            witnesses: witnesses.members(),
        };
        self.ask(s, request);
    }

    /// Lets a caller acquire an orphan like any lock, after a refused adoption. An engine refuses
    /// that: the LV may be active. Returns whether the orphan is still there.
    fn asks_for_orphan(&mut self, s: SlotIx) -> bool {
        let tried = self.slots[s].call.started > self.hosts[self.slots.host(s)].died_at();
        if !tried || self.slots[s].legacy.orphan.is_none() {
            return true;
        }
        let now = self.local(self.slots.host(s));
        let (members, witnesses) = self.drives_to_ask(s);
        let (members, witnesses) = (members.members(), witnesses.members());
        let request = Request::Acquire { mode: Mode::Exclusive, members, witnesses };
        let Side::Engine(lock) = &mut self.slots[s].engine.side else { return true };
        if lock.request(request, now).is_err() {
            return true;
        }
        self.slots[s].call.caller = Caller::Acquiring;
        self.slots[s].call.target = Mode::Exclusive;
        self.watch_request(s);
        self.settle(s);
        false
    }

    /// The drives that vote on a host's lock, and those to be read.
    fn drives_to_ask(&self, s: SlotIx) -> (DriveSet, DriveSet) {
        let lock = &self.locks[self.slots.lock(s)];
        let list = self.hosts[self.slots.host(s)].list;
        if lock.keeps_value || self.plan.lists_differ {
            (lock.layout & list, DriveSet::EMPTY)
        } else {
            (lock.layout, list - lock.layout)
        }
    }

    /// Notes the state at the beginning of an acquire or adopt; returns the drives that vote, and
    /// those to be read.
    fn begin_acquire(
        &mut self,
        s: SlotIx,
        mode: Mode,
        caller: Caller,
        (members, witnesses): (DriveSet, DriveSet),
    ) -> (DriveSet, DriveSet) {
        self.coverage.add(Count::Requests);
        let lock = &self.locks[self.slots.lock(s)];
        let floor = lock.published.max(lock.poison);
        let now = self.now();
        let slot = &mut self.slots[s];
        let call = &mut slot.call;
        call.caller = caller;
        call.stamp += 1;
        call.target = mode;
        call.target_set = DriveSet::EMPTY;
        call.votes_moved = matches!(caller, Caller::Adopting(_)) && !lock.keeps_value;
        call.members = members;
        call.witnesses = witnesses;
        call.started = now;
        call.floor = floor;
        slot.seen.lost = DriveSet::EMPTY;
        slot.begin_request();
        trace!(
            self,
            "{} {} {mode} on {members} reading {witnesses}",
            self.name(s),
            if caller == Caller::Acquiring { "acquire" } else { "adopt" },
        );
        let what = if caller == Caller::Acquiring { "asks for" } else { "adopts" };
        self.observe_request(s, format_args!("{what} {}", long(mode)));
        if matches!(self.slots[s].engine.side, Side::Engine(_)) {
            self.slots[s].seen.set_mark = Fingerprint::of(&members.members()).0;
        }
        (members, witnesses)
    }

    fn ask(&mut self, s: SlotIx, request: Request) {
        let now = self.local(self.slots.host(s));
        let mode = self.slots[s].call.target;
        let taken = match &mut self.slots[s].engine.side {
            Side::Engine(lock) => lock.request(request, now),
            Side::Old(lock) => {
                lock.acquire(mode, now);
                Ok(())
            }
        };
        if self.require(self.check_taken(s, "acquire", taken)) {
            self.watch_request(s);
            self.settle(s);
        }
    }

    /// Plans the check that a request is answered in time.
    fn watch_request(&mut self, s: SlotIx) {
        let patience = self.plan.patience();
        let bound = patience + patience / 100 + 2 * self.plan.lateness + 1000;
        let stamp = self.slots[s].call.stamp;
        self.push(self.now() + bound, What::Overdue(s, stamp));
    }

    /// Checks that a request has been answered by now.
    pub(super) fn overdue(&mut self, s: SlotIx, stamp: u32) {
        let h = self.slots.host(s);
        let call = &self.slots[s].call;
        if call.stamp != stamp || !self.hosts[h].alive || self.is_old(h) || !call.caller.waits() {
            return;
        }
        let frozen_until = self.hosts[h].frozen_until;
        if self.now() <= frozen_until {
            self.push(frozen_until + self.plan.lateness + 2000, What::Overdue(s, stamp));
            return;
        }
        let violation = self.overdue_violation(s);
        self.fail(violation);
    }

    fn act(&mut self, s: SlotIx) {
        let h = self.slots.host(s);
        if self.is_old(h) || self.repairs(h) || self.stopped {
            self.release(s);
            return;
        }
        let held = self.slots[s].engine.mode;
        match self.rng.u8(0..16) {
            0..=4 if held.is_some() => self.convert(s),
            5..=9
                if self.plan.moves
                    && held.is_some()
                    && !self.locks[self.slots.lock(s)].keeps_value
                    && self.believes(s) =>
            {
                self.spread(s);
            }
            _ => self.release(s),
        }
    }

    /// The value to publish, if the caller changed something under the lock. If the lock is no
    /// longer safe, it is not known whether the value is stored, but earlier changes have happened.
    fn new_value(&mut self, s: SlotIx) -> Option<Value> {
        if !self.slots[s].call.dirty {
            return None;
        }
        if !self.believes(s) {
            self.poison(s);
        }
        let l = self.slots.lock(s);
        Some(self.locks[l].issue())
    }

    fn convert(&mut self, s: SlotIx) {
        self.coverage.add(Count::Requests);
        let mode = match self.slots[s].engine.mode {
            Some(Mode::Exclusive) => Mode::Shared,
            _ => Mode::Exclusive,
        };
        let value = self.new_value(s);
        self.touch(s);
        let started = self.now();
        let slot = &mut self.slots[s];
        slot.call.caller = Caller::Converting(mode, value);
        slot.call.stamp += 1;
        slot.call.target = mode;
        slot.call.started = started;
        slot.begin_request();
        self.observe_request(s, format_args!("converts to {}", long(mode)));
        trace!(self, "{} convert to {mode} value {value:?}", self.name(s));
        let now = self.local(self.slots.host(s));
        let taken = match &mut self.slots[s].engine.side {
            Side::Engine(lock) => lock.request(Request::Convert { mode, value }, now),
            Side::Old(_) => Ok(()),
        };
        if self.require(self.check_taken(s, "convert", taken)) {
            self.watch_request(s);
            self.settle(s);
        }
    }

    /// Gives a lock back, whatever its state.
    pub(super) fn release(&mut self, s: SlotIx) {
        self.coverage.add(Count::Released);
        let believed = self.believes(s);
        let value = self.new_value(s);
        let slot = &mut self.slots[s];
        // Either nothing changed, or this publishes everything.
        slot.call.dirty = false;
        slot.call.caller = Caller::Dropping;
        slot.begin_request();
        self.observe_answer(s, Tone::Plain, format_args!("releases"));
        trace!(self, "{} release value {value:?}", self.name(s));
        let now = self.local(self.slots.host(s));
        let slot = &mut self.slots[s];
        let taken = match &mut slot.engine.side {
            Side::Engine(lock) => lock.request(Request::Release { value }, now),
            Side::Old(lock) => {
                lock.release(value);
                slot.call.caller = Caller::Idle;
                Ok(())
            }
        };
        if !self.require(self.check_taken(s, "release", taken)) {
            return;
        }
        self.settle(s);
        if !self.require(self.check_released(s)) {
            return;
        }
        if let Some(value) = value.filter(|_| believed) {
            self.publish(s, value);
        }
        let pause = if self.settled() { self.plan.pause / 4 } else { self.plan.pause };
        let after = some_time(&mut self.rng, pause);
        self.call_caller(s, after);
    }

    /// Ends all requests, and lets callers give back their locks.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        trace!(self, "callers give back what they hold");
        for s in self.slots.ids() {
            if self.slots[s].call.caller == Caller::Holding {
                let after = log_uniform(&mut self.rng, 100_000);
                self.call_caller(s, after);
            }
        }
        let lease = self.plan.lease();
        let after = 2 * self.plan.patience() + lease + lease / 8 + 2 * self.plan.linger();
        self.push(self.now() + after, What::Idle);
    }

    /// Lets a host request each lock once more, long after the last request.
    pub(super) fn ask_alone(&mut self) {
        if !self.require(self.check_idle()) {
            return;
        }
        for l in self.locks.ids() {
            let h = HostIx::new(self.rng.usize(0..self.hosts.len() - self.plan.old_hosts));
            let s = self.slots.at(h, l);
            let (members, _) = self.drives_to_ask(s);
            if self.hosts[h].alive && !members.is_empty() {
                self.slots[s].call.caller = Caller::Idle;
                self.slots[s].call.lone = true;
                self.call_caller(s, 0);
            }
        }
        self.push(self.now() + 2 * self.plan.patience(), What::Finish);
    }
}
