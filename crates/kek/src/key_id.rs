//! The portable name of a key: what may stand in a bucket.
//!
//! ```text
//! https://HOST[:PORT]/keys/NAME[/VERSION]         Key Vault, Managed HSM
//! vault:VAULTID/keys/NAME[/VERSION]               the local vault, by its id (26 base32 characters)
//! pkcs11:token=TOKEN;object=OBJECT[;id=%XX…]      a PKCS#11 token (RFC 7512); the id is the version
//! ```
//!
//! It refuses to know folders, module paths and PIN sources: those are local configuration, so that whoever can
//! write the bucket can't choose what is loaded or asked.

pub(crate) mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use crate::percent;

/// A key, by provider, host (or token, or vault), name and perhaps version.
///
/// Equality is of the canonical text. [`same_key`](Self::same_key) looks past version and case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId {
    scheme: Scheme,
    host: String,
    name: String,
    version: Option<String>,
}

/// Which sort of provider a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Scheme {
    /// `https:`: Key Vault or Managed HSM.
    KeyVault,
    /// `vault:`: the local vault.
    Vault,
    /// `pkcs11:`: a PKCS#11 token.
    Pkcs11,
}

/// The text is no key id; `Display` says how to mend it.
///
/// The text itself is not repeated: it may hold a PIN or a password that was put there by mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a key id: {why}")]
pub struct InvalidKeyId {
    why: String,
}

impl InvalidKeyId {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

impl KeyId {
    /// Key Vault and Managed HSM in Azure's clouds: public, China, US Government, Germany (closed, its names still Azure's).
    pub const AZURE_DOMAINS: [&str; 8] = [
        "vault.azure.net",
        "vault.azure.cn",
        "vault.usgovcloudapi.net",
        "vault.microsoftazure.de",
        "managedhsm.azure.net",
        "managedhsm.azure.cn",
        "managedhsm.usgovcloudapi.net",
        "managedhsm.microsoftazure.de",
    ];

    /// The longest name or version, in bytes.
    pub const MAX_NAME_LEN: usize = 127;

    /// A key in Key Vault or Managed HSM; `host` may have a port.
    ///
    /// # Errors
    /// If a part has characters that don't belong there.
    pub fn key_vault(host: &str, name: &str, version: Option<&str>) -> Result<Self, InvalidKeyId> {
        let host = parse::host(host)?;
        Self { scheme: Scheme::KeyVault, host, name: parse::name(name)?, version: None }.versioned(version)
    }

    /// A key in the local vault with this id (26 base32 characters).
    ///
    /// # Errors
    /// If a part has characters that don't belong there.
    pub fn vault(vault_id: &str, name: &str, version: Option<&str>) -> Result<Self, InvalidKeyId> {
        let host = parse::vault_id(vault_id)?;
        Self { scheme: Scheme::Vault, host, name: parse::name(name)?, version: None }.versioned(version)
    }

    /// A key on a PKCS#11 token, by the labels of token and object, and perhaps the object's id (`CKA_ID`).
    ///
    /// # Errors
    /// If a label is empty, too long or has control characters, or the id is empty or too long.
    pub fn pkcs11(token: &str, object: &str, id: Option<&[u8]>) -> Result<Self, InvalidKeyId> {
        let host = parse::label("token", token.as_bytes().to_vec(), parse::MAX_TOKEN_LEN)?;
        let name = parse::label("object", object.as_bytes().to_vec(), Self::MAX_NAME_LEN)?;
        let version = id.map(parse::object_id).transpose()?;
        Ok(Self { scheme: Scheme::Pkcs11, host, name, version })
    }

    /// The sort of provider.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host (with its port unless 443), vault id, or token label.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The key's name, or the object's label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The vault's name and its domain, if the key is in one of Azure's clouds: `contoso`, `vault.azure.net`. One label, then
    /// the domain: no port, nothing deeper.
    pub fn azure_vault(&self) -> Option<(&str, &str)> {
        let (vault, domain) = self.host.split_once('.')?;
        let is_azures =
            self.scheme == Scheme::KeyVault && !vault.is_empty() && Self::AZURE_DOMAINS.contains(&domain);
        is_azures.then_some((vault, domain))
    }

    /// The version; for PKCS#11 the object's id in hexadecimal. `None`: versionless, the newest is meant.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The same key in this version.
    ///
    /// # Errors
    /// If the version has characters that don't belong there.
    pub fn with_version(&self, version: &str) -> Result<Self, InvalidKeyId> {
        self.without_version().versioned(Some(version))
    }

    /// The same key without a version.
    #[must_use]
    pub fn without_version(&self) -> Self {
        Self { version: None, ..self.clone() }
    }

    /// Whether both are (versions of) one key. Key vaults take names in any case.
    pub fn same_key(&self, other: &Self) -> bool {
        let same_name = match self.scheme {
            Scheme::KeyVault | Scheme::Vault => self.name.eq_ignore_ascii_case(&other.name),
            Scheme::Pkcs11 => self.name == other.name,
        };
        self.scheme == other.scheme && self.host == other.host && same_name
    }

    fn versioned(mut self, version: Option<&str>) -> Result<Self, InvalidKeyId> {
        self.version = match (version, self.scheme) {
            (None, _) => None,
            (Some(hex), Scheme::Pkcs11) => Some(parse::object_id(&parse::hex(hex)?)?),
            (Some(version), _) => Some(parse::version(version)?),
        };
        Ok(self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, name) = (&self.host, &self.name);
        match self.scheme {
            Scheme::KeyVault => write!(f, "https://{host}/keys/{name}")?,
            Scheme::Vault => write!(f, "vault:{host}/keys/{name}")?,
            Scheme::Pkcs11 => {
                let escaped = |text: &str| percent::encode(text.as_bytes(), percent::is_unreserved);
                write!(f, "pkcs11:token={};object={}", escaped(host), escaped(name))?;
                if let Some(id) = &self.version {
                    f.write_str(";id=")?;
                    for byte in id.as_bytes().chunks(2) {
                        write!(f, "%{}", String::from_utf8_lossy(byte).to_ascii_uppercase())?;
                    }
                }
                return Ok(());
            }
        }
        match &self.version {
            Some(version) => write!(f, "/{version}"),
            None => Ok(()),
        }
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        parse::key_id(text)
    }
}
