//! Serves emulated IDM disks to virtual machines, on vhost-user-scsi ports.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, anyhow, bail};
use idm_emulator::disks::{Disk, Floor, Interface, control};
use idm_emulator::server::{DriveSpec, control_socket};
use idm_vhost::port;
use lexopt::prelude::*;
use nix::sys::signal::{SigSet, Signal};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

const HELP: &str = "\
Emulated disks with In-Drive Mutexes (IDM) for virtual machines.

  idm-disks --dir DIR [--size MIB] --port NAME … --drive NAME[=PROFILE] …
      Serves each port on DIR/NAME.port (vhost-user-scsi) and all drives on each of them, drive i as
      target i. Disk data is in DIR/NAME.disk. DIR/control.sock takes control commands, of which
      \"help\" lists all. Prints \"ready\" when all sockets can be connected to, and ends by SIGTERM
      or SIGINT. A port's name is a host's name, or HOST.PATH.
";

struct Arguments {
    dir: PathBuf,
    mebibytes: u64,
    ports: Vec<String>,
    drives: Vec<DriveSpec>,
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| arguments.map_or(Ok(()), |a| run(&a))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("idm-disks: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Option<Arguments>> {
    let (mut dir, mut mebibytes, mut ports, mut drives) = (None, 1024, Vec::new(), Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(None);
            }
            Long("dir") => dir = Some(PathBuf::from(parser.value()?)),
            Long("size") => mebibytes = parser.value()?.parse()?,
            Long("port") => ports.push(parser.value()?.string()?),
            Long("drive") => {
                let spec = DriveSpec::parse(&parser.value()?.string()?);
                drives.push(spec.map_err(|why| anyhow!(why))?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if mebibytes == 0 || ports.is_empty() || drives.is_empty() {
        bail!("a size, a --port and a --drive are needed; see --help");
    }
    let dir = dir.context("--dir is missing; see --help")?;
    Ok(Some(Arguments { dir, mebibytes, ports, drives }))
}

fn run(arguments: &Arguments) -> Result<()> {
    // Blocked before there are threads, so that only the wait below takes them.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let disk = |spec: &DriveSpec| {
        let path = arguments.dir.join(format!("{}.disk", spec.name));
        Disk::create(&spec.name, Interface::Scsi, spec.profile, &path, arguments.mebibytes << 20)
            .map(Arc::new)
            .with_context(|| format!("the disk {}", path.display()))
    };
    let disks = arguments.drives.iter().map(disk).collect::<Result<Vec<_>>>()?;
    let floor = Floor::new(disks);
    let control_path = control_socket(&arguments.dir);
    let listener = UnixListener::bind(&control_path)
        .with_context(|| format!("the socket {}", control_path.display()))?;
    control::serve(&floor, listener)?;
    for name in &arguments.ports {
        port::serve(&floor, name, arguments.dir.join(format!("{name}.port")))?;
    }
    println!("ready");
    signals.wait()?;
    Ok(())
}
