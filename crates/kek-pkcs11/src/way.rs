//! Ways to wrap: a mechanism and a family of functions, the best that the token offers and the key allows.
//!
//! ```text
//! AES-256   A256KW by cipher · A256GCMKW by cipher · A256KW by object · A256GCMKW by object
//! RSA       RSA-OAEP-256 by cipher · by object · RSA-OAEP (SHA-1) by cipher · by object, where that is allowed
//! ```
//!
//! By cipher comes first, because by object the secret becomes a session object of the token for a moment, and reading it
//! back leaves a copy in memory that cryptoki frees without wiping. A mechanism list says neither with which hash OAEP
//! works (SoftHSM2: SHA-1 alone) nor whether GCM takes a nonce from outside (some certified modules don't), so a way is
//! tried before it counts.
//!
//! ```text
//! A256KW      40 bytes       RFC 3394
//! A256GCMKW   60 bytes       nonce(12) ‖ ciphertext(32) ‖ tag(16)
//! RSA-OAEP…   the modulus's length
//! ```

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::random::RandomSource;
use bulla_envelope::secret::Secret;
use bulla_kek::{KeyKind, WrapAlgorithm};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::types::Ulong;
use zeroize::{Zeroize, Zeroizing};

use crate::fault::{Fault, failed};
use crate::key::{Key, Use, Via};
use crate::token::Connected;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// A way to wrap and unwrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) alg: WrapAlgorithm,
    via: Via,
}

/// What the cryptography on this side of the module is made of.
#[derive(Clone, Copy)]
pub(crate) struct Tools<'a> {
    pub(crate) crypto: &'static CryptoProvider,
    pub(crate) random: &'a dyn RandomSource,
}

impl Way {
    /// The ways for keys of a kind, the best first.
    pub(crate) fn for_kind(kind: &KeyKind, allow_oaep_sha1: bool) -> Vec<Self> {
        use WrapAlgorithm::{A256GcmKw, A256Kw, RsaOaep, RsaOaep256};
        let ways: &[(WrapAlgorithm, Via)] = match kind {
            KeyKind::Aes { bits: 256 } => &[
                (A256Kw, Via::Cipher),
                (A256GcmKw, Via::Cipher),
                (A256Kw, Via::Object),
                (A256GcmKw, Via::Object),
            ],
            KeyKind::Rsa { .. } => &[
                (RsaOaep256, Via::Cipher),
                (RsaOaep256, Via::Object),
                (RsaOaep, Via::Cipher),
                (RsaOaep, Via::Object),
            ],
            _ => &[],
        };
        let allowed = |(alg, _): &&(WrapAlgorithm, Via)| allow_oaep_sha1 || *alg != RsaOaep;
        ways.iter().filter(allowed).map(|&(alg, via)| Self { alg, via }).collect()
    }

    /// Whether the token lists the mechanism, and has it for these functions.
    pub(crate) fn is_offered(self, at: Connected<'_>) -> bool {
        let mechanism = self.mechanism();
        let listed = at.pkcs11.get_mechanism_list(at.slot).is_ok_and(|list| list.contains(&mechanism));
        listed
            && at.pkcs11.get_mechanism_info(at.slot, mechanism).is_ok_and(|info| {
                let wraps = match self.via {
                    Via::Cipher => info.encrypt(),
                    Via::Object => info.wrap(),
                };
                let unwraps = match self.via {
                    Via::Cipher => info.decrypt(),
                    Via::Object => info.unwrap(),
                };
                unwraps && (wraps || self.wraps_here())
            })
    }

    pub(crate) fn is_permitted(self, key: &Key, usage: Use) -> bool {
        key.permits(self.mechanism(), self.via, usage)
    }

    /// Whether wrapping takes the public key alone, and the token has no part in it.
    fn wraps_here(self) -> bool {
        self.alg == WrapAlgorithm::RsaOaep256
    }

    fn mechanism(self) -> MechanismType {
        match self.alg {
            WrapAlgorithm::A256Kw => MechanismType::AES_KEY_WRAP,
            WrapAlgorithm::A256GcmKw => MechanismType::AES_GCM,
            _ => MechanismType::RSA_PKCS_OAEP,
        }
    }

    /// For messages: `CKM_AES_GCM by C_Encrypt`.
    pub(crate) fn describe(self) -> String {
        let hash = match self.alg {
            WrapAlgorithm::RsaOaep256 => " with SHA-256",
            WrapAlgorithm::RsaOaep => " with SHA-1",
            _ => "",
        };
        let functions = match self.via {
            Via::Cipher => "C_Encrypt and C_Decrypt",
            Via::Object => "C_WrapKey and C_UnwrapKey",
        };
        format!("{}{hash} for {functions}", self.mechanism())
    }

    /// The length of a wrapped secret.
    fn wrapped_len(self, key: &Key) -> usize {
        match (self.alg, &key.public) {
            (WrapAlgorithm::A256Kw, _) => 40,
            (WrapAlgorithm::A256GcmKw, _) => NONCE_LEN + 32 + TAG_LEN,
            (_, Some(public)) => public.n().len(),
            (_, None) => 0,
        }
    }

    pub(crate) fn wrap(
        self,
        at: Connected<'_>,
        key: &Key,
        tools: Tools<'_>,
        secret: &Secret<32>,
    ) -> Result<Vec<u8>, Fault> {
        if self.wraps_here() {
            let public = key.public.as_ref().ok_or_else(|| Fault::invalid("the key is no RSA key"))?;
            let wrapped = tools.crypto.rsa.wrap(public, secret.expose(), tools.random);
            return wrapped.map_err(|error| Fault::invalid(format!("the secret can't be wrapped: {error}")));
        }
        let handle = if key.public.is_some() { key.public_object(at)? } else { key.handle };
        let mut nonce = [0; NONCE_LEN];
        tools.random.fill(&mut nonce);
        let mut wrapped = self.with_mechanism(&nonce, |mechanism| match self.via {
            Via::Cipher => at
                .session
                .encrypt(mechanism, handle, secret.expose())
                .map_err(failed("the token did not encrypt the secret")),
            Via::Object => wrap_object(at, mechanism, handle, secret),
        })?;
        let mut value = Vec::new();
        if self.alg == WrapAlgorithm::A256GcmKw {
            value.extend_from_slice(&nonce);
        }
        // cryptoki hands out the buffer in the length that the module asked for, which may be more than it filled.
        wrapped.truncate(self.wrapped_len(key).saturating_sub(value.len()));
        value.append(&mut wrapped);
        if value.len() == self.wrapped_len(key) {
            Ok(value)
        } else {
            Err(Fault::unavailable("the token wrapped the secret to another length than the algorithm's"))
        }
    }

    /// The secret; `None` for a value that has not the length of a wrap, of which the token is not asked (Kryoptic unwraps
    /// nothing to nothing).
    pub(crate) fn unwrap(
        self,
        at: Connected<'_>,
        key: &Key,
        value: &[u8],
    ) -> Result<Option<Secret<32>>, Fault> {
        if value.len() != self.wrapped_len(key) {
            return Ok(None);
        }
        let mut nonce = [0; NONCE_LEN];
        let mut wrapped = value;
        if self.alg == WrapAlgorithm::A256GcmKw
            && let Some((first, rest)) = value.split_first_chunk::<NONCE_LEN>()
        {
            (nonce, wrapped) = (*first, rest);
        }
        self.with_mechanism(&nonce, |mechanism| match self.via {
            Via::Cipher => {
                let opened = at.session.decrypt(mechanism, key.handle, wrapped).map(Zeroizing::new);
                let opened = opened.map_err(failed("the token did not decrypt the wrapped secret"))?;
                Ok(Secret::from_slice(&opened))
            }
            Via::Object => unwrap_object(at, mechanism, key.handle, wrapped),
        })
    }

    fn with_mechanism<T>(
        self,
        nonce: &[u8; NONCE_LEN],
        work: impl FnOnce(&Mechanism<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        // The module may write to it.
        let mut nonce = *nonce;
        let oaep =
            |hash, mask| Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mask, PkcsOaepSource::empty()));
        let mechanism = match self.alg {
            WrapAlgorithm::A256Kw => Mechanism::AesKeyWrap,
            WrapAlgorithm::A256GcmKw => Mechanism::AesGcm(
                GcmParams::new(&mut nonce, &[], Ulong::new(128))
                    .map_err(failed("no parameters for AES-GCM"))?,
            ),
            WrapAlgorithm::RsaOaep => oaep(MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
            _ => oaep(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        };
        work(&mechanism)
    }
}

/// What a secret is while it is an object: of this session alone, and readable, because it is to leave the token.
fn passing() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}

fn wrap_object(
    at: Connected<'_>,
    mechanism: &Mechanism<'_>,
    handle: ObjectHandle,
    secret: &Secret<32>,
) -> Result<Vec<u8>, Fault> {
    let mut template = passing();
    template.push(Attribute::Value(secret.expose().to_vec()));
    let object = at.session.create_object(&template);
    template.iter_mut().for_each(wipe);
    let object = object.map_err(failed("the token takes no secret to wrap"))?;
    let wrapped = at.session.wrap_key(mechanism, handle, object);
    destroy(at, object)?;
    wrapped.map_err(failed("the token did not wrap the secret"))
}

fn unwrap_object(
    at: Connected<'_>,
    mechanism: &Mechanism<'_>,
    handle: ObjectHandle,
    wrapped: &[u8],
) -> Result<Option<Secret<32>>, Fault> {
    let object = at
        .session
        .unwrap_key(mechanism, handle, wrapped, &passing())
        .map_err(failed("the token did not unwrap the secret"))?;
    let read = at.session.get_attributes(object, &[AttributeType::Value]);
    destroy(at, object)?;
    let mut read = read.map_err(failed("the token does not give the unwrapped secret out"))?;
    let secret = match read.first() {
        Some(Attribute::Value(value)) => Secret::from_slice(value),
        _ => None,
    };
    read.iter_mut().for_each(wipe);
    Ok(secret)
}

/// A secret that stays on the token is a failure: the session is then closed, which destroys it.
fn destroy(at: Connected<'_>, object: ObjectHandle) -> Result<(), Fault> {
    at.session.destroy_object(object).map_err(failed("the secret can't be removed from the token"))
}

fn wipe(attribute: &mut Attribute) {
    if let Attribute::Value(value) = attribute {
        value.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha1_is_never_chosen_unless_allowed() {
        let rsa = KeyKind::Rsa { bits: 3072 };
        let uses_sha1 = |way: &Way| way.alg == WrapAlgorithm::RsaOaep;
        assert!(!Way::for_kind(&rsa, false).iter().any(uses_sha1));
        let allowed = Way::for_kind(&rsa, true);
        assert_eq!(allowed.iter().position(uses_sha1), Some(2), "after every way with SHA-256");
    }

    #[test]
    fn only_full_size_aes_wraps() {
        assert!(Way::for_kind(&KeyKind::Aes { bits: 128 }, true).is_empty());
        assert_eq!(Way::for_kind(&KeyKind::Aes { bits: 256 }, false).len(), 4);
    }
}
