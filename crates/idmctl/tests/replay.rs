//! A recorded test replays on the firmware that it was recorded from, and on no other.

use idm_emulator::Profile;
use idm_protocol::{MutexOp, Record};
use idmctl::replay::{Replayed, replay};
use idmctl::selftest::bench::{Bench, Payload};
use idmctl::selftest::examine;
use idmctl::selftest::subject::{Model, Subject};
use idmctl::trace::{Call, Recorder, Step, format, parse};

/// The records of a lock that is no test's.
fn other() -> Record {
    let mut model = Model::new(Profile::current());
    let id = idm_protocol::ResourceId::from_bytes([b'v'; 64]);
    let payload = Payload::new(id, 9, idm_protocol::Mode::Exclusive);
    Record { countdown_ms: 3_600_000, ..Bench::new(&mut model, [8; 14]).record(&payload) }
}

fn recorded(profile: Profile, beside: bool) -> Vec<Step> {
    let mut model = Model::new(profile);
    if beside {
        model.change(MutexOp::Trylock, &other()).unwrap();
    }
    let mut recorder = Recorder::new(&mut model);
    let outcome = examine(&mut Bench::new(&mut recorder, [5; 14]), true, |_, _, _| {});
    assert_eq!(outcome.stop, None);
    recorder.steps
}

fn same(replayed: &[Replayed]) -> Vec<&str> {
    replayed.iter().filter(|it| it.difference.is_none()).map(|it| it.profile).collect()
}

#[test]
fn a_trace_replays_on_its_own_profile_only() {
    for (name, profile) in Profile::named() {
        let steps = recorded(profile, false);
        let text = format(&steps).unwrap();
        let read = parse(&text, "x").unwrap();
        assert_eq!(read, steps);
        assert_eq!(same(&replay(&read, Some(name))), [name]);
        // The generations are compared with all others.
        if !name.contains('+') {
            assert_eq!(same(&replay(&read, None)), [name]);
        }
    }
}

#[test]
fn a_drive_that_was_in_use_replays_and_its_user_is_not_in_the_trace() {
    let steps = recorded(Profile::rev2313(), true);
    assert_eq!(same(&replay(&steps, None)), ["rev2313"]);
    let text = format(&steps).unwrap();
    let host = idmctl::trace::digits(other().host.as_bytes());
    let mutex = idmctl::trace::digits(other().resource.as_bytes());
    assert!(!text.contains(&host[..16]) && !text.contains(&mutex[..16]));
}

#[test]
fn a_trace_with_one_byte_changed_is_found() {
    let text = format(&recorded(Profile::current(), false)).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..100 {
        let at = random.usize(..text.len());
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1 << random.u8(..7);
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        assert!(parse(&changed, "x").is_err(), "byte {at}");
    }
    for cut in [1, 100, text.len() / 2, text.len() - 1] {
        assert!(parse(&text[..cut], "x").is_err(), "{cut}");
    }
}

#[test]
fn an_answer_that_was_changed_with_its_digest_is_found_too() {
    let steps = recorded(Profile::current(), false);
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..20 {
        let mut changed = steps.clone();
        let at = random.usize(..changed.len());
        match &mut changed[at].call {
            Call::Change { status, .. } => *status = "Failed".to_owned(),
            Call::Counters { data } => data.insert_str(0, "77"),
            Call::Version { version } => *version = Some(77),
            Call::Table { data: Some(data), .. } => data.push("zero".to_owned()),
            // It has no answer.
            Call::Reserve { .. } => continue,
            Call::Table { data: None, .. } => unreachable!(),
        }
        let found = &replay(&changed, Some("current"))[0].difference;
        assert_eq!(found.as_ref().map(|it| it.step), Some(at + 1));
    }
}

/// The recorded steps of real firmware (docs/protocol.md, "Sources"), and the profiles on which
/// they replay.
const RECORDED: [(&str, &str, &[&str]); 7] = [
    ("r00d-exclusive", include_str!("../traces/r00d-exclusive.trace"), &["r00d"]),
    ("r00d-shared", include_str!("../traces/r00d-shared.trace"), &["r00d"]),
    ("r00d-lock", include_str!("../traces/r00d-lock.trace"), &["r00d"]),
    (
        "rev2313-mutexes",
        include_str!("../traces/rev2313-mutexes.trace"),
        // No limits of r00d were recorded. It has those of the next revision.
        &["rev2313", "r00d"],
    ),
    ("rev2313-sharers", include_str!("../traces/rev2313-sharers.trace"), &["rev2313"]),
    ("rev2313-hosts", include_str!("../traces/rev2313-hosts.trace"), &["rev2313", "r00d"]),
    (
        "july2020-values",
        include_str!("../traces/july2020-values.trace"),
        &["rev2313", "r00d", "current+last-stays", "current+each-stays", "current+value-outlives"],
    ),
];

#[test]
fn the_recorded_steps_replay_on_their_firmware_only() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/traces");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), RECORDED.len());
    for (name, text, expected) in RECORDED {
        let replayed = replay(&parse(text, name).unwrap(), None);
        assert_eq!(same(&replayed), expected, "{name}: {replayed:#?}");
    }
}

#[test]
fn recorded_steps_with_one_byte_changed_are_found() {
    let mut random = fastrand::Rng::with_seed(3);
    for (name, text, _) in RECORDED {
        for _ in 0..100 {
            let at = random.usize(..text.len());
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1 << random.u8(..7);
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(parse(&changed, name).is_err(), "{name}: byte {at}");
        }
    }
}

/// One digit of what was recorded is changed.
fn edited(step: &Step, random: &mut fastrand::Rng) -> Step {
    let edit = |digits: &mut String, random: &mut fastrand::Rng| {
        let at = random.usize(..digits.len());
        let new = if &digits[at..=at] == "7" { "8" } else { "7" };
        digits.replace_range(at..=at, new);
    };
    let mut step = step.clone();
    match &mut step.call {
        Call::Change { sense, .. } if !sense.is_empty() => edit(sense, random),
        Call::Change { status, .. } => {
            *status = if status == "Good" { "Conflict" } else { "Good" }.to_owned();
        }
        Call::Table { data: Some(data), .. } => {
            let at = random.usize(..data.len());
            match data[at].starts_with("end") {
                true => data[at] = "zero".to_owned(),
                false => edit(&mut data[at], random),
            }
        }
        Call::Counters { data } => edit(data, random),
        other => unreachable!("{other:?}"),
    }
    step
}

#[test]
fn an_answer_that_was_recorded_otherwise_is_found_at_its_step() {
    let mut random = fastrand::Rng::with_seed(4);
    for (name, text, expected) in RECORDED {
        let steps = parse(text, name).unwrap();
        for at in 0..steps.len() {
            let mut changed = steps.clone();
            changed[at] = edited(&steps[at], &mut random);
            let found = &replay(&changed, Some(expected[0]))[0].difference;
            let found = found.as_ref().map(|it| it.step);
            assert_eq!(found, Some(at + 1), "{name}: {:?} is now {:?}", steps[at], changed[at]);
        }
    }
}

#[test]
fn a_difference_is_told_with_the_note_of_its_step() {
    let steps = parse(RECORDED[0].1, "x").unwrap();
    let found = replay(&steps, Some("current")).pop().unwrap().difference.unwrap();
    assert_eq!(found.note.as_deref(), Some("TRYLOCK by the holder"), "{found:?}");
    assert!(found.emulated.contains("Terminated"), "{found:?}");
}
