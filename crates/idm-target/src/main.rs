//! Serves emulated IDM disks to virtual machines: SCSI disks on vhost-user-scsi ports, NVMe drives
//! over NVMe/TCP.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, anyhow, bail};
use idm_emulator::disks::{Disk, Enclosure, Interface, control};
use idm_emulator::server::{DriveSpec, control_socket};
use idm_target::nvmet::{self, Identifier, Subsystem, Target};
use idm_target::vhost::port;
use lexopt::prelude::*;
use nix::sys::signal::{SigSet, Signal};
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

const HELP: &str = "\
Emulated disks with In-Drive Mutexes (IDM) for virtual machines.

  idm-target --dir DIR [--size MIB] --port NAME …
             [--drive NAME[=PROFILE] …] [--nvme NAME[=PROFILE][,OPTION …] …]
      A port's name is a host's name, or HOST.PATH. Each one is served twice: on DIR/NAME.port
      (vhost-user-scsi) with the drives of --drive, where number i of all drives is target i; and
      with the drives of --nvme on a TCP port of 127.0.0.1, whose number is in DIR/NAME.tcp, where
      drive NAME is the subsystem nqn.2024-01.lvmlockd-idm:NAME.
      Disk data is in DIR/NAME.disk. DIR/control.sock takes control commands; \"help\" lists them.
      Prints \"ready\" when all sockets accept connections, and ends at SIGTERM or SIGINT.

      OPTION is id=nguid|eui64|uuid|none, the form of the namespace's identity; shared, for
      subsystems in which a host may have several controllers; mdts=N, no transfer longer than 2^N
      pages; without-idm, for a drive without IDM.
";

struct Arguments {
    dir: PathBuf,
    mebibytes: u64,
    ports: Vec<String>,
    drives: Vec<DriveOptions>,
}

/// A drive to serve.
struct DriveOptions {
    spec: DriveSpec,
    /// Options of an NVMe drive.
    nvme: Option<NvmeOptions>,
}

/// Identity and features of an NVMe drive.
struct NvmeOptions {
    identifier: Identifier,
    shared: bool,
    mdts: u8,
    idm: bool,
}

impl NvmeOptions {
    fn parse(options: &[&str]) -> Result<NvmeOptions> {
        let mut parsed =
            NvmeOptions { identifier: Identifier::Nguid, shared: false, mdts: 0, idm: true };
        for &option in options {
            match option.split_once('=').unwrap_or((option, "")) {
                ("shared", "") => parsed.shared = true,
                ("without-idm", "") => parsed.idm = false,
                ("mdts", number) => parsed.mdts = number.parse().context("mdts")?,
                ("id", "nguid") => parsed.identifier = Identifier::Nguid,
                ("id", "eui64") => parsed.identifier = Identifier::Eui64,
                ("id", "uuid") => parsed.identifier = Identifier::Uuid,
                ("id", "none") => parsed.identifier = Identifier::None,
                _ => bail!("{option:?} is no option of an NVMe drive"),
            }
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| arguments.map_or(Ok(()), |a| run(&a))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("idm-target: {e:#}");
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
                drives.push(DriveOptions { spec: spec(&parser.value()?.string()?)?, nvme: None })
            }
            Long("nvme") => {
                let text = parser.value()?.string()?;
                let mut words = text.split(',');
                let spec = spec(words.next().unwrap_or_default())?;
                let options = NvmeOptions::parse(&words.collect::<Vec<_>>())?;
                drives.push(DriveOptions { spec, nvme: Some(options) });
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if mebibytes == 0 || ports.is_empty() || drives.is_empty() {
        bail!("a size, a --port and a --drive or --nvme are needed; see --help");
    }
    let dir = dir.context("--dir is missing; see --help")?;
    Ok(Some(Arguments { dir, mebibytes, ports, drives }))
}

fn spec(text: &str) -> Result<DriveSpec> {
    DriveSpec::parse(text).map_err(|why| anyhow!(why))
}

fn run(arguments: &Arguments) -> Result<()> {
    // Signals are blocked before there are threads, so that only the wait below receives them.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let disk = |drive: &DriveOptions| {
        let (spec, bytes) = (&drive.spec, arguments.mebibytes << 20);
        let interface = if drive.nvme.is_some() { Interface::Nvme } else { Interface::Scsi };
        let path = arguments.dir.join(format!("{}.disk", spec.name));
        Disk::create(&spec.name, interface, spec.profile, &path, bytes)
            .map(Arc::new)
            .with_context(|| format!("the disk {}", path.display()))
    };
    let disks = arguments.drives.iter().map(disk).collect::<Result<Vec<_>>>()?;
    let options = arguments.drives.iter().map(|drive| drive.nvme.as_ref());
    let subsystem = |(disk, options): (&Arc<Disk>, Option<&NvmeOptions>)| {
        let NvmeOptions { identifier, shared, mdts, idm } = *options?;
        Some(Arc::new(Subsystem { disk: Arc::clone(disk), identifier, shared, mdts, idm }))
    };
    let subsystems = disks.iter().zip(options).filter_map(subsystem).collect();
    let enclosure = Enclosure::new(disks);
    let target = Target::new(Arc::clone(&enclosure), subsystems);
    let control_path = control_socket(&arguments.dir);
    let listener = UnixListener::bind(&control_path)
        .with_context(|| format!("the socket {}", control_path.display()))?;
    control::serve(&enclosure, listener)?;
    for name in &arguments.ports {
        port::serve(&enclosure, name, arguments.dir.join(format!("{name}.port")))?;
        let listener = TcpListener::bind("127.0.0.1:0").context("a TCP port")?;
        let number = listener.local_addr()?.port();
        fs::write(arguments.dir.join(format!("{name}.tcp")), format!("{number}\n"))?;
        nvmet::serve(&target, name, listener)?;
    }
    println!("ready");
    signals.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_an_nvme_drive_are_read() {
        let options = NvmeOptions::parse(&["id=uuid", "shared", "mdts=5", "without-idm"]).unwrap();
        assert_eq!(options.identifier, Identifier::Uuid);
        assert_eq!((options.shared, options.mdts, options.idm), (true, 5, false));
        let options = NvmeOptions::parse(&[]).unwrap();
        assert_eq!((options.shared, options.mdts, options.idm), (false, 0, true));
        for wrong in ["id=wwn", "id", "mdts=", "mdts=x", "shared=yes", ""] {
            assert!(NvmeOptions::parse(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
