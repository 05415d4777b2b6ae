//! Commands that may take locks from dead hosts. With reservations, they wait until these hosts are
//! removed from the drives.

use super::entry::{Entry, HeldBack, PendingKind, release};
use super::message::Message;
use super::{Input, Reactor};
use crate::fencing::reservations::{Cleared, Taking};
use crate::lock::{Owner, Role, vg_of};
use crate::sys::mailbox::Mailbox;
use idm_engine::{DriveRef, Instant, Token};
use idm_protocol::{DriveCommand, Mode, MutexOp, Reply, Status};
use std::sync::Arc;

/// Reports once whether a waiting command may be sent. Without a decision, it reports that the
/// command is not sent.
struct Reporter {
    mailbox: Arc<Mailbox<Message>>,
    lock: u64,
    token: Token,
    cleared: Cleared,
}

impl Reporter {
    fn report(mut self, cleared: Cleared) {
        self.cleared = cleared;
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let Reporter { lock, token, cleared, .. } = *self;
        // After the reactor's end there is no receiver.
        self.mailbox.send(Message::Cleared { lock, token, cleared });
    }
}

impl Reactor {
    /// Returns the command if it can be sent now.
    pub(super) fn hold_back(
        &mut self,
        lock: u64,
        entry: &mut Entry,
        token: Token,
        drive: DriveRef,
        command: DriveCommand,
        now: Instant,
    ) -> Option<DriveCommand> {
        let Some(reservations) = &self.settings.reservations else {
            return Some(command);
        };
        if !takes(entry, drive, &command) {
            return Some(command);
        }
        let group = vg_of(&entry.spec.resource);
        // A lock of an earlier lvmlockd is only refreshed before its group is started again.
        if renews(&command) && !reservations.knows(&group) {
            return Some(command);
        }
        let taking = Taking {
            resource: entry.spec.resource,
            group,
            target: drive,
            needed: entry.members.iter().map(|member| member.drive).collect(),
            begun: now,
        };
        entry.held_back.push(HeldBack { token, drive, command, begun: now });
        let mailbox = self.mailbox.clone();
        let reporter = Reporter { mailbox, lock, token, cleared: Cleared::Refused };
        reservations.clear(taking, move |cleared| reporter.report(cleared));
        None
    }

    /// Handles the end of a command's wait.
    pub(super) fn cleared(&mut self, lock: u64, token: Token, cleared: Cleared) {
        let Some(entry) = self.locks.get_mut(&lock) else { return };
        let Some(at) = entry.held_back.iter().position(|held| held.token == token) else {
            return;
        };
        let HeldBack { drive, command, begun, .. } = entry.held_back.swap_remove(at);
        let is_awaited = entry.is_awaited();
        let status = match cleared {
            Cleared::Send => {
                self.submit(lock, is_awaited, (token, drive, command), begun);
                return;
            }
            // In the words in which a drive refuses to make a shared lock exclusive; others would
            // mean that this host has lost the mutex.
            Cleared::Held if renews(&command) => Status::Terminated,
            Cleared::Held => Status::Conflict,
            Cleared::Refused => Status::Unreachable,
        };
        self.step(lock, Input::Reply(token, Reply::Status(status)));
    }

    /// Gives up the membership of a volume group that must not be used any more: no host removes
    /// another from the drives while it sees it alive.
    pub(super) fn give_up_membership(&mut self, owner: &Arc<Owner>) {
        if self.settings.reservations.is_none() {
            return;
        }
        let of_owner = |entry: &Entry| {
            entry.spec.role == Role::Membership && Arc::ptr_eq(&entry.spec.owner, owner)
        };
        let found = self.locks.iter().find(|(_, entry)| of_owner(entry)).map(|(&lock, _)| lock);
        if let Some(lock) = found {
            if let Some(entry) = self.locks.get_mut(&lock) {
                let (request, pending) = release();
                entry.add(request, pending);
            }
            self.step(lock, Input::Begin);
        }
    }
}

/// Whether a command renews a lock that this host has.
fn renews(command: &DriveCommand) -> bool {
    matches!(command, DriveCommand::Mutex(MutexOp::Refresh, _))
}

/// Whether a command may take something from hosts whose leases have run out.
fn takes(entry: &Entry, drive: DriveRef, command: &DriveCommand) -> bool {
    let DriveCommand::Mutex(op, record) = command else { return false };
    let is_data = matches!(entry.spec.role, Role::Vg | Role::Lv);
    // To make room, a lock also breaks mutexes that were locked only to be removed.
    if !is_data || record.resource != entry.spec.resource {
        return false;
    }
    let adopts = entry.current.as_ref().is_some_and(|it| it.kind == PendingKind::Adopt);
    let promotes = record.class.mode() == Mode::Exclusive && !entry.exclusive.contains(&drive);
    match op {
        MutexOp::Break => true,
        // Some firmware removes sharers whose leases have run out.
        MutexOp::Refresh => promotes && !adopts,
        _ => false,
    }
}
