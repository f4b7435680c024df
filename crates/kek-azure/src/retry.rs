//! The one retry policy.
//!
//! ```text
//! attempts ≤ 3, each of at most three requests (challenge, token, the call itself) of at most 5 s
//! wait     0.2 s, 0.4 s … with jitter; throttled 1 s, 2 s …; or what Retry-After says
//! in all   at most give_up_after (20 s), whatever the above comes to; a wait that would pass it is not begun
//! ```
//!
//! Refusals and invalid calls are not tried again.

use std::pin::pin;
use std::time::Duration;

use bulla_kek::{KekError, KekErrorKind, Runtime};
use futures::future::{Either, select};

use crate::fault::{Again, Fault};
use crate::options::AzureOptions;

const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_THROTTLED: Duration = Duration::from_secs(1);

/// Calls until there is a useful answer, within the bounds above. `host` is for the message.
///
/// # Cancel safety
/// Dropping the future drops the request that is out.
pub(crate) async fn retry<T, F>(
    runtime: &dyn Runtime,
    options: &AzureOptions,
    host: &str,
    mut call: impl FnMut() -> F,
) -> Result<T, KekError>
where
    F: Future<Output = Result<T, Fault>>,
{
    let start = runtime.now();
    let limit = options.give_up_after;
    let attempts = async {
        let mut tried = 0;
        loop {
            let fault = match call().await {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            tried += 1;
            let pause = match fault.again {
                Again::Later => pause(tried, fault.error.kind(), runtime),
                Again::After(wait) => wait,
                Again::No | Again::FreshToken | Again::Missing => return Err(fault.error),
            };
            let spent = runtime.now().boot.saturating_sub(start.boot);
            if tried >= options.attempts || spent.saturating_add(pause) >= limit {
                return Err(fault.error);
            }
            tracing::debug!(host, tried, ?pause, error = %fault.error, "the key vault is asked again");
            runtime.sleep(pause).await;
        }
    };
    match select(pin!(attempts), runtime.sleep(limit)).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => {
            Err(KekError::unavailable(format!("{host} gives no useful answer within {limit:?}")))
        }
    }
}

/// Twice as long every time, less up to a half by chance.
fn pause(tried: u32, kind: KekErrorKind, runtime: &dyn Runtime) -> Duration {
    let first = if kind == KekErrorKind::Throttled { PAUSE_THROTTLED } else { PAUSE };
    let longest = first.saturating_mul(1 << tried.saturating_sub(1).min(8));
    let mut chance = [0];
    runtime.random().fill(&mut chance);
    longest.saturating_sub(longest.saturating_mul(u32::from(chance[0])) / 512)
}
