//! Base32 (RFC 4648), lower-case, unpadded, canonical: the text form of ids, names and anchors.

use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};

/// The lower-case, unpadded base32 form of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = BASE32_NOPAD.encode(bytes);
    text.make_ascii_lowercase();
    text
}

/// The bytes that [`encode`] gives exactly `text` for; `None` for upper case, padding or trailing bits.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    BASE32_NOPAD_NOCASE.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_per_value() {
        assert_eq!(encode(b"\xff\x00"), "74aa");
        assert_eq!(decode("74aa").unwrap(), b"\xff\x00");
        for text in ["74AA", "74ab", "74aa====", "74a", "74a1", "74a\u{e9}", " 74aa"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("").unwrap(), b"");
    }
}
