//! One drive's part in a lock: what we know of it, what is on its way, what comes next.
//!
//! The two functions at the heart are total: [`Seat::absorb`] says what every reply to every
//! command teaches about who owns the mutex on this drive, and `take.rs` and `clean.rs` say what
//! to do next.

use crate::api::{Conflict, DriveRef, Fingerprint, Instant, Timing, Token, Undoes};
use crate::rules::{Rules, broken};
use crate::stamp::{Mark, Stamp};
use crate::view::{Own, Unused, View};
use alloc::vec::Vec;
use core::time::Duration;
use idm_protocol::{HostId, Mode, ResourceId, Status, Value};

/// What a drive is to a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// It votes.
    Member,
    /// It is read for holders that count other drives.
    Witness,
    /// It carries the lock, so that others see it there, but does not vote.
    Extra,
    /// It belonged to an earlier acquisition and is only cleaned up.
    Former,
}

/// Whether the mutex is ours on this drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hold {
    /// It is not.
    None,
    /// It may be, for some lease that begins no later than `latest`.
    Maybe { latest: Instant },
    /// The drive said so, in reply to a command that was sent at `since`.
    Held { mode: Mode, since: Instant },
}

/// Why a table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Look {
    /// Who holds the mutex?
    Holders,
    /// What is its value?
    Value,
    /// Which mutexes could be removed to make room?
    Room,
}

/// One command, as a seat thinks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Try(Mode),
    Refresh(Mode),
    Break(Mode),
    Look(Look),
    /// UNLOCK, with the class that the drive is believed to have.
    Unlock(Mode),
    Destroy,
    /// Removing an unused mutex: lock it, so that nobody else does; unlock it; destroy it.
    ClearTry(ResourceId),
    /// The same where a host died while it did this.
    ClearBreak(ResourceId),
    ClearUnlock(ResourceId),
    ClearDestroy(ResourceId),
}

impl Step {
    /// Whether it writes a record of ours, or may.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Step::Try(_) | Step::Refresh(_) | Step::Break(_))
    }

    /// Whether it leaves a shared record where there was none.
    pub(crate) fn shares(self) -> bool {
        matches!(self, Step::Try(Mode::Shared) | Step::Break(Mode::Shared))
    }

    /// Whether it makes what we hold exclusively a shared lock.
    pub(crate) fn demotes(self) -> bool {
        matches!(self, Step::Refresh(Mode::Shared) | Step::Break(Mode::Shared))
    }
}

/// A command that was sent and is not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight {
    pub(crate) token: Token,
    pub(crate) step: Step,
    pub(crate) sent: Instant,
    /// The drive was known to have our lock then.
    pub(crate) held: bool,
    /// What it writes into a record of the drives that are counted.
    pub(crate) mark: Mark,
    /// The seat's task when it was sent; a reply to an older task only teaches facts.
    pub(crate) epoch: u32,
}

/// The next command and the moment from which it may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    pub(crate) step: Step,
    pub(crate) at: Instant,
}

/// How the effort to get a drive stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Vote {
    /// No answer yet.
    Asking,
    /// It is ours (a member), or nobody is in the way (a witness).
    Won,
    /// Live holders are in the way; none are named where they could not be read.
    Blocked(Vec<Conflict>),
    /// It does not answer, or not sensibly.
    Silent,
    /// An adoption found no record of ours that a REFRESH would keep in the lock's mode.
    NotOurs,
    /// It has no room.
    Full,
    /// It has no IDM.
    NotIdm,
}

/// What a seat is busy with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    /// Nothing.
    Idle,
    /// Getting the mutex, or looking at it (a witness).
    Take(Take),
    /// Keeping it: one refresh after the other.
    Keep,
    /// Giving it back.
    Clean(Clean),
    /// Leaving what is there as it is: an earlier life's, which could not be adopted yet.
    Leave,
}

/// Getting the mutex on one drive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Take {
    pub(crate) mode: Mode,
    pub(crate) vote: Vote,
    /// Commands sent so far.
    pub(crate) sent: u8,
    /// We hold it in the other mode and convert: nothing that is lost may be taken again here.
    pub(crate) converting: bool,
    /// A witness: look, and take only to break dead holders.
    pub(crate) witness: bool,
    /// An adoption: look, and refresh what is ours in the mode that it has.
    pub(crate) adopting: bool,
    /// An adoption: others that hold it there, alive or not, once the drive was read.
    pub(crate) others: Option<Vec<Conflict>>,
    /// An adoption: when the drive was first read.
    pub(crate) looked_at: Option<Instant>,
    /// An adoption: what our record there says of the acquisition that wrote it. Until that is
    /// adopted, a REFRESH leaves it so.
    pub(crate) own_stamp: Option<Stamp>,
    /// The drive refused because of others, before its table was read.
    pub(crate) refused: bool,
    /// A record of our own was found that we knew nothing of.
    pub(crate) own_found: bool,
    /// A record of our own that misleads others was refreshed, so that it can be right now.
    pub(crate) rewritten: bool,
    /// The dead holders that BREAK is meant for.
    pub(crate) breaking: Vec<HostId>,
    /// Room was made once.
    pub(crate) cleared: bool,
    /// The value was asked for.
    pub(crate) value_asked: bool,
}

/// Giving the mutex back on one drive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Clean {
    /// The value to leave there.
    pub(crate) store: Option<Value>,
    /// Whether the value is to be stored although we are shared: then we become exclusive first,
    /// where no other sharer prevents it.
    pub(crate) promote: bool,
    /// Whether the mutex carries a value that outlives the lock.
    pub(crate) keeps_value: bool,
    /// Whether what is there already is of no use to anybody.
    pub(crate) worthless: bool,
    /// Whether the mutex is to be destroyed; known once it is unlocked.
    pub(crate) destroy: bool,
    /// The class to unlock.
    pub(crate) mode: Mode,
    /// From when on any lease of ours is over, so that there is nothing left to give back.
    pub(crate) until: Instant,
    /// Replies in a row that made no sense.
    pub(crate) refusals: u8,
}

/// What a reply taught beyond what is kept in the seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A status.
    Status(Status),
    /// What the table says of the mutex, and which mutexes are unused where that was asked.
    Table(View, Vec<Unused>),
}

/// What commands of unknown fate may still write into our record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Remark {
    /// What it would say then of the drives that we count; `None` where that is not one mark only.
    pub(crate) mark: Option<Mark>,
    pub(crate) until: Instant,
}

/// One drive's part in a lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seat {
    pub(crate) drive: DriveRef,
    pub(crate) role: Role,
    pub(crate) hold: Hold,
    pub(crate) task: Task,
    pub(crate) epoch: u32,
    pub(crate) flight: Option<Flight>,
    pub(crate) plan: Option<Plan>,
    /// Failures in a row, for the pause before the next try.
    pub(crate) failures: u8,
    /// What our record on the drive says of the drives that we count, as far as that is certain,
    /// and since when: what was sent later has said so, or written it.
    pub(crate) mark: Option<Mark>,
    pub(crate) marked_at: Instant,
    /// What a command of ours may write there instead.
    pub(crate) remark: Option<Remark>,
    /// A command of ours, or of an earlier life of this host, may reach the drive until then and
    /// undo what we take now.
    pub(crate) barred_until: Instant,
    /// A change to shared of ours may reach the drive until then.
    pub(crate) demote_until: Instant,
    /// A change to exclusive of ours may reach the drive until then.
    pub(crate) promote_until: Instant,
    /// A TRYLOCK or BREAK of ours may reach the drive until then and leave a lock behind.
    pub(crate) stray_until: Instant,
    /// The value that was read after this drive was won.
    pub(crate) value: Option<Value>,
    /// What the drive had as value when it was taken is of no use: its last holder died, or was an
    /// earlier life of this host.
    pub(crate) stale_value: bool,
    /// It did not have the lock in the lock's mode when the lease ran out: what it says afterwards
    /// is no proof that nobody had it in the meantime.
    pub(crate) gap: bool,
    /// A live holder with another drive set, and when it was first seen.
    pub(crate) foreign: Option<(HostId, Instant)>,
    /// The drive told of a conflict, and since then it neither said that the mutex is ours nor
    /// showed who it was. So it stands for a holder that may count other drives, and no weaker
    /// answer makes it a drive that is merely silent.
    pub(crate) contested: bool,
    /// It is one of the drives that are to vote in place of those that vote now.
    pub(crate) target: bool,
    /// The lock is held without this drive, which is worth a word when it is gained.
    pub(crate) missed: bool,
    /// It was said that this drive has no IDM.
    pub(crate) not_idm: bool,
}

impl Seat {
    /// A drive that a lock has nothing to do with yet; commands of an earlier life of this host may
    /// reach it until `earlier_until`.
    pub(crate) fn new(drive: DriveRef, role: Role, earlier_until: Instant) -> Seat {
        Seat {
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
            remark: None,
            barred_until: earlier_until,
            demote_until: Instant::default(),
            promote_until: Instant::default(),
            stray_until: Instant::default(),
            value: None,
            stale_value: false,
            gap: false,
            foreign: None,
            contested: false,
            target: false,
            missed: false,
            not_idm: false,
        }
    }

    /// Begins another task. A command that is on its way stays there; its reply will only teach.
    pub(crate) fn assign(&mut self, task: Task) {
        self.task = task;
        self.plan = None;
        self.epoch = self.epoch.wrapping_add(1);
    }

    pub(crate) fn plan(&mut self, step: Step, at: Instant) {
        self.plan = Some(Plan { step, at });
    }

    /// Whether the drive counts as holding our lock in `mode`, where the drives of `set` are
    /// counted: it said so after everything that could undo it had passed, and our record there
    /// does not tell others that we count the same drives as they do.
    pub(crate) fn counts(&self, mode: Mode, set: Fingerprint, rules: Rules) -> bool {
        let Hold::Held { mode: held, since } = self.hold else {
            return false;
        };
        if matches!(self.task, Task::Clean(_)) || self.gap || !self.is_marked(set) {
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

    /// What a command can undo if it is still under way when this host dies.
    pub(crate) fn undoes(&self, step: Step, now: Instant) -> Undoes {
        let held = match self.hold {
            Hold::Held { mode, .. } => Some(mode),
            Hold::None | Hold::Maybe { .. } => None,
        };
        match step {
            // A change to shared of ours that is late makes that shared again.
            Step::Try(Mode::Exclusive) if self.demote_until > now => Undoes::Any,
            Step::Look(_) | Step::Try(_) | Step::ClearTry(_) => Undoes::Nothing,
            // It leaves what is there, unless that is, or becomes, exclusive.
            Step::Refresh(Mode::Shared) | Step::Break(Mode::Shared)
                if held == Some(Mode::Shared) && self.promote_until <= now =>
            {
                Undoes::Exclusive
            }
            Step::Refresh(Mode::Shared) | Step::Break(Mode::Shared) => Undoes::Any,
            // An earlier one that leaves it shared undoes something from now on.
            Step::Refresh(Mode::Exclusive) | Step::Break(Mode::Exclusive)
                if held == Some(Mode::Exclusive) =>
            {
                Undoes::Nothing
            }
            Step::Refresh(Mode::Exclusive) | Step::Break(Mode::Exclusive) => Undoes::Any,
            Step::Unlock(_) | Step::Destroy => Undoes::Any,
            Step::ClearBreak(_) | Step::ClearUnlock(_) | Step::ClearDestroy(_) => Undoes::Any,
        }
    }

    /// Whether our record here is known not to mislead hosts that count other drives than `set`,
    /// whatever is still on its way.
    pub(crate) fn is_marked(&self, set: Fingerprint) -> bool {
        let fits = |mark: Mark| mark.fits(set);
        let stays = match self.remark {
            Some(remark) => remark.mark.is_some_and(fits) || self.marked_at >= remark.until,
            None => true,
        };
        let open = self.flight.as_ref().filter(|flight| flight.step.writes());
        stays && self.mark.is_some_and(fits) && open.is_none_or(|flight| fits(flight.mark))
    }

    /// Whether our record here is known to be taken for another set's by everybody, and stays so.
    pub(crate) fn is_marked_alone(&self) -> bool {
        let flies = |flight: &Flight| flight.mark != Mark::Alone && flight.step.writes();
        let late = self.marked_at < self.remarked_until();
        self.mark == Some(Mark::Alone) && !late && !self.flight.as_ref().is_some_and(flies)
    }

    /// Until when a command of ours may still mark our record as something else.
    pub(crate) fn remarked_until(&self) -> Instant {
        self.remark.map_or(Instant::default(), |remark| remark.until)
    }

    /// A command of ours may write `mark` into our record until then. What others may write stays
    /// in mind for as long as nothing has shown since that it is not there.
    fn expect_remark(&mut self, mark: Mark, until: Instant) {
        let running = self.remark.filter(|remark| self.marked_at < remark.until);
        let same = running.is_none_or(|remark| remark.mark == Some(mark));
        let until = until.max(self.remarked_until());
        self.remark = Some(Remark { mark: same.then_some(mark), until });
    }

    /// Whether the drive may have a record of ours that shares the mutex, and that others go by.
    pub(crate) fn may_share(&self, now: Instant, timing: &Timing) -> bool {
        let flies = |steps: fn(Step) -> bool| self.flight.as_ref().is_some_and(|f| steps(f.step));
        let demoted = self.demote_until > now || flies(Step::demotes);
        match self.hold {
            Hold::None => self.stray_until > now || flies(Step::shares),
            Hold::Held { mode: Mode::Exclusive, .. } => demoted,
            Hold::Held { .. } | Hold::Maybe { .. } => self.over_at(timing) > now,
        }
    }

    /// Whether what the drive said last could still be undone by a command that is older.
    pub(crate) fn may_be_undone(&self) -> bool {
        matches!(self.hold, Hold::Held { since, .. } if since < self.barred_until)
    }

    /// How the vote stands, for seats that are being taken or looked at.
    pub(crate) fn vote(&self) -> Option<&Vote> {
        match &self.task {
            Task::Take(take) => Some(&take.vote),
            _ => None,
        }
    }

    /// Whether the seat is being taken only to add to a lock that is held anyway.
    pub(crate) fn is_enlarging(&self) -> bool {
        matches!(&self.task, Task::Take(take) if !take.witness && !take.converting)
    }

    /// Whether the drive is still being asked for `mode`.
    pub(crate) fn asks_for(&self, mode: Mode) -> bool {
        matches!(&self.task, Task::Take(take) if take.vote == Vote::Asking && take.mode == mode)
    }

    /// What a reply teaches about who owns the mutex on this drive.
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
    /// `earlier`: until when commands of an earlier life may mark a record as that life did.
    ///
    /// A fate is unknown where no answer came: then the command may still arrive. Where the drive
    /// answered with an error it has carried the command out or not, but will not do so later.
    pub(crate) fn absorb(
        &mut self,
        flight: &Flight,
        heard: &Heard,
        now: Instant,
        timing: &Timing,
        earlier: Instant,
        rules: Rules,
    ) {
        let since = if broken!(rules, LeaseFromReply) { now } else { flight.sent };
        let status = match heard {
            Heard::Status(status) => *status,
            Heard::Table(view, _) => {
                self.marked_at = flight.sent;
                return self.absorb_view(view, now, earlier, rules);
            }
        };
        self.absorb_conflict(flight.step, status, rules);
        if status == Status::Uncertain && flight.step.writes() && flight.mark != Mark::Alone {
            self.expect_remark(flight.mark, now + timing.linger);
        }
        if status == Status::Failed && flight.step.writes() {
            self.absorb_mark(flight, false);
        }
        let unknown = matches!(status, Status::Uncertain | Status::Failed);
        // Until when the command may still reach the drive.
        let late = if status == Status::Uncertain { now + timing.linger } else { now };
        let maybe = match self.hold {
            Hold::None => Hold::Maybe { latest: late },
            Hold::Maybe { latest } => Hold::Maybe { latest: latest.max(late) },
            held @ Hold::Held { .. } => held,
        };
        if matches!(flight.step, Step::Break(_)) && (unknown || status == Status::Good) {
            self.stale_value = !broken!(rules, ValueAfterBreak);
        }
        match flight.step {
            Step::Try(mode) | Step::Refresh(mode) | Step::Break(mode) if status == Status::Good => {
                self.hold = Hold::Held { mode, since };
                self.absorb_mark(flight, true);
            }
            Step::Try(_) | Step::Break(_) if unknown => {
                self.hold = maybe;
                self.stray_until = self.stray_until.max(late);
                if matches!(flight.step, Step::Break(Mode::Shared)) {
                    self.demote_until = self.demote_until.max(late);
                }
            }
            Step::Try(_) if status == Status::Terminated => self.hold = maybe,
            Step::Break(_) if status == Status::NotFound => self.hold = Hold::None,
            Step::Refresh(mode) => match status {
                Status::NotFound => self.hold = Hold::None,
                Status::Conflict if !self.promotes(mode) => self.hold = Hold::None,
                Status::Uncertain | Status::Failed => {
                    let may_change = match mode {
                        Mode::Shared => &mut self.demote_until,
                        Mode::Exclusive => &mut self.promote_until,
                    };
                    *may_change = late.max(*may_change);
                }
                _ => {}
            },
            Step::Unlock(_) | Step::Destroy => match status {
                Status::Good | Status::NotFound => self.hold = Hold::None,
                Status::Conflict if flight.step != Step::Destroy => self.hold = Hold::None,
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

    /// What our record says now that a command that writes it was carried out, or may have been.
    /// Whether a REFRESH changes it is not known either. Of two marks the one is assumed that
    /// others could mistake.
    fn absorb_mark(&mut self, flight: &Flight, surely: bool) {
        let writes = surely && !matches!(flight.step, Step::Refresh(_));
        if writes || self.mark == Some(Mark::Alone) {
            self.mark = Some(flight.mark);
            self.marked_at = flight.sent;
        }
    }

    /// Takes note of a conflict, which stands until the drive says that the mutex is ours or shows
    /// its table.
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

    /// Whether a refresh to `mode` is a promotion of what we hold shared.
    fn promotes(&self, mode: Mode) -> bool {
        mode == Mode::Exclusive && matches!(self.hold, Hold::Held { mode: Mode::Shared, .. })
    }

    fn absorb_view(&mut self, view: &View, now: Instant, earlier: Instant, rules: Rules) {
        self.contested = false;
        self.mark = view.own_mark();
        if let (Own::Stale, Some(mark @ Mark::Set(_))) = (view.own, self.mark) {
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

    /// When no lease of ours can be alive on this drive any more.
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

    /// When the planned command may be sent: not while an old UNLOCK may still undo it. What an
    /// adoption finds is refreshed all the same, because its lease may be about to end.
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

    /// When nothing of ours can reach the drive any more.
    pub(crate) fn settled_at(&self) -> Instant {
        let changed = self.demote_until.max(self.promote_until);
        self.barred_until.max(changed).max(self.stray_until).max(self.remarked_until())
    }

    /// The pause after the failures so far: it doubles from `first` up to `limit`.
    pub(crate) fn pause(&self, first: Duration, limit: Duration) -> Duration {
        (first * 2u32.pow(u32::from(self.failures.min(10)))).min(limit)
    }
}
