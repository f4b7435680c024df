//! What this machine remembers: `known_stores.json` in its configuration folder.
//!
//! It is the only thing that tells a store from a forgery (the anchor), from an older state of itself (the newest log
//! record seen), and where the vaults are that the store's key ids speak of. None of this ever comes from the bucket.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable;
use crate::exit::{Failure, Kind, Result};
use crate::known::KnownStore;

/// The configuration folder.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    dir: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct KnownStores {
    version: u32,
    /// By the canonical URL.
    stores: BTreeMap<String, KnownStore>,
}

const VERSION: u32 = 1;

impl Config {
    /// `$BULLA_CONFIG_DIR`, else `$XDG_CONFIG_HOME/bulla`, else `~/.config/bulla`.
    pub(crate) fn from_environment() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let dir = set("BULLA_CONFIG_DIR")
            .or_else(|| Some(set("XDG_CONFIG_HOME")?.join("bulla")))
            .or_else(|| Some(std::env::home_dir()?.join(".config/bulla")))
            .ok_or_else(|| {
                Failure::invalid(
                    "there is no home folder to remember stores in; set BULLA_CONFIG_DIR to a folder",
                )
            })?;
        Ok(Self::at(dir))
    }

    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where service-managed keys of file stores are.
    pub(crate) fn service_vaults(&self) -> PathBuf {
        self.dir.join("service-vaults")
    }

    /// Every store this machine knows, by canonical URL.
    pub(crate) fn stores(&self) -> Result<BTreeMap<String, KnownStore>> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(Failure::file("read", &path, error)),
        };
        let damaged = |why: String| {
            Failure::new(
                Kind::Corrupt,
                format!(
                    "{} can't be understood ({why}); restore it from a backup, or move it away and `bulla attach` \
                     every store with its anchor",
                    path.display()
                ),
            )
        };
        let known: KnownStores =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if known.version != VERSION {
            return Err(damaged(format!("it has version {}", known.version)));
        }
        Ok(known.stores)
    }

    /// The store at this canonical URL, if this machine knows it.
    pub(crate) fn store(&self, canonical: &str) -> Result<Option<KnownStore>> {
        Ok(self.stores()?.remove(canonical))
    }

    /// Whether something can be remembered at all: asked before something is made that must be.
    pub(crate) fn check(&self) -> Result<()> {
        self.make()?;
        let _lock = self.lock()?;
        self.stores().map(drop)
    }

    /// Changes what is known of one store: atomic, durable, one process at a time.
    pub(crate) fn update(
        &self,
        canonical: &str,
        change: impl FnOnce(Option<KnownStore>) -> Option<KnownStore>,
    ) -> Result<()> {
        self.make()?;
        let _lock = self.lock()?;
        let mut stores = self.stores()?;
        let before = stores.remove(canonical);
        let after = change(before.clone());
        if before == after {
            return Ok(());
        }
        if let Some(after) = after {
            stores.insert(canonical.to_owned(), after);
        }
        let path = self.path();
        let mut bytes = serde_json::to_vec_pretty(&KnownStores { version: VERSION, stores })
            .map_err(|error| Failure::new(Kind::Internal, "known stores are not JSON").with_source(error))?;
        bytes.push(b'\n');
        durable::replace_private(&path, &bytes).map_err(|error| Failure::file("write", &path, error))
    }

    /// Makes the folder, for its owner only.
    pub(crate) fn make(&self) -> Result<()> {
        durable::private_folder(&self.dir).map_err(|error| {
            Failure::file("make", &self.dir, error).with_fix("set BULLA_CONFIG_DIR to a folder of your own")
        })
    }

    fn lock(&self) -> Result<File> {
        let path = self.dir.join("known_stores.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| Failure::file("open", &path, error))?;
        lock.lock().map_err(|error| Failure::file("lock", &path, error))?;
        Ok(lock)
    }

    /// The file that it is in.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("known_stores.json")
    }
}
