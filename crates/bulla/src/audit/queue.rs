//! Events that wait for the log: alike ones merged, and never more than fit.

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use bulla_envelope::audit::{Action, Entry, MAX_BATCH, Outcome};
use bulla_kek::{DenyReason, Now};

use super::{LINGER, ROUTINE};
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
        let waited = until(since, if self.urgent { LINGER } else { ROUTINE });
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bulla_kek::TokioRuntime;

    use super::*;
    use crate::audit::AuditMode;
    use crate::events::Events;

    const AT: Now = Now { boot: Duration::ZERO, wall: UNIX_EPOCH };

    struct Source(Events);

    impl Source {
        fn new() -> Self {
            Self(Events::new(None, Arc::new(TokioRuntime), "n".into(), AuditMode::Off))
        }

        fn event(&self, action: Action, key: &str) -> Event {
            let mut event = self.0.event(action, Outcome::Done);
            event.keys = vec![format!("https://v.vault.azure.net/keys/{key}").parse().unwrap()];
            event
        }
    }

    fn lost(count: u64) -> Entry {
        let event = Source::new().event(Action::AuditLost, "k");
        Entry { count, ..entry_of(&event) }
    }

    fn counts(queue: &mut Queue) -> Vec<(Action, u64)> {
        let leaves = queue.take(lost);
        let entries = leaves.iter().map(|leaf| Entry::decode(leaf).unwrap());
        entries.map(|entry| (entry.action, entry.count)).collect()
    }

    #[test]
    fn alike_ones_are_merged_but_not_across_other_news() {
        let (source, mut queue) = (Source::new(), Queue::new(true));
        for action in [Action::Unwrap, Action::Renew, Action::Unwrap, Action::Unwrap] {
            queue.push(&source.event(action, "k"), AT);
        }
        queue.push(&source.event(Action::Unwrap, "other"), AT);
        queue.push(&source.event(Action::Deny, "k"), AT);
        queue.push(&source.event(Action::Unwrap, "k"), AT);
        let expected = [
            (Action::Unwrap, 3),
            (Action::Renew, 1),
            (Action::Unwrap, 1),
            (Action::Deny, 1),
            (Action::Unwrap, 1),
        ];
        assert_eq!(counts(&mut queue), expected);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_the_first_news_stay() {
        let (source, mut queue) = (Source::new(), Queue::new(true));
        queue.push(&source.event(Action::Deny, "k"), AT);
        for i in 0..CAPACITY + 49 {
            queue.push(&source.event(Action::RotateEnd, &format!("k{i}")), AT);
        }
        let mut all = Vec::new();
        while !queue.is_empty() {
            let batch = counts(&mut queue);
            assert!(batch.len() <= MAX_BATCH);
            all.extend(batch);
        }
        assert_eq!(all[0], (Action::Deny, 1));
        let lost: u64 = all.iter().filter(|(action, _)| *action == Action::AuditLost).map(|(_, n)| n).sum();
        assert_eq!((all.len(), lost), (CAPACITY + 1, 50));
    }

    #[test]
    fn a_batch_of_the_largest_entries_fits_an_object() {
        let (source, mut queue) = (Source::new(), Queue::new(true));
        for i in 0..400 {
            let mut event = source.event(Action::RotateEnd, &format!("k{i}"));
            let long = format!("https://v.vault.azure.net/keys/{}", "k".repeat(120));
            event.keys = vec![long.parse().unwrap(); 8];
            queue.push(&event, AT);
        }
        let bytes: usize = queue.take(lost).iter().map(Vec::len).sum();
        assert!(bytes < bulla_envelope::MAX_OBJECT_LEN - 4096, "{bytes}");
        assert!(!queue.is_empty());
    }

    #[test]
    fn a_stopped_queue_keeps_nothing_and_a_dead_lease_is_waited_for() {
        let (source, mut queue) = (Source::new(), Queue::new(true));
        let bound = Duration::from_secs(60);
        assert!(queue.push(&source.event(Action::Renew, "k"), AT));
        assert_eq!(queue.due(AT, Some(bound), bound), Some(bound - bound / 8));
        queue.failed(AT, false);
        assert_eq!(queue.due(AT, None, bound), None);
        // The next renewal wakes the recorder, and what waited goes at once.
        assert!(queue.push(&source.event(Action::Renew, "k"), AT));
        assert!(queue.due(AT, Some(bound), bound).is_some_and(|wait| wait <= LINGER));
        queue.stop();
        assert!(!queue.push(&source.event(Action::Deny, "k"), AT));
        assert!(queue.is_empty() && queue.due(AT, Some(bound), bound).is_none());
    }
}
