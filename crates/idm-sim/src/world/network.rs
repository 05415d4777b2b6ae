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

/// Who waits for the reply to a command.
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
    generation: u32,
    ticket: Ticket,
    command: DriveCommand,
    reply: Option<Reply>,
    sent: u64,
    timeout_at: u64,
    executed: u64,
    /// Agenda entries that name it.
    pending: u8,
    answered: bool,
    /// What its reply will be is decided, whatever the drive does.
    told: bool,
    /// A frozen host has not yet handed it on.
    hold_back: bool,
    /// Reported as uncertain before it was executed.
    ghost: bool,
    /// Other hosts that were seen to hold the lock in a conflicting mode, and those of them whose
    /// record tells of another set of drives.
    seen: HostSet,
    foreign: HostSet,
    /// Its reply is not what the drive did.
    nonsense: bool,
}

impl Flight {
    /// Whether a GOOD to it gives the host the drive.
    fn takes(&self) -> bool {
        matches!(self.command, DriveCommand::Mutex(MutexOp::Trylock | MutexOp::Break, _))
    }

    /// Whether a GOOD to it leaves the host with a shared record.
    fn demotes(&self) -> bool {
        matches!(&self.command,
            DriveCommand::Mutex(MutexOp::Refresh | MutexOp::Break, record)
                if record.class == Class::from(Mode::Shared))
    }

    fn is(&self, wanted: MutexOp) -> bool {
        matches!(&self.command, DriveCommand::Mutex(op, _) if *op == wanted)
    }
}

/// How a host's paths fare.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paths {
    /// Drives whose path comes and goes.
    pub(super) flaps: DriveSet,
    /// How many faults cut the host off from all drives.
    pub(super) cut: u8,
}

const SOUND: Paths = Paths { flaps: DriveSet::EMPTY, cut: 0 };

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

    /// Whose command it is, where it goes, and what it says.
    pub(super) fn errand(&self, f: FlightIx) -> (SlotIx, DriveIx, &DriveCommand) {
        let flight = &self.flights[f];
        (flight.slot, flight.drive, &flight.command)
    }

    /// Whether a command of the host may still reach a drive and take there what the host holds in
    /// `mode`.
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

    /// An agenda entry that names the command is done with.
    fn drop_entry(&mut self, f: FlightIx) {
        self.flights[f].pending -= 1;
        if self.flights[f].pending == 0 {
            self.free.push(f);
        }
    }
}

/// How long a command takes there and its reply back, in us.
#[derive(Clone, Copy)]
struct Trip {
    there: u64,
    back: u64,
}
