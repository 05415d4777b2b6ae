//! The exchange on a control connection: one line of text in, `ok` or `error` on a line of its own
//! and text out, in the form of `client::control`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The longest accepted line, in bytes.
const MAX_LINE_LEN: u64 = 1000;

/// The time that a client may take to send its line.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads one line, executes it, and answers.
pub fn exchange(
    mut stream: UnixStream,
    execute: impl FnOnce(&str) -> Result<String, String>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&stream).take(MAX_LINE_LEN)).read_line(&mut line)?;
    let answer = match execute(&line) {
        Ok(text) => format!("ok\n{text}"),
        Err(message) => format!("error\n{message}\n"),
    };
    stream.write_all(answer.as_bytes())
}
