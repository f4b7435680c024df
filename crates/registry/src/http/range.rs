//! `Range` of requests for blobs (RFC 9110 §14), and `Content-Range` of uploads.
//!
//! One range is served as 206, and so are several, which podman asks for where it has parts of a layer: each once and in
//! the blob's order, so that no answer is much longer than the blob. Others are answered with the whole blob, as a server
//! may. What is not a range of bytes is ignored, and one that ends before it begins rejected, as the RFC allows: the
//! specification's suite wants 416.

use std::ops::Range;

/// Parts of one answer: as many as podman asks for at most, which joins those nearest to each other. Each costs a read.
const MAX_PARTS: usize = 1024;

/// What to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    Whole,
    Part(Range<u64>),
    /// More than one, ascending, none of which has bytes of another.
    Parts(Vec<Range<u64>>),
    /// None of the bytes that there are: 416.
    Nothing,
}

/// What `Range: text` selects of `size` bytes.
pub(super) fn select(text: &str, size: u64) -> Selected {
    let Some((unit, set)) = text.split_once('=') else { return Selected::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selected::Whole;
    }
    let mut parts: Vec<Range<u64>> = Vec::new();
    for (at, text) in set.split(',').enumerate() {
        let Some(part) = one(text, size) else { return Selected::Whole };
        // Of several, those that the blob does not reach are left out.
        if part.start >= part.end {
            continue;
        }
        if at >= MAX_PARTS || parts.last().is_some_and(|before| part.start < before.end) {
            return Selected::Whole;
        }
        parts.push(part);
    }
    match <[Range<u64>; 1]>::try_from(parts) {
        Ok([part]) => Selected::Part(part),
        Err(parts) if parts.is_empty() => Selected::Nothing,
        Err(parts) => Selected::Parts(parts),
    }
}

/// The bytes of `first-last`, `first-` or `-len`, of which there may be none; `None`: it is none of these.
fn one(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.trim().split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        // The last so many bytes.
        (None, Some(len)) if first.is_empty() => Some(size.saturating_sub(len)..size),
        (Some(first), None) if last.is_empty() => Some(first..size),
        (Some(first), Some(last)) if first <= last => Some(first..last.saturating_add(1).min(size)),
        (Some(_), Some(_)) => Some(0..0),
        _ => None,
    }
}

/// The bytes that `Content-Range: text` says an upload's chunk is: `first-last`, or in RFC 9110's form.
pub(super) fn chunk(text: &str) -> Option<Range<u64>> {
    let text = text.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split('/').next()?;
    let (first, last) = text.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < u64::MAX).then(|| first..last + 1)
}

/// Digits; what is too large for a blob is just large.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_selects_what_rfc_9110_says() {
        use Selected::{Nothing, Part, Parts, Whole};
        let huge = "99999999999999999999999";
        for (text, expected) in [
            ("bytes=0-9", Part(0..10)),
            ("bytes=0-0", Part(0..1)),
            ("bytes=90-", Part(90..100)),
            ("bytes=90-1000", Part(90..100)),
            (&format!("bytes=90-{huge}"), Part(90..100)),
            ("bytes=-10", Part(90..100)),
            ("bytes=-1000", Part(0..100)),
            (&format!("bytes=-{huge}"), Part(0..100)),
            ("Bytes = 1-2", Part(1..3)),
            ("bytes=99-", Part(99..100)),
            ("bytes=100-", Nothing),
            ("bytes=100-200", Nothing),
            (&format!("bytes={huge}-"), Nothing),
            ("bytes=-0", Nothing),
            ("bytes=5-2", Nothing),
            ("bytes=-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=0x1-2", Whole),
            ("bytes=1", Whole),
            ("bytes", Whole),
            ("", Whole),
            ("items=0-9", Whole),
            ("bytes=0-1,5-6", Parts(vec![0..2, 5..7])),
            ("bytes=0-1, 2-3 ,-5", Parts(vec![0..2, 2..4, 95..100])),
            ("bytes=0-1,100-", Part(0..2)),
            ("bytes=100-,-0", Nothing),
            ("bytes=0-1,9-2,5-6", Parts(vec![0..2, 5..7])),
            ("bytes=0-5,5-6", Whole),
            ("bytes=5-6,0-1", Whole),
            ("bytes=0-,-1", Whole),
            ("bytes=0-1,a-b", Whole),
            ("bytes=0-1,", Whole),
        ] {
            assert_eq!(select(text, 100), expected, "{text}");
        }
        for text in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(select(text, 0), Nothing, "{text} of nothing");
        }
        let many = |count: usize| {
            let parts: Vec<String> = (0..count).map(|part| format!("{}-{}", 2 * part, 2 * part)).collect();
            select(&format!("bytes={}", parts.join(",")), 1 << 20)
        };
        assert!(matches!(many(MAX_PARTS), Parts(parts) if parts.len() == MAX_PARTS));
        assert_eq!(many(MAX_PARTS + 1), Whole);
    }

    #[test]
    fn a_chunk_says_where_it_goes() {
        assert_eq!(chunk("0-9"), Some(0..10));
        assert_eq!(chunk("bytes 5-5/*"), Some(5..6));
        for text in ["", "-", "0", "0-", "-9", "9-0", "a-b", "0-18446744073709551615", "+0-9", "0--9"] {
            assert_eq!(chunk(text), None, "{text}");
        }
    }
}
