//! A note for the next lvmlockd, in case this one dies: the time until which the locks in use were
//! safe.
//!
//! The next lvmlockd cannot ask drives that do not answer, but it must know when the use of each VG
//! has to end. The note has one date per VG, because trouble of one VG is no reason to stop the use
//! of another. A separate thread writes the note, because the reactor never waits for a file.

use crate::state::note::{Form, LONGEST, Note};
use crate::state::store;
use crate::sys::service::{Service, Shared};
use core::time::Duration;
use idm_engine::Instant;
use idm_protocol::ResourceId;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The file's name in the state directory.
const FILE: &str = "safe-until";

/// For each VG that has locks in use, by the VG's mutex: the date until which all of them are safe.
pub type Dates = BTreeMap<ResourceId, Instant>;

/// Date of one VG in the note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Date until which all locks of the VG that are in use are safe.
    pub until: Instant,
    /// Whether the leases of the locks show that. Otherwise an earlier note was lost, and this is
    /// only when the use of the VG has to end.
    pub is_shown: bool,
}

impl Date {
    fn shown(until: Instant) -> Date {
        Date { until, is_shown: true }
    }

    /// The date that holds for the locks of both.
    pub fn and(self, other: Date) -> Date {
        let (until, is_shown) = (self.until.min(other.until), self.is_shown && other.is_shown);
        Date { until, is_shown }
    }
}

/// Contents of the note, by the VG's mutex.
pub type Noted = BTreeMap<ResourceId, Date>;

/// Writer of the note. Dropping it acts like a sudden death of lvmlockd: the note stays as it is.
pub struct SafeNote {
    service: Service<SafeNoteState>,
    left: Option<Noted>,
}

#[derive(Default)]
struct SafeNoteState {
    /// Dates of the locks in use.
    firsts: Dates,
    /// Dates of the locks that an earlier lvmlockd left, until the state of each of them is known.
    left: Noted,
    /// Contents of the note; `None` if there is none.
    noted: Option<Noted>,
}

impl SafeNoteState {
    /// The date of a VG, from this lvmlockd's locks and those that were left.
    fn date(&self, vg: &ResourceId) -> Option<Date> {
        let first = self.firsts.get(vg).copied().map(Date::shown);
        let left = self.left.get(vg).copied();
        first.into_iter().chain(left).reduce(Date::and)
    }

    fn dates(&self) -> Noted {
        let vgs = self.firsts.keys().chain(self.left.keys());
        vgs.filter_map(|vg| Some((*vg, self.date(vg)?))).collect()
    }

    /// Whether the note promises too much. All other changes can be written later: a date that has
    /// only moved on, and a VG whose first lock was just granted, because without a date the next
    /// lvmlockd counts the lease from the request.
    fn is_urgent(&self) -> bool {
        let Some(noted) = &self.noted else { return !self.is_unused() };
        let exceeds =
            |(vg, noted): (_, &Date)| self.date(vg).is_some_and(|date| date.and(*noted) != *noted);
        noted.iter().any(exceeds)
    }

    fn is_unused(&self) -> bool {
        self.firsts.is_empty() && self.left.is_empty()
    }

    /// Whether no lock is in use and the note says so, so that there is nothing to write later.
    fn is_idle(&self) -> bool {
        self.is_unused() && self.noted.as_ref().is_none_or(Noted::is_empty)
    }
}

impl SafeNote {
    /// Starts with the dates that an earlier lvmlockd left. Dates that move on are written once per
    /// `pause`; while locks are in use, `look` is called at the same interval.
    pub fn start(
        state_dir: &Path,
        pause: Duration,
        look: Box<dyn Fn() + Send>,
    ) -> io::Result<SafeNote> {
        let note = note(state_dir)?;
        let left = note.read();
        let (firsts, known) = (Dates::new(), left.clone().unwrap_or_default());
        let state = SafeNoteState { firsts, left: known, noted: left.clone() };
        let run = move |shared: &Arc<_>| write(shared, &note, pause, &look);
        Ok(SafeNote { service: Service::start("idm-note", state, run)?, left })
    }

    /// The date until which the VG's locks that an earlier lvmlockd left were safe; `Some(None)` if
    /// none was in use, `None` if the note did not have this.
    pub fn left(&self, vg: &ResourceId) -> Option<Option<Date>> {
        self.left.as_ref().map(|left| left.get(vg).copied())
    }

    /// Sets, for each VG that has locks in use, the date until which all of them are safe.
    pub fn protect(&self, firsts: Dates) {
        self.set(|state| state.firsts = firsts);
    }

    /// Adds dates of VGs with locks that an earlier lvmlockd left, where its note had none.
    pub fn open(&self, dates: Noted) {
        self.set(|state| {
            for (vg, date) in dates {
                state.left.entry(vg).or_insert(date);
            }
        });
    }

    /// Whether the state of all locks that an earlier lvmlockd left is known.
    pub fn is_settled(&self) -> bool {
        self.service.shared().lock().left.is_empty()
    }

    /// Drops the earlier lvmlockd's dates of all VGs that are not `open`: this one keeps or has
    /// given up all their locks.
    pub fn settle_left(&self, is_open: impl Fn(&ResourceId) -> bool) {
        self.set(|state| state.left.retain(|vg, _| is_open(vg)));
    }

    fn set(&self, change: impl FnOnce(&mut SafeNoteState)) {
        let shared = self.service.shared();
        let mut state = shared.lock();
        let was_idle = state.is_idle();
        change(&mut state);
        if state.is_urgent() || was_idle && !state.is_idle() {
            shared.wake();
        }
    }
}

fn write(shared: &Shared<SafeNoteState>, note: &Note<Noted>, pause: Duration, look: &dyn Fn()) {
    let mut failing = false;
    let mut state = shared.lock();
    while !state.quits() {
        let dates = state.dates();
        let changed = state.noted.as_ref().map_or(!dates.is_empty(), |noted| *noted != dates);
        drop(state);
        look();
        let is_lost = !dates.is_empty() && !note.is_there();
        if changed || is_lost {
            let written = note.write(&dates);
            if let (Err(error), false) = (&written, failing) {
                log::warn!("the time until which locks are safe cannot be noted: {error}");
            }
            failing = written.is_err();
            if failing {
                // It may promise too much, and a missing note is safe. If there was no room, there
                // is some now.
                note.remove();
            }
            shared.lock().noted = (!failing).then_some(dates);
        } else {
            failing = false;
        }
        state = shared.lock();
        let idle = state.is_idle() && !failing;
        let pause = if idle { IDLE } else { pause };
        state = shared.wait_while(state, pause, |state| {
            let wakes = state.is_urgent() || idle && !state.is_idle();
            !state.quits() && (failing || !wakes)
        });
    }
}

/// The longest sleep where nothing has to be written.
const IDLE: Duration = Duration::from_secs(3600);

fn note(state_dir: &Path) -> io::Result<Note<Noted>> {
    Note::new(state_dir, FILE, Form { format, parse, is_fixed: false })
}

/// Word before a date that leases show.
const SHOWN: &str = " safe_until_us ";
/// Word before a date that they do not.
const FEARED: &str = " use_ends_at_us ";

/// The text of the file.
pub fn format(boot: &str, dates: &Noted) -> String {
    let mut text = format!("boot_id {boot}\nvgs {}\n", dates.len());
    for (vg, date) in dates {
        let word = if date.is_shown { SHOWN } else { FEARED };
        // Writing into memory cannot fail.
        let _ = writeln!(text, "{}{word}{}", store::name_of(vg), date.until.as_micros());
    }
    text
}

/// The dates in a file's text; `None` if the text is damaged or from another boot.
pub fn parse(text: &[u8], boot: &str, now: Instant) -> Option<Noted> {
    let text = core::str::from_utf8(text).ok()?;
    let mut dates = Noted::new();
    // The lines before are compared with the whole.
    for line in text.lines().skip(2) {
        let shown = line.split_once(SHOWN).map(|parts| (parts, true));
        let feared = || line.split_once(FEARED).map(|parts| (parts, false));
        let ((vg, until), is_shown) = shown.or_else(feared)?;
        let until = Instant::from_micros(until.parse().ok()?);
        dates.insert(ResourceId::vg(vg).ok()?, Date { until, is_shown });
    }
    // With a date that no lease reaches, the use would go on after the locks are lost.
    let possible = dates.values().all(|date| date.until <= now + LONGEST);
    (possible && format(boot, &dates) == text).then_some(dates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::file;
    use std::time;

    const NEVER: Duration = Duration::from_secs(600);
    const OFTEN: Duration = Duration::from_millis(5);

    fn vg(number: usize) -> ResourceId {
        ResourceId::vg(&format!("{number:032}")).unwrap()
    }

    /// Dates for VGs numbered in order.
    fn at(us: &[u64]) -> Dates {
        us.iter().enumerate().map(|(n, &us)| (vg(n), Instant::from_micros(us))).collect()
    }

    fn shown(us: &[u64]) -> Noted {
        at(us).into_iter().map(|(vg, date)| (vg, Date::shown(date))).collect()
    }

    fn eventually(note: &Note<Noted>, expected: Option<Noted>) {
        let begun = time::Instant::now();
        while note.read() != expected {
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", note.read());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn start(directory: &Path, pause: Duration) -> SafeNote {
        SafeNote::start(directory, pause, Box::new(|| ())).unwrap()
    }

    #[test]
    fn what_promises_too_much_and_cannot_be_corrected_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let note = super::note(directory.path()).unwrap();
        let keeper = start(directory.path(), OFTEN);
        keeper.protect(at(&[50]));
        eventually(&note, Some(shown(&[50])));
        let new = file::obstruct(&directory.path().join(FILE));
        keeper.protect(at(&[40]));
        eventually(&note, None);
        std::fs::remove_dir(&new).unwrap();
        eventually(&note, Some(shown(&[40])));
    }

    #[test]
    fn what_would_promise_too_much_is_corrected_at_once_and_the_rest_by_and_by() {
        let directory = tempfile::tempdir().unwrap();
        let note = super::note(directory.path()).unwrap();
        let keeper = start(directory.path(), NEVER);
        assert_eq!((keeper.left(&vg(0)), note.read()), (None, None));
        keeper.protect(at(&[50]));
        eventually(&note, Some(shown(&[50])));
        keeper.protect(at(&[60]));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(note.read(), Some(shown(&[50])));
        keeper.protect(at(&[40, 80]));
        eventually(&note, Some(shown(&[40, 80])));
        keeper.protect(at(&[70, 75]));
        eventually(&note, Some(shown(&[70, 75])));
        // Locks that are taken and given back in a row do not cost a file each.
        for dates in [&[70][..], &[], &[90, 90, 90], &[]] {
            keeper.protect(at(dates));
            std::thread::sleep(Duration::from_millis(10));
            assert_eq!(note.read(), Some(shown(&[70, 75])), "{dates:?}");
        }
        drop(keeper);
        note.write(&shown(&[])).unwrap();
        let keeper = start(directory.path(), OFTEN);
        assert_eq!(keeper.left(&vg(0)), Some(None));
        keeper.protect(at(&[50]));
        eventually(&note, Some(shown(&[50])));
        keeper.protect(at(&[60]));
        eventually(&note, Some(shown(&[60])));
        keeper.protect(at(&[]));
        eventually(&note, Some(shown(&[])));
    }

    #[test]
    fn the_first_lock_after_a_long_time_without_any_is_noted() {
        let directory = tempfile::tempdir().unwrap();
        let note = super::note(directory.path()).unwrap();
        note.write(&shown(&[])).unwrap();
        let keeper = start(directory.path(), OFTEN);
        for us in [50, 60] {
            std::thread::sleep(Duration::from_millis(30));
            keeper.protect(at(&[us]));
            eventually(&note, Some(shown(&[us])));
            keeper.protect(at(&[]));
            eventually(&note, Some(shown(&[])));
        }
    }

    #[test]
    fn what_was_left_of_a_vg_counts_until_it_is_settled() {
        let directory = tempfile::tempdir().unwrap();
        let note = super::note(directory.path()).unwrap();
        note.write(&shown(&[30, 40])).unwrap();
        let keeper = start(directory.path(), OFTEN);
        for (number, left) in [Some(30), Some(40), None].into_iter().enumerate() {
            assert_eq!(
                keeper.left(&vg(number)),
                Some(left.map(|us| Date::shown(Instant::from_micros(us))))
            );
        }
        keeper.protect(at(&[50, 20]));
        eventually(&note, Some(shown(&[30, 20])));
        keeper.protect(at(&[50, 60]));
        eventually(&note, Some(shown(&[30, 40])));
        keeper.settle_left(|open| *open == vg(0));
        eventually(&note, Some(shown(&[30, 60])));
        assert!(!keeper.is_settled());
        keeper.settle_left(|_| false);
        eventually(&note, Some(shown(&[50, 60])));
        assert!(keeper.is_settled());
    }

    /// The date of a VG does not promise more than is known of any of its locks.
    #[test]
    fn a_date_that_no_lease_shows_is_noted_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let note = super::note(directory.path()).unwrap();
        let keeper = start(directory.path(), NEVER);
        keeper.protect(at(&[50]));
        eventually(&note, Some(shown(&[50])));
        let feared = |us| Date { until: Instant::from_micros(us), is_shown: false };
        keeper.open([(vg(0), feared(60))].into());
        eventually(&note, Some([(vg(0), feared(50))].into()));
        keeper.settle_left(|_| false);
        keeper.protect(at(&[70, 40]));
        keeper.protect(at(&[45]));
        eventually(&note, Some(shown(&[45])));
    }

    #[test]
    fn what_others_may_have_written_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let note = super::note(directory.path()).unwrap();
        note.write(&shown(&[30])).unwrap();
        assert_eq!(note.read(), Some(shown(&[30])));
        let file = directory.path().join(FILE);
        let planted = directory.path().join("planted");
        std::fs::rename(&file, &planted).unwrap();
        std::os::unix::fs::symlink(&planted, &file).unwrap();
        assert_eq!(note.read(), None, "a link");
    }

    #[test]
    fn what_is_damaged_is_not_believed() {
        let now = Instant::from_micros(1_000_000);
        let feared = Date { is_shown: false, ..Date::shown(now) };
        let mixed = shown(&[7]).into_iter().chain([(vg(1), feared)]).collect();
        for dates in [shown(&[]), shown(&[999_999]), shown(&[1_000_000, 1_000_001]), mixed] {
            let whole = format("b", &dates);
            assert_eq!(parse(whole.as_bytes(), "b", now), Some(dates));
            assert_eq!(parse(whole.as_bytes(), "another", now), None);
            for length in 0..whole.len() {
                assert_eq!(parse(&whole.as_bytes()[..length], "b", now), None, "{length}");
            }
        }
        let whole = format("b", &shown(&[1_000_000]));
        let last = whole.lines().last().unwrap();
        for text in [
            whole.replace("us ", "us +"),
            whole.replace("us ", "us 0"),
            whole.clone() + "x",
            whole.clone() + last + "\n",
        ] {
            assert_eq!(parse(text.as_bytes(), "b", now), None, "{text}");
        }
        let late = [(vg(0), Date::shown(now + LONGEST + Duration::from_micros(1)))].into();
        assert_eq!(parse(format("b", &late).as_bytes(), "b", now), None);
    }
}
