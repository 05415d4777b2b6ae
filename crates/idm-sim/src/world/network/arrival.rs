//! The arrival of commands at their drives.

use super::FlightIx;
use crate::coverage::Count;
use crate::plan::WorldKind;
use crate::world::World;
use crate::world::agenda::What;
use crate::world::slots::{Caller, Side};
use crate::world::text::{CommandText, ReplyText, trace};
use idm_protocol::{DriveCommand, MutexOp, Reply, Status};

impl World {
    /// Lets a command arrive at its drive.
    pub(in crate::world) fn execute(&mut self, f: FlightIx, reply_after: Option<u32>) {
        let flight = &self.network.flights[f];
        let (s, d) = (flight.slot, flight.drive);
        let h = self.slots.host(s);
        if self.now() < self.hosts[h].frozen_until && flight.hold_back && reply_after.is_some() {
            // The host froze before it had sent the command.
            self.coverage.add(Count::HeldBack);
            let at = self.hosts[h].frozen_until + 1;
            self.push(at, What::Exec(f, reply_after));
            return;
        }
        let paths = self.network.paths[h];
        let cut_off = self.has_ended(f)
            || self.drives[d].gone > 0
            || self.drives[d].dead > 0
            || paths.cut > 0
            || paths.down.contains(d)
            || (paths.flaps.contains(d) && self.rng.bool());
        if cut_off {
            if reply_after.is_some() {
                let after = self.network.flights[f].timeout_at.saturating_sub(self.now());
                self.answer(f, Status::Uncertain, after);
            }
            self.network.drop_entry(f);
            return;
        }
        let got = self.perform(f);
        if let Some(after) = reply_after {
            self.network.flights[f].pending += 1;
            self.push(self.now() + u64::from(after), What::Reply(f));
        }
        self.network.drop_entry(f);
        if got {
            self.crash_asking(s);
        }
    }

    /// Whether a command has ended with its host's life: the kernel gives it up in time.
    fn has_ended(&self, f: FlightIx) -> bool {
        let flight = &self.network.flights[f];
        let h = self.slots.host(flight.slot);
        let death = self.hosts[h].deaths.get(flight.deaths);
        death.is_some_and(|&at| self.now() >= self.linger_from(h, at))
    }

    /// Lets the drive execute a command. Returns whether the host got the drive by it.
    fn perform(&mut self, f: FlightIx) -> bool {
        let (s, d) = (self.network.flights[f].slot, self.network.flights[f].drive);
        let at = self.drive_now(d);
        let users = self.users_of_another(s, d, &self.network.flights[f].command);
        let flight = &mut self.network.flights[f];
        let reply = self.drives[d].drive.perform(at, &flight.command);
        flight.executed = self.agenda.now();
        let good = reply == Reply::Status(Status::Good);
        if good && flight.ghost {
            self.coverage.add(Count::GhostHit);
        }
        let flight = &self.network.flights[f];
        let earlier = flight.deaths != self.hosts[self.slots.host(s)].deaths.len();
        if good && earlier {
            self.coverage.add(Count::EarlierHit);
        }
        let late = earlier || flight.ghost;
        self.note_execution_features(f, &reply, late);
        let flight = &self.network.flights[f];
        trace!(
            self,
            "{} at {d} {}: {}{}",
            self.name(s),
            CommandText(&flight.command),
            ReplyText(&reply),
            if flight.told { " (nobody will hear)" } else { "" }
        );
        self.observe_execution(f, s, d);
        self.require(self.check_removed(s, d, &users));
        // Only these commands change the holders of the mutex, and its value.
        if matches!(&self.network.flights[f].command,
            DriveCommand::Mutex(op, _) if *op != MutexOp::Refresh)
        {
            self.read_beside(s);
        }
        let met = self.conflicting_at(s, d);
        let flight = &mut self.network.flights[f];
        (flight.seen, flight.foreign) = met;
        self.set_reply(f, reply);
        if good {
            self.note_success(f);
        }
        good && self.network.flights[f].takes()
    }

    /// Decides the reply that a host will receive for its command.
    fn set_reply(&mut self, f: FlightIx, mut reply: Reply) {
        let (s, d) = (self.network.flights[f].slot, self.network.flights[f].drive);
        if self.plan.kind == WorldKind::Nonsense && !self.calm() && self.rng.u8(0..3) == 0 {
            self.coverage.add(Count::Nonsense);
            reply = self.nonsense(s);
        }
        if self.plan.nonsense.contains(d) && !self.calm() && self.rng.u8(0..3) == 0 {
            self.coverage.add(Count::Nonsense);
            self.network.flights[f].nonsense = true;
            reply = self.harmless_nonsense(&reply);
        }
        // A reply that was decided without the drive stays.
        let flight = &mut self.network.flights[f];
        if !flight.told {
            flight.reply = Some(reply);
        }
    }

    /// Notes the success of a host's command.
    fn note_success(&mut self, f: FlightIx) {
        let flight = &self.network.flights[f];
        let s = flight.slot;
        let (takes, breaks) = (flight.takes(), flight.is(MutexOp::Break));
        let slot = &mut self.slots[s];
        let adopts = matches!(slot.call.caller, Caller::Adopting(_));
        if takes && slot.legacy.usurped.is_some() && !adopts {
            slot.legacy.strayed = true;
        }
        if breaks && matches!(slot.engine.side, Side::Old(_)) {
            // The older stack leaves no trace of a break: afterwards no host can know that the
            // value is older than the dead holder's changes.
            let l = self.slots.lock(s);
            self.locks[l].muddled = true;
        }
        for other in self.slots.rivals(s) {
            if other != s && self.believes(other) {
                self.require(self.check_votes(other));
            }
        }
    }
}
