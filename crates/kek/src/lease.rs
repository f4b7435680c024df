//! The revocation bound: for how long what the KEK unwrapped may be used.
//!
//! ```text
//!            granted                                    granted
//!   Expired ─────────► Live ──denied──► Revoked ───────────────► Live
//!      ▲                │ └─unavailable, then R (+ grace) over─► Unavailable ─granted─► Live
//!      └─R over, or a clock jumped back─┘
//! ```
//!
//! A state machine without I/O and without a clock: every call brings [`Now`], and whoever drives it does what
//! [`Lease::next`] says. Nothing is usable later than R after the last successful unwrap was *sent*, on either
//! clock (FORMAT-P11).
//!
//! Readings are passed in the order in which they were taken: read the clocks inside the lock that guards the
//! lease. A reading older than the one before it is taken for a clock that was set back, and ends the lease.

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use bulla_envelope::random::RandomSource;

use crate::error::DenyReason;
use crate::runtime::Now;

/// The longest pause between two probes of a key that is revoked or out of reach.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// A provider may ask for a longer pause, but not for one in which nobody would notice that it is back.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long a lease lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseOptions {
    /// R: the promise to the key's owner.
    pub revocation_bound: Duration,
    /// How much longer while the provider is out of reach (never when it says no). The promise is then
    /// R + grace. Zero: off.
    pub outage_grace: Duration,
}

impl Default for LeaseOptions {
    /// R = 60 s, no grace.
    fn default() -> Self {
        Self { revocation_bound: Duration::from_secs(60), outage_grace: Duration::ZERO }
    }
}

impl LeaseOptions {
    fn bound(&self, outage: Option<Outage>) -> Duration {
        match outage {
            Some(Outage { grace: true, .. }) => self.revocation_bound.saturating_add(self.outage_grace),
            _ => self.revocation_bound,
        }
    }
}

/// The lease of one store.
#[derive(Debug)]
pub struct Lease {
    options: LeaseOptions,
    state: State,
    /// The newest reading of the clocks.
    seen: Option<Now>,
    /// Goes up with everything after which an older request's success means nothing.
    generation: u64,
    /// When to ask again after a failure, on the boot clock.
    retry_at: Option<Duration>,
    /// The last use, on the boot clock.
    used_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Live { sent: Now, outage: Option<Outage> },
    Expired,
    Revoked { reason: DenyReason, since: Now },
    Unavailable { since: Now },
}

/// Renewing fails, and nobody said no.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Now,
    /// Whether nothing but the way to the provider was in the way: only that lengthens the lease.
    grace: bool,
}

/// A request that will show whether the key can still be used; made before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    sent: Now,
    generation: u64,
}

impl Probe {
    /// When it was sent: the lease counts from here.
    pub fn sent_at(&self) -> Now {
        self.sent
    }
}

/// Why nothing may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseEnd {
    /// The time is over, or a clock was set back, or nothing was granted yet: a probe may well succeed.
    Expired,
    /// The provider refused.
    Revoked(DenyReason),
    /// The provider is out of reach, and the time is over.
    Unavailable,
}

/// The lease as status shows it. Times are of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseState {
    /// Secrets may be used.
    Live {
        /// When the request that granted it was sent.
        granted: SystemTime,
        /// When it ends unless renewed.
        until: SystemTime,
        /// Since when renewing fails because the provider is out of reach.
        outage_since: Option<SystemTime>,
    },
    /// It ran out unused, or was never granted.
    Expired,
    /// The provider refuses.
    Revoked {
        /// Why, by its last answer.
        reason: DenyReason,
        /// Since its first refusal.
        since: SystemTime,
    },
    /// The provider is out of reach.
    Unavailable {
        /// Since the first failure.
        since: SystemTime,
    },
}

/// What whoever drives the lease does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a driver has to handle every one")]
pub enum Next {
    /// Ask the provider now.
    Probe,
    /// Look again after this time (or when [`Lease::note_use`] says so): a probe is due then, or the lease ends and
    /// secrets are wiped.
    Wait(Duration),
    /// Nothing, until somebody needs the key.
    Idle,
}

impl Lease {
    /// A lease that nothing was granted to yet.
    pub fn new(options: LeaseOptions) -> Self {
        Self { options, state: State::Expired, seen: None, generation: 0, retry_at: None, used_at: None }
    }

    /// Its terms.
    pub fn options(&self) -> LeaseOptions {
        self.options
    }

    /// New terms, from the store's log. A shorter bound acts at once.
    pub fn set_options(&mut self, options: LeaseOptions) {
        self.options = options;
    }

    /// To be called before an unwrap is sent; its outcome is reported with what this returns. A probe that is never
    /// reported has no effect.
    #[must_use]
    pub fn start_probe(&mut self, now: Now) -> Probe {
        self.observe(now);
        Probe { sent: now, generation: self.generation }
    }

    /// The unwrap succeeded. Returns whether the lease counts from it: not if it was sent before a refusal was heard or a
    /// clock was set back, or longer ago than R.
    #[must_use = "a success that does not count grants nothing"]
    pub fn granted(&mut self, probe: Probe, now: Now) -> bool {
        self.observe(now);
        let age = elapsed(probe.sent, now);
        if probe.generation != self.generation || age.is_none_or(|age| age >= self.options.revocation_bound) {
            return false;
        }
        if let State::Live { sent, .. } = &self.state
            && sent.boot > probe.sent.boot
        {
            // Two were under way, and the younger one's answer came first.
            return true;
        }
        self.state = State::Live { sent: probe.sent, outage: None };
        self.retry_at = None;
        true
    }

    /// The provider refused, whichever request it was: the lease ends at once, and successes of requests that are
    /// already under way no longer count.
    ///
    /// For refusals of *unwrap* or *describe*. That an expired key does not wrap is no refusal here.
    pub fn denied(&mut self, reason: DenyReason, now: Now, random: &dyn RandomSource) {
        self.observe(now);
        self.generation += 1;
        let since = match self.state {
            State::Revoked { since, .. } => since,
            _ => now,
        };
        self.state = State::Revoked { reason, since };
        self.retry_after(self.probe_interval(), None, now, random);
    }

    /// The request failed without a verdict. The lease goes on until it ends; `retry_after` is the provider's wish.
    pub fn unavailable(
        &mut self,
        probe: Probe,
        retry_after: Option<Duration>,
        now: Now,
        random: &dyn RandomSource,
    ) {
        self.fail(probe, true, retry_after, now, random);
    }

    /// The request could not be judged for a reason that is not the provider's (a damaged log): as
    /// [`unavailable`](Self::unavailable), but it earns no grace, or who can write the bucket could lengthen the lease.
    pub fn blocked(&mut self, probe: Probe, now: Now, random: &dyn RandomSource) {
        self.fail(probe, false, None, now, random);
    }

    fn fail(
        &mut self,
        probe: Probe,
        grace: bool,
        retry_after: Option<Duration>,
        now: Now,
        random: &dyn RandomSource,
    ) {
        self.observe(now);
        let mut interval = self.probe_interval();
        let options = self.options;
        match &mut self.state {
            // A younger request succeeded meanwhile.
            State::Live { sent, .. } if probe.sent.boot < sent.boot => return,
            State::Live { sent, outage } => {
                let outage = outage.get_or_insert(Outage { since: now, grace });
                outage.grace &= grace;
                // The nearer the end, the more often: an outage that is over in time must not show.
                let to_the_end = options.bound(Some(*outage));
                let left = to_the_end.saturating_sub(elapsed(*sent, now).unwrap_or(Duration::MAX));
                let bound = options.revocation_bound;
                interval = interval.min(bound / 8).min(left / 4).max(bound / 64);
            }
            State::Expired => self.state = State::Unavailable { since: now },
            // That it can't be reached now does not take back what it said.
            State::Revoked { .. } | State::Unavailable { .. } => {}
        }
        self.retry_after(interval, retry_after, now, random);
    }

    /// Whether secrets may be used now. Asked before every use, and after opening and before releasing a batch.
    ///
    /// # Errors
    /// [`LeaseEnd`] if not: wipe them.
    pub fn usable(&mut self, now: Now) -> Result<(), LeaseEnd> {
        self.observe(now);
        match self.state {
            State::Live { .. } => Ok(()),
            State::Expired => Err(LeaseEnd::Expired),
            State::Revoked { reason, .. } => Err(LeaseEnd::Revoked(reason)),
            State::Unavailable { .. } => Err(LeaseEnd::Unavailable),
        }
    }

    /// Secrets are in use: the lease is worth renewing. Returns whether this is the first use since it was granted, so
    /// that whoever drives it looks at [`next`](Self::next) again.
    pub fn note_use(&mut self, now: Now) -> bool {
        self.observe(now);
        let first = !self.in_use();
        self.used_at = Some(now.boot);
        first && self.in_use()
    }

    /// What to do next. It does not know whether a probe is under way: whoever drives it sends one at a time, and goes on
    /// looking at [`usable`](Self::usable) meanwhile, so that an answer that never comes does not outlive the lease.
    pub fn next(&mut self, now: Now) -> Next {
        self.observe(now);
        let until_retry = self.retry_at.map(|at| at.saturating_sub(now.boot));
        match self.state {
            State::Live { sent, outage } => {
                let age = elapsed(sent, now).unwrap_or(Duration::MAX);
                let left = self.options.bound(outage).saturating_sub(age);
                let renewal = (self.options.revocation_bound / 2).saturating_sub(age);
                match until_retry.or(self.in_use().then_some(renewal)) {
                    Some(Duration::ZERO) => Next::Probe,
                    Some(wait) => Next::Wait(wait.min(left)),
                    None => Next::Wait(left),
                }
            }
            State::Expired => Next::Idle,
            State::Revoked { .. } | State::Unavailable { .. } => match until_retry {
                None | Some(Duration::ZERO) => Next::Probe,
                Some(wait) => Next::Wait(wait),
            },
        }
    }

    /// When the provider will be asked next if nothing happens, by the wall clock; `None`: when somebody needs the key.
    pub fn next_probe(&mut self, now: Now) -> Option<SystemTime> {
        let until_retry = |at: Duration| at.saturating_sub(now.boot);
        let wait = match (self.next(now), self.state) {
            (Next::Idle, _) => return None,
            (Next::Probe, _) => Duration::ZERO,
            (_, State::Live { sent, .. }) => match self.retry_at {
                Some(at) => until_retry(at),
                None if self.in_use() => {
                    let age = elapsed(sent, now).unwrap_or(Duration::MAX);
                    (self.options.revocation_bound / 2).saturating_sub(age)
                }
                None => return None,
            },
            (Next::Wait(wait), _) => wait,
        };
        Some(now.after(wait).wall)
    }

    /// How long secrets may still be used if nothing happens; `None` if they may not.
    pub fn remaining(&mut self, now: Now) -> Option<Duration> {
        self.observe(now);
        match self.state {
            State::Live { sent, outage } => {
                elapsed(sent, now).map(|age| self.options.bound(outage).saturating_sub(age))
            }
            _ => None,
        }
    }

    /// For status.
    pub fn state(&mut self, now: Now) -> LeaseState {
        self.observe(now);
        match self.state {
            State::Live { sent, outage } => LeaseState::Live {
                granted: sent.wall,
                until: sent.after(self.options.bound(outage)).wall,
                outage_since: outage.map(|outage| outage.since.wall),
            },
            State::Expired => LeaseState::Expired,
            State::Revoked { reason, since } => LeaseState::Revoked { reason, since: since.wall },
            State::Unavailable { since } => LeaseState::Unavailable { since: since.wall },
        }
    }

    /// Takes note of the time: ends a lease that is over, and one under which a clock went back.
    fn observe(&mut self, now: Now) {
        let boot_went_back = self.seen.is_some_and(|seen| now.boot < seen.boot);
        let went_back = boot_went_back || self.seen.is_some_and(|seen| now.wall < seen.wall);
        self.seen = Some(now);
        if went_back {
            // Times of requests under way are of the old clock.
            self.generation += 1;
        }
        if boot_went_back {
            self.used_at = None;
            self.retry_at = self.retry_at.map(|_| now.boot);
        }
        if let State::Live { sent, outage } = self.state {
            let over = elapsed(sent, now).is_none_or(|age| age >= self.options.bound(outage));
            if went_back || over {
                self.state = match outage {
                    Some(Outage { since, .. }) => State::Unavailable { since },
                    None => State::Expired,
                };
            }
        }
    }

    fn in_use(&self) -> bool {
        match self.state {
            State::Live { sent, .. } => self.used_at.is_some_and(|used| used >= sent.boot),
            _ => false,
        }
    }

    fn probe_interval(&self) -> Duration {
        (self.options.revocation_bound / 2).min(MAX_PROBE_INTERVAL)
    }

    fn retry_after(
        &mut self,
        interval: Duration,
        wish: Option<Duration>,
        now: Now,
        random: &dyn RandomSource,
    ) {
        let wish = wish.unwrap_or_default().min(MAX_RETRY_AFTER);
        self.retry_at = Some(now.boot.saturating_add(jitter(interval, random).max(wish)));
    }
}

/// The time since `then`, by the clock that says more; `None` if either went back.
fn elapsed(then: Now, now: Now) -> Option<Duration> {
    let boot = now.boot.checked_sub(then.boot)?;
    let wall = now.wall.duration_since(then.wall).ok()?;
    Some(boot.max(wall))
}

/// Between ¾ of the interval and all of it, so that many nodes don't ask at the same moment.
fn jitter(interval: Duration, random: &dyn RandomSource) -> Duration {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    let share = f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX);
    interval.mul_f64(0.75 + share / 4.0)
}
