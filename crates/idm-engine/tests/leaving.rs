//! Votes that move while a drive does not answer, or does not show the new mark.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Command, Event, Lock, Outcome, Timing};
use idm_protocol::{MutexOp, Reply, Status};

/// Drive 2 does not answer.
fn without_2(command: &Command) -> Fate {
    match command.drive.0 {
        2 => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    }
}

/// Moves the votes to drives 2, 3 and 4 as soon as two of these are ready.
fn move_votes_with(bench: &mut Bench, lock: &mut Lock, fate: impl FnMut(&Command) -> Fate) {
    let named = bench.members(&[2, 3, 4]);
    lock.spread(&named, bench.now);
    exchange_with(bench, lock, fate);
    let ready = is_ready(lock).expect("drives 3 and 4");
    assert!(lock.move_votes(&ready, bench.now));
}

/// A host that counts the old drives only meets the holder.
fn assert_old_list_is_refused(bench: &mut Bench, holder: &Lock) {
    let mut b = lv_lock(2);
    let outcome = take(bench, &mut b, X, &[0, 1, 2], &[]);
    assert!(believes(bench, holder));
    assert_one_holder(bench, holder, &b);
    assert!(is_held(&outcome), "{outcome:?}");
}

/// The same, while commands that the holder sends to drive 2 now are under way.
fn assert_old_list_is_refused_meanwhile(bench: &mut Bench, holder: &mut Lock) {
    let open = exchange_with(bench, holder, |command| match command.drive.0 {
        2 => Fate::Open,
        _ => Fate::Answered,
    });
    assert_old_list_is_refused(bench, holder);
    for command in open {
        let reply = bench.perform(&command);
        holder.on_reply(command.token, reply, bench.now);
    }
    bench.pass(holder, SECOND);
    assert!(believes(bench, holder));
}

/// The one drive that the old list and the new one have in common does not get the new mark,
/// because no command reaches it. Another host does not have the new list yet.
#[test]
fn votes_do_not_move_past_a_drive_that_still_has_the_old_mark() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    bench.paths[2] = Path::Cut;
    move_to(&mut bench, &mut a, &[2, 3, 4]);
    bench.paths[2] = Path::Up;
    assert_old_list_is_refused(&mut bench, &a);
}

/// A drive dies while a REFRESH is under way. After that nothing can reach it any more, and most of
/// the VG's drives are ready.
#[test]
fn a_drive_that_died_does_not_keep_votes_from_moving() {
    let (mut bench, mut a) = held_on(&[0, 1], 5, Profile::current());
    let mut lost = false;
    let mut dead = |command: &idm_engine::Command| match command.drive.0 {
        1 if !core::mem::replace(&mut lost, true) => Fate::Instead(Status::Uncertain),
        1 => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    };
    pass_with(&mut bench, &mut a, LEASE, &mut dead);
    // The LV's other half is put on drive 2 instead.
    let named = bench.members(&[0, 1, 2, 3, 4]);
    a.spread(&named, bench.now);
    pass_with(&mut bench, &mut a, LEASE * 10, &mut dead);
    let ready = is_ready(&mut a).expect("four of five drives are ready");
    assert!(a.move_votes(&ready, bench.now));
    bench.paths[0] = Path::Cut;
    bench.paths[1] = Path::Cut;
    bench.pass(&mut a, LEASE * 2);
    assert!(believes(&bench, &a), "drives 2, 3 and 4 of five have it");
}

/// The votes moved, and lvmlockd died. While it was away, the VG got drives, and another host took
/// the lock by way of these and the LV's drive, after its lease. The noted list has no new drives.
#[test]
fn moved_votes_are_no_proof_for_an_adoption_after_the_lease() {
    let (mut bench, mut first) = (Bench::new(5), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, X, &[0], &[1, 2]), GRANTED);
    move_to(&mut bench, &mut first, &[0, 1, 2]);
    drop(first);
    bench.now = bench.now + LEASE * 2;
    bench.paths = vec![Path::Up, Path::Cut, Path::Cut, Path::Up, Path::Up];
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[0], &[1, 2, 3, 4]), GRANTED);
    bench.paths = vec![Path::Cut, Path::Up, Path::Up, Path::Up, Path::Up];
    let mut a = lv_lock(1);
    let orphan = unknown(adopt(&bench, &[0, 1, 2], None));
    assert!(matches!(bench.run(&mut a, orphan), Outcome::Refused(_)));
    assert_one_holder(&bench, &a, &b);
}

/// The same after a first adoption, which was in time, and after its refreshes.
#[test]
fn moved_votes_are_no_proof_for_a_second_adoption_after_the_lease() {
    let (mut bench, mut first) = (Bench::new(5), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, X, &[0], &[1, 2]), GRANTED);
    move_to(&mut bench, &mut first, &[0, 1, 2]);
    let (mut next, orphan) = (lv_lock(1), adopt(&bench, &[0, 1, 2], first.safe_until()));
    drop(first);
    assert_eq!(bench.run(&mut next, orphan), Outcome::Adopted(X));
    bench.pass(&mut next, LEASE);
    drop(next);
    bench.now = bench.now + LEASE * 2;
    bench.paths = vec![Path::Up, Path::Cut, Path::Cut, Path::Up, Path::Up];
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[0], &[1, 2, 3, 4]), GRANTED);
    bench.paths = vec![Path::Cut, Path::Up, Path::Up, Path::Up, Path::Up];
    let mut a = lv_lock(1);
    let orphan = unknown(adopt(&bench, &[0, 1, 2], None));
    assert!(matches!(bench.run(&mut a, orphan), Outcome::Refused(_)));
    assert_one_holder(&bench, &a, &b);
}

/// All of the VG's drives vote already, so no votes move. The LV is left on one of them.
#[test]
fn a_lock_whose_lv_was_left_on_fewer_drives_is_not_adopted_after_the_lease() {
    let (mut bench, mut first) = (Bench::new(5), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, X, &[0, 1, 2], &[]), GRANTED);
    // The VG's lock names the drives that vote already.
    spread(&mut bench, &mut first, &[0, 1, 2]);
    drop(first);
    bench.now = bench.now + LEASE * 2;
    bench.paths = vec![Path::Up, Path::Cut, Path::Cut, Path::Up, Path::Up];
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[0], &[1, 2, 3, 4]), GRANTED);
    bench.paths = vec![Path::Cut, Path::Up, Path::Up, Path::Up, Path::Up];
    let mut a = lv_lock(1);
    let orphan = unknown(adopt(&bench, &[0, 1, 2], None));
    assert!(matches!(bench.run(&mut a, orphan), Outcome::Refused(_)));
    assert_one_holder(&bench, &a, &b);
}

/// Another host asks for the lock now and then, and is refused by the drives that vote. Twice it is
/// met on the one drive that the holder lacks, and in between that drive does not answer.
#[test]
fn who_is_met_twice_in_passing_has_not_been_there_all_the_while() {
    let (mut bench, mut a, mut b) = (Bench::new(3), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut a, X, &[2], &[0, 1]), GRANTED);
    assert!(travel(&mut bench, &mut a, &[0, 1, 2]));
    bench.paths[2] = Path::Cut;
    bench.pass(&mut a, LEASE);
    bench.drives[2].reset();
    events(&mut a);
    for round in 0..3 {
        bench.paths[2] = Path::Up;
        let mut met = false;
        while !met {
            bench.wait(&mut a);
            while let Some(command) = a.next_command(bench.now) {
                if command.drive.0 == 2 && !met {
                    met = true;
                    let ask = acquire(&bench, X, &[2], &[0, 1]);
                    b.request(ask, bench.now).expect("in order");
                    let first = b.next_command(bench.now).expect("a TRYLOCK");
                    let reply = bench.perform(&first);
                    b.on_reply(first.token, reply, bench.now);
                }
                let reply = bench.perform(&command);
                a.on_reply(command.token, reply, bench.now);
            }
        }
        bench.exchange(&mut b);
        assert!(done(&mut b).is_some_and(|outcome| is_held(&outcome)), "round {round}");
        bench.exchange(&mut b);
        bench.paths[2] = Path::Cut;
        bench.pass(&mut a, LEASE * 2);
    }
    let news = events(&mut a);
    assert!(believes(&bench, &a), "two of three drives have it all the while: {news:?}");
}

/// The same with one REFRESH that one path did not take: every drive answers both hosts all the
/// while, but for that command.
#[test]
fn one_command_that_fails_does_not_hide_that_votes_have_moved() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    let mut failed = 0;
    move_votes_with(&mut bench, &mut a, |command| match command.drive.0 {
        2 if failed == 0 => {
            failed += 1;
            Fate::Instead(Status::Unreachable)
        }
        _ => Fate::Answered,
    });
    assert_old_list_is_refused_meanwhile(&mut bench, &mut a);
}

/// The same without any failure, on drives whose REFRESH does not store metadata: the record on
/// drive 2 is replaced only after the votes have moved.
#[test]
fn a_drive_that_does_not_store_marks_does_not_hide_that_votes_have_moved() {
    let profile = forgetful();
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, profile);
    spread(&mut bench, &mut a, &[2, 3, 4]);
    let ready = is_ready(&mut a).expect("drives 3 and 4");
    assert!(a.move_votes(&ready, bench.now));
    assert_old_list_is_refused_meanwhile(&mut bench, &mut a);
}

/// A drive's REFRESH is reported as lost after the votes have moved, and arrives later still. So
/// the lease of the record with the old mark ends later than that of the drives that are left.
#[test]
fn a_late_refresh_prolongs_the_record_that_hides_a_move() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    let late = next_refresh(&mut bench, &mut a, 2, Fate::Open);
    assert!(travel(&mut bench, &mut a, &[2, 3, 4]));
    bench.paths[2] = Path::Cut;
    bench.pass(&mut a, SECOND * 13);
    a.on_reply(late.token, Reply::Status(Status::Uncertain), bench.now);
    bench.pass(&mut a, SECOND * 14);
    // It is within the quarter of a lease after the report.
    bench.perform(&late);
    bench.pass(&mut a, LEASE * 3 / 5);
    bench.paths[2] = Path::Up;
    assert_old_list_is_refused(&mut bench, &a);
}

/// The drive is refreshed long after the move, and cannot be read after that.
#[test]
fn a_record_that_hides_a_move_may_be_refreshed_after_it() {
    let profile = forgetful();
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, profile);
    let mut reads = 0;
    let mut fate = |command: &Command| match (command.drive.0, op(command)) {
        (2, None) => {
            reads += 1;
            if reads % 4 == 1 { Fate::Answered } else { Fate::Instead(Status::Unreachable) }
        }
        _ => Fate::Answered,
    };
    move_votes_with(&mut bench, &mut a, &mut fate);
    pass_with(&mut bench, &mut a, LEASE + SECOND * 5, &mut fate);
    assert_old_list_is_refused(&mut bench, &a);
}

/// Drives that voted are named once more, and then no longer, before the move can be seen.
#[test]
fn drives_that_are_named_in_between_are_kept_until_a_move_is_seen() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    move_votes_with(&mut bench, &mut a, without_2);
    let all = bench.all();
    a.spread(&all, bench.now);
    exchange_with(&mut bench, &mut a, without_2);
    let named = bench.members(&[2, 3, 4]);
    a.spread(&named, bench.now);
    exchange_with(&mut bench, &mut a, without_2);
    assert_old_list_is_refused(&mut bench, &a);
}

/// A change to exclusive is refused, because a drive does not answer. No drive that voted is free
/// meanwhile.
#[test]
fn a_refused_change_does_not_free_the_drives_that_voted() {
    let profile = forgetful();
    let (mut bench, mut a, mut b) = (Bench::with(5, profile), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[3, 4]), GRANTED);
    move_votes_with(&mut bench, &mut a, without_2);
    exchange_with(&mut bench, &mut a, without_2);
    a.request(convert(X), bench.now).expect("in order");
    let end = bench.now + LEASE / 2;
    let mut outcome = None;
    while bench.now < end && outcome.is_none() {
        // The other host's commands arrive between an UNLOCK and the TRYLOCK after it.
        let mut open =
            exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
                (2, _) => Fate::Instead(Status::Unreachable),
                (0 | 1, Some(MutexOp::Unlock)) => Fate::Unheard,
                _ => Fate::Answered,
            });
        if !open.is_empty() {
            outcome = Some(take(&mut bench, &mut b, X, &[0, 1, 2], &[]));
            for command in open.drain(..) {
                a.on_reply(command.token, Reply::Status(Status::Good), bench.now);
            }
            break;
        }
        bench.wait(&mut a);
    }
    let news = events(&mut a);
    assert!(believes(&bench, &a), "{news:?}");
    assert_one_holder(&bench, &a, &b);
    assert!(outcome.is_none_or(|outcome| is_held(&outcome)), "{news:?}");
}

/// Drives that left the VG come back at once, while one that has come does not answer for long. No
/// drive stores the metadata of a REFRESH.
#[test]
fn a_lock_follows_drives_that_come_back_before_they_are_left() {
    let profile = forgetful();
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, profile);
    move_votes_with(&mut bench, &mut a, without_2);
    exchange_with(&mut bench, &mut a, without_2);
    let named = bench.members(&[0, 1, 2]);
    a.spread(&named, bench.now);
    let mut end = bench.now + LEASE * 3;
    while bench.now < end {
        pass_with(&mut bench, &mut a, SECOND, without_2);
        if let Some(ready) = is_ready(&mut a) {
            assert!(a.move_votes(&ready, bench.now));
            end = bench.now + LEASE * 2;
        }
    }
    assert!(believes(&bench, &a), "drives 0 and 1 of three answer all the while");
}

/// No drive that voted answers any more. The drive with the old mark was refreshed last.
#[test]
fn drives_that_voted_and_fail_do_not_leave_the_old_mark_alone() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    // The other drives' paths fail first.
    let mut refreshed = false;
    while !refreshed {
        bench.wait(&mut a);
        exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
            2 => {
                refreshed = true;
                Fate::Answered
            }
            _ => Fate::Instead(Status::Unreachable),
        });
    }
    let refreshed_at = bench.now;
    bench.paths[..3].fill(Path::Cut);
    assert!(travel(&mut bench, &mut a, &[2, 3, 4]));
    let end = refreshed_at + LEASE - SECOND;
    bench.pass(&mut a, end.since(bench.now));
    bench.paths[..3].fill(Path::Up);
    assert_no_other_gets(&mut bench, &a, &[0, 1, 2]);
}

/// The votes have moved from drives 0, 1 and 2 to 2, 3 and 4, and drive 2 does not answer.
fn moved_past_a_silent_drive() -> (Bench, Lock) {
    let (mut bench, mut lock) = held_on(&[0, 1, 2], 5, Profile::current());
    bench.paths[2] = Path::Cut;
    move_to(&mut bench, &mut lock, &[2, 3, 4]);
    (bench, lock)
}

#[test]
fn the_old_drives_keep_the_lock_as_long_as_the_record_of_a_silent_one_may_live() {
    let (mut bench, mut lock) = moved_past_a_silent_drive();
    // It was taken a second ago.
    let rest = LEASE + LEASE / 500 - SECOND;
    bench.pass(&mut lock, rest - Duration::from_micros(1));
    assert_eq!(on(&lock), [0, 1, 3, 4], "its record may be alive");
    bench.pass(&mut lock, Duration::from_micros(1));
    assert_eq!(on(&lock), [3, 4]);
}

#[test]
fn other_drives_that_are_named_do_not_end_that() {
    let (mut bench, mut lock) = moved_past_a_silent_drive();
    spread(&mut bench, &mut lock, &[0, 2, 3, 4]);
    assert_eq!(on(&lock), [0, 1, 3, 4]);
    spread(&mut bench, &mut lock, &[2, 3, 4]);
    assert_eq!(on(&lock), [0, 1, 3, 4]);
    bench.pass(&mut lock, LEASE * 2);
    assert_eq!(on(&lock), [3, 4]);
}

#[test]
fn the_next_acquisition_has_nothing_to_leave() {
    let (mut bench, mut lock) = moved_past_a_silent_drive();
    bench.run(&mut lock, RELEASE);
    bench.paths[2] = Path::Up;
    assert_eq!(take(&mut bench, &mut lock, X, &[2, 3, 4], &[0, 1]), GRANTED);
    spread(&mut bench, &mut lock, &[0, 1, 2, 3, 4]);
    assert_eq!(on(&lock), [0, 1, 2, 3, 4]);
    spread(&mut bench, &mut lock, &[2, 3, 4]);
    assert_eq!(on(&lock), [2, 3, 4]);
}

/// Only the drives that vote are taken anew to get the new mark.
#[test]
fn the_old_drives_are_not_taken_anew() {
    let profile = forgetful();
    let (mut bench, mut lock) = held_on(&[0, 1, 2], 5, profile);
    spread(&mut bench, &mut lock, &[2, 3, 4]);
    let before = said(&bench, 0).len();
    let ready = is_ready(&mut lock).expect("drives 3 and 4 are ready");
    assert!(lock.move_votes(&ready, bench.now));
    bench.exchange(&mut lock);
    assert_eq!(said(&bench, 0)[before..], ["unlock", "destroy"]);
    assert_eq!(on(&lock), [2, 3, 4]);
}

/// A drive of the VG that comes and goes while drive 2 hides the move has never voted, so that
/// nobody is kept out by it.
#[test]
fn a_drive_that_was_named_in_between_is_given_back_at_once() {
    let (mut bench, mut lock) = held_on(&[0, 1, 2], 6, Profile::current());
    bench.paths[2] = Path::Cut;
    move_to(&mut bench, &mut lock, &[2, 3, 4]);
    spread(&mut bench, &mut lock, &[2, 3, 4, 5]);
    assert_eq!(on(&lock), [0, 1, 3, 4, 5]);
    spread(&mut bench, &mut lock, &[2, 3, 4]);
    assert_eq!(on(&lock), [0, 1, 3, 4]);
    assert!(bench.states(5).is_empty());
}

/// Only the record on drive 2 hides the move. The old drives were refreshed later, and the TRYLOCK
/// of a new drive may come later still: neither is waited for.
#[test]
fn the_old_drives_are_kept_no_longer_than_the_record_that_hides_a_move() {
    let (mut bench, mut lock) = held_on(&[0, 1, 2], 7, Profile::current());
    let begin = bench.now;
    let away = |command: &Command| match command.drive.0 {
        2 => Fate::Instead(Status::Unreachable),
        6 => Fate::Instead(Status::Uncertain),
        _ => Fate::Answered,
    };
    pass_with(&mut bench, &mut lock, SECOND * 25, away);
    assert!(said(&bench, 0).contains(&"refresh"));
    lock.spread(&bench.members(&[2, 3, 4, 5, 6]), bench.now);
    pass_with(&mut bench, &mut lock, SECOND, away);
    let ready = is_ready(&mut lock).expect("drives 3, 4 and 5");
    assert!(lock.move_votes(&ready, bench.now));
    let end = begin + LEASE + LEASE / 500;
    let left = end.since(bench.now) - Duration::from_micros(1);
    pass_with(&mut bench, &mut lock, left, away);
    assert_eq!(on(&lock), [0, 1, 3, 4, 5]);
    pass_with(&mut bench, &mut lock, SECOND, away);
    exchange_with(&mut bench, &mut lock, away);
    assert_eq!(on(&lock), [3, 4, 5]);
}

/// The record on drive 2, which hides the move, ends before those on drives 0 and 1, and after that
/// nothing depends on these. The host stands still meanwhile, and the drives that vote have a lease
/// that is longer still.
#[test]
fn what_the_old_drives_keep_is_no_limit_when_nothing_hides_the_move() {
    let (mut bench, mut lock) = held_on(&[0, 1, 2], 5, Profile::current());
    let begin = bench.now;
    bench.paths[2] = Path::Cut;
    bench.pass(&mut lock, SECOND * 25);
    assert!(travel(&mut bench, &mut lock, &[2, 3, 4]));
    bench.paths[..2].fill(Path::Cut);
    bench.pass(&mut lock, (begin + SECOND * 55).since(bench.now));
    assert!(lock.safe_until() > Some(begin + SECOND * 90));
    bench.now = begin + SECOND * 85;
    lock.on_timer(bench.now);
    assert!(believes(&bench, &lock), "{:?}", events(&mut lock));
}

/// Drive 2 shows the move, and so nothing hides it any more; drive 6, which is new, never answered.
#[test]
fn a_new_drive_that_does_not_answer_keeps_no_old_drives() {
    let (mut bench, mut lock) = held_on(&[0, 1, 2], 7, Profile::current());
    bench.paths[2] = Path::Cut;
    bench.paths[6] = Path::Cut;
    move_to(&mut bench, &mut lock, &[2, 3, 4, 5, 6]);
    assert_eq!(on(&lock), [0, 1, 3, 4, 5]);
    bench.paths[2] = Path::Up;
    bench.pass(&mut lock, SECOND * 25);
    assert_eq!(on(&lock), [2, 3, 4, 5]);
}

/// A change to exclusive is refused, because drive 2 does not answer for long enough: it took the
/// change, but its record still shows the mark from before the move. It votes, so it is taken anew
/// as soon as it answers, and counts.
#[test]
fn a_refused_change_does_not_keep_a_drive_that_votes_without_the_mark() {
    let (mut bench, mut lock) = (Bench::with(5, forgetful()), lv_lock(1));
    assert_eq!(take(&mut bench, &mut lock, S, &[0, 1, 2], &[3, 4]), GRANTED);
    move_votes_with(&mut bench, &mut lock, without_2);
    exchange_with(&mut bench, &mut lock, without_2);
    let mut is_changed = false;
    let outcome = run_with(&mut bench, &mut lock, convert(X), |command| match command.drive.0 {
        2 if is_changed => Fate::Instead(Status::Unreachable),
        2 => {
            is_changed = op(command) == Some(MutexOp::Refresh);
            Fate::Answered
        }
        _ => Fate::Answered,
    });
    assert!(matches!(outcome, Outcome::Refused(_)) && is_changed, "{outcome:?}");
    bench.pass(&mut lock, SECOND * 30);
    bench.paths[3] = Path::Cut;
    bench.pass(&mut lock, LEASE * 2);
    assert!(believes(&bench, &lock), "drives 2 and 4 of three: {:?}", events(&mut lock));
}

/// As [`moved_votes_are_no_proof_for_a_second_adoption_after_the_lease`], but the votes moved away
/// from the LV's drive, and one of the drives that showed it answered the first adoption late.
#[test]
fn moved_votes_that_a_drive_shows_late_are_no_proof_for_a_second_adoption() {
    let (mut bench, mut first) = held_on(&[0], 5, Profile::current());
    move_to(&mut bench, &mut first, &[1, 2]);
    let orphan = adopt_beside(&bench, &[1, 2], &[0, 3, 4], first.safe_until());
    drop(first);
    bench.paths[2] = Path::Cut;
    let mut next = lv_lock(1);
    assert_eq!(bench.run(&mut next, in_mode(orphan, X)), Outcome::Adopted(X));
    bench.paths[2] = Path::Up;
    bench.pass(&mut next, LEASE);
    assert_eq!(on(&next), [1, 2]);
    drop(next);
    bench.now = bench.now + LEASE * 2;
    bench.paths = vec![Path::Up, Path::Cut, Path::Cut, Path::Up, Path::Up];
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[0], &[1, 2, 3, 4]), GRANTED);
    bench.paths = vec![Path::Cut, Path::Up, Path::Up, Path::Up, Path::Up];
    let (mut a, orphan) = (lv_lock(1), adopt_beside(&bench, &[1, 2], &[0, 3, 4], None));
    assert!(matches!(bench.run(&mut a, unknown(orphan)), Outcome::Refused(_)));
    assert_one_holder(&bench, &a, &b);
}

/// A drive's REFRESH is lost before the votes move, and arrives at the last moment. The record with
/// the old mark is alive for a whole lease from then on.
#[test]
fn the_old_drives_keep_the_lock_until_a_late_refresh_has_run_out() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    let late = next_refresh(&mut bench, &mut a, 2, Fate::Late);
    let arrives = bench.now + Timing::for_lease(LEASE).linger;
    bench.paths[2] = Path::Cut;
    move_to(&mut bench, &mut a, &[2, 3, 4]);
    let left = arrives.since(bench.now);
    bench.pass(&mut a, left);
    bench.perform(&late);
    bench.pass(&mut a, LEASE - SECOND / 20);
    bench.paths[2] = Path::Up;
    assert_old_list_is_refused(&mut bench, &a);
}

/// Drive 0, which an earlier acquisition held, did not answer its UNLOCK. The votes of the next one
/// move from drives 1 and 2 while drive 2 does not answer; drive 1 is half of these.
#[test]
fn a_drive_of_an_earlier_acquisition_is_none_of_those_that_voted() {
    let (mut bench, mut lock) = held_on(&[0], 5, Profile::current());
    bench.paths[0] = Path::Deaf;
    bench.run(&mut lock, RELEASE);
    assert_eq!(take(&mut bench, &mut lock, X, &[1, 2], &[3, 4]), GRANTED);
    bench.paths[2] = Path::Cut;
    move_to(&mut bench, &mut lock, &[2, 3, 4]);
    bench.pass(&mut lock, LEASE * 2);
    assert!(!events(&mut lock).contains(&Event::Lapsed));
    assert!(believes(&bench, &lock));
}

/// A lock is given back before the move of its votes can be seen, and acquired again. Drive 2 is
/// dead all the while. The next move leaves no record that could hide it, so the old drives are
/// not needed after it.
#[test]
fn the_next_acquisition_does_not_keep_what_the_last_one_had_to_keep() {
    let (mut bench, mut lock) = moved_past_a_silent_drive();
    bench.run(&mut lock, RELEASE);
    assert_eq!(take(&mut bench, &mut lock, X, &[0, 1, 2], &[3, 4]), GRANTED);
    bench.pass(&mut lock, LEASE * 3);
    move_to(&mut bench, &mut lock, &[2, 3, 4]);
    assert_eq!(on(&lock), [3, 4]);
    bench.paths[..2].fill(Path::Cut);
    bench.pass(&mut lock, LEASE * 2);
    assert!(!events(&mut lock).contains(&Event::Lapsed));
}
