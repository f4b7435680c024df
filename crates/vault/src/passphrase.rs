//! From passphrase to key: Argon2id (RFC 9106).

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use bulla_envelope::random::RandomSource;
use bulla_envelope::secret::Secret;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::VaultError;

const SALT_LEN: usize = 16;

/// What opens the vault. Wiped when dropped, and never shown.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// These bytes, all of them: cutting off the line end of a file is the caller's.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// What guessing a passphrase costs: the parameters of Argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PassphraseCost {
    /// Memory, in KiB.
    #[serde(rename = "memoryKiB")]
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for PassphraseCost {
    /// 64 MiB, 3 passes, 4 lanes: RFC 9106 §4, second recommended option.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

impl PassphraseCost {
    /// Next to nothing: for tests, and for passphrases that are 256 random bits anyway.
    pub const MINIMAL: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };

    fn params(self) -> Result<Params, VaultError> {
        // A file may say anything; opening must not take all memory or forever.
        let bearable = self.memory_kib <= 4 << 20 && self.passes <= 1 << 10 && self.lanes <= 64;
        Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .ok()
            .filter(|_| bearable)
            .ok_or_else(|| VaultError::invalid(format!("{self:?} is out of range for Argon2id")))
    }
}

/// How the passphrase was stretched, as the vault's file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stretching {
    algorithm: String,
    version: u32,
    #[serde(flatten)]
    pub(crate) cost: PassphraseCost,
    salt: String,
}

impl Stretching {
    pub(crate) fn new(cost: PassphraseCost, random: &dyn RandomSource) -> Self {
        let mut salt = [0; SALT_LEN];
        random.fill(&mut salt);
        Self {
            algorithm: "argon2id".into(),
            version: u32::from(Version::V0x13),
            cost,
            salt: BASE64URL_NOPAD.encode(&salt),
        }
    }

    /// `Argon2id(passphrase, salt)`, 32 bytes.
    pub(crate) fn stretch(&self, passphrase: &Passphrase) -> Result<Secret<32>, VaultError> {
        if self.algorithm != "argon2id" || self.version != u32::from(Version::V0x13) {
            let (name, version) = (&self.algorithm, self.version);
            return Err(VaultError::invalid(format!(
                "this version of Bulla does not know {name} version {version}"
            )));
        }
        let salt = BASE64URL_NOPAD
            .decode(self.salt.as_bytes())
            .map_err(|_| VaultError::invalid("the salt of the passphrase is not base64url"))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.cost.params()?)
            .hash_password_into(&passphrase.0, &salt, &mut *key)
            .map_err(|error| VaultError::invalid(format!("Argon2id refuses the parameters: {error}")))?;
        Ok(Secret::from_slice(&*key).expect("Argon2id was asked for 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use bulla_kek::SystemRandom;

    use super::*;

    #[test]
    fn one_passphrase_one_key() {
        let stretching = Stretching::new(PassphraseCost::MINIMAL, &SystemRandom);
        let key = stretching.stretch(&Passphrase::new("open sesame")).unwrap();
        assert!(key.ct_eq(&stretching.stretch(&Passphrase::new("open sesame")).unwrap()));
        assert!(!key.ct_eq(&stretching.stretch(&Passphrase::new("open sesam")).unwrap()));
        let other = Stretching::new(PassphraseCost::MINIMAL, &SystemRandom);
        assert!(!key.ct_eq(&other.stretch(&Passphrase::new("open sesame")).unwrap()), "salted");
    }

    #[test]
    fn unbearable_costs_are_refused() {
        for cost in [
            PassphraseCost { memory_kib: u32::MAX, ..PassphraseCost::MINIMAL },
            PassphraseCost { passes: u32::MAX, ..PassphraseCost::MINIMAL },
            PassphraseCost { passes: 0, ..PassphraseCost::MINIMAL },
            PassphraseCost { lanes: 0, ..PassphraseCost::MINIMAL },
        ] {
            let stretching = Stretching::new(cost, &SystemRandom);
            assert!(stretching.stretch(&Passphrase::new("x")).is_err(), "{cost:?}");
        }
    }

    #[test]
    fn a_passphrase_is_not_shown() {
        assert_eq!(format!("{:?}", Passphrase::new("open sesame")), "Passphrase(…)");
    }
}
