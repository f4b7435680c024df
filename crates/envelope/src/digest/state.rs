//! Where a hash stands after some bytes, so that another process can go on.
//!
//! ```text
//! chain = H(i) of FIPS 180-4 §6: eight words, big-endian        rest = the bytes after the last whole block
//! ```
//!
//! That is all there is to a SHA-2 state beside the number of bytes, so a state is not tied to the library that made it.

use core::fmt;

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Sha256, Sha512};

use super::{Algorithm, Hasher, State};

/// A hash function's state after [`len`](Self::len) bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct HashState {
    pub(crate) algorithm: Algorithm,
    pub(crate) len: u64,
    pub(crate) chain: Vec<u8>,
    pub(crate) rest: Vec<u8>,
}

impl HashState {
    /// The hash function.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How many bytes were hashed.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was hashed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Algorithm {
    /// Bytes of a block.
    pub(crate) const fn block_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// Bytes of a word.
    const fn word_len(self) -> usize {
        match self {
            Self::Sha256 => 4,
            Self::Sha512 => 8,
        }
    }

    /// Bytes of the number of blocks, in the library's serialization.
    const fn count_len(self) -> usize {
        match self {
            Self::Sha256 => 8,
            Self::Sha512 => 16,
        }
    }
}

impl Hasher {
    /// Where it stands.
    ///
    /// # Panics
    ///
    /// If more than 2⁶⁴ − 1 bytes were hashed.
    #[must_use]
    pub fn state(&self) -> HashState {
        let algorithm = self.algorithm();
        match &self.0 {
            State::Sha256(hasher) => from_library(algorithm, &hasher.serialize()),
            State::Sha512(hasher) => from_library(algorithm, &hasher.serialize()),
        }
    }

    /// Goes on where `state` stands, or `None` if it is none: its parts don't fit its algorithm and length.
    #[must_use]
    pub fn resume(state: &HashState) -> Option<Self> {
        let serialized = to_library(state)?;
        Some(Self(match state.algorithm {
            Algorithm::Sha256 => {
                let serialized = SerializedState::<Sha256>::try_from(serialized.as_slice()).ok()?;
                State::Sha256(Sha256::deserialize(&serialized).ok()?)
            }
            Algorithm::Sha512 => {
                let serialized = SerializedState::<Sha512>::try_from(serialized.as_slice()).ok()?;
                State::Sha512(Sha512::deserialize(&serialized).ok()?)
            }
        }))
    }
}

/// The library writes eight words and the number of blocks, both little-endian, then one byte with the length of what comes
/// next, and the bytes after the last whole block, with zeros up to a block less one byte.
fn from_library(algorithm: Algorithm, serialized: &[u8]) -> HashState {
    let (chain, after) = serialized.split_at(algorithm.len());
    let (count, buffer) = after.split_at(algorithm.count_len());
    let blocks = count.iter().rev().fold(0_u128, |blocks, byte| (blocks << 8) | u128::from(*byte));
    let rest_len = usize::from(buffer[0]);
    let rest = buffer[1..=rest_len].to_vec();
    let len = blocks * algorithm.block_len() as u128 + rest_len as u128;
    let len = u64::try_from(len).expect("nobody hashes 2⁶⁴ bytes");
    HashState { algorithm, len, chain: swap_words(algorithm, chain), rest }
}

fn to_library(state: &HashState) -> Option<Vec<u8>> {
    let block = state.algorithm.block_len();
    let blocks = state.len / block as u64;
    let fits = state.chain.len() == state.algorithm.len()
        && state.rest.len() < block
        && state.rest.len() as u64 == state.len % block as u64;
    if !fits {
        return None;
    }
    let mut serialized = swap_words(state.algorithm, &state.chain);
    serialized.extend_from_slice(&u128::from(blocks).to_le_bytes()[..state.algorithm.count_len()]);
    serialized.push(u8::try_from(state.rest.len()).ok()?);
    serialized.extend_from_slice(&state.rest);
    serialized.resize(state.algorithm.len() + state.algorithm.count_len() + block, 0);
    Some(serialized)
}

fn swap_words(algorithm: Algorithm, words: &[u8]) -> Vec<u8> {
    words.chunks_exact(algorithm.word_len()).flat_map(|word| word.iter().rev().copied()).collect()
}

/// The rest is plaintext: its length is shown.
impl fmt::Debug for HashState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashState")
            .field("algorithm", &self.algorithm)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::Digest;

    /// H(0) of FIPS 180-4 §5.3.3 and §5.3.5, whose first words everybody knows.
    #[test]
    fn a_fresh_state_is_the_standards_initial_value() {
        let state = Hasher::new(Algorithm::Sha256).state();
        assert_eq!((state.len, state.rest.len(), &state.chain[..4]), (0, 0, &[0x6a, 0x09, 0xe6, 0x67][..]));
        let state = Hasher::new(Algorithm::Sha512).state();
        assert_eq!(state.chain[..8], [0x6a, 0x09, 0xe6, 0x67, 0xf3, 0xbc, 0xc9, 0x08]);
    }

    #[test]
    fn what_does_not_fit_is_no_state() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&[7; 100]);
        let good = hasher.state();
        assert_eq!((good.len, good.rest.len()), (100, 36));
        assert!(Hasher::resume(&good).is_some());
        for bad in [
            HashState { len: 101, ..good.clone() },
            HashState { chain: good.chain[1..].to_vec(), ..good.clone() },
            HashState { rest: good.rest[1..].to_vec(), ..good.clone() },
            HashState { rest: vec![0; 64], len: 128, ..good.clone() },
            HashState { algorithm: Algorithm::Sha512, ..good.clone() },
        ] {
            assert!(Hasher::resume(&bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn another_hasher_goes_on(data in proptest::collection::vec(any::<u8>(), 0..700), at in 0_usize..700) {
            let (before, after) = data.split_at(at.min(data.len()));
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(before);
                let state = hasher.state();
                prop_assert_eq!(state.len(), before.len() as u64);
                let mut resumed = Hasher::resume(&state).unwrap();
                prop_assert_eq!(resumed.state(), state);
                resumed.update(after);
                prop_assert_eq!(resumed.finish(), Digest::of(algorithm, &data));
            }
        }
    }
}
