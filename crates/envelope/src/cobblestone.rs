//! Cobblestone-256: [C2SP chunked encryption](https://c2sp.org/chunked-encryption) v1 with SHA-512 and AES-256-GCM.
//!
//! ```text
//! key(32) ‖ base nonce(12) ‖ commitment(32) =
//!     HKDF-Expand-SHA-512(input key, "c2sp.org/chunked-encryption@v1+" ‖ "AEAD_AES_256_GCM" ‖ 0x00 ‖ salt(24) ‖ context)
//! message = salt(24) ‖ commitment(32) ‖ chunk₀ ‖ chunk₁ ‖ …
//! chunkₖ  = AES-256-GCM.Seal(key, base nonce ⊕ be(k), plaintext[k·16384 ..][.. 16384], "")
//! ```
//!
//! Every chunk but the last holds 16,384 bytes; the last holds fewer, perhaps none, which is what marks the end. This module
//! knows no keys, contexts or salts of its own, and no storage: bytes go from the caller's buffers into the caller's.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::{AeadKey, CryptoProvider};
use crate::derive::expand;
use crate::secret::Secret;

/// Plaintext bytes in every chunk but the last.
pub const CHUNK_LEN: usize = 16_384;
/// Bytes that sealing adds to a chunk.
pub const TAG_LEN: usize = 16;
/// Sealed bytes of every chunk but the last.
pub const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;
/// Bytes before the first chunk: salt and commitment.
pub const HEADER_LEN: usize = SALT_LEN + COMMITMENT_LEN;
/// The length of a salt.
pub const SALT_LEN: usize = 24;
/// The length of a commitment.
pub const COMMITMENT_LEN: usize = 32;
/// A message has at most 2³⁸ chunks.
pub const MAX_CHUNKS: u64 = 1 << 38;

const INFO: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";

/// The length of the whole message for a plaintext of `plaintext_len` bytes; `None` if it would have too many chunks.
#[must_use]
pub const fn sealed_len(plaintext_len: u64) -> Option<u64> {
    let chunks = plaintext_len / CHUNK_LEN as u64 + 1;
    if chunks > MAX_CHUNKS {
        return None;
    }
    Some(HEADER_LEN as u64 + plaintext_len + chunks * TAG_LEN as u64)
}

/// The length of the plaintext in a message of `sealed_len` bytes; `None` if no message has that length.
#[must_use]
pub const fn plaintext_len(sealed_len: u64) -> Option<u64> {
    let Some(body) = sealed_len.checked_sub(HEADER_LEN as u64) else { return None };
    let full = body / SEALED_CHUNK_LEN as u64;
    let Some(last) = (body % SEALED_CHUNK_LEN as u64).checked_sub(TAG_LEN as u64) else { return None };
    if full >= MAX_CHUNKS {
        return None;
    }
    Some(full * CHUNK_LEN as u64 + last)
}

/// What a message starts with. Not secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Makes the message's key unique.
    pub salt: [u8; SALT_LEN],
    /// Binds the message to one input key, salt and context.
    pub commitment: [u8; COMMITMENT_LEN],
}

impl Header {
    /// `salt ‖ commitment`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..SALT_LEN].copy_from_slice(&self.salt);
        bytes[SALT_LEN..].copy_from_slice(&self.commitment);
        bytes
    }

    /// The header with these bytes, or `None` unless there are exactly 56.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (salt, commitment) = bytes.split_first_chunk()?;
        Some(Self { salt: *salt, commitment: commitment.try_into().ok()? })
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("salt", &data_encoding::HEXLOWER.encode(&self.salt))
            .finish_non_exhaustive()
    }
}

/// Why a message does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Too short or too long for what it should be, or truncated at a chunk.
    #[error("the sealed message has an impossible length")]
    Length,
    /// Sealed under another key, salt or context.
    #[error("the sealed message is for another key or context")]
    Commitment,
    /// A chunk is not authentic.
    #[error("chunk {0} of the sealed message is not authentic")]
    Chunk(u64),
}

/// Seals one message, in order. The state is never stored: sealing other bytes from the same state would reuse a nonce.
pub struct Sealer {
    cipher: ChunkCipher,
    next: u64,
    header: Header,
}

impl Sealer {
    /// Starts a message. `salt` must be fresh for every message under `key`.
    #[must_use]
    pub fn new(
        crypto: &'static CryptoProvider,
        key: &[u8; 32],
        context: &[u8],
        salt: [u8; SALT_LEN],
    ) -> Self {
        let (cipher, commitment) = ChunkCipher::new(crypto, key, context, &salt);
        Self { cipher, next: 0, header: Header { salt, commitment } }
    }

    /// What goes in front of the chunks.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Seals whole chunks: `plaintext` has n · [`CHUNK_LEN`] bytes, `out` n · [`SEALED_CHUNK_LEN`].
    ///
    /// # Panics
    ///
    /// If the lengths are not those, or the message gets longer than [`MAX_CHUNKS`] allows.
    pub fn seal_chunks(&mut self, plaintext: &[u8], out: &mut [u8]) {
        assert!(plaintext.len().is_multiple_of(CHUNK_LEN), "only the last chunk is short");
        assert!(
            out.len() == plaintext.len() / CHUNK_LEN * SEALED_CHUNK_LEN,
            "out has room for the chunks, no more"
        );
        for (plaintext, out) in plaintext.chunks_exact(CHUNK_LEN).zip(out.chunks_exact_mut(SEALED_CHUNK_LEN))
        {
            self.seal_chunk(plaintext, out);
        }
    }

    /// Seals the last chunk: `rest` has fewer than [`CHUNK_LEN`] bytes, perhaps none, `out` [`TAG_LEN`] more.
    ///
    /// # Panics
    ///
    /// If the lengths are not those, or the message gets longer than [`MAX_CHUNKS`] allows.
    pub fn seal_last(mut self, rest: &[u8], out: &mut [u8]) {
        assert!(rest.len() < CHUNK_LEN, "the last chunk is short");
        self.seal_chunk(rest, out);
    }

    fn seal_chunk(&mut self, plaintext: &[u8], out: &mut [u8]) {
        assert!(self.next < MAX_CHUNKS, "a message has at most 2^38 chunks");
        self.cipher.aead.seal(&self.cipher.nonce(self.next), plaintext, out);
        self.next += 1;
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Opens the chunks of one message, in any order.
pub struct Opener {
    cipher: ChunkCipher,
}

impl Opener {
    /// Checks the commitment, before anything else can be opened.
    ///
    /// # Errors
    ///
    /// [`OpenError::Commitment`] if the message was sealed under another key, salt or context.
    pub fn new(
        crypto: &'static CryptoProvider,
        key: &[u8; 32],
        context: &[u8],
        header: &Header,
    ) -> Result<Self, OpenError> {
        let (cipher, commitment) = ChunkCipher::new(crypto, key, context, &header.salt);
        if bool::from(commitment.ct_eq(&header.commitment)) {
            Ok(Self { cipher })
        } else {
            Err(OpenError::Commitment)
        }
    }

    /// Opens consecutive chunks, the first of which has the number `first`, into `out`, which has exactly the length of
    /// their plaintext. With `last` the final one is the message's short one; without it all are whole.
    ///
    /// # Errors
    ///
    /// [`OpenError::Length`] if `sealed` is not such chunks or `out` does not fit, [`OpenError::Chunk`] with the number of the
    /// first one that is not authentic. `out` is then all zero.
    pub fn open_chunks(
        &self,
        first: u64,
        sealed: &[u8],
        last: bool,
        out: &mut [u8],
    ) -> Result<(), OpenError> {
        let result = self.try_open_chunks(first, sealed, last, out);
        if result.is_err() {
            out.zeroize();
        }
        result
    }

    fn try_open_chunks(
        &self,
        first: u64,
        sealed: &[u8],
        last: bool,
        out: &mut [u8],
    ) -> Result<(), OpenError> {
        let whole = sealed.len() / SEALED_CHUNK_LEN;
        let (whole_sealed, last_sealed) = sealed.split_at(whole * SEALED_CHUNK_LEN);
        let (whole_out, last_out) = out.split_at_mut_checked(whole * CHUNK_LEN).ok_or(OpenError::Length)?;
        let end =
            u64::try_from(whole).ok().and_then(|whole| first.checked_add(whole)).ok_or(OpenError::Length)?;
        // The number that the chunk after all of these would have.
        let after = end.checked_add(u64::from(last)).filter(|&after| after <= MAX_CHUNKS);
        let last_fits = if last {
            last_sealed.len() == last_out.len() + TAG_LEN
        } else {
            last_sealed.len() + last_out.len() == 0
        };
        if after.is_none() || !last_fits {
            return Err(OpenError::Length);
        }
        let chunks = whole_sealed.chunks_exact(SEALED_CHUNK_LEN).zip(whole_out.chunks_exact_mut(CHUNK_LEN));
        for (number, (sealed, out)) in (first..).zip(chunks) {
            self.open_chunk(number, sealed, out)?;
        }
        if last { self.open_chunk(end, last_sealed, last_out) } else { Ok(()) }
    }

    fn open_chunk(&self, number: u64, sealed: &[u8], out: &mut [u8]) -> Result<(), OpenError> {
        self.cipher.aead.open(&self.cipher.nonce(number), sealed, out).map_err(|_| OpenError::Chunk(number))
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

/// Seals a message that is in memory as a whole. `salt` must be fresh for every message under `key`.
#[must_use]
pub fn seal(
    crypto: &'static CryptoProvider,
    key: &[u8; 32],
    context: &[u8],
    salt: [u8; SALT_LEN],
    plaintext: &[u8],
) -> Vec<u8> {
    let mut sealer = Sealer::new(crypto, key, context, salt);
    let chunks = plaintext.len() / CHUNK_LEN;
    let mut message = vec![0; HEADER_LEN + plaintext.len() + (chunks + 1) * TAG_LEN];
    let (header, body) = message.split_at_mut(HEADER_LEN);
    let (whole_out, last_out) = body.split_at_mut(chunks * SEALED_CHUNK_LEN);
    let (whole, last) = plaintext.split_at(chunks * CHUNK_LEN);
    header.copy_from_slice(&sealer.header().to_bytes());
    sealer.seal_chunks(whole, whole_out);
    sealer.seal_last(last, last_out);
    message
}

/// Opens a whole message.
///
/// # Errors
///
/// [`OpenError`] says what is wrong with it; nothing of it is released then.
pub fn open(
    crypto: &'static CryptoProvider,
    key: &[u8; 32],
    context: &[u8],
    message: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (header, body) = message.split_at_checked(HEADER_LEN).ok_or(OpenError::Length)?;
    let header = Header::from_bytes(header).ok_or(OpenError::Length)?;
    let len = u64::try_from(message.len()).ok().and_then(plaintext_len);
    let len = len.and_then(|len| usize::try_from(len).ok()).ok_or(OpenError::Length)?;
    let opener = Opener::new(crypto, key, context, &header)?;
    let mut plaintext = Zeroizing::new(vec![0; len]);
    opener.open_chunks(0, body, true, &mut plaintext)?;
    Ok(plaintext)
}

/// The message's key, ready for use, and its base nonce.
struct ChunkCipher {
    aead: Box<dyn AeadKey>,
    base_nonce: Secret<12>,
}

impl ChunkCipher {
    fn new(
        crypto: &'static CryptoProvider,
        key: &[u8; 32],
        context: &[u8],
        salt: &[u8; SALT_LEN],
    ) -> (Self, [u8; COMMITMENT_LEN]) {
        let mut okm = Secret::<76>::zero();
        expand(key, &[INFO, salt, context], okm.expose_mut());
        let (key, rest) = okm.expose().split_first_chunk().expect("76 bytes start with 32");
        let (nonce, rest) = rest.split_first_chunk().expect("44 bytes start with 12");
        let commitment = *rest.first_chunk().expect("32 bytes are left");
        let mut base_nonce = Secret::<12>::zero();
        *base_nonce.expose_mut() = *nonce;
        (Self { aead: crypto.aead.key(key), base_nonce }, commitment)
    }

    /// `base nonce ⊕ number`, the number big-endian and right-aligned.
    fn nonce(&self, number: u64) -> [u8; 12] {
        let mut nonce = *self.base_nonce.expose();
        for (byte, number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }
}
