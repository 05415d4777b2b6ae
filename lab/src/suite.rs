//! All of lvm2's own tests, each with local locks and with lock type idm on the same machine.
//!
//! Each result is a file, so a run continues where an earlier one was ended.

use crate::cluster::{Cluster, LARGE_MIB};
use crate::files::Files;
use crate::interfaces::Interfaces;
use crate::machine::Daemon;
use crate::transcript::Transcript;
use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Time limit of a script by default. Most take less than a minute under emulation.
const PATIENCE: Duration = Duration::from_secs(900);
/// The exit status of a script that was skipped.
const SKIPPED: i32 = 200;
/// The longest reason in the table, in characters.
const REASON: usize = 160;

/// Selection of scripts.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Debian version of lvm2.
    pub release: String,
    /// Names without `.sh`; a name that ends with `*` is a prefix. Empty: all.
    pub names: Vec<String>,
    /// Number of this shard, from 0, and number of shards.
    pub shard: Option<(usize, usize)>,
    /// Machines at a time.
    pub jobs: usize,
    /// Time limit of a script.
    pub patience: Duration,
}

impl Selection {
    /// Reads the release and the rest of the command line.
    pub fn read(mut parser: lexopt::Parser) -> Result<Selection> {
        let release = parser.value()?.string()?;
        let mut selection =
            Selection { release, jobs: 1, patience: PATIENCE, ..Selection::default() };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("jobs") => selection.jobs = parser.value()?.parse()?,
                Long("shard") => selection.shard = Some(parse_shard(&parser.value()?.string()?)?),
                Long("patience") => {
                    selection.patience = Duration::from_secs(parser.value()?.parse()?);
                }
                Value(name) => selection.names.push(name.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(selection)
    }
}

/// A shard as the command line has it: `1/4` is the first of four.
fn parse_shard(text: &str) -> Result<(usize, usize)> {
    let numbers = text.split_once('/').and_then(|(shard, shards)| {
        Some((shard.parse::<usize>().ok()?.checked_sub(1)?, shards.parse().ok()?))
    });
    match numbers {
        Some((shard, shards)) if shard < shards => Ok((shard, shards)),
        _ => bail!("{text:?} is no shard; the first of four is 1/4"),
    }
}

/// A way of locking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Locking {
    Local,
    Idm,
}

impl Locking {
    const BOTH: [Locking; 2] = [Locking::Local, Locking::Idm];

    /// The flavour, as lvm2's tests call it.
    fn flavour(self) -> &'static str {
        match self {
            Locking::Local => "udev-vanilla",
            Locking::Idm => "udev-lvmlockd-idm",
        }
    }
}

/// Result of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Result of a script with one way of locking.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    outcome: Outcome,
    seconds: u64,
    /// The line of the script at which it ended, and lvm's message.
    reason: String,
}

impl Verdict {
    fn text(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
        };
        format!("{outcome} {}\n{}\n", self.seconds, self.reason)
    }

    fn parse(text: &str) -> Option<Verdict> {
        let (first, reason) = text.split_once('\n')?;
        let (outcome, seconds) = first.split_once(' ')?;
        let outcome = match outcome {
            "passed" => Outcome::Passed,
            "failed" => Outcome::Failed,
            "skipped" => Outcome::Skipped,
            _ => return None,
        };
        Some(Verdict { outcome, seconds: seconds.parse().ok()?, reason: reason.trim().to_owned() })
    }
}

/// Directories of a run.
struct Suite {
    files: Files,
    /// The scripts.
    tests: PathBuf,
    /// The results.
    results: PathBuf,
    patience: Duration,
}

/// Runs the selected scripts that have no result yet, and writes the table of all results.
pub fn run(selection: &Selection) -> Result<()> {
    let files = Files::find()?.with_lvm2(&selection.release)?;
    let suite = Suite {
        tests: files.lvm2_tests.clone(),
        results: files.project.join("build/lab/lvm2-results").join(&selection.release),
        patience: selection.patience,
        files,
    };
    for locking in Locking::BOTH {
        fs::create_dir_all(suite.results.join(locking.flavour()))?;
    }
    let all = suite.scripts()?;
    let mut chosen = select(&all, selection);
    ensure!(!chosen.is_empty(), "no script is selected");
    chosen.reverse();
    let left = Mutex::new(chosen);
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..selection.jobs.max(1))
            .map(|number| {
                let (suite, next) = (&suite, &next);
                scope.spawn(move || suite.work(number, next))
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    let table = table(&selection.release, &all, &suite.verdicts(&all));
    // Not `with_extension`, because a release has dots.
    let file = suite.results.with_file_name(format!("{}.md", selection.release));
    fs::write(&file, &table)?;
    println!("{}\nthe table is in {}", table.lines().next().unwrap_or_default(), file.display());
    Ok(())
}

/// The selected ones of all scripts.
fn select(all: &[String], selection: &Selection) -> Vec<String> {
    let named = |name: &String| {
        selection.names.is_empty()
            || selection.names.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(begin) => name.starts_with(begin),
                None => name == wanted,
            })
    };
    let (shard, shards) = selection.shard.unwrap_or((0, 1));
    let mut chosen: Vec<String> = all.iter().filter(|name| named(name)).cloned().collect();
    let mut number = 0;
    chosen.retain(|_| {
        number += 1;
        (number - 1) % shards == shard
    });
    chosen
}

impl Suite {
    /// The names of all scripts. Those that start and stop the lock managers are left out.
    fn scripts(&self) -> Result<Vec<String>> {
        let dir = self.tests.join("shell");
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let Some(name) = name.strip_suffix(".sh") else { continue };
            if !name.starts_with("aa-lvmlockd-") && !name.starts_with("zz-lvmlockd-") {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn result_file(&self, locking: Locking, name: &str) -> PathBuf {
        self.results.join(locking.flavour()).join(format!("{name}.result"))
    }

    fn verdict(&self, locking: Locking, name: &str) -> Option<Verdict> {
        Verdict::parse(&fs::read_to_string(self.result_file(locking, name)).ok()?)
    }

    fn verdicts(&self, names: &[String]) -> BTreeMap<String, [Option<Verdict>; 2]> {
        let both = |name: &String| Locking::BOTH.map(|locking| self.verdict(locking, name));
        names.iter().map(|name| (name.clone(), both(name))).collect()
    }

    /// Runs scripts until there are no more. A machine is used again only after a script that was
    /// skipped: others may leave something behind.
    fn work(&self, worker: usize, next: &impl Fn() -> Option<String>) -> Result<()> {
        let mut machine: Option<Cluster> = None;
        while let Some(name) = next() {
            for locking in Locking::BOTH {
                if self.verdict(locking, &name).is_some() {
                    continue;
                }
                let cluster = match machine.take() {
                    Some(cluster) => cluster,
                    None => self.machine(worker)?,
                };
                let verdict = self.attempt(&cluster, locking, &name)?;
                let seconds = verdict.seconds;
                println!("{name} {}: {}", locking.flavour(), verdict.text().replace('\n', " "));
                if verdict.outcome == Outcome::Skipped && seconds < 60 {
                    machine = Some(cluster);
                }
            }
        }
        Ok(())
    }

    /// Boots a machine with new drives. lvmlockd runs with both ways of locking.
    fn machine(&self, worker: usize) -> Result<Cluster> {
        let dir = self.files.scenario_dir(&format!("lvm2-suite-{worker}"))?;
        let transcript = Transcript::begin(None);
        let mut cluster =
            Cluster::with_size(&self.files, Interfaces::Scsi, LARGE_MIB, &dir, transcript)?;
        cluster.boot("a")?;
        let host = cluster.host_mut("a")?;
        // The tests kill and drop VGs themselves.
        host.quiet("sed -i /lvmlockctl_kill_command/d /etc/lvm/lvm.conf && modprobe sg")?;
        host.start_lvmlockd(&Daemon::default())?;
        Ok(cluster)
    }

    /// Runs a script, and keeps its output and result.
    fn attempt(&self, cluster: &Cluster, locking: Locking, name: &str) -> Result<Verdict> {
        let host = cluster.host("a")?;
        let tests = self.tests.display();
        let devices = host.data_partitions()?.replace(' ', ",");
        let command = format!(
            "cd {tests} && PATH={tests}/shims:{tests}/lib:$PATH LVM_TEST_NODEBUG=1 \
             LVM_TEST_FLAVOUR={} LVM_TEST_DIR=/tmp LVM_TEST_BACKING_DEVICE={devices} \
             LVM_VERIFY_UDEV=1 exec bash shell/{name}.sh </dev/null",
            locking.flavour()
        );
        let log = format!("{name}.{}.log", locking.flavour());
        let begin = Instant::now();
        let job = host.start_logged(&command, &log)?;
        let ended = host.wait(job, self.patience);
        let text = host.read_log(&log);
        let script = fs::read_to_string(self.tests.join("shell").join(format!("{name}.sh")))?;
        let (outcome, reason) = match ended {
            Ok(_) if !host.lvmlockd_runs() => (Outcome::Failed, "lvmlockd has ended".to_owned()),
            Ok(ended) if ended.code == 0 => (Outcome::Passed, String::new()),
            Ok(ended) if ended.code == SKIPPED => (Outcome::Skipped, why_skipped(&text, &script)),
            Ok(_) => (Outcome::Failed, why_failed(&text, &script)),
            Err(error) => (Outcome::Failed, format!("{error}; {}", last_command(&text))),
        };
        let verdict = Verdict { outcome, seconds: begin.elapsed().as_secs(), reason };
        let result = self.result_file(locking, name);
        fs::write(result.with_extension("log"), text)?;
        if outcome == Outcome::Failed && locking == Locking::Idm {
            fs::write(result.with_extension("lvmlockd"), host.lvmlockd_log())?;
        }
        fs::write(result, verdict.text())?;
        Ok(verdict)
    }
}

/// The number and text of the line at which a script ended; its own trap has printed the number.
fn last_line<'a>(log: &str, script: &'a str) -> Option<(usize, &'a str)> {
    let trap = log.lines().rev().find(|line| line.starts_with("## - ") && line.contains(".sh:"))?;
    let number: usize = trap.rsplit_once(':')?.1.trim().parse().ok()?;
    Some((number, script.lines().nth(number.checked_sub(1)?)?.trim()))
}

/// The last command that bash has traced.
fn last_command(log: &str) -> String {
    let line = log.lines().rev().find(|line| line.starts_with('#') && line.contains(".sh:"));
    shorten(&format!("at {}", line.unwrap_or("its beginning")))
}

fn why_skipped(log: &str, script: &str) -> String {
    if let Some((_, said)) = log.split_once("TEST SKIPPED:") {
        return shorten(said.lines().next().unwrap_or_default().trim());
    }
    match last_line(log, script) {
        Some((number, line)) => shorten(&format!("line {number}: {line}")),
        None if script.contains("\nSKIP_WITH_LVMLOCKD=1") => "SKIP_WITH_LVMLOCKD".to_owned(),
        None => "before it began".to_owned(),
    }
}

fn why_failed(log: &str, script: &str) -> String {
    let Some((number, line)) = last_line(log, script) else {
        return shorten(&format!("no line; {}", last_command(log)));
    };
    // The output before the trap, without bash's trace.
    let said = log
        .lines()
        .take_while(|line| !line.starts_with("## - "))
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .last()
        .unwrap_or_default();
    shorten(&format!("line {number}: {line} -- {}", said.trim()))
}

/// The text as a cell of a table.
fn shorten(text: &str) -> String {
    text.replace('|', "¦").chars().take(REASON).collect()
}

/// The table of all results, as Markdown.
fn table(
    release: &str,
    names: &[String],
    verdicts: &BTreeMap<String, [Option<Verdict>; 2]>,
) -> String {
    let mut classes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in names {
        let Some([local, idm]) = verdicts.get(name) else { continue };
        let (class, reason) = class(local.as_ref(), idm.as_ref());
        classes.entry(class).or_default().push(format!("| `{name}` | {reason} |\n"));
    }
    let count = |class: &str| classes.get(class).map_or(0, Vec::len);
    let counts: Vec<String> =
        CLASSES.iter().map(|class| format!("{class}: {}", count(class))).collect();
    let mut text = format!("lvm2 {release}, {} scripts: {}\n", names.len(), counts.join("; "));
    for class in CLASSES {
        let rows = classes.get(class).map(|rows| rows.concat()).unwrap_or_default();
        let _ = write!(text, "\n## {class}\n\n| script | reason |\n|---|---|\n{rows}");
    }
    text
}

/// The kinds of results, in the order of the table.
const CLASSES: [&str; 10] = [
    "passes with both",
    "passes with local locks, fails with idm",
    "fails with local locks, passes with idm",
    "fails with both",
    "passes with local locks, skipped with idm",
    "fails with local locks, skipped with idm",
    "skipped with local locks, passes with idm",
    "skipped with local locks, fails with idm",
    "skipped with both",
    "not run",
];

/// The kind of a script's results, and their reason.
fn class(local: Option<&Verdict>, idm: Option<&Verdict>) -> (&'static str, String) {
    let (Some(local), Some(idm)) = (local, idm) else {
        return (CLASSES[9], String::new());
    };
    match (local.outcome, idm.outcome) {
        (Outcome::Passed, Outcome::Passed) => {
            (CLASSES[0], format!("{} s, {} s", local.seconds, idm.seconds))
        }
        (Outcome::Passed, Outcome::Failed) => (CLASSES[1], idm.reason.clone()),
        (Outcome::Failed, Outcome::Passed) => (CLASSES[2], local.reason.clone()),
        (Outcome::Failed, Outcome::Failed) if local.reason == idm.reason => {
            (CLASSES[3], local.reason.clone())
        }
        (Outcome::Failed, Outcome::Failed) => {
            (CLASSES[3], format!("{}; with idm: {}", local.reason, idm.reason))
        }
        (Outcome::Passed, Outcome::Skipped) => (CLASSES[4], idm.reason.clone()),
        (Outcome::Failed, Outcome::Skipped) => {
            (CLASSES[5], format!("{}; skipped: {}", local.reason, idm.reason))
        }
        (Outcome::Skipped, Outcome::Passed) => (CLASSES[6], local.reason.clone()),
        (Outcome::Skipped, Outcome::Failed) => {
            (CLASSES[7], format!("{}; skipped: {}", idm.reason, local.reason))
        }
        (Outcome::Skipped, Outcome::Skipped) => (CLASSES[8], local.reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "#!/bin/bash\n. lib/inittest\naux have_vdo 6 2 0 || skip\nvgcreate a\n";

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let reason = "line 4: vgcreate a".to_owned();
        let verdict = Verdict { outcome: Outcome::Failed, seconds: 12, reason };
        assert_eq!(Verdict::parse(&verdict.text()), Some(verdict));
        assert_eq!(Verdict::parse("half a "), None);
    }

    #[test]
    fn reasons_name_the_line_of_the_script() {
        let log = "#x.sh:4+ vgcreate a\n  LV locked by other host\n## - shell/x.sh:4\n";
        assert_eq!(why_failed(log, SCRIPT), "line 4: vgcreate a -- LV locked by other host");
        let log = "## - shell/x.sh:3\n";
        assert_eq!(why_skipped(log, SCRIPT), "line 3: aux have_vdo 6 2 0 ¦¦ skip");
        assert_eq!(why_skipped("", "\nSKIP_WITH_LVMLOCKD=1\n"), "SKIP_WITH_LVMLOCKD");
        assert_eq!(why_skipped("TEST SKIPPED: no room\n", SCRIPT), "no room");
    }

    #[test]
    fn shards_are_counted_from_one() {
        assert_eq!(parse_shard("1/4").unwrap(), (0, 4));
        assert_eq!(parse_shard("4/4").unwrap(), (3, 4));
        for wrong in ["0/4", "5/4", "4", "a/b", "1/0"] {
            assert!(parse_shard(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_script_is_in_one_shard() {
        let all: Vec<String> = ["a1", "a2", "b1", "b2", "b3"].map(str::to_owned).into();
        let of = |shard| {
            let names = vec!["b*".to_owned(), "a2".to_owned()];
            let shard = Some((shard, 2));
            select(&all, &Selection { names, shard, ..Selection::default() })
        };
        assert_eq!(of(0), ["a2", "b2"]);
        assert_eq!(of(1), ["b1", "b3"]);
    }

    #[test]
    fn what_fails_only_with_idm_is_a_class_of_its_own() {
        let verdict = |outcome| Verdict { outcome, seconds: 1, reason: "why".to_owned() };
        let (passed, failed) = (verdict(Outcome::Passed), verdict(Outcome::Failed));
        assert_eq!(class(Some(&passed), Some(&failed)).0, CLASSES[1]);
        assert_eq!(class(Some(&failed), Some(&failed)), (CLASSES[3], "why".to_owned()));
        assert_eq!(class(Some(&passed), None).0, CLASSES[9]);
        let skipped = verdict(Outcome::Skipped);
        assert_eq!(class(Some(&skipped), Some(&failed)).0, CLASSES[7]);
    }
}
