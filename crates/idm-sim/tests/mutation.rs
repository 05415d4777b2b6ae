//! The simulator catches every broken safety rule of the engine. A rule whose removal is not
//! noticed shows a gap in the simulator.
#![cfg(feature = "broken-rules")]

use idm_engine::BrokenRule;
use idm_sim::campaign::{run_schedule, run_seed};
use idm_sim::plan::{Aim, Firmware, WorldKind};
use idm_sim::search::{self, Search};
use idm_sim::world::World;

/// Seeds within which a broken rule must be caught.
const SEEDS: u64 = 60_000;

/// Two hosts hold the lock, or one holds it on too few drives to keep others out.
const EXCLUSION: &[&str] = &["mutual exclusion", "a belief stands on a keep-quorum"];
/// A host overlooks one that counts other drives.
const OTHER_SETS: &[&str] = &[
    "mutual exclusion",
    "a conflict with another set is heeded",
    "a grant of an LV lock is confirmed",
];
/// A holder stays on drives that have left the VG.
const MOVED: &[&str] = &["mutual exclusion", "moved votes are seen on the VG's drives"];
/// A live holder is broken. The drive model refuses that, which firmware may or may not do.
const BREAKING: &[&str] = &["only timed-out holders are broken"];
/// A lost lock comes back as if nothing had happened.
const CONTINUITY: &[&str] = &["mutual exclusion", "never silently regained"];
/// A restarted host adopts a lock that is not its own any more, or never was.
const ADOPTION: &[&str] = &[
    "mutual exclusion",
    "what is adopted was nobody else's in between",
    "a belief stands on a keep-quorum",
];
/// An old value counts as the present one.
const VALUES: &[&str] = &["a known value is current"];

/// Runs seeds until one fails with one of the invariants that protect the rule.
fn is_caught(rule: BrokenRule, by: &[&str]) {
    is_caught_in(rule, WorldKind::Budget, by);
}

fn is_caught_in(rule: BrokenRule, kind: WorldKind, by: &[&str]) {
    let mut world = World::new();
    world.break_rule(Some(rule));
    let caught = (0..SEEDS).find_map(|seed| {
        let failure = run_seed(&mut world, seed, kind, Firmware::Any).err()?;
        by.contains(&failure.invariant).then_some((seed, failure))
    });
    match caught {
        Some((seed, failure)) => println!("{rule:?} is caught by seed {seed}: {failure}"),
        None => panic!("nobody notices in {SEEDS} seeds that {rule:?} is broken"),
    }
}

#[test]
fn the_rules_unbroken_hold() {
    let mut world = World::new();
    for seed in 0..1000 {
        assert_eq!(
            run_seed(&mut world, seed, WorldKind::Budget, Firmware::Any).err(),
            None,
            "seed {seed}"
        );
    }
}

macro_rules! caught {
    ($($name:ident: $rule:ident by $by:ident,)*) => {
        $(#[test] fn $name() { is_caught(BrokenRule::$rule, $by); })*
    };
}

caught! {
    acquire_quorum: AcquireQuorum by EXCLUSION,
    keep_quorum: KeepQuorum by EXCLUSION,
    lease_from_reply: LeaseFromReply by EXCLUSION,
    fingerprint: Fingerprint by OTHER_SETS,
    conflict_stands: ConflictStands by OTHER_SETS,
    confirm_by_reading: ConfirmByReading by OTHER_SETS,
    break_only_timed_out: BreakOnlyTimedOut by BREAKING,
    release_order: ReleaseOrder by EXCLUSION,
    demote_order: DemoteOrder by EXCLUSION,
    retake_only_while_safe: RetakeOnlyWhileSafe by CONTINUITY,
    adopt_quorum: AdoptQuorum by EXCLUSION,
    adopt_only_own: AdoptOnlyOwn by ADOPTION,
    value_quorum: ValueQuorum by VALUES,
    value_after_break: ValueAfterBreak by VALUES,
    value_beside_sharers: ValueBesideSharers by VALUES,
}

#[test]
fn seen_by_vg() {
    is_caught_in(BrokenRule::SeenByVg, WorldKind::Aimed(Aim::Silence), MOVED);
}

#[test]
fn a_search_catches_a_rule_and_tells_how_to_see_it_again() {
    let invariant = "a conflict with another set is heeded";
    let world = || {
        let mut world = World::new();
        world.break_rule(Some(BrokenRule::ConflictStands));
        world
    };
    let search = Search {
        from: 4_000_000,
        runs: 5_000,
        time: None,
        jobs: 1,
        kind: WorldKind::Budget,
        firmware: Firmware::Any,
        only: invariant.to_owned(),
        most_failures: 1,
    };
    let report = search::search(&search, world, |_| ());
    let (schedule, failure) = &report.failures[0];
    assert_eq!(failure.invariant, invariant);
    let schedule = schedule.to_string().parse().unwrap();
    let again = run_schedule(&mut world(), &schedule, WorldKind::Budget, Firmware::Any);
    assert_eq!(again.as_ref(), Err(failure));
}
