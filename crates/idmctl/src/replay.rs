//! `idmctl replay`: whether an emulated drive answers as a recorded one did.

use crate::cli::{Common, Replay};
use crate::output::{GOOD, WARNING, styled};
use crate::selftest::bench::is_scratch;
use crate::selftest::subject::{Model, Subject};
use crate::status::print_json;
use crate::trace::{self, Call, Step};
use crate::{Exit, Trouble};
use idm_emulator::Profile;
use idm_protocol::{MutexOp, RECORD_LEN, Record, scsi};
use serde::Serialize;
use std::fs;
use std::time::Duration;

/// The difference by which a lease may have ended earlier or later than the times of commands show.
const TOLERANCE: Duration = Duration::from_millis(30);

/// A step that an emulated drive answers in another way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The step's number, from 1.
    pub step: usize,
    /// The trace's text about it.
    pub note: Option<String>,
    /// The recorded drive's answer.
    pub recorded: String,
    /// The emulated drive's answer.
    pub emulated: String,
}

/// The result of a replay on one profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// The profile.
    pub profile: &'static str,
    /// The first step that differs; `None` where none does.
    pub difference: Option<Difference>,
}

/// Replays a trace on each profile, or on one.
pub fn run(common: &Common, wanted: &Replay) -> Result<Exit, Trouble> {
    let name = wanted.trace.display().to_string();
    let text = fs::read_to_string(&wanted.trace)
        .map_err(|error| Trouble::new(error.to_string(), &name, "name a file of --record"))?;
    let steps = trace::parse(&text, &name)?;
    let replayed = replay(&steps, wanted.profile.as_deref());
    if replayed.is_empty() {
        let profile = wanted.profile.clone().unwrap_or_default();
        return Err(Trouble::new("there is no such profile", profile, "leave --profile out"));
    }
    let same = replayed.iter().filter(|it| it.difference.is_none());
    let same: Vec<&str> = same.map(|it| it.profile).collect();
    if common.json {
        print_json(&replayed)?;
    } else if same.is_empty() {
        let begin = styled(WARNING, "No emulated drive answers as the recorded one.");
        anstream::println!("{begin}");
        for it in &replayed {
            let Some(difference) = &it.difference else { continue };
            let Difference { step, note, recorded, emulated } = difference;
            let note = note.as_ref().map_or_else(String::new, |note| format!(" ({note})"));
            let profile = it.profile;
            anstream::println!("{profile}: step {step}{note}: {recorded}; emulated: {emulated}");
        }
    } else {
        let count = steps.len();
        let same = styled(GOOD, &same.join(" and "));
        anstream::println!("All {count} steps are answered in the same way by {same}.");
    }
    Ok(if same.is_empty() { Exit::Wrong } else { Exit::Good })
}

/// Replays a trace on each profile, or on the one with that name.
pub fn replay(steps: &[Step], only: Option<&str>) -> Vec<Replayed> {
    let known = Profile::named().into_iter();
    let known = known.filter(|(name, _)| only.is_none_or(|only| only == *name));
    known
        .map(|(profile, behaviour)| Replayed { profile, difference: first(steps, behaviour) })
        .collect()
}

/// The first step that differs.
fn first(steps: &[Step], profile: Profile) -> Option<Difference> {
    let others = others(steps);
    let mut player = Player {
        model: Model::beside(profile, &others),
        begin: Duration::ZERO,
        has_sense: steps
            .iter()
            .any(|it| matches!(&it.call, Call::Change { sense, .. } if !sense.is_empty())),
        alone: others.is_empty(),
    };
    player.begin = player.model.now();
    steps.iter().enumerate().find_map(|(at, step)| {
        let (emulated, recorded) = player.play(step)?;
        Some(Difference { step: at + 1, note: step.note.clone(), recorded, emulated })
    })
}

/// Plays steps to an emulated drive.
struct Player {
    model: Model,
    begin: Duration,
    /// Whether the recorded drive sent sense data, as SCSI drives do.
    has_sense: bool,
    /// Whether nobody else used the recorded drive.
    alone: bool,
}

impl Player {
    /// Replays a step. Returns the emulated and the recorded answer if they differ.
    fn play(&mut self, step: &Step) -> Option<(String, String)> {
        let sent = self.begin + Duration::from_micros(step.sent_us);
        let (emulated, recorded) = match &step.call {
            Call::Change { op, group, payload, status, sense } => {
                self.model.set_time(sent);
                (self.change(*op, *group, payload), self.described(*op, status, sense))
            }
            Call::Table { blocks, data: Some(data) } => {
                let answered = self.begin + Duration::from_micros(step.answered_us);
                let recorded = scratch(data);
                let times = [sent, answered, sent.saturating_sub(TOLERANCE), answered + TOLERANCE];
                let mut shown = times.into_iter().map(|time| self.table(time, *blocks));
                let first = shown.next().unwrap_or_default();
                if first == recorded || shown.any(|other| other == recorded) {
                    return None;
                }
                (first, recorded)
            }
            Call::Counters { data } if self.alone => {
                let found = self.model.counters().unwrap_or_default();
                (trace::digits(&found), data.clone())
            }
            Call::Reserve { begins } => {
                self.model.set_time(sent);
                // A model is reserved and freed without fail.
                let _ =
                    if *begins { self.model.reserve().map(drop) } else { self.model.unreserve() };
                return None;
            }
            // The adapter did not move it; or others may have come and gone.
            Call::Table { data: None, .. } | Call::Counters { .. } => return None,
            Call::Version { version } => {
                let found = self.model.version().ok().flatten();
                (format!("version {found:?}"), format!("version {version:?}"))
            }
        };
        (emulated != recorded).then_some((emulated, recorded))
    }

    fn table(&mut self, time: Duration, blocks: u32) -> String {
        self.model.set_time(time);
        let data = self.model.table(blocks).ok().flatten().unwrap_or_default();
        scratch(&trace::written(&data))
    }

    /// Sends a recorded command, and describes the answer.
    fn change(&mut self, op: u8, group: u8, payload: &str) -> String {
        let block = trace::bytes(payload, RECORD_LEN);
        let block: Option<[u8; RECORD_LEN]> = block.and_then(|block| block.try_into().ok());
        let Some(block) = block.filter(|_| op < 0x10) else { return "no command".to_owned() };
        // Recordings have operations that no firmware defines.
        let mut cdb = scsi::mutex(MutexOp::Trylock);
        (cdb[1], cdb[14]) = (op << 4, group);
        let answer = self.model.send(&cdb, &block);
        let sense = trace::digits(&answer.sense);
        self.described(op, &trace::status(answer.status), &sense)
    }

    fn described(&self, op: u8, status: &str, sense: &str) -> String {
        let named = MutexOp::from_wire(op).map(crate::selftest::subject::name);
        let op = named.map_or_else(|| format!("operation {op}"), str::to_owned);
        let sense = if self.has_sense { sense } else { "" };
        format!("{op} is answered with {status} {sense}").trim_end().to_owned()
    }
}

/// Records of others than the test, when the table was first read.
fn others(steps: &[Step]) -> Vec<Record> {
    let first = steps.iter().find_map(|step| match &step.call {
        Call::Table { data: Some(data), .. } => Some(trace::records(data)),
        _ => None,
    });
    first.into_iter().flatten().filter(|record| !is_scratch(&record.resource)).collect()
}

/// The blocks of the test, byte for byte, and what the table shows behind all records.
fn scratch(blocks: &[String]) -> String {
    let (mut ours, mut rest) = (Vec::new(), Vec::new());
    for written in blocks {
        let kind = written.split('*').next().unwrap_or_default();
        let block = trace::bytes(kind, RECORD_LEN);
        match block.as_deref().and_then(|block| block.first_chunk()) {
            None => rest.push(kind),
            Some(block) if is_scratch(&Record::decode(block).resource) => ours.push(kind),
            Some(_) => {}
        }
    }
    format!("{} {}", ours.join(" "), rest.join(" "))
}
