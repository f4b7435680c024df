//! What is remembered of one store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bulla::{Anchor, Managed, RecordMark, Status};
use bulla_kek::{KeyId, Scheme};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, Kind, Result};
use crate::output;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KnownStore {
    pub(crate) store_id: String,
    pub(crate) anchor: String,
    /// The newest log record seen: its number, and the SHA-256 of its object.
    pub(crate) number: u64,
    pub(crate) hash: String,
    /// The folders of the vaults that this machine uses for the store, by vault id.
    pub(crate) vaults: BTreeMap<String, VaultPlace>,
    /// The labels of the PKCS#11 tokens that this machine uses for the store.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) tokens: BTreeSet<String>,
    /// The encryption as it was last seen, for `status` while the key is revoked.
    pub(crate) encryption: Encryption,
}

/// A local vault, and how it is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VaultPlace {
    pub(crate) dir: PathBuf,
    /// Set for a vault that Bulla made for this store alone, whose passphrase is in this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

impl VaultPlace {
    /// Whether the vault holds a service-managed key.
    pub(crate) fn is_service(&self) -> bool {
        self.passphrase_file.is_some()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Encryption {
    /// Whether the key is the customer's.
    pub(crate) customer_managed: bool,
    pub(crate) identity: String,
    pub(crate) key_identifier: String,
    pub(crate) versioned_key_identifier: String,
    pub(crate) key_rotation_enabled: bool,
    pub(crate) last_key_rotation_timestamp: Option<String>,
    pub(crate) revocation_bound_ms: u64,
    /// The second party, where there is one; key and identity above are the first's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) second_party: Option<SecondParty>,
    /// When this was seen.
    pub(crate) seen: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecondParty {
    pub(crate) identity: String,
    pub(crate) key_identifier: String,
    pub(crate) versioned_key_identifier: String,
    pub(crate) key_rotation_enabled: bool,
}

impl Encryption {
    pub(crate) fn of(status: &Status) -> Self {
        Self {
            customer_managed: status.managed == Managed::Customer,
            identity: status.identity.clone(),
            key_identifier: status.key.clone(),
            versioned_key_identifier: status.versioned_key.clone(),
            key_rotation_enabled: status.follows_versions,
            last_key_rotation_timestamp: status.rotated.map(output::time),
            revocation_bound_ms: status.revocation_bound_ms,
            second_party: status.second.as_ref().map(|second| SecondParty {
                identity: second.identity.clone(),
                key_identifier: second.key.clone(),
                versioned_key_identifier: second.versioned_key.clone(),
                key_rotation_enabled: second.follows_versions,
            }),
            seen: output::time(std::time::SystemTime::now()),
        }
    }

    /// Of a store that is to be under this key.
    pub(crate) fn of_key(key: &KeyId, identity: &str) -> Self {
        let key = key.to_string();
        Self {
            identity: identity.to_owned(),
            key_identifier: key.clone(),
            versioned_key_identifier: key,
            ..Self::unknown()
        }
    }

    /// Of a store that was never opened here.
    pub(crate) fn unknown() -> Self {
        Self {
            customer_managed: true,
            identity: "ID".to_owned(),
            key_identifier: "its key".to_owned(),
            versioned_key_identifier: "its key".to_owned(),
            key_rotation_enabled: false,
            last_key_rotation_timestamp: None,
            revocation_bound_ms: 0,
            second_party: None,
            seen: String::new(),
        }
    }

    /// Whether both say the same, whenever it was seen.
    fn equals(&self, other: &Self) -> bool {
        let other = Self { seen: self.seen.clone(), ..other.clone() };
        *self == other
    }
}

impl KnownStore {
    /// A store that was just opened under keys that users named, and that is remembered with them alone.
    pub(crate) fn of(status: &Status, vaults: BTreeMap<String, VaultPlace>) -> Self {
        Self {
            store_id: status.store.to_string(),
            anchor: status.anchor.to_string(),
            number: status.log.number,
            hash: HEXLOWER.encode(&status.log.hash),
            vaults,
            tokens: tokens(status),
            encryption: Encryption::of(status),
        }
    }

    pub(crate) fn anchor(&self) -> Result<Anchor> {
        self.anchor.parse().map_err(|_| damaged())
    }

    pub(crate) fn mark(&self) -> Result<RecordMark> {
        let hash = HEXLOWER.decode(self.hash.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
        Ok(RecordMark { number: self.number, hash: hash.ok_or_else(damaged)? })
    }

    /// Takes over a newer mark; never an older one.
    pub(crate) fn advance(&mut self, mark: RecordMark) {
        if mark.number > self.number {
            self.number = mark.number;
            self.hash = HEXLOWER.encode(&mark.hash);
        }
    }

    /// Takes over the encryption, if there is news in it.
    pub(crate) fn saw(&mut self, status: &Status) {
        let encryption = Encryption::of(status);
        if !self.encryption.equals(&encryption) {
            self.encryption = encryption;
        }
        self.advance(status.log);
    }
}

/// The tokens that hold the store's keys.
pub(crate) fn tokens(status: &Status) -> BTreeSet<String> {
    let on_token = |kek: &&KeyId| kek.scheme() == Scheme::Pkcs11;
    status.keks.iter().map(|(kek, _)| kek).filter(on_token).map(|kek| kek.host().to_owned()).collect()
}

fn damaged() -> Failure {
    Failure::new(
        Kind::Corrupt,
        "what this machine remembers of the store is damaged; `bulla attach` it again with its anchor",
    )
}
