//! What goes in comes out, and nothing else comes out.

use bulla_envelope::secret::Secret;

use super::{Hooked, Outcome, Suite, expect_denied, expect_invalid, hook};
use crate::error::DenyReason;
use crate::key_id::KeyId;
use crate::provider::{UnknownAlgorithm, WrapAlgorithm};

impl Suite<'_> {
    pub(super) async fn accepts(&self) -> Outcome {
        let own = self.fresh_key().await?.key;
        if !self.provider.accepts(&own) {
            return Err(format!("{own} was not accepted"));
        }
        let strangers = [
            KeyId::key_vault("elsewhere.invalid", own.name(), None),
            KeyId::vault("7777777777777777777777777y", "elsewhere", None),
            KeyId::pkcs11("elsewhere", own.name(), None),
        ];
        for stranger in strangers.into_iter().flatten() {
            if self.provider.accepts(&stranger) {
                return Err(format!("{stranger} was accepted"));
            }
        }
        Ok(Hooked::Done)
    }

    pub(super) async fn round_trip(&self) -> Outcome {
        let key = self.in_use().await?;
        if key.wrapped.key != key.versioned || key.wrapped.alg != key.alg {
            return Err(format!("asked for {} and got {}", key.versioned, key.wrapped.key));
        }
        if key.wrapped.value.windows(32).any(|window| window == key.secret.expose()) {
            return Err("the secret is in the wrap".into());
        }
        self.works(&key).await?;

        let again = self.describe(&key.versioned, &key.test.identity).await?;
        if again.key != key.versioned || !again.enabled {
            return Err(format!("the key in use is described as {again:?}"));
        }
        for operation in ["wrapKey", "unwrapKey"] {
            if !again.permits(operation) {
                return Err(format!("{operation} works and is not among {:?}", again.operations));
            }
        }
        Ok(Hooked::Done)
    }

    pub(super) async fn weak_padding(&self) -> Outcome {
        match "RSA1_5".parse::<WrapAlgorithm>() {
            Err(UnknownAlgorithm::Rsa15) => Ok(Hooked::Done),
            other => Err(format!("RSA1_5 was read as {other:?}")),
        }
    }

    pub(super) async fn tampered_wrap(&self) -> Outcome {
        let key = self.in_use().await?;
        let whole = &key.wrapped.value;
        let mut damaged: Vec<Vec<u8>> = vec![Vec::new(), vec![0; whole.len()], vec![0xff; whole.len()]];
        for position in [0, whole.len() / 2, whole.len().saturating_sub(1)] {
            let mut flipped = whole.clone();
            if let Some(byte) = flipped.get_mut(position) {
                *byte ^= 1;
            }
            damaged.push(flipped);
        }
        damaged.push(whole.split_last().map_or_else(Vec::new, |(_, most)| most.to_vec()));
        damaged.push([whole.as_slice(), &[0]].concat());
        for value in damaged {
            let result = self.provider.unwrap_key(&key.versioned, &key.test.identity, key.alg, &value).await;
            expect_invalid("unwrap_key of a damaged wrap", result)?;
        }
        self.works(&key).await.map_err(|error| format!("afterwards, {error}"))?;
        Ok(Hooked::Done)
    }

    pub(super) async fn foreign_wrap(&self) -> Outcome {
        let (ours, theirs) = (self.in_use().await?, self.in_use().await?);
        let result = self
            .provider
            .unwrap_key(&ours.versioned, &ours.test.identity, ours.alg, &theirs.wrapped.value)
            .await;
        expect_invalid("unwrap_key of another key's wrap", result)?;
        self.works(&ours).await?;
        Ok(Hooked::Done)
    }

    pub(super) async fn wrong_algorithm(&self) -> Outcome {
        let key = self.in_use().await?;
        let other = match key.alg {
            WrapAlgorithm::RsaOaep256 | WrapAlgorithm::RsaOaep => WrapAlgorithm::A256Kw,
            WrapAlgorithm::A256Kw | WrapAlgorithm::A256GcmKw => WrapAlgorithm::RsaOaep256,
        };
        let wrap = self.provider.wrap_key(&key.versioned, &key.test.identity, other, &key.secret).await;
        expect_invalid("wrap_key with another algorithm", wrap)?;
        let value = &key.wrapped.value;
        let unwrap = self.provider.unwrap_key(&key.versioned, &key.test.identity, other, value).await;
        expect_invalid("unwrap_key with another algorithm", unwrap)?;
        Ok(Hooked::Done)
    }

    pub(super) async fn versionless_use(&self) -> Outcome {
        let key = self.in_use().await?;
        let (id, identity) = (&key.test.key, &key.test.identity);
        let wrap = self.provider.wrap_key(id, identity, key.alg, &key.secret).await;
        expect_invalid("wrap_key without a version", wrap)?;
        let unwrap = self.provider.unwrap_key(id, identity, key.alg, &key.wrapped.value).await;
        expect_invalid("unwrap_key without a version", unwrap)?;
        Ok(Hooked::Done)
    }

    pub(super) async fn newest_version(&self) -> Outcome {
        let key = self.in_use().await?;
        hook!(self.fixture.new_version(&key.test));
        let newest = self.describe(&key.test.key, &key.test.identity).await?;
        if newest.key == key.versioned || !newest.key.same_key(&key.versioned) {
            return Err(format!("after {} came {}", key.versioned, newest.key));
        }
        let older = self.describe(&key.versioned, &key.test.identity).await?;
        if older.key != key.versioned {
            return Err(format!("{} is described as {}", key.versioned, older.key));
        }
        self.works(&key).await.map_err(|error| format!("the older version: {error}"))?;
        Ok(Hooked::Done)
    }

    pub(super) async fn wrong_version(&self) -> Outcome {
        let key = self.in_use().await?;
        hook!(self.fixture.new_version(&key.test));
        let newest = self.describe(&key.test.key, &key.test.identity).await?.key;
        let result = self.provider.unwrap_key(&newest, &key.test.identity, key.alg, &key.wrapped.value).await;
        expect_invalid("unwrap_key of an older version's wrap", result)?;
        Ok(Hooked::Done)
    }

    pub(super) async fn missing(&self) -> Outcome {
        let key = self.in_use().await?;
        let identity = &key.test.identity;
        let number: String =
            Secret::<16>::random(self.fixture.random()).expose().iter().map(|b| format!("{b:02x}")).collect();
        let version = key.versioned.with_version(&number).map_err(|error| error.to_string())?;
        let name = same_place(&key.test.key, &format!("never-{number}"))?;
        for missing in [&version, &name] {
            let description = self.provider.describe(missing, identity).await;
            expect_denied(&format!("describe({missing})"), description, DenyReason::NotFound)?;
        }
        let versioned_name = name.with_version(&number).map_err(|error| error.to_string())?;
        for missing in [&version, &versioned_name] {
            let wrap = self.provider.wrap_key(missing, identity, key.alg, &key.secret).await;
            expect_denied(&format!("wrap_key({missing})"), wrap, DenyReason::NotFound)?;
            let unwrap = self.provider.unwrap_key(missing, identity, key.alg, &key.wrapped.value).await;
            expect_denied(&format!("unwrap_key({missing})"), unwrap, DenyReason::NotFound)?;
        }
        self.works(&key).await.map_err(|error| format!("afterwards, {error}"))?;
        Ok(Hooked::Done)
    }
}

/// A key of another name in the same place.
fn same_place(key: &KeyId, name: &str) -> Result<KeyId, String> {
    use crate::key_id::Scheme;
    match key.scheme() {
        Scheme::KeyVault => KeyId::key_vault(key.host(), name, None),
        Scheme::Vault => KeyId::vault(key.host(), name, None),
        Scheme::Pkcs11 => KeyId::pkcs11(key.host(), name, None),
    }
    .map_err(|error| error.to_string())
}
