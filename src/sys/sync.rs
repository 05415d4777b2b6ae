//! Mutex and Condvar, channels and threads: those of the standard library.
//!
//! In a build for ThreadSanitizer (`c-tests/tsan.sh`, `--cfg idm_tsan`) they are wrapped, and show
//! it the order of events. The standard library that comes with the compiler is not instrumented,
//! so ThreadSanitizer would miss that a waiting thread has taken a mutex.
//!
//! In the tests named `schedules` (feature `shuttle`) they come from `scheduled`, which lets a test
//! decide the order in which threads run.

#[cfg(all(test, feature = "shuttle"))]
pub mod scheduled;

#[cfg(all(test, feature = "shuttle"))]
pub use scheduled::{atomic, mpsc, thread};
#[cfg(not(all(test, feature = "shuttle")))]
pub use std::{
    sync::{atomic, mpsc},
    thread,
};

#[cfg(all(test, feature = "shuttle"))]
use scheduled as base;
#[cfg(not(any(idm_tsan, all(test, feature = "shuttle"))))]
use std::sync as base;
#[cfg(idm_tsan)]
use told as base;

pub use base::{MutexGuard, WaitTimeoutResult};
use core::time::Duration;
use std::sync::PoisonError;

/// As [`std::sync::Mutex`], but without poisoning. After a panic the guarded data stays as it is:
/// panics are caught, and other threads go on with that data.
#[derive(Debug, Default)]
pub struct Mutex<T>(base::Mutex<T>);

impl<T> Mutex<T> {
    /// A free mutex.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(base::Mutex::new(value))
    }

    /// Takes the mutex.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`std::sync::Condvar`], for [`Mutex`].
#[derive(Default)]
pub struct Condvar(base::Condvar);

impl Condvar {
    /// A condition without waiting threads.
    pub const fn new() -> Condvar {
        Condvar(base::Condvar::new())
    }

    /// Wakes one thread that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Releases the mutex, waits, and takes it again after a wake-up.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Condvar::wait`], for at most `bound`.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        bound: Duration,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        self.0.wait_timeout(guard, bound).unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Condvar::wait_timeout`], until the condition is false.
    pub fn wait_timeout_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        bound: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        let waited = self.0.wait_timeout_while(guard, bound, condition);
        waited.unwrap_or_else(PoisonError::into_inner)
    }
}

/// `true` where a test has planted this mistake, see `scheduled::Race`.
macro_rules! planted {
    ($race:ident) => {{
        #[cfg(all(test, feature = "shuttle"))]
        let planted =
            $crate::sys::sync::scheduled::is_planted($crate::sys::sync::scheduled::Race::$race);
        #[cfg(not(all(test, feature = "shuttle")))]
        let planted = false;
        planted
    }};
}
pub(crate) use planted;

#[cfg(idm_tsan)]
mod told {
    use core::ops::{Deref, DerefMut};
    use core::sync::atomic::{AtomicUsize, Ordering};
    use core::time::Duration;
    pub use std::sync::WaitTimeoutResult;
    use std::sync::{self, LockResult, PoisonError};

    /// As [`std::sync::Mutex`].
    #[derive(Debug, Default)]
    pub struct Mutex<T> {
        inner: sync::Mutex<T>,
        /// Orders the accesses of one holder before those of the next. The mutex ensures this
        /// already, but ThreadSanitizer sees only this counter.
        order: AtomicUsize,
    }

    /// As [`std::sync::MutexGuard`].
    pub struct MutexGuard<'a, T> {
        /// `None` only while [`Condvar`] has it.
        inner: Option<sync::MutexGuard<'a, T>>,
        order: &'a AtomicUsize,
    }

    impl<T> Mutex<T> {
        pub const fn new(value: T) -> Mutex<T> {
            Mutex { inner: sync::Mutex::new(value), order: AtomicUsize::new(0) }
        }

        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            map(self.inner.lock(), |inner| MutexGuard::taken(inner, &self.order))
        }
    }

    impl<'a, T> MutexGuard<'a, T> {
        fn taken(inner: sync::MutexGuard<'a, T>, order: &'a AtomicUsize) -> MutexGuard<'a, T> {
            order.fetch_add(1, Ordering::Acquire);
            MutexGuard { inner: Some(inner), order }
        }

        /// The inner guard, which is about to be released.
        fn give(mut self) -> (sync::MutexGuard<'a, T>, &'a AtomicUsize) {
            self.order.fetch_add(1, Ordering::Release);
            let inner = self.inner.take();
            (inner.expect("a guard is given up once"), self.order)
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            if self.inner.is_some() {
                self.order.fetch_add(1, Ordering::Release);
            }
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.inner.as_ref().expect("a guard is given up once")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.inner.as_mut().expect("a guard is given up once")
        }
    }

    /// As [`std::sync::Condvar`].
    #[derive(Default)]
    pub struct Condvar(sync::Condvar);

    impl Condvar {
        pub const fn new() -> Condvar {
            Condvar(sync::Condvar::new())
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }

        pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            let (inner, order) = guard.give();
            map(self.0.wait(inner), |inner| MutexGuard::taken(inner, order))
        }

        pub fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            bound: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
            let (inner, order) = guard.give();
            map(self.0.wait_timeout(inner, bound), |(inner, timed_out)| {
                (MutexGuard::taken(inner, order), timed_out)
            })
        }

        pub fn wait_timeout_while<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            bound: Duration,
            mut condition: impl FnMut(&mut T) -> bool,
        ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
            let (inner, order) = guard.give();
            let condition = |value: &mut T| {
                order.fetch_add(1, Ordering::Acquire);
                let goes_on = condition(value);
                order.fetch_add(1, Ordering::Release);
                goes_on
            };
            map(self.0.wait_timeout_while(inner, bound, condition), |(inner, timed_out)| {
                (MutexGuard::taken(inner, order), timed_out)
            })
        }
    }

    fn map<A, B>(result: LockResult<A>, wrap: impl FnOnce(A) -> B) -> LockResult<B> {
        match result {
            Ok(inner) => Ok(wrap(inner)),
            Err(poisoned) => Err(PoisonError::new(wrap(poisoned.into_inner()))),
        }
    }
}
