//! So many requests per period, and no more: on demand, to see what a client does when Key Vault throttles it.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A limit as Key Vault has them: a number of requests per vault and period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Throttle {
    /// Requests per period.
    pub requests: u32,
    /// The period.
    pub period: Duration,
    /// Whether answers say when to come back; Key Vault does not promise to.
    pub retry_after: bool,
}

impl Throttle {
    /// So many requests per period, with `Retry-After`.
    pub fn new(requests: u32, period: Duration) -> Self {
        Self { requests, period, retry_after: true }
    }
}

/// The text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write a limit as requests per seconds, such as 2000/10s")]
pub struct InvalidThrottle;

impl FromStr for Throttle {
    type Err = InvalidThrottle;

    /// `N/Ss`
    fn from_str(text: &str) -> Result<Self, InvalidThrottle> {
        let (requests, period) = text.split_once('/').ok_or(InvalidThrottle)?;
        let seconds: u32 = period.strip_suffix('s').unwrap_or(period).parse().map_err(|_| InvalidThrottle)?;
        let requests = requests.parse().map_err(|_| InvalidThrottle)?;
        if seconds == 0 {
            return Err(InvalidThrottle);
        }
        Ok(Self::new(requests, Duration::from_secs(seconds.into())))
    }
}

/// Counts in fixed windows, as Key Vault's documentation describes its limits.
#[derive(Debug)]
pub(crate) struct Window {
    limit: Throttle,
    state: Mutex<(Instant, u32)>,
}

impl Window {
    pub(crate) fn new(limit: Throttle) -> Self {
        Self { limit, state: Mutex::new((Instant::now(), 0)) }
    }

    /// Whether one more request fits; if not, when the next window begins, if that is to be told.
    pub(crate) fn admit(&self) -> Result<(), Option<Duration>> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Result<(), Option<Duration>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, count) = &mut *state;
        if now.saturating_duration_since(*start) >= self.limit.period {
            (*start, *count) = (now, 0);
        }
        if *count < self.limit.requests {
            *count += 1;
            return Ok(());
        }
        let left = self.limit.period.saturating_sub(now.saturating_duration_since(*start));
        Err(self.limit.retry_after.then_some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_its_number_and_begins_anew() {
        let window = Window::new("2/10s".parse().unwrap());
        let start = window.state.lock().unwrap().0;
        let at = |seconds| window.admit_at(start + Duration::from_secs(seconds));
        assert_eq!((at(0), at(1)), (Ok(()), Ok(())));
        assert_eq!(at(4), Err(Some(Duration::from_secs(6))));
        assert_eq!((at(10), at(11), at(12)), (Ok(()), Ok(()), Err(Some(Duration::from_secs(8)))));
    }

    #[test]
    fn limits_as_text() {
        assert_eq!("2000/10s".parse(), Ok(Throttle::new(2000, Duration::from_secs(10))));
        assert_eq!("0/1".parse(), Ok(Throttle::new(0, Duration::from_secs(1))));
        for text in ["", "10", "/10s", "1/0s", "1/s", "-1/10s", "1/10m"] {
            assert_eq!(text.parse::<Throttle>(), Err(InvalidThrottle), "{text}");
        }
    }
}
