//! What files say, read again when they change.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// A value made from files. They are looked at every now and then, and read when one of them is not as it was: what can't be
/// used leaves the value as it is, is logged once, and is tried again.
pub struct Watched<T> {
    files: Vec<PathBuf>,
    read: Box<Read<T>>,
    current: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
}

type Read<T> = dyn Fn() -> Result<T, String> + Send + Sync;

/// When each file was written, and its size; `None`: it can't be looked at.
type Stamps = Vec<Option<(SystemTime, u64)>>;

struct Seen {
    /// Of the current value.
    used: Stamps,
    /// Of what could not be used, so that it is said once.
    refused: Option<Stamps>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Reads for the first time. Blocks.
    ///
    /// # Errors
    /// What `read` returns.
    pub fn load<E: fmt::Display>(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, E> {
        // Before reading: what is written meanwhile is read again.
        let used = stamps(&files);
        let current = RwLock::new(Arc::new(read()?));
        let read = Box::new(move || read().map_err(|error| error.to_string()));
        Ok(Arc::new(Self { files, read, current, seen: Mutex::new(Seen { used, refused: None }) }))
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks every so often, in a task of its own, until the last handle is dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn watch(self: &Arc<Self>, every: Duration) {
        let watched = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(watched) = watched.upgrade() else { return };
                // Files. One that panics is looked at again.
                let _ = tokio::task::spawn_blocking(move || watched.look()).await;
            }
        });
    }

    /// Looks now. Blocks.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.files);
        if now == seen.used {
            return;
        }
        let files =
            || self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        match (self.read)() {
            Ok(value) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                *seen = Seen { used: now, refused: None };
                tracing::info!(files = files(), "read again");
            }
            // A file of two that is replaced before the other; or a mistake.
            Err(error) => {
                if seen.refused.as_ref() != Some(&now) {
                    tracing::warn!(
                        files = files(),
                        error,
                        "changed to what can't be used; what was read before stays"
                    );
                    seen.refused = Some(now);
                }
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Stamps {
    let stamp = |file: &PathBuf| {
        let meta = fs::metadata(file).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    files.iter().map(stamp).collect()
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_used_is_and_the_rest_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let read = {
            let file = file.clone();
            move || {
                fs::read_to_string(&file)
                    .map_err(|e| e.to_string())?
                    .parse::<u32>()
                    .map_err(|e| e.to_string())
            }
        };
        let watched = Watched::load(vec![file.clone()], read).unwrap();
        let after = |text: Option<&str>| {
            match text {
                Some(text) => fs::write(&file, text).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            watched.look();
            *watched.get()
        };
        assert_eq!(after(Some("22")), 22);
        assert_eq!(after(Some("two")), 22);
        assert_eq!(after(None), 22);
        assert_eq!(after(Some("3")), 3);
    }
}
