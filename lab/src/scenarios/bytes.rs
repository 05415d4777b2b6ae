//! An independent client: sg3-utils in a machine show the bytes that real drives showed. The
//! payloads are written by hand, not by the project's own encoder.

use crate::cluster::Cluster;
use crate::machine::Machine;
use anyhow::{Result, ensure};
use std::fmt::Write as _;

/// Exit status of sg_raw for RESERVATION CONFLICT.
const RESERVATION_CONFLICT: i32 = 24;
/// Exit status of sg_raw for "logical block address out of range": no such mutex.
const OUT_OF_RANGE: i32 = 22;

/// Operations of a mutex command, in the upper half of its second byte.
const TRYLOCK: u8 = 0x20;
const UNLOCK: u8 = 0x40;
const REFRESH: u8 = 0x50;
const BREAK: u8 = 0x60;
const DESTROY: u8 = 0x70;

/// A record for the mutex `MMM…` and a lease of 10 s.
fn record(host: u8, class: u8) -> [u8; 512] {
    let mut bytes = [0; 512];
    bytes[0x08..0x10].copy_from_slice(&0x0102_0304_0506u64.to_be_bytes());
    bytes[0x10..0x18].copy_from_slice(&10_000u64.to_be_bytes());
    bytes[0x1F] = class;
    bytes[0x40..0x80].fill(b'M');
    bytes[0x80..0xC0].fill(b'm');
    bytes[0xC0..0xE0].fill(host);
    bytes
}

struct Client<'a> {
    machine: &'a Machine,
    disk: String,
}

impl Client<'_> {
    fn mutex(&self, operation: u8, payload: &[u8; 512], code: i32, says: &str) -> Result<()> {
        let mut octal = String::new();
        for byte in payload {
            let _ = write!(octal, "\\{byte:03o}");
        }
        self.machine.quiet(&format!("printf '{octal}' >/tmp/payload"))?;
        let command = format!(
            "sg_raw -s 512 -i /tmp/payload {} f0 {operation:02x} 00 00 00 00 00 00 00 00 00 00 02 \
             00 01 00",
            self.disk
        );
        self.machine.refused(&command, code, says)
    }

    /// Reads blocks and returns them as numbers.
    fn read(&self, blocks: u8, group: u8) -> Result<Vec<u8>> {
        let bytes = u32::from(blocks) * 512;
        self.machine.ok(&format!(
            "sg_raw -r {bytes} -o /tmp/reply {} f0 01 00 00 00 00 00 00 00 00 00 00 00 \
             {blocks:02x} {group:02x} 00",
            self.disk
        ))?;
        hex(&self.machine.quiet("od -An -v -tx1 /tmp/reply")?)
    }
}

/// Bytes that a program prints in hexadecimal.
pub(super) fn hex(text: &str) -> Result<Vec<u8>> {
    Ok(text
        .split_whitespace()
        .map(|word| u8::from_str_radix(word, 16))
        .collect::<Result<Vec<_>, _>>()?)
}

pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("a")?;
    let machine = cluster.host("a")?;
    let disk = machine.disk("d3")?;
    identify(machine, &disk)?;
    let client = Client { machine, disk };
    one_mutex(&client)?;
    older_encoding(&client)
}

/// Checks the drive's identification.
fn identify(machine: &Machine, disk: &str) -> Result<()> {
    let said = machine.ok(&format!("sg_inq {disk}"))?;
    ensure!(said.contains("Unit serial number: d3"), "{said}");
    ensure!(said.contains("CmdQue=1"), "{said}");
    for (page, says) in [
        ("sn", "Unit serial number: d3"),
        ("di", "designator type: NAA"),
        ("bl", "Maximum unmap LBA count"),
        ("bdc", "Non-rotating medium"),
        ("lbpv", "Unmap command supported (LBPU): 1"),
    ] {
        let said = machine.ok(&format!("sg_vpd -p {page} {disk}"))?;
        ensure!(said.contains(says), "{said}");
    }
    // The version of In-Drive Mutex is byte 96 of page C3h.
    let page = hex(&machine.ok(&format!("sg_vpd -p 0xc3 -r {disk} | od -An -v -tx1"))?)?;
    ensure!(page.len() == 0x70 && page[1] == 0xC3 && page[96] != 0, "{page:02x?}");
    let kernel = machine.ok(&format!("cat /sys/block/{}/device/wwid", &disk[5..]))?;
    ensure!(kernel.starts_with("naa.3"), "{kernel}");
    machine.ok(&format!("sg_readcap --16 {disk} && sg_luns {disk} && sg_turs {disk}"))?;
    machine.ok(&format!("sg_sync {disk} && sg_modes -p 8 {disk}")).map(drop)
}

fn one_mutex(client: &Client<'_>) -> Result<()> {
    let (first, second) = (record(b'A', 0), record(b'B', 0));
    client.mutex(TRYLOCK, &first, 0, "Good")?;
    client.mutex(TRYLOCK, &second, RESERVATION_CONFLICT, "Reservation Conflict")?;
    client.mutex(BREAK, &second, RESERVATION_CONFLICT, "Reservation Conflict")?;
    client.mutex(REFRESH, &first, 0, "Good")?;

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

    client.mutex(UNLOCK, &first, 0, "Good")?;
    let shown = client.read(1, 1)?;
    ensure!(shown[6..8] == [0x01, 0x02], "an unlocked record has state {:02x?}", &shown[6..8]);
    client.mutex(DESTROY, &first, 0, "Good")?;
    let shown = client.read(1, 1)?;
    ensure!(shown[6..8] == [0xDE, 0xAD], "the record is not gone: {:02x?}", &shown[..8]);
    client.mutex(UNLOCK, &first, OUT_OF_RANGE, "Logical block address out of range")
}

/// Sends the commands that lvm2's own tests send before they use a drive: read the table, then
/// clear it, with opcodes that are READ(16) and WRITE AND VERIFY(16) on other disks.
fn older_encoding(client: &Client<'_>) -> Result<()> {
    client.mutex(TRYLOCK, &record(b'A', 2), 0, "Good")?;
    let disk = &client.disk;
    client.machine.ok(&format!(
        "sg_raw -r 512 -o /tmp/reply {disk} 88 00 01 00 00 00 00 20 ff 01 00 00 00 01 00 00"
    ))?;
    let shown = hex(&client.machine.quiet("od -An -v -tx1 /tmp/reply")?)?;
    ensure!(shown[6..8] == [0x01, 0x01] && shown[0x1F] == 2, "{:02x?}", &shown[..0x20]);
    client.machine.ok(&format!(
        "sg_raw -s 512 -i /tmp/reply {disk} 8e 00 ff 00 00 00 00 00 00 00 00 00 00 01 00 00"
    ))?;
    let shown = client.read(1, 1)?;
    ensure!(shown[6..8] == [0xDE, 0xAD], "the table is not empty: {:02x?}", &shown[..8]);
    // Without a mutex group they are ordinary disk commands.
    client.machine.ok(&format!(
        "dd if=/dev/urandom of=/tmp/block bs=512 count=1 2>/dev/null && \
         sg_raw -s 512 -i /tmp/block {disk} 8e 00 00 00 00 00 00 00 00 09 00 00 00 01 00 00 && \
         dd if={disk} bs=512 skip=9 count=1 iflag=direct 2>/dev/null | cmp - /tmp/block"
    ))?;
    Ok(())
}
