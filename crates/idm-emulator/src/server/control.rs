//! Control commands.

use super::served_drive::DriveState;
use super::{Bay, Bays};
use crate::Nonsense;
use crate::exchange::exchange;
use crate::text::{self, decimal};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const HELP: &str = "\
drives                      names of all drives
table NAME                  the mutex table
stats NAME                  commands that arrived, by kind
reservations NAME           generation, persistence and type, then each key with its port
reset NAME                  lose the whole table
power NAME off|on           refuse and close connections; the table stays, leases go on
power-cycle NAME            lose reservations that do not outlive it; the table stays
hang NAME on|off            commands wait until off; those whose client has gone are aborted
delay NAME MS               commands wait so long and are executed even without their client
fail NAME STATUS COUNT [KEY/ASC/ASCQ[/FRU]]
                            answer so many commands with this SCSI status (and sense), in hex,
                            without effect; UNIT ATTENTION is 02 1 6/29/0
lose-reply NAME COUNT       execute so many commands, but close the connection without an answer
nonsense NAME on|off        execute mutex commands, but answer half of them with nonsense
skip-time NAME MS           let the drive's clock, and its leases, jump ahead
help                        this text
";

/// Answers a control connection.
pub(super) fn serve(bays: &Bays, stream: UnixStream) {
    let _ = exchange(stream, |line| execute(bays, line));
}

/// Executes one line.
pub(super) fn execute(bays: &Bays, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match *words {
        ["help"] => Ok(HELP.to_owned()),
        ["drives"] => Ok(bays.all.keys().map(|name| format!("{name}\n")).collect()),
        ["table", name] => {
            let table = |state: &mut DriveState| text::table(&state.drive, state.now());
            Ok(bay(bays, name)?.drive.with(table))
        }
        ["stats", name] => Ok(stats(bay(bays, name)?)),
        ["reservations", name] => Ok(bay(bays, name)?.drive.with(|it| it.reservations.text())),
        _ => order(bays, &words).map(|()| String::new()),
    }
}

/// Executes a line that changes something and has no output.
fn order(bays: &Bays, words: &[&str]) -> Result<(), String> {
    match *words {
        ["reset", name] => bay(bays, name)?.drive.with(|state| state.drive.reset()),
        ["power-cycle", name] => bay(bays, name)?.drive.with(|it| it.reservations.power_cycle()),
        ["power", name, state] => {
            bay(bays, name)?;
            if switch(state)? {
                bays.power_on(name)
                    .map_err(|e| format!("drive {name} cannot be switched on: {e}"))?;
            } else {
                bays.power_off(name);
            }
        }
        ["hang", name, state] => {
            let on = switch(state)?;
            bay(bays, name)?.drive.with(|state| state.faults.hang = on);
        }
        ["delay", name, ms] => {
            let delay = Duration::from_millis(decimal(ms)?);
            bay(bays, name)?.drive.with(|state| state.faults.delay = delay);
        }
        ["fail", name, status, count] => fail(bay(bays, name)?, status, count, None)?,
        ["fail", name, status, count, sense] => {
            fail(bay(bays, name)?, status, count, Some(sense))?;
        }
        ["lose-reply", name, count] => {
            let count = decimal(count)?;
            bay(bays, name)?.drive.with(|state| state.faults.lose_reply = count);
        }
        ["nonsense", name, state] => {
            let nonsense = switch(state)?.then(|| Nonsense::new(0));
            bay(bays, name)?.drive.with(|state| state.faults.nonsense = nonsense);
        }
        ["skip-time", name, ms] => {
            let by = Duration::from_millis(decimal(ms)?);
            bay(bays, name)?.drive.with(|state| state.skip_time(by));
        }
        [] => return Err("the line is empty; try help".to_owned()),
        [command, ..] => {
            return Err(format!("{command:?} is no command, or has other arguments; try help"));
        }
    }
    Ok(())
}

fn bay<'a>(bays: &'a Bays, name: &str) -> Result<&'a Bay, String> {
    bays.all.get(name).ok_or_else(|| format!("there is no drive {name:?}"))
}

fn switch(word: &str) -> Result<bool, String> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{word:?} is neither on nor off")),
    }
}

fn fail(bay: &Bay, status: &str, count: &str, sense: Option<&str>) -> Result<(), String> {
    let count = decimal(count)?;
    bay.drive.with(|state| {
        let reply = text::failure(state.drive.profile(), status, sense)?;
        state.faults.fail = Some((reply, count));
        Ok(())
    })
}

/// The statistics, one line per kind of command.
fn stats(bay: &Bay) -> String {
    bay.drive.with(|state| {
        let counts = state.counts.iter();
        counts.map(|(kind, count)| format!("{kind} {count}\n")).collect()
    })
}
