//! One key: what it is, and what the identity may do with it. Each operation is tried.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bulla::StoreUrl;
use bulla::kek::SystemRandom;
use bulla_envelope::secret::Secret;
use bulla_kek::{
    DenyReason, Exposure, Identity, KekError, KekProvider, KeyDescription, KeyId, KeyUri, Scheme,
    WrapAlgorithm, remedy,
};

use super::owner;
use super::report::Report;
use crate::exit::{Kind, Result};
use crate::known::{Encryption, VaultPlace};
use crate::vaults::Key;
use crate::{open, output};

/// An end of validity that is nearer than this is told.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A key to look at.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) id: KeyId,
    pub(super) identity: Identity,
    pub(super) provider: Arc<dyn KekProvider>,
    /// As its owner would type it.
    pub(super) uri: String,
    /// The local vault it is in.
    pub(super) place: Option<VaultPlace>,
    /// Named by the user, to put a store under it.
    pub(super) planned: bool,
    /// The versions that the store needs, this one among them.
    pub(super) in_use: Vec<KeyId>,
    /// Whether the store is to follow the key's new versions.
    pub(super) follows: bool,
}

impl Subject {
    /// A key that a store is to be put under.
    pub(super) fn planned(key: Key, identity: Identity) -> Self {
        Self {
            uri: key.provider.display_uri(&key.id),
            place: key.local.map(|(_, place)| place),
            id: key.id,
            identity,
            provider: key.provider,
            planned: true,
            in_use: Vec::new(),
            follows: false,
        }
    }

    /// Everything about this key.
    pub(super) async fn check(
        &self,
        report: &mut Report<'_>,
        url: &StoreUrl,
        bound: Option<Duration>,
    ) -> Result<()> {
        let waiting = report.waiting("asking the key's provider");
        let described = self.provider.describe(&self.id, &self.identity).await;
        drop(waiting);
        match &described {
            Ok(description) => {
                let usable = self.attributes(report, description)?;
                self.protection(report, description)?;
                match description.algorithm {
                    Some(algorithm) if usable => {
                        self.operations(report, &description.key, algorithm, bound).await?;
                    }
                    _ => report.skipped("access", "such a key would be refused whoever asks")?,
                }
                if self.follows && self.id.version().is_some() {
                    self.newer(report, url).await?;
                }
            }
            Err(error) => self.refused(report, "key", error)?,
        }
        owner::check(report, self).await
    }

    /// What the provider says of it: whether it can be used as it is.
    fn attributes(&self, report: &mut Report<'_>, key: &KeyDescription) -> Result<bool> {
        let Self { uri, planned, .. } = self;
        let mut usable = true;
        let mut unusable = |report: &mut Report<'_>, what: &str, reason: DenyReason| {
            usable = false;
            let taken = matches!(reason, DenyReason::Disabled | DenyReason::OperationNotPermitted);
            let kind = if taken && !planned { Kind::Revoked } else { Kind::Invalid };
            report.problem("key", kind, format!("the key {uri} {what}"), self.remedy(reason))
        };
        if !key.enabled {
            unusable(report, "is disabled: nothing can be read", DenyReason::Disabled)?;
        }
        for operation in ["wrapKey", "unwrapKey"] {
            if key.algorithm.is_some() && !key.permits(operation) {
                let what = format!("does not permit {operation} (its key operations)");
                unusable(report, &what, DenyReason::OperationNotPermitted)?;
            }
        }
        let now = SystemTime::now();
        let until = key.expires.map(output::time).unwrap_or_default();
        if key.not_before.is_some_and(|start| now < start) {
            unusable(report, "is not valid yet: nothing can be written", DenyReason::NotYetValid)?;
        } else if key.expires.is_some_and(|end| end <= now) {
            let what = format!("expired at {until}: what is there can be read, nothing can be written");
            unusable(report, &what, DenyReason::Expired)?;
        } else if key.expires.is_some_and(|end| end.duration_since(now).is_ok_and(|left| left < SOON)) {
            report.warning(
                "key",
                format!("the key {uri} expires at {until}; from then on nothing can be written"),
                format!("make a new version and `bulla rotate`, or {}", self.remedy(DenyReason::Expired)),
            )?;
        }
        if key.algorithm.is_none() {
            report.problem(
                "key",
                Kind::Invalid,
                format!("the key {uri} is {}, which can't hold a store", key.kind),
                "use RSA of at least 2048 bits, or AES-256",
            )?;
            usable = false;
        } else if usable {
            report.ok("key", format!("{uri} is {}, enabled, valid, and may wrap and unwrap", key.kind))?;
        }
        Ok(usable)
    }

    /// What stands between the key and its loss, in the strictness of `init`: what that would refuse is a problem of a key
    /// that is to be used, and a warning of one that is.
    fn protection(&self, report: &mut Report<'_>, key: &KeyDescription) -> Result<()> {
        const CHECK: &str = "protection";
        let Self { uri, .. } = self;
        if self.place.as_ref().is_some_and(VaultPlace::is_service) {
            return report.skipped(
                CHECK,
                "the key is service-managed, and made to be destroyed when a key of yours comes",
            );
        }
        let on_token = key.key.scheme() == Scheme::Pkcs11;
        let mut sound = true;
        let mut weak = |report: &mut Report<'_>, what: String, fix: &str| {
            sound = false;
            if self.planned {
                report.problem(
                    CHECK,
                    Kind::Invalid,
                    what,
                    format!("{fix}, or accept the risk with --allow-unprotected-key"),
                )
            } else {
                report.warning(CHECK, what, fix)
            }
        };
        let protection = key.protection;
        if !(protection.soft_delete && protection.purge_protection) {
            let (what, fix) = match (on_token, protection.soft_delete) {
                (true, _) => (
                    "can be destroyed on its token (CKA_DESTROYABLE), which has no soft delete",
                    "make a key with CKA_DESTROYABLE false and rotate to it, or back this one up",
                ),
                (false, true) => (
                    "is in a vault without purge protection",
                    "turn it on (`az keyvault update --enable-purge-protection true`; a local vault: make one without \
                     --no-purge-protection and rotate)",
                ),
                (false, false) => (
                    "is in a vault without soft delete",
                    "turn it on (`az keyvault update --enable-soft-delete true`)",
                ),
            };
            weak(report, format!("the key {uri} {what}: one mistake destroys every blob"), fix)?;
        }
        match protection.exposure {
            Exposure::Never => {}
            Exposure::Now => weak(
                report,
                format!(
                    "the key {uri} can be taken out of its token (CKA_SENSITIVE, CKA_EXTRACTABLE): revoking it there revokes \
                     nothing for who did"
                ),
                "make a key that is sensitive and not extractable (`pkcs11-tool --keygen --sensitive`) and rotate to it",
            )?,
            Exposure::Before => {
                sound = false;
                report.warning(
                    CHECK,
                    format!(
                        "the key {uri} was made outside its token, or could leave it before (CKA_ALWAYS_SENSITIVE, \
                         CKA_NEVER_EXTRACTABLE)"
                    ),
                    "see that no copy is left, or make a key on the token and rotate to it",
                )?;
            }
        }
        if sound {
            report.ok(CHECK, "one mistake does not destroy it, and it can't be taken out of its holder")?;
        }
        Ok(())
    }

    /// Wraps something and unwraps it, as the identity of the nodes.
    async fn operations(
        &self,
        report: &mut Report<'_>,
        key: &KeyId,
        algorithm: WrapAlgorithm,
        bound: Option<Duration>,
    ) -> Result<()> {
        const CHECK: &str = "access";
        let secret = Secret::random(&SystemRandom);
        let waiting = report.waiting("wrapping and unwrapping");
        let wrapped = self.provider.wrap_key(key, &self.identity, algorithm, &secret).await;
        let wrapped = match wrapped {
            Ok(wrapped) => wrapped,
            Err(error) => {
                drop(waiting);
                return self.refused(report, CHECK, &error);
            }
        };
        let began = Instant::now();
        let unwrapped =
            self.provider.unwrap_key(&wrapped.key, &self.identity, wrapped.alg, &wrapped.value).await;
        let took = began.elapsed();
        drop(waiting);
        match unwrapped {
            Ok(back) if back.ct_eq(&secret) => {}
            Ok(_) => {
                return report.problem(
                    CHECK,
                    Kind::Invalid,
                    format!("the key {} does not unwrap what it wrapped", self.uri),
                    "use another key",
                );
            }
            Err(error) => return self.refused(report, CHECK, &error),
        }
        report.ok(CHECK, format!("{} may get, wrapKey and unwrapKey; each was tried", self.identity))?;
        latency(report, took, bound)
    }

    /// Whether the key has a version that the store does not use yet.
    async fn newer(&self, report: &mut Report<'_>, url: &StoreUrl) -> Result<()> {
        match self.provider.describe(&self.id.without_version(), &self.identity).await {
            Ok(newest) if !self.in_use.contains(&newest.key) => report.warning(
                "versions",
                format!("the key has a newer version, {}", self.provider.display_uri(&newest.key)),
                format!("`bulla rotate {url}`; a process that keeps the store open follows by itself within an hour"),
            ),
            // What fails here was said of the version in use, or is about one that nobody uses.
            _ => Ok(()),
        }
    }

    /// A provider's no, or its silence.
    fn refused(&self, report: &mut Report<'_>, check: &'static str, error: &KekError) -> Result<()> {
        let cant = |why: &str| format!("{} can't use {}: {why}", self.identity, self.uri);
        if let Some(reason) = error.deny_reason() {
            let (kind, fix) = match (reason, self.uri.parse::<KeyUri>()) {
                // Nothing was taken away: the name is wrong.
                (DenyReason::NotFound, Ok(key)) if self.planned => (Kind::NotFound, remedy::create(&key)),
                _ => (Kind::Revoked, self.remedy(reason)),
            };
            return report.problem(check, kind, cant(&error.to_string()), fix);
        }
        let explained = open::explain(error.clone().into(), &self.encryption());
        let (why, fix) =
            explained.message.split_once("; ").unwrap_or((&explained.message, "see to the key's provider"));
        report.problem(check, explained.kind, cant(why), fix)
    }

    fn remedy(&self, reason: DenyReason) -> String {
        match self.uri.parse() {
            Ok(key) => remedy::restore(reason, &key, self.identity.as_str()),
            Err(_) => format!("restore {} for the identity {}", self.uri, self.identity),
        }
    }

    fn encryption(&self) -> Encryption {
        Encryption {
            key_identifier: self.uri.clone(),
            versioned_key_identifier: self.uri.clone(),
            identity: self.identity.as_str().to_owned(),
            ..Encryption::unknown()
        }
    }
}

fn latency(report: &mut Report<'_>, took: Duration, bound: Option<Duration>) -> Result<()> {
    const CHECK: &str = "latency";
    let bound = bound.unwrap_or(Duration::from_secs(60));
    let shown = Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1));
    let (shown, limit) = (humantime::format_duration(shown), humantime::format_duration(bound));
    let text = format!("an unwrap takes {shown}, with a revocation bound of {limit}");
    let fix = "use a key nearer to this machine, or make the store with a longer --revocation-bound";
    match Pace::of(took, bound) {
        Pace::Fine => report.ok(CHECK, text),
        Pace::Tight => report.warning(CHECK, format!("{text}: a few slow answers end the lease"), fix),
        Pace::TooSlow => {
            let text = format!("{text}: the lease ends before it is renewed");
            report.problem(CHECK, Kind::Unavailable, text, fix)
        }
    }
}

/// How the time that an unwrap takes fits the revocation bound R.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Fine,
    /// Five in a row fill the half of R that there is for a renewal.
    Tight,
    /// A lease is renewed from R/2 on, so an answer that takes as long comes too late.
    TooSlow,
}

impl Pace {
    fn of(took: Duration, bound: Duration) -> Self {
        if took >= bound / 2 {
            Self::TooSlow
        } else if took >= bound / 10 {
            Self::Tight
        } else {
            Self::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unwrap_must_be_much_shorter_than_half_of_the_bound() {
        let bound = Duration::from_secs(60);
        for (seconds, pace) in
            [(0, Pace::Fine), (5, Pace::Fine), (6, Pace::Tight), (29, Pace::Tight), (30, Pace::TooSlow)]
        {
            assert_eq!(Pace::of(Duration::from_secs(seconds), bound), pace, "{seconds} s");
        }
    }
}
