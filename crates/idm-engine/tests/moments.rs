//! Behaviour at the exact time when something ends, and with a timer that comes late.

mod bench;

use bench::*;
use core::time::Duration;
use idm_engine::{Command, Event, Lock, Loss, Notice, Outcome, Refusal, Request, Timing};
use idm_protocol::{Mode, MutexOp, Reply, Status};

const US: Duration = Duration::from_micros(1);

fn timing() -> Timing {
    Timing::for_lease(LEASE)
}

/// The drives answer commands that were sent before.
fn answer(bench: &mut Bench, lock: &mut Lock, commands: &[Command]) {
    for command in commands {
        let reply = bench.perform(command);
        lock.on_reply(command.token, reply, bench.now);
    }
}

/// Begins a request that these drives do not receive.
fn begin(bench: &mut Bench, lock: &mut Lock, request: Request, hung: &[u32]) {
    lock.request(request, bench.now).expect("in order");
    exchange_with(bench, lock, |command| match command.drive.0 {
        drive if hung.contains(&drive) => Fate::Open,
        _ => Fate::Answered,
    });
}

fn held(mode: Mode, on: &[u32], witnesses: &[u32]) -> (Bench, Lock) {
    let (mut bench, mut a) = (Bench::new(on.len() + witnesses.len()), lv_lock(1));
    assert_eq!(take(&mut bench, &mut a, mode, on, witnesses), GRANTED);
    (bench, a)
}

#[test]
fn a_request_ends_with_its_time_also_where_the_timer_comes_late() {
    type Begin = fn() -> (Bench, Lock, Duration);
    let cases: [(&str, Begin); 6] = [
        ("no majority", || {
            let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
            let request = bench.acquire(X);
            begin(&mut bench, &mut a, request, &[1, 2]);
            (bench, a, timing().patience)
        }),
        ("a drive that is not needed", || {
            let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
            let request = bench.acquire(X);
            begin(&mut bench, &mut a, request, &[2]);
            (bench, a, timing().grace)
        }),
        ("witnesses", || {
            let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
            let request = acquire(&bench, X, &[0, 1, 2], &[3, 4]);
            begin(&mut bench, &mut a, request, &[3, 4]);
            (bench, a, timing().patience / 4)
        }),
        ("an adoption", || {
            let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
            seize(&mut bench, &mut lv_lock(1), X, &[0]);
            let request = adopt(&bench, &[0, 1, 2], None);
            begin(&mut bench, &mut a, request, &[1, 2]);
            (bench, a, timing().patience)
        }),
        ("a change to exclusive", || {
            let (mut bench, mut a) = held(S, &[0, 1, 2], &[]);
            begin(&mut bench, &mut a, convert(X), &[1, 2]);
            (bench, a, timing().patience)
        }),
        ("a change to shared", || {
            let (mut bench, mut a) = held(X, &[0, 1, 2], &[]);
            begin(&mut bench, &mut a, convert(S), &[1, 2]);
            (bench, a, timing().patience)
        }),
    ];
    for (name, begin) in cases {
        for late in [Duration::ZERO, US, Duration::from_secs(1)] {
            let (mut bench, mut a, time) = begin();
            let end = bench.now + time;
            bench.now = end - US;
            a.on_timer(bench.now);
            assert_eq!(done(&mut a), None, "{name}, too early");
            bench.now = end + late;
            a.on_timer(bench.now);
            assert!(done(&mut a).is_some(), "{name}, {late:?} late");
        }
    }
}

/// A lock that gave way to two other hosts, and is to try again.
fn gave_way() -> (Bench, Lock) {
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(2), X, &[1]);
    seize(&mut bench, &mut lv_lock(3), X, &[2]);
    let mut a = lv_lock(1);
    a.request(bench.acquire(X), bench.now).expect("in order");
    bench.exchange(&mut a);
    assert!(events(&mut a).contains(&Event::Notice(Notice::SplitVote)));
    bench.log.clear();
    (bench, a)
}

#[test]
fn another_attempt_is_made_when_its_moment_has_come_or_is_over() {
    for late in [Duration::ZERO, US, Duration::from_secs(1)] {
        let (mut bench, mut a) = gave_way();
        let next = a.next_deadline().expect("another attempt");
        bench.now = next - US;
        a.on_timer(bench.now);
        bench.exchange(&mut a);
        assert!(bench.log.is_empty());
        bench.now = next + late;
        a.on_timer(bench.now);
        bench.exchange(&mut a);
        assert!(said(&bench, 0).contains(&"trylock"), "{late:?} late");
    }
}

#[test]
fn no_drive_is_asked_again_when_the_time_of_the_request_is_over() {
    for late in [Duration::ZERO, US, Duration::from_secs(1)] {
        let (mut bench, mut a) = gave_way();
        bench.now = bench.now + timing().patience + late;
        a.on_timer(bench.now);
        assert!(done(&mut a).is_some(), "{late:?} late");
        bench.exchange(&mut a);
        assert!(!said(&bench, 0).contains(&"trylock"), "{late:?} late");
    }
}

/// Two hosts split the drives, which answer so late that only the time `left` remains. Returns the
/// events, and the pause before the next attempt.
fn gives_way_late(left: Duration) -> (Vec<Event>, Option<Duration>) {
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(2), X, &[1]);
    seize(&mut bench, &mut lv_lock(3), X, &[2]);
    let mut a = lv_lock(1);
    a.request(bench.acquire(X), bench.now).expect("in order");
    let open = exchange_with(&mut bench, &mut a, |_| Fate::Open);
    bench.now = bench.now + timing().patience - left;
    answer(&mut bench, &mut a, &open);
    bench.exchange(&mut a);
    let pause = a.next_deadline().map(|next| next.since(bench.now));
    (events(&mut a), pause)
}

#[test]
fn who_has_no_time_for_another_attempt_is_refused_at_once() {
    let (told, pause) = gives_way_late(timing().patience);
    assert_eq!(told, [Event::Notice(Notice::SplitVote)]);
    let pause = pause.expect("another attempt");
    for (left, again) in [(pause + US, true), (pause, false), (pause - US, false)] {
        let (told, _) = gives_way_late(left);
        let refused = |e: &Event| matches!(e, Event::Done(Outcome::Refused(Refusal::Held(_))));
        assert_eq!(told.iter().any(refused), !again, "{left:?}: {told:?}");
        assert_eq!(told.contains(&Event::Notice(Notice::SplitVote)), again, "{left:?}: {told:?}");
    }
}

#[test]
fn a_grant_that_is_heard_of_when_its_lease_is_over_is_none() {
    let end = LEASE - timing().drift;
    for late in [Duration::ZERO, US, Duration::from_secs(5)] {
        let (mut bench, mut a) = (Bench::new(3), lv_lock(1));
        a.request(bench.acquire(X), bench.now).expect("in order");
        let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
            0 => Fate::Answered,
            1 => Fate::Unheard,
            _ => Fate::Open,
        });
        // The host stands still before it gets the second drive's answer.
        bench.now = bench.now + end + late;
        a.on_reply(open[0].token, Reply::Status(Status::Good), bench.now);
        let outcome = done(&mut a);
        assert!(matches!(outcome, Some(Outcome::Refused(_))), "{late:?} late: {outcome:?}");
    }
}

#[test]
fn an_orphan_that_is_heard_of_when_its_lease_is_over_is_not_adopted() {
    let end = LEASE - timing().drift;
    for (after, adopts) in [(end - US, true), (end, false), (end + US, false), (end * 2, false)] {
        let mut bench = Bench::new(3);
        seize(&mut bench, &mut lv_lock(1), X, &[0, 1, 2]);
        let mut a = lv_lock(1);
        let request = adopt(&bench, &[0, 1, 2], None);
        a.request(request, bench.now).expect("in order");
        let open =
            exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
                (0, _) | (1, None) => Fate::Answered,
                (1, _) => Fate::Unheard,
                _ => Fate::Open,
            });
        // The host stands still before it gets the second drive's answer.
        bench.now = bench.now + after;
        a.on_reply(open[0].token, Reply::Status(Status::Good), bench.now);
        let outcome = done(&mut a);
        assert_eq!(outcome == Some(Outcome::Adopted(X)), adopts, "{after:?}: {outcome:?}");
    }
}

#[test]
fn what_was_seen_of_an_orphan_does_not_count_when_its_lease_is_over() {
    let mut bench = Bench::new(3);
    seize(&mut bench, &mut lv_lock(1), X, &[0]);
    seize(&mut bench, &mut lv_lock(1), S, &[1, 2]);
    let mut a = lv_lock(1);
    let (begin, request) = (bench.now, adopt(&bench, &[0, 1, 2], None));
    a.request(request, bench.now).expect("in order");
    // Drive 2 is refreshed a few seconds before the others.
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        2 => Fate::Answered,
        _ => Fate::Open,
    });
    bench.now = begin + Duration::from_secs(4);
    answer(&mut bench, &mut a, &open);
    let open = exchange_with(&mut bench, &mut a, |command| match command.drive.0 {
        1 => Fate::Unheard,
        _ => Fate::Answered,
    });
    bench.now = begin + LEASE;
    a.on_reply(open[0].token, Reply::Status(Status::Good), bench.now);
    // One drive is exclusive and one shared, as after a change where a third drive is gone.
    assert_eq!(done(&mut a), Some(Outcome::Refused(Refusal::Unclear)));
}

#[test]
fn a_lapse_is_noticed_by_whatever_comes_first() {
    let (mut bench, mut a) = held(X, &[0, 1, 2], &[]);
    bench.now = a.safe_until().expect("held");
    let named = bench.members(&[0, 1, 2]);
    a.spread(&named, bench.now);
    assert_eq!(events(&mut a), [Event::Lapsed]);
    let (mut bench, mut a) = held(X, &[0, 1, 2], &[]);
    bench.now = a.safe_until().expect("held");
    a.request(convert(S), bench.now).expect("held");
    assert_eq!(events(&mut a)[0], Event::Lapsed);
    // A value that is published so late could be older than another host's.
    let (mut bench, all) = with_a_value(3);
    let mut a = vg_lock(1);
    take(&mut bench, &mut a, X, &all, &[]);
    bench.now = a.safe_until().expect("held");
    assert_eq!(published(&mut bench, &mut a, Some(value(8))), [Some(0); 3]);
}

#[test]
fn drives_are_not_added_after_a_lapse_that_was_not_noticed_yet() {
    let (mut bench, mut a) = held(X, &[0, 1], &[2, 3]);
    bench.now = a.safe_until().expect("held");
    bench.log.clear();
    spread(&mut bench, &mut a, &[0, 1, 2, 3]);
    assert!(bench.log.iter().all(|(_, name)| *name == "refresh"), "{:?}", bench.log);
}

/// A lock on drives 0 to 2, for which drives 3 to 5 are ready to vote.
fn ready_to_move() -> (Bench, Lock) {
    let (mut bench, mut a) = held(X, &[0, 1, 2], &[3, 4, 5]);
    spread(&mut bench, &mut a, &[3, 4, 5]);
    assert_eq!(is_ready(&mut a), Some(refs(&[3, 4, 5])));
    (bench, a)
}

#[test]
fn votes_do_not_move_after_a_lapse_that_was_not_noticed_yet() {
    let (mut bench, mut a) = ready_to_move();
    bench.paths[..3].fill(Path::Cut);
    let end = a.safe_until().expect("held");
    bench.pass(&mut a, (end - US).since(bench.now));
    assert!(believes(&bench, &a));
    bench.now = end;
    assert!(!a.move_votes(&refs(&[3, 4, 5]), bench.now));
    assert!(!believes(&bench, &a));
    assert!(events(&mut a).contains(&Event::Lapsed));
}

#[test]
fn a_drive_whose_lease_ends_at_this_moment_does_not_vote() {
    for (early, moves) in [(US, true), (Duration::ZERO, false)] {
        let (mut bench, mut a) = held(X, &[0, 1, 2], &[3, 4, 5]);
        let named = bench.members(&[3, 4, 5]);
        let end = bench.now + LEASE - timing().drift;
        a.spread(&named, bench.now);
        bench.exchange(&mut a);
        assert!(is_ready(&mut a).is_some());
        bench.paths[3..].fill(Path::Cut);
        bench.pass(&mut a, (end - early).since(bench.now));
        assert!(believes(&bench, &a));
        assert_eq!(a.move_votes(&refs(&[3, 4, 5]), bench.now), moves, "{early:?}");
    }
}

#[test]
fn giving_back_ends_with_the_lease() {
    let over = LEASE + timing().drift;
    for (after, asks) in [(over - US, true), (over, false), (over + US, false), (over * 2, false)] {
        let (mut bench, mut a) = held(X, &[0, 1, 2], &[]);
        let begin = bench.now;
        bench.paths.fill(Path::Cut);
        bench.run(&mut a, RELEASE);
        // The host stands still meanwhile.
        bench.log.clear();
        bench.now = begin + after;
        a.on_timer(bench.now);
        assert_eq!(a.is_idle(), !asks, "{after:?}");
        bench.exchange(&mut a);
        assert_eq!(said(&bench, 0).contains(&"unlock"), asks, "{after:?}");
    }
}

#[test]
fn a_lock_is_idle_when_nothing_of_it_can_arrive_any_more() {
    let (mut bench, mut a) = held(X, &[0, 1, 2], &[]);
    a.request(RELEASE, bench.now).expect("always in order");
    exchange_with(&mut bench, &mut a, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Unlock)) => Fate::Late,
        _ => Fate::Answered,
    });
    let settled = bench.now + timing().linger;
    bench.pass(&mut a, Duration::from_secs(1));
    assert!(!a.is_idle());
    while let Some(next) = a.next_deadline() {
        bench.now = next;
        a.on_timer(bench.now);
        bench.exchange(&mut a);
    }
    assert!(a.is_idle());
    assert_eq!(bench.now, settled);
}

#[test]
fn a_shaken_lock_asks_for_no_timer_that_has_nothing_to_do() {
    let (mut bench, mut a) = held(X, &[0, 1, 2], &[]);
    let open = pass_with(&mut bench, &mut a, LEASE / 3, |command| match command.drive.0 {
        2 => Fate::Open,
        _ => Fate::Answered,
    });
    a.on_reply(open[0].token, Reply::Status(Status::NotFound), bench.now);
    exchange_with(&mut bench, &mut a, |_| Fate::Open);
    a.on_timer(bench.now);
    assert!(a.next_deadline() > Some(bench.now), "drive 2 is not to be had yet");
}

#[test]
fn a_loss_ends_the_change_that_is_under_way() {
    let (mut bench, mut a) = held(S, &[0, 1, 2], &[]);
    bench.drives.iter_mut().for_each(|drive| drive.reset());
    a.request(convert(X), bench.now).expect("held");
    bench.exchange(&mut a);
    let refusal = Refusal::NoQuorum { granted: 0, needed: 2, barred: Vec::new() };
    let told = events(&mut a);
    assert!(told.contains(&Event::Lost(Loss::Taken)), "{told:?}");
    assert!(told.contains(&Event::Done(Outcome::Refused(refusal))), "{told:?}");
}
