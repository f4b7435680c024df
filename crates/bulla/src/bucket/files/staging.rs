//! Files are written beside their place under a staging name, then linked or renamed into it.
//!
//! Staging names are object_store's own: `name#NUMBER`, which its listings skip.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use object_store::PutPayload;

/// A written and synced file that is not in its place yet; removed on drop unless it got there.
#[derive(Debug)]
pub(super) struct Staged {
    path: Option<PathBuf>,
    /// Of the written file, open until it is published, so that its inode can't be taken by another.
    file: File,
}

impl Staged {
    pub(super) fn write(dest: &Path, payload: &PutPayload) -> io::Result<Self> {
        let (mut file, path) = create(dest)?;
        let staged = |file| Self { path: Some(path), file };
        let written = payload.iter().try_for_each(|piece| file.write_all(piece));
        let staged = staged(file);
        written.and_then(|()| staged.file.sync_all()).map(|()| staged)
    }

    /// Copies the bytes of `from`: a new file with a time of its own, not a second name of the old one.
    pub(super) fn copy(from: &Path, dest: &Path) -> io::Result<Self> {
        let mut source = File::open(from)?;
        let (mut file, path) = create(dest)?;
        let copied = io::copy(&mut source, &mut file);
        let staged = Self { path: Some(path), file };
        copied.and_then(|_| staged.file.sync_all()).map(|()| staged)
    }

    pub(super) fn metadata(&self) -> io::Result<fs::Metadata> {
        self.file.metadata()
    }

    /// Puts the file in its place, where nothing may be yet. The folder is synced by the caller.
    pub(super) fn link(self, dest: &Path) -> io::Result<()> {
        fs::hard_link(self.path(), dest)
    }

    /// Puts the file in its place, over what is there. The folder is synced by the caller, who holds the lock.
    pub(super) fn rename(mut self, dest: &Path) -> io::Result<()> {
        fs::rename(self.path(), dest)?;
        self.path = None;
        Ok(())
    }

    fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What stays behind is removed by `sweep`.
            let _ = fs::remove_file(path);
        }
    }
}

fn create(dest: &Path) -> io::Result<(File, PathBuf)> {
    let mut number = 1u64;
    loop {
        let mut name = dest.as_os_str().to_owned();
        name.push(format!("#{number}"));
        let path = PathBuf::from(name);
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match dest.parent() {
                Some(parent) => create_dirs(parent)?,
                None => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
}

/// Makes a folder and those above it, each one durably.
pub(super) fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => {}
        // Another writer was faster, and may not have synced it yet.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Makes the changes to a folder's entries durable. Not possible, nor needed, on Windows.
pub(in crate::bucket) fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(dir)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

/// Removes the staging files below `root` that nobody has written to for `age`: their writers were killed.
/// Errors are passed over, for the next sweep. Returns how many files were removed.
pub(super) fn sweep(root: &Path, age: Duration) -> usize {
    let Some(before) = SystemTime::now().checked_sub(age) else { return 0 };
    let mut removed = 0;
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() && is_staging(&entry.file_name().to_string_lossy()) {
                let stale = entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|time| time < before);
                if stale && fs::remove_file(entry.path()).is_ok() {
                    removed += 1;
                }
            }
        }
    }
    removed
}

fn is_staging(name: &str) -> bool {
    name.split_once('#')
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
