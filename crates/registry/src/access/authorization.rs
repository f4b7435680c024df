//! The header `Authorization` (RFC 9110 §11.6.2), as Basic (RFC 7617) and Bearer (RFC 6750) have it.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use data_encoding::BASE64;
use zeroize::Zeroizing;

/// Longer names and passwords than anybody has.
const MAX_BASIC: usize = 2 << 10;

/// Name and password, as they were sent.
pub(super) struct Basic {
    bytes: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl Basic {
    /// `None` where there is no such header, more than one, or none of this kind.
    pub(super) fn parse(headers: &HeaderMap) -> Option<Self> {
        let encoded = credentials(headers, "basic")?;
        if encoded.len() > MAX_BASIC {
            return None;
        }
        let bytes = Zeroizing::new(BASE64.decode(encoded.as_bytes()).ok()?);
        let colon = bytes.iter().position(|&byte| byte == b':')?;
        Some(Self { bytes, colon })
    }

    /// `None`: no name that could be in a file of names.
    pub(super) fn name(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(..self.colon)?).ok()
    }

    pub(super) fn password(&self) -> &[u8] {
        self.bytes.get(self.colon + 1..).unwrap_or_default()
    }

    /// Both, the name being what is before the first colon.
    pub(super) fn both(&self) -> &[u8] {
        &self.bytes
    }
}

/// The token of a `Bearer` header.
#[cfg(feature = "aws-lc")]
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    credentials(headers, "bearer")
}

fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (only, None) = (all.next()?, all.next()) else { return None };
    let (found, rest) = only.to_str().ok()?.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(values: &[&str]) -> Option<(String, Vec<u8>)> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        let basic = Basic::parse(&headers)?;
        Some((basic.name()?.to_owned(), basic.password().to_vec()))
    }

    #[test]
    fn names_end_at_the_first_colon() {
        let of = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        let seen = |text: &str| parsed(&[&of(text)]);
        assert_eq!(seen("alice:secret"), Some(("alice".into(), b"secret".to_vec())));
        assert_eq!(seen("alice:a:b"), Some(("alice".into(), b"a:b".to_vec())));
        assert_eq!(seen(":"), Some((String::new(), Vec::new())));
        assert_eq!(seen("alice"), None);
        assert_eq!(parsed(&["bAsIc YTpi"]), Some(("a".into(), b"b".to_vec())));
        for wrong in ["", "Basic", "Basic ", "Basic !", "Basic YTpi=", "Bearer YTpi", "Basic YTpi YTpi"] {
            assert_eq!(parsed(&[wrong]), None, "{wrong}");
        }
        assert_eq!(parsed(&[&of("a:b"), &of("a:b")]), None, "which of them?");
        assert_eq!(seen(&"a".repeat(5000)), None);
    }
}
