//! Hashing and sealing of one blob's bytes into extents: CPU work only, so that it can be handed to another thread.

use bulla_envelope::cobblestone::{
    CHUNK_LEN, HEADER_LEN, OpenError, Opener, SEALED_CHUNK_LEN, Sealer, TAG_LEN,
};
use bulla_envelope::context::extent_context;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest, HashState, Hasher};
use bulla_envelope::envelope::Extent;
use bulla_envelope::ids::{BlobId, ExtentName, StoreId};
use bulla_envelope::random::RandomSource;
use bulla_envelope::secret::Dek;
use bytes::Bytes;

use crate::buffers::Buffers;

const MIB: usize = 1 << 20;

/// Bytes are hashed and then sealed in strides that stay in the second-level cache between the two.
const STRIDE: usize = 16 * CHUNK_LEN;

/// A sealed extent, ready to be put under a name of its own.
#[derive(Debug)]
pub(crate) struct SealedExtent {
    pub(crate) extent: Extent,
    pub(crate) message: Bytes,
    /// The hash of the blob up to here.
    pub(crate) hasher: Hasher,
}

/// How many extents an envelope of at most 1 MiB has room for, whatever its digest, wraps and expiry.
pub(crate) const MAX_EXTENTS: usize = 12_600;

/// The plaintext length of a blob's n-th extent. One extent is one PUT, held in memory until acknowledged, so it is small;
/// and an envelope names at most [`MAX_EXTENTS`] of them, so the later ones of a huge blob are larger.
pub(crate) fn extent_capacity(index: usize, memory_per_stream: usize) -> usize {
    let first = if index < 1024 { 4 * MIB } else { 8 * MIB };
    // One extent fills while others are on their way.
    let bounded = first.min(memory_per_stream / 4).max(MIB);
    bounded - bounded % CHUNK_LEN
}

/// The hash state and the extent being filled. Never persisted: resuming a sealer with other bytes would reuse a nonce
/// (FORMAT.md, Cobblestone).
pub(crate) struct Sealing {
    crypto: &'static CryptoProvider,
    store: StoreId,
    blob: BlobId,
    dek: Dek,
    hasher: Hasher,
    memory_per_stream: usize,
    started: usize,
    open: Option<OpenExtent>,
    buffers: Buffers,
}

/// A blob of which a part is stored.
pub(crate) struct Begun {
    pub(crate) blob: BlobId,
    pub(crate) dek: Dek,
    /// Has hashed what is stored.
    pub(crate) hasher: Hasher,
    /// How many extents are stored.
    pub(crate) extents: usize,
}

struct OpenExtent {
    name: ExtentName,
    sealer: Sealer,
    message: Vec<u8>,
    /// How much of `message` is written; the rest is of its last use.
    sealed: usize,
    plaintext: usize,
    capacity: usize,
    /// The start of a chunk that is not full yet.
    partial: Vec<u8>,
}

impl Sealing {
    pub(crate) fn new(
        crypto: &'static CryptoProvider,
        store: StoreId,
        algorithm: Algorithm,
        memory_per_stream: usize,
        random: &dyn RandomSource,
        buffers: Buffers,
    ) -> Self {
        let (blob, dek) = (BlobId::random(random), Dek::random(random));
        let begun = Begun { blob, dek, hasher: Hasher::new(algorithm), extents: 0 };
        Self::go_on(crypto, store, begun, memory_per_stream, buffers)
    }

    /// Goes on with a blob of which so much is stored. Its next extent is a new one: no sealer's state outlives its process.
    pub(crate) fn go_on(
        crypto: &'static CryptoProvider,
        store: StoreId,
        begun: Begun,
        memory_per_stream: usize,
        buffers: Buffers,
    ) -> Self {
        let Begun { blob, dek, hasher, extents: started } = begun;
        Self { buffers, crypto, store, blob, dek, hasher, memory_per_stream, started, open: None }
    }

    pub(crate) fn blob(&self) -> BlobId {
        self.blob
    }

    pub(crate) fn dek(&self) -> &Dek {
        &self.dek
    }

    /// Whether an extent has begun and is not full.
    pub(crate) fn is_filling(&self) -> bool {
        self.open.is_some()
    }

    /// The hash of everything so far.
    pub(crate) fn hash(&self) -> HashState {
        self.hasher.state()
    }

    /// Opens an extent of this blob.
    pub(crate) fn opener(&self, extent: &Extent) -> Result<Opener, OpenError> {
        let context = extent_context(&self.store, &self.blob);
        Opener::new(self.crypto, self.dek.expose(), &context, &extent.header)
    }

    /// The last extent will be replaced by one that begins with its bytes.
    pub(crate) fn take_back_one(&mut self) {
        self.started = self.started.saturating_sub(1);
    }

    /// Hashes bytes that will be stored inline.
    pub(crate) fn hash_only(&mut self, data: &[u8]) {
        self.hasher.update(data);
    }

    /// Hashes and seals `data`; gives back the extents that became full.
    pub(crate) fn absorb(&mut self, data: &[Bytes], random: &dyn RandomSource) -> Vec<SealedExtent> {
        self.seal(data, true, random)
    }

    /// Seals `data` that was hashed before.
    pub(crate) fn absorb_hashed(&mut self, data: &[Bytes], random: &dyn RandomSource) -> Vec<SealedExtent> {
        self.seal(data, false, random)
    }

    fn seal(&mut self, data: &[Bytes], hash: bool, random: &dyn RandomSource) -> Vec<SealedExtent> {
        let mut full = Vec::new();
        for piece in data {
            let mut rest: &[u8] = piece;
            while !rest.is_empty() {
                let open = match self.open.take() {
                    Some(open) => open,
                    None => self.start_extent(random),
                };
                let take = rest.len().min(STRIDE).min(open.capacity - open.plaintext);
                let (now, later) = rest.split_at(take);
                if hash {
                    self.hasher.update(now);
                }
                let open = open.fill(now);
                if open.plaintext == open.capacity {
                    full.push(open.finish(&self.buffers, &self.hasher));
                } else {
                    self.open = Some(open);
                }
                rest = later;
            }
        }
        full
    }

    /// Ends the extent that is not full.
    pub(crate) fn close_extent(&mut self) -> Option<SealedExtent> {
        let open = self.open.take()?;
        Some(open.finish(&self.buffers, &self.hasher))
    }

    /// Ends the blob: its digest and its key.
    pub(crate) fn finish(self) -> (Digest, Dek) {
        (self.hasher.finish(), self.dek)
    }

    fn start_extent(&mut self, random: &dyn RandomSource) -> OpenExtent {
        let capacity = extent_capacity(self.started, self.memory_per_stream);
        self.started += 1;
        // A fresh salt and a fresh name for every sealing attempt.
        let mut salt = [0; 24];
        random.fill(&mut salt);
        let context = extent_context(&self.store, &self.blob);
        let sealer = Sealer::new(self.crypto, self.dek.expose(), &context, salt);
        let mut message = self.buffers.take(HEADER_LEN + capacity / CHUNK_LEN * SEALED_CHUNK_LEN + TAG_LEN);
        message[..HEADER_LEN].copy_from_slice(&sealer.header().to_bytes());
        OpenExtent {
            name: ExtentName::random(random),
            sealer,
            message,
            sealed: HEADER_LEN,
            plaintext: 0,
            capacity,
            partial: Vec::new(),
        }
    }
}

impl OpenExtent {
    fn fill(mut self, mut data: &[u8]) -> Self {
        self.plaintext += data.len();
        if !self.partial.is_empty() {
            let take = data.len().min(CHUNK_LEN - self.partial.len());
            let (now, later) = data.split_at(take);
            self.partial.extend_from_slice(now);
            data = later;
            if self.partial.len() == CHUNK_LEN {
                let chunk = std::mem::take(&mut self.partial);
                self.seal(&chunk);
                self.partial = chunk;
                self.partial.clear();
            }
        }
        let (whole, rest) = data.split_at(data.len() - data.len() % CHUNK_LEN);
        self.seal(whole);
        self.partial.extend_from_slice(rest);
        self
    }

    fn seal(&mut self, whole: &[u8]) {
        let end = self.sealed + whole.len() / CHUNK_LEN * SEALED_CHUNK_LEN;
        self.sealer.seal_chunks(whole, &mut self.message[self.sealed..end]);
        self.sealed = end;
    }

    fn finish(mut self, buffers: &Buffers, hasher: &Hasher) -> SealedExtent {
        let header = self.sealer.header().clone();
        let end = self.sealed + self.partial.len() + TAG_LEN;
        self.sealer.seal_last(&self.partial, &mut self.message[self.sealed..end]);
        let message = if end < self.message.len() / 2 {
            // Whoever keeps a small message should not keep a large buffer.
            let small = Bytes::copy_from_slice(&self.message[..end]);
            drop(buffers.lend(self.message));
            small
        } else {
            buffers.lend(self.message).slice(..end)
        };
        let extent = Extent { name: self.name, len: self.plaintext as u64, header };
        SealedExtent { extent, message, hasher: hasher.clone() }
    }
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing").field("blob", &self.blob).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bulla_envelope::MAX_OBJECT_LEN;
    use bulla_envelope::cobblestone::Header;
    use bulla_envelope::envelope::{BlobRecord, Envelope, EnvelopeHeader, MAX_WRAPS, Wrap};
    use bulla_envelope::ids::RootId;
    use bulla_envelope::secret::Root;
    use bulla_kek::SystemRandom;

    use super::*;

    #[test]
    fn the_largest_blob_fits_one_envelope() {
        let random = &SystemRandom;
        let extent = || {
            let mut salt = [0; 24];
            random.fill(&mut salt);
            let header = Header { salt, commitment: [2; 32] };
            Extent { name: ExtentName::random(random), len: 8 << 20, header }
        };
        let extents: Vec<Extent> = (0..MAX_EXTENTS).map(|_| extent()).collect();
        let record = BlobRecord {
            digest: Digest::of(Algorithm::Sha512, b""),
            size: extents.iter().map(|extent| extent.len).sum(),
            blob: BlobId::random(random),
            extents,
            inline: None,
            created: 1 << 40,
            dek_root: RootId::random(random),
            expires: Some(1 << 41),
            there_since: Some(1 << 41),
        };
        let kid = |n: usize| format!("store-key:{}{n}", "a".repeat(25));
        let wraps =
            (0..MAX_WRAPS).map(|n| Wrap { kid: kid(n), alg: "A256KW".into(), value: vec![0; 40] }).collect();
        let header = EnvelopeHeader { store: StoreId::random(random), root: RootId::random(random) };
        let (root, dek) = (Root::random(random), Dek::random(random));
        let envelope = Envelope::seal(
            CryptoProvider::best(),
            &root.envelope_key(),
            header,
            wraps,
            &dek,
            &record,
            [0; 24],
        );
        assert!(envelope.unwrap().encode().len() <= MAX_OBJECT_LEN);
    }
}
