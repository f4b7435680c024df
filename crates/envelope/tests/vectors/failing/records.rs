//! Log records that are refused.

use bulla_envelope::record::LogRecord;
use serde_json::Value;

use super::super::json::hex;
use super::super::passing;
use super::Failing;
use crate::cbor_value::Cbor;
use crate::samples;

pub(super) fn all() -> Vec<Failing> {
    [frames(), macs(), states(), keks_and_store_keys(), parties(), roots()].concat()
}

fn object(record: &LogRecord) -> Vec<u8> {
    record.sign(&samples::root().record_key()).unwrap().into_object()
}

/// The body of `record`, taken apart, changed and signed as it should be.
fn edited(record: &LogRecord, about: &str, edit: impl FnOnce(&mut Cbor)) -> Value {
    let mut body = Cbor::decode(Cbor::decode(&object(record)).items()[1].as_bytes());
    edit(&mut body);
    signed(about, &body.encode())
}

fn signed(about: &str, body: &[u8]) -> Value {
    let mac = samples::root().record_key().mac(body);
    framed(about, body, &mac)
}

fn framed(about: &str, body: &[u8], mac: &[u8]) -> Value {
    let object = Cbor::Array(vec![Cbor::Uint(1), Cbor::bytes(body), Cbor::bytes(mac)]);
    passing::record(about, &object.encode())
}

fn first(about: &str, edit: impl FnOnce(&mut Cbor)) -> Value {
    edited(&samples::first_record(), about, edit)
}

fn set(key: u64, value: Cbor) -> impl FnOnce(&mut Cbor) {
    move |body| *body.field(key) = value
}

/// Element `element` of entry `entry` of the list at `key`.
fn element(key: u64, entry: usize, element: usize, value: Cbor) -> impl FnOnce(&mut Cbor) {
    move |body| body.field(key).items_mut()[entry].items_mut()[element] = value
}

fn decode(vectors: Vec<(&'static str, Value)>) -> Vec<Failing> {
    vectors.into_iter().map(|(name, vector)| (name, "decode", vector)).collect()
}

// FORMAT-C1, FORMAT-C2, FORMAT-C5, FORMAT-L1, FORMAT-L4
fn frames() -> Vec<Failing> {
    let object = object(&samples::first_record());
    let edit = |about: &str, edit: &dyn Fn(&mut Vec<Cbor>)| {
        let mut object = Cbor::decode(&object);
        edit(object.items_mut());
        passing::record(about, &object.encode())
    };
    decode(vec![
        ("record_truncated", passing::record("the last byte is missing", &object[..object.len() - 1])),
        ("record_trailing_byte", passing::record("a byte follows", &[object.as_slice(), &[0]].concat())),
        ("record_empty_object", passing::record("no bytes", b"")),
        ("record_stub", passing::record("a stub, which is not a record", &[0x81, 0x01])),
        ("record_stub_not_canonical", passing::record("not a stub either", &[0x81, 0x18, 0x01])),
        ("record_unknown_version", edit("version 2", &|object| object[0] = Cbor::Uint(2))),
        ("record_without_mac", edit("two elements", &|object| drop(object.pop()))),
        ("record_fourth_element", edit("one element too many", &|object| object.push(Cbor::Null))),
        ("record_body_is_text", edit("a text string", &|object| object[1] = Cbor::text("body"))),
        (
            "record_body_not_canonical",
            signed("the map's length takes two bytes", &{
                let body = Cbor::decode(&object).items()[1].as_bytes().to_vec();
                [&[0xb8, body[0] & 0x1f], &body[1..]].concat()
            }),
        ),
        ("record_body_keys_not_ascending", first("2 before 1", |body| body.entries().swap(0, 1))),
        ("record_body_unknown_key", first("key 16", |body| body.entries().push((16, Cbor::Null)))),
        ("record_body_no_identity", first("key 6 is missing", |body| drop(body.entries().remove(5)))),
    ])
}

// FORMAT-L2, FORMAT-L3
fn macs() -> Vec<Failing> {
    let (old, new) = (samples::root().record_key(), samples::new_root().record_key());
    let object = object(&samples::first_record());
    let parts = Cbor::decode(&object);
    let (body, mac) = (parts.items()[1].as_bytes(), parts.items()[2].as_bytes());
    let mut flipped = mac.to_vec();
    flipped[63] ^= 1;
    let mut longer_lease = Cbor::decode(body);
    *longer_lease.field(5) = Cbor::Uint(60_001);
    let longer_lease = longer_lease.encode();
    let mut another_root = passing::record("signed under another root", &object);
    another_root["root"] = hex(samples::new_root().expose()).into();

    let pending = samples::pending_record().sign_pending(&old, &new).unwrap();
    let parts = Cbor::decode(pending.object());
    let (pending_body, both) = (parts.items()[1].as_bytes(), parts.items()[2].as_bytes());
    let mut by_new_flipped = both.to_vec();
    by_new_flipped[127] ^= 1;
    let mut only_old_signed = framed("the pending root's MAC is wrong", pending_body, &by_new_flipped);
    only_old_signed["pending_root"] = hex(samples::new_root().expose()).into();
    only_old_signed["record"] = super::super::json::log_record(pending.record());
    let swapped = [&both[64..], &both[..64]].concat();
    let mut swapped = framed("the two MACs are swapped", pending_body, &swapped);
    swapped["pending_root"] = hex(samples::new_root().expose()).into();
    swapped["record"] = super::super::json::log_record(pending.record());

    vec![
        ("record_mac_wrong", "verify", framed("the last bit of the MAC is flipped", body, &flipped)),
        ("record_body_changed", "verify", framed("a longer lease, the old MAC", &longer_lease, mac)),
        ("record_of_another_root", "verify", another_root),
        ("record_mac_short", "decode", framed("63 bytes", body, &mac[..63])),
        (
            "record_two_macs_without_pending_root",
            "decode",
            framed("128 bytes, and no root is pending", body, &[mac, mac].concat()),
        ),
        (
            "record_one_mac_with_pending_root",
            "decode",
            framed("64 bytes, and a root is pending", pending_body, &both[..64]),
        ),
        ("record_pending_root_signed_by_old_only", "verify", only_old_signed),
        ("record_pending_macs_swapped", "verify", swapped),
    ]
}

// FORMAT-C6, FORMAT-C7, FORMAT-L5, FORMAT-L6
fn states() -> Vec<Failing> {
    decode(vec![
        ("record_number_zero", first("numbers begin with 1", set(1, Cbor::Uint(0)))),
        ("record_number_too_large", first("nine digits", set(1, Cbor::Uint(100_000_000)))),
        ("record_history_short", first("record 2 without a history", set(1, Cbor::Uint(2)))),
        (
            "record_history_long",
            first("record 1 with a history", set(2, Cbor::Array(vec![Cbor::bytes(&[0; 32])]))),
        ),
        (
            "record_history_claims_more_than_there_is",
            first("an array of 2³² hashes", set(2, Cbor::Raw(vec![0x9b, 0, 0, 0, 1, 0, 0, 0, 0]))),
        ),
        ("record_unknown_mode", first("mode 2", set(4, Cbor::Uint(2)))),
        ("record_no_revocation_bound", first("R is 0", set(5, Cbor::Uint(0)))),
        ("record_revocation_bound_too_long", first("R is over a year", set(5, Cbor::Uint(31_622_400_001)))),
        ("record_identity_empty", first("nobody", set(6, Cbor::text("")))),
        ("record_identity_with_newline", first("a control character", set(6, Cbor::text("system\n")))),
        ("record_key_id_with_space", first("not printable", set(7, Cbor::text("a key")))),
        ("record_managed_by_nobody", first("2", set(13, Cbor::Uint(2)))),
        ("record_written_in_year_10000", first("too late", set(14, Cbor::Uint(253_402_300_800_000)))),
    ])
}

// FORMAT-L7, FORMAT-L11, FORMAT-S3
fn keks_and_store_keys() -> Vec<Failing> {
    let twice = |key: u64| {
        move |body: &mut Cbor| {
            let entries = body.field(key).items_mut();
            entries.push(entries[0].clone());
        }
    };
    let retiring = samples::retiring_record;
    decode(vec![
        ("record_no_keks", first("none", set(8, Cbor::Array(Vec::new())))),
        ("record_no_active_kek", first("all are retiring", element(8, 0, 2, Cbor::Uint(1)))),
        ("record_kek_twice", first("the same kid and alg", twice(8))),
        ("record_kek_unknown_state", first("state 2", element(8, 0, 2, Cbor::Uint(2)))),
        (
            "record_kek_named_like_a_store_key",
            first("a wrap under it would look local", element(8, 0, 0, Cbor::text("store-key:abc"))),
        ),
        ("record_kek_rsa1_5", first("RSAES-PKCS1-v1_5", element(8, 0, 1, Cbor::text("RSA1_5")))),
        ("record_no_store_keys", first("none", set(10, Cbor::Array(Vec::new())))),
        ("record_no_active_store_key", first("it is retired", element(10, 0, 1, Cbor::Uint(2)))),
        ("record_two_active_store_keys", edited(&retiring(), "both", element(10, 0, 1, Cbor::Uint(0)))),
        ("record_store_key_twice", first("the same id", twice(10))),
        ("record_store_key_short", first("39 bytes", element(10, 0, 3, Cbor::bytes(&[0; 39])))),
        (
            "record_store_key_of_unknown_root",
            first("no such root here", element(10, 0, 2, Cbor::bytes(&[0; 16]))),
        ),
    ])
}

// FORMAT-L6, FORMAT-L13
fn parties() -> Vec<Failing> {
    let two = samples::two_party_record;
    let party = |identity: &str, key: &str| Cbor::Array(vec![Cbor::text(identity), Cbor::text(key)]);
    let many = |count| set(15, Cbor::Array(vec![party("escrow", "k"); count]));
    decode(vec![
        ("record_other_parties_none", edited(&two(), "an empty list", many(0))),
        ("record_nine_parties", edited(&two(), "eight others", many(8))),
        ("record_party_identity_empty", edited(&two(), "nobody", element(15, 0, 0, Cbor::text("")))),
        (
            "record_party_key_id_with_space",
            edited(&two(), "not printable", element(15, 0, 1, Cbor::text("a key"))),
        ),
        ("record_two_parties_direct", edited(&two(), "a KEK wraps each DEK: which?", set(4, Cbor::Uint(1)))),
        (
            "record_two_parties_service_managed",
            edited(&two(), "the service is no party", set(13, Cbor::Uint(0))),
        ),
    ])
}

// FORMAT-L8, FORMAT-L9, FORMAT-L10
fn roots() -> Vec<Failing> {
    let retiring = samples::retiring_record;
    let no_groups = || element(9, 0, 2, Cbor::Array(Vec::new()));
    let empty_group = || element(9, 0, 2, Cbor::Array(vec![Cbor::Array(Vec::new())]));
    let in_group = |change: fn(&mut Vec<Cbor>)| {
        move |body: &mut Cbor| {
            change(body.field(9).items_mut()[0].items_mut()[2].items_mut()[0].items_mut());
        }
    };
    decode(vec![
        ("record_no_roots", first("none", set(9, Cbor::Array(Vec::new())))),
        ("record_no_active_root", first("it is pending", element(9, 0, 1, Cbor::Uint(2)))),
        (
            "record_two_active_roots",
            edited(&retiring(), "both", |body: &mut Cbor| {
                let groups = body.field(9).items()[1].items()[2].clone();
                element(9, 0, 1, Cbor::Uint(0))(body);
                element(9, 0, 2, groups)(body);
                element(9, 0, 3, Cbor::Null)(body);
            }),
        ),
        (
            "record_root_twice",
            edited(&retiring(), "the same id", |body: &mut Cbor| {
                let id = body.field(9).items()[1].items()[0].clone();
                element(9, 0, 0, id)(body);
            }),
        ),
        ("record_root_unknown_state", first("state 3", element(9, 0, 1, Cbor::Uint(3)))),
        ("record_root_without_groups", first("nobody could open it", no_groups())),
        ("record_group_empty", first("everybody could open it", empty_group())),
        (
            "record_active_root_with_parent",
            first("wrapped under itself?", element(9, 0, 3, Cbor::bytes(&[0; 40]))),
        ),
        (
            "record_retiring_root_without_parent",
            edited(&retiring(), "nobody could open it", element(9, 0, 3, Cbor::Null)),
        ),
        (
            "record_retiring_root_with_groups",
            edited(&retiring(), "the KEK would still open it", |body: &mut Cbor| {
                let groups = body.field(9).items()[1].items()[2].clone();
                element(9, 0, 2, groups)(body);
            }),
        ),
        (
            "record_retiring_root_short",
            edited(&retiring(), "39 bytes", element(9, 0, 3, Cbor::bytes(&[0; 39]))),
        ),
        (
            "record_group_one_kek_twice",
            edited(
                &samples::two_party_record(),
                "one party would be both",
                in_group(|group| group[1] = group[0].clone()),
            ),
        ),
        (
            "record_group_of_nine",
            first(
                "at most eight",
                in_group(|group| {
                    let wrap = group[0].clone();
                    *group = vec![wrap; 9];
                }),
            ),
        ),
        (
            "record_group_of_two_and_one_party",
            edited(&samples::two_party_record(), "whose is the second member?", |body| {
                drop(body.entries().pop())
            }),
        ),
        (
            "record_group_of_two_and_three_parties",
            edited(&samples::two_party_record(), "one could be left out", |body: &mut Cbor| {
                let parties = body.field(15).items_mut();
                parties.push(parties[0].clone());
            }),
        ),
        (
            "record_root_wrapped_by_unlisted_kek",
            first(
                "the kid is not in key 8",
                in_group(|group| group[0].items_mut()[0] = Cbor::text(samples::KEK_2)),
            ),
        ),
        (
            "record_root_wrapped_with_unlisted_alg",
            first(
                "the alg is not in key 8",
                in_group(|group| group[0].items_mut()[1] = Cbor::text("A256KW")),
            ),
        ),
    ])
}
