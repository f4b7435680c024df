//! Envelopes: what opens them, what they refuse to say, and any bytes at all.

use bulla_envelope::cobblestone::{self, Header, OpenError, Opener};
use bulla_envelope::context::extent_context;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::envelope::{
    BlobRecord, Envelope, EnvelopeHeader, Extent, MAX_INLINE_LEN, MAX_WRAPS, OpenEnvelopeError, Wrap,
};
use bulla_envelope::ids::{BlobId, ExtentName, RootId, StoreId};
use bulla_envelope::secret::{Dek, Root, StoreKey};
use bulla_envelope::{DecodeError, MAX_OBJECT_LEN};
use proptest::prelude::*;

use crate::cbor_value::Cbor;
use crate::samples;
use crate::support::{Seeded, providers};

fn rust_crypto() -> &'static CryptoProvider {
    CryptoProvider::rust_crypto()
}

fn inline() -> BlobRecord {
    samples::inline_record(Algorithm::Sha256, &samples::plaintext(100))
}

// FORMAT-C3
#[test]
fn an_object_over_1_mib_is_refused_before_anything_else() {
    let too_large = vec![0; MAX_OBJECT_LEN + 1];
    assert_eq!(Envelope::decode(&too_large), Err(DecodeError::TooLarge { len: MAX_OBJECT_LEN + 1 }));
    assert!(matches!(Envelope::decode(&too_large[1..]), Err(DecodeError::Malformed(_))));
}

// FORMAT-C3
#[test]
fn an_envelope_over_1_mib_is_not_written() {
    let record = |count: usize| {
        let extents = (0..count).map(|number| {
            let number = u64::try_from(number).unwrap().to_be_bytes();
            let (mut name, mut salt) = ([0; 16], [0; 24]);
            name[..8].copy_from_slice(&number);
            salt[..8].copy_from_slice(&number);
            let header = Header { salt, commitment: [0; 32] };
            Extent { name: ExtentName::from_bytes(name), len: 1 << 40, header }
        });
        let size = u64::try_from(count).unwrap() << 40;
        BlobRecord { inline: None, extents: extents.collect(), size, ..inline() }
    };
    let seal = |record: &BlobRecord| {
        let key = samples::root().envelope_key();
        let (header, wraps) = (samples::header(), samples::wraps());
        Envelope::seal(rust_crypto(), &key, header, wraps, &samples::dek(), record, samples::salt())
    };
    // FORMAT.md §11 promises this many.
    let large = seal(&record(11_900)).unwrap();
    assert_eq!(Envelope::decode(&large.encode()).as_ref(), Ok(&large));
    assert_eq!(seal(&record(12_200)).unwrap_err().rule(), "an envelope is at most 1 MiB");
}

// FORMAT-C4
#[test]
fn a_count_without_the_bytes_for_it_is_refused() {
    // 2⁶³ wraps, then as many bytes as an envelope may have.
    let mut object = Cbor::decode(&samples::seal(rust_crypto(), &inline()).encode());
    object.items_mut()[2] = Cbor::Raw(vec![0x9b, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    let mut object = object.encode();
    object.resize(MAX_OBJECT_LEN, 0);
    assert_eq!(Envelope::decode(&object), Err(DecodeError::Malformed("the wraps")));
}

#[test]
fn no_cut_of_an_envelope_decodes() {
    let object = samples::seal(rust_crypto(), &inline()).encode();
    for len in 0..object.len() {
        assert!(Envelope::decode(&object[..len]).is_err(), "{len} of {} bytes", object.len());
    }
}

/// Every bit of an envelope matters: header and sealed part are authenticated, and a changed wrap does not unwrap or is not
/// of a known key any more.
// FORMAT-E4, FORMAT-E5
#[test]
fn no_flipped_bit_of_an_envelope_opens() {
    let record = inline();
    let object = samples::seal(rust_crypto(), &record).encode();
    for bit in 0..object.len() * 8 {
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(envelope) = Envelope::decode(&flipped) else { continue };
        let wrap = &envelope.wraps[0];
        let known = wrap.store_key() == Some(samples::store_key_id());
        let Ok(dek) = samples::store_key().unwrap_key(&wrap.value) else { continue };
        let opened =
            envelope.open(rust_crypto(), &samples::root().envelope_key(), &Dek::from(dek), &record.digest);
        assert!(!known || opened.is_err(), "bit {bit}");
    }
}

// FORMAT-E5
#[test]
fn root_and_dek_are_both_needed() {
    let record = inline();
    let envelope = samples::seal(rust_crypto(), &record);
    let (root, dek) = (samples::root(), samples::dek());
    let (other_root, other_dek) = (samples::new_root(), Dek::from_slice(&[7; 32]).unwrap());
    for crypto in providers() {
        let open = |root: &Root, dek: &Dek| envelope.open(crypto, &root.envelope_key(), dek, &record.digest);
        assert_eq!(open(&root, &dek).as_ref(), Ok(&record));
        assert_eq!(open(&other_root, &dek), Err(OpenEnvelopeError::NotAuthentic));
        assert_eq!(open(&root, &other_dek), Err(OpenEnvelopeError::NotAuthentic));
    }
}

// FORMAT-E13
#[test]
fn wrapping_again_changes_nothing_else() {
    let record = inline();
    let before = samples::seal(rust_crypto(), &record);
    let new_key = StoreKey::from_slice(&[8; 32]).unwrap();
    let value = new_key.wrap_key(samples::dek().expose());
    let wraps = vec![Wrap::under_store_key(&samples::new_store_key_id(), value)];
    let after = Envelope::decode(&Envelope { wraps, ..before.clone() }.encode()).unwrap();
    assert_eq!((&after.header, &after.sealed), (&before.header, &before.sealed));
    assert_eq!(samples::open(&after, &record.digest), record);
    assert_eq!(after.wraps[0].store_key(), Some(samples::new_store_key_id()));
}

#[test]
fn a_wrap_is_under_a_store_key_only_if_kid_and_alg_say_so() {
    let wrap = samples::wraps().remove(0);
    assert_eq!(wrap.store_key(), Some(samples::store_key_id()));
    assert_eq!(Wrap { alg: "RSA-OAEP-256".to_owned(), ..wrap.clone() }.store_key(), None);
    assert_eq!(Wrap { kid: wrap.kid.to_uppercase(), ..wrap.clone() }.store_key(), None);
    assert_eq!(Wrap { kid: format!("{}a", wrap.kid), ..wrap.clone() }.store_key(), None);
    assert_eq!(samples::wrap(samples::KEK_1, 0).store_key(), None);
}

// FORMAT-X1, FORMAT-X2
#[test]
fn an_extent_opens_in_its_place_only() {
    let (record, messages) = samples::extents_record(rust_crypto(), &[16_400, 16_400, 3]);
    let (store, blob) = (samples::store_id(), record.blob);
    for crypto in providers() {
        let opener = |store: &StoreId, blob: &BlobId, header: &Header| {
            Opener::new(crypto, samples::dek().expose(), &extent_context(store, blob), header)
        };
        let open = |extent: usize, message: usize| {
            let mut plaintext = vec![0; usize::try_from(record.extents[message].len).unwrap()];
            let opener = opener(&store, &blob, &record.extents[extent].header).unwrap();
            opener.open_chunks(0, &messages[message][cobblestone::HEADER_LEN..], true, &mut plaintext)?;
            Ok::<_, OpenError>(plaintext)
        };
        for extent in 0..3 {
            for message in 0..3 {
                // Salt and commitment come from the envelope, so another extent's bytes are not authentic.
                assert_eq!(
                    open(extent, message).is_ok(),
                    extent == message,
                    "{message} in place of {extent}"
                );
            }
        }
        let header = &record.extents[0].header;
        for (store, blob) in [(StoreId::from_bytes([1; 16]), blob), (store, BlobId::from_bytes([1; 16]))] {
            assert_eq!(opener(&store, &blob, header).map(drop), Err(OpenError::Commitment));
        }
    }
}

#[test]
fn the_inline_payload_is_not_in_debug_output() {
    let record = samples::inline_record(Algorithm::Sha256, b"the customer's data");
    let text = format!("{record:?}");
    assert!(text.contains("inline_len: Some(19)") && !text.contains("inline:"), "{text}");
}

fn any_record() -> impl Strategy<Value = (BlobRecord, u64)> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(Ok),
        Just(Ok(vec![5; MAX_INLINE_LEN])),
        prop::collection::vec(1..u64::MAX / 300, 1..200).prop_map(Err),
    ];
    let sha512 = any::<bool>().prop_map(|yes| if yes { Algorithm::Sha512 } else { Algorithm::Sha256 });
    let time = 0..=253_402_300_799_999_u64;
    (content, sha512, any::<u64>(), time.clone(), prop::option::of(time)).prop_map(
        |(content, algorithm, seed, created, expires)| {
            let random = Seeded::new(seed);
            let lens = content.as_ref().err().cloned().unwrap_or_default();
            let extents: Vec<Extent> = lens
                .into_iter()
                .map(|len| {
                    let (mut salt, mut commitment) = ([0; 24], [0; 32]);
                    bulla_envelope::random::RandomSource::fill(&random, &mut salt);
                    bulla_envelope::random::RandomSource::fill(&random, &mut commitment);
                    Extent {
                        name: ExtentName::random(&random),
                        len: len % (1 << 52) + 1,
                        header: Header { salt, commitment },
                    }
                })
                .collect();
            let inline = content.ok();
            let size = match &inline {
                Some(inline) => u64::try_from(inline.len()).unwrap(),
                None => extents.iter().map(|extent| extent.len).sum(),
            };
            let record = BlobRecord {
                digest: Digest::of(algorithm, &seed.to_be_bytes()),
                size,
                blob: BlobId::random(&random),
                extents,
                inline,
                created,
                dek_root: RootId::random(&random),
                expires,
                there_since: expires,
            };
            (record, seed)
        },
    )
}

fn any_wraps() -> impl Strategy<Value = Vec<Wrap>> {
    let wrap = ("[!-~]{1,512}", "[A-Z0-9-]{1,32}", prop::collection::vec(any::<u8>(), 1..=1024))
        .prop_map(|(kid, alg, value)| Wrap { kid, alg, value });
    prop::collection::vec(wrap, 1..=MAX_WRAPS).prop_filter("kids differ", |wraps| {
        wraps.iter().enumerate().all(|(at, wrap)| wraps[..at].iter().all(|before| before.kid != wrap.kid))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn envelopes_round_trip((record, seed) in any_record(), wraps in any_wraps()) {
        let random = Seeded::new(seed ^ 1);
        let (root, dek) = (Root::random(&random), Dek::random(&random));
        let header = EnvelopeHeader { store: StoreId::random(&random), root: RootId::random(&random) };
        let key = root.envelope_key();
        for crypto in providers() {
            let envelope = Envelope::seal(crypto, &key, header, wraps.clone(), &dek, &record, [3; 24]).unwrap();
            let object = envelope.encode();
            let decoded = Envelope::decode(&object).unwrap();
            prop_assert_eq!(&decoded, &envelope);
            prop_assert_eq!(decoded.encode(), object);
            let opened = decoded.open(crypto, &key, &dek, &record.digest);
            prop_assert_eq!(opened.as_ref(), Ok(&record));
        }
    }

    // FORMAT-C1, FORMAT-C4
    #[test]
    fn any_bytes_decode_to_themselves_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(envelope) = Envelope::decode(&bytes) {
            prop_assert_eq!(envelope.encode(), bytes);
        }
    }

    // FORMAT-C1, FORMAT-C4
    #[test]
    fn mutated_envelopes_decode_to_themselves_or_not_at_all(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, any::<u8>()), 1..6),
    ) {
        let mut bytes = samples::seal(rust_crypto(), &inline()).encode();
        mutate(&mut bytes, &edits);
        if let Ok(envelope) = Envelope::decode(&bytes) {
            prop_assert_eq!(envelope.encode(), bytes);
        }
    }
}

/// Replaces, inserts or removes bytes.
pub(crate) fn mutate(bytes: &mut Vec<u8>, edits: &[(prop::sample::Index, u8, u8)]) {
    for (at, what, byte) in edits {
        if bytes.is_empty() {
            return;
        }
        let at = at.index(bytes.len());
        match what {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            _ => drop(bytes.drain(at..=at)),
        }
    }
}
