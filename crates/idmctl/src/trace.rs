//! Traces of a selftest: every command with its bytes and times, and every answer.
//!
//! A trace is text, one JSON object in a line. The first line names the format, and may say `about`
//! what the trace is; the last one is a digest of all others (SHA-256). Records of others than the
//! test are in it without their identities: host id, mutex id and metadata are replaced by digests,
//! time and value by zeros.

use crate::Trouble;
use crate::selftest::bench::is_scratch;
use crate::selftest::subject::{Answer, Cut, Stop, Subject};
use idm_protocol::{
    GROUP_TABLE, HostId, MutexOp, RECORD_LEN, Record, ResourceId, State, Status, Value, parse_table,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The number of the format.
const FORMAT: u32 = 1;
/// The text for blocks without a record.
const END: &str = "end";
const ZERO: &str = "zero";

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    idmctl_trace: u32,
}

/// The last line.
#[derive(Serialize, Deserialize)]
struct Tail {
    sha256: String,
}

/// A command and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The time when it was sent, in us since the beginning.
    pub sent_us: u64,
    /// The time when it was answered.
    pub answered_us: u64,
    /// The description of its content, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The command and its answer.
    #[serde(flatten)]
    pub call: Call,
}

/// A command and its answer. Bytes are hexadecimal digits without trailing zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// A mutex command.
    Change {
        /// The operation's number on the wire.
        op: u8,
        /// The group of mutexes; the library uses only one.
        #[serde(default = "usual_group", skip_serializing_if = "is_usual_group")]
        group: u8,
        /// The record.
        payload: String,
        /// The meaning of the answer.
        status: String,
        /// Sense data.
        sense: String,
    },
    /// A read of the table.
    Table {
        /// The number of requested blocks.
        blocks: u32,
        /// Each block, where several are alike with a star and their number; `None` if the adapter
        /// did not move so many.
        data: Option<Vec<String>>,
    },
    /// A read of the counters.
    Counters {
        /// The bytes.
        data: String,
    },
    /// The question for the IDM version.
    Version {
        /// The version.
        version: Option<u8>,
    },
    /// A reservation of the data for another path, or its end.
    Reserve {
        /// Whether it begins.
        begins: bool,
    },
}

fn usual_group() -> u8 {
    GROUP_TABLE
}

fn is_usual_group(group: &u8) -> bool {
    *group == GROUP_TABLE
}

/// A subject that records all commands to another one.
pub struct Recorder<'s> {
    subject: &'s mut dyn Subject,
    begin: Duration,
    /// The recorded steps.
    pub steps: Vec<Step>,
}

impl<'s> Recorder<'s> {
    /// Records from now on.
    pub fn new(subject: &'s mut dyn Subject) -> Recorder<'s> {
        let begin = subject.now();
        Recorder { subject, begin, steps: Vec::new() }
    }

    fn us(&self) -> u64 {
        (self.subject.now() - self.begin).as_micros() as u64
    }

    fn add(&mut self, sent_us: u64, call: Call) {
        self.steps.push(Step { sent_us, answered_us: self.us(), note: None, call });
    }
}

impl Subject for Recorder<'_> {
    fn change(&mut self, op: MutexOp, record: &Record) -> Result<Answer, Stop> {
        let sent = self.us();
        let answer = self.subject.change(op, record)?;
        let call = Call::Change {
            op: op.to_wire(),
            group: GROUP_TABLE,
            payload: digits(&record.encode()),
            status: status(answer.status),
            sense: digits(&answer.sense),
        };
        self.add(sent, call);
        Ok(answer)
    }

    fn table(&mut self, blocks: u32) -> Result<Option<Vec<u8>>, Stop> {
        let sent = self.us();
        let data = self.subject.table(blocks)?;
        self.add(sent, Call::Table { blocks, data: data.as_deref().map(written) });
        Ok(data)
    }

    fn counters(&mut self) -> Result<Vec<u8>, Stop> {
        let sent = self.us();
        let data = self.subject.counters()?;
        self.add(sent, Call::Counters { data: digits(&data) });
        Ok(data)
    }

    fn version(&mut self) -> Result<Option<u8>, Stop> {
        let sent = self.us();
        let version = self.subject.version()?;
        self.add(sent, Call::Version { version });
        Ok(version)
    }

    fn reserve(&mut self) -> Result<Result<(), String>, Stop> {
        let sent = self.us();
        let reserved = self.subject.reserve()?;
        if reserved.is_ok() {
            self.add(sent, Call::Reserve { begins: true });
        }
        Ok(reserved)
    }

    fn unreserve(&mut self) -> Result<(), Stop> {
        let sent = self.us();
        self.subject.unreserve()?;
        self.add(sent, Call::Reserve { begins: false });
        Ok(())
    }

    fn cut(&mut self, op: MutexOp, record: &Record) -> Result<Option<Cut>, Stop> {
        // It has no answer, so a trace has no place for it.
        self.subject.cut(op, record)
    }

    fn now(&self) -> Duration {
        self.subject.now()
    }

    fn sleep(&mut self, time: Duration) -> Result<(), Stop> {
        self.subject.sleep(time)
    }
}

/// The word for a status.
pub fn status(status: Status) -> String {
    format!("{status:?}")
}

/// Bytes as digits, without the zeros at their end.
pub fn digits(bytes: &[u8]) -> String {
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    all_digits(&bytes[..used])
}

fn all_digits(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0x0F)]));
    }
    text
}

/// Digits as `len` bytes; `None` where they are none, or too many.
pub fn bytes(digits: &str, len: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    if digits.len() % 2 != 0 || digits.len() / 2 > len || !digits.is_ascii() {
        return None;
    }
    for at in (0..digits.len()).step_by(2) {
        bytes.push(u8::from_str_radix(&digits[at..at + 2], 16).ok()?);
    }
    bytes.resize(len, 0);
    Some(bytes)
}

/// The blocks of a table, without identities of others.
pub fn written(data: &[u8]) -> Vec<String> {
    let mut blocks: Vec<(String, usize)> = Vec::new();
    for block in data.chunks_exact(RECORD_LEN).filter_map(|block| block.first_chunk()) {
        let record = Record::decode(block);
        let text = match record.state {
            State::EndOfTable => END.to_owned(),
            State::Uninitialized if block.iter().all(|&byte| byte == 0) => ZERO.to_owned(),
            _ if is_scratch(&record.resource) => digits(block),
            _ => digits(&anonymous(&record).encode()),
        };
        match blocks.last_mut() {
            Some((last, count)) if *last == text => *count += 1,
            _ => blocks.push((text, 1)),
        }
    }
    let text = |(text, count)| if count == 1 { text } else { format!("{text}*{count}") };
    blocks.into_iter().map(text).collect()
}

/// The records in written blocks.
pub fn records(blocks: &[String]) -> Vec<Record> {
    let block = |text: &String| bytes(text.split('*').next()?, RECORD_LEN);
    let all: Vec<u8> = blocks.iter().filter_map(block).flatten().collect();
    parse_table(&all)
}

fn anonymous(record: &Record) -> Record {
    let digest = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
    let mut resource = [0; 64];
    resource[..32].copy_from_slice(&digest(record.resource.as_bytes()));
    let mut metadata = [0; 64];
    metadata[..32].copy_from_slice(&digest(&record.metadata));
    Record {
        resource: ResourceId::from_bytes(resource),
        host: HostId::from_bytes(digest(record.host.as_bytes())),
        metadata,
        modified_ms: 0,
        value: Value::ZERO,
        ..record.clone()
    }
}

/// A trace as text.
pub fn format(steps: &[Step]) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(&Head { idmctl_trace: FORMAT })? + "\n";
    for step in steps {
        text.push_str(&serde_json::to_string(step)?);
        text.push('\n');
    }
    let sha256 = all_digits(&Sha256::digest(&text));
    text.push_str(&serde_json::to_string(&Tail { sha256 })?);
    text.push('\n');
    Ok(text)
}

/// The steps in a text.
pub fn parse(text: &str, name: &str) -> Result<Vec<Step>, Trouble> {
    let wrong = |what: String| Trouble::new(what, name, "record the trace anew");
    let damaged = |error: serde_json::Error| wrong(format!("it is no trace: {error}"));
    let whole = text.strip_suffix('\n').ok_or_else(|| wrong("it is cut short".to_owned()))?;
    let (body, tail) =
        whole.rsplit_once('\n').ok_or_else(|| wrong("it is cut short".to_owned()))?;
    let tail: Tail = serde_json::from_str(tail).map_err(damaged)?;
    if tail.sha256 != all_digits(&Sha256::digest(format!("{body}\n"))) {
        return Err(wrong("it was changed after it was recorded".to_owned()));
    }
    let mut lines = body.lines();
    let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).map_err(damaged)?;
    if head.idmctl_trace != FORMAT {
        return Err(wrong(format!("its format is {}, not {FORMAT}", head.idmctl_trace)));
    }
    lines.map(|line| serde_json::from_str(line).map_err(damaged)).collect()
}
