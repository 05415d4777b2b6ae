//! Messages between the lab and its machines, over a virtio serial port.
//!
//! A frame has its kind (1 byte), the number of its job and the length of its payload (4 bytes
//! each, little-endian), and the payload.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

/// Name of the virtio serial port.
pub const PORT_NAME: &str = "lab.agent";
/// Longest payload in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;

const HEADER_LEN: usize = 9;

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// To the machine: are you there? Also the answer.
    Ping = b'P',
    /// To the machine: mount the root file system; see [`Setup`]. Answered with
    /// [`FrameKind::Exit`].
    Setup = b'S',
    /// To the machine: run a shell command.
    Run = b'R',
    /// To the machine: run a program as the first process. The agent goes on beside it. Payload: a
    /// shell command that the program replaces. Answered with [`FrameKind::Exit`] before the
    /// program runs; there may be no other job.
    Init = b'I',
    /// To the machine: kill a command and its whole process group.
    Kill = b'K',
    /// From the machine: standard output of a command.
    Stdout = b'o',
    /// From the machine: standard error of a command.
    Stderr = b'e',
    /// From the machine: a command has ended. Payload: its exit status, 4 bytes little-endian; 128
    /// and the signal's number where a signal ended it.
    Exit = b'x',
}

impl FrameKind {
    fn from_wire(byte: u8) -> Option<FrameKind> {
        [
            FrameKind::Ping,
            FrameKind::Setup,
            FrameKind::Run,
            FrameKind::Init,
            FrameKind::Kill,
            FrameKind::Stdout,
            FrameKind::Stderr,
            FrameKind::Exit,
        ]
        .into_iter()
        .find(|&kind| kind as u8 == byte)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Kind.
    pub kind: FrameKind,
    /// Number of the job.
    pub job: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Sends the frame.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        bytes.push(self.kind as u8);
        bytes.extend(self.job.to_le_bytes());
        bytes.extend((self.payload.len() as u32).to_le_bytes());
        bytes.extend(&self.payload);
        to.write_all(&bytes)
    }

    /// Waits for a frame.
    pub fn read(from: &mut impl Read) -> io::Result<Frame> {
        let mut header = [0; HEADER_LEN];
        from.read_exact(&mut header)?;
        let number = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&header[at..at + 4]);
            u32::from_le_bytes(bytes)
        };
        let kind = FrameKind::from_wire(header[0]);
        let len = number(5) as usize;
        let (Some(kind), true) = (kind, len <= MAX_PAYLOAD) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame"));
        };
        let mut payload = vec![0; len];
        from.read_exact(&mut payload)?;
        Ok(Frame { kind, job: number(1), payload })
    }
}

/// Information that a machine needs to become a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Host name.
    pub hostname: String,
    /// Time in ms since 1970: the clock of a machine that was resumed from a snapshot is late.
    pub now_ms: u64,
    /// Directory of the lab's machine that the machine sees as its root file system.
    pub root: String,
    /// Directories of the lab's machine, and the paths at which the machine sees them, read-only.
    pub binds: Vec<(String, String)>,
}

impl Setup {
    /// The payload: lines of text.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}\n{}\n{}\n", self.hostname, self.now_ms, self.root);
        for (from, to) in &self.binds {
            text.push_str(&format!("{from}\t{to}\n"));
        }
        text.into_bytes()
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Option<Setup> {
        let text = core::str::from_utf8(payload).ok()?;
        let mut lines = text.lines();
        let hostname = lines.next()?.to_owned();
        let now_ms = lines.next()?.parse().ok()?;
        let root = lines.next()?.to_owned();
        let bind =
            |line: &str| line.split_once('\t').map(|(from, to)| (from.to_owned(), to.to_owned()));
        let binds = lines.map(bind).collect::<Option<Vec<_>>>()?;
        Some(Setup { hostname, now_ms, root, binds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were_sent() {
        let frame = Frame { kind: FrameKind::Exit, job: 0xDEAD_BEEF, payload: vec![1, 2, 3] };
        let mut bytes = Vec::new();
        frame.write(&mut bytes).unwrap();
        assert_eq!(Frame::read(&mut &bytes[..]).unwrap(), frame);
        assert!(Frame::read(&mut &bytes[..bytes.len() - 1]).is_err());
        bytes[0] = b'?';
        assert!(Frame::read(&mut &bytes[..]).is_err());
    }

    #[test]
    fn setup_arrives_as_it_was_sent() {
        let binds = vec![("/a b".to_owned(), "/c".to_owned())];
        let setup = Setup { hostname: "a".into(), now_ms: 5, root: "/r".into(), binds };
        assert_eq!(Setup::decode(&setup.encode()), Some(setup));
        assert_eq!(Setup::decode(b"a\nx\n/\n"), None);
    }
}
