//! Base64 (RFC 4648 §4) in one spelling.

pub(super) use data_encoding::BASE64;
use zeroize::Zeroizing;

/// The bytes that `text` is *the* encoding of. A decoder alone takes padding in the middle as well, as where two encodings were
/// put one after the other.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    // It may be of a private key.
    let again = Zeroizing::new(BASE64.encode(&bytes));
    (*again == text).then_some(bytes)
}
