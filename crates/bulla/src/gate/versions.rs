//! A key id without a version follows the key's new versions by itself.
//!
//! Once per interval a renewal's `describe` asks for the key without a version, so that it costs no call more. Where the
//! answer is a version that is not in use and is fit to hold the store, the keeper starts an ordinary rotation to it.
//! Nodes that see it at the same time are put in order by the log, as with any two rotations.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bulla_envelope::record::{KekState, LogRecord, Managed};
use bulla_kek::{KekError, KeyDescription, KeyId, Now};

use super::State;
use crate::engine::Parts;
use crate::envelopes::age;
use crate::error::Result;
use crate::preflight::{self, Requirements};
use crate::rotate::RotateOptions;
use crate::store::{Store, StoreInner};
use crate::unlock::Unlocked;

/// How a key id without a version is followed; see [`EngineBuilder::follow_versions_every`](crate::EngineBuilder::follow_versions_every).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FollowedVersions {
    /// When the provider was last asked for the newest version.
    pub asked: Option<SystemTime>,
    /// The version that it named, where that is not the one in use.
    pub newer: Option<KeyId>,
    /// Why that one is not taken, or was not when it was last tried. It is tried again at the next interval.
    pub failure: Option<String>,
}

/// What a store knows of its key's versions.
#[derive(Debug, Default)]
pub(super) struct Versions {
    asked: Option<Now>,
    newer: Option<KeyDescription>,
    failure: Option<String>,
    /// A rotation to `newer` is due.
    wanted: bool,
    /// It is under way.
    rotating: bool,
}

impl Versions {
    /// Whether the next renewal asks for the newest version: if it did not, the one after it would be late.
    pub(super) fn is_due(&self, parts: &Parts, bound: Duration, now: Now) -> bool {
        let every = parts.follow_versions_every;
        let waited = |asked: &Now| age(&now, asked).saturating_add(bound / 2) >= every;
        every != Duration::MAX && self.asked.as_ref().is_none_or(waited)
    }

    /// What a renewal heard of the newest version, by `keys` that are as fresh.
    pub(super) fn heard(
        &mut self,
        parts: &Parts,
        keys: &Unlocked,
        newest: Result<KeyDescription, KekError>,
        in_use: Option<&KeyDescription>,
        now: Now,
    ) {
        self.asked = Some(keys.sent);
        self.wanted = false;
        self.failure = None;
        let record = &keys.view.record;
        match newest {
            Ok(newest) if is_news(record, &newest.key, now) => {
                match check(parts, record, in_use, &newest, now) {
                    Ok(()) => self.wanted = true,
                    Err(failure) => self.failed(&newest.key, failure),
                }
                self.newer = Some(newest);
            }
            Ok(_) => self.newer = None,
            Err(error) => {
                self.newer = None;
                self.failure = Some(format!("the newest version can't be asked for: {error}"));
            }
        }
    }

    fn failed(&mut self, newer: &KeyId, failure: String) {
        tracing::warn!(key = %newer, %failure, "the key's newer version is not taken");
        self.failure = Some(failure);
    }

    pub(super) fn report(&self) -> FollowedVersions {
        FollowedVersions {
            asked: self.asked.map(|asked| asked.wall),
            newer: self.newer.as_ref().map(|newer| newer.key.clone()),
            failure: self.failure.clone(),
        }
    }
}

/// Whether the log should be brought to `newest`: it is not in use alone. Where a rotation is in the middle, it is finished
/// only if it was to this key and whoever began it has not moved for R: else somebody is at it, or it is not ours to end.
fn is_news(record: &LogRecord, newest: &KeyId, now: Now) -> bool {
    match record.keks.as_slice() {
        [only] => only.kid != newest.to_string(),
        several => {
            let active = several.iter().find(|kek| kek.state == KekState::Active);
            let to_this_key = active
                .and_then(|kek| kek.kid.parse::<KeyId>().ok())
                .is_some_and(|active| active.without_version() == newest.without_version());
            let bound = u128::from(record.revocation_bound_ms);
            to_this_key && u128::from(now.unix_ms().saturating_sub(record.written)) >= bound
        }
    }
}

/// Whether a version may be taken, as preflight would say it, but of a description that is there already.
fn check(
    parts: &Parts,
    record: &LogRecord,
    in_use: Option<&KeyDescription>,
    newest: &KeyDescription,
    now: Now,
) -> Result<(), String> {
    let older = in_use.is_some_and(|used| {
        used.key != newest.key
            && matches!((used.created, newest.created), (Some(used), Some(newest)) if newest < used)
    });
    if older {
        return Err("the provider names a version as the newest that is older than the one in use".to_owned());
    }
    let uri = match parts.providers.provider_for(&newest.key) {
        Ok(provider) => provider.display_uri(&newest.key),
        Err(error) => return Err(error.to_string()),
    };
    let protection = record.managed == Managed::Customer && is_protected(in_use);
    match preflight::check(newest, &uri, now.wall, Requirements { protection }) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// A vault without protection was accepted when the store was put under it; then its new versions are as well.
fn is_protected(in_use: Option<&KeyDescription>) -> bool {
    in_use.is_none_or(|kek| kek.protection.soft_delete && kek.protection.purge_protection)
}

impl State {
    /// Whether a rotation is to be started now; whoever asks starts it.
    pub(super) fn take_rotation(&mut self) -> bool {
        let start = self.versions.wanted && !self.versions.rotating;
        if start {
            self.versions.wanted = false;
            self.versions.rotating = true;
        }
        start
    }
}

/// Rotates to the newest version. A task of its own: renewals go on meanwhile.
pub(super) async fn follow(store: Arc<StoreInner>) {
    let followed = rotate(&store).await;
    store.gate.with(&store, |state, _| {
        state.versions.rotating = false;
        match followed {
            Ok(()) => {
                state.versions.newer = None;
                state.versions.failure = None;
            }
            Err(error) => {
                if let Some(newer) = state.versions.newer.as_ref().map(|newer| newer.key.clone()) {
                    state.versions.failed(&newer, error.to_string());
                }
            }
        }
    });
}

async fn rotate(store: &Arc<StoreInner>) -> Result<()> {
    // Nodes that were started together heard of it together.
    let (bound, mut byte) = (store.gate.revocation_bound(), [0]);
    store.parts.runtime.random().fill(&mut byte);
    let longest = (bound / 8).min(Duration::from_secs(1));
    store.parts.runtime.sleep(longest.mul_f64(f64::from(byte[0]) / 256.0)).await;
    let keys = store.gate.refresh(store).await?;
    let (newer, in_use) =
        store.gate.with(store, |state, _| (state.versions.newer.clone(), state.kek.clone()));
    let now = store.parts.runtime.now();
    if !newer.is_some_and(|newer| is_news(&keys.view.record, &newer.key, now)) {
        return Ok(());
    }
    let options =
        RotateOptions { allow_unprotected_key: !is_protected(in_use.as_ref()), ..RotateOptions::default() };
    let rotation = Store::from_inner(Arc::clone(store)).rotate(options).await?;
    if rotation.changed {
        tracing::info!(store = %store.store_id, to = %rotation.to, "rotated to the key's newer version");
    }
    Ok(())
}
