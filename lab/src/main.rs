//! Runs scenarios on virtual machines that share emulated IDM drives, with real kernels, real lvm2
//! and the library as it is shipped.

#![forbid(unsafe_code)]

mod agent;
mod audit;
mod cluster;
mod drives;
mod files;
mod interfaces;
mod machine;
mod qemu;
mod scenarios;
mod shell;
mod suite;
mod systemd;
mod template;
mod transcript;

use anyhow::{Result, bail, ensure};
use cluster::Cluster;
use files::Files;
use interfaces::Interfaces;
use lexopt::prelude::*;
use scenarios::{Expect, Needs, SCENARIOS, Scenario};
use std::collections::{BTreeSet, VecDeque};
use std::iter;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use transcript::Transcript;

const HELP: &str = "\
lab [--nvme] [--jobs N] [SCENARIO …]
                   runs these scenarios, or all, N at a time (default: two more than there are
                   processors); --nvme: with NVMe drives instead of SCSI disks; 'lvm2-*' means all
                   scenarios whose names begin with lvm2-
lab --short        runs the scenarios that represent all others when time is short
lab --list         lists them
lab [--nvme] --shell
                   two machines with lvmlockd, and a prompt for each
lab --lvm2 RELEASE [--jobs N] [--shard K/N] [--patience SECONDS] [NAME …]
                   runs lvm2's own tests, or those with these names ('thin-*' as above), with local
                   locks and with lock type idm, N machines at a time (default: 1); of N shards only
                   the Kth; what has a result already is not run again
";

enum Task {
    Run { scenarios: Vec<&'static Scenario>, interfaces: Interfaces, jobs: usize },
    List,
    Shell(Interfaces),
    Suite(suite::Selection),
    Help,
}

fn main() -> ExitCode {
    let done = arguments().and_then(|task| match task {
        Task::Run { scenarios, interfaces, jobs } => run(&scenarios, interfaces, jobs),
        Task::List => {
            for scenario in SCENARIOS {
                println!("{:16} {}", scenario.name, scenario.about);
            }
            Ok(true)
        }
        Task::Shell(interfaces) => shell::run(&Files::find()?, interfaces).map(|()| true),
        Task::Suite(selection) => suite::run(&selection).map(|()| true),
        Task::Help => {
            print!("{HELP}");
            Ok(true)
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Task> {
    let mut scenarios = Vec::new();
    let (mut interfaces, mut shell) = (Interfaces::Scsi, false);
    // Two more than there are processors, because machines wait for leases to run out most of the
    // time.
    let mut jobs = thread::available_parallelism().map_or(1, NonZero::get) + 2;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("list") => return Ok(Task::List),
            Long("lvm2") => return suite::Selection::read(parser).map(Task::Suite),
            Long("nvme") => interfaces = Interfaces::Nvme,
            Long("shell") => shell = true,
            Long("short") => scenarios.extend(SCENARIOS.iter().filter(|scenario| scenario.short)),
            Long("jobs") => jobs = parser.value()?.parse()?,
            Short('h') | Long("help") => return Ok(Task::Help),
            Value(name) => {
                let name = name.string()?;
                let fits = |scenario: &&Scenario| match name.strip_suffix('*') {
                    Some(begin) => scenario.name.starts_with(begin),
                    None => scenario.name == name,
                };
                let before = scenarios.len();
                scenarios.extend(SCENARIOS.iter().filter(fits));
                if scenarios.len() == before {
                    bail!("there is no scenario {name:?}; --list names them");
                }
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if shell {
        return Ok(Task::Shell(interfaces));
    }
    if scenarios.is_empty() {
        scenarios.extend(SCENARIOS);
    }
    // Each scenario has one directory.
    let mut seen = BTreeSet::new();
    scenarios.retain(|scenario| seen.insert(scenario.name));
    Ok(Task::Run { scenarios, interfaces, jobs })
}

/// Result of a scenario.
struct Verdict {
    scenario: &'static Scenario,
    outcome: Outcome,
    text: String,
    took: Duration,
}

/// Result of a scenario, compared with the expected one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// It failed as expected.
    FailedAsExpected,
    /// It failed, or passed although a failure was expected.
    Failed,
    /// It is not for these drives.
    Skipped,
}

/// Runs scenarios, `jobs` at a time. Returns true if all had the expected result.
///
/// One worker takes the last scenario first, and the others the first. The last ones keep a
/// processor busy for minutes; in most of the others the machines only wait for time to pass.
fn run(scenarios: &[&'static Scenario], interfaces: Interfaces, jobs: usize) -> Result<bool> {
    let files = Files::find()?;
    let begin = Instant::now();
    let jobs = jobs.clamp(1, scenarios.len());
    let left: Mutex<VecDeque<&Scenario>> = Mutex::new(scenarios.iter().copied().collect());
    let work = &|from_the_end: bool| -> Vec<Verdict> {
        let next = || {
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            if from_the_end { left.pop_back() } else { left.pop_front() }
        };
        iter::from_fn(next).map(|scenario| play(&files, scenario, interfaces, jobs > 1)).collect()
    };
    let mut verdicts: Vec<Verdict> = thread::scope(|scope| {
        let workers: Vec<_> = (1..=jobs)
            .map(|number| scope.spawn(move || work(number > 1 && number == jobs)))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    ensure!(verdicts.len() == scenarios.len(), "a scenario has panicked");
    verdicts.sort_by_key(|verdict| scenarios.iter().position(|s| s.name == verdict.scenario.name));
    println!();
    for Verdict { scenario, text, took, .. } in &verdicts {
        println!("{:16} {:6.1} s  {text}", scenario.name, took.as_secs_f64());
    }
    let count = |outcome| verdicts.iter().filter(|verdict| verdict.outcome == outcome).count();
    let failed = count(Outcome::Failed);
    println!(
        "scenarios: {} passed, {failed} failed, {} failed as expected, {} skipped, in {:.0} s",
        count(Outcome::Passed),
        count(Outcome::FailedAsExpected),
        count(Outcome::Skipped),
        begin.elapsed().as_secs_f64()
    );
    Ok(failed == 0)
}

/// Runs one scenario. With `labelled`, its lines are mixed with those of others.
fn play(
    files: &Files,
    scenario: &'static Scenario,
    interfaces: Interfaces,
    labelled: bool,
) -> Verdict {
    let skipped =
        |text| Verdict { scenario, outcome: Outcome::Skipped, text, took: Duration::ZERO };
    let interfaces = match scenario.needs {
        Needs::Any => interfaces,
        Needs::EmptyHost if files.empty_host.exists() => interfaces,
        Needs::EmptyHost => {
            return skipped("skipped, needs an empty host: `make lab-readme`".to_owned());
        }
        Needs::Drives(needed) => needed,
        Needs::ScsiFor(_) if interfaces == Interfaces::Scsi => interfaces,
        Needs::ScsiFor(reason) => {
            return skipped(format!("skipped, needs SCSI disks: {reason}"));
        }
    };
    println!("\n{}: {}", scenario.name, scenario.about);
    let transcript = Transcript::begin(labelled.then_some(scenario.name));
    let result = attempt(files, scenario, interfaces, transcript);
    let took = Duration::from_secs_f64(transcript.seconds());
    let (outcome, text) = match (&result, scenario.expect) {
        (Ok(()), Expect::Pass) => (Outcome::Passed, "passed".to_owned()),
        (Err(error), Expect::Pass) => (Outcome::Failed, format!("FAILED: {}", first_line(error))),
        (Err(error), Expect::Failure { at, because }) => {
            let (outcome, text) = if format!("{error:#}").contains(at) {
                (Outcome::FailedAsExpected, "fails as expected")
            } else {
                (Outcome::Failed, "FAILED in another way than expected")
            };
            (outcome, format!("{text} ({because}): {}", first_line(error)))
        }
        (Ok(()), Expect::Failure { because, .. }) => {
            let text = "PASSED, although a failure was expected";
            (Outcome::Failed, format!("{text} ({because}): mark it as passing"))
        }
    };
    Verdict { scenario, outcome, text, took }
}

fn attempt(
    files: &Files,
    scenario: &Scenario,
    interfaces: Interfaces,
    transcript: Transcript,
) -> Result<()> {
    let dir = files.scenario_dir(scenario.name)?;
    let mut cluster = Cluster::new(files, interfaces, &dir, transcript)?;
    let result = (scenario.run)(&mut cluster);
    if let Err(error) = &result {
        transcript.print(&format!("FAILED: {error:#}"));
        cluster.keep();
        transcript.print(&format!("logs are in {}", dir.display()));
    }
    drop(cluster);
    if result.is_ok() {
        // The files are sparse, but not small.
        for drive in interfaces::DRIVES {
            let _ = std::fs::remove_file(dir.join(format!("{drive}.disk")));
        }
    }
    result
}

fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}
