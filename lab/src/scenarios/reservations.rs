//! Independent clients: sg3-utils and nvme-cli, and the kernel, go through the life of reservations
//! on emulated drives.

use crate::cluster::Cluster;
use crate::machine::Machine;
use anyhow::{Context, Result, ensure};
use idm_emulator::disks::Interface;

/// Exit status of sg_persist for RESERVATION CONFLICT.
const RESERVATION_CONFLICT: i32 = 24;

/// Exit status of sg_persist for a unit attention condition.
const UNIT_ATTENTION: i32 = 6;
/// Exit status of sg_persist for ILLEGAL REQUEST.
const ILLEGAL_REQUEST: i32 = 5;

/// The drive: one without partitions.
const DRIVE: &str = "d3";

/// A host that works on one drive.
pub(super) struct Client<'a> {
    machine: &'a Machine,
    disk: String,
}

impl<'a> Client<'a> {
    pub(super) fn new(cluster: &'a Cluster, name: &str) -> Result<Client<'a>> {
        let machine = cluster.host(name)?;
        Ok(Client { machine, disk: machine.disk(DRIVE)? })
    }

    /// Lets only registered hosts write.
    pub(super) fn reserve(&self) -> Result<()> {
        match self.machine.interfaces().of(DRIVE) {
            Interface::Scsi => {
                // The first command may get a unit attention condition.
                let keys = format!("sg_persist --no-inquiry --in --read-keys {}", self.disk);
                self.machine.ok(&format!("{keys} || {keys}"))?;
                self.persist("--out --register --param-sark=b1")?;
                self.persist("--out --reserve --param-rk=b1 --prout-type=5")?;
            }
            Interface::Nvme => {
                self.nvme("resv-register", "--nrkey=0xb1 --rrega=0")?;
                self.nvme("resv-acquire", "--crkey=0xb1 --rtype=3 --racqa=0")?;
            }
        }
        Ok(())
    }

    /// Writes a block through the kernel's block layer.
    fn write(&self) -> Result<()> {
        self.machine.ok(&self.writing()).map(drop)
    }

    fn writing(&self) -> String {
        format!("dd if=/dev/zero of={} bs=4096 count=1 oflag=direct", self.disk)
    }

    /// Writing fails because of a reservation. The kernel calls it EBADE.
    fn write_is_refused(&self) -> Result<()> {
        self.machine.refused(&self.writing(), 1, "Invalid exchange")
    }

    fn read(&self) -> Result<()> {
        let command = format!("dd if={} of=/dev/null bs=4096 count=1 iflag=direct", self.disk);
        self.machine.ok(&command).map(drop)
    }

    /// Runs sg_persist.
    fn persist(&self, arguments: &str) -> Result<String> {
        self.machine.ok(&format!("sg_persist --no-inquiry {arguments} {}", self.disk))
    }

    fn persist_is_refused(&self, arguments: &str, code: i32, message: &str) -> Result<()> {
        let command = format!("sg_persist --no-inquiry {arguments} {}", self.disk);
        self.machine.refused(&command, code, message)
    }

    /// Runs a reservation command of nvme-cli.
    fn nvme(&self, command: &str, arguments: &str) -> Result<String> {
        self.machine.ok(&format!("nvme {command} {} --namespace-id=1 {arguments}", self.disk))
    }

    fn nvme_is_refused(&self, command: &str, arguments: &str, status: &str) -> Result<()> {
        let line = format!("nvme {command} {} --namespace-id=1 {arguments}", self.disk);
        let ended = self.machine.run(&line)?;
        let said = format!("{}{}", ended.stdout, ended.stderr).to_lowercase();
        ensure!(ended.code != 0 && said.contains(status), "expected {status}: {ended:?}");
        Ok(())
    }

    /// Words of `nvme resv-report`.
    fn report(&self) -> Result<Vec<String>> {
        Ok(words(&self.nvme("resv-report", "--eds")?))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Fails unless a text has all these parts, in this order.
fn expect(text: &str, parts: &[&str]) -> Result<()> {
    let text = words(text).join(" ");
    let mut rest = &text[..];
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            anyhow::bail!("no {part:?} after what was found before: {text}");
        };
        rest = after;
    }
    Ok(())
}

pub fn scsi(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    cluster.boot("b")?;
    let (a, b) = (Client::new(cluster, "a")?, Client::new(cluster, "b")?);
    let capabilities = a.persist("--in --report-capabilities")?;
    expect(
        &capabilities,
        &[
            "(SIP_C): 0",
            "(ATP_C): 0",
            "(PTPL_C): 1",
            "(TMV): 1",
            "Allow Commands: 3",
            "(PTPL_A): 0",
            "Write Exclusive, all registrants: 1",
            "Exclusive Access, registrants only: 1",
            "Write Exclusive, registrants only: 1",
            "Exclusive Access: 1",
            "Write Exclusive: 1",
            "Exclusive Access, all registrants: 1",
        ],
    )?;
    expect(&a.persist("--in --read-keys")?, &["generation=0x0", "NO registered reservation keys"])?;
    expect(&a.persist("--in --read-reservation")?, &["generation=0x0", "NO reservation held"])?;

    a.persist("--out --register --param-sark=a1")?;
    b.persist("--out --register --param-sark=b1")?;
    a.persist("--out --reserve --param-rk=a1 --prout-type=7")?;
    let wear = "scope: LU_SCOPE, type: Write Exclusive, all registrants";
    expect(&b.persist("--in --read-keys")?, &["generation=0x2", "2 registered", "0xa1", "0xb1"])?;
    expect(&b.persist("--in --read-reservation")?, &["Key=0x0", wear])?;
    let holder = "<< Reservation holder >>";
    let first_port = "Relative port address: 0x1";
    expect(
        &b.persist("--in --read-full-status")?,
        &[
            "generation=0x2",
            "Key=0xa1",
            first_port,
            holder,
            wear,
            "SAS address: 0x3",
            "Key=0xb1",
            first_port,
            holder,
            wear,
            "SAS address: 0x3",
        ],
    )?;
    a.write()?;
    b.write()?;
    scsi_preemption(cluster, &a, &b)?;
    scsi_power_cycle_and_move(cluster, &a, &b)
}

/// b removes a, which may then read and not write, and can come back.
fn scsi_preemption(cluster: &Cluster, a: &Client<'_>, b: &Client<'_>) -> Result<()> {
    b.persist("--out --preempt-abort --param-rk=b1 --param-sark=a1 --prout-type=7")?;
    expect(&b.persist("--in --read-keys")?, &["generation=0x3", "1 registered", "0xb1"])?;
    let before = cluster.drives.changes(DRIVE)?;
    a.write_is_refused()?;
    ensure!(cluster.drives.changes(DRIVE)? == before, "a host that was removed has written");
    // The unit attention condition is for a's next command that does not conflict.
    a.persist_is_refused("--in --read-keys", UNIT_ATTENTION, "")?;
    a.read()?;
    b.write()?;
    let reserve = "--out --reserve --param-rk=a1 --prout-type=7";
    a.persist_is_refused(reserve, RESERVATION_CONFLICT, "")?;
    let register = "--out --register --param-rk=a1 --param-sark=a2";
    a.persist_is_refused(register, RESERVATION_CONFLICT, "")?;
    a.persist("--out --register-ignore --param-sark=a2")?;
    a.write()?;
    let release = "--out --release --param-rk=b1 --prout-type=5";
    b.persist_is_refused(release, ILLEGAL_REQUEST, "")?;
    b.persist("--out --release --param-rk=b1 --prout-type=7")?;
    // It was released: a gets a condition for that.
    a.persist_is_refused("--in --read-reservation", UNIT_ATTENTION, "")?;
    expect(&a.persist("--in --read-reservation")?, &["generation=0x4", "NO reservation held"])
}

/// Registrations that outlive a loss of power, and a reservation that goes to another port.
fn scsi_power_cycle_and_move(cluster: &Cluster, a: &Client<'_>, b: &Client<'_>) -> Result<()> {
    b.persist("--out --register --param-rk=b1 --param-sark=b1 --param-aptpl")?;
    b.persist("--out --reserve --param-rk=b1 --prout-type=3")?;
    cluster.drives.order(&format!("power-cycle {DRIVE}"))?;
    b.persist_is_refused("--in --read-keys", UNIT_ATTENTION, "")?;
    expect(&b.persist("--in --read-keys")?, &["generation=0x0", "2 registered", "0xb1", "0xa2"])?;
    expect(&b.persist("--in --report-capabilities")?, &["(PTPL_A): 1"])?;
    expect(&b.persist("--in --read-reservation")?, &["Key=0xb1", "type: Exclusive Access"])?;
    a.persist_is_refused("--in --read-full-status", UNIT_ATTENTION, "")?;
    let full = a.persist("--in --read-full-status")?;
    // a registered last.
    let address = full.rsplit_once("SAS address: 0x").context("no SAS address")?.1.trim();
    b.persist(&format!(
        "--out --register-move --param-rk=b1 --param-sark=a3 --unreg --relative-target-port=1 \
         --transport-id=sas,{address}"
    ))?;
    expect(&a.persist("--in --read-keys")?, &["generation=0x1", "1 registered", "0xa3"])?;
    expect(&a.persist("--in --read-reservation")?, &["Key=0xa3", "type: Exclusive Access"])?;
    a.write()?;
    b.write_is_refused()?;
    // Without APTPL, which the last command did not carry, nothing is left.
    cluster.drives.order(&format!("power-cycle {DRIVE}"))?;
    let shown = cluster.drives.ask(&format!("reservations {DRIVE}"))?;
    ensure!(shown == "generation 0\npersistent no\nreservation none\n", "{shown}");
    b.write()?;
    // CLEAR.
    a.persist_is_refused("--in --read-keys", UNIT_ATTENTION, "")?;
    a.persist("--out --register --param-sark=a1")?;
    a.persist("--out --clear --param-rk=a1")?;
    expect(&a.persist("--in --read-keys")?, &["generation=0x2", "NO registered reservation keys"])
}

pub fn nvme(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    cluster.boot("b")?;
    let (a, b) = (Client::new(cluster, "a")?, Client::new(cluster, "b")?);
    let controller = a.machine.ok(&format!("nvme id-ctrl {} | grep oncs", a.disk))?;
    ensure!(controller.contains("0x2c"), "{controller}");
    let namespace = a.machine.ok(&format!("nvme id-ns {} | grep rescap", a.disk))?;
    ensure!(namespace.contains("0xff"), "{namespace}");

    a.nvme("resv-register", "--nrkey=0xa1 --rrega=0")?;
    b.nvme("resv-register", "--nrkey=0xb1 --rrega=0")?;
    a.nvme("resv-acquire", "--crkey=0xa1 --rtype=5 --racqa=0")?;
    let report = b.report()?.join(" ");
    expect(
        &report,
        &[
            "gen : 2",
            "rtype : 5",
            "regctl : 2",
            "ptpls : 0",
            "cntlid : ffff",
            "rcsts : 1",
            "rkey : a1",
            "cntlid : ffff",
            "rcsts : 1",
            "rkey : b1",
        ],
    )?;
    a.write()?;
    b.write()?;
    nvme_preemption(cluster, &a, &b)?;
    nvme_power_cycle(cluster, &a, &b)
}

fn nvme_preemption(cluster: &Cluster, a: &Client<'_>, b: &Client<'_>) -> Result<()> {
    const CONFLICT: &str = "0x4083";
    b.nvme("resv-acquire", "--crkey=0xb1 --prkey=0xa1 --rtype=5 --racqa=2")?;
    let before = cluster.drives.changes(DRIVE)?;
    a.write_is_refused()?;
    ensure!(cluster.drives.changes(DRIVE)? == before, "a host that was removed has written");
    a.read()?;
    b.write()?;
    a.nvme_is_refused("resv-acquire", "--crkey=0xa1 --rtype=5 --racqa=0", CONFLICT)?;
    // Replaced regardless of the key: registered again.
    a.nvme("resv-register", "--nrkey=0xa2 --rrega=2 --iekey")?;
    a.write()?;
    a.nvme_is_refused("resv-register", "--nrkey=0xa3 --rrega=0", CONFLICT)?;
    b.nvme_is_refused("resv-release", "--crkey=0xb1 --rtype=3 --rrela=0", "0x4002")?;
    b.nvme("resv-release", "--crkey=0xb1 --rtype=5 --rrela=0")?;
    let report = b.report()?.join(" ");
    expect(&report, &["gen : 4", "rtype : 0", "regctl : 2", "rkey : b1", "rkey : a2"])
}

fn nvme_power_cycle(cluster: &Cluster, a: &Client<'_>, b: &Client<'_>) -> Result<()> {
    b.nvme("resv-register", "--crkey=0xb1 --nrkey=0xb1 --rrega=2 --cptpl=3")?;
    b.nvme("resv-acquire", "--crkey=0xb1 --rtype=2 --racqa=0")?;
    cluster.drives.order(&format!("power-cycle {DRIVE}"))?;
    let report = a.report()?.join(" ");
    expect(
        &report,
        &["gen : 0", "rtype : 2", "regctl : 2", "ptpls : 1", "rcsts : 1", "rkey : b1"],
    )?;
    a.write_is_refused()?;
    b.nvme("resv-release", "--crkey=0xb1 --rrela=1")?;
    a.write()?;
    let shown = cluster.drives.ask(&format!("reservations {DRIVE}"))?;
    ensure!(shown == "generation 1\npersistent yes\nreservation none\n", "{shown}");
    Ok(())
}
