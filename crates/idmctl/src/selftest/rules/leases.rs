//! Rules about the end of a lease, and about the commands that it allows.

use super::holding::shared;
use super::{A, B, C, EX, Rule, SH, held};
use crate::selftest::bench::{Bench, Payload, SHORT};
use crate::selftest::finding::{Finding, Verdict, word};
use crate::selftest::subject::{Stop, name};
use idm_protocol::{Mode, MutexOp, State, Status};
use std::time::Duration;

const CLOCK: &str = "The lease clock";
const COMMANDS: &str = "What each command does";
const UNCERTAIN: &str = "What is uncertain, and why it is safe";

/// The lease that is measured.
const MEASURED: Duration = Duration::from_secs(1);
/// The interval between two looks at it.
const LOOK: Duration = Duration::from_millis(4);

pub fn rules() -> Vec<Rule> {
    let rule = |name, heading, says, test| Rule { name, heading, says, fills: false, test };
    vec![
        rule("lease-length", CLOCK, "a lease is as long as the host asked for", length),
        rule("lease-renewed", CLOCK, "REFRESH begins the lease anew, with its own length", renewed),
        rule("lease-over", CLOCK, "the end of a lease alone frees nothing", over),
        rule(
            "refresh-late",
            CLOCK,
            "a late REFRESH succeeds if nobody took the lock",
            late_refresh,
        ),
        rule("unlock-late", CLOCK, "a late UNLOCK succeeds", late_unlock),
        rule("break-over", COMMANDS, "BREAK takes over what is timed out, and wholly", break_over),
        rule("break-some", UNCERTAIN, "BREAK takes nothing from a sharer that lives", break_some),
        rule("promote-over", UNCERTAIN, "an expired sharer loses what is made exclusive", promote),
        rule("share-over", CLOCK, "an expired sharer is not removed by a new one", share_over),
    ]
}

/// The drive measures leases on its own clock. One that is early lets another host break a lock
/// that its holder believes to have.
fn length(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let id = bench.fresh();
    let payload = Payload { lease: MEASURED, ..Payload::new(id, A, EX) };
    let sent = bench.subject().now();
    let status = bench.send(MutexOp::Trylock, payload)?;
    let answered = bench.subject().now();
    if !finding.works("TRYLOCK of a new mutex", status) {
        return Ok(finding);
    }
    loop {
        let asked = bench.subject().now();
        let state = bench.record_of(id, A)?.map(|record| record.state);
        let told = bench.subject().now();
        // Clocks may differ by 500 ppm.
        let early = told.saturating_sub(sent) < MEASURED - MEASURED / 2000;
        match state {
            Some(state) if state.is_live() => {
                let late = asked.saturating_sub(answered) > MEASURED + MEASURED / 50;
                if late {
                    finding.demand("it ends in time", false, Verdict::DiffersButSafe);
                    return Ok(finding);
                }
            }
            _ => {
                finding.demand("it does not end early", !early, Verdict::Unsafe);
                finding.note("state at the end", format!("{state:?}"));
                return Ok(finding);
            }
        }
        bench.subject().sleep(LOOK)?;
    }
}

fn renewed(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let own = |id| Payload::new(id, A, EX);
    // The measurement of a host that was delayed for too long has no meaning.
    for _ in 0..3 {
        let Some(id) = held(bench, &mut finding, |id| own(id).short())? else {
            return Ok(finding);
        };
        bench.subject().sleep(SHORT * 6 / 10)?;
        let sent = bench.subject().now();
        let status = bench.send(MutexOp::Refresh, own(id).short())?;
        bench.subject().sleep(SHORT * 6 / 10)?;
        let live = bench.is_live(id, A)?;
        if bench.subject().now().saturating_sub(sent) > SHORT * 9 / 10 {
            finding = Finding::default();
            continue;
        }
        finding.works("REFRESH by the holder", status);
        finding.demand("the lease begins anew", live, Verdict::Unsafe);
        break;
    }
    let Some(id) = held(bench, &mut finding, own)? else { return Ok(finding) };
    bench.send(MutexOp::Refresh, own(id).short())?;
    bench.outlast()?;
    let live = bench.is_live(id, A)?;
    finding.demand("it has the length that REFRESH names", !live, Verdict::DiffersButSafe);
    Ok(finding)
}

fn over(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let attempts = [
        (MutexOp::Trylock, EX, Verdict::Unsafe),
        (MutexOp::Trylock, SH, Verdict::Unsafe),
        (MutexOp::Refresh, EX, Verdict::Unsafe),
        (MutexOp::Unlock, EX, Verdict::DiffersButSafe),
        (MutexOp::Destroy, EX, Verdict::DiffersButSafe),
    ];
    let mut ids = Vec::new();
    for _ in attempts {
        let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX).short())? else {
            return Ok(finding);
        };
        ids.push(id);
    }
    bench.outlast()?;
    for (id, (op, mode, otherwise)) in ids.into_iter().zip(attempts) {
        let before = bench.records(id)?;
        let timed_out = before.first().is_some_and(|record| record.state == State::TimedOut);
        finding.demand("the record says that it is timed out", timed_out, Verdict::DiffersButSafe);
        finding.demand("the holder stays in the table", before.len() == 1, Verdict::Unsafe);
        let status = bench.send(op, Payload::new(id, B, mode))?;
        let what = format!("{} ({mode}) of what is timed out by another host", name(op));
        finding.refused(&what, status, otherwise);
        let same = bench.records(id)? == before;
        finding.demand(&format!("nothing is changed by {what}"), same, otherwise);
    }
    Ok(finding)
}

fn late_refresh(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX).short())? else {
        return Ok(finding);
    };
    bench.outlast()?;
    let status = bench.send(MutexOp::Refresh, Payload::new(id, A, EX))?;
    if finding.works("REFRESH by the holder after its lease", status) {
        let live = bench.is_live(id, A)?;
        finding.demand("it has the lock again", live, Verdict::Unsafe);
    }
    Ok(finding)
}

fn late_unlock(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX).short())? else {
        return Ok(finding);
    };
    bench.outlast()?;
    let status = bench.send(MutexOp::Unlock, Payload::new(id, A, EX))?;
    finding.works("UNLOCK by the holder after its lease", status);
    let status = bench.send(MutexOp::Trylock, Payload::new(id, B, EX))?;
    finding.works("TRYLOCK by another host afterwards", status);
    Ok(finding)
}

fn break_over(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    for mode in [EX, SH] {
        let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, EX).short())? else {
            return Ok(finding);
        };
        bench.outlast()?;
        let taking = Payload::new(id, B, mode);
        let status = bench.send(MutexOp::Break, taking)?;
        if !finding.works(&format!("BREAK ({mode}) of what is timed out"), status) {
            continue;
        }
        let records = bench.records(id)?;
        let held: Vec<_> = records.iter().filter(|it| it.state != State::Unlocked).collect();
        let is_new = held.len() == 1 && held[0].host == bench.host(B);
        finding.demand("only the new holder has it", is_new, Verdict::Unsafe);
        let new = bench.record_of(id, B)?;
        let as_asked = new.is_some_and(|it| {
            it.metadata == Bench::metadata(&taking) && it.class.mode() == mode && it.state.is_live()
        });
        finding.demand("its record is as it was sent", as_asked, Verdict::Unsafe);
        for (op, otherwise) in [
            (MutexOp::Refresh, Verdict::Unsafe),
            (MutexOp::Unlock, Verdict::DiffersButSafe),
            (MutexOp::Destroy, Verdict::Unsafe),
        ] {
            let status = bench.send(op, Payload::new(id, A, EX))?;
            finding.refused(&format!("{} by the former holder", name(op)), status, otherwise);
        }
        let live = bench.is_live(id, B)?;
        finding.demand("the new holder has it as before", live, Verdict::Unsafe);
    }
    Ok(finding)
}

/// A shares a mutex and is timed out; B shares it and lives.
fn half_over(bench: &mut Bench<'_>) -> (Payload, Payload) {
    let id = bench.fresh();
    (Payload::new(id, A, SH).short(), Payload::new(id, B, SH))
}

fn break_some(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    for (mode, otherwise) in [(EX, Verdict::Unsafe), (SH, Verdict::AsReliedOn)] {
        let pair = half_over(bench);
        let Some(id) = shared(bench, &mut finding, pair)? else { return Ok(finding) };
        bench.outlast()?;
        let status = bench.send(MutexOp::Break, Payload::new(id, C, mode))?;
        finding.note(&format!("BREAK ({mode}) beside a live sharer"), word(status));
        let refused = status != Status::Good;
        finding.demand(&format!("BREAK ({mode}) is refused"), refused || mode == SH, otherwise);
        let live = bench.is_live(id, B)?;
        finding.demand("the live sharer has it as before", live, Verdict::Unsafe);
    }
    Ok(finding)
}

fn promote(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let pair = half_over(bench);
    let Some(id) = shared(bench, &mut finding, pair)? else { return Ok(finding) };
    bench.outlast()?;
    let status = bench.send(MutexOp::Refresh, Payload::new(id, B, EX))?;
    finding.note("REFRESH (ex) beside an expired sharer", word(status));
    if status == Status::Good {
        let status = bench.send(MutexOp::Refresh, Payload::new(id, A, SH))?;
        finding.note("REFRESH by the expired sharer", word(status));
        let refused = status != Status::Good;
        finding.demand("the expired sharer has lost it", refused, Verdict::Unsafe);
    } else {
        let mode = bench.record_of(id, B)?.map(|record| record.class.mode());
        finding.demand(
            "the sender shares it as before",
            mode == Some(Mode::Shared),
            Verdict::Unsafe,
        );
    }
    Ok(finding)
}

fn share_over(bench: &mut Bench<'_>) -> Result<Finding, Stop> {
    let mut finding = Finding::default();
    let Some(id) = held(bench, &mut finding, |id| Payload::new(id, A, SH).short())? else {
        return Ok(finding);
    };
    bench.outlast()?;
    let status = bench.send(MutexOp::Trylock, Payload::new(id, B, SH))?;
    finding.note("TRYLOCK (sh) beside an expired sharer", word(status));
    let stays = bench.record_of(id, A)?.is_some();
    finding.demand("the expired sharer stays in the table", stays, Verdict::DiffersButSafe);
    Ok(finding)
}
