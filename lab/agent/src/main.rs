//! The first process of a machine of the lab. It loads the kernel modules of its initramfs, mounts
//! the lab's own root file system under an overlay, and runs commands. It can leave its place as
//! the first process to another program, and goes on as a process beside it.

#![forbid(unsafe_code)]

use lab_agent::{Frame, FrameKind, PORT_NAME, Setup};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeSpec;
use nix::sys::wait::{WaitStatus, wait};
use nix::time::{ClockId, clock_settime};
use nix::unistd::{Pid, chroot, sethostname};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::c_int;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

type Error = Box<dyn std::error::Error>;

/// Name of the agent beside another first process. systemd kills no process at shutdown whose name
/// begins with `@`, because a root file system may depend on it.
const BESIDE: &str = "@lab-agent";

fn main() {
    let mut arguments = std::env::args();
    if arguments.next().as_deref() == Some(BESIDE) {
        let job = arguments.next().and_then(|job| job.parse().ok()).unwrap_or_default();
        if let Err(error) = go_on(job) {
            eprintln!("lab-agent: {error}");
        }
        return;
    }
    if let Err(error) = run() {
        eprintln!("lab-agent: {error}");
    }
    // The first process must not end.
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

/// The agent after [`Machine::leave_to`]. Its standard input is the port.
fn go_on(job: u32) -> Result<(), Error> {
    let port = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let machine = Arc::new(Machine::new(port.try_clone()?));
    machine.exit(job, 0);
    machine.serve(port)
}

fn run() -> Result<(), Error> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)?;
    }
    load_modules()?;
    let port = open_port()?;
    Arc::new(Machine::new(port.try_clone()?)).serve(port)
}

/// Loads the modules in the order of their names, which is that of their dependencies.
fn load_modules() -> Result<(), Error> {
    let mut paths: Vec<_> =
        fs::read_dir("/modules")?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    for path in paths {
        if let Err(errno) = finit_module(File::open(&path)?, c"", ModuleInitFlags::empty()) {
            eprintln!("lab-agent: {}: {errno}", path.display());
        }
    }
    Ok(())
}

fn open_port() -> Result<File, Error> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten() {
            let entry = entry?;
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == PORT_NAME {
                let node = std::path::Path::new("/dev").join(entry.file_name());
                return Ok(File::options().read(true).write(true).open(node)?);
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    Err("there is no serial port to the lab".into())
}

struct Machine {
    port: Mutex<File>,
    jobs: Mutex<BTreeMap<u32, Job>>,
}

struct Job {
    pid: Pid,
    /// Socket that gets the exit status.
    ended: UnixStream,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shell command in the environment of all commands.
fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", command])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C");
    shell
}

impl Machine {
    fn new(port: File) -> Machine {
        Machine { port: Mutex::new(port), jobs: Mutex::default() }
    }

    /// Carries out the orders that come over the port.
    fn serve(self: &Arc<Machine>, mut port: File) -> Result<(), Error> {
        {
            let machine = Arc::clone(self);
            thread::spawn(move || machine.reap());
        }
        loop {
            match Frame::read(&mut port) {
                Ok(frame) => self.obey(frame),
                // No other end is connected (yet).
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&self, kind: FrameKind, job: u32, payload: Vec<u8>) {
        // An error of the connection to the lab cannot be reported anywhere.
        let _ = Frame { kind, job, payload }.write(&mut *lock(&self.port));
    }

    fn exit(&self, job: u32, status: i32) {
        self.send(FrameKind::Exit, job, status.to_le_bytes().to_vec());
    }

    fn obey(self: &Arc<Machine>, frame: Frame) {
        let Frame { kind, job, payload } = frame;
        match kind {
            FrameKind::Ping => self.send(FrameKind::Ping, job, Vec::new()),
            FrameKind::Setup => {
                let outcome = match Setup::decode(&payload) {
                    Some(setup) => become_host(&setup),
                    None => Err("the setup cannot be understood".into()),
                };
                if let Err(error) = &outcome {
                    self.send(FrameKind::Stderr, job, format!("{error}\n").into_bytes());
                }
                self.exit(job, i32::from(outcome.is_err()));
            }
            FrameKind::Run => {
                if let Err(error) = self.start(job, &payload) {
                    self.send(FrameKind::Stderr, job, format!("{error}\n").into_bytes());
                    self.exit(job, 127);
                }
            }
            FrameKind::Init => {
                // Returns only after an error.
                let Err(error) = self.leave_to(job, &payload);
                self.send(FrameKind::Stderr, job, format!("{error}\n").into_bytes());
                self.exit(job, 127);
            }
            FrameKind::Kill => {
                if let Some(job) = lock(&self.jobs).get(&job) {
                    let _ = killpg(job.pid, Signal::SIGKILL);
                }
            }
            FrameKind::Stdout | FrameKind::Stderr | FrameKind::Exit => {}
        }
    }

    /// Starts the agent once more, which gets the port, and makes this process another program.
    /// Returns only an error.
    fn leave_to(&self, job: u32, command: &[u8]) -> Result<Infallible, Error> {
        let command = core::str::from_utf8(command)?;
        if !lock(&self.jobs).is_empty() {
            return Err("commands are running".into());
        }
        Command::new("/proc/self/exe")
            .arg0(BESIDE)
            .arg(job.to_string())
            .stdin(lock(&self.port).try_clone()?)
            .spawn()?;
        Err(shell(command).stdin(Stdio::null()).exec().into())
    }

    fn start(self: &Arc<Machine>, number: u32, command: &[u8]) -> Result<(), Error> {
        let (told, ended) = UnixStream::pair()?;
        // Locked until the job is registered: the command may end at once.
        let mut jobs = lock(&self.jobs);
        let mut child = shell(core::str::from_utf8(command)?)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err("a command without output".into());
        };
        jobs.insert(number, Job { pid: Pid::from_raw(child.id().try_into()?), ended });
        drop(jobs);
        let machine = Arc::clone(self);
        thread::spawn(move || {
            let status = machine.follow(number, stdout, stderr, told);
            lock(&machine.jobs).remove(&number);
            machine.exit(number, status);
        });
        Ok(())
    }

    /// Passes on the output of a command until it has ended. A daemon that it leaves behind may
    /// keep its output open; this is not waited for.
    fn follow(
        &self,
        job: u32,
        mut stdout: impl Read + AsFd,
        mut stderr: impl Read + AsFd,
        mut told: UnixStream,
    ) -> i32 {
        let (mut stdout_open, mut stderr_open) = (true, true);
        let mut status = None;
        loop {
            let timeout = if status.is_some() { PollTimeout::ZERO } else { PollTimeout::NONE };
            let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
            let (out, err, end) = {
                let watched =
                    |open: bool| if open { PollFlags::POLLIN } else { PollFlags::empty() };
                let mut fds = [
                    PollFd::new(stdout.as_fd(), watched(stdout_open)),
                    PollFd::new(stderr.as_fd(), watched(stderr_open)),
                    PollFd::new(told.as_fd(), watched(status.is_none())),
                ];
                match poll(&mut fds, timeout) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return errno as i32,
                }
                (
                    stdout_open && ready(&fds[0]),
                    stderr_open && ready(&fds[1]),
                    status.is_none() && ready(&fds[2]),
                )
            };
            if out {
                stdout_open = self.pass_on(FrameKind::Stdout, job, &mut stdout);
            }
            if err {
                stderr_open = self.pass_on(FrameKind::Stderr, job, &mut stderr);
            }
            match status {
                Some(status) if !out && !err => return status,
                None if end => {
                    let mut bytes = [0; 4];
                    let read = told.read_exact(&mut bytes);
                    status = Some(read.map_or(-1, |()| i32::from_le_bytes(bytes)));
                    continue;
                }
                _ => {}
            }
            if status.is_none() && !stdout_open && !stderr_open {
                // Both are closed: only the end of the command is left to wait for.
                let mut bytes = [0; 4];
                let read = told.read_exact(&mut bytes);
                return read.map_or(-1, |()| i32::from_le_bytes(bytes));
            }
        }
    }

    /// Passes on one read. Returns false at the end of the output.
    fn pass_on(&self, kind: FrameKind, job: u32, from: &mut impl Read) -> bool {
        let mut buffer = vec![0; 32 << 10];
        match from.read(&mut buffer) {
            Ok(read) if read > 0 => {
                buffer.truncate(read);
                self.send(kind, job, buffer);
                true
            }
            _ => false,
        }
    }

    /// The main loop of a thread: the first process inherits all orphans.
    fn reap(&self) {
        loop {
            let (pid, status) = match wait() {
                Ok(WaitStatus::Exited(pid, status)) => (pid, status),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as c_int),
                Ok(_) => continue,
                Err(_) => {
                    // There are no children now.
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
            };
            for job in lock(&self.jobs).values_mut().filter(|job| job.pid == pid) {
                let _ = job.ended.write_all(&status.to_le_bytes());
            }
        }
    }
}

fn bind(from: &str, to: &str, flags: MsFlags) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(|error| format!("{to}: {error}"))?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>)
        .map_err(|errno| format!("{from} on {to}: {errno}"))?;
    Ok(())
}

fn mount_new(kind: &str, at: &str, flags: MsFlags, options: &str) -> Result<(), Error> {
    fs::create_dir_all(at).map_err(|error| format!("{at}: {error}"))?;
    mount(Some(kind), at, Some(kind), flags, Some(options))
        .map_err(|errno| format!("{kind} on {at}: {errno}"))?;
    Ok(())
}

/// Mounts a directory of the lab's machine, read-only over 9p, under an overlay in memory.
fn become_host(setup: &Setup) -> Result<(), Error> {
    let now = TimeSpec::from_duration(Duration::from_millis(setup.now_ms));
    clock_settime(ClockId::CLOCK_REALTIME, now)?;
    sethostname(&setup.hostname)?;
    fs::create_dir_all("/host")?;
    // The device has only just been plugged in.
    let deadline = Instant::now() + Duration::from_secs(20);
    let options = "trans=virtio,version=9p2000.L,msize=512000,cache=loose";
    while let Err(errno) =
        mount(Some("host"), "/host", Some("9p"), MsFlags::MS_RDONLY, Some(options))
    {
        if Instant::now() > deadline {
            return Err(format!("the lab's file system cannot be mounted: {errno}").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    let none = MsFlags::empty();
    mount_new("tmpfs", "/overlay", none, "size=256m")?;
    fs::create_dir("/overlay/upper")?;
    fs::create_dir("/overlay/work")?;
    let root = &setup.root;
    let layers =
        format!("lowerdir=/host{root},upperdir=/overlay/upper,workdir=/overlay/work,xino=off");
    mount_new("overlay", "/root", none, &layers)?;
    for at in ["/root/run", "/root/tmp"] {
        mount_new("tmpfs", at, none, "mode=755")?;
    }
    mount_new("tmpfs", "/dev/shm", none, "mode=1777")?;
    mount_new("devpts", "/dev/pts", none, "mode=620")?;
    for at in ["/proc", "/sys", "/dev"] {
        bind(at, &format!("/root{at}"), MsFlags::MS_REC)?;
    }
    for (from, to) in &setup.binds {
        bind(&format!("/host{from}"), &format!("/root{to}"), none)?;
    }
    // Normally udev makes this link; shells need it for some redirections.
    symlink("/proc/self/fd", "/root/dev/fd")?;
    // As the first process of a distribution finds it.
    std::env::set_current_dir("/root")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    std::env::set_current_dir("/")?;
    for at in ["/run/lvm", "/run/lock/lvm"] {
        fs::create_dir_all(at)?;
    }
    fs::write("/proc/sys/kernel/printk", "1")?;
    Ok(())
}
