//! A note for `idmctl why`: until when this host does not ask drives for a lock, because commands
//! of its own that had no answer may still reach them ("Giving it back" in docs/locking.md).
//! Nothing in the library reads it.
//!
//! The log says the same with each refusal, but a log is not for programs.

use crate::lock::role_of;
use crate::state::note::LONGEST;
use crate::state::store::name_of;
use crate::state::undo_note::Dates;
use crate::state::{file, host_id};
use crate::sys::sync::Mutex;
use idm_engine::Instant;
use idm_protocol::ResourceId;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const FILE: &str = "barred-until";

/// Dates until which this host does not ask drives for locks, in us of CLOCK_BOOTTIME.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bars {
    lvs_until_us: u64,
    others_until_us: u64,
    exclusive_until_us: u64,
    #[serde(default)]
    refused: Vec<BarredDrive>,
}

/// A drive that a refused request could not ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct BarredDrive {
    /// The lock, as the notes of locks are called.
    lock: String,
    /// The drive's identity.
    drive: String,
    until_us: u64,
}

#[derive(Serialize, Deserialize)]
struct OfBoot {
    boot_id: String,
    #[serde(flatten)]
    bars: Bars,
}

impl Bars {
    /// Reads the note of a boot below a state directory. A note that is damaged counts as none.
    pub fn peek(state_dir: &Path, boot: &str) -> Bars {
        let text = file::read(&state_dir.join(FILE)).unwrap_or_default();
        let read: Option<OfBoot> = toml::from_slice(&text).ok();
        read.filter(|read| read.boot_id == boot).map(|read| read.bars).unwrap_or_default()
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

    /// The date until which a drive with that identity is not asked for a lock, if it is not over.
    pub fn drive(&self, lock: &ResourceId, drive: &str, now: Instant) -> Option<Instant> {
        let lock = name_of(lock);
        let is_it = |it: &&BarredDrive| it.lock == lock && it.drive == drive;
        let dates = self.refused.iter().filter(is_it);
        dates.map(|it| Instant::from_micros(it.until_us)).filter(|it| is_ahead(*it, now)).max()
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
pub struct BarNote {
    file: PathBuf,
    boot: String,
    bars: Mutex<Bars>,
}

impl BarNote {
    /// Begins the note of a life that waits for commands of an earlier one until these dates. There
    /// is no file while there is nothing to wait for.
    pub fn start(state_dir: &Path, earlier: Dates, now: Instant) -> io::Result<BarNote> {
        let bars = Bars {
            lvs_until_us: earlier.lvs.as_micros(),
            others_until_us: earlier.others.as_micros(),
            exclusive_until_us: earlier.exclusive.as_micros(),
            refused: Vec::new(),
        };
        let note = BarNote {
            file: state_dir.join(FILE),
            boot: host_id::boot_id()?,
            bars: Mutex::new(Bars::default()),
        };
        note.change(now, |it| *it = bars);
        Ok(note)
    }

    /// Notes the drives that a refused request for a lock could not ask, each with its date.
    pub fn refused(&self, lock: &ResourceId, drives: &[(String, Instant)], now: Instant) {
        if drives.is_empty() {
            return;
        }
        let lock = name_of(lock);
        self.change(now, |bars| {
            bars.refused.retain(|it| it.lock != lock);
            bars.refused.extend(drives.iter().map(|(drive, until)| BarredDrive {
                lock: lock.clone(),
                drive: drive.clone(),
                until_us: until.as_micros(),
            }));
        });
    }

    /// Changes the note, and removes from it what is over.
    fn change(&self, now: Instant, change: impl FnOnce(&mut Bars)) {
        let mut bars = self.bars.lock();
        change(&mut bars);
        bars.refused.retain(|it| Instant::from_micros(it.until_us) > now);
        let written = match bars.is_over(now) {
            true => match fs::remove_file(&self.file) {
                Err(error) if !file::is_absent(&error) => Err(error),
                _ => Ok(()),
            },
            false => self.write(&bars),
        };
        if let Err(error) = written {
            // No lock depends on it.
            log::info!("{}: cannot be written: {error}", self.file.display());
        }
    }

    fn write(&self, bars: &Bars) -> io::Result<()> {
        let noted = OfBoot { boot_id: self.boot.clone(), bars: bars.clone() };
        let text = toml::to_string(&noted).map_err(io::Error::other)?;
        file::replace(&self.file, &text, file::PRIVATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VG: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
    const LV: &str = "abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP";

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn peek(directory: &Path) -> Bars {
        Bars::peek(directory, &host_id::boot_id().unwrap())
    }

    fn ids() -> [ResourceId; 2] {
        [ResourceId::vg(VG).unwrap(), ResourceId::lv(VG, LV).unwrap()]
    }

    #[test]
    fn what_an_earlier_life_left_is_told_by_kinds_of_locks_until_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let earlier = Dates { lvs: at(0), others: at(115), exclusive: at(110) };
        BarNote::start(directory.path(), earlier, at(100)).unwrap();
        let ([vg, lv], bars) = (ids(), peek(directory.path()));
        assert_eq!(bars.earlier(&vg, at(101)), [Some(at(115)); 2]);
        assert_eq!(bars.earlier(&lv, at(101)), [None, Some(at(110))]);
        assert_eq!(bars.earlier(&lv, at(110)), [None, None]);
        assert_eq!(bars.earlier(&vg, at(115)), [None, None]);
    }

    #[test]
    fn a_refusal_is_told_of_its_lock_and_its_drives_only() {
        let directory = tempfile::tempdir().unwrap();
        let note = BarNote::start(directory.path(), Dates::default(), at(100)).unwrap();
        let file = directory.path().join(FILE);
        assert!(!file.exists(), "there is nothing to wait for");
        let [vg, lv] = ids();
        note.refused(&lv, &[], at(100));
        assert!(!file.exists());
        note.refused(&lv, &[("d0".into(), at(110)), ("d1".into(), at(115))], at(100));
        let bars = peek(directory.path());
        assert_eq!(bars.drive(&lv, "d0", at(109)), Some(at(110)));
        assert_eq!(bars.drive(&lv, "d0", at(110)), None);
        assert_eq!(bars.drive(&lv, "d1", at(110)), Some(at(115)));
        assert_eq!(bars.drive(&lv, "d2", at(100)), None);
        assert_eq!(bars.drive(&vg, "d0", at(100)), None);
        assert_eq!(bars.earlier(&lv, at(100)), [None, None]);
        // The next refusal of the lock replaces them, that of another one removes what is over.
        note.refused(&lv, &[("d2".into(), at(118))], at(105));
        let bars = peek(directory.path());
        assert_eq!(bars.drive(&lv, "d1", at(105)), None);
        assert_eq!(bars.drive(&lv, "d2", at(105)), Some(at(118)));
        note.refused(&vg, &[("d2".into(), at(130))], at(120));
        assert_eq!(peek(directory.path()).refused.len(), 1);
        // The next life begins with its own.
        BarNote::start(directory.path(), Dates::default(), at(121)).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn what_is_damaged_or_of_another_boot_is_no_bar() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        BarNote::start(directory.path(), Dates::all(at(115)), at(100)).unwrap();
        let [vg, _] = ids();
        assert_eq!(Bars::peek(directory.path(), "another"), Bars::default());
        let whole = fs::read_to_string(&file).unwrap();
        let late = whole.replace("115000000", "11500000000000");
        file::replace(&file, &late, file::PRIVATE).unwrap();
        assert_eq!(peek(directory.path()).earlier(&vg, at(101)), [None, None]);
        file::replace(&file, &whole[..whole.len() / 2], file::PRIVATE).unwrap();
        assert_eq!(peek(directory.path()), Bars::default());
        fs::remove_file(&file).unwrap();
        assert_eq!(peek(directory.path()), Bars::default());
        // Something that cannot be replaced does no harm.
        fs::create_dir(&file).unwrap();
        let note = BarNote::start(directory.path(), Dates::default(), at(100)).unwrap();
        note.refused(&vg, &[("d0".into(), at(110))], at(100));
        assert_eq!(peek(directory.path()), Bars::default());
    }
}
