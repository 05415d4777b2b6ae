//! A note for the next lvmlockd of this boot, in a file; for the watchdog, the date until which it
//! may be fed.

use crate::config;
use crate::state::{file, host_id};
use crate::sys::clock;
use core::time::Duration;
use idm_engine::Instant;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Text in place of a date where no lock is in use.
const UNUSED: &str = "unused______________";
/// The longest lease: no lock is safe for longer.
pub(crate) const LONGEST: Duration = Duration::from_millis(*config::LEASE_MS.end());

/// A file that holds a `T`.
pub(crate) struct Note<T> {
    file: PathBuf,
    boot: String,
    form: Form<T>,
}

/// Functions that write a `T` for a boot and read it back; the second returns `None` if the text is
/// damaged or from another boot.
pub(crate) struct Form<T> {
    pub(crate) format: fn(boot: &str, noted: &T) -> String,
    pub(crate) parse: fn(text: &[u8], boot: &str, now: Instant) -> Option<T>,
    /// Whether all texts of a boot have the same length, and show a write that was cut short. Then
    /// the file is overwritten in place where there is no room for a new one.
    pub(crate) is_fixed: bool,
}

impl<T> Note<T> {
    pub(crate) fn new(state_dir: &Path, file: &str, form: Form<T>) -> io::Result<Note<T>> {
        Ok(Note { file: state_dir.join(file), boot: host_id::boot_id()?, form })
    }

    /// The contents of the file; `None` if there is no file of this boot.
    pub(crate) fn read(&self) -> Option<T> {
        let text = match file::read(&self.file) {
            Ok(text) => text,
            Err(error) if file::is_absent(&error) => return None,
            Err(error) => {
                log::warn!("{}: cannot be read, and is ignored: {error}", self.file.display());
                return None;
            }
        };
        let read = (self.form.parse)(&text, &self.boot, clock::now());
        if read.is_none() {
            log::warn!("{}: from another boot, or damaged; ignored", self.file.display());
        }
        read
    }

    pub(crate) fn write(&self, noted: &T) -> io::Result<()> {
        let text = (self.form.format)(&self.boot, noted);
        let replaced = file::replace(&self.file, &text, file::PRIVATE);
        if replaced.is_err() && self.form.is_fixed && file::overwrite(&self.file, &text).is_ok() {
            return Ok(());
        }
        replaced.map_err(|error| {
            let why = format!(
                "{}: {error}; make room there, or remove what is in the way",
                self.file.display()
            );
            io::Error::new(error.kind(), why)
        })
    }

    pub(crate) fn is_there(&self) -> bool {
        self.file.exists()
    }

    pub(crate) fn remove(&self) {
        // The file need not exist.
        let _ = fs::remove_file(&self.file);
    }
}

/// The watchdog's form: the date, or that no lock is in use.
pub(crate) const DATE: Form<Option<Instant>> = Form { format, parse, is_fixed: true };

/// The text of the file. It has the date twice, which shows a write that was cut short.
pub fn format(boot: &str, first: &Option<Instant>) -> String {
    let until = first.map_or(UNUSED.to_owned(), |first| format!("{:020}", first.as_micros()));
    let line = format!("safe_until_us {until}\n");
    format!("boot_id {boot}\n{line}{line}")
}

/// The contents of a file's text; `None` if the text is damaged or from another boot.
pub fn parse(text: &[u8], boot: &str, now: Instant) -> Option<Option<Instant>> {
    let text = core::str::from_utf8(text).ok()?;
    let mut lines = text.lines();
    if lines.next()?.strip_prefix("boot_id ")? != boot {
        return None;
    }
    let left = match lines.next()?.strip_prefix("safe_until_us ")? {
        UNUSED => None,
        until => Some(Instant::from_micros(until.parse().ok()?)),
    };
    // With a date that no lease reaches, the host would be kept running after its locks are lost.
    let possible = left.is_none_or(|left| left <= now + LONGEST);
    // A date that was cut short would be another date.
    (possible && format(boot, &left) == text).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_in_its_boot() {
        let directory = tempfile::tempdir().unwrap();
        let note = Note::new(directory.path(), "note", DATE).unwrap();
        assert_eq!(note.read(), None);
        for first in [None, Some(Instant::from_micros(7))] {
            note.write(&first).unwrap();
            assert_eq!(note.read(), Some(first));
        }
        let in_the_way = file::obstruct(&note.file);
        for first in [None, Some(Instant::from_micros(8))] {
            note.write(&first).unwrap();
            assert_eq!(note.read(), Some(first), "in the same place");
        }
        fs::remove_dir(in_the_way).unwrap();
        let other = Note { file: note.file.clone(), boot: "another".into(), form: DATE };
        assert_eq!(other.read(), None);
        fs::write(&note.file, "safe_until_us 7").unwrap();
        assert_eq!(note.read(), None);
        note.remove();
        assert_eq!(note.read(), None);
    }

    #[test]
    fn what_is_damaged_is_not_believed() {
        let now = Instant::from_micros(1_000_000);
        let whole = format("b", &Some(now));
        assert_eq!(parse(whole.as_bytes(), "b", now), Some(Some(now)));
        for length in 0..whole.len() {
            assert_eq!(parse(&whole.as_bytes()[..length], "b", now), None, "{length}");
        }
        let added =
            [whole.replace("us ", "us +"), whole.replace("us ", "us 0"), whole.clone() + "x"];
        for text in added {
            assert_eq!(parse(text.as_bytes(), "b", now), None, "{text}");
        }
        // As if writing over it had ended early.
        let (unused, last) =
            (format("b", &None), format("b", &Some(now + Duration::from_micros(9))));
        for new in [unused, last] {
            assert_eq!(new.len(), whole.len());
            for cut in 0..whole.len() {
                let mixed = new[..cut].to_owned() + &whole[cut..];
                let read = parse(mixed.as_bytes(), "b", now);
                assert!(read.is_none() || mixed == whole || mixed == new, "{mixed}");
            }
        }
        let late = format("b", &Some(now + LONGEST + Duration::from_micros(1)));
        assert_eq!(parse(late.as_bytes(), "b", now), None);
    }
}
