//! Pictures: the diagrams of `docs/locking.md` are up to date and have the right content, and every
//! seed has a picture.

use idm_sim::diagrams::{self, Diagram};
use idm_sim::ids::{Ix, LockIx};
use idm_sim::picture::{self, View};
use idm_sim::plan::{Firmware, WorldKind};
use idm_sim::world::World;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/diagrams"))
}

fn draw(diagram: &Diagram) -> String {
    match diagrams::draw(diagram) {
        Ok(svg) => svg,
        Err(failure) => panic!("{}: {failure}", diagram.name),
    }
}

#[test]
fn the_pictures_in_the_documentation_are_current() {
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .expect("docs/diagrams can be read")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut expected = Vec::new();
    for diagram in diagrams::all() {
        let name = format!("{}.svg", diagram.name);
        let present = std::fs::read_to_string(directory().join(&name)).unwrap_or_default();
        assert!(
            present == draw(&diagram),
            "docs/diagrams/{name} is not current: run `make diagrams`"
        );
        expected.push(name);
    }
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn every_picture_is_in_the_text() {
    let text = std::fs::read_to_string(directory().join("../locking.md")).expect("locking.md");
    for diagram in diagrams::all() {
        assert!(text.contains(&format!("(diagrams/{}.svg)", diagram.name)), "{}", diagram.name);
    }
}

/// The sources of the checkers, which name their checks.
const CHECKS: &[&str] = &[
    include_str!("../src/world/checks.rs"),
    include_str!("../src/world/checks/ending.rs"),
    include_str!("../src/world/checks/reading.rs"),
    include_str!("../src/world/checks/requests.rs"),
];

#[test]
fn every_invariant_that_the_text_names_is_checked() {
    let text = std::fs::read_to_string(directory().join("../locking.md")).expect("locking.md");
    let (_, text) = text.split_once("\n## What shows it\n").expect("the table of promises");
    let mut named = 0;
    for part in text.split("| I ").skip(1) {
        let part = part.split([';', '|']).next().unwrap_or_default();
        for name in part.split('"').skip(1).step_by(2) {
            let literal = format!("\"{name}\",");
            assert!(CHECKS.iter().any(|checks| checks.contains(&literal)), "{name}");
            named += 1;
        }
    }
    assert!(named >= 20, "only {named} invariants are named");
}

/// Texts that a picture shows, in this order.
const TOLD: &[(&str, &[&str])] = &[
    ("contention", &["granted", "got d2 later", "releases", "refused: alpha holds it", "granted"]),
    ("takeover", &["the host is dead", "refused: alpha holds it", "broke alpha on", "granted"]),
    ("drive-lost", &["granted", "lapsed: others may take it", "regained"]),
    ("moved", &["granted", "spreads to {d2 d3 d4}", "{d2 d3 d4} vote now", "refused: alpha"]),
    ("restart", &["granted", "adopts exclusive", "adopted, exclusive", "refused: alpha"]),
];

#[test]
fn every_story_comes_to_its_end() {
    let diagrams = diagrams::all();
    assert_eq!(diagrams.len(), TOLD.len());
    for (diagram, (name, texts)) in diagrams.iter().zip(TOLD) {
        assert_eq!(diagram.name, *name);
        let svg = draw(diagram);
        let mut rest = svg.as_str();
        for text in *texts {
            let Some((_, after)) = rest.split_once(text) else {
                panic!("{name} does not have {text:?} where it should");
            };
            rest = after;
        }
    }
}

/// The picture of a seed between two moments, in us.
fn picture_of(world: &mut World, seed: u64, from: u64, to: Option<u64>) -> String {
    world.observe();
    let _ = world.run(seed, WorldKind::Budget, Firmware::Any);
    let recording = world.take_recording().expect("it was observed");
    let view = View { title: "A & B".to_owned(), lock: LockIx::new(0), from, to };
    picture::draw(&recording, &view)
}

#[test]
fn every_seed_has_a_picture_and_always_the_same() {
    let mut world = World::new();
    for seed in 0..100 {
        let svg = picture_of(&mut world, seed, 0, None);
        assert_eq!(svg, picture_of(&mut world, seed, 0, None), "seed {seed}");
        assert!(svg.contains("A &amp; B") && svg.ends_with("</svg>\n"), "seed {seed}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "seed {seed}");
        let part = picture_of(&mut world, seed, 1_000_000, Some(2_000_000));
        assert!(part.len() < svg.len(), "seed {seed}");
    }
}

/// Observation does not change a run.
#[test]
fn an_observed_seed_ends_as_one_that_is_not() {
    let (mut plain, mut observed) = (World::new(), World::new());
    for seed in 0..200 {
        observed.observe();
        let one = plain.run(seed, WorldKind::Budget, Firmware::Any);
        let two = observed.run(seed, WorldKind::Budget, Firmware::Any);
        assert_eq!((one, plain.now()), (two, observed.now()), "seed {seed}");
        assert_eq!(plain.coverage.to_string(), observed.coverage.to_string(), "seed {seed}");
    }
}

#[cfg(feature = "broken-rules")]
#[test]
fn a_violation_is_in_the_picture() {
    let mut world = World::new();
    world.break_rule(Some(idm_engine::BrokenRule::AcquireQuorum));
    let failing =
        (0..1000).find(|&seed| world.run(seed, WorldKind::Budget, Firmware::Any).is_err());
    let svg = picture_of(&mut world, failing.expect("a seed fails"), 0, None);
    assert!(svg.contains("VIOLATION "));
}
