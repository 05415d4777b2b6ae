//! Rules about mutexes that are held.

use super::{A, B, C, EX, Rule, SH, held, shares};
use crate::selftest::bench::{Bench, Payload};
use crate::selftest::finding::{Finding, Verdict, word};
use crate::selftest::subject::{Stop, name};
use idm_protocol::scsi::Sense;
use idm_protocol::{Mode, MutexOp, ResourceId, State, Status};

const COMMANDS: &str = "What each command does";
const SHARED: &str = "Shared mutexes";
const REMOVING: &str = "Removing and clearing";

pub fn rules() -> Vec<Rule> {
    let rule = |name, heading, says, test| Rule { name, heading, says, fills: false, test };
    vec![
        rule("lock-held", COMMANDS, "TRYLOCK of what another host has is refused", lock_held),
        rule("refresh-by-stranger", COMMANDS, "only a holder refreshes", refresh_by_stranger),
        rule("break-live", COMMANDS, "BREAK is refused while the lease runs", break_live),
        rule("unlock-by-stranger", COMMANDS, "only a holder unlocks", unlock_by_stranger),
        rule("destroy-by-stranger", COMMANDS, "nobody destroys what is held", destroy_by_stranger),
        rule("lock-twice", COMMANDS, "a holder's TRYLOCK is answered in a known way", lock_twice),
        rule("unlock", COMMANDS, "UNLOCK frees the mutex for others", unlock),
        rule("unlock-twice", COMMANDS, "a second UNLOCK does no harm", unlock_twice),
        rule("unlock-class", COMMANDS, "UNLOCK of another class does no harm", unlock_class),
        rule("share", SHARED, "sharers exclude who wants it alone, and nobody else", share),
        rule("share-beside-exclusive", SHARED, "nobody shares what is exclusive", share_exclusive),
        rule("unlock-shared", SHARED, "an UNLOCK takes nothing from other sharers", unlock_shared),
        rule("destroy-shared", SHARED, "DESTROY is refused while others share", destroy_shared),
        rule("promote", COMMANDS, "REFRESH makes a lock exclusive that nobody shares", promote),
        rule("promote-shared", COMMANDS, "it does not while others share", promote_shared),
        rule("demote", COMMANDS, "REFRESH makes an exclusive lock shared", demote),
        rule("destroy", REMOVING, "DESTROY removes an unlocked mutex", destroy),
        rule("destroy-held", REMOVING, "a holder's DESTROY is answered in a known way", by_holder),
    ]
}

/// A holds a mutex exclusively; what B does must be refused and change nothing.
fn against_holder(
    bench: &mut Bench<'_>,
    attempts: &[(MutexOp, Mode, Verdict)],
) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    for &(op, mode, otherwise) in attempts {
        let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
            return Ok(finding);
        };
        let before = bench.records(id)?;
        let status = bench.send(op, Payload::new(id, B, mode))?;
        let what = format!("{} ({mode}) by another host", name(op));
        finding.refused(&what, status, otherwise);
        let same = bench.records(id)? == before;
        finding.demand(
            &format!("the holder's record is as it was after {what}"),
            same,
            Verdict::Unsafe,
        );
    }
    Ok(finding)
}

fn lock_held(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    against_holder(bench, &[(MutexOp::Trylock, EX, Verdict::Unsafe)])
}

fn share_exclusive(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    against_holder(bench, &[(MutexOp::Trylock, SH, Verdict::Unsafe)])
}

fn refresh_by_stranger(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let (op, bad) = (MutexOp::Refresh, Verdict::Unsafe);
    against_holder(bench, &[(op, EX, bad), (op, SH, bad)])
}

fn break_live(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let (op, bad) = (MutexOp::Break, Verdict::Unsafe);
    against_holder(bench, &[(op, EX, bad), (op, SH, bad)])
}

fn unlock_by_stranger(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let (op, odd) = (MutexOp::Unlock, Verdict::DiffersButSafe);
    against_holder(bench, &[(op, EX, odd), (op, SH, odd)])
}

fn destroy_by_stranger(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    against_holder(bench, &[(MutexOp::Destroy, EX, Verdict::Unsafe)])
}

fn lock_twice(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let own = |id| Payload::new(id, A, EX);
    let Some(id) = held(bench, &mut finding, own)? else { return Ok(finding) };
    let status = bench.send(MutexOp::Trylock, own(id))?;
    finding.note("TRYLOCK by the holder", word(status));
    let known = matches!(status, Status::Good | Status::Conflict | Status::Terminated);
    finding.demand("it is GOOD, a conflict or terminated", known, Verdict::DiffersButSafe);
    let live = bench.is_live(id, A)?;
    finding.demand("the holder still has it", live, Verdict::Unsafe);
    let Some(id) = held(bench, &mut finding, |id| own(id).short())? else { return Ok(finding) };
    bench.outlast()?;
    let status = bench.send(MutexOp::Trylock, own(id))?;
    finding.note("TRYLOCK by the holder after its lease", word(status));
    Ok(finding)
}

fn unlock(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
        return Ok(finding);
    };
    let status = bench.send(MutexOp::Unlock, Payload::new(id, A, EX))?;
    finding.works("UNLOCK by the holder", status);
    let record = bench.record_of(id, A)?;
    let free = record.is_some_and(|record| record.state == State::Unlocked);
    finding.demand("the record is there, unlocked", free, Verdict::DiffersButSafe);
    let status = bench.send(MutexOp::Trylock, Payload::new(id, B, EX))?;
    finding.works("TRYLOCK by another host afterwards", status);
    let records = bench.records(id)?;
    let held = records.iter().filter(|record| record.state != State::Unlocked).count();
    finding.demand("only the new holder has it", held <= 1, Verdict::Unsafe);
    let status = bench.send(MutexOp::Refresh, Payload::new(id, A, EX))?;
    finding.refused("REFRESH by the former holder", status, Verdict::Unsafe);
    Ok(finding)
}

fn unlock_twice(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
        return Ok(finding);
    };
    bench.send(MutexOp::Unlock, Payload::new(id, A, EX))?;
    for (what, host) in [("a second UNLOCK", A), ("an UNLOCK by another host", B)] {
        let status = bench.send(MutexOp::Unlock, Payload::new(id, host, EX).storing(9))?;
        finding.note(what, word(status));
    }
    let values: Vec<u64> = bench.records(id)?.iter().map(|record| record.value.get()).collect();
    finding.demand("it stores no value", !values.contains(&9), Verdict::Unsafe);
    Ok(finding)
}

fn unlock_class(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    for (mode, other) in [(EX, SH), (SH, EX)] {
        let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, mode))? else {
            return Ok(finding);
        };
        let answer = bench.answer(MutexOp::Unlock, Payload::new(id, A, other))?;
        let status = answer.status;
        finding.note(&format!("UNLOCK ({other}) of a lock that is {mode}"), word(status));
        if let (Status::WrongState, Some(sense)) = (status, Sense::decode(&answer.sense)) {
            // The documents have two codes for it.
            let Sense { key, asc, ascq, fru, .. } = sense;
            finding.note(
                "form of sense data then",
                format!("{key:02x}/{asc:02x}/{ascq:02x}, FRU {fru}"),
            );
        }
        if status == Status::Good {
            let live = bench.is_live(id, A)?;
            finding.demand("it is free then", !live, Verdict::DiffersButSafe);
        } else {
            let status = bench.send(MutexOp::Unlock, Payload::new(id, A, mode))?;
            finding.works("UNLOCK of the right class afterwards", status);
        }
    }
    Ok(finding)
}

/// Makes a mutex that A and B share. `None` if the drive admits no second sharer; the finding then
/// says so.
pub(super) fn shared(
    bench: &mut Bench<'_>,
    finding: &mut Finding,
    (first, second): (Payload, Payload),
) -> Result<Option<ResourceId>, Stop> {
    let Some(id) = held(bench, finding, |id| Payload { id, ..first })? else { return Ok(None) };
    if shares(bench, id, second)? {
        return Ok(Some(id));
    }
    finding.note("a second sharer", "refused");
    Ok(None)
}

/// Both with leases that do not run out.
pub(super) fn both(bench: &mut Bench<'_>) -> (Payload, Payload) {
    let id = bench.fresh();
    (Payload::new(id, A, SH), Payload::new(id, B, SH))
}

fn share(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, SH))? else {
        return Ok(finding);
    };
    let status = bench.send(MutexOp::Trylock, Payload::new(id, C, EX))?;
    finding.refused("TRYLOCK (ex) beside a sharer", status, Verdict::Unsafe);
    let status = bench.send(MutexOp::Break, Payload::new(id, C, EX))?;
    finding.refused("BREAK (ex) beside a sharer", status, Verdict::Unsafe);
    let admitted = shares(bench, id, Payload::new(id, B, SH))?;
    finding.note("a second sharer", if admitted { "admitted" } else { "refused" });
    finding.demand("a second sharer is admitted", admitted, Verdict::DiffersButSafe);
    if admitted {
        let states: Vec<State> = bench.records(id)?.iter().map(|record| record.state).collect();
        finding.note("states of two sharers", format!("{states:?}"));
        for host in [B, C] {
            let status = bench.send(MutexOp::Trylock, Payload::new(id, host, EX))?;
            finding.refused("TRYLOCK (ex) beside two sharers", status, Verdict::Unsafe);
        }
    }
    for host in if admitted { &[A, B][..] } else { &[A] } {
        let live = bench.is_live(id, *host)?;
        finding.demand("the sharers have it as before", live, Verdict::Unsafe);
    }
    Ok(finding)
}

fn unlock_shared(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let pair = both(bench);
    if let Some(id) = shared(bench, &mut finding, pair)? {
        let status = bench.send(MutexOp::Unlock, Payload::new(id, B, SH))?;
        finding.works("UNLOCK by one of two sharers", status);
        finding.note("records that are left", bench.records(id)?.len());
        let live = bench.is_live(id, A)?;
        finding.demand("the other one still has it", live, Verdict::Unsafe);
        let status = bench.send(MutexOp::Trylock, Payload::new(id, C, EX))?;
        finding.refused("TRYLOCK (ex) beside the other one", status, Verdict::Unsafe);
        let status = bench.send(MutexOp::Unlock, Payload::new(id, A, SH))?;
        finding.works("UNLOCK by the last sharer", status);
        finding.note("records that are left then", bench.records(id)?.len());
    }
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, SH))? else {
        return Ok(finding);
    };
    let status = bench.send(MutexOp::Unlock, Payload::new(id, A, SH))?;
    finding.works("UNLOCK by a sharer that is alone", status);
    finding.note("records that are left", bench.records(id)?.len());
    let live = bench.is_live(id, A)?;
    finding.demand("it is free then", !live, Verdict::DiffersButSafe);
    Ok(finding)
}

fn destroy_shared(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let pair = both(bench);
    let Some(id) = shared(bench, &mut finding, pair)? else { return Ok(finding) };
    for (what, host) in [("DESTROY by a sharer", B), ("DESTROY by another host", C)] {
        let status = bench.send(MutexOp::Destroy, Payload::new(id, host, SH))?;
        finding.refused(what, status, Verdict::Unsafe);
    }
    let live = bench.is_live(id, A)?;
    finding.demand("the other sharer still has it", live, Verdict::Unsafe);
    Ok(finding)
}

fn promote(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, SH))? else {
        return Ok(finding);
    };
    let status = bench.send(MutexOp::Refresh, Payload::new(id, A, EX))?;
    if !finding.works("REFRESH (ex) by the only sharer", status) {
        return Ok(finding);
    }
    let mode = bench.record_of(id, A)?.map(|record| record.class.mode());
    finding.demand("the record says that it is exclusive", mode == Some(EX), Verdict::Unsafe);
    let status = bench.send(MutexOp::Trylock, Payload::new(id, B, SH))?;
    finding.refused("TRYLOCK (sh) by another host then", status, Verdict::Unsafe);
    Ok(finding)
}

fn promote_shared(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let pair = both(bench);
    let Some(id) = shared(bench, &mut finding, pair)? else { return Ok(finding) };
    let status = bench.send(MutexOp::Refresh, Payload::new(id, A, EX))?;
    finding.refused("REFRESH (ex) beside a sharer", status, Verdict::Unsafe);
    for host in [A, B] {
        let record = bench.record_of(id, host)?;
        let same = record.is_some_and(|it| it.state.is_live() && it.class.mode() == SH);
        finding.demand("both share it as before", same, Verdict::Unsafe);
    }
    Ok(finding)
}

fn demote(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
        return Ok(finding);
    };
    let status = bench.send(MutexOp::Refresh, Payload::new(id, A, SH))?;
    finding.works("REFRESH (sh) by the holder", status);
    let record = bench.record_of(id, A)?;
    let kept = record.as_ref().is_some_and(|record| record.state.is_live());
    finding.demand("it still has it", kept, Verdict::Unsafe);
    let mode = record.map(|record| record.class.mode());
    finding.demand("the record says that it is shared", mode == Some(SH), Verdict::DiffersButSafe);
    let status = bench.send(MutexOp::Trylock, Payload::new(id, B, EX))?;
    finding.refused("TRYLOCK (ex) by another host then", status, Verdict::Unsafe);
    Ok(finding)
}

fn destroy(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    for (what, host) in [("the last holder", A), ("another host", B)] {
        let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX))? else {
            return Ok(finding);
        };
        bench.send(MutexOp::Unlock, Payload::new(id, A, EX))?;
        let status = bench.send(MutexOp::Destroy, Payload::new(id, host, EX))?;
        let what = format!("DESTROY of an unlocked mutex by {what}");
        if host == A {
            finding.works(&what, status);
        } else {
            finding.note(&what, word(status));
        }
        if status == Status::Good {
            let gone = bench.records(id)?.is_empty();
            finding.demand("it is gone then", gone, Verdict::DiffersButSafe);
        }
    }
    Ok(finding)
}

fn by_holder(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    for mode in [EX, SH] {
        let own = |id| Payload::new(id, A, mode);
        let Some(id) = held(bench, &mut finding, own)? else { return Ok(finding) };
        let status = bench.send(MutexOp::Destroy, own(id))?;
        finding.note(&format!("DESTROY by the holder ({mode})"), word(status));
        if status != Status::Good {
            let live = bench.is_live(id, A)?;
            finding.demand("it has it as before", live, Verdict::Unsafe);
        }
    }
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX).short())? else {
        return Ok(finding);
    };
    bench.outlast()?;
    let status = bench.send(MutexOp::Destroy, Payload::new(id, A, EX))?;
    finding.note("DESTROY by the holder after its lease", word(status));
    Ok(finding)
}
