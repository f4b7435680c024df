//! Entries and batches of an audit log: what opens them, what they refuse to be, and any bytes at all.

use bulla_envelope::audit::{
    Action, Batch, Entry, MAX_BATCH, OpenBatchError, Outcome, StoreLogMark, SweepCount, audit_key,
    parse_audit_key,
};
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::ids::{RootId, StoreId};
use proptest::prelude::*;

use crate::cbor_value::Cbor;
use crate::samples;
use crate::support::providers;

pub(crate) fn entry(count: u64) -> Entry {
    Entry {
        first: samples::CREATED,
        last: samples::CREATED + count,
        count,
        node: "node-1".into(),
        action: Action::Unwrap,
        outcome: Outcome::Denied,
        reason: Some("Forbidden".into()),
        identity: Some("system".into()),
        keys: vec!["https://vault.example.net/keys/k/0123".into()],
        store_key: None,
        log: None,
        swept: None,
        latency_us: 1_500,
    }
}

fn full() -> Entry {
    Entry {
        action: Action::SweepEnd,
        outcome: Outcome::Done,
        store_key: Some(samples::store_key_id()),
        log: Some(StoreLogMark { number: 7, hash: [7; 32] }),
        swept: Some(SweepCount { seen: 1_000_000, left: 0, failed: 0 }),
        ..entry(1)
    }
}

pub(crate) fn batch() -> Batch {
    let entries = [entry(1), full()].map(|entry| entry.encode().unwrap()).to_vec();
    Batch { number: 3, first: 40, previous: Some([9; 32]), entries }
}

pub(crate) fn seal(batch: &Batch) -> Vec<u8> {
    let key = samples::root().audit_key();
    batch.seal(CryptoProvider::rust_crypto(), &key, samples::header(), samples::salt()).unwrap()
}

fn open_as(header: EnvelopeHeader, number: u64, object: &[u8]) -> Result<Batch, OpenBatchError> {
    Batch::open(CryptoProvider::rust_crypto(), &samples::root().audit_key(), header, number, object)
}

fn open(object: &[u8]) -> Result<Batch, OpenBatchError> {
    open_as(samples::header(), 3, object)
}

/// A batch object with anything inside, as a broken writer would make it.
pub(crate) fn with_inside(inside: &Cbor) -> Vec<u8> {
    let header = Cbor::decode(&seal(&batch())).items()[1].as_bytes().to_vec();
    let context = bulla_envelope::context::audit_context(&header, 3);
    let key = samples::root().audit_key();
    let sealed = bulla_envelope::cobblestone::seal(
        CryptoProvider::rust_crypto(),
        key.expose(),
        &context,
        samples::salt(),
        &inside.encode(),
    );
    Cbor::Array(vec![Cbor::Uint(1), Cbor::bytes(&header), Cbor::bytes(&sealed)]).encode()
}

// FORMAT-T2
#[test]
fn entries_come_back_as_they_were() {
    for entry in [entry(1), entry(3), full()] {
        assert_eq!(Entry::decode(&entry.encode().unwrap()), Ok(entry));
    }
    let bytes = full().encode().unwrap();
    let mut decoded = Cbor::decode(&bytes);
    let items = decoded.items_mut();
    assert_eq!(items.len(), 14);
    assert_eq!((items[0].clone(), items[5].clone()), (Cbor::Uint(1), Cbor::Uint(12)));
}

// FORMAT-T2
#[test]
fn entries_that_break_a_rule_are_neither_written_nor_read() {
    let key = "k".repeat(513);
    let bad = [
        Entry { count: 0, ..entry(1) },
        Entry { last: samples::CREATED - 1, ..entry(1) },
        Entry { last: 253_402_300_800_000, ..entry(1) },
        Entry { node: String::new(), ..entry(1) },
        Entry { node: "two words".into(), ..entry(1) },
        Entry { node: "n".repeat(65), ..entry(1) },
        Entry { reason: Some("no\n".into()), ..entry(1) },
        Entry { identity: Some(String::new()), ..entry(1) },
        Entry { keys: vec![key], ..entry(1) },
        Entry { keys: vec!["k".into(); 9], ..entry(1) },
    ];
    for entry in bad {
        entry.encode().unwrap_err();
    }
    let good = entry(1).encode().unwrap();
    for (at, value) in [(0, Cbor::Uint(2)), (3, Cbor::Uint(0)), (5, Cbor::Uint(17)), (6, Cbor::Uint(9))] {
        let mut changed = Cbor::decode(&good);
        changed.items_mut()[at] = value;
        assert!(Entry::decode(&changed.encode()).is_err(), "element {at}");
    }
    assert!(Entry::decode(&[good, vec![0]].concat()).is_err());
}

// FORMAT-T1
#[test]
fn a_batch_has_the_frame_and_is_sealed_as_the_format_says() {
    let mut object = Cbor::decode(&seal(&batch()));
    let [Cbor::Uint(1), Cbor::Bytes(header), Cbor::Bytes(sealed)] = object.items_mut().as_slice() else {
        panic!("not [1, header, sealed]")
    };
    let len = u32::try_from(header.len()).unwrap().to_be_bytes();
    let context =
        [b"bulla/v1/audit".as_slice(), &[0; 18], &len, header, &[0, 0, 0, 8], &[0; 7], &[3]].concat();
    for crypto in providers() {
        let key = samples::root().audit_key();
        let plaintext = bulla_envelope::cobblestone::open(crypto, key.expose(), &context, sealed).unwrap();
        let inside = Cbor::decode(&plaintext);
        assert_eq!(inside.items()[..3], [Cbor::Uint(3), Cbor::Uint(40), Cbor::bytes(&[9; 32])]);
    }
    assert_eq!(open(&seal(&batch())), Ok(batch()));
}

// FORMAT-T1
#[test]
fn a_batch_opens_in_its_place_only() {
    let object = seal(&batch());
    for number in [0, 1, 2, 4, u64::MAX] {
        assert_eq!(open_as(samples::header(), number, &object), Err(OpenBatchError::NotAuthentic));
    }
    let headers = [
        EnvelopeHeader { store: StoreId::from_bytes([0; 16]), ..samples::header() },
        EnvelopeHeader { root: RootId::from_bytes([0; 16]), ..samples::header() },
    ];
    for header in headers {
        assert_eq!(open_as(header, 3, &object), Err(OpenBatchError::NotAuthentic));
    }
    let other = samples::new_root().audit_key();
    let opened = Batch::open(CryptoProvider::rust_crypto(), &other, samples::header(), 3, &object);
    assert_eq!(opened, Err(OpenBatchError::NotAuthentic));
}

// FORMAT-T1
#[test]
fn no_flipped_bit_and_no_cut_of_a_batch_opens() {
    let object = seal(&batch());
    for bit in 0..object.len() * 8 {
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&flipped).is_err(), "bit {bit}");
    }
    for len in 0..object.len() {
        assert!(open(&object[..len]).is_err(), "{len} of {} bytes", object.len());
    }
}

// FORMAT-T3
#[test]
fn batches_that_break_a_rule_are_neither_written_nor_read() {
    let bad = [
        Batch { number: 0, ..batch() },
        Batch { number: 100_000_000, ..batch() },
        Batch { number: 1, ..batch() },
        Batch { number: 1, previous: None, ..batch() },
        Batch { previous: None, ..batch() },
        Batch { entries: Vec::new(), ..batch() },
        Batch { entries: vec![entry(1).encode().unwrap(); MAX_BATCH + 1], ..batch() },
        Batch { entries: vec![b"no entry".to_vec()], ..batch() },
    ];
    for batch in bad {
        let key = samples::root().audit_key();
        batch.seal(CryptoProvider::rust_crypto(), &key, samples::header(), samples::salt()).unwrap_err();
    }
    let leaf = || Cbor::bytes(&entry(1).encode().unwrap());
    let inside = |number: u64, previous: Cbor, entries: Vec<Cbor>| {
        with_inside(&Cbor::Array(vec![Cbor::Uint(number), Cbor::Uint(40), previous, Cbor::Array(entries)]))
    };
    assert!(open(&inside(3, Cbor::bytes(&[9; 32]), vec![leaf()])).is_ok());
    let bad = [
        inside(4, Cbor::bytes(&[9; 32]), vec![leaf()]),
        inside(3, Cbor::Null, vec![leaf()]),
        inside(3, Cbor::bytes(&[9; 31]), vec![leaf()]),
        inside(3, Cbor::bytes(&[9; 32]), vec![]),
        inside(3, Cbor::bytes(&[9; 32]), vec![Cbor::bytes(b"no entry")]),
        inside(3, Cbor::bytes(&[9; 32]), vec![leaf(); MAX_BATCH + 1]),
    ];
    for object in bad {
        assert!(matches!(open(&object), Err(OpenBatchError::Decode(_))));
    }
}

// FORMAT-T1
#[test]
fn a_batch_has_one_key() {
    assert_eq!(audit_key(12), "audit/00000012.cbor");
    assert_eq!(parse_audit_key("audit/00000012.cbor"), Some(12));
    for key in [
        "audit/12.cbor",
        "audit/00000000.cbor",
        "audit/0000001a.cbor",
        "store/00000012.cbor",
        "audit/+0000012.cbor",
    ] {
        assert_eq!(parse_audit_key(key), None, "{key}");
    }
}

proptest! {
    // FORMAT-C4
    #[test]
    fn any_bytes_are_an_entry_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(&entry.encode().unwrap(), &bytes);
        }
        prop_assert!(open(&bytes).is_err());
    }

    // FORMAT-C5
    #[test]
    fn an_entry_with_a_byte_changed_is_another_or_none(at in 0_usize..1000, to: u8) {
        let bytes = full().encode().unwrap();
        let at = at % bytes.len();
        let mut changed = bytes.clone();
        changed[at] = to;
        if let Ok(other) = Entry::decode(&changed) {
            prop_assert_eq!(changed == bytes, other == full());
            prop_assert_eq!(other.encode().unwrap(), changed);
        }
    }
}
