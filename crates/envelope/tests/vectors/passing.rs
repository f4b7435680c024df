//! The scenarios that work.

use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::envelope::{BlobRecord, Envelope};
use bulla_envelope::ids::{ExtentName, RootId};
use bulla_envelope::names::{BLOB_KIND, extent_key};
use bulla_envelope::record::{LogRecord, SignedRecord, log_key};
use serde_json::{Value, json};

use super::json::{self, hex};
use super::{Vectors, exports, sealed};
use crate::cbor_value::Cbor;
use crate::samples;

pub(super) fn all() -> Vectors {
    let vectors = [
        envelopes(),
        records(),
        names(),
        [("derivations", derivations())].into(),
        sealed::passing(),
        exports::passing(),
    ];
    vectors.into_iter().flatten().map(|(name, vector)| (name.to_owned(), vector)).collect()
}

/// What every envelope vector has, whatever its object is.
pub(super) fn envelope(about: &str, requested: &Digest, object: &[u8]) -> Value {
    json!({
        "about": about,
        "kind": "envelope",
        "root": hex(samples::root().expose()),
        "store_key": hex(samples::store_key().expose()),
        "store_key_id": samples::store_key_id().to_string(),
        "requested": requested.to_string(),
        "object": hex(object),
    })
}

/// What every record vector has, whatever its object is.
pub(super) fn record(about: &str, object: &[u8]) -> Value {
    json!({ "about": about, "kind": "record", "root": hex(samples::root().expose()), "object": hex(object) })
}

fn opens(about: &str, record: &BlobRecord, envelope_: &Envelope, extents: &[Vec<u8>]) -> Value {
    let mut vector = envelope(about, &record.digest, &envelope_.encode());
    let key = samples::root().name_key(BLOB_KIND).blob_key(&samples::root_id(), &record.digest);
    vector["store_id"] = hex(samples::store_id().as_bytes()).into();
    vector["root_id"] = hex(samples::root_id().as_bytes()).into();
    vector["dek"] = hex(samples::dek().expose()).into();
    vector["salt"] = hex(&samples::salt()).into();
    vector["key"] = key.into();
    vector["record"] = json::blob_record(record);
    vector["extents"] = record
        .extents
        .iter()
        .zip(extents)
        .map(|(extent, message)| (extent_key(&extent.name), Value::from(hex(message))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    vector
}

fn envelopes() -> Vec<(&'static str, Value)> {
    let crypto = CryptoProvider::rust_crypto();
    let inline = samples::inline_record(Algorithm::Sha256, &samples::plaintext(100));
    let expiring = BlobRecord { expires: Some(samples::CREATED + 86_400_000), ..inline.clone() };
    // FORMAT-E14
    let renewed = BlobRecord { there_since: Some(samples::CREATED + 1), ..inline.clone() };
    let sha512 = samples::inline_record(Algorithm::Sha512, &samples::plaintext(100));
    let empty = samples::inline_record(Algorithm::Sha256, b"");
    let (one, one_message) = samples::extents_record(crypto, &[1]);
    // Before, at and after a chunk's end.
    let (several, messages) = samples::extents_record(crypto, &[16_384, 100, 16_385]);
    let seal = |record| samples::seal(crypto, record);
    // FORMAT-E12
    let padded = {
        let mut plaintext = inner(&inline);
        plaintext.entries().push((10, Cbor::bytes(&[0; 300])));
        seal_inner(&inline.digest, &plaintext.encode())
    };
    vec![
        ("envelope_inline", opens("a blob in its envelope", &inline, &seal(&inline), &[])),
        ("envelope_renewed", opens("a blob whose envelope was renewed", &renewed, &seal(&renewed), &[])),
        ("envelope_expires", opens("a blob that expires a day later", &expiring, &seal(&expiring), &[])),
        ("envelope_sha512", opens("a blob named by its SHA-512", &sha512, &seal(&sha512), &[])),
        ("envelope_empty_blob", opens("an empty blob is inline", &empty, &seal(&empty), &[])),
        ("envelope_one_extent", opens("a blob of one byte in one extent", &one, &seal(&one), &one_message)),
        (
            "envelope_several_extents",
            opens("three extents: one whole chunk, less, a byte more", &several, &seal(&several), &messages),
        ),
        ("envelope_padded", opens("reserved: padding inside is ignored", &inline, &padded, &[])),
    ]
}

/// The sealed plaintext of `record`, taken apart.
pub(super) fn inner(record: &BlobRecord) -> Cbor {
    let crypto = CryptoProvider::rust_crypto();
    let sealed = samples::seal(crypto, record).sealed;
    let key = samples::root().envelope_key().with_dek(&samples::dek());
    let context = bulla_envelope::context::envelope_context(&header_bytes(), &record.digest);
    Cbor::decode(&bulla_envelope::cobblestone::open(crypto, key.expose(), &context, &sealed).unwrap())
}

/// An envelope for `digest` that holds any plaintext, sealed with the right keys.
pub(super) fn seal_inner(digest: &Digest, plaintext: &[u8]) -> Envelope {
    let crypto = CryptoProvider::rust_crypto();
    let key = samples::root().envelope_key().with_dek(&samples::dek());
    let context = bulla_envelope::context::envelope_context(&header_bytes(), digest);
    let sealed =
        bulla_envelope::cobblestone::seal(crypto, key.expose(), &context, samples::salt(), plaintext);
    Envelope { header: samples::header(), wraps: samples::wraps(), sealed }
}

fn header_bytes() -> Vec<u8> {
    let ids = [Cbor::bytes(samples::store_id().as_bytes()), Cbor::bytes(samples::root_id().as_bytes())];
    Cbor::Array([Cbor::text("Cobblestone-256")].into_iter().chain(ids).collect()).encode()
}

fn verifies(about: &str, signed: &SignedRecord) -> Value {
    let mut vector = record(about, signed.object());
    vector["record"] = json::log_record(signed.record());
    vector["hash"] = hex(&signed.hash()).into();
    vector["key"] = log_key(signed.record().number).into();
    vector
}

fn records() -> Vec<(&'static str, Value)> {
    let (old, new) = (samples::root().record_key(), samples::new_root().record_key());
    let sign = |record: LogRecord| record.sign(&old).unwrap();
    let mut pending = verifies(
        "a new root is named: signed under both roots",
        &samples::pending_record().sign_pending(&old, &new).unwrap(),
    );
    pending["pending_root"] = hex(samples::new_root().expose()).into();
    let mut retiring = verifies(
        "the new root is active and wraps the old one; each has a store key",
        &samples::retiring_record().sign(&new).unwrap(),
    );
    retiring["root"] = hex(samples::new_root().expose()).into();
    vec![
        ("record_hierarchical", verifies("a store's first record", &sign(samples::first_record()))),
        ("record_direct", verifies("the KEK wraps DEKs; service-managed", &sign(samples::direct_record()))),
        (
            "record_rotating_two_groups",
            verifies("either KEK opens the root", &sign(samples::rotating_record())),
        ),
        ("record_two_party_group", verifies("both KEKs are needed", &sign(samples::two_party_record()))),
        (
            "record_second_party_joins",
            verifies("the first party's KEK alone still opens the root", &sign(samples::joining_record())),
        ),
        ("record_pending_root", pending),
        ("record_retiring_root", retiring),
    ]
}

// FORMAT-N1, FORMAT-N2, FORMAT-N3
fn names() -> Vec<(&'static str, Value)> {
    let root = samples::root();
    let name = |about: &str, kind: &str, parent: &str, name: &[u8]| {
        let component = root.name_key(kind).seal_name(kind, parent, name);
        json!({
            "about": about,
            "kind": "name",
            "root": hex(root.expose()),
            "name_kind": kind,
            "parent": parent,
            "name": hex(name),
            "hashed": component.starts_with('_'),
            "component": component,
        })
    };
    let blob_key = |about: &str, algorithm: Algorithm| {
        let digest = Digest::of(algorithm, &samples::plaintext(100));
        blob_key(about, samples::root_id(), &digest)
    };
    let extent = ExtentName::from_bytes(samples::bytes(0x7f));
    vec![
        ("name_sealed", name("a repository's name", "repository", "meta/r", b"library/busybox")),
        ("name_empty", name("an empty name", "repository", "meta/r", b"")),
        ("name_longest_reversible", name("109 bytes make 200", "tag", "meta/r/x", &[b'a'; 109])),
        ("name_hashed", name("110 bytes take the second form", "tag", "meta/r/x", &[b'a'; 110])),
        ("blob_key_sha256", blob_key("the key of an envelope", Algorithm::Sha256)),
        ("blob_key_sha512", blob_key("the key of an envelope", Algorithm::Sha512)),
        (
            "extent_key",
            json!({
                "about": "the key of an extent",
                "kind": "extent key",
                "extent_id": hex(extent.as_bytes()),
                "key": extent_key(&extent),
            }),
        ),
        ("anchor", anchor("the anchor of a store", &root.anchor().to_string())),
    ]
}

pub(super) fn blob_key(about: &str, root_id: RootId, digest: &Digest) -> Value {
    json!({
        "about": about,
        "kind": "blob key",
        "root": hex(samples::root().expose()),
        "root_id": hex(root_id.as_bytes()),
        "digest": digest.to_string(),
        "key": samples::root().name_key(BLOB_KIND).blob_key(&root_id, digest),
    })
}

pub(super) fn anchor(about: &str, anchor: &str) -> Value {
    json!({ "about": about, "kind": "anchor", "root": hex(samples::root().expose()), "anchor": anchor })
}

// FORMAT-K1, FORMAT-K2
fn derivations() -> Value {
    let (root, store_key, dek) = (samples::root(), samples::store_key(), samples::dek());
    json!({
        "about": "everything that is derived, and the wraps that are deterministic",
        "kind": "derivations",
        "root": hex(root.expose()),
        "store_key": hex(store_key.expose()),
        "dek": hex(dek.expose()),
        "keys": {
            "record key": hex(root.record_key().expose()),
            "name key of blob": hex(root.name_key(BLOB_KIND).expose()),
            "envelope key": hex(root.envelope_key().expose()),
            "EK": hex(root.envelope_key().with_dek(&dek).expose()),
            "meta key": hex(root.meta_key().expose()),
            "upload key": hex(root.upload_key().expose()),
            "audit key": hex(root.audit_key().expose()),
            "store key wrapping key": hex(root.store_key_wrapping_key().expose()),
            "retired root wrapping key": hex(root.retired_root_wrapping_key().expose()),
        },
        "anchor": root.anchor().to_string(),
        "wrapped_store_key": hex(&root.store_key_wrapping_key().wrap_key(store_key.expose())),
        "wrapped_dek": hex(&store_key.wrap_key(dek.expose())),
    })
}
