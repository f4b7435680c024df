//! The limits: AES-256-GCM of AWS-LC and SHA-256, called as cheaply as they can be.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

/// Bytes in one call: large enough that the cost of a call does not show.
pub const BLOCK: usize = 256 << 10;

/// A key for all blocks. It is for measuring: nonces repeat.
#[must_use]
pub fn key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes are a key"))
}

/// Seals every block in place.
pub fn seal(key: &LessSafeKey, data: &mut [u8]) {
    for block in data.chunks_mut(BLOCK) {
        let tag =
            key.seal_in_place_separate_tag(nonce(), Aad::empty(), block).expect("a block is short enough");
        let _ = std::hint::black_box(tag);
    }
}

/// Hashes each block, then seals it while it is in the cache.
pub fn hash_and_seal(key: &LessSafeKey, data: &mut [u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for block in data.chunks_mut(BLOCK) {
        hasher.update(&*block);
        let tag =
            key.seal_in_place_separate_tag(nonce(), Aad::empty(), block).expect("a block is short enough");
        let _ = std::hint::black_box(tag);
    }
    hasher.finalize().into()
}

/// The digest of all of it.
#[must_use]
pub fn hash(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// Blocks sealed one by one, each with its tag apart, as [`open`] wants them.
#[must_use]
pub fn sealed(key: &LessSafeKey, plaintext: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let blocks = plaintext.chunks(BLOCK).map(|block| {
        let mut block = block.to_vec();
        let tag = key
            .seal_in_place_separate_tag(nonce(), Aad::empty(), &mut block)
            .expect("a block is short enough");
        (block, tag.as_ref().to_vec())
    });
    blocks.collect()
}

/// Opens every block from where it is into `out`, without a copy.
pub fn open(key: &LessSafeKey, sealed: &[(Vec<u8>, Vec<u8>)], out: &mut [u8]) {
    for ((block, tag), out) in sealed.iter().zip(out.chunks_mut(BLOCK)) {
        key.open_separate_gather(nonce(), Aad::empty(), block, tag, out)
            .expect("it was sealed with this key");
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
