//! Hosts that may stop at any moment, drives with two paths, and late data: no host writes a block
//! after another one was granted the lock.
//!
//! The locks are the real engine's, the drives' tables and reservations the emulated drives'. Every
//! program that would stop a host's writes does nothing: an application ignores all orders and
//! writes until an administrator ends it.

mod host;
mod world;

use idm_emulator::Profile;
use idm_fencing::BrokenRule;
use world::{Report, Shape, Weather, World};

/// Simulated time of one seed, in ms.
const LENGTH_MS: u64 = 120_000;

/// Every drive has the LV.
const USUAL: Shape = Shape { drives: 3, of_lv: 3, weather: Weather::Rough };
/// Hosts come and go while they do not reach some of the drives, and register on the others only.
const LOOSE: Shape = Shape { drives: 5, of_lv: 2, weather: Weather::Loose };

/// Hosts that are well, with the usual lease and with the shortest that real drives may have.
const FLAPPING: [Shape; 2] = [
    Shape { drives: 3, of_lv: 3, weather: Weather::Flapping(60) },
    Shape { drives: 5, of_lv: 2, weather: Weather::Flapping(20) },
];
/// Simulated time of one seed of these, in hours.
const HOURS: u64 = 24;

fn run(seeds: core::ops::Range<u64>, fences: bool, broken: Option<BrokenRule>) -> Report {
    run_in(USUAL, seeds, fences, broken)
}

fn run_in(
    shape: Shape,
    seeds: core::ops::Range<u64>,
    fences: bool,
    broken: Option<BrokenRule>,
) -> Report {
    let length_ms = match shape.weather {
        Weather::Flapping(_) => HOURS * 3_600_000,
        _ => LENGTH_MS,
    };
    let mut all = Report::default();
    for seed in seeds {
        let profile = match seed % 3 {
            0 => "current+respects-reservations",
            1 => "current+promotion-removes-expired",
            _ => "current",
        };
        let profile = Profile::by_name(profile).unwrap();
        all.add(seed, World::new(seed, profile, shape, fences, broken).run(length_ms));
    }
    all
}

#[test]
fn no_block_is_written_by_a_host_after_another_was_granted_the_lock() {
    let report = run(0..100, true, None);
    assert_eq!(report.foreign, [], "{report:?}");
    // In this world a host can write after another one was granted the lock, and without fencing it
    // does.
    assert!(report.granted > 500 && report.taken_over > 500, "{report:?}");
    assert!(report.stopped_writes > 5000 && report.written > 50_000, "{report:?}");
    assert!(report.came_back > 200, "{report:?}");
}

#[test]
fn without_fencing_late_writes_hit_what_others_have() {
    let report = run(0..20, false, None);
    assert!(report.foreign.len() > 10, "{report:?}");
}

/// Every rule that is broken lets a block be written, within these seeds.
#[test]
fn broken_rules_are_noticed() {
    let seeds = |rule| match rule {
        // Rare ones.
        BrokenRule::OldVerdict => 3800..3900,
        BrokenRule::LastOneLeaves => 420..430,
        BrokenRule::TakeBesideTheLiving => 340..350,
        _ => 0..400,
    };
    for rule in [
        BrokenRule::GrantBeforePreempt,
        BrokenRule::PreemptOneDrive,
        BrokenRule::RegisterAfterCounting,
        BrokenRule::KeyOfWrongHost,
        BrokenRule::NoConfirmation,
        BrokenRule::LastOneLeaves,
        BrokenRule::OldVerdict,
        BrokenRule::TakeBesideTheLiving,
    ] {
        let caught =
            seeds(rule).find(|&seed| !run(seed..seed + 1, true, Some(rule)).foreign.is_empty());
        assert!(caught.is_some(), "{rule:?}");
    }
}

/// No healthy host is removed.
#[test]
fn a_host_that_is_alive_is_not_removed() {
    assert_eq!(run(1000..1100, true, None).healthy_removed, 0);
    let report = run(1000..1100, true, Some(BrokenRule::RemoveTheLiving));
    assert!(report.healthy_removed > 0, "{report:?}");
}

/// The same where hosts do not see most of the others' drives.
#[test]
fn a_host_that_lives_on_drives_that_another_one_does_not_reach_is_not_removed() {
    let report = run_in(LOOSE, 0..120, true, None);
    assert_eq!((&report.foreign[..], report.healthy_removed), (&[][..], 0), "{report:?}");
    assert!(report.taken_over > 500 && report.came_back > 200, "{report:?}");
    let report = run_in(LOOSE, 1660..1680, true, Some(BrokenRule::CountRegistered));
    assert!(report.healthy_removed > 0, "{report:?}");
}

#[test]
fn paths_that_come_and_go_and_slow_drives_remove_no_healthy_host() {
    for shape in FLAPPING {
        let report = run_in(shape, 0..2, true, None);
        assert_eq!(report.healthy_removed, 0, "{report:?}");
        // Hosts died, and their locks were taken.
        assert!(report.taken_over > 10 && report.asked > 1000, "{report:?}");
        assert!(report.faults > 10_000 && report.granted > 100, "{report:?}");
    }
    // It would be noticed.
    let report = run_in(FLAPPING[1], 0..2, true, Some(BrokenRule::RemoveTheLiving));
    assert!(report.healthy_removed > 0, "{report:?}");
}

/// `make take-overs`: the number of simulated hours, half of them with each lease.
#[test]
#[ignore = "takes hours"]
fn healthy_hosts_are_not_removed_in_a_long_time() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let (hours, first) = (number("IDM_HOURS", 1000), number("IDM_SEED", 0));
    let begun = std::time::Instant::now();
    let mut all = [Report::default(), Report::default()];
    for pair in 0..hours.div_ceil(2 * HOURS) {
        for (shape, all) in FLAPPING.into_iter().zip(&mut all) {
            let seed = first + pair;
            let report = run_in(shape, seed..seed + 1, true, None);
            if report.healthy_removed > 0 {
                println!("seed {seed}, {shape:?}: {report:?}");
            }
            all.add(seed, report);
        }
        if pair % 20 == 19 || (pair + 1) * 2 * HOURS >= hours {
            let hours = (pair + 1) * 2 * HOURS;
            let speed = hours as f64 / begun.elapsed().as_secs_f64();
            let healthy: u64 = all.iter().map(|it| it.healthy_removed).sum();
            println!(
                "{hours} simulated hours, {speed:.1} per second: {healthy} healthy hosts removed, \
                 {all:?}"
            );
        }
    }
    assert!(all.iter().all(|report| report.healthy_removed == 0));
}
