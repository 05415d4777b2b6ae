//! Mutex, Condvar, channels and threads whose every step shuttle decides, for the tests named
//! `schedules`.
//!
//! shuttle knows no time. Here a bounded wait either never ends before it is told to, or may end
//! at any moment, as the test says of its bound ([`Host`]): where it never ends, a wake-up that is
//! lost is a deadlock, which shuttle reports. When a wait ends for lack of time, the clock moves on
//! to that moment; see [`now`].

use core::cell::Cell;
use core::fmt::{self, Debug};
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
use shuttle::rand::RngCore;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{self, Arc, LockResult, PoisonError};

/// Mistakes that a test can plant in the code that it tests, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Race {
    /// The receiver is woken before the message is there.
    WakeBeforePut,
    /// Whether the receiver is asleep is read before, and not with, the putting.
    AskBeforePut,
    /// Whether the mailbox is closed is read before, and not with, the putting.
    CheckBeforePut,
    /// The receiver finds no message, gives the mutex up, and falls asleep after that.
    SleepUnseen,
    /// What was not taken is dropped before further messages are refused.
    DropBeforeClose,
    /// Workers are got to work before the job is there.
    HelpBeforePush,
    /// Whether the drive is closed is read before, and not with, the queueing.
    PushAfterClose,
    /// A worker finds no job, gives the mutex up, and falls asleep after that.
    IdleUnseen,
    /// A worker that waited for long enough ends without another look at the queue.
    EndUnseen,
    /// A worker that cannot be started is not missed.
    NoWorkerUnseen,
    /// Idle workers are not told that their drive is closed.
    CloseUnsaid,
    /// Whether a command that is given up was sent is read before, and not with, the giving up.
    GiveUpInTwoSteps,
    /// A command that is called lost is not known to be on its way.
    LostUnmarked,
    /// A command's path is chosen before, and not with, noting that it is there.
    BeginInTwoSteps,
    /// Whether a path is being tried is read before, and not with, the beginning.
    ProbeTwice,
    /// The reactor ends and leaves its mailbox open.
    EndUnclosed,
    /// A drain ends without a look at what is on its way.
    DrainAtOnce,
    /// The end of the kill command is left in the mailbox and wakes nobody.
    KillEndLeft,
    /// Whoever gives up waiting for an answer does not say so.
    AbandonUnsaid,
    /// The lost messages are read and set to none in two steps.
    LostInTwoSteps,
    /// An orphan is found free, and claimed after that.
    ClaimInTwoSteps,
    /// Who waits for an orphan is woken before it is put back.
    WakeBeforePutBack,
    /// Who waits for a proof is woken before its end is noted.
    WakeBeforeProof,
    /// The drives are asked for an orphan in the name of the lockspace that it was in before.
    AskInOldName,
    /// An orphan that a request has claimed is given up with its lockspace.
    SettleClaimed,
    /// Votes are moved while a request may take the lock over.
    MoveUnheld,
    /// Where votes are not moved, all that was noted before is noted again.
    PutBackAll,
    /// A request waits for a claimed orphan for as long as it may, and then has it, too.
    ClaimAfterAll,
}

/// What the host of a test does at moments that the test does not choose.
#[derive(Clone, Copy)]
pub struct Host {
    /// Whether a wait of that length may end, at any moment. Others never do.
    pub waits_end: fn(Duration) -> bool,
    /// Whether a thread of that name may be refused.
    pub refuses: fn(&str) -> bool,
}

/// A host where time stands still and that has all threads that are wanted.
pub const STILL: Host = Host { waits_end: |_| false, refuses: |_| false };

thread_local! {
    static HOST: Cell<Host> = const { Cell::new(STILL) };
    static RACE: Cell<Option<Race>> = const { Cell::new(None) };
    static CLOCK: Cell<u64> = const { Cell::new(BOOTED) };
}

/// The time at which a schedule begins, in us: late enough that no date is before the start.
const BOOTED: u64 = 1_000_000_000;

/// Microseconds on the test's clock, one more with every look.
pub fn now() -> u64 {
    CLOCK.set(CLOCK.get() + 1);
    CLOCK.get()
}

/// The moment in us at which a wait that begins now ends for lack of time.
fn end_of(bound: Duration) -> u64 {
    now().saturating_add(u64::try_from(bound.as_micros()).unwrap_or(u64::MAX))
}

/// Another thread may go on here.
pub fn pass() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// A number below `bound`, which must not be zero.
pub fn any(bound: u64) -> u64 {
    shuttle::rand::thread_rng().next_u64() % bound
}

/// Whether the test has planted that mistake.
pub fn is_planted(race: Race) -> bool {
    RACE.get() == Some(race)
}

/// A wait ends for lack of time: others may go on now, also where they have little priority.
fn end_at(us: u64) {
    CLOCK.set(CLOCK.get().max(us));
    shuttle::thread::yield_now();
}

/// How often a wait looks whether it was told to end, before it ends for lack of time.
fn looks() -> u64 {
    1 << any(6)
}

/// As [`std::sync::Mutex`].
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// As [`std::sync::MutexGuard`].
pub struct MutexGuard<'a, T> {
    inner: shuttle::sync::MutexGuard<'a, T>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        match self.0.lock() {
            Ok(inner) => Ok(MutexGuard { inner, mutex: self }),
            Err(poisoned) => {
                let inner = poisoned.into_inner();
                Err(PoisonError::new(MutexGuard { inner, mutex: self }))
            }
        }
    }
}

impl<T: Debug> Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// As [`std::sync::Condvar`].
#[derive(Default)]
pub struct Condvar {
    /// Those that wait and were not told to end. Never held where another thread may go on.
    waiters: sync::Mutex<Vec<Arc<BatchSemaphore>>>,
}

/// As [`std::sync::WaitTimeoutResult`].
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub const fn new() -> Condvar {
        Condvar { waiters: sync::Mutex::new(Vec::new()) }
    }

    fn waiters(&self) -> sync::MutexGuard<'_, Vec<Arc<BatchSemaphore>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn notify_one(&self) {
        pass();
        let count = self.waiters().len();
        if count > 0 {
            let told = self.waiters().swap_remove(any(count as u64) as usize);
            told.release(1);
        }
    }

    pub fn notify_all(&self) {
        pass();
        let told = core::mem::take(&mut *self.waiters());
        told.iter().for_each(|waiter| waiter.release(1));
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let mutex = guard.mutex;
        self.wait_for(guard, None);
        mutex.lock()
    }

    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        bound: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let mutex = guard.mutex;
        let timed_out = WaitTimeoutResult(self.wait_for(guard, Some(bound)));
        match mutex.lock() {
            Ok(guard) => Ok((guard, timed_out)),
            Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), timed_out))),
        }
    }

    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        bound: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let mut over = false;
        while condition(&mut guard) {
            if over {
                return Ok((guard, WaitTimeoutResult(true)));
            }
            let waited = self.wait_timeout(guard, bound)?;
            guard = waited.0;
            over = waited.1.timed_out();
        }
        Ok((guard, WaitTimeoutResult(false)))
    }

    /// Waits without the mutex. Whether it ended for lack of time; a wait that may end so may also
    /// end for no reason.
    fn wait_for<T>(&self, guard: MutexGuard<'_, T>, bound: Option<Duration>) -> bool {
        let waiter = Arc::new(BatchSemaphore::new(0, Fairness::Unfair));
        let bound = bound.filter(|&bound| (HOST.get().waits_end)(bound));
        let end = bound.map(end_of);
        // Another thread may go on before the mutex is free, and none from then until it waits.
        drop(guard);
        self.waiters().push(waiter.clone());
        let Some(end) = end else {
            waiter.acquire_blocking(1).expect("it is never closed");
            return false;
        };
        if (0..looks()).any(|_| waiter.try_acquire(1).is_ok()) {
            return false;
        }
        let mut waiters = self.waiters();
        let Some(at) = waiters.iter().position(|other| Arc::ptr_eq(other, &waiter)) else {
            return false;
        };
        waiters.swap_remove(at);
        drop(waiters);
        let timed_out = any(4) > 0;
        if timed_out {
            end_at(end);
        }
        timed_out
    }
}

/// As [`std::sync::mpsc`].
pub mod mpsc {
    use super::{Duration, HOST, end_at, end_of, looks};
    use shuttle::sync::mpsc;
    pub use shuttle::sync::mpsc::{Sender, SyncSender};
    pub use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};

    /// As [`std::sync::mpsc::Receiver`].
    pub struct Receiver<T>(mpsc::Receiver<T>);

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (sender, Receiver(receiver))
    }

    pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::sync_channel(bound);
        (sender, Receiver(receiver))
    }

    impl<T> Receiver<T> {
        pub fn recv(&self) -> Result<T, RecvError> {
            self.0.recv()
        }

        pub fn recv_timeout(&self, bound: Duration) -> Result<T, RecvTimeoutError> {
            if !(HOST.get().waits_end)(bound) {
                return self.recv().map_err(|RecvError| RecvTimeoutError::Disconnected);
            }
            let end = end_of(bound);
            for _ in 0..looks() {
                match self.0.try_recv() {
                    Ok(message) => return Ok(message),
                    Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                    Err(TryRecvError::Empty) => {}
                }
            }
            end_at(end);
            Err(RecvTimeoutError::Timeout)
        }
    }

    impl<'a, T> IntoIterator for &'a Receiver<T> {
        type Item = T;
        type IntoIter = mpsc::Iter<'a, T>;
        fn into_iter(self) -> mpsc::Iter<'a, T> {
            self.0.iter()
        }
    }

    /// As with [`std::sync::mpsc`], what was sent and not received goes with the receiver.
    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                while self.0.try_recv().is_ok() {}
            }
        }
    }
}

/// As [`std::sync::atomic`].
pub mod atomic {
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
}

/// As [`std::thread`].
pub mod thread {
    use super::{HOST, any};
    pub use shuttle::thread::{JoinHandle, spawn, yield_now};
    use std::io;

    /// As [`std::thread::Builder`].
    #[derive(Default)]
    pub struct Builder {
        name: String,
    }

    impl Builder {
        pub fn new() -> Builder {
            Builder::default()
        }

        pub fn name(self, name: String) -> Builder {
            Builder { name }
        }

        pub fn spawn(self, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
            if (HOST.get().refuses)(&self.name) && any(3) == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            shuttle::thread::Builder::new().name(self.name).spawn(body)
        }
    }
}

/// Schedules of each scenario, where `IDM_SCHEDULES` does not say otherwise: half of them are
/// random, the others keep to one thread for as long as it can go on, but for a few changes (PCT).
const SCHEDULES: usize = 500;
/// How often a schedule of the second kind changes from a thread that could go on.
const CHANGES: usize = 3;
/// Steps that no schedule needs; one that takes as many goes round in circles.
const STEPS: usize = 100_000;
/// A planted mistake must be found in so many schedules, of which rounds of either kind are tried
/// in turn.
const ENOUGH: usize = 20_000;
const ROUND: usize = 100;
const STACK: usize = 0x4_0000;

/// Whether the schedule of a failure is printed, so that it can be run again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failures {
    Printed,
    Wanted,
}

/// Runs a scenario under so many schedules of either kind.
fn run(each: usize, failures: Failures, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.stack_size = STACK;
    config.max_steps = shuttle::MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    if failures == Failures::Wanted {
        config.failure_persistence = shuttle::FailurePersistence::None;
    }
    let scenario = move || {
        CLOCK.set(BOOTED);
        scenario();
    };
    shuttle::Runner::new(RandomScheduler::new(each), config.clone()).run(scenario.clone());
    shuttle::Runner::new(PctScheduler::new(CHANGES, each), config).run(scenario);
}

/// Runs a scenario under many schedules, and says under how many.
pub fn holds(what: &str, host: Host, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let wanted = std::env::var("IDM_SCHEDULES").ok();
    let wanted = wanted.map_or(SCHEDULES, |text| text.parse().expect("IDM_SCHEDULES is a number"));
    HOST.set(host);
    RACE.set(None);
    let (count, scenario) = counted(scenario);
    run(wanted.div_ceil(2), Failures::Printed, scenario);
    println!("schedules: {} of {what}", count.load(Relaxed));
}

/// Fails unless a planted mistake makes a scenario fail that does not fail without it.
pub fn finds(race: Race, host: Host, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    // Where a schedule has failed, shuttle leaves a thread in which all others seem to fail.
    let search = std::thread::spawn(move || {
        HOST.set(host);
        run(ROUND / 2, Failures::Printed, scenario.clone());
        RACE.set(Some(race));
        let (count, scenario) = counted(scenario);
        let mut found = false;
        while !found && count.load(Relaxed) < ENOUGH {
            let scenario = scenario.clone();
            let round = AssertUnwindSafe(|| run(ROUND / 2, Failures::Wanted, scenario));
            found = catch_unwind(round).is_err();
        }
        (found, count.load(Relaxed))
    });
    let (found, count) = search.join().expect("it does not fail without the mistake");
    assert!(found, "{race:?} is not found in {count} schedules");
    println!("{race:?} is found in {count} schedules");
}

/// The scenario, and how often it was begun.
fn counted(
    scenario: impl Fn() + Clone + Send + Sync + 'static,
) -> (Arc<AtomicUsize>, impl Fn() + Clone + Send + Sync + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let begun = count.clone();
    let scenario = move || {
        begun.fetch_add(1, Relaxed);
        scenario();
    };
    (count, scenario)
}
