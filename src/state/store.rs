//! State that outlives lvmlockd's death: a small file for each lock and lockspace, below the state
//! directory.
//!
//! The file of a lock is written before any drive is asked for the lock, and removed after it was
//! given up. So whenever lvmlockd is killed, the files name at least all locks that may be in use;
//! only the drives show which are really held. Files are replaced by renaming. Nothing is forced to
//! disk, because the files only have to outlive the process and not the machine: files of another
//! boot do not count.
//!
//! The directory may be lost while lvmlockd runs. So the texts of all notes are also kept in
//! memory, and the directory is made again with all its contents as soon as the loss is noticed.
//!
//! Files may contain anything. An invalid file costs its own lock or lockspace, and nothing else.

use crate::lock::Role;
use crate::lock::{membership_of, role_of};
use crate::state::leases::{self, Leases};
use crate::state::{file, host_id};
use crate::sys::clock;
use crate::sys::sync::{Mutex, MutexGuard};
use idm_protocol::{HostId, Mode, ResourceId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// File name of the global lock and the global lockspace.
const GLOBAL: &str = "global";
/// Part of a membership's file name in place of an LV's uuid.
const MEMBERS: &str = "members";
/// Extension of a file that is not complete.
const INCOMPLETE: &str = "new";

/// The note of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLock {
    /// Whether it is held exclusively, not shared.
    pub exclusive: bool,
    /// Whether it was granted. Noted only where this decides: with an even number of voting drives.
    #[serde(default)]
    pub granted: bool,
    /// Time of the request, on CLOCK_BOOTTIME, in us.
    pub asked_us: u64,
    /// Paths of the PVs that were named for it.
    pub paths: Vec<String>,
    /// Identities of the drives that vote: the drives that the paths led to.
    pub drives: Vec<String>,
}

impl SavedLock {
    /// The same lock, requested now in this mode.
    pub fn asked_now(&self, mode: Mode) -> SavedLock {
        let exclusive = mode == Mode::Exclusive;
        SavedLock { exclusive, asked_us: clock::now().as_micros(), ..self.clone() }
    }

    /// The mode in which it is held.
    pub fn mode(&self) -> Mode {
        if self.exclusive { Mode::Exclusive } else { Mode::Shared }
    }
}

/// The note of a started lockspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLockspace {
    /// Name of the VG; empty for the global lockspace.
    pub name: String,
    /// Uuid of the VG as LVM prints it; empty for the global lockspace.
    pub uuid: String,
    /// Paths of the VG's PVs, or of the global lock's drives.
    pub paths: Vec<String>,
    /// Identities of the drives that each of these paths led to.
    #[serde(default)]
    pub drives: Vec<Vec<String>>,
}

/// Contents of a note.
pub trait SavedNote: Serialize + DeserializeOwned {
    /// Rejects contents that this library never writes for that mutex.
    fn check(&self, id: &ResourceId) -> Result<(), &'static str>;
}

impl SavedNote for SavedLock {
    fn check(&self, _: &ResourceId) -> Result<(), &'static str> {
        if self.drives.is_empty() || self.drives.iter().any(String::is_empty) {
            return Err("a drive is missing");
        }
        // A drive named twice would have two votes.
        let mut drives: Vec<&String> = self.drives.iter().collect();
        drives.sort_unstable();
        if drives.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a drive is named twice");
        }
        Ok(())
    }
}

impl SavedNote for SavedLockspace {
    fn check(&self, id: &ResourceId) -> Result<(), &'static str> {
        let is_global = *id == ResourceId::GLOBAL;
        if is_global != self.name.is_empty() {
            return Err("the name is not its volume group's");
        }
        let same = match ResourceId::vg(&self.uuid) {
            Ok(vg) => vg == *id,
            Err(_) => is_global && self.uuid.is_empty(),
        };
        if same { Ok(()) } else { Err("the uuid is not its volume group's") }
    }
}

/// Reason why a file is not a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// No note has that name.
    Name,
    /// The text is not that of such a note.
    Text(String),
    /// The contents are such as this library never writes.
    Content(&'static str),
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damaged::Name => f.write_str("not the name of a note"),
            Damaged::Text(why) => f.write_str(why),
            Damaged::Content(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Damaged {}

/// All notes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Locks by their mutex.
    pub locks: Vec<(ResourceId, SavedLock)>,
    /// Lockspaces by their VG's mutex.
    pub lockspaces: Vec<(ResourceId, SavedLockspace)>,
}

/// The files below a state directory.
#[derive(Debug)]
pub struct Store {
    locks: PathBuf,
    lockspaces: PathBuf,
    boot: String,
    there: Mutex<NotedFiles>,
}

/// State of a folder: its identity and the time of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Folder {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

/// Files that are, or should be, in the state directory.
#[derive(Debug, Default)]
struct NotedFiles {
    /// Folders in the state in which this process left them. Any other change was made by someone
    /// else.
    folders: Option<[Folder; 2]>,
    /// Texts of the notes by file.
    notes: HashMap<PathBuf, String>,
    /// Other files of the state directory, in the order in which they are made again: leases and
    /// the host's id.
    others: Vec<(PathBuf, String)>,
    /// Whether the log already says that it cannot be made again.
    failing: bool,
}

#[derive(Serialize, Deserialize)]
struct OfBoot<T> {
    boot_id: String,
    #[serde(flatten)]
    content: T,
}

impl Store {
    /// Reads all notes of a boot below a state directory, and changes nothing there. Notes that
    /// cannot be read or are damaged are left out.
    pub fn peek(state_dir: &Path, boot: &str) -> Saved {
        Saved {
            locks: peek_in(&state_dir.join("locks"), boot),
            lockspaces: peek_in(&state_dir.join("lockspaces"), boot),
        }
    }

    /// Opens the store below a state directory and makes its folders. If the directory is lost, the
    /// leases and the host's id are written there again with everything else.
    pub fn open(state_dir: &Path, host: HostId, leases: &Leases) -> io::Result<Store> {
        let boot = host_id::boot_id()?;
        let store = Store::open_for(state_dir, &boot)?;
        let mut others = vec![
            (leases::file(state_dir), leases::format(&boot, leases)),
            // The last: without it the next lvmlockd is another host, and relies on no note.
            (host_id::file(state_dir), host_id::format(&boot, host)),
        ];
        // There may have been no room.
        others.retain(|(file, _)| file.exists());
        store.there().others = others;
        Ok(store)
    }

    /// Whether there is any note below a state directory, of any boot. Makes no folder.
    pub fn has_any(state_dir: &Path) -> bool {
        ["locks", "lockspaces"].iter().any(|folder| {
            let entries = fs::read_dir(state_dir.join(folder));
            entries.is_ok_and(|mut entries| entries.next().is_some())
        })
    }

    /// As [`Store::open`], for the boot with this id.
    pub fn open_for(state_dir: &Path, boot: &str) -> io::Result<Store> {
        let (locks, lockspaces) = (state_dir.join("locks"), state_dir.join("lockspaces"));
        let (boot, there) = (boot.to_owned(), Mutex::default());
        let store = Store { locks, lockspaces, boot, there };
        store.make_folders(&mut store.there())?;
        Ok(store)
    }

    fn there(&self) -> MutexGuard<'_, NotedFiles> {
        self.there.lock()
    }

    fn make_folders(&self, there: &mut NotedFiles) -> io::Result<()> {
        for folder in [&self.locks, &self.lockspaces] {
            file::make_folder(folder, file::PRIVATE_FOLDER)?;
        }
        there.folders = self.folders();
        Ok(())
    }

    /// The current state of the folders.
    fn folders(&self) -> Option<[Folder; 2]> {
        let look = |folder: &PathBuf| {
            let it = fs::metadata(folder).ok()?;
            let changed = (it.mtime(), it.mtime_nsec());
            Some(Folder { device: it.dev(), inode: it.ino(), changed })
        };
        Some([look(&self.locks)?, look(&self.lockspaces)?])
    }

    /// Checks that the directory is as this process left it, and makes it again where it is not.
    /// Costs four `stat` calls.
    pub fn restore(&self) {
        let mut there = self.there();
        let restored = self.restore_if_lost(&mut there);
        if let (Err(error), false) = (&restored, there.failing) {
            log::error!(
                "the lost state directory cannot be made again: {error}; make room there, or \
                 remove what is in the way"
            );
        }
        there.failing = restored.is_err();
    }

    fn restore_if_lost(&self, there: &mut NotedFiles) -> io::Result<()> {
        let has_others = there.others.iter().all(|(file, _)| file.exists());
        if has_others && there.folders.is_some() && self.folders() == there.folders {
            return Ok(());
        }
        if !there.failing {
            log::warn!(
                "somebody else has changed what is in {}; all notes are written again. Find out \
                 who does that",
                self.locks.display()
            );
        }
        there.folders = None;
        self.make_folders(&mut NotedFiles::default())?;
        for (file, text) in &there.notes {
            put(file, text)?;
        }
        for (file, text) in &there.others {
            file::replace(file, text, file::PRIVATE)?;
        }
        there.folders = self.folders();
        Ok(())
    }

    /// Notes a lock, in place of an earlier note of it.
    pub fn save_lock(&self, id: &ResourceId, lock: &SavedLock) -> io::Result<()> {
        self.save(&self.locks.join(name_of(id)), lock)
    }

    /// Changes the note of a lock and returns the earlier one; `None` if there is no note.
    pub fn change_lock(
        &self,
        id: &ResourceId,
        change: impl FnOnce(&mut SavedLock),
    ) -> io::Result<Option<SavedLock>> {
        let file = self.locks.join(name_of(id));
        let mut there = self.there();
        let Some(before) = self.noted(&there, &file) else { return Ok(None) };
        let mut lock = before.clone();
        change(&mut lock);
        self.save_as(&mut there, &file, &lock)?;
        Ok(Some(before))
    }

    /// Changes the note of a lock that must not stay as it is. Where it cannot be written, all
    /// notes are written again as soon as possible.
    pub fn correct_lock(&self, id: &ResourceId, change: impl FnOnce(&mut SavedLock)) {
        let file = self.locks.join(name_of(id));
        let mut there = self.there();
        let Some(mut lock) = self.noted(&there, &file) else { return };
        change(&mut lock);
        let Err(error) = self.save_as(&mut there, &file, &lock) else { return };
        log::error!("{}: not corrected yet: {error}", file.display());
        if let Ok(text) = format(&self.boot, &lock) {
            there.notes.insert(file, text);
        }
        there.folders = None;
        there.failing = true;
    }

    /// The note of a lock.
    pub fn lock(&self, id: &ResourceId) -> Option<SavedLock> {
        self.noted(&self.there(), &self.locks.join(name_of(id)))
    }

    fn noted(&self, there: &NotedFiles, file: &Path) -> Option<SavedLock> {
        let name = file.file_name()?.to_str()?;
        let (_, lock) = parse(name, there.notes.get(file)?.as_bytes(), &self.boot).ok()??;
        Some(lock)
    }

    /// Removes the note of a lock.
    pub fn forget_lock(&self, id: &ResourceId) {
        self.forget(&self.locks.join(name_of(id)));
    }

    /// Notes a lockspace, in place of an earlier note of it.
    pub fn save_lockspace(&self, vg: &ResourceId, lockspace: &SavedLockspace) -> io::Result<()> {
        self.save(&self.lockspaces.join(name_of(vg)), lockspace)
    }

    /// Checks that a lockspace and its first lock can be noted, unless they are noted already.
    pub fn check_room(
        &self,
        (vg, lockspace): (&ResourceId, &SavedLockspace),
        (id, lock): (&ResourceId, &SavedLock),
    ) -> io::Result<()> {
        let files = [self.lockspaces.join(name_of(vg)), self.locks.join(name_of(id))];
        let mut there = self.there();
        self.restore_if_lost(&mut there)?;
        if files.iter().all(|file| there.notes.contains_key(file)) {
            return Ok(());
        }
        let texts = [format(&self.boot, lockspace), format(&self.boot, lock)];
        let [lockspace, lock] = texts.map(|text| text.map_err(io::Error::other));
        let [first, second] = files.map(|file| file.with_extension_added(INCOMPLETE));
        let checked = file::check_room(&[(first, &lockspace?), (second, &lock?)], file::PRIVATE);
        there.folders = self.folders();
        checked
    }

    /// Removes the note of a lockspace.
    pub fn forget_lockspace(&self, vg: &ResourceId) {
        self.forget(&self.lockspaces.join(name_of(vg)));
    }

    /// All notes since the machine booted. Older and incomplete ones are removed.
    pub fn load(&self) -> io::Result<Saved> {
        let saved = Saved {
            locks: self.read_all(&self.locks)?,
            lockspaces: self.read_all(&self.lockspaces)?,
        };
        self.there().folders = self.folders();
        Ok(saved)
    }

    fn save(&self, file: &Path, content: &impl Serialize) -> io::Result<()> {
        self.save_as(&mut self.there(), file, content)
    }

    fn save_as(
        &self,
        there: &mut NotedFiles,
        file: &Path,
        content: &impl Serialize,
    ) -> io::Result<()> {
        let text = format(&self.boot, content).map_err(io::Error::other)?;
        self.restore_if_lost(there)?;
        if there.notes.get(file) == Some(&text) {
            return Ok(());
        }
        let noted = put(file, &text);
        there.folders = self.folders();
        noted?;
        there.notes.insert(file.to_owned(), text);
        Ok(())
    }

    fn forget(&self, file: &Path) {
        let mut there = self.there();
        there.notes.remove(file);
        // The note must be removed, whatever the result.
        let _ = self.restore_if_lost(&mut there);
        remove(file);
        there.folders = there.folders.and_then(|_| self.folders());
    }

    fn read_all<T: SavedNote>(&self, directory: &Path) -> io::Result<Vec<(ResourceId, T)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new(INCOMPLETE)) {
                remove(&path);
                continue;
            }
            let text = match file::read(&path) {
                Ok(text) => text,
                // It may be the note of a lock in use, and the next lvmlockd may be able to read
                // it.
                Err(error) => {
                    log::warn!(
                        "{}: cannot be read, and is left alone: {error}; see what put it there, \
                         and remove it",
                        path.display()
                    );
                    continue;
                }
            };
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            match parse(name, &text, &self.boot) {
                Ok(Some(note)) => {
                    // It was read as text.
                    let text = String::from_utf8_lossy(&text).into_owned();
                    self.there().notes.insert(path, text);
                    all.push(note);
                }
                Ok(None) => remove(&path),
                Err(why) => {
                    log::warn!(
                        "{}: damaged, and ignored: {why}; deactivate what it names, if it is \
                         active",
                        path.display()
                    );
                    remove(&path);
                }
            }
        }
        Ok(all)
    }
}

/// A message of the parser, which may have several lines.
fn one_line(message: &str) -> String {
    message.replace('\n', " ")
}

fn peek_in<T: SavedNote>(directory: &Path, boot: &str) -> Vec<(ResourceId, T)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let notes = entries.filter_map(|entry| {
        let name = entry.file_name();
        let text = file::read(&entry.path()).ok()?;
        parse(name.to_str()?, &text, boot).ok()?
    });
    notes.collect()
}

/// A note's text.
pub fn format(boot: &str, content: &impl Serialize) -> Result<String, toml::ser::Error> {
    toml::to_string(&OfBoot { boot_id: boot.to_owned(), content })
}

/// The contents of a note, and its mutex; `None` if the file is from another boot.
pub fn parse<T: SavedNote>(
    name: &str,
    text: &[u8],
    boot: &str,
) -> Result<Option<(ResourceId, T)>, Damaged> {
    let id = id_of(name).ok_or(Damaged::Name)?;
    let read: OfBoot<T> =
        toml::from_slice(text).map_err(|error| Damaged::Text(one_line(error.message())))?;
    if read.boot_id != boot {
        return Ok(None);
    }
    read.content.check(&id).map_err(Damaged::Content)?;
    Ok(Some((id, read.content)))
}

trait WithExtensionAdded {
    fn with_extension_added(&self, extension: &str) -> PathBuf;
}

impl WithExtensionAdded for Path {
    /// Uuids have no dots, so this is the last of at most two.
    fn with_extension_added(&self, extension: &str) -> PathBuf {
        let mut name = self.as_os_str().to_owned();
        name.push(".");
        name.push(extension);
        name.into()
    }
}

/// Writes a note. After a death in the middle, a reader sees the earlier note or the whole new one.
fn put(file: &Path, text: &str) -> io::Result<()> {
    let incomplete = file.with_extension_added(INCOMPLETE);
    let replaced = file::replace_by(file, &incomplete, text, file::PRIVATE);
    replaced.map_err(|error| file::named(file, &error))
}

fn remove(file: &Path) {
    match fs::remove_file(file) {
        Err(error) if !file::is_absent(&error) => {
            log::warn!("{}: cannot be removed: {error}", file.display());
        }
        _ => {}
    }
}

/// The file name of a mutex: `global`, or the VG's uuid without dashes; for an LV followed by a dot
/// and its uuid.
pub fn name_of(id: &ResourceId) -> String {
    let (vg, lv) = id.as_bytes().split_at(32);
    match role_of(id) {
        Role::Global => GLOBAL.to_owned(),
        Role::Vg => String::from_utf8_lossy(vg).into_owned(),
        Role::Membership => format!("{}.{MEMBERS}", String::from_utf8_lossy(vg)),
        Role::Lv => format!("{}.{}", String::from_utf8_lossy(vg), String::from_utf8_lossy(lv)),
    }
}

/// The mutex of a file name; `None` if no note has that name.
fn id_of(name: &str) -> Option<ResourceId> {
    let id = match name.split_once('.') {
        None if name == GLOBAL => ResourceId::GLOBAL,
        None => ResourceId::vg(name).ok()?,
        Some((vg, MEMBERS)) => membership_of(&ResourceId::vg(vg).ok()?),
        Some((vg, lv)) => ResourceId::lv(vg, lv).ok()?,
    };
    // A name with dashes would stand for the same mutex a second time.
    (name_of(&id) == name).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use proptest::prelude::*;

    const VG: &str = "123456abcdefghijklmnopqrstuvwxyz";

    fn lock(exclusive: bool) -> SavedLock {
        SavedLock {
            exclusive,
            granted: false,
            asked_us: 77,
            paths: vec!["/dev/sda1".into(), "/dev/mapper/a \"b\"\n".into()],
            drives: vec!["naa.1".into()],
        }
    }

    fn ids() -> [ResourceId; 4] {
        let vg = ResourceId::vg(VG).unwrap();
        [ResourceId::GLOBAL, vg, ResourceId::lv(VG, VG).unwrap(), membership_of(&vg)]
    }

    #[test]
    fn what_cannot_be_corrected_is_as_soon_as_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_for(directory.path(), "boot").unwrap();
        let id = ids()[2];
        store.correct_lock(&id, |_| unreachable!("nothing is noted"));
        store.save_lock(&id, &lock(true)).unwrap();
        let drives = |name: &str| vec![name.to_owned()];
        store.correct_lock(&id, |lock| lock.drives = drives("naa.2"));
        let read = || Store::open_for(directory.path(), "boot").unwrap().load().unwrap().locks;
        assert_eq!(read(), [(id, SavedLock { drives: drives("naa.2"), ..lock(true) })]);
        let (locks, away) = (directory.path().join("locks"), directory.path().join("away"));
        fs::rename(&locks, &away).unwrap();
        fs::write(&locks, "no directory").unwrap();
        store.correct_lock(&id, |lock| lock.drives = drives("naa.3"));
        fs::remove_file(&locks).unwrap();
        fs::rename(&away, &locks).unwrap();
        store.restore();
        assert_eq!(read(), [(id, SavedLock { drives: drives("naa.3"), ..lock(true) })]);
    }

    #[test]
    fn what_was_noted_is_found_in_the_same_boot_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_for(directory.path(), "boot-1").unwrap();
        assert_eq!(store.load().unwrap(), Saved::default());
        for id in &ids() {
            store.save_lock(id, &lock(false)).unwrap();
            store.save_lock(id, &lock(true)).unwrap();
        }
        let space = SavedLockspace {
            name: "vg0".into(),
            uuid: VG.into(),
            paths: vec!["/dev/sda".into()],
            drives: vec![vec!["naa.1".into()]],
        };
        store.save_lockspace(&ids()[1], &space).unwrap();

        // Read twice: reading removes nothing.
        for _ in 0..2 {
            let peeked = Store::peek(directory.path(), "boot-1");
            assert_eq!((peeked.locks.len(), peeked.lockspaces.len()), (4, 1));
            assert_eq!(Store::peek(directory.path(), "boot-2"), Saved::default());
            let again = Store::open_for(directory.path(), "boot-1").unwrap();
            let mut saved = again.load().unwrap();
            saved.locks.sort_by_key(|(id, _)| *id);
            let mut expected = ids().map(|id| (id, lock(true)));
            expected.sort_by_key(|(id, _)| *id);
            assert_eq!(saved.locks, expected);
            assert_eq!(saved.lockspaces, [(ids()[1], space.clone())]);
        }
        store.forget_lock(&ids()[0]);
        store.forget_lock(&ids()[0]);
        assert_eq!(store.load().unwrap().locks.len(), 3);

        let rebooted = Store::open_for(directory.path(), "boot-2").unwrap();
        assert_eq!(rebooted.load().unwrap(), Saved::default());
        assert_eq!(store.load().unwrap(), Saved::default(), "they are gone for good");
    }

    #[test]
    fn what_is_incomplete_is_ignored_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_for(directory.path(), "b").unwrap();
        store.save_lock(&ids()[1], &lock(true)).unwrap();
        let file = directory.path().join("locks").join(VG);
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(directory.path().join(format!("locks/{VG}.{VG}.new")), &whole).unwrap();
        fs::write(directory.path().join("locks/what-is-this"), &whole).unwrap();
        assert_eq!(store.load().unwrap().locks.len(), 1);
        assert_eq!(fs::read_dir(directory.path().join("locks")).unwrap().count(), 1);
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(store.load().unwrap().locks, []);
        assert!(!file.exists());
    }

    #[test]
    fn what_makes_no_sense_costs_itself_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_for(directory.path(), "b").unwrap();
        let (vg, lv) = (ids()[1], ids()[2]);
        let space = SavedLockspace {
            name: "v".into(),
            uuid: VG.into(),
            paths: Vec::new(),
            drives: Vec::new(),
        };
        store.save_lock(&lv, &lock(true)).unwrap();
        store.save_lockspace(&vg, &space).unwrap();
        let other = VG.replace('1', "0");
        let lock_text = |change: fn(&mut SavedLock)| {
            let mut changed = lock(true);
            change(&mut changed);
            format("b", &changed).unwrap()
        };
        let space_text = |name: &str, uuid: &str| {
            let paths = Vec::new();
            format(
                "b",
                &SavedLockspace { name: name.into(), uuid: uuid.into(), paths, drives: Vec::new() },
            )
            .unwrap()
        };
        let whole = lock_text(|_| ());
        let put = |folder: &str, name: &str, text: &[u8]| {
            fs::write(directory.path().join(folder).join(name), text).unwrap();
            let saved = store.load().unwrap();
            assert_eq!(saved.locks, [(lv, lock(true))], "{name}");
            assert_eq!(saved.lockspaces, [(vg, space.clone())], "{name}");
            assert!(!directory.path().join(folder).join(name).exists(), "{name}");
        };
        for text in [
            &b""[..],
            b"\0\0\0\0",
            &whole.as_bytes()[..whole.len() - 3],
            &[whole.as_bytes(), b"\xff"].concat(),
            lock_text(|lock| lock.drives.clear()).as_bytes(),
            lock_text(|lock| lock.drives.push(String::new())).as_bytes(),
            lock_text(|lock| lock.drives = vec!["naa.1".into(), "x".into(), "naa.1".into()])
                .as_bytes(),
            whole.replace("77", "-1").as_bytes(),
            whole.replace("77", "99999999999999999999").as_bytes(),
            space_text("v", &other).as_bytes(),
        ] {
            put("locks", &other, text);
        }
        // Other names for the same mutexes.
        let dashed = format!("{}-{}", &VG[..6], &VG[6..]);
        put("locks", &format!("{dashed}.{VG}"), whole.as_bytes());
        put("lockspaces", &dashed, space_text("v", VG).as_bytes());
        for (name, text) in [
            (other.as_str(), space_text("v", VG)),
            (other.as_str(), space_text("", &other)),
            (GLOBAL, space_text("v", "")),
            (GLOBAL, space_text("", VG)),
            (&format!("{VG}.{VG}"), space_text("v", VG)),
            (&format!("{VG}.{MEMBERS}"), space_text("v", VG)),
            (other.as_str(), whole.clone()),
        ] {
            put("lockspaces", name, text.as_bytes());
        }
        // An unreadable entry may still be of use.
        fs::create_dir(directory.path().join("locks").join(&other)).unwrap();
        assert_eq!(store.load().unwrap().locks.len(), 1);
        assert!(directory.path().join("locks").join(&other).exists());
    }

    #[test]
    fn a_directory_that_was_lost_is_made_again_with_all_that_was_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let host = HostId::new([7; 16], "host");
        let leases = Leases { shortest: Duration::from_secs(30), longest: Duration::from_secs(60) };
        let first = Store::open(&state, host, &leases).unwrap();
        first.save_lock(&ids()[2], &lock(true)).unwrap();
        // These are written before the store is opened.
        let file_of = [host_id::file(&state), leases::file(&state)];
        fs::write(&file_of[0], host_id::format(&first.boot, host)).unwrap();
        fs::write(&file_of[1], leases::format(&first.boot, &leases)).unwrap();
        // Notes that were found count as well as new ones.
        let store = Store::open(&state, host, &leases).unwrap();
        store.load().unwrap();
        store.save_lock(&ids()[0], &lock(false)).unwrap();
        store.save_lock(&ids()[1], &lock(false)).unwrap();
        store.forget_lock(&ids()[0]);
        let note = format!("locks/{}", name_of(&ids()[1]));
        for lost in ["", "locks", "lockspaces", "host-id", "leases", &note] {
            let lost = state.join(lost);
            // Folders are dated by the kernel's clock tick.
            std::thread::sleep(Duration::from_millis(20));
            if lost.is_dir() { fs::remove_dir_all(&lost) } else { fs::remove_file(&lost) }.unwrap();
            store.restore();
            let saved = Store::open(&state, host, &leases).unwrap().load().unwrap();
            let mut ids_of: Vec<ResourceId> = saved.locks.iter().map(|(id, _)| *id).collect();
            ids_of.sort_unstable();
            assert_eq!(ids_of, [ids()[1], ids()[2]], "{}", lost.display());
            let id = fs::read_to_string(host_id::file(&state)).unwrap();
            assert_eq!(host_id::parse(&id, &store.boot), Some(host));
            let noted = fs::read(leases::file(&state)).unwrap();
            assert_eq!(leases::parse(&noted, &store.boot, clock::now()), Some(leases));
        }
        // Where nothing is lost, nothing is written.
        let id = host_id::file(&state);
        let written = |file: &Path| fs::metadata(file).unwrap().modified().unwrap();
        let before = written(&id);
        store.restore();
        assert_eq!(written(&id), before);
    }

    #[test]
    fn where_nothing_can_be_noted_it_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_for(directory.path(), "b").unwrap();
        let locks = directory.path().join("locks");
        fs::remove_dir(&locks).unwrap();
        fs::write(&locks, "").unwrap();
        let error = store.save_lock(&ids()[1], &lock(true)).unwrap_err();
        assert!(error.to_string().contains(locks.to_str().unwrap()), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Store::open_for(file.path(), "b").is_err());
    }

    proptest! {
        #[test]
        fn names_are_read_as_they_are_written(
            vg in "[0-9a-zA-Z!#]{32}",
            lv in "[0-9a-zA-Z!#]{32}",
        ) {
            for id in [ResourceId::vg(&vg).unwrap(), ResourceId::lv(&vg, &lv).unwrap()] {
                prop_assert_eq!(id_of(&name_of(&id)), Some(id));
            }
        }

        #[test]
        fn a_name_stands_for_one_mutex_or_none(name in ".*") {
            prop_assert!(id_of(&name).is_none_or(|id| name_of(&id) == name));
        }
    }
}
