//! `idmctl selftest` on models of drives: it recognises each profile, finds each rule that is
//! broken, and leaves nothing behind.

use core::time::Duration;
use idm_emulator::{Drive, Profile};
use idm_protocol::{
    Class, DriveCommand, HostId, Mode, MutexOp, Record, ResourceId, State, Status, ValueUpdate,
};
use idmctl::selftest::bench::{Bench, is_scratch};
use idmctl::selftest::finding::{Finding, Verdict};
use idmctl::selftest::rules::Rule;
use idmctl::selftest::subject::{Answer, Model, Stop, Subject};
use idmctl::selftest::{compare, examine};

const RUN: [u8; 14] = [5; 14];

fn findings(subject: &mut dyn Subject) -> Vec<(Rule, Finding)> {
    let outcome = examine(&mut Bench::new(subject, RUN), true, |_, _, _| {});
    assert_eq!(outcome.stop, None);
    outcome.findings
}

#[test]
fn each_profile_gets_exactly_its_name_and_is_safe() {
    for (name, profile) in Profile::named() {
        let found = findings(&mut Model::new(profile));
        assert_eq!(compare(&found, &[]).exact, [name]);
        for (rule, finding) in found {
            assert_ne!(finding.verdict, Verdict::Unsafe, "{name} {}: {finding:?}", rule.name);
        }
    }
}

#[test]
fn what_newer_firmware_does_is_what_is_relied_on() {
    for (rule, finding) in findings(&mut Model::new(Profile::current())) {
        assert_eq!(finding.differs, Vec::<String>::new(), "{}", rule.name);
        assert!(!finding.skipped);
    }
}

#[test]
fn an_unknown_mixture_is_compared_with_the_nearest() {
    let profile =
        Profile { destroy_by_stranger: false, break_keeps_value: false, ..Profile::current() };
    let matches = compare(&findings(&mut Model::new(profile)), &[]);
    assert_eq!(matches.exact, Vec::<&str>::new());
    assert_eq!(matches.differences.len(), 1);
}

#[test]
fn without_the_limits_all_that_remain_possible_are_named() {
    let mut model = Model::new(Profile::current());
    let outcome = examine(&mut Bench::new(&mut model, RUN), false, |_, _, _| {});
    assert_eq!(compare(&outcome.findings, &[]).exact, ["current", "current+small"]);
}

/// A drive that breaks a rule.
struct Mutant {
    model: Model,
    kind: Kind,
}

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    LocksWhatIsHeld,
    SharesWhatIsExclusive,
    LocksBesideSharers,
    LocksWhatIsTimedOut,
    RefreshesForAnybody,
    RefreshesTheBroken,
    BreaksTheLiving,
    BreaksLiveSharers,
    KeepsTheBroken,
    UnlocksForAnybody,
    UnlocksNothing,
    UnlocksAllSharers,
    SecondUnlockStores,
    DestroysWhatIsHeld,
    DestroysWhatIsShared,
    DestroysNothing,
    PromotesBesideSharers,
    PromotesNothing,
    PromotesBesideTheExpired,
    DemotesNothing,
    RefusesSharers,
    LosesLockOnSecondTry,
    ShortLease,
    LongLease,
    RefreshRenewsNothing,
    RefreshKeepsLength,
    ExpiredAreGone,
    LateRefreshRefused,
    LateUnlockRefused,
    NewSharerRemovesTheExpired,
    StoresNoValue,
    StoresFirstValueOnly,
    LockOverwritesValue,
    LockDropsMetadata,
    BreakDropsMetadata,
    RefreshSpoilsMetadata,
    RecordsAreHidden,
    NoEndMarker,
    CountersLie,
    AbsentIsGood,
    OtherHostInRecord,
    NoVersion,
    FullIsFailed,
}

/// Each kind with the rule that finds it.
const MUTANTS: [(Kind, &str, Verdict); 43] = {
    use Kind::*;
    use Verdict::{DiffersButSafe as Safe, Unsafe};
    [
        (LocksWhatIsHeld, "lock-held", Unsafe),
        (SharesWhatIsExclusive, "share-beside-exclusive", Unsafe),
        (LocksBesideSharers, "share", Unsafe),
        (LocksWhatIsTimedOut, "lease-over", Unsafe),
        (RefreshesForAnybody, "refresh-by-stranger", Unsafe),
        (RefreshesTheBroken, "break-over", Unsafe),
        (BreaksTheLiving, "break-live", Unsafe),
        (BreaksLiveSharers, "break-some", Unsafe),
        (KeepsTheBroken, "break-over", Safe),
        (UnlocksForAnybody, "unlock-by-stranger", Unsafe),
        (UnlocksNothing, "unlock", Safe),
        (UnlocksAllSharers, "unlock-shared", Unsafe),
        (SecondUnlockStores, "unlock-twice", Unsafe),
        (DestroysWhatIsHeld, "destroy-by-stranger", Unsafe),
        (DestroysWhatIsShared, "destroy-shared", Unsafe),
        (DestroysNothing, "destroy", Safe),
        (PromotesBesideSharers, "promote-shared", Unsafe),
        (PromotesNothing, "promote", Unsafe),
        (PromotesBesideTheExpired, "promote-over", Unsafe),
        (DemotesNothing, "demote", Safe),
        (RefusesSharers, "share", Safe),
        (LosesLockOnSecondTry, "lock-twice", Unsafe),
        (ShortLease, "lease-length", Unsafe),
        (LongLease, "lease-length", Safe),
        (RefreshRenewsNothing, "lease-renewed", Unsafe),
        (RefreshKeepsLength, "lease-renewed", Safe),
        (ExpiredAreGone, "lease-over", Unsafe),
        (LateRefreshRefused, "refresh-late", Safe),
        (LateUnlockRefused, "unlock-late", Safe),
        (NewSharerRemovesTheExpired, "share-over", Safe),
        (StoresNoValue, "value-stored", Safe),
        (StoresFirstValueOnly, "value-stored", Unsafe),
        (LockOverwritesValue, "value-kept", Safe),
        (LockDropsMetadata, "metadata-of-lock", Unsafe),
        (BreakDropsMetadata, "break-over", Unsafe),
        (RefreshSpoilsMetadata, "metadata-of-refresh", Unsafe),
        (RecordsAreHidden, "table", Unsafe),
        (NoEndMarker, "table", Safe),
        (CountersLie, "table", Safe),
        (AbsentIsGood, "absent", Unsafe),
        (OtherHostInRecord, "record", Unsafe),
        (NoVersion, "version", Safe),
        (FullIsFailed, "limits", Safe),
    ]
};

impl Mutant {
    fn perform(&mut self, op: MutexOp, record: Record) -> Status {
        let now = self.model.time();
        match self.model.drive.perform(now, &DriveCommand::Mutex(op, record)) {
            idm_protocol::Reply::Status(status) => status,
            idm_protocol::Reply::Table(_) => unreachable!(),
        }
    }

    fn records(&self, id: ResourceId) -> Vec<Record> {
        let table = self.model.drive.table(self.model.time());
        table.into_iter().filter(|record| record.resource == id).collect()
    }

    /// Takes a mutex away from these of its holders.
    fn evict(&mut self, id: ResourceId, meant: impl Fn(&Record) -> bool) {
        for record in self.records(id).into_iter().filter(|record| meant(record)) {
            self.perform(MutexOp::Unlock, record);
        }
    }

    /// What the drive does in place of the command; `None`: what it ought to.
    fn instead(&mut self, op: MutexOp, sent: &Record) -> Option<Status> {
        use Kind::*;
        let id = sent.resource;
        let records = self.records(id);
        let held = |record: &&Record| record.state != State::Unlocked;
        let live = |record: &Record| record.state.is_live();
        let by_others: Vec<&Record> =
            records.iter().filter(held).filter(|record| record.host != sent.host).collect();
        let own = records.iter().find(|record| record.host == sent.host);
        let others_live = by_others.iter().any(|record| live(record));
        let others_shared = by_others.iter().all(|record| record.class == Class::Shared);
        let is_ex = sent.class.mode() == Mode::Exclusive;
        let beside = !by_others.is_empty();
        use MutexOp::{Break, Destroy, Refresh, Trylock, Unlock};
        match (self.kind, op) {
            (LocksWhatIsHeld, Trylock) if is_ex && others_live && !others_shared => {}
            (SharesWhatIsExclusive, Trylock) if !is_ex && others_live && !others_shared => {}
            (LocksBesideSharers, Trylock) if is_ex && others_live && others_shared => {}
            (LocksWhatIsTimedOut, Trylock) if beside && !others_live => {}
            (BreaksTheLiving, Break) if others_live && !others_shared => {}
            (BreaksLiveSharers, Break) if others_live && others_shared => {}
            (NewSharerRemovesTheExpired, Trylock) if beside && !others_live => {}
            (RefreshesForAnybody, Refresh) if others_live && own.is_none() => {
                return Some(Status::Good);
            }
            (RefreshesTheBroken, Refresh) if others_live && own.is_none() && is_ex => {
                // Only where it was broken: another host holds it, with a mark of its own.
                return Some(Status::Good);
            }
            (KeepsTheBroken, Break) if beside && !others_live => return Some(Status::Conflict),
            (UnlocksForAnybody, Unlock) if beside && own.is_none() => {
                self.evict(id, |_| true);
                return Some(Status::Conflict);
            }
            (UnlocksNothing, Unlock) => return Some(Status::Good),
            (UnlocksAllSharers, Unlock) if own.is_some() && others_shared && beside => {
                self.evict(id, |_| true);
                return Some(Status::Good);
            }
            (SecondUnlockStores, Unlock) if own.is_some_and(|it| it.state == State::Unlocked) => {
                let taken = Record { countdown_ms: 10_000, ..sent.clone() };
                self.perform(Trylock, taken);
                return None;
            }
            (DestroysWhatIsHeld, Destroy) if others_live && !others_shared => {
                self.evict(id, |_| true);
                return None;
            }
            (DestroysWhatIsShared, Destroy) if others_live && others_shared => {
                self.evict(id, |_| true);
                return Some(Status::Good);
            }
            (DestroysNothing, Destroy) if own.is_some() && !beside => return Some(Status::Good),
            (PromotesBesideSharers, Refresh) if is_ex && others_live => return Some(Status::Good),
            (PromotesBesideTheExpired, Refresh) if is_ex && beside && own.is_some() => {
                return Some(Status::Good);
            }
            (PromotesNothing, Refresh)
                if is_ex && own.is_some_and(|it| it.class == Class::Shared) =>
            {
                let shared = Record { class: Class::Shared, ..sent.clone() };
                return Some(self.perform(Refresh, shared));
            }
            (DemotesNothing, Refresh) if !is_ex && own.is_some() => {
                let alone = Record { class: Class::Exclusive, ..sent.clone() };
                return Some(self.perform(Refresh, alone));
            }
            (RefusesSharers, Trylock) if beside && others_shared => return Some(Status::Conflict),
            (LosesLockOnSecondTry, Trylock) if own.is_some_and(live) => {
                self.evict(id, |_| true);
                return Some(Status::Terminated);
            }
            (RefreshRenewsNothing, Refresh) if own.is_some_and(live) => return Some(Status::Good),
            (LateRefreshRefused, Refresh) if own.is_some_and(|it| it.state == State::TimedOut) => {
                return Some(Status::Conflict);
            }
            (LateUnlockRefused, Unlock) if own.is_some_and(|it| it.state == State::TimedOut) => {
                return Some(Status::Conflict);
            }
            (AbsentIsGood, _) if records.is_empty() && op != Trylock => return Some(Status::Good),
            _ => return None,
        }
        // The new one takes the place of the others.
        self.evict(id, |record| record.host != sent.host);
        Some(self.perform(Trylock, sent.clone()))
    }

    /// The command as the drive understands it.
    fn spoilt(&self, op: MutexOp, sent: &Record) -> Record {
        use Kind::*;
        let mut record = sent.clone();
        let before = self.records(sent.resource);
        let own = before.iter().find(|it| it.host == sent.host);
        match (self.kind, op) {
            (ShortLease, MutexOp::Trylock) => record.countdown_ms -= record.countdown_ms / 50,
            (LongLease, MutexOp::Trylock) => record.countdown_ms += record.countdown_ms / 10,
            (RefreshKeepsLength, MutexOp::Refresh) => {
                record.countdown_ms = own.map_or(record.countdown_ms, |it| it.countdown_ms);
            }
            (StoresNoValue, MutexOp::Unlock) => record.value_update = ValueUpdate::Keep,
            (StoresFirstValueOnly, MutexOp::Unlock)
                if own.is_some_and(|it| it.value.get() != 0) =>
            {
                record.value_update = ValueUpdate::Keep;
            }
            (LockOverwritesValue, MutexOp::Trylock) => record.value_update = ValueUpdate::Store,
            (LockDropsMetadata, MutexOp::Trylock) if !before.is_empty() => {
                record.metadata = [0; 64]
            }
            (BreakDropsMetadata, MutexOp::Break) => record.metadata = [0; 64],
            (RefreshSpoilsMetadata, MutexOp::Refresh) => record.metadata = [0xEE; 64],
            _ => {}
        }
        record
    }
}

impl Subject for Mutant {
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        if let Some(status) = self.instead(op, record) {
            return Ok(Answer { status, sense: Vec::new() });
        }
        let spoilt = self.spoilt(op, record);
        let mut answer = self.model.change(op, &spoilt)?;
        if self.kind == Kind::FullIsFailed && matches!(answer.status, Status::Full(_)) {
            answer.status = Status::Failed;
        }
        Ok(answer)
    }

    fn table(&mut self, blocks: u32) -> Result<Option<Vec<u8>>, Stop> {
        let mut records = self.model.drive.table(self.model.time());
        match self.kind {
            Kind::RecordsAreHidden if records.len() > 1 => drop(records.pop()),
            Kind::ExpiredAreGone => records.retain(|it| it.state != State::TimedOut),
            Kind::OtherHostInRecord => {
                for record in &mut records {
                    record.host = HostId::from_bytes([9; 32]);
                }
            }
            _ => {}
        }
        let end = std::iter::repeat_with(Record::end_of_table);
        let count = match self.kind {
            Kind::NoEndMarker => records.len(),
            _ => blocks as usize,
        };
        let blocks = records.into_iter().chain(end).take(count);
        Ok(Some(blocks.flat_map(|record| record.encode()).collect()))
    }

    fn counters(&mut self) -> Result<Vec<u8>, Stop> {
        let mut counters = self.model.counters()?;
        if self.kind == Kind::CountersLie {
            counters[1] = counters[1].wrapping_add(1);
        }
        Ok(counters)
    }

    fn version(&mut self) -> Result<Option<u8>, Stop> {
        if self.kind == Kind::NoVersion { Ok(None) } else { self.model.version() }
    }

    fn now(&self) -> Duration {
        self.model.now()
    }

    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        self.model.sleep(time)
    }
}

#[test]
fn each_rule_that_is_broken_is_found() {
    let small = Profile { limits: Profile::rev2313().limits, ..Profile::current() };
    let mut missed = Vec::new();
    for (kind, name, expected) in MUTANTS {
        let profile = if kind == Kind::FullIsFailed { small } else { Profile::current() };
        let mut mutant = Mutant { model: Model::new(profile), kind };
        let mut bench = Bench::new(&mut mutant, RUN);
        let rules = idmctl::selftest::rules::all();
        let rule = rules.iter().find(|rule| rule.name == name).expect(name);
        let finding = (rule.test)(&mut bench).unwrap();
        if finding.verdict < expected || finding.differs.is_empty() {
            missed.push((kind, finding));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_rule_has_a_mutant_or_is_about_what_may_be_either_way() {
    let may_be = |name: &str| {
        ["value-by-", "value-of-", "value-after-"].iter().any(|it| name.starts_with(it))
            || ["unlock-class", "destroy-held"].contains(&name)
    };
    for rule in idmctl::selftest::rules::all() {
        let has = MUTANTS.iter().any(|(_, name, _)| *name == rule.name);
        assert!(has || may_be(rule.name), "{}", rule.name);
    }
}

#[test]
fn every_heading_is_in_the_page() {
    let page = include_str!("../../../docs/protocol.md");
    for rule in idmctl::selftest::rules::all() {
        let heading = format!("\n## {}\n", rule.heading);
        assert!(page.contains(&heading), "{}: {}", rule.name, rule.heading);
    }
}

/// So many moments of a test on each profile.
const MOMENTS: usize = 5;

/// A drive whose test is interrupted after so many commands.
struct Interrupted {
    model: Model,
    left: usize,
}

impl Interrupted {
    fn count(&mut self) -> Result<(), Stop> {
        self.left = self.left.checked_sub(1).ok_or(Stop::Interrupted)?;
        Ok(())
    }
}

impl Subject for Interrupted {
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        self.count()?;
        self.model.change(op, record)
    }

    fn table(&mut self, blocks: u32) -> Result<Option<Vec<u8>>, Stop> {
        self.count()?;
        self.model.table(blocks)
    }

    fn counters(&mut self) -> Result<Vec<u8>, Stop> {
        self.count()?;
        self.model.counters()
    }

    fn version(&mut self) -> Result<Option<u8>, Stop> {
        self.model.version()
    }

    fn now(&self) -> Duration {
        self.model.now()
    }

    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        self.model.sleep(time)
    }
}

fn scratch(drive: &Drive, model: &Model) -> usize {
    drive.table(model.time()).iter().filter(|record| is_scratch(&record.resource)).count()
}

#[test]
fn interrupted_at_any_moment_nothing_is_left() {
    let mut random = fastrand::Rng::with_seed(16);
    let mut dirty = 0;
    for (name, profile) in Profile::named() {
        for _ in 0..MOMENTS {
            let left = random.usize(..700);
            let mut drive = Interrupted { model: Model::new(profile), left };
            // A lock that is no test's stays.
            let mut other = Bench::new(&mut drive.model, [6; 14]).record(
                &idmctl::selftest::bench::Payload::new(
                    ResourceId::from_bytes([b'v'; 64]),
                    9,
                    Mode::Exclusive,
                ),
            );
            other.countdown_ms = u64::MAX;
            drive.model.change(MutexOp::Trylock, &other).unwrap();
            let outcome = examine(&mut Bench::new(&mut drive, RUN), true, |_, _, _| {});
            dirty += usize::from(scratch(&drive.model.drive, &drive.model) > 0);
            assert_eq!(outcome.stop, (outcome.findings.len() < 42).then_some(Stop::Interrupted));
            Bench::new(&mut drive.model, RUN).clear().unwrap();
            let table = drive.model.drive.table(drive.model.time());
            assert_eq!(table.len(), 1, "{name} after {left} commands: {table:?}");
        }
    }
    assert!(dirty > 50, "most interruptions leave something to be given back: {dirty}");
}
