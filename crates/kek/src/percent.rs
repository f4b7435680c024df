//! Percent-encoding (RFC 3986 §2.1), on bytes.

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// RFC 3986 `unreserved`: what needs no escape anywhere.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Escapes every byte that `keep` does not keep.
pub(crate) fn encode(bytes: &[u8], keep: fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        // Only ASCII can stay: `char::from` of another byte would be a different character.
        if byte.is_ascii() && keep(byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(HEX[usize::from(byte >> 4)]));
            text.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    text
}

/// Undoes escapes; `None` for a broken escape or a raw byte that `allow` does not allow.
pub(crate) fn decode(text: &str, allow: fn(u8) -> bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (hex_digit(rest.next()?)?, hex_digit(rest.next()?)?);
            bytes.push(high << 4 | low);
        } else if allow(byte) {
            bytes.push(byte);
        } else {
            return None;
        }
    }
    Some(bytes)
}

/// The value of a hexadecimal digit of either case.
pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go_both_ways() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = encode(&bytes, is_unreserved);
        assert!(text.is_ascii());
        assert_eq!(decode(&text, is_unreserved), Some(bytes));
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["%", "%4", "%zz", "a%", " "] {
            assert_eq!(decode(text, is_unreserved), None, "{text:?}");
        }
    }
}
