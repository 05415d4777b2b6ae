//! A virtual machine: the QEMU process and its monitor.

use anyhow::{Context, Result, bail};
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use testbed::{bound_to_this_thread, wait_until};

/// Memory of a machine in MiB. It includes files in memory, and the logs of lvm2's own tests are
/// large.
const MEMORY_MIB: u32 = 640;
/// PCI Express slots for devices that are plugged in later: the root file system, adapters and the
/// network.
const SLOTS: usize = 5;
/// Slot of the network: after those of the root file system and of two adapters.
const NETWORK_SLOT: usize = 3;
/// Descriptors in QEMU of the machine's ends of the sockets.
const AGENT_FD: i32 = 10;
const MONITOR_FD: i32 = 11;
/// Time that is enough for a machine that shares its processor with others.
const PATIENCE: Duration = Duration::from_secs(120);

/// Address of the machine, and of QEMU itself, in the network that QEMU makes.
pub const ADDRESS: &str = "10.0.2.15/24";
/// See [`ADDRESS`].
pub const GATEWAY: &str = "10.0.2.2";

/// Files that machines boot from, as `prepare.sh` makes them.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Uncompressed kernel.
    pub kernel: PathBuf,
    /// Initramfs with the agent.
    pub initramfs: PathBuf,
}

/// A running QEMU. Dropping it cuts the machine's power.
pub struct Qemu {
    process: Child,
    monitor: BufReader<UnixStream>,
    name: String,
}

/// A machine's serial line to its agent.
pub type AgentStream = UnixStream;

/// Emulation. Translated code may take 1 GiB by default, more than the machine itself.
const TCG: &str = "tcg,tb-size=256";

/// Accelerators in the order in which they are tried. An existing /dev/kvm is not enough: on some
/// hosts it only runs special kernels, and the processor has no virtualization.
fn accelerators() -> &'static [&'static str] {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let virtualizes = processor
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
    if virtualizes && File::options().read(true).write(true).open("/dev/kvm").is_ok() {
        &["kvm", TCG]
    } else {
        &[TCG]
    }
}

/// Command line of every machine. A snapshot can only be resumed with the command line that was
/// used to make it.
fn arguments(boot: &Boot) -> Vec<String> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut all = words("-nodefaults -no-user-config -vga none -display none -no-reboot");
    for accelerator in accelerators() {
        all.extend(["-accel".into(), accelerator.to_string()]);
    }
    // One thread per virtual processor is the fastest configuration under emulation.
    all.extend(words("-smp 1 -M q35,memory-backend=memory"));
    all.extend(words(&format!("-m {MEMORY_MIB}")));
    // The memory is shared, so that the drives' process can put data into it.
    all.extend(words(&format!(
        "-object memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on"
    )));
    all.extend(["-kernel".into(), boot.kernel.display().to_string()]);
    all.extend(["-initrd".into(), boot.initramfs.display().to_string()]);
    // The check of the timer sometimes fails while other processes use the processor.
    all.extend(["-append".into(), "console=ttyS0 quiet panic=-1 no_timer_check".into()]);
    all.extend(words(&format!(
        "-chardev socket,id=agent,fd={AGENT_FD} -device virtio-serial-pci \
         -device virtserialport,chardev=agent,name={}",
        lab_agent::PORT_NAME
    )));
    all.extend(words(&format!(
        "-chardev socket,id=monitor,fd={MONITOR_FD} -mon chardev=monitor,mode=control"
    )));
    all.extend(words(
        "-fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
    ));
    // Makes a resumed machine renew its random numbers.
    all.extend(words("-device vmgenid,guid=auto"));
    for slot in 0..SLOTS {
        let chassis = slot + 1;
        all.extend(words(&format!(
            "-device pcie-root-port,id=slot{slot},chassis={chassis},slot={chassis}"
        )));
    }
    all
}

/// The properties that a snapshot depends on, as text.
pub fn fingerprint(boot: &Boot) -> Result<String> {
    let mut text = arguments(boot).join("\n");
    for file in [&boot.kernel, &boot.initramfs] {
        let metadata = file.metadata().with_context(|| file.display().to_string())?;
        let changed = metadata.modified()?.duration_since(std::time::UNIX_EPOCH)?;
        text.push_str(&format!("\n{} {}", metadata.len(), changed.as_nanos()));
    }
    Ok(text)
}

impl Qemu {
    /// Starts a machine, from a snapshot or from nothing. `dir` gets its console and the output of
    /// QEMU.
    pub fn start(
        name: &str,
        boot: &Boot,
        snapshot: Option<&Path>,
        dir: &Path,
    ) -> Result<(Qemu, AgentStream)> {
        let (agent, agent_end) = UnixStream::pair()?;
        let (monitor, monitor_end) = UnixStream::pair()?;
        let console = dir.join(format!("{name}.console"));
        let log = File::create(dir.join(format!("{name}.qemu")))?;
        let mut command = bound_to_this_thread("qemu-system-x86_64");
        command.args(["-name", name]).args(arguments(boot));
        command.arg("-serial").arg(format!("file:{}", console.display()));
        if let Some(snapshot) = snapshot {
            command.arg("-incoming").arg(format!("exec:cat {}", snapshot.display()));
        }
        command.fd_mappings(vec![
            FdMapping { parent_fd: OwnedFd::from(agent_end), child_fd: AGENT_FD },
            FdMapping { parent_fd: OwnedFd::from(monitor_end), child_fd: MONITOR_FD },
        ])?;
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run qemu-system-x86_64")?;
        // Only QEMU may hold its ends of the sockets, so that they are closed when it ends.
        drop(command);
        monitor.set_read_timeout(Some(PATIENCE))?;
        let mut qemu = Qemu { process, monitor: BufReader::new(monitor), name: name.to_owned() };
        let mut greeting = String::new();
        qemu.monitor.read_line(&mut greeting)?;
        qemu.order("qmp_capabilities", json!({}))?;
        Ok((qemu, agent))
    }

    /// Sends a command to the monitor and waits for its answer.
    pub fn order(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.monitor.get_mut().write_all(format!("{line}\n").as_bytes())?;
        loop {
            let mut text = String::new();
            if self.monitor.read_line(&mut text)? == 0 {
                bail!("machine {} has ended", self.name);
            }
            let mut answer: Value = serde_json::from_str(&text)?;
            if let Some(error) = answer.get("error") {
                bail!("machine {}: {command}: {}", self.name, error["desc"]);
            }
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }

    /// Waits until a resumed machine runs.
    pub fn wait_running(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.order("query-status", json!({}))?;
            match status["status"].as_str() {
                Some("running") => return Ok(()),
                Some("paused" | "postmigrate") => {
                    self.order("cont", json!({}))?;
                }
                _ if Instant::now() > deadline => bail!("machine {} does not start", self.name),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Writes the stopped machine to a file.
    pub fn save(&mut self, file: &Path) -> Result<()> {
        self.order("stop", json!({}))?;
        self.order("migrate", json!({ "uri": format!("exec:cat > {}", file.display()) }))?;
        wait_until(PATIENCE, "the machine to be saved", || {
            let answer = self.order("query-migrate", json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => Ok(Some(())),
                Some("failed") => bail!("the machine cannot be saved: {answer}"),
                _ => Ok(None),
            }
        })
    }

    /// Plugs in the lab's file system.
    pub fn plug_file_system(&mut self) -> Result<()> {
        let device = json!({
            "driver": "virtio-9p-pci", "id": "files", "fsdev": "host", "mount_tag": "host",
            "bus": "slot0",
        });
        self.order("device_add", device).map(drop)
    }

    /// Plugs in a SCSI adapter, which is a port of the drives. `number` is its slot, counted from
    /// 0.
    pub fn plug_adapter(&mut self, number: usize, socket: &Path) -> Result<()> {
        let backend = json!({
            "type": "socket",
            "data": {
                "addr": { "type": "unix", "data": { "path": socket.display().to_string() } },
                "server": false,
            },
        });
        let character_device = format!("port{number}");
        self.order("chardev-add", json!({ "id": character_device, "backend": backend }))?;
        let device = json!({
            "driver": "vhost-user-scsi-pci", "id": format!("adapter{number}"),
            "chardev": character_device, "num_queues": "1", "param_change": "off",
            "hotplug": "off", "bus": format!("slot{}", number + 1),
        });
        self.order("device_add", device).map(drop)
    }

    /// Plugs in a network adapter. Connections of the machine to [`GATEWAY`] reach this machine's
    /// 127.0.0.1; nothing else can be reached.
    pub fn plug_network(&mut self) -> Result<()> {
        self.order("netdev_add", json!({ "type": "user", "id": "network", "ipv6": false }))?;
        let device = json!({
            "driver": "virtio-net-pci", "id": "nic", "netdev": "network", "romfile": "",
            "bus": format!("slot{NETWORK_SLOT}"),
        });
        self.order("device_add", device).map(drop)
    }

    /// Stops the machine's processor; its clock goes on and jumps when it is thawed.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Whether the machine has ended. It ends at a reset, because a machine is not booted again.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// Ends [`Qemu::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.process.id().try_into()?), signal)?)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
