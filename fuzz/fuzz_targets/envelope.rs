//! Any object as an envelope: decode → encode is byte-identical, and without the keys nothing opens.
#![no_main]

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::envelope::Envelope;
use bulla_envelope::secret::{Dek, Root};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|object: &[u8]| {
    let Ok(envelope) = Envelope::decode(object) else { return };
    assert_eq!(envelope.encode(), object, "one envelope, one encoding");
    // Keys that no seed was made with.
    let root = Root::from_slice(&[0xf1; 32]).expect("32 bytes");
    let dek = Dek::from_slice(&[0xf2; 32]).expect("32 bytes");
    let digest = Digest::of(Algorithm::Sha256, b"asked for");
    let opened = envelope.open(CryptoProvider::rust_crypto(), &root.envelope_key(), &dek, &digest);
    assert!(opened.is_err(), "an envelope opened without its keys");
});
