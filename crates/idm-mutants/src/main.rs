//! `idm-mutants`: breaks the lock engine in every small way that it knows, and checks that the
//! tests notice.
//!
//! All mutants are in one build. In a copy of the engine, every place that can be changed asks a
//! switch (`switch.rs`) whether it is changed now; the environment variable `IDM_MUTANT` has the
//! number of the mutant. The engine's tests, the simulator and the model check are built once with
//! that copy, and run for each mutant until one of them fails.
//!
//! A mutant that the list explains (`survivors.toml`) gets only the tests and the first seeds: all
//! of them would take long, and show nothing new.

mod compile;
mod facts;
mod instrument;
mod results;
#[cfg(test)]
mod tests;
mod tree;
mod trial;

use instrument::Point;
use results::{Explained, Results};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tree::Tree;
use trial::{Effort, Trials, Verdict};

const USAGE: &str = "\
Usage: idm-mutants run [options]    try mutants; those with a result already are not tried again
       idm-mutants list [options]   print the names of all

Options: --only TEXT     mutants whose name has TEXT in it
         --sample N      N of them, chosen by the commit
         --effort E      tests: only the engine's tests; seeds: and the first seeds of the
                         simulator; all: everything (the default). With less than all, those that
                         are left are printed, and not noted as survivors
         --seconds S     no mutant is begun after S seconds
         --jobs J        mutants at a time (2)
";
/// Folder below that in which this is called, which is that of the workspace.
const BUILD: &str = "build/mutants";
const LIST: &str = "crates/idm-mutants/survivors.toml";

struct Options {
    command: String,
    only: String,
    sample: Option<usize>,
    effort: Effort,
    seconds: Option<u64>,
    jobs: usize,
}

fn parse() -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        command: String::new(),
        only: String::new(),
        sample: None,
        effort: Effort::Everything,
        seconds: None,
        jobs: 2,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("only") => options.only = parser.value()?.string()?,
            Long("sample") => options.sample = Some(parser.value()?.parse()?),
            Long("effort") => options.effort = parser.value()?.parse()?,
            Long("seconds") => options.seconds = Some(parser.value()?.parse()?),
            Long("jobs") => options.jobs = parser.value()?.parse()?,
            Value(word) if options.command.is_empty() => options.command = word.string()?,
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
            eprintln!("idm-mutants: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let result = match options.command.as_str() {
        "run" => run(&options),
        "list" => list(&options),
        "help" => {
            print!("{USAGE}");
            Ok(true)
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("idm-mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The instrumented workspace: its points, and those that do not compile.
struct Prepared {
    tree: Tree,
    key: String,
    points: Vec<Point>,
    disabled: BTreeSet<String>,
}

fn prepare() -> Result<Prepared, Box<dyn Error>> {
    let build = PathBuf::from(BUILD);
    fs::create_dir_all(&build)?;
    let tree = Tree::new(Path::new("."), build.canonicalize()?.join("tree"))?;
    let key = tree.key()?;
    // Points that did not compile last time need not be tried again while the engine is unchanged.
    let engine = tree.key_of_engine()?;
    let cache = build.join("disabled.tsv");
    let known = fs::read_to_string(&cache).unwrap_or_default();
    let known = known.strip_prefix(&format!("{engine}\n")).unwrap_or_default();
    let known = known.lines().filter_map(|line| line.split_once('\t'));
    let known = known.map(|(name, why)| (name.to_owned(), why.to_owned())).collect();
    let (points, disabled) = compile::instrument(&tree, known)?;
    let lines: String = disabled
        .iter()
        .map(|(name, why)| format!("{name}\t{}\n", why.replace(['\n', '\t'], " ")))
        .collect();
    fs::write(&cache, format!("{engine}\n{lines}"))?;
    Ok(Prepared { tree, key, points, disabled: disabled.into_keys().collect() })
}

/// Numbers with which the commit selects a sample.
fn lot(commit: &str, name: &str) -> Vec<u8> {
    Sha256::digest(format!("{commit} {name}")).to_vec()
}

/// The points that the options select.
fn chosen<'a>(prepared: &'a Prepared, list: &Explained, options: &Options) -> Vec<&'a Point> {
    let points = prepared.points.iter().filter(|point| {
        point.name.contains(&options.only)
            && !prepared.disabled.contains(&point.name)
            && !list.skips(&point.name)
    });
    let Some(sample) = options.sample else { return points.collect() };
    // Showing that an explained survivor survives takes long.
    let mut points: Vec<_> = points.filter(|point| !list.explains(&point.name)).collect();
    let git = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let commit = match git {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into(),
        _ => prepared.key.clone(),
    };
    points.sort_by_cached_key(|point| lot(&commit, &point.name));
    points.truncate(sample);
    points
}

fn list(options: &Options) -> Result<bool, Box<dyn Error>> {
    let prepared = prepare()?;
    for point in chosen(&prepared, &Explained::read(Path::new(LIST))?, options) {
        println!("{}", point.name);
    }
    Ok(true)
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let begin = Instant::now();
    let explained = Explained::read(Path::new(LIST))?;
    let prepared = prepare()?;
    let programs = compile::build(&prepared.tree)?;
    let build = Path::new(BUILD);
    let outputs = build.canonicalize()?.join("output");
    let brief = options.sample.is_some() || options.effort < Effort::Everything;
    let trials = Trials::new(&prepared.tree, programs, outputs, brief)?;
    let points = chosen(&prepared, &explained, options);
    println!(
        "{} points, {} do not compile, {} chosen; ready after {} s",
        prepared.points.len(),
        prepared.disabled.len(),
        points.len(),
        begin.elapsed().as_secs()
    );
    let results = Mutex::new(Results::open(build, &prepared.key)?);
    let end = options.seconds.map(|seconds| begin + Duration::from_secs(seconds));
    try_all(&points, &trials, &results, &explained, options, end)?;
    let results = results.into_inner().map_err(|error| error.to_string())?;
    println!("{} s", begin.elapsed().as_secs());
    Ok(report(&prepared, &points, &results, &explained, options))
}

/// Tries all points that have no result yet, until `end`: cheap trials of all points first.
fn try_all(
    points: &[&Point],
    trials: &Trials<'_>,
    results: &Mutex<Results>,
    explained: &Explained,
    options: &Options,
    end: Option<Instant>,
) -> Result<(), Box<dyn Error>> {
    let known = || results.lock().map_err(|error| error.to_string());
    for effort in Effort::ALL.into_iter().filter(|effort| *effort <= options.effort) {
        for_all(points, options.jobs, |point, worker| {
            let is_over = end.is_some_and(|end| Instant::now() > end);
            let is_explained = explained.explains(&point.name);
            if is_over || known()?.get(&point.name, is_explained).is_some() {
                return Ok(());
            }
            let hint = known()?.hint(&point.name);
            let hint = hint.as_ref().map(|(by, how)| (by.as_str(), how.as_str()));
            let verdict = match trials.put(point.id, effort, hint, worker)? {
                None if is_explained && effort == Effort::FewSeeds => Verdict::Explained,
                Some(verdict) => verdict,
                None => return Ok(()),
            };
            if verdict == Verdict::Survived {
                println!("survived: {}", point.name);
            }
            known()?.add(&point.name, verdict)
        })?;
    }
    Ok(())
}

/// Calls a function for every point, on `jobs` threads. After an error nothing more is started.
fn for_all(
    points: &[&Point],
    jobs: usize,
    work: impl Fn(&Point, &str) -> Result<(), Box<dyn Error>> + Sync,
) -> Result<(), Box<dyn Error>> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for worker in 0..jobs.max(1) {
            let (work, failed, next) = (&work, &failed, &next);
            scope.spawn(move || {
                let name = format!("worker-{worker}");
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Err(error) = work(point, &name) else { continue };
                    next.store(points.len(), Ordering::Relaxed);
                    if let Ok(mut failed) = failed.lock() {
                        *failed = Some(error.to_string());
                    }
                }
            });
        }
    });
    match failed.into_inner().map_err(|error| error.to_string())? {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Prints the results of the mutants. Returns whether all are as the list says.
fn report(
    prepared: &Prepared,
    points: &[&Point],
    results: &Results,
    explained: &Explained,
    options: &Options,
) -> bool {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for point in points {
        let is_explained = explained.explains(&point.name);
        let kind = match results.get(&point.name, is_explained) {
            None if options.effort < Effort::Everything => {
                if !is_explained {
                    println!("left: {}", point.name);
                }
                "left"
            }
            None => "not tried",
            Some(Verdict::Killed { by, .. }) => {
                if is_explained {
                    wrong.push(format!("explained, but killed: {}", point.name));
                }
                by
            }
            Some(Verdict::Survived | Verdict::Explained) if is_explained => "explained survivors",
            Some(Verdict::Survived | Verdict::Explained) => {
                wrong.push(format!("unexplained survivor: {}", point.name));
                "unexplained survivors"
            }
        };
        *counts.entry(kind).or_default() += 1;
    }
    let exists = |name: &String| {
        prepared.points.iter().any(|point| point.name == *name) && !prepared.disabled.contains(name)
    };
    let listed = explained.survivor.iter().map(|survivor| &survivor.mutant);
    let gone = listed.filter(|name| name.contains(&options.only) && !exists(name));
    wrong.extend(gone.map(|name| format!("explained, but does not exist: {name}")));
    let unused = explained.skip.iter().map(|skip| &skip.prefix).filter(|prefix| {
        !prepared.points.iter().any(|point| point.name.starts_with(prefix.as_str()))
    });
    wrong.extend(unused.map(|prefix| format!("skipped, but does not exist: {prefix}")));
    for (kind, count) in &counts {
        println!("{count:6} {kind}");
    }
    for line in &wrong {
        println!("{line}");
    }
    wrong.is_empty()
}
