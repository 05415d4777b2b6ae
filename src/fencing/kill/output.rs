//! The output of a kill command, for the log.
//!
//! The command prints into a file in memory. With a pipe, SIGPIPE would end the command if lvmlockd
//! died meanwhile, and a full pipe would block it.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Stdio;

/// Bytes that are read at most. A command that prints more is not stopped.
const SIZE: u64 = 1 << 20;
/// Lines that the log gets at most, and bytes of each line.
const LINES: usize = 100;
const WIDTH: usize = 400;

/// The output of one command.
pub struct Output {
    file: File,
    /// Bytes read so far.
    read: u64,
    /// Lines logged so far.
    told: usize,
}

impl Output {
    pub fn new() -> io::Result<Output> {
        let file = File::from(memfd_create(c"kill-command", MFdFlags::MFD_CLOEXEC)?);
        Ok(Output { file, read: 0, told: 0 })
    }

    /// The command's standard output, or its standard error.
    pub fn stdio(&self) -> io::Result<Stdio> {
        self.file.try_clone().map(Stdio::from)
    }

    /// The new lines; `at_end` includes a last line without a newline.
    pub fn lines(&mut self, at_end: bool) -> Vec<String> {
        // A command that reopens its output, as `> /dev/stderr` does, truncates the file.
        let written = self.file.metadata().map_or(0, |file| file.len()).min(SIZE);
        self.read = self.read.min(written);
        let mut bytes = vec![0; written.saturating_sub(self.read) as usize];
        if self.file.read_exact_at(&mut bytes, self.read).is_err() {
            return Vec::new();
        }
        if !at_end {
            bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1));
        }
        self.read += bytes.len() as u64;
        let mut lines = Vec::new();
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match self.told {
                LINES => lines.push("its further output is left out".to_owned()),
                told if told > LINES => break,
                _ => lines.push(printable(line)),
            }
            self.told += 1;
        }
        lines
    }
}

/// A line for the log, cut where it is too long.
fn printable(line: &[u8]) -> String {
    let cut = &line[..line.len().min(WIDTH)];
    let more = if cut.len() < line.len() { "…" } else { "" };
    let text: String = String::from_utf8_lossy(cut)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text + more
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn whole_lines_are_told_while_it_runs_and_the_rest_at_the_end() {
        let mut output = Output::new().unwrap();
        let mut command = output.file.try_clone().unwrap();
        assert!(output.lines(false).is_empty());
        command.write_all(b"one\n\ntwo\tof\x1b it\nthr").unwrap();
        assert_eq!(output.lines(false), ["one", "two of  it"]);
        assert!(output.lines(false).is_empty());
        command.write_all(b"ee").unwrap();
        assert_eq!(output.lines(true), ["three"]);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let mut output = Output::new().unwrap();
        let mut command = output.file.try_clone().unwrap();
        command.write_all(&vec![b'x'; 5000]).unwrap();
        command.write_all("\nnoise".repeat(200).as_bytes()).unwrap();
        let lines = output.lines(true);
        assert_eq!(lines[0], "x".repeat(WIDTH) + "…");
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(lines[LINES], "its further output is left out");
        command.write_all(&vec![b'x'; 2 * SIZE as usize]).unwrap();
        assert!(output.lines(true).is_empty());
    }

    #[test]
    fn a_command_that_opens_its_output_anew_goes_on() {
        let mut output = Output::new().unwrap();
        let script = "set -e; echo one; echo two >/dev/stderr; echo three >>/dev/stderr; echo four";
        let status = std::process::Command::new("sh")
            .args(["-c", script])
            .stdout(output.stdio().unwrap())
            .stderr(output.stdio().unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        assert!(output.lines(true).iter().any(|line| line.contains("four")));
    }
}
