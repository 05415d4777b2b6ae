//! Serves emulated IDM drives on unix sockets, and sends control commands to such a server.

use idm_emulator::server::{DriveSpec, Server, drive_socket};
use idm_emulator::{Profile, client, sysfs};
use lexopt::prelude::*;
use nix::sys::signal::{SigSet, Signal};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Emulated drives with In-Drive Mutexes (IDM).

  idm-emulator --dir DIR --drive NAME[=PROFILE] …
      Serves each drive on DIR/NAME.sock, and DIR/control.sock, until SIGTERM or SIGINT. Prints
      \"ready\" when all sockets accept connections.

  idm-emulator --dir DIR ctl COMMAND …
      Sends a command to the server in DIR and prints its answer. \"ctl help\" lists the commands.

  idm-emulator --dir DIR sysfs ROOT NODE=NAME …
      Makes the directories below ROOT by which each of these block nodes is a SCSI disk: the drive
      NAME of the server in DIR.

  idm-emulator profiles
      Lists the profiles that a drive can have.
";

enum Task {
    Serve(Vec<DriveSpec>),
    Control(String),
    Sysfs(Vec<String>),
    Profiles,
    Help,
}

fn main() -> ExitCode {
    match arguments().and_then(|(dir, task)| run(dir.as_deref(), task)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("idm-emulator: {e}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<(Option<PathBuf>, Task), Box<dyn Error>> {
    let mut dir = None;
    let mut drives = Vec::new();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok((dir, Task::Help)),
            Long("dir") => dir = Some(PathBuf::from(parser.value()?)),
            Long("drive") => drives.push(DriveSpec::parse(&parser.value()?.string()?)?),
            Value(word) if word == "profiles" => return Ok((dir, Task::Profiles)),
            Value(word) if word == "ctl" => {
                return Ok((dir, Task::Control(rest(&mut parser)?.join(" "))));
            }
            Value(word) if word == "sysfs" => {
                return Ok((dir, Task::Sysfs(rest(&mut parser)?)));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok((dir, Task::Serve(drives)))
}

/// The words that follow.
fn rest(parser: &mut lexopt::Parser) -> Result<Vec<String>, lexopt::Error> {
    parser.raw_args()?.map(ValueExt::string).collect()
}

/// Makes the directories of sysfs for words `ROOT NODE=NAME …`.
fn make_sysfs(dir: &Path, words: &[String]) -> Result<(), Box<dyn Error>> {
    let (root, pairs) = words.split_first().ok_or("sysfs: where?")?;
    let disk = |pair: &String| {
        let (node, name) = pair.split_once('=')?;
        Some((PathBuf::from(node), drive_socket(dir, name)))
    };
    let disks: Option<Vec<_>> = pairs.iter().map(disk).collect();
    Ok(sysfs::write(Path::new(root), &disks.ok_or("sysfs: not NODE=NAME")?)?)
}

fn run(dir: Option<&Path>, task: Task) -> Result<(), Box<dyn Error>> {
    let dir = dir.ok_or("--dir is missing; see --help");
    match task {
        Task::Help => print!("{HELP}"),
        Task::Profiles => {
            for (name, _) in Profile::named() {
                println!("{name}");
            }
        }
        Task::Control(line) => print!("{}", client::control(dir?, &line)??),
        Task::Sysfs(words) => make_sysfs(dir?, &words)?,
        Task::Serve(drives) if drives.is_empty() => {
            return Err("no --drive is given; see --help".into());
        }
        Task::Serve(drives) => {
            // Signals are blocked before there are threads, so that only the wait below gets them.
            let mut signals = SigSet::empty();
            signals.add(Signal::SIGTERM);
            signals.add(Signal::SIGINT);
            signals.thread_block()?;
            let server = Server::start(dir?, &drives)?;
            println!("ready");
            signals.wait()?;
            drop(server);
        }
    }
    Ok(())
}
