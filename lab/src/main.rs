//! Runs scenarios on virtual machines with real kernels, real lvm2 and the library as it is
//! shipped, that share emulated IDM drives.

#![forbid(unsafe_code)]

mod agent;
mod cluster;
mod drives;
mod files;
mod machine;
mod qemu;
mod scenarios;
mod shell;
mod story;
mod template;

use anyhow::{Result, bail};
use cluster::Cluster;
use files::Files;
use lexopt::prelude::*;
use scenarios::{Expect, SCENARIOS, Scenario};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const HELP: &str = "\
lab [SCENARIO …]   runs these scenarios, or all
lab --short        runs the scenarios that stand for all where time is short
lab --list         lists them
lab --shell        two machines with lvmlockd, and a prompt for each
";

enum Task {
    Run(Vec<&'static Scenario>),
    List,
    Shell,
    Help,
}

fn main() -> ExitCode {
    let done = arguments().and_then(|task| match task {
        Task::Run(scenarios) => run(&scenarios),
        Task::List => {
            for scenario in SCENARIOS {
                println!("{:14} {}", scenario.name, scenario.about);
            }
            Ok(true)
        }
        Task::Shell => shell::run(&Files::find()?).map(|()| true),
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
    let mut chosen = Vec::new();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("list") => return Ok(Task::List),
            Long("shell") => return Ok(Task::Shell),
            Long("short") => chosen.extend(SCENARIOS.iter().filter(|scenario| scenario.short)),
            Short('h') | Long("help") => return Ok(Task::Help),
            Value(name) => match SCENARIOS.iter().find(|scenario| name == scenario.name) {
                Some(scenario) => chosen.push(scenario),
                None => bail!("there is no scenario {name:?}; --list names them"),
            },
            other => return Err(other.unexpected().into()),
        }
    }
    if chosen.is_empty() {
        chosen.extend(SCENARIOS);
    }
    Ok(Task::Run(chosen))
}

/// How a scenario went.
struct Verdict {
    name: &'static str,
    good: bool,
    text: String,
    took: Duration,
}

/// True if all went as expected.
fn run(scenarios: &[&'static Scenario]) -> Result<bool> {
    let files = Files::find()?;
    let verdicts =
        scenarios.iter().map(|scenario| play(&files, scenario)).collect::<Result<Vec<_>>>()?;
    println!();
    for verdict in &verdicts {
        println!("{:14} {:6.1} s  {}", verdict.name, verdict.took.as_secs_f64(), verdict.text);
    }
    let bad = verdicts.iter().filter(|verdict| !verdict.good).count();
    let all: Duration = verdicts.iter().map(|verdict| verdict.took).sum();
    println!("{} scenarios, {bad} not as expected, {:.0} s", verdicts.len(), all.as_secs_f64());
    Ok(bad == 0)
}

fn play(files: &Files, scenario: &Scenario) -> Result<Verdict> {
    println!("\n{}: {}", scenario.name, scenario.about);
    let dir = files.scenario_dir(scenario.name)?;
    let begin = Instant::now();
    let mut cluster = Cluster::new(files, &dir)?;
    let outcome = (scenario.run)(&mut cluster);
    if let Err(error) = &outcome {
        println!("  FAILED: {error:#}");
        cluster.keep();
        println!("  logs are in {}", dir.display());
    }
    drop(cluster);
    let took = begin.elapsed();
    if outcome.is_ok() {
        // Sparse, but not small.
        for drive in drives::DRIVES {
            let _ = std::fs::remove_file(dir.join(format!("{drive}.disk")));
        }
    }
    let (good, text) = match (&outcome, scenario.expect) {
        (Ok(()), Expect::Pass) => (true, "passed".to_owned()),
        (Err(error), Expect::Pass) => (false, format!("FAILED: {}", first_line(error))),
        (Err(error), Expect::Failure { at, because }) => {
            let known = format!("{error:#}").contains(at);
            let text = if known { "fails as expected" } else { "FAILED in another way than known" };
            (known, format!("{text} ({because}): {}", first_line(error)))
        }
        (Ok(()), Expect::Failure { because, .. }) => {
            (false, format!("PASSED, although expected to fail ({because}): say that it passes"))
        }
    };
    Ok(Verdict { name: scenario.name, good, text, took })
}

fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}
