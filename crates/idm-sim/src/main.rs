//! `idm-sim`: runs seeds of the simulation, searches it, or replays a run.

use idm_sim::campaign::{self, Campaign, Report};
use idm_sim::diagrams;
use idm_sim::ids::{Ix, LockIx};
use idm_sim::picture::{self, View};
use idm_sim::plan::{Aim, Firmware, WorldKind};
use idm_sim::schedule::Schedule;
use idm_sim::search::{self, Search};
use idm_sim::world::World;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const USAGE: &str = "\
Usage: idm-sim run [--seeds N] [--from S] [--jobs J] [world]   run many seeds
       idm-sim search [--runs N] [--minutes M] [--from S] [--jobs J] [--only TEXT] [world]
                                                               search for rare interleavings
       idm-sim replay SCHEDULE [world]                         print what happens in one run
       idm-sim replay SCHEDULE --svg FILE [view] [world]       draw it
       idm-sim diagrams DIRECTORY                              draw the diagrams of docs/locking.md
       idm-sim coverage [--seeds N] [--from S] [world]         count what happens

SCHEDULE is a seed, or SEED@EVENT:SEED,... as a search prints it.
--only: count only failures of invariants whose name contains TEXT.

World: --beyond            drives lose their state beyond the fault budget
       --nonsense          drives answer nonsense
       --some-nonsense     a minority of them does
       --aim conflicts     hosts that count different drives meet drives whose answers say little
       --aim room          nearly full drives, from which locks remove each other
       --aim marks         restarted hosts count other drives, and records name the former ones
       --aim votes         drives are replaced under locks that are held
       --aim restarts      lvmlockd dies with commands on their way
       --aim silence       hosts lose sight of drives for longer than a lease, and volumes move
       --aim repairs       an administrator gives locks of dead hosts back
       --profile NAME      any (default), r00d, rev2313 or current

View:  --from-s S, --to-s S   from and until then, in seconds
       --lock N               which of the locks (0)
";

struct Options {
    command: String,
    schedule: Option<Schedule>,
    /// The directory for the diagrams, or the file for a seed's picture.
    drawing: Option<PathBuf>,
    from_s: f64,
    to_s: Option<f64>,
    lock: usize,
    campaign: Campaign,
    /// The number of runs of a search.
    runs: Option<u64>,
    minutes: Option<f64>,
    only: String,
}

fn parse() -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        command: String::new(),
        schedule: None,
        drawing: None,
        from_s: 0.0,
        to_s: None,
        lock: 0,
        campaign: Campaign {
            from: 0,
            seeds: 1000,
            jobs: 2,
            kind: WorldKind::Budget,
            firmware: Firmware::Any,
            most_failures: 10,
        },
        runs: None,
        minutes: None,
        only: String::new(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seeds") => options.campaign.seeds = parser.value()?.parse()?,
            Long("from") => options.campaign.from = parser.value()?.parse()?,
            Long("jobs") => options.campaign.jobs = parser.value()?.parse()?,
            Long("failures") => options.campaign.most_failures = parser.value()?.parse()?,
            Long("runs") => options.runs = Some(parser.value()?.parse()?),
            Long("minutes") => options.minutes = Some(parser.value()?.parse()?),
            Long("only") => options.only = parser.value()?.string()?,
            Long("svg") => options.drawing = Some(parser.value()?.into()),
            Long("from-s") => options.from_s = parser.value()?.parse()?,
            Long("to-s") => options.to_s = Some(parser.value()?.parse()?),
            Long("lock") => options.lock = parser.value()?.parse()?,
            Long("beyond") => options.campaign.kind = WorldKind::Beyond,
            Long("nonsense") => options.campaign.kind = WorldKind::Nonsense,
            Long("some-nonsense") => options.campaign.kind = WorldKind::SomeNonsense,
            Long("aim") => {
                options.campaign.kind = WorldKind::Aimed(parser.value()?.parse::<Aim>()?);
            }
            Long("profile") => {
                options.campaign.firmware = match parser.value()?.string()?.as_str() {
                    "any" => Firmware::Any,
                    "r00d" => Firmware::R00d,
                    "rev2313" => Firmware::Rev2313,
                    "current" => Firmware::Current,
                    other => return Err(format!("no such profile: {other}").into()),
                };
            }
            Value(word) if options.command.is_empty() => options.command = word.string()?,
            Value(word) if options.command == "replay" && options.schedule.is_none() => {
                options.schedule = Some(word.parse()?);
            }
            Value(word) if options.command == "diagrams" && options.drawing.is_none() => {
                options.drawing = Some(word.into());
            }
            Long("help") | Short('h') => options.command = "help".into(),
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("idm-sim: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match (options.command.as_str(), &options.schedule) {
        ("run", _) => run(&options.campaign),
        ("search", _) => search(&options),
        ("coverage", _) => coverage(&options.campaign),
        ("replay", Some(schedule)) => match &options.drawing {
            Some(file) => draw(schedule, &options, file),
            None => replay(schedule, &options.campaign),
        },
        ("diagrams", _) if options.drawing.is_some() => {
            options.drawing.as_deref().map_or(ExitCode::FAILURE, draw_diagrams)
        }
        ("help", _) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(campaign: &Campaign) -> ExitCode {
    let start = Instant::now();
    let told = Mutex::new(start);
    let report = campaign::run(campaign, |done, failures| {
        for (seed, failure) in failures {
            eprintln!("seed {seed}: {failure}");
        }
        let Ok(mut told) = told.lock() else { return };
        if told.elapsed() >= Duration::from_secs(5) {
            *told = Instant::now();
            let rate = done as f64 / start.elapsed().as_secs_f64();
            eprintln!("{done} of {} seeds, {rate:.0} seeds/s", campaign.seeds);
        }
    });
    let rate = report.seeds as f64 / start.elapsed().as_secs_f64();
    println!(
        "{} seeds from {}, {rate:.0} seeds/s, {} failed",
        report.seeds,
        campaign.from,
        report.failures.len()
    );
    end(&report)
}

fn coverage(campaign: &Campaign) -> ExitCode {
    let report = campaign::run(campaign, |_, _| ());
    print!("{}", report.coverage);
    end(&report)
}

fn end(report: &Report) -> ExitCode {
    for (seed, failure) in &report.failures {
        println!("seed {seed}: {failure}");
    }
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number of runs of a search that has no limit.
const SEARCH_RUNS: u64 = 100_000;

fn search(options: &Options) -> ExitCode {
    let campaign = &options.campaign;
    let endless = options.minutes.map(|_| u64::MAX);
    let search = Search {
        from: campaign.from,
        runs: options.runs.or(endless).unwrap_or(SEARCH_RUNS),
        time: options.minutes.map(|m| Duration::from_secs_f64(m.clamp(0.0, 1e6) * 60.0)),
        jobs: campaign.jobs,
        kind: campaign.kind,
        firmware: campaign.firmware,
        only: options.only.clone(),
        most_failures: campaign.most_failures,
    };
    let start = Instant::now();
    let told = Mutex::new((start, 0));
    let report = search::search(&search, World::new, |so_far| {
        let Ok(mut told) = told.lock() else { return };
        for (schedule, failure) in &so_far.failures[told.1..] {
            eprintln!("run {}, {schedule}: {failure}", so_far.runs);
        }
        told.1 = so_far.failures.len();
        if told.0.elapsed() >= Duration::from_secs(5) {
            told.0 = Instant::now();
            let rate = so_far.runs as f64 / start.elapsed().as_secs_f64();
            eprintln!("{} runs, {rate:.0} runs/s, {} features", so_far.runs, so_far.features);
        }
    });
    let (runs, rate) = (report.runs, report.runs as f64 / start.elapsed().as_secs_f64());
    println!(
        "{runs} runs from {}, {rate:.0} runs/s, {} features, {} failed",
        search.from,
        report.features,
        report.failures.len()
    );
    for (schedule, failure) in &report.failures {
        println!("{schedule}: {failure}");
    }
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(schedule: &Schedule, campaign: &Campaign) -> ExitCode {
    let mut world = World::new();
    world.trace(true);
    let result = world.follow(schedule, campaign.kind, campaign.firmware);
    let text = match &result {
        Ok(ending) => format!("{ending:?}"),
        Err(failure) => failure.to_string(),
    };
    // The reader of a trace may stop reading.
    let _ = writeln!(std::io::stdout(), "{schedule}: {text}");
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Draws one run.
fn draw(schedule: &Schedule, options: &Options, file: &Path) -> ExitCode {
    let mut world = World::new();
    world.observe();
    let result = world.follow(schedule, options.campaign.kind, options.campaign.firmware);
    let recording = world.take_recording().unwrap_or_default();
    let Some(&(kind, layout)) = recording.locks.get(options.lock) else {
        eprintln!("idm-sim: {schedule} has only {} locks", recording.locks.len());
        return ExitCode::from(2);
    };
    let us = |s: f64| (s.max(0.0) * 1e6) as u64;
    let view = View {
        title: format!("Seed {schedule}, lock {}: {kind} on {layout}", options.lock),
        lock: LockIx::new(options.lock),
        from: us(options.from_s),
        to: options.to_s.map(us),
    };
    let written = write(file, &picture::draw(&recording, &view));
    match &result {
        Ok(ending) => println!("{schedule}: {ending:?}"),
        Err(failure) => println!("{schedule}: {failure}"),
    }
    if result.is_ok() && written { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Draws the diagrams of `docs/locking.md`.
fn draw_diagrams(directory: &Path) -> ExitCode {
    for diagram in diagrams::all() {
        let drawn = match diagrams::draw(&diagram) {
            Ok(svg) => write(&directory.join(diagram.name).with_extension("svg"), &svg),
            Err(failure) => {
                eprintln!("idm-sim: {}: {failure}", diagram.name);
                false
            }
        };
        if !drawn {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(file: &Path, text: &str) -> bool {
    let written: io::Result<()> = std::fs::write(file, text);
    if let Err(error) = &written {
        eprintln!("idm-sim: {}: {error}", file.display());
    }
    written.is_ok()
}
