//! The report of a test.

use super::finding::{Finding, Verdict};
use super::rules::Rule;
use super::subject::MANY_BLOCKS;
use crate::fleet::Drive;
use crate::output::{ALARM, GOOD, WARNING, styled, table};
use idm_protocol::Record;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A step that only SCSI drives have.
const SCSI_ONLY: &str = "form of sense data";

/// A rule, and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// The rule's name.
    pub rule: &'static str,
    /// The heading in docs/protocol.md.
    pub heading: &'static str,
    /// The demand on the drive.
    pub says: &'static str,
    /// The result.
    #[serde(flatten)]
    pub finding: Finding,
}

/// A rule, the drive's behaviour and a profile's behaviour.
type Difference = (&'static str, String, String);

/// The profiles that a drive was compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matches {
    /// Those from which it does not differ in any test.
    pub exact: Vec<&'static str>,
    /// The most similar one, where none is the same.
    pub nearest: Option<&'static str>,
    /// The differences from the nearest profile.
    pub differences: Vec<Difference>,
}

/// The latencies of one command, in us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The command.
    pub command: &'static str,
    /// The number of commands.
    pub count: usize,
    /// The median: half of them took no longer.
    pub median_us: u64,
    /// The 99th percentile: 99 % took no longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// The report of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The drive's name.
    pub drive: String,
    /// Its identity.
    pub identity: String,
    /// The worst of all rules.
    pub verdict: Verdict,
    /// The known firmware that does the same.
    pub profile: Matches,
    /// The reservation of its data, in words.
    pub reservation: Option<String>,
    /// The rules.
    pub rules: Vec<RuleReport>,
    /// The latencies of commands.
    pub latencies: Vec<Latency>,
    /// The most records that one read by this path moves, of powers of 2 up to 1024.
    pub longest_read: u32,
}

impl Matches {
    /// Compares findings with those on known firmware.
    pub fn of(
        findings: &[(Rule, Finding)],
        known: impl Iterator<Item = (&'static str, Vec<(Rule, Finding)>)>,
    ) -> Matches {
        let is_scsi = findings.iter().any(|(_, it)| it.seen.iter().any(|it| has_form(it)));
        let mut exact = Vec::new();
        let mut nearest: Option<(&'static str, Vec<Difference>)> = None;
        for (name, expected) in known {
            let differences = differences(findings, &expected, is_scsi);
            if differences.is_empty() {
                exact.push(name);
            }
            if nearest.as_ref().is_none_or(|(_, fewest)| differences.len() < fewest.len()) {
                nearest = Some((name, differences));
            }
        }
        match nearest {
            Some((name, differences)) if exact.is_empty() => {
                Matches { exact, nearest: Some(name), differences }
            }
            _ => Matches { exact, nearest: None, differences: Vec::new() },
        }
    }
}

fn has_form(step: &str) -> bool {
    step.starts_with(SCSI_ONLY)
}

/// The rules whose findings are not the same.
fn differences(
    findings: &[(Rule, Finding)],
    expected: &[(Rule, Finding)],
    is_scsi: bool,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    for ((rule, found), (_, known)) in findings.iter().zip(expected) {
        if found.skipped || known.skipped {
            continue;
        }
        let seen = |finding: &Finding| -> Vec<String> {
            finding.seen.iter().filter(|step| is_scsi || !has_form(step)).cloned().collect()
        };
        let (found, known) = (seen(found), seen(known));
        if found != known {
            let only = |one: &[String], other: &[String]| {
                let steps = one.iter().filter(|step| !other.contains(step));
                steps.cloned().collect::<Vec<_>>().join("; ")
            };
            differences.push((rule.name, only(&found, &known), only(&known, &found)));
        }
    }
    differences
}

/// The state of the drive before the test.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Records of others.
    pub others: Vec<Record>,
    /// The reservation of its data, in words.
    pub reservation: Option<String>,
}

impl Report {
    /// The report on a drive.
    pub fn new(
        drive: &Drive,
        findings: &[(Rule, Finding)],
        before: &Circumstances,
        latencies: &BTreeMap<&'static str, Vec<Duration>>,
        longest_read: u32,
    ) -> Report {
        let rule = |(rule, finding): &(Rule, Finding)| RuleReport {
            rule: rule.name,
            heading: rule.heading,
            says: rule.says,
            finding: finding.clone(),
        };
        let verdicts = findings.iter().map(|(_, finding)| finding.verdict);
        Report {
            drive: drive.name.clone(),
            identity: drive.identity.clone(),
            verdict: verdicts.max().unwrap_or(Verdict::AsReliedOn),
            profile: super::compare(findings, &before.others),
            reservation: before.reservation.clone(),
            rules: findings.iter().map(rule).collect(),
            latencies: latencies.iter().map(|(command, times)| latency(command, times)).collect(),
            longest_read,
        }
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let mut text = self.rules_text();
        text.push('\n');
        let ms = |us: u64| format!("{:.2} ms", us as f64 / 1000.0);
        let row = |it: &Latency| {
            vec![
                it.command.to_owned(),
                it.count.to_string(),
                ms(it.median_us),
                ms(it.p99_us),
                ms(it.max_us),
            ]
        };
        let rows: Vec<Vec<String>> = self.latencies.iter().map(row).collect();
        text.push_str(&table(&["COMMAND", "COUNT", "MEDIAN", "99 %", "LONGEST"], &rows));
        text.push_str(&match self.longest_read {
            MANY_BLOCKS => format!("One read of the table moves {MANY_BLOCKS} records or more.\n"),
            most => format!(
                "One read of the table moves {most} records, but not {}.\n",
                (2 * most).max(1)
            ),
        });
        text.push('\n');
        text.push_str(&self.conclusion());
        text
    }

    fn rules_text(&self) -> String {
        let row = |it: &RuleReport| {
            let verdict = match it.finding.verdict {
                _ if it.finding.skipped => "not tested",
                Verdict::AsReliedOn => "as relied on",
                Verdict::DiffersButSafe => "differs but safe",
                Verdict::Unsafe => "UNSAFE",
            };
            vec![it.rule.to_owned(), verdict.to_owned(), it.says.to_owned()]
        };
        let rows: Vec<Vec<String>> = self.rules.iter().map(row).collect();
        let mut text = table(&["RULE", "VERDICT", "WHAT THE DRIVE HAS TO DO"], &rows);
        for it in self.rules.iter().filter(|it| !it.finding.differs.is_empty()) {
            let style = if it.finding.verdict == Verdict::Unsafe { ALARM } else { WARNING };
            let differs = it.finding.differs.join("; ");
            let heading = it.heading;
            text.push_str(&format!(
                "{} {}: {differs} (docs/protocol.md, \"{heading}\")\n",
                styled(style, "*"),
                it.rule
            ));
        }
        for it in self.rules.iter().filter(|it| it.finding.skipped) {
            text.push_str(&format!("* {}: {}\n", it.rule, it.finding.seen.join("; ")));
        }
        if let Some(reservation) = &self.reservation {
            text.push_str(&format!(
                "* its data is reserved ({reservation}), and it carries this host's mutex commands \
                 out all the same\n"
            ));
        }
        text
    }

    fn conclusion(&self) -> String {
        let name = &self.drive;
        let mut text = match self.verdict {
            Verdict::AsReliedOn => {
                styled(GOOD, &format!("{name} does what the library relies on."))
            }
            Verdict::DiffersButSafe => styled(
                WARNING,
                &format!("{name} differs from what the library relies on; locks stay safe."),
            ),
            Verdict::Unsafe => {
                styled(ALARM, &format!("{name} must not be used for locks: see what is UNSAFE."))
            }
        };
        text.push('\n');
        match (self.profile.exact.as_slice(), self.profile.nearest) {
            ([], Some(nearest)) => {
                text.push_str(&format!(
                    "No known firmware does the same. The nearest is {nearest}:\n"
                ));
                for (rule, found, known) in &self.profile.differences {
                    text.push_str(&format!("  {rule}: {found} (in place of: {known})\n"));
                }
            }
            (exact, _) => {
                text.push_str(&format!("Firmware profile: {}\n", exact.join(" or ")));
            }
        }
        text
    }
}

fn latency(command: &'static str, times: &[Duration]) -> Latency {
    let mut us: Vec<u64> = times.iter().map(|time| time.as_micros() as u64).collect();
    us.sort_unstable();
    let at = |percent: usize| us.get((us.len() * percent / 100).min(us.len().max(1) - 1)).copied();
    Latency {
        command,
        count: us.len(),
        median_us: at(50).unwrap_or_default(),
        p99_us: at(99).unwrap_or_default(),
        max_us: us.last().copied().unwrap_or_default(),
    }
}
