//! The vault's files as they are written.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_kek::KeyKind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::VaultError;
use crate::network::NetworkRules;
use crate::passphrase::Stretching;
use crate::permission::Permission;

/// The version of the folder's layout.
pub(crate) const FORMAT: u32 = 1;

pub(crate) const RSA: &str = "RSA";
/// RFC 7518's name for symmetric keys.
pub(crate) const OCT: &str = "oct";
/// Key Vault's mark of a key that an HSM holds. Kept as asked for; the key is in the folder all the same.
pub(crate) const HSM: &str = "-HSM";

/// `vault.json`
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VaultFile {
    pub(crate) format: u32,
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) purge_protection: bool,
    pub(crate) passphrase: Stretching,
    /// The vault key: Cobblestone-256 under the stretched passphrase, base64url.
    pub(crate) sealed_key: String,
    /// By identity.
    pub(crate) access_policies: BTreeMap<String, Vec<Permission>>,
    /// Absent: every network may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network_rules: Option<NetworkRules>,
}

/// `keys/<name>/key.json`
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyFile {
    pub(crate) format: u32,
    /// As it was first written; the folder's name is this in lower case.
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_date: Option<u64>,
    /// The newest last.
    pub(crate) versions: Vec<StoredVersion>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredVersion {
    pub(crate) version: String,
    pub(crate) key: StoredKey,
    pub(crate) attributes: StoredAttributes,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    pub(crate) kty: String,
    pub(crate) key_size: u32,
    pub(crate) key_ops: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) e: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredAttributes {
    pub(crate) enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nbf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<u64>,
    pub(crate) created: u64,
    pub(crate) updated: u64,
}

impl KeyFile {
    /// This version, or the newest.
    pub(crate) fn version(&self, version: Option<&str>) -> Option<&StoredVersion> {
        match version {
            Some(version) => self.versions.iter().find(|stored| stored.version == version),
            None => self.versions.last(),
        }
    }

    /// This version, or the newest, to be changed.
    pub(crate) fn version_mut(&mut self, version: Option<&str>) -> Option<&mut StoredVersion> {
        match version {
            Some(version) => self.versions.iter_mut().find(|stored| stored.version == version),
            None => self.versions.last_mut(),
        }
    }
}

impl StoredKey {
    /// `RSA` or `oct`, whoever is said to hold it.
    pub(crate) fn base_kty(&self) -> &str {
        self.kty.strip_suffix(HSM).unwrap_or(&self.kty)
    }

    pub(crate) fn kind(&self) -> KeyKind {
        match self.base_kty() {
            RSA => KeyKind::Rsa { bits: self.key_size },
            OCT => KeyKind::Aes { bits: self.key_size },
            other => KeyKind::Other(other.to_owned()),
        }
    }
}

/// Reads a file's JSON; unknown formats are refused by name.
pub(crate) fn from_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, VaultError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged =
        |error: serde_json::Error| VaultError::damaged(path, "it is not the vault's JSON").with_source(error);
    let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format != FORMAT {
        return Err(VaultError::damaged(
            path,
            &format!("its format is {format}, and this version of Bulla knows {FORMAT}"),
        ));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(value).expect("the vault's files have text for keys");
    json.push(b'\n');
    json
}

/// Seconds since 1970, as Key Vault counts; 0 before.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The time that many seconds after 1970; `None` if the system has no such time.
pub(crate) fn time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
