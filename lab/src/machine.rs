//! A host of the cluster: a machine with lvm2 and lvmlockd.

use crate::agent::{Agent, Ended, JobId};
use crate::drives::{Drives, HOSTS};
use crate::files::{Files, KILL_SCRIPT};
use crate::interfaces::{DRIVES, Interfaces, partition};
use crate::qemu::{ADDRESS, GATEWAY, Qemu};
use crate::transcript::Transcript;
use anyhow::{Context, Result, bail, ensure};
use idm_emulator::disks::Interface;
use lab_agent::Setup;
use lab_writer::REGION;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest time of a command, after which it is killed. An lvm command that retries a lock
/// takes up to 23 s, and emulation makes everything slower.
const COMMAND: Duration = Duration::from_secs(120);
/// Time for a resumed machine to get its root file system.
const SET_UP: Duration = Duration::from_secs(120);

/// Patterns of the nodes of drives and their partitions.
pub const ALL_DISKS: [&str; 2] = ["/dev/sd[a-z]+[0-9]*", "/dev/nvme[0-9]+n[0-9]+(p[0-9]+)?"];

/// The way to start lvmlockd.
#[derive(Clone, Debug, Default)]
pub struct Daemon {
    /// Prefix of its command line, for example `setpriv …`.
    pub wrapper: String,
    /// Whether to use the lvmlockd with patches, and make it adopt locks.
    pub adopts: bool,
}

/// A running host. Dropping it cuts its power.
pub struct Machine {
    name: String,
    qemu: Qemu,
    agent: Agent,
    transcript: Transcript,
    dir: PathBuf,
    files: Files,
    lvmlockd: Option<JobId>,
    interfaces: Interfaces,
    /// TCP port of this machine's first path to NVMe drives.
    tcp_port: u16,
}

impl Machine {
    /// Resumes a machine from the snapshot, gives it its root file system and one path to the
    /// drives.
    pub fn boot(
        name: &str,
        files: &Files,
        drives: &Drives,
        dir: &Path,
        transcript: Transcript,
    ) -> Result<Machine> {
        let begin = Instant::now();
        let root = (Path::new("/"), files.binds());
        let machine = Machine::resume(name, files, drives, dir, transcript, root)?;
        machine.accept(&ALL_DISKS)?;
        machine.write("/etc/lvm/lvmlockd-idm.conf", &files.idm_conf())?;
        machine.write(KILL_SCRIPT, &files.kill_script())?;
        // Without lvmpolld, pvmove is refused in a shared VG.
        machine.quiet(&format!("chmod 755 {KILL_SCRIPT} && lvmpolld"))?;
        transcript.step(name, &format!("is up after {:.1} s", begin.elapsed().as_secs_f64()));
        Ok(machine)
    }

    /// The same with another root file system, on which nothing is set up.
    pub fn boot_bare(
        name: &str,
        files: &Files,
        drives: &Drives,
        dir: &Path,
        transcript: Transcript,
    ) -> Result<Machine> {
        let root = (files.empty_host.as_path(), vec![files.modules()]);
        Machine::resume(name, files, drives, dir, transcript, root)
    }

    /// `root` is a directory of this machine with the root file system, and the directories that
    /// are bound in it.
    fn resume(
        name: &str,
        files: &Files,
        drives: &Drives,
        dir: &Path,
        transcript: Transcript,
        (root, binds): (&Path, Vec<(String, String)>),
    ) -> Result<Machine> {
        let (mut qemu, stream) = Qemu::start(name, &files.boot, Some(&files.snapshot), dir)?;
        let agent = Agent::new(name, stream)?;
        qemu.wait_running()?;
        qemu.plug_file_system()?;
        if drives.interfaces.include(Interface::Scsi) {
            qemu.plug_adapter(0, &drives.port_socket(name, 0))?;
        }
        if drives.interfaces.include(Interface::Nvme) {
            qemu.plug_network()?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let setup = Setup {
            hostname: name.to_owned(),
            now_ms: u64::try_from(now.as_millis())?,
            root: root.display().to_string(),
            binds,
        };
        agent.set_up(&setup, SET_UP)?;
        let machine = Machine {
            name: name.to_owned(),
            qemu,
            agent,
            transcript,
            dir: dir.to_owned(),
            files: files.clone(),
            lvmlockd: None,
            interfaces: drives.interfaces,
            tcp_port: drives.tcp_port(name, 0)?,
        };
        machine.connect_all_nvme()?;
        machine.wait_disks(DRIVES.len())?;
        Ok(machine)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Plugs in the second path to all drives. lvm still uses the nodes of the first.
    pub fn plug_second_path(&mut self, socket: &Path) -> Result<()> {
        let first: Vec<String> =
            self.disks()?.into_values().map(|node| format!("{node}[0-9]*")).collect();
        self.accept(&first)?;
        self.qemu.plug_adapter(1, socket)?;
        self.wait_disks(2 * DRIVES.len())?;
        self.transcript.step(&self.name, "has two paths to every drive");
        Ok(())
    }

    /// Makes lvm see only the block devices whose paths match one of these patterns.
    pub fn accept(&self, patterns: &[impl AsRef<str>]) -> Result<()> {
        self.write("/etc/lvm/lvm.conf", &self.files.lvm_conf(patterns))
    }

    fn connect_all_nvme(&self) -> Result<()> {
        let mut drives = self.interfaces.drives_with(Interface::Nvme).peekable();
        if drives.peek().is_none() {
            return Ok(());
        }
        let script = format!(
            "n=0; until [ -e /sys/class/net/eth0 ]; \
             do n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.05; done; \
             ip link set eth0 up && ip address add {ADDRESS} dev eth0"
        );
        self.quiet(&script).context("the network does not appear")?;
        for drive in drives {
            self.connect_nvme(drive, self.tcp_port)?;
        }
        Ok(())
    }

    /// Connects to an NVMe drive by one path. I/O waits 5 s for a lost path to come back, and then
    /// fails; the kernel keeps trying.
    pub fn connect_nvme(&self, drive: &str, tcp_port: u16) -> Result<()> {
        self.quiet(&self.nvme_connection(drive, tcp_port))
            .map(drop)
            .with_context(|| format!("host {} cannot connect to {drive}", self.name))
    }

    /// The command that connects to an NVMe drive.
    fn nvme_connection(&self, drive: &str, tcp_port: u16) -> String {
        // Host names are letters that are also hexadecimal digits.
        let host = format!("00000000-0000-4000-8000-{:0>12}", self.name);
        format!(
            "echo 'transport=tcp,traddr={GATEWAY},trsvcid={tcp_port},\
             nqn=nqn.2024-01.lvmlockd-idm:{drive},\
             hostnqn=nqn.2014-08.org.nvmexpress:uuid:{host},hostid={host},nr_io_queues=1,\
             reconnect_delay=1,fast_io_fail_tmo=5,ctrl_loss_tmo=-1' >/dev/nvme-fabrics"
        )
    }

    /// Shell commands that make the kernel find all drives.
    pub fn attach_all_script(&self) -> String {
        let mut script = String::new();
        if self.interfaces.include(Interface::Scsi) {
            script
                .push_str("for h in /sys/class/scsi_host/host*; do echo '- - -' >$h/scan; done\n");
        }
        for drive in self.interfaces.drives_with(Interface::Nvme) {
            script.push_str(&format!("{}\n", self.nvme_connection(drive, self.tcp_port)));
        }
        script
    }

    /// Makes a program the machine's first process, which is the last step of a boot.
    pub fn leave_to(&self, command: &str) -> Result<()> {
        self.transcript.step(&self.name, &format!("boots: {command}"));
        self.agent.leave_to(command, SET_UP)
    }

    /// Makes the kernel forget a drive, as when it is pulled out.
    pub fn detach(&self, drive: &str) -> Result<()> {
        let node = self.disk(drive)?;
        let name = node.trim_start_matches("/dev/");
        let script = match self.interfaces.of(drive) {
            Interface::Scsi => format!("echo 1 >/sys/block/{name}/device/delete"),
            Interface::Nvme => format!(
                "for c in /sys/class/nvme/nvme*; do \
                 [ $(cat $c/serial) != {drive} ] || echo 1 >$c/delete_controller; done"
            ),
        };
        self.ok(&script).map(drop)
    }

    /// Makes the kernel find a drive that was detached.
    pub fn attach(&self, drive: &str) -> Result<()> {
        match self.interfaces.of(drive) {
            Interface::Scsi => self
                .ok("for h in /sys/class/scsi_host/host*; do echo '- - -' >$h/scan; done")
                .map(drop),
            Interface::Nvme => self.connect_nvme(drive, self.tcp_port),
        }
    }

    /// Waits until `count` disks are present: each SCSI path is a disk, and each NVMe drive is one.
    fn wait_disks(&self, count: usize) -> Result<()> {
        let script = format!(
            "n=0; until [ $( ({LIST_DISKS}) 2>/dev/null | wc -l) -ge {count} ]; \
             do n=$((n+1)); [ $n -lt 400 ] || exit 1; sleep 0.05; done"
        );
        self.quiet(&script).map(drop).context("the drives do not appear")
    }

    /// The block nodes of the drives, by the drives' names, because the kernel assigns them in any
    /// order. A drive that this machine does not have is missing; of several paths, one is listed.
    pub fn disks(&self) -> Result<BTreeMap<String, String>> {
        let text = self.quiet(LIST_DISKS)?;
        let pair = |line: &str| {
            line.split_once(' ').map(|(name, node)| (name.to_owned(), node.to_owned()))
        };
        Ok(text.lines().filter_map(pair).collect())
    }

    /// All block nodes of a drive, one per path.
    pub fn nodes(&self, drive: &str) -> Result<Vec<String>> {
        let script = format!(
            "for d in /sys/block/sd*; do \
             [ $(tail -c +5 $d/device/vpd_pg80) != {drive} ] || echo /dev/${{d##*/}}; done"
        );
        Ok(self.quiet(&script)?.lines().map(str::to_owned).collect())
    }

    /// The block node of a drive.
    pub fn disk(&self, drive: &str) -> Result<String> {
        self.disks()?
            .remove(drive)
            .with_context(|| format!("host {} does not see drive {drive}", self.name))
    }

    /// Data partitions of the first three drives, as arguments of an lvm command.
    pub fn data_partitions(&self) -> Result<String> {
        let disks = self.disks()?;
        let data: Vec<String> = crate::drives::PARTITIONED
            .iter()
            .filter_map(|name| disks.get(*name))
            .map(|node| partition(node, 2))
            .collect();
        Ok(data.join(" "))
    }

    fn shell(&self, command: &str) -> String {
        format!(
            "export PATH={}:$PATH LVM_SUPPRESS_FD_WARNINGS=1; {command}",
            self.files.sbin.display()
        )
    }

    /// Runs a shell command without printing it.
    pub fn attempt(&self, command: &str) -> Result<Ended> {
        let job = self.agent.start(&self.shell(command), None)?;
        self.agent.wait(job, COMMAND, command)
    }

    /// Prints a step of this host.
    pub fn step(&self, what: &str) {
        self.transcript.step(&format!("{}#", self.name), what);
    }

    /// Fails unless a command succeeded; returns its output.
    fn good(&self, command: &str, ended: Ended) -> Result<String> {
        let Ended { code, stdout, stderr } = ended;
        ensure!(code == 0, "{}# {command}: status {code}\n{stdout}{stderr}", self.name);
        Ok(stdout)
    }

    /// Runs a shell command that must succeed, without printing it.
    pub fn quiet(&self, command: &str) -> Result<String> {
        let ended = self.attempt(command)?;
        self.good(command, ended)
    }

    /// Runs a shell command.
    pub fn run(&self, command: &str) -> Result<Ended> {
        let begin = Instant::now();
        let ended = self.attempt(command)?;
        let seconds = begin.elapsed().as_secs_f64();
        let status = if ended.code == 0 { String::new() } else { format!(" -> {}", ended.code) };
        self.step(&format!("{command}{status} ({seconds:.1} s)"));
        Ok(ended)
    }

    /// Runs a shell command that must succeed.
    pub fn ok(&self, command: &str) -> Result<String> {
        let ended = self.run(command)?;
        self.good(command, ended)
    }

    /// Runs a shell command that must be refused with this exit status and this message.
    pub fn refused(&self, command: &str, code: i32, message: &str) -> Result<()> {
        let ended = self.run(command)?;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(
            ended.code == code && said.contains(message),
            "{}# {command}: expected status {code} and {message:?}, got status {}\n{said}",
            self.name,
            ended.code
        );
        Ok(())
    }

    /// Starts a shell command and does not wait for it.
    pub fn start(&self, command: &str) -> Result<JobId> {
        self.transcript.step(&format!("{}#", self.name), &format!("{command} &"));
        self.agent.start(&self.shell(command), None)
    }

    /// Starts a shell command whose output goes to a file among the scenario's logs.
    pub fn start_logged(&self, command: &str, name: &str) -> Result<JobId> {
        let log = File::create(self.dir.join(name))?;
        self.agent.start(&self.shell(command), Some(log))
    }

    /// A file among the scenario's logs.
    pub fn read_log(&self, name: &str) -> String {
        fs::read(self.dir.join(name))
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Paths of the files and programs that the lab runs.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The interfaces of its drives.
    pub fn interfaces(&self) -> Interfaces {
        self.interfaces
    }

    /// Whether a command that was started has not ended yet.
    pub fn job_runs(&self, job: JobId) -> bool {
        self.agent.runs(job)
    }

    /// Starts an application that writes to an LV, whatever happens, until it is stopped.
    pub fn start_writer(&self, lv: &str) -> Result<JobId> {
        let number = HOSTS.iter().position(|host| *host == self.name).unwrap_or_default();
        let program = self.files.writer.display();
        self.start(&format!("exec {program} /dev/{lv} {} {number} >>/run/writer 2>&1", self.name))
    }

    /// Errors that the applications on this host have reported so far.
    pub fn writer_errors(&self) -> Result<String> {
        self.quiet("cat /run/writer")
    }

    /// Stops the application.
    pub fn stop_writer(&self, writer: JobId) -> Result<()> {
        self.step("the writer is stopped");
        self.quiet("kill $(pidof lab-writer)")?;
        self.wait(writer, COMMAND).map(drop)
    }

    /// Fails unless the shared blocks of an LV have the data that this host wrote last.
    pub fn check_shared_blocks(&self, lv: &str) -> Result<()> {
        let text = self.ok(&format!("{} --read /dev/{lv}", self.files.writer.display()))?;
        let mut mine = 0;
        for line in text.lines() {
            let mut words = line.split(' ');
            let (block, host) = (words.next().unwrap_or_default(), words.next());
            if block.parse::<u64>()? >= REGION && host != Some("torn") {
                continue;
            }
            ensure!(host == Some(&self.name), "a block of {lv} that {} wrote: {line}", self.name);
            mine += 1;
        }
        ensure!(mine == REGION, "{} has written {mine} of {REGION} blocks", self.name);
        Ok(())
    }

    /// Waits for a command that was started.
    pub fn wait(&self, job: JobId, patience: Duration) -> Result<Ended> {
        self.agent.wait(job, patience, "a command that was started")
    }

    /// Writes a file.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let dir = Path::new(path).parent().unwrap_or(Path::new("/")).display();
        self.quiet(&format!("mkdir -p {dir} && cat >{path} <<'END-OF-FILE'\n{text}END-OF-FILE"))
            .map(drop)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}.lvmlockd", self.name))
    }

    /// The output of lvmlockd so far, over all its lives in this scenario.
    pub fn lvmlockd_log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Starts lvmlockd and waits until it answers.
    pub fn start_lvmlockd(&mut self, daemon: &Daemon) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let (program, adopt) = match daemon.adopts {
            true => (&self.files.adopting_lvmlockd, " --adopt 1"),
            false => (&self.files.lvmlockd, ""),
        };
        let command = format!("exec {} {} -D -g idm{adopt}", daemon.wrapper, program.display());
        let job = self.agent.start(&self.shell(&command), Some(log))?;
        self.transcript.step(&self.name, &format!("{} lvmlockd -g idm{adopt}", daemon.wrapper));
        let wait = "n=0; until lvmlockctl --info >/dev/null 2>&1; do n=$((n+1)); \
                    [ $n -lt 200 ] || exit 1; sleep 0.05; done";
        self.quiet(wait).with_context(|| {
            format!("lvmlockd does not answer; it said:\n{}", self.lvmlockd_log())
        })?;
        self.lvmlockd = Some(job);
        Ok(())
    }

    /// Kills lvmlockd (SIGKILL) and waits for its end.
    pub fn kill_lvmlockd(&mut self) -> Result<()> {
        let Some(job) = self.lvmlockd.take() else {
            bail!("lvmlockd does not run on host {}", self.name);
        };
        self.transcript.step(&self.name, "kill -9 lvmlockd");
        self.quiet("kill -9 $(pidof lvmlockd)")?;
        self.agent.wait(job, COMMAND, "lvmlockd's end").map(drop)
    }

    /// Whether lvmlockd runs.
    pub fn lvmlockd_runs(&self) -> bool {
        self.lvmlockd.is_some_and(|job| self.agent.runs(job))
    }

    /// Stops the machine's processor; its clock jumps when it is thawed.
    pub fn freeze(&self) -> Result<()> {
        self.transcript.step(&self.name, "is frozen");
        self.qemu.freeze()
    }

    /// Whether the machine was reset.
    pub fn was_reset(&mut self) -> Result<bool> {
        self.qemu.has_ended()
    }

    /// Ends [`Machine::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.transcript.step(&self.name, "is thawed");
        self.qemu.thaw()
    }

    /// Stops the processor and all clocks of the machine, as a hypervisor can: the machine cannot
    /// notice it.
    pub fn stop(&mut self) -> Result<()> {
        self.transcript.step(&self.name, "is stopped by the hypervisor");
        self.qemu.order("stop", serde_json::json!({})).map(drop)
    }

    /// Ends [`Machine::stop`].
    pub fn go_on(&mut self) -> Result<()> {
        self.transcript.step(&self.name, "goes on");
        self.qemu.order("cont", serde_json::json!({})).map(drop)
    }

    /// Cuts the power.
    pub fn kill(self) {
        self.transcript.step(&self.name, "is killed");
    }

    /// Gives virtio_scsi the time-outs of other adapters. NVMe has time-outs already.
    pub fn enable_timeouts(&self) -> Result<()> {
        if !self.interfaces.include(Interface::Scsi) {
            return Ok(());
        }
        self.ok(&format!("insmod {}", self.files.vsto.display())).map(drop)
    }

    /// Saves all available information in `dir`.
    pub fn keep(&self, dir: &Path) {
        let script = "lvmlockctl --info; lvmlockctl --dump; dmsetup table; dmesg; \
                      ls -l /dev/sd* /dev/nvme*; cat /run/killed /run/writer; \
                      systemctl --no-pager status --all; journalctl --no-pager";
        if let Ok(job) = self.agent.start(&self.shell(script), None) {
            let patience = Duration::from_secs(20);
            if let Ok(ended) = self.agent.wait(job, patience, "the machine's logs") {
                let _ = fs::write(dir.join(format!("{}.state", self.name)), ended.stdout);
            }
        }
    }
}

/// Prints name and node of each disk. Native multipath hides the paths of an NVMe drive behind one
/// node, but /sys/block also lists the paths.
const LIST_DISKS: &str = "for d in /sys/block/sd*; do [ ! -e $d/device/vpd_pg83 ] || \
    echo $(tail -c +5 $d/device/vpd_pg80) /dev/${d##*/}; done; \
    for d in /sys/block/nvme*; do [ ! -e $d/dev ] || \
    echo $(cat $d/device/serial) /dev/${d##*/}; done";
