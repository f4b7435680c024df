//! A wrapped key: `[kid, alg, value]`. Used for DEKs in envelopes and for roots in the log.
//!
//! A wrap proves nothing by itself: anyone who has a KEK's public key can make one.

#![deny(clippy::indexing_slicing)]

use crate::cbor::{DecodeError, InvalidRecord, Reader, Writer, require};
use crate::ids::StoreKeyId;

/// Wraps in one envelope: 1 to 4.
pub const MAX_WRAPS: usize = 4;
/// Bytes in a `kid`: 1 to 512, printable ASCII without the space.
pub const MAX_KID_LEN: usize = 512;
/// Bytes in an `alg`: 1 to 32, printable ASCII without the space.
pub const MAX_ALG_LEN: usize = 32;
/// Bytes in a wrap's value: 1 to 1024, which is RSA with 8192 bits.
pub const MAX_WRAP_LEN: usize = 1024;

/// What a store key's `kid` begins with; no KEK's may.
pub const STORE_KEY_PREFIX: &str = "store-key:";
/// RFC 3394 with 256 bits, the `alg` of every wrap under a store key.
const A256KW: &str = "A256KW";

/// A key, wrapped under another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrap {
    /// Which key wrapped it: a provider's versioned key id, or a store key's ([`Wrap::under_store_key`]).
    pub kid: String,
    /// How: `RSA-OAEP-256` or `A256KW`. Others are carried, but `RSA1_5` is refused.
    pub alg: String,
    /// The wrapped key.
    pub value: Vec<u8>,
}

impl Wrap {
    /// The shortest encoding: `[kid, alg, value]` of one byte each.
    pub(crate) const MIN_ENCODED_LEN: usize = 7;

    /// A DEK wrapped under a store key.
    pub fn under_store_key(key: &StoreKeyId, value: [u8; 40]) -> Self {
        Self { kid: format!("{STORE_KEY_PREFIX}{key}"), alg: A256KW.to_owned(), value: value.to_vec() }
    }

    /// The store key that made this wrap, or `None` if a KEK did (or nobody: the id may be nonsense).
    pub fn store_key(&self) -> Option<StoreKeyId> {
        if self.alg != A256KW {
            return None;
        }
        self.kid.strip_prefix(STORE_KEY_PREFIX)?.parse().ok()
    }

    pub(crate) fn encoded_len_at_most(&self) -> usize {
        16 + self.kid.len() + self.alg.len() + self.value.len()
    }

    pub(crate) fn check(&self) -> Result<(), InvalidRecord> {
        check_kid(&self.kid)?;
        check_alg(&self.alg)?;
        require((1..=MAX_WRAP_LEN).contains(&self.value.len()), "a wrapped key is 1 to 1024 bytes")
    }
}

/// FORMAT-E3.
pub(crate) fn check_wraps(wraps: &[Wrap]) -> Result<(), InvalidRecord> {
    require((1..=MAX_WRAPS).contains(&wraps.len()), "an envelope has 1 to 4 wraps")?;
    wraps.iter().try_for_each(Wrap::check)?;
    require(all_different(wraps.iter().map(|wrap| &wrap.kid)), "the wraps of an envelope have different kids")
}

/// Whether no item occurs twice.
pub(crate) fn all_different<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut sorted: Vec<T> = items.collect();
    sorted.sort_unstable();
    sorted.iter().zip(sorted.iter().skip(1)).all(|(a, b)| a != b)
}

/// FORMAT-C6: printable ASCII, so that a kid from a bucket can't play tricks on a terminal or in a log.
pub(crate) fn check_text(text: &str, max: usize, rule: &'static str) -> Result<(), InvalidRecord> {
    require((1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()), rule)
}

fn check_kid(kid: &str) -> Result<(), InvalidRecord> {
    check_text(kid, MAX_KID_LEN, "a kid is 1 to 512 printable ASCII characters")
}

/// A KEK's `kid` is a [`check_kid`] that can't be taken for a store key's.
pub(crate) fn check_kek_kid(kid: &str) -> Result<(), InvalidRecord> {
    check_kid(kid)?;
    require(!kid.starts_with(STORE_KEY_PREFIX), "a KEK's kid does not begin with store-key:")
}

pub(crate) fn check_alg(alg: &str) -> Result<(), InvalidRecord> {
    check_text(alg, MAX_ALG_LEN, "an alg is 1 to 32 printable ASCII characters")?;
    // Not constant-time paddable, broken since 1998 (Bleichenbacher); refused wherever it is named.
    require(alg != "RSA1_5", "RSA1_5 is refused")
}

pub(crate) fn write_wrap(out: &mut Writer, wrap: &Wrap) {
    out.array(3).text(&wrap.kid).text(&wrap.alg).bytes(&wrap.value);
}

pub(crate) fn read_wrap(input: &mut Reader<'_>) -> Result<Wrap, DecodeError> {
    input.exact_array(3, "a wrap")?;
    let wrap = Wrap {
        kid: input.text("a kid")?.to_owned(),
        alg: input.text("an alg")?.to_owned(),
        value: input.bytes("a wrapped key")?.to_vec(),
    };
    wrap.check()?;
    Ok(wrap)
}
