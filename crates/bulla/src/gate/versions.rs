//! A key id without a version follows the key's new versions by itself.
//!
//! Once per interval a renewal's `describe` asks for the key without a version, so that it costs no call more. Where the
//! answer is a version that is not in use and is fit to hold the store, the keeper starts an ordinary rotation to it.
//! Nodes that see it at the same time are put in order by the log, as with any two rotations.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bulla_envelope::record::{KekState, LogRecord, Managed};
use bulla_kek::{KekError, KeyDescription, KeyId, Now};

use super::{Gate, State};
use crate::engine::Parts;
use crate::error::Result;
use crate::party::{self, Party};
use crate::preflight::{self, Requirements};
use crate::rotate::{RotateOptions, holders};
use crate::store::{Store, StoreInner};
use crate::unlock::Unlocked;

/// How a key id without a version is followed; see [`EngineBuilder::follow_versions_every`](crate::EngineBuilder::follow_versions_every).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Whether an event told of the failure.
    told: bool,
    /// A record in the middle of a rotation to this key, and since when this node sees it as the newest.
    in_the_middle: Option<(u64, Now)>,
    /// A rotation to `newer` is due, from this record on.
    wanted: Option<u64>,
    /// One is under way.
    rotating: bool,
}

impl Versions {
    /// Whether the next renewal asks for the newest version: if it did not, the one after it would be late.
    pub(super) fn is_due(&self, parts: &Parts, bound: Duration, now: Now) -> bool {
        let every = parts.follow_versions_every;
        let waited = |asked: &Now| now.since(asked).saturating_add(bound / 2) >= every;
        every != Duration::MAX && self.asked.as_ref().is_none_or(waited)
    }

    /// What a renewal heard of the newest version of a party's key, by `keys` that are as fresh.
    pub(super) fn heard(
        &mut self,
        parts: &Parts,
        keys: &Unlocked,
        party: Party,
        newest: Result<KeyDescription, KekError>,
        in_use: Option<&KeyDescription>,
        now: Now,
    ) {
        self.asked = Some(keys.sent);
        self.wanted = None;
        self.failure = None;
        self.newer = None;
        let record = &keys.view.record;
        match newest {
            Ok(newest) => match news(record, party, &newest.key) {
                News::None => self.in_the_middle = None,
                News::InTheMiddle if !self.stands_still(keys, now) => {
                    // Asked again at once: it is finished then, or whoever began it is gone.
                    self.asked = None;
                }
                News::InTheMiddle | News::Newer => {
                    match check(parts, record, in_use, &newest, now) {
                        Ok(()) => self.wanted = Some(record.number),
                        Err(failure) => self.failed(failure),
                    }
                    self.newer = Some(newest);
                }
            },
            Err(error) => self.failed(format!("the newest version can't be asked for: {error}")),
        }
    }

    /// Whether the rotation in the middle has not moved for R, by the clock of this node.
    fn stands_still(&mut self, keys: &Unlocked, now: Now) -> bool {
        let record = &keys.view.record;
        let since = match self.in_the_middle {
            Some((number, since)) if number == record.number => since,
            _ => now,
        };
        self.in_the_middle = Some((record.number, since));
        now.since(&since) >= Duration::from_millis(record.revocation_bound_ms)
    }

    fn failed(&mut self, failure: String) {
        self.failure = Some(failure);
        self.told = false;
    }

    pub(super) fn report(&self) -> FollowedVersions {
        FollowedVersions {
            asked: self.asked.map(|asked| asked.wall),
            newer: self.newer.as_ref().map(|newer| newer.key.clone()),
            failure: self.failure.clone(),
        }
    }
}

/// How the newest version and the log are to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    /// The log is where it should be, or it is not ours to bring it there.
    None,
    /// A rotation to a version of this key is under way, or was interrupted.
    InTheMiddle,
    /// The log is to be brought to the newest version.
    Newer,
}

fn news(record: &LogRecord, party: Party, newest: &KeyId) -> News {
    let followed = newest.without_version();
    if party::key_id(record, party.index()).ok().as_ref() != Some(&followed) {
        return News::None;
    }
    // What holds the root, and not what the log still names; but of the other party that says nothing.
    let retiring = party::count(record) == 1 && record.keks.iter().any(|kek| kek.state == KekState::Retiring);
    match holders(record, party.index()).as_slice() {
        // In direct mode a sweep follows, which whoever began it may have left unfinished.
        [only] if only == newest && retiring => News::InTheMiddle,
        [only] if only == newest => News::None,
        [_] => News::Newer,
        several => {
            let is_active = |kid: &KeyId| {
                let kid = kid.to_string();
                record.keks.iter().any(|kek| kek.kid == kid && kek.state == KekState::Active)
            };
            // One to another key is left to whoever began it.
            let to_this_key = |kid: &&KeyId| is_active(kid) && kid.without_version() == followed;
            if several.iter().any(|kid| to_this_key(&kid)) { News::InTheMiddle } else { News::None }
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

impl Gate {
    /// One event for each failure. Not under the gate's lock: a subscriber may ask the store something.
    pub(super) fn tell_of_versions(&self, store: &StoreInner) {
        let untold: Vec<String> = self.with(store, |state, _| {
            let told = |versions: &mut Versions| std::mem::replace(&mut versions.told, true);
            let versions = state.versions.iter_mut();
            versions
                .filter_map(|versions| if told(versions) { None } else { versions.failure.clone() })
                .collect()
        });
        for failure in untold {
            tracing::warn!(store = %store.store_id, %failure, "the key's newest version is not followed");
        }
    }
}

impl State {
    /// The record from which on a rotation of a party's key is to be started now; whoever asks starts it.
    pub(super) fn take_rotation(&mut self) -> Option<(Party, u64)> {
        if self.versions.iter().any(|versions| versions.rotating) {
            return None;
        }
        let (party, versions) =
            Party::ALL.into_iter().zip(&mut self.versions).find(|(_, versions)| versions.wanted.is_some())?;
        let wanted = versions.wanted.take()?;
        versions.rotating = true;
        Some((party, wanted))
    }

    /// What was heard of each party's key.
    pub(super) fn heard(&mut self, parts: &Parts, keys: &mut Unlocked, now: Now) {
        let parties = keys.described.len();
        self.keks.resize(parties, None);
        self.versions.resize_with(parties, Versions::default);
        for (number, party) in Party::ALL.into_iter().enumerate().take(parties) {
            // Where there was no answer now, what was said of the same key before still holds.
            let known = self.keks[number].take().filter(|kek| keys.opened_by[number] == kek.key.to_string());
            self.keks[number] = keys.described[number].in_use.clone().or(known);
            if let Some(newest) = keys.described[number].newest.take() {
                self.versions[number].heard(parts, keys, party, newest, self.keks[number].as_ref(), now);
            }
        }
    }
}

/// Rotates to the newest version. A task of its own: renewals go on meanwhile.
pub(super) async fn follow(store: Arc<StoreInner>, party: Party, from: u64) {
    let followed = rotate(&store, party, from).await;
    store.gate.with(&store, |state, _| {
        let Some(versions) = state.versions.get_mut(party.index()) else { return };
        versions.rotating = false;
        match followed {
            Ok(()) => {
                versions.newer = None;
                versions.failure = None;
            }
            Err(error) => versions.failed(error.to_string()),
        }
    });
    // The keeper tells it.
    store.gate.changed.notify_one();
}

async fn rotate(store: &Arc<StoreInner>, party: Party, from: u64) -> Result<()> {
    // Nodes that were started together heard of it together.
    let (bound, mut byte) = (store.gate.revocation_bound(), [0]);
    store.parts.runtime.random().fill(&mut byte);
    let longest = (bound / 8).min(Duration::from_secs(1));
    store.parts.runtime.sleep(longest.mul_f64(f64::from(byte[0]) / 256.0)).await;
    let keys = store.gate.refresh(store).await?;
    let (newer, in_use) = store.gate.with(store, |state, _| {
        let newer = state.versions.get(party.index()).and_then(|versions| versions.newer.clone());
        (newer, state.keks.get(party.index()).cloned().flatten())
    });
    // Another node may have been faster.
    let record = &keys.view.record;
    match newer.map(|newer| news(record, party, &newer.key)) {
        Some(News::Newer) => {}
        Some(News::InTheMiddle) if record.number == from => {}
        _ => return Ok(()),
    }
    let allow_unprotected_key = !is_protected(in_use.as_ref());
    let options = RotateOptions { party, allow_unprotected_key, ..RotateOptions::default() };
    let rotation = Store::from_inner(Arc::clone(store)).rotate(options).await?;
    if rotation.changed {
        tracing::info!(store = %store.store_id, to = %rotation.to, "rotated to the key's newer version");
    }
    Ok(())
}
