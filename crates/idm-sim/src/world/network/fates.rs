//! The fates of single commands.

use super::{FlightIx, Trip};
use crate::coverage::Count;
use crate::ids::{DriveIx, HostIx};
use crate::world::World;
use crate::world::agenda::What;
use idm_protocol::{Reply, Status};

/// The fate of one command.
pub(super) enum Fate {
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
    pub(super) fn fate(&mut self) -> Fate {
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

    /// Applies a fate to a command.
    pub(super) fn meet(&mut self, f: FlightIx, fate: Fate, trip: Trip) {
        match fate {
            Fate::Normal => self.exchange(f, trip),
            Fate::Unreachable => {
                self.coverage.add(Count::Unreachable);
                self.answer(f, Status::Unreachable, trip.there);
            }
            Fate::TryAgain => {
                self.coverage.add(Count::TryAgain);
                self.answer(f, Status::TryAgain, trip.there + trip.back);
            }
            Fate::Lost => {
                self.coverage.add(Count::Lost);
                let after = self.give_up_after();
                self.answer(f, Status::Uncertain, after);
            }
            Fate::ReplyLost => {
                self.coverage.add(Count::ReplyLost);
                let after = self.give_up_after().max(trip.there + 1);
                self.later(f, trip.there, None);
                self.answer(f, Status::Uncertain, after);
            }
            Fate::Ghost => self.haunt(f),
            Fate::Twice => {
                self.coverage.add(Count::Twice);
                let (h, d) = self.path_of(f);
                let again = trip.there + self.delay(h, d) + 1;
                if again + trip.back < self.plan.timeout {
                    self.later(f, trip.there, None);
                }
                self.exchange(f, Trip { there: again, ..trip });
            }
            Fate::Failed => {
                self.coverage.add(Count::Failed);
                if self.rng.bool() {
                    self.later(f, trip.there, None);
                }
                self.answer(f, Status::Failed, trip.there + trip.back);
            }
            Fate::Slow => {
                self.coverage.add(Count::Slow);
                let more = self.rng.u64(0..self.plan.timeout * 2);
                self.exchange(f, Trip { there: trip.there + more, ..trip });
            }
        }
    }

    /// Gives a command up that reaches its drive nevertheless.
    fn haunt(&mut self, f: FlightIx) {
        self.coverage.add(Count::Ghost);
        let after = self.give_up_after();
        self.answer(f, Status::Uncertain, after);
        let latest = self.horizon(f, self.now() + after);
        let earliest = (self.now() + after).min(latest - 1);
        let at = self.rng.u64(earliest..latest);
        self.network.flights[f].ghost = true;
        self.later(f, at - self.now(), None);
    }

    /// The moment after which a command that is reported as uncertain can no longer reach its drive
    /// (fault budget). The older stack waits for its commands in the kernel, which ends them before
    /// it reports.
    fn horizon(&self, f: FlightIx, reported: u64) -> u64 {
        let flight = &self.network.flights[f];
        let h = self.slots.host(flight.slot);
        self.linger_from(h, if self.is_old(h) { flight.sent } else { reported })
    }

    /// The last moment when a command that a host gave up at `from` may still reach a drive.
    pub(super) fn linger_from(&self, h: HostIx, from: u64) -> u64 {
        let clock = self.hosts[h].clock;
        clock.when(clock.at(from) + self.plan.linger()) - 1
    }

    fn path_of(&self, f: FlightIx) -> (HostIx, DriveIx) {
        let flight = &self.network.flights[f];
        (self.slots.host(flight.slot), flight.drive)
    }

    /// The time after which a command without an answer is given up: mostly the transport's
    /// timeout, sometimes less, as after an abort.
    fn give_up_after(&mut self) -> u64 {
        if self.rng.bool() { self.plan.timeout } else { self.rng.u64(1..self.plan.timeout) }
    }

    /// The ordinary course: to the drive and back, if it is quick enough.
    fn exchange(&mut self, f: FlightIx, trip: Trip) {
        if trip.there + trip.back < self.plan.timeout {
            self.later(f, trip.there, Some(trip.back as u32));
            return;
        }
        self.coverage.add(Count::TimedOut);
        self.answer(f, Status::Uncertain, self.plan.timeout);
        if self.now() + trip.there < self.horizon(f, self.now() + self.plan.timeout) {
            self.network.flights[f].ghost = trip.there > self.plan.timeout;
            self.later(f, trip.there, None);
        }
    }

    /// Lets a command reach its drive.
    fn later(&mut self, f: FlightIx, after: u64, reply_after: Option<u32>) {
        self.network.flights[f].pending += 1;
        self.push(self.now() + after, What::Exec(f, reply_after));
    }

    /// Answers without the drive.
    pub(super) fn answer(&mut self, f: FlightIx, status: Status, after: u64) {
        let flight = &mut self.network.flights[f];
        flight.pending += 1;
        flight.reply = Some(Reply::Status(status));
        flight.told = true;
        self.push(self.now() + after, What::Reply(f));
    }
}
