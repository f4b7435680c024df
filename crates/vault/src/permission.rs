//! What an identity may do with keys, by Key Vault's names.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Key Vault's key permissions. The embedded vault asks for `get`, `wrapKey` and `unwrapKey`, its REST server for
/// those it has operations for; the others are kept as given.
const NAMES: [&str; 21] = [
    "all",
    "backup",
    "create",
    "decrypt",
    "delete",
    "encrypt",
    "get",
    "getrotationpolicy",
    "import",
    "list",
    "purge",
    "recover",
    "release",
    "restore",
    "rotate",
    "setrotationpolicy",
    "sign",
    "unwrapKey",
    "update",
    "verify",
    "wrapKey",
];

/// One of Key Vault's key permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permission(&'static str);

/// A name that is no key permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a key permission; the ones a store needs are get, wrapKey and unwrapKey")]
pub struct UnknownPermission(String);

impl Permission {
    /// Everything.
    pub const ALL: Self = Self("all");
    /// Read a key's public half and attributes.
    pub const GET: Self = Self("get");
    /// Encrypt a key for it.
    pub const WRAP_KEY: Self = Self("wrapKey");
    /// Decrypt a key that was encrypted for it.
    pub const UNWRAP_KEY: Self = Self("unwrapKey");
    /// See which keys there are.
    pub const LIST: Self = Self("list");
    /// Make keys and versions.
    pub const CREATE: Self = Self("create");
    /// Bring keys that were made elsewhere.
    pub const IMPORT: Self = Self("import");
    /// Change attributes: enable, disable, validity.
    pub const UPDATE: Self = Self("update");
    /// Delete a key so that it can be recovered.
    pub const DELETE: Self = Self("delete");
    /// Bring a deleted key back.
    pub const RECOVER: Self = Self("recover");
    /// Destroy a deleted key for good.
    pub const PURGE: Self = Self("purge");
    /// Encrypt a few bytes with it.
    pub const ENCRYPT: Self = Self("encrypt");
    /// Decrypt what was encrypted with it.
    pub const DECRYPT: Self = Self("decrypt");
    /// What a store needs.
    pub const FOR_STORES: [Self; 3] = [Self::GET, Self::WRAP_KEY, Self::UNWRAP_KEY];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Every permission's name.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }
}

impl FromStr for Permission {
    type Err = UnknownPermission;

    /// In any case, as `az` takes them.
    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        NAMES
            .iter()
            .find(|name| name.eq_ignore_ascii_case(text))
            .map(|name| Self(name))
            .ok_or_else(|| UnknownPermission(text.chars().take(64).collect()))
    }
}

impl Serialize for Permission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_case() {
        assert_eq!("WRAPKEY".parse(), Ok(Permission::WRAP_KEY));
        assert_eq!("unwrapkey".parse(), Ok(Permission::UNWRAP_KEY));
        for name in Permission::names() {
            assert_eq!(name.parse::<Permission>().map(Permission::as_str), Ok(*name));
        }
        assert!("wrap".parse::<Permission>().is_err());
    }
}
