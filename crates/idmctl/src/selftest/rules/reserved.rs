//! Mutex commands of a host that a reservation keeps away from the data.

use super::{A, B, EX, Rule, held};
use crate::selftest::bench::{Bench, Payload};
use crate::selftest::finding::{Finding, Verdict, word};
use crate::selftest::subject::Stop;
use idm_protocol::{MutexOp, ResourceId, Status};

pub fn rule() -> Rule {
    Rule {
        name: "reservation",
        heading: "What is uncertain, and why it is safe",
        says: "what a reservation of others refuses is not done",
        fills: false,
        test: reservation,
    }
}

/// The mutexes of this rule.
struct Mutexes {
    /// The mutex that A keeps.
    kept: ResourceId,
    /// The mutex that A gives up while the data is reserved.
    given_up: ResourceId,
    /// The mutex that B takes meanwhile.
    new: ResourceId,
}

fn reservation(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let mut before = || held(bench, &mut finding, |id| Payload::new(id, A, EX));
    let (Some(kept), Some(given_up)) = (before()?, before()?) else { return Ok(finding) };
    let mutexes = Mutexes { kept, given_up, new: bench.fresh() };
    if let Err(why) = bench.subject().reserve()? {
        return Ok(Finding::skipped(&why));
    }
    let met = kept_out(bench, &mut finding, &mutexes);
    bench.subject().unreserve()?;
    let [took, refreshed, unlocked] = met?;
    let live = [mutexes.new, mutexes.kept, mutexes.given_up];
    let hosts = [B, A, A];
    let mut is_live = [false; 3];
    for ((is_live, id), host) in is_live.iter_mut().zip(live).zip(hosts) {
        *is_live = bench.is_live(id, host)?;
    }
    let [is_taken, is_kept, is_held] = is_live;
    let done = !took || is_taken;
    finding.demand("a TRYLOCK that succeeds is carried out", done, Verdict::Unsafe);
    finding.demand("a TRYLOCK that is refused is not", took || !is_taken, Verdict::DiffersButSafe);
    let (word, otherwise) = match refreshed {
        true => ("succeeds", Verdict::Unsafe),
        false => ("is refused", Verdict::DiffersButSafe),
    };
    finding.demand(&format!("a REFRESH that {word} keeps the lock"), is_kept, otherwise);
    let same = unlocked != is_held;
    finding.demand("an UNLOCK does what it answers", same, Verdict::DiffersButSafe);
    Ok(finding)
}

/// Sends commands while the data is reserved for others. Returns whether TRYLOCK, REFRESH and
/// UNLOCK succeeded.
fn kept_out(
    bench: &mut Bench<'_>,
    finding: &mut Finding,
    mutexes: &Mutexes,
) -> Result<[bool; 3], Stop> {
    match bench.records(mutexes.kept) {
        Ok(records) => {
            finding.note("reads of the table, if the data is reserved", word(Status::Good));
            let shown = records.iter().any(|record| record.state.is_live());
            finding.demand("such a read shows who holds a mutex", shown, Verdict::Unsafe);
        }
        Err(Stop::Refused) => {
            finding.note("reads of the table, if the data is reserved", word(Status::Conflict));
        }
        Err(other) => return Err(other),
    }
    let mut succeeded = [false; 3];
    let commands = [
        ("TRYLOCK", MutexOp::Trylock, Payload::new(mutexes.new, B, EX)),
        ("REFRESH", MutexOp::Refresh, Payload::new(mutexes.kept, A, EX)),
        ("UNLOCK", MutexOp::Unlock, Payload::new(mutexes.given_up, A, EX)),
    ];
    for (succeeds, (name, op, payload)) in succeeded.iter_mut().zip(commands) {
        let status = bench.send(op, payload)?;
        *succeeds = status == Status::Good;
        let what = format!("{name}, if the data is reserved for others");
        finding.note(&what, word(status));
        let known = [Status::Good, Status::Conflict].contains(&status);
        finding.demand(&format!("{name} is done or refused then"), known, Verdict::DiffersButSafe);
    }
    Ok(succeeded)
}
