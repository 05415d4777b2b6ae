//! Answers that are weak, late or old: none of them gives a lock that another host could have as
//! well.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::{Profile, profile::Limits};
use idm_engine::{Command, Event, Instant, Lock, Outcome, Refusal, Request, RequestError};
use idm_protocol::{DriveCommand, Limit, Mode, MutexOp, Record, Reply, State, Status};

/// A lock of a host whose earlier life may have commands under way until `earlier_until`.
fn lock_of_a_new_life(n: u8, earlier_until: Instant) -> Lock {
    with_config(lv_lock(n), |config| config.earlier_until = earlier_until)
}

/// Drive 2 reports a conflict, and answers later commands with these statuses.
fn after_a_conflict(statuses: &[Status]) -> Option<Outcome> {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    a.request(bench.acquire(Mode::Shared), bench.now).expect("in order");
    let mut statuses = [&[Status::Conflict], statuses].concat().into_iter();
    for _ in 0..50 {
        for command in all_at_once(&bench, &mut a) {
            let reply = match command.drive.0 {
                2 => Reply::Status(statuses.next().unwrap_or(Status::Unreachable)),
                _ => bench.perform(&command),
            };
            a.on_reply(command.token, reply, bench.now);
        }
        if let Some(outcome) = done(&mut a) {
            return Some(outcome);
        }
        bench.wait(&mut a);
    }
    None
}

#[test]
fn a_conflict_stands_whatever_weaker_answers_follow() {
    let weaker = [
        Status::TryAgain,
        Status::Failed,
        Status::Uncertain,
        Status::Unreachable,
        Status::WrongState,
        Status::Unsupported,
        Status::Full(Limit::Mutexes),
        Status::Full(Limit::HostsOfMutex),
        Status::NotFound,
    ];
    for first in weaker {
        for second in weaker {
            let outcome = after_a_conflict(&[first, second]);
            assert!(outcome.as_ref().is_some_and(is_held), "{first:?}, {second:?}: {outcome:?}");
        }
    }
}

#[test]
fn a_table_that_is_read_for_room_shows_holders_too() {
    for limit in [Limit::Mutexes, Limit::Hosts, Limit::HostsOfMutex] {
        let mut bench = Bench::new(3);
        // Host 2 counts only drive 2.
        let mut b = lv_lock(2);
        let members = bench.members(&[2]);
        let small = Request::Acquire { mode: Mode::Exclusive, members, witnesses: Vec::new() };
        assert_eq!(bench.run(&mut b, small), GRANTED);
        let mut a = lv_lock(1);
        a.request(bench.acquire(Mode::Exclusive), bench.now).expect("in order");
        for _ in 0..10 {
            for command in all_at_once(&bench, &mut a) {
                let takes = matches!(command.command, DriveCommand::Mutex(MutexOp::Trylock, _));
                let reply = match command.drive.0 {
                    2 if takes => Reply::Status(Status::Full(limit)),
                    _ => bench.perform(&command),
                };
                a.on_reply(command.token, reply, bench.now);
            }
        }
        let outcome = done(&mut a);
        assert!(outcome.as_ref().is_some_and(is_held), "{limit:?}: {outcome:?}");
    }
}

/// Drive 2 is won, loses its table, and is read for its value afterwards. In between, host 2 takes
/// it if `theirs` names the drives that it counts.
fn reset_before_the_value_is_read(theirs: Option<&[u32]>) -> Option<Outcome> {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (vg_lock(1), vg_lock(2));
    a.request(bench.acquire(Mode::Exclusive), bench.now).expect("in order");
    let (mut won, mut reset) = (false, false);
    for _ in 0..20 {
        for command in all_at_once(&bench, &mut a) {
            let reads = command.command == DriveCommand::ReadTable;
            if command.drive.0 == 2 && reads && won && !core::mem::replace(&mut reset, true) {
                bench.drives[2].reset();
                if let Some(theirs) = theirs {
                    let members = bench.members(theirs);
                    let witnesses = Vec::new();
                    let mode = Mode::Exclusive;
                    b.request(Request::Acquire { mode, members, witnesses }, bench.now)
                        .expect("in order");
                    while let Some(theirs) = b.next_command(bench.now) {
                        let reply = match theirs.drive.0 {
                            2 => bench.perform(&theirs),
                            _ => Reply::Status(Status::Unreachable),
                        };
                        b.on_reply(theirs.token, reply, bench.now);
                    }
                }
            }
            won |= command.drive.0 == 2 && !reads;
            let reply = bench.perform(&command);
            a.on_reply(command.token, reply, bench.now);
        }
    }
    assert!(reset, "the value was never read");
    done(&mut a)
}

#[test]
fn a_table_that_is_read_for_the_value_shows_holders_too() {
    let outcome = reset_before_the_value_is_read(Some(&[2]));
    let outcome = outcome.expect("it ends");
    assert!(is_held(&outcome), "who counts other drives has it: {outcome:?}");
    let outcome = reset_before_the_value_is_read(Some(&[0, 1, 2]));
    assert_eq!(outcome, Some(GRANTED), "who counts the same drives has no majority");
    let outcome = reset_before_the_value_is_read(None);
    assert_eq!(outcome, Some(GRANTED), "nobody is in the way");
}

/// A host shares the lock on two drives when the third reports a conflict. While that drive is
/// read, other requests begin. Its table may show a holder that counts that drive alone; then the
/// drive is silent. Returns the outcome of the last request.
fn read_before_the_requests(theirs: Option<Mode>, requests: &[Request]) -> Outcome {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    if let Some(mode) = theirs {
        assert_eq!(take(&mut bench, &mut b, mode, &[0], &[]), GRANTED);
    }
    let silent = |command: &Command| match command.drive.0 {
        0 => Fate::Open,
        _ => Fate::Answered,
    };
    a.request(bench.acquire(S), bench.now).expect("in order");
    let trylock = pass_with(&mut bench, &mut a, Duration::from_millis(200), silent);
    assert_eq!(done(&mut a), Some(GRANTED), "drive 0 did not answer in time");
    a.on_reply(trylock[0].token, Reply::Status(Status::Conflict), bench.now);
    let [look] = &exchange_with(&mut bench, &mut a, silent)[..] else { panic!("a look") };
    for request in requests {
        events(&mut a);
        a.request(request.clone(), bench.now).expect("in order");
    }
    let table = bench.perform(look);
    a.on_reply(look.token, table, bench.now);
    pass_with(&mut bench, &mut a, Duration::from_secs(6), silent);
    done(&mut a).expect("it ends")
}

#[test]
fn a_table_that_comes_after_the_next_request_shows_holders_too() {
    let anew = [RELEASE, Bench::new(3).acquire(X)];
    for (theirs, requests) in [(X, &[convert(X)][..]), (S, &[convert(X)]), (X, &anew), (S, &anew)] {
        let outcome = read_before_the_requests(Some(theirs), requests);
        assert!(is_held(&outcome), "{theirs:?}, {requests:?}: {outcome:?}");
    }
}

#[test]
fn a_table_that_comes_after_the_next_request_and_shows_nobody_is_no_conflict() {
    let outcome = read_before_the_requests(None, &[convert(X)]);
    assert_eq!(outcome, Outcome::Converted { complete: true });
    let outcome = read_before_the_requests(None, &[RELEASE, Bench::new(3).acquire(X)]);
    assert_eq!(outcome, GRANTED);
}

/// A new life gets no answers, and adopts its lock with the next request. The table of drive 0,
/// read for the first adoption, comes during the second one; then the drive is silent. It shows a
/// sharer that counts drive 0 alone.
fn read_before_the_next_adoption(mode: Mode) -> Outcome {
    let mut bench = Bench::new(3);
    let (mut first, mut a, mut b) = (lv_lock(1), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut first, mode, &[0, 1, 2], &[]), GRANTED);
    drop(first);
    bench.drives[0].reset();
    assert_eq!(take(&mut bench, &mut b, S, &[0], &[]), GRANTED);
    let silent = |command: &Command| match command.drive.0 {
        0 => Fate::Open,
        _ => Fate::Answered,
    };
    let orphan = in_mode(adopt(&bench, &[0, 1, 2], None), mode);
    a.request(orphan.clone(), bench.now).expect("in order");
    let looks = pass_with(&mut bench, &mut a, Duration::from_secs(6), |_| Fate::Open);
    let outcome = done(&mut a);
    assert!(matches!(outcome, Some(Outcome::Refused(_))), "{outcome:?}");
    a.request(orphan, bench.now).expect("in order");
    for look in looks {
        let table = bench.perform(&look);
        a.on_reply(look.token, table, bench.now);
    }
    pass_with(&mut bench, &mut a, Duration::from_secs(6), silent);
    assert!(believes(&bench, &b));
    done(&mut a).expect("it ends")
}

#[test]
fn a_table_that_comes_after_the_next_adoption_shows_sharers_too() {
    let outcome = read_before_the_next_adoption(X);
    assert_eq!(outcome, Outcome::Refused(Refusal::Unclear));
    let outcome = read_before_the_next_adoption(S);
    assert_eq!(outcome, Outcome::Adopted(S), "sharers share");
}

#[test]
fn a_change_that_a_drive_refuses_is_a_conflict_although_it_cannot_be_read() {
    for refusal in [Status::Conflict, Status::Terminated, Status::WrongState] {
        let mut bench = Bench::new(3);
        let mut a = lv_lock(1);
        assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
        a.request(convert(X), bench.now).expect("held");
        pass_with(&mut bench, &mut a, Duration::from_secs(6), |command| {
            match (command.drive.0, op(command)) {
                (2, Some(MutexOp::Refresh)) => Fate::Instead(refusal),
                (2, _) => Fate::Instead(Status::Unreachable),
                _ => Fate::Answered,
            }
        });
        let outcome = done(&mut a);
        assert!(outcome.as_ref().is_some_and(is_held), "{refusal:?}: {outcome:?}");
    }
}

#[test]
fn a_holder_with_other_drives_stays_known_while_it_cannot_be_read() {
    let mut bench = Bench::new(3);
    let mut b = lv_lock(2);
    let members = bench.members(&[2]);
    let small = Request::Acquire { mode: Mode::Exclusive, members, witnesses: Vec::new() };
    bench.run(&mut b, small);
    let mut a = lv_lock(1);
    bench.paths[2] = Path::Cut;
    let acquire = bench.acquire(Mode::Exclusive);
    assert_eq!(bench.run(&mut a, acquire), GRANTED, "drive 2 did not answer in time");
    bench.paths[2] = Path::Up;
    // Host 2 is met at the first retry; then drive 2 answers "conflict" and cannot be read any
    // more.
    let end = bench.now + LEASE * 3;
    let mut met = false;
    while bench.now < end {
        for command in all_at_once(&bench, &mut a) {
            let read = command.command == DriveCommand::ReadTable;
            let reply = match command.drive.0 {
                2 if read && core::mem::replace(&mut met, true) && bench.now < end - LEASE => {
                    Reply::Status(Status::Unreachable)
                }
                _ => bench.perform(&command),
            };
            a.on_reply(command.token, reply, bench.now);
        }
        bench.exchange(&mut b);
        b.on_timer(bench.now);
        bench.now = bench.now + Duration::from_secs(1);
        a.on_timer(bench.now);
    }
    let lost = events(&mut a).iter().any(|event| matches!(event, Event::Lost(_)));
    assert!(lost, "a holder that refreshes for longer than a lease is given way to");
}

/// One drive with room for one mutex, which an unlocked mutex of another LV occupies.
fn full_drive() -> Bench {
    let mut profile = Profile::current();
    profile.limits = Limits { mutexes: 1, ..profile.limits };
    let mut bench = Bench::with(1, profile);
    let mut old = other_lv_lock(9);
    let acquire = bench.acquire(Mode::Exclusive);
    assert_eq!(bench.run(&mut old, acquire), GRANTED);
    old.request(RELEASE, bench.now).expect("always in order");
    let unlock = old.next_command(bench.now).expect("an UNLOCK");
    bench.perform(&unlock);
    assert_eq!(bench.states(0), [State::Unlocked]);
    bench
}

#[test]
fn a_mutex_that_is_removed_for_room_is_never_a_lock_of_the_same_host() {
    // At each step of the removal the same host, or another, requests the mutex.
    for steps in 0..7 {
        for asks in [1, 2] {
            let mut bench = full_drive();
            let acquire = bench.acquire(Mode::Exclusive);
            let (mut x, mut y) = (other_lv_lock(asks), lv_lock(1));
            y.request(acquire.clone(), bench.now).expect("in order");
            for _ in 0..steps {
                let Some(command) = y.next_command(bench.now) else { break };
                let reply = bench.perform(&command);
                y.on_reply(command.token, reply, bench.now);
            }
            x.request(acquire.clone(), bench.now).expect("in order");
            bench.exchange(&mut x);
            bench.exchange(&mut y);
            bench.pass(&mut x, Duration::from_secs(4));
            bench.pass(&mut y, Duration::from_secs(4));
            // It gives the room up again.
            y.request(RELEASE, bench.now).ok();
            bench.exchange(&mut y);
            let mut third = other_lv_lock(3);
            let told = bench.run(&mut third, acquire.clone());
            assert!(
                told != GRANTED || x.mode().is_none(),
                "after {steps} steps host {asks} and host 3 hold it"
            );
        }
    }
}

#[test]
fn who_asks_for_a_mutex_that_is_being_removed_gets_it_a_moment_later() {
    let mut bench = full_drive();
    let acquire = bench.acquire(Mode::Exclusive);
    let (mut x, mut y) = (other_lv_lock(2), lv_lock(1));
    y.request(acquire.clone(), bench.now).expect("in order");
    for _ in 0..3 {
        let command = y.next_command(bench.now).expect("TRYLOCK, read, TRYLOCK to remove");
        let reply = bench.perform(&command);
        y.on_reply(command.token, reply, bench.now);
    }
    x.request(acquire, bench.now).expect("in order");
    bench.exchange(&mut x);
    assert_eq!(done(&mut x), None, "it waits");
    // The host that removes it dies; its lease is short.
    drop(y);
    bench.pass(&mut x, Duration::from_secs(4));
    assert_eq!(done(&mut x), Some(GRANTED));
}

/// Host 1 counts three drives, and after a restart one of them; host 2 counts three. Returns
/// whether both hold the lock.
fn fewer_drives_after_a_restart(refresh_stores_metadata: bool) -> bool {
    let mut profile = Profile::current();
    profile.refresh_stores_metadata = refresh_stores_metadata;
    let mut bench = Bench::with(3, profile);
    let all = bench.acquire(Mode::Exclusive);
    let mut first = lv_lock(1);
    assert_eq!(bench.run(&mut first, all.clone()), GRANTED);
    drop(first);
    let mut second = lv_lock(1);
    let members = bench.members(&[0]);
    let few = Request::Acquire { mode: Mode::Exclusive, members, witnesses: Vec::new() };
    assert_eq!(bench.run(&mut second, few), GRANTED);
    bench.pass(&mut second, Duration::from_secs(65));
    assert!(second.safe_until() > Some(bench.now));
    let mut other = lv_lock(2);
    bench.run(&mut other, all);
    bench.exchange(&mut second);
    second.safe_until() > Some(bench.now) && other.mode().is_some()
}

#[test]
fn a_record_that_was_taken_over_tells_which_drives_are_counted_now() {
    assert!(!fewer_drives_after_a_restart(true), "REFRESH stores metadata");
    assert!(!fewer_drives_after_a_restart(false), "REFRESH keeps metadata");
}

#[test]
fn an_orphan_of_other_drives_is_not_adopted_with_these() {
    for stores in [true, false] {
        let mut profile = Profile::current();
        profile.refresh_stores_metadata = stores;
        let mut bench = Bench::with(3, profile);
        let all = bench.acquire(Mode::Exclusive);
        let mut first = lv_lock(1);
        assert_eq!(bench.run(&mut first, all), GRANTED);
        drop(first);
        let mut second = lv_lock(1);
        let few = adopt(&bench, &[0], Some(bench.now + LEASE));
        let outcome = bench.run(&mut second, few);
        assert_eq!(outcome, Outcome::Refused(Refusal::Unclear));
        assert_eq!(bench.states(0), [State::Locked], "and nothing is given back");
    }
}

#[test]
fn what_may_be_an_orphan_is_not_acquired_and_not_given_back() {
    let mut bench = Bench::new(1);
    let acquire = bench.acquire(Mode::Exclusive);
    let mut first = lv_lock(1);
    assert_eq!(bench.run(&mut first, acquire.clone()), GRANTED);
    let granted = bench.now;
    drop(first);
    bench.paths[0] = Path::Hung;
    let mut second = lv_lock(1);
    let adopt = Request::Adopt {
        mode: X,
        safe_until: Some(bench.now + LEASE),
        granted: true,
        members: bench.all(),
        witnesses: Vec::new(),
    };
    let outcome = bench.run(&mut second, adopt.clone());
    assert!(matches!(outcome, Outcome::Refused(Refusal::NoQuorum { .. })), "{outcome:?}");
    assert_eq!(second.request(acquire.clone(), bench.now), Err(RequestError::WrongState));
    bench.paths[0] = Path::Up;
    bench.pass(&mut second, Duration::from_secs(8));
    let mut other = lv_lock(2);
    let outcome = bench.run(&mut other, acquire);
    assert!(is_held(&outcome), "its lease has not run out");
    assert!(bench.now.since(granted) < LEASE);
}

#[test]
fn a_new_life_counts_no_drive_before_the_old_ones_commands_have_ended() {
    let mut bench = Bench::new(3);
    let acquire = bench.acquire(Mode::Exclusive);
    let mut first = lv_lock(1);
    assert_eq!(bench.run(&mut first, acquire.clone()), GRANTED);
    // The first life is killed while it releases; its UNLOCKs stay with the adapter.
    first.request(RELEASE, bench.now).expect("always in order");
    let under_way = all_at_once(&bench, &mut first);
    drop(first);
    let over = bench.now + Duration::from_secs(15);
    let adopt = Request::Adopt {
        mode: X,
        safe_until: Some(bench.now + LEASE),
        granted: true,
        members: bench.all(),
        witnesses: Vec::new(),
    };
    let mut second = lock_of_a_new_life(1, over);
    for _ in 0..2 {
        let outcome = bench.run(&mut second, adopt.clone());
        let Outcome::Refused(Refusal::NoQuorum { barred, .. }) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(barred.iter().all(|&(_, until)| until == over) && barred.len() == 3);
    }
    for command in &under_way {
        bench.perform(command);
    }
    bench.now = bench.now.max(over);
    let outcome = bench.run(&mut second, adopt);
    assert_eq!(outcome, Outcome::Refused(Refusal::NothingToAdopt));
}

#[test]
fn what_a_new_life_finds_is_refreshed_at_once_and_adopted_later() {
    let mut bench = Bench::new(3);
    let acquire = bench.acquire(Mode::Exclusive);
    let mut first = lv_lock(1);
    assert_eq!(bench.run(&mut first, acquire.clone()), GRANTED);
    drop(first);
    bench.now = bench.now + (LEASE - Duration::from_secs(1));
    let over = bench.now + Duration::from_secs(15);
    let adopt = Request::Adopt {
        mode: X,
        safe_until: Some(bench.now + LEASE),
        granted: true,
        members: bench.all(),
        witnesses: Vec::new(),
    };
    let mut second = lock_of_a_new_life(1, over);
    let outcome = bench.run(&mut second, adopt.clone());
    assert!(matches!(outcome, Outcome::Refused(Refusal::NoQuorum { .. })), "{outcome:?}");
    bench.now = over;
    let mut other = lv_lock(2);
    let outcome = bench.run(&mut other, acquire);
    assert!(is_held(&outcome), "its lease began anew");
    assert_eq!(bench.run(&mut second, adopt), Outcome::Adopted(Mode::Exclusive));
}

#[test]
fn a_new_life_takes_nothing_before_the_old_ones_commands_have_ended() {
    let mut bench = Bench::new(1);
    let acquire = bench.acquire(Mode::Exclusive);
    let soon = bench.now + Duration::from_secs(3);
    let mut a = lock_of_a_new_life(1, soon);
    assert_eq!(bench.run(&mut a, acquire.clone()), GRANTED);
    assert!(bench.now >= soon);
    let late = bench.now + Duration::from_secs(15);
    let mut b = lock_of_a_new_life(2, late);
    let outcome = bench.run(&mut b, acquire);
    let Outcome::Refused(Refusal::NoQuorum { barred, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(barred.len(), 1);
}

#[test]
fn an_unlock_that_was_answered_bars_nothing_and_a_lost_one_does_from_its_report_on() {
    for (status, barred) in [(Status::Failed, false), (Status::Uncertain, true)] {
        let mut bench = Bench::new(1);
        let acquire = bench.acquire(Mode::Exclusive);
        let mut a = lv_lock(1);
        assert_eq!(bench.run(&mut a, acquire.clone()), GRANTED);
        a.request(RELEASE, bench.now).expect("always in order");
        events(&mut a);
        let unlock = a.next_command(bench.now).expect("an UNLOCK");
        bench.now = bench.now + Duration::from_secs(14);
        a.on_reply(unlock.token, Reply::Status(status), bench.now);
        bench.now = bench.now + Duration::from_secs(5);
        let outcome = bench.run(&mut a, acquire);
        assert_eq!(outcome == GRANTED, !barred, "{status:?}: {outcome:?}");
    }
}

#[test]
fn an_unlock_that_was_lost_is_no_release() {
    let mut bench = Bench::new(1);
    let acquire = bench.acquire(Mode::Exclusive);
    let mut a = lv_lock(1);
    assert_eq!(bench.run(&mut a, acquire.clone()), GRANTED);
    a.request(RELEASE, bench.now).expect("always in order");
    // It never reaches the drive, and no host knows that.
    let unlock = a.next_command(bench.now).expect("an UNLOCK");
    a.on_reply(unlock.token, Reply::Status(Status::Uncertain), bench.now);
    assert!(!a.is_idle());
    bench.pass(&mut a, Duration::from_secs(1));
    assert!(bench.states(0).is_empty(), "it is sent again");
    let mut b = lv_lock(2);
    assert_eq!(bench.run(&mut b, acquire), GRANTED);
}

#[test]
fn an_orphan_on_a_drive_that_cannot_be_read_is_not_reported_as_gone() {
    let mut bench = Bench::new(1);
    let acquire = bench.acquire(Mode::Shared);
    assert_eq!(bench.run(&mut lv_lock(1), acquire), GRANTED);
    let mut new_life = lv_lock(1);
    let request = adopt(&bench, &[0], None);
    let mut refreshed = false;
    let outcome = run_with(&mut bench, &mut new_life, request, |command| match op(command) {
        // The mode that was read is out of date: a late command changed it.
        Some(MutexOp::Refresh) => {
            refreshed = true;
            Fate::Instead(Status::Terminated)
        }
        _ if refreshed => Fate::Instead(Status::Uncertain),
        _ => Fate::Answered,
    });
    assert_eq!(outcome, Outcome::Refused(Refusal::Unclear));
}

/// The outcome of an exclusive request if drive 2 answers every TRYLOCK with a conflict, and its
/// reads with these statuses, the last of which stands.
fn with_refused_reads(reads: &[Status]) -> Outcome {
    let mut bench = Bench::new(3);
    let request = bench.acquire(X);
    let mut reads = reads.iter().chain(reads.last().into_iter().cycle());
    run_with(&mut bench, &mut lv_lock(1), request, |command| match op(command) {
        _ if command.drive.0 != 2 => Fate::Answered,
        None => Fate::Instead(*reads.next().expect("endless")),
        _ => Fate::Instead(Status::Conflict),
    })
}

#[test]
fn a_drive_that_refuses_reads_too_counts_as_one_that_does_not_answer() {
    assert_eq!(with_refused_reads(&[Status::Conflict]), GRANTED);
    for unreadable in [Status::Unreachable, Status::Failed, Status::TryAgain] {
        for reads in [&[Status::Conflict, unreadable][..], &[unreadable, Status::Conflict]] {
            let outcome = with_refused_reads(reads);
            assert!(is_held(&outcome), "{reads:?}: {outcome:?}");
        }
    }
}

/// Drive 2 refuses reads, then shows what an earlier life left, then reports a conflict and refuses
/// one read. That conflict may be about the mutex.
#[test]
fn a_drive_that_was_read_meanwhile_has_to_refuse_reads_anew() {
    let mut bench = Bench::new(3);
    assert_eq!(take(&mut bench, &mut vg_lock(1), X, &[0, 1, 2], &[]), GRANTED);
    let mut a = with_config(vg_lock(1), |config| config.seed = 99);
    a.request(bench.acquire(X), bench.now).expect("in order");
    let mut reads = 0;
    let open = pass_with(&mut bench, &mut a, Duration::from_secs(1), |command| {
        match (command.drive.0, op(command)) {
            (0, _) => Fate::Open,
            (2, None) => {
                reads += 1;
                if reads == 3 { Fate::Answered } else { Fate::Instead(Status::Conflict) }
            }
            (2, Some(_)) => Fate::Instead(Status::Conflict),
            _ => Fate::Answered,
        }
    });
    assert_eq!((reads, open.len()), (4, 1));
    let outcome = done(&mut a);
    assert!(outcome.as_ref().is_some_and(is_held), "{outcome:?}");
}

#[test]
fn a_mutex_whose_holder_is_timed_out_is_not_removed_for_room() {
    let mut profile = Profile::current();
    profile.limits = Limits { mutexes: 1, ..profile.limits };
    let mut bench = Bench::with(1, profile);
    let acquire = bench.acquire(Mode::Exclusive);
    let mut old = other_lv_lock(9);
    assert_eq!(bench.run(&mut old, acquire.clone()), GRANTED);
    // Its host stands still; a late REFRESH gives it its lock back.
    bench.now = bench.now + LEASE * 2;
    assert_eq!(bench.states(0), [State::TimedOut]);
    let mut a = lv_lock(1);
    assert_eq!(bench.run(&mut a, acquire), Outcome::Refused(Refusal::Full));
    assert_eq!(bench.states(0), [State::TimedOut]);
    old.on_timer(bench.now);
    bench.exchange(&mut old);
    assert!(old.safe_until() > Some(bench.now));
}

#[test]
fn a_break_that_is_late_makes_no_exclusive_lock_a_shared_one() {
    let mut bench = Bench::new(3);
    let acquire = bench.acquire(Mode::Exclusive);
    assert_eq!(bench.run(&mut lv_lock(9), acquire), GRANTED);
    bench.now = bench.now + LEASE * 2;
    // The BREAK on drive 2 is given up, and arrives late.
    let mut a = lv_lock(1);
    a.request(bench.acquire(Mode::Shared), bench.now).expect("in order");
    let mut late = None;
    for _ in 0..20 {
        for command in all_at_once(&bench, &mut a) {
            let breaks = matches!(command.command, DriveCommand::Mutex(MutexOp::Break, _));
            let reply = if breaks && command.drive.0 == 2 {
                late = Some(command.clone());
                Reply::Status(Status::Uncertain)
            } else {
                bench.perform(&command)
            };
            a.on_reply(command.token, reply, bench.now);
        }
        bench.now = bench.now + Duration::from_millis(10);
        a.on_timer(bench.now);
    }
    assert_eq!(done(&mut a), Some(GRANTED));
    // Drive 2 is needed for an exclusive lock.
    bench.paths[1] = Path::Cut;
    a.request(Request::Convert { mode: Mode::Exclusive, value: None }, bench.now).expect("held");
    bench.exchange(&mut a);
    bench.perform(&late.expect("a BREAK"));
    bench.pass(&mut a, Duration::from_secs(1));
    bench.paths[1] = Path::Up;
    let mut b = lv_lock(2);
    let shared = bench.acquire(Mode::Shared);
    let outcome = bench.run(&mut b, shared);
    assert!(outcome != GRANTED || a.mode() != Some(Mode::Exclusive), "both hold it");
}

#[test]
fn a_change_to_exclusive_breaks_nobody_where_the_lock_is_gone() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    let acquire = bench.acquire(Mode::Shared);
    assert_eq!(bench.run(&mut a, acquire), GRANTED);
    // While drive 2 refuses the change, it is reset, and another host's lock appears there and
    // dies.
    a.request(Request::Convert { mode: Mode::Exclusive, value: None }, bench.now).expect("held");
    let mut dead = None;
    for _ in 0..20 {
        for command in all_at_once(&bench, &mut a) {
            let breaks = matches!(command.command, DriveCommand::Mutex(MutexOp::Break, _));
            assert!(!breaks, "on {:?}", command.drive);
            let reply = match (&command.command, command.drive.0) {
                (DriveCommand::Mutex(_, record), 2) => {
                    dead = Some(Record { host: host(9), ..record.clone() });
                    Reply::Status(Status::Terminated)
                }
                (DriveCommand::ReadTable, 2) => {
                    let dead = dead.clone().expect("the change was asked for");
                    Reply::Table([Record { state: State::TimedOut, ..dead }].into())
                }
                _ => bench.perform(&command),
            };
            a.on_reply(command.token, reply, bench.now);
        }
    }
    assert_eq!(done(&mut a), Some(Outcome::Converted { complete: true }));
}

#[test]
fn an_lvs_lock_needs_a_look_at_most_of_the_vgs_drives() {
    for (cut, granted) in [(vec![], true), (vec![2], true), (vec![1, 2], false)] {
        let mut bench = Bench::new(3);
        for drive in &cut {
            bench.paths[*drive] = Path::Cut;
        }
        let (members, witnesses) = (bench.members(&[0]), bench.members(&[1, 2]));
        let mut a = lv_lock(1);
        let request = Request::Acquire { mode: Mode::Exclusive, members, witnesses };
        let outcome = bench.run(&mut a, request);
        let expected = if granted { GRANTED } else { Outcome::Refused(Refusal::Unconfirmed) };
        assert_eq!(outcome, expected, "{cut:?}");
    }
}

/// Records that a refused adoption found on witnesses do not prove anything to the next one after
/// their lease.
#[test]
fn what_an_earlier_adoption_found_is_no_proof_after_its_lease() {
    let mut bench = Bench::new(5);
    let mut first = lv_lock(1);
    assert_eq!(take(&mut bench, &mut first, X, &[0], &[1, 2, 3, 4]), GRANTED);
    // It is put on drives 1 and 2, because its LV may be moved; then the host dies.
    bench.paths[3..].fill(Path::Cut);
    let all = bench.all();
    first.spread(&all, bench.now);
    bench.exchange(&mut first);
    drop(first);
    bench.paths.fill(Path::Up);
    let mut other = lv_lock(3);
    assert_eq!(take(&mut bench, &mut other, X, &[3], &[]), GRANTED);
    let adopt = adopt_beside(&bench, &[0], &[1, 2, 3, 4], None);
    let mut a = lv_lock(1);
    let outcome = bench.run(&mut a, adopt.clone());
    assert!(is_held(&outcome), "{outcome:?}");
    bench.run(&mut other, RELEASE);
    // It is away for longer than a lease; meanwhile the LV is moved to drive 1.
    bench.now = bench.now + LEASE * 2;
    bench.paths[0] = Path::Cut;
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, X, &[1], &[0, 2, 3, 4]), GRANTED);
    bench.paths = vec![Path::Up, Path::Cut, Path::Cut, Path::Up, Path::Up];
    let outcome = bench.run(&mut a, adopt);
    assert_eq!(outcome, Outcome::Refused(Refusal::Unclear));
    assert_one_holder(&bench, &a, &b);
}

/// Host 1 holds an LV's lock on drive 0 and, by a BREAK, on drive 3; drives 1 to 3 are witnesses.
fn held_on_a_witness() -> (Bench, Lock) {
    let mut bench = Bench::new(4);
    assert_eq!(take(&mut bench, &mut lv_lock(9), X, &[3], &[]), GRANTED);
    bench.now = bench.now + LEASE * 2;
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0], &[1, 2, 3]), GRANTED);
    assert_eq!(on(&a), [0, 3]);
    bench.paths[3] = Path::Cut;
    (bench, a)
}

#[test]
fn a_witness_that_was_not_unlocked_is_read_after_its_lease() {
    let (mut bench, mut a) = held_on_a_witness();
    bench.pass(&mut a, LEASE - Duration::from_secs(1));
    // The UNLOCK waits for its turn, which never comes.
    a.request(RELEASE, bench.now).expect("always in order");
    let unlock = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        3 => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(Outcome::Released));
    bench.now = bench.now + Duration::from_secs(2);
    // The LV is moved to drive 3.
    let mut b = lv_lock(2);
    bench.paths[3] = Path::Up;
    assert_eq!(take(&mut bench, &mut b, X, &[3], &[0, 1, 2]), GRANTED);
    bench.paths[2] = Path::Cut;
    bench.paths[3] = Path::Hung;
    a.request(acquire(&bench, X, &[0], &[1, 2, 3]), bench.now).expect("in order");
    bench.exchange(&mut a);
    a.on_reply(unlock[0].token, Reply::Status(Status::Unreachable), bench.now);
    bench.pass(&mut a, Duration::from_secs(6));
    assert_eq!(done(&mut a), Some(Outcome::Refused(Refusal::Unconfirmed)));
    assert_one_holder(&bench, &a, &b);
}

#[test]
fn a_drive_that_fell_silent_is_no_proof_for_a_change_to_exclusive() {
    let (mut bench, mut a) = held_on_a_witness();
    bench.pass(&mut a, LEASE * 2);
    assert_eq!(bench.run(&mut a, convert(S)), Outcome::Converted { complete: true });
    // The LV is moved to drive 3, where another host shares the lock.
    bench.paths[3] = Path::Up;
    let mut b = lv_lock(2);
    assert_eq!(take(&mut bench, &mut b, S, &[3], &[0, 1, 2]), GRANTED);
    bench.paths[2..].fill(Path::Cut);
    let outcome = bench.run(&mut a, convert(X));
    assert_eq!(outcome, Outcome::Refused(Refusal::Unconfirmed));
    assert_eq!((a.mode(), believes(&bench, &b)), (Some(S), true));
}
