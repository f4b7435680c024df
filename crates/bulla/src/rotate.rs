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
use bulla_envelope::record::{KekEntry, KekState, LogRecord, MAX_KEKS, Managed, Mode, PartyEntry, RootState};
use bulla_envelope::secret::Root;
use bulla_kek::{Identity, KeyId, Now, WrapAlgorithm};

use crate::create::{active_kek, party_entry, sign};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Action, Outcome};
use crate::log::{Append, append};
use crate::party::{self, Party, PartyKey};
use crate::preflight::{self, Requirements};
use crate::rewrap::{Rewrap, Target};
use crate::store::{Store, StoreInner};
use crate::sweep::{Observer, SweepEvent, SweepOptions};
use crate::unlock::Unlocked;

const ATTEMPTS: usize = 8;

/// What to rotate to.
#[derive(Clone, Debug, Default)]
pub struct RotateOptions {
    /// Whose KEK; the other party's stays as it is, but wraps a new share.
    pub party: Party,
    /// The new KEK, with or without a version; without it the newest version of the present one.
    pub key: Option<KeyId>,
    /// As whom the nodes use it; without it as before.
    pub identity: Option<Identity>,
    /// Accept a vault without soft delete or purge protection.
    pub allow_unprotected_key: bool,
    /// Bring in a second party, whose KEK is needed as well from then on, and change nothing else. There is no way back.
    pub second: Option<PartyKey>,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotation {
    /// Whose KEK it was.
    pub party: Party,
    /// The party's KEK versions that held the root, or its share of it, before.
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
        let (party, to) = (plan.party, description.key.clone());
        let from = holders(record, party.index());
        let done = |changed, became_customer_managed| {
            let (from, to) = (from.clone(), to.clone());
            Some(Rotation { party, from, to, became_customer_managed, changed, sweep: None })
        };
        let is_whole =
            record.roots.iter().flat_map(|root| &root.groups).all(|group| group.len() == plan.parties);
        let configured = party::texts(record, party.index());
        if is_whole && from == [to.clone()] && configured == Some((plan.identity.as_str(), &*plan.key_id)) {
            return Ok(done(false, false));
        }
        if record.mode == Mode::Direct {
            self.preflight_direct(keys, &plan, &to, algorithm).await?;
        }
        let members = plan.members(keys, &to, algorithm)?;
        // Asked for when it is used: the lease may have ended while the provider described the key.
        let shares = self.gate.secrets(self).await?.root.split(members.len(), runtime.random());
        let wraps = members.iter().zip(shares).map(|(member, share)| {
            preflight::wrap_and_prove(providers, &member.key, member.algorithm, &member.identity, share)
        });
        let group = futures::future::try_join_all(wraps).await?;
        let both = plan.both(keys, &group, runtime.now().unix_ms());
        let Some(both) = self.append(both).await? else { return Ok(None) };
        // Prove it from the record itself, as a node would open it, before the old group goes.
        let proven = self.gate.refresh(self).await?;
        if proven.view.mark != both {
            return Ok(None);
        }
        self.tell(Action::RotateBegin, started, &to);
        self.prove(&group, &members).await?;
        let alone = plan.alone(&proven, &group, runtime.now().unix_ms());
        if self.append(alone).await?.is_none() {
            return Ok(None);
        }
        self.gate.refresh(self).await?;
        let became_customer_managed = record.managed == Managed::Service && plan.managed == Managed::Customer;
        Ok(done(true, became_customer_managed))
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

    async fn prove(&self, group: &[Wrap], members: &[Member]) -> Result<()> {
        let providers = &self.parts.providers;
        let shares = group.iter().zip(members).map(|(wrap, member)| async move {
            let key: KeyId =
                wrap.kid.parse().map_err(|error| Error::invalid("not a key id").with_source(error))?;
            let provider = providers.provider_for(&key)?;
            Ok::<_, Error>(provider.unwrap_key(&key, &member.identity, member.algorithm, &wrap.value).await?)
        });
        let shares = futures::future::try_join_all(shares).await?;
        if Root::join(&shares).is_some_and(|root| root.anchor().ct_eq(&self.anchor)) {
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

/// The KEK versions by which a party holds the root, or its share of it.
pub(crate) fn holders(record: &LogRecord, party: usize) -> Vec<KeyId> {
    let parties = party::count(record);
    let active = record.roots.iter().filter(|root| root.state == RootState::Active);
    let groups = active.flat_map(|root| &root.groups).filter(|group| party == 0 || group.len() == parties);
    let mut holders = Vec::new();
    for key in groups.filter_map(|group| group.get(party)).filter_map(|wrap| wrap.kid.parse().ok()) {
        if !holders.contains(&key) {
            holders.push(key);
        }
    }
    holders
}

/// Whether a party has this key, in any version: it is configured, or a rotation that was interrupted left it a share.
fn has_key(record: &LogRecord, party: usize, key: &KeyId) -> Result<bool> {
    let configured = party::key_id(record, party)?;
    Ok(configured.same_key(key) || holders(record, party).iter().any(|holder| holder.same_key(key)))
}

/// Whose share is wrapped how.
struct Member {
    key: KeyId,
    algorithm: WrapAlgorithm,
    identity: Identity,
}

/// Where a rotation goes.
struct Plan {
    party: Party,
    /// How many there are then.
    parties: usize,
    target: KeyId,
    identity: Identity,
    managed: Managed,
    /// As configured: with or without a version.
    key_id: String,
}

impl Plan {
    fn new(record: &LogRecord, options: &RotateOptions) -> Result<Self> {
        if let Some(second) = &options.second {
            return Self::bring_in(record, second, options);
        }
        let party = options.party;
        let current = party::key_id(record, party.index())?;
        let identity = match &options.identity {
            Some(identity) => identity.clone(),
            None => party::identity(record, party.index())?,
        };
        let (target, key_id) = match &options.key {
            Some(key) => (key.clone(), key.to_string()),
            None if current.version().is_none() => (current.clone(), current.to_string()),
            // A pinned version stays pinned: to the newest, once it is known.
            None => (current.without_version(), String::new()),
        };
        let managed = match (record.managed, &options.key) {
            (Managed::Service, None) => Managed::Service,
            _ => Managed::Customer,
        };
        let parties = party::count(record);
        for other in (0..parties).filter(|other| *other != party.index()) {
            if has_key(record, other, &target)? {
                return Err(Error::invalid(
                    "the other party has this key, so that its owner alone could open the store; give each its own",
                ));
            }
        }
        Ok(Self { party, parties, target, identity, managed, key_id })
    }

    fn bring_in(record: &LogRecord, second: &PartyKey, options: &RotateOptions) -> Result<Self> {
        if options.key.is_some() || options.identity.is_some() || options.party != Party::First {
            return Err(Error::invalid("bring in the second party first, and rotate after that"));
        }
        if record.mode == Mode::Direct {
            return Err(Error::invalid(
                "in direct mode each data key is wrapped by one KEK: there can't be two parties",
            ));
        }
        if record.managed == Managed::Service {
            return Err(Error::invalid(
                "the store is under a service-managed key, which is no party; rotate it to a key of yours first",
            ));
        }
        if has_key(record, Party::First.index(), &second.key)? {
            return Err(Error::invalid("the first party has this key; give the second one its own"));
        }
        let there = record.other_parties.first();
        if there.is_some_and(|there| *there != party_entry(second)) {
            return Err(Error::invalid(
                "the store has two parties already; rotate the second one's key (`--party second`)",
            ));
        }
        Ok(Self {
            party: Party::Second,
            parties: 2,
            target: second.key.clone(),
            identity: second.identity.clone(),
            managed: Managed::Customer,
            key_id: second.key.to_string(),
        })
    }

    /// By whom the new group is wrapped: the party's new KEK, and the others' as they are.
    fn members(&self, keys: &Unlocked, to: &KeyId, algorithm: WrapAlgorithm) -> Result<Vec<Member>> {
        let record = &keys.view.record;
        let member = |party: usize| {
            if party == self.party.index() {
                return Ok(Member { key: to.clone(), algorithm, identity: self.identity.clone() });
            }
            let holders = holders(record, party);
            let in_use = |key: &&KeyId| keys.opened_by.contains(&key.to_string());
            let key = holders.iter().find(in_use).or(holders.last()).cloned();
            let key = key.ok_or_else(|| Error::corrupt("the log has no wrap of a party's share"))?;
            let kid = key.to_string();
            let kek = record.keks.iter().find(|kek| kek.kid == kid);
            let algorithm = kek.and_then(|kek| kek.alg.parse().ok());
            let algorithm =
                algorithm.ok_or_else(|| Error::corrupt("the log names an unknown way to wrap"))?;
            Ok(Member { key, algorithm, identity: party::identity(record, party)? })
        };
        (0..self.parties).map(member).collect()
    }

    /// The group that opens today, and the new one. A group that an interrupted rotation left behind goes.
    fn both(&self, keys: &Unlocked, new: &[Wrap], now: u64) -> LogRecord {
        let mut record = keys.next_record(now);
        let opens = |wrap: &Wrap| keys.opened_by.contains(&wrap.kid);
        let is_new = |kid: &str| new.iter().any(|wrap| wrap.kid == kid);
        let same = |group: &[Wrap]| group.len() == new.len() && group.iter().all(|wrap| is_new(&wrap.kid));
        let mut kept: Vec<String> = Vec::new();
        for root in record.roots.iter_mut().filter(|root| root.state == RootState::Active) {
            root.groups.retain(|group| group.iter().all(opens) && !same(group));
            kept.extend(root.groups.iter().flatten().map(|wrap| wrap.kid.clone()));
            root.groups.push(new.to_vec());
        }
        let since = |wrap: &Wrap, number: usize| {
            let before = record.keks.iter().find(|kek| kek.kid == wrap.kid && kek.state == KekState::Active);
            before.filter(|_| number != self.party.index()).map_or(now, |kek| kek.since)
        };
        let active: Vec<KekEntry> =
            new.iter().enumerate().map(|(number, wrap)| active_kek(wrap, since(wrap, number))).collect();
        // In direct mode envelopes hang on all of them.
        let direct = record.mode == Mode::Direct;
        record.keks.retain(|kek| !is_new(&kek.kid) && (direct || kept.contains(&kek.kid)));
        for kek in record.keks.iter_mut().filter(|kek| kek.state == KekState::Active) {
            kek.state = KekState::Retiring;
            kek.since = now;
        }
        record.keks.extend(active);
        if record.other_parties.len() + 1 < self.parties {
            record.other_parties.push(self.entry(new));
        }
        record
    }

    /// The new group alone, and with it what the store is configured to.
    fn alone(&self, keys: &Unlocked, new: &[Wrap], now: u64) -> LogRecord {
        let mut record = keys.next_record(now);
        for root in record.roots.iter_mut().filter(|root| root.state == RootState::Active) {
            root.groups = vec![new.to_vec()];
        }
        // In direct mode the others stay until a sweep has counted that no envelope needs them.
        if record.mode != Mode::Direct {
            record.keks.retain(|kek| new.iter().any(|wrap| wrap.kid == kek.kid));
        }
        let PartyEntry { identity, key_id } = self.entry(new);
        match self.party.index().checked_sub(1) {
            None => (record.identity, record.key_id) = (identity, key_id),
            Some(other) => {
                if let Some(party) = record.other_parties.get_mut(other) {
                    *party = PartyEntry { identity, key_id };
                }
            }
        }
        record.managed = self.managed;
        record.rotated = Some(now);
        record
    }

    /// What the record says of the party.
    fn entry(&self, new: &[Wrap]) -> PartyEntry {
        let kid = new.get(self.party.index()).map(|wrap| wrap.kid.clone()).unwrap_or_default();
        PartyEntry {
            identity: self.identity.to_string(),
            key_id: if self.key_id.is_empty() { kid } else { self.key_id.clone() },
        }
    }
}
