//! The departure of commands from their hosts.

use super::fates::Fate;
use super::{Flight, FlightIx, Ticket, Trip};
use crate::coverage::Count;
use crate::ids::{DriveIx, HostIx, HostSet, SlotIx};
use crate::world::World;
use crate::world::slots::set_mark;
use crate::world::text::{CommandText, trace};
use idm_engine::Undoes;
use idm_protocol::{DriveCommand, MutexOp, Record, Status};

impl World {
    /// Passes a command of an engine to the network.
    pub(in crate::world) fn send(
        &mut self,
        s: SlotIx,
        ticket: Ticket,
        d: DriveIx,
        command: DriveCommand,
    ) {
        self.network.commands += 1;
        self.coverage.add(Count::Commands);
        if let Err(violation) = self.check_storm(s) {
            return self.fail(violation);
        }
        self.note_command(s, d, &command);
        if matches!(ticket, Ticket::Engine(_)) {
            self.require(self.check_break(s, d, &command));
        }
        let h = self.slots.host(s);
        let trip = Trip { there: self.delay(h, d), back: self.delay(h, d) };
        let flight = Flight {
            slot: s,
            drive: d,
            life: self.slots[s].engine.life,
            deaths: self.hosts[h].deaths.len(),
            ticket,
            command,
            reply: None,
            sent: self.now(),
            timeout_at: self.now() + self.plan.timeout,
            executed: 0,
            pending: 0,
            answered: false,
            told: false,
            hold_back: self.rng.u8(0..4) == 0,
            ghost: false,
            seen: HostSet::EMPTY,
            foreign: HostSet::EMPTY,
            nonsense: false,
        };
        trace!(self, "{} -> {d} {}", self.name(s), CommandText(&flight.command));
        let f = self.network.insert(flight);
        self.observe_command(f);
        self.dispatch(f, h, d, trip);
    }

    /// Notes the facts that a command shows about its engine.
    fn note_command(&mut self, s: SlotIx, d: DriveIx, command: &DriveCommand) {
        if let DriveCommand::Mutex(_, record) = command {
            if self.is_ours(s, record) && self.is_old(self.slots.host(s)) {
                self.slots[s].seen.set_mark = set_mark(record);
            }
        }
        // Later commands only tidy up, except the UNLOCK that gives a won drive back.
        let unlocks = matches!(command, DriveCommand::Mutex(MutexOp::Unlock, _));
        let slot = &mut self.slots[s];
        slot.seen.request.breaks |= matches!(command, DriveCommand::Mutex(MutexOp::Break, _));
        if unlocks || slot.call.caller.waits() {
            let sent = &mut slot.seen.request.sent[d];
            *sent = sent.saturating_add(1);
        }
    }

    /// Lets a host note, before a command with `undoes` leaves, the time until which the command
    /// may undo a lock.
    pub(in crate::world) fn note_undoing(&mut self, h: HostIx, undoes: Undoes) {
        let until = self.local(h) + 2 * self.plan.timing.linger;
        let noted = match undoes {
            Undoes::Nothing => return,
            Undoes::Exclusive => &mut self.hosts[h].shares_until,
            Undoes::Any => &mut self.hosts[h].undoes_until,
        };
        if *noted < until {
            // Not anew for every command.
            *noted = until + self.plan.timing.lease / 60;
        }
    }

    /// Whether a record belongs to the slot's lock.
    pub(in crate::world) fn is_ours(&self, s: SlotIx, record: &Record) -> bool {
        record.resource == self.locks[self.slots.lock(s)].resource
    }

    /// The travel time of one way.
    pub(super) fn delay(&mut self, h: HostIx, d: DriveIx) -> u64 {
        let base = u64::from(self.plan.delay[h][d]);
        let mut delay = base + self.rng.u64(0..=base);
        if self.drives[d].slow > 0 {
            delay += self.rng.u64(0..self.plan.timeout * 2);
        }
        delay
    }

    /// Sends a command, unless a lasting fault prevents it.
    fn dispatch(&mut self, f: FlightIx, h: HostIx, d: DriveIx, trip: Trip) {
        if self.plan.not_idm == Some(d) {
            return self.answer(f, Status::Unsupported, trip.there + trip.back);
        }
        if self.drives[d].gone > 0 {
            return self.answer(f, Status::Unreachable, trip.there);
        }
        let paths = self.network.paths[h];
        let flaps = paths.flaps.contains(d) && self.rng.u8(0..3) != 0;
        if flaps || paths.down.contains(d) || paths.cut > 0 {
            let status = if self.rng.bool() { Status::Unreachable } else { Status::Uncertain };
            return self.answer(f, status, trip.there);
        }
        let mut fate = self.fate();
        if self.drives[d].busy > 0 && self.rng.bool() {
            fate = Fate::TryAgain;
        }
        self.meet(f, fate, trip);
    }
}
