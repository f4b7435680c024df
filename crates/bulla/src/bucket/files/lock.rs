//! One writer at a time may replace or remove files of a folder, in this process and any other.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

/// The folder's lock. Every [`FileLock`] of one folder in this process is the same one, with one open file:
/// - locks of one open file don't exclude each other, so threads need the mutex;
/// - on network file systems a lock belongs to the process and ends when *any* of its handles of the file is closed.
#[derive(Debug)]
pub(super) struct FileLock {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

static LOCKS: Mutex<BTreeMap<PathBuf, Weak<FileLock>>> = Mutex::new(BTreeMap::new());

impl FileLock {
    /// `path` is absolute and free of links. The file is made when the lock is first taken, so that reading works
    /// in a folder that can't be written.
    pub(super) fn at(path: PathBuf) -> Arc<Self> {
        let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(&path).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(Self { path: path.clone(), file: Mutex::new(None) });
        locks.insert(path, Arc::downgrade(&lock));
        lock
    }

    /// Waits for the lock, blocking the thread.
    pub(super) fn lock(&self) -> io::Result<Locked<'_>> {
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(open_private(&self.path)?);
        }
        let locked = Locked { guard };
        locked.file()?.lock()?;
        Ok(locked)
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The lock is held for as long as this lives.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    guard: MutexGuard<'a, Option<File>>,
}

impl Locked<'_> {
    fn file(&self) -> io::Result<&File> {
        self.guard.as_ref().ok_or_else(|| io::Error::other("the lock file is not open"))
    }

    /// Returns once the file system's clock has passed `mtime`, a file's time of last change, by the microsecond
    /// that [`etag`](super::etag) counts in.
    ///
    /// File times come from a clock that ticks every 1 to 10 ms (1 or 2 s on some file systems), so the time is
    /// taken from the same clock, by writing to the lock file. A file from the future (the clock was set back) is
    /// not waited for: for its time to come again, a later tick would have to hit the very same microsecond.
    pub(super) fn wait_past(&self, mtime: SystemTime) -> io::Result<()> {
        const FAR: Duration = Duration::from_secs(4);
        let mut file = self.file()?;
        loop {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(b"\n")?;
            let now = file.metadata()?.modified()?;
            if super::micros(now) > super::micros(mtime) || now + FAR < mtime {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.guard.as_ref() {
            // Can't fail for a lock that is held; if it does all the same, closing the file ends it.
            if file.unlock().is_err() {
                *self.guard = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_written_after_the_wait_has_a_later_time() {
        let temp = tempfile::tempdir().unwrap();
        let lock = FileLock::at(temp.path().join("lock"));
        let locked = lock.lock().unwrap();
        let write = |name: u32| {
            let path = temp.path().join(name.to_string());
            fs::write(&path, "x").unwrap();
            fs::metadata(&path).unwrap().modified().unwrap()
        };
        let mut last = write(0);
        for name in 1..20 {
            locked.wait_past(last).unwrap();
            let next = write(name);
            assert!(super::super::micros(next) > super::super::micros(last));
            last = next;
        }
        // The clock was set back: no waiting for the future.
        locked.wait_past(last + Duration::from_secs(3600)).unwrap();
    }

    #[test]
    fn a_folder_has_one_lock_per_process() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let lock = FileLock::at(path.clone());
        assert!(Arc::ptr_eq(&lock, &FileLock::at(path)));
    }
}
