//! Rotating the KEK: the root is wrapped anew, nothing else is touched.
//!
//! ```text
//! record n      old group
//! record n+1    old group, new group      every node opens by either
//!               prove the new group under the identity the nodes will use
//! record n+2    new group
//! ```
//!
//! In direct mode, where the KEK wraps every DEK too, the old KEK stays in the record as retiring, and a sweep follows
//! ([`crate::rewrap`]).
//!
//! Killed anywhere and run again, it finishes. A rotation does not help against a KEK that is *compromised*: who unwrapped
//! the root once keeps it.

use bulla_envelope::envelope::Wrap;
use bulla_envelope::record::{KekEntry, KekState, LogRecord, MAX_KEKS, Managed, Mode, RootState};
use bulla_envelope::secret::Root;
use bulla_kek::{Identity, KeyId, Now, WrapAlgorithm};

use crate::create::sign;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Action, Outcome};
use crate::log::{Append, append};
use crate::preflight::{self, Requirements};
use crate::rewrap::{Rewrap, Target};
use crate::store::{Store, StoreInner};
use crate::sweep::{Observer, SweepEvent, SweepOptions};
use crate::unlock::Unlocked;

const ATTEMPTS: usize = 8;

/// What to rotate to.
#[derive(Clone, Debug, Default)]
pub struct RotateOptions {
    /// The new KEK, with or without a version; without it the newest version of the present one.
    pub key: Option<KeyId>,
    /// As whom the nodes use it; without it as before.
    pub identity: Option<Identity>,
    /// Accept a vault without soft delete or purge protection.
    pub allow_unprotected_key: bool,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotation {
    /// The KEK versions that held the root before.
    pub from: Vec<KeyId>,
    /// The KEK version that holds it now.
    pub to: KeyId,
    /// Whether the KEK was service-managed before and is the customer's now: then the service's own is to be destroyed.
    pub became_customer_managed: bool,
    /// `false` where the store was under exactly this KEK version and identity already.
    pub changed: bool,
    /// In direct mode: the sweep that wrapped every data key under the new KEK version, or finished one that was
    /// interrupted.
    pub sweep: Option<Rewrap>,
}

impl Store {
    /// Puts the store under another KEK, KEK version or identity. Reads and writes go on throughout.
    ///
    /// Disable the old KEK version afterwards, once every node has renewed its lease.
    ///
    /// # Errors
    /// `Invalid` where the new key fails a check, with the command that fixes it; `Revoked` where either key denies;
    /// `Conflict` where other nodes rotate at the same time. Whatever the error, the store stays readable and running it
    /// again finishes.
    ///
    /// # Cancel safety
    /// A dropped rotation is an interrupted one: run it again.
    pub async fn rotate(&self, options: RotateOptions) -> Result<Rotation> {
        self.rotate_watched(options, SweepOptions::default(), |_| {}).await
    }

    /// As [`rotate`](Self::rotate), for whoever wants to see how far the sweep of a store in direct mode is, or slow it
    /// down. In hierarchical mode there is none.
    ///
    /// # Errors
    /// As `rotate`, and those of [`rewrap`](Self::rewrap).
    ///
    /// # Cancel safety
    /// As `rotate`: run it again.
    pub async fn rotate_watched(
        &self,
        options: RotateOptions,
        sweep: SweepOptions,
        observe: impl Fn(SweepEvent) + Send + Sync,
    ) -> Result<Rotation> {
        let inner = self.inner();
        let mut rotation = inner.rotate(&options).await?;
        rotation.sweep = inner.sweep_after_rotation(!rotation.changed, &sweep, &observe).await?;
        Ok(rotation)
    }
}

impl StoreInner {
    async fn rotate(&self, options: &RotateOptions) -> Result<Rotation> {
        let started = self.parts.runtime.now();
        let rotated = self.rotate_until_done(options).await;
        match &rotated {
            Ok(rotation) if rotation.changed => self.tell(Action::RotateEnd, started, &rotation.to),
            Ok(_) => {}
            Err(error) => self.parts.events.failed(Action::RotateEnd, started, error),
        }
        let rotated = rotated?;
        self.settle_audit().await?;
        Ok(rotated)
    }

    fn tell(&self, action: Action, started: Now, to: &KeyId) {
        let mut event = self.parts.events.event(action, Outcome::Done);
        event.keys = vec![to.clone()];
        event.log = Some(self.gate.mark());
        event.latency = self.parts.events.since(started);
        self.parts.events.emit(&event);
    }

    async fn rotate_until_done(&self, options: &RotateOptions) -> Result<Rotation> {
        for attempt in 0..ATTEMPTS {
            let keys = self.gate.refresh(self).await?;
            if let Some(rotation) = self.try_rotate(&keys, options).await? {
                return Ok(rotation);
            }
            self.back_off(attempt).await;
        }
        Err(Error::new(ErrorKind::Conflict, "other nodes keep changing the log; run the rotation again"))
    }

    /// `None`: another node was first; read the log again and start over.
    async fn try_rotate(&self, keys: &Unlocked, options: &RotateOptions) -> Result<Option<Rotation>> {
        let (providers, runtime) = (&self.parts.providers, &*self.parts.runtime);
        let started = runtime.now();
        let record = &keys.view.record;
        let plan = Plan::new(record, options)?;
        let requirements =
            Requirements { protection: plan.managed == Managed::Customer && !options.allow_unprotected_key };
        let (description, algorithm) =
            preflight::describe(providers, runtime, &plan.target, &plan.identity, requirements).await?;
        let to = description.key.clone();
        let from = holders(record);
        let same = from == [to.clone()] && plan.identity.as_str() == record.identity;
        if same && plan.key_id == record.key_id {
            let (became_customer_managed, changed) = (false, false);
            return Ok(Some(Rotation { from, to, became_customer_managed, changed, sweep: None }));
        }
        if record.mode == Mode::Direct {
            self.preflight_direct(keys, &plan, &to, algorithm).await?;
        }
        // Asked for when it is used: the lease may have ended while the provider described the key.
        let share = preflight::only_share(&self.gate.secrets(self).await?.root, runtime)?;
        let wrap = preflight::wrap_and_prove(providers, &to, algorithm, &plan.identity, share).await?;
        let both = plan.both(keys, &wrap, runtime.now().unix_ms());
        let Some(both) = self.append(both).await? else { return Ok(None) };
        // Prove it from the record itself, as a node would open it, before the old group goes.
        let proven = self.gate.refresh(self).await?;
        if proven.view.mark != both {
            return Ok(None);
        }
        self.tell(Action::RotateBegin, started, &to);
        self.prove(&wrap, &plan.identity).await?;
        let alone = plan.alone(&proven, &wrap, runtime.now().unix_ms());
        if self.append(alone).await?.is_none() {
            return Ok(None);
        }
        self.gate.refresh(self).await?;
        let became_customer_managed = record.managed == Managed::Service && plan.managed == Managed::Customer;
        Ok(Some(Rotation { from, to, became_customer_managed, changed: true, sweep: None }))
    }

    /// In direct mode old and new KEK are both used, as the identity of the record, until the sweep is done. Whatever would
    /// make blobs unreadable on the way is refused here.
    async fn preflight_direct(
        &self,
        keys: &Unlocked,
        plan: &Plan,
        to: &KeyId,
        algorithm: WrapAlgorithm,
    ) -> Result<()> {
        let record = &keys.view.record;
        if record.keks.len() >= MAX_KEKS {
            return Err(Error::invalid(
                "too many KEK versions are retiring; finish the sweep first (`bulla rewrap STORE`)",
            ));
        }
        if plan.identity.as_str() == record.identity {
            return Ok(());
        }
        let group = record.roots.iter().flat_map(|root| &root.groups).flatten();
        let holders: Vec<&Wrap> = group.collect();
        if record.keks.iter().any(|kek| !holders.iter().any(|wrap| wrap.kid == kek.kid)) {
            return Err(Error::invalid(
                "data keys are still wrapped by an earlier KEK version, which the new identity might not be allowed to \
                 use; finish the sweep first (`bulla rewrap STORE`)",
            ));
        }
        let providers = &self.parts.providers;
        let old_identity = keys.identity()?;
        let share = preflight::only_share(&self.gate.secrets(self).await?.root, &*self.parts.runtime)?;
        preflight::wrap_and_prove(providers, to, algorithm, &old_identity, share).await?;
        for wrap in holders.iter().filter(|wrap| wrap.kid != to.to_string()) {
            preflight::unwraps(providers, wrap, &plan.identity).await?;
        }
        Ok(())
    }

    /// What a rotation in direct mode leaves to do: every DEK is wrapped by the new KEK, and the old ones go.
    async fn sweep_after_rotation(
        &self,
        resumed: bool,
        options: &SweepOptions,
        observe: Observer<'_>,
    ) -> Result<Option<Rewrap>> {
        if self.mode != Mode::Direct {
            return Ok(None);
        }
        let keys = self.gate.refresh(self).await?;
        match Target::of(&keys, self.parts.runtime.now()) {
            Some(target) => self.sweep_to(&target, resumed, options, observe).await.map(Some),
            None => Ok(None),
        }
    }

    async fn prove(&self, wrap: &Wrap, identity: &Identity) -> Result<()> {
        let key: KeyId =
            wrap.kid.parse().map_err(|error| Error::invalid("not a key id").with_source(error))?;
        let algorithm = wrap
            .alg
            .parse()
            .map_err(|error: bulla_kek::UnknownAlgorithm| Error::invalid(error.to_string()))?;
        let share = self
            .parts
            .providers
            .provider_for(&key)?
            .unwrap_key(&key, identity, algorithm, &wrap.value)
            .await?;
        if Root::join(&[share]).is_some_and(|root| root.anchor().ct_eq(&self.anchor)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Internal, "the new key unwraps something else than the store's root"))
    }

    /// Appends `record`; `None` where another node was first.
    pub(crate) async fn append(&self, record: LogRecord) -> Result<Option<crate::log::RecordMark>> {
        let number = record.number;
        let object = sign(&record, &self.gate.secrets(self).await?.record_key)?;
        match append(&self.bucket, number, object).await? {
            Append::Done(mark) => Ok(Some(mark)),
            Append::Lost => Ok(None),
        }
    }
}

/// The KEK versions that hold the root.
pub(crate) fn holders(record: &LogRecord) -> Vec<KeyId> {
    let active = record.roots.iter().filter(|root| root.state == RootState::Active);
    active.flat_map(|root| root.groups.iter().flatten()).filter_map(|wrap| wrap.kid.parse().ok()).collect()
}

/// Where a rotation goes.
struct Plan {
    target: KeyId,
    identity: Identity,
    managed: Managed,
    /// As configured: with or without a version.
    key_id: String,
}

impl Plan {
    fn new(record: &LogRecord, options: &RotateOptions) -> Result<Self> {
        let current: KeyId = record
            .key_id
            .parse()
            .map_err(|error| Error::corrupt("the log's key id can't be parsed").with_source(error))?;
        let identity = match &options.identity {
            Some(identity) => identity.clone(),
            None => record
                .identity
                .parse()
                .map_err(|error| Error::corrupt("the log's identity can't be parsed").with_source(error))?,
        };
        let (target, key_id) = match &options.key {
            Some(key) => (key.clone(), key.to_string()),
            None if current.version().is_none() => (current, record.key_id.clone()),
            // A pinned version stays pinned: to the newest, once it is known.
            None => (current.without_version(), String::new()),
        };
        let managed = match (record.managed, &options.key) {
            (Managed::Service, None) => Managed::Service,
            _ => Managed::Customer,
        };
        Ok(Self { target, identity, managed, key_id })
    }

    /// The group that opens today, and the new one. A group that an interrupted rotation left behind goes.
    fn both(&self, keys: &Unlocked, new: &Wrap, now: u64) -> LogRecord {
        let mut record = keys.next_record(now);
        let is_old = |kid: &str| kid != new.kid && keys.opened_by.iter().any(|opened| opened == kid);
        for root in record.roots.iter_mut().filter(|root| root.state == RootState::Active) {
            root.groups.retain(|group| group.iter().all(|wrap| is_old(&wrap.kid)));
            root.groups.push(vec![new.clone()]);
        }
        match record.mode {
            // Envelopes hang on all of them.
            Mode::Direct => record.keks.retain(|kek| kek.kid != new.kid),
            _ => record.keks.retain(|kek| is_old(&kek.kid)),
        }
        for kek in record.keks.iter_mut().filter(|kek| kek.state == KekState::Active) {
            kek.state = KekState::Retiring;
            kek.since = now;
        }
        record.keks.push(KekEntry {
            kid: new.kid.clone(),
            alg: new.alg.clone(),
            state: KekState::Active,
            since: now,
        });
        record
    }

    /// The new group alone, and with it what the store is configured to.
    fn alone(&self, keys: &Unlocked, new: &Wrap, now: u64) -> LogRecord {
        let mut record = keys.next_record(now);
        for root in record.roots.iter_mut().filter(|root| root.state == RootState::Active) {
            root.groups = vec![vec![new.clone()]];
        }
        // In direct mode the others stay until a sweep has counted that no envelope needs them.
        if record.mode != Mode::Direct {
            record.keks.retain(|kek| kek.kid == new.kid);
        }
        record.identity = self.identity.to_string();
        record.key_id = if self.key_id.is_empty() { new.kid.clone() } else { self.key_id.clone() };
        record.managed = self.managed;
        record.rotated = Some(now);
        record
    }
}
