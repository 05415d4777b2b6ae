//! Emulated IDM drives, served by `idm-emulator`.

use crate::artifacts;
use crate::run::bound_to_this_thread;
use anyhow::{Context, Result, anyhow, bail};
use idm_emulator::client;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Drives `d0`, `d1`, …, whose state is shared by all hosts and survives them.
#[derive(Debug)]
pub struct Drives {
    emulator: Child,
    dir: PathBuf,
    count: usize,
}

/// One line of a drive's mutex table.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Lock: `global`, `vg UUID` or `lv UUID/UUID`, without dashes in the uuids.
    pub resource: String,
    /// Name of the host and number of its boot.
    pub host: String,
    /// State: `locked`, `multiple-locked`, `unlocked` or `timed-out`.
    pub state: String,
    /// Class: `ex` or `sh`.
    pub class: String,
    /// Time until other hosts may take it.
    pub lease_left: Option<Duration>,
}

impl Drives {
    /// Starts `count` drives, with their sockets in `dir`.
    pub fn start(dir: &Path, count: usize) -> Result<Drives> {
        let program = artifacts::emulator();
        let messages = dir.join("emulator.log");
        let mut command = bound_to_this_thread(&program);
        command.arg("--dir").arg(dir);
        for number in 0..count {
            command.args(["--drive", &name(number)]);
        }
        let mut emulator = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages)?)
            .spawn()
            .with_context(|| format!("run {}", program.display()))?;
        let stdout = emulator.stdout.take();
        let drives = Drives { emulator, dir: dir.to_owned(), count };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line != "ready\n" {
            let why = fs::read_to_string(&messages).unwrap_or_default();
            bail!("{} did not start: {line}{why}", program.display());
        }
        Ok(drives)
    }

    /// The number of drives.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The socket of drive `number`.
    pub fn socket(&self, number: usize) -> PathBuf {
        self.dir.join(format!("{}.sock", name(number)))
    }

    /// Cuts a drive's power, or restores it. Its table survives.
    pub fn power(&self, number: usize, on: bool) -> Result<()> {
        self.order(&format!("power {} {}", name(number), switch(on)))
    }

    /// Makes a drive hang, or answer again.
    pub fn hang(&self, number: usize, on: bool) -> Result<()> {
        self.order(&format!("hang {} {}", name(number), switch(on)))
    }

    /// Delays every command of a drive.
    pub fn delay(&self, number: usize, by: Duration) -> Result<()> {
        self.order(&format!("delay {} {}", name(number), by.as_millis()))
    }

    /// A drive's mutex table.
    pub fn table(&self, number: usize) -> Result<Vec<Record>> {
        Record::parse_table(&self.control(&format!("table {}", name(number)))?)
    }

    /// The number of commands that have arrived at a drive.
    pub fn commands(&self, number: usize) -> Result<u64> {
        let text = self.control(&format!("stats {}", name(number)))?;
        text.lines()
            .map(|line| {
                let count = line.rsplit(' ').next().unwrap_or_default();
                count.parse::<u64>().with_context(|| line.to_owned())
            })
            .sum()
    }

    fn order(&self, line: &str) -> Result<()> {
        self.control(line).map(drop)
    }

    fn control(&self, line: &str) -> Result<String> {
        client::control(&self.dir, line)
            .context("the drives' control socket")?
            .map_err(|why| anyhow!("drives refuse `{line}`: {why}"))
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

fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl Record {
    /// Whether a host holds it, even if its lease has run out.
    pub fn is_held(&self) -> bool {
        self.lease_left.is_some()
    }

    /// Whether it belongs to a boot of this machine: a record names the machine, then its boot.
    pub fn is_of(&self, machine: &str) -> bool {
        self.host.split(' ').next() == Some(machine)
    }

    /// The records of a table in the format of the drives' control socket, which begins with a
    /// heading.
    pub fn parse_table(text: &str) -> Result<Vec<Record>> {
        text.lines().skip(1).map(Record::parse).collect()
    }

    /// Parses a line. Cells are at least two spaces apart, because they contain single spaces.
    fn parse(line: &str) -> Result<Record> {
        let cells: Vec<&str> =
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let [resource, host, state, class, lease_left, _value] = cells[..] else {
            bail!("a line of a drive's table: {line:?}");
        };
        let lease_left = match lease_left.strip_suffix(" s") {
            Some(seconds) => Some(Duration::from_secs_f64(seconds.parse()?)),
            None => None,
        };
        Ok(Record {
            resource: resource.to_owned(),
            host: host.to_owned(),
            state: state.to_owned(),
            class: class.to_owned(),
            lease_left,
        })
    }
}
