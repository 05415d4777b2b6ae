//! Seeds that must pass after every change. `idm-sim run` runs more of them.

use idm_sim::campaign::{self, Campaign, Report};
use idm_sim::coverage::Count;
use idm_sim::plan::{Aim, Firmware, WorldKind};
use idm_sim::search::{self, Search};
use idm_sim::world::World;

fn run(kind: WorldKind, firmware: Firmware, from: u64, seeds: u64) -> Report {
    let campaign = Campaign { from, seeds, jobs: 2, kind, firmware, most_failures: 5 };
    let report = campaign::run(&campaign, |_, _| ());
    let failures: Vec<String> =
        report.failures.iter().map(|(seed, failure)| format!("seed {seed}: {failure}")).collect();
    assert!(
        failures.is_empty(),
        "replay with `idm-sim replay SEED`, {kind:?}, {firmware:?}:\n{}",
        failures.join("\n")
    );
    report
}

/// Minimum counts, in 20 000 seeds, of events that a good simulation contains.
const COMMON: &[(Count, u64)] = &[
    (Count::Contended, 15_000),
    (Count::GrantedEx, 100_000),
    (Count::GrantedSh, 100_000),
    (Count::GrantedKnownLater, 10_000),
    (Count::GrantedFew, 10_000),
    (Count::Converted, 10_000),
    (Count::ConvertedLater, 100),
    (Count::ConvertRefused, 5_000),
    (Count::Published, 10_000),
    (Count::RefusedHeld, 100_000),
    (Count::RefusedOtherSet, 10_000),
    (Count::RefusedNoQuorum, 5_000),
    (Count::RefusedFull, 10),
    (Count::RefusedUnconfirmed, 100),
    (Count::RefusalChecked, 10_000),
    (Count::Lapsed, 500),
    (Count::Regained, 50),
    (Count::LostTaken, 100),
    (Count::Broke, 5_000),
    (Count::TookOverOwn, 2_000),
    (Count::DriveLost, 1_000),
    (Count::DriveGained, 2_000),
    (Count::SplitVote, 3_000),
    (Count::Collected, 50),
    (Count::NotIdm, 1_000),
    (Count::GhostHit, 2_000),
    (Count::Twice, 5_000),
    (Count::TimedOut, 5_000),
    (Count::HeldBack, 5),
    (Count::ResetHeld, 1_000),
    (Count::FrozenHolding, 500),
    (Count::CrashedHolding, 1_000),
    (Count::Restarted, 1_000),
    (Count::Rebooted, 1_000),
    (Count::Dropped, 5_000),
    (Count::Moved, 2_000),
    (Count::ListsDiffer, 500),
    (Count::OldGranted, 5_000),
    (Count::LoneAcquire, 20_000),
];

#[test]
fn every_invariant_holds_within_the_fault_budget() {
    let report = run(WorldKind::Budget, Firmware::Any, 0, 20_000);
    let rare: Vec<String> = COMMON
        .iter()
        .filter(|(count, least)| report.coverage.get(*count) < *least)
        .map(|(count, least)| {
            format!("{}: {} of {least}", count.text(), report.coverage.get(*count))
        })
        .collect();
    assert!(rare.is_empty(), "hardly ever happens:\n{}", rare.join("\n"));
    // Excuses must remain the exception.
    let excused = report.coverage.get(Count::WaivedReset);
    assert!(excused < 40, "{excused} of 20 000 seeds end excused");
}

/// The typical events of an aimed world, and their minimum counts in 600 seeds.
fn ingredients(aim: Aim) -> &'static [(Count, u64)] {
    match aim {
        Aim::Conflicts => {
            &[(Count::RefusedOtherSet, 1000), (Count::TookOverOwn, 1000), (Count::TryAgain, 1000)]
        }
        Aim::Room => &[(Count::Collected, 200), (Count::RefusedFull, 10_000)],
        Aim::Marks => &[(Count::Restarted, 500), (Count::TookOverOwn, 1000)],
        Aim::Votes => &[(Count::VotesMoved, 500), (Count::Moved, 500), (Count::VgChanged, 500)],
        Aim::Restarts => &[(Count::Restarted, 500), (Count::EarlierHit, 100)],
        Aim::Silence => &[(Count::PathDown, 1000), (Count::Moved, 150), (Count::Restarted, 500)],
        Aim::Repairs => &[(Count::Repaired, 1000), (Count::GrantedKnown, 500)],
    }
}

#[test]
fn every_invariant_holds_in_worlds_that_are_aimed_at_a_fault() {
    for aim in Aim::ALL {
        let report = run(WorldKind::Aimed(aim), Firmware::Any, 0, 600);
        for &(count, least) in ingredients(aim) {
            let times = report.coverage.get(count);
            assert!(times >= least, "{aim}: {}: {times} of {least}", count.text());
        }
    }
}

#[test]
fn every_generation_of_firmware_is_survived() {
    for firmware in [Firmware::R00d, Firmware::Rev2313, Firmware::Current] {
        run(WorldKind::Budget, firmware, 1_000_000, 1_500);
    }
}

#[test]
fn a_loss_beyond_the_budget_is_noticed() {
    let report = run(WorldKind::Beyond, Firmware::Any, 0, 4_000);
    let noticed = report.coverage.get(Count::Noticed);
    assert!(noticed > 500, "only {noticed} losses");
}

#[test]
fn nonsense_from_drives_is_survived() {
    run(WorldKind::Nonsense, Firmware::Any, 0, 1_500);
}

#[test]
fn every_invariant_holds_while_a_minority_answers_nonsense() {
    let report = run(WorldKind::SomeNonsense, Firmware::Any, 0, 4_000);
    let nonsense = report.coverage.get(Count::Nonsense);
    assert!(nonsense > 10_000, "only {nonsense} answers were nonsense");
}

#[test]
fn a_seed_decides_everything() {
    let campaign = |jobs| Campaign {
        from: 77,
        seeds: 200,
        jobs,
        kind: WorldKind::Budget,
        firmware: Firmware::Any,
        most_failures: 1,
    };
    let one = campaign::run(&campaign(1), |_, _| ()).coverage.to_string();
    let two = campaign::run(&campaign(2), |_, _| ()).coverage.to_string();
    assert_eq!(one, two);
}

#[test]
fn a_search_finds_no_violation_and_always_does_the_same() {
    let search = |from| {
        let search = Search {
            from,
            runs: 500,
            time: None,
            jobs: 1,
            kind: WorldKind::Budget,
            firmware: Firmware::Any,
            only: String::new(),
            most_failures: 1,
        };
        let report = search::search(&search, World::new, |_| ());
        assert!(report.failures.is_empty(), "replay with `idm-sim replay`: {:?}", report.failures);
        assert_eq!(report.runs, 500);
        report.features
    };
    assert_eq!(search(1), search(1));
    assert_ne!(search(1), search(2));
}
