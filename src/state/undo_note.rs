//! A note for the next lvmlockd, in case this one dies: the time until which a command of this one
//! may still reach a drive and undo a lock that the next one believes it holds.
//!
//! A killed process leaves its commands with the kernel and the adapter: an UNLOCK or DESTROY of a
//! lock that was given up, a REFRESH or BREAK that makes a lock shared. So the date is noted before
//! such a command is handed out. A missing note is safe, because then the next lvmlockd waits for
//! the longest time that any command may stay. A note with a date that is too early is not safe.
//!
//! A command undoes only locks of its own mutex. Locks of VGs are given up all the time, and those
//! of LVs seldom, so each kind has its own date: the adoption of a lock in use need not wait
//! because of a lock that was not in use. The REFRESH of a shared lock undoes only a lock that the
//! next life makes exclusive; this kind has a third date.

use crate::lock::Role;
use crate::state::{file, host_id};
use core::time::Duration;
use idm_engine::{Instant, Timing, Undoes};
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const FILE: &str = "undoing-until";
/// Time added to the noted date, so that many commands need only one write.
const AHEAD: Duration = Duration::from_secs(1);
/// Pause after a note could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// Writer of the note.
///
/// The reactor writes the note itself, before it hands a command out, because it would have to wait
/// for any other thread. This is one write of a few bytes into a file in memory, at most once a
/// second.
pub struct UndoNote {
    path: PathBuf,
    boot: String,
    /// The longest time that commands of this or an earlier life stay after its end.
    linger: Duration,
    /// The longest time that a command of this life stays after it was handed out.
    stay: Duration,
    file: Option<fs::File>,
    /// Dates that this life waits for.
    earlier: Dates,
    /// Dates that are noted, or will be as soon as there is a note again.
    due: Dates,
    /// Time of the next try after a note could not be written. There is no note until then.
    again: Instant,
}

/// Dates until which undoing commands may reach drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dates {
    /// Date of commands for locks of LVs.
    pub lvs: Instant,
    /// Date of commands for all other locks: VG locks, memberships and the global lock. Also of
    /// orders that remove this host's registration.
    pub others: Instant,
    /// Date of commands that undo any lock that is not adopted as exclusive, but acquired or made
    /// exclusive.
    pub exclusive: Instant,
}

/// The locks of the next life that a command can undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// Locks of LVs.
    Lvs,
    /// All other locks.
    Others,
    /// Locks that become exclusive in that life.
    Exclusive,
}

impl Undone {
    /// The locks that a command for a lock with this role can undo; `None` if there are none.
    pub fn of(role: Role, undoes: Undoes) -> Option<Undone> {
        match (undoes, role) {
            (Undoes::Nothing, _) => None,
            // A membership never becomes exclusive.
            (Undoes::Exclusive, Role::Membership) => None,
            (Undoes::Exclusive, _) => Some(Undone::Exclusive),
            (Undoes::Any, _) => Some(Undone::adopted(role)),
        }
    }

    /// The adopted locks of this role.
    fn adopted(role: Role) -> Undone {
        match role {
            Role::Lv => Undone::Lvs,
            Role::Global | Role::Vg | Role::Membership => Undone::Others,
        }
    }
}

impl Dates {
    /// The same date for all locks.
    pub fn all(until: Instant) -> Dates {
        Dates { lvs: until, others: until, exclusive: until }
    }

    /// The date that counts for the adoption of a lock.
    pub fn of(mut self, role: Role) -> Instant {
        *self.date(Undone::adopted(role))
    }

    fn date(&mut self, undone: Undone) -> &mut Instant {
        match undone {
            Undone::Lvs => &mut self.lvs,
            Undone::Others => &mut self.others,
            Undone::Exclusive => &mut self.exclusive,
        }
    }

    /// The same dates, each limited to `latest`.
    fn at_most(self, latest: Instant) -> Dates {
        Dates {
            lvs: self.lvs.min(latest),
            others: self.others.min(latest),
            exclusive: self.exclusive.min(latest),
        }
    }
}

/// Dates until which commands of earlier lives may still reach drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// Dates of commands that undo a lock on a drive.
    pub undoing: Dates,
    /// Date of all others, which only write the set of drives that the earlier life counted.
    pub writes_until: Instant,
}

/// Contents of the note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undoing {
    /// Dates until which an undoing command may reach a drive.
    pub until: Dates,
    /// Time for which a command of the life that wrote this may reach a drive after its end.
    pub linger: Duration,
}

impl UndoNote {
    /// Reads the note of an earlier life, and starts that of this one, which began at `began`. With
    /// `first`, no earlier life of this boot has used this host's id, so none can undo anything.
    /// `longest` is the longest lease of all lives.
    ///
    /// Also returns the dates until which commands of earlier lives may still reach drives.
    pub fn start(
        state_dir: &Path,
        timing: &Timing,
        (began, first): (Instant, bool),
        longest: Duration,
    ) -> io::Result<(UndoNote, Earlier)> {
        let path = state_dir.join(FILE);
        let boot = host_id::boot_id()?;
        let left = file::read(&path).ok().and_then(|text| parse(&text, &boot));
        // The lease may have been longer in that life.
        let unknown = Timing::for_lease(longest).linger;
        let earlier = left.map_or(if first { Duration::ZERO } else { unknown }, |left| left.linger);
        let linger = timing.linger.max(earlier);
        let until = match left {
            _ if first => Dates::default(),
            Some(left) => left.until.at_most(began + linger),
            None => Dates::all(began + linger),
        };
        let stay = 2 * timing.linger;
        // If this life ends before the date that it waits for, the next one waits as well.
        let again = Instant::default();
        let mut note =
            UndoNote { path, boot, linger, stay, file: None, earlier: until, due: until, again };
        if let Err(error) = note.write() {
            // Even without a note, this life keeps the locks of the earlier one. If it did not
            // start, they would not be kept.
            if !note.remove(&error, began) {
                return Err(error);
            }
        }
        let writes_until = if first { Instant::default() } else { began + linger };
        Ok((note, Earlier { undoing: until, writes_until }))
    }

    /// Notes that an undoing command for such a lock is about to be handed out. With `false` it
    /// must not be handed out: the note promises too much and can be neither changed nor removed.
    pub fn cover(&mut self, undone: Undone, now: Instant) -> bool {
        let until = now + self.stay;
        let is_covered = until <= *self.due.date(undone);
        if is_covered && self.file.as_ref().is_some_and(is_linked) {
            return true;
        }
        if !is_covered {
            *self.due.date(undone) = until + AHEAD;
        }
        if now < self.again {
            return true;
        }
        match self.write() {
            Ok(()) => true,
            Err(error) => self.remove(&error, now),
        }
    }

    /// Notes that every command of this life has ended: the next one only waits for those of
    /// earlier lives. Where that cannot be noted, the later dates stay.
    pub fn settle(&mut self) {
        self.due = self.earlier;
        if let Err(error) = self.write() {
            log::warn!("{}: cannot be shortened: {error}", self.path.display());
        }
    }

    /// Removes the note, which could not be written because of `why`. Returns whether there is none
    /// now.
    fn remove(&mut self, why: &io::Error, now: Instant) -> bool {
        self.file = None;
        match fs::remove_file(&self.path) {
            Err(error) if !file::is_absent(&error) => {
                log::error!("{}: can be neither written nor removed: {error}", self.path.display());
                return false;
            }
            _ => {}
        }
        log::warn!("{}: cannot be written, and is removed: {why}", self.path.display());
        self.again = now + AGAIN;
        true
    }

    fn write(&mut self) -> io::Result<()> {
        let text = format(&self.boot, Undoing { until: self.due, linger: self.linger });
        match &self.file {
            Some(file) if is_linked(file) => file.write_all_at(text.as_bytes(), 0)?,
            _ => {
                file::replace(&self.path, &text, file::PRIVATE)?;
                let mut options = fs::OpenOptions::new();
                options.write(true).custom_flags(libc::O_NOFOLLOW);
                self.file = Some(options.open(&self.path)?);
            }
        }
        Ok(())
    }
}

/// Whether a file still has a name; text written into a file without a name is lost.
fn is_linked(file: &fs::File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
}

/// The text of the file. It is overwritten in place, so its length is always the same, and it has
/// the dates twice: this shows a write that was cut short.
pub fn format(boot: &str, undoing: Undoing) -> String {
    let linger = undoing.linger.as_micros();
    let Dates { lvs, others, exclusive } = undoing.until;
    let dates = [("lvs", lvs), ("others", others), ("exclusive", exclusive)]
        .map(|(name, until)| format!("{name}_until_us {:020}\n", until.as_micros()))
        .concat();
    format!("boot_id {boot}\nlinger_us {linger:020}\n{dates}{dates}")
}

/// The contents of a file's text; `None` if the text is damaged or from another boot.
pub fn parse(text: &[u8], boot: &str) -> Option<Undoing> {
    let text = core::str::from_utf8(text).ok()?;
    let mut lines = text.lines();
    // The boot id is compared together with the whole text.
    lines.next()?;
    let mut number = |name: &str| lines.next()?.strip_prefix(name)?.parse().ok();
    let linger = Duration::from_micros(number("linger_us ")?);
    let lvs = Instant::from_micros(number("lvs_until_us ")?);
    let others = Instant::from_micros(number("others_until_us ")?);
    let exclusive = Instant::from_micros(number("exclusive_until_us ")?);
    let undoing = Undoing { until: Dates { lvs, others, exclusive }, linger };
    (format(boot, undoing) == text).then_some(undoing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::leases::{Leases, Left};

    const LEASE: Duration = Duration::from_secs(60);

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn a_refresh_of_a_shared_lock_undoes_what_becomes_exclusive_and_a_membership_never_does() {
        for role in [Role::Lv, Role::Vg, Role::Global] {
            assert_eq!(Undone::of(role, Undoes::Exclusive), Some(Undone::Exclusive));
        }
        assert_eq!(Undone::of(Role::Membership, Undoes::Exclusive), None);
        assert_eq!(Undone::of(Role::Membership, Undoes::Any), Some(Undone::Others));
        assert_eq!(Undone::of(Role::Lv, Undoes::Any), Some(Undone::Lvs));
        assert_eq!(Undone::of(Role::Lv, Undoes::Nothing), None);
    }

    /// Returns the time until which locks of LVs wait.
    fn start(directory: &Path, lease: Duration, began: u64, first: bool) -> (UndoNote, Instant) {
        let timing = Timing::for_lease(lease);
        let left = if first { Left::Nothing } else { Left::Locks };
        let longest = Leases::note(directory, lease, left).unwrap().longest;
        let (note, earlier) =
            UndoNote::start(directory, &timing, (at(began), first), longest).unwrap();
        let longest = if first { Duration::ZERO } else { timing.linger };
        assert!(first || earlier.writes_until >= at(began) + longest);
        (note, earlier.undoing.lvs)
    }

    #[test]
    fn a_life_waits_for_what_the_earlier_one_may_have_left() {
        let directory = tempfile::tempdir().unwrap();
        let (mut note, until) = start(directory.path(), LEASE, 100, true);
        assert_eq!(until, at(0), "there was no earlier life");
        assert!(note.cover(Undone::Lvs, at(200)));
        // No command of a dead process stays until 216.
        assert_eq!(start(directory.path(), LEASE, 201, false).1, at(216));
        assert_eq!(start(directory.path(), LEASE, 230, false).1, at(216), "which is inherited");
        note.cover(Undone::Lvs, at(300));
        assert_eq!(start(directory.path(), LEASE, 325, false).1, at(331));
        assert_eq!(start(directory.path(), LEASE, 900, false).1, at(331));
    }

    #[test]
    fn a_life_that_ends_in_order_leaves_only_what_it_waited_for_itself() {
        let directory = tempfile::tempdir().unwrap();
        let (mut note, _) = start(directory.path(), LEASE, 100, true);
        note.cover(Undone::Lvs, at(200));
        note.settle();
        assert_eq!(start(directory.path(), LEASE, 201, false).1, at(0));
        note.cover(Undone::Lvs, at(210));
        let (mut note, until) = start(directory.path(), LEASE, 211, false);
        assert_eq!(until, at(226));
        note.cover(Undone::Lvs, at(212));
        note.settle();
        assert_eq!(start(directory.path(), LEASE, 213, false).1, at(226));
        // A settled note still records new commands.
        note.cover(Undone::Lvs, at(300));
        assert_eq!(start(directory.path(), LEASE, 301, false).1, at(316));
    }

    #[test]
    fn one_write_does_for_many_commands() {
        let directory = tempfile::tempdir().unwrap();
        let (mut note, _) = start(directory.path(), LEASE, 0, true);
        let mut dates = Vec::new();
        let (boot, path) = (note.boot.clone(), directory.path().join(FILE));
        for ms in 0..3000 {
            let now = Instant::from_micros(10_000_000 + ms * 1000);
            assert!(note.cover(Undone::Lvs, now));
            let until = parse(&fs::read(&path).unwrap(), &boot).unwrap().until.lvs;
            assert!(until >= now + LEASE / 2);
            dates.push(until);
        }
        dates.dedup();
        assert_eq!(dates.len(), 3);
    }

    #[test]
    fn a_shorter_lease_does_not_shorten_what_is_under_way() {
        let directory = tempfile::tempdir().unwrap();
        let short = Duration::from_secs(2);
        let (mut note, _) = start(directory.path(), LEASE, 100, true);
        note.cover(Undone::Lvs, at(200));
        drop(note);
        assert_eq!(start(directory.path(), short, 201, false).1, at(216));
        assert_eq!(start(directory.path(), short, 202, false).1, at(216));
    }

    #[test]
    fn without_a_note_a_life_waits_for_all_that_there_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        let (mut note, _) = start(directory.path(), Duration::from_secs(2), 100, true);
        fs::remove_file(&file).unwrap();
        let short = Duration::from_secs(2);
        assert_eq!(start(directory.path(), short, 150, false).1, at(150) + short / 4);
        // The leases are not known either.
        fs::remove_file(&file).unwrap();
        fs::remove_file(directory.path().join("leases")).unwrap();
        assert_eq!(start(directory.path(), short, 200, false).1, at(215));
        // The note was also removed while the first one was open.
        assert!(note.cover(Undone::Lvs, at(300)));
        let whole = fs::read(&file).unwrap();
        assert_eq!(parse(&whole, &note.boot).unwrap().until.lvs, at(302));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length], &note.boot), None, "{length}");
        }
        assert_eq!(parse(&whole, "another"), None);
        // Overwritten in part.
        let newer = Undoing { until: Dates::all(at(999)), linger: note.linger };
        let newer = format(&note.boot, newer);
        for cut in 1..whole.len() {
            let mixed = [&newer.as_bytes()[..cut], &whole[cut..]].concat();
            let read = parse(&mixed, &note.boot).map(|undoing| undoing.until);
            let older = note.due;
            assert!([None, Some(older), Some(Dates::all(at(999)))].contains(&read), "{read:?}");
        }
        fs::write(&file, &whole[..40]).unwrap();
        assert_eq!(start(directory.path(), LEASE, 400, false).1, at(415));
    }

    /// The note of the life with the longer lease could not be written, and was removed.
    #[test]
    fn without_a_note_a_shorter_lease_does_not_shorten_what_is_under_way_either() {
        let directory = tempfile::tempdir().unwrap();
        let (mut note, _) = start(directory.path(), 2 * LEASE, 100, true);
        assert!(note.cover(Undone::Lvs, at(200)));
        let new = file::obstruct(&directory.path().join(FILE));
        fs::remove_file(directory.path().join(FILE)).unwrap();
        assert!(note.cover(Undone::Lvs, at(300)));
        assert!(!directory.path().join(FILE).exists());
        fs::remove_dir(&new).unwrap();
        drop(note);
        // The command may arrive until 331.
        assert!(start(directory.path(), LEASE, 301, false).1 >= at(331));
    }

    /// There was no room for any note while the life with the longer lease lived.
    #[test]
    fn a_longer_lease_for_which_there_was_no_room_does_not_shorten_what_is_under_way() {
        let directory = tempfile::tempdir().unwrap();
        drop(start(directory.path(), LEASE / 2, 100, true));
        let both = [FILE, "leases"].map(|name| file::obstruct(&directory.path().join(name)));
        let (mut note, _) = start(directory.path(), LEASE * 3 / 2, 200, false);
        assert!(note.cover(Undone::Lvs, at(300)));
        assert!(!directory.path().join(FILE).exists());
        drop(note);
        both.iter().for_each(|it| fs::remove_dir(it).unwrap());
        // The command may arrive until 323.
        let waits = start(directory.path(), LEASE / 2, 301, false).1;
        assert!(waits >= at(323), "{waits:?}");
    }

    #[test]
    fn what_cannot_be_noted_is_not_noted_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let (mut note, _) = start(&state, LEASE, 100, true);
        fs::remove_dir_all(&state).unwrap();
        fs::write(&state, "no directory").unwrap();
        assert!(note.cover(Undone::Lvs, at(200)), "there is no note");
        fs::remove_file(&state).unwrap();
        assert!(note.cover(Undone::Lvs, at(202)));
        assert_eq!(start(&state, LEASE, 203, false).1, at(218));
        // A note that can be neither written nor removed.
        fs::remove_file(state.join(FILE)).unwrap();
        fs::create_dir(state.join(FILE)).unwrap();
        assert!(!note.cover(Undone::Lvs, at(300)));
    }

    fn dates(directory: &Path, began: u64) -> (Instant, Instant) {
        let timing = Timing::for_lease(LEASE);
        let (_, earlier) = UndoNote::start(directory, &timing, (at(began), false), LEASE).unwrap();
        (earlier.undoing.of(Role::Lv), earlier.undoing.of(Role::Vg))
    }

    #[test]
    fn what_is_in_use_does_not_wait_for_what_vgs_locks_undo() {
        let directory = tempfile::tempdir().unwrap();
        let (mut note, _) = start(directory.path(), LEASE, 100, true);
        for role in [Role::Vg, Role::Global, Role::Membership] {
            note.cover(Undone::of(role, Undoes::Any).unwrap(), at(200));
        }
        assert_eq!(dates(directory.path(), 201), (at(0), at(216)));
        note.cover(Undone::Lvs, at(300));
        assert_eq!(dates(directory.path(), 301), (at(316), at(231)));
    }

    #[test]
    fn a_life_begins_without_a_note_where_none_can_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let (mut note, _) = start(directory.path(), LEASE, 100, true);
        assert!(note.cover(Undone::Lvs, at(200)));
        drop(note);
        let new = file::obstruct(&directory.path().join(FILE));
        let (mut note, until) = start(directory.path(), LEASE, 201, false);
        assert_eq!(until, at(216));
        assert!(!directory.path().join(FILE).exists(), "the next life waits as long as it must");
        assert!(note.cover(Undone::Others, at(300)));
        fs::remove_dir(&new).unwrap();
        assert!(note.cover(Undone::Others, at(302)));
        assert_eq!(dates(directory.path(), 303), (at(216), at(318)));
    }

    #[test]
    fn what_was_handed_out_without_a_note_is_in_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let (mut note, _) = start(&state, LEASE, 100, true);
        fs::remove_dir_all(&state).unwrap();
        fs::write(&state, "no directory").unwrap();
        assert!(note.cover(Undone::Others, at(200)));
        assert!(note.cover(Undone::Lvs, Instant::from_micros(200_500_000)));
        fs::remove_file(&state).unwrap();
        assert!(note.cover(Undone::Others, at(202)));
        let read = parse(&fs::read(state.join(FILE)).unwrap(), &note.boot).unwrap().until;
        assert!(read.lvs >= Instant::from_micros(230_500_000) && read.others >= at(232));
        assert_eq!(dates(&state, 203), (at(218), at(218)));
    }
}
