//! The rules for one drive as conversations: the answers of a drive, the next commands with their
//! times, and the events for the lock's owner.
//!
//! A conversation reads like this: `trylock X, @50 trylock X, granted` means that a TRYLOCK for an
//! exclusive lock was sent, another one 50 ms after the beginning, and that then the lock was
//! granted. They are in `rules.txt`, each under the answers that lead to it; a test that fails
//! prints the actual conversation.

mod bench;

use bench::*;
use core::fmt;
use core::time::Duration;
use idm_emulator::{Drive, DriveTime, Profile, profile::Limits};
use idm_engine::{
    Command, DriveRef, Event, Instant, Lock, Loss, Notice, Outcome, Refusal, Request, ValueRead,
};
use idm_protocol::{
    DriveCommand, Limit, Mode, Record, Reply, ResourceId, State, Status, ValueUpdate,
};
use std::collections::VecDeque;

/// Result of a command to drive 0.
#[derive(Clone, Copy)]
enum Answer {
    /// The drive carries it out and answers so.
    Acts,
    /// It is not carried out, and this is the answer.
    Says(Status),
    /// It is carried out, and this is the answer.
    ActsAndSays(Status),
    /// It has no answer yet, and is not carried out.
    Open,
    /// Its result is unknown, and it arrives later.
    Late,
}
use Answer::*;

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Acts => f.write_str("Good"),
            Says(status) => write!(f, "{status:?}"),
            ActsAndSays(status) => write!(f, "{status:?}*"),
            Open => f.write_str("nothing"),
            Late => f.write_str("late"),
        }
    }
}

/// A lock that talks to drive 0; the other drives carry out their commands.
struct Talk {
    bench: Bench,
    lock: Lock,
    start: Instant,
    last: Instant,
    words: Vec<String>,
    answers: VecDeque<Answer>,
    open: Vec<Command>,
    /// Records that drive 0 shows instead of its table.
    table: Option<Vec<Record>>,
}

fn letter(mode: Mode) -> char {
    match mode {
        Mode::Exclusive => 'X',
        Mode::Shared => 'S',
    }
}

fn said(command: &DriveCommand) -> String {
    let name = name_of(command);
    let DriveCommand::Mutex(_, record) = command else { return name.into() };
    let mut words = format!("{name} {}", letter(record.class.mode()));
    if record.value_update == ValueUpdate::Store {
        words += &format!("={}", record.value.get());
    }
    words
}

fn told(event: &Event) -> String {
    match event {
        Event::Done(outcome) => match outcome {
            Outcome::Converted { complete: true } => "changed".into(),
            Outcome::Granted(ValueRead::Unknown) => "granted".into(),
            Outcome::Granted(ValueRead::Known(value)) => format!("granted={}", value.get()),
            Outcome::Refused(Refusal::Held(others)) if others.is_empty() => "held unseen".into(),
            Outcome::Refused(Refusal::Held(_)) => "held".into(),
            Outcome::Refused(Refusal::NoQuorum { barred, .. }) if barred.is_empty() => {
                "no quorum".into()
            }
            Outcome::Refused(Refusal::NoQuorum { .. }) => "barred".into(),
            Outcome::Refused(Refusal::Full) => "full".into(),
            other => format!("{other:?}").to_lowercase(),
        },
        Event::Lost(Loss::Taken) => "lost".into(),
        Event::VotesReady { .. } => "votes ready".into(),
        Event::Notice(Notice::Broke { hosts, .. }) => format!("broke {}", hosts.len()),
        Event::Notice(Notice::TookOverOwn { .. }) => "took over".into(),
        Event::Notice(Notice::DriveLost { .. }) => "drive lost".into(),
        Event::Notice(Notice::DriveGained { .. }) => "drive gained".into(),
        Event::Notice(Notice::Collected { .. }) => "collected".into(),
        Event::Notice(Notice::NotIdm { .. }) => "no IDM".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

impl Talk {
    fn new(bench: Bench, lock: Lock) -> Talk {
        let (start, last) = (bench.now, bench.now);
        let (words, answers, open) = (Vec::new(), VecDeque::new(), Vec::new());
        Talk { bench, lock, start, last, words, answers, open, table: None }
    }

    /// Forgets the conversation so far; the times start again.
    fn listen(mut self) -> Talk {
        self.words.clear();
        (self.start, self.last) = (self.bench.now, self.bench.now);
        self
    }

    fn say(&mut self, words: String) {
        if self.bench.now != self.last {
            self.last = self.bench.now;
            self.words.push(format!("\n  @{} {words}", self.last.since(self.start).as_millis()));
        } else {
            let comma = if self.words.is_empty() { "\n  " } else { ", " };
            self.words.push(format!("{comma}{words}"));
        }
    }

    fn exchange(&mut self) {
        loop {
            while let Some(event) = self.lock.next_event() {
                self.say(told(&event));
            }
            let Some(command) = self.lock.next_command(self.bench.now) else { return };
            let talks = command.drive.0 == 0;
            if talks {
                self.say(said(&command.command));
            }
            let answer = if talks { self.answers.pop_front() } else { None };
            let path = match self.bench.paths[command.drive.0 as usize] {
                Path::Cut => Says(Status::Unreachable),
                Path::Deaf => ActsAndSays(Status::Uncertain),
                Path::Up => Acts,
                Path::Hung => Open,
            };
            let reply = match answer.unwrap_or(path) {
                Acts => match &self.table {
                    Some(table) if command.command == DriveCommand::ReadTable => {
                        Reply::Table(table.clone().into())
                    }
                    _ => self.bench.perform(&command),
                },
                Late => {
                    self.open.push(command.clone());
                    Reply::Status(Status::Uncertain)
                }
                Says(status) => Reply::Status(status),
                ActsAndSays(status) => {
                    self.bench.perform(&command);
                    Reply::Status(status)
                }
                Open => {
                    self.open.push(command);
                    continue;
                }
            };
            self.lock.on_reply(command.token, reply, self.bench.now);
        }
    }

    fn request(&mut self, request: Request) -> &mut Talk {
        self.lock.request(request, self.bench.now).expect("the request is in order");
        self.exchange();
        self
    }

    fn release(&mut self) -> &mut Talk {
        self.request(RELEASE)
    }

    fn convert(&mut self, mode: Mode) -> &mut Talk {
        self.request(Request::Convert { mode, value: None })
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) -> &mut Talk {
        let end = self.bench.now + time;
        loop {
            self.exchange();
            match self.lock.next_deadline() {
                Some(next) if next <= end => self.bench.now = self.bench.now.max(next),
                _ => break,
            }
            self.lock.on_timer(self.bench.now);
        }
        self.bench.now = end;
        self.lock.on_timer(end);
        self.exchange();
        self
    }

    /// Answers the oldest open command.
    fn close(&mut self, answer: Answer) -> &mut Talk {
        let command = self.open.remove(0);
        let reply = match answer {
            Says(status) => Reply::Status(status),
            ActsAndSays(status) => {
                self.bench.perform(&command);
                Reply::Status(status)
            }
            Acts | Open | Late => self.bench.perform(&command),
        };
        self.lock.on_reply(command.token, reply, self.bench.now);
        self.exchange();
        self
    }

    /// Lets the oldest late command arrive.
    fn arrive(&mut self) -> &mut Talk {
        let command = self.open.remove(0);
        self.bench.perform(&command);
        self
    }

    /// The drives after the lock has been taken and its host has died.
    fn settle(mut self) -> Bench {
        self.pass(SECOND);
        self.bench
    }

    /// The same, where it was about to move its votes to drives 0 and 1.
    fn settle_spread(mut self) -> Bench {
        self.pass(SECOND).spread();
        self.settle()
    }

    fn spread(&mut self) -> &mut Talk {
        let drives = self.bench.members(&[0, 1]);
        self.lock.spread(&drives, self.bench.now);
        self.exchange();
        self
    }

    /// Adds the lock's belief to the conversation.
    fn belief(&mut self) -> &mut Talk {
        let until = |at: Instant| match at.since(self.start).as_millis() {
            _ if at <= self.bench.now => "over".to_owned(),
            ms => format!("until @{ms}"),
        };
        let words = match (self.lock.mode(), self.lock.safe_until()) {
            (Some(mode), at) => {
                let on: Vec<_> =
                    self.lock.held_on().map(|(drive, _)| drive.0.to_string()).collect();
                let until = at.map_or("unsafe".into(), until);
                format!("[{} {until} on {}]", letter(mode), on.join(" "))
            }
            _ => "[none]".into(),
        };
        self.say(words);
        self
    }

    /// Lets time pass until the next refresh is due.
    fn until_refresh(mut self) -> Talk {
        self.exchange();
        self.bench.now = self.lock.next_deadline().expect("a refresh");
        self.lock.on_timer(self.bench.now);
        self.listen()
    }
}

/// A lock on some drives.
fn begin_on(bench: Bench, lock: Lock, mode: Mode, on: &[u32]) -> Talk {
    let (members, witnesses) = (bench.members(on), Vec::new());
    begin(bench, lock, Request::Acquire { mode, members, witnesses })
}

/// One host takes the lock on all drives and dies; `later` may be longer than its lease.
fn died(bench: &mut Bench, mut lock: Lock, mode: Mode, later: Duration) {
    let request = bench.acquire(mode);
    bench.run(&mut lock, request);
    bench.now = bench.now + later;
}

/// The conversations for each answer, equal ones only once.
fn conversations(talk: impl Fn(Answer) -> Talk) -> String {
    let mut told: Vec<(String, Vec<String>)> = Vec::new();
    let says = Status::FAILURES.iter().map(|&status| Says(status));
    let acts = DOUBTFUL.iter().map(|&status| ActsAndSays(status));
    for answer in [Acts].into_iter().chain(says).chain(acts) {
        let words = talk(answer).words.concat();
        match told.iter_mut().find(|(present, _)| *present == words) {
            Some((_, answers)) => answers.push(answer.to_string()),
            None => told.push((words, vec![answer.to_string()])),
        }
    }
    told.into_iter().map(|(words, answers)| format!("{}{words}\n", answers.join(", "))).collect()
}

/// The same with `before` for the first commands. The answer is for the next command, or for it and
/// all later ones.
fn answered(
    begin: impl Fn() -> Talk,
    before: &[Answer],
    times: usize,
    then: impl Fn(&mut Talk),
) -> String {
    conversations(|answer| {
        let mut talk = begin();
        talk.answers.extend(before);
        talk.answers.extend((0..times).map(|_| answer));
        then(&mut talk);
        talk
    })
}

/// Compares the conversations with those under `== name` in `rules.txt`.
fn check(name: &str, conversations: &str) {
    let head = format!("== {name}\n");
    let all = include_str!("rules.txt");
    let section = all.split_once(&head).map_or("", |(_, rest)| rest);
    let section = section.split_once("\n== ").map_or(section, |(section, _)| section);
    assert!(section.trim() == conversations.trim(), "{head}{conversations}");
}

/// Answers to a command that may have been carried out.
const DOUBTFUL: [Status; 3] = [Status::Terminated, Status::Failed, Status::Uncertain];

/// One drive, with a mutex that nobody held.
fn free(mode: Mode) -> Talk {
    let bench = Bench::new(1);
    let request = bench.acquire(mode);
    begin(bench, lv_lock(1), request)
}

fn begin(bench: Bench, lock: Lock, request: Request) -> Talk {
    let mut talk = Talk::new(bench, lock);
    talk.lock.request(request, talk.bench.now).expect("in order");
    talk
}

/// One drive, with a mutex that another host held until it died.
fn dead(theirs: Mode, mode: Mode) -> Talk {
    let mut bench = Bench::new(1);
    died(&mut bench, lv_lock(9), theirs, LEASE * 2);
    let request = bench.acquire(mode);
    begin(bench, lv_lock(1), request)
}

/// The lock of an earlier life of host 1, whose acquisitions have other numbers.
fn earlier(lock: Lock) -> Lock {
    with_config(lock, |config| config.host = host(1))
}

/// One drive, with a mutex that this host held in an earlier life.
fn own(theirs: Mode) -> Bench {
    let mut bench = Bench::new(1);
    died(&mut bench, earlier(lv_lock(9)), theirs, SECOND);
    bench
}

/// A lock that has been held on one drive for a short time.
fn held(mode: Mode) -> Talk {
    let mut talk = free(mode);
    talk.exchange();
    assert_eq!(talk.lock.mode(), Some(mode));
    talk
}

fn acquired_and_released(talk: &mut Talk) {
    talk.pass(SECOND * 5).belief().release().pass(LEASE * 3);
}

fn kept_and_released(talk: &mut Talk) {
    talk.pass(SECOND * 7).belief().release().pass(LEASE * 3);
}

/// Requests the lock again a short time after the release.
fn released_and_asked_for(talk: &mut Talk) {
    let request = talk.bench.acquire(X);
    talk.release().pass(SECOND).belief().request(request).pass(SECOND * 6).belief();
    talk.release().pass(LEASE * 3);
}

#[test]
fn trylock() {
    let told = answered(|| free(X), &[], 1, acquired_and_released);
    check("TRYLOCK", &told);
    let told = answered(|| free(X), &[], 9, acquired_and_released);
    check("TRYLOCK, again and again", &told);
    let told = answered(|| dead(X, X), &[Acts], 1, acquired_and_released);
    check("a look after TRYLOCK", &told);
    let told = answered(|| dead(X, X), &[Acts], 9, acquired_and_released);
    check("a look after TRYLOCK, again and again", &told);
}

#[test]
fn breaking() {
    let told = answered(|| dead(X, X), &[Acts, Acts], 1, acquired_and_released);
    check("BREAK", &told);
    let told = answered(|| dead(X, S), &[Acts, Acts], 1, acquired_and_released);
    check("BREAK, shared", &told);
    let told = answered(|| dead(X, X), &[Acts, Acts], 9, acquired_and_released);
    check("BREAK, again and again", &told);
}

#[test]
fn an_own_record() {
    for (ours, title) in [(X, "REFRESH of an own record"), (S, "REFRESH of an own shared record")] {
        let found = || {
            let bench = own(ours);
            let request = bench.acquire(X);
            begin(bench, lv_lock(1), request)
        };
        check(title, &answered(found, &[Acts, Acts], 1, acquired_and_released));
    }
}

#[test]
fn keeping() {
    for (mode, title) in [(X, "REFRESH"), (S, "REFRESH, shared")] {
        let keep = || held(mode).until_refresh();
        check(title, &answered(keep, &[], 1, kept_and_released));
        let title = format!("{title}, again and again");
        check(&title, &answered(keep, &[], 9, kept_and_released));
    }
}

#[test]
fn changing() {
    let up = |talk: &mut Talk| {
        talk.convert(X).pass(SECOND * 4).belief().release().pass(LEASE * 3);
    };
    check("a change to exclusive", &answered(|| held(S).listen(), &[], 1, up));
    check("a change to exclusive, again and again", &answered(|| held(S).listen(), &[], 9, up));
    let down = |talk: &mut Talk| {
        talk.convert(S).pass(SECOND).belief();
        if talk.lock.mode().is_some() {
            talk.convert(X).pass(SECOND).belief().pass(SECOND * 2).belief();
        }
        talk.release().pass(LEASE * 3);
    };
    check("a change to shared and back", &answered(|| held(X).listen(), &[], 1, down));
}

#[test]
fn releasing() {
    for (mode, title) in [(X, "UNLOCK"), (S, "UNLOCK, shared")] {
        let begin = || held(mode).listen();
        check(title, &answered(begin, &[], 1, released_and_asked_for));
        let title = format!("{title}, again and again");
        check(
            &title,
            &answered(begin, &[], 9, |talk| {
                talk.release().pass(LEASE * 3);
            }),
        );
    }
    let begin = || held(X).listen();
    check("DESTROY", &answered(begin, &[Acts], 1, released_and_asked_for));
    check(
        "DESTROY, again and again",
        &answered(begin, &[Acts], 9, |talk| {
            talk.release().pass(LEASE * 3);
        }),
    );
}

#[test]
fn releasing_a_value() {
    let store = |talk: &mut Talk| {
        talk.request(Request::Release { value: Some(value(7)) }).pass(LEASE * 3);
        let request = talk.bench.acquire(X);
        let outcome = talk.bench.run(&mut vg_lock(2), request);
        talk.say(format!("then: {}", told(&Event::Done(outcome))));
    };
    for (mode, title) in [(X, "UNLOCK with a value"), (S, "UNLOCK with a value, once shared")] {
        let begin = || {
            let bench = Bench::new(1);
            let request = bench.acquire(mode);
            let mut talk = begin(bench, vg_lock(1), request);
            talk.exchange();
            if mode == S {
                talk.convert(X).pass(SECOND);
                talk.request(Request::Convert { mode: S, value: Some(value(6)) }).pass(SECOND);
            }
            talk.listen()
        };
        check(title, &answered(begin, &[], 1, store));
        let title = format!("{title}, again and again");
        check(&title, &answered(begin, &[], 9, store));
    }
}

#[test]
fn adopting() {
    for (mode, title) in [(X, "adoption"), (S, "adoption, shared")] {
        let found = || {
            let bench = own(mode);
            let safe_until = Some(bench.now + LEASE / 2);
            let (members, witnesses) = (bench.all(), Vec::new());
            let request = Request::Adopt { mode, safe_until, granted: true, members, witnesses };
            begin(bench, lv_lock(1), request)
        };
        check(title, &answered(found, &[], 1, acquired_and_released));
        let title = format!("{title}, REFRESH");
        check(&title, &answered(found, &[Acts], 1, acquired_and_released));
        let title = format!("{title}, again and again");
        check(&title, &answered(found, &[Acts], 9, acquired_and_released));
    }
}

/// The lock is given back while a command has no answer yet; the answer comes a second later.
#[test]
fn releasing_while_a_command_is_open() {
    type Begin = fn() -> Talk;
    let cases: [(&str, Begin, &[Answer]); 5] = [
        ("release during TRYLOCK", || free(X), &[Open]),
        ("release during BREAK", || dead(X, X), &[Acts, Acts, Open]),
        ("release during REFRESH", || held(X).until_refresh(), &[Open]),
        ("release during a look", || dead(X, X), &[Acts, Open]),
        (
            "release during a change",
            || {
                let mut talk = held(S).listen();
                talk.lock
                    .request(Request::Convert { mode: X, value: None }, talk.bench.now)
                    .unwrap();
                talk
            },
            &[Open],
        ),
    ];
    for (title, begin, before) in cases {
        let told = conversations(|answer| {
            let mut talk = begin();
            talk.answers.extend(before);
            talk.pass(SECOND * 6).release().pass(SECOND).close(answer).pass(LEASE * 3);
            talk
        });
        check(title, &told);
    }
}

/// One drive that has room for `mutexes` mutexes.
fn small(mutexes: usize) -> Bench {
    let mut profile = Profile::current();
    profile.limits = Limits { mutexes, ..profile.limits };
    Bench::with(1, profile)
}

/// Host 9 takes the lock and gives it back, but leaves the mutex behind.
fn leave_behind(bench: &mut Bench, mut lock: Lock) {
    let request = bench.acquire(X);
    assert_eq!(bench.run(&mut lock, request), GRANTED);
    lock.request(RELEASE, bench.now).expect("always in order");
    let unlock = lock.next_command(bench.now).expect("an UNLOCK");
    bench.perform(&unlock);
}

#[test]
fn making_room() {
    let full = || {
        let mut bench = small(1);
        leave_behind(&mut bench, other_lv_lock(9));
        let request = bench.acquire(X);
        begin(bench, lv_lock(1), request)
    };
    let steps: [(&str, &[Answer]); 4] = [
        ("a look for room", &[Acts]),
        ("TRYLOCK for room", &[Acts, Acts]),
        ("UNLOCK for room", &[Acts, Acts, Acts]),
        ("DESTROY for room", &[Acts, Acts, Acts, Acts]),
    ];
    for (title, before) in steps {
        check(title, &answered(full, before, 1, acquired_and_released));
    }
    // The host dies while it removes the mutex; the next one has to break its lock.
    let half = || {
        let mut bench = small(1);
        leave_behind(&mut bench, other_lv_lock(9));
        let request = bench.acquire(X);
        let mut talk = begin(bench, lv_lock(8), request.clone());
        talk.answers.extend([Acts, Acts, Acts, Open]);
        talk.exchange();
        let mut bench = talk.bench;
        bench.now = bench.now + SECOND * 2;
        begin(bench, lv_lock(1), request)
    };
    check("BREAK for room", &answered(half, &[Acts, Acts], 1, acquired_and_released));
}

/// Only LV mutexes that nobody holds are removed.
#[test]
fn what_is_not_removed_to_make_room() {
    type Occupy = fn(&mut Bench);
    let cases: [(&str, bool, Occupy); 7] = [
        ("an LV that another host is about to remove", false, |bench| {
            leave_behind(bench, other_lv_lock(9));
            let request = bench.acquire(X);
            let mut other = lv_lock(8);
            other.request(request, bench.now).expect("in order");
            for _ in 0..3 {
                let command = other.next_command(bench.now).expect("TRYLOCK, read, TRYLOCK");
                let reply = bench.perform(&command);
                other.on_reply(command.token, reply, bench.now);
            }
        }),
        ("an unlocked LV", true, |bench| leave_behind(bench, other_lv_lock(9))),
        ("a held LV", false, |bench| died(bench, other_lv_lock(9), X, SECOND)),
        ("a shared LV", false, |bench| died(bench, other_lv_lock(9), S, SECOND)),
        ("a timed-out LV", false, |bench| died(bench, other_lv_lock(9), X, LEASE * 2)),
        ("an unlocked VG", false, |bench| leave_behind(bench, vg_lock(9))),
        ("an LV that one of two sharers left", false, |bench| {
            let mut left = other_lv_lock(8);
            let request = bench.acquire(S);
            bench.run(&mut left, request);
            died(bench, other_lv_lock(9), S, SECOND);
            left.request(RELEASE, bench.now).expect("always in order");
            let unlock = left.next_command(bench.now).expect("an UNLOCK");
            bench.perform(&unlock);
        }),
    ];
    for (what, removed, occupy) in cases {
        for other in [false, true] {
            // Another mutex, which is in use, may be there as well.
            let mut bench = small(if other { 2 } else { 1 });
            if other {
                died(&mut bench, lock(7, ResourceId::GLOBAL, true), X, SECOND);
            }
            occupy(&mut bench);
            let before = bench.states(0);
            bench.log.clear();
            let request = bench.acquire(X);
            let outcome = bench.run(&mut lv_lock(1), request);
            let expected = if removed { GRANTED } else { Outcome::Refused(Refusal::Full) };
            assert_eq!(outcome, expected, "{what}");
            assert!(removed || bench.states(0) == before, "{what}");
            let tries = bench.log.iter().filter(|(_, name)| *name != "read").count();
            assert_eq!(tries > 1, removed, "{what}: {:?}", bench.log);
        }
    }
}

/// A lock on the first `members` drives, whose conversation with drive 0 is recorded; the others
/// are witnesses.
fn vote(bench: Bench, lock: Lock, mode: Mode, members: u32) -> Talk {
    let all = bench.drives.len() as u32;
    let named = |from, to| bench.members(&(from..to).collect::<Vec<_>>());
    let (members, witnesses) = (named(0, members), named(members, all));
    begin(bench, lock, Request::Acquire { mode, members, witnesses })
}

/// Three members; with two witnesses, or without.
fn three(mode: Mode, witnesses: usize) -> Talk {
    vote(Bench::new(3 + witnesses), lv_lock(1), mode, 3)
}

fn settled(mut talk: Talk) -> Talk {
    talk.pass(SECOND);
    assert!(talk.lock.mode().is_some());
    talk.listen()
}

#[test]
fn changing_where_others_may_count_other_drives() {
    let up = |talk: &mut Talk| {
        if talk.lock.mode().is_none() {
            return;
        }
        talk.convert(X).pass(SECOND).belief();
        talk.bench.now = talk.bench.now + SECOND * 5;
        talk.lock.on_timer(talk.bench.now);
        talk.exchange();
        talk.belief();
    };
    let there = || settled(three(S, 2));
    check("a change to exclusive on three drives", &answered(there, &[], 1, up));
    check("a change to exclusive on three drives, again and again", &answered(there, &[], 9, up));
    // A TRYLOCK or BREAK left a record that may be shared.
    for times in [1, 9] {
        let title = format!("a change to exclusive after {times} TRYLOCKs");
        let told = answered(
            || three(S, 2),
            &[],
            times,
            |talk| {
                talk.pass(SECOND * 2).belief();
                up(talk);
            },
        );
        check(&title, &told);
    }
    let broken = || {
        let mut bench = Bench::new(5);
        died(&mut bench, lv_lock(9), X, LEASE * 2);
        vote(bench, lv_lock(1), S, 3)
    };
    for times in [1, 9] {
        let title = format!("a change to exclusive after {times} BREAKs");
        let told = answered(broken, &[Acts, Acts], times, |talk| {
            talk.pass(SECOND * 2).belief();
            up(talk);
        });
        check(&title, &told);
    }
}

#[test]
fn changing_back_and_forth() {
    let back = |talk: &mut Talk| {
        talk.convert(S).pass(SECOND).belief();
        if talk.lock.mode().is_some() {
            talk.convert(X).pass(SECOND).belief().pass(SECOND * 2).belief();
        }
    };
    for witnesses in [0, 2] {
        for times in [1, 2, 9] {
            let there = || settled(three(X, witnesses));
            let title = format!("{times} changes to shared and back beside {witnesses} witnesses");
            check(&title, &answered(there, &[], times, back));
        }
    }
    // Drive 0 decides, at once or later.
    for later in [Duration::ZERO, SECOND] {
        let there = || settled(three(X, 0));
        let told = answered(there, &[], 1, |talk| {
            talk.convert(S).pass(later);
            talk.bench.paths[1] = Path::Cut;
            talk.convert(X).pass(SECOND * 2).belief();
        });
        let ms = later.as_millis();
        check(&format!("a change back after {ms} ms where drive 0 decides"), &told);
    }
}

/// The lock is granted before drive 0 has answered.
#[test]
fn stragglers() {
    type Then = fn(&mut Talk);
    let cases: [(&str, Then); 4] = [
        ("and the lock is kept", |_| {}),
        ("and the lock is changed", |talk| {
            talk.convert(S).pass(SECOND);
        }),
        ("and the lock is released", |talk| {
            talk.release();
        }),
        ("and the lock is released with a value", |talk| {
            talk.request(Request::Release { value: Some(value(7)) });
        }),
    ];
    for (what, then) in cases {
        for (first, before) in [
            ("TRYLOCK", &[Acts, Open][..]),
            ("BREAK", &[Acts, Open]),
            ("BREAK on one drive", &[Acts, Open]),
        ] {
            let told = conversations(|answer| {
                let mut bench = Bench::new(3);
                match first {
                    "BREAK" => died(&mut bench, vg_lock(9), X, LEASE * 2),
                    "TRYLOCK" => {}
                    _ => {
                        bench = begin_on(bench, vg_lock(9), X, &[0]).settle();
                        bench.now = bench.now + LEASE * 2;
                    }
                }
                let mut talk = vote(bench, vg_lock(1), X, 3);
                talk.answers.extend(before);
                talk.pass(SECOND * 2).belief();
                then(&mut talk);
                talk.pass(SECOND).close(answer).pass(SECOND).belief();
                if talk.lock.mode().is_none() {
                    talk.pass(LEASE * 3);
                }
                talk
            });
            check(&format!("{first} is answered late {what}"), &told);
        }
    }
}

#[test]
fn taking_a_lock_with_a_value() {
    let after = |talk: &mut Talk| {
        talk.pass(SECOND * 5).belief();
        talk.request(Request::Release { value: Some(value(7)) }).pass(LEASE * 3);
    };
    let without = |talk: &mut Talk| {
        talk.pass(SECOND * 5).belief().release().pass(LEASE * 3);
    };
    let left = |theirs: Option<u8>| {
        move || {
            let mut bench = Bench::new(1);
            let request = bench.acquire(X);
            let mut first = vg_lock(9);
            bench.run(&mut first, request.clone());
            bench.run(&mut first, Request::Release { value: Some(value(5)) });
            bench.pass(&mut first, SECOND);
            if let Some(theirs) = theirs {
                let (lock, later) = match theirs {
                    1 => (earlier(vg_lock(9)), SECOND),
                    _ => (vg_lock(theirs), LEASE * 2),
                };
                died(&mut bench, lock, X, later);
            }
            begin(bench, vg_lock(1), request)
        }
    };
    for (what, theirs) in [("free", None), ("dead", Some(8)), ("own", Some(1))] {
        for before in 0..3 {
            let acts = vec![Acts; before];
            let title = format!("a {what} mutex with a value after {before} commands");
            check(&title, &answered(left(theirs), &acts, 1, after));
            let title = format!("{title}, which stays");
            check(&title, &answered(left(theirs), &acts, 1, without));
        }
    }
}

/// The holders of a mutex, and the answer to a host that requests it.
#[test]
fn who_is_in_the_way() {
    let mut told = String::new();
    let holders = |dead: &[Mode], live: &[Mode], profile: Profile| {
        let mut bench = Bench::with(1, profile);
        for (at, &mode) in dead.iter().enumerate() {
            died(&mut bench, lv_lock(20 + at as u8), mode, Duration::ZERO);
        }
        bench.now = bench.now + LEASE * 2;
        for (at, &mode) in live.iter().enumerate() {
            died(&mut bench, lv_lock(30 + at as u8), mode, Duration::ZERO);
        }
        bench.now = bench.now + SECOND;
        bench
    };
    let lonely = Profile { sharers_admitted: false, ..Profile::current() };
    let cases: [(&str, &[Mode], &[Mode], Profile); 8] = [
        ("nobody", &[], &[], Profile::current()),
        ("a dead one", &[X], &[], Profile::current()),
        ("a dead sharer", &[S], &[], Profile::current()),
        ("a sharer", &[], &[S], Profile::current()),
        ("one", &[], &[X], Profile::current()),
        ("a sharer and a dead one", &[S], &[S], Profile::current()),
        ("a sharer where only one is admitted", &[], &[S], lonely),
        ("a dead sharer where only one is admitted", &[S], &[], lonely),
    ];
    for (who, dead, live, profile) in cases {
        for mode in [X, S] {
            for witness in [false, true] {
                let mut bench = holders(dead, live, profile);
                if witness {
                    bench.drives.push(Drive::new(Profile::current()));
                    bench.paths.push(Path::Up);
                }
                let drives: Vec<u32> = (0..bench.drives.len() as u32).collect();
                let (witnesses, members) = drives.split_at(drives.len() - 1);
                let request = Request::Acquire {
                    mode,
                    members: bench.members(members),
                    witnesses: bench.members(witnesses),
                };
                let mut talk = begin(bench, lv_lock(1), request);
                talk.pass(SECOND * 2).belief().release().pass(LEASE * 3);
                let place = if witness { "on a witness " } else { "" };
                let asked = letter(mode);
                told += &format!("{who} {place}and {asked} is asked for{}\n", talk.words.concat());
            }
        }
    }
    check("who is in the way", &told);
}

/// Answers of a witness.
#[test]
fn witnesses() {
    let watched = |dead: bool| {
        move || {
            let mut bench = Bench::new(2);
            if dead {
                let (members, witnesses) = (bench.members(&[0]), Vec::new());
                bench.run(&mut lv_lock(9), Request::Acquire { mode: X, members, witnesses });
                bench.now = bench.now + LEASE * 2;
            }
            let (members, witnesses) = (bench.members(&[1]), bench.members(&[0]));
            begin(bench, lv_lock(1), Request::Acquire { mode: X, members, witnesses })
        }
    };
    for (title, dead, before) in
        [("a look at a witness", false, &[][..]), ("BREAK on a witness", true, &[Acts])]
    {
        for times in [1, 9] {
            let told = answered(watched(dead), before, times, acquired_and_released);
            check(&format!("{title}, {times} times"), &told);
        }
    }
}

/// The votes are to move from drive 0 to drives 0 and 1.
#[test]
fn moving_votes() {
    let move_votes = |talk: &mut Talk| {
        let moved = talk.lock.move_votes(&[DriveRef(0), DriveRef(1)], talk.bench.now);
        talk.say(if moved { "moved".into() } else { "not moved".into() });
        talk.pass(SECOND).belief();
    };
    for stores in [true, false] {
        let profile = Profile { refresh_stores_metadata: stores, ..Profile::current() };
        let on_one = || settled(vote(Bench::with(2, profile), lv_lock(1), X, 1));
        let kind = if stores { "" } else { ", which REFRESH does not mark" };
        for before in 0..2 {
            let title = format!("command {before} of a move{kind}");
            let acts = vec![Acts; before];
            let told = answered(on_one, &acts, 1, |talk| {
                talk.spread();
                talk.pass(SECOND * 20);
                move_votes(talk);
            });
            check(&title, &told);
        }
        // An earlier REFRESH, which would remove the mark.
        let on_one = || vote(Bench::with(2, profile), lv_lock(1), X, 1);
        let kept = || {
            let mut talk = on_one();
            talk.exchange();
            talk.until_refresh()
        };
        let told = answered(kept, &[], 1, |talk| {
            talk.exchange();
            talk.spread();
            talk.pass(SECOND * 20);
            move_votes(talk);
        });
        check(&format!("REFRESH before a move{kind}"), &told);
        let told = conversations(|answer| {
            let mut talk = kept();
            talk.answers.push_back(Open);
            talk.exchange();
            talk.spread();
            talk.pass(SECOND).close(answer).pass(SECOND * 20);
            move_votes(&mut talk);
            talk
        });
        check(&format!("REFRESH during a move{kind}"), &told);
    }
}

/// An earlier life of this host, or this one, may still reach the drives.
fn with_times(lock: Lock, undoes: Instant, writes: Instant) -> Lock {
    with_config(lock, |config| {
        (config.earlier_until, config.earlier_writes_until) = (undoes, writes);
    })
}

#[test]
fn a_new_life_while_commands_of_the_old_one_are_under_way() {
    for (undoes, writes) in [(2, 0), (0, 2), (8, 8)] {
        let life = |bench: &Bench| {
            let at = |seconds| bench.now + SECOND * seconds;
            with_times(lv_lock(1), at(undoes), at(writes))
        };
        for on in [&[0][..], &[0, 1]] {
            let left = || {
                let mut bench = Bench::new(2);
                let members = bench.members(on);
                let request = Request::Acquire { mode: X, members, witnesses: Vec::new() };
                bench.run(&mut earlier(lv_lock(9)), request);
                bench.now = bench.now + SECOND;
                bench
            };
            let then = |talk: &mut Talk| {
                talk.pass(SECOND * 4).belief().pass(SECOND * 2).belief();
            };
            let adopted = || {
                let bench = left();
                let (members, witnesses) = (bench.members(&[0]), Vec::new());
                let safe_until = Some(bench.now + LEASE / 2);
                let lock = life(&bench);
                begin(
                    bench,
                    lock,
                    Request::Adopt { mode: X, safe_until, granted: true, members, witnesses },
                )
            };
            let acquired = || {
                let bench = left();
                let lock = life(&bench);
                begin_on(bench, lock, X, &[0])
            };
            let when = format!("{undoes} s, {writes} s, once on {} drives", on.len());
            check(&format!("adoption within {when}"), &answered(adopted, &[Acts], 1, then));
            check(&format!("TRYLOCK within {when}"), &answered(acquired, &[], 1, then));
        }
    }
}

/// Our own record is from a time when other drives were counted.
#[test]
fn a_record_of_another_set() {
    for stores in [true, false] {
        for (theirs, mode) in [(X, X), (X, S), (S, X), (S, S)] {
            let found = || {
                let profile = Profile { refresh_stores_metadata: stores, ..Profile::current() };
                let mut bench = Bench::with(2, profile);
                died(&mut bench, earlier(lv_lock(9)), theirs, SECOND);
                let (members, witnesses) = (bench.members(&[0]), Vec::new());
                begin(bench, lv_lock(1), Request::Acquire { mode, members, witnesses })
            };
            for before in 2..6 {
                let acts = vec![Acts; before];
                let told = answered(found, &acts, 1, acquired_and_released);
                let kind = if stores { "" } else { ", which REFRESH does not mark" };
                let (from, to) = (letter(theirs), letter(mode));
                check(&format!("{before} commands of a {from} record to {to}{kind}"), &told);
            }
        }
    }
}

/// A TRYLOCK with an unknown result that a table did not show.
#[test]
fn strays() {
    let unseen = [Acts, Says(Status::Uncertain), Says(Status::Conflict)];
    let told = answered(
        || vote(Bench::new(3), vg_lock(1), X, 3),
        &unseen,
        1,
        |talk| {
            talk.pass(SECOND * 3).belief();
            talk.request(Request::Release { value: Some(value(7)) }).pass(LEASE * 3);
        },
    );
    check("a stray TRYLOCK at a release", &told);
    let told = answered(
        || free(X),
        &unseen[1..],
        1,
        |talk| {
            talk.pass(SECOND * 6).belief().release().pass(LEASE * 3);
        },
    );
    check("a stray TRYLOCK and a refusal", &told);
    let told = answered(
        || free(X),
        &unseen[1..],
        1,
        |talk| {
            talk.pass(SECOND * 20).belief().release().pass(LEASE * 3);
        },
    );
    check("a TRYLOCK that has strayed long ago", &told);
    let told = answered(
        || three(S, 2),
        &unseen[1..],
        1,
        |talk| {
            talk.pass(SECOND * 3).belief();
            if talk.lock.mode().is_some() {
                talk.bench.paths[1] = Path::Cut;
                talk.convert(X).pass(SECOND).belief();
            }
        },
    );
    check("a stray TRYLOCK and a change", &told);
}

/// No command to drive 0 after a release arrives any more.
#[test]
fn a_drive_that_falls_silent() {
    type Begin = fn() -> Talk;
    let cases: [(&str, Begin, &[Answer]); 3] = [
        ("TRYLOCK", || free(X), &[Open]),
        ("BREAK", || dead(X, X), &[Acts, Acts, Open]),
        ("REFRESH", || held(X).until_refresh(), &[Open]),
    ];
    for (what, begin, before) in cases {
        let told = conversations(|answer| {
            let mut talk = begin();
            talk.answers.extend(before);
            talk.answers.extend([Says(Status::Unreachable); 20]);
            talk.pass(SECOND * 6).release().pass(SECOND * 8).close(answer);
            talk.pass(LEASE * 3);
            talk
        });
        check(&format!("silence after {what}"), &told);
    }
}

/// A conflict stands until the drive says that the mutex is ours.
#[test]
fn a_conflict_that_is_over() {
    let away = [Says(Status::Unreachable); 3];
    let contested = [Says(Status::Conflict), Says(Status::Unreachable)];
    for (what, theirs, before) in [
        ("TRYLOCK", false, [&away[..], &contested].concat()),
        ("BREAK", true, [&away[..], &[Acts, Acts], &contested].concat()),
    ] {
        let begin = || {
            let mut bench = Bench::new(3);
            if theirs {
                let (members, witnesses) = (bench.members(&[0]), Vec::new());
                bench.run(&mut lv_lock(9), Request::Acquire { mode: X, members, witnesses });
                bench.now = bench.now + LEASE * 2;
            }
            vote(bench, lv_lock(1), S, 3)
        };
        let told = answered(begin, &before, 1, |talk| {
            talk.pass(SECOND * 50).belief().convert(X).pass(SECOND).belief();
        });
        check(&format!("a conflict before {what}"), &told);
    }
}

/// A host that holds a mutex to remove it does not go away.
#[test]
fn a_removal_that_does_not_end() {
    let mut bench = small(1);
    leave_behind(&mut bench, lv_lock(9));
    let request = bench.acquire(X);
    let mut other = begin(bench, other_lv_lock(8), request.clone());
    other.answers.extend([Acts, Acts, Open]);
    other.exchange();
    let mut command = other.open.remove(0);
    let mut bench = other.bench;
    let DriveCommand::Mutex(_, record) = &mut command.command else { panic!("no TRYLOCK") };
    record.countdown_ms = 60_000;
    bench.perform(&command);
    let mut talk = begin(bench, lv_lock(1), request);
    talk.pass(SECOND * 6);
    check("a removal that does not end", &format!("{}\n", talk.words.concat()));
}

/// An exclusive record of this host on a witness becomes shared with the one on the member.
#[test]
fn what_is_exclusive_on_a_witness_becomes_shared() {
    for theirs in [X, S] {
        let mut bench = Bench::new(2);
        for (drive, mode) in [(0, theirs), (1, S)] {
            let (members, witnesses) = (bench.members(&[drive]), Vec::new());
            let request = Request::Acquire { mode, members, witnesses };
            assert_eq!(bench.run(&mut earlier(lv_lock(9)), request), GRANTED);
        }
        let (members, witnesses) = (bench.members(&[1]), bench.members(&[0]));
        let safe_until = Some(bench.now + LEASE / 2);
        let request = Request::Adopt { mode: S, safe_until, granted: true, members, witnesses };
        let mut talk = begin(bench, lv_lock(1), request);
        talk.pass(SECOND * 6).belief();
        check(&format!("{} on a witness", letter(theirs)), &talk.words.concat());
    }
}

/// A drive that had the lock in a weaker mode when the lease ran out proves nothing afterwards.
#[test]
fn a_lease_that_ran_out() {
    for gap in [true, false] {
        let mut talk = settled(three(S, 0));
        // Drive 0 receives the change, or it does not.
        let deaf = if gap { 1000 } else { 0 };
        talk.answers.extend((0..deaf).map(|_| Says(Status::Unreachable)));
        talk.convert(X).pass(SECOND);
        assert_eq!(talk.lock.mode(), Some(X));
        talk.bench.paths = vec![Path::Cut; 3];
        talk.pass(LEASE * 2);
        assert!(talk.lock.safe_until() < Some(talk.bench.now));
        talk.answers.clear();
        talk.bench.paths = vec![Path::Up, Path::Up, Path::Cut];
        talk.pass(LEASE);
        let regained = talk.lock.safe_until() > Some(talk.bench.now);
        assert_eq!(regained, !gap, "{}", talk.words.concat());
    }
}

/// A drive that did not take a lock is being asked in a mode that is not wanted any more.
#[test]
fn a_change_that_is_refused_while_a_drive_is_asked() {
    let told = conversations(|answer| {
        let mut talk = three(S, 0);
        talk.answers.extend([Says(Status::Unreachable); 3]);
        talk.pass(SECOND);
        let mut other = begin_on(talk.bench, lv_lock(2), S, &[1, 2]);
        other.exchange();
        talk.bench = other.bench;
        let mut talk = talk.listen();
        talk.answers.push_back(Open);
        talk.convert(X).pass(SECOND).close(answer).pass(SECOND).belief();
        talk.pass(SECOND * 20).belief();
        talk
    });
    check("a change that is refused while a drive is asked", &told);
}

#[test]
fn strays_that_are_taken_anew() {
    let unseen = [Says(Status::Uncertain), Says(Status::Conflict), Acts];
    let told = answered(
        || three(S, 2),
        &unseen,
        9,
        |talk| {
            talk.pass(SECOND * 3).belief().convert(X).pass(SECOND).belief();
        },
    );
    check("a stray TRYLOCK, again and again, and a change", &told);
    // The dead holder's value may come back by a BREAK that arrives late.
    for theirs in [None, Some(0)] {
        let begin = || {
            let mut bench = Bench::new(3);
            if theirs.is_some() {
                bench = begin_on(bench, vg_lock(9), X, &[0]).settle();
                bench.now = bench.now + LEASE * 2;
            }
            vote(bench, vg_lock(1), X, 3)
        };
        let mut told = String::new();
        for value in [None, Some(value(7))] {
            let mut talk = begin();
            talk.answers.extend([Acts, Late]);
            talk.answers.extend([Says(Status::Unreachable); 2]);
            talk.pass(SECOND * 2).request(Request::Release { value }).pass(SECOND * 5);
            talk.arrive().pass(LEASE * 3);
            told += &format!("{value:?}{}\n", talk.words.concat());
        }
        let what = if theirs.is_some() { "BREAK" } else { "TRYLOCK" };
        check(&format!("a stray {what} that arrives after the release"), &told);
    }
}

#[test]
fn releasing_in_other_ways() {
    // After nonsensical answers.
    let fresh = || held(X).listen();
    let told = answered(fresh, &[Says(Status::Failed)], 6, |talk| {
        talk.release().pass(LEASE * 3);
    });
    check("UNLOCK after an error", &told);
    // A TRYLOCK or a REFRESH comes before.
    let store = |talk: &mut Talk| {
        talk.pass(SECOND * 17);
        talk.request(Request::Release { value: Some(value(7)) }).pass(LEASE * 3);
    };
    let told = answered(|| vote(Bench::new(3), vg_lock(1), X, 3), &[Acts], 9, store);
    check("a release with a value after TRYLOCKs", &told);
    let told = conversations(|answer| {
        let bench = Bench::new(1);
        let request = bench.acquire(X);
        let mut talk = begin(bench, vg_lock(1), request);
        talk.exchange();
        let mut talk = talk.until_refresh();
        talk.answers.push_back(Open);
        talk.exchange();
        talk.request(Request::Release { value: Some(value(7)) });
        talk.pass(SECOND).close(answer).pass(LEASE * 3);
        talk
    });
    check("a release with a value during REFRESH", &told);
}

#[test]
fn releasing_a_value_that_was_shared() {
    // An UNLOCK comes after a promotion.
    let shared = || {
        let bench = Bench::new(1);
        let request = bench.acquire(X);
        let mut talk = begin(bench, vg_lock(1), request);
        talk.exchange();
        talk.request(Request::Convert { mode: S, value: Some(value(6)) }).pass(SECOND);
        talk.listen()
    };
    let told = answered(shared, &[Acts], 3, |talk| {
        talk.release().pass(LEASE * 3);
    });
    check("UNLOCK with a value after a promotion", &told);
    // A dead holder's value, which a sharer of the lock erases.
    let dead = || {
        let mut bench = Bench::new(1);
        died(&mut bench, vg_lock(9), X, LEASE * 2);
        let request = bench.acquire(S);
        begin(bench, vg_lock(1), request)
    };
    let told = answered(dead, &[Acts, Acts, Acts], 1, acquired_and_released);
    check("a value that a sharer erases", &told);
}

/// The set of drives in a TRYLOCK that may still arrive.
#[test]
fn another_set_after_a_command_of_unknown_fate() {
    for (what, theirs, before) in [("TRYLOCK", false, &[][..]), ("BREAK", true, &[Acts, Acts])] {
        for other in [&[0][..], &[0, 1]] {
            let begin = || {
                let mut bench = Bench::new(2);
                if theirs {
                    bench = begin_on(bench, lv_lock(9), X, &[0]).settle();
                    bench.now = bench.now + LEASE * 2;
                }
                begin_on(bench, lv_lock(1), X, &[0])
            };
            let told = answered(begin, before, 1, |talk| {
                talk.pass(SECOND).release().pass(SECOND);
                let members = talk.bench.members(other);
                let request = Request::Acquire { mode: X, members, witnesses: Vec::new() };
                talk.request(request).pass(SECOND * 6).belief();
            });
            check(&format!("{what}, then {} drives", other.len()), &told);
        }
    }
}

#[test]
fn a_new_life_of_a_lock_with_a_value() {
    for theirs in [1, 8] {
        let found = || {
            let mut bench = Bench::new(1);
            let (lock, later) = match theirs {
                1 => (earlier(vg_lock(9)), SECOND),
                _ => (vg_lock(theirs), LEASE * 2),
            };
            died(&mut bench, lock, X, later);
            let until = bench.now + SECOND * 2;
            let request = bench.acquire(X);
            begin(bench, with_times(vg_lock(1), until, until), request)
        };
        let told = answered(found, &[Acts], 1, acquired_and_released);
        let whose = if theirs == 1 { "an own" } else { "a dead" };
        check(&format!("a new life that finds {whose} record"), &told);
    }
}

/// A record that was marked for a move that did not take place, and an open REFRESH of it, which
/// does not remove the mark.
#[test]
fn a_mark_that_an_adoption_found_stays() {
    let told = conversations(|answer| {
        let mut bench = begin_on(Bench::new(2), lv_lock(1), X, &[0]).settle_spread();
        bench.now = bench.now + SECOND;
        let (members, witnesses) = (bench.members(&[0]), Vec::new());
        let safe_until = Some(bench.now + LEASE / 2);
        let request = Request::Adopt { mode: X, safe_until, granted: true, members, witnesses };
        let mut talk = begin(bench, earlier(lv_lock(9)), request);
        talk.exchange();
        let mut talk = talk.until_refresh();
        talk.answers.push_back(Open);
        talk.exchange();
        talk.spread();
        talk.pass(SECOND).close(answer).pass(SECOND * 3);
        talk
    });
    check("a move while a REFRESH of a marked record is open", &told);
}

#[test]
fn a_change_on_a_drive_that_was_reset() {
    let reset = || {
        let mut talk = held(S).listen();
        talk.bench.drives[0].reset();
        talk
    };
    let told = answered(reset, &[], 1, |talk| {
        talk.convert(X).pass(SECOND * 6).belief();
    });
    check("a change on a drive that was reset", &told);
}

/// A drive whose answers repeat in a circle is given up.
#[test]
fn circles() {
    let mut talk = dead(X, X);
    for _ in 0..9 {
        talk.answers.extend([Acts, Acts, Says(Status::NotFound)]);
    }
    talk.pass(SECOND * 6);
    check("a drive in circles", &talk.words.concat());
}

/// The request, the first answers of drive 0, and the table that it shows then.
type Shown<'a> = (&'a str, Lock, Mode, &'a [Answer], Vec<Record>);

/// Records that no emulated drive shows together.
#[test]
fn tables() {
    let record = |lock: Lock, mode: Mode, state: State| {
        let mut bench = Bench::new(1);
        died(&mut bench, lock, mode, Duration::ZERO);
        let time = DriveTime::from_micros(bench.now.as_micros());
        Record { state, ..bench.drives[0].table(time).remove(0) }
    };
    let full = Says(Status::Full(Limit::Mutexes));
    let conflict = Says(Status::Conflict);
    let (locked, unlocked, dead) = (State::Locked, State::Unlocked, State::TimedOut);
    let end =
        Record { state: State::EndOfTable, ..record(lock(9, ResourceId::GLOBAL, true), X, locked) };
    let global = || lock(1, ResourceId::GLOBAL, true);
    let older = Record { metadata: [0; 64], ..record(vg_lock(1), X, locked) };
    let cases: [Shown<'_>; 8] = [
        (
            "a dead one beside a sharer, wanted shared",
            lv_lock(1),
            S,
            &[conflict],
            vec![record(lv_lock(8), X, dead), record(lv_lock(9), S, locked)],
        ),
        (
            "an LV that one has left and another uses",
            lv_lock(1),
            X,
            &[full],
            vec![record(other_lv_lock(8), X, unlocked), record(other_lv_lock(9), X, locked)],
        ),
        (
            "an LV that one has left and another was using",
            lv_lock(1),
            X,
            &[full],
            vec![record(other_lv_lock(9), X, dead), record(other_lv_lock(8), X, unlocked)],
        ),
        (
            "an LV that nobody uses, beside one in use",
            lv_lock(1),
            X,
            &[full],
            vec![record(other_lv_lock(8), X, unlocked), record(vg_lock(9), X, locked)],
        ),
        (
            "a sharer where there is no room, wanted shared",
            lv_lock(1),
            S,
            &[full],
            vec![record(lv_lock(9), S, locked), record(other_lv_lock(8), X, unlocked)],
        ),
        ("the own mutex, unused", lv_lock(1), X, &[full], vec![record(lv_lock(8), X, unlocked)]),
        ("an own record of an older implementation", vg_lock(1), X, &[], vec![older]),
        ("the end of the table", global(), X, &[], vec![end]),
    ];
    for (title, lock, mode, before, table) in cases {
        let bench = Bench::new(1);
        let request = bench.acquire(mode);
        let mut talk = begin(bench, lock, request);
        talk.answers.extend(before);
        talk.table = Some(table);
        talk.pass(SECOND * 5).belief().release().pass(LEASE * 3);
        check(title, &talk.words.concat());
    }
}

/// A drive with an unanswered change to shared does not prove an exclusive lock.
#[test]
fn a_change_to_shared_that_is_under_way() {
    let mut talk = settled(three(X, 0));
    talk.answers.push_back(Open);
    talk.convert(S).convert(X).belief();
    assert_eq!(talk.lock.mode(), Some(X), "by drives 1 and 2");
    talk.bench.drives[1].reset();
    talk.pass(SECOND * 14).belief();
    check("a change to shared that is under way", &talk.words.concat());
}

/// One of two BREAKs has an unknown result.
#[test]
fn breaking_twice() {
    let found = || {
        let mut bench = Bench::new(1);
        died(&mut bench, vg_lock(9), X, LEASE * 2);
        let request = bench.acquire(X);
        begin(bench, vg_lock(1), request)
    };
    for first in [Says(Status::Uncertain), Says(Status::Failed)] {
        let told = answered(found, &[Acts, first], 9, acquired_and_released);
        check(&format!("BREAK after {first}"), &told);
    }
}
