//! Randomness is injected, so that a simulation can drive everything from a seed.

use rsa::rand_core::{Infallible, TryCryptoRng, TryRng};

/// A cryptographically secure random number generator.
///
/// The only source of keys, salts, ids and names. The one of the operating system lives in `bulla-kek`; a simulation
/// brings a seeded one.
pub trait RandomSource: Send + Sync {
    /// Fills all of `dest` with unpredictable bytes.
    ///
    /// Infallible: an implementation that can't get randomness must not return, because every caller would have to stop
    /// anyway.
    fn fill(&self, dest: &mut [u8]);
}

/// `N` random bytes that are not secret: ids, salts.
pub(crate) fn array<const N: usize>(random: &dyn RandomSource) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

/// A [`RandomSource`] as the RustCrypto crates want it.
pub(crate) struct RandCore<'a>(pub(crate) &'a dyn RandomSource);

impl TryRng for RandCore<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(array(self.0)))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(array(self.0)))
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(dest);
        Ok(())
    }
}

impl TryCryptoRng for RandCore<'_> {}
