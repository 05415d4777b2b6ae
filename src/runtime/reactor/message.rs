//! Messages to the reactor, and its own record of a lock that is lost.

use crate::fencing::kill;
use crate::fencing::reservations::Cleared;
use crate::lock::{LockSpec, Owner, RequestResult};
use crate::state::undo_note::Undone;
use crate::sys::sync::mpsc::Sender;
use idm_engine::{DriveRef, Instant, Member, Request, Token};
use idm_protocol::{Mode, Reply, ResourceId};
use std::sync::Arc;

/// A message to the reactor.
pub enum Message {
    /// Begin a request.
    Request { spec: LockSpec, request: Request, id: u64, waiter: Option<Sender<RequestResult>> },
    /// No caller waits for a request any more: undo its effect.
    Abandon { resource: ResourceId, id: u64 },
    /// Put held locks on these drives.
    Spread { resources: Vec<ResourceId>, drives: Vec<Member> },
    /// Drop the sender when the votes of a volume group's LV locks have moved.
    AwaitMoves { vg: ResourceId, waiter: Sender<()> },
    /// Report the LV locks of a volume group whose votes have not moved yet.
    Moving { vg: ResourceId, waiter: Sender<Vec<LockSpec>> },
    /// Report the drives that are ready to vote for a lock.
    VotesReady { resource: ResourceId, waiter: Sender<Option<Vec<DriveRef>>> },
    /// Let drives vote, and report whether they do.
    MoveVotes { resource: ResourceId, drives: Vec<DriveRef>, waiter: Sender<bool> },
    /// Assign a held lock to another lockspace.
    Own { spec: LockSpec },
    /// Kill a lockspace.
    Fail { owner: Arc<Owner>, why: String, until: Option<Instant> },
    /// Report the mode in which a lock is held.
    Mode { resource: ResourceId, waiter: Sender<Option<Mode>> },
    /// Report the earliest time until which the locks of a volume group are safe.
    SafeUntil { group: ResourceId, waiter: Sender<Option<Instant>> },
    /// Note that something is about to be handed out that undoes this; report whether it may be.
    NoteUndoing { undone: Undone, waiter: Sender<bool> },
    /// A command that waited for the removal of dead hosts may be sent, or not.
    Cleared { lock: u64, token: Token, cleared: Cleared },
    /// A drive answered.
    Reply { lock: u64, token: Token, reply: Reply },
    /// Drop the sender when all commands on their way have been answered.
    Drain(Sender<()>),
    /// The kill command for a lockspace has ended.
    KillEnded { owner: Arc<Owner>, ended: kill::Ended },
    /// End, and leave everything as it is.
    Stop,
}

/// A lock is lost or about to be.
pub(super) struct LockFailure {
    pub(super) owner: Arc<Owner>,
    pub(super) why: String,
    /// Time from which other hosts may have it; `None` where one may have it already.
    pub(super) until: Option<Instant>,
}
