//! Which way wraps for a key: what the token offers, the key permits and a trial proves.

use std::sync::PoisonError;

use bulla_envelope::secret::Secret;
use bulla_kek::{DenyReason, KekError, KeyKind, WrapAlgorithm};

use crate::fault::Fault;
use crate::key::{Key, Use};
use crate::provider::Shared;
use crate::token::Connected;
use crate::way::Way;

/// A way that was seen to work for a key, and the modulus it was seen with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proven {
    way: Way,
    modulus: Option<Vec<u8>>,
}

impl Shared {
    /// The algorithm for a key, and what the key may do with it.
    pub(crate) fn choose(
        &self,
        at: Connected<'_>,
        key: &Key,
    ) -> Result<(Option<WrapAlgorithm>, Vec<Use>), Fault> {
        let ways = Way::for_kind(&key.kind, self.options.allow_oaep_sha1);
        if ways.is_empty() {
            return Ok((None, Vec::new()));
        }
        if key.always_authenticate() {
            return Err(Fault::invalid(format!(
                "{} wants the PIN at every use (CKA_ALWAYS_AUTHENTICATE), and nobody is there to give it; make a key without",
                key.id
            )));
        }
        let (mut missing, mut barred, mut tried) = (Vec::new(), Vec::new(), false);
        for way in ways {
            if !way.is_offered(at) {
                missing.push(format!("{} is missing", way.describe()));
                continue;
            }
            let uses: Vec<Use> =
                [Use::Wrap, Use::Unwrap].into_iter().filter(|usage| way.is_permitted(key, *usage)).collect();
            if uses.len() < 2 {
                barred.push((way.alg, uses));
                continue;
            }
            tried = true;
            match self.prove(at, key, way) {
                Ok(()) => return Ok((Some(way.alg), uses)),
                Err(fault) => {
                    let why = chain(&fault.into_verdict());
                    missing.push(format!("{} does not work ({why})", way.describe()));
                }
            }
        }
        // Where a way failed that the key permits, permission for another is not what is missing.
        match barred.into_iter().rev().max_by_key(|(_, uses)| uses.len()) {
            Some((alg, uses)) if !tried => Ok((Some(alg), uses)),
            _ => Err(Fault::Doubtful(KekError::invalid(self.nothing_fits(key, &missing)))),
        }
    }

    fn nothing_fits(&self, key: &Key, missing: &[String]) -> String {
        let fix = match key.kind {
            KeyKind::Rsa { .. } if !self.options.allow_oaep_sha1 => {
                "use an AES-256 key, a token with RSA-OAEP and SHA-256, or allow SHA-1 (BULLA_PKCS11_ALLOW_OAEP_SHA1=1)"
            }
            KeyKind::Rsa { .. } => "use an AES-256 key, or another token",
            _ => "use an RSA key, or another token",
        };
        format!(
            "the token {} can't wrap with {} ({}): {}; {fix}",
            self.token.label(),
            key.id,
            key.kind,
            missing.join(", ")
        )
    }

    /// Sees to it that what is wrapped this way unwraps again: once per process and key, so that no public key is
    /// believed that the private one does not answer to.
    pub(crate) fn prove(&self, at: Connected<'_>, key: &Key, way: Way) -> Result<(), Fault> {
        let proof = Proven { way, modulus: key.public.as_ref().map(|public| public.n().to_vec()) };
        let proven = || self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven().get(&key.id) == Some(&proof) {
            return Ok(());
        }
        self.round_trip(at, key, way)?;
        proven().insert(key.id.clone(), proof);
        Ok(())
    }

    pub(crate) fn round_trip(&self, at: Connected<'_>, key: &Key, way: Way) -> Result<(), Fault> {
        let secret = Secret::random(self.runtime.random());
        let value = way.wrap(at, key, self.tools(), &secret)?;
        match way.unwrap(at, key, &value)? {
            Some(back) if back.ct_eq(&secret) => Ok(()),
            _ => Err(Fault::unavailable("the token does not unwrap what was wrapped for the key")),
        }
    }

    /// The ways of an algorithm that this key and token have for a use.
    pub(crate) fn ways(
        &self,
        at: Connected<'_>,
        key: &Key,
        alg: WrapAlgorithm,
        usage: Use,
    ) -> Result<Vec<Way>, Fault> {
        if alg == WrapAlgorithm::RsaOaep && !self.options.allow_oaep_sha1 {
            return Err(Fault::invalid(
                "RSA-OAEP with SHA-1 is not allowed here; allow it (BULLA_PKCS11_ALLOW_OAEP_SHA1=1), or rotate to an AES \
                 key",
            ));
        }
        let mut ways = Way::for_kind(&key.kind, true);
        ways.retain(|way| way.alg == alg);
        if ways.is_empty() {
            return Err(Fault::invalid(format!("{alg} is not for a key of this type ({})", key.kind)));
        }
        let mechanisms: Vec<String> = ways.iter().map(|way| way.describe()).collect();
        ways.retain(|way| way.is_offered(at));
        if ways.is_empty() {
            return Err(Fault::unavailable(format!(
                "the token {} has no mechanism for {alg} now; enable {} in its configuration",
                self.token.label(),
                mechanisms.join(" or ")
            )));
        }
        ways.retain(|way| way.is_permitted(key, usage));
        if ways.is_empty() {
            let why = match usage {
                _ if key.always_authenticate() => "wants the PIN at every use (CKA_ALWAYS_AUTHENTICATE)",
                Use::Wrap => "may not wrap (CKA_ENCRYPT, CKA_WRAP, CKA_ALLOWED_MECHANISMS)",
                Use::Unwrap => "may not unwrap (CKA_DECRYPT, CKA_UNWRAP, CKA_ALLOWED_MECHANISMS)",
            };
            return Err(Fault::denied(DenyReason::OperationNotPermitted, format!("{} {why}", key.id)));
        }
        Ok(ways)
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
