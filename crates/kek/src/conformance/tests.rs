//! The suite itself: a right provider passes, and each wrong one fails at the check that is for it.

use std::sync::{Mutex, MutexGuard};

use bulla_envelope::keywrap;

use super::*;
use crate::key_id::Scheme;
use crate::provider::{KeyKind, Protection};

/// What a provider can get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    AcceptsAll,
    DamageIsDenial,
    DamageIsOutage,
    OneKeyForAll,
    FirstIsNewest,
    VersionsIgnored,
    MissingIsOutage,
    DisabledUnwraps,
    DeletedIsMissing,
    AccessIsNotChecked,
    ExpiredWraps,
    ExpiredDoesNotUnwrap,
    OutageIsDenial,
}

#[derive(Debug, Default)]
struct Keys {
    keys: Vec<Key>,
    unreachable: bool,
}

#[derive(Debug)]
struct Key {
    name: String,
    versions: Vec<Secret<32>>,
    disabled: bool,
    deleted: bool,
    forbidden: bool,
    validity: Option<DenyReason>,
}

#[derive(Debug)]
struct Memory {
    flaw: Flaw,
    keys: Mutex<Keys>,
}

impl Memory {
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap()
    }

    fn change(&self, key: &TestKey, change: impl FnOnce(&mut Key)) -> Result<Hooked, FixtureError> {
        change(self.keys().keys.iter_mut().find(|one| one.name == key.key.name()).unwrap());
        Ok(Hooked::Done)
    }

    /// Position and version of the key, if the identity may use it.
    fn find(&self, id: &KeyId, identity: &Identity) -> Result<(usize, usize), KekError> {
        let keys = self.keys();
        if keys.unreachable {
            return Err(match self.flaw {
                Flaw::OutageIsDenial => KekError::denied(DenyReason::NotFound),
                _ => KekError::unavailable("out of reach"),
            });
        }
        let position = keys.keys.iter().position(|key| key.name == id.name());
        let forbidden = *identity != Identity::System || position.is_some_and(|at| keys.keys[at].forbidden);
        if forbidden && self.flaw != Flaw::AccessIsNotChecked {
            return Err(KekError::denied(DenyReason::Forbidden));
        }
        let missing = || match self.flaw {
            Flaw::MissingIsOutage => KekError::unavailable("404"),
            _ => KekError::denied(DenyReason::NotFound),
        };
        let position = position.ok_or_else(missing)?;
        let key = &keys.keys[position];
        if key.deleted {
            let reason =
                if self.flaw == Flaw::DeletedIsMissing { DenyReason::NotFound } else { DenyReason::Deleted };
            return Err(KekError::denied(reason));
        }
        let version = match id.version() {
            Some(version) => {
                version.strip_prefix('v').and_then(|number| number.parse().ok()).ok_or_else(missing)?
            }
            None if self.flaw == Flaw::FirstIsNewest => 0,
            None => key.versions.len() - 1,
        };
        if version < key.versions.len() { Ok((position, version)) } else { Err(missing()) }
    }

    fn invalid(&self) -> KekError {
        match self.flaw {
            Flaw::DamageIsDenial => KekError::denied(DenyReason::Forbidden),
            Flaw::DamageIsOutage => KekError::unavailable("500"),
            _ => KekError::invalid("not a wrap for this key"),
        }
    }

    /// Which of the keys does the work.
    fn material(&self, (position, version): (usize, usize)) -> (usize, usize) {
        match self.flaw {
            Flaw::OneKeyForAll => (0, 0),
            Flaw::VersionsIgnored => (position, 0),
            _ => (position, version),
        }
    }
}

#[async_trait]
impl KekProvider for Memory {
    fn accepts(&self, key: &KeyId) -> bool {
        self.flaw == Flaw::AcceptsAll || (key.scheme() == Scheme::KeyVault && key.host() == "memory")
    }

    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, KekError> {
        let (position, version) = self.find(key, identity)?;
        let there = &self.keys().keys[position];
        let validity = |reason| (there.validity == Some(reason)).then_some(std::time::UNIX_EPOCH);
        Ok(KeyDescription {
            key: key.with_version(&format!("v{version}")).unwrap(),
            kind: KeyKind::Aes { bits: 256 },
            algorithm: Some(WrapAlgorithm::A256Kw),
            enabled: !there.disabled,
            not_before: validity(DenyReason::NotYetValid),
            expires: validity(DenyReason::Expired),
            operations: vec!["wrapKey".into(), "unwrapKey".into()],
            protection: Protection::default(),
            created: None,
        })
    }

    async fn wrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError> {
        let found = self.find(key, identity)?;
        let keys = self.keys();
        match keys.keys[found.0].validity {
            Some(reason) if self.flaw != Flaw::ExpiredWraps => return Err(KekError::denied(reason)),
            _ if alg != WrapAlgorithm::A256Kw || key.version().is_none() => return Err(self.invalid()),
            _ => {}
        }
        let (position, version) = self.material(found);
        let value = keywrap::wrap_key(keys.keys[position].versions[version].expose(), secret.expose());
        Ok(WrappedKey { key: key.clone(), alg, value: value.to_vec() })
    }

    async fn unwrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError> {
        let found = self.find(key, identity)?;
        let keys = self.keys();
        let there = &keys.keys[found.0];
        if there.disabled && self.flaw != Flaw::DisabledUnwraps {
            return Err(KekError::denied(DenyReason::Disabled));
        }
        if let (Some(reason), Flaw::ExpiredDoesNotUnwrap) = (there.validity, self.flaw) {
            return Err(KekError::denied(reason));
        }
        if alg != WrapAlgorithm::A256Kw || key.version().is_none() {
            return Err(self.invalid());
        }
        let (position, version) = self.material(found);
        keywrap::unwrap_key(keys.keys[position].versions[version].expose(), value).map_err(|_| self.invalid())
    }
}

struct MemoryFixture(Arc<Memory>);

impl MemoryFixture {
    fn new(flaw: Flaw) -> Self {
        Self(Arc::new(Memory { flaw, keys: Mutex::default() }))
    }
}

#[async_trait]
impl Fixture for MemoryFixture {
    fn provider(&self) -> Arc<dyn KekProvider> {
        self.0.clone()
    }

    async fn fresh_key(&self) -> Result<TestKey, FixtureError> {
        let mut keys = self.0.keys();
        let name = format!("key-{}", keys.keys.len());
        let versions = vec![Secret::random(&SystemRandom)];
        let key = KeyId::key_vault("memory", &name, None)?;
        keys.keys.push(Key {
            name,
            versions,
            disabled: false,
            deleted: false,
            forbidden: false,
            validity: None,
        });
        Ok(TestKey { key, identity: Identity::System })
    }

    async fn new_version(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.0.change(key, |key| key.versions.push(Secret::random(&SystemRandom)))
    }

    async fn disable(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.0.change(key, |key| key.disabled = true)
    }

    async fn enable(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.0.change(key, |key| key.disabled = false)
    }

    async fn delete(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.0.change(key, |key| key.deleted = true)
    }

    async fn recover(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.0.change(key, |key| key.deleted = false)
    }

    async fn remove_access(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.0.change(key, |key| key.forbidden = true)
    }

    async fn grant_access(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.0.change(key, |key| key.forbidden = false)
    }

    async fn expire(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.0.change(key, |key| key.validity = Some(DenyReason::Expired))
    }

    async fn postpone(&self, key: &TestKey) -> Result<Hooked, FixtureError> {
        self.0.change(key, |key| key.validity = Some(DenyReason::NotYetValid))
    }

    async fn cut_off(&self) -> Result<Hooked, FixtureError> {
        self.0.keys().unreachable = true;
        Ok(Hooked::Done)
    }

    async fn reconnect(&self) -> Result<Hooked, FixtureError> {
        self.0.keys().unreachable = false;
        Ok(Hooked::Done)
    }
}

#[tokio::test]
async fn a_right_provider_passes_everything() {
    let report = run(&MemoryFixture::new(Flaw::None)).await.unwrap();
    assert!(report.skipped.is_empty(), "{report}");
    assert_eq!(report.passed.len(), 17);
}

#[tokio::test]
async fn each_flaw_is_found_by_the_check_for_it() {
    for (flaw, check) in [
        (Flaw::AcceptsAll, "accepts its own"),
        (Flaw::DamageIsDenial, "a damaged wrap"),
        (Flaw::DamageIsOutage, "a damaged wrap"),
        (Flaw::OneKeyForAll, "another key's wrap"),
        (Flaw::FirstIsNewest, "without a version"),
        (Flaw::VersionsIgnored, "another version's wrap"),
        (Flaw::MissingIsOutage, "never was"),
        (Flaw::DisabledUnwraps, "a disabled key"),
        (Flaw::DeletedIsMissing, "a deleted key"),
        (Flaw::AccessIsNotChecked, "no access, no use"),
        (Flaw::ExpiredWraps, "an expired key"),
        (Flaw::ExpiredDoesNotUnwrap, "an expired key"),
        (Flaw::OutageIsDenial, "out of reach"),
    ] {
        let failure = run(&MemoryFixture::new(flaw)).await.unwrap_err();
        assert!(failure.check.contains(check), "{flaw:?} was found by: {failure}");
    }
}

/// All hooks at their defaults.
struct Bare(MemoryFixture);

#[async_trait]
impl Fixture for Bare {
    fn provider(&self) -> Arc<dyn KekProvider> {
        self.0.provider()
    }

    async fn fresh_key(&self) -> Result<TestKey, FixtureError> {
        self.0.fresh_key().await
    }
}

#[tokio::test]
async fn what_a_key_holder_does_not_have_is_reported_as_skipped() {
    let report = run(&Bare(MemoryFixture::new(Flaw::None))).await.unwrap();
    assert_eq!((report.passed.len(), report.skipped.len()), (8, 9), "{report}");
    assert!(report.to_string().contains("SKIPPED"));
}
