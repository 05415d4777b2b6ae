//! Loop devices that act as the data areas of disks.

use crate::run::run;
use anyhow::{Context, Result};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// A loop device on a sparse file.
///
/// The device is marked to detach itself when no process has it open, and is kept open here, so the
/// kernel detaches it however this process ends.
#[derive(Debug)]
pub struct LoopDevice {
    path: String,
    _open: File,
}

impl LoopDevice {
    /// Attaches a new file of `bytes` bytes at `backing`.
    pub fn new(backing: &Path, bytes: u64) -> Result<LoopDevice> {
        let file =
            File::create_new(backing).with_context(|| format!("create {}", backing.display()))?;
        file.set_len(bytes)?;
        let attached =
            run(Command::new("losetup").args(["--find", "--show", "--nooverlap"]).arg(backing))?
                .success()?;
        let path = attached.stdout.trim().to_owned();
        let open = File::open(&path).with_context(|| format!("open {path}"))?;
        run(Command::new("losetup").args(["--detach", &path]))?.success()?;
        Ok(LoopDevice { path, _open: open })
    }

    /// The path, for example `/dev/loop3`.
    pub fn path(&self) -> &str {
        &self.path
    }
}
