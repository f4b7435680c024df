//! The audit log: one line of JSON for every request, written before its answer is sent.
//!
//! A line is in the file when the client has its answer, and on the disk at most a second later. A request that can't be
//! logged is not answered with what it asked for. Nothing secret is in a line: no token, no plaintext, no ciphertext.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

/// Longer names and versions are cut: they are no key's.
const MAX_NAME_LEN: usize = 128;

#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    file: Mutex<File>,
    unsynced: AtomicBool,
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    time: Timestamp,
    pub(crate) operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// As whom; absent if nobody proved to be anybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    pub(crate) peer: Option<SocketAddr>,
    /// The HTTP status.
    pub(crate) status: u16,
    /// `Success`, or the code that says most about the refusal.
    pub(crate) outcome: String,
    pub(crate) duration_ms: f64,
}

impl Entry {
    pub(crate) fn new(operation: &'static str, peer: Option<SocketAddr>) -> Self {
        Self {
            time: Timestamp::now(),
            operation,
            key: None,
            version: None,
            identity: None,
            peer,
            status: 0,
            outcome: String::new(),
            duration_ms: 0.,
        }
    }

    pub(crate) fn key(&mut self, name: Option<&str>, version: Option<&str>) {
        let cut = |text: &str| text.chars().take(MAX_NAME_LEN).collect();
        self.key = name.map(cut);
        self.version = version.map(cut);
    }

    pub(crate) fn took(&mut self, duration: Duration) {
        self.duration_ms = (duration.as_secs_f64() * 1e6).round() / 1e3;
    }
}

impl Audit {
    /// Opens or makes the file; lines are added at its end, so that it can be truncated while the server runs.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = Mutex::new(options.open(path)?);
        Ok(Self { path: path.to_owned(), file, unsynced: AtomicBool::new(false) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn record(&self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // One write, so that lines of two servers don't mix.
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)?;
        self.unsynced.store(true, Ordering::Release);
        Ok(())
    }

    /// Puts what was written on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.unsynced.swap(false, Ordering::AcqRel) {
            // Without the lock: requests must not wait for the disk.
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).try_clone()?;
            file.sync_data()?;
        }
        Ok(())
    }
}
