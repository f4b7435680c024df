//! Which bytes of which data objects hold a range of a blob: arithmetic only, no I/O (FORMAT.md, Cobblestone: chunk *k*
//! of an extent at offset `56 + k · 16400`).
//!
//! ```text
//! blob     |------------ extent 0 ------------|------ extent 1 ------|
//! chunks   [16 KiB][16 KiB] … [short or empty][16 KiB] …    [short]
//! piece         ^^^^^^^^^^^^^^^  one ranged GET of whole chunks
//! ```

use std::ops::Range;

use bulla_envelope::cobblestone::{CHUNK_LEN, HEADER_LEN, SEALED_CHUNK_LEN, TAG_LEN, sealed_len};

const CHUNK: u64 = CHUNK_LEN as u64;
const SEALED_CHUNK: u64 = SEALED_CHUNK_LEN as u64;

/// One ranged GET: whole chunks of one extent, and what of their plaintext is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index of the extent in the blob.
    pub extent: usize,
    /// Index of the first chunk in the extent.
    pub first_chunk: u64,
    /// Whether the piece ends with the extent's last, short chunk.
    pub last: bool,
    /// The bytes of the data object to read.
    pub sealed: Range<u64>,
    /// How many bytes the chunks open to.
    pub plaintext_len: usize,
    /// Where in these the wanted bytes are; never empty.
    pub wanted: Range<usize>,
}

/// The pieces, in order, that hold `range` of a blob whose extents have these plaintext lengths. Each piece has at most
/// `max_chunks` chunks (and the empty chunk that ends an extent of whole chunks). What of `range` lies outside the blob
/// is left out.
#[must_use]
pub fn plan(extents: &[u64], range: Range<u64>, max_chunks: u64) -> Vec<Piece> {
    let max_chunks = max_chunks.max(1);
    let mut pieces = Vec::new();
    let mut start = 0_u64;
    for (extent, &len) in extents.iter().enumerate() {
        // Lengths from a decoded envelope sum to the blob's size; arbitrary ones must not overflow either.
        let (Some(end), Some(_)) = (start.checked_add(len), sealed_len(len)) else { break };
        let from = range.start.max(start);
        let to = range.end.min(end);
        if from < to {
            plan_extent(&mut pieces, extent, len, from - start..to - start, max_chunks);
        }
        start = end;
    }
    pieces
}

fn plan_extent(pieces: &mut Vec<Piece>, extent: usize, len: u64, wanted: Range<u64>, max_chunks: u64) {
    let last_chunk = len / CHUNK;
    let mut chunk = wanted.start / CHUNK;
    let final_chunk = (wanted.end - 1) / CHUNK;
    while chunk <= final_chunk {
        let mut next = final_chunk.saturating_add(1).min(chunk.saturating_add(max_chunks));
        // An extent of whole chunks ends with an empty one: whoever reads up to the end authenticates it too.
        if next == last_chunk && len.is_multiple_of(CHUNK) {
            next += 1;
        }
        let last = next > last_chunk;
        let plain_start = chunk * CHUNK;
        let plain_end = if last { len } else { next * CHUNK };
        let sealed_start = HEADER_LEN as u64 + chunk * SEALED_CHUNK;
        let sealed_len = plain_end - plain_start + (next - chunk) * TAG_LEN as u64;
        let (Ok(plaintext_len), Ok(skip), Ok(until)) = (
            usize::try_from(plain_end - plain_start),
            usize::try_from(wanted.start.max(plain_start) - plain_start),
            usize::try_from(wanted.end.min(plain_end) - plain_start),
        ) else {
            return;
        };
        pieces.push(Piece {
            extent,
            first_chunk: chunk,
            last,
            sealed: sealed_start..sealed_start + sealed_len,
            plaintext_len,
            wanted: skip..until,
        });
        chunk = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_inside_one_chunk_reads_that_chunk() {
        let pieces = plan(&[100_000], 20_000..20_010, 64);
        assert_eq!(
            pieces,
            [Piece {
                extent: 0,
                first_chunk: 1,
                last: false,
                sealed: 56 + 16_400..56 + 2 * 16_400,
                plaintext_len: CHUNK_LEN,
                wanted: 3616..3626,
            }]
        );
    }

    #[test]
    fn the_empty_last_chunk_is_read_with_the_end() {
        let pieces = plan(&[2 * CHUNK], 0..2 * CHUNK, 2);
        assert_eq!(pieces.len(), 1);
        assert!(pieces[0].last);
        assert_eq!(pieces[0].sealed, 56..56 + 2 * 16_400 + 16);
    }

    proptest! {
        #[test]
        fn pieces_cover_exactly_the_range(
            extents in prop::collection::vec(1_u64..200_000, 0..6),
            a in 0_u64..900_000, b in 0_u64..900_000, max_chunks in 1_u64..9,
        ) {
            let size: u64 = extents.iter().sum();
            let range = a.min(b)..a.max(b);
            let starts: Vec<u64> = extents.iter().scan(0, |at, len| { let s = *at; *at += len; Some(s) }).collect();
            let mut at = range.start.min(size);
            for piece in plan(&extents, range.clone(), max_chunks) {
                let base = starts[piece.extent] + piece.first_chunk * CHUNK;
                prop_assert_eq!(base + piece.wanted.start as u64, at);
                prop_assert!(!piece.wanted.is_empty() && piece.wanted.end <= piece.plaintext_len);
                prop_assert!(piece.sealed.end - piece.sealed.start <= max_chunks * SEALED_CHUNK + 16);
                let whole = sealed_len(extents[piece.extent]).unwrap();
                prop_assert!(piece.sealed.end <= whole);
                prop_assert_eq!(piece.last, piece.sealed.end == whole);
                at += (piece.wanted.end - piece.wanted.start) as u64;
            }
            prop_assert_eq!(at, range.end.min(size).max(range.start.min(size)));
        }

        #[test]
        fn any_numbers_are_survived(extents in prop::collection::vec(any::<u64>(), 0..4), a: u64, len in 0_u64..1_000_000) {
            let _ = plan(&extents, a..a.saturating_add(len), 64);
        }
    }
}
