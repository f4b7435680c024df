//! Contexts: what a sealed message, a MAC or a derivation is bound to.
//!
//! ```text
//! label NUL-padded to 32 bytes ‖ ids of 16 bytes each ‖ (u32 big-endian length ‖ bytes)*
//! ```
//!
//! A label fixes how many ids and fields follow it, so two different things never have the same context. No label starts
//! with `c2sp.org`, which the key derivation of Cobblestone keeps for itself.

use crate::digest::Digest;
use crate::ids::{BlobId, StoreId};

/// The length of a padded label.
pub const LABEL_LEN: usize = 32;

/// The extents of a blob.
pub const EXTENT: &str = "bulla/v1/extent";
/// The sealed part of an envelope.
pub const ENVELOPE: &str = "bulla/v1/envelope";
/// A record of the log.
pub const RECORD: &str = "bulla/v1/record";
/// A small record about the store's contents.
pub const META: &str = "bulla/v1/meta";
/// An upload session.
pub const UPLOAD: &str = "bulla/v1/upload";
/// A batch of the audit log.
pub const AUDIT: &str = "bulla/v1/audit";

/// `text` padded with NUL to 32 bytes.
///
/// # Panics
///
/// If `text` is longer. Labels are constants of this crate, so that is a compile-time error where it matters.
#[must_use]
pub const fn label(text: &str) -> [u8; LABEL_LEN] {
    let mut label = [0; LABEL_LEN];
    assert!(text.len() <= LABEL_LEN, "a label has at most 32 bytes");
    label.split_at_mut(text.len()).0.copy_from_slice(text.as_bytes());
    label
}

/// `label("bulla/v1/extent") ‖ store ‖ blob`.
///
/// The extent's object name is not in it, so that a copy under another name opens; its place in the blob is fixed by the
/// salt and commitment in the envelope.
#[must_use]
pub fn extent_context(store: &StoreId, blob: &BlobId) -> [u8; 64] {
    let mut context = [0; 64];
    context[..32].copy_from_slice(&label(EXTENT));
    context[32..48].copy_from_slice(store.as_bytes());
    context[48..].copy_from_slice(blob.as_bytes());
    context
}

/// `label("bulla/v1/envelope") ‖ u32 ‖ header ‖ u32 ‖ algorithm ‖ u32 ‖ digest`, the digest as the reader asked for it.
#[must_use]
pub fn envelope_context(header: &[u8], requested: &Digest) -> Vec<u8> {
    fields(ENVELOPE, &[header, requested.algorithm().as_str().as_bytes(), requested.as_bytes()])
}

/// `label("bulla/v1/meta") ‖ u32 ‖ header ‖ u32 ‖ kind ‖ u32 ‖ name`, the name as the reader asked for it.
#[must_use]
pub fn meta_context(header: &[u8], kind: &str, name: &[u8]) -> Vec<u8> {
    fields(META, &[header, kind.as_bytes(), name])
}

/// `label("bulla/v1/upload") ‖ u32 ‖ header ‖ u32 ‖ name`.
#[must_use]
pub fn upload_context(header: &[u8], name: &[u8]) -> Vec<u8> {
    fields(UPLOAD, &[header, name])
}

/// `label("bulla/v1/audit") ‖ u32 ‖ header ‖ u32 ‖ number as 8 bytes, big-endian`.
#[must_use]
pub fn audit_context(header: &[u8], number: u64) -> Vec<u8> {
    fields(AUDIT, &[header, &number.to_be_bytes()])
}

/// A label and length-prefixed fields.
pub(crate) fn fields(text: &str, fields: &[&[u8]]) -> Vec<u8> {
    let len = fields.iter().map(|field| 4 + field.len()).sum::<usize>();
    let mut context = Vec::with_capacity(LABEL_LEN + len);
    context.extend_from_slice(&label(text));
    for field in fields {
        let len =
            u32::try_from(field.len()).expect("what is named or bound is held in memory and far below 4 GiB");
        context.extend_from_slice(&len.to_be_bytes());
        context.extend_from_slice(field);
    }
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn layout() {
        let extent = extent_context(&StoreId::from_bytes([1; 16]), &BlobId::from_bytes([2; 16]));
        let expected = [b"bulla/v1/extent".as_slice(), &[0; 17], &[1; 16], &[2; 16]].concat();
        assert_eq!(extent.as_slice(), expected);

        let digest = Digest::from_bytes(Algorithm::Sha256, &[3; 32]).unwrap();
        let expected = [
            b"bulla/v1/envelope".as_slice(),
            &[0; 15],
            &[0, 0, 0, 2],
            b"hd",
            &[0, 0, 0, 6],
            b"sha256",
            &[0, 0, 0, 32],
            &[3; 32],
        ];
        assert_eq!(envelope_context(b"hd", &digest), expected.concat());
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        assert_ne!(meta_context(b"h", "ab", b"c"), meta_context(b"h", "a", b"bc"));
        assert_ne!(upload_context(b"h", b""), upload_context(b"", b"h"));
    }
}
