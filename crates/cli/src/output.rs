//! What commands print: to standard output, or into memory where `quickstart` shows it as part of its story; and what they say
//! beside that on standard error.

use std::io::{self, BufWriter, Stdout, Write};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::exit::one_line;

/// Where a command's output goes. One lock per write, so that it can be shared.
#[derive(Debug)]
pub(crate) struct Output {
    sink: Mutex<Sink>,
}

#[derive(Debug)]
enum Sink {
    Stdout(BufWriter<Stdout>),
    Memory(Vec<u8>),
}

impl Output {
    pub(crate) fn stdout() -> Self {
        Self { sink: Mutex::new(Sink::Stdout(BufWriter::with_capacity(1 << 16, io::stdout()))) }
    }

    pub(crate) fn memory() -> Self {
        Self { sink: Mutex::new(Sink::Memory(Vec::new())) }
    }

    /// What was written to memory since the last call.
    pub(crate) fn taken(&self) -> Vec<u8> {
        match &mut *self.lock() {
            Sink::Memory(bytes) => mem::take(bytes),
            Sink::Stdout(_) => Vec::new(),
        }
    }

    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        match &mut *self.lock() {
            Sink::Stdout(stdout) => stdout.write_all(bytes),
            Sink::Memory(memory) => memory.write_all(bytes),
        }
    }

    pub(crate) fn line(&self, line: impl std::fmt::Display) -> io::Result<()> {
        self.bytes(format!("{line}\n").as_bytes())
    }

    /// One JSON value on one line, for scripts.
    pub(crate) fn json(&self, value: &Value) -> io::Result<()> {
        self.line(value)
    }

    /// One JSON value over several lines, as `az` prints it.
    pub(crate) fn pretty_json(&self, value: &Value) -> io::Result<()> {
        self.line(format!("{value:#}"))
    }

    /// `name  value` lines, aligned.
    pub(crate) fn fields(&self, fields: &[(&str, String)]) -> io::Result<()> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in fields {
            self.line(format!("{name:width$}  {value}"))?;
        }
        Ok(())
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        match &mut *self.lock() {
            Sink::Stdout(stdout) => stdout.flush(),
            Sink::Memory(_) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is worth knowing and no error of the command, on standard error: after a word for people, for scripts as one JSON object
/// on one line, as errors are.
pub(crate) fn aside(json: bool, word: &str, message: impl std::fmt::Display) {
    let message = one_line(&message.to_string());
    let line = match json {
        true => json!({ word: { "message": message } }).to_string(),
        false => format!("{word}: {message}"),
    };
    // Whoever closed stderr does not want to know.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// RFC 3339 in UTC, to the millisecond.
pub(crate) fn time(at: SystemTime) -> String {
    match Timestamp::try_from(at) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        Err(_) => "beyond the calendar".to_owned(),
    }
}

/// [`time`], of milliseconds since 1970.
pub(crate) fn time_of_millis(unix_millis: u64) -> String {
    match SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(unix_millis)) {
        Some(at) => time(at),
        None => "beyond the calendar".to_owned(),
    }
}

/// A size that people can read.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(time_of_millis(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_of_millis(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time_of_millis(u64::MAX), "beyond the calendar");
    }

    #[test]
    fn sizes() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(50 << 20), "50.0 MiB");
    }
}
