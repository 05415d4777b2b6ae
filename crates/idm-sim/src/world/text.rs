//! The texts of a trace.

use crate::ids::{HostIx, LockIx};
use core::fmt;
use idm_engine::{Event, Notice, Outcome};
use idm_protocol::{DriveCommand, Reply, ValueUpdate};

/// Prints a line of a trace; the reader may stop reading.
macro_rules! say {
    ($($arg:tt)*) => {{
        let _ = std::io::Write::write_fmt(
            &mut std::io::stdout().lock(),
            format_args!("{}\n", format_args!($($arg)*)),
        );
    }};
}

/// Prints an event, if a trace is requested.
macro_rules! trace {
    ($world:expr, $($arg:tt)*) => {
        if $world.tracing {
            let now = $world.now() as f64 / 1e6;
            $crate::world::text::say!("{now:>12.6}  {}", format_args!($($arg)*));
        }
    };
}

pub(super) use {say, trace};

/// A lock of a host.
pub(super) struct Name {
    pub(super) host: HostIx,
    pub(super) lock: LockIx,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.lock)
    }
}

/// A command without the fields that all commands of a lock have in common.
pub(super) struct CommandText<'a>(pub(super) &'a DriveCommand);

impl fmt::Display for CommandText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DriveCommand::ReadTable => f.write_str("read table"),
            DriveCommand::Mutex(op, record) => {
                write!(f, "{op:?} {}", record.class.mode())?;
                if record.value_update != ValueUpdate::Keep {
                    write!(f, " {:?} {}", record.value_update, record.value.get())?;
                }
                f.write_str(" meta ")?;
                hex(f, &record.metadata)
            }
        }
    }
}

pub(super) struct ReplyText<'a>(pub(super) &'a Reply);

impl fmt::Display for ReplyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reply::Status(status) => write!(f, "{status:?}"),
            Reply::Table(records) => {
                f.write_str("table [")?;
                for (i, r) in records.iter().enumerate() {
                    let between = if i == 0 { "" } else { ", " };
                    write!(
                        f,
                        "{between}l{} {} {} {:?} value {} meta ",
                        r.resource.as_bytes()[0].wrapping_sub(b'0'),
                        r.host.name(),
                        r.class.mode(),
                        r.state,
                        r.value.get()
                    )?;
                    hex(f, &r.metadata)?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Prints bytes up to the last one that is not zero.
fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    if end == 0 {
        return f.write_str("0");
    }
    for byte in &bytes[..end.min(24)] {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// An event, with hosts by their names.
pub(super) struct Brief<'a>(pub(super) &'a Event);

impl fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Event::Done(Outcome::Refused(refusal)) => write!(f, "refused: {refusal} ({refusal:?})"),
            Event::Notice(Notice::Broke { hosts, drive }) => {
                write!(f, "broke on d{}:", drive.0)?;
                for host in hosts {
                    write!(f, " {}", host.name())?;
                }
                Ok(())
            }
            event => write!(f, "{event:?}"),
        }
    }
}
