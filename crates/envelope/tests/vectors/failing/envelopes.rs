//! Envelopes that are refused.

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::envelope::{BlobRecord, Envelope};
use bulla_envelope::ids::{RootId, StoreId};
use bulla_envelope::secret::Dek;
use serde_json::Value;

use super::super::json::hex;
use super::super::passing::{self, inner, seal_inner};
use super::Failing;
use crate::cbor_value::Cbor;
use crate::samples;

pub(super) fn all() -> Vec<Failing> {
    [frames(), wraps(), swaps(), insides()].concat()
}

fn inline() -> BlobRecord {
    samples::inline_record(Algorithm::Sha256, &samples::plaintext(100))
}

fn sealed() -> Envelope {
    samples::seal(CryptoProvider::rust_crypto(), &inline())
}

fn vector(about: &str, object: &[u8]) -> Value {
    passing::envelope(about, &inline().digest, object)
}

/// The object, taken apart and changed.
fn edited(about: &str, edit: impl FnOnce(&mut Vec<Cbor>)) -> Value {
    let mut object = Cbor::decode(&sealed().encode());
    edit(object.items_mut());
    vector(about, &object.encode())
}

/// The header, taken apart and changed.
fn edited_header(about: &str, edit: impl FnOnce(&mut Vec<Cbor>)) -> Value {
    edited(about, |object| {
        let mut header = Cbor::decode(object[1].as_bytes());
        edit(header.items_mut());
        object[1] = Cbor::Bytes(header.encode());
    })
}

// FORMAT-C1, FORMAT-C2, FORMAT-C5, FORMAT-E1, FORMAT-E2
fn frames() -> Vec<Failing> {
    let object = sealed().encode();
    let mut vectors = vec![
        ("envelope_truncated", vector("the last byte is missing", &object[..object.len() - 1])),
        ("envelope_empty_object", vector("no bytes: a tombstone, and no envelope", b"")),
        ("envelope_trailing_byte", vector("a byte follows", &[object.as_slice(), &[0]].concat())),
        (
            "envelope_indefinite_array",
            vector("an array of indefinite length", &[&[0x9f], &object[1..], &[0xff]].concat()),
        ),
        (
            "envelope_long_version",
            vector("the version, not in its shortest form", &[&[0x84, 0x18, 0x01], &object[2..]].concat()),
        ),
        ("envelope_unknown_version", edited("version 2", |object| object[0] = Cbor::Uint(2))),
        (
            "envelope_unknown_version_of_another_shape",
            vector("version 7, and nothing else as it is in version 1", &[0x82, 0x07, 0xf6]),
        ),
        ("envelope_fifth_element", edited("one element too many", |object| object.push(Cbor::Null))),
        ("envelope_log_record", vector("a log record in an envelope's place", &log_record())),
        (
            "envelope_unknown_suite",
            edited_header("sealed with another suite", |header| header[0] = Cbor::text("Cobblestone-128")),
        ),
        (
            "envelope_suite_with_escape_sequence",
            edited_header("a name that would play with a terminal", |header| {
                header[0] = Cbor::text("\u{1b}[2J")
            }),
        ),
        (
            "envelope_short_store_id",
            edited_header("an id of 15 bytes", |header| header[1] = Cbor::bytes(&[1; 15])),
        ),
        (
            "envelope_header_not_canonical",
            edited("the header's array length takes two bytes", |object| {
                let header = object[1].as_bytes();
                object[1] = Cbor::Bytes([&[0x98, 0x03], &header[1..]].concat());
            }),
        ),
        (
            "envelope_sealed_too_short",
            edited("no message is that short", |object| object[3] = Cbor::bytes(&[0; 71])),
        ),
    ];
    vectors.drain(..).map(|(name, vector)| (name, "decode", vector)).collect()
}

fn log_record() -> Vec<u8> {
    samples::first_record().sign(&samples::root().record_key()).unwrap().into_object()
}

// FORMAT-C6, FORMAT-E3, FORMAT-E4, FORMAT-K2, FORMAT-S3
fn wraps() -> Vec<Failing> {
    let with =
        |about: &str, edit: &dyn Fn(&mut Vec<Cbor>)| edited(about, |object| edit(object[2].items_mut()));
    let renamed = |about: &str, kid: &str| with(about, &|wraps| wraps[0].items_mut()[0] = Cbor::text(kid));
    let numbered = |wraps: &mut Vec<Cbor>, count: usize| {
        let wrap = wraps[0].clone();
        *wraps = (0..count)
            .map(|number| {
                let mut wrap = wrap.clone();
                wrap.items_mut()[0] = Cbor::Text(format!("key-{number}"));
                wrap
            })
            .collect();
    };
    let foreign = Dek::from_slice(&[0xee; 32]).unwrap();
    let foreign = samples::store_key().wrap_key(foreign.expose());
    let with_value =
        |about: &str, value: &[u8]| with(about, &|wraps| wraps[0].items_mut()[2] = Cbor::bytes(value));
    let mut damaged = sealed().wraps[0].value.clone();
    damaged[20] ^= 1;
    vec![
        ("envelope_no_wraps", "decode", with("nobody could open it", &Vec::clear)),
        ("envelope_five_wraps", "decode", with("at most four", &|wraps| numbered(wraps, 5))),
        (
            "envelope_two_wraps_of_one_kid",
            "decode",
            with("which one counts?", &|wraps| wraps.push(wraps[0].clone())),
        ),
        (
            "envelope_wrap_rsa1_5",
            "decode",
            with("RSAES-PKCS1-v1_5", &|wraps| wraps[0].items_mut()[1] = Cbor::text("RSA1_5")),
        ),
        ("envelope_kid_with_newline", "decode", renamed("not printable", "store-key:a\nb")),
        ("envelope_kid_empty", "decode", renamed("no kid", "")),
        ("envelope_kid_too_long", "decode", renamed("513 bytes", &"k".repeat(513))),
        ("envelope_wrap_empty", "decode", with_value("nothing wrapped", b"")),
        ("envelope_wrap_too_long", "decode", with_value("1025 bytes", &[7; 1025])),
        ("envelope_wrap_damaged", "unwrap", with_value("a bit of the wrap is flipped", &damaged)),
        ("envelope_wrap_short", "unwrap", with_value("A256KW of 24 bytes", &damaged[..32])),
        (
            "envelope_wrap_of_another_dek",
            "open",
            with_value("a forged wrap: the DEK is not the one", &foreign),
        ),
    ]
}

// FORMAT-E5, FORMAT-S1, FORMAT-S2
fn swaps() -> Vec<Failing> {
    let object = sealed().encode();
    let crypto = CryptoProvider::rust_crypto();
    let swapped = samples::inline_record(Algorithm::Sha256, b"another blob").digest;
    let same_bytes = Digest::of(Algorithm::Sha512, &samples::plaintext(100));
    let elsewhere = |envelope: Envelope| vector("the header says another place", &envelope.encode());
    let (store, root) = (StoreId::from_bytes([9; 16]), RootId::from_bytes([9; 16]));
    let mut another_root = vector("sealed under another root", &object);
    another_root["root"] = hex(samples::new_root().expose()).into();
    let in_sealed = |about: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut envelope = sealed();
        edit(&mut envelope.sealed);
        vector(about, &envelope.encode())
    };
    let large = samples::inline_record(Algorithm::Sha256, &samples::plaintext(16_384));
    let large_sealed = samples::seal(crypto, &large);
    assert!(large_sealed.sealed.len() > 16_456, "two chunks");
    let cut = |len: usize| {
        let cut = Envelope { sealed: large_sealed.sealed[..len].to_vec(), ..large_sealed.clone() };
        passing::envelope("cut at the end of a chunk", &large.digest, &cut.encode())
    };
    let mut vectors = vec![
        ("envelope_digest_swapped", passing::envelope("asked for as another blob", &swapped, &object)),
        ("envelope_algorithm_swapped", passing::envelope("asked for by its SHA-512", &same_bytes, &object)),
        (
            "envelope_of_another_store",
            elsewhere(Envelope {
                header: bulla_envelope::envelope::EnvelopeHeader { store, ..samples::header() },
                ..sealed()
            }),
        ),
        (
            "envelope_of_another_root_id",
            elsewhere(Envelope {
                header: bulla_envelope::envelope::EnvelopeHeader { root, ..samples::header() },
                ..sealed()
            }),
        ),
        ("envelope_under_another_root", another_root),
        ("envelope_salt_changed", in_sealed("the salt", &|sealed| sealed[0] ^= 1)),
        ("envelope_commitment_changed", in_sealed("the commitment", &|sealed| sealed[24] ^= 1)),
        ("envelope_ciphertext_changed", in_sealed("the first byte of the chunk", &|sealed| sealed[56] ^= 1)),
        (
            "envelope_tag_changed",
            in_sealed("the last byte of the tag", &|sealed| *sealed.last_mut().unwrap() ^= 0x80),
        ),
        (
            "envelope_sealed_shortened",
            in_sealed("the last byte is missing", &|sealed| sealed.truncate(sealed.len() - 1)),
        ),
        ("envelope_sealed_extended", in_sealed("a byte is appended", &|sealed| sealed.push(0))),
    ];
    // A message cut after its whole chunks has a length that none has; with an empty last chunk it would have one.
    let mut whole_chunks = cut(56 + 16_400);
    whole_chunks["about"] = "cut where a chunk ends".into();
    let mut vectors: Vec<Failing> = vectors.drain(..).map(|(name, vector)| (name, "open", vector)).collect();
    vectors.push(("envelope_sealed_cut_at_chunk", "decode", whole_chunks));
    vectors.push(("envelope_sealed_cut_into_last_chunk", "open", cut(56 + 16_400 + 16)));
    vectors
}

// FORMAT-C7, FORMAT-E6, FORMAT-E7, FORMAT-E8, FORMAT-E9, FORMAT-E10, FORMAT-E11, FORMAT-E12
fn insides() -> Vec<Failing> {
    let crypto = CryptoProvider::rust_crypto();
    let inline = inline();
    let (extents, _) = samples::extents_record(crypto, &[10, 20]);
    let edited = |record: &BlobRecord, about: &str, edit: &dyn Fn(&mut Cbor)| {
        let mut inside = inner(record);
        edit(&mut inside);
        passing::envelope(about, &record.digest, &seal_inner(&record.digest, &inside.encode()).encode())
    };
    let of_inline = |about: &str, edit: &dyn Fn(&mut Cbor)| edited(&inline, about, edit);
    let of_extents = |about: &str, edit: &dyn Fn(&mut Cbor)| edited(&extents, about, edit);
    let set = |key: u64, value: Cbor| move |inside: &mut Cbor| *inside.field(key) = value.clone();
    let extent = |number: usize, element: usize, value: Cbor| {
        move |inside: &mut Cbor| {
            inside.field(5).items_mut()[number].items_mut()[element] = value.clone();
        }
    };
    let other = samples::inline_record(Algorithm::Sha256, b"another blob");
    let of_another_digest = passing::envelope(
        "a broken writer sealed another blob's record for this digest",
        &inline.digest,
        &seal_inner(&inline.digest, &inner(&other).encode()).encode(),
    );
    let mut vectors = vec![
        ("envelope_inside_of_another_digest", of_another_digest),
        ("envelope_inside_not_a_map", of_inline("null", &|inside| *inside = Cbor::Null)),
        (
            "envelope_inside_trailing_byte",
            of_inline("a byte follows", &|inside| *inside = Cbor::Raw([inside.encode(), vec![0]].concat())),
        ),
        (
            "envelope_inside_keys_not_ascending",
            of_inline("3 before 2", &|inside| inside.entries().swap(1, 2)),
        ),
        (
            "envelope_inside_unknown_key",
            of_inline("key 12", &|inside| inside.entries().push((12, Cbor::Uint(0)))),
        ),
        (
            "envelope_inside_key_twice",
            of_inline("the inline plaintext twice", &|inside| {
                let last = inside.entries().last().unwrap().clone();
                inside.entries().push(last);
            }),
        ),
        (
            "envelope_inside_no_creation_time",
            of_inline("key 6 is missing", &|inside| drop(inside.entries().remove(5))),
        ),
        ("envelope_inside_unknown_algorithm", of_inline("md5", &set(1, Cbor::text("md5")))),
        ("envelope_inside_digest_too_short", of_inline("31 bytes", &set(2, Cbor::bytes(&[0; 31])))),
        ("envelope_inside_digest_of_other_length", of_inline("64 bytes", &set(2, Cbor::bytes(&[0; 64])))),
        (
            "envelope_inside_created_in_year_10000",
            of_inline("too late", &set(6, Cbor::Uint(253_402_300_800_000))),
        ),
        ("envelope_inside_size_wrong", of_extents("one more than the sum", &set(3, Cbor::Uint(31)))),
        (
            "envelope_inside_extents_overflow",
            of_extents("2⁶⁴ − 10 and 20 sum to 10", &|inside| {
                extent(0, 1, Cbor::Uint(u64::MAX - 9))(inside);
                *inside.field(3) = Cbor::Uint(10);
            }),
        ),
        (
            "envelope_inside_extent_empty",
            of_extents("no extent is empty", &|inside| {
                extent(0, 1, Cbor::Uint(0))(inside);
                *inside.field(3) = Cbor::Uint(20);
            }),
        ),
        (
            "envelope_inside_extent_twice",
            of_extents("the same object twice", &|inside| {
                let first = inside.field(5).items()[0].items()[0].clone();
                extent(1, 0, first)(inside);
            }),
        ),
        (
            "envelope_inside_salt_twice",
            of_extents("two extents under one nonce", &|inside| {
                let first = inside.field(5).items()[0].items()[2].clone();
                extent(1, 2, first)(inside);
            }),
        ),
        (
            "envelope_inside_extent_id_short",
            of_extents("an id of 15 bytes", &extent(0, 0, Cbor::bytes(&[1; 15]))),
        ),
        (
            "envelope_inside_neither_inline_nor_extents",
            of_extents("no extents", &|inside| {
                inside.field(5).items_mut().clear();
                *inside.field(3) = Cbor::Uint(0);
            }),
        ),
        (
            "envelope_inside_inline_and_extents",
            of_extents("both", &|inside| inside.entries().push((9, Cbor::bytes(&[0; 30])))),
        ),
        ("envelope_inside_inline_length_wrong", of_inline("101, not 100", &set(9, Cbor::bytes(&[0; 101])))),
        (
            "envelope_inside_inline_too_long",
            of_inline("65,537 bytes", &|inside| {
                *inside.field(3) = Cbor::Uint(65_537);
                *inside.field(9) = Cbor::bytes(&[0; 65_537]);
            }),
        ),
        (
            "envelope_inside_padding_not_zero",
            of_inline("padding carries nothing", &|inside| inside.entries().push((10, Cbor::bytes(&[0, 1])))),
        ),
    ];
    vectors.drain(..).map(|(name, vector)| (name, "open", vector)).collect()
}
