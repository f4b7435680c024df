//! Any extents and any range: pieces are whole chunks inside their extents and cover exactly what was asked.
//!
//! ```text
//! input = start(u64) ‖ length(u64) ‖ chunks per piece(u8) ‖ lengths of extents(u64)*
//! ```
#![no_main]

use bulla_envelope::cobblestone::{CHUNK_LEN, HEADER_LEN, SEALED_CHUNK_LEN, plaintext_len, sealed_len};
use libfuzzer_sys::fuzz_target;
use range::plan;

/// The file itself: it stands on the envelope layer alone, and the rest of the engine would take minutes to build with
/// instrumentation.
#[path = "../../crates/bulla/src/range.rs"]
mod range;

/// So many chunks are planned at most: a range over terabytes is correct but slow to go through.
const MOST: u64 = 1000;

fuzz_target!(|input: &[u8]| {
    let Some((start, rest)) = input.split_first_chunk::<8>() else { return };
    let Some((length, rest)) = rest.split_first_chunk::<8>() else { return };
    let Some((&per_piece, rest)) = rest.split_first() else { return };
    let (start, length) = (u64::from_le_bytes(*start), u64::from_le_bytes(*length));
    let length = length.min(MOST * CHUNK_LEN as u64);
    let extents: Vec<u64> =
        rest.as_chunks::<8>().0.iter().map(|len| u64::from_le_bytes(*len)).take(64).collect();
    for &len in &extents {
        if let Some(sealed) = sealed_len(len) {
            assert_eq!(plaintext_len(sealed), Some(len), "one length of plaintext, one of the message");
        }
    }
    let range = start..start.saturating_add(length);
    let pieces = plan(&extents, range.clone(), u64::from(per_piece));

    // Where each extent starts, as far as lengths are possible ones and add up.
    let mut starts = Vec::new();
    let mut size = 0_u64;
    for &len in &extents {
        let (Some(end), Some(_)) = (size.checked_add(len), sealed_len(len)) else { break };
        starts.push(size);
        size = end;
    }
    let mut at = range.start.min(size);
    for piece in pieces {
        let len = extents[piece.extent];
        let whole = sealed_len(len).expect("a possible length");
        let chunks = (piece.sealed.end - piece.sealed.start).div_ceil(SEALED_CHUNK_LEN as u64);
        assert!(chunks <= u64::from(per_piece).max(1) + 1, "a piece is too long");
        assert!(piece.sealed.start < piece.sealed.end && piece.sealed.end <= whole, "outside the extent");
        assert_eq!(piece.sealed.start, HEADER_LEN as u64 + piece.first_chunk * SEALED_CHUNK_LEN as u64);
        assert_eq!(piece.last, piece.sealed.end == whole, "the end of an extent is known as such");
        assert!(!piece.wanted.is_empty() && piece.wanted.end <= piece.plaintext_len);
        let from = starts[piece.extent] + piece.first_chunk * CHUNK_LEN as u64 + piece.wanted.start as u64;
        assert_eq!(from, at, "a gap or an overlap");
        at += piece.wanted.len() as u64;
    }
    assert_eq!(at, range.end.min(size).max(range.start.min(size)), "not all that was asked");
});
