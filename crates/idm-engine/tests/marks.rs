//! Faults that an attempt to break the lock found: marks that late commands change, halves of
//! failed attempts, promotions that a drive missed.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Command, DriveRef, Event, Lock, Outcome, Refusal, Request, Timing, Undoes};
use idm_protocol::{Mode, MutexOp, Reply, Status};

/// Lets time pass until a command to one of these drives is due; reports each with an unknown
/// result before the drive has received it.
fn lose_refreshes(bench: &mut Bench, lock: &mut Lock, on: &[u32]) -> Vec<Command> {
    let mut lost = Vec::new();
    for _ in 0..100 {
        while let Some(command) = lock.next_command(bench.now) {
            let reply = if on.contains(&command.drive.0) && lost.len() < on.len() {
                lost.push(command.clone());
                Reply::Status(Status::Uncertain)
            } else {
                bench.perform(&command)
            };
            lock.on_reply(command.token, reply, bench.now);
        }
        if lost.len() == on.len() {
            return lost;
        }
        bench.wait(lock);
    }
    panic!("nothing was sent");
}

#[test]
fn a_late_refresh_takes_the_mark_of_a_moved_lock_away() {
    let mut bench = Bench::new(6);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2, 3, 4], &[]), GRANTED);
    let late = lose_refreshes(&mut bench, &mut a, &[3, 4]);
    let new = bench.members(&[3, 4, 5]);
    a.spread(&new, bench.now);
    let mut late = late.into_iter();
    let moved = (0..30).any(|_| {
        bench.pass(&mut a, Duration::from_secs(1));
        let ready = is_ready(&mut a);
        // Within a quarter of a lease after the report.
        for command in late.by_ref() {
            assert_eq!(bench.perform(&command), Reply::Status(Status::Good));
        }
        ready.is_some_and(|named| a.move_votes(&named, bench.now))
    });
    assert!(moved);
    bench.exchange(&mut a);
    // This host does not have the new list of drives.
    let mut b = lv_lock(2);
    take(&mut bench, &mut b, X, &[0, 1, 2, 3, 4], &[]);
    bench.exchange(&mut a);
    assert_one_holder(&bench, &a, &b);
}

#[test]
fn a_late_refresh_of_the_last_acquisition_marks_this_one_wrong() {
    let mut bench = Bench::new(6);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2, 3, 4], &[]), GRANTED);
    let late = lose_refreshes(&mut bench, &mut a, &[3, 4]);
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, Duration::from_secs(1));
    // The lock may or may not be granted now.
    take(&mut bench, &mut a, X, &[3, 4, 5], &[]);
    for command in &late {
        bench.perform(command);
    }
    assert_no_other_gets(&mut bench, &a, &[0, 1, 2, 3, 4]);
}

#[test]
fn a_mark_that_an_adoption_found_does_not_outlive_the_next_refresh() {
    let mut bench = Bench::new(6);
    let old = [0, 1, 2, 3, 4];
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &old, &[]), GRANTED);
    let new = bench.members(&[0, 1, 2, 3, 4, 5]);
    a.spread(&new, bench.now);
    bench.pass(&mut a, Duration::from_secs(1));
    // It dies before the new drives are noted.
    drop(a);
    let mut a = lv_lock(1);
    let request = adopt(&bench, &old, None);
    assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
    bench.pass(&mut a, LEASE);
    events(&mut a);
    assert!(travel(&mut bench, &mut a, &[3, 4, 5]));
    bench.pass(&mut a, Duration::from_secs(1));
    let mut b = lv_lock(2);
    take(&mut bench, &mut b, X, &old, &[]);
    assert_one_holder(&bench, &a, &b);
}

#[test]
fn half_of_a_failed_attempt_is_not_adopted_after_the_holder_moved_away() {
    let mut bench = Bench::new(4);
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[0, 1], &[]), GRANTED);
    bench.drives[0].reset();
    // An attempt that fails, and whose host dies before it gives drive 0 back.
    let mut a = lv_lock(1);
    let members = bench.members(&[0, 1]);
    let request = Request::Acquire { mode: X, members, witnesses: Vec::new() };
    a.request(request, bench.now).unwrap();
    while let Some(command) = a.next_command(bench.now) {
        if command.drive.0 == 0 {
            bench.perform(&command);
        }
    }
    drop(a);
    assert!(travel(&mut bench, &mut b, &[1, 2, 3]));
    bench.pass(&mut b, LEASE);
    events(&mut b);
    assert!(travel(&mut bench, &mut b, &[2, 3]));
    bench.pass(&mut b, Duration::from_secs(1));
    let mut a = lv_lock(1);
    bench.run(&mut a, adopt(&bench, &[0, 1], None));
    bench.exchange(&mut b);
    assert_one_holder(&bench, &a, &b);
}

#[test]
fn a_sharer_that_moved_does_not_cost_another_sharer_its_lock() {
    let mut bench = Bench::new(4);
    let mut single = Profile::current();
    single.sharers_admitted = false;
    bench.drives[2] = idm_emulator::Drive::new(single);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
    assert_eq!(take(&mut bench, &mut b, S, &[0, 1, 2], &[]), GRANTED);
    assert!(travel(&mut bench, &mut a, &[0, 1, 2, 3]));
    for _ in 0..120 {
        let start = bench.now;
        bench.pass(&mut a, Duration::from_secs(1));
        bench.now = start;
        bench.pass(&mut b, Duration::from_secs(1));
    }
    let lost: Vec<_> = events(&mut b).into_iter().filter(|e| matches!(e, Event::Lost(_))).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn a_sharer_that_moved_does_not_keep_others_from_sharing() {
    let mut bench = Bench::new(4);
    let mut single = Profile::current();
    single.sharers_admitted = false;
    bench.drives[2] = idm_emulator::Drive::new(single);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
    assert!(travel(&mut bench, &mut a, &[0, 1, 2, 3]));
    assert_eq!(take(&mut bench, &mut b, S, &[0, 1, 2], &[]), GRANTED);
}

/// Adopts a lock in this mode. Drive 0 has a record from the time when only it was counted, the
/// others from the time when all were. Drive 0 answers at once, or after the lock was adopted
/// without it. Returns whether it counts again after a while.
fn counts_after_an_adoption(mode: Mode, refresh_stores_metadata: bool, at_once: bool) -> bool {
    let profile = Profile { refresh_stores_metadata, ..Profile::current() };
    let mut bench = Bench::with(3, profile);
    let mut first = lv_lock(1);
    assert_eq!(take(&mut bench, &mut first, mode, &[0], &[]), GRANTED);
    let new = bench.members(&[0, 1, 2]);
    first.spread(&new, bench.now);
    // Only the new drives get the commands.
    bench.paths[0] = Path::Hung;
    bench.exchange(&mut first);
    bench.paths[0] = Path::Up;
    drop(first);
    let mut a = lv_lock(1);
    let safe_until = Some(bench.now + LEASE / 2);
    let orphan = in_mode(adopt(&bench, &[0, 1, 2], safe_until), mode);
    a.request(orphan, bench.now).expect("in order");
    let second = Duration::from_secs(1);
    let open = pass_with(&mut bench, &mut a, second, |command| match command.drive.0 {
        0 if !at_once => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(Outcome::Adopted(mode)));
    for command in open {
        let reply = bench.perform(&command);
        a.on_reply(command.token, reply, bench.now);
    }
    bench.pass(&mut a, LEASE * 2);
    bench.paths[1] = Path::Cut;
    bench.pass(&mut a, LEASE * 2);
    believes(&bench, &a)
}

#[test]
fn a_drive_with_another_sets_record_counts_again_after_an_adoption() {
    for mode in [X, S] {
        for stores in [true, false] {
            for at_once in [true, false] {
                let counts = counts_after_an_adoption(mode, stores, at_once);
                assert!(counts, "{mode}, stored: {stores}, at once: {at_once}");
            }
        }
    }
}

#[test]
fn a_release_gives_back_what_every_refused_adoption_refreshed() {
    let mut bench = Bench::new(6);
    let mut first = lv_lock(1);
    assert_eq!(take(&mut bench, &mut first, S, &[0, 1, 2], &[]), GRANTED);
    drop(first);
    let mut a = lv_lock(1);
    for on in [[0, 1, 2], [3, 4, 5]] {
        let request = in_mode(adopt(&bench, &on, None), X);
        assert!(matches!(bench.run(&mut a, request), Outcome::Refused(_)));
    }
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, Duration::from_secs(1));
    assert!((0..3).all(|d| bench.states(d).is_empty()), "the records are live and nobody's");
}

#[test]
fn a_promotion_that_a_drive_missed_is_refused_where_others_may_count_other_drives() {
    let mut bench = Bench::new(5);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[3, 4]), GRANTED);
    bench.paths[2] = Path::Cut;
    let request = Request::Convert { mode: X, value: None };
    let outcome = bench.run(&mut a, request.clone());
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    bench.paths[2] = Path::Up;
    take(&mut bench, &mut b, S, &[2, 3, 4], &[0, 1]);
    bench.exchange(&mut a);
    assert_eq!((a.mode(), b.mode()), (Some(S), Some(S)));
    bench.run(&mut b, RELEASE);
    bench.exchange(&mut b);
    // When the lease of the command that it missed has run out, the drive is not needed.
    bench.paths[2] = Path::Cut;
    bench.pass(&mut a, LEASE * 2);
    assert_eq!(bench.run(&mut a, request), Outcome::Converted { complete: true });
}

/// A life of host 1 whose earlier life may write until a quarter of a lease from now.
fn of_a_new_life(bench: &Bench) -> Lock {
    with_config(lv_lock(1), |config| {
        config.earlier_until = bench.now;
        config.earlier_writes_until = bench.now + config.timing.linger;
        config.seed = 3;
    })
}

#[test]
fn a_look_does_not_forget_what_may_still_be_written() {
    let mut bench = Bench::new(5);
    let (old, new) = ([0, 3, 4], [0, 1, 2]);
    let mut first = lv_lock(1);
    assert_eq!(take(&mut bench, &mut first, X, &old, &[]), GRANTED);
    // Drive 0 does not get the release, and gets the new set of drives late.
    bench.paths[0] = Path::Cut;
    bench.run(&mut first, RELEASE);
    bench.pass(&mut first, Duration::from_secs(1));
    bench.paths[0] = Path::Up;
    first.request(acquire(&bench, X, &new, &[]), bench.now).expect("in order");
    let refreshes =
        |command: &Command| command.drive.0 == 0 && op(command) == Some(MutexOp::Refresh);
    let late = |command: &Command| if refreshes(command) { Fate::Late } else { Fate::Answered };
    let of_the_first = pass_with(&mut bench, &mut first, Duration::from_secs(2), late);
    drop(first);
    // The next life finds the old drives in the record. It refreshes the record, which is also
    // late.
    let mut a = of_a_new_life(&bench);
    let safe_until = Some(bench.now + LEASE / 2);
    a.request(adopt(&bench, &new, safe_until), bench.now).expect("in order");
    let unreachable = Fate::Instead as fn(Status) -> Fate;
    let of_the_next = pass_with(&mut bench, &mut a, Duration::from_millis(10), |command| {
        match (refreshes(command), command.drive.0) {
            (true, _) => Fate::Late,
            (_, 0) => Fate::Answered,
            _ => unreachable(Status::Unreachable),
        }
    });
    pass_with(&mut bench, &mut a, Duration::from_secs(6), |_| unreachable(Status::Unreachable));
    bench.perform(&of_the_first[0]);
    a.request(adopt(&bench, &new, safe_until), bench.now).expect("in order");
    pass_with(&mut bench, &mut a, Duration::from_secs(2), |command| match command.drive.0 {
        2 => unreachable(Status::Unreachable),
        _ => Fate::Answered,
    });
    bench.perform(&of_the_next[0]);
    // For a host that counts the old drives, the record on drive 0 is one of a minority.
    let mut b = lv_lock(2);
    take(&mut bench, &mut b, X, &old, &[]);
    assert_one_holder(&bench, &a, &b);
}

#[test]
fn a_promotion_heeds_a_trylock_as_shared_that_is_under_way() {
    let mut bench = Bench::new(5);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    a.request(acquire(&bench, S, &[0, 1, 2], &[3, 4]), bench.now).expect("in order");
    let fate = |command: &Command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Trylock)) => Fate::Unheard,
        _ => Fate::Answered,
    };
    pass_with(&mut bench, &mut a, Duration::from_secs(1), fate);
    a.request(convert(X), bench.now).expect("held");
    pass_with(&mut bench, &mut a, Duration::from_secs(1), fate);
    // A host that counts other drives meets a shared record there.
    bench.paths[..2].fill(Path::Cut);
    take(&mut bench, &mut b, S, &[2, 3, 4], &[0, 1]);
    assert_eq!((a.mode(), b.mode()), (Some(S), Some(S)));
}

#[test]
fn what_undoes_is_said_before_it_is_sent() {
    let mut bench = Bench::new(1);
    let mut a = lv_lock(1);
    let mut expect = |a: &mut Lock, request: Option<Request>, expected: &[(MutexOp, Undoes)]| {
        match request {
            Some(request) => a.request(request, bench.now).expect("in order"),
            None => {
                bench.now = a.next_deadline().expect("a refresh is due");
                a.on_timer(bench.now);
            }
        }
        let mut sent = Vec::new();
        while let Some(command) = a.next_command(bench.now) {
            sent.extend(op(&command).map(|op| (op, command.undoes)));
            let reply = bench.perform(&command);
            a.on_reply(command.token, reply, bench.now);
        }
        assert_eq!(sent, expected);
    };
    let shared = Bench::new(1).acquire(S);
    expect(&mut a, Some(shared.clone()), &[(MutexOp::Trylock, Undoes::Nothing)]);
    expect(&mut a, None, &[(MutexOp::Refresh, Undoes::Exclusive)]);
    // An earlier refresh, as shared, may still be under way.
    expect(&mut a, Some(convert(X)), &[(MutexOp::Refresh, Undoes::Any)]);
    expect(&mut a, None, &[(MutexOp::Refresh, Undoes::Nothing)]);
    expect(&mut a, Some(convert(S)), &[(MutexOp::Refresh, Undoes::Any)]);
    expect(&mut a, None, &[(MutexOp::Refresh, Undoes::Exclusive)]);
    expect(
        &mut a,
        Some(RELEASE),
        &[(MutexOp::Unlock, Undoes::Any), (MutexOp::Destroy, Undoes::Any)],
    );
    // Records of an earlier life are refreshed without a change.
    expect(&mut a, Some(shared), &[(MutexOp::Trylock, Undoes::Nothing)]);
    let left = adopt(&Bench::new(1), &[0], None);
    let mut next = lv_lock(1);
    expect(&mut next, Some(left), &[(MutexOp::Refresh, Undoes::Any)]);
}

const CONVERTED: Outcome = Outcome::Converted { complete: true };

/// A life shares the lock, and its last refresh is late. The next life, without any date of
/// commands that undo, requests an exclusive lock at once, as a new lock or by a change of the
/// shared one.
#[test]
fn a_refresh_as_shared_of_an_earlier_life_makes_no_exclusive_lock_shared() {
    for changes in [false, true] {
        let mut bench = Bench::new(1);
        let mut first = lv_lock(1);
        assert_eq!(take(&mut bench, &mut first, S, &[0], &[]), GRANTED);
        let late = lose_refreshes(&mut bench, &mut first, &[0]);
        drop(first);
        let linger = Timing::for_lease(LEASE).linger;
        let earlier_shares_until = bench.now + linger;
        let mut a = with_config(lv_lock(1), |config| {
            (config.earlier_shares_until, config.seed) = (earlier_shares_until, 3);
        });
        let orphan = adopt(&bench, &[0], None);
        assert_eq!(bench.run(&mut a, orphan), Outcome::Adopted(S));
        let exclusive = if changes {
            convert(X)
        } else {
            bench.run(&mut a, RELEASE);
            bench.acquire(X)
        };
        let outcome = bench.run(&mut a, exclusive.clone());
        let barred = vec![(DriveRef(0), earlier_shares_until)];
        let needed = 1;
        assert_eq!(
            outcome,
            Outcome::Refused(Refusal::NoQuorum { granted: 0, needed, barred }),
            "{changes}"
        );
        bench.perform(&late[0]);
        bench.pass(&mut a, linger);
        assert!(matches!(bench.run(&mut a, exclusive), GRANTED | CONVERTED), "{changes}");
        let mut b = lv_lock(2);
        assert!(is_held(&take(&mut bench, &mut b, S, &[0], &[])), "{changes}");
    }
}

/// A drive has a record that names drives 0 to 2, from a lock that could not be given back. The
/// next acquisition counts drive 1, takes that record over by a REFRESH, and cannot read it again.
/// The record may name drive 1 alone by then, so it does not fit a list of drives 0 to 2.
#[test]
fn a_record_that_a_refresh_may_have_renamed_does_not_fit_an_earlier_list() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
    bench.paths.fill(Path::Cut);
    assert_eq!(bench.run(&mut a, RELEASE), Outcome::Released);
    bench.pass(&mut a, LEASE / 2);
    bench.paths.fill(Path::Up);
    let mut renamed = false;
    a.request(acquire(&bench, S, &[1], &[0, 2]), bench.now).expect("in order");
    while let Some(command) = a.next_command(bench.now) {
        bench.now = bench.now + SECOND / 1000;
        let reply = match (command.drive.0, op(&command)) {
            (2, None) if renamed => Reply::Status(Status::Failed),
            _ => bench.perform(&command),
        };
        renamed |= (command.drive.0, op(&command)) == (2, Some(MutexOp::Refresh));
        a.on_reply(command.token, reply, bench.now);
    }
    assert!(a.mode() == Some(S) && renamed);
    a.spread(&bench.members(&[0, 1, 2]), bench.now);
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    assert_eq!(is_ready(&mut a), None, "{:?}", said(&bench, 2));
}
