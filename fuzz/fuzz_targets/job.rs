//! Any content of a job, sealed by somebody who holds the keys: what opens seals to the same bytes again.
#![no_main]

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::ids::{RootId, StoreId};
use bulla_envelope::job::{JOB_KIND, Job};
use bulla_envelope::object::SealedObject;
use bulla_envelope::secret::Root;
use libfuzzer_sys::fuzz_target;

const SALT: [u8; 24] = [3; 24];

fuzz_target!(|content: &[u8]| {
    let crypto = CryptoProvider::rust_crypto();
    let key = Root::from_slice(&[1; 32]).expect("32 bytes").meta_key();
    let header = EnvelopeHeader {
        store: StoreId::from_slice(&[4; 16]).expect("16 bytes"),
        root: RootId::from_slice(&[5; 16]).expect("16 bytes"),
    };
    let Ok(object) = SealedObject::seal(crypto, &key, header, JOB_KIND, b"gc", content, SALT) else { return };
    let object = object.encode();
    let Ok(job) = Job::open(crypto, &key, header, "gc", &object) else { return };
    let again = job.seal(crypto, &key, header, "gc", SALT).expect("a job that was read obeys the rules");
    assert_eq!(again, object, "one job, one encoding");
    // As bytes that nobody sealed.
    assert!(Job::open(crypto, &key, header, "gc", content).is_err(), "a job opened without its key");
});
