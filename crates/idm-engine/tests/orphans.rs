//! The records of an earlier life: the proof that nobody else had the lock in between, and the
//! handling of the rest.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Lock, Outcome, Refusal, Timing};
use idm_protocol::{Mode, MutexOp, Reply, State, Status};

/// A lock on drive 0 that had been put on all drives when its host died.
fn spread_over_all(mode: Mode, count: usize) -> Bench {
    let (mut bench, mut a) = (Bench::new(count), lv_lock(1));
    let all: Vec<u32> = (0..count as u32).collect();
    assert_eq!(take(&mut bench, &mut a, mode, &all[..1], &all[1..]), GRANTED);
    spread(&mut bench, &mut a, &all);
    assert!(is_ready(&mut a).is_some());
    bench
}

#[test]
fn a_shared_lock_of_other_drives_is_adopted_if_most_of_all_have_it() {
    for (reset, adopts) in [(vec![], true), (vec![2, 3], false)] {
        let mut bench = spread_over_all(S, 4);
        reset.iter().for_each(|&drive: &usize| bench.drives[drive].reset());
        let request = adopt_beside(&bench, &[1], &[0, 2, 3], None);
        let outcome = bench.run(&mut lv_lock(1), request);
        assert_eq!(outcome == Outcome::Adopted(S), adopts, "{reset:?}: {outcome:?}");
    }
}

#[test]
fn a_drive_that_left_the_vg_does_not_count_among_all() {
    let mut bench = spread_over_all(X, 5);
    for drive in [0, 2, 3] {
        bench.drives[drive].reset();
    }
    let mut a = lv_lock(1);
    // At first its VG is believed to have five drives, then two.
    for others in [&[0, 2, 3, 4][..], &[0]] {
        let request = adopt_beside(&bench, &[1], others, None);
        let outcome = bench.run(&mut a, request);
        assert_eq!(outcome, Outcome::Refused(Refusal::Unclear), "{others:?}");
    }
}

#[test]
fn the_drives_that_are_counted_now_and_then_are_enough_by_themselves() {
    let (mut bench, a) = held_on(&[0, 1, 2], 6, Profile::current());
    drop(a);
    let request = adopt_beside(&bench, &[0, 1, 2], &[3, 4, 5], None);
    assert_eq!(bench.run(&mut lv_lock(1), request), Outcome::Adopted(X));
}

#[test]
fn a_record_whose_refresh_was_not_answered_proves_nothing() {
    let (mut bench, mut first) = held_on(&[0, 1, 2], 6, Profile::current());
    // It dies after it has marked one record.
    let named = bench.members(&[0, 1, 2, 3, 4, 5]);
    first.spread(&named, bench.now);
    exchange_with(&mut bench, &mut first, |command| match (command.drive.0, op(command)) {
        (0, Some(MutexOp::Refresh)) => Fate::Answered,
        _ => Fate::Open,
    });
    let mut a = lv_lock(1);
    let request = adopt_beside(&bench, &[0, 1, 2], &[3, 4, 5], None);
    a.request(in_mode(request, X), bench.now).expect("in order");
    pass_with(&mut bench, &mut a, Duration::from_secs(2), |command| {
        match (command.drive.0, op(command)) {
            (2, Some(MutexOp::Refresh)) => Fate::Open,
            _ => Fate::Answered,
        }
    });
    assert_eq!(done(&mut a), Some(Outcome::Refused(Refusal::Unclear)));
}

#[test]
fn half_of_drives_that_the_votes_moved_to_is_adopted() {
    let (mut bench, mut first) = (Bench::new(4), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, X, &[0, 1], &[2, 3]), GRANTED);
    move_to(&mut bench, &mut first, &[2, 3]);
    let until = first.safe_until();
    drop(first);
    bench.drives[3].reset();
    let request = in_mode(adopt(&bench, &[2, 3], until), X);
    assert_eq!(bench.run(&mut lv_lock(1), request), Outcome::Adopted(X));
}

#[test]
fn an_adoption_by_half_that_is_decided_too_late_is_refused() {
    let mut bench = Bench::new(2);
    seize(&mut bench, &mut lv_lock(1), X, &[0]);
    let mut a = lv_lock(1);
    let until = bench.now + Duration::from_millis(10);
    let request = in_mode(adopt(&bench, &[0, 1], Some(until)), X);
    a.request(request, bench.now).expect("in order");
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Answered,
        _ => Fate::Open,
    });
    bench.now = until + Duration::from_millis(10);
    a.on_timer(bench.now);
    assert_eq!(done(&mut a), None);
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    assert_eq!(done(&mut a), Some(Outcome::Refused(Refusal::Unclear)), "drive 1 has nothing");
}

#[test]
fn an_adoption_reads_each_drive_anew() {
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(1), X, &[0, 1, 2]);
    let mut a = lv_lock(1);
    let request = adopt(&bench, &[0, 1, 2], None);
    a.request(request.clone(), bench.now).expect("in order");
    let open = pass_with(&mut bench, &mut a, Duration::from_secs(5), |command| match op(command) {
        Some(MutexOp::Refresh) => Fate::Unheard,
        _ => Fate::Answered,
    });
    assert!(matches!(done(&mut a), Some(Outcome::Refused(Refusal::NoQuorum { .. }))));
    a.request(request, bench.now).expect("left");
    for command in &open {
        a.on_reply(command.token, Reply::Status(Status::Good), bench.now);
    }
    let open = exchange_with(&mut bench, &mut a, |_| Fate::Open);
    assert_eq!(open.len(), 3);
    bench.pass(&mut a, Timing::for_lease(LEASE).grace);
    assert_eq!(done(&mut a), None, "those were answers to an older question");
    for command in &open {
        let reply = bench.perform(command);
        a.on_reply(command.token, reply, bench.now);
    }
    bench.exchange(&mut a);
    assert_eq!(done(&mut a), Some(Outcome::Adopted(X)));
}

#[test]
fn a_holder_that_could_not_be_read_stands_in_the_way_at_once() {
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(1), X, &[0, 1, 2]);
    let mut a = lv_lock(1);
    let request = adopt(&bench, &[0, 1, 2], None);
    a.request(request, bench.now).expect("in order");
    let mut refused = false;
    exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Refresh)) => {
            refused = true;
            Fate::Instead(Status::Conflict)
        }
        (2, _) if refused => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(Outcome::Refused(Refusal::Unclear)));
}

#[test]
fn drives_that_are_due_are_not_named_as_barred() {
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(1), X, &[0]);
    let mut a = lv_lock(1);
    let request = adopt(&bench, &[0, 1, 2], None);
    a.request(request, bench.now).expect("in order");
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Answered,
        1 => Fate::Instead(Status::Unreachable),
        _ => Fate::Open,
    });
    // The host stands still.
    bench.now = bench.now + Timing::for_lease(LEASE).patience;
    a.on_timer(bench.now);
    let refusal = Refusal::NoQuorum { granted: 1, needed: 2, barred: Vec::new() };
    assert_eq!(done(&mut a), Some(Outcome::Refused(refusal)));
}

#[test]
fn an_adoption_that_fails_leaves_what_is_being_given_back() {
    let (mut bench, mut a) = (Bench::new(4), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2, 3], &[]), GRANTED);
    bench.paths[3] = Path::Cut;
    bench.run(&mut a, RELEASE);
    let request = adopt(&bench, &[0, 1, 2], None);
    assert_eq!(bench.run(&mut a, request), Outcome::Refused(Refusal::NothingToAdopt));
    assert_eq!(bench.states(3), [State::Locked]);
    bench.paths[3] = Path::Up;
    bench.pass(&mut a, LEASE / 4);
    assert!(bench.states(3).is_empty());
}

#[test]
fn a_member_that_shows_nothing_counts_as_read() {
    let (mut bench, first) = held_on(&[0, 1, 2], 6, Profile::current());
    drop(first);
    bench.drives[2].reset();
    bench.paths[4..].fill(Path::Cut);
    let request = adopt_beside(&bench, &[0, 1, 2], &[3, 4, 5], None);
    assert_eq!(bench.run(&mut lv_lock(1), request), Outcome::Adopted(X));
}

// ---- Its value ----

/// A VG's lock whose adoption was refused; drives other than these had no record of it.
fn refused_adoption(bench: &mut Bench, on: &[u32], all: &[u32]) -> Lock {
    let mut a = vg_lock(1);
    let request = adopt(bench, all, None);
    a.request(request, bench.now).expect("in order");
    let mut open = exchange_with(bench, &mut a, |_| Fate::Open);
    open.sort_by_key(|command| !on.contains(&command.drive.0));
    for command in open {
        let reply = bench.perform(&command);
        a.on_reply(command.token, reply, bench.now);
    }
    bench.exchange(&mut a);
    assert_eq!(done(&mut a), Some(Outcome::Refused(Refusal::NothingToAdopt)));
    a
}

#[test]
fn one_record_of_an_earlier_life_is_enough_to_distrust_the_value() {
    for found in [true, false] {
        let (mut bench, all) = with_a_value(3);
        if found {
            take(&mut bench, &mut vg_lock(1), X, &[0], &[]);
        }
        let mut a = refused_adoption(&mut bench, &[0], &all);
        bench.run(&mut a, RELEASE);
        let outcome = take(&mut bench, &mut a, X, &all, &[]);
        assert_eq!(known(&outcome), (!found).then_some(7), "{found}: {outcome:?}");
    }
}

/// It dies while it changes a shared lock to exclusive, and the half that did not change does not
/// answer. There another host shares the lock, which counts the LV's drive only.
#[test]
fn half_of_an_unfinished_change_is_no_exclusive_lock() {
    let (mut bench, mut first, mut b) = (Bench::new(2), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut first, S, &[1], &[0]), GRANTED);
    assert!(travel(&mut bench, &mut first, &[0, 1]));
    assert_eq!(take(&mut bench, &mut b, S, &[1], &[0]), GRANTED);
    bench.paths[1] = Path::Cut;
    first.request(convert(X), bench.now).expect("in order");
    bench.exchange(&mut first);
    let mut a = lv_lock(1);
    let orphan = in_mode(adopt(&bench, &[0, 1], first.safe_until()), S);
    let outcome = bench.run(&mut a, orphan);
    assert!(believes(&bench, &b) && a.mode() != Some(X), "{outcome:?}");
}

/// It died while it was changing an exclusive lock to shared, which one drive missed. The lock is
/// noted as shared.
#[test]
fn a_shared_lock_is_adopted_although_half_of_it_is_exclusive() {
    let (mut bench, mut first) = (Bench::new(2), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, X, &[0, 1], &[]), GRANTED);
    bench.paths[1] = Path::Cut;
    assert!(matches!(bench.run(&mut first, convert(S)), Outcome::Converted { .. }));
    bench.paths[1] = Path::Up;
    let mut a = lv_lock(1);
    let orphan = in_mode(adopt(&bench, &[0, 1], first.safe_until()), S);
    assert_eq!(bench.run(&mut a, orphan), Outcome::Adopted(S));
    assert_eq!(take(&mut bench, &mut lv_lock(2), S, &[0, 1], &[]), GRANTED);
}
