//! Any object as a log record: what decodes is well-formed, has one encoding, and is not authentic.
#![no_main]

use bulla_envelope::record::{RootState, UnverifiedRecord};
use bulla_envelope::secret::Root;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|object: &[u8]| {
    let Ok(unverified) = UnverifiedRecord::decode(object) else { return };
    // Keys that no seed was made with.
    let key = Root::from_slice(&[0xf1; 32]).expect("32 bytes").record_key();
    let other = Root::from_slice(&[0xf2; 32]).expect("32 bytes").record_key();
    assert!(unverified.verify(&key).is_err(), "a record verified without its key");
    assert!(unverified.verify_pending(&key, &other).is_err(), "a record verified without its keys");
    // Signed again by somebody else, it is the same but for its MACs, which come last.
    let record = unverified.hint();
    let signed = record
        .sign(&key)
        .or_else(|_| record.sign_pending(&key, &other))
        .expect("a record that was read obeys the rules");
    let pending = record.roots.iter().any(|root| root.state == RootState::Pending);
    let macs = if signed.object().len() == object.len() { signed.object() } else { &[] };
    let body = macs.len().saturating_sub(if pending { 128 } else { 64 });
    assert!(!macs.is_empty() && macs[..body] == object[..body], "one record, one encoding");
    let read = UnverifiedRecord::decode(signed.object()).expect("what was signed can be read");
    assert_eq!(read.hint(), record);
});
