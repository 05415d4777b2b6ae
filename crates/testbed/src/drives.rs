//! Emulated IDM drives, served by `idm-emulator`.

use crate::artifacts;
use crate::run::bound_to_this_thread;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Drives `d0`, `d1`, …, whose state is shared by all hosts and survives them.
#[derive(Debug)]
pub struct Drives {
    emulator: Child,
    dir: PathBuf,
    count: usize,
}

impl Drives {
    /// Starts `count` drives, with their sockets in `dir`.
    pub fn start(dir: &Path, count: usize) -> Result<Drives> {
        let program = artifacts::emulator();
        let mut command = bound_to_this_thread(&program);
        command.arg("--dir").arg(dir);
        for number in 0..count {
            command.args(["--drive", &name(number)]);
        }
        let mut emulator = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join("emulator.log"))?)
            .spawn()
            .with_context(|| format!("run {}", program.display()))?;
        let mut line = String::new();
        if let Some(stdout) = emulator.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let drives = Drives { emulator, dir: dir.to_owned(), count };
        if line.trim() != "ready" {
            let why = std::fs::read_to_string(dir.join("emulator.log")).unwrap_or_default();
            bail!("the emulated drives did not start: {line}{why}");
        }
        Ok(drives)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The socket of drive `number`.
    pub fn socket(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{}.sock", name(number)))
    }

    /// Sends one line to the control socket and returns what it answers.
    pub fn control(&self, request: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.dir.join("control.sock"))
            .context("connect to the drives' control socket")?;
        writeln!(stream, "{request}")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Drives {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

fn name(number: usize) -> String {
    format!("d{number}")
}
