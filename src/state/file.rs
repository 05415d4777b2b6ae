//! Small files that others may read while they are written, and their folders.
//!
//! lvmlockd runs as root, and the notes decide who uses a lock. So nobody else may write there,
//! whatever the umask of lvmlockd; no link is followed; and a file is used only if nobody else can
//! have written it.

use nix::unistd::Uid;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of files for lvmlockd only.
pub const PRIVATE: u32 = 0o600;
/// Mode of files that everybody may read.
pub const PUBLIC: u32 = 0o644;
/// Mode of the state directory, where some files are public.
pub const PUBLIC_FOLDER: u32 = 0o755;
/// Mode of folders for lvmlockd only.
pub const PRIVATE_FOLDER: u32 = 0o700;

/// Mode bits that allow others to write.
const OTHERS_WRITE: u32 = 0o022;
/// Bytes of the largest file that is accepted. A note with 5000 PVs has less than 1 MB.
const LARGEST: u64 = 4 << 20;

/// Replaces a file, and makes its directory where there is none. A reader sees either the old file
/// or the whole new one, even after a death in the middle. The file is not flushed to a disk: it
/// must not outlive the boot.
pub fn replace(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        make_folder(directory, PUBLIC_FOLDER)?;
    }
    replace_by(file, &temporary(file), text, mode)
}

/// The name of a file until it is complete. Each process and each file has its own, so that none
/// writes into another's.
fn temporary(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    file.with_file_name(name)
}

/// Lets [`replace`] fail for this file, as if there were no room for a new one, until the folder
/// that it returns is removed.
#[cfg(test)]
pub fn obstruct(file: &Path) -> PathBuf {
    let new = temporary(file);
    fs::create_dir(&new).unwrap();
    new
}

/// Replaces a file by a new one that is named `new` until it is complete.
pub fn replace_by(file: &Path, new: &Path, text: &str, mode: u32) -> io::Result<()> {
    let written = create(new, mode)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(new, file));
    if written.is_err() {
        let _ = fs::remove_file(new);
    }
    written
}

/// Checks that there is room for files by making them, each with its text, and removing them.
pub fn check_room(files: &[(PathBuf, &str)], mode: u32) -> io::Result<()> {
    let write = |(file, text): &(PathBuf, &str)| {
        let written = create(file, mode).and_then(|mut open| open.write_all(text.as_bytes()));
        written.map_err(|error| named(file, &error))
    };
    let written = files.iter().try_for_each(write);
    for (file, _) in files {
        let _ = fs::remove_file(file);
    }
    written
}

/// The error with the name of its file.
pub fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

/// Makes a file that must not exist yet, so that no link is followed and no file of another user is
/// written.
fn create(new: &Path, mode: u32) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let file = match options.open(new) {
        // Left by an earlier life that died in the middle.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(new)?;
            options.open(new)?
        }
        opened => opened?,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Makes a folder and its missing parents. An existing folder must be ours.
pub fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    let mut options = fs::DirBuilder::new();
    options.mode(mode);
    let made = match (options.create(folder), folder.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(parent, PUBLIC_FOLDER)?;
            options.create(folder)
        }
        (made, _) => made,
    };
    match made {
        Ok(()) => fs::set_permissions(folder, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_folder(folder),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", folder.display()))),
    }
}

/// Refuses anything but a folder of ours that others cannot write to. The error says what to do.
fn check_folder(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    let why = match (found.is_dir(), foreign(&found)) {
        (true, None) => return Ok(()),
        (false, _) => "it is no directory; remove it".to_owned(),
        (true, Some(why)) => format!(
            "{why}; if what is in it is lvmlockd's, \"chown\" and \"chmod go-w\" it with all \
             files, otherwise remove it"
        ),
    };
    Err(refused(&format!("{}: {why}", folder.display())))
}

/// The contents of a file of ours. Fails with [`io::ErrorKind::InvalidData`] where it is not a
/// plain file, others may have written it, or it is far too large.
pub fn read(file: &Path) -> io::Result<Vec<u8>> {
    let opened = open(file, false)?;
    let mut bytes = Vec::new();
    opened.take(LARGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(refused("it is too large")),
        false => Ok(bytes),
    }
}

/// Writes over the text of a file of ours, which needs no room if the texts have the same length. A
/// reader may see a mixture of both.
pub fn overwrite(file: &Path, text: &str) -> io::Result<()> {
    let opened = open(file, true)?;
    opened.write_all_at(text.as_bytes(), 0)?;
    opened.set_len(text.len() as u64)
}

/// Opens a plain file that others cannot have written.
fn open(file: &Path, to_write: bool) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    // Without O_NONBLOCK, opening a FIFO would wait for its writer.
    options.read(true).write(to_write).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let opened = match options.open(file) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(refused("it is a link"));
        }
        // This error means a socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            return Err(refused("it is no plain file"));
        }
        opened => opened?,
    };
    let found = opened.metadata()?;
    if !found.is_file() {
        return Err(refused("it is no plain file"));
    }
    match foreign(&found) {
        Some(why) => Err(refused(&why)),
        None => Ok(opened),
    }
}

/// The reason why others may have written a file or folder; `None` if only we or root can have.
pub fn foreign(found: &fs::Metadata) -> Option<String> {
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    if owner != Uid::effective().as_raw() {
        return Some(format!("it belongs to the user with the number {owner}"));
    }
    (mode & OTHERS_WRITE != 0).then(|| format!("others may write to it (mode {mode:o})"))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Whether an error proves that a file does not exist.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{Mode, umask};
    use std::os::unix::fs::symlink;

    fn mode(file: &Path) -> u32 {
        fs::symlink_metadata(file).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sub/file.prom");
        for text in ["first, and longer", "second"] {
            replace(&file, text, PUBLIC).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(mode(&file), 0o644);
        replace(&file, "third", PRIVATE).unwrap();
        assert_eq!(mode(&file), 0o600);
        assert_eq!(fs::read_dir(directory.path().join("sub")).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        assert!(replace(Path::new("/proc/nowhere/file"), "", PUBLIC).is_err());
    }

    /// Runs with another umask, which only this thread has.
    fn with_umask(mask: u32, body: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(move || {
            // SAFETY: the call touches no memory.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FS) }, 0);
            umask(Mode::from_bits_truncate(mask));
            body();
        });
        thread.join().unwrap();
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        let directory = tempfile::tempdir().unwrap();
        for mask in [0o000, 0o077] {
            let folder = directory.path().join(mask.to_string());
            with_umask(mask, move || {
                make_folder(&folder.join("below"), PRIVATE_FOLDER).unwrap();
                replace(&folder.join("file"), "text", PUBLIC).unwrap();
                assert_eq!(mode(&folder), 0o755);
                assert_eq!(mode(&folder.join("below")), 0o700);
                assert_eq!(mode(&folder.join("file")), 0o644);
            });
        }
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (file, victim) = (directory.path().join("file"), directory.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, directory.path().join(format!("file.{}", std::process::id()))).unwrap();
        replace(&file, "text", PRIVATE).unwrap();
        fs::remove_file(&file).unwrap();
        symlink(&victim, &file).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
        replace(&file, "text", PRIVATE).unwrap();
        assert_eq!(read(&file).unwrap(), b"text");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("locks");
        make_folder(&folder, PRIVATE_FOLDER).unwrap();
        make_folder(&folder, PRIVATE_FOLDER).unwrap();
        for open in [0o777, 0o1777, 0o720] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(open)).unwrap();
            let why = make_folder(&folder, PRIVATE_FOLDER).unwrap_err().to_string();
            assert!(why.contains(&format!("{open:o}")) && why.contains("chmod go-w"), "{why}");
            assert!(replace(&folder.join("file"), "", PRIVATE).is_err());
        }
        fs::remove_dir(&folder).unwrap();
        symlink(directory.path(), &folder).unwrap();
        assert!(make_folder(&folder, PRIVATE_FOLDER).is_err());
        if Uid::effective().is_root() {
            fs::remove_file(&folder).unwrap();
            make_folder(&folder, PRIVATE_FOLDER).unwrap();
            std::os::unix::fs::chown(&folder, Some(12345), None).unwrap();
            assert!(check_folder(&folder).unwrap_err().to_string().contains("12345"));
        }
    }

    #[test]
    fn what_is_no_file_of_ours_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let large = directory.path().join("large");
        fs::File::create(&large).unwrap().set_len(200 << 20).unwrap();
        let open = directory.path().join("open");
        fs::write(&open, "").unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
        for file in [&fifo, &large, &open, directory.path()] {
            let error = read(file).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        assert!(is_absent(&read(&directory.path().join("absent")).unwrap_err()));
    }
}
