//! Commands that the host gives up: the drive may get them late.

use super::{A, EX, Rule};
use crate::selftest::bench::{Bench, Payload};
use crate::selftest::finding::{Finding, Verdict};
use crate::selftest::subject::{Cut, Stop};
use idm_protocol::{MutexOp, ResourceId};
use std::time::Duration;

/// The number of commands.
const ATTEMPTS: usize = 20;
/// The longest time after which a command that was given up may arrive; the library relies on it. A
/// quarter of the usual lease.
const LINGER: Duration = Duration::from_secs(15);
/// The wait for late commands.
const WATCH: Duration = Duration::from_secs(30);
/// The interval between two looks for them.
const LOOK: Duration = Duration::from_millis(100);

pub fn rule() -> Rule {
    Rule {
        name: "cut",
        heading: "What is uncertain, and why it is safe",
        says: "a command that is given up arrives soon or never",
        fills: false,
        test: cut,
    }
}

fn cut(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut missing: Vec<(ResourceId, Duration)> = Vec::new();
    let (mut given_up, mut carried_out) = (0, 0);
    for _ in 0..ATTEMPTS {
        let id = bench.fresh();
        let record = bench.record(&Payload::new(id, A, EX));
        match bench.subject().cut(MutexOp::Trylock, &record)? {
            None => return Ok(Finding::skipped("it needs a second path (--second-path)")),
            Some(Cut::NotSent(why)) => return Ok(Finding::skipped(&why)),
            Some(Cut::Answered) => {}
            Some(Cut::GivenUp) => {
                given_up += 1;
                let at = bench.subject().now();
                match bench.record_of(id, A)? {
                    Some(_) => carried_out += 1,
                    None => missing.push((id, at)),
                }
            }
        }
    }
    if given_up == 0 {
        let why = "the drive answers before the shortest time-out ends";
        return Ok(Finding::skipped(why));
    }
    let (late, latest) = watch(bench, &mut missing)?;
    let mut finding = Finding::default();
    finding.note("given up", format!("{given_up} of {ATTEMPTS}"));
    finding.note("carried out before", carried_out);
    finding.note("carried out after", late);
    finding.note("never carried out", missing.len());
    let says = format!("what was given up arrives within {} s or never", LINGER.as_secs());
    finding.demand(&says, latest <= LINGER, Verdict::Unsafe);
    Ok(finding)
}

/// Waits for commands that are missing. Returns the number of those that came, and the longest time
/// after which one did.
fn watch(
    bench: &mut Bench<'_>,
    missing: &mut Vec<(ResourceId, Duration)>,
) -> Result<(usize, Duration), Stop> {
    let (mut late, mut latest) = (0, Duration::ZERO);
    let begin = bench.subject().now();
    while !missing.is_empty() && bench.subject().now() - begin < WATCH {
        bench.subject().sleep(LOOK)?;
        // A command was there no later than its record, and no earlier than the last look.
        let earliest = bench.subject().now().saturating_sub(LOOK);
        let all = bench.all()?;
        missing.retain(|(id, at)| {
            let came = all.iter().any(|record| record.resource == *id);
            if came {
                late += 1;
                latest = latest.max(earliest.saturating_sub(*at));
            }
            !came
        });
    }
    Ok((late, latest))
}
