//! Suspicions that were found by reading, each as a test.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Command, Lock, Outcome};

const SECOND: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(15);

/// Loses the next refreshes of these drives.
fn lose_refreshes(bench: &mut Bench, lock: &mut Lock, on: &[u32]) -> Vec<Command> {
    let mut lost = Vec::new();
    while lost.len() < on.len() {
        bench.wait(lock);
        lost.extend(exchange_with(bench, lock, |command| match command.drive.0 {
            drive if on.contains(&drive) => Fate::Late,
            _ => Fate::Answered,
        }));
    }
    assert_eq!(lost.len(), on.len());
    lost
}

/// Two REFRESHes with the old mark are lost; then the records are marked for a move, and lvmlockd
/// dies before the votes move. The next one adopts the lock with the old votes, and moves them.
/// Then the lost REFRESHes arrive, within a quarter of a lease after the death.
#[test]
fn a_late_refresh_of_a_dead_lvmlockd_does_not_hide_that_votes_have_moved() {
    let mut bench = Bench::new(6);
    let old = [0, 1, 2, 3, 4];
    let mut first = lv_lock(1);
    assert_eq!(take(&mut bench, &mut first, X, &old, &[]), GRANTED);
    let late = lose_refreshes(&mut bench, &mut first, &[3, 4]);
    spread(&mut bench, &mut first, &[3, 4, 5]);
    assert_eq!(is_ready(&mut first), None, "the lost REFRESHes may still write the old mark");
    let granted_until = first.safe_until();
    drop(first);
    let mut a = with_config(lv_lock(1), |config| {
        config.earlier_until = bench.now;
        config.earlier_writes_until = bench.now + LINGER;
        config.seed = 3;
    });
    let request = adopt(&bench, &old, granted_until);
    assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
    bench.pass(&mut a, SECOND);
    let moved = travel(&mut bench, &mut a, &[3, 4, 5]);
    bench.pass(&mut a, SECOND);
    for command in &late {
        bench.perform(command);
    }
    // This host does not have the new list of drives.
    let mut b = lv_lock(2);
    let outcome = take(&mut bench, &mut b, X, &old, &[]);
    println!("moved: {moved}, {outcome:?}, {:?}", on(&a));
    assert_one_holder(&bench, &a, &b);
}

/// Without a death: the votes move without the one drive that the old list and the new one have in
/// common, because a REFRESH with the old mark may still reach it. Then it does.
#[test]
fn votes_do_not_move_away_from_a_drive_that_may_hide_it() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 5, Profile::current());
    let late = lose_refreshes(&mut bench, &mut a, &[2]);
    let moved = travel(&mut bench, &mut a, &[2, 3, 4]);
    bench.exchange(&mut a);
    for command in &late {
        bench.perform(command);
    }
    // This host does not have the new list of drives; drive 2 shows it the holder.
    let mut b = lv_lock(2);
    let outcome = take(&mut bench, &mut b, X, &[0, 1, 2], &[]);
    println!("moved: {moved}, {outcome:?}, {:?}, {:?}", on(&a), bench.states(2));
    assert_one_holder(&bench, &a, &b);
}
