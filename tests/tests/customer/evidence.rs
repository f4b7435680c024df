//! What the store asked of the key's provider and when, seen from the node and from the vault's audit log.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bulla::kek::{
    Identity, KekError, KekErrorKind, KekProvider, KeyDescription, KeyId, WrapAlgorithm, WrappedKey,
    async_trait,
};
use bulla_envelope::secret::Secret;
use jiff::Timestamp;
use serde_json::Value;

/// One clock for everything that happens: the time since the test began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    wall: SystemTime,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), wall: SystemTime::now() }
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// A time of day that lies after the start.
    fn of(&self, wall: SystemTime) -> Option<Duration> {
        wall.duration_since(self.wall).ok()
    }
}

/// One unwrap of the store's root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwrap {
    /// Before it was sent; in the audit log: when it arrived.
    pub(crate) sent: Duration,
    pub(crate) granted: bool,
}

/// A provider that writes down what it is asked.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) provider: Arc<dyn KekProvider>,
    pub(crate) clock: Clock,
    pub(crate) unwraps: Mutex<Vec<Unwrap>>,
    /// Calls that ended with neither an answer nor a refusal.
    pub(crate) failures: Mutex<u32>,
}

impl Watched {
    fn heard<T>(&self, answer: &Result<T, KekError>) {
        if answer.as_ref().is_err_and(|error| !matches!(error.kind(), KekErrorKind::Denied(_))) {
            *self.failures.lock().unwrap() += 1;
        }
    }
}

#[async_trait]
impl KekProvider for Watched {
    fn accepts(&self, key: &KeyId) -> bool {
        self.provider.accepts(key)
    }

    async fn describe(&self, key: &KeyId, identity: &Identity) -> Result<KeyDescription, KekError> {
        let answer = self.provider.describe(key, identity).await;
        self.heard(&answer);
        answer
    }

    async fn wrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        secret: &Secret<32>,
    ) -> Result<WrappedKey, KekError> {
        self.provider.wrap_key(key, identity, alg, secret).await
    }

    async fn unwrap_key(
        &self,
        key: &KeyId,
        identity: &Identity,
        alg: WrapAlgorithm,
        value: &[u8],
    ) -> Result<Secret<32>, KekError> {
        let sent = self.clock.now();
        let answer = self.provider.unwrap_key(key, identity, alg, value).await;
        self.heard(&answer);
        self.unwraps.lock().unwrap().push(Unwrap { sent, granted: answer.is_ok() });
        answer
    }
}

/// The vault's audit log: what it was asked for since the clock began, refusals of a missing token apart.
pub(crate) struct Audit {
    pub(crate) unwraps: Vec<Unwrap>,
    pub(crate) describes: usize,
    /// Codes of refusals.
    pub(crate) refusals: Vec<String>,
}

impl Audit {
    pub(crate) fn read(path: &Path, clock: Clock) -> Self {
        let mut audit = Self { unwraps: Vec::new(), describes: 0, refusals: Vec::new() };
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap_or_default();
            let time: Timestamp = text("time").parse().unwrap();
            let Some(sent) = clock.of(time.try_into().unwrap()) else { continue };
            if line["status"] == 401 {
                continue;
            }
            let granted = line["status"] == 200;
            match text("operation") {
                "unwrapKey" => audit.unwraps.push(Unwrap { sent, granted }),
                "get" => audit.describes += 1,
                _ => {}
            }
            if !granted {
                audit.refusals.push(text("outcome").to_owned());
            }
        }
        audit
    }
}

/// Whether something that was asked for at `asked` and was there at `got` is covered: by an unwrap that was granted, not
/// sent after that, nor longer than `bound` before.
pub(crate) fn covered(unwraps: &[Unwrap], asked: Duration, got: Duration, bound: Duration) -> bool {
    unwraps.iter().any(|unwrap| unwrap.granted && unwrap.sent <= got && unwrap.sent + bound >= asked)
}
