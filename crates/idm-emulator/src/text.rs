//! The words of control commands, for input and output.

use crate::{Drive, DriveTime, Profile, ScsiReply, sense};
use idm_protocol::{
    Class, State,
    scsi::{Sense, status},
};
use std::fmt::Write as _;

/// A decimal number.
pub fn decimal(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word:?} is not a number"))
}

fn hex(word: &str) -> Result<u8, String> {
    u8::from_str_radix(word.trim_start_matches("0x"), 16)
        .map_err(|_| format!("{word:?} is not a hexadecimal byte"))
}

/// The answer for a fault: a SCSI status in hex and, after it, sense data as KEY/ASC/ASCQ or
/// KEY/ASC/ASCQ/FRU. CHECK CONDITION without sense data becomes ABORTED COMMAND, which leaves the
/// effect open.
pub fn failure(profile: &Profile, status: &str, sense: Option<&str>) -> Result<ScsiReply, String> {
    let status = hex(status)?;
    let sense = match (sense, status) {
        (Some(text), _) => Some(parse_sense(text)?),
        (None, status::CHECK_CONDITION) => Some(parse_sense("b/0/0")?),
        (None, _) => None,
    };
    Ok(ScsiReply {
        status,
        sense: sense.map_or(Vec::new(), |sense| sense::bytes(profile, sense)),
        data: Vec::new(),
    })
}

/// The status field of an NVMe completion, without the phase tag, in hex.
pub fn status_field(word: &str) -> Result<u16, String> {
    u16::from_str_radix(word.trim_start_matches("0x"), 16)
        .ok()
        .filter(|field| field >> 15 == 0)
        .ok_or_else(|| format!("{word:?} is not a hexadecimal number of 15 bits"))
}

fn parse_sense(text: &str) -> Result<Sense, String> {
    let numbers = text.split('/').map(hex).collect::<Result<Vec<u8>, _>>()?;
    let (key, asc, ascq, fru) = match *numbers {
        [key, asc, ascq] => (key, asc, ascq, 0),
        [key, asc, ascq, fru] => (key, asc, ascq, fru),
        _ => return Err(format!("{text:?} is not KEY/ASC/ASCQ or KEY/ASC/ASCQ/FRU")),
    };
    Ok(sense::sense(key, asc, ascq, fru))
}

/// The table as text: one line per record under a heading.
pub fn table(drive: &Drive, now: DriveTime) -> String {
    let mut rows =
        vec![["RESOURCE", "HOST", "STATE", "CLASS", "LEASE LEFT", "VALUE"].map(String::from)];
    for record in drive.table(now) {
        let left = drive.lease_left(now, &record.resource, &record.host);
        rows.push([
            record.resource.to_string(),
            record.host.to_string(),
            match record.state {
                State::Locked => "locked".to_owned(),
                State::MultipleLocked => "multiple-locked".to_owned(),
                State::Unlocked => "unlocked".to_owned(),
                State::TimedOut => "timed-out".to_owned(),
                other => format!("{other:?}"),
            },
            match record.class {
                Class::Exclusive => "ex".to_owned(),
                Class::Shared => "sh".to_owned(),
                other => format!("{other:?}"),
            },
            left.map_or("-".to_owned(), |left| format!("{:.1} s", left.as_secs_f64())),
            record.value.get().to_string(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = core::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
