//! Commands on their way to drives, and replies on their way back.

use super::*;

/// Every status but GOOD.
const BAD: [Status; 12] = [
    Status::Conflict,
    Status::Terminated,
    Status::NotFound,
    Status::Full(Limit::Mutexes),
    Status::Full(Limit::Hosts),
    Status::Full(Limit::HostsOfMutex),
    Status::WrongState,
    Status::TryAgain,
    Status::Unsupported,
    Status::Failed,
    Status::Unreachable,
    Status::Uncertain,
];

/// What becomes of one command.
enum Fate {
    Normal,
    Unreachable,
    Lost,
    ReplyLost,
    Ghost,
    Twice,
    TryAgain,
    Failed,
    Slow,
}

impl World {
    fn fate(&mut self) -> Fate {
        if self.calm() {
            return Fate::Normal;
        }
        let c = self.plan.chances;
        let mut draw = u32::from(self.rng.u16(..));
        for (chance, fate) in [
            (c.unreachable, Fate::Unreachable),
            (c.lost, Fate::Lost),
            (c.reply_lost, Fate::ReplyLost),
            (c.ghost, Fate::Ghost),
            (c.twice, Fate::Twice),
            (c.try_again, Fate::TryAgain),
            (c.failed, Fate::Failed),
            (c.slow, Fate::Slow),
        ] {
            if draw < u32::from(chance) {
                return fate;
            }
            draw -= u32::from(chance);
        }
        Fate::Normal
    }

    /// One way, one time.
    fn delay(&mut self, h: usize, d: usize) -> u64 {
        let base = u64::from(self.plan.delay[h][d]);
        let mut delay = base + self.rng.u64(0..=base);
        if self.drives[d].slow > 0 {
            delay += self.rng.u64(0..self.plan.timeout * 2);
        }
        delay
    }

    pub(super) fn send(&mut self, s: usize, ticket: Ticket, d: usize, command: DriveCommand) {
        let h = self.host_of(s);
        self.commands += 1;
        self.coverage.add(Count::Commands);
        if self.commands > STORM {
            fail!(
                self,
                "command storm",
                format_args!("{} commands, the last by {}", self.commands, self.name(s)),
            );
            return;
        }
        if let DriveCommand::Mutex(_, record) = &command {
            let ours = record.resource == self.locks[self.lock_of(s)].resource;
            if ours && matches!(self.slots[s].side, Side::Old(_)) {
                self.slots[s].set_mark = set_mark(record);
            }
        }
        if let (DriveCommand::Mutex(MutexOp::Break, record), Ticket::Engine(_)) = (&command, ticket)
        {
            let ours = record.resource == self.locks[self.lock_of(s)].resource;
            if ours && self.slots[s].cleared & (1 << d) == 0 {
                fail!(
                    self,
                    "only timed-out holders are broken",
                    format_args!("{} breaks on d{d}, where it saw a live holder", self.name(s))
                );
            }
        }
        // What follows the answer only tidies up, but for the UNLOCK that gives back what was got.
        let unlocks = matches!(command, DriveCommand::Mutex(MutexOp::Unlock, _));
        let asks = matches!(
            self.slots[s].caller,
            Caller::Acquiring | Caller::Adopting(_) | Caller::Converting(..)
        );
        if unlocks || asks {
            let sent = &mut self.slots[s].sent[d];
            *sent = sent.saturating_add(1);
        }
        self.note_undoing(h, &command);
        let there = self.delay(h, d);
        let back = self.delay(h, d);
        let timeout_at = self.now + self.plan.timeout;
        let flight = Flight {
            slot: s as u16,
            drive: d as u8,
            life: self.slots[s].life,
            generation: self.hosts[h].generation,
            ticket,
            command,
            reply: None,
            sent: self.now,
            timeout_at,
            executed: 0,
            pending: 0,
            answered: false,
            told: false,
            hold_back: self.rng.u8(0..4) == 0,
            ghost: false,
            seen: 0,
            foreign: 0,
            nonsense: false,
        };
        trace!(self, "{} -> d{d} {}", self.name(s), CommandText(&flight.command));
        let f = self.insert(flight);

        if self.plan.not_idm == Some(d as u8) {
            return self.answer(f, Status::Unsupported, there + back);
        }
        if self.drives[d].gone > 0 {
            return self.answer(f, Status::Unreachable, there);
        }
        let flaps = self.flaps[h] & (1 << d) != 0 && self.rng.u8(0..3) != 0;
        if flaps || self.cut[h] > 0 {
            let status = if self.rng.bool() { Status::Unreachable } else { Status::Uncertain };
            return self.answer(f, status, there);
        }
        let mut fate = self.fate();
        if self.drives[d].busy > 0 && self.rng.bool() {
            fate = Fate::TryAgain;
        }
        match fate {
            Fate::Normal => self.exchange(f, there, back),
            Fate::Unreachable => {
                self.coverage.add(Count::Unreachable);
                self.answer(f, Status::Unreachable, there);
            }
            Fate::TryAgain => {
                self.coverage.add(Count::TryAgain);
                self.answer(f, Status::TryAgain, there + back);
            }
            Fate::Lost => {
                self.coverage.add(Count::Lost);
                let after = self.give_up_after();
                self.answer(f, Status::Uncertain, after);
            }
            Fate::ReplyLost => {
                self.coverage.add(Count::ReplyLost);
                let after = self.give_up_after().max(there + 1);
                self.later(f, there, None);
                self.answer(f, Status::Uncertain, after);
            }
            Fate::Ghost => {
                self.coverage.add(Count::Ghost);
                let after = self.give_up_after();
                self.answer(f, Status::Uncertain, after);
                let reported = if self.is_old(h) { self.now } else { self.now + after };
                let latest = self.horizon(h, reported);
                let earliest = (self.now + after).min(latest - 1);
                let at = self.rng.u64(earliest..latest);
                self.flights[f].ghost = true;
                self.later(f, at - self.now, None);
            }
            Fate::Twice => {
                self.coverage.add(Count::Twice);
                let again = there + self.delay(h, d) + 1;
                if again + back < self.plan.timeout {
                    self.later(f, there, None);
                }
                self.exchange(f, again, back);
            }
            Fate::Failed => {
                self.coverage.add(Count::Failed);
                if self.rng.bool() {
                    self.later(f, there, None);
                }
                self.answer(f, Status::Failed, there + back);
            }
            Fate::Slow => {
                self.coverage.add(Count::Slow);
                let more = self.rng.u64(0..self.plan.timeout * 2);
                self.exchange(f, there + more, back);
            }
        }
    }

    /// Before a command leaves that can undo what a drive has, its host notes until when.
    fn note_undoing(&mut self, h: usize, command: &DriveCommand) {
        let DriveCommand::Mutex(op, record) = command else { return };
        let undoes = match op {
            MutexOp::Unlock | MutexOp::Destroy | MutexOp::Break => true,
            MutexOp::Refresh => record.class.mode() == Mode::Shared,
            MutexOp::Trylock | MutexOp::Lock | MutexOp::Init => false,
        };
        let until = self.local(h) + 2 * self.plan.timing.linger;
        if undoes && self.hosts[h].undone_until < until {
            // Not for every command anew.
            self.hosts[h].undone_until = until + self.plan.timing.lease / 60;
        }
    }

    /// Whether a command has ended with the life of its host: the kernel gives it up in time.
    fn has_died(&self, f: usize) -> bool {
        let flight = &self.flights[f];
        let h = self.host_of(usize::from(flight.slot));
        let host = &self.hosts[h];
        flight.generation != host.generation && self.now >= self.horizon(h, host.died_at)
    }

    /// When a command that is reported as uncertain can reach its drive no longer (fault budget).
    fn horizon(&self, h: usize, reported: u64) -> u64 {
        let clock = self.hosts[h].clock;
        let linger = self.plan.timing.linger.as_micros() as u64;
        clock.when(clock.at(reported) + linger) - 1
    }

    /// When a command whose answer does not come is given up: mostly when the transport's time is
    /// over, sometimes early, as an abort does.
    fn give_up_after(&mut self) -> u64 {
        if self.rng.bool() { self.plan.timeout } else { self.rng.u64(1..self.plan.timeout) }
    }

    /// The ordinary course: there and back again, if it is quick enough.
    fn exchange(&mut self, f: usize, there: u64, back: u64) {
        if there + back < self.plan.timeout {
            self.later(f, there, Some(back as u32));
            return;
        }
        self.coverage.add(Count::TimedOut);
        self.answer(f, Status::Uncertain, self.plan.timeout);
        let h = self.host_of(usize::from(self.flights[f].slot));
        // The older stack waits for its commands in the kernel, which ends them before it reports.
        let reported = if self.is_old(h) { self.now } else { self.now + self.plan.timeout };
        if self.now + there < self.horizon(h, reported) {
            self.flights[f].ghost = there > self.plan.timeout;
            self.later(f, there, None);
        }
    }

    fn insert(&mut self, flight: Flight) -> usize {
        match self.free.pop() {
            Some(f) => {
                self.flights[f as usize] = flight;
                f as usize
            }
            None => {
                self.flights.push(flight);
                self.flights.len() - 1
            }
        }
    }

    fn later(&mut self, f: usize, after: u64, reply_after: Option<u32>) {
        self.flights[f].pending += 1;
        self.push(self.now + after, What::Exec(f as u32, reply_after));
    }

    /// Answers without the drive.
    fn answer(&mut self, f: usize, status: Status, after: u64) {
        let flight = &mut self.flights[f];
        flight.pending += 1;
        flight.reply = Some(Reply::Status(status));
        flight.told = true;
        self.push(self.now + after, What::Reply(f as u32));
    }

    fn drop_entry(&mut self, f: usize) {
        self.flights[f].pending -= 1;
        if self.flights[f].pending == 0 {
            self.free.push(f as u32);
        }
    }

    pub(super) fn execute(&mut self, f: usize, reply_after: Option<u32>) {
        let flight = &self.flights[f];
        let (s, d) = (usize::from(flight.slot), usize::from(flight.drive));
        let h = self.host_of(s);
        if self.now < self.hosts[h].frozen_until && flight.hold_back && reply_after.is_some() {
            // The host froze before it had handed the command on.
            self.coverage.add(Count::HeldBack);
            let at = self.hosts[h].frozen_until + 1;
            self.push(at, What::Exec(f as u32, reply_after));
            return;
        }
        let cut_off = self.has_died(f)
            || self.drives[d].gone > 0
            || self.drives[d].dead > 0
            || self.cut[h] > 0
            || (self.flaps[h] & (1 << d) != 0 && self.rng.bool());
        if cut_off {
            if reply_after.is_some() {
                let after = self.flights[f].timeout_at.saturating_sub(self.now);
                self.answer(f, Status::Uncertain, after);
            }
            self.drop_entry(f);
            return;
        }
        let got = self.perform(f);
        if let Some(after) = reply_after {
            self.flights[f].pending += 1;
            self.push(self.now + u64::from(after), What::Reply(f as u32));
        }
        self.drop_entry(f);
        if got {
            self.crash_asking(s);
        }
    }

    /// The drive executes a command. Tells whether the host got the drive by it.
    fn perform(&mut self, f: usize) -> bool {
        let (s, d) = (usize::from(self.flights[f].slot), usize::from(self.flights[f].drive));
        let now = self.drive_now(d);
        let mut reply = self.drives[d].drive.perform(now, &self.flights[f].command);
        self.flights[f].executed = self.now;
        let good = reply == Reply::Status(Status::Good);
        if good && self.flights[f].generation != self.hosts[self.host_of(s)].generation {
            self.coverage.add(Count::EarlierHit);
        }
        if good && self.flights[f].ghost {
            self.coverage.add(Count::GhostHit);
        }
        trace!(
            self,
            "{} at d{d} {}: {}{}",
            self.name(s),
            CommandText(&self.flights[f].command),
            ReplyText(&reply),
            if self.flights[f].told { " (nobody will hear)" } else { "" }
        );
        (self.flights[f].seen, self.flights[f].foreign) = self.conflicting_at(s, d);
        if self.plan.kind == Kind::Nonsense && !self.calm() && self.rng.u8(0..3) == 0 {
            self.coverage.add(Count::Nonsense);
            reply = self.nonsense(s);
        }
        if self.plan.nonsense & (1 << d) != 0 && !self.calm() && self.rng.u8(0..3) == 0 {
            self.coverage.add(Count::Nonsense);
            self.flights[f].nonsense = true;
            reply = self.harmless_nonsense(&reply);
        }
        // A command whose fate is told without the drive keeps it.
        if !self.flights[f].told {
            self.flights[f].reply = Some(reply);
        }
        let takes = matches!(
            &self.flights[f].command,
            DriveCommand::Mutex(MutexOp::Trylock | MutexOp::Break, _)
        );
        let slot = &mut self.slots[s];
        if good && takes && slot.usurped.is_some() && !matches!(slot.caller, Caller::Adopting(_)) {
            slot.strayed = true;
        }
        let broke = matches!(&self.flights[f].command, DriveCommand::Mutex(MutexOp::Break, _));
        if good && broke && matches!(self.slots[s].side, Side::Old(_)) {
            // The older stack leaves no trace of a break: nobody can know any more that the value
            // is that of before the dead holder's changes.
            let l = self.lock_of(s);
            self.locks[l].muddled = true;
        }
        if good {
            for other in self.slots_of_lock(self.lock_of(s)) {
                if other != s && self.believes(other) {
                    self.check_votes(other);
                }
            }
        }
        good && takes
    }

    /// Other hosts that hold this slot's lock on the drive in a mode that conflicts with the one
    /// that it wants or has.
    fn conflicting_at(&self, s: usize, d: usize) -> (u8, u8) {
        let resource = &self.locks[self.lock_of(s)].resource;
        let now = self.drive_now(d);
        let (mut seen, mut foreign) = (0, 0);
        for (id, mode) in self.drives[d].drive.live_holders(now, resource) {
            if mode.compatible(self.slots[s].target) {
                continue;
            }
            for (h, host) in self.hosts.iter().enumerate() {
                if host.id == id && h != self.host_of(s) {
                    seen |= 1 << h;
                    let record = self.drives[d].drive.record(now, resource, &id);
                    let ours = Some(self.slots[s].set_mark);
                    if record.map(|r| set_mark(&r)) != ours {
                        foreign |= 1 << h;
                    }
                }
            }
        }
        (seen, foreign)
    }

    pub(super) fn reply(&mut self, f: usize) {
        let flight = &self.flights[f];
        let s = usize::from(flight.slot);
        let h = self.host_of(s);
        if !self.hosts[h].alive || flight.life != self.slots[s].life {
            self.drop_entry(f);
            return;
        }
        if self.now < self.hosts[h].frozen_until {
            self.hosts[h].deferred.push(f as u32);
            return;
        }
        self.deliver(f);
    }

    pub(super) fn deliver(&mut self, f: usize) {
        let flight = &mut self.flights[f];
        let s = usize::from(flight.slot);
        let d = usize::from(flight.drive);
        if flight.answered || flight.life != self.slots[s].life {
            self.drop_entry(f);
            return;
        }
        flight.answered = true;
        // A copy that is still to be executed needs the command, never the reply.
        let Some(reply) = flight.reply.take() else {
            self.drop_entry(f);
            return;
        };
        flight.reply = Some(Reply::Status(Status::Uncertain));
        let (ticket, executed, sent) = (flight.ticket, flight.executed, flight.sent);
        let (seen, foreign) = (flight.seen, flight.foreign);
        let takes = matches!(
            flight.command,
            DriveCommand::Mutex(MutexOp::Trylock | MutexOp::Break | MutexOp::Refresh, _)
        );
        let refreshes_to_exclusive = matches!(&flight.command,
            DriveCommand::Mutex(MutexOp::Refresh, r) if r.class.mode() == Mode::Exclusive);
        let definite = !flight.nonsense
            && !matches!(
                reply,
                Reply::Status(
                    Status::Uncertain | Status::Failed | Status::Unreachable | Status::TryAgain
                )
            );
        trace!(self, "{} <- d{d} {}", self.name(s), ReplyText(&reply));
        let h = self.host_of(s);
        let now = self.local(h);
        let resource = self.locks[self.lock_of(s)].resource;
        let slot = &mut self.slots[s];
        if let Reply::Table(records) = &reply {
            let me = self.hosts[h].id;
            let alive =
                records.iter().any(|r| r.resource == resource && r.host != me && r.state.is_live());
            slot.cleared = slot.cleared & !(1 << d) | u16::from(!alive) << d;
        }
        if definite {
            // A refused promotion may be due to others who share the lock as well as to a loss.
            let promotion = refreshes_to_exclusive && slot.mode == Some(Mode::Shared);
            let conflict = reply == Reply::Status(Status::Conflict);
            if executed > slot.lost_at[d] && !(promotion && conflict) {
                slot.lost &= !(1 << d);
            }
            if sent >= slot.started {
                slot.met |= 1 << d;
                match reply {
                    Reply::Status(Status::Conflict) if takes => slot.conflicts[d] = foreign,
                    Reply::Status(Status::Terminated) if promotion => slot.conflicts[d] = foreign,
                    Reply::Table(_) => {
                        slot.conflicts[d] = foreign;
                        slot.knows |= seen;
                    }
                    Reply::Status(Status::Good) => slot.conflicts[d] = 0,
                    Reply::Status(_) => (),
                }
            }
        }
        match (&mut slot.side, ticket) {
            (Side::Engine(lock), Ticket::Engine(token)) => lock.on_reply(token, reply, now),
            (Side::Old(lock), _) => lock.on_reply(DriveRef(d as u32), &reply, now),
            (Side::Engine(_), Ticket::Old) => (),
        }
        self.drop_entry(f);
        self.settle(s);
    }

    /// Anything that a reply may say but GOOD. A table that is none has been told from one by the
    /// transport. No protocol survives a drive that says GOOD, or shows another table, where that
    /// is not so: one drive would make a minority of the others a majority.
    fn harmless_nonsense(&mut self, reply: &Reply) -> Reply {
        match reply {
            Reply::Table(_) => Reply::Status(Status::Failed),
            Reply::Status(_) => Reply::Status(BAD[self.rng.usize(0..BAD.len())]),
        }
    }

    /// Anything that fits into a reply.
    fn nonsense(&mut self, s: usize) -> Reply {
        if self.rng.u8(0..3) > 0 {
            let status = BAD.get(self.rng.usize(0..=BAD.len())).unwrap_or(&Status::Good);
            return Reply::Status(*status);
        }
        let records = self.rng.usize(0..6);
        let table = (0..records).map(|_| self.nonsense_record(s)).collect();
        Reply::Table(table)
    }

    fn nonsense_record(&mut self, s: usize) -> Record {
        let rng = &mut self.rng;
        let l = s % self.locks.len();
        let mut metadata = [0; 64];
        if rng.bool() {
            rng.fill(&mut metadata);
        }
        let host = match rng.u8(0..4) {
            0 => self.hosts[s / self.locks.len()].id,
            1 => self.hosts[rng.usize(0..self.hosts.len())].id,
            2 => HostId::from_bytes([0; 32]),
            _ => host_id(rng.usize(0..8), rng.u8(0..16)),
        };
        const STATES: [u64; 8] = [0, 0x101, 0x102, 0x103, 0x104, 0xDEAD, 0x105, u64::MAX];
        Record {
            state: State::from_wire(STATES[rng.usize(0..STATES.len())]),
            modified_ms: rng.u64(..),
            countdown_ms: if rng.bool() { rng.u64(..) } else { 0 },
            class: Class::from_wire(rng.u64(0..4)),
            value_update: ValueUpdate::from_wire(rng.u8(..)),
            value: Value::new(rng.u64(..) >> 8).unwrap_or(Value::ZERO),
            resource: if rng.u8(0..4) > 0 {
                self.locks[l].resource
            } else {
                ResourceId::from_bytes([rng.u8(..); 64])
            },
            metadata,
            host,
        }
    }

    pub(super) fn drive_now(&self, d: usize) -> DriveTime {
        DriveTime::from_micros(self.drives[d].clock.at(self.now))
    }
}
