//! Hashing and sealing of one blob's bytes into extents: CPU work only, so that it can be handed to another thread.

use bulla_envelope::cobblestone::{CHUNK_LEN, HEADER_LEN, SEALED_CHUNK_LEN, Sealer, TAG_LEN};
use bulla_envelope::context::extent_context;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest, Hasher};
use bulla_envelope::envelope::Extent;
use bulla_envelope::ids::{BlobId, ExtentName, StoreId};
use bulla_envelope::random::RandomSource;
use bulla_envelope::secret::Dek;
use bytes::Bytes;

const MIB: usize = 1 << 20;

/// Bytes are hashed and then sealed in strides that stay in the second-level cache between the two.
const STRIDE: usize = 16 * CHUNK_LEN;

/// A sealed extent, ready to be put under a name of its own.
#[derive(Debug)]
pub(crate) struct SealedExtent {
    pub(crate) extent: Extent,
    pub(crate) message: Vec<u8>,
}

/// The plaintext length of a blob's n-th extent. One extent is one PUT, held in memory until acknowledged, so it is small;
/// and an envelope names at most about 12,000 of them, so the later ones of a huge blob are larger.
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
}

struct OpenExtent {
    name: ExtentName,
    sealer: Sealer,
    message: Vec<u8>,
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
    ) -> Self {
        Self {
            crypto,
            store,
            blob: BlobId::random(random),
            dek: Dek::random(random),
            hasher: Hasher::new(algorithm),
            memory_per_stream,
            started: 0,
            open: None,
        }
    }

    pub(crate) fn blob(&self) -> BlobId {
        self.blob
    }

    /// Hashes bytes that will be stored inline.
    pub(crate) fn hash_only(&mut self, data: &[u8]) {
        self.hasher.update(data);
    }

    /// Hashes and seals `data`; gives back the extents that became full.
    pub(crate) fn absorb(&mut self, data: &[Bytes], random: &dyn RandomSource) -> Vec<SealedExtent> {
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
                self.hasher.update(now);
                let open = open.fill(now);
                if open.plaintext == open.capacity {
                    full.push(open.finish());
                } else {
                    self.open = Some(open);
                }
                rest = later;
            }
        }
        full
    }

    /// Ends the blob: its digest, its key, and the extent that was not full.
    pub(crate) fn finish(mut self) -> (Digest, Dek, Option<SealedExtent>) {
        let last = self.open.take().map(OpenExtent::finish);
        (self.hasher.finish(), self.dek, last)
    }

    fn start_extent(&mut self, random: &dyn RandomSource) -> OpenExtent {
        let capacity = extent_capacity(self.started, self.memory_per_stream);
        self.started += 1;
        // A fresh salt and a fresh name for every sealing attempt.
        let mut salt = [0; 24];
        random.fill(&mut salt);
        let context = extent_context(&self.store, &self.blob);
        let sealer = Sealer::new(self.crypto, self.dek.expose(), &context, salt);
        let mut message = Vec::with_capacity(HEADER_LEN + capacity / CHUNK_LEN * SEALED_CHUNK_LEN + TAG_LEN);
        message.extend_from_slice(&sealer.header().to_bytes());
        OpenExtent {
            name: ExtentName::random(random),
            sealer,
            message,
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
        let at = self.message.len();
        // Grown stride by stride: the zeroes are still in the cache when the ciphertext replaces them.
        self.message.resize(at + whole.len() / CHUNK_LEN * SEALED_CHUNK_LEN, 0);
        self.sealer.seal_chunks(whole, &mut self.message[at..]);
    }

    fn finish(mut self) -> SealedExtent {
        let header = self.sealer.header().clone();
        let at = self.message.len();
        self.message.resize(at + self.partial.len() + TAG_LEN, 0);
        self.sealer.seal_last(&self.partial, &mut self.message[at..]);
        self.message.shrink_to_fit();
        let extent = Extent { name: self.name, len: self.plaintext as u64, header };
        SealedExtent { extent, message: self.message }
    }
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing").field("blob", &self.blob).finish_non_exhaustive()
    }
}
