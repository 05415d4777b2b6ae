//! The host's watchdog: resets the host before its locks are lost, unless the use of the protected
//! data has been stopped otherwise.
//!
//! A separate thread carries out the decisions of [`policy`], because devices may be slow. It does
//! not depend on the reactor being alive: it gets dates, and a date that is not renewed expires.
//!
//! The note in the state directory is for the next lvmlockd: if this one dies, the next one feeds
//! the watchdog until the date up to which the dead one's locks are safe. As soon as it keeps these
//! locks itself, it feeds the watchdog for longer.

pub mod device;
pub mod guards;
pub mod policy;

use crate::fencing::Feeding;
use crate::state::note::{self, Note};
use crate::sys::clock;
use crate::sys::service::{Service, Shared};
use crate::sys::sync::Condvar;
use core::time::Duration;
use device::WatchdogDevice;
use idm_engine::Instant;
use policy::{Need, Policy, Step};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The name of the file that shows that the watchdog runs.
const FILE: &str = "watchdog";

/// A watchdog that its thread operates. Dropping it acts like a sudden death of lvmlockd.
pub struct Watchdog {
    service: Service<WatchdogState>,
    /// Signalled after each step.
    done: Arc<Condvar>,
}

#[derive(Default)]
struct WatchdogState {
    /// First date of the locks in use.
    first: Option<Instant>,
    rest: bool,
    /// Dates of the locks that are about to be taken.
    claims: Vec<Instant>,
    /// Date until which the locks that an earlier lvmlockd left are safe, while the state of any of
    /// them is not known.
    left: Option<Instant>,
    /// Whether the watchdog runs.
    armed: bool,
    /// Whether the watchdog is fed, or why not.
    fed: bool,
    error: Option<String>,
    /// Whether the note has a date, both now and after the current step.
    noted: bool,
    /// Number of steps done.
    steps: u64,
    stepping: bool,
}

/// Guard that keeps the watchdog armed while it exists.
pub struct ArmGuard {
    shared: Arc<Shared<WatchdogState>>,
    until: Instant,
}

impl Drop for ArmGuard {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(at) = state.claims.iter().position(|&until| until == self.until) {
            state.claims.swap_remove(at);
        }
        drop(state);
        self.shared.wake();
    }
}

impl WatchdogState {
    fn need(&self) -> Need {
        let claims = self.claims.iter().copied();
        Need { first: claims.chain(self.first).chain(self.left).min(), rest: self.rest }
    }
}

impl Watchdog {
    /// Starts the thread. It feeds at once where `state_dir` says that an earlier lvmlockd left the
    /// watchdog running and its locks are still safe.
    pub fn start(
        device: Box<dyn WatchdogDevice>,
        feeding: Feeding,
        state_dir: &Path,
    ) -> io::Result<Watchdog> {
        let note = Note::new(state_dir, FILE, note::DATE)?;
        let mut state = WatchdogState::default();
        let mut policy = Policy::new(feeding);
        if let Some(left) = note.read() {
            policy = Policy::left(feeding, clock::now());
            state.left = left;
            match left {
                Some(left) => log::warn!(
                    "an earlier lvmlockd left the watchdog running, and locks that are safe for {} \
                     ms",
                    left.since(clock::now()).as_millis()
                ),
                None => log::info!("an earlier lvmlockd left the watchdog running, and no locks"),
            }
        }
        let done = Arc::new(Condvar::new());
        let tells = done.clone();
        let service = Service::start("idm-watchdog", state, move |shared| {
            let (shared, done) = (shared.clone(), tells);
            Worker { shared, done, policy, device, note, failing: false, left: false }.run();
        })?;
        Ok(Watchdog { service, done })
    }

    /// Whether an earlier lvmlockd left the watchdog running.
    pub fn was_left(state_dir: &Path) -> bool {
        Note::new(state_dir, FILE, note::DATE).is_ok_and(|note| note.read().is_some())
    }

    /// Arms the watchdog before a lock is taken, and notes it for the next lvmlockd. The lock will
    /// be safe at least until `until`. Waits up to `bound`.
    pub fn keep_armed(&self, until: Instant, bound: Duration) -> Result<ArmGuard, String> {
        let shared = self.service.shared();
        let mut state = shared.lock();
        state.claims.push(until);
        state.rest = false;
        let claim = ArmGuard { shared: shared.clone(), until };
        let ready = |state: &WatchdogState| state.fed && state.noted;
        // A step that is in progress may end that, and does not know of the claim yet.
        let surely = |state: &WatchdogState| ready(state) && !state.stepping;
        if surely(&state) {
            return Ok(claim);
        }
        let enough = state.steps + 1 + u64::from(state.stepping);
        shared.wake();
        let (state, _) = self
            .done
            .wait_timeout_while(state, bound, |state| !surely(state) && state.steps < enough);
        if ready(&state) {
            return Ok(claim);
        }
        let why = state.error.clone().unwrap_or_else(|| "it is not fed now".into());
        drop(state);
        Err(why)
    }

    /// Sets the date until which all locks in use are safe; `None` if none is in use.
    pub fn protect(&self, first: Option<Instant>) {
        let shared = self.service.shared();
        let mut state = shared.lock();
        let before = state.need();
        state.first = first;
        if state.need().is_more_urgent_than(&before) {
            shared.wake();
        }
    }

    /// Drops the earlier lvmlockd's date: all its locks are kept by this one or given up.
    pub fn settle_left(&self) {
        let shared = self.service.shared();
        if shared.lock().left.take().is_some() {
            shared.wake();
        }
    }

    /// Stops the watchdog now if no lock is in use, instead of a little later. Waits up to `bound`.
    pub fn rest(&self, bound: Duration) {
        let shared = self.service.shared();
        let mut state = shared.lock();
        state.rest = true;
        shared.wake();
        let _ = self
            .done
            .wait_timeout_while(state, bound, |state| state.armed && state.need().first.is_none());
    }
}

struct Worker {
    shared: Arc<Shared<WatchdogState>>,
    done: Arc<Condvar>,
    policy: Policy,
    device: Box<dyn WatchdogDevice>,
    note: Note<Option<Instant>>,
    /// The log has a message that the watchdog cannot be used.
    failing: bool,
    /// The log has a message that the watchdog is not fed any more.
    left: bool,
}

impl Worker {
    fn run(mut self) {
        loop {
            let need = {
                let mut state = self.shared.lock();
                if state.quits() {
                    return;
                }
                let need = state.need();
                state.stepping = true;
                state.noted &= need.first.is_some();
                need
            };
            let now = clock::now();
            let step = self.policy.step(need, now);
            let done = self.carry_out(step, need, now);
            let mut state = self.shared.lock();
            state.fed = self.policy.is_fed();
            state.armed = self.policy.is_armed();
            state.noted = need.first.is_some() && done.is_ok();
            state.stepping = false;
            state.steps += 1;
            state.error = done.err().map(|error| error.to_string());
            self.done.notify_all();
            if state.quits() {
                return;
            }
            if state.need().is_more_urgent_than(&need) {
                continue;
            }
            self.shared.wait(state, self.policy.pause());
        }
    }

    fn carry_out(&mut self, step: Step, need: Need, now: Instant) -> io::Result<()> {
        // The note exists before the watchdog runs, and as long as it runs.
        let done = match step {
            Step::Wait => Ok(()),
            Step::Feed => self.write_note(need, now).and_then(|()| self.device.feed()),
            Step::Leave => self.write_last_note(need, now).and_then(|()| self.device.leave()),
            Step::Disarm => self.device.disarm().map(|()| self.note.remove()),
        };
        if done.is_err() && !self.policy.is_armed() {
            // The watchdog may have been started, but nothing was promised yet. Where it certainly
            // does not run, the next lvmlockd must not believe that it does.
            if self.device.undo().is_ok() {
                self.note.remove();
            }
        }
        match &done {
            Ok(()) => {
                self.tell(step, need, now);
                self.policy.done(step, now);
            }
            Err(error) if !core::mem::replace(&mut self.failing, true) => {
                log::error!("the watchdog cannot be used: {error}");
            }
            Err(_) => {}
        }
        if step != Step::Wait && done.is_ok() {
            self.failing = false;
        }
        done
    }

    /// Also fails if so much time has passed that the decision does not hold any more.
    fn write_note(&self, need: Need, now: Instant) -> io::Result<()> {
        self.note.write(&need.first)?;
        self.check_time(now)
    }

    /// The same for the last feed, which is made without a note as well: an open device would be
    /// fed once more by a death.
    fn write_last_note(&mut self, need: Need, now: Instant) -> io::Result<()> {
        if let (Err(error), false) = (self.note.write(&need.first), self.left) {
            log::warn!("the date of the watchdog is not noted: {error}");
        }
        self.check_time(now)
    }

    fn check_time(&self, now: Instant) -> io::Result<()> {
        match clock::now().since(now) <= self.policy.feeding().notice {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, "this host is too slow")),
        }
    }

    fn tell(&mut self, step: Step, need: Need, now: Instant) {
        match step {
            Step::Feed if !self.policy.is_armed() => log::debug!("the watchdog is fed"),
            Step::Feed if core::mem::take(&mut self.left) => {
                log::warn!("the watchdog is fed again: all locks are renewed, or given back");
            }
            Step::Leave if !core::mem::replace(&mut self.left, true) => log::error!(
                "the watchdog is not fed any more: locks may be lost in {} ms. It resets this host \
                 before that, unless they are renewed or given back (\"lvmlockctl --drop\")",
                need.first.unwrap_or(now).since(now).as_millis()
            ),
            Step::Disarm => {
                self.left = false;
                log::debug!("the watchdog is stopped");
            }
            Step::Wait
                if self.policy.is_dead(now) && !core::mem::replace(&mut self.failing, true) =>
            {
                log::error!(
                    "the watchdog should have reset this host and has not; reset it, and do not \
                     rely on this watchdog"
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fencing::{Fencing, FencingConfig};
    use crate::state::file;
    use crate::sys::sync::Mutex;
    use idm_engine::Timing;

    const SOON: Duration = Duration::from_secs(5);

    /// A watchdog that records each action as a word.
    #[derive(Clone, Default)]
    struct FakeWatchdog(Arc<Mutex<Vec<&'static str>>>, Arc<Mutex<Option<&'static str>>>);

    impl FakeWatchdog {
        fn note(&self, what: &'static str) -> io::Result<()> {
            if let Some(why) = *self.1.lock() {
                return Err(io::Error::other(why));
            }
            self.0.lock().push(what);
            Ok(())
        }

        fn last(&self) -> Option<&'static str> {
            self.0.lock().last().copied()
        }

        fn wait_for(&self, what: &str) {
            let begin = std::time::Instant::now();
            while self.last() != Some(what) {
                // It is due within 3.5 s; the machine may be busy.
                assert!(begin.elapsed() < SOON * 12, "{what}: {:?}", *self.0.lock());
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    impl WatchdogDevice for FakeWatchdog {
        fn feed(&mut self) -> io::Result<()> {
            self.note("feed")
        }
        fn leave(&mut self) -> io::Result<()> {
            self.note("leave")
        }
        fn disarm(&mut self) -> io::Result<()> {
            self.note("disarm")
        }
        fn undo(&mut self) -> io::Result<()> {
            match self.last() {
                Some("feed") => self.disarm(),
                _ => Ok(()),
            }
        }
    }

    fn feeding() -> Feeding {
        let timing = Timing::for_lease(Duration::from_secs(60));
        let wanted = FencingConfig { kill_time: None, watchdog: Some(None) };
        Fencing::new(&timing, wanted).unwrap().watchdog.unwrap()
    }

    fn safe() -> Instant {
        clock::now() + Duration::from_secs(60)
    }

    fn start(device: &FakeWatchdog, directory: &Path) -> Watchdog {
        Watchdog::start(Box::new(device.clone()), feeding(), directory).unwrap()
    }

    /// A watchdog that was armed for locks that are safe until then.
    fn armed(until: Instant) -> (tempfile::TempDir, FakeWatchdog, Watchdog, ArmGuard) {
        let (directory, device) = (tempfile::tempdir().unwrap(), FakeWatchdog::default());
        let watchdog = start(&device, directory.path());
        let claim = watchdog.keep_armed(until, SOON).unwrap_or_else(|why| panic!("{why}"));
        (directory, device, watchdog, claim)
    }

    #[test]
    fn it_runs_before_a_lock_is_taken_and_rests_when_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let device = FakeWatchdog::default();
        let watchdog = start(&device, directory.path());
        assert_eq!(device.last(), None);
        let claim = watchdog.keep_armed(safe(), SOON).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(device.last(), Some("feed"));
        watchdog.protect(Some(safe()));
        drop(claim);
        watchdog.rest(Duration::from_millis(50));
        assert_eq!(device.last(), Some("feed"), "a lock is in use");
        watchdog.protect(None);
        watchdog.rest(SOON);
        assert_eq!(device.last(), Some("disarm"));
        assert!(!Watchdog::was_left(directory.path()));
    }

    #[test]
    fn what_cannot_be_armed_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let device = FakeWatchdog::default();
        *device.1.lock() = Some("busy");
        let watchdog = start(&device, directory.path());
        assert_eq!(watchdog.keep_armed(safe(), SOON).err().as_deref(), Some("busy"));
        assert!(!Watchdog::was_left(directory.path()), "it does not run");
        *device.1.lock() = None;
        assert!(watchdog.keep_armed(safe(), SOON).is_ok());
    }

    #[test]
    fn an_unsafe_lock_is_not_fed_for_until_it_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let device = FakeWatchdog::default();
        let watchdog = start(&device, directory.path());
        let claim = watchdog.keep_armed(safe(), SOON);
        let feeding = feeding();
        // Just before the last feed.
        let until = clock::now() + feeding.timeout + feeding.late + Duration::from_secs(1);
        watchdog.protect(Some(until));
        device.wait_for("leave");
        assert!(watchdog.keep_armed(safe(), SOON).is_err(), "nothing is to be had now");
        watchdog.protect(None);
        drop(claim);
        watchdog.rest(SOON);
        assert_eq!(device.last(), Some("disarm"));
    }

    /// Held locks are kept, also where there is no room for notes. The note is written in place.
    #[test]
    fn a_host_whose_locks_are_renewed_is_fed_for_where_the_note_cannot_be_written_anew() {
        let (directory, device, watchdog, claim) = armed(safe());
        watchdog.protect(Some(safe()));
        drop(claim);
        std::thread::sleep(Duration::from_millis(200));
        file::obstruct(&directory.path().join(FILE));
        let before = device.0.lock().len();
        // The reset would follow at the end of this time.
        let end = std::time::Instant::now() + feeding().timeout;
        while std::time::Instant::now() < end {
            watchdog.protect(Some(safe()));
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(device.0.lock().len() > before, "not fed for {:?}", feeding().timeout);
    }

    /// Otherwise the device is still open when its reset is near, and a death of lvmlockd then
    /// closes it, which feeds it once more.
    #[test]
    fn the_last_feed_closes_the_device_where_the_note_cannot_be_written_anew() {
        let (directory, device, watchdog, claim) = armed(safe());
        file::obstruct(&directory.path().join(FILE));
        let feeding = feeding();
        // The last feed is due within this time.
        let time = Duration::from_secs(4);
        let until = clock::now() + feeding.timeout + feeding.late + time;
        watchdog.protect(Some(until));
        std::thread::sleep(time + Duration::from_secs(1));
        assert_eq!(device.last(), Some("leave"));
        drop(claim);
    }

    #[test]
    fn the_next_life_goes_on_feeding_until_what_was_left_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let device = FakeWatchdog::default();
        let first = start(&device, directory.path());
        // The process dies between the claim and the lock.
        let claim = first.keep_armed(safe(), SOON);
        drop(first);
        drop(claim);
        assert!(Watchdog::was_left(directory.path()));
        let device = FakeWatchdog::default();
        let second = start(&device, directory.path());
        device.wait_for("feed");
        second.rest(Duration::from_millis(50));
        assert_eq!(device.last(), Some("feed"), "locks were left");
        second.settle_left();
        second.rest(SOON);
        assert_eq!(device.last(), Some("disarm"));
    }

    /// The date in the note is about to pass, while the locks are safe.
    #[test]
    fn the_next_life_feeds_on_where_the_note_could_not_be_written_anew() {
        let feeding = feeding();
        let soon = clock::now() + feeding.timeout + feeding.late + Duration::from_secs(4);
        let (directory, device, first, claim) = armed(soon);
        file::obstruct(&directory.path().join(FILE));
        first.protect(Some(safe()));
        drop(claim);
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(device.last(), Some("feed"));
        drop(first);
        let device = FakeWatchdog::default();
        let _second = start(&device, directory.path());
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(device.last(), Some("feed"));
    }

    /// Otherwise the next life would not know that the watchdog runs.
    #[test]
    fn what_cannot_be_noted_is_not_fed_for() {
        let (directory, device, watchdog, claim) = armed(safe());
        file::obstruct(&directory.path().join(FILE));
        std::fs::remove_file(directory.path().join(FILE)).unwrap();
        let before = device.0.lock().len();
        let feeding = feeding();
        watchdog.protect(Some(clock::now() + 2 * (feeding.timeout + feeding.late)));
        std::thread::sleep(2 * feeding.interval);
        assert_eq!(device.0.lock().len(), before);
        drop(claim);
    }
}
