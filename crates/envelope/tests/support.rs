//! What the tests share.

use std::sync::atomic::{AtomicU64, Ordering};

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::random::RandomSource;

/// Says that a test can't run here.
///
/// # Panics
///
/// If `BULLA_NO_SKIPS` is `1`.
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("BULLA_NO_SKIPS").is_none_or(|value| value != "1"), "may not be skipped: {why}");
    #[allow(clippy::print_stdout, reason = "a test's output, which names what did not run")]
    {
        println!("SKIPPED: {why}");
    }
}

/// Every back end that was built.
pub(crate) fn providers() -> Vec<&'static CryptoProvider> {
    let mut providers = vec![CryptoProvider::rust_crypto()];
    if CryptoProvider::best().name != providers[0].name {
        providers.push(CryptoProvider::best());
    }
    providers
}

/// Reproducible "randomness": hashes of a seed and a counter.
pub(crate) struct Seeded {
    seed: u64,
    next: AtomicU64,
}

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }
}

impl RandomSource for Seeded {
    fn fill(&self, dest: &mut [u8]) {
        for piece in dest.chunks_mut(64) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let block =
                Digest::of(Algorithm::Sha512, &[self.seed.to_be_bytes(), number.to_be_bytes()].concat());
            piece.copy_from_slice(&block.as_bytes()[..piece.len()]);
        }
    }
}

pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Seeded::new(seed).fill(&mut bytes);
    bytes
}

pub(crate) fn array<const N: usize>(seed: u64) -> [u8; N] {
    bytes(seed, N).try_into().unwrap()
}
