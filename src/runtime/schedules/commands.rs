//! A drive's queue and its workers.

use super::*;
use crate::drives::IDLE;
use core::sync::atomic::AtomicBool as Flag;

const JOBS: usize = 4;
/// The shortest time-out of a command.
const SHORTEST: Duration = Duration::from_millis(1);

/// Results of commands, by their number.
#[derive(Default)]
struct Ledger {
    executed: Unscheduled<[u32; JOBS]>,
    answers: Unscheduled<[Vec<Reply>; JOBS]>,
}

/// A path that records the commands that it gets.
struct Counting(Arc<Ledger>);

impl DrivePath for Counting {
    fn execute(
        &self,
        command: &DriveCommand,
        deadline: &Deadline,
    ) -> Result<Answer, TransportError> {
        pass();
        if deadline.timeout(SHORTEST).is_none() {
            return Err(TransportError::NotSent("too late".into()));
        }
        pass();
        match command {
            DriveCommand::ReadTable => Ok(Reply::Table(Arc::new([])).into()),
            DriveCommand::Mutex(_, record) => {
                self.0.executed.lock().unwrap()[record.modified_ms as usize] += 1;
                Ok(Reply::Status(Status::Good).into())
            }
        }
    }
}

/// The command with this number.
fn command(number: usize) -> DriveCommand {
    let record = Record { modified_ms: number as u64, ..Record::end_of_table() };
    match any(4) {
        0 => DriveCommand::ReadTable,
        1 => DriveCommand::Mutex(MutexOp::Refresh, record),
        _ => DriveCommand::Mutex(MutexOp::Trylock, record),
    }
}

struct Jobs {
    drives: Arc<Drives>,
    drive: DriveRef,
    ledger: Arc<Ledger>,
    answered: mpsc::Sender<usize>,
}

impl Jobs {
    fn submit(&self, number: usize, urgency: Urgency) {
        let (ledger, answered) = (self.ledger.clone(), self.answered.clone());
        let done = ReplyHandler::new(move |reply| {
            ledger.answers.lock().unwrap()[number].push(reply);
            // The caller may have gone.
            let _ = answered.send(number);
        });
        self.drives.submit(self.drive, command(number), urgency, done);
        if urgency == Urgency::Background {
            self.drives.start();
        }
    }
}

/// Commands from two threads, while at any moment waiting commands are given up (`expires`) and the
/// drive is closed (`closes`). With `time_passes`, idle workers end.
fn commands(time_passes: bool, expires: bool, closes: bool) {
    let ledger: Arc<Ledger> = Arc::default();
    let path = ledger.clone();
    let connect =
        Box::new(move |_: &str, _: &_| Arc::new(Counting(path.clone())) as Arc<dyn DrivePath>);
    let (drives, members) = drives_by(1, connect);
    let drives = Arc::new(drives);
    let drive = members[0].drive;
    let (answered, answers) = mpsc::channel();
    let mut threads: Vec<_> = (0..2)
        .map(|half| {
            let (drives, ledger, answered) = (drives.clone(), ledger.clone(), answered.clone());
            let jobs = Jobs { drives, drive, ledger, answered };
            threads::spawn(move || {
                for number in (0..JOBS).filter(|number| number % 2 == half) {
                    let urgency = [Urgency::Awaited, Urgency::Background][any(2) as usize];
                    jobs.submit(number, urgency);
                }
            })
        })
        .collect();
    if expires {
        let drives = drives.clone();
        threads.push(threads::spawn(move || drives.expire(clock::now() + LONG, clock::now())));
    }
    if closes {
        drives.close();
    }
    // No further command is submitted.
    (0..JOBS).for_each(|_| assert!(answers.recv().is_ok()));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drives.close();
    check(&ledger, expires || time_passes, expires, closes);
}

/// Checks the results. With `late`, some commands may have been given up before they were sent,
/// because of the time. With `expires`, some were also reported lost while they were on their way.
fn check(ledger: &Ledger, late: bool, expires: bool, closes: bool) {
    let executed = ledger.executed.lock().unwrap();
    for (number, answers) in ledger.answers.lock().unwrap().iter().enumerate() {
        assert_eq!(answers.len(), 1, "command {number}: {answers:?}");
        let times = match &answers[0] {
            Reply::Table(_) => 0,
            Reply::Status(Status::Good) => 1,
            Reply::Status(Status::Unreachable) if late => 0,
            Reply::Status(Status::Uncertain) if expires => executed[number].min(1),
            Reply::Status(Status::Uncertain) if closes => 0,
            other => panic!("command {number}: {other:?}"),
        };
        assert_eq!(executed[number], times, "command {number}: {answers:?}");
    }
}

/// Idle workers end at any moment.
const TIRED: Host = Host { waits_end: |bound| bound == IDLE, ..STILL };

#[test]
fn every_command_is_run_by_one_worker_and_answered_once() {
    holds("a drive's queue", STILL, || commands(false, false, false));
    holds("a drive's queue, idle workers end", TIRED, || commands(true, false, false));
    holds("a drive's queue, commands expire", TIRED, || commands(true, true, false));
    holds("a drive's queue, it is closed", TIRED, || commands(true, any(2) == 0, true));
    holds("a drive's queue, it is closed at once", STILL, || commands(false, false, true));
}

#[test]
fn a_command_that_is_left_in_the_queue_is_found() {
    for race in [Race::HelpBeforePush, Race::IdleUnseen, Race::CloseUnsaid] {
        finds(race, STILL, || commands(false, false, false));
    }
    finds(Race::EndUnseen, TIRED, || commands(true, false, false));
    finds(Race::PushAfterClose, STILL, || commands(false, false, true));
}

/// Commands on a host that may refuse some or all threads.
fn without_threads() {
    let ledger: Arc<Ledger> = Arc::default();
    let path = ledger.clone();
    let connect =
        Box::new(move |_: &str, _: &_| Arc::new(Counting(path.clone())) as Arc<dyn DrivePath>);
    let (drives, members) = drives_by(1, connect);
    let (answered, answers) = mpsc::channel();
    let (drives, drive) = (Arc::new(drives), members[0].drive);
    let jobs = Arc::new(Jobs { drives, drive, ledger: ledger.clone(), answered });
    let other = jobs.clone();
    let thread = threads::spawn(move || (0..2).for_each(|n| other.submit(n, Urgency::Awaited)));
    (2..JOBS).for_each(|number| jobs.submit(number, Urgency::Awaited));
    (0..JOBS).for_each(|_| assert!(answers.recv().is_ok()));
    thread.join().unwrap();
    jobs.drives.close();
    // Without a thread, a command was certainly not sent.
    check(&ledger, true, false, false);
}

const REFUSING: Host = Host { refuses: |name| name == "idm-drive", ..TIRED };

#[test]
fn without_threads_commands_are_answered_too() {
    holds("a drive's queue, threads are refused", REFUSING, without_threads);
}

#[test]
fn a_worker_that_is_not_missed_is_found() {
    finds(Race::NoWorkerUnseen, REFUSING, without_threads);
}

/// A path that keeps commands until it is full.
struct Stuck {
    inside: crate::sys::sync::Mutex<usize>,
    entered: crate::sys::sync::Condvar,
}

const TOGETHER: usize = 3;

impl DrivePath for Stuck {
    fn execute(&self, _: &DriveCommand, _: &Deadline) -> Result<Answer, TransportError> {
        let mut inside = self.inside.lock();
        *inside += 1;
        self.entered.notify_all();
        while *inside < TOGETHER {
            inside = self.entered.wait(inside);
        }
        Ok(Reply::Status(Status::Good).into())
    }
}

#[test]
fn a_command_that_hangs_holds_no_other() {
    holds("a command that hangs", STILL, || {
        let inside = crate::sys::sync::Mutex::new(0);
        let path = Arc::new(Stuck { inside, entered: crate::sys::sync::Condvar::new() });
        let connect = Box::new(move |_: &str, _: &_| path.clone() as Arc<dyn DrivePath>);
        let (drives, members) = drives_by(1, connect);
        let (drives, drive) = (Arc::new(drives), members[0].drive);
        let (answered, answers) = mpsc::channel();
        let ledger: Arc<Ledger> = Arc::default();
        for number in 0..TOGETHER {
            let (drives, ledger, answered) = (drives.clone(), ledger.clone(), answered.clone());
            let done = ReplyHandler::new(move |reply| {
                ledger.answers.lock().unwrap()[number].push(reply);
                let _ = answered.send(number);
            });
            let refresh = DriveCommand::Mutex(MutexOp::Refresh, Record::end_of_table());
            threads::spawn(move || drives.submit(drive, refresh, Urgency::Awaited, done));
        }
        (0..TOGETHER).for_each(|_| assert!(answers.recv().is_ok()));
        drives.close();
    });
}

/// A path that keeps the first command until the test releases it.
#[derive(Default)]
struct Keeping {
    ledger: Ledger,
    /// Whether the first command is on its way.
    inside: Flag,
    returns: crate::sys::sync::Mutex<bool>,
    returned: crate::sys::sync::Condvar,
}

impl DrivePath for Keeping {
    fn execute(
        &self,
        command: &DriveCommand,
        deadline: &Deadline,
    ) -> Result<Answer, TransportError> {
        let DriveCommand::Mutex(op, record) = command else { panic!("nobody reads") };
        let number = record.modified_ms as usize;
        pass();
        if deadline.timeout(SHORTEST).is_none() {
            return Err(TransportError::NotSent("too late".into()));
        }
        self.ledger.executed.lock().unwrap()[number] += 1;
        if number == 0 {
            self.inside.store(true, Ordering::Relaxed);
            let mut returns = self.returns.lock();
            while !*returns {
                returns = self.returned.wait(returns);
            }
            self.inside.store(false, Ordering::Relaxed);
        }
        let overtakes = self.inside.load(Ordering::Relaxed);
        assert!(!overtakes || *op == MutexOp::Unlock, "{op:?} overtakes what is lost");
        Ok(Reply::Status(Status::Good).into())
    }
}

/// Two commands for the same mutex, as an engine sends them: the second after the result of the
/// first, which may be that it is lost.
fn a_command_is_lost() {
    let path: Arc<Keeping> = Arc::default();
    let reached = path.clone();
    let connect = Box::new(move |_: &str, _: &_| reached.clone() as Arc<dyn DrivePath>);
    let (drives, members) = drives_by(1, connect);
    let (drives, drive) = (Arc::new(drives), members[0].drive);
    let (sweeping, returning) = (drives.clone(), path.clone());
    let lost = Limits::new(&Timing::for_lease(LEASE)).lost;
    let threads = [
        threads::spawn(move || {
            for _ in 0..2 {
                sweeping.expire(Instant::default(), clock::now() + 2 * lost);
            }
        }),
        threads::spawn(move || {
            *returning.returns.lock() = true;
            returning.returned.notify_all();
        }),
    ];
    let second = if any(3) == 0 { MutexOp::Unlock } else { MutexOp::Trylock };
    let (answered, answers) = mpsc::channel();
    for (number, op) in [MutexOp::Trylock, second].into_iter().enumerate() {
        let record = Record { modified_ms: number as u64, ..Record::end_of_table() };
        let (asked, answered) = (path.clone(), answered.clone());
        let done = ReplyHandler::new(move |reply| {
            asked.ledger.answers.lock().unwrap()[number].push(reply);
            let _ = answered.send(());
        });
        drives.submit(drive, DriveCommand::Mutex(op, record), Urgency::Awaited, done);
        assert!(answers.recv().is_ok());
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drives.close();
    let executed = path.ledger.executed.lock().unwrap();
    for (number, answers) in path.ledger.answers.lock().unwrap()[..2].iter().enumerate() {
        let [Reply::Status(answer)] = answers[..] else { panic!("{number}: {answers:?}") };
        match answer {
            Status::Good => assert_eq!(executed[number], 1),
            Status::Unreachable => assert_eq!(executed[number], 0, "{number} was sent"),
            Status::Uncertain => assert!(executed[number] <= 1),
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[test]
fn a_command_that_is_lost_is_answered_once_and_not_overtaken() {
    holds("a command that is lost", STILL, a_command_is_lost);
}

#[test]
fn a_command_that_is_sent_although_it_was_given_up_or_overtakes_is_found() {
    for race in [Race::GiveUpInTwoSteps, Race::LostUnmarked] {
        finds(race, STILL, a_command_is_lost);
    }
}
