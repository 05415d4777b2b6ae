//! Rules about the drive's version, its table and its limits.

use super::{A, B, EX, Rule, SH, held};
use crate::selftest::bench::{Bench, Payload, is_scratch};
use crate::selftest::finding::{Finding, Verdict, word};
use crate::selftest::subject::{Stop, name};
use idm_protocol::{
    Limit, MutexOp, RECORD_LEN, Record, State, Status, ValueUpdate, parse_table, record_count,
};
use std::collections::BTreeSet;

const RECORD: &str = "The record";
const TABLE: &str = "Reading the table";
const SENSE: &str = "Status and sense codes";
const LIMITS: &str = "Limits";

/// More blocks than firmware of 2020 returns at once.
const MANY_BLOCKS: u32 = 136;
/// One more host, and one more mutex, than firmware of 2020 has room for.
const MANY_HOSTS: u8 = 33;
const MANY_MUTEXES: usize = 129;

pub fn rules() -> Vec<Rule> {
    let rule = |name, heading, says, test| Rule { name, heading, says, fills: false, test };
    vec![
        rule("version", "Generations of firmware", "the drive says that it has IDM", version),
        rule("record", RECORD, "TRYLOCK makes a record that reads back as it was sent", record),
        rule("absent", SENSE, "a mutex that is not there is \"not found\"", absent),
        rule("table", TABLE, "a read shows every record, and the end of the table", table),
    ]
}

/// The rule that fills the table.
pub fn limits() -> Rule {
    let says = "a full table refuses, and says why";
    Rule { name: "limits", heading: LIMITS, says, fills: true, test: find_limits }
}

fn version(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let version = bench.subject().version()?;
    finding.note("version", version.map_or("none".to_owned(), |version| version.to_string()));
    let has_idm = version.is_some_and(|version| version > 0);
    finding.demand("it has a version", has_idm, Verdict::DiffersButSafe);
    Ok(finding)
}

fn record(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    for mode in [EX, SH] {
        let payload = |id| Payload::new(id, A, mode).with(0x1234);
        let Some(id) = held(bench, &mut finding, payload)? else { return Ok(finding) };
        let sent = bench.record(&payload(id));
        let records = bench.records(id)?;
        let [read] = records.as_slice() else {
            finding.demand("there is one record then", false, Verdict::Unsafe);
            return Ok(finding);
        };
        finding.demand("it is held", read.state == State::Locked, Verdict::Unsafe);
        let kept = read.host == sent.host
            && read.class == sent.class
            && read.metadata == sent.metadata
            && read.countdown_ms == sent.countdown_ms;
        finding.demand("host, class, metadata and lease are as sent", kept, Verdict::Unsafe);
        let as_sent = read.value == sent.value;
        finding.note("value of a new record", if as_sent { "as sent" } else { "not as sent" });
        let masked = read.value_update == ValueUpdate::Keep;
        finding.demand("the control byte reads as zero", masked, Verdict::DiffersButSafe);
        let near = read.modified_ms.abs_diff(sent.modified_ms) < 60_000;
        finding.demand("the time is as sent", near, Verdict::DiffersButSafe);
    }
    Ok(finding)
}

fn absent(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    for (op, otherwise) in [
        (MutexOp::Unlock, Verdict::DiffersButSafe),
        (MutexOp::Refresh, Verdict::Unsafe),
        (MutexOp::Break, Verdict::Unsafe),
        (MutexOp::Destroy, Verdict::DiffersButSafe),
    ] {
        let id = bench.fresh();
        let answer = bench.answer(op, Payload::new(id, A, EX))?;
        finding.absent(&format!("{} without a record", name(op)), answer.status, otherwise);
        let form = match answer.sense.first().map(|code| code & 0x7F) {
            None => continue,
            Some(0x72 | 0x73) => "descriptors",
            Some(0x70 | 0x71) => "fixed",
            Some(_) => "unknown",
        };
        finding.note("form of sense data", form);
    }
    Ok(finding)
}

/// The data of a read of `blocks` blocks, and the number of records that the drive counts.
fn read(bench: &mut Bench<'_>, blocks: u32) -> Result<Option<(Vec<u8>, usize)>, Stop> {
    let Some(data) = bench.subject().table(blocks)? else { return Ok(None) };
    let count = record_count(&bench.subject().counters()?).unwrap_or_default();
    Ok(Some((data, count.into())))
}

fn table(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    // Another host may change the table between two reads.
    let mut finding = Finding::default();
    for _ in 0..3 {
        finding = Finding::default();
        let mut made = BTreeSet::new();
        for host in [A, B] {
            let Some(id) = held(bench, &mut finding, |id| Payload::new(id, host, EX))? else {
                return Ok(finding);
            };
            made.insert(id);
        }
        let there = bench.all()?.len();
        let Some((data, count)) = read(bench, there as u32 + 8)? else {
            return Ok(Finding::skipped("the adapter does not move so long a read"));
        };
        let records = parse_table(&data);
        let ours = records.iter().filter(|record| made.contains(&record.resource));
        finding.demand("both new records are in it", ours.count() == 2, Verdict::Unsafe);
        let surplus = &data[(records.len() * RECORD_LEN).min(data.len())..];
        let mut blocks = surplus.chunks_exact(RECORD_LEN).filter_map(|block| block.first_chunk());
        let ends = |block: &[u8; RECORD_LEN]| Record::decode(block).state == State::EndOfTable;
        let marked = blocks.next().is_some_and(ends);
        finding.demand("an end marker follows the records", marked, Verdict::DiffersButSafe);
        let all = blocks.all(ends);
        finding.note("end markers", if all { "in all further blocks" } else { "not in all" });
        finding.demand("the counters agree", count == records.len(), Verdict::DiffersButSafe);
        match bench.filled(MANY_BLOCKS)? {
            Some(filled) => finding.note("blocks of a long read", filled),
            None => finding.skipped = true,
        }
        if finding.verdict == Verdict::AsReliedOn {
            break;
        }
    }
    Ok(finding)
}

fn find_limits(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let id = bench.fresh();
    bench.send(MutexOp::Trylock, Payload::new(id, A, SH))?;
    let sharing = bench.send(MutexOp::Trylock, Payload::new(id, B, SH))? == Status::Good;
    let mut refusal = None;
    for host in A..=MANY_HOSTS {
        let one = if sharing { id } else { bench.fresh() };
        match bench.send(MutexOp::Trylock, Payload::new(one, host, SH))? {
            Status::Full(limit) => {
                refusal = Some(limit);
                break;
            }
            _ => continue,
        }
    }
    let who = if sharing { "33 hosts that share" } else { "33 hosts" };
    finding.note(who, refusal.map_or("admitted".to_owned(), limit));
    bench.clear()?;
    let others: BTreeSet<_> = bench.all()?.iter().map(|record| record.resource).collect();
    let others = others.iter().filter(|id| !is_scratch(id)).count();
    let (mut status, mut first) = (Status::Good, None);
    for _ in others..MANY_MUTEXES {
        let id = bench.fresh();
        status = bench.send(MutexOp::Trylock, Payload::new(id, A, EX))?;
        if status != Status::Good {
            break;
        }
        first = first.or(Some(id));
    }
    if let (Status::Full(_), Some(held)) = (status, first) {
        // Both are a reason to refuse it.
        let status = bench.send(MutexOp::Trylock, Payload::new(held, B, EX))?;
        finding.note("TRYLOCK of what another host has, if the table is full", word(status));
        finding.demand(
            "what is held is refused then, too",
            status != Status::Good,
            Verdict::Unsafe,
        );
    }
    let full = matches!(status, Status::Good | Status::Full(_));
    finding.demand("what is too much is refused as such", full, Verdict::DiffersButSafe);
    finding.note("129 mutexes", word(status));
    Ok(finding)
}

fn limit(limit: Limit) -> String {
    format!("{limit:?}").to_lowercase()
}
