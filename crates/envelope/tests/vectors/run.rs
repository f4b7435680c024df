//! Does what a vector says, from the file alone.
#![allow(
    clippy::unwrap_in_result,
    reason = "only what the vector may fail at is an error; the rest is a broken vector"
)]

use std::error::Error;

use bulla_envelope::cobblestone;
use bulla_envelope::context::extent_context;
use bulla_envelope::crypto::CryptoProvider;
use bulla_envelope::derive::Anchor;
use bulla_envelope::digest::Digest;
use bulla_envelope::envelope::{BlobRecord, Envelope};
use bulla_envelope::ids::{ExtentName, RootId};
use bulla_envelope::names::{BLOB_KIND, extent_key};
use bulla_envelope::record::{SignedRecord, log_key, object_hash};
use bulla_envelope::secret::{Dek, Root, StoreKey};
use serde_json::Value;

use super::json::{self, hex, text, unhex, unhex_array};
use super::{exports, sealed};

/// The step that failed, and the whole error.
pub(super) type Failure = (&'static str, String);

pub(crate) fn run(crypto: &'static CryptoProvider, vector: &Value) -> Result<(), Failure> {
    match text(&vector["kind"]) {
        "envelope" => envelope(crypto, vector),
        "record" => record(vector),
        "derivations" => {
            derivations(vector);
            Ok(())
        }
        "name" => name(vector),
        "blob key" => blob_key(vector),
        "extent key" => {
            let name = ExtentName::from_bytes(unhex_array(&vector["extent_id"]));
            assert_eq!(extent_key(&name), text(&vector["key"]));
            Ok(())
        }
        "anchor" => {
            let anchor = text(&vector["anchor"]).parse::<Anchor>().map_err(at("decode"))?;
            assert!(anchor.ct_eq(&root(vector).anchor()));
            Ok(())
        }
        "meta object" | "job" | "session" | "audit batch" => sealed::run(crypto, vector),
        "audit export" | "audit proof" => exports::run(vector),
        other => panic!("unknown kind of vector: {other}"),
    }
}

pub(super) fn at<E: Error>(step: &'static str) -> impl Fn(E) -> Failure {
    move |error| {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        (step, message)
    }
}

pub(super) fn root(vector: &Value) -> Root {
    Root::from_slice(&unhex(&vector["root"])).unwrap()
}

fn envelope(crypto: &'static CryptoProvider, vector: &Value) -> Result<(), Failure> {
    let object = unhex(&vector["object"]);
    let requested: Digest = text(&vector["requested"]).parse().unwrap();
    let root = root(vector);
    let envelope = Envelope::decode(&object).map_err(at("decode"))?;
    assert_eq!(envelope.encode(), object);

    let [wrap] = envelope.wraps.as_slice() else { panic!("the vectors have one wrap") };
    assert_eq!(wrap.store_key().unwrap().to_string(), text(&vector["store_key_id"]));
    let store_key = StoreKey::from_slice(&unhex(&vector["store_key"])).unwrap();
    let dek = Dek::from(store_key.unwrap_key(&wrap.value).map_err(at("unwrap"))?);

    let record = envelope.open(crypto, &root.envelope_key(), &dek, &requested).map_err(at("open"))?;
    assert_eq!(json::blob_record(&record), vector["record"]);
    assert_eq!(root.name_key(BLOB_KIND).blob_key(&envelope.header.root, &requested), text(&vector["key"]));
    let plaintext = blob(crypto, &envelope, &dek, &record, &vector["extents"]);
    assert_eq!(Digest::of(requested.algorithm(), &plaintext), requested);
    Ok(())
}

/// The whole plaintext.
fn blob(
    crypto: &'static CryptoProvider,
    envelope: &Envelope,
    dek: &Dek,
    record: &BlobRecord,
    objects: &Value,
) -> Vec<u8> {
    if let Some(inline) = &record.inline {
        return inline.clone();
    }
    let context = extent_context(&envelope.header.store, &record.blob);
    let mut plaintext = Vec::new();
    for extent in &record.extents {
        let object = unhex(&objects[extent_key(&extent.name)]);
        assert_eq!(object[..56], extent.header.to_bytes());
        plaintext.extend_from_slice(&cobblestone::open(crypto, dek.expose(), &context, &object).unwrap());
    }
    plaintext
}

fn record(vector: &Value) -> Result<(), Failure> {
    let object = unhex(&vector["object"]);
    let unverified = SignedRecord::decode(&object).map_err(at("decode"))?;
    let key = root(vector).record_key();
    let record = unverified.verify(&key).map_err(at("verify"))?;
    assert_eq!(json::log_record(&record), vector["record"]);
    let signed = if let Some(pending) = vector.get("pending_root") {
        let pending = Root::from_slice(&unhex(pending)).unwrap().record_key();
        unverified.verify_pending(&key, &pending).map_err(at("verify"))?;
        assert_eq!(unverified.verify(&pending).as_ref(), Ok(&record));
        record.sign_pending(&key, &pending).unwrap()
    } else {
        record.sign(&key).unwrap()
    };
    assert_eq!(signed.object(), object);
    assert_eq!(hex(&object_hash(&object)), text(&vector["hash"]));
    assert_eq!(hex(&unverified.hash()), text(&vector["hash"]));
    assert_eq!(log_key(record.number), text(&vector["key"]));
    Ok(())
}

fn derivations(vector: &Value) {
    let root = root(vector);
    let dek = Dek::from_slice(&unhex(&vector["dek"])).unwrap();
    let keys = &vector["keys"];
    assert_eq!(hex(root.record_key().expose()), text(&keys["record key"]));
    assert_eq!(hex(root.name_key(BLOB_KIND).expose()), text(&keys["name key of blob"]));
    assert_eq!(hex(root.envelope_key().expose()), text(&keys["envelope key"]));
    assert_eq!(hex(root.envelope_key().with_dek(&dek).expose()), text(&keys["EK"]));
    assert_eq!(hex(root.meta_key().expose()), text(&keys["meta key"]));
    assert_eq!(hex(root.upload_key().expose()), text(&keys["upload key"]));
    assert_eq!(hex(root.audit_key().expose()), text(&keys["audit key"]));
    assert_eq!(hex(root.store_key_wrapping_key().expose()), text(&keys["store key wrapping key"]));
    assert_eq!(hex(root.retired_root_wrapping_key().expose()), text(&keys["retired root wrapping key"]));
    assert_eq!(root.anchor().to_string(), text(&vector["anchor"]));
    let store_key = StoreKey::from_slice(&unhex(&vector["store_key"])).unwrap();
    let wrapped = root.store_key_wrapping_key().wrap_key(store_key.expose());
    assert_eq!(hex(&wrapped), text(&vector["wrapped_store_key"]));
    assert_eq!(hex(&store_key.wrap_key(dek.expose())), text(&vector["wrapped_dek"]));
}

fn name(vector: &Value) -> Result<(), Failure> {
    let (kind, parent, component) =
        (text(&vector["name_kind"]), text(&vector["parent"]), text(&vector["component"]));
    let key = root(vector).name_key(kind);
    let name = unhex(&vector["name"]);
    if vector["hashed"] == Value::Bool(true) {
        assert!(key.open_name(kind, parent, component).is_err());
    } else {
        assert_eq!(key.open_name(kind, parent, component).map_err(at("name"))?, name);
    }
    assert_eq!(key.seal_name(kind, parent, &name), component);
    Ok(())
}

fn blob_key(vector: &Value) -> Result<(), Failure> {
    let root_id = RootId::from_bytes(unhex_array(&vector["root_id"]));
    let key = root(vector).name_key(BLOB_KIND);
    let digest = key.digest_of_blob_key(&root_id, text(&vector["key"])).map_err(at("name"))?;
    assert_eq!(digest.to_string(), text(&vector["digest"]));
    assert_eq!(key.blob_key(&root_id, &digest), text(&vector["key"]));
    Ok(())
}
