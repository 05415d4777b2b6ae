//! Mutex, Condvar, channels and threads for the tests named `schedules`: shuttle decides every
//! step.
//!
//! shuttle has no time. Here a bounded wait either ends only with a wake-up, or may end at any
//! moment; the test chooses by the bound ([`Host`]). In the first case a lost wake-up is a
//! deadlock, which shuttle reports. When a wait times out, the clock moves on to that moment; see
//! [`now`].

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

/// Mistakes that a test can plant in the tested code, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Race {
    /// The receiver is woken before the message is in the mailbox.
    WakeBeforePut,
    /// The sender reads whether the receiver is asleep before it puts the message, and not in one
    /// step.
    AskBeforePut,
    /// The sender reads whether the mailbox is closed before it puts the message, and not in one
    /// step.
    CheckBeforePut,
    /// The receiver finds no message, releases the mutex, and falls asleep only then.
    SleepUnseen,
    /// Remaining messages are dropped before further ones are refused.
    DropBeforeClose,
    /// Workers are woken before the job is in the queue.
    HelpBeforePush,
    /// The sender reads whether the drive is closed before it queues the job, and not in one step.
    PushAfterClose,
    /// A worker finds no job, releases the mutex, and falls asleep only then.
    IdleUnseen,
    /// A worker that has waited long enough ends without another look at the queue.
    EndUnseen,
    /// A worker that cannot be started is not noticed.
    NoWorkerUnseen,
    /// Idle workers are not woken when their drive is closed.
    CloseUnsaid,
    /// The check whether a command was sent comes before the command is given up, and not in one
    /// step.
    GiveUpInTwoSteps,
    /// A command that is reported lost is not marked as still on its way.
    LostUnmarked,
    /// A command's path is chosen before the command is recorded there, and not in one step.
    BeginInTwoSteps,
    /// The check whether a path is being tried comes before the try, and not in one step.
    ProbeTwice,
    /// The reactor ends without closing its mailbox.
    EndUnclosed,
    /// A drain ends without checking for commands on their way.
    DrainAtOnce,
    /// The end of the kill command is left in the mailbox and wakes no thread.
    KillEndLeft,
    /// A caller that gives up waiting for an answer sends no message about it.
    AbandonUnsaid,
    /// The number of lost messages is read and reset in two steps.
    LostInTwoSteps,
    /// An orphan is found free, and claimed in a second step.
    ClaimInTwoSteps,
    /// A thread that waits for an orphan is woken before the orphan is put back.
    WakeBeforePutBack,
    /// A thread that waits for a proof is woken before the end of the proof is recorded.
    WakeBeforeProof,
    /// The drives are asked about an orphan for the lockspace that it was in before.
    AskInOldName,
    /// An orphan that a request has claimed is given up with its lockspace.
    SettleClaimed,
    /// Votes are moved while a request may take the lock over.
    MoveUnheld,
    /// A failed move of votes writes the whole earlier note again.
    PutBackAll,
    /// A request whose wait for a claimed orphan times out also gets the orphan.
    ClaimAfterAll,
}

/// Behaviour of a test's host at moments that the test does not choose.
#[derive(Clone, Copy)]
pub struct Host {
    /// Whether a wait of this length may end at any moment. Others never time out.
    pub waits_end: fn(Duration) -> bool,
    /// Whether a thread with this name may be refused.
    pub refuses: fn(&str) -> bool,
}

/// A host where time stands still and every thread can be started.
pub const STILL: Host = Host { waits_end: |_| false, refuses: |_| false };

thread_local! {
    static HOST: Cell<Host> = const { Cell::new(STILL) };
    static RACE: Cell<Option<Race>> = const { Cell::new(None) };
    static CLOCK: Cell<u64> = const { Cell::new(BOOTED) };
}

/// Start time of a schedule in us: late enough that no date is before it.
const BOOTED: u64 = 1_000_000_000;

/// The time on the test's clock in us; each call advances it by one.
pub fn now() -> u64 {
    CLOCK.set(CLOCK.get() + 1);
    CLOCK.get()
}

/// The time in us at which a wait that begins now times out.
fn end_of(bound: Duration) -> u64 {
    now().saturating_add(u64::try_from(bound.as_micros()).unwrap_or(u64::MAX))
}

/// A point where another thread may run.
pub fn pass() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// A number below `bound`, which must not be zero.
pub fn any(bound: u64) -> u64 {
    shuttle::rand::thread_rng().next_u64() % bound
}

/// Whether the test has planted this mistake.
pub fn is_planted(race: Race) -> bool {
    RACE.get() == Some(race)
}

/// Ends a wait by time-out: other threads may run now, even with a low priority.
fn end_at(us: u64) {
    CLOCK.set(CLOCK.get().max(us));
    shuttle::thread::yield_now();
}

/// The number of times that a wait checks for a wake-up before it times out.
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
    /// Threads that wait and have not been woken. Never locked where another thread may run.
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

    /// Waits without the mutex. Returns whether it timed out; a wait that may time out may also end
    /// without a reason.
    fn wait_for<T>(&self, guard: MutexGuard<'_, T>, bound: Option<Duration>) -> bool {
        let waiter = Arc::new(BatchSemaphore::new(0, Fairness::Unfair));
        let bound = bound.filter(|&bound| (HOST.get().waits_end)(bound));
        let end = bound.map(end_of);
        // Another thread may run before the mutex is free, but none between that moment and the
        // wait.
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

    /// As with [`std::sync::mpsc`], messages that were not received are dropped with the receiver.
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

/// Schedules of each scenario, unless `IDM_SCHEDULES` sets another number. Half of them are random;
/// the others keep to one thread as long as it can run, with a few changes (PCT).
const SCHEDULES: usize = 500;
/// Number of changes away from a thread that could run, in a schedule of the second kind.
const CHANGES: usize = 3;
/// More steps than any schedule needs; one that takes as many runs in an endless loop.
const STEPS: usize = 100_000;
/// Number of schedules within which a planted mistake must be found; rounds of both kinds
/// alternate.
const ENOUGH: usize = 20_000;
const ROUND: usize = 100;
const STACK: usize = 0x4_0000;

/// Whether the schedule of a failure is printed, so that it can be run again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failures {
    Printed,
    Wanted,
}

/// Runs a scenario under `each` schedules of either kind.
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

/// Runs a scenario under many schedules, and prints their number.
pub fn holds(what: &str, host: Host, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let wanted = std::env::var("IDM_SCHEDULES").ok();
    let wanted = wanted.map_or(SCHEDULES, |text| text.parse().expect("IDM_SCHEDULES is a number"));
    HOST.set(host);
    RACE.set(None);
    let (count, scenario) = counted(scenario);
    run(wanted.div_ceil(2), Failures::Printed, scenario);
    println!("schedules: {} of {what}", count.load(Relaxed));
}

/// Fails unless a planted mistake makes the scenario fail; without the mistake it passes.
pub fn finds(race: Race, host: Host, scenario: impl Fn() + Clone + Send + Sync + 'static) {
    // After a failed schedule, all further schedules on the same thread seem to fail in shuttle.
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

/// The scenario, and the number of times that it was started.
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
