//! The record of a world's observer: beliefs and holders over time, on which drives, by which
//! commands, and the faults.

use crate::ids::{DriveIx, DriveSet, HostIx, LockIx};
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, Status};
use std::collections::BTreeMap;

/// A time during which something was held in one mode, or had expired and was still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The mode.
    pub mode: Mode,
    /// Whether it had not expired.
    pub live: bool,
    /// The beginning, in us.
    pub from: u64,
    /// The end, in us.
    pub to: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    mode: Mode,
    from: u64,
    until: u64,
}

/// The history of something that is held, from the beginning to the end.
#[derive(Clone, Debug, Default)]
pub struct Track {
    open: Option<Open>,
    /// The times, in order.
    pub tenures: Vec<Tenure>,
}

impl Track {
    /// Notes the state from now on: held in a mode until a moment, or not held.
    fn follow(&mut self, now: u64, present: Option<(Mode, u64)>) {
        if let (Some(open), Some((mode, until))) = (&mut self.open, present) {
            if open.mode == mode && until <= now {
                open.until = open.until.min(now);
                return;
            }
            if open.mode == mode && now <= open.until {
                open.until = until;
                return;
            }
        }
        self.close(now);
        self.open = present.map(|(mode, until)| Open { mode, from: now, until });
    }

    fn close(&mut self, now: u64) {
        let Some(Open { mode, from, until }) = self.open.take() else { return };
        let over = until.clamp(from, now);
        for (live, from, to) in [(true, from, over), (false, over, now)] {
            if from < to {
                self.tenures.push(Tenure { mode, live, from, to });
            }
        }
    }
}

/// The result of a command, as its host received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// No reply yet.
    Nothing,
    /// GOOD.
    Good,
    /// The drive's table.
    Table,
    /// A refusal.
    Refused,
    /// An unknown fate, or a drive that is not there.
    Lost,
    /// Some other error.
    Error,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// The host that sent it.
    pub host: HostIx,
    /// The lock that it is for.
    pub lock: LockIx,
    /// The drive that it went to.
    pub drive: DriveIx,
    /// The kind of request.
    pub verb: &'static str,
    /// The moment when it was sent, in us.
    pub sent: u64,
    /// The moment when the drive executed it for the first time, in us.
    pub executed: Option<u64>,
    /// The moment when its host received the reply, in us.
    pub answered: Option<u64>,
    /// The reply that its host received.
    pub heard: Heard,
}

impl Command {
    /// Whether it only kept a lock.
    pub fn is_routine(&self) -> bool {
        self.verb == "REFRESH" && self.heard == Heard::Good
    }
}

/// The subject of a note or a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A host.
    Host(HostIx),
    /// A drive.
    Drive(DriveIx),
}

/// A fault with a duration.
#[derive(Clone, Debug)]
pub struct FaultSpan {
    /// The host or drive with the fault.
    pub place: Place,
    /// The description.
    pub text: String,
    /// The beginning, in us.
    pub from: u64,
    /// The end, in us; `None` if it lasted to the end of the recording.
    pub to: Option<u64>,
}

/// The tone of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// An action.
    Plain,
    /// A success.
    Good,
    /// A failure or a loss.
    Bad,
}

/// An event at a moment.
#[derive(Clone, Debug)]
pub struct Annotation {
    /// The host or drive of the event.
    pub place: Place,
    /// The lock, if the event concerns one.
    pub lock: Option<LockIx>,
    /// The moment, in us.
    pub at: u64,
    /// The description.
    pub text: String,
    /// The tone.
    pub tone: Tone,
}

/// A request, from its beginning to its answer.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// The host that made it.
    pub host: HostIx,
    /// The lock that it is for.
    pub lock: LockIx,
    /// The moment when it was made, in us.
    pub from: u64,
    /// The moment when it was answered, in us; `None` if there was no answer.
    pub to: Option<u64>,
}

/// The whole record of a world's observer.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The hosts' names.
    pub hosts: Vec<String>,
    /// The number of drives.
    pub drives: usize,
    /// The kind of each lock, and its first drives.
    pub locks: Vec<(&'static str, DriveSet)>,
    /// The beliefs of hosts in locks.
    pub beliefs: BTreeMap<(HostIx, LockIx), Track>,
    /// The records of hosts on drives.
    pub records: BTreeMap<(DriveIx, LockIx, HostIx), Track>,
    /// The requests.
    pub waits: Vec<Wait>,
    /// The commands, in the order in which they were sent.
    pub commands: Vec<Command>,
    /// The faults.
    pub faults: Vec<FaultSpan>,
    /// The notes.
    pub notes: Vec<Annotation>,
    /// The violated invariant, and the moment of the violation in us.
    pub violation: Option<(u64, String)>,
    /// The end of the recording, in us.
    pub end: u64,
    /// Commands on their way, by their numbers in the world.
    flying: BTreeMap<usize, usize>,
}

impl Recording {
    pub(crate) fn believe(
        &mut self,
        now: u64,
        (host, lock): (HostIx, LockIx),
        present: Option<(Mode, u64)>,
    ) {
        self.beliefs.entry((host, lock)).or_default().follow(now, present);
    }

    /// Notes a drive's present records of one lock, each with its host, mode and end of lease.
    pub(crate) fn table(
        &mut self,
        now: u64,
        (drive, lock): (DriveIx, LockIx),
        present: &[(HostIx, Mode, u64)],
    ) {
        for &(host, mode, until) in present {
            let track = self.records.entry((drive, lock, host)).or_default();
            track.follow(now, Some((mode, until)));
        }
        for (&(d, l, host), track) in &mut self.records {
            if d == drive && l == lock && !present.iter().any(|&(there, ..)| there == host) {
                track.close(now);
            }
        }
    }

    pub(crate) fn ask(&mut self, now: u64, (host, lock): (HostIx, LockIx)) {
        self.waits.push(Wait { host, lock, from: now, to: None });
    }

    pub(crate) fn answer(&mut self, now: u64, (host, lock): (HostIx, LockIx)) {
        let mine = |w: &&mut Wait| w.host == host && w.lock == lock && w.to.is_none();
        if let Some(wait) = self.waits.iter_mut().rev().find(mine) {
            wait.to = Some(now);
        }
    }

    pub(crate) fn send(&mut self, number: usize, command: Command) {
        self.flying.insert(number, self.commands.len());
        self.commands.push(command);
    }

    pub(crate) fn execute(&mut self, now: u64, number: usize) {
        if let Some(&i) = self.flying.get(&number) {
            self.commands[i].executed.get_or_insert(now);
        }
    }

    pub(crate) fn hear(&mut self, now: u64, number: usize, reply: &Reply) {
        if let Some(&i) = self.flying.get(&number) {
            self.commands[i].answered = Some(now);
            self.commands[i].heard = heard(reply);
        }
    }

    pub(crate) fn begin_fault(&mut self, now: u64, place: Place, text: &str) {
        self.faults.push(FaultSpan { place, text: text.to_owned(), from: now, to: None });
    }

    pub(crate) fn end_fault(&mut self, now: u64, place: Place, text: &str) {
        let open = |f: &&mut FaultSpan| f.place == place && f.to.is_none() && f.text == text;
        if let Some(fault) = self.faults.iter_mut().find(open) {
            fault.to = Some(now);
        }
    }

    pub(crate) fn note(
        &mut self,
        at: u64,
        place: Place,
        lock: Option<LockIx>,
        tone: Tone,
        text: String,
    ) {
        self.notes.push(Annotation { place, lock, at, text, tone });
    }

    /// Ends the recording.
    pub(crate) fn finish(&mut self, now: u64) {
        self.end = now;
        self.beliefs.values_mut().for_each(|track| track.close(now));
        self.records.values_mut().for_each(|track| track.close(now));
    }
}

fn heard(reply: &Reply) -> Heard {
    match reply {
        Reply::Table(_) => Heard::Table,
        Reply::Status(Status::Good) => Heard::Good,
        Reply::Status(Status::Conflict | Status::Terminated | Status::NotFound) => Heard::Refused,
        Reply::Status(Status::Uncertain | Status::Unreachable) => Heard::Lost,
        Reply::Status(_) => Heard::Error,
    }
}

/// The kind of a command, in a word.
pub(crate) fn verb(command: &DriveCommand) -> &'static str {
    match command {
        DriveCommand::ReadTable => "read",
        DriveCommand::Mutex(op, _) => match op {
            MutexOp::Trylock => "TRYLOCK",
            MutexOp::Lock => "LOCK",
            MutexOp::Unlock => "UNLOCK",
            MutexOp::Refresh => "REFRESH",
            MutexOp::Break => "BREAK",
            MutexOp::Destroy => "DESTROY",
            MutexOp::Init => "INIT",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Mode, Tenure, Track};

    #[test]
    fn what_runs_out_is_told_from_what_is_prolonged() {
        let mut track = Track::default();
        track.follow(10, Some((Mode::Exclusive, 70)));
        track.follow(30, Some((Mode::Exclusive, 90)));
        track.follow(100, Some((Mode::Exclusive, 90)));
        track.follow(120, Some((Mode::Exclusive, 180)));
        track.follow(130, None);
        let tenure = |live, from, to| Tenure { mode: Mode::Exclusive, live, from, to };
        assert_eq!(
            track.tenures,
            [tenure(true, 10, 90), tenure(false, 90, 120), tenure(true, 120, 130)]
        );
    }

    #[test]
    fn a_change_of_mode_begins_another_tenure() {
        let mut track = Track::default();
        track.follow(0, Some((Mode::Exclusive, 60)));
        track.follow(20, Some((Mode::Shared, 60)));
        track.close(50);
        let modes: Vec<_> = track.tenures.iter().map(|t| (t.mode, t.from, t.to)).collect();
        assert_eq!(modes, [(Mode::Exclusive, 0, 20), (Mode::Shared, 20, 50)]);
    }
}
