//! Running programs.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::process::Command;

/// Result of a program: exit status and output.
#[derive(Clone, Debug)]
pub struct Output {
    /// Command line, for messages.
    pub command: String,
    /// Exit status; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Fails, with the whole output, unless the program succeeded.
    pub fn success(self) -> Result<Output> {
        if self.code != 0 {
            bail!("{self}");
        }
        Ok(self)
    }

    /// Whether the program printed `text`, on either stream.
    pub fn says(&self, text: &str) -> bool {
        self.stdout.contains(text) || self.stderr.contains(text)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` ended with status {}", self.command, self.code)?;
        f.write_str(&self.stdout)?;
        f.write_str(&self.stderr)
    }
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let line = describe(command);
    let output = command.output().with_context(|| format!("run {line}"))?;
    Ok(Output {
        command: line,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A command that the kernel kills when the thread that started it ends. A test or the demo may be
/// killed itself, and must not leave its machines behind.
pub fn bound_to_this_thread(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    // Cargo sets it to its own directories.
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// The first child of process `pid`, once there is one.
pub(crate) fn child_of(pid: u32) -> Result<Option<i32>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).with_context(|| path.clone())?;
    match children.split_whitespace().next() {
        Some(child) => Ok(Some(child.parse()?)),
        None => Ok(None),
    }
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}
