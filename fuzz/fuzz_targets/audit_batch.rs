//! Any plaintext of a batch, sealed by somebody who holds the keys, and any bytes as an entry: what is read is written as the
//! same bytes again.
#![no_main]

use bulla_envelope::audit::{Batch, Entry};
use bulla_envelope::cobblestone;
use bulla_envelope::context::audit_context;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::ids::{RootId, StoreId};
use bulla_envelope::object::SealedObject;
use bulla_envelope::secret::Root;
use libfuzzer_sys::fuzz_target;

const SALT: [u8; 24] = [3; 24];
/// The number that the seeds have.
const NUMBER: u64 = 3;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(entry.encode().expect("an entry that was read obeys the rules"), bytes);
    }
    let crypto = CryptoProvider::rust_crypto();
    let key = Root::from_slice(&[1; 32]).expect("32 bytes").audit_key();
    let header = EnvelopeHeader {
        store: StoreId::from_slice(&[4; 16]).expect("16 bytes"),
        root: RootId::from_slice(&[5; 16]).expect("16 bytes"),
    };
    // The header's encoding, as FORMAT.md has it: array(3), the suite, two ids.
    let mut encoded = b"\x83\x6fCobblestone-256\x50".to_vec();
    encoded.extend([4; 16]);
    encoded.push(0x50);
    encoded.extend([5; 16]);
    let sealed = cobblestone::seal(crypto, key.expose(), &audit_context(&encoded, NUMBER), SALT, bytes);
    let object = SealedObject { header, sealed }.encode();
    let Ok(batch) = Batch::open(crypto, &key, header, NUMBER, &object) else { return };
    let again = batch.seal(crypto, &key, header, SALT).expect("a batch that was read obeys the rules");
    assert_eq!(again, object, "one batch, one encoding");
});
