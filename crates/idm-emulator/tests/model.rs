//! Properties of every profile under any commands, and effects of single switches of a profile.

mod common;

use common::{EX, L0, L1, SH, host, payload, storing};
use core::time::Duration;
use idm_emulator::profile::{
    DestroyByHolder, Held, Limits, OtherClass, SharedUnlock, SharerState, ValueScope,
};
use idm_emulator::{Drive, DriveTime, Profile};
use idm_protocol::{
    Class, DriveCommand, Limit, Mode, MutexOp, Record, Reply, ResourceId, State, Status, Value,
    ValueUpdate, parse_table, scsi,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const OPS: [MutexOp; 7] = [
    MutexOp::Init,
    MutexOp::Trylock,
    MutexOp::Lock,
    MutexOp::Unlock,
    MutexOp::Refresh,
    MutexOp::Break,
    MutexOp::Destroy,
];

fn send(drive: &mut Drive, at_ms: u64, op: MutexOp, payload: Record) -> Status {
    match drive.perform(DriveTime::from_millis(at_ms), &DriveCommand::Mutex(op, payload)) {
        Reply::Status(status) => status,
        Reply::Table(_) => panic!("a table in answer to {op:?}"),
    }
}

/// A random command, after a pause in ms. There are only three hosts and two mutexes, so that they
/// meet.
fn step() -> impl Strategy<Value = (u64, MutexOp, Record)> {
    let lease = prop_oneof![Just(0), Just(1_000), Just(3_000), Just(u64::MAX)];
    let update = prop_oneof![Just(0_u8), Just(1), 0..5_u8];
    let who = (0..3_u8, any::<bool>(), any::<bool>());
    (0..1_500_u64, prop::sample::select(&OPS[..]), who, lease, update, 0..100_u64).prop_map(
        |(pause, op, (by, second, shared), lease, update, number)| {
            let (resource, mode) = (if second { L1 } else { L0 }, if shared { SH } else { EX });
            let record = Record {
                value_update: ValueUpdate::from_wire(update),
                metadata: [number as u8; 64],
                modified_ms: number,
                ..storing(number, payload(resource, mode, host(by), lease))
            };
            (pause, op, record)
        },
    )
}

/// Checks the properties of any table.
fn check_table(drive: &Drive, now: DriveTime) -> Result<(), TestCaseError> {
    let table = drive.table(now);
    let pairs: BTreeSet<_> = table.iter().map(|r| (r.resource, r.host)).collect();
    prop_assert_eq!(pairs.len(), table.len(), "a record stands twice");
    let limits = &drive.profile().limits;
    let hosts: BTreeSet<_> = table.iter().map(|r| r.host).collect();
    let mutexes: BTreeSet<_> = table.iter().map(|r| r.resource).collect();
    prop_assert!(table.len() <= limits.records);
    prop_assert!(hosts.len() <= limits.hosts);
    prop_assert!(mutexes.len() <= limits.mutexes);
    for resource in [L0, L1] {
        let live: Vec<&Record> =
            table.iter().filter(|r| r.resource == resource && r.state.is_live()).collect();
        let exclusive = live.iter().filter(|r| r.class.mode() == EX).count();
        prop_assert!(
            exclusive == 0 || live.len() == 1,
            "an exclusive holder is not alone: {:?}",
            live
        );
        let holders: Vec<_> = drive.live_holders(now, &resource).collect();
        let expected: Vec<_> = live.iter().map(|r| (r.host, r.class.mode())).collect();
        prop_assert_eq!(holders, expected);
        // Holders whose lease has run out prevent others in the same way.
        let held: Vec<&Record> =
            table.iter().filter(|r| r.resource == resource && r.state != State::Unlocked).collect();
        prop_assert!(held.len() <= limits.hosts_of_mutex);
        prop_assert!(held.iter().all(|r| r.class.mode() == SH) || held.len() == 1);
        for record in held {
            let left = drive.lease_left(now, &resource, &record.host);
            prop_assert_eq!(left.is_some_and(|left| !left.is_zero()), record.state.is_live());
        }
    }
    for record in &table {
        prop_assert_eq!(record.value_update, ValueUpdate::Keep);
        let found = drive.record(now, &record.resource, &record.host);
        prop_assert_eq!(found.as_ref(), Some(record));
    }
    Ok(())
}

/// Checks the change by one command: a holder that did not send the command is removed only by a
/// granted BREAK, or a promotion, after its lease.
fn check_step(
    before: &[Record],
    after: &[Record],
    op: MutexOp,
    sent: &Record,
    status: Status,
    profile: &Profile,
) -> Result<(), TestCaseError> {
    for record in before {
        let other = record.resource != sent.resource || record.host != sent.host;
        let found = after.iter().find(|r| r.resource == record.resource && r.host == record.host);
        let held = record.state.is_live() || record.state == State::TimedOut;
        if other && held {
            match found {
                Some(now) => prop_assert_eq!(
                    (now.class, now.countdown_ms),
                    (record.class, record.countdown_ms)
                ),
                None => {
                    let gives_way =
                        record.state == State::TimedOut || record.countdown_ms == u64::MAX;
                    let takes = op == MutexOp::Break
                        || op == MutexOp::Refresh && profile.promotion_removes_expired;
                    prop_assert!(status == Status::Good && gives_way && takes);
                }
            }
        }
    }
    let own = after.iter().find(|r| r.resource == sent.resource && r.host == sent.host);
    if status == Status::Good {
        match op {
            MutexOp::Init
            | MutexOp::Trylock
            | MutexOp::Lock
            | MutexOp::Break
            | MutexOp::Refresh => {
                let own = own.expect("granted, but not in the table");
                prop_assert_eq!(own.class, sent.class);
                prop_assert_eq!(own.countdown_ms, sent.countdown_ms);
                prop_assert_eq!(own.modified_ms, sent.modified_ms);
                prop_assert_eq!(own.state.is_live(), sent.countdown_ms > 0);
            }
            MutexOp::Unlock => prop_assert!(own.is_none_or(|r| r.state == State::Unlocked)),
            MutexOp::Destroy => prop_assert!(after.iter().all(|r| r.resource != sent.resource)),
        }
    }
    Ok(())
}

/// Every profile, and every profile with so little room that each limit is reached.
fn with_and_without_room() -> Vec<(&'static str, Profile)> {
    let mut profiles = Profile::named();
    for (name, mut profile) in Profile::named() {
        profile.limits = Limits { mutexes: 2, hosts: 2, hosts_of_mutex: 2, records: 3 };
        profiles.push((name, profile));
    }
    profiles
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_model_keeps_its_promises(steps in prop::collection::vec(step(), 1..60)) {
        for (name, profile) in with_and_without_room() {
            let mut drive = Drive::new(profile);
            let mut bytes = Drive::new(profile);
            let mut ms = 0;
            for (pause, op, payload) in &steps {
                ms += pause;
                let now = DriveTime::from_millis(ms);
                let before = drive.clone();
                let status = send(&mut drive, ms, *op, payload.clone());
                check_table(&drive, now)?;
                check_step(&before.table(now), &drive.table(now), *op, payload, status, &profile)?;
                if status != Status::Good {
                    prop_assert_eq!(&drive, &before, "{}: a refused command had an effect", name);
                }
                // The byte interface is the same drive.
                let reply = bytes.execute(now, &scsi::mutex(*op), &payload.encode());
                prop_assert_eq!(scsi::decode_status(reply.status, &reply.sense), status);
                prop_assert_eq!(&bytes, &drive);
                let reply = bytes.execute(now, &scsi::read_table(20), &[]);
                prop_assert_eq!(parse_table(&reply.data), drive.table(now));
                let counters = bytes.execute(now, &scsi::inquire_table(), &[]).data;
                let count = idm_protocol::record_count(&counters).map(usize::from);
                prop_assert_eq!(count, Some(drive.table(now).len()));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        commands in prop::collection::vec(
            (
                prop_oneof![
                    prop::sample::select(vec![0x00, 0x03, 0x12, 0x88, 0x89, 0x8E, 0xF0_u8]),
                    any::<u8>(),
                ],
                prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..20),
                prop::collection::vec(any::<u8>(), 0..600),
            ),
            0..20,
        ),
    ) {
        for profile in [Profile::current(), Profile::r00d()] {
            let mut drive = Drive::new(profile);
            for (opcode, rest, data_out) in &commands {
                let cdb = [&[*opcode], &rest[..]].concat();
                let reply = drive.execute(DriveTime::default(), &cdb, data_out);
                prop_assert_eq!(reply.status == 0x02, !reply.sense.is_empty());
                prop_assert!(reply.data.len() <= 8192 * 512);
            }
        }
    }
}

/// A drive whose profile is [`Profile::current`] with one change.
fn drive_with(change: fn(&mut Profile)) -> Drive {
    let mut profile = Profile::current();
    change(&mut profile);
    Drive::new(profile)
}

fn state_of(drive: &Drive, at_ms: u64, resource: ResourceId, by: u8) -> Option<State> {
    let record = drive.record(DriveTime::from_millis(at_ms), &resource, &host(by))?;
    Some(record.state)
}

fn value_of(drive: &Drive, by: u8) -> Option<u64> {
    let record = drive.record(DriveTime::default(), &L0, &host(by))?;
    Some(record.value.get())
}

fn lock(drive: &mut Drive, at_ms: u64, mode: Mode, by: u8) -> Status {
    let payload = payload(L0, mode, host(by), 5_000);
    send(drive, at_ms, MutexOp::Trylock, payload)
}

fn unlock(drive: &mut Drive, mode: Mode, by: u8) -> Status {
    send(drive, 0, MutexOp::Unlock, payload(L0, mode, host(by), 0))
}

#[test]
fn names_are_unique_and_found() {
    let profiles = Profile::named();
    let names: BTreeSet<&str> = profiles.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), profiles.len());
    for (i, (name, profile)) in profiles.iter().enumerate() {
        assert_eq!(Profile::by_name(name), Some(*profile));
        for (other_name, other) in &profiles[..i] {
            assert_ne!(other, profile, "{name} is {other_name}");
        }
    }
    assert_eq!(Profile::by_name("unknown"), None);
}

#[test]
fn held_is_busy() {
    let mut drive = drive_with(|p| p.held = Held::Busy);
    lock(&mut drive, 0, EX, 1);
    assert_eq!(lock(&mut drive, 0, EX, 2), Status::TryAgain);
    let steal = payload(L0, EX, host(2), 5_000);
    assert_eq!(send(&mut drive, 0, MutexOp::Break, steal), Status::TryAgain);
}

#[test]
fn sharers_read_as_multiple_locked() {
    let mut drive = drive_with(|p| p.sharer_state = SharerState::MultipleLocked);
    lock(&mut drive, 0, SH, 1);
    assert_eq!(state_of(&drive, 0, L0, 1), Some(State::Locked));
    lock(&mut drive, 1_000, SH, 2);
    assert_eq!(state_of(&drive, 1_000, L0, 1), Some(State::MultipleLocked));
    assert_eq!(state_of(&drive, 1_000, L0, 2), Some(State::MultipleLocked));
    // The lease of one of the two has run out.
    assert_eq!(state_of(&drive, 5_500, L0, 1), Some(State::TimedOut));
    assert_eq!(state_of(&drive, 5_500, L0, 2), Some(State::Locked));
}

#[test]
fn an_unlocked_shared_record_stays_or_goes() {
    let after_both = |policy: fn(&mut Profile)| {
        let mut drive = drive_with(policy);
        lock(&mut drive, 0, SH, 1);
        lock(&mut drive, 0, SH, 2);
        unlock(&mut drive, SH, 1);
        let one = state_of(&drive, 0, L0, 1);
        unlock(&mut drive, SH, 2);
        (one, state_of(&drive, 0, L0, 1), state_of(&drive, 0, L0, 2))
    };
    let gone = after_both(|p| p.shared_unlock = SharedUnlock::RecordGone);
    let last = after_both(|p| p.shared_unlock = SharedUnlock::LastStays);
    let each = after_both(|p| p.shared_unlock = SharedUnlock::EachStays);
    let unlocked = Some(State::Unlocked);
    assert_eq!(gone, (None, None, None));
    assert_eq!(last, (None, None, unlocked));
    assert_eq!(each, (unlocked, unlocked, unlocked));
}

#[test]
fn a_value_outlives_its_record() {
    for (change, expected) in
        [((|_| ()) as fn(&mut Profile), 0), (|p| p.value_outlives_record = true, 7)]
    {
        let mut drive = drive_with(change);
        lock(&mut drive, 0, SH, 1);
        let leaving = storing(7, payload(L0, SH, host(1), 0));
        assert_eq!(send(&mut drive, 0, MutexOp::Unlock, leaving), Status::Good);
        assert_eq!(drive.table(DriveTime::default()), []);
        lock(&mut drive, 0, EX, 2);
        assert_eq!(value_of(&drive, 2), Some(expected));
        // Gone again, and then lost with the table.
        send(&mut drive, 0, MutexOp::Refresh, payload(L0, SH, host(2), 5_000));
        assert_eq!(unlock(&mut drive, SH, 2), Status::Good);
        drive.reset();
        lock(&mut drive, 0, EX, 2);
        assert_eq!(value_of(&drive, 2), Some(0));
    }
}

#[test]
fn a_value_belongs_to_the_mutex_or_to_the_record() {
    for (scope, newcomer, others) in [(ValueScope::Mutex, 7, 8), (ValueScope::Record, 3, 7)] {
        let mut profile = Profile::current();
        profile.value_scope = scope;
        let mut drive = Drive::new(profile);
        let first = storing(7, payload(L0, SH, host(1), 5_000));
        send(&mut drive, 0, MutexOp::Trylock, first);
        let second = Record { value: Value::new(3).unwrap(), ..payload(L0, SH, host(2), 5_000) };
        send(&mut drive, 0, MutexOp::Trylock, second);
        assert_eq!(value_of(&drive, 2), Some(newcomer));
        let leaving = storing(8, payload(L0, SH, host(2), 0));
        send(&mut drive, 0, MutexOp::Unlock, leaving);
        assert_eq!(value_of(&drive, 1), Some(others));
    }
}

#[test]
fn who_stores_values() {
    for (change, refreshed, relocked) in [
        ((|_| ()) as fn(&mut Profile), 2, 3),
        (
            |p| {
                p.lock_stores_value = false;
                p.refresh_stores_value = false;
            },
            1,
            1,
        ),
    ] {
        let mut drive = drive_with(change);
        let with = |value| storing(value, payload(L0, EX, host(1), 5_000));
        send(&mut drive, 0, MutexOp::Trylock, with(1));
        send(&mut drive, 0, MutexOp::Refresh, with(2));
        assert_eq!(value_of(&drive, 1), Some(refreshed));
        unlock(&mut drive, EX, 1);
        send(&mut drive, 0, MutexOp::Trylock, with(3));
        assert_eq!(value_of(&drive, 1), Some(relocked));
        // A repeated UNLOCK is GOOD, but stores nothing.
        unlock(&mut drive, EX, 1);
        assert_eq!(send(&mut drive, 0, MutexOp::Unlock, with(4)), Status::Good);
        assert_eq!(value_of(&drive, 1), Some(relocked));
    }
}

#[test]
fn who_stores_metadata() {
    for (change, expected) in
        [((|_| ()) as fn(&mut Profile), [2; 64]), (|p| p.refresh_stores_metadata = false, [1; 64])]
    {
        let mut drive = drive_with(change);
        let with = |byte| Record {
            metadata: [byte; 64],
            modified_ms: byte.into(),
            ..payload(L0, EX, host(1), 5_000)
        };
        send(&mut drive, 0, MutexOp::Trylock, with(1));
        send(&mut drive, 0, MutexOp::Refresh, with(2));
        send(&mut drive, 0, MutexOp::Unlock, with(3));
        let record = drive.record(DriveTime::default(), &L0, &host(1)).unwrap();
        assert_eq!(record.metadata, expected);
        assert_eq!(record.modified_ms, 3);
    }
}

#[test]
fn a_value_survives_a_break_or_not() {
    for (change, expected) in
        [((|_| ()) as fn(&mut Profile), 7), (|p| p.break_keeps_value = false, 0)]
    {
        let mut drive = drive_with(change);
        let first = storing(7, payload(L0, EX, host(1), 0));
        send(&mut drive, 0, MutexOp::Trylock, first);
        let thief = payload(L0, EX, host(2), 5_000);
        assert_eq!(send(&mut drive, 0, MutexOp::Break, thief), Status::Good);
        assert_eq!(value_of(&drive, 2), Some(expected));
    }
}

#[test]
fn unlock_with_another_class() {
    for (answer, status) in [
        (OtherClass::Accepted, Status::Good),
        (OtherClass::Terminated, Status::Terminated),
        (OtherClass::CheckCondition, Status::WrongState),
    ] {
        let mut profile = Profile::current();
        profile.unlock_of_other_class = answer;
        let mut drive = Drive::new(profile);
        lock(&mut drive, 0, EX, 1);
        assert_eq!(unlock(&mut drive, SH, 1), status);
    }
}

#[test]
fn who_may_destroy() {
    let destroy = |drive: &mut Drive, at_ms, by| {
        let payload = payload(L0, EX, host(by), 0);
        send(drive, at_ms, MutexOp::Destroy, payload)
    };
    for (policy, live, expired) in [
        (DestroyByHolder::Refused, Status::Conflict, Status::Conflict),
        (DestroyByHolder::WhileLive, Status::Good, Status::Conflict),
        (DestroyByHolder::Allowed, Status::Good, Status::Good),
    ] {
        let mut profile = Profile::current();
        profile.destroy_by_holder = policy;
        for (at_ms, expected) in [(0, live), (5_000, expired)] {
            let mut drive = Drive::new(profile);
            lock(&mut drive, 0, EX, 1);
            assert_eq!(destroy(&mut drive, at_ms, 2), Status::Conflict);
            assert_eq!(destroy(&mut drive, at_ms, 1), expected);
        }
    }
    for (change, expected) in [
        ((|_| ()) as fn(&mut Profile), Status::Good),
        (|p| p.destroy_by_stranger = false, Status::Conflict),
    ] {
        let mut drive = drive_with(change);
        lock(&mut drive, 0, EX, 1);
        unlock(&mut drive, EX, 1);
        assert_eq!(destroy(&mut drive, 0, 2), expected);
    }
}

#[test]
fn relock_after_expiry() {
    for (change, expected) in [
        ((|_| ()) as fn(&mut Profile), Status::Terminated),
        (|p| p.expired_holder_may_relock = true, Status::Good),
    ] {
        let mut drive = drive_with(change);
        lock(&mut drive, 0, EX, 1);
        assert_eq!(lock(&mut drive, 4_999, EX, 1), Status::Terminated);
        assert_eq!(lock(&mut drive, 5_000, EX, 1), expected);
    }
}

#[test]
fn promotion_beside_expired_sharers() {
    for (change, status, other) in [
        ((|_| ()) as fn(&mut Profile), Status::Terminated, true),
        (|p| p.promotion_removes_expired = true, Status::Good, false),
    ] {
        let mut drive = drive_with(change);
        lock(&mut drive, 0, SH, 1);
        lock(&mut drive, 1_000, SH, 2);
        let promote = payload(L0, EX, host(2), 5_000);
        let early = send(&mut drive, 4_999, MutexOp::Refresh, promote.clone());
        assert_eq!(early, Status::Terminated);
        assert_eq!(send(&mut drive, 5_000, MutexOp::Refresh, promote), status);
        assert_eq!(state_of(&drive, 5_000, L0, 1).is_some(), other);
    }
}

#[test]
fn break_beside_live_sharers() {
    let mut drive = drive_with(|p| p.break_beside_live_sharers = true);
    lock(&mut drive, 0, SH, 1);
    lock(&mut drive, 1_000, SH, 2);
    let break_as = |drive: &mut Drive, at_ms, mode| {
        let payload = payload(L0, mode, host(3), 5_000);
        send(drive, at_ms, MutexOp::Break, payload)
    };
    assert_eq!(break_as(&mut drive, 4_999, SH), Status::Conflict);
    assert_eq!(break_as(&mut drive, 5_000, EX), Status::Conflict);
    assert_eq!(break_as(&mut drive, 5_000, SH), Status::Good);
    let holders: Vec<_> = drive.live_holders(DriveTime::from_millis(5_000), &L0).collect();
    assert_eq!(holders, [(host(2), SH), (host(3), SH)]);
}

/// A BREAK that finds no room for its host removes no holder.
#[test]
fn a_break_without_room() {
    let mut profile = Profile::current();
    profile.break_beside_live_sharers = true;
    profile.limits.hosts = 2;
    let mut drive = Drive::new(profile);
    lock(&mut drive, 0, SH, 1);
    lock(&mut drive, 1_000, SH, 2);
    // The first host has another mutex, so that the drive still knows it.
    let other = payload(L1, EX, host(1), 5_000);
    assert_eq!(send(&mut drive, 0, MutexOp::Trylock, other), Status::Good);
    let before = drive.clone();
    let newcomer = |mode| payload(L0, mode, host(3), 5_000);
    // Only the lease of the first has run out.
    let refused = send(&mut drive, 5_000, MutexOp::Break, newcomer(SH));
    assert_eq!(refused, Status::Full(Limit::Hosts));
    assert_eq!(drive, before);
    // Both leases have run out, and the drive will forget the second host.
    let granted = send(&mut drive, 6_000, MutexOp::Break, newcomer(EX));
    assert_eq!(granted, Status::Good);
}

#[test]
fn views() {
    let mut drive = Drive::new(Profile::current());
    lock(&mut drive, 0, EX, 1);
    let at = DriveTime::from_millis(2_000);
    let left = |by| drive.lease_left(at, &L0, &host(by));
    assert_eq!(left(1), Some(Duration::from_secs(3)));
    assert_eq!(left(2), None);
    assert_eq!(
        drive.lease_left(DriveTime::from_millis(9_000), &L0, &host(1)),
        Some(Duration::ZERO)
    );
    assert_eq!(drive.record(at, &L1, &host(1)), None);
    assert_eq!(drive.record(at, &L0, &host(1)).unwrap().class, Class::Exclusive);
    unlock(&mut drive, EX, 1);
    assert_eq!(drive.lease_left(at, &L0, &host(1)), None);
    assert_eq!(drive.live_holders(at, &L0).count(), 0);
}
