//! Who may.

use super::{Hooked, InUse, Outcome, Suite, expect_denied, expect_kind, hook};
use crate::error::{DenyReason, KekErrorKind};
use crate::identity::Identity;

impl Suite<'_> {
    pub(super) async fn forbidden(&self) -> Outcome {
        let key = self.in_use().await?;
        hook!(self.fixture.remove_access(&key.test));
        expect_denied("unwrap_key without access", self.unwrap(&key).await, DenyReason::Forbidden)?;
        expect_denied("wrap_key without access", self.wrap(&key).await, DenyReason::Forbidden)?;
        let description = self.provider.describe(&key.test.key, &key.test.identity).await;
        expect_denied("describe without access", description, DenyReason::Forbidden)?;
        hook!(self.fixture.grant_access(&key.test));
        self.works(&key).await.map_err(|error| format!("with access again, {error}"))?;
        Ok(Hooked::Done)
    }

    pub(super) async fn stranger(&self) -> Outcome {
        let key = self.in_use().await?;
        // Where access is not by identity (a PIN opens all of a token), there are no strangers.
        if self.fixture.remove_access(&key.test).await.map_err(|error| error.to_string())?
            == Hooked::NotSupported
        {
            return Ok(Hooked::NotSupported);
        }
        hook!(self.fixture.grant_access(&key.test));
        let InUse { test, versioned, alg, wrapped, .. } = &key;
        let stranger = Identity::User("11111111-2222-3333-4444-555555555555".into());
        if test.identity == stranger {
            return Err("the fixture's identity is the suite's stranger".into());
        }
        let result = self.provider.unwrap_key(versioned, &stranger, *alg, &wrapped.value).await;
        expect_kind("unwrap_key by a stranger", result, |kind| {
            matches!(kind, KekErrorKind::Denied(DenyReason::Forbidden | DenyReason::IdentityUnknown))
        })?;
        self.works(&key).await?;
        Ok(Hooked::Done)
    }
}
