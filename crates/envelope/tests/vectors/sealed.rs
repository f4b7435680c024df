//! Small sealed objects and batches of the audit log: meta objects, jobs, sessions. What is inside stands in the files in
//! CBOR's diagnostic notation (RFC 8949 §8), so that foreign code can compare it.
#![allow(
    clippy::unwrap_in_result,
    reason = "only what the vector may fail at is an error; the rest is a broken vector"
)]

use bulla_envelope::audit::{Batch, Entry, audit_key};
use bulla_envelope::cobblestone;
use bulla_envelope::context::{audit_context, meta_context, upload_context};
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::digest::{Algorithm, Digest};
use bulla_envelope::envelope::EnvelopeHeader;
use bulla_envelope::ids::{RootId, SessionId, StoreId};
use bulla_envelope::job::{Horizon, JOB_KIND, Job};
use bulla_envelope::meta::{MetaKeys, MetaKind, MetaRecord};
use bulla_envelope::object::SealedObject;
use bulla_envelope::session::{SessionRecord, UPLOAD_KIND};
use serde_json::{Value, json};

use super::json::{hex, text, unhex, unhex_array};
use super::run::{Failure, at, root};
use crate::cbor_value::Cbor;
use crate::{audit, jobs, meta, samples, sessions};

/// The kind of the meta objects here.
const TAG: MetaKind = MetaKind::new("tag", 2);

pub(super) fn passing() -> Vec<(&'static str, Value)> {
    let horizon = Job::Horizon(Horizon { before: samples::CREATED });
    let (crypto, key) = (CryptoProvider::rust_crypto(), samples::root().meta_key());
    let horizon = horizon.seal(crypto, &key, samples::header(), "gc", samples::salt()).unwrap();
    let plain = sessions::record(Algorithm::Sha256);
    let committing = SessionRecord {
        committing: Some(Digest::of(Algorithm::Sha512, &samples::plaintext(180))),
        ..sessions::record(Algorithm::Sha512)
    };
    let first = Batch { number: 1, first: 0, previous: None, ..audit::batch() };
    vec![
        ("meta_object", meta_object("a tag's record", &meta::key(), &meta::seal(&meta::record()))),
        ("job_sweep", job("a row is done, another is claimed", jobs::NAME, &jobs::seal(&jobs::sweep()))),
        ("job_horizon", job("the gc horizon", "gc", &horizon)),
        ("session", session("two extents and a tail", &sessions::seal(&plain))),
        ("session_committing", session("it is being committed, by SHA-512", &sessions::seal(&committing))),
        ("audit_batch_first", batch("the first batch follows none", 1, &audit::seal(&first))),
        ("audit_batch", batch("an entry of each shape", 3, &audit::seal(&audit::batch()))),
    ]
}

// FORMAT-J1, FORMAT-J3, FORMAT-M2, FORMAT-M3, FORMAT-U2, FORMAT-U3, FORMAT-T1, FORMAT-T2
pub(super) fn failing() -> Vec<(&'static str, &'static str, Value)> {
    let crypto = CryptoProvider::rust_crypto();
    let at_key =
        |path: &[&str]| samples::root().name_key(TAG.name()).meta_key(&samples::root_id(), TAG, path);
    let object = meta::seal(&meta::record());
    let mut elsewhere = meta_object("in another store", &meta::key(), &object);
    elsewhere["store_id"] = hex(&[1; 16]).into();
    let mut cut = Cbor::decode(&object);
    cut.items_mut().pop();
    let mut moved = content_of(&meta_object("", &meta::key(), &object));
    moved.items_mut()[0].items_mut()[1] = Cbor::text("other");
    let moved = moved.encode();
    let swept = jobs::seal(&jobs::sweep());
    let plain = sessions::seal(&sessions::record(Algorithm::Sha256));
    let mut another = session("as another session", &plain);
    another["id"] = hex(&[9; 16]).into();
    let mut claimed = content_of(&job("", jobs::NAME, &swept));
    claimed.items_mut()[2].items_mut()[0].items_mut()[1] =
        Cbor::Array(vec![Cbor::bytes(&[7; 16]), Cbor::Uint(samples::CREATED)]);
    let mut rest = content_of(&session("", &plain));
    rest.field(6).items_mut()[2] = Cbor::bytes(&[0; 51]);
    let mut numbered = inside(crypto, &batch("", 3, &audit::seal(&audit::batch()))).unwrap();
    let mut later = numbered.clone();
    numbered.items_mut()[0] = Cbor::Uint(4);
    let Cbor::Bytes(entry) = &mut later.items_mut()[3].items_mut()[0] else { panic!("an entry") };
    entry[1] = 2;
    vec![
        ("meta_object_without_sealed", "decode", meta_object("two elements", &meta::key(), &cut.encode())),
        ("meta_object_of_another_store", "open", elsewhere),
        (
            "meta_object_at_another_key",
            "open",
            meta_object("put elsewhere", &at_key(&["example/app", "other"]), &object),
        ),
        (
            "meta_object_with_another_path_inside",
            "open",
            meta_object("sealed for this key, of another path", &meta::key(), &meta::with_content(&moved)),
        ),
        ("job_under_another_name", "open", job("put elsewhere", "gc", &swept)),
        (
            "job_done_row_with_a_claim",
            "open",
            job("a row that is done is nobody's", jobs::NAME, &jobs::with_content(&claimed.encode())),
        ),
        ("session_of_another_id", "open", another),
        (
            "session_rest_of_another_length",
            "open",
            session("180 bytes leave 52 after two blocks", &sessions::with_content(&rest.encode())),
        ),
        ("audit_batch_in_another_place", "open", batch("put elsewhere", 4, &audit::seal(&audit::batch()))),
        (
            "audit_batch_with_another_number_inside",
            "open",
            batch("sealed for this place", 3, &audit::with_inside(&numbered)),
        ),
        (
            "audit_batch_with_a_later_entry",
            "open",
            batch("an entry of version 2", 3, &audit::with_inside(&later)),
        ),
    ]
}

fn vector(about: &str, kind: &str, object: &[u8]) -> Value {
    json!({
        "about": about,
        "kind": kind,
        "root": hex(samples::root().expose()),
        "store_id": hex(samples::store_id().as_bytes()),
        "root_id": hex(samples::root_id().as_bytes()),
        "salt": hex(&samples::salt()),
        "object": hex(object),
    })
}

fn meta_object(about: &str, key: &str, object: &[u8]) -> Value {
    let mut vector = vector(about, "meta object", object);
    vector["meta_kind"] = TAG.name().into();
    vector["key"] = key.into();
    with_content(vector)
}

fn job(about: &str, name: &str, object: &[u8]) -> Value {
    let mut vector = vector(about, "job", object);
    vector["name"] = name.into();
    vector["key"] = samples::root().name_key(JOB_KIND).job_key(name).into();
    with_content(vector)
}

fn session(about: &str, object: &[u8]) -> Value {
    let mut vector = vector(about, "session", object);
    vector["id"] = hex(sessions::id().as_bytes()).into();
    vector["key"] = samples::root().name_key(UPLOAD_KIND).upload_key(&sessions::id()).into();
    with_content(vector)
}

fn batch(about: &str, number: u64, object: &[u8]) -> Value {
    let mut vector = vector(about, "audit batch", object);
    vector["number"] = number.into();
    vector["key"] = audit_key(number).into();
    with_content(vector)
}

/// With what is inside, if it opens as what it is meant to be.
fn with_content(mut vector: Value) -> Value {
    if let Some(content) = content(CryptoProvider::rust_crypto(), &vector) {
        vector["content"] = content.into();
    }
    vector
}

/// The content of a small sealed object.
fn content_of(vector: &Value) -> Cbor {
    Cbor::decode(inside(CryptoProvider::rust_crypto(), vector).unwrap().field(3).as_bytes())
}

/// What is sealed in the object of a vector, if it opens.
fn inside(crypto: &'static CryptoProvider, vector: &Value) -> Option<Cbor> {
    let root = root(vector);
    let ids = ["store_id", "root_id"].map(|id| Cbor::bytes(&unhex(&vector[id])));
    let header = Cbor::Array([Cbor::text("Cobblestone-256")].into_iter().chain(ids).collect()).encode();
    let (key, context) = match text(&vector["kind"]) {
        "meta object" => {
            let name = text(&vector["key"]).as_bytes();
            (*root.meta_key().expose(), meta_context(&header, text(&vector["meta_kind"]), name))
        }
        "job" => {
            (*root.meta_key().expose(), meta_context(&header, JOB_KIND, text(&vector["name"]).as_bytes()))
        }
        "session" => (*root.upload_key().expose(), upload_context(&header, &unhex(&vector["id"]))),
        _ => (*root.audit_key().expose(), audit_context(&header, vector["number"].as_u64().unwrap())),
    };
    let object = SealedObject::decode(&unhex(&vector["object"])).ok()?;
    let plaintext = cobblestone::open(crypto, &key, &context, &object.sealed).ok()?;
    Some(Cbor::decode(&plaintext))
}

/// It in diagnostic notation: the content, or of a batch all of it, its entries decoded as well.
fn content(crypto: &'static CryptoProvider, vector: &Value) -> Option<String> {
    let mut inside = inside(crypto, vector)?;
    if text(&vector["kind"]) != "audit batch" {
        return Some(Cbor::decode(inside.field(3).as_bytes()).notation());
    }
    for entry in inside.items_mut()[3].items_mut() {
        *entry = Cbor::decode(entry.as_bytes());
    }
    Some(inside.notation())
}

fn header(vector: &Value) -> EnvelopeHeader {
    EnvelopeHeader {
        store: StoreId::from_bytes(unhex_array(&vector["store_id"])),
        root: RootId::from_bytes(unhex_array(&vector["root_id"])),
    }
}

pub(super) fn run(crypto: &'static CryptoProvider, vector: &Value) -> Result<(), Failure> {
    let (root, header, object) = (root(vector), header(vector), unhex(&vector["object"]));
    let (salt, key) = (unhex_array(&vector["salt"]), text(&vector["key"]));
    SealedObject::decode(&object).map_err(at("decode"))?;
    let again = match text(&vector["kind"]) {
        "meta object" => {
            assert_eq!(text(&vector["meta_kind"]), TAG.name());
            let (meta, names) = (root.meta_key(), root.name_key(TAG.name()));
            let keys = || MetaKeys { meta: &meta, names: &names };
            let record = MetaRecord::open(crypto, keys(), header, TAG, key, &object);
            record.map_err(at("open"))?.seal(crypto, keys(), header, TAG, salt)
        }
        "job" => {
            let name = text(&vector["name"]);
            let job = Job::open(crypto, &root.meta_key(), header, name, &object).map_err(at("open"))?;
            assert_eq!(root.name_key(JOB_KIND).job_key(name), key);
            job.seal(crypto, &root.meta_key(), header, name, salt)
        }
        "session" => {
            let id = SessionId::from_bytes(unhex_array(&vector["id"]));
            let record = SessionRecord::open(crypto, &root.upload_key(), header, &id, &object);
            let record = record.map_err(at("open"))?;
            assert_eq!(root.name_key(UPLOAD_KIND).upload_key(&id), key);
            record.seal(crypto, &root.upload_key(), header, &id, salt)
        }
        _ => {
            let number = vector["number"].as_u64().unwrap();
            let batch = Batch::open(crypto, &root.audit_key(), header, number, &object);
            let batch = batch.map_err(at("open"))?;
            for entry in &batch.entries {
                assert_eq!(&Entry::decode(entry).unwrap().encode().unwrap(), entry);
            }
            assert_eq!(audit_key(number), key);
            batch.seal(crypto, &root.audit_key(), header, salt)
        }
    };
    assert_eq!(again.unwrap(), object);
    assert_eq!(content(crypto, vector).as_deref(), Some(text(&vector["content"])));
    Ok(())
}
