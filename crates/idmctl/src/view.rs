//! Locks and their holders, made of drives' tables.
//!
//! Quorums are counted as the library counts them. No drive reports the rest of a lease. It is
//! computed from the time that the holder wrote into its record, so it depends on the agreement of
//! the hosts' clocks.

use crate::fleet::{Asked, Drive, Fleet};
use crate::host::Host;
use crate::names::{Names, STARTED};
use crate::output::short;
use crate::sets::Sets;
use idm_engine::{Writer, acquire_quorum, keep_quorum, writer};
use idm_protocol::{HostId, Mode, Record, ResourceId, State, Value};
use lvmlockd_idm::lock::{Role, published, role_of, vg_of};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A host in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostView {
    /// The name in its id, as far as it is there.
    pub name: String,
    /// The whole id, in hexadecimal digits.
    pub id: String,
    /// Whether it is this host, as it runs now.
    pub this_host: bool,
    /// Whether it is this host before it was booted, or before it lost its id.
    pub earlier_life: bool,
}

/// The state of a host's hold on a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It has enough drives to keep it.
    Held,
    /// It has too few drives to keep the lock: an attempt that is under way or has failed.
    TooFewDrives,
    /// It has too few of the drives that answer; those that do not may have it.
    Unclear,
    /// Its leases are over on so many drives that another host can take it.
    TimedOut,
    /// It locked it for a moment, to remove it from a table.
    Clearing,
}

/// The code of a remark: a holder counts drives that are not known here.
pub const FOREIGN_SET: &str = "foreign-set";

/// Knowledge about the set of drives that a holder counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Set {
    /// They are known here.
    Known,
    /// It counts drives that are not known here.
    Foreign,
    /// Its votes are moving to other drives.
    Moving,
    /// The records are another program's.
    OlderStack,
}

/// A record of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnDrive {
    /// The drive.
    pub drive: String,
    /// `sh` or `ex`.
    pub mode: &'static str,
    /// Whether the lease runs according to the drive.
    pub lease_runs: bool,
    /// The lease in ms.
    pub lease_ms: u64,
    /// Time since the record was refreshed, by the clocks of both hosts, in ms. Negative where the
    /// holder's clock is ahead.
    pub age_ms: i64,
    /// The rest of the lease in ms; `None` if the clocks do not agree.
    pub left_ms: Option<u64>,
    #[serde(skip)]
    at: usize,
    #[serde(skip)]
    writer: Option<Writer>,
}

/// A host that holds a lock, or held it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The host.
    pub host: HostView,
    /// `sh`, `ex`, or `mixed`.
    pub mode: &'static str,
    /// The state of its hold.
    pub standing: Standing,
    /// Its records.
    pub on: Vec<OnDrive>,
    /// Knowledge about the set of drives that it counts.
    pub set: Set,
    /// The drives that it counts, where that is known.
    pub counts: Option<Vec<String>>,
    /// The number of them that it needs to keep the lock.
    pub needs: Option<usize>,
    /// The rest of its lease in ms: the time until too few drives are left to it, if it does not
    /// refresh them. `None` where that is not known; at most `lease_ms` then.
    pub left_ms: Option<u64>,
    /// The lease in ms.
    pub lease_ms: u64,
    /// Time since its last refresh in ms.
    pub age_ms: i64,
}

/// The value of a mutex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValueView {
    /// The number.
    pub number: u64,
    /// The time when it was published, in ms since 1970.
    pub published_ms: u64,
    /// Whether it marks the VG as removed.
    pub removed: bool,
    /// The number of drives that show it.
    pub drives: usize,
}

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockView {
    /// Its name: `global`, a VG's, or `VG/LV`; uuids where names are not known.
    pub name: String,
    /// `global`, `vg`, `lv` or `started`: the last is held by each host that has the VG started.
    pub kind: &'static str,
    /// The VG's and, with a slash, the LV's uuid without dashes; empty for the global lock.
    pub uuid: String,
    /// The hosts that hold it or held it.
    pub holders: Vec<Holder>,
    /// Drives that know it unlocked.
    pub free_on: Vec<String>,
    /// Its value; `None` where it has none.
    pub value: Option<ValueView>,
    #[serde(skip)]
    id: ResourceId,
}

/// A remark on a lock or a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// A word for programs.
    pub code: &'static str,
    /// Whether it is wrong, and not only noteworthy.
    pub alarm: bool,
    /// The sentence.
    pub text: String,
}

/// A drive and its table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DriveView {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub identity: String,
    /// `answers`, `silent` or `no-idm`.
    pub state: &'static str,
    /// The reason why it does not answer.
    pub why: Option<String>,
}

/// Everything that the tables show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct View {
    /// The drives that were asked.
    pub drives: Vec<DriveView>,
    /// The locks: the global one, then VGs with their LVs.
    pub locks: Vec<LockView>,
    /// Remarks on locks and drives.
    pub remarks: Vec<Remark>,
}

/// The input of a view.
pub struct Maker<'a> {
    host: &'a Host,
    drives: &'a [Drive],
    asked: &'a [Asked],
    sets: Sets,
    now_ms: u64,
}

impl<'a> Maker<'a> {
    /// Of these drives and their answers, read at that time in ms since 1970.
    pub fn new(host: &'a Host, fleet: &'a Fleet, asked: &'a [Asked], now_ms: u64) -> Maker<'a> {
        let drives = &fleet.drives;
        let identities: Vec<&str> = drives.iter().map(|it| it.identity.as_str()).collect();
        let at = |identity: &String| identities.iter().position(|it| it == identity);
        let noted = host.saved.locks.iter();
        let noted = noted.map(|(_, lock)| lock.drives.iter().filter_map(at).collect());
        let with = |is_in: &dyn Fn(&Drive) -> bool| -> Vec<usize> {
            (0..drives.len()).filter(|&at| is_in(&drives[at])).collect()
        };
        let vgs: BTreeSet<ResourceId> = drives.iter().flat_map(|it| it.vgs.clone()).collect();
        let mut likely: Vec<Vec<usize>> = noted.collect();
        likely.push(with(&|drive| drive.global));
        likely.extend(vgs.iter().map(|vg| with(&|drive| drive.vgs.contains(vg))));
        // Drives that show any lock of one VG are probably those of the VG.
        let of_vg = |vg: ResourceId| {
            let shows = |asked: &Asked| {
                let table = asked.table().map_or(&[][..], |(_, records)| records);
                table.iter().any(|it| vg_of(&it.resource) == vg)
            };
            (0..drives.len()).filter(|&at| shows(&asked[at])).collect()
        };
        let shown: BTreeSet<ResourceId> = asked
            .iter()
            .filter_map(Asked::table)
            .flat_map(|(_, records)| records)
            .map(|record| vg_of(&record.resource))
            .collect();
        likely.extend(shown.into_iter().map(of_vg));
        Maker { host, drives, asked, sets: Sets::of(&identities, likely), now_ms }
    }

    /// The view of the locks that are wanted.
    pub fn view(&self, wanted: impl Fn(&ResourceId) -> bool) -> View {
        let mut by_lock: BTreeMap<ResourceId, Vec<(usize, &Record)>> = BTreeMap::new();
        for (at, asked) in self.asked.iter().enumerate() {
            let records = asked.table().map_or(&[][..], |(_, records)| records);
            for record in records.iter().filter(|record| wanted(&record.resource)) {
                by_lock.entry(record.resource).or_default().push((at, record));
            }
        }
        let locks: Vec<LockView> =
            by_lock.into_iter().map(|(id, records)| self.lock(id, &records)).collect();
        let drives = self.drive_views();
        let remarks = self.remarks(&locks, &drives);
        View { drives, locks, remarks }
    }

    fn drive_views(&self) -> Vec<DriveView> {
        let view = |(drive, asked): (&Drive, &Asked)| {
            let why = asked.silence(drive);
            let state = match &why {
                Some(_) => "silent",
                None if asked.has_no_idm() => "no-idm",
                None => "answers",
            };
            DriveView { name: drive.name.clone(), identity: drive.identity.clone(), state, why }
        };
        self.drives.iter().zip(self.asked).map(view).collect()
    }

    fn lock(&self, id: ResourceId, records: &[(usize, &Record)]) -> LockView {
        let mut by_host: BTreeMap<HostId, Vec<(usize, &Record)>> = BTreeMap::new();
        let mut free_on = Vec::new();
        for &(at, record) in records {
            match record.state {
                State::Unlocked => free_on.push(self.drives[at].name.clone()),
                _ => by_host.entry(record.host).or_default().push((at, record)),
            }
        }
        let (vg, lv) = id.as_bytes().split_at(32);
        let text = |half: &[u8]| half.escape_ascii().to_string();
        LockView {
            name: self.host.names.of(&id),
            kind: match role_of(&id) {
                Role::Global => "global",
                Role::Vg => "vg",
                Role::Lv => "lv",
                Role::Membership => "started",
            },
            uuid: match role_of(&id) {
                Role::Global => String::new(),
                Role::Vg | Role::Membership => text(vg),
                Role::Lv => format!("{}/{}", text(vg), text(lv)),
            },
            holders: by_host
                .into_iter()
                .map(|(host, records)| self.holder(&id, host, &records))
                .collect(),
            free_on,
            value: role_of(&id).keeps_value().then(|| value(records)).flatten(),
            id,
        }
    }

    fn host_view(&self, host: HostId) -> HostView {
        let this_host = self.host.id == Some(host);
        let name = host.name();
        // An id has room for the first bytes of a name.
        let own = HostId::new([0; 16], &self.host.name).name();
        let same = !name.is_empty() && name == own;
        HostView {
            id: host.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
            this_host,
            earlier_life: same && !this_host,
            name,
        }
    }

    fn on_drive(&self, at: usize, record: &Record) -> OnDrive {
        let age_ms = self.now_ms as i64 - record.modified_ms as i64;
        let lease_runs = record.state.is_live();
        let left = record.countdown_ms as i64 - age_ms;
        // A lease that runs and should be over, or began in the future, shows clocks that differ.
        let left = u64::try_from(left).ok().filter(|left| *left <= record.countdown_ms);
        OnDrive {
            drive: self.drives[at].name.clone(),
            mode: mode(record.class.mode()),
            lease_runs,
            lease_ms: record.countdown_ms,
            age_ms,
            left_ms: if lease_runs { left } else { Some(0) },
            at,
            writer: Some(writer(&record.metadata)),
        }
    }

    fn holder(&self, id: &ResourceId, host: HostId, records: &[(usize, &Record)]) -> Holder {
        let on: Vec<OnDrive> = records.iter().map(|(at, it)| self.on_drive(*at, it)).collect();
        let shown: Vec<usize> = on.iter().map(|it| it.at).collect();
        let (set, members) = self.set(id, host, &on, &shown);
        let needs = members.as_ref().map(|members| keep_quorum(members.len()));
        let is_member = |at: usize| members.as_ref().is_none_or(|it| it.contains(&at));
        let lefts: Vec<Option<u64>> =
            on.iter().filter(|it| it.lease_runs && is_member(it.at)).map(|it| it.left_ms).collect();
        let is_silent = |at: usize| self.asked[at].silence(&self.drives[at]).is_some();
        let silent = members.iter().flatten().filter(|&&at| is_silent(at));
        let expired = on.iter().filter(|it| !it.lease_runs && is_member(it.at)).count();
        let standing = if on.iter().all(|it| it.writer == Some(Writer::Clearing)) {
            Standing::Clearing
        } else {
            standing(lefts.len(), expired, silent.count(), members.as_ref().map(Vec::len))
        };
        let lease_ms = on.iter().map(|it| it.lease_ms).max().unwrap_or_default();
        let first = on.first().map(|it| it.mode).unwrap_or_default();
        Holder {
            host: self.host_view(host),
            mode: if on.iter().all(|it| it.mode == first) { first } else { "mixed" },
            standing,
            set,
            counts: members
                .map(|it| it.into_iter().map(|at| self.drives[at].name.clone()).collect()),
            needs,
            left_ms: rest(lefts, needs.unwrap_or(1)),
            lease_ms,
            age_ms: on.iter().map(|it| it.age_ms).min().unwrap_or_default(),
            on,
        }
    }

    /// The drives that a holder counts: by this host's own note, or by its records' fingerprint.
    fn set(
        &self,
        id: &ResourceId,
        host: HostId,
        on: &[OnDrive],
        shown: &[usize],
    ) -> (Set, Option<Vec<usize>>) {
        if self.host.id == Some(host) {
            let noted = self.host.saved.locks.iter().find(|(noted, _)| noted == id);
            let at = |identity: &String| self.drives.iter().position(|it| it.identity == *identity);
            let members = noted.and_then(|(_, lock)| lock.drives.iter().map(at).collect());
            if let Some(members) = members {
                return (Set::Known, Some(members));
            }
        }
        let mut moving = false;
        for it in on {
            match it.writer {
                Some(Writer::Lock { fingerprint, alone: false, .. }) => {
                    return match self.sets.find(fingerprint, shown) {
                        Some(members) => (Set::Known, Some(members)),
                        None => (Set::Foreign, None),
                    };
                }
                Some(Writer::Lock { .. } | Writer::Clearing) => moving = true,
                Some(Writer::Other) | None => {}
            }
        }
        (if moving { Set::Moving } else { Set::OlderStack }, None)
    }

    fn remarks(&self, locks: &[LockView], drives: &[DriveView]) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for lock in locks {
            for holder in &lock.holders {
                self.remarks_on_holder(lock, holder, &mut remarks);
            }
            remarks.extend(two_holders(lock));
        }
        for drive in drives.iter().filter(|drive| drive.state == "silent") {
            let why = drive.why.as_deref().unwrap_or_default();
            remarks.push(Remark::new(
                "silent-drive",
                format!("{} does not answer ({why}); what it has is not shown", drive.name),
            ));
        }
        remarks
    }

    fn remarks_on_holder(&self, lock: &LockView, holder: &Holder, remarks: &mut Vec<Remark>) {
        let (who, title) = (holder.host.shown(), lock.title());
        remarks.extend(self.on_standing(lock, holder));
        if holder.mode == "mixed" {
            remarks.push(Remark::new(
                "mixed-modes",
                format!(
                    "{who} has {title} exclusively on some drives and shared on others: a change \
                     of the mode is under way, or a drive has missed one"
                ),
            ));
        }
        remarks.extend(on_set(&who, &title, holder.set));
        let held = holder.standing == Standing::Held;
        if held && holder.host.this_host && !self.host.lvmlockd {
            remarks.push(Remark::new(
                "orphaned",
                format!(
                    "this host holds {title}, and no lvmlockd runs here to refresh it: start \
                     lvmlockd before the lease is over"
                ),
            ));
        }
        if held && holder.host.earlier_life {
            remarks.push(Remark::new(
                "earlier-life",
                format!(
                    "{who} holds {title} under an id that this host had before it was booted: \
                     wait for the end of the lease"
                ),
            ));
        }
        if holder.clocks_differ() {
            remarks.push(Remark::new(
                "clock",
                format!(
                    "the rest of the lease of {who} on {title} is not known: the clocks of both \
                     hosts differ (run NTP), or the drives do not store the time of a refresh"
                ),
            ));
        }
    }

    fn on_standing(&self, lock: &LockView, holder: &Holder) -> Option<Remark> {
        let (who, title) = (holder.host.shown(), lock.title());
        let live = holder.live();
        let of = holder.counts.as_ref().map_or(String::new(), |it| format!(" of {}", it.len()));
        let needs = holder.needs.unwrap_or_default();
        let (code, text) = match holder.standing {
            Standing::TooFewDrives => (
                "too-few-drives",
                format!(
                    "{who} has {title} on {live}{of} drives and would need {needs}: it does not \
                     have the lock (an attempt that is under way, or what is left of one)"
                ),
            ),
            Standing::Unclear => (
                "unclear",
                format!(
                    "{who} has {title} on {live}{of} drives and needs {needs}; drives that do not \
                     answer decide whether it has the lock"
                ),
            ),
            Standing::TimedOut if lock.kind == "started" => (
                "timed-out",
                format!(
                    "{who} has VG {} started and does not refresh that any more: it has died, or \
                     reaches too few drives",
                    self.host.names.vg(&lock.id)
                ),
            ),
            Standing::TimedOut => (
                "timed-out",
                format!(
                    "{who} has not refreshed {title} for longer than its lease of {}: another host \
                     that asks for it can take it",
                    short(holder.lease_ms)
                ),
            ),
            Standing::Held if holder.is_silent() => (
                "silent-holder",
                format!(
                    "{who} has not refreshed {title} for {}: it has died, hangs, or reaches too \
                     few drives; its lease ends in {}",
                    short(u64::try_from(holder.age_ms).unwrap_or_default()),
                    holder.left()
                ),
            ),
            Standing::Held | Standing::Clearing => return None,
        };
        Some(Remark::new(code, text))
    }
}

fn on_set(who: &str, title: &str, set: Set) -> Option<Remark> {
    let (code, text) = match set {
        Set::Foreign => (
            FOREIGN_SET,
            format!(
                "{who} counts drives for {title} that are not all known here: this host may miss a \
                 drive, or the VG's drives were changed (docs/locking.md, \"Hosts that count \
                 different drives\")"
            ),
        ),
        Set::Moving => ("moving", format!("{who} is moving its votes on {title} to other drives")),
        Set::OlderStack => (
            "older-stack",
            format!("the record of {who} on {title} was written by another program"),
        ),
        Set::Known => return None,
    };
    Some(Remark::new(code, text))
}

impl Remark {
    /// A remark that is no alarm.
    pub fn new(code: &'static str, text: String) -> Remark {
        Remark { code, alarm: false, text }
    }
}

impl LockView {
    /// The name in sentences.
    pub fn title(&self) -> String {
        match self.kind {
            "global" => "the global lock".to_owned(),
            "vg" => format!("the lock of VG {}", self.name),
            "lv" => format!("the lock of LV {}", self.name),
            _ => format!("the membership of VG {}", self.name.trim_end_matches(STARTED)),
        }
    }

    /// The volume group that it belongs to; `global` for the global lock.
    pub fn vg(&self, names: &Names) -> String {
        if self.kind == "global" { self.name.clone() } else { names.vg(&self.id) }
    }

    /// The id of the mutex.
    pub fn id(&self) -> ResourceId {
        self.id
    }

    /// Whether it is this mutex.
    pub fn is(&self, id: &ResourceId) -> bool {
        self.id == *id
    }
}

/// The part of its lease after which a holder refreshes at the latest ("Keeping it" in
/// docs/locking.md), plus the time of a command.
const REFRESHED_WITHIN: f64 = 1.0 / 3.0 + 0.1;

impl Holder {
    /// Whether a lease of it runs that should be over by the time in its record, or has not begun:
    /// its host's clock and this one differ, so that nothing is known of its age.
    pub fn clocks_differ(&self) -> bool {
        self.on.iter().any(|it| it.lease_runs && it.left_ms.is_none())
    }

    /// Whether it has not refreshed the lock for longer than a host does that lives.
    pub fn is_silent(&self) -> bool {
        !self.clocks_differ() && self.age_ms as f64 > self.lease_ms as f64 * REFRESHED_WITHIN
    }

    /// The time until its lease ends, in words.
    pub fn left(&self) -> String {
        match self.left_ms {
            Some(ms) => short(ms),
            None => format!("{} at most (the hosts' clocks differ: run NTP)", short(self.lease_ms)),
        }
    }

    /// The number of drives that it counts and on which its lease runs.
    pub fn live(&self) -> usize {
        let counts = |drive: &String| self.counts.as_ref().is_none_or(|all| all.contains(drive));
        self.on.iter().filter(|on| on.lease_runs && counts(&on.drive)).count()
    }
}

impl HostView {
    /// The name; the beginning of the id where there is none.
    pub fn plain(&self) -> String {
        let name = if self.name.is_empty() { self.id.get(..16) } else { None };
        name.unwrap_or(&self.name).to_owned()
    }

    /// The name for output.
    pub fn shown(&self) -> String {
        let name = self.plain();
        match (self.this_host, self.earlier_life) {
            (true, _) => format!("{name} (this host)"),
            (_, true) => format!("{name} (earlier life of this host)"),
            _ => name,
        }
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Shared => "sh",
        Mode::Exclusive => "ex",
    }
}

/// The state of a hold, from the holder's records on the drives that it counts.
fn standing(live: usize, expired: usize, silent: usize, counts: Option<usize>) -> Standing {
    let Some(counts) = counts else {
        return if live > 0 { Standing::Held } else { Standing::TimedOut };
    };
    let keep = keep_quorum(counts);
    if live >= keep {
        Standing::Held
    } else if live + silent >= keep {
        Standing::Unclear
    } else if live + silent + expired >= keep {
        Standing::TimedOut
    } else {
        Standing::TooFewDrives
    }
}

/// The time until fewer than `needs` of these leases are left.
fn rest(lefts: Vec<Option<u64>>, needs: usize) -> Option<u64> {
    if lefts.len() < needs {
        return Some(0);
    }
    let mut lefts = lefts.into_iter().collect::<Option<Vec<u64>>>()?;
    lefts.sort_unstable();
    lefts.iter().rev().nth(needs.max(1) - 1).copied()
}

/// The greatest value in these records.
fn value(records: &[(usize, &Record)]) -> Option<ValueView> {
    let greatest = records.iter().map(|(_, record)| record.value).max()?;
    if greatest == Value::ZERO {
        return None;
    }
    let showing = records.iter().filter(|(_, record)| record.value == greatest);
    let drives: BTreeSet<usize> = showing.map(|(at, _)| *at).collect();
    let (us, removed) = published(greatest);
    let (number, published_ms) = (greatest.get(), us / 1000);
    Some(ValueView { number, published_ms, removed, drives: drives.len() })
}

/// Whether two hosts have a lock that only one may have.
fn two_holders(lock: &LockView) -> Option<Remark> {
    let held = lock.holders.iter().filter(|it| it.standing == Standing::Held);
    let held: Vec<&Holder> = held.collect();
    let alone = held.iter().any(|it| it.mode != "sh");
    // A change to shared may be on its way to a drive: half of the drives would be too few for it.
    let sure = held.iter().all(|it| {
        it.counts.as_ref().is_some_and(|counts| it.live() >= acquire_quorum(counts.len()))
    });
    if held.len() < 2 || !alone {
        return None;
    }
    let hosts: Vec<String> = held.iter().map(|it| it.host.shown()).collect();
    Some(Remark {
        code: if sure { "two-holders" } else { "two-records" },
        alarm: sure,
        text: format!(
            "{} is with {} at once, and not shared: {}",
            lock.title(),
            hosts.join(" and "),
            if sure {
                "stop using it on all hosts but one, and look at their logs"
            } else {
                "one of them counts drives that the other does not, or has just lost it"
            }
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_stands_as_its_drives_say() {
        for (live, expired, silent, counts, expected) in [
            (2, 0, 1, Some(3), Standing::Held),
            (1, 0, 0, Some(2), Standing::Held),
            (1, 0, 1, Some(3), Standing::Unclear),
            (1, 1, 0, Some(3), Standing::TimedOut),
            (0, 2, 1, Some(3), Standing::TimedOut),
            (1, 0, 0, Some(3), Standing::TooFewDrives),
            (1, 0, 0, None, Standing::Held),
            (0, 1, 0, None, Standing::TimedOut),
        ] {
            let found = standing(live, expired, silent, counts);
            assert_eq!(found, expected, "{live} {expired} {silent} {counts:?}");
        }
    }

    #[test]
    fn the_lease_is_over_with_the_drive_without_which_there_is_no_quorum() {
        assert_eq!(rest(vec![Some(9), Some(3), Some(7)], 2), Some(7));
        assert_eq!(rest(vec![Some(9), Some(3)], 1), Some(9));
        assert_eq!(rest(vec![Some(9)], 2), Some(0));
        assert_eq!(rest(vec![Some(9), None], 1), None, "a clock that differs");
    }
}
