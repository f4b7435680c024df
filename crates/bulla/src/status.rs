//! What an operator or auditor asks about a store's encryption.

use std::time::SystemTime;

use bulla_envelope::derive::Anchor;
use bulla_envelope::ids::{StoreId, StoreKeyId};
use bulla_envelope::record::{KekState, LogRecord, Managed, Mode, StoreKeyState};
use bulla_kek::{KeyDescription, KeyId, LeaseState, Scheme};

use crate::error::Result;
use crate::gate::{FollowedVersions, KeyFailure, KeyReport};
use crate::log::RecordMark;
use crate::party::{self, Party};
use crate::rotate::holders;
use crate::store::{Store, StoreInner};

/// The encryption of a store, as the newest log record says that this process authenticated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The store's id.
    pub store: StoreId,
    /// The fingerprint to pin.
    pub anchor: Anchor,
    /// The newest log record.
    pub log: RecordMark,
    /// When the log was read.
    pub read: SystemTime,
    /// What wraps DEKs.
    pub mode: Mode,
    /// Whose the KEK is.
    pub managed: Managed,
    /// As whom the KEK is used.
    pub identity: String,
    /// The KEK as configured, as its owner would type it.
    pub key: String,
    /// The KEK version in use, as its owner would type it.
    pub versioned_key: String,
    /// Whether the configured id has no version, so that the key's new versions are followed.
    pub follows_versions: bool,
    /// How far that is.
    pub versions: FollowedVersions,
    /// The second party, whose KEK is needed as well; the fields above are the first party's.
    pub second: Option<PartyStatus>,
    /// Every KEK version that opens the store, with whether new wraps are made under it.
    pub keks: Vec<(KeyId, bool)>,
    /// Every store key, with its state.
    pub store_keys: Vec<(StoreKeyId, StoreKeyState)>,
    /// When the store was made.
    pub created: SystemTime,
    /// When the KEK was last rotated.
    pub rotated: Option<SystemTime>,
    /// R, in milliseconds.
    pub revocation_bound_ms: u64,
    /// Whether the key can be used right now, and what there is to say of it.
    pub key_report: KeyReport,
    /// The KEK as its provider last described it.
    pub kek: Option<KeyDescription>,
    /// What deserves attention, one sentence each.
    pub warnings: Vec<String>,
}

/// The second party of a store, as [`Status`] has the first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartyStatus {
    /// As whom its KEK is used.
    pub identity: String,
    /// Its KEK as configured, as its owner would type it.
    pub key: String,
    /// Its KEK version in use, as its owner would type it.
    pub versioned_key: String,
    /// Whether the configured id has no version, so that the key's new versions are followed.
    pub follows_versions: bool,
    /// How far that is.
    pub versions: FollowedVersions,
    /// Its KEK as its provider last described it.
    pub kek: Option<KeyDescription>,
}

impl Store {
    /// The encryption of the store, from the log as it is now.
    ///
    /// # Errors
    /// `Revoked`, `Unavailable`, `Throttled` where the key can't be used or the bucket not be reached: see
    /// [`Store::last_status`]. `Corrupt` where the log is damaged.
    pub async fn status(&self) -> Result<Status> {
        self.inner().gate.refresh(self.inner()).await?;
        Ok(self.last_status())
    }

    /// The encryption of the store as this process authenticated it last, as of [`Status::read`]. Asks nobody, and so
    /// answers while the key is revoked, too: [`Status::key_report`] says that it is.
    #[must_use]
    pub fn last_status(&self) -> Status {
        self.inner().last_status()
    }
}

impl StoreInner {
    fn last_status(&self) -> Status {
        let (raw, read) = self.gate.known();
        // It authenticated: nothing else becomes the gate's newest.
        let record = raw.unverified.hint();
        let shown = |text: &str| match text.parse::<KeyId>() {
            Ok(key) => match self.parts.providers.provider_for(&key) {
                Ok(provider) => provider.display_uri(&key),
                Err(_) => text.to_owned(),
            },
            Err(_) => text.to_owned(),
        };
        let party = |party: Party| {
            let (identity, key) = party::texts(record, party.index())?;
            let is_active = |kid: &KeyId| {
                let kid = kid.to_string();
                record.keks.iter().any(|kek| kek.kid == kid && kek.state == KekState::Active)
            };
            let in_use = holders(record, party.index()).into_iter().find(is_active);
            Some(PartyStatus {
                identity: identity.to_owned(),
                key: shown(key),
                versioned_key: in_use.map(|key| shown(&key.to_string())).unwrap_or_default(),
                follows_versions: key.parse::<KeyId>().is_ok_and(|key| key.version().is_none()),
                versions: self.gate.versions(party),
                kek: self.gate.kek(party),
            })
        };
        let second = party(Party::Second);
        let first = party(Party::First).expect("a store has a first party");
        Status {
            store: self.store_id,
            anchor: self.anchor,
            log: raw.mark,
            read: read.wall,
            mode: record.mode,
            managed: record.managed,
            warnings: self.warnings(record, &first, second.as_ref()),
            identity: first.identity,
            key: first.key,
            versioned_key: first.versioned_key,
            follows_versions: first.follows_versions,
            versions: first.versions,
            second,
            keks: record
                .keks
                .iter()
                .filter_map(|kek| Some((kek.kid.parse().ok()?, kek.state == KekState::Active)))
                .collect(),
            store_keys: record.store_keys.iter().map(|key| (key.id, key.state)).collect(),
            created: at(record.created),
            rotated: record.rotated.map(at),
            revocation_bound_ms: record.revocation_bound_ms,
            key_report: self.gate.report(self),
            kek: first.kek,
        }
    }

    fn warnings(&self, record: &LogRecord, first: &PartyStatus, second: Option<&PartyStatus>) -> Vec<String> {
        let mut warnings = Vec::new();
        let now = self.parts.runtime.now().wall;
        let report = self.gate.report(self);
        match (report.state, report.last_failure) {
            (LeaseState::Live { outage_since: None, .. } | LeaseState::Expired, _) | (_, None) => {}
            (LeaseState::Live { .. }, Some(KeyFailure { message, .. })) => {
                warnings.push(format!("the lease is not renewed, and goes on only until its end: {message}"));
            }
            (_, Some(KeyFailure { message, .. })) => warnings.push(format!("nothing can be read: {message}")),
        }
        let expired = |party: &PartyStatus| {
            party.kek.as_ref().is_some_and(|kek| kek.expires.is_some_and(|expires| expires <= now))
        };
        if expired(first) {
            warnings
                .push("the KEK has expired: it still opens the store; rotate to a valid version".to_owned());
        }
        if second.is_some_and(expired) {
            warnings.push(
                "the KEK of the second party has expired: it still opens the store; rotate to a valid version (`bulla \
                 rotate STORE --party second`)"
                    .to_owned(),
            );
        }
        if let (Ok(first), Ok(second)) = (party::key_id(record, 0), party::key_id(record, 1))
            && (first.scheme(), first.host()) == (second.scheme(), second.host())
        {
            let holder = if first.scheme() == Scheme::Pkcs11 { "on one token" } else { "in one vault" };
            warnings.push(format!(
                "the keys of both parties are {holder}, whose owner alone can use both; keep them with different owners"
            ));
        }
        let is_behind = |party: Party| is_behind(record, party.index());
        if record.roots.iter().any(|root| root.groups.len() > 1) || Party::ALL.into_iter().any(is_behind) {
            warnings.push("a rotation was interrupted; run it again to finish it".to_owned());
        } else if record.keks.iter().any(|kek| kek.state == KekState::Retiring) {
            warnings.push(
                "blobs may still need an earlier KEK version: keep it enabled until `bulla rotate STORE`, run again, has \
                 finished its sweep"
                    .to_owned(),
            );
        }
        for party in [Some(first), second].into_iter().flatten().filter(|party| party.follows_versions) {
            if let FollowedVersions { newer, failure: Some(failure), .. } = &party.versions {
                let newer = newer.as_ref().map(|newer| format!(", {newer},")).unwrap_or_default();
                warnings.push(format!("the key's newer version{newer} is not taken: {failure}"));
            }
        }
        if record.store_keys.iter().any(|key| key.state == StoreKeyState::Retiring) {
            warnings.push("a rewrap is not finished; `bulla rewrap STORE` goes on with it".to_owned());
        }
        if record.managed == Managed::Service {
            warnings.push(
                "the KEK is service-managed: rotate to a key of your own to be able to revoke it; old copies of the \
                 bucket together with a stolen service KEK would open what was there then"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// Whether a party holds its share by another key than is configured: a rotation of its key was interrupted, and the other
/// party rotated after that.
fn is_behind(record: &LogRecord, party: usize) -> bool {
    let Ok(configured) = party::key_id(record, party) else { return false };
    let is_configured = |holder: &KeyId| match configured.version() {
        Some(_) => *holder == configured,
        None => holder.same_key(&configured),
    };
    !holders(record, party).iter().all(is_configured)
}

fn at(unix_millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(unix_millis)
}
