//! Making a store and opening one.

use std::sync::Arc;
use std::time::Duration;

use bulla_envelope::derive::Anchor;
use bulla_envelope::envelope::Wrap;
use bulla_envelope::ids::{RootId, StoreId, StoreKeyId};
use bulla_envelope::record::{
    KekEntry, KekState, LogRecord, Managed, Mode, PartyEntry, RootEntry, RootState, StoreKeyEntry,
    StoreKeyState,
};
use bulla_envelope::secret::{RecordKey, Root, Secret, StoreKey};
use bulla_kek::{Identity, KeyDescription, KeyId, Now, WrapAlgorithm};
use quick_cache::sync::Cache;

use crate::bucket::Bucket;
use crate::engine::{Engine, Parts};
use crate::error::{Error, ErrorKind, Result};
use crate::events::Action;
use crate::gate::Gate;
use crate::horizon::HorizonCache;
use crate::log::{self, Append, RawRecord, RecordMark};
use crate::party::PartyKey;
use crate::preflight::{self, Requirements};
use crate::store::{Store, StoreInner};
use crate::unlock::{Describe, Expected, unlock};

/// The shortest and longest revocation bound a store may have.
const BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);

/// How a store is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// What wraps data keys. In direct mode the KEK sees every blob: an unwrap for each that is read and not cached, and
    /// rotation wraps every data key again.
    pub mode: Mode,
    /// The KEK. Without a version the store starts under its newest, and follows newer ones by itself.
    pub key: KeyId,
    /// As whom the nodes use it.
    pub identity: Identity,
    /// Whose the KEK is.
    pub managed: Managed,
    /// R: unwrapped secrets are used no longer than this after the last successful unwrap. 60 s is usual; 100 ms to 24 h.
    pub revocation_bound: Duration,
    /// Accept a customer's vault without soft delete or purge protection, and a key that can be taken out of its token.
    pub allow_unprotected_key: bool,
    /// A second party, whose KEK is needed as well: the store opens under both KEKs, and either one's owner closes it by
    /// taking his away. In hierarchical mode, and under customers' KEKs, which differ.
    pub second: Option<PartyKey>,
}

/// Whom to believe about which store this is.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_enums, reason = "an opener knows the anchor or does not")]
pub enum Trust {
    /// The anchor that `init` printed: anything else is refused.
    Anchor(Anchor),
    /// Whatever is there now. Bucket and public key together don't tell a store from a forgery.
    OnFirstUse,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Whom to believe about which store this is.
    pub trust: Trust,
    /// The newest record seen before, which must be in the log: no going back.
    pub floor: Option<RecordMark>,
}

impl Engine {
    /// Makes a store in an empty place and opens it. Pin its [`Store::anchor`] wherever it will be opened.
    ///
    /// # Errors
    /// `Invalid` where the key fails a check (with the command that fixes it) or the object store ignores conditional
    /// writes; `Conflict` where there is a store already; `Revoked`, `Unavailable`, `Throttled` as everywhere.
    ///
    /// # Cancel safety
    /// A dropped `create` may or may not have made the store; open it to find out.
    pub async fn create(&self, bucket: Bucket, options: CreateOptions) -> Result<Store> {
        let parts = self.parts_of_a_store();
        let started = parts.runtime.now();
        let created = self.try_create(&parts, bucket, options).await;
        self.audited(Action::Create, started, &parts, created).await
    }

    async fn try_create(&self, parts: &Arc<Parts>, bucket: Bucket, options: CreateOptions) -> Result<Store> {
        let random = parts.runtime.random();
        check_options(&options)?;
        if log::exists(&bucket).await? {
            return Err(already_a_store());
        }
        let described = self.describe(&options).await?;
        self.probe(&bucket).await?;
        let root = Root::random(random);
        let shares = root.split(described.len(), random);
        let group = self.wrap(described, shares, &options).await?;
        let record = self.first_record(&options, &root, group);
        let object = sign(&record, &root.record_key())?;
        match log::append(&bucket, record.number, object).await? {
            Append::Done(mark) => {
                let options = OpenOptions { trust: Trust::Anchor(root.anchor()), floor: Some(mark) };
                let read_started = parts.runtime.now();
                let newest = log::read_newest(&bucket, options.floor).await?;
                self.unlock(parts, bucket, newest, read_started, options).await
            }
            Append::Lost => Err(already_a_store()),
        }
    }

    /// Checks the options and the key as [`create`](Self::create) would, a wrap and its unwrap included, and makes nothing.
    ///
    /// # Errors
    /// As `create`, without what is the object store's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn check(&self, options: &CreateOptions) -> Result<()> {
        check_options(options)?;
        let described = self.describe(options).await?;
        let shares = described.iter().map(|_| Secret::random(self.parts.runtime.random())).collect();
        self.wrap(described, shares, options).await?;
        Ok(())
    }

    /// What each party's KEK is, and what to wrap with.
    async fn describe(&self, options: &CreateOptions) -> Result<Vec<(KeyDescription, WrapAlgorithm)>> {
        let requirements = Requirements {
            protection: options.managed == Managed::Customer && !options.allow_unprotected_key,
        };
        let (providers, runtime) = (&self.parts.providers, &*self.parts.runtime);
        let keys = options
            .parties()
            .map(|(key, identity)| preflight::describe(providers, runtime, key, identity, requirements));
        let described = futures::future::try_join_all(keys).await?;
        if let [(first, _), (second, _)] = &*described
            && first.key.same_key(&second.key)
        {
            return Err(Error::invalid(
                "both parties have the same key, so that its owner alone could open the store; give the second one its own",
            ));
        }
        Ok(described)
    }

    /// Wraps a share for each party, and proves it.
    async fn wrap(
        &self,
        described: Vec<(KeyDescription, WrapAlgorithm)>,
        shares: Vec<Secret<32>>,
        options: &CreateOptions,
    ) -> Result<Vec<Wrap>> {
        let providers = &self.parts.providers;
        let wraps = described.iter().zip(shares).zip(options.parties()).map(
            |(((description, algorithm), share), (_, identity))| {
                preflight::wrap_and_prove(providers, &description.key, *algorithm, identity, share)
            },
        );
        futures::future::try_join_all(wraps).await
    }

    /// Opens a store.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Corrupt` where it is not the store of the pinned anchor, was rolled back, or its
    /// log is damaged; `Revoked` where the key denies; `Invalid` where no configured provider has the key or the object
    /// store ignores conditional writes; `Unavailable`, `Throttled` as everywhere.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open(&self, bucket: Bucket, options: OpenOptions) -> Result<Store> {
        let parts = self.parts_of_a_store();
        let started = parts.runtime.now();
        let opened = self.try_open(&parts, bucket, options).await;
        self.audited(Action::Open, started, &parts, opened).await
    }

    async fn try_open(&self, parts: &Arc<Parts>, bucket: Bucket, options: OpenOptions) -> Result<Store> {
        let read_started = self.parts.runtime.now();
        // First what is cheap and says whether there is a store here at all.
        let newest = log::read_newest(&bucket, options.floor).await?;
        self.probe(&bucket).await?;
        let mark = newest.mark;
        let opened = self.unlock(parts, bucket.clone(), newest, read_started, options).await;
        match opened {
            // Another node may have rotated to another key meanwhile.
            Err(error) if error.kind() == ErrorKind::Revoked => {
                let read_started = self.parts.runtime.now();
                match log::read_after(&bucket, mark).await? {
                    Some(newer) => self.unlock(parts, bucket, newer, read_started, options).await,
                    None => Err(error),
                }
            }
            opened => opened,
        }
    }

    async fn unlock(
        &self,
        parts: &Arc<Parts>,
        bucket: Bucket,
        raw: RawRecord,
        read_started: Now,
        options: OpenOptions,
    ) -> Result<Store> {
        let anchor = match options.trust {
            Trust::Anchor(anchor) => Some(anchor),
            Trust::OnFirstUse => None,
        };
        let expected = Expected { anchor, floor: options.floor };
        let sent = parts.runtime.now();
        let describe = match parts.follow_versions_every {
            Duration::MAX => Describe::InUse,
            _ => Describe::Newest { known: &[] },
        };
        let keys = unlock(&parts.providers, &raw, expected, read_started, sent, describe).await?;
        parts.events.set_store(keys.store());
        let inner = StoreInner {
            parts: Arc::clone(parts),
            bucket,
            cache: Cache::new(parts.cached_envelopes),
            horizon: HorizonCache::default(),
            store_id: keys.store(),
            mode: keys.view.record.mode,
            anchor: keys.root.anchor(),
            gate: Gate::new(parts, keys, raw),
        };
        let inner = Arc::new(inner);
        Gate::start(&inner);
        Ok(Store::from_inner(inner))
    }

    async fn probe(&self, bucket: &Bucket) -> Result<()> {
        let mut nonce = [0; 16];
        self.parts.runtime.random().fill(&mut nonce);
        Ok(bucket.probe(nonce).await?)
    }

    fn first_record(&self, options: &CreateOptions, root: &Root, group: Vec<Wrap>) -> LogRecord {
        let random = self.parts.runtime.random();
        let now = self.parts.runtime.now().unix_ms();
        let root_id = RootId::random(random);
        let store_key = StoreKey::random(random);
        LogRecord {
            number: 1,
            history: Vec::new(),
            store: StoreId::random(random),
            mode: options.mode,
            revocation_bound_ms: u64::try_from(options.revocation_bound.as_millis()).unwrap_or(u64::MAX),
            identity: options.identity.to_string(),
            key_id: options.key.to_string(),
            keks: group.iter().map(|wrap| active_kek(wrap, now)).collect(),
            roots: vec![RootEntry {
                id: root_id,
                state: RootState::Active,
                groups: vec![group],
                parent: None,
            }],
            store_keys: vec![StoreKeyEntry {
                id: StoreKeyId::random(random),
                state: StoreKeyState::Active,
                root: root_id,
                value: root.store_key_wrapping_key().wrap_key(store_key.expose()),
                since: now,
            }],
            created: now,
            rotated: None,
            managed: options.managed,
            written: now,
            other_parties: options.second.iter().map(party_entry).collect(),
        }
    }
}

impl CreateOptions {
    fn parties(&self) -> impl Iterator<Item = (&KeyId, &Identity)> {
        let second = self.second.iter().map(|second| (&second.key, &second.identity));
        std::iter::once((&self.key, &self.identity)).chain(second)
    }
}

pub(crate) fn active_kek(wrap: &Wrap, since: u64) -> KekEntry {
    KekEntry { kid: wrap.kid.clone(), alg: wrap.alg.clone(), state: KekState::Active, since }
}

pub(crate) fn party_entry(party: &PartyKey) -> PartyEntry {
    PartyEntry { identity: party.identity.to_string(), key_id: party.key.to_string() }
}

fn check_options(options: &CreateOptions) -> Result<()> {
    if !BOUNDS.contains(&options.revocation_bound) {
        return Err(Error::invalid("the revocation bound must be between 100 ms and 24 h"));
    }
    if options.second.is_some() && options.mode == Mode::Direct {
        return Err(Error::invalid(
            "in direct mode each data key is wrapped by one KEK, so that its owner alone could open it; two parties need \
             hierarchical mode",
        ));
    }
    if options.second.is_some() && options.managed == Managed::Service {
        return Err(Error::invalid(
            "a service-managed key is no party; put the store under two keys of customers",
        ));
    }
    Ok(())
}

fn already_a_store() -> Error {
    Error::new(ErrorKind::Conflict, "there is a store here already; open it, or choose an empty place")
}

/// The signed object of a record that Bulla itself made.
pub(crate) fn sign(record: &LogRecord, key: &RecordKey) -> Result<Vec<u8>> {
    let signed = record.sign(key).map_err(|error| {
        Error::new(ErrorKind::Internal, "a log record that breaks the format's rules").with_source(error)
    })?;
    Ok(signed.into_object())
}
