//! The cost of many held locks: `cargo bench --features emulator --bench held_locks [-- LOCKS
//! [PART]]`.
//!
//! It uses 10 000 LV locks, unless another number is given, on three emulated drives, with the
//! default lease of 60 s. The drives are in a separate process, so the figures are for the library
//! alone, from the manager down to the drives' sockets. The drives have room for all the locks;
//! today's drives do not (about 4000 records). The VG's lock reads whole tables, so it is measured
//! while there are [`TABLE`] locks. The part `in-process` has the drives inside this process, to
//! show the cost of the sockets: commands reach them as SCSI bytes, and their processing is counted
//! separately. In the part `restart` lvmlockd dies and is started again, with as many locks as
//! tables have room for, because adoption reads tables.
//!
//! Compare figures only within one run; the ratios matter.

use idm_emulator::profile::Limits;
use idm_emulator::server::{DriveSpec, Server};
use idm_emulator::{Drive, DriveTime, Profile};
use idm_engine::{Member, Outcome, Request, Timing};
use idm_protocol::{HostId, Mode, MutexOp, ResourceId, scsi};
use lvmlockd_idm::config::Config;
use lvmlockd_idm::drives::Drives;
use lvmlockd_idm::fencing::{Fencing, FencingConfig};
use lvmlockd_idm::lock::{Adopt, LockspaceKey, Resource, ResourceKey, Scope};
use lvmlockd_idm::lock::{LockSpec, Owner, RequestResult, Role};
use lvmlockd_idm::manager::Manager;
use lvmlockd_idm::recovery::active::Devices;
use lvmlockd_idm::runtime::{Runtime, Settings};
use lvmlockd_idm::topology::Topology;
use lvmlockd_idm::transport::drive::{self, CommandError, Data};
use lvmlockd_idm::transport::scsi::{Port, Scsi, ScsiCompletion};
use lvmlockd_idm::transport::{self, Deadline};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const DRIVES: [&str; 3] = ["d0", "d1", "d2"];
const LOCKS: usize = 10_000;
/// Number of locks while the VG's lock is measured: a table of today's drives.
const TABLE: usize = 3_900;
/// Lock/unlock pairs for the reported median, and those before them for the warm-up.
const PAIRS: usize = 400;
const WARM_UP: usize = 100;
/// Average time from one refresh of a drive to the next: 15 to 20 s.
const RENEWAL: Duration = Duration::from_millis(17_500);
/// Time for which renewal is watched: each lock is refreshed about twice.
const WATCHED: Duration = Duration::from_secs(35);
/// Part of that time, to find bursts.
const PIECE: Duration = Duration::from_millis(100);
const VG_UUID: &str = "123456-abcd-efgh-ijkl-mnop-qrst-uvwxyz";
const VG: LockspaceKey = LockspaceKey(1);
/// Environment variable that marks the process of the drives.
const DRIVES_PROCESS: &str = "HELD_LOCKS_DRIVES";

fn main() -> Result<()> {
    if let Some(directory) = std::env::var_os(DRIVES_PROCESS) {
        return serve_drives(Path::new(&directory));
    }
    // Cargo adds the argument --bench.
    let mut words = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let locks = words.next().map_or(Ok(LOCKS), |number| number.parse())?;
    let only = words.next();
    let wanted = |part: &str| only.as_ref().is_none_or(|only| only == part);
    println!("{locks} locks on 3 drives, lease 60 s; the drives are emulated, in another process");
    if wanted("sockets") {
        through_sockets(locks)?;
    }
    if wanted("restart") {
        let locks = locks.min(TABLE);
        println!("\nlvmlockd is killed with {locks} locks and started again");
        restart(locks)?;
    }
    if wanted("in-process") {
        println!("\nThe same with drives in this process");
        in_process(locks)?;
    }
    Ok(())
}

/// Prints one line of the table; `beside` is the value for comparison.
fn row(what: &str, value: f64, unit: &str, beside: Option<f64>) {
    let ratio = beside.map_or(String::new(), |beside| format!("{:8.2}", value / beside));
    println!("  {what:<52} {value:>10.1} {unit:<10} {ratio}");
}

fn through_sockets(locks: usize) -> Result<()> {
    let mut drives = DriveProcess::start()?;
    let host = Host::new(drives.directory.path());
    host.start_vg()?;
    println!("  {:<52} {:>10} {:<10} {:>8}", "", "", "", "ratio");

    let free = median(PAIRS, |n| host.pair(n))?;
    row("LV lock and unlock, none held", free, "us", None);
    let vg = median(PAIRS, |_| host.vg_pair())?;
    row("VG lock and unlock, none held", vg, "us", None);

    let before = Memory::now()?;
    let begin = Instant::now();
    for number in 0..locks.min(TABLE) {
        host.lock(number)?;
    }
    let mut took = begin.elapsed();
    let some = format!("VG lock and unlock, {} held", locks.min(TABLE));
    row(&some, median(PAIRS, |_| host.vg_pair())?, "us", Some(vg));
    let begin = Instant::now();
    for number in TABLE..locks {
        host.lock(number)?;
    }
    took += begin.elapsed();
    row("to lock one after the other", took.as_micros() as f64 / locks as f64, "us/lock", None);
    let after = Memory::now()?;
    let per_lock = |bytes: usize| bytes as f64 / locks as f64;
    row("memory, allocated", per_lock(after.allocated - before.allocated), "bytes/lock", None);
    row("memory, resident", per_lock(after.resident - before.resident), "bytes/lock", None);

    // By then every lock has been refreshed at its own time, however fast the locks were taken.
    thread::sleep(RENEWAL);
    drives.ask("watch")?;
    let cpu = Cpu::now()?;
    thread::sleep(WATCHED);
    let cpu = Cpu::now()?.since(&cpu);
    let seen = drives.ask("seen")?;
    let expected = (3 * locks) as f64 / RENEWAL.as_secs_f64();
    let each = cpu.tell(seen.per_second);
    row("  for a bare exchange, 50 in a row", bare_exchange()?, "us", Some(each));
    row("refreshes, beside those that are due", seen.per_second, "1/s", Some(expected));
    row("refreshes in 100 ms, most beside mean", seen.most, "", Some(seen.mean));
    let left = drives.ask("leases none")?;
    row("shortest lease left on a drive", left.per_second, "s", None);
    expect(left.most as usize == 3 * locks, "every lock is live on every drive")?;

    let held = median(PAIRS, |n| host.pair(locks + n))?;
    row("LV lock and unlock, all held", held, "us", Some(free));

    drives.ask("hang d1")?;
    let hung = median(PAIRS, |n| host.pair(locks + n))?;
    row("LV lock and unlock, all held, one drive just hung", hung, "us", Some(held));
    // Longer than the margin: by now the state from before the drive hung has passed.
    thread::sleep(RENEWAL);
    let hung = median(PAIRS, |n| host.pair(locks + n))?;
    row("the same, 18 s later", hung, "us", Some(held));
    drives.ask("watch")?;
    let cpu = Cpu::now()?;
    thread::sleep(WATCHED);
    let cpu = Cpu::now()?.since(&cpu);
    let seen = drives.ask("seen")?;
    cpu.tell(seen.per_second);
    row("refreshes, beside those that are due", seen.per_second, "1/s", Some(expected * 2.0 / 3.0));
    let left = drives.ask("leases d1")?;
    row("shortest lease left on the other drives", left.per_second, "s", None);
    drives.ask("wake d1")?;
    thread::sleep(RENEWAL);
    let left = drives.ask("leases none")?;
    expect(left.most as usize >= 2 * locks, "every lock is live on a majority of the drives")?;
    expect(!host.killed(), "no lock was lost")?;
    let again = median(PAIRS, |n| host.pair(locks + n))?;
    row("LV lock and unlock, all held, the drive is back", again, "us", Some(held));
    Ok(())
}

/// Measures the time until all locks of a dead lvmlockd are renewed again, and the duration of the
/// calls from its successor's core meanwhile.
fn restart(locks: usize) -> Result<()> {
    let mut drives = DriveProcess::start()?;
    let directory = drives.directory.path().to_owned();
    let host = Host::new(&directory);
    host.start_vg()?;
    let begin = Instant::now();
    for number in 0..locks {
        host.lock(number)?;
        host.activate(number)?;
    }
    let one = begin.elapsed().as_micros() as f64 / locks as f64;
    row("to lock one after the other", one, "us/lock", None);
    let renewed = drives.ask("refreshes")?.most;
    drop(host);

    let memory = Memory::now()?;
    Memory::forget_peak()?;
    let cpu = Cpu::now()?;
    let begin = Instant::now();
    let host = Host::new(&directory);
    let mut longest = Longest::default();
    longest.time("the first of all", || {
        host.manager.recover();
        Ok(())
    })?;
    longest.time("start of the VG", || host.start_vg())?;
    let mut asked = 0;
    // Adoption refreshes each lock at least once on each drive, and some again before the last.
    let renewed_since = |drives: &mut DriveProcess| -> Result<bool> {
        if drives.ask("refreshes")?.most - renewed < (3 * locks) as f64 {
            return Ok(false);
        }
        let since = begin.elapsed().as_secs_f64();
        let left = drives.ask("leases none")?;
        Ok(left.most as usize >= 3 * locks && left.per_second + since >= 60.0)
    };
    while !renewed_since(&mut drives)? {
        longest.time("lock and unlock of another LV", || host.pair(locks + asked))?;
        longest.time("lock of an LV that was left", || host.lock(asked * 37 % locks))?;
        longest.time("VG lock and unlock", || host.vg_pair())?;
        longest.time("count of hosts", || Ok(host.manager.hosts(VG).map(drop)?))?;
        asked += 1;
        expect(begin.elapsed() < Duration::from_secs(120), "all are adopted in time")?;
        thread::sleep(PIECE);
    }
    let took = begin.elapsed();
    let each = took.as_micros() as f64 / locks as f64;
    let ratio = format!("to renew all {locks} again, {:.1} s", took.as_secs_f64());
    row(&ratio, each, "us/lock", Some(one));
    let cpu = Cpu::now()?.since(&cpu);
    for (name, spent) in cpu.threads.iter().filter(|(name, _)| name.starts_with("idm-")) {
        row(&format!("  processor time of threads {name}"), spent.as_secs_f64(), "s", None);
    }
    let peak = Memory::peak()?.saturating_sub(memory.resident);
    row("most memory meanwhile, beside that of the locks", peak as f64 / 1e6, "MB", None);
    for (what, took) in &longest.calls {
        row(&format!("longest call, {what}"), took.as_secs_f64() * 1000.0, "ms", None);
    }
    row("orphans asked for meanwhile", asked as f64, "", None);
    let left = drives.ask("leases none")?;
    row("shortest lease left on a drive", left.per_second, "s", None);
    let begin = Instant::now();
    for number in 0..locks {
        host.lock(number)?;
    }
    let again = begin.elapsed().as_micros() as f64 / locks as f64;
    row("to lock them again, one after the other", again, "us/lock", Some(one));
    expect(!host.killed(), "no lock was lost")
}

/// The longest call of each kind.
#[derive(Default)]
struct Longest {
    calls: BTreeMap<&'static str, Duration>,
}

impl Longest {
    fn time(&mut self, what: &'static str, call: impl FnOnce() -> Result<()>) -> Result<()> {
        let begin = Instant::now();
        call()?;
        let longest = self.calls.entry(what).or_default();
        *longest = begin.elapsed().max(*longest);
        Ok(())
    }
}

/// The processor time, in us, of one side of a socket for the mere exchange of the bytes of a
/// refresh: the minimum for any library that uses sockets.
fn bare_exchange() -> Result<f64> {
    let (mut here, mut there) = UnixStream::pair()?;
    let echo = thread::spawn(move || -> io::Result<()> {
        let mut request = [0; 537];
        while there.read_exact(&mut request).is_ok() {
            there.write_all(&request[..6])?;
        }
        Ok(())
    });
    let spent = || -> Result<u64> {
        let text = fs::read_to_string("/proc/thread-self/schedstat")?;
        Ok(text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?)
    };
    let (rounds, row) = (30, 50);
    let before = spent()?;
    for _ in 0..rounds {
        for _ in 0..row {
            here.write_all(&[0; 537])?;
            here.read_exact(&mut [0; 6])?;
        }
        thread::sleep(PIECE);
    }
    let spent = spent()? - before;
    drop(here);
    echo.join().map_err(|_| "the echo panicked")??;
    Ok(spent as f64 / f64::from(rounds * row) / 1000.0)
}

fn expect(so: bool, what: &str) -> Result<()> {
    if so { Ok(()) } else { Err(format!("not so: {what}").into()) }
}

/// The median of the times that `work` takes, in us.
fn median(times: usize, mut work: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let mut took = Vec::new();
    for number in 0..times + WARM_UP {
        let begin = Instant::now();
        work(number)?;
        took.push(begin.elapsed());
    }
    took.drain(..WARM_UP);
    took.sort_unstable();
    Ok(took[took.len() / 2].as_nanos() as f64 / 1000.0)
}

/// The requests of lvmlockd.
struct Host {
    manager: Manager,
    kills: PathBuf,
    sysfs: PathBuf,
    paths: Vec<String>,
}

impl Host {
    fn new(directory: &Path) -> Host {
        let path = |name: &str| format!("/dev/{name}");
        let socket = |name: &str| directory.join("drives").join(format!("{name}.sock"));
        let kills = directory.join("kills");
        let config = Config {
            emulated: DRIVES.iter().map(|name| (path(name), socket(name))).collect(),
            state_dir: directory.to_owned(),
            kill_command: Some(vec!["/bin/touch".into(), kills.display().to_string()]),
            ..Config::default()
        };
        let sysfs = directory.join("sys");
        fs::create_dir_all(sysfs.join("block")).expect("a directory for sysfs");
        let devices = Devices::with_sysfs(&sysfs);
        let manager = Manager::new(config, HostId::new([1; 16], "bench"), devices);
        Host { manager, kills, sysfs, paths: DRIVES.map(path).to_vec() }
    }

    fn start_vg(&self) -> Result<()> {
        let pvs = self.paths.clone();
        let scope = Scope::Vg { name: "vg0".into(), uuid: VG_UUID.into(), pvs };
        self.manager.prepare_lockspace(VG, scope)?;
        Ok(self.manager.add_lockspace(VG, Adopt::default())?)
    }

    /// Makes the kernel appear to have a device for an LV.
    fn activate(&self, number: usize) -> Result<()> {
        let device = self.sysfs.join(format!("block/dm-{number}/dm"));
        fs::create_dir_all(&device)?;
        let both = format!("{VG_UUID}{}", lv_uuid(number)).replace('-', "");
        Ok(fs::write(device.join("uuid"), format!("LVM-{both}\n"))?)
    }

    fn lock(&self, number: usize) -> Result<()> {
        let lv = Resource::Lv { uuid: lv_uuid(number), pvs: self.paths.clone() };
        let key = ResourceKey(number);
        self.manager.lock(VG, key, lv, Mode::Exclusive, Adopt::default())?;
        Ok(())
    }

    fn pair(&self, number: usize) -> Result<()> {
        self.lock(number)?;
        self.manager.unlock(ResourceKey(number), 0, 0);
        Ok(())
    }

    fn vg_pair(&self) -> Result<()> {
        let key = ResourceKey(usize::MAX);
        self.manager.lock(VG, key, Resource::Vg, Mode::Exclusive, Adopt::default())?;
        self.manager.unlock(key, 1, 0);
        Ok(())
    }

    fn killed(&self) -> bool {
        self.kills.exists()
    }
}

fn lv_uuid(number: usize) -> String {
    format!("LVLVLV-0000-0000-0000-0000-0000-{number:06}")
}

/// Memory of this process, in bytes.
struct Memory {
    allocated: usize,
    resident: usize,
}

impl Memory {
    fn now() -> Result<Memory> {
        // SAFETY: it only reads the allocator's counters.
        let info = unsafe { libc::mallinfo2() };
        let statm = fs::read_to_string("/proc/self/statm")?;
        let pages = statm.split_whitespace().nth(1).ok_or("no resident pages")?;
        // Pages have 4 KiB on all machines that run this.
        let resident = pages.parse::<usize>()? * 4096;
        Ok(Memory { allocated: info.uordblks + info.hblkhd, resident })
    }

    /// The most that was resident since [`Memory::forget_peak`].
    fn peak() -> Result<usize> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?;
        Ok(kib.parse::<usize>()? * 1024)
    }

    fn forget_peak() -> Result<()> {
        Ok(fs::write("/proc/self/clear_refs", "5")?)
    }
}

/// Processor time of this process, by the name of the thread; threads that have ended are not
/// included.
struct Cpu {
    at: Instant,
    threads: BTreeMap<String, Duration>,
}

impl Cpu {
    fn now() -> Result<Cpu> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            let name = fs::read_to_string(task.join("comm"))?.trim_end().to_owned();
            let spent = fs::read_to_string(task.join("schedstat"))?;
            let spent = spent.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
            *threads.entry(name).or_default() += Duration::from_nanos(spent);
        }
        Ok(Cpu { at: Instant::now(), threads })
    }

    fn since(mut self, before: &Cpu) -> Spent {
        for (name, spent) in &mut self.threads {
            *spent = spent.saturating_sub(before.threads.get(name).copied().unwrap_or_default());
        }
        Spent { time: self.at - before.at, threads: self.threads }
    }
}

/// Processor time in an interval.
struct Spent {
    time: Duration,
    threads: BTreeMap<String, Duration>,
}

impl Spent {
    /// Prints it, and returns the cost of one refresh, in us.
    fn tell(&self, refreshes_per_second: f64) -> f64 {
        let share = |spent: Duration| 100.0 * spent.as_secs_f64() / self.time.as_secs_f64();
        let ours = |name: &str| name.starts_with("idm-");
        let all: Duration = self.threads.iter().filter(|(n, _)| ours(n)).map(|(_, t)| *t).sum();
        row("renewal, processor time of one core", share(all), "%", None);
        for (name, spent) in self.threads.iter().filter(|(name, _)| ours(name)) {
            row(&format!("  of threads {name}"), share(*spent), "%", None);
        }
        let each = all.as_secs_f64() / self.time.as_secs_f64() / refreshes_per_second;
        row("  for one refresh", each * 1e6, "us", None);
        each * 1e6
    }
}

/// The process of the drives, and its input and output.
struct DriveProcess {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
}

/// Numbers in the answers of the drives' process.
struct Seen {
    per_second: f64,
    most: f64,
    mean: f64,
}

impl DriveProcess {
    fn start() -> Result<DriveProcess> {
        let directory = tempfile::tempdir()?;
        let mut child = Command::new(std::env::current_exe()?)
            .env(DRIVES_PROCESS, directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdin = stdin.ok_or("no standard input")?;
        let stdout = BufReader::new(stdout.ok_or("no standard output")?);
        let mut drives = DriveProcess { child, stdin, stdout, directory };
        drives.read()?;
        Ok(drives)
    }

    fn ask(&mut self, line: &str) -> Result<Seen> {
        writeln!(self.stdin, "{line}")?;
        self.read()
    }

    fn read(&mut self) -> Result<Seen> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let numbers: std::result::Result<Vec<f64>, _> =
            line.split_whitespace().map(str::parse).collect();
        match numbers?[..] {
            [per_second, most, mean] => Ok(Seen { per_second, most, mean }),
            _ => Err("the drives' process has ended".into()),
        }
    }
}

impl Drop for DriveProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A drive with room for all the locks.
fn roomy() -> Profile {
    let room = 2 * LOCKS;
    let limits = Limits { mutexes: room, hosts: room, hosts_of_mutex: room, records: room };
    Profile { limits, ..Profile::current() }
}

/// Serves the drives and answers questions until standard input ends.
fn serve_drives(directory: &Path) -> Result<()> {
    let specs = DRIVES.map(|name| DriveSpec { name: name.to_owned(), profile: roomy() });
    let server = Arc::new(Server::start(&directory.join("drives"), &specs)?);
    println!("0 0 0");
    let mut watch = None;
    for line in io::stdin().lines() {
        let line = line?;
        let (per_second, most, mean) = match line.split_once(' ') {
            None if line == "watch" => {
                watch = Some(Watch::start(server.clone()));
                (0.0, 0.0, 0.0)
            }
            None if line == "seen" => watch.take().ok_or("nothing was watched")?.end(),
            None if line == "refreshes" => (0.0, refreshes(&server) as f64, 0.0),
            Some(("leases", but)) => leases(&server, but)?,
            Some((what @ ("hang" | "wake"), drive)) => {
                let state = if what == "hang" { "on" } else { "off" };
                server.control(&format!("hang {drive} {state}"))?;
                (0.0, 0.0, 0.0)
            }
            _ => return Err(format!("{line:?} is not known").into()),
        };
        println!("{per_second} {most} {mean}");
    }
    Ok(())
}

fn refreshes(server: &Server) -> u64 {
    let of = |drive: &&str| {
        let stats = server.control(&format!("stats {drive}")).unwrap_or_default();
        let line = stats.lines().find_map(|line| line.strip_prefix("refresh ")?.parse().ok());
        line.unwrap_or(0_u64)
    };
    DRIVES.iter().map(of).sum()
}

/// The shortest lease, in seconds, on all drives but one, and the number of live records of LV
/// locks.
fn leases(server: &Server, but: &str) -> Result<(f64, f64, f64)> {
    let (mut shortest, mut live) = (f64::INFINITY, 0);
    for drive in DRIVES.into_iter().filter(|&drive| drive != but) {
        let table = server.control(&format!("table {drive}"))?;
        for line in
            table.lines().filter(|line| line.contains("LVLVLV") && line.contains(" locked "))
        {
            let left = line.split_once(" ex ").and_then(|(_, rest)| rest.split_whitespace().next());
            shortest = shortest.min(left.ok_or("no lease")?.parse()?);
            live += 1;
        }
    }
    Ok((shortest, f64::from(live), 0.0))
}

/// Counts refreshes as they arrive.
struct Watch {
    ended: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<u64>>,
    begin: Instant,
}

impl Watch {
    fn start(server: Arc<Server>) -> Watch {
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let thread = thread::spawn(move || {
            let mut counts = vec![refreshes(&server)];
            while !end.load(Ordering::Relaxed) {
                thread::sleep(PIECE);
                counts.push(refreshes(&server));
            }
            counts
        });
        Watch { ended, thread, begin: Instant::now() }
    }

    fn end(self) -> (f64, f64, f64) {
        self.ended.store(true, Ordering::Relaxed);
        let counts = self.thread.join().unwrap_or_default();
        let time = self.begin.elapsed().as_secs_f64();
        let pieces: Vec<u64> = counts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let all: u64 = pieces.iter().sum();
        let most = pieces.iter().max().copied().unwrap_or(0);
        (all as f64 / time, most as f64, all as f64 / pieces.len() as f64)
    }
}

/// An emulated drive in this process: commands come to it as SCSI bytes, and it takes no more time
/// than its model needs.
struct InProcess {
    drive: Mutex<Drive>,
    begin: Instant,
    refreshes: AtomicU64,
    /// Time that the model itself has spent, in ns.
    spent: AtomicU64,
    hung: Mutex<bool>,
    woken: Condvar,
}

impl InProcess {
    fn new() -> InProcess {
        InProcess {
            drive: Mutex::new(Drive::new(roomy())),
            begin: Instant::now(),
            refreshes: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            hung: Mutex::new(false),
            woken: Condvar::new(),
        }
    }

    fn hang(&self, hung: bool) {
        *self.hung.lock().unwrap_or_else(|e| e.into_inner()) = hung;
        self.woken.notify_all();
    }
}

/// The path to a drive in this process.
struct Wire(Arc<InProcess>);

impl Port for Wire {
    fn execute(
        &self,
        cdb: &scsi::Cdb,
        data: Data<'_>,
        _: &Deadline,
    ) -> std::result::Result<ScsiCompletion, CommandError> {
        let hung = self.0.hung.lock().unwrap_or_else(|e| e.into_inner());
        drop(self.0.woken.wait_while(hung, |hung| *hung).unwrap_or_else(|e| e.into_inner()));
        let refresh = *cdb == scsi::mutex(MutexOp::Refresh);
        self.0.refreshes.fetch_add(u64::from(refresh), Ordering::Relaxed);
        let now = DriveTime::from_millis(self.0.begin.elapsed().as_millis() as u64);
        let mut drive = self.0.drive.lock().unwrap_or_else(|e| e.into_inner());
        let (out, room) = match data {
            Data::Out(bytes) => (bytes, &mut [][..]),
            Data::In(bytes) => (&[][..], bytes),
        };
        let begin = Instant::now();
        let reply = drive.execute(now, cdb, out);
        self.0.spent.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        let transferred = reply.data.len().min(room.len());
        room[..transferred].copy_from_slice(&reply.data[..transferred]);
        Ok(ScsiCompletion { status: reply.status, sense: reply.sense, transferred })
    }
}

fn in_process(locks: usize) -> Result<()> {
    let all = DRIVES.map(|_| Arc::new(InProcess::new()));
    let reached = all.clone();
    let names = DRIVES.map(str::to_owned);
    let topology = Topology::new(names.iter().map(|n| (n.clone(), PathBuf::from(n))).collect());
    let timing = Timing::for_lease(Duration::from_secs(60));
    let drives = Arc::new(Drives::new(
        topology,
        Box::new(move |identity, _| {
            let at = DRIVES.iter().position(|name| identity.ends_with(name)).unwrap_or(0);
            Arc::new(drive::IdmPath::new(Scsi(Wire(reached[at].clone()))))
        }),
        transport::Limits::new(&timing),
    ));
    let members = drives.members(&names).members;
    let settings = Settings {
        host: HostId::new([1; 16], "bench"),
        timing,
        fencing: Fencing::new(&timing, FencingConfig::default())?,
        reservations: None,
        watchdog: None,
        note: None,
        undo_note: None,
        votes: None,
        earlier: Default::default(),
        kill_command: Arc::new(|| vec!["/bin/true".into()]),
    };
    let runtime = Runtime::start(drives, settings)?;
    let owner = Arc::new(Owner::new("volume group vg0".into(), Some("vg0".into())));
    let pair = |number: usize| {
        acquire(&runtime, &owner, &members, number)?;
        runtime.request(spec(&owner, number), Request::Release { value: None }, WATCHED);
        Ok(())
    };
    let free = median(PAIRS, pair)?;
    row("LV lock and unlock, none held", free, "us", None);
    for number in 0..locks {
        acquire(&runtime, &owner, &members, number)?;
    }
    thread::sleep(RENEWAL);
    let count = || all.iter().map(|d| d.refreshes.load(Ordering::Relaxed)).sum::<u64>();
    let spent = || all.iter().map(|d| d.spent.load(Ordering::Relaxed)).sum::<u64>();
    let (before, own, cpu) = (count(), spent(), Cpu::now()?);
    thread::sleep(WATCHED);
    let (after, own, cpu) = (count(), spent() - own, Cpu::now()?.since(&cpu));
    let each = cpu.tell((after - before) as f64 / cpu.time.as_secs_f64());
    let model = own as f64 / 1000.0 / (after - before) as f64;
    row("  of which the drives themselves", model, "us", Some(each));
    let expected = (3 * locks) as f64 / RENEWAL.as_secs_f64();
    let per_second = (after - before) as f64 / cpu.time.as_secs_f64();
    row("refreshes, beside those that are due", per_second, "1/s", Some(expected));
    let library = (each - model) * per_second / 10_000.0;
    row("renewal without the drives, of one core", library, "%", None);
    let held = median(PAIRS, |n| pair(locks + n))?;
    row("LV lock and unlock, all held", held, "us", Some(free));
    all[1].hang(true);
    let hung = median(PAIRS, |n| pair(locks + n))?;
    row("LV lock and unlock, all held, one drive just hung", hung, "us", Some(held));
    all[1].hang(false);
    Ok(())
}

fn spec(owner: &Arc<Owner>, number: usize) -> LockSpec {
    // All in one VG.
    let mut id = [1; 64];
    id[32..40].copy_from_slice(&number.to_be_bytes());
    LockSpec { resource: ResourceId::from_bytes(id), role: Role::Lv, owner: owner.clone() }
}

fn acquire(runtime: &Runtime, owner: &Arc<Owner>, members: &[Member], number: usize) -> Result<()> {
    let request = Request::Acquire {
        mode: Mode::Exclusive,
        members: members.to_vec(),
        witnesses: Vec::new(),
    };
    match runtime.request(spec(owner, number), request, WATCHED) {
        RequestResult::Done(Outcome::Granted(_)) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
