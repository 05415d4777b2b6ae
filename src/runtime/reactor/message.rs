//! What the reactor is told, and what it tells itself of locks that are lost.

use crate::fencing::kill;
use crate::lock::{LockSpec, Owner, RequestResult};
use crate::sys::sync::mpsc::Sender;
use idm_engine::{DriveRef, Instant, Member, Request, Token};
use idm_protocol::{Mode, Reply, ResourceId};
use std::sync::Arc;

/// What the reactor is told.
pub enum Message {
    /// Begin a request.
    Request { spec: LockSpec, request: Request, id: u64, waiter: Option<Sender<RequestResult>> },
    /// Nobody waits for a request any more: undo what comes of it.
    Abandon { resource: ResourceId, id: u64 },
    /// Put held locks on further drives.
    Spread { resources: Vec<ResourceId>, drives: Vec<Member> },
    /// Tell which drives are ready to vote for a lock.
    VotesReady { resource: ResourceId, waiter: Sender<Option<Vec<DriveRef>>> },
    /// Let them vote, and tell whether they do.
    MoveVotes { resource: ResourceId, drives: Vec<DriveRef>, waiter: Sender<bool> },
    /// A held lock belongs to another lockspace from now on.
    Own { spec: LockSpec },
    /// A lockspace has lost what it needs.
    Fail { owner: Arc<Owner>, why: String, until: Option<Instant> },
    /// Tell how a lock is held.
    Mode { resource: ResourceId, waiter: Sender<Option<Mode>> },
    /// A drive answered.
    Reply { lock: u64, token: Token, reply: Reply },
    /// Drop the sender when all commands that are on their way have been answered.
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
    /// When other hosts may have it; `None` where one may already.
    pub(super) until: Option<Instant>,
}
