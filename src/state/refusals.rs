//! A note for `idmctl why`: recent refusals of this host's requests for which no drive shows a
//! holder, and the times until which this host does not ask drives for a lock, because its own
//! commands without an answer may still reach them ("Giving it back" in docs/locking.md). Nothing
//! in the library reads it.
//!
//! The log says the same with each refusal, but a log is not for programs.

use crate::lock::role_of;
use crate::state::note::LONGEST;
use crate::state::store::name_of;
use crate::state::undo_note::Dates;
use crate::state::{file, host_id};
use crate::sys::sync::Mutex;
use core::time::Duration;
use idm_engine::Instant;
use idm_protocol::ResourceId;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const FILE: &str = "refusals";
/// The time for which a refusal is of interest.
const KEPT: Duration = Duration::from_secs(600);
/// The most refusals that are kept.
const MOST: usize = 64;

/// Refusals, and dates until which this host does not ask drives for locks. Times are in us of
/// CLOCK_BOOTTIME.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    lvs_until_us: u64,
    others_until_us: u64,
    exclusive_until_us: u64,
    /// The last refusal of each lock, the newest last.
    #[serde(default)]
    refused: Vec<Refusal>,
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The lock, as the notes of locks are called.
    lock: String,
    at_us: u64,
    /// The line of the log.
    pub why: String,
    /// Whether drives answered with a conflict, and no table shows a holder.
    pub conflict: bool,
    #[serde(default)]
    barred: Vec<BarredDrive>,
}

/// A drive that a refused request could not ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct BarredDrive {
    /// The drive's identity.
    drive: String,
    until_us: u64,
}

#[derive(Serialize, Deserialize)]
struct OfBoot {
    boot_id: String,
    #[serde(flatten)]
    refusals: Refusals,
}

impl Refusal {
    /// The time since the refusal.
    pub fn age(&self, now: Instant) -> Duration {
        now.since(Instant::from_micros(self.at_us))
    }

    fn is_over(&self, now: Instant) -> bool {
        let ended = |it: &BarredDrive| Instant::from_micros(it.until_us) <= now;
        self.age(now) > KEPT && self.barred.iter().all(ended)
    }
}

impl Refusals {
    /// Reads the note of a boot below a state directory. A note that is damaged counts as none.
    pub fn peek(state_dir: &Path, boot: &str) -> Refusals {
        let text = file::read(&state_dir.join(FILE)).unwrap_or_default();
        let read: Option<OfBoot> = toml::from_slice(&text).ok();
        read.filter(|read| read.boot_id == boot).map(|read| read.refusals).unwrap_or_default()
    }

    /// The date until which commands of an earlier lvmlockd may reach the drives of a lock, and the
    /// date for a request to have it alone, if they are not over.
    pub fn earlier(&self, lock: &ResourceId, now: Instant) -> [Option<Instant>; 2] {
        let dates = Dates {
            lvs: Instant::from_micros(self.lvs_until_us),
            others: Instant::from_micros(self.others_until_us),
            exclusive: Instant::from_micros(self.exclusive_until_us),
        };
        let any = dates.of(role_of(lock));
        [any, any.max(dates.exclusive)].map(|until| Some(until).filter(|it| is_ahead(*it, now)))
    }

    /// The last refusal of a lock, if it was granted to nobody here since.
    pub fn last(&self, lock: &ResourceId, now: Instant) -> Option<&Refusal> {
        let lock = name_of(lock);
        let last = self.refused.iter().find(|it| it.lock == lock)?;
        (Instant::from_micros(last.at_us) <= now && last.age(now) <= KEPT).then_some(last)
    }

    /// The date until which a drive with that identity is not asked for a lock, if it is not over.
    pub fn barred(&self, lock: &ResourceId, drive: &str, now: Instant) -> Option<Instant> {
        let lock = name_of(lock);
        let refused = self.refused.iter().find(|it| it.lock == lock)?;
        let barred = refused.barred.iter().find(|it| it.drive == drive)?;
        Some(Instant::from_micros(barred.until_us)).filter(|until| is_ahead(*until, now))
    }

    fn is_over(&self, now: Instant) -> bool {
        let dates = [self.lvs_until_us, self.others_until_us, self.exclusive_until_us];
        self.refused.is_empty() && dates.iter().all(|it| Instant::from_micros(*it) <= now)
    }
}

/// Whether a date is ahead, and one that the library can have written.
fn is_ahead(until: Instant, now: Instant) -> bool {
    now < until && until <= now + LONGEST
}

/// Writer of the note.
pub struct RefusalNote {
    file: PathBuf,
    boot: String,
    refusals: Mutex<Refusals>,
}

impl RefusalNote {
    /// Begins the note of a life that waits for commands of an earlier one until these dates. There
    /// is no file without contents.
    pub fn start(state_dir: &Path, earlier: Dates, now: Instant) -> io::Result<RefusalNote> {
        let refusals = Refusals {
            lvs_until_us: earlier.lvs.as_micros(),
            others_until_us: earlier.others.as_micros(),
            exclusive_until_us: earlier.exclusive.as_micros(),
            refused: Vec::new(),
        };
        let note = RefusalNote {
            file: state_dir.join(FILE),
            boot: host_id::boot_id()?,
            refusals: Mutex::default(),
        };
        note.change(now, |it| *it = refusals);
        Ok(note)
    }

    /// Notes that a request for a lock was refused, with the line of the log, whether drives
    /// answered with a `conflict` that no table explains, and the drives that could not be asked,
    /// each with its date.
    pub fn refused(
        &self,
        lock: &ResourceId,
        (why, conflict): (&str, bool),
        barred: &[(String, Instant)],
        now: Instant,
    ) {
        let barred = barred.iter().map(|(drive, until)| BarredDrive {
            drive: drive.clone(),
            until_us: until.as_micros(),
        });
        let refusal = Refusal {
            lock: name_of(lock),
            at_us: now.as_micros(),
            why: why.to_owned(),
            conflict,
            barred: barred.collect(),
        };
        self.change(now, |refusals| {
            refusals.refused.retain(|it| it.lock != refusal.lock && !it.is_over(now));
            refusals.refused.push(refusal);
            let surplus = refusals.refused.len().saturating_sub(MOST);
            refusals.refused.drain(..surplus);
        });
    }

    /// Notes why a request for a lock that was begun at `begun` was not granted, unless its refusal
    /// was noted.
    pub fn failed(&self, lock: &ResourceId, why: &str, begun: Instant, now: Instant) {
        let name = name_of(lock);
        let is_noted = |it: &Refusal| it.lock == name && it.at_us >= begun.as_micros();
        if !self.refusals.lock().refused.iter().any(is_noted) {
            self.refused(lock, (why, false), &[], now);
        }
    }

    /// Forgets the last refusal of a lock that was granted.
    pub fn granted(&self, lock: &ResourceId, now: Instant) {
        if self.refusals.lock().refused.is_empty() {
            return;
        }
        let lock = name_of(lock);
        // The grant of any other lock costs no write.
        if self.refusals.lock().refused.iter().any(|it| it.lock == lock) {
            self.change(now, |refusals| refusals.refused.retain(|it| it.lock != lock));
        }
    }

    fn change(&self, now: Instant, change: impl FnOnce(&mut Refusals)) {
        let mut refusals = self.refusals.lock();
        change(&mut refusals);
        let written = match refusals.is_over(now) {
            true => match fs::remove_file(&self.file) {
                Err(error) if !file::is_absent(&error) => Err(error),
                _ => Ok(()),
            },
            false => self.write(&refusals),
        };
        if let Err(error) = written {
            // No lock depends on it.
            log::info!("{}: cannot be written: {error}", self.file.display());
        }
    }

    fn write(&self, refusals: &Refusals) -> io::Result<()> {
        let noted = OfBoot { boot_id: self.boot.clone(), refusals: refusals.clone() };
        let text = toml::to_string(&noted).map_err(io::Error::other)?;
        file::replace(&self.file, &text, file::PRIVATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VG: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
    const LV: &str = "abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP";
    const WHY: (&str, bool) = ("why\nnot", false);

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn peek(directory: &Path) -> Refusals {
        Refusals::peek(directory, &host_id::boot_id().unwrap())
    }

    fn ids() -> [ResourceId; 2] {
        [ResourceId::vg(VG).unwrap(), ResourceId::lv(VG, LV).unwrap()]
    }

    #[test]
    fn what_an_earlier_life_left_is_told_by_kinds_of_locks_until_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let earlier = Dates { lvs: at(0), others: at(115), exclusive: at(110) };
        RefusalNote::start(directory.path(), earlier, at(100)).unwrap();
        let ([vg, lv], noted) = (ids(), peek(directory.path()));
        assert_eq!(noted.earlier(&vg, at(101)), [Some(at(115)); 2]);
        assert_eq!(noted.earlier(&lv, at(101)), [None, Some(at(110))]);
        assert_eq!(noted.earlier(&lv, at(110)), [None, None]);
        assert_eq!(noted.earlier(&vg, at(115)), [None, None]);
    }

    #[test]
    fn a_refusal_is_told_of_its_lock_and_its_drives_only() {
        let directory = tempfile::tempdir().unwrap();
        let note = RefusalNote::start(directory.path(), Dates::default(), at(100)).unwrap();
        let file = directory.path().join(FILE);
        assert!(!file.exists(), "there is nothing to tell");
        let [vg, lv] = ids();
        note.refused(&lv, WHY, &[("d0".into(), at(110)), ("d1".into(), at(115))], at(100));
        let noted = peek(directory.path());
        assert_eq!(noted.barred(&lv, "d0", at(109)), Some(at(110)));
        assert_eq!(noted.barred(&lv, "d0", at(110)), None);
        assert_eq!(noted.barred(&lv, "d1", at(110)), Some(at(115)));
        assert_eq!(noted.barred(&lv, "d2", at(100)), None);
        assert_eq!(noted.barred(&vg, "d0", at(100)), None);
        assert_eq!(noted.earlier(&lv, at(100)), [None, None]);
        let last = noted.last(&lv, at(103)).unwrap();
        assert_eq!((last.why.as_str(), last.age(at(103))), (WHY.0, Duration::from_secs(3)));
        assert_eq!(noted.last(&vg, at(103)), None);
        // The next refusal of the lock replaces it.
        note.refused(&lv, WHY, &[("d2".into(), at(118))], at(105));
        let noted = peek(directory.path());
        assert_eq!(noted.barred(&lv, "d1", at(105)), None);
        assert_eq!(noted.barred(&lv, "d2", at(105)), Some(at(118)));
        // The next life begins with its own.
        RefusalNote::start(directory.path(), Dates::default(), at(121)).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_refusal_is_told_until_the_lock_is_granted_or_it_is_old() {
        let directory = tempfile::tempdir().unwrap();
        let note = RefusalNote::start(directory.path(), Dates::default(), at(100)).unwrap();
        let [vg, lv] = ids();
        note.refused(&vg, ("a conflict", true), &[], at(100));
        note.refused(&lv, WHY, &[], at(101));
        note.granted(&lv, at(102));
        let noted = peek(directory.path());
        assert!(noted.last(&lv, at(103)).is_none() && noted.last(&vg, at(103)).unwrap().conflict);
        let later = at(100) + KEPT + Duration::from_secs(1);
        assert_eq!(noted.last(&vg, later), None);
        note.refused(&lv, WHY, &[], later);
        assert_eq!(peek(directory.path()).refused.len(), 1, "the old one is removed");
        note.granted(&lv, later);
        assert!(!directory.path().join(FILE).exists());
    }

    #[test]
    fn an_error_is_told_that_is_no_refusal_which_is_told_already() {
        let directory = tempfile::tempdir().unwrap();
        let note = RefusalNote::start(directory.path(), Dates::default(), at(100)).unwrap();
        let [vg, lv] = ids();
        note.refused(&lv, ("a conflict", true), &[], at(101));
        note.failed(&lv, "a conflict", at(100), at(101));
        note.failed(&vg, "no watchdog", at(100), at(101));
        let noted = peek(directory.path());
        assert!(noted.last(&lv, at(102)).unwrap().conflict);
        assert_eq!(noted.last(&vg, at(102)).unwrap().why, "no watchdog");
        note.failed(&lv, "lost", at(102), at(103));
        assert_eq!(peek(directory.path()).last(&lv, at(103)).unwrap().why, "lost");
    }

    #[test]
    fn there_are_not_too_many() {
        let directory = tempfile::tempdir().unwrap();
        let note = RefusalNote::start(directory.path(), Dates::default(), at(100)).unwrap();
        let id = |n: usize| ResourceId::lv(VG, &format!("{n:032}")).unwrap();
        for number in 0..=MOST {
            note.refused(&id(number), WHY, &[], at(100));
        }
        let noted = peek(directory.path());
        assert_eq!(noted.refused.len(), MOST);
        assert!(noted.last(&id(0), at(100)).is_none() && noted.last(&id(MOST), at(100)).is_some());
    }

    #[test]
    fn what_is_damaged_or_of_another_boot_is_no_bar() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        RefusalNote::start(directory.path(), Dates::all(at(115)), at(100)).unwrap();
        let [vg, _] = ids();
        assert_eq!(Refusals::peek(directory.path(), "another"), Refusals::default());
        let whole = fs::read_to_string(&file).unwrap();
        let late = whole.replace("115000000", "11500000000000");
        file::replace(&file, &late, file::PRIVATE).unwrap();
        assert_eq!(peek(directory.path()).earlier(&vg, at(101)), [None, None]);
        file::replace(&file, &whole[..whole.len() / 2], file::PRIVATE).unwrap();
        assert_eq!(peek(directory.path()), Refusals::default());
        fs::remove_file(&file).unwrap();
        assert_eq!(peek(directory.path()), Refusals::default());
        // Something that cannot be replaced does no harm.
        fs::create_dir(&file).unwrap();
        let note = RefusalNote::start(directory.path(), Dates::default(), at(100)).unwrap();
        note.refused(&vg, WHY, &[("d0".into(), at(110))], at(100));
        assert_eq!(peek(directory.path()), Refusals::default());
    }
}
