//! The runtime seam: the only way to time, tasks, other threads and randomness.
//!
//! Nothing above this trait reads a clock, starts a task or draws a random number in any other way, so that a
//! simulation that implements it decides the order of everything.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulla_envelope::random::RandomSource;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One reading of both clocks.
///
/// Two, because each misses something: the boot clock can't be set but stands still in some suspended virtual
/// machines; the wall clock sees those but can be set. A lease ends when either says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed point, going on while the machine sleeps (`CLOCK_BOOTTIME`).
    pub boot: Duration,
    /// The time of day.
    pub wall: SystemTime,
}

impl Now {
    /// The time since `then`, by whichever clock says more; a wall clock that was set back counts as for ever.
    pub fn since(&self, then: &Self) -> Duration {
        let boot = self.boot.saturating_sub(then.boot);
        let wall = self.wall.duration_since(then.wall).unwrap_or(Duration::MAX);
        boot.max(wall)
    }

    /// The wall clock in milliseconds since 1970, as records store it; 0 before 1970.
    pub fn unix_ms(&self) -> u64 {
        let since = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Both clocks `by` later.
    #[must_use]
    pub fn after(&self, by: Duration) -> Self {
        Self { boot: self.boot.saturating_add(by), wall: self.wall.checked_add(by).unwrap_or(self.wall) }
    }
}

/// Time, tasks, other threads and randomness.
pub trait Runtime: Debug + Send + Sync + 'static {
    /// Both clocks, now.
    fn now(&self) -> Now;

    /// Waits. Time during which the machine sleeps need not count: who waits looks at [`now`](Self::now) again.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs a task in the background, to its end.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Runs work that would hold up the executor (RSA, Argon2, hashing, file calls) somewhere else, and resolves
    /// when it is done. Work that panics makes the future panic. A runtime that shuts down may drop the
    /// work unrun and resolve; [`compute`] tells the two apart.
    fn offload(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Cryptographically secure random numbers.
    fn random(&self) -> &dyn RandomSource;
}

/// Runs `work` through [`Runtime::offload`] and gives back its value, or `None` if the runtime shut down before
/// the work ran.
///
/// # Cancel safety
/// Dropping the future does not stop the work; only its value is lost.
pub async fn compute<T: Send + 'static>(
    runtime: &dyn Runtime,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let slot = Arc::new(Mutex::new(None));
    let there = Arc::clone(&slot);
    runtime
        .offload(Box::new(move || {
            let value = work();
            *there.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }))
        .await;
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}
