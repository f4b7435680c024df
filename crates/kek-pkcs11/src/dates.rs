//! `CKA_START_DATE` and `CKA_END_DATE`: civil dates, taken as UTC; the end date is the last day of validity.

use std::time::SystemTime;

use cryptoki::types::Date;
use jiff::ToSpan;
use jiff::tz::TimeZone;

/// A date attribute of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Day {
    /// Not set.
    None,
    /// Set to this day.
    On(jiff::civil::Date),
    /// Set, but to nothing that can be read: SoftHSM2 2.6 can't decrypt the dates of private objects. It sorts last, which
    /// matters to nobody, because such a key wraps nothing.
    Unreadable,
}

impl Day {
    pub(crate) fn of(date: &Date) -> Self {
        let (year, month, day) = (number(&date.year), number(&date.month), number(&date.day));
        // Empty, or zero as some tokens write "empty".
        if date.year.iter().all(|&byte| matches!(byte, 0 | b'0' | b' ')) {
            return Self::None;
        }
        let civil =
            || jiff::civil::Date::new(year?, i8::try_from(month?).ok()?, i8::try_from(day?).ok()?).ok();
        civil().map_or(Self::Unreadable, Self::On)
    }

    /// The instant at which this day begins.
    pub(crate) fn begin(self) -> Option<SystemTime> {
        match self {
            Self::On(date) => start(date),
            Self::None | Self::Unreadable => None,
        }
    }

    /// The instant at which this day is over.
    pub(crate) fn end(self) -> Option<SystemTime> {
        match self {
            Self::On(date) => start(date.checked_add(1.day()).ok()?),
            Self::None | Self::Unreadable => None,
        }
    }
}

fn start(date: jiff::civil::Date) -> Option<SystemTime> {
    TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.try_into().ok()
}

fn number(digits: &[u8]) -> Option<i16> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn day(text: &str) -> Day {
        Day::of(&Date::new_from_str_slice(&text[..4], &text[4..6], &text[6..]).unwrap())
    }

    #[test]
    fn a_key_is_valid_through_its_last_day() {
        let second = day("19700102");
        assert_eq!(second.begin(), Some(UNIX_EPOCH + Duration::from_secs(86_400)));
        assert_eq!(second.end(), Some(UNIX_EPOCH + Duration::from_secs(2 * 86_400)));
    }

    #[test]
    fn an_empty_date_is_none_and_a_broken_one_is_not() {
        assert_eq!(Day::of(&Date::new_empty()), Day::None);
        assert_eq!(day("00000000"), Day::None);
        for broken in ["20261301", "20260231", "2026  01", "20xx0101"] {
            assert_eq!(day(broken), Day::Unreadable, "{broken}");
        }
    }

    #[test]
    fn no_date_comes_before_every_date() {
        assert!(Day::None < day("19000101"));
        assert!(day("20251231") < day("20260101"));
    }
}
