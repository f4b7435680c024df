//! `--range`: bytes as HTTP counts them (RFC 9110 §14.1.2), the last one included.

use std::ops::Range;
use std::str::FromStr;

use crate::exit::{Failure, Result};

/// `FIRST-LAST`, `FIRST-` or `-SUFFIX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteRange {
    Closed { first: u64, last: u64 },
    From { first: u64 },
    Suffix { len: u64 },
}

#[derive(Debug)]
pub(crate) struct NotARange;

impl std::fmt::Display for NotARange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a range is FIRST-LAST (both included), FIRST- or -SUFFIX, in bytes")
    }
}

impl std::error::Error for NotARange {}

impl FromStr for ByteRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().ok_or(NotARange)
        };
        let text = text.strip_prefix("bytes=").unwrap_or(text);
        match text.split_once('-') {
            Some(("", len)) => Ok(Self::Suffix { len: number(len)? }),
            Some((first, "")) => Ok(Self::From { first: number(first)? }),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(NotARange);
                }
                Ok(Self::Closed { first, last })
            }
            None => Err(NotARange),
        }
    }
}

impl ByteRange {
    /// The bytes `start..end` of a blob of `size` bytes. As in HTTP, what lies beyond its end is left out, and a range
    /// without any byte is refused.
    pub(crate) fn of(self, size: u64) -> Result<Range<u64>> {
        let range = match self {
            Self::Closed { first, last } => first..last.saturating_add(1).min(size),
            Self::From { first } => first..size,
            Self::Suffix { len } => size.saturating_sub(len)..size,
        };
        if range.is_empty() {
            return Err(Failure::invalid(format!("no byte of the blob is in this range: it has {size}")));
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, size: u64) -> Option<Range<u64>> {
        text.parse::<ByteRange>().unwrap().of(size).ok()
    }

    #[test]
    fn ranges_are_those_of_http() {
        assert_eq!(of("0-0", 10), Some(0..1));
        assert_eq!(of("bytes=2-4", 10), Some(2..5));
        assert_eq!(of("2-400", 10), Some(2..10));
        assert_eq!(of("9-", 10), Some(9..10));
        assert_eq!(of("-3", 10), Some(7..10));
        assert_eq!(of("-30", 10), Some(0..10));
        assert_eq!(of(&format!("0-{}", u64::MAX), 10), Some(0..10));
        for unsatisfiable in ["10-", "10-20", "-0"] {
            assert_eq!(of(unsatisfiable, 10), None, "{unsatisfiable}");
        }
        assert_eq!(of("0-", 0), None);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "-", "5", "5-4", "a-b", "1-2-3", "+1-2", "1 - 2", "-+1", "99999999999999999999-"] {
            assert!(text.parse::<ByteRange>().is_err(), "{text}");
        }
    }
}
