//! The kill command: what stops the use of a volume group whose locks are about to be lost.

use super::thread;
use nix::sys::signal::SigSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs the kill command for a VG in a thread of its own, and reaps it there.
///
/// `command` is program and arguments; the VG's name is appended. There is no shell.
pub fn run(command: &[String], vg: &str) {
    let words: Vec<String> = command.iter().cloned().chain([vg.to_owned()]).collect();
    let shown = words.join(" ");
    let name = vg.to_owned();
    let started = thread::spawn("idm-kill", move || {
        let begin = Instant::now();
        match execute(&words) {
            Ok(status) => log::warn!(
                "kill command \"{}\" for volume group {name}: {status} after {} ms",
                words.join(" "),
                begin.elapsed().as_millis()
            ),
            Err(error) => log::error!(
                "kill command \"{}\" for volume group {name} cannot be run: {error}; deactivate \
                 its logical volumes at once",
                words.join(" ")
            ),
        }
    });
    if let Err(error) = started {
        log::error!(
            "kill command \"{shown}\" cannot be run: {error}; deactivate the logical volumes of \
             volume group {vg} at once"
        );
    }
}

fn execute(words: &[String]) -> io::Result<std::process::ExitStatus> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec the closure only sets the signal mask, which is
    // async-signal-safe; it allocates nothing and takes no lock. Our threads block all signals,
    // and the child would inherit that.
    unsafe {
        command.pre_exec(|| SigSet::empty().thread_set_mask().map_err(io::Error::from));
    }
    command.status()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn the_commands_end_is_seen() {
        assert!(execute(&words(&["/bin/true"])).unwrap().success());
        assert!(!execute(&words(&["/bin/false"])).unwrap().success());
        assert!(execute(&words(&["/nonexistent/kill"])).is_err());
        assert!(execute(&[]).is_err());
    }

    #[test]
    fn the_command_starts_with_no_signal_blocked() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn("idm-test", move || {
            let test = "grep -q '^SigBlk:[[:space:]]*0*$' /proc/self/status";
            sender.send(execute(&words(&["/bin/sh", "-c", test]))).unwrap();
        });
        assert!(receiver.recv().unwrap().unwrap().success());
        thread.unwrap().join().unwrap();
    }
}
