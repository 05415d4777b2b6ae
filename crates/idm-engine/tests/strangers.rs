//! Holders that count different drives, and have few in common or none: the lock has to be on
//! drives that the other host reads, or its holder must not believe that it holds the lock.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Command, Lock, Outcome};
use idm_protocol::{Mode, Reply, Status};

const LINGER: Duration = Duration::from_secs(15);

/// Sends the commands of a lock while these drives do not answer it.
fn pass_without(bench: &mut Bench, lock: &mut Lock, cut: &[usize], time: Duration) {
    cut.iter().for_each(|&drive| bench.paths[drive] = Path::Cut);
    bench.pass(lock, time);
    cut.iter().for_each(|&drive| bench.paths[drive] = Path::Up);
}

/// Lets the next refreshes of these drives have this fate.
fn withhold_refreshes(
    bench: &mut Bench,
    lock: &mut Lock,
    on: &[u32],
    fate: fn() -> Fate,
) -> Vec<Command> {
    let mut lost = Vec::new();
    while lost.len() < on.len() {
        bench.wait(lock);
        lost.extend(exchange_with(bench, lock, |command| match command.drive.0 {
            drive if on.contains(&drive) => fate(),
            _ => Fate::Answered,
        }));
    }
    assert_eq!(lost.len(), on.len());
    lost
}

/// Host 1 holds an LV on drive 2, with the votes of drives 0 to 2 of five.
fn moved(mode: Mode) -> (Bench, Lock) {
    let (mut bench, mut lock) = (Bench::new(5), lv_lock(1));
    assert_eq!(take(&mut bench, &mut lock, mode, &[2], &[0, 1]), GRANTED);
    move_to(&mut bench, &mut lock, &[0, 1, 2]);
    (bench, lock)
}

/// The LV lies on drive 2. The other drives of host 1's lock leave the VG while host 1 does not
/// reach the VG's drives. Host 1 learns that at once, or later.
#[test]
fn drives_that_leave_the_vg_do_not_leave_a_holder_alone() {
    for (first, second) in [(X, X), (X, S), (S, X)] {
        for heard_after in [0, 10, 30, 55] {
            let (mut bench, mut a) = moved(first);
            pass_without(&mut bench, &mut a, &[2, 3, 4], SECOND * heard_after);
            let named = bench.members(&[2, 3, 4]);
            a.spread(&named, bench.now);
            let (mut b, end) = (lv_lock(2), bench.now + LEASE * 2);
            while take(&mut bench, &mut b, second, &[2], &[3, 4]) != GRANTED {
                assert!(bench.now < end, "the drives are free after a lease");
                pass_without(&mut bench, &mut a, &[2, 3, 4], SECOND);
            }
            assert_one_holder(&bench, &a, &b);
        }
    }
}

/// The last drive that stays in the VG is silent while another one leaves.
#[test]
fn a_lock_that_is_on_no_drive_of_the_vg_gets_the_time_to_move() {
    let (mut bench, mut lock) = moved(X);
    pass_without(&mut bench, &mut lock, &[2], LEASE * 2);
    assert!(believes(&bench, &lock));
    let named = bench.members(&[2, 3, 4]);
    lock.spread(&named, bench.now);
    assert!(lock.safe_until() > Some(bench.now + LEASE / 2), "no drive of the VG shows it now");
    bench.pass(&mut lock, SECOND);
    let ready = is_ready(&mut lock).expect("all drives answer");
    assert!(lock.move_votes(&ready, bench.now));
    bench.pass(&mut lock, LEASE * 3);
    assert!(believes(&bench, &lock) && on(&lock) == [2, 3, 4]);
}

/// None of the VG's present drives answers, and none of the others stays.
#[test]
fn a_lock_that_cannot_move_ends_with_the_lease_in_which_it_was_told_to() {
    let (mut bench, mut lock) = moved(X);
    let named = bench.members(&[3, 4]);
    lock.spread(&named, bench.now);
    let spared = bench.now + (LEASE - LEASE / 500);
    // The same list of drives, named again, does not prolong it.
    pass_without(&mut bench, &mut lock, &[3, 4], LEASE / 2);
    lock.spread(&named, bench.now);
    pass_without(&mut bench, &mut lock, &[3, 4], LEASE / 4);
    assert_eq!((believes(&bench, &lock), lock.safe_until()), (true, Some(spared)));
    assert!(lock.is_moving());
    pass_without(&mut bench, &mut lock, &[3, 4], LEASE / 4);
    assert_eq!((believes(&bench, &lock), lock.safe_until()), (false, Some(spared)));
    assert!(!lock.is_moving(), "nobody waits for what will not be");
}

/// The VG's drives change once more, and again the host reaches none of them.
#[test]
fn other_drives_do_not_prolong_the_time_to_move() {
    let (mut bench, mut lock) = moved(X);
    let end = bench.now + LEASE;
    for named in [[3], [4], [3], [4]] {
        let named = bench.members(&named);
        lock.spread(&named, bench.now);
        pass_without(&mut bench, &mut lock, &[3, 4], LEASE / 3);
    }
    assert!(lock.safe_until() <= Some(end) && !believes(&bench, &lock));
}

/// Drives that show the lock are named in between.
#[test]
fn a_lock_that_was_seen_gets_the_whole_time_to_move() {
    let (mut bench, mut lock) = moved(X);
    for named in [&[3][..], &[2, 3], &[4]] {
        let named = bench.members(named);
        lock.spread(&named, bench.now);
        pass_without(&mut bench, &mut lock, &[3, 4], LEASE / 2);
    }
    assert!(lock.safe_until() > Some(bench.now + LEASE / 3) && believes(&bench, &lock));
}

/// It is not known whether an adopted lock is where its LV lies: the earlier life may have moved
/// both. A lock that is acquired anew is.
#[test]
fn only_an_acquired_lock_is_where_its_lv_lies() {
    let (mut bench, mut lock) = moved(X);
    bench.run(&mut lock, RELEASE);
    assert_eq!(take(&mut bench, &mut lock, X, &[2], &[0, 1]), GRANTED);
    let drives = bench.members(&[2, 3, 4]);
    lock.spread(&drives, bench.now);
    pass_without(&mut bench, &mut lock, &[3, 4], LEASE * 2);
    assert!(believes(&bench, &lock));
    let (mut next, request) = (lv_lock(1), adopt(&bench, &[2], None));
    assert_eq!(bench.run(&mut next, request), Outcome::Adopted(X));
    let drives = bench.members(&[3, 4]);
    next.spread(&drives, bench.now);
    pass_without(&mut bench, &mut next, &[3, 4], LEASE * 2);
    assert!(!believes(&bench, &next));
}

/// The votes moved in an earlier life. After a lapse nothing proves that no other host had the
/// lock, because it may count the LV's drive and drives that are new in the VG.
#[test]
fn an_adopted_lock_whose_votes_had_moved_is_not_regained() {
    let (mut bench, first) = moved(X);
    let (mut a, orphan) = (lv_lock(1), adopt(&bench, &[0, 1, 2], first.safe_until()));
    assert_eq!(bench.run(&mut a, orphan), Outcome::Adopted(X));
    bench.paths.fill(Path::Cut);
    bench.pass(&mut a, LEASE * 2);
    bench.paths = vec![Path::Cut, Path::Cut, Path::Up, Path::Up, Path::Up];
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[2], &[0, 1, 3, 4]), GRANTED);
    bench.paths.fill(Path::Up);
    bench.pass(&mut a, LEASE / 3);
    bench.pass(&mut b, Duration::ZERO);
    assert!(believes(&bench, &b));
    assert_one_holder(&bench, &a, &b);
}

/// The LV lies on all of the VG's drives, and its holder leaves it on one of them. Then the VG gets
/// drives that the holder does not reach.
#[test]
fn a_lock_whose_lv_may_be_on_fewer_drives_is_seen_by_the_vg() {
    let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    // The VG's lock names the drives that vote already.
    spread(&mut bench, &mut a, &[0, 1, 2]);
    let drives = bench.all();
    a.spread(&drives, bench.now);
    pass_without(&mut bench, &mut a, &[0, 3, 4], LEASE * 2);
    bench.paths = vec![Path::Up, Path::Cut, Path::Cut, Path::Up, Path::Up];
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[0], &[1, 2, 3, 4]), GRANTED);
    assert_one_holder(&bench, &a, &b);
}

/// The votes moved before the lock was acquired anew, and one of the LV's two drives is silent.
#[test]
fn a_move_before_the_acquisition_binds_no_lock() {
    let (mut bench, mut lock) = moved(X);
    bench.run(&mut lock, RELEASE);
    assert_eq!(take(&mut bench, &mut lock, X, &[1, 2], &[0]), GRANTED);
    let drives = bench.members(&[1, 2, 3]);
    bench.paths[3] = Path::Cut;
    lock.spread(&drives, bench.now);
    pass_without(&mut bench, &mut lock, &[2], LEASE * 3);
    assert!(believes(&bench, &lock), "whoever takes it has to take both of the LV's drives");
}

/// The VG grows by drives that the host does not reach.
#[test]
fn drives_that_come_to_the_vg_end_no_lock_while_all_others_have_it() {
    let (mut bench, mut lock) = (Bench::new(8), lv_lock(1));
    assert_eq!(take(&mut bench, &mut lock, X, &[0, 1, 2], &[]), GRANTED);
    let named = bench.all();
    let new = [3, 4, 5, 6, 7];
    assert!(travel(&mut bench, &mut lock, &[0, 1]) && travel(&mut bench, &mut lock, &[0, 1, 2]));
    lock.spread(&named, bench.now);
    pass_without(&mut bench, &mut lock, &new, LEASE * 3);
    assert!(believes(&bench, &lock), "whoever takes it has to take one of its drives");
    pass_without(&mut bench, &mut lock, &[2, 3, 4, 5, 6, 7], LEASE);
    assert!(!believes(&bench, &lock), "the LV may lie on the one that is silent now");
}

/// The drives that an LV lies on are enough, until it moves.
#[test]
fn an_lv_on_its_first_drives_needs_no_other() {
    let (mut bench, mut lock) = (Bench::new(5), lv_lock(1));
    assert_eq!(take(&mut bench, &mut lock, X, &[0, 1, 2], &[3, 4]), GRANTED);
    let named = bench.members(&[2, 3, 4]);
    lock.spread(&named, bench.now);
    pass_without(&mut bench, &mut lock, &[2, 3, 4], LEASE * 3);
    assert!(believes(&bench, &lock));
}

/// Two hosts share the lock on all drives. Drives 0 and 1 leave the VG, and the second host does
/// not reach the others for a while.
#[test]
fn a_sharer_ends_that_is_on_drives_that_have_left_the_vg() {
    let (mut bench, mut a, mut b) = (Bench::new(5), lv_lock(1), lv_lock(2));
    for lock in [&mut a, &mut b] {
        assert_eq!(take(&mut bench, lock, S, &[2], &[0, 1]), GRANTED);
        assert!(travel(&mut bench, lock, &[0, 1, 2]));
        bench.exchange(lock);
    }
    move_to(&mut bench, &mut a, &[2, 3, 4]);
    let named = bench.members(&[2, 3, 4]);
    b.spread(&named, bench.now);
    let end = bench.now + LEASE + LEASE / 6;
    while bench.now < end {
        bench.now = bench.now + Duration::from_millis(500);
        a.on_timer(bench.now);
        bench.exchange(&mut a);
        b.on_timer(bench.now);
        pass_without(&mut bench, &mut b, &[2, 3, 4], Duration::ZERO);
        bench.run(&mut a, convert(X));
        if a.mode() == Some(X) {
            return assert_one_holder(&bench, &a, &b);
        }
    }
    panic!("the other sharer's lease is over");
}

/// A sharer that can be seen on too few of the VG's drives does not become exclusive.
#[test]
fn a_change_to_exclusive_does_not_hide_a_lock_from_the_vg() {
    let (mut bench, mut lock) = moved(S);
    let named = bench.members(&[2, 3, 4]);
    for drive in [2, 3, 4] {
        bench.paths[drive] = Path::Cut;
    }
    lock.spread(&named, bench.now);
    bench.exchange(&mut lock);
    let outcome = bench.run(&mut lock, convert(X));
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert!(believes(&bench, &lock) && lock.mode() == Some(S));
}

/// Host 2 shares the LV on drive 0. Host 1 extends it to drives 3 and 4 without its lock
/// (`lvextend --lockopt skiplv`). Host 3 does not reach drive 0 for a moment.
#[test]
fn an_lv_that_was_extended_while_shared_shows_its_sharer() {
    let (mut bench, mut b, mut c) = (Bench::new(5), lv_lock(2), lv_lock(3));
    assert_eq!(take(&mut bench, &mut b, S, &[0], &[1, 2, 3, 4]), GRANTED);
    // A sharer's lock is put on the VG's drives at once.
    assert!(travel(&mut bench, &mut b, &[0, 1, 2, 3, 4]));
    bench.paths[0] = Path::Cut;
    assert!(is_held(&take(&mut bench, &mut c, X, &[0, 3, 4], &[1, 2])));
}

/// Host 1 reaches drives 0 and 3 of five, and must not move the LV from 0 to 3 then: the VG's lock
/// is not granted to it. It is on enough drives before.
#[test]
fn an_lv_that_has_moved_after_its_votes_shows_its_holder() {
    let (mut bench, mut a, mut b) = (Bench::new(5), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut a, X, &[0], &[1, 2, 3, 4]), GRANTED);
    let named = bench.members(&[0, 1, 2, 3, 4]);
    a.spread(&named, bench.now);
    assert!(a.is_moving());
    pass_without(&mut bench, &mut a, &[1, 2, 4], SECOND * 5);
    assert!(a.is_moving() && is_ready(&mut a).is_none());
    bench.pass(&mut a, LEASE);
    let ready = is_ready(&mut a).expect("all drives answer");
    assert!(a.move_votes(&ready, bench.now) && !a.is_moving());
    pass_without(&mut bench, &mut a, &[1, 3], LEASE * 2);
    bench.paths[0] = Path::Cut;
    assert!(is_held(&take(&mut bench, &mut b, X, &[3], &[0, 1, 2, 4])));
}

/// Two REFRESHes with the old mark are lost; then the records are marked for a move, and lvmlockd
/// dies before the votes move. The next one adopts the lock with the old votes, and moves them.
/// Then the lost REFRESHes arrive, within a quarter of a lease after the death.
#[test]
fn a_late_refresh_of_a_dead_lvmlockd_does_not_hide_that_votes_have_moved() {
    let (mut bench, mut first) = (Bench::new(6), lv_lock(1));
    let old = [0, 1, 2, 3, 4];
    assert_eq!(take(&mut bench, &mut first, X, &old, &[]), GRANTED);
    let late = withhold_refreshes(&mut bench, &mut first, &[3, 4], || Fate::Late);
    spread(&mut bench, &mut first, &[3, 4, 5]);
    assert_eq!(is_ready(&mut first), None, "the lost REFRESHes may still write the old mark");
    let safe_until = first.safe_until();
    drop(first);
    let mut a = with_config(lv_lock(1), |config| {
        config.earlier_until = bench.now;
        config.earlier_writes_until = bench.now + LINGER;
        config.seed = 3;
    });
    let request = adopt(&bench, &old, safe_until);
    assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
    bench.pass(&mut a, SECOND);
    assert!(!travel(&mut bench, &mut a, &[3, 4, 5]), "they may arrive yet");
    for command in &late {
        bench.perform(command);
    }
    // This host does not have the new list of drives.
    let mut b = lv_lock(2);
    assert!(is_held(&take(&mut bench, &mut b, X, &old, &[])));
    bench.pass(&mut a, LINGER + LEASE / 2);
    assert!(is_ready(&mut a).is_some(), "nothing is late any more");
}

/// A REFRESH with the old mark is late, or has no answer yet, on the one drive that the old list
/// and the new one have in common.
#[test]
fn a_drive_that_may_hide_a_move_keeps_the_lock_on_those_that_voted() {
    for fate in [|| Fate::Late, || Fate::Open] {
        let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
        let late = withhold_refreshes(&mut bench, &mut a, &[2], fate);
        move_to(&mut bench, &mut a, &[2, 3, 4]);
        for command in &late {
            bench.perform(command);
        }
        // This host does not have the new list of drives; drive 2 shows it the holder.
        let mut b = lv_lock(2);
        assert!(is_held(&take(&mut bench, &mut b, X, &[0, 1, 2], &[])));
        assert!(believes(&bench, &a));
        a.on_reply(late[0].token, Reply::Status(Status::Good), bench.now);
        bench.pass(&mut a, LINGER + LEASE / 2);
        assert_eq!(on(&a), [2, 3, 4], "nothing is late any more");
    }
}
