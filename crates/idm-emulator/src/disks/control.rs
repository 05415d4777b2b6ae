//! Control commands.

use super::faults::{Effect, Failure, Scope};
use super::{Disk, Enclosure};
use crate::exchange::exchange;
use crate::text::decimal;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const HELP: &str = "\
drives                   names of all drives
ports                    ports that a machine is connected to
table DRIVE              the mutex table
time DRIVE               the drive's clock in s, from which leases are counted
events DRIVE             mutex commands so far: drive's time in s, port, kind, lock, host, status
changes DRIVE            blocks written or unmapped so far: drive's time in s, port, first, count
reservations DRIVE       generation, persistence, reservation; then registrants: key, port or host
reset DRIVE              lose the mutex table
power-cycle DRIVE        lose reservations that are not to outlive it; the mutex table stays
fill DRIVE               fill the mutex table with records of hosts that do not exist
skip-time DRIVE MS       let the drive's clock, and its leases, jump ahead
clock DRIVE freeze|run   stop the drive's clock, or let it run on
fault DRIVE PORT KIND EFFECT …
    DRIVE and PORT may be *; PORT may be a host, which is the part of a port's name before the dot;
    KIND is *, mutex or one of trylock, refresh, break, unlock, destroy, read-table, …, disk or one
    of read, write, reserve (changes of reservations), other
    EFFECT is
      delay MS [COUNT]         wait so long, then execute
      hang [COUNT]             wait until the rule is lifted, or the command aborted
      cut                      no effect, transport failure
      absent                   no effect, no such drive; for NVMe with KIND *: connections are
                               closed, and refused until the rule is lifted
      lose-reply [COUNT]       execute, but do not answer
      nonsense                 execute, but answer about half with random bytes, lengths and
                               statuses; for mutex commands only
      fail STATUS [COUNT [KEY/ASC/ASCQ[/FRU]]]
                               this SCSI status (and sense), or for NVMe drives this status field
                               (1ca), in hex, without effect
      none                     lift the rules that have exactly this DRIVE, PORT and KIND
lift                     lift all rules
rules                    the rules in force
help                     this text
";

/// Answers control connections forever, one after the other.
pub fn serve(enclosure: &Arc<Enclosure>, listener: UnixListener) -> io::Result<()> {
    let enclosure = Arc::clone(enclosure);
    thread::Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = exchange(stream, |line| execute(&enclosure, line));
        }
    })?;
    Ok(())
}

/// Executes one line.
pub fn execute(enclosure: &Enclosure, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match *words {
        ["help"] => Ok(HELP.to_owned()),
        ["drives"] => Ok(enclosure.disks.iter().map(|disk| format!("{}\n", disk.name())).collect()),
        ["ports"] => Ok(enclosure.connected().iter().map(|name| format!("{name}\n")).collect()),
        ["table", name] => Ok(disk(enclosure, name)?.table()),
        ["time", name] => Ok(format!("{:.6}\n", disk(enclosure, name)?.time().as_secs_f64())),
        ["events", name] => Ok(disk(enclosure, name)?.events()),
        ["reservations", name] => Ok(disk(enclosure, name)?.reservations()),
        ["changes", name] => disk(enclosure, name)?.changes(),
        ["fill", name] => Ok(format!("{}\n", disk(enclosure, name)?.fill())),
        ["rules"] => Ok(enclosure.with_rules(|rules| rules.text())),
        _ => order(enclosure, &words).map(|()| String::new()),
    }
}

/// Executes a line that changes something and has no output.
fn order(enclosure: &Enclosure, words: &[&str]) -> Result<(), String> {
    match *words {
        ["reset", name] => disk(enclosure, name)?.reset(),
        ["power-cycle", name] => disk(enclosure, name)?.power_cycle(),
        ["skip-time", name, ms] => {
            disk(enclosure, name)?.skip_time(Duration::from_millis(decimal(ms)?));
        }
        ["clock", name, "freeze"] => disk(enclosure, name)?.freeze_clock(true),
        ["clock", name, "run"] => disk(enclosure, name)?.freeze_clock(false),
        ["lift"] => enclosure.with_rules(|rules| rules.lift_all()),
        ["fault", drive, port, kind, ref effect @ ..] if !effect.is_empty() => {
            let scope = Scope { drive: drive.into(), port: port.into(), kind: kind.into() };
            fault(enclosure, scope, effect)?;
        }
        [] => return Err("the line is empty; try help".to_owned()),
        [command, ..] => {
            return Err(format!("{command:?} is no command, or has other arguments; try help"));
        }
    }
    Ok(())
}

fn fault(enclosure: &Enclosure, scope: Scope, words: &[&str]) -> Result<(), String> {
    let failure = |status: &str, sense: Option<&str>| {
        let like = match scope.drive.as_str() {
            "*" => any_disk(enclosure)?,
            name => disk(enclosure, name)?,
        };
        Failure::parse(like.interface(), &like.profile(), status, sense).map(Effect::Fail)
    };
    let (effect, count) = match *words {
        ["none"] => {
            return match enclosure.with_rules(|rules| rules.lift(&scope)) {
                0 => Err("there is no such rule".to_owned()),
                _ => Ok(()),
            };
        }
        ["delay", ms] => (delay(ms)?, None),
        ["delay", ms, count] => (delay(ms)?, Some(decimal(count)?)),
        ["hang"] => (Effect::Hang, None),
        ["hang", count] => (Effect::Hang, Some(decimal(count)?)),
        ["cut"] => (Effect::Cut, None),
        ["absent"] => (Effect::Absent, None),
        ["nonsense"] if !scope.may_be_disk() => (Effect::Nonsense, None),
        ["nonsense"] => return Err("only mutex commands are answered with nonsense".to_owned()),
        ["lose-reply"] => (Effect::LoseReply, None),
        ["lose-reply", count] => (Effect::LoseReply, Some(decimal(count)?)),
        ["fail", status] => (failure(status, None)?, None),
        ["fail", status, count] => (failure(status, None)?, Some(decimal(count)?)),
        ["fail", status, count, sense] => (failure(status, Some(sense))?, Some(decimal(count)?)),
        _ => return Err(format!("{:?} is no effect; try help", words.join(" "))),
    };
    if scope.drive != "*" {
        disk(enclosure, &scope.drive)?;
    }
    enclosure.with_rules(|rules| rules.add(scope, effect, count));
    Ok(())
}

fn delay(ms: &str) -> Result<Effect, String> {
    Ok(Effect::Delay(Duration::from_millis(decimal(ms)?)))
}

/// A disk that represents all; an error if they do not have the same interface.
fn any_disk(enclosure: &Enclosure) -> Result<&Disk, String> {
    let first = enclosure.disks.first().ok_or("there is no drive")?;
    if enclosure.disks.iter().any(|disk| disk.interface() != first.interface()) {
        return Err("SCSI and NVMe drives have different statuses: name a drive".to_owned());
    }
    Ok(first)
}

fn disk<'a>(enclosure: &'a Enclosure, name: &str) -> Result<&'a Disk, String> {
    enclosure.disk(name).map(AsRef::as_ref).ok_or_else(|| format!("there is no drive {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Profile;
    use crate::disks::Interface;

    #[test]
    fn lines_are_obeyed_or_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let disk = |name: &str, interface| {
            let path = dir.path().join(name);
            Arc::new(Disk::create(name, interface, Profile::current(), &path, 1 << 20).unwrap())
        };
        let enclosure = Enclosure::new(vec![disk("d0", Interface::Scsi)]);
        let run = |line: &str| execute(&enclosure, line);
        assert_eq!(run("drives").unwrap(), "d0\n");
        for line in [
            "fault d0 a * hang",
            "fault * * mutex fail 2 1 6/29/0",
            "fault d0 b.1 disk delay 5",
            "fault d0 a unlock delay 5 1",
            "fault d0 a unlock hang 1",
            "fault d0 a trylock lose-reply 2",
            "skip-time d0 100",
            "clock d0 freeze",
            "clock d0 run",
            "reset d0",
            "power-cycle d0",
        ] {
            assert_eq!(run(line), Ok(String::new()), "{line}");
        }
        assert_eq!(run("rules").unwrap().lines().count(), 6);
        assert!(run("rules").unwrap().contains("d0 a unlock: delay 5 ms, 1 left\n"));
        let nothing = "generation 0\npersistent no\nreservation none\n";
        assert_eq!(run("reservations d0").unwrap(), nothing);
        assert!(run("reservations d9").is_err() && run("power-cycle d9").is_err());
        assert_eq!(run("fault d0 a * none"), Ok(String::new()));
        assert!(run("fault d0 a * none").unwrap_err().contains("no such rule"));
        assert_eq!(run("lift"), Ok(String::new()));
        assert_eq!(run("rules").unwrap(), "");
        for line in [
            "",
            "fault d9 a * hang",
            "fault d0 a *",
            "fault d0 a * explode",
            "fault d0 a reserve nonsense",
            "table x",
        ] {
            assert!(run(line).is_err(), "{line}");
        }

        let both = Enclosure::new(vec![disk("d0", Interface::Scsi), disk("d1", Interface::Nvme)]);
        let run = |line: &str| execute(&both, line);
        assert_eq!(run("fault d1 a trylock fail 1ca"), Ok(String::new()));
        assert!(run("rules").unwrap().contains("NVMe status 1ca"));
        for line in [
            "fault * a trylock fail 18",
            "fault d0 a * fail 1ca",
            "fault d1 a * fail 1ca 1 6/29/0",
            "fault d1 a * fail 8000",
        ] {
            assert!(run(line).is_err(), "{line}");
        }
    }
}
