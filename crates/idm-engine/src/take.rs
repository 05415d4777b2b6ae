//! Taking the mutex on one drive: TRYLOCK, and the steps after a refusal.
//!
//! ```text
//! TRYLOCK ─ good ───────────────────────────────▶ won
//!    ├─ conflict, or held by ourselves
//!    │     └▶ read the table ─▶ live holders ─▶ blocked
//!    │                 ├─ our own record ─▶ REFRESH ─▶ won
//!    │                 ├─ the same, from when this host counted other drives
//!    │                 │     └▶ REFRESH ─▶ read whether it says so now ─▶ won
//!    │                 │                           └─ still not ─▶ UNLOCK ─▶ TRYLOCK
//!    │                 ├─ all holders timed out ─▶ BREAK ─▶ won
//!    │                 └─ nobody any more ─▶ TRYLOCK
//!    ├─ full ─▶ read the table ─▶ the same, and where nobody is in the way
//!    │                            remove an unused mutex ─▶ TRYLOCK
//!    └─ no answer ─▶ again, a few times ─▶ silent
//! ```
//!
//! An adoption only looks, and refreshes the records of this host that it finds.

use crate::api::{Conflict, Fingerprint, Instant, Notice, Timing};
use crate::replica::{Heard, Hold, Look, Replica, Step, Take, Task, Vote};
use crate::rng::Rng;
use crate::rules::{Rules, broken};
use crate::view::{Own, Unused, View};
use alloc::vec::Vec;
use core::time::Duration;
use idm_protocol::{Limit, Mode, Status};

/// The limit of commands in one attempt to take one drive.
const COMMANDS: u8 = 8;
/// The number of commands after which TRYLOCK is not repeated, although no holder is found in the
/// way. So a request that live holders refuse has sent four commands at most.
const REFUSED_COMMANDS: u8 = 3;
/// The number of commands after which a drive that does not answer is given up.
const SILENT_COMMANDS: u8 = 3;
/// The number of refused reads after which a drive counts as one that does not answer.
const REFUSED_READS: u8 = 2;
/// The first pause before a drive that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// The data that taking a replica needs besides the replica.
pub(crate) struct TakeContext<'a> {
    pub(crate) now: Instant,
    pub(crate) timing: &'a Timing,
    pub(crate) rules: Rules,
    /// The drives that are counted.
    pub(crate) set: Fingerprint,
    pub(crate) rng: &'a mut Rng,
    pub(crate) notices: &'a mut Vec<Notice>,
    /// Set if others share the lock, so that its value is not certain.
    pub(crate) shared: &'a mut bool,
}

impl Take {
    fn new(mode: Mode) -> Take {
        Take {
            mode,
            vote: Vote::Asking,
            sent: 0,
            converting: false,
            witness: false,
            adopting: false,
            others: None,
            own_stamp: None,
            refused: false,
            denied: false,
            refused_reads: 0,
            own_found: false,
            rewritten: false,
            breaking: Vec::new(),
            cleared: false,
            value_asked: false,
        }
    }
}

impl Replica {
    /// Begins to take the mutex.
    pub(crate) fn start_take(&mut self, mode: Mode, at: Instant) {
        self.doubt_hold();
        self.start_again(mode, at);
    }

    /// Begins to take the mutex once more for the same lock. What the drive confirmed for it
    /// stands: it was asked nothing that could change that.
    pub(crate) fn start_again(&mut self, mode: Mode, at: Instant) {
        self.begin_take(mode, Step::Try(mode), at);
    }

    /// Begins to take the mutex with a look first. It is not known whether a TRYLOCK alone gives a
    /// host the lock of its earlier life again; if it does, only an earlier look can show that.
    pub(crate) fn start_look_and_take(&mut self, mode: Mode, at: Instant) {
        self.doubt_hold();
        self.begin_take(mode, Step::Look(Look::Holders), at);
    }

    /// Forgets that the drive confirmed a lock of an earlier life or acquisition. It does not count
    /// in this one until the drive confirms it.
    fn doubt_hold(&mut self) {
        if let Hold::Held { since, .. } = self.hold {
            self.hold = Hold::Maybe { latest: since };
        }
    }

    fn begin_take(&mut self, mode: Mode, first: Step, at: Instant) {
        self.assign(Task::Take(Take::new(mode)));
        self.value = None;
        self.failures = 0;
        self.plan(first, at);
    }

    /// Begins to change a lock of this host from shared to exclusive.
    pub(crate) fn start_promote(&mut self, now: Instant) {
        self.assign(Task::Take(Take { converting: true, ..Take::new(Mode::Exclusive) }));
        self.failures = 0;
        self.plan(Step::Refresh(Mode::Exclusive), now);
    }

    /// Begins to look for holders that exclude `mode`; an adoption keeps its own records.
    pub(crate) fn start_witness(&mut self, mode: Mode, adopting: bool, now: Instant) {
        self.doubt_hold();
        self.assign(Task::Take(Take { witness: true, adopting, ..Take::new(mode) }));
        self.failures = 0;
        self.plan(Step::Look(Look::Holders), now);
    }

    /// Begins to look for a record of an earlier life of this host, to adopt it.
    pub(crate) fn start_adopt(&mut self, now: Instant) {
        self.doubt_hold();
        self.begin_take(Mode::Shared, Step::Look(Look::Holders), now);
        if self.hold == Hold::None {
            // The earlier life may have it, until the drive is read.
            self.hold = Hold::Maybe { latest: now };
        }
        if let Task::Take(take) = &mut self.task {
            take.adopting = true;
        }
    }

    /// Acts on the reply to `step`.
    pub(crate) fn advance_take(&mut self, step: Step, heard: Heard, cx: &mut TakeContext<'_>) {
        let Task::Take(take) = &mut self.task else {
            return;
        };
        take.sent = take.sent.saturating_add(1);
        let mode = take.mode;
        match (step, heard) {
            (Step::Look(Look::Value), heard) => self.note_value(heard, cx),
            (Step::Look(Look::Room), Heard::Table(view, unused)) if !view.matters_to(mode) => {
                self.make_room(&unused, cx);
            }
            (Step::Look(_), Heard::Table(view, _)) => self.judge(&view, cx),
            (Step::Look(_), Heard::Status(status)) => self.unreadable(status, step, cx),
            (Step::ClearTry(id) | Step::ClearBreak(id), Heard::Status(Status::Good)) => {
                self.plan(Step::ClearUnlock(id), cx.now);
            }
            (Step::ClearUnlock(id), Heard::Status(Status::Good)) => {
                self.plan(Step::ClearDestroy(id), cx.now);
            }
            (Step::ClearDestroy(id), Heard::Status(Status::Good | Status::NotFound)) => {
                cx.notices.push(Notice::Collected { resource: id, drive: self.drive });
                self.plan(Step::Try(mode), cx.now);
            }
            (
                Step::ClearTry(_)
                | Step::ClearBreak(_)
                | Step::ClearUnlock(_)
                | Step::ClearDestroy(_),
                _,
            ) => {
                self.close(Vote::Full);
            }
            // This host's record is out of the way, or was already: it is taken anew.
            (
                Step::Unlock(_),
                Heard::Status(Status::Good | Status::NotFound | Status::Conflict),
            ) => {
                self.then(Step::Try(mode), cx);
            }
            (Step::Unlock(_), _) => self.retry(Step::Look(Look::Holders), cx),
            (_, Heard::Status(status)) => self.advance_by_status(step, status, cx),
            (_, Heard::Table(..)) => self.retry(step, cx),
        }
    }

    fn advance_by_status(&mut self, step: Step, status: Status, cx: &mut TakeContext<'_>) {
        let contested = self.contested;
        let Task::Take(take) = &mut self.task else {
            return;
        };
        take.refused |= contested;
        let mode = take.mode;
        match (status, step) {
            (Status::Good, _) => self.win(step, cx),
            // Only another look may follow a REFRESH that is refused.
            (
                Status::Conflict
                | Status::Terminated
                | Status::WrongState
                | Status::NotFound
                | Status::Full(_),
                Step::Refresh(_),
            ) if take.adopting => {
                self.contested |= status != Status::NotFound;
                self.then(Step::Look(Look::Holders), cx);
            }
            (Status::Conflict | Status::TryAgain | Status::WrongState, Step::Try(_)) => {
                take.denied = true;
                self.plan(Step::Look(Look::Holders), cx.now);
            }
            // TRYLOCK: this host holds it already. REFRESH to exclusive: others share it.
            (Status::Terminated, Step::Try(_)) => self.plan(Step::Look(Look::Holders), cx.now),
            (Status::Terminated | Status::WrongState, Step::Refresh(_)) => {
                self.plan(Step::Look(Look::Holders), cx.now);
            }
            (Status::Conflict, Step::Refresh(_)) if take.converting => {
                self.plan(Step::Look(Look::Holders), cx.now);
            }
            (Status::NotFound, Step::Refresh(_)) if take.converting => self.close(Vote::Silent),
            (Status::Conflict, Step::Refresh(_)) => self.then(Step::Try(mode), cx),
            (Status::NotFound, Step::Break(_)) if take.witness => {
                self.then(Step::Look(Look::Holders), cx);
            }
            (Status::NotFound, Step::Refresh(_) | Step::Break(_)) => self.then(Step::Try(mode), cx),
            // A holder that looked dead has come back, or another host was faster.
            (Status::Conflict | Status::Terminated | Status::WrongState, _) => {
                self.then(Step::Look(Look::Holders), cx);
            }
            (Status::Full(_), _) if take.cleared => self.close(Vote::Full),
            (Status::Full(limit), _) => {
                take.cleared = true;
                // Removing other mutexes makes no room in this one, but a look may show a holder.
                let in_mutex = limit == Limit::HostsOfMutex;
                let look = if in_mutex { Look::Holders } else { Look::Room };
                self.plan(Step::Look(look), cx.now);
            }
            (Status::Unsupported, _) => self.close(Vote::NotIdm),
            (Status::NotFound, _) => self.close(Vote::Silent),
            (Status::TryAgain | Status::Failed | Status::Unreachable | Status::Uncertain, _) => {
                self.retry(step, cx)
            }
        }
    }

    /// Notes that the drive confirmed this host's lock.
    fn win(&mut self, step: Step, cx: &mut TakeContext<'_>) {
        let drive = self.drive;
        let (undone, marked) = (self.may_be_undone(), self.is_marked(cx.set));
        let barred = self.barred_until;
        let Task::Take(take) = &mut self.task else {
            return;
        };
        if take.adopting && undone {
            // It counts after the drive has confirmed it once more.
            self.failures = 0;
            return self.plan(step, barred);
        }
        if matches!(step, Step::Refresh(_)) && take.converting && !marked {
            return self.close(Vote::Silent);
        }
        if matches!(step, Step::Refresh(_)) && !take.adopting && !marked {
            take.rewritten = true;
            return self.then(Step::Look(Look::Holders), cx);
        }
        take.vote = Vote::Won;
        self.failures = 0;
        match step {
            Step::Break(_) => {
                let hosts = core::mem::take(&mut take.breaking);
                cx.notices.push(Notice::Broke { hosts, drive });
            }
            Step::Refresh(_) if take.own_found => cx.notices.push(Notice::TookOverOwn { drive }),
            _ => {}
        }
    }

    /// Finds the holders in the way, after the table was read.
    fn judge(&mut self, view: &View, cx: &mut TakeContext<'_>) {
        let Task::Take(take) = &mut self.task else {
            return;
        };
        let refused = core::mem::take(&mut take.refused);
        take.refused_reads = 0;
        if take.adopting && !take.witness {
            return self.judge_orphan(view, cx);
        }
        let mode = take.mode;
        if view.own == Own::Stale && !take.converting && !take.witness {
            take.own_found = true;
        }
        let reckless = broken!(cx.rules, BreakOnlyTimedOut);
        let live = view.live_against(mode);
        // Some firmware admits only one sharer, even a dead one, and may say BUSY to others.
        let dead = view.dead_against(mode) || (take.denied && !view.dead.is_empty());
        if !live.is_empty() && !reckless {
            self.close(Vote::Blocked(live));
        } else if take.converting && view.own == Own::None {
            self.close(Vote::Silent);
        } else if !view.clearing.is_empty() {
            self.outwait(&view.clearing, cx);
        } else if (dead && view.live.is_empty()) || (reckless && view.has_others()) {
            take.breaking = view.dead.iter().map(|c| c.host).collect();
            self.then(Step::Break(mode), cx);
        } else if view.dead_against(mode) {
            // It is not known what a drive does with a BREAK against both living and dead holders,
            // so none is sent.
            self.close(Vote::Blocked(view.live.clone()));
        } else if take.witness && !(take.adopting && view.own != Own::None) {
            take.vote = Vote::Won;
        } else if view.own != Own::None {
            self.judge_own(view, cx);
        } else if take.sent < REFUSED_COMMANDS {
            self.then(Step::Try(mode), cx);
        } else if view.live.is_empty() && !refused {
            self.close(Vote::Silent);
        } else {
            // The holder has gone and another came, or this firmware admits only one sharer.
            self.close(Vote::Blocked(view.live.clone()));
        }
    }

    /// Decides about this host's own record, if no holder is in the way.
    fn judge_own(&mut self, view: &View, cx: &mut TakeContext<'_>) {
        let marked = self.is_marked(cx.set);
        let Task::Take(take) = &mut self.task else {
            return;
        };
        let mode = take.mode;
        match view.own_mode {
            // The table shows the effect of the last REFRESH.
            Some(held) if take.rewritten && marked && held == mode => {
                self.win(Step::Refresh(mode), cx);
            }
            Some(held) if take.rewritten && !marked => self.then(Step::Unlock(held), cx),
            _ => self.then(Step::Refresh(mode), cx),
        }
    }

    /// Waits for a host that holds the mutex only to remove it, which takes a moment.
    fn outwait(&mut self, clearing: &[Conflict], cx: &TakeContext<'_>) {
        let Task::Take(take) = &self.task else {
            return;
        };
        if take.sent >= COMMANDS {
            return self.close(Vote::Blocked(clearing.to_vec()));
        }
        self.pause_and_plan(Step::Look(Look::Holders), cx);
    }

    /// Decides whether there is a record to adopt on this drive.
    fn judge_orphan(&mut self, view: &View, cx: &mut TakeContext<'_>) {
        let Task::Take(take) = &mut self.task else {
            return;
        };
        take.others = Some(view.others().copied().collect());
        take.own_stamp = view.own_stamp;
        match view.own_mode {
            Some(mode) => {
                take.own_found = true;
                self.then(Step::Refresh(mode), cx);
            }
            None if broken!(cx.rules, AdoptOnlyOwn) && !view.has_others() => {
                self.then(Step::Try(Mode::Exclusive), cx);
            }
            None => self.close(Vote::NotOurs),
        }
    }

    /// Handles a table that could not be read.
    fn unreadable(&mut self, status: Status, step: Step, cx: &TakeContext<'_>) {
        match status {
            Status::Unsupported => self.close(Vote::NotIdm),
            Status::Conflict => self.refuses_reads(step, cx),
            _ if self.contested => self.close(Vote::Blocked(Vec::new())),
            _ => self.retry(step, cx),
        }
    }

    /// Handles a drive that also refuses to be read. The holder of a mutex never causes that, but a
    /// reservation of the whole drive does: then its conflicts are not about the mutex.
    fn refuses_reads(&mut self, step: Step, cx: &TakeContext<'_>) {
        let Task::Take(take) = &mut self.task else {
            return;
        };
        take.refused_reads += 1;
        self.contested &= take.refused_reads < REFUSED_READS;
        self.retry(step, cx);
    }

    /// Notes the value that came with the mutex. If this host's record has gone since the drive was
    /// won, the table shows the holders in the way instead.
    fn note_value(&mut self, heard: Heard, cx: &mut TakeContext<'_>) {
        let Heard::Table(view, _) = heard else { return };
        // A sharer may have changed the value while it was exclusive, and a drive may not store
        // what a REFRESH carries: only a sole holder is sure of the value.
        *cx.shared |= view.has_others() && !broken!(cx.rules, ValueBesideSharers);
        let Task::Take(take) = &mut self.task else { return };
        let live = view.live_against(take.mode);
        if view.own == Own::None {
            (take.vote, take.value_asked) = (Vote::Asking, false);
            return self.judge(&view, cx);
        }
        self.value = Some(view.value);
        if !live.is_empty() {
            // A late change to shared of this host has let another host in.
            self.close(Vote::Blocked(live));
        }
    }

    /// Removes one unused mutex, or gives up.
    fn make_room(&mut self, unused: &[Unused], cx: &mut TakeContext<'_>) {
        if unused.is_empty() {
            return self.close(Vote::Full);
        }
        // A random one, so that hosts that need room at the same time do not all choose the same.
        let victim = unused[(cx.rng.next() % unused.len() as u64) as usize];
        let step = match victim {
            Unused { resource, half_cleared: false } => Step::ClearTry(resource),
            Unused { resource, half_cleared: true } => Step::ClearBreak(resource),
        };
        self.plan(step, cx.now);
    }

    /// Plans the next step, unless the attempt has taken too many commands already.
    fn then(&mut self, step: Step, cx: &TakeContext<'_>) {
        if self.exhausted(COMMANDS) {
            return;
        }
        self.plan(step, cx.now);
    }

    /// Plans a failed step once more, after a pause.
    fn retry(&mut self, step: Step, cx: &TakeContext<'_>) {
        if self.exhausted(SILENT_COMMANDS) {
            return;
        }
        self.pause_and_plan(step, cx);
    }

    fn pause_and_plan(&mut self, step: Step, cx: &TakeContext<'_>) {
        let pause = self.pause(PAUSE, cx.timing.patience);
        self.failures = self.failures.saturating_add(1);
        self.plan(step, cx.now + pause);
    }

    /// Gives up after `limit` commands.
    fn exhausted(&mut self, limit: u8) -> bool {
        let Task::Take(take) = &self.task else {
            return true;
        };
        if take.sent < limit {
            return false;
        }
        self.close(Vote::Silent);
        true
    }

    /// Ends the attempt. A drive that reported a conflict and could not be read is in the way.
    pub(crate) fn close(&mut self, vote: Vote) {
        if let Task::Take(take) = &mut self.task {
            let unread = self.contested && !matches!(vote, Vote::Blocked(_));
            take.vote = if unread { Vote::Blocked(Vec::new()) } else { vote };
        }
        self.plan = None;
    }
}
