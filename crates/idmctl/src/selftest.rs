//! `idmctl selftest`: whether a drive's firmware does what the library relies on.
//!
//! Each rule is a few commands on scratch mutexes, whose ids no volume group can have. The same
//! rules are run on the emulator's profiles, so what a drive does is compared with all firmware
//! that is known, without a second list of what each is expected to do.

pub mod bench;
pub mod finding;
mod report;
mod reserved;
pub mod rules;
pub mod subject;

use crate::cli::{Common, Selftest};
use crate::drives::fill;
use crate::fleet::{Drive, Fleet};
use crate::host::Host;
use crate::output::Progress;
use crate::status::print_json;
use crate::trace::{self, Recorder, Step};
use crate::{Exit, Trouble};
use bench::{Bench, LONG, is_scratch};
use finding::{Finding, Verdict};
use idm_emulator::Profile;
use idm_protocol::Record;
use lvmlockd_idm::state::host_id;
use lvmlockd_idm::tools::Probe;
use lvmlockd_idm::topology::PathAddress;
pub use report::{Circumstances, Matches, Report, RuleReport};
use rules::Rule;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fs;
use std::io::{IsTerminal, Write, stderr, stdin};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use subject::{Model, Real, Stop, Subject};

/// Records for which there must be room, and hosts.
const NEEDED_RECORDS: usize = 16;
const NEEDED_HOSTS: usize = 4;
/// A table that is so full is left alone.
const TOO_FULL_PERCENT: usize = 80;
/// The warning of a test that reserves the drive.
const RESERVES: &str = "BUT IT RESERVES THE DRIVE FOR A MOMENT: whoever writes to it then gets \
                        errors. Nobody may use the drive. ";
/// The time-out of commands that are to be given up.
const SHORTEST: Duration = Duration::from_millis(1);

/// The end of a test.
#[derive(Debug)]
pub struct Outcome {
    /// The tested rules with their results.
    pub findings: Vec<(Rule, Finding)>,
    /// The reason why the test is incomplete.
    pub stop: Option<Stop>,
}

/// Tests all rules; calls `told` before each. Returns all scratch mutexes of a rule to the drive
/// before the next rule. After [`Outcome::stop`] the caller must call [`Bench::clear`].
pub fn examine(
    bench: &mut Bench<'_>,
    with_limits: bool,
    mut told: impl FnMut(&Rule, usize, usize),
) -> Outcome {
    let mut findings = Vec::new();
    let rules = rules::all();
    let count = rules.len();
    for (at, rule) in rules.into_iter().enumerate() {
        told(&rule, at + 1, count);
        if rule.fills && !with_limits {
            let why = "the drive is in use, and this fills its table (--limits)";
            findings.push((rule, Finding::skipped(why)));
            continue;
        }
        let tested = (rule.test)(bench).and_then(|finding| bench.clear().map(|()| finding));
        match tested {
            Ok(finding) => findings.push((rule, finding)),
            Err(stop) => return Outcome { findings, stop: Some(stop) },
        }
    }
    Outcome { findings, stop: None }
}

/// Compares findings with those on each of the emulator's profiles, beside the same records of
/// others.
pub fn compare(findings: &[(Rule, Finding)], others: &[Record]) -> Matches {
    let with_limits = findings.iter().any(|(rule, finding)| rule.fills && !finding.skipped);
    let known = Profile::named().into_iter().map(|(name, profile)| {
        let mut model = Model::beside(profile, others);
        let outcome = examine(&mut Bench::new(&mut model, [0; 14]), with_limits, |_, _, _| {});
        (name, outcome.findings)
    });
    Matches::of(findings, known)
}

/// Tests a drive.
pub fn run(host: &Host, common: &Common, wanted: &Selftest) -> Result<Exit, Trouble> {
    let fleet = Fleet::of(host);
    let drive = fleet.find(host, &wanted.drive).ok_or_else(|| {
        Trouble::new("this is no drive of this host", &wanted.drive, "see `idmctl drives`")
    })?;
    let stop = Arc::new(AtomicBool::new(false));
    let second = wanted.second_path.as_ref().map(|text| path_of(drive, text)).transpose()?;
    let mut real = connect(host, drive, (common.timeout, wanted.reserve), stop.clone(), second)?;
    if wanted.reserve {
        reserved::may_be_reserved(&real, drive)?;
    }
    if !wanted.yes {
        confirm(drive, wanted.reserve)?;
    }
    // From here on a signal ends the test in order, and not the program at once.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|error| Trouble::new(error.to_string(), "signals", "report this"))?;
    }
    if wanted.reserve {
        reserved::end_earlier(&mut real, drive)?;
    }
    let mut progress = Progress::default();
    let before = prepare(&mut real, drive, &mut progress)?;
    if wanted.reserve {
        reserved::is_free(drive, &before.others)?;
    }
    let with_limits = wanted.limits || before.others.is_empty();
    let tested = test(&mut real, drive, with_limits, &mut progress);
    let (findings, steps) = tested.map_err(|trouble| {
        // It may be the reason.
        reserved::is_as_before(&real, drive, before.reservation.as_deref()).err().unwrap_or(trouble)
    })?;
    if let Some(file) = &wanted.record {
        record(file, &steps)?;
    }
    // Longer reads than the rules have would spoil the latencies.
    let latencies = std::mem::take(&mut real.latencies);
    let longest = real.longest_read();
    let report = Report::new(drive, &findings, &before, &latencies, longest);
    if report.verdict != Verdict::AsReliedOn {
        reserved::is_as_before(&real, drive, before.reservation.as_deref())?;
    }
    if common.json {
        print_json(&report)?;
    } else {
        anstream::print!("{}", report.text());
    }
    Ok(match report.verdict {
        Verdict::Unsafe => Exit::Wrong,
        Verdict::AsReliedOn | Verdict::DiffersButSafe => Exit::Good,
    })
}

/// The tested rules with their results, and the commands that were sent.
type Tested = (Vec<(Rule, Finding)>, Vec<Step>);

/// Tests all rules on a drive, and leaves nothing on it.
fn test(
    real: &mut Real,
    drive: &Drive,
    with_limits: bool,
    progress: &mut Progress,
) -> Result<Tested, Trouble> {
    let begin = Instant::now();
    let mut recorder = Recorder::new(real);
    let mut bench = Bench::new(&mut recorder, random()?);
    let outcome = examine(&mut bench, with_limits, |rule, at, count| {
        let seconds = begin.elapsed().as_secs();
        progress.say(&format!("{seconds} s: rule {at} of {count}, {}", rule.name));
    });
    let steps = recorder.steps;
    progress.done();
    let Some(stop) = outcome.stop else { return Ok((outcome.findings, steps)) };
    real.ignore_stop();
    clear(real, drive)?;
    Err(Trouble::new(stop.to_string(), &drive.name, "nothing of the test is left on the drive"))
}

/// Writes a trace.
fn record(file: &Path, steps: &[Step]) -> Result<(), Trouble> {
    let failed = |why: String| Trouble::new(why, file.display().to_string(), "name another file");
    let text = trace::format(steps).map_err(|error| failed(error.to_string()))?;
    fs::write(file, text).map_err(|error| failed(error.to_string()))
}

/// The path of the drive that is meant.
fn path_of<'d>(drive: &'d Drive, text: &str) -> Result<&'d PathAddress, Trouble> {
    let real = fs::canonicalize(text).unwrap_or_default();
    let is_it = |path: &&PathAddress| {
        path.to_string() == text || real.to_str() == Some(path.to_string().as_str())
    };
    let all: Vec<String> = drive.paths.iter().map(PathAddress::to_string).collect();
    match drive.paths.iter().find(is_it) {
        Some(path) if drive.paths.len() > 1 => Ok(path),
        _ => Err(Trouble::new(
            format!("this is no second path to {}", drive.name),
            text,
            format!("its paths are: {}", all.join(", ")),
        )),
    }
}

/// The first path by which the drive says that it has IDM. If a second path is given the test goes
/// by that one, and the commands that are cut go by another one.
fn connect(
    host: &Host,
    drive: &Drive,
    (time, reserves): (Duration, bool),
    stop: Arc<AtomicBool>,
    second: Option<&PathAddress>,
) -> Result<Real, Trouble> {
    let mut whys = Vec::new();
    let probe = |path, time| Probe::new(&drive.identity, path, &host.topology, time);
    let others = drive.paths.iter().filter(|path| Some(*path) != second);
    for path in second.into_iter().chain(others.clone()) {
        let mut real = Real::new(probe(path, time), stop.clone());
        match real.version() {
            Ok(Some(_)) if second.is_none() => return Ok(real),
            Ok(Some(_)) => {
                // A path that works, asked for the version with ample time: what is cut later must
                // not be that question.
                let works = |path: &PathAddress| {
                    let probe = Probe::new(&drive.identity, path, &host.topology, time);
                    matches!(probe.version(), Ok(Some(_)))
                };
                let other = others.clone().find(|path| works(path)).ok_or_else(|| {
                    Trouble::new("no other path to it works", &drive.name, "see `idmctl drives`")
                })?;
                let real = real.beside(probe(other, SHORTEST));
                return Ok(if reserves { real.reserving(probe(other, time)) } else { real });
            }
            Ok(None) => {
                let remedy = "nothing was sent to it that a drive without IDM does not know";
                return Err(Trouble::new("it has no IDM", &drive.name, remedy));
            }
            Err(why) if second.is_some() => {
                let remedy = "name a path that works";
                return Err(Trouble::new(why.to_string(), &drive.name, remedy));
            }
            Err(why) => whys.push(why.to_string()),
        }
    }
    Err(Trouble::new(whys.join("; "), &drive.name, "see `idmctl drives`"))
}

/// The reason why a test does not begin.
enum Refused {
    Trouble(Trouble),
    Stop(Stop),
}

impl From<Stop> for Refused {
    fn from(stop: Stop) -> Refused {
        Refused::Stop(stop)
    }
}

/// Removes what an earlier test has left, and looks whether there is room, and whether the drive
/// carries commands of this host out. Returns what was there before the test.
fn prepare(
    real: &mut Real,
    drive: &Drive,
    progress: &mut Progress,
) -> Result<Circumstances, Trouble> {
    let reservation = real.reservations().as_ref().and_then(reserved::told);
    let is_reserved = reservation.is_some();
    let others = make_room(&mut Bench::new(real, random()?), drive, is_reserved, progress);
    let stop = match others {
        Ok(others) => return Ok(Circumstances { others, reservation }),
        Err(Refused::Trouble(trouble)) => return Err(trouble),
        Err(Refused::Stop(stop)) => stop,
    };
    reserved::is_as_before(real, drive, reservation.as_deref())?;
    if stop == Stop::Interrupted {
        // It may have looked whether the drive carries commands out.
        real.ignore_stop();
        clear(real, drive)?;
    }
    Err(match stop {
        Stop::Refused => reserved::kept_out(drive, reservation.as_deref()),
        stop => Trouble::new(stop.to_string(), &drive.name, "the test has not begun"),
    })
}

/// Returns the records of others.
fn make_room(
    bench: &mut Bench<'_>,
    drive: &Drive,
    is_reserved: bool,
    progress: &mut Progress,
) -> Result<Vec<Record>, Refused> {
    let refuse =
        |what: String, remedy: &str| Refused::Trouble(Trouble::new(what, &drive.name, remedy));
    let is_live = |record: &Record| is_scratch(&record.resource) && record.state.is_live();
    let begin = bench.subject().now();
    while bench.all()?.iter().any(is_live) {
        if bench.subject().now() - begin > LONG + LONG / 10 {
            let what = "another test of this drive is running".to_owned();
            return Err(refuse(what, "wait for its end"));
        }
        let waited = (bench.subject().now() - begin).as_secs();
        progress
            .say(&format!("{waited} s: waiting for the leases of an earlier test, 10 s at most"));
        bench.subject().sleep(Duration::from_millis(100))?;
    }
    if is_reserved && reserved::refuses(bench)? {
        return Err(Stop::Refused.into());
    }
    bench.remove(|_| true)?;
    let records = bench.all()?;
    let version = bench.subject().version()?.unwrap_or_default();
    let fill = fill(version, &records);
    let [most_records, most_mutexes, most_hosts] = fill.limits;
    let room = fill.records + NEEDED_RECORDS <= most_records
        && fill.mutexes + NEEDED_RECORDS <= most_mutexes
        && fill.hosts + NEEDED_HOSTS <= most_hosts;
    if !room || fill.percent >= TOO_FULL_PERCENT {
        return Err(refuse(
            format!("its mutex table is {} % full, and a test needs room", fill.percent),
            "deactivate LVs that are not used, and try again",
        ));
    }
    // Not every reservation can be read.
    if !is_reserved && reserved::refuses(bench)? {
        return Err(Stop::Refused.into());
    }
    Ok(records)
}

fn clear(real: &mut Real, drive: &Drive) -> Result<(), Trouble> {
    // The run's own number is not known here, and no other test runs beside this one.
    Bench::new(real, random()?).remove(|_| true).map_err(|stop| {
        Trouble::new(
            format!("scratch mutexes are left on it: {stop}"),
            &drive.name,
            "they are no volume group's; the next selftest removes them",
        )
    })
}

/// A number for a test that no other test has.
fn random() -> Result<[u8; 14], Trouble> {
    let bytes = host_id::random()
        .map_err(|error| Trouble::new(error.to_string(), "/dev/urandom", "make it readable"))?;
    Ok(bytes[..14].try_into().unwrap_or_default())
}

fn confirm(drive: &Drive, reserves: bool) -> Result<(), Trouble> {
    let refuse = |what: &str| Err(Trouble::new(what, &drive.name, "give --yes to begin"));
    if !stdin().is_terminal() {
        return refuse("nobody can be asked whether the test may begin");
    }
    let _ = write!(
        stderr(),
        "This locks, breaks and removes scratch mutexes on {} ({}) for about 15 s. No data and no \
         lock of a volume group is touched. {}Begin? [y/N] ",
        drive.name,
        drive.identity,
        if reserves { RESERVES } else { "" }
    );
    let mut line = String::new();
    match stdin().read_line(&mut line) {
        Ok(_) if matches!(line.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => refuse("not begun"),
    }
}
