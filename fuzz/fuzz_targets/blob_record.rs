//! Any plaintext, sealed by somebody who holds the keys: what opens seals to the same bytes again.
//!
//! Behind the seal is a decoder of its own. Random bytes never get there, so this target seals them itself.
#![no_main]

use bulla_envelope::cobblestone;
use bulla_envelope::context::envelope_context;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::envelope::{Envelope, EnvelopeHeader, Wrap};
use bulla_envelope::ids::{RootId, StoreId, StoreKeyId};
use bulla_envelope::secret::{Dek, Root};
use libfuzzer_sys::fuzz_target;

const SALT: [u8; 24] = [3; 24];

fuzz_target!(|plaintext: &[u8]| {
    let crypto = CryptoProvider::rust_crypto();
    let key = Root::from_slice(&[1; 32]).expect("32 bytes").envelope_key();
    let dek = Dek::from_slice(&[2; 32]).expect("32 bytes");
    let header = EnvelopeHeader {
        store: StoreId::from_slice(&[4; 16]).expect("16 bytes"),
        root: RootId::from_slice(&[5; 16]).expect("16 bytes"),
    };
    let wraps = vec![Wrap::under_store_key(&StoreKeyId::from_slice(&[6; 16]).expect("16 bytes"), [7; 40])];
    // The header's encoding, as FORMAT.md has it: array(3), the suite, two ids.
    let mut encoded = b"\x83\x6fCobblestone-256\x50".to_vec();
    encoded.extend([4; 16]);
    encoded.push(0x50);
    encoded.extend([5; 16]);
    // The digest that the seeds are made for: of nothing.
    let digest = Digest::of(Algorithm::Sha256, b"");
    let context = envelope_context(&encoded, &digest);
    let sealed = cobblestone::seal(crypto, key.with_dek(&dek).expose(), &context, SALT, plaintext);
    let envelope = Envelope { header, wraps, sealed };
    let Ok(record) = envelope.open(crypto, &key, &dek, &digest) else { return };
    assert_eq!(record.digest, digest, "a record of another digest was let through");
    let again =
        Envelope::seal(crypto, &key, envelope.header.clone(), envelope.wraps.clone(), &dek, &record, SALT)
            .expect("a record that was read obeys the rules");
    // Padding is read, and not written by this version.
    let padded = again.sealed.len() < envelope.sealed.len();
    assert!(padded || again.sealed == envelope.sealed, "one record, one encoding");
    assert_eq!(again.open(crypto, &key, &dek, &digest), Ok(record));
});
