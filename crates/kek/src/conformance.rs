//! The suite that every [`KekProvider`] passes.
//!
//! A provider's tests implement [`Fixture`] over a real key holder and call [`run`]. What matters most is that errors
//! are told apart: the engine wipes its secrets at a refusal, so a damaged wrap must never look like one, and
//! a refusal never like damage.
//!
//! ```
//! # use bulla_kek::conformance::{self, Failure, Fixture};
//! # async fn check(my_fixture: &dyn Fixture) -> Result<(), Failure> {
//! let report = conformance::run(my_fixture).await?;
//! assert!(report.skipped.is_empty(), "{report}");
//! # Ok(())
//! # }
//! ```

mod access;
mod data;
mod lifecycle;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bulla_envelope::random::RandomSource;
use bulla_envelope::secret::Secret;

use crate::error::{DenyReason, KekError, KekErrorKind};
use crate::identity::Identity;
use crate::key_id::KeyId;
use crate::provider::{KekProvider, KeyDescription, WrapAlgorithm, WrappedKey};
use crate::tokio_runtime::SystemRandom;

/// A failed preparation: not the provider's fault, but the suite can't go on.
pub type FixtureError = Box<dyn Error + Send + Sync>;

/// A key made for one check, and who may use it.
#[derive(Debug, Clone)]
pub struct TestKey {
    /// Without a version.
    pub key: KeyId,
    /// May get, wrap and unwrap.
    pub identity: Identity,
}

/// What became of a preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a hook is there or it is not")]
pub enum Hooked {
    /// It has taken effect: the next request sees it.
    Done,
    /// This key holder has no such thing; the check is skipped and reported.
    NotSupported,
}

/// What the suite needs done to keys behind the provider's back.
///
/// Every hook returns once its effect can be seen by the provider. Those left out are "not supported".
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The provider under test.
    fn provider(&self) -> Arc<dyn KekProvider>;

    /// A new, enabled key of one version, and an identity with full access to it.
    async fn fresh_key(&self) -> Result<TestKey, FixtureError>;

    /// Where secrets to wrap come from.
    fn random(&self) -> &dyn RandomSource {
        &SystemRandom
    }

    /// Gives the key a new version.
    async fn new_version(&self, _key: &TestKey) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Disables the key in its newest version.
    async fn disable(&self, _key: &TestKey) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Undoes [`disable`](Self::disable).
    async fn enable(&self, _key: &TestKey) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Deletes the key so that it can be recovered.
    async fn delete(&self, _key: &TestKey) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Undoes [`delete`](Self::delete).
    async fn recover(&self, _key: &TestKey) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Takes all access from the identity.
    async fn remove_access(&self, _key: &TestKey) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Undoes [`remove_access`](Self::remove_access).
    async fn grant_access(&self, _key: &TestKey) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Puts the key's end of validity into the past.
    async fn expire(&self, _key: &TestKey) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Puts the key's start of validity into the future.
    async fn postpone(&self, _key: &TestKey) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Takes the key holder out of the provider's reach.
    async fn cut_off(&self) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }

    /// Undoes [`cut_off`](Self::cut_off).
    async fn reconnect(&self) -> Result<Hooked, FixtureError> {
        Ok(Hooked::NotSupported)
    }
}

/// What was checked.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// Checks that passed.
    pub passed: Vec<&'static str>,
    /// Checks that this key holder has no means for.
    pub skipped: Vec<&'static str>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checks passed", self.passed.len())?;
        self.skipped.iter().try_for_each(|check| write!(f, "\nSKIPPED (not supported): {check}"))
    }
}

/// A check that failed.
#[derive(Debug, thiserror::Error)]
#[error("{check}: {what}")]
#[non_exhaustive]
pub struct Failure {
    /// Which.
    pub check: &'static str,
    /// What happened instead.
    pub what: String,
}

/// Runs every check.
///
/// # Errors
/// At the first one that fails.
pub async fn run(fixture: &dyn Fixture) -> Result<Report, Failure> {
    let suite = Suite { fixture, provider: fixture.provider() };
    let mut report = Report::default();
    macro_rules! check {
        ($($name:literal: $check:ident;)*) => {$(
            match suite.$check().await {
                Ok(Hooked::Done) => report.passed.push($name),
                Ok(Hooked::NotSupported) => report.skipped.push($name),
                Err(what) => return Err(Failure { check: $name, what }),
            }
        )*};
    }
    check! {
        "accepts its own keys and no others": accepts;
        "what is wrapped unwraps": round_trip;
        "RSA1_5 is refused by name": weak_padding;
        "a damaged wrap is invalid, not a verdict on the key": tampered_wrap;
        "another key's wrap is invalid": foreign_wrap;
        "an algorithm the key is not for is invalid": wrong_algorithm;
        "wrapping and unwrapping need a version": versionless_use;
        "without a version the newest is described": newest_version;
        "another version's wrap is invalid": wrong_version;
        "a version or key that never was is not found": missing;
        "a disabled key does not unwrap, and does again when enabled": disabled;
        "a deleted key does nothing, and does again when recovered": deleted;
        "no access, no use; access restored, use restored": forbidden;
        "a stranger has no access": stranger;
        "an expired key unwraps and does not wrap": expired;
        "a key that is not valid yet unwraps and does not wrap": not_yet_valid;
        "out of reach is unavailable, not refused": unreachable;
    }
    Ok(report)
}

/// What a check comes to; the error says what happened instead.
type Outcome = Result<Hooked, String>;

struct Suite<'a> {
    fixture: &'a dyn Fixture,
    provider: Arc<dyn KekProvider>,
}

/// A key in use: described, and with a secret wrapped for it.
struct InUse {
    test: TestKey,
    versioned: KeyId,
    alg: WrapAlgorithm,
    secret: Secret<32>,
    wrapped: WrappedKey,
}

/// Leaves the check unless the hook did something.
macro_rules! hook {
    ($hook:expr) => {
        match $hook.await {
            Ok(Hooked::Done) => {}
            Ok(Hooked::NotSupported) => return Ok(Hooked::NotSupported),
            Err(error) => return Err(format!("the fixture's {} failed: {error}", stringify!($hook))),
        }
    };
}
use hook;

impl Suite<'_> {
    async fn fresh_key(&self) -> Result<TestKey, String> {
        self.fixture.fresh_key().await.map_err(|error| format!("the fixture's fresh_key failed: {error}"))
    }

    /// A fresh key with a secret wrapped for it.
    async fn in_use(&self) -> Result<InUse, String> {
        let test = self.fresh_key().await?;
        let description = self.describe(&test.key, &test.identity).await?;
        let versioned = description.key.clone();
        let alg = description
            .algorithm
            .ok_or_else(|| format!("a {} key wraps nothing; the fixture needs another", description.kind))?;
        let secret = Secret::random(self.fixture.random());
        let wrapped = self
            .provider
            .wrap_key(&versioned, &test.identity, alg, &secret)
            .await
            .map_err(|error| format!("wrap_key: {}", chain(&error)))?;
        Ok(InUse { test, versioned, alg, secret, wrapped })
    }

    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, String> {
        self.provider
            .describe(key, identity)
            .await
            .map_err(|error| format!("describe({key}): {}", chain(&error)))
    }

    async fn wrap(&self, key: &InUse) -> Result<WrappedKey, KekError> {
        self.provider.wrap_key(&key.versioned, &key.test.identity, key.alg, &key.secret).await
    }

    async fn unwrap(&self, key: &InUse) -> Result<Secret<32>, KekError> {
        self.provider.unwrap_key(&key.versioned, &key.test.identity, key.alg, &key.wrapped.value).await
    }

    /// The key does what it is for: it wraps, and opens what was wrapped before.
    async fn works(&self, key: &InUse) -> Result<(), String> {
        let secret = self.unwrap(key).await.map_err(|error| format!("unwrap_key: {}", chain(&error)))?;
        self.wrap(key).await.map_err(|error| format!("wrap_key: {}", chain(&error)))?;
        if secret.ct_eq(&key.secret) { Ok(()) } else { Err("another secret came back".into()) }
    }
}

/// The call failed with one of these kinds.
fn expect_kind<T>(
    call: &str,
    result: Result<T, KekError>,
    wanted: impl Fn(KekErrorKind) -> bool,
) -> Result<(), String> {
    match result {
        Ok(_) => Err(format!("{call} succeeded")),
        Err(error) if wanted(error.kind()) => Ok(()),
        Err(error) => Err(format!("{call} failed as {:?}: {}", error.kind(), chain(&error))),
    }
}

fn expect_invalid<T>(call: &str, result: Result<T, KekError>) -> Result<(), String> {
    expect_kind(call, result, |kind| kind == KekErrorKind::Invalid)
}

fn expect_denied<T>(call: &str, result: Result<T, KekError>, reason: DenyReason) -> Result<(), String> {
    expect_kind(call, result, |kind| kind == KekErrorKind::Denied(reason))
}

/// An error with what caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
