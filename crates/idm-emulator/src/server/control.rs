//! Control commands.

use super::station::Inner;
use super::{Floor, Slot};
use crate::Nonsense;
use crate::exchange::exchange;
use crate::text::{self, decimal};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const HELP: &str = "\
drives                      names of all drives
table NAME                  the mutex table
stats NAME                  commands that arrived, by kind
reset NAME                  lose the whole table
power NAME off|on           refuse and close connections; the table stays, leases go on
hang NAME on|off            commands wait until off; those whose client has gone are aborted
delay NAME MS               commands wait so long and are executed even if their client goes
fail NAME STATUS COUNT [KEY/ASC/ASCQ[/FRU]]
                            answer so many commands with this SCSI status (and sense), in hex,
                            without effect; UNIT ATTENTION is 02 1 6/29/0
lose-reply NAME COUNT       execute so many commands, but close the connection without an answer
nonsense NAME on|off        execute mutex commands, but answer half of them with nonsense
skip-time NAME MS           let the drive's clock, and its leases, jump ahead
help                        this text
";

/// Answers a control connection.
pub(super) fn serve(floor: &Floor, stream: UnixStream) {
    let _ = exchange(stream, |line| execute(floor, line));
}

/// Executes one line.
pub(super) fn execute(floor: &Floor, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match *words {
        ["help"] => Ok(HELP.to_owned()),
        ["drives"] => Ok(floor.slots.keys().map(|name| format!("{name}\n")).collect()),
        ["table", name] => {
            let table = |inner: &mut Inner| text::table(&inner.drive, inner.now());
            Ok(slot(floor, name)?.station.with(table))
        }
        ["stats", name] => Ok(stats(slot(floor, name)?)),
        _ => order(floor, &words).map(|()| String::new()),
    }
}

/// Executes a line that changes something and has nothing to say.
fn order(floor: &Floor, words: &[&str]) -> Result<(), String> {
    match *words {
        ["reset", name] => slot(floor, name)?.station.with(|inner| inner.drive.reset()),
        ["power", name, state] => {
            slot(floor, name)?;
            if switch(state)? {
                floor
                    .power_on(name)
                    .map_err(|e| format!("drive {name} cannot be switched on: {e}"))?;
            } else {
                floor.power_off(name);
            }
        }
        ["hang", name, state] => {
            let on = switch(state)?;
            slot(floor, name)?.station.with(|inner| inner.faults.hang = on);
        }
        ["delay", name, ms] => {
            let delay = Duration::from_millis(decimal(ms)?);
            slot(floor, name)?.station.with(|inner| inner.faults.delay = delay);
        }
        ["fail", name, status, count] => fail(slot(floor, name)?, status, count, None)?,
        ["fail", name, status, count, sense] => {
            fail(slot(floor, name)?, status, count, Some(sense))?;
        }
        ["lose-reply", name, count] => {
            let count = decimal(count)?;
            slot(floor, name)?.station.with(|inner| inner.faults.lose_reply = count);
        }
        ["nonsense", name, state] => {
            let nonsense = switch(state)?.then(|| Nonsense::new(0));
            slot(floor, name)?.station.with(|inner| inner.faults.nonsense = nonsense);
        }
        ["skip-time", name, ms] => {
            let by = Duration::from_millis(decimal(ms)?);
            slot(floor, name)?.station.with(|inner| inner.skip_time(by));
        }
        [] => return Err("the line is empty; try help".to_owned()),
        [command, ..] => {
            return Err(format!("{command:?} is no command, or has other arguments; try help"));
        }
    }
    Ok(())
}

fn slot<'a>(floor: &'a Floor, name: &str) -> Result<&'a Slot, String> {
    floor.slots.get(name).ok_or_else(|| format!("there is no drive {name:?}"))
}

fn switch(word: &str) -> Result<bool, String> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{word:?} is neither on nor off")),
    }
}

fn fail(slot: &Slot, status: &str, count: &str, sense: Option<&str>) -> Result<(), String> {
    let count = decimal(count)?;
    slot.station.with(|inner| {
        let reply = text::failure(inner.drive.profile(), status, sense)?;
        inner.faults.fail = Some((reply, count));
        Ok(())
    })
}

/// One line per kind of command.
fn stats(slot: &Slot) -> String {
    slot.station.with(|inner| {
        let counts = inner.counts.iter();
        counts.map(|(kind, count)| format!("{kind} {count}\n")).collect()
    })
}
