//! An audit of writes at times when another host could hold the lock. It compares the writes on the
//! drives with the locks that the drives granted, all by the drives' own clocks. No host is asked.

use crate::drives::{Change, Drives, Event};
use crate::machine::Machine;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use testbed::wait_until;

/// Blocks of a drive, of 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Name of the drive.
    pub drive: String,
    /// First block.
    pub first: u64,
    /// Number of blocks.
    pub count: u64,
}

impl Extent {
    fn meets(&self, drive: &str, change: &Change) -> bool {
        self.drive == drive
            && change.first < self.first + self.count
            && self.first < change.first + change.count
    }
}

/// Blocks that only a host with an exclusive lock may write.
pub struct Audit {
    what: String,
    lock: String,
    /// Drives that vote for the lock, oldest first.
    voters: Vec<Voters>,
    lease: Duration,
    extents: Vec<Extent>,
    since: Duration,
    rule: Rule,
}

/// The time until which a host may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The end of its leases: from then on another host could have the lock.
    Leases,
    /// The time when a drive gives the lock to another host: from then on the drives refuse its
    /// data.
    Refused,
}

/// Drives that vote for a lock from a certain time on.
struct Voters {
    since: Duration,
    drives: Vec<String>,
}

impl Voters {
    fn new(since: Duration, drives: &[&str]) -> Voters {
        Voters { since, drives: drives.iter().map(|&drive| drive.to_owned()).collect() }
    }
}

/// A change that is a violation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    at: Duration,
    drive: String,
    host: String,
    first: u64,
    /// Time for which the host had already had too few leases to keep the lock; `None` if it never
    /// had enough.
    late: Option<Duration>,
    /// Another host that had the lock on more than half of the drives.
    holder: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { at, drive, host, first, .. } = self;
        write!(f, "{host} changed block {first} of {drive} at {:.3} s, ", at.as_secs_f64())?;
        match &self.late {
            Some(late) => write!(f, "{:.3} s after its leases had ended", late.as_secs_f64())?,
            None => write!(f, "without the lock")?,
        }
        match &self.holder {
            Some(holder) => write!(f, ", when {holder} had the lock"),
            None => Ok(()),
        }
    }
}

/// Number of changes of the blocks by each host.
pub type Counts = BTreeMap<String, usize>;

impl Audit {
    /// An audit of an LV that is active on `host`, and whose lock is on these drives.
    pub fn of_lv(
        host: &Machine,
        lv: &str,
        lock: String,
        drives: &[&str],
        lease: Duration,
    ) -> Result<Audit> {
        let name = lv.replace('/', "-");
        let extents = extents(host, &host.quiet(&format!("dmsetup table {name}"))?)?;
        let voters = vec![Voters::new(Duration::ZERO, drives)];
        let (what, since, rule) = (lv.to_owned(), Duration::ZERO, Rule::Leases);
        Ok(Audit { what, lock, voters, lease, extents, since, rule })
    }

    /// The same where the drives refuse the data of a host that lost the lock. A host whose leases
    /// have ended may write until the first drive gives the lock to another one.
    pub fn with_reservations(self) -> Audit {
        Audit { rule: Rule::Refused, ..self }
    }

    /// Also watches the present location of the LV.
    pub fn follow(&mut self, host: &Machine) -> Result<()> {
        let name = self.what.replace('/', "-");
        self.extents.extend(extents(host, &host.quiet(&format!("dmsetup table {name}"))?)?);
        Ok(())
    }

    /// Makes these drives vote for the lock, from the time when `host` had it on more than half of
    /// them.
    pub fn votes(&mut self, host: &str, voters: &[&str], drives: &Drives) -> Result<()> {
        let mut grants = Vec::new();
        for drive in voters {
            grants.extend(held_since(&drives.events(drive)?, host, &self.lock));
        }
        grants.sort_unstable();
        let since = grants.get(voters.len() / 2);
        let since = since.with_context(|| format!("{host} has no majority of {voters:?}"))?;
        self.voters.push(Voters::new(*since, voters));
        Ok(())
    }

    /// An audit, from now on, of the first MiB of these partitions, where a VG's metadata is.
    pub fn of_metadata(
        host: &Machine,
        vg: &str,
        lock: String,
        drives: &Drives,
        lease: Duration,
    ) -> Result<Audit> {
        let (mut extents, mut names) = (Vec::new(), Vec::new());
        for node in host.data_partitions()?.split(' ') {
            let device = host.quiet(&format!("cat /sys/class/block/{}/dev", &node[5..]))?;
            let (drive, first) = place(host, device.trim())?;
            names.push(drive.clone());
            extents.push(Extent { drive, first, count: 2048 });
        }
        let what = format!("the metadata of {vg}");
        let since = drives.time(&names[0])?;
        let voters = vec![Voters { since: Duration::ZERO, drives: names }];
        Ok(Audit { what, lock, voters, lease, extents, since, rule: Rule::Leases })
    }

    /// The number of changes by each host up to now.
    pub fn counts(&self, drives: &Drives) -> Result<Counts> {
        let mut counts = Counts::new();
        for (_, change) in self.changes(drives)? {
            *counts.entry(change.host).or_default() += 1;
        }
        Ok(counts)
    }

    /// Waits until a host has changed once more all blocks that it writes to.
    pub fn wait_for_writes(&self, drives: &Drives, host: &str) -> Result<()> {
        let count = || Ok::<_, anyhow::Error>(self.counts(drives)?.remove(host).unwrap_or(0));
        // There are two regions, and they are not always equally fast.
        let enough = count()? + 3 * usize::try_from(lab_writer::REGION)?;
        wait_until(Duration::from_secs(90), &format!("{host} to write to {}", self.what), || {
            Ok((count()? >= enough).then_some(()))
        })
    }

    /// Fails if a host has changed the blocks when another could hold the lock, or if one of these
    /// hosts never changed any, because then the audit proves nothing.
    pub fn check(&self, drives: &Drives, hosts: &[&str]) -> Result<()> {
        let mut events = Vec::new();
        for drive in crate::interfaces::DRIVES {
            let of_lock = drives.events(drive)?.into_iter().filter(|e| e.resource == self.lock);
            events.extend(of_lock.map(|event| (drive.to_owned(), event)));
        }
        let changes = self.changes(drives)?;
        let (violations, left) = judge(&self.voters, self.lease, self.rule, events, changes);
        if let Some(first) = violations.first() {
            let last = violations.last().unwrap_or(first);
            bail!(
                "{} wrote to {} when another host could hold the lock, {} times; the first: \
                 {first}; the last: {last}",
                first.host,
                self.what,
                violations.len()
            );
        }
        let counts = self.counts(drives)?;
        for &host in hosts {
            ensure!(counts.contains_key(host), "{host} has not written to {}", self.what);
        }
        drives.transcript.step("audit", &format!("no change of {} without its lock", self.what));
        for (host, count) in counts {
            let left = left.get(&host).copied().unwrap_or_default().as_secs_f64();
            drives
                .transcript
                .detail(&format!("{host}: {count} changes, with at least {left:.1} s left"));
        }
        Ok(())
    }

    fn changes(&self, drives: &Drives) -> Result<Vec<(String, Change)>> {
        let mut found = Vec::new();
        for drive in crate::interfaces::DRIVES {
            let inside = |change: &Change| {
                change.at >= self.since && self.extents.iter().any(|e| e.meets(drive, change))
            };
            let changes = drives.changes(drive)?.into_iter().filter(inside);
            found.extend(changes.map(|change| (drive.to_owned(), change)));
        }
        Ok(found)
    }
}

/// Finds changes by a host that had too few leases to keep others from the lock. Also returns the
/// shortest time that the leases of each host still had at any of its other changes.
fn judge(
    voters: &[Voters],
    lease: Duration,
    rule: Rule,
    mut events: Vec<(String, Event)>,
    mut changes: Vec<(String, Change)>,
) -> (Vec<Violation>, BTreeMap<String, Duration>) {
    events.sort_by_key(|(_, event)| event.at);
    changes.sort_by_key(|(_, change)| change.at);
    let mut events = events.into_iter().peekable();
    // Start of each host's lease, by drive.
    let mut leases: BTreeMap<String, BTreeMap<String, Duration>> = BTreeMap::new();
    let (mut found, mut least) = (Vec::new(), BTreeMap::new());
    for (drive, change) in changes {
        while let Some((drive, event)) = events.next_if(|(_, event)| event.at <= change.at) {
            follow(leases.entry(drive).or_default(), &event);
        }
        let voting = voters.iter().rev().find(|voters| voters.since <= change.at);
        let drives = voting.map_or(&[][..], |voters| &voters.drives);
        let votes: Vec<_> = drives.iter().filter_map(|drive| leases.get(drive)).collect();
        // With fewer than `keep` leases, the other drives are a majority.
        let (acquire, keep) = (drives.len() / 2 + 1, drives.len() - drives.len() / 2);
        let mut ends: Vec<Duration> =
            votes.iter().filter_map(|hosts| hosts.get(&change.host)).map(|b| *b + lease).collect();
        ends.sort_unstable_by(|one, other| other.cmp(one));
        let end = keep.checked_sub(1).and_then(|last| ends.get(last)).copied();
        if let Some(left) = end.and_then(|end| end.checked_sub(change.at)).filter(|l| !l.is_zero())
        {
            let least = least.entry(change.host).or_insert(left);
            *least = left.min(*least);
            continue;
        }
        let others = votes.iter().flat_map(|hosts| hosts.keys()).any(|host| *host != change.host);
        if rule == Rule::Refused && end.is_some() && !others {
            continue;
        }
        let holds = |host: &str| votes.iter().filter(|h| h.contains_key(host)).count();
        let holder = votes
            .iter()
            .flat_map(|hosts| hosts.keys())
            .find(|host| **host != change.host && holds(host) >= acquire);
        found.push(Violation {
            at: change.at,
            drive,
            first: change.first,
            late: end.map(|end| change.at - end),
            holder: holder.cloned(),
            host: change.host,
        });
    }
    (found, least)
}

/// The time since which a host has had a lock on a drive without a break.
fn held_since(events: &[Event], host: &str, lock: &str) -> Option<Duration> {
    let (mut leases, mut since) = (BTreeMap::new(), None);
    for event in events.iter().filter(|event| event.resource == lock) {
        follow(&mut leases, event);
        since = leases.contains_key(host).then(|| since.unwrap_or(event.at));
    }
    since
}

/// Applies the effect of a command on the leases that hosts have on a drive.
fn follow(hosts: &mut BTreeMap<String, Duration>, event: &Event) {
    if !event.is_good() {
        return;
    }
    match event.kind.as_str() {
        "trylock" | "lock" | "refresh" => {
            hosts.insert(event.host.clone(), event.at);
        }
        "break" => {
            hosts.clear();
            hosts.insert(event.host.clone(), event.at);
        }
        "unlock" | "destroy" => {
            hosts.remove(&event.host);
        }
        _ => {}
    }
}

/// The blocks on drives of a device-mapper table with striped and linear targets.
fn extents(host: &Machine, table: &str) -> Result<Vec<Extent>> {
    let mut found = Vec::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (count, devices) = match words[..] {
            [_, count, "linear", ref devices @ ..] => (count.parse::<u64>()?, devices),
            [_, count, "striped", stripes, _, ref devices @ ..] => {
                (count.parse::<u64>()? / stripes.parse::<u64>()?, devices)
            }
            _ => bail!("a table that the lab does not understand: {line}"),
        };
        for pair in devices.chunks_exact(2) {
            let (drive, begin) = place(host, pair[0])?;
            found.push(Extent { drive, first: begin + pair[1].parse::<u64>()?, count });
        }
    }
    ensure!(!found.is_empty(), "an empty table");
    Ok(found)
}

/// The drive of a block device, given by its numbers, and its first block on the drive. The device
/// may also be a multipath map of a whole drive.
fn place(host: &Machine, device: &str) -> Result<(String, u64)> {
    let script = format!(
        "cd -P /sys/dev/block/{device} && path=$(ls slaves 2>/dev/null | head -n 1); \
         [ -z \"$path\" ] || cd -P slaves/$path; cat start 2>/dev/null || echo 0; \
         [ -e partition ] && cd ..; tail -c +5 device/vpd_pg80 2>/dev/null || cat device/serial"
    );
    let text = host.quiet(&script)?;
    let (begin, drive) = text.split_once('\n').context("a block device's place")?;
    Ok((drive.trim().to_owned(), begin.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);

    fn event(drive: &str, at: u64, host: &str, kind: &str, status: &str) -> (String, Event) {
        let event = Event {
            at: Duration::from_secs(at),
            host: host.into(),
            path: "0".into(),
            kind: kind.into(),
            resource: "lv x".into(),
            status: status.into(),
        };
        (drive.to_owned(), event)
    }

    fn change(at: u64, host: &str) -> (String, Change) {
        let at = Duration::from_secs(at);
        ("d0".into(), Change { at, host: host.into(), first: 0, count: 8 })
    }

    /// Host a takes the lock at 0 s and refreshes it on two of three drives at 20 s.
    fn taken() -> Vec<(String, Event)> {
        let mut events: Vec<_> =
            ["d0", "d1", "d2"].map(|drive| event(drive, 0, "a", "trylock", "00")).into();
        events.extend(["d0", "d1"].map(|drive| event(drive, 20, "a", "refresh", "00")));
        events
    }

    fn found(events: Vec<(String, Event)>, changes: Vec<(String, Change)>) -> Vec<Violation> {
        judge(&voters(), LEASE, Rule::Leases, events, changes).0
    }

    fn voters() -> [Voters; 1] {
        [Voters::new(Duration::ZERO, &["d0", "d1", "d2"])]
    }

    #[test]
    fn a_holder_may_write_until_its_leases_end() {
        let quiet = found(taken(), vec![change(1, "a"), change(79, "a")]);
        assert_eq!(quiet, []);
        let (_, left) =
            judge(&voters(), LEASE, Rule::Leases, taken(), vec![change(1, "a"), change(21, "a")]);
        assert_eq!(left["a"], Duration::from_secs(59));
        let late = found(taken(), vec![change(81, "a")]);
        assert_eq!(late.len(), 1);
        assert_eq!(late[0].late, Some(Duration::from_secs(1)));
        assert_eq!(late[0].holder, None);
    }

    #[test]
    fn nobody_else_may_write() {
        let mut events = taken();
        events.push(event("d2", 30, "b", "trylock", "18"));
        let other = found(events, vec![change(31, "b")]);
        assert_eq!((other[0].late, other[0].holder.as_deref()), (None, Some("a")));
        assert_eq!(found(Vec::new(), vec![change(0, "a")]).len(), 1);
    }

    #[test]
    fn a_lock_that_was_broken_or_released_is_another_hosts() {
        let mut events = taken();
        events.extend(["d0", "d1"].map(|drive| event(drive, 85, "b", "break", "00")));
        let both = found(events.clone(), vec![change(86, "a"), change(86, "b")]);
        assert_eq!(both.len(), 1);
        assert_eq!(both[0].holder.as_deref(), Some("b"));
        // A refresh that was refused does not count.
        events.push(event("d0", 87, "a", "refresh", "18"));
        assert_eq!(found(events, vec![change(88, "a")]).len(), 1);
        let mut events = taken();
        events.extend(["d0", "d1"].map(|drive| event(drive, 30, "a", "unlock", "00")));
        assert_eq!(found(events, vec![change(31, "a")]).len(), 1);
    }

    #[test]
    fn with_reservations_a_holder_may_write_until_another_is_given_the_lock() {
        let mut events = taken();
        let found = |events: &[_], change| {
            judge(&voters(), LEASE, Rule::Refused, events.to_vec(), vec![change]).0
        };
        assert_eq!(found(&events, change(99, "a")), []);
        assert_eq!(found(&events, change(1, "b")).len(), 1, "it never had the lock");
        // One drive is enough.
        events.push(event("d2", 85, "b", "break", "00"));
        assert_eq!(found(&events, change(84, "a")), []);
        assert_eq!(found(&events, change(86, "a")).len(), 1);
        events.push(event("d1", 85, "b", "break", "00"));
        assert_eq!(found(&events, change(86, "a"))[0].holder.as_deref(), Some("b"));
        assert_eq!(found(&events, change(86, "b")), []);
    }

    #[test]
    fn a_lock_is_held_since_it_was_taken_last() {
        let events: Vec<Event> = [
            event("d0", 0, "a", "trylock", "00"),
            event("d0", 5, "b", "trylock", "18"),
            event("d0", 9, "a", "unlock", "00"),
            event("d0", 10, "a", "trylock", "00"),
            event("d0", 20, "a", "refresh", "00"),
        ]
        .map(|(_, event)| event)
        .into();
        let since = |events: &[Event]| held_since(events, "a", "lv x");
        assert_eq!(since(&events), Some(Duration::from_secs(10)));
        assert_eq!(since(&events[..3]), None);
        assert_eq!(held_since(&events, "b", "lv x"), None);
    }

    #[test]
    fn those_drives_count_that_vote_at_the_time() {
        let mut events = taken();
        events.extend(["d3", "d4"].map(|drive| event(drive, 30, "a", "trylock", "00")));
        events.extend(["d0", "d1"].map(|drive| event(drive, 41, "a", "unlock", "00")));
        let moved = [
            Voters::new(Duration::ZERO, &["d0", "d1", "d2"]),
            Voters::new(Duration::from_secs(40), &["d2", "d3", "d4"]),
        ];
        let judged =
            |at| judge(&moved, LEASE, Rule::Leases, events.clone(), vec![change(at, "a")]).0;
        assert_eq!(judged(39), []);
        assert_eq!(judged(89), []);
        assert_eq!(judged(91).len(), 1);
        // Without the move it would have lost its majority.
        assert_eq!(found(events, vec![change(42, "a")]).len(), 1);
    }
}
