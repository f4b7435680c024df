//! Any text as an export, a proof, a checkpoint or a key: what is read has one spelling, and nothing that was not signed is
//! believed.
#![no_main]

use bulla_envelope::audit::{Checkpoint, Export, Proof, PublicKey, SigningKey};
use bulla_envelope::random::RandomSource;
use libfuzzer_sys::fuzz_target;

/// A key that no seed is signed with.
struct Fixed;

impl RandomSource for Fixed {
    fn fill(&self, dest: &mut [u8]) {
        dest.fill(0xf1);
    }
}

fuzz_target!(|text: &str| {
    let name = "bulla-audit/aaaaaaaaaaaaaaaaaaaaaaaaaa";
    let key = SigningKey::generate(name, &Fixed).expect("a key's name").public_key();
    if let Ok(export) = Export::decode(text) {
        assert_eq!(export.encode(), text, "one export, one spelling");
        assert!(export.verify(&key, None).is_err(), "an export was believed without a signature");
        // What could be proven of it, if somebody had signed it.
        for index in [0, 1, u64::MAX] {
            let Some(proof) = Proof::of(&export, index) else { continue };
            assert_eq!(Proof::decode(&proof.encode()).as_ref(), Ok(&proof));
        }
    }
    if let Ok(proof) = Proof::decode(text) {
        assert_eq!(proof.encode(), text, "one proof, one spelling");
        assert!(proof.verify(&key).is_err(), "a proof was believed without a signature");
    }
    assert!(Checkpoint::open(text, &key).is_err(), "a checkpoint was believed without a signature");
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_string(), text, "one key, one spelling");
    }
});
