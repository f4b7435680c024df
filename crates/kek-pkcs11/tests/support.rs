//! What the tests of this crate share beside tokens.

use std::sync::Arc;

use bulla_envelope::secret::Secret;
use bulla_kek::{
    Identity, KekError, KekProvider, KeyDescription, KeyId, SystemRandom, TokioRuntime, WrappedKey,
};
use bulla_kek_pkcs11::{PinSource, Pkcs11Options, Pkcs11Provider, UserPin};

use crate::token::{LABEL, PIN, Token};

pub(crate) fn options(token: &Token) -> Pkcs11Options {
    Pkcs11Options::new(&token.module, LABEL, PinSource::value(UserPin::new(PIN.into())))
}

pub(crate) fn provider(options: Pkcs11Options) -> Arc<Pkcs11Provider> {
    Arc::new(Pkcs11Provider::new(options, Arc::new(TokioRuntime)))
}

pub(crate) fn key(name: &str) -> KeyId {
    KeyId::pkcs11(LABEL, name, None).unwrap()
}

pub(crate) async fn describe(provider: &Pkcs11Provider, name: &str) -> Result<KeyDescription, KekError> {
    provider.describe(&key(name), &Identity::System).await
}

/// A secret wrapped for a key.
pub(crate) struct Wrapped {
    pub(crate) secret: Secret<32>,
    pub(crate) wrapped: WrappedKey,
}

pub(crate) async fn wrap(provider: &Pkcs11Provider, name: &str) -> Result<Wrapped, KekError> {
    let description = describe(provider, name).await?;
    let secret = Secret::random(&SystemRandom);
    let alg = description.algorithm.unwrap();
    let wrapped = provider.wrap_key(&description.key, &Identity::System, alg, &secret).await?;
    Ok(Wrapped { secret, wrapped })
}

impl Wrapped {
    /// `Ok` if the very secret comes back.
    pub(crate) async fn unwrap(&self, provider: &Pkcs11Provider) -> Result<(), KekError> {
        let WrappedKey { key, alg, value } = &self.wrapped;
        let back = provider.unwrap_key(key, &Identity::System, *alg, value).await?;
        assert!(back.ct_eq(&self.secret), "another secret came back");
        Ok(())
    }
}
