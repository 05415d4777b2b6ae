//! Commands on their way to drives, and replies on their way back.

mod arrival;
mod delivery;
mod fates;
mod sending;

use crate::ids::{DriveIx, DriveSet, HostSet, Ix, PerHost, SlotIx, Table};
use idm_engine::Token;
use idm_protocol::{Class, DriveCommand, Mode, MutexOp, Reply};

/// A command on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlightIx(u32);

impl Ix for FlightIx {
    fn new(i: usize) -> FlightIx {
        FlightIx(i as u32)
    }

    fn get(self) -> usize {
        self.0 as usize
    }
}

/// The receiver of a command's reply.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ticket {
    Engine(Token),
    Old,
}

#[derive(Debug)]
struct Flight {
    slot: SlotIx,
    drive: DriveIx,
    life: u32,
    /// The number of its host's deaths when it was sent.
    deaths: usize,
    ticket: Ticket,
    command: DriveCommand,
    reply: Option<Reply>,
    sent: u64,
    timeout_at: u64,
    executed: u64,
    /// The number of agenda entries for it.
    pending: u8,
    answered: bool,
    /// Whether its reply is decided, whatever the drive does.
    told: bool,
    /// Whether a frozen host has not yet sent it.
    hold_back: bool,
    /// Whether it was reported as uncertain before it was executed.
    ghost: bool,
    /// Other hosts that the reply shows as holders in a conflicting mode, and those of them whose
    /// record names another set of drives.
    seen: HostSet,
    foreign: HostSet,
    /// Whether its reply differs from the drive's result.
    nonsense: bool,
}

impl Flight {
    /// Whether GOOD gives the host the drive.
    fn takes(&self) -> bool {
        matches!(self.command, DriveCommand::Mutex(MutexOp::Trylock | MutexOp::Break, _))
    }

    /// Whether GOOD leaves the host with a shared record.
    fn demotes(&self) -> bool {
        matches!(&self.command,
            DriveCommand::Mutex(MutexOp::Refresh | MutexOp::Break, record)
                if record.class == Class::from(Mode::Shared))
    }

    fn is(&self, wanted: MutexOp) -> bool {
        matches!(&self.command, DriveCommand::Mutex(op, _) if *op == wanted)
    }
}

/// The state of a host's paths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paths {
    /// Drives whose path fails and comes back.
    pub(super) flaps: DriveSet,
    /// Drives to which there is no path.
    pub(super) down: DriveSet,
    /// The number of faults that cut the host off from all drives.
    pub(super) cut: u8,
}

const SOUND: Paths = Paths { flaps: DriveSet::EMPTY, down: DriveSet::EMPTY, cut: 0 };

/// All commands on their way, and the paths that they take.
#[derive(Debug)]
pub(super) struct Network {
    flights: Table<FlightIx, Flight>,
    free: Vec<FlightIx>,
    pub(super) paths: PerHost<Paths>,
    pub(super) commands: u64,
}

impl Network {
    pub(super) fn new() -> Network {
        Network { flights: Table::new(), free: Vec::new(), paths: PerHost::all(SOUND), commands: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.flights.clear();
        self.free.clear();
        self.paths = PerHost::all(SOUND);
        self.commands = 0;
    }

    /// The slot of a command, its drive, and its content.
    pub(super) fn errand(&self, f: FlightIx) -> (SlotIx, DriveIx, &DriveCommand) {
        let flight = &self.flights[f];
        (flight.slot, flight.drive, &flight.command)
    }

    /// Whether a command of the host may still reach a drive and undo the host's lock there, which
    /// has `mode`.
    pub(super) fn may_undo(&self, s: SlotIx, d: DriveIx, mode: Mode) -> bool {
        self.flights.iter().any(|(_, flight)| {
            let open = flight.pending > 0 && flight.executed == 0;
            let removes = flight.is(MutexOp::Unlock) || flight.is(MutexOp::Destroy);
            let takes = removes || mode == Mode::Exclusive && flight.demotes();
            open && (flight.slot, flight.drive) == (s, d) && takes
        })
    }

    fn insert(&mut self, flight: Flight) -> FlightIx {
        match self.free.pop() {
            Some(f) => {
                self.flights[f] = flight;
                f
            }
            None => {
                self.flights.push(flight);
                FlightIx::new(self.flights.len() - 1)
            }
        }
    }

    /// Removes an agenda entry for the command.
    fn drop_entry(&mut self, f: FlightIx) {
        self.flights[f].pending -= 1;
        if self.flights[f].pending == 0 {
            self.free.push(f);
        }
    }
}

/// The travel times of a command and its reply, in us.
#[derive(Clone, Copy)]
struct Trip {
    there: u64,
    back: u64,
}
