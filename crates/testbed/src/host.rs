//! A machine with a real lvmlockd, made of namespaces.

use crate::artifacts::{self, Lvm2};
use crate::client::{Client, Lv};
use crate::run::{Output, bound_to_this_thread, child_of, run};
use crate::wait::wait_until;
use anyhow::{Context, Result, bail, ensure};
use idm_emulator::sysfs::DIRECTORIES;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The first process of the machine. When it ends, the machine ends: the kernel kills all processes
/// in its PID namespace.
const INIT: &str = r#"
set -e
echo "$1" >/proc/sys/kernel/hostname
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lvm /run/lock/lvm /etc/lvm
mount --bind "$2" /etc/lvm
mount --bind "$3" /sys/block
sys=$4
shift 4
for directory; do
    mount --bind "$sys/$directory" "/sys/$directory"
done
echo up
exec sleep infinity
"#;

/// Time for lvmlockd to start or stop.
const START: Duration = Duration::from_secs(20);

/// Seconds after which a command is killed. An lvm command that retries a lock takes up to 23 s.
const COMMAND_SECONDS: &str = "90";

/// A machine. Dropping it cuts its power.
#[derive(Debug)]
pub struct Host {
    name: String,
    build: Lvm2,
    dir: PathBuf,
    unshare: Child,
    init: Pid,
    lvmlockd: Option<Lvmlockd>,
}

#[derive(Debug)]
struct Lvmlockd {
    /// Process outside of the machine that waits for the daemon.
    nsenter: Child,
    pid: Pid,
}

impl Host {
    /// Boots a machine and starts lvmlockd in it. `dir` must contain a folder `etc` for its
    /// `/etc/lvm`, and a folder `block` for its `/sys/block`; its logs also go there. `sys` has
    /// further directories for its `/sys`.
    pub(crate) fn boot(name: &str, build: Lvm2, dir: &Path, sys: Option<&Path>) -> Result<Host> {
        let mut unshare = bound_to_this_thread("unshare")
            .args(["--mount", "--uts", "--net", "--pid", "--fork"])
            .args(["--kill-child=KILL", "--mount-proc", "--"])
            .args(["sh", "-c", INIT, "sh", name])
            .arg(dir.join("etc"))
            .arg(dir.join("block"))
            .arg(sys.unwrap_or(Path::new("")))
            .args(sys.map_or(&[][..], |_| &DIRECTORIES))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join("boot.log"))?)
            .spawn()
            .context("run unshare")?;
        let mut line = String::new();
        if let Some(stdout) = unshare.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line != "up\n" {
            let _ = unshare.kill();
            let _ = unshare.wait();
            let why = fs::read_to_string(dir.join("boot.log")).unwrap_or_default();
            bail!("host {name} did not boot: {why}");
        }
        let init = child_of(unshare.id())?.context("the host's first process has ended")?;
        let mut host = Host {
            name: name.to_owned(),
            build,
            dir: dir.to_owned(),
            unshare,
            init: Pid::from_raw(init),
            lvmlockd: None,
        };
        host.start_lvmlockd()?;
        Ok(host)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts lvmlockd and waits until it answers.
    pub fn start_lvmlockd(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut nsenter = self
            .enter(&self.build.lvmlockd())
            .args(["-D", "-g", "idm"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run nsenter")?;
        let mut check = || {
            if let Some(status) = nsenter.try_wait()? {
                bail!("lvmlockd ended with {status}; it said:\n{}", self.log());
            }
            Ok(nsenter.id())
        };
        let pid = wait_until(START, "lvmlockd's process", || child_of(check()?))?;
        wait_until(START, "lvmlockd to answer", || {
            check()?;
            Ok(Client::connect(&self.socket()).ok())
        })?;
        self.lvmlockd = Some(Lvmlockd { nsenter, pid: Pid::from_raw(pid) });
        self.check_library()
    }

    /// Fails unless lvmlockd has loaded the library under test, and that alone.
    fn check_library(&self) -> Result<()> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.daemon()?.pid))?;
        let expected = fs::canonicalize(artifacts::library())?;
        let inode = fs::metadata(&expected)?.ino().to_string();
        // Of a line's six columns the last two are inode and path. In a chroot, the path in the
        // machine's namespace begins with the directory of the chroot.
        let is_expected = |line: &str| {
            line.split_whitespace().nth(4) == Some(&inode)
                && line.ends_with(&*expected.to_string_lossy())
        };
        let loaded: Vec<&str> =
            maps.lines().filter(|line| line.contains("/liblvmlockd_idm")).collect();
        ensure!(
            !loaded.is_empty() && loaded.iter().all(|line| is_expected(line)),
            "lvmlockd has not loaded {} alone, but:\n{}",
            expected.display(),
            loaded.join("\n")
        );
        Ok(())
    }

    /// Kills lvmlockd (SIGKILL) while others still use it; [`Host::kill_lvmlockd`] must follow.
    pub fn signal_lvmlockd_to_die(&self) -> Result<()> {
        Ok(kill(self.daemon()?.pid, Signal::SIGKILL)?)
    }

    /// Kills lvmlockd (SIGKILL); the machine continues.
    pub fn kill_lvmlockd(&mut self) -> Result<()> {
        self.end_lvmlockd(Signal::SIGKILL)
    }

    /// Makes lvmlockd stop (SIGTERM) and waits for its end. lvmlockd refuses while locks are held
    /// that it knows of. The signal is repeated, because lvmlockd forgets it while it stops a
    /// lockspace.
    pub fn stop_lvmlockd(&mut self) -> Result<()> {
        self.end_lvmlockd(Signal::SIGTERM)
    }

    fn end_lvmlockd(&mut self, signal: Signal) -> Result<()> {
        let Some(mut daemon) = self.lvmlockd.take() else {
            bail!("lvmlockd is not running on host {}", self.name);
        };
        wait_until(START, "lvmlockd to end", || {
            match kill(daemon.pid, signal) {
                // It has ended already.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(daemon.nsenter.try_wait()?)
        })?;
        Ok(())
    }

    /// Whether lvmlockd is running.
    pub fn lvmlockd_runs(&mut self) -> Result<bool> {
        match &mut self.lvmlockd {
            Some(daemon) => Ok(daemon.nsenter.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// lvmlockd's process id, as seen from outside the machine.
    pub fn lvmlockd_pid(&self) -> Result<i32> {
        Ok(self.daemon()?.pid.as_raw())
    }

    /// Suspends lvmlockd (SIGSTOP).
    pub fn freeze_lvmlockd(&self) -> Result<()> {
        Ok(kill(self.daemon()?.pid, Signal::SIGSTOP)?)
    }

    /// Ends [`Host::freeze_lvmlockd`].
    pub fn thaw_lvmlockd(&self) -> Result<()> {
        let daemon = self.daemon()?;
        kill(daemon.pid, Signal::SIGCONT)?;
        // nsenter also stops when the program that it waits for is stopped.
        Ok(kill(Pid::from_raw(daemon.nsenter.id().try_into()?), Signal::SIGCONT)?)
    }

    fn daemon(&self) -> Result<&Lvmlockd> {
        self.lvmlockd
            .as_ref()
            .with_context(|| format!("lvmlockd is not running on host {}", self.name))
    }

    /// Runs an lvm command, for example `["vgs", "-o+lock_type"]`. There is no device-mapper
    /// here, so locks are taken but nothing is activated.
    pub fn lvm(&self, args: &[&str]) -> Result<Output> {
        let (subcommand, rest) = args.split_first().context("which lvm command?")?;
        let mut command = self.timed(&self.build.lvm());
        command.args([subcommand, "--driverloaded", "n"]).args(rest);
        let mut output = run(&mut command)?;
        output.command = format!("lvm {}", args.join(" "));
        Ok(output)
    }

    /// Runs the start command of a systemd template unit, as systemd does for an instance. There is
    /// no device-mapper here, so `lvchange` only takes and gives up locks.
    pub fn start_unit(&self, unit: &str, instance: &str) -> Result<Output> {
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="));
        let script = line.context("the unit has no start command")?;
        let script = script.replace("$$", "$").replace("%I", instance);
        let lvchange = self.dir.join("bin/lvchange");
        fs::create_dir_all(self.dir.join("bin"))?;
        let lvm = self.build.lvm();
        let text = format!("#!/bin/sh\nexec {} lvchange --driverloaded n \"$@\"\n", lvm.display());
        fs::write(&lvchange, text)?;
        fs::set_permissions(&lvchange, fs::Permissions::from_mode(0o755))?;
        let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", self.dir.join("bin").display());
        let mut command = self.timed(Path::new("env"));
        run(command.arg(path).args(["sh", "-c", &script]))
    }

    /// Runs lvmlockctl.
    pub fn lvmlockctl(&self, args: &[&str]) -> Result<Output> {
        let mut output = run(self.timed(&self.build.lvmlockctl()).args(args))?;
        output.command = format!("lvmlockctl {}", args.join(" "));
        Ok(output)
    }

    /// Runs idmctl, which asks lvm for the names of LVs: nothing else here knows them.
    pub fn idmctl(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.timed(&artifacts::idmctl());
        command.args(args).arg(format!("--ask-lvm={}", self.build.lvm().display()));
        let mut output = run(&mut command)?;
        output.command = format!("idmctl {}", args.join(" "));
        Ok(output)
    }

    /// Makes the kernel appear to have a device for an LV, or none: there is no device-mapper here.
    pub fn set_active(&self, lv: &Lv, active: bool) -> Result<()> {
        let device = self.dir.join("block").join(format!("dm-{}", lv.name));
        if !active {
            return Ok(fs::remove_dir_all(device)?);
        }
        fs::create_dir_all(device.join("dm"))?;
        let uuid = format!("{}{}", lv.vg_uuid, lv.uuid).replace('-', "");
        fs::write(device.join("dm/uuid"), format!("LVM-{uuid}\n"))?;
        Ok(fs::write(device.join("dm/name"), format!("{}-{}\n", lv.vg, lv.name))?)
    }

    /// Leaves no room in the machine's `/run`, or as much as it had when it booted.
    pub fn fill_run(&self, full: bool) -> Result<()> {
        if !full {
            return self.resize_run("50%");
        }
        // A file that is just being replaced would leave the room of the old one.
        wait_until(START, "a full /run", || {
            let quiet = !self.is_replacing()?;
            let there = statvfs(Path::new(&self.run_dir())).context("look at /run")?;
            if quiet && there.blocks_free() == 0 && !self.is_replacing()? {
                return Ok(Some(()));
            }
            let used = (there.blocks() - there.blocks_free()) * there.fragment_size();
            self.resize_run(&used.to_string()).map(|()| None)
        })
    }

    fn run_dir(&self) -> String {
        format!("/proc/{}/root/run", self.init)
    }

    fn resize_run(&self, size: &str) -> Result<()> {
        let mut mount = self.enter(Path::new("mount"));
        run(mount.args(["-o", &format!("remount,size={size}"), "/run"]))?.success().map(drop)
    }

    /// Whether the library is replacing one of its files: a new one has a number at its end.
    fn is_replacing(&self) -> Result<bool> {
        let mut directories = vec![PathBuf::from(self.run_dir()).join("lvmlockd-idm")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                let end = path.extension().unwrap_or_default().to_string_lossy();
                if end.parse::<u32>().is_ok() {
                    return Ok(true);
                }
                if path.is_dir() {
                    directories.push(path);
                }
            }
        }
        Ok(false)
    }

    /// Loses all notes of the library.
    pub fn lose_notes(&self) -> Result<()> {
        Ok(fs::remove_dir_all(format!("{}/lvmlockd-idm", self.run_dir()))?)
    }

    /// The library's notes of locks, file by file.
    pub fn noted_locks(&self) -> Result<Vec<String>> {
        let directory = format!("{}/lvmlockd-idm/locks", self.run_dir());
        fs::read_dir(directory)?.map(|note| Ok(fs::read_to_string(note?.path())?)).collect()
    }

    /// Connects to lvmlockd.
    pub fn client(&self) -> Result<Client> {
        Client::connect(&self.socket())
    }

    /// Looks up an LV with `lvs`, in the form of a request to lvmlockd. `pvs` are the PVs that the
    /// request will name.
    pub fn find_lv(&self, vg: &str, name: &str, pvs: &[String]) -> Result<Lv> {
        let path = format!("{vg}/{name}");
        let output =
            self.lvm(&["lvs", "--noheadings", "-o", "lv_uuid,vg_uuid", &path])?.success()?;
        let mut words = output.stdout.split_whitespace().map(str::to_owned);
        Ok(Lv {
            vg: vg.to_owned(),
            name: name.to_owned(),
            uuid: words.next().context("no LV uuid")?,
            vg_uuid: words.next().context("no VG uuid")?,
            pvs: pvs.to_vec(),
        })
    }

    /// The number of times that lvmlockd found that another host has or may have changed a VG's
    /// metadata since it last held the VG's lock.
    pub fn invalidations(&self, vg: &str) -> usize {
        // 2.03.16 writes "S lvm_vg R VGLK res_lock …", 2.03.31 "lvm_vg:VGLK res_lock …".
        self.log()
            .lines()
            .filter(|line| line.contains(&format!("lvm_{vg}")))
            .filter(|line| line.contains("res_lock invalidate vg state"))
            .count()
    }

    /// The whole log of lvmlockd on this host since it booted.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The library's exported counters; empty where it exports none.
    pub fn metrics(&self) -> String {
        let path = format!("{}/lvmlockd-idm/metrics.prom", self.run_dir());
        fs::read_to_string(path).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("lvmlockd.log")
    }

    fn socket(&self) -> PathBuf {
        format!("{}/lvm/lvmlockd.socket", self.run_dir()).into()
    }

    fn enter(&self, program: &Path) -> Command {
        let mut command = bound_to_this_thread("nsenter");
        command
            .arg(format!("--target={}", self.init))
            // In a chroot, the root of a mount namespace is not ours.
            .args(["--mount", "--root", "--uts", "--net", "--pid", "--"])
            .arg(program)
            .env("LVM_SUPPRESS_FD_WARNINGS", "1")
            .envs(artifacts::sg().map(|library| ("LD_PRELOAD", library)));
        command
    }

    fn timed(&self, program: &Path) -> Command {
        let mut command = self.enter(Path::new("timeout"));
        command.args(["--signal=KILL", COMMAND_SECONDS]).arg(program).stdin(Stdio::null());
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // unshare ends only after all processes in the namespace have ended.
        let _ = kill(self.init, Signal::SIGKILL);
        let _ = self.unshare.wait();
        if let Some(daemon) = &mut self.lvmlockd {
            let _ = daemon.nsenter.kill();
            let _ = daemon.nsenter.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- lvmlockd on {} said last:\n{}", self.name, tail.join("\n"));
        }
    }
}
