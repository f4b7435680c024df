//! The vault: made, opened, read anew at every call.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::secret::Secret;
use bulla_kek::{KeyId, KeyUri, Runtime, TokioRuntime};
use data_encoding::BASE32_NOPAD;
use serde::Serialize;

use crate::error::{VaultError, VaultErrorKind};
use crate::files::{self, Lock};
use crate::layout::{KEYS, LOCK_FILE, VAULT_FILE};
use crate::material::Material;
use crate::passphrase::{Passphrase, PassphraseCost, Stretching};
use crate::stored::{self, FORMAT, VaultFile};

/// A vault in a folder. Clones share the passphrase and the opened keys.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) crypto: &'static CryptoProvider,
}

struct Inner {
    /// Absolute.
    dir: PathBuf,
    id: String,
    id_bytes: [u8; 16],
    passphrase: Option<Passphrase>,
    material: Mutex<Material>,
}

/// How a vault is made.
#[derive(Debug)]
pub struct CreateVault {
    /// Whether deleted keys can't be purged. Can't be changed later.
    pub purge_protection: bool,
    /// What will open it.
    pub passphrase: Passphrase,
    /// What guessing the passphrase will cost.
    pub cost: PassphraseCost,
}

impl CreateVault {
    /// With purge protection and the default cost.
    pub fn new(passphrase: Passphrase) -> Self {
        Self { purge_protection: true, passphrase, cost: PassphraseCost::default() }
    }
}

/// What a vault says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct VaultInfo {
    /// 26 base32 characters: the host part of its keys' ids.
    pub id: String,
    /// The folder.
    pub dir: PathBuf,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Always: a deleted key can be recovered until it is purged.
    pub enable_soft_delete: bool,
    /// Whether deleted keys can't be purged.
    pub enable_purge_protection: bool,
}

impl Vault {
    /// Makes a vault in a new or empty folder.
    ///
    /// # Errors
    /// `Conflict` if there is a vault or anything else in the folder, `Invalid` for an empty passphrase or costs out of
    /// range, `Io`.
    pub fn create(dir: impl AsRef<Path>, options: CreateVault) -> Result<Self, VaultError> {
        let dir = dir.as_ref();
        if options.passphrase.is_empty() {
            return Err(VaultError::invalid("the passphrase is empty; an empty one protects nothing"));
        }
        let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime);
        let crypto = CryptoProvider::best();
        let mut id_bytes = [0; 16];
        runtime.random().fill(&mut id_bytes);
        let stretching = Stretching::new(options.cost, runtime.random());
        let stretched = stretching.stretch(&options.passphrase)?;
        let (material, sealed_key) = Material::create(&stretched, &id_bytes, crypto, runtime.random());

        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).map_err(|error| VaultError::io("create the folder", parent, error))?;
        }
        let new = files::create_folder(dir)?;
        let dir = absolute(dir)?;
        let conflict = |what: &str| {
            VaultError::new(
                VaultErrorKind::Conflict,
                format!("{} {what}; choose another folder", dir.display()),
            )
        };
        if !new {
            // What an interrupted `create` left, or nothing.
            let names = files::names(&dir)?;
            if names.iter().any(|name| name == VAULT_FILE) {
                return Err(conflict("is a vault already"));
            }
            let ours =
                |name: &String| name == LOCK_FILE || name == KEYS || name.starts_with(files::TEMP_PREFIX);
            if !names.iter().all(ours) || !files::names(&dir.join(KEYS))?.is_empty() {
                return Err(conflict("is not empty"));
            }
            files::make_private(&dir)?;
        }
        let _lock = Lock::acquire(&dir.join(LOCK_FILE))?;
        if dir.join(VAULT_FILE).exists() {
            return Err(conflict("is a vault already"));
        }
        files::create_folder(&dir.join(KEYS))?;
        let id = BASE32_NOPAD.encode(&id_bytes).to_ascii_lowercase();
        let file = VaultFile {
            format: FORMAT,
            id: id.clone(),
            created: stored::seconds(runtime.now().wall),
            purge_protection: options.purge_protection,
            passphrase: stretching,
            sealed_key,
            access_policies: BTreeMap::new(),
            network_rules: None,
        };
        files::write(&dir.join(VAULT_FILE), &stored::to_json(&file), runtime.random())?;
        let inner =
            Inner { dir, id, id_bytes, passphrase: Some(options.passphrase), material: Mutex::new(material) };
        Ok(Self { inner: Arc::new(inner), runtime, crypto })
    }

    /// Opens the vault in a folder. Without the passphrase keys can be listed, shown and managed, but not made or used.
    /// The passphrase is not tried before it is needed; see [`check_passphrase`](Self::check_passphrase).
    ///
    /// # Errors
    /// `NotFound` if there is no vault, `Damaged` if its file is not one, `Io`.
    pub fn open(dir: impl AsRef<Path>, passphrase: Option<Passphrase>) -> Result<Self, VaultError> {
        let dir = dir.as_ref();
        let path = dir.join(VAULT_FILE);
        let Some(bytes) = files::read(&path)? else {
            let what = format!("there is no vault in {}; make one with `bulla vault create`", dir.display());
            return Err(VaultError::new(VaultErrorKind::NotFound, what));
        };
        let VaultFile { id, .. } = stored::from_json(&path, &bytes)?;
        let id_bytes = BASE32_NOPAD
            .decode(id.to_ascii_uppercase().as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| VaultError::damaged(&path, "its id is not 26 base32 characters"))?;
        let inner = Inner {
            dir: absolute(dir)?,
            id,
            id_bytes,
            passphrase,
            material: Mutex::new(Material::default()),
        };
        Ok(Self { inner: Arc::new(inner), runtime: Arc::new(TokioRuntime), crypto: CryptoProvider::best() })
    }

    /// Takes time, randomness and threads from another runtime than tokio's.
    #[must_use]
    pub fn with_runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = runtime;
        self
    }

    /// Uses another crypto back end than the fastest.
    #[must_use]
    pub fn with_crypto(mut self, crypto: &'static CryptoProvider) -> Self {
        self.crypto = crypto;
        self
    }

    /// 26 base32 characters: the host part of its keys' ids.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// What the vault says of itself.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` or `Io` if its file can't be read any more.
    pub fn info(&self) -> Result<VaultInfo, VaultError> {
        let file = self.vault_file()?;
        Ok(VaultInfo {
            id: file.id,
            dir: self.inner.dir.clone(),
            created: file.created,
            enable_soft_delete: true,
            enable_purge_protection: file.purge_protection,
        })
    }

    /// The portable id of one of its keys, which need not exist.
    ///
    /// # Errors
    /// `Invalid` if name or version have characters that don't belong there.
    pub fn key_id(&self, name: &str, version: Option<&str>) -> Result<KeyId, VaultError> {
        KeyId::vault(&self.inner.id, name, version).map_err(|error| VaultError::invalid(error.to_string()))
    }

    /// One of its keys as users type it: `vault+file:///DIR/keys/NAME[/VERSION]`.
    pub fn key_uri(&self, name: &str, version: Option<&str>) -> KeyUri {
        let version = version.map(str::to_owned);
        KeyUri::VaultFolder { dir: self.inner.dir.clone(), name: name.to_owned(), version }
    }

    /// Whether the passphrase opens the vault. Takes as long as guessing once.
    ///
    /// # Errors
    /// `WrongPassphrase`, `PassphraseMissing`; `NotFound`, `Damaged` or `Io` if the vault can't be read.
    pub fn check_passphrase(&self) -> Result<(), VaultError> {
        let file = self.vault_file()?;
        self.with_material(&file, |_| Ok(()))
    }

    /// A key derived from the vault key, for signing bearer tokens. Whoever has the passphrase can make them, and could use
    /// every key anyway.
    ///
    /// # Errors
    /// `WrongPassphrase`, `PassphraseMissing`; `NotFound`, `Damaged` or `Io` if the vault can't be read.
    pub fn token_key(&self) -> Result<Secret<32>, VaultError> {
        let file = self.vault_file()?;
        self.with_material(&file, |material| Ok(material.token_key(&self.inner.id_bytes)))
    }

    /// Random bytes from the vault's runtime.
    pub fn fill_random(&self, bytes: &mut [u8]) {
        self.runtime.random().fill(bytes);
    }

    /// Hands out the opened keys, having opened the vault with its passphrase at the first time.
    pub(crate) fn with_material<T>(
        &self,
        file: &VaultFile,
        use_it: impl FnOnce(&mut Material) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let mut material = self.material();
        if !material.is_open() {
            let Some(passphrase) = &self.inner.passphrase else {
                return Err(VaultError::new(
                    VaultErrorKind::PassphraseMissing,
                    "the vault's passphrase is needed: set BULLA_VAULT_PASSPHRASE or BULLA_VAULT_PASSPHRASE_FILE",
                ));
            };
            let stretched = file.passphrase.stretch(passphrase)?;
            material.open(&stretched, &self.inner.id_bytes, &file.sealed_key, self.crypto)?;
        }
        use_it(&mut material)
    }

    /// Forgets an opened private key, because it may not be used any more.
    pub(crate) fn forget(&self, version: &str) {
        self.material().forget(version);
    }

    fn material(&self) -> MutexGuard<'_, Material> {
        // Nothing that panics leaves it half changed.
        self.inner.material.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id_bytes(&self) -> &[u8; 16] {
        &self.inner.id_bytes
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.runtime.now().wall
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("dir", &self.inner.dir)
            .field("id", &self.inner.id)
            .finish_non_exhaustive()
    }
}

fn absolute(dir: &Path) -> Result<PathBuf, VaultError> {
    fs::canonicalize(dir).map_err(|error| VaultError::io("find", dir, error))
}
