//! The live view of `idmctl status --watch`: a table that is drawn in place, and keys that sort it.
//!
//! Drives are read by the caller. Keys are read by a thread of their own, so they work while the
//! caller waits for a drive. The terminal gets its old mode before the program ends: by the key
//! that ends it, by an error or a panic of the caller, and before a signal ends or stops it.

use crate::cli::SortKey;
use crate::status::{exit, parts, sort};
use crate::view::View;
use crate::{Exit, Trouble};
use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios};
use rustix::termios::{tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::io::{self, IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::process::exit as end;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Signals that end the program, or stop it and let it go on.
const SIGNALS: [i32; 6] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT];

/// Whether the output goes to a terminal on which a table can be drawn in place.
pub fn is_possible() -> bool {
    let can_move = std::env::var("TERM").is_ok_and(|term| !term.is_empty() && term != "dumb");
    stdout().is_terminal() && can_move
}

/// A view on the terminal.
pub struct Live {
    screen: Arc<Mutex<Screen>>,
    // Dropped with this, which gives its mode back.
    _keys: Option<Restored>,
}

impl Live {
    /// Begins, with keys if they come from a terminal that this program may change.
    pub fn begin(sort: Option<SortKey>) -> Result<Live, Trouble> {
        let keys = stdin().is_terminal() && is_foreground(&stdin());
        let screen = Arc::new(Mutex::new(Screen { seen: None, sort, keys }));
        if !keys {
            return Ok(Live { screen, _keys: None });
        }
        let begin = || -> io::Result<Restored> {
            let terminal = Arc::new(Terminal::of(&stdin())?);
            // Before the mode changes, so that no signal comes between.
            let signals = Signals::new(SIGNALS)?;
            let restored = Restored(terminal.clone());
            terminal.read_keys()?;
            let (of_signals, of_keys) = (terminal.clone(), screen.clone());
            thread::spawn(move || obey_signals(signals, &of_signals));
            thread::spawn(move || obey_keys(&of_keys, &terminal));
            Ok(restored)
        };
        let restored = begin().map_err(|error| {
            Trouble::new(error.to_string(), "the terminal", "redirect the input: </dev/null")
        })?;
        Ok(Live { screen, _keys: Some(restored) })
    }

    /// Shows a view that was read at that time, in ms since 1970.
    pub fn show(&self, view: View, now_ms: u64) {
        let mut screen = locked(&self.screen);
        screen.seen = Some((view, now_ms));
        screen.draw();
    }
}

/// The content of the screen, and its order.
struct Screen {
    seen: Option<(View, u64)>,
    sort: Option<SortKey>,
    keys: bool,
}

fn locked(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
    // It is whole at any moment.
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Screen {
    fn draw(&self) {
        let Some((view, now_ms)) = &self.seen else { return };
        let mut view = view.clone();
        if let Some(key) = self.sort {
            sort(&mut view, key);
        }
        let (table, rest) = parts(&view, *now_ms);
        let mut text = if self.keys { keys(self.sort) } else { String::new() };
        let size = tcgetwinsize(stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
        text.push_str(&match size {
            Some(size) => {
                // The last line is for progress.
                let rows = usize::from(size.ws_row) - 1;
                let above = text.lines().count();
                fit(&table, &rest, rows.saturating_sub(above), usize::from(size.ws_col))
            }
            None => table + &rest,
        });
        if AutoStream::choice(&stdout()) == ColorChoice::Never {
            text = strip_str(&text).to_string();
        }
        // Home; each line with nothing behind it; nothing below.
        let text = format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"));
        // A terminal that is gone ends the program by a signal or by the end of its keys.
        let mut stdout = stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    fn exit(&self) -> Exit {
        self.seen.as_ref().map_or(Exit::Good, |(view, _)| exit(view))
    }
}

/// The line that shows the keys.
fn keys(sort: Option<SortKey>) -> String {
    let by = match sort {
        None => "lock",
        Some(SortKey::Host) => "host",
        Some(SortKey::Age) => "age",
        Some(SortKey::Left) => "lease left",
    };
    format!("Sorted by {by}. Keys: h host, a age, l lease left, d lock (default), q quit\n")
}

/// As much of a table as there is room for below the keys, then the rest, which has the remarks.
fn fit(table: &str, rest: &str, rows: usize, columns: usize) -> String {
    let height = |line: &str| strip_str(line).to_string().chars().count().div_ceil(columns).max(1);
    let all = |text: &str| text.lines().map(height).sum::<usize>();
    let room = rows.saturating_sub(all(rest));
    if all(table) <= room {
        return format!("{table}{rest}");
    }
    let mut text = String::new();
    // One row is for the line below.
    let (mut used, mut left) = (1, table.lines().count());
    for line in table.lines() {
        used += height(line);
        if used > room {
            break;
        }
        left -= 1;
        text.push_str(&format!("{line}\n"));
    }
    format!("{text}({left} more lines: enlarge the window, or name a VG with --vg)\n{rest}")
}

/// Acts on keys, until one ends the program.
fn obey_keys(screen: &Mutex<Screen>, terminal: &Terminal) {
    let mut byte = [0];
    loop {
        let key = match stdin().read(&mut byte) {
            Ok(1) => byte[0],
            // The terminal is gone.
            _ => b'q',
        };
        let mut screen = locked(screen);
        screen.sort = match key {
            b'h' => Some(SortKey::Host),
            b'a' => Some(SortKey::Age),
            b'l' => Some(SortKey::Left),
            b'd' => None,
            b'q' => {
                terminal.restore();
                end(screen.exit().code().into());
            }
            _ => continue,
        };
        screen.draw();
    }
}

/// Restores the terminal's old mode before a signal has its usual effect, and sets the mode for
/// keys again afterwards.
fn obey_signals(mut signals: Signals, terminal: &Terminal) {
    for signal in &mut signals {
        if signal == SIGCONT {
            // A shell may have changed it meanwhile.
            let _ = terminal.read_keys();
        } else {
            terminal.restore();
            let _ = emulate_default_handler(signal);
        }
    }
}

/// A terminal, with the mode that it had.
struct Terminal {
    file: OwnedFd,
    saved: Termios,
}

impl Terminal {
    fn of(file: &impl AsFd) -> io::Result<Terminal> {
        let file = file.as_fd().try_clone_to_owned()?;
        let saved = tcgetattr(&file)?;
        Ok(Terminal { file, saved })
    }

    /// Sets the mode in which keys are read one by one, and not shown.
    fn read_keys(&self) -> io::Result<()> {
        let mut mode = self.saved.clone();
        mode.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        self.set(&mode)
    }

    fn restore(&self) {
        // A terminal that is gone has no mode.
        let _ = self.set(&self.saved);
    }

    /// Sets a mode, unless the terminal is another job's now, which has set its own.
    fn set(&self, mode: &Termios) -> io::Result<()> {
        if is_foreground(&self.file) {
            tcsetattr(&self.file, OptionalActions::Now, mode)?;
        }
        Ok(())
    }
}

/// Whether this program may change a terminal: one that controls no session, or this one.
fn is_foreground(terminal: &impl AsFd) -> bool {
    tcgetpgrp(terminal).map_or(true, |group| group == getpgrp())
}

/// Guard that restores the terminal's old mode when it is dropped.
struct Restored(Arc<Terminal>);

impl Drop for Restored {
    fn drop(&mut self) {
        self.0.restore();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let pseudo = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&pseudo).unwrap();
        let user = ioctl_tiocgptpeer(&pseudo, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let modes = || tcgetattr(&user).unwrap().local_modes;
        let before = modes();
        assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO));
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let terminal = Restored(Arc::new(Terminal::of(&user).unwrap()));
            terminal.0.read_keys().unwrap();
            assert!(!modes().intersects(LocalModes::ICANON | LocalModes::ECHO));
            panic!("as a defect would");
        }));
        assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"as a defect would"));
        assert_eq!(modes(), before);
    }

    #[test]
    fn a_long_table_leaves_room_for_remarks() {
        let (table, rest) = ("HEAD\n1\n2\n3\n", "\x1b[31m*\x1b[0m a remark\n");
        assert_eq!(fit(table, rest, 5, 80), format!("{table}{rest}"));
        let cut = "(2 more lines: enlarge the window, or name a VG with --vg)";
        assert_eq!(fit(table, rest, 4, 80), format!("HEAD\n1\n{cut}\n{rest}"));
        // A remark that is wrapped takes more.
        assert_eq!(fit(table, rest, 5, 9), format!("HEAD\n1\n{cut}\n{rest}"));
        assert!(fit(table, rest, 0, 80).ends_with(rest));
    }
}
