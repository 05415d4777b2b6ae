//! Connects the [`log`] crate to lvmlockd's log; without lvmlockd to syslog or stderr.

use super::log_queue::LogQueue;
use super::symbols::{self, LogLevel};
use crate::sys::thread;
use core::ffi::c_int;
use core::time::Duration;
use log::{Level, LevelFilter, Log, Metadata, Record};
use once_cell::sync::OnceCell;
use std::ffi::CString;
use std::io::{self, IsTerminal, Write};

/// The log of this process.
struct Logger {
    destination: Destination,
    /// Queue for the messages of the library's own threads. Without its thread, they write to the
    /// log themselves.
    queue: OnceCell<Option<LogQueue>>,
}

/// Destination of the lines.
#[derive(Clone, Copy)]
enum Destination {
    /// lvmlockd's `log_level`: its ring buffer (`lvmlockctl --dump`), syslog, stderr with `-D`.
    Lvmlockd(LogLevel),
    Syslog,
    Stderr,
}

/// Bytes that lvmlockd's line of 255 bytes leaves to us, after its time stamp and before its
/// newline (docs/lvmlockd-contract.md, "What core exports").
const LINE: usize = 240;

/// Wait of the ending process for the queue.
const FLUSH: Duration = Duration::from_millis(100);

/// Prefix that distinguishes our lines from core's.
const PREFIX: &str = "idm: ";

/// Installs the logger for the messages of this library. Only the first call has an effect.
pub fn install() {
    static LOGGER: OnceCell<Logger> = OnceCell::new();
    let logger =
        LOGGER.get_or_init(|| Logger { destination: destination(), queue: OnceCell::new() });
    if log::set_logger(logger).is_ok() {
        // Debug messages go only into lvmlockd's ring buffer, unless lvmlockd runs with -D.
        log::set_max_level(LevelFilter::Debug);
    }
}

/// lvmlockd's own log where there is one. Otherwise stderr, if it is a terminal or the environment
/// has `LVMLOCKD_IDM_LOG=stderr`; else syslog.
fn destination() -> Destination {
    if let Some(log_level) = symbols::log_level() {
        return Destination::Lvmlockd(log_level);
    }
    let wanted = std::env::var_os("LVMLOCKD_IDM_LOG").is_some_and(|to| to == "stderr");
    if wanted || io::stderr().is_terminal() { Destination::Stderr } else { Destination::Syslog }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (priority, message) = (priority(record.level()), record.args().to_string());
        match thread::is_ours().then(|| self.queue()).flatten() {
            Some(queue) => queue.push(priority, message),
            None => self.destination.write(priority, &message),
        }
    }

    /// Waits for the queue to be written, but only briefly: the process ends.
    fn flush(&self) {
        if let Some(Some(queue)) = self.queue.get() {
            queue.flush(FLUSH);
        }
    }
}

impl Logger {
    fn queue(&self) -> Option<&LogQueue> {
        let destination = self.destination;
        let start =
            || LogQueue::start(move |priority, text| destination.write(priority, text)).ok();
        self.queue.get_or_init(start).as_ref()
    }
}

impl Destination {
    fn write(self, priority: c_int, message: &str) {
        for line in lines(message) {
            self.write_line(priority, line);
        }
    }

    fn write_line(self, priority: c_int, line: String) {
        match self {
            Destination::Stderr => {
                // A closed stderr cannot be reported anywhere.
                let _ = writeln!(io::stderr(), "{line}");
            }
            Destination::Lvmlockd(log_level) => {
                if let Ok(line) = CString::new(line) {
                    // SAFETY: core's function of this name is a printf with a priority.
                    unsafe { log_level(priority, c"%s".as_ptr(), line.as_ptr()) };
                }
            }
            Destination::Syslog => {
                if let Ok(line) = CString::new(line) {
                    // SAFETY: format and argument agree.
                    unsafe { libc::syslog(priority, c"%s".as_ptr(), line.as_ptr()) };
                }
            }
        }
    }
}

/// The syslog priority, which is also the level for lvmlockd's `log_level`. lvmlockd records only
/// errors, warnings and debug messages.
fn priority(level: Level) -> c_int {
    match level {
        Level::Error => libc::LOG_ERR,
        Level::Warn => libc::LOG_WARNING,
        Level::Info | Level::Debug | Level::Trace => libc::LOG_DEBUG,
    }
}

/// Splits the message between words into lines that fit. Control characters are made visible, so
/// that no text from outside (names, drive replies) can forge a line.
fn lines(message: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::from(PREFIX);
    for word in visible(message).split_inclusive(' ') {
        for piece in pieces(word, LINE - PREFIX.len()) {
            if line.len() + piece.len() > LINE {
                lines.push(core::mem::replace(&mut line, String::from(PREFIX)));
            }
            line.push_str(piece);
        }
    }
    lines.push(line);
    lines
}

/// The message without control characters.
fn visible(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

/// Splits a word that fits on no line into pieces of at most `limit` bytes.
fn pieces(word: &str, limit: usize) -> impl Iterator<Item = &str> {
    let mut rest = word;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = rest.len().min(limit);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_message_is_one_line() {
        assert_eq!(lines("lock granted"), ["idm: lock granted"]);
        assert_eq!(lines(""), ["idm: "]);
    }

    #[test]
    fn long_message_breaks_between_words() {
        let message = "drive ".repeat(60);
        let lines = lines(&message);
        assert_eq!(lines.len(), 2);
        for line in &lines {
            assert!(line.len() <= LINE);
            assert!(line.starts_with("idm: drive "));
            assert!(line.ends_with("drive "));
        }
    }

    #[test]
    fn control_characters_cannot_forge_lines() {
        assert_eq!(lines("a\nidm: b\0c\u{1b}[0m"), ["idm: a\\nidm: b\\u{0}c\\u{1b}[0m"]);
    }

    #[test]
    fn priorities_are_lvmlockds() {
        assert_eq!(priority(Level::Error), 3);
        assert_eq!(priority(Level::Warn), 4);
        assert_eq!(priority(Level::Info), 7);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_every_line_fits(message in "[a-zé \\n\\PC]{0,900}") {
            let mut joined = String::new();
            for line in lines(&message) {
                prop_assert!(line.len() <= LINE);
                prop_assert!(!line.contains(char::is_control));
                joined.push_str(line.strip_prefix(PREFIX).unwrap());
            }
            prop_assert_eq!(joined, visible(&message));
        }
    }
}
