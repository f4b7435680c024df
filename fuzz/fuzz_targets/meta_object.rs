//! Any content of a meta object, sealed by somebody who holds the keys: what opens is of its key, and seals to the same bytes
//! again.
#![no_main]

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::ids::{RootId, StoreId};
use bulla_envelope::meta::{MetaKeys, MetaKind, MetaRecord};
use bulla_envelope::object::SealedObject;
use bulla_envelope::secret::Root;
use libfuzzer_sys::fuzz_target;

const SALT: [u8; 24] = [3; 24];
const TAG: MetaKind = MetaKind::new("tag", 2);
/// The path that the seeds have.
const PATH: [&str; 2] = ["example/app", "latest"];

fuzz_target!(|content: &[u8]| {
    let crypto = CryptoProvider::rust_crypto();
    let root = Root::from_slice(&[1; 32]).expect("32 bytes");
    let (meta, names) = (root.meta_key(), root.name_key(TAG.name()));
    let keys = || MetaKeys { meta: &meta, names: &names };
    let header = EnvelopeHeader {
        store: StoreId::from_slice(&[4; 16]).expect("16 bytes"),
        root: RootId::from_slice(&[5; 16]).expect("16 bytes"),
    };
    let key = names.meta_key(&header.root, TAG, &PATH);
    let sealed = SealedObject::seal(crypto, &meta, header, TAG.name(), key.as_bytes(), content, SALT);
    let Ok(object) = sealed else { return };
    let object = object.encode();
    let Ok(record) = MetaRecord::open(crypto, keys(), header, TAG, &key, &object) else { return };
    assert_eq!(record.path, PATH, "an object of another path was let through");
    let again =
        record.seal(crypto, keys(), header, TAG, SALT).expect("a record that was read obeys the rules");
    assert_eq!(again, object, "one record, one encoding");
    let unsealed = MetaRecord::open(crypto, keys(), header, TAG, &key, content);
    assert!(unsealed.is_err(), "an object opened without its key");
});
