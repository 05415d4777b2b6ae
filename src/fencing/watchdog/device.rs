//! The kernel's watchdog device. Facts: Documentation/watchdog/watchdog-api.rst and
//! include/uapi/linux/watchdog.h of the kernel.

use core::ffi::c_int;
use core::time::Duration;
use nix::sys::stat::{major, minor};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const SYSFS: &str = "/sys";
/// The number of `/dev/watchdog`, which is the same device as `/dev/watchdog0`.
const WATCHDOG: (u64, u64) = (10, 130);

/// A watchdog that can be fed. Dropping an open one has the effect of a death of the process.
pub trait WatchdogDevice: Send {
    /// Feeds it. Where it is closed, opens and starts it first.
    fn feed(&mut self) -> io::Result<()>;
    /// Closes it without stopping it, which also feeds it.
    fn leave(&mut self) -> io::Result<()>;
    /// Stops and closes it.
    fn disarm(&mut self) -> io::Result<()>;
    /// Stops and closes it where it is open. Fails where it may still run afterwards.
    fn undo(&mut self) -> io::Result<()>;
}

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Default)]
pub struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

const SETTIMEOUT: u32 = 0x0080;
const MAGICCLOSE: u32 = 0x0100;
const ALARMONLY: u32 = 0x0400;

mod ioctl {
    use core::ffi::c_int;
    nix::ioctl_read!(get_support, b'W', 0, super::Info);
    nix::ioctl_read!(keepalive, b'W', 5, c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, c_int);
}

/// A device like `/dev/watchdog`.
pub struct KernelWatchdog {
    path: PathBuf,
    timeout: Duration,
    sysfs: PathBuf,
    file: Option<File>,
    /// Whether it was started but could be neither used nor stopped.
    stuck: bool,
}

impl KernelWatchdog {
    /// The device at a path, closed. `timeout` in whole seconds.
    pub fn new(path: &Path, timeout: Duration) -> KernelWatchdog {
        let sysfs = PathBuf::from(SYSFS);
        KernelWatchdog { path: path.to_owned(), timeout, sysfs, file: None, stuck: false }
    }

    fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            self.file = Some(self.start().map_err(|error| self.named(&error))?);
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The error with the key of the setting to correct.
    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("watchdog = {:?}: {error}", self.path))
    }

    fn start(&mut self) -> io::Result<File> {
        // Checked before the device is opened: opening starts a watchdog, and has other side
        // effects on other devices.
        let found = fs::metadata(&self.path)?;
        if !found.file_type().is_char_device() {
            return Err(io::Error::other("it is no character device, so no watchdog"));
        }
        if self.has_no_way_out(found.rdev()) {
            return Err(no_way_out());
        }
        // The standard library opens with O_CLOEXEC.
        let file = File::options().write(true).open(&self.path).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EBUSY) => io::Error::new(
                    error.kind(),
                    "in use by another program (systemd's RuntimeWatchdogSec, wdmd, watchdog?)",
                ),
                _ => error,
            }
        })?;
        let info = support(&file)?;
        if let Err(error) = self.set_up(&file, &info) {
            // The device may have a timeout that the feeding was not planned for.
            self.stuck = stop(&file).is_err();
            return Err(error);
        }
        self.stuck = false;
        Ok(file)
    }

    /// Whether the kernel reports that the watchdog cannot be stopped. A kernel without
    /// `CONFIG_WATCHDOG_SYSFS` does not report it.
    fn has_no_way_out(&self, number: u64) -> bool {
        let device = match (major(number), minor(number)) {
            WATCHDOG => self.sysfs.join("class/watchdog/watchdog0"),
            (major, minor) => self.sysfs.join(format!("dev/char/{major}:{minor}")),
        };
        fs::read(device.join("nowayout")).is_ok_and(|text| text.trim_ascii() == b"1")
    }

    /// Checks the features that this library relies on, and sets the timeout.
    fn set_up(&self, file: &File, info: &Info) -> io::Result<()> {
        if info.options & ALARMONLY != 0 {
            return Err(io::Error::other("it does not reset the host, it only gives an alarm"));
        }
        if info.options & MAGICCLOSE == 0 {
            return Err(io::Error::other("it stops when lvmlockd dies (it has no magic close)"));
        }
        let wanted = c_int::try_from(self.timeout.as_secs()).unwrap_or(c_int::MAX);
        let mut timeout = wanted;
        if info.options & SETTIMEOUT != 0 {
            // SAFETY: the descriptor is open, and the kernel reads and writes one int.
            unsafe { ioctl::set_timeout(file.as_raw_fd(), &mut timeout) }?;
        }
        // SAFETY: the descriptor is open, and the kernel writes one int.
        unsafe { ioctl::get_timeout(file.as_raw_fd(), &mut timeout) }?;
        if timeout != wanted {
            return Err(io::Error::other(format!(
                "its timeout is {timeout} s and cannot be made {wanted} s (watchdog_timeout_s)"
            )));
        }
        Ok(())
    }
}

/// The device's description of itself. A device that does not answer is no watchdog and must not be
/// written to.
fn support(file: &File) -> io::Result<Info> {
    let mut info = Info::default();
    // SAFETY: the descriptor is open, and the kernel writes one `struct watchdog_info`.
    match unsafe { ioctl::get_support(file.as_raw_fd(), &mut info) } {
        Ok(_) => Ok(info),
        Err(error) => Err(io::Error::other(format!("it does not answer as a watchdog: {error}"))),
    }
}

fn no_way_out() -> io::Error {
    io::Error::other(
        "it cannot be stopped (nowayout), so it would reset this host after every orderly stop; \
         load its driver with nowayout=0",
    )
}

/// Makes a watchdog stop when it is closed.
fn stop(mut file: &File) -> io::Result<()> {
    file.write_all(b"V")
}

impl WatchdogDevice for KernelWatchdog {
    fn feed(&mut self) -> io::Result<()> {
        let file = self.open()?;
        let mut unused = 0;
        // SAFETY: the descriptor is open, and the kernel writes at most one int.
        unsafe { ioctl::keepalive(file.as_raw_fd(), &mut unused) }?;
        Ok(())
    }

    fn leave(&mut self) -> io::Result<()> {
        self.feed()?;
        self.file = None;
        Ok(())
    }

    fn disarm(&mut self) -> io::Result<()> {
        let number = self.open()?.metadata()?.rdev();
        if self.has_no_way_out(number) {
            // The setting was changed after the start. A feed keeps the watchdog harmless.
            self.feed()?;
            return Err(self.named(&no_way_out()));
        }
        stop(self.open()?)?;
        self.file = None;
        Ok(())
    }

    fn undo(&mut self) -> io::Result<()> {
        if self.stuck {
            return Err(io::Error::other("it could not be stopped"));
        }
        match self.file {
            Some(_) => self.disarm(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    fn watchdog(path: &Path) -> KernelWatchdog {
        KernelWatchdog::new(path, Duration::from_secs(10))
    }

    fn refused(path: &Path) -> String {
        let mut watchdog = watchdog(path);
        let why = watchdog.feed().unwrap_err().to_string();
        assert!(why.starts_with(&format!("watchdog = {path:?}: ")), "{why}");
        assert_eq!(watchdog.disarm().unwrap_err().to_string(), why);
        watchdog.undo().unwrap();
        why
    }

    #[test]
    fn nothing_is_written_to_what_is_no_watchdog() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("disk");
        fs::write(&file, "label").unwrap();
        assert!(refused(&file).contains("no character device"));
        assert_eq!(fs::read(&file).unwrap(), b"label");
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        assert!(refused(&fifo).contains("no character device"));
        // A write to `/dev/full` fails for lack of space.
        assert!(refused(Path::new("/dev/full")).contains("does not answer as a watchdog"));
        assert!(refused(&directory.path().join("absent")).contains("No such file"));
    }

    #[test]
    fn a_watchdog_without_a_way_out_is_not_even_opened() {
        let sysfs = tempfile::tempdir().unwrap();
        let null = sysfs.path().join("dev/char/1:3");
        let first = sysfs.path().join("class/watchdog/watchdog0");
        for device in [&null, &first] {
            fs::create_dir_all(device).unwrap();
            fs::write(device.join("nowayout"), "1\n").unwrap();
        }
        let mut watchdog = watchdog(Path::new("/dev/null"));
        watchdog.sysfs = sysfs.path().to_owned();
        let why = watchdog.feed().unwrap_err().to_string();
        assert!(why.starts_with("watchdog = \"/dev/null\": it cannot be stopped"), "{why}");
        assert!(watchdog.has_no_way_out(nix::sys::stat::makedev(10, 130)));
        assert!(!watchdog.has_no_way_out(nix::sys::stat::makedev(249, 1)));
        fs::write(null.join("nowayout"), "0\n").unwrap();
        assert!(watchdog.feed().unwrap_err().to_string().contains("does not answer"));
    }
}
