//! Drives that do not vote yet and are taken anew, because no REFRESH marks their records.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::{Drive, Profile};
use idm_engine::{Command, Event, Lock, Outcome, Timing};
use idm_protocol::{Mode, MutexOp, Reply, State, Status};

/// Commands to a drive that is taken anew, up to the look that shows that no REFRESH marks its
/// record.
const REMARKS: [&str; 4] = ["trylock", "read", "refresh", "read"];

/// Drive 0 answers these commands.
fn until_drive_0_said(bench: &mut Bench, lock: &mut Lock, commands: &[&str]) {
    bench.log.clear();
    while said(bench, 0) != commands {
        bench.step(lock).expect("drive 0 is being taken");
    }
}

/// Each drive gets its command before the answers to the last ones come, so that all drives that
/// are given back are unlocked at the same time. Ends there.
fn until_unlocked(bench: &mut Bench, lock: &mut Lock) {
    for _ in 0..20 {
        let sent = all_at_once(bench, lock);
        let unlocks = sent.iter().any(|command| op(command) == Some(MutexOp::Unlock));
        for command in sent {
            let reply = bench.answer(&command).expect("no path hangs");
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
            let reply = bench.answer(&command).expect("no path hangs");
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
/// there. Drives 3 and 4 are taken again in a moment.
#[test]
fn a_vg_that_gets_its_former_drives_back_meanwhile_costs_no_lock() {
    (0..60).for_each(|steps| gets_its_former_drives_back(steps, true));
}

#[test]
fn a_drive_that_is_silent_after_its_unlock_costs_no_lock() {
    (0..60).for_each(|steps| gets_its_former_drives_back(steps, false));
}

/// A lock on these of the VG's drives, whose REFRESH stores no mark.
fn held_in(mode: Mode, drives: &[u32], of: u32) -> (Bench, Lock) {
    let (mut bench, mut a) = held_on(drives, of, forgetful());
    if mode == S {
        bench.run(&mut a, convert(S));
    }
    (bench, a)
}

/// A lock whose votes have moved from these drives of five to all five. No REFRESH marks the
/// records on the former, which are to be taken anew. Before anything of that is sent, the VG is
/// the former drives again, on which the LV lies.
fn back_before_anything_is_sent(mode: Mode, first: &[u32]) -> (Bench, Lock) {
    let (mut bench, mut a) = held_in(mode, first, 5);
    assert!(travel(&mut bench, &mut a, &[0, 1, 2, 3, 4]));
    a.spread(&bench.members(first), bench.now);
    (bench, a)
}

/// Lets time pass, in which drives that can be reached answer at once. The lock is safe until then
/// for longer than the kill command needs, and another host with the VG's one drive is refused.
fn keeps_others_out(bench: &mut Bench, lock: &mut Lock, time: Duration) {
    let end = bench.now + time;
    while bench.now < end {
        while let Some(command) = lock.next_command(bench.now) {
            bench.log.push((command.drive.0 as usize, name_of(&command.command)));
            is_safe(bench, lock);
            let reply = bench.answer(&command).expect("no path hangs");
            lock.on_reply(command.token, reply, bench.now);
            is_safe(bench, lock);
        }
        bench.now = bench.now + SECOND / 10;
        lock.on_timer(bench.now);
    }
    let mut other = lv_lock(2);
    assert!(matches!(take(bench, &mut other, X, &[0], &[]), Outcome::Refused(_)));
    assert!(believes(bench, lock));
}

fn is_safe(bench: &Bench, lock: &Lock) {
    let safe_until = lock.safe_until().expect("held");
    assert!(safe_until > bench.now + MARGIN, "{safe_until:?} at {:?}", bench.now);
}

/// The records name exactly the drives that the VG has now, and so need no other mark.
#[test]
fn votes_move_back_to_drives_whose_records_name_them() {
    for mode in [X, S] {
        for first in [&[0][..], &[0, 1]] {
            let (mut bench, mut a) = back_before_anything_is_sent(mode, first);
            bench.log.clear();
            keeps_others_out(&mut bench, &mut a, SECOND * 2);
            let ready = is_ready(&mut a).expect("they have the lock");
            assert!(a.move_votes(&ready, bench.now));
            keeps_others_out(&mut bench, &mut a, LEASE * 2);
            assert_eq!(on(&a), first);
            assert!(!said(&bench, 0).contains(&"unlock") || first.len() > 1);
        }
    }
}

/// The path to drive 0 fails for 25 s while the VG has five drives, and the VG becomes drive 0
/// during that.
#[test]
fn a_drive_that_was_away_is_not_given_back_when_the_vg_has_no_other() {
    for mode in [X, S] {
        let (mut bench, mut a) = held_in(mode, &[0], 5);
        bench.pass(&mut a, SECOND * 20);
        bench.paths[0] = Path::Cut;
        assert!(travel(&mut bench, &mut a, &[0, 1, 2, 3, 4]));
        bench.pass(&mut a, SECOND * 5);
        a.spread(&bench.members(&[0]), bench.now);
        bench.pass(&mut a, SECOND * 10);
        bench.paths[0] = Path::Up;
        keeps_others_out(&mut bench, &mut a, LEASE * 2);
    }
}

/// A lock of drive 0, whose votes have moved to drives 0 to 2. No REFRESH marks the record on drive
/// 0, which is about to be given back.
fn about_to_be_given_back(mode: Mode) -> (Bench, Lock) {
    let (mut bench, mut a) = (Bench::with(4, forgetful()), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, mode, &[0], &[1, 2, 3]), GRANTED);
    assert!(travel(&mut bench, &mut a, &[0, 1, 2]));
    until_drive_0_said(&mut bench, &mut a, &REMARKS);
    (bench, a)
}

/// The VG becomes drive 0, on which the LV lies, and drive 3, which does not answer yet. Drive 0 is
/// given back, to be marked, when drive 3 has the lock.
#[test]
fn a_record_that_alone_keeps_hosts_out_is_not_given_back() {
    for mode in [X, S] {
        let (mut bench, mut a) = about_to_be_given_back(mode);
        bench.paths[3] = Path::Cut;
        a.spread(&bench.members(&[0, 3]), bench.now);
        keeps_others_out(&mut bench, &mut a, LEASE * 2);
        assert!(!said(&bench, 0).contains(&"unlock"));
        bench.paths[3] = Path::Up;
        assert!(moves_in_time(&mut bench, &mut a));
        assert!(believes(&bench, &a));
        bench.pass(&mut a, SECOND * 25);
        assert_eq!(on(&a), [0, 3]);
    }
}

/// The VG gets drives 0 to 2 back. Drive 0 is marked, and votes: it makes up for drive 1.
#[test]
fn a_record_that_is_not_needed_any_more_is_marked() {
    for mode in [X, S] {
        let (mut bench, mut a) = about_to_be_given_back(mode);
        bench.paths[3] = Path::Cut;
        a.spread(&bench.members(&[0, 3]), bench.now);
        keeps_others_out(&mut bench, &mut a, SECOND * 25);
        a.spread(&bench.members(&[0, 1, 2]), bench.now);
        bench.pass(&mut a, SECOND * 25);
        assert!(said(&bench, 0).contains(&"unlock"));
        bench.paths[1] = Path::Cut;
        bench.pass(&mut a, LEASE * 2);
        assert!(believes(&bench, &a), "{mode}: {:?}", events(&mut a));
    }
}

/// The VG becomes drives 0 and 1, of which drive 1 does not answer any more. Returns whether drive
/// 0 is given back that long before the lease on drive 1 ends.
fn is_given_back(before: Duration) -> bool {
    let (mut bench, mut a) = about_to_be_given_back(X);
    let end = a.safe_until().expect("held on drives 1 and 2");
    bench.paths[1] = Path::Cut;
    bench.now = end - before;
    a.spread(&bench.members(&[0, 1]), bench.now);
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        1 => Fate::Instead(Status::Unreachable),
        _ => Fate::Answered,
    });
    said(&bench, 0).contains(&"unlock")
}

#[test]
fn a_record_is_given_back_if_another_one_lasts_until_a_lost_unlock_costs_nothing() {
    let Timing { linger, patience, .. } = Timing::for_lease(LEASE);
    assert!(!is_given_back(linger + patience));
    assert!(is_given_back(linger + patience + Duration::from_micros(1)));
}

/// Drive 0 dies when it gets its UNLOCK. The VG is extended an hour later, to drives that answer.
#[test]
fn a_vg_is_extended_beside_a_drive_that_died_at_its_unlock() {
    let (mut bench, mut a) = held_on(&[0], 5, forgetful());
    assert!(travel(&mut bench, &mut a, &[0, 1, 2]));
    let mut is_dead = false;
    pass_with(&mut bench, &mut a, SECOND * 3600, |command| {
        is_dead |= unlocks_drive_0(command);
        match is_dead && command.drive.0 == 0 {
            true => Fate::Instead(Status::Uncertain),
            false => Fate::Answered,
        }
    });
    assert!(is_dead && believes(&bench, &a));
    bench.paths[0] = Path::Cut;
    a.spread(&bench.members(&[0, 1, 2, 3, 4]), bench.now);
    bench.pass(&mut a, LEASE * 2);
    assert!(believes(&bench, &a), "{:?} on {:?}", events(&mut a), on(&a));
}

/// Nothing fails. The LV was on two drives when its lock was taken, and the VG becomes one of
/// these when the votes have just moved.
#[test]
fn the_vg_may_become_one_of_the_lvs_drives_when_the_votes_have_just_moved() {
    for mode in [X, S] {
        let (mut bench, mut a) = back_before_anything_is_sent(mode, &[0, 1]);
        a.spread(&bench.members(&[0]), bench.now);
        keeps_others_out(&mut bench, &mut a, LEASE * 2);
        assert!(!said(&bench, 0).contains(&"unlock"));
    }
}

/// One answer of the release of an earlier use is lost, and bars drive 2. The LV is used again,
/// and the VG is extended within 15 s.
#[test]
fn a_lost_answer_of_an_earlier_release_takes_no_time_from_a_move() {
    for lost_op in [MutexOp::Unlock, MutexOp::Destroy] {
        let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
        assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
        let mut lost = false;
        run_with(&mut bench, &mut a, RELEASE, |command| {
            let is_it = (command.drive.0, op(command)) == (2, Some(lost_op));
            match is_it && !core::mem::replace(&mut lost, true) {
                true => Fate::Despite(Status::Uncertain),
                false => Fate::Answered,
            }
        });
        bench.pass(&mut a, SECOND);
        assert!(lost);
        assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
        spread(&mut bench, &mut a, &[0, 1, 2]);
        spread(&mut bench, &mut a, &[0, 1, 2, 3, 4]);
        bench.pass(&mut a, LEASE * 2);
        let events = events(&mut a);
        assert!(believes(&bench, &a) && !events.contains(&Event::Lapsed), "{events:?}");
    }
}

/// Two of three drives do not answer for 40 s, and one of them comes back: within the lease of the
/// other one, so that two of the three that vote can have the lock all the while. The VG's list
/// does not change.
#[test]
fn a_drive_without_the_mark_that_comes_back_in_time_makes_up_for_a_dead_one() {
    for mode in [X, S] {
        let (mut bench, mut a) = (Bench::with(3, forgetful()), lv_lock(1));
        assert_eq!(take(&mut bench, &mut a, mode, &[0], &[1, 2]), GRANTED);
        let named = bench.members(&[0, 1, 2]);
        a.spread(&named, bench.now);
        bench.exchange(&mut a);
        let ready = is_ready(&mut a).expect("drives 1 and 2");
        assert!(a.move_votes(&ready, bench.now));
        bench.paths[0] = Path::Cut;
        bench.paths[1] = Path::Cut;
        bench.pass(&mut a, SECOND * 40);
        assert!(believes(&bench, &a));
        bench.paths[0] = Path::Up;
        bench.pass(&mut a, LEASE * 2);
        let events = events(&mut a);
        assert!(believes(&bench, &a), "{mode}: {events:?} on {:?}", on(&a));
    }
}

/// The VG becomes drive 0, on which the LV lies, when the votes have just moved to three drives.
/// After that it gets one more drive, which does not answer. Drive 0 answers all the while.
#[test]
fn a_lock_of_the_vgs_only_drive_is_kept_when_the_vg_gets_a_silent_one() {
    for mode in [X, S] {
        let (mut bench, mut a) = (Bench::with(4, forgetful()), lv_lock(1));
        assert_eq!(take(&mut bench, &mut a, mode, &[0], &[1, 2]), GRANTED);
        spread(&mut bench, &mut a, &[0, 1, 2]);
        let ready = is_ready(&mut a).expect("drives 1 and 2");
        assert!(a.move_votes(&ready, bench.now));
        a.spread(&bench.members(&[0]), bench.now);
        bench.pass(&mut a, LEASE * 2);
        assert!(believes(&bench, &a));
        bench.paths[3] = Path::Cut;
        a.spread(&bench.members(&[0, 3]), bench.now);
        bench.pass(&mut a, LEASE * 2);
        assert!(believes(&bench, &a), "{mode}: {:?} on {:?}", events(&mut a), on(&a));
    }
}

/// Drive 0 is being taken anew when the VG becomes that drive, and the lock shared. One answer is
/// lost, or makes no sense: the record is exclusive or shared, and keeps the shared lock.
#[test]
fn a_lost_answer_during_a_change_to_shared_costs_no_lock() {
    for fate in [Fate::Despite(Status::Uncertain), Fate::Late, Fate::Instead(Status::Failed)] {
        let (mut bench, mut a) = held_on(&[0], 3, forgetful());
        assert!(travel(&mut bench, &mut a, &[0, 1, 2]));
        until_drive_0_said(&mut bench, &mut a, &REMARKS[..3]);
        a.spread(&bench.members(&[0]), bench.now);
        a.request(convert(S), bench.now).expect("held");
        let mut lost = false;
        pass_with(&mut bench, &mut a, SECOND, |command| match command.drive.0 {
            0 if !core::mem::replace(&mut lost, true) => fate,
            _ => Fate::Answered,
        });
        let lapsed = events(&mut a).contains(&Event::Lapsed);
        assert!(lost && believes(&bench, &a) && !lapsed);
    }
}

fn unlocks_drive_0(command: &Command) -> bool {
    (command.drive.0, op(command)) == (0, Some(MutexOp::Unlock))
}

/// A lock whose votes have moved from drive 0 to drives 1 to 3, when the VG becomes drive 0. The
/// UNLOCK of that drive did not arrive, so that its record names exactly the VG's drives.
fn back_after_an_unlock_that_did_not_arrive(mode: Mode) -> (Bench, Lock) {
    let (mut bench, mut a) = (Bench::with(4, forgetful()), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, mode, &[0], &[1, 2, 3]), GRANTED);
    assert!(travel(&mut bench, &mut a, &[1, 2, 3]));
    bench.paths[0] = Path::Cut;
    bench.pass(&mut a, SECOND);
    bench.paths[0] = Path::Up;
    a.spread(&bench.members(&[0]), bench.now);
    (bench, a)
}

/// The record on drive 0 names exactly the VG's drives again, and drive 0 does not vote. The
/// caller has been told that it may note drive 0, and notes it. lvmlockd dies.
#[test]
fn a_drive_that_the_caller_notes_is_not_given_back() {
    for mode in [X, S] {
        let (mut bench, mut a) = back_after_an_unlock_that_did_not_arrive(mode);
        bench.log.clear();
        let mut told = false;
        let mut safe = a.safe_until();
        for _ in 0..200 {
            match bench.step(&mut a) {
                Some(command) if told && unlocks_drive_0(&command) => break,
                Some(_) => {}
                None => bench.wait(&mut a),
            }
            if !told && is_ready(&mut a).is_some() {
                told = true;
                safe = a.safe_until();
            }
        }
        assert!(told);
        drop(a);
        let mut b = lv_lock(1);
        let orphan = adopt_beside(&bench, &[0], &[1, 2, 3], safe);
        assert_eq!(bench.run(&mut b, orphan), Outcome::Adopted(mode));
    }
}

/// Drives that have left the VG are removed. Nothing fails.
#[test]
fn drives_that_left_the_vg_are_not_needed_for_ever() {
    for mode in [X, S] {
        let (mut bench, mut first) = (Bench::with(3, forgetful()), lv_lock(1));
        assert_eq!(take(&mut bench, &mut first, mode, &[0], &[1, 2]), GRANTED);
        assert!(travel(&mut bench, &mut first, &[0, 1, 2]));
        let safe_until = first.safe_until();
        drop(first);
        let mut a = lv_lock(1);
        let orphan = adopt(&bench, &[0, 1, 2], safe_until);
        assert_eq!(bench.run_only(&mut a, orphan), Outcome::Adopted(mode));
        a.spread(&bench.members(&[0]), bench.now);
        bench.log.clear();
        assert!(moves_in_time(&mut bench, &mut a), "{:?} {:?}", on(&a), said(&bench, 0));
        bench.pass(&mut a, SECOND * 3600);
        assert!(believes(&bench, &a));
        bench.paths[1] = Path::Cut;
        bench.paths[2] = Path::Cut;
        bench.pass(&mut a, LEASE * 2);
        assert!(believes(&bench, &a), "{mode}: {:?} on {:?}", events(&mut a), on(&a));
    }
}

/// The VG becomes drive 0, where a record of this host still keeps others out: its UNLOCK did
/// not arrive. It does not vote. Another host asks in the moment when it is given back.
#[test]
fn a_record_of_a_drive_that_does_not_vote_is_not_given_back_while_the_list_needs_it() {
    for mode in [X, S] {
        let (mut bench, mut a) = back_after_an_unlock_that_did_not_arrive(mode);
        let mut early = lv_lock(3);
        let outcome = take(&mut bench, &mut early, X, &[0], &[]);
        assert!(is_held(&outcome), "{outcome:?}");
        bench.log.clear();
        for _ in 0..20 {
            if bench.step(&mut a).is_none_or(|command| unlocks_drive_0(&command)) {
                break;
            }
        }
        let mut b = lv_lock(2);
        take(&mut bench, &mut b, X, &[0], &[]);
        assert_one_holder(&bench, &a, &b);
    }
}

/// Nothing fails. The votes have just moved when the VG gets drive 0 back, where a record of
/// this host still keeps others out. Another host asks in the moment when it is given back.
#[test]
fn a_list_that_comes_back_at_once_finds_the_lock() {
    for mode in [X, S] {
        let (mut bench, mut a) = held_in(mode, &[0], 5);
        assert!(travel(&mut bench, &mut a, &[1, 2]));
        a.spread(&bench.members(&[0]), bench.now);
        until_unlocked(&mut bench, &mut a);
        let mut b = lv_lock(2);
        take(&mut bench, &mut b, X, &[0], &[]);
        assert_one_holder(&bench, &a, &b);
    }
}

/// Drive 0 does not vote, and is about to be given back, to be marked, when the VG becomes that
/// drive. All drives answer at once.
#[test]
fn a_list_that_is_named_just_before_an_unlock_costs_no_lock() {
    for mode in [X, S] {
        let (mut bench, mut a) = (Bench::with(4, forgetful()), lv_lock(1));
        assert_eq!(take(&mut bench, &mut a, mode, &[0], &[1, 2, 3]), GRANTED);
        assert!(travel(&mut bench, &mut a, &[1, 2, 3]));
        // The VG gets drive 0 back, and then becomes that drive.
        a.spread(&bench.members(&[0, 1, 2, 3]), bench.now);
        until_drive_0_said(&mut bench, &mut a, &REMARKS);
        a.spread(&bench.members(&[0]), bench.now);
        let safe = a.safe_until().expect("held");
        assert!(safe > bench.now + MARGIN);
        bench.log.clear();
        bench.pass(&mut a, SECOND * 5);
        let events = events(&mut a);
        assert!(believes(&bench, &a), "{mode}: {events:?} on {:?} {:?}", on(&a), said(&bench, 0));
    }
}

/// The same after a restart: an earlier life's record is found on drive 0.
#[test]
fn the_list_that_follows_an_adoption_costs_no_lock() {
    for mode in [X, S] {
        let (mut bench, mut first) = (Bench::with(4, forgetful()), lv_lock(1));
        assert_eq!(take(&mut bench, &mut first, mode, &[0], &[1, 2, 3]), GRANTED);
        assert!(travel(&mut bench, &mut first, &[1, 2, 3]));
        let safe_until = first.safe_until();
        drop(first);
        let mut a = lv_lock(1);
        let orphan = adopt_beside(&bench, &[1, 2, 3], &[0], safe_until);
        a.request(orphan, bench.now).expect("in order");
        let mut adopted = false;
        for _ in 0..60 {
            let Some(command) = bench.step(&mut a) else { break };
            if adopted && (command.drive.0, op(&command)) == (0, Some(MutexOp::Refresh)) {
                a.spread(&bench.members(&[0]), bench.now);
                break;
            }
            adopted |= done(&mut a) == Some(Outcome::Adopted(mode));
        }
        assert!(adopted);
        bench.pass(&mut a, SECOND * 5);
        let events = events(&mut a);
        assert!(believes(&bench, &a), "{mode}: {events:?} on {:?}", on(&a));
    }
}

/// Firmware that stores every mark. The votes have just moved away from drive 0 when lvmlockd dies.
/// The next one adopts the lock, and one REFRESH of drive 0 is lost. Some commands later the VG
/// becomes drive 0, where the record keeps others out, and has only to be read again.
#[test]
fn a_lost_refresh_lets_no_drive_be_given_back_that_stores_marks() {
    for (mode, steps) in [X, S].into_iter().flat_map(|mode| (0..8).map(move |n| (mode, n))) {
        let (mut bench, mut first) = (Bench::new(4), lv_lock(1));
        assert_eq!(take(&mut bench, &mut first, mode, &[0], &[1, 2, 3]), GRANTED);
        assert!(travel(&mut bench, &mut first, &[1, 2, 3]));
        let safe_until = first.safe_until();
        drop(first);
        let mut a = lv_lock(1);
        let orphan = in_mode(adopt_beside(&bench, &[1, 2, 3], &[0], safe_until), mode);
        a.request(orphan, bench.now).expect("in order");
        let (mut is_lost, mut outcome, mut after) = (false, None, 0);
        while after < steps || outcome.is_none() {
            after += u32::from(outcome.is_some());
            match a.next_command(bench.now) {
                Some(command) => {
                    let refreshes = (command.drive.0, op(&command)) == (0, Some(MutexOp::Refresh));
                    let reply = match refreshes && !core::mem::replace(&mut is_lost, true) {
                        true => Reply::Status(Status::Uncertain),
                        false => bench.perform(&command),
                    };
                    a.on_reply(command.token, reply, bench.now);
                }
                None => bench.wait(&mut a),
            }
            outcome = outcome.or(done(&mut a));
        }
        assert_eq!((outcome, is_lost), (Some(Outcome::Adopted(mode)), true));
        a.spread(&bench.members(&[0]), bench.now);
        bench.log.clear();
        bench.pass(&mut a, LEASE * 2);
        assert!(!said(&bench, 0).contains(&"unlock"), "{mode} {steps}: {:?}", said(&bench, 0));
        assert!(believes(&bench, &a));
        assert_no_other_gets(&mut bench, &a, &[0]);
    }
}
