//! A trace of a daemon's system calls.

use crate::run::bound_to_this_thread;
use crate::wait::wait_until;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// A running strace.
#[derive(Debug)]
pub struct Trace {
    strace: Child,
    file: PathBuf,
}

impl Trace {
    /// Attaches to process `pid` and all its threads; `calls` is a set of system calls in strace's
    /// notation, for example `process,write`. Returns when strace is attached.
    pub fn attach(pid: i32, calls: &str, dir: &Path) -> Result<Trace> {
        let file = dir.join("trace");
        let messages = dir.join("strace.log");
        let strace = bound_to_this_thread("strace")
            .args(["-f", "-e", &format!("trace={calls}"), "-p", &pid.to_string()])
            .arg("-o")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(File::create(&messages)?)
            .spawn()
            .context("run strace")?;
        let trace = Trace { strace, file };
        wait_until(Duration::from_secs(10), "strace to attach", || {
            let said = fs::read_to_string(&messages)?;
            Ok(said.contains("attached").then_some(()))
        })?;
        Ok(trace)
    }

    /// Detaches; returns the calls, one per line.
    pub fn finish(mut self) -> Result<Vec<String>> {
        kill(Pid::from_raw(self.strace.id().try_into()?), Signal::SIGINT)?;
        self.strace.wait()?;
        let text = fs::read_to_string(&self.file)?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
