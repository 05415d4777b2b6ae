//! The tests of one mutant: the cheapest first, until one fails.

use crate::compile::{self, Programs};
use crate::tree::Tree;
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The simulator's worlds, with the seeds that each mutant gets in them.
const WORLDS: &[(&str, &[&str], u64)] = &[
    ("default", &[], 20_000),
    ("some-nonsense", &["--some-nonsense"], 4_000),
    ("beyond", &["--beyond"], 2_000),
    ("conflicts", &["--aim", "conflicts"], 4_000),
    ("room", &["--aim", "room"], 4_000),
    ("marks", &["--aim", "marks"], 4_000),
    ("votes", &["--aim", "votes"], 4_000),
    ("restarts", &["--aim", "restarts"], 4_000),
    ("silence", &["--aim", "silence"], 4_000),
];
/// The simulator's test that checks small worlds exhaustively.
const MODEL: &str = "model";
/// Share of the seeds that come first.
const FEW: u32 = 20;
/// Factor, compared with the original, of the processor time that a mutant may take.
const CPU_FACTOR: u32 = 10;
/// Seconds that are added to that time.
const CPU_MORE: u64 = 2;
/// Time limit of a mutant that sleeps. Other work on the machine must not look like that.
const WALL: Duration = Duration::from_secs(1800);
/// Address space of a mutant, in KiB.
const MEMORY: &str = "2000000";
/// Signals that end a process at its limit.
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
/// Interval at which a child is checked.
const POLL: Duration = Duration::from_millis(5);

/// Result of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A test failed.
    Killed {
        /// Name of the tests, the simulator's world or the model check.
        by: String,
        /// The test or seed that failed, or another way in which the process ended.
        how: String,
    },
    /// No test failed.
    Survived,
    /// The tests and the first seeds passed, and the list explains why: no more was tried.
    Explained,
}

/// Amount of testing that a mutant gets before the next one has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effort {
    /// The engine's tests, which take almost no time.
    Tests,
    /// The first seeds of each world.
    FewSeeds,
    /// All seeds, and the model check.
    Everything,
}

impl Effort {
    /// All of them, the smallest first.
    pub(crate) const ALL: [Effort; 3] = [Effort::Tests, Effort::FewSeeds, Effort::Everything];
}

impl FromStr for Effort {
    type Err = String;

    fn from_str(word: &str) -> Result<Effort, String> {
        match word {
            "tests" => Ok(Effort::Tests),
            "seeds" => Ok(Effort::FewSeeds),
            "all" => Ok(Effort::Everything),
            _ => Err(format!("{word} is none of tests, seeds, all")),
        }
    }
}

/// A set of tests that runs at once.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Test(usize),
    World { index: usize, from: u64, seeds: u64 },
    Model,
}

impl Stage {
    /// The same stage with a `share`th of the seeds.
    fn part(self, share: u32) -> Stage {
        match self {
            Stage::World { index, from, seeds } => {
                Stage::World { index, from, seeds: seeds / u64::from(share) }
            }
            other => other,
        }
    }

    /// The remaining share after [`part`](Stage::part).
    fn share(self, share: u32) -> u32 {
        if matches!(self, Stage::World { .. }) { share } else { 1 }
    }
}

/// The simulator's worlds, with a `share`th of their seeds.
fn worlds(share: u32) -> impl Iterator<Item = Stage> {
    let all = WORLDS.iter().enumerate();
    all.map(move |(index, (_, _, seeds))| {
        Stage::World { index, from: 0, seeds: *seeds }.part(share)
    })
}

/// The single seed that killed a mutant last time.
fn seed_of(by: &str, how: &str) -> Option<Stage> {
    let index = WORLDS.iter().position(|(name, ..)| *name == by)?;
    let from = how.strip_prefix("seed ")?.split(':').next()?.parse().ok()?;
    Some(Stage::World { index, from, seeds: 1 })
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Test(_) => f.write_str("tests"),
            Stage::World { index, .. } => f.write_str(WORLDS[*index].0),
            Stage::Model => f.write_str(MODEL),
        }
    }
}

/// Tests for mutants.
pub(crate) struct Trials<'a> {
    tree: &'a Tree,
    programs: Programs,
    model: OnceLock<Result<PathBuf, String>>,
    /// Time that each of the engine's tests, and then each world, takes with the original.
    takes: Vec<Duration>,
    model_takes: OnceLock<Result<Duration, String>>,
    outputs: PathBuf,
}

impl<'a> Trials<'a> {
    /// Runs the tests with the original, which must pass them. With `brief` only a part of the
    /// seeds is tried.
    pub(crate) fn new(
        tree: &'a Tree,
        programs: Programs,
        outputs: PathBuf,
        brief: bool,
    ) -> Result<Trials<'a>, Box<dyn Error>> {
        fs::create_dir_all(&outputs)?;
        let mut trials = Trials {
            tree,
            programs,
            model: OnceLock::new(),
            takes: Vec::new(),
            model_takes: OnceLock::new(),
            outputs,
        };
        for stage in trials.stages(Effort::Tests).into_iter().chain(worlds(1)) {
            let part = if brief { stage.part(FEW) } else { stage };
            let begin = Instant::now();
            if let Some(how) = trials.run(part, 0, None, "original")? {
                return Err(format!("without any mutant, {stage} fails: {how}").into());
            }
            let takes = begin.elapsed();
            trials.takes.push(if brief { takes * stage.share(FEW) } else { takes });
        }
        Ok(trials)
    }

    /// Runs some tests with one mutant; `None` if it survives them and there are more. `last` is
    /// the test that killed it last time.
    pub(crate) fn put(
        &self,
        id: u32,
        effort: Effort,
        last: Option<(&str, &str)>,
        worker: &str,
    ) -> Result<Option<Verdict>, Box<dyn Error>> {
        let mut stages = self.stages(effort);
        if effort == Effort::FewSeeds {
            stages.splice(0..0, last.and_then(|(by, how)| seed_of(by, how)));
        }
        for stage in stages {
            if let Some(how) = self.run(stage, id, Some(self.takes(stage)?), worker)? {
                return Ok(Some(Verdict::Killed { by: stage.to_string(), how }));
            }
        }
        Ok((effort == Effort::Everything).then_some(Verdict::Survived))
    }

    fn stages(&self, effort: Effort) -> Vec<Stage> {
        match effort {
            Effort::Tests => {
                let mut tests: Vec<usize> = (0..self.programs.tests.len()).collect();
                // The quickest first, when their times are known.
                tests.sort_by_key(|&at| self.takes.get(at));
                tests.into_iter().map(Stage::Test).collect()
            }
            Effort::FewSeeds => worlds(FEW).collect(),
            Effort::Everything => worlds(1).chain([Stage::Model]).collect(),
        }
    }

    /// The time that a stage takes with the original.
    fn takes(&self, stage: Stage) -> Result<Duration, Box<dyn Error>> {
        let tests = self.programs.tests.len();
        Ok(match stage {
            Stage::Test(at) => self.takes[at],
            Stage::World { index, seeds, .. } => {
                let share = WORLDS[index].2 / seeds;
                self.takes[tests + index] / u32::try_from(share)?
            }
            Stage::Model => {
                let measure = || {
                    let begin = Instant::now();
                    let how = self.run(Stage::Model, 0, None, "original-model");
                    match how.map_err(|error| error.to_string())? {
                        None => Ok(begin.elapsed()),
                        Some(how) => {
                            Err(format!("without any mutant, the model check fails: {how}"))
                        }
                    }
                };
                self.model_takes.get_or_init(measure).clone()?
            }
        })
    }

    /// Runs a set of tests with a mutant. Returns how it failed; `takes` limits its time.
    fn run(
        &self,
        stage: Stage,
        id: u32,
        takes: Option<Duration>,
        worker: &str,
    ) -> Result<Option<String>, Box<dyn Error>> {
        let (program, arguments) = self.command(stage)?;
        let path = self.outputs.join(worker);
        let limit = takes.map(|takes| (takes * CPU_FACTOR).as_secs() + CPU_MORE);
        let limit_text = limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -t \"$1\" && ulimit -v \"$2\" && shift 2 && exec \"$@\"", "sh"])
            .args([&limit_text, MEMORY])
            .arg(program)
            .args(arguments)
            .env("IDM_MUTANT", id.to_string())
            .env("RUST_BACKTRACE", "0")
            .current_dir(&self.tree.root)
            .stdin(Stdio::null())
            .stdout(File::create(&path)?)
            .stderr(Stdio::null())
            .spawn()?;
        let Some(status) = wait(&mut child, WALL)? else {
            return Ok(Some("does not end in time".into()));
        };
        if status.success() { Ok(None) } else { Ok(Some(failure(&path, status)?)) }
    }

    fn command(&self, stage: Stage) -> Result<(&Path, Vec<String>), Box<dyn Error>> {
        let one_thread = || vec!["--test-threads".to_owned(), "1".to_owned()];
        Ok(match stage {
            Stage::Test(at) => (&self.programs.tests[at], one_thread()),
            Stage::World { index, from, seeds } => {
                let numbers = format!("run --jobs 1 --failures 1 --from {from} --seeds {seeds}");
                let world = WORLDS[index].1.iter().map(|option| option.to_string());
                let arguments = numbers.split(' ').map(str::to_owned).chain(world).collect();
                (&self.programs.simulator, arguments)
            }
            Stage::Model => {
                let build = || compile::build_test(self.tree, MODEL).map_err(|e| e.to_string());
                let model = self.model.get_or_init(build).as_ref().map_err(Clone::clone)?;
                (model, one_thread())
            }
        })
    }
}

/// Waits for the end of a child; `None` if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// The failure in the output of a test program: the first seed or test that failed.
fn failure(output: &Path, status: ExitStatus) -> Result<String, Box<dyn Error>> {
    // The limit of processor time ends it in this way.
    if status.signal().is_some_and(|signal| [SIGKILL, SIGXCPU].contains(&signal)) {
        return Ok("does not end in time".into());
    }
    let output = String::from_utf8_lossy(&fs::read(output)?).into_owned();
    let failed = output.lines().find_map(|line| {
        let test = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED"));
        test.or_else(|| line.starts_with("seed ").then_some(line))
    });
    Ok(failed.map_or_else(|| status.to_string(), |line| line.chars().take(160).collect()))
}
