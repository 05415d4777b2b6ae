//! A held lock: losses and gains of drives, the times of commands, and holders to give way to.

mod bench;

use bench::*;
use core::time::Duration;
use idm_engine::{DriveRef, Event, Lock, Loss, Notice, Outcome, Timing};
use idm_protocol::{Mode, MutexOp, Reply, Status};

const CONVERTED: Outcome = Outcome::Converted { complete: true };
fn timing() -> Timing {
    Timing::for_lease(LEASE)
}

fn held(mode: Mode, count: u32) -> (Bench, Lock) {
    let (mut bench, mut a) = (Bench::new(count as usize), lv_lock(1));
    let request = bench.acquire(mode);
    assert_eq!(bench.run(&mut a, request), GRANTED);
    (bench, a)
}

/// Lets time pass until all drives are refreshed, and returns the commands.
fn refreshes(bench: &mut Bench, lock: &mut Lock) -> Vec<idm_engine::Command> {
    let count = bench.drives.len();
    let mut open = Vec::new();
    for _ in 0..1000 {
        open.extend(pass_with(bench, lock, timing().renew / 100, |_| Fate::Unheard));
        if open.len() == count {
            return open;
        }
    }
    panic!("drives are not refreshed: {open:?}");
}

fn lost(drive: u32) -> Event {
    Event::Notice(Notice::DriveLost { drive: DriveRef(drive) })
}

// ---- Answers that are older than the present request ----

#[test]
fn an_answer_in_the_old_mode_is_followed_by_the_new_one_at_once() {
    let (mut bench, mut a) = held(X, 3);
    let open = refreshes(&mut bench, &mut a);
    a.request(convert(S), bench.now).expect("held");
    for command in open {
        a.on_reply(command.token, Reply::Status(Status::Good), bench.now);
    }
    bench.exchange(&mut a);
    assert_eq!(done(&mut a), Some(CONVERTED));
    assert!(a.held_on().all(|(_, mode)| mode == S));
}

#[test]
fn what_was_asked_just_before_a_drive_was_lost_is_asked_again() {
    let (mut bench, mut a) = held(X, 3);
    let open = refreshes(&mut bench, &mut a);
    let [first, second, third] = &open[..] else { panic!("{open:?}") };
    bench.now = bench.now + SECOND;
    a.on_reply(third.token, Reply::Status(Status::NotFound), bench.now);
    for command in [first, second] {
        a.on_reply(command.token, Reply::Status(Status::Good), bench.now);
    }
    bench.log.clear();
    exchange_with(&mut bench, &mut a, |_| Fate::Open);
    assert_eq!(bench.log, [(0, "refresh"), (1, "refresh")]);
}

#[test]
fn a_late_answer_that_a_drive_has_lost_the_lock_counts_at_once() {
    for (status, is_lost) in [(Status::NotFound, true), (Status::Good, false)] {
        let (mut bench, mut a) = held(S, 3);
        let open = refreshes(&mut bench, &mut a);
        let (late, prompt) = open.split_last().expect("three");
        for command in prompt {
            a.on_reply(command.token, Reply::Status(Status::Good), bench.now);
        }
        // A change is requested, which other hosts prevent; then the old answer arrives.
        seize(&mut bench, &mut lv_lock(2), S, &[0, 1]);
        assert!(is_held(&bench.run(&mut a, convert(X))));
        bench.exchange(&mut a);
        events(&mut a);
        a.on_reply(late.token, Reply::Status(status), bench.now);
        assert_eq!(events(&mut a).contains(&lost(2)), is_lost);
        let next = exchange_with(&mut bench, &mut a, |_| Fate::Open);
        let asked: Vec<u32> = next.iter().map(|command| command.drive.0).collect();
        let expected: &[u32] = if is_lost { &[0, 1] } else { &[] };
        assert_eq!(asked, expected, "{status:?}");
    }
}

// ---- Drives that lost the lock ----

#[test]
fn a_drive_that_does_not_count_does_not_say_that_the_lock_stands() {
    // Drive 3 may still be made shared by a late command, so it does not count as exclusive.
    let (mut bench, mut a) = held(X, 5);
    a.request(convert(S), bench.now).expect("held");
    exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        3 => Fate::Late,
        _ => Fate::Answered,
    });
    events(&mut a);
    assert_eq!(bench.run(&mut a, convert(X)), CONVERTED);
    bench.pass(&mut a, SECOND);
    // The refresh of drive 4 finds nothing.
    let open = loop {
        let open = pass_with(&mut bench, &mut a, SECOND / 10, |_| Fate::Unheard);
        if !open.is_empty() {
            break open;
        }
    };
    for command in &open {
        let status = if command.drive.0 == 4 { Status::NotFound } else { Status::Good };
        a.on_reply(command.token, Reply::Status(status), bench.now);
    }
    bench.drives[4].reset();
    bench.log.clear();
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        2 => Fate::Unheard,
        _ => Fate::Answered,
    });
    assert_eq!(said(&bench, 4), [""; 0], "two of five are not enough");
    for command in open {
        a.on_reply(command.token, Reply::Status(Status::Good), bench.now);
    }
    bench.exchange(&mut a);
    assert_eq!(said(&bench, 4), ["trylock"]);
}

#[test]
fn a_drive_that_is_being_given_back_is_not_ours_any_more() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    bench.paths[2] = Path::Cut;
    let request = bench.acquire(X);
    assert_eq!(bench.run(&mut a, request), GRANTED);
    // Drive 2 is asked at last, and answers after the lapse.
    let mut open = Vec::new();
    let end = a.safe_until().expect("held");
    while bench.now < end {
        let step = (end.since(bench.now)).min(SECOND);
        open.extend(pass_with(&mut bench, &mut a, step, |command| match op(command) {
            Some(MutexOp::Trylock) => Fate::Unheard,
            _ => Fate::Instead(Status::Unreachable),
        }));
    }
    let [trylock] = &open[..] else { panic!("{open:?}") };
    assert!(events(&mut a).contains(&Event::Lapsed));
    bench.log.clear();
    a.on_reply(trylock.token, Reply::Status(Status::Good), bench.now);
    exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
        (2, _) => Fate::Open,
        _ => Fate::Instead(Status::Unreachable),
    });
    assert_eq!(said(&bench, 2), ["unlock"]);
    // Drive 0 does not have the lock any more: there is no keep quorum.
    bench.drives[0].reset();
    bench.paths[1] = Path::Cut;
    bench.paths[2] = Path::Hung;
    bench.pass(&mut a, LEASE / 3);
    assert!(events(&mut a).contains(&Event::Lost(Loss::Taken)));
}

/// Drive 2 grants the lock after the request for an exclusive lock that followed was refused.
#[test]
fn a_drive_that_was_won_late_is_kept_like_the_others() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    take(&mut bench, &mut b, S, &[0, 1, 2], &[]);
    a.request(acquire(&bench, S, &[0, 1, 2], &[]), bench.now).expect("in order");
    let late = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        2 => Fate::Unheard,
        _ => Fate::Answered,
    });
    bench.now = bench.now + Duration::from_secs(1);
    a.on_timer(bench.now);
    assert_eq!(done(&mut a), Some(GRANTED));
    assert!(is_held(&bench.run(&mut a, convert(X))));
    a.on_reply(late[0].token, Reply::Status(Status::Good), bench.now);
    assert_eq!(on(&a), [0, 1, 2]);
    // The first drive that does not know the lock any more makes the others be asked at once.
    [1, 2].into_iter().for_each(|drive| bench.drives[drive].reset());
    bench.log.clear();
    while said(&bench, 1).is_empty() {
        bench.wait(&mut a);
        bench.exchange(&mut a);
    }
    bench.pass(&mut a, Duration::from_secs(1));
    assert!(events(&mut a).contains(&Event::Lost(Loss::Taken)), "{:?}", bench.log);
}

#[test]
fn a_drive_that_was_given_back_after_a_lapse_is_taken_again() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    bench.paths[2] = Path::Cut;
    let request = bench.acquire(X);
    assert_eq!(bench.run(&mut a, request), GRANTED);
    let end = a.safe_until().expect("held");
    let rest = (end - SECOND).since(bench.now);
    let open = pass_with(&mut bench, &mut a, rest, |command| match op(command) {
        Some(MutexOp::Trylock) => Fate::Unheard,
        _ => Fate::Instead(Status::Unreachable),
    });
    // A TRYLOCK of drive 2 is lost just before the lapse.
    let [trylock] = &open[..] else { panic!("{open:?}") };
    a.on_reply(trylock.token, Reply::Status(Status::Uncertain), bench.now);
    pass_with(&mut bench, &mut a, SECOND, |_| Fate::Instead(Status::Unreachable));
    assert!(events(&mut a).contains(&Event::Lapsed));
    bench.paths[2] = Path::Up;
    bench.log.clear();
    let (mut regained, mut taken, mut unlocks) = (None, None, Vec::new());
    for _ in 0..60 {
        bench.pass(&mut a, SECOND);
        let told = events(&mut a).contains(&Event::Regained);
        regained = regained.or(told.then_some(bench.now));
        let said = said(&bench, 2);
        unlocks.resize(said.iter().filter(|name| **name == "unlock").count(), bench.now);
        taken = taken.or(said.contains(&"trylock").then_some(bench.now));
    }
    let given_back = *unlocks.last().expect("what may have arrived is given back");
    assert!(regained.expect("drives 0 and 1 have it") < given_back);
    assert!(taken.expect("it is taken again").since(given_back) >= timing().renew - SECOND);
    assert_eq!(on(&a), [0, 1, 2]);
}

#[test]
fn a_drive_that_was_missed_is_taken_as_soon_as_a_lapse_is_over() {
    for missed in [0, 2] {
        let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
        bench.paths[missed] = Path::Cut;
        let request = bench.acquire(X);
        assert_eq!(bench.run(&mut a, request), GRANTED);
        bench.paths = vec![Path::Cut; 3];
        bench.pass(&mut a, LEASE * 2);
        events(&mut a);
        bench.paths = vec![Path::Up; 3];
        while !events(&mut a).contains(&Event::Regained) {
            assert!(!believes(&bench, &a));
            bench.pass(&mut a, SECOND);
        }
        assert_eq!(on(&a), [0, 1, 2], "without {missed}");
    }
}

#[test]
fn drives_of_an_earlier_acquisition_are_not_taken_after_a_lapse() {
    let (mut bench, mut a) = held(X, 4);
    // The UNLOCK of drive 3 may still arrive, so the lock remembers the drive.
    a.request(RELEASE, bench.now).expect("always in order");
    exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
        (3, Some(MutexOp::Unlock)) => Fate::Despite(Status::Uncertain),
        _ => Fate::Answered,
    });
    bench.pass(&mut a, SECOND);
    events(&mut a);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    bench.log.clear();
    bench.paths = vec![Path::Cut; 4];
    bench.pass(&mut a, LEASE * 2);
    bench.paths = vec![Path::Up; 4];
    bench.pass(&mut a, LEASE);
    assert!(events(&mut a).contains(&Event::Regained));
    assert_eq!(said(&bench, 3), [""; 0]);
}

#[test]
fn a_drive_that_did_not_answer_is_asked_again_when_the_others_are_renewed() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    bench.paths[2] = Path::Cut;
    let request = bench.acquire(X);
    assert_eq!(bench.run(&mut a, request), GRANTED);
    let mut times = Vec::new();
    while times.len() < 3 {
        bench.log.clear();
        let before = bench.now;
        bench.pass(&mut a, SECOND / 10);
        if said(&bench, 2).contains(&"trylock")
            && times.last().is_none_or(|t| before.since(*t) > SECOND)
        {
            times.push(before);
        }
    }
    for pair in times.windows(2) {
        let pause = pair[1].since(pair[0]);
        assert!(pause >= timing().renew && pause <= timing().renew + SECOND, "{pause:?}");
    }
}

// ---- Holders that are met ----

/// The state of a lock on drives 0 and 1 of three, while hosts have drive 2 one after the other.
/// `hosts` has, for each, the number of seconds and whether it counts only drive 2.
fn beside(hosts: &[(u8, u64, bool)]) -> Vec<Event> {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    bench.paths[2] = Path::Cut;
    let request = bench.acquire(X);
    assert_eq!(bench.run(&mut a, request), GRANTED);
    bench.paths[2] = Path::Up;
    for &(n, seconds, alone) in hosts {
        let mut b = lv_lock(n);
        let members = if alone { &[2][..] } else { &[0, 1, 2] };
        b.request(acquire(&bench, X, members, &[]), bench.now).expect("in order");
        exchange_with(&mut bench, &mut b, |command| match (alone, op(command)) {
            (false, Some(MutexOp::Trylock)) if command.drive.0 == 2 => Fate::Unheard,
            (false, _) => Fate::Open,
            _ => Fate::Answered,
        });
        let end = bench.now + Duration::from_secs(seconds);
        while bench.now < end {
            if alone {
                bench.exchange(&mut b);
            }
            bench.exchange(&mut a);
            bench.now = bench.now + SECOND / 2;
            a.on_timer(bench.now);
            if alone {
                b.on_timer(bench.now);
            }
        }
        bench.drives[2].reset();
    }
    events(&mut a)
}

#[test]
fn only_one_and_the_same_host_is_given_way_to() {
    type Case<'a> = (&'a [(u8, u64, bool)], bool);
    let cases: [Case<'_>; 5] = [
        (&[(2, 125, true)], true),
        (&[(4, 50, true), (3, 50, true), (2, 50, true)], false),
        (&[(2, 50, true), (3, 50, true), (4, 50, true)], false),
        // It was gone in between, when another host was met that counts the same drives.
        (&[(2, 45, true), (3, 45, false), (2, 45, true)], false),
        // A failed attempt of a host that counts the same drives.
        (&[(2, 59, false), (2, 59, false)], false),
    ];
    for (hosts, is_lost) in cases {
        let told = beside(hosts);
        let lost = |event: &Event| matches!(event, Event::Lost(_));
        assert_eq!(told.iter().any(lost), is_lost, "{hosts:?}: {told:?}");
    }
}

// ---- A new acquisition ----

#[test]
fn what_an_earlier_acquisition_knew_of_a_drive_is_forgotten() {
    for late in [0, 2] {
        knows_nothing_of_an_earlier_acquisition(late);
    }
}

/// A lock is acquired again, and this drive answers after the others.
fn knows_nothing_of_an_earlier_acquisition(late: u32) {
    // Drive 2 is missed, and a TRYLOCK of it is lost just before the lapse.
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    bench.paths[2] = Path::Cut;
    let request = bench.acquire(X);
    assert_eq!(bench.run(&mut a, request.clone()), GRANTED);
    let end = a.safe_until().expect("held");
    let rest = end.since(bench.now);
    pass_with(&mut bench, &mut a, rest, |command| match op(command) {
        Some(MutexOp::Trylock) => Fate::Instead(Status::Uncertain),
        _ => Fate::Instead(Status::Unreachable),
    });
    assert!(events(&mut a).contains(&Event::Lapsed));
    bench.paths = vec![Path::Up; 3];
    bench.run(&mut a, RELEASE);
    bench.exchange(&mut a);
    assert!(!a.is_idle(), "drive 2 is still in mind");
    // It is needed now, without drive 0.
    a.request(request, bench.now).expect("free");
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        drive if drive == late => Fate::Open,
        _ => Fate::Answered,
    });
    bench.pass(&mut a, timing().grace);
    let told = events(&mut a);
    assert!(told.contains(&Event::Done(GRANTED)), "{told:?}");
    // Nothing is reported of drives that this acquisition did not miss.
    let reply = bench.perform(&open[0]);
    a.on_reply(open[0].token, reply, bench.now);
    assert_eq!(on(&a), [0, 1, 2]);
    let told = [told, events(&mut a)].concat();
    let gained = |event: &Event| matches!(event, Event::Notice(Notice::DriveGained { .. }));
    assert!(!told.iter().any(gained), "{told:?}");
}

#[test]
fn a_host_that_an_earlier_acquisition_met_is_met_for_the_first_time() {
    let (mut bench, mut a, mut b) = (Bench::new(3), lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut b, X, &[2], &[]), GRANTED);
    bench.paths[2] = Path::Cut;
    let request = bench.acquire(X);
    assert_eq!(bench.run(&mut a, request.clone()), GRANTED);
    bench.paths[2] = Path::Up;
    bench.pass(&mut a, SECOND * 25);
    assert!(said(&bench, 2).contains(&"read"), "it was met");
    // The lock remembers the drive for a TRYLOCK that may still arrive.
    pass_with(&mut bench, &mut a, SECOND * 20, |command| match op(command) {
        Some(MutexOp::Trylock) => Fate::Late,
        _ => Fate::Answered,
    });
    bench.run(&mut a, RELEASE);
    a.request(request, bench.now).expect("in order");
    let open = pass_with(&mut bench, &mut a, SECOND, |command| match command.drive.0 {
        2 => Fate::Open,
        _ => Fate::Answered,
    });
    assert_eq!(done(&mut a), Some(GRANTED));
    for command in open {
        let reply = bench.perform(&command);
        a.on_reply(command.token, reply, bench.now);
    }
    for _ in 0..70 {
        b.on_timer(bench.now);
        bench.exchange(&mut b);
        bench.pass(&mut a, SECOND);
    }
    assert!(believes(&bench, &a), "{:?}", events(&mut a));
}

#[test]
fn a_conflict_that_an_earlier_acquisition_met_is_forgotten() {
    let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
    a.request(bench.acquire(X), bench.now).expect("in order");
    let (mut first, mut silent) = (true, 2);
    pass_with(&mut bench, &mut a, SECOND, |command| match (command.drive.0, op(command)) {
        // The first TRYLOCK may still arrive.
        (2, Some(MutexOp::Trylock)) if core::mem::take(&mut first) => Fate::Late,
        (2, Some(MutexOp::Trylock)) => Fate::Instead(Status::Conflict),
        (2, _) => Fate::Instead(Status::Unreachable),
        // Drive 1 answers after that.
        (1, Some(MutexOp::Trylock)) if silent > 0 => {
            silent -= 1;
            Fate::Instead(Status::Unreachable)
        }
        _ => Fate::Answered,
    });
    assert!(done(&mut a).is_some_and(|outcome| is_held(&outcome)));
    bench.paths[2] = Path::Cut;
    let request = bench.acquire(X);
    assert_eq!(bench.run(&mut a, request), GRANTED);
}

/// A drive forgets the lock, which is noticed by a change to exclusive.
#[test]
fn a_drive_that_a_change_has_lost_is_taken_again_after_a_while() {
    let (mut bench, mut a) = held(S, 3);
    bench.drives[0].reset();
    assert_eq!(bench.run(&mut a, convert(X)), Outcome::Converted { complete: true });
    assert_eq!(on(&a), [1, 2], "not at once: another host may have it");
    bench.pass(&mut a, LEASE / 2);
    assert_eq!(on(&a), [0, 1, 2]);
}

/// A host that counts drives 2, 3 and 4 seizes drive 2 for a moment.
fn visit(bench: &mut Bench) {
    let mut visitor = lv_lock(2);
    visitor.request(acquire(bench, X, &[2, 3, 4], &[]), bench.now).expect("in order");
    while let Some(command) = visitor.next_command(bench.now) {
        if command.drive.0 == 2 {
            bench.perform(&command);
        }
    }
}

/// A shared lock of drives 0 to 2. Another host was met on drive 2 once, which this host has won
/// since, or does with a change to exclusive.
fn visited(changes: bool) -> (Bench, Lock) {
    let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
    bench.paths[2] = Path::Cut;
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
    bench.pass(&mut a, SECOND);
    visit(&mut bench);
    bench.paths[2] = Path::Up;
    bench.pass(&mut a, SECOND * 21);
    bench.drives[2].reset();
    if changes {
        assert_eq!(bench.run(&mut a, convert(X)), Outcome::Converted { complete: true });
    }
    bench.pass(&mut a, LEASE + SECOND * 40);
    assert_eq!(on(&a), [0, 1, 2]);
    (bench, a)
}

#[test]
fn a_host_that_was_met_before_a_drive_was_won_is_met_for_the_first_time() {
    for changes in [false, true] {
        let (mut bench, mut a) = visited(changes);
        bench.drives[2].reset();
        visit(&mut bench);
        bench.pass(&mut a, SECOND * 30);
        assert!(a.mode().is_some(), "changes: {changes}");
    }
}

#[test]
fn a_host_that_was_met_before_a_drive_was_won_does_not_keep_votes_from_moving() {
    for changes in [false, true] {
        let (mut bench, mut a) = visited(changes);
        spread(&mut bench, &mut a, &[0, 1, 2, 3, 4]);
        bench.pass(&mut a, LEASE);
        assert!(is_ready(&mut a).is_some(), "changes: {changes}");
    }
}
