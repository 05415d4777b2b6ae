//! Writes to a device like an application that was granted the device: past the kernel's cache, at
//! a steady pace, in its own blocks and in blocks that all hosts write. It never stops, whatever
//! errors it gets. Each block states its writer and the time.

#![forbid(unsafe_code)]

use lab_writer::{BLOCK, Buffer, Content, REGION, Stamp};
use nix::fcntl::OFlag;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const HELP: &str = "\
lab-writer DEVICE HOST NUMBER   writes to the region that all hosts share and to that of host
                                NUMBER, from 0, until it is killed; says when errors begin and end
lab-writer --read DEVICE        lists what was written: block, host, sequence, time in ms; or
                                block, \"torn\" or \"misplaced\"
";

/// Pause between two writes of a thread.
const PAUSE: Duration = Duration::from_millis(40);
/// Pause after an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["--read", device] => read(device),
        [device, host, number] => match number.parse() {
            Ok(number) => write(device, host, number),
            Err(_) => Err(io::Error::other("the host's number is not a number")),
        },
        _ => Err(io::Error::other(HELP)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-writer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(device: &str, host: &str, number: u64) -> io::Result<()> {
    let file = File::options().write(true).custom_flags(OFlag::O_DIRECT.bits()).open(device)?;
    thread::scope(|scope| {
        scope.spawn(|| write_region(&file, host, "shared", 0));
        scope.spawn(|| write_region(&file, host, "own", 1 + number));
    });
    Ok(())
}

/// Writes a region from its beginning to its end, in an endless loop.
fn write_region(file: &File, host: &str, name: &str, region: u64) {
    let mut buffer = Buffer([0; BLOCK]);
    let mut failing = None;
    for sequence in 0.. {
        let block = region * REGION + sequence % REGION;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Stamp { block, host: host.to_owned(), sequence, at_ms }.encode(&mut buffer);
        let error = file.write_all_at(&buffer.0, block * BLOCK as u64).err();
        let kind = error.as_ref().map(|error| error.raw_os_error());
        if kind != failing {
            match &error {
                Some(error) => println!("{at_ms} {name} {sequence}: {error}"),
                None => println!("{at_ms} {name} {sequence}: no error any more"),
            }
            failing = kind;
        }
        thread::sleep(if error.is_some() { PAUSE_AFTER_ERROR } else { PAUSE });
    }
}

fn read(device: &str) -> io::Result<()> {
    let file = File::options().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(device)?;
    let mut buffer = Buffer([0; BLOCK]);
    for block in 0.. {
        if file.read_at(&mut buffer.0, block * BLOCK as u64)? < BLOCK {
            break;
        }
        match Content::of(&buffer) {
            Content::Nothing => {}
            Content::Torn => println!("{block} torn"),
            Content::Whole(stamp) if stamp.block != block => println!("{block} misplaced"),
            Content::Whole(stamp) => {
                println!("{} {} {} {}", stamp.block, stamp.host, stamp.sequence, stamp.at_ms)
            }
        }
    }
    Ok(())
}
