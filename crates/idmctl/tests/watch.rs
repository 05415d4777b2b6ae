//! `idmctl status --watch` on a terminal: a pseudo terminal, which a program has as its own.

mod common;

use common::{World, idmctl, lv, vg};
use idm_protocol::Mode;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// Ample, so that the speed of the machine does not matter.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(5);

/// A program on a terminal. It is killed when this is dropped.
struct Watch {
    child: Child,
    terminal: File,
    before: LocalModes,
    output: Receiver<String>,
    seen: String,
}

impl Watch {
    fn begin(world: &World, args: &[&str]) -> Watch {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let terminal = openpt(flags).unwrap();
        unlockpt(&terminal).unwrap();
        let user = File::from(ioctl_tiocgptpeer(&terminal, flags).unwrap());
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let before = tcgetattr(&user).unwrap().local_modes;
        let program = idmctl(world, args);
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        let file = || user.try_clone().unwrap();
        let child = command.stdin(file()).stdout(file()).stderr(file()).spawn().unwrap();
        let terminal = File::from(terminal);
        let (sender, output) = channel();
        let mut shown = terminal.try_clone().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with the last user of the terminal.
            while let Ok(length @ 1..) = shown.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        Watch { child, terminal, before, output, seen: String::new() }
    }

    fn press(&mut self, keys: &[u8]) {
        self.terminal.write_all(keys).unwrap();
    }

    /// Waits for a whole table that begins with such a line; returns the lines that follow.
    fn table(&mut self, first: &str) -> Vec<String> {
        let begin = Instant::now();
        loop {
            let whole = self.seen.rsplit_once("\x1b[J").map_or("", |(before, _)| before);
            let table = whole.rsplit("\x1b[H").next().unwrap_or_default();
            let text = anstream::adapter::strip_str(table).to_string();
            let mut lines = text.lines().map(|line| line.trim_end().to_owned());
            if lines.next().is_some_and(|line| line.starts_with(first)) {
                return lines.collect();
            }
            self.read_on(begin);
        }
    }

    fn read_on(&mut self, begin: Instant) {
        match self.output.recv_timeout(PATIENCE.saturating_sub(begin.elapsed())) {
            Ok(text) => self.seen.push_str(&text),
            Err(why) => panic!("{why}: {}", self.seen),
        }
    }

    /// Waits for these words.
    fn says(&mut self, words: &str) {
        let begin = Instant::now();
        while !self.seen.contains(words) {
            self.read_on(begin);
        }
    }

    fn modes(&self) -> LocalModes {
        tcgetattr(&self.terminal).unwrap().local_modes
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    fn end(mut self) -> ExitStatus {
        let mut status = None;
        until(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(self.modes(), self.before);
        status.unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE);
        sleep(TICK);
    }
}

/// Bravo has the VG's lock with the shorter lease, alpha an LV's.
fn world() -> World {
    let world = World::new(3, "current");
    world.peer("bravo", Duration::from_secs(300)).take(vg(), Mode::Exclusive);
    world.peer("alpha", Duration::from_secs(600)).take(lv(), Mode::Exclusive);
    world
}

#[test]
fn keys_sort_the_table_and_end_it() {
    let world = world();
    let mut watch = Watch::begin(&world, &["status", "--watch", "0.2"]);
    let table = watch.table("Sorted by lock. Keys: h host, a age, l lease left, d lock");
    assert!(table[0].starts_with("LOCK"), "{table:?}");
    assert!(!watch.modes().intersects(LocalModes::ICANON | LocalModes::ECHO));
    for (key, sorted, first) in [
        (b"h", "Sorted by host.", "alpha"),
        (b"l", "Sorted by lease left.", "bravo"),
        (b"a", "Sorted by age.", "bravo"),
        (b"h", "Sorted by host.", "alpha"),
        (b"d", "Sorted by lock.", "bravo"),
    ] {
        watch.press(key);
        let table = watch.table(sorted);
        assert!(table[1].contains(first), "{sorted} {table:?}");
    }
    watch.press(b"xq");
    assert_eq!(watch.end().code(), Some(0));
}

#[test]
fn keys_work_while_a_drive_is_waited_for() {
    let world = world();
    let mut watch = Watch::begin(&world, &["status", "--watch", "0.1", "--timeout", "600"]);
    watch.table("Sorted by lock.");
    world.control("hang d2 on");
    // The next look hangs.
    until(|| watch.output.recv_timeout(Duration::from_secs(1)).is_err());
    watch.press(b"h");
    assert!(watch.table("Sorted by host.")[1].contains("alpha"));
    watch.press(b"q");
    assert_eq!(watch.end().code(), Some(0));
    world.control("hang d2 off");
}

#[test]
fn signals_end_it_as_usual_and_the_terminal_is_given_back() {
    let world = world();
    for (key, name, number) in
        [(&b"\x03"[..], "", 2), (b"", "-INT", 2), (b"", "-TERM", 15), (b"", "-HUP", 1)]
    {
        let mut watch = Watch::begin(&world, &["status", "--watch", "0.2"]);
        watch.table("Sorted by lock.");
        match name {
            "" => watch.press(key),
            name => watch.signal(name),
        }
        assert_eq!(watch.end().signal(), Some(number), "{name}");
    }
}

#[test]
fn a_watch_that_is_stopped_gives_the_terminal_back_and_takes_it_again() {
    let world = world();
    let mut watch = Watch::begin(&world, &["status", "--watch", "0.2", "--sort", "host"]);
    watch.table("Sorted by host.");
    // Ctrl-Z.
    watch.press(b"\x1a");
    until(|| watch.is_stopped());
    assert_eq!(watch.modes(), watch.before);
    watch.signal("-CONT");
    until(|| watch.modes() != watch.before);
    watch.press(b"d");
    watch.table("Sorted by lock.");
    watch.press(b"q");
    assert_eq!(watch.end().code(), Some(0));
}

#[test]
fn an_error_gives_the_terminal_back() {
    let world = world();
    let watch = Watch::begin(&world, &["status", "--watch", "0.2", "no-drive"]);
    assert_eq!(watch.end().code(), Some(4));
}

#[test]
fn what_is_waited_for_is_shown_and_how_long() {
    let world = world();
    world.control("hang d2 on");
    let mut watch = Watch::begin(&world, &["status", "--timeout", "2.5"]);
    watch.says("waiting for d2: 2.");
    watch.says("d2 does not answer");
    assert_eq!(watch.end().code(), Some(3));
    world.control("hang d2 off");
    let hangs = world.dir.path().join("hangs");
    fs::write(&hangs, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&hangs, fs::Permissions::from_mode(0o755)).unwrap();
    let asks = format!("--ask-lvm={}", hangs.display());
    let mut watch = Watch::begin(&world, &["status", "--timeout", "2.5", &asks]);
    watch.says("waiting for lvm: 2.");
    watch.says("lvm does not name VGs and LVs");
    assert_eq!(watch.end().code(), Some(0));
}
