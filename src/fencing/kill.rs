//! The kill command: stops the use of a volume group whose locks are about to be lost.

mod output;

use crate::fencing::Fencing;
use crate::sys::thread;
use crate::words::{are, plural};
use core::time::Duration;
use idm_engine::Instant;
use nix::sys::signal::SigSet;
use output::Output;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Interval at which its output is read.
const LOOK: Duration = Duration::from_millis(50);

/// The outcome of a kill command.
#[derive(Debug)]
pub enum Ended {
    /// It ran.
    Exited(ExitStatus),
    /// It could not be started: no memory, no process or no such program. It is tried again.
    NotBegun(io::Error),
    /// It was started, and its exit status is not known.
    Unknown(io::Error),
}

/// Runs the kill command in a separate thread, reaps it there and passes the outcome to `ended`.
///
/// `words` holds the program and its arguments. No shell is involved.
pub fn run(words: Vec<String>, ended: impl FnOnce(Ended) + Send + 'static) -> io::Result<()> {
    thread::spawn("idm-kill", move || ended(execute(&words))).map(drop)
}

fn execute(words: &[String]) -> Ended {
    #[cfg(all(test, feature = "shuttle"))]
    if let Some(ended) = crate::runtime::schedules::executed(words) {
        return ended;
    }
    run_logged(words, |line| log::warn!("{}: {line}", words.join(" ")))
}

/// Runs a command and passes each line that it prints to `tell`.
fn run_logged(words: &[String], tell: impl Fn(&str)) -> Ended {
    // The command runs even where there is no memory for its output.
    let mut output = Output::new().ok();
    let mut child = match begin(words, output.as_ref()) {
        Ok(child) => child,
        Err(error) => return Ended::NotBegun(error),
    };
    let mut tell_all = |at_end| {
        let lines = output.as_mut().map(|output| output.lines(at_end));
        lines.iter().flatten().for_each(|line| tell(line));
    };
    let ended = loop {
        match child.try_wait() {
            Ok(None) => tell_all(false),
            Ok(Some(status)) => break Ended::Exited(status),
            Err(error) => break Ended::Unknown(error),
        }
        std::thread::sleep(LOOK);
    };
    tell_all(true);
    ended
}

fn begin(words: &[String], output: Option<&Output>) -> io::Result<Child> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let stdio = || output.and_then(|output| output.stdio().ok()).unwrap_or_else(Stdio::null);
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(stdio()).stderr(stdio());
    // SAFETY: between fork and exec the closure only makes system calls that are
    // async-signal-safe; it allocates nothing and takes no lock. Our threads block all signals,
    // and the child would inherit that.
    unsafe {
        command.pre_exec(|| {
            keep_no_descriptors();
            SigSet::empty().thread_set_mask().map_err(io::Error::from)
        });
    }
    command.spawn()
}

/// Makes exec close all descriptors but the standard ones. lvmlockd does not mark all of its own,
/// and if lvmlockd died, its clients would wait for the end of the command.
///
/// No descriptor is closed here, because the standard library still needs one to report a failed
/// exec.
fn keep_no_descriptors() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call touches no memory, only the marks of this process's descriptors.
    let marked = unsafe {
        let (call, all) = (libc::SYS_close_range, libc::c_uint::MAX);
        libc::syscall(call, FIRST, all, libc::CLOSE_RANGE_CLOEXEC)
    };
    if marked == 0 {
        return;
    }
    // Kernels before 5.11 take this path.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `struct rlimit`.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    let end = if known { limit.rlim_cur.min(1 << 20) } else { 1 << 20 };
    for descriptor in FIRST as libc::c_int..end as libc::c_int {
        // SAFETY: the call touches no memory; it fails where there is no such descriptor.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// A volume group that is being killed: the messages for the administrator until its locks are
/// released, and their times.
pub struct Killing {
    vg: String,
    /// The program and its arguments.
    words: Vec<String>,
    begun: Instant,
    /// Time from which other hosts may take the first of its locks; may be in the past.
    until: Instant,
    /// The next reminder and its time.
    next: Option<(Reminder, Instant)>,
    notice_before: Instant,
    /// Time of the next try, where the command could not be started or failed.
    again: Option<Instant>,
    /// Pause before that try.
    pause: Duration,
    /// Whether the command is still running.
    runs: bool,
    state: KillState,
    /// Whether locks were in use when it began and their release is not logged yet.
    in_use: bool,
    watchdog: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reminder {
    /// Half of the kill command's time has passed.
    Half,
    /// There is hardly any time left.
    Last,
}

enum KillState {
    Runs,
    Ended,
    Failed(String),
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Error or warning.
    pub level: log::Level,
    /// The message.
    pub text: String,
}

impl LogLine {
    /// Writes it to the log.
    pub fn log(&self) {
        log::log!(self.level, "{}", self.text);
    }
}

impl Killing {
    /// `until` is when the first lock may be lost; `None` if one is lost already. `held` is the
    /// number of locks in use.
    pub fn new(
        vg: &str,
        command: &[String],
        fencing: &Fencing,
        until: Option<Instant>,
        held: usize,
        now: Instant,
    ) -> Killing {
        let until = until.unwrap_or(now);
        let half = now + fencing.kill_time / 2;
        Killing {
            vg: vg.to_owned(),
            words: command.to_vec(),
            begun: now,
            until,
            next: Some((Reminder::Half, half)),
            notice_before: until - fencing.notice,
            again: None,
            pause: fencing.notice,
            runs: true,
            state: KillState::Runs,
            in_use: held > 0,
            watchdog: fencing.watchdog.is_some(),
        }
    }

    /// The next time at which [`Killing::remind`] or [`Killing::begin_again`] has something to do.
    pub fn next(&self) -> Option<Instant> {
        self.next.map(|(_, at)| at).into_iter().chain(self.again).min()
    }

    /// Whether the command is still running.
    pub fn runs(&self) -> bool {
        self.runs
    }

    /// The command, where it is time to try again and locks are still in danger.
    pub fn begin_again(&mut self, in_danger: bool, now: Instant) -> Option<Vec<String>> {
        self.again.take_if(|at| *at <= now)?;
        self.runs = in_danger;
        in_danger.then(|| self.words.clone())
    }

    /// The command line, for messages.
    fn command(&self) -> String {
        self.words.join(" ")
    }

    /// Whether nothing is left to be logged.
    pub fn is_over(&self) -> bool {
        !self.in_use && !self.runs
    }

    /// The message that is due now, with `held` of its locks still in use.
    pub fn remind(&mut self, held: usize, now: Instant) -> Option<LogLine> {
        if held == 0 {
            self.next = None;
            return core::mem::take(&mut self.in_use).then(|| self.released(now));
        }
        let (reminder, _) = self.next.filter(|&(_, at)| at <= now)?;
        self.next = match reminder {
            Reminder::Half => Some((Reminder::Last, self.notice_before.max(now))),
            Reminder::Last => None,
        };
        let (vg, command) = (&self.vg, self.command());
        let state = match &self.state {
            KillState::Runs => format!("\"{command}\" still runs"),
            KillState::Ended => format!("\"{command}\" has ended"),
            KillState::Failed(why) => format!("\"{command}\" failed ({why})"),
        };
        let text = format!(
            "volume group {vg}: {held} {} {} still in use after {} ms: {state}. {}",
            plural(held, "lock"),
            are(held),
            now.since(self.begun).as_millis(),
            self.advice(now)
        );
        Some(LogLine { level: log::Level::Error, text })
    }

    /// Records that the command has ended or could not be started. Returns the message; a failed
    /// start is reported once.
    pub fn ended(&mut self, ended: &Ended, now: Instant) -> Option<LogLine> {
        self.runs = false;
        let took = now.since(self.begun).as_millis();
        let (vg, command) = (&self.vg, self.command());
        match ended {
            Ended::Exited(status) if status.success() => {
                self.state = KillState::Ended;
                let text = format!(
                    "volume group {vg}: \"{command}\" ended well after {took} ms; its locks are \
                     released when it is dropped"
                );
                Some(LogLine { level: log::Level::Warn, text })
            }
            Ended::Exited(status) => self.failed(status.to_string(), true, now),
            Ended::Unknown(error) => self.failed(error.to_string(), true, now),
            Ended::NotBegun(error) => self.failed(error.to_string(), false, now),
        }
    }

    /// With `begun` the command has had an effect, so it is tried again only while that helps.
    fn failed(&mut self, mut why: String, begun: bool, now: Instant) -> Option<LogLine> {
        let next = now + self.pause;
        if !begun || next < self.until {
            self.again = Some(next);
            why.push_str("; it is tried again");
        }
        let text = format!(
            "volume group {}: \"{}\" failed: {why}. {}",
            self.vg,
            self.command(),
            self.advice(now)
        );
        let told = matches!(&self.state, KillState::Failed(before) if *before == why);
        self.state = KillState::Failed(why);
        (!told).then_some(LogLine { level: log::Level::Error, text })
    }

    /// The message that all locks of the volume group were released.
    fn released(&self, now: Instant) -> LogLine {
        let text = if now < self.until {
            format!(
                "volume group {}: all locks were released, {} ms before other hosts could take \
                 them",
                self.vg,
                self.until.since(now).as_millis()
            )
        } else {
            format!(
                "volume group {}: all locks were released, {} ms after other hosts could take \
                 them; check the data that was written since",
                self.vg,
                now.since(self.until).as_millis()
            )
        };
        LogLine { level: log::Level::Warn, text }
    }

    fn advice(&self, now: Instant) -> String {
        let vg = &self.vg;
        let left = self.until.since(now).as_millis();
        let when = match left {
            0 => "Other hosts may have taken its locks already".to_owned(),
            left => format!("In {left} ms other hosts may take its locks"),
        };
        let otherwise = match self.watchdog {
            true => "the watchdog will reset this host",
            false => "or reset this host",
        };
        format!(
            "{when}: deactivate its logical volumes and run \"lvmlockctl --drop {vg}\", {otherwise}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use idm_engine::Timing;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn the_commands_end_is_seen() {
        assert!(matches!(execute(&words(&["/bin/true"])), Ended::Exited(s) if s.success()));
        assert!(matches!(execute(&words(&["/bin/false"])), Ended::Exited(s) if !s.success()));
        assert!(matches!(execute(&words(&["/nonexistent/kill"])), Ended::NotBegun(_)));
        assert!(matches!(execute(&[]), Ended::NotBegun(_)));
    }

    #[test]
    fn the_command_inherits_no_descriptor_of_lvmlockds() {
        use std::os::fd::AsRawFd;
        let file = tempfile::tempfile().unwrap();
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
            .unwrap();
        let test = format!("test ! -e /proc/self/fd/{}", file.as_raw_fd());
        let ended = execute(&words(&["/bin/sh", "-c", &test]));
        assert!(matches!(ended, Ended::Exited(s) if s.success()), "{ended:?}");
    }

    #[test]
    fn what_the_command_prints_is_told() {
        let told = std::cell::RefCell::new(Vec::new());
        let tell = |line: &str| told.borrow_mut().push(line.to_owned());
        // Processes that the command leaves running are not waited for.
        let script = "sleep 5 & echo out; echo why >&2; printf 'cut off'; exit 3";
        let begin = std::time::Instant::now();
        let ended = run_logged(&words(&["/bin/sh", "-c", script]), tell);
        assert!(matches!(ended, Ended::Exited(s) if s.code() == Some(3)), "{ended:?}");
        assert_eq!(*told.borrow(), ["out", "why", "cut off"]);
        assert!(begin.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn the_command_starts_with_no_signal_blocked() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn("idm-test", move || {
            let test = "grep -q '^SigBlk:[[:space:]]*0*$' /proc/self/status";
            sender.send(execute(&words(&["/bin/sh", "-c", test]))).unwrap();
        });
        assert!(matches!(receiver.recv().unwrap(), Ended::Exited(s) if s.success()));
        thread.unwrap().join().unwrap();
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    /// A VG at 100 s that has 5 s for its deactivation; its first lock may be lost at 106 s.
    fn killing(until: Option<Instant>) -> Killing {
        let timing = Timing::for_lease(Duration::from_secs(60));
        let wanted = crate::fencing::FencingConfig {
            kill_time: Some(Duration::from_secs(5)),
            watchdog: None,
        };
        let fencing = Fencing::new(&timing, wanted).unwrap();
        assert_eq!(fencing.margin, Duration::from_secs(6));
        Killing::new("vg0", &words(&["/sbin/k", "vg0"]), &fencing, until, 3, at(100_000))
    }

    #[test]
    fn a_command_that_hangs_is_told_of_twice_while_there_is_time() {
        let mut killing = killing(Some(at(106_000)));
        assert_eq!(killing.next(), Some(at(102_500)));
        assert_eq!(killing.remind(3, at(102_499)), None);
        let half = killing.remind(3, at(102_500)).unwrap();
        assert_eq!(half.level, log::Level::Error);
        for part in ["vg0", "3 locks", "\"/sbin/k vg0\" still runs", "In 3500 ms", "--drop vg0"] {
            assert!(half.text.contains(part), "{part}: {}", half.text);
        }
        assert_eq!(killing.next(), Some(at(105_000)));
        let last = killing.remind(1, at(105_000)).unwrap();
        let text = last.text;
        assert!(text.contains("1 lock is") && text.contains("In 1000 ms"), "{text}");
        assert_eq!((killing.next(), killing.remind(1, at(200_000))), (None, None));
        let released = killing.remind(0, at(105_500)).unwrap();
        assert!(released.text.contains("500 ms before"), "{}", released.text);
        assert_eq!(killing.remind(0, at(105_501)), None, "told once");
        assert!(!killing.is_over(), "the command still runs");
        killing.ended(&execute(&words(&["/bin/true"])), at(105_600));
        assert!(killing.is_over());
    }

    #[test]
    fn a_command_that_fails_is_told_of_at_once_and_again() {
        let mut killing = killing(Some(at(106_000)));
        let failed = killing.ended(&execute(&words(&["/bin/false"])), at(101_000)).unwrap();
        assert_eq!(failed.level, log::Level::Error);
        assert!(failed.text.contains("failed: exit status: 1"), "{}", failed.text);
        assert!(failed.text.contains("In 5000 ms"), "{}", failed.text);
        assert!(failed.text.contains("tried again"), "{}", failed.text);
        assert!(!killing.runs() && killing.begin_again(true, at(102_000)).is_some());
        assert!(killing.runs());
        let half = killing.remind(2, at(103_000)).unwrap();
        assert!(half.text.contains("failed (exit status: 1"), "{}", half.text);
        // Only while it helps.
        let late = killing.ended(&execute(&words(&["/bin/false"])), at(105_000)).unwrap();
        assert!(!late.text.contains("tried again"), "{}", late.text);
        assert_eq!(killing.begin_again(true, at(200_000)), None);
    }

    #[test]
    fn a_command_that_failed_is_not_run_again_when_the_danger_is_over() {
        let mut killing = killing(Some(at(106_000)));
        killing.ended(&execute(&words(&["/bin/false"])), at(101_000));
        assert_eq!(killing.begin_again(false, at(102_000)), None);
        assert!(!killing.runs());
        assert_eq!(killing.begin_again(true, at(102_001)), None);
    }

    #[test]
    fn a_command_that_cannot_be_begun_is_tried_again_and_told_of_once() {
        let mut killing = killing(Some(at(106_000)));
        let no_memory = || Ended::NotBegun(io::ErrorKind::OutOfMemory.into());
        assert!(killing.ended(&no_memory(), at(100_000)).unwrap().text.contains("tried again"));
        assert_eq!(killing.next(), Some(at(101_000)));
        assert_eq!(killing.begin_again(true, at(100_999)), None);
        assert_eq!(killing.begin_again(true, at(101_000)), Some(words(&["/sbin/k", "vg0"])));
        assert_eq!(killing.begin_again(true, at(101_001)), None, "one at a time");
        assert_eq!(killing.ended(&no_memory(), at(101_001)), None);
        assert!(killing.begin_again(true, at(102_001)).is_some());
        killing.ended(&execute(&words(&["/bin/true"])), at(102_100));
        assert_eq!(killing.begin_again(true, at(200_000)), None);
    }

    #[test]
    fn a_command_that_ended_well_may_have_done_nothing() {
        let mut killing = killing(Some(at(106_000)));
        let ended = killing.ended(&execute(&words(&["/bin/true"])), at(100_100)).unwrap();
        assert_eq!(ended.level, log::Level::Warn);
        assert!(killing.remind(2, at(103_000)).unwrap().text.contains("has ended"));
        assert!(!killing.is_over());
        let late = killing.remind(0, at(107_000)).unwrap();
        assert!(late.text.contains("1000 ms after"), "{}", late.text);
        assert!(killing.is_over());
    }

    #[test]
    fn a_lock_that_is_lost_already_leaves_no_time() {
        let mut killing = killing(None);
        let half = killing.remind(1, at(102_500)).unwrap();
        assert!(half.text.contains("may have taken its locks already"), "{}", half.text);
        assert!(killing.remind(1, at(102_500)).is_some());
        assert_eq!(killing.next(), None);
    }
}
