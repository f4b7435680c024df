//! The stock runtime: tokio, the system's clocks, the system's random numbers.

#![allow(clippy::disallowed_methods, reason = "this is the real end of the seam")]

use std::time::{Duration, SystemTime};

use bulla_envelope::random::RandomSource;

use crate::runtime::{BoxFuture, Now, Runtime};

/// [`Runtime`] on tokio.
///
/// `now` and `random` work anywhere; the others need a tokio runtime with timers around them.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioRuntime;

impl Runtime for TokioRuntime {
    fn now(&self) -> Now {
        Now { boot: boot_clock(), wall: SystemTime::now() }
    }

    /// # Panics
    /// Outside a tokio runtime with timers.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    /// # Panics
    /// Outside a tokio runtime.
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(tokio::spawn(task));
    }

    /// # Panics
    /// Outside a tokio runtime, or if the work panics.
    fn offload(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let handle = tokio::task::spawn_blocking(work);
        Box::pin(async move {
            if let Err(error) = handle.await
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        })
    }

    fn random(&self) -> &dyn RandomSource {
        &SystemRandom
    }
}

/// The operating system's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl RandomSource for SystemRandom {
    /// # Panics
    /// If the operating system has no random numbers: nothing can go on without them.
    fn fill(&self, dest: &mut [u8]) {
        getrandom::fill(dest).expect("the operating system gives random numbers");
    }
}

/// A clock that goes on while the machine sleeps.
#[cfg(unix)]
fn boot_clock() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "openbsd", target_os = "fuchsia"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "openbsd",
        target_os = "fuchsia"
    )))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let time = clock_gettime(CLOCK);
    // Neither part is negative on a clock that counts from boot.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Where there is no such clock, time since the first call; the wall clock then catches a suspend alone.
#[cfg(not(unix))]
fn boot_clock() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::compute;

    #[test]
    fn both_clocks_go_forward() {
        let (a, b) = (TokioRuntime.now(), TokioRuntime.now());
        assert!(b.boot >= a.boot);
        assert!(a.unix_ms() > 1_600_000_000_000);
    }

    #[test]
    fn random_numbers_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        SystemRandom.fill(&mut a);
        SystemRandom.fill(&mut b);
        assert_ne!(a, b);
    }

    #[tokio::test]
    async fn computed_values_come_back() {
        assert_eq!(compute(&TokioRuntime, || 6 * 7).await, Some(42));
    }

    #[tokio::test]
    #[should_panic(expected = "from the work")]
    async fn a_panic_of_the_work_reaches_the_caller() {
        compute(&TokioRuntime, || panic!("from the work")).await;
    }
}
