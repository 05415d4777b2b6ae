//! lvmlockd's socket protocol, as lvm commands use it.
//!
//! A request consists of lines `field = value`, then a line `##`; the reply has the same form.
//! Field names are those of lvm2's `lib/locking/lvmlockd.c`.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Result of a request: another host holds the lock.
pub const EAGAIN: i32 = -11;
/// Result of a request: too few drives answer.
pub const ELOCKIO: i32 = -218;

/// Requested mode of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Unlock.
    Un,
    /// Shared.
    Sh,
    /// Exclusive.
    Ex,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Un => "un",
            Mode::Sh => "sh",
            Mode::Ex => "ex",
        }
    }
}

/// An LV as a request names it.
#[derive(Clone, Debug)]
pub struct Lv {
    /// Its VG.
    pub vg: String,
    /// Name in the VG.
    pub name: String,
    /// Uuid as LVM prints it.
    pub uuid: String,
    /// Uuid of its VG.
    pub vg_uuid: String,
    /// Paths of the PVs that it is on.
    pub pvs: Vec<String>,
}

/// The answer of lvmlockd.
#[derive(Clone, Debug)]
pub struct Reply {
    fields: HashMap<String, String>,
}

impl Reply {
    /// The result of the operation: 0, or a negative errno or lvmlockd number.
    pub fn result(&self) -> Result<i32> {
        match self.fields.get("op_result") {
            Some(number) => Ok(number.parse()?),
            None => bail!("lvmlockd's reply has no result: {:?}", self.fields),
        }
    }
}

/// A connection to a host's lvmlockd. Closing it ends the client: lvmlockd gives up the locks that
/// the client took, except for persistent ones.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// Time limit of a request. It is longer than any request may take; a longer one is a bug that must
/// not hang a test.
const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    /// Connects to the socket at `path` and says hello.
    pub fn connect(path: &Path) -> Result<Client> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("connect to lvmlockd at {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client { stream };
        client.send("hello", &[])?;
        client.receive()?;
        Ok(client)
    }

    /// Requests the global lock.
    pub fn lock_global(&mut self, mode: Mode) -> Result<i32> {
        self.send("lock_gl", &[("mode", mode.name()), ("vg_lock_type", "idm")])?;
        self.receive()?.result()
    }

    /// Requests a VG's lock.
    pub fn lock_vg(&mut self, vg: &str, mode: Mode) -> Result<i32> {
        self.send("lock_vg", &[("mode", mode.name()), ("vg_name", vg), ("vg_lock_type", "idm")])?;
        self.receive()?.result()
    }

    /// Requests an LV's lock that is given up when the client disconnects.
    pub fn lock_lv(&mut self, lv: &Lv, mode: Mode) -> Result<i32> {
        self.send_lock_lv(lv, mode)?;
        self.receive()?.result()
    }

    /// Requests an LV's lock like a command that activates or deactivates it: the lock outlives the
    /// client.
    pub fn lock_lv_for_good(&mut self, lv: &Lv, mode: Mode) -> Result<i32> {
        self.send_lv(lv, mode, "persistent")?;
        self.receive()?.result()
    }

    /// Reports a change of a VG whose lock this client holds exclusively; it is published with the
    /// lock. `version` is the VG's new seqno.
    pub fn update_vg(&mut self, vg: &str, version: u32) -> Result<i32> {
        self.send("vg_update", &[("vg_name", vg), ("version", &version.to_string())])?;
        self.receive()?.result()
    }

    /// Sends the request of [`Client::lock_lv`] without waiting for the reply.
    pub fn send_lock_lv(&mut self, lv: &Lv, mode: Mode) -> Result<()> {
        self.send_lv(lv, mode, "none")
    }

    fn send_lv(&mut self, lv: &Lv, mode: Mode, opts: &str) -> Result<()> {
        let number = lv.pvs.len().to_string();
        let names: Vec<String> = (0..lv.pvs.len()).map(|i| format!("path[{i}]")).collect();
        let mut fields = vec![
            ("mode", mode.name()),
            ("opts", opts),
            ("vg_name", &lv.vg),
            ("lv_name", &lv.name),
            ("lv_uuid", &lv.uuid),
            ("vg_lock_type", "idm"),
            ("lv_lock_args", "idm"),
            ("path_num", &number),
        ];
        for (name, path) in names.iter().zip(&lv.pvs) {
            fields.push((name, path));
        }
        self.send("lock_lv", &fields)
    }

    fn send(&mut self, request: &str, fields: &[(&str, &str)]) -> Result<()> {
        let mut text = format!("request=\"{request}\"\n");
        for (name, value) in fields {
            // Numbers are not quoted.
            match value.parse::<i64>() {
                Ok(number) => writeln!(text, "{name}={number}")?,
                Err(_) => writeln!(text, "{name}=\"{value}\"")?,
            }
        }
        text.push_str("\n##\n");
        self.stream.write_all(text.as_bytes())?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Reply> {
        const END: &[u8] = b"\n##\n";
        let mut text = Vec::new();
        let mut part = [0; 4096];
        while !text.ends_with(END) {
            let read = match self.stream.read(&mut part) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.context("lvmlockd's reply")?,
            };
            if read == 0 {
                bail!("lvmlockd closed the connection: it has died");
            }
            text.extend_from_slice(&part[..read]);
        }
        let fields = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| {
                let value = value.trim().trim_matches('"');
                (name.trim().to_owned(), value.to_owned())
            })
            .collect();
        Ok(Reply { fields })
    }
}
