//! `idmctl selftest` on models of drives: it recognises each profile, finds each rule that is
//! broken, and leaves nothing behind.

mod page;

use core::time::Duration;
use idm_emulator::nvme::{NvmeReply, status as nvme_status};
use idm_emulator::reservation::Access;
use idm_emulator::reservation::nvme::{Host, NamespaceReservations};
use idm_emulator::{Drive, DriveTime, Profile};
use idm_protocol::nvme::AdminCommand;
use idm_protocol::reservation::ReservationType::WriteExclusiveAllRegistrants;
use idm_protocol::reservation::nvme::{
    self as reservation, AcquireAction, RegisterAction, ReservationCommand,
};
use idm_protocol::{
    Class, DriveCommand, HostId, Mode, MutexOp, Record, ResourceId, State, Status, ValueUpdate,
    nvme,
};
use idmctl::selftest::bench::{Bench, is_scratch};
use idmctl::selftest::finding::{Finding, Verdict};
use idmctl::selftest::rules::Rule;
use idmctl::selftest::subject::{Answer, Cut, Model, Stop, Subject, meaning};
use idmctl::selftest::{compare, examine};
use lvmlockd_idm::transport::{RawAnswer, RawStatus};

use std::fmt::Write as _;

const RUN: [u8; 14] = [5; 14];

fn findings(subject: &mut dyn Subject) -> Vec<(Rule, Finding)> {
    let outcome = examine(&mut Bench::new(subject, RUN), true, |_, _, _| {});
    assert_eq!(outcome.stop, None);
    outcome.findings
}

/// Profiles that differ only while somebody has reserved the drive.
const ALIKE: [&str; 2] = ["current", "current+respects-reservations"];

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

/// An NVMe drive, which another host may reserve.
struct NvmeModel {
    drive: Drive,
    reservations: NamespaceReservations,
    now: Duration,
}

const OTHER_HOST: Host = Host([2; 16]);

impl NvmeModel {
    fn new(profile: Profile) -> NvmeModel {
        let (drive, reservations) = (Drive::new(profile), NamespaceReservations::default());
        NvmeModel { drive, reservations, now: Duration::from_secs(1) }
    }

    fn send(&mut self, command: &AdminCommand, data: &[u8]) -> NvmeReply {
        let now = DriveTime::from_micros(self.now.as_micros() as u64);
        self.drive.execute_admin(now, command, data)
    }

    fn by_other_host(&mut self, command: &ReservationCommand, keys: [u64; 2]) {
        let keys = reservation::keys(keys[0], keys[1]);
        let done = self.reservations.execute(&OTHER_HOST, command, &keys);
        assert_eq!(done.status, 0);
    }
}

impl Subject for NvmeModel {
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        let respects = self.drive.profile().idm_commands_respect_reservations;
        let status = match self.reservations.permits(&Host([1; 16]), Access::Write) {
            false if respects => nvme_status::RESERVATION_CONFLICT,
            _ => self.send(&nvme::mutex(op), &record.encode()).status,
        };
        let raw = Some(RawStatus::Nvme(status));
        let status = nvme::decode_status(Some(op), status);
        let answer = RawAnswer { status, raw, sense: Vec::new(), transferred: 0 };
        Ok(Answer { status: meaning(&answer), sense: Vec::new() })
    }

    fn table(&mut self, blocks: u32) -> Result<Option<Vec<u8>>, Stop> {
        Ok(Some(self.send(&nvme::read_table(blocks), &[]).data))
    }

    fn counters(&mut self) -> Result<Vec<u8>, Stop> {
        Ok(self.send(&nvme::inquire_table(), &[]).data)
    }

    fn version(&mut self) -> Result<Option<u8>, Stop> {
        Ok(Some(self.drive.identify_version() >> 4))
    }

    fn reserve(&mut self) -> Result<Result<(), String>, Stop> {
        let register = reservation::register(RegisterAction::Register, false, None);
        self.by_other_host(&register, [0, 7]);
        let acquire = reservation::acquire(AcquireAction::Acquire, WriteExclusiveAllRegistrants);
        self.by_other_host(&acquire, [7, 0]);
        Ok(Ok(()))
    }

    fn unreserve(&mut self) -> Result<(), Stop> {
        let unregister = reservation::register(RegisterAction::Unregister, false, None);
        self.by_other_host(&unregister, [7, 0]);
        Ok(())
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        self.now += time;
        Ok(())
    }
}

#[test]
fn each_profile_of_an_nvme_drive_gets_its_name() {
    for (name, profile) in Profile::named() {
        let found = findings(&mut NvmeModel::new(profile));
        // NVMe has no sense data, and its BUSY says that another host has the mutex.
        let alike = ["current", "current+fixed-sense"];
        let is_alike = alike.contains(&name) || name == "current+busy";
        let names = if is_alike { &alike[..] } else { &[name] };
        assert_eq!(compare(&found, &[]).exact, names);
        for (rule, finding) in found {
            assert_ne!(finding.verdict, Verdict::Unsafe, "{name} {}: {finding:?}", rule.name);
        }
    }
}

/// A drive that must not be reserved.
struct Unreserved(Model);

impl Subject for Unreserved {
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        self.0.change(op, record)
    }

    fn table(&mut self, blocks: u32) -> Result<Option<Vec<u8>>, Stop> {
        self.0.table(blocks)
    }

    fn counters(&mut self) -> Result<Vec<u8>, Stop> {
        self.0.counters()
    }

    fn version(&mut self) -> Result<Option<u8>, Stop> {
        self.0.version()
    }

    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        self.0.sleep(time)
    }
}

#[test]
fn what_only_a_reservation_shows_is_left_open_without_one() {
    for name in ALIKE {
        let profile = Profile::by_name(name).unwrap();
        let found = findings(&mut Unreserved(Model::new(profile)));
        assert_eq!(compare(&found, &[]).exact, ALIKE);
        let skipped = found.iter().find(|(rule, _)| rule.name == "reservation").unwrap();
        assert!(skipped.1.skipped && skipped.1.seen[0].contains("--reserve"), "{skipped:?}");
    }
}

#[test]
fn what_newer_firmware_does_is_what_is_relied_on() {
    for (rule, finding) in findings(&mut Model::new(Profile::current())) {
        assert_eq!(finding.differs, Vec::<String>::new(), "{}", rule.name);
        assert_eq!(finding.skipped, rule.name == "cut", "a model has one path");
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
    let names = ["current", "current+small"];
    assert_eq!(compare(&outcome.findings, &[]).exact, names);
}

/// A drive that breaks a rule.
struct Mutant {
    model: Model,
    kind: Kind,
    reserved: bool,
}

/// The fault of a mutant.
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
    ReservedLocksNothing,
    ReservedHidesHolders,
    ReservedRefreshLosesLock,
    ReservedFails,
    ReservedLocksAndRefuses,
}

/// Each kind with the rule that finds it.
const MUTANTS: [(Kind, &str, Verdict); 48] = {
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
        (ReservedLocksNothing, "reservation", Unsafe),
        (ReservedHidesHolders, "reservation", Unsafe),
        (ReservedRefreshLosesLock, "reservation", Unsafe),
        (ReservedFails, "reservation", Safe),
        (ReservedLocksAndRefuses, "reservation", Safe),
    ]
};

/// A mutex when a command comes for it.
struct Seen {
    /// The state of the sender's record.
    own: Option<State>,
    /// Whether the sender's record is shared.
    own_shared: bool,
    /// Whether others hold it, with a lease that runs, and whether all of them share it.
    beside: bool,
    others_live: bool,
    others_shared: bool,
    /// Whether there is no record at all.
    absent: bool,
    /// Whether the command is for an exclusive lock.
    is_ex: bool,
}

impl Seen {
    fn of(records: &[Record], sent: &Record) -> Seen {
        let is_held = |record: &&Record| record.state != State::Unlocked;
        let others = records.iter().filter(is_held).filter(|record| record.host != sent.host);
        let others: Vec<&Record> = others.collect();
        let own = records.iter().find(|record| record.host == sent.host);
        Seen {
            own: own.map(|record| record.state),
            own_shared: own.is_some_and(|record| record.class == Class::Shared),
            beside: !others.is_empty(),
            others_live: others.iter().any(|record| record.state.is_live()),
            others_shared: others.iter().all(|record| record.class == Class::Shared),
            absent: records.is_empty(),
            is_ex: sent.class.mode() == Mode::Exclusive,
        }
    }

    fn own_live(&self) -> bool {
        self.own.is_some_and(State::is_live)
    }
}

impl Kind {
    /// Whether the sender takes the place of all others.
    fn takes_over(self, op: MutexOp, seen: &Seen) -> bool {
        let live_alone = seen.others_live && !seen.others_shared;
        let live_shared = seen.others_live && seen.others_shared;
        let dead = seen.beside && !seen.others_live;
        match (self, op) {
            (Kind::LocksWhatIsHeld, MutexOp::Trylock) => seen.is_ex && live_alone,
            (Kind::SharesWhatIsExclusive, MutexOp::Trylock) => !seen.is_ex && live_alone,
            (Kind::LocksBesideSharers, MutexOp::Trylock) => seen.is_ex && live_shared,
            (Kind::LocksWhatIsTimedOut, MutexOp::Trylock) => dead,
            (Kind::NewSharerRemovesTheExpired, MutexOp::Trylock) => dead,
            (Kind::BreaksTheLiving, MutexOp::Break) => live_alone,
            (Kind::BreaksLiveSharers, MutexOp::Break) => live_shared,
            _ => false,
        }
    }

    /// Whether all holders lose it.
    fn evicts(self, op: MutexOp, seen: &Seen) -> bool {
        match (self, op) {
            (Kind::UnlocksForAnybody, MutexOp::Unlock) => seen.beside && seen.own.is_none(),
            (Kind::UnlocksAllSharers, MutexOp::Unlock) => {
                seen.own.is_some() && seen.others_shared && seen.beside
            }
            (Kind::DestroysWhatIsHeld, MutexOp::Destroy) => seen.others_live && !seen.others_shared,
            (Kind::DestroysWhatIsShared, MutexOp::Destroy) => {
                seen.others_live && seen.others_shared
            }
            (Kind::LosesLockOnSecondTry, MutexOp::Trylock) => seen.own_live(),
            _ => false,
        }
    }

    /// The answer without anything being done.
    fn answers(self, op: MutexOp, seen: &Seen) -> Option<Status> {
        let timed_out = seen.own == Some(State::TimedOut);
        let (when, status) = match (self, op) {
            (Kind::RefreshesForAnybody | Kind::RefreshesTheBroken, MutexOp::Refresh) => {
                (seen.others_live && seen.own.is_none(), Status::Good)
            }
            (Kind::KeepsTheBroken, MutexOp::Break) => {
                (seen.beside && !seen.others_live, Status::Conflict)
            }
            (Kind::UnlocksNothing, MutexOp::Unlock) => (true, Status::Good),
            (Kind::UnlocksForAnybody, MutexOp::Unlock) => (self.evicts(op, seen), Status::Conflict),
            (Kind::UnlocksAllSharers, MutexOp::Unlock) => (self.evicts(op, seen), Status::Good),
            (Kind::DestroysWhatIsShared, MutexOp::Destroy) => (self.evicts(op, seen), Status::Good),
            (Kind::LosesLockOnSecondTry, MutexOp::Trylock) => {
                (self.evicts(op, seen), Status::Terminated)
            }
            (Kind::DestroysNothing, MutexOp::Destroy) => {
                (seen.own.is_some() && !seen.beside, Status::Good)
            }
            (Kind::PromotesBesideSharers, MutexOp::Refresh) => {
                (seen.is_ex && seen.others_live, Status::Good)
            }
            (Kind::PromotesBesideTheExpired, MutexOp::Refresh) => {
                (seen.is_ex && seen.beside && seen.own.is_some(), Status::Good)
            }
            (Kind::RefusesSharers, MutexOp::Trylock) => {
                (seen.beside && seen.others_shared, Status::Conflict)
            }
            (Kind::RefreshRenewsNothing, MutexOp::Refresh) => (seen.own_live(), Status::Good),
            (Kind::LateRefreshRefused, MutexOp::Refresh) => (timed_out, Status::Conflict),
            (Kind::LateUnlockRefused, MutexOp::Unlock) => (timed_out, Status::Conflict),
            (Kind::AbsentIsGood, op) => (seen.absent && op != MutexOp::Trylock, Status::Good),
            _ => return None,
        };
        when.then_some(status)
    }
}

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

    /// The mutant's answer in place of the right one; `None` if it behaves correctly.
    fn instead(&mut self, op: MutexOp, sent: &Record) -> Option<Status> {
        let seen = Seen::of(&self.records(sent.resource), sent);
        if self.kind.takes_over(op, &seen) {
            self.evict(sent.resource, |record| record.host != sent.host);
            return Some(self.perform(MutexOp::Trylock, sent.clone()));
        }
        if self.kind.evicts(op, &seen) {
            self.evict(sent.resource, |_| true);
        }
        self.kind.answers(op, &seen).or_else(|| self.otherwise(op, sent, &seen))
    }

    /// Another command that the drive carries out.
    fn otherwise(&mut self, op: MutexOp, sent: &Record, seen: &Seen) -> Option<Status> {
        let class_of = |class| Record { class, ..sent.clone() };
        match (self.kind, op) {
            (Kind::SecondUnlockStores, MutexOp::Unlock) if seen.own == Some(State::Unlocked) => {
                let taken = Record { countdown_ms: 10_000, ..sent.clone() };
                self.perform(MutexOp::Trylock, taken);
                None
            }
            (Kind::PromotesNothing, MutexOp::Refresh) if seen.is_ex && seen.own_shared => {
                Some(self.perform(op, class_of(Class::Shared)))
            }
            (Kind::DemotesNothing, MutexOp::Refresh) if !seen.is_ex && seen.own.is_some() => {
                Some(self.perform(op, class_of(Class::Exclusive)))
            }
            _ => None,
        }
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

impl Mutant {
    /// The answer of a drive that treats hosts wrongly that a reservation keeps out.
    fn kept_out(&mut self, op: MutexOp, sent: &Record) -> Option<Status> {
        match (self.kind, op) {
            _ if !self.reserved => None,
            (Kind::ReservedLocksNothing, MutexOp::Trylock) => Some(Status::Good),
            (Kind::ReservedFails, _) => Some(Status::Failed),
            (Kind::ReservedRefreshLosesLock, MutexOp::Refresh) => {
                self.evict(sent.resource, |_| true);
                Some(Status::Good)
            }
            (Kind::ReservedLocksAndRefuses, MutexOp::Trylock) => {
                self.perform(op, sent.clone());
                Some(Status::Conflict)
            }
            _ => None,
        }
    }
}

impl Subject for Mutant {
    fn reserve(&mut self) -> Result<Result<(), String>, Stop> {
        self.reserved = true;
        self.model.reserve()
    }

    fn unreserve(&mut self) -> Result<(), Stop> {
        self.reserved = false;
        self.model.unreserve()
    }

    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        if let Some(status) = self.kept_out(op, record) {
            return Ok(Answer { status, sense: Vec::new() });
        }
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
            Kind::ReservedHidesHolders if self.reserved => records.clear(),
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
        let mut mutant = Mutant { model: Model::new(profile), kind, reserved: false };
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

/// A drive that gets commands by another path, given up, after these times.
struct Late {
    model: Model,
    times: Vec<Option<Duration>>,
    coming: Vec<(Duration, Record)>,
}

impl Subject for Late {
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        self.model.change(op, record)
    }

    fn table(&mut self, blocks: u32) -> Result<Option<Vec<u8>>, Stop> {
        self.model.table(blocks)
    }

    fn counters(&mut self) -> Result<Vec<u8>, Stop> {
        self.model.counters()
    }

    fn version(&mut self) -> Result<Option<u8>, Stop> {
        self.model.version()
    }

    fn cut(&mut self, op: MutexOp, record: &Record) -> Result<Option<Cut>, Stop> {
        assert_eq!(op, MutexOp::Trylock);
        let time = self.times.pop();
        if let Some(Some(time)) = time {
            self.coming.push((self.now() + time, record.clone()));
            self.sleep(Duration::ZERO)?;
        }
        Ok(Some(if time.is_some() { Cut::GivenUp } else { Cut::Answered }))
    }

    fn now(&self) -> Duration {
        self.model.now()
    }

    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        self.model.sleep(time)?;
        let now = self.now();
        let (due, later) = self.coming.drain(..).partition(|(at, _)| *at <= now);
        self.coming = later;
        let due: Vec<(Duration, Record)> = due;
        for (_, record) in due {
            self.model.change(MutexOp::Trylock, &record)?;
        }
        Ok(())
    }
}

#[test]
fn a_command_that_was_given_up_may_arrive_soon_or_never_but_not_late() {
    let seconds = |s| Some(Duration::from_secs(s));
    let soon = vec![None, seconds(0), seconds(1), seconds(14)];
    let late = [soon.clone(), vec![seconds(16)]].concat();
    for (times, verdict, skipped) in [
        (Vec::new(), Verdict::AsReliedOn, true),
        (soon, Verdict::AsReliedOn, false),
        (late, Verdict::Unsafe, false),
    ] {
        let model = Model::new(Profile::current());
        let mut drive = Late { model, times, coming: Vec::new() };
        let rules = idmctl::selftest::rules::all();
        let rule = rules.iter().find(|rule| rule.name == "cut").unwrap();
        let finding = (rule.test)(&mut Bench::new(&mut drive, RUN)).unwrap();
        assert_eq!((finding.verdict, finding.skipped), (verdict, skipped), "{finding:?}");
        if !skipped {
            let seen = finding.seen.join("; ");
            assert!(seen.contains("carried out before: 1; carried out after: "), "{seen}");
            assert!(seen.contains("never carried out: 1"), "{seen}");
        }
    }
}

#[test]
fn every_rule_has_a_mutant_or_is_about_what_may_be_either_way() {
    // "cut" has a test of its own, because it needs another path.
    let may_be = |name: &str| {
        ["value-by-", "value-of-", "value-after-"].iter().any(|it| name.starts_with(it))
            || ["unlock-class", "destroy-held", "cut"].contains(&name)
    };
    for rule in idmctl::selftest::rules::all() {
        let has = MUTANTS.iter().any(|(_, name, _)| *name == rule.name);
        assert!(has || may_be(rule.name), "{}", rule.name);
    }
}

#[test]
fn every_rule_is_in_the_page() {
    let mut table = String::from("| rule | the drive has to | docs/protocol.md |\n|---|---|---|\n");
    for rule in idmctl::selftest::rules::all() {
        let (name, says, heading) = (rule.name, rule.says, rule.heading);
        let anchor: String =
            heading.to_lowercase().replace(' ', "-").chars().filter(|&c| c != ',').collect();
        writeln!(table, "| `{name}` | {says} | [{heading}](protocol.md#{anchor}) |").unwrap();
    }
    page::compare("docs/idmctl.md", "rules", &table);
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
    /// The number of times it was reserved.
    reserved: usize,
}

impl Interrupted {
    fn count(&mut self) -> Result<(), Stop> {
        self.left = self.left.checked_sub(1).ok_or(Stop::Interrupted)?;
        Ok(())
    }
}

impl Subject for Interrupted {
    fn reserve(&mut self) -> Result<Result<(), String>, Stop> {
        self.reserved += 1;
        self.model.reserve()
    }

    fn unreserve(&mut self) -> Result<(), Stop> {
        self.model.unreserve()
    }

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
    let count = idmctl::selftest::rules::all().len();
    let mut dirty = 0;
    for (name, profile) in Profile::named() {
        for _ in 0..MOMENTS {
            let left = random.usize(..700);
            let mut drive = Interrupted { model: Model::new(profile), left, reserved: 0 };
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
            assert_eq!(outcome.stop, (outcome.findings.len() < count).then_some(Stop::Interrupted));
            Bench::new(&mut drive.model, RUN).clear().unwrap();
            let table = drive.model.drive.table(drive.model.time());
            assert_eq!(table.len(), 1, "{name} after {left} commands: {table:?}");
        }
    }
    assert!(dirty > 50, "most interruptions leave something to be given back: {dirty}");
}

#[test]
fn interrupted_at_any_moment_the_data_is_not_reserved() {
    let rules = idmctl::selftest::rules::all();
    let rule = rules.iter().find(|rule| rule.name == "reservation").unwrap();
    let mut reserved = 0;
    for profile in ALIKE.map(|name| Profile::by_name(name).unwrap()) {
        for left in 0.. {
            let mut drive = Interrupted { model: Model::new(profile), left, reserved: 0 };
            let ended = (rule.test)(&mut Bench::new(&mut drive, RUN));
            assert!(!drive.model.is_reserved(), "after {left} commands");
            reserved += drive.reserved;
            if ended.is_ok() {
                break;
            }
        }
    }
    assert!(reserved > 8, "most moments are behind the reservation: {reserved}");
}
