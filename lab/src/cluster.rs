//! The machines and drives of one scenario.

use crate::drives::Drives;
use crate::files::Files;
use crate::interfaces::Interfaces;
use crate::machine::{Daemon, Machine};
use crate::transcript::Transcript;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Size of the drives of a scenario.
const SIZE_MIB: u64 = 1024;
/// Size of drives for lvm2's own tests, which make many PVs on one of them. Their files are sparse.
pub const LARGE_MIB: u64 = 64 << 10;

/// The machines and drives of a scenario. Dropping it ends all of them.
pub struct Cluster {
    // Machines come before drives: fields are dropped in this order.
    machines: Vec<Machine>,
    /// The drives.
    pub drives: Drives,
    /// Prints each step.
    pub transcript: Transcript,
    files: Files,
    dir: PathBuf,
}

impl Cluster {
    /// Drives without machines. `dir` gets all files.
    pub fn new(
        files: &Files,
        interfaces: Interfaces,
        dir: &Path,
        transcript: Transcript,
    ) -> Result<Cluster> {
        Cluster::with_size(files, interfaces, SIZE_MIB, dir, transcript)
    }

    /// The same with drives of this size.
    pub fn with_size(
        files: &Files,
        interfaces: Interfaces,
        mebibytes: u64,
        dir: &Path,
        transcript: Transcript,
    ) -> Result<Cluster> {
        let drives = Drives::start(&files.server, interfaces, mebibytes, dir, transcript)?;
        Ok(Cluster {
            machines: Vec::new(),
            drives,
            transcript,
            files: files.clone(),
            dir: dir.to_owned(),
        })
    }

    /// Boots a machine without lvmlockd.
    pub fn boot(&mut self, name: &str) -> Result<()> {
        let machine = Machine::boot(name, &self.files, &self.drives, &self.dir, self.transcript)
            .with_context(|| format!("machine {name}"))?;
        self.machines.push(machine);
        Ok(())
    }

    /// Boots a machine whose root file system is an empty host's.
    pub fn boot_bare(&mut self, name: &str) -> Result<()> {
        let (files, drives) = (&self.files, &self.drives);
        let machine = Machine::boot_bare(name, files, drives, &self.dir, self.transcript)
            .with_context(|| format!("machine {name}"))?;
        self.machines.push(machine);
        Ok(())
    }

    /// Exchanges the drives for new ones of this size, before a machine has been booted.
    pub fn exchange_drives(&mut self, mebibytes: u64) -> Result<()> {
        let interfaces = self.drives.interfaces;
        let (server, transcript) = (&self.files.server, self.transcript);
        self.drives.end();
        self.drives = Drives::start(server, interfaces, mebibytes, &self.dir, transcript)?;
        Ok(())
    }

    /// Paths of the files and programs that the lab runs.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Boots machines and starts lvmlockd on them.
    pub fn start(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            self.boot(name)?;
            self.host_mut(name)?.start_lvmlockd(&Daemon::default())?;
        }
        Ok(())
    }

    /// Gives a machine its second path to all drives. lvm still uses the nodes of the first.
    pub fn plug_second_path(&mut self, name: &str) -> Result<()> {
        let socket = self.drives.port_socket(name, 1);
        self.host_mut(name)?.plug_second_path(&socket)
    }

    /// Connects a machine to NVMe drives a second time. The kernel makes one node of both paths.
    pub fn connect_second_path(&self, name: &str, drives: &[&str]) -> Result<()> {
        let port = self.drives.tcp_port(name, 1)?;
        let host = self.host(name)?;
        for drive in drives {
            host.connect_nvme(drive, port)?;
        }
        Ok(())
    }

    /// A running machine.
    pub fn host(&self, name: &str) -> Result<&Machine> {
        let found = self.machines.iter().find(|machine| machine.name() == name);
        found.with_context(|| format!("host {name} does not run"))
    }

    /// A running machine, mutable.
    pub fn host_mut(&mut self, name: &str) -> Result<&mut Machine> {
        let found = self.machines.iter_mut().find(|machine| machine.name() == name);
        found.with_context(|| format!("host {name} does not run"))
    }

    /// Cuts a machine's power.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let at = self.machines.iter().position(|machine| machine.name() == name);
        let at = at.with_context(|| format!("host {name} does not run"))?;
        self.machines.remove(at).kill();
        Ok(())
    }

    /// Removes a machine that has gone down by itself, so that it can be booted again.
    pub fn forget(&mut self, name: &str) {
        self.machines.retain(|machine| machine.name() != name);
    }

    /// Saves all available information beside the logs, after a failure.
    pub fn keep(&self) {
        self.drives.keep(&self.dir);
        for machine in &self.machines {
            let _ = machine.thaw();
            machine.keep(&self.dir);
        }
    }
}
