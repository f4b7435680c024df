//! Disabled, deleted, out of validity, out of reach: and back.

use super::{Hooked, Outcome, Suite, expect_denied, expect_kind, hook};
use crate::error::{DenyReason, KekErrorKind};

impl Suite<'_> {
    pub(super) async fn disabled(&self) -> Outcome {
        let key = self.in_use().await?;
        hook!(self.fixture.disable(&key.test));
        expect_denied("unwrap_key with a disabled key", self.unwrap(&key).await, DenyReason::Disabled)?;
        // Whether a disabled key wraps differs between key holders; nothing relies on it.
        match self.provider.describe(&key.versioned, &key.test.identity).await {
            Ok(description) if description.enabled => {
                return Err("the disabled key is described as enabled".into());
            }
            Ok(_) => {}
            Err(error) => {
                expect_denied("describe of a disabled key", Err::<(), _>(error), DenyReason::Disabled)?
            }
        }
        hook!(self.fixture.enable(&key.test));
        self.works(&key).await.map_err(|error| format!("enabled again, {error}"))?;
        Ok(Hooked::Done)
    }

    pub(super) async fn deleted(&self) -> Outcome {
        let key = self.in_use().await?;
        hook!(self.fixture.delete(&key.test));
        let identity = &key.test.identity;
        expect_denied("unwrap_key with a deleted key", self.unwrap(&key).await, DenyReason::Deleted)?;
        expect_denied("wrap_key with a deleted key", self.wrap(&key).await, DenyReason::Deleted)?;
        for id in [&key.versioned, &key.test.key] {
            let description = self.provider.describe(id, identity).await;
            expect_denied(&format!("describe({id}), deleted"), description, DenyReason::Deleted)?;
        }
        hook!(self.fixture.recover(&key.test));
        self.works(&key).await.map_err(|error| format!("recovered, {error}"))?;
        Ok(Hooked::Done)
    }

    pub(super) async fn expired(&self) -> Outcome {
        let key = self.in_use().await?;
        hook!(self.fixture.expire(&key.test));
        expect_denied("wrap_key with an expired key", self.wrap(&key).await, DenyReason::Expired)?;
        self.unwrap(&key).await.map_err(|error| format!("unwrap_key with an expired key: {error}"))?;
        let description = self.describe(&key.test.key, &key.test.identity).await?;
        if description.expires.is_none() {
            return Err("the expired key is described without an end".into());
        }
        Ok(Hooked::Done)
    }

    pub(super) async fn not_yet_valid(&self) -> Outcome {
        let key = self.in_use().await?;
        hook!(self.fixture.postpone(&key.test));
        expect_denied("wrap_key before validity", self.wrap(&key).await, DenyReason::NotYetValid)?;
        self.unwrap(&key).await.map_err(|error| format!("unwrap_key before validity: {error}"))?;
        let description = self.describe(&key.test.key, &key.test.identity).await?;
        if description.not_before.is_none() {
            return Err("the key is described without a start".into());
        }
        Ok(Hooked::Done)
    }

    pub(super) async fn unreachable(&self) -> Outcome {
        let key = self.in_use().await?;
        hook!(self.fixture.cut_off());
        let outage = |kind| matches!(kind, KekErrorKind::Unavailable | KekErrorKind::Throttled);
        expect_kind("unwrap_key out of reach", self.unwrap(&key).await, outage)?;
        expect_kind("wrap_key out of reach", self.wrap(&key).await, outage)?;
        let description = self.provider.describe(&key.test.key, &key.test.identity).await;
        expect_kind("describe out of reach", description, outage)?;
        hook!(self.fixture.reconnect());
        self.works(&key).await.map_err(|error| format!("in reach again, {error}"))?;
        Ok(Hooked::Done)
    }
}
