//! Using a key: who may, whether the key may now, and the operation itself. Every surface goes through here.
//!
//! Access is looked at before the key: who has none does not learn whether it exists. The files are read anew each time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bulla_envelope::crypto::OaepHash;
use bulla_kek::{DenyReason, Identity, KekError};
use zeroize::Zeroizing;

use crate::error::{VaultError, VaultErrorKind};
use crate::files;
use crate::material::{self, Opened, Place};
use crate::permission::Permission;
use crate::stored::{self, KeyFile, StoredVersion, VaultFile};
use crate::vault::Vault;

/// One use of a key.
#[derive(Clone, Copy)]
#[allow(clippy::exhaustive_structs, reason = "what an operation is given does not grow")]
pub struct KeyUse<'a> {
    /// The key's name, in any case.
    pub name: &'a str,
    /// Its version; `None` is the newest.
    pub version: Option<&'a str>,
    /// What is done.
    pub operation: KeyOperation,
    /// With which algorithm.
    pub algorithm: Algorithm,
    /// The plaintext or ciphertext.
    pub input: &'a [u8],
}

/// What came of it.
#[non_exhaustive]
pub struct Used {
    /// The key's name as it was first written.
    pub name: String,
    /// The version that was used.
    pub version: String,
    /// The ciphertext or plaintext.
    pub output: Zeroizing<Vec<u8>>,
}

/// What a key can do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the operations of keys that only encrypt")]
pub enum KeyOperation {
    /// Encrypt a key.
    WrapKey,
    /// Decrypt a key.
    UnwrapKey,
    /// Encrypt a few bytes.
    Encrypt,
    /// Decrypt a few bytes.
    Decrypt,
}

/// How a key encrypts. `RSA1_5` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a new one needs new code everywhere")]
pub enum Algorithm {
    /// RSAES-OAEP with SHA-1: for clients that have nothing else.
    RsaOaep,
    /// RSAES-OAEP with SHA-256.
    RsaOaep256,
    /// AES key wrap (RFC 3394).
    A256Kw,
}

/// What a disabled key can still do: the one point where surfaces differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "as the documentation has it, or as the service does it")]
pub enum Manner {
    /// As Key Vault is documented: nothing. Stores want this, so that nothing new is written under such a key.
    Documented,
    /// As the service does it: what the public half can do. Clients of the REST API meet this in Azure too.
    Service,
}

impl Vault {
    /// Uses a key as this identity.
    ///
    /// | the key is | wrap, encrypt | unwrap, decrypt |
    /// |---|---|---|
    /// | disabled | denied; as [`Manner::Service`] an RSA key still does it | denied |
    /// | expired, or not valid yet | denied | yes |
    /// | deleted | denied | denied |
    ///
    /// # Errors
    /// `Denied` with the reason; `Invalid` for an algorithm that is not for the key, or an input that is none; `Unavailable`
    /// if the vault can't be read or opened.
    pub fn use_key(&self, identity: &Identity, manner: Manner, what: &KeyUse<'_>) -> Result<Used, KekError> {
        let KeyUse { name, version, operation, algorithm, input } = *what;
        let found = Found::find(self, identity, name, version, operation.permission())?;
        let public = operation.is_encryption() && algorithm.hash().is_some();
        if !(public && manner == Manner::Service) {
            found.enabled(self)?;
        }
        found.permits(operation)?;
        if operation.is_encryption() {
            found.valid_now(self)?;
        }
        material::fits(&found.stored, algorithm)?;
        let opened = found.open(self)?;
        let random = self.runtime.random();
        let output = if operation.is_encryption() {
            Zeroizing::new(opened.encrypt(algorithm, input, self.crypto, random)?)
        } else {
            opened.decrypt(algorithm, input, random)?
        };
        Ok(Used { name: found.name, version: found.stored.version, output })
    }
}

impl KeyOperation {
    /// Its name among a key's `key_ops`, which is also the permission's.
    pub fn as_str(self) -> &'static str {
        self.permission().as_str()
    }

    /// Whether it needs only the public half of an RSA key.
    pub fn is_encryption(self) -> bool {
        matches!(self, Self::WrapKey | Self::Encrypt)
    }

    /// What an identity needs for it.
    pub fn permission(self) -> Permission {
        match self {
            Self::WrapKey => Permission::WRAP_KEY,
            Self::UnwrapKey => Permission::UNWRAP_KEY,
            Self::Encrypt => Permission::ENCRYPT,
            Self::Decrypt => Permission::DECRYPT,
        }
    }
}

impl Algorithm {
    /// Its name in Key Vault and in RFC 7518 §4.1.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaOaep => "RSA-OAEP",
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::A256Kw => "A256KW",
        }
    }

    /// The hash of OAEP, for RSA keys.
    pub(crate) fn hash(self) -> Option<OaepHash> {
        match self {
            Self::RsaOaep => Some(OaepHash::Sha1),
            Self::RsaOaep256 => Some(OaepHash::Sha256),
            Self::A256Kw => None,
        }
    }
}

/// A name that is no algorithm of the vault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the vault encrypts with RSA-OAEP-256, RSA-OAEP or A256KW, and with nothing else")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        [Self::RsaOaep, Self::RsaOaep256, Self::A256Kw]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyUse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyUse")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("operation", &self.operation)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Used")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A key that is there, and that the identity may do this with.
pub(crate) struct Found {
    pub(crate) vault_file: VaultFile,
    pub(crate) name: String,
    pub(crate) stored: StoredVersion,
}

impl Found {
    /// The key in this version, or its newest, if the identity has the permission.
    pub(crate) fn find(
        vault: &Vault,
        identity: &Identity,
        name: &str,
        version: Option<&str>,
        permission: Permission,
    ) -> Result<Self, KekError> {
        let vault_file = vault.vault_file().map_err(unavailable)?;
        if !vault_file.allows(identity, permission) {
            return Err(denied(
                DenyReason::Forbidden,
                format_args!("{identity} has no permission to {permission} with {name}"),
            ));
        }
        // A name that can't be is one that isn't; and it must not leave the folder.
        let key = vault.key_id(name, version).map_err(|error| KekError::invalid(error.to_string()))?;
        let Some(KeyFile { name, deleted_date, mut versions, .. }) =
            vault.key_file(name).map_err(unavailable)?
        else {
            return Err(denied(DenyReason::NotFound, format_args!("there is no {key}")));
        };
        if deleted_date.is_some() {
            versions.iter().for_each(|stored| vault.forget(&stored.version));
            return Err(denied(DenyReason::Deleted, format_args!("{key} is deleted")));
        }
        let position = match version {
            Some(version) => versions.iter().position(|stored| stored.version == version),
            None => versions.len().checked_sub(1),
        };
        match position {
            Some(position) => Ok(Self { vault_file, name, stored: versions.swap_remove(position) }),
            None => Err(denied(DenyReason::NotFound, format_args!("there is no {key}"))),
        }
    }

    fn enabled(&self, vault: &Vault) -> Result<(), KekError> {
        if self.stored.attributes.enabled {
            return Ok(());
        }
        let (name, version) = (&self.name, &self.stored.version);
        vault.forget(version);
        Err(denied(DenyReason::Disabled, format_args!("{name}/{version} is disabled")))
    }

    fn permits(&self, operation: KeyOperation) -> Result<(), KekError> {
        let operation = operation.as_str();
        if self.stored.key.key_ops.iter().any(|have| have == operation) {
            return Ok(());
        }
        let what = format_args!("{operation} is not among the key_ops of {}", self.name);
        Err(denied(DenyReason::OperationNotPermitted, what))
    }

    fn valid_now(&self, vault: &Vault) -> Result<(), KekError> {
        let (name, now) = (&self.name, stored::seconds(vault.now()));
        if self.stored.attributes.nbf.is_some_and(|start| now < start) {
            return Err(denied(DenyReason::NotYetValid, format_args!("{name} is not valid yet")));
        }
        if self.stored.attributes.exp.is_some_and(|end| end <= now) {
            return Err(denied(DenyReason::Expired, format_args!("{name} has expired")));
        }
        Ok(())
    }

    fn open(&self, vault: &Vault) -> Result<Arc<Opened>, KekError> {
        let path = vault.sealed_path(&self.name, &self.stored.version);
        let place = Place {
            vault: vault.id_bytes(),
            name: &self.name,
            version: &self.stored.version,
            kty: self.stored.key.base_kty(),
        };
        vault
            .with_material(&self.vault_file, |material| {
                material.opened(&place, &path, vault.crypto, || files::read(&path))
            })
            .map_err(unavailable)
    }
}

fn denied(reason: DenyReason, what: fmt::Arguments<'_>) -> KekError {
    KekError::denied(reason).with_message(what.to_string())
}

/// A folder that can't be read, or a vault that can't be opened, says nothing about the key.
pub(crate) fn unavailable(error: VaultError) -> KekError {
    let what = match error.kind() {
        VaultErrorKind::WrongPassphrase | VaultErrorKind::PassphraseMissing => "the vault is locked",
        _ => "the vault is out of reach",
    };
    KekError::unavailable(what).with_source(error)
}
