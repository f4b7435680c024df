//! What the store asked of the key's provider and when, seen from the node and from the vault's audit log.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bulla_kek::{Identity, KekError, KekErrorKind, KeyId, ObservedCall, Observer, Operation};
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

/// What a provider was asked, written down.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) clock: Clock,
    pub(crate) unwraps: Mutex<Vec<Unwrap>>,
    /// Calls that ended with neither an answer nor a refusal.
    pub(crate) failures: Mutex<u32>,
}

/// Who listens, for the provider.
#[derive(Clone, Debug)]
pub(crate) struct Listener(pub(crate) Arc<Heard>);

impl Observer for Listener {
    type Call = Call;

    fn asked(&self, operation: Operation, _: &KeyId, _: &Identity) -> Call {
        Call { heard: Arc::clone(&self.0), operation, sent: self.0.clock.now() }
    }
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Call {
    heard: Arc<Heard>,
    operation: Operation,
    sent: Duration,
}

impl ObservedCall for Call {
    fn answered(&mut self, answer: Result<&KeyId, &KekError>) {
        // A wrap says nothing about the lease.
        if self.operation == Operation::Wrap {
            return;
        }
        if answer.is_err_and(|error| !matches!(error.kind(), KekErrorKind::Denied(_))) {
            *self.heard.failures.lock().unwrap() += 1;
        }
        if self.operation == Operation::Unwrap {
            let unwrap = Unwrap { sent: self.sent, granted: answer.is_ok() };
            self.heard.unwraps.lock().unwrap().push(unwrap);
        }
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
