//! Log records: who can sign them, what a hint is, names of log objects, and any bytes at all.

use bulla_envelope::envelope::Wrap;
use bulla_envelope::ids::{RootId, StoreId, StoreKeyId};
use bulla_envelope::random::RandomSource;
use bulla_envelope::record::{
    KekEntry, KekState, LogRecord, MacMismatch, Managed, Mode, PartyEntry, RootEntry, RootState,
    SignedRecord, StoreKeyEntry, StoreKeyState, UnverifiedRecord, log_key, object_hash, parse_log_key, stub,
};
use bulla_envelope::secret::{Root, Secret};
use bulla_envelope::{DecodeError, MAX_OBJECT_LEN};
use proptest::prelude::*;

use crate::envelopes::mutate;
use crate::samples;
use crate::support::Seeded;

// FORMAT-L12
#[test]
fn log_keys_have_eight_digits() {
    for (number, key) in
        [(1, "store/00000001.cbor"), (42, "store/00000042.cbor"), (99_999_999, "store/99999999.cbor")]
    {
        assert_eq!(log_key(number), key);
        assert_eq!(parse_log_key(key), Some(number));
    }
    for key in [
        "store/00000000.cbor",
        "store/1.cbor",
        "store/000000001.cbor",
        "store/100000000.cbor",
        "store/+0000001.cbor",
        "store/0000000a.cbor",
        "store/00000001.cbor.tmp",
        "store/00000001",
        "Store/00000001.cbor",
        "x/store/00000001.cbor",
        "00000001.cbor",
        "",
    ] {
        assert_eq!(parse_log_key(key), None, "{key}");
    }
}

// FORMAT-L2
#[test]
fn only_the_holder_of_the_root_signs() {
    let (mine, foreign) = (samples::root().record_key(), samples::new_root().record_key());
    let signed = samples::first_record().sign(&mine).unwrap();
    let read = SignedRecord::decode(signed.object()).unwrap();
    assert_eq!(read.hint(), signed.record());
    assert_eq!(read.verify(&mine).as_ref(), Ok(signed.record()));
    assert_eq!(read.verify(&foreign), Err(MacMismatch));
    assert_eq!(read.verify_pending(&mine, &mine), Err(MacMismatch), "no root is pending");
    assert_eq!(read.hash(), signed.hash());
    assert_eq!(signed.hash(), object_hash(signed.object()));
}

// FORMAT-L3
#[test]
fn a_pending_root_needs_both_signatures() {
    let (old, new) = (samples::root().record_key(), samples::new_root().record_key());
    let foreign = Root::from_slice(&[9; 32]).unwrap().record_key();
    let pending = samples::pending_record();
    assert!(pending.sign(&old).is_err());
    assert!(samples::first_record().sign_pending(&old, &new).is_err());

    let read = UnverifiedRecord::decode(pending.sign_pending(&old, &new).unwrap().object()).unwrap();
    assert_eq!(read.verify(&old).as_ref(), Ok(&pending));
    assert_eq!(read.verify(&new).as_ref(), Ok(&pending));
    assert_eq!(read.verify(&foreign), Err(MacMismatch));
    assert_eq!(read.verify_pending(&old, &new).as_ref(), Ok(&pending));
    for (first, second) in [(&new, &old), (&old, &foreign), (&foreign, &new), (&old, &old)] {
        assert_eq!(read.verify_pending(first, second), Err(MacMismatch));
    }
}

/// What a reader of the old root learns from the pending record opens what the next one has.
#[test]
fn a_retiring_root_opens_under_the_active_one() {
    let record = samples::retiring_record();
    let wrapped = record.roots[0].parent.unwrap();
    let old = Root::from(samples::new_root().retired_root_wrapping_key().unwrap_key(&wrapped).unwrap());
    assert!(old.ct_eq(&samples::root()));
    let key = &record.store_keys[0];
    assert!(old.store_key_wrapping_key().unwrap_key(&key.value).is_ok());
}

// FORMAT-K3
#[test]
fn all_members_of_a_group_are_needed() {
    let random = Seeded::new(3);
    let root = samples::root();
    let [only] = <[Secret<32>; 1]>::try_from(root.split(1, &random)).unwrap();
    assert_eq!(only.expose(), root.expose());
    for parties in 2..=8 {
        let mut shares = root.split(parties, &random);
        assert_eq!(shares.len(), parties);
        assert!(Root::join(&shares).unwrap().ct_eq(&root));
        let again = root.split(parties, &random);
        assert!(shares.iter().zip(&again).all(|(share, again)| !share.ct_eq(again)), "shares are redrawn");
        shares.pop();
        assert!(!Root::join(&shares).unwrap().ct_eq(&root));
    }
}

// FORMAT-L4
#[test]
fn a_stub_is_neither_record_nor_damage() {
    assert_eq!(stub(), [0x81, 0x01]);
    assert_eq!(SignedRecord::decode(&stub()), Err(DecodeError::Stub));
    assert_eq!(SignedRecord::decode(&[0x81, 0x02]), Err(DecodeError::UnknownVersion(2)));
    assert!(matches!(SignedRecord::decode(&[0x81, 0x01, 0x00]), Err(DecodeError::Malformed(_))));
}

// FORMAT-C3
#[test]
fn a_log_has_room_for_30_000_records() {
    let long = |number: u64| LogRecord {
        number,
        history: (1..number).map(|number| object_hash(&number.to_be_bytes())).collect(),
        ..samples::first_record()
    };
    let key = samples::root().record_key();
    let signed = long(30_000).sign(&key).unwrap();
    assert_eq!(SignedRecord::decode(signed.object()).unwrap().verify(&key).as_ref(), Ok(signed.record()));
    assert_eq!(long(31_000).sign(&key).unwrap_err().rule(), "a record is at most 1 MiB");
    let too_large = vec![0; MAX_OBJECT_LEN + 1];
    assert_eq!(SignedRecord::decode(&too_large), Err(DecodeError::TooLarge { len: MAX_OBJECT_LEN + 1 }));
}

// FORMAT-L2
#[test]
fn no_flipped_bit_of_a_record_verifies() {
    let key = samples::root().record_key();
    let object = samples::first_record().sign(&key).unwrap().into_object();
    for bit in 0..object.len() * 8 {
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(record) = SignedRecord::decode(&flipped) else { continue };
        assert_eq!(record.verify(&key), Err(MacMismatch), "bit {bit}");
    }
}

#[test]
fn no_cut_of_a_record_decodes() {
    let object = samples::rotating_record().sign(&samples::root().record_key()).unwrap().into_object();
    for len in 0..object.len() {
        assert!(SignedRecord::decode(&object[..len]).is_err(), "{len} of {} bytes", object.len());
    }
}

/// Everything that is drawn comes from a seed; what proptest varies are counts and choices.
fn any_record() -> impl Strategy<Value = LogRecord> {
    let counts = (1..40_u64, 1..5_usize, 0..4_usize, 1..4_usize, 1..4_usize, 0..5_usize);
    let choices = (any::<bool>(), any::<bool>(), prop::option::of(0..253_402_300_799_999_u64));
    let texts = ("[^\\pC]{1,100}", "[!-~]{1,200}");
    (any::<u64>(), counts, choices, 1..31_622_400_000_u64, texts).prop_map(
        |(
            seed,
            (number, keks, retiring, groups, members, store_keys),
            (direct, service, rotated),
            bound,
            texts,
        )| {
            let random = Seeded::new(seed);
            let value = |len: usize| {
                let mut value = vec![0; len];
                random.fill(&mut value);
                value
            };
            let state = |first: bool| if first { KekState::Active } else { KekState::Retiring };
            let keks: Vec<KekEntry> = (0..keks.max(members))
                .map(|number| KekEntry {
                    kid: format!("kek-{number}"),
                    alg: if number % 2 == 0 { "RSA-OAEP-256" } else { "A256KW" }.to_owned(),
                    state: state(number == 0),
                    since: seed % 1000,
                })
                .collect();
            let group = |_| {
                let members = keks.iter().take(members);
                members
                    .map(|kek| Wrap { kid: kek.kid.clone(), alg: kek.alg.clone(), value: value(256) })
                    .collect()
            };
            let active = RootEntry {
                id: RootId::random(&random),
                state: RootState::Active,
                groups: (0..groups).map(group).collect(),
                parent: None,
            };
            let retiring = (0..retiring).map(|_| RootEntry {
                id: RootId::random(&random),
                state: RootState::Retiring,
                groups: Vec::new(),
                parent: Some(value(40).try_into().unwrap()),
            });
            let store_keys = (0..=store_keys).map(|number| StoreKeyEntry {
                id: StoreKeyId::random(&random),
                state: match number {
                    0 => StoreKeyState::Active,
                    1 => StoreKeyState::Retiring,
                    _ => StoreKeyState::Retired,
                },
                root: active.id,
                value: value(40).try_into().unwrap(),
                since: seed % 7,
            });
            let other_parties: Vec<PartyEntry> = (1..members)
                .map(|number| PartyEntry {
                    identity: format!("identity {number}"),
                    key_id: format!("kek-{number}"),
                })
                .collect();
            // Several parties are in one mode, and customers.
            let (direct, service) = (direct && members == 1, service && members == 1);
            LogRecord {
                number,
                history: (1..number).map(|_| value(32).try_into().unwrap()).collect(),
                store: StoreId::random(&random),
                mode: if direct { Mode::Direct } else { Mode::Hierarchical },
                revocation_bound_ms: bound,
                identity: texts.0,
                key_id: texts.1,
                store_keys: store_keys.collect(),
                roots: retiring.chain([active]).collect(),
                keks,
                created: seed % (1 << 40),
                rotated,
                managed: if service { Managed::Service } else { Managed::Customer },
                written: seed % (1 << 41),
                other_parties,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn records_round_trip(record in any_record()) {
        let key = samples::root().record_key();
        let signed = record.sign(&key).unwrap();
        let read = SignedRecord::decode(signed.object()).unwrap();
        let verified = read.verify(&key).unwrap();
        prop_assert_eq!(&verified, &record);
        prop_assert_eq!(verified.sign(&key).unwrap(), signed);
    }

    // FORMAT-C1, FORMAT-C4
    #[test]
    fn any_bytes_are_a_record_in_its_one_encoding_or_none(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(SignedRecord::decode(&bytes).is_err());
    }

    /// The body is changed before it is signed, so that the MAC does not hide what the decoder accepts.
    // FORMAT-C1, FORMAT-C4
    #[test]
    fn a_mutated_body_is_a_record_in_its_one_encoding_or_none(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..6),
    ) {
        use crate::cbor_value::Cbor;
        let key = samples::root().record_key();
        let signed = samples::rotating_record().sign(&key).unwrap();
        let mut object = Cbor::decode(signed.object());
        let mut body = object.items()[1].as_bytes().to_vec();
        mutate(&mut body, &edits);
        object.items_mut()[2] = Cbor::bytes(&key.mac(&body));
        object.items_mut()[1] = Cbor::Bytes(body);
        let object = object.encode();
        if let Ok(read) = SignedRecord::decode(&object) {
            let record = read.verify(&key).unwrap();
            let again = record.sign(&key).unwrap();
            prop_assert_eq!(again.object(), object.as_slice());
        }
    }
}
