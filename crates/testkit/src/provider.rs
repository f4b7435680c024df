//! A key provider in memory whose keys are denied, out of reach and given back on command, and that counts its calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bulla_envelope::secret::{Secret, StoreKey};
use bulla_kek::{
    DenyReason, Identity, KekError, KekProvider, KeyDescription, KeyId, KeyKind, Now, Protection, Runtime,
    WrapAlgorithm, WrappedKey,
};

use crate::runtime::{SeededRandom, SimRuntime};

/// How many calls of each kind the provider answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "tests compare all of it")]
pub struct Calls {
    /// `get`.
    pub describe: u64,
    /// `wrapKey`.
    pub wrap: u64,
    /// `unwrapKey`.
    pub unwrap: u64,
}

/// What goes wrong on the way to the key service, in thousandths of the calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "tests write their own")]
pub struct ServiceFaults {
    /// One way takes up to this long.
    pub latency: Duration,
    /// The call never arrives.
    pub lost_call: u64,
    /// It is carried out; the answer never arrives.
    pub lost_answer: u64,
    /// It is refused with "too many requests".
    pub throttled: u64,
    /// There is no answer and no error, ever.
    pub hangs: u64,
}

/// One of the three calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "tests match on every kind")]
pub enum Call {
    /// `get`.
    Describe,
    /// `wrapKey`.
    Wrap,
    /// `unwrapKey`.
    Unwrap,
}

/// A call that was answered, by the clocks of the node that sent it.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "tests read all of it")]
pub struct Exchange {
    /// Which call.
    pub call: Call,
    /// The name of the key that it was about.
    pub key: String,
    /// The node that sent it.
    pub node: String,
    /// Before it was sent.
    pub sent: Now,
    /// When the answer was there.
    pub answered: Now,
    /// Whether it succeeded.
    pub ok: bool,
    /// Whether it was refused by the key's owner.
    pub denied: bool,
}

/// A call that was sent, whatever became of it, by the clocks of the node that sent it.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "tests read all of it")]
pub struct Attempt {
    /// Which call.
    pub call: Call,
    /// The node that sent it.
    pub node: String,
    /// Before it was sent.
    pub sent: Now,
}

/// What one kind of call does while everything else works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "tests choose one")]
pub enum Trouble {
    /// No answer, ever.
    Hangs,
    /// An error that is no verdict.
    Fails,
}

/// A key service: AES keys with versions. Cheap to clone; clones are the same service.
#[derive(Clone)]
pub struct SimProvider {
    runtime: SimRuntime,
    state: Arc<Mutex<State>>,
    /// This node has no way to the service.
    cut_off: Arc<AtomicBool>,
}

struct State {
    keys: BTreeMap<String, Vec<Version>>,
    denied: BTreeMap<String, DenyReason>,
    versionless_denied: Option<DenyReason>,
    /// Keys, and identities that may not use them.
    forbidden: BTreeSet<(String, String)>,
    down: bool,
    /// Keys whose holder is down, and the others' are not.
    out_of_reach: BTreeSet<String>,
    /// Keys about which nobody gets an answer.
    hanging: BTreeSet<String>,
    latency: Duration,
    calls: Calls,
    last_unwrap_sent: Option<Now>,
    on_unwrap: Vec<Box<dyn FnOnce() + Send>>,
    faults: ServiceFaults,
    random: Option<Arc<SeededRandom>>,
    exchanges: Vec<Exchange>,
    attempts: Vec<Attempt>,
    trouble: Option<(Call, Trouble)>,
}

struct Version {
    id: String,
    key: StoreKey,
    enabled: bool,
    expires: Option<SystemTime>,
    created: SystemTime,
    /// Refuses wrap and unwrap of this version.
    denied: Option<DenyReason>,
    /// Whoever asks without a version does not hear of this one.
    hidden: bool,
}

impl SimProvider {
    /// A service with the key `name` in one version.
    pub fn new(runtime: &SimRuntime, name: &str) -> Self {
        let state = State {
            keys: BTreeMap::new(),
            denied: BTreeMap::new(),
            versionless_denied: None,
            forbidden: BTreeSet::new(),
            down: false,
            out_of_reach: BTreeSet::new(),
            hanging: BTreeSet::new(),
            latency: Duration::ZERO,
            calls: Calls::default(),
            last_unwrap_sent: None,
            on_unwrap: Vec::new(),
            faults: ServiceFaults::default(),
            random: None,
            exchanges: Vec::new(),
            attempts: Vec::new(),
            trouble: None,
        };
        let provider =
            Self { runtime: runtime.clone(), state: Arc::new(Mutex::new(state)), cut_off: Arc::default() };
        provider.new_version(name);
        provider
    }

    /// A new version of a key, or a new key; its id.
    ///
    /// # Panics
    /// If `name` is no key's name.
    pub fn new_version(&self, name: &str) -> KeyId {
        let key = StoreKey::random(self.runtime.random());
        let mut state = self.lock();
        let versions = state.keys.entry(name.to_owned()).or_default();
        let id = format!("{:032x}", versions.len() + 1);
        let created = self.runtime.now().wall;
        versions.push(Version {
            id: id.clone(),
            key,
            enabled: true,
            expires: None,
            created,
            denied: None,
            hidden: false,
        });
        key_id(name).with_version(&id).expect("hexadecimal digits are a version")
    }

    /// The same service as another node reaches it.
    #[must_use]
    pub fn for_node(&self, runtime: &SimRuntime) -> Self {
        Self { runtime: runtime.clone(), state: Arc::clone(&self.state), cut_off: Arc::default() }
    }

    /// Cuts this node alone off from the service, or connects it again.
    pub fn set_cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::SeqCst);
    }

    /// What goes wrong from now on, as `random` decides.
    pub fn set_faults(&self, faults: ServiceFaults, random: &Arc<SeededRandom>) {
        let mut state = self.lock();
        state.faults = faults;
        state.random = Some(Arc::clone(random));
    }

    /// Calls that were answered, in the order of their answers, lost ones left out.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.lock().exchanges.clone()
    }

    /// Calls that were sent, in their order, lost ones and all.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().attempts.clone()
    }

    /// When the unwrap was sent that was the last to succeed for `node`; and whether the last that the node heard is a
    /// denial, and it did not go on at the same moment to ask about another key that opens the same.
    pub fn last_word(&self, node: &str) -> (Option<Now>, bool) {
        let state = self.lock();
        let unwrapped = |it: &Exchange| it.call == Call::Unwrap && it.ok;
        let mut mine = state.exchanges.iter().rev().filter(|exchange| exchange.node == node);
        let sent = mine.clone().find(|it| unwrapped(it)).map(|it| it.sent);
        let denied =
            mine.find(|it| it.denied || unwrapped(it)).filter(|last| last.denied).is_some_and(|last| {
                let goes_on =
                    |it: &Attempt| it.node == node && it.call == Call::Unwrap && it.sent == last.answered;
                !state.attempts.iter().rev().any(goes_on)
            });
        (sent, denied)
    }

    /// One kind of call hangs or fails from now on, or with `None` works again.
    pub fn set_trouble(&self, trouble: Option<(Call, Trouble)>) {
        self.lock().trouble = trouble;
    }

    /// Refuses everything to do with a key.
    pub fn deny(&self, name: &str, reason: DenyReason) {
        self.lock().denied.insert(name.to_owned(), reason);
    }

    /// Takes a refusal back.
    pub fn allow(&self, name: &str) {
        self.lock().denied.remove(name);
    }

    /// Takes the permission to use a key from one identity.
    pub fn forbid(&self, name: &str, identity: &str) {
        self.lock().forbidden.insert((name.to_owned(), identity.to_owned()));
    }

    /// Gives it back.
    pub fn permit(&self, name: &str, identity: &str) {
        self.lock().forbidden.remove(&(name.to_owned(), identity.to_owned()));
    }

    /// Answers nobody, or everybody again.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// Answers nobody who asks about the key of this name, or everybody again.
    pub fn set_out_of_reach(&self, name: &str, out_of_reach: bool) {
        let mut state = self.lock();
        if out_of_reach {
            state.out_of_reach.insert(name.to_owned())
        } else {
            state.out_of_reach.remove(name)
        };
    }

    /// Gives no answer about the key of this name, or answers again.
    pub fn set_hanging(&self, name: &str, hanging: bool) {
        let mut state = self.lock();
        if hanging {
            state.hanging.insert(name.to_owned())
        } else {
            state.hanging.remove(name)
        };
    }

    /// How long an answer takes, in virtual time.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// Disables one version of a key, or enables it.
    pub fn set_enabled(&self, key: &KeyId, enabled: bool) {
        if let Some(version) = find(&mut self.lock(), key) {
            version.enabled = enabled;
        }
    }

    /// Refuses, or with `None` permits, to wrap and unwrap with one version of a key. It is described as before.
    pub fn deny_version(&self, key: &KeyId, reason: Option<DenyReason>) {
        if let Some(version) = find(&mut self.lock(), key) {
            version.denied = reason;
        }
    }

    /// Whether whoever asks for the newest version does not hear of this one, as from a replica that lags behind.
    pub fn set_hidden(&self, key: &KeyId, hidden: bool) {
        if let Some(version) = find(&mut self.lock(), key) {
            version.hidden = hidden;
        }
    }

    /// Refuses to describe a key to whoever names no version, or permits it again.
    pub fn set_versionless_denied(&self, reason: Option<DenyReason>) {
        self.lock().versionless_denied = reason;
    }

    /// When a version of a key expires.
    pub fn set_expires(&self, key: &KeyId, expires: Option<SystemTime>) {
        if let Some(version) = find(&mut self.lock(), key) {
            version.expires = expires;
        }
    }

    /// Runs `action` when the next unwrap has arrived, before it is answered.
    pub fn on_next_unwrap(&self, action: impl FnOnce() + Send + 'static) {
        self.lock().on_unwrap.push(Box::new(action));
    }

    /// Calls answered so far.
    pub fn calls(&self) -> Calls {
        self.lock().calls
    }

    /// When the last unwrap that succeeded was sent.
    pub fn last_unwrap_sent(&self) -> Option<Now> {
        self.lock().last_unwrap_sent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call's way to the service and back. `answer` is what the service does.
    async fn call<T>(
        &self,
        call: Call,
        key: &KeyId,
        sent: Now,
        answer: impl FnOnce(&mut State) -> Result<T, KekError>,
    ) -> Result<T, KekError> {
        let (there, back, fate) = {
            let mut state = self.lock();
            let node = self.runtime.name().to_owned();
            state.attempts.push(Attempt { call, node, sent });
            state.draw()
        };
        self.wait(there).await;
        let trouble =
            self.lock().trouble.filter(|(troubled, _)| *troubled == call).map(|(_, trouble)| trouble);
        let hanging = self.lock().hanging.contains(key.name());
        if hanging || fate == Some(Fate::Hangs) || trouble == Some(Trouble::Hangs) {
            std::future::pending::<()>().await;
        }
        let lost = || KekError::unavailable("the key service does not answer");
        if self.cut_off.load(Ordering::SeqCst) || fate == Some(Fate::LostCall) || trouble.is_some() {
            return Err(lost());
        }
        let result = {
            let mut state = self.lock();
            match call {
                Call::Describe => state.calls.describe += 1,
                Call::Wrap => state.calls.wrap += 1,
                Call::Unwrap => state.calls.unwrap += 1,
            }
            if fate == Some(Fate::Throttled) { Err(KekError::throttled(None)) } else { answer(&mut state) }
        };
        self.wait(back).await;
        if fate == Some(Fate::LostAnswer) {
            return Err(lost());
        }
        let answered = self.runtime.now();
        let mut state = self.lock();
        if call == Call::Unwrap && result.is_ok() {
            state.last_unwrap_sent = Some(sent);
        }
        let node = self.runtime.name().to_owned();
        let denied = matches!(&result, Err(error) if error.deny_reason().is_some());
        let key = key.name().to_owned();
        state.exchanges.push(Exchange { call, key, node, sent, answered, ok: result.is_ok(), denied });
        result
    }

    async fn wait(&self, duration: Duration) {
        if !duration.is_zero() {
            self.runtime.sleep(duration).await;
        }
    }

    fn check(state: &State, key: &KeyId, identity: &Identity) -> Result<(), KekError> {
        if state.down || state.out_of_reach.contains(key.name()) {
            return Err(KekError::unavailable("the key service does not answer"));
        }
        if state.forbidden.contains(&(key.name().to_owned(), identity.to_string())) {
            return Err(KekError::denied(DenyReason::Forbidden));
        }
        match state.denied.get(key.name()) {
            Some(reason) => Err(KekError::denied(*reason)),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    LostCall,
    LostAnswer,
    Throttled,
    Hangs,
}

impl State {
    /// One call's way there, way back, and what goes wrong with it.
    fn draw(&self) -> (Duration, Duration, Option<Fate>) {
        let Some(random) = &self.random else { return (self.latency, Duration::ZERO, None) };
        let (there, back) = (random.duration(self.faults.latency), random.duration(self.faults.latency));
        let dice = random.below(1000);
        let mut below = 0;
        let table = [
            (self.faults.lost_call, Fate::LostCall),
            (self.faults.lost_answer, Fate::LostAnswer),
            (self.faults.throttled, Fate::Throttled),
            (self.faults.hangs, Fate::Hangs),
        ];
        let fate = table.into_iter().find(|(rate, _)| {
            below += rate;
            dice < below
        });
        (self.latency + there, back, fate.map(|(_, fate)| fate))
    }
}

fn find<'a>(state: &'a mut State, key: &KeyId) -> Option<&'a mut Version> {
    let versions = state.keys.get_mut(key.name())?;
    match key.version() {
        Some(id) => versions.iter_mut().find(|version| version.id == id),
        None => versions.iter_mut().rev().find(|version| !version.hidden),
    }
}

/// The id of a key of the simulated service, without a version.
///
/// # Panics
/// If `name` is no key's name.
pub fn key_id(name: &str) -> KeyId {
    format!("https://sim.vault.azure.net/keys/{name}").parse().expect("a key id")
}

#[async_trait]
impl KekProvider for SimProvider {
    fn accepts(&self, key: &KeyId) -> bool {
        key.host() == "sim.vault.azure.net"
    }

    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, KekError> {
        self.call(Call::Describe, key, self.runtime.now(), |state| {
            Self::check(state, key, identity)?;
            if let (None, Some(reason)) = (key.version(), state.versionless_denied) {
                return Err(KekError::denied(reason));
            }
            let version = find(state, key).ok_or_else(|| KekError::denied(DenyReason::NotFound))?;
            Ok(KeyDescription {
                key: key.with_version(&version.id).map_err(|error| KekError::invalid(error.to_string()))?,
                kind: KeyKind::Aes { bits: 256 },
                algorithm: Some(WrapAlgorithm::A256Kw),
                enabled: version.enabled,
                not_before: None,
                expires: version.expires,
                operations: vec!["wrapKey".into(), "unwrapKey".into()],
                protection: Protection { soft_delete: true, purge_protection: true, ..Protection::default() },
                created: Some(version.created),
            })
        })
        .await
    }

    async fn wrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError> {
        self.call(Call::Wrap, key, self.runtime.now(), |state| {
            Self::check(state, key, identity)?;
            let version = find(state, key).ok_or_else(|| KekError::denied(DenyReason::NotFound))?;
            if let Some(reason) = version.denied {
                return Err(KekError::denied(reason));
            }
            Ok(WrappedKey { key: key.clone(), alg, value: version.key.wrap_key(secret.expose()).to_vec() })
        })
        .await
    }

    async fn unwrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        _alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError> {
        let sent = self.runtime.now();
        let actions = std::mem::take(&mut self.lock().on_unwrap);
        for action in actions {
            action();
        }
        self.call(Call::Unwrap, key, sent, |state| {
            Self::check(state, key, identity)?;
            let version = find(state, key).ok_or_else(|| KekError::denied(DenyReason::NotFound))?;
            if !version.enabled {
                return Err(KekError::denied(DenyReason::Disabled));
            }
            if let Some(reason) = version.denied {
                return Err(KekError::denied(reason));
            }
            version.key.unwrap_key(value).map_err(|error| KekError::invalid(error.to_string()))
        })
        .await
    }
}

impl fmt::Debug for SimProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimProvider")
    }
}
