//! Drives that do not vote yet and are taken anew, because no REFRESH marks their records.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::{Drive, Profile};
use idm_engine::{Command, Event, Lock, Outcome, Timing};
use idm_protocol::{Mode, MutexOp, Reply, State, Status};

/// The reply of a drive that can be reached, or not.
fn reply_of(bench: &mut Bench, command: &Command) -> Reply {
    match bench.paths[command.drive.0 as usize] {
        Path::Up => bench.perform(command),
        _ => Reply::Status(Status::Unreachable),
    }
}

/// Commands to a drive that is taken anew, up to the look that shows that no REFRESH marks its
/// record.
const REMARKS: [&str; 4] = ["trylock", "read", "refresh", "read"];

/// Drive 0 answers these. Its UNLOCK is planned.
fn until_drive_0_is_to_be_unlocked(bench: &mut Bench, lock: &mut Lock) {
    bench.log.clear();
    while said(bench, 0) != REMARKS {
        let command = lock.next_command(bench.now).expect("drive 0 is being taken");
        bench.log.push((command.drive.0 as usize, name_of(&command.command)));
        let reply = reply_of(bench, &command);
        lock.on_reply(command.token, reply, bench.now);
    }
}

/// Each drive gets its command before the answers to the last ones come, so that all drives that
/// are given back are unlocked at the same time. Ends there.
fn until_unlocked(bench: &mut Bench, lock: &mut Lock) {
    for _ in 0..20 {
        let sent = all_at_once(bench, lock);
        let unlocks = sent.iter().any(|command| op(command) == Some(MutexOp::Unlock));
        for command in sent {
            let reply = reply_of(bench, &command);
            lock.on_reply(command.token, reply, bench.now);
        }
        if unlocks {
            break;
        }
    }
}

/// A dead host had the lock on all drives of the VG. The next one shares it on drive 0, on which
/// the LV lies, and breaks the dead host on all drives. Its lock is put on the VG's drives, because
/// another host may extend the LV without its lock, and does so (`lvextend --lockopt skiplv`), to
/// drives 0 to 2. A third host, which drive 0 does not answer, asks for the LV as exclusive on
/// these.
#[test]
fn drives_that_are_taken_anew_are_not_all_given_back_at_once() {
    let (mut bench, mut a) = after_a_dead_host(S, forgetful());
    assert_eq!(on(&a), [0, 1, 2]);
    let named = bench.members(&[0, 1, 2]);
    a.spread(&named, bench.now);
    until_unlocked(&mut bench, &mut a);
    let mut c: Lock = lv_lock(2);
    bench.paths[0] = Path::Cut;
    take(&mut bench, &mut c, X, &[0, 1, 2], &[]);
    bench.paths[0] = Path::Up;
    bench.pass(&mut a, SECOND);
    assert_one_holder(&bench, &a, &c);
}

/// All of the VG's drives vote. Drive 2 dies, and `dead` later the VG is drives 2 and 3, named
/// during a change, so that the record on drive 3 has no mark; no REFRESH gives it one. Returns
/// whether the lock lapsed within three leases, and whether drive 3 was given back.
fn taken_anew(dead: Duration, loses: bool) -> (bool, bool) {
    let (mut bench, mut a) = (Bench::with(4, forgetful()), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    spread(&mut bench, &mut a, &[0, 1, 2]);
    bench.pass(&mut a, SECOND * 25);
    bench.paths[2] = Path::Cut;
    bench.pass(&mut a, dead);
    assert!(believes(&bench, &a));
    a.request(convert(S), bench.now).expect("in order");
    a.spread(&bench.members(&[2, 3]), bench.now);
    for command in all_at_once(&bench, &mut a) {
        let reply = match command.drive.0 {
            2 => Reply::Status(Status::Unreachable),
            _ => bench.perform(&command),
        };
        a.on_reply(command.token, reply, bench.now);
    }
    let mut lost = None;
    let mut unlocked = false;
    let end = bench.now + LEASE * 3;
    while bench.now < end {
        while let Some(command) = a.next_command(bench.now) {
            let unlocks = command.drive.0 == 3 && op(&command) == Some(MutexOp::Unlock);
            if unlocks && !unlocked && loses {
                unlocked = true;
                bench.perform(&command);
                lost = Some((command.token, bench.now + SECOND * 10));
                continue;
            }
            unlocked |= unlocks;
            let reply = match command.drive.0 {
                2 => Reply::Status(Status::Unreachable),
                _ => bench.perform(&command),
            };
            a.on_reply(command.token, reply, bench.now);
        }
        if let Some((token, at)) = lost {
            if bench.now >= at {
                a.on_reply(token, Reply::Status(Status::Uncertain), bench.now);
                lost = None;
            }
        }
        if let Some(ready) = is_ready(&mut a) {
            a.move_votes(&ready, bench.now);
        }
        bench.now = bench.now + SECOND / 10;
        a.on_timer(bench.now);
    }
    (!believes(&bench, &a), unlocked)
}

fn lapses(loses: bool) -> Vec<u64> {
    let all = (0..50).step_by(3);
    all.filter(|&dead| taken_anew(SECOND * dead as u32, loses) == (true, true)).collect()
}

/// For comparison.
#[test]
fn a_drive_that_is_taken_anew_beside_a_dead_one_costs_no_lock() {
    assert_eq!(lapses(false), []);
}

#[test]
fn one_lost_reply_of_a_drive_that_is_taken_anew_beside_a_dead_one_costs_no_lock() {
    assert_eq!(lapses(true), []);
}

/// The same beginning. Drive 1 answers each command late. The REFRESH that is to mark its record
/// succeeds, and the next command to it is its UNLOCK; it does not keep anybody out while drive 2
/// is given back. One answer of drive 2 is lost.
#[test]
fn a_drive_that_is_about_to_be_given_back_does_not_stand_in_for_another_one() {
    for delay in 40..60 {
        drive_1_answers_after(SECOND / 10 * delay);
    }
}

fn drive_1_answers_after(delay: Duration) {
    let (mut bench, mut a) = after_a_dead_host(S, forgetful());
    let named = bench.members(&[0, 1, 2]);
    a.spread(&named, bench.now);
    let mut late: Vec<(idm_engine::Instant, idm_engine::Token, Reply)> = Vec::new();
    let (mut is_lost, mut is_slow) = (false, false);
    for _ in 0..600 {
        let (due, rest): (Vec<_>, Vec<_>) = late.into_iter().partition(|&(at, ..)| at <= bench.now);
        late = rest;
        due.into_iter().for_each(|(_, token, reply)| a.on_reply(token, reply, bench.now));
        a.on_timer(bench.now);
        while let Some(command) = a.next_command(bench.now) {
            let (token, reply) = (command.token, bench.perform(&command));
            is_slow |= command.drive.0 == 1 && op(&command) == Some(MutexOp::Trylock);
            match (command.drive.0, op(&command)) {
                (1, _) if is_slow => late.push((bench.now + delay, token, reply)),
                (2, Some(MutexOp::Unlock)) if !is_lost => {
                    is_lost = true;
                    let at = bench.now + SECOND * 10;
                    late.push((at, token, Reply::Status(Status::Uncertain)));
                }
                _ => a.on_reply(token, reply, bench.now),
            }
        }
        let is_free = |drive: usize| !bench.states(drive).contains(&State::Locked);
        if is_free(1) && is_free(2) {
            let mut c = lv_lock(2);
            bench.paths[0] = Path::Cut;
            take(&mut bench, &mut c, X, &[0, 1, 2], &[]);
            return assert_one_holder(&bench, &a, &c);
        }
        bench.now = bench.now + SECOND / 10;
    }
}

/// A REFRESH with the mark from before the move was lost, and may still reach drive 1, which shows
/// the new mark already. It is enough to read it again when nothing can come any more.
#[test]
fn a_drive_that_shows_the_mark_is_not_taken_anew() {
    let (mut bench, mut a) = after_a_dead_host(X, Profile::current());
    next_refresh(&mut bench, &mut a, 1, Fate::Late);
    bench.log.clear();
    spread(&mut bench, &mut a, &[0, 1, 2]);
    bench.pass(&mut a, SECOND * 40);
    let said = said(&bench, 1);
    assert!(said.starts_with(&["refresh", "read"]) && !said.contains(&"trylock"), "{said:?}");
}

/// Two new drives are ready, and a third is needed. Two drives that vote are named as well, and no
/// REFRESH marks their records; but while they vote, they are not taken anew. So at any moment
/// drive 0 may lose its state, and drive 1 be slow to answer: it has the lock all the while.
#[test]
fn drives_that_vote_are_not_taken_anew_before_the_votes_move() {
    for steps in 0..40 {
        let (mut bench, mut a) = held_on(&[0, 1, 2], 5, forgetful());
        a.spread(&bench.members(&[1, 2, 3, 4]), bench.now);
        for _ in 0..steps {
            match a.next_command(bench.now) {
                Some(command) => {
                    let reply = bench.perform(&command);
                    a.on_reply(command.token, reply, bench.now);
                }
                None => bench.wait(&mut a),
            }
        }
        bench.drives[0].reset();
        let open = pass_with(&mut bench, &mut a, SECOND * 25, |command| match command.drive.0 {
            1 => Fate::Open,
            _ => Fate::Answered,
        });
        for command in open {
            let reply = bench.perform(&command);
            a.on_reply(command.token, reply, bench.now);
        }
        assert!(believes(&bench, &a), "after {steps} steps: {:?}", events(&mut a));
    }
}

/// A dead host had the lock on all drives of the VG. The next one shares it on drives 0, 3 and 4,
/// and breaks the dead host on all drives. Then the VG is drives 0 to 2. Two of these are taken
/// anew; drives 3 and 4 keep out nobody who asks on drives 0 to 2, so that it is one at a time.
#[test]
fn old_drives_do_not_stand_in_for_drives_that_are_to_vote() {
    let (mut bench, mut dead) = (Bench::with(5, forgetful()), lv_lock(3));
    assert_eq!(take(&mut bench, &mut dead, X, &[0, 1, 2, 3, 4], &[]), GRANTED);
    drop(dead);
    bench.now = bench.now + LEASE * 2;
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, S, &[0, 3, 4], &[1, 2]), GRANTED);
    assert_eq!(on(&a), [0, 1, 2, 3, 4]);
    a.spread(&bench.members(&[0, 1, 2]), bench.now);
    until_unlocked(&mut bench, &mut a);
    let mut c = lv_lock(2);
    bench.paths[0] = Path::Cut;
    let outcome = take(&mut bench, &mut c, X, &[0, 1, 2], &[]);
    assert!(is_held(&outcome), "{outcome:?}");
    assert_one_holder(&bench, &a, &c);
}

/// The VG's drives are named during a change, when the records still name the drives that vote. The
/// answer of the new drive is lost; its record is as it should be.
#[test]
fn a_drive_that_is_named_during_a_change_is_not_given_back() {
    let (mut bench, mut a) = held_on(&[0, 1, 2], 4, forgetful());
    a.request(convert(S), bench.now).expect("held");
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        0 => Fate::Answered,
        _ => Fate::Open,
    });
    a.spread(&bench.all(), bench.now);
    let mut is_lost = false;
    pass_with(&mut bench, &mut a, SECOND, |command| match command.drive.0 {
        3 if !core::mem::replace(&mut is_lost, true) => Fate::Despite(Status::Uncertain),
        _ => Fate::Answered,
    });
    assert_eq!((open.len(), done(&mut a)), (2, None), "the change is under way");
    assert_eq!(said(&bench, 3)[1..], ["trylock", "trylock", "read", "refresh"]);
}

/// Drive 2 took the lock, but its answer was lost. It votes already when it is named, and so its
/// record need not have the new mark before the votes move.
#[test]
fn a_drive_that_votes_is_taken_over_with_the_mark_that_it_has() {
    let (mut bench, mut a) = (Bench::with(5, forgetful()), lv_lock(1));
    bench.paths[2] = Path::Deaf;
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[3, 4]), GRANTED);
    bench.paths[2] = Path::Cut;
    spread(&mut bench, &mut a, &[2, 3, 4]);
    assert!(is_ready(&mut a).is_some());
    bench.log.clear();
    bench.paths[2] = Path::Up;
    bench.pass(&mut a, SECOND * 25);
    assert_eq!(on(&a), [0, 1, 2, 3, 4]);
    assert!(!said(&bench, 2).contains(&"unlock"), "{:?}", said(&bench, 2));
}

/// Votes that have moved away from drive 0 are to move back to it alone, where the record is still
/// the one from before the first move: its UNLOCK did not arrive. During a change that is refused,
/// the drive answers some of the commands only. It does not vote, and so it is taken anew.
#[test]
fn a_refused_change_does_not_keep_a_drive_that_comes_back_without_the_mark() {
    let (mut bench, mut a) = (Bench::with(6, forgetful()), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[3, 4, 5]), GRANTED);
    spread(&mut bench, &mut a, &[3, 4, 5]);
    let ready = is_ready(&mut a).expect("drives 3 to 5");
    bench.paths[0] = Path::Cut;
    assert!(a.move_votes(&ready, bench.now));
    bench.pass(&mut a, SECOND);
    bench.paths[0] = Path::Up;
    a.spread(&bench.members(&[0]), bench.now);
    a_change_is_refused_halfway(&mut bench, &mut a, 0);
    assert!(moves_in_time(&mut bench, &mut a), "{:?}", events(&mut a));
    assert!(believes(&bench, &a));
}

/// The same of drive 5, where a dead host was broken, while drive 2 hides the first move.
#[test]
fn a_refused_change_does_not_keep_a_drive_without_the_mark_while_another_hides_a_move() {
    let (mut bench, mut dead) = (Bench::with(6, forgetful()), lv_lock(3));
    assert_eq!(take(&mut bench, &mut dead, X, &[0, 1, 2, 3, 4, 5], &[]), GRANTED);
    drop(dead);
    bench.now = bench.now + LEASE * 2;
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[3, 4, 5]), GRANTED);
    bench.paths[2] = Path::Cut;
    bench.paths[5] = Path::Cut;
    assert!(travel(&mut bench, &mut a, &[2, 3, 4]));
    bench.pass(&mut a, SECOND);
    assert_eq!(on(&a), [0, 1, 3, 4, 5]);
    bench.paths[5] = Path::Up;
    a.spread(&bench.members(&[5]), bench.now);
    a_change_is_refused_halfway(&mut bench, &mut a, 5);
    assert!(moves_in_time(&mut bench, &mut a), "{:?}", events(&mut a));
    assert!(believes(&bench, &a));
}

/// The lock is to become exclusive. One drive takes the change, and answers nothing after that.
fn a_change_is_refused_halfway(bench: &mut Bench, lock: &mut Lock, drive: u32) {
    let mut is_changed = false;
    let paths = bench.paths.clone();
    let outcome = run_with(bench, lock, convert(X), |command| match command.drive.0 {
        at if at == drive && is_changed => Fate::Instead(Status::Unreachable),
        at if paths[at as usize] != Path::Up => Fate::Instead(Status::Unreachable),
        at => {
            is_changed |= at == drive && op(command) == Some(MutexOp::Refresh);
            Fate::Answered
        }
    });
    assert!(matches!(outcome, Outcome::Refused(_)) && is_changed, "{outcome:?}");
}

/// lvmlockd dies. Drive 0 has lost its state once and shows the mark of the earlier life, the other
/// drives do not. Drive 3, which does not vote, has a record that names the drives that vote. Its
/// answer to the adoption is lost, so that it is taken once more; its record is as it should be.
#[test]
fn a_drive_that_is_not_to_vote_may_name_those_that_vote() {
    let (mut bench, mut dead) = (Bench::with(4, forgetful()), lv_lock(3));
    assert_eq!(take(&mut bench, &mut dead, X, &[0, 1, 2, 3], &[]), GRANTED);
    drop(dead);
    bench.now = bench.now + LEASE * 2;
    let mut first = lv_lock(1);
    assert_eq!(take(&mut bench, &mut first, X, &[0, 1, 2], &[3]), GRANTED);
    bench.paths[3] = Path::Cut;
    spread(&mut bench, &mut first, &[0, 1, 2, 3]);
    bench.drives[0].reset();
    bench.pass(&mut first, SECOND * 25);
    let safe_until = first.safe_until();
    drop(first);
    let (mut a, orphan) = (lv_lock(1), adopt_beside(&bench, &[0, 1, 2], &[3], safe_until));
    bench.paths[3] = Path::Up;
    bench.log.clear();
    let adopted = run_with(&mut bench, &mut a, orphan, |command| match command.drive.0 {
        3 if op(command) == Some(MutexOp::Refresh) => Fate::Despite(Status::Uncertain),
        _ => Fate::Answered,
    });
    assert_eq!(adopted, Outcome::Adopted(X));
    bench.pass(&mut a, SECOND * 40);
    assert_eq!(on(&a), [0, 1, 2, 3]);
    assert!(!said(&bench, 3).contains(&"unlock"), "{:?}", said(&bench, 3));
}

/// The lock is moved from three drives to all five of the VG, of which drive 1 alone stores the
/// mark of a REFRESH: drives 3 and 4 are taken anew. After some steps the VG gets its former three
/// drives back, and these vote in the end. With `answers`, drive 3 answers always; otherwise it
/// answers nothing for three leases after its UNLOCK.
fn gets_its_former_drives_back(steps: u32, answers: bool) {
    let mut bench = Bench::with(5, forgetful());
    bench.drives[1] = Drive::new(Profile::current());
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[1, 3, 4], &[0, 2]), GRANTED);
    a.spread(&bench.all(), bench.now);
    let step = |bench: &mut Bench, a: &mut Lock| {
        let mut unlocked = false;
        for command in all_at_once(bench, a) {
            let reply = reply_of(bench, &command);
            a.on_reply(command.token, reply, bench.now);
            unlocked |= command.drive.0 == 3 && op(&command) == Some(MutexOp::Unlock);
        }
        let ready = is_ready(a);
        let moved = ready.is_some_and(|ready| a.move_votes(&ready, bench.now));
        bench.now = bench.now + SECOND / 10;
        a.on_timer(bench.now);
        assert!(believes(bench, a), "after {steps} steps: {:?}", events(a));
        (unlocked, moved)
    };
    for _ in 0..steps {
        step(&mut bench, &mut a);
    }
    a.spread(&bench.members(&[1, 3, 4]), bench.now);
    let mut moved = !a.is_moving();
    let mut back = None;
    let end = bench.now + LEASE * 6;
    while bench.now < end {
        let (unlocked, moves) = step(&mut bench, &mut a);
        moved |= moves;
        if unlocked && !answers && back.is_none() {
            bench.paths[3] = Path::Cut;
            back = Some(bench.now + LEASE * 3);
        }
        if back.is_some_and(|at| bench.now >= at) {
            bench.paths[3] = Path::Up;
        }
    }
    assert!(moved, "after {steps} steps");
    assert_eq!(on(&a), [1, 3, 4]);
}

/// The drives that leave still vote, but a host that counts the VG's drives need not meet the lock
/// there, so that drives 3 and 4 are not both given back.
#[test]
fn a_vg_that_gets_its_former_drives_back_meanwhile_costs_no_lock() {
    (0..60).for_each(|steps| gets_its_former_drives_back(steps, true));
}

#[test]
fn a_record_that_cannot_be_given_back_yet_is_refreshed() {
    (0..60).for_each(|steps| gets_its_former_drives_back(steps, false));
}

/// Drive 0 does not store the mark of a REFRESH, and is not reached when the lock is given back
/// there. Votes have moved to drives 1 to 3 before the VG gets its former drives back. Drive 1
/// is dead, and its lease ends `late` before drive 0 is about to be given back.
#[test]
fn a_record_is_not_given_back_when_another_lease_has_ended() {
    [Duration::ZERO, SECOND].into_iter().for_each(another_lease_ends);
}

fn another_lease_ends(late: Duration) {
    let mut bench = Bench::new(4);
    bench.drives[0] = Drive::new(forgetful());
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    let timing = Timing::for_lease(LEASE);
    let end = bench.now + timing.lease - timing.drift;
    bench.paths[0] = Path::Cut;
    move_to(&mut bench, &mut a, &[1, 2, 3]);
    bench.paths[1] = Path::Cut;
    bench.pass(&mut a, LEASE - SECOND * 6);
    bench.paths[0] = Path::Up;
    a.spread(&bench.members(&[0, 1, 2]), bench.now);
    until_drive_0_is_to_be_unlocked(&mut bench, &mut a);
    bench.now = end + late;
    bench.exchange(&mut a);
    assert!(believes(&bench, &a), "{:?}", events(&mut a));
}

/// A lock of drive 0, whose votes have moved to all three drives of the VG. No REFRESH marks the
/// record on drive 0, which is about to be given back when the VG becomes that drive alone: then
/// the record is what keeps hosts out.
fn needed_on_the_vgs_only_drive(mode: Mode) -> (Bench, Lock) {
    let (mut bench, mut a) = (Bench::with(3, forgetful()), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, mode, &[0], &[1, 2]), GRANTED);
    spread(&mut bench, &mut a, &[0, 1, 2]);
    let ready = is_ready(&mut a).expect("drives 1 and 2");
    assert!(a.move_votes(&ready, bench.now));
    until_drive_0_is_to_be_unlocked(&mut bench, &mut a);
    a.spread(&bench.members(&[0]), bench.now);
    bench.exchange(&mut a);
    assert_eq!(said(&bench, 0), REMARKS);
    assert!(believes(&bench, &a));
    (bench, a)
}

/// The VG gets its other drives back. The drive that was needed alone is marked, and votes: it
/// makes up for drive 1, which dies.
#[test]
fn a_record_that_is_not_needed_any_more_is_marked() {
    let (mut bench, mut a) = needed_on_the_vgs_only_drive(X);
    bench.pass(&mut a, SECOND * 25);
    assert!(!said(&bench, 0).contains(&"unlock"));
    a.spread(&bench.members(&[0, 1, 2]), bench.now);
    bench.pass(&mut a, SECOND * 25);
    assert!(said(&bench, 0).contains(&"unlock"));
    bench.paths[1] = Path::Cut;
    bench.pass(&mut a, LEASE * 2);
    assert!(believes(&bench, &a), "{:?}", events(&mut a));
}

/// The VG becomes drives 0 and 1, of which drive 1 was refreshed last when the lock was put there.
/// Returns whether drive 0 is given back that long after that.
fn is_given_back(after: Duration) -> bool {
    let (mut bench, mut a) = (Bench::with(3, forgetful()), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, X, &[0], &[1, 2]), GRANTED);
    let begun = bench.now;
    assert!(travel(&mut bench, &mut a, &[0, 1, 2]));
    bench.paths[1] = Path::Cut;
    until_drive_0_is_to_be_unlocked(&mut bench, &mut a);
    bench.now = begun + after;
    a.spread(&bench.members(&[0, 1]), bench.now);
    bench.exchange(&mut a);
    said(&bench, 0).contains(&"unlock")
}

#[test]
fn a_record_is_given_back_if_another_one_lasts_until_a_lost_unlock_costs_nothing() {
    let Timing { lease, drift, linger, patience, .. } = Timing::for_lease(LEASE);
    let last = lease - drift - linger - patience;
    assert!(is_given_back(last - Duration::from_micros(1)));
    assert!(!is_given_back(last));
}

/// For comparison: nothing fails.
#[test]
fn a_record_that_is_needed_is_kept() {
    for mode in [X, S] {
        let (mut bench, mut a) = needed_on_the_vgs_only_drive(mode);
        bench.pass(&mut a, LEASE * 10);
        assert!(believes(&bench, &a) && !events(&mut a).contains(&Event::Lapsed), "{mode}");
    }
}

/// Drive 0 does not answer for 22 s, from just before it would be refreshed. A drive that is kept
/// is refreshed within 10 s after it is back, and at the latest 42 s after its last refresh.
#[test]
fn a_record_that_is_needed_survives_a_short_outage() {
    for mode in [X, S] {
        let (mut bench, mut a) = needed_on_the_vgs_only_drive(mode);
        bench.pass(&mut a, SECOND * 19);
        bench.paths[0] = Path::Cut;
        bench.pass(&mut a, SECOND * 22);
        bench.paths[0] = Path::Up;
        bench.pass(&mut a, LEASE * 2);
        let lapsed = events(&mut a).contains(&Event::Lapsed);
        assert!(believes(&bench, &a) && !lapsed, "{mode}");
    }
}

/// The lock becomes shared, and one answer of drive 0 is lost (or makes no sense). The drive has
/// carried the command out, or has the record as before: either keeps the shared lock.
#[test]
fn a_record_that_is_needed_survives_a_lost_answer_during_a_change() {
    for fate in [Fate::Despite(Status::Uncertain), Fate::Late, Fate::Instead(Status::Failed)] {
        let (mut bench, mut a) = needed_on_the_vgs_only_drive(X);
        a.request(convert(S), bench.now).expect("held");
        let mut lost = false;
        pass_with(&mut bench, &mut a, SECOND, |command| match command.drive.0 {
            0 if !core::mem::replace(&mut lost, true) => fate,
            _ => Fate::Answered,
        });
        assert!(lost);
        let lapsed = events(&mut a).contains(&Event::Lapsed);
        assert!(believes(&bench, &a) && !lapsed, "one lost answer");
    }
}

/// A lock whose votes have moved from these drives of five to all five. No REFRESH marks the
/// records on the former, which are to be taken anew. Before anything of that is sent, the VG is
/// the former drives again, on which the LV lies.
fn back_before_anything_is_sent(mode: Mode, first: &[u32]) -> (Bench, Lock) {
    let (mut bench, mut a) = held_on(first, 5, forgetful());
    if mode == S {
        bench.run(&mut a, convert(S));
    }
    spread(&mut bench, &mut a, &[0, 1, 2, 3, 4]);
    let ready = is_ready(&mut a).expect("a majority");
    assert!(a.move_votes(&ready, bench.now));
    a.spread(&bench.members(first), bench.now);
    (bench, a)
}

/// Each drive answers the first host. One answer is lost, and that of an UNLOCK.
#[test]
fn one_lost_answer_gives_no_other_host_an_lv_in_use() {
    for mode in [X, S] {
        let (mut bench, mut a) = back_before_anything_is_sent(mode, &[0]);
        let mut lost = false;
        pass_with(&mut bench, &mut a, SECOND, |command| {
            let unlock = (command.drive.0, op(command)) == (0, Some(MutexOp::Unlock));
            match unlock && !core::mem::replace(&mut lost, true) {
                true => Fate::Despite(Status::Uncertain),
                false => Fate::Answered,
            }
        });
        // The host that counts the VG's one drive, on which the LV lies.
        let mut c = lv_lock(2);
        take(&mut bench, &mut c, X, &[0], &[]);
        assert_one_holder(&bench, &a, &c);
    }
}

/// No answer is lost. The other host asks while the drives that are taken anew are given back.
#[test]
fn the_vgs_drives_are_not_all_given_back_at_once() {
    for mode in [X, S] {
        let (mut bench, mut a) = back_before_anything_is_sent(mode, &[0, 1]);
        until_unlocked(&mut bench, &mut a);
        let mut c = lv_lock(2);
        take(&mut bench, &mut c, X, &[0, 1], &[]);
        bench.pass(&mut a, SECOND);
        assert_one_holder(&bench, &a, &c);
    }
}

/// The path to drive 0 fails for 25 s while the VG has five drives, and the VG's list is named
/// during that. The other host asks ten seconds after the drive is back.
#[test]
fn a_drive_that_was_away_is_not_given_back_when_the_vg_has_no_other() {
    for mode in [X, S] {
        let (mut bench, mut a) = held_on(&[0], 5, forgetful());
        if mode == S {
            bench.run(&mut a, convert(S));
        }
        bench.pass(&mut a, SECOND * 20);
        bench.paths[0] = Path::Cut;
        assert!(travel(&mut bench, &mut a, &[0, 1, 2, 3, 4]));
        bench.pass(&mut a, SECOND * 5);
        a.spread(&bench.members(&[0]), bench.now);
        bench.pass(&mut a, SECOND * 10);
        bench.paths[0] = Path::Up;
        let mut lost = false;
        pass_with(&mut bench, &mut a, SECOND * 20, |command| {
            let unlock = (command.drive.0, op(command)) == (0, Some(MutexOp::Unlock));
            match unlock && !core::mem::replace(&mut lost, true) {
                true => Fate::Despite(Status::Uncertain),
                false => Fate::Answered,
            }
        });
        let mut c = lv_lock(2);
        take(&mut bench, &mut c, X, &[0], &[]);
        assert_one_holder(&bench, &a, &c);
    }
}

/// The record on drive 0 is known and alive when the VG's drives are named: these are drive 0, on
/// which the LV lies, and drive 3, which the first host does not reach yet. The record's mark is
/// neither that of the drives that vote nor that of the VG's drives, and yet it keeps hosts out.
#[test]
fn a_record_with_the_mark_of_the_lvs_drives_keeps_hosts_out_too() {
    for mode in [X, S] {
        let (mut bench, mut a) = (Bench::with(4, forgetful()), lv_lock(1));
        assert_eq!(take(&mut bench, &mut a, mode, &[0], &[1, 2, 3]), GRANTED);
        spread(&mut bench, &mut a, &[0, 1, 2]);
        let ready = is_ready(&mut a).expect("drives 1 and 2");
        assert!(a.move_votes(&ready, bench.now));
        until_drive_0_is_to_be_unlocked(&mut bench, &mut a);
        bench.paths[3] = Path::Cut;
        a.spread(&bench.members(&[0, 3]), bench.now);
        until_unlocked(&mut bench, &mut a);
        bench.paths[3] = Path::Up;
        let mut c = lv_lock(2);
        take(&mut bench, &mut c, X, &[0], &[3]);
        assert_one_holder(&bench, &a, &c);
    }
}

/// The answer of the UNLOCK is lost before the VG's drives are named, so that the drive is free and
/// gets no TRYLOCK. The host knows that nothing keeps others out.
#[test]
fn a_move_gets_no_time_if_the_holder_has_given_the_drive_back_itself() {
    for (mode, vg) in [(X, &[0][..]), (S, &[0]), (X, &[0, 3])] {
        let (mut bench, mut a) = held_on(&[0], 4, forgetful());
        if mode == S {
            bench.run(&mut a, convert(S));
        }
        assert!(travel(&mut bench, &mut a, &[0, 1, 2]));
        let mut lost = false;
        pass_with(&mut bench, &mut a, SECOND * 5, |command| {
            let unlock = (command.drive.0, op(command)) == (0, Some(MutexOp::Unlock));
            match unlock && !core::mem::replace(&mut lost, true) {
                true => Fate::Despite(Status::Uncertain),
                false => Fate::Answered,
            }
        });
        assert!(lost);
        bench.paths[3] = Path::Cut;
        a.spread(&bench.members(vg), bench.now);
        bench.pass(&mut a, SECOND);
        bench.paths[3] = Path::Up;
        let mut c = lv_lock(2);
        take(&mut bench, &mut c, X, &[0], &vg[1..]);
        assert_one_holder(&bench, &a, &c);
    }
}
