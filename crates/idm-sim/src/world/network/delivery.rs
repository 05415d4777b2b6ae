//! The arrival of replies at their hosts.

use super::{FlightIx, Ticket};
use crate::ids::HostSet;
use crate::world::World;
use crate::world::slots::Side;
use crate::world::text::{ReplyText, trace};
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, Status};

impl World {
    /// Lets a reply arrive at its host.
    pub(in crate::world) fn reply(&mut self, f: FlightIx) {
        let flight = &self.network.flights[f];
        let s = flight.slot;
        let h = self.slots.host(s);
        if !self.hosts[h].alive || flight.life != self.slots[s].engine.life {
            self.network.drop_entry(f);
            return;
        }
        if self.now() < self.hosts[h].frozen_until {
            self.hosts[h].deferred.push(f);
            return;
        }
        self.deliver(f);
    }

    /// Passes a reply to the engine that waits for it.
    pub(in crate::world) fn deliver(&mut self, f: FlightIx) {
        let flight = &mut self.network.flights[f];
        let (s, d, ticket) = (flight.slot, flight.drive, flight.ticket);
        if flight.answered || flight.life != self.slots[s].engine.life {
            self.network.drop_entry(f);
            return;
        }
        flight.answered = true;
        // A copy that is still to be executed needs the command, never the reply.
        let Some(reply) = flight.reply.take() else {
            self.network.drop_entry(f);
            return;
        };
        flight.reply = Some(Reply::Status(Status::Uncertain));
        trace!(self, "{} <- {d} {}", self.name(s), ReplyText(&reply));
        self.observe_reply(f, &reply);
        self.note_reply(f, &reply);
        self.note_reply_features(f, &reply);
        let now = self.local(self.slots.host(s));
        match (&mut self.slots[s].engine.side, ticket) {
            (Side::Engine(lock), Ticket::Engine(token)) => lock.on_reply(token, reply, now),
            (Side::Old(lock), _) => lock.on_reply(d.drive_ref(), &reply, now),
            (Side::Engine(_), Ticket::Old) => (),
        }
        self.network.drop_entry(f);
        self.settle(s);
    }

    /// Notes the knowledge that a reply gives to a host.
    fn note_reply(&mut self, f: FlightIx, reply: &Reply) {
        let flight = &self.network.flights[f];
        let (s, d) = (flight.slot, flight.drive);
        if let Reply::Table(records) = reply {
            let me = self.hosts[self.slots.host(s)].id;
            let alive =
                records.iter().any(|r| self.is_ours(s, r) && r.host != me && r.state.is_live());
            let cleared = &mut self.slots[s].seen.cleared;
            if alive {
                cleared.remove(d);
            } else {
                cleared.insert(d);
            }
        }
        if flight.nonsense || !is_definite(reply) {
            return;
        }
        // A conflict about another mutex, which is removed to make room, tells nothing of this one.
        let is_about_it =
            matches!(&flight.command, DriveCommand::Mutex(_, record) if self.is_ours(s, record));
        let takes = is_about_it && (flight.takes() || flight.is(MutexOp::Refresh));
        let slot = &mut self.slots[s];
        // A refused promotion may be due to other sharers as well as to a loss.
        let promotion = slot.engine.mode == Some(Mode::Shared)
            && matches!(&flight.command,
                DriveCommand::Mutex(MutexOp::Refresh, r) if r.class.mode() == Mode::Exclusive);
        let conflict = *reply == Reply::Status(Status::Conflict);
        if flight.executed > slot.seen.lost_at[d] && !(promotion && conflict) {
            slot.seen.lost.remove(d);
        }
        if flight.sent < slot.call.started {
            return;
        }
        let call = &slot.call;
        let asked = call.members | call.witnesses | call.target_set;
        let request = &mut slot.seen.request;
        request.met.insert(d);
        if !asked.contains(d) {
            // The lock is only given back there.
            return;
        }
        match reply {
            Reply::Status(Status::Conflict) if takes => request.conflicts[d] = flight.foreign,
            Reply::Status(Status::Terminated) if promotion => {
                request.conflicts[d] = flight.foreign;
            }
            Reply::Table(_) => {
                request.conflicts[d] = flight.foreign;
                request.knows = request.knows | flight.seen;
            }
            Reply::Status(Status::Good) => request.conflicts[d] = HostSet::EMPTY,
            Reply::Status(_) => (),
        }
    }
}

/// Whether a reply shows the drive's result.
fn is_definite(reply: &Reply) -> bool {
    !matches!(
        reply,
        Reply::Status(Status::Uncertain | Status::Failed | Status::Unreachable | Status::TryAgain)
    )
}
