//! A key as Key Vault's REST API shows it.

use std::collections::BTreeMap;

use serde::Serialize;

/// `{"key":{…},"attributes":{…}}`, as `az keyvault key create` and `show` print it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyBundle {
    /// The public half.
    pub key: JsonWebKey,
    /// The state.
    pub attributes: KeyAttributes,
    /// What its owner noted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The key's name, for those who name it otherwise than [`JsonWebKey::kid`].
    #[serde(skip)]
    pub name: String,
    /// The version.
    #[serde(skip)]
    pub version: String,
    /// When it was deleted, in seconds since 1970; only for a deleted key.
    #[serde(rename = "deletedDate", skip_serializing_if = "Option::is_none")]
    pub deleted_date: Option<u64>,
}

/// A key without its secrets, in the words of RFC 7517.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct JsonWebKey {
    /// `vault+file:///DIR/keys/NAME/VERSION`
    pub kid: String,
    /// `RSA` or `oct` (AES); with `-HSM` where it was asked for so.
    pub kty: String,
    /// What the key may be used for.
    pub key_ops: Vec<String>,
    /// RSA modulus, big-endian, base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA exponent, big-endian, base64url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
}

/// A key's state. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyAttributes {
    /// Whether it may be used at all.
    pub enabled: bool,
    /// Start of validity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// End of validity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// When this version was made.
    pub created: u64,
    /// When its attributes last changed.
    pub updated: u64,
    /// `Recoverable` (soft delete and purge protection) or `Recoverable+Purgeable` (soft delete only).
    #[serde(rename = "recoveryLevel")]
    pub recovery_level: String,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyItem {
    /// Without a version in a listing of keys, with it in a listing of versions.
    pub kid: String,
    /// The key's name.
    pub name: String,
    /// The version, in a listing of versions.
    #[serde(skip)]
    pub version: Option<String>,
    /// What its owner noted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The state, of the newest version in a listing of keys.
    pub attributes: KeyAttributes,
    /// When it was deleted, in seconds since 1970; only for a deleted key.
    #[serde(rename = "deletedDate", skip_serializing_if = "Option::is_none")]
    pub deleted_date: Option<u64>,
}
