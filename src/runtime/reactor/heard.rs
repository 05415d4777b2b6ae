//! The drives' answers to the current request, for the message if it is refused.

use crate::lock::{AskedFor, DriveReport};
use idm_engine::{DriveRef, Instant, Request};
use idm_protocol::{DriveCommand, MutexOp, Reply, Status};

/// Answers of drives to one request.
pub(super) struct Heard {
    asked: AskedFor,
    drives: Vec<DriveReport>,
}

/// Purpose of a command of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It takes the lock, or changes its mode.
    Take,
    /// It reads the table.
    Read,
    /// It gives the lock back on the drive.
    GiveBack,
}

impl Purpose {
    pub(super) fn of(command: &DriveCommand) -> Purpose {
        match command {
            DriveCommand::Mutex(MutexOp::Unlock | MutexOp::Destroy, _) => Purpose::GiveBack,
            DriveCommand::Mutex(..) => Purpose::Take,
            DriveCommand::ReadTable => Purpose::Read,
        }
    }
}

impl Heard {
    /// No answers yet. `None` for a request that cannot be refused. `members` are the voting drives
    /// of a lock whose mode is to change.
    pub(super) fn of(request: &Request, members: impl Iterator<Item = DriveRef>) -> Option<Heard> {
        let report = |votes| move |drive| DriveReport::new(drive, votes);
        let (asked, voters, others) = match request {
            Request::Acquire { mode, members, witnesses } => {
                (AskedFor::Mode(*mode), members, witnesses)
            }
            Request::Adopt { members, witnesses, .. } => (AskedFor::Adoption, members, witnesses),
            Request::Convert { mode, .. } => {
                let drives = members.map(report(true)).collect();
                return Some(Heard { asked: AskedFor::Mode(*mode), drives });
            }
            Request::Release { .. } => return None,
        };
        let voters = voters.iter().map(|member| member.drive).map(report(true));
        let others = others.iter().map(|member| member.drive).map(report(false));
        Some(Heard { asked, drives: voters.chain(others).collect() })
    }

    /// Records an answer.
    pub(super) fn hear(&mut self, drive: DriveRef, purpose: Purpose, reply: &Reply) {
        let status = match reply {
            Reply::Status(status) => *status,
            Reply::Table(_) => Status::Good,
        };
        let Some(report) = self.drives.iter_mut().find(|report| report.drive == drive) else {
            return;
        };
        match purpose {
            Purpose::Take => (report.command, report.read) = (Some(status), None),
            Purpose::Read => report.read = Some(status),
            Purpose::GiveBack => {}
        }
    }

    /// The reports of the drives. `owed`: commands without an answer, each with the time when it
    /// was sent. Commands that were sent just now clean up after the refusal.
    pub(super) fn report(
        mut self,
        owed: impl Iterator<Item = (DriveRef, Instant)>,
        now: Instant,
    ) -> (AskedFor, Vec<DriveReport>) {
        for (drive, sent) in owed.filter(|(_, sent)| *sent < now) {
            if let Some(report) = self.drives.iter_mut().find(|report| report.drive == drive) {
                report.silent = Some(now.since(sent));
            }
        }
        (self.asked, self.drives)
    }
}
