//! Meta objects: what opens them, what they refuse to be, and any bytes at all.

use bulla_envelope::DecodeError;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::ids::{RootId, StoreId};
use bulla_envelope::meta::{MAX_PAYLOAD_LEN, MetaKeys, MetaKind, MetaRecord, OpenMetaError};
use bulla_envelope::names::NameError;
use bulla_envelope::object::{OpenObjectError, SealedObject};
use bulla_envelope::secret::{MetaKey, NameKey, Root};
use proptest::prelude::*;

use crate::cbor_value::Cbor;
use crate::samples;
use crate::support::providers;

const TAG: MetaKind = MetaKind::new("tag", 2);
const LINK: MetaKind = MetaKind::new("link", 2);

pub(crate) fn record() -> MetaRecord {
    let path = vec!["example/app".to_owned(), "latest".to_owned()];
    MetaRecord { path, nonce: [7; 16], payload: b"a payload".to_vec() }
}

fn keys(root: &Root) -> (MetaKey, NameKey) {
    (root.meta_key(), root.name_key(TAG.name()))
}

fn key_of(path: &[&str]) -> String {
    keys(&samples::root()).1.meta_key(&samples::root_id(), TAG, path)
}

pub(crate) fn key() -> String {
    key_of(&["example/app", "latest"])
}

pub(crate) fn seal(record: &MetaRecord) -> Vec<u8> {
    let (meta, names) = keys(&samples::root());
    let keys = MetaKeys { meta: &meta, names: &names };
    record.seal(CryptoProvider::rust_crypto(), keys, samples::header(), TAG, samples::salt()).unwrap()
}

fn open(object: &[u8]) -> Result<MetaRecord, OpenMetaError> {
    open_as(CryptoProvider::rust_crypto(), samples::header(), TAG, &key(), object)
}

fn open_as(
    crypto: &'static CryptoProvider,
    header: EnvelopeHeader,
    kind: MetaKind,
    key: &str,
    object: &[u8],
) -> Result<MetaRecord, OpenMetaError> {
    let (meta, names) = keys(&samples::root());
    MetaRecord::open(crypto, MetaKeys { meta: &meta, names: &names }, header, kind, key, object)
}

/// A meta object with any content, as a broken or later writer would make it.
pub(crate) fn with_content(content: &[u8]) -> Vec<u8> {
    let (crypto, meta) = (CryptoProvider::rust_crypto(), samples::root().meta_key());
    let key = key();
    SealedObject::seal(crypto, &meta, samples::header(), "tag", key.as_bytes(), content, samples::salt())
        .unwrap()
        .encode()
}

// FORMAT-M2
#[test]
fn meta_objects_come_back_as_they_were_and_hold_what_the_format_says() {
    let object = seal(&record());
    for crypto in providers() {
        assert_eq!(open_as(crypto, samples::header(), TAG, &key(), &object), Ok(record()));
    }
    let decoded = SealedObject::decode(&object).unwrap();
    let meta = samples::root().meta_key();
    let content = decoded.open(CryptoProvider::rust_crypto(), &meta, "tag", key().as_bytes()).unwrap();
    let path = Cbor::Array(vec![Cbor::text("example/app"), Cbor::text("latest")]);
    let expected = Cbor::Array(vec![path, Cbor::bytes(&[7; 16]), Cbor::bytes(b"a payload")]);
    assert_eq!(content.as_slice(), expected.encode());
}

// FORMAT-M1
#[test]
fn a_key_is_the_sealed_names_each_under_the_path_above() {
    let names = samples::root().name_key("tag");
    let parent = format!("meta/{}/tag", samples::root_id());
    let repository = names.seal_name("tag", &parent, b"example/app");
    let directory = format!("{parent}/{repository}");
    assert_eq!(key_of(&["example/app"]), directory);
    let tag = names.seal_name("tag", &directory, b"latest");
    assert_eq!(key(), format!("{directory}/{tag}"));
    assert_eq!(names.open_name("tag", &directory, &tag).unwrap(), b"latest");
    assert_eq!(names.open_name("tag", &parent, &tag), Err(NameError::Invalid));
}

// FORMAT-M1
#[test]
fn kinds_are_short_and_not_the_engines_own() {
    for name in ["", "Tag", "a kind", "ä", "a/b", "blob", "job", "upload", &"k".repeat(33)] {
        let name: &'static str = String::from(name).leak();
        assert!(std::panic::catch_unwind(|| MetaKind::new(name, 1)).is_err(), "{name}");
    }
    for depth in [0, 5] {
        assert!(std::panic::catch_unwind(|| MetaKind::new("tag", depth)).is_err(), "{depth}");
    }
    assert_eq!(MetaKind::new("jobs-2", 4).depth(), 4);
}

// FORMAT-M2, FORMAT-M3
#[test]
fn an_object_opens_at_its_key_only() {
    let object = seal(&record());
    let crypto = CryptoProvider::rust_crypto();
    let not_authentic = || Err(OpenMetaError::Open(OpenObjectError::NotAuthentic));
    let elsewhere = key_of(&["example/app", "v1"]);
    assert_eq!(open_as(crypto, samples::header(), TAG, &elsewhere, &object), not_authentic());
    assert_eq!(open_as(crypto, samples::header(), LINK, &key(), &object), not_authentic());
    let headers = [
        EnvelopeHeader { store: StoreId::from_bytes([0; 16]), ..samples::header() },
        EnvelopeHeader { root: RootId::from_bytes([0; 16]), ..samples::header() },
    ];
    for header in headers {
        assert_eq!(open_as(crypto, header, TAG, &key(), &object), Err(OpenMetaError::Foreign));
        let moved = SealedObject { header, ..SealedObject::decode(&object).unwrap() }.encode();
        assert_eq!(open_as(crypto, header, TAG, &key(), &moved), not_authentic());
    }
}

// FORMAT-M3
#[test]
fn a_writer_that_mixes_paths_up_is_noticed() {
    let content = |tag: &str| {
        let path = Cbor::Array(vec![Cbor::text("example/app"), Cbor::text(tag)]);
        Cbor::Array(vec![path, Cbor::bytes(&[7; 16]), Cbor::bytes(b"")]).encode()
    };
    assert!(open(&with_content(&content("latest"))).is_ok());
    assert_eq!(open(&with_content(&content("v1"))), Err(OpenMetaError::WrongPath));
}

// FORMAT-M4, FORMAT-M5
#[test]
fn contents_that_break_a_rule_are_refused_and_not_written() {
    let content = |path: &[&str], nonce: usize, payload: usize| {
        let path = Cbor::Array(path.iter().map(|name| Cbor::text(name)).collect());
        Cbor::Array(vec![path, Cbor::bytes(&vec![7; nonce]), Cbor::bytes(&vec![0; payload])]).encode()
    };
    let path = ["example/app", "latest"];
    assert!(open(&with_content(&content(&path, 16, MAX_PAYLOAD_LEN))).is_ok());
    let good = content(&path, 16, 0);
    for bad in [
        content(&path[..1], 16, 0),
        content(&["a", "b", "c"], 16, 0),
        content(&["a", "b", "c", "d", "e"], 16, 0),
        content(&["example/app", ""], 16, 0),
        content(&["example/app", &"x".repeat(1025)], 16, 0),
        content(&path, 15, 0),
        content(&path, 16, MAX_PAYLOAD_LEN + 1),
        [good.as_slice(), &[0]].concat(),
        good[1..].to_vec(),
    ] {
        assert!(matches!(open(&with_content(&bad)), Err(OpenMetaError::Decode(_))), "{bad:?}");
    }
    let (meta, names) = keys(&samples::root());
    let keys = MetaKeys { meta: &meta, names: &names };
    for bad in [
        MetaRecord { path: vec!["one".into()], ..record() },
        MetaRecord { payload: vec![0; MAX_PAYLOAD_LEN + 1], ..record() },
    ] {
        let sealed = bad.seal(CryptoProvider::rust_crypto(), keys, samples::header(), TAG, samples::salt());
        assert!(sealed.is_err(), "{bad:?}");
    }
}

#[test]
fn no_flipped_bit_and_no_cut_of_a_meta_object_opens() {
    let object = seal(&record());
    for bit in 0..object.len() * 8 {
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&flipped).is_err(), "bit {bit}");
    }
    for len in 0..object.len() {
        assert!(open(&object[..len]).is_err(), "{len} of {} bytes", object.len());
    }
}

#[test]
fn a_meta_object_of_a_later_version_is_refused_by_its_number() {
    let mut object = Cbor::decode(&seal(&record()));
    object.items_mut()[0] = Cbor::Uint(2);
    assert_eq!(open(&object.encode()), Err(OpenMetaError::Decode(DecodeError::UnknownVersion(2))));
}

#[test]
fn names_and_payload_are_not_printed() {
    let printed = format!("{:?}", record());
    assert!(!printed.contains("latest") && !printed.contains("payload\""), "{printed}");
}

proptest! {
    #[test]
    fn any_content_gives_a_meta_object_or_an_error(content in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(record) = open(&with_content(&content)) {
            prop_assert_eq!(open(&seal(&record)), Ok(record));
        }
    }
}
