//! A rate limit for long work: so many envelopes per second, however many requests run at once.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bulla_kek::Runtime;

/// Hands out turns, evenly spaced. The runtime's clock, so that a simulation drives it.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Option<Duration>,
    /// The next free turn, on the boot clock.
    next: Mutex<Duration>,
}

impl Pace {
    /// `rate` per second; without it there is no limit.
    pub(crate) fn new(rate: Option<NonZeroU32>) -> Self {
        let interval = rate.map(|rate| Duration::from_secs(1) / rate.get());
        Self { interval, next: Mutex::new(Duration::ZERO) }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self, runtime: &dyn Runtime) {
        let Some(interval) = self.interval else { return };
        let now = runtime.now().boot;
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            // Turns that nobody took are not saved up.
            let turn = now.max(*next);
            *next = turn + interval;
            turn
        };
        if turn > now {
            runtime.sleep(turn - now).await;
        }
    }
}
