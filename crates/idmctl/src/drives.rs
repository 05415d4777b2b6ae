//! `idmctl drives`.

use crate::cli::Common;
use crate::fleet::{Asked, Drive, Fleet, PathAnswer, ask};
use crate::host::Host;
use crate::output::{GOOD, Progress, WARNING, styled, table};
use crate::status::{chosen, print_json};
use crate::{Exit, Trouble};
use idm_emulator::Profile;
use idm_engine::{acquire_quorum, keep_quorum};
use idm_protocol::Record;
use serde::Serialize;
use std::collections::BTreeSet;

/// Fill level, in percent, from which the report names a table.
const NEARLY_FULL_PERCENT: usize = 80;

/// A path to a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathView {
    /// The device node or socket.
    pub path: String,
    /// The error; `None` if the path works.
    pub trouble: Option<String>,
}

/// The fill level of a drive's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fill {
    /// Records: pairs of a mutex and a host.
    pub records: usize,
    /// Mutexes.
    pub mutexes: usize,
    /// Hosts.
    pub hosts: usize,
    /// The limits of firmware of that version, as far as they are known: of records, mutexes and
    /// hosts.
    pub limits: [usize; 3],
    /// The fullest of the three in percent.
    pub percent: usize,
}

/// A drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DriveReport {
    /// Its name.
    pub name: String,
    /// Its identity, the same on every host.
    pub identity: String,
    /// Its major IDM version; 0 where it has no IDM, `None` where it does not answer.
    pub version: Option<u8>,
    /// The fill level of its table.
    pub fill: Option<Fill>,
    /// Its paths.
    pub paths: Vec<PathView>,
    /// Whether it carries the global lock.
    pub global: bool,
    /// The VGs that are started here and have a PV on it.
    pub vgs: Vec<String>,
}

/// The drives of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The drives.
    pub drives: Vec<DriveReport>,
    /// Obstacles to the use of the drives, as sentences.
    pub obstacles: Vec<String>,
}

/// Asks the drives and shows them.
pub fn run(host: &Host, common: &Common) -> Result<Exit, Trouble> {
    let fleet = chosen(host, &[])?;
    let mut progress = Progress::default();
    let asked = ask(&host.topology, &fleet.drives, common.timeout, true, &mut progress);
    let report = report(host, &fleet, &asked);
    if common.json {
        print_json(&report)?;
    } else {
        anstream::print!("{}", text(&report));
    }
    Ok(if !report.obstacles.is_empty() {
        Exit::Wrong
    } else if report.drives.iter().any(|drive| drive.version.is_none()) {
        Exit::Silent
    } else {
        Exit::Good
    })
}

/// The report on the drives' answers.
pub fn report(host: &Host, fleet: &Fleet, asked: &[Asked]) -> Report {
    let drives: Vec<DriveReport> =
        fleet.drives.iter().zip(asked).map(|(drive, asked)| of(host, drive, asked)).collect();
    let mut obstacles = Vec::new();
    if let Err(why) = &host.config {
        obstacles.push(format!("lvmlockd uses no IDM with a broken configuration: {why}"));
    }
    for missing in &fleet.missing {
        let whose = match &missing.vg {
            Some(vg) => format!("a PV of VG {}", host.names.vg(vg)),
            None => "of the global lock".to_owned(),
        };
        obstacles.push(format!("{}: {whose}; it counts as a drive that is silent", missing.why));
    }
    for ((drive, asked), report) in fleet.drives.iter().zip(asked).zip(&drives) {
        obstacles.extend(obstacles_of(drive, asked, report));
    }
    for (at, drive) in fleet.drives.iter().enumerate() {
        let other = fleet.drives[..at].iter().find(|other| other.device == drive.device);
        if let Some(other) = other {
            obstacles.push(format!(
                "{} is a part of the same device as {}: they fail together",
                drive.name, other.name
            ));
        }
    }
    obstacles.extend(quorums(host, fleet, asked));
    Report { drives, obstacles }
}

fn of(host: &Host, drive: &Drive, asked: &Asked) -> DriveReport {
    let version = match asked.table() {
        Some((version, _)) => Some(version),
        None => asked.has_no_idm().then_some(0),
    };
    let path = |path: String| {
        let trouble = match asked.paths.get(&path) {
            Some(PathAnswer::Failed(why)) => Some(why.clone()),
            Some(_) => None,
            None => Some(format!("no answer within {:.1} s", asked.waited.as_secs_f64())),
        };
        PathView { path, trouble }
    };
    DriveReport {
        name: drive.name.clone(),
        identity: drive.identity.clone(),
        version,
        fill: asked.table().map(|(version, records)| fill(version, records)),
        paths: drive.paths.iter().map(|it| path(it.to_string())).collect(),
        global: drive.global,
        vgs: drive.vgs.iter().map(|vg| host.names.vg(vg)).collect(),
    }
}

/// The fill level of a table with these records.
pub fn fill(version: u8, records: &[Record]) -> Fill {
    // Firmware of 2020 says 1 (docs/protocol.md, "Limits").
    let limits = if version <= 1 { Profile::rev2313().limits } else { Profile::current().limits };
    let mutexes: BTreeSet<_> = records.iter().map(|record| record.resource).collect();
    let hosts: BTreeSet<_> = records.iter().map(|record| record.host).collect();
    let counts = [records.len(), mutexes.len(), hosts.len()];
    let limits = [limits.records, limits.mutexes, limits.hosts];
    let percent = counts.iter().zip(limits).map(|(count, limit)| count * 100 / limit);
    Fill {
        records: counts[0],
        mutexes: counts[1],
        hosts: counts[2],
        limits,
        percent: percent.max().unwrap_or_default(),
    }
}

fn obstacles_of(drive: &Drive, asked: &Asked, report: &DriveReport) -> Vec<String> {
    let mut obstacles = Vec::new();
    let name = &drive.name;
    let used = drive.global || !drive.vgs.is_empty();
    if let Some(why) = asked.silence(drive) {
        obstacles.push(format!(
            "{name} does not answer: {why}; look at its cables and the kernel's log"
        ));
        return obstacles;
    }
    if report.version == Some(0) && used {
        obstacles.push(format!(
            "{name} has no IDM, so it counts as a drive that never answers: replace it by one that \
             has IDM"
        ));
    }
    for path in &report.paths {
        if let Some(why) = &path.trouble {
            obstacles.push(format!("{name}: path {} fails: {why}", path.path));
        }
    }
    if let Some(fill) = report.fill.filter(|fill| fill.percent >= NEARLY_FULL_PERCENT) {
        obstacles.push(format!(
            "{name}: its mutex table is {} % full: deactivate LVs that are not used, or spread \
             them over more drives",
            fill.percent
        ));
    }
    obstacles
}

/// Sets of drives of which too few answer.
fn quorums(host: &Host, fleet: &Fleet, asked: &[Asked]) -> Vec<String> {
    let mut sets: Vec<(String, Vec<usize>, usize)> = Vec::new();
    let missing = |vg| fleet.missing.iter().filter(|it| it.vg == vg).count();
    let of = |is_in: &dyn Fn(&Drive) -> bool| -> Vec<usize> {
        (0..fleet.drives.len()).filter(|&at| is_in(&fleet.drives[at])).collect()
    };
    sets.push(("the global lock".to_owned(), of(&|drive| drive.global), missing(None)));
    for (vg, _) in &host.saved.lockspaces {
        let members = of(&|drive| drive.vgs.contains(vg));
        sets.push((format!("VG {}", host.names.vg(vg)), members, missing(Some(*vg))));
    }
    let mut obstacles = Vec::new();
    for (name, members, missing) in sets {
        let count = members.len() + missing;
        let answering = members.iter().filter(|&&at| asked[at].table().is_some()).count();
        if count > 0 && answering < acquire_quorum(count) {
            let kept = if answering < keep_quorum(count) { "nor kept" } else { "only kept" };
            obstacles.push(format!(
                "of the {count} drives of {name} only {answering} can be used, and {} are needed: \
                 its locks cannot be taken, {kept}",
                acquire_quorum(count)
            ));
        }
    }
    obstacles
}

/// The report as text.
pub fn text(report: &Report) -> String {
    let row = |drive: &DriveReport| {
        let idm = match drive.version {
            None => "silent".to_owned(),
            Some(0) => "no".to_owned(),
            Some(version) => format!("version {version}"),
        };
        let [mut records, mut hosts] = ["-".to_owned(), "-".to_owned()];
        if let Some(fill) = &drive.fill {
            records = format!("{} ({} %)", fill.records, fill.percent);
            hosts = fill.hosts.to_string();
        }
        let works = drive.paths.iter().filter(|path| path.trouble.is_none()).count();
        let mut uses = drive.vgs.clone();
        uses.extend(drive.global.then(|| "(global)".to_owned()));
        vec![
            drive.name.clone(),
            idm,
            records,
            hosts,
            format!("{works}/{}", drive.paths.len()),
            uses.join(" "),
            drive.identity.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = report.drives.iter().map(row).collect();
    let head = ["DRIVE", "IDM", "RECORDS", "HOSTS", "PATHS", "USED FOR", "IDENTITY"];
    let mut text = table(&head, &rows);
    for obstacle in &report.obstacles {
        text.push_str(&format!("{} {obstacle}\n", styled(WARNING, "*")));
    }
    if report.obstacles.is_empty() {
        text.push_str(&format!("{}\n", styled(GOOD, "Nothing stands in the way.")));
    }
    text
}
