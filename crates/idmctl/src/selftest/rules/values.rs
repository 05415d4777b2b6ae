//! Rules about values and metadata.

use super::holding::{both, shared};
use super::{A, B, EX, Rule, SH, held};
use crate::selftest::bench::{Bench, Payload};
use crate::selftest::finding::{Finding, Verdict};
use crate::selftest::subject::Stop;
use idm_protocol::{MutexOp, ResourceId, Status};

const VALUE: &str = "The value";
const RECORD: &str = "The record";
const UNCERTAIN: &str = "What is uncertain, and why it is safe";

pub fn rules() -> Vec<Rule> {
    let rule = |name, heading, says, test| Rule { name, heading, says, fills: false, test };
    vec![
        rule("value-stored", VALUE, "the value is that of the last UNLOCK that stores", stored),
        rule("value-kept", VALUE, "what does not store leaves the value alone", kept),
        rule("value-by-lock", UNCERTAIN, "whether TRYLOCK stores a value", by_lock),
        rule("value-by-refresh", UNCERTAIN, "whether REFRESH stores a value", by_refresh),
        rule("value-after-break", UNCERTAIN, "whether a value outlives BREAK", after_break),
        rule("value-of-sharers", UNCERTAIN, "whether sharers have one value", of_sharers),
        rule("value-after-sharers", UNCERTAIN, "whether a value outlives sharers", after_sharers),
        rule("metadata-of-lock", RECORD, "TRYLOCK stores the metadata", of_lock),
        rule("metadata-of-refresh", UNCERTAIN, "whether REFRESH stores the metadata", of_refresh),
    ]
}

/// The value that a host's record shows.
fn value(bench: &mut Bench<'_>, id: ResourceId, host: u8) -> Result<Option<u64>, Stop> {
    Ok(bench.record_of(id, host)?.map(|record| record.value.get()))
}

fn shown(value: Option<u64>) -> String {
    value.map_or("no record".to_owned(), |value| value.to_string())
}

fn stored(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
        return Ok(finding);
    };
    let mut last = A;
    for (number, next) in [(11, B), (22, A), (33, B)] {
        let status = bench.send(MutexOp::Unlock, Payload::new(id, last, EX).storing(number))?;
        finding.works("UNLOCK that stores a value", status);
        let status = bench.send(MutexOp::Trylock, Payload::new(id, next, EX))?;
        finding.works("TRYLOCK by the other host", status);
        let value = value(bench, id, next)?;
        finding.note("value", shown(value));
        // Without a value the next holder reads everything anew. An older one misleads it.
        let known = value == Some(number);
        let old = value.is_some_and(|value| value != 0);
        let otherwise = if old { Verdict::Unsafe } else { Verdict::DiffersButSafe };
        finding.demand("the next holder sees that value", known, otherwise);
        last = next;
    }
    Ok(finding)
}

fn kept(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
        return Ok(finding);
    };
    bench.send(MutexOp::Unlock, Payload::new(id, A, EX).storing(44))?;
    let steps = [
        ("TRYLOCK", MutexOp::Trylock, 55),
        ("REFRESH", MutexOp::Refresh, 66),
        ("UNLOCK", MutexOp::Unlock, 77),
    ];
    for (what, op, number) in steps {
        bench.send(op, Payload::new(id, A, EX).with(number))?;
        let value = value(bench, id, A)?;
        finding.note(&format!("value after {what}"), shown(value));
        let same = value == Some(44);
        finding.demand(&format!("{what} leaves the value alone"), same, Verdict::DiffersButSafe);
    }
    Ok(finding)
}

fn by_lock(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
        return Ok(finding);
    };
    bench.send(MutexOp::Unlock, Payload::new(id, A, EX).storing(5))?;
    bench.send(MutexOp::Trylock, Payload::new(id, B, EX).storing(6))?;
    finding.note("TRYLOCK that is to store", stores(value(bench, id, B)?, 6));
    Ok(finding)
}

fn by_refresh(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX).with(5))? else {
        return Ok(finding);
    };
    bench.send(MutexOp::Refresh, Payload::new(id, A, EX).storing(6))?;
    finding.note("REFRESH that is to store", stores(value(bench, id, A)?, 6));
    Ok(finding)
}

fn stores(value: Option<u64>, asked: u64) -> &'static str {
    if value == Some(asked) { "stores" } else { "does not store" }
}

fn after_break(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
        return Ok(finding);
    };
    bench.send(MutexOp::Unlock, Payload::new(id, A, EX).storing(7))?;
    bench.send(MutexOp::Trylock, Payload::new(id, A, EX).short())?;
    bench.outlast()?;
    let status = bench.send(MutexOp::Break, Payload::new(id, B, EX))?;
    if finding.works("BREAK of what is timed out", status) {
        finding.note("value", shown(value(bench, id, B)?));
    }
    Ok(finding)
}

fn of_sharers(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let (first, second) = both(bench);
    let pair = (first.with(8), second.with(9));
    if let Some(id) = shared(bench, &mut finding, pair)? {
        finding.note("value of the first", shown(value(bench, id, A)?));
        finding.note("value of the second", shown(value(bench, id, B)?));
    }
    Ok(finding)
}

fn after_sharers(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, SH).with(3))? else {
        return Ok(finding);
    };
    bench.send(MutexOp::Unlock, Payload::new(id, A, SH).storing(4))?;
    let status = bench.send(MutexOp::Trylock, Payload::new(id, B, EX).with(9))?;
    finding.works("TRYLOCK afterwards", status);
    finding.note("value", shown(value(bench, id, B)?));
    Ok(finding)
}

/// The first byte of the metadata that a host's record shows.
fn mark(bench: &mut Bench<'_>, id: ResourceId, host: u8) -> Result<Option<u8>, Stop> {
    Ok(bench.record_of(id, host)?.map(|record| record.metadata[0]))
}

fn of_lock(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
        return Ok(finding);
    };
    bench.send(MutexOp::Unlock, Payload::new(id, A, EX))?;
    for (host, number) in [(A, 0x71), (B, 0x72)] {
        let payload = Payload { mark: number, ..Payload::new(id, host, EX) };
        let status = bench.send(MutexOp::Trylock, payload)?;
        if finding.works("TRYLOCK of an unlocked mutex", status) {
            let new = mark(bench, id, host)? == Some(number);
            finding.demand("its metadata is in the record", new, Verdict::Unsafe);
        }
        bench.send(MutexOp::Unlock, payload)?;
    }
    Ok(finding)
}

fn of_refresh(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
        return Ok(finding);
    };
    let payload = Payload { mark: 0x73, ..Payload::new(id, A, EX) };
    let status = bench.send(MutexOp::Refresh, payload)?;
    finding.note("status", if status == Status::Good { "GOOD" } else { "refused" });
    let mark = mark(bench, id, A)?;
    finding.note("metadata", if mark == Some(0x73) { "stored" } else { "not stored" });
    let sensible = matches!(mark, Some(0x73 | A));
    finding.demand("it is the old or the new one", sensible, Verdict::Unsafe);
    Ok(finding)
}
