//! Commands that undo a lock which the next life adopts, and say so.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_emulator::profile::SharedUnlock;
use idm_engine::{Command, Instant, Lock, Outcome, Request, Undoes};
use idm_protocol::{MutexOp, Reply, Status};

/// A sharer is refused to become exclusive: the drives carry out the last command of the change,
/// and all replies to it are lost. The drives do not answer to the host until `killed` after the
/// request; then the host sends refreshes as shared, and dies. The next life waits as the notes
/// say, and adopts what it finds. Within a quarter of a lease after the death the refreshes arrive.
/// Then another host asks for the lock as shared.
fn refreshed_as_shared_at_the_end(beside_a_dead_sharer: bool, killed: Duration) {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    if beside_a_dead_sharer {
        assert_eq!(take(&mut bench, &mut lv_lock(3), S, &[0, 1, 2], &[]), GRANTED);
        bench.now = bench.now + LEASE + SECOND;
    }
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
    let last = if beside_a_dead_sharer { MutexOp::Break } else { MutexOp::Refresh };
    let begun = bench.now;
    // A command may arrive for half a lease after it was handed out; the note is a second ahead.
    let mut noted = Instant::default();
    a.request(convert(X), bench.now).expect("held");
    let (mut lost, mut late): (Vec<Command>, Vec<Command>) = Default::default();
    let mut refused = false;
    while late.len() < 3 {
        assert!(bench.now.since(begun) < LEASE);
        while let Some(command) = a.next_command(bench.now) {
            if command.undoes == Undoes::Any {
                noted = noted.max(bench.now + LEASE / 2 + SECOND);
            }
            if op(&command) == Some(last) && lost.len() < 3 {
                bench.perform(&command);
                lost.push(command);
                continue;
            }
            if bench.now.since(begun) >= killed {
                assert_eq!(op(&command), Some(MutexOp::Refresh));
                late.push(command);
                continue;
            }
            let reply = match lost.len() {
                3 => Reply::Status(Status::Unreachable),
                _ => bench.perform(&command),
            };
            a.on_reply(command.token, reply, bench.now);
        }
        bench.now = bench.now + SECOND / 10;
        if bench.now == begun + LEASE / 4 {
            for command in &lost {
                a.on_reply(command.token, Reply::Status(Status::Uncertain), bench.now);
            }
        }
        a.on_timer(bench.now);
        refused |= matches!(done(&mut a), Some(Outcome::Refused(_)));
    }
    assert!(refused && a.mode() == Some(S));
    let safe_until = a.safe_until();
    drop(a);
    let died = bench.now;
    bench.now = died + SECOND;
    let until = noted.min(bench.now + LEASE / 4);
    let mut next: Lock = with_config(lv_lock(1), |config| {
        config.seed = 99;
        (config.earlier_until, config.earlier_shares_until) = (until, bench.now + LEASE / 4);
    });
    let left = adopt(&bench, &[0, 1, 2], safe_until);
    let gone = died + LEASE / 4;
    while !matches!(bench.run(&mut next, left.clone()), Outcome::Adopted(_)) && bench.now < gone {
        bench.now = (bench.now + SECOND / 2).min(gone);
    }
    if bench.now < gone {
        for command in &late {
            bench.perform(command);
        }
    }
    let mut b = lv_lock(2);
    take(&mut bench, &mut b, S, &[0, 1, 2], &[]);
    let both = believes(&bench, &next) && believes(&bench, &b);
    assert!(!both || next.mode() == Some(S), "{:?} and shared", next.mode());
}

#[test]
fn a_refresh_as_shared_undoes_a_break_as_exclusive_whose_answer_was_lost() {
    refreshed_as_shared_at_the_end(true, SECOND * 25);
}

#[test]
fn a_refresh_as_shared_undoes_a_change_to_exclusive_whose_answer_was_lost() {
    refreshed_as_shared_at_the_end(false, SECOND * 50);
}

/// Firmware that stores nothing on the UNLOCK of a shared lock.
fn forgetful() -> Profile {
    Profile {
        shared_unlock: SharedUnlock::LastStays,
        shared_unlock_stores_value: false,
        ..Profile::current()
    }
}

/// A host publishes 8 by its change to shared, which no drive stores yet, and dies long after it
/// with a refresh as shared under way. Its next life adopts the lock, and gives it up at once: lvm
/// asked for it. So it makes the drive exclusive and unlocks it with zero. The refresh arrives in
/// between. Another host must not believe the value before, 7.
#[test]
fn a_refresh_of_an_earlier_life_does_not_keep_a_wrong_value_from_its_removal() {
    let (mut bench, all) = with_a_value_on(Bench::with(1, forgetful()));
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    let publishes = Request::Convert { mode: S, value: Some(value(8)) };
    assert_eq!(bench.run(&mut a, publishes), Outcome::Converted { complete: true });
    bench.pass(&mut a, LEASE);
    let late = loop {
        bench.wait(&mut a);
        if let Some(command) = a.next_command(bench.now) {
            break command;
        }
    };
    assert_eq!((op(&late), late.undoes), (Some(MutexOp::Refresh), Undoes::Exclusive));
    let safe_until = a.safe_until();
    drop(a);
    bench.now = bench.now + SECOND;
    let mut next = with_config(vg_lock(1), |config| {
        (config.seed, config.earlier_shares_until) = (99, bench.now + LEASE / 4);
    });
    let left = adopt(&bench, &all, safe_until);
    assert_eq!(bench.run(&mut next, left), Outcome::Adopted(S));
    next.request(RELEASE, bench.now).expect("always in order");
    // It arrives within a quarter of a lease after the death.
    let gone = bench.now + LEASE / 4 - SECOND * 2;
    let (mut late, mut outcome) = (Some(late), None);
    while outcome.is_none() {
        while let Some(command) = next.next_command(bench.now) {
            let unlocks = op(&command) == Some(MutexOp::Unlock);
            if unlocks && bench.now < gone {
                late.take().map(|late| bench.perform(&late));
            }
            let reply = bench.perform(&command);
            if unlocks {
                // Another host asks before the mutex is destroyed.
                outcome = Some(take(&mut bench, &mut vg_lock(3), X, &all, &[]));
            }
            next.on_reply(command.token, reply, bench.now);
        }
        bench.now = bench.now + SECOND / 10;
        if bench.now >= gone {
            late.take().map(|late| bench.perform(&late));
        }
        next.on_timer(bench.now);
    }
    assert_ne!(outcome.as_ref().and_then(known), Some(7));
}
