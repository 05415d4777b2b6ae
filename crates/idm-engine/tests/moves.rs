//! Votes that move: the answer that a drive must have given before it votes, and the fate of the
//! other drives.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Command, Lock, Outcome, Refusal};
use idm_protocol::{MutexOp, Status};

const CONVERTED: Outcome = Outcome::Converted { complete: true };

/// A lock on drives 0 to 2 of five.
fn held() -> (Bench, Lock) {
    held_on(&[0, 1, 2], 5, Profile::current())
}

#[test]
fn a_drive_that_a_late_command_may_make_shared_does_not_vote_for_an_exclusive_lock() {
    let (mut bench, mut a) = held();
    spread(&mut bench, &mut a, &[0, 1, 2, 3, 4]);
    events(&mut a);
    a.request(convert(S), bench.now).expect("held");
    let late = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        3 | 4 => Fate::Late,
        _ => Fate::Answered,
    });
    assert_eq!((late.len(), done(&mut a)), (2, Some(CONVERTED)));
    bench.run(&mut a, RELEASE);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[3, 4]), GRANTED);
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert_eq!(on(&a), [0, 1, 2, 3, 4]);
    assert_eq!(is_ready(&mut a), None);
    assert!(!a.move_votes(&refs(&[2, 3, 4]), bench.now));
    // When no old command can arrive any more, they have to confirm it once more.
    bench.pass(&mut a, LEASE);
    assert!(is_ready(&mut a).is_some());
    assert!(a.move_votes(&refs(&[2, 3, 4]), bench.now));
}

#[test]
fn drives_that_were_not_ready_any_more_are_named_again_when_they_are() {
    let (mut bench, mut a) = held();
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert!(is_ready(&mut a).is_some());
    bench.paths[3..].fill(Path::Cut);
    bench.pass(&mut a, LEASE);
    assert!(!a.move_votes(&refs(&[2, 3, 4]), bench.now));
    bench.paths[3..].fill(Path::Up);
    bench.pass(&mut a, LEASE / 2);
    assert_eq!(is_ready(&mut a), Some(refs(&[2, 3, 4])));
    assert!(a.move_votes(&refs(&[2, 3, 4]), bench.now));
}

#[test]
fn drives_that_do_not_vote_any_more_are_given_back_at_once() {
    let (mut bench, mut a) = held();
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert!(is_ready(&mut a).is_some());
    assert!(a.move_votes(&refs(&[2, 3, 4]), bench.now));
    bench.exchange(&mut a);
    assert_eq!(on(&a), [2, 3, 4]);
    assert!((0..2).all(|drive| bench.states(drive).is_empty()));
}

#[test]
fn a_drive_that_could_not_be_marked_is_taken_anew_whichever_it_is() {
    let profile = forgetful();
    let (mut bench, mut a) = held_on(&[0, 1], 4, profile);
    spread(&mut bench, &mut a, &[0, 2, 3]);
    assert!(is_ready(&mut a).is_some());
    bench.log.clear();
    assert!(a.move_votes(&refs(&[0, 2, 3]), bench.now));
    bench.pass(&mut a, Duration::from_secs(1));
    assert!(said(&bench, 0).contains(&"trylock"), "{:?}", said(&bench, 0));
}

#[test]
fn the_vgs_other_drives_are_still_read_after_a_move() {
    let (mut bench, mut a) = (Bench::new(4), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, S, &[0], &[1, 2, 3]), GRANTED);
    move_to(&mut bench, &mut a, &[1, 2]);
    assert_eq!(take(&mut bench, &mut lv_lock(2), S, &[3], &[]), GRANTED);
    let outcome = bench.run(&mut a, convert(X));
    assert!(is_held(&outcome), "{outcome:?}");
}

#[test]
fn drives_may_be_named_in_any_order() {
    let (mut bench, mut a) = held();
    spread(&mut bench, &mut a, &[4, 2, 3, 0]);
    let named = is_ready(&mut a).expect("all are ready");
    assert_eq!(named.len(), 4);
}

#[test]
fn no_drives_are_no_set_to_vote() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    spread(&mut bench, &mut a, &[]);
    bench.paths.fill(Path::Cut);
    bench.pass(&mut a, LEASE);
    assert!(!believes(&bench, &a));
    bench.paths.fill(Path::Up);
    bench.pass(&mut a, LEASE);
    assert!(believes(&bench, &a), "nobody counts other drives");
}

#[test]
fn a_drive_that_is_named_again_while_it_is_given_back_is_taken_at_once() {
    let (mut bench, mut a) = held();
    spread(&mut bench, &mut a, &[0, 1, 2, 3]);
    bench.paths[3] = Path::Cut;
    spread(&mut bench, &mut a, &[0, 1, 2]);
    bench.paths[3] = Path::Up;
    spread(&mut bench, &mut a, &[0, 1, 2, 3]);
    assert_eq!(on(&a), [0, 1, 2, 3]);
    bench.pass(&mut a, Duration::from_secs(1));
    bench.log.clear();
    bench.pass(&mut a, LEASE / 2);
    assert!(said(&bench, 3).iter().all(|name| *name == "refresh"), "{:?}", said(&bench, 3));
}

#[test]
fn what_is_marked_is_not_marked_again() {
    let (mut bench, mut a) = held();
    spread(&mut bench, &mut a, &[2, 3, 4]);
    bench.log.clear();
    spread(&mut bench, &mut a, &[1, 2, 3]);
    assert_eq!(said(&bench, 1), ["refresh", "read"]);
    assert!(!said(&bench, 2).contains(&"refresh") && !said(&bench, 3).contains(&"refresh"));
}

#[test]
fn drives_are_read_for_their_marks_only_while_these_decide() {
    // Drive 1 cannot be marked, and the others are ready without it.
    let profile = forgetful();
    let (mut bench, mut a) = held_on(&[0, 1], 4, profile);
    spread(&mut bench, &mut a, &[1, 2, 3]);
    assert!(is_ready(&mut a).is_some());
    bench.log.clear();
    bench.pass(&mut a, LEASE * 2);
    assert!(bench.log.iter().all(|(_, name)| *name == "refresh"), "{:?}", bench.log);
    // Drives that are not to vote are not read while the others are not ready.
    let (mut bench, mut a) = held();
    bench.paths[3..].fill(Path::Cut);
    spread(&mut bench, &mut a, &[2, 3, 4]);
    bench.log.clear();
    bench.pass(&mut a, LEASE * 2);
    assert!(!said(&bench, 0).contains(&"read"), "{:?}", said(&bench, 0));
    assert!(said(&bench, 0).contains(&"refresh"));
    // Drive 2 showed its mark when it was named.
    assert!(!said(&bench, 2).contains(&"read"), "{:?}", said(&bench, 2));
}

#[test]
fn a_holder_that_has_gone_does_not_hinder_a_move() {
    let (mut bench, mut a) = held();
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[4], &[]), GRANTED);
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert!(!a.move_votes(&refs(&[2, 3, 4]), bench.now));
    events(&mut a);
    bench.run(&mut b, RELEASE);
    bench.pass(&mut a, LEASE);
    assert_eq!(is_ready(&mut a), Some(refs(&[2, 3, 4])));
    assert!(a.move_votes(&refs(&[2, 3, 4]), bench.now));
}

#[test]
fn what_is_left_of_a_failed_attempt_does_not_hinder_a_move() {
    let (mut bench, mut a) = (Bench::new(4), lv_lock(1));
    let request = acquire(&bench, X, &[0, 1, 2], &[]);
    bench.paths[2] = Path::Cut;
    assert_eq!(bench.run(&mut a, request.clone()), GRANTED);
    bench.paths[2] = Path::Up;
    let mut b = lv_lock(2);
    b.request(request, bench.now).expect("in order");
    exchange_with(&mut bench, &mut b, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Trylock)) => Fate::Unheard,
        _ => Fate::Open,
    });
    bench.log.clear();
    bench.pass(&mut a, LEASE / 3 + Duration::from_secs(1));
    assert!(said(&bench, 2).ends_with(&["trylock", "read"]), "{:?}", said(&bench, 2));
    spread(&mut bench, &mut a, &[0, 1, 2, 3]);
    assert!(is_ready(&mut a).is_some(), "three of four are ours");
}

/// Whether hosts 1 and 2 share an LV's lock, on drive 0 and on drive 2 of three.
fn shared_apart() -> (Bench, Lock, Lock) {
    let (mut bench, mut a, mut b) = (Bench::new(3), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut a, S, &[0], &[1, 2]), GRANTED);
    bench.paths[2] = Path::Cut;
    assert!(travel(&mut bench, &mut a, &[0, 1]));
    bench.paths[2] = Path::Up;
    assert_eq!(take(&mut bench, &mut b, S, &[2], &[0, 1]), GRANTED);
    (bench, a, b)
}

#[test]
fn a_change_to_exclusive_needs_every_drive_where_votes_have_moved() {
    let (mut bench, mut a, mut b) = shared_apart();
    bench.paths[2] = Path::Cut;
    let outcome = bench.run(&mut a, convert(X));
    assert_eq!(outcome, Outcome::Refused(Refusal::Unconfirmed));
    assert_eq!((a.mode(), believes(&bench, &b)), (Some(S), true));
    bench.paths[2] = Path::Up;
    let outcome = bench.run(&mut a, convert(X));
    assert!(is_held(&outcome), "{outcome:?}");
    bench.run(&mut b, RELEASE);
    bench.exchange(&mut b);
    assert_eq!(bench.run(&mut a, convert(X)), CONVERTED);
}

#[test]
fn a_change_to_exclusive_waits_for_a_drive_where_votes_have_moved() {
    let (mut bench, mut a, mut b) = shared_apart();
    bench.run(&mut b, RELEASE);
    bench.exchange(&mut b);
    spread(&mut bench, &mut a, &[0, 1, 2]);
    a.request(convert(X), bench.now).expect("held");
    let late = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        2 => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!((late.len(), done(&mut a)), (1, None));
    let reply = bench.perform(&late[0]);
    a.on_reply(late[0].token, reply, bench.now);
    bench.exchange(&mut a);
    assert_eq!(done(&mut a), Some(CONVERTED));
}

#[test]
fn a_change_to_exclusive_of_an_adopted_lock_needs_every_drive_of_an_lv() {
    for (keeps_value, silent) in [(false, true), (false, false), (true, true)] {
        let lock = |n| if keeps_value { vg_lock(n) } else { lv_lock(n) };
        let mut bench = Bench::new(3);
        let on: &[u32] = if keeps_value { &[0, 1, 2] } else { &[0, 1] };
        let witnesses: &[u32] = if keeps_value { &[] } else { &[2] };
        assert_eq!(take(&mut bench, &mut lock(1), S, on, witnesses), GRANTED);
        let mut a = lock(1);
        let request = in_mode(adopt_beside(&bench, on, witnesses, None), S);
        assert_eq!(bench.run(&mut a, request), Outcome::Adopted(S));
        bench.paths[2] = if silent { Path::Cut } else { Path::Up };
        let outcome = bench.run(&mut a, convert(X));
        if silent && !keeps_value {
            assert_eq!(outcome, Outcome::Refused(Refusal::Unconfirmed));
        } else {
            assert_eq!(outcome, CONVERTED);
        }
    }
}

#[test]
fn a_drive_without_idm_hides_no_sharer() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, S, &[0], &[1, 2]), GRANTED);
    assert!(travel(&mut bench, &mut a, &[0, 1]));
    let outcome = run_with(&mut bench, &mut a, convert(X), |command| match command.drive.0 {
        2 => Fate::Instead(Status::Unsupported),
        _ => Fate::Answered,
    });
    assert_eq!(outcome, CONVERTED);
}

#[test]
fn what_is_true_of_moved_votes_is_not_true_of_the_next_acquisition() {
    let (mut bench, mut a, mut b) = shared_apart();
    bench.run(&mut b, RELEASE);
    bench.exchange(&mut b);
    bench.run(&mut a, RELEASE);
    bench.exchange(&mut a);
    assert_eq!(take(&mut bench, &mut a, S, &[0], &[1, 2]), GRANTED);
    bench.paths[2] = Path::Cut;
    assert_eq!(bench.run(&mut a, convert(X)), CONVERTED);
}

#[test]
fn a_change_of_the_mode_right_after_a_move_does_not_lose_the_lock() {
    let mut moved = 0;
    for answered in 0..12 {
        let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
        assert_eq!(take(&mut bench, &mut a, X, &[0], &[1, 2]), GRANTED);
        let named = bench.members(&[0, 1, 2]);
        a.spread(&named, bench.now);
        let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
            0 => Fate::Answered,
            _ => Fate::Open,
        });
        a.request(convert(S), bench.now).expect("held");
        // Drives 1 and 2 are won as exclusive, and have to become shared.
        let answer = |bench: &mut Bench, a: &mut Lock, command: Command| {
            let reply = bench.perform(&command);
            a.on_reply(command.token, reply, bench.now);
        };
        open.into_iter().for_each(|command| answer(&mut bench, &mut a, command));
        let mut left = answered;
        let open = exchange_with(&mut bench, &mut a, |_| {
            left -= i32::from(left > 0);
            if left > 0 { Fate::Answered } else { Fate::Open }
        });
        if let Some(named) = is_ready(&mut a) {
            assert!(a.move_votes(&named, bench.now));
            a.request(convert(X), bench.now).expect("held");
            moved += 1;
        }
        open.into_iter().for_each(|command| answer(&mut bench, &mut a, command));
        bench.pass(&mut a, Duration::from_secs(1));
        assert!(believes(&bench, &a), "after {answered} answers");
    }
    assert!(moved > 0);
}

#[test]
fn a_late_change_to_shared_hides_a_sharer_of_an_adopted_lock() {
    let mut bench = Bench::new(3);
    assert_eq!(take(&mut bench, &mut lv_lock(1), X, &[0, 1, 2], &[]), GRANTED);
    let mut a = lv_lock(1);
    let request = adopt(&bench, &[0, 1, 2], None);
    assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
    let outcome = run_with(&mut bench, &mut a, convert(S), |command| match command.drive.0 {
        2 => Fate::Late,
        _ => Fate::Answered,
    });
    assert_eq!(outcome, CONVERTED);
    let outcome = bench.run(&mut a, convert(X));
    assert_eq!(outcome, Outcome::Refused(Refusal::Unconfirmed));
}

/// A late REFRESH writes the old mark after the new one was read. What follows does not show the
/// record.
#[test]
fn a_refresh_does_not_prove_that_a_late_one_left_the_mark() {
    for then in [Status::Failed, Status::Good] {
        let (mut bench, mut a) = held();
        let late = next_refresh(&mut bench, &mut a, 0, Fate::Late);
        bench.paths[4] = Path::Cut;
        let named = bench.members(&[0, 3, 4]);
        a.spread(&named, bench.now);
        bench.pass(&mut a, Duration::from_secs(1));
        assert_eq!(is_ready(&mut a), None, "the lost REFRESH may still write the old mark");
        bench.perform(&late);
        pass_with(&mut bench, &mut a, LEASE / 2, |command| match (command.drive.0, op(command)) {
            (0, Some(MutexOp::Refresh)) => Fate::Instead(then),
            (0, None) => Fate::Instead(Status::TryAgain),
            (4, _) => Fate::Instead(Status::Unreachable),
            _ => Fate::Answered,
        });
        assert_eq!(is_ready(&mut a), None, "after {then:?}");
    }
}

/// The caller noted drives that an earlier tenure named.
#[test]
fn votes_move_to_exactly_those_drives_that_were_named_last() {
    let (mut bench, mut a) = held();
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert!(is_ready(&mut a).is_some());
    assert!(!a.move_votes(&refs(&[2, 3, 4, 9]), bench.now));
    assert!(!a.move_votes(&refs(&[2, 3]), bench.now));
    assert!(a.move_votes(&refs(&[2, 3, 4]), bench.now));
}

/// A lock met another holder on drive 2, and was given back. The next one has no answer of that
/// drive yet, and most of the VG's drives are ready.
#[test]
fn a_holder_that_the_last_acquisition_met_does_not_hinder_a_move() {
    let (mut bench, mut a) = (Bench::new(4), lv_lock(1));
    bench.paths[2] = Path::Cut;
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    bench.paths[2] = Path::Up;
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[2], &[]), GRANTED);
    bench.pass(&mut a, LEASE / 2);
    assert!(said(&bench, 2).ends_with(&["trylock", "read"]), "{:?}", said(&bench, 2));
    bench.run(&mut b, RELEASE);
    // The next TRYLOCK is lost, so that the drive waits for it when the lock is given back.
    let mut lost = false;
    while !lost {
        bench.wait(&mut a);
        exchange_with(&mut bench, &mut a, |command| {
            let this = command.drive.0 == 2;
            lost |= this;
            if this { Fate::Instead(Status::Uncertain) } else { Fate::Answered }
        });
    }
    bench.paths[2] = Path::Hung;
    bench.run(&mut a, RELEASE);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    assert!(travel(&mut bench, &mut a, &[0, 1, 2, 3]));
}
