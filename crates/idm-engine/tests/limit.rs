//! The moment until which an adopted lock is safe, and when it ends.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Command, Event, Lock, Outcome};
use idm_protocol::{DriveCommand, MutexOp, Status};

/// An LV lock that was adopted without drive 0, and is safe for this long.
fn adopted_for(time: Duration) -> (Bench, Lock) {
    let (mut bench, first) = held_on(&[0, 1, 2], 3, Profile::current());
    drop(first);
    bench.paths[0] = Path::Cut;
    let (mut a, until) = (lv_lock(1), bench.now + time);
    let request = in_mode(adopt(&bench, &[0, 1, 2], Some(until)), X);
    assert_eq!(bench.run(&mut a, request), Outcome::Adopted(X));
    (bench, a)
}

fn lapses_within(bench: &mut Bench, lock: &mut Lock, time: Duration) -> bool {
    bench.pass(lock, time);
    events(lock).contains(&Event::Lapsed)
}

#[test]
fn an_adopted_lock_that_gets_its_last_drive_later_is_like_any_other() {
    let (mut bench, mut a) = adopted_for(SECOND * 50);
    bench.paths[0] = Path::Up;
    bench.pass(&mut a, SECOND * 40);
    bench.paths[1] = Path::Cut;
    assert!(!lapses_within(&mut bench, &mut a, LEASE * 2));
}

#[test]
fn the_limit_of_an_adopted_lock_does_not_concern_the_next_one() {
    let (mut bench, mut a) = adopted_for(SECOND * 20);
    bench.run(&mut a, RELEASE);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    assert!(!lapses_within(&mut bench, &mut a, LEASE * 2));
}

/// A drive that has an adopted lock in a weaker mode does not have it.
#[test]
fn a_drive_that_shows_a_weaker_mode_does_not_end_the_limit() {
    let (mut bench, mut first) = (Bench::new(3), lv_lock(1));
    assert_eq!(take(&mut bench, &mut first, S, &[0, 1, 2], &[]), GRANTED);
    bench.paths[2] = Path::Cut;
    bench.run(&mut first, convert(X));
    drop(first);
    bench.paths[2] = Path::Up;
    let (mut a, until) = (lv_lock(1), bench.now + SECOND * 20);
    let request = in_mode(adopt(&bench, &[0, 1, 2], Some(until)), X);
    let promotes = |command: &Command| match (command.drive.0, &command.command) {
        (2, DriveCommand::Mutex(MutexOp::Refresh, record)) if record.class.mode() == X => {
            Fate::Instead(Status::Unreachable)
        }
        _ => Fate::Answered,
    };
    assert_eq!(run_with(&mut bench, &mut a, request, promotes), Outcome::Adopted(X));
    pass_with(&mut bench, &mut a, SECOND * 30, promotes);
    assert!(events(&mut a).contains(&Event::Lapsed));
}
