//! This host's id: drawn once per boot, and kept under /run so that a restarted lvmlockd is the
//! same host and a rebooted one is not.

use crate::state::file;
use core::fmt::Write as _;
use idm_protocol::HostId;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const FILE: &str = "host-id";
/// Consequence of an id that cannot be read, for messages.
const ANOTHER: &str = "this host gets another id, and other hosts may have what was locked under \
                       the earlier one after one lease";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A host's id, and whether it was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// The id.
    pub host: HostId,
    /// Whether no earlier lvmlockd has used it: commands that one left under way have another id.
    pub is_new: bool,
}

/// The host's id, read from the state directory or drawn and written there; `given` replaces it.
/// Fails where the directory cannot be written: an id that is not kept would make a restarted
/// lvmlockd another host.
pub fn load(state_dir: &Path, given: Option<HostId>) -> io::Result<HostIdentity> {
    let name = nix::unistd::gethostname()?;
    load_for(state_dir, &boot_id()?, &name.to_string_lossy(), given)
}

/// The id of this boot.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

fn load_for(
    state_dir: &Path,
    boot: &str,
    name: &str,
    given: Option<HostId>,
) -> io::Result<HostIdentity> {
    let file = file(state_dir);
    match file::read(&file) {
        Ok(text) => match core::str::from_utf8(&text).ok().and_then(|text| parse(text, boot)) {
            Some(host) if given.is_none_or(|given| given == host) => {
                return Ok(HostIdentity { host, is_new: false });
            }
            Some(_) => {}
            None => {
                log::warn!("{}: of another boot, or damaged; {ANOTHER}", file.display());
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            log::warn!("{}: {error}; {ANOTHER}", file.display());
        }
        Err(error) => return Err(error),
    }
    let host = match given {
        Some(host) => host,
        None => HostId::new(random()?, name),
    };
    file::replace(&file, &format(boot, host), file::PRIVATE)?;
    log::info!("this host is {host}");
    Ok(HostIdentity { host, is_new: true })
}

/// The path of the file with the id.
pub fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// 16 random bytes.
pub fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The text of the file.
pub fn format(boot: &str, host: HostId) -> String {
    let mut text = format!("boot_id {boot}\nhost_id ");
    for byte in host.as_bytes() {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    text
}

/// The id in a file's text; `None` if the text is damaged or from another boot.
pub fn parse(text: &str, boot: &str) -> Option<HostId> {
    let mut lines = text.lines();
    if lines.next()?.strip_prefix("boot_id ")? != boot {
        return None;
    }
    let digits = lines.next()?.strip_prefix("host_id ")?.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = core::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    let host = HostId::from_bytes(bytes);
    // Other texts that parse as the same id, such as +1 for 01, were not written by this library.
    (format(boot, host) == text).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_the_id_and_a_reboot_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("run/lvmlockd-idm");
        let load = |boot: &str, name: &str| load_for(&state, boot, name, None).unwrap();
        let first = load("boot-1", "alpha");
        assert!(first.is_new);
        assert_eq!(first.host.name(), "alpha");
        let again = HostIdentity { is_new: false, ..first };
        assert_eq!(load("boot-1", "renamed"), again);
        let second = load("boot-2", "alpha");
        assert_ne!(second.host, first.host);
        assert!(second.is_new);
        assert_eq!(load("boot-2", "alpha").host, second.host);
        // An id that is given replaces it.
        let given = load_for(&state, "boot-2", "alpha", Some(first.host)).unwrap();
        assert_eq!(given, first);
        assert_eq!(load("boot-2", "alpha"), again);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let host = load_for(directory.path(), "b", "n", None).unwrap().host;
        let file = directory.path().join(FILE);
        let whole = fs::read_to_string(&file).unwrap();
        for length in 0..whole.len() - 1 {
            assert_eq!(parse(&whole[..length], "b"), None, "{length}");
        }
        fs::write(&file, &whole[..20]).unwrap();
        assert_ne!(load_for(directory.path(), "b", "n", None).unwrap().host, host);
    }

    #[test]
    fn what_is_no_text_or_no_file_is_replaced_too() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        fs::write(&file, b"boot_id b\nhost_id \xff\xfe\n").unwrap();
        assert!(load_for(directory.path(), "b", "n", None).unwrap().is_new);
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let drawn = load_for(directory.path(), "b", "n", None).unwrap();
        assert_eq!(load_for(directory.path(), "b", "n", None).unwrap().host, drawn.host);
    }

    #[test]
    fn where_the_id_cannot_be_kept_there_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(load_for(&file.path().join("below-a-file"), "b", "n", None).is_err());
    }
}
