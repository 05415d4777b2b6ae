//! The rules that the library relies on, each as steps on scratch mutexes.
//!
//! Hosts have numbers: A is the first that has the mutex, B and C want it. Only commands are sent
//! that the library sends, too.

mod cut;
mod holding;
mod leases;
mod reading;
mod reserved;
mod values;

use super::bench::{Bench, Payload};
use super::finding::Finding;
use super::subject::Stop;
use idm_protocol::{Mode, MutexOp, ResourceId, Status};

const A: u8 = 1;
const B: u8 = 2;
const C: u8 = 3;
const EX: Mode = Mode::Exclusive;
const SH: Mode = Mode::Shared;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// The heading in docs/protocol.md under which it stands.
    pub heading: &'static str,
    /// The demand on the drive, as a sentence.
    pub says: &'static str,
    /// Whether it fills the table.
    pub fills: bool,
    /// Tests the behaviour of the drive.
    pub test: fn(&mut Bench<'_>) -> Result<Finding, Stop>,
}

/// All rules, in the order in which they are tested.
pub fn all() -> Vec<Rule> {
    let mut rules = Vec::new();
    rules.extend(reading::rules());
    rules.extend(holding::rules());
    rules.extend(leases::rules());
    rules.extend(values::rules());
    rules.push(reading::limits());
    rules.push(cut::rule());
    rules.push(reserved::rule());
    rules
}

/// Makes a mutex that A holds. `None` if the drive refuses it; the finding then says so.
fn held(
    bench: &mut Bench<'_>,
    finding: &mut Finding,
    payload: impl FnOnce(ResourceId) -> Payload,
) -> Result<Option<ResourceId>, Stop> {
    let id = bench.fresh();
    let status = bench.send(MutexOp::Trylock, payload(id))?;
    let taken = status == Status::Good || finding.works("TRYLOCK of a new mutex", status);
    Ok(taken.then_some(id))
}

/// Whether B shares a mutex with A from now on.
fn shares(bench: &mut Bench<'_>, id: ResourceId, payload: Payload) -> Result<bool, Stop> {
    let status = bench.send(MutexOp::Trylock, Payload { id, ..payload })?;
    Ok(status == Status::Good)
}
