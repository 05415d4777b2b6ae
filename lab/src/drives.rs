//! The drives that all machines share: the process that serves them, and its control socket.

use crate::interfaces::{DRIVES, Interfaces};
use crate::transcript::Transcript;
use anyhow::{Context, Result, anyhow, bail};
use idm_emulator::client;
use idm_emulator::disks::Interface;
use idm_emulator::server::control_socket;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::{Record, bound_to_this_thread};

/// Drives with a partition table: a partition `propeller` for the global lock, and one for data.
/// The others are plain disks.
pub const PARTITIONED: [&str; 3] = ["d0", "d1", "d2"];
/// Names of the machines.
pub const HOSTS: [&str; 3] = ["a", "b", "c"];
/// Number of paths that each machine can have to the drives.
pub const PATHS: usize = 2;

/// A running server of drives. Dropping it ends the server.
pub struct Drives {
    server: Child,
    dir: PathBuf,
    /// The interface of each drive.
    pub interfaces: Interfaces,
    /// Prints every order.
    pub transcript: Transcript,
}

/// A mutex command that a drive carried out.
#[derive(Clone, Debug)]
pub struct Event {
    /// Time on the drive's clock.
    pub at: Duration,
    /// Host that sent it.
    pub host: String,
    /// Path of the host on which it came.
    pub path: String,
    /// Command: `trylock`, `refresh`, `break`, …
    pub kind: String,
    /// Lock, as in [`Record::resource`].
    pub resource: String,
    /// SCSI status, or NVMe status field.
    pub status: String,
}

impl Event {
    fn parse(line: &str) -> Result<Event> {
        let cells: Vec<&str> = line.split("  ").collect();
        let [at, port, kind, resource, _host_id, status] = cells[..] else {
            bail!("a line of a drive's events: {line:?}");
        };
        let (host, path) = port.split_once('.').unwrap_or((port, ""));
        Ok(Event {
            at: Duration::from_secs_f64(at.parse()?),
            host: host.to_owned(),
            path: path.to_owned(),
            kind: kind.to_owned(),
            resource: resource.to_owned(),
            status: status.to_owned(),
        })
    }

    /// Whether the drive answered GOOD, or successful completion.
    pub fn is_good(&self) -> bool {
        self.status == "00"
    }
}

/// Blocks of a drive that were written or unmapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Time on the drive's clock when all of it was done.
    pub at: Duration,
    /// Host that did it.
    pub host: String,
    /// First block.
    pub first: u64,
    /// Number of blocks.
    pub count: u64,
}

impl Change {
    fn parse(line: &str) -> Result<Change> {
        let cells: Vec<&str> = line.split("  ").collect();
        let [at, port, first, count] = cells[..] else {
            bail!("a line of a drive's changes: {line:?}");
        };
        let host = port.split_once('.').map_or(port, |(host, _)| host);
        Ok(Change {
            at: Duration::from_secs_f64(at.parse()?),
            host: host.to_owned(),
            first: first.parse()?,
            count: count.parse()?,
        })
    }
}

impl Drives {
    /// Starts the drives, empty, with all files in `dir`.
    pub fn start(
        program: &Path,
        interfaces: Interfaces,
        mebibytes: u64,
        dir: &Path,
        transcript: Transcript,
    ) -> Result<Drives> {
        for name in DRIVES {
            let path = dir.join(format!("{name}.disk"));
            File::create(&path)?.set_len(mebibytes << 20)?;
            if PARTITIONED.contains(&name) {
                partition(&path)?;
            }
        }
        let mut command = bound_to_this_thread(program);
        command.arg("--dir").arg(dir).args(["--size", &mebibytes.to_string()]);
        command.args(interfaces.arguments());
        for host in HOSTS {
            for path in 0..PATHS {
                command.args(["--port", &port(host, path)]);
            }
        }
        // A killed server leaves its socket; the ports' are taken over.
        let _ = fs::remove_file(control_socket(dir));
        let messages = dir.join("drives.log");
        let mut server = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages)?)
            .spawn()
            .with_context(|| format!("run {}", program.display()))?;
        let stdout = server.stdout.take();
        let drives = Drives { server, dir: dir.to_owned(), interfaces, transcript };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line != "ready\n" {
            let why = fs::read_to_string(&messages).unwrap_or_default();
            bail!("{} did not start: {why}", program.display());
        }
        Ok(drives)
    }

    /// The socket of a port, for SCSI disks.
    pub fn port_socket(&self, host: &str, path: usize) -> PathBuf {
        self.dir.join(format!("{}.port", port(host, path)))
    }

    /// The TCP port, on this machine's 127.0.0.1, of a port for NVMe drives.
    pub fn tcp_port(&self, host: &str, path: usize) -> Result<u16> {
        let file = self.dir.join(format!("{}.tcp", port(host, path)));
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        text.trim().parse().with_context(|| file.display().to_string())
    }

    /// The effect of a fault that makes a command of this drive fail with an unknown result.
    pub fn vague_failure(&self, drive: &str) -> &'static str {
        match self.interfaces.of(drive) {
            // ABORTED COMMAND, as sense data.
            Interface::Scsi => "fail 2",
            // Internal Error.
            Interface::Nvme => "fail 6",
        }
    }

    /// Sends a line to the control socket and returns the answer.
    pub fn ask(&self, line: &str) -> Result<String> {
        client::control(&self.dir, line)
            .context("the drives' control socket")?
            .map_err(|why| anyhow!("drives refuse `{line}`: {why}"))
    }

    /// Sends a line that changes something.
    pub fn order(&self, line: &str) -> Result<()> {
        self.transcript.step("drives", line);
        self.ask(line).map(drop)
    }

    /// A drive's mutex table.
    pub fn table(&self, drive: &str) -> Result<Vec<Record>> {
        Record::parse_table(&self.ask(&format!("table {drive}"))?)
    }

    /// A drive's records of one lock.
    pub fn records(&self, drive: &str, resource: &str) -> Result<Vec<Record>> {
        let mut table = self.table(drive)?;
        table.retain(|record| record.resource == resource);
        Ok(table)
    }

    /// The commands that a drive has carried out, oldest first.
    pub fn events(&self, drive: &str) -> Result<Vec<Event>> {
        self.ask(&format!("events {drive}"))?.lines().map(Event::parse).collect()
    }

    /// The changes of a drive's data, oldest first.
    pub fn changes(&self, drive: &str) -> Result<Vec<Change>> {
        self.ask(&format!("changes {drive}"))?.lines().map(Change::parse).collect()
    }

    /// A drive's clock.
    pub fn time(&self, drive: &str) -> Result<Duration> {
        Ok(Duration::from_secs_f64(self.ask(&format!("time {drive}"))?.trim().parse()?))
    }

    /// Ends the server.
    pub fn end(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Saves the state of the drives in `dir`.
    pub fn keep(&self, dir: &Path) {
        let mut text = self.ask("rules").unwrap_or_default();
        for name in DRIVES {
            for what in ["time", "table", "events", "reservations"] {
                let said = self.ask(&format!("{what} {name}")).unwrap_or_default();
                text.push_str(&format!("--- {what} {name}\n{said}"));
            }
        }
        let _ = fs::write(dir.join("drives.txt"), text);
    }
}

impl Drop for Drives {
    fn drop(&mut self) {
        self.end();
    }
}

fn port(host: &str, path: usize) -> String {
    format!("{host}.{path}")
}

/// Partitions a disk as documented: a small partition whose name makes the disk one of the global
/// lock's drives, and the rest for data.
fn partition(disk: &Path) -> Result<()> {
    let output = Command::new("sgdisk")
        .args(["--new=1:2048:+8M", "--change-name=1:propeller", "--new=2:0:0"])
        .args(["--change-name=2:data", "--typecode=2:8e00"])
        .arg(disk)
        .output()
        .context("run sgdisk")?;
    if !output.status.success() {
        bail!("sgdisk {}: {}", disk.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
