//! An independent client: nvme-cli in a machine shows the bytes of the protocol. The payloads are
//! written by hand, not by the project's own encoder.

use crate::cluster::Cluster;
use crate::machine::Machine;
use crate::scenarios::bytes::hex;
use anyhow::{Result, ensure};
use std::fmt::Write as _;

/// A record for the mutex `MMM…` and a lease of 10 s.
fn record(host: u8) -> [u8; 512] {
    let mut bytes = [0; 512];
    bytes[0x08..0x10].copy_from_slice(&0x0102_0304_0506u64.to_be_bytes());
    bytes[0x10..0x18].copy_from_slice(&10_000u64.to_be_bytes());
    bytes[0x40..0x80].fill(b'M');
    bytes[0x80..0xC0].fill(b'm');
    bytes[0xC0..0xE0].fill(host);
    bytes
}

struct Client<'a> {
    machine: &'a Machine,
    disk: String,
}

/// Operations of a mutex command in command dword 12, with the group of the mutex table.
const TRYLOCK: u32 = 0x0120;
const UNLOCK: u32 = 0x0140;
const REFRESH: u32 = 0x0150;
const BREAK: u32 = 0x0160;
const DESTROY: u32 = 0x0170;

impl Client<'_> {
    fn write(&self, cdw12: u32, payload: &[u8; 512], more: &str) -> Result<String> {
        let mut octal = String::new();
        for byte in payload {
            let _ = write!(octal, "\\{byte:03o}");
        }
        self.machine.quiet(&format!("printf '{octal}' >/tmp/payload"))?;
        let ended = self.machine.run(&format!(
            "nvme admin-passthru {} --opcode=0xc1 --cdw10=0x80 --cdw12={cdw12:#x} {more} \
             --data-len=512 --write --input-file=/tmp/payload",
            self.disk
        ))?;
        ensure!((ended.code == 0) != ended.stderr.to_lowercase().contains("status"), "{ended:?}");
        Ok(format!("{}{}", ended.stdout, ended.stderr))
    }

    fn good(&self, cdw12: u32, payload: &[u8; 512]) -> Result<()> {
        let said = self.write(cdw12, payload, "")?;
        ensure!(said.to_lowercase().contains("success"), "{said}");
        Ok(())
    }

    fn refused(&self, cdw12: u32, payload: &[u8; 512], status: &str) -> Result<()> {
        let said = self.write(cdw12, payload, "")?;
        ensure!(said.to_lowercase().contains(status), "expected {status}: {said}");
        Ok(())
    }

    /// Reads blocks of a group.
    fn read(&self, blocks: u32, group: u32) -> Result<Vec<u8>> {
        let (dwords, cdw12, bytes) = (blocks * 128, group << 8 | 0x10, blocks * 512);
        hex(&self.machine.ok(&format!(
            "nvme admin-passthru {} --opcode=0xc2 --cdw10={dwords:#x} --cdw12={cdw12:#x} \
             --data-len={bytes} --read --raw-binary | od -An -v -tx1",
            self.disk
        ))?)
    }
}

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    let machine = cluster.host("a")?;
    for drive in ["d0", "d1"] {
        // One drive without native multipath, one with it.
        let disk = machine.disk(drive)?;
        identify(machine, drive, &disk)?;
        one_mutex(&Client { machine, disk })?;
    }
    data(machine)?;
    // The kernel refuses a transfer that is too long for the controller.
    let large = Client { machine, disk: machine.disk("d4")? };
    ensure!(large.read(256, 1)?.len() == 256 * 512, "a read of 256 records is short");
    machine.refused(
        &format!(
            "nvme admin-passthru {} --opcode=0xc2 --cdw10=0x8080 --cdw12=0x110 --data-len=131584 \
             --read --raw-binary",
            large.disk
        ),
        1,
        "Invalid argument",
    )?;
    // The kernel's name for each form of identity.
    for (drive, wwid) in [("d0", "eui."), ("d1", "eui."), ("d2", "uuid."), ("d4", "nvme.fffe-")] {
        let disk = machine.disk(drive)?;
        let said = machine.ok(&format!("cat /sys/block/{}/wwid", &disk[5..]))?;
        ensure!(said.starts_with(wwid), "{drive}: {said}");
    }
    Ok(())
}

/// Checks the drive's identification.
fn identify(machine: &Machine, drive: &str, disk: &str) -> Result<()> {
    let data = hex(&machine.ok(&format!("nvme id-ctrl {disk} --raw-binary | od -An -v -tx1"))?)?;
    ensure!(data.len() == 4096, "{} bytes", data.len());
    ensure!(data[4..6] == *drive.as_bytes(), "serial number {:02x?}", &data[4..24]);
    // The version of In-Drive Mutex is the last byte: major and minor.
    ensure!(data[4095] == 0x80, "IDM version {:02x}", data[4095]);
    let said = machine.ok(&format!("nvme id-ns {disk}"))?;
    ensure!(said.contains("nsze    : 0x200000"), "{said}");
    machine.ok(&format!("nvme flush {disk} -n 1")).map(drop)
}

fn one_mutex(client: &Client<'_>) -> Result<()> {
    let (first, second) = (record(b'A'), record(b'B'));
    client.good(TRYLOCK, &first)?;
    client.refused(TRYLOCK, &first, "0x1cb")?;
    client.refused(TRYLOCK, &second, "0x1ca")?;
    client.refused(BREAK, &second, "0x1ca")?;
    client.good(REFRESH, &first)?;

    let table = client.read(2, 1)?;
    ensure!(table.len() == 1024, "the table has {} bytes", table.len());
    let (shown, end) = table.split_at(512);
    let mut expected = first;
    // State: locked.
    expected[0x06..0x08].copy_from_slice(&[0x01, 0x01]);
    ensure!(shown == expected, "the record reads back as {shown:02x?}");
    ensure!(end[..8] == [0, 0, 0, 0, 0, 0, 0xDE, 0xAD], "the table ends with {:02x?}", &end[..8]);
    let counters = client.read(1, 0xFF)?;
    ensure!(counters[..8] == [0, 1, 0, 1, 0, 0, 0, 0], "counters are {:02x?}", &counters[..8]);

    client.good(UNLOCK, &first)?;
    let shown = client.read(1, 1)?;
    ensure!(shown[6..8] == [0x01, 0x02], "an unlocked record has state {:02x?}", &shown[6..8]);
    client.good(DESTROY, &first)?;
    client.refused(UNLOCK, &first, "0x1c9")?;
    // The table does not belong to a namespace.
    let said = client.write(TRYLOCK, &first, "--namespace-id=1")?;
    ensure!(said.to_lowercase().contains("0x400b"), "{said}");
    // Clears everything.
    client.good(TRYLOCK, &first)?;
    client.good(0xFF00, &[0; 512])?;
    let shown = client.read(1, 1)?;
    ensure!(shown[6..8] == [0xDE, 0xAD], "the table is not empty: {:02x?}", &shown[..8]);
    Ok(())
}

/// Writes and reads data, in transfers that fit into a command and in larger ones.
fn data(machine: &Machine) -> Result<()> {
    let disk = machine.disk("d3")?;
    machine.ok(&format!(
        "dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null && \
         dd if=/tmp/data of={disk} bs=2M oflag=direct 2>/dev/null && \
         dd if=/tmp/data of={disk} bs=4k seek=9000 count=3 oflag=direct 2>/dev/null && \
         dd if={disk} bs=1M count=8 iflag=direct 2>/dev/null | cmp - /tmp/data && \
         dd if={disk} bs=4k skip=9000 count=3 iflag=direct 2>/dev/null | cmp -n 12288 - /tmp/data"
    ))?;
    machine.ok(&format!(
        "blkdiscard -o 1M -l 1M {disk} && blkdiscard -z -o 3M -l 1M {disk} && \
         dd if={disk} bs=1M skip=1 count=1 iflag=direct 2>/dev/null | cmp -n 1048576 - /dev/zero \
         && dd if={disk} bs=1M skip=3 count=1 iflag=direct 2>/dev/null | cmp -n 1048576 - /dev/zero"
    ))?;
    Ok(())
}
