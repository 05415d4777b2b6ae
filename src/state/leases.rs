//! A note of the leases that lvmlockd has had in this boot: the configuration may change between
//! two lives, and what the earlier one left on the drives has its lease.

use crate::config::Config;
use crate::state::note::{Form, Note};
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const FILE: &str = "leases";

/// What earlier lives of this boot have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: none has used this host's id.
    Nothing,
    /// Commands that are under way, but no noted lock.
    Commands,
    /// Locks as well.
    Locks,
}

/// The shortest and the longest lease of this life and earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leases {
    /// The least time for which a noted lock of any of them is safe.
    pub shortest: Duration,
    /// The most time for which a command or a record of any of them counts.
    pub longest: Duration,
}

impl Leases {
    /// Adds this life's lease to the note. A life that is not noted may have had the default lease.
    /// Where the note cannot be written, this life keeps the locks of the earlier one all the same.
    pub fn note(state_dir: &Path, lease: Duration, left: Left) -> io::Result<Leases> {
        let note = Note::new(state_dir, FILE, Form { format, parse, is_fixed: true })?;
        let first = left == Left::Nothing;
        let noted = if first || !note.is_there() { None } else { note.read() };
        let usual = if first { lease } else { Config::default().lease };
        let earlier = noted.unwrap_or(Leases { shortest: usual, longest: usual });
        let shortest = if left == Left::Locks { earlier.shortest.min(lease) } else { lease };
        let leases = Leases { shortest, longest: earlier.longest.max(lease) };
        if noted != Some(leases) {
            if let Err(error) = note.write(&leases) {
                log::warn!("the lease of {} s is not noted: {error}", lease.as_secs());
            }
        }
        Ok(leases)
    }
}

/// The file below a state directory.
pub fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// The text of the file. It may be overwritten in place, so its length is always the same, and it
/// has the leases twice: this shows a write that was cut short.
pub fn format(boot: &str, leases: &Leases) -> String {
    let [shortest, longest] = [leases.shortest, leases.longest].map(|lease| lease.as_millis());
    let leases = format!("shortest_ms {shortest:020}\nlongest_ms {longest:020}\n");
    format!("boot_id {boot}\n{leases}{leases}")
}

/// The contents of a file's text; `None` if the text is damaged or from another boot.
pub fn parse(text: &[u8], boot: &str, _: idm_engine::Instant) -> Option<Leases> {
    let text = core::str::from_utf8(text).ok()?;
    let mut lines = text.lines().skip(1);
    let mut lease = |name: &str| {
        let ms = lines.next()?.strip_prefix(name)?.parse().ok()?;
        Some(Duration::from_millis(ms))
    };
    let leases = Leases { shortest: lease("shortest_ms ")?, longest: lease("longest_ms ")? };
    (format(boot, &leases) == text).then_some(leases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{file, host_id};
    use std::fs;

    fn seconds(shortest: u64, longest: u64) -> Leases {
        let [shortest, longest] = [shortest, longest].map(Duration::from_secs);
        Leases { shortest, longest }
    }

    fn start(directory: &Path, lease: u64, first: bool) -> Leases {
        let left = if first { Left::Nothing } else { Left::Locks };
        Leases::note(directory, Duration::from_secs(lease), left).unwrap()
    }

    #[test]
    fn a_lease_without_locks_is_not_the_shortest_but_its_commands_count() {
        let directory = tempfile::tempdir().unwrap();
        start(directory.path(), 20, true);
        start(directory.path(), 90, false);
        let lease = Duration::from_secs(30);
        let leases = Leases::note(directory.path(), lease, Left::Commands).unwrap();
        assert_eq!(leases, seconds(30, 90));
        assert_eq!(start(directory.path(), 60, false), seconds(30, 90));
    }

    #[test]
    fn all_lives_of_a_boot_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(start(directory.path(), 30, true), seconds(30, 30));
        assert_eq!(start(directory.path(), 30, false), seconds(30, 30));
        assert_eq!(start(directory.path(), 90, false), seconds(30, 90));
        assert_eq!(start(directory.path(), 20, false), seconds(20, 90));
        assert_eq!(start(directory.path(), 30, false), seconds(20, 90));
        assert_eq!(start(directory.path(), 30, true), seconds(30, 30), "another id");
        fs::remove_file(directory.path().join(FILE)).unwrap();
        assert_eq!(start(directory.path(), 30, false), seconds(30, 60), "the default");
    }

    #[test]
    fn what_is_damaged_counts_as_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        start(directory.path(), 90, true);
        let whole = fs::read(&file).unwrap();
        for length in 0..whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(start(directory.path(), 90, false), seconds(60, 90), "{length}");
        }
        // As if writing over it had ended early.
        let boot = host_id::boot_id().unwrap();
        let new = format(&boot, &seconds(20, 70)).into_bytes();
        let differ: Vec<_> = (0..whole.len()).filter(|&at| whole[at] != new[at]).collect();
        for end in differ.iter().skip(1).copied() {
            fs::write(&file, [&new[..end], &whole[end..]].concat()).unwrap();
            assert_eq!(start(directory.path(), 90, false), seconds(60, 90), "{end}");
        }
    }

    #[test]
    fn a_note_that_cannot_be_written_still_counts() {
        let directory = tempfile::tempdir().unwrap();
        start(directory.path(), 30, true);
        file::obstruct(&directory.path().join(FILE));
        assert_eq!(start(directory.path(), 90, false), seconds(30, 90));
        assert_eq!(start(directory.path(), 60, false), seconds(30, 90), "in the same place");
        fs::remove_file(directory.path().join(FILE)).unwrap();
        assert_eq!(start(directory.path(), 90, false), seconds(60, 90));
        assert_eq!(start(directory.path(), 70, false), seconds(60, 70), "there was no room");
    }

    /// The life with the longer lease could not note it.
    #[test]
    fn a_lease_that_could_not_be_noted_counts_in_the_life_after_it() {
        let directory = tempfile::tempdir().unwrap();
        start(directory.path(), 30, true);
        let new = file::obstruct(&directory.path().join(FILE));
        assert_eq!(start(directory.path(), 90, false), seconds(30, 90));
        fs::remove_dir(&new).unwrap();
        assert_eq!(start(directory.path(), 30, false).longest, Duration::from_secs(90));
    }

    /// The life of a new id could not replace the note of an earlier id.
    #[test]
    fn an_id_that_is_new_does_not_count_what_another_id_has_noted() {
        let directory = tempfile::tempdir().unwrap();
        start(directory.path(), 90, true);
        let new = file::obstruct(&directory.path().join(FILE));
        assert_eq!(start(directory.path(), 20, true), seconds(20, 20), "another id");
        fs::remove_dir(&new).unwrap();
        assert_eq!(start(directory.path(), 90, false).shortest, Duration::from_secs(20));
    }
}
