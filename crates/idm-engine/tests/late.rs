//! Commands that may still be on their way to a drive, and the exact time, in us, after which they
//! do not count any more.

mod bench;

use bench::*;
use core::time::Duration;
use idm_emulator::Profile;
use idm_engine::{Command, Instant, Lock, Outcome, Timing, Undoes};
use idm_protocol::{DriveCommand, Mode, MutexOp, Status};

/// The time for which a lost command may still arrive.
fn linger() -> Duration {
    Timing::for_lease(LEASE).linger
}

/// A fate for the commands to one drive; all others answer.
fn to(drive: u32, fate: impl Fn() -> Fate) -> impl FnMut(&Command) -> Fate {
    move |command| if command.drive.0 == drive { fate() } else { Fate::Answered }
}

fn unreachable() -> Fate {
    Fate::Instead(Status::Unreachable)
}

/// Lets time pass until then.
fn pass_until(
    bench: &mut Bench,
    lock: &mut Lock,
    end: Instant,
    fate: impl FnMut(&Command) -> Fate,
) -> Vec<Command> {
    let time = end.since(bench.now);
    pass_with(bench, lock, time, fate)
}

/// Holds the lock, and loses one REFRESH of a drive; returns the time until which it may arrive.
fn lose_a_refresh(bench: &mut Bench, lock: &mut Lock, drive: u32) -> Instant {
    let mut over = None;
    while over.is_none() {
        bench.wait(lock);
        let at = bench.now;
        exchange_with(bench, lock, |command| {
            if command.drive.0 == drive && over.is_none() {
                over = Some(at + linger());
                return Fate::Instead(Status::Uncertain);
            }
            Fate::Answered
        });
    }
    over.expect("it was lost")
}

#[test]
fn a_look_that_was_lost_bars_nothing() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut b, X, &[0, 1, 2], &[]), GRANTED);
    a.request(acquire(&bench, X, &[0, 1, 2], &[]), bench.now).expect("in order");
    exchange_with(&mut bench, &mut a, |command| match command.command {
        DriveCommand::ReadTable => Fate::Instead(Status::Uncertain),
        _ => Fate::Answered,
    });
    assert!(done(&mut a).is_some_and(|outcome| is_held(&outcome)));
    bench.run(&mut b, RELEASE);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1], &[]), GRANTED, "other drives are counted");
}

#[test]
fn a_drive_counts_that_is_taken_when_a_lost_refresh_is_over() {
    let mut bench = Bench::new(3);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[]), GRANTED);
    let over = lose_a_refresh(&mut bench, &mut a, 0);
    bench.run(&mut a, RELEASE);
    bench.pass(&mut a, linger() - SECOND);
    // Only drive 0 is counted now, and may be marked as one of three until then.
    assert_eq!(take(&mut bench, &mut a, X, &[0], &[]), GRANTED);
    assert_eq!(bench.now, over);
}

/// Drive 0 alone is held, and was marked anew for a move to drives 0 and 1. It is read when the
/// last command that may mark it as one of the old drives can no longer arrive.
#[test]
fn a_mark_counts_that_is_read_when_a_lost_refresh_is_over() {
    for (early, ready) in [(Duration::from_micros(1), false), (Duration::ZERO, true)] {
        let mut bench = Bench::new(2);
        let mut a = lv_lock(1);
        assert_eq!(take(&mut bench, &mut a, X, &[0], &[]), GRANTED);
        let over = lose_a_refresh(&mut bench, &mut a, 0);
        bench.pass(&mut a, linger() - SECOND);
        let new = bench.members(&[0, 1]);
        a.spread(&new, bench.now);
        let open = exchange_with(&mut bench, &mut a, to(0, || Fate::Open));
        bench.now = over - early;
        let reply = bench.perform(&open[0]);
        a.on_reply(open[0].token, reply, bench.now);
        bench.exchange(&mut a);
        assert_eq!(said(&bench, 0).last(), Some(&"read"));
        assert_eq!(is_ready(&mut a).is_some(), ready, "{early:?} early");
    }
}

#[test]
fn votes_move_while_the_new_drives_are_being_refreshed() {
    let mut bench = Bench::new(5);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0, 1, 2], &[3, 4]), GRANTED);
    spread(&mut bench, &mut a, &[2, 3, 4]);
    let named = is_ready(&mut a).expect("three drives");
    let open = pass_with(&mut bench, &mut a, LEASE / 3, |_| Fate::Open);
    assert_eq!(open.len(), 5, "all are refreshed");
    assert!(a.move_votes(&named, bench.now));
}

/// A shared record that drive 2 may have, while the lock is shared on drives 0 to 2.
#[derive(Clone, Copy, Debug)]
enum Shared {
    /// A TRYLOCK that was lost.
    Stray,
    /// A record that was not refreshed any more.
    Record,
    /// A change to shared that was lost, of an exclusive record.
    Demotion,
}

/// Whether a change to exclusive succeeds, this time before no shared record of ours can be on
/// drive 2 any more. Drive 2 does not take part.
fn changes(what: Shared, early: Duration) -> bool {
    let timing = Timing::for_lease(LEASE);
    let mut bench = Bench::new(5);
    let mut a = lv_lock(1);
    let begin = bench.now;
    let mode = if matches!(what, Shared::Demotion) { X } else { S };
    a.request(acquire(&bench, mode, &[0, 1, 2], &[3, 4]), begin).expect("in order");
    let mut trylocks = 0;
    pass_with(&mut bench, &mut a, SECOND, |command| match (what, command.drive.0, op(command)) {
        (Shared::Stray, 2, Some(MutexOp::Trylock)) => {
            trylocks += 1;
            Fate::Instead(if trylocks == 1 { Status::Uncertain } else { Status::TryAgain })
        }
        _ => Fate::Answered,
    });
    assert!(matches!(done(&mut a), Some(Outcome::Granted(_))));
    let over = match what {
        // It was read before the TRYLOCK could arrive.
        Shared::Stray => begin + timing.linger + timing.lease + timing.drift,
        Shared::Record => begin + timing.lease + timing.drift,
        Shared::Demotion => {
            let at = bench.now;
            a.request(convert(S), at).expect("held");
            exchange_with(&mut bench, &mut a, to(2, || Fate::Instead(Status::Uncertain)));
            assert_eq!(done(&mut a), Some(Outcome::Converted { complete: true }));
            at + timing.linger + timing.lease + timing.drift
        }
    };
    pass_until(&mut bench, &mut a, over - early, to(2, unreachable));
    a.request(convert(X), bench.now).expect("held");
    exchange_with(&mut bench, &mut a, to(2, || Fate::Instead(Status::Unsupported)));
    done(&mut a) == Some(Outcome::Converted { complete: true })
}

#[test]
fn a_change_to_exclusive_is_refused_as_long_as_a_drive_may_show_us_as_sharer_and_no_longer() {
    for what in [Shared::Stray, Shared::Record, Shared::Demotion] {
        assert!(!changes(what, Duration::from_micros(1)), "{what:?}");
        assert!(changes(what, Duration::ZERO), "{what:?}");
    }
}

/// The lock is shared on drives 0 to 2. Drive 2 answers its first TRYLOCK so, refuses all others,
/// and can be read for the first time. Returns whether a change to exclusive succeeds after
/// the second time.
fn changes_after(first: Status, times: [Duration; 2]) -> bool {
    let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
    a.request(acquire(&bench, S, &[0, 1, 2], &[3, 4]), bench.now).expect("in order");
    let mut answer = first;
    pass_with(&mut bench, &mut a, times[0], |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Trylock)) => {
            Fate::Instead(core::mem::replace(&mut answer, Status::Conflict))
        }
        _ => Fate::Answered,
    });
    assert!(matches!(done(&mut a), Some(Outcome::Granted(_))));
    pass_with(&mut bench, &mut a, times[1], to(2, unreachable));
    a.request(convert(X), bench.now).expect("held");
    exchange_with(&mut bench, &mut a, to(2, || Fate::Instead(Status::Unsupported)));
    done(&mut a) == Some(Outcome::Converted { complete: true })
}

/// A command that was lost may arrive after the drive was read, one that failed does not.
#[test]
fn a_drive_that_is_read_after_a_lost_trylock_has_arrived_is_known_to_have_no_record() {
    let linger = linger();
    for (first, times, changes) in [
        (Status::Uncertain, [linger / 2, linger], false),
        (Status::Uncertain, [linger / 2, LEASE * 2], true),
        (Status::Uncertain, [linger * 2, linger], true),
        (Status::Failed, [SECOND, SECOND], true),
    ] {
        assert_eq!(changes_after(first, times), changes, "{first:?} {times:?}");
    }
}

/// In the first minute of a host.
#[test]
fn a_drive_that_no_command_has_reached_does_not_stand_in_the_way() {
    let (mut bench, mut a) = (Bench::new(5), lv_lock(1));
    bench.now = Instant::from_micros(1);
    a.request(acquire(&bench, S, &[0, 1, 2], &[3, 4]), bench.now).expect("in order");
    pass_with(&mut bench, &mut a, SECOND, to(2, unreachable));
    assert!(matches!(done(&mut a), Some(Outcome::Granted(_))));
    a.request(convert(X), bench.now).expect("held");
    pass_with(&mut bench, &mut a, LEASE / 2, to(2, unreachable));
    assert_eq!(done(&mut a), Some(Outcome::Converted { complete: true }));
}

#[test]
fn a_change_to_exclusive_does_not_wait_for_an_exclusive_drive_that_is_given_back() {
    let mut bench = Bench::new(4);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0], &[1, 2, 3]), GRANTED);
    spread(&mut bench, &mut a, &[0, 1, 2, 3]);
    assert_eq!(on(&a), [0, 1, 2, 3]);
    let fewer = bench.members(&[0, 1, 2]);
    a.spread(&fewer, bench.now);
    let fate = |command: &Command| match op(command) {
        Some(MutexOp::Unlock) => Fate::Open,
        _ => Fate::Answered,
    };
    assert_eq!(exchange_with(&mut bench, &mut a, fate).len(), 1, "drive 3 is unlocked");
    for mode in [S, X] {
        a.request(convert(mode), bench.now).expect("held");
        pass_with(&mut bench, &mut a, SECOND, fate);
        assert_eq!(done(&mut a), Some(Outcome::Converted { complete: true }), "{mode}");
    }
}

/// A drive that answers "held by yourself", and is silent otherwise, may have begun a lease both
/// times that it was asked.
#[test]
fn what_may_have_begun_a_lease_later_is_given_back_until_that_is_over() {
    let mut bench = Bench::new(1);
    let mut a = lv_lock(1);
    for last in [false, true] {
        a.request(acquire(&bench, X, &[0], &[]), bench.now).expect("in order");
        pass_with(&mut bench, &mut a, LEASE / 3, |command| match op(command) {
            Some(MutexOp::Trylock) if last => Fate::Despite(Status::Terminated),
            Some(MutexOp::Trylock) => Fate::Instead(Status::Terminated),
            _ => unreachable(),
        });
        assert!(matches!(done(&mut a), Some(Outcome::Refused(_))));
    }
    pass_with(&mut bench, &mut a, LEASE / 3 + SECOND, |_| unreachable());
    assert_eq!(bench.states(0).len(), 1);
    bench.pass(&mut a, LEASE / 3 - SECOND * 2);
    assert!(bench.states(0).is_empty(), "it was unlocked as soon as it answered");
}

/// Whether a change to exclusive succeeds, if drive 2 may have made us a sharer and has not
/// answered yet, or was only asked for an exclusive lock.
fn changes_beside(first: &[Status], open: MutexOp) -> bool {
    let mut bench = Bench::new(5);
    if open == MutexOp::Break {
        assert_eq!(take(&mut bench, &mut lv_lock(9), X, &[2], &[]), GRANTED);
        bench.now = bench.now + LEASE * 2;
    }
    let mut a = lv_lock(1);
    a.request(acquire(&bench, S, &[0, 1, 2], &[3, 4]), bench.now).expect("in order");
    let mut first = first.iter();
    let mut fate = |command: &Command| match (command.drive.0, first.next()) {
        (2, Some(&status)) => Fate::Instead(status),
        (2, None) if op(command) == Some(open) => Fate::Unheard,
        _ => Fate::Answered,
    };
    let mut fate = |command: &Command| match command.drive.0 {
        2 => fate(command),
        _ => Fate::Answered,
    };
    pass_with(&mut bench, &mut a, SECOND * 2, &mut fate);
    assert!(matches!(done(&mut a), Some(Outcome::Granted(_))));
    a.request(convert(X), bench.now).expect("held");
    pass_with(&mut bench, &mut a, SECOND, &mut fate);
    done(&mut a) == Some(Outcome::Converted { complete: true })
}

#[test]
fn a_change_to_exclusive_heeds_a_break_as_shared_that_is_under_way_and_nothing_exclusive() {
    assert!(!changes_beside(&[], MutexOp::Break));
    assert!(changes_beside(&[Status::Unreachable; 3], MutexOp::Trylock));
}

/// An earlier life, which also counted another drive, may mark the record for a while. The record
/// is read at the end of that time, or later; then a REFRESH is lost.
#[test]
fn what_an_earlier_life_may_have_written_is_forgotten_when_the_record_was_read_afterwards() {
    for later in [Duration::ZERO, SECOND] {
        let mut bench = Bench::new(2);
        assert_eq!(take(&mut bench, &mut lv_lock(1), X, &[0, 1], &[]), GRANTED);
        let over = bench.now + SECOND;
        let mut a = with_config(lv_lock(1), |config| {
            (config.earlier_writes_until, config.seed) = (over, 7);
        });
        a.request(acquire(&bench, X, &[0], &[]), bench.now).expect("in order");
        let open = exchange_with(&mut bench, &mut a, |command| match op(command) {
            Some(MutexOp::Refresh) => Fate::Open,
            _ => Fate::Answered,
        });
        bench.now = over + later;
        let reply = bench.perform(&open[0]);
        a.on_reply(open[0].token, reply, bench.now);
        bench.exchange(&mut a);
        assert_eq!(done(&mut a), Some(GRANTED));
        lose_a_refresh(&mut bench, &mut a, 0);
        assert!(believes(&bench, &a), "read {later:?} later");
        bench.pass(&mut a, LEASE * 2);
        assert!(believes(&bench, &a), "read {later:?} later");
    }
}

/// Whether a REFRESH as shared is reported to undo a lock, this time after a change to exclusive
/// was lost.
fn undoes_after_a_lost_change(later: Duration, answers: bool) -> bool {
    let mut bench = Bench::new(2);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, S, &[0], &[]), GRANTED);
    a.request(convert(X), bench.now).expect("held");
    let begin = bench.now;
    let mut first = true;
    pass_with(&mut bench, &mut a, SECOND, |_| {
        let lost = core::mem::replace(&mut first, false);
        if lost { Fate::Instead(Status::Uncertain) } else { unreachable() }
    });
    assert!(matches!(done(&mut a), Some(Outcome::Refused(_))));
    // Until the drive is marked for a move.
    let fate = |_: &Command| if answers { Fate::Answered } else { unreachable() };
    pass_until(&mut bench, &mut a, begin + later, fate);
    let new = bench.members(&[0, 1]);
    a.spread(&new, bench.now);
    let command = a.next_command(bench.now).expect("a REFRESH");
    assert_eq!((command.drive.0, op(&command)), (0, Some(MutexOp::Refresh)));
    command.undoes == Undoes::Any
}

#[test]
fn a_refresh_as_shared_undoes_a_change_to_exclusive_that_may_be_late() {
    assert!(undoes_after_a_lost_change(linger() - Duration::from_micros(1), true));
    // The change may have been carried out: the drive decides.
    assert!(undoes_after_a_lost_change(linger() * 2, false));
    assert!(!undoes_after_a_lost_change(linger() * 2, true));
}

/// The locks that a TRYLOCK as exclusive can undo, `later` after a change to shared was lost. It
/// follows a TRYLOCK that was lost, so that the drive is remembered for longer.
fn trylock_after_a_lost_change(later: Duration) -> Undoes {
    let mut bench = Bench::new(1);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, X, &[0], &[]), GRANTED);
    a.request(convert(S), bench.now).expect("held");
    let begin = bench.now;
    let mut first = true;
    pass_with(&mut bench, &mut a, SECOND, |_| {
        let lost = core::mem::replace(&mut first, false);
        if lost { Fate::Instead(Status::Uncertain) } else { Fate::Answered }
    });
    assert_eq!(done(&mut a), Some(Outcome::Converted { complete: true }));
    bench.run(&mut a, RELEASE);
    let pause = Duration::from_millis(50);
    bench.now = begin + (later - pause);
    a.request(acquire(&bench, X, &[0], &[]), bench.now).expect("in order");
    exchange_with(&mut bench, &mut a, |_| Fate::Instead(Status::Uncertain));
    bench.now = begin + later;
    let command = a.next_command(bench.now).expect("a TRYLOCK");
    assert_eq!(op(&command), Some(MutexOp::Trylock));
    command.undoes
}

#[test]
fn a_trylock_undoes_something_as_long_as_a_change_to_shared_may_be_late() {
    let last = linger() - Duration::from_micros(1);
    assert_eq!(trylock_after_a_lost_change(last), Undoes::Any);
    assert_eq!(trylock_after_a_lost_change(linger()), Undoes::Nothing);
}

#[test]
fn what_only_reads_or_takes_undoes_nothing() {
    // One drive with room for one mutex, which an unlocked mutex occupies; `died` is whether the
    // host that last tried to remove it died meanwhile.
    for died in [false, true] {
        let mut profile = Profile::current();
        profile.limits.mutexes = 1;
        let mut bench = Bench::with(1, profile);
        let mut first = other_lv_lock(9);
        assert_eq!(take(&mut bench, &mut first, X, &[0], &[]), GRANTED);
        first.request(RELEASE, bench.now).expect("always in order");
        let unlock = first.next_command(bench.now).expect("an UNLOCK");
        bench.perform(&unlock);
        if died {
            let mut b = vg_lock(2);
            b.request(acquire(&bench, X, &[0], &[]), bench.now).expect("in order");
            for _ in 0..4 {
                let command = b.next_command(bench.now).expect("read, TRYLOCK, read, TRYLOCK");
                let reply = bench.perform(&command);
                b.on_reply(command.token, reply, bench.now);
            }
            bench.now = bench.now + SECOND * 2;
        }
        let mut a = vg_lock(1);
        a.request(acquire(&bench, X, &[0], &[]), bench.now).expect("in order");
        let mut sent = Vec::new();
        while let Some(command) = a.next_command(bench.now) {
            sent.push((name_of(&command.command), command.undoes == Undoes::Any));
            let reply = bench.perform(&command);
            a.on_reply(command.token, reply, bench.now);
        }
        let locks = if died { ("break", true) } else { ("trylock", false) };
        let expected = [
            ("read", false),
            ("trylock", false),
            ("read", false),
            locks,
            ("unlock", true),
            ("destroy", true),
            ("trylock", false),
            ("read", false),
        ];
        assert_eq!(sent, expected, "died: {died}");
    }
}

#[test]
fn a_trylock_says_that_a_late_refresh_undoes_it_where_no_unlock_came_between() {
    let mut bench = Bench::new(3);
    let (mut a, mut b) = (lv_lock(1), lv_lock(2));
    assert_eq!(take(&mut bench, &mut a, S, &[0, 1, 2], &[]), GRANTED);
    bench.pass(&mut a, SECOND * 100);
    pass_with(&mut bench, &mut a, LEASE + SECOND * 2, |_| unreachable());
    let mut late = Vec::new();
    pass_with(&mut bench, &mut a, SECOND * 11, |command| {
        late.push(command.clone());
        Fate::Instead(Status::Uncertain)
    });
    // Another host had it in between, so there is nothing to unlock.
    assert_eq!(take(&mut bench, &mut b, X, &[0, 1, 2], &[]), GRANTED);
    bench.run(&mut b, RELEASE);
    pass_with(&mut bench, &mut a, SECOND * 11, |_| Fate::Answered);
    assert_eq!(a.mode(), None, "it is lost");
    a.request(RELEASE, bench.now).expect("always in order");
    a.request(acquire(&bench, X, &[0, 1, 2], &[]), bench.now).expect("in order");
    let mut noted = false;
    while let Some(command) = a.next_command(bench.now) {
        noted |= command.undoes == Undoes::Any;
        bench.perform(&command);
    }
    drop(a);
    // It died before it was refused. Without a note, the next life adopts at once.
    let mut next = lv_lock(1);
    if !noted {
        assert_eq!(bench.run(&mut next, adopt(&bench, &[0, 1, 2], None)), Outcome::Adopted(X));
    }
    for command in &late {
        bench.perform(command);
    }
    let mut c = lv_lock(3);
    take(&mut bench, &mut c, S, &[0, 1, 2], &[]);
    assert_one_holder(&bench, &next, &c);
    assert!(noted);
}

/// A lock on drives 0 to 2. Drive 2 has confirmed its record, which has the mark of other drives,
/// and has not answered since.
fn silent_after_a_confirmation(mode: Mode, profile: Profile) -> (Bench, Lock) {
    let mut bench = Bench::with(5, profile);
    let mut a = lv_lock(1);
    assert_eq!(take(&mut bench, &mut a, mode, &[2], &[]), GRANTED);
    bench.paths[2] = Path::Cut;
    bench.run(&mut a, RELEASE);
    assert_eq!(take(&mut bench, &mut a, mode, &[0, 1, 2], &[3, 4]), GRANTED);
    bench.pass(&mut a, SECOND * 5);
    let mut confirmed = false;
    pass_with(&mut bench, &mut a, LEASE / 2, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Refresh)) if !confirmed => {
            confirmed = true;
            Fate::Answered
        }
        (2, _) if confirmed => unreachable(),
        _ => Fate::Answered,
    });
    assert!(confirmed);
    (bench, a)
}

/// Drive 2 carries out one TRYLOCK within this time, with this fate, and answers nothing else.
fn lose_a_trylock(bench: &mut Bench, lock: &mut Lock, time: Duration, fate: Fate) {
    let mut trylock = false;
    pass_with(bench, lock, time, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Trylock)) if !trylock => {
            trylock = true;
            fate
        }
        (2, _) => unreachable(),
        _ => Fate::Answered,
    });
    assert!(trylock);
}

/// Firmware that lets a holder whose lease is over lock again.
fn relocking() -> Profile {
    Profile { expired_holder_may_relock: true, ..Profile::current() }
}

/// The lock becomes shared, and a TRYLOCK that is lost leaves a shared record on drive 2. Another
/// host that counts other drives shares the lock because of it. Returns whether the lock becomes
/// exclusive beside that.
fn is_exclusive_beside_a_sharer((mut bench, mut a): (Bench, Lock), fate: Fate) -> bool {
    a.request(convert(S), bench.now).expect("held");
    lose_a_trylock(&mut bench, &mut a, SECOND / 100, fate);
    assert_eq!(done(&mut a), Some(Outcome::Converted { complete: true }));
    pass_with(&mut bench, &mut a, SECOND, to(2, unreachable));
    // Drives 0, 2 and 4 answer the other host.
    let mut b = lv_lock(2);
    bench.paths = vec![Path::Up, Path::Cut, Path::Up, Path::Cut, Path::Up];
    assert_eq!(take(&mut bench, &mut b, S, &[2, 3, 4], &[0, 1]), GRANTED, "it shares");
    // Drives 0, 1 and 3 answer the first one.
    bench.paths = vec![Path::Up, Path::Up, Path::Cut, Path::Up, Path::Cut];
    bench.run(&mut a, convert(X));
    a.mode() == Some(X) && believes(&bench, &a) && believes(&bench, &b)
}

#[test]
fn a_lost_trylock_stands_in_the_way_on_a_drive_that_was_exclusive() {
    for fate in [Fate::Despite(Status::Uncertain), Fate::Despite(Status::Failed), Fate::Unheard] {
        let (mut bench, mut a) = silent_after_a_confirmation(X, relocking());
        pass_with(&mut bench, &mut a, LEASE * 2, to(2, unreachable));
        assert!(!is_exclusive_beside_a_sharer((bench, a), fate), "its lease is over");
        let (mut bench, a) = silent_after_a_confirmation(X, Profile::current());
        bench.drives[2].reset();
        assert!(!is_exclusive_beside_a_sharer((bench, a), fate), "reset");
    }
}

/// A look shows the record, and not when its lease began.
#[test]
fn a_lost_trylock_stands_in_the_way_on_a_drive_that_shows_its_record() {
    let (mut bench, mut a) = silent_after_a_confirmation(S, relocking());
    pass_with(&mut bench, &mut a, LEASE * 2, to(2, unreachable));
    lose_a_trylock(&mut bench, &mut a, LEASE / 2, Fate::Despite(Status::Uncertain));
    let mut looked = false;
    pass_with(&mut bench, &mut a, LEASE / 2, |command| match (command.drive.0, op(command)) {
        (2, Some(MutexOp::Trylock)) if !looked => Fate::Instead(Status::Conflict),
        (2, None) if !looked => {
            looked = true;
            Fate::Answered
        }
        (2, _) => unreachable(),
        _ => Fate::Answered,
    });
    assert!(looked);
    bench.paths[2] = Path::Cut;
    assert_ne!(bench.run(&mut a, convert(X)), Outcome::Converted { complete: true });
}
