//! Output for people: tables, colours, progress.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

/// The style of errors.
pub const ALARM: Style = AnsiColor::Red.on_default().bold();
/// The style of warnings.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// The style of good news.
pub const GOOD: Style = AnsiColor::Green.on_default();

/// The time before the first progress message.
const QUIET: Duration = Duration::from_secs(2);

/// A table as text: the head, then the rows.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A line in a colour, where there are colours.
pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A duration in few characters.
pub fn short(ms: u64) -> String {
    match ms {
        0..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        120_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// Progress messages, on terminals only.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    /// The message on the terminal; empty where there is none.
    shown: String,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { terminal: stderr().is_terminal(), shown: String::new() }
    }
}

impl Progress {
    /// Shows the names whose answers have been awaited for `waited`, of at most `time`.
    pub fn wait_for(&mut self, names: &[&str], waited: Duration, time: Duration) {
        if waited < QUIET {
            return;
        }
        let (waited, time) = (waited.as_secs_f64(), time.as_secs_f64());
        let names = names.join(", ");
        self.say(&format!("waiting for {names}: {waited:.1} s of {time:.1} s"));
    }

    /// Shows that an action is under way.
    pub fn say(&mut self, what: &str) {
        if self.terminal && self.shown != what {
            self.shown = what.to_owned();
            let _ = write!(stderr(), "\r\x1b[K{what}");
        }
    }

    /// Removes the message.
    pub fn done(&mut self) {
        if !self.shown.is_empty() {
            self.shown.clear();
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_heads() {
        let rows = [vec!["vg0".to_owned(), "ex".to_owned()], vec!["a".to_owned(), String::new()]];
        assert_eq!(table(&["LOCK", "MODE"], &rows), "LOCK  MODE\nvg0   ex\na\n");
    }

    #[test]
    fn times_are_short() {
        for (ms, text) in [
            (0, "0.0 s"),
            (59_940, "59.9 s"),
            (119_940, "119.9 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(short(ms), text);
        }
    }
}
