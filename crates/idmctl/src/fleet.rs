//! The drives of this host, and their answers.

use crate::host::Host;
use crate::output::Progress;
use idm_protocol::{DriveCommand, Record, Reply, ResourceId, Status};
use lvmlockd_idm::tools::{Probe, deadline};
use lvmlockd_idm::topology::{Inventory, PathAddress, Topology};
use lvmlockd_idm::transport::connector;
use lvmlockd_idm::transport::drive::CommandError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The interval between two progress messages.
const TICK: Duration = Duration::from_millis(100);

/// Paths by which a command is under way. They are not asked again until it ends, so that a path
/// that hangs costs one thread, even if drives are asked many times.
static UNDER_WAY: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn under_way() -> MutexGuard<'static, BTreeSet<String>> {
    // A set of names is whole at any moment.
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A drive of this host.
#[derive(Clone, Debug)]
pub struct Drive {
    /// Its short name: the PV, the first path, or the name of an emulated drive.
    pub name: String,
    /// Its full identity, the same on every host.
    pub identity: String,
    /// The identity of the device that fails as a whole.
    pub device: String,
    /// The paths to it.
    pub paths: Vec<PathAddress>,
    /// Whether it carries the global lock.
    pub global: bool,
    /// The started VGs that have a PV on it.
    pub vgs: Vec<ResourceId>,
}

/// A PV, or a drive of the global lock, that leads to no drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its path.
    pub path: String,
    /// The reason.
    pub why: String,
    /// The VG whose PV it is; `None`: it should carry the global lock.
    pub vg: Option<ResourceId>,
}

/// The drives of this host, and the paths that should lead to one and do not.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// The drives, in the order in which they were named or found.
    pub drives: Vec<Drive>,
    /// Paths that lead to no drive.
    pub missing: Vec<Missing>,
}

impl Fleet {
    /// All drives of this host. No drive is asked.
    pub fn of(host: &Host) -> Fleet {
        let mut fleet = Fleet::default();
        let config = host.settings();
        for name in host.emulated.keys() {
            fleet.add(host, name, None, false);
        }
        for path in config.emulated.keys() {
            fleet.add(host, path, None, false);
        }
        for path in &config.global_drives {
            fleet.add(host, path, None, true);
        }
        for (vg, lockspace) in &host.saved.lockspaces {
            let is_global = *vg == ResourceId::GLOBAL;
            for path in &lockspace.paths {
                fleet.add(host, path, (!is_global).then_some(*vg), is_global);
            }
        }
        // With emulated drives only those are meant.
        if host.emulated.is_empty() {
            if let Ok(inventory) = host.topology.inventory() {
                fleet.add_all(&inventory, config.global_drives.is_empty());
            }
        }
        fleet
    }

    fn add(&mut self, host: &Host, path: &str, vg: Option<ResourceId>, global: bool) {
        let found = host.topology.locate(&[path.to_owned()]).pop();
        let missing = |why: String| Missing { path: path.to_owned(), why, vg };
        match found {
            None => {}
            Some(Err(error)) => {
                let missing = missing(error.to_string());
                if !self.missing.contains(&missing) {
                    self.missing.push(missing);
                }
            }
            Some(Ok(found)) => {
                for gone in &found.missing {
                    self.missing.push(missing(format!("{path}: {gone} is gone")));
                }
                for drive in found.drives {
                    let at = self.drives.iter().position(|it| it.identity == drive.identity);
                    let at = at.unwrap_or_else(|| {
                        self.drives.push(Drive {
                            name: path.to_owned(),
                            identity: drive.identity,
                            device: drive.device,
                            paths: Vec::new(),
                            global: false,
                            vgs: Vec::new(),
                        });
                        self.drives.len() - 1
                    });
                    let known = &mut self.drives[at];
                    let new = drive.paths.into_iter().filter(|path| !known.paths.contains(path));
                    let new: Vec<PathAddress> = new.collect();
                    known.paths.extend(new);
                    known.global |= global;
                    known.vgs.extend(vg.filter(|vg| !known.vgs.contains(vg)));
                }
            }
        }
    }

    /// Adds every disk, and every path to those that are known.
    fn add_all(&mut self, inventory: &Inventory, partitions: bool) {
        let mut all: Vec<_> = inventory.drives().collect();
        all.sort_by_key(|(_, paths)| paths.first().map(PathAddress::to_string));
        for (identity, paths) in all {
            match self.drives.iter_mut().find(|drive| drive.identity == identity) {
                Some(drive) => {
                    let new = paths.iter().filter(|path| !drive.paths.contains(path));
                    let new: Vec<PathAddress> = new.cloned().collect();
                    drive.paths.extend(new);
                }
                None => self.drives.push(Drive {
                    name: paths.first().map(PathAddress::to_string).unwrap_or_default(),
                    identity: identity.to_owned(),
                    device: identity.to_owned(),
                    paths: paths.to_vec(),
                    global: false,
                    vgs: Vec::new(),
                }),
            }
        }
        let global = inventory.global().iter().filter(|_| partitions);
        for (_, located) in global {
            for drive in self.drives.iter_mut().filter(|it| it.identity == located.identity) {
                drive.global = true;
            }
        }
    }

    /// The drive that a user means, by its name, its identity, one of its paths, or a device on it.
    pub fn find(&self, host: &Host, text: &str) -> Option<&Drive> {
        let is_it = |drive: &&Drive| {
            drive.name == text
                || drive.identity == text
                || drive.paths.iter().any(|path| path.to_string() == text)
        };
        self.drives.iter().find(is_it).or_else(|| {
            let found = host.topology.locate(&[text.to_owned()]).pop()?.ok()?;
            let identity = &found.drives.first()?.identity;
            self.drives.iter().find(|drive| drive.identity == *identity)
        })
    }
}

/// The result of asking a drive by one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathAnswer {
    /// The drive's IDM version and its whole table.
    Table {
        /// The major version.
        version: u8,
        /// The records.
        records: Vec<Record>,
        /// The time that reading the table took.
        took: Duration,
    },
    /// The drive has no IDM.
    NoIdm,
    /// No answer, and why not.
    Failed(String),
}

/// The answers of one drive.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The answers by path; those that have not come are not here.
    pub paths: BTreeMap<String, PathAnswer>,
    /// The time of the wait for them.
    pub waited: Duration,
}

impl Asked {
    /// The table and the version, if a path brought them.
    pub fn table(&self) -> Option<(u8, &[Record])> {
        self.paths.values().find_map(|answer| match answer {
            PathAnswer::Table { version, records, .. } => Some((*version, records.as_slice())),
            _ => None,
        })
    }

    /// Whether the drive said that it has no IDM.
    pub fn has_no_idm(&self) -> bool {
        self.table().is_none() && self.paths.values().any(|it| *it == PathAnswer::NoIdm)
    }

    /// The reasons why there is no table, path by path; `None` if there is one.
    pub fn silence(&self, drive: &Drive) -> Option<String> {
        if self.table().is_some() || self.has_no_idm() {
            return None;
        }
        let path = |path: &PathAddress| match self.paths.get(&path.to_string()) {
            Some(PathAnswer::Failed(why)) => why.clone(),
            _ => format!("{path}: no answer within {:.1} s", self.waited.as_secs_f64()),
        };
        let whys: Vec<String> = drive.paths.iter().map(path).collect();
        Some(if whys.is_empty() { "no path leads to it".to_owned() } else { whys.join("; ") })
    }
}

/// Asks drives by all of their paths at once, until each has shown its table and, if `every_path`,
/// each path has answered; at most for `time`. Commands that hang are left behind.
pub fn ask(
    topology: &Arc<Topology>,
    drives: &[Drive],
    time: Duration,
    every_path: bool,
    progress: &mut Progress,
) -> Vec<Asked> {
    let begin = Instant::now();
    let mut asked = vec![Asked::default(); drives.len()];
    let (sender, answers) = channel();
    for (at, drive) in drives.iter().enumerate() {
        for path in &drive.paths {
            if !under_way().insert(path.to_string()) {
                let why = format!("{path}: it has not answered an earlier command yet");
                asked[at].paths.insert(path.to_string(), PathAnswer::Failed(why));
                continue;
            }
            let (sender, topology) = (sender.clone(), topology.clone());
            let (identity, path) = (drive.identity.clone(), path.clone());
            thread::spawn(move || {
                let answer = ask_path(&topology, &identity, &path, time);
                under_way().remove(&path.to_string());
                // If the answer came too late, there is no receiver.
                let _ = sender.send((at, path.to_string(), answer));
            });
        }
    }
    drop(sender);
    let is_open = |drive: &Drive, asked: &Asked| {
        let all = asked.paths.len() == drive.paths.len();
        !all && (every_path || asked.table().is_none())
    };
    loop {
        let open: Vec<&str> = drives
            .iter()
            .zip(&asked)
            .filter(|(drive, asked)| is_open(drive, asked))
            .map(|(drive, _)| drive.name.as_str())
            .collect();
        if open.is_empty() || begin.elapsed() >= time {
            break;
        }
        progress.wait_for(&open, begin.elapsed(), time);
        let left = time.saturating_sub(begin.elapsed());
        match answers.recv_timeout(left.min(TICK)) {
            Ok((at, path, answer)) => drop(asked[at].paths.insert(path, answer)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    progress.done();
    for asked in &mut asked {
        asked.waited = begin.elapsed();
    }
    asked
}

fn ask_path(
    topology: &Arc<Topology>,
    identity: &str,
    path: &PathAddress,
    time: Duration,
) -> PathAnswer {
    let version = match Probe::new(identity, path, topology, time).version() {
        Ok(Some(version)) => version,
        Ok(None) => return PathAnswer::NoIdm,
        Err(CommandError::Transport(why)) => return PathAnswer::Failed(why.to_string()),
        Err(CommandError::TooLong(why)) => return PathAnswer::Failed(why),
    };
    let begin = Instant::now();
    let connect = connector(Topology::clone(topology));
    let answer = connect(identity, path).execute(&DriveCommand::ReadTable, &deadline(time));
    match answer.map(|answer| answer.reply) {
        Ok(Reply::Table(records)) => {
            PathAnswer::Table { version, records: records.to_vec(), took: begin.elapsed() }
        }
        Ok(Reply::Status(Status::Unsupported)) => PathAnswer::NoIdm,
        Ok(Reply::Status(Status::Conflict)) => PathAnswer::Failed(format!(
            "{path}: RESERVATION CONFLICT: its data is reserved for other hosts"
        )),
        Ok(Reply::Status(status)) => {
            PathAnswer::Failed(format!("{path}: reading the table failed: {status:?}"))
        }
        Err(why) => PathAnswer::Failed(why.to_string()),
    }
}

/// The present time in ms since 1970, as in records.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
