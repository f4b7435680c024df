//! Files that have their names only once they are whole. What could not be finished, or was given up, goes at once; what a killed
//! process left, with the next export to the same place.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::{LayoutError, at};

/// The end of its name until then.
const PART: &str = ".part";
/// What makes that unique, in bytes.
const RANDOM: usize = 8;

/// A file beside its place. It is locked while it is open, which tells it from what a killed process left.
pub(super) struct Beside(PathBuf);

impl Beside {
    /// A file that is to be at `path`.
    pub(super) async fn create(path: &Path) -> Result<(Self, File), LayoutError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let mut random = [0; RANDOM];
            getrandom::fill(&mut random).map_err(|error| at(path)(io::Error::other(error.to_string())))?;
            let name = format!(".{name}.{}{PART}", HEXLOWER.encode(&random));
            let beside = Self(parent(path).join(name));
            let file = File::create_new(&beside.0).await.map_err(at(path))?.into_std().await;
            // Where there are no locks, none is ever taken for left.
            let _ = file.try_lock();
            if !is_swept(&file) {
                return Ok((beside, File::from_std(file)));
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives the file its name, once all of it is on the disk.
    pub(super) async fn name(self, mut file: File, path: &Path) -> Result<(), LayoutError> {
        // Which says whether the last write failed: `sync_all` does not.
        file.flush().await.map_err(at(&self.0))?;
        file.sync_all().await.map_err(at(&self.0))?;
        tokio::fs::rename(&self.0, path).await.map_err(at(path))?;
        // The name is a content of the folder.
        let folder = File::open(parent(path)).await.map_err(at(path))?;
        folder.sync_all().await.map_err(at(path))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Whether it went between its creation and its lock.
fn is_swept(file: &std::fs::File) -> bool {
    #[cfg(unix)]
    return file.metadata().is_ok_and(|meta| std::os::unix::fs::MetadataExt::nlink(&meta) == 0);
    #[cfg(not(unix))]
    return false;
}

/// Removes from a folder what processes that were killed left there beside files whose names are `ours`. What can't be removed
/// harms nobody.
pub(super) fn sweep(folder: &Path, ours: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let place = name.to_str().and_then(place);
        if place.is_some_and(&ours)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = std::fs::File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The name of the file beside which one of this name is.
fn place(name: &str) -> Option<&str> {
    let (name, random) = name.strip_prefix('.')?.strip_suffix(PART)?.rsplit_once('.')?;
    (random.len() == 2 * RANDOM && random.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn what_nobody_writes_any_more_is_swept_and_nothing_else() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.tar");
        let (written, file) = Beside::create(&path).await.unwrap();
        let (other, closed) = Beside::create(&folder.path().join("y.tar")).await.unwrap();
        let (left, killed) = Beside::create(&path).await.unwrap();
        drop((closed, killed));
        for kept in ["x.tar", ".x.tar", ".x.tar.0123456789abcdef", ".x.tar.part", ".x.tar.notes.part"] {
            fs::write(folder.path().join(kept), "mine").unwrap();
        }
        let before = fs::read_dir(folder.path()).unwrap().count();
        sweep(folder.path(), |name| name == "x.tar");
        assert!(!left.path().exists(), "nobody has it open");
        assert!(written.path().exists() && other.path().exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before - 1);
        written.name(file, &path).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
