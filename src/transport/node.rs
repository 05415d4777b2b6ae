//! Device nodes that are kept open.

use super::TransportError;
use super::drive::CommandError;
use crate::sys::sync::Mutex;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A path to a drive by a block node, kept open as a `T`. The node is opened again when the kernel
/// reports that its device is gone, and used only while it leads to the expected drive.
pub struct Node<T> {
    /// The block node.
    pub path: PathBuf,
    identity: String,
    open: Mutex<Option<Arc<T>>>,
}

impl<T> Node<T> {
    /// A node that is not open yet: nothing is opened before the first command.
    pub fn new(path: PathBuf, identity: String) -> Node<T> {
        Node { path, identity, open: Mutex::default() }
    }

    /// The open device; `open` opens it where necessary. An error means that nothing was sent.
    ///
    /// The kernel opens no device during error recovery, so this may take long. The command's
    /// time-out is computed afterwards; where too little time is left, the next command finds the
    /// device open.
    pub fn opened(
        &self,
        open: impl FnOnce() -> Result<T, String>,
    ) -> Result<Arc<T>, TransportError> {
        let mut slot = self.open.lock();
        if let Some(opened) = &*slot {
            return Ok(opened.clone());
        }
        let opened = open().map_err(|why| TransportError::NotSent(self.prefixed(why)))?;
        let opened = Arc::new(opened);
        *slot = Some(opened.clone());
        Ok(opened)
    }

    /// Opens a node and checks that it leads to the expected drive: /dev/sdX is given to another
    /// drive when drives come and go. `identify` returns the identity of the drive with the number
    /// of an open device.
    ///
    /// The open is read-only, because closing a block node that was open for writing makes udev
    /// probe the whole disk again. The capabilities that vendor commands need allow every command
    /// on such a node.
    pub fn open_checked(
        &self,
        path: &Path,
        identify: impl FnOnce(u64) -> Result<String, String>,
    ) -> Result<OwnedFd, String> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = open(path, flags, Mode::empty()).map_err(|errno| errno.to_string())?;
        let number = fstat(&fd).map_err(|errno| errno.to_string())?.st_rdev;
        let identity = identify(number)?;
        if identity != self.identity {
            return Err(format!("it is now drive {identity}, not {}", self.identity));
        }
        Ok(fd)
    }

    /// Closes a device that leads nowhere, unless another thread has already replaced it.
    pub fn forget(&self, stale: &Arc<T>) {
        let mut slot = self.open.lock();
        if slot.as_ref().is_some_and(|opened| Arc::ptr_eq(opened, stale)) {
            *slot = None;
        }
    }

    /// The same error with the node's name.
    pub fn named(&self, trouble: CommandError) -> CommandError {
        match trouble {
            CommandError::TooLong(why) => CommandError::TooLong(self.prefixed(why)),
            CommandError::Transport(TransportError::NotSent(why)) => {
                TransportError::NotSent(self.prefixed(why)).into()
            }
            CommandError::Transport(TransportError::Unknown(why)) => {
                TransportError::Unknown(self.prefixed(why)).into()
            }
        }
    }

    fn prefixed(&self, why: String) -> String {
        format!("{}: {why}", self.path.display())
    }
}
