//! One drive's part in a lock: the knowledge about it, its command on the way, its next command.
//!
//! The two central functions are total: [`Replica::absorb`] learns from every reply to every
//! command who owns the mutex on this drive; `take.rs` and `clean.rs` choose the next command.

use crate::api::{Conflict, DriveRef, Fingerprint, Instant, Timing, Token, Undoes};
use crate::rules::{Rules, broken};
use crate::stamp::{Mark, Stamp};
use crate::view::{Own, Unused, View};
use alloc::vec::Vec;
use core::time::Duration;
use idm_protocol::{HostId, Mode, ResourceId, Status, Value};

/// The role of a drive for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// It votes.
    Member,
    /// It is read for holders that count other drives.
    Witness,
    /// It carries the lock, so that others see the lock there, but does not vote.
    Extra,
    /// It belonged to an earlier acquisition and is only cleaned up.
    Former,
}

/// Whether this host holds the mutex on this drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hold {
    /// It does not.
    None,
    /// It may, for some lease that begins no later than `latest`.
    Maybe { latest: Instant },
    /// The drive confirmed it, in reply to a command that was sent at `since`.
    Held { mode: Mode, since: Instant },
}

/// The purpose of reading a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Look {
    /// To find the holders of the mutex.
    Holders,
    /// To find its value.
    Value,
    /// To find mutexes that could be removed to make room.
    Room,
}

/// One command in a replica's own terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Try(Mode),
    Refresh(Mode),
    Break(Mode),
    Look(Look),
    /// UNLOCK, with the class that the drive is believed to have.
    Unlock(Mode),
    Destroy,
    /// Removes an unused mutex: locks it, so that no other host does; unlocks it; destroys it.
    ClearTry(ResourceId),
    /// The same after a host died during the removal.
    ClearBreak(ResourceId),
    ClearUnlock(ResourceId),
    ClearDestroy(ResourceId),
}

impl Step {
    /// Whether it writes a record of this host, or may.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Step::Try(_) | Step::Refresh(_) | Step::Break(_))
    }

    /// Whether it leaves a shared record on a drive that had none.
    pub(crate) fn shares(self) -> bool {
        matches!(self, Step::Try(Mode::Shared) | Step::Break(Mode::Shared))
    }

    /// Whether it may leave a shared record where the drive was known to have an exclusive one of
    /// this host. It may have lost that one meanwhile.
    pub(crate) fn demotes(self) -> bool {
        matches!(self, Step::Refresh(Mode::Shared)) || self.shares()
    }
}

/// A command that was sent and has no reply yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    pub(crate) token: Token,
    pub(crate) step: Step,
    pub(crate) sent: Instant,
    /// Whether the drive was known to have this host's lock then.
    pub(crate) held: bool,
    /// Whether the value was doubtful then.
    pub(crate) doubts: bool,
    /// The mark of the counted drives that it writes into a record.
    pub(crate) mark: Mark,
    /// The replica's task when it was sent; a reply to an older task only teaches facts.
    pub(crate) epoch: u32,
}

/// The next command and the moment from which it may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    pub(crate) step: Step,
    pub(crate) at: Instant,
}

/// The state of the attempt to take a drive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Vote {
    /// No answer yet.
    Asking,
    /// This host holds it (a member), or no holder is in the way (a witness).
    Won,
    /// Live holders are in the way; the list is empty if they could not be read.
    Blocked(Vec<Conflict>),
    /// It does not answer, or its answers make no sense.
    Silent,
    /// An adoption found no record of this host that a REFRESH would keep in the lock's mode.
    NotOurs,
    /// It has no room.
    Full,
    /// It has no IDM.
    NotIdm,
}

/// The task of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    /// Nothing.
    Idle,
    /// Taking the mutex, or looking at it (a witness).
    Take(Take),
    /// Keeping it: one refresh after the other.
    Keep,
    /// Giving it back.
    Clean(Clean),
    /// Leaving an earlier life's record as it is, because it could not be adopted yet.
    Leave,
}

/// The task of taking the mutex on one drive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Take {
    pub(crate) mode: Mode,
    pub(crate) vote: Vote,
    /// Commands sent so far.
    pub(crate) sent: u8,
    /// Whether this converts a lock held in the other mode: a drive lost during it is not taken
    /// again.
    pub(crate) converting: bool,
    /// Whether the drive is a witness: look, and take only to break dead holders.
    pub(crate) witness: bool,
    /// Whether this is an adoption: look, and refresh this host's record in the mode that it has.
    pub(crate) adopting: bool,
    /// In an adoption, the other holders on the drive, alive or not, once it was read.
    pub(crate) others: Option<Vec<Conflict>>,
    /// In an adoption, the stamp in this host's record, from the acquisition that wrote it. Until
    /// that acquisition is adopted, a REFRESH leaves the stamp unchanged.
    pub(crate) own_stamp: Option<Stamp>,
    /// Whether the drive refused because of others, before its table was read.
    pub(crate) refused: bool,
    /// Whether the drive denied a TRYLOCK, with a conflict or with BUSY.
    pub(crate) denied: bool,
    /// The number of times that the drive refused to be read.
    pub(crate) refused_reads: u8,
    /// Whether a record of this host was found that this life did not write.
    pub(crate) own_found: bool,
    /// Whether a misleading record of this host was refreshed, so that it can be right now.
    pub(crate) rewritten: bool,
    /// The dead holders that a BREAK is meant for.
    pub(crate) breaking: Vec<HostId>,
    /// Whether room was made once.
    pub(crate) cleared: bool,
    /// Whether the value was requested.
    pub(crate) value_asked: bool,
}

/// The task of giving the mutex back on one drive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Clean {
    /// The value to leave there.
    pub(crate) store: Option<Value>,
    /// Whether the value on the drive is wrong, and no other host knows that: then this host's
    /// record stays until the drive has stored another value, or until its lease is over.
    pub(crate) must_store: bool,
    /// Whether the record is known to be exclusive, so that an UNLOCK stores the value.
    pub(crate) exclusive: bool,
    /// The moment until which an earlier life's command may make the record shared.
    pub(crate) earlier_shares_until: Instant,
    /// Whether the mutex carries a value that outlives the lock.
    pub(crate) keeps_value: bool,
    /// Whether the value on the drive is useless to everybody.
    pub(crate) worthless: bool,
    /// Whether the mutex must be destroyed; known after the unlock.
    pub(crate) destroy: bool,
    /// The class to unlock.
    pub(crate) mode: Mode,
    /// The moment when every lease of this host is over, so that nothing is left to give back.
    pub(crate) until: Instant,
    /// The number of replies in a row that made no sense.
    pub(crate) refusals: u8,
}

/// The content of a reply that the replica does not store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A status.
    Status(Status),
    /// The table's content about the mutex, and the unused mutexes if these were requested.
    Table(View, Vec<Unused>),
}

/// The mark that commands of unknown fate may still write into this host's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Remark {
    /// The mark that the record would have then; `None` if several are possible.
    pub(crate) mark: Option<Mark>,
    pub(crate) until: Instant,
}

/// One drive's part in a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Replica {
    pub(crate) drive: DriveRef,
    pub(crate) role: Role,
    pub(crate) hold: Hold,
    pub(crate) task: Task,
    pub(crate) epoch: u32,
    pub(crate) flight: Option<Flight>,
    pub(crate) plan: Option<Plan>,
    /// The number of failures in a row, for the pause before the next try.
    pub(crate) failures: u8,
    /// The mark of this host's record on the drive, if it is certain, and the moment since which it
    /// is: a command sent later has shown it or written it.
    pub(crate) mark: Option<Mark>,
    pub(crate) marked_at: Instant,
    /// The mark that a command of this host may write there instead.
    pub(crate) remark: Remark,
    /// The moment until which a command of this host, in this life or an earlier one, may reach the
    /// drive and undo a new grant.
    pub(crate) barred_until: Instant,
    /// The moment until which a change to shared of this host may reach the drive.
    pub(crate) demote_until: Instant,
    /// The moment until which a change to exclusive of this host may reach the drive.
    pub(crate) promote_until: Instant,
    /// The moment until which a TRYLOCK or BREAK of this host may reach the drive and leave a lock.
    pub(crate) stray_until: Instant,
    /// The value that was read after this drive was won.
    pub(crate) value: Option<Value>,
    /// Whether the value that the drive had when it was taken is useless, because its last holder
    /// died or was an earlier life of this host.
    pub(crate) stale_value: bool,
    /// Whether the value on the drive has become wrong since this host took it, and no other host
    /// may know that.
    pub(crate) disproved: bool,
    /// Whether it lacked the lock in the lock's mode when the lease expired: its later answers do
    /// not prove that no other host had the lock in the meantime.
    pub(crate) gap: bool,
    /// A live holder with another drive set, and the moment when it was first seen.
    pub(crate) foreign: Option<(HostId, Instant)>,
    /// Whether the drive reported a conflict, and since then neither confirmed this host's lock nor
    /// showed the holder. Such a drive stands for a holder that may count other drives, and no
    /// weaker answer makes it a silent drive.
    pub(crate) contested: bool,
    /// Whether it is one of the drives that are to vote in place of the present ones.
    pub(crate) target: bool,
    /// Whether it voted when the lock was acquired or adopted.
    pub(crate) original: bool,
    /// Whether the lock is held without this drive, so that gaining it is worth a notice.
    pub(crate) missed: bool,
    /// Whether a notice has already reported that this drive has no IDM.
    pub(crate) not_idm: bool,
}

impl Replica {
    /// A drive without any part in the lock yet; commands of an earlier life of this host may reach
    /// it until `earlier_until`.
    pub(crate) fn new(drive: DriveRef, role: Role, earlier_until: Instant) -> Replica {
        Replica {
            drive,
            role,
            hold: Hold::None,
            task: Task::Idle,
            epoch: 0,
            flight: None,
            plan: None,
            failures: 0,
            mark: None,
            marked_at: Instant::default(),
            remark: Remark::default(),
            barred_until: earlier_until,
            demote_until: Instant::default(),
            promote_until: Instant::default(),
            stray_until: Instant::default(),
            value: None,
            stale_value: false,
            disproved: false,
            gap: false,
            foreign: None,
            contested: false,
            target: false,
            original: false,
            missed: false,
            not_idm: false,
        }
    }

    /// Begins another task. A command that is on its way stays there; its reply only teaches facts.
    pub(crate) fn assign(&mut self, task: Task) {
        self.task = task;
        self.plan = None;
        self.epoch = self.epoch.wrapping_add(1);
    }

    pub(crate) fn plan(&mut self, step: Step, at: Instant) {
        self.plan = Some(Plan { step, at });
    }

    /// Whether the drive counts as holding this host's lock in `mode`, if the drives of `set` are
    /// counted. The drive confirmed the lock after every command that could undo it had passed, and
    /// the record there does not suggest to others that this host counts the same drives.
    pub(crate) fn counts(&self, mode: Mode, set: Fingerprint, rules: Rules) -> bool {
        self.is_marked(set) && self.confirms(mode, rules)
    }

    /// The same, whatever the record suggests to others.
    pub(crate) fn confirms(&self, mode: Mode, rules: Rules) -> bool {
        let Hold::Held { mode: held, since } = self.hold else {
            return false;
        };
        if matches!(self.task, Task::Clean(_)) || self.gap {
            return false;
        }
        let flies = self.flight.as_ref().map(|flight| flight.step);
        if matches!(flies, Some(Step::Unlock(_) | Step::Destroy)) {
            return false;
        }
        let demoting = flies.is_some_and(Step::demotes);
        let undone = since < self.barred_until && !broken!(rules, ReleaseOrder);
        let demoted = since < self.demote_until && !broken!(rules, DemoteOrder);
        !undone && (mode == Mode::Shared || (held == Mode::Exclusive && !demoted && !demoting))
    }

    /// The kind of lock that a command can undo if it is still under way when this host dies.
    pub(crate) fn undoes(&self, step: Step, now: Instant) -> Undoes {
        let (held, since) = match self.hold {
            Hold::Held { mode, since } => (Some(mode), since),
            Hold::None | Hold::Maybe { .. } => (None, now),
        };
        match step {
            // A late change to shared of ours makes this lock shared again.
            Step::Try(Mode::Exclusive) if self.demote_until > now => Undoes::Any,
            Step::Look(_) | Step::Try(_) | Step::ClearTry(_) => Undoes::Nothing,
            Step::Refresh(mode) | Step::Break(mode) if held == Some(mode) => match mode {
                Mode::Exclusive => Undoes::Nothing,
                // It changes nothing, unless the record becomes exclusive, or became so by a
                // command whose answer was lost.
                Mode::Shared if self.promote_until <= since => Undoes::Exclusive,
                Mode::Shared => Undoes::Any,
            },
            // A REFRESH to exclusive, too: after it, an earlier command that leaves the lock shared
            // undoes something.
            Step::Refresh(_) | Step::Break(_) | Step::Unlock(_) | Step::Destroy => Undoes::Any,
            Step::ClearBreak(_) | Step::ClearUnlock(_) | Step::ClearDestroy(_) => Undoes::Any,
        }
    }

    /// Whether this host's record here certainly misleads no host that counts other drives than
    /// `set`, whatever is still on its way.
    pub(crate) fn is_marked(&self, set: Fingerprint) -> bool {
        let fits = |mark: Mark| mark.fits(set);
        let Remark { mark, until } = self.remark;
        let stays = mark.is_some_and(fits) || self.marked_at >= until;
        let open = self.flight.as_ref().filter(|flight| flight.step.writes());
        stays && self.mark.is_some_and(fits) && open.is_none_or(|flight| fits(flight.mark))
    }

    /// The same, even if a lost command had another mark than the record shows.
    pub(crate) fn stays_marked(&self, set: Fingerprint) -> bool {
        self.marked_at >= self.remarked_until() && self.is_marked(set)
    }

    /// Whether this host's record here looks like another set's to every host, now and later.
    pub(crate) fn is_marked_alone(&self) -> bool {
        self.mark == Some(Mark::Alone) && !self.may_be_remarked()
    }

    /// Whether a command that is on its way may give this host's record the mark of a set.
    pub(crate) fn may_be_remarked(&self) -> bool {
        let flies = |flight: &Flight| flight.mark != Mark::Alone && flight.step.writes();
        self.marked_at < self.remarked_until() || self.flight.as_ref().is_some_and(flies)
    }

    /// The moment until which a command of this host may still change the mark of its record.
    pub(crate) fn remarked_until(&self) -> Instant {
        self.remark.until
    }

    /// Notes that a command of this host may write `mark` into its record up to `until`. The marks
    /// of earlier commands are remembered until an answer shows that they are not there.
    fn expect_remark(&mut self, mark: Mark, until: Instant) {
        let runs = self.marked_at < self.remark.until;
        let same = !runs || self.remark.mark == Some(mark);
        let until = until.max(self.remarked_until());
        self.remark = Remark { mark: same.then_some(mark), until };
    }

    /// Whether the drive may have a shared record of this host that others rely on.
    pub(crate) fn may_share(&self, now: Instant, timing: &Timing) -> bool {
        let flies = |steps: fn(Step) -> bool| self.flight.as_ref().is_some_and(|f| steps(f.step));
        match self.hold {
            Hold::None => {
                // A lost TRYLOCK that arrives after the drive was read leaves a record.
                let over = self.stray_until + timing.lease + timing.drift;
                let strays = self.stray_until != Instant::default();
                flies(Step::shares) || (strays && over > now)
            }
            Hold::Held { mode: Mode::Exclusive, since } => {
                // A change to shared that has no answer gives the record another lease.
                let over = self.demote_until + timing.lease + timing.drift;
                flies(Step::demotes) || (since < self.demote_until && over > now)
            }
            Hold::Held { .. } | Hold::Maybe { .. } => self.over_at(timing) > now,
        }
    }

    /// Whether a command is on its way that writes a record of this host.
    pub(crate) fn is_being_written(&self) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.step.writes())
    }

    /// Whether this host's record is exclusive, whatever is still on its way.
    pub(crate) fn is_surely_exclusive(&self) -> bool {
        let demoting = self.flight.as_ref().is_some_and(|flight| flight.step.demotes());
        let exclusive = matches!(self.hold, Hold::Held { mode: Mode::Exclusive, since }
            if since >= self.demote_until);
        exclusive && !demoting
    }

    /// Whether an older command could still undo the state that the drive reported last.
    pub(crate) fn may_be_undone(&self) -> bool {
        matches!(self.hold, Hold::Held { since, .. } if since < self.barred_until)
    }

    /// The present vote, for replicas that are being taken or looked at.
    pub(crate) fn vote(&self) -> Option<&Vote> {
        match &self.task {
            Task::Take(take) => Some(&take.vote),
            _ => None,
        }
    }

    /// Whether the replica is taken only to add to a lock that is already held.
    pub(crate) fn is_enlarging(&self) -> bool {
        matches!(&self.task, Task::Take(take) if !take.witness && !take.converting)
    }

    /// Whether the drive is, or was, asked for `mode`.
    pub(crate) fn takes(&self, mode: Mode) -> bool {
        matches!(&self.task, Task::Take(take) if take.mode == mode)
    }

    /// Takes in a reply, and learns from it who owns the mutex on this drive ("ours": this
    /// host).
    ///
    /// | command | GOOD | conflict | terminated | not found | fate unknown | not executed |
    /// |---|---|---|---|---|---|---|
    /// | TRYLOCK | ours | – | may be ours | – | may be ours | – |
    /// | REFRESH | ours | not ours¹ | – | not ours | as before, mode unsure | – |
    /// | BREAK | ours | – | – | not ours | may be ours | – |
    /// | UNLOCK | not ours | not ours | – | not ours | may be ours, barred | – |
    /// | DESTROY | not ours | – | – | not ours | may be ours, barred | – |
    ///
    /// ¹ Not for a change from shared to exclusive, which sharers may refuse in the same words.
    ///
    /// `earlier`: the moment until which commands of an earlier life may mark a record as that life
    /// did.
    ///
    /// A fate is unknown if no answer came: then the command may still arrive. A drive that
    /// answered with an error has carried the command out or not, but does not do so later.
    pub(crate) fn absorb(
        &mut self,
        flight: &Flight,
        heard: &Heard,
        now: Instant,
        timing: &Timing,
        earlier: Instant,
        rules: Rules,
    ) {
        match heard {
            Heard::Status(status) => self.absorb_answer(flight, *status, now, timing, rules),
            Heard::Table(view, _) => {
                self.marked_at = flight.sent;
                self.absorb_view(view, now, earlier, rules);
                if view.own == Own::None && flight.sent >= self.stray_until {
                    // Every lost command has arrived before, if at all, and has left no record.
                    self.stray_until = Instant::default();
                }
            }
        }
    }

    /// Learns from an answer that is no table.
    fn absorb_answer(
        &mut self,
        flight: &Flight,
        status: Status,
        now: Instant,
        timing: &Timing,
        rules: Rules,
    ) {
        let since = if broken!(rules, LeaseFromReply) { now } else { flight.sent };
        self.absorb_conflict(flight.step, status, rules);
        if status == Status::Uncertain && flight.step.writes() && flight.mark != Mark::Alone {
            self.expect_remark(flight.mark, now + timing.linger);
        }
        if status == Status::Failed && flight.step.writes() {
            self.absorb_mark(flight, false, now);
        }
        if matches!(flight.step, Step::Break(_)) {
            // A drive whose answer makes no sense may have carried it out.
            self.stale_value = !broken!(rules, ValueAfterBreak);
        }
        if let (Step::Try(mode) | Step::Refresh(mode) | Step::Break(mode), Status::Good) =
            (flight.step, status)
        {
            self.hold = Hold::Held { mode, since };
            return self.absorb_mark(flight, true, now);
        }
        // The moment until which the command may still reach the drive.
        let late = if status == Status::Uncertain { now + timing.linger } else { now };
        self.absorb_status(flight.step, status, late);
    }

    /// Notes that a command of unknown fate may give this host's record a mode.
    fn may_change(&mut self, mode: Mode, late: Instant) {
        let until = match mode {
            Mode::Shared => &mut self.demote_until,
            Mode::Exclusive => &mut self.promote_until,
        };
        *until = late.max(*until);
    }

    /// Learns from a status who owns the mutex, unless it confirms a lock of this host.
    fn absorb_status(&mut self, step: Step, status: Status, late: Instant) {
        let unknown = matches!(status, Status::Uncertain | Status::Failed);
        let maybe = match self.hold {
            Hold::None => Hold::Maybe { latest: late },
            Hold::Maybe { latest } => Hold::Maybe { latest: latest.max(late) },
            held @ Hold::Held { .. } => held,
        };
        match step {
            Step::Try(mode) | Step::Break(mode) if unknown => {
                self.hold = maybe;
                self.stray_until = self.stray_until.max(late);
                // The drive may have lost an exclusive record, and have a shared one.
                let was_exclusive = matches!(maybe, Hold::Held { mode: Mode::Exclusive, .. });
                if was_exclusive || matches!(step, Step::Break(_)) {
                    self.may_change(mode, late);
                }
            }
            Step::Try(_) if status == Status::Terminated => self.hold = maybe,
            Step::Break(_) if status == Status::NotFound => self.hold = Hold::None,
            Step::Refresh(mode) => match status {
                Status::NotFound => self.hold = Hold::None,
                Status::Conflict if !self.promotes(mode) => self.hold = Hold::None,
                Status::Uncertain | Status::Failed => self.may_change(mode, late),
                _ => {}
            },
            Step::Unlock(_) | Step::Destroy => match status {
                Status::Good | Status::NotFound => self.hold = Hold::None,
                Status::Conflict if step != Step::Destroy => self.hold = Hold::None,
                Status::Uncertain | Status::Failed => {
                    self.hold = match maybe {
                        Hold::Held { since, .. } => Hold::Maybe { latest: since },
                        other => other,
                    };
                    self.barred_until = self.barred_until.max(late);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Updates the mark of this host's record after a command that writes it was, or may have been,
    /// carried out. It is not known whether a REFRESH changes the mark. Of two possible marks, the
    /// one is assumed that others could mistake; the record has to be read to know.
    fn absorb_mark(&mut self, flight: &Flight, surely: bool, now: Instant) {
        let writes = surely && !matches!(flight.step, Step::Refresh(_));
        if writes || self.mark == Some(Mark::Alone) {
            self.mark = Some(flight.mark);
        }
        if writes {
            self.marked_at = flight.sent;
        } else if self.mark != Some(flight.mark) && flight.mark != Mark::Alone {
            self.expect_remark(flight.mark, now);
        }
    }

    /// Notes that a change to exclusive may have removed a sharer whose lease was over. That sharer
    /// may have been the only one to know that the value on the drive is wrong.
    pub(crate) fn note_removal(&mut self, heard: &Heard, rules: Rules) {
        let done =
            matches!(heard, Heard::Status(Status::Good | Status::Failed | Status::Uncertain));
        self.stale_value |= done && !broken!(rules, ValueAfterBreak);
    }

    /// Notes a conflict, which stands until the drive confirms this host's lock or shows its table.
    fn absorb_conflict(&mut self, step: Step, status: Status, rules: Rules) {
        let tells = match (step, status) {
            (Step::Try(_) | Step::Refresh(_) | Step::Break(_), Status::Good) => {
                self.contested = false;
                return;
            }
            (Step::Try(_) | Step::Refresh(_) | Step::Break(_), Status::Conflict) => true,
            (
                Step::Refresh(Mode::Exclusive) | Step::Break(_),
                Status::Terminated | Status::WrongState,
            ) => true,
            _ if broken!(rules, ConflictStands) => {
                self.contested = false;
                return;
            }
            _ => false,
        };
        self.contested |= tells;
    }

    /// Whether a refresh to `mode` promotes a shared lock of this host.
    fn promotes(&self, mode: Mode) -> bool {
        mode == Mode::Exclusive && matches!(self.hold, Hold::Held { mode: Mode::Shared, .. })
    }

    fn absorb_view(&mut self, view: &View, now: Instant, earlier: Instant, rules: Rules) {
        self.contested = false;
        self.mark = view.own_mark();
        if let (Own::Stale, Some(mark)) = (view.own, self.mark) {
            if now < earlier {
                self.expect_remark(mark, earlier);
            }
        }
        self.stale_value |= view.own == Own::Stale && !broken!(rules, ValueAfterBreak);
        match (view.own, self.hold) {
            (Own::None, _) => self.hold = Hold::None,
            (Own::Present | Own::Stale, Hold::None) => {
                self.hold = Hold::Maybe { latest: now };
            }
            (Own::Present | Own::Stale, _) => {}
        }
    }

    /// The moment when no lease of this host can be alive on this drive any more.
    pub(crate) fn over_at(&self, timing: &Timing) -> Instant {
        let latest = match self.hold {
            Hold::None => Instant::default(),
            Hold::Maybe { latest } => latest,
            Hold::Held { since, .. } => since,
        };
        let flying = match &self.flight {
            Some(flight) => flight.sent + 2 * timing.linger,
            None => Instant::default(),
        };
        latest.max(flying).max(self.stray_until) + timing.lease + timing.drift
    }

    /// Whether no host can take this host's record here for one from before the votes moved to
    /// these drives.
    pub(crate) fn shows_moved_votes(&self, set: Fingerprint) -> bool {
        self.stays_marked(set) && matches!(self.hold, Hold::Held { .. })
    }

    /// The moment when the record that this host has here now is surely over, unless it is
    /// refreshed again.
    pub(crate) fn gone_at(&self, timing: &Timing) -> Instant {
        self.over_at(timing).max(self.settled_at() + timing.lease + timing.drift)
    }

    /// The moment when the planned command may be sent: not while an old UNLOCK may still undo it.
    /// An adoption does not wait, because the lease of the records that it finds may be about to
    /// end.
    pub(crate) fn ready_at(&self, rules: Rules) -> Option<Instant> {
        let plan = self.plan.filter(|_| self.flight.is_none())?;
        let adopts = matches!(&self.task, Task::Take(take) if take.adopting);
        let takes = match plan.step {
            Step::Try(_) | Step::Break(_) => true,
            Step::Refresh(_) => !adopts,
            _ => false,
        };
        let waits = takes && !broken!(rules, ReleaseOrder);
        Some(if waits { plan.at.max(self.barred_until) } else { plan.at })
    }

    /// The moment when no command of this host can reach the drive any more.
    pub(crate) fn settled_at(&self) -> Instant {
        let changed = self.demote_until.max(self.promote_until);
        self.barred_until.max(changed).max(self.stray_until).max(self.remarked_until())
    }

    /// The pause after the failures so far: it doubles from `first` up to `limit`.
    pub(crate) fn pause(&self, first: Duration, limit: Duration) -> Duration {
        (first * 2u32.pow(u32::from(self.failures.min(10)))).min(limit)
    }
}
