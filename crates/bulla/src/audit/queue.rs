//! Events that wait for the log: alike ones merged, and never more than fit.

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use bulla_envelope::audit::{Action, Entry, MAX_BATCH, Outcome};
use bulla_kek::{DenyReason, Now};

use super::ROUTINE;
use crate::events::Event;

/// The most entries that wait.
const CAPACITY: usize = 1024;
/// The most bytes of entries in a batch, so that any of them fits an object.
const MAX_BYTES: usize = 512 << 10;

/// Entries that are not in the log yet, in order.
#[derive(Debug)]
pub(super) struct Queue {
    /// Whether there is a log to write to, as far as is known.
    on: bool,
    /// Whether this node was told to begin one.
    begins: bool,
    waiting: VecDeque<Entry>,
    /// Entries that did not fit.
    lost: u64,
    /// When the first of the waiting ones came.
    since: Option<Now>,
    urgent: bool,
    /// Not before, after a failure.
    retry: Option<Now>,
    failures: u32,
    /// Nothing can be sealed until the lease is renewed.
    stalled: bool,
}

impl Queue {
    pub(super) fn new(on: bool) -> Self {
        Self {
            on,
            begins: false,
            waiting: VecDeque::new(),
            lost: 0,
            since: None,
            urgent: false,
            retry: None,
            failures: 0,
            stalled: false,
        }
    }

    /// There is no log: nothing waits any more.
    pub(super) fn stop(&mut self) {
        *self = Self::new(false);
    }

    /// One is begun now. Whether there was none before, so that nobody writes yet.
    pub(super) fn begin(&mut self) -> bool {
        self.begins = true;
        !std::mem::replace(&mut self.on, true)
    }

    pub(super) fn begins(&self) -> bool {
        self.begins
    }

    /// Whether the recorder has to look.
    pub(super) fn push(&mut self, event: &Event, now: Now) -> bool {
        if !self.on {
            return false;
        }
        let entry = entry_of(event);
        let routine = is_routine(&entry);
        let first = self.since.is_none();
        // There is a live lease again.
        let goes_on = self.stalled && (event.action, event.outcome) == (Action::Renew, Outcome::Done);
        if goes_on {
            self.stalled = false;
            self.retry = None;
        }
        self.since.get_or_insert(now);
        self.urgent |= !routine;
        if !(routine && self.merge(&entry)) {
            if self.waiting.len() < CAPACITY {
                self.waiting.push_back(entry);
            } else {
                self.lost += entry.count;
            }
        }
        first || goes_on || self.urgent
    }

    /// Adds to an entry alike that no other kind of news has come after, so that what happened keeps its order.
    fn merge(&mut self, entry: &Entry) -> bool {
        let alike = self.waiting.iter_mut().rev().take_while(|before| is_routine(before)).find(|before| {
            (before.action, before.outcome) == (entry.action, entry.outcome)
                && before.reason == entry.reason
                && before.identity == entry.identity
                && before.keys == entry.keys
                && before.log == entry.log
        });
        let Some(before) = alike else { return false };
        before.count = before.count.saturating_add(entry.count);
        before.first = before.first.min(entry.first);
        before.last = before.last.max(entry.last);
        before.latency_us = before.latency_us.max(entry.latency_us);
        true
    }

    /// The next batch's leaves, which wait no longer.
    pub(super) fn take(&mut self, lost: impl FnOnce(u64) -> Entry) -> Vec<Vec<u8>> {
        if self.lost > 0 && self.waiting.len() < CAPACITY {
            self.waiting.push_back(lost(std::mem::take(&mut self.lost)));
        }
        let mut leaves = Vec::new();
        let mut bytes = 0;
        while leaves.len() < MAX_BATCH
            && bytes < MAX_BYTES
            && let Some(entry) = self.waiting.pop_front()
        {
            // An entry that breaks a rule of the format would stop all that follow.
            match entry.encode() {
                Ok(leaf) => {
                    bytes += leaf.len();
                    leaves.push(leaf);
                }
                Err(_) => self.lost += entry.count,
            }
        }
        leaves
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.lost == 0
    }

    /// How long the recorder may wait, if it has anything to do at all. `lease` is what is left of it.
    pub(super) fn due(&self, now: Now, lease: Option<Duration>, bound: Duration) -> Option<Duration> {
        let since = self.since?;
        if self.stalled {
            return None;
        }
        let until = |then: Now, wait: Duration| (then.boot + wait).saturating_sub(now.boot);
        let waited = if self.urgent { Duration::ZERO } else { until(since, ROUTINE) };
        // What waits is written before the lease runs out: afterwards nothing can be sealed until the store is used again.
        let left = lease.map_or(Duration::ZERO, |left| left.saturating_sub(bound / 8));
        let retry = self.retry.map_or(Duration::ZERO, |retry| until(retry, Duration::ZERO));
        Some(waited.min(left).max(retry))
    }

    /// Everything is written.
    pub(super) fn emptied(&mut self) {
        self.since = None;
        self.urgent = false;
        self.retry = None;
        self.failures = 0;
    }

    /// A flush came to nothing: with a dead lease there is nothing to do but wait for the next, otherwise it is tried again.
    pub(super) fn failed(&mut self, now: Now, lease: bool) {
        self.stalled = !lease;
        self.failures = self.failures.saturating_add(1);
        let wait = Duration::from_secs(1 << self.failures.min(6));
        self.retry = Some(now.after(wait));
        // Something waits all the same, whether in here or in the appender, and has waited.
        self.urgent = true;
        self.since.get_or_insert(now);
    }
}

/// What goes on all the time, and says no more by being said at once.
fn is_routine(entry: &Entry) -> bool {
    matches!(entry.action, Action::Describe | Action::Wrap | Action::Unwrap | Action::Renew | Action::Refuse)
}

fn entry_of(event: &Event) -> Entry {
    let since = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Entry {
        first: at,
        last: at,
        count: 1,
        node: event.node.to_string(),
        action: event.action,
        outcome: event.outcome,
        reason: event.reason.map(DenyReason::code).map(str::to_owned),
        identity: event.identity.as_ref().map(|identity| identity.as_str().to_owned()),
        keys: event.keys.iter().map(ToString::to_string).collect(),
        store_key: event.store_key,
        log: event.log.map(Into::into),
        swept: event.count,
        latency_us: u64::try_from(event.latency.as_micros()).unwrap_or(u64::MAX),
    }
}
