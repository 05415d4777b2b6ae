//! Suspicions that were found by reading, each as a test.

use idm_emulator::{Drive, DriveTime, Profile};
use idm_engine::{DriveRef, Instant};
use idm_fencing::{Action, Answer, Fence, KIND, Key, Order, Procedure, Rules, Seen, Verdict};
use idm_protocol::{
    Class, DriveCommand, HostId, MutexOp, Record, Reply, ResourceId, State, Status, ValueUpdate,
};

const VG: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
const LV: &str = "abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP";

fn host(n: u8) -> HostId {
    HostId::new([n; 16], "host")
}

fn record(n: u8, class: Class, lease_ms: u64) -> Record {
    let mut record = Record::end_of_table();
    record.state = State::Uninitialized;
    record.host = host(n);
    record.resource = ResourceId::lv(VG, LV).unwrap();
    record.class = class;
    record.countdown_ms = lease_ms;
    record.value_update = ValueUpdate::Keep;
    record
}

fn order(target: u32, drives: &[u32], needed: &[u32], may_share: bool) -> Order {
    let refs = |drives: &[u32]| drives.iter().map(|&drive| DriveRef(drive)).collect();
    Order {
        me: host(1),
        resource: ResourceId::lv(VG, LV).unwrap(),
        group: ResourceId::vg(VG).unwrap(),
        target: DriveRef(target),
        may_share,
        drives: refs(drives),
        needed: refs(needed),
        until: Instant::from_micros(60_000_000),
    }
}

fn seen(table: Vec<Record>, hosts: &[u8]) -> Answer {
    let keys = hosts.iter().map(|&n| Key::of(&host(n)).number()).collect();
    let reservation = Some(Some(KIND));
    Answer::Seen(Seen { table: table.into(), keys, reservation, is_able: true, paths: 1 })
}

/// Two hosts share a lock, and one is frozen. Its lease ends between the look at the drive and the
/// change to exclusive, which then removes it from the mutex, but not from the drive.
#[test]
fn a_sharer_whose_lease_ends_after_the_look_is_not_taken_from_before_it_is_removed() {
    let (_, profile) =
        Profile::named().into_iter().find(|(_, p)| p.promotion_removes_expired).expect("one");
    let mut drive = Drive::new(profile);
    let at = |s: u64| DriveTime::from_micros(s * 1_000_000);
    let mutex = |op, record| DriveCommand::Mutex(op, record);
    let good = Reply::Status(Status::Good);
    let frozen =
        mutex(MutexOp::Trylock, record(2, Class::from(idm_protocol::Mode::Shared), 60_000));
    assert_eq!(drive.perform(at(0), &frozen), good);
    let mine = mutex(MutexOp::Trylock, record(1, Class::from(idm_protocol::Mode::Shared), 60_000));
    assert_eq!(drive.perform(at(50), &mine), good);
    let mut fence = Fence::new(order(0, &[0], &[0], true), Rules::default());
    while let Some((to, action)) = fence.next() {
        assert_eq!(action, Action::Look);
        let Reply::Table(table) = drive.perform(at(59), &DriveCommand::ReadTable) else {
            panic!("a table");
        };
        fence.on_answer(to, seen(table.to_vec(), &[1, 2]));
    }
    let verdict = fence.outcome().expect("an end");
    if let Verdict::Go(removed) = verdict {
        // The command arrives two seconds later, well within the time that is allowed for it.
        assert!(fence.may_arrive(Instant::from_micros(2_000_000)));
        let promote = mutex(MutexOp::Refresh, record(1, Class::Exclusive, 60_000));
        let answer = drive.perform(at(61), &promote);
        assert!(
            answer != good || removed.contains(&host(2)),
            "the drive made it exclusive, and host 2 can still write"
        );
    }
}

/// The group has five drives. This host has registered on three of them, because the others were
/// away, and now reaches two, which the lock is on. The other host renews its membership on the
/// three drives that this one does not see.
#[test]
fn a_host_that_lives_on_most_of_the_groups_drives_is_not_removed() {
    let dead = || {
        let mut dead = record(2, Class::Exclusive, 60_000);
        dead.state = State::TimedOut;
        vec![dead]
    };
    // As `Reservations::take` makes the order.
    let mut fence = Fence::new(order(0, &[0, 1, 2], &[0, 1], false), Rules::default());
    let mut keys = [vec![1, 2], vec![1, 2]];
    while let Some((to, action)) = fence.next() {
        let answer = match (action, to.0 as usize) {
            (_, 2) => Answer::Silent,
            (Action::Look, at) => seen(dead(), &keys[at]),
            (Action::Preempt(_), at) => {
                keys[at] = vec![1];
                Answer::Done
            }
            (action, _) => panic!("{action:?}"),
        };
        fence.on_answer(to, answer);
    }
    let verdict = fence.outcome();
    assert!(matches!(verdict, Some(Verdict::Refused(_))), "{verdict:?}");
}
