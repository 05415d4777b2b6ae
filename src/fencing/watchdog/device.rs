//! The kernel's watchdog device. Facts: Documentation/watchdog/watchdog-api.rst and
//! include/uapi/linux/watchdog.h of the kernel.

use core::ffi::c_int;
use core::time::Duration;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A watchdog that can be fed. Dropping an open one is what a death does to it.
pub trait WatchdogDevice: Send {
    /// Feeds it. Opens and starts it before, where it is closed.
    fn feed(&mut self) -> io::Result<()>;
    /// Closes it without stopping it, which feeds it, too.
    fn leave(&mut self) -> io::Result<()>;
    /// Stops and closes it.
    fn disarm(&mut self) -> io::Result<()>;
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
    file: Option<File>,
}

impl KernelWatchdog {
    /// The device at a path, closed. `timeout` in whole seconds.
    pub fn new(path: &Path, timeout: Duration) -> KernelWatchdog {
        KernelWatchdog { path: path.to_owned(), timeout, file: None }
    }

    fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            // Opening starts it. The standard library opens with O_CLOEXEC.
            let file = File::options().write(true).open(&self.path).map_err(|error| match error
                .raw_os_error()
            {
                Some(libc::EBUSY) => io::Error::new(
                    error.kind(),
                    "in use by another program (systemd's RuntimeWatchdogSec, wdmd, watchdog?)",
                ),
                _ => error,
            })?;
            if let Err(error) = self.set_up(&file) {
                // It may have a timeout that no feeding was planned for.
                stop(&file)?;
                return Err(error);
            }
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Checks that it does what we rely on, and sets its timeout.
    fn set_up(&self, file: &File) -> io::Result<()> {
        let mut info = Info::default();
        // SAFETY: the descriptor is open, and the kernel writes one `struct watchdog_info`.
        unsafe { ioctl::get_support(file.as_raw_fd(), &mut info) }?;
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

/// Tells the device that it shall stop when it is closed.
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
        stop(self.open()?)?;
        self.file = None;
        Ok(())
    }
}
