//! Protocol data units of the TCP transport, and the entries that they carry.

use idm_emulator::nvme::NvmeReply;
use std::io::{self, Read};

/// Types of protocol data unit.
pub mod kind {
    #![allow(missing_docs)]
    pub const IC_REQ: u8 = 0x00;
    pub const IC_RESP: u8 = 0x01;
    pub const CAPSULE_CMD: u8 = 0x04;
    pub const CAPSULE_RESP: u8 = 0x05;
    pub const H2C_DATA: u8 = 0x06;
    pub const C2H_DATA: u8 = 0x07;
    pub const R2T: u8 = 0x09;
}

/// Bytes of the common header.
const HEADER_LEN: usize = 8;
/// Bytes of ICReq and ICResp.
const IC_LEN: usize = 128;
/// Bytes of a submission queue entry.
pub const SQE_LEN: usize = 64;
/// Header bytes of a command capsule.
const CAPSULE_LEN: usize = HEADER_LEN + SQE_LEN;
/// Header bytes of the units that carry data or answer a command.
const DATA_LEN: usize = 24;
/// Bytes of data that the host may put into one unit (MAXH2CDATA).
pub const MOST_H2C: u32 = 128 << 10;
/// Bytes of data in one unit to the host.
const MOST_C2H: usize = 64 << 10;
/// C2HData: the last unit of its command.
const LAST: u8 = 0x04;

/// A unit from the host.
#[derive(Debug, PartialEq, Eq)]
pub enum FromHost {
    /// The first unit of a connection, with its version of the format.
    Initialize {
        /// Version; only 0 exists.
        format: u16,
    },
    /// A command, with its in-capsule data.
    Command(Sqe, Vec<u8>),
    /// Data that was requested.
    Data {
        /// Identifier of the command.
        command: u16,
        /// Tag of the request that it answers.
        tag: u16,
        /// Offset of the data in bytes.
        offset: u32,
        /// Data.
        data: Vec<u8>,
    },
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl FromHost {
    /// Waits for a unit. `None` if the connection ends before one arrives.
    pub fn read(from: &mut impl Read) -> io::Result<Option<FromHost>> {
        let mut header = [0; HEADER_LEN];
        match from.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let [kind, flags, header_len, data_offset, ..] = header;
        let len = u32_at(&header, 4);
        // Digests, the other flags, are not offered.
        if flags & 0x03 != 0 {
            return Err(invalid("a digest"));
        }
        let expected = match kind {
            kind::IC_REQ => IC_LEN,
            kind::CAPSULE_CMD => CAPSULE_LEN,
            kind::H2C_DATA => DATA_LEN,
            _ => return Err(invalid("a unit that hosts do not send")),
        };
        let most = expected as u32 + MOST_H2C + u32::from(u8::MAX);
        if usize::from(header_len) != expected || (len as usize) < expected || len > most {
            return Err(invalid("a unit of an impossible length"));
        }
        let mut body = vec![0; len as usize - HEADER_LEN];
        from.read_exact(&mut body)?;
        let data = match usize::from(data_offset) {
            0 if len as usize == expected => &[][..],
            offset if offset >= expected => {
                body.get(offset - HEADER_LEN..).ok_or_else(|| invalid("data beyond the unit"))?
            }
            _ => return Err(invalid("data inside the header")),
        };
        match kind {
            kind::IC_REQ => Ok(Some(FromHost::Initialize { format: u16_at(&body, 0) })),
            kind::CAPSULE_CMD => {
                let mut entry = [0; SQE_LEN];
                entry.copy_from_slice(&body[..SQE_LEN]);
                Ok(Some(FromHost::Command(Sqe(entry), data.to_vec())))
            }
            _ => {
                if u32_at(&body, 8) as usize != data.len() {
                    return Err(invalid("data of another length than it says"));
                }
                Ok(Some(FromHost::Data {
                    command: u16_at(&body, 0),
                    tag: u16_at(&body, 2),
                    offset: u32_at(&body, 4),
                    data: data.to_vec(),
                }))
            }
        }
    }
}

/// A submission queue entry: a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sqe(pub [u8; SQE_LEN]);

impl Sqe {
    /// Opcode.
    pub fn opcode(&self) -> u8 {
        self.0[0]
    }

    /// Identifier of the command, unique in its queue.
    pub fn command(&self) -> u16 {
        self.u16_at(2)
    }

    /// Namespace.
    pub fn namespace(&self) -> u32 {
        self.u32_at(4)
    }

    /// Type of a fabrics command.
    pub fn fabrics_type(&self) -> u8 {
        self.0[4]
    }

    /// Bytes of data, in either direction.
    pub fn data_len(&self) -> u32 {
        self.u32_at(32)
    }

    /// Whether its data goes to the controller and is not in the capsule, so that it has to be
    /// requested.
    pub fn wants_to_send(&self) -> bool {
        // SGL descriptor type 5h (transport data block), and data transfer 01b in the opcode, or in
        // the type of a fabrics command.
        const FABRICS: u8 = 0x7F;
        let direction = if self.opcode() == FABRICS { self.fabrics_type() } else { self.opcode() };
        self.0[39] >> 4 == 5 && direction & 0x03 == 0x01 && self.data_len() > 0
    }

    /// Command dword `number`, 10 to 15.
    pub fn dword(&self, number: usize) -> u32 {
        self.u32_at(4 * number)
    }

    /// A number of 16 bits.
    pub fn u16_at(&self, at: usize) -> u16 {
        u16_at(&self.0, at)
    }

    /// A number of 32 bits.
    pub fn u32_at(&self, at: usize) -> u32 {
        u32_at(&self.0, at)
    }

    /// A number of 64 bits.
    pub fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }
}

/// Result of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutcome {
    /// Status field without the phase tag.
    pub status: u16,
    /// Command specific result: dwords 0 and 1 of the completion.
    pub result: u64,
    /// Data for the host.
    pub data: Vec<u8>,
}

impl CommandOutcome {
    pub(super) fn refused(status: u16) -> CommandOutcome {
        CommandOutcome { status, ..CommandOutcome::default() }
    }

    pub(super) fn result(result: u64) -> CommandOutcome {
        CommandOutcome { result, ..CommandOutcome::default() }
    }

    pub(super) fn data(data: Vec<u8>) -> CommandOutcome {
        CommandOutcome { data, ..CommandOutcome::default() }
    }
}

impl From<NvmeReply> for CommandOutcome {
    fn from(reply: NvmeReply) -> CommandOutcome {
        CommandOutcome { status: reply.status, result: 0, data: reply.data }
    }
}

fn header(kind: u8, flags: u8, header_len: usize, data_len: usize) -> Vec<u8> {
    let offset = if data_len > 0 { header_len } else { 0 };
    let mut bytes = vec![kind, flags, header_len as u8, offset as u8];
    bytes.extend(((header_len + data_len) as u32).to_le_bytes());
    bytes
}

/// The answer to the first unit of a connection: format 0, no padding, no digests.
pub fn initialized() -> Vec<u8> {
    let mut bytes = header(kind::IC_RESP, 0, IC_LEN, 0);
    bytes.extend([0, 0, 0, 0]);
    bytes.extend(MOST_H2C.to_le_bytes());
    bytes.resize(IC_LEN, 0);
    bytes
}

/// A request for `len` bytes of a command's data.
pub fn ready_to_transfer(command: u16, tag: u16, len: u32) -> Vec<u8> {
    let mut bytes = header(kind::R2T, 0, DATA_LEN, 0);
    bytes.extend(command.to_le_bytes());
    bytes.extend(tag.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.resize(DATA_LEN, 0);
    bytes
}

/// Data for the host, in as many units as necessary.
pub fn data(command: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut offset = 0_u32;
    for chunk in data.chunks(MOST_C2H) {
        let end = offset as usize + chunk.len();
        let flags = if end == data.len() { LAST } else { 0 };
        bytes.extend(header(kind::C2H_DATA, flags, DATA_LEN, chunk.len()));
        bytes.extend(command.to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(offset.to_le_bytes());
        bytes.extend((chunk.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(chunk);
        offset = end as u32;
    }
    bytes
}

/// A completion queue entry.
pub fn completion(command: u16, status: u16, result: u64, head: u16) -> Vec<u8> {
    let mut bytes = header(kind::CAPSULE_RESP, 0, DATA_LEN, 0);
    bytes.extend(result.to_le_bytes());
    bytes.extend(head.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(command.to_le_bytes());
    // Bit 0 is the phase tag, which this transport does not have.
    bytes.extend((status << 1).to_le_bytes());
    bytes
}
