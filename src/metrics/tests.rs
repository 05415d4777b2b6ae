use super::labels::Label;
use super::*;
use crate::lock::{AskedFor, Refused};
use idm_engine::{Outcome, Refusal};
use idm_protocol::{MutexOp, Record, Status};
use std::collections::{HashMap, HashSet};

/// A sample: the name of its metric or series, its labels and its value.
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// A parser for the documented format, which fails on any other text.
struct Parsed {
    kinds: HashMap<String, String>,
    samples: Vec<Sample>,
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn parse_labels(mut text: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect("label");
        assert!(is_name(name), "{name}");
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect("the label's end") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("an escape").1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    c => panic!("unknown escape {c}"),
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        text = rest[end + 1..].strip_prefix(',').unwrap_or(&rest[end + 1..]);
    }
    labels
}

fn parse(text: &str) -> Parsed {
    assert!(text.ends_with('\n'));
    let mut parsed = Parsed { kinds: HashMap::new(), samples: Vec::new() };
    let mut helped = HashSet::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("help");
            assert!(helped.insert(name.to_owned()), "{name} is described twice");
            assert!(!help.contains('\\'));
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("type");
            assert!(is_name(name) && helped.contains(name), "{name}");
            assert!(["counter", "gauge", "histogram"].contains(&kind));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            current = name.to_owned();
            parsed.kinds.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("sample");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("}")),
            None => (series, ""),
        };
        assert!(is_name(name));
        let kind = &parsed.kinds[&current];
        let suffixes: &[&str] =
            if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        let belongs = suffixes.iter().any(|suffix| name == format!("{current}{suffix}"));
        assert!(belongs, "{name} stands below {current}");
        let value = value.parse().expect("a number");
        parsed.samples.push(Sample { name: name.into(), labels: parse_labels(labels), value });
    }
    let mut seen = HashSet::new();
    for sample in &parsed.samples {
        let mut labels = sample.labels.clone();
        labels.sort();
        assert!(seen.insert((sample.name.clone(), labels)), "{} is there twice", sample.name);
    }
    parsed
}

impl Parsed {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let is = |sample: &&Sample| {
            let all = labels.iter().all(|(label, text)| {
                sample.labels.iter().any(|(l, t)| (l.as_str(), t.as_str()) == (*label, *text))
            });
            sample.name == name && all && sample.labels.len() == labels.len()
        };
        self.samples.iter().find(is).map(|sample| sample.value)
    }

    /// Checks that every histogram grows from bound to bound, up to the total.
    fn check_histograms(&self) {
        let names = self.kinds.iter().filter(|(_, kind)| *kind == "histogram");
        for (name, _) in names {
            let bucket = format!("{name}_bucket");
            let mut last: HashMap<String, (f64, f64)> = HashMap::new();
            for sample in self.samples.iter().filter(|sample| sample.name == bucket) {
                let label = |wanted: &str| {
                    let found = sample.labels.iter().find(|(label, _)| label == wanted);
                    found.map(|(_, text)| text.clone()).expect("label")
                };
                let bound: f64 = match label("le").as_str() {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().unwrap(),
                };
                let before = last.insert(label("drive"), (bound, sample.value));
                let before = before.unwrap_or((0.0, 0.0));
                assert!(bound > before.0 && sample.value >= before.1, "{name} {bound}");
            }
            for (drive, (bound, count)) in last {
                assert_eq!(bound, f64::INFINITY);
                let labels = [("drive", drive.as_str())];
                assert_eq!(self.value(&format!("{name}_count"), &labels), Some(count));
                assert!(self.value(&format!("{name}_sum"), &labels).is_some());
            }
        }
    }
}

fn refresh() -> DriveCommand {
    DriveCommand::Mutex(MutexOp::Refresh, Record::end_of_table())
}

/// The exported text after every event has happened at least once.
fn rendered() -> String {
    let metrics = Metrics::default();
    metrics.held(Role::Lv, None, Some(Mode::Exclusive));
    metrics.held(Role::Lv, None, Some(Mode::Exclusive));
    metrics.held(Role::Lv, Some(Mode::Exclusive), Some(Mode::Shared));
    metrics.held(Role::Vg, None, Some(Mode::Shared));
    metrics.held(Role::Vg, Some(Mode::Shared), None);
    let (refusal, asked) = (Refusal::Full, AskedFor::Mode(Mode::Exclusive));
    let refused = Refused { refusal, asked, drives: Vec::new() };
    metrics.answered(Asked::Acquire, &RequestResult::Refused(refused));
    metrics.answered(Asked::Release, &RequestResult::Done(Outcome::Released));
    metrics.lost(LossKind::Lapsed);
    metrics.noticed(&Notice::SplitVote);
    metrics.regained();
    metrics.killed();
    let owner = |name: &str, kill: Option<&str>| Owner::new(name.into(), kill.map(str::to_owned));
    let killed = owner("volume group vg1", Some("vg1"));
    killed.set_killed();
    let started = [owner("the global lockspace", None), owner("volume group vg0", Some("vg0"))];
    metrics.lockspaces(started.into_iter().chain([killed]).map(Arc::new).collect());
    metrics.safe_until(Some(clock::now() + Duration::from_secs(40)));
    let (well, bad) = (DriveMetrics::default(), DriveMetrics::default());
    for (ms, status) in [
        (1, Status::Good),
        (3, Status::Conflict),
        (7000, Status::Uncertain),
        (60_000, Status::Good),
    ] {
        well.executed(&refresh(), &Reply::Status(status), Duration::from_millis(ms));
    }
    let sample = |identity, name, metrics| DriveSample {
        identity,
        name,
        answers: true,
        paths: 2,
        queued: 3,
        workers: 1,
        metrics,
    };
    metrics.render(&[
        sample("naa.5000c500a1b2c3d4", "/dev/sda (naa.5000c500a1b2c3d4)", &well),
        sample("t10.a \"b\\\n", "odd", &bad),
    ])
}

#[test]
fn the_text_is_what_prometheus_reads() {
    let parsed = parse(&rendered());
    parsed.check_histograms();
    let locks = |role, mode| {
        parsed.value("lvmlockd_idm_locks_held", &[("role", role), ("mode", mode)]).unwrap()
    };
    assert_eq!((locks("lv", "exclusive"), locks("lv", "shared")), (1.0, 1.0));
    assert_eq!((locks("vg", "shared"), locks("vg", "exclusive")), (0.0, 0.0));
    let requests = |request, result| {
        let labels = [("request", request), ("result", result)];
        parsed.value("lvmlockd_idm_requests_total", &labels).unwrap()
    };
    assert_eq!((requests("acquire", "full"), requests("release", "done")), (1.0, 1.0));
    assert_eq!(requests("acquire", "done"), 0.0);
    let left = parsed.value("lvmlockd_idm_lease_left_seconds", &[]).unwrap();
    assert!(left > 30.0 && left <= 40.0, "{left}");
    let drive = ("drive", "naa.5000c500a1b2c3d4");
    let below = |bound| {
        let name = "lvmlockd_idm_drive_command_seconds_bucket";
        parsed.value(name, &[drive, ("le", bound)]).unwrap()
    };
    assert_eq!((below("0.000500"), below("0.001000"), below("0.005000")), (0.0, 1.0, 2.0));
    assert_eq!((below("5.000000"), below("10.000000"), below("+Inf")), (2.0, 3.0, 4.0));
    let errors = [drive, ("command", "refresh"), ("error", "uncertain")];
    assert_eq!(parsed.value("lvmlockd_idm_drive_errors_total", &errors), Some(1.0));
    // A name that needs every escape is read back unchanged.
    assert_eq!(
        parsed.value("lvmlockd_idm_drive_queue_length", &[("drive", "t10.a \"b\\\n")]),
        Some(3.0)
    );
}

#[test]
fn every_metric_and_label_value_is_described() {
    let document = include_str!("../../docs/metrics.md");
    let parsed = parse(&rendered());
    for name in parsed.kinds.keys() {
        assert!(document.contains(&format!("`{name}`")), "docs/metrics.md lacks {name}");
    }
    for value in [
        &Ended::NAMES[..],
        &Role::NAMES,
        &LossKind::NAMES,
        &LockEvent::NAMES,
        &ErrorLabel::NAMES,
        &Asked::NAMES,
    ]
    .concat()
    {
        assert!(document.contains(value), "docs/metrics.md lacks {value}");
    }
}

#[test]
fn without_drives_and_locks_there_is_a_text_too() {
    let parsed = parse(&Metrics::default().render(&[]));
    assert_eq!(parsed.value("lvmlockd_idm_lockspaces", &[]), Some(0.0));
    assert_eq!(parsed.value("lvmlockd_idm_lease_left_seconds", &[]), None);
}
