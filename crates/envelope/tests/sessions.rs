//! Upload sessions: what opens them, what they refuse to be, and any bytes at all.

use bulla_envelope::DecodeError;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest, Hasher};
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::ids::{RootId, SessionId, StoreId};
use bulla_envelope::names::NameError;
use bulla_envelope::object::{OpenObjectError, SealedObject};
use bulla_envelope::session::{OpenSessionError, SessionRecord, StoredExtent, UPLOAD_KIND};
use proptest::prelude::*;

use crate::cbor_value::Cbor;
use crate::samples;
use crate::support::providers;

pub(crate) fn id() -> SessionId {
    SessionId::from_bytes(samples::bytes(0x50))
}

/// Two extents and a tail of 30 bytes.
pub(crate) fn record(algorithm: Algorithm) -> SessionRecord {
    let (blob, _) = samples::extents_record(CryptoProvider::rust_crypto(), &[100, 50]);
    let whole = samples::plaintext(180);
    let mut hasher = Hasher::new(algorithm);
    hasher.update(&whole);
    let stored = |(number, extent)| StoredExtent { extent, stored: samples::CREATED + number };
    SessionRecord {
        wraps: samples::wraps(),
        blob: blob.blob,
        dek_root: samples::root_id(),
        extents: (1..).zip(blob.extents).map(stored).collect(),
        tail: whole[150..].to_vec(),
        hash: hasher.state(),
        created: samples::CREATED,
        touched: samples::CREATED + 10,
        revision: [7; 16],
        owner: b"example/app".to_vec(),
        horizon: samples::CREATED - 1,
        committing: None,
    }
}

pub(crate) fn seal(record: &SessionRecord) -> Vec<u8> {
    let key = samples::root().upload_key();
    record.seal(CryptoProvider::rust_crypto(), &key, samples::header(), &id(), samples::salt()).unwrap()
}

fn open(object: &[u8]) -> Result<SessionRecord, OpenSessionError> {
    open_as(CryptoProvider::rust_crypto(), samples::header(), &id(), object)
}

fn open_as(
    crypto: &'static CryptoProvider,
    header: EnvelopeHeader,
    id: &SessionId,
    object: &[u8],
) -> Result<SessionRecord, OpenSessionError> {
    SessionRecord::open(crypto, &samples::root().upload_key(), header, id, object)
}

/// Header, context and plaintext of a session's object, taken apart with nothing of the codec.
fn inside(object: &[u8]) -> (Vec<u8>, Cbor) {
    let object = Cbor::decode(object);
    let (header, sealed) = (object.items()[1].as_bytes(), object.items()[2].as_bytes());
    let context = bulla_envelope::context::upload_context(header, id().as_bytes());
    let key = samples::root().upload_key();
    let crypto = CryptoProvider::rust_crypto();
    let plaintext = bulla_envelope::cobblestone::open(crypto, key.expose(), &context, sealed).unwrap();
    (header.to_vec(), Cbor::decode(&plaintext))
}

/// A session's object with any content, as a broken or later writer would make it.
pub(crate) fn with_content(content: &[u8]) -> Vec<u8> {
    with_inside(UPLOAD_KIND, id().as_bytes(), content)
}

fn with_inside(kind: &str, name: &[u8], content: &[u8]) -> Vec<u8> {
    let (header, _) = inside(&seal(&record(Algorithm::Sha256)));
    let context = bulla_envelope::context::upload_context(&header, id().as_bytes());
    let plaintext =
        Cbor::Map(vec![(1, Cbor::text(kind)), (2, Cbor::bytes(name)), (3, Cbor::bytes(content))]).encode();
    let (crypto, key) = (CryptoProvider::rust_crypto(), samples::root().upload_key());
    let sealed =
        bulla_envelope::cobblestone::seal(crypto, key.expose(), &context, samples::salt(), &plaintext);
    SealedObject { header: samples::header(), sealed }.encode()
}

/// The content of a good session, to be broken.
fn content() -> Cbor {
    let (_, mut inside) = inside(&seal(&record(Algorithm::Sha256)));
    Cbor::decode(inside.field(3).as_bytes())
}

// FORMAT-U1, FORMAT-U2
#[test]
fn sessions_come_back_as_they_were() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Some(Digest::of(algorithm, b"all of it"));
        for record in [record(algorithm), SessionRecord { committing: digest, ..record(algorithm) }] {
            let object = seal(&record);
            for crypto in providers() {
                assert_eq!(open_as(crypto, samples::header(), &id(), &object), Ok(record.clone()));
            }
            let (_, mut inside) = inside(&object);
            assert_eq!(*inside.field(1), Cbor::text("upload"));
            assert_eq!(*inside.field(2), Cbor::bytes(id().as_bytes()));
        }
    }
    assert_eq!(
        content().entries().iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        (1..=11).collect::<Vec<_>>()
    );
}

// FORMAT-U1
#[test]
fn a_session_has_one_key_that_says_its_id_to_who_has_the_root() {
    let names = samples::root().name_key(UPLOAD_KIND);
    let key = names.upload_key(&id());
    assert_eq!(key, format!("uploads/{}", names.seal_name("upload", "uploads", id().as_bytes())));
    assert_eq!(names.session_of_upload_key(&key), Ok(id()));
    let other = SessionId::from_bytes([1; 16]);
    let foreign = names.seal_name("upload", "elsewhere", other.as_bytes());
    for bad in [format!("uploads/{foreign}"), key.replace("uploads", "jobs"), "uploads".into(), key + "a"] {
        assert_eq!(names.session_of_upload_key(&bad), Err(NameError::Invalid), "{bad}");
    }
}

// FORMAT-U2
#[test]
fn a_session_opens_as_itself_only() {
    let object = seal(&record(Algorithm::Sha256));
    let crypto = CryptoProvider::rust_crypto();
    let not_authentic = || Err(OpenSessionError::Open(OpenObjectError::NotAuthentic));
    let other = SessionId::from_bytes([1; 16]);
    assert_eq!(open_as(crypto, samples::header(), &other, &object), not_authentic());
    let headers = [
        EnvelopeHeader { store: StoreId::from_bytes([0; 16]), ..samples::header() },
        EnvelopeHeader { root: RootId::from_bytes([0; 16]), ..samples::header() },
    ];
    for header in headers {
        assert_eq!(open_as(crypto, header, &id(), &object), Err(OpenSessionError::Foreign));
        let moved = SealedObject { header, ..SealedObject::decode(&object).unwrap() }.encode();
        assert_eq!(open_as(crypto, header, &id(), &moved), not_authentic());
    }
    let content = content().encode();
    assert!(open(&with_content(&content)).is_ok());
    for object in [with_inside("job", id().as_bytes(), &content), with_inside("upload", &[1; 16], &content)] {
        assert_eq!(open(&object), Err(OpenSessionError::Open(OpenObjectError::WrongName)));
    }
}

// FORMAT-U3
#[test]
fn the_hash_state_is_the_standards_and_another_hasher_goes_on_with_it() {
    let mut content = content();
    let state = content.field(6).items().to_vec();
    assert_eq!(state[0], Cbor::text("sha256"));
    assert_eq!((state[1].as_bytes().len(), state[2].as_bytes()), (32, &samples::plaintext(180)[128..]));
    let opened = open(&seal(&record(Algorithm::Sha256))).unwrap();
    let mut hasher = Hasher::resume(&opened.hash).unwrap();
    hasher.update(b"more");
    let whole = [samples::plaintext(180).as_slice(), b"more"].concat();
    assert_eq!(hasher.finish(), Digest::of(Algorithm::Sha256, &whole));
}

// FORMAT-U3
#[test]
fn contents_that_break_a_rule_are_refused() {
    let change = |key: u64, value: Cbor| {
        let mut content = content();
        *content.field(key) = value;
        content
    };
    let hash = |algorithm: &str, chain: usize, rest: usize| {
        let (chain, rest) = (vec![1; chain], vec![2; rest]);
        Cbor::Array(vec![Cbor::text(algorithm), Cbor::bytes(&chain), Cbor::bytes(&rest)])
    };
    let mut content = content();
    let extents = content.field(4).items().to_vec();
    let resized = |len: u64| {
        let mut extents = extents.clone();
        extents[1].items_mut()[1] = Cbor::Uint(len);
        Cbor::Array(extents)
    };
    let year_10000 = 253_402_300_800_000;
    assert!(open(&with_content(&change(6, hash("sha256", 32, 52)).encode())).is_ok());
    let mut unknown = content.clone();
    unknown.entries().push((13, Cbor::Uint(1)));
    let mut committing = content.clone();
    committing.entries().push((12, Cbor::Array(vec![Cbor::text("sha256"), Cbor::bytes(&[0; 31])])));
    for bad in [
        change(1, Cbor::Array(vec![])),
        change(2, Cbor::bytes(&[0; 15])),
        change(3, Cbor::bytes(&[0; 17])),
        // An extent twice, an empty one, lengths that overflow, or that the hash state does not cover.
        change(4, Cbor::Array(vec![extents[0].clone(), extents[0].clone()])),
        change(4, resized(0)),
        change(4, resized(u64::MAX)),
        change(4, resized(51)),
        change(4, Cbor::Raw(vec![0x9b, 0x80, 0, 0, 0, 0, 0, 0, 0])),
        change(5, Cbor::bytes(&[0; 65_537])),
        change(6, hash("sha256", 32, 51)),
        change(6, hash("sha256", 31, 52)),
        change(6, hash("sha512", 64, 51)),
        change(6, hash("sha1", 20, 52)),
        change(7, Cbor::Uint(year_10000)),
        change(8, Cbor::Uint(year_10000)),
        change(9, Cbor::bytes(&[0; 15])),
        change(10, Cbor::bytes(&[0; 1025])),
        change(11, Cbor::Uint(year_10000)),
        unknown,
        committing,
    ] {
        assert!(matches!(open(&with_content(&bad.encode())), Err(OpenSessionError::Decode(_))), "{bad:?}");
    }
}

#[test]
fn a_session_that_breaks_a_rule_is_not_written() {
    let good = record(Algorithm::Sha256);
    let (key, crypto) = (samples::root().upload_key(), CryptoProvider::rust_crypto());
    for bad in [
        SessionRecord { tail: vec![0; 31], ..good.clone() },
        SessionRecord { owner: vec![0; 1025], ..good.clone() },
        SessionRecord { wraps: vec![], ..good.clone() },
        SessionRecord { hash: Hasher::new(Algorithm::Sha256).state(), ..good },
    ] {
        assert!(bad.seal(crypto, &key, samples::header(), &id(), samples::salt()).is_err(), "{bad:?}");
    }
}

#[test]
fn no_flipped_bit_and_no_cut_of_a_session_opens() {
    let object = seal(&record(Algorithm::Sha256));
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
fn a_session_of_a_later_version_is_refused_by_its_number() {
    let mut object = Cbor::decode(&seal(&record(Algorithm::Sha256)));
    object.items_mut()[0] = Cbor::Uint(2);
    assert_eq!(open(&object.encode()), Err(OpenSessionError::Decode(DecodeError::UnknownVersion(2))));
}

proptest! {
    #[test]
    fn any_content_gives_a_session_or_an_error(content in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(record) = open(&with_content(&content)) {
            prop_assert_eq!(open(&seal(&record)), Ok(record));
        }
    }
}
